"What is folded away under the chat: prepared dialogs, differences, objects, settings, dialogs in and out."

import secrets
from pathlib import Path

import gradio as gr

from apps.sessions import QUIET, shows_errors, sorry, visitor
from cocoift.arena.export import export_comparison
from cocoift.arena.logs import read_log
from cocoift.arena.messages import SIDES, messages
from cocoift.arena.prepared import prepared_text, read_prepared
from cocoift.arena.session import MOST_TEXT, Side
from cocoift.arena.store import sides_as_json
from cocoift.dashboard.offers import offered_dialogs
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError


class Accordions:
    "The folded parts; `wire` ties them to a chat page."

    def __init__(self, registry: ModelRegistry, names: list[str]):
        self.registry, self.names, self.scripts = registry, names, offered_dialogs(registry)

    # The parts

    def lay_out_bar(self) -> None:
        self.script = gr.Dropdown(
            list(self.scripts),
            value=next(iter(self.scripts)),
            label="A prepared dialog",
            show_label=False,
            container=False,
            elem_id="script",
            min_width=220,
        )
        self.run = gr.Button("Run on all", elem_id="run-script", variant="primary", size="md", scale=0, min_width=130)

    def lay_out(self) -> tuple[gr.HTML, list[gr.Slider]]:  # where differences stand, how answers are drawn
        with gr.Accordion("The prepared dialog's questions", open=False, elem_id="script-box"):
            self.lines = gr.Textbox(
                prepared_text(next(iter(self.scripts.values()))),
                label="One a line (↵ breaks one within); about the pictures in the box, or the dialog's own, "
                "or the last one shown; <image> says where each comes",
                lines=4,
                max_length=MOST_TEXT,
                elem_id="script-lines",
            )
        with gr.Accordion("Difference between the answers", open=False, elem_id="difference-box"):
            diff = gr.HTML(elem_id="difference")
        with gr.Accordion("The picture and its COCO objects", open=False, elem_id="objects-box"):
            self.objects = gr.AnnotatedImage(elem_id="objects", height=320, label="objects")
            self.show = gr.Button("Show the objects", size="sm", elem_id="show-objects")
        with gr.Accordion("Generation", open=False, elem_id="generation-box"):
            settings = [
                gr.Slider(0, 2, 0, step=0.1, label="temperature", elem_id="temperature"),
                gr.Slider(0.05, 1, 1, step=0.05, label="top p", elem_id="top-p"),
                gr.Slider(1, 1024, 256, step=1, label="most tokens", elem_id="most-tokens"),
            ]
        with gr.Accordion("Replay, open a log, take away, link", open=False, elem_id="away-box"):
            self.lay_out_away()
        return diff, settings

    def lay_out_away(self) -> None:
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
            self.link = gr.Textbox(label="Link", elem_id="link", interactive=False)

    # What happens

    def wire(self, page) -> None:
        self.sessions, self.first = page.sessions, page.first
        self.script.input(self.lines_of, self.script, self.lines, **QUIET)
        page.answer_after(
            self.run.click(
                shows_errors(lambda *values: self.play(page, *values)),
                [self.script, self.lines, page.box, *page.asking],
                page.asked,
                **QUIET,
            )
        )
        self.show.click(self.objects_of, page.states[0], self.objects, **QUIET)
        b = [page.states[1], page.panes[1], page.models[1]]
        page.answer_after(
            self.replay.click(shows_errors(self.replayed), [self.again, page.states[0], page.pictures], b, **QUIET), [1]
        )
        opened = self.upload.upload(self.opened, self.upload, [self.logged, self.choice, page.note], **QUIET)
        for event in (opened.then, self.choice.input):
            chosen = event(
                self.chosen,
                [self.choice, self.logged, page.pictures],
                [*page.states, *page.panes, page.many, page.count],
                **QUIET,
            )
            page.settle_after(chosen.then(page.updates.shape, page.many, page.shaped, **QUIET))
        seen = [*page.states, page.pictures, page.blind, page.many]
        self.take.click(self.exported, seen, self.files, **QUIET)
        self.save.click(self.saved, seen, self.link, **QUIET).then(
            None, self.link, self.link, js="l => l ? new URL(l, location.href.split('?')[0]).href : l"
        )

    def offer(self) -> dict:
        "The prepared dialogs as they are now: a run may have come."
        self.scripts = offered_dialogs(self.registry)
        return gr.update(choices=list(self.scripts))

    def lines_of(self, name: str) -> str:
        return prepared_text(self.scripts[name]) if name in self.scripts else ""

    def play(self, page, name, lines, message, *values):
        *sides, known, hidden, a, b, c, d, many = values
        page.wait_for(sides[:many])
        if len(lines or "") > MOST_TEXT:
            raise sorry(f"{len(lines):,} characters are too many: write {MOST_TEXT:,} at most.")
        dialog = read_prepared(lines or "", getattr(self.scripts.get(name), "image", None))
        if dialog is None:
            raise sorry("Write the questions first, one a line.")
        before = (r.images[-1] for r in reversed(sides[0].rounds) if r.images)
        pictures, last = self.registry.pictures, next((image for image in before if image in known), None)
        if files := (message or {}).get("files"):
            shown = page.taken(files)
        else:
            image = dialog.image or last or min(pictures)
            shown = {image: known.get(image) or pictures[image]}
        return page.ask(
            (*sides, {**known, **shown}, hidden, a, b, c, d, many), lambda side, model: dialog.begin(model, *shown)
        )

    def objects_of(self, a):
        image = next((r.images[-1] for r in reversed(a.rounds) if r.images), None)
        if image not in self.registry.pictures:
            raise sorry("No COCO annotation of this picture is known here.")
        from cocoift.dashboard.objects import outlined_objects

        try:
            return outlined_objects(self.registry.home(image), image, self.registry.pictures[image])
        except (UserError, OSError, KeyError, ValueError, StopIteration) as error:
            raise sorry(f"The objects cannot be drawn: {error}") from None

    def replayed(self, model, a, known):
        if not model or not a.rounds:
            raise sorry("Choose a model, and have a dialog on side A.")
        side = a.replay(model).next()
        self.sessions.expect("b")
        return side, messages(side, self.registry.pictures | known), model

    def opened(self, path):
        try:
            dialogs, others = read_log(path)
        except (UserError, OSError) as error:
            raise sorry(str(error)) from None
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
        sides = list(dialogs[int(number)].sides.values())
        many = max(2, len(sides))
        sides = [*sides, *(Side(name) for name in self.first[len(sides) :])]
        return [*sides, *(messages(side, self.registry.pictures | known) for side in sides), many, many]

    def exported(self, *values):
        *sides, known, hidden, many = values
        sides = {
            s: Side(f"Model {s.upper()}" if hidden else side.model, side.rounds) for s, side in zip(SIDES, sides[:many])
        }
        if not any(side.rounds for side in sides.values()):
            raise sorry("There is nothing to export yet: ask something first.")
        folder, pictures = self.sessions.folder / visitor() / "export", self.registry.pictures | known
        return [str(path) for path in export_comparison(sides, folder, pictures)]

    def saved(self, *values):
        *sides, known, hidden, many = values
        if hidden:
            raise sorry("Vote first: a link would tell the names.")
        id, sides = secrets.token_urlsafe(12), dict(zip(SIDES, sides[:many]))
        self.sessions.store.keep(sides, known)
        self.sessions.store.add({"kind": "dialog", "id": id, "sides": sides_as_json(sides)})
        return f"?tab=chat&sides={many}&dialog={id}"
