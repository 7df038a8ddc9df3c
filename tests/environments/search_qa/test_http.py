"""The client of the retrieval API, against servers that refuse, hang, disconnect and send wrong replies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_ends import PASSAGES, WORLD, client, failure, serving

from sdar.environments.search_qa import http_client, wire
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.http_client import HttpRetriever
from sdar.environments.search_qa.retriever import Hit, Passage
from sdar.environments.search_qa.server import RetrievalServer
from sdar.episode import EndReason
from sdar.errors import UserError
from toys.waiting import PATIENCE_S, held_port, until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)


def answer_with(*replies: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]) -> ThreadingHTTPServer:
    """A server that sends the given replies in turn and then repeats the last; ``asked`` holds the requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((message, self.client_address[1]))  # type: ignore[attr-defined]
            replies[min(len(made.asked), len(replies)) - 1](self, message)  # type: ignore[attr-defined]

        def log_message(self, *args: Any) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked = []  # type: ignore[attr-defined]
    return made


def body(content: bytes, status: int = 200, length: int | None = None) -> Callable[..., None]:
    def reply(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)
        if length is not None:
            handler.close_connection = True

    return reply


def plain(value: Any, status: int = 200) -> Callable[..., None]:
    return body(json.dumps(value).encode(), status)


GOOD = {"result": [[{"document": {"id": "1", "contents": '"T"\nx'}, "score": 2.5}]]}
HIT = [Hit(Passage("1", '"T"\nx'), 2.5)]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody answers."""
    with held_port() as port:
        yield f"http://127.0.0.1:{port}/retrieve"


def test_a_server_that_refuses_is_a_failure_after_bounded_attempts(nobody: str) -> None:
    address = nobody
    (found,) = client(address, attempts=3).search(["a"], 3)
    assert "(after 3 attempts)" in failure(found)
    assert address in failure(found)


SHORT_S = 0.3
LONG_S = 120.0
"""For which slow servers go on, and after which they would be waited for to their end."""


def hang(handler: BaseHTTPRequestHandler, _: Any) -> None:
    time.sleep(LONG_S)


def drip(handler: BaseHTTPRequestHandler, _: Any) -> None:
    """Always a byte before the socket's own timeout."""
    _bit_by_bit(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ")


def head(handler: BaseHTTPRequestHandler, _: Any) -> None:
    """A header that does not end, always a byte before the socket's own timeout."""
    _bit_by_bit(handler, b"HTTP/1.1 200 OK\r\nX-Long: ", b"x")


def continued(handler: BaseHTTPRequestHandler, _: Any) -> None:
    _bit_by_bit(handler, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def chunk(handler: BaseHTTPRequestHandler, _: Any) -> None:
    """The length of a chunk does not end."""
    _bit_by_bit(handler, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0")


def _bit_by_bit(handler: BaseHTTPRequestHandler, first: bytes, more: bytes) -> None:
    handler.close_connection = True
    with suppress(OSError):
        handler.wfile.write(first)
        for _ in range(int(LONG_S / 0.1)):
            handler.wfile.write(more)
            time.sleep(0.1)


@pytest.mark.parametrize("reply", [hang, drip, head, continued, chunk])
def test_no_part_of_a_reply_may_take_longer_than_the_time(reply: Any) -> None:
    """Minutes of bytes that each come in time."""
    with serving(answer_with(reply)) as address:
        started = time.monotonic()
        (found,) = client(address, timeout_s=SHORT_S).search(["a"], 3)
        assert time.monotonic() - started < LONG_S / 2
        assert "2 attempts" in failure(found)


def test_a_reply_in_time_leaves_no_clock_behind() -> None:
    """The connection outlives the time of its first request: what would end it then is gone long before."""
    before = set(threading.enumerate())
    made = answer_with(plain(GOOD))
    with serving(made) as address:
        remote = client(address, timeout_s=PATIENCE_S)
        assert remote.search(["a"], 3) == [HIT]
        clocks = [new for new in set(threading.enumerate()) - before if isinstance(new, threading.Timer)]
        until(lambda: not any(clock.is_alive() for clock in clocks), PATIENCE_S / 2)
        assert remote.search(["a"], 3) == [HIT]
        assert len({port for _, port in made.asked}) == 1  # type: ignore[attr-defined]


def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    def busy(handler: BaseHTTPRequestHandler, _: Any) -> None:
        handler.send_response(503)
        for name, value in (("Retry-After", "1"), ("Content-Length", "0")):
            handler.send_header(name, value)
        handler.end_headers()

    with serving(answer_with(busy, plain(GOOD))) as address:
        started = time.monotonic()
        assert client(address).search(["a"], 3) == [HIT]
        assert time.monotonic() - started >= 1.0


LIES: dict[str, Callable[..., None]] = {
    "an empty body": body(b""),
    "no JSON": body(b"<html>504</html>"),
    "half of it": body(json.dumps(GOOD).encode()[:30]),
    "less than announced": body(json.dumps(GOOD).encode()[:30], length=500),
    "a list": plain([GOOD]),
    "nothing found for nobody": plain({"result": []}),
    "too many lists": plain({"result": GOOD["result"] * 2}),
    "no result": plain({"results": GOOD["result"]}),
    "a result of null": plain({"result": None}),
    "a list of null": plain({"result": [None]}),
    "a hit of null": plain({"result": [[None]]}),
    "no contents": plain({"result": [[{"document": {"id": "1"}, "score": 1.0}]]}),
    "contents of null": plain({"result": [[{"document": {"contents": None}, "score": 1.0}]]}),
    "a document of null": plain({"result": [[{"document": None, "score": 1.0}]]}),
    "a score in words": plain({"result": [[{"document": {"contents": "x"}, "score": "good"}]]}),
    "a score of nothing": body(b'{"result": [[{"document": {"contents": "x"}, "score": NaN}]]}'),
    "a score of 400 digits": body(b'{"result": [[{"document": {"contents": "x"}, "score": %s}]]}' % (b"9" * 400)),
    "nested too deeply": body(b'{"result": ' + b"[" * 100_000),
    "a status of 408": plain(GOOD, status=408),
    "a status of 500": plain(GOOD, status=500),
    "a status of 429": plain(GOOD, status=429),
    "another page": plain(GOOD, status=302),
}


@pytest.mark.parametrize("name", LIES)
def test_a_reply_that_does_not_fit_is_a_failure_and_never_an_answer(name: str) -> None:
    with serving(answer_with(LIES[name])) as address:
        (found,) = client(address).search(["a"], 3)
        assert failure(found)


PASSING = ("an empty body", "no JSON", "half of it", "less than announced")
"""What may be better next time, as a status of 408, 429 or 5xx may; the others are what the server is like."""


@pytest.mark.parametrize("name", [name for name in LIES if name not in PASSING and "status" not in name])
def test_a_server_of_another_form_is_asked_once_and_another_one_answers(name: str) -> None:
    wrong = answer_with(LIES[name])
    with serving(wrong) as address, serving(answer_with(plain(GOOD))) as other:
        assert "(after 1 attempt)" in failure(client(address, attempts=30).search(["a"], 3)[0])
        assert client([address, other]).search(["a"], 3) == [HIT]
        assert len(wrong.asked) == 2  # type: ignore[attr-defined]


def test_a_reply_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_REPLY", 1000)
    with serving(answer_with(body(b" " * 2000))) as address:
        assert "the reply has more than 1000 bytes (after 1 attempt)" in failure(client(address).search(["a"], 3)[0])


READY: dict[str, tuple[Callable[..., None], str]] = {
    "another form": (plain({"documents": []}), "the reply is invalid: it must have one list of results per query"),
    "no JSON": (body(b"<html>"), "the reply is invalid: it is not JSON"),
    "broken": (plain({"error": "no index"}, status=500), "status 500"),
    "silent": (hang, "no whole reply within 0.3 s"),
}


@pytest.mark.parametrize("name", READY)
def test_a_server_that_cannot_be_used_is_refused_before_anything_is_played(name: str) -> None:
    reply, reason = READY[name]
    made = answer_with(reply)
    with serving(made) as address:
        engine = client(address, attempts=30, **({"timeout_s": SHORT_S} if name == "silent" else {}))
        environment = SearchQAEnvironment(num_tasks=(2, 2), world=WORLD, search_engine=engine)
        with pytest.raises(UserError, match="must name a server that answers, got http") as refused:
            environment.check_ready()
        assert reason in str(refused.value)
        until(lambda: made.asked)  # type: ignore[attr-defined]  # it may read a request that is given up already
        assert len(made.asked) == 1  # type: ignore[attr-defined]


def test_no_server_is_refused_and_one_of_two_will_do(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"got http://127.0.0.1:\d+/retrieve \(.*refused\): start it"):
        client(nobody).check_ready()
    with serving(answer_with(plain(GOOD))) as address:
        client([nobody, address]).check_ready()
        client(address, form="query").check_ready()
    assert f"the search server {nobody} cannot be used" in caplog.text


@pytest.mark.parametrize("name", [name for name in LIES if name in PASSING or "status" in name])
def test_after_a_bad_reply_a_good_one_is_taken(name: str) -> None:
    with serving(answer_with(LIES[name], plain(GOOD))) as address:
        assert client(address).search(["a"], 3) == [HIT]


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reader_of_replies_stumble(content: bytes) -> None:
    for decode in (lambda: wire.decode_reply(content, 1, 3), lambda: wire.decode_request(content, 3)):
        with suppress(wire.WireError):
            decode()


def test_a_request_that_is_refused_for_what_it_is_is_not_made_again() -> None:
    made = answer_with(plain({"error": "unknown"}, status=404))
    with serving(made) as address:
        assert "status 404" in failure(client(address, attempts=5).search(["a"], 3)[0])
        assert len(made.asked) == 1  # type: ignore[attr-defined]


def test_more_than_was_asked_for_is_left_out() -> None:
    with serving(answer_with(plain({"result": [GOOD["result"][0] * 5]}))) as address:
        assert client(address).search(["a"], 2) == [HIT * 2]


def test_half_a_surrogate_pair_in_a_reply_is_made_readable() -> None:
    with serving(answer_with(plain({"result": [[{"document": {"id": "1", "contents": "x\ud800"}}]]}))) as address:
        assert client(address).search(["a"], 2) == [[Hit(Passage("1", "x\ufffd"), 0.0)]]


def test_documents_without_scores_are_taken() -> None:
    with serving(answer_with(plain({"result": [[{"id": 1, "contents": "x"}]]}))) as address:
        assert client(address).search(["a"], 2) == [[Hit(Passage("1", "x"), 0.0)]]


def test_several_servers_take_turns_and_stand_in_for_one_another(nobody: str) -> None:
    first, second = answer_with(plain(GOOD)), answer_with(plain(GOOD))
    with serving(first) as one, serving(second) as two:
        remote = client([one, two, nobody], form="query")
        assert remote.search(["a"] * 6, 3) == [HIT] * 6
        assert min(len(first.asked), len(second.asked)) >= 2  # type: ignore[attr-defined]
        assert len(first.asked) + len(second.asked) == 6  # type: ignore[attr-defined]


def test_connections_are_kept() -> None:
    made = answer_with(plain(GOOD))
    with serving(made) as address:
        remote = client(address)
        for _ in range(5):
            assert remote.search(["a"], 3) == [HIT]
        assert len({port for _, port in made.asked}) == 1  # type: ignore[attr-defined]


def test_a_cut_reply_does_not_spoil_the_next_one_on_its_connection() -> None:
    given_up, sent = threading.Event(), threading.Event()

    def late(handler: BaseHTTPRequestHandler, message: Any) -> None:
        given_up.wait(PATIENCE_S)
        try:
            plain({"result": [[{"document": {"contents": "late"}, "score": 1.0}]]})(handler, message)
        finally:
            sent.set()

    with serving(answer_with(late, plain(GOOD))) as address:
        remote = client(address, timeout_s=SHORT_S, attempts=100)  # a good reply may be late, too
        assert remote.search(["a"], 3) == [HIT]
        given_up.set()
        assert sent.wait(PATIENCE_S)
        assert remote.search(["a"], 3) == [HIT]


def test_one_failed_query_costs_no_other_its_answer() -> None:
    def choosy(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        (plain("no", status=500) if message["query"] == "bad" else plain(GOOD))(handler, message)

    with serving(answer_with(choosy)) as address:
        good, bad, more = client(address, form="query").search(["good", "bad", "more"], 3)
        assert (good, more) == (HIT, HIT)
        assert "status 500" in failure(bad)


def test_patience_bounds_a_whole_call(nobody: str) -> None:
    started = time.monotonic()
    found = client(nobody, form="query", attempts=10_000, patience_s=0.5, connections=2).search(["a"] * 20, 3)
    assert time.monotonic() - started < LONG_S  # and not as long as so many attempts
    assert all(failure(answer) for answer in found)
    # The first two took the time of all.
    assert all("there was no time left (after 0 attempts)" in failure(answer) for answer in found[2:])


def test_a_server_killed_and_started_again_is_asked_again(nobody: str) -> None:
    port = int(nobody.rpartition(":")[2].partition("/")[0])
    retriever = Bm25Retriever(PASSAGES)
    query = PASSAGES[0].title
    remote = client(nobody, attempts=100)
    with serving(RetrievalServer(retriever, port=port)):
        before = remote.search([query], 3)
    again = RetrievalServer(retriever, port=port)
    later = threading.Timer(0.3, again.serve_forever)
    later.start()
    try:
        assert remote.search([query], 3) == before == retriever.search([query], 3)
    finally:
        again.shutdown()
        again.server_close()


def test_a_search_engine_that_dies_costs_the_episodes_that_ask_and_no_others() -> None:
    """Failures have their own end reason and are counted; finished episodes are not affected."""
    dying = RetrievalServer(Bm25Retriever(PASSAGES))
    thread = threading.Thread(target=lambda: dying.serve_forever(poll_interval=0.01))
    thread.start()
    environment = SearchQAEnvironment(num_tasks=(2, 4), world=WORLD, search_engine=client(dying.url))
    tasks = environment.tasks("train")
    pool = environment.open_pool()
    pool.reset(tasks)
    plans = [environment.expert(task) or [] for task in tasks]
    pool.step({0: plans[0][0], 1: plans[1][0]})
    dying.shutdown()
    dying.server_close()
    thread.join()
    outcomes = pool.step({0: plans[0][1], 1: plans[1][-1]})
    assert (outcomes[0].end, outcomes[0].reward) == (EndReason.ERROR_TOOL, 0.0)
    assert outcomes[1].end is EndReason.SUCCESS


@pytest.mark.parametrize(
    ("settings", "mentioned"),
    [
        ({"urls": []}, "at least one address"),
        ({"urls": ["127.0.0.1:8000"]}, "must be addresses such as .*, got '127.0.0.1:8000'"),
        ({"urls": ["ftp://x/retrieve"]}, "must be addresses"),
        ({"urls": ["http://[::1/retrieve"]}, "must be addresses"),
        ({"urls": ["http://x:99999/retrieve"]}, "must be addresses"),
        ({"urls": "http://x/retrieve", "form": "quary"}, "form must be 'queries' or 'query', got 'quary'"),
        ({"urls": "http://x/retrieve", "attempts": 2.5}, "attempts must be a whole number >= 1, got 2.5"),
        ({"urls": "http://x/retrieve", "timeout_s": float("inf")}, "timeout_s must be a number > 0, got inf"),
        ({"urls": "http://x/retrieve", "timeout_s": 0}, "timeout_s must be a number > 0, got 0"),
        ({"urls": "http://x/retrieve", "attempts": 0}, "attempts must be a whole number >= 1, got 0"),
        ({"urls": "http://x/retrieve", "patience_s": float("nan")}, "patience_s must be a number > 0, got nan"),
    ],
)
def test_a_wrong_setting_is_told(settings: dict[str, Any], mentioned: str) -> None:
    with pytest.raises(UserError, match=mentioned):
        HttpRetriever(**settings)
