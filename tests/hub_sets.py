"Local copies of public sets in their makers' layouts: real photographs and records where there are, else their schema."

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TURNS = [
    ("What is in the picture? Answer the question using a single word or phrase.", "Bus"),
    ("What is it doing?", "Parked"),
    ("Why might it be there?", "It waits for people who go to work in the morning."),
]


def photographs(shared: Path, many: int = 6) -> list[dict]:
    "As `datasets` stores pictures."
    files = sorted((shared / "data/coco-mini/images").rglob("*.jpg"))[:many]
    return [{"bytes": file.read_bytes(), "path": None} for file in files]


def card(folder: Path, licence: str, configs: dict[str, str]) -> None:
    lines = ["---", f"license: {licence}", *(["configs:"] if configs else [])]
    for name, files in configs.items():
        lines += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {json.dumps(files)}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def llava(text: str, turns=TURNS, human: str = "human", mark: str = "<image>") -> list[dict]:
    said = [(f"{mark}\n{asked}" if k == 0 else asked, answer) for k, (asked, answer) in enumerate(turns)]
    return [
        {"from": who, "value": value}
        for pair in said
        for who, value in zip((human, "gpt" if human == "human" else "assistant"), pair)
    ]


def write_sets(root: Path, shared: Path) -> dict[str, str]:
    "Repositories below ROOT/datasets, and what `cocoift audit` is to be told of each."
    home, pictures = root / "datasets", photographs(shared)
    pairs = [{"user": asked, "assistant": answer, "source": "AI2D"} for asked, answer in TURNS]

    mix = home / "liuhaotian/LLaVA-Instruct-150K"
    card(mix, "cc-by-nc-4.0", {})
    records = shared / "data/sources/llava/documented_examples_llava_v1_5_mix665k.json"
    (mix / "llava_v1_5_mix665k.json").write_bytes(records.read_bytes())

    share = home / "Lin-Chen/ShareGPT4V"
    named = "sharegpt4v_instruct_gpt4-vision_cap100k.json"
    card(share, "cc-by-nc-4.0", {"ShareGPT4V": named, "ShareGPT4V-PT": "share-captioner_coco_lcs_sam_1246k_1107.json"})
    for name, folder in ((named, "coco/train2017"), ("share-captioner_coco_lcs_sam_1246k_1107.json", "sam/images")):
        one = [("What do you see?", "A long street with a bus.")]
        rows = [{"id": f"{k:012d}", "image": f"{folder}/{k:012d}.jpg"} for k in range(1, 5)]
        (share / name).write_text(json.dumps([row | {"conversations": llava("", one)} for row in rows]))

    cauldron = home / "HuggingFaceM4/the_cauldron"
    card(cauldron, "cc-by-4.0", {name: f"{name}/train-*" for name in ("ai2d", "vqav2")})
    for place, name in enumerate(("ai2d", "vqav2")):
        rows = [{"images": [p], "texts": pairs} for p in pictures[place : place + 4]]
        table(cauldron / name / "train-00000-of-00001-2ce340398c113b79.parquet", rows)

    fine = home / "HuggingFaceM4/FineVision"
    card(fine, "cc-by-4.0", {"ai2d_merged": "ai2d_merged/train-*"})
    texts = [{"user": asked, "assistant": answer} for asked, answer in TURNS]
    rated = {"source": "ai2d_merged", "relevance_ratings": [5, 4, 5], "relevance_min": 4}
    rows = [{"images": [p], "texts": texts, **rated} for p in pictures]
    table(fine / "ai2d_merged/train-00000-of-00001.parquet", rows)

    onevision = home / "lmms-lab/LLaVA-OneVision-Data"
    card(onevision, "apache-2.0", {"ai2d(cauldron,llava_format)": "ai2d(cauldron,llava_format)/train-*"})
    rows = [
        {"id": f"{k}", "image": p, "conversations": llava(""), "data_source": "ai2d"} for k, p in enumerate(pictures)
    ]
    table(onevision / "ai2d(cauldron,llava_format)/train-00000-of-00001.parquet", rows)

    mmdu = home / "laolao77/MMDU"
    card(mmdu, "cc-by-nc-4.0", {})
    several = [{"id": f"a{k}", "image": [f"/mmdu_pics/{k}_{i}.jpg" for i in range(2)]} for k in range(4)]
    said = llava("", human="user", mark="<ImageHere><ImageHere>")
    (mmdu / "mmdu-45k.json").write_text(json.dumps([row | {"conversations": said} for row in several]))

    gated = home / "someone/gated"
    card(gated, "other", {})
    (gated / ".gated").touch()
    return {
        "LLaVA-mix-665k": "hf://liuhaotian/LLaVA-Instruct-150K/llava_v1_5_mix665k.json",
        "ShareGPT4V": f"hf://Lin-Chen/ShareGPT4V/{named}",
        "The Cauldron": "hf://HuggingFaceM4/the_cauldron",
        "FineVision": "hf://HuggingFaceM4/FineVision/ai2d_merged",
        "LLaVA-OneVision": "hf://datasets/lmms-lab/LLaVA-OneVision-Data",
        "MMDU": "hf://laolao77/MMDU/mmdu-45k.json",
    }
