"""Planning a run over many short conversations, without a picture: tokenised once, then read by a rank.

    python tests/bench/plan.py [--quick] [--conversations 1000000]

The last line is one JSON document: `conversations`, `seconds.{tokenise,again,plan,step}` by the clock and
`processor.{tokenise,plan,step}` of all processes, which a loaded machine does not change, `peak_mb.{parent,rank}`,
`tokens`."""

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

from cocoift.conversation import conversation, write_parquet
from cocoift.files import peak_mb

WORDS = (
    "a the is there red dog two cat what colour how many people boat on left of table why does it look safe yes no "
    "calm street under near"
).split()


def said(number: int):
    draws = random.Random(number)

    def words(n: int) -> str:
        return " ".join(draws.choices(WORDS, k=n))

    return conversation(
        f"coco:{number // 8}", (words(9) + "?", words(2)), (words(7) + "?", words(12) + "."), id=f"c{number}"
    )


def processor() -> float:  # seconds of this process and of those that it waited for
    return sum(os.times()[:4])


def rank(model: Path, folder: Path, out) -> None:
    from cocoift.models.family import open_family
    from cocoift.train.plan import Plan, TreeSampler

    family, start, used = open_family(model), time.perf_counter(), processor()
    plan = Plan(folder, family, 2048)
    sampler = TreeSampler(plan, 128, 0)
    sampler.step(0)
    middle, planned = time.perf_counter(), processor()
    for step in range(1, 11):
        sampler.step(step)
    out.put(
        {
            "plan": middle - start,
            "step": (time.perf_counter() - middle) / 10,
            "processor": {"plan": planned - used, "step": (processor() - planned) / 10},
            "peak_mb": peak_mb(),
            "tokens": int(plan.lengths.sum()),
            "kept": plan.table()["kept"],
        }
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true")
    asked.add_argument("--conversations", type=int, default=1_000_000)
    asked = asked.parse_args()
    count = 30_000 if asked.quick else asked.conversations
    from cocoift.models.family import open_family
    from cocoift.train.cache import cache_tokens
    from cocoift.train.model import assemble, save_llava, tiny_parts

    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model = save_llava(
            *assemble(*tiny_parts(here / "parts", WORDS, width=32, image_size=336, patch=14)), here / "llava"
        )
        write_parquet(here / "set.parquet", (said(number) for number in range(count)))
        family, start, used = open_family(model), time.perf_counter(), processor()
        made = cache_tokens(family, here / "set.parquet", here / "plans")
        middle, used = time.perf_counter(), processor() - used
        cache_tokens(family, here / "set.parquet", here / "plans")
        again, out = time.perf_counter() - middle, multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=rank, args=(model, made, out))
        process.start()
        found = out.get()
        process.join()
        assert found["kept"] == count
        print(
            json.dumps(
                {
                    "conversations": count,
                    "seconds": {
                        "tokenise": round(middle - start, 2),
                        "again": round(again, 2),
                        "plan": round(found["plan"], 2),
                        "step": round(found["step"], 4),
                    },
                    "processor": {
                        "tokenise": round(used, 2),
                        **{name: round(seconds, 4) for name, seconds in found["processor"].items()},
                    },
                    "peak_mb": {"parent": round(peak_mb()), "rank": round(found["peak_mb"])},
                    "tokens": found["tokens"],
                }
            )
        )


if __name__ == "__main__":
    main()
