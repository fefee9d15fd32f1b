"""Answers a second of a local model that looks at each picture once, beside one plain `generate` call a question.

    python tests/bench/eval.py [--quick] [--images 4] [--questions 8] [--answer 12] [--width 512] [--repeats 3]

A LLaVA of random weights with 576 image tokens (336 px, patches of 14) is asked 8 questions of about 20 tokens on each
of several pictures, greedily: by `LocalModel`, which runs the picture's prefix once and all its questions as one batch
behind it, and by plain transformers, one question at a time, each with its picture. Both ways run in one process on the
same model, in turns; the time of a way is its shortest of `--repeats`. The answers must be equal; what the tower and
the processor cost is a part of both times.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

QUESTION = (
    "which of the {n} things near the {thing} is closer to the camera than the {other} and what is it doing there now"
)
THINGS = "dog cat bus train kite clock umbrella bench horse giraffe laptop pizza".split()


def pictures(folder: Path, count: int) -> list[str]:
    "Coloured noise, each with a COCO name; returns who they are."
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((336, 336), Image.Resampling.BICUBIC).save(folder / f"{number:012}.png")
    return [f"coco:{number}" for number in range(1, count + 1)]


def model(home: Path, width: int) -> Path:
    from cocoift.train.model import assemble, save_llava, tiny_parts

    texts = [QUESTION.format(n=n, thing=a, other=b) for n, (a, b) in enumerate(zip(THINGS, THINGS[1:]))]
    save_llava(
        *assemble(*tiny_parts(home / "parts", texts, image_size=336, patch=14, width=width, layers=(4, 6))),
        home / "llava",
    )
    return home / "llava"


def plain(chat, asks, most: int) -> list[str]:
    "The straightforward way: the processor and one `generate` call a question."
    import torch

    from cocoift.models.template import render
    from cocoift.pictures import open_picture

    told = []
    for ask in asks:
        inputs = chat.processor(
            text=render([(ask.instruction, "")]),
            images=open_picture(ask.image, chat.pictures),
            return_tensors="pt",
            add_special_tokens=False,
        )
        ids = torch.cat([torch.tensor([[chat.tokenizer.bos_token_id]]), inputs.input_ids], 1).to(chat.model.device)
        with torch.inference_mode():
            out = chat.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=inputs.pixel_values.to(chat.model.device, chat.model.dtype),
                max_new_tokens=most,
                do_sample=False,
            )
        told.append(chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one picture, two repeats, a narrower model")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--answer", type=int, default=12, help="tokens")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    images, repeats, width = (1, 2, 192) if args.quick else (args.images, args.repeats, args.width)

    import torch

    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel

    with TemporaryDirectory() as folder:
        names = pictures(Path(folder) / "images", images)
        chat = LocalModel(model(Path(folder), width), Path(folder) / "images", most_tokens=args.answer)
        asks = [
            Ask.of(QUESTION.format(n=n, thing=THINGS[n % 11], other=THINGS[(n + 1) % 11]), name)
            for name in names
            for n in range(args.questions)
        ]
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        answers = {}
        for _ in range(repeats):
            for way, run in (
                ("ours", lambda: [r.text for r in chat.answer(asks)]),
                ("plain", lambda: plain(chat, asks, args.answer)),
            ):
                chat._prefixes.clear()  # none from the turn before
                started = time.perf_counter()
                answers[way] = run()
                seconds[way].append(time.perf_counter() - started)
                print(f"{way}: {len(asks) / seconds[way][-1]:.2f} answers/s", file=sys.stderr)
        best = {way: min(some) for way, some in seconds.items()}
        print(
            json.dumps(
                {
                    "speedup": round(best["plain"] / best["ours"], 2),
                    "identical": answers["ours"] == answers["plain"],
                    "answers_per_s": {way: round(len(asks) / s, 2) for way, s in best.items()},
                    "image_tokens": chat.model.config.image_seq_length,
                    "questions": args.questions,
                    "images": images,
                    "answer_tokens": args.answer,
                    "parameters_m": round(sum(p.numel() for p in chat.model.parameters()) / 1e6, 1),
                    "device": str(chat.model.device),
                    "threads": torch.get_num_threads(),
                }
            )
        )


if __name__ == "__main__":
    main()
