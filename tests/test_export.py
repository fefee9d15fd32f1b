"Exports are what the trainers' own loaders want: `datasets` and TRL here, LLaMA-Factory and ms-swift in tests/compat."

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cocoift.conversation import Conversation, conversation, read_conversations, write_parquet

COCOIFT = Path(sys.executable).with_name("cocoift")
UNUSUAL = [
    "He said: \"no\", and 'yes'.",
    "two\nlines\r\nand a tab\t.",
    "图里有几只猫？请用一个词回答。",
    "a\u2028b \u00e9\u0301 \U0001f408",
    "{{ braces }} {% raw %} <b> & \\n \\u0041",
    "\x07bell",
]


def unusual(images: list[str]) -> list[Conversation]:
    "Conversations of several images, of none, and with texts that break careless writers."
    several = conversation(
        None, ("Which of the two is older?", "The second."), ("Why?", "Its paint is worn."), id="several"
    )
    text = conversation(None, ("What is a tree?", "A graph without cycles."), id="text")
    odd = [
        replace(conversation(images[k % len(images)], (told, told), ("Again?", told)), id=f"unusual/{k}")
        for k, told in enumerate(UNUSUAL)
    ]
    return [text, replace(several, images=tuple(images[:2])), *odd, replace(text, id="text/2")]


def turns(conversations) -> list[tuple[str, int, list[str]]]:
    "What a loader has to give back: id, number of images, all texts in order."
    return [
        (c.id, len(c.images), [text for r in c.rounds for text in (r.instruction, r.response)]) for c in conversations
    ]


@pytest.fixture(scope="module")
def mixed(small, tmp_path_factory) -> Path:
    "The small world's set with several images, none, and unusual texts: a dataset folder."
    folder = tmp_path_factory.mktemp("mixed") / "set"
    world = list(read_conversations(small / "set"))
    (folder / "conversations").mkdir(parents=True)
    write_parquet(
        folder / "conversations/part-00000.parquet",
        [*unusual(sorted({image for c in world for image in c.images})), *world],
    )
    (folder / "manifest.json").write_bytes((small / "set/manifest.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def exported(typed, small, mixed, tmp_path_factory) -> Path:
    "Both exports of `mixed`, and the messages with pictures, each in a folder of its own."
    folder = tmp_path_factory.mktemp("exported")
    for args in (
        ["llava", "llava/x.json"],
        ["messages", "names/x.parquet"],
        ["messages", "pictures/x.parquet", "--images", small / "world/images"],
    ):
        done = typed("export", mixed, "--to", args[0], "--out", folder / args[1], *args[2:], "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["conversations"], told["left_out"]) == (len(list(read_conversations(mixed))), [])
        assert told["card"] == str((folder / args[1]).with_name("README.md"))
    return folder


def load(path: Path, cache: Path, **kwargs):
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(path), split="train", cache_dir=str(cache), **kwargs)


# datasets


def test_datasets_llava(mixed, exported, tmp_path):
    expected = turns(read_conversations(mixed))
    for loaded in (
        load(exported / "llava", tmp_path),
        load("json", tmp_path, data_files=str(exported / "llava/x.json")),
    ):
        found = [
            (row["id"], len(row["image"] or []), [turn["value"] for turn in row["conversations"]]) for row in loaded
        ]
        assert [
            (id, images, [text.removeprefix("<image>\n" * images) if k == 0 else text for k, text in enumerate(texts)])
            for id, images, texts in found
        ] == expected
        assert all(
            texts[0].startswith("<image>\n" * images) and "<image>" not in "".join(texts[1:])
            for _, images, texts in found
        )


def test_datasets_messages(mixed, exported, small, tmp_path):
    from PIL import Image

    expected = turns(read_conversations(mixed))
    for kind in "names", "pictures":
        loaded = load(exported / kind, tmp_path / kind)
        assert [
            (row["id"], len(row["images"]), [turn["content"] for turn in row["messages"]]) for row in loaded
        ] == expected
        assert {turn["role"] for row in loaded for turn in row["messages"]} == {"user", "assistant"}
        assert isinstance(loaded[1]["images"][0], str if kind == "names" else Image.Image)
    several = next(read_conversations(small / "set")).images[0]  # the same picture, pixel by pixel
    row = next(row for row, c in zip(loaded, read_conversations(mixed)) if c.images == (several,))
    [path] = [
        path for path in (small / "world/images").rglob("*.png") if int(path.stem) == int(several.partition(":")[2])
    ]
    assert row["images"][0].convert("RGB").tobytes() == Image.open(path).convert("RGB").tobytes()


def test_datasets_folder(mixed, tmp_path):
    "The card that `build` or a person puts into a dataset folder makes it loadable."
    from cocoift.data.build.card import card

    (mixed / "README.md").write_text(card(json.loads((mixed / "manifest.json").read_text())))
    loaded = load(mixed, tmp_path)
    assert [
        (row["id"], len(row["images"]), [text for r in row["rounds"] for text in (r["instruction"], r["response"])])
        for row in loaded
    ] == turns(read_conversations(mixed))


def test_the_card_opens_pictures(exported, small, tmp_path, monkeypatch):
    "What the card of a file without pictures says to do."
    import re

    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = (exported / "names/README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    shown = tmp_path / "coco/train2017"
    shown.mkdir(parents=True)
    for path in (small / "world/images").rglob("*.png"):
        (shown / f"{path.stem}.jpg").write_bytes(path.read_bytes())
    found = {}
    exec(
        code.replace("PATH OF THIS FOLDER", str(exported / "names")).replace("FOLDER OF THE PICTURES", str(tmp_path)),
        found,
    )
    assert found["opened"][1]["images"][0].size == found["opened"][1]["images"][1].size


def test_the_hub_reads_the_card(exported):
    from huggingface_hub import DatasetCard

    for kind in "llava", "names", "pictures":
        data = DatasetCard.load(exported / kind / "README.md").data
        assert (data.license, data.pretty_name, data.size_categories) == ("other", "world", ["n<1K"])


# TRL


@pytest.mark.parametrize("only", ["all", "answers"])
def test_trl_takes_a_step(exported, mixed, small, tmp_path, only):
    "One image, several, none, in the same batches: SFTTrainer trains a tiny LLaVA on our file as it is."
    import torch
    from trl import SFTConfig, SFTTrainer

    from cocoift.models.family import open_family
    from cocoift.train.family import load_model

    model, processor = load_model(small / "start"), open_family(small / "start").processor
    before = {name: value.clone() for name, value in model.named_parameters()}
    dataset = load(exported / "pictures", tmp_path / "cache")
    told = SFTConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=len(dataset),
        max_steps=1,
        learning_rate=1e-3,
        max_length=None,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        bf16=False,
        gradient_checkpointing=False,
        assistant_only_loss=only == "answers",
        seed=0,
    )
    trainer = SFTTrainer(model=model, args=told, train_dataset=dataset, processing_class=processor)
    batch = trainer.data_collator([dataset[k] for k in range(len(dataset))])
    tokens = (48 // 16) ** 2
    counts = [len(c.images) for c in read_conversations(mixed)]
    # in place, each once
    assert (batch["input_ids"] == model.config.image_token_id).sum(1).tolist() == [tokens * n for n in counts]
    assert len(batch["pixel_values"]) == sum(counts)
    done = trainer.train()
    assert done.global_step == 1 and math.isfinite(done.training_loss) and done.training_loss > 1
    moved = {name.split(".")[1] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"vision_tower", "multi_modal_projector", "language_model"} | (
        {"weight"} if "lm_head.weight" in before else set()
    )


# Files


def test_the_same_again(cocoift, small, mixed, exported, tmp_path):
    for kind, name, more in (
        ("llava", "x.json", []),
        ("names", "x.parquet", []),
        ("pictures", "x.parquet", ["--images", small / "world/images"]),
    ):
        to = "llava" if kind == "llava" else "messages"
        assert cocoift("export", mixed, "--to", to, "--out", tmp_path / kind / name, *more).returncode == 0
        assert contents(tmp_path / kind) == contents(exported / kind)


def test_other_datasets_stay_listed(typed, mixed, tmp_path):
    mine = {"alpaca": {"file_name": "alpaca.json"}, "x": {"file_name": "x.json", "formatting": "alpaca"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(mine))
    assert typed("export", mixed, "--to", "llava", "--out", tmp_path / "x.json").returncode == 0
    listed = json.loads((tmp_path / "dataset_info.json").read_text())
    assert listed == {
        "alpaca": mine["alpaca"],
        "x": {
            "file_name": "x.json",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "image"},
        },
    }


def test_text_alone_names_no_images(typed, tmp_path):
    write_parquet(tmp_path / "text.parquet", [conversation(None, ("What is a tree?", "A graph."))])
    assert typed("export", tmp_path / "text.parquet", "--to", "llava", "--out", tmp_path / "x.json").returncode == 0
    assert json.loads((tmp_path / "dataset_info.json").read_text())["x"]["columns"] == {"messages": "conversations"}
    assert not (tmp_path / "README.md").exists()  # nothing is known of where a lone file comes from


def test_marks_in_texts_are_left_out_and_named(typed, tmp_path):
    marked = [
        conversation("coco:1", (f"What does <{name}> do?", "It shows."), id=name)
        for name in ("image", "video", "audio", "img")
    ]
    write_parquet(tmp_path / "x.parquet", marked)
    done = typed("export", tmp_path / "x.parquet", "--to", "llava", "--out", tmp_path / "x.json")
    assert done.returncode == 0 and "3 left out" in done.stdout and "image" in done.stdout
    assert [record["id"] for record in json.loads((tmp_path / "x.json").read_text())] == ["img"]


@pytest.mark.parametrize(
    "spoil, args, says",
    [
        (None, ["messages", "x.parquet", "--images", "nowhere"], ["nowhere: no such folder of pictures"]),
        (
            None,
            ["messages", "x.parquet", "--images", "world/images/val2017"],
            ["world/images/val2017: no such folder of pictures"],
        ),
        (
            "missing",
            ["messages", "x.parquet", "--images", "world/images"],
            ["world/images: 1 of the dataset's images have no picture there (coco:", "--images"],
        ),
        (
            "torn",
            ["messages", "x.parquet", "--images", "world/images"],
            [".png: the picture of coco:", "cannot be read", "download it again"],
        ),
        ("list", ["llava", "x.json"], ["dataset_info.json: is not a list of datasets", "mend or remove it"]),
        ("cut", ["llava", "x.json"], ["dataset_info.json: ends in the middle", "mend or remove it"]),
        (
            "taken",
            ["llava", "x.json"],
            ["--out x.json: dataset_info.json has another use for that name", "take another"],
        ),
        (None, ["llava", "dataset_info.json"], ["dataset_info.json", "take another"]),
    ],
)
def test_refused(typed, small, mixed, tmp_path, spoil, args, says):
    import shutil

    shutil.copytree(small / "world", tmp_path / "world")
    picture = sorted((tmp_path / "world/images/train2017").iterdir())[3]
    match spoil:
        case "missing":
            picture.unlink()
        case "torn":
            picture.write_bytes(picture.read_bytes()[:-200])
        case "list" | "cut" | "taken":
            (tmp_path / "dataset_info.json").write_text(
                {"list": "[]", "cut": '{"x": ', "taken": '{"x": {"hf_hub_url": "someone/x"}}'}[spoil]
            )
    before = contents(tmp_path)
    done = typed("export", mixed, "--to", args[0], "--out", *args[1:], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert not [part for part in says if part not in done.stderr], done.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("to, name", [("llava", "x.json"), ("messages", "x.parquet")])
def test_killed(tmp_path, to, name):
    "Killed while it writes, nothing is there under the name; again, it is as if nothing had happened."
    write_parquet(
        tmp_path / "many.parquet",
        (replace(c, id=f"{c.id}/{k}") for k in range(1500) for c in unusual(["coco:1", "coco:2"])),
    )
    command = [COCOIFT, "export", tmp_path / "many.parquet", "--to", to, "--out"]
    partial = tmp_path / f"killed/.{name}.partial"
    with subprocess.Popen(
        [*command, tmp_path / "killed" / name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not (partial.exists() and partial.stat().st_size) and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / name).exists()
    for out in "killed", "whole":
        subprocess.run([*command, tmp_path / out / name], check=True, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# From elsewhere

TRAPS = [
    {
        "id": 2327515,
        "image": "gqa/images/2327515.jpg",
        "conversations": [{"from": "human", "value": "<image>\nIs it? "}, {"from": "gpt", "value": " Yes "}],
    },
    {
        "id": "a",
        "image": "coco/train2017/000000000009.jpg",
        "conversations": [{"from": "human", "value": "Is it?\n<image>"}, {"from": "gpt", "value": "Yes"}],
    },
    {
        "id": "b",
        "model": "",
        "conversations": [
            {"from": "human", "value": "Is it?"},
            {"from": "gpt", "value": "Yes", "text": "x", "markdown": {"answer": "x"}},
        ],
    },
    {
        "id": "c",
        "image": ["cot/v7w/v7w_2.jpg", "cot/v7w/v7w_2.jpg###[2, 0, 390, 282]"],
        "conversations": [
            {"from": "human", "value": "<image>\nIs it?"},
            {"from": "gpt", "value": "Yes"},
            {"from": "human", "value": "<image>"},
            {"from": "gpt", "value": "Yes"},
        ],
    },
    {
        "image": "",
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "user", "value": "Is it?"},
            {"from": "assistant", "value": "Yes"},
        ],
    },
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Is it?"},
            {"role": "assistant", "content": "Yes"},
        ],
        "images": [],
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]},
            {"role": "assistant", "content": "Yes"},
        ],
        "images": ["vg/VG_100K_2/7.jpg"],
    },
]


def test_records_from_elsewhere(tmp_path):
    from cocoift.data.records import read_any

    (tmp_path / "x.json").write_text(json.dumps(TRAPS))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in TRAPS))
    for name in "x.json", "x.jsonl":
        read = list(read_any(tmp_path / name))
        assert [c.images for c in read] == [
            ("vg:2327515",),
            ("coco:9",),
            (),
            ("path:cot/v7w/v7w_2.jpg", "path:cot/v7w/v7w_2.jpg###[2, 0, 390, 282]"),
            (),
            (),
            ("vg:7",),
        ]
        assert {(c.rounds[0].instruction, c.rounds[0].response) for c in read} == {("Is it?", "Yes")}
        assert read[3].rounds[1].instruction == ""


@pytest.mark.slow
def test_large_json_in_little_memory(tmp_path):
    "60 MB are read in what 1 MB takes, and a cut in the middle is an error, not the half of it."
    turns = [
        {"from": "human", "value": "<image>\nWhat is that? " + "apple " * 40},
        {"from": "gpt", "value": "A long answer. " * 20},
    ] * 2
    records = [
        json.dumps({"id": str(k), "image": f"coco/train2017/{k:012d}.jpg", "conversations": turns}) for k in range(1000)
    ]
    (tmp_path / "small.json").write_text("[" + ",".join(records) + "]")
    with open(tmp_path / "large.json", "w") as file:
        for k in range(60):
            file.write(("," if k else "[") + ",".join(records))
        file.write("]")
    size = (tmp_path / "large.json").stat().st_size
    assert size > 55_000_000
    code = (
        "import sys; from cocoift.data.records import read_any; from cocoift.files import peak_mb; "
        "print(sum(len(c.rounds) for c in read_any(sys.argv[1])), peak_mb())"
    )
    peaks = {}
    for name, count in ("small.json", 2000), ("large.json", 120_000):
        rounds, peak = subprocess.run(
            [sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True
        ).stdout.split()
        assert int(rounds) == count
        peaks[name] = float(peak)
    assert peaks["large.json"] < peaks["small.json"] + 20, peaks

    os.truncate(tmp_path / "large.json", size // 2)
    done = subprocess.run([COCOIFT, "audit", tmp_path / "large.json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "large.json: ends in the middle of record 30" in done.stderr
