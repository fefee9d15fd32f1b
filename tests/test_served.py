"A model behind a real server: pictures, several rounds, streaming, and the answers that the checkpoint gives here."
import json
import threading

import pytest

from cocoift.chat.ask import Ask, play
from cocoift.chat.endpoint.cache import Cache
from cocoift.chat.endpoint.engine import Engine, ask_all
from cocoift.chat.endpoint.request import Request
from cocoift.chat.endpoint.server import ServerChat, ServerSpeaker
from cocoift.chat.speak import Said, Settings
from cocoift.files import UserError
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


def test_the_engine_pays_once_and_tells_what_is_wrong(both, served, tmp_path):
    local, server, images = both
    requests = [server.request(Ask(image, (), f"What is in the middle, {k}?")) for image in images[:2] for k in range(3)]
    first = Engine(served.url, Cache(tmp_path / "answers.sqlite"), server.gallery, concurrency=3, run="r", role="label")
    answers = ask_all(first, requests)
    assert [a.status for a in answers] == ["ok"] * 6 and first.counts["requests"] == first.counts["seen"] == 6
    assert all(a.tokens[0] > 0 and 0 < a.tokens[1] <= 12 for a in answers)
    again = Engine(served.url, Cache(tmp_path / "answers.sqlite"), server.gallery)
    assert [a.text for a in ask_all(again, requests)] == [a.text for a in answers] and again.counts["requests"] == 0
    with pytest.raises(UserError, match=f"{served.url}: has no model no-such/model, or nothing lies at this address"):
        ask_all(Engine(served.url), [Request("no-such/model", [{"role": "user", "content": "Who?"}])])
    with pytest.raises(UserError, match="/v2: has no model .* or nothing lies at this address"):
        ask_all(Engine(served.url.replace("/v1", "/v2")), [Request(str(served.model), [{"role": "user", "content": "Who?"}])])
