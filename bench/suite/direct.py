"""Direct pushes to one user each: how many a second, published one by one and together; how fast when all is idle."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import crowd
from bench.arena import Arena, direct_push
from bench.figures import percentile
from bench.measurement import Measured, Setting
from bench.yardstick import bare_cpu_us

_IDLE_SECONDS = (0.03, 0.08)
_GROUPS = ("workers", "database", "publisher")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many pushes for throughput, and how many for latency."""

    pushes: int
    idle: int


SIZES: Mapping[str, Size] = {
    "full": Size(pushes=10_000, idle=500),
    "quick": Size(pushes=1_000, idle=60),
    "tiny": Size(pushes=40, idle=10),
}


def measure(setting: Setting) -> Measured:
    """Publish one by one, then together, then one at a time with rests. The providers answer at once."""
    size = SIZES[setting.scale]
    with setting.open_arena() as arena:
        arena.settle_in("direct", size.pushes)
        users = [crowd.user("direct", number) for number in range(1, size.pushes + 1)]
        setting.tell(f"{size.pushes:,} direct pushes, one by one")
        one_by_one = arena.send_direct(users, at_once=False)
        setting.tell(f"{size.pushes:,} direct pushes with publish_many")
        many = arena.send_direct(users)
        setting.tell(f"{size.idle} direct pushes with rests")
        idle = idle_latencies(arena, users[: size.idle])
        bare = bare_cpu_us(arena, min(size.pushes, 5_000))
    figures = one_by_one.figures("one_by_one", *_GROUPS) | many.figures("many", *_GROUPS)
    figures |= {
        "idle_p50_ms": percentile(idle, 0.5) * 1000,
        "idle_p99_ms": percentile(idle, 0.99) * 1000,
        # What does not depend on the machine: an event's whole cost against that of sending a push alone.
        "one_by_one_cost_ratio": one_by_one.cpu_us("workers") / bare,
        "many_cost_ratio": many.cpu_us("workers") / bare,
    }
    return Measured(figures=figures)


def idle_latencies(arena: Arena, users: Sequence[str]) -> list[float]:
    """Push to one user after the other, with rests of uneven length; seconds from publishing to recorded acceptance."""
    chance, published_at = random.Random(1), {}
    for number, user in enumerate(users):
        name = f"idle/{number}"
        published_at[name] = time.time()
        arena.publisher.publish(direct_push(name, user))
        arena.interruption.sleep(chance.uniform(*_IDLE_SECONDS))
    arena.await_direct("idle/", len(users))
    recorded_at = arena.recorded_at("idle/")
    return [recorded_at[name] - at for name, at in published_at.items()]
