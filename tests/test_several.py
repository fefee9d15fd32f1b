"""Several pictures in a conversation, in any round and anywhere in its text: ids, answers, losses and gradients of
every family of checkpoints are those of plain transformers for the same messages."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
import torch
from PIL import Image
from tiny import EXACT

from cocoift.conversation import Conversation, Round, write_jsonl
from cocoift.models import local
from cocoift.models.ask import Ask, AskRound, Settings
from cocoift.models.decoding import ask_ids, front_of
from cocoift.models.family import open_family
from cocoift.models.local import LocalModel
from cocoift.models.prefix import greedy
from cocoift.models.template import answer_ids, stop_ids
from cocoift.train.attention import use_trees
from cocoift.train.cache import cache_tokens
from cocoift.train.family import load_model
from cocoift.train.pack import alone, pack
from cocoift.train.pictures import Pictures
from cocoift.train.plan import Plan
from cocoift.train.step import blank_tree
from cocoift.train.tree import collate, token_loss

SIZES = {"coco:1": (50, 30), "coco:2": (64, 64), "coco:3": (90, 140)}
ASKS = {
    "two in front": Ask.of("Same place?", ("coco:1", "coco:2"), [("Is it safe?", "Yes")]),
    "one in front": Ask.of("Is it safe?", "coco:1"),
    "one in front, one later within the text": Ask(
        (AskRound("Is it safe?", "Yes", ("coco:1",)), AskRound("And this  one?", images=("coco:3",), places=(9,)))
    ),
    "the first in a later round": Ask((AskRound("Hi", "Hello"), AskRound("What is it?", images=("coco:2",)))),
    "behind the text of a later round": Ask(
        (AskRound("Hi", "Hello"), AskRound("What is it? ", "Calm.", ("coco:2",), (12,)), AskRound("Why?"))
    ),
    "text first": Ask((AskRound("Is  or  safe?", images=("coco:1", "coco:3"), places=(3, 7)),)),
    "alone within the text": Ask((AskRound("Is  safe?", images=("coco:2",), places=(3,)),)),
    "one in front, one behind it, one again": Ask(
        (
            AskRound("Is it like ? Yes?", "No.", ("coco:1", "coco:2", "coco:1"), (0, 11, 17)),
            AskRound("And these?", images=("coco:3", "coco:2")),
        )
    ),
    "no picture": Ask.of("Hi"),
}


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate(SIZES.values(), 1):
        Image.effect_mandelbrot(size, (-2, -number, 1, 1), 50).convert("RGB").save(folder / f"{number:012}.png")
    return {image: folder / f"{number:012}.png" for number, image in enumerate(SIZES, 1)}


def messages_of(ask: Ask) -> list[dict]:
    "As plain transformers takes them: parts in order."
    messages = []
    for r in ask.rounds:
        content, places = [], [offset for _, offset in r.shown]
        for k, (begin, end) in enumerate(pairwise((0, *places, len(r.instruction)))):
            content += [{"type": "image"}] * (k > 0)
            content += [{"type": "text", "text": r.instruction[begin:end]}] if begin < end else []
        messages.append({"role": "user", "content": content})
        if r.response:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": r.response}]})
    return messages


def plain_inputs(family, ask: Ask, album, prompt: bool = True) -> dict:
    "What the checkpoint's own processor makes of the messages."
    from transformers.utils.chat_template_utils import render_jinja_template

    tokenizer, processor = family.tokenizer, family.processor
    template = family.chat_template or processor.chat_template or tokenizer.chat_template
    marks = {name: mark for name, mark in tokenizer.special_tokens_map.items() if isinstance(mark, str)}
    text = render_jinja_template(
        conversations=[messages_of(ask)], chat_template=template, add_generation_prompt=prompt, **marks
    )[0][0]
    if not prompt:
        text = text[: text.rindex(family.template.stop) + len(family.template.stop)]
    pictures = [Image.open(album[image]).convert("RGB") for image in ask.images]
    return dict(processor(text=[text], images=pictures or None, add_special_tokens=False, return_tensors="pt"))


# As llava-interleave's: pictures first, and a line break before each text.
INTERLEAVE = (
    "{% for m in messages %}{{ '<s>' + m.role + ' ' }}{% for c in m.content if c.type == 'image' %}{{ '<image>' }}"
    "{% endfor %}{% for c in m.content if c.type == 'text' %}{{ '\n' + c.text }}{% endfor %}{{ '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant \n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def checkpoints(folders, tmp_path_factory) -> dict[str, Path]:
    interleave = tmp_path_factory.mktemp("interleave") / "llava"
    shutil.copytree(folders["llava"], interleave)
    (interleave / "chat_template.jinja").write_text(INTERLEAVE)
    return folders | {"interleave": interleave}


@pytest.fixture(params=[*EXACT, "interleave"])
def family(request, checkpoints):
    return open_family(checkpoints[request.param])


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_ids_are_those_of_the_processor(family, ask, album):
    wanted = plain_inputs(family, ask, album)["input_ids"][0].tolist()
    ids = ask_ids(family, ask, SIZES)
    assert ids == wanted, family.tokenizer.decode(ids) + "\n" + family.tokenizer.decode(wanted)
    front = family.front_ids([SIZES[image] for image in front_of(family.template, ask)])
    assert ids[: len(front)] == front


def loud(model: torch.nn.Module) -> None:
    "Large random weights: what is said hangs on every token and every place."
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5)


def test_different_pictures_are_answered_in_one_batch(family, album, monkeypatch):
    "As alone, and as by plain transformers; only pictures that take far more tokens than others wait for their own."
    chat, widths = LocalModel(family.path, album, most_tokens=5), []
    loud(chat.model)
    monkeypatch.setattr(local, "greedy", lambda *given: widths.append(len(given[3])) or greedy(*given))
    asks = [Ask.of("Is it safe?", image, before) for image in album for before in ((), [("Why?", "It is calm here.")])]
    together = [reply.text for reply in chat.answer(asks)]
    if family.trees and not family.window:
        assert widths == [len(asks)] if family.type.one_size else sum(widths) == len(asks) and max(widths) > 1
    assert together == [generated(chat, ask, album) for ask in asks]
    assert together == [chat.answer([ask])[0].text for ask in asks]


def test_answers_streams_and_likelihoods_are_those_of_plain_transformers(family, album):
    chat = LocalModel(family.path, album, most_tokens=5)
    loud(chat.model)
    together = chat.answer(list(ASKS.values()))
    wanted = [generated(chat, ask, album) for ask in ASKS.values()]
    assert [reply.text for reply in together] == wanted
    assert (
        len(set(wanted)) > 3 or family.window
    )  # the tiny Gemma-3 says the same of everything, its ids are known above
    for ask, text in zip(ASKS.values(), wanted):
        assert chat.answer([ask])[0].text == text
        assert "".join(chat.stream(ask, Settings(most_tokens=5), Event())).strip() == text
    if family.window:
        return  # weighed behind a picture within the window only
    by_front = {}
    for ask in ASKS.values():
        by_front.setdefault(front_of(family.template, ask), []).append((ask, "Yes, it is."))
    for branches in by_front.values():
        for (ask, answer), likelihood in zip(branches, chat.likelihoods(branches)):
            assert likelihood.logprob == pytest.approx(logprob(chat, ask, answer, album), abs=2e-3)


def generated(chat, ask, album) -> str:
    inputs, stop = plain_inputs(chat.family, ask, album), sorted(chat.family.stops)
    with torch.inference_mode():
        out = chat.model.generate(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=stop, pad_token_id=stop[0])
    answer = out[0, inputs["input_ids"].shape[1] :].tolist()
    ends = [answer.index(token) for token in stop if token in answer]
    return chat.tokenizer.decode(answer[: min(ends, default=len(answer))]).strip()


def logprob(chat, ask, answer: str, album) -> float:
    inputs = plain_inputs(chat.family, ask, album)
    spoken = answer_ids(chat.tokenizer, chat.template, answer) + stop_ids(chat.tokenizer, chat.template)
    before = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([spoken])], 1)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            more = torch.full((1, len(spoken)), int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], more], 1)
    with torch.inference_mode():
        logp = chat.model(**inputs).logits[0, before - 1 : -1].double().log_softmax(-1)
    return logp.gather(1, torch.tensor(spoken)[:, None]).sum().item()


def conversations() -> list[Conversation]:
    "The asks, answered, some about the same first picture."
    made = []
    for number, ask in enumerate(ASKS.values()):
        images = tuple(dict.fromkeys(ask.images))
        rounds = tuple(
            Round(r.instruction, r.response or "It is calm.", shows=tuple((images.index(i), at) for i, at in r.shown))
            for r in ask.rounds
        )
        made.append(Conversation(str(number), images, rounds))
    return made


def as_ask(c: Conversation) -> Ask:
    return Ask(
        tuple(
            AskRound(r.instruction, r.response, tuple(i for i, _ in shown), tuple(at for _, at in shown))
            for r, shown in zip(c.rounds, c.shown)
        )
    )


def doubled(inputs: dict) -> dict:
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def gradients_of(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_trees_are_exact(family, album, tmp_path):
    """Loss and gradients in float64, in trees, in rows of their own and in several rows, against one conversation a
    call of plain transformers with the processor's own tokens and pixels."""
    write_jsonl(tmp_path / "set.jsonl", conversations())
    plan = Plan(cache_tokens(family, tmp_path / "set.jsonl", tmp_path / "plans"), family, 4096, album)
    trees, model, total = list(plan), load_model(family.path).double(), 0.0
    assert plan.table()["kept"] == len(ASKS) and len(trees) < len(ASKS)
    assert [len(tree) for tree in trees] == plan.lengths.tolist()
    by_id = {c.id: as_ask(c) for c in conversations()}
    for tree in alone(trees):
        (branch,) = tree.branches
        inputs = plain_inputs(family, by_id[branch.id], album, prompt=False)
        assert tree.prefix + branch.input_ids == inputs["input_ids"][0].tolist()
        labels = torch.tensor([-100] * len(tree.prefix) + branch.labels)
        logits = model(**doubled(inputs)).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
        loss.backward()
        total += loss.item()
    wanted, pictures = gradients_of(model), Pictures(album, family)
    use_trees(model)
    for rows in ([trees], pack(trees, 2 * max(map(len, trees))), [alone(trees)]):
        model.zero_grad()
        batch = collate(rows, blank=blank_tree(family))
        loss = token_loss(model, batch, pictures.stack(batch.images, "cpu", torch.float64))
        loss.backward()
        assert abs(loss.item() - total) < 1e-8 * total and (gradients_of(model) - wanted).abs().max() < 1e-6


@pytest.fixture(scope="module")
def mixed(small, tmp_path_factory) -> dict[str, str]:
    "A recipe of the small world's first conversations, one of which shows a second picture later."
    from cocoift.conversation import read_conversations

    some = [c for c in read_conversations(small / "set") if len(c.images) == 1]
    first, second = list(dict.fromkeys(c.image for c in some))[:2]
    rounds = (Round("What is here?", "A star.", shows=((0, 0),)), Round("And on ?", "A cross.", shows=((1, 7),)))
    out = tmp_path_factory.mktemp("mixed")
    write_jsonl(out / "set.jsonl", [*some[:6], Conversation("several", (first, second), rounds)])
    options = {
        "model": small / "start",
        "data": out / "set.jsonl",
        "images": small / "world/images",
        "out": out / "run",
    }
    return {name: str(value) for name, value in options.items()} | {"batch": "4", "ranks": "1"}


def typed(mixed: dict, **changed) -> list[str]:
    return ["train", "tiny", *(f"{name}={value}" for name, value in (mixed | changed).items()), "--dry-run"]


def test_a_dry_run_shows_a_row_of_several_pictures(mixed, capsys):
    from cocoift.cli.main import app

    app(typed(mixed), standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "And on" in line]
    assert row.endswith("[[ A star.</s>]]USER: <image> x 9\\nAnd on ? ASSISTANT:[[ A cross.</s>]]"), row
    assert "several images: 0" in lines and "kept: 7" in lines


def test_llava_json_and_messages_are_trained_as_they_are(mixed, tmp_path, capsys):
    "Pictures by their file names, in the first question and within a later one."
    from cocoift.cli.main import app

    files = [str(path.relative_to(mixed["images"])) for path in sorted(Path(mixed["images"]).rglob("*.png"))[:2]]
    asked, answers = ("<image>\nWhat is here?", "And on <image>?"), ("A star.", "A cross.")
    turns = [
        {"from": speaker, "value": text}
        for pair in zip(asked, answers)
        for speaker, text in zip(("human", "gpt"), pair)
    ]
    parts = [[{"type": "image"}, {"type": "text", "text": "What is here?"}]]
    parts += [[{"type": "text", "text": "And on "}, {"type": "image"}, {"type": "text", "text": "?"}]]
    messages = [
        {"role": role, "content": content}
        for pair in zip(parts, answers)
        for role, content in zip(("user", "assistant"), pair)
    ]
    gone = {"id": "2", "image": "coco/train2017/000000999999.jpg", "conversations": turns[:2]}
    llava = [{"id": "1", "image": files, "conversations": turns}, gone]
    (tmp_path / "llava.json").write_text(json.dumps(llava))
    (tmp_path / "llava.jsonl").write_text("".join(json.dumps(record) + "\n" for record in llava))
    (tmp_path / "messages.jsonl").write_text(json.dumps({"messages": messages, "images": files}) + "\n")
    for name in ("llava.json", "llava.jsonl", "messages.jsonl"):
        app(typed(mixed, data=tmp_path / name, missing="drop"), standalone_mode=False)
        lines = capsys.readouterr().out.splitlines()
        (row,) = [line for line in lines if "And on" in line]
        assert row.endswith("[[ A star.</s>]]USER: <image> x 9\\nAnd on ? ASSISTANT:[[ A cross.</s>]]"), row
        assert "kept: 1" in lines and f"no picture: {int('llava' in name)}" in lines


def test_rows_of_pairs_are_read_the_same_from_json_and_lines_and_not_from_parquet(mixed, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cocoift.cli.main import app
    from cocoift.files import UserError

    name = next(path.name for path in Path(mixed["images"]).rglob("*.png"))
    pair = {"images": [name], "texts": [{"user": "What is here?", "assistant": "A star."}]}
    (tmp_path / "pair.json").write_text(json.dumps([pair]))
    (tmp_path / "pair.jsonl").write_text(json.dumps(pair) + "\n")
    for made in ("pair.json", "pair.jsonl"):
        app(typed(mixed, data=tmp_path / made), standalone_mode=False)
        assert "kept: 1" in capsys.readouterr().out.splitlines()
    pq.write_table(pa.Table.from_pylist([pair]), tmp_path / "pair.parquet")
    (tmp_path / "query.jsonl").write_text(json.dumps({"query": "What?", "response": "A star."}) + "\n")
    for made, wrong in (("pair.parquet", "only the lab's own rows"), ("query.jsonl", "record 1 has 'query' and")):
        with pytest.raises(UserError, match=f"{made}: {wrong}"):
            app(typed(mixed, data=tmp_path / made), standalone_mode=False)


def test_a_template_without_places_for_them_says_so_in_one_line(mixed, tmp_path, capsys):
    from cocoift.cli.main import app

    shutil.copytree(mixed["model"], tmp_path / "start")
    (tmp_path / "start/chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {% for c in m.content %}"
        "{{ c.text if c.type == 'text' else '<image>' if loop.first and m == messages[0] else '' }}"
        "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    app(typed(mixed, model=tmp_path / "start", out=tmp_path / "run"), standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    (note,) = [line for line in lines if "left out" in line]
    assert note == (
        "conversations of several pictures, or of a later one, are left out: 1 (llava: its chat template does not say "
        "where several pictures stand: mend chat_template.jinja)"
    )
    assert "several images: 1" in lines and "kept: 6" in lines
    assert '"fate": "several_images"' in (tmp_path / "run-left-out.jsonl").read_text()
    chat = LocalModel(tmp_path / "start", mixed["images"], most_tokens=2)
    first = next(iter(chat.pictures))
    one, two = chat.answer([Ask.of("Hi", first), Ask((AskRound("Hi", "Hello"), AskRound("And?", images=(first,))))])
    assert (one.status, two.status) == ("ok", "unfit") and two.why == chat.family.one_picture
