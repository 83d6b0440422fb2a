"""Replay dead letters: what could not be taken in or delivered comes in again, through the one door.

1. A letter about what came in (undecodable, invalid, conflict) gives its events, if they are valid by now. An event
   keeps its own id, so that a producer who has repeated it meanwhile does not push twice; one whose id is taken by
   other content, which a conflict says, gets an id made of the letter's.
2. A letter about a delivery (poison, exhausted) gives what its notification said, under an id made of the letter's,
   planned for the very device of the letter: neither the user's other devices nor other recipients hear of it again.
   A lifetime counts anew; a fixed deadline stays.
3. Everything is one transaction: taken in, planned for the device, and noted on the letter. Replayed again, or by two
   people at once, a letter leads to the same notification.

    NotReplayable      the letter stays as it is: says why, and what to do
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from events import DirectPush, Event, InvalidEvent, decode
from registry import dead_letters, notifications
from registry.database import Connection
from registry.dead_letters import DELIVERIES, Kind, Letter
from registry.notifications import Intake, TakenIn

from .dead_letters import LONGEST_BODY
from .intake import Door, check, take_in

_TASK_PARTS: Final = 3


class NotReplayable(Exception):
    """A dead letter cannot be taken in: the message says why, and what to do; it may have several lines."""


class _Undone(Exception):
    """Roll back: it was a rehearsal."""

    def __init__(self, answers: Sequence[TakenIn]) -> None:
        super().__init__(answers)
        self.answers = answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a dead letter was taken in as. `is_new`: by this call, not before."""

    letter_id: int
    notification_ids: Sequence[int]
    events: Sequence[Event] = ()
    is_new: bool


def key_of(letter: Letter) -> str:
    """Make the idempotency key under which a letter is taken in where its event has none that can be kept."""
    return f"dead-letter.{letter.id}"


def replay(door: Door, letter: Letter, *, is_rehearsal: bool = False, has_new_id: bool = False) -> Replayed:
    """Take a dead letter in, once. A letter that was replayed before answers as what, and nothing happens.

    A rehearsal does the same and undoes it; its notification's id names nothing then, unless it was there before.
    `has_new_id` gives up the event's own id, and with it the protection against a producer who repeats it.
    Raises `NotReplayable`, `DatabaseUnavailable`.
    """
    if letter.replayed_as is not None:
        return Replayed(letter_id=letter.id, notification_ids=[letter.replayed_as], is_new=False)
    if letter.kind in DELIVERIES:
        events = [door.database.run(lambda connection: _of_delivery(connection, letter))]
    else:
        events = _of_body(letter, has_new_id=has_new_id or letter.kind is Kind.CONFLICT)
    _check(door, events)

    def settle(connection: Connection, answers: Sequence[TakenIn]) -> None:
        _settle(connection, letter, answers)
        if is_rehearsal:
            raise _Undone(answers)

    try:
        answers = take_in(door, events, before_planning=settle)
    except _Undone as undone:
        answers = list(undone.answers)
    return Replayed(
        letter_id=letter.id,
        notification_ids=[answer.notification_id for answer in answers if answer.notification_id is not None],
        events=events,
        is_new=any(answer.status is Intake.TAKEN_IN for answer in answers),
    )


def _settle(connection: Connection, letter: Letter, answers: Sequence[TakenIn]) -> None:
    """Refuse what the door refused, plan a delivery for its device, and note the replay on the letter."""
    for answer in answers:
        if answer.status is Intake.CONFLICT:
            raise NotReplayable(
                f"the id {answer.event_id} was taken in with other content as notification "
                f"{answer.notification_id}: drop the letter if that replaced it, or replay it with --new-id"
            )
        if answer.notification_id is None:
            raise NotReplayable("its app is not there any more: pushfan app add, or drop the letter")
    first = answers[0]
    assert first.notification_id is not None
    is_for_device = letter.kind in DELIVERIES and first.status is Intake.TAKEN_IN
    if is_for_device and not notifications.plan_device(
        connection, first.notification_id, letter.device_id or 0
    ):
        raise NotReplayable(_LEFT)
    dead_letters.note_replay(connection, letter.id, first.notification_id)


_LEFT: Final = (
    "the device was retired, uninstalled or taken over: there is nobody to send it to; drop the letter, or "
    "send the user something new"
)


def _of_delivery(connection: Connection, letter: Letter) -> Event:
    """Read what the delivery said, as an event of its own."""
    delivery = dead_letters.find_delivery(connection, letter.id)
    if not delivery.is_in_use or delivery.user_id is None:
        raise NotReplayable(_LEFT)
    if delivery.is_cancelled:
        raise NotReplayable(f"notification {letter.notification_id} was cancelled: drop the letter")
    if delivery.event is None:
        raise NotReplayable(
            f"what notification {letter.notification_id} said is not kept any more (PUSHFAN_CONTENT_HOURS): "
            "publish it again, or drop the letter"
        )
    try:
        event = decode(delivery.event)
    except InvalidEvent as error:
        raise _refused("what the notification said cannot be read", error) from error
    if event.expires_at is not None and delivery.is_expired:
        raise NotReplayable(
            f"its deadline, {event.expires_at.isoformat()}, has passed: publish it again with another, or drop "
            "the letter"
        )
    if isinstance(event, DirectPush):
        event = replace(event, users=(delivery.user_id,))
    return replace(event, id=key_of(letter))


def _of_body(letter: Letter, *, has_new_id: bool) -> list[Event]:
    """Read the events of what came in."""
    wires = _wires(letter.body)
    keys = [key_of(letter) if len(wires) == 1 else f"{key_of(letter)}.{index}" for index in range(len(wires))]
    try:
        events = [decode(wire, id_if_missing=key) for wire, key in zip(wires, keys, strict=True)]
    except InvalidEvent as error:
        raise _refused("it is no valid event", error) from error
    if has_new_id:
        return [replace(event, id=key) for event, key in zip(events, keys, strict=True)]
    return events


def _wires(body: str | None) -> Sequence[object]:
    """Find events in wire form: one, several, or those of a task message's arguments."""
    try:
        found: Any = json.loads(body or "")
    except ValueError:
        is_cut = body is not None and len(body) >= LONGEST_BODY
        why = "it was too long to be kept whole" if is_cut else "what came in is no JSON"
        raise NotReplayable(f"{why}: publish the event again, and drop the letter") from None
    if isinstance(found, list) and len(found) == _TASK_PARTS and isinstance(found[1], dict):
        found = found[1].get("events") if "events" in found[1] else found
    wires = found if isinstance(found, list) else [found]
    if not wires or not all(isinstance(wire, dict) and "kind" in wire for wire in wires):
        raise NotReplayable(
            "there is no event in what came in: publish it again as one, and drop the letter (pushfan "
            "dead-letter show tells what it was)"
        )
    return wires


def _check(door: Door, events: Iterable[Event]) -> None:
    for event in events:
        try:
            check(door, event)
        except InvalidEvent as error:
            raise _refused(f"its event {event.id} is refused", error) from error


def _refused(what: str, error: InvalidEvent) -> NotReplayable:
    return NotReplayable(f"{what}: publish it corrected, and drop the letter\n{error}")
