"""Pushfan in one process for the integration tests of a backend: memory broker, real PostgreSQL, recorded pushes.

    def test_buyer_hears_of_the_shipping(pushfan):
        pushfan.install("u7")
        ship_order(812, publisher=pushfan.publisher)
        pushfan.wait()
        assert [push.title for push in pushfan.received(user="u7")] == ["Shipped"]

pytest loads this module in every project of the environment: nothing is imported here before a fixture is used.
PUSHFAN_TEST_DATABASE_URL names a server to use instead of one from the wheel; its user must be allowed to create
databases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .rehearsal import Pushfan


@pytest.fixture(scope="session")
def pushfan_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a PostgreSQL server for the whole session."""
    if url := os.environ.get("PUSHFAN_TEST_DATABASE_URL"):
        yield url
        return
    from .local import start_postgres

    with start_postgres(tmp_path_factory.mktemp("pushfan"), durable=False, temporary=True) as server:
        yield server.url


@pytest.fixture(scope="session")
def pushfan_template(pushfan_server_url: str) -> Iterator[str]:
    """Give the URL of a database with Pushfan's schema, of which every test gets a copy."""
    from .rehearsal import template_database

    with template_database(pushfan_server_url) as url:
        yield url


@pytest.fixture
def pushfan(pushfan_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushfan]:
    """Give Pushfan with a fresh database, its worker at work and no devices."""
    from .rehearsal import fresh_database, rehearse

    with (
        fresh_database(pushfan_template) as database_url,
        rehearse(database_url, tmp_path_factory.mktemp("pushfan_home")) as running,
    ):
        yield running
