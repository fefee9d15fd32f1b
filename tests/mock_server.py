"""A server that answers from a script and fails on schedule.

Whether nothing is lost when a server limits, breaks, stalls and lies can only be seen with a server that does. This
one speaks the chat API over plain sockets, a thousand times a second on one core. It fails by shares that are drawn
from a seed, and counts what it answered, so that a client's books can be checked against the other side's.

    with MockServer(lambda body: "Two.", faults=Faults(refuse=0.2)) as url: ...
    python tests/mock_server.py --refuse 0.2 --broken 0.05 --cut 0.02 --garble 0.01 --slow 0.02

In a thread of this process for lessons and tests; in a process of its own for measurements.
"""

import asyncio
import json
import random
import sys
import threading
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256


@dataclass
class Faults:
    "Shares of requests that go wrong."

    refuse: float = 0.0  # 429 with Retry-After
    broken: float = 0.0  # 500
    cut: float = 0.0  # the connection ends before the answer
    garble: float = 0.0  # half a JSON
    slow: float = 0.0  # a tail of `tail` seconds
    tail: float = 2.0
    pause: str = "0.05"  # Retry-After, seconds
    seed: int = 0


class Refusal(Exception):
    "An answer with another status, as of a server that does not know the model."

    def __init__(self, status: int, message: str, **more):
        super().__init__(message)
        self.status, self.error = status, {"message": message, **more}


def echo(body: dict) -> str:
    "An answer that tells what was asked: the last message, and how many pictures came with it all."

    def parts(message):
        content = message["content"]
        return content if isinstance(content, list) else [{"type": "text", "text": content}]

    text = " ".join(part["text"] for part in parts(body["messages"][-1]) if part["type"] == "text")
    shown = sum(part["type"] == "image_url" for message in body["messages"] for part in parts(message))
    return f"{shown} pictures. {text}" if shown else text


# On the wire: plain HTTP, as much of it as a client needs


async def send(writer: asyncio.StreamWriter, status: int, value: dict, headers: Mapping[str, str]) -> None:
    data = json.dumps(value).encode()
    more = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


async def send_torn(writer: asyncio.StreamWriter, fault: str) -> None:
    text = b'{"id": "x", "choices": [{"mess'
    size = len(text) if fault == "garble" else 1000
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + text)
    await writer.drain()


async def stream(
    writer: asyncio.StreamWriter, head: dict, words: list[str], cut: bool, pause: float, torn: bool = False
) -> None:
    async def send_chunk(data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    pieces = [({"content": word + " " * (k < len(words) - 1)}, None) for k, word in enumerate(words)]
    pieces.append(({}, "length" if cut else "stop"))
    for delta, reason in pieces[: len(pieces) // 2] if torn else pieces:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        await send_chunk(f"data: {json.dumps(chunk)}\n\n".encode())
        await asyncio.sleep(pause)
    if not torn:
        await send_chunk(b"data: [DONE]\n\n")
        await send_chunk(b"")


class MockServer:
    "A scripted server; as a context it runs in a thread, and gives its address."

    def __init__(
        self,
        answer: Callable[[dict], str] = echo,  # from a request's body to what the model says, or raises `Refusal`
        faults: Faults | None = None,
        headers: Mapping[str, str] | None = None,  # of every answer
        latency: float = 0.0,  # seconds
        bodies: list | None = None,  # all requests, if they are to be kept
        models: list[dict] | None = None,  # of the list of models, if it has one
        fingerprint: str = "",  # of every answer
    ):
        self.answer, self.faults, self.headers = answer, faults or Faults(), dict(headers or {})
        self.latency, self.bodies, self.models, self.fingerprint = latency, bodies, models, fingerprint
        self.counts: Counter[str] = Counter()  # requests, answers, and faults by name
        self.answered: Counter[str] = Counter()  # whole answers by digest of their request
        self.authorization = ""  # the last one that came
        self._draws = random.Random(self.faults.seed)

    async def start(self, port: int = 0) -> str:
        "Listen; the address."
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", port, limit=1 << 24)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        "One connection, for as long as it is kept."
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                pairs = (line.partition(":") for line in lines[1:])
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                size, self.authorization = int(headers.get("content-length", 0)), headers.get("authorization", "")
                if not await self._one(lines[0], await reader.readexactly(size), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):  # or the server is closed
            pass
        finally:
            writer.close()

    async def _one(self, line: str, data: bytes, writer: asyncio.StreamWriter) -> bool:  # whether it is kept
        if line.startswith("GET /v1/models") and self.models is not None:
            await send(writer, 200, {"object": "list", "data": self.models}, self.headers)
            return True
        if line.startswith("GET"):
            doubled = sum(n - 1 for n in self.answered.values())
            books = {"counts": self.counts, "answered": len(self.answered), "doubled": doubled}
            await send(writer, 200, books, self.headers)
            return True
        if "/chat/completions" not in line:
            await send(writer, 404, {"error": {"message": "Not Found"}}, self.headers)
            return True
        self.counts["requests"] += 1
        fault, body = self._fault(), json.loads(data)
        if self.bodies is not None:
            self.bodies.append(body)
        self.counts.update([fault] if fault else [])
        if self.latency or fault == "slow":
            await asyncio.sleep(self.latency + (self.faults.tail if fault == "slow" else 0))
        if fault in ("", "slow"):
            await self._answer(writer, body, data)
        elif fault == "refuse":
            headers = self.headers | {"Retry-After": self.faults.pause}
            await send(writer, 429, {"error": {"message": "Rate limit reached"}}, headers)
        elif fault == "broken":
            await send(writer, 500, {"error": {"message": "The server had an error"}}, self.headers)
        elif body.get("stream") and fault == "cut":
            head = {"id": "x", "created": 0, "model": body["model"]}
            await stream(writer, head, self.answer(body).split(), False, self.latency, torn=True)
        else:
            await send_torn(writer, fault)
        return fault not in ("cut", "garble")

    def _fault(self) -> str:
        draw, f = self._draws.random(), self.faults
        for name in ("refuse", "broken", "cut", "garble", "slow"):
            if (draw := draw - getattr(f, name)) < 0:
                return name
        return ""

    async def _answer(self, writer: asyncio.StreamWriter, body: dict, data: bytes) -> None:
        try:
            text = self.answer(body)
        except Refusal as refusal:
            await send(writer, refusal.status, {"error": refusal.error}, self.headers)
            return
        words = text.split()[: body.get("max_tokens") or None]
        cut, asked = len(words) < len(text.split()), len(data) // 4
        self.answered[sha256(data).hexdigest()] += 1
        self.counts["answers"] += 1
        head = {"id": f"x{self.counts['answers']}", "created": 0, "model": body["model"]}
        if body.get("stream"):
            await stream(writer, head, words, cut, self.latency)
            return
        usage = {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words)}
        message = {"role": "assistant", "content": " ".join(words) if cut else text}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        stamp = {"system_fingerprint": self.fingerprint} if self.fingerprint else {}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage, **stamp}
        await send(writer, 200, whole, self.headers)

    def __enter__(self) -> str:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(10)

    def __exit__(self, *failed) -> None:
        async def end():
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def main(server: MockServer, port: int) -> None:
    print(await server.start(port), flush=True)
    await server._server.serve_forever()


def parse(argv: list[str]) -> tuple[MockServer, int]:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("refuse", "broken", "cut", "garble", "slow", "latency"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--tail", type=float, default=2.0)
    parser.add_argument("--pause", default="0.05")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = vars(parser.parse_args(argv))
    port, latency = options.pop("port"), options.pop("latency")
    return MockServer(faults=Faults(**options), latency=latency), port


if __name__ == "__main__":
    try:
        asyncio.run(main(*parse(sys.argv[1:])))
    except KeyboardInterrupt:
        pass
