"Sets of the hub: the real `datasets` and `huggingface_hub` against a hub of this machine, in public sets' layouts."

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml
from hub_server import local_hub
from hub_sets import write_sets

pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def hub(shared, tmp_path_factory):
    "What it serves, under which names; and the environment in which it is the hub."
    root = tmp_path_factory.mktemp("hub")
    names = write_sets(root, shared)
    with local_hub(root) as server:
        env = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "0"}
        yield server, names, env


@pytest.fixture(scope="module")
def page(hub, cocoift, tmp_path_factory):
    "One table of all sets, a gated and an unknown one among them."
    _, names, env = hub
    folder = tmp_path_factory.mktemp("page")
    wanted = names | {"gated": "hf://someone/gated", "unknown": "hf://no/such"}
    sets = [{"name": name, "path": path} for name, path in wanted.items()]
    (folder / "list.yaml").write_text(yaml.safe_dump({"limit": 100, "sets": sets}))
    done = cocoift("audit", "--table", folder / "list.yaml", "--json", env=env, cwd=folder)
    return folder, done


def test_many_sets_on_one_page(page):
    folder, done = page
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0, done.stderr
    rows = {row["set"]: row for row in json.loads(done.stdout)["sets"]}
    told = {
        name: (row["licence"], row["conversations"], row["rounds"]) for name, row in rows.items() if "rounds" in row
    }
    assert told == {
        "LLaVA-mix-665k": ("cc-by-nc-4.0", 9, 14),  # with ids that are numbers, and strings: haotian-liu/LLaVA#1535
        "ShareGPT4V": ("cc-by-nc-4.0", 4, 4),
        "The Cauldron": ("cc-by-4.0", 8, 24),
        "FineVision": ("cc-by-4.0", 6, 18),
        "LLaVA-OneVision": ("apache-2.0", 6, 18),
        "MMDU": ("cc-by-nc-4.0", 4, 12),
    }
    assert "is gated on the hub: ask for access on its page" in rows["gated"]["status"]
    assert "is not on the hub, or not for this user: check the name" in rows["unknown"]["status"]
    assert set(rows["The Cauldron"]["by_source"]) == {"ai2d", "vqav2"}
    # the second round is answered in a word that it does not ask for, the third is not
    assert rows["FineVision"]["intervals"]["bare_terse"]["value"] == 0.5
    assert rows["FineVision"]["images"] == 6 and rows["FineVision"]["images_in_other_sets"] == 1.0
    assert rows["MMDU"]["images"] == 8
    lines = list(csv.DictReader((folder / "list.csv").open()))
    assert [line["set"] for line in lines if line["source"] == "all"][0] == "LLaVA-OneVision"  # by licence
    assert {line["set"] for line in lines} == set(rows)
    text = (folder / "list.html").read_text()
    assert all(name in text for name in rows) and "is gated on the hub" in text


def test_the_table_again_measures_what_failed(page, hub, cocoift):
    "The journal knows the commits; nothing of the measured sets is downloaded."
    folder, _ = page
    server, _, env = hub
    before, asked = (folder / "list.html").read_bytes(), len(server.asked)
    assert cocoift("audit", "--table", folder / "list.yaml", env=env, cwd=folder).returncode == 1
    assert (folder / "list.html").read_bytes() == before
    data = [
        path for kind, path, _ in server.asked[asked:] if kind == "GET" and path.endswith((".parquet", "665k.json"))
    ]
    assert not data


@pytest.mark.parametrize(
    "name, more, says",
    [
        ("hf://someone/gated", {}, "hf://someone/gated: is gated on the hub: ask for access on its page, then log in"),
        (
            "hf://a/b",
            {"HF_HUB_OFFLINE": "1"},
            "hf://a/b: no hub is reached at http://127.0.0.1:{port}: check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, or name a local copy",
        ),
    ],
)
def test_one_line(hub, cocoift, name, more, says, tmp_path):
    server, _, env = hub
    done = cocoift("audit", name, "--json", "--html", tmp_path / "x.html", env=env | more)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says.format(port=server.server_port) in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args, says",
    [
        (["hf://onlyone"], "hf://onlyone: is no name on the hub"),
        (["hf://spaces/a/b"], "is none of the hub's data sets: name one as hf://OWNER/NAME"),
        ([], "nothing to audit: name a set, or a list of sets with --table"),
        (["x.jsonl", "--table", "list.yaml"], "--table list.yaml: goes without a set"),
        (["--table", "none.yaml"], "none.yaml: no such recipe: give a .yaml file"),
        (["--table", "wrong.yaml"], "wrong.yaml: sets.0.pth: Extra inputs are not permitted"),
        (["mixed"], "mixed: has several splits and none is `train`: name one with --split: "),
        (["mixed", "--split", "dev"], "mixed: has no split 'dev': name one with --split: "),
        (["x.tar"], "x.tar: cannot be read"),
    ],
)
def test_refused(typed, tmp_path, args, says):
    (tmp_path / "wrong.yaml").write_text("sets: [{name: a, path: x, pth: y}]")
    (tmp_path / "x.tar").write_bytes(b"no tar" * 400)
    (tmp_path / "mixed").mkdir()
    row = {"id": "1", "messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes"}]}
    for split in "validation", "test":
        (tmp_path / "mixed" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    done = typed("audit", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says in done.stderr


def test_memory_stays(tmp_path, shared):
    "A parquet file of 100 MB of pictures is audited in a fraction of it."
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A picture of noise."}]
    path = tmp_path / "big/train.parquet"
    path.parent.mkdir()
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
            ("image", pa.struct([("bytes", pa.binary())])),
        ]
    )
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for group in range(40):
            rows = [
                {"id": f"{group}.{k}", "conversations": turns, "image": {"bytes": os.urandom(1 << 18)}}
                for k in range(10)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    code = (
        "import sys\nfrom cocoift.files import peak_mb\nfrom cocoift.data.inspect.audit import audit_path\n"
        "import cocoift.data.hub, datasets\nstart = peak_mb()\naudit = audit_path(sys.argv[1], limit=50)\n"
        "print(audit['conversations'], audit['sampling']['units'], audit['sampling']['of_units'], peak_mb() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code, path.parent], capture_output=True, text=True, check=True)
    conversations, units, of_units, grown = map(float, done.stdout.split())
    assert (conversations, units, of_units) == (50, 32, 40) and grown < 60, done.stdout
