"Environments: of other tools, beside the lab's own packages; and which lab this one holds."

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def other_lab(root: Path) -> str:
    "What would be tested instead of the lab below `root`, and the mend; empty if it is that lab."
    ask = "import importlib.util as u; print(getattr(u.find_spec('cocoift'), 'origin', None) or '')"
    asked = [sys.executable, "-P", "-c", ask]  # as the console script: without the working folder
    script = subprocess.run(asked, capture_output=True, text=True, check=True, cwd="/").stdout.strip()
    here = getattr(importlib.util.find_spec("cocoift"), "origin", None)
    for what, origin in (("is imported", here), ("`cocoift` runs", script)):
        if not origin or Path(origin).resolve() != root / "cocoift/__init__.py":
            return f"what {what} is {origin or 'nowhere'}, not {root / 'cocoift'}: set PYTHONPATH={root}"
    return ""


def beside_the_lab(
    folder: Path,  # the environment
    versions: Path,  # exact versions, installed without a resolver
    name: str,  # of the target of make, and
    size: str,  # what it says of the time and the disk
    finish: Callable[[Path, list], None] = lambda packages, install: None,  # its site-packages, pip's command
) -> Path:
    "An environment that sees the lab's packages behind its own, made once for each content of its list of versions."
    done = folder / "installed.txt"
    if done.exists() and done.read_bytes() == versions.read_bytes():
        return folder
    print(f"{name}: installing into {folder.relative_to(ROOT)} ({size})", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    lab = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "lab.pth").write_text("\n".join(lab) + "\n")  # behind its own: torch is not installed twice
    install = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "-qq", "--no-deps"]
    install += ["--disable-pip-version-check", "--no-input"]
    subprocess.run([*install, "-r", versions], check=True)
    finish(packages, install)
    shutil.copy(versions, done)
    return folder
