"A rule, a small judge, and the strong one where they disagree: over a scripted server, resumed, within one budget."

import json
from collections import Counter
from pathlib import Path

import pytest
from mock_server import MockServer, Refusal

from cocoift.eval.cascade import stage_folder
from cocoift.files import Failed, Journal, UserError
from cocoift.models.endpoint.cache import Cache
from cocoift.models.endpoint.spending import Spending, paid
from cocoift.studies.judged import run_judge

N = 12
DISPUTED, UNREAD, SILENT = "question 3?", "question 5?", "question 7?"


@pytest.fixture
def bench(tmp_path) -> tuple[Path, dict[str, Path]]:
    "Answers that state their reference, and the references."
    asked = {
        f"v1_{k}": {"imagename": f"{k}.png", "question": f"question {k}?", "answer": "cat", "capability": ["rec"]}
        for k in range(N)
    }
    (tmp_path / "mm-vet.json").write_text(json.dumps(asked))
    (tmp_path / "answers.json").write_text(json.dumps(dict.fromkeys(asked, "A cat.")))
    return tmp_path / "answers.json", {"references": tmp_path / "mm-vet.json"}


class Judges(MockServer):
    "Two judges by their names: the small one says otherwise of one answer, is unclear about one, and fails at one."

    def __init__(self):
        self.asked, self.mute = Counter(), True
        super().__init__(self.grade)

    def grade(self, body: dict) -> str:
        text, name = body["messages"][-1]["content"], body["model"]
        text = text if isinstance(text, str) else text[0]["text"]
        last = text.rpartition("\n")[2] if "question" in text.rpartition("\n")[2] else text
        self.asked[name] += 1
        if name == "strong":
            return "0.9"
        if DISPUTED in last:
            return "0.2"
        if UNREAD in last:
            return "rather good, I think"
        if SILENT in last and self.mute:
            raise Refusal(400, "not now")
        return "1.0"


def judged(bench, url, out, **more) -> dict:
    answers, files = bench
    return run_judge("mm-vet", answers, f"{url}#strong", out, files, small=f"{url}#small", **more)


def test_each_answer_by_as_few_as_agree(bench, tmp_path, typed):
    out, server = tmp_path / "j" / "arm", Judges()
    with server as url:
        first = judged(bench, url, out)
        lines = {line["item"]: line for line in Journal(out / "verdicts.jsonl").read()}
        stages = Counter(line["stage"] for line in lines.values())
        # the call that failed is a status, waits for its judge, and is no score
        assert (lines["v1_7"]["status"], lines["v1_7"]["stage"], "score" in lines["v1_7"]) == (
            "api_error",
            "small",
            False,
        )
        assert (first["statuses"]["scored"], first["statuses"]["api_error"], first["cascade"]["waiting"]) == (
            N - 1,
            1,
            1,
        )
        assert stages == {"small": N - 2, "strong": 2} and first["cascade"]["disputed"] == 2
        assert [lines[f"v1_{k}"]["score"] for k in (0, 3, 5)] == [1.0, 0.9, 0.9]
        audited = first["cascade"]["audit"]["n"]
        assert server.asked["strong"] == 2 + audited
        assert first["scores"]["total"]["n"] == N - 1

        server.mute, before = False, server.asked.copy()
        whole = judged(bench, url, out)  # only what failed is asked again
        assert server.asked - before == Counter(small=1) or server.asked - before == Counter(small=1, strong=1)
        assert whole["statuses"]["scored"] == N and whole["cascade"]["waiting"] == 0
        small, strong = whole["stages"][1:]
        assert (small["judgements"], small["statuses"]["parse_error"], strong["final"]) == (N, 1, 2)
        assert strong["calls"] == server.asked["strong"] and small["tokens_in"] > 0
        assert whole["fingerprint"]["backend"] == "cascade" and "strong" in whole["fingerprint"]["model"]

        bytes_of = {path.name: path.read_bytes() for path in out.iterdir()}
        before = server.asked.copy()
        judged(bench, url, out)
        assert server.asked == before and bytes_of == {path.name: path.read_bytes() for path in out.iterdir()}

        again = tmp_path / "again" / "arm"  # the strong judge alone, on the same answers
        run_judge("mm-vet", bench[0], f"{url}#strong", again, bench[1])
    done = typed("report", out, again, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert f"{N}/{N}" in page and "Regrading drift" in page and "its grade stands" in page


def test_one_budget_for_both(bench, tmp_path):
    (tmp_path / "prices.yaml").write_text("small: {input: 1, output: 1}\nstrong: {input: 1000, output: 1000}\n")
    out, server, budget = tmp_path / "out", Judges(), 0.6
    with server as url:
        plan = judged(bench, url, out, dry_run=True, price=tmp_path / "prices.yaml")
        assert plan["calls"] == 2 * N and plan["stages"]["strong"]["price"] > 500 * plan["stages"]["small"]["price"] > 0
        pay = {"price": tmp_path / "prices.yaml", "most_tokens": 16}
        with pytest.raises(Failed, match=f"--budget {budget} for both judges: .* what was answered is kept"):
            judged(bench, url, out, budget=budget, **pay)
        asked = server.asked.copy()
        assert asked["small"] >= N and asked["strong"] == 0
        result = judged(bench, url, out, budget=100, **pay)
        assert server.asked["small"] - asked["small"] <= 1  # but for the one that failed, it is not asked again
    bills = [paid(Spending(Cache(stage_folder(out, s) / "answers.sqlite")), "judge") for s in ("small", "strong")]
    assert 0 < bills[0]["cost"] < 0.1 < bills[1]["cost"]
    assert [stage["cost"] for stage in result["stages"][1:]] == [bill["cost"] for bill in bills]
    assert result["statuses"]["scored"] == N - 1


@pytest.mark.parametrize(
    ("judge", "small", "says"),
    [
        ("http://127.0.0.1:9/v1#a", "rule", "--small rule: the rule is asked anyway"),
        ("http://127.0.0.1:9/v1#a", "http://127.0.0.1:9/v1#a", "is the judge itself"),
        ("rule", "http://127.0.0.1:9/v1#a", "--judge rule: has nobody to ask"),
        ("http://127.0.0.1:9/v1#a", "nowhere", "--small nowhere: no such judge"),
        ("nowhere", "http://127.0.0.1:9/v1#a", "--judge nowhere: no such judge"),
    ],
)
def test_wrong_names_are_refused(bench, tmp_path, judge, small, says):
    with pytest.raises(UserError) as raised:
        run_judge("mm-vet", bench[0], judge, tmp_path / "out", bench[1], small=small)
    assert says in str(raised.value) and not (tmp_path / "out-stages").exists()


def test_no_canary_with_two_judges(bench, tmp_path):
    canary = (bench[0], bench[0], bench[1]["references"])
    with pytest.raises(UserError, match="--canary: regrades with one judge"):
        run_judge("mm-vet", bench[0], "http://x/v1#a", tmp_path / "o", bench[1], small="http://x/v1#b", canary=canary)
