"""What is learned does not depend on how the work is spread: ranks, accumulation, ZeRO's stages and a change of all
of them in mid-run give the losses of one plain torch process."""

import pytest
import torch


def plainly(recipe, steps: int, layout=list) -> tuple[list[float], dict]:
    """The same steps without DeepSpeed: all trees in one batch, torch's AdamW and clipping. Losses, and the
    gradients of the first step."""
    from cocoift.models.family import open_family
    from cocoift.train.family import load_model
    from cocoift.train.loop import read_plan
    from cocoift.train.pictures import Pictures
    from cocoift.train.tree import collate, token_loss

    model, family = load_model(recipe.model), open_family(recipe.model)
    plan, paths = read_plan(recipe, family)
    pictures = Pictures(paths, family)
    rows = collate([[tree] for tree in layout(plan)], recipe.weighting)
    pixels = pictures.stack(rows.images, "cpu", torch.float32)
    optimizer, losses, gradients = (
        torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=0.0),
        [],
        {},
    )
    for _ in range(steps):
        loss = token_loss(model, rows, pixels) / rows.weights.sum()
        optimizer.zero_grad()
        loss.backward()
        gradients = gradients or {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses, gradients


@pytest.fixture(scope="module")
def told(small, tmp_path_factory) -> dict:
    """A recipe of four images, and of three, a conversation that has none, one that shows a second picture in its
    second round and one that begins without."""
    from itertools import islice

    from cocoift.conversation import Conversation, Round, conversation, read_conversations, write_jsonl

    folder, by_image = tmp_path_factory.mktemp("exact"), {}
    for c in read_conversations(small / "set"):
        by_image.setdefault(c.image, []).append(c)
    images = [some[:3] for some in islice(by_image.values(), 4)]
    text = conversation(None, ("Is there a star?", "No, without an image there is no star."), id="text")
    write_jsonl(folder / "images.jsonl", [c for some in images for c in some])
    first, second = (some[0].image for some in images[:2])
    two = Round("And on  ?", "A star.", shows=((1, 7), (0, 8)))
    several = [
        Conversation("both", (first, second), (Round("What is here?", "A cross.", shows=((0, 0),)), two)),
        Conversation("late", (first, second), (Round("Hello", "Hello."), two)),
    ]
    # a rank gets the one without a picture
    write_jsonl(folder / "mixed.jsonl", [*(c for some in images[:3] for c in some), text])
    write_jsonl(folder / "few.jsonl", [*(c for some in images[:2] for c in some), *images[2][:1], text, *several])
    return {
        "model": str(small / "start"),
        "data": str(folder / "mixed.jsonl"),
        "images": str(small / "world/images"),
        "out": str(folder / "run"),
        "train": "all",
        "steps": 3,
        "lr": 3e-3,
        "recompute": False,
        "ranks": 2,
        "sets": {name: str(folder / f"{name}.jsonl") for name in ("images", "mixed", "few")},
        "gradients": str(folder / "gradients.pt"),
    }


def recipe_of(told: dict, **changed):
    from cocoift.train.recipe import TrainRecipe

    return TrainRecipe.model_validate(
        {key: value for key, value in told.items() if key not in ("sets", "gradients")} | changed
    )


@pytest.fixture(scope="module")
def separate(told) -> dict[str, float]:
    """The loss of one step by weighting, a row of its own for each conversation, in plain torch; its gradients lie
    where `told` says."""
    from cocoift.train.pack import alone

    found = {
        weighting: plainly(recipe_of(told, data=told["sets"]["few"], weighting=weighting), 1, alone)
        for weighting in ("token", "root", "equal")
    }
    torch.save({weighting: gradients for weighting, (_, gradients) in found.items()}, told["gradients"])
    return {weighting: losses[0] for weighting, (losses, _) in found.items()}


@pytest.fixture(scope="module")
def two(told, separate, ranked) -> dict:
    return ranked("spread+shared+matrix+save+naive", 2, told)


@pytest.fixture(scope="module")
def one(told, two, ranked) -> dict:
    return ranked("locked+spread+load", 1, told | {"ranks": 1})


def test_nobody_waits_for_a_build_that_was_killed(one):
    assert one["locked"] == ["lock"]


@pytest.mark.parametrize("ranks", ["two", "one"])
def test_packing_layout_accumulation_and_ranks_change_nothing(separate, ranks, request):
    """Loss and gradients of one step are those of a row a conversation, whatever the rows, the trees, the
    accumulation, the stage and the number of ranks, under each weighting."""
    found = request.getfixturevalue(ranks)["spread"]
    assert len(found) == 3 * 5 and len({round(loss, 4) for loss in separate.values()}) == 3
    wrong = {
        cell: (loss, far)
        for cell, (loss, far) in found.items()
        if loss != pytest.approx(separate[cell.split(", ")[-1]], abs=2e-5) or far > 1e-3
    }
    assert wrong == {}, separate


def test_rows_that_ranks_share_change_nothing(separate, two):
    "Ulysses: each of two ranks has half of every row's tokens and half of the heads."
    found = two["shared"]
    assert len(found) == 3 * 3
    wrong = {
        cell: (loss, far)
        for cell, (loss, far) in found.items()
        if loss != pytest.approx(separate[cell.split(", ")[-1]], abs=2e-5) or far > 1e-3
    }
    assert wrong == {}, separate


def test_ranks_accumulation_and_zero_change_nothing(told, two):
    found = two["matrix"]
    assert len(found) == 2 * 4
    for name in "images", "mixed":
        wanted, _ = plainly(recipe_of(told, data=told["sets"][name]), 3)
        assert wanted[2] < wanted[0]
        assert {
            cell: losses
            for cell, losses in found.items()
            if cell.startswith(name) and losses != pytest.approx(wanted, abs=2e-5)
        } == {}, wanted


def test_a_checkpoint_goes_on_at_any_stage_and_number_of_ranks(told, two, one, ranked):
    saved, plain = two["save"], plainly(recipe_of(told), 4)[0][2:]
    assert {cell: losses for cell, losses in saved.items() if losses != pytest.approx(plain, abs=2e-5)} == {}, plain
    again = ranked("load", 2, told)["load"]
    assert len(again) == 8
    for zero in range(4):  # at the same stage and number of ranks to the last bit
        assert again[f"zero {zero} -> {zero}"] == saved[f"zero {zero}"]
    for found in again, one["load"]:
        assert {cell: losses for cell, losses in found.items() if losses != pytest.approx(plain, abs=2e-5)} == {}, plain


def test_a_rank_without_pictures(two):
    """ZeRO-2 sums its buckets in the order in which gradients arrive: a rank that touches the projector elsewhere in
    its graph mixes up parameters without an error. Ours does not."""
    found = two["naive"]
    wanted = found["zero 0"]["naive"]
    assert max(abs(a - b) for a, b in zip(found["zero 2"]["naive"], wanted)) > 1e-3
    for zero in "zero 0", "zero 2":
        assert found[zero]["ours"] == pytest.approx(wanted, abs=2e-5)
