"""`pushfan status`: how things are now, once or again and again."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from gateway.context import Context

from .command import Command, Duration, json_option, pass_context
from .output import note, print_json, print_rows

if TYPE_CHECKING:
    from gateway.interruption import Interruption
    from gateway.view import Snapshot

_SHORTEST: timedelta = timedelta(seconds=1)


@click.command("status", cls=Command, example="pushfan status --watch --interval 5s")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--interval", type=Duration(), default="2s", show_default=True, help="How often to look.")
@json_option
@pass_context
def status(context: Context, *, watch: bool, interval: timedelta, as_json: bool) -> None:
    """Show lanes, channels and their circuits, backlog, leases, workers and dead letters.

    Watching, it also shows how many deliveries end a second: live at a terminal, elsewhere a line each time,
    with --json an object a line. `pushfan doctor` says what to do. Retries of a channel and dead letters of a
    kind are counted up to 10,000.
    """
    from gateway import view

    if interval < _SHORTEST:
        raise click.UsageError("--interval: must be 1s or more")
    if watch:
        _watch(context, interval.total_seconds(), as_json=as_json)
    elif as_json:
        print_json(_record(context.run(view.read), None))
    else:
        _print(context.run(view.read))


def _print(snapshot: Snapshot) -> None:
    from gateway import view

    for rows, columns, empty in (
        (view.lanes(snapshot), view.LANE_COLUMNS, ""),
        (view.ways(snapshot), view.CHANNEL_COLUMNS, "no channels yet: pushfan channel add --help"),
        (view.staff(snapshot), view.WORKER_COLUMNS, "no workers: pushfan worker"),
    ):
        print_rows([view.told(row) for row in rows], columns=columns, as_json=False, empty=empty)
        click.echo()
    click.echo(view.letters_line(snapshot))
    for row in view.ways(snapshot):
        if row["circuit_detail"]:
            note(f"{row['app']} {row['channel']}: {row['circuit_detail']}")


def _record(snapshot: Snapshot, rate: float | None) -> dict[str, Any]:
    from gateway import view

    return {
        "at": snapshot.at,
        "deliveries_a_second": None if rate is None else round(rate, 1),
        "waiting": snapshot.waiting,
        "lanes": view.lanes(snapshot),
        "channels": [{name: row[name] for name in row if name != "story"} for row in view.ways(snapshot)],
        "workers": view.staff(snapshot),
        "dead_letters": dict(snapshot.dead_letters),
    }


def _watch(context: Context, seconds: float, *, as_json: bool) -> None:
    """Look until there is a signal, which is a normal end."""
    from gateway.interruption import Interrupted, Interruption

    context.database  # noqa: B018  a database that is away or of another version is told before the view begins
    with Interruption() as interruption, contextlib.suppress(Interrupted):
        if sys.stdout.isatty() and not as_json:
            _watch_live(context, interruption, seconds)
        else:
            _watch_plainly(context, interruption, seconds, as_json=as_json)


def _watch_live(context: Context, interruption: Interruption, seconds: float) -> None:
    from rich.live import Live

    from gateway import view

    meter = view.Meter()
    with Live(auto_refresh=False, screen=False) as live:
        while True:
            snapshot = view.look(context.database)
            rate = meter.rate(time.monotonic(), snapshot.ended) if snapshot else 0.0
            live.update(view.render(snapshot, rate), refresh=True)
            interruption.sleep(seconds)


def _watch_plainly(context: Context, interruption: Interruption, seconds: float, *, as_json: bool) -> None:
    from gateway import view

    meter = view.Meter()
    while True:
        snapshot = view.look(context.database)
        if snapshot is None:
            note("PostgreSQL does not answer")
        else:
            rate = meter.rate(time.monotonic(), snapshot.ended)
            if as_json:
                print_json(_record(snapshot, rate))
            else:
                click.echo(
                    f"{snapshot.at:%H:%M:%S} {view.describe(snapshot, rate)}, {view.letters_line(snapshot)}"
                )
        sys.stdout.flush()
        interruption.sleep(seconds)
