"The main job on a small scale: what it prints, what it holds equal, what it leaves behind."

import json
from collections import Counter

import pandas as pd
import pytest

LAYOUTS = ("first-uniform", "every-mixed")
HISTORIES = ("none", "neutral", "terse", "forced_short")


def test_document(tiny_quickstart):
    folder, document = tiny_quickstart
    assert set(document) >= {"layouts", "report", "seconds"} and tuple(document["layouts"]) == LAYOUTS
    for arm in document["layouts"].values():
        for history in HISTORIES:
            assert all(
                0 <= arm[history][metric] <= 1 for metric in ("terse_rate", "format_accuracy", "content_accuracy")
            )
        for difference in ("carry_over", "leakage"):
            low, value, high = (arm[difference][key] for key in ("low", "value", "high"))
            assert -1 <= low <= value <= high <= 1
    assert document["seconds"] > 0
    assert (
        document["report"] == str(folder / "report.html") and "Plotly.newPlot" in (folder / "report.html").read_text()
    )


def test_what_the_picture_is_worth(tiny_quickstart):
    folder, document = tiny_quickstart
    for layout in LAYOUTS:
        sight = document["sight"][layout]
        asked = ("changed", "right", "blind", "above_blind", "worth", "answer_gain")
        assert all(sight[name]["n"] == sight["right"]["n"] > 0 for name in asked) and sight["caption_gain"]["n"] > 0
        assert sight["above_blind"]["value"] == pytest.approx(sight["right"]["value"] - sight["blind"]["value"])
    assert "Do the pictures matter?" in (folder / "report.html").read_text()


def test_data_carry_over(tiny_quickstart):
    arms = tiny_quickstart[1]["layouts"]
    assert arms["first-uniform"]["carry_over"]["value"] >= 0.8
    assert abs(arms["every-mixed"]["carry_over"]["value"]) <= 0.1


def test_leakage_is_the_difference_of_the_levels(tiny_quickstart):
    for arm in tiny_quickstart[1]["layouts"].values():
        assert arm["leakage"]["value"] == pytest.approx(
            arm["forced_short"]["terse_rate"] - arm["neutral"]["terse_rate"]
        )


def test_again(typed, tiny_quickstart):
    folder, document = tiny_quickstart
    done = typed("quickstart", "--tiny", "--json", "--out", folder)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again.pop("seconds") and {**again, "seconds": document["seconds"]} == document


def test_other_settings_are_refused(typed, tiny_quickstart):
    done = typed("quickstart", "--tiny", "--seed", 1, "--out", tiny_quickstart[0])
    assert done.returncode == 2 and "holds a quickstart with other settings" in done.stderr


def test_matched(tiny_quickstart):
    one, other = (tiny_quickstart[1]["matched"][layout] for layout in LAYOUTS)
    assert {key: one[key] for key in ("images", "steps")} == {key: other[key] for key in ("images", "steps")}
    assert min(one["learned_tokens"], other["learned_tokens"]) > 0


def test_the_same_answers_are_learned(tiny_quickstart):
    folders = [tiny_quickstart[0] / "data" / layout / "conversations" for layout in LAYOUTS]
    one, other = (
        Counter((row.images[0], r["response"]) for row in pd.read_parquet(folder).itertuples() for r in row.rounds)
        for folder in folders
    )
    assert one == other and one


def test_scope_of_both_models_under_five_histories(tiny_quickstart):
    folder, _ = tiny_quickstart
    for layout in LAYOUTS:
        run = folder / "eval" / layout / "seed-0"
        lines = [json.loads(line) for line in (run / "scope/rounds.jsonl").read_text().splitlines()]
        assert {line["history"] for line in lines} == {*HISTORIES, "own"} and all(
            line["status"] == "ok" for line in lines
        )
        scores = json.loads((run / "scope/scores.json").read_text())
        assert {"strict", "hold", "release", "leakage", "chair_i", "object_f1", "snowball", "flip"} <= scores[
            "scores"
        ].keys() and scores["resolves"]["leakage"] >= 0
        # the start and the finished model
        assert [point["step"] for point in json.loads((run / "likelihood/scores.json").read_text())["points"]] == [0, 4]
    report = (folder / "report.html").read_text()
    assert "COCO-Scope" in report and "Stopping early" in report


def test_models_are_plain_checkpoints(tiny_quickstart):
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    for layout in LAYOUTS:
        path = tiny_quickstart[0] / "train" / layout / "seed-0/model"
        model, processor = LlavaForConditionalGeneration.from_pretrained(path), AutoProcessor.from_pretrained(path)
        from PIL import Image

        [picture, *_] = sorted((tiny_quickstart[0] / "exam/images").rglob("*.png"))
        asked = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many shapes are there?"}]}],
            add_generation_prompt=True,
        )
        inputs = processor(images=Image.open(picture).convert("RGB"), text=asked, return_tensors="pt")
        assert (inputs.input_ids == model.config.image_token_id).sum() == model.config.image_seq_length
        with torch.inference_mode():
            assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs.input_ids.shape[1]
