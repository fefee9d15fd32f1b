"""Trees against rows of their own, against packed rows, and against LLaVA's way, on the same data and model, side
by side in one run.

    python tests/bench/train.py [--quick] [--threads 2] [--data SOURCES] \\
        [--layers 4 --width 384 --repeats 3] [--deepspeed]
    python tests/bench/train.py --flagperf [--toy] [--lengths FILE]        LLaVA-1.5-7B's shapes: flagperf.py

Needs torch and transformers alone, so that it runs from a bare checkout on a GPU machine: there a LLaVA of about
1.5 billion random parameters in bf16, FlexAttention, activation checkpointing. With `--data` (and the package
installed) the lengths of the real `coco-ift` dataset are tried too; with `--deepspeed` ZeRO 2 and 3, whole and
low-rank, on one rank. Forward and backward passes are timed, all ways in turn, and the minimum counts. The last
line is one JSON document: `trees_vs_rows.{"k,t"}` has `time` (separate rows / trees, the same head of the loss),
`packed` (several rows in one, isolated / trees), `cpu` (as `time`, in processor seconds, which a busy machine
disturbs less) and `tokens`; `trees_vs_llava` (one conversation a padded row, sorted by length, logits of all
tokens; 12 conversations of 40 to 80 tokens an image); `coco_ift`, `exactness`, `deepspeed`, `device`, `mfu` (of
trees, the recomputing not counted), and `arms` with the rates of each."""

import argparse
import copy
import json
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from cocoift.train.attention import FLEX_BLOCK, use_trees  # noqa: E402
from cocoift.train.pack import alone, pack  # noqa: E402
from cocoift.train.tokens import Tokens  # noqa: E402
from cocoift.train.tree import Rows, Tree, collate, token_loss  # noqa: E402

PREFIX, PATCHES, VOCABULARY = 35, 576, 32064  # LLaVA-1.5's
# dense bf16, NVIDIA's data sheets
PEAK = {"h100": 989e12, "h200": 989e12, "a100": 312e12, "b200": 2250e12, "l40s": 362e12}


def llava(cuda: bool, layers: int, width: int):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    seen, heads = (1024, width // 128) if cuda else (128, width // 64)
    vision = CLIPVisionConfig(
        hidden_size=seen,
        intermediate_size=4 * seen,
        num_hidden_layers=24 if cuda else 2,
        num_attention_heads=seen // 64,
        image_size=336,
        patch_size=14,
    )
    language = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=int(width * 2.7) // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=language, image_token_id=VOCABULARY - 1, vision_feature_layer=-2)
    )
    model.model.vision_tower.requires_grad_(False)  # LLaVA-1.5's
    use_trees(model)
    if cuda:
        model.to("cuda", torch.bfloat16).activation_checkpointing_enable(
            activation_checkpointing_kwargs={"use_reentrant": False}
        )
    return model.train()


# What is trained on ------------------------------------------------------------------------------------------


def grove(lengths: list[list[int]], draws: random.Random) -> list[Tree]:  # of each image its conversations' tokens
    prefix = [draws.randrange(3, 30000) for _ in range(PREFIX)] + [VOCABULARY - 1] * PATCHES

    def branch(t):
        return Tokens([draws.randrange(3, 30000) for _ in range(t)], [k >= t // 2 for k in range(t)])

    return [Tree(str(n), prefix, tuple(map(branch, some))) for n, some in enumerate(lengths)]


def batches(rows: list[list[Tree]], tokens: int) -> list[list[list[Tree]]]:  # of at most so many places
    found = []
    for row in sorted(rows, key=lambda row: sum(map(len, row))):
        longest = sum(map(len, row))  # so far
        if found and longest * (len(found[-1]) + 1) <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def counted_lengths(path: Path) -> list[tuple[str | None, list[int]]]:  # of each image its conversations' tokens
    """Of a dataset that the package reads, counted by a tokenizer of LLaMA's kind and size that is made from the texts
    themselves. Conversations without a picture stand alone."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from cocoift.conversation import read_conversations

    conversations = list(read_conversations(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    said = [[f"USER: {r.instruction} ASSISTANT: {r.response}" for r in c.rounds] for c in conversations]
    tokenizer.train_from_iterator(
        (text for texts in said for text in texts), trainers.BpeTrainer(vocab_size=32000, show_progress=False)
    )
    lengths, bare = defaultdict(list), []
    for c, texts in zip(conversations, said):
        tokens = sum(len(tokenizer.encode(text).ids) + 1 for text in texts)
        lengths[c.image].append(tokens) if c.images else bare.append((None, [tokens]))
    return [(image, some[k : k + 16]) for image, some in lengths.items() for k in range(0, len(some), 16)] + bare


def real_lengths(sources: Path) -> list[list[int]]:  # of each image of `coco-ift` its conversations' tokens
    "Built from the sources at hand."
    from cocoift.data.build.make import BuildRecipe, build
    from cocoift.options import load_recipe

    with tempfile.TemporaryDirectory() as folder:
        build(load_recipe("coco-ift", BuildRecipe), sources, Path(folder) / "set")
        counted = counted_lengths(Path(folder) / "set")
    return [[min(t, 1400) for t in some] for image, some in counted if image]


# How it is trained on ------------------------------------------------------------------------------------------


def pixels(rows: Rows, model) -> dict:
    one = {
        image: torch.randn(3, 336, 336, generator=torch.Generator().manual_seed(int(image)))
        for image in set(rows.images)
    }
    if not rows.images:
        return {}
    return {"pixel_values": torch.stack([one[image] for image in rows.images]).to(model.device, model.dtype)}


def our_loss(model, batch: list[list[Tree]]):
    rows = collate(batch, multiple=FLEX_BLOCK if model.device.type == "cuda" else 1).to(model.device)
    return token_loss(model, rows, pixels(rows, model)), rows


def llava_loss(model, batch: list[list[Tree]]):
    "One conversation a row, padded; labels on every token, logits of all of them: what LLaVA's trainer runs."
    rows = collate(batch).to(model.device)
    seen = (
        torch.arange(rows.input_ids.shape[1], device=model.device)
        < torch.tensor([len(row[0]) for row in batch], device=model.device)[:, None]
    )
    return model(
        input_ids=rows.input_ids, attention_mask=seen.long(), labels=rows.labels, use_cache=False, **pixels(rows, model)
    ).loss * len(rows.learned), rows


def flops(model, rows: Rows, places: int) -> float:
    """Of a forward and backward pass: 6 a weight and token, attention by the pairs that are seen, the head where
    something is learned, a frozen tower forwards only."""
    text = model.config.text_config
    body = sum(p.numel() for name, p in model.named_parameters() if "language_model.layers" in name)
    joint = sum(p.numel() for name, p in model.named_parameters() if "projector" in name)
    tower = sum(p.numel() for p in model.model.vision_tower.parameters())
    trunk, fork, own = rows.spans.unbind(2)
    pairs = (fork - trunk + torch.arange(rows.input_ids.shape[1], device=rows.input_ids.device) - own + 1).sum().item()
    head = VOCABULARY * text.hidden_size
    return (
        6 * (body * places + joint * PATCHES * len(rows.images) + head * len(rows.learned))
        + 12 * text.num_hidden_layers * text.hidden_size * pairs
        + 2 * tower * (PATCHES + 1) * len(rows.images)
    )


class Way(NamedTuple):
    "A way to train on the same conversations."

    loss: Callable
    batches: list


def peak_mb(start: bool = False) -> float:
    "The most memory since the start: of the GPU, else of this process."
    if torch.cuda.is_available():
        return torch.cuda.reset_peak_memory_stats() or 0 if start else torch.cuda.max_memory_allocated() / 2**20
    try:
        if start:
            return Path("/proc/self/clear_refs").write_text("5")
        return (
            next(
                int(line.split()[1])
                for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmHWM")
            )
            / 1024
        )
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def once(model, way: Way) -> dict:
    model.zero_grad(set_to_none=True)
    peak_mb(start=True)
    found = defaultdict(float)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in way.batches:
        loss, rows = way.loss(model, batch)
        loss.backward()
        tokens = sum(len(tree) for row in batch for tree in row)
        for name, value in (
            ("learned", len(rows.learned)),
            ("places", rows.input_ids.numel()),
            ("images", len(rows.images)),
            ("tokens", tokens),
            ("loss", loss.item()),
            ("separate", sum(tree.separate for row in batch for tree in row)),
        ):
            found[name] += value
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return found | {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak_mb": peak_mb()}


def race(model, ways: dict[str, Way], repeats: int) -> dict[str, dict]:
    "All ways in turn, several times: the minimum of each, and what went through."
    found = {name: [] for name in ways}
    for _ in range(repeats + (model.device.type == "cuda")):  # on a GPU the first compiles
        for name, way in ways.items():
            found[name].append(once(model, way))
    best = {
        name: runs[0] | {key: min(run[key] for run in runs) for key in ("wall", "cpu", "peak_mb")}
        for name, runs in found.items()
    }
    for name, way in ways.items():
        best[name]["flops"] = sum(
            flops(model, collate(batch).to(model.device), sum(len(tree) for row in batch for tree in row))
            for batch in way.batches
        )
    losses = [best[name]["loss"] / best[name]["learned"] for name in ways]
    assert max(losses) - min(losses) < (0.05 if model.dtype == torch.bfloat16 else 1e-4), f"not the same loss: {losses}"
    return best


def told(found: dict, peak: float | None) -> dict:
    s = found["wall"]
    return {
        "seconds": round(s, 3),
        "cpu_seconds": round(found["cpu"], 3),
        "supervised_tokens_per_s": round(found["learned"] / s, 1),
        "tokens_per_s": round(found["tokens"] / s, 1),
        "effective_tokens_per_s": round(found["separate"] / s, 1),
        "images_per_s": round(found["images"] / s, 2),
        "padding": round(1 - found["tokens"] / found["places"], 4),
        "tree_ratio": round(found["separate"] / found["tokens"], 3),
        "peak_mb": round(found["peak_mb"]),
        "mfu": round(found["flops"] / s / peak, 4) if peak else None,
    }


def compare(found: dict, rivals: dict[str, str]) -> dict:  # key of the result: name of a way
    ratio = found["trees"]["separate"] / found["trees"]["tokens"]
    times = {key: round(found[name]["wall"] / found["trees"]["wall"], 3) for key, name in rivals.items()}
    cpu = found["rows"]["cpu"] / found["trees"]["cpu"]
    return times | {
        "cpu": round(cpu, 3),
        "tokens": round(ratio, 3),
        "share": round(times["time"] / ratio, 3),
        "cpu_share": round(cpu / ratio, 3),
    }


def ways_of(trees: list[Tree], cuda: bool) -> dict[str, Way]:
    room, micro = (8192, 16384) if cuda else (2048, 1)  # tokens of a row, of a batch
    single = alone(trees)
    return {
        "trees": Way(our_loss, batches(pack(trees, room) if cuda else [[tree] for tree in trees], micro)),
        "rows": Way(our_loss, batches([[tree] for tree in single], micro)),
        "packed": Way(our_loss, batches(pack(single, room), micro)),
    }


# Exactness and DeepSpeed ------------------------------------------------------------------------------------------


def exactness(model, trees: list[Tree], prepare: Callable | None = None) -> dict:
    """How far gradients are from those of separate rows in float32, as a part of their length: of trees, and of rows
    as such. `prepare` is done to the copy in bf16."""

    def gradient(model, rows):
        model.zero_grad(set_to_none=True)
        loss, _ = our_loss(model, rows)
        loss.backward()
        return torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None]).double().cpu()

    exact = copy.deepcopy(model).float()
    wanted = gradient(exact, [[tree] for tree in alone(trees)])
    both, single, off = (
        [[tree] for tree in trees],
        [[tree] for tree in alone(trees)],
        lambda found: ((found - wanted).norm() / wanted.norm()).item(),
    )
    found = {"float32_trees": off(gradient(exact, both))}
    del exact
    low = copy.deepcopy(model).to(torch.bfloat16)
    prepare(low) if prepare else None
    return {
        name: float(f"{value:.3g}")
        for name, value in (
            found | {"bf16_trees": off(gradient(low, both)), "bf16_rows": off(gradient(low, single))}
        ).items()
    }


def low_rank(model) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    learns = {name for name, p in model.named_parameters() if "projector" in name}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model" in name
    ]
    inject_adapter_in_model(LoraConfig(r=16, lora_alpha=32, target_modules=names), model)
    for name, p in model.named_parameters():
        p.requires_grad_(".lora_" in name or name in learns)


class Summed(torch.nn.Module):
    "What the engine runs."

    def __init__(self, llava):
        super().__init__()
        self.llava = llava

    def forward(self, batch):
        return our_loss(self.llava, batch)[0]


def deepspeed_cells(
    make: Callable,  # whether activations are recomputed -> a model
    trees: list[Tree],
    steps: int = 3,
    cells: tuple = ((False, True), (True, True)),  # low-rank, recomputed
) -> dict:
    "ZeRO 2 and 3, whole and low-rank, on one rank: losses of some steps, and how far they are from plain torch's."
    try:
        import deepspeed
    except ImportError as error:
        return {"left_out": str(error)}
    import logging

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(s.getsockname()[1]),
        }
    cuda, found = torch.cuda.is_available(), {}
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
        False  # or it is compiled, behind a lock that a kill leaves
    )
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo")
    batch = [[tree] for tree in trees]
    for lora, recomputed in cells:
        kind = f"{'lora' if lora else 'full'}{'' if recomputed else ', not recomputed'}"
        for stage in (0, 2, 3):  # 0 is plain torch
            try:
                model = make(recomputed)
                low_rank(model) if lora else None
            except ImportError as error:
                found["lora"] = {"left_out": str(error)}
                break
            learns = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(learns, lr=1e-4)
            if stage:
                settings = {
                    "train_micro_batch_size_per_gpu": 1,
                    "zero_optimization": {"stage": stage},
                    "bf16": {"enabled": cuda},
                    "gradient_clipping": 1.0,
                    "zero_allow_untested_optimizer": True,
                    "zero_force_ds_cpu_optimizer": False,
                }
                engine, *_ = deepspeed.initialize(
                    model=Summed(model), optimizer=optimizer, model_parameters=learns, config=settings
                )
            losses, start = [], time.perf_counter()
            for _ in range(steps):
                loss = (engine if stage else Summed(model))(batch)
                losses.append(loss.item() / sum(sum(branch.loss_mask) for tree in trees for branch in tree.branches))
                scaled = loss / sum(sum(branch.loss_mask) for tree in trees for branch in tree.branches)
                if stage:
                    engine.backward(scaled)
                    engine.step()
                else:
                    scaled.backward()
                    torch.nn.utils.clip_grad_norm_(learns, 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
            name = f"{kind} zero {stage}"
            found[name] = {"losses": [round(x, 5) for x in losses], "seconds": round(time.perf_counter() - start, 2)}
            plain = found[f"{kind} zero 0"]["losses"]
            found[name]["off"] = max(abs(a - b) for a, b in zip(plain, losses)) if stage else 0.0
            del model, optimizer, learns
            if stage:
                engine.destroy()
                del engine
    torch.distributed.destroy_process_group()
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="a small model, once: under a minute")
    asked.add_argument("--deepspeed", action="store_true")
    asked.add_argument("--flagperf", action="store_true", help="LLaVA-1.5-7B's shapes, in FlagPerf's units")
    asked.add_argument("--toy", action="store_true", help="with --flagperf: small numbers, the same functions")
    asked.add_argument("--lengths", type=Path, help="with --flagperf: whose lengths, a JSON list or a dataset")
    asked.add_argument("--kernel", help="with --flagperf: a kernel by name")
    asked.add_argument("--data", type=Path, help="a folder of sources, for the lengths of `coco-ift`")
    for name in ("layers", "width", "repeats", "threads"):
        asked.add_argument(f"--{name}", type=int)
    asked = asked.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    if asked.flagperf:
        from flagperf import measure

        return print(json.dumps(measure(asked.toy, asked.lengths, asked.kernel, asked.repeats or 2)))
    cuda, draws = torch.cuda.is_available(), random.Random(0)
    layers, width = (
        asked.layers or (24 if cuda else 2 if asked.quick else 4),
        asked.width or (2048 if cuda else 256 if asked.quick else 384),
    )
    device = torch.cuda.get_device_name() if cuda else "cpu"
    peak = next((flops for name, flops in PEAK.items() if name in device.lower()), None)
    model, repeats, images = llava(cuda, layers, width), asked.repeats or (1 if asked.quick else 3), 28 if cuda else 1
    out = {
        "trees_vs_rows": {},
        "trees_vs_llava": None,
        "coco_ift": None,
        "device": device,
        "mfu": None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "arms": {},
    }

    def run(name: str, ways: dict[str, Way]) -> dict:
        found = race(model, ways, repeats)
        out["arms"][name] = {way: told(some, peak) for way, some in found.items()}
        print(name, json.dumps(out["arms"][name]), file=sys.stderr, flush=True)
        return found

    for k, t in ((8, 60), (4, 150)):
        found = run(f"{k},{t}", ways_of(grove([[t] * k] * images, draws), cuda))
        out["trees_vs_rows"][f"{k},{t}"] = compare(found, {"time": "rows", "packed": "packed"})
    trees = grove([[draws.randint(40, 80) for _ in range(12)] for _ in range(images)], draws)
    ways = ways_of(trees, cuda)
    found = run(
        "12 short",
        {
            "trees": ways["trees"],
            "llava": Way(llava_loss, batches([[tree] for tree in alone(trees)], 16384 if cuda else 2800)),
        },
    )
    out["trees_vs_llava"] = round(found["llava"]["wall"] / found["trees"]["wall"], 3)
    out["trees_vs_llava_cpu"] = round(found["llava"]["cpu"] / found["trees"]["cpu"], 3)
    if asked.data:
        lengths = real_lengths(asked.data)
        flat = [t for some in lengths for t in some]
        some = random.Random(0).sample(lengths, min(len(lengths), 512 if cuda else 3 if asked.quick else 5))
        trees = grove(some, draws)
        llavas = batches([[tree] for tree in alone(trees)], 16384 if cuda else 2800)
        found = run("coco-ift", ways_of(trees, cuda) | {"llava": Way(llava_loss, llavas)})
        whole = sum(PREFIX + PATCHES + t for t in flat) / sum(PREFIX + PATCHES + sum(some) for some in lengths)
        out["coco_ift"] = {
            "images": len(lengths),
            "k": round(len(flat) / len(lengths), 3),
            "t": round(sum(flat) / len(flat), 1),
            "tokens_whole": round(whole, 3),
            "sampled_images": len(some),
            "llava": round(found["llava"]["wall"] / found["trees"]["wall"], 3),
            **compare(found, {"time": "rows", "packed": "packed"}),
        }
    out["mfu"] = out["arms"]["8,60"]["trees"]["mfu"]
    out["exactness"] = exactness(model, grove([[20, 30]] * 2 if not cuda else [[60] * 8] * 2, draws))
    if asked.deepspeed:
        small = grove([[20, 30]] * 2, draws)
        del model
        out["deepspeed"] = deepspeed_cells(lambda recomputed: llava(cuda, layers, width), small)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
