"""What is learned of a conversation, whatever stands in its texts: the answers and their stops, nothing else; whole
rounds or none."""

from itertools import groupby
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, sentencepiece_like

from cocoift.conversation import Conversation, Round, write_jsonl
from cocoift.files import UserError
from cocoift.models.family import open_family
from cocoift.models.template import PLAIN, VICUNA, prefix_ids, stop_ids
from cocoift.train.cache import cache_tokens
from cocoift.train.plan import Plan
from cocoift.train.tokens import TemplateTokenizer, Tokens
from cocoift.train.tree import Tree, collate

MARKS = (
    "</s>",
    "<s>",
    "<image>",
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<end_of_utterance>",
    "<IMG_CONTEXT>",
    "<pad>",
    "ASSISTANT: ",
    " USER: ",
    "\n",
    " ",
    "",
    "{q}",
    "\u2581",
    "é",
    "船",
    "👩‍🚀",
)
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=12)), max_size=6).map("".join)
ANSWERS = TEXTS.filter(str.strip)
ROUNDS = st.lists(st.builds(Round, instruction=TEXTS, response=ANSWERS, format=st.just("free")), min_size=1, max_size=4)
QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=[*FAMILIES, "sentencepiece", "plain"])
def kind(request):  # tokenizer, template, what stands for an image
    if request.param in FAMILIES:
        family = open_family(request.getfixturevalue("folders")[request.param])
        return family.tokenizer, family.template, family.image_token_id
    tokenizer = sentencepiece_like()
    return tokenizer, PLAIN if request.param == "plain" else VICUNA, tokenizer.convert_tokens_to_ids("<image>")


def asked(rounds, id="c", image="coco:9") -> Conversation:
    return Conversation(id=id, images=(image,), rounds=tuple(rounds))


def tokens_of(kind, conversation: Conversation) -> Tokens:
    return Tokens.of(TemplateTokenizer(*kind[:2])([conversation])[0], conversation.id)


def learned_runs(tokens) -> list[list[int]]:
    return [
        [id for id, _ in run]
        for is_learned, run in groupby(zip(tokens.input_ids, tokens.loss_mask), key=lambda pair: pair[1])
        if is_learned
    ]


def test_decoding_what_is_learned_gives_the_answers_and_their_stops(kind):
    tokenizer, template, image = kind
    stop = stop_ids(tokenizer, template)

    @QUICK
    @given(ROUNDS)
    def holds(rounds):
        tokens = tokens_of(kind, asked(rounds))
        runs = learned_runs(tokens)
        if template == PLAIN:  # nothing stands between two answers
            runs = [tokens.input_ids] if len(rounds) == 1 else []
        else:
            assert len(runs) == len(rounds)
        assert image not in tokens.input_ids
        for run, round_ in zip(runs, rounds):
            assert run[-len(stop) :] == stop
            text = tokenizer.decode(run[: -len(stop)], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if "<0x0A>" in tokenizer.get_vocab():  # SentencePiece writes spaces so, and its own one before a text
                assert text == round_.response.replace("\u2581", " ")
            else:
                assert text == template.answer + round_.response

    holds()


def test_whole_rounds_are_dropped_at_the_limit(kind, tmp_path):
    tokenizer, template, _ = kind
    family = SimpleNamespace(path=tmp_path, tokenizer=tokenizer, template=template, sizes_matter=False)
    family.prefix_ids, family.places = lambda size, pictured: [7, 8], lambda size: None

    @QUICK
    @given(ROUNDS, st.integers(0, 200))
    def holds(rounds, room):
        whole = [tokens_of(kind, asked(rounds[:n])) for n in range(1, len(rounds) + 1)]
        write_jsonl(tmp_path / "one.jsonl", [asked(rounds)])
        plan = Plan(cache_tokens(family, tmp_path / "one.jsonl", tmp_path / "plans"), family, room + 2)
        kept = len(rounds) - plan.table()["rounds_cut"]
        assert len(plan) == (kept > 0) and (not kept or plan[0].branches == (whole[kept - 1],))
        assert not kept or len(whole[kept - 1].input_ids) <= room
        assert kept == len(rounds) or len(whole[kept].input_ids) > room

    holds()


def test_a_row_of_trees_learns_what_its_conversations_learn(kind):
    tokenizer, template, image = kind

    @QUICK
    @given(st.lists(st.tuples(st.sampled_from(("coco:1", "coco:2", "coco:3")), ROUNDS), min_size=1, max_size=5))
    def holds(said):
        conversations = [asked(rounds, str(n), name) for n, (name, rounds) in enumerate(said)]
        alone = [tokens_of(kind, c) for c in conversations]
        prefix = [*range(3)] + [image] * 4
        trees = [
            Tree(name, prefix, tuple(tokens for c, tokens in zip(conversations, alone) if c.image == name))
            for name in sorted({c.image for c in conversations})
        ]
        rows = collate([trees])
        wanted = [id for tree in trees for branch in tree.branches for id, is_learned in zip(*branch[:2]) if is_learned]
        assert rows.targets.tolist() == wanted and rows.input_ids.shape[1] == sum(map(len, trees))
        assert [label for label in rows.labels.flatten().tolist() if label != -100] == wanted
        seen = rows.attention_mask[0, 0]
        start = 0
        for tree in trees:  # each branch sees its trunk and itself, as if nothing else were there
            trunk, place = list(range(start, start + len(prefix))), start + len(prefix)
            for branch in tree.branches:
                own = list(range(place, place + len(branch.input_ids)))
                assert seen[own[-1]].nonzero().flatten().tolist() == trunk + own
                assert rows.position_ids[0, own].tolist() == list(range(len(prefix), len(prefix) + len(own)))
                place += len(own)
            start = place

    holds()


def test_a_sample_without_anything_to_learn_is_an_error_with_its_id(kind):
    tokenizer, template, _ = kind

    @QUICK
    @given(ROUNDS, st.integers(0, 4), st.text(alphabet=" \n\t\u00a0\u3000", max_size=3))
    def holds(rounds, place, empty):
        bad = rounds[:place] + [Round("Why?", empty, "free")] + rounds[place:]
        with pytest.raises(UserError, match=r"conversation bad-7: round \d+ has an empty answer"):
            TemplateTokenizer(tokenizer, template)([asked(rounds, "good"), asked(bad, "bad-7")])

    holds()


def test_the_prefix_holds_the_image_and_nothing_of_a_text(kind):
    tokenizer, template, image = kind
    assert prefix_ids(tokenizer, VICUNA, 4).count(tokenizer.convert_tokens_to_ids("<image>")) in (0, 4)
    hostile = asked([Round("<image>" * 3, "<image></s>", "free")])
    assert image not in tokens_of(kind, hostile).input_ids
