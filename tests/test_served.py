"A model behind a real server: pictures, several rounds, streaming, and the answers that the checkpoint gives here."

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
from mock_server import MockServer, Refusal

from cocoift.files import UserError
from cocoift.images import find_pictures
from cocoift.models.ask import Ask, Settings
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.engine import Engine
from cocoift.models.endpoint.request import Request
from cocoift.models.endpoint.server import ServedModel
from cocoift.models.endpoint.tasks import ask_all
from cocoift.studies.judged import run_judge
from cocoift.texts import read_json


@pytest.fixture(scope="module")
def both(served, small):
    from cocoift.models.local import LocalModel

    pictures = find_pictures(small / "exam")
    return (
        LocalModel(served.model, small / "exam", most_tokens=12),
        ServedModel(served.name, pictures, most_tokens=12),
        sorted(pictures),
    )


def texts(model, asks):
    replies = model.answer(asks)
    assert {reply.status for reply in replies} == {"ok"}
    return [reply.text for reply in replies]


def play(model, image, instructions):
    "A dialog in which every round sees the model's own earlier answers."
    before = ()
    for instruction in instructions:
        before = (*before, (instruction, *texts(model, [Ask.of(instruction, image, before)])))
    return before


def test_it_says_what_the_checkpoint_says(both):
    local, server, images = both
    earlier = ("How many shapes are there?", "There are four.")
    asks = [
        Ask.of("What is in the middle?", image, before)
        for image in images[:3]
        for before in ((), (earlier,), (earlier, earlier))
    ] + [Ask.of("What is in the middle?")]
    answers = texts(server, asks)
    assert answers == texts(local, asks)
    assert len(set(answers)) > 3  # of pictures and rounds that differ


def test_own_answers_go_into_the_next_round(both):
    local, server, images = both
    asked = ["What is this?", "And to its left?", "Is there a star?"]
    assert play(server, images[1], asked) == play(local, images[1], asked)


def test_it_streams(both, served, small):
    local, server, images = both
    ask = Ask.of("And to its left?", images[0], [("What is this?", "A star.")])
    model, pictures = ServedModel(served.name), find_pictures(small / "exam")
    pieces = list(model.stream(ask, Settings(most_tokens=12), threading.Event(), pictures))
    assert len(pieces) > 3
    assert ["".join(pieces).strip()] == texts(local, [ask])


def test_the_engine_pays_once_and_tells_what_is_wrong(both, served, tmp_path):
    local, server, images = both
    requests = [server.request(Ask.of(f"What is in the middle, {k}?", image)) for image in images[:2] for k in range(3)]
    first = Engine(
        served.url, Cache(tmp_path / "answers.sqlite"), server.image_parts, concurrency=3, run="r", role="label"
    )
    answers = ask_all(first, requests)
    assert [a.status for a in answers] == ["ok"] * 6 and first.counts["requests"] == first.counts["seen"] == 6
    assert all(a.tokens[0] > 0 and 0 < a.tokens[1] <= 12 for a in answers)
    again = Engine(served.url, Cache(tmp_path / "answers.sqlite"), server.image_parts)
    assert [a.text for a in ask_all(again, requests)] == [a.text for a in answers] and again.counts["requests"] == 0
    with pytest.raises(UserError, match=f"{served.url}: has no model no-such/model, or nothing lies at this address"):
        ask_all(Engine(served.url), [Request("no-such/model", [{"role": "user", "content": "Who?"}])])
    with pytest.raises(UserError, match="/v2: has no model .* or nothing lies at this address"):
        ask_all(
            Engine(served.url.replace("/v1", "/v2")),
            [Request(str(served.model), [{"role": "user", "content": "Who?"}])],
        )


@pytest.fixture(scope="module")
def bench(small):
    from cocoift.eval.scope.make import make_scope

    return make_scope(small / "exam", images=2)


@pytest.fixture(scope="module")
def asked(typed, served, small, bench, tmp_path_factory):
    "COCO-Scope of the served model by the command, its folder and document; to read only."
    from cocoift.eval.scope.make import write_scope

    folder = tmp_path_factory.mktemp("asked")
    write_scope(bench, folder / "bench")
    done = typed(
        "eval",
        "--model",
        served.name,
        "--bench",
        "scope",
        "--data",
        folder / "bench",
        "--images",
        small / "exam",
        "--most-tokens",
        8,
        "--out",
        folder / "run",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout)


def lines_of(run):
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def said_in(run):
    return [(line["dialog"], line["round"], line["response"]) for line in lines_of(run)]


def test_scope_of_a_served_model_is_that_of_its_checkpoint(asked, served, small, bench, tmp_path):
    from cocoift.eval.examine import make_exam, run_exam
    from cocoift.models.local import LocalModel

    run, told = asked
    here = run_exam(
        LocalModel(served.model, small / "exam", most_tokens=8), make_exam("scope", bench), tmp_path / "here"
    )
    assert {line["history"] for line in lines_of(run)} == {"own", "none", "neutral", "terse", "forced_short"}
    assert said_in(run) == said_in(tmp_path / "here")
    assert told["scores"] == here["scores"] and told["coverage"] == 1
    assert (
        read_json(run / "run.json")["model"]["server"] == str(served.model)
        and "127.0.0.1" not in (run / "run.json").read_text()
    )


def test_rounds_of_a_served_model(served, small, tmp_path):
    from cocoift.eval.examine import examine

    runs = [
        examine(model, "rounds", small / "exam", tmp_path / name, ["forced_short:1"], per_image=1, most_tokens=8)
        for name, model in (("there", served.name), ("here", str(served.model)))
    ]
    assert (
        runs[0]["histories"] == runs[1]["histories"]
        and runs[0]["effects"] == runs[1]["effects"]
        and runs[0]["coverage"] == 1
    )
    assert said_in(tmp_path / "there") == said_in(tmp_path / "here")


@pytest.fixture(scope="module")
def official(small, tmp_path_factory):
    """Benchmarks' own files about the exam's pictures, by name: the world's VQA and COCO files as they are, and four
    questions in MM-Vet's layout."""
    asked = json.loads((small / "exam/vqav2/v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    folder = tmp_path_factory.mktemp("official") / "mm-vet"
    folder.mkdir()
    (folder / "mm-vet.json").write_text(
        json.dumps(
            {
                f"v1_{k}": {
                    "imagename": f"{q['image_id']:012}.png",
                    "question": q["question"],
                    "answer": "a",
                    "capability": ["rec"],
                    "imagesource": "world",
                }
                for k, q in enumerate(asked[:20:5])
            }
        )
    )
    return {"vqav2": small / "exam", "chair": small / "exam", "mm-vet": folder}


@pytest.mark.parametrize("bench", ["vqav2", "chair", "mm-vet"])
def test_questions_of_a_benchmark(bench, served, small, official, tmp_path):
    """Official files, asked of a checkpoint here and behind its server, under prescribed and own answers: the same
    answers, scores and prediction files. Killed, they go on to the same bytes."""
    from cocoift.eval.examine import examine

    def ask(model, out):
        return examine(
            str(model),
            bench,
            official[bench],
            out,
            ["none", "forced_short:1", "own:1"],
            images=small / "exam",
            per_image=4,
            most_tokens=8,
            records=small / "exam",
        )

    for place, model in (("here", served.model), ("there", served.name)):
        killed = tmp_path / f"{place}-killed"
        child = os.fork()
        if not child:
            try:
                ask(model, killed)
            finally:
                os._exit(0)
        while not (killed / "rounds.jsonl").exists() or not (killed / "rounds.jsonl").read_bytes().count(b"\n"):
            time.sleep(0.002)
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process that was to be killed ended by itself"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not (killed / "scores.json").exists(), "it was not killed in the middle"
        found, again = ask(model, tmp_path / place), ask(model, killed)
        assert (
            found == again and found["coverage"] == 1 and found["histories"].keys() == {"none", "forced_short", "own"}
        )
        names = [
            "rounds.jsonl",
            "run.json",
            "scores.json",
            *(f"predictions/{h}{'.json' if bench != 'chair' else '.jsonl'}" for h in found["histories"]),
        ]
        assert all((killed / name).read_bytes() == (tmp_path / place / name).read_bytes() for name in names)
    assert (
        said_in(tmp_path / "there") == said_in(tmp_path / "here")
        and len({response for *_, response in said_in(tmp_path / "here")}) > 3
    )
    assert all(
        (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in names[2:]
    )


class Wire:
    "A wire to a server that can be cut: after so many answers, and put back at the same address."

    def __init__(self, port: int):
        self.target, self.port, self.left, self.open = port, 0, None, []

    def lay(self, answers: int | None = None) -> str:
        self.left, self.ear = answers, socket.create_server(("127.0.0.1", self.port))
        self.port = self.ear.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.ear,), daemon=True).start()
        return f"http://127.0.0.1:{self.port}/v1"

    def accept(self, ear):
        while True:
            try:
                near, far = ear.accept()[0], socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.open += [near, far]
            for a, b, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self.pump, args=(a, b, back), daemon=True).start()

    def pump(self, a, b, back):
        try:
            while data := a.recv(1 << 16):
                if back and self.left is not None and data.startswith(b"HTTP/1.1 200"):
                    self.left -= 1
                    if self.left < 0:
                        return self.cut()
                b.sendall(data)
        except OSError:
            pass

    def cut(self):
        for s in (self.ear, *self.open):
            with suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        self.open = []


def test_a_server_that_dies_in_the_middle(asked, served, small, bench, tmp_path):
    from cocoift.eval.examine import make_exam, run_exam

    exam, wire, (whole, told) = make_exam("scope", bench), Wire(int(served.url.split(":")[2].split("/")[0])), asked

    def chat(url):
        return ServedModel(
            f"{url}#{served.model}", find_pictures(small / "exam"), most_tokens=8, attempts=2, concurrency=4
        )

    first = run_exam(chat(wire.lay(answers=14)), exam, tmp_path / "run")
    answered = first["statuses"]["ok"]
    assert 0 < answered <= 14 and first["statuses"]["error"] > 0 and first["coverage"] == answered / first["rounds"]
    lines = lines_of(tmp_path / "run")
    known = {(line["dialog"], line["round"]): line["response"] for line in lines_of(whole)}
    assert all(line["response"] == known[line["dialog"], line["round"]] for line in lines if line["status"] == "ok")
    assert all(line["response"] == "" and line["why"] for line in lines if line["status"] == "error")
    failed = {line["dialog"]: line["round"] for line in lines if line["status"] == "error"}
    # no round is asked behind one that failed
    assert not any(line["round"] > failed.get(line["dialog"], 99) for line in lines)

    again = run_exam(chat(wire.lay()), exam, tmp_path / "run")
    wire.cut()
    assert again["coverage"] == 1 and again["scores"] == told["scores"]
    assert all(
        (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
        for name in ("rounds.jsonl", "run.json", "scores.json")
    )


def test_a_served_judge_that_cannot_grade_gives_no_score(typed, served, shared, tmp_path):
    folder = shared / "data/bench/mm-vet"
    references = dict(list(json.loads((folder / "mm-vet_sample12.json").read_text()).items())[:2])
    answers = json.loads((folder / "results_llava-v1.5-13b.json").read_text())
    (tmp_path / "references.json").write_text(json.dumps(references))
    (tmp_path / "answers.json").write_text(json.dumps({name: answers[name] for name in references}))
    args = ("judge", "mm-vet", "--predictions", tmp_path / "answers.json", "--references", tmp_path / "references.json")
    done = typed(*args, "--judge", served.name, "--out", tmp_path / "judged", "--json")
    assert done.returncode == 1 and "0% of the judgements ended in a score" in done.stderr
    told = json.loads(done.stdout)
    assert told["statuses"]["parse_error"] == 2 and told["coverage"] == 0 and told["fingerprint"]["backend"] == "server"
    assert told["scores"]["total"]["value"] is None

    files = {"references": tmp_path / "references.json"}
    (tmp_path / "strong.jsonl").write_text(  # asked about all that a small judge cannot grade
        "".join(json.dumps({"question_id": name, "content": "0.5"}) + "\n" for name in references)
    )
    strong, out = f"replay:{tmp_path / 'strong.jsonl'}", tmp_path / "cascade"
    told = run_judge("mm-vet", tmp_path / "answers.json", strong, out, files, small=served.name)
    assert [(s["judgements"], s["statuses"]["scored"], s["final"]) for s in told["stages"][1:]] == [
        (2, 0, 0),
        (2, 2, 2),
    ]
    assert told["scores"]["total"]["value"] == 50 and told["stages"][1]["calls"] == 2

    def answer(body):  # a judge that grades one and declines the other
        if list(answers[name] for name in references)[0] in json.dumps(body, ensure_ascii=False):
            return "0.5"
        raise Refusal(400, "blocked by our content policy")

    with MockServer(answer) as url:
        told = run_judge("mm-vet", tmp_path / "answers.json", f"{url}#grader", tmp_path / "graded", files)
        assert (told["statuses"]["scored"], told["statuses"]["refused"], told["scores"]["total"]["value"]) == (1, 1, 50)
    with pytest.raises(UserError, match="no server answers there"):
        run_judge("mm-vet", tmp_path / "answers.json", f"{url}#grader", tmp_path / "dead", files)
