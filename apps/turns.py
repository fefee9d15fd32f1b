"Asking: what a question is made of, who answers it, and the answers while they come."

import asyncio
from dataclasses import replace

import gradio as gr

from apps.accordions import settings_of
from apps.sessions import Sessions
from cocoift.arena.messages import SIDES, introduction, messages
from cocoift.arena.session import MOST_PICTURES, Side, stream_answer
from cocoift.arena.store import VOTES
from cocoift.dashboard.offers import live_twin
from cocoift.dashboard.registry import secrets
from cocoift.files import UserError


def votes_closed() -> list[dict]:
    "Nobody votes on an answer that is still being given."
    return [gr.update(interactive=False) for _ in VOTES]


class Turns:
    "Handlers that ask and answer; they know no part of the page."

    def __init__(self, sessions: Sessions):
        self.sessions = sessions

    def shown(self, side: Side, known: dict, hidden: bool) -> tuple[Side, list[dict]]:
        return side, messages(side, self.sessions.registry.pictures | known, hidden)

    def ask(self, values, question, prepared=()):
        """All sides that are seen are asked: `question(side, model)` makes each one's next state. The rest of `asked`.
        The `prepared` questions that are played stand above the answers, none over a question of one's own."""
        *sides, known, hidden, a, b, c, d, many = values
        asked = [question(side, side.model if hidden else model) for side, model in zip(sides[:many], (a, b, c, d))]
        answering = [self.answering(side) for side in asked]
        models = [gr.skip() if now.model == then.model else now.model for now, then in zip(answering, asked)] + [
            gr.skip()
        ] * (4 - many)
        if any(now is not then for now, then in zip(answering, asked)):
            gr.Info(
                "Nobody recorded an answer to that, so the model itself answers now.", title="From recording to model"
            )
        self.sessions.expect(SIDES[:many])
        shown = [*answering, *sides[many:]]
        pictures = self.sessions.registry.pictures | known
        image = next((r.images[-1] for r in reversed(asked[0].rounds) if r.images), None)
        picture = str(pictures[image]) if image in pictures else gr.skip()
        panes = [self.shown(side, known, hidden)[1] for side in shown]
        return *shown, known, *panes, *models, picture, introduction(prepared), *votes_closed()

    def answering(self, side: Side) -> Side:
        "A recording that was never asked this gives way to its model, where that is here."
        registry = self.sessions.registry
        twin = live_twin(registry, side.model)
        if not twin:
            return side
        whole = [side]
        for question in side.script:
            whole.append(whole[-1].ask(*question))
        try:
            run = registry.model(side.model)
        except UserError:  # its side will say so
            return side
        return side if all(run.knows(step.asking) for step in whole) else replace(side, model=twin)

    @staticmethod
    def wait_for(sides) -> None:
        if any(side.busy for side in sides):
            raise UserError("Somebody is still answering: wait, or stop.")

    def taken(self, files: list[str]) -> dict:  # image -> its clean copy
        if len(files) > MOST_PICTURES:
            raise UserError(f"{len(files):,} pictures are too many: send {MOST_PICTURES} at most.")
        return dict(map(self.sessions.take, files))

    def begin(self, message, *values):
        *sides, known, hidden, a, b, c, d, many = values
        self.wait_for(sides[:many])
        text, files = (message or {}).get("text", "").strip(), (message or {}).get("files", [])
        if not text:
            raise UserError(
                "Write a question first; a picture alone asks nothing." if files else "Write a question first."
            )
        taken = self.taken(files)
        return None, *self.ask(
            (*sides, {**known, **taken}, hidden, a, b, c, d, many),
            lambda side, model: Side(model, side.rounds).ask(text, list(taken)),
        )

    def streaming(self, name: str):
        async def stream(side, known, hidden, temperature, top_p, tokens, system, request: gr.Request):
            sessions = self.sessions
            event = sessions.begin(request.session_hash, name)
            if event is None or not side.busy:
                yield gr.skip(), gr.skip()
                return
            while True:
                try:
                    settings = settings_of(temperature, top_p, tokens, system)
                    model = await asyncio.to_thread(sessions.registry.model, side.model)
                except Exception as error:  # a checkpoint that is torn, a model that is gone: its side says so
                    side = side.last(status="failed", why=" ".join(str(error).split())[:300] or type(error).__name__)
                else:
                    pictures = sessions.registry.pictures | known
                    async for side in stream_answer(side, model, pictures, settings, event, secrets()):
                        yield self.shown(side, known, hidden)
                if side.rounds[-1].status != "done" or not side.script:
                    side = Side(side.model, side.rounds)
                    break
                try:
                    side = side.next()
                except UserError as error:  # a script that is too long for one dialog
                    side = Side(side.model, side.rounds).last(status="failed", why=str(error))
                    break
                event = sessions.go_on(request.session_hash, name)
            yield self.shown(side, known, hidden)

        return stream
