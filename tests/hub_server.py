"""A Hugging Face hub of this machine: the part of its HTTP interface that `huggingface_hub` and `datasets` use.

Repositories are folders: ROOT/datasets/OWNER/NAME and ROOT/models/OWNER/NAME. A file `.gated` in one closes it. Who
has a token may write below `me/`."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

API = re.compile(
    r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/]+)(/.*)?)?$"
)
FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


def sha(repo: Path) -> str:
    return hashlib.sha1(repr(sorted((str(p), p.stat().st_size) for p in repo.rglob("*"))).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))

    def send(self, value=None, status=200, content=None, head=None) -> None:
        content = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": len(content), **(head or {})}.items():
            self.send_header(name, str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, code: str, status: int) -> None:
        self.send({"error": code}, status, head={"X-Error-Code": code, "X-Error-Message": code})

    def repo(self, kind: str, name: str) -> Path | None:
        folder = self.server.root / kind / name
        if not folder.is_dir():
            return self.refuse("RepoNotFound", 401)
        return folder

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def entry(self, repo: Path, path: Path) -> dict:
        name = path.relative_to(repo).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {
            "type": "file",
            "path": name,
            "oid": hashlib.sha1(name.encode()).hexdigest(),
            "size": path.stat().st_size,
        }

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if file := FILE.match(path):
            return self.file(file[1] or "models", *file.groups()[1:])
        if not (api := API.match(path)):
            return self.refuse("EntryNotFound", 404)
        kind, name, what, _, inside = api.groups()
        if (repo := self.repo(kind, name)) is None:
            return None
        if what == "tree":
            folder = repo / (inside or "").strip("/")
            if not folder.is_dir():
                return self.refuse("EntryNotFound", 404)
            below = folder.rglob("*") if "recursive=true" in self.path.lower() else folder.iterdir()
            return self.send([self.entry(repo, p) for p in sorted(below) if not p.name.startswith(".")])
        files = [{"rfilename": p.relative_to(repo).as_posix()} for p in sorted(repo.rglob("*")) if p.is_file()]
        facts = {"id": name, "sha": sha(repo), "siblings": files, "private": False, "gated": False, "tags": []}
        return self.send(facts | {"downloads": 0, "likes": 0, "disabled": False})

    def file(self, kind: str, name: str, _, inside: str) -> None:
        if (repo := self.repo(kind, name)) is None:
            return None
        if (repo / ".gated").exists() and not inside.endswith("README.md"):
            return self.refuse("GatedRepo", 403)
        path, head = repo / inside, {"X-Repo-Commit": sha(repo), "Accept-Ranges": "bytes"}
        if not path.is_file():
            return self.send({}, 404, head=head | {"X-Error-Code": "EntryNotFound"})
        head["ETag"] = f'"{hashlib.sha1(str(path).encode()).hexdigest()}"'
        content, status = path.read_bytes(), 200
        if part := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(part[1]), int(part[2] or len(content) - 1)
            head["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            content, status = content[first : last + 1], 206
        self.send(status=status, content=content, head=head)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            self.body()
            return self.send({"errors": [], "warnings": []})
        if not self.headers.get("Authorization") and path.endswith(("/create", "/preupload/main", "/commit/main")):
            self.rfile.read(int(self.headers["Content-Length"]))
            return self.send({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            body = self.body()
            kind = f"{body.get('type', 'model')}s"
            name = f"{body.get('organization') or 'me'}/{body['name']}"
            if not name.startswith("me/"):
                return self.send({"error": "You don't have the rights to create a model under this namespace"}, 403)
            (self.server.root / kind / name).mkdir(parents=True, exist_ok=True)
            return self.send({"url": f"{self.server.url}/{name}", "name": name})
        if not (api := API.match(path)):
            self.body()  # what is not read would be taken for the next request
            return self.refuse("EntryNotFound", 404)
        kind, name, what, *_ = api.groups()
        if (repo := self.repo(kind, name)) is None:
            return None
        if what == "commit":
            return self.commit(repo, name)
        body = self.body()
        if what == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in body["files"]]
            return self.send({"files": files})
        return self.send([self.entry(repo, repo / p) for p in body.get("paths", []) if (repo / p).exists()])

    def commit(self, repo: Path, name: str) -> None:
        for line in self.rfile.read(int(self.headers["Content-Length"])).splitlines():
            piece = json.loads(line)
            if piece["key"] == "file":
                path = repo / piece["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(piece["value"]["content"]))
        url = f"{self.server.url}/{name}/commit/{sha(repo)}"
        self.send({"success": True, "commitOid": sha(repo), "commitUrl": url, "hookOutput": ""})


@contextmanager
def local_hub(root: Path) -> Iterator[ThreadingHTTPServer]:
    "Serve `root` while the block runs; what was asked is in `asked`."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.asked, server.url = root, [], f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
