"""The server of the retrieval API: valid and invalid requests."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from retrieval_ends import PASSAGES, WORLD, client, failure, serving

from sdar.environments.search_qa import http_client, server
from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.retriever import Found, Hit, Passage, RetrievalFailure, Retriever
from sdar.environments.search_qa.server import RetrievalServer
from sdar.errors import UserError
from sdar.evaluation.agents import play_expert
from sdar.evaluation.result import summarise
from toys.waiting import PATIENCE_S, until


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(RetrievalServer(Bm25Retriever(PASSAGES))) as address:
        yield address


@pytest.mark.parametrize("form", ["queries", "query"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_over_the_wire_is_as_in_this_process(url: str, form: Any, batch_size: int) -> None:
    queries = [f"{fact.title} {number}" for number, fact in enumerate(PASSAGES[:7])] + ["", "zeppelin", "Größe \u2028"]
    remote = client(url, form=form, batch_size=batch_size)
    assert remote.search(queries, 3) == Bm25Retriever(PASSAGES).search(queries, 3)
    assert remote.search([], 3) == []
    remote.close()
    remote.close()


def test_the_environment_plays_the_same_over_the_wire(url: str) -> None:
    for form in ("queries", "query"):
        environment = SearchQAEnvironment(num_tasks=(20, 4), world=WORLD, search_engine=client(url, form=form))
        episodes = play_expert(environment, environment.tasks("train"))
        assert episodes is not None
        assert summarise("expert", episodes).successes == 20


def ask(url: str, content: bytes) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=content), timeout=PATIENCE_S) as reply:
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
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "either query or queries"),
        (b'{"query": "a", "queries": ["b"]}', "either query or queries"),
        (b'{"query": 3}', "query must be a string"),
        (b'{"queries": "a"}', "a list of strings"),
        (b'{"query": "a", "topk": 0}', "topk must be a whole number >= 1 and <= 1000, got 0"),
        (b'{"query": "a", "topk": true}', "got True"),
        (b'{"query": "a", "topk": 100000}', "got 100000"),
        (b'{"query": null}', "either query or queries"),
        (b'{"queries": ["a", null]}', "a list of strings"),
        (b'{"query": "a", "return_scores": "false"}', "return_scores must be true or false, got 'false'"),
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
    with urllib.request.urlopen(url.replace("retrieve", "health"), timeout=PATIENCE_S) as reply:
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
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connected:
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


def test_a_reply_is_bounded_before_it_is_made() -> None:
    with serving(RetrievalServer(Bm25Retriever(PASSAGES), max_reply=2000)) as address:
        name = PASSAGES[0].title
        status, message = ask(address, json.dumps({"queries": [name] * 1000, "topk": 20}).encode())
        assert status == 400
        assert "the reply would have more than 2000 bytes; ask fewer queries, or a smaller topk" in message["error"]
        assert ask(address, json.dumps({"query": name, "topk": 1}).encode())[0] == 200


def test_what_is_bounded_are_the_bytes_that_are_sent() -> None:
    """A letter beyond ASCII is six of them."""

    class Long(Retriever):
        def search(self, queries: Any, top_k: int) -> Any:
            return [[Hit(Passage("1", "\u6f22" * 400), 1.0)]]

    with serving(RetrievalServer(Long(), max_reply=2000)) as address:
        assert ask(address, b'{"query": "x"}')[0] == 400
    with serving(RetrievalServer(Long(), max_reply=3000)) as address:
        assert ask(address, b'{"query": "x"}')[0] == 200


@pytest.mark.parametrize("sent", [b"", b"POST /retr", b"POST /retrieve HTTP/1.1\r\nContent-Length: 9000\r\n\r\n{"])
def test_a_client_that_never_ends_its_request_is_disconnected(sent: bytes) -> None:
    """Each byte comes in time, the request does not."""
    with serving(RetrievalServer(Bm25Retriever(PASSAGES), request_s=0.2)) as address:
        host, port = address.removeprefix("http://").removesuffix("/retrieve").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connected:
            connected.sendall(sent)
            if sent:
                until(lambda: left(connected))
            with suppress(ConnectionError):  # bytes that it has not read make its end a rude one
                assert connected.recv(100) == b""


def left(connected: socket.socket) -> bool:
    """Send another byte in time, unless the server has left."""
    if select.select([connected], [], [], 0.05)[0]:
        return True
    try:
        connected.sendall(b"x")
    except ConnectionError:
        return True
    return False


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_is_served_and_asked() -> None:
    try:
        made = RetrievalServer(Bm25Retriever(PASSAGES), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 address of its own")
    assert made.url.startswith("http://[::1]:")
    with serving(made):
        query = PASSAGES[0].title
        assert client(made.url).search([query], 2) == Bm25Retriever(PASSAGES).search([query], 2)


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "sdar", "search-server", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" at ")[1].strip()
        remote = client(address)
        assert isinstance(remote.search(["a"], 3)[0], list)  # on a persistent connection
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("argument", "mentioned"),
    [
        ("device={", "the arguments must be name=value, got device={"),
        ("corpus=none.jsonl", "none.jsonl"),
        ("prot=1", "did you mean port?"),
        ("top_k=0", "top_k must be a whole number >= 1 and <= 1000, got 0"),
        ("k1=-1", "k1 must be a number >= 0, got -1"),
        ("port=99999999", "port must be a whole number >= 0 and <= 65535, got 99999999"),
        ("host=nowhere.invalid", "cannot listen on host=nowhere.invalid port=8000"),
    ],
)
def test_the_command_refuses_what_it_cannot_serve(argument: str, mentioned: str, capsys: Any) -> None:
    assert server.main([argument]) == 2
    told = capsys.readouterr().err
    assert mentioned in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
