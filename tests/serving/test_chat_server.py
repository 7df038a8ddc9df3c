"""The server: OpenAI's forms, its bounds, and its end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from served import post, serving, wait_inside

from sdar.errors import RunFailed, UserError
from sdar.rollout.settings import SamplingConfig
from sdar.serving.chat import Answer, ChatModel
from sdar.serving.messages import Said
from sdar.serving.server import ChatServer, listen
from toys.training import toy_policy
from toys.waiting import PATIENCE_S, until

DEFAULTS = SamplingConfig(temperature=1.0, max_response_tokens=6)


class Scripted:
    """A model whose answers are scripted: ``pieces`` makes those of one, and may wait or raise."""

    policy = SimpleNamespace(context_tokens=100)
    defaults = DEFAULTS

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces
        self.asked: list[str] = []

    def answer(self, request: Any) -> Answer:
        self.asked.append(request.told[-1].text)
        answer = Answer(prompt_tokens=3)

        def steps() -> Iterator[str]:
            for piece in self.pieces(request):
                answer.ids.append(1)
                answer.text += piece
                yield piece
            answer.said = Said(answer.text)
            answer.finish_reason = "stop"

        answer.pieces = steps()
        return answer


def events(reply: urllib3.BaseHTTPResponse) -> list[Any]:
    """The values of server-sent events, up to the word that ends them."""
    lines = reply.data.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [line if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with serving(ChatModel(toy_policy(), DEFAULTS), max_bytes=2000) as made:
        yield made


def test_models_are_listed(server: ChatServer) -> None:
    listed = urllib3.request("GET", f"{server.url}/models").json()
    (card,) = listed["data"]
    assert (listed["object"], card["id"], card["object"], card["max_model_len"]) == ("list", "toy", "model", 256)
    assert urllib3.request("GET", f"{server.url}/models/toy").json() == card
    assert urllib3.request("GET", f"{server.url}/models/other").json()["error"]["code"] == "model_not_found"


def test_a_completion_has_openais_form(server: ChatServer) -> None:
    reply = post(server, messages="hello", seed=1, temperature=0)
    assert reply.status == 200
    record = reply.json()
    assert record["object"] == "chat.completion"
    assert record["model"] == "toy"
    assert record["id"].startswith("chatcmpl-")
    (choice,) = record["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in ("stop", "length")
    usage = record["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 1 <= usage["completion_tokens"] <= 6


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_says_the_same_piece_by_piece(server: ChatServer, seed: int) -> None:
    asked = {"messages": "hello", "seed": seed}
    plain = post(server, **asked).json()
    reply = post(server, **asked, stream=True, stream_options={"include_usage": True})
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    *chunks, last, done = events(reply)
    assert done == "data: [DONE]"
    assert (last["choices"], last["usage"]) == ([], plain["usage"])
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == plain["choices"][0]["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [plain["choices"][0]["finish_reason"]]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert "usage" not in events(post(server, **asked, stream=True))[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_value"),
        ({"max_tokens": 1000}, 400, "context_length_exceeded"),
        ({"stop": "x"}, 400, "unsupported_parameter"),
        ({"messages": "x" * 2000}, 413, "request_too_large"),
    ],
    ids=["model", "messages", "length", "stop", "size"],
)
def test_a_mistake_has_its_status_also_in_a_stream(
    server: ChatServer, fields: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    reply = post(server, **{"messages": "hello", **fields}, stream=stream)
    error = reply.json()["error"]
    assert (reply.status, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}


def test_a_body_without_a_length_is_bounded_too(server: ChatServer) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    connection.request("POST", "/v1/chat/completions", body=iter([b"x" * 1500, b"x" * 1500]), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2", 404), ("GET", "/v1/chat/completions", 405)])
def test_other_places_are_refused_in_the_same_form(server: ChatServer, method: str, path: str, status: int) -> None:
    reply = urllib3.request(method, server.url.removesuffix("/v1") + path)
    assert reply.status == status
    assert "POST /v1/chat/completions" in reply.json()["error"]["message"]


def test_one_is_answered_at_a_time_a_few_wait_and_the_rest_are_told_so() -> None:
    goes_on = threading.Event()
    running: list[int] = []
    most: list[int] = []

    def pieces(request: Any) -> Iterator[str]:
        running.append(1)
        most.append(len(running))
        assert goes_on.wait(PATIENCE_S)
        yield request.told[-1].text
        running.pop()

    model = Scripted(pieces)
    with serving(model, max_waiting=2) as server:
        replies: dict[str, Any] = {}

        def ask(name: str) -> None:
            replies[name] = post(server, messages=name)

        threads = []
        for name in "abc":  # in this order
            threads.append(threading.Thread(target=ask, args=(name,)))
            threads[-1].start()
            wait_inside(server, len(threads))
        refused = post(server, messages="d")
        error = refused.json()["error"]
        assert (refused.status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "1"
        goes_on.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert {name: reply.json()["choices"][0]["message"]["content"] for name, reply in replies.items()} == {
            "a": "a", "b": "b", "c": "c"
        }  # fmt: skip
        assert model.asked == ["a", "b", "c"]
        assert max(most) == 1
        assert post(server, messages="e").status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_is_not_answered_any_further(stream: bool) -> None:
    """Otherwise a client that gave up would keep all others waiting."""
    begun = threading.Event()

    def pieces(request: Any) -> Iterator[str]:
        while request.told[-1].text == "forever":
            begun.set()
            time.sleep(0.01)
            yield "x"
        yield "done"

    with serving(Scripted(pieces)) as server:
        parts = urlsplit(server.url)
        leaving = socket.create_connection((parts.hostname, parts.port))
        messages = [{"role": "user", "content": "forever"}]
        body = json.dumps({"model": "toy", "messages": messages, "stream": stream}).encode()
        leaving.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        leaving.sendall(body)
        assert begun.wait(PATIENCE_S)
        leaving.close()
        assert post(server, messages="hello").json()["choices"][0]["message"]["content"] == "done"


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_waiting_gives_the_place_up_and_the_others_keep_their_order(stream: bool) -> None:
    goes_on = threading.Event()

    def pieces(request: Any) -> Iterator[str]:
        assert goes_on.wait(PATIENCE_S)
        yield request.told[-1].text

    model = Scripted(pieces)
    with serving(model, max_waiting=3) as server:
        replies: dict[str, Any] = {}

        def ask(name: str) -> threading.Thread:
            thread = threading.Thread(target=lambda: replies.update({name: post(server, messages=name)}))
            thread.start()
            wait_inside(server, len(threads) + 1)
            return thread

        def ask_and_leave() -> socket.socket:
            messages = [{"role": "user", "content": "left"}]
            body = json.dumps({"model": "toy", "stream": stream, "messages": messages}).encode()
            return started(server, body, len(body))

        threads: list[threading.Thread] = []
        threads.append(ask("a"))
        for waiting in ("b", "c"):
            leaving = [ask_and_leave() for _ in range(4 - len(threads))]
            wait_inside(server, 4)
            for connection in leaving:
                connection.close()
            wait_inside(server, len(threads))
            threads.append(ask(waiting))
        threads.append(ask("d"))
        assert post(server, messages="e").status == 429  # a is answered, b, c and d wait
        goes_on.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert {name: reply.status for name, reply in replies.items()} == dict.fromkeys("abcd", 200)
        assert model.asked == ["a", "b", "c", "d"]
        assert post(server, messages="f").status == 200


def test_any_who_leave_at_any_time_leave_the_turn_free() -> None:
    """Many leave around the moment at which they would be answered."""
    with serving(Scripted(lambda _: iter(["x", "y"])), max_waiting=100) as server:
        body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "left"}]}).encode()
        for number in range(60):
            connection = started(server, body, len(body))
            time.sleep(number % 6 * 0.001)
            connection.close()
        assert [post(server, messages="hello").status for _ in range(3)] == [200] * 3


def started(server: ChatServer, body: bytes, length: int) -> socket.socket:
    """A connection over which the beginning of a request was sent."""
    place = urlsplit(server.url)
    assert place.hostname is not None
    connection = socket.create_connection((place.hostname, place.port or 0), timeout=PATIENCE_S)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_who_sends_slowly_keeps_nobody_out_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Scripted(lambda _: iter(["hi"])), max_waiting=0) as server:
        slow = [started(server, b"{", 100) for _ in range(3)]
        until(lambda: server.service.reading == 3)
        assert post(server, messages="hello").status == 200
        for connection in slow:
            connection.close()
        # Not before: whoever is in time has to be so within this, too.
        monkeypatch.setattr("sdar.serving.app.REQUEST_S", 0.2)
        with started(server, b"{", 100) as given_up:
            assert b" 408 " in given_up.recv(4096)


def test_more_than_is_to_be_held_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdar.serving.app.MAX_READING", 1000)
    with serving(Scripted(lambda _: iter(["hi"])), max_bytes=800) as server:
        with started(server, b" " * 700, 750):
            until(lambda: server.service.reading == 700)  # or the first would be the one that is too much
            with started(server, b" " * 700, 750) as second:
                assert b" 429 " in second.recv(4096)
        assert post(server, messages="hello").status == 200


def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def pieces(request: Any) -> Iterator[str]:
        begun.set()
        assert goes_on.wait(PATIENCE_S)
        while request.told[-1].text == "forever":
            yield "x" * 100_000
        yield "hi"

    body = json.dumps({"model": "toy", "stream": True, "messages": [{"role": "user", "content": "forever"}]}).encode()
    replies: list[Any] = []
    with serving(Scripted(pieces)) as server, started(server, body, len(body)):
        assert begun.wait(PATIENCE_S)
        waiting = threading.Thread(target=lambda: replies.append(post(server, messages="hello")))
        waiting.start()
        wait_inside(server, 2)
        # Not before: the other request would have to be sent within this, too.
        monkeypatch.setattr("sdar.serving.app.REQUEST_S", 0.2)
        goes_on.set()
        waiting.join(PATIENCE_S)
    assert replies[0].json()["choices"][0]["message"]["content"] == "hi"


def test_the_end_does_not_wait_for_an_answer() -> None:
    begun = threading.Event()

    def pieces(_: Any) -> Iterator[str]:
        while True:
            begun.set()
            time.sleep(0.01)
            yield "x"

    replies: list[Any] = []
    with serving(Scripted(pieces)) as server:
        threads = [
            threading.Thread(target=lambda: replies.append(post(server, messages="hello"))),
            threading.Thread(target=lambda: replies.append(post(server, messages="hello", stream=True))),
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(PATIENCE_S)
        wait_inside(server, 2)
        server.stop()
        for thread in threads:
            thread.join(PATIENCE_S)  # the answer has no end of its own
    # The one that was being streamed ends with an error event, the others with a status.
    codes = [
        reply.json()["error"]["code"] if reply.status == 503 else events(reply)[-1]["error"]["code"]
        for reply in replies
    ]
    assert codes == ["server_ending"] * 2


def test_what_fails_is_told_and_the_next_is_answered() -> None:
    def pieces(request: Any) -> Iterator[str]:
        if request.told[-1].text != "hello":
            yield "well"
            raise {"weights": RunFailed("the policy's logits are not finite"), "defect": KeyError("x")}[
                request.told[-1].text
            ]
        yield "hi"

    with serving(Scripted(pieces)) as server:
        failed = post(server, messages="weights")
        assert (failed.status, failed.json()["error"]["type"]) == (500, "server_error")
        assert "not finite" in failed.json()["error"]["message"]
        assert "KeyError" in post(server, messages="defect").json()["error"]["message"]
        *_, last = events(post(server, messages="weights", stream=True))
        assert last["error"]["code"] == "generation_failed"
        assert post(server, messages="hello").status == 200


def test_an_address_that_is_taken_is_a_mistake() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on host=127\.0\.0\.1 port={port}"):
            listen("127.0.0.1", port)
