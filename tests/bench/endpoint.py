"""How fast the request engine is beside plain asyncio.gather over the openai client, what a repeat from the cache
takes, how much memory, and whether a faulty server makes it lose anything.

    python tests/bench/endpoint.py [--requests 4000] [--pairs 5] [--memory 100000] [--records 3000] [--quick]
                                  [--only client --photographs DIR]

The scripted server runs in a process of its own, as does each measurement; plain and engine take turns, and `vs_gather`
is the median of the rates' ratio over the pairs, so that what else the machine does weighs on both. Both do the same
requests, 64 under way; the engine with cache, limits and accounting on. `memory` is what the process holds after so
many requests of one run. `client` is what one process spends on a request, in processor milliseconds, all of it and in
the thread of its event loop, with 200 of them under way to one server and to 16 addresses, of text alone and with a
photograph each, no two the same file (`--photographs DIR`): how many it can send a second at most. The faulty server
answers 20 % with 429 and Retry-After, 5 % with 500, cuts 2 % of the connections, sends half a JSON to 1 % and lets 2 %
wait for two seconds; `doubled` is by the server's books: whole answers that it sent twice for the same request.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cocoift.images import find_pictures
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.limits import Limits
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import ImageParts, Request
from cocoift.models.endpoint.tasks import one, run

AT_ONCE = 64
UNDER_WAY = 200  # of `client`
FAULTS = "--refuse 0.2 --broken 0.05 --cut 0.02 --garble 0.01 --slow 0.02 --tail 2 --pause 0.1".split()


@contextmanager
def server(*options: str):
    process = subprocess.Popen(
        [sys.executable, Path(__file__).parents[1] / "mock_server.py", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def request(k: int) -> Request:
    return Request(
        "any",
        [
            {
                "role": "user",
                "content": f"Rewrite as a full sentence: there are {k} boats at the pier, and nobody is on them.",
            }
        ],
        {"max_tokens": 64, "temperature": 0},
    )


def plain(url: str, count: int) -> float:  # seconds
    import openai

    async def work() -> float:
        gate = asyncio.Semaphore(AT_ONCE)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=300) as client:

            async def ask(k: int) -> str:
                async with gate:
                    told = await client.chat.completions.create(**request(k).body())
                    return told.choices[0].message.content

            start = time.perf_counter()
            answers = await asyncio.gather(*map(ask, range(count)))
            assert len(answers) == count
            return time.perf_counter() - start

    return asyncio.run(work())


def held_mb() -> float:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def ours(
    url: str, count: int, cache: Path, marks: tuple[int, ...] = ()
) -> tuple[float, dict, dict]:  # seconds, MB at each mark, counts
    if count and "127.0.0.1:9/" not in url:
        import openai  # noqa: F401  before the clock starts, as for the other way

    held = Cache(cache)
    engine = Engine(
        url,
        held,
        concurrency=AT_ONCE,
        limits=Limits(1e7, 1e9),
        price=Price(input=1, output=2),
        budget=1e9,
        run="bench",
        role="bench",
    )
    told, memory, start = [0, 0], {}, time.perf_counter()

    def done(number: int, answer) -> None:
        told[answer.status != "ok"] += 1
        if sum(told) in marks:
            memory[sum(told)] = round(held_mb(), 1)
        assert answer.status != "ok" or f" {number} boats" in answer.text

    run(engine, (one(request(k)) for k in range(count)), done, "bench", count)
    seconds = time.perf_counter() - start
    return (
        seconds,
        memory,
        {
            **engine.counts,
            "answered": told[0],
            "failed": told[1],
            "errors": dict(engine.errors),
            "usage": held.usage("bench"),
        },
    )


def apart(function, *args):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def speed(count: int, pairs: int, folder: Path) -> dict:
    with server() as url:
        apart(plain, url, 200)
        taken = [(apart(plain, url, count), apart(ours, url, count, folder / f"{k}.sqlite")[0]) for k in range(pairs)]
    repeat = min(apart(ours, "http://127.0.0.1:9/v1", count, folder / "0.sqlite")[0] for _ in range(2))
    theirs, mine = (min(column) for column in zip(*taken))
    ratios = sorted(t / m for t, m in taken)
    return {
        "requests_per_s": round(count / mine, 1),
        "gather_per_s": round(count / theirs, 1),
        "vs_gather": round(median(ratios), 3),
        "vs_gather_pairs": [round(r, 3) for r in ratios],
        "cached_per_s": round(count / repeat, 1),
        "cache_speedup": round(mine / repeat, 1),
    }


def memory(count: int, folder: Path) -> dict:
    marks = (count // 10, count // 2, count)
    with server() as url:
        seconds, held, told = apart(ours, url, count, folder / "memory.sqlite", marks)
    return {
        "requests": marks,
        "rss_mb": [held[n] for n in marks],
        "seconds": round(seconds, 1),
        "answered": told["answered"],
    }


def copies(photographs: Path, count: int, folder: Path) -> Path:
    "So many pictures, no two the same file: a label job sees each but a few times."
    photographs = sorted(photographs.rglob("*.jpg"))
    folder.mkdir(exist_ok=True)
    for k in range(count):
        (folder / f"copy-{k:06d}.jpg").write_bytes(photographs[k % len(photographs)].read_bytes() + str(k).encode())
    return folder


def spent(url: str, replicas: int, count: int, cache: Path, pictures: Path | None) -> tuple[float, float, float]:
    "Seconds of so many requests: of processors, of the event loop's thread alone, and by the clock."
    import openai  # noqa: F401  before the clock starts

    pictures = find_pictures(pictures) if pictures else {}
    parts, images = ImageParts(pictures), sorted(pictures)
    urls = [url] + [url.replace("/v1", f"/{k}/v1") for k in range(1, replicas)]
    engine = Engine(
        urls,
        Cache(cache),
        parts,
        concurrency=UNDER_WAY // replicas,
        price=Price(input=1, output=2),
        budget=1e9,
        run="b",
    )

    def shown(k: int) -> Request:
        asked = request(k)
        if not images:
            return asked
        content = [{"type": "text", "text": asked.text}, parts.part(images[k])]
        return Request(asked.model, [{"role": "user", "content": content}], asked.params)

    def done(_: int, answer) -> None:
        assert answer.status == "ok", answer

    run(engine, (one(shown(k)) for k in range(UNDER_WAY)), done)
    clocks = time.process_time, time.thread_time, time.perf_counter
    before = [clock() for clock in clocks]
    run(engine, (one(shown(k)) for k in range(UNDER_WAY, UNDER_WAY + count)), done)
    return tuple(clock() - start for clock, start in zip(clocks, before))


def client(count: int, photographs: Path | None, folder: Path) -> dict:
    told, shows = {}, {"text": None}
    if photographs:
        shows["pictures"] = copies(photographs, UNDER_WAY + count, folder / "pictures")
    with server() as url:
        for name, pictures in shows.items():
            for replicas in (1, 16):
                of = apart(spent, url, replicas, count, folder / f"{name}{replicas}.sqlite", pictures)
                processor, loop, seconds = of
                told[f"{name}, {replicas} addresses"] = {
                    "processor_ms": round(1000 * processor / count, 3),
                    "loop_ms": round(1000 * loop / count, 3),
                    "most_per_s": round(count / loop, 1),
                    "requests_per_s": round(count / seconds, 1),
                }
    return told


def faults(count: int, folder: Path) -> dict:
    with server(*FAULTS) as url:
        seconds, _, told = apart(ours, url, count, folder / "faults.sqlite")
        with urllib.request.urlopen(url) as books:
            seen = json.load(books)
        again = apart(ours, url, count, folder / "faults.sqlite")[2]
    return {
        "records": count,
        "answered": told["answered"],
        "lost": count - told["answered"],
        "doubled": seen["doubled"],
        "asked_again": again.get("requests", 0),
        "seconds": round(seconds, 1),
        "requests": told["requests"],
        "errors": told["errors"],
        "server": seen["counts"],
        "kept": told["usage"]["bench"]["answers"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--sent", type=int, default=2000, help="requests of `client`")
    parser.add_argument("--photographs", type=Path, help="for `client`")
    parser.add_argument("--only", nargs="+", choices=("speed", "client", "faults", "memory"), help="these parts")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    told = parser.parse_args()
    if told.quick:
        told.requests, told.pairs, told.memory, told.records, told.sent = 600, 3, 3000, 400, 400
    only = told.only or ["speed", "client", "faults", "memory"]
    with TemporaryDirectory() as folder:
        folder, figures = Path(folder), {}
        if "speed" in only:
            figures |= speed(told.requests, told.pairs, folder)
        if "client" in only:
            figures["client"] = client(told.sent, told.photographs, folder)
        if "faults" in only:
            figures["faults"] = faults(told.records, folder)
        if "memory" in only:
            figures["memory"] = memory(told.memory, folder)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
