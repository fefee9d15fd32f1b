"""The app with real models: behind a password, before a quickstart was made and after, with tiny trained checkpoints
and what they were recorded to say."""

import re

from hands import answered, bot, choose, expect, fold, ready, send

from cocoift.files import Journal


def link(study, tiny):
    "The tiny quickstart as if it had been made here, with a checkpoint and a run beside it that are being written."
    for part in ("train/first-uniform", "train/every-mixed", "eval/first-uniform", "eval/every-mixed", "exam"):
        (study / part).parent.mkdir(parents=True, exist_ok=True)
        (study / part).symlink_to(tiny / part)
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "chat_template.jinja",
    ):
        (study / "train/torn/seed-0/model").mkdir(parents=True, exist_ok=True)
        (study / "train/torn/seed-0/model" / name).symlink_to(tiny / "train/first-uniform/seed-0/model" / name)
    weights = (tiny / "train/first-uniform/seed-0/model/model.safetensors").read_bytes()
    (study / "train/torn/seed-0/model/model.safetensors").write_bytes(weights[: len(weights) // 2])
    (study / "eval/torn/seed-0").mkdir(parents=True)
    (study / "eval/torn/seed-0/run.json").write_text("{}")
    (study / "eval/torn/seed-0/rounds.jsonl").write_text('{"image": "coco:1000000", "instr')


def run_script(page):
    more = re.search(r"and (\d+) more", page.locator("#script input").input_value())  # of a recorded dialog
    rounds = int(more[1]) + 1 if more else 4
    page.locator("#run-script").click()
    for side in "ab":
        expect(page.locator(f"#chat-{side}").get_by_test_id("bot"), page.locator("#sides").inner_text()).to_have_count(
            rounds, timeout=60_000
        )
    answered(page, 90_000)
    assert "failed" not in page.locator("#sides").inner_text()


def test_before_any_quickstart(inside):
    expect(inside.locator("#model-a input")).to_have_value("scripted: collapse")
    expect(inside.locator("#scene-text")).to_contain_text("Leakage: an instruction")
    expect(inside.locator("#about-a")).to_contain_text("once asked for a short answer")
    run_script(inside)
    expect(bot(inside, "a")).to_contain_text("leaked: still obeys question 2")
    expect(bot(inside, "b")).not_to_contain_text("leaked")
    expect(inside.locator("#scene-picture img")).to_be_in_viewport()  # kept in sight while answers come
    picture = inside.locator("#chat-a").get_by_test_id("user").locator("img").first
    assert picture.evaluate(
        "e => [getComputedStyle(e).imageRendering, getComputedStyle(e).objectFit, "
        "e.getBoundingClientRect().width > 1.5 * e.naturalWidth]"
    ) == ["pixelated", "contain", True]
    assert not inside.locator("#panels").count()  # --chat
    inside.locator("#examples button").first.click()
    expect(inside.locator("#prompt img")).to_be_visible()
    inside.locator("#prompt textarea").press("Enter")  # an example is sent as it is
    expect(inside.locator("#chat-b").get_by_test_id("bot")).to_have_count(5)
    answered(inside)
    questions = inside.locator("#scene-text li")  # of the dialog that is played, not of what a visitor asks
    expect(questions).to_have_count(0)
    inside.locator("#clear").click()
    expect(questions).to_have_count(4)


def test_two_trained_checkpoints_made_meanwhile(inside, guarded, tiny_quickstart):
    link(guarded.study, tiny_quickstart[0])
    ready(inside, f"{guarded.url}?a=first-uniform+(seed-0)&b=every-mixed+(seed-0)")
    expect(inside.locator("#model-b input")).to_have_value("every-mixed (seed-0)")
    expect(inside.locator("#about-b")).to_contain_text("each question states its own form")
    fold(inside, "How each model answers")
    for side, most in (("a", "3"), ("b", "10")):
        inside.locator(f"#most-tokens-{side} input").fill(most)
        inside.locator(f"#most-tokens-{side} input").press("Tab")
    run_script(inside)
    for side in "ab":
        expect(inside.locator(f"#chat-{side}")).to_contain_text(re.compile(r"\d+ tokens/s"))
    expect(inside.locator("#chat-a")).to_contain_text("cut: it had reached the most tokens")


def test_past_the_context_and_torn(inside, guarded):
    choose(inside, "model-b", "scripted: oracle")
    inside.locator("#clear").click()
    expect(inside.locator("#chat-a").get_by_test_id("bot")).to_have_count(0)
    send(inside, "What is here? " * 1400)
    expect(bot(inside, "a")).to_contain_text(
        re.compile(r"This model failed: the dialog has [\d,]+ tokens and this model reads 4,096"), timeout=60_000
    )
    expect(bot(inside, "b")).to_contain_text("words")  # the other goes on
    answered(inside)
    inside.locator("#clear").click()
    expect(inside.locator("#chat-a").get_by_test_id("bot")).to_have_count(0)
    choose(inside, "model-b", "torn (seed-0)")
    send(inside, "And now?")
    expect(bot(inside, "b")).to_contain_text(re.compile("This model failed: .*torn/seed-0/model"))
    expect(bot(inside, "a")).to_contain_text("tokens/s")
    answered(inside)
    choose(inside, "model-b", "recorded: torn (seed-0)")
    send(inside, "And now?")
    expect(bot(inside, "b")).to_contain_text("no run that can be replayed")
    answered(inside)


def test_a_visitor_opens_on_a_recorded_dialog(inside, guarded):
    "The first minute of a finished study; what nobody recorded is answered by the models themselves."
    ready(inside, guarded.url)
    expect(inside.locator("#script input")).to_have_value(re.compile(r"Recorded: “.*” and \d more"))
    models = {inside.locator(f"#model-{side} input").input_value() for side in "ab"}
    assert models == {f"recorded: {layout} (seed-0)" for layout in ("first-uniform", "every-mixed")}
    run_script(inside)
    run = guarded.study / "eval/first-uniform/seed-0"
    told = [line for name in ("pier", "rounds") for line in Journal(run / f"{name}.jsonl").read()]
    shown = inside.locator("#sides").inner_text()
    assert any(line["response"][:40] in shown for line in told)
    send(inside, "What else is there?")
    expect(inside.get_by_text("the model itself answers now")).to_be_visible()
    expect(bot(inside, "b")).to_contain_text("tokens/s", timeout=90_000)
    assert not {inside.locator(f"#model-{side} input").input_value() for side in "ab"} & models
    answered(inside)
