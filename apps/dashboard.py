"Results, samples, data, training and votes of whatever lies below a folder: five panels, whose choices live in the address."

from pathlib import Path

import gradio as gr

from apps.panels.data import Data
from apps.panels.place import NOTHING, Asked, Study
from apps.panels.results import Results
from apps.panels.samples import Samples
from apps.panels.training import Training
from apps.panels.votes import Votes
from apps.room import QUIET
from cocoift.arena.store import Logbook
from cocoift.dashboard.registry import ModelRegistry

PANELS = {"results": Results, "samples": Samples, "data": Data, "training": Training, "votes": Votes}


def build(
    root: Path, registry: ModelRegistry, log: Logbook, folder: Path, where: gr.Blocks, tab: gr.Tab | None
) -> None:
    "Put the dashboard into the page; beside a chat it is drawn when its tab is opened."
    study, panels, tabs = Study(root, registry, log, folder), {}, {}
    with gr.Tabs(elem_id="panels") as chosen:
        for name, panel in PANELS.items():
            with gr.Tab(name.capitalize(), id=name) as tabs[name]:
                panels[name] = panel(study)

    def arrive(request: gr.Request):
        asked = Asked(request)
        return [
            *(value for panel in panels.values() for value in panel.arrive(asked)),
            gr.Tabs(selected=asked.one("panel", PANELS, "results")),
        ]

    places = [*(part for panel in panels.values() for part in panel.choices.values()), chosen]
    came = where.load(arrive, None, places, **QUIET)
    panels["results"].after(
        tab.select(arrive, None, places, **QUIET) if tab else came
    )  # a link that leads to the tab selects it, too
    for name, panel in panels.items():
        panel.wire()
        if name != "results":
            panel.after(tabs[name].select(None, None, None, js=NOTHING))
