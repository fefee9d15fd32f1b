import os
import subprocess
import sys
from pathlib import Path

import pytest

# Before torch and DeepSpeed are imported, here and in every process that a test starts. Two pytest workers share two cores.
os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
os.environ["COCOIFT_SHARED"] = str((ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve())  # notebooks run in folders of their own


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    "The shared folder, with data/sources and data/coco-mini."
    folder = (ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve()
    if not (folder / "data/sources").is_dir():
        pytest.skip(f"{folder}/data/sources is not there: COCOIFT_SHARED names the shared folder")
    return folder


@pytest.fixture(scope="session")
def cocoift():
    "The installed command: `cocoift('audit', folder, '--json')` gives its returncode, stdout and stderr."
    command = Path(sys.executable).with_name("cocoift")

    def run(*args, **kwargs) -> subprocess.CompletedProcess:
        options = dict(cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900) | kwargs
        return subprocess.run([command, *map(str, args)], **options)

    return run
