"Stored predictions give the public scorers' numbers, and nothing else gives a number."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cocoift.cli.main import main
from cocoift.eval.benchmarks.chair import object_words, read_synonyms
from cocoift.eval.benchmarks.pope import official_yes_no
from cocoift.eval.benchmarks.vqa import vqa_accuracy
from cocoift.eval.official import ScoreInput
from cocoift.eval.parsing import yes_no
from cocoift.eval.scoring import score
from cocoift.files import UserError
from cocoift.texts import read_json

BENCH = Path(os.environ.get("COCOIFT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data/bench"


def scored(bench, predictions, references=None, **more):
    return score(bench, ScoreInput(BENCH / predictions, BENCH / references if references else None, **more))


@pytest.mark.parametrize(
    "runs, row",
    [(1, [40.6, 28.0, 23.5, 24.4, 34.7, 7.7, 36.1, 0.0]), (3, [40.5, 28.4, 23.5, 24.2, 35.2, 8.8, 36.3, 0.2])],
)
def test_mm_vet(runs, row):
    told = scored("mm-vet", f"mm-vet/llava-v1.5-13b_gpt-4-grade-{runs}runs.json", "mm-vet/capabilities.json")
    assert [told["scores"][k] for k in "rec ocr know gen spat math total std".split()] == row
    if runs == 3:
        assert told["scores"]["runs"] == [36.1, 36.5, 36.3] and round(told["item_se"], 2) == 2.92
        found = {frozenset(k.split("+")): (v["score"], v["n"]) for k, v in told["scores"]["integrations"].items()}
        assert len(found) == 16
        wanted = (
            "gen+know+rec 23.0 62;rec 67.6 37;ocr+spat 33.7 26;math+ocr+spat 16.4 14;rec+spat 75.0 12;"
            "ocr 55.0 12;math+ocr 0.0 11;know+rec 28.9 9;gen+know+ocr+rec 16.7 8;gen+ocr+rec+spat 45.0 8;"
            "ocr+rec+spat 14.3 7;ocr+rec 75.0 4;know+ocr+spat 16.7 3;know+rec+spat 50.0 2;"
            "gen+ocr+spat 10.0 2;math+ocr+rec+spat 0.0 1"
        )
        assert found == {
            frozenset(k.split("+")): (float(s), int(n)) for k, s, n in (line.split() for line in wanted.split(";"))
        }


@pytest.mark.parametrize(
    "run, rows",
    [
        (1, "72.8 86.5 63.0 82.8 85.4 70.7 74.7 87.1 65.0 52.6 88.0 46.3"),
        (2, "72.7 86.5 62.9 83.7 85.4 71.4 74.7 85.9 64.1 51.1 89.3 45.7"),
        (3, "72.1 86.8 62.6 83.5 85.4 71.2 72.5 87.7 63.5 51.1 88.7 45.3"),
    ],
)
def test_llava_bench(run, rows):
    scores = scored("llava-bench", f"llava-bench-wild/llava-v1.5-13b-eval{run}.jsonl")["scores"]
    assert [scores[c][k] for c in ("all", "complex", "conv", "detail") for k in ("relative", "reference", "model")] == [
        float(x) for x in rows.split()
    ]


def test_old_reviews():
    assert scored("llava-bench", "llava-bench-coco/review_bard_vicuna-13b.jsonl")["scores"]["all"] == {
        "relative": 98.7,
        "reference": 83.0,
        "model": 81.9,
    }


POPE = ("pope/llava-v1.5-13b_answers_random.jsonl", "pope/coco_pope_random_e3e3926.json")


def test_pope():
    told = scored("pope", *POPE)
    assert {k: round(v, 7) for k, v in told["scores"].items()} == {
        "accuracy": 0.8800687,
        "precision": 0.9744435,
        "recall": 0.788,
        "f1": 0.8713601,
        "yes_ratio": 0.4168385,
    }
    assert told["counts"] == {"tp": 1182, "fp": 31, "tn": 1379, "fn": 318}
    assert round(told["clustered_se"], 7) == 0.0056397
    for case in read_json(BENCH / "pope/parse_edge_cases.json"):
        assert official_yes_no(case["text"]) == case["official"], case


@pytest.mark.parametrize(
    "yes, no",
    [
        ("Yes, it is.", "No, it is not."),
        ("There is one in the image.", "There isn't one in the image."),
        ("I can see it.", "I do not see it."),
    ],
)
def test_pope_in_sentences(tmp_path, yes, no):
    lines = [json.loads(line) for line in (BENCH / POPE[0]).read_text().splitlines()]
    path = tmp_path / "sentences.jsonl"
    path.write_text("".join(json.dumps(line | {"text": {"Yes": yes, "No": no}[line["text"]]}) + "\n" for line in lines))
    scores = score("pope", ScoreInput(path, BENCH / POPE[1], mode="open"))["scores"]
    assert round(scores["f1"], 7) == 0.8713601 and scores["unparsed"] == 0
    lines[0]["text"] = "I am not sure."
    path.write_text(
        "".join(
            json.dumps(line | {"text": {"Yes": yes, "No": no}.get(line["text"], line["text"])}) + "\n" for line in lines
        )
    )
    assert score("pope", ScoreInput(path, BENCH / POPE[1], mode="open"))["scores"]["unparsed"] == 1
    assert yes_no("") is None


@pytest.mark.parametrize(
    "rules, row", [("2021", [76.0, 72.0, 85.71, 73.33]), ("2015", [79.0, 92.0, 84.29, 73.33]), ("textvqa", [82.6667])]
)
def test_vqa(rules, row):
    scores = scored(
        "vqa", "vqa/results.json", "vqa/annotations.json", questions=BENCH / "vqa/questions.json", rules=rules
    )["scores"]
    assert [scores[k] for k in ("overall", "yes/no", "number", "other")[: len(row)]] == row


def test_vqa_by_question():
    official, said = (
        read_json(BENCH / "vqa/official_scores.json"),
        {r["question_id"]: r["answer"] for r in read_json(BENCH / "vqa/results.json")},
    )
    for want in read_json(BENCH / "vqa/annotations.json")["annotations"]:
        name, answers = want["question_id"], [a["answer"] for a in want["answers"]]
        assert (
            round(vqa_accuracy(said[name], answers, "2015") * 100, 2)
            == official["vqa_older_vt_vision_lab"]["per_question"][str(name)]
        ), name
        assert vqa_accuracy(said[name], answers, "textvqa") == pytest.approx(
            official["textvqa_m4c"]["per_question"][str(name)]
        ), name


def test_arena():
    told, official = scored("arena", "arena/battles.json"), read_json(BENCH / "arena/official_ratings.json")
    for ours, theirs in (("bradley_terry", "bt_natural_scale400_init1000"), ("elo", "online_elo_k4")):
        assert told["scores"][ours] == pytest.approx(official[theirs], abs=1e-3)
    assert told["win_loss_tie"] == official["win_loss_tie"]
    scores = scored("pairwise", "arena/pairwise_judgments.jsonl")["scores"]
    assert scores["llava-mix"] == {"win": 15, "loss": 6, "tie": 12, "win_rate": 0.454545, "adjusted": 0.636364}
    assert (scores["coco-ift"]["win_rate"], scores["coco-ift"]["adjusted"]) == (0.181818, 0.363636)
    for bench, key in (("pairwise", "llava-mix win_rate"), ("single", "all llava-mix")):
        e = scored(bench, f"arena/{bench}_judgments.jsonl")["intervals"][key]
        assert e["low"] < e["value"] < e["high"]
    assert scored("single", "arena/single_judgments.jsonl")["scores"] == {
        "turn_1": {"llava-13b": 6.055556, "coco-ift": 6.0, "llava-mix": 5.35},
        "turn_2": {"llava-mix": 7.361111, "llava-13b": 6.583333, "coco-ift": 4.59375},
        "all": {"llava-13b": 6.319444, "llava-mix": 6.302632, "coco-ift": 5.338235},
    }


def test_paired():
    scores = scored(
        "paired-test", "llava-bench-wild/llava-v1.5-13b-eval1.jsonl", "llava-bench-wild/llava-v1.5-13b-eval3.jsonl"
    )["scores"]
    assert {k: round(v, 7) for k, v in scores.items()} == {
        "mean": 0.0416667,
        "se": 0.0754381,
        "low": -0.1092847,
        "high": 0.1926180,
        "t": 0.5523289,
        "p": 0.5828094,
    }


def test_dead_judge(tmp_path, capfd, monkeypatch):
    path = tmp_path / "dead.jsonl"
    rows = [
        json.loads(line) for line in (BENCH / "llava-bench-wild/llava-v1.5-13b-eval1.jsonl").read_text().splitlines()
    ]
    path.write_text("".join(json.dumps(row | {"tuple": [-1, -1]}) + "\n" for row in rows))
    with pytest.raises(UserError, match="no review could be scored"):
        score("llava-bench", ScoreInput(path))
    path.write_text(
        "".join(json.dumps(row | ({"tuple": [-1, -1]} if k < 3 else {})) + "\n" for k, row in enumerate(rows))
    )
    told = score("llava-bench", ScoreInput(path))
    assert told["failed"] == 3 and told["coverage"] == 57 / 60
    monkeypatch.setattr("sys.argv", ["cocoift", "score", "llava-bench", "--predictions", str(path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0 and "3 judgements failed and are left out, coverage 95.0%" in capfd.readouterr().out
    path.write_text('{"model": "x", "score": -1, "turn": 1}\n')
    with pytest.raises(UserError, match="no judgement has a score"):
        score("single", ScoreInput(path))


@pytest.mark.parametrize(
    "args, said",
    [
        (
            ["pope", "--predictions", POPE[0], "--references", "pope/coco_pope_random_current_first60.json"],
            "one version",
        ),
        (["vqa", "--predictions", POPE[0], "--references", "vqa/annotations.json"], "lacks an answer"),
        (
            [
                "mm-vet",
                "--predictions",
                "mm-vet/results_llava-v1.5-13b.json",
                "--references",
                "mm-vet/capabilities.json",
            ],
            "no grade file",
        ),
        (
            [
                "mm-vet",
                "--predictions",
                "mm-vet/llava-v1.5-13b_gpt-4-grade-1runs.json",
                "--references",
                "mm-vet/mm-vet_sample12.json",
            ],
            "not asked",
        ),
        (["llava-bench", "--predictions", POPE[0]], "no pair of scores"),
        (["pope", "--predictions", POPE[0]], "--references"),
        (
            [
                "vqa",
                "--predictions",
                "vqa/results.json",
                "--references",
                "vqa/annotations.json",
                "--questions",
                "pope/parse_edge_cases.json",
            ],
            "is not",
        ),
        (
            [
                "mm-vet",
                "--predictions",
                "mm-vet/llava-v1.5-13b_gpt-4-grade-1runs.json",
                "--references",
                "mm-vet/results_llava-v1.5-13b.json",
            ],
            "capabilities",
        ),
    ],
)
def test_bad_input(args, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["cocoift", "score", *(str(BENCH / a) if "/" in a else a for a in args)])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert stop.value.code == 2 and said in told.err and len(told.err.splitlines()) == 1 and not told.out


def test_command():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from cocoift.cli.main import main; main()",
            "score",
            "pope",
            "--predictions",
            BENCH / POPE[0],
            "--references",
            BENCH / POPE[1],
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert round(json.loads(done.stdout)["scores"]["f1"], 4) == 0.8714


@pytest.mark.parametrize(
    "name, row, counts",
    [
        ("Instruction1_instructblip", [0.030, 0.0232558, 0.3803946], [645, 15, 15]),
        ("Instruction2_llava", [0.342, 0.1082516, 0.6683107], [2448, 265, 171]),
        ("Instruction2_minigpt-4", [0.064, 0.0502415, 0.4642417], [1035, 52, 32]),
    ],
)
def test_chair(name, row, counts):
    told = scored(
        "chair",
        f"chair/captions_{name}_0_500.jsonl",
        "chair/gt_objects_0_500.json",
        synonyms=BENCH / "chair/synonyms.txt",
    )
    assert list(told["counts"].values()) == counts
    assert list(told["scores"].values()) == row


def test_chair_words():
    synonyms = read_synonyms(BENCH / "chair/synonyms.txt")
    for probe in read_json(BENCH / "chair/word_probes.json"):
        assert object_words(probe["caption"], synonyms) == probe["node_words"]


@pytest.mark.parametrize(
    "case, row",
    [
        ("loo0", [0.632653, 0.431879, 0.272486, 0.165520, 0.234438, 0.441474, 0.953200]),
        ("gpt4detail", [0.290762, 0.223107, 0.165114, 0.119108, 0.254518, 0.268997, 0.000004]),
    ],
)
def test_captions(case, row):
    assert (
        list(
            scored("coco-caption", f"coco-caption/results_{case}.json", f"coco-caption/annotations_{case}.json")[
                "scores"
            ].values()
        )
        == row
    )


def test_infimm(tmp_path):
    path = tmp_path / "graded.jsonl"
    path.write_text('{"score": 1, "complexity": "Moderate"}\n{"score": 0.5, "complexity": "High"}\n')
    assert score("infimm", ScoreInput(path))["scores"] == {"overall": 66.67, "high": 50.0, "moderate": 100.0}
    path.write_text('{"score": "1", "complexity": "Moderate"}\n')
    with pytest.raises(UserError, match="is no number"):
        score("infimm", ScoreInput(path))
