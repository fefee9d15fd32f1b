"Results, data and training of the runs below a folder: the page over `cocoift.studies.board`."
import traceback
from pathlib import Path

import gradio as gr
import pandas as pd

from cocoift.chat.marks import defuse
from cocoift.files import UserError
from cocoift.studies import board
from cocoift.viz import figures


def safe(draw):
    "A figure that cannot be drawn says why."
    def drawn(*args):
        try:
            return draw(*args)
        except Exception as error:  # a panel that dies would tell nothing
            traceback.print_exc()
            return figures.empty(f"This figure cannot be drawn: {type(error).__name__}: {error}"[:200])
    return drawn


def build(root: Path, pictures: dict[str, Path], folder: Path, where: gr.Blocks) -> None:
    "Put the dashboard into the page."
    quiet = dict(show_progress="hidden", api_visibility="private")
    runs = gr.Dropdown([], multiselect=True, label="Runs (all, where none is chosen)", elem_id="runs")
    note = gr.Markdown(elem_id="board-note")
    with gr.Tabs():
        with gr.Tab("Results"):
            plots = {name: gr.Plot(elem_id=f"plot-{name}", show_label=False) for name in ("levels", "decomposition", "kinds", "paper")}
            table = gr.Dataframe(elem_id="scoreboard", label="Scoreboard", interactive=False, show_search="filter")
            csv = gr.Files(label="The numbers, as CSV", elem_id="csv")
        with gr.Tab("Training"):
            loss = gr.Plot(elem_id="plot-loss", show_label=False)
        with gr.Tab("Samples"):
            with gr.Row():
                a, b = (gr.Dropdown([], label=f"Run {x}", elem_id=f"run-{x.lower()}") for x in "AB")
                want = gr.Dropdown(list(board.FILTERS), value="all", label="Show", elem_id="filter")
                number = gr.Number(0, label="Item", precision=0, elem_id="item", minimum=0)
            picture, told = gr.Image(height=220, elem_id="item-picture", show_label=False, interactive=False), gr.Markdown(elem_id="item-text")
    timer = gr.Timer(5)

    def tables(chosen):
        found, wrong = board.results(root)
        losses, torn = board.trainings(root)
        return {name: board.choose(frame, chosen) for name, frame in found.items()} | {"losses": board.choose(losses, chosen, "run")}, wrong + torn

    def draw(chosen, request: gr.Request):
        found, wrong = tables(chosen)
        drawn = [safe(figures.levels)(found["scores"]), safe(figures.decomposition)(found["effects"]), safe(figures.content_by_kind)(found["kinds"]),
                 safe(figures.single_multi)(figures.paper_table()), safe(figures.loss_curve)(found["losses"])]
        scores = found["scores"]
        wide = scores.pivot_table(index=["layout", "history"], columns="metric", values="value", sort=False).round(3).reset_index() if len(scores) else pd.DataFrame()
        told = f"**Not shown:** {'; '.join(map(defuse, wrong))}" if wrong else "" if len(scores) or len(found["losses"]) else "No finished run lies below this folder yet: `cocoift quickstart` makes some."
        files = []
        for name, frame in found.items():
            if len(frame):
                path = folder / str(request.session_hash) / "csv" / f"{name}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                frame.to_csv(path, index=False)
                files.append(str(path))
        return [*drawn, wide, told, files]

    outputs = [*plots.values(), loss, table, note, csv]

    def sample(run_a, run_b, filter, item):
        folders = board.find(root, "rounds.jsonl")
        if run_a not in folders or run_b not in folders:
            return None, "Choose two runs."
        try:
            rows = board.only(board.pair(board.answers(folders[run_a]), board.answers(folders[run_b])), filter)
        except UserError as error:
            return None, f"**Cannot be read:** {defuse(str(error))}"
        if not len(rows):
            return None, "No item is like that."
        row = rows.iloc[int(item or 0) % len(rows)]
        def side(name, run):
            return f"**{name} · {run}** {'✓ right' if row[f'right_{name.lower()}'] else '✗ wrong'}{' · terse' if row[f'terse_{name.lower()}'] else ''}\n\n> {defuse(row[f'response_{name.lower()}']) or '*no answer*'}"
        return str(pictures[row.image]) if row.image in pictures else None, (
            f"{len(rows):,} items · {row['item']} · {row.kind} · history {row.history}\n\n**{defuse(row.instruction)}**\n\n{side('A', run_a)}\n\n{side('B', run_b)}")

    def arrive(request: gr.Request):
        asked = dict(request.query_params)
        scored, played, trained = (list(board.find(root, mark)) for mark in ("scores.json", "rounds.jsonl", "metrics.jsonl"))
        names = list(dict.fromkeys([*scored, *trained]))
        chosen = [name for name in asked.get("runs", "").split(",") if name in names]
        one = asked.get("run_a") if asked.get("run_a") in played else next(iter(played), None)
        other = asked.get("run_b") if asked.get("run_b") in played else played[1] if len(played) > 1 else one
        item = int(asked["item"]) if asked.get("item", "").isdecimal() else 0
        return [gr.update(choices=names, value=chosen), gr.update(choices=played, value=one), gr.update(choices=played, value=other),
                asked.get("filter") if asked.get("filter") in board.FILTERS else "all", item]

    address = """(...values) => { const q = new URLSearchParams(location.search); const names = ["runs", "run_a", "run_b", "filter", "item"];
        names.forEach((n, i) => { const v = values[i]; if (v && v.length !== 0) q.set(n, String(v)); else q.delete(n); });
        q.set("tab", "dashboard"); history.replaceState(null, "", "?" + q); }"""
    chosen = [runs, a, b, want, number]
    where.load(arrive, None, chosen, **quiet).then(draw, runs, outputs, **quiet).then(sample, [a, b, want, number], [picture, told], **quiet)
    runs.input(draw, runs, outputs, **quiet).then(None, chosen, None, js=address)
    for part in (a, b, want, number):
        part.input(sample, [a, b, want, number], [picture, told], **quiet).then(None, chosen, None, js=address)
    timer.tick(lambda chosen: safe(figures.loss_curve)(board.choose(board.trainings(root)[0], chosen, "run")), runs, loss, **quiet)
