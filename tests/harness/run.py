"""lmms-eval itself under our histories, and its tasks under our evaluation: `make harness [ARGS=CHECKPOINT]`.

lmms-eval gets an environment of its own in .harness, which sees the lab's (torch is not installed twice). There a real
`lmms-eval` answers through `with_history` on twenty scenes, and every answer is compared with that of `cocoift eval`;
COCO-Scope's task folder likewise; then each family of tasks is asked. What was
seen goes into results.json, which the tutorial shows. See README.md beside this file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".harness"
QUICKSTART = "train/first-uniform/seed-0/model"


def environment() -> Path:
    "The Python of lmms-eval's environment, made once for each content of its list of versions."
    folder, versions = WORK / "env", HERE / "lmms-eval.txt"
    done, python = folder / "installed.txt", folder / "bin/python"
    if not done.exists() or done.read_bytes() != versions.read_bytes():
        print(f"harness: installing lmms-eval into {folder.relative_to(ROOT)} (100 MB)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        lab = [p for p in sys.path if p.endswith("site-packages")]
        (packages / "lab.pth").write_text("\n".join(lab) + "\n")
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--disable-pip-version-check",
            "--no-input",
        ]
        subprocess.run([*install, "-q", "--no-deps", "-r", versions], check=True)
        subprocess.run([*install, "-q", "--no-deps", "--no-build-isolation", "-e", ROOT], check=True)
        shutil.copy(versions, done)
    return python


def checkpoint() -> Path:
    "The one that is named, or the quickstart's first-uniform: it leaks, so equal answers are no equal silence."
    if sys.argv[1:]:
        return Path(sys.argv[1]).resolve()
    for made in (ROOT / "runs/quickstart", WORK / "quickstart"):
        if (made / QUICKSTART / "config.json").exists():
            return made / QUICKSTART
    command = "from cocoift.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", command, "quickstart", "--tiny", "--out", WORK / "quickstart"], check=True)
    return WORK / "quickstart" / QUICKSTART


def main() -> int:
    python, model, data = environment(), checkpoint(), WORK / "data"
    sys.path.insert(0, str(HERE))
    import layouts

    shutil.rmtree(data, ignore_errors=True)
    layouts.write(data / "hub")
    lab = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(WORK / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    report = data / "report.json"
    done = subprocess.run(
        [python, HERE / "check_lmms.py", data, model, report],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | lab | {"TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        print(done.stdout, "harness: FAILED", sep="\n")
        return 1
    seen = json.loads(report.read_text())
    (HERE / "results.json").write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n")
    for row in [*seen["equal"], *seen["families"]]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(f"harness: lmms-eval {seen['version']}, {seen['seconds']} processor seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
