"The study of doses: carry-over of the data against leakage of the model."

import json

import pytest


def test_a_dry_run_tells_the_costs_and_does_nothing(typed, tmp_path):
    done = typed("experiment", "dose", "--dry-run", "--out", tmp_path / "dose", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    names = [step["name"] for step in plan["steps"]]
    assert sum(name.startswith("tune") for name in names) == 6 and sum(name.startswith("align") for name in names) == 1
    assert plan["processor_hours"] == pytest.approx(sum(s["processor_hours"] for s in plan["steps"]), abs=0.01)
    assert not (tmp_path / "dose").exists()
    more = typed("experiment", "dose", "seeds=3", "--dry-run", "--out", tmp_path / "dose", "--json")
    assert json.loads(more.stdout)["processor_hours"] > 2.9 * plan["processor_hours"]


@pytest.mark.parametrize(
    "more, says",
    [
        (["doses=[0.5, 0.1]"], "each larger than the one before"),
        (["doses=[0, 2]"], "carry-overs from 0 to 1"),
        (["steps=3"], "keys are"),
        (["--judge", "rule"], "--judge: is for a paper's study"),
        (["--model", "nowhere"], "is no checkpoint folder"),
    ],
)
def test_a_wrong_option_is_named(typed, tmp_path, more, says):
    done = typed("experiment", "dose", "--tiny", "--out", tmp_path / "dose", *more)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and says in done.stderr
    assert not (tmp_path / "dose").exists()


@pytest.mark.slow
def test_a_tiny_study(typed, small, tmp_path):
    "From the model of the fixture: draw, build, mix, fine-tune twice, examine, report; again, it changes nothing."
    sizes = ("doses=[0, 1]", "images=16", "exam=3", "tune_steps=2")
    words = ("experiment", "dose", "--tiny", *sizes, "--model", small / "start", "--out", tmp_path / "dose", "--json")
    done = typed(*words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [(p["dose"], round(p["carry_over"]["value"], 2)) for p in result["points"]] == [(0, 0), (1, 1)]
    assert all(p["leakage"]["n"] for p in result["points"])
    assert "Dose and leak" in (tmp_path / "dose/report.html").read_text()
    before = {p: p.read_bytes() for p in (tmp_path / "dose").rglob("*.jsonl")}
    assert json.loads(typed(*words).stdout)["points"] == result["points"]
    assert {p: p.read_bytes() for p in (tmp_path / "dose").rglob("*.jsonl")} == before
