"Both tabs on one page, on this machine only unless a password guards them. Started by `cocoift app`, with OPTIONS set."

import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
FOLDER = Path(tempfile.mkdtemp(prefix="cocoift-app-"))
CACHE = FOLDER / "files"
os.environ["GRADIO_TEMP_DIR"] = str(CACHE)
os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # uvicorn's setting: whose X-Forwarded-For is believed; else nobody's
HELD = FileLock(FOLDER / "lock", timeout=0).acquire()  # as long as this app lives
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

import gradio as gr  # noqa: E402  reads its settings when it is imported
from starlette.middleware import Middleware  # noqa: E402

from apps import chat, dashboard  # noqa: E402
from apps.guard import Gate, Guard  # noqa: E402
from apps.panels import page as panels_page  # noqa: E402
from apps.sessions import Sessions  # noqa: E402
from apps.theme import CSS, HEAD, THEME  # noqa: E402
from cocoift.arena.session import MOST_BYTES  # noqa: E402
from cocoift.arena.store import ArenaStore  # noqa: E402
from cocoift.dashboard.registry import open_registry  # noqa: E402
from cocoift.files import UserError  # noqa: E402

# seconds: how often files that were uploaded and never sent are looked for, and how old they may be
FORGET = (300, 1800)
LOOKS = dict(
    ssr_mode=False,
    theme=THEME,
    css=CSS + panels_page.CSS,
    head=HEAD + panels_page.HEAD,
    footer_links=[],
    show_error=False,
    run_history=False,
    _frontend=False,  # no second look whether the page can be had from here, past whatever blocks a HEAD
)
CLOSED = {"docs_url": None, "redoc_url": None, "openapi_url": None}


def sweep(aside: Path) -> None:
    "Remove what visitors sent to an app that was killed: a folder whose lock nobody holds."
    for left in aside.parent.glob("cocoift-app-*"):
        try:
            if (left / "lock").is_file() and time.time() - left.stat().st_mtime > 5:
                with FileLock(left / "lock", timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
        except OSError:  # somebody's who is alive, or none of these
            continue


def page(options: dict) -> gr.Blocks:
    "The whole page."
    registry = open_registry(options["study"], FOLDER, options["models"])
    sessions = Sessions(
        registry, ArenaStore(Path(options["study"]).parent / "app" / "log.jsonl"), FOLDER / "sessions", CACHE
    )
    with gr.Blocks(title="cocoift", analytics_enabled=False, delete_cache=FORGET) as blocks:
        gr.Markdown("# cocoift\nAn instruction should hold for exactly as long as it was meant to.", elem_id="title")
        with gr.Tabs(elem_id="tabs") as tabs:
            if options["chat"]:
                with gr.Tab("Chat", id="chat"):
                    chat.Page(sessions, blocks)
            if options["dashboard"]:
                with gr.Tab("Dashboard", id="dashboard", render_children=True) as looking:
                    dashboard.build(
                        Path(options["study"]),
                        registry,
                        sessions.store,
                        FOLDER / "sessions",
                        blocks,
                        looking if options["chat"] else None,
                    )

        def tab(request: gr.Request):
            asked = request.query_params.get("tab")
            return gr.Tabs(selected=asked) if asked in ("chat", "dashboard") else gr.skip()

        blocks.load(tab, None, tabs, api_visibility="private")
    return blocks


def shown(study: Path) -> list[str]:
    "The only folders that files are served from: pictures, wherever the study lies."
    return [
        str(folder.absolute())
        for folder in (study / "exam" / "images", study / "world" / "images", study.parent / "app" / "pictures")
    ]


def past_proxies(host: str) -> None:
    "Gradio asks its own page whether it is there: no proxy stands between."
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known.strip() != "*":
        own = ",".join(filter(None, (known, "localhost,127.0.0.1,::1", host)))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = own


def leave(*_) -> None:
    "What visitors sent goes, too; `timeout` and others ask twice."
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def serve(options: dict) -> None:
    sweep(FOLDER)
    signal.signal(signal.SIGTERM, leave)
    host, port, password = options["host"], options["port"], options["password"]
    past_proxies(host)
    try:
        blocks = page(options).queue(max_size=400, default_concurrency_limit=40)
        blocks.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=options["share"],
            auth=Gate(password).enter if password else None,
            allowed_paths=shown(Path(options["study"])),
            max_file_size=MOST_BYTES,
            app_kwargs={"middleware": [Middleware(Guard, share=options["share"])], **CLOSED},
            **LOOKS,
        )
    except UserError:
        raise
    except Exception as error:  # before it serves: afterwards errors are a visitor's, and logged
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"--host {host} --port {port}: the page cannot be served there ({why}): name another place"
        ) from None


if __name__ == "__main__":
    serve(globals()["OPTIONS"])
