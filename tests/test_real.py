"Official files and real photographs, through the command line."

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

FATES = ("kept", "duplicates", "excluded", "rejected", "capped")


NAMES = """
    coco-captions coco-instances coco-keypoints coco-panoptic coco-stuff vqav2 cocoqa okvqa okvqa-s3 aokvqa vqa-e
    vqa-x fsvqa tallyqa howmanyqa tdiuc vsr stvqa fmiqa refcoco refcoco+ refcocog visdial photobook vg-qa vg-regions
    vg-attributes vg-relations gqa cgqa rvqa pointqa paragraphs visual7w madlibs lrv svit llava-instruct
    llava-pretrain llava-mix665k sharegpt4v lvis lvis-instruct4v
""".split()


def told(typed, *args) -> dict:
    "What a command prints with --json."
    done = typed(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def built(typed, shared, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    "The same records in both layouts: their folders and counts."
    folder = tmp_path_factory.mktemp("real")
    return {
        layout: (
            folder / layout,
            told(
                typed,
                "build",
                "coco-ift-plus",
                f"layout={layout}",
                "--data",
                shared / "data/sources",
                "--out",
                folder / layout,
            ),
        )
        for layout in ("every-mixed", "first-uniform")
    }


def test_sources(typed):
    rows = {row["name"]: row for row in told(typed, "sources")}
    own = ["coco-format", "self"]  # a folder of one's own and a model's own answers are no data sets with a name
    assert sorted(rows) == sorted([*NAMES, *own])
    assert all(
        row["files"] and row["licence"] and row["url"] and row["family"] and set(row["needs"]) <= set(NAMES)
        for row in rows.values()
    )


def test_at_least_twenty_sources_have_rounds(built):
    for _, counts in built.values():
        assert len([name for name, row in counts["by_source"].items() if row["rounds"]]) >= 20
        assert set(counts["by_source"]) == set(NAMES)


def read(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "conversations")


def rounds_of(folder: Path) -> list[dict]:
    return [
        r | {"image": image} for image, rounds in zip(read(folder).images.str[0], read(folder).rounds) for r in rounds
    ]


@pytest.mark.parametrize("layout", ["every-mixed", "first-uniform"])
def test_build(built, layout):
    folder, counts = built[layout]
    assert counts["rounds"] > 1500 and counts["images"] > 500
    for name, row in counts["by_source"].items():
        assert row["read"] == sum(row[fate] for fate in FATES), name
    assert {name for name, row in counts["by_source"].items() if row["rounds"]} >= {
        "coco-captions",
        "coco-instances",
        "vqav2",
        "okvqa",
        "cocoqa",
        "vsr",
        "vqa-x",
    }
    assert counts["by_source"]["aokvqa"]["read"] > 0  # the sample has val and test only: all are left out
    for fate in ("rejected", "duplicates", "excluded"):
        assert counts[fate] == sum(row[fate] for row in counts["by_source"].values())
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == counts["rejected"] > 0
    assert all(reject["source"] and reject["record"] and reject["reason"] for reject in rejects)
    rounds = rounds_of(folder)
    assert Counter(r["origin"]["source"] for r in rounds) == Counter(
        {name: row["rounds"] for name, row in counts["by_source"].items() if row["rounds"]}
    )
    assert (len(read(folder)), len(rounds), len({image for images in read(folder).images for image in images})) == (
        counts["conversations"],
        counts["rounds"],
        counts["images"],
    )


def test_the_same_records(built):
    by_layout = [
        Counter((r["image"], r["origin"]["source"], r["origin"]["record"], r["response"]) for r in rounds_of(folder))
        for folder, _ in built.values()
    ]
    assert by_layout[0] == by_layout[1]


def test_sources_are_mixed(built):
    folder, _ = built["every-mixed"]
    assert sum(len({r["origin"]["source"] for r in rounds}) >= 3 for rounds in read(folder).rounds) > 50


def test_nothing_of_val2017(built, shared):
    val = json.loads((shared / "data/sources/coco/annotations/captions_val2017.json").read_text())["images"]
    for folder, _ in built.values():
        assert not {f"coco:{image['id']}" for image in val} & set(read(folder).images.str[0])


def test_audit(typed, built, shared):
    carried = {layout: told(typed, "audit", folder)["carry_over"] for layout, (folder, _) in built.items()}
    # VisDial, two fifths of the rounds, mixes terse and full answers in every layout
    assert abs(carried["every-mixed"]["value"]) <= 0.2 and carried["first-uniform"]["value"] >= 0.7
    assert carried["every-mixed"]["high"] < carried["first-uniform"]["low"]
    quoted = told(typed, "audit", shared / "data/sources/llava/documented_examples_llava_v1_5_mix665k.json")
    assert quoted["conversations"] == 9 and quoted["carry_over"]["value"] > 0.5


@pytest.mark.parametrize("to, name", [("llava", "x.json"), ("messages", "x.parquet")])
def test_export(typed, built, tmp_path, to, name):
    for layout, (folder, counts) in built.items():
        assert (
            told(typed, "export", folder, "--to", to, "--out", tmp_path / name)["conversations"]
            == counts["conversations"]
        )
        before, after = told(typed, "audit", folder), told(typed, "audit", tmp_path / name)
        assert {key: after[key] for key in ("conversations", "rounds", "carry_over", "formats")} == {
            key: before[key] for key in ("conversations", "rounds", "carry_over", "formats")
        }, layout


def test_duckdb(built):
    import duckdb

    folder, counts = built["every-mixed"]
    [(conversations, rounds)] = duckdb.sql(
        f"select count(*), sum(len(rounds)) from '{folder}/conversations/*.parquet'"
    ).fetchall()
    assert (conversations, rounds) == (counts["conversations"], counts["rounds"])


@pytest.mark.slow
def test_photographs(typed, forked, shared, tmp_path):
    """Twelve and seven real pictures: built, trained on by `cocoift train tiny` on one rank and, at 336 pixels, by two
    ranks, examined, reported."""
    from transformers import LlavaConfig

    from cocoift.conversation import read_conversations
    from cocoift.train.model import assemble, save_llava, tiny_parts

    mini = shared / "data/coco-mini"
    both = {"splits": ["train", "val"]}
    (tmp_path / "mini.yaml").write_text(
        yaml.safe_dump({"name": "mini", "sources": {"coco-captions": both, "coco-instances": both}, "clean": []})
    )
    data, run, exam = (tmp_path / kind / "mini" for kind in ("data", "train", "eval"))
    counts = told(typed, "build", tmp_path / "mini.yaml", "--data", mini, "--out", data)
    assert counts["images"] == len(list((mini / "images").rglob("*.jpg")))

    texts = [r.instruction + " " + r.response for c in read_conversations(data) for r in c.rounds]
    start = save_llava(
        *assemble(*tiny_parts(tmp_path / "parts", texts, image_size=336, patch=14, width=32)), tmp_path / "start"
    )
    assert LlavaConfig.from_pretrained(start).image_seq_length == 576
    # a tiny model is drawn for these texts
    alone = told(
        typed,
        "train",
        "tiny",
        f"data={data}",
        f"images={mini / 'images'}",
        "steps=2",
        "batch=8",
        "ranks=1",
        f"out={run}",
    )
    job = json.loads((run / "job.json").read_text()) | {
        "model": str(start),
        "out": str(tmp_path / "large"),
        "micro_batch": 4,
        "ranks": 2,
    }
    done = forked(job)
    assert done["codes"] == [0, 0], done
    trained = json.loads((tmp_path / "large/train.json").read_text())
    for one in alone, trained:
        assert (
            one["steps"] == 2
            and one["kept"] == counts["conversations"]
            and not one["cut"] + one["dropped"]
            and one["images"] == counts["images"]
        )
    # an image's 576 tokens are read once for all of its conversations
    assert trained["tree_ratio"] > 2 and trained["loss"] > 0

    scored = told(
        typed,
        "eval",
        "--model",
        tmp_path / "large/model",
        "--data",
        mini,
        "--per-image",
        4,
        "--history",
        "none",
        "--history",
        "forced_short:1",
        "--out",
        exam,
    )
    assert scored["items"] > 10 and scored["coverage"] == 1 and set(scored["histories"]) == {"none", "forced_short"}
    assert scored["leakage"]["value"] is None  # neutral was not run

    page = Path(
        told(typed, "report", data, run, exam, "--out", tmp_path / "report.html", "--images", mini / "images")["report"]
    ).read_text()
    assert "Plotly.newPlot" in page and "data:image/" in page
    assert "default-src 'none'" in page and not loaded(page)


def loaded(page: str) -> list[str]:
    "What a browser would fetch for a page, other than what the page itself holds."
    found = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            named = dict(attributes)
            found.extend(named[key] for key in ("src", "srcset", "poster", "data") if named.get(key))
            found.extend([named["href"]] if tag in ("link", "base", "image", "use") and named.get("href") else [])

    Tags().feed(page)
    found += re.findall(
        r"@import[^;]*|url\(\s*[\"']?https?:[^)]*", re.sub(r"<script.*?</script>", "", page, flags=re.S)
    )
    return [place for place in found if not place.startswith(("data:", "#"))]
