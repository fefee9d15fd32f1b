"""Two hosts on this machine: network, processes, host name and shared memory of their own, an sshd each, one wire
between them. They see the same files, as hosts of a cluster do, and know each other's keys, which nobody else does.
All of it is gone when their stdin ends, even if the tests are killed."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

NAMES = {"alpha": "10.99.0.1", "beta": "10.99.0.2"}
OTHERS = {"locked": "10.99.0.2", "gamma": "10.99.0.2", "delta": "10.99.0.9"}  # beta: not let in, not known; nobody
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
SERVER = """HostKey {0}/key
AuthorizedKeysFile {0}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PidFile none
"""
CLIENT = """Host *
IdentityFile {0}/key
IdentitiesOnly yes
UserKnownHostsFile {0}/known
GlobalKnownHostsFile none
StrictHostKeyChecking yes
Host locked
User daemon
"""
APART = ["--net", "--pid", "--uts", "--mount", "--mount-proc"]
TRIED = "mount -t tmpfs none /run && ip link add wire type veth peer name other && ls /etc/ssh/ssh_config"
START = """set -e
hostname $1
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run && mkdir /run/sshd
mount --bind $3/ssh_config /etc/ssh/ssh_config
mount --bind $3/names /etc/hosts
ip link set lo up
echo apart; read wired
ip address add $2/24 dev wire && ip link set wire up
$4 -f $3/sshd_config -E $3/$1.log
echo up
cat; :  # in the end the first process ends, and with it all others here
"""


def missing() -> str:
    "Why two hosts cannot be had here."
    lacks = [name for name in ("ip", "unshare", "nsenter", "ssh", "ssh-keygen") if not shutil.which(name)]
    if lacks := lacks + ["sshd"] * (not SSHD):
        return f"no {', '.join(lacks)} here: apt-get install openssh-server iproute2"
    tried = subprocess.run(["unshare", *APART, "--fork", "sh", "-c", TRIED], capture_output=True, text=True)
    return f"hosts cannot be made of namespaces here ({tried.stderr.strip()})" if tried.returncode else ""


class Host:
    "One of them. Its first process lives as long as this process's end of its stdin."

    def __init__(self, name: str, folder: Path):
        self.name, self.address = name, NAMES[name]
        apart = ["unshare", *APART, "--fork", "sh", "-c", START, "sh"]
        self.process = subprocess.Popen(
            [*apart, name, self.address, folder, SSHD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.expect("apart")
        self.first = psutil.Process(self.process.pid).children()[0]

    def expect(self, word: str) -> None:
        line = self.process.stdout.readline()
        assert line == f"{word}\n", f"{self.name}: {line!r} instead of {word}"

    def wire(self) -> None:
        print(file=self.process.stdin, flush=True)
        self.expect("up")

    def inside(self, *command, cwd: Path = Path("/")) -> list[str]:
        "A command, run on this host."
        enter = ["nsenter", f"--target={self.first.pid}", "--net", "--pid", "--uts", "--mount"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd), *map(str, command)]

    def pull(self, way: str) -> None:  # up, down
        "The cable."
        subprocess.run(self.inside("ip", "link", "set", "wire", way), check=True)

    def processes(self) -> list[psutil.Process]:
        "What runs there."
        own, theirs = os.readlink(f"/proc/{self.first.pid}/ns/pid"), []
        for process in psutil.process_iter(["cmdline"]):
            try:
                if os.readlink(f"/proc/{process.pid}/ns/pid") == own:
                    theirs.append(process)
            except OSError:
                pass  # has ended
        return theirs

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def started(host: Host, *command, cwd: Path, env: dict) -> tuple[subprocess.Popen, psutil.Process]:
    "A command of a host: what holds its output, and the command itself, to be signalled."
    entered = subprocess.Popen(
        host.inside(*command, cwd=cwd),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    for _ in range(1000):
        if children := psutil.Process(entered.pid).children():
            return entered, children[0]
        time.sleep(0.01)
    raise AssertionError(entered.communicate()[1])


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    "alpha and beta; `folder` is for what they share."
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    public = " ".join((folder / "key.pub").read_text().split()[:2])
    named = {"localhost": "127.0.0.1", **NAMES, **OTHERS}
    (folder / "known").write_text(f"alpha,beta,locked,delta {public}\n")
    (folder / "names").write_text("".join(f"{address} {name}\n" for name, address in named.items()))
    (folder / "sshd_config").write_text(SERVER.format(folder))
    (folder / "ssh_config").write_text(CLIENT.format(folder))
    with ExitStack() as stack:
        hosts = []
        for name in NAMES:
            hosts.append(Host(name, folder))
            stack.callback(hosts[-1].end)
        ends = [["wire", "netns", str(host.first.pid)] for host in hosts]
        subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True)
        for host in hosts:
            host.wire()
        yield tuple(hosts)
