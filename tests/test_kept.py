"""Nothing is lost: ranks that are killed, stopped, or find the disk full, and what each way of training leaves
behind. The ranks come from `forks.py`: one import for all runs."""

import json
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch

STEPS = 8


@pytest.fixture(scope="module")
def recipe(small) -> dict:
    return {
        "model": str(small / "start"),
        "data": str(small / "set"),
        "images": str(small / "world/images"),
        "train": "all",
        "ranks": 2,
        "steps": STEPS,
        "batch": 8,
        "micro_batch": 2,
        "row_tokens": 512,
        "max_length": 512,
        "lr": 1e-3,
        "checkpoint": 2,
        "zero": 2,
        "recompute": False,
    }


@pytest.fixture(scope="module")
def whole(forked, recipe, tmp_path_factory) -> Path:
    "A run that nothing disturbed, on two ranks at stage 2."
    run = tmp_path_factory.mktemp("whole") / "run"
    done = forked(recipe | {"out": str(run)})
    assert done["codes"] == [0, 0] and not done["told"], done
    assert points(run) == [4, 6]  # keep=2, and none after the last step
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def points(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss"] for line in lines]


def messages(done: dict, kind: str) -> set[str]:
    return {line["message"] for line in done["told"] if line["kind"] == kind}


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_a_random_step(forked, recipe, whole, tmp_path, ranks, zero):
    """Killed and run again as it was: the losses of the run that nothing disturbed, to the byte where ranks and
    stage are the same."""
    # of which only the steps up to the last checkpoint are kept
    run, step = (tmp_path / "run", random.randrange(3, STEPS))
    own = recipe | {"out": str(run), "ranks": ranks, "zero": zero}
    done = forked(own, after=step, signal=signal.SIGKILL)
    assert (
        set(done["codes"]) == {-signal.SIGKILL} and not (run / "train.json").exists() and not (run / "model").exists()
    ), done
    shutil.copytree(run, tmp_path / "torn")
    done = forked(own)
    assert (
        set(done["codes"]) == {0}
        and messages(done, "note") <= {f"going on after step {k}" for k in (2, 4, 6)}
        and done["told"]
    ), done
    assert losses(run) == pytest.approx(losses(whole), abs=5e-5) and not list(run.rglob("*.partial"))
    if (ranks, zero) == (2, 2):
        assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes() and (
            run / "train.json"
        ).read_bytes() == (whole / "train.json").read_bytes()
        assert contents(run / "model") == contents(whole / "model")
        gone_on_elsewhere(forked, own | {"out": str(tmp_path / "torn")}, whole)


def gone_on_elsewhere(forked, recipe: dict, whole: Path) -> None:
    "The last checkpoint is altered: the one before is taken, or none, at another number of ranks and another stage."
    run = Path(recipe["out"])
    torn = sorted((run / "checkpoints").glob("step-*/rank-0000-*"))[-1]
    with open(torn, "rb+") as file:
        file.seek(-8, 2)
        file.write(bytes(8))
    done = forked(recipe | {"ranks": 1, "zero": 3})
    assert done["codes"] == [0] and any(
        "was altered after it was written" in text for text in messages(done, "note")
    ), done
    assert losses(run) == pytest.approx(losses(whole), abs=5e-5)


def test_asked_to_stop(forked, recipe, whole, tmp_path):
    "SIGTERM to the ranks, as a scheduler sends it: a checkpoint at the step where it comes."
    own = recipe | {"out": str(tmp_path / "run"), "checkpoint": 100}
    done = forked(own, after=2, signal=signal.SIGTERM)
    [step] = points(tmp_path / "run")
    assert done["codes"] == [0, 0] and messages(done, "stopped") == {
        f"stopped after step {step} of {STEPS}, with a checkpoint"
    }, done
    done = forked(own)
    assert messages(done, "note") == {f"going on after step {step}"}
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_disk_full(forked, recipe, whole, tmp_path):
    """One line, and the checkpoint before is whole and is gone on from. The disk is a small tmpfs where mounting is
    allowed, else a limit on a file's size."""
    run = tmp_path / "run"
    size = [path.stat().st_size for path in (whole / "checkpoints/step-0000006").iterdir()]
    own = recipe | {"out": str(run)}
    done = forked(own, disk=int(sum(size) * 1.6) + 2**18)
    if done["codes"] == [99]:
        assert forked(own, after=3, signal=signal.SIGKILL)["codes"] == [-9, -9]
        done = forked(own, limit=max(size) // 2)
    assert max(done["codes"]) == 1 and not (run / "train.json").exists(), done
    [line] = messages(done, "failed")
    assert re.search(
        r"(no space left on device|file too large): the checkpoint of step 4 could not be written, "
        r"step-0000002 is whole: make room and run the same command again$",
        line,
    )
    assert "Traceback" not in done["log"] and points(run) == [2]
    done = forked(own)
    assert messages(done, "note") == {"going on after step 2"} and losses(run) == losses(whole), done


def test_disk_full_of_the_model(forked, recipe, tmp_path):
    "The last thing that is written is the model, by a library that has an error of its own for it."
    done = forked(recipe | {"out": str(tmp_path / "run"), "steps": 1, "ranks": 1}, limit=50_000)
    assert done["codes"] == [1] and not (tmp_path / "run/model").exists(), done
    [line] = messages(done, "failed")
    assert re.search(
        r"run/model: file too large: no checkpoint is whole: make room and run the same command again$", line
    ) and not list(tmp_path.rglob("*.partial"))


def test_a_loss_that_is_no_number(forked, recipe, tmp_path):
    "It stops before the weights are touched, and names the step, the conversations and the last good checkpoint."
    done = forked(recipe | {"out": str(tmp_path / "run"), "lr": 1e18, "clip": 1e30, "checkpoint": 1})
    assert done["codes"] == [2, 2], done
    [line] = messages(done, "user")
    assert re.search(
        r"the loss is no number at step \d+ \(conversations \S+.*\): lower lr .*; the last good checkpoint is step-\d+",
        line,
    )


# What is trained, under ZeRO-3 as at stage 2: the parts that were told, in a checkpoint that plain transformers loads


@pytest.mark.parametrize(
    "told, parts",
    [
        ({"train": "projector"}, {"projector"}),
        ({"train": "language"}, {"projector", "language"}),
        ({"train": "language", "tower": True, "tower_lr": 1e-4}, {"projector", "language", "tower"}),
        ({"train": "language", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0}, {"projector", "language"}),
    ],
    ids=["projector", "language", "tower", "lora"],
)
def test_what_is_trained(forked, recipe, small, tmp_path, told, parts):
    from transformers import AutoModelForImageTextToText

    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel
    from cocoift.train.adapt import part_of

    own = recipe | {"steps": 2, "lr": 1e-2} | told
    stages = (2, 3) if "lora_r" in told else (3,)
    for zero in stages:
        done = forked(own | {"out": str(tmp_path / f"{zero}"), "zero": zero})
        assert done["codes"] == [0, 0], done
    before, *found = (
        AutoModelForImageTextToText.from_pretrained(folder).state_dict()
        for folder in (small / "start", *(tmp_path / f"{zero}/model" for zero in stages))
    )
    for after in found:
        assert (
            before.keys() == after.keys()
            and {part_of(name) for name, value in after.items() if not torch.equal(value, before[name])} == parts
        )
        assert all(torch.allclose(value, found[-1][name], atol=2e-3) for name, value in after.items())
    if "lora_r" in told:
        assert not [
            name
            for name, value in found[-1].items()
            if ("embed_tokens" in name or "lm_head" in name or "norm" in name) and not torch.equal(value, before[name])
        ]
    chat = LocalModel(tmp_path / "3/model", small / "world/images", most_tokens=4)
    assert chat.answer([Ask.of("What is here?", sorted(chat.pictures)[0])])[0].status == "ok"
