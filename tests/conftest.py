import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import other_lab
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

# Before torch and DeepSpeed are imported, here and in every process that a test starts; as CPU ranks have it: nothing
# is compiled. Two pytest workers share two cores.
os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1", TORCHDYNAMO_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a kill leaves what was written, and no test takes the power away; here and in `forks.py` the disk is not waited for
os.fsync = lambda file: None
# a shell that runs the suite in the background has it ignored, in every process that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# notebooks run in folders of their own
os.environ["COCOIFT_SHARED"] = str((ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve())


# Two workers take files in this order, long ones first, so that neither waits for the other at the end. Notebooks need
# nothing of each other: they fill what is left, one by one, long ones first.
LONG = (
    "lab app safe models load golden pretrained resume cases_train exact day_one cases_study eval real endpoint "
    "cases_money"
).split()
LONG_PAGES = ("eval/59_examine", "eval/scope/26_metrics", "cli/", "tutorials/", "train/46_launch")


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        name = item.path.stem.removeprefix("test_")
        if name == "notebooks":
            return len(LONG) + 1 + (not item.nodeid.partition("[")[2].startswith(LONG_PAGES))
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)


TOGETHER = {"app": ["/browser/"], "server": ["/test_served.py", "/test_written.py"]}  # what takes long to start


class ByFile(LoadScopeScheduling):
    "A file is a worker's own, a notebook too, and files that need the same server."

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.endswith("/test_notebooks.py"):
            return nodeid
        return next((scope for scope, parts in TOGETHER.items() if any(part in file for part in parts)), file)


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_configure(config):
    if not hasattr(config, "workerinput") and (wrong := other_lab(ROOT)):
        raise pytest.UsageError(wrong)


@pytest.fixture
def command(monkeypatch, capfd):
    "A command in this process: its exit code, what it wrote to stderr, and what it printed."
    from cocoift.cli.main import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cocoift", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return ended.value.code, printed.err, printed.out

    return call


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    "The shared folder, with data/sources and data/coco-mini."
    folder = (ROOT / os.environ.get("COCOIFT_SHARED", "../shared")).resolve()
    if not (folder / "data/sources").is_dir():
        pytest.skip(f"{folder}/data/sources is not there: COCOIFT_SHARED names the shared folder")
    return folder


@pytest.fixture(scope="session")
def cocoift():
    "The installed command: `cocoift('audit', folder, '--json')` gives its returncode, stdout and stderr."
    command = Path(sys.executable).with_name("cocoift")

    def run(*args, **kwargs) -> subprocess.CompletedProcess:
        options = dict(cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=900) | kwargs
        return subprocess.run([command, *map(str, args)], **options)

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A small world and what is made from it, to read only: world/, exam/ (new scenes), set/ (a dataset), start/ (a
    tiny LLaVA)."""
    from cocoift.conversation import read_conversations
    from cocoift.data.build.make import BuildRecipe, build
    from cocoift.options import load_recipe
    from cocoift.train.model import assemble, save_llava, tiny_parts
    from cocoift.world import make_world

    folder = tmp_path_factory.mktemp("small")
    make_world(folder / "world", 12)
    make_world(folder / "exam", 6, split="val", first=1000)
    build(load_recipe("world", BuildRecipe), folder / "world", folder / "set")
    texts = [r.instruction + " " + r.response for c in read_conversations(folder / "set") for r in c.rounds]
    save_llava(*assemble(*tiny_parts(folder / "parts", texts, width=32)), folder / "start")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict:
    "Tiny checkpoints of model families, by name."
    from tiny import EXACT, make

    return {name: make(name, tmp_path_factory.mktemp("families") / name) for name in EXACT}


@dataclass(frozen=True)
class Served:
    "A checkpoint behind an OpenAI-compatible server."

    url: str  # http://127.0.0.1:PORT/v1
    model: Path  # the checkpoint folder; the server knows it by this path
    process: subprocess.Popen
    log: Path

    @property
    def name(self) -> str:
        "URL#NAME, as --model, --judge and --endpoint take it."
        return f"{self.url}#{self.model}"


def until_it_answers(server: Served, seconds: float) -> Served:
    "A server that has been started, as soon as it is ready."
    for _ in range(int(seconds * 4)):
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{server.url.removesuffix('/v1')}/health", timeout=5):
                return server
        except OSError:
            time.sleep(0.25)
    server.process.kill()
    raise AssertionError(f"no server after {seconds} s: {server.log.read_text()[-3000:]}")


def serve(model: Path, folder: Path, port: int | None = None, seconds: float = 180) -> Served:
    "`transformers serve` on a checkpoint; returns when it answers."
    if port is None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
    log = folder / f"serve-{port}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("transformers"),
                "serve",
                model,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--device",
                "cpu",
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    return until_it_answers(Served(f"http://127.0.0.1:{port}/v1", model, process, log), seconds)


@pytest.fixture(scope="session")
def babbler(small, tmp_path_factory) -> Path:
    "A tiny LLaVA whose words hang on the picture and on every round before; to read only."
    import tiny

    return tiny.babbler(small / "start", tmp_path_factory.mktemp("babbler") / "babbler")


@pytest.fixture(scope="session")
def served(babbler, tmp_path_factory):
    """The babbler behind `transformers serve`: pictures, several rounds, streaming. `served.name` is what --model
    takes. Its generation_config.json has rules, which the server obeys, and so must we.
    """
    folder = tmp_path_factory.mktemp("served")
    model = shutil.copytree(babbler, folder / "babbler")
    rules = json.loads((model / "generation_config.json").read_text()) | {"repetition_penalty": 1.3}
    (model / "generation_config.json").write_text(json.dumps(rules))
    server = serve(model, folder)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="session")
def warm() -> Iterator[Path]:
    "A folder of `forks.py`: as `sys.executable`, `warm / 'python'` starts trainings without their seconds of imports."
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def forks(warm):
    "`forks(request)`: what `forks.py` answers."
    log = tempfile.TemporaryFile("w+")
    # as the command line has it before it imports
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests/forks.py", warm],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | quiet | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )

    def answer() -> str:
        line = server.stdout.readline()
        log.seek(0)
        assert line, log.read()[-3000:]
        return line

    def ask(request: dict) -> dict:
        print(json.dumps(request), file=server.stdin, flush=True)
        return json.loads(answer())

    answer()  # it listens
    yield ask
    server.stdin.close()
    server.wait(30)


@pytest.fixture(scope="session")
def apart(forks, tmp_path_factory):
    "`apart({'command': [...]})`: its exit code, what it printed and said, in a forked process."

    def run(what: dict, cwd: Path = ROOT, env: dict | None = None, timeout: float = 600) -> subprocess.CompletedProcess:
        folder = tmp_path_factory.mktemp("apart")
        told = forks(
            {**what, "cwd": str(cwd), "env": dict(env or os.environ), "folder": str(folder), "timeout": timeout}
        )
        return subprocess.CompletedProcess(
            what,
            told["code"],
            *[(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")],
        )

    return run


@pytest.fixture(scope="session")
def typed(apart):
    """`cocoift` without its start: `typed('audit', folder, '--json')`, in a forked process. What hangs on a process
    that starts (its imports, its hash seed, a kill) takes `cocoift`."""
    return lambda *args, **options: apart({"command": [str(arg) for arg in args]}, **options)


@pytest.fixture(scope="session")
def forked(forks):
    """`forked(recipe, after=5, signal=9)`: codes and messages of a training's ranks, started without a launcher; after
    so many steps they get the signal."""
    return lambda recipe, **options: forks({"recipe": recipe, "ranks": recipe["ranks"], **options})


@pytest.fixture(scope="session")
def ranked(forked, tmp_path_factory):
    "`ranked('matrix', 2, job)`: what `ranks.py` found on so many ranks."

    def run(what: str, ranks: int, job: dict) -> dict:
        folder = tmp_path_factory.mktemp("ranks")
        done = forked({"out": str(folder / "job"), "ranks": ranks, "told": job}, what=what)
        assert set(done["codes"]) == {0}, done["log"]
        return json.loads((folder / "found.json").read_text())

    return run


@pytest.fixture(scope="session")
def tiny_quickstart(forks, warm, tmp_path_factory) -> tuple[Path, dict]:
    """The folder of a `cocoift quickstart --tiny` and the document that it printed; to read only. The command starts as
    ever, its trainings and examinations are warm."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one run for all workers
    folder, told = home / "quickstart" / "study", home / "quickstart.json"
    with FileLock(home / "quickstart.lock"):
        if not told.exists():
            # as users have it: DeepSpeed then speaks on stdout
            plain = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
            code = f"import sys; sys.executable = {str(warm / 'python')!r}; from cocoift.cli.main import main; main()"
            command = [sys.executable, "-c", code, "quickstart", "--tiny", "--json", "--out", folder]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=plain
            )
            assert done.returncode == 0, done.stderr
            told.write_text(done.stdout)
    return folder, json.loads(told.read_text())
