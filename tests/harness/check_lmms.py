"Run in lmms-eval's environment by run.py: what lmms-eval and `cocoift eval` answer must be one."

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd

from cocoift.eval.examine import examine
from cocoift.eval.harness.tasks import harness_module, harness_version
from cocoift.eval.scope.lmms import write_task
from cocoift.eval.scope.make import make_scope
from cocoift.eval.scope.metrics import leaks
from cocoift.files import Journal, UserError
from cocoift.images import find_pictures
from cocoift.world import make_world

TOKENS = 16
HISTORIES = ("none", "neutral", "forced_short")
ASKED = ("mmstar", "pope", "mmmu_val")  # options; yes or no; a picture between texts
# The checkpoint's chat template puts a picture in front of all text, `cocoift eval` leaves it between.
MOVED = {"mmmu_val"}
FAMILIES = {  # each in its official layout, and what of it there must be: an own score, or the reason why not
    "mmbench_en_dev": "judge",
    "mmbench_en_dev_static": "own",
    "mme": "own",
    "seedbench": "own",
    "mmmu_val": "random",
    "mmstar": "own",
    "scienceqa_img": "own",
    "textvqa_val": "own",
    "ai2d": "own",
    "hallusion_bench_image": "judge",
    "realworldqa": "own",
    "mmvet": "judge",
    "pope": "own",
}
REFUSED = {  # name -> what the one line says
    "seedbench_ppl": "compares how likely",
    "mmsearch_end2end": "brings rounds of its own",
    "mmmu": "is a group of tasks",
    "mmstr": "did you mean mmstar",
    "coco_scope": "bring rounds of their own",
}


def answers(run: Path) -> dict[tuple[str, int], tuple[str, str]]:
    return {
        (line["dialog"], line["round"]): (line["status"], line["response"])
        for line in Journal(run / "rounds.jsonl").read()
    }


def with_history(data: Path, model: Path, manager) -> list[dict]:
    "lmms-eval with `with_history`, all histories in one process, against `cocoift eval` on the same tasks."
    settings = f"pretrained={model},device=cpu,device_map=cpu,dtype=float32"
    arguments = f"inner=llava_hf,history={'+'.join(HISTORIES)},rounds=2,open=true,out={data / 'theirs'},{settings}"
    result = harness_module("evaluator").simple_evaluate(
        "with_history",
        arguments,
        tasks=list(ASKED),
        batch_size=1,
        task_manager=manager,
        gen_kwargs=f"max_new_tokens={TOKENS},temperature=0,do_sample=False",
    )
    rows = []
    for task in ASKED:
        ours = examine(str(model), f"lmms:{task}", data / "hub", data / "ours" / task, HISTORIES, most_tokens=TOKENS)
        mine, theirs = answers(data / "ours" / task), answers(data / "theirs" / task)
        same = sum(mine[key] == theirs[key] for key in mine)
        equal = same == len(mine) or task in MOVED
        assert mine.keys() == theirs.keys() and equal, (task, same, len(mine), different(mine, theirs))
        scores = json.loads((data / "theirs" / task / "scores.json").read_text())
        if task not in MOVED:
            assert scores["leakage"] == ours["leakage"] and scores["histories"] == ours["histories"]
        check_samples(result["samples"][task], theirs, task)
        if FAMILIES[task] == "own":
            check_scores(result["results"][task], scores["scores"], task)
        leak = ours["leakage"]
        interval = f"{leak['value']:.2f} [{leak['low']:.2f}, {leak['high']:.2f}]"
        rows.append({"with_history": task, "answers": len(mine), "the same": same, "leakage": interval})
    return rows


def served(data: Path, url: str, model: Path, manager) -> dict:
    "`with_history` around lmms-eval's `openai`, against `cocoift eval` on the same server."
    task, out = "mmstar", data / "theirs/served"
    settings = f"model_version={model},base_url={url},api_key=none,timeout=120,num_concurrent=4"
    harness_module("evaluator").simple_evaluate(
        "with_history",
        f"inner=openai,history={'+'.join(HISTORIES)},rounds=2,open=true,out={out},{settings}",
        tasks=[task],
        batch_size=1,
        task_manager=manager,
        gen_kwargs=f"max_new_tokens={TOKENS},temperature=0,do_sample=False",
    )
    folder = data / "ours/served"
    ours = examine(f"{url}#{model}", f"lmms:{task}", data / "hub", folder, HISTORIES, most_tokens=TOKENS)
    mine, theirs = answers(folder), answers(out / task)
    same, leak = sum(mine[key] == theirs.get(key) for key in mine), ours["leakage"]
    assert mine.keys() == theirs.keys() and same == len(mine), (same, len(mine), different(mine, theirs))
    interval = f"{leak['value']:.2f} [{leak['low']:.2f}, {leak['high']:.2f}]"
    return {"with_history": f"{task}, inner=openai", "answers": len(mine), "the same": same, "leakage": interval}


def different(mine: dict, theirs: dict) -> list:
    return [(key, mine[key], theirs.get(key)) for key in mine if mine[key] != theirs.get(key)][:3]


def check_samples(samples: list[dict], theirs: dict, task: str) -> None:
    "Its samples hold every history's answer by name, and its own answer is the last history's."
    assert samples
    for sample in samples:
        asked = sample["arguments"][0]
        assert asked["history"] == "forced_short:2" and list(asked["answers"]) == list(HISTORIES)
        for history, answer in asked["answers"].items():
            rounds = 0 if history == "none" else 2
            name = f"{sample['doc_id']}/{history}:{rounds}/stated"
            number = rounds + 1
            assert theirs[name, number] == ("ok", answer), (task, name)
        assert sample["resps"][0][0] == asked["answers"]["forced_short"]


def check_scores(table: dict, scores: dict, task: str) -> None:
    "The task's own score that we show is the number that lmms-eval shows."
    compared = 0
    for name, value in table.items():
        metric = name.partition(",")[0]
        if isinstance(value, float) and f"own.{metric}" in scores:
            assert abs(scores[f"own.{metric}"]["value"] - value) < 1e-9, (task, metric, value, scores[f"own.{metric}"])
            compared += 1
    assert compared, (task, table, list(scores))


def scope(data: Path, model: Path, manager_of) -> dict:
    "COCO-Scope's folder through lmms-eval's own `llava_hf`, against `cocoift eval --bench scope`."
    world = make_world(data / "world", 20, split="val")
    write_task(make_scope(world, 8), find_pictures(world / "images"), data / "tasks" / "coco_scope")
    paired = ("none", "neutral", "terse", "forced_short")
    more = {"per_image": 8, "images": world / "images", "most_tokens": 128}
    ours = examine(str(model), "scope", world, data / "ours" / "scope", paired, **more)
    result = harness_module("evaluator").simple_evaluate(
        "llava_hf",
        f"pretrained={model},device=cpu,device_map=cpu,dtype=float32",
        tasks=["coco_scope"],
        batch_size=1,
        task_manager=manager_of(data / "tasks"),
    )
    samples = {s["doc"]["id"]: s["resps"][0][0].strip() for s in result["samples"]["coco_scope"]}
    mine = {line["dialog"]: line["response"] for line in Journal(data / "ours/scope/rounds.jsonl").read()}
    same = sum(mine[name] == text for name, text in samples.items())
    assert same == len(samples) > 0, (same, len(samples), different(mine, samples))
    table = result["results"]["coco_scope"]
    said = [line for line in Journal(data / "ours/scope/rounds.jsonl").read() if line["response"]]
    assert abs(table["leakage,none"] - leaks(pd.DataFrame(said))["leakage"].value) < 1e-9
    assert ours["coverage"] == 1 and table["leakage_stderr_clustered,none"] > 0
    assert abs(table["coverage,none"] - (1 - ours.get("empty", 0) / ours["rounds"])) < 1e-9  # there, nobody knows why
    return {
        "coco_scope": "llava_hf",
        "answers": len(samples),
        "the same": same,
        "leakage": f"{table['leakage,none']:.2f}",
    }


def families(data: Path, model: Path) -> list[dict]:
    "Every family asked on a few documents, and what of it cannot be, in one line each; `wrong` where that is another."
    rows = []
    for task, expected in FAMILIES.items():
        out = data / "families" / task
        result = examine(str(model), f"lmms:{task}", data / "hub", out, HISTORIES, per_image=8, most_tokens=TOKENS)
        own, notes = [name for name in result["scores"] if name.startswith("own.")], result["notes"]
        right = bool(own) if expected == "own" else not own and any(expected in note for note in notes)
        row = {"family": task, "items": result["items"], "leakage": result["leakage"]["value"]}
        rows.append(row | {"own": ", ".join([*own, *notes]), "wrong": not (right and result["coverage"] == 1)})
    for task, why in REFUSED.items():
        folder = data / ("tasks" if task == "coco_scope" else "hub")
        try:
            examine(str(model), f"lmms:{task}", folder, data / "refused", ["none"])
            line = "it was asked"
        except UserError as error:
            line = str(error)
        rows.append({"refused": task, "why": line, "wrong": why not in line or "\n" in line})
    return rows


def main(data: Path, model: Path, report: Path, url: str) -> None:
    os.chdir(data / "hub")  # where lmms-eval looks for a dataset first
    manager = harness_module("tasks").TaskManager

    def manager_of(folder: Path):
        return manager(include_path=str(folder), include_defaults=False)

    files = Path(harness_module("tasks").__file__).parent
    asked = [files / name for name in ("mmstar", "pope", "mmmu")]  # its index of all tasks takes half a minute
    few = manager(include_path=[f"{folder}/" for folder in asked], include_defaults=False)
    equal = [*with_history(data, model, few), served(data, url, model, few), scope(data, model, manager_of)]
    seen = {"version": harness_version(), "equal": equal, "families": families(data, model)}
    wrong = [row for row in seen["families"] if row.pop("wrong")]
    report.write_text(json.dumps(seen | {"seconds": round(time.process_time())}))
    assert not wrong, wrong


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:4]), sys.argv[4])
