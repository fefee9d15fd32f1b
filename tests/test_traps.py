"""What runs without an error in transformers and DeepSpeed and gives a wrong number (training.md, A6): each of it is
refused."""

import json
import shutil

import pytest
import torch

from cocoift.files import UserError
from cocoift.models.family import open_family
from cocoift.train.attention import block_mask, guard, tree_attention, use_trees
from cocoift.train.model import random_llava
from cocoift.train.tokens import Tokens
from cocoift.train.tree import Tree, collate, token_loss

ROWS = collate(
    [[Tree("a", [1, 2] + [49] * 4, (Tokens([3, 4, 5], [False, True, True]), Tokens([6, 7], [False, True])))]]
)
RIGHT = dict(
    input_ids=ROWS.input_ids,
    attention_mask=ROWS.attention_mask,
    position_ids=ROWS.position_ids,
    use_cache=False,
    pixel_values=torch.ones(1, 3, 32, 32),
)
ONES = torch.ones_like(ROWS.input_ids)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = random_llava(vocabulary=50, image_token=49, image_size=32, patch=16)
    guard(made)
    return made


@pytest.mark.parametrize(
    "attention, changed, says",
    [
        ("eager", {}, "trees need attn_implementation='sdpa'"),  # adds the table's truths to the scores
        ("flash_attention_2", {}, "trees need attn_implementation='sdpa'"),  # knows no table
        ("flex_attention", {}, "adds a boolean table"),
        ("sdpa", {"attention_mask": ONES}, "does not say who sees whom"),  # conversations see each other
        ("sdpa", {"attention_mask": None}, "does not say who sees whom"),  # branches no longer see their image
        ("sdpa", {"attention_mask": None, "use_cache": None}, "does not say who sees whom"),
        ("sdpa", {"attention_mask": ROWS.attention_mask.long()}, "torch.int64"),
        ("sdpa", {"use_cache": True}, "use_cache must be False"),
        ("sdpa", {"use_cache": None}, "use_cache must be False"),  # transformers' default
    ],
)
def test_a_call_that_would_be_silently_wrong(model, attention, changed, says):
    text = model.config.get_text_config()
    text._attn_implementation, before = attention, text._attn_implementation
    try:
        with pytest.raises(ValueError, match=says):
            model.model(**RIGHT | changed)
    finally:
        text._attn_implementation = before


def test_the_right_call_passes(model):
    assert model.model(**RIGHT).last_hidden_state.isfinite().all()
    # one conversation a row is everybody's own affair
    alone = RIGHT | {"attention_mask": None, "position_ids": None, "use_cache": None}
    assert model.model(**alone).last_hidden_state.isfinite().all()


def test_our_own_loss_refuses_too(model, monkeypatch):
    pictures = {"pixel_values": RIGHT["pixel_values"]}
    for attention, says in (
        ("eager", "trees need"),
        ("flash_attention_2", "trees need"),
        ("flex_attention", "no backward pass on a CPU"),
    ):
        with monkeypatch.context() as m:
            m.setattr(model.config.get_text_config(), "_attn_implementation", attention)
            with pytest.raises(ValueError, match=says):
                token_loss(model, ROWS, pictures)
    text = collate([[Tree("none:x", [1, 2], (Tokens([3, 4], [False, True]),))]])
    assert token_loss(model, text, {}).isfinite()  # alone there is nobody to mix gradients with
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *a: 2)
    with pytest.raises(ValueError, match="a batch without a picture"):
        token_loss(model, text, {})
    with pytest.raises(ValueError, match="multiple of 128"):
        block_mask(ROWS.spans)


@pytest.mark.parametrize("reentrant, says", [(True, "use_reentrant=False"), (False, "no backward pass on a CPU")])
def test_a_block_mask_under_checkpointing(model, reentrant, says):
    rows = collate(
        [[Tree("a", [1, 2] + [49] * 4, (Tokens([3, 4, 5], [False, True, True]), Tokens([6, 7], [False, True])))]],
        multiple=128,
    )
    given = RIGHT | dict(
        input_ids=rows.input_ids, attention_mask=block_mask(rows.spans), position_ids=rows.position_ids
    )
    model.train().activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    try:
        with pytest.raises(ValueError, match=says):
            model.model(**given)
    finally:
        model.eval().activation_checkpointing_disable()


def test_flex_attention_sees_what_the_table_says():
    "Its forward pass, not compiled, as it runs on a CPU: two queries' heads share a key's."
    torch.manual_seed(0)
    trees = [
        Tree("a", [1] * 40, (Tokens([3] * 10, [True] * 10), Tokens([3] * 70, [True] * 70))),
        Tree("b", [1] * 90, (Tokens([3] * 5, [True] * 5), Tokens([3] * 5, [True] * 5))),
    ]
    rows = collate([trees, trees[1:]], multiple=128)
    query, key, value = (torch.randn(2, heads, rows.input_ids.shape[1], 16) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True
    (flex, _), (table, _) = (
        tree_attention(module, query, key, value, mask, scaling=0.3)
        for mask in (block_mask(rows.spans), rows.attention_mask)
    )
    assert (flex - table).abs().max() < 1e-5
    causal, _ = tree_attention(module, query, key, value, torch.ones_like(rows.attention_mask).tril(), scaling=0.3)
    assert (flex - causal).abs().max() > 1e-2  # the comparison can fail


def test_dropout_that_flex_attention_would_leave_out():
    spans = collate([[Tree("a", [1] * 100, (Tokens([3] * 10, [True] * 10),))]], multiple=128).spans
    some = torch.randn(1, 2, 128, 8)
    with pytest.raises(ValueError, match="attention_dropout=0"):
        tree_attention(torch.nn.Module(), some, some, some, block_mask(spans), dropout=0.1)


def test_a_mask_that_lost_its_cuts_is_still_right(model):
    "Trainers move batches between devices, and what hangs on a tensor is gone; the table then says the same."
    before = model.config.get_text_config()._attn_implementation
    with torch.no_grad():
        whole = model.model(**RIGHT).last_hidden_state
        use_trees(model)
        try:
            from cocoift.train.tree import attention_of

            cut = attention_of(model, ROWS)
            assert cut.cuts and not hasattr(cut.clone(), "cuts")
            for mask in (cut, cut.clone()):
                assert (model.model(**RIGHT | {"attention_mask": mask}).last_hidden_state - whole).abs().max() < 1e-5
        finally:
            model.set_attn_implementation({"text_config": before})


@pytest.mark.parametrize(
    "key, value", [("num_additional_image_tokens", 0), ("patch_size", 7), ("vision_feature_select_strategy", "full")]
)
def test_a_processor_that_counts_other_image_tokens_than_its_model(small, tmp_path, key, value):
    shutil.copytree(small / "start", tmp_path / "start")
    told = json.loads((tmp_path / "start/processor_config.json").read_text())
    assert told[key] != value
    (tmp_path / "start/processor_config.json").write_text(json.dumps(told | {key: value}))
    with pytest.raises(UserError, match="its processor would write .* image tokens, its model looks at"):
        open_family(tmp_path / "start")
