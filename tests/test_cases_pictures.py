"""Pictures: who they are, where they lie, what is shown and what they are called, on the owner's cases and on inputs of
the same kind."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cocoift.files import UserError, digest, with_parent
from cocoift.images import find_pictures, image_of
from cocoift.pictures import embed, open_picture, picture_size


@pytest.fixture(scope="session")
def cases(shared) -> Path:
    return shared / "data/cases"


def paint(path: Path, colour=(200, 90, 40), size=(64, 48), mode="RGB", **how) -> Path:
    Image.new(mode, size, colour).save(with_parent(path), **how)
    return path


def shown(path: Path) -> list[dict]:
    "The pictures of a messages file, one a row."
    return [images[0] for images in pq.read_table(path)["images"].to_pylist()]


def built(typed, recipe: Path | str, data: Path, out: Path) -> Path:
    done = typed("build", recipe, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


# Case 04: names


@pytest.mark.parametrize("name", ["back.json", "drive.json", "query.json"])
def test_names_of_the_cases_are_understood(cases, name):
    rows = json.loads((cases / "04-windows-paths" / name).read_text())
    assert {image_of(row["image"]) for row in rows} == {f"coco:{number}" for number in (100, 101, 102, 103)}


@pytest.mark.parametrize(
    "name",
    [
        r"\\server\share\coco\val2017\000000000009.jpg",
        " coco/val2017/000000000009.jpg ",
        "file:///data/coco/000000000009.jpg",
        "file://C:/coco/000000000009.jpg",
        "data%5Ccoco%5C000000000009.jpg",
        "gs://bucket/000000000009.jpg?alt=media",
        "https://x.example/a%2Fb/COCO_val2014_000000000009.jpg?X-Amz-Signature=00#frag",
        "/data/local-files/?d=coco%5Cval2017%5C000000000009.jpg",
        "https://x.example/proxy?w=640&url=http%3A%2F%2Fimages.cocodataset.org%2Fval2017%2F000000000009.jpg%3Fv%3D1",
        "COCO_VAL2014_000000000009.JPG",
        "/data/upload/3/0a1b2c3d-COCO_val2014_000000000009.jpg",
        "000000000009_jpg.rf.2bQ7cT0yHk3m.jpg",
        "valid/COCO_val2014_000000000009_jpg.rf.0f1e2d3c.png",
    ],
)
def test_other_names_of_one_photograph(name):
    assert image_of(name) == "coco:9"


@pytest.mark.parametrize(
    "name",
    [
        "202401011230.jpg",
        "000000000009",
        "x000000000009.jpg",
        "dog-000000000009.jpg",
        "12345678-9.jpg",
        "frame_000000000009.jpg",
        "999999999999.jpg",
        "https://x.example/000000000009.jpg/view",
        "https://x.example/a.jpg?id=000000000009.jpg",
        "VG_100K/x.jpg",
        "images/2408.jpg",
    ],
)
def test_names_that_tell_nothing(name):
    assert image_of(name) is None


# Case 05: masks


def test_masks_are_no_photographs(cases, typed, tmp_path):
    case = cases / "05-segment-masks-as-photographs"
    made = built(typed, case / "val.yaml", case / "coco", tmp_path / "set")
    assert (
        typed("export", made, "--to", "messages", "--images", case / "coco", "--out", tmp_path / "x.parquet").returncode
        == 0
    )
    photographs = {path.read_bytes() for path in (case / "coco/val2017").iterdir()}
    assert {image["bytes"] for image in shown(tmp_path / "x.parquet")} == photographs
    assert {image["path"].partition("/")[0] for image in shown(tmp_path / "x.parquet")} == {"val2017"}
    typed("export", made, "--to", "llava", "--out", tmp_path / "x.json")
    assert {Path(row["image"]).parent.as_posix() for row in json.loads((tmp_path / "x.json").read_text())} == {
        "coco/val2017"
    }


@pytest.mark.parametrize(
    "folder, name, mode",
    [
        ("annotations/panoptic_train2017", "000000000009.png", "RGB"),
        ("stuffthingmaps/train2017", "000000000009.png", "L"),
        ("a/stuff_train2017_pixelmaps", "000000000009.png", "P"),
        ("VOC/SegmentationClass", "000000000009.png", "P"),
        ("annotations/training", "000000000009.png", "L"),
        ("a_masks", "000000000009.jpg", "L"),
        ("any", "000000000009.png", "RGB"),
        ("a/labels/train2017", "000000000009.png", "L"),
    ],
)
def test_masks_of_every_kind(tmp_path, folder, name, mode):
    paint(tmp_path / folder / name, 3 if mode != "RGB" else (3, 0, 0), mode=mode)
    photograph = paint(tmp_path / "train2017/000000000009.jpg")
    assert find_pictures(tmp_path)["coco:9"] == photograph


@pytest.mark.parametrize(
    "name", ["annotations/images/x.png", "annotations/x.jpg", "masks/x.png", "my_annotations/x.png", "panoptic/x.png"]
)
def test_photographs_in_doubtful_folders(tmp_path, name):
    assert (
        find_pictures(tmp_path / paint(tmp_path / name).relative_to(tmp_path).parts[0]).at("x" + name[-4:])
        == find_pictures(tmp_path).at(name)
        == tmp_path / name
    )


def test_a_mask_alone_is_no_photograph(tmp_path):
    paint(tmp_path / "panoptic_val2017/000000000009.png")
    with pytest.raises(UserError, match="holds no pictures"):
        find_pictures(tmp_path)


# Two files that could be one picture


def test_copies_of_one_photograph(tmp_path):
    first = paint(tmp_path / "train2017/000000000009.jpg")
    shutil.copy(first, with_parent(tmp_path / "train2014/COCO_train2014_000000000009.jpg"))
    shutil.copy(first, with_parent(tmp_path / "mine/000000000009.jpg"))
    one = paint(tmp_path / "vg/VG_100K/7.jpg")
    paint(tmp_path / "gqa/images/7.jpg", (0, 0, 0))  # GQA's release of the same photograph
    album = find_pictures(tmp_path)
    assert (album["coco:9"], album["vg:7"]) == (first, one)


@pytest.mark.parametrize(
    "other",
    [
        "mine/000000000009.jpg",
        "small/train2017/000000000009.jpg",
        "robo/000000000009_jpg.rf.0f1e2d3c.jpg",
        "a1b2c3d4-000000000009.jpg",
    ],
)
def test_a_doubt_is_an_error_that_names_both(tmp_path, other):
    first, second = paint(tmp_path / "train2017/000000000009.jpg"), paint(tmp_path / other, size=(32, 24))
    paint(tmp_path / "train2017/000000000010.jpg")
    album = find_pictures(tmp_path)
    with pytest.raises(UserError) as told:
        album["coco:9"]
    assert str(first) in str(told.value) and str(second) in str(told.value)
    assert album["coco:10"].name == "000000000010.jpg"  # of which there is no doubt


# Cases 21 and 27: links, spellings


def test_linked_folders(cases, typed, tmp_path):
    case = cases / "21-linked-picture-folders"
    made = built(typed, case / "val.yaml", case / "coco", tmp_path / "set")
    linked = tmp_path / "playground/coco/val2017"
    with_parent(linked).symlink_to((case / "disk2/val2017").resolve())
    (linked.parent / "back").symlink_to(tmp_path / "playground")  # a circle
    paint(linked.parent / "._000000000009.jpg")
    with_parent(tmp_path / "playground/other/000000000009.jpg").symlink_to(
        (case / "playground/other/000000000009.jpg").resolve()
    )
    done = typed(
        "export",
        made,
        "--to",
        "messages",
        "--images",
        tmp_path / "playground",
        "--out",
        tmp_path / "x.parquet",
        "--json",
    )
    assert (done.returncode, json.loads(done.stdout)["conversations"]) == (0, 3), done.stderr


def test_a_link_of_another_name(tmp_path):
    "Visual Genome's numbers are known by their folder alone."
    paint(tmp_path / "disk/VG_100K/7.jpg")
    (tmp_path / "genome").symlink_to(tmp_path / "disk/VG_100K")
    (tmp_path / "play/vg").mkdir(parents=True)
    (tmp_path / "play/vg/all").symlink_to(tmp_path / "disk/VG_100K")
    assert find_pictures(tmp_path / "genome")["vg:7"] == tmp_path / "genome/7.jpg"
    assert find_pictures(tmp_path / "play")["vg:7"] == tmp_path / "play/vg/all/7.jpg"


@pytest.mark.parametrize(
    "lies, asked",
    [
        ("cafe\u0301-1.jpg", "caf\u00e9-1.jpg"),
        ("caf\u00e9-1.jpg", "cafe\u0301-1.jpg"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("Photos/x.jpg", "photos/X.JPG"),
        ("a/x.tiff", r"a\x.tiff"),
        ("a/my dog.jpg", "a/my%20dog.jpg"),
        ("a/100%25.jpg", "a/100%25.jpg"),
        ("a/x.tif", "./a/x.tif"),
        ("a/x.gif", "../a/x.gif"),
        ("a/b/x.jpg", "/home/alice/b/x.jpg"),
        ("a/b/x.jpg", "https://x.example/b/x.jpg?v=1"),
        ("a/b/x.jpg", r"C:\old\b\x.jpg"),
    ],
)
def test_spellings_of_one_path(tmp_path, lies, asked):
    path = paint(tmp_path / lies)
    paint(tmp_path / "elsewhere/other.jpg")
    assert find_pictures(tmp_path)[f"path:{asked}"] == path


def test_paths_that_nobody_has(tmp_path):
    paint(tmp_path / "a/x.jpg")
    album = find_pictures(tmp_path)
    for asked in ("b/x.jpg", "xx.jpg", "/home/alice/b/x.jpg", "a/x.png", "a", ""):
        assert f"path:{asked}" not in album


def test_exact_names_go_first_and_doubts_are_told(tmp_path):
    small, large = paint(tmp_path / "x.jpg"), paint(tmp_path / "X.JPG", (1, 2, 3))
    album = find_pictures(tmp_path)
    assert (album.at("x.jpg"), album.at("X.JPG")) == (small, large)
    with pytest.raises(UserError, match="two different files"):
        album.at("x.JPG")


# Case 06, and what comes of 16 and 27: an own set's pictures by their own names


@pytest.mark.parametrize("case", ["06-own-set-exported-without-names", "16-exif-orientation", "27-decomposed-names"])
def test_own_pictures_are_named(cases, typed, tmp_path, case):
    made = built(typed, cases / case / "mine.yaml", cases / case, tmp_path / "set")
    for folder, more in ((cases / case / "coco-format", []), (cases / case, ["--images", cases / case])):
        assert typed("export", made, "--to", "llava", *more, "--out", tmp_path / "x.json").returncode == 0
        names = {row["image"] for row in json.loads((tmp_path / "x.json").read_text())}
        assert names and all((folder / name).is_file() for name in names)


def test_pictures_without_names_are_refused(typed, tmp_path):
    from cocoift.conversation import conversation, write_parquet

    path = paint(tmp_path / "pictures/x.jpg")
    write_parquet(tmp_path / "set.parquet", [conversation(f"file:{digest(path)}", ("What is it?", "A field."), id="1")])
    for to, out in (("llava", "x.json"), ("messages", "x.parquet")):
        done = typed("export", tmp_path / "set.parquet", "--to", to, "--out", tmp_path / out)
        assert (
            done.returncode == 2
            and "1 of its images have no file name (file:" in done.stderr
            and "--images" in done.stderr
            and not (tmp_path / out).exists()
        )
    assert (
        typed(
            "export",
            tmp_path / "set.parquet",
            "--to",
            "llava",
            "--images",
            tmp_path / "pictures",
            "--out",
            tmp_path / "x.json",
        ).returncode
        == 0
    )
    assert json.loads((tmp_path / "x.json").read_text())[0]["image"] == "x.jpg"


# Cases 16 and 17: upright, eight bits


def test_upright_everywhere(cases, tmp_path):
    from cocoift.arena.session import take_picture
    from cocoift.models.endpoint.request import ImageParts
    from cocoift.train.plan import picture_sizes

    path = cases / "16-exif-orientation/coco-format/photo1.jpg"
    image_parts = ImageParts({"x": path})
    sent = image_parts.url(image_parts.part("x")["sha256"])
    from base64 import b64decode

    for address in (sent, embed(path, 440)[0], embed(path, 32)[0]):
        with Image.open(BytesIO(b64decode(address.partition(",")[2]))) as picture:
            assert picture.width < picture.height and picture.getexif().get(0x0112, 1) == 1
    with Image.open(take_picture(path, tmp_path)[1]) as taken:
        assert taken.size == (48, 64)
    assert (
        open_picture("x", {"x": path}).size
        == picture_size(path)
        == image_parts.size(image_parts.part("x")["sha256"])
        == (48, 64)
    )
    assert picture_sizes(tmp_path, {"x": path}) == {"x": (48, 64)}


@pytest.mark.parametrize("suffix, how", [(".jpg", {}), (".png", {}), (".webp", {"lossless": True}), (".tif", {})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, suffix, how, orientation):
    pixels = np.zeros((16, 32, 3), "uint8")
    pixels[:8, :16] = 255  # the stored picture's upper left is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"x{suffix}", exif=exif, **how)
    grey = np.asarray(open_picture("x", {"x": tmp_path / f"x{suffix}"}).convert("L"))
    assert (
        grey.shape == ((16, 32) if orientation < 5 else (32, 16))
        and picture_size(tmp_path / f"x{suffix}") == grey.shape[::-1]
    )
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert grey[corner] > 200 and grey.mean() < 100


def test_sixteen_bits(cases, tmp_path):
    from cocoift.arena.session import take_picture

    path = cases / "17-sixteen-bit-png/deep.png"
    with Image.open(take_picture(path, tmp_path)[1]) as taken:
        for picture in (open_picture("x", {"x": path}), taken):
            assert picture.mode == "RGB" and abs(np.asarray(picture).mean() - 127.5) < 0.1


@pytest.mark.parametrize(
    "kind, white",
    [("uint16", 65535), ("int32", 65535), ("int32", 255), ("float32", 1), ("float32", 255), ("float32", 65535)],
)
def test_other_depths(tmp_path, kind, white):
    ramp = np.linspace(0, white, 256).astype(kind)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "x.tif")
    assert abs(np.asarray(open_picture("x", {"x": tmp_path / "x.tif"})).mean() - 127.5) < 0.6


def test_exported_pictures_are_upright(cases, typed, tmp_path):
    from cocoift.conversation import conversation, write_parquet

    paths = [cases / "16-exif-orientation/coco-format/photo1.jpg", cases / "17-sixteen-bit-png/deep.png"]
    for path in paths:
        shutil.copy(path, tmp_path)
    write_parquet(
        tmp_path / "set.parquet",
        [conversation(f"file:{digest(path)}", ("What is left?", "An apple."), id=path.stem) for path in paths],
    )
    assert (
        typed(
            "export",
            tmp_path / "set.parquet",
            "--to",
            "messages",
            "--images",
            tmp_path,
            "--out",
            tmp_path / "x.parquet",
        ).returncode
        == 0
    )
    first, second = (Image.open(BytesIO(image["bytes"])) for image in shown(tmp_path / "x.parquet"))
    assert first.size == (48, 64) and not first.getexif().get(0x0112) and second.mode == "RGB"


# A bomb


def bomb(path: Path) -> Path:
    "A picture of 900 million pixels."
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    with_parent(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    return path


def test_a_bomb_is_one_line(tmp_path):
    large = bomb(tmp_path / "bomb.png")
    for opened in (lambda: embed(large, 440), lambda: open_picture("x", {"x": large}), lambda: picture_size(large)):
        with pytest.raises(UserError, match="bomb.png: the picture.* cannot be read .*: download it again"):
            opened()


# Pictures that are known by their paths: LLaVA's alignment file, OCR-VQA, TextVQA


@pytest.fixture(scope="module")
def alignment(typed, tmp_path_factory) -> Path:
    """LLaVA's 558k in its official layout, six records of it: data/, pictures/ and the set that `build pretrain-558k`
    made."""
    folder, rows = tmp_path_factory.mktemp("alignment"), []
    for number in range(6):
        name = f"00453/00453000{number}.jpg"
        paint(folder / "pictures/images" / name, (number * 40, 90, 30))
        rows.append(
            {
                "id": Path(name).stem,
                "image": name,
                "conversations": [
                    {"from": "human", "value": "Render a clear and concise summary of the photo.\n<image>"},
                    {"from": "gpt", "value": f"a field of colour {number}"},
                ],
            }
        )
    with_parent(folder / "data/llava/blip_laion_cc_sbu_558k.json").write_text(json.dumps(rows))
    built(typed, "pretrain-558k", folder / "data", folder / "set")
    return folder


def test_day_one(alignment, small, typed, tmp_path):
    def train(pictures: Path):
        return typed(
            "train",
            "llava15-pretrain",
            "--dry-run",
            "--json",
            f"model={small / 'start'}",
            f"data={alignment / 'set'}",
            f"images={pictures}",
            f"out={tmp_path / 'run'}",
            "precision=fp32",
            "batch=2",
        )

    done = train(alignment / "pictures")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["table"]["kept"], told["images"]) == (6, 6)
    done = train(small / "world/images")
    assert (
        done.returncode == 2
        and "6 of the dataset's images have no picture there (path:00453/004530000.jpg, ...)" in done.stderr
    )


def test_exported_by_path(alignment, typed, tmp_path):
    pictures, files = alignment / "pictures", ["own/x.json", "lying/x.json", "held/x.parquet"]
    for file, more in zip(files, ([], ["--images", pictures], ["--images", pictures])):
        to = "messages" if file.endswith("parquet") else "llava"
        done = typed("export", alignment / "set", "--to", to, *more, "--out", tmp_path / file)
        assert done.returncode == 0, done.stderr
        card = (tmp_path / file).with_name("README.md").read_text()
        assert ("(the pictures themselves)" in card) == (to == "messages")
    own, lying = ([row["image"] for row in json.loads((tmp_path / file).read_text())] for file in files[:2])
    assert own == [f"00453/00453000{k}.jpg" for k in range(6)] and lying == [f"images/{name}" for name in own]
    assert [image["bytes"] for image in shown(tmp_path / files[2])] == [
        (pictures / name).read_bytes() for name in lying
    ]


def test_verbatim_names_are_the_records_own(typed, tmp_path):
    names = [
        "coco/train2017/000000000009.jpg",
        "COCO_train2014_000000000025.jpg",
        "vg/VG_100K_2/7.jpg",
        "ocr_vqa/images/1451670761.jpg",
        "textvqa/train_images/0054c91397f2fe05.jpg",
    ]
    rows = [
        {
            "id": str(k),
            "image": name,
            "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A book."}],
        }
        for k, name in enumerate(names)
    ]
    with_parent(tmp_path / "data/llava/llava_v1_5_mix665k.json").write_text(json.dumps(rows))
    (tmp_path / "r.yaml").write_text("name: r\nsources: [llava-mix665k]\nlayout: verbatim\nclean: []\n")
    made = built(typed, tmp_path / "r.yaml", tmp_path / "data", tmp_path / "set")
    assert typed("export", made, "--to", "llava", "--out", tmp_path / "x.json").returncode == 0
    assert sorted(row["image"] for row in json.loads((tmp_path / "x.json").read_text())) == sorted(names)


def test_a_photograph_under_the_name_of_visual_genome(small, typed, tmp_path):
    "LLaVA's folders hold no COCO pictures but train2017; Visual Genome's list says that this one is COCO's."
    name, pictures = "vg/VG_100K_2/2408.jpg", tmp_path / "pictures"
    path = paint(pictures / name)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A field of grass."}]
    rows = [{"id": "1", "image": name, "conversations": turns}]
    with_parent(tmp_path / "data/llava/llava_v1_5_mix665k.json").write_text(json.dumps(rows))
    known = [{"image_id": 2408, "coco_id": 777, "width": 64, "height": 48}]
    with_parent(tmp_path / "data/visual_genome/image_data.json").write_text(json.dumps(known))
    (tmp_path / "r.yaml").write_text("name: r\nsources: [llava-mix665k]\nlayout: verbatim\nclean: []\n")
    made = built(typed, tmp_path / "r.yaml", tmp_path / "data", tmp_path / "set")
    for to, file in (("llava", "x.json"), ("messages", "x.parquet")):
        done = typed("export", made, "--to", to, "--images", pictures, "--out", tmp_path / file)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "x.json").read_text())[0]["image"] == name
    assert shown(tmp_path / "x.parquet") == [{"bytes": path.read_bytes(), "path": name}]
    options = (
        f"model={small / 'start'}",
        f"data={made}",
        f"images={pictures}",
        f"out={tmp_path / 'run'}",
        "precision=fp32",
    )
    done = typed("train", "llava15-pretrain", "--dry-run", "--json", *options, "batch=1")
    assert (done.returncode, json.loads(done.stdout)["table"]["kept"]) == (0, 1), done.stderr


def test_labelled_and_asked_by_path(alignment, small, typed, tmp_path):
    done = typed(
        "label",
        alignment / "set",
        "--images",
        alignment / "pictures",
        "--endpoint",
        "http://127.0.0.1:9/v1",
        "--model",
        "any",
        "--out",
        tmp_path / "set",
        "--dry-run",
        "--json",
    )
    assert (done.returncode, json.loads(done.stdout)["unseen"]) == (0, 0), done.stderr
    rows = [
        {
            "question_id": k,
            "image_id": f"0054c91397f2fe0{k}",
            "question": "what is written there?",
            "answers": ["book"] * 10,
        }
        for k in range(2)
    ]
    with_parent(tmp_path / "textvqa/TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}))
    paths = [
        paint(tmp_path / f"pictures/train_images/{row['image_id']}.jpg", (row["question_id"] * 50, 9, 9))
        for row in rows
    ]
    asked = (
        "eval",
        "--model",
        small / "start",
        "--bench",
        "textvqa",
        "--data",
        tmp_path / "textvqa",
        "--images",
        tmp_path / "pictures",
        "--history",
        "none",
        "--out",
    )
    done = typed(*asked, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    assert {line["image"] for line in lines} == {f"file:{digest(path)}" for path in paths}
    paths[1].unlink()
    done = typed(*asked, tmp_path / "other")
    assert (
        done.returncode == 2
        and f"1 of the benchmark's images have no picture there (textvqa:{rows[1]['image_id']}.jpg, ...)" in done.stderr
    )
    assert not (tmp_path / "other/rounds.jsonl").exists()


def test_pages_tell_of_pictures_that_cannot_be_shown(typed, tmp_path):
    from cocoift.conversation import conversation, write_parquet

    write_parquet(tmp_path / "set.parquet", [conversation("coco:9", ("Is it safe?", "Yes"), ("Why?", "Calm."), id="9")])
    paint(tmp_path / "twice/a/000000000009.jpg")
    paint(tmp_path / "twice/b/000000000009.jpg", size=(32, 24))
    bomb(tmp_path / "bomb/000000000009.png")
    for name, says in (
        ("twice", "coco:9: two different files could be its picture"),
        ("bomb", "000000000009.png: the picture cannot be read (Image size"),
    ):
        done = typed("audit", tmp_path / "set.parquet", "--images", tmp_path / name, "--html", tmp_path / "x.html")
        assert (
            done.returncode == 2
            and says in done.stderr
            and done.stderr.count("\n") == 1
            and not (tmp_path / "x.html").exists()
        )
