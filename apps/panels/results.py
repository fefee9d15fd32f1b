"What every run has scored: the scoreboard at once, its differences item by item a little later, then all other figures."

import gradio as gr
import pandas as pd

from apps.panels.place import Asked, Shown, Study, not_shown, parts_of, remember, shelve
from apps.room import QUIET
from cocoift.dashboard import run_index as board
from cocoift.dashboard.leaderboard import View, baseline_gaps, leaderboard_text, resolve_view
from cocoift.viz import figures, results

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
        self.note, self.standings = gr.Markdown(elem_id="board-note"), Shown("standings")
        self.table = gr.Dataframe(
            elem_id="scoreboard",
            label="Scoreboard: the best of each column in bold",
            interactive=False,
            show_search="filter",
            pinned_columns=1,
            max_height=380,
            datatype="markdown",
        )
        self.plots = shelve(
            ("levels", "decomposition"),
            ("slopes", "paper"),
            ("capabilities", "radar"),
            ("terse-by-round", "words-by-round"),
            ("format-by-round", "transitions"),
        )

    def arrive(self, asked: Asked) -> list:
        there = list(self.study.find("scores.json"))
        return [
            gr.update(choices=there, value=asked.many("runs", there)),
            asked.later("bench"),
            gr.update(choices=["", *there], value=asked.one("baseline", there)),
            asked.later("metric"),
            asked.later("history"),
        ]

    def after(self, event):
        given = list(self.choices.values())
        head = [*given[1:], self.note, *self.standings.parts, self.table]
        as_sent = {**QUIET, "preprocess": False}  # a choice made while the lists change is settled, not refused
        drawn = event.then(self.first, given, head, **as_sent).then(
            self.compared, given, [self.note, *self.standings.parts, self.table], concurrency_limit=2, **as_sent
        )
        return drawn.then(self.rest, given, parts_of(self.plots.values()), concurrency_limit=4, **as_sent)

    def wire(self) -> None:
        for part in self.choices.values():
            self.after(remember(part, self.choices))

    def scored(
        self, runs, bench, baseline, metric, history
    ) -> tuple[dict[str, pd.DataFrame], View, list[str]]:  # tables, what is shown of them, what cannot be read
        found, wrong = board.results(self.study.root, self.study.memory)
        view = resolve_view(
            board.select_runs(found["scores"], [*runs, baseline] if runs and baseline else runs or []),
            bench,
            metric,
            history,
            baseline,
        )
        found = {
            name: board.select_runs(table, [*runs, view.baseline] if runs and view.baseline else runs or [])
            for name, table in found.items()
        }
        return (
            {
                name: table if name in FREE else board.select_runs(table, [view.bench], "bench")
                for name, table in found.items()
            },
            view,
            wrong,
        )

    def standing(
        self, scores: pd.DataFrame, view: View, paired: pd.DataFrame | None = None
    ) -> list:  # the figure, its numbers, and the table
        paper = board.paper_scores()
        table = results.scoreboard(scores, view.baseline, paper[paper.model == "LLaVA-COCO-13B"], paired)
        return [
            *self.standings.drawn(self.study.csv(), table, results.standings, view.metric, view.history, view.baseline),
            leaderboard_text(table),
        ]

    def first(self, *given):
        "The scoreboard, before anything else."
        found, view, wrong = self.scored(*given)
        told = not_shown(wrong) or (
            "" if view.runs else "No finished run lies below this folder yet: `cocoift quickstart` makes some."
        )
        lists = [
            (view.benches, view.bench),
            (["", *view.runs], view.baseline),
            (view.metrics, view.metric),
            (view.histories, view.history),
        ]
        return [
            *(gr.update(choices=list(names), value=value or ("" if "" in names else None)) for names, value in lists),
            told,
            *self.standing(found["scores"], view),
        ]

    def compared(self, *given):
        "The same, each difference over the items that both runs answered."
        found, view, wrong = self.scored(*given)
        if not view.baseline:
            return [gr.skip()] * 4
        scores = found["scores"]
        if len(view.runs) > MOST:  # the one that the figure shows
            scores = scores[(scores.metric == view.metric) & (scores.history == view.history)]
        paired, unpaired = baseline_gaps(self.study.root, scores, view.baseline, self.study.memory)
        return [not_shown([*wrong, *unpaired]), *self.standing(found["scores"], view, paired)]

    def rest(self, *given):
        "All other figures; of many runs those that come first."
        found, view, _ = self.scored(*given)
        most = list(dict.fromkeys(filter(None, (view.baseline, *view.runs))))[:MOST]
        found = {name: table if name in FREE else board.select_runs(table, most) for name, table in found.items()}
        scores, capable, turned = found["scores"], found["capabilities"], found["transitions"]
        piers = board.select_runs(board.pier_rounds(self.study.root, self.study.memory), given[0] or most)
        rounds = pd.concat([table for table in (piers, found["rounds"]) if len(table)] or [pd.DataFrame()])
        by_round = {
            metric: rounds[rounds.metric == metric] if len(rounds) else rounds
            for metric in ("terse", "words", "strict")
        }
        paper = board.paper_scores()
        told = paper[(paper.bench == view.bench) & (paper.history == "none")].rename(
            columns={"metric": "capability", "paper": "value"}
        )
        one = turned.layout.iloc[0] if len(turned) else ""
        drawn = {
            "levels": (scores, figures.levels, view.metric if view.metric in figures.METRICS else "terse_rate"),
            "decomposition": (found["effects"], figures.decomposition),
            "slopes": (
                board.slopes(
                    scores, view.metric if view.metric in ("accuracy", "total", "overall") else "content_accuracy"
                ),
                figures.single_multi,
                "Our runs: without a history, and after one",
                "Right answers in percent; multi: the hardest history that a run has",
            ),
            "paper": (figures.paper_table(), figures.single_multi),
            "capabilities": (
                capable,
                results.by_capability,
                told if len(told) else None,
                f"Capability by capability: {view.bench}" if view.bench else "Capability by capability",
            ),
            "radar": (board.percent(capable), results.radar),
            "terse-by-round": (by_round["terse"], results.by_round, "terse"),
            "words-by-round": (by_round["words"], results.by_round, "words"),
            "format-by-round": (by_round["strict"], results.by_round, "strict"),
            "transitions": (turned[turned.layout == one] if len(turned) else turned, results.transition_matrix, one),
        }
        return [part for name, place in self.plots.items() for part in place.drawn(self.study.csv(), *drawn[name])]
