"""A tutorial as its reader meets it: JupyterLab in a real Chromium, run from the menu, its conversation and its figure
seen."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: apt-get install chromium")
HOMES = (
    "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTERLAB_SETTINGS_DIR JUPYTERLAB_WORKSPACES_DIR "
    "IPYTHONDIR"
).split()


@pytest.fixture(scope="module")
def lab(root, tiny_quickstart, tmp_path_factory):
    "Where JupyterLab serves a copy of the tutorials."
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(root / "nbs/tutorials", folder / "tutorials")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = {name: str(folder / name.lower()) for name in HOMES}
    quiet = folder / "jupyterlab_settings_dir/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--allow-root",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.token=",
        "--ServerApp.password=",
    ]
    environment = {**os.environ, **own, "COCOIFT_STUDY": str(tiny_quickstart[0]), "PLOTLY_RENDERER": "plotly_mimetype"}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, cwd=folder / "tutorials", stdout=log, stderr=log, env=environment)
    began = time.time()
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2)
            break
        except OSError:
            assert server.poll() is None and time.time() - began < 90, (folder / "log").read_text()
            time.sleep(0.3)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.mark.slow
def test_tutorial_in_jupyterlab(page, lab, root):
    from playwright.sync_api import expect

    strangers = []
    page.on("request", lambda r: None if r.url.startswith((lab, "data:", "blob:")) else strangers.append(r.url))
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/tree/20_repair.ipynb", wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    idle.wait_for(timeout=60_000)
    page.get_by_text("(ipykernel) | Idle").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2000)  # earlier it would ask for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    last = json.loads((root / "nbs/tutorials/20_repair.ipynb").read_text())["cells"]
    page.locator(".jp-InputPrompt", has_text=f"[{sum(cell['cell_type'] == 'code' for cell in last)}]:").wait_for(
        timeout=180_000
    )
    expect(
        page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']", has_text="Error")
    ).to_have_count(0)
    expect(page.locator(".jp-OutputArea-output svg.main-svg").first).to_be_visible()
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/lab-figure.png")
    page.locator(".jp-WindowedPanel-outer").evaluate("panel => panel.scrollTo(0, 880)")
    told = page.locator(".jp-RenderedHTMLCommon", has_text="terse, unasked").first
    expect(told.locator("img").first).to_be_visible()  # the conversation with its picture
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/lab.png")
    assert not strangers
