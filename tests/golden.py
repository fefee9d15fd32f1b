"""What a user sees of every command, as documents in `tests/golden/`: `python tests/golden.py [NAME ...]` writes them.

All of it is made through `cocoift.cli.main.main` alone, so that modules may move and be renamed. A document is a
function marked with `@document`; it says which commands are typed and which files are looked at. A command that was
typed before is not run again. All run in one folder that holds `study/` (a `quickstart --tiny`), `shared/` and `bench/`
(the shared data) and what the commands write.

What is made equal, since it changes from run to run or from machine to machine:

- the folder's own path becomes `<tmp>`, the shared data's `<shared>`, the package's `<lab>`, a server's `<address>`;
- `seconds`, `ended`, `wall`, `peak_mb`, `mb_per_s`, `tokens_per_s` and other rates, `gb_there`, dates: `<changes>`;
- the version of the lab and the `versions` of libraries: `<version>`;
- floats keep 10 significant digits, since processors add in different orders;
- parquet files are compared by their rows, without the pictures in them; HTML by its headings, its visible text and the
  numbers of its plots; checkpoints by their tensors' names, types and shapes, and by their configurations;
- of what was said on stderr only lines that begin with `cocoift`: no progress, no library's words;
- loose documents (what was trained on this machine: `LOOSE`; what a server's address is part of, in `served`): sha256
  digests become `<sha256>`, large parts are cut to their first entry, numbers agree within the document's tolerance.

Long parts are folded: a list or a text that is too long for its place becomes its length, 16 digits of the sha256 of
its normalised text (keys in the order in which they were written) and its beginning; a dictionary becomes its keys,
each with its value where that is short, else with four digits of its digest. `sha256` is always that of the whole.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
SHARED = Path(os.environ.get("COCOIFT_SHARED") or HERE.parent.parent / "shared").resolve() / "data"
COCOIFT = (sys.executable, "-c", "from cocoift.cli.main import main; main()")
DOCUMENTS: dict[str, Callable] = {}
LOOSE = {  # document -> relative and absolute tolerance of its numbers
    "quickstart": (1e-3, 0.1),
    "training": (1e-3, 1e-6),
    "likelihood": (1e-3, 1e-3),
    "eval-checkpoint": (1e-3, 0.1),
}
SHORT, LEAST, MANY = 60, 110, 24  # characters of a part that stays, and of one that is folded; keys of a table
CHANGES = (
    r"seconds|ended|wall|wall_s|peak_mb|mb_per_s|(?:tokens|pictures)_per_s\w*|tflops|waiting|waited|gb_there|date|when"
)


# ---------------------------------------------------------------- normalised


def normal(text: str, paths: dict[str, str]) -> str:
    "A text without what changes from run to run."
    for path, name in sorted(paths.items(), key=lambda pair: -len(pair[0])):
        from_root = rf"(?:/|(?:\.\./)+){re.escape(path[1:])}(?![\w-])"  # or relative to a folder
        text = re.sub(from_root, lambda _: name, text)
    text = re.sub(rf'("(?:{CHANGES})": )(?:-?[\d.]+(?:e-?\d+)?|"[^"]*")', r'\1"<changes>"', text)
    text = re.sub(r'("cocoift": )"[\d.]+[^"]*"', r'\1"<version>"', text)
    text = re.sub(r'("versions": )\{[^}]*\}', r'\1"<version>"', text)
    text = re.sub(r"\b127\.0\.0\.1:\d+", "<address>", text)
    return re.sub(r"(?<![\w.])-?\d+\.\d{9,}(?:e[-+]?\d+)?(?!\w)", lambda found: f"{float(found[0]):.10g}", text)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def fold(value: Any, room: int, loose: bool = False) -> Any:
    "A value in about so many characters: its long parts by their digests."
    text = one_line(value)
    if len(text) <= room or not isinstance(value, (dict, list, str)):
        return value
    mark = {} if loose else {"sha256": sha(text)}
    if isinstance(value, str):
        return f"<{len(value)} characters{'' if loose else ', ' + sha(text)}> {value[:48]}"
    if isinstance(value, list):
        return {"<items>": len(value), **mark, "first": fold(value[0], min(room, 300), loose)}
    long = {key: part for key, part in value.items() if len(one_line(part)) > SHORT}
    rest = room - sum(len(one_line({key: part})) for key, part in value.items() if key not in long)
    if len(value) > MANY or rest < LEAST * len(long):
        return {"<keys>": len(value), **mark, "parts": " ".join(brief(value, loose))}
    return {key: fold(part, rest // len(long), loose) if key in long else part for key, part in value.items()}


def brief(value: dict, loose: bool) -> list[str]:
    "Its keys, each with its value where that is short, else with four digits of its digest."
    texts = {key: one_line(part) for key, part in list(value.items())[:MANY]}
    if loose:
        return list(texts)
    return [f"{key}={text}" if len(text) < 8 else f"{key}#{sha(text)[:4]}" for key, text in texts.items()]


def without_digests(value: Any) -> Any:
    return json.loads(re.sub(r'"([0-9a-f]{12}|[0-9a-f]{64})"', '"<sha256>"', one_line(value)))


def shortened(value: Any) -> Any:
    "Digests by their first digits."
    return json.loads(re.sub(r'"([0-9a-f]{12})[0-9a-f]{52}"', r'"\1..."', one_line(value)))


def visible(page: str) -> str:
    "What a reader sees of an HTML page without its plots."
    page = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
    words = html.unescape(re.sub(r"(?s)<[^>]*>", "\n", page))
    return "\n".join(line.strip() for line in words.splitlines() if line.strip())


def page_of(page: str) -> dict:
    "An HTML page: its headings, its visible text, and what its plots are drawn from."
    heads = [visible(head) for _, head in re.findall(r"(?s)<h([1-6])\b[^>]*>(.*?)</h\1>", page)]
    plots = re.findall(r'(?s)<script type="application/json">(.*?)</script>', page)
    numbers = [one_line(unpacked(json.loads(plot))) for plot in plots]
    told = {"headings": " | ".join(heads)[:320], "text": f"<{len(visible(page))} characters, {sha(visible(page))}>"}
    return told | {"plots": len(plots), "plotted": sha(normal("".join(numbers), {}))}


def unpacked(value: Any) -> Any:
    "A figure with its arrays as numbers."
    import numpy as np

    if isinstance(value, dict) and "bdata" in value:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    if isinstance(value, dict):
        return {key: unpacked(part) for key, part in value.items()}
    return [unpacked(part) for part in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- typed


class Lab:
    "A folder in which commands are typed, each once."

    def __init__(self, home: Path, study: tuple[Path, dict] | None = None):
        self.home, self.loose, self.typed = home.resolve(), False, {}
        import cocoift

        lab = str(Path(cocoift.__file__).parent.parent)
        self.paths = {str(self.home): "<tmp>", str(SHARED): "<shared>", str(home): "<tmp>", lab: "<lab>"}
        (self.home / "shared").symlink_to(SHARED)
        (self.home / "bench").symlink_to(SHARED / "bench")
        if study is None:
            self.study = self.start()
        else:
            shutil.copytree(study[0], self.home / "study", symlinks=True)
            self.paths[str(study[0])] = "<tmp>/study"
            self.study = study[1]

    def start(self) -> dict:  # what the quickstart printed
        command = [*COCOIFT, "quickstart", "--tiny", "--json", "--out", self.home / "study"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, line: str) -> tuple[int, str, str]:
        "Exit code, what was printed, what was said."
        if line not in self.typed:
            with contextlib.chdir(self.home):
                self.typed[line] = type_in(shlex.split(line))
        return self.typed[line]

    def value(self, text: str, room: int) -> Any:
        "A text that was printed or written: parsed where it is JSON, and folded."
        text = normal(text, self.paths)
        try:
            whole = json.loads(text)
        except ValueError:
            lines = text.splitlines()
            return lines if len(text) <= room else fold(text, room, self.loose)
        if self.loose:
            return fold(without_digests(whole), room, True)
        folded, mark = fold(shortened(whole), room), {"sha256": sha(text.strip())}
        return (
            folded | mark
            if isinstance(folded, dict) and {"<keys>", "<items>"} & folded.keys()
            else {"json": folded} | mark
        )

    def __call__(self, line: str, *files: str, room: int = 450) -> dict:
        "A command as it is typed, and the files that it wrote: {command: {printed, files}}."
        code, printed, said = self.run(line)
        told: dict = {"code": code} if code else {}
        mine = [row for row in normal(said, self.paths).splitlines() if row.startswith("cocoift ")]
        assert code == 0 or mine, said
        if mine:
            told["said"] = mine
        if printed:
            told["printed"] = self.value(printed, room)
        if files:
            told["files"] = {name: self.file(name, room) for name in files}
            told["files"] |= {
                name: "as printed"
                for name, whole in told["files"].items()
                if isinstance(whole, dict) and "sha256" in whole and whole == told.get("printed")
            }
        return {line: told}

    def plain(self, line: str, room: int = 450) -> dict:
        "A command with --json, and what it prints without."
        told, lines = self(f"{line} --json", room=room), self(line, room=120)[line]
        return {line: told[f"{line} --json"] | {"text": lines.get("printed", lines)}}

    def refused(self, *lines: str) -> dict:
        "Commands that say one line and end with another code than 0."
        told = {line: self(line)[line] for line in lines}
        assert all(entry.get("code") for entry in told.values()), told
        return {line: fold(f"{entry['code']}: {' | '.join(entry['said'])}", 400) for line, entry in told.items()}

    def put(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)

    def file(self, name: str, room: int = 450) -> Any:
        path = self.home / name
        if not path.exists():
            return "<not there>"
        if path.is_dir():
            return self.folder(path)
        if path.suffix == ".parquet":
            return self.rows(path)
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if path.suffix == ".html":
            return page_of(normal(text, self.paths))
        if path.suffix == ".jsonl":
            return self.lines(text)
        return self.value(text, room)

    def lines(self, text: str) -> dict:
        text = normal(text, self.paths)
        rows = text.splitlines()
        if self.loose:
            return {
                "<lines>": len(rows),
                "first": fold(without_digests(json.loads(rows[0])), 300, True) if rows else None,
            }
        keys = {"keys": " ".join(json.loads(rows[0]))} if rows else {}
        return {"<lines>": len(rows), "sha256": sha(text), **keys}

    def rows(self, path: Path) -> dict:
        import pandas as pd

        rows = [plain(row) for row in pd.read_parquet(path).to_dict("records")]
        return {"<rows>": len(rows), "sha256": sha(normal(one_line(rows), self.paths)), "first": fold(rows[0], 300)}

    def folder(self, path: Path) -> list[str]:
        "The files below, digests of their names left out; a number stands for many of one kind."
        found = [
            re.sub(r"/[0-9a-f]{16}/", "/<digest>/", str(file.relative_to(path)))
            for file in path.rglob("*")
            if file.is_file()
        ]
        pictures = [name for name in found if name.endswith((".png", ".jpg"))]
        return sorted(set(found) - set(pictures)) + ([f"{len(pictures)} pictures"] if pictures else [])


def plain(value: Any) -> Any:
    "A cell of a table as JSON has it; a picture's bytes are none of its contents."
    if isinstance(value, dict):
        return "<picture>" if "bytes" in value else {key: plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return [plain(part) for part in value] if isinstance(value, list) else value


def type_in(words: list[str]) -> tuple[int, str, str]:
    "`cocoift` in this process: its exit code, what it printed, what it said."
    from cocoift.cli.main import main

    before = sys.argv, sys.stdout, sys.stderr, sys.__stdout__
    printed, said = io.StringIO(), io.StringIO()
    sys.argv, sys.stdout, sys.stderr, sys.__stdout__ = ["cocoift", *words], printed, said, printed
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.stdout, sys.stderr, sys.__stdout__ = before
    return code, printed.getvalue(), said.getvalue()


def document(make: Callable[[Lab], dict]) -> Callable[[Lab], dict]:
    DOCUMENTS[make.__name__.replace("_", "-")] = make
    return make


# ---------------------------------------------------------------- data


WORLD_SET = "build world --data study/world --out world-set --jobs 1 --json"
REAL = "build coco-ift-full --data shared/sources --out real-set --jobs 1 --json"
CAPTIONED = (
    "build world 'sources=[coco-captions, coco-instances, vqav2, fsvqa]' layout=first-mixed templates=diverse "
    "seed=3 --data study/world --out captioned-set --jobs 1 --json"
)
QUOTES = "shared/sources/llava/documented_examples_llava_v1_5_mix665k.json"


def dataset(name: str) -> list[str]:
    return [
        f"{name}/{file}"
        for file in (
            "manifest.json",
            "rejects.jsonl",
            "README.md",
            "conversations/part-00000.parquet",
            "records/part-00000.parquet",
        )
    ]


@document
def help(lab: Lab) -> dict:
    "Every command's options and arguments, by their names."
    # the order hangs on imports
    done = subprocess.run([*COCOIFT, "--help"], capture_output=True, text=True, check=True)
    commands = re.findall(r"(?m)^  (\w+)  +\S", done.stdout.partition("Commands:")[2])
    told: dict = {"cocoift": commands}
    for name in commands:
        text = lab.run(f"{name} --help")[1]
        head = " ".join(text.partition("\n\n")[0].split()).partition(f"cocoift {name} ")[2]
        told[name] = f"{head} " + " ".join(re.findall(r"(?m)^  ((?:-\w, )?--?[\w-]+(?: <[^>]+>)?)", text))
    return told


@document
def sources(lab: Lab) -> dict:
    rows = json.loads(lab.run("sources --json")[1])
    by_name = {row["name"]: f"{row['family']}, {len(row['files'])} files, {sha(one_line(row))[:16]}" for row in rows}
    return (
        lab.plain("sources", room=400) | {"sources by name": by_name, "keys": list(rows[0])} | lab.refused("sources x")
    )


@document
def fetch(lab: Lab) -> dict:
    return lab.plain("fetch vqav2 cocoqa stvqa --data fetched --dry-run", room=600) | lab.refused(
        "fetch", "fetch nothing --data fetched", "fetch vqav2 --data fetched --dry-run --mirror x"
    )


@document
def build(lab: Lab) -> dict:
    told = lab(WORLD_SET, *dataset("world-set"), room=700) | lab(CAPTIONED, *dataset("captioned-set"))
    told |= lab(REAL, *dataset("real-set"), room=1200)
    told |= lab("build world --data study/world --out world-text --jobs 1")
    for layout in ("independent", "first-uniform"):
        out = f"world-{layout}"
        jobs = 2 if layout == "independent" else 1
        told |= lab(
            f"build world layout={layout} --data study/world --out {out} --jobs {jobs} --json",
            f"{out}/conversations/part-00000.parquet",
            room=300,
        )
    told |= lab.plain("build coco-ift --data shared/sources --dry-run")
    return told | lab.refused(
        "build",
        "build nothing --data study/world --out x",
        "build world --data nowhere --out x",
        "build world layout=odd --data study/world --out x",
        "build world --data study/start --out x",
        "build world colour=red --data study/world --out x",
        "build world --data study/world --out study",
    )


@document
def audit(lab: Lab) -> dict:
    lab.run(WORLD_SET), lab.run(REAL)
    told = lab("audit world-set --html audit.html --images study/world --json", "audit.html", room=700)
    told |= lab("audit world-set") | lab.plain(f"audit {QUOTES}", room=600)
    told |= lab("audit real-set --against pope --against val2017 --data shared --json", room=600)
    told |= lab("audit study/data/first-uniform --gate 'carry_over<=0.1' --gate 'rounds>=1' --json", room=600)
    return told | lab.refused(
        "audit nowhere", "audit study/world", "audit world-set --gate carry_over", "audit world-set --against nothing"
    )


@document
def repair(lab: Lab) -> dict:
    told = lab(f"repair {QUOTES} repaired.json --json", "repaired.json") | lab(f"repair {QUOTES} again.json")
    lab.run("export study/data/first-uniform --to llava --out uniform/llava.json")
    told |= lab("repair uniform/llava.json interleaved.json --interleave --seed 1 --json", "interleaved.json")
    return told | lab.refused("repair nowhere.json x.json", f"repair {QUOTES}", "repair study/report.html x.json")


@document
def export(lab: Lab) -> dict:
    lab.run(WORLD_SET), lab.run(REAL)
    told = {}
    for name, options in (
        ("llava/x.json", "llava"),
        ("messages/x.parquet", "messages"),
        ("pictures/x.parquet", "messages --images study/world/images"),
    ):
        told |= lab(
            f"export world-set --to {options} --out exported/{name} --json",
            f"exported/{name}",
            f"exported/{name.partition('/')[0]}/README.md",
            room=400,
        )
    told |= lab("export real-set --to llava --out exported/real/x.json", "exported/real/x.json", room=400)
    told |= lab(
        "export world-set --to llava --images study/world/images --out exported/named/x.json",
        "exported/named/x.json",
        room=400,
    )
    return told | lab.refused(
        "export nowhere --to llava --out x.json",
        "export world-set --to parquet --out x.json",
        "export world-set --to messages --out x.txt",
        "export world-set --to llava",
    )


# ---------------------------------------------------------------- written by models, and trained


@document
def rewrite(lab: Lab) -> dict:
    lab.run(CAPTIONED)
    server = "--endpoint http://127.0.0.1:9/v1 --model scribe"
    told = lab.plain(f"rewrite captioned-set {server} --out new --recipe coco-ift-full --dry-run", room=1200)
    lab.put("price.yaml", "scribe: {input: 2.5, output: 10, image: 85, tile: 170}\n")
    told |= lab(f"rewrite captioned-set {server} --out new 'kinds={{sentence: 2}}' --price price.yaml --dry-run --json")
    return told | lab.refused(
        f"rewrite nowhere {server} --out new",
        "rewrite captioned-set --out new",
        f"rewrite captioned-set {server} --out new --budget 1",
        f"rewrite captioned-set {server} --out new --schema maybe",
        f"rewrite captioned-set {server} --out new --recipe tiny",
    )


@document
def label(lab: Lab) -> dict:
    lab.run(CAPTIONED)
    lab.put("price.yaml", "scribe: {input: 2.5, output: 10, image: 85, tile: 170}\n")
    server = "--endpoint http://127.0.0.1:9/v1 --model scribe"
    drawn = f"label captioned-set {server} --out new --images study/world/images"
    told = lab.plain(f"{drawn} --recipe coco-ift-full --price price.yaml --dry-run", room=1200)
    return told | lab.refused(
        f"label captioned-set {server} --out new",
        f"label captioned-set {server} --out new --images nowhere",
        f"{drawn} --longest 3",
    )


SEED = "study/train/every-mixed/seed-0"


@document
def quickstart(lab: Lab) -> dict:
    document = {key: value for key, value in lab.study.items() if key != "sight"}  # tests/test_quickstart.py
    told = {"study": lab.value(one_line(document), 4000), "report": lab.file("study/report.html", 300)}
    told["folders"] = {
        name: lab.folder(lab.home / "study" / name) for name in ("", "data/every-mixed", "eval/every-mixed")
    }
    told["folders"][""] = sorted({name.partition("/")[0] for name in told["folders"][""]})
    run = "study/eval/every-mixed/seed-0"
    for name in (
        "scores.json",
        "run.json",
        "rounds.jsonl",
        "pier.jsonl",
        "times.jsonl",
        "scope/scores.json",
        "scope/run.json",
        "scope/rounds.jsonl",
        "likelihood/scores.json",
        "likelihood/run.json",
        "likelihood/likelihoods.jsonl",
    ):
        told[name] = lab.file(f"{run}/{name}", 700)
    return told | lab.refused(
        "quickstart --tiny --full --out x",
        "quickstart --tiny --seed 1 --out study",
        "quickstart --tiny --out study/data/every-mixed",
    )


@document
def training(lab: Lab) -> dict:
    told = {name: lab.file(f"{SEED}/{name}", 1200) for name in ("train.json", "run.json", "job.json")}
    told["job.json"] = {option: value for option, value in told["job.json"].items() if value is not None}
    rows = [json.loads(row) for row in (lab.home / SEED / "metrics.jsonl").read_text().splitlines()]
    told |= {
        "metrics.jsonl": rows,
        "times.jsonl": lab.file(f"{SEED}/times.jsonl"),
        "folder": lab.folder(lab.home / SEED),
    }
    return told | {"model": checkpoint(lab, f"{SEED}/model")}


@document
def train(lab: Lab) -> dict:
    given = "model=study/start/seed-0 data=study/data/every-mixed images=study/world/images out=run"
    told = lab.plain(f"train tiny {given} --dry-run --gpu rtx4090", room=3000)
    told |= lab(f"train llava15-finetune-7b {given} ranks=8 --dry-run --gpu a100 --json", room=2000)
    told |= lab(f"train llava15-lora-7b {given} lora_r=8 ranks=2 --dry-run --gpu h200 --mfu 0.3 --json", room=500)
    return told | lab.refused(
        "train",
        "train nothing",
        "train tiny colour=red",
        f"train tiny {given} --gpu a100",
        f"train tiny {given} --dry-run --gpu abacus",
        "train llava15-pretrain --dry-run",
        f"train tiny {given} lr=fast",
        f"train tiny {given.replace('start/seed-0', 'parts/seed-0/language')} --dry-run",
    )


@document
def likelihood(lab: Lab) -> dict:
    drawn = f"likelihood --model {SEED} --data study/exam --first 2"
    told = lab(f"{drawn} --out like --json", "like/scores.json", "like/run.json", "like/likelihoods.jsonl", room=2000)
    return told | lab.refused(
        "likelihood --model study/world --data study/exam --out x",
        "likelihood --model nowhere --out x",
        "likelihood --model study/start/seed-0 --data nowhere --out x",
    )


def checkpoint(lab: Lab, name: str) -> dict:
    "Its files, its tensors by name, type and shape, and its configurations."
    folder = lab.home / name
    told: dict = {"files": lab.folder(folder)}
    tensors: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        tensors |= {key: f"{part['dtype']} {part['shape']}" for key, part in head.items() if key != "__metadata__"}
    told["tensors"] = {"<tensors>": len(tensors), "sha256": sha(one_line(sorted(tensors.items())))}
    for path in sorted(folder.glob("*config.json")):
        whole = json.loads(normal(path.read_text(), lab.paths))
        told[path.name] = fold({key: part for key, part in whole.items() if key != "transformers_version"}, 400, True)
    return told


@document
def assemble(lab: Lab) -> dict:
    parts = "--tower study/parts/seed-0/vision --language study/parts/seed-0/language"
    told = lab(f"assemble {parts} --out assembled --json") | {"assembled": checkpoint(lab, "assembled")}
    told |= lab(f"assemble {parts} --out cropped --pad crop --seed 1") | {"cropped": checkpoint(lab, "cropped")}
    return told | lab.refused(
        f"assemble {parts}",
        f"assemble {parts} --out study",
        f"assemble {parts} --out x --pad round",
        "assemble --tower study/parts/seed-0/language --language study/parts/seed-0/language --out x",
        "assemble --tower study/parts/seed-0/vision --language nowhere --out x",
    )


@document
def convert(lab: Lab) -> dict:
    from cocoift.train.model import tiny_parts

    tiny_parts(lab.home / "llama", ["Is it safe? Yes, it is calm."], width=32)  # LLaVA's own layout holds no Qwen3
    lab("assemble --tower llama/vision --language llama/language --out llava")
    told = lab("convert llava --to llava --out own --json") | {"own": checkpoint(lab, "own")}
    told |= lab("convert own --to hf --tower llama/vision --out back --json") | {"back": checkpoint(lab, "back")}
    told |= lab("convert llava --to projector --out mm_projector.bin")
    same, ours = ((lab.home / name / "model.safetensors").read_bytes() for name in ("back", "llava"))
    told["there and back gives the same file"] = same == ours
    return told | lab.refused(
        "convert llava --to gguf --out x",
        "convert nowhere --to llava --out x",
        "convert own --to hf --out x",
        "convert llava --to llava --out study",
        f"convert {SEED}/model --to llava --out x",
        "convert llama/vision --to projector --out x",
    )


# ---------------------------------------------------------------- examined


RUN = ("scores.json", "run.json", "rounds.jsonl")
SPECS = "--history none --history neutral:2 --history terse:1 --history forced_short:2 --history own:2"


def asked(model: str, bench: str, data: str, out: str, more: str = SPECS) -> str:
    return f"eval --model {model} --bench {bench} --data {data} --out runs/{out} {more} --json"


def run_of(lab: Lab, line: str, out: str, *more: str, room: int = 600) -> dict:
    "A run, and what it wrote."
    return lab(line, *(f"runs/{out}/{name}" for name in (*RUN, *more)), room=room)


ORACLE = asked("scripted:oracle", "rounds", "study/exam", "oracle")
COLLAPSE = asked("scripted:collapse", "rounds", "study/exam", "collapse")


@document
def eval_rounds(lab: Lab) -> dict:
    told = run_of(lab, ORACLE, "oracle", "pier.jsonl", room=1700)
    told |= run_of(lab, COLLAPSE, "collapse", "pier.jsonl", room=1200)
    for name in ("always_terse", "always_full"):
        told |= run_of(lab, asked(f"scripted:{name}", "rounds", "study/exam", name, "--per-image 2"), name, room=400)
    told |= run_of(
        lab, asked("replay:runs/oracle", "rounds", "study/exam", "replayed"), "replayed", "pier.jsonl", room=400
    )
    told |= run_of(
        lab,
        asked("scripted:collapse", "rounds", "study/exam", "shared", f"{SPECS} --nproc 2"),
        "shared",
        "pier.jsonl",
        room=400,
    )
    told |= run_of(
        lab,
        asked(
            "scripted:oracle",
            "rounds",
            "study/world",
            "trained",
            "--split train --per-image 1 --history gold:3 --history none",
        ),
        "trained",
        room=500,
    )
    alone, several = ((lab.home / "runs" / name / "rounds.jsonl").read_bytes() for name in ("collapse", "shared"))
    told["two processes write the bytes of one"] = alone == several
    told |= lab("eval --model scripted:collapse --data study/exam --out runs/lines")
    told |= lab.plain(f"eval --model scripted:oracle --data study/exam --out runs/new {SPECS} --dry-run")
    told |= lab(f"eval --model scripted:oracle --data study/exam --out runs/oracle {SPECS} --dry-run")
    told |= {"folder": lab.folder(lab.home / "runs/oracle")}
    return told | lab.refused(
        "eval",
        "eval --model scripted:parrot --data study/exam --out runs/x",
        "eval --model nowhere --data study/exam --out runs/x",
        "eval --model scripted:oracle --data nowhere --out runs/x",
        "eval --model scripted:oracle --data study/exam --out study",
        "eval --model scripted:oracle --data study/exam --out runs/x --history never",
        "eval --model scripted:oracle --data study/exam --out runs/x --truncate newest",
        "eval --model scripted:oracle --data study/exam --out runs/x --bench chess",
        "eval --model scripted:oracle --data study/exam --out runs/x --split nowhere",
        "eval --model replay:runs/nothing --data study/exam --out runs/x",
        "eval --model scripted:collapse --data study/exam --out runs/oracle",
        "eval --model http://127.0.0.1:9/v1 --data study/exam --out runs/x",
        "eval --model http://127.0.0.1:9/v1#m --data study/exam --out runs/x --budget 1",
    )


@document
def eval_scope(lab: Lab) -> dict:
    lab.run(SCOPE)
    told = {}
    for name in ("oracle", "collapse"):
        told |= run_of(lab, asked(f"scripted:{name}", "scope", "scope", f"scope-{name}", ""), f"scope-{name}", room=900)
    more = "--history own --history neutral --history forced_short"
    told |= run_of(
        lab, asked("scripted:always_full", "scope", "study/exam", "scope-named", more), "scope-named", room=600
    )
    told |= run_of(
        lab, asked("replay:runs/scope-oracle", "scope", "scope", "scope-replayed", ""), "scope-replayed", room=400
    )
    told |= lab("eval --model scripted:oracle --bench scope --data scope --out runs/new --dry-run")
    return told | lab.refused(
        "eval --model scripted:oracle --bench scope --data shared --out runs/x",
        "eval --model scripted:oracle --bench scope --data scope --out runs/x --history never",
    )


OFFICIAL = {  # benchmark -> its folder's files, from the shared data
    "pope": {"coco_pope_random.json": "bench/pope/coco_pope_random_e3e3926.json"},
    "vqa": {"questions.json": "bench/vqa/questions.json", "annotations.json": "bench/vqa/annotations.json"},
    "okvqa": {
        name: f"sources/okvqa/{name}"
        for name in ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")
    },
    "gqa": {"testdev_balanced_questions.json": "sources/gqa/testdev_balanced_questions.json"},
    "aokvqa": {"aokvqa_v1p0_val.json": "sources/aokvqa/aokvqa_v1p0_val.json"},
    "mm-vet": {"mm-vet.json": "bench/mm-vet/mm-vet_sample12.json"},
    "llava-bench": {"qa90_questions.jsonl": "bench/llava-bench-coco/qa90_questions.jsonl"},
    "textvqa": {"TextVQA_0.5.1_val.json": None},
    "infimm": {"infimm.json": None},
    "coco-caption": {"captions_val2017.json": "coco-mini/annotations/captions_val2017.json"},
    "chair": {
        f"{kind}_val2017.json": f"coco-mini/annotations/{kind}_val2017.json" for kind in ("captions", "instances")
    },
}


THINGS = ("dog", "cat", "car")
WRITTEN = {  # in the official format, where the shared data have none
    "TextVQA_0.5.1_val.json": {
        "data": [
            {
                "question_id": k,
                "image_id": f"a{k}",
                "question": f"Is the {thing} red?",
                "answers": ["yes"] * 6 + ["no"] * 4,
            }
            for k, thing in enumerate(THINGS)
        ]
    },
    "infimm.json": [
        {
            "id": str(k),
            "images": ["1_a.jpg", "1_b.jpg"],
            "question": f"Which {thing} is old?",
            "category": "Deductive",
            "complexity": "High",
        }
        for k, thing in enumerate(THINGS)
    ],
}


def official(lab: Lab) -> None:
    "The benchmarks' official files, a folder each."
    for bench, files in OFFICIAL.items():
        folder = lab.home / "official" / bench
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in files.items():
            text = (SHARED / source).read_text() if source else json.dumps(WRITTEN[name])
            (folder / name).write_text(text)


def official_run(bench: str, model: str = "collapse", more: str = f"{SPECS} --per-image 8") -> str:
    return asked(f"scripted:{model}", bench, f"official/{bench}", f"{bench}-{model}", more)


def predictions(folder: Path) -> dict:
    "The files of a folder by their digests, and how one begins."
    texts = {path.name: path.read_text() for path in sorted(folder.iterdir())}
    return {name: sha(text) for name, text in texts.items()} | {"first": next(iter(texts.values()))[:60]}


@document
def eval_official(lab: Lab) -> dict:
    official(lab)
    captions = official_run("coco-caption", "collapse", "--history none --per-image 4")
    told = run_of(lab, captions, "coco-caption-collapse")
    for bench in [bench for bench in OFFICIAL if bench != "coco-caption"]:
        for model in ("collapse", "oracle") if bench in ("pope", "mm-vet") else ("collapse",):
            room = 700 if bench in ("pope", "mm-vet") else 400
            told |= run_of(lab, official_run(bench, model), f"{bench}-{model}", room=room)
            told[f"{bench}-{model}/predictions"] = predictions(lab.home / f"runs/{bench}-{model}/predictions")
    told |= run_of(
        lab,
        asked("replay:runs/pope-collapse", "pope", "official/pope", "pope-replayed", f"{SPECS} --per-image 8"),
        "pope-replayed",
        room=400,
    )
    told |= lab("eval --model scripted:oracle --bench gqa --data official/gqa --out runs/new --dry-run")
    drawn = asked(
        "scripted:oracle", "vqav2", "study/exam/vqav2", "vqav2", f"{SPECS} --per-image 8 --records study/exam"
    )
    told |= run_of(lab, drawn, "vqav2")
    return told | lab.refused(
        "eval --model scripted:oracle --bench pope --data official/vqa --out runs/x",
        "eval --model scripted:oracle --bench mm-vet --data official/pope --out runs/x",
        "eval --model scripted:oracle --bench vqav2 --data official/gqa --out runs/x",
    )


@document
def eval_checkpoint(lab: Lab) -> dict:
    specs = "--per-image 1 --most-tokens 4 --history none --history own:1"
    out = f"--out runs/checkpoint {specs} --data study/exam --model {SEED}/model"
    told = lab(f"eval {out} --json", *(f"runs/checkpoint/{name}" for name in RUN), room=1200)
    return told | lab(f"eval {out.replace('runs/checkpoint', 'runs/new')} --dry-run --json")


SCOPE = "scope --data study/exam --out scope --images 4 --json"


@document
def scope(lab: Lab) -> dict:
    lab.run(SCOPE)
    told = lab(SCOPE, *(f"scope/{path.name}" for path in sorted((lab.home / "scope").iterdir()) if path.is_file()))
    told |= lab(
        "scope --data shared/coco-mini --out scope-mini --synonyms bench/chair/synonyms.txt "
        "--lmms-eval tasks/coco_scope --pictures shared/coco-mini/images --json",
        "tasks/coco_scope",
    )
    told |= {
        name: lab.file(f"tasks/coco_scope/{name}")
        for name in lab.folder(lab.home / "tasks/coco_scope")
        if name.endswith((".yaml", ".py", ".jsonl", ".md"))
    }
    official(lab)
    told |= lab("scope --data study/exam --out scope-lines")
    return told | lab.refused(
        "scope --data nowhere --out x",
        "scope --data study/exam --out study",
        "scope --data official --out x",
        "scope --out x",
    )


@document
def compare(lab: Lab) -> dict:
    lab.run(ORACLE), lab.run(COLLAPSE)
    told = lab(
        "compare runs/oracle runs/collapse --html compared.html --images study/exam/images --json",
        "compared.html",
        room=1500,
    )
    told |= lab("compare runs/oracle runs/collapse") | lab("compare runs/oracle runs/oracle --json", room=400)
    official(lab)
    for model in ("collapse", "oracle"):
        lab.run(official_run("pope", model))
    told |= lab("compare runs/pope-oracle runs/pope-collapse --json", room=700)
    twelve(lab)
    for judged in JUDGED[:2]:
        lab.run(judged)
    told |= lab("compare judged/gpt4 judged/rule --force --json")
    return told | lab.refused(
        "compare runs/oracle nowhere",
        "compare runs/oracle",
        "compare runs/oracle runs/pope-oracle",
        "compare judged/gpt4 judged/rule",
        "compare runs/oracle study/world",
    )


VET = "--predictions twelve.json --references bench/mm-vet/mm-vet_sample12.json"
GRADES = "bench/mm-vet/llava-v1.5-13b_gpt-4-grade-3runs.json"
ANSWERS = "bench/mm-vet/results_llava-v1.5-13b.json"
JUDGED = (
    f"judge mm-vet {VET} --judge replay:{GRADES} --out judged/gpt4 --json",
    f"judge mm-vet {VET} --judge rule --out judged/rule --json",
    f"judge mm-vet {VET} --judge replay:{GRADES} --repeats 3 --out judged/thrice --canary {GRADES} "
    f"--canary-answers {ANSWERS} "
    "--canary-references bench/mm-vet/mm-vet_sample12.json --json",
)


def files_in(folder: Path) -> list[Path]:
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in there if path.suffix in (".json", ".jsonl") and "times" not in path.name)


def twelve(lab: Lab) -> None:
    asked = json.loads((SHARED / "bench/mm-vet/mm-vet_sample12.json").read_text())
    for name, model in (("twelve", "llava-v1.5-13b"), ("others", "llava_llama2_13b_chat")):
        said = json.loads((SHARED / f"bench/mm-vet/results_{model}.json").read_text())
        lab.put(f"{name}.json", json.dumps({key: said[key] for key in asked}))


@document
def judge(lab: Lab) -> dict:
    twelve(lab)
    told = {}
    for line, out in zip(JUDGED, ("gpt4", "rule", "thrice")):
        lab.run(line)
        told |= lab(line, *(f"judged/{out}/{path.name}" for path in files_in(lab.home / "judged" / out)), room=700)
    coco = "bench/llava-bench-coco"
    more = {
        "coco": f"judge llava-bench --predictions {coco}/qa90_gpt4_answer.jsonl --judge rule "
        f"--references {coco}/qa90_gpt4_answer.jsonl "
        f"--questions {coco}/qa90_questions.jsonl --context {coco}/caps_boxes_coco2014_val_80.jsonl",
        "pair": "judge pairwise --predictions twelve.json --against others.json "
        "--questions bench/mm-vet/mm-vet_sample12.json --judge rule",
    }
    for out, line in more.items():
        line = f"{line} --out judged/{out} --json"
        lab.run(line)
        told |= lab(line, *(f"judged/{out}/{path.name}" for path in files_in(lab.home / "judged" / out)), room=600)
    told |= lab(f"judge mm-vet {VET} --judge rule --out judged/lines")
    told |= lab.plain(f"judge mm-vet {VET} --judge http://127.0.0.1:9/v1#gpt --out judged/new --dry-run")
    official(lab)
    lab.run(official_run("mm-vet"))
    told |= lab(
        "judge mm-vet --predictions runs/mm-vet-collapse --history own --references official/mm-vet/mm-vet.json "
        "--judge rule "
        "--out judged/run --json"
    )
    return told | lab.refused(
        "judge mm-vet",
        "judge chess --predictions twelve.json --judge rule --out x",
        f"judge mm-vet {VET} --judge nowhere --out x",
        f"judge mm-vet {VET} --judge scripted:oracle --out x",
        f"judge mm-vet {VET} --judge rule --prompt llava-bench --out x",
        f"judge mm-vet --predictions {ANSWERS} --references bench/mm-vet/mm-vet_sample12.json --judge rule --out x",
        f"judge mm-vet {VET} --judge replay:{GRADES} --repeats 4 --out judged/four",
        f"judge mm-vet {VET} --judge rule --canary {GRADES} --out x",
        "judge mm-vet --predictions twelve.json --judge rule --out x",
        f"judge mm-vet {VET} --judge replay:nowhere.json --out x",
    )


# ---------------------------------------------------------------- scored, and shown


SCORES = (
    "mm-vet --predictions B/mm-vet/llava-v1.5-13b_gpt-4-grade-1runs.json --references B/mm-vet/capabilities.json",
    "mm-vet --predictions B/mm-vet/llava-v1.5-13b_gpt-4-grade-3runs.json --references B/mm-vet/capabilities.json",
    "llava-bench --predictions B/llava-bench-wild/llava-v1.5-13b-eval1.jsonl",
    "llava-bench --predictions B/llava-bench-coco/review_bard_vicuna-13b.jsonl",
    "pope --predictions B/pope/llava-v1.5-13b_answers_random.jsonl --references B/pope/coco_pope_random_e3e3926.json",
    "pope --predictions B/pope/llava-v1.5-13b_answers_random.jsonl --references B/pope/coco_pope_random_e3e3926.json "
    "--questions B/pope/llava_questions_random.jsonl --mode open",
    "vqa --predictions B/vqa/results.json --references B/vqa/annotations.json --questions B/vqa/questions.json "
    "--rules 2021",
    "vqa --predictions B/vqa/results.json --references B/vqa/annotations.json --rules 2015",
    "vqa --predictions B/vqa/results.json --references B/vqa/annotations.json --rules textvqa",
    "vqa --predictions B/vqa/results.json --references B/vqa/annotations.json --mode open",
    "gqa --predictions runs/gqa-whole/predictions/P.json --references official/gqa",
    "okvqa --predictions runs/okvqa-whole/predictions/P.json "
    "--references official/okvqa/mscoco_val2014_annotations.json",
    "aokvqa --predictions runs/aokvqa-whole/predictions/P.json --references official/aokvqa",
    "textvqa --predictions runs/textvqa-whole/predictions/P.json --references official/textvqa",
    "chair --predictions B/chair/captions_Instruction1_instructblip_0_500.jsonl "
    "--references B/chair/gt_objects_0_500.json "
    "--synonyms B/chair/synonyms.txt",
    "chair --predictions B/chair/captions_Instruction2_minigpt-4_0_500.jsonl "
    "--references B/chair/gt_objects_0_500.json "
    "--synonyms B/chair/synonyms.txt",
    "coco-caption --predictions B/coco-caption/results_loo0.json --references B/coco-caption/annotations_loo0.json",
    "arena --predictions B/arena/battles.json",
    "pairwise --predictions B/arena/pairwise_judgments.jsonl",
    "single --predictions B/arena/single_judgments.jsonl",
    "infimm --predictions graded.jsonl",
    "paired-test --predictions B/llava-bench-wild/llava-v1.5-13b-eval1.jsonl "
    "--references B/llava-bench-wild/llava-v1.5-13b-eval3.jsonl",
)


@document
def score(lab: Lab) -> dict:
    official(lab)
    lab.put("graded.jsonl", '{"score": 1, "complexity": "Moderate"}\n{"score": 0.5, "complexity": "High"}\n')
    told = {}
    for line in SCORES:
        bench = line.partition(" ")[0]
        line = line.replace(" B/", " bench/")
        if "P.json" in line:
            lab.run(asked("scripted:always_full", bench, f"official/{bench}", f"{bench}-whole", "--history none"))
            line = line.replace("P.json", "none.json")
        told |= lab.plain(f"score {line}", room=380)
    pope = "bench/pope/llava-v1.5-13b_answers_random.jsonl"
    return told | lab.refused(
        "score",
        f"score chess --predictions {pope}",
        "score pope --predictions nowhere.jsonl",
        f"score pope --predictions {pope}",
        f"score pope --predictions {pope} --references bench/pope/coco_pope_random_current_first60.json",
        f"score vqa --predictions {pope} --references bench/vqa/annotations.json",
        f"score llava-bench --predictions {pope}",
        f"score pope --predictions {pope} --references bench/pope/coco_pope_random_e3e3926.json --mode odd",
        "score mm-vet --predictions bench/mm-vet/results_llava-v1.5-13b.json "
        "--references bench/mm-vet/capabilities.json",
    )


@document
def report(lab: Lab) -> dict:
    lab.run(ORACLE), lab.run(COLLAPSE), twelve(lab), lab.run(JUDGED[0])
    told = lab(
        "report study/data/first-uniform study/data/every-mixed runs/oracle runs/collapse --out report.html "
        "--images study/exam/images --json",
        "report.html",
        room=1200,
    )
    told |= lab("report judged/gpt4 --out judged.html", "judged.html", room=700)
    return told | lab.refused(
        "report runs/oracle",
        "report nowhere --out x.html",
        "report study/world --out x.html",
        "report runs/oracle --out study",
    )


@document
def experiment(lab: Lab) -> dict:
    told = lab.plain("experiment paper --tiny --out paper --dry-run", room=1700)
    told |= lab(
        "experiment paper --out paper --data nothing --without infimm --gpu-price 3 --dry-run --json", room=1700
    )
    return told | lab.refused(
        "experiment nothing --dry-run",
        "experiment paper --dry-run colour=red",
        "experiment paper --dry-run --without chess",
        "experiment paper --dry-run --gpu-price cheap",
    )


class Stage(BaseHTTPRequestHandler):
    "An OpenAI-compatible server: a judge's 0.5, a sentence around a short answer, or how much was sent."

    protocol_version, wbufsize = "HTTP/1.1", -1

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = [message["content"] for message in body["messages"]]
        parts = [
            part for content in messages for part in ([{"text": content}] if isinstance(content, str) else content)
        ]
        text = " ".join(part.get("text", "<picture>") for part in parts)
        _, asked, short = text.rpartition("Short answer: ")
        bare = short.strip()
        answer = f"The right answer to that is {bare}, as one can see."
        answer = f"{bare.capitalize()}, that is what can be seen here." if bare in ("yes", "no") else answer
        count = f"The {len(text.split())} words and {text.count('<picture>')} pictures are here."
        said = "0.5" if body["model"] == "judge" else answer if asked else count
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        usage = {"prompt_tokens": len(text), "completion_tokens": len(said), "total_tokens": len(text) + len(said)}
        told = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        data = json.dumps(told | {"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def stage() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@document
def served(lab: Lab) -> dict:
    "What a server answers, asked and rewritten, exactly; where its address is part of the digests, loosely."
    prices = "{input: 2.5, output: 10, image: 85, tile: 170}"
    lab.put("prices.yaml", f"judge: {prices}\nscribe: {prices}\n")
    twelve(lab), lab.run(CAPTIONED)
    priced = "--price prices.yaml --budget 50"
    written = f"--model scribe --concurrency 1 --recipe coco-ift-full {priced} --skip-failed --json"
    with stage() as url:
        line = f"eval --model {url}#scribe --data study/exam --per-image 1 {SPECS} {priced}"
        told = lab(f"{line} --out runs/served --json", *(f"runs/served/{name}" for name in RUN))
        for role, more in (
            ("rewrite", "most='{sentence: 20, paraphrase: 5}'"),
            ("label", "--images study/world/images most='{detail: 3, reasoning: 3}'"),
        ):
            line = f"{role} captioned-set --endpoint {url} --out {role}-set {more} {written}"
            told |= lab(line, f"{role}-set/conversations/part-00000.parquet", f"{role}-set/rejects.jsonl", room=300)
        lab.loose = True
        files = [f"judged/served/{name}" for name in ("scores.json", "judge.json", "verdicts.jsonl")]
        told |= lab(f"judge mm-vet {VET} --judge {url}#judge --out judged/served {priced} --json", *files, room=700)
        told |= {"rewrite-set": lab.file("rewrite-set/manifest.json", 700)}
    return {line.replace(url, "URL"): entry for line, entry in told.items()}


@document
def app(lab: Lab) -> dict:
    return lab.refused(
        "app --take-away away --study study",
        "app --share",
        "app --host 0.0.0.0",
        "app --port 0",
        "app --models nowhere.yaml",
    )


# ---------------------------------------------------------------- written, and compared


def laid(value: Any, depth: int = 0) -> str:
    "JSON with sorted keys, what fits on a line on one."
    line = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(line) + depth <= 118 or not value or not isinstance(value, (dict, list)):
        return line
    pairs = sorted(value.items()) if isinstance(value, dict) else [(None, part) for part in value]
    told = [
        ("" if key is None else f"{json.dumps(key, ensure_ascii=False)}: ") + laid(part, depth + 1)
        for key, part in pairs
    ]
    inner = ",\n".join(" " * (depth + 1) + line for line in told)
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{inner}\n{' ' * depth}{end}"


def make(lab: Lab, name: str) -> Any:
    lab.loose = name in LOOSE
    told = json.loads(one_line(DOCUMENTS[name](lab)))
    return digests(told) if name in ("eval-official", "eval-scope", "judge") else told


def digests(told: dict) -> dict:
    "What a run says of itself, by its digest alone: `eval-rounds` shows it."
    for entry in told.values():
        files = entry.get("files", {}) if isinstance(entry, dict) else {}
        files |= {name: whole["sha256"] for name, whole in files.items() if name.endswith(("/run.json", "/judge.json"))}
    return told


def stored(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def parts_of(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    "Every leaf with its path."
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not value or not isinstance(value, (dict, list)):
        yield where, value
    for key, part in pairs:
        yield from parts_of(part, f"{where} > {key}" if where else str(key))


def same(old: Any, new: Any, tolerance: tuple[float, float] | None) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new))
    if numbers and tolerance:
        return math.isclose(old, new, rel_tol=tolerance[0], abs_tol=tolerance[1])
    return type(old) is type(new) and old == new


def differences(name: str, old: Any, new: Any) -> list[str]:
    "Where two documents differ, digests last: path, golden value, value now."
    before, now = dict(parts_of(old)), dict(parts_of(new))
    found = [
        where
        for where in before | now
        if where not in before or where not in now or not same(before[where], now[where], LOOSE.get(name))
    ]
    found.sort(key=lambda where: where.endswith("sha256"))
    return [
        f"{where}\n    golden: {before.get(where, '<nothing>')!r}\n    now:    {now.get(where, '<nothing>')!r}"
        for where in found
    ]


def write(names: list[str]) -> None:
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        lab = Lab(Path(home))
        for name in names or DOCUMENTS:
            (GOLDEN / f"{name}.json").write_text(laid(make(lab, name)) + "\n", encoding="utf-8")
            print(name, file=sys.stderr)


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", TORCHDYNAMO_DISABLE="1", OMP_NUM_THREADS="1")
    sys.path.insert(0, str(HERE.parent))
    write(sys.argv[1:])
