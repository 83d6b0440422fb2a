"""Named points at which a worker process dies, armed by files: whoever removes the file is the one.

A process that is to die writes down who it is and where, then stops itself with SIGSTOP. The runner reads what it had
issued and not recorded, which cannot change any more, and kills it.

    directory/armed/<point>     one process that comes by will die
    directory/deaths.jsonl      who has stopped itself: {"pid": …, "point": …}
    directory/sleeps.jsonl      who has stopped itself and shall go on when it is told to
    directory/sent-<pid>.log    what was loaded when, for pushes to phones that changed hands meanwhile
"""

from __future__ import annotations

import json
import os
import signal
import time
from enum import StrEnum
from pathlib import Path


class Point(StrEnum):
    """Where a process dies; the first five are those of a chunk's way."""

    CLAIMED = "claimed"  # after the claim, before anything is rendered
    ISSUED = "issued"  # committed as issued, nothing handed to libcurl
    SENDING = "sending"  # a part is handed to libcurl, and on the wire
    ANSWERED = "answered"  # answers have arrived and are not recorded
    RECORDED = "recorded"  # all is recorded, the message is not acknowledged
    TAKEN_IN = "taken_in"  # intake has committed and announced nothing
    PLANNING = "planning"  # a planner begins
    PLANNED = "planned"  # a planner's page is committed and not announced
    POISON = "poison"  # the payload kills whoever renders it
    ASLEEP = "asleep"  # a chunk's first addresses are loaded; nobody dies here, one sleeps until it is woken


class Failpoints:
    """The points of one process. Costs one failed system call for each visit."""

    def __init__(self, directory: Path) -> None:
        self._armed = {point: str(directory / "armed" / point) for point in Point}
        self._deaths = directory / "deaths.jsonl"
        self._sleeps = directory / "sleeps.jsonl"

    def visit(self, point: Point) -> None:
        """Die here if the point is armed and nobody else did."""
        if self._is_mine(point):
            self.die(point)

    def doze(self, point: Point) -> None:
        """Sleep here, if the point is armed and nobody else did, until the runner wakes this process."""
        if self._is_mine(point):
            self._write(self._sleeps, point)
            os.kill(os.getpid(), signal.SIGSTOP)

    def _is_mine(self, point: Point) -> bool:
        try:
            os.unlink(self._armed[point])  # noqa: PTH108 - this is on the hot path
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: Path, point: Point) -> None:
        line = json.dumps({"pid": os.getpid(), "point": point}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def die(self, point: Point) -> None:
        """Write down who dies where, and wait for the end."""
        self._write(self._deaths, point)
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.01)


def arm(directory: Path, point: Point) -> None:
    """Let the next process that comes by die."""
    (directory / "armed").mkdir(exist_ok=True)
    (directory / "armed" / point).touch()


def disarm(directory: Path, point: Point | None = None) -> bool:
    """Let nobody die any more, at one point or at all. Tells whether nobody came by since a point was armed."""
    is_untouched = False
    for path in (directory / "armed").glob(point.value if point else "*"):
        try:
            path.unlink()
            is_untouched = True
        except FileNotFoundError:
            continue
    return is_untouched
