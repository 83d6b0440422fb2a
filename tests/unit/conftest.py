"""Unit tests run without sockets and without servers; one that needs them belongs to another tier."""

import socket
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that a unit test tries to make (asyncio's own socket pairs never connect)."""

    def refuse(_: socket.socket, address: object) -> NoReturn:
        msg = f"a unit test must not connect to {address!r}: move it to tests/integration"
        raise RuntimeError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(scope="session")
def postgres_server() -> NoReturn:
    """Refuse the PostgreSQL of the other tiers: its driver connects without Python's sockets."""
    pytest.fail("a unit test must not use PostgreSQL: move it to tests/integration")


@pytest.fixture(scope="session")
def valkey_server() -> NoReturn:
    """Refuse the Valkey of the other tiers."""
    pytest.fail("a unit test must not use Valkey: move it to tests/integration")
