"Results, samples, data, training, runs and votes of what lies below a folder: panels, their choices in the address."

from pathlib import Path

import gradio as gr

from apps.panels.data import Data
from apps.panels.figure import TakeAway
from apps.panels.place import NOTHING, Query, Study
from apps.panels.results import Results
from apps.panels.runs import Runs
from apps.panels.samples import Samples
from apps.panels.training import Training
from apps.panels.votes import Votes
from apps.sessions import QUIET, shows_errors
from cocoift.arena.store import ArenaStore
from cocoift.dashboard.registry import ModelRegistry

PANELS = {"results": Results, "samples": Samples, "data": Data, "training": Training, "runs": Runs, "votes": Votes}
OPENED = """document.addEventListener("cocoift:open", e => trigger("click", e.detail));"""  # a point of a figure


def build(
    root: Path, registry: ModelRegistry, store: ArenaStore, folder: Path, where: gr.Blocks, tab: gr.Tab | None
) -> None:
    "Put the dashboard into the page; beside a chat it is drawn when its tab is opened."
    study, panels, tabs = Study(root, registry, store, folder), {}, {}
    with gr.Tabs(elem_id="panels") as chosen:
        for name, panel in PANELS.items():
            with gr.Tab(name.capitalize(), id=name) as tabs[name]:
                panels[name] = panel(study)
    opened, taken = gr.HTML(visible="hidden", elem_id="opened", js_on_load=OPENED), TakeAway(study.csv)

    def arrive(request: gr.Request):
        query = Query(request)
        return [
            *(value for panel in panels.values() for value in panel.arrive(query)),
            gr.Tabs(selected=query.one("panel", PANELS, "results")),
        ]

    def lead(a, b, event: gr.EventData):
        return [*panels["samples"].opened(event._data or {}, (a, b)), gr.Tabs(selected="samples")]

    places = [*(part for panel in panels.values() for part in panel.choices.values()), chosen]
    came = where.load(arrive, None, places, **QUIET)
    # a link that leads to the tab selects it, too
    panels["results"].after(tab.select(arrive, None, places, **QUIET) if tab else came)
    for name, panel in panels.items():
        panel.wire()
        if name != "results":
            panel.after(tabs[name].select(None, None, None, js=NOTHING))
    samples = [*panels["samples"].choices.values(), chosen]
    panels["samples"].after(opened.click(shows_errors(lead), samples[:2], samples, **QUIET))
    taken.wire(place for panel in panels.values() for place in panel.places)
