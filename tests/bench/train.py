"""Trees against rows of their own, and against LLaVA's way, on the same data and model, side by side in one run.

    python tests/bench/train.py [--quick] [--layers 4 --width 384 --repeats 3]

Needs torch and transformers alone, so that it runs from a bare checkout on a GPU machine: there a LLaVA of about 1.2 billion random parameters in bf16, FlexAttention,
gradient checkpointing. The last line is one JSON document: `trees_vs_rows.{"k,t"}.{time,tokens}` (rows / tree, the same head of the loss, minimum of several runs),
`trees_vs_llava` (one conversation a padded row, logits of all tokens, sorted by length; 12 conversations of 40 to 80 tokens an image), `device`, `mfu`."""
import argparse
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from cocoift.train.attention import BLOCK, use_trees  # noqa: E402
from cocoift.train.tree import Tree, collate, token_loss  # noqa: E402

PREFIX, PATCHES, VOCABULARY = 35, 576, 32064
PEAK = {"h100": 989e12, "h200": 989e12, "a100": 312e12, "b200": 2250e12, "l40s": 362e12}  # dense bf16, NVIDIA's data sheets


class Branch(NamedTuple):
    ids: list[int]
    learned: list[bool]


def llava(cuda: bool, layers: int, width: int):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    seen, heads = (1024, width // 128) if cuda else (128, width // 64)
    vision = CLIPVisionConfig(hidden_size=seen, intermediate_size=4 * seen, num_hidden_layers=24 if cuda else 2, num_attention_heads=seen // 64, image_size=336, patch_size=14)
    language = LlamaConfig(vocab_size=VOCABULARY, hidden_size=width, intermediate_size=int(width * 2.7) // 64 * 64, num_hidden_layers=layers, num_attention_heads=heads,
                           num_key_value_heads=heads, max_position_embeddings=8192)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=language, image_token_id=VOCABULARY - 1, vision_feature_layer=-2))
    model.model.vision_tower.requires_grad_(False)  # LLaVA-1.5's
    use_trees(model)
    if cuda:
        model.to("cuda", torch.bfloat16).activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def grove(images: int, lengths, draws: random.Random) -> list[Tree]:
    prefix = [draws.randrange(3, 30000) for _ in range(PREFIX)] + [VOCABULARY - 1] * PATCHES
    def branch(t):
        return Branch([draws.randrange(3, 30000) for _ in range(t)], [k >= t // 2 for k in range(t)])
    return [Tree(str(n), prefix, tuple(branch(t) for t in lengths())) for n in range(images)]


def alone(trees: list[Tree]) -> list[Tree]:
    return [Tree(tree.image, tree.prefix, (branch,)) for tree in trees for branch in tree.branches]


def pixels(rows, model) -> dict:
    draws = torch.Generator().manual_seed(1)
    one = {image: torch.randn(3, 336, 336, generator=draws) for image in sorted(set(rows.images))}
    return {"pixel_values": torch.stack([one[image] for image in rows.images]).to(model.device, model.dtype)}


def trees_loss(model, batch: list[list[Tree]]):
    rows = collate(batch, multiple=BLOCK if model.device.type == "cuda" else 1).to(model.device)
    return token_loss(model, rows, pixels(rows, model)), rows


def llava_loss(model, batch: list[Tree]):
    "One conversation a row, padded; labels on every token, logits of all of them: what LLaVA's trainer runs."
    rows = collate([[tree] for tree in batch]).to(model.device)
    labels = torch.full_like(rows.ids, -100)
    labels.view(-1)[rows.where + 1] = rows.what
    seen = torch.arange(rows.ids.shape[1], device=model.device) < torch.tensor([len(tree) for tree in batch], device=model.device)[:, None]
    return model(input_ids=rows.ids, attention_mask=seen.long(), labels=labels, use_cache=False, **pixels(rows, model)).loss * len(rows.what), rows


def clock(model, loss_of, batches, repeats: int) -> dict:
    "Seconds of a pass, forward and backward, over all batches: the minimum; and what went through."
    seconds, cuda = [], model.device.type == "cuda"
    for _ in range(repeats + cuda):  # on a GPU the first compiles
        model.zero_grad(set_to_none=True)
        learned = places = pictures = 0
        start = time.perf_counter()
        for batch in batches:
            loss, rows = loss_of(model, batch)
            loss.backward()
            learned, places, pictures = learned + len(rows.what), places + rows.ids.numel(), pictures + len(rows.images)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "learned": learned, "places": places, "pictures": pictures}


def told(found: dict, tokens: int) -> dict:
    s = found["seconds"]
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(s, 3), "supervised_tokens_per_s": round(found["learned"] / s, 1), "tokens_per_s": round(tokens / s, 1), "images_per_s": round(found["pictures"] / s, 2),
            "padding": round(1 - tokens / found["places"], 4), "peak_mb": round(peak)}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--layers", type=int)
    asked.add_argument("--width", type=int)
    asked.add_argument("--repeats", type=int)
    asked = asked.parse_args()
    cuda, draws = torch.cuda.is_available(), random.Random(0)
    model = llava(cuda, asked.layers or (24 if cuda else 2 if asked.quick else 4), asked.width or (2048 if cuda else 384))
    repeats, images = asked.repeats or (1 if asked.quick else 3), 8 if cuda else 1
    out = {"trees_vs_rows": {}, "runs": {}}
    for k, t in ((8, 60), (4, 150)):
        trees = grove(images, lambda: [t] * k, draws)
        single = alone(trees)
        step = 8 if cuda else 1
        as_trees = clock(model, trees_loss, [[[tree] for tree in trees]] if cuda else [[[tree]] for tree in trees], repeats)
        as_rows = clock(model, trees_loss, [[[tree] for tree in single[n : n + step]] for n in range(0, len(single), step)], repeats)
        tokens = sum(map(len, trees)), sum(map(len, single))
        ratio = tokens[1] / tokens[0]
        out["trees_vs_rows"][f"{k},{t}"] = {"time": round(as_rows["seconds"] / as_trees["seconds"], 3), "tokens": round(ratio, 3),
                                            "share": round(as_rows["seconds"] / as_trees["seconds"] / ratio, 3)}
        out["runs"][f"{k},{t}"] = {"trees": told(as_trees, tokens[0]), "rows": told(as_rows, tokens[1])}
        print(f"({k}, {t}): {out['trees_vs_rows'][f'{k},{t}']}", file=sys.stderr, flush=True)
    trees = grove(images, lambda: [draws.randint(40, 80) for _ in range(12)], draws)
    single = sorted(alone(trees), key=len)
    as_trees = clock(model, trees_loss, [[[tree] for tree in trees]], repeats)
    as_llava = clock(model, llava_loss, [single[n : n + 4] for n in range(0, len(single), 4)], repeats)
    out["trees_vs_llava"] = round(as_llava["seconds"] / as_trees["seconds"], 3)
    out["runs"]["12 short"] = {"trees": told(as_trees, sum(map(len, trees))), "llava": told(as_llava, sum(map(len, single)))}
    out["device"], out["mfu"], out["parameters"] = torch.cuda.get_device_name() if cuda else "cpu", None, sum(p.numel() for p in model.parameters())
    if cuda:
        learns = sum(p.numel() for p in model.parameters() if p.requires_grad) - VOCABULARY * model.config.text_config.hidden_size
        peak = next((flops for name, flops in PEAK.items() if name in out["device"].lower()), None)
        found = out["runs"]["8,60"]["trees"]["tokens_per_s"] * 6 * learns
        out["mfu"] = round(found / peak, 3) if peak else None
    print(json.dumps(out))


if __name__ == "__main__":
    main()
