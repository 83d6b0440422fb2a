"""Take events in: check them, store them, plan what fits, and announce the first chunks.

1. Decode. What is not a valid event is refused with every problem.
2. Check what only a provider's dialect can tell: forbidden overrides, sizes.
3. In one transaction store the events, each once for its (app, id), and plan those that fit in a page.
4. After the commit announce chunks, as many as the windows have room for.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import structlog

from events import Event, InvalidEvent, decode, encode
from providers import check_event
from registry import ledger, notifications
from registry.database import Connection, Database
from registry.errors import DatabaseUnavailable
from registry.ledger import Published
from registry.notifications import DeadLetter, Intake, TakenIn

from .announce import Announcer
from .dead_letters import LONGEST_BODY
from .intake_queue import IntakeQueue, Waiting
from .settings import Settings

log = structlog.get_logger()

_FRESH_SECONDS = 5.0
# So many events are worth a transaction and a task of their own: nothing is taken along.
_ENOUGH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What every way in works with. Safe to share between threads. `queue` is where more may wait."""

    settings: Settings
    database: Database
    announcer: Announcer
    queue: IntakeQueue | None = None
    _used: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)

    def providers_of(self, app: str) -> frozenset[str]:
        """Tell which providers an app's events can reach, as of a few seconds ago."""
        known_at, used = self._used.get(app, (-math.inf, frozenset()))
        if time.monotonic() - known_at > _FRESH_SECONDS:
            used = self.database.run(lambda connection: notifications.providers_in_use(connection, app))
            self._used[app] = (time.monotonic(), used)
        return used


def check(door: Door, event: Event) -> None:
    """Raise `InvalidEvent` with everything that the dialects of the app's providers refuse about an event."""
    problems = check_event(event, door.providers_of(event.app))
    if problems:
        raise InvalidEvent(problems)


def take_in(
    door: Door,
    events: Sequence[Event],
    *,
    patience_seconds: float = 30.0,
    is_patient: bool = True,
    before_planning: Callable[[Connection, Sequence[TakenIn]], None] | None = None,
) -> list[TakenIn]:
    """Take in valid events, all in one transaction. One answer for each, in their order.

    `before_planning` is told the answers within that transaction; what it raises undoes everything.
    Raises `DatabaseUnavailable`; calling again with the same events is safe. Without patience also `Busy`, when
    another transaction that is still open publishes one of these ids.
    """
    wires = [encode(event) for event in events]

    def work(connection: Connection) -> tuple[list[TakenIn], _Started]:
        if not is_patient:
            notifications.wait_briefly(connection)
        answers = notifications.take_in(connection, wires)
        if before_planning is not None:
            before_planning(connection, answers)
        fresh = [
            answer.notification_id
            for answer in answers
            if answer.status is Intake.TAKEN_IN and answer.notification_id is not None
        ]
        return answers, _start(door, connection, fresh)

    answers, started = door.database.run(work, patience_seconds=patience_seconds)
    door.announcer.chunks(started.chunks)
    door.announcer.plans(started.unplanned)
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """What to announce after the commit."""

    chunks: Sequence[Published] = ()
    unplanned: Sequence[int] = ()


def _start(door: Door, connection: Connection, fresh: Sequence[int]) -> _Started:
    if not fresh:
        return _Started()
    limits = door.settings
    pages = notifications.plan_new(
        connection, fresh, chunk_size=limits.chunk_size, page_size=limits.page_size
    )
    chunks = ledger.dispatch(connection, sorted(pages.channel_ids)) if pages.channel_ids else []
    return _Started(chunks=chunks, unplanned=pages.unplanned)


def take_in_message(door: Door, wires: object, *, message_id: str) -> dict[str, int]:
    """Take in what a broker message carries, and what waits behind it. What cannot be taken in is a dead letter.

    An event without an id gets one made of `message_id`, which is the same when the message is seen again.

    Returns counts by status. Raises `Busy` and `DatabaseUnavailable`: then the message must be seen again.
    """
    if not isinstance(wires, Sequence) or isinstance(wires, (str, bytes)):
        _bury(door, [DeadLetter(kind="invalid", error="events: must be a list", body=_shown(wires))])
        return {"invalid": 1}
    own = (message_id, wires)
    with _more(door, len(wires)) as waiting:
        if waiting:
            try:
                return _take_in_messages(door, [own, *((message.id, message.wires) for message in waiting)])
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001  whatever is wrong with another's event is not this one's fault
                log.warning("intake_alone", messages=len(waiting), error=str(error))
                waiting.clear()
        return _take_in_messages(door, [own])


def _more(door: Door, own: int) -> AbstractContextManager[list[Waiting]]:
    return nullcontext([]) if door.queue is None or own >= _ENOUGH else door.queue.waiting()


def _take_in_messages(door: Door, messages: Sequence[tuple[str, Sequence[object]]]) -> dict[str, int]:
    """Take in the events of several messages, given as (id, wires), in one transaction."""
    events: list[Event] = []
    letters: list[DeadLetter] = []
    for message_id, wires in messages:
        valid, invalid = _sort(door, wires, message_id)
        events += valid
        letters += invalid
    refused = len(letters)
    answers = take_in(door, events, is_patient=False) if events else []
    for event, answer in zip(events, answers, strict=True):
        if answer.status in _REFUSED:
            kind, error = _REFUSED[answer.status]
            letters.append(
                DeadLetter(
                    kind=kind, error=error.format(event=event), app=event.app, body=_shown(encode(event))
                )
            )
    _bury(door, letters)
    counts: dict[str, int] = {"invalid": refused} if refused else {}
    for answer in answers:
        counts[answer.status.value] = counts.get(answer.status.value, 0) + 1
    return counts


_REFUSED: Mapping[Intake, tuple[str, str]] = {
    Intake.CONFLICT: ("conflict", "the id {event.id} was taken in before with other content"),
    Intake.UNKNOWN_APP: ("invalid", "app: there is no app {event.app}; pushfan app add {event.app}"),
}


def _sort(door: Door, wires: Sequence[object], message_id: str) -> tuple[list[Event], list[DeadLetter]]:
    """Part what is valid from what is not."""
    events: list[Event] = []
    letters: list[DeadLetter] = []
    for index, wire in enumerate(wires):
        try:
            event = decode(wire, id_if_missing=f"{message_id}.{index}")
            check(door, event)
            events.append(event)
        except InvalidEvent as error:
            app = wire.get("app") if isinstance(wire, Mapping) else None
            letters.append(
                DeadLetter(
                    kind="invalid",
                    error=str(error),
                    app=app if isinstance(app, str) else None,
                    body=_shown(wire),
                )
            )
    return events, letters


def _bury(door: Door, letters: Sequence[DeadLetter]) -> None:
    def work(connection: Connection) -> None:
        for letter in letters:
            notifications.store_dead_letter(connection, letter)

    if letters:
        door.database.run(work)


def _shown(body: Any) -> str:
    """Write a body as text that PostgreSQL can hold."""
    text = json.dumps(body, ensure_ascii=True, default=repr)
    return text.replace("\\u0000", "\\ufffd")[:LONGEST_BODY]
