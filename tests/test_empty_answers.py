"A model that stops at once has answered, and wrongly: one rule on every path (nbs/models/08_ask.ipynb)."

import pytest

from cocoift.eval.benchmark import benchmark
from cocoift.eval.cascade import decision
from cocoift.eval.dialog import Dialog, Turn
from cocoift.eval.judge import verdict
from cocoift.eval.questions import Question
from cocoift.eval.rubric import load_rubric
from cocoift.eval.run import coverage, run_dialogs
from cocoift.models.ask import Model, Reply

TRUTHS = {"pope": "yes", "gqa": "yes", "aokvqa": (0, ["a dog", "a cat"]), "vqav2": ["yes"] * 10, "textvqa": ["go"] * 10}


@pytest.mark.parametrize("name", TRUTHS)
def test_it_is_wrong_and_of_no_register(name):
    for text in ("", " \n", "…"):
        read = benchmark(name).read_answer(Question("1", (), "Is it?", truth=TRUTHS[name]), False, text)
        assert (read["right"], read["terse"], read["words"], read["unparsed"]) == (0, False, 0, True), (name, text)


def test_an_official_scorer_makes_of_it_what_it_makes():
    asked = Question("1", (), "Is it?", "Yes or no?", "yes_no", truth="yes")
    read = benchmark("pope").read_answer(asked, True, "")  # POPE's own rule takes whatever says no "no" for a yes
    assert (read["right"], read["kept"], read["terse"]) == (1, False, False)


class Nearly(Model):
    "Silent to one, failing at one, answering one; the rounds behind each go on, or do not."

    name, about = "nearly", {}
    said = {"Silent?": Reply(), "Dead?": Reply(status="error", why="away"), "Well?": Reply("Yes, it is.")}

    def answer(self, asks):
        return [self.said[ask.rounds[0].instruction] for ask in asks]


def test_it_is_covered_and_a_failure_is_not(tmp_path):
    dialogs = [Dialog(asked, (), (Turn(asked), Turn("And now?"))) for asked in Nearly.said]
    lines = run_dialogs(Nearly(), dialogs, tmp_path / "run", {"bench": "rounds"})
    done = coverage(dialogs, lines)
    assert (done["answered"], done["empty"], done["coverage"]) == (4, 2, 4 / 6)
    assert done["statuses"]["error"] == done["statuses"]["not_run"] == 1  # a failure ends its dialog, silence does not


def test_of_a_judge_it_is_a_reply_without_a_grade():
    small = verdict(load_rubric("mm-vet"), Reply())
    assert (small["status"], small["reply"], "score" in small) == ("parse_error", "", False)
    assert decision({"status": "scored", "score": 1.0}, small) == "disputed"  # the strong one is asked, nobody waits
    assert decision({"status": "scored", "score": 1.0}, {"status": "api_error"}) == "waiting"
