"""Families of checkpoints, tiny and random: their templates, their pictures, exact trees, low-rank additions, and
what
plain transformers makes of the result."""

import json
from pathlib import Path
from threading import Event

import pytest
import torch
from PIL import Image
from tiny import EXACT, FAMILIES

from cocoift.files import UserError
from cocoift.models.ask import Ask, Settings
from cocoift.models.family import open_family
from cocoift.models.local import LocalModel
from cocoift.models.template import VICUNA, answer_ids, question_ids, stop_ids
from cocoift.train.adapt import LoraOptions, adapt, save_model
from cocoift.train.attention import use_trees
from cocoift.train.family import load_model
from cocoift.train.pack import alone
from cocoift.train.step import blank_tree
from cocoift.train.tokens import Tokens
from cocoift.train.tree import Tree, collate, token_loss

PICTURES = [Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).convert("RGB") for size in ((50, 30), (64, 64))]


BY_NAME = {"coco:1": PICTURES[0], "coco:2": PICTURES[1]}


@pytest.fixture(params=FAMILIES)
def family(request, folders):
    return open_family(folders[request.param])


@pytest.fixture(params=EXACT)
def any_family(request, folders):
    return open_family(folders[request.param])


def branch(family, question: str, answer: str) -> list[int]:
    t, template = family.tokenizer, family.template
    return question_ids(t, template, question, 0, (0,))[1:] + answer_ids(t, template, answer) + stop_ids(t, template)


def as_floats(prepared: dict) -> dict:
    return {name: value.double() if value.is_floating_point() else value for name, value in prepared.items()}


def test_pieces_are_what_the_chat_template_says(family):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it safe?"}]}]
    told = [{"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}]
    wanted = family.processor.apply_chat_template(
        messages + told, tokenize=False, **({"chat_template": family.chat_template} if family.chat_template else {})
    )
    ids = family.prefix_ids(PICTURES[0].size) + branch(family, "Is it safe?", "Yes.")
    stop = family.template.stop
    whole = (
        family.processor(
            text=[wanted[: wanted.rindex(stop) + len(stop)]],
            images=[PICTURES[0]],
            add_special_tokens=False,
            return_tensors="pt",
        )
        .input_ids[0]
        .tolist()
    )
    # the start token may be the tokenizer's, not the template's
    assert ids[-len(whole) :] == whole and len(ids) - len(whole) <= 1
    assert family.notes == [] or family.template == VICUNA


def test_control_tokens_in_a_text_are_text(family):
    hostile = f"{family.processor.image_token}{family.template.stop}"
    ids = branch(family, hostile, hostile)
    assert family.image_token_id not in ids
    assert ids.count(family.tokenizer.eos_token_id) == branch(family, "x", "y").count(family.tokenizer.eos_token_id)


def trees_of(family) -> list[Tree]:
    "Five conversations about two pictures of different shape, and one about none."

    def tree(image: str, *pairs) -> Tree:
        pictured = image in BY_NAME
        size = BY_NAME[image].size if pictured else None
        asked = [
            (
                question_ids(family.tokenizer, family.template, q, 0, (0,) * pictured)[pictured:],
                answer_ids(family.tokenizer, family.template, a) + stop_ids(family.tokenizer, family.template),
            )
            for q, a in pairs
        ]
        branches = tuple(Tokens(q + a, [False] * len(q) + [True] * len(a)) for q, a in asked)
        return Tree(
            image, family.prefix_ids(size, pictured), branches, len(branches), family.places(size) if pictured else None
        )

    return [
        tree("coco:1", ("Is it safe?", "Yes."), ("Why?", "Because it is calm here."), ("Who?", "A")),
        tree("coco:2", ("Why?", "So"), ("Is this place safe?", "No, it is not.")),
        tree("none:x", ("Hi", "Hello there")),
    ]


def gradients_of(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_trees_and_isolated_rows_are_exact(any_family):
    """Loss and gradients in float64: as trees and as conversations that share nothing, in one row and in several,
    against transformers' own way, one conversation a call."""
    family = any_family
    assert family.trees
    model, trees, total = load_model(family.path).double(), trees_of(family), 0.0
    for tree in alone(trees):
        (branch,) = tree.branches
        ids, labels = (
            torch.tensor([tree.prefix + branch.input_ids]),
            [-100] * len(tree.prefix)
            + [token if learned else -100 for token, learned in zip(branch.input_ids, branch.loss_mask)],
        )
        pictures = as_floats(family.stack([family.prepare(BY_NAME[tree.image])])) if tree.pictured else {}
        kinds = {"mm_token_type_ids": (ids == family.image_token_id).int()} if family.name.startswith("qwen") else {}
        logits = model(input_ids=ids, **pictures, **kinds).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(labels[1:]), reduction="sum")
        loss.backward()
        total += loss.item()
    wanted = gradients_of(model)
    use_trees(model)
    for rows in ([trees], [[trees[0]], trees[1:]], [alone(trees)], [alone(trees)[:3], alone(trees)[3:]]):
        model.zero_grad()
        batch = collate(rows, blank=blank_tree(family))
        loss = token_loss(
            model, batch, as_floats(family.stack([family.prepare(BY_NAME.get(image)) for image in batch.images]))
        )
        loss.backward()
        assert abs(loss.item() - total) < 1e-9 and (gradients_of(model) - wanted).abs().max() < 1e-6
    model.zero_grad()  # and a batch that nobody looks at a picture in: the blank one changes nothing
    batch = collate([trees[2:]], blank=blank_tree(family))
    text = token_loss(model, batch, as_floats(family.stack([family.prepare(None)])))
    text.backward()
    assert gradients_of(model).shape == wanted.shape and text.item() == pytest.approx(
        loss.item() - partly(model, family, trees[:2]), abs=1e-9
    )


def partly(model, family, trees) -> float:
    with torch.no_grad():
        batch = collate([trees])
        return token_loss(
            model, batch, as_floats(family.stack([family.prepare(BY_NAME[image]) for image in batch.images]))
        ).item()


def test_additions_are_merged_and_plain_transformers_answers_the_same(family, tmp_path):
    from transformers import AutoModelForImageTextToText

    model = load_model(family.path)
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    trained = adapt(model, "language", LoraOptions(r=2, alpha=8, dropout=0.0))
    ids, pictures = (
        family.prefix_ids(PICTURES[0].size) + branch(family, "Is it safe?", "Yes."),
        family.stack([family.prepare(PICTURES[0])]),
    )
    kinds = (
        {"mm_token_type_ids": (torch.tensor([ids]) == family.image_token_id).int()}
        if family.name.startswith("qwen")
        else {}
    )
    labels = torch.tensor([[-100 if token == family.image_token_id else token for token in ids]])
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(2):
        model(input_ids=torch.tensor([ids]), labels=labels, **pictures, **kinds).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    learned = model(input_ids=torch.tensor([ids]), **pictures, **kinds).logits
    save_model(model, family, tmp_path / "out")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert sorted(plain.state_dict()) == sorted(untouched)
    assert (plain(input_ids=torch.tensor([ids]), **pictures, **kinds).logits - learned).abs().max() < 1e-3
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, untouched[name])}
    assert changed and not any(
        "vision" in name and "merger" not in name or "visual" in name and "merger" not in name for name in changed
    )
    again = open_family(tmp_path / "out")
    assert again.template == family.template and again.prefix_ids((50, 30)) == family.prefix_ids((50, 30))
    assert again.notes == [] or again.template != VICUNA  # a mended template is written mended
    chats_as_plain_transformers(tmp_path / "out", plain, again)


def chats_as_plain_transformers(path: Path, model, family) -> None:
    """Asked alone, together, with rounds before and without a picture, and token by token: what `generate` says to
    the
    checkpoint's own chat template."""
    for number, picture in enumerate(PICTURES, 1):
        picture.save(path.parent / f"{number:012}.png")
    chat = LocalModel(path, path.parent, most_tokens=6)
    asks = [
        Ask.of("Is it safe?", "coco:1"),
        Ask.of("What is unusual?", "coco:1", [("Is it safe?", "Yes"), ("Why?", "It is calm.")]),
        Ask.of("Why?", "coco:2"),
        Ask.of("Hi"),
    ]
    wanted = [generated(model, family, ask) for ask in asks]
    assert (together := chat.answer(asks)) == [chat.answer([ask])[0] for ask in asks]
    assert [reply.text for reply in together] == wanted
    for ask, answer in zip(asks, wanted):
        assert "".join(chat.stream(ask, Settings(most_tokens=6), Event())).strip() == answer


def generated(model, family, ask) -> str:
    def said(role: str, text: str, image: bool = False) -> dict:
        return {"role": role, "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}

    turns = (*ask.before, (ask.instruction, None))
    messages = [
        message
        for k, (q, a) in enumerate(turns)
        for message in ([said("user", q, ask.image is not None and k == 0)] + ([said("assistant", a)] if a else []))
    ]
    text = family.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if family.template.bos and family.tokenizer.bos_token and not text.startswith(family.tokenizer.bos_token):
        text = family.tokenizer.bos_token + text
    inputs = family.processor(
        text=[text],
        images=[PICTURES[int(ask.image[-1]) - 1]] if ask.image else None,
        add_special_tokens=False,
        return_tensors="pt",
    )
    stop = stop_ids(family.tokenizer, family.template)[0]
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=stop, pad_token_id=stop)
    answer = out[0, inputs["input_ids"].shape[1] :].tolist()
    return family.tokenizer.decode(answer[: answer.index(stop)] if stop in answer else answer).strip()


def test_what_cannot_be_trained_says_so(folders, tmp_path):
    family = open_family(folders["llava_next"])
    with pytest.raises(UserError, match="cannot tile a picture of 1 x 1000"):
        bad = open_family(folders["qwen2_5_vl"])
        bad.image_ids((1, 1000))
    copy = tmp_path / "nostop"
    copy.mkdir()
    for file in family.path.iterdir():
        if file.suffix != ".safetensors":
            (copy / file.name).write_bytes(file.read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).write_text((copy / name).read_text().replace("</s>", "<never>"))
    told = json.loads((copy / "tokenizer_config.json").read_text())
    told.pop("eos_token")
    (copy / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="stop token"):
        open_family(copy)


def test_parts_of_an_ask_can_be_hidden(any_family, tmp_path):
    """Nothing hidden is the plain answer; earlier rounds hidden as a whole are the question alone at its later places,
    computed without any mask; and the line that states a format is found to the token."""
    from cocoift.models.cut import PARTS, Cut
    from cocoift.models.knockout import _odds, knockouts, part_marks
    from cocoift.models.prefix import AskRow

    PICTURES[0].save(tmp_path / "000000000001.png")
    model = LocalModel(any_family.path, tmp_path, most_tokens=4)
    line, full = " Answer with one word.", "It is a pier in the sea."
    ask = Ask.of("Why?", "coco:1", [(f"Is it safe?{line}", "Yes"), (f"Is it calm?{line}", "No")])
    bare, cuts = ["Is it safe?", "Is it calm?"], [Cut(), *map(Cut, PARTS), Cut("answers", "all")]
    if not any_family.trees or any_family.window:
        with pytest.raises(UserError, match="weighed behind one picture"):
            knockouts(model, ask, bare, full, cuts)
        return
    plain, stated, answers, rounds, from_all = knockouts(model, ask, bare, full, cuts)
    assert plain.text == model.answer([ask])[0].text
    assert plain.odds == pytest.approx(model.likelihoods([(ask, full)])[0].odds, abs=1e-4)
    t, front = model.tokenizer, ("coco:1",)
    marks, row = part_marks(model, ask, bare), model.row(ask, front)
    for k in (0, 1):
        hidden = t.decode([token for token, mark in zip(row.ids, marks) if mark == (k, "instruction")])
        assert hidden.strip() == line.strip()
    led = answer_ids(t, model.template, full)
    whole, behind = model.row(ask, front, led + stop_ids(t, model.template)), marks.index((2, "question"))
    with torch.inference_mode():
        alone = _odds(model, model.prefix(front), AskRow(whole.ids[behind:], whole.places[behind:]), 1, led)[0]
    assert rounds.odds == pytest.approx(alone, abs=1e-4)
    assert len({round(a.odds, 7) for a in (plain, stated, answers, rounds, from_all)}) == 5  # and none is another
