"""Being told to end: Ctrl-C, SIGTERM, a closed terminal.

The first signal only raises a flag, which every wait looks at, so that nothing is left half started. A second one
raises `KeyboardInterrupt` wherever the program is.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any, Self

_STEP_SECONDS = 0.05


class Interrupted(Exception):
    """The user, or who runs us, wants an end."""


class Interruption:
    """Notices signals while it is entered. Belongs to the main thread."""

    def __init__(self) -> None:
        self.is_raised = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if there was a signal."""
        if self.is_raised:
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        """Wait, or raise `Interrupted` soon after a signal."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(_STEP_SECONDS, left))
        self.check()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_raised:
            raise KeyboardInterrupt
        self.is_raised = True
