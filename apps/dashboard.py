"Results, samples, data, training and votes of whatever lies below a folder: the page over `cocoift.studies.board` and `shelf`."
import html
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import gradio as gr
import pandas as pd

from cocoift.chat.store import Logbook
from cocoift.chat.marks import defuse
from cocoift.eval.history import tell
from cocoift.files import UserError
from cocoift.formats import is_terse, keeps
from cocoift.images import find_pictures
from cocoift.stats import Estimate
from cocoift.studies import board, shelf
from cocoift.studies.audit_page import binned, measures, overlaps
from cocoift.studies.roster import Roster
from cocoift.viz import audited, figures, results, traced

QUIET = dict(show_progress="hidden", api_visibility="private")
MOST = 8  # runs in a figure that draws several numbers of each; the scoreboard has all
PANELS = ("results", "samples", "data", "training", "votes")


def failsafe(draw: Callable) -> Callable:
    "A figure that cannot be drawn says why."
    def drawn(*args):
        try:
            return draw(*args)
        except Exception as error:  # a panel that dies would tell nothing
            if not isinstance(error, UserError):
                traceback.print_exc()
            return figures.empty(f"This figure cannot be drawn: {error if isinstance(error, UserError) else f'{type(error).__name__}: {error}'}"[:300])
    return drawn


class Shown:
    "A figure's place on the page, and its numbers to take away."

    def __init__(self, name: str):
        self.name = name
        with gr.Column(min_width=380, elem_classes="figure"):
            self.plot = gr.Plot(elem_id=f"plot-{name}", show_label=False)
            self.csv = gr.DownloadButton("CSV", size="sm", elem_id=f"csv-{name}", elem_classes="csv", interactive=False)

    @property
    def parts(self) -> list:
        return [self.plot, self.csv]

    def drawn(self, folder: Path, table: pd.DataFrame | None, draw: Callable, *args) -> list:
        figure = failsafe(draw)(*args)
        if table is None or not len(table):
            return [figure, gr.update(interactive=False, value=None)]
        path = folder / f"{self.name}.csv"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False)
        except OSError:  # whoever asked for it has left, and their folder with them
            return [figure, gr.update(interactive=False, value=None)]
        return [figure, gr.update(interactive=True, value=str(path))]


def cards(rounds: list[dict]) -> str:
    "Rounds as they can be read; every text is escaped."
    return "".join(f'<div class="round"><p class="asked">{html.escape(r["asked"])}</p><p class="said">{html.escape(r["said"]) or "<i>no answer</i>"}</p>'
                   + "".join(f'<span class="mark {kind}">{html.escape(text)}</span>' for kind, text in r.get("marks", [])) + "</div>" for r in rounds)


def card(title: str, inside: str, kind: str = "") -> str:
    return f'<div class="card {kind}"><h4>{html.escape(title)}</h4>{inside}</div>'


class Board:
    "The parts of the dashboard, and what happens when they are touched."

    def __init__(self, root: Path, roster: Roster, log: Logbook, folder: Path):
        self.root, self.roster, self.log, self.folder = root, roster, log, folder
        self.kept, self.memory = log.path.parent / "audits", board.Memory()
        self.browser = lru_cache(4)(lambda path, stamp: shelf.Browser(path))

    @property
    def csv(self) -> Path:
        return self.folder / str(gr.context.LocalContext.request.get(None).session_hash) / "csv"


    # The parts

    def lay_out(self) -> None:
        with gr.Tabs(elem_id="panels") as self.panels:
            with gr.Tab("Results", id="results") as results_tab:
                self.lay_out_results()
            with gr.Tab("Samples", id="samples") as samples_tab:
                self.lay_out_samples()
            with gr.Tab("Data", id="data") as data_tab:
                self.lay_out_data()
            with gr.Tab("Training", id="training") as training_tab:
                self.traced_runs = gr.Dropdown([], multiselect=True, label="Runs (all, where none is chosen)", elem_id="trainings")
                with gr.Row():
                    self.traces = {column: Shown(name) for column, name in (("loss", "loss"), ("lr", "lr"))}
                with gr.Row():
                    self.traces |= {column: Shown(name) for column, name in (("tokens_per_s", "speed"), ("tree_ratio", "trees"))}
                self.timer = gr.Timer(4)
            with gr.Tab("Votes", id="votes") as votes_tab:
                self.rated, self.voted = Shown("ratings"), gr.Markdown(elem_id="votes-note")
        self.tabs = dict(zip(PANELS, (results_tab, samples_tab, data_tab, training_tab, votes_tab)))

    def lay_out_results(self) -> None:
        self.runs = gr.Dropdown([], multiselect=True, label="Runs (all, where none is chosen)", elem_id="runs")
        with gr.Row():
            self.bench = gr.Dropdown([], label="Benchmark", elem_id="bench")
            self.baseline = gr.Dropdown([], label="Baseline", elem_id="baseline")
            self.metric = gr.Dropdown([], label="Metric", elem_id="metric")
            self.history = gr.Dropdown([], label="History", elem_id="history")
        self.note = gr.Markdown(elem_id="board-note")
        self.standings = Shown("standings")
        self.table = gr.Dataframe(elem_id="scoreboard", label="Scoreboard", interactive=False, show_search="filter", pinned_columns=1, max_height=380)
        names = ("levels", "decomposition", "slopes", "paper", "capabilities", "radar", "terse-by-round", "words-by-round", "format-by-round", "transitions")
        self.plots = {}
        for pair in zip(names[::2], names[1::2]):
            with gr.Row():
                self.plots |= {name: Shown(name) for name in pair}

    def lay_out_samples(self) -> None:
        with gr.Row():
            self.a, self.b = (gr.Dropdown([], label=f"Run {x}", elem_id=f"run-{x.lower()}") for x in "AB")
            self.others = gr.Dropdown([], multiselect=True, label="And beside them", elem_id="run-more")
        with gr.Row():
            self.want = gr.Dropdown(list(board.FILTERS), value="all", label="Show", elem_id="filter")
            self.kind, self.under = gr.Dropdown([""], value="", label="Capability", elem_id="kind"), gr.Dropdown([""], value="", label="History", elem_id="under")
        with gr.Row(elem_classes="tight"):
            self.back, self.number, self.on = gr.Button("‹ before", size="sm", elem_id="before"), gr.Number(1, label="Item", precision=0, elem_id="item", minimum=1), gr.Button("next ›", size="sm", elem_id="next")
        self.at = gr.Textbox("", visible=False)  # the item's key, which the address needs; a State never reaches the page
        with gr.Row():
            with gr.Column(scale=1, min_width=200):
                self.picture = gr.Image(height=240, elem_id="item-picture", show_label=False, interactive=False, buttons=["fullscreen"])
                self.link = gr.Textbox(label="Link to this item", elem_id="item-link", interactive=False, buttons=["copy"])
            with gr.Column(scale=3, min_width=300):
                self.told = gr.HTML(elem_id="item-text")

    def lay_out_data(self) -> None:
        self.set = gr.Dropdown([], label="Dataset", elem_id="dataset")
        self.data_note = gr.Markdown(elem_id="data-note")
        self.sets = {}
        for pair in (("composition", "formats-by-round"), ("formats", "carry-over"), ("data-measures", "overlap"), ("diversity", "lengths")):
            with gr.Row():
                self.sets |= {name: Shown(name) for name in pair}
        self.leaks = gr.Dataframe(elem_id="leaks", label="Images of benchmarks in the set", interactive=False)
        gr.Markdown("### Its conversations")
        with gr.Row():
            self.source, self.format = gr.Dropdown([""], value="", label="Source", elem_id="source"), gr.Dropdown([""], value="", label="Holds a round of format", elem_id="format")
            self.fault = gr.Checkbox(label=f"Only with a free round {shelf.FAULT}", elem_id="fault")
            self.which = gr.Number(1, label="Conversation", precision=0, minimum=1, elem_id="which")
        with gr.Row():
            with gr.Column(scale=1, min_width=200):
                self.shown = gr.Image(height=240, elem_id="conversation-picture", show_label=False, interactive=False, buttons=["fullscreen"])
            with gr.Column(scale=3, min_width=300):
                self.rounds = gr.HTML(elem_id="conversation")

    # Results

    def names(self) -> dict[str, list[str]]:
        return {mark: list(board.find(self.root, mark)) for mark in ("scores.json", "rounds.jsonl", "metrics.jsonl")} | {"sets": list(shelf.datasets(self.root))}

    def scored(self, chosen, bench) -> tuple[dict[str, pd.DataFrame], list[str], list[str], str]:  # tables, what cannot be read, benchmarks, the one shown
        found, wrong = board.results(self.root, self.memory)
        benches = list(dict.fromkeys(found["scores"].bench)) if len(found["scores"]) else []
        bench = bench if bench in benches else "rounds" if "rounds" in benches else next(iter(benches), "")
        found = {name: board.choose(table, chosen or []) for name, table in found.items()}
        free = ("transitions", "rounds")  # COCO-Scope alone has them
        return {name: table if name in free else board.choose(table, [bench], "bench") for name, table in found.items()}, wrong, benches, bench

    def first(self, chosen, bench, baseline, metric, history):
        "The scoreboard, before anything else."
        found, wrong, benches, bench = self.scored(chosen, bench)
        scores = found["scores"]
        metrics = list(dict.fromkeys(scores.metric)) if len(scores) else []
        metric = metric if metric in metrics else next((m for m in ("leakage", "terse_rate", *metrics) if m in metrics), None)
        histories = list(dict.fromkeys(scores[scores.metric == metric].history)) if metric else []
        history = history if history in histories else next((h for h in ("forced_short", *histories) if h in histories), None)
        runs = list(dict.fromkeys(scores.layout)) if len(scores) else []
        baseline = baseline if baseline in runs else ""
        told = f"**Not shown:** {'; '.join(map(defuse, wrong))}" if wrong else "" if runs else "No finished run lies below this folder yet: `cocoift quickstart` makes some."
        paper = board.paper_scores()
        table = results.scoreboard(scores, baseline, paper[paper.model == "LLaVA-COCO-13B"]) if runs else pd.DataFrame()
        seen = self.standings.drawn(self.csv, table, lambda: results.standings(scores, metric or "", history or "", baseline) if runs else figures.empty("No finished run yet"))
        return [gr.update(choices=benches, value=bench or None), gr.update(choices=["", *runs], value=baseline), gr.update(choices=metrics, value=metric), gr.update(choices=histories, value=history), told, *seen, self.readable(table)]

    @staticmethod
    def readable(table: pd.DataFrame) -> pd.DataFrame:
        if not len(table):
            return table
        def told(row):
            return str(Estimate(*(None if pd.isna(x) else float(x) for x in (row.value, row.low, row.high)), 0))
        at = {(r.run, r.bench, r.metric, r.history): told(r) + (f" ({r.difference:+.2f})" if not pd.isna(r.difference) and r.difference else "") + (f", paper {r.paper:g}" if not pd.isna(r.paper) else "")
              for r in table.itertuples()}
        long = pd.DataFrame([(*key, text) for key, text in at.items()], columns=["run", "benchmark", "metric", "history", "told"])
        return long.pivot(index=["run", "benchmark", "history"], columns="metric", values="told").fillna("").reset_index()

    def rest(self, chosen, bench, baseline, metric, history):
        "All other figures of results; of many runs those that come first."
        found, _, _, bench = self.scored(chosen, bench)
        most = list(dict.fromkeys([*([baseline] if baseline else []), *found["scores"].layout]))[:MOST] if len(found["scores"]) else []
        found = {name: board.choose(table, most) if name not in ("transitions", "rounds") else table for name, table in found.items()}
        rounds = pd.concat([t for t in (board.choose(board.piers(self.root, self.memory), chosen or most), found["rounds"]) if len(t)] or [pd.DataFrame()])
        capable, turned = found["capabilities"], found["transitions"]
        capable = capable.drop_duplicates(["layout", "capability"]) if len(capable) else capable
        few = list(dict.fromkeys(capable.layout))[:4] if len(capable) else []
        round_ = lambda metric: rounds[rounds.metric == metric] if len(rounds) else rounds
        one = turned.layout.iloc[0] if len(turned) else ""
        paper = board.paper_scores()
        told = paper[(paper.bench == bench) & (paper.history == "none")].rename(columns={"metric": "capability", "paper": "value"})
        effects = found["effects"]
        slopes = board.slopes(found["scores"], metric if metric in ("accuracy", "total", "overall") else "content_accuracy")
        percent = capable.assign(value=pd.to_numeric(capable.value) * (100 if bench in ("rounds", "scope") else 1)) if len(capable) else capable
        drawn = {"levels": (found["scores"], figures.levels, found["scores"], metric if metric in figures.METRICS else "terse_rate"), "decomposition": (effects, figures.decomposition, effects),
                 "slopes": (slopes, figures.single_multi, slopes, "Our runs: without a history, and after one", "Right answers in percent; multi: the hardest history that a run has"),
                 "paper": (figures.paper_table(), figures.single_multi, figures.paper_table()),
                 "capabilities": (capable, results.by_capability, capable, told if len(told) else None, f"Capability by capability: {bench}" if bench else "Capability by capability"),
                 "radar": (percent, results.radar, percent[percent.layout.isin(few)] if len(percent) else percent),
                 **{f"{name}-by-round": (round_(what), results.by_round, round_(what), what) for name, what in (("terse", "terse"), ("words", "words"), ("format", "strict"))},
                 "transitions": (turned, results.transition_matrix, turned[turned.layout == one] if len(turned) else turned, one)}
        return [part for name, place in self.plots.items() for part in place.drawn(self.csv, *drawn[name])]

    # Samples

    def pairs(self, a, b) -> pd.DataFrame:
        folders = board.find(self.root, "rounds.jsonl")
        if a not in folders or b not in folders:
            raise UserError("Choose two runs.")
        files = [folders[run] / "rounds.jsonl" for run in (a, b)]
        return self.memory.get("pair", files, lambda: board.pair(board.answers(folders[a]), board.answers(folders[b])))

    def side(self, name: str, run: str) -> pd.DataFrame:
        file = board.find(self.root, "rounds.jsonl")[run]
        return self.memory.get("answers", [file / "rounds.jsonl"], lambda: board.answers(file))

    def sample(self, a, b, others, want, kind, under, number, key, step=0):
        "The item of that number, or that a link names."
        nothing = [gr.skip(), gr.skip(), None]
        try:
            table = self.pairs(a, b)
            if not len(table):
                raise UserError("These two runs have no item in common: choose runs of one benchmark.")
            kinds, histories = ["", *sorted(set(table.kind) - {""})], ["", *dict.fromkeys(table.history)]
            kind, under = kind if kind in kinds else "", under if under in histories else ""
            choices = [gr.update(choices=kinds, value=kind), gr.update(choices=histories, value=under)]
            rows = board.only(table, want if want in board.FILTERS else "all", kind, under)
            if not len(rows):
                return [*choices, None, "<p>No item is like that.</p>", 1, ""]
            keys = (rows["item"].astype(str) + "/" + rows.history + "/" + rows["round"].astype(str) + "/" + rows.bound.map({True: "bound", False: "free"})).to_list()
            place = keys.index(key) if key in keys else (int(number or 1) - 1 + step) % len(rows)
            row = rows.iloc[place]
            image = self.roster.pictures.get(row.image)
            return [*choices, str(image) if image else None, self.item(row, a, b, others or [], place, len(rows)), place + 1, keys[place]]
        except (UserError, KeyError, ValueError, AttributeError) as error:
            said = str(error) if isinstance(error, UserError) else f"These runs cannot be laid beside each other ({type(error).__name__}: {error})."
            return [*nothing, f"<p>{html.escape(said)}</p>", 1, ""]

    def item(self, row, a: str, b: str, others: list[str], place: int, many: int) -> str:
        known = self.roster.items.get(row["item"])
        before = [{"asked": q, "said": said or "(the model's own answer)"} for q, said in tell(known, row.history, row.get("rounds_a", 0) or 0)] if known and row.history in ("neutral", "terse", "forced_short", "gold") else []
        told = f'<p class="where">{place + 1:,} of {many:,} · {html.escape(str(row["item"]))} · {html.escape(row.kind) or "no kind"} · history <b>{html.escape(row.history)}</b></p>'
        told += card("What was said before", cards(before), "before") if before else ""
        told += f'<p class="question">{html.escape(row.instruction)}</p>'
        told += f'<p class="truth">Right: <b>{html.escape(known.terse)}</b> · {html.escape(known.full)}</p>' if known else ""
        sides = [(f"A · {a}", row.response_a, row.right_a, row.terse_a), (f"B · {b}", row.response_b, row.right_b, row.terse_b)]
        for name in others[:6]:
            if name in board.find(self.root, "rounds.jsonl"):
                found = self.side("more", name)
                hit = found[(found["item"] == row["item"]) & (found.history == row.history) & (found.bound == row.bound) & (found.instruction == row.instruction)]
                sides += [(name, hit.response.iloc[0], hit.right.iloc[0], hit.terse.iloc[0])] if len(hit) else [(name, "", None, None)]
        return told + '<div class="cards">' + "".join(card(name, f'<p class="said">{html.escape(said) or "<i>no answer</i>"}</p>' + self.verdict(right, terse)) for name, said, right, terse in sides) + "</div>"

    @staticmethod
    def verdict(right, terse) -> str:
        told = [] if right is None or right != right else [("right", "✓ right")] if right else [("wrong", "✗ wrong")]
        told += [("terse", "terse")] if terse is not None and terse == terse and terse else []
        return "".join(f'<span class="mark {kind}">{text}</span>' for kind, text in told)

    # Data

    def open(self, name: str) -> shelf.Browser:
        folder = shelf.datasets(self.root).get(name)
        if folder is None:
            raise UserError("No dataset lies below this folder yet: `cocoift build` makes one." if not name else f"{name}: this dataset is gone, or is being written.")
        return self.browser(folder, (folder / "manifest.json").stat().st_mtime_ns)

    def composed(self, name):
        "What stands in a set's columns: at once."
        try:
            mix, told = self.open(name).mixture(), ""
        except (UserError, OSError) as error:
            mix, told = pd.DataFrame(), defuse(str(error))
        places = (("composition", audited.composition), ("formats-by-round", audited.formats_by_round), ("formats", audited.format_mixture))
        drawn = [part for place, draw in places for part in self.sets[place].drawn(self.csv, mix, draw, mix)]
        lists = [gr.update(choices=["", *sorted(set(mix[column]) - {""})] if len(mix) else [""], value="") for column in ("source", "format")]
        return [told, *drawn, *lists]

    def taught(self, name):
        "What takes a reading of every word: a little later, and once."
        nothing = figures.empty("No dataset to audit")
        try:
            browser = self.open(name)
            found, told = shelf.audited(browser.folder, self.kept), ""
        except (UserError, OSError, KeyError) as error:
            told, nothing = defuse(str(error)), figures.empty(str(error))
            return [told, *[part for place in ("carry-over", "data-measures", "overlap", "diversity", "lengths") for part in self.sets[place].drawn(self.csv, None, lambda: nothing)], None]
        table = measures(found)
        pairs, _, _ = overlaps(found["overlap"])
        many = [("all", found), *found["by_source"].items()]
        diverse = pd.DataFrame([{"source": s or "no source", "measure": label, "value": m["diversity"][key]} for s, m in many
                                for key, label in (("type_token", "different words"), ("distinct_2", "different pairs of words"), ("distinct_3", "different triples"))])
        lengths = binned(found["words_histogram"], (0, 1, 2, 3, 5, 10, 15, 20, 30, 50, 100, 200, 500))
        drawn = {"carry-over": (table[table.measure == "carry-over"], audited.by_source, table[table.measure == "carry-over"], "Carry-over, source by source"),
                 "data-measures": (table[table.measure != "carry-over"], audited.by_source, table[table.measure != "carry-over"], "The company of carry-over"),
                 "overlap": (pairs, audited.overlap_matrix, pairs), "diversity": (diverse, audited.by_source, diverse, "How varied the instructions are", "Shares among 1,000 words, pairs, triples drawn at random"),
                 "lengths": (lengths, audited.histogram, lengths, "Words of an answer", "words")}
        from cocoift.files import read_json

        manifest = read_json(browser.folder / "manifest.json")
        leaks = pd.DataFrame([{"benchmark": str(x.get("name", x)) if isinstance(x, dict) else str(x), "its images in the set": x.get("images", "") if isinstance(x, dict) else ""} for x in manifest.get("leakage", [])]
                             + [{"benchmark": str(x), "its images in the set": "its files were not there: unknown"} for x in manifest.get("unchecked", [])])
        return [told, *[part for place, given in drawn.items() for part in self.sets[place].drawn(self.csv, *given)], leaks if len(leaks) else pd.DataFrame({"benchmark": ["none was named by the recipe"]})]

    def read(self, name, source, format, fault, which):
        "One conversation with its origins."
        try:
            browser = self.open(name)
            found = browser.pick(source or "", format or "", bool(fault))
            if not len(found):
                return None, "<p>No conversation is like that.</p>"
            place = (int(which or 1) - 1) % len(found)
            c = browser.conversation(int(found[place]))
        except (UserError, OSError, KeyError) as error:
            return None, f"<p>{html.escape(str(error))}</p>"
        asked, rounds = False, []
        for r in c.rounds:
            kept, o = keeps(r.format, r.response), r.origin
            marks = [("format", r.format), *([] if kept is None else [("right", "✓ kept")] if kept else [("wrong", "✗ not kept")])]
            marks += [("wrong", f"▲ {shelf.FAULT}")] if asked and r.format == "free" and is_terse(r.response) else []
            marks += [("origin", " · ".join(filter(None, (o.source, o.record, o.template and f"template {o.template}", o.model, o.licence))))]
            rounds.append({"asked": r.instruction, "said": r.response, "marks": marks})
            asked = asked or r.format in shelf.TERSE_FORMATS
        image = self.picture_of(c.images[0]) if c.images else None
        return image, f'<p class="where">{place + 1:,} of {len(found):,} · {html.escape(c.id)} · {html.escape(", ".join(c.images)) or "no image"}</p>' + cards(rounds)

    def picture_of(self, image: str) -> str | None:
        path = self.roster.pictures.get(image) or self.drawn_pictures().get(image)
        return str(path) if path else None

    def drawn_pictures(self) -> dict[str, Path]:
        place = self.root / "world/images"
        try:
            return self.memory.get("pictures", [place], lambda: find_pictures(place))
        except UserError:
            return {}

    # Training and votes

    def trained(self, chosen):
        found, wrong = board.trainings(self.root, self.memory)
        found = board.choose(found, chosen or [], "run")
        return [part for column, place in self.traces.items()
                for part in place.drawn(self.csv, found[["run", "step", *([column] if column in found else [])]] if len(found) else None, traced.trace, found, column)]

    def ticked(self, chosen, before):
        "Draw again only if a run has gone on."
        stamp = str([(name, path.joinpath("metrics.jsonl").stat().st_size, path.joinpath("train.json").exists()) for name, path in board.find(self.root, "metrics.jsonl").items()])
        return [stamp, *(gr.skip() for place in self.traces.values() for _ in place.parts)] if stamp == before else [stamp, *self.trained(chosen)]

    def ratings(self):
        votes = self.log.votes()
        table = board.rate(votes)
        blind = sum(bool(v.get("blind")) for v in votes)
        return [*self.rated.drawn(self.csv, table, results.ratings, table), f"{len(votes):,} vote{'s' * (len(votes) != 1)}, {blind:,} of them blind. `cocoift app --take-away DIR` writes them all." if votes else ""]

    # All together

    def arrive(self, request: gr.Request):
        asked, names = dict(request.query_params), self.names()
        listed = lambda key, known: [name for name in asked.get(key, "").split(",") if name in known]
        one = lambda key, known, otherwise: asked.get(key) if asked.get(key) in known else otherwise
        listed_with = lambda key: gr.update(choices=["", *([asked[key]] if asked.get(key) else [])], value=asked.get(key) or "")  # until the runs say what there is
        scored, played = names["scores.json"], names["rounds.jsonl"]
        told = board.results(self.root, self.memory)[0]["scores"]
        alike = [name for name in dict.fromkeys(told[told.bench == "rounds"].layout) if name in played] if len(told) else []
        a, *more = [one("run_a", played, (alike or played or [None])[0]), *[name for name in (alike or played)]]
        b = one("run_b", played, next((name for name in more if name != a), a))
        return [gr.update(choices=scored, value=listed("runs", scored)), listed_with("bench"), gr.update(choices=["", *scored], value=one("baseline", scored, "")), listed_with("metric"), listed_with("history"),
                gr.update(choices=played, value=a), gr.update(choices=played, value=b), gr.update(choices=played, value=listed("run_more", played)),
                one("filter", board.FILTERS, "all"), listed_with("kind"), listed_with("under"), asked.get("item") or "",
                gr.update(choices=names["sets"], value=one("set", names["sets"], next((n for n in names["sets"] if n in figures.LAYOUTS), next(iter(names["sets"]), None)))), gr.update(choices=names["metrics.jsonl"], value=listed("trainings", names["metrics.jsonl"])),
                gr.Tabs(selected=one("panel", PANELS, "results"))]

    def wire(self, where: gr.Blocks, tab: gr.Tab | None) -> None:
        filters = [self.runs, self.bench, self.baseline, self.metric, self.history]
        head = [self.bench, self.baseline, self.metric, self.history, self.note, *self.standings.parts, self.table]
        rest = [part for place in self.plots.values() for part in place.parts]
        picks = [self.a, self.b, self.others, self.want, self.kind, self.under, self.number, self.at]
        seen = [self.kind, self.under, self.picture, self.told, self.number, self.at]
        mixed = [self.data_note, *(part for place in ("composition", "formats-by-round", "formats") for part in self.sets[place].parts), self.source, self.format]
        taught = [self.data_note, *(part for place in ("carry-over", "data-measures", "overlap", "diversity", "lengths") for part in self.sets[place].parts), self.leaks]
        reading = [self.set, self.source, self.format, self.fault, self.which]
        traces, stamp = [part for place in self.traces.values() for part in place.parts], gr.State("")

        names = ["runs", "bench", "baseline", "metric", "history", "run_a", "run_b", "run_more", "filter", "kind", "under", "item", "set", "trainings"]
        linked = [*filters, self.a, self.b, self.others, self.want, self.kind, self.under, self.at, self.set, self.traced_runs]

        def results_after(event):
            return event.then(self.first, filters, head, **QUIET).then(self.rest, filters, rest, concurrency_limit=4, **QUIET)

        def data_after(event):
            return event.then(self.composed, self.set, mixed, **QUIET).then(self.read, reading, [self.shown, self.rounds], **QUIET).then(
                self.taught, self.set, taught, concurrency_limit=1, **QUIET)

        def sample_after(event):
            return event.then(self.sample, picks, seen, **QUIET).then(None, linked, self.link, js=self.address(names, True))

        came = where.load(self.arrive, None, [*linked, self.panels], **QUIET)
        if tab is None:
            results_after(came)
        if tab is not None:
            results_after(tab.select(self.arrive, None, [*linked, self.panels], **QUIET))  # a link that leads here selects it, too
        sample_after(self.tabs["samples"].select(None, None, None, js="() => {}"))
        data_after(self.tabs["data"].select(None, None, None, js="() => {}"))
        self.tabs["training"].select(self.trained, self.traced_runs, traces, **QUIET)
        self.tabs["votes"].select(self.ratings, None, [*self.rated.parts, self.voted], **QUIET)
        for part in filters:
            results_after(part.input(None, linked, None, js=self.address(names)))
        for part in (self.a, self.b, self.others, self.want, self.kind, self.under, self.number):
            sample_after(part.input(lambda: "", None, self.at, **QUIET))
        for button, step in ((self.back, -1), (self.on, 1)):
            button.click(lambda *given, step=step: self.sample(*given[:-1], "", step), picks, seen, **QUIET).then(None, linked, self.link, js=self.address(names, True))
        data_after(self.set.input(None, linked, None, js=self.address(names)))
        for part in (self.source, self.format, self.fault, self.which):
            part.input(self.read, reading, [self.shown, self.rounds], **QUIET)
        self.traced_runs.input(None, linked, None, js=self.address(names)).then(self.trained, self.traced_runs, traces, **QUIET)
        self.timer.tick(self.ticked, [self.traced_runs, stamp], [stamp, *traces], concurrency_limit=2, **QUIET)

    @staticmethod
    def address(names: list[str], link: bool = False) -> str:  # javascript
        "What puts the choices into the address of the page; the style sheet's neighbour does so for tabs."
        keys = ", ".join(f'"{name}"' for name in names)
        return f"""(...values) => {{ const q = new URLSearchParams(location.search);
            [{keys}].forEach((n, i) => {{ const v = values[i]; if (v && v.length !== 0) q.set(n, String(v)); else q.delete(n); }});
            if (q.get("tab") === "dashboard" || !document.getElementById("sides")) history.replaceState(null, "", "?" + q); {"return location.href;" if link else ""} }}"""


def build(root: Path, roster: Roster, log: Logbook, folder: Path, where: gr.Blocks, tab: gr.Tab | None) -> None:
    "Put the dashboard into the page; beside a chat it is drawn when its tab is opened."
    page = Board(root, roster, log, folder)
    page.lay_out()
    page.wire(where, tab)
