"Image trees inside trainers that are not ours: the same losses and the same weights."

from functools import partial

import pytest
import torch

from cocoift.images import find_pictures
from cocoift.models.family import open_family
from cocoift.train.attention import guard
from cocoift.train.cache import cache_tokens
from cocoift.train.family import load_model
from cocoift.train.pack import pack
from cocoift.train.pictures import Pictures
from cocoift.train.plan import Plan
from cocoift.train.trainers import TreeCollator, as_dataset
from cocoift.train.tree import Tree, collate, token_loss

STEPS, RATE = 2, 0.5


@pytest.fixture(scope="module")
def job(
    small, tmp_path_factory
):  # rows of trees, the pictures' way into the model, and the losses and weights that our own loss leads to
    family = open_family(small / "start")
    pictures = Pictures(find_pictures(small / "world/images"), family)
    trees = list(Plan(cache_tokens(family, small / "set", tmp_path_factory.mktemp("plans")), family))
    rows = pack(trees[:6], 2 * max(map(len, trees[:6])))
    assert max(map(len, rows)) > 1 and max(len(tree.branches) for tree in trees[:6]) > 1
    stack = partial(pictures.stack, device="cpu", dtype=torch.float32)
    model, losses = load_model(small / "start"), []
    optimizer, batch = torch.optim.SGD(model.parameters(), lr=RATE), collate(rows)
    for _ in range(STEPS):
        loss = token_loss(model, batch, stack(batch.images)) / len(batch.learned)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    return small, family, rows, stack, losses, model


def trained(job, trainer_kind, settings_kind, tmp_path, dataset=list, **more):
    small, family, rows, stack, losses, ours = job
    model = load_model(small / "start")
    guard(model)
    settings = settings_kind(
        str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=len(rows),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        remove_unused_columns=False,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=False,
        **more,
    )
    blank = Tree("none:", family.image_ids(), ())
    trainer = trainer_kind(
        model=model,
        args=settings,
        train_dataset=dataset(rows),
        data_collator=TreeCollator(stack, blank),
        processing_class=family.processor,
    )
    trainer.train()
    # logged with four digits
    assert [line["loss"] for line in trainer.state.log_history if "loss" in line] == pytest.approx(losses, rel=1e-3)
    for (name, a), (_, b) in zip(ours.named_parameters(), model.named_parameters()):
        assert (a - b).abs().max() < 2e-5, name


def test_transformers_trainer(job, tmp_path):
    from transformers import Trainer, TrainingArguments

    trained(job, Trainer, TrainingArguments, tmp_path)


def test_trl(job, tmp_path):
    "TRL refuses to pack vision datasets; rows that it does not prepare itself it takes as they are."
    from trl import SFTConfig, SFTTrainer

    trained(
        job, SFTTrainer, SFTConfig, tmp_path, as_dataset, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None
    )
