"What a run was made with, where two runs differ in it, and what is to be known of them."

import html

import gradio as gr

from apps.panels.figure import FigurePlace
from apps.panels.place import Query, Study, not_shown, remember
from apps.sessions import QUIET, shows_errors
from cocoift.dashboard.configs import config_table, configured_runs, run_config
from cocoift.dashboard.samples import MOST_NOTE, note_line, read_notes
from cocoift.files import UserError
from cocoift.viz.names import model_of

PLAIN = {"evaluation": "how it was asked", "training": "how it was trained", "likelihood": "how it was weighed"}


class Runs:
    places: list[FigurePlace] = []

    def __init__(self, study: Study):
        self.study = study
        with gr.Row():
            a, b = (gr.Dropdown([], label=f"Run {x}", elem_id=f"config-{x.lower()}") for x in "AB")
            differ = gr.Checkbox(True, label="Only what differs", elem_id="differ", min_width=140)
        self.note, self.table = gr.Markdown(elem_id="config-note"), gr.HTML(elem_id="config")
        with gr.Row():
            self.notes = [
                gr.Textbox(label=f"Note on run {x}", lines=4, max_length=MOST_NOTE, elem_id=f"note-{x.lower()}")
                for x in "AB"
            ]
        self.keep = gr.Button("Keep the notes", size="sm", elem_id="keep-notes")
        self.choices = {"config_a": a, "config_b": b, "differ": differ}

    def arrive(self, query: Query) -> list:
        there = list(configured_runs(self.study.root))
        a = query.one("config_a", there, next(iter(there), None))
        others = sorted((name for name in there if name != a), key=lambda name: model_of(name) == model_of(a or ""))
        b = query.one("config_b", there, next(iter(others), a))
        differ = query.values.get("differ", "true") != "false"
        return [gr.update(choices=there, value=a), gr.update(choices=there, value=b), differ]

    def after(self, event):
        return event.then(self.drawn, list(self.choices.values()), [self.note, self.table, *self.notes], **QUIET)

    def wire(self) -> None:
        for part in self.choices.values():
            self.after(remember(part, self.choices))
        a, b, _ = self.choices.values()
        self.keep.click(shows_errors(self.kept), [a, b, *self.notes], None, **QUIET)

    def drawn(self, a, b, differ):
        runs, wrong = configured_runs(self.study.root), []
        notes, configs = self.written(), []
        for run in (a, b):
            try:
                configs.append(run_config(runs.get(run, [])))
            except UserError as error:
                configs, wrong = [*configs, {}], [*wrong, str(error)]
        table = config_table(*configs, differ=bool(differ))
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in table.values
        )
        kinds = dict.fromkeys(name.partition(".")[0] for name in table.setting)
        said = "; ".join(f"{kind}: {PLAIN[kind]}" for kind in kinds if kind in PLAIN)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("setting", f"A · {a}", f"B · {b}"))
        shown = (
            f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
        if not runs:
            shown = "<p>No run lies below this folder yet: `cocoift quickstart` makes some.</p>"
        elif not len(table):
            shown = "<p>The two were made with the same settings, as far as they say.</p>"
        return [
            not_shown(wrong),
            shown + f'<p class="where">{html.escape(said)}</p>',
            notes.get(a, ""),
            notes.get(b, ""),
        ]

    def written(self) -> dict[str, str]:
        try:
            return read_notes(self.study.store.lines())
        except (UserError, KeyError):  # a torn log: the votes' panel names it
            return {}

    def kept(self, a, b, *texts) -> None:
        before = self.written()
        lines = [note_line(run, text or "") for run, text in dict(zip((b, a), reversed(texts))).items() if run]
        if new := [line for line in lines if line["text"] != before.get(line["run"], "")]:
            self.study.store.add(*new)
        gr.Info(f"{len(new)} note{'s' * (len(new) != 1)} kept.")
