"""A checkpoint of ours behind a real vLLM: `make vllm [ARGS=CHECKPOINT]`.

One hundred asks with pictures, in several rounds, are answered by the checkpoint here, by `transformers serve` and by
vLLM; every answer must be the same. Some of them, and others without pictures, go to `vllm run-batch` as a file, and
must come back as its server answered them. Without ARGS the checkpoint is a random one that `assemble` makes here,
whose words hang on the picture and on every round before. See README.md beside this file."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")

from conftest import Served, serve, until_it_answers  # noqa: E402
from environments import ROOT, beside_the_lab  # noqa: E402
from tiny import babbler  # noqa: E402

from cocoift.eval.dialog import ask_at  # noqa: E402
from cocoift.eval.examine import open_exam  # noqa: E402
from cocoift.eval.options import EvalOptions  # noqa: E402
from cocoift.files import Failed, UserError  # noqa: E402
from cocoift.models.ask import Ask, Model  # noqa: E402
from cocoift.models.endpoint.batched import BatchedModel  # noqa: E402
from cocoift.models.endpoint.identity import stated_identity  # noqa: E402
from cocoift.models.endpoint.server import ServedModel  # noqa: E402
from cocoift.models.local import LocalModel  # noqa: E402
from cocoift.train.model import assemble, save_llava, tiny_parts  # noqa: E402
from cocoift.world import make_world  # noqa: E402

WORK = ROOT / ".vllm"

MOST, CONTEXT = 16, 1024  # tokens of an answer, of a dialog
SECONDS = 1200  # that vLLM may take: a start is a minute of processor, and this machine may have other work
SMALL = ["--max-model-len", str(CONTEXT), "--max-num-seqs", "16", "--enforce-eager", "--dtype", "float32"]
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}


def repair(packages: Path, install: list) -> None:
    "What keeps the wheels of vLLM and torchvision from starting without a GPU."
    version = next(packages.glob("vllm_cpu-*.dist-info")).name.removesuffix(".dist-info").partition("-")[2]
    named = packages / f"vllm-{version}+cpu.dist-info"  # vLLM looks itself up as `vllm`, and sees a CPU in its version
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    fakes = packages / "torchvision/_meta_registrations.py"  # of operators that its library has with a GPU only
    lines = fakes.read_text().splitlines(keepends=True)
    fakes.write_text("".join(line for line in lines if not line.startswith("@torch.library.register_fake")))


def start_vllm(env: Path, model: Path, folder: Path, seconds: float = SECONDS) -> Served:
    "vLLM on a checkpoint; returns when it answers."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log, address = folder / "vllm.log", ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [env / "bin/vllm", "serve", model, *address, *SMALL],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | QUIET | {"PYTHONPATH": ""},
        )
    return until_it_answers(Served(f"http://127.0.0.1:{port}/v1", model, process, log), seconds)


def checkpoint(folder: Path) -> Path:
    if sys.argv[1:]:
        return Path(sys.argv[1]).resolve()
    texts = ["What is in the middle? A red star, to the left of it a blue circle. How many shapes are there? Four."]
    save_llava(*assemble(*tiny_parts(folder / "parts", texts, width=128)), folder / "start")
    model = babbler(folder / "start", folder / "babbler")
    settings = model / "generation_config.json"  # its rule holds for every answer, whoever gives it
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"repetition_penalty": 1.3}))
    return model


def hundred(world: Path) -> list[Ask]:
    "Questions about pictures, alone and after earlier rounds."
    dialogs = open_exam("rounds", EvalOptions(data=world, out=world, histories=())).dialogs
    chosen = dialogs[:: max(1, len(dialogs) // 100)][:100]
    return [ask_at(d, d.asked[0], [turn.response for turn in d.turns[:-1]]) for d in chosen]


def answered(model: Model, asks: list[Ask]) -> tuple[list[str], float]:
    started = time.perf_counter()
    replies = model.answer(asks)
    if failed := [reply for reply in replies if reply.status != "ok"]:
        raise SystemExit(f"vllm: {len(failed)} of {len(asks)} asks got no answer: {failed[0].why}")
    return [reply.text for reply in replies], time.perf_counter() - started


def too_long(image: str) -> Ask:
    return Ask.of("Why?", image, [("Is it safe?", "Yes " * 2 * CONTEXT)])


def run_batch(env: Path, command: str, folder: Path) -> None:
    "What `--batch file` says is to be typed."
    with (folder / "run-batch.log").open("wb") as log:
        try:
            subprocess.run(
                [env / "bin" / shlex.split(command)[0], *shlex.split(command)[1:], *SMALL],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | QUIET | {"PYTHONPATH": ""},
                check=True,
                timeout=SECONDS,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise SystemExit(f"vllm run-batch: {error}: see {log.name}") from None


def check_batch(env: Path, local: LocalModel, asks: list[Ask], wanted: list[str], folder: Path) -> str:
    "The same answers from a file of requests, and a dialog that is too long is no answer."
    (out := folder / "batched").mkdir()
    started, asks = time.perf_counter(), [*asks, too_long(asks[0].image)]
    for start in range(2):  # the second one reads back what vLLM wrote
        model = BatchedModel(str(local.path), "file", out, local.pictures, most_tokens=MOST)
        try:
            *replies, last = model.answer(asks)
        except Failed as waiting:
            if start:
                raise
            run_batch(env, re.search("`(vllm run-batch .*?)`", str(waiting))[1], folder)
    for ask, ours, reply in zip(asks, wanted, replies, strict=False):
        if reply.text != ours:
            raise SystemExit(f"vllm run-batch: {ask.rounds}: {reply} instead of {ours!r}")
    if last.status != "overflow":
        raise SystemExit(f"vllm run-batch: a dialog that is too long is {last.status}: {last.why}")
    return f"vllm run-batch: {len(replies)} of {len(wanted)} answers equal, {time.perf_counter() - started:.1f} s"


def check_server(server: Served, local: LocalModel, asks: list[Ask], wanted: list[str], name: str) -> str:
    "What it answers, what it says of itself, and how it refuses what is too long."
    model = ServedModel(server.name, local.pictures, most_tokens=MOST, concurrency=8)
    texts, seconds = answered(model, asks)
    for ask, ours, theirs in zip(asks, wanted, texts):
        if ours != theirs:
            raise SystemExit(f"{name}: {ask.rounds}: {theirs!r} instead of {ours!r}")
    if name == "vllm":
        if (reply := model.answer([too_long(asks[0].image)])[0]).status != "overflow":
            raise SystemExit(f"vllm: a dialog that is too long is {reply.status}: {reply.why}")
        if (root := stated_identity(server.url, str(server.model)).get("root")) != str(server.model):
            raise SystemExit(f"vllm: says that it serves {root}, not {server.model}")
    return f"{name}: {len(texts)} of {len(asks)} answers equal, {seconds:.1f} s"


def main() -> int:
    env = beside_the_lab(WORK / "env", HERE / "vllm.txt", "vllm", "a minute or two, 1.4 GB", repair)
    folder = WORK / "data"
    shutil.rmtree(folder, ignore_errors=True)
    model = checkpoint(folder)
    asks = hundred(make_world(folder / "world", 20, split="val", first=3000))
    local = LocalModel(model, folder / "world", most_tokens=MOST)
    wanted, seconds = answered(local, asks)
    if len(set(wanted)) < 10 or not all(ask.images for ask in asks):
        raise UserError(f"{model}: says only {sorted(set(wanted))}: name a checkpoint that has more to say")
    print(f"here: {len(asks)} answers, {len(set(wanted))} different, {seconds:.1f} s", flush=True)
    for name in ("transformers serve", "vllm"):
        server = serve(model, folder) if name != "vllm" else start_vllm(env, model, folder)
        try:
            print(check_server(server, local, asks, wanted, name), flush=True)
            some = [*asks[:: len(asks) // 12], *(Ask.of(ask.instruction) for ask in asks[:4])]
            theirs = answered(ServedModel(server.name, local.pictures, most_tokens=MOST), some)[0]
        finally:
            server.process.terminate()
            server.process.wait(60)
    print(check_batch(env, local, some, theirs, folder), flush=True)
    packages = [p for p in env.glob("lib/python*/site-packages/vllm-*.dist-info")]
    print(json.dumps({"vllm": packages[0].name.split("-")[1].removesuffix(".dist"), "model": str(model)}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"vllm: {error}")
