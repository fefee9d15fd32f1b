"lmms-eval's tasks where lmms-eval is not: what is said then, and what is read of it. `make harness` runs it."

import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from PIL import Image

from cocoift.eval.benchmark import askable
from cocoift.eval.examine import Exam, examine, run_exam
from cocoift.eval.harness.tasks import TaskRef, keep_task, open_task, take_apart
from cocoift.eval.official import ScoreInput
from cocoift.eval.options import EvalOptions
from cocoift.eval.paired import pair
from cocoift.eval.scoring import score
from cocoift.files import Journal, UserError
from cocoift.models.ask import Reply
from cocoift.models.scripted import ScriptedModel

absent = pytest.mark.skipif(bool(find_spec("lmms_eval")), reason="lmms-eval is installed here")
MME = " Please answer yes or no."


class Task:
    "What is looked at of an opened task: `ConfigurableMessagesTask`, as far as it is not asked to score."

    config, features = SimpleNamespace(doc_to_target="answer"), {"answer"}

    def __init__(self, sides: str, asked: str = MME):
        self.eval_docs = [
            {"image": Image.new("RGB", (2, 2), (k // 2, 0, 0)), "question": f"Is there a {k}?{asked}", "answer": side}
            for k, side in enumerate(sides.split())
        ]

    def doc_to_messages(self, doc):
        content = [{"type": "image", "url": doc["image"]}, {"type": "text", "text": doc["question"]}]
        return [{"role": "user", "content": content}]

    def doc_to_target(self, doc):
        return doc["answer"]


@absent
def test_it_is_not_installed(tmp_path):
    for name in ("lmms:mmstar", "lmms:no_such_task"):
        with pytest.raises(UserError, match=r"^lmms-eval is not installed: `pip install 'cocoift\[harness\]'`$"):
            examine("scripted:oracle", name, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_benchmark_names_the_family():
    with pytest.raises(UserError, match="--bench lmsm:mmstar: no such benchmark: .* lmms:[.]{3}$"):
        askable("lmsm:mmstar")


def exam(name: str, task: Task, tmp_path, histories=("none", "neutral", "forced_short")) -> Exam:
    keep_task(TaskRef(name, str(tmp_path)), task)
    bench = askable(f"lmms:{name}")
    options = EvalOptions(data=tmp_path, out=tmp_path / "out")
    questions, pictures = bench.load(options, asked := bench.histories(histories))
    return Exam(bench, questions, asked, pictures)


@absent
def test_both_ways_of_asking_and_what_leaks(tmp_path):
    "Openly and as stated, both questions on a picture together; compared with another run without lmms-eval."
    asked = exam("mme_like", Task("Yes No No Yes"), tmp_path)
    assert len(asked.dialogs) == 4 * 3 * 2 and len(asked.pictures) == 2
    results = {name: run_exam(asked.scripted(name), asked, tmp_path / name) for name in ("collapse", "always_full")}
    assert results["collapse"]["leakage"]["value"] == 1 and results["always_full"]["leakage"]["value"] == 0
    assert (
        results["collapse"]["scores"]["accuracy"]["value"] == results["always_full"]["scores"]["accuracy"]["value"] == 1
    )
    assert results["collapse"]["notes"] == [
        "no own score (score): lmms-eval is not installed: `pip install 'cocoift[harness]'`"
    ]
    both, alone = pair(tmp_path / "collapse", tmp_path / "always_full")
    assert alone == 0 and "forced_short.terse" in set(both.metric)


@absent
def test_a_format_that_cannot_be_taken_off_is_asked_as_it_is(tmp_path):
    asked = exam("stuck", Task("Yes No", " Say in one word what it is."), tmp_path)
    assert {d.meta["bound"] for d in asked.dialogs} == {True}


def test_rounds_of_their_own_are_refused(tmp_path):
    task = Task("Yes")
    task.doc_to_messages = lambda doc: [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    keep_task(TaskRef("rounds", str(tmp_path)), task)
    with pytest.raises(UserError, match="--bench lmms:rounds: its documents bring rounds of their own"):
        take_apart(TaskRef("rounds", str(tmp_path)), None, tmp_path)


@absent
def test_a_failed_call_is_no_answer(tmp_path):
    asked = exam("failing", Task("Yes No"), tmp_path, ["none"])

    class Failing(ScriptedModel):
        def answer(self, asks):
            return [
                Reply(status="error", why="timeout") if "0" in ask.instruction else reply
                for ask, reply in zip(asks, super().answer(asks))
            ]

    model = Failing("oracle", asked.scripted("oracle").answer_key)
    result = run_exam(model, asked, tmp_path / "run")
    assert result["coverage"] == 0.5 and result["scores"]["terse_rate"]["n"] == 1
    lines = Journal(tmp_path / "run/rounds.jsonl").read()
    assert [line["status"] for line in lines if line["item"] == "0"] == ["error", "error"]
    again = run_exam(asked.scripted("oracle"), exam("failing", Task("Yes No"), tmp_path, ["none"]), tmp_path / "run")
    assert again["coverage"] == 1


def test_samples_of_with_history_are_scored(tmp_path):
    "Their `input` is a record: the prompt, and every history's answer."
    rows = [
        {"doc_id": k, "filtered_resps": "Yes." if label == "yes" else "No.", "input": {"prompt": text, "answers": {}}}
        for k, (text, label) in enumerate([("Is there a cup?", "yes"), ("Is there a cat?", "no")])
    ]
    asked = [{"question_id": 7, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a cup?", "label": "yes"}]
    asked.append({"question_id": 8, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a cat?", "label": "no"})
    for name, lines in (("samples.jsonl", rows), ("coco_pope_random.json", asked)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ScoreInput(tmp_path / "samples.jsonl", tmp_path / "coco_pope_random.json", mode="open")
    assert score("pope", given)["scores"]["f1"] == 1


def test_the_first_documents(tmp_path):
    keep_task(TaskRef("first", str(tmp_path)), Task("Yes No Yes"))
    for first, count in ((2, 2), (9, 3)):
        options = EvalOptions(data=tmp_path, out=tmp_path / "out", per_image=first)
        assert len(askable("lmms:first").load(options, [("none", 0)])[0]) == count


def test_a_task_is_opened_once(tmp_path):
    keep_task(ref := TaskRef("once", str(tmp_path)), task := Task("Yes"))
    assert open_task(ref) is task
