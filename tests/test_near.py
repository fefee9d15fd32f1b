"The same picture under another name: what a build leaves out, what a kill leaves behind, and what is no picture."

import json
import shutil
from pathlib import Path

import killed
import numpy as np
import pytest
from PIL import Image

from cocoift.conversation import read_conversations
from cocoift.data.inspect.near import NearOptions, near_pictures
from cocoift.data.inspect.neighbours import hamming, neighbours
from cocoift.files import UserError, write_json
from cocoift.texts import read_json


def scenery(seed: int, size=(160, 120)):  # a picture with structure, unlike others
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path):
    for name in ("set/train2017", "bench"):
        (tmp_path / name).mkdir(parents=True)
    for k in range(6):
        scenery(k).save(tmp_path / f"set/train2017/{k + 1:012d}.jpg")
    scenery(0).resize((90, 70)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "bench/copy.jpg", quality=40)
    scenery(1).resize((80, 60)).save(tmp_path / "set/train2017/000000000099.jpg", quality=50)
    (tmp_path / "set/train2017/000000000077.jpg").write_bytes(b"\xff\xd8\xff torn")
    return tmp_path


def test_a_build_leaves_copies_out(pictures, typed):
    rows = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 160, "height": 120} for n in (1, 2, 3, 99)]
    said = [{"id": n, "image_id": n, "caption": f"A scene called {n} with a dog in it."} for n in (1, 2, 3, 99)]
    (pictures / "data/annotations").mkdir(parents=True)
    write_json(pictures / "data/annotations/captions_train2017.json", {"images": rows, "annotations": said})
    near = ["overlap", "--pictures", pictures / "set", "--against", pictures / "bench", "--out", pictures / "near"]
    done = typed(*near, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["pictures"], found["unreadable"], found["within"]["images"]) == (8, 1, 1)
    assert found["against"]["bench"]["under_another_name"] == 1
    assert found["unreadable_files"] == [
        "train2017/000000000077.jpg: is no picture, or of a format that PIL does not know"
    ]
    lists = ", ".join(found["lists"].values())
    recipe = pictures / "recipe.yaml"
    recipe.write_text("name: own\nsources: [coco-captions]\n")
    built = typed(
        "build", recipe, f"clean=[{lists}]", "--data", pictures / "data", "--out", pictures / "built", "--json"
    )
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["by_source"]["coco-captions"]["excluded"] == 2
    assert {c.image for c in read_conversations(pictures / "built")} == {"coco:2", "coco:3"}


def test_a_killed_index_goes_on(pictures, monkeypatch):
    for k in range(600):
        shutil.copy(pictures / "set/train2017/000000000003.jpg", pictures / f"set/{k}.jpg")
        with open(pictures / f"set/{k}.jpg", "ab") as file:  # the same picture, other bytes
            file.write(b"%d" % k)
    arguments = ["overlap", "--pictures", "set", "--against", "bench", "--out", "killed"]
    first = pictures / "killed/hashes/part-000000.parquet"
    killed.kill_when(first.exists, *arguments, cwd=pictures)
    stamp = first.stat().st_mtime_ns
    results = [
        near_pictures(NearOptions(pictures / "set", pictures / out, (pictures / "bench",)))
        for out in ("killed", "whole")
    ]
    assert first.stat().st_mtime_ns == stamp
    assert [(pictures / out / "pairs.jsonl").read_text() for out in ("killed", "whole")][0].count("\n") >= 600
    a, b = (killed.contents(pictures / out) for out in ("killed", "whole"))
    assert {k: v for k, v in a.items() if "hashes" not in k and k != "near.json"} == {
        k: v for k, v in b.items() if "hashes" not in k and k != "near.json"
    }
    assert results[0]["within"] == results[1]["within"]
    before = sorted((pictures / "killed/hashes").iterdir())
    near_pictures(NearOptions(pictures / "set", pictures / "killed", (pictures / "bench",)))
    assert sorted((pictures / "killed/hashes").iterdir()) == before


@pytest.mark.parametrize("most", [15, 47])
def test_every_pair_is_found(most):
    "In as many fingerprints as are searched by chunks: against a comparison with every two."
    draw = np.random.default_rng(most)
    rows = draw.integers(0, 256, (5000, 32), np.uint8)
    for k in range(0, 1000, 2):
        bits = np.unpackbits(rows[k])
        bits[draw.choice(256, draw.integers(0, 60), replace=False)] ^= 1
        rows[k + 1] = np.packbits(bits)
    near = neighbours(rows, most=most)
    every = {(k, j) for k in range(len(rows)) for j in k + 1 + np.flatnonzero(hamming(rows[k], rows[k + 1 :]) <= most)}
    assert set(zip(near.one.tolist(), near.other.tolist())) == every and len(every) > 100


def test_what_cannot_be_compared(pictures, typed, tmp_path):
    (pictures / "none").mkdir()
    out = ["--out", pictures / "out"]
    wrong = {
        ("--pictures", pictures / "none", *out): f"{pictures / 'none'}: holds no pictures",
        ("--pictures", pictures / "gone", *out): f"{pictures / 'gone'}: no such folder of pictures: check the path",
        tuple(out): "--pictures or --questions: one of the two is needed",
        ("--pictures", pictures / "set", "--most", 200, *out): "--most 200: bits of 256 from 0 to 127 are needed",
        ("--pictures", pictures / "set", "--tower", pictures, *out): "--tower: which angle makes a copy depends on the",
        ("--pictures", pictures / "set", "--tower", pictures, "--most", 9, *out): f"{pictures}: holds no weights",
        ("--pictures", pictures / "set", "--least", 0.5, *out): "--least: is for questions: leave it out",
        ("--questions", pictures / "gone.json", *out): f"{pictures / 'gone.json'}: no such file or folder",
        ("--pictures", pictures / "set", "--against", pictures / "set", *out): "is named twice, or is the set itself",
        ("--pictures", pictures / "set", "--out", pictures / "set"): "holds something else (there is no hashes in it)",
    }
    for arguments, line in wrong.items():
        done = typed("overlap", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert line in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (pictures / "out").exists()


def test_an_index_of_another_version(pictures):
    options = NearOptions(pictures / "set", pictures / "out")
    near_pictures(options)
    facts = read_json(pictures / "out/hashes/index.json")
    write_json(pictures / "out/hashes/index.json", facts | {"made_by": "imagehash 3"})
    with pytest.raises(UserError, match="index of another version .made_by is 'imagehash 3', 'imagehash 4' is needed"):
        near_pictures(options)


def test_a_changed_picture_is_read_again(pictures):
    options = NearOptions(pictures / "set", pictures / "out")
    assert near_pictures(options)["within"]["images"] == 1
    scenery(50).save(pictures / "set/train2017/000000000099.jpg")
    Path(pictures / "set/train2017/000000000077.jpg").unlink()
    found = near_pictures(options)
    assert (found["within"]["images"], found["unreadable"], found["lists"]["within"]) == (0, 0, None)
    assert not (pictures / "out/within.txt").exists()
