"""The checks of written rounds against texts of a real model that were labelled by hand: `python tests/labelled.py`
prints the table, with `-v` every decision that differs."""

import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from cocoift.data.generate.grounding import ImageFacts
from cocoift.data.generate.jobs import GenerationJob, WriteRecipe
from cocoift.data.generate.objects import own_words, vocabulary
from cocoift.data.generate.plan import replay
from cocoift.data.generate.prompts import load_prompts
from cocoift.data.generate.requests import GenerationSetup, JobContext
from cocoift.data.generate.results import JobResult, write_job
from cocoift.data.sources.record import Record
from cocoift.models.endpoint.request import Answer

LABELS = Path(__file__).parent / "labels/written.jsonl"


@cache
def setup_for(prompts: str, kind: str) -> GenerationSetup:
    recipe = WriteRecipe(kinds={kind: 1}, prompts=prompts, verdicts="reject")
    words = vocabulary(sorted(set(own_words().values()) - {""}))
    return GenerationSetup("rewrite", "any", recipe, load_prompts(prompts, "rewrite", [kind]), words)


def written(row: dict) -> JobResult:
    "What becomes of a labelled text, by the path that `cocoift rewrite` takes."
    of = row["facts"]
    facts = ImageFacts(
        frozenset(of["there"]), of["counts"], frozenset(map(tuple, of["stated"])), of["complete"], frozenset(of["open"])
    )
    record = Record("vqav2", "1", "coco:1", "qa", row["question"], (row["short"],)) if row["question"] else None
    context = JobContext(GenerationJob(row["kind"], "coco:1", 0, record), [], facts, "")
    answer = Answer(row["text"], cut=row["cut"])
    return replay(write_job(setup_for(row["prompts"], row["kind"]), context), lambda request: answer)


def decisions(part: str | None = None) -> Iterator[dict]:
    "The labelled texts of a part, each with its verdict."
    for line in LABELS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if part in (None, row["part"]):
            result = written(row)
            yield row | {"kept": result.kept, "verdict": result.verdict.kind, "reason": result.verdict.reason}


def agreement(rows: Iterable[dict]) -> dict[str, dict]:  # by kind and in all: texts, bad, precision, recall
    "How well rejects are the bad texts: (right, of how many)."
    rows, table = list(rows), {}
    for kind in [*dict.fromkeys(row["kind"] for row in rows), "all"]:
        mine = [row for row in rows if kind in (row["kind"], "all")]
        bad, rejected = ([row for row in mine if row["label"] != "good"], [row for row in mine if not row["kept"]])
        right = sum(row["label"] != "good" for row in rejected)
        table[kind] = {
            "texts": len(mine),
            "bad": len(bad),
            "precision": (right, len(rejected)),
            "recall": (right, len(bad)),
            "good kept": (sum(row["kept"] and row["label"] == "good" for row in mine), len(mine) - len(bad)),
        }
    return table


def markdown(part: str) -> str:
    "The table of a part."
    lines = ["| texts | labelled | bad | precision | recall | good ones kept |", "|---|---|---|---|---|---|"]
    for kind, row in agreement(decisions(part)).items():
        shares = (row[name] for name in ("precision", "recall", "good kept"))
        cells = (f"{a / n:.2f} ({a}/{n})" if n else "none" for a, n in shares)
        lines.append(f"| {kind} | {row['texts']} | {row['bad']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for part in ("tuned", "held"):
        print(part, markdown(part), sep="\n")
    for row in decisions() if "-v" in sys.argv else ():
        if row["kept"] != (row["label"] == "good"):
            print(row["part"], row["kind"], row["label"], row["verdict"], row["question"], row["text"][:160], sep=" | ")
