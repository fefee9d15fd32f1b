"Trainings over two hosts that ssh reaches: namespaces of this machine, with an sshd each (hosts.py)."

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hosts import Host, missing, started, two_hosts
from test_cases_train import COCOIFT, inputs, lines
from test_resume import ranks_of, reached

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
OWN = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}  # as users have it


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
        yield pair


def command(small: Path, folder: Path, *options: str, first: str = "alpha") -> list:
    second = "beta" if first == "alpha" else "alpha"
    (folder / "hosts").write_text(f"{first} slots=1\n{second} slots=1\n")
    return [COCOIFT, "train", "tiny", *inputs(small), "out=run", "hostfile=hosts", "batch=8", *options]


def wait(ready, process: subprocess.Popen, seconds: float = 300) -> None:
    "Until it is `ready()`, while the command runs."
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"not ready after {seconds} s"
        time.sleep(0.01)


def by_host(hosts: tuple[Host, Host], run: Path) -> list[psutil.Process]:  # alpha's rank, beta's rank
    ranks = {p.pid: p for p in ranks_of(run) if p.info["cmdline"][3] == "cocoift.train.loop"}
    return [ranks[next(pid for p in host.processes() if (pid := p.pid) in ranks)] for host in hosts]


def stranger(host: Host, like: psutil.Process) -> tuple[subprocess.Popen, psutil.Process]:
    "Somebody else's process, with the command line of a rank."
    return started(host, sys.executable, "-c", "import time; time.sleep(600)", *like.cmdline(), cwd=Path("/"), env=OWN)


def test_two_hosts_train_as_one(hosts, forked, small, tmp_path):
    """Losses are those of two ranks on one host. The other host's rank has what this one's has, each its own network.
    One SIGTERM, and a checkpoint is written and nobody is left; what the run did not start lives on."""
    run, names = tmp_path / "run", ("GLOO_SOCKET_IFNAME", "MASTER_ADDR", "DS_ACCELERATOR", "NCCL_DEBUG", "API_KEY")
    env = OWN | {"NCCL_DEBUG": "WARN", "API_KEY": "secret"}
    held, parent = started(hosts[0], *command(small, tmp_path, "steps=3000", "checkpoint=2000"), cwd=tmp_path, env=env)
    try:
        wait(lambda: reached(run, 5), held)
        mine, theirs = by_host(hosts, run)
        told = [[rank.environ().get(name) for name in names] for rank in (mine, theirs)]
        assert told == [["wire", "10.99.0.1", "cpu", "WARN", key] for key in ("secret", None)]
        ranks = ranks_of(run)
        (other, alike), since = stranger(hosts[1], theirs), time.monotonic()
        parent.send_signal(signal.SIGTERM)
        said = held.communicate(timeout=120)[1]
        gone, alive = psutil.wait_procs(ranks, 10)
        print(f"ended {time.monotonic() - since:.1f} s after SIGTERM")
        assert held.returncode == 1 and "with a checkpoint; the same command goes on from there" in said, said
        assert not alive and alike.is_running() and other.poll() is None
        alike.kill(), other.wait()
    finally:
        held.kill(), held.wait()
    done = lines(run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{len(done):07}"]
    alone = json.loads((run / "job.json").read_text()) | {"out": str(tmp_path / "alone")}
    forked(alone, after=5, signal=signal.SIGKILL)
    pairs = list(zip(lines(tmp_path / "alone"), done))
    assert len(pairs) >= 5
    assert [one["loss"] for one, _ in pairs] == pytest.approx([two["loss"] for _, two in pairs], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wire", "power"])
def test_a_host_that_vanishes(hosts, small, tmp_path, how):
    run = tmp_path / "run"
    held, parent = started(hosts[0], *command(small, tmp_path, "steps=3000", "checkpoint=5"), cwd=tmp_path, env=OWN)
    wait(lambda: reached(run, 8), held)
    ranks = ranks_of(run)
    there = {p.pid for p in hosts[1].processes()}
    since = time.monotonic()
    subprocess.run(["nsenter", f"--target={hosts[1].first.pid}", "--net", "ip", "link", "set", "wire", "down"], check=True)
    said = held.communicate(timeout=300)[1]
    print(f"told after {time.monotonic() - since:.1f} s", said)
    mine = [p for p in ranks if p.pid not in there]
    print("mine", psutil.wait_procs(mine, 10), time.monotonic() - since)
    print("theirs", psutil.wait_procs([p for p in ranks if p.pid in there], 200), time.monotonic() - since)
    print((run / "log.txt").read_text()[-6000:])
