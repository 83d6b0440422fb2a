"""A backend's own database: what its tables and its outbox hold, and short ways to say what a table does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row


class Producer:
    """A database with the outbox, and an autocommitting connection of its owner."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def run(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Run one statement. Gives its rows, if it has any."""
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def session(self, role: str | None = None) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """Open another session, perhaps with the rights of another role; what it leaves open is rolled back."""
        with psycopg.connect(self.url, row_factory=dict_row) as other:
            if role is not None:
                other.execute(psycopg.sql.SQL("SET ROLE {}").format(psycopg.sql.Identifier(role)))
                other.commit()
            yield other
            other.rollback()

    def events(self) -> list[dict[str, Any]]:
        """Give the events in the outbox, in order, and leave them there."""
        return [row["event"] for row in self.run("SELECT event FROM pushfan.outbox ORDER BY id")]

    def writes(self) -> list[tuple[str, str]]:
        """Give the bucket writes in the outbox as (change, object), sorted, and take them out."""
        found = [(event["change"], event["object"]) for event in self.events()]
        self.run("DELETE FROM pushfan.outbox")
        return sorted(found)

    def close(self) -> None:
        """Close the owner's connection."""
        self.connection.close()
