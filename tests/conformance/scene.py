"""A simulator and a client facing it, and what a conformance test does with them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from events import DirectPush, Message
from providers import create_client
from providers.client import Client
from providers.outcome import Answer, ChannelConfig, Content, Outcome, Push, SendError
from providers.simulators.launch import Running
from tests.conformance.vendors import Vendor

_NOTIFICATIONS = count(7_000_000_000)
HELLO = Message(title="Shipped", body="Order 812 is on its way", data={"order": "812"})


@dataclass
class Clock:
    """A clock that a test can put forward."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Scene:
    """One vendor's simulator, and clients for it that are closed when the test ends."""

    vendor: Vendor
    simulator: Running
    clock: Clock = field(default_factory=Clock)
    clients: list[Client] = field(default_factory=list)

    def config(self, **changes: Any) -> ChannelConfig:
        """The simulator's own channel, with changes."""
        return replace(self.vendor.config(self.simulator.info), **changes)

    def client(self, **changes: Any) -> Client:
        """A new client, connected to nothing yet."""
        client = create_client(self.config(**changes), now=self.clock)
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients:
            client.close()

    def misbehave(self, word: str, tokens: Sequence[str], **limits: Any) -> None:
        """Let the simulator give these tokens the answer that the vendor has for one of the suite's words."""
        answer = self.vendor.answers.get(word, {"answer": word})
        self.simulator.rules([{"tokens": list(tokens), **answer, **limits}])

    def receipts(self, *pushes: Push) -> Counter[str]:
        """How often each of these pushes' tokens received its notification."""
        wanted = {(push.token, str(push.content.notification_id)) for push in pushes}
        lines = ((line["token"], line["notification"]) for line in self.simulator.receipts())
        return Counter(token for token, notification in lines if (token, notification) in wanted)


def content(message: Message = HELLO, *, lives: timedelta = timedelta(hours=1)) -> Content:
    """A notification with an id of its own."""
    return Content(
        notification_id=next(_NOTIFICATIONS),
        event=DirectPush(app="shop", users=("u7",), message=message),
        expires_at=datetime.now(UTC) + lives,
    )


def pushes(
    vendor: Vendor, number: int, of: Content | None = None, *, first: int = 0, **fields: Any
) -> list[Push]:
    """Pushes of one notification to devices of their own."""
    of = of or content()
    return [
        Push(
            position=index, token=vendor.token(first + index), content=of, delivery_id=str(uuid4()), **fields
        )
        for index in range(number)
    ]


def send(client: Client, to_send: Sequence[Push], *, seconds: float = 20) -> list[Answer]:
    """Send as a worker does, until each push has an answer, and check that it has one and not more."""
    batches = client.prepare(to_send)[::-1]
    answers: list[Answer] = []
    deadline = time.monotonic() + seconds
    while batches or client.in_flight:
        while batches and client.in_flight < client.max_in_flight:
            client.submit(batches.pop())
        answers += client.poll(0.2)
        assert time.monotonic() < deadline, f"{client.in_flight} of {len(to_send)} pushes unanswered"
    assert sorted(id(answer.push) for answer in answers) == sorted(id(push) for push in to_send)
    return answers


def outcomes(answers: Sequence[Answer]) -> Mapping[str, Outcome | SendError]:
    """The outcomes by token."""
    return {answer.push.token: answer.outcome for answer in answers}
