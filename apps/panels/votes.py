"Whose answers people prefer: Bradley-Terry ratings of the votes cast in the chat."

import gradio as gr

from apps.panels.figure import FigurePlace
from apps.panels.place import Query, Study, not_shown
from apps.sessions import QUIET
from cocoift.dashboard import run_index
from cocoift.files import UserError
from cocoift.viz import results


class Votes:
    choices: dict = {}

    def __init__(self, study: Study):
        self.study = study
        self.note, self.rated = gr.Markdown(elem_id="votes-note"), FigurePlace("ratings")

    @property
    def places(self) -> list[FigurePlace]:
        return [self.rated]

    def arrive(self, query: Query) -> list:
        return []

    def after(self, event):
        return event.then(self.ratings, None, [self.note, *self.rated.parts], **QUIET)

    def wire(self) -> None:
        pass

    def ratings(self):
        try:
            votes, wrong = self.study.store.votes(), []
        except (UserError, KeyError, TypeError) as error:
            votes, wrong = [], [str(error)]
        blind = sum(bool(v.get("blind")) for v in votes)
        counts = f"{len(votes):,} vote{'s' * (len(votes) != 1)}, {blind:,} of them blind. "
        note = f"{counts}`cocoift app --take-away DIR` writes them all." if votes else ""
        return [not_shown(wrong) or note, *self.rated.drawn(self.study.csv(), run_index.rate(votes), results.ratings)]
