"Loss, learning rate, speed and what trees save, of finished and running trainings; drawn again while a run goes on."

import gradio as gr

from apps.panels.place import Query, Study, figure_places, not_shown, remember
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.dashboard.live import training_stamps, trainings
from cocoift.viz import traced

PLACES = {"loss": "loss", "lr": "lr", "tokens_per_s": "speed", "tree_ratio": "trees"}  # column: its place
EVERY = 4  # seconds


class Training:
    def __init__(self, study: Study):
        self.study = study
        label = "Runs (all, where none is chosen)"
        self.runs = gr.Dropdown([], multiselect=True, label=label, elem_id="trainings")
        self.note = gr.Markdown(elem_id="training-note")
        self.plots, self.stamp, self.timer = (
            figure_places(("loss", "lr"), ("speed", "trees")),
            gr.State(""),
            gr.Timer(EVERY),
        )
        self.choices = {"trainings": self.runs}

    def arrive(self, query: Query) -> list:
        there = list(self.study.find("metrics.jsonl"))
        return [gr.update(choices=there, value=query.many("trainings", there))]

    def after(self, event):
        loss, *others = self.plots
        first = event.then(
            lambda runs: [self.seen(runs), *self.drawn(runs, [loss])],
            self.runs,
            [self.stamp, self.note, *self.plots[loss].parts],
            **QUIET,
        )
        return first.then(
            lambda runs, seen: [seen, *self.drawn(runs, others)[1:]],
            [self.runs, self.stamp],
            [self.stamp, *(part for name in others for part in self.plots[name].parts)],
            **QUIET,
        )

    def wire(self) -> None:
        self.after(remember(self.runs, self.choices))
        everything = [self.stamp, self.note, *(part for place in self.plots.values() for part in place.parts)]
        self.timer.tick(self.ticked, [self.runs, self.stamp], everything, concurrency_limit=2, **QUIET)

    def seen(self, runs) -> str:
        "What figures are drawn of; taken before the files are read: what is written meanwhile comes at the next tick."
        return str([sorted(runs or []), *training_stamps(self.study.root)])

    def drawn(self, runs, places):
        "A note, and the figures at these places."
        found, wrong = trainings(self.study.root, self.study.memory)
        found = run_index.select_runs(found, runs or [], "run")
        parts = [not_shown(wrong)]
        for column, name in PLACES.items():
            if name in places:
                table = found[[c for c in ("run", "step", column, "done") if c in found]] if len(found) else found
                parts += self.plots[name].drawn(self.study.csv(), table, traced.trace, column)
        return parts

    def ticked(self, runs, before):
        "Draw again only if a run has gone on since the figures were drawn."
        now = self.seen(runs)
        return [gr.skip()] * (2 + 2 * len(self.plots)) if before in ("", now) else [now, *self.drawn(runs, self.plots)]
