"What is learned of a conversation, whatever stands in its texts: the answers and their stops, nothing else; whole rounds or none."

from itertools import groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, sentencepiece_like

from cocoift.conversation import Conversation, Round
from cocoift.files import UserError
from cocoift.models.family import open_family
from cocoift.models.template import PLAIN, VICUNA, prefix_ids, stop_ids
from cocoift.train.tokens import Speller, conversation_tokens
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


def learned_runs(tokens) -> list[list[int]]:
    return [
        [id for id, _ in run]
        for is_learned, run in groupby(zip(tokens.ids, tokens.learned), key=lambda pair: pair[1])
        if is_learned
    ]


def test_decoding_what_is_learned_gives_the_answers_and_their_stops(kind):
    tokenizer, template, image = kind
    stop = stop_ids(tokenizer, template)

    @QUICK
    @given(ROUNDS)
    def holds(rounds):
        tokens, lost = conversation_tokens(tokenizer, template, asked(rounds), 10**6)
        runs = learned_runs(tokens)
        if template == PLAIN:  # nothing stands between two answers
            runs = [tokens.ids] if len(rounds) == 1 else []
        else:
            assert len(runs) == len(rounds)
        assert lost == 0 and image not in tokens.ids
        for run, round_ in zip(runs, rounds):
            assert run[-len(stop) :] == stop
            text = tokenizer.decode(run[: -len(stop)], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if "<0x0A>" in tokenizer.get_vocab():  # SentencePiece writes spaces so, and its own one before a text
                assert text == round_.response.replace("\u2581", " ")
            else:
                assert text == template.answer + round_.response

    holds()


def test_whole_rounds_are_dropped_at_the_limit(kind):
    tokenizer, template, _ = kind

    @QUICK
    @given(ROUNDS, st.integers(0, 200))
    def holds(rounds, room):
        whole = [
            conversation_tokens(tokenizer, template, asked(rounds[:n]), 10**6)[0] for n in range(1, len(rounds) + 1)
        ]
        tokens, lost = conversation_tokens(tokenizer, template, asked(rounds), room)
        kept = len(rounds) - lost
        assert len(tokens.ids) <= room and (tokens == whole[kept - 1] if kept else not tokens.ids)
        assert not lost or len(whole[kept].ids) > room

    holds()


def test_a_row_of_trees_learns_what_its_conversations_learn(kind):
    tokenizer, template, image = kind

    @QUICK
    @given(st.lists(st.tuples(st.sampled_from(("coco:1", "coco:2", "coco:3")), ROUNDS), min_size=1, max_size=5))
    def holds(said):
        conversations = [asked(rounds, str(n), name) for n, (name, rounds) in enumerate(said)]
        alone = [conversation_tokens(tokenizer, template, c, 10**6)[0] for c in conversations]
        prefix = [*range(3)] + [image] * 4
        trees = [
            Tree(name, prefix, tuple(tokens for c, tokens in zip(conversations, alone) if c.image == name))
            for name in sorted({c.image for c in conversations})
        ]
        rows = collate([trees])
        wanted = [id for tree in trees for branch in tree.branches for id, is_learned in zip(*branch[:2]) if is_learned]
        assert rows.what.tolist() == wanted and rows.ids.shape[1] == sum(map(len, trees))
        seen = rows.mask[0, 0]
        start = 0
        for tree in trees:  # each branch sees its trunk and itself, as if nothing else were there
            trunk, place = list(range(start, start + len(prefix))), start + len(prefix)
            for branch in tree.branches:
                own = list(range(place, place + len(branch.ids)))
                assert seen[own[-1]].nonzero().flatten().tolist() == trunk + own
                assert rows.positions[0, own].tolist() == list(range(len(prefix), len(prefix) + len(own)))
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
            Speller(tokenizer, template)([asked(rounds, "good"), asked(bad, "bad-7")])

    holds()


def test_the_prefix_holds_the_image_and_nothing_of_a_text(kind):
    tokenizer, template, image = kind
    assert prefix_ids(tokenizer, VICUNA, 4).count(tokenizer.convert_tokens_to_ids("<image>")) in (0, 4)
    assert not conversation_tokens(tokenizer, template, asked([Round("<image>" * 3, "<image></s>", "free")]), 10**6)[
        0
    ].ids.count(image)
