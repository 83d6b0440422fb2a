"""A fresh database as Pushfan uses it, with an app in it."""

from collections.abc import Iterator

import pytest

from registry.database import Connection, Database
from tests.integration.registry.shop import Shop, open_shop


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give this test's database."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def connection(database: Database) -> Connection:
    """Give this thread's connection: autocommit, rows by name."""
    return database.connection()


@pytest.fixture
def shop(connection: Connection) -> Shop:
    """Give an app with two channels and no devices."""
    return open_shop(connection, "shop")
