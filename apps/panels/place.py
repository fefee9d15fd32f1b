"What all panels share: the study they look at, cards of text, choices in the address."

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import pandas as pd
from PIL import Image

from apps.panels.figure import tables_of
from cocoift.arena.store import ArenaStore
from cocoift.dashboard import run_index
from cocoift.dashboard.leaderboard import View
from cocoift.dashboard.registry import ModelRegistry
from cocoift.files import UserError
from cocoift.images import find_pictures
from cocoift.pictures import TINY_PX, open_picture, picture_size
from cocoift.plain import in_words
from cocoift.viz.names import model_of

NOTHING = "() => {}"  # javascript: an event to hang others on


@dataclass
class Study:
    "What lies below a folder, and what was read of it."

    root: Path
    registry: ModelRegistry
    store: ArenaStore
    folder: Path  # of the sessions
    memory: run_index.FileCache = field(default_factory=run_index.FileCache)

    def find(self, mark: str) -> dict[str, Path]:
        return run_index.find_folders(self.root, mark)

    def csv(self) -> Path:
        "Where this visitor's tables lie."
        return tables_of(self.folder)

    def path(self, image: str) -> Path | None:
        "Where the picture of that name lies."
        return self.registry.pictures.get(image) or self._drawn().get(image)

    def picture(self, image: str) -> str | Image.Image | None:
        "The picture of that name; a tiny one enlarged, with its pixels as squares."
        try:
            if (path := self.path(image)) is None:
                return None
            if max(picture_size(path)) > TINY_PX:
                return str(path)
            picture = open_picture(image, {image: path})
        except UserError:
            return None
        times = max(1, 480 // max(picture.size))
        return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)

    def pictures(self, images: Sequence[str]) -> str | Image.Image | None:
        "Several of them side by side, in order; one as `picture` has it."
        if len(images) < 2:
            return self.picture(images[0]) if images else None
        shown = [self.picture(image) for image in images]
        if not any(shown):
            return None
        missing = Image.new("RGB", (300, 300), "lightgray")  # its number stays its place
        shown = [Image.open(picture) if isinstance(picture, str) else picture or missing for picture in shown]
        shown = [picture.convert("RGB").resize((round(300 * picture.width / picture.height), 300)) for picture in shown]
        strip = Image.new("RGB", (sum(picture.width + 8 for picture in shown), 300), "white")
        for k, picture in enumerate(shown):
            strip.paste(picture, (sum(before.width + 8 for before in shown[:k]), 0))
        return strip

    def _drawn(self) -> dict[str, Path]:
        place = self.root / "world/images"
        try:
            return self.memory.get("pictures", [place], lambda: find_pictures(place))
        except UserError:
            return {}


class Shown(NamedTuple):
    "What a panel shows of what was measured."

    tables: dict[str, pd.DataFrame]  # under labels
    view: View
    wrong: list[str]  # what cannot be read
    labels: dict[str, str]  # run -> label, of all that lies there
    chosen: list[str]  # labels
    raw: pd.DataFrame  # the scores under the runs' own names

    @property
    def names(self) -> list[str]:  # of all, for a page's looks
        return list(dict.fromkeys(self.labels.values()))

    def has(self, model: str) -> bool:  # whether a figure of this page may show it
        named = self.chosen or [*self.view.runs, *self.tables["rounds"].get("layout", ())]
        return model in map(model_of, named)


def labelled(metric: str) -> str:
    "A metric with its words."
    words = in_words(metric)
    return f"{metric}: {words}" if words != metric else metric


def worded(history: str) -> str:
    "A history as a reader would say it, and its code."
    words = in_words(history)
    return f"{words} ({history})" if words != history else history


class Query:
    "What the address asks for, as far as it is there."

    def __init__(self, request: gr.Request):
        self.values = dict(request.query_params)

    def one(self, key: str, known: Iterable[str], otherwise: str | None = "") -> str | None:
        return self.values[key] if self.values.get(key) in known else otherwise

    def many(self, key: str, known: Iterable[str]) -> list[str]:
        return [name for name in self.values.get(key, "").split(",") if name in known]

    def later(self, key: str):
        "A choice whose alternatives are known when the files have been read."
        value = self.values.get(key, "")
        return gr.update(choices=["", value] if value else [""], value=value)

    def share(self, key: str, most: float, otherwise: float) -> float:
        try:
            return min(max(float(self.values[key]), 0.0), most)
        except (KeyError, ValueError):
            return otherwise

    def number(self, key: str) -> int:
        value = self.values.get(key, "")
        return max(1, int(value)) if value.isdecimal() and len(value) < 10 else 1


def address(names: Iterable[str], link: bool = False) -> str:  # javascript
    "What puts choices into the address of the page; the script in the page's head does so for tabs."
    keys = ", ".join(f'"{name}"' for name in names)
    return f"""(...values) => {{ const q = new URLSearchParams(location.search);
        [{keys}].forEach((n, i) => {{
            const v = values[i]; if (v && v.length !== 0) q.set(n, String(v)); else q.delete(n); }});
        const shown = q.get("tab") === "dashboard" || !document.getElementById("sides");
        if (shown) history.replaceState(null, "", "?" + q); {"return location.href;" if link else ""} }}"""


def remember(
    part, choices: Mapping[str, gr.components.Component], link: gr.Textbox | None = None, event: str = "input"
):  # the event, to go on from
    "Put all choices of a panel into the address when one of them is touched."
    return getattr(part, event)(None, list(choices.values()), link, js=address(choices, bool(link)))


def picture_place(elem_id: str) -> gr.Image:
    return gr.Image(
        height=300, format="png", elem_id=elem_id, show_label=False, interactive=False, buttons=["fullscreen"]
    )


def not_shown(wrong: list[str]) -> str:  # Markdown
    "What could not be read, by name."
    from cocoift.arena.marks import defuse

    more = f"; and {len(wrong) - 12} more" if len(wrong) > 12 else ""
    return f"**Not shown:** {'; '.join(map(defuse, wrong[:12]))}{more}" if wrong else ""


def card(title: str, inside: str, kind: str = "") -> str:
    return f'<div class="card {kind}"><h4>{html.escape(title)}</h4>{inside}</div>'


def chip(kind: str, text: str) -> str:
    return f'<span class="mark {kind}">{html.escape(text)}</span>'


def rounds_html(rounds: Iterable[dict]) -> str:  # instruction, response, and marks as (kind, text)
    "Rounds as they can be read; every text is escaped."
    return "".join(
        f'<div class="round"><p class="asked">{html.escape(r["instruction"])}</p>'
        f'<p class="said">{html.escape(r["response"]) or "<i>no answer</i>"}</p>'
        + "".join(chip(*mark) for mark in r.get("marks", ()))
        + "</div>"
        for r in rounds
    )
