"What others wrote is scored by the field that is the answer, under the question it belongs to; else it is refused."

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cocoift.cli.main import main
from cocoift.eval.benchmarks.vqa import plain_words, vqa_accuracy
from cocoift.eval.judging import to_judge
from cocoift.eval.official import ScoreInput
from cocoift.eval.scoring import score
from cocoift.files import UserError
from cocoift.texts import read_json

THINGS = ("cup", "dog", "chair", "bus", "lamp", "bench", "clock", "horse", "knife", "pizza")
ASKED = [f"Is there a {thing} in the image?" for thing in THINGS]
IMAGES = [f"COCO_val2014_{k:012}.jpg" for k in range(1, 11)]
TRUE = ["yes", "no"] * 5
SAID = ["Yes"] * 4 + ["No"] * 6  # tp 2, fp 2, tn 3, fn 3


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def cases(shared) -> Path:
    return shared / "data/cases"


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "coco_pope_mine.json"
    rows = zip(range(1, 11), IMAGES, ASKED, TRUE)
    path.write_text(lines({"question_id": k, "image": i, "text": q, "label": t} for k, i, q, t in rows))
    return path


def pope(asked: Path, tmp_path: Path, rows, **more) -> dict:
    (tmp_path / "said.jsonl").write_text(rows if isinstance(rows, str) else lines(rows))
    return score("pope", ScoreInput(tmp_path / "said.jsonl", asked, **more))


@pytest.mark.parametrize(
    "bench, said, references, mode, want",
    [
        ("pope", "01-*/vlmeval.jsonl", "01-*/coco_pope_mine.json", "official", {"accuracy": 0.5}),
        ("pope", "01-*/gtresp.jsonl", "01-*/coco_pope_mine.json", "official", {"accuracy": 0.5}),
        ("vqa", "01-*/res_gt.json", "01-*/ann.json", "official", {"overall": 0}),
        ("gqa", "01-*/gqa_pred_gt.json", "01-*/gqa.json", "official", {"overall": 0}),
        ("pope", "02-*/textq.jsonl", "02-*/coco_pope_mine.json", "official", {"yes_ratio": 0.4, "f1": 4 / 9}),
        ("pope", "02-*/textresp.jsonl", "02-*/coco_pope_mine.json", "official", {"yes_ratio": 0.4, "f1": 4 / 9}),
        ("pope", "19-*/merged.jsonl", "19-*/coco_pope_mine.json", "official", {"accuracy": 1}),
        (
            "pope",
            "20-*/think.jsonl",
            "20-*/coco_pope_mine.json",
            "open",
            {"yes_ratio": 0.4, "f1": 4 / 9, "unparsed": 0},
        ),
    ],
)
def test_cases(bench, said, references, mode, want, cases):
    told = score(bench, ScoreInput(*(next(cases.glob(name)) for name in (said, references)), mode=mode))
    assert {name: told["scores"][name] for name in want} == pytest.approx(want)


def row_of(k: int, **fields) -> dict:  # q: question, a: answer, t: truth, i: image, n: id, p: place
    what = {
        "q": ASKED[k],
        "a": SAID[k],
        "t": TRUE[k].capitalize(),
        "i": IMAGES[k],
        "n": k + 1,
        "p": k,
        "other": 10_000_000 + k,
    }
    return {name: what[value] if isinstance(value, str) and value in what else value for name, value in fields.items()}


FORMATS = {
    "llava": dict(question_id="n", prompt="q", text="a", answer_id="x", model_id="llava", metadata={}),
    "llava, its own ids": dict(question_id="other", prompt="q", text="a", answer_id="x", model_id="llava"),
    "pope": dict(question="q", answer="a"),
    "pope, labelled": dict(question="q", answer="a", label="t"),
    "vlmevalkit": dict(index="p", question="q", answer="t", prediction="a", category="adversarial", split="val"),
    "vlmevalkit, thinking": dict(index="p", question="q", answer="t", prediction="a", thinking="t"),
    "internvl": dict(question_id="n", question="q", answer="a", annotation="t"),
    "qwen-vl": dict(question_id="n", answer="a", gt="t"),
    "mmmu": dict(id="n", question_type="open", answer="t", response="a", parsed_pred="t"),
    "mathvista": dict(question_id="n", query="q", answer="t", response="a", extraction="t"),
    "ms-swift": dict(
        response="a",
        labels="t",
        logprobs=None,
        messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    ),
    "llamafactory": dict(prompt="q", predict="a", label="t"),
    "output": dict(question_id="n", question="q", answer="t", output="a"),
    "outputs": dict(question_id="n", question="q", ground_truth="t", outputs=["a"]),
    "model_output": dict(id="n", input="q", target="t", model_output="a"),
    "generated": dict(question_id="n", question="q", reference="t", generated_text="a"),
    "pred": dict(question_id="n", question="q", answer="t", pred="a"),
    "question file": dict(question_id="n", image="i", text="q", label="t", answer="a"),
    "questions in text": dict(question_id="n", text="q", answer="a"),
    "question file, response": dict(question_id="n", image="i", text="q", label="t", response="a"),
    "answer last": dict(label="t", text="q", image="i", answer="a", question_id="n"),
    "ids as floats": dict(question_id=1.0, text="a"),
    "response empty": dict(question_id="n", prediction="a", response=None),
}


@pytest.mark.parametrize("name", FORMATS)
def test_field_of_every_format(name, asked, tmp_path):
    "One model's answers in everybody's fields: one score."
    rows = [row_of(k, **FORMATS[name]) for k in range(10)]
    for k, row in enumerate(rows):
        if name == "ids as floats":
            row["question_id"] = float(k + 1)
        if "outputs" in row:
            row["outputs"] = [SAID[k]]
        if "messages" in row:
            row["messages"] = [
                {"role": "user", "content": f"<image>{ASKED[k]}"},
                {"role": "assistant", "content": SAID[k]},
            ]
    told = pope(asked, tmp_path, rows)
    assert told["counts"] == {"tp": 2, "fp": 2, "tn": 3, "fn": 3}
    if "question_id" in rows[0] and "own ids" not in name or "index" in rows[0] or "id" in rows[0]:
        assert pope(asked, tmp_path, rows[::-1])["counts"] == told["counts"], "in another order"


@pytest.mark.parametrize(
    "fields, complaint",
    [
        (dict(question_id="n", text="t", answer="a"), "text and answer could each be the answer"),
        (dict(question_id="n", text="q"), "no field is known as an answer"),
        (dict(question_id="n", question="q", text="a", answer="t"), "text and answer could each be the answer"),
        (dict(question_id="n", question="q", answer="t", qwen="a"), "answer and qwen could each be the answer"),
        (dict(question_id="n", question="q", answer="t", pred="a", gt="t"), "pred and answer could each be the answer"),
        (dict(question_id="n", prediction="a", response="t"), "prediction and response could each be the answer"),
        (dict(question_id="n", output="a", completion="t"), "output and completion could each be the answer"),
        (dict(query="q", response="t", output="a"), "response and output could each be the answer"),
        (
            dict(question_id="n", response="t", generated_text="a"),
            "response and generated_text could each be the answer",
        ),
        (dict(question_id="n", question="q", answer="t", qwen="Yes."), "answer and qwen could each be the answer"),
        (dict(question_id="n", question="q", answer="t", said="a"), "answer and said could each be the answer"),
        (dict(question_id="n", answer="t", result={"text": "Yes"}), "answer and result could each be the answer"),
        (
            dict(question_id="n", answer="t", choices=[{"message": {"role": "assistant", "content": "Yes"}}]),
            "answer and choices could each be the answer",
        ),
        (
            dict(answer="t", messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "No"}]),
            "answer and messages could each be the answer",
        ),
        (dict(question_id="n", image="i", text="q", label="t"), "no field is known as an answer"),
        (dict(question_id="n", said="a"), "no field is known as an answer"),
        (dict(text="a"), "no questions to check the order by"),
        (dict(question_id="other", text="a"), "lacks an answer to 1 "),
        (dict(question_id=None, text="a"), "which is no id"),
        (dict(question_id=True, text="a"), "which is no id"),
    ],
)
def test_what_cannot_be_told_is_refused(fields, complaint, asked, tmp_path, capsys, monkeypatch):
    (tmp_path / "said.jsonl").write_text(lines(row_of(k, **fields) for k in range(10)))
    monkeypatch.setattr(
        "sys.argv",
        ["cocoift", "score", "pope", "--predictions", str(tmp_path / "said.jsonl"), "--references", str(asked)],
    )
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert stop.value.code == 2 and complaint in told.err and len(told.err.splitlines()) == 1 and not told.out


def test_a_stated_field(asked, tmp_path):
    rows = [row_of(k, question_id="n", question="q", answer="t", qwen="a") for k in range(10)]
    assert pope(asked, tmp_path, rows, field="qwen")["scores"]["accuracy"] == 0.5
    assert pope(asked, tmp_path, rows, field="answer")["scores"]["accuracy"] == 1
    with pytest.raises(UserError, match="--field said: .* has no such field"):
        pope(asked, tmp_path, rows, field="said")


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"prediction": None}, "5: 'prediction' holds no answer"),
        ({"prediction": ["Yes", "No"]}, "which is no text"),
        ({"prediction": 1}, "which is no text"),
        ({"prediction": ...}, "5 has no 'prediction', which holds the answers of the others"),
        ({"question_id": ...}, "record 5 has no question_id"),
        ({"question_id": 4}, "question_id 4 is there twice"),
        ({"question": "Is there a cat in the image?"}, "answer 5 .* is to 'Is there a cat"),
        ({"image": IMAGES[0]}, "answer 5 .* is to 'COCO_val2014_000000000001.jpg'"),
    ],
)
def test_one_odd_row(change, complaint, asked, tmp_path):
    rows = [row_of(k, question_id="n", image="i", question="q", answer="t", prediction="a") for k in range(10)]
    rows[4] = {name: value for name, value in (rows[4] | change).items() if value is not ...}
    with pytest.raises(UserError, match=complaint):
        pope(asked, tmp_path, rows)


def test_questions_alone_hold_no_answers(asked, tmp_path):
    rows = [{"question_id": k + 1, "text": f"{q} Please answer yes or no."} for k, q in enumerate(ASKED)]
    with pytest.raises(UserError, match="no field is known as an answer"):
        pope(asked, tmp_path, rows)
    told = pope(asked, tmp_path, [row | {"answer": said} for row, said in zip(rows, SAID)])
    assert told["scores"]["accuracy"] == 0.5


def test_logs_in_one_object(asked, tmp_path):
    "lmms-eval's first versions wrote one object; A-OKVQA's predictions hold both of its tasks."
    logs = [
        {"doc_id": k, "target": TRUE[k], "doc": {"question_id": str(k + 1), "question": q}, "filtered_resps": [SAID[k]]}
        for k, q in enumerate(ASKED)
    ]
    for indent in (None, 1):
        told = pope(asked, tmp_path, json.dumps({"args": {}, "model_configs": {}, "logs": logs[::-1]}, indent=indent))
        assert told["counts"] == {"tp": 2, "fp": 2, "tn": 3, "fn": 3}
    options = [
        {"question_id": f"q{k}", "image_id": k, "question": q, "choices": ["cup", "dog"], "correct_choice_idx": k % 2}
        for k, q in enumerate(ASKED)
    ]
    (tmp_path / "aokvqa_v1p0_val.json").write_text(json.dumps(options))
    said = {row["question_id"]: {"multiple_choice": "cup", "direct_answer": "dog"} for row in options}
    (tmp_path / "said.json").write_text(json.dumps(said))
    told = score("aokvqa", ScoreInput(tmp_path / "said.json", tmp_path / "aokvqa_v1p0_val.json"))
    assert told["scores"]["accuracy"] == 0.5


def test_the_references_are_no_predictions(asked):
    with pytest.raises(UserError, match="is the file of references itself"):
        score("pope", ScoreInput(asked, asked))


THOUGHTS = [
    "<think>There is no such thing.</think>\n{}",
    "<thinking>no</thinking>{}",
    "<reasoning>No, not one.</reasoning>\n\n{}",
    "There is no such thing.</think>{}",
    "[THINK]no[/THINK]{}",
    "<think>\n\n</think>\n\n{}",
    "<THINK>no</THINK> {}",
    "◁think▷no◁/think▷{}",
    "<think>no</think><answer>{}</answer>",
    "<mm:think>no</mm:think>{}",
    "<|channel|>analysis<|message|>There is no such thing.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "analysisThere is no such thing.assistantfinal{}",
    "<|begin_of_thought|>no<|end_of_thought|>\n<|begin_of_solution|>{}<|end_of_solution|>",
    "<|START_THINKING|>no<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "<think>no</think><answer><|begin_of_box|>{}<|end_of_box|></answer>",
    "<scratchpad>no</scratchpad>{}",
    "<SUMMARY>No idea.</SUMMARY>\n<CAPTION>No.</CAPTION>\n<REASONING>no</REASONING>\n<CONCLUSION> {} </CONCLUSION>",
    "<observation>no</observation><answer>{}</answer>",
]


@pytest.mark.parametrize("thought", THOUGHTS)
def test_thoughts_are_no_answers(thought, asked, tmp_path):
    rows = [{"question_id": k + 1, "response": thought.format(said)} for k, said in enumerate(SAID)]
    told = pope(asked, tmp_path, rows, mode="open")
    assert (told["counts"], told["scores"]["unparsed"], told["thoughts"]) == (
        {"tp": 2, "fp": 2, "tn": 3, "fn": 3},
        0,
        10,
    )
    assert pope(asked, tmp_path, rows)["thoughts"] == 10, "the official rule reads them, and it is said"
    told = pope(
        asked, tmp_path, [{"question_id": k + 1, "response": "<think>There is no"} for k in range(10)], mode="open"
    )
    assert told["scores"]["unparsed"] == 10


def test_thoughts_in_captions(shared, tmp_path):
    "A dog that was only thought of is not hallucinated."
    (tmp_path / "objects.json").write_text('{"1": ["cat"]}')
    (tmp_path / "said.json").write_text('[{"image_id": 1, "caption": "<think>Is it a dog?</think>A cat."}]')
    given = ScoreInput(
        tmp_path / "said.json", tmp_path / "objects.json", synonyms=shared / "data/bench/chair/synonyms.txt"
    )
    assert [score("chair", replace(given, mode=mode))["scores"]["chair_s"] for mode in ("official", "open")] == [1, 0]


@pytest.mark.parametrize(
    "row",
    [
        {"image_id": "000000000009", "caption": "A dog."},
        {"image_id": "COCO_val2014_000000000009.jpg", "text": "A dog."},
        {
            "question_id": 0,
            "image": "COCO_val2014_000000000009.jpg",
            "prompt": "Describe.",
            "text": "A dog.",
            "answer_id": "x",
            "model_id": "llava",
        },
        {
            "doc_id": 0,
            "doc": {"question_id": "x", "id": 9, "file_name": "COCO_val2014_000000000009.jpg"},
            "filtered_resps": ["A dog."],
        },
    ],
)
def test_captions_of_pictures_by_any_name(row, shared, tmp_path):
    (tmp_path / "objects.json").write_text('{"9": ["cat"]}')
    (tmp_path / "said.jsonl").write_text(lines([row]))
    synonyms = shared / "data/bench/chair/synonyms.txt"
    told = score("chair", ScoreInput(tmp_path / "said.jsonl", tmp_path / "objects.json", synonyms=synonyms))
    assert told["scores"]["chair_s"] == 1


def test_ids_that_agree_by_chance(asked, tmp_path):
    "Ids join; where most of the questions are others, they are of another version."
    questions = {str(k): {"question": q, "imageId": "1", "answer": t} for k, (q, t) in enumerate(zip(ASKED, TRUE))}
    (tmp_path / "asked.json").write_text(json.dumps(questions))
    rows = [{"id": k, "question": q, "prediction": t} for k, (q, t) in enumerate(zip(ASKED, TRUE))]
    (tmp_path / "said.json").write_text(json.dumps(rows))
    assert score("gqa", ScoreInput(tmp_path / "said.json", tmp_path / "asked.json"))["scores"]["overall"] == 100
    (tmp_path / "said.json").write_text(json.dumps([row | {"id": (k + 3) % 10} for k, row in enumerate(rows)]))
    with pytest.raises(UserError, match="answer 1 .* is to .* asks"):
        score("gqa", ScoreInput(tmp_path / "said.json", tmp_path / "asked.json"))
    others = {0: 1, 1: 0}  # two that answer each other's question
    (tmp_path / "said.json").write_text(json.dumps([row | {"id": others.get(k, k)} for k, row in enumerate(rows)]))
    with pytest.raises(UserError, match="is to .* asks"):
        score("gqa", ScoreInput(tmp_path / "said.json", tmp_path / "asked.json"))


def test_thoughts_in_runs_and_judgements(tmp_path):
    "A model that thinks is read by what it answers; one that never ends its thought has no answer."
    from cocoift.eval.dialog import Dialog, Turn
    from cocoift.eval.run import run_dialogs
    from cocoift.formats import is_terse
    from cocoift.models.ask import Model, Reply

    class Thinking(Model):
        name, about, asks = "thinking", {"model": "thinking"}, []

        def answer(self, asks):
            self.asks += asks
            return [
                Reply("<think>Is it? No end" if "Why" in ask.instruction else "<think>It might be no.</think>\nYes.")
                for ask in asks
            ]

    dialogs = [Dialog("a", (), (Turn("Is it safe?"), Turn("Is it old?"), Turn("Why?"), Turn("Is it big?")))]
    told = run_dialogs(
        Thinking(), dialogs, tmp_path / "run", {}, lambda dialog, number, text: {"terse": is_terse(text)}
    )
    assert [(line["response"], line["status"], line.get("terse")) for line in told] == [
        ("Yes.", "ok", True),
        ("Yes.", "ok", True),
        ("", "unfit", None),
    ]
    assert told[0]["raw"].startswith("<think>") and Thinking.asks[1].before == (("Is it safe?", "Yes."),)
    mm_vet = {"v1_0": {"imagename": "a.png", "question": "Is it?", "answer": "yes", "capability": ["rec"]}}
    (tmp_path / "mm-vet.json").write_text(json.dumps(mm_vet))
    for text, want in (
        ("<think>no</think>yes", "yes"),
        ("<think>yes", None),
        ("", ""),
        ("Failed to obtain answer via API.", None),
    ):
        (tmp_path / "said.json").write_text(json.dumps({"v1_0": text}))
        items = to_judge("mm-vet", tmp_path / "said.json", {"references": tmp_path / "mm-vet.json"})
        assert [item.fields["answer"] for item in items] == [want]


@pytest.mark.parametrize(
    "failed", ['"Failed to obtain answer via API."', '"Failed to obtain answer via API. "', "NaN", "[NaN]", '"nan"']
)
def test_failed_calls_are_counted(failed, asked, tmp_path):
    rows = lines({"index": k, "question": ASKED[k], "prediction": SAID[k]} for k in range(9))
    told = pope(asked, tmp_path, rows + f'{{"index": 9, "question": "{ASKED[9]}", "prediction": {failed}}}\n')
    assert (told["failed"], told["coverage"], told["n"], told["counts"]["tn"]) == (1, 0.9, 9, 2)
    with pytest.raises(UserError, match="no call of the 10 got an answer"):
        pope(asked, tmp_path, "".join(f'{{"question_id": {k}, "prediction": {failed}}}\n' for k in range(1, 11)))


def test_llava_answers_of_all_splits(shared, tmp_path):
    """One file of random, popular and adversarial answers, scored against one split, the folder, or by LLaVA's question
    file."""
    bench = shared / "data/bench/pope"
    first, said = (
        list(map(json.loads, (bench / name).read_text().splitlines()))
        for name in ("coco_pope_random_e3e3926.json", "llava-v1.5-13b_answers_random.jsonl")
    )
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "coco_pope_random.json").write_text(lines(first))
    other = [
        row | ({} if row["label"] == "yes" else {"text": row["text"].replace("Is there", "Can one see")})
        for row in first
    ]
    (folder / "coco_pope_popular.json").write_text(lines(other))
    popular = [
        row | {"question_id": 20_000_000 + k, "prompt": o["text"], "text": o["label"].capitalize()}
        for k, (row, o) in enumerate(zip(said, other))
    ]
    (tmp_path / "all.jsonl").write_text(lines([*popular, *said]))
    told = score("pope", ScoreInput(tmp_path / "all.jsonl", folder / "coco_pope_random.json"))
    assert (round(told["scores"]["f1"], 7), told["other_splits"], told["n"]) == (0.8713601, 2910, 2910)
    told = score("pope", ScoreInput(tmp_path / "all.jsonl", folder))
    assert (round(told["scores"]["random"]["f1"], 7), told["scores"]["popular"]["f1"], told["n"]) == (
        0.8713601,
        1,
        5820,
    )
    bare = [{"question_id": row["question_id"], "text": row["text"]} for row in [*popular, *said][::-1]]
    (tmp_path / "bare.jsonl").write_text(lines(bare))
    with pytest.raises(UserError, match="lacks an answer to"):
        score("pope", ScoreInput(tmp_path / "bare.jsonl", folder / "coco_pope_random.json"))
    asked = [
        {"question_id": row["question_id"], "image": o["image"], "text": row["prompt"], "category": kind}
        for kind, rows, truth in (("popular", popular, other), ("random", said, first))
        for row, o in zip(rows, truth)
    ]
    (tmp_path / "llava_pope_test.jsonl").write_text(lines(asked))
    told = score("pope", ScoreInput(tmp_path / "bare.jsonl", folder, questions=tmp_path / "llava_pope_test.jsonl"))
    assert (round(told["scores"]["random"]["f1"], 7), told["scores"]["popular"]["f1"]) == (0.8713601, 1)


@pytest.mark.parametrize(
    "bench, references, rows, want",
    [
        (
            "gqa",
            {str(k): {"question": q, "imageId": "1", "answer": t} for k, (q, t) in enumerate(zip(ASKED, TRUE), 100)},
            [{"questionId": str(k), "prediction": t} for k, t in enumerate(TRUE, 100)],
            100,
        ),
        (
            "textvqa",
            {
                "data": [
                    {"question_id": k, "image_id": f"a{k}", "question": q, "answers": [t] * 10}
                    for k, (q, t) in enumerate(zip(ASKED, TRUE), 100)
                ]
            },
            [{"question_id": k, "answer": t} for k, t in enumerate(TRUE, 100)],
            100,
        ),
        (
            "textvqa",
            {
                "data": [
                    {"question_id": k, "image_id": "one", "question": q, "answers": [t] * 10}
                    for k, (q, t) in enumerate(zip(ASKED, TRUE), 100)
                ]
            },
            [
                {"question_id": "one", "prompt": f"{q}\nAnswer shortly.", "text": t, "answer_id": "x"}
                for q, t in zip(ASKED, TRUE)
            ],
            100,
        ),
        (
            "aokvqa",
            [
                {
                    "split": "val",
                    "image_id": 1,
                    "question_id": f"q{k}",
                    "question": q,
                    "choices": ["yes", "no"],
                    "correct_choice_idx": int(t == "no"),
                }
                for k, (q, t) in enumerate(zip(ASKED, TRUE))
            ],
            [{"question_id": f"q{k}", "response": t, "answer": "red"} for k, t in enumerate(TRUE)],
            1,
        ),
        (
            "vqa",
            {
                "annotations": [
                    {"question_id": k, "image_id": 1, "answers": [{"answer": t, "answer_id": n} for n in range(10)]}
                    for k, t in enumerate(TRUE, 100)
                ]
            },
            [{"question_id": k, "answer": t} for k, t in enumerate(TRUE, 100)],
            100,
        ),
    ],
)
def test_order_is_nothing_where_there_are_ids(bench, references, rows, want, tmp_path):
    for name, value in (
        ("asked.json", references),
        ("said.json", rows[::-1]),
        ("less.json", rows[:-1]),
        (
            "count.json",
            [{"index": k, **{n: v for n, v in row.items() if "id" not in n.lower()}} for k, row in enumerate(rows)],
        ),
    ):
        (tmp_path / name).write_text(json.dumps(value))
    told = score(bench, ScoreInput(tmp_path / "said.json", tmp_path / "asked.json"))
    assert told["scores"]["accuracy" if bench == "aokvqa" else "overall"] == want
    with pytest.raises(UserError):
        score(bench, ScoreInput(tmp_path / "less.json", tmp_path / "asked.json"))
    if "prompt" not in rows[0]:
        with pytest.raises(UserError, match="no questions to check the order by"):
            score(bench, ScoreInput(tmp_path / "count.json", tmp_path / "asked.json"))


def test_breaks_in_captions(cases, tmp_path):
    "Whatever ends a line in a caption or a reference is a blank, and every caption stays with its image."
    here = next(cases.glob("18-*"))
    want = score("coco-caption", ScoreInput(here / "s_plain.json", here / "captions_val2014.json"))["scores"]
    assert (round(want["CIDEr"], 4), want["Bleu_1"]) == (4.0699, 1)
    for path in sorted(here.glob("s_*.json")):
        assert score("coco-caption", ScoreInput(path, here / "captions_val2014.json"))["scores"] == want, path.name
    said, told = read_json(here / "s_plain.json"), read_json(here / "captions_val2014.json")
    for k, mark in enumerate("\r \v \f \x1c \x1d \x1e \x85 \u2028 \u2029 \r\n \n\n \ud800".split(" ")):
        said[k % 3]["caption"] += mark
        told["annotations"][k % 6]["caption"] = (
            told["annotations"][k % 6]["caption"].replace(" ", mark if k < 10 else " ", 1) + mark
        )
    (tmp_path / "said.json").write_text(json.dumps(said[::-1]))
    (tmp_path / "told.json").write_text(json.dumps(told))
    assert score("coco-caption", ScoreInput(tmp_path / "said.json", tmp_path / "told.json"))["scores"] == want


def test_contractions(shared):
    "Pair by pair, in lower case as the evaluators meet them, for all three."
    for table in read_json(shared / "data/bench/vqa/contractions.json").values():
        for word, full in table.items():
            met = full if word == word.lower() else word.lower()
            assert plain_words(word) == met, word
            for rules in ("2021", "2015"):  # several answers, so both sides are normalised, or the prediction is
                assert vqa_accuracy(word, [met] * 9 + ["other"], rules) == (
                    1 if rules == "2015" or plain_words(met) == met else 0
                ), (word, rules)
            assert vqa_accuracy(word, [word] * 10, "textvqa") == 1
    assert [plain_words(w) for w in ("im", "ive", "lets", "id've", "somebody'd")] == [
        "im",
        "ive",
        "lets",
        "id've",
        "somebodyd",
    ]


def test_vqa_by_question_2021(shared):
    bench = shared / "data/bench/vqa"
    official, said = (
        read_json(bench / "official_scores.json"),
        {r["question_id"]: r["answer"] for r in read_json(bench / "results.json")},
    )
    for want in read_json(bench / "annotations.json")["annotations"]:
        name = want["question_id"]
        assert (
            round(vqa_accuracy(said[name], want["answers"]) * 100, 2)
            == official["vqa_official"]["per_question"][str(name)]
        ), name


def test_whole_annotations_are_left_out():
    "Without answer_id those that are alike are one to the official code; `2015` does not trim what people wrote."
    assert vqa_accuracy("red", [{"answer": "red", "answer_confidence": "yes"}] * 7 + [{"answer": "blue"}] * 3) == 0.3
    assert vqa_accuracy("red", [{"answer": "red", "answer_id": k} for k in range(7)] + [{"answer": "blue"}] * 3) == 1
    assert [vqa_accuracy("red", ["red "] * 10, rules) for rules in ("2021", "2015")] == [1, 0]


ONE = {"question_id": 100, "image_id": 1, "answer_type": "other"}


@pytest.mark.parametrize(
    "bench, references, said, complaint",
    [
        *[
            (
                "vqa",
                {"annotations": [ONE | {"answers": answers}]},
                [{"question_id": 100, "answer": "red"}],
                "question 100 has",
            )
            for answers in ([], None, "red", [None], [{}], [{"answer": None}], [{"answer": 3}])
        ],
        ("vqa", {"annotations": []}, [{"question_id": 100, "answer": "red"}], "is no file of VQA annotations"),
        ("vqa", {"annotations": [ONE | {"answers": ["red"]}]}, [], "holds no records"),
        (
            "textvqa",
            {"data": [ONE | {"question": "?", "answers": []}]},
            [{"question_id": 100, "answer": "red"}],
            "question 100 has no answers",
        ),
        (
            "gqa",
            {"100": {"question": "?", "answer": None}},
            [{"questionId": "100", "prediction": "red"}],
            "question 100 has no answer",
        ),
        (
            "gqa",
            {"100": {"question": "?", "answer": ""}},
            [{"questionId": "100", "prediction": ""}],
            "question 100 has no answer",
        ),
        *[
            (
                "aokvqa",
                [ONE | {"question": "?", "choices": choices, "correct_choice_idx": 0}],
                {"100": "A"},
                "100 has no choices",
            )
            for choices in (None, [], [1, 2])
        ],
        (
            "coco-caption",
            {"annotations": [{"image_id": 100, "caption": ""}]},
            [{"image_id": 100, "caption": "a"}],
            "image 100 has no caption",
        ),
        (
            "coco-caption",
            {"annotations": [{"image_id": 100, "caption": "..."}]},
            [{"image_id": 100, "caption": "a"}],
            "no reference caption holds a word",
        ),
        ("mm-vet", {"v1_0": []}, {"v1_0": {"score": [1.0]}}, "something else than capabilities"),
        ("mm-vet", {"v1_0": ["rec"]}, {}, "is no grade file"),
        ("arena", {}, [{"model_a": None, "model_b": "b", "winner": "tie"}], "two models by their names"),
        ("arena", {}, [{"model_a": "a", "model_b": "b", "winner": ["tie"]}], "there are model_a"),
        (
            "pairwise",
            {},
            [{"model_1": "a", "model_2": "b", "g1_winner": "a", "g2_winner": "a"}],
            "there are model_1, model_2, tie and error",
        ),
    ],
)
def test_nothing_to_score_by(bench, references, said, complaint, tmp_path, capsys, monkeypatch):
    "An annotation or a record that decides nothing is named."
    for name, value in (("asked.json", references), ("said.json", said)):
        (tmp_path / name).write_text(json.dumps(value))
    monkeypatch.setattr(
        "sys.argv",
        [
            "cocoift",
            "score",
            bench,
            "--predictions",
            str(tmp_path / "said.json"),
            "--references",
            str(tmp_path / "asked.json"),
            "--json",
        ],
    )
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr()
    assert (
        stop.value.code == 2 and complaint in told.err and ".json: " in told.err or "no reference caption" in told.err
    )
    assert len(told.err.splitlines()[-1:]) == 1 and "Traceback" not in told.err and not told.out


@pytest.mark.parametrize(
    "bench, references, said",
    [
        ("mm-vet", {"v1_0": ["rec"]}, {"v1_0": {"score": [1.0]}}),
        (
            "pope",
            [{"question_id": 1, "image": IMAGES[0], "text": ASKED[0], "label": "yes"}],
            [{"question_id": 1, "text": ""}],
        ),
        ("paired-test", [{"question_id": 1, "tuple": [5, 6]}], [{"question_id": 1, "tuple": [5, 7]}]),
        ("infimm", {}, [{"score": 1, "complexity": "High"}]),
        (
            "paired-test",
            [{"question_id": k, "tuple": [5, 6]} for k in (1, 2)],
            [{"question_id": k, "tuple": [5, 6]} for k in (2, 1)],
        ),
        ("llava-bench", {}, [{"question_id": 1, "tuple": [5, 6]}]),
        ("single", {}, [{"model": "a", "score": 5, "turn": 1}]),
    ],
)
def test_one_record_is_scored(bench, references, said, tmp_path):
    "What one record leaves undefined is null, never NaN."
    for name, value in (("asked.json", references), ("said.json", said)):
        (tmp_path / name).write_text(json.dumps(value))
    json.dumps(score(bench, ScoreInput(tmp_path / "said.json", tmp_path / "asked.json")), allow_nan=False)


def test_answers_that_llava_numbers(shared, tmp_path):
    "LLaVA counts MM-Vet's questions from 0; its own converter writes v1_ before the numbers."
    folder = shared / "data/bench/mm-vet"
    files = {"references": folder / "mm-vet_sample12.json"}
    names = read_json(files["references"]).keys()
    lines = (folder / "answers_llava-v1.5-13b.jsonl").read_text().splitlines()
    numbered = [line for line in lines if f"v1_{json.loads(line)['question_id']}" in names]
    (tmp_path / "answers.jsonl").write_text("\n".join(numbered))
    items = to_judge("mm-vet", tmp_path / "answers.jsonl", files)
    converted = read_json(folder / "results_llava-v1.5-13b.json")
    assert {item.id: item.fields["answer"] for item in items} == {name: converted[name] for name in names}
