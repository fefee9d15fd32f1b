"A command that is killed without mercy, and what it must not change."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COCOIFT = Path(sys.executable).with_name("cocoift")


def kill_when(ready, *args, cwd: Path) -> None:
    "Start a command in a process group of its own and kill the group, without mercy, as soon as `ready()` holds."
    with subprocess.Popen(
        [COCOIFT, *map(str, args)], cwd=cwd, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while not ready() and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before it could be killed: {process.stderr.read().decode()}"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    "All that must not depend on how a run came about; times have a file of their own."
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "times.jsonl"
    }
