"Two to four models, one dialog: the page over `cocoift.arena.session`."

import asyncio
import random
from threading import Event

import gradio as gr

from apps import folds
from apps.room import QUIET, Room, shows_errors, sorry, visitor
from cocoift.arena.marks import defuse
from cocoift.arena.messages import SIDES, WELCOME, differences, messages
from cocoift.arena.session import MOST_PICTURES, MOST_TEXT, Side, stream_answer
from cocoift.arena.store import VOTES, votes_of
from cocoift.dashboard.registry import examples, secrets
from cocoift.files import UserError
from cocoift.models.ask import Settings

TAGS = {"A": "a", "B": "b", "C": "c", "D": "d", "tie": "tie", "both bad": "bad"}
IN_ADDRESS = """(...values) => { const q = new URLSearchParams(location.search); "abcd".split("").forEach((n, i) => i < values[4] ? q.set(n, values[i]) : q.delete(n));
    q.set("tab", "chat"); q.set("sides", values[4]); q.delete("dialog"); history.replaceState(null, "", "?" + q); }"""


class Page:
    "The chat's parts, and what happens when they are touched."

    def __init__(self, room: Room, where: gr.Blocks):
        self.room, self.names = room, list(room.registry.entries)
        self.first = [self.names[min(k, len(self.names) - 1)] for k in range(4)]
        self.pictures, self.blind, self.many = (
            gr.State({}),
            gr.State(False),
            gr.State(2),
        )  # pictures: image -> path, this visitor's
        self.lay_out()
        self.all = [*self.states, *self.panes, *self.models]
        self.asking = [*self.states, self.pictures, self.blind, *self.models, self.many]
        self.asked = [*self.states, self.pictures, *self.panes]
        self.shaped = [*self.columns, self.votes["C"], self.votes["D"]]
        self.settled = [*self.states, self.many], [self.box, self.diff, *self.votes.values()]
        self.wire()
        self.folds.wire(self)
        where.load(
            self.arrive,
            None,
            [
                *self.all,
                self.pictures,
                self.many,
                self.count,
                self.note,
                self.folds.script,
                *self.shaped,
                *self.settled[1],
            ],
            **QUIET,
        )
        where.unload(room.leave)

    # The parts

    def lay_out(self) -> None:
        self.states, self.panes, self.models, self.retries, self.stops, self.columns = [], [], [], [], [], []
        self.folds = folds.Folds(self.room.registry, self.names)
        with gr.Row(elem_id="bar"):
            self.folds.lay_out_bar()
            self.count = gr.Radio(
                [("2 models", 2), ("3", 3), ("4", 4)],
                value=2,
                label="Models side by side",
                show_label=False,
                container=False,
                elem_id="count",
                scale=0,
                min_width=250,
            )
            self.secret = gr.Checkbox(label="Blind vote", elem_id="blind", container=False, scale=0, min_width=130)
        with gr.Row(elem_id="sides"):
            for k in range(4):
                self.lay_out_side(k)
        self.box = gr.MultimodalTextbox(
            placeholder="Ask all. Enter sends, Esc stops, Alt+1 and Alt+2 vote.",
            file_types=["image"],
            file_count="multiple",
            elem_id="prompt",
            show_label=False,
            stop_btn=False,
            max_plain_text_length=MOST_TEXT,
        )
        with gr.Row(elem_classes="tight", elem_id="votes"):
            self.votes = {
                choice: gr.Button(
                    choice if len(choice) > 1 else f"{choice} is better",
                    interactive=False,
                    visible=choice not in "CD",
                    size="sm",
                    min_width=80,
                    elem_id=f"vote-{TAGS[choice]}",
                )
                for choice in VOTES
            }
            self.reason = gr.Textbox(
                placeholder="Reason for the vote",
                show_label=False,
                container=False,
                elem_id="reason",
                lines=1,
                max_length=2000,
                min_width=180,
                scale=2,
            )
            self.stop = gr.Button("Stop all", size="sm", elem_id="stop", min_width=80, elem_classes="plain")
            self.clear = gr.Button("Clear", size="sm", elem_id="clear", min_width=80, elem_classes="plain")
        self.note = gr.Markdown(elem_id="note")
        asked = [
            [{"text": question, "files": [str(self.room.registry.pictures[image])]}]
            for question, image in examples(self.room.registry)
        ]
        gr.Examples(
            asked,
            self.box,
            label="Or begin with one of these",
            cache_examples=False,
            elem_id="examples",
            examples_per_page=12,
        )
        self.box.interactive = (
            False  # until the page is as its link wants it; set earlier, it would come again with every example
        )
        self.diff, self.settings = self.folds.lay_out()

    def lay_out_side(self, k: int) -> None:
        s = SIDES[k]
        with gr.Column(min_width=280, visible=k < 2, elem_id=f"side-{s}") as column:
            with gr.Row(elem_classes="tight head"):
                self.models.append(
                    gr.Dropdown(
                        self.names,
                        value=self.first[k],
                        label=f"Model {s.upper()}",
                        show_label=False,
                        container=False,
                        elem_id=f"model-{s}",
                        min_width=90,
                    )
                )
                self.stops.append(
                    gr.Button(
                        f"Stop {s.upper()}", size="sm", elem_id=f"stop-{s}", scale=0, min_width=64, elem_classes="plain"
                    )
                )
                self.retries.append(
                    gr.Button(
                        f"Retry {s.upper()}",
                        size="sm",
                        elem_id=f"retry-{s}",
                        scale=0,
                        min_width=66,
                        elem_classes="plain",
                    )
                )
            self.panes.append(
                gr.Chatbot(
                    label=s.upper(),
                    height="max(440px, calc(100dvh - 420px))",
                    elem_id=f"chat-{s}",
                    editable="user",
                    buttons=["copy", "copy_all"],
                    allow_tags=False,
                    placeholder=WELCOME[k],
                )
            )
            self.states.append(gr.State(Side(self.first[k])))
        self.columns.append(column)

    # What happens

    def wire(self) -> None:
        self.speak_after(
            self.box.submit(shows_errors(self.begin), [self.box, *self.asking], [self.box, *self.asked], **QUIET)
        )
        for k in range(4):
            self.wire_side(k)
        self.stop.click(self.room.stopper(SIDES), queue=False, api_visibility="private")
        voted = [self.note, self.reason, self.blind, self.secret, *self.models, *self.votes.values()]
        for choice, button in self.votes.items():
            button.click(
                shows_errors(self.voter(choice)), [*self.states, self.reason, self.blind, self.many], voted, **QUIET
            )
        self.secret.input(
            self.hide_names, [self.secret, *self.models, self.many], [self.blind, *self.all, self.note], **QUIET
        )
        counted = self.count.input(
            self.reshape, [*self.states, self.count], [self.many, *self.shaped, *self.settled[1]], **QUIET
        )
        self.settle_after(
            self.clear.click(self.wipe, self.states, [*self.states, *self.panes, self.diff, self.note], **QUIET)
        )
        for chosen in (counted.then, *(model.input for model in self.models)):
            chosen(None, [*self.models, self.count], None, js=IN_ADDRESS)

    def wire_side(self, k: int) -> None:
        def again(side, number, known, hidden, **changed):
            asked = side.edit(number, **changed) if changed else side.retry(number)
            self.room.expect(SIDES[k])
            return self.shown(asked, known, hidden)

        def retry(side, known, hidden, data: gr.RetryData):
            return again(side, data.index // 2, known, hidden)

        def retry_last(side, known, hidden):
            if side.busy or not side.rounds:
                raise sorry("There is no finished round to ask again.")
            return again(side, len(side.rounds) - 1, known, hidden)

        def edit(side, known, hidden, data: gr.EditData):
            return again(side, data.index // 2, known, hidden, instruction=str(data.value))

        def undo(side, known, hidden, data: gr.UndoData):
            return self.shown(side.undo(data.index // 2), known, hidden)

        here = ([self.states[k], self.pictures, self.blind], [self.states[k], self.panes[k]])
        self.speak_after(self.panes[k].retry(shows_errors(retry), *here, **QUIET), [k])
        self.speak_after(self.retries[k].click(shows_errors(retry_last), *here, **QUIET), [k])
        self.speak_after(self.panes[k].edit(shows_errors(edit), *here, **QUIET), [k])
        self.settle_after(self.panes[k].undo(shows_errors(undo), *here, **QUIET))
        self.settle_after(self.panes[k].clear(lambda side: Side(side.model), self.states[k], self.states[k], **QUIET))
        self.stops[k].click(self.room.stopper(SIDES[k]), queue=False, api_visibility="private")

    def speak_after(self, event, sides=range(4)) -> None:
        "After an event each side speaks for itself: a slow one keeps no other waiting."
        for k in sides:
            given = [self.states[k], self.pictures, self.blind, *self.settings]
            self.settle_after(
                event.success(
                    self.speaking(SIDES[k]), given, [self.states[k], self.panes[k]], concurrency_limit=80, **QUIET
                )
            )

    def settle_after(self, event) -> None:
        event.then(self.settle, *self.settled, **QUIET)

    def shown(self, side: Side, known: dict, hidden: bool) -> tuple[Side, list[dict]]:
        return side, messages(side, self.room.registry.pictures | known, hidden)

    @staticmethod
    def shape(many: int):
        return [
            *(gr.update(visible=k < many) for k in range(4)),
            gr.update(visible=many > 2),
            gr.update(visible=many > 3),
        ]

    def reshape(self, *given):
        return [given[-1], *self.shape(given[-1]), *self.settle(*given)]

    @staticmethod
    def settle(*given):
        *sides, many = given
        sides = sides[:many]
        busy = any(side.busy for side in sides)
        done = not busy and all(side.rounds for side in sides)
        return [
            gr.update(interactive=not busy),
            differences(sides) if done else "",
            *[gr.update(interactive=done) for _ in VOTES],
        ]

    def ask(self, given, question):
        "All sides that are seen are asked; `question(side, model)` makes each side's next state. Then the rest of `asked`."
        *sides, known, hidden, a, b, c, d, many = given
        asked = [question(side, side.model if hidden else model) for side, model in zip(sides[:many], (a, b, c, d))]
        self.room.expect(SIDES[:many])
        return *asked, *sides[many:], known, *(self.shown(side, known, hidden)[1] for side in [*asked, *sides[many:]])

    @staticmethod
    def wait_for(sides) -> None:
        if any(side.busy for side in sides):
            raise sorry("Somebody is still answering: wait, or stop.")

    def begin(self, message, *given):
        *sides, known, hidden, a, b, c, d, many = given
        self.wait_for(sides[:many])
        text, files = (message or {}).get("text", "").strip(), (message or {}).get("files", [])
        if not text:
            raise sorry("Write a question first; a picture alone asks nothing." if files else "Write a question first.")
        if len(files) > MOST_PICTURES:
            raise sorry(f"{len(files):,} pictures are too many: send {MOST_PICTURES} at most.")
        taken = dict(map(self.room.take, files))
        return None, *self.ask(
            (*sides, {**known, **taken}, hidden, a, b, c, d, many),
            lambda side, model: Side(model, side.rounds).ask(text, list(taken)),
        )

    def speaking(self, name: str):
        async def speak(side, known, hidden, temperature, top_p, tokens, request: gr.Request):
            if not side.busy:
                yield gr.skip(), gr.skip()
                return
            room, settings = self.room, Settings(int(tokens), float(temperature), float(top_p))
            event = room.live.setdefault((request.session_hash, name), Event())
            while True:
                try:
                    model = await asyncio.to_thread(room.registry.model, side.model)
                except Exception as error:  # a checkpoint that is torn, a model that is gone: its side says so
                    side = side.last(status="failed", why=" ".join(str(error).split())[:300] or type(error).__name__)
                else:
                    pictures = room.registry.pictures | known
                    async for side in stream_answer(side, model, pictures, settings, event, secrets()):
                        yield self.shown(side, known, hidden)
                if side.rounds[-1].status != "done" or not side.script:
                    side = Side(side.model, side.rounds)
                    break
                try:
                    side, event = side.next(), Event()
                except UserError as error:  # a script that is too long for one dialog
                    side = Side(side.model, side.rounds).last(status="failed", why=str(error))
                    break
                room.live[request.session_hash, name] = event
            yield self.shown(side, known, hidden)

        return speak

    def voter(self, choice: str):
        def cast(*given):
            *sides, why, hidden, many = given
            sides = dict(zip(SIDES, sides[:many]))
            self.room.log.add(*votes_of(choice, sides, why or "", hidden))
            told = ", ".join(f"{s.upper()} was *{defuse(side.model)}*" for s, side in sides.items())
            seen = [
                gr.update(visible=True, value=side.model)
                if side.model in self.room.registry.entries
                else gr.update(visible=True)
                for side in sides.values()
            ]
            return [
                f"**Noted: {choice}.** {told}.",
                "",
                False,
                False,
                *seen,
                *[gr.skip()] * (4 - many),
                *[gr.update(interactive=False) for _ in VOTES],
            ]

        return cast

    def hide_names(self, on, *given):
        *models, many = given
        self.room.stop(visitor())
        names = list(self.room.registry.entries)
        drawn = (
            random.sample(names, many)
            if on and len(names) >= many
            else random.choices(names, k=many)
            if on
            else models[:many]
        )
        drawn += models[many:]
        return [
            on,
            *map(Side, drawn),
            *[[]] * 4,
            *[gr.update(visible=not on) for _ in drawn],
            "The names are hidden: ask, then vote." if on else "",
        ]

    def wipe(self, *sides):
        self.room.stop(visitor())
        return [*(Side(side.model) for side in sides), *[[]] * 4, "", ""]

    def arrive(self, request: gr.Request):
        "The page as its link wants it: models, how many, a saved dialog."
        told, asked = self.room.registry.refresh(), dict(request.query_params)
        names = list(self.room.registry.entries)
        spare = [names[min(k, len(names) - 1)] for k in range(4)]
        sides = [Side(asked.get(s) if asked.get(s) in names else name) for s, name in zip(SIDES, spare)]
        many = int(asked["sides"]) if asked.get("sides") in ("2", "3", "4") else 2
        if asked.get("dialog"):
            try:
                found, why = self.room.log.dialog(asked["dialog"]), "There is no dialog under this link."
            except UserError as error:  # a store that is torn
                found, why = None, str(error)
            told = told if found else why
            many = max(2, len(found)) if found else many
            sides = [*found.values(), *sides[len(found) :]] if found else sides
        pictures = self.room.registry.pictures | self.room.log.album()
        known = {
            image: pictures[image] for side in sides for r in side.rounds for image in r.images if image in pictures
        }
        models = [
            gr.update(choices=names, value=side.model if side.model in names else name)
            for side, name in zip(sides, spare)
        ]
        shown = [
            *(messages(side, pictures) for side in sides),
            *models,
            known,
            many,
            many,
            defuse(told) and f"⚠ {defuse(told)}",
            self.folds.offer(),
        ]
        return [*sides, *shown, *self.shape(many), *self.settle(*sides, many)]
