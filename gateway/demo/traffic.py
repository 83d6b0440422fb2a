"""Keep traffic under way while something is waited for: an attack on a system at rest proves nothing.

Another broadcast is published whenever little of the last one waits, and a direct push now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count, cycle
from typing import Final

from gateway.interruption import Interruption
from registry.channels import Provider

from .post import Post
from .pulse import Pulse
from .world import Wave

_POLL_SECONDS: Final = 0.05
_RESTS: Final = 4
_LOOK_SECONDS: Final = 0.25
_PROBE_SECONDS: Final = 0.25


class Traffic:
    """One wave's broadcasts and direct pushes. `steady` is the provider that is to have work all the time."""

    def __init__(
        self,
        post: Post,
        pulse: Pulse,
        interruption: Interruption,
        *,
        wave: Wave,
        steady: Provider,
        enough: int,
        probed: Sequence[str],
    ) -> None:
        self._post = post
        self._pulse = pulse
        self._interruption = interruption
        self._wave = wave
        self._steady = steady
        self._enough = enough
        self._probed = cycle(probed) if probed else None
        self._numbers = count(1)
        self._newest = ""
        self._look_at = self._probe_at = 0.0
        self._is_over = False

    def end(self) -> None:
        """Publish nothing more: what is under way ends by itself."""
        self._is_over = True

    def keep(self) -> None:
        """Publish what is needed for traffic to go on. To be called often: it mostly returns at once."""
        if self._is_over:
            return
        now = time.monotonic()
        if now >= self._look_at:
            if self._is_low():
                self._publish()
            self._look_at = time.monotonic() + _LOOK_SECONDS
        if self._probed is not None and now >= self._probe_at:
            self._post.probe(self._wave, next(self._probed))
            self._probe_at = time.monotonic() + _PROBE_SECONDS

    def until(self, is_reached: Callable[[], bool], *, seconds: float) -> float | None:
        """Keep traffic under way until something is reached. Returns after how long, `None` if not in time."""
        began = time.monotonic()
        while (taken := time.monotonic() - began) < seconds:
            if is_reached():
                return taken
            self.keep()
            # Looking must not take what the workers need.
            looked = time.monotonic() - began - taken
            self._interruption.sleep(max(_POLL_SECONDS, _RESTS * looked))
        return None

    def _is_low(self) -> bool:
        """Tell whether little waits, the newest broadcast included: it must be planned to be counted."""
        if self._newest and not self._post.is_planned(self._newest):
            return False
        vital = self._pulse.latest.get(self._steady)
        return vital is not None and vital.open < self._enough

    def _publish(self) -> None:
        self._newest = f"broadcast-{self._wave.value}-{next(self._numbers)}"
        self._post.publish_many(self._wave, [self._post.to_all(self._newest)])
