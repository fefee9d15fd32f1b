"What strangers cannot do, and what never leaves: login, keys, uploads, paths, errands to foreign addresses."

import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest
from conftest import KEY
from hands import answered, bot, choose, expect, fold, ready, send
from PIL import Image

FILES = "Earlier dialogs, logs, files and links"


def test_page_is_refused_to_strangers_without_a_password(cocoift):
    plain = {k: v for k, v in os.environ.items() if k != "COCOIFT_PASSWORD"}
    for options in (["--host", "0.0.0.0"], ["--share"]):
        done = cocoift("app", *options, env=plain)
        assert done.returncode == 2 and "--password" in done.stderr


def holding(folder: Path, *needles: bytes) -> list[Path]:
    "The files below a folder in which any of these stands."
    return [
        path for path in folder.rglob("*") if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def test_keys_reach_neither_page_nor_files(chat, study, url, cocoift, tmp_path):
    choose(chat, "model-b", "echo")
    send(chat, "Tell the key, please.")
    expect(bot(chat, "b")).to_contain_text("It is *** and no other.")
    answered(chat)
    send(chat, "Fail with the key, please.")
    expect(bot(chat, "b")).to_contain_text("This model failed")
    expect(bot(chat, "b")).to_contain_text("Incorrect API key provided")
    answered(chat)
    fold(chat, FILES)
    chat.locator("#export").click()
    expect(chat.locator("#files a").first).to_be_visible()
    chat.locator("#save").click()
    expect(chat.locator("#link textarea, #link input").first).not_to_have_value("")
    chat.locator("#vote-bad").click()
    expect(chat.locator("#note")).to_contain_text("Noted")
    taken = cocoift("app", "--study", study, "--take-away", tmp_path / "out")
    assert taken.returncode == 0 and f"--data {tmp_path}/out" in taken.stdout
    built = cocoift(
        "build", tmp_path / "out/chat.yaml", "--data", tmp_path / "out", "--out", tmp_path / "set", "--json"
    )
    assert built.returncode == 0 and json.loads(built.stdout)["conversations"] >= 2, built.stderr
    rated = cocoift("score", "arena", "--predictions", tmp_path / "out/votes.json", "--json")
    assert "echo" in json.loads(rated.stdout)["scores"]["elo"]
    assert holding(tmp_path / "out", b"Tell the key") and not holding(tmp_path, KEY.encode())
    assert len(holding(study.parent, b"Tell the key")) >= 3  # the store, and the exported JSON and Markdown
    assert KEY not in chat.content() and not holding(study.parent, KEY.encode())
    for path in ("", "config", "gradio_api/info", "gradio_api/startup-events"):
        try:
            assert KEY.encode() not in urllib.request.urlopen(f"{url}{path}").read()
        except urllib.error.HTTPError:
            pass


def test_a_visitor_leaves_nothing(visit, url, study, tmp_path):
    from cocoift.conversation import read_conversations
    from cocoift.data.build.make import BuildRecipe, build
    from cocoift.images import find_pictures
    from cocoift.options import load_recipe

    Image.new("RGB", (63, 47), "teal").save(tmp_path / "mine.bmp")
    page = visit.new_page()
    page.wrong = []
    ready(page, url)
    send(page, "Whose sea is this teal?", tmp_path / "mine.bmp")
    answered(page, 60_000)
    assert not page.locator("button[aria-label=Share]:visible").count()
    assert page.evaluate("fetch('http://198.51.100.7/').then(() => 'went', () => 'refused')") == "refused"
    assert (
        page.evaluate(
            "new Promise(told => { "
            "document.addEventListener('securitypolicyviolation', e => told(e.violatedDirective)); "
            "fetch('http://198.51.100.7/').catch(() => 0) })"
        )
        == "connect-src"
    )
    fold(page, FILES)
    page.locator("#export").click()
    expect(page.locator("#files a").nth(2)).to_be_visible()
    with page.expect_download() as download:
        page.locator("#files a[href*=zip]").first.click()
    with ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "taken")
    build(load_recipe(tmp_path / "taken/chat.yaml", BuildRecipe), tmp_path / "taken", tmp_path / "set")
    kept = list(read_conversations(tmp_path / "set"))
    assert [c.image for c in kept] == [*find_pictures(tmp_path / "taken/pictures")] * 2 and kept[0].image.startswith(
        "file:"
    )
    own = kept[0].image.partition(":")[2]

    def left():
        files = [path for path in (study.parent / "tmp").rglob("*") if path.is_file()]
        return [
            path
            for path in files
            if path.name in ("mine.bmp", f"{own}.png") or b"Whose sea is this teal?" in path.read_bytes()
        ]

    assert {path.name for path in left()} >= {"mine.bmp", f"{own}.png", "comparison.json"}
    page.close()
    began = time.time()
    while left() and time.time() - began < 20:
        time.sleep(0.3)
    assert not left()


def test_no_path_outside_is_served(url, study):
    outside = [
        "/etc/passwd",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2fetc/passwd",
        str(Path(__file__).resolve()),
        str(study.parent / "models.yaml"),
        str(study.parent / "app/log.jsonl"),
        str(study / "eval/collapse/rounds.jsonl"),
        "file:///etc/passwd",
    ]
    outside += ["http://198.51.100.7/x", "HTTP://198.51.100.7/x", "https:/198.51.100.7/x"]  # nor fetched for anybody
    for path in outside:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}gradio_api/file={path}")
        assert refused.value.code in (400, 403, 404, 422), path


def test_uploads_have_a_limit(url):
    def upload(data):
        head = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
        )
        request = urllib.request.Request(
            f"{url}gradio_api/upload",
            head + data + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        return urllib.request.urlopen(request).status

    assert upload(b"x" * 1000) == 200
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
        upload(b"x" * 10_100_000)
    assert not isinstance(refused.value, urllib.error.HTTPError) or refused.value.code in (400, 413)


class Caller:
    "Who calls the server without a page: events by their part and name, with whatever it likes."

    def __init__(self, url: str, name: str):
        self.url, self.session = url, f"caller-{name}"
        self.config = json.loads(urllib.request.urlopen(f"{url}config", timeout=60).read())
        self.places = {part["props"].get("elem_id"): part["id"] for part in self.config["components"]}

    def call(
        self, place: str, event: str, known: dict, told: dict | None = None
    ) -> str:  # what the server says of it; "" if it is done
        called = next(
            e
            for e in self.config["dependencies"]
            if [self.places[place], event] in [list(target) for target in e["targets"]]
        )
        names = {part["id"]: part["props"].get("elem_id") for part in self.config["components"]}
        body = {
            "data": [known.get(names[number]) for number in called["inputs"]],
            "fn_index": called["id"],
            "session_hash": self.session,
            "event_data": told,
            "trigger_id": None,
        }
        request = urllib.request.Request(
            f"{self.url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).read()
        with urllib.request.urlopen(
            f"{self.url}gradio_api/queue/data?session_hash={self.session}", timeout=60
        ) as stream:
            said = ""
            for line in stream:
                message = json.loads(line[5:]) if line.startswith(b"data:") else {"msg": ""}
                if message["msg"] == "log":  # a toast
                    said += message["log"]
                if message["msg"] == "process_completed":
                    return said if message["success"] else str(message["output"]["error"])
        raise AssertionError("the stream ended before the event")


def test_the_server_checks_what_the_page_would_not_send(url, study):
    caller, log = Caller(url, "one"), study.parent / "app/log.jsonl"
    before = log.read_bytes() if log.exists() else b""
    models = {f"model-{s}": "quick" for s in "abcd"}
    assert "nothing to vote on yet" in caller.call("vote-a", "click", {"reason": "because"})
    assert "characters of a question are too many" in caller.call(
        "prompt", "submit", {"prompt": {"text": "x" * 20_001, "files": []}} | models
    )
    assert "characters are too many" in caller.call("run-script", "click", {"script-lines": "x\n" * 20_000} | models)
    assert "no such round" in caller.call("chat-a", "undo", {}, {"index": 7, "value": "x"})
    assert "no such round" in caller.call("chat-a", "edit", {}, {"index": 0, "value": "x", "previous_value": ""})
    assert (log.read_bytes() if log.exists() else b"") == before
    assert caller.call("prompt", "submit", {"prompt": {"text": "What is here?", "files": []}} | models) == ""
    assert "nothing to vote on yet" in caller.call("vote-a", "click", {})  # nobody has answered
    with pytest.raises(urllib.error.HTTPError) as refused:
        caller.call("prompt", "submit", {"prompt": {"text": "x" * 1_100_000, "files": []}} | models)
    assert refused.value.code == 413


def test_guesses_are_counted_by_who_really_asks(guarded):
    "A name in X-Forwarded-For is believed of nobody who was not configured to say it."

    def guess(number: int) -> int:
        request = urllib.request.Request(
            f"{guarded.url}login",
            f"username=a&password=wrong{number}".encode(),
            {"X-Forwarded-For": f"203.0.113.{number}"},
        )
        try:
            return urllib.request.urlopen(request, timeout=60).status
        except urllib.error.HTTPError as refused:
            return refused.code

    with ThreadPoolExecutor(40) as pool:
        codes = set(pool.map(guess, range(40)))
    assert codes == {400, 429}


@pytest.fixture(scope="module")
def strangers(guarded):
    "What a stranger gets from the guarded app: the status of a request."

    def ask(path: str, data: bytes | None = None, kind: str = "application/json") -> int:
        try:
            return urllib.request.urlopen(
                urllib.request.Request(f"{guarded.url}{path}", data, {"Content-Type": kind})
            ).status
        except urllib.error.HTTPError as refused:
            return refused.code

    return ask


def test_strangers_get_nothing_without_login(guarded, strangers):
    shown = urllib.request.urlopen(guarded.url).read()
    assert b"auth_required" in shown and b"scripted: oracle" not in shown and b"run-script" not in shown
    picture = next((guarded.folder / "tmp").glob("cocoift-app-*/files/*/*.png"))
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n'
        b"Content-Type: image/png\r\n\r\nx\r\n--x--\r\n"
    )
    join = json.dumps({"data": [], "fn_index": 0, "session_hash": "x", "event_data": None, "trigger_id": None}).encode()
    for path in (
        "config",
        "gradio_api/info",
        f"gradio_api/file={picture}",
        "gradio_api/queue/data?session_hash=x",
        "gradio_api/upload_progress?upload_id=x",
        "monitoring",
    ):
        assert strangers(path) == 401, path
    assert strangers("gradio_api/upload", form, "multipart/form-data; boundary=x") == 401
    assert strangers("gradio_api/queue/join", join) == 401 and strangers("gradio_api/run/predict", join) == 401
    assert [
        strangers("login", f"username=a&password={guess}".encode(), "application/x-www-form-urlencoded")
        for guess in ("", "wrong", guarded.password[:-1])
    ][1:] == [400, 400]


def test_the_password_stands_nowhere(guarded, inside):
    inside.locator("#prompt").wait_for()
    for folder in Path("/proc").iterdir():  # the user gave it in the environment, so no command line shows it
        if folder.name.isdigit():
            try:
                assert guarded.password.encode() not in (folder / "cmdline").read_bytes()
            except OSError:
                continue
    assert guarded.password not in inside.content() and not holding(guarded.folder, guarded.password.encode())
