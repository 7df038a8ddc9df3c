"""Client and server of the retrieval API: against one another, and against servers that refuse, hang, cut and lie."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.search_qa import http_client, server, wire
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.http_client import HttpRetriever
from sdar.environments.search_qa.retriever import Found, Hit, Passage, RetrievalFailure, Retriever
from sdar.environments.search_qa.server import RetrievalServer
from sdar.environments.search_qa.world import World, WorldSettings
from sdar.episode import EndReason
from sdar.errors import UserError
from sdar.evaluation.agents import play_expert
from sdar.evaluation.result import summarise

WORLD = WorldSettings(people=60, towns=20, books=20)
PASSAGES = World(WORLD, "train").passages


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_FIRST_WAIT_S", 0.01)


@contextmanager
def serving(made: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=lambda: made.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}/retrieve"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(RetrievalServer(Bm25Retriever(PASSAGES))) as address:
        yield address


def answer_with(*replies: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]) -> ThreadingHTTPServer:
    """A server that gives each reply in turn and then the last one again; ``asked`` holds the requests."""

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


def client(urls: Any, **settings: Any) -> HttpRetriever:
    return HttpRetriever(urls, **({"timeout_s": 0.3, "attempts": 2, "patience_s": 5.0} | settings))


def failure(found: Found) -> str:
    assert isinstance(found, RetrievalFailure)
    return found.reason


# Against our server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["queries", "query"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_over_the_wire_is_as_in_this_process(url: str, form: Any, batch_size: int) -> None:
    queries = [f"{fact.title} {number}" for number, fact in enumerate(PASSAGES[:7])] + ["", "zeppelin", "Größe \u2028"]
    remote = client(url, form=form, batch_size=batch_size, timeout_s=10)
    assert remote.search(queries, 3) == Bm25Retriever(PASSAGES).search(queries, 3)
    assert remote.search([], 3) == []
    remote.close()
    remote.close()


def test_the_environment_plays_the_same_over_the_wire(url: str) -> None:
    for form in ("queries", "query"):
        environment = SearchQAEnvironment(
            num_tasks=(20, 4), world=WORLD, search_engine=client(url, form=form, timeout_s=10)
        )
        episodes = play_expert(environment, environment.tasks("train"))
        assert episodes is not None
        assert summarise("expert", episodes).successes == 20


def ask(url: str, content: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=content), timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_both_forms_of_the_original_are_answered(url: str) -> None:
    """Search-R1's form with scores, the paper's form with and without them."""
    name = PASSAGES[0].title
    _, many = ask(url, json.dumps({"queries": [name, name], "topk": 2, "return_scores": True}).encode())
    assert [len(hits) for hits in many["result"]] == [2, 2]
    assert set(many["result"][0][0]) == {"document", "score"}
    assert set(many["result"][0][0]["document"]) == {"id", "contents"}
    _, one = ask(url, json.dumps({"query": name, "topk": 2, "return_scores": True}).encode())
    assert one["result"] == many["result"][:1]
    _, bare = ask(url, json.dumps({"query": name, "topk": 2}).encode())
    assert bare["result"] == [[hit["document"] for hit in one["result"][0]]]
    _, null = ask(url, json.dumps({"query": name, "queries": None, "topk": 2, "return_scores": None}).encode())
    assert null == bare
    _, default = ask(url, json.dumps({"query": name, "topk": None}).encode())
    assert len(default["result"][0]) == 3


@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "either query or queries"),
        (b'{"query": "a", "queries": ["b"]}', "either query or queries"),
        (b'{"query": 3}', "must be a text"),
        (b'{"queries": "a"}', "a list of texts"),
        (b'{"query": "a", "topk": 0}', "topk is 0"),
        (b'{"query": "a", "topk": true}', "topk is True"),
        (b'{"query": "a", "topk": 100000}', "topk is 100000"),
        (b'{"query": null}', "either query or queries"),
        (b'{"queries": ["a", null]}', "a list of texts"),
        (b'{"query": "a", "return_scores": "false"}', "return_scores is 'false'"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_with_a_reason(url: str, content: bytes, mentioned: str) -> None:
    status, message = ask(url, content)
    assert status == 400
    assert mentioned in message["error"]


def test_other_paths_are_not_found_and_health_answers(url: str) -> None:
    assert ask(url.replace("retrieve", "other"), b'{"query": "a"}')[0] == 404
    for same in ("/", "?source=x", "/?x#y"):
        assert ask(url + same, b'{"query": "a"}')[0] == 200
    with urllib.request.urlopen(url.replace("retrieve", "health"), timeout=10) as reply:
        assert json.loads(reply.read()) == {"status": "ok"}


def test_a_server_whose_retriever_fails_says_so_and_goes_on() -> None:
    class Failing(Retriever):
        def search(self, queries: Any, top_k: int) -> list[Found]:
            return [RetrievalFailure("no index") if query == "bad" else [] for query in queries]

    with serving(RetrievalServer(Failing())) as address:
        assert "status 503" in failure(client(address).search(["bad"], 3)[0])
        assert client(address).search(["good"], 3) == [[]]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Content-Length: \xb2", 411),
        (b"Content-Length: -5", 411),
        (b"Transfer-Encoding: chunked", 411),
        (b"Content-Length: 99999999", 413),
        (b"Content-Length: " + b"9" * 5000, 413),
    ],
)
def test_a_body_of_no_known_or_of_too_great_length_is_refused(url: str, header: bytes, status: int) -> None:
    host, port = url.removeprefix("http://").removesuffix("/retrieve").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connected:
        connected.sendall(b"POST /retrieve HTTP/1.1\r\n" + header + b"\r\n\r\n")
        assert connected.makefile("rb").readline().split()[1] == str(status).encode()
    assert ask(url, b'{"query": "a"}')[0] == 200


def test_a_search_that_breaks_is_told_and_the_next_is_answered(tmp_path: Any) -> None:
    class Broken(Retriever):
        def search(self, queries: Any, top_k: int) -> list[Found]:
            if queries == ("bad",):
                raise UserError("the corpus was changed")
            return [[]]

    with serving(RetrievalServer(Broken())) as address:
        assert ask(address, b'{"query": "bad"}') == (500, {"error": "the search failed: the corpus was changed"})
        assert ask(address, b'{"query": "good"}') == (200, {"result": [[]]})


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_is_served_and_asked() -> None:
    try:
        made = RetrievalServer(Bm25Retriever(PASSAGES), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 address of its own")
    assert made.url.startswith("http://[::1]:")
    with serving(made):
        query = PASSAGES[0].title
        assert client(made.url, timeout_s=10).search([query], 2) == Bm25Retriever(PASSAGES).search([query], 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sdar.environments.search_qa.server", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" at ")[1].strip()
        remote = client(address, timeout_s=30)
        assert isinstance(remote.search(["a"], 3)[0], list)  # and keeps its connection
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()


def test_the_command_refuses_what_it_cannot_serve(tmp_path: Any) -> None:
    for arguments, mentioned in (
        (["corpus=none.jsonl"], "none.jsonl"),
        (["prot=1"], "allowed settings"),
        (["top_k=0"], "top_k=0"),
        (["port=99999999"], "port=99999999"),
    ):
        with pytest.raises(UserError, match=mentioned):
            server.main(arguments)


# Against servers that misbehave -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_server_that_refuses_is_a_failure_after_bounded_attempts() -> None:
    address = f"http://127.0.0.1:{free_port()}/retrieve"
    (found,) = client(address, attempts=3).search(["a"], 3)
    assert "(after 3 attempts)" in failure(found)
    assert address in failure(found)


def hang(handler: BaseHTTPRequestHandler, _: Any) -> None:
    time.sleep(1.0)


def drip(handler: BaseHTTPRequestHandler, _: Any) -> None:
    """Always a byte before the socket's own timeout."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _n in range(20):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.1)


@pytest.mark.parametrize("reply", [hang, drip], ids=["hangs", "drips"])
def test_a_server_that_is_too_slow_is_given_up_in_time(reply: Any) -> None:
    with serving(answer_with(reply)) as address:
        started = time.monotonic()
        (found,) = client(address).search(["a"], 3)
        assert time.monotonic() - started < 2
        assert "2 attempts" in failure(found)


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
        for _ in range(100):
            handler.wfile.write(more)
            time.sleep(0.1)


@pytest.mark.parametrize("reply", [head, continued, chunk])
def test_no_part_of_a_reply_may_take_longer_than_the_time(reply: Any) -> None:
    """Ten seconds of bytes that each come in time."""
    with serving(answer_with(reply)) as address:
        started = time.monotonic()
        (found,) = client(address).search(["a"], 3)
        assert time.monotonic() - started < 5
        assert "2 attempts" in failure(found)


def test_a_reply_in_time_leaves_no_clock_behind() -> None:
    """The connection outlives the time of its first request."""
    made = answer_with(plain(GOOD))
    with serving(made) as address:
        remote = client(address, timeout_s=1.0)
        assert remote.search(["a"], 3) == [HIT]
        time.sleep(1.3)
        assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
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
        assert client(address, timeout_s=10).search(["a"], 3) == [HIT]
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


@pytest.mark.parametrize("name", [name for name in LIES if name != "another page"])
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


def test_several_servers_take_turns_and_stand_in_for_one_another() -> None:
    first, second = answer_with(plain(GOOD)), answer_with(plain(GOOD))
    with serving(first) as one, serving(second) as two:
        down = f"http://127.0.0.1:{free_port()}/retrieve"
        remote = client([one, two, down], form="query")
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
    def late(handler: BaseHTTPRequestHandler, message: Any) -> None:
        time.sleep(0.5)
        plain({"result": [[{"document": {"contents": "late"}, "score": 1.0}]]})(handler, message)

    with serving(answer_with(late, plain(GOOD))) as address:
        remote = client(address)
        assert remote.search(["a"], 3) == [HIT]
        time.sleep(0.5)
        assert remote.search(["a"], 3) == [HIT]


def test_one_failed_query_costs_no_other_its_answer() -> None:
    def choosy(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        (plain("no", status=500) if message["query"] == "bad" else plain(GOOD))(handler, message)

    with serving(answer_with(choosy)) as address:
        good, bad, more = client(address, form="query").search(["good", "bad", "more"], 3)
        assert (good, more) == (HIT, HIT)
        assert "status 500" in failure(bad)


def test_patience_bounds_a_whole_call() -> None:
    address = f"http://127.0.0.1:{free_port()}/retrieve"
    started = time.monotonic()
    found = client(address, form="query", attempts=10_000, patience_s=0.5, connections=2).search(["a"] * 20, 3)
    assert time.monotonic() - started < 2
    assert all(failure(answer) for answer in found)


def test_a_server_killed_and_started_again_is_asked_again() -> None:
    port = free_port()
    retriever = Bm25Retriever(PASSAGES)
    address = f"http://127.0.0.1:{port}/retrieve"
    query = PASSAGES[0].title
    remote = client(address, attempts=40, timeout_s=5)
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
    """Failures are an end reason of their own, counted; what had been answered stays answered."""
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
        ({"urls": ["127.0.0.1:8000"]}, "is no address"),
        ({"urls": ["ftp://x/retrieve"]}, "is no address"),
        ({"urls": ["http://[::1/retrieve"]}, "is no address"),
        ({"urls": ["http://x:99999/retrieve"]}, "is no address"),
        ({"urls": "http://x/retrieve", "form": "quary"}, "form='quary': allowed are queries and query"),
        ({"urls": "http://x/retrieve", "attempts": 2.5}, "attempts=2.5: allowed is a whole number"),
        ({"urls": "http://x/retrieve", "timeout_s": float("inf")}, "timeout_s=inf"),
        ({"urls": "http://x/retrieve", "timeout_s": 0}, "timeout_s=0"),
        ({"urls": "http://x/retrieve", "attempts": 0}, "attempts=0"),
        ({"urls": "http://x/retrieve", "patience_s": float("nan")}, "patience_s=nan"),
    ],
)
def test_a_wrong_setting_is_told(settings: dict[str, Any], mentioned: str) -> None:
    with pytest.raises(UserError, match=mentioned):
        HttpRetriever(**settings)
