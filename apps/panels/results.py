"What every run has scored: the scoreboard at once, its differences item by item later, then all other figures."

import gradio as gr
import pandas as pd

from apps.panels.place import FigurePlace, Query, Study, figure_places, not_shown, parts_of, remember
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.dashboard.leaderboard import View, baseline_gaps, leaderboard_text, resolve_view
from cocoift.viz import figures, results
from cocoift.viz.leaderboard import leaderboard_figure, leaderboard_table

MOST = 8  # runs in a figure that draws several numbers of each; the scoreboard has all
FREE = ("transitions", "rounds")  # COCO-Scope alone has them: they are shown whatever the benchmark


class Results:
    def __init__(self, study: Study):
        self.study = study
        runs = gr.Dropdown([], multiselect=True, label="Runs (all, where none is chosen)", elem_id="runs")
        with gr.Row():
            bench, baseline, metric, history = (
                gr.Dropdown([], label=name.capitalize(), elem_id=name)
                for name in ("bench", "baseline", "metric", "history")
            )
        bench.label = "Benchmark"
        self.choices = {"runs": runs, "bench": bench, "baseline": baseline, "metric": metric, "history": history}
        self.note, self.standings = gr.Markdown(elem_id="board-note"), FigurePlace("standings")
        self.table = gr.Dataframe(
            elem_id="scoreboard",
            label="Scoreboard: the best of each column in bold",
            interactive=False,
            show_search="filter",
            pinned_columns=1,
            max_height=380,
            datatype="markdown",
        )
        self.plots = figure_places(
            ("levels", "decomposition"),
            ("slopes", "paper"),
            ("capabilities", "radar"),
            ("terse-by-round", "words-by-round"),
            ("format-by-round", "transitions"),
        )

    def arrive(self, query: Query) -> list:
        there = list(self.study.find("scores.json"))
        return [
            gr.update(choices=there, value=query.many("runs", there)),
            query.later("bench"),
            gr.update(choices=["", *there], value=query.one("baseline", there)),
            query.later("metric"),
            query.later("history"),
        ]

    def after(self, event):
        inputs = list(self.choices.values())
        head = [*inputs[1:], self.note, *self.standings.parts, self.table]
        as_sent = {**QUIET, "preprocess": False}  # a choice made while the lists change is settled, not refused
        drawn = event.then(self.first, inputs, head, **as_sent).then(
            self.compared, inputs, [self.note, *self.standings.parts, self.table], concurrency_limit=2, **as_sent
        )
        return drawn.then(self.rest, inputs, parts_of(self.plots.values()), concurrency_limit=4, **as_sent)

    def wire(self) -> None:
        for part in self.choices.values():
            self.after(remember(part, self.choices))

    def scored(
        self, runs, bench, baseline, metric, history
    ) -> tuple[dict[str, pd.DataFrame], View, list[str]]:  # tables, what is shown of them, what cannot be read
        tables, wrong = run_index.results(self.study.root, self.study.memory)
        chosen = [*runs, baseline] if runs and baseline else runs or []
        view = resolve_view(run_index.select_runs(tables["scores"], chosen), bench, metric, history, baseline)
        chosen = [*runs, view.baseline] if runs and view.baseline else runs or []
        tables = {name: run_index.select_runs(table, chosen) for name, table in tables.items()}
        for name in tables.keys() - set(FREE):
            tables[name] = run_index.select_runs(tables[name], [view.bench], "bench")
        return tables, view, wrong

    def standing(
        self, scores: pd.DataFrame, view: View, paired: pd.DataFrame | None = None
    ) -> list:  # the figure, its numbers, and the table
        paper = run_index.paper_scores()
        table = leaderboard_table(scores, view.baseline, paper[paper.model == "LLaVA-COCO-13B"], paired)
        return [
            *self.standings.drawn(
                self.study.csv(), table, leaderboard_figure, view.metric, view.history, view.baseline
            ),
            leaderboard_text(table),
        ]

    def first(self, *values):
        "The scoreboard, before anything else."
        tables, view, wrong = self.scored(*values)
        empty = "" if view.runs else "No finished run lies below this folder yet: `cocoift quickstart` makes some."
        lists = [
            (view.benches, view.bench),
            (["", *view.runs], view.baseline),
            (view.metrics, view.metric),
            (view.histories, view.history),
        ]
        return [
            *(gr.update(choices=list(names), value=value or ("" if "" in names else None)) for names, value in lists),
            not_shown(wrong) or empty,
            *self.standing(tables["scores"], view),
        ]

    def compared(self, *values):
        "The same, each difference over the items that both runs answered."
        tables, view, wrong = self.scored(*values)
        if not view.baseline:
            return [gr.skip()] * 4
        scores = tables["scores"]
        if len(view.runs) > MOST:  # the one that the figure shows
            scores = scores[(scores.metric == view.metric) & (scores.history == view.history)]
        paired, unpaired = baseline_gaps(self.study.root, scores, view.baseline, self.study.memory)
        return [not_shown([*wrong, *unpaired]), *self.standing(tables["scores"], view, paired)]

    def rest(self, *values):
        "All other figures; of many runs those that come first."
        tables, view, _ = self.scored(*values)
        most = list(dict.fromkeys(filter(None, (view.baseline, *view.runs))))[:MOST]
        tables = {name: table if name in FREE else run_index.select_runs(table, most) for name, table in tables.items()}
        drawn = self.levels(tables, view) | self.capabilities(tables, view) | self.by_round(tables, values[0] or most)
        return [part for name, place in self.plots.items() for part in place.drawn(self.study.csv(), *drawn[name])]

    # What is drawn at each place: a table, a figure of it, and the figure's options

    def levels(self, tables: dict[str, pd.DataFrame], view: View) -> dict[str, tuple]:
        scores = tables["scores"]
        single = view.metric if view.metric in ("accuracy", "total", "overall") else "content_accuracy"
        return {
            "levels": (
                scores,
                figures.history_levels,
                view.metric if view.metric in figures.METRIC_LABELS else "terse_rate",
            ),
            "decomposition": (tables["effects"], figures.decomposition),
            "slopes": (
                run_index.slopes(scores, single),
                figures.single_multi,
                "Our runs: without a history, and after one",
                "Right answers in percent; multi: the hardest history that a run has",
            ),
            "paper": (figures.paper_table(), figures.single_multi),
        }

    def capabilities(self, tables: dict[str, pd.DataFrame], view: View) -> dict[str, tuple]:
        capable, paper = tables["capabilities"], run_index.paper_scores()
        theirs = paper[(paper.bench == view.bench) & (paper.history == "none")]
        theirs = theirs.rename(columns={"metric": "capability", "paper": "value"}) if len(theirs) else None
        title = f"Capability by capability: {view.bench}" if view.bench else "Capability by capability"
        return {
            "capabilities": (capable, results.by_capability, theirs, title),
            "radar": (run_index.percent(capable), results.radar),
        }

    def by_round(self, tables: dict[str, pd.DataFrame], runs: list[str]) -> dict[str, tuple]:
        piers, turned = (
            run_index.select_runs(run_index.pier_rounds(self.study.root, self.study.memory), runs),
            tables["transitions"],
        )
        rounds = pd.concat([table for table in (piers, tables["rounds"]) if len(table)] or [pd.DataFrame()])
        one = turned.layout.iloc[0] if len(turned) else ""

        def of(metric):
            return rounds[rounds.metric == metric] if len(rounds) else rounds

        return {
            "terse-by-round": (of("terse"), results.by_round, "terse"),
            "words-by-round": (of("words"), results.by_round, "words"),
            "format-by-round": (of("strict"), results.by_round, "strict"),
            "transitions": (turned[turned.layout == one] if len(turned) else turned, results.transition_matrix, one),
        }
