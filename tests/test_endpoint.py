"What is paid for is kept, and paid for once: kills, shared caches, budgets, limits, full disks, keys."

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
from mock_server import Faults, MockServer, Refusal

from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.files import Failed, UserError
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.limits import Limits
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.tasks import ask_all, one, run
from cocoift.world import make_world

KEY = "Geheim-4711-sentinel"

ASKER = """
import sys
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.tasks import one, run
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.files import UserError
url, path, count = sys.argv[1:]
tasks = (one(Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9})) for k in range(int(count)))
try:
    engine = Engine(url, Cache(path), concurrency=8, run="r", role="t", price=Price(input=1, output=1))
    run(engine, tasks, lambda k, answer: print(k, answer.status, flush=True))
except UserError as error:
    sys.exit(f"told: {error}")
"""


def question(k, text="Boat {}") -> Request:
    return Request("any", [{"role": "user", "content": text.format(k)}], {"max_tokens": 9})


def kept(path) -> set[str]:
    db = sqlite3.connect(path)
    try:
        return {key for (key,) in db.execute("SELECT key FROM answers")}
    finally:
        db.close()


def asker(url, path, count) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, url, str(path), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Booked(MockServer):
    "A server that books what it was asked, by text."

    def __init__(self, *args, **kwargs):
        self.books: Counter[str] = Counter()
        super().__init__(lambda body: self._book(body["messages"][-1]["content"]), *args, **kwargs)

    def _book(self, text: str) -> str:
        self.books[text] += 1
        return text.upper()


def test_killed_at_any_moment_it_pays_no_kept_answer_twice(tmp_path):
    path, draws, count = tmp_path / "answers.sqlite", random.Random(0), 300
    server = Booked(latency=0.02, faults=Faults(refuse=0.1, broken=0.05, cut=0.02, garble=0.01))
    keys = {question(k).key: f"Boat {k}" for k in range(count)}
    paid = []  # after each kill: what was kept, and how often the server had been asked it
    with server as url:
        for _ in range(3):
            until = server.counts["answers"] + draws.randrange(10, 90)
            with asker(url, path, count) as process:
                while server.counts["answers"] < until and process.poll() is None:
                    time.sleep(0.001)
                process.send_signal(signal.SIGKILL)
                told = [int(line.split()[0]) for line in process.stdout]
            assert process.returncode == -signal.SIGKILL
            held = kept(path)
            assert {question(k).key for k in told} <= held
            time.sleep(0.2)  # what the server was still about to answer
            paid.append({keys[key]: server.books[keys[key]] for key in held})
        with asker(url, path, count) as process:
            told, wrong = process.communicate(timeout=120)
        assert process.returncode == 0, wrong
    assert sorted(int(line.split()[0]) for line in told.splitlines()) == list(range(count))
    assert kept(path) == set(keys)
    assert 0 < len(paid[0]) < len(paid[1]) < len(paid[2]) < count
    for snapshot in paid:
        assert snapshot == {text: server.books[text] for text in snapshot}
    assert sum(server.books.values()) - count <= 3 * 8  # only what was under way when it was killed


def test_ctrl_c_keeps_what_is_under_way(tmp_path):
    server = Booked(latency=0.3)
    with server as url, asker(url, tmp_path / "answers.sqlite", 500) as process:
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode != 0
        assert 8 <= server.counts["answers"] == len(kept(tmp_path / "answers.sqlite")) < 100


def test_two_processes_share_a_cache_and_pay_each_answer_once(tmp_path):
    server, path = Booked(latency=0.02), tmp_path / "answers.sqlite"
    with server as url:
        both = [asker(url, path, 120) for _ in range(2)]
        told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [len(out.splitlines()) for out, _ in told] == [120, 120]
    assert set(server.books.values()) == {1} and len(server.books) == 120


def test_a_failure_is_never_kept_and_a_change_asks_once(tmp_path):
    sound = threading.Event()

    def answer(body):
        k = int(body["messages"][-1]["content"].split()[1])
        if k % 5 == 0 and not sound.is_set():
            raise Refusal(400, "this one I don't like")
        return "well"

    server, cache = MockServer(answer), Cache(tmp_path / "answers.sqlite")
    with server as url:
        first = ask_all(Engine(url, cache, concurrency=1), [question(k) for k in range(1, 21)])
        assert Counter(a.status for a in first) == {"ok": 16, "error": 4}
        sound.set()
        asked = server.counts["requests"]
        assert {a.text for a in ask_all(Engine(url, cache), [question(k) for k in range(1, 21)])} == {"well"}
        assert server.counts["requests"] - asked == 4
        changed = [question(k, "Boat {}" if k != 7 else "Boat {} is red") for k in range(1, 21)]
        ask_all(Engine(url, cache), changed)
        assert server.counts["requests"] - asked == 5
        ask_all(Engine(url, cache), [Request(q.model, q.messages, q.params | {"temperature": 1}) for q in changed[:2]])
        assert server.counts["requests"] - asked == 7


def test_a_straggler_blocks_nobody():
    class Slow(MockServer):
        def _fault(self):
            return "slow" if self.counts["requests"] == 1 else ""

    order = []
    with Slow(faults=Faults(tail=1.5), latency=0.005) as url:
        run(Engine(url, concurrency=4), (one(question(k)) for k in range(60)), lambda k, answer: order.append(k))
    assert order[-1] < 4 and sorted(order) == list(range(60))  # whichever of the first four came to the server first


def test_the_budget_stops_before_the_call_that_would_exceed_it(tmp_path):
    server, cache, price = MockServer(latency=0.01), Cache(tmp_path / "answers.sqlite"), Price(input=1000, output=2000)
    told = []
    with server as url:
        poor = Engine(url, cache, concurrency=6, price=price, budget=1.0, run="r", role="t")
        with pytest.raises(
            Failed,
            match="--budget 1: .* is spent and the next call may cost .*: "
            "the same command with a higher budget goes on",
        ):
            run(poor, (one(question(k)) for k in range(100)), lambda k, answer: told.append(k))
        spent = cache.usage("r")["t"]
        assert server.counts["answers"] == spent["answers"] == len(told)  # whatever the server answered was kept
        assert 0.8 < spent["cost"] <= 1.0
        with pytest.raises(Failed):  # a new start has no new money
            ask_all(
                Engine(url, Cache(tmp_path / "answers.sqlite"), price=price, budget=1.0, run="r"),
                [question(k) for k in range(100)],
            )
        assert server.counts["answers"] == spent["answers"]


def test_limits_are_learned_from_headers_and_hold_in_the_next_run():
    server = MockServer(headers={"x-ratelimit-limit-requests": "1200", "x-ratelimit-remaining-requests": "0"})
    with server as url:
        engine = Engine(url, concurrency=4)
        assert engine.limits.requests.per_minute is None
        ask_all(engine, [question(0)])
        assert engine.limits.requests.per_minute == 1200
        start = time.monotonic()
        for batch in (range(1, 9), range(9, 17)):  # two event loops, one after the other
            assert {a.status for a in ask_all(engine, [question(k) for k in batch])} == {"ok"}
        assert time.monotonic() - start >= 0.75  # 16 requests at twenty a second
        ours = Engine(url, limits=Limits(requests=300))
        ask_all(ours, [question(0)])
        assert ours.limits.requests.per_minute == 300  # what the user said, where it is less


def test_retry_after_is_waited_for():
    class Busy(MockServer):
        times = []

        def _fault(self):
            self.times.append(time.monotonic())
            return "refuse" if len(self.times) == 1 else ""

    server = Busy(faults=Faults(pause="0.8"))
    with server as url:
        assert ask_all(Engine(url), [question(1)])[0].status == "ok"
    assert 0.8 <= server.times[1] - server.times[0] < 3


def test_newer_models_call_the_longest_length_otherwise(tmp_path):
    def newer(body):
        if "max_tokens" in body:
            raise Refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.",
            )
        return str(body["max_completion_tokens"])

    server = MockServer(newer)
    with server as url:
        engine = Engine(url, concurrency=1)
        assert [a.text for a in ask_all(engine, [question(k) for k in range(5)])] == ["9"] * 5
    assert server.counts["requests"] == 6


def test_a_cache_cut_anywhere_is_told_and_left_alone(tmp_path):
    path = tmp_path / "answers.sqlite"
    with MockServer() as url:
        ask_all(Engine(url, Cache(path)), [question(k, "Boat {} " + "lies at the pier " * 20) for k in range(150)])
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = path.read_bytes()
    assert len(whole) > 40_000
    for size in random.Random(1).sample(range(1, len(whole)), 25) + [len(whole) - 1]:
        torn = tmp_path / "torn" / f"{size}.sqlite"
        torn.parent.mkdir(exist_ok=True)
        torn.write_bytes(whole[:size])
        with pytest.raises(
            UserError, match=f"{size}.sqlite: is no whole cache of answers .*: restore it, or name another with --cache"
        ):
            Cache(torn)
        assert torn.read_bytes() == whole[:size]


def test_a_full_disk_stops_the_run_and_loses_nothing_that_was_kept(tmp_path):
    server, cache = Booked(), Cache(tmp_path / "answers.sqlite")
    pages = cache.db.execute("PRAGMA page_count").fetchone()[0]
    cache.db.execute(f"PRAGMA max_page_count={pages + 6}")  # SQLite's own word for a disk without room
    tasks = [question(k, "Boat {} " + "lies at the pier " * 20) for k in range(200)]
    with server as url:
        with pytest.raises(
            UserError, match="answers.sqlite: the disk is full .*: make room and run again, all answers so far are kept"
        ):
            ask_all(Engine(url, cache, concurrency=4), tasks)
        held = kept(tmp_path / "answers.sqlite")
        assert 0 < len(held) < 200
        before = Counter(server.books)
        cache.db.execute("PRAGMA max_page_count=100000")
        assert {a.status for a in ask_all(Engine(url, cache), tasks)} == {"ok"}
    texts = {q.key: q.messages[0]["content"] for q in tasks}
    assert all(server.books[texts[key]] == before[texts[key]] == 1 for key in held)
    assert sum(server.books.values()) - 200 <= 4


def test_a_disk_that_is_really_full(tmp_path):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine lets no user mount a tmpfs; the test above fills SQLite's own limit")
    script = f"""mount -t tmpfs -o size=220k none {tmp_path} || exit 9
ask() {{ "$PY" -c "$ASKER" "$URL" {tmp_path}/answers.sqlite 300; }}
ask > /dev/null; echo "code $?" >&2
mount -o remount,size=40m {tmp_path} && ask | wc -l"""
    server = Booked()
    with server as url:
        done = subprocess.run(
            ["unshare", "-rm", "bash", "-c", script],
            env=os.environ | {"PY": sys.executable, "ASKER": ASKER, "URL": url},
            capture_output=True,
            text=True,
            timeout=120,
        )
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"told: {tmp_path}/answers.sqlite: the disk is full") and lines[1:] == ["code 1"], (
        done.stderr
    )
    assert done.stdout.strip() == "300"
    assert sum(server.books.values()) - 300 <= 8 and len(server.books) == 300


# What a user meets, command by command.


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "exam/ to ask about, world/ with set/ built from it to write about, and an answer to be judged."
    folder = tmp_path_factory.mktemp("home")
    make_world(folder / "exam", 5, split="val", first=1000)
    make_world(folder / "world", 6)
    build(BuildRecipe(name="w", sources={"coco-captions": {}, "vqav2": {}}, clean=[]), folder / "world", folder / "set")
    (folder / "answers.json").write_text('{"v1_0": "Four shapes."}')
    (folder / "mm-vet.json").write_text(
        '{"v1_0": {"imagename": "v1_0.png", "question": "How many shapes are there?", "answer": "4", '
        '"capability": ["rec"]}}'
    )
    return folder


COMMANDS = {
    "eval": lambda home, url, out: [
        "--model",
        f"{url}#m",
        "--data",
        home / "exam",
        "--per-image",
        1,
        "--history",
        "none",
        "--out",
        out / "run",
    ],
    "judge": lambda home, url, out: [
        "mm-vet",
        "--predictions",
        home / "answers.json",
        "--references",
        home / "mm-vet.json",
        "--judge",
        f"{url}#m",
        "--out",
        out / "judged",
    ],
    "rewrite": lambda home, url, out: [
        home / "set",
        "kinds={sentence: 2}",
        "verdicts=keep",
        "--endpoint",
        url,
        "--model",
        "m",
        "--out",
        out / "new",
        "--concurrency",
        2,
    ],
    "label": lambda home, url, out: [
        home / "set",
        "kinds={sentence: 1}",
        "verdicts=keep",
        "--images",
        home / "world",
        "--endpoint",
        url,
        "--model",
        "m",
        "--out",
        out / "new",
        "--concurrency",
        2,
    ],
}


def told(status: int, message: str):
    def answer(body):
        raise Refusal(status, message)

    return answer


def sees_nothing(body):
    if any(isinstance(m["content"], list) for m in body["messages"]):
        raise Refusal(400, "Invalid content type. image_url is only supported by certain models.")
    return "I am a text model."


BAD = {
    "unknown model": (told(404, "The model `m` does not exist"), "has no model m"),
    "wrong key": (
        told(401, "Incorrect API key provided"),
        "does not accept the key (HTTP 401: Incorrect API key provided): set OPENAI_API_KEY",
    ),
    "no vision": (sees_nothing, "m takes no pictures (HTTP 400: Invalid content type"),
    "too large": (told(413, "Request Entity Too Large"), "a request is too large for it (HTTP 413)"),
    "no money": (told(429, "You exceeded your current quota: insufficient_quota"), "the account has no money left"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_one_clear_line(command, home, tmp_path, name):
    "Whatever is wrong with the server, and whichever command meets it."
    for case, (answer, line) in BAD.items():
        if case == "no vision" and name in ("judge", "rewrite"):
            continue
        with MockServer(answer) as url:
            code, err, _ = command(name, *COMMANDS[name](home, url, tmp_path / case))
        last = err.strip().splitlines()[-1]
        assert code == 2 and last.startswith(f"cocoift {name}: {url}: ") and line in last and "Traceback" not in err, (
            case,
            err,
        )


@pytest.mark.parametrize("name", COMMANDS)
def test_one_clear_line_where_no_server_answers(command, home, tmp_path, monkeypatch, name):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for url, line in (
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1: no server answers there ("),
        ("http://api.example.org/v1", "OPENAI_API_KEY: is not set, and http://api.example.org/v1 is not on"),
        (
            "http://me:geheim@127.0.0.1:9/v1",
            "--endpoint http://127.0.0.1:9/v1: is written with a user, a password or a query",
        ),
    ):
        code, err, _ = command(name, *COMMANDS[name](home, url, tmp_path))
        assert code == 2 and f"cocoift {name}: {line}" in err.strip().splitlines()[-1] and "geheim" not in err, err


def test_nothing_is_lost_when_the_key_stops_working(command, home, tmp_path):
    def tired(body):
        if server.counts["answers"] >= 7:
            raise Refusal(401, "This key has expired")
        return "It can be seen at once that this is the right answer."

    server = MockServer(tired, latency=0.01)
    with server as url:
        code, err, _ = command("rewrite", *COMMANDS["rewrite"](home, url, tmp_path))
        assert code == 2 and "does not accept the key (HTTP 401: This key has expired)" in err
        assert len(kept(tmp_path / "answers.sqlite")) == server.counts["answers"] == 7
        server.answer = lambda body: "It can be seen at once that this is the right answer."
        code, err, out = command("rewrite", *COMMANDS["rewrite"](home, url, tmp_path), "--json")
    assert code == 0, err
    assert (
        json.loads(out)["cached"] == 7
        and server.counts["answers"] == len(kept(tmp_path / "answers.sqlite"))
        and set(server.answered.values()) == {1}
    )


@pytest.mark.parametrize("name", ["rewrite", "label"])
def test_a_run_from_the_cache_pays_nothing(command, home, tmp_path, name):
    (tmp_path / "prices.yaml").write_text("m: {input: 1000, output: 2000}\n")
    more = ["--price", tmp_path / "prices.yaml", "--cache", tmp_path / "answers.sqlite"]
    with MockServer(lambda body: "It can be seen at once that this is the right answer.") as url:
        first, twin = (COMMANDS[name](home, url, tmp_path / folder) for folder in ("one", "two"))
        done = json.loads(command(name, *first, *more, "--json")[2])
        again, copy = (json.loads(command(name, *args, *more, "--json")[2]) for args in (first, twin))
        text = command(name, *COMMANDS[name](home, url, tmp_path / "three"), *more)[2]
    assert done["tokens"] > 0 and done["cost"] > 0 and done["total"] == {k: done[k] for k in ("tokens", "cost")}
    for second in again, copy:
        assert (second["requests"], second["tokens"], second["cost"]) == (0, 0, 0.0)
        assert second["total"] == done["total"] and second["written"] == done["written"]
    assert copy["saved"] == done["total"] and again["saved"] == {"tokens": 0, "cost": 0.0}
    assert "0 tokens paid for, cost 0.0000" in text
    assert f"the cache saved {done['tokens']} tokens, cost {done['cost']:.4f}" in text


def test_a_schema_that_is_ignored_is_said_once(command, home, tmp_path):
    asked = ["kinds={reasoning: 1}", "--model", "m", "--out", tmp_path / "new", "--json"]
    with MockServer(lambda body: "Why is it there? Because somebody drew it.") as url:
        code, err, out = command("rewrite", home / "set", *asked, "--endpoint", url)
    done = json.loads(out)
    assert code == 0 and err.count("does not hold answers to the JSON schema that it is sent") == 1, err
    assert done["past_schema"] == done["requests"] > 2 and set(done["reasons"]) == {"malformed"}


def test_a_judge_without_grades_is_told_what_helps(command, home, tmp_path):
    server = MockServer(lambda body: "A fine answer.")
    with server as url:
        code, err, _ = command("judge", *COMMANDS["judge"](home, url, tmp_path))
        assert code == 1 and "1 parse_error" in err and "another --judge, a higher --most-tokens" in err, err
        assert "run again" not in err and "would come back the same" in err
        assert command("judge", *COMMANDS["judge"](home, url, tmp_path))[:2] == (code, err)
        assert server.counts["requests"] == 1  # the reply stands: to ask again would bring nothing else
        several = tmp_path / "several.jsonl"
        several.write_text('{"question_id": "v1_0", "response": "Four.", "prediction": "Five."}\n')
        args = COMMANDS["judge"](home, url, tmp_path / "of a field")
        args[2] = several
        code, err, _ = command("judge", *args)
        assert code == 2 and "response and prediction could each be the answer: name it with --field" in err
        server.answer = lambda body: "1.0" if "Four." in str(body) else "0.0"
        code, err, out = command("judge", *args, "--field", "response", "--json")
        assert code == 0 and json.loads(out)["scores"]["total"]["value"] == 100.0, err


def test_eval_keeps_what_it_paid_for_within_its_budget(command, home, tmp_path):
    server = MockServer(lambda body: "A star, as one can see.", latency=0.01)
    (tmp_path / "prices.yaml").write_text("m: {input: 1000, output: 1000}\n")
    with server as url:
        args = COMMANDS["eval"](home, url, tmp_path)
        code, err, _ = command("eval", *args, "--price", tmp_path / "prices.yaml", "--budget", 2)
        assert code == 1 and "--budget 2: " in err, err
        assert 0 < server.counts["answers"] == len(kept(tmp_path / "run/answers.sqlite"))
        code, err, _ = command("eval", *args, "--budget", 2)
        assert code == 2 and "--budget: without prices nothing costs anything" in err
        code, err, _ = command("eval", *args)
    assert code == 0, err
    assert set(server.answered.values()) == {1} and server.counts["answers"] == len(
        kept(tmp_path / "run/answers.sqlite")
    )


def test_a_page_that_is_no_api_is_told_at_once(command, home, tmp_path):
    class Page(MockServer):
        async def _answer(self, writer, body, data):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>")
            await writer.drain()

    with Page() as url:
        code, err, _ = command("eval", *COMMANDS["eval"](home, url, tmp_path))
    assert code == 2 and "what answers there is no chat API" in err.strip().splitlines()[-1], err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_key_is_nowhere(command, home, tmp_path, monkeypatch, name):
    "A server that repeats the key in all it says: whatever the command writes and prints is searched for it."
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("cocoift.models.endpoint.engine.back_off", lambda *args: 0.0)
    for echo, status in (("answers", 0), ("refusals", 400), ("unwell", 500), ("wrong key", 401)):

        def answer(body):
            assert server.authorization == f"Bearer {KEY}"
            text = f"You came with {server.authorization}, and that is {KEY}."
            if not status or status != 401 and not server.counts["answers"]:
                return text
            raise Refusal(status, text)

        server, out = MockServer(answer), tmp_path / echo.replace(" ", "-")
        with server as url:
            code, err, printed = command(name, *COMMANDS[name](home, url, out), "--json")
        assert server.counts["requests"] > 0 and "Traceback" not in err, err
        assert code == 2 if status == 401 else code in (0, 1), err
        assert KEY not in err + printed
        files = [path for path in out.rglob("*") if path.is_file()]
        assert status == 401 or files
        for path in files:
            assert KEY.encode() not in path.read_bytes(), path
            assert path.suffix != ".parquet" or KEY not in str(pq.read_table(path).to_pylist()), path
