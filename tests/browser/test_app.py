"The app as people meet it, in a real Chromium, with scripted models: no GPU, no key, no network."

import json
import re
import zlib
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

from hands import answered, bot, choose, expect, fold, go, ready, send, serious
from PIL import Image

from cocoift.files import Journal

FILES = "Earlier dialogs, logs, files and links"


def test_two_rounds_with_pictures_stream_and_vote(chat, study, tmp_path):
    for name in ("red", "blue"):
        Image.new("RGB", (64, 48), name).save(tmp_path / f"{name}.png")
    send(chat, "How does it feel? Answer with a single word.", tmp_path / "red.png")
    expect(bot(chat, "a")).to_contain_text("kept")
    expect(bot(chat, "a")).to_contain_text(re.compile(r"\b1 word\b"))
    answered(chat)
    send(chat, "Describe what you see.", tmp_path / "blue.png")
    expect(bot(chat, "a")).to_contain_text("I know only the pictures")
    expect(bot(chat, "b")).to_contain_text("leaked: still obeys question 1")
    expect(chat.locator("#chat-a").get_by_test_id("user").locator("img")).to_have_count(2)
    answered(chat)
    chat.locator("#chat-b").get_by_role("button", name="Copy", exact=False).last.click()
    # as it was said
    chat.wait_for_function("navigator.clipboard.readText().then(text => text === 'Unknown')", timeout=60_000)
    fold(chat, "Difference between the answers")
    expect(chat.locator("#difference .legend")).to_contain_text("only B says this")
    expect(chat.locator("#difference p:not(.legend) ins")).to_contain_text("Unknown")
    chat.locator("#reason textarea, #reason input").first.fill("it says more")
    chat.keyboard.press("Alt+1")
    expect(chat.locator("#note")).to_contain_text("A was quick")
    expect(chat.locator("#vote-a")).to_be_disabled()
    vote = Journal(study.parent / "app/log.jsonl").read()[-1]
    assert (vote["model_a"], vote["winner"], vote["reason"], vote["round"]) == ("quick", "model_a", "it says more", 2)


def test_pictures_of_a_later_round_stand_where_the_question_puts_them(chat, study, tmp_path):
    for name in ("red", "blue", "green"):
        Image.new("RGB", (64, 48), name).save(tmp_path / f"{name}.png")
    for side in "ab":
        choose(chat, f"model-{side}", "echo")
    send(chat, "What is here?", tmp_path / "red.png")
    expect(bot(chat, "b")).to_contain_text("words")
    answered(chat)
    asked = "Name your parts: is <image> as dark as <image> here?"
    send(chat, asked, tmp_path / "blue.png", tmp_path / "green.png")
    for side in "ab":
        expect(bot(chat, side)).to_contain_text("I was sent image_url text, then text image_url text image_url text.")
        expect(chat.locator(f"#chat-{side}").get_by_test_id("user").locator("img")).to_have_count(3)
    answered(chat)
    expect(chat.locator("#chat-a").get_by_text(re.compile("is <.?image> as dark as <.?image> here"))).to_be_visible()
    send(chat, "Is <image> or <image> red?", tmp_path / "red.png")  # two places for one picture
    expect(chat.get_by_text("write it once for each of them")).to_be_visible()
    fold(chat, FILES)
    chat.locator("#export").click()
    with chat.expect_download() as download:
        chat.locator("#files a").last.click()
    with ZipFile(download.value.path()) as archive:
        (row, _) = json.loads(archive.read("llava/chat_llava_v1_5_mix665k.json"))
        assert {f"pictures/{Path(name).name}" for name in row["image"]} <= set(archive.namelist())
    assert [turn["value"] for turn in row["conversations"][::2]] == ["<image>\nWhat is here?", asked]
    chat.locator("#save").click()
    expect(chat.locator("#link textarea, #link input").first).to_have_value(re.compile("dialog="))
    go(chat, chat.locator("#link textarea, #link input").first.input_value())
    expect(chat.locator("#chat-b").get_by_test_id("user").locator("img")).to_have_count(3)
    fold(chat, FILES)
    choose(chat, "replay-model", "echo")
    chat.locator("#replay").click()
    expect(bot(chat, "b")).to_contain_text("then text image_url text image_url text.")


def test_one_side_is_stopped_retried_edited_undone(chat):
    choose(chat, "model-b", "snail")
    send(chat, "What is here?")
    expect(bot(chat, "a")).to_contain_text("words")
    one = bot(chat, "b").inner_text()
    expect(bot(chat, "b")).not_to_have_text(one)  # it streams while the other is done
    assert "words" not in bot(chat, "b").inner_text()
    chat.locator("#stop-b").click()
    expect(bot(chat, "b")).to_contain_text("stopped")
    told = bot(chat, "a").inner_text()
    chat.locator("#retry-b").click()
    expect(bot(chat, "b")).not_to_contain_text("stopped")
    chat.keyboard.press("Escape")  # stops all
    expect(bot(chat, "b")).to_contain_text("stopped")
    assert bot(chat, "a").inner_text() == told
    answered(chat)
    chat.locator("#chat-b").get_by_role("button", name="Edit").last.click()
    chat.locator("#chat-b textarea").fill("Is it red? Answer yes or no.")
    chat.locator("#chat-b").get_by_role("button", name="Submit").click()
    expect(bot(chat, "b")).to_contain_text("asked for yes or no")
    expect(chat.locator("#chat-b").get_by_test_id("user").last).to_contain_text("Is it red?")
    assert bot(chat, "a").inner_text() == told
    chat.locator("#chat-b").get_by_role("button", name="Undo").last.click()
    expect(chat.locator("#chat-b").get_by_test_id("bot")).to_have_count(0)
    assert bot(chat, "a").inner_text() == told
    chat.locator("#chat-a").get_by_role("button", name="Clear").click()  # this side only
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(0)
    choose(chat, "model-b", "quick")
    send(chat, "And here?")
    answered(chat)
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(1)
    chat.locator("#clear").click()
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(0)


def test_blind_names_are_revealed_by_the_vote(chat):
    chat.locator("#blind input").check()
    expect(chat.locator("#model-a")).to_be_hidden()
    send(chat, "What is here? Answer with a single word.")
    answered(chat, 60_000)
    text = chat.locator("#sides").inner_text()
    names = ("quick", "brisk", "slow", "broken", "echo", "mirror")  # of which only the last two are no scripts
    assert not any(re.search(rf"\b{name}\b", text) for name in names) and " s ·" not in text
    chat.locator("#vote-tie").click()
    expect(chat.locator("#note")).to_contain_text("Noted: tie")
    expect(chat.locator("#note")).to_have_attribute("aria-live", "polite")
    expect(chat.locator("#model-a")).to_be_visible()
    assert {chat.locator(f"#model-{side} input").input_value() for side in "ab"} == {"echo", "mirror"}


def test_hostile_text_is_text(chat):
    chat.evaluate("window.hurt = 0")
    choose(chat, "model-b", "echo")  # it answers what it is asked: a hostile answer
    send(
        chat,
        "<img src=http://198.51.100.7/x onerror='window.hurt=1'><script>window.hurt=1</script> "
        "![p](http://198.51.100.7/y.png) [l](javascript:window.hurt=1) "
        "<span class='facts'>✓ kept</span> <svg onload=window.hurt=1> What is here?",
    )
    expect(bot(chat, "b")).to_contain_text("What is here?")
    answered(chat)
    said = bot(chat, "b")
    # and `chat` saw no request
    assert "<img src" in said.inner_text().replace("\u2060", "") and chat.evaluate("window.hurt") == 0
    assert (
        said.locator("span.facts").count() == 1 and not said.locator("a[href^=javascript], script, svg[onload]").count()
    )
    fold(chat, "Difference between the answers")
    assert not chat.locator("#difference img, #difference script").count() and chat.evaluate("window.hurt") == 0
    assert "sk-never-shown" not in chat.content()


def test_a_script_a_link_and_an_export(chat, tmp_path):
    chat.locator("#run-script").click()
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(4)
    answered(chat, 60_000)
    expect(bot(chat, "b")).to_contain_text("leaked: still obeys question 2")
    fold(chat, "The picture and its COCO objects")
    chat.locator("#show-objects").click()
    expect(chat.locator("#objects img").first).to_be_visible()
    fold(chat, FILES)
    chat.locator("#export").click()
    expect(chat.locator("#files a[download], #files a").first).to_be_visible()
    with chat.expect_download() as download:
        chat.locator("#files a").first.click()
    sides = json.loads(Path(download.value.path()).read_text())
    assert [len(side["rounds"]) for side in sides.values()] == [4, 4]
    chat.locator("#save").click()
    expect(chat.locator("#link textarea, #link input").first).to_have_value(re.compile("dialog="))
    link = chat.locator("#link textarea, #link input").first.input_value()
    go(chat, link)
    expect(chat.locator("#chat-b").get_by_test_id("bot")).to_have_count(4)
    fold(chat, FILES)
    choose(chat, "replay-model", "quick")
    chat.locator("#replay").click()
    expect(chat.locator("#model-b input")).to_have_value("quick")
    expect(chat.locator("#chat-b").get_by_test_id("bot")).to_have_count(4)


def test_three_models_and_a_log_of_another_arena(chat, tmp_path):
    chat.locator("#count").get_by_text("3", exact=True).click()
    expect(chat.locator("#chat-c")).to_be_visible()
    chat.wait_for_url(re.compile("sides=3"), timeout=60_000)
    choose(chat, "model-b", "quick")
    choose(chat, "model-c", "quick")
    send(chat, "Say it in one word.")
    expect(bot(chat, "c")).to_contain_text("word")
    answered(chat)
    expect(chat.locator("#vote-c")).to_be_enabled()
    state = {
        "messages": [
            ["USER", "Safe? Answer with a single word."],
            ["ASSISTANT", "Yes"],
            ["USER", "Why?"],
            ["ASSISTANT", "Calm."],
        ],
        "offset": 0,
        "model_name": "left",
    }
    (tmp_path / "conv.json").write_text(
        json.dumps(
            {"type": "leftvote", "models": ["left", "right"], "states": [state, state | {"model_name": "right"}]}
        )
        + "\n"
    )
    fold(chat, FILES)
    chat.locator("#log input[type=file]").set_input_files(tmp_path / "conv.json")
    expect(bot(chat, "b")).to_contain_text("leaked: still obeys question 1")
    expect(chat.locator("#chat-c")).to_be_hidden()


def test_what_goes_wrong_is_said(chat, tmp_path):
    choose(chat, "model-b", "broken")
    send(chat, "What is here?")
    expect(bot(chat, "b")).to_contain_text("This model failed")
    expect(bot(chat, "a")).to_contain_text("words")  # the other goes on
    chat.locator("#retry-b").click()
    expect(bot(chat, "b")).to_contain_text("This model failed")
    answered(chat)

    def refused(text, *pictures, says):
        for _ in range(10):  # the retry may be about to begin or still be busy: then this is what is told first
            send(chat, text, *pictures)
            with suppress(AssertionError):
                expect(chat.get_by_text(says).last).to_be_visible(timeout=2_000)
                break
        expect(chat.get_by_text(says).last).to_be_visible()
        chat.locator("#prompt textarea").fill("")
        for close in chat.locator("#prompt button[aria-label*=emove], #prompt .delete-button").all():
            close.click()

    refused("", says="Write a question first")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no picture" * 20)
    chat.locator("#prompt input[type=file]").set_input_files(tmp_path / "torn.png")
    chat.wait_for_timeout(1500)
    refused("What is this?", says="is no picture that can be read")
    ready(chat, chat.url)
    width = 60_000  # a few kilobytes that claim to be three and a half billion pixels

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(7501 * 50)))
        + chunk(b"IEND", b"")
    )
    chat.locator("#prompt input[type=file]").set_input_files(tmp_path / "bomb.png")
    chat.wait_for_timeout(1500)
    send(chat, "What is this?")
    expect(chat.get_by_text(re.compile("is no picture that can be read|send a smaller picture")).last).to_be_visible(
        timeout=60_000
    )


def test_what_cannot_be_sent_takes_nothing_away(chat, tmp_path):
    send(chat, "What is here?")
    answered(chat)
    before = bot(chat, "a").inner_text()
    chat.locator("#prompt textarea").press("Enter")
    expect(chat.get_by_text("Write a question first").last).to_be_visible()
    (tmp_path / "torn.png").write_bytes(b"no picture" * 1_100_000)  # too large, and nothing to make smaller
    send(chat, "And on this?", tmp_path / "torn.png")
    expect(chat.get_by_text("torn.png: is no picture that can be read").last).to_be_visible()
    assert bot(chat, "a").inner_text() == before and not chat.locator("#sides .error").count()
    expect(chat.locator("#chat-a").get_by_test_id("user")).to_have_count(1)  # the question did not go without it
    expect(chat.locator("#prompt textarea")).to_have_value("And on this?")
    chat.locator("#prompt button[aria-label*=emove], #prompt .delete-button").first.click()
    Image.new("RGB", (3300, 3200), "teal").save(tmp_path / "photo.bmp")  # 31 MB
    send(chat, "And on this?", tmp_path / "photo.bmp")
    sent = chat.locator("#chat-a").get_by_test_id("user").locator("img")
    expect(sent).to_be_visible()
    assert sent.evaluate("e => e.naturalWidth") == 2048
    answered(chat)
    before = bot(chat, "a").inner_text()
    fold(chat, "How each model answers")
    for most, says in (("9999", "1 to 1024 are possible"), ("64", "words")):
        for _ in range(5):  # what was folded may still arrive, with the number that it began with
            chat.locator("#most-tokens-a input").fill(most)
            chat.locator("#most-tokens-a input").press("Tab")
            chat.locator("#retry-a").click()
            with suppress(AssertionError):
                expect(bot(chat, "a")).to_contain_text(says, timeout=10_000)
                break
        expect(bot(chat, "a")).to_contain_text(says)


def test_answers_are_set_and_gone_on_from(chat):
    for side, model in (("a", "echo"), ("b", "mirror")):
        choose(chat, f"model-{side}", model)
    fold(chat, "How each model answers")
    chat.locator("#system-b textarea").fill("Be a mirror.")
    table = "| a long heading | another |\n|---|---|\n| internationalisation | b |"
    send(chat, f"Tell your system. So $x^2$, for $5 or $6:\n\n$$y$$\n\nمرحبا بالعالم\n\n{table}")
    answered(chat)
    expect(bot(chat, "b")).to_contain_text("Be a mirror.")
    expect(bot(chat, "a")).not_to_contain_text("Be a mirror.")
    expect(bot(chat, "a").locator(".katex")).to_have_count(2)
    expect(bot(chat, "a").get_by_text("for $5 or $6")).to_be_visible()
    arabic = bot(chat, "a").locator("p", has_text="مرحبا")
    assert arabic.evaluate("e => getComputedStyle(e).unicodeBidi") == "plaintext"
    cell = chat.locator("#chat-a").get_by_test_id("user").locator("td").first
    assert cell.evaluate("e => e.getClientRects().length === 1 && e.clientHeight < 60")
    first = chat.locator("#chat-b").get_by_test_id("user").first
    chat.locator("#chat-b").get_by_role("button", name="Edit").first.click()
    box = chat.locator("#chat-b textarea").bounding_box()
    assert box["width"] > 0.7 * chat.locator("#chat-b").bounding_box()["width"], box
    chat.locator("#chat-b textarea").fill("Only here?")
    chat.locator("#chat-b").get_by_role("button", name="Submit").click()
    expect(first).to_contain_text("Only here?")
    expect(bot(chat, "b")).to_contain_text("Only here?")
    answered(chat)
    chat.locator("#chat-b").get_by_text("All go on from B").click()
    expect(bot(chat, "a")).to_contain_text("mirror's answer, not this model's")
    expect(chat.locator("#vote-a")).to_be_disabled()  # there is but one answer
    send(chat, "And now?")
    answered(chat)
    chat.locator("#clear").click()
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(0)
    ready(chat, chat.url)
    fold(chat, FILES)
    chat.locator("#earlier input").click()
    chat.locator("#earlier").get_by_role("option").first.click()
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(2)
    expect(chat.locator("#chat-b")).to_contain_text("Only here?")


def test_everybody_can_use_it(chat, url):
    assert serious(chat) == []
    chat.locator("#run-script").click()
    answered(chat)
    for title in ("Difference between", "The picture and", "How each model", FILES):
        fold(chat, title)
    chat.locator("#show-objects").click()
    expect(chat.locator("#objects img").first).to_be_visible()
    chat.wait_for_timeout(700)
    assert serious(chat) == []
    chat.locator("#script input").focus()
    reached = set()
    for _ in range(24):
        chat.keyboard.press("Tab")
        reached.add(chat.evaluate("document.activeElement.closest('[id]')?.id"))
    # no list stays open behind the one who tabs on
    chat.locator("#reason textarea, #reason input").first.focus()
    expect(chat.locator("[role=listbox]")).to_have_count(0)
    assert {"run-script", "stop-a", "retry-a"} <= reached


def test_models_that_become_unreadable_are_named_on_the_page(chat, study):
    models = study.parent / "models.yaml"
    before = models.read_text()
    try:
        models.write_text("- {name: quick")
        ready(chat, chat.url)
        expect(chat.locator("#note")).to_contain_text("is not YAML")
        send(chat, "Still here?")
        expect(bot(chat, "a")).to_contain_text("words")
    finally:
        models.write_text(before)


def test_phone_and_dark(chat, url):
    chat.set_viewport_size({"width": 390, "height": 844})
    ready(chat, f"{url}?__theme=dark")
    assert chat.evaluate("document.documentElement.scrollWidth <= innerWidth")
    a, b = (chat.locator(f"#chat-{side}").bounding_box() for side in "ab")
    assert b["y"] >= a["y"] + a["height"] and a["height"] < 400 and a["width"] > 320
    assert chat.evaluate("document.body.classList.contains('dark')")
    send(chat, "What is here? Answer with a single word.")
    expect(bot(chat, "a")).to_contain_text("kept")
    light = "(c => { const [r, g, b] = getComputedStyle(c).color.match(/[0-9.]+/g).map(Number); return r + g + b })"
    assert chat.evaluate(f"{light}(document.querySelector('#chat-a .facts'))") > 300  # light letters on dark


def drawn(page, *names):
    "Every figure is there, and none has failed."
    for name in names:
        expect(page.locator(f"#plot-{name} .js-plotly-plot .main-svg").first).to_be_visible()
        place = page.locator(f"#plot-{name}")
        assert place.locator(".js-plotly-plot").evaluate("e => e.data.length") > 0 or re.search(
            "No|Too few", place.inner_text()
        ), name
        assert "cannot be drawn" not in place.inner_text(), name


def panel(page, url, name, **asked):
    query = "".join(f"&{key}={value}" for key, value in asked.items())
    return go(page, f"{url}?tab=dashboard&panel={name}{query}")


def test_results_are_drawn_filtered_and_linked(watched, url):
    page = watched
    page.goto(f"{url}?tab=dashboard", wait_until="domcontentloaded")
    drawn(
        page,
        *"standings levels decomposition slopes paper capabilities radar".split(),
        *"terse-by-round words-by-round format-by-round transitions".split(),
    )
    expect(page.locator("#board-note")).to_contain_text("torn")  # the run that is not whole is named
    expect(page.locator("#scoreboard")).to_contain_text("collapse")
    assert serious(page) == []
    choose(page, "baseline", "oracle")
    # paired item by item: it has an interval
    expect(page.locator("#plot-standings")).to_contain_text("▲ +1", timeout=60_000)
    expect(page.locator("#plot-standings")).to_contain_text("from oracle")
    with page.expect_download() as download:
        page.locator("#csv-standings").click()
    leakage = next(
        line
        for line in Path(download.value.path()).read_text().splitlines()
        if line.startswith("collapse,rounds,difference,leakage")
    )
    assert leakage.split(",")[7:11] == ["1.0", "1.0", "1.0", "59.0"]  # difference, low, high, pairs
    choose(page, "metric", "terse_rate: open questions that got a short answer")
    expect(page.locator("#history input")).to_have_value("after short answers that were asked for (forced_short)")
    assert "baseline=oracle" in page.url and "metric=terse_rate" in page.url
    page.get_by_role("tab", name="Chat").click()
    page.get_by_role("tab", name="Dashboard").click()  # and back: what was chosen still is
    expect(page.locator("#figure-standings")).to_contain_text("Terse rate, run by run")
    expect(page.locator("#baseline input")).to_have_value("oracle")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    above, below = (page.locator(f"#plot-{name}").bounding_box() for name in ("levels", "decomposition"))
    assert above["x"] == below["x"] and above["width"] > 320 and below["y"] > above["y"]


def test_samples_are_filtered_and_linked(watched, url):
    page = panel(
        watched,
        url,
        "samples",
        run_a="oracle",
        run_b="collapse",
        filter="B+terse,+A+full",
        under="forced_short",
        run_more="oracle",
    )
    expect(page.locator("#grid .brick").first).to_be_visible(timeout=60_000)
    assert serious(page) == []
    page.locator("#grid .brick").first.click()
    # what was said before, both answers, and one beside them
    expect(page.locator("#item-text .card")).to_have_count(4, timeout=60_000)
    expect(page.locator("#item-text .card").nth(2)).to_contain_text("terse")
    expect(page.locator("#item-text .truth")).to_contain_text("Right:")
    expect(page.locator("#item-picture img")).to_be_visible()
    assert serious(page) == []
    assert page.locator("#item-picture img").evaluate("e => e.naturalWidth") >= 400  # the small world, enlarged
    where = page.locator("#item-text .where").inner_text()
    page.locator("#next").click()
    expect(page.locator("#item-text .where")).not_to_have_text(where)
    link = page.locator("#item-link textarea, #item-link input").first
    expect(link).to_have_value(re.compile("item="))
    where, address = page.locator("#item-text .where").inner_text(), link.input_value()
    go(page, address)
    expect(page.locator("#item-text .where")).to_have_text(where)
    choose(page, "kind", "count")  # another choice leads back to the wall
    expect(page.locator("#item-text")).to_be_hidden()
    page.locator("#grid .brick").first.click()
    expect(page.locator("#item-text .where")).to_contain_text("count")
    assert "kind=count" in page.url


def test_data_is_drawn_read_and_linked(watched, url):
    page = panel(watched, url, "data", set="first-uniform")
    drawn(page, *"composition formats-by-round formats carry-over data-measures overlap diversity lengths".split())
    expect(page.locator("#leaks")).to_contain_text("its files were not there")
    # the set that is not whole is named
    expect(page.locator("#data-note")).to_contain_text("cut short: holds no conversations")
    expect(page.locator("#conversation .round").first).to_be_visible()
    assert serious(page) == []
    page.locator("#fault input").check()
    expect(page.locator("#conversation")).to_contain_text("answered tersely after a terse request")
    expect(page.locator("#conversation .origin").first).to_contain_text("template")
    page.locator("#which input").fill("2")
    page.locator("#which input").blur()
    expect(page.locator("#conversation .where")).to_contain_text("2 of")
    where = page.locator("#conversation .where").inner_text()
    assert {"fault=true", "which=2", "set=first-uniform"} <= set(page.url.partition("?")[2].split("&"))
    go(page, page.url)  # one link a conversation
    expect(page.locator("#conversation .where")).to_have_text(where)


def test_trainings_and_votes_are_drawn_while_they_change(watched, url, study):
    page = panel(watched, url, "training", trainings="running,done")
    drawn(page, "loss", "lr", "speed", "trees")
    expect(page.locator("#training-legend li", has_text="running")).to_contain_text("running")
    expect(page.locator("#training-note")).to_contain_text("bad/metrics.jsonl: holds a line that is not JSON")
    last = (
        "document.querySelector('#plot-loss .js-plotly-plot')._fullData.filter(t => t.mode === 'markers').at(-1).x[0]"
    )
    assert page.evaluate(last) == 8  # of the last whole line: the ninth is torn
    Journal(study / "train/running/metrics.jsonl").append(
        [{"step": 9, "loss": 0.5, "lr": 1e-3, "learned": 9, "tokens": 100, "separate": 140}]
    )
    page.wait_for_function(f"{last} === 9", timeout=60_000)
    assert "trainings=running" in page.url and serious(page) == []
    page.get_by_role("tab", name="Votes").click()
    drawn(page, "ratings")
    assert serious(page) == []
    assert "panel=votes" in page.url


def test_torn_files_leave_no_dead_panel(watched, url, study):
    log = study.parent / "app/log.jsonl"
    log.parent.mkdir(exist_ok=True)
    whole = log.read_bytes() if log.exists() else b""
    try:
        log.write_bytes(b"{torn}\n" + whole)
        page = panel(watched, url, "votes")
        expect(page.locator("#votes-note")).to_contain_text("log.jsonl: holds a line that is not JSON")
        drawn(page, "ratings")
    finally:
        log.write_bytes(whole)
    page.get_by_role("tab", name="Samples").click()
    for run, why in (("torn-rounds", "holds a line that is not JSON"), ("unanswered", "no item in common")):
        choose(page, "run-a", run)
        expect(page.locator("#grid")).to_contain_text(why)


def test_two_people_do_not_meet(chat, visit, url):
    other = visit.new_page()
    other.wrong = []
    ready(other, url)
    send(chat, "Mine is here?")
    send(other, "Yours is there?")
    for page, mine, yours in ((chat, "Mine", "Yours"), (other, "Yours", "Mine")):
        answered(page, 60_000)
        text = page.locator("#chat-a").inner_text()
        assert mine in text and yours not in text
    other.close()


def test_bad_models_are_named(cocoift, tmp_path):
    (tmp_path / "m.yaml").write_text("- {name: a, pth: x}")
    done = cocoift("app", "--models", tmp_path / "m.yaml")
    assert done.returncode == 2 and "model 1: pth" in done.stderr
