"Trainings that users start: every shipped recipe with a checkpoint, two starts of one run, hosts that are not there."

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from test_kept import contents
from test_resume import ranks_of, reached, stamps

from cocoift.locks import only_one
from cocoift.options import RECIPES, load_recipe
from cocoift.train.processes import CPU_RANKS
from cocoift.train.recipe import TrainRecipe

COCOIFT = Path(sys.executable).with_name("cocoift")
STEPS, POINT = 3, 2  # of a run; after how many of them its one checkpoint is written


def inputs(small: Path) -> list[str]:
    return [f"model={small / 'start'}", f"data={small / 'set'}", f"images={small / 'world/images'}"]


def shipped(given: list[str]) -> dict[str, TrainRecipe]:
    "All shipped recipes of trainings, by name."
    options = {path.stem: yaml.safe_load(path.read_text()).keys() for path in sorted(RECIPES.glob("*.yaml"))}
    return {
        name: load_recipe(name, TrainRecipe, given)
        for name, keys in options.items()
        if keys <= TrainRecipe.model_fields.keys()
    }


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_shipped_recipe_is_taken_up_from_its_checkpoint(ranked, small, tmp_path):
    """On two ranks at ZeRO 1, 2 and 3, with the recipe's own parts, adapters, rates, template and precision: what
    follows a checkpoint is what would have followed without one. Recipes that say the same are one cell; three
    rates are one more, and so is what the quickstart trains with: Muon, stage 0, products in bf16."""
    given = [
        *inputs(small),
        "out=run",
        "draw=false",
        "epochs=null",
        f"steps={STEPS}",
        f"checkpoint={POINT}",
        "batch=8",
        "ranks=2",
        "micro_batch=2",
    ]
    cells, names = {}, []  # by all that is said; names that were met
    muon = load_recipe("tiny", TrainRecipe, [*given, "zero=0", "muon_lr=0.02", "precision=bf16"])
    cells["muon"] = muon.model_copy(update={"out": tmp_path / "muon-0"})
    for zero in 1, 2, 3:
        found = shipped([*given, f"zero={zero}"])
        towered = [*given, f"zero={zero}", "tower=true", "tower_lr=2e-6"]
        found["three-rates"] = load_recipe("llava15-lora-7b", TrainRecipe, towered)
        for name, recipe in found.items():
            names.append(name)
            cells.setdefault(recipe.model_dump_json(), recipe.model_copy(update={"out": tmp_path / f"{name}-{zero}"}))
    assert {
        "llava15-pretrain",
        "llava15-finetune-7b",
        "llava15-finetune-13b",
        "llava15-lora-7b",
        "coco-ift-13b",
        "tiny",
    } <= set(names)
    for recipe in cells.values():
        recipe.out.mkdir(), recipe.out.with_name(recipe.out.name + "-again").mkdir()
    ranked("shipped", 2, {"recipes": [json.loads(recipe.model_dump_json()) for recipe in cells.values()]})
    wrong = {}
    for recipe in cells.values():
        run, again = recipe.out, recipe.out.with_name(recipe.out.name + "-again")
        assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
        if lines(again) != lines(run)[POINT:] or contents(again / "model") != contents(run / "model"):
            wrong[run.name] = [[line["loss"] for line in lines(run)[POINT:]], [line["loss"] for line in lines(again)]]
    assert wrong == {}


NETWORK = """#!/bin/sh
# What sshd does with a command, without a network: it runs with little of this environment,
# its stdin is the connection's.
for command; do :; done
exec env -i HOME="$HOME" PATH="$PATH" SSH_CONNECTION="127.0.0.1 50000 127.0.0.1 22" sh -c "$command"
"""


@pytest.fixture
def two_hosts(tmp_path) -> dict[str, str]:
    "An environment in which 127.0.0.9 is a second host, with its hostfile at `tmp_path / 'hosts'`."
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(NETWORK)
    (tmp_path / "bin/ssh").chmod(0o755)
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.9 slots=1\n")
    own = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}  # as users have it
    return own | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_a_second_start_changes_nothing(typed, small, tmp_path, two_hosts):
    """Case 26, on two hosts. While a training runs, the same again and one of another recipe are refused before they
    touch its folder. The ranks of the other host have what those here have. Interrupted once more it is gone at
    once, on both, whatever its step takes; what has the same command line but is another's lives on."""
    run, settled = tmp_path / "run", ("job.json", "run.json", "lock")
    own = [
        "train",
        "tiny",
        *inputs(small),
        f"out={run}",
        f"hostfile={tmp_path / 'hosts'}",
        "batch=8",
        "steps=3000",
        "checkpoint=2000",
    ]
    process = subprocess.Popen(
        [COCOIFT, *own], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=two_hosts
    )
    try:
        while not reached(run, 1) and process.poll() is None:
            time.sleep(0.01)
        before = [(run / name).stat().st_mtime_ns for name in settled]
        for other, told in (
            ("keep=1", "is being trained by another process: wait for it or stop it"),
            ("lr=1e-5", "holds a run of another recipe"),
        ):
            done = typed(*own, other, env=two_hosts)
            assert done.returncode == 2 and f"cocoift train: {run}: {told}" in done.stderr, done.stderr
        assert [(run / name).stat().st_mtime_ns for name in settled] == before
        ranks = ranks_of(run)
        by_host = {p.info["cmdline"][-1]: p for p in ranks if p.info["cmdline"][3] == "cocoift.train.loop"}
        here, there = by_host[socket.gethostname()], by_host["-"]
        names = (*CPU_RANKS, "GLOO_SOCKET_IFNAME", "MASTER_ADDR", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
        shared = {name: there.environ().get(name) for name in names}
        assert shared == {name: here.environ()[name] for name in shared}
        stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *there.info["cmdline"]])
        [os.kill(rank.pid, signal.SIGSTOP) for rank in (here, there)]  # a step without an end
        process.send_signal(signal.SIGINT)
        while "once more to stop at once" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) and not psutil.wait_procs(ranks, 10)[1] and stranger.poll() is None
        stranger.kill()
    finally:
        process.kill()
        process.communicate()
    assert not (run / "train.json").exists() and not (run / "model").exists()


@pytest.mark.parametrize(
    "options, complaint",
    [
        (
            ["hostfile=hosts", "ssh_port=9"],
            "hosts: host 127.0.0.9 is not reached by ssh (ssh: connect to host 127.0.0.9 port 9: "
            "Connection refused): start sshd there, or say where it listens with ssh_port=; or take it out "
            "of the hostfile",
        ),
        (["hostfile=hosts", "ssh_port=70000"], "ssh_port: Input should be less than 65536"),
        (["hostfile=hosts", "interface=eth0 eth1"], "interface: String should match pattern"),
        (["hostfile=hosts", "master=-x"], "master: String should match pattern"),
        (
            ["ssh_port=2222", "master=10.0.0.1"],
            "ssh_port=2222 master=10.0.0.1: is for several hosts: name them with hostfile=, or leave it out",
        ),
    ],
)
def test_a_host_that_is_not_there_is_told_at_once(typed, small, tmp_path, options, complaint):
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.9 slots=1\n")
    done = typed("train", "tiny", *inputs(small), "out=run", *options, cwd=tmp_path)
    assert done.returncode == 2 and complaint in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_host_that_does_not_see_the_files(typed, small, tmp_path, two_hosts):
    there = NETWORK.replace('sh -c "$command"', f"""sh -c "$(echo "$command" | sed 's#{small}#/nowhere#')" """)
    (tmp_path / "bin/ssh").write_text(there)
    done = typed("train", "tiny", *inputs(small), "out=run", "hostfile=hosts", cwd=tmp_path, env=two_hosts)
    assert done.returncode == 2 and "host 127.0.0.9 does not see what this host sees (ls: " in done.stderr, done.stderr
    assert "/nowhere/start" in done.stderr and not (tmp_path / "run").exists()


def test_ranks_that_waited_for_a_folder_look_again(forked, small, tmp_path):
    "The ranks of a command that was killed may still end its run: those that waited for them have nothing left to do."
    run = tmp_path / "run"
    recipe = {
        **dict(option.split("=") for option in inputs(small)),
        "train": "all",
        "ranks": 2,
        "steps": 3,
        "batch": 8,
        "micro_batch": 2,
        "checkpoint": 2,
        "zero": 2,
        "recompute": False,
        "out": str(run),
    }
    assert forked(recipe)["codes"] == [0, 0]
    before, train = stamps(run), (run / "train.json").read_bytes()
    with open(run / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (run / "train.json").rename(tmp_path / "train.json")
        waiting = threading.Thread(target=lambda: codes.extend(forked(recipe)["codes"]))
        codes: list[int] = []
        waiting.start()
        waiting.join(2)
        assert waiting.is_alive()
        (tmp_path / "train.json").rename(run / "train.json")
    waiting.join()
    changed = {name for name, stamp in stamps(run).items() if stamp != before[name]}
    assert codes == [0, 0] and changed <= {"lock"} and (run / "train.json").read_bytes() == train


@pytest.mark.parametrize("command", ["eval", "likelihood", "judge", "quickstart", "experiment"])
def test_no_command_starts_in_a_folder_that_another_writes(typed, small, tmp_path, command):
    out = tmp_path / "out"
    typed_as = {
        "eval": ["eval", "--model", small / "start", "--data", small / "exam", "--out", out],
        "likelihood": ["likelihood", "--model", small / "start", "--data", small / "exam", "--out", out],
        "judge": ["judge", "mm-vet", "--predictions", small / "answers.json", "--judge", "rule", "--out", out],
        "quickstart": ["quickstart", "--tiny", "--out", out],
        "experiment": ["experiment", "paper", "--tiny", "--out", out],
    }
    with only_one(out, "written"):
        done = typed(*typed_as[command])
    told = rf"^cocoift {command}: {out}: is being \w+ by another process: wait for it or stop it$"
    assert done.returncode == 2 and re.search(told, done.stderr, re.M), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_signal_sent_twice_is_one_wish(small, tmp_path):
    """`timeout` and others signal a process and its group, so that it comes twice at once: the checkpoint is written
    all the same."""
    run = tmp_path / "run"
    own = ["train", "tiny", *inputs(small), f"out={run}", "batch=8", "steps=3000", "checkpoint=2000"]
    process = subprocess.Popen([COCOIFT, *own], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not reached(run, 1) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "with a checkpoint; the same command goes on from there" in said, said
    assert len(list((run / "checkpoints").iterdir())) == 1
