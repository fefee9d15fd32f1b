"""Twenty people at once and a slow model: nobody waits for somebody else, and nobody loses or sees another's dialog. As
the page speaks with the server, without twenty browsers."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

PEOPLE, ROUNDS = 20, 2


class Visitor:
    "One page: its session, and the chain of events that a question sets off."

    def __init__(self, url: str, config: dict, name: str):
        self.url, self.name, self.session = url, name, f"visitor-{name}"
        place = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        after = {}
        for event in config["dependencies"]:
            after.setdefault(event.get("trigger_after"), []).append(event)
        self.ask = next(
            event
            for event in config["dependencies"]
            if event["targets"] and list(event["targets"][0]) == [place["prompt"], "submit"]
        )
        self.speak = [event for event in after[self.ask["id"]]][:2]  # sides A and B
        self.panes = [place["chat-a"], place["chat-b"]]
        self.parts = {part["id"]: part for part in config["components"]}

    def join(self, event: dict, given: dict) -> str:
        data = [
            given.get(self.parts[number]["props"].get("elem_id")) if self.parts[number]["type"] != "state" else None
            for number in event["inputs"]
        ]
        body = {
            "data": data,
            "fn_index": event["id"],
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        request = urllib.request.Request(
            f"{self.url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return json.loads(urllib.request.urlopen(request, timeout=120).read())["event_id"]

    def hear(
        self, waiting: set[str]
    ) -> tuple[dict[str, list], dict[str, float]]:  # event -> its last output, and when its first piece came
        told, first, began = {}, {}, time.time()
        with urllib.request.urlopen(
            f"{self.url}gradio_api/queue/data?session_hash={self.session}", timeout=120
        ) as stream:
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                event = message.get("event_id")
                if message["msg"] == "process_generating":
                    first.setdefault(event, time.time() - began)
                if message["msg"] == "process_completed":
                    assert message["success"], message
                    told[event] = message["output"]["data"]
                if waiting <= told.keys():
                    return told, first
        raise AssertionError(f"{self.name}: the stream ended before {waiting - told.keys()}")

    def question(
        self, number: int
    ) -> tuple[list[list[dict]], float]:  # both sides' messages, seconds to the quick side's first piece
        given = {
            "prompt": {"text": f"Secret of {self.name}, round {number}?", "files": []},
            "model-a": "slow",
            "model-b": "echo",
            "model-c": "quick",
            "model-d": "quick",
            **{
                f"{name}-{s}": value
                for s in "abcd"
                for name, value in (("temperature", 0), ("most-tokens", 64), ("top-p", 1))
            },
        }
        self.hear({self.join(self.ask, given)})
        events = [self.join(event, given) for event in self.speak]
        told, first = self.hear(set(events))
        return [told[event][1] for event in events], first.get(events[1], 0.0)


def said(messages: list[dict]) -> str:
    return json.dumps(messages)


@pytest.mark.slow
def test_twenty_people_and_a_slow_model(url):
    config = json.loads(urllib.request.urlopen(f"{url}config", timeout=60).read())
    people = [Visitor(url, config, f"person-{k:02d}-x") for k in range(PEOPLE)]
    waits, looks = [], []

    def talk(visitor: Visitor) -> list[str]:
        sides = []
        for number in range(1, ROUNDS + 1):
            sides, waited = visitor.question(number)
            waits.append(waited)
        return [said(side) for side in sides]

    with ThreadPoolExecutor(PEOPLE) as pool:
        talks = [pool.submit(talk, visitor) for visitor in people]
        while not all(one.done() for one in talks):
            began = time.time()
            urllib.request.urlopen(url, timeout=60).read()
            looks.append(time.time() - began)
            time.sleep(0.5)
        heard = [one.result() for one in talks]
    for visitor, (slow, quick) in zip(people, heard):
        for number in range(1, ROUNDS + 1):
            # asked, and echoed
            assert (
                slow.count(f"Secret of {visitor.name}, round {number}?") == 1
                and quick.count(f"Secret of {visitor.name}, round {number}?") == 2
            )
        assert not any(other.name in slow + quick for other in people if other is not visitor)
    print(
        f"{PEOPLE} people: first piece of the quick side after {sorted(waits)[len(waits) // 2]:.1f} s (median), "
        f"{max(waits):.1f} s (most); page served in at most {max(looks):.1f} s"
    )
    assert max(waits) < 20 and max(looks) < 20
