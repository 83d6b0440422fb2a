"""A provider that does as it is told, and announcements that are only noted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from celery import Celery

from providers.client import Client
from providers.outcome import Accepted, Answer, ChannelConfig, Outcome, Push, SendError
from providers.provider import Batch
from workers.announce import Announcer


class Killed(BaseException):
    """The process ends here: nothing more of it runs, and nobody catches this."""


@dataclass(slots=True)
class Vendor:
    """What the vendor's side sees and says. Every push is accepted unless its token, or all of them, have a script.

    `answers` are used up one by one, the last one stays. `on_prepare`, `on_submit` and `on_poll` run before
    anything else and may raise.
    """

    answers: dict[str, list[Outcome | SendError]] = field(default_factory=dict)
    to_all: Outcome | SendError | None = None
    received: list[Push] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)
    closed: int = 0
    batch_limit: int = 1
    makes_tags: bool = False
    is_provisional: bool = False
    answers_at_once: int = 1_000_000
    on_prepare: Callable[[], None] = lambda: None
    on_submit: Callable[[Push], None] = lambda _push: None
    on_poll: Callable[[float], None] = lambda _seconds: None
    receipts: dict[str, Outcome | None] = field(default_factory=dict)
    configs: list[ChannelConfig] = field(default_factory=list)

    def create(self, config: ChannelConfig) -> Client:
        """Make a client of one process."""
        self.configs.append(config)
        return cast(Client, FakeClient(self))

    def answer(self, token: str, *outcomes: Outcome | SendError) -> None:
        """Say what a token's pushes are answered from now on."""
        self.answers[token] = list(outcomes)

    def outcome(self, push: Push) -> Outcome | SendError:
        """Answer one push."""
        script = self.answers.get(push.token)
        if script:
            return script.pop(0) if len(script) > 1 else script[0]
        if self.to_all is not None:
            return self.to_all
        return Accepted(message_id=f"id-{push.request_tag or push.token}", provisional=self.is_provisional)

    @property
    def tokens(self) -> Counter[str]:
        """Count pushes received for each token."""
        return Counter(push.token for push in self.received)


class FakeClient:
    """Stands where `providers.client.Client` does."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._out: list[Push] = []
        self._made = 0
        self.name = "fake"
        self.max_in_flight = 1000

    @property
    def batch_limit(self) -> int:
        """How many pushes one request may carry."""
        return self._vendor.batch_limit

    @property
    def in_flight(self) -> int:
        """Count pushes whose answer nobody took."""
        return len(self._out)

    def prepare(self, pushes: Sequence[Push]) -> list[Batch]:
        """Bundle pushes, each with those of the same tag, and give new requests a tag."""
        self._vendor.on_prepare()
        groups: dict[str | None, list[Push]] = defaultdict(list)
        for push in pushes:
            groups[push.request_tag].append(push)
        return [
            self._batch(tag, members[start : start + self.batch_limit])
            for tag, members in groups.items()
            for start in range(0, len(members), self.batch_limit)
        ]

    def submit(self, batch: Batch) -> None:
        """Let the vendor receive a request."""
        for push in batch.pushes:
            self._vendor.on_submit(push)
            self._vendor.received.append(push)
            self._vendor.tags.append(batch.request_tag)
            self._out.append(push)

    def poll(self, timeout_seconds: float) -> list[Answer]:
        """Answer what was received, as many at once as the vendor does."""
        self._vendor.polls.append(timeout_seconds)
        self._vendor.on_poll(timeout_seconds)
        count = self._vendor.answers_at_once
        answered, self._out = self._out[:count], self._out[count:]
        return [Answer(push=push, outcome=self._vendor.outcome(push)) for push in answered]

    def poll_receipts(
        self, message_id: str, tokens: Sequence[str], sent_at: datetime
    ) -> Mapping[str, Outcome | None]:
        """Say what became of a provisional acceptance."""
        return {token: self._vendor.receipts.get(token) for token in tokens}

    def close(self) -> None:
        """Count that a client was closed."""
        self._vendor.closed += 1
        self._out.clear()

    def _batch(self, tag: str | None, pushes: list[Push]) -> Batch:
        if tag is None and self._vendor.makes_tags:
            self._made += 1
            tag = f"request-{id(self)}-{self._made}"
        return Batch(
            pushes=tuple(pushes),
            url="https://vendor.test/",
            headers=(),
            body=b"",
            timeout=timedelta(seconds=1),
            request_tag=tag,
        )


class Notes(Announcer):
    """Notes what would be announced over the broker."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.tasks: list[dict[str, Any]] = []

    def _send(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks += tasks

    def kwargs(self, name: str) -> list[dict[str, Any]]:
        """List the arguments of the announced tasks of one name."""
        return [task["kwargs"] for task in self.tasks if task["name"] == name]
