"""Direct pushes to one user each over HTTP: how many a second, singly and in lists; the 202 at a steady rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench import crowd
from bench.arena import Played
from bench.figures import percentile
from bench.measurement import Measured, Setting
from bench.yardstick import bare_cpu_us

_CONNECTIONS = 128
_LISTS_AT_ONCE = 4
_STEADY_RATE = 500.0
_GROUPS = ("api", "workers", "database", "client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many pushes for throughput, how many of them in a list, and how many at the steady rate."""

    pushes: int
    in_a_list: int
    steady: int


SIZES: Mapping[str, Size] = {
    "full": Size(pushes=10_000, in_a_list=100, steady=10_000),
    "quick": Size(pushes=3_000, in_a_list=100, steady=2_000),
    "tiny": Size(pushes=40, in_a_list=10, steady=20),
}


def measure(setting: Setting) -> Measured:
    """Publish singly, then in lists, both as fast as answers come; then singly at a steady rate."""
    size = SIZES[setting.scale]
    with setting.open_arena() as arena:
        number = max(size.pushes, size.steady)
        arena.settle_in("http", number)
        users = [crowd.user("http", position) for position in range(1, number + 1)]
        setting.tell(f"{size.pushes:,} direct pushes over HTTP, a request for each")
        _, single = arena.send_over_http(users[: size.pushes], connections=_CONNECTIONS)
        setting.tell(f"{size.pushes:,} direct pushes over HTTP, {size.in_a_list} to a request")
        _, lists = arena.send_over_http(
            users[: size.pushes], connections=_LISTS_AT_ONCE, in_a_list=size.in_a_list
        )
        setting.tell(f"{size.steady:,} direct pushes over HTTP, {_STEADY_RATE:.0f} a second")
        steady, _ = arena.send_over_http(users[: size.steady], connections=_CONNECTIONS, rate=_STEADY_RATE)
        bare = bare_cpu_us(arena, min(size.pushes, 5_000))
    figures = single.figures("single", *_GROUPS) | lists.figures("lists", *_GROUPS)
    figures |= {
        "steady_p50_ms": percentile(steady.seconds, 0.5) * 1000,
        "steady_p99_ms": percentile(steady.seconds, 0.99) * 1000,
        # What does not depend on the machine: an event's whole cost against that of sending a push alone.
        "single_cost_ratio": _cost_us(single) / bare,
        "lists_cost_ratio": _cost_us(lists) / bare,
    }
    return Measured(figures=figures)


def _cost_us(played: Played) -> float:
    return played.cpu_us("api") + played.cpu_us("workers")
