"Downloads from a real server that cuts, stalls, lies and is killed for; archives that climb, link and explode."

import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cocoift.data.build.download import TRIES
from cocoift.data.build.fetch import fetch
from cocoift.data.build.unpack import ALWAYS_UNPACKED, unpack
from cocoift.data.sources.archives import ARCHIVES, Archive
from cocoift.files import UserError

SOURCES = """coco-captions coco-instances coco-keypoints coco-panoptic coco-stuff vqav2 cocoqa okvqa okvqa-s3 aokvqa
    vqa-e vqa-x fsvqa tallyqa howmanyqa tdiuc vsr stvqa fmiqa refcoco refcoco+ refcocog visdial photobook
    vg-qa vg-regions vg-attributes vg-relations gqa cgqa rvqa pointqa paragraphs visual7w madlibs lrv svit
    llava-instruct llava-pretrain llava-mix665k sharegpt4v lvis lvis-instruct4v""".split()


@dataclass
class Page:
    "A file on the server, and how the server treats those who ask for it."

    body: bytes
    etag: str = '"one"'
    ranges: bool = True
    blind: bool = False  # answers a range without looking at If-Range
    shift: int = 0  # begins a rest so many bytes too late
    # bytes of an answer after which the connection is cut, answer by answer
    cuts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)  # what the first answers are instead
    stalls: list[float] = field(default_factory=list)  # seconds of silence in the middle of an answer, answer by answer
    pace: float = 0.0  # seconds for each 16 KiB
    length: bool = True  # tells Content-Length, or sends chunks
    location: str = ""  # sends elsewhere


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        page = self.server.pages.get(self.path)
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        code = 404 if page is None else page.codes.pop(0) if page.codes else 302 if page.location else 200
        if code != 200:
            return self.start(code, {"Content-Length": 0} | ({"Location": page.location} if code == 302 else {}))
        body, total, at = page.body, len(page.body), 0
        wanted, held = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and page.ranges and (page.blind or held in (None, page.etag)):
            code, at = 206, int(wanted.removeprefix("bytes=").removesuffix("-")) + page.shift
            body = body[at:]
        about = {"ETag": page.etag} | ({"Content-Range": f"bytes {at}-{total - 1}/{total}"} if code == 206 else {})
        self.start(code, about | ({"Content-Length": len(body)} if page.length else {"Transfer-Encoding": "chunked"}))
        if self.command == "GET":
            self.send(page, body)

    def start(self, code: int, headers: dict) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def send(self, page: Page, body: bytes) -> None:
        cut, stall = page.cuts.pop(0) if page.cuts else None, page.stalls.pop(0) if page.stalls else 0.0
        try:
            for at in range(0, len(body[:cut]), 1 << 14):
                block = body[:cut][at : at + (1 << 14)]
                self.wfile.write(block if page.length else b"%x\r\n%s\r\n" % (len(block), block))
                time.sleep(page.pace + (stall if at == 0 else 0.0))
            if cut is None and not page.length:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            cut = 0  # the client has left
        if cut is not None:
            self.close_connection = True


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name: str, body: bytes, **manners) -> Page:
        self.pages[f"/{name}"] = page = Page(body, **manners)
        return page

    @property
    def gets(self) -> list[tuple[str, str | None]]:
        return [(path, wanted) for command, path, wanted in self.asked if command == "GET"]


@pytest.fixture
def site(monkeypatch):
    for name in "http_proxy", "https_proxy", "all_proxy":
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Site() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def zipped(files: dict[str, bytes | str], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:  # without what fetch keeps for itself
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".fetch" not in path.parts
    }


def spool(folder: Path) -> list[str]:  # what fetch keeps for itself, receipts and locks aside
    return sorted(
        path.name
        for path in (folder / ".fetch").rglob("*")
        if path.is_file() and not path.name.endswith((".receipt.json", ".lock"))
    )


@pytest.fixture
def get(site, tmp_path):
    "`get('a.zip', home='x', digest=...)` fetches one file of the site; what became of it."

    def run(name: str, home: str = "x", **facts) -> dict:
        found = fetch(
            ["x"], tmp_path, archives=[Archive("x", home, f"{site.url}/{name}", **facts)], pause=0.01, timeout=10.0
        )
        assert found["sources"]["x"] == found["archives"][0]["state"]
        return found["archives"][0]

    return run


BODY = zipped({"q.json": noise(300_000), "a/b.json": b"[]"}, zipfile.ZIP_STORED)
FILES = {"x/q.json": noise(300_000), "x/a/b.json": b"[]"}


# The table


def test_the_table_covers_every_source():
    named = [name for archive in ARCHIVES for name in archive.sources.split()]
    assert set(named) == set(SOURCES)
    assert len({(archive.home, archive.name) for archive in ARCHIVES}) == len(ARCHIVES)
    for archive in ARCHIVES:
        assert archive.url.startswith(("http://", "https://")) and archive.name
        assert "//visualgenome.org" not in archive.url  # passed to strangers
        assert len(archive.digest) in (0, 40, 64) and bool(archive.by_hand) == bool(archive.files)
        assert archive.home.partition("/")[0] in {
            "annotations",
            "visual_genome",
            "llava",
            "refcoco",
            *archive.sources.split(),
        }, archive


def test_shared_files_are_listed_once():
    "VQAv2 serves three sources, COCO's annotations three, the list of Visual Genome's pictures all that need it."
    readers = {archive.name: archive.sources.split() for archive in ARCHIVES}
    assert readers["annotations_trainval2017.zip"] == ["coco-captions", "coco-instances", "coco-keypoints"]
    assert {"vqav2", "howmanyqa", "vqa-x"} == set(readers["v2_Annotations_Train_mscoco.zip"])
    assert {"vg-qa", "gqa", "howmanyqa", "tallyqa", "pointqa"} < set(readers["image_data.json.zip"])


# A good day


def test_fetches_unpacks_and_does_not_fetch_again(site, tmp_path):
    site.put("both.zip", zipped({"annotations/captions.json": "[1]", "annotations/instances.json": "[2]"}))
    site.put("one.json", b'[{"id": 1}]\n')
    sha = hashlib.sha256(site.pages["/both.zip"].body).hexdigest()
    archives = [
        Archive("captions instances", "annotations", f"{site.url}/both.zip", len(site.pages["/both.zip"].body), sha),
        Archive("llava", "llava", f"{site.url}/one.json"),
    ]
    found = fetch(["captions", "instances", "llava"], tmp_path, archives=archives)
    assert found["sources"] == {"captions": "fetched", "instances": "fetched", "llava": "fetched"}
    assert [row["sources"] for row in found["archives"]] == [["captions", "instances"], ["llava"]]
    assert [row["sha256"] for row in found["archives"]] == [
        sha,
        hashlib.sha256(site.pages["/one.json"].body).hexdigest(),
    ]
    assert contents(tmp_path) == {
        "annotations/captions.json": b"[1]",
        "annotations/instances.json": b"[2]",
        "llava/one.json": b'[{"id": 1}]\n',
    }
    assert site.gets == [("/both.zip", None), ("/one.json", None)] and spool(tmp_path) == []

    again = fetch(["instances", "llava"], tmp_path, archives=archives)
    assert again["sources"] == {"instances": "there", "llava": "there"} and len(site.gets) == 2
    assert [row["sha256"] for row in again["archives"]] == [row["sha256"] for row in found["archives"]]

    (tmp_path / "annotations/captions.json").unlink()
    assert fetch(["captions"], tmp_path, archives=archives)["sources"] == {"captions": "fetched"}
    assert contents(tmp_path)["annotations/captions.json"] == b"[1]" and len(site.gets) == 3


def test_a_tar_and_files_for_one_home(get, site, tmp_path):
    site.put("a.tar.gz", tarred((tarfile.TarInfo("./train.json"), b"[1]"), (tarfile.TarInfo("._train.json"), b"junk")))
    site.put("b.zip", zipped({"x/val.json": "[2]", "__MACOSX/x/._val.json": "junk"}))
    assert [get("a.tar.gz")["state"], get("b.zip")["state"]] == ["fetched", "fetched"]
    assert contents(tmp_path) == {"x/train.json": b"[1]", "x/val.json": b"[2]"}


# A bad connection


def test_goes_on_after_cuts(get, site, tmp_path):
    site.put("a.zip", BODY, cuts=[100_000, 0, 50_000])
    assert get("a.zip")["state"] == "fetched"
    assert [wanted for _, wanted in site.gets] == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert contents(tmp_path) == FILES


def test_goes_on_behind_a_redirect(get, site, tmp_path):
    site.put("elsewhere.zip", BODY, cuts=[100_000])
    site.put("a.zip", b"", location="/elsewhere.zip")
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES
    assert ("/elsewhere.zip", "bytes=100000-") in site.gets


def test_starts_anew_where_ranges_are_ignored(get, site, tmp_path):
    site.put("a.zip", BODY, cuts=[200_000, 250_000], ranges=False)
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES


@pytest.mark.parametrize("blind", [False, True], ids=["honest", "ignores If-Range"])
def test_never_joins_two_versions(get, site, tmp_path, blind):
    "Of one length, and in a format without checksums: nothing but the mark tells them apart."
    one, two = (b"[" + digit * 300_000 + b"]" for digit in (b"1", b"2"))
    site.put("a.json", one, cuts=[100_000] + [0] * TRIES)
    assert get("a.json")["state"] == "failed" and spool(tmp_path) == ["a.json"]
    site.put("a.json", two, etag='"two"', blind=blind)
    assert get("a.json")["state"] == "fetched" and contents(tmp_path) == {"x/a.json": two}
    assert [wanted for _, wanted in site.gets[TRIES + 1 :]] == ["bytes=100000-"] + [None] * blind


def test_a_rest_that_begins_elsewhere_is_not_joined(get, site, tmp_path):
    body = b"[" + b"0123456789" * 30_000 + b"]"
    site.put("a.json", body, cuts=[100_000], shift=7)
    assert get("a.json")["state"] == "fetched" and contents(tmp_path) == {"x/a.json": body}


def test_a_weak_mark_joins_nothing(get, site, tmp_path):
    site.put("a.zip", BODY, cuts=[100_000], etag='W/"one"')
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES
    assert [wanted for _, wanted in site.gets] == [None, None]


def test_chunks_of_unknown_number(get, site, tmp_path):
    site.put("a.zip", BODY, cuts=[100_000], length=False)
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES


def test_silence_is_not_waited_out(site, tmp_path):
    site.put("a.zip", BODY, stalls=[30.0, 30.0])
    start = time.monotonic()
    assert fetch(["x"], tmp_path, archives=[Archive("x", "x", f"{site.url}/a.zip")], pause=0.01, timeout=0.4)[
        "sources"
    ] == {"x": "fetched"}
    assert contents(tmp_path) == FILES and len(site.gets) >= 3 and time.monotonic() - start < 20


def test_a_busy_server_is_asked_again(get, site, tmp_path):
    site.put("a.zip", BODY, codes=[503, 429, 500])
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES


def test_a_broken_server_is_given_up_and_remembered(site, tmp_path):
    site.put("a.zip", BODY, codes=[500] * 99)
    site.put("b.zip", BODY, codes=[500] * 99)
    found = fetch(["x"], tmp_path, archives=[Archive("x", "x", f"{site.url}/{name}.zip") for name in "ab"], pause=0.01)
    assert [path for path, _ in site.gets] == ["/a.zip"] * TRIES + ["/b.zip"]
    assert "500 Internal Server Error, 5 times in a row: try again later" in found["archives"][0]["reason"]


def test_a_cut_that_always_comes_is_given_up(get, site, tmp_path):
    site.put("a.zip", BODY, cuts=[100_000] * 99, ranges=False)
    row = get("a.zip")
    assert row["state"] == "failed" and f"the connection was cut after 100000 of {len(BODY)} bytes" in row["reason"]
    assert len(site.gets) == TRIES + 1


def test_a_dead_link_is_asked_once(site, tmp_path):
    site.put("b.json", b"[]")
    archives = [Archive("x", "x", f"{site.url}/gone.zip"), Archive("y", "y", f"{site.url}/b.json")]
    found = fetch(["x", "y"], tmp_path, archives=archives, pause=0.01)
    assert found["sources"] == {"x": "failed", "y": "fetched"}
    assert "gone.zip: the server answers 404 Not Found" in found["archives"][0]["reason"]
    assert site.gets == [("/gone.zip", None), ("/b.json", None)]


def test_nobody_listens(tmp_path):
    found = fetch(["x"], tmp_path, archives=[Archive("x", "x", "http://127.0.0.1:9/a.zip")], pause=0.001)
    assert found["sources"] == {"x": "failed"} and "refused" in found["archives"][0]["reason"]


# Another file than was promised


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_checksum(get, site, tmp_path, algorithm):
    site.put("a.zip", BODY)
    right = hashlib.new(algorithm, BODY).hexdigest()
    row = get("a.zip", digest=right[:-1] + ("0" if right[-1] != "0" else "1"))
    assert row["state"] == "failed" and f"its {algorithm} is {right}" in row["reason"]
    assert contents(tmp_path) == {} and spool(tmp_path) == []
    assert get("a.zip", digest=right)["state"] == "fetched" and contents(tmp_path) == FILES


def test_size_is_refused_before_it_is_downloaded(get, site, tmp_path):
    site.put("a.zip", BODY, pace=10.0)
    row = get("a.zip", size=len(BODY) + 1)
    assert (
        row["state"] == "failed" and f"offers {len(BODY)} bytes, the official file has {len(BODY) + 1}" in row["reason"]
    )


def test_joined_bytes_that_are_wrong_are_fetched_once_more(get, site, tmp_path):
    "The server keeps its mark but changes the file: only the checksum can tell."
    other = zipped({"q.json": noise(300_000, seed=1), "a/b.json": b"[]"}, zipfile.ZIP_STORED)
    assert len(other) == len(BODY)
    page = site.put("a.zip", other, cuts=[100_000] + [0] * TRIES)
    assert get("a.zip")["state"] == "failed"
    page.body = BODY
    assert get("a.zip", digest=hashlib.sha256(BODY).hexdigest())["state"] == "fetched" and contents(tmp_path) == FILES
    assert [wanted for _, wanted in site.gets[-2:]] == ["bytes=100000-", None]


@pytest.mark.parametrize(
    "name, body",
    {
        "zip": ("a.zip", BODY[:-100]),
        "zip in the middle": ("a.zip", BODY[:1000]),
        "zip, a bit": ("a.zip", BODY.replace(FILES["x/q.json"][:8], b"12345678")),
        "tar.gz": ("a.tar.gz", tarred((tarfile.TarInfo("a.json"), noise(9000)))[:-500]),
        "tar.gz, its checksum": ("a.tar.gz", tarred((tarfile.TarInfo("a.json"), noise(9000)))[:-8] + bytes(8)),
        "html for zip": ("a.zip", b"<html>Please log in</html>"),
        "html for tar": ("a.tar.gz", b"<html>Please log in</html>"),
        "html for json": ("a.json", b"<html>Please log in</html>"),
        "json": ("a.json", b'[{"id": 1}, {"id'),
        "jsonl": ("a.jsonl", b'{"id": 1}\n{"id'),
        "empty": ("a.json", b""),
        "nothing in it": ("a.zip", zipped({})),
    }.items(),
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_torn_at_its_source(get, site, tmp_path, name, body):
    site.put(body[0], body[1])
    row = get(body[0])
    assert row["state"] == "failed" and body[0] in row["reason"] and "\n" not in row["reason"], name
    assert contents(tmp_path) == {} and spool(tmp_path) == []


# Hostile archives


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def zip_link(name: str, target: str, mode: int = stat.S_IFLNK) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o777) << 16
    buffer = io.BytesIO(zipped({"fine.json": "[]"}))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr(info, target)
    return buffer.getvalue()


FINE = tarfile.TarInfo("fine.json"), b"[]"
HOSTILE = {
    "zip up": ("outside its folder", "a.zip", zipped({"fine.json": "[]", "../evil": "!"})),
    "zip up later": ("outside its folder", "a.zip", zipped({"fine.json": "[]", "a/../../evil": "!"})),
    "zip absolute": ("outside its folder", "a.zip", zipped({"fine.json": "[]", "/tmp/evil-of-fetch": "!"})),
    "zip windows": ("outside its folder", "a.zip", zipped({"fine.json": "[]", "C:\\evil": "!"})),
    "zip drive": ("outside its folder", "a.zip", zipped({"fine.json": "[]", "C:evil": "!"})),
    "zip link": ("link or a device", "a.zip", zip_link("out", "../..")),
    "zip device": ("link or a device", "a.zip", zip_link("out", "", stat.S_IFCHR)),
    "zip twice": ("twice", "a.zip", zipped({"a": "[]", "a/b": "[]"})),
    "tar up": ("outside its folder", "a.tar.gz", tarred(FINE, (tarfile.TarInfo("../evil"), b"!"))),
    "tar absolute": ("outside its folder", "a.tar.gz", tarred(FINE, (tarfile.TarInfo("/tmp/evil-of-fetch"), b"!"))),
    "tar link": (
        "link or a device",
        "a.tar.gz",
        tarred(FINE, link("out", "../.."), (tarfile.TarInfo("out/evil"), b"!")),
    ),
    "tar hard link": ("link or a device", "a.tar.gz", tarred(FINE, link("out", "/etc/passwd", tarfile.LNKTYPE))),
    "tar pipe": ("link or a device", "a.tar.gz", tarred(FINE, link("out", "", tarfile.FIFOTYPE))),
    "tar twice": ("twice", "a.tar.gz", tarred(FINE, FINE)),
    "zip bomb": ("200 times", "a.zip", zipped({"bomb": bytes(ALWAYS_UNPACKED + 1)})),
    "tar bomb": ("200 times", "a.tar.gz", tarred(FINE, (tarfile.TarInfo("bomb"), bytes(ALWAYS_UNPACKED)))),
    "tar headers": ("200 times", "a.tar.gz", tarred((link("x", "", tarfile.XHDTYPE)[0], bytes(ALWAYS_UNPACKED)), FINE)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives(get, site, tmp_path, what):
    says, name, body = HOSTILE[what]
    site.put(name, body)
    row = get(name, home="deep/x")
    assert row["state"] == "failed" and says in row["reason"], row
    assert contents(tmp_path) == {} and spool(tmp_path) == []
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil-of-fetch").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".fetch"]


def test_a_link_in_the_home_is_not_followed_out(tmp_path):
    "A home on another disk is the user's wish; a link that bears a file's name is replaced, never written through."
    (tmp_path / "disk").mkdir()
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "x").symlink_to("disk")
    (tmp_path / "disk/q.json").symlink_to(tmp_path / "kept")
    (tmp_path / "a.zip").write_bytes(BODY)
    with pytest.raises(UserError, match="is there already"):
        unpack(tmp_path / "a.zip", tmp_path / "x")
    (tmp_path / "disk/q.json").unlink()
    unpack(tmp_path / "a.zip", tmp_path / "x")
    assert contents(tmp_path / "disk") == {name.removeprefix("x/"): body for name, body in FILES.items()}
    assert (tmp_path / "x").is_symlink() and (tmp_path / "kept").read_text() == "mine" and not list(tmp_path.glob(".*"))


def test_a_home_on_another_disk(tmp_path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev or not os.access(memory, os.W_OK):
        pytest.skip("no second file system at /dev/shm")
    (tmp_path / "a.zip").write_bytes(BODY)
    with tempfile.TemporaryDirectory(dir=memory) as disk:
        (tmp_path / "refs").symlink_to(disk)
        unpack(tmp_path / "a.zip", tmp_path / "refs/x")
        unpack(tmp_path / "a.zip", tmp_path / "refs")
        assert contents(Path(disk)) == FILES | {name.removeprefix("x/"): body for name, body in FILES.items()}


# What is the user's stays the user's


def test_nothing_is_overwritten(get, site, tmp_path):
    site.put("a.zip", BODY)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/q.json").write_text("mine")
    row = get("a.zip")
    assert (
        row["state"] == "failed"
        and f"{tmp_path}/x/q.json: is there already and is not the official file: move it away" in row["reason"]
    )
    assert contents(tmp_path) == {"x/q.json": b"mine"}
    (tmp_path / "x/q.json").unlink()
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES
    assert len(site.gets) == 1  # the archive was kept

    (tmp_path / "x/q.json").write_text("changed")
    row = get("a.zip")
    assert row["state"] == "failed" and "q.json: has changed since it was fetched: delete it" in row["reason"]
    assert (tmp_path / "x/q.json").read_text() == "changed" and len(site.gets) == 1


# Killed, crowded, full

SCRIPT = """
import json, resource, sys
from pathlib import Path
from cocoift.data.build.fetch import fetch
from cocoift.data.sources.archives import Archive
url, folder, most = sys.argv[1:]
if int(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
print(json.dumps(fetch(["x"], Path(folder), archives=[Archive("x", "x", url)], pause=0.01, timeout=5.0)))
"""


def other_process(url: str, folder: Path, most: int = 0) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, str(folder), str(most)],
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_killed_and_run_again(get, site, tmp_path):
    page = site.put("a.zip", BODY, pace=0.05)
    part, reached = tmp_path / ".fetch/x/a.zip", 0
    for _ in range(3):
        process = other_process(f"{site.url}/a.zip", tmp_path)
        while not (part.exists() and part.stat().st_size >= reached + 40_000) and process.poll() is None:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        reached = part.stat().st_size
        assert reached < len(BODY) and not (tmp_path / "x").exists()
    page.pace = 0.0
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES and spool(tmp_path) == []
    starts = [int(wanted.strip("bytes=-")) for _, wanted in site.gets[1:]]
    assert site.gets[0][1] is None and starts == sorted(starts) and starts[0] >= 40_000


def test_killed_while_it_unpacks(get, site, tmp_path):
    files = {f"{n}.json": noise(200, seed=n) for n in range(800)}
    site.put("a.zip", zipped(files, zipfile.ZIP_STORED))
    process = other_process(f"{site.url}/a.zip", tmp_path)
    staged = tmp_path / ".fetch/x/.a.zip.unpacked"
    while not (staged / "20.json").exists() and process.poll() is None:
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert staged.exists() and not (tmp_path / "x").exists()
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == {
        f"x/{name}": body for name, body in files.items()
    }
    assert len(site.gets) == 1 and not staged.exists()


def test_killed_after_the_last_byte(get, site, tmp_path):
    "A whole file that nobody has looked at yet: it is looked at, not fetched again."
    page = site.put("a.zip", BODY)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/q.json").write_text("in the way")
    assert get("a.zip")["state"] == "failed" and spool(tmp_path) == ["a.zip"]
    (tmp_path / "x/q.json").unlink()
    page.codes = [500] * 99
    assert get("a.zip")["state"] == "fetched" and contents(tmp_path) == FILES


def test_two_at_once(get, site, tmp_path):
    site.put("a.zip", BODY, pace=0.1)
    with other_process(f"{site.url}/a.zip", tmp_path) as process:
        while not (tmp_path / ".fetch/x/a.zip").exists() and process.poll() is None:
            time.sleep(0.002)
        row = get("a.zip")
        assert (
            row["state"] == "failed" and row["reason"] == "a.zip: another `cocoift fetch` is at it: wait for it to end"
        )
        out, err = process.communicate(timeout=30)
    assert json.loads(out)["sources"] == {"x": "fetched"}, err
    assert contents(tmp_path) == FILES and get("a.zip")["state"] == "there" and len(site.gets) == 1


def test_a_full_disk_is_not_the_networks_fault(site, tmp_path):
    site.put("a.zip", BODY)
    out, err = other_process(f"{site.url}/a.zip", tmp_path, most=100_000).communicate(timeout=30)
    assert "File too large" in err and len(site.gets) == 1


# By hand, elsewhere, not at all


def test_by_hand(site, tmp_path):
    site.put("pictures.json", b"[]")
    archives = [
        Archive("x y", "vg", f"{site.url}/pictures.json"),
        Archive(
            "x",
            "x",
            "https://example.org/page",
            by_hand="behind a registration: take train_*.json",
            files="train_*.json",
        ),
    ]
    found = fetch(["x", "y"], tmp_path, archives=archives)
    assert found["sources"] == {"x": "by hand", "y": "fetched"}
    assert (
        found["archives"][1]["reason"]
        == f"behind a registration: take train_*.json, from https://example.org/page, and put it into {tmp_path}/x"
    )
    (tmp_path / "x/deep").mkdir(parents=True)
    (tmp_path / "x/deep/train_1.json").write_text("[]")
    assert fetch(["x", "y"], tmp_path, archives=archives)["sources"] == {"x": "there", "y": "there"}


def test_dry_run(site, tmp_path):
    site.put("known.zip", BODY)
    site.put("unknown.zip", BODY)
    archives = [
        Archive("x", "x", f"{site.url}/known.zip", 5),
        Archive("x", "x", f"{site.url}/unknown.zip"),
        Archive("x", "x", f"{site.url}/gone.zip"),
    ]
    found = fetch(["x"], tmp_path / "new", archives=archives, dry=True)
    assert found["sources"] == {"x": "to fetch"} and [row["size"] for row in found["archives"]] == [5, len(BODY), None]
    assert site.gets == [] and not (tmp_path / "new").exists()


def test_mirror(site, tmp_path):
    site.put("hub/a.json", b"[]")
    archives = [Archive("x", "x", "https://example.org/big/a.json")]
    found = fetch(["x"], tmp_path, [f"https://example.org/big={site.url}/hub"], archives=archives)
    assert found["sources"] == {"x": "fetched"} and found["archives"][0]["url"] == f"{site.url}/hub/a.json"
    with pytest.raises(UserError, match="--mirror example.org=b: is not OLD=NEW"):
        fetch(["x"], tmp_path, ["example.org=b"], archives=archives)


@pytest.mark.parametrize("command", ["fetch", "library"])
def test_no_place_to_write(typed, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    if command == "library":
        with pytest.raises(OSError):
            fetch(["vqav2"], tmp_path / "file/data")
    else:
        done = typed("fetch", "vqav2", "--data", tmp_path / "file/data")
        assert done.returncode == 2 and done.stderr.startswith("cocoift fetch: ") and done.stderr.count("\n") == 1, (
            done.stderr
        )
    assert (tmp_path / "file").read_text() == "mine"


def test_command(typed, site, tmp_path):
    "Two sources from a mirror, one that only a hand can bring: a report, and exit code 1."
    site.put("cocoqa-2015-05-17.zip", zipped({"train/questions.txt": "what is it"}))
    mirror = ["--mirror", f"http://www.cs.toronto.edu/~mren/imageqa/data/cocoqa={site.url}"]
    done = typed("fetch", "cocoqa", "fmiqa", "--data", tmp_path, *mirror, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["sources"] == {"cocoqa": "fetched", "fmiqa": "by hand"}
    assert "fmiqa" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert contents(tmp_path) == {"cocoqa/train/questions.txt": b"what is it"}
    done = typed("fetch", "cocoqa", "--data", tmp_path)
    assert done.returncode == 0 and "there" in done.stdout

    done = typed("fetch", "cocoqa", "--data", tmp_path / "new", "--dry-run", *mirror)
    assert done.returncode == 0 and "to fetch" in done.stdout and not (tmp_path / "new").exists()
    done = typed("fetch", "nonsense", "--data", tmp_path)
    assert done.returncode == 2 and "nonsense: is no source" in done.stderr and "visual7w" in done.stderr
