"What the chat's parts show after a vote, after names are hidden, or when sides come and go."

import random

import gradio as gr

from apps.sessions import Sessions, visitor
from cocoift.arena.marks import defuse
from cocoift.arena.messages import SIDES, answer_differences
from cocoift.arena.session import Side
from cocoift.arena.store import VOTES, votes_of


class Updates:
    "Handlers that need no part of the page, only its sessions."

    def __init__(self, sessions: Sessions):
        self.sessions = sessions

    @staticmethod
    def shape(many: int):
        return [
            *(gr.update(visible=k < many) for k in range(4)),
            gr.update(visible=many > 2),
            gr.update(visible=many > 3),
        ]

    def reshape(self, *values):
        return [values[-1], *self.shape(values[-1]), *self.settle(*values)]

    @staticmethod
    def settle(*values):
        *sides, many = values
        sides = sides[:many]
        busy = any(side.busy for side in sides)
        done = not busy and all(side.rounds for side in sides)
        return [
            gr.update(interactive=not busy),
            answer_differences(sides) if done else "",
            *[gr.update(interactive=done) for _ in VOTES],
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
                *[gr.update(interactive=False) for _ in VOTES],
            ]

        return cast

    def hide_names(self, on, *values):
        *models, many = values
        self.sessions.stop(visitor())
        names = list(self.sessions.registry.entries)
        drawn = (
            random.sample(names, many)
            if on and len(names) >= many
            else random.choices(names, k=many)
            if on
            else models[:many]
        )
        drawn += models[many:]
        return [
            on,
            *map(Side, drawn),
            *[[]] * 4,
            *[gr.update(visible=not on) for _ in drawn],
            "The names are hidden: ask, then vote." if on else "",
        ]

    def wipe(self, *sides):
        self.sessions.stop(visitor())
        return [*(Side(side.model) for side in sides), *[[]] * 4, "", ""]
