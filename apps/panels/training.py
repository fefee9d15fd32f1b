"Loss, learning rate, speed, use of the device and saved tokens of trainings; drawn again while a run goes on."

from collections import Counter

import gradio as gr

from apps.panels.figure import FigurePlace, figure_places, legend_html
from apps.panels.place import Query, Study, not_shown, remember
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.dashboard.live import training_stamps, trainings
from cocoift.dashboard.seeds import run_labels
from cocoift.viz import traced
from cocoift.viz.names import cast

PLACES = {  # column: its place
    "loss": "loss",
    "lr": "lr",
    "tokens_per_s": "speed",
    "tree_ratio": "trees",
    "mfu": "mfu",
    "waiting": "waiting",
}
LOG = ("loss", "lr")  # what a logarithmic axis is for
EVERY = 4  # seconds


class Training:
    def __init__(self, study: Study):
        self.study = study
        with gr.Row():
            label = "Models (all, where none is chosen)"
            runs = gr.Dropdown([], multiselect=True, label=label, elem_id="trainings", scale=3)
            log = gr.Checkbox(label="Logarithmic axis", elem_id="log-axis", min_width=140)
            smooth = gr.Slider(0, 0.3, 0.05, step=0.01, label="Smooth over this share of a curve", elem_id="smooth")
        self.note, self.legend = gr.Markdown(elem_id="training-note"), gr.HTML(elem_id="training-legend")
        what = {place: column for column, place in PLACES.items()}
        self.plots = figure_places(("loss", "lr"), ("speed", "trees"), ("mfu", "waiting"), what=what)
        self.stamp, self.timer = gr.State(""), gr.Timer(EVERY)
        self.choices = {"trainings": runs, "log": log, "smooth": smooth}

    @property
    def places(self) -> list[FigurePlace]:
        return list(self.plots.values())

    def arrive(self, query: Query) -> list:
        there = list(dict.fromkeys(run_labels(self.study.find("metrics.jsonl")).values()))
        return [
            gr.update(choices=there, value=query.many("trainings", there)),
            query.values.get("log") == "true",
            query.share("smooth", 0.3, 0.05),
        ]

    def after(self, event):
        (loss, *others), choices = self.plots, list(self.choices.values())
        first = event.then(
            lambda *chosen: [self.seen(*chosen), *self.drawn(*chosen, [loss])],
            choices,
            [self.stamp, self.note, self.legend, *self.plots[loss].parts],
            **QUIET,
        )
        return first.then(
            lambda *values: [values[-1], *self.drawn(*values[:-1], others)[2:]],
            [*choices, self.stamp],
            [self.stamp, *(part for name in others for part in self.plots[name].parts)],
            **QUIET,
        )

    def wire(self) -> None:
        for name, part in self.choices.items():
            self.after(remember(part, self.choices, event="release" if name == "smooth" else "input"))
        everything = [self.stamp, self.note, self.legend, *(part for place in self.places for part in place.parts)]
        choices = list(self.choices.values())
        self.timer.tick(self.ticked, [*choices, self.stamp], everything, concurrency_limit=2, **QUIET)

    def seen(self, *chosen) -> str:
        "What figures are drawn of; taken before the files are read: what is written meanwhile comes at the next tick."
        return str([chosen, *training_stamps(self.study.root)])

    def drawn(self, runs, log, smooth, places) -> list:
        "A note, a legend, and the figures at these places."
        found, wrong = trainings(self.study.root, self.study.memory)
        labels = run_labels(self.study.find("metrics.jsonl"))
        found = found.assign(folder=found.run, run=found.run.map(labels)) if len(found) else found
        found = run_index.select_runs(found, runs or [], "run")
        names = list(dict.fromkeys(labels.values()))
        running = set(found[~found.done.astype(bool)].run) if len(found) else set()
        many = Counter(labels[folder] for folder in found.folder.unique()) if len(found) else {}
        said = {
            name: ", ".join([f"{many[name]} seeds"] * (many[name] > 1) + ["running"] * (name in running))
            for name in many
        }
        with cast(names):
            parts = [not_shown(wrong), legend_html(said)]
            for column, name in PLACES.items():
                if name in places:
                    table = (
                        found[[c for c in ("run", "folder", "step", column, "done") if c in found]]
                        if len(found)
                        else found
                    )
                    options = dict(log=bool(log) and column in LOG, smooth=float(smooth or 0), legend=names)
                    parts += self.plots[name].drawn(self.study.csv(), table, traced.trace, column, **options)
        return parts

    def ticked(self, *values):
        "Draw again only if a run has gone on since the figures were drawn."
        *chosen, before = values
        now = self.seen(*chosen)
        if before in ("", now):
            return [gr.skip()] * (3 + sum(len(place.parts) for place in self.places))
        return [now, *self.drawn(*chosen, self.plots)]
