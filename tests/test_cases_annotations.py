"Counts and denials made of annotations: nothing is said that they do not settle, whatever is wrong with them."

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cocoift.data.build.questions import ask_objects
from cocoift.data.sources.base import Files, load_sources
from cocoift.data.sources.record import Record, Reject
from cocoift.data.sources.settled import id_of, is_marked
from cocoift.dataset import Dataset
from cocoift.eval.scope.facts import read_facts
from cocoift.files import UserError

RECIPE = {
    "name": "mine",
    "sources": ["coco-format"],
    "layout": "every-mixed",
    "templates": "diverse",
    "rounds": [2, 5],
    "clean": [],
}


@pytest.fixture
def case(shared):
    "The folder of a case by its number."
    return lambda number: next((shared / "data/cases").glob(f"{number}-*"))


class Built:
    "What a build made: its rounds by picture, its rejects, and how it ended."

    def __init__(self, done, out: Path):
        self.code, self.said = done.returncode, done.stderr
        assert self.code in (0, 2) and "Traceback" not in self.said, self.said
        assert self.code == 0 or self.said.count("\n") == 1 and not out.exists(), self.said
        self.counts = json.loads(done.stdout) if done.stdout else {}
        self.rejects = (
            [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()] if self.code == 0 else []
        )
        self.texts: dict[str, list[tuple[str, str]]] = {}
        for conversation in Dataset(out) if self.code == 0 else ():
            self.texts.setdefault(conversation.files[0], []).extend(
                (r.instruction, r.response) for r in conversation.rounds
            )

    def speaks_of(self, picture: str, word: str) -> bool:
        return any(word in text for round_ in self.texts.get(picture, ()) for text in round_)


@pytest.fixture
def build(typed, tmp_path):
    "`build(folder)`: what `cocoift build` makes of the own set below it."
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))

    def run(data: Path, recipe: Path = recipe) -> Built:
        out = tmp_path / f"set-{len(list(tmp_path.glob('set-*')))}"
        return Built(typed("build", recipe, "--data", data, "--out", out, "--json"), out)

    return run


def coco(images, things, names=("apple", "pear"), **more) -> dict:
    "A file of boxes: pictures by name, things as (picture's number, category's number, x, more of it), both from 1."
    return {
        "images": [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(images, 1)],
        "annotations": [
            {
                "id": 100 + k,
                "image_id": image,
                "category_id": category,
                "bbox": [x, 2, 8, 8],
                "area": 64,
                "iscrowd": 0,
                "segmentation": [],
                **how,
            }
            for k, (image, category, x, how) in enumerate((*thing, {})[:4] for thing in things)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, 1)],
    } | more


def paint(path: Path, shade: int, size=(64, 48), **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 40, 90)).save(path, **how)
    return path


def put(home: Path, told: dict, name: str = "t.json") -> Path:
    "The set of a JSON, with its pictures."
    for k, image in enumerate(told["images"]):
        if not (home / "coco-format" / Path(image["file_name"])).exists():
            paint(home / "coco-format" / image["file_name"], 7 * k + sum(name.encode()) % 50)
    (home / "coco-format" / name).parent.mkdir(parents=True, exist_ok=True)
    (home / "coco-format" / name).write_text(json.dumps(told))
    return home


def records(home: Path) -> dict[str, Record | Reject]:
    "What the reader makes of a set, in this process: records by their picture, rejects by their id."
    return {
        r.files[0] if isinstance(r, Record) else r.id: r
        for r in load_sources()["coco-format"].read(Files(home, "coco-format"))
    }


def said(record: Record) -> dict[str, int | str]:
    "What a record says of its categories: a number; `3+` for at least so many, `?` for nothing."
    return {o.name: ("?" if not o.count else f"{o.count}+") if o.crowd else o.count for o in record.objects}


# The cases, as they were brought


@pytest.mark.parametrize("number, kept, excluded", [("07", 4, 5), ("29", 3, 3)])
def test_splits_are_told_by_folders(case, build, number, kept, excluded):
    built = build(case(number))
    assert (built.counts["by_source"]["coco-format"]["kept"], built.counts["excluded"], built.counts["rejected"]) == (
        kept,
        excluded,
        0,
    )
    assert all(picture.startswith("train/") for picture in built.texts)


def test_nothing_is_said_of_parents(case, build):
    built = build(case("08"))
    assert built.counts["images"] == 6 and not any(built.speaks_of(picture, "fruit") for picture in built.texts)


def test_ids_that_start_anew_with_each_picture(case, build):
    built = build(case("09"))
    assert {picture: {answer for _, answer in rounds} for picture, rounds in built.texts.items()} == {
        "p1.jpg": {"There are two apples in the image."},
        "p2.jpg": {"There are five apples in the image."},
    }


def test_one_id_for_two_files(case, build):
    built = build(case("10"))
    assert built.code == 2 and "two pictures have its id: cam1.jpg and cam2.jpg" in built.said


def test_boxes_of_no_size(case, build):
    built = build(case("11"))
    assert [r["record"] for r in built.rejects] == ["2", "3", "5"]
    assert not built.speaks_of("y.jpg", "apple")
    assert {answer for question, answer in built.texts["x.jpg"] if "apple" in question} <= {
        "yes",
        "Yes, there is an apple in the image.",
    }


def test_a_thing_of_no_known_category(case, build):
    built = build(case("12"))
    assert "x.jpg" not in built.texts and [r["record"] for r in built.rejects] == ["1", "image-1"]


def test_no_number_in_a_polygon(case, build):
    built = build(case("13"))
    assert [r["record"] for r in built.rejects] == ["1"] and [*built.texts] == ["y.jpg"]


def test_ids_that_are_texts(case, build):
    assert build(case("14")).counts["by_source"]["coco-format"]["kept"] == 2


def test_names_that_are_numbers(case, build):
    built = build(case("15"))
    assert built.code == 2 and "category 1 is called 3, which is no word" in built.said


def test_boxes_drawn_upright(case, build):
    built = build(case("16"))
    sides = {
        (question.split(" the apple")[0][-3:], answer)
        for rounds in built.texts.values()
        for question, answer in rounds
        if "left" in question
    }
    assert built.counts["images"] == 4 and sides


def test_linked_pictures(case, build, tmp_path):
    shutil.copytree(case("21") / "own", tmp_path / "own", copy_function=shutil.copy)
    (tmp_path / "own/coco-format/images").unlink(missing_ok=True)
    (tmp_path / "own/coco-format/images").symlink_to("../elsewhere")
    assert sorted(build(tmp_path / "own").texts) == ["images/x.jpg", "images/y.jpg"]


@pytest.mark.parametrize("number", ["22", "27"])
def test_marked_files_and_decomposed_names(case, build, number):
    assert build(case(number)).counts["by_source"]["coco-format"]["kept"] == 2


def test_two_categories_of_one_name(case, build):
    built = build(case("25"))
    assert {picture: {answer for _, answer in rounds} for picture, rounds in built.texts.items()} == {
        "x.jpg": {"There are two apples in the image."},
        "y.jpg": {"There is one apple in the image."},
    }


# Others of their kinds

NAN, INF = math.nan, math.inf
BOX_FAULTS = {
    "no size": [9, 9, 0, 8],
    "negative": [9, 9, -8, 8],
    "outside": [70, 2, 8, 8],
    "far": [2, 2, 1e8, 8],
    "nan": [NAN, 2, 8, 8],
    "inf": [2, 2, INF, 8],
    "text": ["2", 2, 8, 8],
    "three": [2, 2, 8],
    "object": {"x": 2},
    "word": "box",
    "marks": [True, 2, 8, 8],
}
MASK_FAULTS = {
    "nan": [[2, 2, NAN, 2, 9, 9]],
    "inf": [[2, 2, INF, 2, 9, 9]],
    "far": [[2, 2, 1e8, 2, 9, 9]],
    "odd": [[2, 2, 9, 2, 9, 9, 4]],
    "text": [[2, 2, "9", 2, 9, 9]],
    "word": "mask",
    "number": 7,
    "null inside": [[2, 2, None, 2, 9, 9]],
    "runs of another size": {"size": [9, 9], "counts": [81]},
    "runs too few": {"size": [48, 64], "counts": [9]},
    "runs negative": {"size": [48, 64], "counts": [3080, -8]},
    "runs torn": {"size": [48, 64], "counts": "PPYo"},
    "runs wild": {"size": [48, 64], "counts": "o" * 4000},
    "runs none": {"size": [48, 64]},
    "runs nan": {"size": [48, NAN], "counts": [3072]},
    "another place": [[40, 30, 60, 30, 60, 45, 40, 45]],
}


@pytest.mark.parametrize(
    "how",
    [
        *({"bbox": box} for box in BOX_FAULTS.values()),
        *({"segmentation": mask} for mask in MASK_FAULTS.values()),
        {"iscrowd": "some"},
        {"iscrowd": NAN},
        {"bbox": None},
        {"bbox": []},
    ],
    ids=lambda how: str(how)[:40],
)
def test_a_bad_thing_stops_its_category_in_its_picture(tmp_path, how):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 1, 20, how), (1, 2, 40), (2, 1, 2)])))
    assert said(found["a.jpg"]) == {"apple": "1+", "pear": 1} and found["101"].reason
    assert said(found["b.jpg"]) == {"apple": 1, "pear": 0}
    asked = {
        a.sentence
        for seed in range(40)
        for a in ask_objects(found["a.jpg"], random.Random(seed), 99)
        if "apple" in a.question
    }
    assert asked == set()


@pytest.mark.parametrize("category", [None, 9, "apple", NAN, True, [1], ""])
def test_a_thing_of_any_category_stops_its_picture(tmp_path, category):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, category, 20), (2, 2, 2), (2, 1, 20)])))
    assert {*found} == {"101", "image-1", "b.jpg"}


@pytest.mark.parametrize("image", [None, True, 1.5, NAN, "", [1]])
def test_a_thing_of_any_picture_is_an_error(build, tmp_path, image):
    built = build(put(tmp_path, coco(["a.jpg"], [(1, 1, 2), (image, 1, 20)])))
    assert built.code == 2 and "t.json: annotation 101: its image_id is" in built.said


@pytest.mark.parametrize(
    "ids", [("1", "2"), (1.0, 2.0), (2**70, -(2**70)), ("01", "000000000002"), ("f3-a", "0b9-c"), (0, -1)]
)
def test_ids_of_any_kind(tmp_path, ids):
    told = coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 1, 20), (2, 2, 2)])
    for image, id in zip(told["images"], ids):
        image["id"] = id
    for annotation in told["annotations"]:
        annotation |= {
            "image_id": ids[annotation["image_id"] - 1],
            "category_id": str(annotation["category_id"]),
            "id": f"u-{annotation['id']}",
        }
    found = records(put(tmp_path, told))
    assert [said(found[name]) for name in ("a.jpg", "b.jpg")] == [{"apple": 2, "pear": 0}, {"pear": 1, "apple": 0}]


def test_one_id_written_in_two_ways_is_one(tmp_path):
    assert said(records(put(tmp_path, coco(["a.jpg"], [(1, 1, 2), ("1", 1, 20), (1.0, "1", 40)])))["a.jpg"]) == {
        "apple": 3
    }


@pytest.mark.parametrize(
    "second, says",
    [
        ({}, {"apple": "1+"}),
        ({"id": 100}, {"apple": "?"}),
        ({"id": 100, "bbox": [20, 2, 8, 8]}, {"apple": "?"}),
        ({"id": 100, "category_id": 3, "bbox": [20, 2, 8, 8]}, {"apple": "?", "fig": "?"}),
    ],
)
def test_what_comes_twice(tmp_path, second, says):
    found = records(
        put(
            tmp_path,
            coco(
                ["a.jpg", "b.jpg"],
                [(1, 1, 2), (1, 1, 2, second), (1, 2, 40), (2, 1, 2), (2, 2, 40), (2, 3, 20)],
                ["apple", "pear", "fig"],
            ),
        )
    )
    assert says.items() <= said(found["a.jpg"]).items() and said(found["b.jpg"]) == {"apple": 1, "pear": 1, "fig": 1}


NAMES = {
    ("apple", "apple"): 2,
    ("apple", " Apple "): 2,
    ("traffic light", "traffic_light"): 2,
    ("T-shirt", "t-Shirt"): 2,
    ("apple", "apples"): "2+",
    ("mouse", "mice"): "2+",
}


@pytest.mark.parametrize("names", NAMES)
def test_names_that_are_one(tmp_path, names):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 2, 20), (2, 3, 2)], [*names, "kite"])))
    [(name, count)] = ((name, count) for name, count in said(found["a.jpg"]).items() if name != "kite")
    assert (name, count) == (names[0].replace("_", " "), NAMES[names]) and said(found["b.jpg"])[name] == 0


@pytest.mark.parametrize("name", [None, "", "  ", 3, "3", "<image>", "🍎", ["apple"], NAN, True, "a\x00b"])
def test_names_that_are_no_words(tmp_path, name):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 2, 20), (2, 1, 2)], ["apple", name])))
    assert {*found} == {"101", "image-1", "b.jpg"} and said(found["b.jpg"]) == {"apple": 1}


def test_one_category_id_of_two_names(tmp_path):
    told = coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 2, 2)])
    told["categories"].append({"id": 1, "name": "pear"})
    assert {*records(put(tmp_path, told))} == {"100", "image-1", "b.jpg"}


def test_kin_are_neither_counted_nor_denied(tmp_path):
    told = coco(
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        [(1, 1, 2), (2, 2, 2), (3, 3, 2), (4, 1, 2), (4, 2, 20)],
        ["apple", "fruit", "pear", "food", "never seen"],
    )
    for category, parent in zip(told["categories"], ("Fruit", "food", "fruits", "food", "none")):
        category["supercategory"] = parent
    found = records(put(tmp_path, told))
    assert [said(found[f"{name}.jpg"]) for name in "abcd"] == [
        {"apple": 1, "pear": 0, "fruit": "?", "food": "?"},
        {"fruit": 1, "apple": "?", "pear": "?", "food": "?"},
        {"pear": 1, "apple": 0, "fruit": "?", "food": "?"},
        {"apple": "1+", "fruit": "1+", "pear": "?", "food": "?"},
    ]


@pytest.mark.parametrize(
    "child, parent",
    [
        ({"supercategory": "food/fruit"}, {}),
        ({"supercategory": ["fruits"]}, {}),
        ({"supercategory": 2}, {}),
        ({"supercategory": "", "parent": "Fruit"}, {}),
        ({"parent_id": "2"}, {}),
        ({"name": "fruit/apple"}, {}),
        ({"name": "ripe_fruits"}, {}),
        ({"name": "man"}, {"name": "person"}),
    ],
    ids=str,
)
def test_parents_by_other_fields_and_by_name(tmp_path, child, parent):
    told = coco(["a.jpg", "b.jpg", "c.jpg"], [(1, 1, 2), (2, 2, 2), (3, 3, 2)], ["apple", "fruit", "kite"])
    told["categories"][0] |= child
    told["categories"][1] |= parent
    found = records(put(tmp_path, told))
    assert [[*said(found[f"{name}.jpg"]).values()] for name in "abc"] == [[1, 0, "?"], [1, 0, "?"], [1, 0, 0]]


def test_the_opposite_is_no_kin(tmp_path):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 2, 2)], ["helmet", "no-helmet"])))
    assert said(found["a.jpg"]) == {"helmet": 1, "no-helmet": 0}


@pytest.mark.parametrize("name", ["unknown", "Ignored Regions", "null", "don't_care"])
def test_a_category_of_things_that_nobody_knows(tmp_path, name):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 2, 20), (2, 1, 2)], ["apple", name])))
    assert {*found} == {"101", "image-1", "b.jpg"} and "may be anything" in found["101"].reason


@pytest.mark.parametrize(
    "mark, says",
    [
        ({"ignore": 1}, "1+"),
        ({"ignore": 0}, 2),
        ({"deleted": True}, "1+"),
        ({"attributes": {"ignored": "true"}}, "1+"),
        ({"attributes": {"occluded": True}}, 2),
        ({"attributes": []}, 2),
        ({"IsGroupOf": 1}, "3+"),
        ({"attributes": {"is_crowd": True}}, "3+"),
    ],
)
def test_other_marks(tmp_path, mark, says):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (1, 1, 20, mark), (2, 1, 2)])))
    assert said(found["a.jpg"]) == {"apple": says}


@pytest.mark.parametrize("again", [[20.001, 2, 8, 8], [20, 2.4, 8, 8], [20, 2, 8, 7.8]])
def test_what_is_drawn_twice_by_hand(tmp_path, again):
    mask = [[20, 2, 28, 2, 28, 10, 24, 10]]
    things = [(1, 1, 2), (1, 1, 20, {"segmentation": mask}), (1, 1, 20, {"bbox": again}), (1, 1, 29)]
    assert said(records(put(tmp_path, coco(["a.jpg"], things)))["a.jpg"]) == {"apple": "3+"}


def test_a_cutting_of_lvis_denies_what_was_looked_for(tmp_path):
    told = coco(
        ["a.jpg", "b.jpg", "c.jpg"], [(1, 1, 2), (2, 2, 2), (2, 3, 20), (3, 1, 2)], ["apple", "pear", "fig", "kite"]
    )
    for image, neg, partly in zip(told["images"], ([2, 4], []), ([1], [])):
        image |= {"neg_category_ids": neg, "not_exhaustive_category_ids": partly}
    found = records(put(tmp_path, told))
    assert [said(found[f"{name}.jpg"]) for name in "abc"] == [
        {"apple": "1+", "pear": 0, "kite": 0},
        {"pear": 1, "fig": 1},
        {"apple": "1+"},
    ]


@pytest.mark.parametrize("name, parent", [("apples", None), ("Apple", None), ("green apple", None), ("fig", "apple")])
def test_a_picture_in_two_files_of_kin(tmp_path, name, parent):
    put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 2, 2), (2, 1, 2)]), "one.json")
    told = coco(["a.jpg"], [(1, 1, 20)], [name])
    told["categories"][0]["supercategory"] = parent
    put(tmp_path, told, "two.json")
    assert {*records(tmp_path)} == {"one/image-1", "two/image-1", "b.jpg"}


@pytest.mark.parametrize(
    "mark, crowd",
    [("0", False), (False, False), (0.0, False), (None, False), ("1", True), (True, True), ("true", True)],
)
def test_marks_of_crowds(tmp_path, mark, crowd):
    found = records(put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2, {"iscrowd": mark}), (2, 1, 2)])))
    assert said(found["a.jpg"]) == {"apple": "2+" if crowd else 1}


@pytest.mark.parametrize(
    "mask",
    [
        None,
        [],
        [[]],
        {},
        "",
        [[2, 2, 10, 10]],
        [2, 2, 10, 10],
        [2, 2, 10, 2, 10, 10, 2, 10],
        [[2, 2, 10, 2, 10, 10, 2, 10], [3, 3]],
    ],
)
def test_a_box_will_do(tmp_path, mask):
    [record] = records(put(tmp_path, coco(["a.jpg"], [(1, 1, 2, {"segmentation": mask})]))).values()
    assert record.objects[0][:4] == ("apple", 1, False, round(64 / (64 * 48), 4))


@pytest.mark.parametrize("box", [None, [], ...])
def test_a_mask_will_do(tmp_path, box):
    told = coco(["a.jpg"], [(1, 1, 2, {"segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]], "bbox": box})])
    if box is ...:
        del told["annotations"][0]["bbox"]
    [record] = records(put(tmp_path, told)).values()
    assert record.objects[0] == ("apple", 1, False, 0.0208, (0.0312, 0.0417, 0.1562, 0.2083))


def test_a_picture_under_two_ids_is_described_by_neither(tmp_path):
    told = coco(["a.jpg", "a.jpg", "b.jpg"], [(1, 1, 2), (2, 2, 20), (3, 1, 2), (3, 2, 20)])
    assert {*records(put(tmp_path, told))} == {"image-1", "image-2", "b.jpg"}


def test_a_picture_in_two_files_of_one_category(tmp_path):
    put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 1, 2), (2, 2, 20)]), "one.json")
    put(tmp_path, coco(["a.jpg"], [(1, 2, 20)]), "two.json")
    assert {*records(tmp_path)} == {"one/image-1", "two/image-1", "b.jpg"}
    put(tmp_path, coco(["a.jpg"], [(1, 1, 20)], ["kite"]), "two.json")  # another question
    assert [
        said(r) for r in load_sources()["coco-format"].read(Files(tmp_path, "coco-format")) if r.files == ("a.jpg",)
    ] == [{"apple": 1, "pear": 0}, {"kite": 1}]


# Pictures


@pytest.mark.parametrize(
    "size, mark, stated, says",
    [
        ((64, 48), 1, (64, 48), "left"),
        ((64, 48), 6, (48, 64), "left"),
        ((64, 48), 6, (64, 48), "stored turned, it was annotated as it lies"),
        ((64, 48), 1, (48, 64), "annotated as another picture"),
        ((64, 48), 1, (128, 96), "annotated as another picture"),
        ((64, 48), 3, (64, 48), "nowhere"),
        ((48, 48), 6, (48, 48), "nowhere"),
        ((64, 48), 1, (None, None), "left"),
        ((64, 48), 6, (None, None), "stored turned"),
        ((64, 48), 1, ("64", 48), "its size is"),
        ((64, 48), 1, (0, 48), "its size is"),
        ((64, 48), 1, (NAN, 48), "its size is"),
    ],
)
def test_boxes_hold_in_the_picture_as_it_is_opened(tmp_path, size, mark, stated, says):
    exif = Image.Exif()
    exif[0x0112] = mark
    paint(tmp_path / "coco-format/a.jpg", 9, size, exif=exif)
    told = coco(["a.jpg"], [(1, 1, 2), (1, 2, 30)])
    told["images"][0] |= dict(zip(("width", "height"), stated))
    [found] = records(put(tmp_path, told)).values()
    if says in ("left", "nowhere"):
        assert said(found) == {"apple": 1, "pear": 1}
        placed = [a for seed in range(20) for a in ask_objects(found, random.Random(seed), 9, ["position"])]
        assert bool(placed) == (says == "left")
    else:
        assert says in found.reason


def test_pictures_that_nobody_can_open_are_rejects(tmp_path):
    put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 1, 2)]))
    (tmp_path / "coco-format/a.jpg").write_bytes(b"\xff\xd8no more")
    assert {*records(tmp_path)} == {"image-1", "b.jpg"}


WHERE = {  # JSON, stated name, files -> which of them, or part of the reason
    ("t.json", "x.jpg", ("deep/down/X.JPG",)): "deep/down/X.JPG",
    ("t.json", "x.jpg", ("a/x.jpg", "b/x.jpg")): "2 pictures are called x.jpg",
    ("t.json", "a\\x.jpg", ("a/x.jpg", "b/x.jpg")): "a/x.jpg",
    ("t.json", "C:\\data\\a\\x.jpg", ("a/x.jpg", "b/x.jpg")): "a/x.jpg",
    ("t.json", "left/x.jpg", ("right/x.jpg",)): "in another folder",
    ("t.json", "/home/bob/images/x.jpg", ("photos/x.jpg",)): "photos/x.jpg",
    ("t.json", "images/x.jpg", ("x.jpg",)): "x.jpg",
    ("a/t.json", "x.jpg", ("a/x.jpg", "b/x.jpg")): "a/x.jpg",
    ("a/t.json", "x.jpg", ("a/images/x.jpg", "x.jpg")): "a/images/x.jpg",
    ("annotations/instances_train.json", "x.jpg", ("train/x.jpg", "val/x.jpg")): "train/x.jpg",
    ("t.json", "x.jpg", ("x.jpg", "old/x.jpg")): "x.jpg",
    ("annotations/instances_train.json", "x.jpg", ("val/x.jpg",)): "in another folder",
    ("t.json", "x%20y.jpg", ("x y.jpg",)): "x y.jpg",
    ("t.json", "", ("x.jpg",)): "its file_name is not stated",
    ("t.json", "y.jpg", ("x.jpg",)): "no pictures are called y.jpg",
}


@pytest.mark.parametrize("where", WHERE, ids=lambda where: f"{where[0]} {where[1]}")
def test_where_pictures_are(tmp_path, where):
    name, stated, files = where
    for k, file in enumerate(files):
        paint(tmp_path / "coco-format" / file, 20 * k)
    told = coco(["x.jpg"], [(1, 1, 2)])
    told["images"][0]["file_name"] = stated
    path = tmp_path / "coco-format" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))
    [found] = records(tmp_path).values()
    assert WHERE[where] in (found.files if isinstance(found, Record) else found.reason) or WHERE[where] in str(found)


@pytest.mark.parametrize(
    "name, picture, split",
    [
        ("t.json", "x.jpg", "train"),
        ("t.json", "test/x.jpg", "test"),
        ("Valid/_annotations.coco.json", "Valid/x.jpg", "val"),
        ("latest.json", "x.jpg", "train"),
        ("instances_val2017.json", "x.jpg", "val"),
        ("t.json", "images/TEST/x.jpg", "test"),
        ("testimages/t.json", "testimages/x.jpg", "test"),
        ("held-out/t.json", "held-out/x.jpg", "test"),
        ("eval/t.json", "eval/x.jpg", "val"),
        ("contests/t.json", "contests/x.jpg", "train"),
    ],
)
def test_splits(tmp_path, name, picture, split):
    paint(tmp_path / "coco-format" / picture, 3)
    told = coco(["x.jpg"], [(1, 1, 2)])
    told["images"][0]["file_name"] = Path(picture).name if "/" in name else picture
    (tmp_path / "coco-format" / name).write_text(json.dumps(told))
    [found] = records(tmp_path).values()
    assert found.split == split


def test_splits_in_the_rows_of_pictures(tmp_path):
    told = coco(["a.jpg", "b.jpg", "c.jpg", "test/d.jpg"], [(k, 1, 2) for k in (1, 2, 3, 4)])
    for image, mark in zip(
        told["images"], ({"split": "test"}, {"tags": ["night", "validation"]}, {}, {"split": "train"})
    ):
        image |= mark
    found = records(put(tmp_path, told))
    assert {name: r.split for name, r in found.items() if isinstance(r, Record)} == {
        "a.jpg": "test",
        "b.jpg": "val",
        "c.jpg": "train",
    }
    assert found["image-4"].reason == "d.jpg is said to be of test and of train"


def test_a_path_of_two_splits_is_an_error(build, tmp_path):
    built = build(put(tmp_path, coco(["a.jpg"], [(1, 1, 2)]), "test/train.json"))
    assert built.code == 2 and "its path says both test and train" in built.said and "rename" in built.said


# Files


def test_other_files_beside_the_set(build, tmp_path):
    put(tmp_path, coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 2, 2)]))
    home = tmp_path / "coco-format"
    (home / "._t.json").write_bytes(b"\x00\x05\x16\x07\xff")
    (home / "classes.json").write_text('["apple", "pear"]')
    (home / "package.json").write_text('{"name": "mine", "version": 1}')
    (home / "empty.json").write_text(json.dumps(coco(["a.jpg"], [])))
    built = build(tmp_path)
    assert {r["record"]: r["reason"] for r in built.rejects} == {
        "classes.json": "classes.json is no file in COCO's format",
        "empty.json": "empty.json has no annotations",
        "package.json": "package.json is no file in COCO's format",
    }
    assert sorted(built.texts) == ["a.jpg", "b.jpg"]
    (home / "torn.json").write_text('{"images": [')
    assert "torn.json: ends in the middle" in build(tmp_path).said


def test_a_folder_without_a_set_is_an_error(build, tmp_path):
    (tmp_path / "coco-format").mkdir()
    (tmp_path / "coco-format/classes.json").write_text('["apple"]')
    built = build(tmp_path)
    assert built.code == 2 and "none of its JSON files has `images` and `annotations`" in built.said


@pytest.mark.parametrize(
    "text, says",
    [
        ('{"images": [', "ends in the middle of record 1 of 'images' (character 12): write it again with the tool"),
        ('{"images": [], "annotations": [{}]}', "it lacks 'categories': put one there as its documentation shows it"),
        ('{"images": [3], "annotations": [3]}', "put one there as its documentation shows it"),
    ],
)
def test_an_own_set_is_not_to_be_downloaded(build, tmp_path, text, says):
    (tmp_path / "coco-format").mkdir()
    (tmp_path / "coco-format/t.json").write_text(text)
    built = build(tmp_path)
    assert built.code == 2 and says in built.said and "fetch" not in built.said and "official" not in built.said


# Official files


@pytest.fixture
def official(shared, tmp_path):
    "`official(name, change)`: the small COCO's annotations, of which one file is changed."

    def changed(name: str, change) -> Path:
        home = shutil.copytree(shared / "data/coco-mini/annotations", tmp_path / "annotations").parent
        told = json.loads((home / f"annotations/{name}.json").read_text())
        change(told)
        (home / f"annotations/{name}.json").write_text(json.dumps(told))
        return home

    return changed


@pytest.mark.parametrize("caption", [None, "", " ", 3])
def test_scope_passes_over_captions_that_are_none(official, caption):
    home = official("captions_val2017", lambda told: told["annotations"][0].update(caption=caption))
    facts, _, _ = read_facts(home)
    assert len(facts) == 7 and sum(len(f.captions) for f in facts) == 34


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("junk", [None, 3, []])
def test_scope_of_another_file_is_an_error(official, key, junk):
    home = official("instances_val2017", lambda told: told[key].append(junk))
    with pytest.raises(UserError, match="is not a file of coco-instances: a record has another shape"):
        read_facts(home)


def test_one_category_id_of_two_names_in_official_files(official):
    home = official("panoptic_val2017", lambda told: told["categories"].append(told["categories"][1] | {"id": 1}))
    found = list(load_sources()["coco-panoptic"].read(Files(home, "coco-panoptic")))
    assert {r.reason for r in found} == {"category 1 is not in panoptic_val2017.json"}


def test_captions_and_things_in_one_file(tmp_path):
    told = coco(["a.jpg", "b.jpg"], [(1, 1, 2), (2, 2, 2)])
    told["annotations"] += [
        {"id": 100, "image_id": 1, "caption": "an apple"},
        {"id": 7, "image_id": 9, "caption": "lost"},
        {"id": 8, "image_id": 2, "category_id": 2, "caption": "the left pear", "bbox": [30, 2, 8, 8]},
    ]
    found = list(load_sources()["coco-format"].read(Files(put(tmp_path, told), "coco-format")))
    assert [r.answers for r in found if isinstance(r, Record) and r.task == "caption"] == [("An apple",)]
    assert {r.files[0]: said(r) for r in found if isinstance(r, Record) and r.task == "objects"} == {
        "a.jpg": {"apple": 1, "pear": 0},
        "b.jpg": {"pear": 2, "apple": 0},
    }
    assert [r.id for r in found if isinstance(r, Reject)] == ["7"]


def test_names_that_english_does_not_inflect(tmp_path):
    told = coco(
        ["a.jpg", "b.jpg"],
        [(1, k, 2 + 9 * (k - 1)) for k in range(1, 6)] + [(1, 1, 50), (2, 2, 2)],
        ["苹果", "яблоко", "T-shirt", "traffic_light", "TV"],
    )
    found = records(put(tmp_path, told))["a.jpg"]
    asked = {
        a.sentence for seed in range(20) for a in ask_objects(found, random.Random(seed), 99, ["count", "presence"])
    }
    assert {
        "There are two 苹果 in the image.",
        "There is one яблоко in the image.",
        "There is one traffic light in the image.",
    } <= asked
    assert not {
        text for text in asked if any(wrong in text for wrong in ("苹果S", "苹果s", "a 苹果", "яблокоs", "_", "TVS"))
    }


# Whatever is wrong; but nobody can see that a thing was marked as a crowd, or moved to a picture that is not listed

TRUTH = {
    "a.jpg": {"apple": 2, "pear": 0, "fig": 1},
    "b.jpg": {"apple": 0, "pear": 1, "fig": 0},
    "c.jpg": {"apple": 1, "pear": 3, "fig": 0},
}
# ...: left out
JUNK = st.sampled_from(
    [
        None,
        NAN,
        INF,
        -INF,
        -1,
        0,
        0.5,
        1e8,
        10**30,
        True,
        False,
        "",
        " ",
        "x",
        "9",
        [],
        {},
        [[]],
        [1],
        "\u0000",
        "<image>",
        ...,
    ]
)


def clean_set() -> dict:
    return coco(
        [*TRUTH],
        [
            (
                k,
                category,
                2 + 9 * n,
                {"segmentation": [[2 + 9 * n, 2, 10 + 9 * n, 2, 10 + 9 * n, 10, 2 + 9 * n, 10]] if n % 2 else []},
            )
            for k, counts in enumerate(TRUTH.values(), 1)
            for n, category in enumerate(c for c, count in enumerate(counts.values(), 1) for _ in range(count))
        ],
        [*TRUTH["a.jpg"]],
    )


def places(value, at=()) -> list[tuple]:
    "The places of all values in a JSON value."
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in inside for place in ((*at, key), *places(part, (*at, key)))]


PLACES = places(clean_set())


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
# two ids might agree
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.one_of(JUNK, st.just("twice"))),
        min_size=1,
        max_size=3,
        unique_by=lambda fault: str(fault[0][-1])[-2:],
    )
)
def test_no_fault_makes_a_false_count(tmp_path_factory, faults):
    home = tmp_path_factory.mktemp("faulty")
    told = clean_set()
    for k, name in enumerate(TRUTH):
        paint(home / "coco-format" / name, 20 * k)
    for place, junk in faults:
        if not (
            place[-1] == "image_id"
            and id_of(junk) is not None
            or place[-1] == "iscrowd"
            and junk is not ...
            and is_marked(junk)
        ):
            spoil(told, place, junk)
    (home / "coco-format/t.json").write_text(json.dumps(told))
    try:
        found = list(load_sources()["coco-format"].read(Files(home, "coco-format")))
    except UserError as error:
        assert "\n" not in str(error)
        return
    for record in (r for r in found if isinstance(r, Record)):
        for name, count in said(record).items():
            true = TRUTH[record.files[0]].get(name)
            assert (
                true is None or count == true or isinstance(count, str) and (count == "?" or int(count[:-1]) <= true)
            ), (record, faults)


def spoil(told, place: tuple, junk) -> None:
    *above, last = place
    for key in above:
        if (
            not isinstance(told, list | dict)
            or isinstance(told, list) != isinstance(key, int)
            or (key not in told if isinstance(told, dict) else key >= len(told))
        ):
            return
        told = told[key]
    if not isinstance(told, list if isinstance(last, int) else dict) or (
        last not in told if isinstance(told, dict) else last >= len(told)
    ):
        return
    if junk == "twice":
        if isinstance(told, list):
            told.append(told[last])
    elif junk is not ...:
        told[last] = junk
    elif isinstance(told, dict):
        del told[last]
