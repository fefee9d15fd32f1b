"""LLaMA-Factory's and ms-swift's own dataset code reads our exports: `make compat`.

Each gets an environment of its own in .compat, since their versions exclude each other and ours. What is read there is
compared with what was exported: every conversation, every turn, every image. See README.md beside this file for what
cannot run on this machine and why."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".compat"
sys.path.insert(0, str(HERE.parent))
os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="2")

from test_export import turns, unusual  # noqa: E402

from cocoift.conversation import conversation, read_conversations, write_parquet  # noqa: E402
from cocoift.data.build.export import export, picture_name  # noqa: E402
from cocoift.data.build.make import build  # noqa: E402
from cocoift.data.build.recipe import BuildRecipe  # noqa: E402
from cocoift.data.records import read_any  # noqa: E402
from cocoift.images import find_pictures  # noqa: E402
from cocoift.options import load_recipe  # noqa: E402
from cocoift.train.model import assemble, save_llava, tiny_parts  # noqa: E402
from cocoift.world import make_world  # noqa: E402

LOADERS = ("llamafactory", "ms-swift")


def environment(name: str) -> Path:
    """The Python of a loader's environment, made once for each content of its list of versions. Exact versions, no
    resolver: torchvision stays out."""
    folder, versions = WORK / name, HERE / f"{name}.txt"
    done = folder / "installed.txt"
    if not done.exists() or done.read_bytes() != versions.read_bytes():
        print(f"compat: installing {name} into {folder.relative_to(ROOT)} (some minutes, 2 GB)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [
                folder / "bin/pip",
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "-q",
                "--no-deps",
                "-r",
                versions,
            ],
            check=True,
        )
        shutil.copy(versions, done)
    return folder / "bin/python"


def sets(data: Path) -> dict[str, tuple[Path, Path | None]]:
    "Conversations to export, and where their pictures lie if there are any."
    make_world(data / "world", 60)
    build(load_recipe("world", BuildRecipe), data / "world", data / "set")
    world = list(read_conversations(data / "set"))
    images = sorted({image for c in world for image in c.images})
    write_parquet(data / "world.parquet", world)
    write_parquet(data / "mixed.parquet", [*unusual(images), *world, *unusual(images[2:])])
    write_parquet(
        data / "text.parquet",
        [
            conversation(None, ("What is a tree?", "A graph."), ("And a forest?", "Several."), id=str(k))
            for k in range(5)
        ],
    )
    found = {name: (data / f"{name}.parquet", data / "world/images") for name in ("world", "mixed", "text")}
    shared = (ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve() / "data"
    if shared.is_dir():
        both = {"splits": ["train", "val"]}
        build(
            BuildRecipe(name="photos", sources={"coco-captions": both, "coco-instances": both}, clean=[]),
            shared / "coco-mini",
            data / "photos",
        )
        build(load_recipe("coco-ift-plus", BuildRecipe), shared / "sources", data / "real")
        quotes = read_any(shared / "sources/llava/documented_examples_llava_v1_5_mix665k.json")
        write_parquet(data / "quotes.parquet", (replace(c, id=str(k)) for k, c in enumerate(quotes)))
        found |= {
            "photos": (data / "photos", shared / "coco-mini/images"),
            "real": (data / "real", None),
            "quotes": (data / "quotes.parquet", None),
        }
    return found


def prepare(data: Path) -> None:
    """Exports under `data`, what must come out of each, a folder of pictures, and a tiny LLaVA for the loaders that
    also tokenise."""
    shutil.rmtree(data, ignore_errors=True)
    for name, (dataset, pictures) in sets(data).items():
        folder = data / "exports" / name
        left_out = set(export(dataset, "llava", folder / "llava.json")["left_out"])
        export(dataset, "messages", folder / "names.parquet")
        if pictures:
            export(dataset, "messages", folder / "pictures.parquet", pictures)
            for image, path in find_pictures(pictures).items():
                named = data / "pictures" / name / picture_name(image)
                named.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, named)
        expected = turns(c for c in read_conversations(dataset) if c.id not in left_out)
        (folder / "expected.json").write_text(json.dumps({"pictured": pictures is not None, "conversations": expected}))
    texts = [text for _, _, some in turns(read_conversations(data / "mixed.parquet")) for text in some]
    save_llava(*assemble(*tiny_parts(data / "parts", texts, width=32)), data / "start")


def main() -> int:
    data, wrong = WORK / "data", 0
    pythons = {name: environment(name) for name in LOADERS}
    prepare(data)
    for name, python in pythons.items():
        report = data / f"{name}.json"
        cache = WORK / "cache" / name
        shutil.rmtree(cache, ignore_errors=True)
        done = subprocess.run(
            [python, HERE / f"check_{name.replace('-', '_')}.py", data, report],
            cwd=WORK,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"HF_HOME": str(cache), "MODELSCOPE_CACHE": str(cache), "PYTHONPATH": ""},
        )
        if done.returncode:
            print(done.stdout, f"compat: {name}: FAILED", sep="\n")
            wrong = 1
            continue
        told = json.loads(report.read_text())
        print(f"\n{name}: {', '.join(f'{package} {version}' for package, version in told['versions'].items())}")
        for note in told["notes"]:
            print(f"  note: {note}")
        for row in told["read"]:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return wrong


if __name__ == "__main__":
    sys.exit(main())
