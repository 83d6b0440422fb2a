"""The live view of `pushfan up`: lanes, channels, backlog, deliveries a second; plain lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from events.names import Lane
from registry import apps, channels, doctor, overview
from registry.channels import Channel
from registry.database import Connection, Database
from registry.errors import DatabaseUnavailable
from registry.overview import Backlog

from .interruption import Interruption
from .stack import Stack

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_SECONDS: Final = 1.0
_SAMPLES: Final = 6
_LINE_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 1.0
_SENTENCES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How things are at one moment. `ended` only grows."""

    app_names: Mapping[int, str]
    channels: Sequence[Channel]
    backlogs: Sequence[Backlog]
    workers: int
    ended: int

    @property
    def waiting(self) -> int:
        """Deliveries that have not ended."""
        return sum(backlog.positions + backlog.waiting for backlog in self.backlogs)


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

    def work(connection: Connection) -> Snapshot:
        return Snapshot(
            app_names={app.id: app.name for app in apps.list_all(connection)},
            channels=channels.list_all(connection),
            backlogs=overview.backlogs(connection),
            workers=len(doctor.workers_alive(connection)),
            ended=overview.ended(connection),
        )

    try:
        return database.run(work, patience_seconds=_PATIENCE_SECONDS)
    except DatabaseUnavailable:
        return None


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
    stopped = [channel.name for channel in snapshot.channels if channel.circuit == "open"]
    trouble = f", stopped: {', '.join(stopped)}" if stopped else ""
    return f"{rate:,.0f} deliveries a second, {snapshot.waiting:,} waiting{trouble}"


def render(snapshot: Snapshot | None, rate: float, sentences: Sequence[str] | deque[str]) -> RenderableType:
    """Draw how things are."""
    from rich.console import Group
    from rich.text import Text

    tail = [Text(sentence, style="yellow") for sentence in sentences]
    if snapshot is None:
        return Group(Text("PostgreSQL does not answer; workers wait for it", style="red"), *tail)
    head = Text(
        f"{rate:,.0f} deliveries a second   {snapshot.waiting:,} waiting   {snapshot.workers} workers", "bold"
    )
    return Group(head, _lanes(snapshot), _channels(snapshot), *tail)


def _lanes(snapshot: Snapshot) -> Table:
    table = _table("lane", "planned", "being sent", "for another try")
    planned, leased, waiting = Counter[str](), Counter[str](), Counter[str]()
    for backlog in snapshot.backlogs:
        planned[backlog.lane] += backlog.positions
        leased[backlog.lane] += backlog.leased
        waiting[backlog.lane] += backlog.waiting
    for lane in Lane:
        table.add_row(lane.value, f"{planned[lane]:,}", f"{leased[lane]:,}", f"{waiting[lane]:,}")
    return table


def _channels(snapshot: Snapshot) -> Table:
    table = _table("channel", "provider", "circuit", "waiting", "accepted lately", "doubted lately")
    waiting = Counter[int]()
    for backlog in snapshot.backlogs:
        waiting[backlog.channel_id] += backlog.positions + backlog.waiting
    for channel in snapshot.channels:
        reason = f"open: {channel.circuit_reason}" if channel.circuit_reason else channel.circuit.value
        table.add_row(
            f"{snapshot.app_names.get(channel.app_id, '?')} {channel.name}",
            channel.provider.value,
            reason,
            f"{waiting[channel.id]:,}",
            f"{channel.accepted:,}",
            f"{channel.doubted:,}",
            style="red" if channel.circuit == "open" else "",
        )
    return table


def _table(first: str, *others: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
