"""A house on a fresh database, and one behind a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from registry.database import Database
from tests.integration.http.house import House, serve, settings_for


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """Give the application, called without a socket."""
    settings = settings_for(database_url, tmp_path)
    database = Database(database_url)
    with serve(settings) as client:
        yield House(settings=settings, database=database, client=client)
    database.close()
    structlog.reset_defaults()
