"Two to four models, one dialog: the page over `cocoift.arena.session`."

import asyncio
from threading import Event

import gradio as gr

from apps import accordions
from apps.sessions import QUIET, Sessions, shows_errors, sorry
from apps.updates import Updates
from cocoift.arena.marks import as_typed, defuse
from cocoift.arena.messages import SIDES, WELCOME, messages
from cocoift.arena.session import MOST_PICTURES, MOST_TEXT, Side, stream_answer
from cocoift.arena.store import VOTES
from cocoift.dashboard.registry import examples, secrets
from cocoift.files import UserError
from cocoift.models.ask import Settings

TAGS = {"A": "a", "B": "b", "C": "c", "D": "d", "tie": "tie", "both bad": "bad"}
IN_ADDRESS = """(...values) => { const q = new URLSearchParams(location.search);
    "abcd".split("").forEach((n, i) => i < values[4] ? q.set(n, values[i]) : q.delete(n));
    q.set("tab", "chat"); q.set("sides", values[4]); q.delete("dialog"); history.replaceState(null, "", "?" + q); }"""


class Page:
    "The chat's parts, and what happens when they are touched."

    def __init__(self, sessions: Sessions, where: gr.Blocks):
        self.sessions, self.updates, self.names = sessions, Updates(sessions), list(sessions.registry.entries)
        self.first = [self.names[min(k, len(self.names) - 1)] for k in range(4)]
        self.pictures = gr.State({})  # image -> path, this visitor's
        self.blind, self.many = gr.State(False), gr.State(2)
        self.lay_out()
        self.all = [*self.states, *self.panes, *self.models]
        self.asking = [*self.states, self.pictures, self.blind, *self.models, self.many]
        self.asked = [*self.states, self.pictures, *self.panes]
        self.shaped = [*self.columns, self.votes["C"], self.votes["D"]]
        self.settled = [*self.states, self.many], [self.box, self.diff, *self.votes.values()]
        self.wire()
        self.accordions.wire(self)
        arrived = [*self.all, self.pictures, self.many, self.count, self.note, self.accordions.script]
        where.load(self.arrive, None, [*arrived, *self.shaped, *self.settled[1]], **QUIET)
        where.unload(sessions.leave)

    # The parts

    def lay_out(self) -> None:
        self.states, self.panes, self.models, self.retries, self.stops, self.columns = [], [], [], [], [], []
        self.accordions = accordions.Accordions(self.sessions.registry, self.names)
        self.lay_out_bar()
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
        self.lay_out_votes()
        self.note = gr.Markdown(elem_id="note")
        pictures, label = self.sessions.registry.pictures, "Or begin with one of these"
        asked = [[{"text": q, "files": [str(pictures[image])]}] for q, image in examples(self.sessions.registry)]
        gr.Examples(asked, self.box, label=label, cache_examples=False, elem_id="examples", examples_per_page=12)
        # until the page is as its link wants it; set earlier, it would come again with every example
        self.box.interactive = False
        self.diff, self.settings = self.accordions.lay_out()

    def lay_out_bar(self) -> None:
        bare = dict(show_label=False, container=False)
        with gr.Row(elem_id="bar"):
            self.accordions.lay_out_bar()
            counts, label = [("2 models", 2), ("3", 3), ("4", 4)], "Models side by side"
            self.count = gr.Radio(counts, value=2, label=label, elem_id="count", scale=0, min_width=250, **bare)
            self.secret = gr.Checkbox(label="Blind vote", elem_id="blind", container=False, scale=0, min_width=130)

    def lay_out_votes(self) -> None:
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

    def lay_out_side(self, k: int) -> None:
        s = SIDES[k]
        small = dict(size="sm", scale=0, elem_classes="plain")
        with gr.Column(min_width=280, visible=k < 2, elem_id=f"side-{s}") as column:
            with gr.Row(elem_classes="tight head"):
                model = gr.Dropdown(
                    self.names,
                    value=self.first[k],
                    label=f"Model {s.upper()}",
                    show_label=False,
                    container=False,
                    elem_id=f"model-{s}",
                    min_width=90,
                )
                self.models.append(model)
                self.stops.append(gr.Button(f"Stop {s.upper()}", elem_id=f"stop-{s}", min_width=64, **small))
                self.retries.append(gr.Button(f"Retry {s.upper()}", elem_id=f"retry-{s}", min_width=66, **small))
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
        self.answer_after(
            self.box.submit(shows_errors(self.begin), [self.box, *self.asking], [self.box, *self.asked], **QUIET)
        )
        for k in range(4):
            self.wire_side(k)
        self.stop.click(self.sessions.stopper(SIDES), queue=False, api_visibility="private")
        voted = [self.note, self.reason, self.blind, self.secret, *self.models, *self.votes.values()]
        for choice, button in self.votes.items():
            button.click(
                shows_errors(self.updates.voter(choice)),
                [*self.states, self.reason, self.blind, self.many],
                voted,
                **QUIET,
            )
        self.secret.input(
            self.updates.hide_names, [self.secret, *self.models, self.many], [self.blind, *self.all, self.note], **QUIET
        )
        counted = self.count.input(
            self.updates.reshape, [*self.states, self.count], [self.many, *self.shaped, *self.settled[1]], **QUIET
        )
        self.settle_after(
            self.clear.click(self.updates.wipe, self.states, [*self.states, *self.panes, self.diff, self.note], **QUIET)
        )
        for chosen in (counted.then, *(model.input for model in self.models)):
            chosen(None, [*self.models, self.count], None, js=IN_ADDRESS)

    def wire_side(self, k: int) -> None:
        def again(side, number, known, hidden, **changed):
            asked = side.edit(number, **changed) if changed else side.retry(number)
            self.sessions.expect(SIDES[k])
            return self.shown(asked, known, hidden)

        def retry(side, known, hidden, data: gr.RetryData):
            return again(side, data.index // 2, known, hidden)

        def retry_last(side, known, hidden):
            if side.busy or not side.rounds:
                raise sorry("There is no finished round to ask again.")
            return again(side, len(side.rounds) - 1, known, hidden)

        def edit(side, known, hidden, data: gr.EditData):
            return again(side, data.index // 2, known, hidden, instruction=as_typed(str(data.value)))

        def undo(side, known, hidden, data: gr.UndoData):
            return self.shown(side.undo(data.index // 2), known, hidden)

        here = ([self.states[k], self.pictures, self.blind], [self.states[k], self.panes[k]])
        self.answer_after(self.panes[k].retry(shows_errors(retry), *here, **QUIET), [k])
        self.answer_after(self.retries[k].click(shows_errors(retry_last), *here, **QUIET), [k])
        self.answer_after(self.panes[k].edit(shows_errors(edit), *here, **QUIET), [k])
        self.settle_after(self.panes[k].undo(shows_errors(undo), *here, **QUIET))
        self.settle_after(self.panes[k].clear(lambda side: Side(side.model), self.states[k], self.states[k], **QUIET))
        self.stops[k].click(self.sessions.stopper(SIDES[k]), queue=False, api_visibility="private")

    def answer_after(self, event, sides=range(4)) -> None:
        "After an event each side answers for itself: a slow one keeps no other waiting."
        for k in sides:
            inputs = [self.states[k], self.pictures, self.blind, *self.settings]
            outputs, streaming = [self.states[k], self.panes[k]], self.streaming(SIDES[k])
            self.settle_after(event.success(streaming, inputs, outputs, concurrency_limit=80, **QUIET))

    def settle_after(self, event) -> None:
        event.then(self.updates.settle, *self.settled, **QUIET)

    def shown(self, side: Side, known: dict, hidden: bool) -> tuple[Side, list[dict]]:
        return side, messages(side, self.sessions.registry.pictures | known, hidden)

    def ask(self, values, question):
        "All sides that are seen are asked: `question(side, model)` makes each one's next state. The rest of `asked`."
        *sides, known, hidden, a, b, c, d, many = values
        asked = [question(side, side.model if hidden else model) for side, model in zip(sides[:many], (a, b, c, d))]
        self.sessions.expect(SIDES[:many])
        return *asked, *sides[many:], known, *(self.shown(side, known, hidden)[1] for side in [*asked, *sides[many:]])

    @staticmethod
    def wait_for(sides) -> None:
        if any(side.busy for side in sides):
            raise sorry("Somebody is still answering: wait, or stop.")

    def taken(self, files: list[str]) -> dict:  # image -> its clean copy
        if len(files) > MOST_PICTURES:
            raise sorry(f"{len(files):,} pictures are too many: send {MOST_PICTURES} at most.")
        return dict(map(self.sessions.take, files))

    def begin(self, message, *values):
        *sides, known, hidden, a, b, c, d, many = values
        self.wait_for(sides[:many])
        text, files = (message or {}).get("text", "").strip(), (message or {}).get("files", [])
        if not text:
            raise sorry("Write a question first; a picture alone asks nothing." if files else "Write a question first.")
        taken = self.taken(files)
        return None, *self.ask(
            (*sides, {**known, **taken}, hidden, a, b, c, d, many),
            lambda side, model: Side(model, side.rounds).ask(text, list(taken)),
        )

    def streaming(self, name: str):
        async def stream(side, known, hidden, temperature, top_p, tokens, request: gr.Request):
            if not side.busy:
                yield gr.skip(), gr.skip()
                return
            sessions, settings = self.sessions, Settings(int(tokens), float(temperature), float(top_p))
            event = sessions.live.setdefault((request.session_hash, name), Event())
            while True:
                try:
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
                    side, event = side.next(), Event()
                except UserError as error:  # a script that is too long for one dialog
                    side = Side(side.model, side.rounds).last(status="failed", why=str(error))
                    break
                sessions.live[request.session_hash, name] = event
            yield self.shown(side, known, hidden)

        return stream

    def arrive(self, request: gr.Request):
        "The page as its link wants it: models, how many, a saved dialog."
        warning, asked = self.sessions.registry.refresh(), dict(request.query_params)
        names = list(self.sessions.registry.entries)
        spare = [names[min(k, len(names) - 1)] for k in range(4)]
        sides = [Side(asked.get(s) if asked.get(s) in names else name) for s, name in zip(SIDES, spare)]
        many = int(asked["sides"]) if asked.get("sides") in ("2", "3", "4") else 2
        if asked.get("dialog"):
            dialog, why = self.saved(asked["dialog"])
            warning = warning if dialog else why
            many = max(2, len(dialog)) if dialog else many
            sides = [*dialog.values(), *sides[len(dialog) :]] if dialog else sides
        pictures = self.sessions.registry.pictures | self.sessions.store.pictures()
        images = {image for side in sides for r in side.rounds for image in r.images}
        known = {image: pictures[image] for image in images if image in pictures}
        models = [
            gr.update(choices=names, value=side.model if side.model in names else name)
            for side, name in zip(sides, spare)
        ]
        panes, note = [messages(side, pictures) for side in sides], defuse(warning) and f"⚠ {defuse(warning)}"
        shown = [*panes, *models, known, many, many, note, self.accordions.offer()]
        return [*sides, *shown, *self.updates.shape(many), *self.updates.settle(*sides, many)]

    def saved(self, link: str) -> tuple[dict[str, Side], str]:  # a dialog, or why there is none
        try:
            return self.sessions.store.dialog(link) or {}, "There is no dialog under this link."
        except UserError as error:  # a store that is torn
            return {}, str(error)
