"A command that was killed and is run again ends as if nothing had happened."
import json
import os
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


def test_train(cocoift, small, tmp_path):
    recipe = {"model": str(small / "start"), "data": str(small / "set"), "images": str(small / "world/images"), "out": "?", "train": "all", "ranks": 2,
              "steps": 12, "images_per_step": 4, "micro_batch": 2, "lr": 1e-3, "checkpoint": 3, "zero": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    kill_when((killed / "checkpoints/latest.json").exists, "train", "recipe.yaml", f"out={killed}", cwd=tmp_path)
    workers = [p for p in psutil.process_iter(["cmdline"]) if str(killed / "job.json") in (p.info["cmdline"] or [])]
    assert workers, "the ranks are processes of their own"
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "ranks outlive the command that started them"
    assert not (killed / "train.json").exists() and not (killed / "model").exists()

    results = {}
    for out in killed, whole:
        done = cocoift("train", "recipe.yaml", f"out={out}", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results[out] = json.loads(done.stdout)
        assert not list(out.rglob("*.partial"))
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert len((killed / "metrics.jsonl").read_text().splitlines()) == 12
    assert contents(killed / "model") == contents(whole / "model")
    assert (killed / "train.json").read_bytes() == (whole / "train.json").read_bytes()
    measured = {"tokens_per_s", "model"}
    assert {k: v for k, v in results[killed].items() if k not in measured} == {k: v for k, v in results[whole].items() if k not in measured}
