"Item by item: the picture, what was said before, and what each run answered. The panel that people stay in."

import html

import gradio as gr

from apps.panels.place import NOTHING, Asked, Study, address, card, chip, spoken
from apps.room import QUIET
from cocoift.dashboard import run_index as board
from cocoift.dashboard.samples import FILTERS, filter_rounds, item_index, item_link, paired_rounds, scored_rounds
from cocoift.eval.history import tell
from cocoift.files import UserError

TOLD = ("neutral", "terse", "forced_short", "gold")  # histories whose rounds are the same for every model
MOST = 6  # runs beside the two


class Samples:
    def __init__(self, study: Study):
        self.study = study
        with gr.Row():
            a, b = (gr.Dropdown([], label=f"Run {x}", elem_id=f"run-{x.lower()}") for x in "AB")
            others = gr.Dropdown([], multiselect=True, label="And beside them", elem_id="run-more")
        with gr.Row():
            want = gr.Dropdown(list(FILTERS), value="all", label="Show", elem_id="filter")
            kind, under = (
                gr.Dropdown([""], value="", label=label, elem_id=name)
                for name, label in (("kind", "Capability"), ("under", "History"))
            )
            self.number = gr.Number(1, label="Item", precision=0, elem_id="item", minimum=1, min_width=90)
            with gr.Column(min_width=150, elem_classes="turn"):
                self.back, self.on = (
                    gr.Button("‹ before", size="sm", elem_id="before"),
                    gr.Button("next ›", size="sm", elem_id="next"),
                )
        self.at = gr.Textbox(
            "", visible=False
        )  # the item's key, which the address needs; a State never reaches the page
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.picture = gr.Image(
                    height=300,
                    format="png",
                    elem_id="item-picture",
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                )
                self.link = gr.Textbox(
                    label="Link to this item",
                    elem_id="item-link",
                    interactive=False,
                    buttons=["copy"],
                    lines=1,
                    max_lines=1,
                )
            with gr.Column(scale=3, min_width=300):
                self.told = gr.HTML(elem_id="item-text")
        self.choices = {
            "run_a": a,
            "run_b": b,
            "run_more": others,
            "filter": want,
            "kind": kind,
            "under": under,
            "item": self.at,
        }

    def arrive(self, asked: Asked) -> list:
        played = list(self.study.find("rounds.jsonl"))
        scores = board.results(self.study.root, self.study.memory)[0]["scores"]
        alike = (
            [name for name in scores[scores.bench == "rounds"].layout.unique() if name in played] if len(scores) else []
        )
        a = asked.one("run_a", played, next(iter(alike or played), None))
        b = asked.one("run_b", played, next((name for name in alike or played if name != a), a))
        return [
            gr.update(choices=played, value=a),
            gr.update(choices=played, value=b),
            gr.update(choices=played, value=asked.many("run_more", played)),
            asked.one("filter", FILTERS, "all"),
            asked.later("kind"),
            asked.later("under"),
            asked.given.get("item", ""),
        ]

    def after(self, event, step: int = 0):
        *picks, key = self.choices.values()
        _, _, _, _, kind, under = picks
        shown = event.then(
            lambda *given: self.sample(*given, step=step),
            [*picks, self.number, key],
            [kind, under, self.picture, self.told, self.number, self.at],
            **QUIET,
        )
        return shown.then(None, list(self.choices.values()), self.link, js=address(self.choices, True))

    def wire(self) -> None:
        *picks, key = self.choices.values()
        for part in (*picks, self.number):
            self.after(part.input(lambda: "", None, key, **QUIET))
        for button, step in ((self.back, -1), (self.on, 1)):
            self.after(button.click(None, None, None, js=NOTHING), step)

    def answers(self, run: str):
        folder = self.study.find("rounds.jsonl")[run]
        return self.study.memory.get("answers", [folder / "rounds.jsonl"], lambda: scored_rounds(folder))

    def pairs(self, a, b):
        folders = self.study.find("rounds.jsonl")
        if a not in folders or b not in folders:
            raise UserError(
                "Choose two runs: `cocoift eval` makes them."
                if folders
                else "No run lies below this folder yet: `cocoift quickstart` makes some."
            )
        return self.study.memory.get(
            "pair",
            [folders[run] / "rounds.jsonl" for run in (a, b)],
            lambda: paired_rounds(self.answers(a), self.answers(b)),
        )

    def sample(self, a, b, others, want, kind, under, number, key, step=0):
        "The item of that number, or that a link names, or the one beside it."
        choices = [gr.skip(), gr.skip()]
        try:
            table = self.pairs(a, b)
            if not len(table):
                raise UserError("These two runs have no item in common: choose runs of one benchmark.")
            kinds, histories = ["", *sorted(set(table.kind) - {""})], ["", *dict.fromkeys(table.history)]
            kind, under = kind if kind in kinds else "", under if under in histories else ""
            choices = [gr.update(choices=kinds, value=kind), gr.update(choices=histories, value=under)]
            rows = filter_rounds(table, want if want in FILTERS else "all", kind, under)
            if not len(rows):
                return [*choices, None, "<p>No item is like that.</p>", 1, ""]
            place = item_index(rows, key, int(number or 1), step)
            row = rows.iloc[place]
            return [
                *choices,
                self.study.picture(row.image),
                self.item(row, a, b, others or [], place, len(rows)),
                place + 1,
                item_link(row),
            ]
        except (UserError, KeyError, ValueError, TypeError, AttributeError) as error:
            said = (
                str(error)
                if isinstance(error, UserError)
                else f"These runs cannot be laid beside each other ({type(error).__name__}: {error})."
            )
            return [*choices, None, f"<p>{html.escape(said)}</p>", 1, ""]

    def item(self, row, a: str, b: str, others: list[str], place: int, many: int) -> str:  # HTML
        known = self.study.roster.items.get(row["item"])
        before = (
            [
                {"asked": q, "said": said or "(the model's own answer)"}
                for q, said in tell(known, row.history, row.get("rounds_a", 0) or 0)
            ]
            if known and row.history in TOLD
            else []
        )
        told = f'<p class="where">{place + 1:,} of {many:,} · {html.escape(str(row["item"]))} · {html.escape(row.kind) or "no kind"} · history <b>{html.escape(row.history)}</b></p>'
        told += card("What was said before", spoken(before), "before") if before else ""
        told += f'<p class="question">{html.escape(row.instruction)}</p>'
        told += (
            f'<p class="truth">Right: <b>{html.escape(known.terse)}</b> · {html.escape(known.full)}</p>'
            if known
            else ""
        )
        sides = [
            (f"A · {a}", row.response_a, row.right_a, row.terse_a),
            (f"B · {b}", row.response_b, row.right_b, row.terse_b),
            *(self.other(name, row) for name in others[:MOST]),
        ]
        return (
            told
            + '<div class="cards">'
            + "".join(
                card(name, f'<p class="said">{html.escape(said) or "<i>no answer</i>"}</p>' + verdict(right, terse))
                for name, said, right, terse in sides
            )
            + "</div>"
        )

    def other(self, name: str, row) -> tuple:  # name, what it said, right, terse
        try:
            found = self.answers(name)
            hit = found[
                (found["item"] == row["item"])
                & (found.history == row.history)
                & (found.bound == row.bound)
                & (found.instruction == row.instruction)
            ]
        except (UserError, KeyError, AttributeError):
            return name, "(this run cannot be read)", None, None
        return (
            (name, hit.response.iloc[0], hit.right.iloc[0], hit.terse.iloc[0]) if len(hit) else (name, "", None, None)
        )


def verdict(right, terse) -> str:  # HTML; by a sign, never by colour alone
    known = lambda x: x is not None and x == x
    told = [("right", "✓ right") if right else ("wrong", "✗ wrong")] if known(right) else []
    return "".join(chip(*mark) for mark in [*told, *([("terse", "terse")] if known(terse) and terse else [])])
