"Repair: what it mends, what it leaves to the letter, and how well stated formats are found in foreign data."

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from cocoift.data.inspect.repair import repair
from cocoift.files import UserError
from cocoift.instructions import governed, split_instruction, stated_format

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def record(id, image, *turns, **more) -> dict:
    told = [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(turns)]
    return {"id": id, **({"image": image} if image else {}), "conversations": told, **more}


def written(path: Path, records: list, **options) -> Path:
    path.write_text(json.dumps(records, **options), encoding="utf-8")
    return path


def asked(record: dict) -> list[str]:
    return [turn["value"] for turn in record["conversations"][::2]]


def said(record: dict) -> list[str]:
    return [turn["value"].replace("<image>", "").strip() for turn in record["conversations"]]


def rounds(records: list[dict]) -> Counter:
    "Every round of a file, without what repair adds and moves."
    plain = [(r.get("image"), [text.replace(f"\n{WORD}", "") for text in said(r)]) for r in records]
    return Counter((image, *pair) for image, turns in plain for pair in zip(turns[::2], turns[1::2]))


@pytest.fixture(scope="module")
def quotes(shared) -> Path:
    return shared / "data/sources/llava/documented_examples_llava_v1_5_mix665k.json"


def test_quotes(quotes, tmp_path):
    done = repair(quotes, tmp_path / "out.json")
    before, after = (json.loads(path.read_text()) for path in (quotes, tmp_path / "out.json"))
    assert len(after) == 9 and after[:7] == before[:7]
    assert asked(after[7]) == [asked(before[7])[0], f"Does the man wear shorts?\n{WORD}"]
    assert asked(after[8]) == [
        asked(before[8])[0],
        f"What is the title of this book?\n{WORD}",
        f"What type of book is this?\n{WORD}",
    ]
    assert len(after[8]["conversations"][3]["value"].split()) == 17  # and that did not matter
    assert (tmp_path / "out.json").read_text().replace(f'?\\n{WORD}"', '?"') == quotes.read_text().replace(
        f'?\\n{WORD}"', '?"'
    )
    assert {key: done[key] for key in ("repaired", "stated", "moved", "left")} == {
        "repaired": 2,
        "stated": 3,
        "moved": 0,
        "left": 0,
    }
    assert done["before"]["carry_over"]["value"] > 0.5 and done["after"]["carry_over"]["value"] is None
    assert done["before"]["bare_terse"] > 0 and done["after"]["bare_terse"] == 0


def test_command(typed, quotes, tmp_path):
    done = typed("repair", quotes, tmp_path / "out.json", "--interleave", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (
        told["before"]["carry_over"]["value"] > 0.5
        and told["after"]["carry_over"]["value"] is None
        and told["repaired"] == 2
    )
    assert "undefined" in typed("repair", quotes, tmp_path / "out.json").stdout
    torn = tmp_path / "torn.json"
    torn.write_text(quotes.read_text()[:5000])
    done = typed("repair", torn, tmp_path / "never.json")
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and "torn.json: ends in the middle of record 6" in done.stderr
    )
    assert not (tmp_path / "never.json").exists()


FAULTLESS = {
    "free": record(
        "1",
        "coco/train2017/000000000001.jpg",
        "What is here?\n<image>",
        "A pier at dawn.",
        "Is it calm?",
        "It is very calm.",
    ),
    "one round": record(2, "gqa/images/2.jpg", f"<image>\nIs it red?\n{WORD}", "No"),
    "every round": record("3", "gqa/images/3.jpg", f"<image>\nIs it red?\n{WORD}", "No", f"Is it blue?\n{WORD}", "Yes"),
    "round by round": record(
        "4",
        "vg/VG_100K/4.jpg",
        f"<image>\nIs it red?\n{WORD}",
        "No",
        "What is unusual here?",
        "A dog drives the bus.",
        f"Is it big?\n{WORD}",
        "Yes",
    ),
    "regions": record(
        "5",
        "vg/VG_100K/5.jpg",
        "<image>\nPlease provide a short description for this region: [0.04, 0.57, 0.63, 0.71].",
        "red bus",
        "Please provide the bounding box coordinate of the region this sentence describes: brown car.",
        "[0.53, 0.57, 0.6, 0.7]",
        "Please provide a short description for this region: [0.1, 0.2, 0.3, 0.4].",
        "dog",
    ),
    "textcaps": record(
        "6",
        "textvqa/train_images/6.jpg",
        "<image>\nProvide a one-sentence caption for the provided image.\nReference OCR token: ROUTE, 66",
        "A sign of route 66.",
    ),
    "sharegpt": {
        "id": "7",
        "model": "",
        "conversations": [
            {"from": "human", "value": "Is it safe? Answer in one word."},
            {"from": "gpt", "value": "Yes", "text": "x", "markdown": {}},
            {"from": "human", "value": "Tell me more."},
            {"from": "gpt", "value": "It has been inspected every year."},
        ],
    },
    "said to last": record(
        "8", "a/8.jpg", "<image>\nIs it red? From now on answer in one word.", "No", "What is it?", "Bus"
    ),
    "said of each": record(
        "8", "a/8.jpg", "<image>\nIs it red? Answer each question in one word.", "No", "What is it?", "Bus"
    ),
    "not to be obeyed": record(
        "9", "a/9.jpg", "<image>\nIs it red? Answer yes or no.", "No", "What is unusual here?", "A dog drives the bus."
    ),
    "second round": record(
        "9",
        "a/9.jpg",
        "<image>\nWhat is here?",
        "A pier at dawn.",
        f"Is it safe?\n{WORD}",
        "Yes",
        "What is unusual?",
        "Nothing is unusual about it.",
    ),
}
FAULTY = {
    "gqa": (
        record(1, "gqa/images/1.jpg", f"<image>\nIs it red?\n{WORD}", "No", "Is it blue? ", "Yes"),
        [f"Is it blue? \n{WORD}"],
    ),
    "image last": (
        record("2", "coco/train2017/000000000002.jpg", f"Is it red?\n{WORD}\n<image>", "No", "Who is it?", "Bob"),
        [f"Who is it?\n{WORD}"],
    ),
    "a-okvqa": (
        record(
            "3",
            "coco/train2017/000000000003.jpg",
            f"<image>\nWhere?\nA. here\nB. there\n{LETTER}",
            "A",
            "Who?\nA. he\nB. she",
            "B",
        ),
        [f"Who?\nA. he\nB. she\n{LETTER}"],
    ),
    "one line": (
        record(
            "4",
            "coco/train2017/000000000004.jpg",
            "<image>\nHow many dogs? Answer the question with a number.",
            "2",
            "How many cats?",
            "3",
        ),
        ["How many cats? Answer the question with a number."],
    ),
    "a task between": (
        record(
            "5",
            "vg/VG_100K/5.jpg",
            f"<image>\nIs it red?\n{WORD}",
            "No",
            "Describe the image in detail.",
            "It is a red bus on a road.",
            "Who is it?",
            "Bob",
        ),
        ["Describe the image in detail.", f"Who is it?\n{WORD}"],
    ),
    "chinese": (
        record("6", "a/6.jpg", "<image>\n这是什么颜色？请用一个词回答。", "白色", "这是什么？", "羊"),
        ["这是什么？请用一个词回答。"],
    ),
    "in front": (
        record(
            "7", "a/7.jpg", "<image>\nIn a word or a short phrase: Where is it?", "On the sofa", "Who is it?", "Bob"
        ),
        ["In a word or a short phrase: Who is it?"],
    ),
}


def restated(faulty: dict, later: list[str]) -> dict:
    "A record whose user says something else from the second turn on."
    told = iter([asked(faulty)[0], *later])
    return faulty | {
        "conversations": [
            turn | {"value": next(told)} if turn["from"] == "human" else turn for turn in faulty["conversations"]
        ]
    }


@pytest.mark.parametrize(
    "options",
    [dict(indent=2), dict(ensure_ascii=False, separators=(",", ":")), dict(indent="\t", ensure_ascii=False)],
    ids=["pretty", "tight", "tabs"],
)
def test_to_the_letter(tmp_path, options):
    "Faultless records and all that stands between records is copied; faulty ones only gain their instruction."
    records = [r for pair in zip(FAULTLESS.values(), [faulty for faulty, _ in FAULTY.values()]) for r in pair] + list(
        FAULTLESS.values()
    )[len(FAULTY) :]

    def as_file(some: list) -> bytes:
        return json.dumps(some, **options).replace("\n", "\r\n").encode() + b" \n"

    (tmp_path / "in.json").write_bytes(as_file(records))
    done = repair(tmp_path / "in.json", tmp_path / "out.json")
    assert done["repaired"] == len(FAULTY) and done["stated"] == len(FAULTY)
    expected = [next((restated(r, later) for faulty, later in FAULTY.values() if faulty == r), r) for r in records]
    assert (tmp_path / "out.json").read_bytes() == as_file(expected)


def test_the_record_as_it_was_written(tmp_path):
    "Escapes, numbers, doubled keys and spaces that no JSON writer would write again."
    own = (
        '{ "id" : 1.50, "note":"caf\\u00e9 \\/ é", "n": 1E2, "n": 2,"image":"a\\/1.jpg" ,"conversations":[ '
        '{"value":"<image>\\nIs it \\u0022red\\u0022?\\nIn a word.", "from":"human"},'
        '{"from":"gpt","value":"No","text":null},{"from":"human","value":"Who\\u003f", "weight":0.10},'
        '{"from":"gpt","value":"Bob"}]}'
    )
    (tmp_path / "in.json").write_text(
        f'[{own}\n ,{{"id":"2" ,"conversations":[{{"from":"human","value":"Hi"}},'
        f'{{"from":"gpt","value":"Hello to you too."}}]}}]',
        encoding="utf-8",
    )
    repair(tmp_path / "in.json", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == (tmp_path / "in.json").read_text(
        encoding="utf-8"
    ).replace("Who\\u003f", "Who\\u003f\\nIn a word.")


def test_messages(tmp_path):
    def message(*turns):
        return [{"role": role, "content": content} for role, content in turns]

    rows = [
        {
            "id": "1",
            "images": ["gqa/images/1.jpg"],
            "messages": message(
                ("system", "Be kind."),
                ("user", f"Is it red?\n{WORD}"),
                ("assistant", "No"),
                ("user", "Is it blue?"),
                ("assistant", "Yes"),
            ),
        },
        {"images": ["gqa/images/2.jpg"], "messages": message(("user", "What is it?"), ("assistant", "It is a bus."))},
        {
            "images": ["gqa/images/3.jpg", "gqa/images/4.jpg"],
            "messages": message(
                ("user", [{"type": "image"}, {"type": "text", "text": f"Is it red?\n{WORD}"}]),
                ("assistant", [{"type": "text", "text": "No"}]),
                ("user", [{"type": "text", "text": "Is it blue?"}, {"type": "image"}]),
                ("assistant", [{"type": "text", "text": "Yes"}]),
            ),
        },
    ]
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))  # with no line end behind the last
    assert repair(path, out)["stated"] == 2
    assert out.read_text() == path.read_text().replace("Is it blue?", f"Is it blue?\\n{WORD}")


def mix(size: int) -> list[dict]:
    "Like LLaVA's mix: for each COCO picture a merged conversation, mostly a free one too, and what else there is."
    draws, records, length = random.Random(size), [], 0
    while length < size:
        number = len(records)
        image = f"coco/train2017/{number:012d}.jpg"
        questions = [f"What is number {k} of {draws.random():.6f}?" for k in range(draws.randint(2, 8))]
        new = [
            record(
                f"{number:012d}",
                image,
                *(text for k, q in enumerate(questions) for text in (f"<image>\n{q}\n{WORD}" if k == 0 else q, "Bus")),
            )
        ]
        for free in "abc"[: draws.randint(0, 3)]:
            new.append(
                record(
                    f"{number:012d}",
                    image,
                    *(
                        text
                        for k in range(draws.randint(1, 3))
                        for text in (
                            f"Why {free}?{'' if k else chr(10) + '<image>'} {k}",
                            f"Because {number} is {free}{k}, " + "and so on " * draws.randint(5, 40),
                        )
                    ),
                )
            )
        new.append(
            record(
                "sg", None, f"Tell me about {number}. Answer in one word.", "No.", "And now?", "Well, " * 30, model=""
            )
        )
        records += new
        length += sum(len(json.dumps(r)) for r in new)
    return records


def peak(path: Path, out: Path) -> float:
    "MB that a process takes at most, to repair and interleave a file without the two audits."
    code = (
        "import sys; from pathlib import Path; from cocoift.files import peak_mb; "
        "from cocoift.data.inspect.repair import _pairs, _survey, _write\n"
        "path, out = map(Path, sys.argv[1:3]); seen = _survey(path); _write(path, out, seen, _pairs(seen, 0), 0)\n"
        "print(peak_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code, path, out], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    written(folder / "small.json", mix(1 << 19))
    written(folder / "medium.json", mix(1 << 20))
    return written(folder / "large.json", mix(15 << 20))


@pytest.mark.slow
def test_memory_is_flat(large, tmp_path):
    small = large.with_name("small.json")
    assert large.stat().st_size > 15e6 > 10 * small.stat().st_size
    grown = peak(large, tmp_path / "out.json") - peak(small, tmp_path / "out.json")
    assert grown < 10, f"{grown:.1f} MB more for 15 MB more"  # json.load alone takes 50


def test_killed(large, tmp_path):
    medium = large.with_name("medium.json")

    def command(out: Path) -> list[str]:
        return [
            sys.executable,
            "-c",
            "from cocoift.data.inspect.repair import repair; "
            f"repair({str(medium)!r}, {str(out)!r}, interleave=True, seed=3)",
        ]

    subprocess.run(command(tmp_path / "whole.json"), check=True)
    out, partial = tmp_path / "killed.json", tmp_path / ".killed.json.partial"
    with subprocess.Popen(command(out), start_new_session=True) as process:
        while not (partial.exists() and partial.stat().st_size > 1 << 18) and process.poll() is None:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not out.exists() and partial.exists()
    subprocess.run(command(out), check=True)
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes() and not partial.exists()


GOOD = FAULTLESS["free"]


@pytest.mark.parametrize(
    "bad, told",
    [
        ('[{0}, {{"id": "2"}}]', "record 2: .* is not an object with conversations"),
        ("[{0}, 7]", "record 2: 7 is not an object"),
        ('[{0}, {{"id": "2", "conversations": []}}]', "record 2: conversations: a list of turns is needed"),
        (
            '[{0}, {{"id": "2", "conversations": [{{"from": "human", "value": "Hi"}}]}}]',
            "record 2: conversations: turns must be human, gpt",
        ),
        (
            '[{0}, {{"id": "2", "conversations": [{{"from": "human", "value": null}}, '
            '{{"from": "gpt", "value": "x"}}]}}]',
            "record 2: conversations: turn 1: value: a text is needed",
        ),
        ('[{0}, {{"id": "2", "conver', "ends in the middle of record 2"),
        ('[{0}, {{"id": nil}}]', "not JSON at record 2"),
        ("[{0}] []", "is not JSON"),
        ('{{\n"data": [{0}]}}', "."),
        ("[]", "."),
        ("", "."),
    ],
)
def test_bad_records(tmp_path, bad, told):
    (tmp_path / "in.json").write_text(bad.format(json.dumps(GOOD)))
    with pytest.raises(UserError, match=f"in.json: .*{told}"):
        repair(tmp_path / "in.json", tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_bad_lines(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(GOOD) + '\n{"id": \n')
    with pytest.raises(UserError, match="in.jsonl: line 2 is not JSON"):
        repair(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_interleave(large, tmp_path):
    small = large.with_name("small.json")
    done = {seed: repair(small, tmp_path / f"{seed}.json", interleave=True, seed=seed) for seed in (0, 1)}
    before, after = (json.loads(path.read_bytes()) for path in (small, tmp_path / "0.json"))
    assert rounds(after) == rounds(before)  # nothing lost, nothing doubled
    assert done[0]["after"]["switches"] > done[0]["before"]["switches"] + 0.2 and done[0]["after"]["bare_terse"] == 0
    whole = {(r["image"], *said(r)): r for r in before if r.get("image") and WORD not in said(r)[0]}
    hosts = []
    for now in after:  # what moved stands in its own order, about its own picture, neither first nor last
        guests = (
            [text for pair in zip(said(now)[::2], said(now)[1::2]) if "Because" in pair[1] for text in pair]
            if WORD in said(now)[0]
            else []
        )
        if guests:
            hosts.append(whole.pop((now["image"], *guests)))
            assert WORD in asked(now)[-1] and [("<image>" in text) for text in asked(now)] == [True] + [False] * (
                len(asked(now)) - 1
            )
    assert len(hosts) == done[0]["moved"] > 100
    assert [said(r)[0] for r in after] == [said(r)[0] for r in before if r not in hosts]  # and the others in theirs

    assert repair(small, tmp_path / "again.json", interleave=True, seed=0) == done[0]
    assert (
        (tmp_path / "again.json").read_bytes()
        == (tmp_path / "0.json").read_bytes()
        != (tmp_path / "1.json").read_bytes()
    )
    for interleave in True, False:  # what was repaired is repaired
        repair(tmp_path / "0.json", tmp_path / "twice.json", interleave)
        assert (tmp_path / "twice.json").read_bytes() == (tmp_path / "0.json").read_bytes()


def test_interleaved_lines(tmp_path):
    rows = [
        FAULTLESS["free"],
        record("1", "coco/train2017/000000000001.jpg", f"<image>\nIs it red?\n{WORD}", "No", "Is it blue?", "Yes"),
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert repair(tmp_path / "in.jsonl", tmp_path / "out.jsonl", interleave=True)["moved"] == 1
    [line] = (tmp_path / "out.jsonl").read_text().splitlines()
    assert asked(json.loads(line)) == [
        f"<image>\nIs it red?\n{WORD}",
        "What is here?",
        "Is it calm?",
        f"Is it blue?\n{WORD}",
    ]


def test_layouts(tmp_path):
    """The baseline's layout of our own records becomes the one that states formats on every round; a good layout stays
    as it is."""
    from cocoift.data.build.export import export
    from cocoift.data.build.make import BuildRecipe, build
    from cocoift.options import load_recipe
    from cocoift.world import make_world

    make_world(tmp_path / "world", 60)
    for layout in "first-uniform", "every-uniform", "every-mixed":
        build(
            load_recipe("world", BuildRecipe).model_copy(update={"layout": layout}),
            tmp_path / "world",
            tmp_path / layout,
        )
        export(tmp_path / layout, "llava", tmp_path / f"{layout}.json")
        repair(tmp_path / f"{layout}.json", tmp_path / f"repaired-{layout}.json")
    told = {
        name: json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("repaired-first-uniform", "every-uniform", "first-uniform")
    }
    assert (
        [r["conversations"] for r in told["repaired-first-uniform"]]
        == [r["conversations"] for r in told["every-uniform"]]
        != [r["conversations"] for r in told["first-uniform"]]
    )
    for layout in "every-uniform", "every-mixed":
        assert (tmp_path / f"repaired-{layout}.json").read_bytes() == (tmp_path / f"{layout}.json").read_bytes()


def test_governed_reads_no_answers():
    "The rule is given the user's turns and nothing else."
    told = governed([f"<image>\nWho is the author of this book?\n{WORD}", "What is the title of this book?"])
    assert [(g.asked.question, g.asked.instruction, g.format, g.stated) for g in told] == [
        ("Who is the author of this book?", WORD, "short", True),
        ("What is the title of this book?", WORD, "short", False),
    ]


@pytest.fixture(scope="module")
def labelled(shared) -> list[tuple[str, str, dict]]:
    "Rounds labelled by hand, read where they lie: label, what is detected, the entry."
    files, found = {}, []
    for line in (Path(__file__).parent / "labels/formats.jsonl").read_text().splitlines():
        entry = json.loads(line)
        path = shared / "data" / entry["file"]
        if path not in files:
            text = path.read_text(encoding="utf-8")
            try:
                files[path] = text.split("\n") if path.suffix == ".txt" else json.loads(text)
            except json.JSONDecodeError:
                files[path] = [json.loads(line) for line in text.split("\n") if line.strip()]
        text = files[path]
        for key in entry["at"]:
            text = text[key]
        assert sha256(text.encode()).hexdigest()[:8] == entry["sha"], (
            f"{entry['file']} {entry['at']}: is no longer the text that was labelled"
        )
        found.append((entry["label"], stated_format(text), entry))
    return found


def shares(labelled: list, part: str, kind: str) -> tuple[str, str]:
    """Precision and recall, as counts; kind `any` is whether some format is stated, and any number is told apart in the
    others."""

    def named(format: str) -> bool:
        return format != "free" if kind == "any" else format.partition(":")[0] == kind

    of = [(label, got) for label, got, entry in labelled if entry["part"] == part]
    right = sum(named(label) and named(got) and (kind == "any" or label == got) for label, got in of)
    return f"{right}/{sum(named(got) for _, got in of)}", f"{right}/{sum(named(label) for label, _ in of)}"


def test_our_own_wordings_are_read():
    "What we write into other people's files we can read there, and take off again."
    from cocoift.data.build.wordings import CHINESE, INSTRUCTIONS, in_numbers

    question, choices, chinese = (
        "What do you see on the left of the man?",
        "What is he holding?\nA. a bat\nB. a ball",
        "图片里有什么？",
    )
    unread, kept = [], []
    for table, asking in (INSTRUCTIONS, question), (CHINESE, chinese):
        for format, wordings in table.items():
            kind, _, counted = format.partition(":")
            asking = choices if kind.startswith("option") else chinese if asking is chinese else question
            for wording in wordings:
                text = wording.replace("{n}", in_numbers(kind, 4)).replace("{}", asking)
                unread += [text] if stated_format(text) != (f"{kind}:4" if counted else kind) else []
                kept += (
                    [text]
                    if kind not in ("free", "list", "json", "box", "paragraph")
                    and split_instruction(text).question != asking
                    else []
                )
    assert not unread and not kept


def test_stated_formats_are_found(labelled, root):
    assert len(labelled) == 300 and len({(entry["file"], json.dumps(entry["at"])) for *_, entry in labelled}) == 300
    assert Counter(entry["part"] for *_, entry in labelled) == {"tuned": 200, "held": 100}
    notebook = "".join(
        line
        for cell in json.loads((root / "nbs/12_instructions.ipynb").read_text())["cells"]
        for line in cell["source"]
    )
    for part in "tuned", "held":
        precision, recall = (eval(share) for share in shares(labelled, part, "any"))
        assert precision >= 0.95 and recall >= 0.9, part
    kinds = ["any", *sorted({label.partition(":")[0] for label, *_ in labelled})]
    rows = [[kind, *shares(labelled, "tuned", kind), *shares(labelled, "held", kind)] for kind in kinds]
    table = [f"| {' | '.join(row)} |" for row in rows]
    assert not [row for row in table if row not in notebook], "the notebook tells other figures"
