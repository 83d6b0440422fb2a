"""Group commit: requests that arrive together are taken in together, in one transaction.

1. A request puts its events on the queue and waits.
2. A thread takes all that is there and what comes within a moment, checks each event, and takes in the valid ones.
3. Every request is answered for itself. One that cannot be taken in never fails its neighbours: a group that fails
   is tried again request by request.

While one thread commits, the next group gathers: under load groups grow by themselves. Two threads, so that a group
that waits for another transaction's id does not hold up the rest.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
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
_GATHERING_SECONDS: Final = 0.002
_MOST_IN_A_GROUP: Final = 500


@dataclass(slots=True, kw_only=True)
class _Order:
    """The events of one request. `outcomes` has a place for each; `error` is what became of all of them instead."""

    events: Sequence[Event]
    answered: asyncio.Future[Sequence[Outcome]]
    outcomes: list[Outcome | None] = field(default_factory=list)
    error: Exception | None = None


class Batcher:
    """Takes events in for the requests of one event loop."""

    def __init__(self, door: Door, *, most_waiting: int) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._most_waiting = most_waiting
        self._waiting = 0
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
            self._queue.put(order)
            return await order.answered
        finally:
            self._waiting -= len(events)

    def close(self) -> None:
        """Take in what waits, and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            orders, is_open = self._gather()
            if orders:
                self._serve(orders)
        self._door.database.close()

    def _gather(self) -> tuple[list[_Order], bool]:
        """Wait for an order, and for more until the moment is over or the group is full."""
        orders: list[_Order] = []
        count, until = 0, 0.0
        while count < _MOST_IN_A_GROUP:
            try:
                order = self._queue.get(timeout=max(0.0, until - time.monotonic()) if orders else None)
            except queue.Empty:
                break
            if order is None:
                return orders, False
            until = until or time.monotonic() + _GATHERING_SECONDS
            orders.append(order)
            count += len(order.events)
        return orders, True

    def _serve(self, orders: list[_Order]) -> None:
        try:
            self._check(orders)
            self._take_in(orders)
        except Exception as error:  # noqa: BLE001  the thread outlives whatever one group brings
            for order in orders:
                order.error = order.error or error
        self._loop.call_soon_threadsafe(_answer, orders)

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
