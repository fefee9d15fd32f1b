"What is folded away under the chat: differences, objects, settings, earlier dialogs, dialogs in and out."

import secrets
from pathlib import Path

import gradio as gr

from apps.sessions import QUIET, shows_errors, visitor
from cocoift.arena.export import export_comparison
from cocoift.arena.logs import read_log
from cocoift.arena.messages import SIDES, messages
from cocoift.arena.session import Side
from cocoift.arena.store import read_side, sides_as_json
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError
from cocoift.models.ask import Settings

MOST_TOKENS = 1024
OUTLINES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")  # of objects, by category


def settings_of(temperature, top_p, tokens, system) -> Settings:
    "What was typed, or why it cannot be."
    usual = Settings()
    number = [
        value if value is not None else default
        for value, default in zip((temperature, top_p, tokens), (usual.temperature, usual.top_p, usual.most_tokens))
    ]
    for name, value, low, high in zip(
        ("temperature", "top p", "most tokens"), number, (0, 0.01, 1), (2, 1, MOST_TOKENS)
    ):
        if not low <= value <= high:
            raise UserError(f"{name} {value:g}: {low:g} to {high:g} are possible: change it under the settings")
    return Settings(int(number[2]), float(number[0]), float(number[1]), (system or "").strip())


class Accordions:
    "The folded parts; `wire` ties them to a chat page."

    def __init__(self, registry: ModelRegistry, names: list[str]):
        self.registry, self.names = registry, names

    # The parts

    def lay_out(self) -> gr.HTML:  # where differences stand
        with gr.Accordion("Difference between the answers", open=False, elem_id="difference-box"):
            diff = gr.HTML(elem_id="difference")
        with gr.Accordion("The picture and its COCO objects", open=False, elem_id="objects-box"):
            self.objects = gr.AnnotatedImage(elem_id="objects", height=320, label="objects", buttons=[])
            self.show = gr.Button("Show the objects", size="sm", elem_id="show-objects")
        with gr.Accordion("How each model answers", open=False, elem_id="generation-box"):
            self.lay_out_settings()
        with gr.Accordion("Earlier dialogs, logs, files and links", open=False, elem_id="away-box"):
            self.lay_out_away()
        return diff

    def lay_out_settings(self) -> None:
        self.settings, self.settings_of_side = [], []
        usual = Settings()
        with gr.Row():
            for k, s in enumerate(SIDES):
                with gr.Column(min_width=200, visible=k < 2) as column:
                    self.settings.append(
                        [
                            gr.Number(
                                usual.temperature, label=f"{s.upper()}: temperature, 0 to 2", elem_id=f"temperature-{s}"
                            ),
                            gr.Number(usual.top_p, label=f"{s.upper()}: top p, up to 1", elem_id=f"top-p-{s}"),
                            gr.Number(
                                usual.most_tokens,
                                label=f"{s.upper()}: most tokens of an answer, up to {MOST_TOKENS:,}",
                                elem_id=f"most-tokens-{s}",
                            ),
                            gr.Textbox(
                                label=f"{s.upper()}: system prompt",
                                placeholder="the model's own",
                                max_length=4000,
                                elem_id=f"system-{s}",
                            ),
                        ]
                    )
                self.settings_of_side.append(column)

    def lay_out_away(self) -> None:
        self.earlier = gr.Dropdown(
            [], label="Your earlier dialogs (kept in this browser only)", elem_id="earlier", type="index"
        )
        with gr.Row():
            self.again = gr.Dropdown(self.names, label="Replay A's dialog on side B with", elem_id="replay-model")
            self.replay = gr.Button("Replay", elem_id="replay")
        with gr.Row():
            self.upload = gr.File(
                label="A FastChat or LLaVA conversation log, or comparison.json",
                file_types=[".json", ".jsonl"],
                elem_id="log",
                height=110,
            )
            self.choice, self.logged = gr.Dropdown([], label="Its dialogs", elem_id="log-dialogs"), gr.State([])
        with gr.Row():
            self.take, self.files = (
                gr.Button("Export", elem_id="export"),
                gr.Files(
                    elem_id="files",
                    label="JSON, Markdown, and a dataset with its pictures for cocoift build",
                    height=130,
                ),
            )
        with gr.Row():
            self.save = gr.Button("Save and link (keeps the dialog and its pictures)", elem_id="save")
            self.link = gr.Textbox(label="Link", elem_id="link", interactive=False, buttons=["copy"])

    # What happens

    def wire(self, page) -> None:
        self.sessions, self.first = page.sessions, page.first
        self.show.click(shows_errors(self.objects_of), page.states[0], self.objects, **QUIET)
        b = [page.states[1], page.panes[1], page.models[1]]
        page.answer_after(
            self.replay.click(shows_errors(self.replayed), [self.again, page.states[0], page.pictures], b, **QUIET), [1]
        )
        opened = self.upload.upload(
            shows_errors(self.opened), self.upload, [self.logged, self.choice, page.note], **QUIET
        )
        arrived = [*page.states, *page.panes, page.many, page.count]
        for event, handler, inputs in (
            (opened.then, self.chosen, [self.choice, self.logged, page.pictures]),
            (self.choice.input, self.chosen, [self.choice, self.logged, page.pictures]),
            (self.earlier.input, self.come_back, [self.earlier, page.memory, page.pictures]),
        ):
            chosen = event(shows_errors(handler), inputs, arrived, **QUIET)
            page.settle_after(chosen.then(page.updates.shape, page.many, page.shaped, **QUIET))
        seen = [*page.states, page.pictures, page.blind, page.many]
        self.take.click(shows_errors(self.exported), seen, self.files, **QUIET)
        self.save.click(shows_errors(self.saved), seen, self.link, **QUIET).then(
            None, self.link, self.link, js="l => l ? new URL(l, location.href.split('?')[0]).href : l"
        )

    def objects_of(self, a):
        image = next((r.images[-1] for r in reversed(a.rounds) if r.images), None)
        if image not in self.registry.pictures:
            raise UserError("No COCO annotation of this picture is known here.")
        from cocoift.dashboard.objects import outlined_objects

        try:
            picture, objects = outlined_objects(self.registry.home(image), image, self.registry.pictures[image])
        except (UserError, OSError, KeyError, ValueError, StopIteration) as error:
            raise UserError(f"The objects cannot be drawn: {error}") from None
        names = dict.fromkeys(name for _, name in objects)
        colors = {name: OUTLINES[k % len(OUTLINES)] for k, name in enumerate(names)}
        return gr.AnnotatedImage((picture, objects), color_map=colors)

    def replayed(self, model, a, known):
        if not model or not a.rounds:
            raise UserError("Choose a model, and have a dialog on side A.")
        side = a.replay(model).next()
        self.sessions.expect("b")
        return side, messages(side, self.registry.pictures | known), model

    def opened(self, path):
        try:
            dialogs, others = read_log(path)
        except OSError as error:
            raise UserError(str(error)) from None
        finally:
            self.sessions.sent[visitor()].add(Path(path))
        dialogs = dialogs[:500]
        names = [
            (f"{k}. {' and '.join(s.model for s in t.sides.values())} ({t.about})"[:120], k - 1)
            for k, t in enumerate(dialogs, 1)
        ]
        rest = f"; {others:,} lines are something else" if others else ""
        note = f"{len(dialogs):,} dialog{'s' * (len(dialogs) != 1)} read{rest}."
        return dialogs, gr.update(choices=names, value=0), note

    def chosen(self, number, dialogs, known):
        if not dialogs or number is None or not 0 <= int(number) < len(dialogs):
            return [gr.skip()] * 10
        return self.shown(list(dialogs[int(number)].sides.values()), known)

    def come_back(self, number, memory, known):
        "An earlier dialog of this visitor's, as it was last."
        if number is None or not 0 <= int(number) < len(memory or []):
            return gr.skip()
        try:
            sides = [read_side(side) for side in list(memory[int(number)]["sides"].values())[:4]]
        except (KeyError, TypeError, AttributeError):
            raise UserError("That dialog was kept by another version of this page and cannot be read.") from None
        return self.shown(sides, self.sessions.store.pictures() | known)

    def shown(self, sides, known):
        many = max(2, len(sides))
        sides = [*sides, *(Side(name) for name in self.first[len(sides) :])]
        return [*sides, *(messages(side, self.registry.pictures | known) for side in sides), many, many]

    def exported(self, *values):
        *sides, known, hidden, many = values
        sides = {
            s: Side(f"Model {s.upper()}" if hidden else side.model, side.rounds) for s, side in zip(SIDES, sides[:many])
        }
        if not any(side.rounds for side in sides.values()):
            raise UserError("There is nothing to export yet: ask something first.")
        folder, pictures = self.sessions.folder / visitor() / "export", self.registry.pictures | known
        return [str(path) for path in export_comparison(sides, folder, pictures)]

    def saved(self, *values):
        *sides, known, hidden, many = values
        if hidden:
            raise UserError("Vote first: a link would tell the names.")
        id, sides = secrets.token_urlsafe(12), dict(zip(SIDES, sides[:many]))
        self.sessions.store.keep(sides, known)
        self.sessions.store.add({"kind": "dialog", "id": id, "sides": sides_as_json(sides)})
        return f"?tab=chat&sides={many}&dialog={id}"
