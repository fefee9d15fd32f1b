"""Several servers of one model, and one budget for all."""

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from mock_batches import BatchServer
from mock_server import Faults, MockServer, Refusal, send

from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.models.endpoint import replicas
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.identity import KnownServer
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.spending import Spending, paid
from cocoift.models.endpoint.tasks import ask_all
from cocoift.world import make_world

PRICE = Price(input=1000, output=2000)


def question(k: int) -> Request:
    return Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9})


class Mortal(MockServer):
    "A server that can be stopped, and started again where it was."

    port = 0

    def __enter__(self) -> str:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        url = asyncio.run_coroutine_threadsafe(self.start(self.port), self._loop).result(10)
        self.port = int(url.rpartition(":")[2].partition("/")[0])
        return url


def test_the_work_of_a_dead_server_goes_to_the_others_and_comes_back(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(replicas, "_AGAIN", 0.2)
    listed = [{"id": "any", "root": "runs/a"}]
    steady, mortal = (kind(latency=0.02, models=listed) for kind in (MockServer, Mortal))
    with steady as url:
        second, before = mortal.__enter__(), 0

        def die_and_rise():
            nonlocal before
            while mortal.counts["answers"] < 20:
                time.sleep(0.005)
            mortal.__exit__()
            before = mortal.counts["answers"]
            time.sleep(0.5)
            mortal.__enter__()

        thread = threading.Thread(target=die_and_rise)
        thread.start()
        known = KnownServer(tmp_path / "server.json", [url, second], "any")
        engine = Engine([url, second], Cache(tmp_path / "answers.sqlite"), concurrency=4, known=known)
        answers = ask_all(engine, [question(k) for k in range(400)])
        thread.join()
        mortal.__exit__()
    assert [a.text for a in answers] == [f"Boat {k}" for k in range(400)]
    assert mortal.counts["answers"] > before + 20 and steady.counts["answers"] > 100
    lines = [line for line in capfd.readouterr().err.splitlines() if second in line]
    assert len(lines) == 2 and "its work goes to the other 1" in lines[0] and lines[1].endswith(": answers again")


def test_a_server_that_comes_back_as_another_gets_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(replicas, "_AGAIN", 0.1)
    steady, other = (MockServer(latency=0.01, models=[{"id": "any", "root": "runs/a"}]) for _ in range(2))
    with steady as url, other as second:
        known = KnownServer(tmp_path / "server.json", [url, second], "any")
        engine = Engine([url, second], Cache(tmp_path / "answers.sqlite"), concurrency=4, known=known)
        ask_all(engine, [question(k) for k in range(20)])
        other.faults, other.models = Faults(broken=1.0), [{"id": "any", "root": "runs/b"}]
        ask_all(engine, [question(k) for k in range(20, 60)])
        other.faults, before = Faults(), other.counts["answers"]
        time.sleep(0.1)
        answers = ask_all(engine, [question(k) for k in range(60, 160)])
    assert {a.status for a in answers} == {"ok"} and other.counts["answers"] == before
    assert "(root runs/a, now runs/b)" in capfd.readouterr().err


def test_when_all_die_the_requests_are_failures_and_nothing_hangs(monkeypatch):
    monkeypatch.setattr("cocoift.models.endpoint.engine.back_off", lambda *args: 0.0)
    servers = [MockServer(), MockServer()]
    with servers[0] as url, servers[1] as second:
        engine = Engine([url, second], concurrency=2)
        ask_all(engine, [question(1)])
        for server in servers:
            server.faults = Faults(broken=1.0)
        answers = ask_all(engine, [question(2)])
        for server in servers:
            server.faults = Faults()
        assert ask_all(engine, [question(3)])[0].status == "ok"
    assert answers[0].status == "error" and "12 attempts failed" in answers[0].why


class Silent(MockServer):
    "Bills a thousand tokens, and says nothing."

    async def _answer(self, writer, body, data):
        self.counts["answers"] += 1
        nothing = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "x"}
        await send(writer, 200, {"choices": [nothing], "usage": {"prompt_tokens": 1000, "completion_tokens": 9}}, {})


def test_a_billed_answer_without_a_text_is_not_bought_from_every_server():
    bought = {}
    for number in (1, 5):
        servers = [Silent() for _ in range(number)]
        with ExitStack() as running:
            engine = Engine([running.enter_context(server) for server in servers], price=PRICE)
            assert [a.status for a in ask_all(engine, [question(0)])] == ["error"]
        bought[number] = sum(server.counts["answers"] for server in servers)
    assert bought[1] == bought[5] == 3


def test_what_one_server_does_not_take_the_other_does():
    def old(body):
        if "max_completion_tokens" in body:
            raise Refusal(400, "Unknown field max_completion_tokens")
        return "Two."

    def new(body):
        if "max_tokens" in body:
            raise Refusal(400, "Use 'max_completion_tokens' instead.")
        return "Two."

    servers = [MockServer(old), MockServer(new)]
    with servers[0] as url, servers[1] as second:
        answers = ask_all(Engine([url, second], concurrency=4), [question(k) for k in range(40)])
    assert {a.text for a in answers} == {"Two."} and min(s.counts["answers"] for s in servers) > 5


# ---------------------------------------------------------------- what users type


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    make_world(folder / "world", 6)
    build(BuildRecipe(name="w", sources={"coco-captions": {}, "vqav2": {}}, clean=[]), folder / "world", folder / "set")
    return folder


@pytest.fixture
def rewrite(command, home):
    "`cocoift rewrite` in this process: its exit code, and what it wrote to stderr."

    def call(out, *options):
        args = ["rewrite", home / "set", "kinds={sentence: 1}", "verdicts=keep", "--model", "m", "--out", out, *options]
        code, written, _ = command(*args)
        return code or 0, written.strip().splitlines()[-1:]

    return call


def test_servers_that_are_no_replicas_are_one_line_and_nothing_is_written(tmp_path, rewrite):
    first, second = (MockServer(models=[{"id": "m", "root": f"runs/{name}"}]) for name in "ab")
    (tmp_path / "empty.txt").write_text("# none\n")
    (tmp_path / "odd.yaml").write_text("servers: []\n")
    with first as a, second as b:
        (tmp_path / "dead.txt").write_text(f"{a}\nhttp://127.0.0.1:9/v1\n")
        for options, line in {
            ("--endpoint", tmp_path / "dead.txt"): "1 of 2 servers do not answer: http://127.0.0.1:9/v1 (",
            ("--endpoint", a, "--endpoint", b): f"{b}: serves runs/b as m, and {a} serves runs/a",
            ("--endpoint", a, "--endpoint", f"{a}/"): f"--endpoint {a}: stands twice among the servers",
            ("--endpoint", tmp_path / "empty.txt"): "empty.txt: lists no server",
            ("--endpoint", tmp_path / "odd.yaml"): "odd.yaml: is no list of servers",
            ("--endpoint", tmp_path / "none.txt"): "none.txt: is no address",
            (): "Missing option '--endpoint'",
            ("--endpoint", a, "--batch", "maybe"): "--batch maybe: is api or file",
            ("--endpoint", a, "--batch", "file"): "leave --endpoint out",
            ("--endpoint", a, "--batch", "api", "--concurrency", 4): "--concurrency: is for requests that are sent one",
            ("--batch", "file", "--timeout", 9): "--timeout: is for requests that are sent one by one",
            ("--batch", "file", "--tokens-per-minute", 9): "--tokens-per-minute: is for requests that are sent one",
            ("--endpoint", a, "--endpoint", b, "--batch", "api"): "one server keeps a batch, 2 are named",
            ("--endpoint", a, "--batch", "api"): "is there a batch API at this address?",
        }.items():
            code, last = rewrite(tmp_path / "new", *options, "--cache", tmp_path / f"{len(line)}.sqlite")
            assert code == 2 and line in last[0], (options, last)
            assert not (tmp_path / "new").exists()
    assert first.counts["answers"] == second.counts["answers"] == 0


def test_the_commands_share_the_work_among_servers(tmp_path, rewrite, monkeypatch):
    servers = [MockServer(lambda body: "Yes, it is.", latency=0.01) for _ in range(2)]
    with servers[0] as a, servers[1] as b:
        assert rewrite(tmp_path / "new", "--endpoint", a, "--endpoint", b, "--concurrency", 2)[0] == 0
        assert min(s.counts["answers"] for s in servers) > 0
    whole = (tmp_path / "new" / "manifest.json").exists()
    assert whole and json.loads(next(tmp_path.glob("server-*.json")).read_text())["replicas"] == {b: {}}


ASKER = """
import sys
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.tasks import ask_all
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.files import Failed
url, second, path, run = sys.argv[1:]
asked = [Request("any", [{"role": "user", "content": f"Boat {run} {k}"}], {"max_tokens": 9}) for k in range(100)]
price = Price(input=1000, output=2000)
try:
    ask_all(Engine([url, second], Cache(path), concurrency=4, run=run, price=price, budget=4.0, shared=True), asked)
except Failed as error:
    sys.exit(f"told: {error}")
"""


def test_one_budget_for_two_runs_on_two_servers(tmp_path):
    path = tmp_path / "answers.sqlite"
    servers = [MockServer(lambda body: "It is a boat.", latency=0.03) for _ in range(2)]
    with servers[0] as url, servers[1] as second:
        both = [
            subprocess.Popen([sys.executable, "-c", ASKER, url, second, path, run], stderr=subprocess.PIPE, text=True)
            for run in ("one", "other")
        ]
        ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert all(code == 1 and "told: --budget 4: " in err for err, code in ends), ends
    spending = Spending(Cache(path))
    bills = [paid(spending, run)["cost"] for run in ("one", "other")]
    assert 3.0 < sum(bills) <= 4.0 and min(bills) > 0.5


def test_files_and_a_server_are_not_mixed_without_a_word(tmp_path, rewrite):
    assert "requests wait to be carried out" in rewrite(tmp_path / "new", "--batch", "file")[1][0]
    (known,) = tmp_path.glob("server-*.json")
    (folder,) = (path for path in tmp_path.glob("batches-*") if path.is_dir())
    with MockServer() as url:
        assert (
            "wait for `vllm run-batch`: go on with --batch file" in rewrite(tmp_path / "new", "--endpoint", url)[1][0]
        )
        shutil.rmtree(folder)
        code, last = rewrite(tmp_path / "new", "--endpoint", url)
        assert code == 2 and f"another server (address vllm run-batch, now {url})" in last[0]
        known.write_text(json.dumps({"address": url, "model": "m"}))
    code, last = rewrite(tmp_path / "new", "--batch", "file")
    assert code == 2 and f"begun on another server (address {url}, now vllm run-batch)" in last[0]
    assert not (tmp_path / "new").exists() and not list(folder.glob("*.jsonl"))


def test_rewrite_as_a_batch_costs_half(tmp_path, rewrite):
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 100, output: 100, batch: 0.5}\n")
    server = BatchServer(lambda body: "Yes, it is.")
    with server as url:
        options = ("--endpoint", url, "--batch", "api", "--price", prices, "--budget", 5)
        assert rewrite(tmp_path / "new", *options)[0] == 0
        assert rewrite(tmp_path / "new", *options)[0] == 0
    usage = json.loads((tmp_path / "new" / "manifest.json").read_text())["written"]["rewrite"]["usage"]["rewrite"]
    assert usage["answers"] == server.counts["answers"] > 3
    assert usage["cost"] == pytest.approx(usage["answers"] * 13 * 100 / 1e6 / 2)
