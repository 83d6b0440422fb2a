"""A worker as `pushfan worker` starts it, whose processes die at failpoints and note what they are about to send.

    python -m tests.chaos.worker DIRECTORY LANES PROCESSES NAME

Settings come from the environment. A push whose title begins with `poison:` kills (`poison:kill`) or hangs
(`poison:hang`) the process that renders it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from celery import current_task, signals

from events.names import TASK_DELIVER, TASK_INTAKE, TASK_PLAN
from gateway import worker
from providers import create_client
from providers.client import Client
from providers.outcome import Answer, ChannelConfig, Push
from providers.provider import Batch
from workers.settings import load_settings

from .failpoints import Failpoints, Point

KILL, HANG = "poison:kill", "poison:hang"
TOKEN_LETTERS = 16
_ANNOUNCING = {TASK_PLAN: Point.PLANNED, TASK_INTAKE: Point.TAKEN_IN}


class Notes:
    """What a process was about to send: when it last did something else before loading, when it had loaded, to whom.

    The instant of loading lies between the two. One file for each process, a line for each sub-batch.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = -1
        self._pid = 0
        self.since = time.time()

    def mark(self) -> None:
        """Say that whatever is loaded from now on, is loaded from now on."""
        self.since = time.time()

    def write(self, pushes: Sequence[Push]) -> None:
        """Note pushes that have been loaded."""
        tokens: dict[int, list[str]] = defaultdict(list)
        for push in pushes:
            tokens[push.content.notification_id].append(push.token[:TOKEN_LETTERS])
        now = time.time()
        lines = [f"{self.since:.6f} {now:.6f} {one} {' '.join(some)}\n" for one, some in tokens.items()]
        if self._pid != os.getpid():
            self._pid = os.getpid()
            path = self._directory / f"sent-{self._pid}.log"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, "".join(lines).encode())


class MortalClient:
    """A client that dies where it is told to, and is otherwise the one that it wraps."""

    def __init__(self, inner: Client, points: Failpoints, notes: Notes) -> None:
        self._inner = inner
        self._points = points
        self._notes = notes
        self._has_submitted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prepare(self, pushes: Sequence[Push]) -> list[Batch]:
        """Render: the chunk is claimed, the sub-batch loaded, nothing of it committed as issued but the first."""
        self._points.visit(Point.CLAIMED)
        for push in pushes:
            title = push.content.event.message.title or ""
            if title == KILL:
                self._points.die(Point.POISON)
            if title == HANG:
                _hang()
        self._notes.write(pushes)
        # Its connection is open: what it sends when it wakes is on its way at once.
        if pushes and pushes[0].position == 0 and self._has_submitted:
            self._points.doze(Point.ASLEEP)
        return self._inner.prepare(pushes)

    def submit(self, batch: Batch) -> None:
        """Hand to libcurl: the sub-batch is committed as issued."""
        self._points.visit(Point.ISSUED)
        self._inner.submit(batch)
        self._has_submitted = True

    def poll(self, timeout_seconds: float) -> list[Answer]:
        """Wait for answers, with pushes on their way before and unrecorded answers after."""
        answers = self._inner.poll(timeout_seconds)
        if self._has_submitted and self._inner.in_flight:
            self._points.visit(Point.SENDING)
        if answers:
            self._points.visit(Point.ANSWERED)
        self._notes.mark()
        return answers


def _hang() -> None:
    """Be deaf to the soft time limit, as a call into a library may be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    while True:
        time.sleep(60)


def main(directory: Path, lanes: Sequence[str], processes: int, name: str) -> int:
    """Run until told to stop; returns the exit code."""
    points, notes = Failpoints(directory), Notes(directory)

    def create(config: ChannelConfig) -> Client:
        return cast("Client", MortalClient(create_client(config), points, notes))

    def begin(sender: Any = None, **_: Any) -> None:
        notes.mark()
        if sender is not None and sender.name == TASK_PLAN:
            points.visit(Point.PLANNING)

    def end(sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.name == TASK_DELIVER:
            points.visit(Point.RECORDED)

    def announce(**_: Any) -> None:
        point = _ANNOUNCING.get(current_task.name if current_task else "")
        if point is not None:
            points.visit(point)

    signals.task_prerun.connect(begin)
    signals.task_postrun.connect(end)
    signals.before_task_publish.connect(announce)
    return worker.run(
        load_settings(), lanes=lanes, processes=processes, name=name, with_parent=False, create=create
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), sys.argv[4]))
