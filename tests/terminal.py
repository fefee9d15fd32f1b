"A place where the command pages (`nbs/cli`) run what they show."

import os
import sys
from pathlib import Path
from tempfile import mkdtemp


def enter_folder() -> None:
    "An empty folder in which a page's `%%bash` cells find `cocoift`, and `shared/`, the samples of official files."
    home = Path(__file__).resolve().parent.parent.parent / "shared"
    samples = Path(os.environ.get("COCOIFT_SHARED") or home).resolve() / "data"
    os.chdir(mkdtemp())
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ |= {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    if samples.is_dir():
        Path("shared").symlink_to(samples)
