"Two models, one dialog: the page over `cocoift.chat.desk`."
import asyncio
import html
import random
import secrets
from pathlib import Path
from threading import Event

import gradio as gr

from cocoift.chat.desk import Logbook, Side, VOTES, answer, export, plain, take_picture, vote_of
from cocoift.chat.marks import defuse, difference
from cocoift.chat.speak import Settings
from cocoift.files import UserError
from cocoift.studies.roster import Roster

SIDES = "ab"
SCRIPTS = {
    "release: free, one word, free": ["Describe what you see.", "How many shapes are there? Answer with a single word.", "Describe what you see.", "What else can you tell about it?"],
    "pier": ["What can you see in this picture?", "Is this place safe? Answer with a single word.", "What can best describe your feeling? Why?"],
}


def _facts(side: Side, number: int, blind: bool) -> str:
    r, m = side.rounds[number], side.marks(number)
    told = [f"{m.words} words"] + ([] if blind or not r.seconds else [f"{r.seconds:.1f} s", f"{r.pieces / r.seconds:.0f} pieces/s"])
    told += [f"{m.format} {'✓ kept' if m.kept else '✗ not kept'}"] if m.kept is not None else []
    told += [f"▲ round {m.leaked}'s instruction leaked"] if m.leaked else []
    told += [f"standing instruction {'✓ held' if m.held else '✗ dropped'}"] if m.held is not None else []
    told += [r.status] if r.status == "stopped" else []
    return f"\n\n*{' · '.join(told)}*"


def messages(side: Side, pictures: dict[str, Path], blind: bool = False) -> list[dict]:
    "A side as the chatbot shows it: two messages a round."
    shown = []
    for number, r in enumerate(side.rounds):
        files = [{"path": str(pictures[image])} for image in r.images if image in pictures]
        shown.append({"role": "user", "content": [defuse(r.instruction), *files] if files else defuse(r.instruction)})
        if r.status == "failed":
            text = f"{defuse(r.response)}\n\n⚠ **This model failed**: {defuse(html.escape(r.why))}. Retry asks it again."
        elif r.status in ("asked", "speaking"):
            text = defuse(r.response) or "…"
        else:
            text = (defuse(r.response) or "*no answer*") + _facts(side, number, blind)
        shown.append({"role": "assistant", "content": text})
    return shown


class Room:
    "What the server knows of all sessions, each under its own key: pictures that were sent, answers that are being given."

    def __init__(self, roster: Roster, log: Logbook, folder: Path):
        self.roster, self.log, self.folder, self.known = roster, log, folder, roster.known()
        self.live: dict[tuple[str, str], Event] = {}

    def stop(self, session: str, sides: str = SIDES) -> None:
        for side in sides:
            if event := self.live.get((session, side)):
                event.set()

    def leave(self, session: str, pictures: dict[str, Path]) -> None:
        self.stop(session)
        for path in pictures.values():
            if path.is_relative_to(self.folder):
                path.unlink(missing_ok=True)


def build(room: Room, where: gr.Blocks) -> None:
    "Put the chat into the page."
    names = list(room.roster.entries)
    pick = [names[0], names[min(1, len(names) - 1)]]
    states, chats, models, retries, stops = {}, {}, {}, {}, {}
    pictures, blind = gr.State({}), gr.State(False)
    dialog = gr.State("")
    with gr.Row(elem_id="sides"):
        for side, name in zip(SIDES, pick):
            with gr.Column(min_width=280):
                models[side] = gr.Dropdown(names, value=name, label=f"Model {side.upper()}", elem_id=f"model-{side}")
                chats[side] = gr.Chatbot(label=side.upper(), height=420, elem_id=f"chat-{side}", editable="user", buttons=["copy", "copy_all"], allow_tags=False,
                                         placeholder="Choose two models, ask both the same, and watch whether an instruction outlives its round.")
                states[side] = gr.State(Side(name))
                with gr.Row():
                    stops[side] = gr.Button(f"Stop {side.upper()}", size="sm", elem_id=f"stop-{side}")
                    retries[side] = gr.Button(f"Retry {side.upper()}", size="sm", elem_id=f"retry-{side}")
    box = gr.MultimodalTextbox(placeholder="Ask both. Enter sends, Esc stops, Alt+1 and Alt+2 vote.", file_types=["image"], file_count="multiple", elem_id="prompt",
                               show_label=False, stop_btn=False, max_plain_text_length=20_000)
    with gr.Row():
        votes = {choice: gr.Button(choice if len(choice) > 1 else f"{choice} is better", interactive=False, size="sm", elem_id=f"vote-{tag}")
                 for choice, tag in zip(VOTES, ("a", "b", "tie", "bad"))}
        stop = gr.Button("Stop both", size="sm", elem_id="stop")
        clear = gr.Button("Clear", size="sm", elem_id="clear")
    reason = gr.Textbox(label="Reason for the vote", elem_id="reason", lines=1, max_length=2000)
    note = gr.Markdown(elem_id="note")
    with gr.Row():
        script = gr.Dropdown(list(SCRIPTS), label="A prepared dialog", elem_id="script")
        run = gr.Button("Run on both", elem_id="run-script")
        secret = gr.Checkbox(label="Blind: names are hidden until the vote", elem_id="blind")
    with gr.Accordion("Difference between the two answers", open=False, elem_id="difference-box"):
        diff = gr.HTML(elem_id="difference")
    with gr.Accordion("The picture and its COCO objects", open=False):
        objects = gr.AnnotatedImage(elem_id="objects", height=320, label="objects")
        show = gr.Button("Show the objects", size="sm", elem_id="show-objects")
    with gr.Accordion("Generation", open=False):
        heat = gr.Slider(0, 2, 0, step=0.1, label="temperature", elem_id="temperature")
        nucleus = gr.Slider(0.05, 1, 1, step=0.05, label="top p")
        most = gr.Slider(1, 1024, 256, step=1, label="most tokens")
    with gr.Accordion("Replay, take away, link", open=False):
        again = gr.Dropdown(names, label="Replay A's dialog on side B with", elem_id="replay-model")
        replay = gr.Button("Replay", elem_id="replay")
        take, files = gr.Button("Export", elem_id="export"), gr.Files(elem_id="files", label="JSON, Markdown, LLaVA layout")
        save, link = gr.Button("Save and link", elem_id="save"), gr.Textbox(label="Link", elem_id="link", interactive=False)
    shown = [[{"text": question, "files": [str(path)]}] for question, (_, path) in zip(
        ["What shape is in the center?", "How many shapes are there? Answer with a single word.", "Describe what you see.", "List two things that you see."], sorted(room.roster.pictures.items()))]
    gr.Examples(shown, box, label="Pictures to begin with", cache_examples=False)

    both = [states[s] for s in SIDES]
    panes = [chats[s] for s in SIDES]

    def draw(a, b, known, hidden):
        return messages(a, known, hidden), messages(b, known, hidden)

    def begin(message, a, b, known, hidden, model_a, model_b, request: gr.Request):
        text = (message or {}).get("text", "").strip()
        if a.busy or b.busy:
            raise gr.Error("Somebody is still answering: wait, or stop.", print_exception=False)
        known, taken = dict(known), []
        for path in (message or {}).get("files", []):
            try:
                image, clean = take_picture(path, room.folder / request.session_hash, room.known)
            except UserError as error:
                raise gr.Error(str(error), print_exception=False) from None
            known[image], taken = clean, [*taken, image]
        if not text:
            raise gr.Error("Write a question first; a picture alone asks nothing.", print_exception=False)
        a, b = (Side(s.model if hidden else name, s.rounds).ask(text, taken) for s, name in ((a, model_a), (b, model_b)))
        return None, a, b, known, *draw(a, b, known, hidden)

    def speaking(name):
        async def speak(side, known, hidden, temperature, top_p, tokens, request: gr.Request):
            if not side.busy:
                yield side, messages(side, known, hidden)
                return
            event = room.live[request.session_hash, name] = Event()
            settings = Settings(int(tokens), float(temperature), float(top_p))
            while True:
                if side.rounds[-1:] and side.rounds[-1].status == "asked":
                    try:
                        speaker = await asyncio.to_thread(room.roster.speaker, side.model)
                    except (UserError, OSError, KeyError) as error:
                        side = side.last(status="failed", why=str(error))
                    else:
                        async for side in answer(side, speaker, room.roster.pictures | known, settings, event):
                            yield side, messages(side, known, hidden)
                if event.is_set() and side.rounds[-1].status != "done" or not side.script:
                    side = Side(side.model, side.rounds)
                    break
                side, event = side.next(), Event()
                room.live[request.session_hash, name] = event
            yield side, messages(side, known, hidden)
        return speak

    def settled(a, b):
        done = bool(a.rounds and b.rounds) and not a.busy and not b.busy
        words = difference(a.rounds[-1].response, b.rounds[-1].response) if done else ""
        return [gr.update(interactive=not (a.busy or b.busy)), words, *[gr.update(interactive=done) for _ in VOTES]]

    after = ([*both], [box, diff, *votes.values()])

    def then_speak(event, sides=SIDES):
        for s in sides:
            event.then(speaking(s), [states[s], pictures, blind, heat, nucleus, most], [states[s], chats[s]], concurrency_limit=40, show_progress="hidden",
                       api_visibility="private").then(settled, *after, show_progress="hidden", api_visibility="private")

    busy = dict(show_progress="hidden", api_visibility="private")
    sent = box.submit(begin, [box, *both, pictures, blind, *[models[s] for s in SIDES]], [box, *both, pictures, *panes], **busy)
    then_speak(sent)

    for s in SIDES:
        def retry(side, known, hidden, data: gr.RetryData):
            side = side.retry(data.index // 2)
            return side, messages(side, known, hidden)

        def retry_last(side, known, hidden):
            if side.busy or not side.rounds:
                raise gr.Error("There is no finished round to ask again.", print_exception=False)
            side = side.retry(len(side.rounds) - 1)
            return side, messages(side, known, hidden)

        def undo(side, known, hidden, data: gr.UndoData):
            side = side.undo(data.index // 2)
            return side, messages(side, known, hidden)

        def edit(side, known, hidden, data: gr.EditData):
            side = side.edit(data.index // 2, str(data.value))
            return side, messages(side, known, hidden)

        here = ([states[s], pictures, blind], [states[s], chats[s]])
        then_speak(chats[s].retry(retry, *here, **busy), s)
        then_speak(retries[s].click(retry_last, *here, **busy), s)
        then_speak(chats[s].edit(edit, *here, **busy), s)
        chats[s].undo(undo, *here, **busy).then(settled, *after, **busy)
        stops[s].click(_stopper(room, s), queue=False, api_visibility="private")
    stop.click(_stopper(room, SIDES), queue=False, api_visibility="private")

    def vote(choice):
        def cast(a, b, why, hidden):
            room.log.add(vote_of(choice, {"a": a, "b": b}, why, hidden))
            told = f"**Noted: {choice}.** A was *{defuse(a.model)}*, B was *{defuse(b.model)}*."
            return [told, "", False, False, gr.update(visible=True, value=a.model), gr.update(visible=True, value=b.model), *[gr.update(interactive=False) for _ in VOTES]]
        return cast

    for choice, button in votes.items():
        button.click(vote(choice), [*both, reason, blind], [note, reason, blind, secret, *[models[s] for s in SIDES], *votes.values()], **busy)

    def hide_names(on, model_a, model_b, request: gr.Request):
        room.stop(request.session_hash)
        drawn = random.sample(names, 2) if on and len(names) > 1 else [model_a, model_b]
        return [on, Side(drawn[0]), Side(drawn[1]), [], [], *[gr.update(visible=not on, value=model) if not on else gr.update(visible=False) for model in drawn],
                "The names are hidden: ask, then vote." if on else ""]

    secret.input(hide_names, [secret, *[models[s] for s in SIDES]], [blind, *both, *panes, *[models[s] for s in SIDES], note], **busy)

    def wipe(a, b, request: gr.Request):
        room.stop(request.session_hash)
        return [Side(a.model), Side(b.model), [], [], ""]

    clear.click(wipe, both, [*both, *panes, diff], **busy).then(settled, *after, **busy)

    def play(name, message, a, b, known, hidden, model_a, model_b, request: gr.Request):
        if not name:
            raise gr.Error("Choose a dialog first.", print_exception=False)
        if a.busy or b.busy:
            raise gr.Error("Somebody is still answering: wait, or stop.", print_exception=False)
        image = next(iter(sorted(room.roster.pictures)))
        if message and message.get("files"):
            image, clean = take_picture(message["files"][0], room.folder / request.session_hash, room.known)
            known = {**known, image: clean}
        known = {**known, image: known.get(image, room.roster.pictures.get(image))}
        first, *rest = SCRIPTS[name]
        a, b = (Side(s.model if hidden else model, script=tuple((q, ()) for q in rest)).ask(first, [image]) for s, model in ((a, model_a), (b, model_b)))
        return a, b, known, *draw(a, b, known, hidden)

    then_speak(run.click(play, [script, box, *both, pictures, blind, *[models[s] for s in SIDES]], [*both, pictures, *panes], **busy))

    def replayed(model, a, known):
        if not model or not a.rounds:
            raise gr.Error("Choose a model, and have a dialog on side A.", print_exception=False)
        side = a.replay(model).next()
        return side, messages(side, known), model

    then_speak(replay.click(replayed, [again, states["a"], pictures], [states["b"], chats["b"], models["b"]], **busy), "b")

    def exported(a, b, hidden, request: gr.Request):
        sides = {"a": a, "b": b}
        if hidden:
            sides = {s: Side(f"Model {s.upper()}", side.rounds) for s, side in sides.items()}
        return [str(path) for path in export(sides, room.folder / request.session_hash / "export")]

    take.click(exported, [*both, blind], files, **busy)

    def saved(a, b, hidden, request: gr.Request):
        if hidden:
            raise gr.Error("Vote first: a link would tell the names.", print_exception=False)
        id = secrets.token_urlsafe(12)
        room.log.add({"kind": "dialog", "id": id, "sides": plain({"a": a, "b": b})})
        return f"?tab=chat&dialog={id}"

    save.click(saved, [*both, blind], link, js="(a, b, h) => [a, b, h]", **busy).then(None, link, link, js="l => l ? new URL(l, location.href.split('?')[0]).href : l")

    def objects_of(a):
        image = next((r.images[-1] for r in reversed(a.rounds) if r.images), None)
        if image not in room.roster.pictures:
            raise gr.Error("No COCO annotation of this picture is known here.", print_exception=False)
        from cocoift.studies.objects import annotated

        return annotated(room.roster.world, image, room.roster.pictures[image])

    show.click(objects_of, states["a"], objects, **busy)

    def arrive(request: gr.Request):
        asked = dict(request.query_params)
        a, b = (asked.get(s) if asked.get(s) in names else name for s, name in zip(SIDES, pick))
        sides = {"a": Side(a), "b": Side(b)}
        told = ""
        if asked.get("dialog"):
            found = room.log.dialog(asked["dialog"])
            told = "" if found else "There is no dialog under this link."
            sides = found or sides
        known = {image: path for side in sides.values() for r in side.rounds for image in r.images if (path := room.roster.pictures.get(image))}
        return [sides["a"], sides["b"], known, *draw(sides["a"], sides["b"], known, False), sides["a"].model, sides["b"].model, told]

    where.load(arrive, None, [*both, pictures, *panes, *[models[s] for s in SIDES], note], **busy).then(settled, *after, **busy)

    def left(request: gr.Request):
        room.stop(request.session_hash)
        import shutil

        shutil.rmtree(room.folder / str(request.session_hash), ignore_errors=True)

    where.unload(left)


def _stopper(room: Room, sides: str):
    def stop(request: gr.Request):
        room.stop(request.session_hash, sides)
    return stop
