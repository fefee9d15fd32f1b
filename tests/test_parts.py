"LLaVAs of any vision tower and any language model: what the parts were before is what the whole still is, as plain transformers sees it."
import json
from threading import Event

import pytest
import torch
from PIL import Image
from tiny import LANGUAGES, TOWERS, part
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, GenerationConfig

from cocoift.chat.ask import Ask
from cocoift.chat.local import LocalChat, ask_ids
from cocoift.chat.speak import Said, Settings
from cocoift.chat.talk import Talker
from cocoift.chat.template import render
from cocoift.files import UserError
from cocoift.train.layout import assemble_on_disk, convert
from cocoift.train.model import assemble
from cocoift.train.parts import open_language, open_tower

PAIRS = {"clip": "vicuna", "siglip": "qwen2_5", "dinov2": "smollm2", "registers": "llama3", "dinov3": "gemma3"}  # each tower once; the other language models see through DINOv2
PAIRED = {language: tower for tower, language in PAIRS.items()}
PICTURE = Image.effect_mandelbrot((50, 30), (-2, -1, 1, 1), 50).convert("RGB")
ASKS = [Ask(None, (), "Is this place safe?"), Ask(None, (), "Why?"), Ask(None, (("Is this place safe?", "Yes, it is."), ("Why?", "Because the sea is calm.")), "What is unusual?")]


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    "`parts('clip')`: a folder of its own, to read only."
    home, made = tmp_path_factory.mktemp("parts"), {}
    return lambda name: made.setdefault(name, None) or made.update({name: part(name, home / name)}) or made[name]


@pytest.fixture(scope="session")
def wholes(parts, tmp_path_factory):
    "`wholes('gemma3')`: the folder of a LLaVA with that language model."
    home = tmp_path_factory.mktemp("wholes")

    def make(language: str):
        if not (home / language).exists():
            assemble_on_disk(parts(PAIRED.get(language, "dinov2")), parts(language), home / language, pad="crop")
        return home / language

    return make


def said(ask: Ask, parts: bool) -> list[dict]:
    "An ask as messages: plain texts, or parts with a picture before the first."
    turns = [(role, text) for pair in ask.turns for role, text in zip(("user", "assistant"), pair)] + [("user", ask.instruction)]
    shown = [{"type": "image"}] if ask.image else []
    return [{"role": role, "content": shown * (k == 0) + [{"type": "text", "text": text}] if parts else text} for k, (role, text) in enumerate(turns)]


def ended(ids: list[int], stops) -> list[int]:
    return ids[: next((k for k, token in enumerate(ids) if token in stops), len(ids))]


@pytest.mark.parametrize("name", LANGUAGES)
def test_without_a_picture_it_is_the_language_model(name, parts, wholes, tmp_path):
    "The very tokens of the prompt, and the answers word for word, alone, together and token by token."
    folder, whole = parts(name), wholes(name)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    chat, talker = LocalChat(whole, most_tokens=12), Talker(whole)
    own = GenerationConfig.from_pretrained(folder).eos_token_id
    stops, wanted = own if isinstance(own, list) else [own], []
    for ask in ASKS:
        if tokenizer.chat_template:
            ids = tokenizer.apply_chat_template(said(ask, False), add_generation_prompt=True, return_dict=True)["input_ids"]
        else:
            ids = tokenizer("<s>" + render((*ask.turns, (ask.instruction, "")), image=False), add_special_tokens=False)["input_ids"]
        assert chat._start(None) + ask_ids(chat.tokenizer, chat.template, ask) == ids, tokenizer.decode(ids)
        out = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids):].tolist()
        wanted.append(tokenizer.decode(ended(out, stops)).strip())
    assert set(stops) <= chat.family.stops and len(set(wanted)) > 1
    assert chat.answer(ASKS) == wanted == [chat.answer([ask])[0] for ask in ASKS]
    for ask, answer in zip(ASKS, wanted):
        rounds = [Said(q, a) for q, a in (*ask.turns, (ask.instruction, ""))]
        assert "".join(talker.say(rounds, {}, Settings(most_tokens=12), Event())).strip() == answer


@pytest.mark.parametrize("name", LANGUAGES)
def test_with_a_picture_it_is_plain_transformers(name, wholes, tmp_path):
    whole = wholes(name)
    PICTURE.save(tmp_path / "000000000001.png")
    processor, model = AutoProcessor.from_pretrained(whole, backend="pil"), AutoModelForImageTextToText.from_pretrained(whole).eval()
    chat = LocalChat(whole, tmp_path, most_tokens=12)
    for ask in ASKS:
        ask = Ask("coco:1", ask.turns, ask.instruction)
        text = processor.apply_chat_template(said(ask, True), add_generation_prompt=True)
        inputs = processor(text=text, images=[PICTURE], add_special_tokens=False, return_tensors="pt")
        length = inputs.input_ids.shape[1]
        assert chat._start("coco:1") + ask_ids(chat.tokenizer, chat.template, ask) == inputs.input_ids[0].tolist(), text
        out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, length:].tolist()
        assert chat.answer([ask]) == [chat.tokenizer.decode(ended(out, chat.family.stops)).strip()]


def own_features(folder, pixels: torch.Tensor) -> torch.Tensor:
    "What a tower alone sees in the last but one layer, at the size of its pictures, whatever size it was trained at."
    config = AutoConfig.from_pretrained(folder)
    config = getattr(config, "vision_config", config)
    model = type(AutoModel.from_config(config)).from_pretrained(folder, config=config).eval()
    stretch = {"interpolate_pos_encoding": True} if config.model_type in ("clip_vision_model", "siglip_vision_model") else {}
    return model(pixel_values=pixels, output_hidden_states=True, **stretch).hidden_states[-2]


@pytest.mark.parametrize("name, tokens, first", [("clip", 16, 1), ("siglip", 16, 0), ("dinov2", 16, 1), ("registers", 20, 1), ("dinov3", 20, 1)])
@torch.no_grad()
def test_it_sees_what_the_tower_sees(name, tokens, first, parts, wholes):
    "Its pixels, its features, its count of tokens: at the processor's 32 pixels, also where the tower was trained at 48 or 56."
    folder, whole = parts(name), wholes(PAIRS[name])
    processor, model = AutoProcessor.from_pretrained(whole, backend="pil"), AutoModelForImageTextToText.from_pretrained(whole).eval()
    pixels = processor.image_processor(PICTURE, return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32)
    if name != "dinov3":  # its own takes torchvision
        assert torch.allclose(pixels, torch.as_tensor(AutoImageProcessor.from_pretrained(folder, backend="pil")(PICTURE, return_tensors="pt")["pixel_values"]), atol=1e-5)
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


@pytest.mark.parametrize("name", ["qwen2_5", "smollm2", "gemma3", "llama3"])
def test_what_is_written(name, wholes, parts):
    "vLLM's names, one head at most, a pad token that is no stop, every stop, and no embedding more than needed."
    from safetensors import safe_open

    whole, own = wholes(name), AutoConfig.from_pretrained(parts(name))
    with safe_open(whole / "model.safetensors", "pt") as file:
        names = set(file.keys())
        rows = file.get_tensor("language_model.model.embed_tokens.weight").shape[0]
    tower = "vision_tower.vision_model." if PAIRED[name] in ("clip", "siglip") else "vision_tower."
    assert all(key.startswith((tower, "multi_modal_projector.linear_", "language_model.model.")) or key == "language_model.lm_head.weight" for key in names)
    assert ("language_model.lm_head.weight" in names) is not own.tie_word_embeddings
    told, tokenizer = json.loads((whole / "generation_config.json").read_text()), AutoTokenizer.from_pretrained(whole)
    ends = told["eos_token_id"] if isinstance(told["eos_token_id"], list) else [told["eos_token_id"]]
    assert {tokenizer.convert_tokens_to_ids(stop) for stop in LANGUAGES[name][3]} <= set(ends)
    assert told["pad_token_id"] == tokenizer.pad_token_id not in ends
    assert rows == max(own.vocab_size, len(tokenizer))
    model = AutoModelForImageTextToText.from_pretrained(whole)
    assert (model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()) is own.tie_word_embeddings


def test_one_path_in_memory_and_on_disk(parts, tmp_path):
    model, processor = assemble(parts("clip"), parts("smollm2"), seed=3)
    written = AutoModelForImageTextToText.from_pretrained(assemble_on_disk(parts("clip"), parts("smollm2"), tmp_path / "out", pad="crop"))
    assert model.config.to_diff_dict().keys() - {"dtype"} <= written.config.to_diff_dict().keys()
    assert all(torch.equal(value, written.state_dict()[name]) for name, value in model.state_dict().items() if "projector" not in name)
    assert processor.chat_template == AutoProcessor.from_pretrained(tmp_path / "out", backend="pil").chat_template


@pytest.mark.parametrize("name", LANGUAGES)
def test_training_writes_the_own_template(name, wholes, small, tmp_path):
    "A row of the dry run is, letter for letter, what the checkpoint's template makes of the conversation; each answer is learned with its stop."
    from cocoift.options import load_recipe
    from cocoift.train.dry_run import dry_run
    from cocoift.train.recipe import TrainRecipe

    from cocoift.conversation import read_conversations

    whole = wholes(name)
    options = [f"model={whole}", f"data={small / 'set'}", f"images={small / 'world/images'}", f"out={tmp_path / 'run'}", "ranks=1", "steps=1", "batch=8"]
    row = dry_run(load_recipe("tiny", TrainRecipe, options), "a100")["row"]
    processor = AutoProcessor.from_pretrained(whole, backend="pil")
    tokens = processor.image_token * AutoConfig.from_pretrained(whole).image_seq_length
    prefix = "".join(piece["text"] for piece in row if not piece["branch"])
    known = {}
    for c in read_conversations(small / "set"):
        messages = [m for k, r in enumerate(c.rounds) for m in (said(Ask("x" if k == 0 else None, (), r.instruction), True) + [{"role": "assistant", "content": [{"type": "text", "text": r.response}]}])]
        known[processor.apply_chat_template(messages).replace("<image>", f"<image> x {len(tokens) // len('<image>')}")] = [r.response for r in c.rounds]
    for branch in {piece["branch"] for piece in row} - {0}:
        text = prefix + "".join(piece["text"] for piece in row if piece["branch"] == branch)
        [answers] = [answers for whole_text, answers in known.items() if squeezed(whole_text).startswith(squeezed(text)) and len(whole_text) - len(text) < 40]
        learned = [piece["text"] for piece in row if piece["branch"] == branch and piece["learned"]]
        stop = LocalChat(whole).template.stop
        assert [one.removesuffix(stop).strip() for one in learned] == answers and all(one.endswith(stop) for one in learned)


def squeezed(text: str) -> str:  # Qwen-3 writes an empty thought before the last answer only, and nobody is taught to; SentencePiece's decoder drops a space at the beginning of a piece
    return text.replace("<think>\n\n</think>\n\n", "").replace(" ", "")
