"""lmms-eval itself under our histories, and its tasks under our evaluation: `make harness [ARGS=CHECKPOINT]`.

lmms-eval gets an environment of its own in .harness, which sees the lab's (torch is not installed twice). There a real
`lmms-eval` answers through `with_history` on twenty scenes, and every answer is compared with that of `cocoift eval`;
`inner=openai` in front of `transformers serve` and COCO-Scope's task folder likewise; then each family of tasks is
asked. What was seen goes into results.json, which the tutorial shows. See README.md beside this file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conftest import serve  # noqa: E402
from environments import ROOT, beside_the_lab  # noqa: E402

WORK = ROOT / ".harness"
QUICKSTART = "train/first-uniform/seed-0/model"


def environment() -> Path:
    "The Python of lmms-eval's environment, in which the lab is installed too: its entry point is looked up there."

    def finish(packages: Path, install: list) -> None:
        subprocess.run([*install, "--no-build-isolation", "-e", ROOT], check=True)

    return beside_the_lab(WORK / "env", HERE / "lmms-eval.txt", "harness", "100 MB", finish) / "bin/python"


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
    report, server = data / "report.json", serve(model, data)
    try:
        done = subprocess.run(
            [python, HERE / "check_lmms.py", data, model, report, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | lab | {"TOKENIZERS_PARALLELISM": "false"},
        )
    finally:
        server.process.terminate()
        server.process.wait(60)
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
