"""How long the dashboard's first figure takes with many runs and many rounds: `python tests/bench/dashboard.py [--quick] [--runs 50] [--rounds 200000]`.

What is measured is what the page waits for, cold: reading all scores and drawing the scoreboard; opening a set of so many rounds and drawing its composition; opening two runs side by
side and taking one item. `warm` is the same once more, as a second visitor has it. Prints one JSON document on one line, last."""
import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from cocoift.conversation import Conversation, Origin, Round, write_parquet
from cocoift.files import Journal, write_json
from cocoift.studies import board, shelf
from cocoift.viz import audited, results

SOURCES, FORMATS = ("vqav2", "gqa", "okvqa", "coco-captions", "visdial"), ("short", "free", "yes_no", "words:20")


def conversations(rounds: int):
    draws = random.Random(0)
    for k in range(rounds // 4):
        yield Conversation(f"c{k}", (f"coco:{k // 3}",), tuple(
            Round(f"What is thing {draws.randrange(10**6)} of picture {k}?", draws.choice(("Yes", "a red kite over the pier at noon", "two")), draws.choice(FORMATS),
                  Origin(draws.choice(SOURCES), str(k), "t1", "", "", "CC-BY-4.0")) for _ in range(4)))


def runs(root: Path, many: int, rounds: int) -> None:
    draws = random.Random(0)
    each = max(4, rounds // many)
    for k in range(many):
        folder = root / f"eval/run-{k:02d}"
        estimate = lambda: (lambda v: {"value": v, "low": max(0.0, v - 0.1), "high": v + 0.1, "n": each})(draws.random())
        histories = {h: {m: estimate() for m in ("terse_rate", "format_accuracy", "content_accuracy", "words")} for h in ("none", "neutral", "terse", "forced_short")}
        write_json(folder / "scores.json", {"histories": histories, "effects": {"leakage": estimate()}, "kinds": [{"kind": kind, "wording": "seen", **estimate()} for kind in ("colour", "count")]})
        with open(folder / "rounds.jsonl", "w") as file:
            for n in range(each):
                line = {"item": f"i{n // 4}", "image": f"coco:{n // 24}", "kind": "count", "history": ("none", "neutral", "terse", "forced_short")[n % 4], "bound": False, "round": 1, "rounds": 2,
                        "instruction": f"How many things are there, number {n // 4}?", "response": "There are two of them.", "status": "ok", "prior": False, "right": draws.random() < 0.5, "terse": draws.random() < 0.5}
                file.write(json.dumps(line) + "\n")
        Journal(root / f"train/run-{k:02d}/metrics.jsonl").append([{"step": n, "loss": 5 / n, "lr": 1e-3, "tokens": 100, "separate": 150} for n in range(1, 1001)])


def timed(what) -> float:
    began = time.perf_counter()
    what()
    return round(time.perf_counter() - began, 3)


def measure(root: Path, memory: board.Memory) -> dict:
    def scoreboard():
        scores = board.results(root, memory)[0]["scores"]
        results.scoreboard(scores, "run-00", board.paper_scores())
        results.standings(scores, "leakage", baseline="run-00").to_json()

    def composition():
        audited.composition(shelf.Browser(root / "data/large").mixture()).to_json()

    def samples():
        folders = board.find(root, "rounds.jsonl")
        files = [folders[name] / "rounds.jsonl" for name in ("run-00", "run-01")]
        pairs = memory.get("pair", files, lambda: board.pair(*(board.answers(file.parent) for file in files)))
        board.only(pairs, "A right, B wrong").iloc[0]

    def training():
        from cocoift.viz import traced

        traced.trace(board.trainings(root, memory)[0], "loss").to_json()

    def conversation():
        browser = shelf.Browser(root / "data/large")
        browser.conversation(int(browser.pick(source="gqa")[-1]))

    return {what.__name__: timed(what) for what in (scoreboard, composition, samples, training, conversation)}


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
        write_parquet(root / "data/large/conversations/part-00000.parquet", conversations(rounds)) if (root / "data/large/conversations").mkdir(parents=True) is None else None
        write_json(root / "data/large/manifest.json", {"counts": {"rounds": rounds}})
        from cocoift.data.sources.base import load_sources

        load_sources()  # as the app has done before anybody comes
        memory = board.Memory()
        cold, warm = measure(root, memory), measure(root, memory)
    print(f"{many} runs, {rounds:,} rounds in runs and as many in a set", file=sys.stderr)
    print(json.dumps({"runs": many, "rounds": rounds, "seconds": cold, "warm": warm, "first_figure": cold["scoreboard"], "under_3_s": max(cold.values()) < 3}))


if __name__ == "__main__":
    main()
