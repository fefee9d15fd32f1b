"Data that models write: good and bad answers, a kill at any moment, commands that read a dataset, and a real server."

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

import labelled
import pyarrow.parquet as pq
import pytest
from mock_server import MockServer

from cocoift.conversation import read_conversations
from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.data.generate.jobs import WriteRecipe
from cocoift.data.generate.plan import open_base
from cocoift.data.generate.write import Service, write
from cocoift.data.inspect.audit import audit, tabulate
from cocoift.files import Failed, UserError
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.money import Price
from cocoift.scenes import SHAPE_NAMES
from cocoift.world import make_world

KINDS = {"sentence": 2, "detail": 1, "dialog": 1, "reasoning": 1, "paraphrase": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    "world/ of 10 images, and set/ built from it: captions, short and full answers, objects for reference."
    folder = tmp_path_factory.mktemp("written")
    make_world(folder / "world", 10)
    build(
        BuildRecipe(
            name="w",
            sources={"coco-captions": {}, "coco-instances": {"rounds": False}, "vqav2": {}, "fsvqa": {"cap": 20}},
            rounds=(3, 5),
            clean=[],
        ),
        folder / "world",
        folder / "set",
    )
    return folder


# ---------------------------------------------------------------- a model by script


def texts_of(body: dict) -> list[str]:  # the texts of all messages
    parts = [
        part for m in body["messages"] for part in ([m["content"]] if isinstance(m["content"], str) else m["content"])
    ]
    return [
        part if isinstance(part, str) else part["text"]
        for part in parts
        if isinstance(part, str) or part["type"] == "text"
    ]


def good(body: dict) -> str:
    "What a faithful model would write, from the notes in its prompt."
    system, asked, *_ = texts_of(body)
    captions = [line[2:] for line in asked.splitlines() if line.startswith("- ") and line.endswith(".")][:2]
    pairs = [line[2:].rpartition("? ")[::2] for line in asked.splitlines() if line.startswith("- ") and "? " in line]
    if "short answers" in system or "in one full sentence" in system:
        short = asked.rpartition("Short answer: ")[2].strip()
        return (
            f"{short.capitalize()}, that is what can be seen here."
            if short in ("yes", "no")
            else f"The right answer to that is {short}, as one can see."
        )
    if "describe photographs" in system:
        return " ".join(captions * 3)
    if "need thinking" in system:
        return json.dumps(
            {
                "question": "Why might someone have drawn this?",
                "answer": f"{captions[0]} It might have been drawn to teach children the names of colors. "
                "Nothing speaks for another purpose.",
            }
        )
    if "reword" in system:
        question, instruction = (
            asked.splitlines()[0].removeprefix("Question: "),
            "A single word or a short phrase, please.",
        )
        return json.dumps(
            {"question": f"Looking at it closely, {question[0].lower()}{question[1:]}", "instruction": instruction}
        )
    (q1, a1), (q2, a2) = pairs[0], pairs[1]
    form = {"yes": "yes_no", "no": "yes_no"}
    return json.dumps(
        {
            "rounds": [
                {"question": f"{q1}?", "format": form.get(a1, "number" if a1.isdecimal() else "short"), "answer": a1},
                {"question": "What does it show?", "format": "free", "answer": captions[0]},
                {"question": f"{q2}?", "format": form.get(a2, "number" if a2.isdecimal() else "short"), "answer": a2},
            ]
        }
    )


def author(body: dict) -> str:
    "A model with moods: half of its answers are good, and half of the others once it is told what is wrong."
    again, mood = divmod(crc32("".join(texts_of(body)[:2]).encode()), 10)
    if mood < 5 or len(texts_of(body)) > 2 and again % 2:
        return good(body)
    text = texts_of(body)[1]
    if mood == 5:
        return "I'm sorry, but I cannot see the image."
    if mood == 6:
        return "According to the captions there is something at [0.1, 0.2, 0.3, 0.4]."
    absent = next((shape for shape in SHAPE_NAMES if shape not in text), SHAPE_NAMES[0])
    return (
        f"There is a {absent} in the middle of it, and {absent}s are all around, as everybody can see at once; "
        f"it is a very fine {absent} in the light of the evening, drawn by a child."
        if mood == 7
        else "{"
    )


# ---------------------------------------------------------------- content


@pytest.fixture(scope="module")
def rewritten(home):
    server = MockServer(author)
    with server as url:
        done = write(
            "rewrite",
            home / "set",
            home / "rewritten",
            Service(url, "scribe", Price(input=1, output=2)),
            WriteRecipe(kinds=KINDS, json_schema=False),
        )
    return home / "rewritten", done, server


def rows(folder: Path) -> list[dict]:
    return [row for part in sorted((folder / "written").glob("*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_every_answer_has_a_verdict(rewritten):
    folder, done, server = rewritten
    written = rows(folder)
    assert done["written"] + done["rejected"] == len(written) == 60
    assert set(done["reasons"]) >= {"refusal", "leak", "malformed"} and set(done["reasons"]) & {
        "object",
        "answer",
        "length",
    }
    assert Counter(row["verdict"] for row in written if not row["kept"]) == done["reasons"]
    assert {row["kind"] for row in written if row["kept"]} == set(KINDS)
    assert all(row["tries"] == 2 for row in written if not row["kept"] and row["verdict"] != "duplicate") and any(
        row["tries"] == 2 and row["kept"] for row in written
    )
    assert (
        done["requests"] == server.counts["requests"] == sum(row["tries"] for row in written) - done["cached"]
        and done["usage"]["rewrite"]["answers"] == done["requests"]
    )
    assert done["cost"] == pytest.approx(
        (done["usage"]["rewrite"]["tokens_in"] + 2 * done["usage"]["rewrite"]["tokens_out"]) / 1e6
    )
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert {row["id"]: f"{row['verdict']}: {row['reason']}" for row in written if not row["kept"]} == {
        r["record"]: r["reason"] for r in rejects if r["source"] == "rewrite"
    }


@pytest.mark.parametrize("part", ["tuned", "held"])
def test_checks_against_texts_of_a_real_model(root, part):
    "Rejects are the texts that a person found bad; the lesson's table is this one."
    table = labelled.agreement(labelled.decisions(part))
    (right, rejected), (_, bad), (kept, good) = (table["all"][name] for name in ("precision", "recall", "good kept"))
    assert good >= 10 and bad >= 30
    assert right / rejected >= 0.9 and right / bad >= 0.8 and kept / good >= 0.8, table
    page = json.loads((root / "nbs/data/generate/14_checks.ipynb").read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in page["cells"])
    assert labelled.markdown(part) in text


def test_it_is_a_dataset_like_any_other(rewritten, home):
    folder, done, _ = rewritten
    conversations = list(read_conversations(folder))
    theirs = [r for c in conversations for r in c.rounds if r.origin.source == "rewrite"]
    prompts = {row["prompt"] for row in rows(folder)}
    assert len(theirs) == done["rounds"] and all(
        r.origin.model == "scribe"
        and r.origin.prompt in prompts
        and r.origin.record
        and "CC-BY-4.0" in r.origin.licence
        for r in theirs
    )
    measured = audit(conversations)
    table = tabulate(conversations)
    free = table[(table.number > 1) & (table.format == "free") & table.after_terse]
    # undefined where no free round stands before a terse request
    assert len(free) > 5 and not free.terse.any() and abs(measured["carry_over"]["value"] or 0) <= 0.05
    assert measured["by_source"]["rewrite"]["obedience"] == 1.0 and measured["bare_terse"] < 0.05
    mixed = [c for c in conversations if {"rewrite", "vqav2"} <= {r.origin.source for r in c.rounds}]
    assert mixed, "written rounds stand among the others"
    manifest = json.loads((folder / "manifest.json").read_text())
    for row in manifest["counts"]["by_source"].values():
        assert row["read"] == sum(row[fate] for fate in ("kept", "duplicates", "excluded", "rejected", "capped"))
    assert manifest["counts"]["rounds"] == sum(len(c.rounds) for c in conversations) and manifest["counts"][
        "conversations"
    ] == len(conversations)
    old = {
        (r.origin.source, r.origin.record, r.instruction, r.response)
        for c in read_conversations(home / "set")
        for r in c.rounds
    }
    assert old == {
        (r.origin.source, r.origin.record, r.instruction, r.response)
        for c in conversations
        for r in c.rounds
        if r.origin.source != "rewrite"
    }


def test_what_is_kept_with_its_verdict(home):
    with MockServer(author) as url:
        done = write(
            "rewrite",
            home / "set",
            home / "kept",
            Service(url, "scribe"),
            WriteRecipe(kinds={"sentence": 2}, verdicts="keep"),
        )
    kept = [row for row in rows(home / "kept") if row["kept"]]
    assert (
        done["rejected"] == done["reasons"].get("duplicate", 0)
        and "ok" in (verdicts := {row["verdict"] for row in kept})
        and len(verdicts) > 2
        and all(row["tries"] == 1 for row in kept)
    )


def test_one_record_more_is_one_answer_more(home):
    server, plan = MockServer(good), WriteRecipe(kinds={"sentence": 1}, verdicts="keep")
    with server as url:
        service = Service(url, "scribe", cache=home / "shared.sqlite")
        write("rewrite", home / "set", home / "one", service, plan)
        assert server.counts["answers"] == 10
        done = write(
            "rewrite",
            home / "set",
            home / "two",
            service,
            plan.model_copy(update={"kinds": {"sentence": 1, "detail": 1}}),
        )
    assert (server.counts["answers"], done["requests"], done["cached"]) == (20, 10, 10)


def test_both_ways_one_after_the_other(rewritten, home, typed):
    "Rewritten, then labelled; exported for LLaVA."
    server = MockServer(good, bodies=[])
    with server as url:
        done = write(
            "label",
            home / "rewritten",
            home / "full",
            Service(url, "seer"),
            WriteRecipe(kinds={"detail": 1, "dialog": 0.5}, longest=32),
            images=home / "world",
        )
    shown = [
        part["image_url"]["url"]
        for body in server.bodies
        for m in body["messages"]
        if isinstance(m["content"], list)
        for part in m["content"]
        if part["type"] == "image_url"
    ]
    assert len(shown) == len(server.bodies) and all(url.startswith("data:image/") for url in shown)
    sources = Counter(r.origin.source for c in read_conversations(home / "full") for r in c.rounds)
    assert sources["label"] == done["rounds"] > 0 and sources["rewrite"] == rewritten[1]["rounds"]
    assert {r.origin.model for c in read_conversations(home / "full") for r in c.rounds} == {"", "scribe", "seer"}
    exported = typed("export", home / "full", "--to", "llava", "--out", home / "llava.json", "--json")
    assert exported.returncode == 0, exported.stderr
    assert (
        "written by seer" in (home / "README.md").read_text()
        and "written by scribe" in (home / "full/README.md").read_text()
    )


# ---------------------------------------------------------------- killed


def same(a: Path, b: Path) -> bool:
    files = {path.relative_to(a) for path in a.rglob("*") if path.is_file()}
    return files == {path.relative_to(b) for path in b.rglob("*") if path.is_file()} and all(
        (a / f).read_bytes() == (b / f).read_bytes() for f in files
    )


def test_killed_and_run_again(home, tmp_path):
    "Killed with -9 at two moments: what was stored is never asked again, and the bytes are those of a run in peace."
    server = MockServer(author, latency=0.05)
    options = ["kinds=" + json.dumps(KINDS), "json_schema=false"]
    (tmp_path / "prices.yaml").write_text("scribe: {input: 1, output: 2}\n")
    with server as url:
        command = [
            Path(sys.executable).with_name("cocoift"),
            "rewrite",
            home / "set",
            *options,
            "--endpoint",
            url,
            "--model",
            "scribe",
            "--out",
            tmp_path / "new",
            "--price",
            tmp_path / "prices.yaml",
            "--concurrency",
            "3",
            "--json",
        ]
        for stop in (random.randint(5, 20), random.randint(30, 60)):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while server.counts["answers"] < stop and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.2)
            assert not (tmp_path / "new").exists()
            stored, answered = count(tmp_path / "answers.sqlite"), server.counts["answers"]
            assert answered - stored <= 6, "at most those under way, of both starts"
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert server.counts["answers"] - answered == count(tmp_path / "answers.sqlite") - stored == done["requests"]
        server.latency = 0.0
        peace = write(
            "rewrite",
            home / "set",
            tmp_path / "peace/new",
            Service(url, "scribe", Price(input=1, output=2)),
            WriteRecipe(kinds=KINDS, json_schema=False),
        )
    assert same(tmp_path / "new", tmp_path / "peace/new") and {key: done[key] for key in ("written", "total")} == {
        key: peace[key] for key in ("written", "total")
    }


def test_two_that_write_the_same_folder(home, tmp_path):
    "The second is told so at once, and asks nothing; the first one's folder is whole."
    server, plan, asked = MockServer(good, latency=0.1), WriteRecipe(kinds={"sentence": 1}, verdicts="keep"), []
    with server as url:

        def go() -> dict:
            return write("rewrite", home / "set", tmp_path / "new", Service(url, "scribe", concurrency=2), plan)

        first = threading.Thread(target=lambda: asked.append(go()))
        first.start()
        while not server.counts["requests"]:
            time.sleep(0.01)
        with pytest.raises(UserError, match="new: is being written by another process: wait for it or stop it"):
            go()
        first.join()
        assert server.counts["answers"] == asked[0]["requests"] == 10 and go()["written"] == asked[0]["written"]
    assert not list(tmp_path.glob(".new*"))


def count(path: Path) -> int:
    cache = Cache(path)
    found = cache.db.execute("SELECT count(*) FROM answers").fetchone()[0]
    cache.close()
    return found


def test_a_budget_holds_over_starts(home, tmp_path):
    server, plan = MockServer(good), WriteRecipe(kinds={"sentence": 2}, verdicts="keep")
    with server as url:

        def go(budget):
            return write(
                "rewrite",
                home / "set",
                tmp_path / "new",
                Service(url, "scribe", Price(input=100, output=100), budget, 2),
                plan,
            )

        told = write(
            "rewrite",
            home / "set",
            tmp_path / "new",
            Service(url, "scribe", Price(input=100, output=100)),
            plan,
            dry_run=True,
        )
        assert (told["requests"], told["cached"], server.counts["requests"]) == (20, 0, 0) and told["cost"] > 0
        for _ in range(2):
            with pytest.raises(Failed, match="--budget"):
                go(told["cost"] / 4)
        assert 0 < server.counts["answers"] < 20 and not (tmp_path / "new").exists()
        assert go(None)["cost"] <= told["cost"] and server.counts["answers"] == 20


# ---------------------------------------------------------------- bad input


def test_what_can_be_mended_is_said(home, tmp_path, typed):
    with pytest.raises(UserError, match="kinds: 'poem' is no kind"):
        raise_of(
            typed(
                "rewrite",
                home / "set",
                "kinds={poem: 1}",
                "--endpoint",
                "http://localhost:9/v1",
                "--model",
                "m",
                "--out",
                tmp_path / "x",
            )
        )
    with pytest.raises(UserError, match="no server answers there"):
        write(
            "rewrite",
            home / "set",
            tmp_path / "x",
            Service("http://127.0.0.1:9/v1", "m"),
            WriteRecipe(kinds={"sentence": 1}),
        )
    with pytest.raises(UserError, match="--images: a model that labels must see"):
        write(
            "label",
            home / "set",
            tmp_path / "x",
            Service("http://127.0.0.1:9/v1", "m"),
            WriteRecipe(kinds={"sentence": 1}),
        )
    make_world(tmp_path / "others", 2, first=500)
    with pytest.raises(UserError, match="10 images have no picture"):
        write(
            "label",
            home / "set",
            tmp_path / "x",
            Service("http://127.0.0.1:9/v1", "m"),
            WriteRecipe(kinds={"detail": 1}),
            images=tmp_path / "others",
        )
    with pytest.raises(UserError, match="OPENAI_API_KEY: is not set"):
        write(
            "rewrite",
            home / "set",
            tmp_path / "x",
            Service("https://models.example/v1", "m"),
            WriteRecipe(kinds={"sentence": 1}),
        )
    with pytest.raises(UserError, match="is no dataset folder with records"):
        open_base(tmp_path, "rewrite")
    assert not (tmp_path / "x").exists()


def raise_of(done) -> None:
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    raise UserError(done.stderr)


# ---------------------------------------------------------------- a real server


def test_the_world_is_labelled_by_a_local_model(served, small, typed, tmp_path):
    "Through `transformers serve`: single questions and dialogs of several rounds, with the picture; no key, no price."
    # it talks word salad
    wanted = {
        "kinds": {"sentence": 1, "detail": 0.5, "dialog": 0.5},
        "images": 6,
        "prompts": "plain",
        "context": False,
        "verdicts": {"no_answer": "reject"}
        | dict.fromkeys(("answer", "empty", "language", "length", "format"), "keep"),
    }
    done = typed(
        "label",
        small / "set",
        *(f"{name}={json.dumps(value)}" for name, value in wanted.items()),
        "--images",
        small / "world",
        "--endpoint",
        served.url,
        "--model",
        served.model,
        "--out",
        tmp_path / "labelled",
        "--concurrency",
        "4",
        "--json",
        env=os.environ | {"OPENAI_API_KEY": ""},
    )
    assert done.returncode == 0, done.stderr
    told, written = json.loads(done.stdout), rows(tmp_path / "labelled")
    assert (
        told["written"] + told["rejected"] == len(written) >= 8
        and told["written"] > 0
        and told["reasons"].get("no_answer", 0) == 0
    )
    talks = [row for row in written if row["kind"] == "dialog" and row["kept"]]
    assert (
        talks
        and {len(row["rounds"]) for row in talks} <= {2, 3, 4}
        and len({row["rounds"][0]["answer"] for row in written if row["rounds"]}) > 3
    )
    labelled = [r for c in read_conversations(tmp_path / "labelled") for r in c.rounds if r.origin.source == "label"]
    assert len(labelled) == told["rounds"] and {r.origin.model for r in labelled} == {str(served.model)}
    again = write(
        "label",
        small / "set",
        tmp_path / "again",
        Service(served.url, str(served.model), cache=tmp_path / "answers.sqlite"),
        WriteRecipe(**wanted),
        images=small / "world",
    )
    assert again["requests"] == 0 and same(tmp_path / "labelled", tmp_path / "again")
