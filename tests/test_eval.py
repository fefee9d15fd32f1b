"Models are examined, judged and compared through the command line, and nothing that failed passes for a number."

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import Thread

import psutil
import pytest

from cocoift.eval.dialog import Dialog, Turn
from cocoift.eval.run import run_dialogs
from cocoift.eval.share import run_shared
from cocoift.files import Failed
from cocoift.models.scripted import KeyAnswers, ScriptedModel

COCOIFT = Path(sys.executable).with_name("cocoift")


def told(typed, *args, code: int = 0) -> dict:
    done = typed(*args, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "times.jsonl"
    }


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory) -> Path:
    "A run of the tiny model with its own and with prescribed answers, by one process."
    from cocoift.eval.examine import examine

    out = tmp_path_factory.mktemp("whole") / "tiny"
    examine(str(small / "start"), "rounds", small / "exam", out, ["neutral:1", "own:1"], per_image=1, most_tokens=8)
    return out


def command(small: Path, out: Path, *more) -> list:
    return [
        "eval",
        "--model",
        small / "start",
        "--data",
        small / "exam",
        "--per-image",
        1,
        "--history",
        "neutral:1",
        "--history",
        "own:1",
        "--most-tokens",
        8,
        "--out",
        out,
        *more,
    ]


@pytest.mark.slow
def test_two_processes_killed_leave_the_bytes_of_one(small, tmp_path, whole):
    out = tmp_path / "tiny"
    with subprocess.Popen(
        [COCOIFT, *map(str, command(small, out, "--nproc", 2))],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while not any(path.stat().st_size for path in out.glob("ranks/*/rounds.jsonl")) and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read().decode()
        ranks = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)  # the parent alone: its processes must notice
    assert not psutil.wait_procs(ranks, timeout=30)[1], "processes outlive the command that started them"
    assert not (out / "scores.json").exists()
    from cocoift.eval.examine import examine

    # two others take over, and run to the end
    examine(
        str(small / "start"), "rounds", small / "exam", out, ["neutral:1", "own:1"], per_image=1, most_tokens=8, nproc=2
    )
    assert bytes_of(out) == bytes_of(whole)


class Slow(ScriptedModel):
    "Leaves time to be killed."

    def answer(self, asks):
        time.sleep(0.2)
        return super().answer(asks)


def test_one_of_two_processes_killed(tmp_path):
    "The command says so, and the same command goes on to the bytes of one process."
    book = {(f"coco:{n}", "Is it calm?"): KeyAnswers("Yes", f"Yes, pier {n} is calm.") for n in range(30)}
    dialogs = [Dialog(f"{image}", (image,), (Turn("Is it calm?"),)) for image, _ in book]
    run_dialogs(ScriptedModel("oracle", book), dialogs, tmp_path / "one", {"bench": "test"})
    out = tmp_path / "two"

    def strike():
        while not any(path.stat().st_size for path in out.glob("ranks/1/rounds.jsonl")):
            time.sleep(0.01)
        next(p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())).kill()

    Thread(target=strike, daemon=True).start()
    with pytest.raises(Failed, match="a process of the run died .*: the same command goes on where it stopped"):
        run_shared(partial(Slow, "oracle", book), dialogs, out, {"bench": "test"})
    assert 0 < sum(path.read_bytes().count(b"\n") for path in out.glob("ranks/*/rounds.jsonl")) < len(dialogs)
    run_shared(partial(ScriptedModel, "oracle", book), dialogs, out, {"bench": "test"})
    assert bytes_of(out) == bytes_of(tmp_path / "one")


def test_a_dry_run_knows_what_is_left(small, whole, tmp_path):
    from cocoift.eval.examine import examine

    price = tmp_path / "price.json"
    price.write_text(json.dumps({str(small / "start"): {"input": 1000, "output": 1000}}))
    told = {"dry_run": True, "price": price, "per_image": 1, "most_tokens": 8}
    before, after = (
        examine(str(small / "start"), "rounds", small / "exam", out, ["neutral:1", "own:1"], **told)
        for out in (tmp_path / "new", whole)
    )
    lines = len((whole / "rounds.jsonl").read_text().splitlines())
    assert (before["calls"], before["done"], after["calls"], after["done"], after["price"]) == (lines, 0, 0, lines, 0)
    assert before["price"] > 0 and before["prompt_tokens"] > before["calls"] * 9 and not (tmp_path / "new").exists()


def test_what_does_not_fit_is_a_status(small, tmp_path):
    import shutil

    from cocoift.eval.examine import examine
    from cocoift.files import UserError

    narrow = tmp_path / "narrow"
    shutil.copytree(small / "start", narrow)
    config = json.loads((narrow / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 230
    (narrow / "config.json").write_text(json.dumps(config))

    def run(name: str, **options) -> dict:
        return examine(
            str(narrow),
            "rounds",
            small / "exam",
            tmp_path / name,
            ["none", "neutral:2"],
            per_image=1,
            most_tokens=40,
            **options,
        )

    plain, cut = run("plain"), run("cut", truncate="oldest")
    assert plain["statuses"]["overflow"] > 0 and plain["coverage"] < 1 and plain["truncated"] == 0
    assert cut["truncated"] > 0 and cut["statuses"]["overflow"] < plain["statuses"]["overflow"]
    lines = [json.loads(line) for line in (tmp_path / "cut/rounds.jsonl").read_text().splitlines()]
    assert all(line["prompt"] and line["template"] for line in lines if line["status"] == "ok")
    with pytest.raises(UserError, match="--truncate newest"):
        run("x", truncate="newest")


def test_compare(typed, small, tmp_path):
    from cocoift.eval.examine import examine

    for name in ("oracle", "collapse"):
        examine(f"scripted:{name}", "rounds", small / "exam", tmp_path / name, ["forced_short:1"])
    page = tmp_path / "page.html"
    found = told(
        typed, "compare", tmp_path / "oracle", tmp_path / "collapse", "--html", page, "--images", small / "exam"
    )
    leak = found["differences"]["leakage"]
    assert (leak["value"], leak["low"], leak["high"]) == (1, 1, 1) and leak["p"] <= 2 / 2**6 + 1e-9
    assert all({"value", "low", "high", "p", "holm", "resolves"} <= d.keys() for d in found["differences"].values())
    assert page.read_text().count('class="dialog"') > 3


def test_judging_real_answers(typed, shared, tmp_path):
    from cocoift.files import UserError
    from cocoift.reports.compare import compare
    from cocoift.studies.judged import run_judge

    bench = shared / "data/bench/mm-vet"
    asked, said = (
        json.loads((bench / name).read_text()) for name in ("mm-vet_sample12.json", "results_llava-v1.5-13b.json")
    )
    (tmp_path / "twelve.json").write_text(json.dumps({k: said[k] for k in asked}))
    grades = bench / "llava-v1.5-13b_gpt-4-grade-3runs.json"
    args = [
        "judge",
        "mm-vet",
        "--predictions",
        tmp_path / "twelve.json",
        "--references",
        bench / "mm-vet_sample12.json",
    ]
    canary = [
        "--canary",
        grades,
        "--canary-answers",
        bench / "results_llava-v1.5-13b.json",
        "--canary-references",
        bench / "mm-vet_sample12.json",
    ]
    by_gpt4 = told(typed, *args, "--judge", f"replay:{grades}", "--repeats", 3, "--out", tmp_path / "gpt4", *canary)
    assert (
        by_gpt4["coverage"] == 1
        and round(by_gpt4["scores"]["total"]["value"], 3) == 19.167
        and by_gpt4["canary"]["difference"] == 0
    )
    files = {"references": bench / "mm-vet_sample12.json"}
    run_judge("mm-vet", tmp_path / "twelve.json", "rule", tmp_path / "rule", files)
    with pytest.raises(UserError, match="two instruments"):
        compare(tmp_path / "gpt4", tmp_path / "rule")

    torn = {
        k: {**row, "content": ["2.0" if n % 2 else "0.5"]}
        for n, (k, row) in enumerate(json.loads(grades.read_text()).items())
        if k in asked
    }
    (tmp_path / "torn.json").write_text(json.dumps(torn))
    done = typed(*args, "--judge", f"replay:{tmp_path / 'torn.json'}", "--out", tmp_path / "torn", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and "ended in a score" in done.stderr
    assert found["statuses"]["parse_error"] + found["statuses"]["scored"] == 12 and found["statuses"]["parse_error"] > 0
    low, high = found["scores"]["total"]["bounds"]
    assert low < found["scores"]["total"]["value"] < high and not (tmp_path / "torn/grades.json").exists()

    # the file has three
    four = run_judge("mm-vet", tmp_path / "twelve.json", f"replay:{grades}", tmp_path / "four", files, repeats=4)
    assert four["statuses"]["not_run"] == 12 and four["coverage"] == 0.75
    for predictions, prompt, complaint in [
        (bench / "results_llava-v1.5-13b.json", None, "206 ids that the references don't have"),
        (tmp_path / "twelve.json", "llava-bench", "asks for 'context'"),
    ]:
        with pytest.raises(UserError, match=complaint):
            run_judge("mm-vet", predictions, "rule", tmp_path / "wrong", files, prompt)


def test_a_judge_killed_goes_on(shared, tmp_path):
    "Torn in the middle of a line, and with a call that failed: the same bytes as in one go."
    from cocoift.eval.judge import ReplayJudge
    from cocoift.eval.judging import judge_answers

    bench = shared / "data/bench/mm-vet"
    said = json.loads((bench / "results_llava-v1.5-13b.json").read_text())
    (tmp_path / "twelve.json").write_text(
        json.dumps({k: said[k] for k in json.loads((bench / "mm-vet_sample12.json").read_text())})
    )

    class Mortal(ReplayJudge):
        calls = 0

        def ask(self, items, *rest):
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().ask(items, *rest)

    def judge(who: type, out: str) -> None:
        judge_answers(
            "mm-vet",
            tmp_path / "twelve.json",
            who(bench / "llava-v1.5-13b_gpt-4-grade-3runs.json"),
            tmp_path / out,
            {"references": bench / "mm-vet_sample12.json"},
            repeats=3,
        )

    judge(ReplayJudge, "whole")
    with pytest.raises(KeyboardInterrupt):
        judge(Mortal, "killed")
    with open(tmp_path / "killed/verdicts.jsonl", "ab") as file:
        file.write(b'{"key": "to')
    judge(ReplayJudge, "killed")
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("held", ["[]", "7", '"run"'])
def test_a_run_whose_settings_are_no_object_is_told_in_a_line(held, tmp_path):
    from cocoift.eval.benchmark import benchmark_of
    from cocoift.eval.paired import observed
    from cocoift.eval.run import open_run
    from cocoift.files import Journal, UserError

    (tmp_path / "run.json").write_text(held)
    (tmp_path / "rounds.jsonl").write_text("")
    for reader in (
        lambda: benchmark_of(tmp_path),
        lambda: observed(tmp_path),
        lambda: open_run(tmp_path, {"cocoift": "0"}, Journal(tmp_path / "rounds.jsonl")),
    ):
        with pytest.raises(UserError, match="run.json: holds no JSON object: name a"):
            reader()
