"""Group commit: requests that arrive together are taken in together, in one transaction.

1. A request adds its events to the group that gathers, and waits.
2. When no other group is being taken in, or that one takes too long, a thread gets the group, checks each event, and
   takes in the valid ones. Meanwhile the next group gathers: under load groups grow by themselves.
3. Every request is answered for itself. One that cannot be taken in never fails its neighbours: a group that fails
   is tried again request by request.

A transaction costs much before its first event, here, in PostgreSQL and in the worker that sends what it planned: two
groups at a time would only be two small ones. The second thread is for when one waits for another transaction's id.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg
import structlog

from events import Event, InvalidEvent
from registry.errors import DatabaseUnavailable, RegistryError
from registry.notifications import TakenIn
from workers import intake
from workers.intake import Door

from .crew import PATIENCE_SECONDS
from .problem import Problem

log = structlog.get_logger()

Outcome = TakenIn | InvalidEvent
_THREADS: Final = 2
# Longer than a group takes, also on a busy machine; less than it waits for another transaction's id.
_LONGEST_TURN_SECONDS: Final = 0.1
_MOST_IN_A_GROUP: Final = 500


@dataclass(slots=True, kw_only=True)
class _Order:
    """The events of one request. `outcomes` has a place for each; `error` is what became of all of them instead."""

    events: Sequence[Event]
    answered: asyncio.Future[Sequence[Outcome]]
    outcomes: list[Outcome | None] = field(default_factory=list)
    error: Exception | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Group:
    """Orders that are taken in together. `is_late`: the next group does not wait for this one."""

    orders: Sequence[_Order]
    is_late: bool = False


class Batcher:
    """Takes events in for the requests of one event loop. Groups are made in that loop, and served by threads."""

    def __init__(self, door: Door, *, most_waiting: int) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._most_waiting = most_waiting
        self._waiting = 0
        self._gathering: deque[_Order] = deque()
        self._start: asyncio.Handle | None = None
        self._out: list[_Group] = []
        self._queue: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"pushfan-intake-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    async def take_in(self, events: Sequence[Event]) -> Sequence[Outcome]:
        """Take events in; when this returns their rows are committed, or told why not.

        Raises `Problem` when too much waits, `RegistryError` when the database is away or something held.
        """
        if self._waiting + len(events) > self._most_waiting:
            raise Problem("overloaded", "too many events wait to be taken in", retry_after_seconds=1)
        order = _Order(events=events, answered=self._loop.create_future())
        self._waiting += len(events)
        try:
            self._gathering.append(order)
            self._arrange()
            return await order.answered
        finally:
            self._waiting -= len(events)

    async def close(self) -> None:
        """Take in what waits, and end the threads."""
        while self._gathering:
            self._hand_over()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _arrange(self) -> None:
        """Have the group that gathers served when its turn has come."""
        is_taken = len(self._out) == _THREADS or not all(group.is_late for group in self._out)
        if self._gathering and self._start is None and not is_taken:
            # Requests that the loop has at hand already shall join.
            self._start = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._start = None
        if not self._gathering:
            return
        orders: list[_Order] = []
        count = 0
        while self._gathering and count < _MOST_IN_A_GROUP:
            orders.append(self._gathering.popleft())
            count += len(orders[-1].events)
        group = _Group(orders=orders)
        self._out.append(group)
        self._queue.put(group)
        self._loop.call_later(_LONGEST_TURN_SECONDS, self._mind, group)

    def _mind(self, group: _Group) -> None:
        group.is_late = True
        self._arrange()

    def _conclude(self, group: _Group) -> None:
        self._out.remove(group)
        _answer(group.orders)
        self._arrange()

    def _run(self) -> None:
        while (group := self._queue.get()) is not None:
            self._serve(group.orders)
            self._loop.call_soon_threadsafe(self._conclude, group)
        self._door.database.close()

    def _serve(self, orders: Sequence[_Order]) -> None:
        try:
            self._check(orders)
            self._take_in(orders)
        except Exception as error:  # noqa: BLE001  the thread outlives whatever one group brings
            for order in orders:
                order.error = order.error or error

    def _check(self, orders: Sequence[_Order]) -> None:
        for order in orders:
            order.outcomes = [self._refusal(event) for event in order.events]

    def _refusal(self, event: Event) -> InvalidEvent | None:
        try:
            intake.check(self._door, event)
        except InvalidEvent as error:
            return error
        return None

    def _take_in(self, orders: Sequence[_Order]) -> None:
        """Take in the valid events of several orders, or of each alone where all together fail."""
        pairs = [(order, place) for order in orders for place, it in enumerate(order.outcomes) if it is None]
        if not pairs:
            return
        events = [order.events[place] for order, place in pairs]
        try:
            answers = intake.take_in(self._door, events, patience_seconds=PATIENCE_SECONDS, is_patient=False)
        except (RegistryError, psycopg.Error) as error:
            self._part(orders, error)
        else:
            for (order, place), answer in zip(pairs, answers, strict=True):
                order.outcomes[place] = answer

    def _part(self, orders: Sequence[_Order], error: Exception) -> None:
        if len(orders) == 1 or isinstance(error, DatabaseUnavailable):
            for order in orders:
                order.error = error
            return
        log.info("group_parted", requests=len(orders), reason=type(error).__name__)
        for order in orders:
            self._take_in([order])


def _answer(orders: Sequence[_Order]) -> None:
    for order in orders:
        if order.answered.done():  # its client has left
            continue
        if order.error is not None:
            order.answered.set_exception(order.error)
        else:
            order.answered.set_result([it for it in order.outcomes if it is not None])
