"""How things are, for people: lanes, channels, workers, backlog, deliveries a second.

`pushfan status` shows it, and `pushfan up` while it runs; live at a terminal, as plain lines elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from events.names import Lane
from registry import apps, channels, doctor, overview
from registry.channels import Channel
from registry.database import Connection, Database
from registry.doctor import Worker
from registry.errors import DatabaseUnavailable
from registry.overview import Backlog

from .cli.circuit import story
from .cli.output import clean, heading, plural, record_of, shown, span
from .interruption import Interruption

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from .stack import Stack

_SECONDS: Final = 1.0
_SAMPLES: Final = 6
_LINE_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 1.0
_SENTENCES: Final = 4
LANE_COLUMNS: Final = (
    "lane",
    "workers",
    "processes",
    "planned",
    "oldest",
    "leases",
    "being_sent",
    "for_another_try",
)
CHANNEL_COLUMNS: Final = (
    "app",
    "channel",
    "provider",
    "circuit",
    "waiting",
    "accepted_lately",
    "doubted_lately",
)
WORKER_COLUMNS: Final = ("worker", "lanes", "processes", "silent_for", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How things are at one moment. `ended` only grows. `workers`: those that have fallen silent, too."""

    app_names: Mapping[int, str]
    channels: Sequence[Channel]
    backlogs: Sequence[Backlog]
    workers: Sequence[Worker]
    ended: int
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def waiting(self) -> int:
        """Deliveries that have not ended."""
        return sum(backlog.positions + backlog.waiting for backlog in self.backlogs)

    @property
    def alive(self) -> Sequence[Worker]:
        """The workers that were heard of just now."""
        return [worker for worker in self.workers if not worker.is_silent]


class Meter:
    """Turns a count that grows into a rate over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def rate(self, at: float, count: int) -> float:
        """Take a sample, and return how fast the count grows, a second."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()  # the server counts anew
        self._samples.append((at, count))
        first_at, first = self._samples[0]
        return (count - first) / (at - first_at) if at > first_at else 0.0


def follow(stack: Stack, interruption: Interruption) -> None:
    """Show the stack and keep it running, until there is a signal: then `Interrupted` is raised."""
    if sys.stdout.isatty():
        _follow_live(stack, interruption)
    else:
        _follow_plainly(stack, interruption)


def look(database: Database) -> Snapshot | None:
    """Read how things are; `None` while the database does not answer."""
    try:
        return database.run(read, patience_seconds=_PATIENCE_SECONDS)
    except DatabaseUnavailable:
        return None


def read(connection: Connection) -> Snapshot:
    """Read how things are. Cheap enough for every second, whatever is stored."""
    return Snapshot(
        app_names={app.id: app.name for app in apps.list_all(connection)},
        channels=channels.list_all(connection),
        backlogs=overview.backlogs(connection),
        workers=doctor.workers_known(connection),
        ended=overview.ended(connection),
        dead_letters=overview.dead_letters(connection),
    )


def _follow_live(stack: Stack, interruption: Interruption) -> None:
    from rich.live import Live

    meter = Meter()
    sentences: deque[str] = deque(maxlen=_SENTENCES)
    with Live(auto_refresh=False, transient=True) as live:
        while True:
            sentences.extend(f"{time.strftime('%H:%M:%S')} {sentence}" for sentence in stack.revive())
            snapshot = look(stack.database)
            rate = meter.rate(time.monotonic(), snapshot.ended) if snapshot else 0.0
            live.update(render(snapshot, rate, sentences), refresh=True)
            interruption.sleep(_SECONDS)


def _follow_plainly(stack: Stack, interruption: Interruption) -> None:
    meter = Meter()
    said_at, said = time.monotonic(), None
    while True:
        for sentence in stack.revive():
            click.echo(f"{time.strftime('%H:%M:%S')} {sentence}")
        snapshot = look(stack.database)
        if snapshot is not None:
            line = describe(snapshot, meter.rate(time.monotonic(), snapshot.ended))
            said = line if said is None else said
            if line != said and time.monotonic() - said_at >= _LINE_SECONDS:
                click.echo(f"{time.strftime('%H:%M:%S')} {line}")
                said_at, said = time.monotonic(), line
        interruption.sleep(_SECONDS)


def describe(snapshot: Snapshot, rate: float) -> str:
    """Say how things are in a line."""
    stopped = [clean(channel.name) for channel in snapshot.channels if channel.circuit == "open"]
    trouble = f", stopped: {', '.join(stopped)}" if stopped else ""
    return f"{rate:,.0f} deliveries a second, {snapshot.waiting:,} waiting{trouble}"


def lanes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Sum up each lane: who works for it, and what waits."""
    rows = []
    for lane in Lane:
        of_lane = [backlog for backlog in snapshot.backlogs if backlog.lane == lane]
        serving = [worker for worker in snapshot.alive if lane in worker.lanes]
        ages = [backlog.oldest_seconds for backlog in of_lane if backlog.oldest_seconds is not None]
        rows.append(
            {
                "lane": lane.value,
                "workers": len(serving),
                "processes": sum(worker.processes for worker in serving),
                "planned": sum(backlog.positions for backlog in of_lane),
                "oldest_seconds": max(ages, default=None),
                "leases": sum(backlog.leases for backlog in of_lane),
                "being_sent": sum(backlog.leased for backlog in of_lane),
                "for_another_try": sum(backlog.waiting for backlog in of_lane),
            }
        )
    return rows


def ways(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Sum up each channel: its circuit, what waits, and what was answered lately."""
    waiting, retries = Counter[int](), Counter[int]()
    for backlog in snapshot.backlogs:
        waiting[backlog.channel_id] += backlog.positions + backlog.waiting
        retries[backlog.channel_id] += backlog.waiting
    return [
        {
            "app": snapshot.app_names.get(channel.app_id, "?"),
            "channel": channel.name,
            "provider": channel.provider.value,
            "circuit": channel.circuit.value,
            "circuit_reason": channel.circuit_reason.value if channel.circuit_reason else None,
            "circuit_detail": channel.circuit_detail,
            **record_of(channel, "circuit_changed_at", "probe_at", "failed_probes", "ramping_since"),
            "story": story(channel, snapshot.at),
            "waiting": waiting[channel.id],
            "for_another_try": retries[channel.id],
            "accepted_lately": channel.accepted,
            "doubted_lately": channel.doubted,
        }
        for channel in sorted(
            snapshot.channels, key=lambda one: (snapshot.app_names.get(one.app_id, "?"), one.name)
        )
    ]


def staff(snapshot: Snapshot) -> list[dict[str, Any]]:
    """List the workers, those that have fallen silent too."""
    return [
        {
            "worker": worker.name,
            "lanes": list(worker.lanes),
            "processes": worker.processes,
            "version": worker.version,
            "started_at": worker.started_at,
            "silent_seconds": round(worker.silent_seconds, 1),
            "is_silent": worker.is_silent,
        }
        for worker in snapshot.workers
    ]


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write one of these rows for people: numbers with commas, ages in words, the circuit as its story."""
    words: dict[str, Any] = {
        name: f"{value:,}" if type(value) is int else value for name, value in row.items()
    }
    if "story" in row:
        words["circuit"] = row["story"]
    if "oldest_seconds" in row:
        words["oldest"] = "" if row["oldest_seconds"] is None else span(row["oldest_seconds"])
    if "is_silent" in row:
        words["silent_for"] = f"{'silent for ' if row['is_silent'] else ''}{span(row['silent_seconds'])}"
    return words


def letters_line(snapshot: Snapshot) -> str:
    """Say in a line how many dead letters nobody has replayed."""
    if not snapshot.dead_letters:
        return "no dead letters"
    total = plural(sum(snapshot.dead_letters.values()), "dead letter")
    return f"{total}: {', '.join(f'{kind} {count:,}' for kind, count in snapshot.dead_letters.items())}"


def render(
    snapshot: Snapshot | None, rate: float, sentences: Sequence[str] | deque[str] = ()
) -> RenderableType:
    """Draw how things are."""
    from rich.console import Group
    from rich.text import Text

    tail = [Text(sentence, style="yellow") for sentence in sentences]
    if snapshot is None:
        return Group(Text("PostgreSQL does not answer; workers wait for it", style="red"), *tail)
    head = Text(
        f"{rate:,.0f} deliveries a second   {snapshot.waiting:,} waiting   "
        f"{plural(len(snapshot.alive), 'worker')}   {letters_line(snapshot)}",
        "bold",
    )
    details = [
        Text(f"{row['app']} {row['channel']}: {clean(row['circuit_detail'])}", style="red")
        for row in ways(snapshot)
        if row["circuit_detail"]
    ]
    return Group(
        head,
        _table(lanes(snapshot), LANE_COLUMNS),
        _table(ways(snapshot), CHANNEL_COLUMNS),
        *details,
        _table(staff(snapshot), WORKER_COLUMNS),
        *tail,
    )


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        is_number = bool(rows) and type(rows[0].get(name)) is int
        table.add_column(heading(name), justify="right" if is_number else "left")
    for row in rows:
        words = told(row)
        is_trouble = row.get("circuit") == "open" or row.get("is_silent", False)
        cells = (Text(shown(words.get(name))) for name in columns)
        table.add_row(*cells, style="red" if is_trouble else "")
    return table
