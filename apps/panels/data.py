"What a set teaches: what it is made of at once, what takes a reading of every word a little later, and its conversations with their origins."

import html
from functools import lru_cache

import gradio as gr
import pandas as pd

from apps.panels.place import Asked, Study, not_shown, parts_of, remember, shelve, spoken
from apps.room import QUIET
from cocoift.dashboard import browser as shelf
from cocoift.files import UserError
from cocoift.reports.audit_page import WORD_BINS, binned, measures, overlaps, told, varied
from cocoift.viz import audited, figures

AT_ONCE = ("composition", "formats-by-round", "formats")
LATER = ("carry-over", "data-measures", "overlap", "diversity", "lengths")


class Data:
    def __init__(self, study: Study):
        self.study, self.kept = study, study.log.path.parent / "audits"
        self.browser = lru_cache(4)(lambda path, stamp: shelf.DatasetBrowser(path))
        self.set, self.note = gr.Dropdown([], label="Dataset", elem_id="dataset"), gr.Markdown(elem_id="data-note")
        self.sets = shelve(
            ("composition", "overlap"),
            ("formats-by-round", "formats"),
            ("carry-over", "data-measures"),
            ("diversity", "lengths"),
        )
        self.leaks = gr.Dataframe(elem_id="leaks", label="Images of benchmarks in the set", interactive=False)
        gr.Markdown("### Its conversations")
        with gr.Row():
            source, format = (
                gr.Dropdown([""], value="", label=label, elem_id=name)
                for name, label in (("source", "Source"), ("format", "Holds a round of format"))
            )
            fault = gr.Checkbox(label=f"Only with a free round {shelf.FAULT}", elem_id="fault")
            which = gr.Number(1, label="Conversation", precision=0, minimum=1, elem_id="which")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.shown = gr.Image(
                    height=300,
                    format="png",
                    elem_id="conversation-picture",
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                )
            with gr.Column(scale=3, min_width=300):
                self.rounds = gr.HTML(elem_id="conversation")
        self.choices = {"set": self.set, "source": source, "format": format, "fault": fault, "which": which}

    def arrive(self, asked: Asked) -> list:
        there = list(shelf.find_datasets(self.study.root))
        chosen = asked.one(
            "set", there, next((name for name in there if name in figures.LAYOUTS), next(iter(there), None))
        )
        return [
            gr.update(choices=there, value=chosen),
            asked.later("source"),
            asked.later("format"),
            asked.given.get("fault") == "true",
            asked.number("which"),
        ]

    def after(self, event):
        name, source, format, *_ = given = list(self.choices.values())
        made = event.then(
            self.composed,
            [name, source, format],
            [self.note, *parts_of(self.sets[place] for place in AT_ONCE), source, format],
            **QUIET,
        )
        read = made.then(self.read, given, [self.shown, self.rounds], **QUIET)
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
                self.read, list(self.choices.values()), [self.shown, self.rounds], **QUIET
            )

    def open(self, name: str | None) -> shelf.DatasetBrowser:
        folder = shelf.find_datasets(self.study.root).get(name)
        if folder is None:
            raise UserError(
                f"{name}: this dataset is gone, or is being written."
                if name
                else "No dataset lies below this folder yet: `cocoift build` makes one."
            )
        return self.browser(folder, (folder / "manifest.json").stat().st_mtime_ns)

    def places(self, drawn: dict[str, tuple]) -> list:
        return [part for place, given in drawn.items() for part in self.sets[place].drawn(self.study.csv(), *given)]

    def composed(self, name, source, format):
        "What stands in a set's columns: at once."
        wrong = [f"{path}: {why}" for path, why in shelf.unfinished_datasets(self.study.root).items()]
        try:
            mix = self.open(name).mixture()
        except (UserError, OSError, KeyError) as error:
            mix, wrong = pd.DataFrame(), [*wrong, str(error)]
        drawn = self.places(
            dict(
                zip(
                    AT_ONCE,
                    ((mix, audited.composition), (mix, audited.formats_by_round), (mix, audited.format_mixture)),
                )
            )
        )
        lists = [["", *sorted(set(mix[column]) - {""})] if len(mix) else [""] for column in ("source", "format")]
        return [
            not_shown(wrong),
            *drawn,
            *(
                gr.update(choices=there, value=value if value in there else "")
                for there, value in zip(lists, (source, format))
            ),
        ]

    def taught(self, name):
        "What takes a reading of every word: a little later, and once."
        try:
            browser = self.open(name)
            found, leaks = shelf.cached_audit(browser.folder, self.kept), shelf.removed_images(browser.folder)
        except (UserError, OSError, KeyError, ValueError) as error:
            said = str(error) or type(error).__name__
            return [
                not_shown([said]),
                *self.places({place: (None, lambda _: figures.empty(said)) for place in LATER}),
                None,
            ]
        table = measures(found)
        carry = table.measure == "carry-over"
        drawn = {
            "carry-over": (table[carry], audited.by_source, "Does a terse request carry over? Source by source"),
            "data-measures": (table[~carry], audited.by_source, "The company of carry-over"),
            "overlap": (overlaps(found["overlap"])[0], audited.overlap_matrix),
            "diversity": (
                varied(found),
                audited.by_source,
                "How varied the instructions are",
                "Shares among 1,000 words, pairs, triples drawn at random",
            ),
            "lengths": (
                binned(found["words_histogram"], WORD_BINS),
                audited.histogram,
                "How long the answers are",
                "words of an answer",
            ),
        }
        return [gr.skip(), *self.places(drawn), leaks]

    def read(self, name, source, format, fault, which):
        "One conversation with its origins."
        try:
            browser = self.open(name)
            found = browser.pick(source or "", format or "", bool(fault))
            if not len(found):
                return None, "<p>No conversation is like that.</p>"
            place = (int(which or 1) - 1) % len(found)
            c = browser.conversation(int(found[place]))
        except (UserError, OSError, KeyError, ValueError) as error:
            return None, f"<p>{html.escape(str(error))}</p>"
        where = f'<p class="where">{place + 1:,} of {len(found):,} · {html.escape(c.id)} · {html.escape(", ".join(c.images)) or "no image"}</p>'
        rounds = [
            {"asked": t["instruction"], "said": t["response"], "marks": marks(t, r.origin)}
            for t, r in zip(told(c, len(c.rounds)), c.rounds)
        ]
        return self.study.picture(c.images[0]) if c.images else None, where + spoken(rounds)


def marks(said: dict, origin) -> list[tuple[str, str]]:  # kind, text
    "The format of a round, whether it was kept, whether an earlier request lives on, and where the round comes from."
    kept = [] if said["kept"] is None else [("right", "✓ kept")] if said["kept"] else [("wrong", "✗ not kept")]
    whence = " · ".join(
        filter(
            None,
            (
                origin.source,
                origin.record,
                origin.template and f"template {origin.template}",
                origin.model,
                origin.licence,
            ),
        )
    )
    return [
        ("format", said["format"]),
        *kept,
        *([("wrong", f"▲ {shelf.FAULT}")] if said["leaked"] else []),
        ("origin", whence),
    ]
