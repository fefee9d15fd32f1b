"Lists of what must stay clean: real benchmark files, made ones of every kind, and files that are something else."

import json
import pickle

import pytest

from cocoift.data.build.blocklist import KNOWN_BLOCKLISTS, find_blocklists, images_in
from cocoift.files import UserError

COCO_PATH = "http://images.cocodataset.org/{}/{:012d}.jpg"


@pytest.fixture
def put(tmp_path):
    "Make a file of the data folder: bytes, text, or what JSON can say."

    def make(path: str, value):
        path = tmp_path / "data" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return make


def coco(*numbers: int) -> set[str]:
    return {f"coco:{n}" for n in numbers}


def refs(*splits: tuple[int, str]) -> bytes:
    return pickle.dumps(
        [
            {"image_id": n, "split": split, "file_name": f"COCO_train2014_{n:012d}_7.jpg", "ref_id": n}
            for n, split in splits
        ],
        2,
    )


def questions(*numbers: int) -> list[dict]:
    return [{"image_id": n, "question": "What is it?", "question_id": n * 10 + 5} for n in numbers]


@pytest.mark.parametrize(
    "name, files, expected",
    [
        (
            "val2017",
            {
                "coco/annotations/instances_val2017.json": {
                    "images": [{"id": 9, "coco_url": COCO_PATH.format("val2017", 9)}],
                    "annotations": [],
                },
                "annotations/captions_val2017.json": {"info": {}, "images": [{"id": 9}, {"id": 42}]},
            },
            coco(9, 42),
        ),
        (
            "karpathy-val",
            {"dataset_coco.json": {"images": [{"cocoid": 9, "split": "val"}, {"cocoid": 8, "split": "restval"}]}},
            coco(9),
        ),
        (
            "karpathy-test",
            {"dataset_coco.json": {"images": [{"cocoid": 9, "split": "val"}, {"cocoid": 8, "split": "test"}]}},
            coco(8),
        ),
        (
            "pope",
            {
                "coco/coco_pope_popular.json": '{"image": "COCO_val2014_000000000009.jpg"}\n'
                '{"image": "COCO_val2014_000000000042.jpg"}\n',
                "coco/coco_pope_random.json": '{"image": "COCO_val2014_000000000073.jpg"}\n',
            },
            coco(9, 42, 73),
        ),
        (
            "llava-bench-coco",
            {"qa90_questions.jsonl": '{"question_id": 5, "image": "000000441147.jpg"}\n'},
            coco(441147),
        ),
        (
            "refcoco-eval",
            {
                "refcoco/refs(unc).p": refs((1, "train"), (2, "val"), (3, "testA"), (4, "testB")),
                "refcoco+/refs(unc).p": refs((5, "val")),
                "refcocog/refs(umd).p": refs((6, "test"), (7, "train")),
                "refcocog/refs(google).p": refs((8, "val")),
            },
            coco(2, 3, 4, 5, 6),
        ),
        (
            "vqav2-val",
            {
                "vqav2/v2_OpenEnded_mscoco_val2014_questions.json": {"questions": questions(9, 9, 42)},
                "vqav2/v2_OpenEnded_mscoco_train2014_questions.json": {"questions": questions(1)},
            },
            coco(9, 42),
        ),
        (
            "okvqa-test",
            {
                "OK-VQA/OpenEnded_mscoco_val2014_questions.json": {"info": {}, "questions": questions(9)},
                "fsvqa/OpenEnded_mscoco_val2014_questions.json": {"questions": [{"image_id": 1, "question_id": 10}]},
            },
            coco(9),
        ),
        (
            "gqa-val",
            {"gqa/val_balanced_questions.json": {"05": {"imageId": "2316539"}, "06": {"imageId": "61512"}}},
            {"vg:2316539", "vg:61512"},
        ),
        (
            "gqa-val",
            {"lavis/val_balanced_questions.json": [{"image": "2316539.jpg", "question_id": "05"}]},
            {"vg:2316539"},
        ),
        ("aokvqa-val", {"aokvqa_v1p0_val.json": [{"image_id": 9, "split": "val"}]}, coco(9)),
        (
            "lvis-val",
            {
                "lvis/lvis_v1_val.json": {
                    "annotations": [{"image_id": 1}],
                    "images": [{"id": 9, "coco_url": COCO_PATH.format("train2017", 9)}],
                }
            },
            coco(9),
        ),
        (
            "svit-test",
            {"SVIT/data/test_image_ids.txt": "8\n22\n", "other/test_image_ids.txt": "5\n"},
            {"vg:8", "vg:22"},
        ),
        (
            "mia-bench-coco",
            {
                "instruction_benchmark_all.json": [
                    {"image": COCO_PATH.format("val2017", 9)},
                    {"image": "https://example.org/a.jpg"},
                ]
            },
            coco(9),
        ),
    ],
)
def test_made_files(put, tmp_path, name, files, expected):
    paths = {put(path, value) for path, value in files.items()}
    [found] = find_blocklists([name], tmp_path / "data")
    assert (found.images, found.size) == (expected, len(expected))
    assert set(found.files) <= paths


def test_every_name_has_a_file_of_its_own():
    # the two Karpathy splits share one
    assert (
        len({(benchmark.files, benchmark.within) for benchmark in KNOWN_BLOCKLISTS.values()})
        == len(KNOWN_BLOCKLISTS) - 1
    )
    assert all("*" not in pattern[:5] for benchmark in KNOWN_BLOCKLISTS.values() for pattern in benchmark.files)


def test_absent_is_not_empty(put, tmp_path):
    put("annotations/instances_val2017.json", {"images": [{"id": 9}]})
    pope, val = find_blocklists(["pope", "val2017"], tmp_path / "data")
    assert (pope.name, pope.images, pope.files) == ("pope", None, ()) and val.images == {"coco:9"}


def test_both_names_of_a_picture(put, tmp_path):
    put(
        "visual_genome/image_data.json",
        [{"image_id": 61512, "coco_id": 248774}, {"image_id": 2, "coco_id": 9}, {"image_id": 3, "coco_id": None}],
    )
    put("svit/test_image_ids.txt", "61512\n3\n")
    put("annotations/instances_val2017.json", {"images": [{"id": 9}, {"id": 42}]})
    svit, val = find_blocklists(["svit-test", "val2017"], tmp_path / "data")
    assert (svit.images, svit.size) == ({"vg:61512", "coco:248774", "vg:3"}, 2)
    assert (val.images, val.size) == ({"coco:9", "vg:2", "coco:42"}, 2)


class Boom:
    def __reduce__(self):
        import os

        return os.system, ("touch boom",)


@pytest.mark.parametrize(
    "name, path, value, says",
    [
        (
            "val2017",
            "instances_val2017.json",
            {"images": [{"id": 9, "coco_url": COCO_PATH.format("train2017", 9)}]},
            "image 9 lies at .*train2017",
        ),
        ("val2017", "captions_val2017.json", {"questions": []}, "lacks 'images'"),
        ("val2017", "captions_val2017.json", {"images": []}, "names no image that val2017 holds"),
        ("val2017", "captions_val2017.json", '{"images": [{"id": 9}, {"id":', "ends in the middle of record 2"),
        ("karpathy-test", "dataset_coco.json", {"images": [{"id": 9}]}, "a record lacks"),
        (
            "karpathy-test",
            "dataset_coco.json",
            {"images": [{"cocoid": 9, "split": "train"}]},
            "names no image that karpathy-test holds",
        ),
        ("pope", "coco_pope_random.json", '{"image": "a.jpg"}\n{"image": "b.jpg"}\n', "names no image of COCO"),
        ("refcoco-eval", "refcoco/refs(unc).p", pickle.dumps([Boom()]), "asks for posix.system"),
        (
            "refcoco-eval",
            "refcoco/refs(unc).p",
            pickle.dumps({"image_id": 9}, 2),
            "is not a file of referring expressions",
        ),
        ("refcoco-eval", "refcoco/refs(unc).p", refs((2, "val"))[:-9], "cannot be read"),
        ("vqav2-val", "v2_OpenEnded_mscoco_val2014_questions.json", {"annotations": []}, "lacks 'questions'"),
        (
            "okvqa-test",
            "okvqa/OpenEnded_mscoco_val2014_questions.json",
            {"questions": [{"image_id": 9, "question_id": 91}]},
            "is none of OK-VQA's",
        ),
        ("gqa-val", "val_balanced_questions.json", {"info": {"version": 2}}, "a record lacks 'imageId'"),
        ("gqa-val", "val_balanced_questions.json", [{"image": "n161313.jpg"}], "is not a file of gqa-val"),
        ("aokvqa-val", "aokvqa_v1p0_val.json", {"images": []}, "an object"),
        ("svit-test", "svit/test_image_ids.txt", "<html>", "is not a file of svit-test"),
    ],
)
def test_files_of_another_kind(put, tmp_path, monkeypatch, name, path, value, says):
    monkeypatch.chdir(tmp_path)
    put(path, value)
    with pytest.raises(UserError, match=says) as caught:
        find_blocklists([name], tmp_path / "data")
    assert path in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("poep", ".", "poep: is no benchmark .*pope.* and no file"),
        ("pope", "nowhere", "nowhere: no such folder of data"),
        ("mine.csv", ".", "mine.csv: .*read from .json"),
    ],
)
def test_wrong_names(tmp_path, monkeypatch, name, data, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("image\n")
    with pytest.raises(UserError, match=says):
        find_blocklists([name], data)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("bench/pope/coco_pope_random_e3e3926.json", 500),
        ("bench/pope/llava_questions_random.jsonl", 500),
        ("bench/multi-turn/mia_bench_coco80.json", 80),
        ("bench/llava-bench-coco/coco2014_val_gpt4_qa_30x3.jsonl", 30),
        ("bench/llava-bench-coco/qa90_questions.jsonl", 30),
        ("bench/chair/captions_Instruction2_llava_0_500.jsonl", 500),
        ("sources/lvis/lvis_val_100.json", 60),
        ("sources/lrv/evaluation_set.json", 115),
        ("sources/visual_cot/benchmark/visual7w.json", 210),
        ("sources/svit/test_image_ids.txt", 10_808),
        ("sources/gqa/val_balanced_questions.json", 133),
    ],
)
def test_real_files_by_path(shared, path, expected):
    images = images_in(shared / "data" / path)
    assert len(images) == expected
    assert {image.partition(":")[0] for image in images} == {
        "vg" if any(part in path for part in ("lrv", "visual7w", "svit", "gqa")) else "coco"
    }


def test_real_files_by_name(shared, tmp_path):
    for part in ("bench", "sources", "coco-mini"):  # others hold further files under official names
        (tmp_path / part).symlink_to(shared / "data" / part)
    found = {c.name: c for c in find_blocklists(list(KNOWN_BLOCKLISTS), tmp_path)}
    sizes = {name: c.size for name, c in found.items() if c.images is not None}
    assert sizes == {
        "val2017": 57,
        "pope": 500,
        "llava-bench-coco": 37,
        "refcoco-eval": 6,
        "okvqa-test": 200,
        "gqa-val": 133,
        "aokvqa-val": 200,
        "svit-test": 10_808,
        "mia-bench-coco": 80,
    }
    assert found["llava-bench-coco"].images >= images_in(shared / "data/bench/llava-bench-coco/qa90_questions.jsonl")
