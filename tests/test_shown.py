"Several pictures in a conversation, around the core: from anybody's files through build, audit and repair, and back."

import json
from itertools import product

import pytest

from cocoift.conversation import Conversation, Round, check_conversation, read_conversations, write_parquet
from cocoift.data.build.compose import LAYOUTS
from cocoift.data.build.export import export
from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.data.inspect.audit import audit_path
from cocoift.data.inspect.repair import repair
from cocoift.data.records import Unusable, from_record, read_any
from cocoift.eval.dialog import ask_at
from cocoift.eval.examine import open_exam, run_exam
from cocoift.eval.options import EvalOptions
from cocoift.files import Journal, UserError, write_json
from cocoift.models.ask import Ask, Model, Reply
from cocoift.models.replay import ReplayModel

WORD = "Answer the question using a single word or phrase."
MIX = "llava/llava_v1_5_mix665k.json"


def name(number: int) -> str:
    return f"coco/train2017/{number:012d}.jpg"


def llava(id, images, *texts, **more) -> dict:
    turns = [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(texts)]
    return {"id": id, **({"image": images} if images else {}), "conversations": turns, **more}


def shown(c: Conversation) -> list[tuple[str, tuple]]:
    return [(r.instruction, r.shows) for r in c.rounds]


TWO = [name(9), name(25)]
INTERLEAVED = llava(
    "m4",
    [*TWO, name(30)],
    f"Image A: <image>\nImage B: <image>\nWhich of them is older?\n{WORD}",
    "A",
    "<image>\nIs this one older than the second picture?",
    "No",
    "Why?",
    "Its paint is new, and that of the second picture is worn.",
)
PLACES = [
    (f"Image A: \nImage B: \nWhich of them is older?\n{WORD}", ((0, 9), (1, 19))),
    ("Is this one older than the second picture?", ((2, 0),)),
    ("Why?", ()),
]


def in_parts(record: dict, named: bool) -> dict:
    "The same as OpenAI's or TRL's messages."
    files, messages = iter(record["image"]), []
    for turn in record["conversations"]:
        role = {"human": "user", "gpt": "assistant"}[turn["from"]]
        pieces, content = turn["value"].split("<image>"), []
        for k, piece in enumerate(pieces):
            if k:
                file = next(files)
                url = {"type": "image_url", "image_url": {"url": f"http://images.cocodataset.org/{file}"}}
                content.append(url if named else {"type": "image", "text": None})
            content += [{"type": "text", "text": piece.removeprefix("\n") if content[-1:] else piece}] * bool(piece)
        messages.append({"role": role, "content": content})
    return {"id": record["id"], "messages": messages, **({} if named else {"images": record["image"]})}


FRONT = llava("front", TWO, "<image>\n<image>\nWhich is older?", "The first.", "Why?", "It is worn.")


@pytest.mark.parametrize("layout", ["llava", "openai", "trl", "of turns"])
def test_layouts_say_where_pictures_stand(layout):
    record = {
        "llava": INTERLEAVED,
        "openai": in_parts(INTERLEAVED, True),
        "trl": in_parts(INTERLEAVED, False),
        "of turns": {
            "id": "m4",
            "messages": [
                {
                    "role": {"human": "user", "gpt": "assistant"}[turn["from"]],
                    "content": turn["value"],
                    **({"images": images} if images else {}),
                }
                for turn, images in zip(INTERLEAVED["conversations"], [TWO, [], [name(30)], [], [], []])
            ],
        },
    }[layout]
    c = from_record(record, "x")
    assert c.images == ("coco:9", "coco:25", "coco:30")
    if layout in ("llava", "of turns"):
        assert shown(c) == PLACES
    else:
        assert [[image for image, _ in places] for places in c.shown] == [["coco:9", "coco:25"], ["coco:30"], []]
        assert c.rounds[0].instruction.startswith("Image A: Image B: ") and c.rounds[0].shows == ((0, 9), (1, 18))
    check_conversation({"id": "x", "images": c.images, "rounds": c.rounds}, "x")


@pytest.mark.parametrize(
    "images, texts, why",
    [
        (TWO, ["<image>\nWhich is older?", "This."], "its texts have 1 places for 2 pictures"),
        (TWO, ["<image><image><image>", "This."], "its texts have 3 places for 2 pictures"),
        (TWO, ["<|image_2|> or <|image_1|>?", "This."], "the numbered places of its pictures are out of order"),
        (name(9), ["<image>\nOld?", "Yes", "<image>\nRed?", "No"], "its texts have 2 places for 1 pictures"),
    ],
)
def test_other_counts_are_rejects_everywhere(tmp_path, images, texts, why):
    good, bad = INTERLEAVED, llava("bad", images, *texts)
    assert from_record(bad, "x").reason == why
    write_json(tmp_path / MIX, [good, bad])
    recipe = BuildRecipe(name="r", sources=["llava-mix665k"], layout="verbatim", clean=[])
    counts = build(recipe, tmp_path, tmp_path / "set")["by_source"]["llava-mix665k"]
    assert (counts["kept"], counts["rejected"]) == (1, 1)
    assert json.loads((tmp_path / "set/rejects.jsonl").read_text())["reason"] == why
    assert audit_path(tmp_path / MIX)["reasons"] == {why: 1}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_build_keeps_them_whole(tmp_path, layout):
    one = [llava(k, name(9), f"<image>\nIs {word} there?\n{WORD}", "No") for k, word in enumerate(("a cat", "tea"))]
    other = INTERLEAVED | {"id": "same words", "image": [name(9), name(25), name(31)]}
    again = INTERLEAVED | {"id": "again"}
    write_json(tmp_path / MIX, [*one, INTERLEAVED, FRONT, other, again])
    recipe = BuildRecipe(name="r", sources=["llava-mix665k"], layout=layout, clean=[])
    counts = build(recipe, tmp_path, tmp_path / "set")
    assert counts["by_source"]["llava-mix665k"]["duplicates"] == (layout != "verbatim")
    assert counts["images"] == 4 and counts["several"] == 3 + (layout == "verbatim")
    built = {c.rounds[0].origin.record.partition("#")[0]: c for c in read_conversations(tmp_path / "set")}
    stated = [instruction for instruction, _ in PLACES]
    for id in ("m4", "same words"):
        c = built[id]
        if LAYOUTS[layout].placement == "every":
            stated = [PLACES[0][0], *(f"{text}\n{WORD}" for text, _ in PLACES[1:])]
        assert [r.instruction for r in c.rounds] == stated
        assert [r.shows for r in c.rounds] == [shows for _, shows in PLACES]
        assert c.images[:2] == ("coco:9", "coco:25")
    assert built["front"].images == ("coco:9", "coco:25") and not any(r.shows for r in built["front"].rounds)


def test_any_picture_on_a_blocklist_excludes_the_conversation(tmp_path):
    pope = [{"question_id": 1, "image": "COCO_val2014_000000000030.jpg", "text": "Is there a cat?", "label": "no"}]
    (tmp_path / "pope").mkdir()
    (tmp_path / "pope/coco_pope_random.json").write_text("\n".join(map(json.dumps, pope)))
    write_json(tmp_path / MIX, [INTERLEAVED, FRONT])
    recipe = BuildRecipe(name="r", sources=["llava-mix665k"], layout="every-mixed", clean=["pope"])
    counts = build(recipe, tmp_path, tmp_path / "set")["by_source"]["llava-mix665k"]
    assert (counts["kept"], counts["excluded"]) == (1, 1)
    assert audit_path(tmp_path / MIX, ["pope"], tmp_path)["leakage"]["pope"]["images"] == 1


# Real files


def test_photobook_and_visual_cot(shared, tmp_path):
    recipe = BuildRecipe(name="r", sources=["photobook"], layout="every-mixed", clean=[])
    counts = build(recipe, shared / "data/sources", tmp_path / "set")
    pages = list(read_conversations(tmp_path / "set"))
    assert counts["several"] == len(pages) and {len(c.images) for c in pages} == {6}
    assert counts["images"] == len({image for c in pages for image in c.images})
    for file in ("gqa", "visual7w"):
        read = list(read_any(shared / f"data/sources/visual_cot/benchmark/{file}.json"))
        assert len(read) == 250 and not any(isinstance(c, Unusable) for c in read)
        assert {tuple(r.shows for r in c.rounds) for c in read} == {(((0, 0),), ((1, 0),))}


# Out and back

ODD = ["Is  as old as  ?", "图里的和有什么不同？", "a\nb", "🐈 or ?"]


def conversations(images: list[str]) -> list[Conversation]:
    a, b, *_ = images
    one = Round("What is here?", "A pier.")
    asked = [
        Conversation("front", (a, b), (Round("Which is older?", "The first."), Round("Why?", "It is worn."))),
        Conversation("one", (a,), (one, Round("Safe?", "Yes"))),
        Conversation("later", (a,), (Round("Hello.", "Hello."), Round("What is this?", "A pier.", shows=((0, 0),)))),
        Conversation(
            "twice", (a, b), (Round("x", "y", shows=((1, 0),)), Round("And now?", "z", shows=((0, 8), (1, 8))))
        ),
        Conversation("none", (), (one,)),
    ]
    for k, text in enumerate(ODD):
        shows = ((0, 0), (1, len(text) // 2), (0, len(text)))
        asked.append(
            Conversation(f"odd/{k}", (a, b), (Round(text, "Yes", shows=shows), Round("", "a", shows=((1, 0),))))
        )
    return asked


def as_shown(c: Conversation) -> tuple:
    return c.id, [(r.instruction, r.response, shown) for r, shown in zip(c.rounds, c.shown)]


@pytest.mark.parametrize("kind, pictured", list(product(["llava", "messages"], [False, True])))
def test_what_is_exported_is_read_back(shared, tmp_path, kind, pictured):
    photographs = shared / "data/coco-mini/images"
    files = sorted((photographs / "train2017").glob("*.jpg"))[:2]
    mine = conversations([f"coco:{int(file.stem)}" for file in files])
    write_parquet(tmp_path / "own.parquet", mine)
    out = tmp_path / ("x.json" if kind == "llava" else "x.parquet")
    assert export(tmp_path / "own.parquet", kind, out, photographs if pictured else None)["conversations"] == len(mine)
    again = list(read_any(out))
    assert [as_shown(c) for c in again] == [as_shown(c) for c in mine]


def test_datasets_and_trl_read_them(shared, tmp_path, monkeypatch):
    import datasets
    from trl.data_utils import prepare_multimodal_messages

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    photographs = shared / "data/coco-mini/images"
    files = sorted((photographs / "train2017").glob("*.jpg"))[:2]
    mine = conversations([f"coco:{int(file.stem)}" for file in files])
    write_parquet(tmp_path / "own.parquet", mine)
    export(tmp_path / "own.parquet", "messages", tmp_path / "x.parquet", photographs)
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "x.parquet"), split="train")
    sizes = {
        f"coco:{int(file.stem)}": datasets.Image().decode_example({"path": str(file), "bytes": None}).size
        for file in files
    }
    for row, c in zip(loaded, mine, strict=True):
        prepared = prepare_multimodal_messages(row["messages"], row["images"])
        pictures = [part["image"].size for m in prepared for part in m["content"] if part["type"] == "image"]
        assert pictures == [sizes[image] for places in c.shown for image, _ in places]
        texts = ["".join(part.get("text") or "" for part in m["content"]) for m in prepared]
        assert texts == [text for r in c.rounds for text in (r.instruction, r.response)]


# Repair


def test_repair_leaves_pictures_where_they_stand(tmp_path):
    first = f"<image>\nIs it red?\n{WORD}"
    later = llava("1", TWO, first, "No", "<image>\nIs it blue?", "Yes")
    before = llava("2", TWO, "<image>\nIn a word: is it red?", "No", "\n<image> Is it bl\u00fce?", "Yes")
    free = llava("3", name(9), "<image>\nWhat is unusual here?", "A dog drives.")
    loose = llava("4", name(9), "Hello.", "Hello.", "<image>\nWhat is this?", "It is a dog.")
    mine = llava("5", name(9), first, "No", "Is it blue?", "Yes")
    (tmp_path / "in.json").write_text(json.dumps([later, before, free, loose, mine]))
    done = repair(tmp_path / "in.json", tmp_path / "out.json", interleave=True)
    assert (done["repaired"], done["stated"], done["moved"]) == (3, 3, 1)
    out = {
        record["id"]: [turn["value"] for turn in record["conversations"]]
        for record in json.loads((tmp_path / "out.json").read_text())
    }
    assert out["1"][2] == f"<image>\nIs it blue?\n{WORD}"
    assert out["2"][2] == "\n<image> In a word: Is it bl\u00fce?"
    assert len(out["5"]) == 6 and "3" not in out and len(out["4"]) == 4  # what shows a picture later is not moved
    read = {c.id: c for c in read_any(tmp_path / "out.json")}
    assert [[r.shows for r in read[id].rounds] for id in "124"] == [[((0, 0),), ((1, 0),)]] * 2 + [[(), ((0, 0),)]]


def test_a_wrong_place_is_one_line(tmp_path):
    rows = [
        {"id": "a", "images": ["coco:9"], "rounds": [{"instruction": "Why?", "response": "So.", "shows": [[1, 0]]}]}
    ]
    (tmp_path / "own.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(UserError, match="record 1: rounds.0.shows: image 1 is shown, there are 1"):
        list(read_conversations(tmp_path / "own.jsonl"))


# Evaluation


class Sees(Model):
    "Says which pictures it was shown where, in each round."

    name, about = "sees", {"model": "sees"}

    def answer(self, asks):
        return [Reply("; ".join(str([(k.split(":")[1], at) for k, at in r.shown]) for r in ask.rounds)) for ask in asks]


@pytest.fixture
def infimm(shared, tmp_path):
    photographs = sorted((shared / "data/coco-mini/images/train2017").glob("*.jpg"))
    two, three = ([file.name for file in photographs[k:n]] for k, n in ((0, 2), (2, 5)))
    about = {"answer": "The first.", "steps": ["Look."], "category": "Deductive", "complexity": "High"}
    rows = {
        "1": {"images": two, "question": "Is the dog of <image> older than that of <image>?"} | about,
        "2": {"images": three, "question": "Which is the odd one out?"} | about,
    }
    write_json(tmp_path / "bench/infimm.json", rows)
    return tmp_path / "bench", photographs[0].parent, [[str(int(n[:-4])) for n in names] for names in (two, three)]


def test_questions_keep_their_pictures_behind_any_history(infimm, tmp_path):
    data, images, (two, three) = infimm
    options = EvalOptions(data=data, out=tmp_path / "run", images=images, histories=["none", "neutral:2", "own:1"])
    exam = open_exam("infimm", options)
    result = run_exam(Sees(), exam, tmp_path / "run")
    assert result["answered"] == result["rounds"] == 8
    lines = Journal(tmp_path / "run/rounds.jsonl").read()
    placed = {"1": [(n, at) for n, at in zip(two, (14, 34))], "2": [(n, 0) for n in three]}
    for line in lines:
        first, own = [(two if line["item"] == "1" else three)[0]], placed[line["item"]]
        expected = {"none": [own], "neutral": [[(first[0], 0)], [], own], "own": [[(first[0], 0)], own]}[
            line["history"]
        ]
        if line["prior"]:
            expected = expected[:1]
        assert line["response"] == "; ".join(map(str, expected)), line
    assert ["shows" in line for line in lines if line["history"] == "none"] == [True, False]  # all in front: as ever
    again = [ReplayModel(tmp_path / "run").answer([ask_at(d, n, told)]) for d, n, told in played(exam, lines)]
    assert [reply.text for (reply,) in again] == [line["response"] for line in lines]
    before = (tmp_path / "run/rounds.jsonl").read_bytes()
    run_exam(Sees(), exam, tmp_path / "run")
    assert (tmp_path / "run/rounds.jsonl").read_bytes() == before


def played(exam, lines):
    "Each line's dialog, round and the responses before it."
    by_id = {d.id: d for d in exam.dialogs}
    for line in lines:
        dialog, number = by_id[line["dialog"]], line["round"] - 1
        own = {other["round"] - 1: other["response"] for other in lines if other["dialog"] == dialog.id}
        yield (
            dialog,
            number,
            [own[k] if turn.response is None else turn.response for k, turn in enumerate(dialog.turns[:number])],
        )


def test_other_counts_in_a_question_are_one_line(infimm, tmp_path):
    data, images, _ = infimm
    rows = json.loads((data / "infimm.json").read_text())
    rows["2"]["question"] = "Is <image> the odd one out?"
    write_json(data / "infimm.json", rows)
    with pytest.raises(UserError, match="infimm.json: 2: its question has 1 places for 3 images: write <image> once"):
        open_exam("infimm", EvalOptions(data=data, out=tmp_path / "run", images=images))


def test_a_served_model_gets_parts_in_place(tmp_path):
    from PIL import Image

    from cocoift.models.endpoint.request import ImageParts, messages_of

    for name in "ab":
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    pictures = {name: tmp_path / f"{name}.png" for name in "ab"}
    ask = Ask.of("Is  like ?", ("a", "b"), [("What is here?", "Red.")], [[(0, 0)], [(1, 3), (0, 9)]])
    first, _, asked = messages_of(ask, ImageParts(pictures))
    assert [part["type"] for part in first["content"]] == ["image", "text"]
    assert [part.get("text", "") for part in asked["content"]] == ["Is ", "", " like ", "", "?"]


def test_the_browser_shows_all_pictures_in_order(shared, tmp_path):
    from types import SimpleNamespace

    from apps.panels.place import Study
    from cocoift.pictures import picture_size

    files = sorted((shared / "data/coco-mini/images/train2017").glob("*.jpg"))[:2]
    known = {f"coco:{int(file.stem)}": file for file in files}
    study = Study(tmp_path, SimpleNamespace(pictures=known), None, tmp_path)
    widths = [round(300 * width / height) for width, height in map(picture_size, files)]
    assert study.pictures(list(known)).size == (sum(widths) + 16, 300)
    assert study.pictures([*known, "coco:1"]).size == (sum(widths) + 300 + 24, 300)  # one that is not there
    assert study.pictures(list(known)[:1]) == str(files[0]) and study.pictures([]) is None
