"""Which perceptual hash tells a copy from another photograph, and at what distance: measured on real photographs.

`python tests/bench/near.py [--quick] [--tower DIR] [--fingerprints N]`: copies are made of each of COCO's photographs
below COCOIFT_SHARED (compressed, resized, mirrored, cut, written on); of every hash the distance to the copies and
between different photographs. *The limit's rule*: half of the smallest distance that was seen between two different
photographs, or one and a copy of another, so that no picture can be a copy of two of them. Intervals are exact
(Clopper-Pearson), by photograph. `--tower`: the angle between a vision tower's class tokens too. Prints one JSON
document last."""

import argparse
import json
import os
import sys
import time
from io import BytesIO
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from scipy.stats import binomtest

from cocoift.data.inspect.neighbours import comparisons, hamming, neighbours
from cocoift.files import peak_mb

SHARED = Path(os.environ.get("COCOIFT_SHARED", "../shared")) / "data"
FLIP, TURN = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90


def compressed(picture, quality: int):
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cut(picture, share: float, x: float = 0.5, y: float = 0.5):
    width, height = (int(side * share) for side in picture.size)
    left, top = int((picture.width - width) * x), int((picture.height - height) * y)
    return picture.crop((left, top, left + width, top + height))


def written_on(picture, share: float):  # of its height
    copy = picture.copy()
    font = ImageFont.load_default(size=max(8, int(picture.height * share)))
    place = picture.width * 0.04, picture.height * (0.96 - share)
    ink = {"fill": "white", "stroke_width": 1, "stroke_fill": "black"}
    ImageDraw.Draw(copy).text(place, "(c) photo stock 2014", font=font, **ink)
    return copy


def padded(picture):  # as LLaVA pads
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


ALTERED = {
    "JPEG, quality 75": lambda p: compressed(p, 75),
    "JPEG, quality 30": lambda p: compressed(p, 30),
    "JPEG, quality 10": lambda p: compressed(p, 10),
    "half as wide": lambda p: compressed(p.resize((p.width // 2, p.height // 2)), 90),
    "128 pixels wide": lambda p: p.resize((128, max(1, 128 * p.height // p.width))),
    "squeezed to 336 x 336": lambda p: p.resize((336, 336)),
    "mirrored": lambda p: p.transpose(FLIP),
    "mirrored, quality 50": lambda p: compressed(p.transpose(FLIP), 50),
    "grey": lambda p: p.convert("L").convert("RGB"),
    "brighter by 30 %": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "text, 5 % high": lambda p: written_on(p, 0.05),
    "text, 10 % high": lambda p: written_on(p, 0.10),
    "cut to 98 %": lambda p: cut(p, 0.98),
    "cut to 95 %": lambda p: cut(p, 0.95),
    "cut to 90 %": lambda p: cut(p, 0.9),
    "cut to 90 %, a corner": lambda p: cut(p, 0.9, 0, 0),
    "cut to 80 %": lambda p: cut(p, 0.8),
    "cut to 60 %": lambda p: cut(p, 0.6),
    "padded to a square": padded,
    "turned by 90 degrees": lambda p: p.transpose(TURN),
}
HASHES = {
    "phash 16x16": lambda p: imagehash.phash(p, hash_size=16),  # what the product takes
    "phash 8x8": imagehash.phash,
    "dhash 16x16": lambda p: imagehash.dhash(p, hash_size=16),
    "dhash 8x8": imagehash.dhash,
    "average 8x8": imagehash.average_hash,
    "wavelet 8x8": imagehash.whash,
}


def photographs(every: int) -> list:
    paths = {path.name: path for kind in ("coco-mini", "coco-photos") for path in (SHARED / kind).rglob("*.jpg")}
    return [Image.open(path).convert("RGB") for _, path in sorted(paths.items())[::every]]


def share(hits: np.ndarray) -> dict:  # of booleans
    count, n = int(hits.sum()), len(hits)
    low, high = binomtest(count, n).proportion_ci(method="exact")
    return {"value": count / n, "low": round(low, 4), "high": round(high, 4), "n": n}


def judged(apart: dict[str, np.ndarray], between: list[np.ndarray], whole: bool, limits: list) -> dict:
    """`apart`: alteration -> [N] a photograph to its copy; `between`: [N, N] photographs to others and their copies."""
    nearest = np.min([np.where(np.eye(len(d), dtype=bool), np.inf, d) for d in between], axis=0)  # [N, N]
    half = nearest.min() / 2
    most = int(half) if whole else float(half)
    pairs = nearest[~np.eye(len(nearest), dtype=bool)]
    false = {
        str(limit): {"pictures": share((nearest <= limit).any(1)), "pairs": float((pairs <= limit).mean())}
        for limit in (most, *limits)
    }
    recall = {
        name: share(distances <= most) | {"median": float(np.median(distances))} for name, distances in apart.items()
    }
    return {"strangers_least": float(nearest.min()), "most": most, "recall": recall, "false_positives": false}


def hashed(pictures: list) -> dict:
    bits = {name: {how: [] for how in ("own", *ALTERED)} for name in HASHES}
    seconds = dict.fromkeys(HASHES, 0.0)
    for picture in pictures:
        for how, alter in (("own", lambda p: p), *ALTERED.items()):
            copy = alter(picture)
            for name, hash_of in HASHES.items():
                start = time.process_time()
                bits[name][how].append(hash_of(copy).hash.ravel())
                seconds[name] += time.process_time() - start
    results = {}
    for name, rows in bits.items():
        rows = {how: np.packbits(np.array(row), axis=1) for how, row in rows.items()}
        own, mirrored = rows["own"], rows["mirrored"]

        def either(others, own=own, mirrored=mirrored):  # [N, ...]
            return np.minimum(hamming(own, others), hamming(mirrored, others))

        apart = {how: either(row) for how, row in rows.items() if how != "own"}
        between = [
            np.minimum(hamming(own[:, None], r[None]), hamming(mirrored[:, None], r[None])) for r in rows.values()
        ]
        size = own.shape[1] * 8
        results[name] = {
            "bits": size,
            "milliseconds": round(1000 * seconds[name] / len(pictures) / len(rows), 2),
            **judged(apart, between, True, [round(size * s) for s in (0.125, 0.25, 0.375, 0.4, 0.42)]),
        }
    return results


def seen_by(tower: Path, pictures: list) -> dict:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor, model = AutoImageProcessor.from_pretrained(tower, backend="pil"), AutoModel.from_pretrained(tower).eval()
    names = ["mirrored", *(name for name in ALTERED if name.startswith(("cut to 9", "cut to 8", "cut to 6", "padded")))]
    vectors, seconds = {name: [] for name in ("own", *names)}, 0.0
    for picture in pictures:
        copies = [picture, *(ALTERED[name](picture) for name in names)]
        start = time.process_time()
        with torch.no_grad():
            pixels = processor(images=copies, return_tensors="pt")["pixel_values"]
            states = torch.nn.functional.normalize(model(pixel_values=pixels).last_hidden_state[:, 0])
        seconds += time.process_time() - start
        for name, state in zip(vectors, states.numpy()):
            vectors[name].append(state)
    rows = {name: np.array(row) for name, row in vectors.items()}

    def angle(cosine):
        return np.degrees(np.arccos(np.clip(cosine, -1, 1)))

    apart = {name: angle((rows["own"] * row).sum(1)) for name, row in rows.items() if name != "own"}
    between = [angle(rows["own"] @ row.T) for row in rows.values()]
    return {
        "degrees": True,
        "milliseconds": round(1000 * seconds / len(pictures) / len(rows), 1),
        **judged(apart, between, False, [10, 15, 20, 25, 30, 35, 40]),
    }


def searched(n: int, most: int) -> dict:
    rows = np.random.default_rng(0).integers(0, 256, (n, 32), np.uint8)
    rows[n // 2 : n // 2 + 100] = rows[:100] ^ 1  # planted: 32 bits differ; of one chunk at least two
    start = time.process_time()
    pairs = neighbours(rows, most=most)
    seconds, compared = time.process_time() - start, comparisons(n, n, 32, most)
    facts = {"fingerprints": n, "most": most, "pairs": len(pairs.one), "seconds": round(seconds, 2)}
    return facts | {"compared": compared, "a_second": round(compared / seconds), "peak_mb": round(peak_mb(), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every eighth photograph, 20,000 fingerprints")
    parser.add_argument("--tower", type=Path, help="a folder that AutoModel opens, e.g. DINOv2-small")
    parser.add_argument("--fingerprints", type=int, default=100_000, help="of chance, searched for neighbours")
    arguments = parser.parse_args()
    pictures = photographs(8 if arguments.quick else 1)
    if not pictures:
        sys.exit(f"{SHARED}: holds no photographs: name the folder of samples in COCOIFT_SHARED")
    n = 20_000 if arguments.quick else arguments.fingerprints
    document = {"photographs": len(pictures), "hashes": hashed(pictures), "search": [searched(n, 15), searched(n, 32)]}
    if arguments.tower:
        document["tower"] = seen_by(arguments.tower, pictures[::2])
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
