"""A fresh database with an app and a channel in it, and more connections to it."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from registry.database import Connection, Database
from tests.integration.ledger.scene import Scene, open_scene


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    """Give an app with one channel and no devices."""
    database = Database(database_url)
    yield open_scene(database)
    database.close()


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[], Connection]]:
    """Give a way to open further connections; they are closed with the test."""
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(psycopg.connect(database_url, autocommit=True, row_factory=dict_row))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()
