"""The vendor's clock, which a test may put forward instead of waiting for an hour."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """Real time plus what the control API added."""

    advance_seconds: float = 0.0

    def now(self) -> float:
        """Return the vendor's time in epoch seconds."""
        return time.time() + self.advance_seconds
