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
