"What every run has scored: the scoreboard at once, its differences item by item later, then all other figures."

import html
from collections import Counter

import gradio as gr
import pandas as pd

from apps.panels.figure import FigurePlace, figure_places, legend_html, parts_of
from apps.panels.place import Query, Shown, Study, labelled, not_shown, remember, worded
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.dashboard.leaderboard import Grid, leaderboard_grid, resolve_view
from cocoift.dashboard.seeds import label_gaps, label_runs, run_labels
from cocoift.plain import IDEAS, METRIC_WORDS
from cocoift.viz import figures, results
from cocoift.viz.leaderboard import leaderboard_figure, leaderboard_table
from cocoift.viz.names import cast, model_of

MOST = 8  # models in a figure that draws several numbers of each; the scoreboard has all
FREE = ("transitions", "rounds")  # COCO-Scope alone has them: they are shown whatever the benchmark
PLACES = (
    ("levels", "decomposition"),
    ("slopes", "paper"),
    ("capabilities", "radar"),
    ("terse-by-round", "words-by-round"),
    ("format-by-round",),
    ("transitions",),
)
WHAT = {"terse-by-round": "terse", "words-by-round": "words", "format-by-round": "strict"}
SEEDS = [("Seeds of a model together", "together"), ("Every run by itself", "apart")]


class Results:
    def __init__(self, study: Study):
        self.study = study
        gr.Markdown(f"{IDEAS['leakage']} {IDEAS['history']}", elem_id="ideas")
        with gr.Row():
            runs = gr.Dropdown(
                [], multiselect=True, label="Models (all, where none is chosen)", elem_id="runs", scale=2
            )
            baseline = gr.Dropdown([], label="Compare with", elem_id="baseline")
            seeds = gr.Radio(SEEDS, value="together", label="Show", elem_id="seeds", scale=2)
        with gr.Row():
            bench = gr.Dropdown([], label="Benchmark", elem_id="bench")
            metric = gr.Dropdown([], label="What is measured", elem_id="metric", scale=3)
            history = gr.Dropdown([], label="The question is asked", elem_id="history", scale=3)
        lists = {"bench": bench, "baseline": baseline, "metric": metric, "history": history}
        self.choices = {"runs": runs, "seeds": seeds} | lists
        self.note, self.legend = gr.Markdown("Reading the runs …", elem_id="board-note"), gr.HTML(elem_id="legend")
        self.standings = FigurePlace("standings")
        self.table = gr.Dataframe(
            elem_id="scoreboard",
            label="Scoreboard: a row a model, the best of each column in bold; a click on a heading sorts by it",
            interactive=False,
            show_search="filter",
            pinned_columns=1,
            max_height=420,
        )
        self.words = gr.HTML(elem_id="scoreboard-words")
        self.plots = figure_places(*PLACES, what=WHAT)

    def arrive(self, query: Query) -> list:
        return [
            gr.update(choices=(asked := query.values.get("runs", "").split(",")), value=[run for run in asked if run]),
            query.one("seeds", ("together", "apart"), "together"),
            *(query.later(name) for name in ("bench", "baseline", "metric", "history")),
        ]

    def after(self, event):
        inputs = list(self.choices.values())
        board = [self.note, *self.standings.parts, self.table]
        head = [inputs[0], *inputs[2:], self.legend, self.words, *board]
        as_sent = {**QUIET, "preprocess": False}  # a choice made while the lists change is settled, not refused
        drawn = event.then(self.first, inputs, head, **as_sent).then(
            self.compared, inputs, board, concurrency_limit=2, **as_sent
        )
        return drawn.then(self.rest, inputs, parts_of(self.plots.values()), concurrency_limit=4, **as_sent)

    def wire(self) -> None:
        for part in self.choices.values():
            self.after(remember(part, self.choices))

    @property
    def places(self) -> list[FigurePlace]:
        return [self.standings, *self.plots.values()]

    def shown(self, runs, seeds, bench, baseline, metric, history) -> Shown:
        tables, wrong = run_index.results(self.study.root, self.study.memory)
        tables["piers"], torn = run_index.pier_rounds(self.study.root, self.study.memory)
        labels = run_labels(
            dict.fromkeys(run for table in tables.values() if len(table) for run in table.layout), seeds != "apart"
        )
        raw, every = tables["scores"], {name: label_runs(table, labels) for name, table in tables.items()}
        chosen = [run for run in runs or [] if run in labels.values()]
        chosen = [*chosen, baseline] if chosen and baseline in labels.values() else chosen
        view = resolve_view(run_index.select_runs(every["scores"], chosen), bench, metric, history, baseline)
        tables = {name: run_index.select_runs(table, chosen) for name, table in every.items()}
        for name in tables.keys() - {*FREE, "piers"}:
            tables[name] = run_index.select_runs(tables[name], [view.bench], "bench")
        return Shown(tables, view, [*wrong, *torn], labels, chosen, raw)

    def standing(self, shown: Shown, paired: pd.DataFrame | None = None) -> list:  # the figure, and the table
        scores, view, paper = shown.tables["scores"], shown.view, run_index.paper_scores()
        table = leaderboard_table(scores, view.baseline, paper[paper.model == "LLaVA-COCO-13B"], paired)
        drawn = self.standings.drawn(
            self.study.csv(), table, leaderboard_figure, view.metric, view.history, view.baseline, legend=shown.names
        )
        return [*drawn, sheet(leaderboard_grid(table, view.history, view.metric))]

    def first(self, *values):
        "The scoreboard, before anything else."
        shown = self.shown(*values)
        view = shown.view
        empty = "" if view.runs else "No finished run lies below this folder yet: `cocoift quickstart` makes some."
        models = Counter(shown.labels.values())
        lists = [
            gr.update(choices=list(dict.fromkeys(shown.labels.values())), value=shown.chosen),
            gr.update(choices=list(view.benches), value=view.bench or None),
            gr.update(choices=["", *view.runs], value=view.baseline),
            gr.update(choices=[(labelled(metric), metric) for metric in view.metrics], value=view.metric or None),
            gr.update(choices=[(worded(history), history) for history in view.histories], value=view.history or None),
        ]
        names = {model_of(name): f"{many} seeds" * (many > 1) for name, many in reversed(models.items())}
        with cast(models):
            legend = legend_html(dict(reversed([(n, s) for n, s in names.items() if shown.has(n)])))
            return [*lists, legend, explained(view.metrics), not_shown(shown.wrong) or empty, *self.standing(shown)]

    def compared(self, *values):
        "The same, each difference over the items that both answered."
        shown = self.shown(*values)
        view, raw = shown.view, shown.raw
        if not view.baseline:
            return [gr.skip()] * 4
        scores = raw[(raw.bench == view.bench)]
        labels = {run: shown.labels[run] for run in scores.layout.unique() if shown.labels[run] in view.runs}
        if len(labels) > MOST:  # the one that the figure shows
            scores = scores[scores.metric == view.metric]
        paired, unpaired = label_gaps(self.study.root, scores, labels, view.baseline, self.study.memory)
        with cast(shown.names):
            return [not_shown([*shown.wrong, *unpaired]), *self.standing(shown, paired)]

    def rest(self, *values):
        "All other figures; of many models those that come first."
        shown = self.shown(*values)
        view, tables = shown.view, shown.tables
        most = list(dict.fromkeys(filter(None, (view.baseline, *view.runs))))[:MOST]
        tables = {name: table if name in FREE else run_index.select_runs(table, most) for name, table in tables.items()}
        note = f"{MOST} of {len(view.runs)} shown: choose others above" if len(view.runs) > MOST else ""
        with cast(shown.names):
            drawn = self.levels(tables, shown) | self.capabilities(tables, shown)
            drawn |= self.by_round(tables, shown.chosen or most)
            return [
                part
                for name, place in self.plots.items()
                for part in place.drawn(
                    self.study.csv(), *drawn[name], legend=shown.names, note=note * (name != "paper")
                )
            ]

    # What is drawn at each place: a table, a figure of it, and the figure's options

    def levels(self, tables: dict[str, pd.DataFrame], shown: Shown) -> dict[str, tuple]:
        scores, metric = tables["scores"], shown.view.metric
        single = metric if metric in ("accuracy", "total", "overall") else "content_accuracy"
        slopes = run_index.slopes(scores, single)
        subtitle = "Right answers in percent: asked alone, and after the hardest history that a run has"
        return {
            "levels": (scores, figures.history_levels, metric if metric in figures.METRIC_LABELS else "terse_rate"),
            "decomposition": (tables["effects"], figures.decomposition),
            "slopes": (slopes, figures.single_multi, "Our models: asked alone, and after a history", subtitle),
            "paper": (figures.paper_table(), figures.single_multi),
        }

    def capabilities(self, tables: dict[str, pd.DataFrame], shown: Shown) -> dict[str, tuple]:
        capable, paper, bench = tables["capabilities"], run_index.paper_scores(), shown.view.bench
        theirs = paper[(paper.bench == bench) & (paper.history == "none")]
        theirs = theirs.rename(columns={"metric": "capability", "paper": "value"}) if len(theirs) else None
        title = (
            f"What is answered right, by kind of question: {bench}" if bench else "Right answers by kind of question"
        )
        return {
            "capabilities": (capable, results.by_capability, theirs, title),
            "radar": (run_index.percent(capable), results.radar),
        }

    def by_round(self, tables: dict[str, pd.DataFrame], runs: list[str]) -> dict[str, tuple]:
        piers, turned = (
            run_index.select_runs(tables["piers"], runs).drop(columns="folder", errors="ignore"),
            tables["transitions"],
        )
        rounds = pd.concat([table for table in (piers, tables["rounds"]) if len(table)] or [pd.DataFrame()])
        one = turned.layout.iloc[0] if len(turned) else ""

        def of(metric):
            return rounds[rounds.metric == metric] if len(rounds) else rounds

        drawn = {name: (of(metric), results.by_round, metric) for name, metric in WHAT.items()}
        one_run = turned[turned.layout == one] if len(turned) else turned
        return drawn | {"transitions": (one_run, results.transition_matrix, one)}


def sheet(grid: Grid) -> dict:  # as gradio's table takes it: it sorts by the numbers and shows the texts
    headers = ["model", *grid.numbers.columns]
    if not len(grid.numbers):
        return {"headers": [], "data": []}
    numbers = grid.numbers.astype(object).where(grid.numbers.notna(), None)
    data = [[run, *row] for run, row in zip(numbers.index, numbers.to_numpy().tolist())]
    texts = [[run, *row] for run, row in zip(grid.texts.index, grid.texts.to_numpy().tolist())]
    bold = [["", *("font-weight: 700" if best else "" for best in row)] for row in grid.best.to_numpy().tolist()]
    return {"headers": headers, "data": data, "metadata": {"display_value": texts, "styling": bold}}


def explained(metrics) -> str:  # HTML: what the columns are
    words = [(name, METRIC_WORDS[name]) for name in metrics if name in METRIC_WORDS]
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in words)
    return f"<dl>{listed}</dl>" if words else ""
