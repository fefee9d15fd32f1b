"The app as people meet it, in a real Chromium, with scripted models: no GPU, no key, no network."
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: apt-get install chromium")
MODELS = """
- {name: quick, scripted: oracle, pace: 60}
- {name: slow, scripted: collapse, pace: 4}
- {name: broken, scripted: oracle, pace: 60, fails_at: 2}
"""


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-dev-shm-usage"]}


@pytest.fixture(scope="session")
def url(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    (folder / "models.yaml").write_text(MODELS)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [Path(sys.executable).with_name("cocoift"), "app", "--port", str(port), "--study", folder / "runs/none", "--models", folder / "models.yaml"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=root, stdout=log, stderr=log)
    began = time.time()
    while time.time() - began < 30:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
            break
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.3)
    yield f"http://127.0.0.1:{port}/"
    server.terminate()
    server.wait(10)


@pytest.fixture
def chat(page, url):
    "The page, ready; whatever it complains of or asks of strangers fails the test."
    from playwright.sync_api import expect

    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else wrong.append(r.url))
    page.goto(url, wait_until="domcontentloaded")
    expect(page.locator("#prompt textarea")).to_be_enabled(timeout=30_000)
    page.wait_for_timeout(500)
    yield page
    assert not wrong


def send(page, text, picture=None):
    if picture:
        page.locator("#prompt input[type=file]").set_input_files(picture)
        page.locator("#prompt img").first.wait_for()
    page.locator("#prompt textarea").fill(text)
    page.locator("#prompt textarea").press("Enter")


def bot(page, side):
    return page.locator(f"#chat-{side}").get_by_test_id("bot").last


def test_two_rounds_stream_and_vote(chat, tmp_path):
    from playwright.sync_api import expect

    Image.new("RGB", (64, 48), "red").save(tmp_path / "x.png")
    send(chat, "How does it feel? Answer with a single word.", tmp_path / "x.png")
    expect(bot(chat, "a")).to_contain_text("kept", timeout=20_000)
    expect(chat.locator("#vote-a")).to_be_enabled(timeout=20_000)
    send(chat, "Describe what you see.")
    expect(bot(chat, "a")).to_contain_text("I know only the pictures", timeout=20_000)
    expect(bot(chat, "b")).to_contain_text("round 1's instruction leaked", timeout=20_000)
    expect(chat.locator("#vote-a")).to_be_enabled(timeout=20_000)
    chat.locator("#vote-a").click()
    expect(chat.locator("#note")).to_contain_text("A was quick", timeout=10_000)


def test_stop_and_retry_one_side(chat):
    from playwright.sync_api import expect

    send(chat, "What is here?")
    expect(bot(chat, "a")).to_contain_text("words", timeout=20_000)
    one = bot(chat, "b").inner_text()
    chat.wait_for_timeout(700)
    assert len(bot(chat, "b").inner_text()) > len(one) > 0  # it streams while the other is done
    chat.locator("#stop-b").click()
    expect(bot(chat, "b")).to_contain_text("stopped", timeout=5_000)
    told = bot(chat, "a").inner_text()
    chat.locator("#retry-b").click()
    expect(bot(chat, "b")).not_to_contain_text("stopped", timeout=5_000)
    expect(bot(chat, "b")).to_contain_text("words", timeout=20_000)
    assert bot(chat, "a").inner_text() == told


def test_hostile_text_is_text(chat):
    from playwright.sync_api import expect

    chat.evaluate("window.hurt = 0")
    send(chat, "<img src=http://198.51.100.7/x onerror='window.hurt=1'><script>window.hurt=1</script> ![p](http://198.51.100.7/y.png) What is here?")
    expect(bot(chat, "a")).to_contain_text("words", timeout=20_000)
    assert "<img src" in chat.locator("#chat-a").inner_text().replace("\u2060", "") and chat.evaluate("window.hurt") == 0  # and `chat` saw no request


def test_a_prepared_dialog_and_a_link(chat):
    from playwright.sync_api import expect

    chat.locator("#script input").click()
    chat.get_by_role("option").first.click()
    chat.locator("#run-script").click()
    expect(chat.locator("#chat-a").get_by_test_id("bot")).to_have_count(4, timeout=30_000)
    expect(chat.locator("#vote-a")).to_be_enabled(timeout=60_000)
    chat.get_by_role("button", name="Replay, take away, link").click()
    chat.locator("#save").click()
    expect(chat.locator("#link textarea, #link input").first).to_have_value(re.compile("dialog="), timeout=10_000)
    link = chat.locator("#link textarea, #link input").first.input_value()
    other = chat.context.new_page()
    other.goto(link, wait_until="domcontentloaded")
    expect(other.locator("#chat-b").get_by_test_id("bot")).to_have_count(4, timeout=30_000)
    other.close()


def test_phone(chat):
    chat.set_viewport_size({"width": 390, "height": 844})
    assert chat.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_dashboard_draws_and_says_why_not(chat, url):
    from playwright.sync_api import expect

    board = chat.context.new_page()
    board.goto(f"{url}?tab=dashboard", wait_until="domcontentloaded")
    expect(board.locator("#plot-paper .js-plotly-plot .main-svg").first).to_be_visible(timeout=30_000)
    expect(board.locator("#plot-levels")).to_contain_text("Nothing to draw", timeout=10_000)  # this study is empty, and says so
    expect(board.locator("#board-note")).to_contain_text("cocoift quickstart")
    board.close()


def test_two_people_do_not_meet(chat, browser, url):
    from playwright.sync_api import expect

    other = browser.new_context().new_page()
    other.goto(url, wait_until="domcontentloaded")
    expect(other.locator("#prompt textarea")).to_be_enabled(timeout=30_000)
    send(chat, "Mine is here?")
    send(other, "Yours is there?")
    for page, mine, yours in ((chat, "Mine", "Yours"), (other, "Yours", "Mine")):
        expect(page.locator("#vote-a")).to_be_enabled(timeout=30_000)
        text = page.locator("#chat-a").inner_text()
        assert mine in text and yours not in text
    other.context.close()


def test_page_is_refused_to_strangers_without_a_password(cocoift):
    done = cocoift("app", "--host", "0.0.0.0", env={k: v for k, v in os.environ.items() if k != "COCOIFT_PASSWORD"})
    assert done.returncode == 2 and "--password" in done.stderr


def test_bad_models_are_named(cocoift, tmp_path):
    (tmp_path / "m.yaml").write_text("- {name: a, pth: x}")
    done = cocoift("app", "--models", tmp_path / "m.yaml")
    assert done.returncode == 2 and "model 1: pth" in done.stderr


def test_no_path_outside_is_served(url):
    for path in ("/etc/passwd", "../../../../etc/passwd", str(Path(__file__).resolve())):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}gradio_api/file={path}")
        assert refused.value.code in (403, 404)
