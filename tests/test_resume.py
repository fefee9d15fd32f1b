"A command that was killed and is run again ends as if nothing had happened."

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from killed import COCOIFT, contents, kill_when


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    "Every file with its time and bytes: what a start that changes nothing leaves as it was."
    return {name: ((folder / name).stat().st_mtime_ns, held) for name, held in contents(folder).items()}


def eval_command(small: Path, out: Path) -> list:
    return ["eval", "--model", small / "start", "--data", small / "exam", "--per-image", 2, "--out", out, "--json"]


@pytest.fixture(scope="module")
def undisturbed_eval(typed, small, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("eval") / "run"
    done = typed(*eval_command(small, out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def killed_eval(small, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("killed") / "run"
    rounds = run / "rounds.jsonl"
    kill_when(lambda: rounds.exists() and rounds.stat().st_size > 0, *eval_command(small, run), cwd=run.parent)
    assert not (run / "scores.json").exists()
    return run


@pytest.mark.parametrize("torn", [0.4, 0.97], ids=["in an image", "in the last line"])
def test_eval(typed, small, tmp_path, torn, killed_eval, undisturbed_eval):
    whole, printed = undisturbed_eval
    shutil.copytree(killed_eval, tmp_path / "run")
    rounds = tmp_path / "run/rounds.jsonl"
    with open(rounds, "rb+") as file:  # and what a dying disk may leave: half of what was written
        file.truncate(int(rounds.stat().st_size * torn))
    done = typed(*eval_command(small, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    assert contents(tmp_path / "run") == contents(whole)


def ranks_of(run: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(run / "job.json") in (p.info["cmdline"] or [])]


def losses(run: Path, steps: int) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    return [line["loss"] for line in lines]


def reached(run: Path, steps: int) -> bool:
    return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_bytes().count(b"\n") >= steps


@pytest.mark.slow
def test_train(typed, forked, tmp_path):
    """`cocoift train tiny` on the embedded world: on two ranks of a hostfile, killed without mercy and run again; on
    one rank, asked to stop and gone on with. Both end with the same losses."""
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    run, one, short = tmp_path / "run", tmp_path / "one", ["steps=5", "batch=32", "checkpoint=2"]
    two = ["train", "tiny", f"out={run}", f"hostfile={tmp_path / 'hosts'}", *short]
    kill_when(lambda: reached(run, 3), *two, cwd=tmp_path)
    gone, alive = psutil.wait_procs(ranks_of(run), timeout=60)
    assert not alive, "ranks outlive the command that started them"
    assert not (run / "train.json").exists() and not (run / "model").exists()
    done = typed(*two, "--json")
    assert done.returncode == 0 and "going on after step 2" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert (
        told["steps"] == 5
        and told["kept"] > 500
        and not told["cut"] + told["dropped"]
        and Path(told["model"], "config.json").exists()
    )
    before = stamps(run)
    again = typed(*two, "--json")  # what is done is handed back
    assert (again.returncode, again.stdout) == (0, done.stdout) and stamps(run) == before
    ports = re.findall(r"--master_port=(\d+)", (run / "log.txt").read_text(errors="replace"))
    # 69 MB a rank
    assert len(set(ports)) == 2 and not [
        left for port in ports for left in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{port}_*")
    ]

    alone = [
        "train",
        "tiny",
        f"out={one}",
        "ranks=1",
        *short,
        "checkpoint=100",
        *(
            f"{k}={tmp_path / 'run-drawn' / v}"
            for k, v in (("model", "start"), ("data", "set"), ("images", "world/images"))
        ),
    ]
    with subprocess.Popen([COCOIFT, *alone], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not reached(one, 2) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=120)[1]
    found = re.search(
        r"cocoift train: stopped after step (\d+) of 5, with a checkpoint; the same command goes on from there", told
    )
    assert process.returncode == 1 and found, told
    assert [path.name for path in (one / "checkpoints").iterdir()] == [f"step-{int(found[1]):07}"]
    (one / "stop").unlink()  # as the command does, which finds the rank's job where it was
    done = forked(json.loads((one / "job.json").read_text()))
    assert done["codes"] == [0] and [line["message"] for line in done["told"]] == [f"going on after step {found[1]}"], (
        done
    )
    assert losses(one, 5) == pytest.approx(losses(run, 5), abs=1e-4)
