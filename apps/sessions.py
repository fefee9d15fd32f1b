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
from cocoift.arena.store import ArenaStore
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError

QUIET = dict(show_progress="hidden", api_visibility="private")


def shows_errors(handler):
    """A handler whose `UserError` the visitor reads as a toast, while all that the page shows stays as it is: gradio
    would blank every output of one that raises. The server can be called with more than its page would send, too."""

    @wraps(handler)
    def handled(*arguments, **named):
        try:
            return handler(*arguments, **named)
        except UserError as error:
            gr.Warning(html.escape(str(error)), title="Not done")
            return gr.skip()

    return handled


def visitor() -> str:
    "The session whose event is being handled."
    return gr.context.LocalContext.request.get(None).session_hash


class Sessions:
    "Pictures that were sent, answers that are being given."

    def __init__(self, registry: ModelRegistry, store: ArenaStore, folder: Path, cache: Path):
        self.registry, self.store, self.folder, self.cache = registry, store, folder, cache
        self.live: dict[tuple[str, str], Event] = {}
        self.expected: set[tuple[str, str]] = set()  # sides that were asked and have not begun
        self.sent: dict[str, set[Path]] = defaultdict(set)  # as they were uploaded

    def stop(self, session: str, sides: str = SIDES) -> None:
        for side in sides:
            if event := self.live.get((session, side)):
                event.set()

    def expect(self, sides: str) -> None:
        "These sides are about to answer: who presses stop before they do has stopped them."
        for side in sides:
            self.live[visitor(), side] = Event()
            self.expected.add((visitor(), side))

    def begin(self, session: str, side: str) -> Event | None:
        "What stops the answer that this side was asked for; None where it was asked for none since the last one began."
        if (session, side) not in self.expected:
            return None
        self.expected.remove((session, side))
        return self.live[session, side]

    def go_on(self, session: str, side: str) -> Event:
        "What stops the next answer of a dialog that plays."
        event = self.live[session, side] = Event()
        return event

    def stopper(self, sides: str):
        def stop(request: gr.Request):
            self.stop(request.session_hash, sides)

        return stop

    def take(self, path: str) -> tuple[str, Path]:
        "A picture of this visitor's: who it is, and its clean copy."
        session, image = visitor(), ""
        try:
            image, clean = take_picture(path, self.folder / session, self.registry.known())
        except OSError as error:
            raise UserError(f"{Path(path).name}: is not here any more ({error}): send it again") from None
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
            self.expected.discard((session, side))
        made = [path for path in (self.folder / session).rglob("*") if path.is_file()]
        served = [copy for path in made for copy in self.cache.glob(f"*/{path.name}") if cmp(copy, path, shallow=False)]
        for path in (*served, *self.sent.pop(session, ())):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / session, ignore_errors=True)
