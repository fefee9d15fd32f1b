"What is learned does not depend on how the work is spread: ranks, accumulation and ZeRO's stages give the losses of one plain torch process."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def plainly(recipe, steps: int) -> list[float]:
    "The same steps without DeepSpeed: all trees in one batch, torch's AdamW and clipping."
    from cocoift.train.loop import Pictures, read_trees
    from cocoift.train.model import load_llava
    from cocoift.train.tree import collate, token_loss

    model, processor = load_llava(recipe.model)
    trees, _ = read_trees(recipe, processor, model.config.image_seq_length)
    rows, pictures = collate(trees), Pictures(recipe.images, processor)
    pixels = torch.stack([pictures(tree.image) for tree in trees])
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=0.0), []
    for _ in range(steps):
        loss = token_loss(model, rows, pixels) / len(rows.what)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_ranks_accumulation_and_zero_change_nothing(small, tmp_path, root):
    from itertools import islice

    from cocoift.conversation import conversation, read_conversations, write_jsonl
    from cocoift.train.recipe import TrainRecipe

    by_image = {}
    for c in read_conversations(small / "set"):
        by_image.setdefault(c.image, []).append(c)
    of_three_images = [c for some in islice(by_image.values(), 3) for c in some]
    text = conversation(None, ("Is there a star?", "No, without an image there is no star."), id="text")
    write_jsonl(tmp_path / "set.jsonl", [*of_three_images, text])  # rank 1 gets the one without a picture
    told = {"model": str(small / "start"), "data": str(tmp_path / "set.jsonl"), "images": str(small / "world/images"), "out": str(tmp_path / "run"),
            "train": "all", "steps": 3, "images_per_step": 4, "micro_batch": 4, "lr": 3e-3}
    (tmp_path / "job.json").write_text(json.dumps(told))
    done = subprocess.run([sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", "29617",
                           root / "tests/ranks.py", tmp_path / "job.json", tmp_path / "losses.json"],
                          env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600)
    assert (tmp_path / "losses.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    found, wanted = json.loads((tmp_path / "losses.json").read_text()), plainly(TrainRecipe.model_validate(told), 3)
    assert wanted[2] < wanted[0]
    assert {cell: losses for cell, losses in found.items() if losses != pytest.approx(wanted, abs=2e-5)} == {}, wanted
    assert len(found) == 8
