"""The client's own rules: remedies are tried once, for all requests that shared what was wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from events import DirectPush, Message
from providers.client import Client, Flight
from providers.engine import Engine, Response
from providers.outcome import (
    Accepted,
    Answer,
    Content,
    CredentialsRejected,
    NotSent,
    Outcome,
    Push,
    Rejected,
    SendError,
)
from providers.provider import Batch, Prepared, Remedy, Verdict
from tests.conformance.scripted_server import ScriptedServer, scripted_server

CONTENT = Content(
    notification_id=7,
    event=DirectPush(app="shop", users=("u7",), message=Message(title="x")),
    expires_at=datetime(2026, 11, 24, tzinfo=UTC),
)


@dataclass
class Vendor:
    """A provider that refuses what was sent with one of some authorizations or over some connections."""

    url: str
    refused: set[str] = field(default_factory=set)
    helpless: bool = False
    remedy: Remedy = Remedy.REAUTHORIZE
    authorize_error: SendError | None = None
    reauthorized: int = 0
    name: str = "scripted"
    batch_limit: int = 2
    lines: tuple[str, ...] = ("authorization: key-0",)

    def prepare(self, pushes: Sequence[Push]) -> Prepared:
        good = [push for push in pushes if push.token != "bad"]
        pairs = [tuple(good[index : index + 2]) for index in range(0, len(good), 2)]
        answers = [
            Answer(push=push, outcome=Rejected(reason="bad")) for push in pushes if push.token == "bad"
        ]
        return Prepared(batches=[self.batch(pair) for pair in pairs], answers=answers)

    def batch(self, pushes: tuple[Push, ...]) -> Batch:
        body = ",".join(push.token for push in pushes).encode()
        return Batch(pushes=pushes, url=self.url, headers=(), body=body, timeout=timedelta(seconds=5))

    def authorize(self) -> tuple[str, ...]:
        if self.authorize_error is not None:
            raise self.authorize_error
        return self.lines

    def reauthorize(self) -> None:
        self.reauthorized += 1
        self.lines = (f"authorization: key-{self.reauthorized}",)

    def classify(self, batch: Batch, response: Response) -> list[Answer] | Verdict:
        sent_with = response.headers["x-connection"], response.headers["x-authorization"]
        if self.helpless or not self.refused.isdisjoint(sent_with):
            return Verdict(remedy=self.remedy, otherwise=CredentialsRejected("no use"))
        return [Answer(push=push, outcome=Accepted(message_id=push.token)) for push in batch.pushes]

    def check(self) -> None:
        """Nothing to check."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """An HTTP/2 server of this test's own."""
    with scripted_server(tmp_path) as server:
        yield server


@pytest.fixture
def vendor(server: ScriptedServer) -> Vendor:
    """A provider that accepts everything until told otherwise."""
    return Vendor(url=f"{server.url}/answer")


@pytest.fixture
def client(server: ScriptedServer, vendor: Vendor) -> Iterator[Client]:
    """A client of the scripted provider."""
    engine: Engine[Flight] = Engine(ca_file=server.ca_file, max_connections=1)
    with Client(vendor, engine, max_in_flight=50) as client:
        yield client


def send(client: Client, *tokens: str) -> Mapping[str, Outcome | SendError]:
    """Send one push to each token; the outcomes by token."""
    pushes = [
        Push(position=position, token=token, content=CONTENT, delivery_id="d")
        for position, token in enumerate(tokens)
    ]
    for batch in client.prepare(pushes):
        client.submit(batch)
    answers: list[Answer] = []
    deadline = time.monotonic() + 10
    while client.in_flight:
        answers += client.poll(0.2)
        assert time.monotonic() < deadline
    assert sorted(answer.push.position for answer in answers) == list(range(len(tokens)))
    return {answer.push.token: answer.outcome for answer in answers}


def test_a_batch_answers_for_each_of_its_pushes(client: Client, server: ScriptedServer) -> None:
    """Three pushes travel in two requests and come back as three answers."""
    assert send(client, "a", "b", "c") == {token: Accepted(message_id=token) for token in "abc"}
    assert sorted(request.body for request in server.requests) == [b"a,b", b"c"]


def test_pushes_refused_while_preparing_count_as_in_flight_until_polled(
    client: Client, server: ScriptedServer
) -> None:
    """A loop that runs until nothing is in flight gets them."""
    assert send(client, "bad") == {"bad": Rejected(reason="bad")}
    assert client.in_flight == 0
    assert server.requests == []


def test_an_expired_credential_is_renewed_once_for_all(
    client: Client, vendor: Vendor, server: ScriptedServer
) -> None:
    """Forty requests that were refused with the same authorization are sent again with one new one."""
    vendor.refused = {"key-0"}
    tokens = [f"t{number}" for number in range(80)]
    assert send(client, *tokens) == {token: Accepted(message_id=token) for token in tokens}
    assert vendor.reauthorized == 1
    sent_with = [request.headers["authorization"] for request in server.requests]
    assert sent_with.count("key-1") == 40
    assert set(sent_with) == {"key-0", "key-1"}


def test_a_remedy_that_does_not_help_ends_in_the_verdicts_other_outcome(
    client: Client, vendor: Vendor, server: ScriptedServer
) -> None:
    """Two tries and not more, for each push of the batch."""
    vendor.helpless = True
    outcomes = send(client, "a", "b")
    assert [type(outcome) for outcome in outcomes.values()] == [CredentialsRejected] * 2
    assert len(server.requests) == 2
    assert vendor.reauthorized == 1


def test_a_bad_connection_is_replaced_once_for_all(
    client: Client, vendor: Vendor, server: ScriptedServer
) -> None:
    """Requests that shared it share the new one."""
    vendor.refused, vendor.remedy = {"1"}, Remedy.RECONNECT
    tokens = [f"t{number}" for number in range(40)]
    assert send(client, *tokens) == {token: Accepted(message_id=token) for token in tokens}
    assert vendor.reauthorized == 0
    assert server.connections == 2


@pytest.mark.parametrize("error", [NotSent("token endpoint is down"), CredentialsRejected("invalid_grant")])
def test_without_an_authorization_nothing_is_sent(
    client: Client, vendor: Vendor, server: ScriptedServer, error: SendError
) -> None:
    """Each push is answered with the reason."""
    vendor.authorize_error = error
    assert send(client, "a", "b", "c") == dict.fromkeys("abc", error)
    assert server.requests == []


def test_a_provider_without_a_status_service_knows_no_receipts(client: Client) -> None:
    """The caller need not ask which provider it is."""
    assert client.poll_receipts("m1", ["a", "b"], datetime(2026, 11, 23, tzinfo=UTC)) == {
        "a": None,
        "b": None,
    }
