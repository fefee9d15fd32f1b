"""What commands start, without its seconds of imports: a training's launcher, its ranks, processes that examine, and
`cocoift` in a notebook's shell.

`python` and `cocoift` are small programs here, whose process stays: it hands its words, environment, files and signals
to a fork of the server that listens, and ends as that does. The server runs none of it itself: a fork knows what it was
handed. Whatever else `python` is asked for, it is."""

import contextlib
import fcntl
import json
import multiprocessing.connection
import multiprocessing.spawn
import os
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
launched = words[:2] == ["-u", "-m"] and words[2] in ("deepspeed.launcher.launch", "cocoift.train.loop")
if name == "python" and not launched and words[-1:] != ["--multiprocessing-fork"]:
    os.execv({python!r}, [{python!r}, *words])
signals = {{signal.SIGINT, signal.SIGTERM}}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
files = []
for file in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(file)
        files.append(file)
    except OSError:
        pass
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
told = {{"name": name, "words": words, "cwd": os.getcwd(), "env": dict(os.environ), "files": files}}
request = json.dumps(told).encode()
for number in signals:
    signal.signal(number, lambda number, _: server.send(bytes([number])))
socket.send_fds(server, [len(request).to_bytes(4, "big")], files)
server.sendall(request)
signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
for file in files[3:]:
    os.close(file)
code = server.recv(1)
os._exit(code[0]) if code else os.kill(os.getpid(), signal.SIGKILL)
"""
HIGH = 600  # files are put from here on until each is in its place
home: Path
listener: socket.socket
begun: set[int] = set()


def listen(folder: Path) -> None:
    "From here on what this process and its forks start as `sys.executable` is warm."
    global home, listener
    home, listener = folder, socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "address"))
    listener.listen(64)
    for name in ("python", "cocoift"):
        (folder / name).write_text(PROGRAM.format(python=sys.executable, address=str(folder / "address")))
        (folder / name).chmod(0o755)
    sys.executable = str(folder / "python")
    multiprocessing.spawn.set_executable(sys.executable)


def until(ready, seconds: float | None = None) -> bool:
    "Wait until something can be read, or so long; whatever is asked for meanwhile is begun."
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        able = multiprocessing.connection.wait([ready, listener], left)
        if listener in able:
            answer()
        if ready in able or not able:
            return bool(able)


def answer() -> None:
    connection = listener.accept()[0]
    if not (child := os.fork()):
        begin(connection)
    connection.close()
    begun.add(child)
    begun.difference_update([pid for pid in begun if os.waitpid(pid, os.WNOHANG)[0]])


def begin(connection: socket.socket) -> None:
    "Be what was asked for, to the end."
    this, leave = os.getpid(), os._exit

    def end(code: int) -> None:
        if os.getpid() == this:  # and no fork of its own
            (home / str(this)).write_text(json.dumps(sorted(sys.modules)))
            (home / str(this)).rename(home / f"{this}.json")
            with contextlib.suppress(OSError):  # who reads is gone
                sys.stdout.flush(), sys.stderr.flush()
                connection.send(bytes([code % 256]))
        leave(code % 256)

    code, os._exit = 70, end  # as ranks do themselves
    try:
        head, files, *_ = socket.recv_fds(connection, 4, 250)
        request = b""
        while more := connection.recv(1 << 16) if len(request) < int.from_bytes(head, "big") else b"":
            request += more
        told = json.loads(request)
        connection = settle(connection, files, told)
        code = run(told["name"], told["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        end(code)


def settle(connection: socket.socket, files: list[int], told: dict) -> socket.socket:
    "Its files where it had them, its folder, its environment, its signals."
    connection, *moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, HIGH) for file in (connection.detach(), *files)]
    os.closerange(3, HIGH)
    for file, place in zip(moved, told["files"], strict=True):
        os.dup2(file, place)
        os.close(file)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    sys.stdin = open(0, closefd=False)
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection = socket.socket(fileno=connection)

    def obey() -> None:  # its process is signalled, or gone
        while told := connection.recv(1):
            os.kill(os.getpid(), told[0])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=obey, daemon=True).start()
    return connection


def run(name: str, words: list[str]) -> int:  # its exit code
    try:
        if name == "cocoift":
            type_in(words)
        elif words[0] == "-u":
            sys.argv = words[2:]
            sys.modules.pop(words[2], None)
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", words[-1]]
            exec(words[-2], {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def type_in(command: list[str]) -> None:
    sys.argv = ["cocoift", *command]
    from cocoift.cli.main import main

    main()
