"A figure's place on the page: its title, what it shows, its numbers and itself to take away; one legend for a panel."

import html
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import gradio as gr
import pandas as pd
import plotly.graph_objects as go

from apps.sessions import QUIET, shows_errors, visitor
from cocoift.files import UserError
from cocoift.viz import look
from cocoift.viz.explained import explain
from cocoift.viz.names import SIGNS, looks
from cocoift.viz.saved import WIDTHS, save_figure

LOADING = '<p class="loading" role="status">Drawing …</p>'
CLICKS = """element.addEventListener("click", e => {
  const button = e.target.closest("[data-take]");
  if (button) { trigger("click", {take: button.dataset.take}); button.closest("details")?.removeAttribute("open"); }
});"""
FETCH = """file => { if (!file) return; const a = document.createElement("a");
  a.href = file.url; a.download = file.orig_name || ""; document.body.append(a); a.click(); a.remove(); }"""
LEGEND_PX = 34  # what a legend takes below a figure


def failsafe(draw: Callable, *args, **options) -> go.Figure:
    "A figure that cannot be drawn says why."
    try:
        return draw(*args, **options)
    except Exception as error:  # a panel that dies would tell nothing
        if not isinstance(error, UserError):
            traceback.print_exc()
        why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return look.empty(f"This figure cannot be drawn: {why}"[:300])


def without_legend(figure: go.Figure, names: Iterable[str]) -> go.Figure:
    "A figure whose runs are named by the panel's legend; what else has a name keeps it."
    names, left = set(names), False
    for trace in (trace for trace in figure.data if "showlegend" in trace):
        if trace.name and {trace.legendgroup, trace.name.removesuffix(" (running)")} & names:
            trace.showlegend = False
        left |= bool(trace.showlegend is not False and trace.name)
    margin = figure.layout.margin.b or 0
    if not left and margin > 2 * LEGEND_PX:
        figure.update_layout(showlegend=False, margin_b=margin - LEGEND_PX, height=figure.layout.height - LEGEND_PX)
    return figure


def legend_html(names: Mapping[str, str]) -> str:  # name -> what is said beside it
    "The colour and the mark of every run, once for a panel."
    signs = (
        f'<li><i style="color:{each.colour}" data-colour="{each.colour}">{SIGNS[each.symbol]}</i> '
        f"{html.escape(name)}<small>{html.escape(names[name])}</small></li>"
        for name, each in looks(names).items()
    )
    return f'<ul class="legend" aria-label="Which colour and mark is whose">{"".join(signs)}</ul>' if names else ""


def _taking(name: str, saved: bool, rows: int) -> str:  # HTML
    sizes = "".join(
        f'<button type="button" id="{kind}-{name}-{width}" data-take="{name} {kind} {width}">'
        f"{kind.upper()}, {width} mm: {column}</button>"
        for kind in ("pdf", "svg")
        for column, width in WIDTHS.items()
    )
    csv = f'<button type="button" id="csv-{name}" data-take="{name} csv" title="{rows:,} rows">CSV</button>'
    save = f'<details class="save"><summary aria-label="Save this figure">Save</summary><div>{sizes}</div></details>'
    return csv * bool(rows) + save * saved


class FigurePlace:
    "A figure's place on the page, what it shows, and its numbers to take away."

    def __init__(self, name: str, what: str = ""):  # which of several things the figure draws
        self.name, self.what = name, what
        with gr.Column(min_width=380, elem_classes="figure", elem_id=f"figure-{name}"):
            self.head = gr.HTML(LOADING, elem_id=f"head-{name}", js_on_load=CLICKS)
            self.plot = gr.Plot(elem_id=f"plot-{name}", show_label=False)

    @property
    def parts(self) -> list:
        return [self.head, self.plot]

    def drawn(
        self,
        folder: Path,  # of this visitor's tables and figures
        table: pd.DataFrame | None,
        draw: Callable,
        *args,
        legend: Iterable[str] = (),  # names that the panel's legend has
        note: str = "",  # e.g. that it shows some of all runs
        **options,
    ) -> list:
        "The figure of a table, `draw(table, *args)`, with the table and itself to take away."
        figure = failsafe(draw, table, *args, **options)
        rows = len(table) if table is not None and len(figure.data) else 0
        saved = bool(rows) and self.keep(folder, figure, table)
        bare, title, subtitle = look.untitled(figure)
        bare.update_layout(uirevision=self.name)  # what was zoomed stays so while a run goes on
        about = explain(figure, self.what)
        help_ = (
            f'<details class="what"><summary aria-label="What this figure shows">?</summary><div><p>'
            f"<b>Shows:</b> {html.escape(about.shows)}</p><p><b>Bad would be:</b> {html.escape(about.bad)}</p></div>"
            "</details>"
            if about and rows
            else ""
        )
        subtitle = "; ".join(filter(None, (subtitle, note)))
        head = (
            f"<div><h3>{html.escape(title)}</h3><p>{html.escape(subtitle)}</p></div>"
            f'<div class="tools">{help_}{_taking(self.name, saved, rows if saved else 0)}</div>'
        )
        return [f'<div class="figure-head">{head}</div>' if title else "", without_legend(bare, legend)]

    def keep(self, folder: Path, figure: go.Figure, table: pd.DataFrame) -> bool:  # whether it could be
        try:
            folder.mkdir(parents=True, exist_ok=True)
            table.to_csv(folder / f"{self.name}.csv", index=False)
            (folder / f"{self.name}.json").write_text(figure.to_json(), encoding="utf-8")
        except OSError:  # whoever asked for it has left, and their folder with them
            return False
        return True


class TakeAway:
    "What a visitor saves of any figure."

    def __init__(self, folder: Callable[[], Path]):
        self.folder, self.file = folder, gr.File(visible="hidden", elem_id="taken")

    def wire(self, places: Iterable[FigurePlace]) -> None:
        taken = gr.on(
            [place.head.click for place in places],
            shows_errors(self.taken),
            None,
            self.file,
            concurrency_limit=2,
            **QUIET,
        )
        taken.then(None, self.file, None, js=FETCH)

    def taken(self, event: gr.EventData):
        name, kind, width = f"{(event._data or {}).get('take', '')}   ".split(" ")[:3]
        known = self.folder() / f"{Path(name).name}.{'csv' if kind == 'csv' else 'json'}"
        if kind not in ("csv", "pdf", "svg") or not known.is_file():
            raise UserError("This figure is gone: load the page again.")
        if kind == "csv":
            return str(known)
        from plotly.io import from_json

        figure = from_json(known.read_text(encoding="utf-8"))
        millimetres = int(width) if width.isdecimal() and int(width) in WIDTHS.values() else WIDTHS["two columns"]
        return str(save_figure(figure, known.with_name(f"{known.stem}-{millimetres}mm.{kind}"), millimetres))


def figure_places(*rows: Iterable[str], what: Mapping[str, str] = {}) -> dict[str, FigurePlace]:
    "Places for figures, row by row."
    places = {}
    for names in rows:
        with gr.Row():
            places |= {name: FigurePlace(name, what.get(name, "")) for name in names}
    return places


def parts_of(places: Iterable[FigurePlace]) -> list:
    return [part for place in places for part in place.parts]


def tables_of(folder: Path) -> Path:
    "Where this visitor's tables lie."
    return folder / str(visitor()) / "csv"
