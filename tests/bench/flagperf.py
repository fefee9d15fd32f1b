"""LLaVA-1.5-7B's shapes in FlagPerf's units: tokens a second of a GPU and MFU; LLaVA's way, packed rows, trees.

    python tests/bench/train.py --flagperf [--toy] [--lengths FILE] [--kernel NAME] [--repeats 2]

Random weights; whole training steps of 16 conversations, as LLaVA-1.5 has a GPU do them: forward and backward pass with
activation checkpointing, AdamW, tower frozen. FlagPerf's runs share optimizer states over 8 GPUs (ZeRO-3); one GPU has
nobody to share with, so weights and both moments are bf16. Lengths: `--lengths` names a JSON file that lists, for each
image, the tokens of its conversations (an image that is null: the text-only ones), or a dataset that the package reads;
else they are drawn from STATED. `--toy` changes numbers, not functions."""

import contextlib
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from train import PEAK, PREFIX, VOCABULARY, Way, batches, counted_lengths, flops, grove, llava_loss, our_loss, peak_mb

from cocoift.train.attention import use_trees
from cocoift.train.kernels import KERNELS, LOSSES, prove, prove_loss
from cocoift.train.pack import alone, pack
from cocoift.train.tree import Tree

# FlagOpen/FlagPerf, training/nvidia/llava1.5_7b: 8 x A800, DeepSpeed, FlashAttention 2, fine-tuning
PUBLISHED = {"tokens_per_s_per_gpu": 2937, "mfu": 0.396, "devices": "8 x A800"}
STEP = 16  # conversations of a GPU's step in LLaVA-1.5's finetune.sh
# A stand-in for LLaVA-mix: pictures by how many of its 665,000 entries they carry (public counts: 364,000 entries on
# COCO's 118,000 pictures, 260,000 on pictures of their own, 40,000 of ShareGPT); lengths are assumed, not counted
STATED = (
    (118, 3, (60, 350)),
    (260, 1, (60, 350)),
    (40, 0, (200, 1400)),
)  # weight, conversations (0: no picture), tokens
SHAPES = {  # layers, width, inner, heads, of the tower: layers, width; images
    "7b": (32, 4096, 11008, 32, 24, 1024, 64),
    "toy": (2, 64, 128, 2, 1, 64, 6),
}


def shaped(name: str):
    "The model, made where it is used: 7 billion numbers drawn on a CPU would take minutes."
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    layers, width, inner, heads, seen_layers, seen, _ = SHAPES[name]
    size = {"hidden_size": seen, "intermediate_size": 4 * seen, "num_hidden_layers": seen_layers}
    vision = CLIPVisionConfig(**size, num_attention_heads=max(1, seen // 64), image_size=336, patch_size=14)
    language = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=8192,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=language, image_token_id=VOCABULARY - 1, vision_feature_layer=-2
    )
    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    try:
        with torch.device("cuda" if cuda else "cpu"):
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.model.vision_tower.requires_grad_(False)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def drawn_lengths(images: int, draws: random.Random) -> list[tuple[bool, list[int]]]:  # pictured, tokens
    kinds = draws.choices(STATED, [weight for weight, *_ in STATED], k=images)
    return [(k > 0, [draws.randint(*between) for _ in range(max(1, k))]) for _, k, between in kinds]


def read_lengths(path: Path, images: int, draws: random.Random) -> list[tuple[bool, list[int]]]:
    if path.suffix == ".json" and path.is_file():
        listed = json.loads(path.read_text(encoding="utf-8"))
        if (
            isinstance(listed, list)
            and listed
            and all(isinstance(x, (list, dict)) and "conversations" not in x for x in listed)
        ):
            every = [(True, x) if isinstance(x, list) else (x["image"] is not None, x["tokens"]) for x in listed]
            return draws.sample(every, min(images, len(every)))
    every = [(bool(image), tokens) for image, tokens in counted_lengths(path)]
    return draws.sample(every, min(images, len(every)))


def forest(lengths: list[tuple[bool, list[int]]], draws: random.Random) -> list[Tree]:
    trees = grove([[min(t, 1400) for t in tokens] for _, tokens in lengths], draws)
    return [
        tree if pictured else replace(tree, image=f"none:{tree.image}", prefix=tree.prefix[:PREFIX])
        for tree, (pictured, _) in zip(trees, lengths)
    ]


def steps_of(trees: list[Tree]) -> list[list[Tree]]:
    "Trees by optimizer step: about as many conversations each as LLaVA's GPU takes."
    steps, count = [[]], 0
    for tree in trees:
        if count >= STEP:
            steps.append([])
            count = 0
        steps[-1].append(tree)
        count += len(tree.branches)
    return steps


def rows_of(name: str, trees: list[Tree], room: int) -> Way:
    single = alone(trees)
    if name == "llava":  # grouped by length over the whole set, as group_by_modality_length does
        ordered = sorted(single, key=len)
        return Way(llava_loss, [[[[tree] for tree in ordered[k : k + STEP]]] for k in range(0, len(ordered), STEP)])
    rows = [pack(step if name == "trees" else alone(step), room) for step in steps_of(trees)]
    return Way(our_loss, [batches(some, 2 * room) for some in rows])


def timed(model, optimizer, way: Way) -> dict:
    "All steps of a way."
    found = {"tokens": 0, "separate": 0, "places": 0, "images": 0, "flops": 0.0}
    cuda = model.device.type == "cuda"
    peak_mb(start=True)
    torch.cuda.synchronize() if cuda else None
    start = time.perf_counter()
    for step in way.batches:
        for batch in step:
            loss, rows = way.loss(model, batch)
            (loss / STEP).backward()
            tokens = sum(len(tree) for row in batch for tree in row)
            found["tokens"] += tokens
            found["separate"] += sum(tree.separate for row in batch for tree in row)
            found["places"] += rows.input_ids.numel()
            found["images"] += len(rows.images)
            found["flops"] += flops(model, rows, tokens)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize() if cuda else None
    return found | {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def in_units(found: dict, peak: float | None) -> dict:
    s = found["seconds"]
    return {
        "tokens_per_s_per_gpu": round(found["tokens"] / s, 1),
        "effective_tokens_per_s_per_gpu": round(found["separate"] / s, 1),
        "mfu": round(found["flops"] / s / peak, 4) if peak else None,
        "images_per_s": round(found["images"] / s, 3),
        "padding": round(1 - found["tokens"] / found["places"], 4),
        "seconds": round(s, 3),
        "peak_mb": round(found["peak_mb"]),
    }


def choose(model, asked: str | None) -> tuple[dict, str]:
    "Every kernel's proof on this device; the fastest that passes, or the one asked for."
    config, device = model.config.text_config, model.device
    heads = config.num_attention_heads, config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    proofs = {name: prove(name, device, model.dtype, heads) for name in KERNELS}
    losses = {
        name: prove_loss(name, True, device, model.dtype, (config.hidden_size, config.vocab_size)) for name in LOSSES
    }
    passing = {name: proof.ms or list(KERNELS).index(name) for name, proof in proofs.items() if not proof.refusal}
    if asked and asked not in passing:
        sys.exit(f"--kernel {asked}: {proofs[asked].refusal if asked in proofs else 'there are ' + ', '.join(KERNELS)}")
    taken = asked or ("by-tree" if device.type == "cpu" else min(passing, key=passing.get))
    if not losses["liger"].refusal and losses["liger"].ms < losses["chunked"].ms:
        from functools import partial

        from cocoift.train.cross_entropy import liger_loss

        model.fused_loss = partial(liger_loss, even=True)
    return {name: proof._asdict() for name, proof in (proofs | losses).items()}, taken


def measure(toy: bool, lengths: Path | None = None, kernel: str | None = None, repeats: int = 2) -> dict:
    "The document of `--flagperf`."
    shape, draws = "toy" if toy else "7b", random.Random(0)
    images, room = SHAPES[shape][-1], 2048 if toy else 8192
    some = read_lengths(lengths, images, draws) if lengths else drawn_lengths(images, draws)
    trees = forest(some, draws)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    peak = next((rate for name, rate in PEAK.items() if name in device.lower()), None)
    model = shaped(shape)
    proofs, taken = choose(model, kernel)
    use_trees(model, KERNELS[taken].mask)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-6, fused=device != "cpu")
    out = {
        "device": device,
        "shapes": shape,
        "parameters": sum(p.numel() for p in model.parameters()),
        "lengths": str(lengths.name) if lengths else "drawn as STATED in tests/bench/flagperf.py",
        "conversations": sum(len(tokens) for _, tokens in some),
        "pictures": sum(pictured for pictured, _ in some),
        "mean_row": round(sum(map(len, alone(trees))) / sum(len(tokens) for _, tokens in some), 1),
        "kernel": taken,
        "loss": "liger" if getattr(model, "fused_loss", None) else "chunked",
        "proofs": proofs,
        "ways": {},
        "published": PUBLISHED,
    }
    for name in ("llava", "packed", "trees"):
        way = rows_of(name, trees, room)
        try:
            runs = [timed(model, optimizer, way) for _ in range(repeats + (device != "cpu"))]  # the first compiles
        except torch.OutOfMemoryError as error:
            out["ways"][name] = {"left_out": str(error).partition("\n")[0][:160]}
            optimizer.zero_grad(set_to_none=True)
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
            continue
        out["ways"][name] = in_units(min(runs, key=lambda run: run["seconds"]), peak)
        print(name, json.dumps(out["ways"][name]), file=sys.stderr, flush=True)
    rates = {name: way.get("effective_tokens_per_s_per_gpu") for name, way in out["ways"].items()}
    out["trees_vs_llava"] = round(rates["trees"] / rates["llava"], 3) if rates["trees"] and rates["llava"] else None
    out["vs_published"] = {
        name: round(rate / PUBLISHED["tokens_per_s_per_gpu"], 3) for name, rate in rates.items() if rate and not toy
    }
    return out
