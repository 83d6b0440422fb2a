"""Threads that work with the database for the event loop, each with a connection of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from registry.database import Connection, Database

from .problem import Problem

T = TypeVar("T")

# Someone waits for an answer: a database that is silent so long is away, and the client may come again.
PATIENCE_SECONDS: Final = 3.0
_WAITING_PER_THREAD: Final = 64
_Job = tuple[Callable[[], Any], asyncio.Future[Any]]


class Crew:
    """Runs blocking work in a bounded number of threads. Used by one event loop."""

    def __init__(self, database: Database, *, threads: int) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._most = threads * _WAITING_PER_THREAD
        self._waiting = 0
        self._threads = [
            threading.Thread(target=self._run, name=f"pushfan-api-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def query(self, work: Callable[[Connection], T]) -> T:
        """Run `work(connection)` in one transaction. It may run twice, see `Database.run`."""
        return await self.run(lambda: self._database.run(work, patience_seconds=PATIENCE_SECONDS))

    async def run(self, work: Callable[[], T]) -> T:
        """Run something that blocks. Raises `Problem` when too much waits already."""
        if self._waiting >= self._most:
            raise Problem("overloaded", "too many requests wait for the database", retry_after_seconds=1)
        done: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        try:
            self._queue.put((work, done))
            return await done
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Do what waits, and end the threads with their connections."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            work, done = job
            result: Any = None
            error: Exception | None = None
            try:
                result = work()
            except Exception as raised:  # noqa: BLE001  it is whoever waits that must hear of it
                error = raised
            self._loop.call_soon_threadsafe(_settle, done, result, error)
        self._database.close()


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():  # nobody waits any more
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
