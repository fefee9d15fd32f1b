"""A scripted server with OpenAI's files and batches, and the faults that cost money when a client takes them lightly.

It answers each line of an uploaded file as `MockServer` would answer the request, after `polls` looks."""

import json
import re
from collections.abc import Callable

from mock_server import MockServer, Refusal, echo, send

_QUEUE_FULL = {
    "code": "token_limit_exceeded",
    "line": None,
    "message": "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens.",
}


class BatchServer(MockServer):
    "A mock server that takes batches."

    def __init__(
        self,
        answer: Callable[[dict], str] = echo,
        polls: int = 1,  # looks until a batch is over
        lost: int = 0,  # creations that are carried out and whose reply is lost
        ends: str = "completed",  # or failed, expired (after half of its lines), cancelled
        broken: int = 0,  # looks that are answered with HTTP 500
        queue: int = 10**9,  # requests that may wait, of all batches together
        largest: int = 10**9,  # bytes of a file
        **how,
    ):
        super().__init__(answer, **how)
        self.polls, self.lost, self.ends, self.broken = polls, lost, ends, broken
        self.queue, self.largest = queue, largest
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}

    async def _one(self, line: str, data: bytes, writer) -> bool:
        method, path = line.split()[:2]
        if not re.match(r"/v1/(files|batches)", path):
            return await super()._one(line, data, writer)
        path = path.partition("?")[0].removeprefix("/v1/")
        if (method, path) == ("POST", "files") and len(_uploaded(data)) > self.largest:
            await send(writer, 413, {"error": {"message": "Request Entity Too Large"}}, {})
        elif (method, path) == ("POST", "files"):
            self.files[name := f"file-{len(self.files)}"] = _uploaded(data)
            await send(writer, 200, {"id": name, "object": "file", "purpose": "batch"}, {})
        elif (method, path) == ("POST", "batches"):
            batch = self._create(json.loads(data))
            if self.lost:
                self.lost -= 1
                return False
            await send(writer, 200, batch, {})
        elif path == "batches":
            await send(writer, 200, {"object": "list", "data": list(self.batches.values()), "has_more": False}, {})
        elif path.endswith("/content"):
            text = self.files[path.split("/")[1]]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            await writer.drain()
        elif path.split("/")[1] not in self.batches:
            await send(writer, 404, {"error": {"message": "No batch found with that id"}}, {})
        elif self.broken:
            self.broken -= 1
            await send(writer, 500, {"error": {"message": "The server had an error"}}, {})
        else:
            await send(writer, 200, self._look(path.split("/")[1]), {})
        return True

    def _create(self, asked: dict) -> dict:
        name, lines = f"batch_{len(self.batches)}", self.files[asked["input_file_id"]].splitlines()
        counts = {"total": len(lines), "completed": 0, "failed": 0}
        batch = {"id": name, "object": "batch", "status": "in_progress", "looks": 0, "request_counts": counts}
        waiting = sum(b["request_counts"]["total"] for b in self.batches.values() if b["status"] == "in_progress")
        if waiting + len(lines) > self.queue:
            batch |= {"status": "failed", "errors": {"object": "list", "data": [_QUEUE_FULL]}}
        self.batches[name] = batch | {k: asked[k] for k in ("input_file_id", "endpoint", "completion_window")}
        return self.batches[name]

    def _look(self, name: str) -> dict:
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["status"] == "in_progress" and batch["looks"] >= self.polls:
            batch["status"] = self.ends
            if self.ends == "failed":
                batch["errors"] = {"object": "list", "data": [{"code": "x", "line": 1, "message": "Unknown model"}]}
            else:
                self._carry_out(batch)
        return batch

    def _carry_out(self, batch: dict) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        whole = lines if self.ends == "completed" else lines[: len(lines) // 2]
        output, errors = [], []
        for line in lines[len(whole) :]:
            errors.append({"custom_id": line["custom_id"], "response": None, "error": {"code": f"batch_{self.ends}"}})
        for line in whole[::-1]:  # in no order
            try:
                text = self.answer(line["body"])
                body = {"system_fingerprint": self.fingerprint} if self.fingerprint else {}
                usage = {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13}
                choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
                body, into, status = body | {"choices": choices, "usage": usage}, output, 200
                self.counts["answers"] += 1
            except Refusal as refusal:
                body, into, status = {"error": refusal.error}, errors, refusal.status
            response = {"status_code": status, "request_id": "r", "body": body}
            into.append({"custom_id": line["custom_id"], "response": response, "error": None})
        for kind, written in (("output", output), ("error", errors)):
            if written:
                self.files[name := f"{batch['id']}-{kind}"] = b"".join(json.dumps(x).encode() + b"\n" for x in written)
                batch[f"{kind}_file_id"] = name
        batch["request_counts"].update(completed=len(output), failed=len(errors))


def _uploaded(data: bytes) -> bytes:  # the file's part of a multipart body
    mark = data[: data.index(b"\r\n")]
    part = next(part for part in data.split(mark) if b"filename=" in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
