"Item by item: the picture, what was said before, and what each run answered. The panel that people stay in."

import html

import gradio as gr

from apps.panels.place import NOTHING, Query, Study, address, card, chip, picture_place, rounds_html
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.dashboard.samples import FILTERS, filter_rounds, item_index, item_link, paired_rounds, scored_rounds
from cocoift.eval.history import tell
from cocoift.files import UserError

SCRIPTED = ("neutral", "terse", "forced_short", "gold")  # histories whose rounds are the same for every model
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
                self.back = gr.Button("‹ before", size="sm", elem_id="before")
                self.on = gr.Button("next ›", size="sm", elem_id="next")
        self.at = gr.Textbox("", visible=False)  # the item's key, for the address; a State never reaches the page
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.picture = picture_place("item-picture")
                one_line = dict(lines=1, max_lines=1, interactive=False, buttons=["copy"])
                self.link = gr.Textbox(label="Link to this item", elem_id="item-link", **one_line)
            with gr.Column(scale=3, min_width=300):
                self.text = gr.HTML(elem_id="item-text")
        picks = {"run_a": a, "run_b": b, "run_more": others, "filter": want, "kind": kind, "under": under}
        self.choices = picks | {"item": self.at}

    def arrive(self, query: Query) -> list:
        played = list(self.study.find("rounds.jsonl"))
        scores = run_index.results(self.study.root, self.study.memory)[0]["scores"]
        alike = (
            [name for name in scores[scores.bench == run_index.FIRST].layout.unique() if name in played]
            if len(scores)
            else []
        )
        a = query.one("run_a", played, next(iter(alike or played), None))
        b = query.one("run_b", played, next((name for name in alike or played if name != a), a))
        return [
            gr.update(choices=played, value=a),
            gr.update(choices=played, value=b),
            gr.update(choices=played, value=query.many("run_more", played)),
            query.one("filter", FILTERS, "all"),
            query.later("kind"),
            query.later("under"),
            query.values.get("item", ""),
        ]

    def after(self, event, step: int = 0):
        *picks, key = self.choices.values()
        _, _, _, _, kind, under = picks
        shown = event.then(
            lambda *values: self.sample(*values, step=step),
            [*picks, self.number, key],
            [kind, under, self.picture, self.text, self.number, self.at],
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
                self.study.pictures([row.image, *(more if isinstance(more := row.get("more_a"), list) else [])]),
                self.item(row, a, b, others or [], place, len(rows)),
                place + 1,
                item_link(row),
            ]
        except (UserError, KeyError, ValueError, TypeError, AttributeError) as error:
            other = f"These runs cannot be laid beside each other ({type(error).__name__}: {error})."
            why = str(error) if isinstance(error, UserError) else other
            return [*choices, None, f"<p>{html.escape(why)}</p>", 1, ""]

    def item(self, row, a: str, b: str, others: list[str], place: int, many: int) -> str:  # HTML
        known, text = self.study.registry.items.get(row["item"]), html.escape
        where = f"{place + 1:,} of {many:,} · {text(str(row['item']))} · {text(row.kind) or 'no kind'}"
        parts = [f'<p class="where">{where} · history <b>{text(row.history)}</b></p>']
        if before := self.before(row, known):
            parts.append(card("What was said before", rounds_html(before), "before"))
        parts.append(f'<p class="question">{text(row.instruction)}</p>')
        if known:
            parts.append(f'<p class="truth">Right: <b>{text(known.short_answer)}</b> · {text(known.full_answer)}</p>')
        sides = [
            (f"A · {a}", row.response_a, row.right_a, row.terse_a),
            (f"B · {b}", row.response_b, row.right_b, row.terse_b),
            *(self.other(name, row) for name in others[:MOST]),
        ]
        cards = (
            card(name, f'<p class="said">{text(answer) or "<i>no answer</i>"}</p>' + verdict(right, terse))
            for name, answer, right, terse in sides
        )
        return f'{"".join(parts)}<div class="cards">{"".join(cards)}</div>'

    @staticmethod
    def before(row, known) -> list[dict]:
        "The rounds before, where they are the same for every model."
        if not known or row.history not in SCRIPTED:
            return []
        rounds = tell(known, row.history, row.get("rounds_a", 0) or 0)
        return [{"instruction": q, "response": response or "(the model's own answer)"} for q, response in rounds]

    def other(self, name: str, row) -> tuple:  # name, its answer, right, terse
        try:
            rows = self.answers(name)
            same = (rows["item"] == row["item"]) & (rows.history == row.history)
            hit = rows[same & (rows.bound == row.bound) & (rows.instruction == row.instruction)]
        except (UserError, KeyError, AttributeError):
            return name, "(this run cannot be read)", None, None
        if not len(hit):
            return name, "", None, None
        return name, hit.response.iloc[0], hit.right.iloc[0], hit.terse.iloc[0]


def verdict(right, terse) -> str:  # HTML; by a sign, never by colour alone
    def known(value):
        return value is not None and value == value

    marks = [("right", "✓ right") if right else ("wrong", "✗ wrong")] if known(right) else []
    return "".join(chip(*mark) for mark in [*marks, *([("terse", "terse")] if known(terse) and terse else [])])
