"""LLaVAs of any vision tower and any language model: what the parts were before is what the whole still is, as plain
transformers sees it."""

import json
import re
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny import EYES, LANGUAGES, as_gguf, bytes_of, part
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)

from cocoift.files import UserError
from cocoift.models.ask import Ask, Settings
from cocoift.models.chat_template import probe_template
from cocoift.models.decoding import ask_ids
from cocoift.models.family import open_family
from cocoift.models.local import LocalModel
from cocoift.models.steady import dated, steady_template
from cocoift.models.template import render
from cocoift.train.adapt import copy_processor
from cocoift.train.language import open_language, own_template
from cocoift.train.layout import convert
from cocoift.train.model import assemble
from cocoift.train.on_disk import assemble_on_disk
from cocoift.train.tower import open_tower

# each tower once; the other language models see through DINOv2
PAIRS = {"clip": "vicuna", "siglip": "qwen2_5", "dinov2": "smollm2", "registers": "llama3", "dinov3": "gemma3"}
PAIRED = {language: tower for tower, language in PAIRS.items()}
PICTURE = Image.effect_mandelbrot((50, 30), (-2, -1, 1, 1), 50).convert("RGB")
ASKS = [
    Ask.of("Is this place safe?"),
    Ask.of("Why?"),
    Ask.of("What is unusual?", (), [("Is this place safe?", "Yes, it is."), ("Why?", "Because the sea is calm.")]),
]


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    "`parts('clip')`: a folder of its own, to read only."
    home, made = tmp_path_factory.mktemp("parts"), {}
    return lambda name: made.setdefault(name, None) or made.update({name: part(name, home / name)}) or made[name]


@pytest.fixture(scope="session")
def wholes(parts, tmp_path_factory):
    "`wholes('gemma3')`: the folder of a LLaVA with that language model, and its own tower or a named one."
    home = tmp_path_factory.mktemp("wholes")

    def make(language: str, tower: str | None = None):
        tower = tower or PAIRED.get(language, "dinov2")
        if not (folder := home / f"{tower}-{language}").exists():
            assemble_on_disk(parts(tower), parts(language), folder, pad="crop")
        return folder

    return make


def said(ask: Ask, parts: bool) -> list[dict]:
    "An ask as messages: plain texts, or parts with a picture before the first."
    turns = [(role, text) for pair in ask.before for role, text in zip(("user", "assistant"), pair)] + [
        ("user", ask.instruction)
    ]
    shown = [{"type": "image"}] if ask.image else []
    return [
        {"role": role, "content": shown * (k == 0) + [{"type": "text", "text": text}] if parts else text}
        for k, (role, text) in enumerate(turns)
    ]


def ended(ids: list[int], stops) -> list[int]:
    return ids[: next((k for k, token in enumerate(ids) if token in stops), len(ids))]


def check_as_the_language_model(folder: Path, whole: Path) -> None:
    "The very tokens of the prompt, and the answers word for word, alone, together and token by token."
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    chat = LocalModel(whole, most_tokens=12)
    own = GenerationConfig.from_pretrained(folder).eos_token_id
    stops, wanted = own if isinstance(own, list) else [own], []
    for ask in ASKS:
        if tokenizer.chat_template:
            tokenizer.chat_template = dated(tokenizer.chat_template)  # on the one day that a LLaVA knows
            ids = tokenizer.apply_chat_template(said(ask, False), add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        else:
            ids = tokenizer(
                "<s>" + render((*ask.before, (ask.instruction, "")), image=False), add_special_tokens=False
            )["input_ids"]
        assert ask_ids(chat.family, ask) == ids, tokenizer.decode(ids)
        out = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
        wanted.append(tokenizer.decode(ended(out, stops)).strip())
    assert set(stops) <= chat.family.stops and len(set(wanted)) > 1
    assert (together := chat.answer(ASKS)) == [chat.answer([ask])[0] for ask in ASKS]
    assert [reply.text for reply in together] == wanted
    for ask, answer in zip(ASKS, wanted):
        assert "".join(chat.stream(ask, Settings(most_tokens=12), Event())).strip() == answer


@pytest.mark.parametrize("name", LANGUAGES)
def test_without_a_picture_it_is_the_language_model(name, parts, wholes):
    check_as_the_language_model(parts(name), wholes(name))


def check_as_plain_transformers(whole: Path, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "000000000001.png")
    processor, model = (
        AutoProcessor.from_pretrained(whole, backend="pil"),
        AutoModelForImageTextToText.from_pretrained(whole).eval(),
    )
    chat = LocalModel(whole, tmp_path, most_tokens=12)
    for ask in ASKS:
        ask = Ask.of(ask.instruction, "coco:1", ask.before)
        text = processor.apply_chat_template(said(ask, True), add_generation_prompt=True)
        inputs = processor(text=text, images=[PICTURE], add_special_tokens=False, return_tensors="pt")
        length = inputs.input_ids.shape[1]
        assert ask_ids(chat.family, ask) == inputs.input_ids[0].tolist(), text
        assert inputs.input_ids[0].tolist()[: len(prefix := chat.prefix_ids(("coco:1",)))] == prefix
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, length:].tolist()
        assert [chat.answer([ask])[0].text] == [chat.tokenizer.decode(ended(out, chat.family.stops)).strip()]


@pytest.mark.parametrize("name", LANGUAGES)
def test_with_a_picture_it_is_plain_transformers(name, wholes, tmp_path):
    check_as_plain_transformers(wholes(name), tmp_path)


def own_features(folder, pixels: torch.Tensor) -> torch.Tensor:
    "What a tower alone sees in the last but one layer, at the size of its pictures, whatever size it was trained at."
    config = AutoConfig.from_pretrained(folder)
    config = getattr(config, "vision_config", config)
    model = type(AutoModel.from_config(config)).from_pretrained(folder, config=config).eval()
    stretch = (
        {"interpolate_pos_encoding": True} if config.model_type in ("clip_vision_model", "siglip_vision_model") else {}
    )
    return model(pixel_values=pixels, output_hidden_states=True, **stretch).hidden_states[-2]


SEES = [("clip", 16, 1), ("siglip", 16, 0), ("dinov2", 16, 1), ("registers", 20, 1), ("dinov3", 20, 1)]


@pytest.mark.parametrize("name, tokens, first", SEES)
def test_it_sees_what_the_tower_sees(name, tokens, first, parts, wholes):
    check_as_the_tower(name, tokens, first, parts(name), wholes(PAIRS[name]))


@torch.no_grad()
def check_as_the_tower(name: str, tokens: int, first: int, folder: Path, whole: Path) -> None:
    """Its pixels, its features, its count of tokens: at the processor's 32 pixels, also where the tower was trained at
    48 or 56."""
    processor, model = (
        AutoProcessor.from_pretrained(whole, backend="pil"),
        AutoModelForImageTextToText.from_pretrained(whole).eval(),
    )
    pixels = processor.image_processor(PICTURE, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32)
    if name != "dinov3":  # its own takes torchvision
        assert torch.allclose(
            pixels,
            torch.as_tensor(
                AutoImageProcessor.from_pretrained(folder, backend="pil")(PICTURE, return_tensors="pt")["pixel_values"]
            ),
            atol=1e-5,
        )
    wanted = model.model.multi_modal_projector(own_features(folder, pixels)[:, first:])
    [found] = model.get_image_features(pixel_values=pixels).pooler_output
    assert found.shape[0] == tokens == model.config.image_seq_length and torch.allclose(found, wanted[0], atol=1e-5)
    assert (model.config.vision_feature_layer, model.config.vision_config.image_size) == (-2, 32)


def test_padded_pictures_lose_nothing(parts):
    "DINOv2's processor shrinks to 36 and cuts out 32: a padded picture is shrunk to 32."
    edged = Image.new("RGB", (64, 64), "black")
    edged.paste("white", (2, 2, 62, 62))
    for pad, cut in ("square", False), ("crop", True):
        pixels = open_tower(parts("dinov2"), pad).pictures(edged, return_tensors="pt").pixel_values[0, 0]
        assert (pixels[0, 16] > pixels[16, 16] - 0.5) == cut


@pytest.mark.parametrize("name", ["qwen2_5", "smollm2", "gemma3", "llama3", "qwen2_moe", "mixtral"])
def test_what_is_written(name, wholes, parts):
    "vLLM's names, one head at most, a pad token that is no stop, every stop, and no embedding more than needed."
    from safetensors import safe_open

    whole, own = wholes(name), AutoConfig.from_pretrained(parts(name))
    with safe_open(whole / "model.safetensors", "pt") as file:
        names = set(file.keys())
        rows = file.get_tensor("language_model.model.embed_tokens.weight").shape[0]
    with safe_open(parts(name) / "model.safetensors", "pt") as file:  # experts apart, as they are published
        assert {f"language_model.{key}" for key in file.keys()} == {k for k in names if k.startswith("language_model.")}
    tower = "vision_tower.vision_model." if PAIRED.get(name) in ("clip", "siglip") else "vision_tower."
    assert all(
        key.startswith((tower, "multi_modal_projector.linear_", "language_model.model."))
        or key == "language_model.lm_head.weight"
        for key in names
    )
    assert ("language_model.lm_head.weight" in names) is not own.tie_word_embeddings
    told, tokenizer = json.loads((whole / "generation_config.json").read_text()), AutoTokenizer.from_pretrained(whole)
    ends = told["eos_token_id"] if isinstance(told["eos_token_id"], list) else [told["eos_token_id"]]
    assert {tokenizer.convert_tokens_to_ids(stop) for stop in LANGUAGES[name][3]} <= set(ends)
    assert told["pad_token_id"] == tokenizer.pad_token_id not in ends
    assert rows == max(own.vocab_size, len(tokenizer))
    model = AutoModelForImageTextToText.from_pretrained(whole)
    assert (
        model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    ) is own.tie_word_embeddings


def test_one_path_in_memory_and_on_disk(parts, tmp_path):
    model, processor = assemble(parts("clip"), parts("smollm2"), seed=3)
    written = AutoModelForImageTextToText.from_pretrained(
        assemble_on_disk(parts("clip"), parts("smollm2"), tmp_path / "out", pad="crop")
    )
    assert model.config.to_diff_dict().keys() - {"dtype"} <= written.config.to_diff_dict().keys()
    assert all(
        torch.equal(value, written.state_dict()[name])
        for name, value in model.state_dict().items()
        if "projector" not in name
    )
    assert processor.chat_template == AutoProcessor.from_pretrained(tmp_path / "out", backend="pil").chat_template


def check_training_row(whole: Path, small: Path, tmp_path: Path) -> None:
    """A row of the dry run is, letter for letter, what the checkpoint's template makes of the conversation; each answer
    is learned with its stop."""
    from cocoift.conversation import read_conversations
    from cocoift.options import load_recipe
    from cocoift.train.dry_run import dry_run
    from cocoift.train.recipe import TrainRecipe

    options = [
        f"model={whole}",
        f"data={small / 'set'}",
        f"images={small / 'world/images'}",
        f"out={tmp_path / 'run'}",
        "ranks=1",
        "steps=1",
        "batch=8",
    ]
    row = dry_run(load_recipe("tiny", TrainRecipe, options), "a100")["row"]
    processor = AutoProcessor.from_pretrained(whole, backend="pil")
    tokens = processor.image_token * AutoConfig.from_pretrained(whole).image_seq_length
    prefix, stop = "".join(piece["text"] for piece in row if not piece["branch"]), LocalModel(whole).template.stop
    known = {}
    for c in read_conversations(small / "set"):
        messages = [
            m
            for k, r in enumerate(c.rounds)
            for m in (
                said(Ask.of(r.instruction, "x" if k == 0 else None), True)
                + [{"role": "assistant", "content": [{"type": "text", "text": r.response}]}]
            )
        ]
        known[
            processor.apply_chat_template(messages).replace("<image>", f"<image> x {len(tokens) // len('<image>')}")
            + stop  # GLM-4's stands before the next question only
        ] = [r.response for r in c.rounds]
    for branch in {piece["branch"] for piece in row} - {0}:
        text = prefix + "".join(piece["text"] for piece in row if piece["branch"] == branch)
        [answers] = [
            answers
            for whole_text, answers in known.items()
            if squeezed(whole_text).startswith(squeezed(text)) and len(whole_text) - len(text) < 40
        ]
        learned = [piece["text"] for piece in row if piece["branch"] == branch and piece["learned"]]
        assert [one.removesuffix(stop).strip() for one in learned] == answers and all(
            one.endswith(stop) for one in learned
        )


@pytest.mark.parametrize("name", LANGUAGES)
def test_training_writes_the_own_template(name, wholes, small, tmp_path):
    check_training_row(wholes(name), small, tmp_path)


def test_a_state_along_the_text_is_not_trained(wholes, small, tmp_path):
    "A LLaVA that others made of a language model whose layers no mask ends where a conversation ends."
    import shutil

    from cocoift.options import load_recipe
    from cocoift.train.prepare import check_run
    from cocoift.train.recipe import TrainRecipe

    theirs = shutil.copytree(wholes("qwen2_5"), tmp_path / "theirs")
    told = json.loads((theirs / "config.json").read_text())
    told["text_config"]["layer_types"] = ["linear_attention", "full_attention"]
    (theirs / "config.json").write_text(json.dumps(told))
    options = [
        f"model={theirs}",
        f"data={small / 'set'}",
        f"images={small / 'world/images'}",
        f"out={tmp_path / 'run'}",
    ]
    with pytest.raises(UserError, match="theirs: has layers of linear_attention, in which conversations of one row"):
        check_run(load_recipe("tiny", TrainRecipe, options))


@pytest.mark.slow
@pytest.mark.parametrize("tower, tokens, first", SEES)
@pytest.mark.parametrize("name", LANGUAGES)
def test_every_tower_with_every_language_model(name, tower, tokens, first, parts, wholes, small, tmp_path):
    folder, whole = parts(name), wholes(name, tower)
    check_as_the_language_model(folder, whole)
    check_as_plain_transformers(whole, tmp_path)
    check_as_the_tower(tower, tokens, first, parts(tower), whole)
    check_training_row(whole, small, tmp_path)


def squeezed(text: str) -> str:
    """Without what Qwen-3 alone writes, an empty thought before the last answer that nobody is taught, and without
    spaces: SentencePiece's decoder drops one at the beginning of a piece."""
    return text.replace("<think>\n\n</think>\n\n", "").replace(" ", "")


@pytest.mark.parametrize("name", ["gemma3", "qwen2_moe", "mixtral"])
def test_trees_are_exact(name, wholes):
    "Layers with a window and layers of experts: loss and gradients of trees are those of separate rows, in float64."
    from test_families import BY_NAME, as_floats, gradients_of, trees_of

    from cocoift.train.attention import use_trees
    from cocoift.train.family import load_model
    from cocoift.train.pack import alone
    from cocoift.train.tree import collate, token_loss

    family, losses, gradients = open_family(wholes(name)), [], []
    model, trees = load_model(family.path).double(), trees_of(family)[:2]
    model.set_experts_implementation("eager")  # torch multiplies experts together in float32 at most
    use_trees(model)
    for rows in ([[tree] for tree in alone(trees)], [trees]):
        model.zero_grad()
        batch = collate(rows)
        pictures = as_floats(family.stack([family.prepare(BY_NAME[image]) for image in batch.images]))
        loss = token_loss(model, batch, pictures)
        loss.backward()
        losses.append(loss.item())
        gradients.append(gradients_of(model))
    assert abs(losses[0] - losses[1]) < 1e-9
    assert (gradients[0] - gradients[1]).abs().max() < 1e-6 * gradients[0].abs().max()  # routers weigh in float32
    if "moe" in name or name == "mixtral":  # the experts learn, too
        learned = [n for n, p in model.named_parameters() if "experts" in n and p.grad is not None and p.grad.any()]
        assert learned


# Templates as they are published

PUBLISHED = {  # TRL's copies: the stop, and whether an answer is opened otherwise than those before it
    "deepseek_r1_distill": ("<｜end▁of▁sentence｜>", True),
    "gemma3": ("<end_of_turn>", False),
    "gemma4": ("<turn|>", False),
    "glm4moe": ("<|user|>", False),
    "lfm2_2_5": ("<|im_end|>", False),
    "llama3": ("<|eot_id|>", False),
    "llama3_1": ("<|eot_id|>", False),
    "llama3_2": ("<|eot_id|>", False),
    "phi3": ("<|end|>", False),
    "phi3_5": ("<|end|>", False),
    "qwen2_5": ("<|im_end|>", False),
    "qwen3": ("<|im_end|>", False),
    "qwen3_5_nothink": ("<|im_end|>", True),
    "qwen3_6": ("<|im_end|>", True),
    "qwen3_8": ("<|im_end|>", False),
    "qwen3_instruct_2507": ("<|im_end|>", False),
    "nemotron_3_nano": ("<|im_end|>", True),
}
MARKS = r"<[|｜]?[\w/▁]+[|｜]?>|\[gMASK\]"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_are_asked_as_they_ask(name):
    """Pieces, and plain transformers with the template that a checkpoint gets, write the same; on any day, and nothing
    that was not there before the answers of a conversation."""
    source = Path(pytest.importorskip("trl").__file__).parent / f"chat_templates/{name}.jinja"
    if not source.exists():
        pytest.skip(f"this TRL has no {source.name}")
    own, (stop, opened) = source.read_text(encoding="utf-8"), PUBLISHED[name]
    control = sorted({*re.findall(MARKS, own), stop, "<|endoftext|>", "<s>"})
    tokenizer = bytes_of(control, own, bos_token="<s>", eos_token=stop, pad_token="<|endoftext|>")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    jinja, _ = own_template(tokenizer, source)
    speaker = SimpleNamespace(tokenizer=tokenizer, chat_template=jinja, image_token="<image>")
    steady, notes = steady_template(speaker, source)
    assert any("opens an answer with" in note for note in notes) is opened
    assert any("today's date" in note for note in notes) is ("strftime_now" in own)
    tokenizer.chat_template = speaker.chat_template = steady or jinja
    template, _ = probe_template(speaker, source, [stop])
    assert template.stop == stop and steady_template(speaker, source) == (None, [])
    for ask in ASKS:
        pieces = "<s>" * template.bos + render((*ask.before, (ask.instruction, "")), template, image=False)
        asked = tokenizer.apply_chat_template(said(ask, False), add_generation_prompt=True, tokenize=False)
        assert asked == pieces
        untouched = tokenizer.apply_chat_template(
            said(ask, False), chat_template=own, add_generation_prompt=True, tokenize=False
        )
        assert (untouched == asked) is not bool(notes)


def test_the_date_is_kept_with_the_model(wholes, tmp_path):
    "A checkpoint of others that writes today's date: asked and trained in the words that the trained one has."
    import shutil

    theirs = shutil.copytree(wholes("smollm3"), tmp_path / "theirs")
    jinja = theirs / "chat_template.jinja"
    assert "26 July 2024" in open_family(theirs).template.system and not open_family(theirs).notes
    jinja.write_text("{{ '' }}" + jinja.read_text().partition("{%- endmacro -%}")[2])
    family = open_family(theirs)
    assert ["writes today's date" in note for note in family.notes] == [True]
    (tmp_path / "trained").mkdir()
    copy_processor(family, tmp_path / "trained")
    shutil.copyfile(theirs / "config.json", tmp_path / "trained/config.json")
    again = open_family(tmp_path / "trained")
    assert again.template == family.template and not again.notes and "26 July 2024" in again.template.system


# What others have put together


def test_dinov2_as_meta_ships_it(parts, tmp_path):
    "518 pixels in its configuration, 224 in its processor: 256 image tokens, the table of places stretched."
    from transformers import Dinov2Config, Dinov2Model

    size = dict(hidden_size=32, num_hidden_layers=6, num_attention_heads=4, mlp_ratio=2)
    Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **size)).save_pretrained(tmp_path / "tower")
    told = json.loads((parts("dinov2") / "preprocessor_config.json").read_text())
    told |= {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    (tmp_path / "tower/preprocessor_config.json").write_text(json.dumps(told))
    tower = open_tower(tmp_path / "tower", "crop")
    assert (tower.tokens, tower.extra, tower.config.image_size) == (256, 1, 224)
    family = open_family(assemble_on_disk(tmp_path / "tower", parts("smollm2"), tmp_path / "whole", pad="crop"))
    assert family.image_ids().count(family.image_token_id) == 256
    assert family.prepare(PICTURE)["pixel_values"].shape == (1, 3, 224, 224)
    assert family.config.vision_config.image_size == 224


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_gguf_file_is_a_source_of_weights(kind, parts, tmp_path):
    "As a file and as the folder that holds it alone: the tokens, the stops and the scores that transformers reads."
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    file = as_gguf(parts("qwen2"), tmp_path / "passed-on/model.gguf", kind)
    language = file if kind == "F32" else file.parent
    whole = assemble_on_disk(parts("dinov2"), language, tmp_path / "whole", pad="crop")
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    made, chat = AutoModelForImageTextToText.from_pretrained(whole).eval(), LocalModel(whole, most_tokens=3)
    tokenizer = AutoTokenizer.from_pretrained(parts("qwen2"))
    ids = tokenizer.apply_chat_template(said(ASKS[2], False), add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ask_ids(chat.family, ASKS[2]) == ids and chat.template.stop == "<|im_end|>"
    with torch.no_grad():
        own, wanted, found = (model(input_ids=torch.tensor([ids])).logits for model in (plain(parts), read, made))
    assert torch.equal(wanted, found[..., : wanted.shape[-1]])
    assert (own - wanted).abs().mean() < (1e-4 if kind == "F32" else 0.5)


def plain(parts) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(parts("qwen2")).eval()


@pytest.mark.parametrize("name", ["dinov2", "siglip"])
def test_a_llava_put_together_by_hand_opens_and_trains(name, parts, small, forked, tmp_path):
    """DINOv2's configuration says 56 pixels while its processor cuts out 32; SigLIP's own processor has no crop at all;
    rows without a picture carry a blank one."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    from cocoift.conversation import conversation, write_jsonl
    from cocoift.options import load_recipe
    from cocoift.train.prepare import check_run, settle_recipe
    from cocoift.train.recipe import TrainRecipe

    speaker, tower = open_language(parts("smollm2")), AutoConfig.from_pretrained(parts(name))
    tower = getattr(tower, "vision_config", tower)
    first = name == "dinov2"
    config = LlavaConfig(
        vision_config=tower,
        text_config=speaker.config,
        image_token_id=speaker.tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=49 if first else 16,
        vision_feature_select_strategy="default" if first else "full",
    )
    processor = LlavaProcessor(
        AutoImageProcessor.from_pretrained(parts(name), backend="pil"),
        speaker.tokenizer,
        patch_size=8,
        num_additional_image_tokens=int(first),
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=speaker.chat_template,
    )
    for half in (LlavaForConditionalGeneration(config), processor):
        half.save_pretrained(tmp_path / "model")
    write_jsonl(
        tmp_path / "set.jsonl",
        [conversation(None, ("Why?", "Because the sea is calm.")), conversation(None, ("Is it safe?", "Yes, it is."))],
    )
    options = [
        "draw=false",
        f"model={tmp_path / 'model'}",
        f"data={tmp_path / 'set.jsonl'}",
        f"images={small / 'world/images'}",
        f"out={tmp_path / 'run'}",
        "ranks=1",
        "steps=1",
        "batch=2",
    ]
    recipe = load_recipe("tiny", TrainRecipe, options)
    run, plan, family = check_run(recipe)
    settled = settle_recipe(recipe, run["conversations"], plan.sizes_of(family.trees))
    done = forked(json.loads(settled.model_dump_json()))
    assert done["codes"] == [0] and json.loads((tmp_path / "run/train.json").read_text())["kept"] == 2, done
    PICTURE.save(tmp_path / "000000000001.png")
    assert LocalModel(tmp_path / "run/model", tmp_path, most_tokens=3).prefix(("coco:1",)).length > 16


# What cannot be put together: one line


def as_config(folder, config, **files) -> None:
    config.save_pretrained(folder)
    for name, text in {
        "preprocessor_config": json.dumps(
            {"size": {"height": 32, "width": 32}, "image_processor_type": "ViTImageProcessor"}
        ),
        **files,
    }.items():
        (folder / f"{name}.json").write_text(text)


@pytest.fixture(scope="module")
def odd(parts, tmp_path_factory):
    "Folders that are no parts of a LLaVA."
    import shutil

    import transformers as t

    home = tmp_path_factory.mktemp("odd")
    as_config(home / "resnet", t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    as_config(home / "efficientnet", t.EfficientNetConfig())
    as_config(
        home / "swin",
        t.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
    )
    as_config(
        home / "naflex",
        t.Siglip2VisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4, patch_size=8
        ),
    )
    as_config(home / "metaclip2", t.MetaClip2VisionConfig(**EYES, intermediate_size=64, image_size=32))
    as_config(home / "patches", t.Siglip2VisionConfig(**EYES, intermediate_size=64))
    told = json.loads((home / "patches/preprocessor_config.json").read_text())
    (home / "patches/preprocessor_config.json").write_text(
        json.dumps({**told, "image_processor_type": "Siglip2ImageProcessor"})
    )
    as_config(home / "t5", t.T5Config(d_model=16, num_layers=1))
    as_config(
        home / "bert",
        t.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, is_decoder=True),
    )
    as_config(
        home / "gemma2",
        t.Gemma2Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
            head_dim=8,
            vocab_size=400,
        ),
    )
    as_config(
        home / "phi2",
        t.PhiConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=400),
    )
    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=400)
    as_config(home / "gpt_oss", t.GptOssConfig(num_key_value_heads=2, head_dim=8, num_local_experts=2, **small))
    as_config(home / "rwkv", t.RwkvConfig(hidden_size=32, num_hidden_layers=1, vocab_size=400))
    as_config(home / "cohere", t.CohereConfig(num_key_value_heads=2, **small))
    as_config(home / "gpt2", t.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=400))
    as_config(home / "falcon", t.FalconConfig(**small))
    as_config(
        home / "gemma3n", t.Gemma3nTextConfig(**small, vocab_size_per_layer_input=400, hidden_size_per_layer_input=8)
    )
    for name in ("bert", "gemma2", "phi2", "t5", "gpt2", "cohere"):
        AutoTokenizer.from_pretrained(parts("qwen2")).save_pretrained(home / name)
    shutil.copytree(parts("clip"), home / "unprepared", ignore=shutil.ignore_patterns("preprocessor*"))
    shutil.copytree(parts("clip"), home / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(parts("dinov2"), home / "wide")
    told = json.loads((home / "wide/preprocessor_config.json").read_text())
    (home / "wide/preprocessor_config.json").write_text(json.dumps({**told, "crop_size": {"height": 24, "width": 32}}))
    shutil.copytree(parts("qwen2"), home / "wordless", ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
    shutil.copytree(
        parts("qwen2"), home / "endless", ignore=shutil.ignore_patterns("*.jinja", "generation_config.json")
    )
    told = json.loads((home / "endless/tokenizer_config.json").read_text())
    (home / "endless/tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in told.items() if name not in ("eos_token", "chat_template")})
    )
    for name, more in (
        ("quantised", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        ("recurrent", {"layer_types": ["linear_attention", "full_attention"]}),
    ):
        shutil.copytree(parts("qwen2"), home / name)
        told = json.loads((home / name / "config.json").read_text())
        (home / name / "config.json").write_text(json.dumps({**told, **more}))
    (home / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (home / "two" / name).touch()
    return home


@pytest.mark.parametrize(
    "tower, language, says",
    [
        ("{odd}/resnet", "{qwen2}", "resnet: a resnet is no vision transformer"),
        ("{odd}/efficientnet", "{qwen2}", "efficientnet: a efficientnet is no vision transformer"),
        ("{odd}/swin", "{qwen2}", "swin: a swin makes no vector of each of the 256 patches"),
        ("{odd}/naflex", "{qwen2}", "naflex: a siglip2_vision_model is no tower that a llava can look through"),
        ("{odd}/metaclip2", "{qwen2}", "metaclip2: transformers opens no metaclip_2_vision_model inside a llava"),
        ("{odd}/patches", "{qwen2}", "patches: its Siglip2ImageProcessorPil gives patches"),
        ("{qwen2}", "{qwen2}", "qwen2: a qwen2 is no vision transformer"),
        ("{odd}/unprepared", "{qwen2}", "unprepared: the picture processor cannot be read"),
        ("{odd}/weightless", "{qwen2}", "weightless: the vision tower cannot be read"),
        ("{odd}/wide", "{qwen2}", "wide: its pictures are 32 x 24 pixels, a llava looks at squares"),
        ("{clip}", "{odd}/t5", "t5: is a t5 checkpoint, an encoder with a decoder"),
        ("{clip}", "{odd}/bert", "bert: a bert has "),
        ("{clip}", "{odd}/gemma2", "gemma2: a gemma2 attends in a way of its own"),
        ("{clip}", "{odd}/cohere", "cohere: a cohere has logit_scale at its head"),
        ("{clip}", "{odd}/phi2", "phi2: a phi has lm_head.bias at its head"),
        ("{clip}", "{odd}/gpt_oss", "gpt_oss: a gpt_oss attends in a way of its own"),
        ("{clip}", "{odd}/falcon", "falcon: a falcon attends in a way of its own"),
        ("{clip}", "{odd}/rwkv", "rwkv: a rwkv carries a state from token to token"),
        ("{clip}", "{odd}/gpt2", "gpt2: a gpt2 has its head tied to embeddings that a LLaVA does not find"),
        ("{clip}", "{odd}/gemma3n", "gemma3n: a gemma3n_text looks its tokens up again in every layer"),
        ("{clip}", "{dinov2}", "dinov2: is a dinov2 checkpoint, a language model is needed"),
        ("{clip}", "{odd}/wordless", "wordless: "),
        ("{clip}", "{odd}/endless", "endless: the tokenizer has no token for the stop"),
        ("{clip}", "{odd}/quantised", "quantised: its weights are quantised (gptq)"),
        ("{clip}", "{odd}/recurrent", "recurrent: has layers of linear_attention"),
        ("{clip}", "{odd}/two", "two: holds 2 GGUF files (a.gguf, b.gguf): name one"),
        ("{clip}", "{odd}/none.gguf", "none.gguf: no such file"),
    ],
)
def test_what_is_no_part_says_so(tower, language, says, odd, parts, tmp_path):
    names = {"odd": odd, **{name: parts(name) for name in ("clip", "dinov2", "qwen2")}}
    with pytest.raises(UserError) as error:
        assemble_on_disk(tower.format(**names), language.format(**names), tmp_path / "out")
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500
    assert not list(tmp_path.iterdir())


def test_llavas_own_layout_takes_what_it_can_hold(wholes, tmp_path):
    for name in ("gemma3", "smollm2"):  # DINOv3 with a Gemma, DINOv2 with a Llama
        with pytest.raises(UserError, match="LLaVA's own layout holds CLIP's tower and a Llama"):
            convert(wholes(name), "llava", tmp_path / "out")
    told = json.loads((convert(wholes("vicuna"), "llava", tmp_path / "own") / "config.json").read_text())
    assert told["mm_vision_tower"] == "clip-vit-32-5-patch8-32"  # no name of OpenAI's
