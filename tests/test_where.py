"Where a model leaks: surgery and distance through the command line, finished as if nobody had stopped them."

import json
import shutil
from pathlib import Path

import pytest


def printed(typed, *args, code: int = 0) -> dict:
    done = typed(*args, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "times.jsonl"}


def operation(small: Path, out: Path, *more) -> list:
    model, exam = small / "start", small / "exam"
    return ["surgery", model, "--data", exam, "--out", out, "--per-image", 1, "--most-tokens", 6, *more]


def test_surgery_stopped_leaves_the_bytes_of_one(typed, small, tmp_path):
    whole = printed(typed, *operation(small, tmp_path / "whole"))
    assert whole["exact"] is True and whole["statuses"]["ok"] == whole["items"] == 6
    cuts = {(row["part"], row["viewers"], str(row["layers"])) for row in whole["parts"]}
    layers = json.loads((small / "start/config.json").read_text())["text_config"]["num_hidden_layers"]
    assert len(cuts) == 1 + 5 * (1 + layers)  # in all of its layers, and in each
    assert {row["part"] for row in whole["agreement"]["odds"]} == {"instruction", "answers", "rounds"}
    assert "<h2>" in Path(whole["page"]).read_text()

    out = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", out)
    lines = (out / "surgery.jsonl").read_bytes().splitlines(keepends=True)
    (out / "surgery.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed while it wrote
    (out / "surgery.json").unlink()
    assert {**printed(typed, *operation(small, out)), "page": ""} == {**whole, "page": ""}
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "change, complaint",
    [
        (["--layers", "7-90"], "--layers 7-90: is no range of the layers 0 to "),
        (["--bench", "scope"], "scope: has dialogs of its own"),
        (["--rounds", "30"], "with at least three questions an image"),
    ],
    ids=["layers", "bench", "rounds"],
)
def test_what_cannot_be_operated_on_is_told_in_a_line(typed, small, tmp_path, change, complaint):
    done = typed(*operation(small, tmp_path / "out", *change))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_server_is_not_operated_on(typed, small, tmp_path):
    _, _, *rest = operation(small, tmp_path / "out")
    done = typed("surgery", "http://127.0.0.1:1/v1#m", *rest)
    assert done.returncode == 2 and "nothing can be hidden from it: name a checkpoint folder" in done.stderr


def test_distance_and_what_does_not_fit(typed, small, tmp_path):
    narrow = tmp_path / "narrow"
    shutil.copytree(small / "start", narrow)
    config = json.loads((narrow / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 230
    (narrow / "config.json").write_text(json.dumps(config))
    asked = ["--data", small / "exam", "--per-image", 1, "--most-tokens", 6, "--history", "none", "--distance", "1,12"]
    result = printed(typed, "eval", "--model", narrow, *asked, "--out", tmp_path / "run")
    points = {(p["curve"], p["distance"]): p for p in result["distance"]["points"]}
    assert list(points) == [("count", 1), ("count", 12), ("gap", 1), ("gap", 12)]
    assert points["gap", 1]["n"] == 6 and points["gap", 1]["lost"] == 0
    assert (points["gap", 12]["value"], points["gap", 12]["n"], points["gap", 12]["lost"]) == (None, 0, 6)
    assert result["distance"]["statuses"]["overflow"] == 4 * 6  # gap, count and their two controls
    before = bytes_of(tmp_path / "run")
    assert printed(typed, "eval", "--model", narrow, *asked, "--out", tmp_path / "run") == result
    assert bytes_of(tmp_path / "run") == before
    scope = typed("eval", "--model", "scripted:oracle", "--bench", "scope", *asked, "--out", tmp_path / "scope")
    assert scope.returncode == 2 and "--distance: no question of scope has two others" in scope.stderr
