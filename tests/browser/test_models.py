"""The app with real models: behind a password, before a quickstart was made and after, with tiny trained checkpoints
and what they were recorded to say."""

import re

from hands import answered, bot, choose, expect, ready, send

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


def run_script(page, rounds):
    page.locator("#run-script").click()
    for side in "ab":
        expect(page.locator(f"#chat-{side}").get_by_test_id("bot"), page.locator("#sides").inner_text()).to_have_count(
            rounds, timeout=60_000
        )
    answered(page, 90_000)
    assert "failed" not in page.locator("#sides").inner_text()


def test_before_any_quickstart(inside):
    expect(inside.locator("#model-a input")).to_have_value("scripted: collapse")
    expect(inside.locator("#chat-a")).to_contain_text("Does an instruction outlive its round?")
    run_script(inside, 3)
    expect(bot(inside, "a")).to_contain_text("round 2's instruction leaked")
    expect(bot(inside, "b")).to_contain_text("Calm, because")
    picture = inside.locator("#chat-a").get_by_test_id("user").locator("img").first
    assert picture.evaluate(
        "e => [getComputedStyle(e).imageRendering, getComputedStyle(e).objectFit, "
        "e.getBoundingClientRect().width > 1.5 * e.naturalWidth]"
    ) == ["pixelated", "contain", True]
    assert not inside.locator("#panels").count()  # --chat
    inside.locator("#examples button").first.click()
    expect(inside.locator("#prompt img")).to_be_visible()
    inside.locator("#prompt textarea").press("Enter")  # an example is sent as it is
    expect(inside.locator("#chat-b").get_by_test_id("bot")).to_have_count(4)
    answered(inside)


def test_two_trained_checkpoints_made_meanwhile(inside, guarded, tiny_quickstart):
    link(guarded.study, tiny_quickstart[0])
    ready(inside, guarded.url)
    expect(inside.locator("#model-a input")).to_have_value("first-uniform (seed-0)")
    expect(inside.locator("#model-b input")).to_have_value("every-mixed (seed-0)")
    inside.get_by_role("button", name="Generation").click()
    inside.locator("#most-tokens input[type=number]").fill("10")
    inside.locator("#most-tokens input[type=number]").press("Tab")
    run_script(inside, 3)
    for side in "ab":
        expect(bot(inside, side)).to_contain_text(re.compile(r"\d+ tokens/s"))


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


def test_recorded_dialogs(inside, guarded):
    ready(inside, f"{guarded.url}?a=recorded:+first-uniform+(seed-0)&b=recorded:+every-mixed+(seed-0)")
    expect(inside.locator("#model-b input")).to_have_value("recorded: every-mixed (seed-0)")
    told = Journal(guarded.study / "eval/first-uniform/seed-0/pier.jsonl").read()
    rounds = sum(line["image"] == told[0]["image"] for line in told)
    choose(inside, "script", f"recorded: {told[0]['image']}, {rounds} rounds")
    inside.wait_for_timeout(2000)  # its questions come from the server
    run_script(inside, rounds)
    expect(inside.locator("#chat-a")).to_contain_text(told[0]["response"][:40])
