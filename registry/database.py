"""One connection to PostgreSQL for each process and thread, opened when first used and reopened when it breaks.

A pool is not needed (a worker process does one thing at a time) and would not survive a fork; a connection
that a parent opened is never used by its child.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from .errors import Busy, DatabaseUnavailable

Connection = psycopg.Connection[DictRow]
T = TypeVar("T")

# A process that sleeps in the middle of a transaction loses its locks before those who wait for them give up: with a
# channel's row nobody could record what they have sent, and they and the next would send it once more.
_OPTIONS = (
    "-c statement_timeout=15s -c idle_in_transaction_session_timeout=4s -c lock_timeout=5s -c timezone=UTC"
)
# Deadlocks, cut connections, servers that restart, a session that was ended while this process slept, a server that is
# no primary any more or not yet: the transaction did not happen, or (a lost COMMIT reply) may have happened, which is
# why everything that runs here can be run again.
_TRANSIENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same work may succeed when it is run again."""
    if isinstance(error, (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)):
        return False
    return isinstance(error, _TRANSIENT)


class Database:
    """PostgreSQL as Pushfan uses it. Safe to share between threads and to carry over a fork."""

    def __init__(self, url: str, *, application_name: str = "pushfan") -> None:
        self.url = url
        self._application_name = application_name
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Database({self.address})"

    @property
    def address(self) -> str:
        """Where the server is, without a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname or 'local socket'}:{parts.port or 5432}{parts.path}"

    def connection(self) -> Connection:
        """Give this thread's connection, in autocommit mode, opening it if it is missing or broken."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed or self._local.pid != os.getpid():
            connection = self._open()
            self._local.connection, self._local.pid = connection, os.getpid()
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a block in one transaction. It commits at the end and rolls back on an exception."""
        connection = self.connection()
        with connection.transaction():
            yield connection

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        patience_seconds: float = 30.0,
        is_one_statement: bool = False,
    ) -> T:
        """Run `work(connection)` in one transaction, again if the connection breaks, for `patience_seconds`.

        The work must be one that may run twice: a lost reply to COMMIT looks like a failure. `is_one_statement`: it is
        a transaction by itself, which spares the round trips of BEGIN and COMMIT.
        Raises `DatabaseUnavailable` when patience ends, `Busy` when a lock is not to be had in time.
        """
        attempts = Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_delay(patience_seconds),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )
        try:
            result: T = attempts(self._once, work, is_one_statement=is_one_statement)
            return result
        except psycopg.errors.LockNotAvailable as error:
            raise Busy(
                f"another transaction at {self.address} holds what is needed: {_first_line(error)}"
            ) from error
        except _TRANSIENT as error:
            if not (is_transient(error) or isinstance(error, psycopg.errors.QueryCanceled)):
                raise
            raise DatabaseUnavailable(
                f"PostgreSQL at {self.address} does not answer: {_first_line(error)}"
            ) from error

    def close(self) -> None:
        """Close this thread's connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
        self._local.connection = None

    def _once(self, work: Callable[[Connection], T], *, is_one_statement: bool) -> T:
        try:
            if is_one_statement:
                return work(self.connection())
            with self.transaction() as connection:
                return work(connection)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.close()  # the address may lead to the primary by now
            raise

    def _open(self) -> Connection:
        connection = psycopg.connect(
            self.url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=5,
            application_name=self._application_name,
            options=_OPTIONS,
            # A way that is gone without a word: 10 s for what is not acknowledged, 20 s while only waiting.
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=2,
            tcp_user_timeout=10_000,
        )
        set_json_loads(orjson.loads, connection)
        return connection


def boot_seconds() -> float:
    """Seconds since boot, counting suspension: a process that was stopped sees that time has passed."""
    clock: Any = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
