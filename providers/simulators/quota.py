"""Rate limits: FCM's token bucket and JPush's minute window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .clock import Clock


class TokenBucket:
    """A bucket that refills evenly; `per_minute` of 0 means no limit.

    `burst` is its size, a minute's worth unless told. `retry_after` is what refusals name, or nothing.
    """

    def __init__(self, clock: Clock, per_minute: float = 0, retry_after: float | None = None) -> None:
        self.per_minute = per_minute
        self.retry_after = retry_after
        self._clock = clock
        self._size = per_minute
        self._level = per_minute
        self._filled_at = clock.now()

    def configure(self, values: Mapping[str, Any]) -> None:
        """Set `per_minute`, `burst`, `retry_after`; the bucket starts full."""
        self.per_minute = float(values.get("per_minute", self.per_minute))
        self.retry_after = values.get("retry_after", self.retry_after)
        self._size = self._level = float(values.get("burst", self.per_minute))
        self._filled_at = self._clock.now()

    def take(self) -> bool:
        """Take one token; false when the bucket is empty."""
        if not self.per_minute:
            return True
        now = self._clock.now()
        self._level = min(self._size, self._level + (now - self._filled_at) * self.per_minute / 60)
        self._filled_at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


@dataclass(slots=True)
class MinuteWindow:
    """A fixed window of one minute, as JPush counts requests by app key."""

    clock: Clock
    quota: int
    window: int = 0
    used: int = 0

    def take(self) -> bool:
        """Count one request; false when the minute's quota is used up."""
        minute = int(self.clock.now() // 60)
        if minute != self.window:
            self.window, self.used = minute, 0
        self.used += 1
        return self.used <= self.quota

    def headers(self) -> list[tuple[str, str]]:
        """Return the three headers of every answer."""
        reset = math.ceil(60 - self.clock.now() % 60)
        return [
            ("x-rate-limit-quota", str(self.quota)),
            ("x-rate-limit-remaining", str(max(0, self.quota - self.used))),
            ("x-rate-limit-reset", str(reset)),
        ]
