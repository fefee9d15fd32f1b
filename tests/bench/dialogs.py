"""Questions about many pictures under four histories: one batch of different pictures, beside other ways, in turn.

    python tests/bench/dialogs.py [--quick] [--model CHECKPOINT] [--items 200] [--per-image 1] [--answer 24]
        [--repeats 2] [--before CHECKOUT] [--lmms PYTHON]

`--items` questions about drawn scenes, `--per-image` of each, are each asked under `none`, `neutral`, `terse` and
`forced_short`: by `cocoift` as it is; by another checkout of it, for what a change has brought; and by lmms-eval's
`llava_hf`, whose model class gets the same messages without its evaluator. `--lmms` names the Python of an environment
that has it (`make harness`: .harness/env/bin/python). Every way is a process of its own with one thread; its seconds
are the processor's, user and system, from its start to its end, the least of `--repeats`. Answers must be equal.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent.parent
WHAT = ("seconds", "answering")  # from start to end; without imports and opening the model


def ours(job: dict) -> tuple[list[str], float]:  # answers, seconds of answering
    from cocoift.eval.dialog import ask_at
    from cocoift.eval.examine import open_exam
    from cocoift.eval.options import EvalOptions
    from cocoift.eval.run import run_dialogs
    from cocoift.models.local import LocalModel

    out = Path(job["out"])
    exam = open_exam("rounds", EvalOptions(data=Path(job["data"]), out=out, histories=(), per_image=job["per_image"]))
    dialogs = [d for d in exam.dialogs if not d.meta["bound"]][: 4 * job["items"]]
    model = LocalModel(job["model"], job["data"], most_tokens=job["answer"])
    opened = time.process_time()
    lines = run_dialogs(model, dialogs, out / "run", exam.settings)
    seconds = time.process_time() - opened
    asks = [ask_at(d, d.asked[0], [turn.response for turn in d.turns[:-1]]) for d in dialogs]
    rounds = [[[r.instruction, r.response] for r in ask.rounds] for ask in asks]
    pictures = [str(model.pictures[ask.image]) for ask in asks]
    (out / "asks.json").write_text(json.dumps({"rounds": rounds, "pictures": pictures}))
    return [line["response"] for line in lines], seconds


def lmms(job: dict) -> tuple[list[str], float]:  # as `ours`
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.chat.llava_hf import LlavaHf
    from PIL import Image

    asks = json.loads(Path(job["asks"]).read_text())
    docs = list(zip(asks["rounds"], asks["pictures"]))

    def messages(doc: tuple) -> list[dict]:
        spoken = []
        for number, (instruction, response) in enumerate(doc[0]):
            picture = [{"type": "image", "url": Image.open(doc[1]).convert("RGB")}] if not number else []
            spoken.append({"role": "user", "content": [*picture, {"type": "text", "text": instruction}]})
            if number < len(doc[0]) - 1:
                spoken.append({"role": "assistant", "content": [{"type": "text", "text": response}]})
        return spoken

    model = LlavaHf(pretrained=job["model"], device="cpu", device_map="cpu", dtype="float32", batch_size=1)
    model.task_dict = {"asks": {"all": docs}}
    settings = {"max_new_tokens": job["answer"], "temperature": 0, "do_sample": False}
    about = {"task": "asks", "repeats": 1}
    requests = [
        Instance("generate_until", ("", messages, dict(settings), k, "asks", "all"), k, about | {"doc_id": k})
        for k in range(len(docs))
    ]
    opened = time.process_time()
    results = model.generate_until(requests)
    seconds = time.process_time() - opened
    return [getattr(result, "text", result).strip() for result in results], seconds


def child(way: str, job: dict) -> None:
    answers, answering = {"lmms": lmms}.get(way, ours)(job)
    used = resource.getrusage(resource.RUSAGE_SELF)
    done = {"answers": answers, "answering": answering, "seconds": used.ru_utime + used.ru_stime}
    Path(job["result"]).write_text(json.dumps(done))


def timed(way: str, job: dict, python: str, checkout: Path) -> dict:
    done = subprocess.run(
        [python, __file__, "--child", way, json.dumps(job)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-3000:]}")
    return json.loads(Path(job["result"]).read_text())


def made_model(folder: Path) -> Path:
    from cocoift.train.model import assemble, save_llava, tiny_parts

    texts = ["What is in the middle? A red star, to the left of it a blue circle. How many shapes are there? Four."]
    return save_llava(*assemble(*tiny_parts(folder / "parts", texts, width=128)), folder / "model")


def measure(args, folder: Path) -> dict:
    from cocoift.world import make_world

    items, answer = (12, 8) if args.quick else (args.items, args.answer)
    scenes = make_world(folder / "scenes", -(-items // args.per_image) + 4, split="val", first=5000)
    model = args.model or made_model(folder)
    ways = {"now": (sys.executable, ROOT)}
    ways |= {"before": (sys.executable, args.before)} if args.before else {}
    ways |= {"lmms": (args.lmms, ROOT)} if args.lmms else {}
    runs: dict[str, list[dict]] = {way: [] for way in ways}
    for turn in range(1 if args.quick else args.repeats):
        for way, (python, checkout) in ways.items():
            out = folder / f"{way}-{turn}"
            out.mkdir()
            job = {"model": str(model), "data": str(scenes), "items": items, "per_image": args.per_image}
            job |= {"answer": answer, "out": str(out), "result": str(out / "result.json")}
            runs[way].append(done := timed(way, job | {"asks": str(folder / "now-0/asks.json")}, python, checkout))
            print(f"{way}: {len(done['answers'])} answers, {done['seconds']:.1f} processor seconds", file=sys.stderr)
    best = {what: {way: min(run[what] for run in each) for way, each in runs.items()} for what in WHAT}
    answers = {way: each[0]["answers"] for way, each in runs.items()}
    return {
        "answers": len(answers["now"]),
        "pictures": -(-items // args.per_image),
        "processor_s": {way: round(s, 2) for way, s in best["seconds"].items()},
        "answering_s": {way: round(s, 2) for way, s in best["answering"].items()},
        "answers_per_processor_s": {way: round(len(answers["now"]) / s, 1) for way, s in best["seconds"].items()},
        "vs": {
            way: {what: round(best[what][way] / best[what]["now"], 2) for what in WHAT} for way in ways if way != "now"
        },
        "equal": {way: sum(map(str.__eq__, theirs, answers["now"])) for way, theirs in answers.items() if way != "now"},
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], json.loads(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 questions, once, by a random model")
    parser.add_argument("--model", type=Path, help="a checkpoint; a tiny random one if not given")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--per-image", type=int, default=1)
    parser.add_argument("--answer", type=int, default=24, help="tokens")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--before", type=Path, help="another checkout of the lab")
    parser.add_argument("--lmms", help="the Python of an environment with lmms-eval")
    with TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args(), Path(folder))))


if __name__ == "__main__":
    main()
