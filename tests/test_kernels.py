"What attends, what comes to the loss, and who shares rows: refused in one line where it cannot be right."

import json
import subprocess
import sys

import pytest


def asked(small, tmp_path, **options):
    from cocoift.train.recipe import TrainRecipe

    paths = {"model": small / "start", "data": small / "set", "images": small / "world/images", "out": tmp_path / "run"}
    return TrainRecipe(**paths | {"steps": 2, "batch": 4, "lr": 1e-3, "recompute": False} | options)


@pytest.mark.parametrize(
    ("options", "contains"),
    [
        ({"attention": "flash"}, "attention"),
        ({"cross_entropy": "fused"}, "cross_entropy"),
        ({"sequence_parallel": 0}, "sequence_parallel"),
        ({"sequence_parallel": 2, "ranks": 3}, "sequence_parallel=2 ranks=3: so many ranks share each row"),
        (
            {"loss": "history", "train": "adapters", "lora_r": 4, "sequence_parallel": 2},
            "loss=history sequence_parallel=2 cross_entropy=auto: it compares states of whole rows",
        ),
    ],
)
def test_what_a_recipe_refuses(small, tmp_path, options, contains):
    with pytest.raises(ValueError) as refusal:
        asked(small, tmp_path, **options)
    assert contains in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "contains"),
    [
        ({"attention": "flex"}, "attention=flex: needs a GPU: FlexAttention and its like have no backward pass"),
        ({"attention": "flex-flash"}, "attention=flex-flash: needs a GPU"),
        ({"attention": "ffa"}, "attention=ffa: needs a GPU"),
        ({"cross_entropy": "liger"}, "cross_entropy=liger: needs "),
        ({"sequence_parallel": 2}, "sequence_parallel=2: so many ranks share each row, and there are 1"),
        (
            {"sequence_parallel": 3, "ranks": 3},
            "sequence_parallel=3: the model has 4 heads of queries and 4 of keys, which so many ranks cannot share: "
            "set it to a divisor of 4",
        ),
    ],
)
def test_refused_before_any_process_starts(small, tmp_path, monkeypatch, options, contains):
    from cocoift.files import UserError
    from cocoift.train.launch import train

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with pytest.raises(UserError) as refusal:
        train(asked(small, tmp_path, **options))
    assert contains in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_rows_of_other_families_are_not_shared(folders, small, tmp_path):
    from cocoift.files import UserError
    from cocoift.train.prepare import check_run

    name = next(name for name in folders if "qwen" in name)
    with pytest.raises(UserError, match="nobody has seen that a qwen.* model is exact so"):
        check_run(asked(small, tmp_path, model=folders[name], sequence_parallel=2, ranks=2))


def test_a_wrong_kernel_ends_a_run_before_its_first_step(small, tmp_path, monkeypatch):
    "As flash-attention#2623 was: exact forwards, wrong gradients at head size 64 alone, no error."
    import torch
    from transformers import AutoConfig

    from cocoift.files import UserError
    from cocoift.train.attention import attend_by_mask, dense_mask
    from cocoift.train.kernels import KERNELS
    from cocoift.train.step import choose_ways

    class TooLarge(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * 150

    def attend(module, query, key, value, mask, **kwargs):
        return attend_by_mask(module, query, key, TooLarge.apply(value) if value.shape[-1] == 64 else value, mask)

    def mask(spans, cuts):
        table = dense_mask(spans)
        table.attend = attend
        return table

    recipe, config = asked(small, tmp_path, attention="dense"), AutoConfig.from_pretrained(small / "start")
    assert choose_ways(recipe, config.get_text_config())["attention"].name == "dense"
    monkeypatch.setitem(KERNELS, "dense", KERNELS["dense"]._replace(mask=mask))
    with pytest.raises(UserError) as refusal:
        choose_ways(recipe, config.get_text_config())
    assert "attention=dense: is not used on this device: dense: value gradients at head size 64 are off by" in str(
        refusal.value
    )
    automatic = choose_ways(recipe.model_copy(update={"attention": "auto"}), config.get_text_config())
    assert automatic["attention"].name == "by-tree"


def test_a_run_says_what_it_used_and_keeps_it(small, tmp_path, forked):
    from cocoift.train.launch import train
    from cocoift.train.prepare import check_run, settle_recipe

    recipe = asked(small, tmp_path, ranks=1, attention="varlen")
    run, plan, family = check_run(recipe)
    settled = settle_recipe(recipe, run["conversations"], plan.sizes_of(True))
    recipe.out.mkdir()
    (recipe.out / "run.json").write_text(json.dumps(run))
    done = forked(json.loads(settled.model_dump_json()))
    assert set(done["codes"]) == {0}, done["log"]
    used = json.loads((recipe.out / "kernels.json").read_text())
    assert (used["attention"]["taken"], used["cross_entropy"]["taken"]) == ("varlen", "chunked")
    assert used["attention"]["tried"]["varlen"]["refusal"] is None
    told = train(recipe.model_copy(update={"attention": "auto"}))  # done: only told again
    assert (told["attention"], told["cross_entropy"]) == ("varlen", "chunked")


@pytest.mark.slow
def test_flagperf_tells_all_ways_in_its_units(root):
    command = [sys.executable, "tests/bench/train.py", "--flagperf", "--toy"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    ways = (told := json.loads(done.stdout.splitlines()[-1]))["ways"]
    assert set(ways) == {"llava", "packed", "trees"} and told["published"]["tokens_per_s_per_gpu"] == 2937
    assert all(way["tokens_per_s_per_gpu"] > 0 and 0 <= way["padding"] < 1 for way in ways.values())
    assert ways["packed"]["effective_tokens_per_s_per_gpu"] == ways["packed"]["tokens_per_s_per_gpu"]
    assert ways["trees"]["effective_tokens_per_s_per_gpu"] > ways["trees"]["tokens_per_s_per_gpu"]
