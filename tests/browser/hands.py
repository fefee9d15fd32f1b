"What a hand does on the page, and what an eye waits for."

import re

import pytest


def expect(*given):
    from playwright.sync_api import expect

    return expect(*given)


def send(page, text, *pictures):
    if pictures:
        page.locator("#prompt input[type=file]").set_input_files(list(pictures))
        page.locator("#prompt img").first.wait_for()
    page.locator("#prompt textarea").fill(text)
    page.locator("#prompt textarea").press("Enter")


def bot(page, side):
    return page.locator(f"#chat-{side}").get_by_test_id("bot").last


def answered(page, timeout=60_000):
    "What was sent has left its box, which closes the votes, and all have answered, which opens them."
    expect(page.locator("#prompt textarea")).to_have_value("")
    expect(page.locator("#vote-a")).to_be_enabled(timeout=timeout)


def choose(page, place, name):
    page.locator(f"#{place} input").click()
    page.locator(f"#{place}").get_by_role("option", name=name, exact=True).click()


def fold(page, title):
    page.get_by_role("button", name=title).click()


def go(page, address):
    "Leave for another page; that the one before loses its connection then is no complaint."
    before = len(page.wrong)
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_timeout(300)
    page.wrong[before:] = [
        text for text in page.wrong[before:] if "AbortError" not in text and "Connection errored out" not in text
    ]
    return page


def ready(page, address):
    go(page, address)
    expect(page.locator("#prompt textarea")).to_be_enabled()
    expect(page.locator("#model-a input")).to_have_value(re.compile("."))
    return page


def serious(page) -> list[str]:
    "What axe finds that keeps somebody from using the page."
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {node['html'][:120]}"
        for v in found
        if v["impact"] in ("critical", "serious")
        for node in v["nodes"]
    ]
