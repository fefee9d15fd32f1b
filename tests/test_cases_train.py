"Trainings that users start: every shipped recipe with a checkpoint, two starts of one run, hosts that are not there."
import json
from pathlib import Path

import yaml
from test_kept import contents

from cocoift.options import RECIPES, load_recipe
from cocoift.train.recipe import TrainRecipe

STEPS, POINT = 3, 2  # of a run; after how many of them its one checkpoint is written


def shipped(given: list[str]) -> dict[str, TrainRecipe]:
    "All shipped recipes of trainings, by name."
    names = [path.stem for path in sorted(RECIPES.glob("*.yaml")) if yaml.safe_load(path.read_text()).keys() <= TrainRecipe.model_fields.keys()]
    return {name: load_recipe(name, TrainRecipe, given) for name in names}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_shipped_recipe_is_taken_up_from_its_checkpoint(ranked, small, tmp_path):
    """On two ranks at ZeRO 1, 2 and 3, with what the recipe says of parts, adapters, rates, template and precision: what follows a checkpoint is what would have followed without one.
    Recipes that say the same are one cell, and three rates are a cell of their own. At stage 1 there are no float32 master weights, so bf16 is refused there."""
    given = [f"model={small / 'start'}", f"data={small / 'set'}", f"images={small / 'world/images'}", "out=run", "draw=false", "epochs=null", f"steps={STEPS}",
             f"checkpoint={POINT}", "batch=8", "ranks=2", "micro_batch=2"]
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
