"""README's pictures of the app, taken anew of a finished quickstart: `python tests/browser/pictures.py STUDY [FOLDER]`.

The study should be of drawn scenes: nobody's photograph belongs into a picture. `lab.png` is what
`SCREENSHOTS=FOLDER pytest tests/browser/test_lab.py` leaves."""

import sys
import tempfile
from pathlib import Path

from conftest import CHROMIUM, FLAGS, start
from hands import answered
from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).resolve().parents[2] / "nbs/images"
PAGES = {  # name: width, height, pixels of the picture for one of the page, address
    "chat": (1280, 1095, 1, ""),
    "phone": (390, 844, 1.5, "?__theme=dark"),
    "dashboard": (1500, 1758, 1280 / 1500, "?tab=dashboard&panel=results"),
}
SCROLL = """at => document.querySelectorAll('#chat-a, #chat-b').forEach(chat => {
  const question = chat.querySelectorAll('[data-testid=user]')[at];
  let box = question.parentElement;
  const scrolls = box => box.scrollHeight > box.clientHeight + 20 &&
    /auto|scroll/.test(getComputedStyle(box).overflowY);
  while (box && !scrolls(box)) box = box.parentElement;
  if (box) box.scrollTop += question.getBoundingClientRect().top - box.getBoundingClientRect().top - 44;
})"""
TO_SIDES = "scrollTo(0, document.querySelector('#model-a').getBoundingClientRect().top + scrollY - 12)"


def play(page, at: int) -> None:
    "Play the dialog that the app opens on, and put one of its questions on top."
    page.locator("#prompt textarea").wait_for()
    page.wait_for_timeout(4000)
    page.locator("#run-script").click()
    answered(page)
    page.wait_for_timeout(5000)  # the panes have come to rest
    page.evaluate(SCROLL, at)
    page.mouse.move(640, 5)


def take(browser, url: str, name: str, folder: Path) -> None:
    width, height, scale, address = PAGES[name]
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(url + address, wait_until="domcontentloaded")
    if name == "dashboard":
        page.locator("#plot-radar .main-svg").first.wait_for()
        page.wait_for_timeout(5000)
    else:
        play(page, 2 if name == "chat" else 4)  # the instruction; on a phone, an answer behind it
    if name == "phone":
        page.evaluate(TO_SIDES)
    page.wait_for_timeout(800)
    page.screenshot(path=folder / f"{name}.png")
    context.close()
    picture = Image.open(folder / f"{name}.png").convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


def main(study: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server, url = start(Path(home), Path(home), "--study", study)
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name in PAGES:
                take(browser, url, name, folder)
            browser.close()
        finally:
            server.terminate()
            server.wait(20)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2] if sys.argv[2:] else IMAGES))
