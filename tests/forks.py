"""Processes without their seconds of imports: this one imports torch, transformers and DeepSpeed once, then forks
what it is asked for on stdin. `forks` in conftest.py talks to it.

command: `cocoift` as it is typed, in a process and a folder of its own.
script:  a Python file as it is started, with its arguments.
notebook: one that runs from top to bottom. In one process IPython would keep the worlds and models of all of them,
          and look through them at each collection and at the end.
recipe:  a training's ranks, real processes on gloo that run `cocoift.train.loop.work` as DeepSpeed's launcher
         starts it, and are really killed.
what:    ranks that run `ranks.py`."""

import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import warm

# may start a thread, which no fork survives, or are a test's own
LEFT = ("__", "gradio", "uvicorn", "openai", "httpx", "anyio", "asyncio", "ranks")


def know(modules: Path) -> None:
    "What a process imported on its way, imported here once, for all that are forked later."
    if not modules.exists():
        return
    for name in json.loads(modules.read_text()):
        if name not in sys.modules and not name.startswith(LEFT):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    modules.unlink()
    gc.freeze()  # nothing of this is ever garbage: forks need not look
    assert threading.active_count() == 1


# ---------------------------------------------------------------- commands and notebooks


def settle_in(told: dict, folder: Path) -> None:
    for number, path in enumerate((os.devnull, folder / "stdout", folder / "stderr")):
        with open(path, "wb" if number else "rb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])


def read_through(notebook: dict) -> None:
    from nbdev.test import test_nb

    os.environ["PATH"] = f"{warm.home}:{os.environ['PATH']}"
    sys.exit(
        not test_nb(
            Path(notebook["path"]),
            skip_flags=notebook["skipped"],
            basepath=Path.cwd(),
            cell_timeout=notebook["seconds"],
        )[0]
    )


def run_script(script: list[str]) -> None:
    sys.argv = script
    runpy.run_path(script[0], run_name="__main__")


def do(told: dict, folder: Path) -> None:
    settle_in(told, folder)
    if "script" in told:
        return run_script(told["script"])
    try:
        warm.type_in(told["command"]) if "command" in told else read_through(told["notebook"])
    finally:
        (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))


def process(told: dict) -> dict:
    folder = Path(told["folder"])
    process = multiprocessing.get_context("fork").Process(target=do, args=(told, folder))
    process.start()
    if not warm.until(process.sentinel, told["timeout"]):
        process.kill()
    process.join()
    for modules in (folder / "modules.json", *warm.home.glob("*.json")):
        know(modules)
    return {"code": process.exitcode}


# ---------------------------------------------------------------- ranks


def lines_of(run: Path) -> int:
    return (run / "metrics.jsonl").read_bytes().count(b"\n") if (run / "metrics.jsonl").exists() else 0


def rank_process(rank: int, told: dict, job: Path, port: int, parent: int, log) -> int:
    from cocoift.train.loop import work

    os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(told["ranks"]),
        LOCAL_SIZE=str(told["ranks"]),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    if told.get("limit"):  # bytes that a file may have: the disk is full there
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["limit"], told["limit"]))
    if "what" in told:
        import ranks

        code = ranks.find(told["what"], job, job.with_name("found.json"))
    else:
        code = work(job, parent, socket.gethostname())
    if not rank and not code:
        (job.parent / "modules.json").write_text(json.dumps(sorted(sys.modules)))
    return code


def fork(do) -> int:  # its process id
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = do()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code or 0)


def run_ranks(told: dict, run: Path, job: Path, log) -> list[int]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    parent, codes = os.getpid(), {}
    ranks = [fork(lambda rank=rank: rank_process(rank, told, job, port, parent, log)) for rank in range(told["ranks"])]
    deadline, signalled = time.monotonic() + 300, False
    while len(codes) < len(ranks):
        for k, rank in enumerate(ranks):
            if k not in codes and (found := os.waitpid(rank, os.WNOHANG))[0]:
                codes[k] = os.waitstatus_to_exitcode(found[1])
        # the launcher stops the others, after a moment in which they may end by themselves
        broken = any(codes.values()) and len(codes) < len(ranks)
        if told.get("after") and not signalled and lines_of(run) >= told["after"]:
            signalled = [os.kill(rank, told["signal"]) for k, rank in enumerate(ranks) if k not in codes]
        if broken:
            deadline = min(deadline, time.monotonic() + 20)
        if time.monotonic() > deadline:
            [os.kill(rank, signal.SIGKILL) for k, rank in enumerate(ranks) if k not in codes]
        time.sleep(0.002)
    for left in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{port}_*"):
        left.unlink()
    return [codes[k] for k in range(len(ranks))]


def on_small_disk(told: dict, run: Path, job: Path, log) -> int:
    """The same with the run folder on a tmpfs of so many bytes, in a mount namespace of its own; what lies there is
    copied out. Exit code 99: not allowed here."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
        return 99
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1"), Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    disk = run.with_name(run.name + "-disk")
    if libc.mount(b"none", str(disk).encode(), b"tmpfs", 0, f"size={told['disk']}".encode()):
        return 99
    shutil.copytree(run, disk / "run", dirs_exist_ok=True)
    job.write_text(json.dumps(json.loads(job.read_text()) | {"out": str(disk / "run")}))
    codes = run_ranks(told, disk / "run", job, log)
    shutil.rmtree(run)
    shutil.copytree(disk / "run", run)
    return max(map(abs, codes))


def train(told: dict) -> dict:
    from cocoift.train.loop import MARK

    run = Path(told["recipe"]["out"])
    run.mkdir(parents=True, exist_ok=True)
    job, path = run.with_name(run.name + "-job.json"), run.with_name(run.name + ".log")
    job.write_text(json.dumps(told["recipe"]))
    with open(path, "wb") as log:
        if told.get("disk"):
            run.with_name(run.name + "-disk").mkdir(exist_ok=True)
            codes = [os.waitstatus_to_exitcode(os.waitpid(fork(lambda: on_small_disk(told, run, job, log)), 0)[1])]
        else:
            codes = run_ranks(told, run, job, log)
    know(job.with_name("modules.json"))
    text = path.read_text(errors="replace")
    return {
        "codes": codes,
        "told": [json.loads(line.partition(MARK)[2]) for line in text.splitlines() if MARK in line],
        "log": text[-4000:],
    }


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.fsync = lambda file: None  # as in conftest.py
    import deepspeed  # noqa: F401  what every rank would import
    import transformers

    import cocoift.train.loop  # noqa: F401

    for name in "CLIPVisionModel LlamaForCausalLM LlavaForConditionalGeneration LlavaProcessor".split():
        getattr(transformers, name)  # it imports each when it is first asked for
    gc.freeze()
    warm.listen(Path(sys.argv[1]))
    print(flush=True, file=answers)
    while warm.until(sys.stdin) and (line := sys.stdin.readline()):
        told = json.loads(line)
        print(json.dumps((train if "recipe" in told else process)(told)), file=answers, flush=True)
