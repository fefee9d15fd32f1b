"Servers: a run stays with the one it was begun on, and greedy is greedy wherever a checkpoint is asked."

import json
from itertools import count

import pytest
from mock_server import MockServer, Refusal

from cocoift.data.build.make import build
from cocoift.data.build.recipe import BuildRecipe
from cocoift.data.generate.jobs import WriteRecipe
from cocoift.data.generate.write import Service, write
from cocoift.eval.examine import examine
from cocoift.files import Failed, Journal, UserError
from cocoift.world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("servers") / "world", 2, split="val", first=100)


def answering(text: str, failing: bool = False):
    "A model that says one thing; one that fails does so at every third question."
    numbers = count(1)

    def answer(body: dict) -> str:
        if failing and next(numbers) % 3 == 0:
            raise Refusal(422, "the engine is dead")
        return text

    return answer


def listed(root: str) -> list[dict]:
    return [{"id": "llava", "root": root, "created": 1_700_000_000}]


def asked(url: str, world, out, **more) -> dict:
    return examine(f"{url}#llava", "rounds", world, out, ["neutral:1", "forced_short:1"], **more)


def test_a_run_on_another_server_is_refused(world, tmp_path):
    out = tmp_path / "run"
    with MockServer(answering("It is a long pier in the rain.", failing=True), models=listed("runs/a")) as first:
        assert asked(first, world, out)["coverage"] < 1
    before = (out / "rounds.jsonl").read_bytes()
    with MockServer(answering("Yes."), models=listed("runs/a")) as other:
        with pytest.raises(UserError, match=r"run: was begun on another server \(address \S+, now \S+\): start that"):
            asked(other, world, out)
        assert (out / "rounds.jsonl").read_text().count('"Yes."') == 0
    assert {line["status"] for line in map(json.loads, before.decode().splitlines())} == {"ok", "error"}
    (out / "server.json").unlink()  # the user says that it is the same
    with MockServer(answering("It is a long pier in the rain."), models=listed("runs/a")) as moved:
        whole = asked(moved, world, out)
    assert whole["coverage"] == 1 and whole["leakage"]["value"] == 0
    asked(moved, world, out)  # it is done: nobody needs to be there
    assert json.loads((out / "server.json").read_text())["root"] == "runs/a"


@pytest.mark.parametrize("changed", ["root", "fingerprint"])
def test_other_weights_at_the_same_address_are_refused(world, tmp_path, changed):
    out, server = (
        tmp_path / "run",
        MockServer(answering("A pier.", failing=True), models=listed("runs/a"), fingerprint="fp_a"),
    )
    with server as url:
        asked(url, world, out)
        lines = len([line for line in Journal(out / "rounds.jsonl").read() if line["status"] == "ok"])
        server.answer = answering("Yes.")
        if changed == "root":
            server.models = listed("runs/b")
        else:
            server.fingerprint = "fp_b"
        with pytest.raises(UserError, match="was begun on another server"):
            asked(url, world, out)
        assert len(Journal(out / "rounds.jsonl").read()) == lines
        server.models, server.fingerprint = listed("runs/a"), "fp_a"
        assert asked(url, world, out)["coverage"] == 1


def test_a_set_that_is_written_stays_with_its_server(world, tmp_path):
    build(BuildRecipe(name="w", sources={"vqav2": {"splits": ["val"]}}, clean=[]), world, tmp_path / "set")
    plan = WriteRecipe(kinds={"sentence": 2})

    def written(url: str, out: str = "new") -> dict:
        service = Service(url, "scribe", concurrency=1)
        return write("rewrite", tmp_path / "set", tmp_path / out, service, plan)

    with MockServer(answering("It is a long pier in the rain.", failing=True), models=[]) as first:
        with pytest.raises(Failed, match="the engine is dead"):
            written(first)
    (file,) = tmp_path.glob("server-*.json")
    with MockServer(answering("Yes, a pier."), models=[]) as other:
        for out in ("new", "twin"):  # another folder would be filled by the same answers
            with pytest.raises(UserError, match=f"{out}: was begun on another server .* another cache with --cache"):
                written(other, out)
        assert not (tmp_path / "new").exists()
        file.unlink()  # the user says that it is the same
        done = written(other)
    assert done["cached"] and done["requests"] and not list(tmp_path.glob("server-*.json.*"))
