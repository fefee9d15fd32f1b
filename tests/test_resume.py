"A command that was killed and is run again ends as if nothing had happened."
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

COCOIFT = Path(sys.executable).with_name("cocoift")


def kill_when(ready, *args, cwd: Path) -> None:
    "Start a command in a process group of its own and kill the group, without mercy, as soon as `ready()` holds."
    with subprocess.Popen([COCOIFT, *map(str, args)], cwd=cwd, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not ready() and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before it could be killed: {process.stderr.read().decode()}"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    "All that must not depend on how a run came about; times have a file of their own."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "times.jsonl"}


@pytest.mark.parametrize("torn", [0.4, 0.97], ids=["in an image", "in the last line"])
def test_eval(cocoift, small, tmp_path, torn, undisturbed_eval):
    def command(out: Path) -> list:
        return ["eval", "--model", small / "start", "--data", small / "exam", "--per-image", 2, "--out", out, "--json"]

    whole, printed = undisturbed_eval
    rounds = tmp_path / "run/rounds.jsonl"
    kill_when(lambda: rounds.exists() and rounds.stat().st_size > 0, *command(tmp_path / "run"), cwd=tmp_path)
    assert not (tmp_path / "run/scores.json").exists()
    with open(rounds, "rb+") as file:  # and what a dying disk may leave: half of what was written
        file.truncate(int(rounds.stat().st_size * torn))
    done = cocoift(*command(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    assert contents(tmp_path / "run") == contents(whole)


@pytest.fixture(scope="module")
def undisturbed_eval(cocoift, small, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("eval") / "run"
    done = cocoift("eval", "--model", small / "start", "--data", small / "exam", "--per-image", 2, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def undisturbed_train(cocoift, small, tmp_path_factory) -> tuple[Path, dict, Path]:
    "A run of twelve steps on two ranks at stage 2, its document, and its recipe."
    folder = tmp_path_factory.mktemp("train")
    recipe = {"model": str(small / "start"), "data": str(small / "set"), "images": str(small / "world/images"), "out": "?", "train": "all", "ranks": 2,
              "steps": 12, "batch": 16, "micro_batch": 2, "lr": 1e-3, "checkpoint": 3, "zero": 2, "recompute": False}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = cocoift("train", folder / "recipe.yaml", f"out={folder / 'run'}", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout), folder / "recipe.yaml"


def ranks_of(run: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(run / "job.json") in (p.info["cmdline"] or [])]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    return [line["loss"] for line in lines]


def test_train_killed(cocoift, tmp_path, undisturbed_train):
    "Killed, and run again as it was: the same bytes. Killed once more, and the last checkpoint altered: the one before is taken, at another number of ranks and another stage."
    whole, document, recipe = undisturbed_train
    run = tmp_path / "run"
    steps = random.Random(os.getpid()).sample(range(4, 8), 1)[0]
    kill_when(lambda: len(list((run / "checkpoints").glob("step-*"))) and reached(run, steps), "train", recipe, f"out={run}", cwd=tmp_path)
    gone, alive = psutil.wait_procs(ranks_of(run), timeout=60)
    assert not alive, "ranks outlive the command that started them"
    assert not (run / "train.json").exists() and not (run / "model").exists()
    again = tmp_path / "again"
    shutil.copytree(run, again)

    done = cocoift("train", recipe, f"out={run}", "--json")
    assert done.returncode == 0, done.stderr
    for name in "metrics.jsonl", "train.json":
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert contents(run / "model") == contents(whole / "model") and not list(run.rglob("*.partial"))
    measured = {"tokens_per_s", "model"}
    assert {k: v for k, v in json.loads(done.stdout).items() if k not in measured} == {k: v for k, v in document.items() if k not in measured}
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-0000006", "step-0000009"]  # keep=2

    for torn in sorted((again / "checkpoints").glob("step-*/rank-0000-*"))[-1:]:
        with open(torn, "rb+") as file:
            file.seek(-8, 2)
            file.write(bytes(8))
    done = cocoift("train", recipe, f"out={again}", "ranks=1", "zero=3", "micro_batch=5")
    assert done.returncode == 0, done.stderr
    assert "was altered after it was written" in done.stderr
    assert losses(again) == pytest.approx(losses(whole), abs=2e-4)


def reached(run: Path, steps: int) -> bool:
    return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_bytes().count(b"\n") >= steps


def test_train_asked_to_stop(cocoift, tmp_path, undisturbed_train):
    "SIGTERM writes a checkpoint at the step where it comes; the run goes on from there."
    whole, _, recipe = undisturbed_train
    run = tmp_path / "run"
    with subprocess.Popen([COCOIFT, "train", recipe, f"out={run}", "checkpoint=100"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not reached(run, 2) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and re.search(r"stopped after step (\d+) of 12, with a checkpoint; the same command goes on from there", told), told
    [point] = (run / "checkpoints").iterdir()
    assert point.name.startswith("step-")
    done = cocoift("train", recipe, f"out={run}", "checkpoint=100")
    assert done.returncode == 0 and f"going on after step {int(point.name[5:])}" in done.stderr, done.stderr
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert contents(run / "model") == contents(whole / "model")


def test_disk_full(tmp_path, undisturbed_train, cocoift):
    "A disk that is full while a checkpoint is written: one line, and the one before is whole and is gone on from."
    _, _, recipe = undisturbed_train
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir(), kept.mkdir()
    size = sum(path.stat().st_size for path in (undisturbed_train[0] / "checkpoints/step-0000009").iterdir())
    script = f"mount -t tmpfs -o size={int(size * 1.6) + 2**18} none {disk} && {COCOIFT} train {recipe} out={disk}/run; code=$?; cp -r {disk}/run {kept}; exit $code"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("cocoift train: ")]
    assert len(lines) == 1 and "no space left on device" in lines[0] and "step-0000003 is whole: make room and run the same command again" in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (kept / "run/checkpoints").iterdir()] == ["step-0000003"]
    again = cocoift("train", recipe, f"out={kept / 'run'}")
    assert again.returncode == 0 and "going on after step 3" in again.stderr, again.stderr
    assert losses(kept / "run") == losses(undisturbed_train[0])


def test_a_loss_that_is_no_number(cocoift, small, tmp_path, undisturbed_train):
    "It stops before the weights are touched, and names the step, the conversations and the last good checkpoint."
    _, _, recipe = undisturbed_train
    done = cocoift("train", recipe, f"out={tmp_path / 'run'}", "lr=1e18", "clip=1e30", "checkpoint=1")
    assert done.returncode == 2, done.stderr
    assert re.search(r"the loss is no number at step \d+ \(conversations \S+.*\): lower lr .*; the last good checkpoint is step-\d+", done.stderr), done.stderr
