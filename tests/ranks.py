"""What needs ranks, all cells of a matrix in one start: `ranked` in conftest.py has `forks.py` run them.

spread: loss and gradients of one step, however it is packed into rows, laid out as trees, accumulated and weighted,
        at stages 0, 2 and 3.
shared: as spread, with rows that all ranks share (DeepSpeed Ulysses), by several kernels.
matrix: losses of three steps at every ZeRO stage, for batches with pictures and mixed ones; with and without
        accumulation in turns, so that each of the three meets each value of the others.
save:   two steps, a checkpoint, a third step, at every stage, into JOB's folder.
load:   from each of those checkpoints at every stage: the third step.
shipped: shipped recipes, each as a whole run with a checkpoint, and taken up from that checkpoint beside it.
locked: a run's start where each op of DeepSpeed's has the lock of a build that was killed: what lies there then.
naive:  the trap at stage 2: a rank without pictures touches the projector with zeros and leaves the tower out."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

from cocoift.models.family import open_family
from cocoift.train.adapt import adapt
from cocoift.train.checkpoint import Checkpoints
from cocoift.train.family import load_model
from cocoift.train.loop import Worker, read_plan
from cocoift.train.pictures import Pictures
from cocoift.train.recipe import TrainRecipe
from cocoift.train.step import groups, make_engine, run_step

STAGES = (0, 1, 2, 3)


def recipe_of(told: dict, **changed) -> TrainRecipe:
    return TrainRecipe.model_validate(
        {key: value for key, value in told.items() if key not in ("sets", "gradients")} | changed
    )


def opened(recipe: TrainRecipe):
    engine, _ = make_engine(recipe)
    family = open_family(recipe.model)
    plan, paths = read_plan(recipe, family)
    return engine, list(plan), Pictures(paths, family)


def spread(told: dict) -> dict:
    """For each cell the loss, and how far its gradients are from those of one plain row a conversation, by their
    largest."""
    import torch

    wanted, found = torch.load(told["gradients"]), {}
    for zero in (0, 2, 3):
        engine, trees, pictures = opened(recipe_of(told, data=told["sets"]["few"], zero=zero, micro_batch=1))
        for group in engine.optimizer.param_groups:
            group["lr"] = 0.0  # the weights stay: one engine serves all cells
        least = max(len(tree.prefix) + len(branch.input_ids) for tree in trees for branch in tree.branches)
        for layout, row_tokens, micro_batch, weighting in (
            ("trees", None, 2, "token"),
            ("trees", 1000, 1, "root"),
            ("split trees", least, 3, "equal"),
            ("split trees", least, 8, "root"),
            ("separate", 1000, 1, "root"),
        ):
            recipe = recipe_of(
                told,
                zero=zero,
                micro_batch=micro_batch,
                weighting=weighting,
                row_tokens=row_tokens,
                max_length=least,
                trees=layout != "separate",
            )
            cell = f"zero {zero}, {layout}, rows of {row_tokens}, micro-batch {micro_batch}, {weighting}"
            found[cell] = compared(engine, trees, pictures, recipe, wanted)
    return found


def compared(engine, trees, pictures, recipe, wanted) -> list[float]:  # the loss, and how far gradients are
    loss, gradients = with_gradients(engine, trees, pictures, recipe)
    return [
        loss,
        max(
            (gradients[name] - value).abs().max().item() / value.abs().max().clamp(min=1e-6).item()
            for name, value in wanted[recipe.weighting].items()
        ),
    ]


def shared(told: dict) -> dict:
    import torch

    wanted, found = torch.load(told["gradients"]), {}
    for zero, attention, recompute in ((0, "by-tree", False), (2, "varlen", True), (3, "dense", True)):
        options = {"zero": zero, "attention": attention, "recompute": recompute, "sequence_parallel": told["ranks"]}
        options |= {"data": told["sets"]["few"], "micro_batch": 1, "lr": 1e-12}
        engine, trees, pictures = opened(recipe_of(told, **options))
        for weighting, row_tokens, micro_batch in (("token", None, 2), ("root", 1000, 1), ("equal", None, 1)):
            changed = {"weighting": weighting, "row_tokens": row_tokens, "micro_batch": micro_batch}
            recipe = recipe_of(told, **options | changed, max_length=row_tokens or 2048)
            cell = f"zero {zero}, {attention}, rows of {row_tokens}, {weighting}"
            found[cell] = compared(engine, trees, pictures, recipe, wanted)
    return found


def with_gradients(engine, trees, pictures, recipe):  # the loss, and what the optimizer is given
    import torch
    from deepspeed.utils import safe_get_full_grad

    step, gradients = engine.step, {}

    def look():
        if engine.is_gradient_accumulation_boundary():
            gradients.update(
                {
                    name.removeprefix("llava."): safe_get_full_grad(p).clone()
                    for name, p in engine.module.named_parameters()
                    if p.requires_grad
                }
            )
        step()

    engine.step = look
    try:
        result = run_step(engine, trees, pictures, recipe)
        whole = float(torch.nn.utils.get_total_norm(gradients.values()))
        assert abs(result.norm - whole) < 1e-3 * whole, (recipe.zero, result.norm, whole)
        return result.loss, gradients
    finally:
        del engine.step


def matrix(told: dict) -> dict:
    losses = {}
    for number, name in enumerate(("images", "mixed")):
        for zero in STAGES:
            micro_batch = (4, 1)[(zero + number) % 2]
            recipe = recipe_of(told, data=told["sets"][name], zero=zero, micro_batch=micro_batch)
            engine, trees, pictures = opened(recipe)
            losses[f"{name}, zero {zero}, micro-batch {micro_batch}"] = [
                run_step(engine, trees, pictures, recipe)[0] for _ in range(3)
            ]
    return losses


def save(told: dict) -> dict:
    losses = {}
    for zero in STAGES:
        recipe = recipe_of(told, zero=zero, micro_batch=1)
        engine, trees, pictures = opened(recipe)
        for _ in range(2):
            run_step(engine, trees, pictures, recipe)
        Checkpoints(recipe.out / f"zero-{zero}").save(engine, 2)
        losses[f"zero {zero}"] = [run_step(engine, trees, pictures, recipe)[0] for _ in range(2)]
    return losses


def load(told: dict) -> dict:
    losses = {}
    for zero in STAGES if told["ranks"] > 1 else (2, 3):
        for other in STAGES if told["ranks"] == 1 else (zero, (zero + 1) % 4):
            recipe = recipe_of(told, zero=zero, micro_batch=1)
            engine, trees, pictures = opened(recipe)
            assert Checkpoints(recipe.out / f"zero-{other}").load(engine) == 2
            losses[f"zero {other} -> {zero}"] = [run_step(engine, trees, pictures, recipe)[0] for _ in range(2)]
    return losses


def shipped(told: dict) -> list[str]:
    import torch.distributed as dist

    for options in told["recipes"]:
        recipe = TrainRecipe.model_validate(options)
        again = recipe.model_copy(update={"out": recipe.out.with_name(recipe.out.name + "-again")})
        Worker(recipe, os.getppid(), socket.gethostname()).run()
        if not dist.get_rank():
            shutil.copytree(recipe.out / "checkpoints", again.out / "checkpoints")
        dist.barrier()
        Worker(again, os.getppid(), socket.gethostname()).run()
    return [options["out"] for options in told["recipes"]]


def locked(told: dict) -> list[str]:
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    built = Path(told["out"]).parent / "extensions"
    for op in ALL_OPS:
        (built / op).mkdir(parents=True)
        (built / op / "lock").touch()
    os.environ["TORCH_EXTENSIONS_DIR"] = str(built)
    signal.alarm(60)  # who waits for a lock waits for good
    for zero in (0, 3):
        make_engine(recipe_of(told, zero=zero))
    signal.alarm(0)
    return sorted({path.name for path in built.glob("*/*")})


def naive(told: dict) -> dict:
    "LLaVA's way, without its precaution's place: a text-only rank adds 0 * projector(zeros) to the *loss*."
    import deepspeed
    import torch
    import torch.distributed as dist

    from cocoift.train.recipe import deepspeed_config
    from cocoift.train.tree import collate

    class Naive(torch.nn.Module):
        def __init__(self, llava):
            super().__init__()
            self.llava = llava

        def forward(self, rows, pixels):
            llava, image = self.llava, rows.input_ids == self.llava.config.image_token_id
            body = llava.model
            embeds = body.get_input_embeddings()(rows.input_ids)
            if image.any():
                features = torch.stack(list(body.get_image_features(pixels, return_dict=True).pooler_output))
                embeds = embeds.masked_scatter(image[..., None], features[image.any(1)])
            hidden = body.language_model(
                inputs_embeds=embeds,
                attention_mask=rows.attention_mask,
                position_ids=rows.position_ids,
                use_cache=False,
            ).last_hidden_state
            loss = torch.nn.functional.cross_entropy(
                llava.lm_head(hidden.flatten(0, 1)[rows.predictors]), rows.targets, reduction="sum"
            )
            if not image.any():
                loss = (
                    loss
                    + 0 * body.multi_modal_projector(torch.zeros(1, 1, llava.config.vision_config.hidden_size)).sum()
                )
            return loss

    losses = {}
    for zero in (0, 2):
        recipe = recipe_of(told, zero=zero, micro_batch=1, train="language")
        _, trees, pictures = opened(recipe)  # the trees alone
        model = load_model(recipe.model)
        adapt(model, recipe.train)
        optimizer = torch.optim.AdamW(groups(model, recipe), betas=recipe.betas, weight_decay=0.0)
        trained = [p for p in model.parameters() if p.requires_grad]
        engine, *_ = deepspeed.initialize(
            model=Naive(model),
            optimizer=optimizer,
            model_parameters=trained,
            config=deepspeed_config(recipe, sum(p.numel() for p in trained)),
        )
        # rank 1 has text only
        mine = [tree for tree in trees if tree.image.startswith("none:") == bool(dist.get_rank())][:1]
        rows, pixels, found = (
            collate([mine]),
            pictures.stack([tree.image for tree in mine], "cpu", torch.float32)["pixel_values"],
            [],
        )
        dist.all_reduce(learned := torch.tensor(float(len(rows.learned))))
        for _ in range(3):
            engine.set_gradient_accumulation_boundary(True)
            loss = engine(rows, pixels)
            engine.backward(loss * (dist.get_world_size() / learned.item()))
            engine.step()
            dist.all_reduce(total := loss.detach().double())
            found.append(total.item() / learned.item())
        ours = run_ours(recipe_of(told, zero=zero, micro_batch=1, train="language"))
        losses[f"zero {zero}"] = {"naive": found, "ours": ours}
    return losses


def run_ours(recipe: TrainRecipe) -> list[float]:
    engine, trees, pictures = opened(recipe)
    pictured, text = ([tree for tree in trees if tree.image.startswith("none:") == bare][0] for bare in (False, True))
    return [run_step(engine, [pictured, text], pictures, recipe)[0] for _ in range(3)]


def find(what: str, job: Path, out: Path) -> int:  # exit code
    "`WHAT[+WHAT...]` for the job in a file; rank 0 writes what was found."
    parts = {part.__name__: part for part in (spread, shared, matrix, save, load, shipped, locked, naive)}
    found = {name: parts[name](json.loads(job.read_text())["told"]) for name in what.split("+")}
    import torch.distributed as dist

    if dist.get_rank() == 0:
        out.write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
    return 0
