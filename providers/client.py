"""The one client that workers use: keeps a provider's requests in flight and returns an answer for each push.

1. `prepare` renders pushes into batches; what is refused here comes back from the next `poll`.
2. `submit` adds the authorization and hands a batch to the engine.
3. `poll` returns answers. A response that only says "your credential expired" or "use another connection" is
   no answer: the remedy is applied once and the very same request goes out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from providers.engine import Engine, Request, Response
from providers.outcome import Answer, CredentialsRejected, NotSent, Outcome, Push, SendError
from providers.provider import Batch, Provider, ReceiptSource, Remedy, Split, Verdict


@dataclass(slots=True, kw_only=True)
class Flight:
    """One request on its way: what it was sent with, and whether a remedy was tried for it."""

    batch: Batch
    authorization: tuple[str, ...]
    generation: int
    is_second_try: bool = False


class Client:
    """Sends one channel's pushes. Owns the engine; used by one thread of one process, never across a fork."""

    def __init__(self, provider: Provider, engine: Engine[Flight], *, max_in_flight: int) -> None:
        self._provider = provider
        self._engine = engine
        self._max_in_flight = max_in_flight
        self._ready: list[Answer] = []
        self._generation = 0
        self._lines: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())

    @property
    def name(self) -> str:
        """`fcm`, `apns` or `jpush`."""
        return self._provider.name

    @property
    def batch_limit(self) -> int:
        """How many pushes one request may carry."""
        return self._provider.batch_limit

    @property
    def max_in_flight(self) -> int:
        """How many batches use all streams of all connections; more would wait inside, on their time-out."""
        return self._max_in_flight

    @property
    def in_flight(self) -> int:
        """How many batches and ready answers a `poll` has still to return: at 0 nothing is outstanding."""
        return self._engine.in_flight + len(self._ready)

    def prepare(self, pushes: Sequence[Push]) -> list[Batch]:
        """Render and bundle; sends nothing. Pushes refused here are in the answers of the next `poll`."""
        prepared = self._provider.prepare(pushes)
        self._ready += prepared.answers
        return prepared.batches

    def submit(self, batch: Batch) -> None:
        """Start sending. Without a usable authorization its pushes are answered so by the next `poll`."""
        self._start(batch, is_second_try=False)

    def poll(self, timeout_seconds: float) -> list[Answer]:
        """Return the answers that are there, waiting for the first up to `timeout_seconds`."""
        completed = self._engine.poll(0.0 if self._ready else timeout_seconds)
        answers, self._ready = self._ready, []
        for flight, ended in completed:
            answers += self._answers(flight, ended)
        return answers

    def check(self) -> None:
        """Ask the vendor whether the credentials work, sending nothing to a device.

        Raises `CredentialsRejected` or `NotSent` with a reason an operator can act on.
        """
        self._provider.check()

    def poll_receipts(
        self, message_id: str, tokens: Sequence[str], sent_at: datetime
    ) -> Mapping[str, Outcome | None]:
        """Ask what became of a provisionally accepted request; `None` for tokens not known about yet."""
        if isinstance(self._provider, ReceiptSource):
            return self._provider.poll_receipts(message_id, tokens, sent_at)
        return dict.fromkeys(tokens)

    def close(self) -> None:
        """Close all connections; what is still in flight is abandoned without an answer."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, batch: Batch, *, is_second_try: bool) -> None:
        try:
            authorization = self._provider.authorize()
        except (CredentialsRejected, NotSent) as error:
            self._ready += _to_all(batch, error)
            return
        request = Request(
            url=batch.url,
            headers=self._with_authorization(batch.headers, authorization),
            body=batch.body,
            timeout=batch.timeout,
            is_resend_allowed=batch.is_resend_allowed,
        )
        flight = Flight(
            batch=batch, authorization=authorization, generation=self._generation, is_second_try=is_second_try
        )
        self._engine.submit(request, flight)

    def _with_authorization(
        self, headers: tuple[str, ...], authorization: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Join header lines, as the same object while both are the same: the engine then sets nothing."""
        last_headers, last_authorization, joined = self._lines
        if headers is not last_headers or authorization is not last_authorization:
            joined = headers + authorization
            self._lines = (headers, authorization, joined)
        return joined

    def _answers(self, flight: Flight, ended: Response | SendError) -> list[Answer]:
        if isinstance(ended, SendError):
            return _to_all(flight.batch, ended)
        result = self._provider.classify(flight.batch, ended)
        if isinstance(result, Split):
            for part in result.batches:
                self._start(part, is_second_try=False)
            return result.answers
        if not isinstance(result, Verdict):
            return result
        if flight.is_second_try:
            return _to_all(flight.batch, result.otherwise)
        self._apply(result.remedy, flight)
        self._start(flight.batch, is_second_try=True)
        return []

    def _apply(self, remedy: Remedy, flight: Flight) -> None:
        """Apply a remedy once for all the requests that shared the same credential or connections."""
        if remedy is Remedy.REAUTHORIZE and flight.authorization is self._lines[1]:
            self._provider.reauthorize()
        elif remedy is Remedy.RECONNECT and flight.generation == self._generation:
            self._engine.reset_connections()
            self._generation += 1


def _to_all(batch: Batch, outcome: Outcome | SendError) -> list[Answer]:
    return [Answer(push=push, outcome=outcome) for push in batch.pushes]
