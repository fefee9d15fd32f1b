"""One study, one app and one browser for all tests of the pages; a served model that echoes what it is asked, so that
hostile answers are as easy as hostile questions."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium")
expect.set_options(timeout=60_000)  # a busy machine is slow, not wrong
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]
KEY = "sk-never-shown-1234"
MODELS = """
- {{name: quick, scripted: oracle, pace: 60}}
- {{name: brisk, scripted: collapse, pace: 40}}
- {{name: slow, scripted: collapse, pace: 4}}
- {{name: snail, scripted: collapse, pace: 1}}
- {{name: broken, scripted: oracle, pace: 60, fails_at: 2}}
- {{name: echo, server: '{server}#echo'}}
- {{name: mirror, server: '{server}#mirror'}}
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if {"page", "browser", "visit"} & set(getattr(item, "fixturenames", ())) and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="chromium is not installed: apt-get install chromium"))


@pytest.fixture(scope="module")
def chromium():
    "Playwright for one file: its event loop ends with it, so that other tests may have loops of their own."
    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def browser(chromium):
    browser = chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(
    root: Path, folder: Path, *options, env: dict | None = None, host: str = "127.0.0.1"
) -> tuple[subprocess.Popen, str]:
    "The app as a process, and its address."
    port = free_port()
    command = [Path(sys.executable).with_name("cocoift"), "app", "--port", str(port), *map(str, options)]
    # whatever the app writes besides its store lies beside what one that was killed has left
    left = folder / "tmp/cocoift-app-killed"
    left.mkdir(parents=True)
    (left / "lock").touch()
    os.utime(left, (0, 0))
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            command, cwd=root, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(folder / "tmp")} | (env or {})
        )
    began = time.time()
    while time.time() - began < 90:
        try:
            urllib.request.urlopen(f"http://{host}:{port}/", timeout=5)
            return server, f"http://{host}:{port}/"
        except urllib.error.HTTPError:
            return server, f"http://{host}:{port}/"
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.3)
    raise AssertionError((folder / "log").read_text())


# gradio 6 stumbles so, now and then, over a page that is closed while an answer streams: it cleans up twice
CLOSED_TWICE = "del blocks._queue.pending_messages_per_session[session_hash]"


def went_wrong(log: str) -> str:
    "What an app wrote, from the first fault that is not gradio's own; nothing where all went well."
    first, *faults = log.split("Exception in ASGI application")
    ours = [part for part in (first, *(fault for fault in faults if CLOSED_TWICE not in fault)) if "Traceback" in part]
    return ours[0][-3000:] if ours else ""


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """Two scripted runs, COCO-Scope on one of them, a dataset, a finished and a running training, and a torn one of
    each."""

    from cocoift.data.build.make import BuildRecipe, build
    from cocoift.eval.examine import examine, make_exam, run_exam
    from cocoift.eval.scope.make import make_scope
    from cocoift.files import Journal, with_parent, write_json
    from cocoift.options import load_recipe
    from cocoift.world import make_world

    folder = tmp_path_factory.mktemp("app") / "runs" / "study"
    make_world(folder / "exam", 6, split="val", first=1_000_000)
    for name in ("collapse", "oracle"):
        examine(f"scripted:{name}", "rounds", folder / "exam", folder / "eval" / name)
    exam = make_exam("scope", make_scope(folder / "exam", 4), ["own"])
    run_exam(exam.scripted("collapse"), exam, folder / "eval/scope")
    make_world(folder / "world", 6)
    build(load_recipe("world", BuildRecipe, ["layout=first-uniform"]), folder / "world", folder / "data/first-uniform")
    for name in ("done", "running"):
        lines = [
            {"step": n, "loss": 6 / n, "lr": 1e-3, "learned": 9, "tokens": 100, "separate": 140} for n in range(1, 9)
        ]
        Journal(folder / "train" / name / "metrics.jsonl").append(lines)
        Journal(folder / "train" / name / "times.jsonl").append(
            [{"step": line["step"], "seconds": 0.5} for line in lines]
        )
    write_json(folder / "train/done/train.json", {"steps": 8})
    with open(folder / "train/running/metrics.jsonl", "a") as file:
        file.write('{"step": 9, "lo')  # being written
    torn = {
        "eval/torn/scores.json": '{"histories": {"none"',
        "eval/torn-rounds/rounds.jsonl": "{torn}\n{}\n",
        "eval/unanswered/rounds.jsonl": "",
        "train/bad/metrics.jsonl": "{torn}\n{}\n",
    }
    for name, text in torn.items():
        with_parent(folder / name).write_text(text)
    write_json(folder / "data/cut short/manifest.json", {})
    return folder


def parrot(body: dict) -> str:
    "What was asked; and whoever asks for the key gets it, in an answer or in an error."
    from mock_server import Refusal, echo

    text = echo(body)
    if "Fail with the key" in text:
        raise Refusal(401, f"Incorrect API key provided: {KEY}. You can find your key elsewhere.")
    if "Tell your system" in text:
        text += "\n\n" + "".join(m["content"] for m in body["messages"] if m["role"] == "system")
    if "Name your parts" in text:
        kinds = [[part["type"] for part in m["content"]] for m in body["messages"] if isinstance(m["content"], list)]
        return "I was sent " + ", then ".join(" ".join(kind) for kind in kinds) + "."
    return text + f" It is {KEY} and no other." * ("Tell the key" in text)


@pytest.fixture(scope="session")
def parrot_server():
    from mock_server import MockServer

    with MockServer(answer=parrot) as address:
        yield address


@pytest.fixture(scope="session")
def url(root, study, parrot_server):
    folder = study.parent
    (folder / "models.yaml").write_text(MODELS.format(server=parrot_server))
    server, address = start(
        root, folder, "--study", study, "--models", folder / "models.yaml", env={"OPENAI_API_KEY": KEY}
    )
    yield address
    server.terminate()
    server.wait(30)
    log = (folder / "log").read_text()
    assert not went_wrong(log), went_wrong(log)
    assert KEY not in log, log[-3000:]
    assert not list((folder / "tmp").glob("cocoift-app-*"))  # nothing that anybody sent stays


@pytest.fixture(scope="module")
def visit(chromium, tmp_path_factory):
    "One visitor's browser, which has the page's scripts already, compiled too: that takes a profile on disk."
    context = chromium.launch_persistent_context(
        tmp_path_factory.mktemp("profile"),
        executable_path=CHROMIUM,
        args=FLAGS,
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield context
    context.close()


@pytest.fixture
def watched(visit, url):
    "A page, and what it complains of or asks of strangers, which fails the test."
    page = visit.new_page()
    wrong = page.wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else wrong.append(r.url))
    yield page
    page.close()
    assert not wrong


@pytest.fixture
def chat(watched, url):
    "The chat, ready."
    from hands import ready

    return ready(watched, url)


@dataclass(frozen=True)
class Guarded:
    "An app behind a password."

    url: str
    folder: Path  # with its log, its store and its temporary files
    study: Path  # not there yet
    password: str


@pytest.fixture(scope="session")
def guarded(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    server, address = start(
        root,
        folder,
        "--chat",
        "--study",
        folder / "runs/study",
        "--host",
        "127.0.0.2",
        env={"COCOIFT_PASSWORD": "open sesame 77"},
        host="127.0.0.2",
    )
    yield Guarded(address, folder, folder / "runs/study", "open sesame 77")
    server.terminate()
    server.wait(30)
    assert not went_wrong(log := (folder / "log").read_text()), went_wrong(log)


@pytest.fixture(scope="module")
def inside(browser, guarded):
    "The guarded app's page, entered after a wrong guess."
    from hands import expect

    page = browser.new_context().new_page()
    page.wrong = []
    page.goto(guarded.url, wait_until="domcontentloaded")
    for guess, says in (("sesame", "Incorrect Credentials"), (guarded.password, None)):
        page.get_by_label("username").fill("a guest")
        page.get_by_label("password").fill(guess)
        page.get_by_role("button", name="Login").click()
        if says:
            expect(page.get_by_text(says)).to_be_visible()
            assert not page.locator("#prompt").count()
    expect(page.locator("#prompt textarea")).to_be_enabled()
    yield page
    page.context.close()
