"What a set teaches: what it is made of, a little later what takes a reading of every word, and its conversations."

import html
from functools import lru_cache

import gradio as gr
import pandas as pd

from apps.panels.figure import FigurePlace, figure_places, parts_of
from apps.panels.place import Query, Study, address, not_shown, picture_place, remember, rounds_html
from apps.sessions import QUIET
from cocoift.dashboard.browser import (
    FAULT,
    DatasetBrowser,
    cached_audit,
    find_datasets,
    removed_images,
    unfinished_datasets,
    with_numbers,
)
from cocoift.files import UserError
from cocoift.plain import IDEAS, format_in_words
from cocoift.reports.audit_tables import WORD_BINS, binned, marked_rounds, measures, overlaps, varied
from cocoift.viz import audited, look
from cocoift.viz.names import LAYOUT_ORDER

AT_ONCE = ("composition", "formats-by-round", "formats")
LATER = ("carry-over", "data-measures", "overlap", "diversity", "lengths")
WHAT = {"carry-over": "carry-over", "data-measures": "others", "diversity": "diversity"}
LENGTHS = [*binned({WORD_BINS[-1] + 1: 1}, WORD_BINS).bin]
PICKED = """document.addEventListener("cocoift:pick", e => trigger("click", e.detail));"""  # from a figure's bar


class Data:
    def __init__(self, study: Study):
        self.study, self.audits = study, study.store.path.parent / "audits"
        self.browser = lru_cache(4)(lambda path, stamp: DatasetBrowser(path))
        self.set, self.note = gr.Dropdown([], label="Dataset", elem_id="dataset"), gr.Markdown(elem_id="data-note")
        gr.Markdown(IDEAS["carry_over"], elem_id="data-ideas")
        self.sets = figure_places(
            ("composition", "overlap"),
            ("formats-by-round", "formats"),
            ("carry-over", "data-measures"),
            ("diversity", "lengths"),
            what=WHAT,
        )
        self.leaks = gr.Dataframe(
            headers=["benchmark"],
            value=[["reading …"]],
            elem_id="leaks",
            label="Images of benchmarks in the set",
            interactive=False,
        )
        gr.Markdown("### Its conversations", elem_id="conversations")
        self.picked = gr.HTML(visible="hidden", elem_id="picked", js_on_load=PICKED)
        with gr.Row():
            source, format = (
                gr.Dropdown([""], value="", label=label, elem_id=name)
                for name, label in (("source", "Source"), ("format", "Holds a question that asks for"))
            )
            choices = [("any length", ""), *((f"{name} word{'s' * (name != '1')}", name) for name in LENGTHS)]
            length = gr.Dropdown(choices, value="", label="Holds an answer of", elem_id="length")
            fault = gr.Checkbox(label=f"Only with an open question {FAULT}", elem_id="fault")
            which = gr.Number(1, label="Conversation", precision=0, minimum=1, elem_id="which")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.picture = picture_place("conversation-picture")
            with gr.Column(scale=3, min_width=300):
                self.rounds = gr.HTML(elem_id="conversation")
        names = {"source": source, "format": format, "length": length, "fault": fault, "which": which}
        self.choices = {"set": self.set} | names

    @property
    def places(self) -> list[FigurePlace]:
        return list(self.sets.values())

    def arrive(self, query: Query) -> list:
        there = list(find_datasets(self.study.root))
        chosen = query.one(
            "set", there, next((name for name in there if name in LAYOUT_ORDER), next(iter(there), None))
        )
        return [
            gr.update(choices=there, value=chosen),
            query.later("source"),
            query.later("format"),
            query.one("length", LENGTHS),
            query.values.get("fault") == "true",
            query.number("which"),
        ]

    def after(self, event):
        name, source, format, *_ = inputs = list(self.choices.values())
        made = event.then(
            self.composed,
            [name, source, format],
            [self.note, *parts_of(self.sets[place] for place in AT_ONCE), source, format],
            **QUIET,
        )
        read = made.then(self.read, inputs, [self.picture, self.rounds], **QUIET)
        return read.then(
            self.taught,
            name,
            [self.note, *parts_of(self.sets[place] for place in LATER), self.leaks],
            concurrency_limit=1,
            **QUIET,
        )

    def wire(self) -> None:
        self.after(remember(self.set, self.choices))
        for part in list(self.choices.values())[1:]:
            remember(part, self.choices).then(
                self.read, list(self.choices.values()), [self.picture, self.rounds], **QUIET
            )
        filters = [self.choices[name] for name in ("source", "format", "length", "which")]
        inputs = list(self.choices.values())
        chosen = self.picked.click(self.filtered, None, filters, **QUIET)
        chosen.then(self.read, inputs, [self.picture, self.rounds], **QUIET).then(
            None, inputs, None, js=address(self.choices)
        )

    @staticmethod
    def filtered(event: gr.EventData):
        "The conversations behind a bar; what it does not say is left as it is."
        asked = {name: str((event._data or {}).get(name, "")) for name in ("source", "format", "length")}
        lists = [value or gr.skip() for value in (asked["source"], asked["format"])]
        return [*lists, asked["length"] if asked["length"] in LENGTHS else gr.skip(), 1]

    def open(self, name: str | None) -> DatasetBrowser:
        folder = find_datasets(self.study.root).get(name)
        if folder is None:
            raise UserError(
                f"{name}: this dataset is gone, or is being written."
                if name
                else "No dataset lies below this folder yet: `cocoift build` makes one."
            )
        return self.browser(folder, (folder / "manifest.json").stat().st_mtime_ns)

    def put(self, drawn: dict[str, tuple]) -> list:
        return [part for place, what in drawn.items() for part in self.sets[place].drawn(self.study.csv(), *what)]

    def composed(self, name, source, format):
        "What stands in a set's columns: at once."
        wrong = [f"{path}: {why}" for path, why in unfinished_datasets(self.study.root).items()]
        try:
            mix = self.open(name).mixture()
        except (UserError, OSError, KeyError) as error:
            mix, wrong = pd.DataFrame(), [*wrong, str(error)]
        figures_at_once = (audited.composition, audited.formats_by_round, audited.format_mixture)
        drawn = self.put({place: (mix, figure) for place, figure in zip(AT_ONCE, figures_at_once)})
        formats = sorted({*mix.format, *mix.format.str.partition(":")[0]} - {""}) if len(mix) else []
        sources = sorted(set(mix.source) - {""}) if len(mix) else []
        lists = {"any source": sources, "any form": formats}
        return [
            not_shown(wrong),
            *drawn,
            *(
                gr.update(choices=[(none, ""), *map(asked_for, there)], value=value if value in there else "")
                for (none, there), value in zip(lists.items(), (source, format))
            ),
        ]

    def taught(self, name):
        "What takes a reading of every word: a little later, and once."
        try:
            browser = self.open(name)
            audit, leaks = cached_audit(browser.folder, self.audits), removed_images(browser.folder)
        except (UserError, OSError, KeyError, ValueError) as error:
            why = str(error) or type(error).__name__
            return [not_shown([why]), *self.put({p: (None, lambda _: look.empty(why)) for p in LATER}), None]
        table = measures(audit)
        carry = table.measure == "carry-over"
        drawn = {
            "carry-over": (table[carry], audited.by_source, "Does a terse request carry over? Source by source"),
            "data-measures": (table[~carry], audited.by_source, "Short answers nobody asked for, switches, forms kept"),
            "overlap": (overlaps(audit["overlap"])[0], audited.overlap_matrix),
            "diversity": (
                varied(audit),
                audited.by_source,
                "How varied the instructions are",
                "Shares among 1,000 words, pairs, triples drawn at random",
            ),
            "lengths": (
                binned(audit["words_histogram"], WORD_BINS),
                audited.histogram,
                "How long the answers are",
                "words of an answer",
            ),
        }
        return [gr.skip(), *self.put(drawn), leaks]

    def read(self, name, source, format, length, fault, which):
        "One conversation with its origins."
        try:
            browser = self.open(name)
            numbers = browser.pick(source or "", format or "", bool(fault), length or "")
            if not len(numbers):
                return None, "<p>No conversation is like that.</p>"
            place = (int(which or 1) - 1) % len(numbers)
            c = browser.conversation(int(numbers[place]))
        except (UserError, OSError, KeyError, ValueError) as error:
            return None, f"<p>{html.escape(str(error))}</p>"
        images = html.escape(", ".join(c.images)) or "no image"
        where = f'<p class="where">{place + 1:,} of {len(numbers):,} · {html.escape(c.id)} · {images}</p>'
        rounds = [
            {"instruction": text, "response": t["response"], "marks": marks(t, r.origin)}
            for text, t, r in zip(with_numbers(c), marked_rounds(c, len(c.rounds)), c.rounds)
        ]
        return self.study.pictures(c.images), where + rounds_html(rounds)


def asked_for(format: str) -> tuple[str, str]:  # what is shown, what is meant
    words = format_in_words(format) if ":" in format else format_in_words(f"{format}:…")
    return (f"{words} ({format})" if words not in (format, f"{format}:…") else format, format)


def marks(r: dict, origin) -> list[tuple[str, str]]:  # kind, text
    "The format of a round, whether it was kept, whether an earlier request lives on, and where the round comes from."
    kept = [] if r["kept"] is None else [("right", "✓ kept")] if r["kept"] else [("wrong", "✗ not kept")]
    leaked, template = [("wrong", f"▲ {FAULT}")] if r["leaked"] else [], origin.template
    whence = (origin.source, origin.record, template and f"template {template}", origin.model, origin.licence)
    return [("format", r["format"]), *kept, *leaked, ("origin", " · ".join(filter(None, whence)))]
