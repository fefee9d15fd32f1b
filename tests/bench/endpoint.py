"""How fast the request engine is beside plain asyncio.gather over the openai client, what a repeat from the cache takes, how much memory, and whether a faulty server makes it lose anything.

    python tests/bench/endpoint.py [--requests 4000] [--memory 100000] [--records 3000] [--quick]

The scripted server runs in a process of its own, as does each measurement of the engine; plain and engine take turns, three times each, and the best of each counts. Both do the same
requests, 64 under way; the engine with cache, limits and accounting on. The faulty server answers 20 % with 429 and Retry-After, 5 % with 500, cuts 2 % of the connections, sends half a
JSON to 1 % and lets 2 % wait for two seconds; `doubled` is by the server's books: whole answers that it sent twice for the same request.
"""
import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from cocoift.chat.endpoint.cache import Cache
from cocoift.chat.endpoint.engine import Engine, one, run
from cocoift.chat.endpoint.limits import Limits
from cocoift.chat.endpoint.money import Price
from cocoift.chat.endpoint.request import Request
from cocoift.files import peak_mb

AT_ONCE = 64
FAULTS = ["--refuse", "0.2", "--broken", "0.05", "--cut", "0.02", "--garble", "0.01", "--slow", "0.02", "--tail", "2", "--pause", "0.1"]


@contextmanager
def server(*options: str):
    process = subprocess.Popen([sys.executable, "-m", "cocoift.chat.endpoint.stage", *options], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def request(k: int) -> Request:
    return Request("any", [{"role": "user", "content": f"Rewrite as a full sentence: there are {k} boats at the pier, and nobody is on them."}], {"max_tokens": 64, "temperature": 0})


def plain(url: str, count: int) -> float:  # seconds
    import openai

    async def work() -> float:
        gate = asyncio.Semaphore(AT_ONCE)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            async def ask(k: int) -> str:
                async with gate:
                    told = await client.chat.completions.create(**request(k).body())
                    return told.choices[0].message.content

            start = time.perf_counter()
            answers = await asyncio.gather(*map(ask, range(count)))
            assert len(answers) == count
            return time.perf_counter() - start

    return asyncio.run(work())


def ours(url: str, count: int, cache: Path) -> tuple[float, float, dict]:  # seconds, peak MB, counts
    if count and "127.0.0.1:9/" not in url:
        import openai  # noqa: F401  before the clock starts, as for the other way

    held = Cache(cache)
    engine = Engine(url, held, concurrency=AT_ONCE, limits=Limits(1e7, 1e9), price=Price(input=1, output=2), budget=1e9, run="bench", role="bench")
    told, start = [0, 0], time.perf_counter()

    def done(number: int, answer) -> None:
        told[answer.status != "ok"] += 1
        assert answer.status != "ok" or f" {number} boats" in answer.text

    run(engine, (one(request(k)) for k in range(count)), done, "bench", count)
    seconds = time.perf_counter() - start
    return seconds, peak_mb(), {**engine.counts, "answered": told[0], "failed": told[1], "errors": dict(engine.errors), "usage": held.usage("bench")}


def apart(function, *args):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def speed(count: int, folder: Path) -> dict:
    with server() as url:
        apart(plain, url, 200)
        pairs = [(apart(plain, url, count), apart(ours, url, count, folder / f"{k}.sqlite")[0]) for k in range(3)]
    repeat = min(apart(ours, "http://127.0.0.1:9/v1", count, folder / "0.sqlite")[0] for _ in range(2))
    theirs, mine = (min(column) for column in zip(*pairs))
    return {"requests_per_s": round(count / mine, 1), "gather_per_s": round(count / theirs, 1), "vs_gather": round(theirs / mine, 3), "cached_per_s": round(count / repeat, 1),
            "cache_speedup": round(mine / repeat, 1)}


def memory(count: int, folder: Path) -> dict:
    with server() as url:
        few, many = (apart(ours, url, n, folder / f"memory-{n}.sqlite")[1] for n in (count // 10, count))
    return {"requests": [count // 10, count], "peak_mb": [round(few, 1), round(many, 1)]}


def faults(count: int, folder: Path) -> dict:
    with server(*FAULTS) as url:
        seconds, _, told = apart(ours, url, count, folder / "faults.sqlite")
        with urllib.request.urlopen(url) as books:
            seen = json.load(books)
        again = apart(ours, url, count, folder / "faults.sqlite")[2]
    return {"records": count, "answered": told["answered"], "lost": count - told["answered"], "doubled": seen["doubled"], "asked_again": again.get("requests", 0), "seconds": round(seconds, 1),
            "requests": told["requests"], "errors": told["errors"], "server": seen["counts"], "kept": told["usage"]["bench"]["answers"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--memory", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    told = parser.parse_args()
    if told.quick:
        told.requests, told.memory, told.records = 1000, 5000, 500
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        print(json.dumps({**speed(told.requests, folder), "faults": faults(told.records, folder), "memory": memory(told.memory, folder)}))


if __name__ == "__main__":
    main()
