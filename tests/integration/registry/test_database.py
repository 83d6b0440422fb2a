"""What a worker's connection goes through, and what is run again because of it."""

from collections.abc import Iterator

import psycopg
import pytest

from registry.database import Connection, Database
from registry.errors import DatabaseUnavailable


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a way to this test's database."""
    database = Database(database_url)
    yield database
    database.close()


class Work:
    """Work that fails the first time as it is told, and knows on which connections it ran."""

    def __init__(self, *statements: bytes) -> None:
        self._statements = statements
        self.sessions: list[int] = []

    def __call__(self, connection: Connection) -> None:
        self.sessions.append(connection.info.backend_pid)
        if len(self.sessions) == 1:
            for statement in self._statements:
                connection.execute(statement)


def test_session_that_was_ended_while_the_process_slept_is_begun_again(database: Database) -> None:
    """PostgreSQL ends a transaction that is idle for long; the work is run again on a new connection."""

    def sleep(connection: Connection) -> None:
        work(connection)
        if len(work.sessions) == 1:
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
            with psycopg.connect(database.url, autocommit=True) as other:
                while other.execute(
                    "SELECT FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
                ).fetchone():
                    pass
            connection.execute("SELECT 1")

    work = Work()
    database.run(sleep)
    assert len(set(work.sessions)) == 2


def test_who_sleeps_in_a_transaction_fails_nobody_who_waits_for_its_locks(database: Database) -> None:
    """It loses them before the others give up, or these could not record what they have sent."""
    other, asleep = Database(database.url), database.connection()
    asleep.execute("BEGIN")
    asleep.execute("SELECT pg_advisory_xact_lock(1)")
    other.connection().execute("SELECT pg_advisory_lock(1)")
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        asleep.execute("SELECT 1")
    other.close()


def test_server_that_is_no_primary_is_asked_again_on_a_new_connection(database: Database) -> None:
    """During a failover the address leads to a read-only server for a while."""
    work = Work(b"SET TRANSACTION READ ONLY", b"CREATE TABLE x ()")
    database.run(work)
    assert len(set(work.sessions)) == 2


def test_server_that_stays_read_only_is_unavailable(database: Database) -> None:
    """Patience ends with the error that puts a message back on its queue."""

    def work(connection: Connection) -> None:
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("CREATE TABLE x ()")

    with pytest.raises(DatabaseUnavailable):
        database.run(work, patience_seconds=0.1)
