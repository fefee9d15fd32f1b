"Folders for other loaders, each opened by its own package: WebDataset, Megatron-Energon, the hub, Croissant."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import local_hub

from cocoift.conversation import read_conversations

COCOIFT = Path(sys.executable).with_name("cocoift")


@pytest.fixture(scope="module")
def folders(typed, small, tmp_path_factory) -> Path:
    home, images = tmp_path_factory.mktemp("folders"), small / "world/images"
    for to, more in (("webdataset", []), ("hub", ["--test-share", "0.3"])):
        done = typed("export", small / "set", "--to", to, "--out", home / to, "--images", images, *more, "--json")
        assert done.returncode == 0, done.stderr
        (home / f"{to}.json").write_text(done.stdout)
    return home


def expected(small) -> dict[str, tuple[int, list[str]]]:
    "Of each conversation, how many pictures and which texts."
    return {
        c.id: (len(c.images), [text for r in c.rounds for text in (r.instruction, r.response)])
        for c in read_conversations(small / "set")
    }


def told(record: dict, pictures: int) -> tuple[int, list[str]]:
    texts = [turn["value"] for turn in record["conversations"]]
    return pictures, [texts[0].removeprefix("<image>\n" * pictures), *texts[1:]]


def test_webdataset_reads_the_shards(folders, small):
    wds = pytest.importorskip("webdataset")
    found, wanted = {}, expected(small)
    for sample in wds.WebDataset(str(folders / "webdataset/train-00000.tar"), shardshuffle=False).decode("pil"):
        pictures = [value for key, value in sorted(sample.items()) if key.endswith(".png")]
        assert all(picture.size == (48, 48) for picture in pictures)
        found[sample["json"]["id"]] = told(sample["json"], len(pictures))
    assert found == wanted and list(found) != list(wanted)  # and in a drawn order


@pytest.fixture(scope="module")
def energon():
    "Megatron-Energon lies in a folder of its own, which `ENERGON` names: tests/compat/README.md says how to make it."
    extra = str(Path(os.environ["ENERGON"]).resolve()) if "ENERGON" in os.environ else ""
    code = "import megatron.energon"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), extra]))}
    if subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode:
        pytest.skip("megatron-energon is not whole here: see tests/compat/README.md")
    return env


READ = """
import json, sys
from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_train_dataset, get_loader, stateless

@stateless
def cooked(sample):
    pictures = [value for key, value in sample.items() if key.endswith(".png")]
    return {"__key__": sample["__key__"], "__restore_key__": sample["__restore_key__"], "json": sample["json"],
        "pictures": pictures, "__subflavors__": sample.get("__subflavors__")}

class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(cooked)]

workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
data = get_train_dataset(sys.argv[1], batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None,
    worker_config=workers, task_encoder=Encoder(), repeat=False)
print(json.dumps([[s["json"], len(s["pictures"]), list(s["pictures"][0].shape)] for s in get_loader(data)]))
"""


@pytest.mark.slow  # its index is made in processes of its own
def test_energon_reads_its_folder(energon, small, tmp_path):
    out, again, command = (
        tmp_path / "energon",
        tmp_path / "again",
        [COCOIFT, "export", small / "set", "--to", "energon"],
    )
    for folder in (out, again):
        more = ["--out", folder, "--images", small / "world/images"]
        done = subprocess.run([*command, *more], env=energon, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", READ, out], env=energon, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {record["id"]: told(record, pictures) for record, pictures, _ in json.loads(done.stdout.splitlines()[-1])}
    assert found == expected(small)
    for name in ("train-00000.tar", ".nv-meta/index.uuid", ".nv-meta/split.yaml", ".nv-meta/.info.json"):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name


def test_the_hub_takes_the_folder_as_it_is(folders, small, tmp_path):
    "`hf upload`'s function puts it on a hub; `load_dataset` reads it there, with its splits and pictures."
    shown = json.loads((folders / "hub.json").read_text())["splits"]
    with local_hub(tmp_path / "hub") as server:
        (tmp_path / "hub/datasets/me/mine").mkdir(parents=True)
        code = (
            "import sys, json, datasets\nfrom huggingface_hub import HfApi\n"
            "HfApi(token='hf_x').upload_folder(repo_id='me/mine', folder_path=sys.argv[1], repo_type='dataset')\n"
            "data = datasets.load_dataset('me/mine', streaming=True)\n"
            "rows = {name: list(part) for name, part in data.items()}\n"
            "first = rows['train'][0]\n"
            "print(json.dumps([{name: len(part) for name, part in rows.items()}, first['images'][0].size, "
            "len(first['formats']), len(first['messages']), first['licences']]))"
        )
        env = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        run = [sys.executable, "-c", code, folders / "hub"]
        done = subprocess.run(run, env=env | {"HF_HUB_DISABLE_XET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    counts, size, formats, messages, licences = json.loads(done.stdout.splitlines()[-1])
    assert counts == shown and sum(counts.values()) == len(expected(small))
    assert size == [48, 48] and messages == 2 * formats and len(licences) == formats


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    "A hub, and the environment of a user who may write there."
    home = tmp_path_factory.mktemp("pushed")
    with local_hub(home) as server:
        env = {"HF_ENDPOINT": server.url, "HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
        yield home, os.environ | env | {"HF_HUB_DISABLE_XET": "1"}


def test_push(cocoift, folders, tiny_quickstart, hub, tmp_path):
    "A training becomes a folder with a card, and lies on the hub file for file; so does an exported set."
    study, (home, env) = tiny_quickstart[0], hub
    run, exam = study / "train/every-mixed/seed-0", study / "eval/every-mixed/seed-0"
    more = ["--data", study / "data/every-mixed", "--after", exam, "--upload", "me/model", "--json"]
    done = cocoift("push", run, "--out", tmp_path / "model", *more, env=env)
    assert done.returncode == 0, done.stderr
    told, there = json.loads(done.stdout), home / "models/me/model"
    assert told["uploaded"].endswith("/me/model/commit/" + told["uploaded"].rpartition("/")[2])
    assert told["leakage"]["after"]["value"] == json.loads((exam / "scores.json").read_text())["leakage"]["value"]
    names = sorted(path.name for path in there.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "model").iterdir()) and "data_manifest.json" in names
    assert all((there / name).read_bytes() == (tmp_path / "model" / name).read_bytes() for name in names)
    card = (there / "README.md").read_text()
    assert "| layout | `every-mixed` |" in card and "## Chat template" in card and "| leakage after | " in card
    done = cocoift("push", folders / "hub", "--upload", "me/set", env=env)
    assert done.returncode == 0 and "uploaded: http" in done.stdout, done.stderr
    assert (home / "datasets/me/set/croissant.json").read_bytes() == (folders / "hub/croissant.json").read_bytes()


@pytest.mark.parametrize(
    "name, more, says",
    [
        ("onlyone", {}, "--upload onlyone: is no OWNER/NAME (one slash is needed)"),
        ("me/a b", {}, "--upload me/a b: is no OWNER/NAME (Repo id must use alphanumeric chars"),
        ("others/set", {}, "hf://others/set: is not this user's to write (You don't have the rights"),
        ("me/set", {"HF_TOKEN": ""}, "hf://me/set: is not this user's to write"),
        ("me/set", {"HF_HUB_OFFLINE": "1"}, "check the network, HF_ENDPOINT and HF_HUB_OFFLINE\n"),
    ],
)
def test_not_pushed(typed, cocoift, folders, hub, name, more, says):
    asks = "not this user's" in says  # the hub: its address is read when a process starts
    done = (cocoift if asks else typed)("push", folders / "hub", "--upload", name, env=hub[1] | more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says in done.stderr


def test_croissant_is_valid(folders):
    mlc = pytest.importorskip("mlcroissant", exc_type=ImportError)
    read = mlc.Dataset(str(folders / "hub/croissant.json"))
    assert not read.metadata.ctx.issues.errors
    counts = json.loads((folders / "hub.json").read_text())["splits"]
    assert len(list(read.records("data/train-00000"))) == counts["train"]


def test_the_card_states_licences(folders):
    from huggingface_hub import DatasetCard

    loaded = DatasetCard.load(folders / "hub/README.md")
    assert [file["split"] for file in loaded.data.configs[0]["data_files"]] == ["train", "test"]
    assert "## Sources and licences" in loaded.text and loaded.data.license


@pytest.mark.parametrize(
    "args, says",
    [
        (["lava", "x"], "--to lava: no such layout: there are llava, messages, webdataset, energon, hub"),
        (
            ["webdataset", "x"],
            "--to webdataset: shards hold the pictures: name the folder of the pictures with --images",
        ),
        (
            ["webdataset", "full", "--images", "pictures"],
            "--out full: is there already: delete it, or name a new folder",
        ),
        (["llava", "x.json", "--test-share", "0.1"], "--test-share 0.1: is of --to hub alone"),
        (["hub", "x", "--test-share", "0.000001"], "leaves no conversation in test: change the share"),
    ],
)
def test_refused(typed, small, tmp_path, args, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "pictures").mkdir()
    done = typed("export", small / "set", "--to", args[0], "--out", *args[1:], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "pictures"]
