"Both tabs on one page, on this machine only unless a password guards them. Started by `cocoift app`, with OPTIONS set."
import hmac
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
FOLDER = Path(tempfile.mkdtemp(prefix="cocoift-app-"))
os.environ["GRADIO_TEMP_DIR"] = str(FOLDER / "files")

import gradio as gr  # noqa: E402  reads its settings when it is imported

from apps import chat, dashboard  # noqa: E402
from apps.theme import CSS, HEAD, THEME  # noqa: E402
from cocoift.chat.desk import Logbook, MOST_BYTES  # noqa: E402
from cocoift.studies.roster import open_roster  # noqa: E402


def page(options: dict) -> gr.Blocks:
    "The whole page."
    roster = open_roster(options["study"], FOLDER, options["models"])
    room = chat.Room(roster, Logbook(Path(options["study"]).parent / "app" / "log.jsonl"), FOLDER / "sessions")
    with gr.Blocks(title="cocoift", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown("# cocoift\nAn instruction should hold for exactly as long as it was meant to.", elem_id="title")
        with gr.Tabs(elem_id="tabs") as tabs:
            if options["chat"]:
                with gr.Tab("Chat", id="chat"):
                    chat.build(room, blocks)
            if options["dashboard"]:
                with gr.Tab("Dashboard", id="dashboard", render_children=True) as looking:
                    dashboard.build(Path(options["study"]), roster, room.log, FOLDER / "sessions", blocks, looking if options["chat"] else None)

        def tab(request: gr.Request):
            asked = request.query_params.get("tab")
            return gr.Tabs(selected=asked) if asked in ("chat", "dashboard") else gr.skip()

        blocks.load(tab, None, tabs, api_visibility="private")
    return blocks


def serve(options: dict) -> None:
    password = options["password"]
    auth = (lambda user, given: hmac.compare_digest(given.encode(), password.encode())) if password else None
    page(options).queue(max_size=400, default_concurrency_limit=40).launch(
        server_name=options["host"], server_port=options["port"], share=options["share"], auth=auth, max_file_size=MOST_BYTES, ssr_mode=False,
        theme=THEME, css=CSS, head=HEAD, footer_links=[], quiet=False, show_error=False, run_history=False)


if __name__ == "__main__":
    serve(globals()["OPTIONS"])
