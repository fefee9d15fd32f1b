"Trainings over two hosts that ssh reaches: namespaces of this machine, with an sshd each (hosts.py)."

import json
import os
import re
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
from test_resume import losses, ranks_of, reached

from cocoift.train.checkpoint import Checkpoints
from cocoift.train.hosts import SILENCE

pytestmark = pytest.mark.skipif(bool(why := missing()), reason=why or "-")
OWN = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}  # as users have it


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
        yield pair


def command(small: Path, folder: Path, *options: str, first: str = "alpha") -> list:
    second = "beta" if first == "alpha" else "alpha"
    (folder / "hosts").write_text(f"{first} slots=1\n{second} slots=1\n")
    return [COCOIFT, "train", "tiny", *inputs(small), "out=run", "hostfile=hosts", "batch=8", *options]


def batch_job(small: Path, folder: Path, root: Path, *options: str) -> list[str]:
    """The page's sbatch script with a recipe for here, and `scontrol` as it answers within a job of alpha and beta."""
    page = json.loads((root / "nbs/cli/74_train.ipynb").read_text())
    [text] = [text for cell in page["cells"] if "cat > train.sbatch" in (text := "".join(cell["source"]))]
    script = text.partition("<<'END'\n")[2].partition("END\n")[0]
    ours = ["tiny", *inputs(small), "out=run", "batch=8", *options]
    script, count = re.subn(r"coco-ift-13b .*(?= hostfile=)", " ".join(ours), script, flags=re.DOTALL)
    assert count == 1
    (folder / "train.sbatch").write_text(script)
    (folder / "scontrol").write_text('#!/bin/sh\n[ "$*" = "show hostnames alpha,beta" ] && printf "alpha\\nbeta\\n"\n')
    (folder / "scontrol").chmod(0o755)
    return ["bash", "train.sbatch"]


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


def test_two_hosts_train_as_one(hosts, forked, small, root, tmp_path):
    """The job of the sbatch script. Losses are those of two ranks on one host. The other host's rank has what this
    one's has, each its own network. One SIGTERM, as SLURM sends it, and a checkpoint is written and nobody is left;
    what the run did not start lives on."""
    run, names = tmp_path / "run", ("GLOO_SOCKET_IFNAME", "MASTER_ADDR", "DS_ACCELERATOR", "NCCL_DEBUG", "API_KEY")
    env = OWN | {"NCCL_DEBUG": "WARN", "API_KEY": "secret", "PATH": f"{tmp_path}:{COCOIFT.parent}:{os.environ['PATH']}"}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "alpha,beta", "SLURM_GPUS_ON_NODE": "1"}
    job = batch_job(small, tmp_path, root, "steps=3000", "checkpoint=2000")
    held, parent = started(hosts[0], *job, cwd=tmp_path, env=env)
    try:
        wait(lambda: reached(run, 5), held)
        mine, theirs = by_host(hosts, run)
        handed = [[rank.environ().get(name) for name in names] for rank in (mine, theirs)]
        assert handed == [["wire", "10.99.0.1", "cpu", "WARN", key] for key in ("secret", None)]
        ranks = ranks_of(run)
        (other, alike), since = stranger(hosts[1], theirs), time.monotonic()
        parent.send_signal(signal.SIGTERM)
        words = held.communicate(timeout=120)[1]
        alive = psutil.wait_procs(ranks, 1)[1]
        assert time.monotonic() - since < 10, "SLURM kills after a while"
        assert held.returncode == 1 and "with a checkpoint; the same command goes on from there" in words, words
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


FAULTS = {  # host, port: what is told
    ("gamma", None): "not reached by ssh \\(Host key verification failed.\\): make its key known \\(ssh gamma, once",
    ("locked", None): "not reached by ssh \\(.*Permission denied .*let this user in without a password",
    ("nobody", None): "not reached by ssh \\(.*not resolve.*write its name as this host knows it",
    ("beta", 9): "not reached by ssh \\(.*port 9: Connection refused\\): start sshd there, or .* ssh_port=",
    ("delta", None): "not reached by ssh \\(.*(No route to host|timed out)\\): see whether it is up and the network",
    ("beta", None): "does not see what this host sees \\(ls: .*own-shared-memory.*same paths on all hosts",
}
ASKED = """
import json, sys
from pathlib import Path
from cocoift.files import UserError
from cocoift.train.hosts import meet_hosts
for host, port in json.loads(sys.argv[1]):
    Path("hosts").write_text(f"alpha slots=1\\n{host} slots=1\\n")
    try:
        meet_hosts(Path("hosts"), [Path(sys.argv[2])], port)
    except UserError as error:
        print(error)
"""


def test_a_host_that_cannot_be_met_is_told_in_a_line(hosts, tmp_path):
    "What sshd and the network really say, each with its mend. The file that beta lacks is in alpha's own memory."
    mine = "/dev/shm/own-shared-memory"
    subprocess.run(hosts[0].inside("touch", mine), check=True)
    asked = hosts[0].inside(sys.executable, "-c", ASKED, json.dumps(list(FAULTS)), mine, cwd=tmp_path)
    done = subprocess.run(asked, capture_output=True, text=True, env=OWN, check=True)
    for (host, _), line, complaint in zip(FAULTS, done.stdout.splitlines(), FAULTS.values(), strict=True):
        assert re.fullmatch(f"hosts: host {host} (is )?{complaint}.*; or take it out of the hostfile", line), line


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_on_any_host(hosts, forked, small, tmp_path):
    """`kill -9` of the command: its ranks end here and there. The same command goes on from the last checkpoint, led by
    the other host too; its losses are those of two ranks on one host that nobody disturbed."""
    run, short = tmp_path / "run", ("steps=12", "checkpoint=3")
    held, parent = started(hosts[0], *command(small, tmp_path, *short), cwd=tmp_path, env=OWN)
    wait(lambda: reached(run, 5), held)
    ranks = ranks_of(run)
    (other, alike), since = stranger(hosts[1], by_host(hosts, run)[1]), time.monotonic()
    parent.kill()
    assert not psutil.wait_procs(ranks, 60)[1] and alike.is_running()
    print(f"ended {time.monotonic() - since:.1f} s after SIGKILL")
    alike.kill(), other.wait(), held.communicate()
    assert not (run / "train.json").exists()
    again = hosts[0].inside(*command(small, tmp_path, *short, first="beta"), cwd=tmp_path)
    done = subprocess.run(again, capture_output=True, text=True, env=OWN)
    assert done.returncode == 0 and re.search(r"going on after step (3|6|9)\n", done.stderr), done.stderr
    forked(json.loads((run / "job.json").read_text()) | {"out": str(tmp_path / "alone")})
    assert losses(run, 12) == pytest.approx(losses(tmp_path / "alone", 12), rel=1e-6)


@pytest.mark.slow
def test_a_host_that_vanishes_is_told_in_a_line(hosts, small, tmp_path):
    "A cable is pulled. The command ends with a line that names the host and the checkpoint; nobody waits on any side."
    run, own = tmp_path / "run", command(small, tmp_path, "steps=3000", "checkpoint=5")
    held, _ = started(hosts[0], *own, cwd=tmp_path, env=OWN)
    wait(lambda: reached(run, 8), held)
    ranks, since = ranks_of(run), time.monotonic()
    hosts[1].pull("down")
    try:
        *words, last = held.communicate(timeout=300)[1].splitlines()
        print(f"told {time.monotonic() - since:.1f} s after the cable was pulled: {last}")
        at = Checkpoints(run).latest()
        lost = "cocoift train: the connection to host beta is lost: see whether it is up; "
        assert last == f"{lost}run the same command again to go on from the last checkpoint ({at})", words
        assert held.returncode == 1 and not psutil.wait_procs(ranks, 2 * SILENCE)[1]
        print(f"all ended {time.monotonic() - since:.1f} s after it")
        done = subprocess.run(hosts[0].inside(*own, cwd=tmp_path), capture_output=True, text=True, env=OWN)
        assert done.returncode == 2 and "hosts: host beta is not reached by ssh" in done.stderr.splitlines()[-1]
    finally:
        hosts[1].pull("up")
