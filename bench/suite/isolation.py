"""Direct pushes at a steady beat, while nothing else happens and while a large broadcast runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from bench import crowd
from bench.arena import Arena, direct_push
from bench.figures import percentile
from bench.measurement import Measured, Setting

from .broadcast import LATENCY_MS

_BEAT_SECONDS = 0.02
_LOOKS_EVERY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the broadcast is, and how many pushes go before it."""

    devices: int
    pushes: int


SIZES: Mapping[str, Size] = {
    "full": Size(devices=1_000_000, pushes=500),
    "quick": Size(devices=20_000, pushes=100),
    "tiny": Size(devices=500, pushes=10),
}
_FRIENDS = 1_000


def measure(setting: Setting) -> Measured:
    """Beat without the broadcast, then with it until it has ended."""
    size = SIZES[setting.scale]
    with setting.open_arena(latency_ms=LATENCY_MS) as arena:
        arena.settle_in("friend", _FRIENDS)
        setting.tell(f"registering {size.devices:,} devices")
        arena.settle_in("isolation", size.devices)
        arena.subscribe("isolation", "isolation", size.devices)
        setting.tell(f"{size.pushes} direct pushes with nothing else")
        alone = _beat(arena, "alone", lambda number: number < size.pushes)
        setting.tell(f"direct pushes during a broadcast to {size.devices:,} devices")
        event = arena.announce("isolation")
        during = _beat(
            arena, "during", lambda number: number % _LOOKS_EVERY > 0 or not arena.has_ended(event)
        )
        arena.await_end(event)
    return Measured(
        figures={
            "direct_p99_ms": percentile(during, 0.99) * 1000,
            "direct_p50_ms": percentile(during, 0.5) * 1000,
            "alone_p99_ms": percentile(alone, 0.99) * 1000,
            "alone_p50_ms": percentile(alone, 0.5) * 1000,
            "direct_pushes": len(during),
        },
        notes=[f"beyond the {LATENCY_MS} ms that a provider takes; until the acceptance is recorded"],
    )


def _beat(arena: Arena, name: str, goes_on: Callable[[int], bool]) -> list[float]:
    """Publish at the beat; seconds from publishing to recorded acceptance, beyond the provider's own time."""
    published_at: dict[str, float] = {}
    next_at = time.monotonic()
    for number in count():
        if not goes_on(number):
            break
        key = f"{name}/{number}"
        published_at[key] = time.time()
        arena.publisher.publish(direct_push(key, crowd.user("friend", number % _FRIENDS + 1)))
        next_at = max(next_at + _BEAT_SECONDS, time.monotonic())
        arena.interruption.sleep(next_at - time.monotonic())
    arena.await_direct(f"{name}/", len(published_at))
    recorded_at = arena.recorded_at(f"{name}/")
    return [recorded_at[key] - at - LATENCY_MS / 1000 for key, at in published_at.items()]
