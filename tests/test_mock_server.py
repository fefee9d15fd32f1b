"The scripted server of the other tests: it answers, cuts, refuses, streams and keeps its books."

import json
import urllib.error
import urllib.request

import pytest
from mock_server import Faults, MockServer


def post(url: str, **body) -> bytes:
    body = {"model": "any", "messages": [{"role": "user", "content": "Is this pier safe to walk on?"}], **body}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request).read()


def test_it_answers_within_the_length_and_counts():
    server = MockServer()
    with server as url:
        choice = json.loads(post(url, max_tokens=3))["choices"][0]
        books = json.load(urllib.request.urlopen(url))
    assert choice["message"]["content"] == "Is this pier" and choice["finish_reason"] == "length"
    assert server.counts == {"requests": 1, "answers": 1}
    assert books == {"counts": server.counts, "answered": 1, "doubled": 0}


def test_it_refuses():
    with MockServer(faults=Faults(refuse=1.0)) as url, pytest.raises(urllib.error.HTTPError) as refused:
        post(url)
    assert (refused.value.code, refused.value.headers["Retry-After"]) == (429, "0.05")


def test_it_streams_and_runs_again():
    server = MockServer(lambda body: "Two boats.")
    for _ in range(2):
        with server as url:
            lines = post(url, stream=True).decode().split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "Two boats."
    assert server.counts["answers"] == 2 and set(server.answered.values()) == {2}
