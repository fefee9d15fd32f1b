"Item by item: a wall of pictures to search, and behind each what was asked before and what every run answered."

import html
from functools import lru_cache
from pathlib import Path

import gradio as gr

from apps.panels.figure import FigurePlace
from apps.panels.place import NOTHING, Query, Study, address, card, chip, picture_place, rounds_html, worded
from apps.sessions import QUIET, shows_errors
from cocoift.dashboard import run_index
from cocoift.dashboard.samples import (
    FILTERS,
    MOST_TAG,
    filter_rounds,
    item_index,
    item_link,
    paired_rounds,
    read_tags,
    scored_rounds,
    tag_line,
)
from cocoift.eval.history import tell
from cocoift.files import UserError
from cocoift.pictures import embed
from cocoift.viz.names import model_of

SCRIPTED = ("neutral", "terse", "forced_short", "gold")  # histories whose rounds are the same for every model
MOST = 6  # runs beside the two
A_PAGE, THUMB_PX = 24, 150
CLICKS = """element.addEventListener("click", e => { const b = e.target.closest("[data-item], [data-page]");
  if (b) trigger("click", {item: b.dataset.item || "", page: b.dataset.page || ""}); });"""


class Samples:
    places: list[FigurePlace] = []

    def __init__(self, study: Study):
        self.study, self.thumb = study, lru_cache(4096)(thumb)
        with gr.Row():
            a, b = (gr.Dropdown([], label=f"Run {x}", elem_id=f"run-{x.lower()}") for x in "AB")
            others = gr.Dropdown([], multiselect=True, label="Answers of these runs, too", elem_id="run-more")
        with gr.Row():
            want = gr.Dropdown(list(FILTERS), value="all", label="Show", elem_id="filter")
            labels = {"kind": "Kind of question", "under": "The question is asked", "tag": "Tag"}
            lists = {
                name: gr.Dropdown([""], value="", label=label, elem_id=name, scale=2 if name == "under" else 1)
                for name, label in labels.items()
            }
            search = gr.Textbox(label="Search questions and answers", elem_id="search", max_lines=1, max_length=200)
        self.at, self.page = gr.Textbox("", visible=False), gr.Textbox("", visible=False)  # for the address
        with gr.Column() as self.wall:
            self.grid = gr.HTML(
                '<p class="loading" role="status">Reading the answers …</p>', elem_id="grid", js_on_load=CLICKS
            )
        with gr.Column(visible=False) as self.single:
            self.lay_out_single()
        picks = {"run_a": a, "run_b": b, "run_more": others, "filter": want, **lists, "search": search}
        self.choices = picks | {"page": self.page, "item": self.at}

    def lay_out_single(self) -> None:
        with gr.Row():
            self.all = gr.Button("‹ All samples", size="sm", elem_id="all-samples", min_width=120)
            self.back = gr.Button("‹ before", size="sm", elem_id="before", min_width=90)
            self.on = gr.Button("next ›", size="sm", elem_id="next", min_width=90)
            self.number = gr.Number(1, label="Number", precision=0, elem_id="item", minimum=1, min_width=90)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.picture = picture_place("item-picture")
                one_line = dict(lines=1, max_lines=1)
                self.link = gr.Textbox(
                    label="Link to this sample", elem_id="item-link", interactive=False, buttons=["copy"], **one_line
                )
                label = "Tag this question (once more: take the tag away); Enter"
                self.tagged = gr.Textbox(label=label, elem_id="item-tag", max_length=MOST_TAG, **one_line)
            with gr.Column(scale=3, min_width=300):
                self.text = gr.HTML(elem_id="item-text")

    def arrive(self, query: Query) -> list:
        played = list(self.study.find("rounds.jsonl"))
        scores = run_index.results(self.study.root, self.study.memory)[0]["scores"]
        alike = (
            [name for name in scores[scores.bench == run_index.FIRST].layout.unique() if name in played]
            if len(scores)
            else []
        )
        a = query.one("run_a", played, next(iter(alike or played), None))
        others = sorted((name for name in alike or played if name != a), key=lambda name: model_of(name) == model_of(a))
        b = query.one("run_b", played, next(iter(others), a))
        return [
            gr.update(choices=played, value=a),
            gr.update(choices=played, value=b),
            gr.update(choices=played, value=query.many("run_more", played)),
            query.one("filter", FILTERS, "all"),
            *(query.later(name) for name in ("kind", "under", "tag")),
            query.values.get("search", "")[:200],
            str(query.number("page")) if "page" in query.values else "",
            query.values.get("item", ""),
        ]

    def opened(self, asked: dict, before: tuple[str, str]) -> list:
        "The choices that lead to the answers behind a point of a figure, beside the run that was looked at."
        played = list(self.study.find("rounds.jsonl"))
        a = asked.get("folder", "")
        if a not in played:
            raise UserError("The answers behind this point are not here: only its numbers are.")
        b = next((run for run in reversed(before) if run and run != a), a)
        want = asked["filter"] if asked.get("filter") in FILTERS else "all"
        later = [
            gr.update(choices=["", value], value=value) for value in (asked.get("kind", ""), asked.get("under", ""))
        ]
        return [a, b, gr.skip(), want, *later, "", "", "", ""]

    def after(self, event, step: int = 0):
        inputs = [*self.choices.values(), self.number]
        lists = [self.choices[name] for name in ("kind", "under", "tag")]
        single = [self.picture, self.text, self.number, self.at]
        outputs = [*lists, self.wall, self.grid, self.single, *single]
        shown = event.then(lambda *values: self.sample(*values, step=step), inputs, outputs, **QUIET)
        return shown.then(None, list(self.choices.values()), self.link, js=address(self.choices, True))

    def wire(self) -> None:
        first, begin = lambda: ("", ""), [self.page, self.at]
        for name, part in self.choices.items():
            if name == "search":
                self.after(gr.on([part.submit, part.blur], first, None, begin, **QUIET))
            elif part not in begin:
                self.after(part.input(first, None, begin, **QUIET))
        self.after(self.number.input(lambda: "#", None, self.at, **QUIET))
        self.after(self.all.click(lambda: "", None, self.at, **QUIET))
        self.after(self.grid.click(self.clicked, None, begin, **QUIET))
        for button, step in ((self.back, -1), (self.on, 1)):
            self.after(button.click(None, None, None, js=NOTHING), step)
        self.after(self.tagged.submit(shows_errors(self.tag), [self.at, self.tagged], self.tagged, **QUIET))

    @staticmethod
    def clicked(event: gr.EventData):
        page, item = (str((event._data or {}).get(name, "")) for name in ("page", "item"))
        return (page, "") if page else (gr.skip(), item)

    def tag(self, key: str, text: str) -> str:
        if "/" not in (key or ""):
            raise UserError("Open a sample first.")
        line = tag_line(key.rsplit("/", 3)[0], text)
        line["on"] = line["item"] not in self.tags().get(line["tag"], ())
        self.study.store.add(line)
        return ""

    def tags(self) -> dict[str, list[str]]:
        try:
            return self.study.memory.get("tags", [self.study.store.path], lambda: read_tags(self.study.store.lines()))
        except (UserError, KeyError):  # a log that is torn: the votes' panel names it
            return {}

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

    def sample(self, a, b, others, want, kind, under, tag, search, page, key, number, step=0):
        "A page of the wall; or the item that a link names, one of a number (`#`), or the one beside it."
        lists = [gr.skip()] * 3
        try:
            table, tags = self.pairs(a, b), self.tags()
            if not len(table):
                raise UserError("These two runs have no item in common: choose runs of one benchmark.")
            kinds, histories = ["", *sorted(set(table.kind) - {""})], ["", *dict.fromkeys(table.history)]
            kind, under, tag = (
                value if value in known else "" for value, known in ((kind, kinds), (under, histories), (tag, tags))
            )
            lists = [
                gr.update(choices=[(value or "any", value) for value in kinds], value=kind),
                gr.update(
                    choices=[(worded(value) if value else "after any history", value) for value in histories],
                    value=under,
                ),
                gr.update(choices=[("any", ""), *tags], value=tag),
            ]
            rows = filter_rounds(
                table, want if want in FILTERS else "all", kind, under, search or "", tags[tag] if tag else None
            )
            if not len(rows):
                return [*lists, *wall("<p>No sample is like that: take a filter away.</p>")]
            if not key:
                return [*lists, *wall(self.pictured(rows, page, tags))]
            place = item_index(rows, key, int(number or 1), step)
            return [*lists, *self.one(rows.iloc[place], a, b, others or [], place, len(rows), tags)]
        except (UserError, KeyError, ValueError, TypeError, AttributeError) as error:
            other = f"These runs cannot be laid beside each other ({type(error).__name__}: {error})."
            why = str(error) if isinstance(error, UserError) else other
            return [*lists, *wall(f"<p>{html.escape(why)}</p>")]

    def one(self, row, a, b, others, place: int, many: int, tags) -> list:
        pictures = [row.image, *(more if isinstance(more := row.get("more_a"), list) else [])]
        text = self.item(row, a, b, others, place, many, tags)
        shown = [self.study.pictures(pictures), text, place + 1, item_link(row)]
        return [gr.update(visible=False), gr.skip(), gr.update(visible=True), *shown]

    def pictured(self, rows, page: str, tags: dict[str, list[str]]) -> str:  # HTML
        "A page of the wall."
        pages = -(-len(rows) // A_PAGE)
        at = min(max(int(page) if str(page).isdecimal() else 1, 1), pages)
        cards = "".join(self.brick(row, tags) for _, row in rows.iloc[(at - 1) * A_PAGE : at * A_PAGE].iterrows())
        turn = "".join(
            f'<button type="button" data-page="{to}"{"" if 1 <= to <= pages else " disabled"}>{text}</button>'
            for to, text in ((at - 1, "‹ before"), (at + 1, "next ›"))
        )
        where = f"page {at:,} of {pages:,}" if pages > 1 else ""
        count = f'<p class="where">{len(rows):,} sample{"s" * (len(rows) != 1)}{f", {where}" * (pages > 1)}</p>'
        return f'<div class="pager">{count}{turn * (pages > 1)}</div><div class="wall">{cards}</div>'

    def brick(self, row, tags) -> str:  # HTML
        text, path = html.escape, self.study.path(row.image)
        source, tiny = self.thumb(path, path.stat().st_mtime_ns) if path else ("", False)
        picture = (
            f'<img alt="" loading="lazy" src="{source}"{" data-small" * tiny}>' if source else "<span>no picture</span>"
        )
        sides = "".join(
            f"<span><b>{side.upper()}</b> {text(str(row[f'response_{side}']))[:60] or '<i>no answer</i>'} "
            f"{verdict(row.get(f'right_{side}'), row.get(f'terse_{side}'))}</span>"
            for side in "ab"
        )
        own = "".join(chip("tag", tag) for tag, items in tags.items() if row["item"] in items)
        return (
            f'<button type="button" class="brick" data-item="{text(item_link(row))}">{picture}'
            f'<span class="asked">{text(str(row.instruction))[:140]}</span>{sides}{own}'
            f"<small>{text(worded(row.history))}</small></button>"
        )

    def item(self, row, a: str, b: str, others: list[str], place: int, many: int, tags) -> str:  # HTML
        known, text = self.study.registry.items.get(row["item"]), html.escape
        where = f"{place + 1:,} of {many:,} · {text(str(row['item']))} · {text(row.kind) or 'no kind'}"
        parts = [f'<p class="where">{where} · asked <b>{text(worded(row.history).removeprefix("asked "))}</b></p>']
        parts += [chip("tag", tag) for tag, items in tags.items() if row["item"] in items]
        if before := self.before(row, known):
            parts.append(card("What was asked and answered before", rounds_html(before), "before"))
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


def thumb(path: Path, stamp: int) -> tuple[str, bool]:  # an address that needs no file, whether it is tiny
    try:
        return embed(path, THUMB_PX)
    except (UserError, OSError):
        return "", False


def wall(inside: str) -> list:  # what shows it: lists aside
    return [gr.update(visible=True), inside, gr.update(visible=False), None, "", 1, ""]


def verdict(right, terse) -> str:  # HTML; by a sign, never by colour alone
    def known(value):
        return value is not None and value == value

    marks = [("right", "✓ right") if right else ("wrong", "✗ wrong")] if known(right) else []
    return "".join(chip(*mark) for mark in [*marks, *([("terse", "terse")] if known(terse) and terse else [])])
