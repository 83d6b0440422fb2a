"""A backend's own database beside Pushfan's, both empty."""

from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from events import outbox_sql
from tests.integration.outbox.producer import Producer


class HasUrl(Protocol):
    """A server that can be connected to."""

    @property
    def url(self) -> str:
        """Where it is."""


@pytest.fixture
def foreign_url(postgres_server: HasUrl) -> Iterator[str]:
    """Give the URL of a database that knows nothing of Pushfan."""
    name = f"shop_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlunsplit(urlsplit(postgres_server.url)._replace(path=f"/{name}"))
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def producer(foreign_url: str) -> Iterator[Producer]:
    """Give a backend's database with the outbox."""
    producer = Producer(foreign_url)
    producer.connection.execute(outbox_sql().encode())
    yield producer
    producer.close()
