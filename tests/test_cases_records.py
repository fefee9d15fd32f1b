"Records as people bring them, in every layout, with paths of every system. Values are those of the shared cases."

import codecs
import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.data.inspect.audit import audit_path
from cocoift.data.inspect.gate import check_gate, parse_gate
from cocoift.data.inspect.repair import repair
from cocoift.data.records import read_any
from cocoift.files import UserError, write_json
from cocoift.options import load_recipe
from cocoift.texts import read_json, read_jsonl
from cocoift.world import make_world

WORD = "Answer the question using a single word or phrase."
PICTURE = "coco/train2017/000000000100.jpg"
JPEG = b"\xff\xd8\xff" + bytes(range(90))
DATA = f"data:image/jpeg;base64,{b64encode(JPEG).decode()}"


@pytest.fixture(scope="module")
def case(shared):
    return lambda number: next((shared / "data/cases").glob(f"{number}-*"))


def lines(path: Path, *records: dict) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def turns(*texts: str, first=None) -> list[dict]:
    "Chat messages; `first` are parts before the first text."
    said = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]
    if first is not None:
        said[0]["content"] = [*first, {"type": "text", "text": texts[0]}]
    return said


ASKED = f"What colour is the box?\n{WORD}", "Red", "Is there a cat?", "No", "How many cups stand there?", "0"


# Pictures, wherever they are named


@pytest.mark.parametrize("name", ["base.json", "trl.jsonl", "qwen.jsonl", "openai.jsonl", "hf.jsonl", "url.jsonl"])
def test_pictures_inside_content(case, tmp_path, name):
    folder = case("03")
    found = audit_path(folder / name, ["pope"], folder)
    assert [found["leakage"]["pope"][key] for key in ("images", "rounds", "unsure")] == [2, 10, 0]
    assert not check_gate(parse_gate("leakage.pope.images<=0"), found)["passed"]
    done = repair(folder / name, tmp_path / f"out{Path(name).suffix}")
    assert [done[key] for key in ("repaired", "stated", "rejected")] == [4, 8, 0]


LAYOUTS = {
    "llava": {
        "image": PICTURE,
        "conversations": [
            {"from": ("human", "gpt")[k % 2], "value": "<image>\n" * (k == 0) + text} for k, text in enumerate(ASKED)
        ],
    },
    "internvl": {
        "image": [PICTURE],
        "conversations": [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(ASKED)],
    },
    "minicpm": {"image": {"<image_00>": PICTURE}, "conversations": turns(f"<image_00>\n{ASKED[0]}", *ASKED[1:])},
    "llama-factory": {"images": [PICTURE], "messages": turns("<image>" + ASKED[0], *ASKED[1:])},
    "trl": {
        "images": [{"bytes": None, "path": PICTURE}],
        "messages": turns(*ASKED, first=[{"type": "image", "text": None}]),
    },
    "both, once": {
        "image": PICTURE,
        "images": [PICTURE],
        "messages": turns(*ASKED, first=[{"type": "image", "image": PICTURE}]),
    },
    "null-filled": {
        "images": None,
        "messages": turns(*ASKED, first=[{"type": "image", "image": PICTURE, "text": None, "video": None, "url": ""}]),
    },
    "openai": {
        "messages": turns(
            *ASKED,
            first=[
                {
                    "type": "image_url",
                    "image_url": {"url": f"https://images.cocodataset.org/{PICTURE}", "detail": "low"},
                }
            ],
        )
    },
    "openai, text": {"messages": turns(*ASKED, first=[{"type": "image_url", "image_url": f"/data/{PICTURE}"}])},
    "responses": {"messages": turns(*ASKED, first=[{"type": "input_image", "image_url": f"file:///data/{PICTURE}"}])},
    "anthropic": {"messages": turns(*ASKED, first=[{"type": "image", "source": {"type": "url", "url": PICTURE}}])},
    "untyped": {"messages": turns(*ASKED, first=[{"image": PICTURE}])},
    "qwen-vl-1": {"conversations": turns(f"Picture 1: <img>{PICTURE}</img>\n{ASKED[0]}", *ASKED[1:])},
    "of a turn": {
        "messages": [{**turn, "images": [PICTURE]} if k == 0 else turn for k, turn in enumerate(turns(*ASKED))]
    },
    "later": {
        "messages": [
            *turns(*ASKED)[:4],
            {"role": "user", "content": [{"type": "image", "path": PICTURE}, {"type": "text", "text": ASKED[4]}]},
            turns(*ASKED)[5],
        ]
    },
    "windows": {"image": "D:\\coco\\train2017\\000000000100.jpg", "conversations": turns(*ASKED)},
    "lower, blank": {"image": f" {PICTURE} ", "conversations": turns(*ASKED)},
    "query": {"image": f"https://host.example/{PICTURE}?size=large&v=2", "conversations": turns(*ASKED)},
    "a part with two names": {
        "messages": turns(
            *ASKED, first=[{"type": "image", "image": "x.jpg", "url": f"http://images.cocodataset.org/{PICTURE}"}]
        )
    },
    "path and bytes": {
        "messages": turns(*ASKED, first=[{"type": "image", "path": PICTURE, "bytes": b64encode(JPEG).decode()}])
    },
    "several in one part": {"messages": turns(*ASKED, first=[{"type": "image", "image": [PICTURE]}])},
    "roles in capitals": {
        "image": PICTURE,
        "messages": [turn | {"role": f"<|{turn['role'].title()}|>"} for turn in turns(*ASKED)],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    path = lines(tmp_path / "x.jsonl", LAYOUTS[layout])
    (c,) = read_any(path)
    assert c.images == ("coco:100",)
    assert [(r.instruction, r.response) for r in c.rounds] == list(zip(ASKED[::2], ASKED[1::2]))
    assert [r.format for r in c.rounds] == ["short", "free", "free"]
    done = repair(path, tmp_path / "y.jsonl")
    assert (done["repaired"], done["stated"]) == (1, 2)
    plain = path.read_text()
    for question in ASKED[2::2]:
        plain = plain.replace(json.dumps(question), json.dumps(f"{question}\n{WORD}"))
    assert (tmp_path / "y.jsonl").read_text() == plain


@pytest.mark.parametrize(
    "entry",
    [
        DATA,
        {"url": DATA},
        {"bytes": b64encode(JPEG).decode()},
        {"type": "base64", "media_type": "image/jpeg", "data": b64encode(JPEG).decode()},
    ],
)
def test_pictures_known_by_their_bytes(tmp_path, entry):
    for record in (
        {"messages": turns(*ASKED, first=[{"type": "image", "image": entry}])},
        {"images": [entry], "messages": turns(*ASKED)},
    ):
        (c,) = read_any(lines(tmp_path / "x.jsonl", record))
        assert c.images == (f"file:{sha256(JPEG).hexdigest()}",)


@pytest.mark.parametrize("name", ["back.json", "drive.json", "query.json"])
def test_paths_of_other_systems(case, name):
    folder = case("04")
    found = audit_path(folder / name, ["pope"], folder)
    assert [found["leakage"]["pope"][key] for key in ("images", "rounds")] == [2, 10]
    assert len(found["by_source"]) == 1


def test_paths_of_other_systems_in_a_build(case, tmp_path):
    counts = build(load_recipe(str(case("04") / "r.yaml"), BuildRecipe), case("04"), tmp_path / "out")
    assert [counts["by_source"]["llava-mix665k"][key] for key in ("read", "kept", "excluded")] == [8, 4, 4]


def test_one_source_for_bare_names(tmp_path):
    records = [{"image": f"{k:012d}.jpg", "conversations": turns("Is it?", "Yes")} for k in range(5)] + [
        {"image": f"photo {k}.jpg", "conversations": turns("Is it?", "Yes")} for k in range(5)
    ]
    found = audit_path(lines(tmp_path / "x.jsonl", *records))
    assert {name: m["rounds"] for name, m in found["by_source"].items()} == {"coco": 5, "path": 5}
    addressed = audit_path(
        lines(
            tmp_path / "y.jsonl",
            *({"image": f"https://a.example/{k}.jpg", "conversations": turns("Is it?", "Yes")} for k in range(5)),
        )
    )
    assert check_gate(parse_gate("by_source.a.example.rounds>=5"), addressed)["passed"]


# What a conversation cannot hold

UNUSABLE = {
    "a field": (
        {"video": "clips/1.mp4", "conversations": turns("<video>\nWhat happens?", "A dog runs.")},
        "it is about a video",
    ),
    "fields": (
        {"videos": ["1.mp4"], "images": [PICTURE], "messages": turns("What happens?", "A dog runs.")},
        "it is about a video",
    ),
    "a sound": ({"audios": ["1.wav"], "messages": turns("<audio>What is said?", "Hello.")}, "it is about a sound"),
    "a part": (
        {
            "messages": turns(
                "What happens?", "A dog runs.", first=[{"type": "video_url", "video_url": {"url": "1.mp4"}}]
            )
        },
        "it is about a video",
    ),
    "a mark": ({"conversations": turns("What happens?\n<video>", "A dog runs.")}, "it is about a video"),
    "a clip as image": (
        {"image": "clips/1.mp4", "conversations": turns("What happens?", "A dog runs.")},
        "it is about a video",
    ),
    "a tool": (
        {"messages": [*turns("What is 2 + 2?", "4"), {"role": "tool", "content": "4"}]},
        "a tool has a turn in it",
    ),
    "unnamed, in text": (
        {"image": "", "conversations": turns("<image>\nIs it?", "Yes")},
        "it speaks of a picture that it does not name",
    ),
    "a nested part": (
        {"messages": turns("Is it?", "Yes", first=[["Why?"]])},
        "it holds a part that is neither a text nor an object",
    ),
    "unnamed": (
        {"messages": turns("Is it?", "Yes", first=[{"type": "image"}])},
        "it speaks of a picture that it does not name",
    ),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_unusable_records_are_counted_and_stay(tmp_path, what):
    record, reason = UNUSABLE[what]
    good = LAYOUTS["trl"]
    path = lines(tmp_path / "x.jsonl", good, record)
    found = audit_path(path)
    assert (found["conversations"], found["rejected"], found["reasons"]) == (1, 1, {reason: 1})
    assert repair(path, tmp_path / "y.jsonl")["rejected"] == 1
    assert (tmp_path / "y.jsonl").read_text().splitlines()[1] == json.dumps(record)
    with pytest.raises(UserError, match=f"none of its 1 records can be used .*{reason}"):
        audit_path(lines(tmp_path / "z.jsonl", record))


def test_videos(case, typed, tmp_path):
    folder = case("23")
    for command in (
        ["audit", folder / "video.json"],
        ["repair", folder / "video.json", tmp_path / "out.json"],
        ["build", folder / "r.yaml", "--data", folder, "--out", tmp_path / "out"],
    ):
        done = typed(*command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "it is about a video" in done.stderr and "widen" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_image_of_an_unusable_record_leaks_too(case, tmp_path):
    path = lines(
        tmp_path / "x.jsonl",
        {"images": ["coco/train2017/000000000009.jpg"], "messages": turns("Is it?", "Yes")},
        {"video": "1.mp4", "image": PICTURE, "messages": turns("Why?", "So.")},
    )
    assert audit_path(path, ["pope"], case("03"))["leakage"]["pope"]["images"] == 1


SYSTEM = {"field": {"system": WORD}, "other field": {"system_prompt": WORD}}


@pytest.mark.parametrize("where", [*SYSTEM, "turn"])
def test_a_system_prompt_holds_for_all_rounds(tmp_path, where):
    plain = {"images": [PICTURE], "messages": turns(ASKED[0], "Red", "Is there a cat?", "No")}
    record = (
        plain | SYSTEM[where]
        if where in SYSTEM
        else plain | {"messages": [{"role": "system", "content": WORD}, *plain["messages"]]}
    )
    path = lines(tmp_path / "x.jsonl", record)
    found = audit_path(path)
    assert (found["formats"], found["bare_terse"]) == ({"short": 2}, 0)
    assert (
        repair(path, tmp_path / "y.jsonl")["repaired"] == 0 and (tmp_path / "y.jsonl").read_text() == path.read_text()
    )
    kind = lines(tmp_path / "kind.jsonl", json.loads(json.dumps(record).replace(json.dumps(WORD), '"Be kind."')))
    assert repair(kind, tmp_path / "z.jsonl")["stated"] == 1 and "Be kind." in (tmp_path / "z.jsonl").read_text()


def test_a_build_rejects_a_system_prompt(tmp_path):
    record = {
        "id": "1",
        "image": PICTURE,
        "conversations": [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "It is so."}],
    }
    write_json(tmp_path / "llava/llava_v1_5_mix665k.json", [record, record | {"system": "Be kind."}])
    counts = build(
        BuildRecipe(name="r", sources=["llava-mix665k"], layout="verbatim", clean=[]), tmp_path, tmp_path / "out"
    )
    assert [counts["by_source"]["llava-mix665k"][key] for key in ("kept", "rejected")] == [1, 1]
    assert "system prompt" in (tmp_path / "out/rejects.jsonl").read_text()


@pytest.mark.parametrize(
    "record, told",
    [
        (
            {"conversations": turns("Is it?", "Yes"), "messages": turns("Is it?", "No")},
            "has turns in conversations and in messages: keep one",
        ),
        ({"messages": [{"role": "user", "from": "gpt", "content": "Is it?"}]}, "from and role differ"),
        ({"messages": [{"role": "user", "value": "Why?", "content": "Is it?"}]}, "value and content differ"),
        (
            {"messages": turns("Is it?", "Yes", first=[{"type": "image", "file_id": "file-1"}])},
            "known by its id on a server only",
        ),
        (
            {
                "messages": turns(
                    "Is it?", "Yes", first=[{"type": "image", "image": PICTURE, "url": PICTURE.replace("100", "101")}]
                )
            },
            "two different pictures are named as one",
        ),
        ({"images": ["\ud83d.jpg"], "messages": turns("Is it?", "Yes")}, "images: holds half a character"),
        ({"id": "\ud83d", "messages": turns("Is it?", "Yes")}, "id: holds half a character"),
    ],
)
def test_two_readings_are_refused(tmp_path, record, told):
    with pytest.raises(UserError, match=f"record 1: .*{told}.*: mend the record or remove it"):
        audit_path(lines(tmp_path / "x.jsonl", record))


# Files that are others than their names say


def test_byte_order_marks(case, tmp_path):
    folder = case("22")
    for name in "bom_base.json", "bom_qwen.jsonl":
        assert audit_path(folder / name)["conversations"] == 8
        out = tmp_path / name
        assert repair(folder / name, out)["stated"] == 8
        assert out.read_bytes().startswith(codecs.BOM_UTF8) and out.read_bytes().count(codecs.BOM_UTF8) == 1
    counts = build(load_recipe(str(folder / "mine.yaml"), BuildRecipe), folder, tmp_path / "out")
    assert counts["by_source"]["coco-format"]["kept"] == 2
    (tmp_path / "marked.yaml").write_bytes(codecs.BOM_UTF8 + (folder / "mine.yaml").read_bytes())
    assert load_recipe(str(tmp_path / "marked.yaml"), BuildRecipe) == load_recipe(
        str(folder / "mine.yaml"), BuildRecipe
    )


GOOD = json.dumps(LAYOUTS["trl"])


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.json", GOOD + "\n" + GOOD),
        ("x.jsonl", f"[{GOOD},\n {GOOD}]"),
        ("x.jsonl", f"[{GOOD},{GOOD}]"),
        ("x.json", f"[\n{GOOD},{GOOD}\n]"),
    ],
)
def test_a_file_is_what_it_holds(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert audit_path(tmp_path / name)["conversations"] == 2
    out = tmp_path / f"out{Path(name).suffix}"
    assert repair(tmp_path / name, out)["stated"] == 4 and audit_path(out)["bare_terse"] == 0


@pytest.mark.parametrize(
    "name, content, told",
    [
        (
            "x.jsonl",
            b'{"query": "Why?", "response": "So.", "images": ["a.jpg"]}',
            "has 'query' and 'response' and no turns: write each as",
        ),
        ("x.json", b'[{"prompt": "Why?", "completion": "So."}]', "has 'prompt' and 'completion' and no turns"),
        ("x.jsonl", b'{"images": ["a.jpg"], "texts": ["Why? So."]}', "has 'images' and 'texts' and no"),
        ("x.jsonl", b'{"image": "a.jpg", "caption": "So."}', "is no LLaVA file"),
        ("x.json", b"", "holds no conversation"),
        ("x.jsonl", b"", "holds no conversation"),
        ("x.json", b"\x1f\x8b\x08\x00", "unpack it with gunzip"),
        ("x.json.gz", b"\x1f\x8b\x08\x00", "unpack it with gunzip"),
        ("x.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "`git lfs pull`"),
        ("x.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        ("x.json", b"<!DOCTYPE html>\n<html>404</html>", "is a page in HTML"),
        ("x.jsonl", b"<html>404</html>", "is a page in HTML"),
        ("x.json", GOOD.encode("utf-16"), "is UTF-16 text, UTF-8 text is needed: save it as UTF-8"),
        ("x.json", b"PAR1....", "give it the suffix .parquet"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.jsonl", b'{"messages": ' + b"[" * 100_000, "nested too deeply"),
        ("x.json", b'{"a":' * 9999 + b"1" + b"}" * 9999, "nested too deeply"),
        ("x.json", b'[{"id": ' + b"9" * 5000 + b"}]", "not JSON|too many digits"),
        ("x.json", b'{\n "data": []\n}', "is no LLaVA file"),
    ],
)
def test_another_file_says_what_it_is(typed, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        audit_path(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_deep_records(tmp_path):
    "As deep as JSON is read, but deeper than Python walks."
    for depth in (100, 300, 900):
        deep = json.loads("[" * depth + "]" * depth)
        path = lines(tmp_path / "x.jsonl", LAYOUTS["llava"] | {"more": deep})
        try:
            assert repair(path, tmp_path / "y.jsonl")["stated"] == 2
        except UserError as error:
            assert "nested too deeply" in str(error)
        with pytest.raises(UserError):
            audit_path(lines(tmp_path / "z.jsonl", {"image": deep, "messages": turns("Is it?", "Yes")}))


@pytest.mark.parametrize("read", [read_json, lambda path: next(read_jsonl(path))[1]])
def test_readers_pass_over_a_mark_only_at_the_start(tmp_path, read):
    (tmp_path / "x.json").write_bytes(codecs.BOM_UTF8 + '"\ufeff"'.encode())
    assert read(tmp_path / "x.json") == "\ufeff"


@pytest.mark.parametrize(
    "text, told",
    [
        ("name: a\nname: b", "the key 'name' stands twice"),
        ("free: .nan", "nan is no number"),
        ("sources:\n\t- vqav2", "is not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "aliases"),
        ("seed: " + "9" * 5000, "is not YAML"),
    ],
)
def test_recipes_say_one_thing(tmp_path, text, told):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        load_recipe(str(tmp_path / "r.yaml"), BuildRecipe)


# What an audit cannot tell, and what a recipe holds twice


@pytest.mark.parametrize(
    "name, text",
    [
        ("images.txt", "coco:9\ncoco:100\n"),
        ("names.txt", f"000000000009.jpg\r\n{PICTURE}\r\n"),
        ("names.json", json.dumps(["COCO_val2014_000000000009.jpg", PICTURE])),
        ("ids.json", "[9, 100]"),
        (
            "ask.jsonl",
            "".join(json.dumps({"question_id": 1, "image": {"file_name": f"{n:012d}.jpg"}}) + "\n" for n in (9, 100)),
        ),
        ("chat.jsonl", json.dumps(LAYOUTS["openai"]) + "\n" + json.dumps({"id": "2", "images": ["000000000009.jpg"]})),
    ],
)
def test_lists_of_images_that_must_not_be_there(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = audit_path(lines(tmp_path / "set.jsonl", LAYOUTS["llava"]), [str(tmp_path / name)])["leakage"]
    assert [next(iter(found.values()))[key] for key in ("size", "images", "rounds", "unsure")] == [2, 1, 3, 0]


def test_leakage_is_undefined_where_names_do_not_tell(typed, tmp_path):
    path = lines(
        tmp_path / "vg.jsonl",
        {"image": "vg/VG_100K/7.jpg", "messages": turns("Is it?", "Yes")},
        {"image": "coco/train2017/000000000009.jpg", "messages": turns("Is it?", "Yes")},
    )
    (tmp_path / "data").mkdir()
    lines(tmp_path / "data/coco_pope_random.json", {"image": PICTURE, "text": "Is it?", "label": "yes"})
    found = audit_path(path, ["pope"], tmp_path / "data")["leakage"]["pope"]
    assert (found["images"], found["rounds"], found["unsure"], found["at_least"]) == (
        None,
        None,
        1,
        {"images": 0, "rounds": 0},
    )
    done = typed("audit", path, "--against", "pope", "--data", tmp_path / "data", "--gate", "leakage.pope.images<=0")
    assert done.returncode == 1 and "is undefined" in done.stderr and "image_data.json" in done.stderr
    write_json(
        tmp_path / "data/visual_genome/image_data.json", [{"image_id": 7, "coco_id": 100, "width": 9, "height": 9}]
    )
    found = audit_path(path, ["pope"], tmp_path / "data")["leakage"]["pope"]
    assert (found["images"], found["unsure"]) == (1, 0)


def test_a_mix_beside_its_sources(tmp_path):
    "LLaVA's mix merges the questions of sets that the recipe has too; a free dialog and a further question stay."
    make_world(tmp_path / "data", 6)
    sources = {"vqav2": {}, "llava-mix665k": {}}
    alone = build(BuildRecipe(name="r", sources={"vqav2": {}}, clean=[]), tmp_path / "data", tmp_path / "alone")
    records = [c for path in [tmp_path / "alone"] for c in read_any(path)]
    merged = {}
    for c in records:
        for r in c.rounds:
            merged.setdefault(c.image, []).append((r.instruction.partition("\n")[0], r.response))
    mix = [
        {
            "id": image,
            "image": f"coco/train2017/{int(image[5:]):012d}.jpg",
            "conversations": [
                {"from": speaker, "value": text}
                for k, (question, answer) in enumerate(asked)
                for speaker, text in (
                    ("human", "<image>\n" * (k == 0) + question + f"\n{WORD}" * (k == 0)),
                    ("gpt", answer),
                )
            ],
        }
        for image, asked in merged.items()
    ]
    free = {
        "id": "free",
        "image": mix[0]["image"],
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is unusual here?"},
            {"from": "gpt", "value": "Nothing is unusual about it."},
        ],
    }
    write_json(tmp_path / "data/llava/llava_v1_5_mix665k.json", [*mix, free])
    counts = build(BuildRecipe(name="r", sources=sources, clean=[]), tmp_path / "data", tmp_path / "both")
    row = counts["by_source"]["llava-mix665k"]
    assert (row["read"], row["kept"], row["duplicates"]) == (len(mix) + 1, 1, len(mix))
    assert counts["rounds"] == alone["rounds"] + 1
    kept = build(
        BuildRecipe(name="r", sources=sources, clean=[], layout="verbatim"), tmp_path / "data", tmp_path / "verbatim"
    )
    assert kept["by_source"]["llava-mix665k"]["duplicates"] == 0


def test_masks_give_way_to_questions_of_people_and_to_earlier_masks(tmp_path):
    from cocoift.conversation import read_conversations
    from cocoift.data.build.repeats import question_key

    make_world(tmp_path / "data", 40)
    counts = build(
        BuildRecipe(name="r", sources={name: {} for name in ("vqav2", "coco-instances")}, clean=[]),
        tmp_path / "data",
        tmp_path / "out",
    )
    asked = [
        (c.image, question_key(r.instruction.partition("\n")[0]), r.origin.source)
        for c in read_conversations(tmp_path / "out")
        for r in c.rounds
    ]
    theirs = {(image, key) for image, key, source in asked if source == "vqav2"}
    assert not [
        1
        for image, key, source in asked
        if source == "coco-instances" and not key.startswith("asks") and (image, key) in theirs
    ]
    assert all(
        row["read"] == sum(row[fate] for fate in ("kept", "duplicates", "excluded", "rejected", "capped"))
        for row in counts["by_source"].values()
    )
