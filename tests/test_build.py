"A build at any scale: killed, cut, contradicted, leaked into; the same bytes and sums that add up."

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cocoift.conversation import read_conversations
from cocoift.data.build.recipe import DEFAULT_BLOCKLISTS
from cocoift.formats import keeps
from cocoift.world import make_world

COCOIFT = Path(sys.executable).with_name("cocoift")
RECIPE = [
    "build",
    "world",
    "sources=[coco-captions, coco-instances, vqav2, fsvqa]",
    "--jobs",
    "2",
    "--data",
    "world",
    "--out",
]
ANNOTATIONS, QUESTIONS = (
    "world/vqav2/v2_mscoco_train2014_annotations.json",
    "world/vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(cocoift, tmp_path_factory) -> tuple[Path, float]:
    "A folder with world/ and what an undisturbed build made of it, set/; the seconds that it took."
    folder = tmp_path_factory.mktemp("whole")
    make_world(folder / "world", 400)
    began = time.monotonic()
    done = cocoift(*RECIPE, "set", cwd=folder)
    assert done.returncode == 0 and "leaked" not in done.stderr, done.stderr  # what DuckDB says of a hasty end
    return folder, time.monotonic() - began


@pytest.fixture(scope="module")
def whole(undisturbed) -> Path:
    return undisturbed[0]


@pytest.fixture
def here(whole, tmp_path) -> Path:
    "A copy of the world, to spoil."
    shutil.copytree(whole / "world", tmp_path / "world")
    return tmp_path


def told(typed, folder: Path, *args) -> dict:
    done = typed("build", *args, "--data", "world", "--out", "set", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(typed, folder: Path, *args) -> str:
    before = contents(folder)
    done = typed("build", *args, "--data", "world", "--out", "set", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert contents(folder) == before and not [path for path in folder.iterdir() if "set" in path.name]
    return done.stderr


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# Killed


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random(undisturbed, here, seed):
    draw, kills, (whole, seconds) = random.Random(seed), 0, undisturbed
    while True:
        with subprocess.Popen(
            [COCOIFT, *RECIPE, "set"],
            cwd=here,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                process.wait(draw.uniform(0.05, 0.8) * seconds * (1 + kills))  # later and later, or it would never end
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                assert not (here / "set").exists() or contents(here / "set") == contents(whole / "set")
                continue
        assert process.returncode == 0
        if kills:
            break
        shutil.rmtree(here / "set")  # it was faster than the first
        seconds /= 2
    assert contents(here / "set") == contents(whole / "set")
    assert {path.name for path in here.iterdir()} == {"world", "set"}


def test_a_process_is_killed(whole, here):
    "For want of memory, say: the build says so, and goes on where it stopped."
    with subprocess.Popen(
        [COCOIFT, *RECIPE, "set"], cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        workers = []
        while not workers and process.poll() is None:
            workers = [
                p
                for p in psutil.Process(process.pid).children(recursive=True)
                if (here / ".set.partial/plan.json").exists() and p.memory_info().rss > 40e6
            ]
            time.sleep(0.01)
        workers[-1].kill()
        said = process.communicate()[1]
    assert process.returncode == 1 and "goes on where it stopped" in said.splitlines()[-1], said
    assert subprocess.run([COCOIFT, *RECIPE, "set"], cwd=here, capture_output=True).returncode == 0
    assert contents(here / "set") == contents(whole / "set")


def test_processes_and_order_decide_nothing(cocoift, whole, here):
    shutil.move(here / "world/vqav2", here / "world/elsewhere")
    shutil.move(here / "world/elsewhere", here / "world/vqav2")
    done = cocoift(*RECIPE[:3], "--jobs", "1", *RECIPE[5:], "set", cwd=here)
    assert done.returncode == 0, done.stderr
    assert contents(here / "set") == contents(whole / "set")


def test_rules_touch_free_rounds_alone(typed, here):
    def built(name: str, *options: str) -> dict:
        done = typed("build", "world", "--data", here / "world", "--out", here / name, *options)
        assert done.returncode == 0, done.stderr
        return {c.id: c for c in read_conversations(here / name)}

    plain, ruled = built("plain"), built("ruled", "rules=0.5")
    changed = [id for id in plain if plain[id] != ruled[id]]
    assert list(plain) == list(ruled) and 0.4 < len(changed) / len(plain) < 0.6
    counts = json.loads((here / "ruled/manifest.json").read_text())["counts"]
    assert (
        counts["governed"] == len(changed)
        and "governed" not in json.loads((here / "plain/manifest.json").read_text())["counts"]
    )
    for id in changed:
        for before, after in zip(plain[id].rounds, ruled[id].rounds, strict=True):
            assert keeps(after.format, after.response) in (True, None)
            assert before.format == "free" or after.response == before.response
            assert (after.origin.template == before.origin.template) == (after == before)
    done = typed("build", "world", "--data", here / "world", "--out", here / "no", "layout=verbatim", "rules=0.5")
    assert done.returncode == 2 and "rules: the layout verbatim leaves dialogs as they are" in done.stderr
    assert not (here / "no").exists()


def test_two_at_once(here):
    first = subprocess.Popen([COCOIFT, *RECIPE, "set"], cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (here / ".set.partial/plan.json").exists():
        time.sleep(0.01)
    second = subprocess.run([COCOIFT, *RECIPE, "set"], cwd=here, capture_output=True, text=True)
    assert first.wait() == 0
    assert (second.returncode, "is being built by another process" in second.stderr) == (2, True), second.stderr


# What was read adds up


def test_duplicates_conflicts_caps(typed, here):
    def answered(value):
        last = value["annotations"][-1]
        value["annotations"] += [
            last
            | {
                "question_id": 1,
                "multiple_choice_answer": "zebra",
                "answers": [a | {"answer": "zebra"} for a in last["answers"]],
            }
        ]

    edit(here / QUESTIONS, lambda value: value["questions"].append(value["questions"][-1] | {"question_id": 1}))
    edit(here / ANNOTATIONS, answered)
    counts = told(typed, here, "world", "sources={vqav2: {cap: 900}, fsvqa: {weight: 0.5}, coco-captions: }")
    for row in counts["by_source"].values():
        assert row["read"] == sum(row[fate] for fate in ("kept", "duplicates", "excluded", "rejected", "capped"))
    vqa, full = counts["by_source"]["vqav2"], counts["by_source"]["fsvqa"]
    assert (vqa["duplicates"], vqa["conflicts"], vqa["kept"]) == (1, 1, 900)
    assert full["kept"] == -(-full["read"] // 2) and full["capped"] == full["read"] // 2
    kept = {(r.origin.source, r.origin.record) for c in read_conversations(here / "set") for r in c.rounds}
    assert ("vqav2", "1") not in kept


def test_a_smaller_cap_is_a_part_of_a_larger(typed, here):
    def drawn(cap):
        told(typed, here, "world", f"sources={{vqav2: {{cap: {cap}}}}}")
        records = {r.origin.record for c in read_conversations(here / "set") for r in c.rounds}
        shutil.rmtree(here / "set")
        return records

    assert drawn(50) < drawn(200)


# Clean


def test_leakage(typed, here):
    (here / "world/pope").mkdir()
    rows = [
        {"question_id": k, "image": f"COCO_val2014_{k:012d}.jpg", "text": "Is there a dog in the image?", "label": "no"}
        for k in (3, 5, 99999)
    ]
    (here / "world/pope/coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = told(typed, here, "world", f"clean=[{', '.join(DEFAULT_BLOCKLISTS)}]")
    [row] = counts["leakage"]
    assert (row["benchmark"], row["images_in_benchmark"], row["images_removed"]) == ("pope", 3, 2) and row[
        "records_removed"
    ] > 2
    assert set(counts["unchecked"]) == set(DEFAULT_BLOCKLISTS) - {"pope"}
    assert not {c.image for c in read_conversations(here / "set")} & {"coco:3", "coco:5"}
    manifest = json.loads((here / "set/manifest.json").read_text())
    assert manifest["leakage"] == counts["leakage"] and "pope/coco_pope_random.json" in manifest["inputs"]


def test_a_file_of_any_benchmark(typed, here):
    (here / "mine.jsonl").write_text('{"image": "COCO_train2014_000000000007.jpg"}\n')
    counts = told(typed, here, "world", "clean=[val2017, mine.jsonl]")
    assert [row["images_removed"] for row in counts["leakage"]] == [1]


# Spoiled


def test_a_large_file_cut_in_the_middle(typed, here):
    text = (here / ANNOTATIONS).read_text()
    rows = json.loads(text)["annotations"]
    with open(here / ANNOTATIONS, "w") as file:  # 60 MB, of which the records before the cut are good
        file.write('{"annotations": [')
        while file.tell() < 60e6:
            file.write(", ".join(map(json.dumps, rows)) + ", ")
        file.write('{"question_id": 7, "answ')
    assert "annotations.json: ends in the middle of record" in refused(typed, here, "world")


def test_files_that_do_not_belong_together(typed, here):
    edit(here / QUESTIONS, lambda value: [q.update(question_id=q["question_id"] + 10**9) for q in value["questions"]])
    assert "they do not belong together" in refused(typed, here, "world")


def test_a_file_twice(typed, here):
    (here / "world/vqav2/copy").mkdir()
    shutil.copy(here / QUESTIONS, here / "world/vqav2/copy")
    assert "is train2014 once more" in refused(typed, here, "world")


def test_texts_that_a_template_would_read(typed, here):
    marks = ["<image>", "</s>", "<s>", "\x00", "\x1b[2J", "<|im_start|>", "\ud800"]
    edit(
        here / QUESTIONS,
        lambda value: [q.update(question=f"What is {mark} here?") for q, mark in zip(value["questions"], marks)],
    )
    counts = told(typed, here, "world")
    rejects = [json.loads(line) for line in (here / "set/rejects.jsonl").read_text().splitlines()]
    assert counts["rejected"] == len(rejects) == len(marks)
    assert all("in its text" in reject["reason"] for reject in rejects)


def test_an_id_twice(typed, here):
    captions = here / "world/coco/annotations/captions_train2017.json"
    edit(captions, lambda value: value["annotations"].append(value["annotations"][0] | {"caption": "Something else."}))
    counts = told(typed, here, "world", "sources=[coco-captions]")
    [reject] = map(json.loads, (here / "set/rejects.jsonl").read_text().splitlines())
    assert counts["rejected"] == 1 and "the id comes twice" in reject["reason"]


def test_half_a_character_in_an_id(typed, here):
    edit(here / QUESTIONS, lambda value: value["questions"][0].update(question_id="\ud800"))
    edit(here / ANNOTATIONS, lambda value: value["annotations"][0].update(question_id="\ud800"))
    assert told(typed, here, "world")["rejected"] == 1
    [reject] = map(json.loads, (here / "set/rejects.jsonl").read_text().splitlines())
    assert reject["record"] == "\ud800"


def test_a_picture_of_which_nothing_can_be_asked(typed, here):
    def crowd(value):
        first = value["annotations"][0] | {
            "iscrowd": 1,
            "bbox": [0, 0, 10, 10],
            "segmentation": {"counts": [0, 100], "size": [10, 10]},
        }
        value["categories"] = [c for c in value["categories"] if c["id"] == first["category_id"]]
        value["images"] = [i | {"width": 10, "height": 10} for i in value["images"] if i["id"] == first["image_id"]]
        value["annotations"] = [first]

    edit(here / "world/coco/annotations/instances_train2017.json", crowd)
    counts = told(typed, here, "world", "sources=[coco-instances, vqav2]")
    assert counts["by_source"]["coco-instances"]["kept"] == 1


# A folder that is there


def refused_as_another(typed, folder: Path, *args) -> None:
    before = contents(folder)
    done = typed("build", *args, "--data", "world", "--out", "set", cwd=folder)
    assert done.returncode == 2 and "holds a dataset of another recipe or other files" in done.stderr
    assert contents(folder) == before


def test_another_order_is_another_recipe(typed, here):
    told(typed, here, "world", "sources=[vqav2, fsvqa]")
    refused_as_another(typed, here, "world", "sources=[fsvqa, vqav2]")


def test_a_benchmark_that_arrives(typed, here):
    told(typed, here, "world", "clean=[val2017, pope]")
    (here / "elsewhere").mkdir()  # on another disk, linked
    (here / "elsewhere/coco_pope_random.json").write_text('{"image": "COCO_val2014_000000000003.jpg"}\n')
    (here / "world/pope").symlink_to(here / "elsewhere")
    refused_as_another(typed, here, "world", "clean=[val2017, pope]")
    shutil.rmtree(here / "set")
    told(typed, here, "world", "clean=[val2017, pope]")
    # another of its files
    shutil.copy(here / "elsewhere/coco_pope_random.json", here / "elsewhere/coco_pope_popular.json")
    refused_as_another(typed, here, "world", "clean=[val2017, pope]")


def test_what_a_kill_left_behind_a_finished_folder(typed, here, whole):
    "Killed when the folder had its name already: nothing of the stage is gone on with, and it is cleared away."
    for _ in range(2):
        shutil.copytree(whole / "set", here / "set")
        (here / ".set.partial/read/written").mkdir(parents=True)
        assert typed(*RECIPE, "set", cwd=here).returncode == 0
        assert contents(here / "set") == contents(whole / "set") and not (here / ".set.partial").exists()
        shutil.rmtree(here / "set")


# Beforehand


def test_dry_run(typed, here):
    before = contents(here)
    done = typed("build", "coco-ift-plus", "--data", "world", "--dry-run", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    survey = json.loads(done.stdout)
    there = {row["name"] for row in survey["sources"] if row["files"]}
    assert there == {"vqav2", "fsvqa", "coco-captions", "coco-instances"}
    assert {row["name"] for row in survey["clean"]} == set(DEFAULT_BLOCKLISTS)
    assert contents(here) == before


@pytest.mark.parametrize(
    "name",
    [
        "coco-ift",
        "coco-ift-plus",
        "coco-ift-small",
        "llava-mix665k",
        "llava-mix-like",
        "photos",
        "pretrain-558k",
        "world",
    ],
)
def test_shipped_recipes(typed, here, name):
    done = typed("build", name, "--data", "world", "--dry-run", "--json", cwd=here)
    assert done.returncode == 0, done.stderr


def test_benchmark(root):
    done = subprocess.run([sys.executable, root / "tests/bench/build.py", "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["sizes"]["20000"]["same_rounds"] is True
    assert set(told["sizes"]["20000"]) >= {"seconds", "peak_mb", "records_per_s"} and set(
        told["vs_plain"]["20000"]
    ) >= {"speed", "memory"}
