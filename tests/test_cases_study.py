"A whole study takes one path at any size, and every command runs in a process of its own."

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ARMS = ("llava-mix665k", "coco-ift")


# A study of real files


@pytest.fixture(scope="module")
def at_hand(shared, small, tmp_path_factory) -> Path:
    "A data folder as a user has it: official files, benchmarks under bench/, small recipes; photographs elsewhere."
    from cocoift.data.build.recipe import BuildRecipe
    from cocoift.eval.benchmarks.rounds import annotated_questions
    from cocoift.images import find_pictures
    from cocoift.studies.drawn import write_bench, write_llava

    home = tmp_path_factory.mktemp("study")
    photographs, data = shared / "data/coco-photos", home / "data"
    (data / "llava").mkdir(parents=True)
    (data / "annotations").symlink_to(photographs / "annotations")  # a link, as data folders have them
    for name in ("cocoqa", "vqav2"):
        shutil.copytree(shared / "data/sources" / name, data / name)
    for name, source, layout in (
        ("llava_v1_5_mix665k", "coco-instances", "first-uniform"),
        ("blip_laion_cc_sbu_558k", "coco-captions", "independent"),
    ):
        recipe = BuildRecipe(name=name, sources={source: {"cap": 40}}, layout=layout)
        write_llava(recipe, photographs, data / f"llava/{name}.json", home)
    items = annotated_questions(photographs, per_image=1)[:4]
    for name in ("mm-vet", "llava-bench"):
        write_bench(name, items, find_pictures(photographs), data / "bench" / name)
    write = {
        "coco": {"name": "few", "sources": {"vqav2": {}, "cocoqa": {}, "coco-captions": {"cap": 40}}},
        "align": {"template": "plain", "train": "projector", "steps": 1, "batch": 4, "missing": "drop"},
        "tune": {"train": "language", "epochs": 1, "batch": 4, "missing": "drop"},
        "study": {
            "coco": str(home / "coco.yaml"),
            "pretrain": str(home / "align.yaml"),
            "tune": str(home / "tune.yaml"),
            "answer": 4,
            "training": {"epochs": None, "steps": 1, "micro_batch": 2, "lr": 1e-5},
            "most": {"rounds": 1, "scope": 3},
        },
    }
    for name, recipe in write.items():
        (home / f"{name}.yaml").write_text(json.dumps(recipe))
    return home


def command(home: Path, small: Path, shared: Path, *more) -> list[str]:
    photographs = shared / "data/coco-photos/images"
    given = {"--data": home / "data", "--images": photographs, "--model": small / "start", "--out": home / "out"}
    left_out = [word for name in ("infimm", "pope", "rounds") for word in ("--without", name)]
    return [
        "experiment",
        str(home / "study.yaml"),
        *(str(word) for pair in given.items() for word in pair),
        *left_out,
        *map(str, more),
    ]


@pytest.mark.slow
def test_the_real_path(at_hand, small, shared, cocoift):
    "Killed while its second model learns, started again: what was done stays, the rest is done as the dry run told."
    words, out = command(at_hand, small, shared, "--json"), at_hand / "out"
    planned = json.loads(cocoift(*words, "--dry-run").stdout)
    assert not out.exists() and planned["judge_calls"] == 2 * 2 * 5 * 4  # benchmarks, arms, histories, questions
    fetching = planned["steps"][0]
    assert fetching["command"] == f"(everything is in {at_hand / 'data'})" and fetching["disk_gb"] == 0

    log = at_hand / "log.txt"
    with log.open("w") as file:
        study = subprocess.Popen(
            [Path(sys.executable).with_name("cocoift"), *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    while "7/" not in (text := log.read_text()):
        assert study.poll() is None, text
        time.sleep(0.05)
    os.kill(study.pid, signal.SIGKILL)
    study.wait()
    assert (out / "align/train.json").exists() and not (out / "eval").exists()
    kept = {
        path: path.stat().st_mtime_ns
        for path in [*(out / "align").rglob("*"), *(out / "data").rglob("*"), *(out / "captions").rglob("*")]
        if path.is_file()
    }

    done = cocoift(*words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(s["name"], s["command"]) for s in document["steps"]] == [
        (s["name"], s["command"]) for s in planned["steps"]
    ]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    results = {step["name"]: step["result"] for step in document["steps"]}
    assert results["fetch"] == {"sources": 5, "fetched": 0} and all(
        results[f"tune {arm}"]["steps"] == 1 for arm in ARMS
    )
    assert {result.get("coverage", 1) for result in results.values()} == {1}
    page = (out / "report.html").read_text()
    assert all(
        text in page
        for text in ("mm-vet", "llava-bench", "COCO-Scope", "context, never a baseline", "p (Holm)", "trained_on")
    )
    scores = [json.loads(path.read_text()) for path in (out / "judge").rglob("scores.json")]
    assert len(scores) == 2 * 5 * 2 and {score["fingerprint"]["model"] for score in scores} == {
        scores[0]["fingerprint"]["model"]
    }


class Shelf(BaseHTTPRequestHandler):
    "Serves the files of a folder by their last name, whatever is asked for: a server, or a proxy before one."

    def do_GET(self):
        file = self.server.folder / self.path.rpartition("/")[2]
        self.send_response(200 if file.is_file() else 404)
        body = file.read_bytes() if file.is_file() else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    "The address of a server of what lies in site/: COCO-QA's archive."
    with zipfile.ZipFile(tmp_path / "cocoqa-2015-05-17.zip", "w") as archive:
        for name, line in (("questions", "what is it"), ("answers", "boat"), ("img_ids", "139"), ("types", "0")):
            archive.writestr(f"train/{name}.txt", line)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.folder = tmp_path / "site"
    server.folder.mkdir()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "cocoqa-2015-05-17.zip").rename(server.folder / "cocoqa-2015-05-17.zip")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_what_lacks_is_fetched(at_hand, site, tmp_path, monkeypatch):
    "Of five sources one lacks, and is fetched; a start after a failure goes on with it, though half of it is there."
    import urllib.request

    from cocoift.files import Failed
    from cocoift.studies.paper_recipe import bring, due, fetching, open_study

    shutil.copytree(at_hand / "data", tmp_path / "data", symlinks=True)
    shutil.rmtree(tmp_path / "data/cocoqa")
    study = open_study(str(at_hand / "study.yaml"), data=tmp_path / "data", out=tmp_path / "out")
    assert fetching(study, due(study)) == f"cocoift fetch cocoqa --data {tmp_path / 'data'}"
    monkeypatch.setattr(urllib.request, "_opener", None)  # what it has read of proxies
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, site if name == "http_proxy" else "")
    archive = tmp_path / "site/cocoqa-2015-05-17.zip"
    archive.rename(tmp_path / "not yet")
    with pytest.raises(
        Failed,
        match="cocoqa-2015-05-17.zip: .* the server answers 404 .* the same command goes on; or leave sources out",
    ):
        bring(study)
    (tmp_path / "data/cocoqa").mkdir(exist_ok=True)
    (tmp_path / "data/cocoqa/questions.txt").touch()
    (tmp_path / "not yet").rename(archive)
    assert (
        bring(study) == {"sources": 5, "fetched": 1}
        and (tmp_path / "data/cocoqa/train/img_ids.txt").read_text() == "139"
    )
    assert due(study) == [] and bring(study) == {"sources": 5, "fetched": 0}


OFFLINE = (
    dict(os.environ)
    | {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https")}
    | {"no_proxy": "", "NO_PROXY": ""}
)


@pytest.mark.parametrize(
    "coco, says",
    [
        (
            "coco-ift",
            [
                "data: lacks aokvqa, okvqa, ",
                ", lrv, ",
                ", and no server that has them answers: run `cocoift fetch aokvqa ",
            ],
        ),
        (
            ["vqav2", "fsvqa", "vqa-e"],
            ["data: lacks fsvqa, vqa-e, which only a hand can bring: `cocoift fetch fsvqa vqa-e --data "],
        ),
    ],
    ids=["offline", "by hand"],
)
def test_what_lacks_is_named_before_anything_is_done(coco, says, at_hand, small, shared, typed, tmp_path):
    if isinstance(coco, list):
        (tmp_path / "coco.yaml").write_text(json.dumps({"name": "hand", "sources": coco}))
        coco = tmp_path / "coco.yaml"
    done = typed(*command(at_hand, small, shared, "--out", tmp_path / "out", f"coco={coco}"), env=OFFLINE)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("cocoift experiment: "), (
        done.stderr
    )
    assert all(text in done.stderr for text in [*says, "; or leave sources out with --without NAME"]), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, says",
    [
        (["--without", "vqav3"], "--without vqav3: the study has the benchmarks mm-vet, "),
        (["--judge", "nobody"], "--judge nobody: no such judge"),
        (["--tune", "tuna.yaml"], "tuna.yaml: no such recipe"),
        (["tuna=tune.yaml"], "tuna: Extra inputs are not permitted: keys are out, data, "),
        (["most={mm-vet: 3}"], "what is judged is asked whole"),
        (["--tiny"], "study.yaml has sizes of its own: leave --tiny out"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_done(more, says, at_hand, small, shared, typed, tmp_path):
    done = typed(*command(at_hand, small, shared, "--out", tmp_path / "out", *more))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_pictures_stop_a_study_before_its_first_training(at_hand, small, shared, typed, tmp_path):
    (tmp_path / "tune.yaml").write_text(json.dumps({"steps": 1, "batch": 4}))  # without missing: drop
    words = command(at_hand, small, shared, "--out", tmp_path / "out", "--tune", tmp_path / "tune.yaml")
    done = typed(*words)
    last = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 2 and "of the dataset's images have no picture there" in last and "missing=drop" in last
    ), done.stderr
    assert not (tmp_path / "out/align").exists() and (tmp_path / "out/data/coco-ift/manifest.json").exists()


def test_a_drawn_study_is_refused_nothing(tmp_path):
    "Every step of --tiny before its trainings; what follows is the path above."
    from cocoift.studies.paper import steps_of
    from cocoift.studies.paper_recipe import open_study

    for step in steps_of(open_study("paper", tiny=True, out=tmp_path / "study")):
        if step.name == "align":
            break
        assert step.do(), step.name
    assert {"fetch.json", "eval"}.isdisjoint(path.name for path in (tmp_path / "study").iterdir())


def test_the_commands_that_a_dry_run_tells_can_be_typed(at_hand, small, shared):
    "Each is parsed by the command line itself."
    import typer

    from cocoift.cli.main import app
    from cocoift.studies.paper import steps_of
    from cocoift.studies.paper_recipe import open_study

    commands = typer.main.get_command(app)
    study = open_study(str(at_hand / "study.yaml"), data=at_hand / "data", out=Path("2026: out"), without=["cocoqa"])
    told = [shlex.split(step.command) for step in steps_of(study) if not step.command.startswith("(")]
    assert {words[1] for words in told} == {"build", "train", "eval", "judge"}
    for _, name, *words in told:
        commands.commands[name].make_context(name, words)
    [build] = [words for words in told if "coco.yaml" in words[2]]
    assert json.loads(build[3].removeprefix("sources=")) == {"vqav2": {}, "coco-captions": {"cap": 40}}


# Every command, started by a shell: what a forked process has imported already hides what a module forgot to import

KEYS = {  # of the documents, by the table of design.md
    "sources": "name family images files template format licence url needs",
    "fetch": "sources archives",
    "build": "conversations rounds images rejected duplicates excluded seconds peak_mb by_source",
    "audit": "conversations rounds images carry_over bare_terse switches obedience by_source formats diversity leakage",
    "repair": "before after",
    "export": "conversations",
    "rewrite": "written rejected reasons requests cached tokens cost",
    "label": "written rejected reasons requests cached tokens cost",
    "assemble": "model",
    "convert": "model",
    "train": "steps loss tokens_per_s tokens_per_s_per_device mfu waiting tree_ratio kept cut dropped",
    "eval": "items coverage scores leakage",
    "scope": "items images sha256",
    "likelihood": "points",
    "judge": "scores coverage fingerprint",
    "score": "scores intervals",
    "compare": "differences",
    "report": "report",
}
DEEPER = {  # and what stands within
    "build": ("by_source.vqav2", "read kept duplicates excluded rejected capped rounds"),
    "audit": ("carry_over", "value low high n"),
    "repair": ("after", KEYS["audit"]),
    "eval": ("scores.terse_rate", "value low high"),
    "compare": ("differences.leakage", "value low high p"),
}
# where these are started by themselves
ELSEWHERE = {"quickstart": "conftest.py", "experiment": "test_cases_study.py", "app": "browser/conftest.py"}


def command_lines(study: Path, folder: Path, site: str, model: str) -> dict[str, str]:
    "A small real job for each command, in an order in which each finds what it needs."
    vote = {"v1_0": {"imagename": "a.png", "question": "What is it?", "answer": "star", "capability": ["rec"]}}
    (folder / "mm-vet.json").write_text(json.dumps(vote))
    (folder / "a.json").write_text(json.dumps({"v1_0": "It is a star."}))
    (folder / "pope.json").write_text(
        json.dumps(
            {"question_id": 1, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a star?", "label": "yes"}
        )
    )
    (folder / "pope-said.jsonl").write_text(json.dumps({"question_id": 1, "answer": "Yes."}))
    tuned = study / "train/every-mixed/seed-0"
    (folder / "train.yaml").write_text((tuned / "job.json").read_text())  # it is done: the path above starts trainings
    few = f"--endpoint {model} --model scribe most=" + json.dumps({"vqav2": 1}, separators=(",", ":"))
    run, parts = study / "eval/every-mixed", study / "parts/seed-0"
    return {
        "sources": "",
        "fetch": f"cocoqa --data {folder}/data --mirror http://www.cs.toronto.edu/~mren/imageqa/data/cocoqa={site}",
        "build": f"world --data {study}/world --out {folder}/set",
        "audit": f"{folder}/set --against val2017 --data {study}/exam",
        "export": f"{folder}/set --to llava --out {folder}/llava.json",
        "repair": f"{folder}/llava.json {folder}/repaired.json --interleave",
        "rewrite": f"{folder}/set {few} --out {folder}/rewritten",
        "label": f"{folder}/set {few} --out {folder}/labelled --images {study}/world",
        "scope": f"--data {study}/exam --out {folder}/scope --images 2",
        "eval": f"--model scripted:oracle --data {study}/exam --per-image 1 --out {folder}/run",
        "compare": f"{study}/eval/first-uniform {run} --html {folder}/compare.html --images {study}/exam",
        "judge": f"mm-vet --predictions {folder}/a.json --references {folder}/mm-vet.json "
        f"--out {folder}/j --judge rule",
        "score": f"pope --predictions {folder}/pope-said.jsonl --references {folder}/pope.json",
        "report": f"{study}/data/every-mixed {tuned.parent} {run} --images {study}/exam --out {folder}/report.html",
        "likelihood": f"--model {tuned}/model --data {folder}/scope --images {study}/exam --out {folder}/likelihood",
        "assemble": f"--tower {parts}/vision --language {parts}/language --out {folder}/start",
        "convert": f"{folder}/start --to llava --out {folder}/llava",
        "train": f"{folder}/train.yaml",
    }


def within(document: dict, path: str) -> dict:
    for key in path.split("."):
        document = document[key]
    return document


@pytest.mark.slow
def test_every_command_in_a_process_of_its_own(tiny_quickstart, cocoift, site, tmp_path):
    from mock_server import MockServer

    from cocoift.cli.main import app

    names = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert names == KEYS.keys() | ELSEWHERE.keys(), "a command has come or gone: give it a line here"
    for name, file in ELSEWHERE.items():
        assert f'"{name}"' in (Path(__file__).parent / file).read_text()
    lacks = {}
    with MockServer() as model:
        for name, words in command_lines(tiny_quickstart[0], tmp_path, site, model).items():
            done = cocoift(name, *words.split(), "--json")
            assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
            document = json.loads(done.stdout)
            first = document[0] if isinstance(document, list) else document
            lacks[name] = set(KEYS[name].split()) - first.keys()
            if name in DEEPER:
                path, keys = DEEPER[name]
                lacks[name] |= set(keys.split()) - within(document, path).keys()
    assert not {name: keys for name, keys in lacks.items() if keys}
