"Who is there: what the server holds of each session, under the session's own key, until it leaves."

import html
import shutil
from collections import defaultdict
from filecmp import cmp
from functools import wraps
from pathlib import Path
from threading import Event

import gradio as gr

from cocoift.arena.messages import SIDES
from cocoift.arena.session import take_picture
from cocoift.arena.store import Logbook
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError

QUIET = dict(show_progress="hidden", api_visibility="private")


def sorry(text: str) -> gr.Error:
    return gr.Error(html.escape(text), print_exception=False)


def shows_errors(handler):
    "A handler whose `UserError` the visitor reads: the server can be called with more than its page would send."

    @wraps(handler)
    def handled(*arguments, **named):
        try:
            return handler(*arguments, **named)
        except UserError as error:
            raise sorry(str(error)) from None

    return handled


def visitor() -> str:
    "The session whose event is being handled."
    return gr.context.LocalContext.request.get(None).session_hash


class Room:
    "Pictures that were sent, answers that are being given."

    def __init__(self, registry: ModelRegistry, log: Logbook, folder: Path, cache: Path):
        self.registry, self.log, self.folder, self.cache = registry, log, folder, cache
        self.live: dict[tuple[str, str], Event] = {}
        self.sent: dict[str, set[Path]] = defaultdict(set)  # as they were uploaded

    def stop(self, session: str, sides: str = SIDES) -> None:
        for side in sides:
            if event := self.live.get((session, side)):
                event.set()

    def expect(self, sides: str) -> None:
        "These sides are about to answer: who presses stop before they do has stopped them."
        for side in sides:
            self.live[visitor(), side] = Event()

    def stopper(self, sides: str):
        def stop(request: gr.Request):
            self.stop(request.session_hash, sides)

        return stop

    def take(self, path: str) -> tuple[str, Path]:
        "A picture of this visitor's: who it is, and its clean copy."
        session, image = visitor(), ""
        try:
            image, clean = take_picture(path, self.folder / session, self.registry.known())
        except (UserError, OSError) as error:
            raise sorry(str(error)) from None
        finally:
            if image not in self.registry.pictures:  # those are the lab's own, and everybody's
                self.sent[session].add(Path(path))
        return image, clean

    def leave(self, request: gr.Request) -> None:
        "Nothing of a visitor stays but what they voted on or saved."
        session = str(request.session_hash)
        self.stop(session)
        for side in SIDES:
            self.live.pop((session, side), None)
        made = [path for path in (self.folder / session).rglob("*") if path.is_file()]
        served = [copy for path in made for copy in self.cache.glob(f"*/{path.name}") if cmp(copy, path, shallow=False)]
        for path in (*served, *self.sent.pop(session, ())):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / session, ignore_errors=True)
