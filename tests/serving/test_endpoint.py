"""The client: failures have a kind, attempts are bounded, and the key is nobody's business."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from fake_endpoint import Reply, completion, endpoint_of, plain, refusal

from sdar.errors import UserError
from sdar.evaluation.chat_wire import ConversationTooLongError, EndpointError, Failure
from sdar.evaluation.endpoint import Endpoint, EndpointSettings
from sdar.rollout.settings import SamplingConfig
from toys.waiting import PATIENCE_S, held_port, until

HELLO = [{"role": "user", "content": "hello"}]
SAMPLING = SamplingConfig(temperature=0.4, max_response_tokens=48)


def test_a_request_says_what_the_panel_says() -> None:
    with endpoint_of([completion("hi")]) as fake:
        reply = fake.client().ask("toy", HELLO, SAMPLING, seed=3)
    assert (reply.text, reply.truncated) == ("hi", False)
    assert fake.asked == [
        {"model": "toy", "messages": HELLO, "temperature": 0.4, "top_p": 1.0, "max_tokens": 48, "seed": 3}
    ]
    with endpoint_of([completion("h", "length")]) as fake:
        client = fake.client(max_tokens_field="max_completion_tokens", send_seed=False)
        reply = client.ask("toy", HELLO, SamplingConfig(top_k=5, max_response_tokens=1), seed=3)
    assert reply.truncated
    (body,) = fake.asked
    assert (body["max_completion_tokens"], body["top_k"]) == (1, 5)
    assert not {"seed", "max_tokens"} & set(body)


def test_tokens_are_counted() -> None:
    with endpoint_of([completion("hi"), plain({"choices": [{"message": {"content": None}}], "usage": "x"})]) as fake:
        client = fake.client()
        texts = [client.ask("toy", HELLO, SAMPLING).text for _ in range(2)]
    assert texts == ["hi", ""]
    assert client.tokens == {"prompt_tokens": 5, "completion_tokens": 2}


@pytest.mark.parametrize(
    "first",
    [
        refusal(429, "slow down"),
        refusal(500, "oops"),
        refusal(503, "busy"),
        refusal(408, "late"),
        (200, {}, b"no json"),
        (200, {}, b"\xff"),
        plain({"choices": []}),
        plain({"choices": [{"message": {"content": 3}}]}),
        plain({"choices": [{"message": {"content": "\ud800"}}]}),
        plain([]),
        (200, {"Content_Encoding": "gzip"}, b"not packed"),
    ],
    ids=["429", "500", "503", "408", "text", "bytes", "no choice", "no text", "surrogate", "a list", "packed"],
)
def test_what_may_pass_is_tried_again(first: Reply) -> None:
    with endpoint_of([first, completion("hi")]) as fake:
        client = fake.client()
        assert client.ask("toy", HELLO, SAMPLING).text == "hi"
    assert len(fake.asked) == 2
    assert (client.retries, client.failures) == (1, {})


@pytest.mark.parametrize(
    ("reply", "kind", "attempts"),
    [
        (refusal(429, "slow down"), Failure.RATE_LIMIT, 3),
        (refusal(500, "oops"), Failure.SERVER, 3),
        ((200, {}, b"no json"), Failure.INVALID_REPLY, 3),
        (plain({"choices": []}), Failure.INVALID_REPLY, 3),
        (refusal(400, "what?"), Failure.REFUSED, 1),
        (refusal(401, "who?"), Failure.REFUSED, 1),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), Failure.REFUSED, 1),
    ],
    ids=["429", "500", "text", "no choice", "400", "401", "302"],
)
def test_what_does_not_pass_is_a_failure_of_its_kind(reply: Reply, kind: Failure, attempts: int) -> None:
    with endpoint_of([reply]) as fake:
        client = fake.client(attempts=3)
        with pytest.raises(EndpointError, match=rf"^{kind.value}: ") as failed:
            client.ask("toy", HELLO, SAMPLING)
    assert failed.value.kind is kind
    assert len(fake.asked) == attempts
    assert client.failures == {kind: 1}


def test_a_server_that_hangs_is_left_in_time() -> None:
    with endpoint_of([None]) as fake:
        client = fake.client(attempts=2, timeout_s=0.3)
        started = time.monotonic()
        with pytest.raises(EndpointError) as failed:
            client.ask("toy", HELLO, SAMPLING)
        assert time.monotonic() - started < PATIENCE_S / 2  # the server waits for longer
        until(lambda: len(fake.asked) >= 2)  # it may read a request that is given up already
    assert failed.value.kind is Failure.TIMEOUT
    assert len(fake.asked) == 2


def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time() -> None:
    """The time limit is that of the whole reply, not of one read."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while not stop.wait(0.05):  # 50 seconds
                connection.sendall(b" ")
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        client = Endpoint(EndpointSettings(endpoint=url, attempts=1, timeout_s=0.5))
        started = time.monotonic()
        with pytest.raises(EndpointError) as failed:
            client.ask("toy", HELLO, SAMPLING)
        assert time.monotonic() - started < 40
        stop.set()
        thread.join(PATIENCE_S)
    assert failed.value.kind is Failure.TIMEOUT


def test_nobody_there_is_a_failure_of_the_connection() -> None:
    with held_port() as port:
        client = Endpoint(EndpointSettings(endpoint=f"http://127.0.0.1:{port}/v1", attempts=2, backoff_s=0.01))
        with pytest.raises(EndpointError) as failed:
            client.ask("toy", HELLO, SAMPLING)
        assert failed.value.kind is Failure.CONNECTION
        with pytest.raises(UserError, match=r"endpoint must be the address of a server that answers, got http://127"):
            client.find_model()


def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    with endpoint_of([refusal(429, "slow down", Retry_After="1"), completion("hi")]) as fake:
        started = time.monotonic()
        fake.client().ask("toy", HELLO, SAMPLING)
        assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    "reply",
    [
        refusal(400, "x", "context_length_exceeded"),
        refusal(400, "This model's maximum context length is 10 tokens."),
        plain({"error": {"message": "the request exceeds the available context size"}}, 400),
        plain({"object": "error", "message": "This model's maximum context length is 10 tokens"}, 400),
    ],
    ids=["code", "words", "llama.cpp", "flat"],
)
def test_a_conversation_that_is_too_long_is_no_failure(reply: Reply) -> None:
    with endpoint_of([reply]) as fake:
        client = fake.client()
        with pytest.raises(ConversationTooLongError):
            client.ask("toy", HELLO, SAMPLING)
    assert len(fake.asked) == 1
    assert client.failures == {}


def test_an_endpoint_that_always_fails_is_given_up() -> None:
    with endpoint_of([refusal(500, "oops")]) as fake:
        client = fake.client(attempts=2, give_up_after=3)
        kinds = []
        for _ in range(5):
            with pytest.raises(EndpointError) as failed:
                client.ask("toy", HELLO, SAMPLING)
            kinds.append(failed.value.kind)
    assert kinds == [Failure.SERVER] * 3 + [Failure.NOT_TRIED] * 2
    assert len(fake.asked) == 6


def test_one_answer_in_between_is_a_sign_of_life() -> None:
    def sometimes(_: dict[str, Any], number: int) -> Reply:
        return completion("hi") if number % 3 == 0 else refusal(500, "oops")

    with endpoint_of(sometimes) as fake:
        client = fake.client(attempts=1, give_up_after=3)
        for number in range(1, 10):
            if number % 3 == 0:
                client.ask("toy", HELLO, SAMPLING)
            else:
                with pytest.raises(EndpointError, match="server: status 500: oops"):
                    client.ask("toy", HELLO, SAMPLING)


KEY = "sk-very-secret"


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with endpoint_of([refusal(401, f"Incorrect API key provided: {KEY}")]) as fake:
        client = fake.client(api_key_env="MY_KEY")
        with pytest.raises(EndpointError) as failed:
            client.ask("toy", HELLO, SAMPLING)
    assert fake.keys == [f"Bearer {KEY}"]
    assert KEY not in str(failed.value)
    assert "[the key]" in str(failed.value)
    assert KEY not in repr(client)
    assert KEY not in repr(client.settings)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDAR_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # that of another service: it must be asked for
    with endpoint_of([completion("hi")]) as fake:
        fake.client().ask("toy", HELLO, SAMPLING)
    assert fake.keys == [None]


def test_a_variable_that_is_named_must_hold_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    settings = EndpointSettings(endpoint="http://127.0.0.1:1/v1", api_key_env="MY_KEY")
    with pytest.raises(UserError, match="api_key_env=MY_KEY"):
        Endpoint(settings)
    monkeypatch.setenv("MY_KEY", "a key\nof two lines")
    with pytest.raises(UserError, match="MY_KEY must be a key") as refused:
        Endpoint(settings)
    assert "two lines" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://x/v1", "http://", "http://x/v1?a=b", "http://me:pass@x/v1", "http://[x/v1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"^endpoint must be ") as refused:
        EndpointSettings(endpoint=url)
    assert "pass" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    ("models", "wanted", "outcome"),
    [
        (plain({"data": [{"id": "toy"}]}), None, "toy"),
        (plain({"data": [{"id": "toy"}, {"id": "other"}]}), "other", "other"),
        (refusal(404, "nothing here"), "any", "any"),
        (plain({"data": []}), "any", "any"),
        (refusal(500, "oops"), "any", "any"),
    ],
    ids=["the only one", "one of two", "no list", "empty list", "broken list"],
)
def test_the_model_is_found(models: Reply, wanted: str | None, outcome: str) -> None:
    with endpoint_of([completion("hi")], models) as fake:
        assert fake.client(model=wanted).find_model() == outcome


@pytest.mark.parametrize(
    ("models", "wanted", "words"),
    [
        (plain({"data": [{"id": "toy"}, {"id": "other"}]}), None, "which lists toy, other"),
        (refusal(404, "nothing here"), None, "which lists none"),
        (plain({"data": [{"id": "toy"}]}), "tyo", r"must be one of those of .* \(toy\), got tyo"),
        (refusal(401, "who?"), "toy", "needs a key: set the environment variable SDAR_API_KEY"),
        (None, "toy", "a server that answers"),
    ],
    ids=["two", "no list", "unknown", "no key", "hangs"],
)
def test_a_model_that_is_not_there_is_a_mistake(
    models: Reply, wanted: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SDAR_API_KEY", raising=False)
    with endpoint_of([completion("hi")], models) as fake, pytest.raises(UserError, match=words):
        fake.client(model=wanted, **({"timeout_s": 0.5} if models is None else {})).find_model()
