"""The relay: moves events from an outbox into Pushfan, each once, those of one app in order.

1. For each app that has rows, and that no other relay is at: read its oldest rows.
2. Take them in. What is invalid becomes a dead letter, and does not hinder the rest.
3. When that is committed, delete them. A crash in between repeats them, which their ids make harmless.
4. With nothing to do, wait to be notified; a row that nobody told of is found by looking now and then.

Rows of an app that Pushfan does not know stay where they are until somebody adds the app. An app that cannot go on
rests, longer each time, and does not hinder others; while a database is away everything rests.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import structlog

from registry import apps as tenants
from registry import notifications, outbox
from registry.checks import APP_NAME, Problems
from registry.database import Connection, Database, is_transient
from registry.errors import DatabaseUnavailable, NotFound, RegistryError
from registry.notifications import DeadLetter
from registry.outbox import Row

from .dead_letters import LONGEST_BODY
from .intake import Door, take_in_message

log = structlog.get_logger()

_ROWS = 500
_BYTES = 4 * 1024 * 1024
_PATIENCE_SECONDS = 5.0
_FIRST_REST_SECONDS = 0.25
_LONGEST_REST_SECONDS = 30.0
_LOOK_SECONDS = 2.0  # between two looks when nothing is heard
_DEAF_LOOK_SECONDS = 0.25  # the same where nothing can be heard, as behind a pooler
_SLICE_SECONDS = 0.5  # of waiting, after which a stop is noticed
_BEAT_SECONDS = 5.0
# After so many steps that each found something, writers need not notify any more.
_STEPS_OF_LOAD = 3
_REPORT_SECONDS = 10.0


class _Waits(Exception):
    """An app's rows cannot be moved now; the text says what must happen."""


@dataclass(slots=True)
class _Rest:
    """How long an app is left alone, and what it waits for."""

    reason: str
    seconds: float = _FIRST_REST_SECONDS
    until: float = 0.0


class Relay:
    """Moves the rows of one outbox. Any number may run on it, each used by one thread.

    `name` tells relays apart. `apps` are the only ones whose rows it moves; none means all.
    """

    def __init__(self, door: Door, source: Database, *, name: str, apps: Collection[str] = ()) -> None:
        self._door = door
        self._source = source
        self._name = name
        self._apps = sorted(apps)
        self._installation = ""
        self._rests: dict[str, _Rest] = {}
        self._moved = 0
        self._is_waiting = False
        self._busy_steps = 0
        self._bell = Bell(source)
        self._beat_at = self._report_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Move until told to stop. Databases that are away are waited for, at growing distances."""
        rest = _Rest("")
        while not stop.is_set():
            try:
                if not self.step():
                    self._wait(stop)
                rest = _Rest("")
            except (RegistryError, psycopg.Error) as error:
                log.warning("relay_waits", error=str(error), follows=f"tried again in {rest.seconds:g} s")
                self._installation = ""  # perhaps it is another one when it is back
                self._bell.close()
                stop.wait(rest.seconds * random.uniform(0.5, 1))
                rest.seconds = min(2 * rest.seconds, _LONGEST_REST_SECONDS)
        self.close()

    def step(self) -> int:
        """Move one batch of each app. Returns how many rows are gone from the outbox."""
        self._installation = self._installation or outbox.check(self._source)
        waiting = self._source.run(
            lambda connection: outbox.apps(connection, self._apps), patience_seconds=_PATIENCE_SECONDS
        )
        moved = sum(self._move_if_due(app) for app in waiting)
        self._moved += moved
        self._rests = {app: rest for app, rest in self._rests.items() if app in waiting}
        self._busy_steps = self._busy_steps + 1 if moved else 0
        if self._is_waiting and self._busy_steps >= _STEPS_OF_LOAD:
            self._beat(waits=False)
        self._report()
        return moved

    def close(self) -> None:
        """Take leave, and close this thread's connections."""
        try:
            self._source.run(lambda connection: outbox.leave(connection, self._name), patience_seconds=1)
        except (RegistryError, psycopg.Error) as error:
            log.warning("relay_left_silently", error=str(error))
        self._bell.close()
        self._source.close()
        self._door.database.close()

    def _move_if_due(self, app: str) -> int:
        rest = self._rests.get(app)
        if rest is not None and time.monotonic() < rest.until:
            return 0
        try:
            moved = self._source.run(
                lambda connection: self._move(connection, app), patience_seconds=_PATIENCE_SECONDS
            )
            self._rests.pop(app, None)
            return moved
        except DatabaseUnavailable:
            raise
        except (_Waits, RegistryError) as error:
            self._let_rest(app, str(error))
            return 0

    def _let_rest(self, app: str, reason: str) -> None:
        before = self._rests.get(app)
        seconds = _FIRST_REST_SECONDS if before is None else min(2 * before.seconds, _LONGEST_REST_SECONDS)
        self._rests[app] = _Rest(reason, seconds, time.monotonic() + seconds)
        if before is None or before.reason != reason:
            log.warning("relay_app_waits", app=app, reason=reason, follows="its rows stay in the outbox")

    def _move(self, connection: Connection, app: str) -> int:
        """Move an app's next rows in one transaction of the outbox, which holds no lock that a writer could meet."""
        if not outbox.reserve(connection, app):
            return 0
        rows = outbox.read(connection, app, limit=_ROWS, size=_BYTES)
        if rows:
            self._refuse_unknown(app)
            self._take_in(rows, app)
            outbox.remove(connection, app, [row.id for row in rows])
        return len(rows)

    def _refuse_unknown(self, app: str) -> None:
        """Raise `_Waits` for an app that somebody may add yet. What can be no app's name is an invalid event."""
        problems = Problems()
        APP_NAME(app, "app", problems)
        if not problems.found:
            try:
                self._door.database.run(
                    lambda connection: tenants.get(connection, app), patience_seconds=_PATIENCE_SECONDS
                )
            except NotFound as error:
                raise _Waits(f"{error}; pushfan app add {app}") from error

    def _take_in(self, rows: Sequence[Row], app: str) -> None:
        """Take rows in. If one of them is more than PostgreSQL bears, halve until it is alone, and bury it."""
        try:
            take_in_message(self._door, [self._wire(row) for row in rows], message_id=self._installation)
        except (psycopg.Error, RecursionError) as error:
            if is_transient(error):
                raise
            if len(rows) == 1:
                self._bury(rows[0], app, error)
                return
            half = len(rows) // 2
            self._take_in(rows[:half], app)
            self._take_in(rows[half:], app)

    def _wire(self, row: Row) -> object:
        """Read a row's event; one without an id gets the row's, which is the same whenever it is read."""
        try:
            wire = json.loads(row.event)
        except (ValueError, RecursionError):
            return row.event
        if isinstance(wire, dict) and wire.get("id") is None:
            wire["id"] = f"outbox-{self._installation}-{row.id}"
        return wire

    def _bury(self, row: Row, app: str, error: Exception) -> None:
        letter = DeadLetter(
            kind="invalid",
            error=f"{type(error).__name__}: {error}",
            app=app,
            body=row.event[:LONGEST_BODY],
        )
        self._door.database.run(lambda connection: notifications.store_dead_letter(connection, letter))

    def _wait(self, stop: threading.Event) -> None:
        """Wait for new rows. The first time only say so: what was written before that nobody would tell of."""
        if not self._is_waiting or time.monotonic() >= self._beat_at:
            was_waiting = self._is_waiting
            self._bell.listen()
            self._beat(waits=True)
            if not was_waiting:
                return
        due = [rest.until for rest in self._rests.values()]
        look_at = min([time.monotonic() + self._bell.look_seconds, *due])
        while not stop.is_set() and (left := look_at - time.monotonic()) > 0:
            if self._bell.wait(min(left, _SLICE_SECONDS), stop):
                return

    def _beat(self, *, waits: bool) -> None:
        self._is_waiting = waits
        self._beat_at = time.monotonic() + _BEAT_SECONDS
        trouble = "; ".join(f"{app}: {rest.reason}" for app, rest in sorted(self._rests.items())) or None
        until = timedelta(seconds=2 * _BEAT_SECONDS if waits else 0)
        self._source.run(
            lambda connection: outbox.beat(
                connection,
                name=self._name,
                apps=self._apps,
                moved=self._moved,
                trouble=trouble,
                waits=until,
            ),
            patience_seconds=_PATIENCE_SECONDS,
        )

    def _report(self) -> None:
        """Log now and then what still waits, and say that we run also when there is no rest to do it in."""
        if time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + _REPORT_SECONDS
        for lag in self._source.run(lambda connection: outbox.lag(connection, self._apps)):
            log.info("relay_lag", app=lag.app, rows=lag.rows, oldest_seconds=round(lag.oldest_seconds, 3))
        if time.monotonic() >= self._beat_at:
            self._beat(waits=self._is_waiting)


class Bell:
    """Hears of new rows on a connection of its own. One that cannot be had, as behind a pooler, is done without."""

    def __init__(self, source: Database) -> None:
        self._database = Database(source.url, application_name="pushfan relay (listening)")
        self._heard_on: Connection | None = None

    @property
    def look_seconds(self) -> float:
        """How long a row that nobody told of may lie."""
        return _LOOK_SECONDS if self._heard_on is not None else _DEAF_LOOK_SECONDS

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for so long; `True` as soon as there is something new."""
        self.listen()
        if self._heard_on is None:
            stop.wait(seconds)
            return False
        try:
            return outbox.heard(self._heard_on, seconds)
        except psycopg.Error:
            self.close()
            return False

    def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        self._heard_on = None
        self._database.close()

    def listen(self) -> None:
        """Begin to hear, unless we do."""
        if self._heard_on is not None and not self._heard_on.closed:
            return
        try:
            connection = self._database.connection()
            outbox.listen(connection)
            self._heard_on = connection
        except psycopg.Error as error:
            log.warning("relay_does_not_hear", error=str(error), follows="it looks more often")
            self.close()
