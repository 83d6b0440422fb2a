"""Kill a worker process while it sends, and watch who takes its work over.

A process is stopped before it is killed, so that what it holds is read while it cannot change.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.children import parent_of
from gateway.interruption import Interruption
from registry import overview
from registry.database import Database
from registry.overview import Lease
from workers.processes import machine

from .traffic import Traffic

_POLL_SECONDS: Final = 0.005
# Positions are issued before they are rendered and sent: after this long they are on their way.
_ON_THEIR_WAY_SECONDS: Final = 0.015
# What a stopped process has sent arrives all the same, and a commit under way is seen.
_SETTLE_SECONDS: Final = 0.05
_TAKEOVER_SECONDS: Final = 30.0
_HUNT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Which process was killed, what it held, and who took that over after how long; `None`: nobody in time."""

    pid: int
    lease: Lease
    heir_pid: int | None
    seconds: float

    @property
    def faults(self) -> Iterator[str]:
        """Say what it broke."""
        if self.heir_pid is None:
            yield f"nobody took over what the killed process {self.pid} held"

    def as_json(self) -> dict[str, int | float | None]:
        """Say it to a program."""
        return {
            "pid": self.pid,
            "chunk": self.lease.chunk_id,
            "positions": self.lease.positions,
            "unrecorded": self.lease.unrecorded,
            "heir_pid": self.heir_pid,
            "taken_over_after_seconds": round(self.seconds, 2),
        }

    def __str__(self) -> str:
        held = (
            f"killed worker process {self.pid} with chunk {self.lease.chunk_id} ({self.lease.positions:,} positions, "
            f"{self.lease.unrecorded:,} issued and not recorded)"
        )
        if self.heir_pid is None:
            return f"{held}; nobody took it over within {self.seconds:.0f} s"
        return f"{held}; process {self.heir_pid} took it over after {self.seconds:.2f} s"


class Hunt:
    """Looks for a child of one worker that has work in flight, for one of the channels in `prey`."""

    def __init__(
        self, database: Database, worker_pid: int, prey: Collection[int], interruption: Interruption
    ) -> None:
        self._database = database
        self._prey = prey
        self._worker_pid = worker_pid
        self._interruption = interruption
        self._machine = machine()

    def kill_one(self, traffic: Traffic) -> Kill | None:
        """Kill the first that is caught with unrecorded positions; `None` if none is for long."""
        since: dict[tuple[int, int, int], float] = {}
        began = time.monotonic()
        while (now := time.monotonic()) - began < _HUNT_SECONDS:
            traffic.keep()
            leases = [lease for lease in self._leases() if self._is_in_the_middle(lease)]
            since = {key: since.get(key, now) for key in map(_state, leases)}
            for lease in leases:
                pid = self._pid(lease) if now - since[_state(lease)] > _ON_THEIR_WAY_SECONDS else None
                if pid is not None and (held := self._hold(pid, lease)):
                    return self._kill(pid, held)
            self._interruption.sleep(_POLL_SECONDS)
        return None

    def _is_in_the_middle(self, lease: Lease) -> bool:
        """Tell whether pushes are on their way: some were answered, or all were issued at once."""
        is_sending = 0 < lease.unrecorded < lease.issued or lease.unrecorded == lease.positions
        return lease.channel_id in self._prey and is_sending

    def _hold(self, pid: int, seen: Lease) -> Lease | None:
        """Stop a process, and let it go on if by then it has nothing in flight."""
        os.kill(pid, signal.SIGSTOP)
        time.sleep(_SETTLE_SECONDS)
        for lease in self._leases():
            if (lease.chunk_id, lease.fence) == (seen.chunk_id, seen.fence) and lease.unrecorded:
                return lease
        os.kill(pid, signal.SIGCONT)
        return None

    def _kill(self, pid: int, held: Lease) -> Kill:
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        while (seconds := time.monotonic() - killed_at) < _TAKEOVER_SECONDS:
            now = next((lease for lease in self._leases() if lease.chunk_id == held.chunk_id), None)
            if now is not None and now.fence > held.fence:
                return Kill(pid=pid, lease=held, heir_pid=_pid_in(now.owner), seconds=seconds)
            self._interruption.sleep(_POLL_SECONDS)
        return Kill(pid=pid, lease=held, heir_pid=None, seconds=seconds)

    def _leases(self) -> list[Lease]:
        return self._database.run(overview.leases)

    def _pid(self, lease: Lease) -> int | None:
        """Return the owner's process if it is a child of the worker."""
        pid = _pid_in(lease.owner) if lease.owner.startswith(self._machine) else None
        return pid if pid is not None and parent_of(pid) == self._worker_pid else None


def _state(lease: Lease) -> tuple[int, int, int]:
    return lease.chunk_id, lease.fence, lease.issued


def _pid_in(owner: str) -> int | None:
    """Read the process out of an owner's name: `machine/pid-birth`."""
    pid = owner.rpartition("/")[2].partition("-")[0]
    return int(pid) if pid.isdecimal() else None
