"`cocoift cure`: a tiny cure end to end, interrupted and killed in each of its steps, and what it refuses."

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from killed import COCOIFT, contents, kill_when
from mock_server import MockServer

from cocoift.dataset import Dataset
from cocoift.files import Journal, UserError
from cocoift.formats import TERSE_FORMATS
from cocoift.instructions import stated_format
from cocoift.studies import cure as study
from cocoift.studies.cure_steps import CureOptions, cure_recipe

TRAINING = ("steps=2", "batch=8", "checkpoint=1", "lora_r=4", "lora_alpha=8", "ranks=1", "lora_dropout=0")


def answer(body: dict) -> str:
    "A word where one is asked for, else a sentence."
    content = [m for m in body["messages"] if m["role"] == "user"][-1]["content"]
    asked = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    return "a star" if stated_format(asked) in TERSE_FORMATS else "It is a star."


def options(small, out, **more) -> CureOptions:
    places = {"images": small / "world/images", "exam": small / "exam", "questions": small / "set"}
    how = {"model": small / "start", "out": out, "pictures": 6, "per_image": 3, "exam_pictures": 3, "most_tokens": 16}
    how["loss"] = "answers"
    return CureOptions(**{**places, **how, "training": TRAINING, **more})


class Ended(BaseException):
    "What a signal does to a command."


def test_ends_and_goes_on(forks, warm, small, tmp_path, monkeypatch):
    "Ended before each step, a cure goes on; nothing is asked or trained twice, and both losses leave a model."
    out, begun = tmp_path / "cured", []
    monkeypatch.setattr(sys, "executable", str(warm / "python"))

    def end_at(last: int):
        def say(text: str) -> None:
            begun.append(text)
            if len(begun) == last:
                raise Ended(text)

        begun.clear()
        monkeypatch.setattr(study, "say_cure", say)

    with MockServer(answer) as url:
        mine = options(small, out, served=f"{url}#tiny", loss="both", anyway=True)
        for step in range(1, 8):
            end_at(step)
            with pytest.raises(Ended):
                study.cure(mine)
        end_at(0)
        result = study.cure(mine)
    assert [text.partition(" ")[0] for text in begun] == [
        "examining",
        "asking",
        "learning",
        *("training", "examining") * 2,
    ]
    lines = Journal(out / "answers/rounds.jsonl").read()
    assert len(lines) == len({line["dialog"] for line in lines}) == result["answers"]["asked"]
    assert result["answers"]["lasting"] > 0 and not sum(result["answers"]["left_out"].values())
    assert {r.origin.source for c in Dataset(out / "set") for r in c.rounds} == {"self"}
    for loss, arm in result["losses"].items():
        assert [line["step"] for line in Journal(out / "train" / study.CURES[loss] / "metrics.jsonl").read()] == [1, 2]
        assert arm["hold"] and arm["content"] and arm["after"]["leakage"]["value"] is not None
        assert "| leakage |" in (out / "train" / study.CURES[loss] / "model/README.md").read_text()
    page = (out / "report.html").read_text()
    assert "What it cost, and what it brought" in page and "Before and after" in page
    assert [m["name"] for m in json.loads((out / "models.yaml").read_text())] == ["before", *study.CURES.values()]
    never_learned = {line["image"] for line in Journal(out / "exam/before/rounds.jsonl").read()}
    assert not never_learned & {c.image for c in Dataset(out / "set")}
    again = study.cure(mine)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    with pytest.raises(UserError, match="holds a cure with other settings"):
        study.cure(replace(mine, seed=1))


WRITTEN = "answers/rounds.jsonl train/cured/metrics.jsonl data set exam train/cured/model report.html models.yaml"


def result_of(out) -> dict[str, bytes]:
    "What a cure leaves behind, without what tells how it came about."
    parts = [out / name for name in WRITTEN.split()]
    files = {p.name: p.read_bytes() for p in parts if p.is_file()}
    return files | {f"{p.name}/{name}": data for p in parts if p.is_dir() for name, data in contents(p).items()}


@pytest.mark.slow
def test_killed_in_each_stage_it_goes_on(small, tmp_path):
    "SIGKILL as soon as each stage has left its first trace; at last all is as if nobody had interfered."
    out, train = tmp_path / "killed/runs", tmp_path / "killed/runs/train/cured"
    stages = [
        lambda: lines_in(out / "exam/before/rounds.jsonl") and not (out / "exam/before/scores.json").exists(),
        lambda: (out / "exam/before/lasting/rounds.jsonl").exists(),
        lambda: (out / "exam/before/scope/rounds.jsonl").exists(),
        lambda: (out / "answers/run.json").exists(),
        lambda: (out / "data").exists(),
        lambda: 1 <= lines_in(train / "metrics.jsonl") < 6,
        lambda: (train / "model").exists(),
        lambda: lines_in(out / "exam/cured/rounds.jsonl") and not (out / "exam/cured/scores.json").exists(),
        lambda: (train / "model/README.md").exists(),
    ]
    with MockServer(answer) as url:
        words = [
            "cure",
            small / "start",
            "steps=6",
            *TRAINING[1:],
            "--out",
            "runs",
            "--served",
            f"{url}#tiny",
            "--anyway",
        ]
        words += ["--images", small / "world/images", "--exam", small / "exam", "--questions", small / "set"]
        words += ["--pictures", 6, "--per-image", 3, "--exam-pictures", 3, "--most-tokens", 16, "--anyway", "--json"]
        words += ["--loss", "answers"]
        (tmp_path / "killed").mkdir()
        for begun in stages:
            kill_when(begun, *words, cwd=tmp_path / "killed")
        (tmp_path / "whole").mkdir()
        killed, whole = (
            subprocess.run([COCOIFT, *map(str, words)], cwd=tmp_path / name, capture_output=True, text=True)
            for name in ("killed", "whole")
        )
    assert (killed.returncode, whole.returncode) == (0, 0), killed.stderr + whole.stderr
    assert {**json.loads(killed.stdout), "seconds": 0} == {**json.loads(whole.stdout), "seconds": 0}
    assert result_of(out) == result_of(tmp_path / "whole/runs")


def lines_in(file) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_one_that_does_not_leak(small, tmp_path, typed):
    "It is left alone, and that is no failure."
    words = ["--images", small / "world/images", "--exam", small / "exam", "--out", tmp_path / "cured"]
    done = typed("cure", small / "start", *words, "--exam-pictures", 2, "--most-tokens", 4)
    assert done.returncode == 0 and "does not leak" in done.stdout
    assert not (tmp_path / "cured/train").exists()


def test_what_is_refused(small, tmp_path, typed):
    "Each in one line, before anything is written."
    words = ["--images", small / "world/images", "--exam", small / "exam", "--out", tmp_path / "cured"]
    for command, line in [
        (["cure", "http://localhost:1/v1#llava", *words], "a cure trains the weights, which a server does not give"),
        (["cure", small / "world", *words], "is no checkpoint folder"),
        (["cure", small / "start", *words, "--loss", "kl"], "--loss kl: is answers, history or both"),
        (["cure", small / "start", *words, "--loss", "history", "--full"], "--full has none"),
        (["cure", small / "start", *words, "--questions", other(small, tmp_path)], "of the 12 pictures"),
        (["cure", small / "start", *words, "--loss", "history", "--questions", single(small, tmp_path)], "asks more"),
        (["cure", small / "start", *words, "--served", "llava"], "is no server"),
        (["cure", small / "start", *words, "rank=4"], "rank"),
        (["cure", small / "start", "--images", small / "exam/images", *words[2:]], "name other pictures with --images"),
        (["cure", small / "start", *words[:2], *words[4:]], "or name annotated pictures with --exam"),
    ]:
        done = typed(*command)
        assert done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "cured").exists()


def other(small, tmp_path):
    "A file that asks about no picture of the world."
    from cocoift.conversation import conversation, write_jsonl

    write_jsonl(tmp_path / "other.jsonl", [conversation("coco:999", ("What is it?", "A pier."))])
    return tmp_path / "other.jsonl"


def single(small, tmp_path):
    "A file that asks one question in both ways about each picture."
    from cocoift.conversation import conversation, write_jsonl
    from cocoift.images import find_pictures

    asked = "Is it red? Answer the question using a single word or phrase."
    images = sorted(find_pictures(small / "world/images"))
    write_jsonl(tmp_path / "single.jsonl", [conversation(image, (asked, "No", "short")) for image in images])
    return tmp_path / "single.jsonl"


def test_torn_captions(small, tmp_path, typed):
    "A file that is there and cannot be read is no file that is not there."
    shutil.copytree(small / "exam", tmp_path / "exam")
    captions = next((tmp_path / "exam").rglob("captions_val*.json"))
    captions.write_text(captions.read_text()[:2000])
    words = ["--images", small / "world/images", "--exam", tmp_path / "exam", "--out", tmp_path / "cured"]
    done = typed("cure", small / "start", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and captions.name in done.stderr, done.stderr
    assert not (tmp_path / "cured").exists()


def test_plan(small, tmp_path, typed):
    "Calls, tokens and hours, and nothing is written."
    words = ["--images", small / "world/images", "--exam", small / "exam", "--out", tmp_path / "cured", "--dry-run"]
    done = typed("cure", small / "start", *words, "--json")
    plan = json.loads(done.stdout)
    assert plan["calls"] > plan["pictures"] * 12 and plan["llava_7b"]["calls"] == 24_000
    assert 0 < plan["llava_7b"]["gpu_hours"]["total"] < 2 and not (tmp_path / "cured").exists()
    assert Counter(map(type, plan["arithmetic"])) == {str: 4}


def test_doses_keep_states_from_beginning_to_end(small, tmp_path):
    "480 steps, four checkpoints kept: not only the last hundred steps; what is named otherwise is."
    kept = {
        (dose, more): cure_recipe(options(small, tmp_path, dose=dose, training=more), "answers", tmp_path, tmp_path)
        for dose in (False, True)
        for more in ((), ("checkpoint=7",))
    }
    assert {how: recipe.checkpoint for how, recipe in kept.items()} == {
        (False, ()): 30,
        (True, ()): 96,
        (False, ("checkpoint=7",)): 7,
        (True, ("checkpoint=7",)): 7,
    }
