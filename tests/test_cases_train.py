"Trainings that users start: every shipped recipe with a checkpoint, two starts of one run, hosts that are not there."
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from test_kept import contents
from test_resume import ranks_of, reached, stamps

from cocoift.files import only_one
from cocoift.options import RECIPES, load_recipe
from cocoift.train.recipe import TrainRecipe

COCOIFT = Path(sys.executable).with_name("cocoift")
STEPS, POINT = 3, 2  # of a run; after how many of them its one checkpoint is written


def inputs(small: Path) -> list[str]:
    return [f"model={small / 'start'}", f"data={small / 'set'}", f"images={small / 'world/images'}"]


def shipped(given: list[str]) -> dict[str, TrainRecipe]:
    "All shipped recipes of trainings, by name."
    names = [path.stem for path in sorted(RECIPES.glob("*.yaml")) if yaml.safe_load(path.read_text()).keys() <= TrainRecipe.model_fields.keys()]
    return {name: load_recipe(name, TrainRecipe, given) for name in names}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_shipped_recipe_is_taken_up_from_its_checkpoint(ranked, small, tmp_path):
    """On two ranks at ZeRO 1, 2 and 3, with what the recipe says of parts, adapters, rates, template and precision: what follows a checkpoint is what would have followed without one.
    Recipes that say the same are one cell, and three rates are a cell of their own. At stage 1 there are no float32 master weights, so bf16 is refused there."""
    given = [*inputs(small), "out=run", "draw=false", "epochs=null", f"steps={STEPS}", f"checkpoint={POINT}", "batch=8", "ranks=2", "micro_batch=2"]
    cells, names = {}, []  # by all that is said; names that were met
    for zero, precision in (1, ["precision=fp32"]), (2, []), (3, []):
        found = shipped([*given, f"zero={zero}", *precision])
        found["three-rates"] = load_recipe("llava15-lora-7b", TrainRecipe, [*given, f"zero={zero}", *precision, "tower=true", "tower_lr=2e-6"])
        for name, recipe in found.items():
            names.append(name)
            cells.setdefault(recipe.model_dump_json(), recipe.model_copy(update={"out": tmp_path / f"{name}-{zero}"}))
    assert {"llava15-pretrain", "llava15-finetune-7b", "llava15-finetune-13b", "llava15-lora-7b", "coco-ift-13b", "tiny"} <= set(names)
    for recipe in cells.values():
        recipe.out.mkdir(), recipe.out.with_name(recipe.out.name + "-again").mkdir()
    ranked("shipped", 2, {"recipes": [json.loads(recipe.model_dump_json()) for recipe in cells.values()]})
    wrong = {}
    for recipe in cells.values():
        run, again = recipe.out, recipe.out.with_name(recipe.out.name + "-again")
        assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
        if lines(again) != lines(run)[POINT:] or contents(again / "model") != contents(run / "model"):
            wrong[run.name] = [[line["loss"] for line in lines(run)[POINT:]], [line["loss"] for line in lines(again)]]
    assert wrong == {}


def test_a_second_start_changes_nothing(typed, small, tmp_path):
    """Case 26. While a training runs, one on more ranks and one of another recipe are refused before they touch its folder. Interrupted once more it is gone at once, whatever its
    step takes."""
    run = tmp_path / "run"
    own = ["train", "tiny", *inputs(small), f"out={run}", "batch=8", "steps=3000", "checkpoint=2000"]
    process = subprocess.Popen([COCOIFT, *own], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not reached(run, 1) and process.poll() is None:
            time.sleep(0.01)
        settled = ("job.json", "run.json", "lock")
        before = [(run / name).stat().st_mtime_ns for name in settled]
        for other, told in ("ranks=2", "is being trained by another process: wait for it or stop it"), ("lr=1e-5", "holds a run of another recipe"):
            done = typed(*own, other)
            assert done.returncode == 2 and f"cocoift train: {run}: {told}" in done.stderr, done.stderr
        assert [(run / name).stat().st_mtime_ns for name in settled] == before and (run / "log.txt").read_text(errors="replace").count("--master_port") == 1
        ranks = ranks_of(run)
        [os.kill(rank.pid, signal.SIGSTOP) for rank in ranks]  # a step without an end
        process.send_signal(signal.SIGINT)
        while "once more to stop at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) and not psutil.wait_procs(ranks, 10)[1]
    finally:
        process.kill()
        process.communicate()
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    assert not (run / "train.json").exists() and len(lines) < 3000


def test_ranks_that_waited_for_a_folder_look_again(forked, small, tmp_path):
    "The ranks of a command that was killed may still end its run: those that waited for them have nothing left to do."
    run = tmp_path / "run"
    recipe = {"model": str(small / "start"), "data": str(small / "set"), "images": str(small / "world/images"), "train": "all", "ranks": 2, "steps": 3, "batch": 8, "micro_batch": 2,
              "checkpoint": 2, "zero": 2, "recompute": False, "out": str(run)}
    assert forked(recipe)["codes"] == [0, 0]
    before, train = stamps(run), (run / "train.json").read_bytes()
    with open(run / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (run / "train.json").rename(tmp_path / "train.json")
        waiting = threading.Thread(target=lambda: codes.extend(forked(recipe)["codes"]))
        codes: list[int] = []
        waiting.start()
        waiting.join(5)
        assert waiting.is_alive()
        (tmp_path / "train.json").rename(run / "train.json")
    waiting.join()
    changed = {name for name, stamp in stamps(run).items() if stamp != before[name]}
    assert codes == [0, 0] and changed <= {"lock"} and (run / "train.json").read_bytes() == train


@pytest.mark.parametrize("command", ["eval", "likelihood", "judge", "quickstart", "experiment"])
def test_no_command_starts_in_a_folder_that_another_writes(typed, small, tmp_path, command):
    out = tmp_path / "out"
    typed_as = {"eval": ["eval", "--model", small / "start", "--data", small / "exam", "--out", out],
                "likelihood": ["likelihood", "--model", small / "start", "--data", small / "exam", "--out", out],
                "judge": ["judge", "mm-vet", "--predictions", small / "answers.json", "--judge", "rule", "--out", out],
                "quickstart": ["quickstart", "--tiny", "--out", out], "experiment": ["experiment", "paper", "--tiny", "--out", out]}
    with only_one(out, "written"):
        done = typed(*typed_as[command])
    assert done.returncode == 2 and re.search(rf"^cocoift {command}: {out}: is being \w+ by another process: wait for it or stop it$", done.stderr, re.M), done.stderr
    assert list(tmp_path.iterdir()) == []
