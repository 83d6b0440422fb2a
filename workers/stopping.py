"""How a worker process learns that it shall issue no more.

A group TERM (systemd's default, Ctrl-C in a supervisor) would end Celery's children in the middle of a send. A
child therefore handles it: busy, it collects what is out and gives its chunk back; idle, it ends as it would have.
At a warm shutdown the parent sends SIGUSR2, which only says *issue no more*.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether this process shall issue no more, and whether it is at work."""

    def __init__(self) -> None:
        self._is_set = False
        self._at_work = 0
        self._is_child = False
        self._built_in = os.getpid()
        self._installed_in: int | None = None
        self._end: Callable[[int, FrameType | None], object] | None = None

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self._is_set

    def set(self) -> None:
        """Issue no more from now on."""
        self._is_set = True

    def clear(self) -> None:
        """Begin anew, in a new process or a new worker."""
        self._is_set = False

    def begin_child(self) -> None:
        """Prepare a prefork child, on its main thread.

        SIGTERM waits for the first task: the pool sets its own handler after this is called. A solo worker, which
        is no child of anything, keeps the handlers by which it stops.
        """
        self.clear()
        if os.getpid() == self._built_in:
            return
        self._at_work = 0
        self._is_child = True
        signal.signal(signal.SIGUSR2, self._on_usr2)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark a task: a TERM meanwhile lets it conclude."""
        if self._is_child and self._installed_in != os.getpid():
            self._install()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._installed_in = os.getpid()
        signal.signal(signal.SIGUSR2, self._on_usr2)
        previous = signal.signal(signal.SIGTERM, self._on_term)
        self._end = previous if callable(previous) else None

    def _on_usr2(self, _number: int, _frame: FrameType | None) -> None:
        self.set()

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        self.set()
        if self._at_work:
            return
        if self._end is not None:
            self._end(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
