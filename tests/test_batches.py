"""Requests that are sent as batches: nothing is paid twice and nothing is lost, wherever a start ends."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mock_batches import BatchServer
from mock_server import MockServer, Refusal

from cocoift.files import Failed, UserError
from cocoift.models.ask import Ask
from cocoift.models.endpoint import batch_api as batch_api_module
from cocoift.models.endpoint.batch_api import BatchApi, BatchFiles, check_submitted
from cocoift.models.endpoint.batched import BatchedModel
from cocoift.models.endpoint.batches import Batches
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.identity import KnownServer
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.spending import Spending, paid
from cocoift.models.endpoint.tasks import one
from cocoift.world import make_world

PRICE = Price(input=1000, output=2000)


def question(k: int) -> Request:
    return Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9})


def batches(tmp_path, url, **how) -> Batches:
    return Batches(tmp_path / "batches", BatchApi(url), Cache(tmp_path / "answers.sqlite"), run="r", price=PRICE, **how)


def tasks(count: int):
    return lambda: [one(question(k)) for k in range(count)]


def test_a_lost_reply_and_failing_looks_make_no_second_batch(tmp_path):
    server = BatchServer(lost=1, broken=2, polls=2)
    with server as url:
        assert batches(tmp_path, url).ask(tasks(5)) == {}
        assert batches(tmp_path, url).ask(tasks(5)) == {}
    assert len(server.batches) == 1 and server.counts["answers"] == 5


KILLED = """
import sys
from cocoift.models.endpoint.batch_api import BatchApi
from cocoift.models.endpoint.batches import Batches
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.money import Price
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.tasks import one
folder, url = sys.argv[1:]
asked = [Request("any", [{"role": "user", "content": f"Boat {k}"}], {"max_tokens": 9}) for k in range(5)]
price = Price(input=1000, output=2000)
Batches(folder + "/batches", BatchApi(url), Cache(folder + "/answers.sqlite"), run="r", price=price).ask(
    lambda: map(one, asked)
)
"""


def test_a_killed_start_is_gone_on_with(tmp_path):
    server = BatchServer(polls=10**6)
    with server as url:
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), url])
        while not server.batches or next(iter(server.batches.values()))["looks"] < 2:
            time.sleep(0.01)
            assert process.poll() is None
        process.kill()
        process.wait()
        spending = Spending(Cache(tmp_path / "answers.sqlite"))
        assert paid(spending, "r")["owed"] > 0  # the batch is on its way, and the budget knows
        with pytest.raises(
            UserError, match="1 batches of this run are under way and billed .*: go on with --batch api"
        ):
            check_submitted(
                tmp_path / "batches", tmp_path / "answers.sqlite"
            )  # who asks in another way now would pay again
        server.polls = 1
        assert batches(tmp_path, url).ask(tasks(5)) == {}
    check_submitted(tmp_path / "batches", tmp_path / "answers.sqlite")
    assert (len(server.batches), server.counts["answers"]) == (1, 5)
    assert paid(spending, "r") == {"calls": 1, "tokens_in": 40, "tokens_out": 25, "cost": 0.09, "owed": 0.0}


def test_what_another_command_spends_meanwhile_is_said(tmp_path, monkeypatch):
    with BatchServer() as url:
        asked = batches(tmp_path, url, budget=1)
        monkeypatch.setattr(asked.account, "enter", lambda *bound: None)
        with pytest.raises(Failed, match="--budget 1: "):
            asked.ask(tasks(3))


@pytest.mark.parametrize("ends", ["expired", "cancelled"])
def test_what_a_batch_did_not_come_to_is_a_status_and_is_asked_again(tmp_path, ends):
    server = BatchServer(ends=ends)
    with server as url:
        failed = batches(tmp_path, url).ask(tasks(6))
        assert {(a.status, a.text, a.why) for a in failed.values()} == {("error", "", f"batch_{ends}")}
        server.ends = "completed"
        assert batches(tmp_path, url).ask(tasks(6)) == {}
    assert len(failed) == 3 and server.counts["answers"] == 6 and len(server.batches) == 2


def test_a_refused_batch_owes_nothing_and_is_sent_again(tmp_path):
    server = BatchServer(ends="failed")
    with server as url:
        with pytest.raises(Failed, match="was refused .line 1: Unknown model.: the same command sends"):
            batches(tmp_path, url).ask(tasks(3))
        assert Spending(Cache(tmp_path / "answers.sqlite")).total("r") == (0.0, 0.0)
        server.ends = "completed"
        assert batches(tmp_path, url).ask(tasks(3)) == {}


def test_a_budget_is_sent_in_several_batches_and_stops_before_the_next(tmp_path):
    server = BatchServer()
    with server as url:
        with pytest.raises(Failed, match="--budget 0.3: 0.2.* is spent and the next call may cost"):
            batches(tmp_path, url, budget=0.3).ask(tasks(20))
        spent = Spending(Cache(tmp_path / "answers.sqlite")).total("r")
        assert len(server.batches) > 1 and spent[0] == pytest.approx(server.counts["answers"] * PRICE.cost(8, 5))
        assert batches(tmp_path, url, budget=100).ask(tasks(20)) == {}
    assert server.counts["answers"] == 20


def test_what_a_budget_covers_at_a_time_is_said_with_the_one_that_covers_all(tmp_path, capfd):
    server = BatchServer()
    with server as url:
        assert batches(tmp_path / "a", url, budget=0.5).ask(tasks(20)) == {}
        (line,) = {line for line in re.findall("the budget covers.*", capfd.readouterr().err) if "of 20 " in line}
        now, whole = re.search("covers (.*) of 20 at a time: --budget (.*) sends all at once", line).groups()
        first = next(iter(server.batches.values()))["request_counts"]["total"]
        assert int(now) == first < 20
        count = len(server.batches)
        assert batches(tmp_path / "b", url, budget=float(whole)).ask(tasks(20)) == {}
        assert len(server.batches) == count + 1 and "the budget covers" not in capfd.readouterr().err


def test_a_model_is_made_once_for_each_seed(tmp_path, monkeypatch):
    made = []
    repeat = BatchedModel.repeat
    monkeypatch.setattr(BatchedModel, "repeat", lambda self, seed: made.append(seed) or repeat(self, seed))
    with BatchServer() as url:
        BatchedModel(f"{url}#m", "api", tmp_path).foresee([(Ask.of(f"Why, {k}?"), k % 3) for k in range(9)])
    assert sorted(made) == [1, 2]


def test_a_parameter_that_a_batch_does_not_take_is_spelled_otherwise(tmp_path):
    def new(body):
        if "max_tokens" in body:
            raise Refusal(400, "Unsupported parameter: use 'max_completion_tokens' instead.")
        if "Boat 1" in str(body):
            raise Refusal(400, "maximum context length is 9 tokens")
        return "Two."

    with BatchServer(new) as url:
        failed = batches(tmp_path, url).ask(tasks(3))
    assert [(a.status, a.text) for a in failed.values()] == [("overflow", "")]


def test_files_for_vllm_wait_and_are_taken_in_whole(tmp_path):
    def start():
        return Batches(tmp_path / "b", BatchFiles(), Cache(tmp_path / "answers.sqlite"), run="r").ask(tasks(3))

    with pytest.raises(Failed, match="3 requests wait to be carried out: `vllm run-batch -i .*requests-0001.jsonl"):
        start()
    lines = [json.loads(line) for line in (tmp_path / "b" / "requests-0001.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [question(k).key for k in range(3)]
    body = {"choices": [{"message": {"content": "Two."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}
    answers = [{"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}} for line in lines]
    output = tmp_path / "b" / "output-0001.jsonl"
    for wrong, line in {
        json.dumps(answers[0]) + "\n": "holds 1 lines, requests-0001.jsonl has 3 requests",
        "\n".join(map(json.dumps, [*answers[:2], answers[0]])): "stands twice",
        "\n".join(map(json.dumps, [*answers[:2], answers[2] | {"custom_id": "x"}])): "is of no request",
        "\n".join(map(json.dumps, answers))[:-3]: "line 3: is no JSON",
    }.items():
        output.write_text(wrong)
        with pytest.raises(UserError, match=line):
            start()
    output.write_text("\n".join(map(json.dumps, answers)))
    assert start() == {} and Cache(tmp_path / "answers.sqlite").get(question(2).key).text == "Two."


# ---------------------------------------------------------------- wherever it is killed

STEPS = "_enter _note send _create look fetch _settle _end _remove settling begin leave".split()


class Killed(BaseException):
    "Ends a start where it is, as a kill would: nothing of the package catches it."


def raised() -> None:
    raise Killed


def died() -> None:
    os._exit(9)


def ending(step: int, end):
    "For `sys.setprofile`: end a start when one of the steps begins or ends for the n-th time."
    left = [step]

    def count(frame, event, arg):
        if event in ("call", "return") and frame.f_code.co_name in STEPS and "endpoint" in frame.f_code.co_filename:
            left[0] -= 1
            if not left[0]:
                end()

    return count


def five_asked(folder: Path, url: str) -> dict:
    return batches(folder, url, budget=1.0).ask(tasks(5))


def die_at(step: int, folder: str, url: str) -> None:
    sys.setprofile(ending(step, died))
    five_asked(Path(folder), url)


def ends_early(step: int, end, folder: Path, url: str) -> bool:
    if end is died:
        start = "import sys, test_batches as t; t.die_at(int(sys.argv[1]), *sys.argv[2:])"
        command = [sys.executable, "-c", start, str(step), str(folder), url]
        return subprocess.run(command, cwd=Path(__file__).parent).returncode == 9
    sys.setprofile(ending(step, end))
    try:
        five_asked(folder, url)
        return False
    except Killed:
        return True
    finally:
        sys.setprofile(None)


def goes_on_after(step: int, end, folder: Path) -> bool:
    "Whether there is such a step; if so, the next start does the rest."
    folder.mkdir()
    server = BatchServer()
    with server as url:
        if not ends_early(step, end, folder, url):
            return False
        assert five_asked(folder, url) == {}
    bill = paid(Spending(Cache(folder / "answers.sqlite")), "r")
    assert (len(server.batches), server.counts["answers"]) == (1, 5), step
    assert bill == {"calls": 1, "tokens_in": 40, "tokens_out": 25, "cost": 0.09, "owed": 0.0}, step
    assert [path.name for path in (folder / "batches").iterdir()] == ["batches.json"], step
    return True


@pytest.mark.parametrize("end, every", [(raised, 4), pytest.param(died, 10, marks=pytest.mark.slow)])
def test_killed_at_any_step_a_batch_is_paid_once_and_its_answers_are_there(tmp_path, end, every):
    step = 1
    while goes_on_after(step, end, tmp_path / str(step)):
        step += every
    assert step > 30


def test_what_was_not_submitted_is_taken_back_when_it_is_asked_otherwise(tmp_path, monkeypatch):
    def unplugged(*args):
        raise Failed("no network")

    monkeypatch.setattr(BatchApi, "send", unplugged)
    store, spending = tmp_path / "answers.sqlite", Spending(Cache(tmp_path / "answers.sqlite"))
    with BatchServer() as url, pytest.raises(Failed):
        batches(tmp_path, url).ask(tasks(3))
    assert paid(spending, "r")["owed"] > 0
    check_submitted(tmp_path / "batches", store, "api")
    assert paid(spending, "r")["owed"] > 0
    check_submitted(tmp_path / "batches", store)
    assert paid(spending, "r")["owed"] == 0
    monkeypatch.undo()
    with BatchServer() as url:
        assert batches(tmp_path, url).ask(tasks(3)) == {}


def test_files_that_wait_are_not_sent_in_another_way(tmp_path):
    store = tmp_path / "answers.sqlite"
    with pytest.raises(Failed, match="3 requests wait to be carried out"):
        Batches(tmp_path / "batches", BatchFiles(), Cache(store), run="r").ask(tasks(3))
    for way in (None, "api"):
        with pytest.raises(
            UserError, match="3 requests of this run wait for `vllm run-batch`: go on with --batch file"
        ):
            check_submitted(tmp_path / "batches", store, way)
    with BatchServer() as url, pytest.raises(UserError, match="0001.jsonl: waits for `vllm run-batch`"):
        batches(tmp_path, url).ask(tasks(3))


# ---------------------------------------------------------------- what OpenAI takes


def test_what_the_queue_does_not_take_is_sent_in_smaller_batches(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(batch_api_module, "BATCH_REQUESTS", 8)  # OpenAI takes 50,000 in a file
    server = BatchServer(queue=5)
    with server as url:
        assert batches(tmp_path, url).ask(tasks(20)) == {}
    sizes = [b["request_counts"]["total"] for b in server.batches.values() if b["status"] == "completed"]
    assert server.counts["answers"] == sum(sizes) == 20 and max(sizes) == 5
    assert "Enqueued token limit reached" in capfd.readouterr().err
    assert paid(Spending(Cache(tmp_path / "answers.sqlite")), "r")["owed"] == 0


def test_a_queue_that_others_fill_is_one_line_and_the_same_command_goes_on(tmp_path):
    server = BatchServer(queue=0)
    with server as url:
        with pytest.raises(Failed, match="Limit: 2,000,000 enqueued tokens: not one request fits now: the same comm"):
            batches(tmp_path, url).ask(tasks(3))
        server.queue = 100
        assert batches(tmp_path, url).ask(tasks(3)) == {}
    assert [b["request_counts"]["total"] for b in server.batches.values()] == [3, 1, 3]


def test_files_are_no_larger_than_the_server_takes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_api_module, "BATCH_BYTES", 1500)  # OpenAI takes 200 MB
    server = BatchServer(largest=800)  # and a proxy less
    with server as url:
        assert batches(tmp_path, url).ask(tasks(12)) == {}
    assert server.counts["answers"] == 12 and all(len(data) < 1500 for data in server.files.values())
    assert not list((tmp_path / "batches").glob("requests*"))


def long(k: int, at: int = 7) -> Request:
    return Request("any", [{"role": "user", "content": ("x" * 3000 if k == at else "") + str(k)}], {"max_tokens": 9})


def test_one_request_that_is_too_large_is_its_own_failure_and_the_files_stay_as_large_as_they_may(tmp_path):
    server = BatchServer(largest=1500)
    with server as url:
        for _ in range(2):
            failed = batches(tmp_path, url).ask(lambda: [one(long(k)) for k in range(16)])
            assert [(a.status, key) for key, a in failed.items()] == [("unfit", long(7).key)]
            assert "(HTTP 413): send smaller pictures" in failed[long(7).key].why
        assert server.counts["answers"] == 15 and 3 < len(server.batches) < 9
        server.largest = 9000  # the proxy was put right
        assert batches(tmp_path, url).ask(lambda: [one(long(k)) for k in range(16)]) == {}
    assert server.counts["answers"] == 16


def test_a_server_that_takes_no_request_at_all_is_one_line(tmp_path):
    with BatchServer(largest=9) as url, pytest.raises(UserError, match="none of the first 8 .*HTTP 413.: send smaller"):
        batches(tmp_path, url).ask(tasks(20))


def test_a_file_that_is_too_large_does_not_wait_for_the_one_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_api_module, "BATCH_REQUESTS", 4)
    server = BatchServer(largest=1500, polls=3)
    with server as url:
        asked = [Request("any", [{"role": "user", "content": "x" * (k // 4 * 300) + str(k)}], {}) for k in range(8)]
        assert batches(tmp_path, url).ask(lambda: map(one, asked)) == {}
    assert [b["request_counts"]["total"] for b in server.batches.values()] == [4, 2, 2]
    assert server.counts["answers"] == 8 and paid(Spending(Cache(tmp_path / "answers.sqlite")), "r")["owed"] == 0


def test_a_queue_that_refused_is_not_asked_for_as_much_again(tmp_path, monkeypatch):
    monkeypatch.setattr(BatchApi, "wait", lambda *args: time.sleep(0.01))
    server = BatchServer(queue=6)
    with server as url:
        assert batches(tmp_path, url).ask(tasks(40)) == {}
    refused = [b["request_counts"]["total"] for b in server.batches.values() if b["status"] == "failed"]
    assert refused == [40, 20, 10, 7], refused
    assert server.counts["answers"] == 40


def test_a_batch_of_another_account_is_one_line(tmp_path):
    server = BatchServer(polls=10**6)
    part = {"requests": 1, "model": "any", "call": 1, "file": "file-0", "creating": True, "batch": "batch_7"}
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "batches.json").write_text(json.dumps({"parts": {"0001": part}}))
    with server as url, pytest.raises(UserError, match="HTTP 404.*: is the key still of the account that batch_7 was"):
        batches(tmp_path, url).ask(tasks(1))


def test_answers_by_other_weights_are_not_taken_in(tmp_path):
    known = KnownServer(tmp_path / "server.json", "http://127.0.0.1:9/v1", "any")
    known.recognise("fp_1")
    server = BatchServer(fingerprint="fp_2")
    with server as url:
        (tmp_path / "server.json").write_text(json.dumps({"address": url, "fingerprints": ["fp_1"]}))

        def start():
            api = BatchApi(url, KnownServer(tmp_path / "server.json", url, "any"))
            return Batches(tmp_path / "b", api, Cache(tmp_path / "answers.sqlite"), run="r").ask(tasks(3))

        with pytest.raises(UserError, match="another server .system_fingerprint fp_1, now fp_2.: .* or delete"):
            start()
        (tmp_path / "server.json").unlink()
        assert start() == {}  # nothing was lost meanwhile
    assert (len(server.batches), server.counts["answers"]) == (1, 3)


# ---------------------------------------------------------------- what users type


@pytest.fixture
def typed(command):
    "A command in this process: its exit code, the last line that it wrote to stderr, and what it printed."

    def call(*args):
        code, written, printed = command(*args)
        return code or 0, written.strip().rpartition("\n")[2], printed

    return call


def carry_out(folder: Path, number: int) -> None:
    "As `vllm run-batch` does."
    lines = map(json.loads, (folder / f"requests-{number:04d}.jsonl").read_text().splitlines())
    with open(folder / f"output-{number:04d}.jsonl", "w") as file:
        for line in lines:
            text = line["body"]["messages"][-1]["content"]
            text = text if isinstance(text, str) else text[-1]["text"]
            body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}
            print(
                json.dumps({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}}), file=file
            )


def test_an_examination_by_batches_is_the_one_that_was_asked(tmp_path, typed):
    make_world(tmp_path / "world", 3, split="val", first=3000)
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 100, output: 100, batch: 0.5}\n")

    def call(name, model, *options):
        args = ("--data", tmp_path / "world", "--per-image", 4, "--price", prices)
        return typed("eval", "--model", model, "--out", tmp_path / name, *args, *options)

    server = BatchServer(lambda body: "A " + str(len(body["messages"])))
    with server as url:
        for options, line in {
            ("--batch", "maybe"): "--batch maybe: is api or file",
            ("--batch", "api", "--nproc", 2): "--nproc 2: one process sends a batch",
            ("--batch", "file"): "--batch file: nobody is asked, .* write m, as its --model takes it",
        }.items():
            code, last, _ = call("none", f"{url}#m", *options)
            assert code == 2 and re.search(line, last) and not (tmp_path / "none").exists(), last
        assert "is asked here, not by batches" in call("none", "scripted:gold", "--batch", "api")[1]
        (tmp_path / "two.txt").write_text(f"{url}\nhttp://127.0.0.1:9/v1\n")
        assert "one server keeps a batch" in call("none", f"{tmp_path / 'two.txt'}#m", "--batch", "api")[1]
        assert call("live", f"{url}#m")[0] == call("batched", f"{url}#m", "--batch", "api", "--budget", 99)[0] == 0
        plans = {way: call("none", f"{url}#m", "--dry-run", "--json", *way)[2] for way in ((), ("--batch", "api"))}
        full, half = (json.loads(plan)["price"] for plan in plans.values())
        prices.write_text("m: {input: 100, output: 100}\n")
        assert json.loads(call("none", f"{url}#m", "--dry-run", "--json", "--batch", "api")[2])["price"] == full
    assert half == pytest.approx(full / 2, abs=1e-4)
    for name in ("rounds.jsonl", "pier.jsonl", "scores.json"):
        assert (tmp_path / "live" / name).read_bytes() == (tmp_path / "batched" / name).read_bytes()
    bills = [paid(Spending(Cache(tmp_path / name / "answers.sqlite")), "eval") for name in ("live", "batched")]
    assert bills[1]["calls"] == len(server.batches) == 4 and bills[0]["calls"] == server.counts["answers"] / 2
    assert bills[1]["owed"] == 0 and server.counts["answers"] > 20


def test_a_judge_by_files_grades_all_repeats_in_one_and_stays_what_it_is(tmp_path, typed):
    answers = {f"v1_{k}": "a boat" for k in range(6)}
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    items = {
        k: {"question": f"What is {k}?", "answer": "boat", "imagename": "a.jpg", "capability": ["rec"]} for k in answers
    }
    (tmp_path / "mm-vet.json").write_text(json.dumps(items))
    files = ("--predictions", tmp_path / "answers.json", "--references", tmp_path / "mm-vet.json")

    def call(judge, *options):
        return typed("judge", "mm-vet", *files, "--judge", judge, "--out", tmp_path / "out", "--repeats", 2, *options)

    assert "--judge rule is asked here, not by batches" in call("rule", "--batch", "file")[1]
    for options in ((), ("--dry-run",)):
        code, last, _ = call("http://127.0.0.1:9", "--batch", "api", *options)
        assert code == 2 and "a server needs the model's name too: write http://127.0.0.1:9#NAME" in last, last
    code, last, _ = call("grader", "--batch", "file")
    assert code == 1 and "12 requests wait to be carried out" in last and "--model grader`" in last
    with MockServer() as url:
        assert "12 requests of this run wait" in call(f"{url}#grader")[1]
    carry_out(tmp_path / "out" / "batches", 1)
    assert call("grader", "--batch", "file")[0] == 1  # echoes are no grades: coverage is told
    lines = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and all(line["reply"] for line in lines)
    assert call("grader", "--batch", "file")[0] == 1 and len(list((tmp_path / "out" / "batches").iterdir())) == 2


def test_a_judge_that_the_server_has_not_is_one_line(tmp_path, typed):
    answers = {f"v1_{k}": "a boat" for k in range(3)}
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    items = {k: {"question": "?", "answer": "boat", "imagename": "a.jpg", "capability": ["rec"]} for k in answers}
    (tmp_path / "mm-vet.json").write_text(json.dumps(items))

    def other(body):
        raise Refusal(404, "The model `g` does not exist.")

    with BatchServer(other) as url:
        files = ("--predictions", tmp_path / "answers.json", "--references", tmp_path / "mm-vet.json")
        code, last, _ = typed(
            "judge", "mm-vet", *files, "--judge", f"{url}#g", "--out", tmp_path / "o", "--batch", "api"
        )
    assert code == 2 and "has no model g (HTTP 404" in last


def test_what_was_too_long_is_remembered_until_the_shorter_dialog_is_answered(tmp_path):
    def start():
        return BatchedModel("m", "file", tmp_path / "run").answer([Ask.of("Why?")])

    (folder := tmp_path / "run").mkdir()
    with pytest.raises(Failed, match="1 requests wait"):
        start()
    (line,) = map(json.loads, (folder / "batches" / "requests-0001.jsonl").read_text().splitlines())
    complaint = {"error": {"message": "This model's maximum context length is 9 tokens.", "code": 400}}
    reply = {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": None}, "error": complaint}
    (folder / "batches" / "output-0001.jsonl").write_text(json.dumps(reply))
    assert [start()[0].status for _ in range(2)] == ["overflow"] * 2  # the second time without another file
    with (
        MockServer() as url,
        pytest.raises(UserError, match="begun on another server .address vllm run-batch, now http"),
    ):
        KnownServer(folder / "server.json", url, "m").look()


# ---------------------------------------------------------------- a server that is the wrong one


def shown(k: int) -> Request:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{k}"}}
    return Request("any", [{"role": "user", "content": [picture]}], {"max_tokens": 9})


@pytest.mark.parametrize(
    "asked, status, said, line",
    [
        (shown, 400, "This model does not support image input.", "any takes no pictures .HTTP 400.*: serve a model th"),
        (shown, 400, "The image cannot be read.", "any takes no pictures .HTTP 400"),
        (question, 404, "The model `any` does not exist.", "has no model any .HTTP 404.*: look at http.*/models"),
        (
            question,
            400,
            "No such thing.",
            "none of the first 8 requests was answered .HTTP 400: No such thing..: is th",
        ),
    ],
)
def test_what_all_requests_fail_of_ends_the_run_and_is_asked_again_when_it_is_mended(
    tmp_path, asked, status, said, line
):
    def refuse(body):
        raise Refusal(status, said)

    server = BatchServer(refuse)
    with server as url:
        for _ in range(2):
            with pytest.raises(UserError, match=line):
                batches(tmp_path, url).ask(lambda: [one(asked(k)) for k in range(8)])
        server.answer = lambda body: "Two."
        assert batches(tmp_path, url).ask(lambda: [one(asked(k)) for k in range(8)]) == {}
    assert len(server.batches) == 3 and paid(Spending(Cache(tmp_path / "answers.sqlite")), "r")["owed"] == 0


def test_one_picture_that_a_seeing_server_does_not_take_is_its_own_failure(tmp_path):
    def choosy(body):
        if "base64,0" in str(body):
            raise Refusal(400, "The image cannot be read.")
        return "Two."

    server = BatchServer(choosy)
    with server as url:
        for _ in range(2):
            failed = batches(tmp_path, url).ask(lambda: [one(shown(k)) for k in range(3)])
            assert [a.status for a in failed.values()] == ["unfit"]
    assert len(server.batches) == 1


def test_files_of_a_model_that_does_not_see_are_refused_in_one_line(tmp_path, typed):
    make_world(tmp_path / "world", 3, split="val", first=3000)
    args = ("--model", "m", "--out", tmp_path / "out", "--data", tmp_path / "world", "--per-image", 2)
    assert typed("eval", *args, "--batch", "file")[0] == 1
    folder = tmp_path / "out" / "batches"
    complaint = {"error": {"message": "At most 0 image(s) may be provided in one prompt.", "code": 400}}
    with open(folder / "output-0001.jsonl", "w") as file:
        for line in map(json.loads, (folder / "requests-0001.jsonl").read_text().splitlines()):
            reply = {"custom_id": line["custom_id"], "response": {"status_code": 400, "body": None}}
            print(json.dumps(reply | {"error": complaint}), file=file)
    code, last, _ = typed("eval", *args, "--batch", "file")
    assert code == 2 and "vllm run-batch: m takes no pictures (HTTP 400: At most 0 image(s)" in last
    assert typed("eval", *args, "--batch", "file")[0] == 1 and (folder / "requests-0002.jsonl").exists()
