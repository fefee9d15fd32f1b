"""All that only a device can say, in one command of under ten minutes on one H200:

    python tests/bench/device.py [--toy] [--out FILE] [--parts kernels flagperf ...] [--minutes 9.5]

kernels:  every attention kernel and loss proves itself (forward, gradients against the dense table in float32).
flagperf: LLaVA-1.5-7B's shapes in FlagPerf's units (flagperf.py).
exact:    gradients of a LLaVA in bf16 trees, by each kernel that passed, against separate rows in float32.
zero:     ZeRO 2 and 3, with and without checkpointing, whole and low-rank, through NCCL, one rank, against plain torch.
resume:   `cocoift train`, killed after its first checkpoint and called again: the losses of a run that nobody killed.
scenes:   a LLaVA from random weights on drawn scenes at 224 px, both layouts, with COCO-Scope: `cocoift quickstart`
          with larger numbers, in what time is left.

The first three need torch and transformers alone; the others say what they miss. Each part is a process of its own, so
that none takes another along, and FILE (device.json) is written after each. `--toy` changes numbers, not functions:
that is how it was tried on a CPU. The last line is one JSON document."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

SECONDS = {"kernels": 120, "flagperf": 240, "exact": 90, "zero": 100, "resume": 120, "scenes": 600}  # at most


def kernels(toy: bool) -> dict:
    import torch

    from cocoift.train.kernels import KERNELS, LOSSES, prove, prove_loss

    cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    found = {"torch": torch.__version__, "attention": {}, "losses": {}}
    for dtype in (torch.bfloat16, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        for name in KERNELS:
            start = time.perf_counter()
            proof = prove(name, device, dtype, (4, 4, 64) if toy else (32, 32, 128))._asdict()
            found["attention"][f"{name} {kind}"] = proof | {"seconds": round(time.perf_counter() - start, 2)}
        for name in LOSSES:
            for even in (True, False):
                size = (64, 500) if toy else (4096, 32064)
                proof = prove_loss(name, even, device, dtype, size)._asdict()
                found["losses"][f"{name} {kind}{'' if even else ', weighted'}"] = proof
    return found


def flagperf(toy: bool) -> dict:
    from flagperf import measure

    return measure(toy)


def exact(toy: bool) -> dict:
    import random

    import torch
    from train import exactness, grove, llava

    from cocoift.train.attention import use_trees
    from cocoift.train.kernels import KERNELS, prove

    cuda = torch.cuda.is_available()
    device, found = torch.device("cuda" if cuda else "cpu"), {}
    for name, kernel in KERNELS.items():
        if refusal := prove(name, device, torch.bfloat16, (8, 8, 128)).refusal:
            found[name] = {"left_out": refusal}
            continue
        model = llava(cuda, 2, 128 if toy else 1024)
        use_trees(model, kernel.mask if not kernel.missing(device, torch.float32) else None)
        found[name] = exactness(
            model,
            grove([[20, 30]] * 2 if toy else [[60] * 8] * 2, random.Random(0)),
            lambda low: use_trees(low, kernel.mask),
        )
    return found


def zero(toy: bool) -> dict:
    import random

    import torch
    from train import deepspeed_cells, grove, llava

    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ["DS_ACCELERATOR"] = "cpu"
    layers, width = (1, 128) if toy else (8, 2048)
    trees = grove([[20, 30]] * 2, random.Random(0))

    def make(recompute: bool):
        model = llava(cuda, layers, width)
        model.activation_checkpointing_disable() if not recompute else model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False}
        )
        return model

    return deepspeed_cells(make, trees, cells=((False, False), (False, True), (True, False), (True, True)))


def _cocoift(*arguments: str, **options) -> subprocess.Popen:
    start = "from cocoift.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        start_new_session=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        **options,
    )


def _losses(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()] if path.exists() else []


def resume(toy: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        steps = 8 if toy else 40
        base = f"train tiny draw=true steps={steps} checkpoint=3 ranks=1 precision=bf16".split()
        whole, killed = Path(folder) / "whole/run", Path(folder) / "killed/run"
        if code := _cocoift(*base, f"out={whole}").wait():
            return {"left_out": f"cocoift train ended with {code}: see what it said above"}
        first = _cocoift(*base, f"out={killed}")
        while first.poll() is None and len(_losses(killed)) < 5:
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL) if first.poll() is None else None
        before = len(_losses(killed))
        code = _cocoift(*base, f"out={killed}").wait()
        a, b = _losses(whole), _losses(killed)
        return {
            "steps": steps,
            "killed_after": before,
            "code": code,
            "steps_of_both": [len(a), len(b)],
            "largest_difference": max((abs(x - y) for x, y in zip(a, b)), default=None),
            "kernels": json.loads((killed / "kernels.json").read_text()),
        }


def scenes(toy: bool) -> dict:
    from dataclasses import asdict, replace
    from itertools import islice

    from cocoift.conversation import read_conversations
    from cocoift.models.template import render
    from cocoift.options import keep_settings
    from cocoift.studies.quickstart import build_layouts, draw_worlds, quickstart
    from cocoift.studies.scale import TINY, Scale
    from cocoift.train.model import assemble, save_llava, tiny_parts

    training = Scale().training | {"ranks": 1, "precision": "fp32" if toy else "bf16"}
    scale = replace(
        TINY if toy else Scale(), width=64 if toy else 256, layers=(2, 2) if toy else (4, 6), training=training
    )
    folder = Path(tempfile.mkdtemp())
    settings = {"seed": 0, "scale": json.loads(json.dumps(asdict(scale)))}
    keep_settings(folder, "quickstart.json", settings, "quickstart", "quickstart")  # its folder, with another start
    draw_worlds(scale, 0, folder)
    build_layouts(scale, 0, folder)
    texts = [
        render([(r.instruction, r.response) for r in c.rounds])
        for part in (folder / "captions", folder / "data" / scale.layouts[0])
        for c in islice(read_conversations(part), 4000)
    ]
    side, patch = (64, 16) if toy else (224, 16)
    parts = tiny_parts(folder / "parts/seed-0", texts, side, patch, scale.width, scale.layers, drawn=True)
    save_llava(*assemble(*parts), folder / "start/seed-0")
    found = quickstart(folder, scale)
    scope = sorted(folder.glob("eval/**/scores.json"))
    return {
        "pixels": side,
        "layouts": found["layouts"],
        "seconds": found["seconds"],
        "scores": {
            str(path.relative_to(folder)): json.loads(path.read_text()) for path in scope if "scope" in str(path)
        },
    }


PARTS = {part.__name__: part for part in (kernels, flagperf, exact, zero, resume, scenes)}


def one(name: str, toy: bool, seconds: float) -> dict:
    "A part in a process of its own."
    command = [sys.executable, __file__, "--part", name, *(["--toy"] if toy else [])]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=seconds)
        last = said.strip().rpartition("\n")[2]
        found = json.loads(last) if last.startswith("{") else {"failed": process.returncode, "said": said[-400:]}
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found = {"stopped": f"after {seconds:.0f} s"}
    return found | {"wall_s": round(time.perf_counter() - start, 1)}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--toy", action="store_true", help="small numbers, the same functions")
    asked.add_argument("--out", type=Path, default=Path("device.json"))
    asked.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked.add_argument("--minutes", type=float, default=9.5, help="of all parts together")
    asked.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = asked.parse_args()
    if asked.part:
        try:
            found = PARTS[asked.part](asked.toy)
        except ImportError as error:
            found = {"left_out": str(error)}
        return print(json.dumps(found))
    end, out = time.perf_counter() + 60 * asked.minutes, {}
    for name in asked.parts:
        left = end - time.perf_counter()
        out[name] = (
            one(name, asked.toy, min(SECONDS[name] * (5 if asked.toy else 1), left))
            if left > 10
            else {"left_out": "no time was left"}
        )
        asked.out.write_text(json.dumps(out, indent=1))
        print(name, json.dumps(out[name])[:3000], file=sys.stderr, flush=True)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
