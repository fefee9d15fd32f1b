"""How long the dashboard's first figure takes with many runs and many rounds: `python tests/bench/dashboard.py
[--quick] [--runs 50] [--rounds 200000]`.

What is measured is what each panel's page waits for before its first figure, cold: reading all scores and drawing the
scoreboard; opening a set of so many rounds and drawing its composition; opening two runs side by side and taking one
item; the loss of all trainings. `first_figure` is the slowest of them. `later` is what follows while a reader looks:
the other three curves, and the paired differences of all runs from a baseline. `warm` is the same once more, as a
second visitor has it. Prints one JSON document on one line, last."""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from cocoift.conversation import Conversation, Origin, Round, write_parquet
from cocoift.dashboard import browser as shelf
from cocoift.dashboard import run_index as board
from cocoift.dashboard.leaderboard import baseline_gaps
from cocoift.dashboard.live import trainings
from cocoift.dashboard.samples import filter_rounds, paired_rounds, scored_rounds
from cocoift.files import Journal, write_json
from cocoift.viz import audited, traced
from cocoift.viz.leaderboard import leaderboard_figure, leaderboard_table

SOURCES, FORMATS = ("vqav2", "gqa", "okvqa", "coco-captions", "visdial"), ("short", "free", "yes_no", "words:20")


def conversations(rounds: int):
    draws = random.Random(0)
    for k in range(rounds // 4):
        yield Conversation(
            f"c{k}",
            (f"coco:{k // 3}",),
            tuple(
                Round(
                    f"What is thing {draws.randrange(10**6)} of picture {k}?",
                    draws.choice(("Yes", "a red kite over the pier at noon", "two")),
                    draws.choice(FORMATS),
                    Origin(draws.choice(SOURCES), str(k), "t1", "", "", "CC-BY-4.0"),
                )
                for _ in range(4)
            ),
        )


def runs(root: Path, many: int, rounds: int) -> None:
    draws, histories = random.Random(0), ("none", "neutral", "terse", "forced_short")
    each = max(4, rounds // many)

    def mean(lines: list[dict], reading: str) -> dict:
        value = sum(line[reading] for line in lines) / len(lines)
        return {"value": value, "low": max(0.0, value - 0.1), "high": value + 0.1, "n": len(lines)}

    for k in range(many):
        lines = [
            {
                "item": f"i{n // 4}",
                "image": f"coco:{n // 24}",
                "kind": "count",
                "history": histories[n % 4],
                "bound": False,
                "round": 1,
                "rounds": 2,
                "instruction": f"How many things are there, number {n // 4}?",
                "response": "There are two of them.",
                "status": "ok",
                "prior": False,
                "right": draws.random() < 0.5,
                "terse": draws.random() < 0.5,
                "words": draws.randrange(9),
            }
            for n in range(each)
        ]
        at = {h: lines[n::4] for n, h in enumerate(histories)}
        levels = {
            h: {
                metric: mean(some, reading)
                for metric, reading in (("terse_rate", "terse"), ("content_accuracy", "right"), ("words", "words"))
            }
            for h, some in at.items()
        }
        leakage = levels["forced_short"]["terse_rate"]["value"] - levels["neutral"]["terse_rate"]["value"]
        write_json(
            root / f"eval/run-{k:02d}/scores.json",
            {
                "histories": levels,
                "effects": {"leakage": {"value": leakage, "low": leakage - 0.1, "high": leakage + 0.1, "n": each // 4}},
                "kinds": [{"kind": kind, "wording": "seen", **mean(lines, "right")} for kind in ("colour", "count")],
            },
        )
        Journal(root / f"eval/run-{k:02d}/rounds.jsonl").append(lines)
        Journal(root / f"train/run-{k:02d}/metrics.jsonl").append(
            [{"step": n, "loss": 5 / n, "lr": 1e-3, "tokens": 100, "separate": 150} for n in range(1, 1001)]
        )
        Journal(root / f"train/run-{k:02d}/times.jsonl").append(
            [{"step": n, "seconds": 0.5 + n % 7 / 70} for n in range(1, 1001)]
        )


def timed(what) -> float:
    began = time.perf_counter()
    what()
    return round(time.perf_counter() - began, 3)


def measure(
    root: Path, memory: board.FileCache
) -> tuple[dict, dict]:  # seconds to the first figure of each panel, and of what comes after it
    def scoreboard():
        scores = board.results(root, memory)[0]["scores"]
        leaderboard_figure(
            leaderboard_table(scores, "run-00", board.paper_scores()), "leakage", baseline="run-00"
        ).to_json()

    def differences():
        scores = board.results(root, memory)[0]["scores"]
        paired, wrong = baseline_gaps(root, scores[scores.metric == "leakage"], "run-00", memory)
        assert paired.run.nunique() == scores.layout.nunique() - 1 and not wrong, wrong
        leaderboard_figure(
            leaderboard_table(scores, "run-00", board.paper_scores(), paired), "leakage", baseline="run-00"
        ).to_json()

    def composition():
        audited.composition(shelf.DatasetBrowser(root / "data/large").mixture()).to_json()

    def samples():
        folders = board.find_folders(root, "rounds.jsonl")
        files = [folders[name] / "rounds.jsonl" for name in ("run-00", "run-01")]
        pairs = memory.get("pair", files, lambda: paired_rounds(*(scored_rounds(file.parent) for file in files)))
        filter_rounds(pairs, "A right, B wrong").iloc[0]

    def training():
        traced.trace(trainings(root, memory)[0], "loss").to_json()

    def curves():
        for column in ("lr", "tokens_per_s", "tree_ratio"):
            traced.trace(trainings(root, memory)[0], column).to_json()

    def conversation():
        browser = shelf.DatasetBrowser(root / "data/large")
        browser.conversation(int(browser.pick(source="gqa")[-1]))

    first, later = (
        {what.__name__: timed(what) for what in some}
        for some in ((scoreboard, composition, samples, training, conversation), (curves, differences))
    )
    return first, later


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--runs", type=int, default=50)
    arguments.add_argument("--rounds", type=int, default=200_000)
    given = arguments.parse_args()
    many, rounds = (8, 8_000) if given.quick else (given.runs, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "study"
        runs(root, many, rounds)
        write_parquet(root / "data/large/conversations/part-00000.parquet", conversations(rounds)) if (
            root / "data/large/conversations"
        ).mkdir(parents=True) is None else None
        write_json(root / "data/large/manifest.json", {"counts": {"rounds": rounds}})
        from cocoift.data.sources.base import load_sources

        load_sources()  # as the app has done before anybody comes
        memory = board.FileCache()
        (cold, later), (warm, _) = measure(root, memory), measure(root, memory)
    print(f"{many} runs, {rounds:,} rounds in runs and as many in a set", file=sys.stderr)
    print(
        json.dumps(
            {
                "runs": many,
                "rounds": rounds,
                "seconds": cold,
                "warm": warm,
                "later": later,
                "first_figure": max(cold.values()),
                "under_3_s": max(cold.values()) < 3,
            }
        )
    )


if __name__ == "__main__":
    main()
