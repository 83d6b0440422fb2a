"""The send engine against an HTTP/2 server that follows a script."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from providers.engine import Ended, Engine, HeaderLines, Request, Response
from providers.outcome import AnswerUnknown, NotSent
from providers.reach import LOOPBACK, Reach
from tests.conformance.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """An HTTP/2 server of this test's own."""
    with scripted_server(tmp_path) as server:
        yield server


@pytest.fixture
def engine(server: ScriptedServer) -> Iterator[Engine[str]]:
    """An engine with one connection of fifty streams."""
    engine: Engine[str] = Engine(ca_file=server.ca_file, max_streams=50, max_connections=1)
    yield engine
    engine.close()


def request(url: str, **fields: Any) -> Request:
    """A request that ends soon."""
    return Request(url=url, **{"body": b"hello", "timeout": timedelta(seconds=5), **fields})


def finish(engine: Engine[str], *, seconds: float = 10) -> dict[str, Ended]:
    """Poll until nothing is in flight; the ends by tag."""
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + seconds
    while engine.in_flight:
        ended.update(engine.poll(0.2))
        assert time.monotonic() < deadline, f"{engine.in_flight} requests never ended"
    return ended


def send(engine: Engine[str], to_send: Request) -> Ended:
    """Send one request and return its end."""
    engine.submit(to_send, "it")
    return finish(engine)["it"]


def test_many_requests_share_one_connection(server: ScriptedServer, engine: Engine[str]) -> None:
    """Each comes back with its own tag and body; fifty streams are used and never more."""
    for number in range(200):
        engine.submit(request(f"{server.url}/answer", body=f"body {number}".encode()), str(number))
    ended = finish(engine)
    assert {tag: end.body for tag, end in ended.items() if isinstance(end, Response)} == {
        str(number): f"body {number}".encode() for number in range(200)
    }
    assert server.connections == 1
    assert server.most_open_streams <= 50


def poll_until_received(engine: Engine[str], server: ScriptedServer, number: int) -> dict[str, Ended]:
    """Poll until the server has received so many requests; what ended meanwhile."""
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + 20
    while len(server.requests) < number:
        ended.update(engine.poll(0.02))
        assert time.monotonic() < deadline, f"{len(server.requests)} of {number} requests arrived"
    return ended


def test_a_second_connection_opens_only_when_the_first_is_full(server: ScriptedServer) -> None:
    """Two streams a connection and two connections carry four hanging requests; the fifth waits."""
    engine: Engine[str] = Engine(ca_file=server.ca_file, max_streams=2, max_connections=2)
    for number in range(5):
        engine.submit(request(f"{server.url}/hang?{number}", timeout=timedelta(seconds=60)), str(number))
    poll_until_received(engine, server, 4)
    engine.poll(0.2)
    assert server.connections == 2
    assert len(server.requests) == 4
    assert engine.in_flight == 5
    engine.close()


def test_the_time_out_covers_waiting_for_a_stream_and_then_nothing_was_sent(server: ScriptedServer) -> None:
    """A request that never got a stream is certain not to have been seen."""
    engine: Engine[str] = Engine(ca_file=server.ca_file, max_streams=1, max_connections=1)
    engine.submit(request(f"{server.url}/hang", timeout=timedelta(seconds=60)), "hanging")
    poll_until_received(engine, server, 1)
    engine.submit(request(f"{server.url}/answer", timeout=timedelta(seconds=0.3)), "waiting")
    ended: dict[str, Ended] = {}
    while not ended:
        ended.update(engine.poll(0.1))
    engine.close()
    assert isinstance(ended["waiting"], NotSent)
    assert server.paths() == ["/hang"]


def test_any_status_is_an_answer(server: ScriptedServer, engine: Engine[str]) -> None:
    """Even 503; headers are found by lower-case name."""
    response = send(engine, request(f"{server.url}/answer?status=503"))
    assert isinstance(response, Response)
    assert response.status == 503
    assert response.headers["retry-after"] == "7"
    assert response.body == b"hello"


def test_headers_of_an_interim_response_do_not_count(server: ScriptedServer, engine: Engine[str]) -> None:
    """A 103 before the answer leaves nothing behind."""
    response = send(engine, request(f"{server.url}/answer?interim=1"))
    assert isinstance(response, Response)
    assert response.status == 200
    assert "retry-after" not in response.headers


def test_an_answer_leaves_nothing_for_the_next_request(server: ScriptedServer, engine: Engine[str]) -> None:
    """Handles are used again: each answer has its own body, headers and request headers."""
    first = send(engine, request(f"{server.url}/answer", headers=("x-one: 1",), body=b"first"))
    second = send(engine, request(f"{server.url}/answer?interim=1", headers=("x-two: 2",), body=b"second"))
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert (first.body, first.headers["retry-after"]) == (b"first", "7")
    assert (second.body, second.headers.get("retry-after")) == (b"second", None)
    assert "x-one" in server.requests[0].headers
    assert "x-one" not in server.requests[1].headers
    assert server.requests[1].headers["x-two"] == "2"
    send(engine, request(f"{server.url}/answer"))
    assert not {"x-one", "x-two"} & server.requests[2].headers.keys()


def test_a_handle_keeps_nothing_of_the_answers_it_has_given(
    server: ScriptedServer, engine: Engine[str]
) -> None:
    """Memory does not grow with the number of requests."""
    lines = []
    for _ in range(3):
        response = send(engine, request(f"{server.url}/answer"))
        assert isinstance(response, Response)
        assert isinstance(response.headers, HeaderLines)
        lines.append(len(response.headers._lines))
    assert len(set(lines)) == 1


def test_a_server_with_a_foreign_certificate_is_sent_nothing(server: ScriptedServer) -> None:
    """Only the channel's own authorities count, and the failure is certain."""
    engine: Engine[str] = Engine()
    ended = send(engine, request(f"{server.url}/answer"))
    engine.close()
    assert isinstance(ended, NotSent)
    assert ended.reason.startswith("curl 60 PEER_FAILED_VERIFICATION")
    assert server.requests == []


def test_a_get_has_no_body(server: ScriptedServer, engine: Engine[str]) -> None:
    """The engine can also ask."""
    response = send(engine, request(f"{server.url}/answer", method="GET"))
    assert isinstance(response, Response)
    assert server.requests[0].headers[":method"] == "GET"
    assert server.requests[0].body == b""


@pytest.mark.parametrize("is_resend_allowed", [True, False])
def test_the_whole_body_arrives(
    server: ScriptedServer, engine: Engine[str], *, is_resend_allowed: bool
) -> None:
    """Also a large one that is read once only, twice over the same handle."""
    for body in (b"x" * 300_000, b"short"):
        response = send(
            engine, request(f"{server.url}/answer", body=body, is_resend_allowed=is_resend_allowed)
        )
        assert isinstance(response, Response)
        assert server.requests[-1].body == body


def test_redirects_are_answers(server: ScriptedServer, engine: Engine[str]) -> None:
    """Nothing follows them, and so nothing sends credentials elsewhere."""
    response = send(engine, request(f"{server.url}/location"))
    assert isinstance(response, Response)
    assert response.status == 302
    assert server.paths() == ["/location"]


@pytest.mark.parametrize("once", [True, False])
def test_a_refused_stream_is_sent_again_only_if_allowed(
    server: ScriptedServer, engine: Engine[str], *, once: bool
) -> None:
    """Libcurl repeats what the server says it never began; a message to be dropped is left at that."""
    refused = request(f"{server.url}/reset?code=REFUSED_STREAM&once=1", is_resend_allowed=not once)
    ended = send(engine, refused)
    assert isinstance(ended, AnswerUnknown if once else Response)
    assert len(server.requests) == (1 if once else 2)


def test_a_resent_request_that_meets_a_closed_door_is_unknown(
    server: ScriptedServer, engine: Engine[str]
) -> None:
    """The second connection fails before TLS, but the first one had carried the request."""
    ended = send(engine, request(f"{server.url}/goaway?last=0&deaf=1"))
    assert len(server.requests) == 1
    assert isinstance(ended, AnswerUnknown)
    assert ended.reason.split()[1] in {"7", "35"}


def test_an_aborted_connection_is_unknown(server: ScriptedServer, engine: Engine[str]) -> None:
    """The request had arrived in full."""
    assert isinstance(send(engine, request(f"{server.url}/abort")), AnswerUnknown)


def test_reset_connections_lets_old_requests_end_where_they_are(
    server: ScriptedServer, engine: Engine[str]
) -> None:
    """What is in flight keeps its connection, what comes later gets a new one."""
    engine.submit(request(f"{server.url}/hang", timeout=timedelta(seconds=60)), "old")
    poll_until_received(engine, server, 1)
    engine.reset_connections()
    engine.submit(request(f"{server.url}/answer"), "new")
    ended = poll_until_received(engine, server, 2)
    while not ended:
        ended.update(engine.poll(0.1))
    assert isinstance(ended["new"], Response)
    assert engine.in_flight == 1
    assert [item.connection for item in server.requests] == [1, 2]


def test_poll_without_requests_returns_at_once(engine: Engine[str]) -> None:
    """A worker with nothing in flight is not held."""
    started = time.monotonic()
    assert engine.poll(5) == []
    assert time.monotonic() - started < 1


def test_poll_gives_back_control_in_time(server: ScriptedServer, engine: Engine[str]) -> None:
    """A hanging vendor does not hold the loop that renews a lease."""
    engine.submit(request(f"{server.url}/hang"), "it")
    started = time.monotonic()
    assert engine.poll(0.1) == []
    assert time.monotonic() - started < 1


def test_waiting_costs_nothing_with_a_thousand_open_files(server: ScriptedServer) -> None:
    """Descriptors beyond 1,023 are watched like any other; `CurlMulti.select` would spin."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine allows fewer than 2,048 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    engine: Engine[str] = Engine(ca_file=server.ca_file)
    try:
        engine.submit(request(f"{server.url}/hang", timeout=timedelta(seconds=2)), "it")
        before = time.process_time()
        assert isinstance(finish(engine)["it"], AnswerUnknown)
        assert time.process_time() - before < 0.5
    finally:
        engine.close()
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_process_is_refused(server: ScriptedServer, engine: Engine[str]) -> None:
    """A fork would share TLS connections with its parent: every use in the child raises."""
    send(engine, request(f"{server.url}/answer"))
    child = os.fork()
    if child == 0:
        refused = 0
        for use in (lambda: engine.submit(request(server.url), "it"), lambda: engine.poll(0), engine.close):
            try:
                use()
            except RuntimeError:
                refused += 1
        os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert isinstance(send(engine, request(f"{server.url}/answer")), Response)


def test_a_hanging_handshake_is_certain(engine: Engine[str]) -> None:
    """TLS that never completes has carried nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ended = send(engine, request(f"https://127.0.0.1:{port}/", timeout=timedelta(seconds=1)))
    assert isinstance(ended, NotSent)
    assert ended.reason.startswith("curl 28 OPERATION_TIMEDOUT")


def test_forbidden_address_is_not_connected_to(server: ScriptedServer) -> None:
    """A host that somebody else chose is judged by the address that it leads to, when it is connected to."""
    for reach, kind in ((Reach(), NotSent), (Reach(LOOPBACK), Response)):
        engine: Engine[str] = Engine(ca_file=server.ca_file, reach=reach)
        assert isinstance(send(engine, request(f"{server.url}/answer")), kind)
        engine.close()
