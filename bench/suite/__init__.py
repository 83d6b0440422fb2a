"""The measurements, by name."""

from __future__ import annotations

from collections.abc import Mapping

from bench.measurement import Measure

from . import broadcast, chunking, direct, growth, http, isolation, peers, registry

SUITE: Mapping[str, Measure] = {
    "broadcast": broadcast.measure,
    "growth": growth.measure,
    "direct": direct.measure,
    "http": http.measure,
    "isolation": isolation.measure,
    "chunking": chunking.measure,
    "registry": registry.measure,
    "peers": peers.measure,
}
