"Two to four models, one dialog: the page over `cocoift.chat.desk`."
import asyncio
import html
import random
import secrets
import shutil
from pathlib import Path
from threading import Event

import gradio as gr

from cocoift.chat.desk import Logbook, Side, VOTES, answer, export, plain, take_picture, votes_of
from cocoift.chat.logs import read_log
from cocoift.chat.marks import defuse, difference
from cocoift.chat.speak import Settings
from cocoift.files import UserError
from cocoift.studies.roster import Roster

SIDES = "abcd"
QUIET = dict(show_progress="hidden", api_visibility="private")
SCRIPTS = {
    "pier: the paper's own": ["What can you see in this picture?", "Is this place safe? Answer with a single word.", "What can best describe your feeling? Why?"],
    "release: free, one word, free, free": ["Describe what you see.", "How many shapes are there? Answer with a single word.", "Describe what you see.", "What else can you tell about it?"],
    "hold: from now on": ["From now on, answer every question with a single word.", "What shape is in the center?", "Describe what you see.", "You may use full sentences again. Describe what you see."],
    "formats in turn": ["List two things that you see.", "Is there a circle? Answer yes or no.", "Describe the picture in about 20 words.", "What colour is it? Answer with a single word."],
}
MORE = ["Describe what you see.", "List two things that you see.", "From now on, answer every question with a single word. What is this?"]
TAGS = {"A": "a", "B": "b", "C": "c", "D": "d", "tie": "tie", "both bad": "bad"}


def sorry(text: str) -> gr.Error:
    return gr.Error(html.escape(text), print_exception=False)


def facts(side: Side, number: int, blind: bool) -> str:  # HTML, made of nothing that a model said
    "What a reader wants to know of one answer."
    r, m = side.rounds[number], side.marks(number)
    told = [f"{m.words} word{'' if m.words == 1 else 's'}"]
    if r.seconds and not blind:
        told += [f"{r.seconds:.1f} s"] + ([f"{r.tokens / r.seconds:.0f} tokens/s"] if r.tokens else [])
    told += [f'{m.format} <b class="{"kept" if m.kept else "leaked"}">{"✓ kept" if m.kept else "✗ not kept"}</b>'] if m.kept is not None else []
    told += [f"<b class=\"leaked\">▲ round {m.leaked}'s instruction leaked</b>"] if m.leaked else []
    told += [f'standing instruction <b class="{"kept" if m.held else "leaked"}">{"✓ held" if m.held else "✗ dropped"}</b>'] if m.held is not None else []
    told += ["■ stopped"] if r.status == "stopped" else []
    return f'\n\n<span class="facts">{" · ".join(told)}</span>'


def messages(side: Side, pictures: dict[str, Path], blind: bool = False) -> list[dict]:
    "A side as the chatbot shows it: two messages a round."
    shown = []
    for number, r in enumerate(side.rounds):
        files = [{"path": str(pictures[image])} for image in r.images if image in pictures]
        gone = "".join(f"\n\n*(picture {defuse(image)[:24]} is not here)*" for image in r.images if image not in pictures)
        asked = defuse(r.instruction) + gone
        shown.append({"role": "user", "content": [asked, *files] if files else asked})
        if r.status == "failed":
            why = "" if blind else f": {defuse(html.escape(r.why))}"
            text = f"{defuse(r.response)}\n\n⚠ **This model failed**{why}. Retry asks it again."
        elif r.status in ("asked", "speaking"):
            text = defuse(r.response) or "…"
        else:
            text = (defuse(r.response) or "*no answer*") + facts(side, number, blind)
        shown.append({"role": "assistant", "content": text})
    return shown


def differences(sides: list[Side]) -> str:
    "How the others' last answers differ from A's."
    first, *others = [side.rounds[-1].response for side in sides]
    return "".join((f"<h4>A and {name.upper()}</h4>" if len(others) > 1 else "") + difference(first, other) for name, other in zip(SIDES[1:], others))


class Room:
    "What the server knows of all sessions, each under its own key: pictures that were sent, answers that are being given."

    def __init__(self, roster: Roster, log: Logbook, folder: Path):
        self.roster, self.log, self.folder, self.known = roster, log, folder, roster.known()
        self.live: dict[tuple[str, str], Event] = {}

    def stop(self, session: str, sides: str = SIDES) -> None:
        for side in sides:
            if event := self.live.get((session, side)):
                event.set()

    def expect(self, sides: str) -> None:
        "These sides are about to answer: who presses stop before they do has stopped them."
        for side in sides:
            self.live[gr.context.LocalContext.request.get(None).session_hash, side] = Event()

    def stopper(self, sides: str):
        def stop(request: gr.Request):
            self.stop(request.session_hash, sides)
        return stop

    def leave(self, request: gr.Request) -> None:
        "Nothing of a visitor stays but what they voted on or saved."
        self.stop(request.session_hash)
        for side in SIDES:
            self.live.pop((request.session_hash, side), None)
        shutil.rmtree(self.folder / str(request.session_hash), ignore_errors=True)

    def take(self, path: str, request: gr.Request) -> tuple[str, Path]:
        try:
            return take_picture(path, self.folder / request.session_hash, self.known)
        except (UserError, OSError) as error:
            raise sorry(str(error)) from None

    def examples(self) -> list[list[dict]]:
        "One question of each kind, each about another picture, then some about any."
        first = {}
        for item in self.roster.items.values():
            if item.kind not in first and item.image not in {i.image for i in first.values()}:
                first[item.kind] = item
        asked = [(i.stated if k % 2 else i.bare, i.image) for k, i in enumerate(list(first.values())[:6])]
        rest = [image for image in sorted(self.roster.pictures) if image not in {image for _, image in asked}] or sorted(self.roster.pictures)
        asked += [(question, rest[k % len(rest)]) for k, question in enumerate(MORE)]
        return [[{"text": question, "files": [str(self.roster.pictures[image])]}] for question, image in asked if image in self.roster.pictures]


class Page:
    "The chat's parts, and what happens when they are touched."

    def __init__(self, room: Room, where: gr.Blocks):
        self.room, self.names = room, list(room.roster.entries)
        self.first = [self.names[min(k, len(self.names) - 1)] for k in range(4)]
        self.pictures, self.blind, self.many = gr.State({}), gr.State(False), gr.State(2)
        self.lay_out()
        self.all = [*self.states, *self.panes, *self.models]
        self.wire()
        where.load(self.arrive, None, [*self.all, self.pictures, self.many, self.count, self.note], **QUIET).then(self.shape, self.many, self.shaped, **QUIET).then(
            self.settle, *self.settled, **QUIET)
        where.unload(room.leave)

    # The parts

    def lay_out(self) -> None:
        self.states, self.panes, self.models, self.retries, self.stops, self.columns = [], [], [], [], [], []
        with gr.Row(elem_id="sides"):
            for k, s in enumerate(SIDES):
                with gr.Column(min_width=280, visible=k < 2, elem_id=f"side-{s}") as column:
                    self.models.append(gr.Dropdown(self.names, value=self.first[k], label=f"Model {s.upper()}", elem_id=f"model-{s}", allow_custom_value=False))
                    self.panes.append(gr.Chatbot(label=s.upper(), height=440, elem_id=f"chat-{s}", editable="user", buttons=["copy", "copy_all"], allow_tags=False,
                                                 placeholder="**Ask all the same.**\n\nDoes an instruction outlive its round?"))
                    self.states.append(gr.State(Side(self.first[k])))
                    with gr.Row(elem_classes="tight"):
                        self.stops.append(gr.Button(f"Stop {s.upper()}", size="sm", elem_id=f"stop-{s}"))
                        self.retries.append(gr.Button(f"Retry {s.upper()}", size="sm", elem_id=f"retry-{s}"))
                self.columns.append(column)
        self.box = gr.MultimodalTextbox(placeholder="Ask all. Enter sends, Esc stops, Alt+1 and Alt+2 vote.", file_types=["image"], file_count="multiple", elem_id="prompt",
                                        show_label=False, stop_btn=False, max_plain_text_length=20_000)
        with gr.Row(elem_classes="tight", elem_id="votes"):
            self.votes = {choice: gr.Button(choice if len(choice) > 1 else f"{choice} is better", interactive=False, visible=choice not in "CD", size="sm", elem_id=f"vote-{TAGS[choice]}")
                          for choice in VOTES}
            self.stop = gr.Button("Stop all", size="sm", elem_id="stop")
            self.clear = gr.Button("Clear", size="sm", elem_id="clear")
        self.note = gr.Markdown(elem_id="note")
        gr.Examples(self.room.examples(), self.box, label="A question of each kind", cache_examples=False, elem_id="examples", examples_per_page=12)
        with gr.Row():
            self.count = gr.Radio([2, 3, 4], value=2, label="Models side by side", elem_id="count")
            self.secret = gr.Checkbox(label="Blind: names are hidden until the vote", elem_id="blind")
            self.reason = gr.Textbox(label="Reason for the vote", elem_id="reason", lines=1, max_length=2000)
        self.lay_out_folded()

    def lay_out_folded(self) -> None:
        with gr.Accordion("A prepared dialog, run on all", open=False, elem_id="script-box"):
            self.script = gr.Dropdown(list(SCRIPTS), label="Dialog", elem_id="script", value=next(iter(SCRIPTS)))
            self.lines = gr.Textbox("\n".join(next(iter(SCRIPTS.values()))), label="Its questions, one a line; about the picture in the box, or the last one shown", lines=4, max_length=10_000, elem_id="script-lines")
            self.run = gr.Button("Run on all", elem_id="run-script", variant="primary")
        with gr.Accordion("Difference between the answers", open=False, elem_id="difference-box"):
            self.diff = gr.HTML(elem_id="difference")
        with gr.Accordion("The picture and its COCO objects", open=False, elem_id="objects-box"):
            self.objects = gr.AnnotatedImage(elem_id="objects", height=320, label="objects")
            self.show = gr.Button("Show the objects", size="sm", elem_id="show-objects")
        with gr.Accordion("Generation", open=False, elem_id="generation-box"):
            self.settings = [gr.Slider(0, 2, 0, step=0.1, label="temperature", elem_id="temperature"), gr.Slider(0.05, 1, 1, step=0.05, label="top p", elem_id="top-p"),
                             gr.Slider(1, 1024, 256, step=1, label="most tokens", elem_id="most-tokens")]
        with gr.Accordion("Replay, open a log, take away, link", open=False, elem_id="away-box"):
            with gr.Row():
                self.again = gr.Dropdown(self.names, label="Replay A's dialog on side B with", elem_id="replay-model")
                self.replay = gr.Button("Replay", elem_id="replay")
            with gr.Row():
                self.upload = gr.File(label="A FastChat or LLaVA conversation log, or comparison.json", file_types=[".json", ".jsonl"], elem_id="log", height=110)
                self.found, self.told = gr.Dropdown([], label="Its dialogs", elem_id="log-dialogs"), gr.State([])
            with gr.Row():
                self.take, self.files = gr.Button("Export", elem_id="export"), gr.Files(elem_id="files", label="JSON, Markdown, and a dataset for cocoift build", height=110)
            with gr.Row():
                self.save, self.link = gr.Button("Save and link", elem_id="save"), gr.Textbox(label="Link", elem_id="link", interactive=False)

    # What happens

    def wire(self) -> None:
        self.shaped = [*self.columns, self.votes["C"], self.votes["D"]]
        self.settled = [*self.states, self.many], [self.box, self.diff, *self.votes.values()]
        asking = [*self.states, self.pictures, self.blind, *self.models, self.many]
        asked = [*self.states, self.pictures, *self.panes]
        self.speak_after(self.box.submit(self.begin, [self.box, *asking], [self.box, *asked], **QUIET))
        self.speak_after(self.run.click(self.play, [self.lines, self.box, *asking], asked, **QUIET))
        self.script.input(lambda name: "\n".join(SCRIPTS.get(name, [])), self.script, self.lines, **QUIET)
        for k in range(4):
            self.wire_side(k)
        self.stop.click(self.room.stopper(SIDES), queue=False, api_visibility="private")
        for choice, button in self.votes.items():
            button.click(self.voter(choice), [*self.states, self.reason, self.blind, self.many], [self.note, self.reason, self.blind, self.secret, *self.models, *self.votes.values()], **QUIET)
        self.secret.input(self.hide_names, [self.secret, *self.models, self.many], [self.blind, *self.all, self.note], **QUIET)
        self.count.input(lambda n: n, self.count, self.many, **QUIET).then(self.shape, self.many, self.shaped, **QUIET).then(self.settle, *self.settled, **QUIET)
        self.clear.click(self.wipe, self.states, [*self.states, *self.panes, self.diff, self.note], **QUIET).then(self.settle, *self.settled, **QUIET)
        b = [self.states[1], self.panes[1], self.models[1]]
        self.speak_after(self.replay.click(self.replayed, [self.again, self.states[0], self.pictures], b, **QUIET), [1])
        self.upload.upload(self.opened, self.upload, [self.told, self.found, self.note], **QUIET).then(
            self.chosen, [self.found, self.told, self.pictures], [*self.states, *self.panes, self.many, self.count], **QUIET).then(self.shape, self.many, self.shaped, **QUIET)
        self.found.input(self.chosen, [self.found, self.told, self.pictures], [*self.states, *self.panes, self.many, self.count], **QUIET).then(self.shape, self.many, self.shaped, **QUIET)
        self.take.click(self.exported, [*self.states, self.blind, self.many], self.files, **QUIET)
        self.save.click(self.saved, [*self.states, self.blind, self.many], self.link, **QUIET).then(
            None, self.link, self.link, js="l => l ? new URL(l, location.href.split('?')[0]).href : l")
        self.show.click(self.objects_of, self.states[0], self.objects, **QUIET)
        named = """(...values) => { const q = new URLSearchParams(location.search); "abcd".split("").forEach((n, i) => i < values[4] ? q.set(n, values[i]) : q.delete(n));
            q.set("tab", "chat"); q.set("sides", values[4]); q.delete("dialog"); history.replaceState(null, "", "?" + q); }"""
        for part in (*self.models, self.count):
            part.input(None, [*self.models, self.count], None, js=named)

    def wire_side(self, k: int) -> None:
        def retry(side, known, hidden, data: gr.RetryData):
            self.room.expect(SIDES[k])
            return self.shown(side.retry(data.index // 2), known, hidden)

        def retry_last(side, known, hidden):
            if side.busy or not side.rounds:
                raise sorry("There is no finished round to ask again.")
            self.room.expect(SIDES[k])
            return self.shown(side.retry(len(side.rounds) - 1), known, hidden)

        def undo(side, known, hidden, data: gr.UndoData):
            return self.shown(side.undo(data.index // 2), known, hidden)

        def edit(side, known, hidden, data: gr.EditData):
            self.room.expect(SIDES[k])
            return self.shown(side.edit(data.index // 2, str(data.value)), known, hidden)

        here = ([self.states[k], self.pictures, self.blind], [self.states[k], self.panes[k]])
        self.speak_after(self.panes[k].retry(retry, *here, **QUIET), [k])
        self.speak_after(self.retries[k].click(retry_last, *here, **QUIET), [k])
        self.speak_after(self.panes[k].edit(edit, *here, **QUIET), [k])
        self.panes[k].undo(undo, *here, **QUIET).then(self.settle, *self.settled, **QUIET)
        self.stops[k].click(self.room.stopper(SIDES[k]), queue=False, api_visibility="private")

    def speak_after(self, event, sides=range(4)) -> None:
        "After an event each side speaks for itself: a slow one keeps no other waiting."
        for k in sides:
            event.success(self.speaking(SIDES[k]), [self.states[k], self.pictures, self.blind, *self.settings], [self.states[k], self.panes[k]], concurrency_limit=80, **QUIET).then(
                self.settle, *self.settled, **QUIET)

    @staticmethod
    def shown(side: Side, known: dict, hidden: bool) -> tuple[Side, list[dict]]:
        return side, messages(side, known, hidden)

    @staticmethod
    def shape(many: int):
        return [*(gr.update(visible=k < many) for k in range(4)), gr.update(visible=many > 2), gr.update(visible=many > 3)]

    @staticmethod
    def settle(*given):
        *sides, many = given
        sides = sides[:many]
        busy = any(side.busy for side in sides)
        done = not busy and all(side.rounds for side in sides)
        return [gr.update(interactive=not busy), differences(sides) if done else "", *[gr.update(interactive=done) for _ in VOTES]]

    def begin(self, message, *given):
        *sides, known, hidden, a, b, c, d, many = given
        request = gr.context.LocalContext.request.get(None)
        if any(side.busy for side in sides[:many]):
            raise sorry("Somebody is still answering: wait, or stop.")
        text, files = (message or {}).get("text", "").strip(), (message or {}).get("files", [])
        if not text:
            raise sorry("Write a question first; a picture alone asks nothing." if files else "Write a question first.")
        taken = dict(self.room.take(path, request) for path in files)
        known = {**known, **taken}
        asked = [Side(s.model if hidden else name, s.rounds).ask(text, list(taken)) for s, name in zip(sides[:many], (a, b, c, d))]
        self.room.expect(SIDES[:many])
        return None, *asked, *sides[many:], known, *(messages(side, known, hidden) for side in [*asked, *sides[many:]])

    def play(self, lines, message, *given):
        *sides, known, hidden, a, b, c, d, many = given
        request = gr.context.LocalContext.request.get(None)
        if any(side.busy for side in sides[:many]):
            raise sorry("Somebody is still answering: wait, or stop.")
        first, *rest = [line.strip() for line in lines.splitlines() if line.strip()] or [""]
        if not first:
            raise sorry("Write the questions first, one a line.")
        if message and message.get("files"):
            image, path = self.room.take(message["files"][0], request)
        else:
            last = next((r.images[-1] for r in reversed(sides[0].rounds) if r.images and r.images[-1] in known), next(iter(sorted(self.room.roster.pictures))))
            image, path = last, known.get(last) or self.room.roster.pictures[last]
        known = {**known, image: path}
        asked = [Side(s.model if hidden else model, script=tuple((q, ()) for q in rest[:40])).ask(first, [image]) for s, model in zip(sides[:many], (a, b, c, d))]
        self.room.expect(SIDES[:many])
        return *asked, *sides[many:], known, *(messages(side, known, hidden) for side in [*asked, *sides[many:]])

    def speaking(self, name: str):
        async def speak(side, known, hidden, temperature, top_p, tokens, request: gr.Request):
            if not side.busy:
                yield gr.skip(), gr.skip()
                return
            room = self.room
            event = room.live.setdefault((request.session_hash, name), Event())
            settings = Settings(int(tokens), float(temperature), float(top_p))
            while True:
                try:
                    speaker = await asyncio.to_thread(room.roster.speaker, side.model)
                except Exception as error:  # a checkpoint that is torn, a model that is gone: its side says so
                    why = f"{side.model} is not among the models any more" if isinstance(error, KeyError) else " ".join(str(error).split())[:300] or type(error).__name__
                    side = side.last(status="failed", why=why)
                else:
                    async for side in answer(side, speaker, room.roster.pictures | known, settings, event, room.roster.secrets()):
                        yield self.shown(side, known, hidden)
                if side.rounds[-1].status != "done" or not side.script:
                    side = Side(side.model, side.rounds)
                    break
                side, event = side.next(), Event()
                room.live[request.session_hash, name] = event
            yield self.shown(side, known, hidden)
        return speak

    def voter(self, choice: str):
        def cast(*given):
            *sides, why, hidden, many = given
            sides = dict(zip(SIDES, sides[:many]))
            self.room.log.add(*votes_of(choice, sides, why, hidden))
            told = ", ".join(f"{s.upper()} was *{defuse(side.model)}*" for s, side in sides.items())
            seen = [gr.update(visible=True, value=side.model) if side.model in self.room.roster.entries else gr.update(visible=True) for side in sides.values()]
            return [f"**Noted: {choice}.** {told}.", "", False, False, *seen, *[gr.skip()] * (4 - many), *[gr.update(interactive=False) for _ in VOTES]]
        return cast

    def hide_names(self, on, *given):
        *models, many = given
        self.room.stop(gr.context.LocalContext.request.get(None).session_hash)
        names = list(self.room.roster.entries)
        drawn = random.sample(names, many) if on and len(names) >= many else random.choices(names, k=many) if on else models[:many]
        drawn += models[many:]
        return [on, *map(Side, drawn), *[[]] * 4, *[gr.update(visible=not on) for _ in drawn], "The names are hidden: ask, then vote." if on else ""]

    def wipe(self, *sides):
        self.room.stop(gr.context.LocalContext.request.get(None).session_hash)
        return [*(Side(side.model) for side in sides), *[[]] * 4, "", ""]

    def replayed(self, model, a, known):
        if not model or not a.rounds:
            raise sorry("Choose a model, and have a dialog on side A.")
        side = a.replay(model).next()
        self.room.expect("b")
        return side, messages(side, known), model

    def opened(self, path):
        try:
            told, others = read_log(path)
        except (UserError, OSError) as error:
            raise sorry(str(error)) from None
        told = told[:500]
        names = [(f"{k}. {' and '.join(s.model for s in t.sides.values())} ({t.about})"[:120], k - 1) for k, t in enumerate(told, 1)]
        return told, gr.update(choices=names, value=0), f"{len(told):,} dialog{'s' * (len(told) != 1)} read" + (f"; {others:,} lines are something else" if others else "") + "."

    def chosen(self, number, told, known):
        if not told or number is None:
            return [gr.skip()] * 10
        sides = list(told[int(number)].sides.values())
        many = max(2, len(sides))
        sides = [*sides, *(Side(name) for name in self.first[len(sides):])]
        return [*sides, *(messages(side, known) for side in sides), many, many]

    def exported(self, *given):
        *sides, hidden, many = given
        request = gr.context.LocalContext.request.get(None)
        sides = {s: Side(f"Model {s.upper()}" if hidden else side.model, side.rounds) for s, side in zip(SIDES, sides[:many])}
        if not any(side.rounds for side in sides.values()):
            raise sorry("There is nothing to export yet: ask something first.")
        return [str(path) for path in export(sides, self.room.folder / request.session_hash / "export")]

    def saved(self, *given):
        *sides, hidden, many = given
        if hidden:
            raise sorry("Vote first: a link would tell the names.")
        id = secrets.token_urlsafe(12)
        self.room.log.add({"kind": "dialog", "id": id, "sides": plain(dict(zip(SIDES, sides[:many])))})
        return f"?tab=chat&sides={many}&dialog={id}"

    def objects_of(self, a):
        image = next((r.images[-1] for r in reversed(a.rounds) if r.images), None)
        if image not in self.room.roster.pictures:
            raise sorry("No COCO annotation of this picture is known here.")
        from cocoift.studies.objects import annotated

        try:
            return annotated(self.room.roster.world, image, self.room.roster.pictures[image])
        except (UserError, OSError, KeyError, ValueError) as error:
            raise sorry(f"The objects cannot be drawn: {error}") from None

    def arrive(self, request: gr.Request):
        told, asked = self.room.roster.refresh(), dict(request.query_params)
        names = list(self.room.roster.entries)
        sides = [Side(asked.get(s) if asked.get(s) in names else names[min(k, len(names) - 1)]) for k, s in enumerate(SIDES)]
        many = int(asked["sides"]) if asked.get("sides") in ("2", "3", "4") else 2
        if asked.get("dialog"):
            found = self.room.log.dialog(asked["dialog"])
            told = told if found else "There is no dialog under this link."
            many = max(2, len(found)) if found else many
            sides = [*found.values(), *sides[len(found):]] if found else sides
        pictures = self.room.roster.pictures
        known = {image: pictures[image] for side in sides for r in side.rounds for image in r.images if image in pictures}
        models = [gr.update(choices=names, value=side.model if side.model in names else names[min(k, len(names) - 1)]) for k, side in enumerate(sides)]
        return [*sides, *(messages(side, known) for side in sides), *models, known, many, many, defuse(told) and f"⚠ {defuse(told)}"]


def build(room: Room, where: gr.Blocks) -> None:
    "Put the chat into the page."
    Page(room, where)
