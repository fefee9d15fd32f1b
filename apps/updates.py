"What the chat's parts show after a vote, after names are hidden, or when sides come and go."

import random

import gradio as gr

from apps.sessions import Sessions, visitor
from apps.turns import votes_closed
from cocoift.arena.marks import defuse
from cocoift.arena.messages import SIDES, answer_differences, messages
from cocoift.arena.prepared import dialog_name
from cocoift.arena.session import Side
from cocoift.arena.store import VOTES, sides_as_json, votes_of
from cocoift.dashboard.offers import describe_model, real_models

_REMEMBERED = 20  # dialogs


def remembered(memory: list[dict] | None, sides: list[Side]) -> list[dict]:
    "A visitor's earlier dialogs with this one in front, in place of what it was before its last answer."
    dialog = {"name": dialog_line(sides), "sides": sides_as_json(dict(zip(SIDES, sides)))}
    begun = [(r["instruction"], r["response"]) for r in dialog["sides"]["a"]["rounds"][:1]]

    def earlier_state(entry: dict) -> bool:
        models = [side["model"] for side in entry["sides"].values()] == [side.model for side in sides]
        return models and [(r["instruction"], r["response"]) for r in entry["sides"]["a"]["rounds"][:1]] == begun

    return [dialog, *(entry for entry in memory or [] if not earlier_state(entry))][:_REMEMBERED]


def dialog_line(sides: list[Side]) -> str:
    rounds = len(sides[0].rounds)
    return (
        f"{dialog_name([r.instruction for r in sides[0].rounds])[:90]}: {', '.join(s.model for s in sides)} ({rounds})"
    )


class Updates:
    "Handlers that need no part of the page, only its sessions."

    def __init__(self, sessions: Sessions):
        self.sessions = sessions

    @staticmethod
    def shape(many: int):
        return [
            *(gr.update(visible=k < many) for k in range(4)),
            *(gr.update(visible=k < many) for k in range(4)),
            gr.update(visible=many > 2),
            gr.update(visible=many > 3),
        ]

    def reshape(self, *values):
        "The columns of as many models; `values` as `settle` takes them."
        many = values[4]
        return [many, *self.shape(many), *self.settle(*values)]

    @staticmethod
    def settle(*values):
        "What may be done now, how the answers differ, and the dialog among this visitor's earlier ones."
        *sides, many, hidden, memory = values
        sides = sides[:many]
        busy = any(side.busy for side in sides)
        done = not busy and all(side.rounds for side in sides)
        own = done and not any(side.rounds[-1].by for side in sides)  # on what one of them said for all nobody votes
        kept = remembered(memory, sides) if done and not hidden else None
        return [
            gr.update(interactive=not busy),
            answer_differences(sides) if done else "",
            *[gr.update(interactive=own) for _ in VOTES],
            gr.skip() if kept is None else kept,
            gr.update(choices=[entry["name"] for entry in (kept or memory or [])], value=None),
        ]

    def voter(self, choice: str):
        def cast(*values):
            *sides, why, hidden, many = values
            sides = dict(zip(SIDES, sides[:many]))
            self.sessions.store.add(*votes_of(choice, sides, why or "", hidden))
            names = ", ".join(f"{s.upper()} was *{defuse(side.model)}*" for s, side in sides.items())
            seen = [
                gr.update(visible=True, value=side.model)
                if side.model in self.sessions.registry.entries
                else gr.update(visible=True)
                for side in sides.values()
            ]
            return [
                f"**Noted: {choice}.** {names}.",
                "",
                False,
                False,
                *seen,
                *[gr.skip()] * (4 - many),
                *votes_closed(),
            ]

        return cast

    def hide_names(self, on, *values):
        "Names of real models, drawn; a script would be known by its answers, and a recording knows no question."
        *models, many = values
        names = real_models(self.sessions.registry)
        if on and len(names) < 2:
            why = "A blind vote needs two real models, and here are only scripts and recordings."
            gr.Warning(f"{why} `cocoift quickstart` trains some.", title="Not done")
            return [False, False, *[gr.skip()] * 13]
        self.sessions.stop(visitor())
        drawn = models[:many]
        if on:
            drawn = random.sample(names, many) if len(names) >= many else random.choices(names, k=many)
        drawn += models[many:]
        return [
            on,
            on,
            *map(Side, drawn),
            *[[]] * 4,
            *[gr.update(visible=not on) for _ in drawn],
            "The names are hidden: ask, then vote." if on else "",
        ]

    def take_over(self, k: int):
        "All sides go on from the dialog of one."

        def over(*values):
            *sides, known, hidden, many = values
            taken = [side if n == k else side.take_over(sides[k]) for n, side in enumerate(sides[:many])]
            pictures = self.sessions.registry.pictures | known
            rest = sides[many:]
            return [*taken, *rest, *(messages(side, pictures, hidden) for side in [*taken, *rest])]

        return over

    def whose(self, hidden, *models):
        "Who the models are, unless that is a secret."
        return ["" if hidden else defuse(describe_model(self.sessions.registry, name)) for name in models]

    def wipe(self, *sides):
        self.sessions.stop(visitor())
        return [*(Side(side.model) for side in sides), *[[]] * 4, "", ""]
