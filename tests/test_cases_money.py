"What a server billed is counted, whatever came of it, over processes and stops; the app's gate, panels and logs."

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from mock_server import Faults, MockServer, Refusal

from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.files import Failed, Journal, UserError
from cocoift.models.ask import Ask, Settings
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.failures import check_proxies
from cocoift.models.endpoint.money import Price, read_prices
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.server import ServedModel
from cocoift.models.endpoint.spending import Spending, paid
from cocoift.models.endpoint.tasks import ask_all
from cocoift.world import make_world

PRICE = Price(input=1000, output=2000)
USAGE = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47}
BILL = PRICE.cost(40, 7)


def question(k: int, **params) -> Request:
    return Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9, **params})


def choice(message: dict, end: str | None = "stop") -> list[dict]:
    return [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": end}]


class Teller(MockServer):
    "A server that bills every 200 by `USAGE`, and sends the bodies that it is given one by one; then whole ones."

    def __init__(self, *bodies: bytes, size: int | None = None):
        super().__init__()
        self.left, self.size, self.billed = list(bodies), size, 0.0

    async def _answer(self, writer: asyncio.StreamWriter, body: dict, data: bytes) -> None:
        whole = json.dumps({"choices": choice({"content": "Two."}), "usage": USAGE}).encode()
        sent = self.left.pop(0) if self.left else whole
        self.billed += BILL
        self.counts["answers"] += sent == whole
        size = self.size if self.size and sent != whole else len(sent)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + sent)
        await writer.drain()
        if self.size and sent != whole:
            writer.close()


def body(**told) -> bytes:
    return json.dumps({"id": "x", **told}).encode()


OF_NO_USE = {
    "null": body(choices=choice({"content": None}, None), usage=USAGE),
    "a tool": body(
        choices=choice(
            {
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "tool_calls",
        ),
        usage=USAGE,
    ),
    "a tool, said to be over": body(choices=choice({"content": None, "tool_calls": [{"id": "c"}]}), usage=USAGE),
    "no choice": body(choices=[], usage=USAGE),
    "no choices": body(usage=USAGE),
    "no message": body(choices=[{"index": 0, "finish_reason": "stop"}], usage=USAGE),
    "a number": body(choices=choice({"content": 7}, None), usage=USAGE),
    "other names": body(choices=[], usage={"input_tokens": 40, "output_tokens": 7}),
    "thoughts in the total": body(choices=[], usage={"prompt_tokens": 40, "completion_tokens": 0, "total_tokens": 47}),
    "torn behind its usage": body(usage=USAGE, choices=[])[:-4] + b'[{"mess',
}


BROKEN_OFF = {None: b'{"id": "x", "choices": [{"mess', 1000: b'{"id": "x", "choices": [{"mess'}  # by what its head says


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> dict:
    "Each case asked of a server of its own, all at once, since each waits before it asks again."

    folder, bodies = tmp_path_factory.mktemp("asked"), OF_NO_USE | BROKEN_OFF

    def ask(case) -> tuple:
        server = Teller(bodies[case], size=case if case in BROKEN_OFF else None)
        cache = Cache(folder / f"{case}.sqlite")
        with server as url:
            engine = Engine(url, cache, run="r", role="t", price=PRICE, budget=100.0)
            return server, cache, engine, ask_all(engine, [question(1)])

    with ThreadPoolExecutor(len(bodies)) as pool:
        return dict(zip(bodies, pool.map(ask, bodies)))


@pytest.mark.parametrize("case", OF_NO_USE)
def test_what_was_billed_is_counted_though_it_was_no_answer(asked, case):
    server, cache, engine, answers = asked[case]
    bill = paid(Spending(cache), "r")
    assert answers[0].text == "Two." and server.billed == pytest.approx(2 * BILL)
    assert bill == {"calls": 2, "tokens_in": 80, "tokens_out": 14, "cost": pytest.approx(server.billed), "owed": 0.0}
    assert engine.cost == pytest.approx(server.billed) and (
        engine.counts["tokens_in"],
        engine.counts["tokens_out"],
    ) == (80, 14)
    assert cache.usage("r")["t"]["cost"] == pytest.approx(BILL)  # of the answer that was kept


@pytest.mark.parametrize("size", BROKEN_OFF)
def test_what_broke_off_before_its_bill_counts_at_the_most_it_may_have_been(asked, size):
    server, cache, *_ = asked[size]
    bill = paid(Spending(cache), "r")
    assert server.billed == pytest.approx(2 * BILL) and bill["calls"] == 2 and bill["owed"] == 0
    assert bill["tokens_out"] == 7 + 9 and bill["tokens_in"] == 40 + len("Boat 1") + 4


def test_refusals_and_pages_cost_nothing(tmp_path):
    cache, refused = Cache(tmp_path / "answers.sqlite"), []

    def answer(told):
        refused.append(told)
        if len(refused) < 4:
            raise Refusal((429, 500, 503)[len(refused) - 1], "busy")
        return "Two."

    with MockServer(answer) as url:
        ask_all(Engine(url, cache, run="r", price=PRICE), [question(1)])
        with pytest.raises(UserError, match="no server answers there"):
            ask_all(Engine("http://127.0.0.1:9/v1", cache, run="nobody", price=PRICE), [question(2)])
    with (
        Teller(*[b'{"error": {"message": "no credit", "code": 402}}'] * 3) as url,
        pytest.raises(UserError, match="is no chat API .*no credit"),
    ):
        ask_all(Engine(url, cache, run="error", price=PRICE), [question(3)])
    assert [paid(Spending(cache), run)["calls"] for run in ("r", "nobody", "error")] == [1, 0, 0]
    assert not any(paid(Spending(cache), run)["owed"] for run in ("r", "nobody", "error"))


def test_a_nothing_that_is_billed_is_not_asked_for_twelve_times(tmp_path):
    server, cache = Teller(*[OF_NO_USE["a tool"]] * 99), Cache(tmp_path / "answers.sqlite")
    with server as url:
        (answer,) = ask_all(Engine(url, cache, run="r", price=PRICE), [question(1)])
    assert (
        answer.status == "error"
        and "3 attempts failed, the last: an answer without text (it calls a tool)" in answer.why
    )
    assert paid(Spending(cache), "r")["cost"] == pytest.approx(server.billed) == pytest.approx(3 * BILL)


def test_nobody_knows_what_an_answer_cost_that_came_too_late(tmp_path):
    cache = Cache(tmp_path / "answers.sqlite")
    with MockServer(latency=30) as url:
        (answer,) = ask_all(Engine(url, cache, run="r", price=PRICE, timeout=0.2, attempts=2), [question(1)])
        assert answer.status == "error" and "no answer in time" in answer.why
        bill = paid(Spending(cache), "r")
        assert bill["cost"] == 0 and bill["owed"] == pytest.approx(2 * PRICE.cost(len("Boat 1") + 4, 9))
        with pytest.raises(
            Failed,
            match="--budget 0.06: 0.0000 is spent, 0.0560 more may have been billed for calls whose answer was lost, "
            "and ",
        ):
            ask_all(Engine(url, cache, run="r", price=PRICE, budget=0.06), [question(1)])


@pytest.mark.parametrize("status", [504, 524])
def test_nobody_knows_what_an_answer_cost_that_a_gateway_did_not_wait_for(tmp_path, status):
    cache, asked = Cache(tmp_path / "answers.sqlite"), []

    def answer(told):
        asked.append(told)
        if len(asked) == 1:
            raise Refusal(status, "gateway time-out")
        return "Two."

    with MockServer(answer) as url:
        assert ask_all(Engine(url, cache, run="r", price=PRICE), [question(1)])[0].text == "Two."
    bill = paid(Spending(cache), "r")
    assert bill["calls"] == 1 and bill["owed"] == pytest.approx(PRICE.cost(len("Boat 1") + 4, 9))


def test_a_server_that_counts_nothing_is_asked_once(tmp_path):
    free = body(choices=choice({"content": "Two."}), usage={"prompt_tokens": 0, "completion_tokens": 0})
    server = Teller(free, free)
    with server as url:
        for _ in range(2):
            engine = Engine(url, Cache(tmp_path / "answers.sqlite"))
            assert ask_all(engine, [question(1)])[0].text == "Two." and not engine.errors
    assert server.counts["requests"] == 1


def test_an_older_cache_has_spent_what_its_answers_cost(tmp_path):
    with MockServer() as url:
        ask_all(Engine(url, cache := Cache(tmp_path / "answers.sqlite"), run="r", price=PRICE), [question(1)])
    spent = paid(Spending(cache), "r")
    cache.db.executescript("DROP TABLE spent; DROP TABLE calls")
    assert paid(Spending(Cache(tmp_path / "answers.sqlite")), "r") == spent and spent["cost"] > 0


# ---------------------------------------------------------------- several processes, and what stops them

ASKER = """
import sys
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.tasks import one, run
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.files import Failed
url, path, first, count, budget = sys.argv[1:]
numbers, price = range(int(first), int(first) + int(count)), Price(input=1000, output=2000)
tasks = (one(Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9})) for k in numbers)
engine = Engine(url, Cache(path), concurrency=8, run="r", role="t", price=price, budget=float(budget))
try:
    run(engine, tasks, lambda k, answer: print(k, answer.status, flush=True))
except Failed as error:
    sys.exit(f"told: {error}")
"""


class Booked(MockServer):
    "A server that books the money that its whole answers cost, and those that break off."

    def __init__(self, **how):
        super().__init__(lambda told: "It is a boat.", **how)
        self.billed = 0.0

    async def _answer(self, writer, told, data):
        self.billed += PRICE.cost(len(data) // 4, 4)  # as the server states it
        await super()._answer(writer, told, data)


def asker(url, path, first, count, budget) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ASKER, url, path, *map(str, (first, count, budget))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_budget_holds_over_processes_that_share_a_cache(tmp_path):
    server, path = Booked(latency=0.05, faults=Faults(refuse=0.1)), tmp_path / "answers.sqlite"
    with server as url:
        both = [asker(url, path, first, 100, 4) for first in (0, 1000)]
        told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [1, 1] and all("told: --budget 4: " in err for _, err in told), (
        told
    )
    assert 3.5 < server.billed <= 4 and paid(Spending(Cache(path)), "r")["cost"] == pytest.approx(server.billed)


def test_a_budget_holds_over_kills(tmp_path):
    server, path = Booked(latency=0.1), tmp_path / "answers.sqlite"
    with server as url:
        for _ in range(3):
            until = server.counts["answers"] + 5
            with asker(url, path, 0, 200, 4) as process:
                while server.counts["answers"] < until and process.poll() is None:
                    time.sleep(0.002)
                process.kill()
        time.sleep(0.3)
        with asker(url, path, 0, 200, 4) as process:
            told = process.communicate(timeout=60)[1]
    bill = paid(Spending(Cache(path)), "r")
    assert process.returncode == 1 and "more may have been billed for calls whose answer was lost" in told
    assert bill["cost"] <= server.billed <= min(4, bill["cost"] + bill["owed"]) and 3 < bill["cost"] + bill["owed"] <= 4


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    make_world(folder / "world", 12)
    build(BuildRecipe(name="w", sources={"coco-captions": {}, "vqav2": {}}, clean=[]), folder / "world", folder / "set")
    make_world(folder / "exam", 5, split="val", first=1000)
    return folder


PAYING = {
    "rewrite": lambda home, url, out: [
        home / "set",
        "kinds={sentence: 3}",
        "verdicts=keep",
        "--endpoint",
        url,
        "--model",
        "m",
        "--out",
        out / "new",
        "--concurrency",
        6,
    ],
    "label": lambda home, url, out: [
        home / "set",
        "kinds={sentence: 3}",
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
        6,
    ],
    "eval": lambda home, url, out: [
        "--model",
        f"{url}#m",
        "--data",
        home / "exam",
        "--history",
        "none",
        "--nproc",
        2,
        "--out",
        out / "new",
    ],
}


def kept(folder: Path) -> int:
    return sum(
        Cache(path).db.execute("SELECT count(*) FROM answers").fetchone()[0] for path in folder.rglob("answers.sqlite")
    )


# `timeout` sends it to the process and to its group
@pytest.mark.parametrize(
    "name, signals",
    [("rewrite", [signal.SIGTERM]), ("label", [signal.SIGINT]), ("eval", [signal.SIGTERM, signal.SIGTERM])],
)
def test_a_stop_keeps_what_is_under_way(home, tmp_path, name, signals):
    server = MockServer(lambda told: "It can be seen at once.", latency=0.4)
    with server as url:
        command = [Path(sys.executable).with_name("cocoift"), name, *map(str, PAYING[name](home, url, tmp_path))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while not server.counts["answers"] and process.poll() is None:
                time.sleep(0.01)
            for number in signals:
                process.send_signal(number)
                time.sleep(0.05)
            told = process.communicate(timeout=60)[1]
        answered = server.counts["answers"]
    assert process.returncode == 130 and "Traceback" not in told, told
    assert told.strip().splitlines()[-1] == f"cocoift {name}: interrupted; the same command goes on where it stopped"
    assert (
        0 < kept(tmp_path) == answered
        and not (tmp_path / "new/scores.json").exists()
        and not (tmp_path / "new/manifest.json").exists()
    )


@pytest.mark.parametrize(
    "prices, told",
    [
        ("m: {input: 1}\nm: {input: 100}\n", "is not YAML .*the key 'm' stands twice.*mend it"),
        ("m: " + "[" * 5000, "is nested too deeply to be read: mend it"),
        ("m: {input: .inf}", "is not YAML .*inf is no number"),
    ],
)
def test_prices_say_one_thing(tmp_path, prices, told):
    (tmp_path / "prices.yaml").write_text(prices)
    with pytest.raises(UserError, match=f"prices.yaml: {told}"):
        read_prices(tmp_path / "prices.yaml", "m")


def test_a_server_on_this_machine_is_asked_past_proxies(tmp_path, monkeypatch):
    for name, way in (("http_proxy", "http://127.0.0.1:9"), ("ALL_PROXY", "socks://127.0.0.1:9")):
        monkeypatch.setenv(name, way)
    with MockServer(lambda told: "Two.") as url:
        assert ask_all(Engine(url, Cache(tmp_path / "answers.sqlite")), [question(1)])[0].text == "Two."
        spoken = ServedModel(f"{url}#m").stream(Ask.of("How many?"), Settings(), threading.Event())
        assert "".join(spoken) == "Two."


def test_a_proxy_that_no_client_can_speak_to_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks://user:word@127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    says = "^ALL_PROXY: Unknown scheme .*: write http://HOST:PORT or socks5://HOST:PORT, or unset it$"
    with pytest.raises(UserError, match=says) as told:
        ask_all(Engine("http://192.0.2.1/v1", Cache(tmp_path / "answers.sqlite")), [question(1)])
    assert "word" not in str(told.value)
    with pytest.raises(UserError, match=says):
        check_proxies()  # as `cocoift app` begins


def test_a_judge_and_its_canary_have_one_budget(tmp_path):
    from cocoift.studies.judged import run_judge

    def write(name, value):
        (tmp_path / name).write_text(json.dumps(value))
        return tmp_path / name

    answers, grades = (
        write("answers.json", {"v1_0": "Four shapes."}),
        write("grades.json", {"v1_0": {"model": "gpt-4", "score": [0.5]}}),
    )
    asked = write(
        "mm-vet.json",
        {
            "v1_0": {
                "imagename": "v1_0.png",
                "question": "How many shapes are there?",
                "answer": "4",
                "capability": ["rec"],
            }
        },
    )
    (tmp_path / "prices.yaml").write_text("m: {input: 1000, output: 1000}\n")
    server = MockServer(lambda told: "0.5")
    with server as url:
        judged = run_judge(
            "mm-vet",
            answers,
            f"{url}#m",
            tmp_path / "out",
            {"references": asked},
            canary=(grades, answers, asked),
            price=tmp_path / "prices.yaml",
            budget=4,
        )
    (cache,) = tmp_path.rglob("answers.sqlite")  # the canary asked the same: it was paid for once
    assert (
        judged["coverage"] == judged["canary"]["coverage"] == 1
        and server.counts["answers"] == 1
        and paid(Spending(Cache(cache)), "judge")["calls"] == 1
    )


# ---------------------------------------------------------------- the app


def test_wrong_guesses_hold_nobody_elsewhere():
    from fastapi import HTTPException

    from apps.guard import CALLER, Gate, household

    gate = Gate("open sesame", pause=3600)

    async def guess(caller: str, password: str) -> bool:
        CALLER.set(caller)
        return await gate.enter("a guest", password)

    async def attack():
        wrong = [asyncio.create_task(guess("192.0.2.1", f"sesame {k}")) for k in range(60)]
        await asyncio.sleep(0)
        assert await guess("192.0.2.2", "open sesame")
        refused = [task for task in wrong if task.done()]
        assert len(refused) == 60 - gate.patience and all(
            isinstance(task.exception(), HTTPException) and task.exception().status_code == 429 for task in refused
        )
        for task in wrong:
            task.cancel()
        await asyncio.gather(*wrong, return_exceptions=True)
        assert not gate.waiting and not gate.turns  # nothing is kept of anybody
        assert await guess("192.0.2.1", "open sesame")

    asyncio.run(attack())
    assert household("2001:db8:0:1::1") == household("2001:db8:0:1:ffff::2") != household("2001:db8:0:2::1")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1") != household("192.0.2.2")


@pytest.fixture
def panel(tmp_path):
    "The training panel over a run that goes on, as a visitor has it."
    import gradio as gr

    from apps.panels.place import Study
    from apps.panels.training import Training

    runs = tmp_path / "runs"
    Journal(runs / "train/one/metrics.jsonl").append([{"step": 1, "loss": 2.0, "lr": 1e-3, "tokens": 100}])
    gr.context.LocalContext.request.set(SimpleNamespace(session_hash="visitor"))
    with gr.Blocks():
        yield Training(Study(runs, None, None, tmp_path / "sessions")), runs / "train/one"


def test_what_is_written_while_a_panel_is_drawn_is_drawn_at_its_next_look(panel, monkeypatch):
    from cocoift.dashboard.live import trainings

    training, run = panel
    monkeypatch.setattr(training, "drawn", lambda runs, places: [trainings(training.study.root)[0].step.max()])
    steps, seen = lambda row: row[1:], training.seen([])
    # before it was drawn, and as long as nothing happens: nothing
    assert training.ticked([], "")[0] == training.ticked([], seen)[0]
    Journal(run / "metrics.jsonl").append([{"step": 2, "loss": 1.0, "lr": 1e-3, "tokens": 100}])
    after, *drawn = training.ticked([], seen)  # seen before the step was written, drawn whenever
    assert drawn == [2]
    Journal(run / "times.jsonl").append([{"step": 2, "seconds": 0.5}])
    assert steps(training.ticked([], after)) == [2] and steps(training.ticked(["train/one"], training.seen([]))) == [2]


def test_a_chat_log_with_line_separators(shared):
    from cocoift.arena.logs import read_log

    comparisons, others = read_log(shared / "data/cases/24-line-separator-in-chat-log/log.json")
    assert (len(comparisons), others) == (2, 0)


def test_texts_in_parallel_files_are_not_shifted(tmp_path):
    "COCO-QA's questions and answers belong together by their line."
    from cocoift.data.sources.base import Files, load_sources
    from cocoift.data.sources.record import Reject

    folder = tmp_path / "cocoqa/train"
    folder.mkdir(parents=True)
    for name, lines in {
        "questions": "what is\u2028it\nwhere is\x0cit\nhow many\x85are there\n",
        "answers": "cat\nmat\ntwo\n",
        "img_ids": "1\n2\n3\n",
        "types": "0\n3\n1\n",
    }.items():
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8", newline="")
    records = list(load_sources()["cocoqa"].read(Files(tmp_path, "cocoqa")))
    assert not any(isinstance(record, Reject) for record in records) and [r.answers[0] for r in records] == [
        "cat",
        "mat",
        "two",
    ]


def test_an_app_that_cannot_start_says_one_line(typed, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options, line in (
            (["--port", port], f"--port {port}: something is served there already"),
            (["--host", "192.0.2.1", "--password", "x"], "--host 192.0.2.1: is no address of this machine"),
            (["--host", "no where", "--password", "x"], "--host no where: no such address is known"),
        ):
            done = typed("app", "--study", tmp_path / "study", *options)
            assert (
                done.returncode == 2
                and done.stderr.startswith(f"cocoift app: {line}")
                and len(done.stderr.splitlines()) == 1
            ), done.stderr
