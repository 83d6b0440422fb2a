"""The log of what each device received: the ground truth that tests compare everything else with."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

import orjson

FLUSH_SECONDS = 0.05


class StateInUse(OSError):
    """Two simulators of one vendor were started with the same state directory."""


class ReceiptLog:
    """An append-only file of JSON lines, one for each push that a device receives.

    A line is written when the decision falls, not when the answer leaves, so it holds when the client dies or
    the answer is lost on purpose. Lines reach the file at most `FLUSH_SECONDS` later, at `flush`, and at the
    end; only a SIGKILL of the simulator itself can lose those of the last moment. A restart appends.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.count = 0
        self._loop = loop
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUse(f"another simulator is writing {path}") from error
        self._lines: list[bytes] = []

    def add(self, receipt: dict[str, Any]) -> None:
        """Add a line, to be flushed soon."""
        lines = self._lines
        if not lines:
            self._loop.call_later(FLUSH_SECONDS, self.flush)
        lines.append(orjson.dumps(receipt, option=orjson.OPT_APPEND_NEWLINE))
        self.count += 1

    def flush(self) -> None:
        """Write what is buffered; when this returns, a reader of the file sees it."""
        lines, self._lines = self._lines, []
        data = memoryview(b"".join(lines))
        while data:
            data = data[os.write(self._file, data) :]

    def read(self) -> list[dict[str, Any]]:
        """Return the receipts of earlier runs and this one."""
        self.flush()
        return [orjson.loads(line) for line in self.path.read_bytes().splitlines()]
