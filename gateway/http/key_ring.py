"""The keys and apps that requests name, remembered for some seconds, and when keys were used.

Most requests come with a key that the request before had: asking the database each time would double their cost. A key
that is revoked, or an app that is removed, opens something for `FRESH_SECONDS` more at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from registry import apps, keys
from registry.apps import App
from registry.checks import APP_NAME, Problems
from registry.errors import NotFound
from registry.keys import Key

from .crew import Crew

FRESH_SECONDS: Final = 5.0
# Wrong guesses are remembered too, and must not fill the memory.
_MOST: Final = 10_000
K = TypeVar("K")
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Remembers what was found, or that nothing was, for some seconds. Those who ask at once look once."""

    def __init__(self, look: Callable[[K], Coroutine[Any, Any, V]]) -> None:
        self._look = look
        self._found: dict[K, tuple[float, V]] = {}
        self._looking: dict[K, asyncio.Task[V]] = {}

    async def find(self, name: K) -> V:
        """Give what is remembered, or look."""
        known = self._found.get(name)
        if known is not None and time.monotonic() - known[0] < FRESH_SECONDS:
            return known[1]
        looking = self._looking.get(name)
        if looking is None:
            looking = self._looking[name] = asyncio.create_task(self._look(name))
            looking.add_done_callback(lambda _: self._looking.pop(name))
        # Shielded: a client that leaves must not end the look of the others.
        value = await asyncio.shield(looking)
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[name] = (time.monotonic(), value)
        return value


class KeyRing:
    """Finds keys by their secrets and apps by their names."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._keys: Memory[bytes, Key | None] = Memory(self._look_for_key)
        self._apps: Memory[str, App | None] = Memory(self._look_for_app)
        self._used: dict[int, datetime] = {}

    async def key(self, secret: str) -> Key | None:
        """Find the active key that a secret belongs to, and remember that it was used."""
        hash_ = keys.hash_of(secret)
        key = None if hash_ is None else await self._keys.find(hash_)
        if key is None or (key.revoked_at is not None and key.revoked_at <= datetime.now(UTC)):
            return None
        self._used[key.id] = datetime.now(UTC)
        return key

    async def app(self, name: str) -> App | None:
        """Find an app by its name."""
        problems = Problems()
        APP_NAME(name, "app", problems)
        return None if problems.found else await self._apps.find(name)

    async def write_down(self) -> None:
        """Store when keys were used since the last call."""
        used, self._used = self._used, {}
        if used:
            await self._crew.query(lambda connection: keys.note_use(connection, used))

    async def _look_for_key(self, hash_: bytes) -> Key | None:
        return await self._crew.query(lambda connection: keys.find(connection, hash_))

    async def _look_for_app(self, name: str) -> App | None:
        try:
            return await self._crew.query(lambda connection: apps.get(connection, name))
        except NotFound:
            return None
