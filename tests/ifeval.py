"""COCO-Scope's format checks beside the public IFEval checkers, on what those said of 22 responses: `python
tests/ifeval.py` prints where they differ."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from cocoift.eval.scope.checks import Constraint, follows, variants
from cocoift.formats import words

ASKED = {  # by IFEval's name, from its settings: what all must hold, and whether it is asked for or forbidden
    "keywords:forbidden_words": lambda k: ([Constraint("without", text=word) for word in k["forbidden_words"]], True),
    "length_constraints:number_words": lambda k: (
        [Constraint("words", "at most", k["num_words"] - 1)],
        k["relation"] == "less than",
    ),
    "length_constraints:number_sentences": lambda k: (
        [Constraint("sentences", "at most", k["num_sentences"] - 1)],
        k["relation"] == "less than",
    ),
    "detectable_format:number_bullet_lists": lambda k: ([Constraint("bullets", "exactly", k["num_bullets"])], True),
    "detectable_format:json_format": lambda k: ([Constraint("json")], True),
    "startend:end_checker": lambda k: ([Constraint("end", text=k["end_phrase"])], True),
}


def _kept(response: str, constraints: list[Constraint], wanted: bool) -> bool:
    return bool(words(response)) and all(follows(c, response) for c in constraints) == wanted


def verdicts(
    shared: Path,
) -> Iterator[
    tuple[str, str, tuple[bool, bool], tuple[bool, bool]]
]:  # what, response, (strict, loose) of theirs and of ours
    told = json.loads((shared / "data/bench/ifeval/official_checks.json").read_text())
    for number, instruction in enumerate(told["instructions"]):
        if instruction["id"] in ASKED:
            constraints, wanted = ASKED[instruction["id"]](instruction["kwargs"])
            for row in told["rows"]:
                ours = (
                    _kept(row["response"], constraints, wanted),
                    any(_kept(text, constraints, wanted) for text in variants(row["response"])),
                )
                yield (
                    f"{instruction['id'].split(':')[1]} {json.dumps(list(instruction['kwargs'].values()))}",
                    row["response"],
                    tuple(row["follow"][number]),
                    ours,
                )


if __name__ == "__main__":
    rows = list(verdicts(Path(os.environ.get("COCOIFT_SHARED", "../shared")).resolve()))
    print(
        f"{len(rows)} decisions: strict agree on {sum(t[0] == o[0] for *_, t, o in rows)}, "
        f"loose on {sum(t[1] == o[1] for *_, t, o in rows)}"
    )
    for what, response, theirs, ours in rows:
        if theirs != ours:
            print(what, "| theirs", theirs, "ours", ours, "|", repr(response))
