"""COCO-Scope's checks against the hand labels of real answers: `python tests/checked.py` prints the table, with `-v`
the decisions that were wrong."""

import json
import os
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

LABELS = Path(__file__).parent / "labels/answers.jsonl"


def read_labels(shared: Path) -> Iterator[tuple[str, dict]]:  # text, labels
    files: dict[str, object] = {}
    for line in map(json.loads, LABELS.read_text().splitlines()):
        path = shared / "data" / line["file"]
        if path not in files:
            text = path.read_text()
            files[path] = (
                [json.loads(row) for row in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
            )
        text = files[path]
        for key in line["at"]:
            text = text[key]
        assert sha256(text.encode()).hexdigest()[:8] == line["sha"], (
            f"{line['file']} {line['at']}: is not the text that was labelled"
        )
        yield text, line


def words_of(shared: Path) -> dict[str, str]:
    from cocoift.data.generate.objects import vocabulary

    return vocabulary(
        line.split(",")[0].strip()
        for line in (shared / "data/bench/chair/synonyms.txt").read_text().splitlines()
        if line.strip()
    )


def _forms(name: str, words: dict[str, str]) -> list[str]:
    return sorted(p for p, c in words.items() if c == name) or [name, f"{name}s", f"{name}es"]


def _formed(text: str, told: dict) -> Iterator[tuple[str, object, bool, bool]]:  # check, what of, label, verdict
    from cocoift.eval.scope.checks import Constraint, follows

    for kind in ("brief", "lower", "upper"):
        if kind in told:
            yield kind, None, told[kind], follows(Constraint(kind), text)
    for kind in ("words", "sentences", "bullets"):
        if kind in told:
            for n in (told[kind] - 1, told[kind], told[kind] + 1):
                for relation in ("exactly", "at most"):
                    if n > 0:
                        label = told[kind] == n if relation == "exactly" else 0 < told[kind] <= n
                        yield f"{kind} {relation}", n, label, follows(Constraint(kind, relation, n), text)
    for name, c in (
        ("says_image", Constraint("without", text="image")),
        ("starts", Constraint("start", text="The image")),
        ("ends", Constraint("end", text="in the image.")),
    ):
        if name in told:
            yield c.kind, c.text, told[name] != (c.kind == "without"), follows(c, text)
    if "json" in told:
        yield "json", None, told["json"], follows(Constraint("json", keys=()), text)


def _claimed(text: str, told: dict, words: dict[str, str]) -> Iterator[tuple[str, object, object, object]]:
    from cocoift.eval.scope import claims

    if "yes_no" in told:
        yield (
            "yes or no",
            None,
            told["yes_no"],
            claims.claim({"kind": "placed", "said": "left", "a": ["thing"], "b": ["other"]}, text),
        )
    for name, label in told.get("presence", {}).items():
        yield "presence", name, None if label == "none" else label, claims.presence(text, _forms(name, words))
    for name, label in told.get("counts", {}).items():
        yield "count", name, label, claims.count(text, _forms(name, words))
    if "side" in told:
        a, b, label = told["side"]
        yield "side", (a, b), label, claims.side(text, label, [a], [b])
    if "larger" in told:
        a, b, label = told["larger"]
        yield "larger", (a, b), label, claims.choice(text, {a: [a], b: [b]})


def _named(text: str, told: dict, words: dict[str, str]) -> Iterator[tuple[str, object, bool, bool]]:
    from cocoift.data.generate.objects import asserted

    if "objects" in told:
        found, label = set(asserted(text, words)), set(told["objects"])
        for name in sorted(found | label):
            yield "objects", name, name in label, name in found


def decisions(
    shared: Path, part: str = ""
) -> Iterator[tuple[str, str, object, object, object]]:  # check, text, what of, label, verdict
    "Every decision that a check takes about a labelled text of a part; of all, if none is named."
    words = words_of(shared)
    for text, told in read_labels(shared):
        if part and told["part"] != part:
            continue
        for some in (_formed(text, told), _claimed(text, told, words), _named(text, told, words)):
            for check, about, label, verdict in some:
                yield check, text, about, label, verdict


def table(shared: Path, part: str = "") -> dict[str, dict]:
    """By check: texts, positives labelled, found, right; a claim is right if its value is. Precision and recall are
    undefined without any."""
    rows: dict[str, dict] = {}
    for check, text, about, label, verdict in decisions(shared, part):
        row = rows.setdefault(check, {"texts": set(), "decisions": 0, "labelled": 0, "found": 0, "right": 0})
        row["texts"].add(text)
        row["decisions"] += 1
        row["labelled"] += label not in (None, False)
        row["found"] += verdict not in (None, False)
        row["right"] += label not in (None, False) and label == verdict
    return {
        check: {
            **row,
            "texts": len(row["texts"]),
            "precision": row["right"] / row["found"] if row["found"] else None,
            "recall": row["right"] / row["labelled"] if row["labelled"] else None,
        }
        for check, row in rows.items()
    }


def show(rows: dict[str, dict]) -> str:  # markdown
    def part(row: dict, what: str) -> str:
        return (
            "undefined"
            if row[what] is None
            else f"{row[what]:.3f} ({row['right']}/{row['found' if what == 'precision' else 'labelled']})"
        )

    lines = [
        f"| {check} | {row['texts']} | {row['decisions']} | {part(row, 'precision')} | {part(row, 'recall')} |"
        for check, row in rows.items()
    ]
    return "\n".join(["| check | answers | decisions | precision | recall |", "|---|---|---|---|---|", *lines])


if __name__ == "__main__":
    shared = Path(os.environ.get("COCOIFT_SHARED", "../shared")).resolve()
    for part in ("tuned", "held"):
        print(part, "", show(table(shared, part)), "", sep="\n")
    if "-v" in sys.argv:
        for check, text, about, label, verdict in decisions(shared):
            if label != verdict and not (label in (None, False) and verdict in (None, False)):
                print(check, about, "label", label, "verdict", verdict, "|", text[:200].replace("\n", " / "))
