"""A worker on a fresh database, without a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.database import Database
from tests.integration.ledger.scene import Scene, open_scene
from tests.integration.workers.floor import Floor, build_floor


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    """Give an app with one channel and no devices."""
    database = Database(database_url)
    yield open_scene(database)
    database.close()


@pytest.fixture
def floor(scene: Scene, tmp_path: Path) -> Iterator[Floor]:
    """Give a worker, and a vendor that accepts everything."""
    floor = build_floor(scene, tmp_path)
    yield floor
    floor.close()
