"Who never looks is paid nothing for it: what is asked is balanced, and what is left stands beside every score."

import json
from collections import Counter
from pathlib import Path

import pytest

from cocoift.eval.benchmarks.rounds import annotated_questions
from cocoift.eval.examine import examine, make_exam, run_exam
from cocoift.files import Journal
from cocoift.reports.arms import find_arms, study_tables
from cocoift.reports.compare import compare
from cocoift.world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("blind") / "exam", 24, split="val", questions=6, held_back=True)


@pytest.fixture(params=["drawn", "photographs"])
def data(request) -> tuple[Path, tuple[str, ...]]:
    if request.param == "drawn":
        return request.getfixturevalue("world"), ("val",)
    return request.getfixturevalue("shared") / "data/coco-mini", ("train", "val")


@pytest.mark.parametrize("per_image", [1, 2, None])
def test_yes_and_no_are_as_many(data, per_image):
    folder, splits = data
    every, asked = (annotated_questions(folder, splits, every=flag, per_image=per_image) for flag in (True, False))
    for kind in {q.kind for q in asked}:
        answers = Counter(q.short_answer for q in asked if q.kind == kind)
        assert abs(answers["yes"] - answers["no"]) <= 1, (kind, answers)
    # those of before: their ids, their order, what stands before them
    assert [q for q in every if q.id in {q.id for q in asked}] == asked
    counts = Counter(q.image for q in asked)
    assert max(counts.values()) <= (per_image or 6)
    assert per_image is None or len(counts) >= 0.95 * len({q.image for q in every})


@pytest.mark.parametrize("per_image", [1, None])
def test_a_blind_model_scores_the_baseline_and_no_more(data, per_image, tmp_path):
    folder, splits = data
    options = {"splits": splits, "per_image": per_image}
    result = examine("scripted:blind", "rounds", folder, tmp_path / "run", ["none", "forced_short:1"], **options)
    for levels in result["histories"].values():  # asked freely and with the format
        assert levels["content_accuracy"] == levels["blind"]
        assert levels["format_accuracy"]["value"] == 1 and levels["terse_rate"]["value"] == 0
        assert levels["blind"]["value"] < (0.5 if per_image else 0.6)
    assert result["kinds"] and not any(row["clear"] for row in result["kinds"])
    assert all(row["value"] == row["blind"] for row in result["kinds"])
    oracle = examine("scripted:oracle", "rounds", folder, tmp_path / "oracle", ["none"], **options)
    assert oracle["scores"]["blind"] == result["histories"]["none"]["blind"]
    assert all(row["clear"] is (row["blind"] < 1) for row in oracle["kinds"] if row["low"] is not None)


def test_it_is_said_wherever_content_is(world, tmp_path, typed):
    runs = [tmp_path / name for name in ("oracle", "blind")]
    for run in runs:
        told = typed("eval", "--model", f"scripted:{run.name}", "--data", world, "--out", run, "--per-image", 2)
        lines = told.stdout.splitlines()
        heads = [line.split()[0] for line in lines if line]
        assert heads.index("blind") == heads.index("content_accuracy") + 1, told.stdout
        [row] = [line for line in lines if line.startswith("presence") and " seen " in line]
        assert row.split()[-1] == ("yes" if run.name == "oracle" else "no")
    told = typed("compare", *runs)
    assert "content_accuracy of a blind guess, the most frequent answer of each kind: 0." in told.stdout
    told = compare(*runs)
    assert set(told["blind"]) == {"none", "neutral", "terse", "forced_short"}
    assert not any("blind" in metric for metric in told["differences"])
    tables = study_tables(find_arms(runs))
    assert set(tables["kinds"].clear[tables["kinds"].layout == "blind"]) == {False}
    assert "blind" in set(tables["scores"].metric)


def test_a_run_of_an_older_version_is_read_and_replayed(world, tmp_path):
    "It asked all questions, and no line of it says what a blind model scores."
    every = make_exam("rounds", annotated_questions(world, every=True), ["none", "neutral:2"])
    run_exam(every.scripted("oracle"), every, tmp_path / "old")
    file = tmp_path / "old/rounds.jsonl"
    lines = [{k: v for k, v in line.items() if k != "blind"} for line in Journal(file).read()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tables = study_tables(find_arms([tmp_path / "old"]))
    assert tables["kinds"].value.tolist() == [1.0] * len(tables["kinds"]) and tables["kinds"].clear.isna().all()
    assert tables["scores"][tables["scores"].metric == "blind"].value.isna().all()
    again = examine(f"replay:{tmp_path / 'old'}", "rounds", world, tmp_path / "new", ["none", "neutral:2"])
    assert again["coverage"] == 1 and again["scores"]["content_accuracy"]["value"] == 1
    assert again["scores"]["blind"]["value"] < 0.6 and again["items"] < len(every.questions)
