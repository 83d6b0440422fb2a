"""Named points at which a worker process dies, armed by files: whoever removes the file is the one.

A process that is to die writes down who it is and where, then stops itself with SIGSTOP. The runner reads what it had
issued and not recorded, which cannot change any more, and kills it.

    directory/armed/<point>     one process that comes by will die
    directory/deaths.jsonl      who has stopped itself: {"pid": …, "point": …}
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


class Failpoints:
    """The points of one process. Costs one failed system call for each visit."""

    def __init__(self, directory: Path) -> None:
        self._armed = {point: str(directory / "armed" / point) for point in Point}
        self._deaths = directory / "deaths.jsonl"

    def visit(self, point: Point) -> None:
        """Die here if the point is armed and nobody else did."""
        try:
            os.unlink(self._armed[point])  # noqa: PTH108 - this is on the hot path
        except FileNotFoundError:
            return
        self.die(point)

    def die(self, point: Point) -> None:
        """Write down who dies where, and wait for the end."""
        line = json.dumps({"pid": os.getpid(), "point": point}) + "\n"
        descriptor = os.open(self._deaths, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.01)


def arm(directory: Path, point: Point) -> None:
    """Let the next process that comes by die."""
    (directory / "armed").mkdir(exist_ok=True)
    (directory / "armed" / point).touch()


def disarm(directory: Path) -> None:
    """Let nobody die any more."""
    for path in (directory / "armed").glob("*"):
        path.unlink(missing_ok=True)
