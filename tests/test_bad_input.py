"Bad input: exit code 2, one line that names it and the mend, and the disk as it was before."

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cocoift.files import UserError
from cocoift.texts import read_json

VQA = "vqav2/v2_mscoco_train2014_annotations.json"
CAPTIONS = "coco/annotations/captions_train2017.json"
INSTANCES = "coco/annotations/instances_train2017.json"


@pytest.fixture
def here(small, tmp_path) -> Path:
    "A copy of the small world and of what is made from it, to spoil."
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/holiday.txt").write_text("photographs")
    recipe = {
        "model": "start",
        "data": "set",
        "images": "world/images",
        "out": "run",
        "steps": 1,
        "batch": 4,
        "micro_batch": 4,
        "recompute": False,
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


@pytest.fixture
def refused(typed, here):
    "Runs a command in `here`, given as it would be typed, and sees it refused; what it said."

    def run(command: str, *says: str) -> str:
        before = contents(here)
        done = typed(*command.split(), cwd=here)
        assert one_line(done, *says).startswith(f"cocoift {command.split()[0]}: ")
        assert contents(here) == before
        return done.stderr

    return run


def contents(folder: Path) -> dict[str, bytes]:
    "All files; but not `plans`, where a dataset's tokens are kept, whole, for the command that is mended."
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if folder / "plans" not in (path, *path.parents)
    }


def one_line(done: subprocess.CompletedProcess, *says: str) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert not [part for part in says if part not in done.stderr], done.stderr
    return done.stderr


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def change(path: Path, edit) -> None:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


# Missing


@pytest.mark.parametrize(
    "command, says",
    [
        ("build world --data nowhere --out set2", ["nowhere: no such folder", "--data"]),
        ("build nothing --data world --out set2", ["nothing: no such recipe", "coco-ift-plus"]),
        ("build nothing.yaml --data world --out set2", ["nothing.yaml: no such recipe"]),
        ("build world --data start --out set2", ["start: holds no official file of vqav2, fsvqa", "`cocoift sources`"]),
        ("audit nowhere", ["nowhere: no such file or folder", "check the path"]),
        ("audit nowhere.parquet", ["nowhere.parquet: no such file or folder", "check the path"]),
        ("audit world", ["world: ", "is no file of conversations", "`cocoift build`"]),
        ("export nowhere --to llava --out x.json", ["nowhere: no such file or folder", "check the path"]),
        (
            "export set --to llava --out train.yaml/x.json",
            ["train.yaml: no folder can be made there", "name another place"],
        ),
        ("train nothing.yaml", ["nothing.yaml: no such recipe"]),
        ("train train.yaml model=parts/vision", ["parts/vision: is a clip_vision_model checkpoint", "name another"]),
        ("eval --model nowhere --data exam --out run", ["--model nowhere: no such folder", "scripted:NAME"]),
        (
            "eval --model parts/vision --data exam --out run",
            ["parts/vision: is a clip_vision_model checkpoint", "name another"],
        ),
        ("eval --model scripted:parrot --data exam --out run", ["scripted:parrot: no such model", "oracle"]),
        ("eval --model scripted:oracle --data nowhere --out run", ["nowhere: no such folder", "--data"]),
        ("report set --out world", ["world: is a folder"]),
        (
            "likelihood --model start --bench vqav2 --data exam/vqav2 --images exam --out run",
            ["--bench vqav2: no question of it has both a short and a full answer", "another benchmark"],
        ),
        (
            "likelihood --model start --data exam --images other --out run",
            ["other: holds no pictures", "another folder"],
        ),
        ("report nowhere --out report.html", ["nowhere: no such folder"]),
        ("report world --out report.html", ["world: is no dataset, training or evaluation folder", "leave it out"]),
    ],
)
def test_missing(refused, command, says):
    refused(command, *says)


@pytest.mark.parametrize(
    "command, theirs", [("build nothing --data world --out set2", "coco-ift-13b"), ("train nothing", "coco-ift-plus")]
)
def test_recipes_of_the_other_kind_are_not_offered(refused, command, theirs):
    assert theirs not in refused(
        command, "nothing: no such recipe", "tiny" if command.startswith("train") else "coco-ift-plus"
    )


def test_missing_partner_file(refused, here):
    (here / "world" / VQA).unlink()
    refused(
        "build world --data world --out set2",
        "v2_OpenEnded_mscoco_train2014_questions.json",
        "its annotations",
        "are not there",
        "cocoift fetch vqav2",
    )


@pytest.mark.parametrize(
    "module, extra, command",
    [
        ("torch", "train", "train train.yaml"),
        ("torch", "train", "eval --model start --data exam --out run"),
        ("torch", "train", "quickstart --tiny --out run"),
        ("plotly", "app", "report set --out report.html"),
    ],
)
def test_missing_extra(here, module, extra, command):
    before = contents(here)
    done = without(module, command, here)
    one_line(done, f"needs {module}", f"pip install 'cocoift[{extra}]'")
    assert contents(here) == before


@pytest.mark.parametrize(
    "command",
    [
        "build world --data world --out set2",
        "audit set",
        "export set --to messages --out x.parquet",
        "eval --model scripted:oracle --data exam --out run",
    ],
)
def test_light_commands_need_no_torch(here, command):
    assert without("torch", command, here).returncode == 0


def without(module: str, command: str, folder: Path) -> subprocess.CompletedProcess:
    "The command line on a machine where `module` is not installed."
    code = f"""
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["cocoift", *{command.split()!r}]
from cocoift.cli.main import main
main()"""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


# Torn


def test_every_torn_json_is_known(tmp_path):
    text = json.dumps({"a": [True, None, -1.5, '\u00e9\\"x'], "b": {"c": False}})
    for end in range(1, len(text)):
        (tmp_path / "torn.json").write_text(text[:end])
        with pytest.raises(UserError, match=r"torn\.json: ends in the middle"):
            read_json(tmp_path / "torn.json")
    for wrong, says in {
        "": "is empty",
        "<html>404</html>": "is a page in HTML",
        text + text: "is not JSON at line 1",
        "{'a': 1}": "is not JSON at line 1",
    }.items():
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(UserError, match=rf"wrong\.json: {says}"):
            read_json(tmp_path / "wrong.json")


def test_torn_source(refused, here):
    cut(here / "world" / CAPTIONS)
    refused(
        "build world sources=[coco-captions] --data world --out set2",
        "captions_train2017.json: ends in the middle",
        "download it again",
    )


def test_torn_benchmark(refused, here):
    cut(here / "exam/vqav2/v2_mscoco_val2014_annotations.json")
    refused(
        "eval --model scripted:oracle --data exam --out run",
        "v2_mscoco_val2014_annotations.json: ends in the middle",
        "download it again",
    )


def test_torn_line(refused, here):
    (here / "world/vsr").mkdir()
    (here / "world/vsr/train.jsonl").write_text(
        '{"image": "000000000001.jpg", "caption": "The cup is left of the cat.", "label": 1}\n{"image": "0000'
    )
    refused(
        "build world sources=[vsr] --data world --out set2",
        "train.jsonl: line 2 is not JSON",
        "mend or remove the line",
    )


def test_torn_dataset(refused, here):
    [part] = (here / "set/conversations").iterdir()
    cut(part)
    for command in (
        "audit set",
        "export set --to llava --out x.json",
        "export set --to messages --out x.parquet",
        "train train.yaml",
    ):
        refused(command, "part-00000.parquet: is no whole parquet file", "build or download it again")


def test_torn_manifest(refused, here):
    cut(here / "set/manifest.json")
    refused(
        "build world --data world --out set", "manifest.json: ends in the middle", "delete the folder and build again"
    )


def test_torn_llava_json(refused, here, typed):
    assert typed("export", here / "set", "--to", "llava", "--out", here / "x.json").returncode == 0
    cut(here / "x.json")
    refused("audit x.json", "x.json: ends in the middle")


def test_not_yaml(refused, here):
    (here / "mine.yaml").write_text("name: [")
    refused("build mine.yaml --data world --out set2", "mine.yaml: is not YAML", "mend it")


# Another data set's file


@pytest.mark.parametrize(
    "there, wrong, source, says",
    [
        (VQA, INSTANCES, "vqav2", ["is not a file of vqav2", "lacks 'question_id'"]),
        (VQA, CAPTIONS, "vqav2", ["is not a file of vqav2", "lacks 'question_id'"]),
        (
            VQA,
            "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
            "vqav2",
            ["is not a file of vqav2", "lacks 'annotations'"],
        ),
        (CAPTIONS, INSTANCES, "coco-captions", ["is not a file of coco-captions", "lacks 'caption'"]),
        (CAPTIONS, VQA, "coco-captions", ["is not a file of coco-captions", "lacks 'images'"]),
        (INSTANCES, CAPTIONS, "coco-instances", ["is not a file of coco-instances", "lacks 'categories'"]),
        ("aokvqa/aokvqa_v1p0_train.json", CAPTIONS, "aokvqa", ["is not a file of aokvqa", "it is an object"]),
        ("vsr/train.jsonl", "set/rejects.jsonl", "vsr", ["is not a file of vsr"]),
    ],
)
def test_wrong_dataset(refused, here, there, wrong, source, says):
    (here / "world" / there).parent.mkdir(exist_ok=True)
    (here / "set/rejects.jsonl").write_text('{"image": "000000000001.jpg", "reason": "x"}\n')
    shutil.copy(here / wrong if wrong.startswith("set/") else here / "world" / wrong, here / "world" / there)
    refused(
        f"build world sources=[{source}] --data world --out set2",
        Path(there).name,
        "put the official file there",
        *says,
    )


def test_vqa_v1_is_not_okvqa(refused, here):
    for name in (
        "OpenEnded_mscoco_train2014_questions.json",
        "mscoco_train2014_annotations.json",
    ):  # VQA v1 has the same names and no raw answers
        (here / "world/okvqa").mkdir(exist_ok=True)
        shutil.copy(here / "world/fsvqa" / name, here / "world/okvqa" / name)
    refused(
        "build world sources=[okvqa] --data world --out set2",
        "mscoco_train2014_annotations.json: is not OK-VQA's",
        "'raw_answer'",
        "put the official file there",
    )


def test_wrong_benchmark(refused, here):
    shutil.copy(
        here / "exam/coco/annotations/instances_val2017.json", here / "exam/vqav2/v2_mscoco_val2014_annotations.json"
    )
    refused(
        "eval --model scripted:oracle --data exam --out run",
        "v2_mscoco_val2014_annotations.json: is not a file of vqav2",
        "put the official file there",
    )


@pytest.mark.parametrize("path", [CAPTIONS, VQA])
def test_audit_of_an_annotation_file(refused, path):
    refused(f"audit world/{path}", f"{Path(path).name}: is no LLaVA file", "name a dataset folder")


def test_broken_turns(refused, here):
    turns = [{"from": "human", "value": "Why?"}, {"from": "human", "value": "Why not?"}]
    (here / "x.json").write_text(
        json.dumps(
            [
                {"id": "1", "conversations": turns[:1] + [{"from": "gpt", "value": "So."}]},
                {"id": "2", "conversations": turns},
            ]
        )
    )
    refused("audit x.json", "x.json: record 2: conversations: turns must be human, gpt", "mend the record or remove it")


@pytest.mark.parametrize("line", ["5", '{"id": "1"}'])
def test_lines_without_turns(refused, here, line):
    (here / "x.jsonl").write_text(line + "\n")
    refused(
        "audit x.jsonl",
        "x.jsonl: is no LLaVA file (a list of records with conversations or messages)",
        "name a dataset folder",
    )


@pytest.mark.parametrize(
    "line", ['{"messages": 5}', '{"messages": [5]}', '{"messages": [{"role": "user", "content": "Why?"}]}']
)
def test_broken_messages(refused, here, line):
    (here / "x.jsonl").write_text(line + "\n")
    refused("audit x.jsonl", "x.jsonl: record 1: ", "mend the record or remove it")


# A record that cannot be used is no error


def test_unknown_image_is_a_reject(typed, here):
    change(here / "world" / CAPTIONS, lambda value: value["annotations"][3].update(image_id=987654321))
    change(here / "world" / INSTANCES, lambda value: value["annotations"][0].update(image_id=987654321))
    change(here / "world" / VQA, lambda value: value["annotations"][0].update(question_id=5, image_id=987654321))
    done = typed(
        "build",
        "world",
        "sources=[coco-captions, coco-instances, vqav2]",
        "--data",
        "world",
        "--out",
        "set2",
        "--json",
        cwd=here,
    )
    assert done.returncode == 0, done.stderr
    rejects = [json.loads(line) for line in (here / "set2/rejects.jsonl").read_text().splitlines()]
    assert [(r["source"], r["reason"]) for r in rejects] == [
        ("coco-captions", "image 987654321 is not in captions_train2017.json"),
        ("coco-instances", "image 987654321 is not in instances_train2017.json"),
        ("vqav2", "no question 5 in v2_OpenEnded_mscoco_train2014_questions.json, or it comes twice"),
        ("vqav2", "no annotation 1000 in v2_mscoco_train2014_annotations.json"),
    ]
    assert all(r["record"] for r in rejects)
    assert json.loads(done.stdout)["rejected"] == 4


def test_unusable_records_are_rejects(typed, here):
    def empty(value):
        value["annotations"][0].update(answers=[], multiple_choice_answer="")
        value["annotations"][1].update(multiple_choice_answer=7)

    change(here / "world" / VQA, empty)
    change(
        here / "world/vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
        lambda value: value["questions"][2].update(question=" "),
    )
    change(here / "world" / INSTANCES, lambda value: value["annotations"][0].update(segmentation=[]))
    change(here / "world" / CAPTIONS, lambda value: value["annotations"][0].update(caption=" "))
    done = typed(
        "build", "world", "sources=[vqav2, coco-captions, coco-instances]", "--data", "world", "--out", "set2", cwd=here
    )
    assert done.returncode == 0, done.stderr
    rejects = [json.loads(line)["reason"] for line in (here / "set2/rejects.jsonl").read_text().splitlines()]
    assert rejects == [
        "no answer",
        "an answer that is no text",
        "empty question",
        "empty caption",
        "its mask has no area",
    ]


# Pictures


def test_missing_picture(refused, here):
    next((here / "world/images/train2017").iterdir()).rename(here / "world/elsewhere")
    refused("train train.yaml", "world/images: 1 of the dataset's images have no picture there (coco:", "images=")
    (here / "exam/images/val2017/000000001002.png").unlink()
    refused(
        "eval --model start --data exam --out run",
        "exam: 1 of the benchmark's images have no picture there (coco:1002",
        "--images",
    )


@pytest.mark.parametrize(
    "command, picture, result",
    [
        ("train train.yaml", "world/images/train2017/000000000003.png", "train.json"),
        (
            "eval --model start --data exam --per-image 1 --out run",
            "exam/images/val2017/000000001003.png",
            "scores.json",
        ),
    ],
)
def test_unreadable_picture(typed, here, command, picture, result):
    "It is known only when it is opened: what was done until then stays, and mended, the same command finishes."
    whole = (here / picture).read_bytes()
    cut(here / picture)
    command = command.replace("train.yaml", "train.yaml batch=100 micro_batch=16")  # one step that opens all pictures
    one_line(typed(*command.split(), cwd=here), picture, "the picture of coco:", "cannot be read", "download it again")
    assert not (here / "run" / result).exists() and not list(here.rglob("*.partial"))
    if command.startswith("train"):
        return  # seen in test_resume
    (here / picture).write_bytes(whole)
    done = typed(*command.split(), cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "run" / result).exists()


# Nothing in it


def test_nothing_annotated(refused, here):
    change(here / "world" / CAPTIONS, lambda value: value.update(annotations=[]))
    refused(
        "build world sources=[coco-captions] --data world --out set2",
        "no record is left",
        "none was read",
        "recipe world",
    )


def test_nothing_left(refused, here):
    shutil.copy(here / "world" / INSTANCES, here / "world/coco/annotations/instances_val2017.json")
    change(
        here / "world/coco/annotations/instances_val2017.json",
        lambda value: [i.update(coco_url="val2017/") for i in value["images"]],
    )
    refused(
        "build world --data world --out set2",
        "no record is left after exclusions",
        "excluded: image of val2017",
        "widen `splits` or `clean`",
    )


def test_no_conversations(refused, here):
    from cocoift.conversation import write_parquet

    write_parquet(here / "set/conversations/part-00000.parquet", [])
    refused("audit set", "set: holds no conversation", "build or download it again")
    refused("export set --to llava --out x.json", "set: holds no conversation")
    refused("train train.yaml", "set: holds no conversation", "build or download it again")


@pytest.mark.parametrize(
    "command",
    [
        "eval --model scripted:oracle --data world --out run",
        "eval --model scripted:oracle --split test --data exam --out run",
    ],
)
def test_nothing_to_ask(refused, command):
    refused(command, "holds no questions of split")


# Recipes


@pytest.mark.parametrize(
    "command, says",
    [
        ("build world colour=red", ["colour: Extra inputs are not permitted", "keys are name, sources, layout"]),
        ("build world layout=sideways", ["layout: ", "'first-uniform'", "'every-mixed'"]),
        ("build world rounds=[4,2]", ["rounds: [4, 2] is no range of rounds"]),
        ("build world free=2", ["free: ", "less than or equal to 1"]),
        ("build world seed=red", ["seed: ", "integer"]),
        ("build world clean=[everything]", ["clean.0: ", "'everything' is neither a benchmark (val2017, "]),
        ("build world sources=[vqav3]", ["sources: 'vqav3' is no source", "`cocoift sources`"]),
        ("build world sources=[]", ["sources: names no source", "`cocoift sources`"]),
        ("build world sources=5", ["sources: names no source", "`cocoift sources`"]),
        ("build world sources=[{vqav2:}]", ["sources: names no source", "`cocoift sources`"]),
        ("build world sources.vqav2=5", ["sources.vqav2"]),
        ("build world layout", ["layout: is no option", "key=value"]),
        (
            "train train.yaml colour=red",
            ["colour: Extra inputs are not permitted", "keys are model, data, images, out"],
        ),
        ("train train.yaml lr=-1", ["lr: ", "greater than 0"]),
        ("train train.yaml ranks=0", ["ranks: ", "greater than 0"]),
        ("train train.yaml zero=4", ["zero: ", "0, 1, 2 or 3"]),
        ("train train.yaml template=poem", ["template: ", "'vicuna_v1'"]),
        ("train train.yaml epochs=1", ["epochs=1: a run ends by one of them: write steps=", "or epochs=1 steps=null"]),
        ("train train.yaml steps=", ["add steps=N or epochs=N"]),
        ("train train.yaml row_tokens=100", ["row_tokens=100 is less than max_length=2048", "raise row_tokens"]),
        ("train train.yaml muon_lr=0.02 zero=1", ["muon_lr=0.02 zero=1", "set zero=0"]),
        (
            "train train.yaml lora_r=8 train=projector",
            ["lora_r=8 train=projector: adapters are for the language model", "train=language"],
        ),
        ("train train.yaml tower_lr=1e-6", ["tower_lr=1e-06 without a tower that is trained", "tower=true"]),
        ("train train.yaml hostfile=hosts ranks=2", ["hostfile=hosts ranks=2", "leave ranks out"]),
        ("train train.yaml hostfile=nothing", ["nothing: no such file"]),
        ("train train.yaml ranks=512", ["ranks=512: there is no GPU here", "lower ranks"]),
        ("train train.yaml --dry-run --gpu abacus", ["--gpu abacus: is not known", "h200"]),
        ("train train.yaml --gpu h200", ["--gpu: a training takes the GPUs that are here"]),
        ("train llava15-finetune-7b", ["llava15-finetune-7b.yaml", "model: give the checkpoint folder"]),
        ("train world", ["world.yaml: ", "name: Extra inputs are not permitted"]),
    ],
)
def test_recipe(refused, command, says):
    refused(command + " --data world --out set2" * command.startswith("build"), *says)


# Output


@pytest.mark.parametrize(
    "command",
    [
        "build world --data world --out {}",
        "train train.yaml out={}",
        "eval --model scripted:oracle --data exam --out {}",
        "quickstart --tiny --out {}",
    ],
)
def test_output_is_taken(refused, command):
    refused(command.format("other"), "other: holds something else", "name a new or empty folder")
    if not command.startswith("train"):
        refused(command.format("train.yaml"), "train.yaml: is a file", "writes a folder")
        refused(command.format("train.yaml/in"), "train.yaml", "no folder can be made there")


def test_output_of_another_run(refused, here, typed):
    refused(
        "build world layout=first-uniform --data world --out set", "set: holds a dataset of another recipe", "delete it"
    )
    assert typed(*"eval --model scripted:oracle --data exam --out run".split(), cwd=here).returncode == 0
    refused("eval --model scripted:collapse --data exam --out run", "run: holds a run of another model", "delete it")
    refused("eval --model scripted:oracle --bench scope --data exam --out run", "run: holds a run", "(bench differs)")


@pytest.mark.parametrize(
    "command, says",
    [
        ("export set --to carrier-pigeon --out x.json", ["--to carrier-pigeon", "llava, messages"]),
        ("export set --to llava --out x.txt", ["x.txt", ".json"]),
        ("export set --to messages --out x.json", ["x.json", ".parquet"]),
        (
            "eval --model scripted:oracle --bench riddles --data exam --out run",
            ["--bench riddles: no such benchmark", "rounds"],
        ),
        (
            "eval --model scripted:oracle --history rude --data exam --out run",
            ["--history rude: no such history", "forced_short"],
        ),
        ("eval --model scripted:oracle --history terse:many --data exam --out run", ["terse:many", "terse:2"]),
        (
            "eval --model scripted:oracle --per-image 0 --data exam --out run",
            ["--per-image", "greater than or equal to 1"],
        ),
        ("eval --model scripted:oracle --data exam", ["'--out'", "`cocoift eval --help`"]),
        ("build world --dta world", ["--dta", "--data", "`cocoift build --help`"]),
        ("build", ["recipe", "`cocoift build --help`"]),
        ("sources everything", ["everything", "`cocoift sources --help`"]),
        ("quickstart --seed red", ["--seed", "integer"]),
        ("quickstart --full --tiny", ["--full --tiny", "leave one out"]),
    ],
)
def test_options(refused, command, says):
    refused(command, *says)


def test_unknown_command(cocoift, tmp_path):
    one_line(cocoift("biuld", cwd=tmp_path), "cocoift: ", "'biuld'", "'build'", "`cocoift --help`")
    one_line(cocoift("--colour", cwd=tmp_path), "cocoift: ", "--colour", "`cocoift --help`")
    assert not list(tmp_path.iterdir())
