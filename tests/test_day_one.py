"""Day one of a user with eight GPUs: the real configurations of CLIP-L/336 and Vicuna without their weights, and the
whole way, typed as in the README, with tiny ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cocoift.files import UserError
from cocoift.options import load_recipe


@pytest.fixture
def typed(typed):
    "A command typed here: its exit code, what it printed, what it said."

    def run(*args) -> tuple[int, str, str]:
        done = typed(*args, cwd=Path.cwd())
        return done.returncode, done.stdout, done.stderr

    return run


def preprocessor(side: int) -> str:
    "As OpenAI's CLIP folders have it."
    return json.dumps(
        {
            "crop_size": side,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": side,
        }
    )


# The real configurations


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    "`real('13b')`: the folder of a LLaVA-1.5 of that size, all but its weights."
    from cocoift.train.language import join, open_language
    from cocoift.train.layout import real_configs
    from cocoift.train.model import byte_tokenizer
    from cocoift.train.tower import open_tower

    home = tmp_path_factory.mktemp("real")
    tokenizer = byte_tokenizer(
        ["Answer the question using a single word or phrase. What is in the picture? A red bus on the street."]
    )

    def make(size: str) -> Path:
        if not (home / size).exists():
            seen, spoken = real_configs(size)
            seen.save_pretrained(home / "vision")
            (home / "vision/preprocessor_config.json").write_text(preprocessor(336))
            for part in (spoken, tokenizer):
                part.save_pretrained(home / "language" / size)
            for part in join(open_tower(home / "vision"), open_language(home / "language" / size)):
                part.save_pretrained(home / size)
        return home / size

    return make


@pytest.fixture(scope="module")
def samples(shared, tmp_path_factory):
    "`samples('coco-ift')`: a dataset of the real sample files, and a folder in which each of its images has a file."
    from cocoift.conversation import read_conversations, write_jsonl
    from cocoift.data.build.make import BuildRecipe, build

    home = tmp_path_factory.mktemp("samples")

    def make(recipe: str) -> tuple[Path, Path]:
        data, images = home / recipe, home / f"{recipe}-images"
        if not data.exists():
            build(load_recipe(recipe, BuildRecipe), shared / "data/sources", data)
            write_jsonl(home / f"{recipe}.jsonl", [c for c in read_conversations(data) if len(c.images) == 1])
            (images / "VG_100K").mkdir(parents=True)
            for kind, _, number in (image.partition(":") for c in read_conversations(data) for image in c.images):
                # lengths come from text alone: none is opened
                (images / (f"{int(number):012}.jpg" if kind == "coco" else f"VG_100K/{number}.jpg")).touch()
        return home / f"{recipe}.jsonl", images

    return make


@pytest.mark.parametrize(
    "recipe, size, built, gpu, billions, trained",
    [
        ("llava15-pretrain", "7b", "coco-ift", "a100-40", 7.06, 0.02),
        ("llava15-finetune-7b", "7b", "coco-ift", "a100-40", 7.06, 6.76),
        ("llava15-lora-7b", "7b", "coco-ift", "a100-40", 7.4, 0.34),
        ("llava15-finetune-13b", "13b", "coco-ift", "a100", 13.35, 13.05),
        ("coco-ift-13b", "13b", "coco-ift", "h200", 13.35, 13.05),
    ],
)
def test_the_plan_of_a_real_run(recipe, size, built, gpu, billions, trained, real, samples, tmp_path):
    from cocoift.train.dry_run import dry_run, dry_run_lines
    from cocoift.train.recipe import TrainRecipe

    data, images = samples(built)
    options = [f"model={real(size)}", f"data={data}", f"images={images}", f"out={tmp_path / 'run'}", "ranks=8"]
    found = dry_run(load_recipe(recipe, TrainRecipe, options), gpu, mfu=0.4)
    plan, table = found["plan"], found["table"]
    assert plan["parameters"] / 1e9 == pytest.approx(billions, abs=0.02) and plan["trained"] / 1e9 == pytest.approx(
        trained, abs=0.02
    )
    assert plan["ranks"] == 8 and plan["zero"] in (2, 3) and plan["gb_needed"] <= 0.9 * plan["gb_there"] + 0.1
    # a step's tokens have room
    assert (
        plan["row_tokens"] * plan["micro_batch"] * plan["accumulation"] * 8
        >= found["tokens"] / found["conversations"] * plan["batch"] * 0.99
    )
    assert plan["steps"] == max(1, round(found["conversations"] / plan["batch"])) and plan["hours"] > 0
    assert table["kept"] + table["cut"] == found["conversations"] > 300 and table["no_picture"] == 0
    lines = dry_run_lines(found)
    row = [line for line in lines if line.startswith("prefix") or "[[" in line]
    assert "<image> x 576" in row[0] and "[[" not in row[0] and all("[[" in line for line in row[1:])
    answers = answers_of(data)
    for number in {piece["branch"] for piece in found["row"]} - {
        0
    }:  # what is marked is an answer with its stop, round for round, and nothing else
        learned = [piece["text"] for piece in found["row"] if piece["branch"] == number and piece["learned"]]
        stop = "\n" if recipe == "llava15-pretrain" else "</s>"
        assert all(text.endswith(stop) for text in learned)
        assert (
            tuple(text.removesuffix(stop).strip() for text in learned) in answers
            or tuple("".join(learned).split(stop)[:-1]) in answers
        )
    assert not (tmp_path / "run").exists()


def answers_of(data: Path) -> set[tuple[str, ...]]:
    from cocoift.conversation import read_conversations

    return {tuple(r.response.strip() for r in c.rounds) for c in read_conversations(data)}


def test_what_does_not_fit_says_what_would(real, samples, tmp_path):
    from cocoift.train.dry_run import dry_run
    from cocoift.train.recipe import TrainRecipe

    data, images = samples("coco-ift")
    options = [f"model={real('13b')}", f"data={data}", f"images={images}", f"out={tmp_path / 'run'}", "ranks=2"]
    with pytest.raises(
        UserError, match=r"zero=3 micro_batch=1 .*needs about \d+ GB a rank on 2 ranks, .* more ranks, .*or lora_r=128"
    ):
        dry_run(load_recipe("llava15-finetune-13b", TrainRecipe, options), "a100-40")


# The whole way


@pytest.fixture(scope="module")
def parts(small, tmp_path_factory) -> Path:
    """clip/: a whole CLIP, text tower and all, as .bin; vicuna/: a language model as .bin in two files, with its
    tokenizer."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel, CLIPVisionModel, LlamaForCausalLM

    home = tmp_path_factory.mktemp("parts")
    tower, language = (
        CLIPVisionModel.from_pretrained(small / "parts/vision"),
        LlamaForCausalLM.from_pretrained(small / "parts/language"),
    )
    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=tower.config.to_dict(), projection_dim=16))
    whole.vision_model.load_state_dict(
        {name.removeprefix("vision_model."): value for name, value in tower.state_dict().items()}
    )
    for folder, model in ("clip", whole), ("vicuna", language):
        model.config.save_pretrained(home / folder)
    (home / "clip/preprocessor_config.json").write_text(preprocessor(48))
    torch.save(whole.state_dict(), home / "clip/pytorch_model.bin")
    state = list(language.half().state_dict().items())
    for k, some in enumerate((state[: len(state) // 2], state[len(state) // 2 :]), 1):
        torch.save(dict(some), home / f"vicuna/pytorch_model-{k:05}-of-00002.bin")
    AutoTokenizer.from_pretrained(small / "parts/language").save_pretrained(home / "vicuna")
    return home


@pytest.mark.slow
def test_the_whole_way(typed, parts, small, tmp_path):
    "Assembled, aligned, fine-tuned on two ranks, looked at, talked to, and taken to LLaVA's own layout and back."
    from transformers import AutoModelForImageTextToText

    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel

    code, printed, said = typed(
        "assemble", "--tower", parts / "clip", "--language", parts / "vicuna", "--out", tmp_path / "start", "--json"
    )
    assert code == 0 and json.loads(printed) == {"model": str(tmp_path / "start")}, said
    start = AutoModelForImageTextToText.from_pretrained(tmp_path / "start")
    assert start.dtype == torch.float16 and not [name for name in start.state_dict() if "text_model" in name]
    assert json.loads((tmp_path / "start/processor_config.json").read_text())["image_processor"]["do_pad"] is True

    common = [
        f"data={small / 'set'}",
        f"images={small / 'world/images'}",
        "epochs=",
        "steps=2",
        "batch=16",
        "micro_batch=2",
    ]
    code, printed, said = typed(
        "train", "llava15-pretrain", f"model={tmp_path / 'start'}", f"out={tmp_path / 'pretrain'}", *common, "--json"
    )
    assert code == 0, said
    code, printed, said = typed(
        "train",
        "llava15-finetune-7b",
        f"model={tmp_path / 'pretrain/model'}",
        f"out={tmp_path / 'finetune'}",
        *common,
        "ranks=2",
        "--json",
    )
    assert code == 0 and json.loads(printed)["steps"] == 2, said
    weights = [
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (tmp_path / "start", tmp_path / "pretrain/model", tmp_path / "finetune/model")
    ]
    # they train in bf16
    learned = [
        {part(name) for name in new if not torch.equal(new[name], old[name].bfloat16().float())}
        for old, new in zip(weights, weights[1:])
    ]
    assert learned == [{"projector"}, {"projector", "language"}]

    code, _, said = typed("report", tmp_path / "pretrain", tmp_path / "finetune", "--out", tmp_path / "report.html")
    assert code == 0 and "Plotly.newPlot" in (tmp_path / "report.html").read_text(), said

    chat = LocalModel(tmp_path / "finetune/model", small / "world/images", most_tokens=4)
    asks = [Ask.of("What is here?", sorted(chat.pictures)[0])]
    answers = chat.answer(asks)

    for to, source, more in (
        ("llava", "finetune/model", ()),
        ("hf", "llava", ("--tower", parts / "clip")),
        ("projector", "finetune/model", ()),
    ):
        code, _, said = typed("convert", tmp_path / source, "--to", to, "--out", tmp_path / to, *more)
        assert code == 0, said
    assert LocalModel(tmp_path / "hf", small / "world/images", most_tokens=4).answer(asks) == answers
    code, _, said = typed(
        "assemble",
        "--tower",
        parts / "clip",
        "--language",
        parts / "vicuna",
        "--projector",
        tmp_path / "projector",
        "--pad",
        "crop",
        "--out",
        tmp_path / "again",
    )
    assert code == 0, said
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "again", dtype=torch.float32).state_dict()
    assert all(
        torch.allclose(again[name], value, atol=1e-3) for name, value in weights[2].items() if part(name) == "projector"
    )
    typed("convert", tmp_path / "again", "--to", "llava", "--out", tmp_path / "cropped")
    assert [
        json.loads((tmp_path / name / "config.json").read_text())["image_aspect_ratio"] for name in ("llava", "cropped")
    ] == ["pad", None]


def part(name: str) -> str:
    from cocoift.train.adapt import part_of

    return part_of(name)


@pytest.mark.parametrize(
    "command, says",
    [
        ("assemble --tower {vicuna} --language {vicuna} --out x", ["vicuna: a llama is no vision transformer"]),
        (
            "assemble --tower {clip} --language {clip} --out x",
            ["clip: is a clip checkpoint, a language model is needed"],
        ),
        (
            "assemble --tower {clip} --language nowhere --out x",
            ["nowhere: is no language model (there is no config.json)"],
        ),
        ("assemble --tower {clip} --language {vicuna} --out {clip}", ["clip: is there already"]),
        (
            "assemble --tower {clip} --language {vicuna} --projector {clip}/pytorch_model.bin --out x",
            ["pytorch_model.bin: is no projector between these two models"],
        ),
        ("assemble --tower {clip} --language {vicuna} --pad round --out x", ["--pad round: is square or crop"]),
        ("convert {clip} --to hf --out x", ["clip: is a clip checkpoint"]),
        ("convert {clip} --to gguf --out x", ["--to gguf: is llava, hf or projector"]),
        ("convert {clip} --to llava --out x", ["clip: is a clip checkpoint"]),
        ("convert {clip} --to projector --out x", ["clip: has no projector of LLaVA's"]),
    ],
)
def test_parts_that_do_not_belong_together(typed, parts, tmp_path, monkeypatch, command, says):
    monkeypatch.chdir(tmp_path)
    code, printed, said = typed(*command.format(clip=parts / "clip", vicuna=parts / "vicuna").split())
    assert (code, printed, said.count("\n")) == (2, "", 1) and all(text in said for text in says), said
    assert not list(tmp_path.iterdir())


# What cannot be trained: one line, exit code 2, before anything is written


@pytest.fixture
def here(small, tmp_path, monkeypatch) -> Path:
    "A copy of the small world, to spoil, and a recipe for it."
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "hosts").write_text("localhost slots=512\n")
    (tmp_path / "train.yaml").write_text(
        json.dumps({"model": "start", "data": "set", "images": "world/images", "out": "run", "steps": 1, "batch": 4})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_stop(here: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (here / "start" / name).write_text((here / "start" / name).read_text().replace("</s>", "<never>"))
    told = json.loads((here / "start/tokenizer_config.json").read_text())
    told.pop("eos_token")
    (here / "start/tokenizer_config.json").write_text(json.dumps(told))


def torn_weights(here: Path) -> None:
    weights = here / "start/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def untileable(here: Path) -> None:
    from tiny import make

    make("qwen2_5_vl", here / "qwen")
    Image.new("RGB", (1000, 2)).save(min((here / "world/images/train2017").iterdir()))


@pytest.mark.parametrize(
    "command, spoil, says",
    [
        (
            "train train.yaml model=qwen",
            untileable,
            ["coco:1: qwen: its processor cannot tile a picture of 1000 x 2 pixels", "leave such pictures out"],
        ),
        ("train train.yaml model=parts/language", None, ["parts/language: is a llama checkpoint", "name another"]),
        (
            "train train.yaml",
            without_stop,
            [
                "start: neither the chat template nor the tokenizer has a stop token",
                "use the tokenizer that belongs to it",
            ],
        ),
        (
            "train train.yaml",
            torn_weights,
            ["model.safetensors: the weights cannot be read", "download or train it again"],
        ),
        ("train train.yaml hostfile=hosts", None, ["hosts: gives localhost slots=512", "lower its slots"]),
    ],
)
def test_what_cannot_be_trained(typed, here, command, spoil, says):
    if spoil:
        spoil(here)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    code, printed, said = typed(*command.split())
    assert (code, printed) == (2, "") and said.count("\n") == 1 and all(text in said for text in says), said
    # the plan, that any later run takes up
    after = {path: path.stat().st_mtime_ns for path in here.rglob("*") if "plans" not in path.parts}
    assert {path: when for path, when in after.items() if path != here} == before


def test_missing_pictures_are_dropped_and_counted(typed, here):
    gone = next((here / "world/images/train2017").iterdir())
    gone.unlink()
    code, printed, said = typed("train", "train.yaml", "missing=drop", "--dry-run", "--json")
    assert code == 0, said
    from cocoift.conversation import read_conversations

    about = [c for c in read_conversations(here / "set") if int(c.image.partition(":")[2]) == int(gone.stem)]
    told = json.loads(printed)
    assert told["table"]["no_picture"] == len(about) > 0 and told["table"]["kept"] == told["conversations"] == len(
        list(read_conversations(here / "set"))
    ) - len(about)
