"""Servers for the tests: one PostgreSQL and one Valkey for each test process, a fresh database for each test.

PUSHFAN_TEST_DATABASE_URL and PUSHFAN_TEST_BROKER_URL put servers that were started elsewhere in their place;
the database's user must be allowed to create databases, and the broker's database is flushed.
"""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from psycopg import sql

from events import outbox_sql
from gateway.local import start_postgres, start_valkey

SCHEMA = Path(__file__).resolve().parent.parent / "schema.sql"
_NUMBERS = count(1)


class Server(Protocol):
    """Anything that tests can connect to."""

    @property
    def url(self) -> str:
        """Where to connect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalServer:
    """A server that was started elsewhere and is not ours to stop."""

    url: str


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a PostgreSQL that lives as long as the test process; its data does not survive a power cut."""
    if url := os.environ.get("PUSHFAN_TEST_DATABASE_URL"):
        yield ExternalServer(url=url)
        return
    with start_postgres(tmp_path_factory.mktemp("postgres"), durable=False, temporary=True) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: Server) -> Iterator[str]:
    """Give the name of a database that holds what `pushfan db apply` makes and nothing else."""
    name = f"pushfan_template_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(database_at(postgres_server, name), autocommit=True) as connection:
            connection.execute(SCHEMA.read_bytes())
            connection.execute(outbox_sql().encode())
        yield name
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """Give the URL of a database of this test's own, made ready."""
    template = sql.Identifier(template_database)
    name = f"{template_database}_{next(_NUMBERS)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), template))
    yield database_at(postgres_server, name)
    with psycopg.connect(postgres_server.url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Give an autocommitting connection to this test's database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a Valkey that lives as long as the test process and keeps nothing."""
    if url := os.environ.get("PUSHFAN_TEST_BROKER_URL"):
        yield ExternalServer(url=url)
        return
    with start_valkey(tmp_path_factory.mktemp("valkey"), temporary=True) as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Server) -> Server:
    """Give the Valkey with nothing in it."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushdb()
    return valkey_server


@pytest.fixture
def broker_url(valkey: Server) -> str:
    """Give the URL of an empty broker."""
    return valkey.url


def database_at(server: Server, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
