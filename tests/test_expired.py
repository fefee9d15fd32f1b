"Instructions that ended, in others' dialogs: what their files say, models that are asked, answers that are stored."

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cocoift.eval.expired.dialogs import read_ruled
from cocoift.files import Journal, UserError
from cocoift.texts import read_json


def rule(kind: str, mode: str, value: str = "") -> dict:
    return {"id": kind, "args": {"mode": mode} | ({"value": value} if value else {}), "description": ""}


LOWER, HELLO, BYE = (
    rule("case", "all_lower"),
    rule("startwith", "keyword", "Hello"),
    rule("startwith", "keyword", "Bye"),
)
HELD = [[[], [LOWER], [LOWER], [], []], [[], [HELLO], [BYE], [BYE], []]]


def evolif(path: Path, held: Sequence[Sequence[dict]], said: Sequence[str] = ()) -> Path:
    "A dialog as EvolIF writes it; with answers, as its evaluation does."
    rows = [
        {"turn": k, "active_topic": 7, "user_query": f"{path.stem}, question {k}", "instructions": rules}
        for k, rules in enumerate(held, 1)
    ]
    rows = [row | {"response": text} for row, text in zip(rows, said)] if said else rows
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def dialogs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dialogs")
    for n, held in enumerate(HELD, 1):
        evolif(folder / f"dialog_{n}.jsonl", held)
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("multichallenge_first12.jsonl", "in prose, for a judge (12)"),
        ("mt_bench_question.jsonl", "does not say what holds in its second turn (80)"),
        ("mia_bench_coco80.json", "files of no known format (1)"),
        ("convbench_first12.jsonl", "files of no known format (1)"),
    ],
)
def test_real_files_that_do_not_say(shared, typed, tmp_path, name, says):
    "What holds when is never guessed at: one line, and nothing written."
    data, out = shared / "data/bench/multi-turn" / name, tmp_path / "run"
    done = typed("eval", "--bench", "expired", "--model", "scripted:oracle", "--data", data, "--out", out)
    assert (done.returncode, done.stderr.strip().count("\n")) == (2, 0), done.stderr
    assert says in done.stderr and not out.exists()


def test_a_model_is_asked(typed, dialogs, tmp_path):
    "A checkpoint that reads pictures, on text alone; told, resumed, compared and shown."
    runs = {name: tmp_path / name for name in ("oracle", "collapse")}
    for name, out in runs.items():
        line = ("--bench", "expired", "--model", f"scripted:{name}", "--data", dialogs, "--out", out)
        done = typed("eval", *line, "--json")
        assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["items"], result["coverage"]) == (2, 1.0) and result["scores"]["expired"]["value"] == 5 / 6
    assert result["distances"]["expired"][0] | {"low": 0, "high": 0} == {
        "since": 0, "until": 0, "value": 1.0, "low": 0, "high": 0, "n": 3
    }  # fmt: skip
    whole = {path.name: path.read_bytes() for path in runs["collapse"].glob("*.json*") if path.name != "times.jsonl"}
    journal = Journal(runs["collapse"] / "rounds.jsonl")
    journal.rewrite(journal.read()[:7])
    again = typed("eval", *line)
    assert again.returncode == 0 and "expired, 0 to 0 rounds since: 1.00" in again.stdout
    assert whole == {name: (runs["collapse"] / name).read_bytes() for name in whole}

    done = typed("compare", *runs.values(), "--html", tmp_path / "apart.html", "--json")
    moved = json.loads(done.stdout)["differences"]
    # of two starts it obeys the one that ended, and of two that ended the later
    assert round(moved["leakage"]["value"], 4) == 0.8889 and moved["hold"]["value"] < 0
    assert "dialog_1, question 4" in (tmp_path / "apart.html").read_text()
    done = typed("report", *runs.values(), "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "Rules that ended" in page and "0.89 [0.83, 1.00] of 3" in page


def test_pictures_are_not_needed(babbler, dialogs, tmp_path):
    "What it says to text alone is what plain `generate` says."
    from cocoift.eval.examine import examine
    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel

    result = examine(str(babbler), "expired", dialogs, tmp_path / "run", most_tokens=8)
    lines = [line for line in Journal(tmp_path / "run/rounds.jsonl").read() if line["dialog"] == "dialog_2"]
    assert (result["answered"], result["statuses"]["ok"], len(lines)) == (10, 10, 5)
    model, before = LocalModel(babbler, None, 8), []
    for line in lines:
        row = model.row(Ask.of(line["instruction"], (), before), ())
        assert model.tokenizer.decode(model._plainly((), row)).strip() == line["response"]
        before.append((line["instruction"], line["response"]))


def test_stored_answers(typed, tmp_path):
    "EvolIF's own evaluation files: shares as worked out by hand, calls that failed beside them."
    said = [
        ["Free.", "small.", "small.", "still small.", "Free."],
        ["Hi.", "Hello you.", "Bye, hello.", "Hello again.", "[Error: Unable to generate response]"],
    ]
    for n, (held, texts) in enumerate(zip(HELD, said), 1):
        evolif(tmp_path / f"eval_{n}.jsonl", held, texts)
    done = typed("score", "expired", "--predictions", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # hold: lower twice, Hello, Bye once of two; expired: lower once of two, Hello in the second of two rounds
    assert result["scores"] == {"hold": 0.8, "expired": 0.5, "away": None, "chance": 0.0, "leakage": 0.5}
    assert (result["n"], result["rounds"], result["failed"], result["coverage"]) == (2, 10, 1, 0.9)
    assert result["intervals"]["hold"]["low"] < 0.8 < result["intervals"]["hold"]["high"]
    told = typed("score", "expired", "--predictions", tmp_path).stdout
    assert "1 calls failed and are left out, coverage 90.0%" in told and "expired, 1 to 1 rounds since" in told


def test_a_topic_that_is_left(tmp_path):
    "EvolIF turns to another topic and comes back: away is not ended."
    held = [(1, [LOWER]), (2, []), (1, [LOWER]), (2, []), (1, []), (2, [])]
    rows = [
        {"turn": k, "active_topic": topic, "user_query_verified": f"question {k}", "instructions": rules}
        for k, (topic, rules) in enumerate(held, 1)
    ]
    said = ["small", "small", "small", "Free.", "small", "Free."]
    path = tmp_path / "eval_1.jsonl"
    path.write_text("".join(json.dumps(row | {"response": text}) + "\n" for row, text in zip(rows, said)))
    from cocoift.eval.official import ScoreInput
    from cocoift.eval.scoring import score

    result = score("expired", ScoreInput(path))
    assert result["scores"] == {"hold": 1.0, "expired": 0.5, "away": 0.5, "chance": None, "leakage": None}
    assert [(r["since"], r["value"]) for r in result["distances"]["hold"]] == [(0, 1.0), (2, 1.0)]


def test_multi_if_as_its_runner_writes_it(tmp_path):
    "A CSV with JSON inside, the answers in `turns` and `responses`; a rule that is never listed again has ended."
    ids = [["startend:end_checker"], ["startend:end_checker", "change_case:english_lowercase"], ["keywords:existence"]]
    kwargs = [['{"end_phrase": "Done."}'], ['{"end_phrase": "Done."}', "{}"], ['{"keywords": ["x"]}']]
    said, row = ["A. Done.", "all of it. done.", "Once more. Done."], {"key": "1:1:en", "language": "English"}
    for k, (kinds, settings) in enumerate(zip(ids, kwargs), 1):
        row |= {f"turn_{k}_prompt": json.dumps({"role": "user", "content": f"Turn {k}"})}
        row |= {f"turn_{k}_instruction_id_list": json.dumps(kinds), f"turn_{k}_kwargs": json.dumps(settings)}
    messages = [{"role": "user", "content": "Turn 1"}, {"role": "assistant", "content": said[0]}]
    messages += [{"role": "user", "content": "Turn 2"}, {"role": "assistant", "content": said[1]}]
    row |= {"turns": json.dumps([*messages, {"role": "user", "content": "Turn 3"}]), "responses": said[2]}
    path = tmp_path / "eval_result_step_3.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    [dialog] = ruled = read_ruled(path)
    assert [r.response for r in dialog.rounds] == said and ruled.unchecked == {"multi-if: keywords:existence": 1}
    from cocoift.eval.official import ScoreInput
    from cocoift.eval.scoring import score

    result = score("expired", ScoreInput(path))  # "Done." goes on after its end, lowercase does not
    assert result["scores"] == {"hold": 1.0, "expired": 0.5, "away": None, "chance": 0.0, "leakage": 0.0}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"turn": 1, "instructions": []}, {"turn": 3, "instructions": []}], "record 2 is turn 3"),
        ([{"turn": 1, "user_query": "x", "instructions": [{"id": "case", "args": {}}]}], "case has the settings {}"),
        ([{"prompt": "x", "constraints_data": []}, {"prompt": "y"}], "record 2 lacks prompt or constraints_data"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, rows, says):
    path = tmp_path / "dialog_1.jsonl"
    path.write_text("".join(json.dumps({"user_query": "x"} | row) + "\n" for row in rows))
    with pytest.raises(UserError) as raised:
        read_ruled(path)
    assert says in str(raised.value) and str(path) in str(raised.value)


def test_a_run_says_which_dialogs(typed, dialogs, tmp_path):
    "Another set of dialogs in the same folder is refused."
    line = ("eval", "--bench", "expired", "--model", "scripted:oracle", "--out", tmp_path / "run")
    assert typed(*line, "--data", dialogs).returncode == 0
    assert read_json(tmp_path / "run/run.json")["bench"] == "expired"
    other = evolif(tmp_path / "dialog_9.jsonl", HELD[0])
    done = typed(*line, "--data", other)
    assert done.returncode == 2 and "other items" in done.stderr
    done = typed(*line, "--data", dialogs, "--history", "forced_short")
    assert done.returncode == 2 and "these dialogs have only own" in done.stderr
