"Models are examined, judged and compared through the command line, and nothing that failed passes for a number."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

COCOIFT = Path(sys.executable).with_name("cocoift")


def told(cocoift, *args, code: int = 0) -> dict:
    done = cocoift(*args, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "times.jsonl"}


@pytest.fixture(scope="module")
def whole(cocoift, small, tmp_path_factory) -> Path:
    "A run of the tiny model with its own and with prescribed answers, by one process."
    out = tmp_path_factory.mktemp("whole") / "tiny"
    told(cocoift, *command(small, out))
    return out


def command(small: Path, out: Path, *more) -> list:
    return ["eval", "--model", small / "start", "--data", small / "exam", "--per-image", 1, "--history", "neutral:1", "--history", "own:1", "--most-tokens", 8, "--out", out, *more]


def test_two_processes_killed_leave_the_bytes_of_one(cocoift, small, tmp_path, whole):
    out = tmp_path / "tiny"
    with subprocess.Popen([COCOIFT, *map(str, command(small, out, "--nproc", 2))], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not any(path.stat().st_size for path in out.glob("ranks/*/rounds.jsonl")) and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read().decode()
        ranks = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)  # the parent alone: its processes must notice
    assert not psutil.wait_procs(ranks, timeout=30)[1], "processes outlive the command that started them"
    assert not (out / "scores.json").exists()
    told(cocoift, *command(small, out, "--nproc", 2))
    assert bytes_of(out) == bytes_of(whole)


def test_a_dry_run_knows_what_is_left(cocoift, small, whole, tmp_path):
    price = tmp_path / "price.json"
    price.write_text('{"input": 1000, "output": 1000}')
    before, after = (told(cocoift, *command(small, out, "--dry-run", "--price", price)) for out in (tmp_path / "new", whole))
    lines = sum(len((whole / name).read_text().splitlines()) for name in ("rounds.jsonl", "pier.jsonl") if (whole / name).exists())
    assert (before["calls"], before["done"], after["calls"], after["done"], after["price"]) == (lines, 0, 0, lines, 0)
    assert before["price"] > 0 and before["prompt_tokens"] > before["calls"] * 9 and not (tmp_path / "new").exists()


def test_what_does_not_fit_is_a_status(cocoift, small, tmp_path):
    import shutil

    narrow = tmp_path / "narrow"
    shutil.copytree(small / "start", narrow)
    config = json.loads((narrow / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 230
    (narrow / "config.json").write_text(json.dumps(config))
    args = ["eval", "--model", narrow, "--data", small / "exam", "--per-image", 1, "--history", "none", "--history", "neutral:2", "--most-tokens", 40]
    plain = told(cocoift, *args, "--out", tmp_path / "plain")
    assert plain["statuses"]["overflow"] > 0 and plain["coverage"] < 1 and plain["truncated"] == 0
    cut = told(cocoift, *args, "--truncate", "oldest", "--out", tmp_path / "cut")
    assert cut["truncated"] > 0 and cut["statuses"]["overflow"] < plain["statuses"]["overflow"]
    lines = [json.loads(line) for line in (tmp_path / "cut/rounds.jsonl").read_text().splitlines()]
    assert all(line["prompt"] and line["template"] for line in lines if line["status"] == "ok")
    assert cocoift(*args, "--truncate", "newest", "--out", tmp_path / "x").returncode == 2


def test_compare(cocoift, small, tmp_path):
    for name in ("oracle", "collapse"):
        told(cocoift, "eval", "--model", f"scripted:{name}", "--data", small / "exam", "--history", "forced_short:1", "--out", tmp_path / name)
    page = tmp_path / "page.html"
    found = told(cocoift, "compare", tmp_path / "oracle", tmp_path / "collapse", "--html", page, "--images", small / "exam")
    leak = found["differences"]["leakage"]
    assert (leak["value"], leak["low"], leak["high"]) == (1, 1, 1) and leak["p"] <= 2 / 2**6 + 1e-9
    assert all({"value", "low", "high", "p", "holm", "resolves"} <= d.keys() for d in found["differences"].values())
    assert page.read_text().count('class="dialog"') > 3


def test_judging_real_answers(cocoift, shared, tmp_path):
    bench = shared / "data/bench/mm-vet"
    asked, said = (json.loads((bench / name).read_text()) for name in ("mm-vet_sample12.json", "results_llava-v1.5-13b.json"))
    (tmp_path / "twelve.json").write_text(json.dumps({k: said[k] for k in asked}))
    grades = bench / "llava-v1.5-13b_gpt-4-grade-3runs.json"
    args = ["judge", "mm-vet", "--predictions", tmp_path / "twelve.json", "--references", bench / "mm-vet_sample12.json"]
    canary = ["--canary", grades, "--canary-answers", bench / "results_llava-v1.5-13b.json", "--canary-references", bench / "mm-vet_sample12.json"]
    by_gpt4 = told(cocoift, *args, "--judge", f"replay:{grades}", "--repeats", 3, "--out", tmp_path / "gpt4", *canary)
    assert by_gpt4["coverage"] == 1 and round(by_gpt4["scores"]["total"]["value"], 3) == 19.167 and by_gpt4["canary"]["difference"] == 0
    told(cocoift, *args, "--judge", "rule", "--out", tmp_path / "rule")
    refused = cocoift("compare", tmp_path / "gpt4", tmp_path / "rule")
    assert refused.returncode == 2 and "two instruments" in refused.stderr

    torn = {k: {**row, "content": ["2.0" if n % 2 else "0.5"]} for n, (k, row) in enumerate(json.loads(grades.read_text()).items()) if k in asked}
    (tmp_path / "torn.json").write_text(json.dumps(torn))
    done = cocoift(*args, "--judge", f"replay:{tmp_path / 'torn.json'}", "--out", tmp_path / "torn", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and "ended in a score" in done.stderr
    assert found["statuses"]["parse_error"] + found["statuses"]["scored"] == 12 and found["statuses"]["parse_error"] > 0
    low, high = found["scores"]["total"]["bounds"]
    assert low < found["scores"]["total"]["value"] < high and not (tmp_path / "torn/grades.json").exists()

    dead = cocoift(*args, "--judge", f"replay:{grades}", "--repeats", 4, "--out", tmp_path / "four", "--json")  # the file has three
    assert dead.returncode == 1 and json.loads(dead.stdout)["statuses"]["not_run"] == 12
    for wrong, complaint in [(["--predictions", bench / "results_llava-v1.5-13b.json"], "206 ids that the references don't have"), (["--prompt", "llava-bench"], "asks for 'context'")]:
        done = cocoift(*args, *wrong, "--judge", "rule", "--out", tmp_path / "wrong")
        assert done.returncode == 2 and complaint in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
