"Two to four models, one dialog: the page over `cocoift.arena.session`."

import gradio as gr

from apps import accordions, scene
from apps.sessions import QUIET, Sessions, shows_errors
from apps.turns import Turns, votes_closed
from apps.updates import Updates
from cocoift.arena.marks import as_typed, defuse
from cocoift.arena.messages import SIDES, WELCOME, messages, round_at
from cocoift.arena.session import MOST_TEXT, Side
from cocoift.arena.store import VOTES
from cocoift.dashboard.offers import describe_model
from cocoift.dashboard.registry import examples
from cocoift.files import UserError

LATEX = [
    {"left": left, "right": right, "display": display}
    for left, right, display in (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False))
]
TAGS = {"A": "a", "B": "b", "C": "c", "D": "d", "tie": "tie", "both bad": "bad"}
IN_ADDRESS = """(...values) => { const q = new URLSearchParams(location.search);
    "abcd".split("").forEach((n, i) => i < values[4] ? q.set(n, values[i]) : q.delete(n));
    q.set("tab", "chat"); q.set("sides", values[4]); q.delete("dialog"); history.replaceState(null, "", "?" + q); }"""


# what is announced to those who hear the page, once its parts are there
SPOKEN = """() => { const note = document.getElementById("note");
    if (note) { note.setAttribute("role", "status"); note.setAttribute("aria-live", "polite"); } }"""


class Page:
    "The chat's parts, and what happens when they are touched."

    def __init__(self, sessions: Sessions, where: gr.Blocks):
        self.sessions, self.updates, self.names = sessions, Updates(sessions), list(sessions.registry.entries)
        self.scene, self.turns = scene.Scene(sessions.registry), Turns(sessions)
        self.first = self.first_models()
        self.pictures = gr.State({})  # image -> path, this visitor's
        self.blind, self.many = gr.State(False), gr.State(2)
        # in the visitor's own browser, which alone can read it; the same secret, so that it outlives the server
        self.memory = gr.BrowserState([], storage_key="cocoift-dialogs", secret="cocoift")
        self.lay_out()
        folded = self.accordions
        self.all = [*self.states, *self.panes, *self.models]
        self.asking = [*self.states, self.pictures, self.blind, *self.models, self.many]
        above = [self.scene.picture, self.scene.text]
        self.asked = [*self.states, self.pictures, *self.panes, *self.models, *above, *self.votes.values()]
        self.shaped = [*self.columns, *folded.settings_of_side, self.votes["C"], self.votes["D"]]
        may = [self.box, self.diff, *self.votes.values(), self.memory, folded.earlier]
        self.settled = [*self.states, self.many, self.blind, self.memory], may
        self.wire()
        folded.wire(self)
        self.scene.wire(self)
        prepared = [self.scene.script, self.scene.lines, *above]
        arrived = [*self.all, *self.about, self.pictures, self.many, self.count, self.note, *prepared]
        self.settle_after(where.load(self.arrive, None, [*arrived, *self.shaped, self.box], **QUIET))
        where.load(None, None, None, js=SPOKEN)
        where.unload(sessions.leave)

    def first_models(self) -> list[str]:
        "Four models: those whose answers to the first dialog are recorded, then the others."
        names = list(self.sessions.registry.entries)
        recorded = [name for name in self.scene.first.models if name in names]
        order = list(dict.fromkeys([*recorded, *names]))
        return [order[min(k, len(order) - 1)] for k in range(4)]

    # The parts

    def lay_out(self) -> None:
        self.states, self.panes, self.models, self.retries, self.stops, self.columns = [], [], [], [], [], []
        self.about, self.overs = [], []
        self.accordions = accordions.Accordions(self.sessions.registry, self.names)
        self.lay_out_bar()
        self.scene.lay_out()
        with gr.Row(elem_id="sides"):
            for k in range(4):
                self.lay_out_side(k)
        self.note = gr.Markdown(elem_id="note")
        self.box = gr.MultimodalTextbox(
            placeholder="Ask all models. Enter sends; paste or drop pictures here.",
            label="Your question",
            file_types=["image"],
            file_count="multiple",
            elem_id="prompt",
            show_label=False,
            stop_btn=False,
            max_plain_text_length=MOST_TEXT,
        )
        self.lay_out_votes()
        pictures, label = self.sessions.registry.pictures, "Or ask one of these"
        asked = [[{"text": q, "files": [str(pictures[image])]}] for q, image in examples(self.sessions.registry)]
        gr.Examples(asked, self.box, label=label, cache_examples=False, elem_id="examples", examples_per_page=12)
        # until the page is as its link wants it; set earlier, it would come again with every example
        self.box.interactive = False
        self.scene.lay_out_lines()
        self.diff = self.accordions.lay_out()

    def lay_out_bar(self) -> None:
        bare = dict(show_label=False, container=False)
        with gr.Row(elem_id="bar"):
            self.scene.lay_out_bar()
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
                    min_width=150,
                )
                self.models.append(model)
                self.stops.append(gr.Button(f"Stop {s.upper()}", elem_id=f"stop-{s}", min_width=64, **small))
                self.retries.append(gr.Button(f"Retry {s.upper()}", elem_id=f"retry-{s}", min_width=66, **small))
            self.about.append(gr.Markdown(self.who(self.first[k]), elem_id=f"about-{s}", elem_classes="about"))
            self.overs.append(gr.Button(f"All go on from {s.upper()}", elem_id=f"over-{s}", size="sm"))
            self.panes.append(
                gr.Chatbot(
                    label=s.upper(),
                    height="max(320px, calc(100dvh - 548px))",
                    elem_id=f"chat-{s}",
                    editable="user",
                    buttons=["copy", "copy_all", self.overs[k]],
                    allow_tags=False,
                    placeholder=WELCOME,
                    latex_delimiters=LATEX,
                    group_consecutive_messages=False,
                )
            )
            self.states.append(gr.State(Side(self.first[k])))
        self.columns.append(column)

    def who(self, name: str) -> str:
        return defuse(describe_model(self.sessions.registry, name))

    # What happens

    def wire(self) -> None:
        self.answer_after(
            self.box.submit(shows_errors(self.turns.begin), [self.box, *self.asking], [self.box, *self.asked], **QUIET)
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
            ).then(self.updates.whose, [self.blind, *self.models], self.about, **QUIET)
        drawn = [self.secret, self.blind, *self.all, self.note]
        self.secret.input(self.updates.hide_names, [self.secret, *self.models, self.many], drawn, **QUIET).then(
            self.updates.whose, [self.blind, *self.models], self.about, **QUIET
        )
        counting = [*self.states, self.count, self.blind, self.memory]
        counted = self.count.input(self.updates.reshape, counting, [self.many, *self.shaped, *self.settled[1]], **QUIET)
        self.settle_after(
            self.clear.click(self.updates.wipe, self.states, [*self.states, *self.panes, self.diff, self.note], **QUIET)
        )
        self.clear.click(self.scene.offered, self.scene.script, [self.scene.picture, self.scene.text], **QUIET)
        for chosen in (counted.then, *(model.input for model in self.models)):
            chosen(None, [*self.models, self.count], None, js=IN_ADDRESS)

    def wire_side(self, k: int) -> None:
        def round_of(side, known, data) -> int:
            return round_at(side, self.sessions.registry.pictures | known, data.index)

        def again(side, number, known, hidden, **changed):
            asked = side.edit(number, **changed) if changed else side.retry(number)
            self.sessions.expect(SIDES[k])
            return *self.turns.shown(asked, known, hidden), *votes_closed()

        def retry(side, known, hidden, data: gr.RetryData):
            return again(side, round_of(side, known, data), known, hidden)

        def retry_last(side, known, hidden):
            if side.busy or not side.rounds:
                raise UserError("There is no finished round to ask again.")
            return again(side, len(side.rounds) - 1, known, hidden)

        def edit(side, known, hidden, data: gr.EditData):
            return again(side, round_of(side, known, data), known, hidden, instruction=as_typed(str(data.value)))

        def undo(side, known, hidden, data: gr.UndoData):
            return self.turns.shown(side.undo(round_of(side, known, data)), known, hidden)

        here, changed = [self.states[k], self.pictures, self.blind], [self.states[k], self.panes[k]]
        asked = here, [*changed, *self.votes.values()]
        self.answer_after(self.panes[k].retry(shows_errors(retry), *asked, **QUIET), [k])
        self.answer_after(self.retries[k].click(shows_errors(retry_last), *asked, **QUIET), [k])
        self.answer_after(self.panes[k].edit(shows_errors(edit), *asked, **QUIET), [k])
        self.settle_after(self.panes[k].undo(shows_errors(undo), here, changed, **QUIET))
        self.settle_after(self.panes[k].clear(lambda side: Side(side.model), self.states[k], self.states[k], **QUIET))
        self.stops[k].click(self.sessions.stopper(SIDES[k]), queue=False, api_visibility="private")
        everywhere = [*self.states, self.pictures, self.blind, self.many], [*self.states, *self.panes]
        self.settle_after(self.overs[k].click(shows_errors(self.updates.take_over(k)), *everywhere, **QUIET))
        self.models[k].change(self.who, self.models[k], self.about[k], **QUIET)

    def answer_after(self, event, sides=range(4)) -> None:
        "After an event each side answers for itself: a slow one keeps no other waiting."
        for k in sides:
            inputs = [self.states[k], self.pictures, self.blind, *self.accordions.settings[k]]
            outputs, streaming = [self.states[k], self.panes[k]], self.turns.streaming(SIDES[k])
            self.settle_after(event.success(streaming, inputs, outputs, concurrency_limit=80, **QUIET))

    def settle_after(self, event) -> None:
        event.then(self.updates.settle, *self.settled, **QUIET)

    def arrive(self, request: gr.Request):
        "The page as its link wants it: models, how many, a saved dialog."
        warning, asked = self.sessions.registry.refresh(), dict(request.query_params)
        names = list(self.sessions.registry.entries)
        self.scene.refresh()
        spare = self.first_models()
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
        about = [self.who(side.model) for side in sides]
        above = self.scene.arrive(sides, pictures)
        shown = [*panes, *models, *about, known, many, many, note, *above]
        return [*sides, *shown, *self.updates.shape(many), gr.update(interactive=True)]

    def saved(self, link: str) -> tuple[dict[str, Side], str]:  # a dialog, or why there is none
        try:
            return self.sessions.store.dialog(link) or {}, "There is no dialog under this link."
        except UserError as error:  # a store that is torn
            return {}, str(error)
