"A model behind a real server: pictures, several rounds, streaming, and the answers that the checkpoint gives here."
import json
import threading

import pytest

from cocoift.chat.ask import Ask, play
from cocoift.chat.endpoint.server import ServerChat, ServerSpeaker
from cocoift.chat.speak import Said, Settings
from cocoift.images import find_pictures


@pytest.fixture(scope="module")
def both(served, small):
    from cocoift.chat.local import LocalChat

    pictures = find_pictures(small / "exam")
    return LocalChat(served.model, small / "exam", most_tokens=12), ServerChat(served.name, pictures, most_tokens=12), sorted(pictures)


def test_it_says_what_the_checkpoint_says(both):
    local, server, images = both
    told = ("How many shapes are there?", "There are four.")
    asks = [Ask(image, turns, "What is in the middle?") for image in images[:3] for turns in ((), (told,), (told, told))] + [Ask(None, (), "What is in the middle?")]
    answers = server.answer(asks)
    assert answers == local.answer(asks)
    assert len(set(answers)) > 3  # of pictures and rounds that differ


def test_own_answers_go_into_the_next_round(both):
    local, server, images = both
    asked = ["What is this?", "And to its left?", "Is there a star?"]
    assert play(server, images[1], asked) == play(local, images[1], asked)


def test_it_streams(both, served, small):
    local, server, images = both
    rounds = [Said("What is this?", "A star.", (images[0],)), Said("And to its left?")]
    pieces = list(ServerSpeaker(served.name).say(rounds, find_pictures(small / "exam"), Settings(most_tokens=12), threading.Event()))
    assert len(pieces) > 3
    assert "".join(pieces).strip() == local.answer([Ask(images[0], (("What is this?", "A star."),), "And to its left?")])[0]
