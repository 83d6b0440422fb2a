"""How often each caller may ask: a bucket of one second's requests for each, that fills steadily."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

_MOST_CALLERS: Final = 10_000


class RateLimit:
    """Counts requests by caller, in this process. Forgets callers that have been quiet."""

    def __init__(self, per_second: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._now = now
        # When each caller's bucket is full again, as in GCRA.
        self._full_at: dict[str, float] = {}

    def wait_seconds(self, caller: str) -> int:
        """Count a request. Returns 0, or the whole seconds after which the caller may come again."""
        now = self._now()
        if len(self._full_at) >= _MOST_CALLERS:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        full_at = max(now, self._full_at.get(caller, now)) + 1 / self._per_second
        if full_at > now + 1:
            return math.ceil(full_at - now - 1)
        self._full_at[caller] = full_at
        return 0
