"What stands above the answers: a dialog to play, the picture that is asked about, and what leaks."

import gradio as gr

from apps.sessions import QUIET, shows_errors
from cocoift.arena.messages import introduction
from cocoift.arena.prepared import PreparedDialog, prepared_text, read_prepared
from cocoift.arena.session import MOST_TEXT, Side
from cocoift.dashboard.offers import offered_dialogs
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError


class Scene:
    "The prepared dialogs and their picture; `wire` ties them to a chat page."

    def __init__(self, registry: ModelRegistry):
        self.registry = registry
        self.refresh()

    def refresh(self) -> None:
        "The prepared dialogs as they are now: a run may have come."
        self.dialogs = offered_dialogs(self.registry)

    @property
    def first(self) -> PreparedDialog:
        return next(iter(self.dialogs.values()))

    # The parts

    def lay_out_bar(self) -> None:
        self.script = gr.Dropdown(
            list(self.dialogs),
            value=next(iter(self.dialogs)),
            label="Dialog",
            show_label=False,
            container=False,
            elem_id="script",
            min_width=260,
        )
        self.run = gr.Button(
            "Play this dialog", elem_id="run-script", variant="primary", size="md", scale=0, min_width=160
        )

    def lay_out(self) -> None:
        with gr.Row(elem_id="scene"):
            self.picture = gr.Image(
                self.picture_of(self.first),
                label="The picture that is asked about",
                show_label=False,
                interactive=False,
                container=False,
                buttons=[],
                elem_id="scene-picture",
                scale=0,
                min_width=150,
            )
            self.text = gr.HTML(introduction(self.first.questions), elem_id="scene-text")

    def lay_out_lines(self) -> None:
        with gr.Accordion("Change the dialog's questions", open=False, elem_id="script-box"):
            self.lines = gr.Textbox(
                prepared_text(self.first),
                label="One a line (↵ breaks one within); about the pictures in the box, or the dialog's own, "
                "or the last one shown; <image> says where each comes",
                lines=4,
                max_length=MOST_TEXT,
                elem_id="script-lines",
            )

    # What happens

    def wire(self, page) -> None:
        self.script.input(self.chosen, self.script, [self.lines, self.picture, self.text], **QUIET)
        page.answer_after(
            self.run.click(
                shows_errors(lambda *values: self.play(page, *values)),
                [self.script, self.lines, page.box, *page.asking],
                page.asked,
                **QUIET,
            )
        )

    def picture_of(self, dialog: PreparedDialog) -> str:
        pictures = self.registry.pictures
        return str(pictures[dialog.image if dialog.image in pictures else min(pictures)])

    def chosen(self, name: str):
        dialog = self.dialogs.get(name)
        return (prepared_text(dialog), *self.offered(name)) if dialog else gr.skip()

    def offered(self, name: str):
        "The picture and the questions of the dialog that is to be played, where all others were cleared away."
        dialog = self.dialogs.get(name)
        return (self.picture_of(dialog), introduction(dialog.questions)) if dialog else gr.skip()

    def arrive(self, sides: list[Side], pictures: dict) -> list:  # the dropdown, the picture and what is said
        "The scene as a visitor finds it: the first dialog's, or that of a dialog that a link leads to."
        asked = any(side.rounds for side in sides)
        shown = [image for side in sides for r in side.rounds for image in r.images if image in pictures]
        picture = str(pictures[shown[-1]]) if shown else self.picture_of(self.first)
        offered = gr.update(choices=list(self.dialogs), value=next(iter(self.dialogs)))
        lines = prepared_text(self.first)
        return [offered, lines, picture, introduction(() if asked else self.first.questions)]

    def play(self, page, name, lines, message, *values):
        *sides, known, hidden, a, b, c, d, many = values
        page.turns.wait_for(sides[:many])
        if len(lines or "") > MOST_TEXT:
            raise UserError(f"{len(lines):,} characters are too many: write {MOST_TEXT:,} at most.")
        dialog = read_prepared(lines or "", getattr(self.dialogs.get(name), "image", None))
        if dialog is None:
            raise UserError("Write the questions first, one a line.")
        before = (r.images[-1] for r in reversed(sides[0].rounds) if r.images)
        pictures, last = self.registry.pictures, next((image for image in before if image in known), None)
        if files := (message or {}).get("files"):
            shown = page.turns.taken(files)
        else:
            image = dialog.image or last or min(pictures)
            shown = {image: known.get(image) or pictures[image]}
        return page.turns.ask(
            (*sides, {**known, **shown}, hidden, a, b, c, d, many),
            lambda side, model: dialog.begin(model, *shown),
            dialog.questions,
        )
