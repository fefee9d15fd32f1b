"One study, one app and one browser for all tests of the pages; a served model that echoes what it is asked, so that hostile answers are as easy as hostile questions."
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
MODELS = """
- {{name: quick, scripted: oracle, pace: 60}}
- {{name: slow, scripted: collapse, pace: 4}}
- {{name: snail, scripted: collapse, pace: 1}}
- {{name: broken, scripted: oracle, pace: 60, fails_at: 2}}
- {{name: echo, server: '{server}#echo'}}
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if "page" in getattr(item, "fixturenames", ()) and not CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="chromium is not installed: apt-get install chromium"))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-dev-shm-usage"]}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(root: Path, folder: Path, *options, env: dict | None = None) -> tuple[subprocess.Popen, str]:
    "The app as a process, and its address."
    port = free_port()
    command = [Path(sys.executable).with_name("cocoift"), "app", "--port", str(port), *map(str, options)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=os.environ | (env or {}))
    began = time.time()
    while time.time() - began < 90:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            return server, f"http://127.0.0.1:{port}/"
        except urllib.error.HTTPError:
            return server, f"http://127.0.0.1:{port}/"
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.3)
    raise AssertionError((folder / "log").read_text())


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    "Two scripted runs, COCO-Scope on one of them, a dataset, a finished and a running training, and a torn one of each."
    from cocoift.data.build import BuildRecipe, build
    from cocoift.eval.scope.make import make_scope
    from cocoift.eval.scope.play import ScopeScripted
    from cocoift.files import Journal, with_parent, write_json
    from cocoift.options import load_recipe
    from cocoift.studies.examine import examine
    from cocoift.studies.scope_run import score_scope
    from cocoift.world import make_world

    folder = tmp_path_factory.mktemp("app") / "runs" / "study"
    make_world(folder / "exam", 6, split="val", first=1_000_000)
    for name in ("collapse", "oracle"):
        examine(f"scripted:{name}", "rounds", folder / "exam", folder / "eval" / name)
    bench = make_scope(folder / "exam", 4)
    score_scope(ScopeScripted("collapse", bench), bench, folder / "eval/scope", ["own"])
    make_world(folder / "world", 6)
    build(load_recipe("world", BuildRecipe, ["layout=first-uniform"]), folder / "world", folder / "data/first-uniform")
    for name in ("done", "running"):
        lines = [{"step": n, "loss": 6 / n, "lr": 1e-3, "learned": 9, "tokens": 100, "separate": 140} for n in range(1, 9)]
        Journal(folder / "train" / name / "metrics.jsonl").append(lines)
        Journal(folder / "train" / name / "times.jsonl").append([{"step": line["step"], "seconds": 0.5} for line in lines])
    write_json(folder / "train/done/train.json", {"steps": 8})
    with open(folder / "train/running/metrics.jsonl", "a") as file:
        file.write('{"step": 9, "lo')  # being written
    write_text = lambda name, text: with_parent(folder / name).write_text(text)
    write_text("eval/torn/scores.json", '{"histories": {"none"')
    write_text("eval/torn-rounds/rounds.jsonl", "{torn}\n{}\n")
    write_text("eval/unanswered/rounds.jsonl", "")
    write_text("train/bad/metrics.jsonl", "{torn}\n{}\n")
    write_json(folder / "data/cut short/manifest.json", {})
    return folder


@pytest.fixture(scope="session")
def stage():
    from cocoift.chat.endpoint.stage import Raised, Stage

    with Raised(Stage()) as address:
        yield address


@pytest.fixture(scope="session")
def url(root, study, stage):
    folder = study.parent
    (folder / "models.yaml").write_text(MODELS.format(server=stage))
    server, address = start(root, folder, "--study", study, "--models", folder / "models.yaml", env={"OPENAI_API_KEY": "sk-never-shown-1234"})
    yield address
    server.terminate()
    server.wait(10)
    assert "Traceback" not in (folder / "log").read_text(), (folder / "log").read_text()[-3000:]


@pytest.fixture
def watched(page, url):
    "A page, and what it complains of or asks of strangers, which fails the test."
    wrong = page.wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else wrong.append(r.url))
    yield page
    assert not wrong
