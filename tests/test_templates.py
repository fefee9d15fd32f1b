"""What the lab says to a model: every template of every set, on real records where they are at hand, and what training
must never say."""

import os
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from cocoift.data.build import questions
from cocoift.data.build.questions import HELD_BACK_KINDS, QUESTION_KINDS, ask_objects
from cocoift.data.build.templates import _length, drafts, draw_of, worded
from cocoift.data.build.wordings import HELD_BACK, INSTRUCTIONS, QUESTION_WORDINGS, TEMPLATE_SETS, RoundTemplate, ready
from cocoift.data.sources.base import Files, load_sources
from cocoift.data.sources.record import TASKS, DialogRound, Objects, Record, fault
from cocoift.files import UserError
from cocoift.formats import PLAIN_FORMATS, is_terse, keeps, sentences, words
from cocoift.instructions import stated_format

BOX, ODD = (0.12, 0.3, 0.5, 0.66), "the {x} and {} of 100 % %s"
THINGS = tuple(
    Objects(name, (1, 1, 2, 0, 1)[k], False, 0.02 * 3**k, (0.2 * k, 0.1, 0.2 * k + 0.1, 0.3))
    for k, name in enumerate(("dog", "mouse", "bus", "cat", "kite"))
)
MADE = [  # one record a task and more, of made-up texts
    Record("m", "1", "coco:9", "caption", answers=("A boat lies at a quiet pier in the morning",)),
    Record("m", "2", "coco:9", "caption", answers=("A boat. It lies at a pier.",)),
    Record("m", "3", "coco:9", "detail", answers=("A boat lies at the pier. Nobody is there. The sea is calm.",)),
    *(
        Record("m", f"4{a}", "coco:9", "qa", f"What about {ODD}?", (a,))
        for a in ("yes", "Two.", "a red boat", "tied to the pier")
    ),
    *(Record("m", f"5{a}", "coco:9", "count", "How many boats are there?", (a,)) for a in ("3", "many")),
    *(Record("m", f"6{a}", "coco:9", "sentence", "Where is it?", (a,)) for a in ("It is at the pier.", "At sea.")),
    Record("m", "7", "coco:9", "sentence", "船在哪里？", ("船停在码头旁边。",)),
    Record("m", "8", "coco:9", "qa", "船在哪里？", ("码头",)),
    Record("m", "9", "coco:9", "option", f"What is {ODD}?", ("mug",), ("cup", "mug", ODD)),
    *(
        Record(
            "m",
            f"10{kind}",
            "coco:9",
            "choice",
            "What is it?",
            ("mug",),
            ("cup", "mug"),
            ("It has a handle.", "because tea is in it"),
            kind=kind,
        )
        for kind in ("", "difficult")
    ),
    *(
        Record("m", f"11{says}", "coco:9", "statement", f"{says} {ODD}.", (answer,))
        for says, answer in (("The cat is behind", "no"), ("The bowl holds", "no"), ("The bowl holds", "yes"))
    ),
    Record("m", "12", "coco:9", "explained", "Is it safe?", ("yes",), why=("the sea is calm", "Nobody is there.")),
    Record("m", "13", "coco:9", "point", f"What is {ODD}?", ("mug",), boxes=((0.5, 0.25, 0.5, 0.25),)),
    *(
        Record("m", f"14{a}", "coco:9", "region", answers=(a,), boxes=(BOX,))
        for a in ("red boat", "a red boat at the pier")
    ),
    Record("m", "15", "coco:9", "ground", names=(f"{ODD}.",), boxes=(BOX,)),
    *(
        Record("m", f"16{a}", "coco:9", "relation", answers=(a,), names=(ODD, "pier"), boxes=(BOX, BOX))
        for a in ("ON", "has", "is fully covered by the")
    ),
    Record("m", "17", "coco:9", "objects", objects=THINGS),
    Record(
        "m",
        "18",
        "coco:9",
        "dialog",
        turns=(
            DialogRound("Is it safe?", "Yes", " Answer in one word."),
            DialogRound("Why?", "The sea is calm and nobody is there."),
        ),
    ),
]


@pytest.fixture(scope="module")
def real() -> list[Record]:
    "Records of all sources whose samples are at hand, at most a thousand of each."
    data, found = Path(os.environ["COCOIFT_SHARED"]) / "data/sources", []
    for name, source in load_sources().items():
        try:
            some = [r for r in source.read(Files(data, name)) if isinstance(r, Record) and not fault(r)]
        except UserError:  # a sample that lacks a file of its release
            continue
        found += random.Random(0).sample(some, min(len(some), 1000))
    return found


def said(records, templates, times=8, free=0.25):
    "Every record with its drafts, several times."
    return [
        (r, d)
        for r in records
        for seed in range(times)
        for d in drafts(r, draw_of(seed, r.source, r.id), free, templates)
    ]


def filled(template: RoundTemplate):
    "A template with small and large numbers, its blanks filled: the instruction, the bare question, the format."
    blanks = {
        "caption": (),
        "detail": (),
        "region": str(list(BOX)),
        "relation": {"subject": f"man at {list(BOX)}", "object": f"boat at {list(BOX)}"},
        "point": {"question": "What is this?", "point": "[0.5, 0.25]"},
        "ground": "brown boat",
        "statement": "The boat is at the pier.",
        "chinese": "船在哪里？",
    }
    asked = blanks.get(
        template.task,
        "Where is the boat?\nA. at sea\nB. at a pier" if template.format.startswith("option") else "Where is the boat?",
    )
    for count in (
        (1, 2, 7) if template.format == "sentences:N" else (4, 9, 12) if template.format == "words:N" else (3, 5)
    ):
        t = ready(template, template.format.replace(":N", f":{count}"))
        yield t.stated % asked, t.bare % asked, t.format


@pytest.mark.parametrize("templates", TEMPLATE_SETS)
def test_every_template_states_its_format(templates):
    stated = {
        (t.id, stated, format, stated_format(stated))
        for t in TEMPLATE_SETS[templates]
        for stated, _, format in filled(t)
    }
    assert not [wrong for wrong in sorted(stated) if wrong[2] != wrong[3]]


@pytest.mark.parametrize("templates", TEMPLATE_SETS)
def test_a_bare_question_states_none(templates):
    bare = {(t.id, bare, stated_format(bare)) for t in TEMPLATE_SETS[templates] for _, bare, _ in filled(t)}
    assert not [wrong for wrong in sorted(bare) if wrong[2] != "free"]


def test_ids():
    for templates in TEMPLATE_SETS.values():
        of = defaultdict(set)
        for t in templates:
            of[t.id].add(t)
        assert not [some for some in of.values() if len(some) > 1]


def test_diversity():
    kinds = {format.partition(":")[0] for format in (*PLAIN_FORMATS, "words:", "sentences:", "list:")}
    assert {format.partition(":")[0] for format in INSTRUCTIONS} == kinds
    assert not {format: texts for format, texts in INSTRUCTIONS.items() if len(set(texts)) < 8}
    assert not {task: texts for task, texts in QUESTION_WORDINGS.items() if len(set(texts)) < 8}


@pytest.mark.parametrize("templates", TEMPLATE_SETS)
def test_every_task(templates):
    assert {r.task for r in MADE} == set(TASKS) - {"round"} and not [fault(r) for r in MADE if fault(r)]
    for r, d in said(MADE, templates):
        assert d.stated and d.bare and d.response and (d.format != "free" or d.bare in d.stated)
        if r.task != "dialog":
            assert stated_format(d.bare) == "free" and "%(" not in d.stated
            assert all(
                text in d.stated and text in d.bare
                for text in (r.question, *r.choices, *(name.rstrip(".") for name in r.names))
            )
        if d.template not in (
            "caption-20",
            "qa-short",
            "point-short",
            "relation-short",
            "count-number",
        ):  # of the paper: what it asks for is not looked up in the answer
            assert keeps(d.format, d.response) in (True, None), (d, r)
        assert r.task == "dialog" or d.format != "free" or not is_terse(d.response), (d, r)


def test_all_wordings_are_drawn():
    drawn = {d.template for _, d in said(MADE, "diverse", 400, 0.5)}
    for part in (0, 2):  # questions and instructions; of their thousand pairs not all
        assert not {t.id.rpartition(".")[part] for t in TEMPLATE_SETS["diverse"]} - {
            id.rpartition(".")[part] for id in drawn
        }
    assert not {t.id for t in TEMPLATE_SETS["paper"]} - {d.template for _, d in said(MADE, "paper", 60, 0.5)}


def test_the_share_of_free_rounds():
    [choice] = [r for r in MADE if r.id == "10"]
    for free in (0, 0.25, 1):
        share = sum(drafts(choice, draw_of(k, "m", "10"), free)[0].format == "free" for k in range(2000)) / 2000
        assert abs(share - free) < 0.04


@pytest.mark.parametrize("templates", TEMPLATE_SETS)
def test_obedience(real, templates):
    kept = defaultdict(list)
    for _, d in said([r for r in real if r.task != "dialog"], templates, 3):
        if d.format != "free":
            kept[d.template if templates == "paper" else d.format.partition(":")[0]].append(keeps(d.format, d.response))
    if not kept:
        pytest.skip("no samples at hand")
    shares = {name: (round(sum(some) / len(some), 4), len(some)) for name, some in sorted(kept.items())}
    print(templates, shares)
    if templates == "paper":
        # COCO's captions have ten words: the paper's fault, kept for replication
        assert shares.pop("caption-20")[0] < 0.02
    assert not {name: share for name, share in shares.items() if share[0] < (0.97 if templates == "diverse" else 0.9)}


def test_free_answers_are_full(real):
    terse = [
        (d.bare, d.response)
        for templates in TEMPLATE_SETS
        for r, d in said(real, templates, 2)
        if r.task != "dialog" and d.format == "free" and is_terse(d.response)
    ]
    assert not terse


def test_lengths_are_counted_as_everywhere(real):
    for text in {text for r in (*MADE, *real) for text in r.answers}:
        assert _length(text) == (len(words(text)), sentences(text) == 1), text


# What is held back


def said_words(text: str) -> list[str]:
    return [re.sub(r"\d+|\{n\}", "#", word) for word in re.findall(r"\{n\}|[a-z0-9]+(?:['/][a-z0-9]+)*", text.lower())]


def grams(text: str, size: int = 3) -> set[tuple[str, ...]]:
    "Runs of words; a text that is shorter is one run."
    some = said_words(text)
    return {tuple(some[k : k + size]) for k in range(max(1, len(some) - size + 1))}


def spoken(real) -> list[str]:
    "All that training says of itself: instructions, questions, and the instructions of foreign dialogs."
    ours = [t.stated.replace("{}", "\n") for templates in TEMPLATE_SETS.values() for t in templates] + [
        text for texts in questions.WORDINGS.values() for text in texts
    ]
    return ours + sorted({turn.stated for r in real for turn in r.turns if turn.stated})


def test_held_back_wordings_are_strange(real):
    known = {run for text in spoken(real) for run in grams(text)}
    assert not {t.id: shared for t in HELD_BACK if (shared := grams(t.stated.replace("{}", "")) & known)}
    assert all(sum(t.format == format for t in HELD_BACK) >= 2 for format in INSTRUCTIONS if format != "free")
    assert "held-back" not in TEMPLATE_SETS


def test_held_back_wordings_are_for_examination():
    for t in HELD_BACK:
        format = t.format.replace(":N", ":3")
        assert worded("Is it safe?", format, templates="held-back").format == format
        with pytest.raises(KeyError):
            drafts(MADE[3], templates="held-back")


def test_held_back_questions_are_never_asked(real):
    assert not set(QUESTION_KINDS) & set(HELD_BACK_KINDS)
    asked = [
        a.question for r in (*MADE, *real) if r.objects for a in ask_objects(r, random.Random(0), 9, HELD_BACK_KINDS)
    ]
    assert asked
    runs = set.intersection(*(grams(question, 4) for question in asked))  # what all questions of the family share
    assert ("from", "left", "to", "right") in runs and ("what", "is", "the", "order") in runs
    assert not {run for text in spoken(real) for run in grams(text, 4)} & runs
    for templates in TEMPLATE_SETS:
        assert not [
            d.stated for r, d in said([r for r in (*MADE, *real) if r.objects], templates) if grams(d.stated, 4) & runs
        ]
