"""Kills processes so that each kill is counted, its duplicates are bounded and its recovery is measured.

A process is stopped, what it holds is read while it cannot change, then it is killed. The bound of a kill is what its
chunks' rows say: positions below `issued` without a result. Receipts play no part in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg

from registry.errors import RegistryError
from workers.processes import machine

from .failpoints import Point, arm, disarm
from .stage import Stage

_POLL_SECONDS: Final = 0.02
_CATCH_SECONDS: Final = 0.005
# A commit that was on its way when its process was stopped is seen.
_SETTLE_SECONDS: Final = 0.05
# Positions are issued before they are sent: after this long they are on their way.
_ON_THEIR_WAY_SECONDS: Final = 0.01
_LONGEST_RECOVERY_SECONDS: Final = 120.0
# A lease lasts 10 s; a machine that is busy is given more, and a sleeper is woken in any case.
_LONGEST_SLEEP_SECONDS: Final = 25.0
_SENDER, _TREE, _FREEZE, _SLEEP, _DISPATCHER = "sender", "tree", "freeze", "sleep", "dispatcher"
_MID_SEND: Final = frozenset({_SENDER, _TREE, Point.SENDING, Point.ANSWERED})
_HELD = """
SELECT k.id, k.fence, k.channel_id, k.device_ids,
       (SELECT count(*) FROM generate_series(0, k.issued - 1) AS p (position)
        WHERE get_byte(k.result, p.position) = 0)::integer AS unrecorded
FROM pushfan.chunk k
WHERE k.lease_until IS NOT NULL AND starts_with(k.owner, %(owner)s)
ORDER BY k.id
"""
_SENDERS = """
SELECT k.owner, k.id, k.fence, k.issued FROM pushfan.chunk k
WHERE k.lease_until > clock_timestamp() AND starts_with(k.owner, %(machine)s)
  AND CASE WHEN %(is_begun)s
      THEN btrim(k.result, decode('00', 'hex')) <> '' AND position(decode('00', 'hex') IN k.result) > 0
      ELSE EXISTS (SELECT FROM generate_series(0, k.issued - 1) AS p (position)
                   WHERE get_byte(k.result, p.position) = 0) END
ORDER BY k.id
"""
_FENCES = """
SELECT k.id, k.fence, coalesce(k.lease_until > clock_timestamp(), false) AS is_leased,
       k.published_at IS NOT NULL AND k.ready_at > now() AS is_announced, k.publications > 1 AS is_repeated
FROM pushfan.chunk k WHERE k.id = ANY (%(ids)s)
"""


# Where nobody came by the first announcement for so long that there was another one.
AGAIN: Final = "announced again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A chunk that a process worked on."""

    chunk: int
    fence: int
    unrecorded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleeper:
    """A process that sleeps with a chunk whose first addresses it has loaded, and that has sent nothing of it."""

    pid: int
    chunk: int
    fence: int
    channel: int
    devices: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A process that was killed, or stopped for longer than its lease; what it held; when, by the monotonic clock."""

    pid: int
    point: str
    held: Sequence[Held]
    at: float
    is_freeze: bool = False

    @property
    def unrecorded(self) -> int:
        """Positions issued and not recorded: what may be received once more."""
        return sum(one.unrecorded for one in self.held)

    @property
    def is_mid_send(self) -> bool:
        """It was killed where pushes can have been on their way, and some were not recorded."""
        return self.point in _MID_SEND and self.unrecorded > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How long a chunk of a killed process waited for the next; and when it was free, and announced again."""

    chunk: int
    point: str
    seconds: float
    steps: Mapping[str, float]

    def __str__(self) -> str:
        steps = ", ".join(f"{name} after {seconds:.1f} s" for name, seconds in self.steps.items())
        return (
            f"chunk {self.chunk} of a {self.point} waited {self.seconds:.1f} s ({steps or 'never seen free'})"
        )


class Killer:
    """Kills for the scenarios, from their threads, and those processes that came by an armed failpoint."""

    def __init__(self, stage: Stage, tell: Callable[[str], None]) -> None:
        self.kills: list[Kill] = []
        self.recoveries: list[Recovery] = []
        self._steps: dict[tuple[int, int], dict[str, float]] = {}
        self._stage = stage
        self._tell = tell
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, Kill]] = {}
        self._ended = threading.Event()
        self._read = 0
        self._threads = [
            threading.Thread(target=self._run, args=[self._attend], name="undertaker", daemon=True),
            threading.Thread(target=self._run, args=[self._watch], name="recovery", daemon=True),
        ]

    def start(self) -> None:
        """Begin to attend to those who die at failpoints, and to watch recoveries."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Attend to the last, and end."""
        disarm(self._stage.failpoints)
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def count(self, point: str | None = None) -> int:
        """Count the kills, at one point or all."""
        return sum(not kill.is_freeze and (point is None or kill.point == point) for kill in list(self.kills))

    def arm(self, point: Point) -> None:
        """Let the next process die that comes by a point."""
        arm(self._stage.failpoints, point)

    def kill_sender(
        self,
        patience_seconds: float = 5.0,
        *,
        waits_seconds: float = _ON_THEIR_WAY_SECONDS,
        is_begun: bool = False,
    ) -> bool:
        """Kill a worker process that waits for so long for answers. Tells whether one was caught.

        `is_begun`: others have been recorded of the same chunk. Then its rows are not believed: whatever they say of
        what was issued, it waits for something.
        """
        caught = self._catch(patience_seconds, waits_seconds=waits_seconds, is_begun=is_begun)
        if caught is None:
            return False
        pid, held = caught
        self._finish(pid, _SENDER, held)
        return True

    def freeze_sender(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Stop a worker process with pushes on their way for longer than its lease, then let it go on."""
        caught = self._catch(5.0)
        if caught is None:
            return False
        pid, held = caught
        self._note(Kill(pid=pid, point=_FREEZE, held=held, at=time.monotonic(), is_freeze=True))
        end = time.monotonic() + seconds
        while time.monotonic() < end and not is_over():
            time.sleep(_POLL_SECONDS)
        # Beyond the end of the load, too: the lease must be over.
        time.sleep(max(0.0, end - time.monotonic()))
        _signal(pid, signal.SIGCONT)
        return True

    def lull(self, channels: Collection[int], patience_seconds: float = 5.0) -> Sleeper | None:
        """Let the next process sleep that is about to send a chunk's first pushes by one of the channels.

        `None` if none came by.
        """
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            sleeper = self._lull_anyone(deadline)
            if sleeper is not None and sleeper.channel in channels:
                return sleeper
            if sleeper is not None:
                self.wake(sleeper)
        return None

    def _lull_anyone(self, deadline: float) -> Sleeper | None:
        path = self._stage.failpoints / "sleeps.jsonl"
        known = path.read_bytes() if path.exists() else b""
        self.arm(Point.ASLEEP)
        # Who has come by at the last moment is asleep, too.
        while time.monotonic() < deadline or not disarm(self._stage.failpoints, Point.ASLEEP):
            data = path.read_bytes() if path.exists() else b""
            if fresh := data[len(known) :].splitlines():
                return self._sleeper(int(json.loads(fresh[0])["pid"]))
            time.sleep(_POLL_SECONDS)
        return None

    def _sleeper(self, pid: int) -> Sleeper | None:
        while not _is_stopped(pid):
            time.sleep(0.002)
        rows = self._look(_HELD, {"owner": f"{machine()}{pid}-"}, is_needed=True)
        if len(rows) != 1:  # its chunk is somebody else's by now
            _signal(pid, signal.SIGCONT)
            return None
        (row,) = rows
        return Sleeper(
            pid=pid, chunk=row["id"], fence=row["fence"], channel=row["channel_id"], devices=row["device_ids"]
        )

    def wake(self, sleeper: Sleeper) -> None:
        """Let a sleeper go on."""
        _signal(sleeper.pid, signal.SIGCONT)

    def oversleep(self, sleeper: Sleeper, late_seconds: float) -> bool:
        """Wake a sleeper so long after somebody else has taken its chunk over. Tells whether somebody has.

        It had sent nothing, so nothing may come twice of it: the bound does not grow.
        """
        held = [Held(chunk=sleeper.chunk, fence=sleeper.fence, unrecorded=0)]
        self._note(Kill(pid=sleeper.pid, point=_SLEEP, held=held, at=time.monotonic(), is_freeze=True))
        deadline = time.monotonic() + _LONGEST_SLEEP_SECONDS
        is_taken_over = False
        while not is_taken_over and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            rows = self._look(_FENCES, {"ids": [sleeper.chunk]}, is_needed=True)
            is_taken_over = [row["fence"] for row in rows] != [sleeper.fence]
        time.sleep(late_seconds)
        self.wake(sleeper)
        return is_taken_over

    def kill_tree(self, name: str, patience_seconds: float = 2.0) -> None:
        """Kill a worker with all its processes, the dispatcher too, all at once.

        One with pushes on their way is waited for.
        """
        root = self._stage.workers[name].pid
        try:
            family = [root, *(one.pid for one in psutil.Process(root).children(recursive=True))]
        except psutil.NoSuchProcess:
            return
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline and self._senders().isdisjoint(family):
            time.sleep(_CATCH_SECONDS)
        # The parent first: it would start others in the place of children.
        for pid in family:
            _signal(pid, signal.SIGSTOP)
        time.sleep(_SETTLE_SECONDS)
        held = [one for pid in family for one in self._held(pid)]
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._note(Kill(pid=root, point=_TREE, held=held, at=time.monotonic()))

    def _senders(self) -> set[int]:
        rows = self._look(_SENDERS, {"machine": machine(), "is_begun": False})
        return {_pid_in(row["owner"]) for row in rows}

    def kill_dispatcher(self, name: str) -> bool:
        """Kill the dispatcher beside a worker. Tells whether there was one."""
        for pid in self._dispatchers(name):
            _signal(pid, signal.SIGKILL)
            self._note(Kill(pid=pid, point=_DISPATCHER, held=(), at=time.monotonic()))
            return True
        return False

    def note_outage(self, point: str) -> None:
        """Note what all workers hold while none can reach the database: another may be first when it is back.

        To be called when nobody can change the rows.
        """
        rows = self._look(_HELD, {"owner": machine()}, is_needed=True)
        held = [Held(chunk=row["id"], fence=row["fence"], unrecorded=row["unrecorded"]) for row in rows]
        self._note(Kill(pid=0, point=point, held=held, at=time.monotonic(), is_freeze=True))

    def _dispatchers(self, name: str) -> Iterator[int]:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._stage.workers[name].pid).children():
                if "workers.dispatch" in child.cmdline():
                    yield child.pid

    def _catch(
        self,
        patience_seconds: float,
        *,
        waits_seconds: float = _ON_THEIR_WAY_SECONDS,
        is_begun: bool = False,
    ) -> tuple[int, list[Held]] | None:
        """Stop a process that has pushes on their way, and say what it holds."""
        seen: dict[tuple[int, int, int], float] = {}
        deadline = time.monotonic() + patience_seconds
        wanted = {"machine": machine(), "is_begun": is_begun}
        while time.monotonic() < deadline:
            now = time.monotonic()
            rows = self._look(_SENDERS, wanted)
            keys = [(row["id"], row["fence"], row["issued"]) for row in rows]
            seen = {key: seen.get(key, now) for key in keys}
            for row, key in zip(rows, keys, strict=True):
                pid = _pid_in(row["owner"])
                if now - seen[key] > waits_seconds and (held := self._hold(pid, believes=not is_begun)):
                    return pid, held
            time.sleep(_CATCH_SECONDS)
        return None

    def _hold(self, pid: int, *, believes: bool) -> list[Held]:
        """Stop a process; let it go on if by then it has nothing on its way, if the rows are believed."""
        if not _is_ours(pid):
            return []
        _signal(pid, signal.SIGSTOP)
        time.sleep(_SETTLE_SECONDS)
        held = self._held(pid)
        if any(one.unrecorded or not believes for one in held):
            return held
        _signal(pid, signal.SIGCONT)
        return []

    def _finish(self, pid: int, point: str, held: Sequence[Held]) -> None:
        _signal(pid, signal.SIGKILL)
        self._note(Kill(pid=pid, point=point, held=held, at=time.monotonic()))

    def _held(self, pid: int) -> list[Held]:
        rows = self._look(_HELD, {"owner": f"{machine()}{pid}-"}, is_needed=True)
        return [Held(chunk=row["id"], fence=row["fence"], unrecorded=row["unrecorded"]) for row in rows]

    def _look(
        self, statement: str, parameters: Mapping[str, object], *, is_needed: bool = False
    ) -> list[dict[str, Any]]:
        """Look something up; nothing is found while the database is away, unless it is needed."""
        while True:
            try:
                return self._stage.run(statement, parameters)
            except (psycopg.Error, RegistryError):
                if not is_needed:
                    return []

    def _note(self, kill: Kill) -> None:
        with self._lock:
            self.kills.append(kill)
            for held in kill.held:
                self._open[held.chunk] = (held.fence, kill)
        self._tell(f"{kill.point}: process {kill.pid}, {kill.unrecorded} positions unrecorded")

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._stage.database.close()

    def _attend(self) -> None:
        """Finish those who have stopped themselves at a failpoint."""
        path = self._stage.failpoints / "deaths.jsonl"
        while True:
            is_last = self._ended.is_set()
            for death in self._deaths(path):
                pid = int(death["pid"])
                deadline = time.monotonic() + 5
                while not _is_stopped(pid) and time.monotonic() < deadline:
                    time.sleep(0.002)
                time.sleep(_SETTLE_SECONDS)
                self._finish(pid, str(death["point"]), self._held(pid))
            if is_last:
                return
            time.sleep(_POLL_SECONDS)

    def _deaths(self, path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        fresh, self._read = whole[self._read :], len(whole)
        return [json.loads(line) for line in fresh.splitlines()]

    def _watch(self) -> None:
        """Measure how long each chunk of the killed waits for somebody else."""
        while not self._ended.wait(_POLL_SECONDS):
            with self._lock:
                waiting = dict(self._open)
            if not waiting:
                continue
            rows = self._look(_FENCES, {"ids": list(waiting)}, is_needed=True)
            found = {row["id"]: row for row in rows}
            now = time.monotonic()
            for chunk, (fence, kill) in waiting.items():
                self._see(chunk, fence, kill, found.get(chunk), now)

    def _see(self, chunk: int, fence: int, kill: Kill, row: Mapping[str, Any] | None, now: float) -> None:
        """Note when a chunk was free, announced, and taken over."""
        waited = now - kill.at
        steps = self._steps.setdefault((chunk, fence), {})
        if row is not None and row["fence"] == fence:
            if not row["is_leased"]:
                steps.setdefault("free", waited)
            if row["is_announced"] and not row["is_leased"]:
                steps.setdefault("announced", waited)
            if row["is_repeated"] and not row["is_leased"]:
                steps.setdefault(AGAIN, waited)
            if waited < _LONGEST_RECOVERY_SECONDS:
                return
        with self._lock:
            if self._open.get(chunk) == (fence, kill):
                del self._open[chunk]
            self.recoveries.append(Recovery(chunk=chunk, point=kill.point, seconds=waited, steps=steps))


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return "tests.chaos.worker" in psutil.Process(pid).cmdline()
    return False


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
    except psutil.NoSuchProcess:
        return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _pid_in(owner: str) -> int:
    """Read the process out of an owner's name: `machine/pid-birth`."""
    return int(owner.rpartition("/")[2].partition("-")[0])
