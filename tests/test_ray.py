"A build on a Ray cluster of two nodes: the same bytes, by way of stops and dead workers; and clusters that are none."

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cocoift.data.build.make import build
from cocoift.data.build.on_ray import RAY_SETTINGS, OnRay, quick_imports, start_patiently
from cocoift.data.build.recipe import BuildRecipe
from cocoift.files import Failed
from cocoift.options import load_recipe
from cocoift.world import make_world

ray = pytest.importorskip("ray", reason="pip install 'cocoift[ray]'")

BLOCK = 1 << 17  # bytes
RECIPE = "name: r\nsources: {vqav2: {cap: 300}, coco-captions: , llava-instruct: }\nclean: [mine.jsonl]\n"
# blocks as small as the sources are here
COMMAND = (
    f"from cocoift.data.build.on_ray import OnRay; OnRay.block = {BLOCK}; from cocoift.cli.main import main; main()"
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def dialogs(count: int) -> list[dict]:
    "Of every kind: sound ones, some that say the same as another block's, broken ones, and those of blocked images."
    rows = []
    for k in range(count):
        turns = [{"from": "human", "value": f'What is {{"id": {k % 1800}}} of é?'}, {"from": "gpt", "value": "A sign."}]
        rows.append({"id": k, "image": f"{k % 90 + 1:012d}.jpg", "conversations": turns[: 1 + (k % 97 > 0)]})
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    "A folder with world/, a recipe, and what one process makes of them, set/."
    folder = tmp_path_factory.mktemp("ray")
    make_world(folder / "world", 60)
    (folder / "world/llava").mkdir()
    (folder / "world/llava/llava_instruct_150k.json").write_text(json.dumps(dialogs(5000), ensure_ascii=False))
    (folder / "mine.jsonl").write_text('{"image": "COCO_train2014_000000000007.jpg"}\n')
    (folder / "r.yaml").write_text(RECIPE.replace("mine", str(folder / "mine")))
    counts = build(load_recipe(str(folder / "r.yaml"), BuildRecipe), folder / "world", folder / "set", jobs=1)
    row = counts["by_source"]["llava-instruct"]
    assert row["rejected"] and row["duplicates"] and row["excluded"] and counts["by_source"]["vqav2"]["capped"]
    return folder


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    with quick_imports():
        nodes = start_patiently(lambda: Cluster(initialize_head=True, head_node_args=small))
        start_patiently(lambda: nodes.add_node(**small))
        yield nodes
        nodes.shutdown()


def blocks(home: Path, out: str) -> dict[str, int]:  # those that are read, and which files they are
    folders = home.glob(f".{out}.partial/read/*/[0-9]*")
    return {str(path.relative_to(home)): path.stat().st_ino for path in folders}


def end_a_worker(home: Path, seen: dict) -> None:
    "Kill whoever reads a block, once; then watch which blocks there are, until the set is there."
    while not (home / "killed").exists():
        if list(home.glob(".killed.partial/read/*/.0*.partial")) and (at_work := tasks()):
            seen["before"] = blocks(home, "killed")
            at_work[0].kill()
            break
        time.sleep(0.005)
    while not (home / "killed").exists():
        seen["after"] = seen.get("after", {}) | blocks(home, "killed")
        time.sleep(0.01)


def tasks() -> list[psutil.Process]:  # of Ray Data
    return [p for p in psutil.process_iter() if p.name().startswith("ray::Map")]


def test_the_same_set_though_a_worker_dies(home, cluster, monkeypatch):
    monkeypatch.setattr(OnRay, "block", BLOCK)
    seen = {}
    watch = threading.Thread(target=end_a_worker, args=(home, seen), daemon=True)
    watch.start()
    recipe = load_recipe(str(home / "r.yaml"), BuildRecipe)
    counts = build(recipe, home / "world", home / "killed", engine="ray", address=cluster.address)
    watch.join()
    assert seen["before"].items() <= seen["after"].items()  # nothing that was finished is done again
    assert len([name for name in seen["after"] if "llava-instruct" in name]) > 2
    assert contents(home / "killed") == contents(home / "set")
    assert counts["by_source"] == json.loads((home / "set/manifest.json").read_text())["counts"]["by_source"]
    assert not list(home.glob(".killed*"))


@pytest.mark.slow
def test_a_stopped_build_goes_on(home, cluster):
    command = [sys.executable, "-c", COMMAND, "build", "r.yaml", "--data", "world", "--out", "stopped"]
    command += ["--engine", "ray", "--address", cluster.address]
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = blocks(home, "stopped")
        with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and blocks(home, "stopped") == before:
                time.sleep(0.01)
            process.send_signal(number)
            error = process.communicate()[1]
        assert process.returncode == (130 if number == signal.SIGTERM else -number), error
        assert number == signal.SIGKILL or error.endswith("interrupted; the same command goes on where it stopped\n")
        assert before.items() <= blocks(home, "stopped").items() and not (home / "stopped").exists()
    before = blocks(home, "stopped")
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(before) > 1 and contents(home / "stopped") == contents(home / "set")


SLOW = """import os, sys, time
if sys.orig_argv[1:] and any(name.endswith("dashboard/agent.py") for name in sys.orig_argv):
    try:
        os.mkdir({once!r})
        time.sleep(60)
    except FileExistsError:
        pass
"""


@pytest.mark.slow
def test_a_start_that_is_too_slow_is_made_again(home, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(once=str(tmp_path / "slept")))
    command = [sys.executable, "-c", COMMAND, "build", "r.yaml", "--data", "world", "--out", "again", "--engine", "ray"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=home, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "slept").exists() and contents(home / "again") == contents(home / "set")


def test_processes_of_ray_leave_out_a_grammar():
    read = "import sys, jsonschema; print([name for name in ('rfc3987_syntax', 'lark') if name in sys.modules])"
    before = os.environ.get("PYTHONPATH")
    with quick_imports():
        done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True)
    assert (done.stdout, os.environ.get("PYTHONPATH")) == ("[]\n", before), done.stderr


def test_a_start_that_stays_too_slow(home, monkeypatch):
    told = "The current node timed out during startup. This could happen because ..."  # as Ray 2.60 does
    half = []

    def sleeper(*words):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])

    def start(*_, **__):
        others.append(sleeper())
        half.append(sleeper("/packages/ray/core/raylet"))
        raise Exception(told)

    others = []
    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(Failed, match="did not start on this machine in 3 tries: .* 15 seconds .* leave --engine out$"):
        with OnRay():
            pass
    assert len(half) == 3 and not any(psutil.pid_exists(process.pid) for process in half)
    assert all(process.poll() is None for process in others)
    for process in others:
        process.kill()


def refused(typed, home: Path, *options) -> str:
    before = contents(home)
    done = typed("build", "r.yaml", "--data", "world", "--out", "no", *options, cwd=home)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert contents(home) == before and not list(home.glob("*no*"))
    return done.stderr


def test_a_ray_of_another_version(typed, home, cluster):
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient

    client = GcsClient(address=cluster.address)
    ours = get_cluster_metadata(client)
    named = (b"CLUSTER_METADATA", json.dumps(ours | {"ray_version": "2.9.0"}).encode(), True, b"cluster")
    client.internal_kv_put(*named)
    try:
        error = refused(typed, home, "--engine", "ray", "--address", cluster.address)
    finally:
        client.internal_kv_put(named[0], json.dumps(ours).encode(), *named[2:])
    assert f"is Ray 2.9.0 with Python {ours['python_version']}, this is Ray {ray.__version__} with" in error


@pytest.mark.parametrize(
    "options, why",
    [
        (["--engine", "ray", "--address", "127.0.0.1:1"], "there is no Ray cluster at 127.0.0.1:1: start one"),
        (["--engine", "ray", "--address", "head"], "'head' is neither HOST:PORT nor `auto`"),
        (["--engine", "ray", "--address", "ray://head:10001"], "is a Ray Client's"),
        (["--address", "auto"], "give --engine ray with it"),
        (["--engine", "spark"], "'spark' is not one of 'embedded', 'ray'"),
    ],
)
def test_no_cluster(typed, home, options, why):
    assert why in refused(typed, home, *options)


def test_ray_is_not_installed(home):
    command = "import sys; sys.modules['ray'] = None; from cocoift.cli.main import main; main()"
    options = ["build", "r.yaml", "--data", "world", "--out", "no", "--engine", "ray"]
    done = subprocess.run([sys.executable, "-c", command, *options], cwd=home, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "pip install 'cocoift[ray]'" in done.stderr
    assert not list(home.glob("*no*"))
