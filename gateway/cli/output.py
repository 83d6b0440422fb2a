"""How commands print: JSON lines for programs, tables for people, aligned columns where there is no terminal.

Data goes to standard output, everything else (warnings, notes, progress) to standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

# A provider's reason or a user's name must not speak to the terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TROUBLE: Final = frozenset({"open", "FAIL", "dead", "refused", "unreachable", "conflict"})
_ATTENTION: Final = frozenset({"WARN", "waiting", "suspect", "planning", "cancelling", "probing"})


def print_json(value: Mapping[str, Any], *, err: bool = False) -> None:
    """Print one object on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=_plain), err=err)


def print_rows(
    rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str], as_json: bool, empty: str = "none"
) -> None:
    """Print records: as JSON lines with all their fields, or the named columns as a table."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    cells = [[shown(row.get(column)) for column in columns] for row in rows]
    if not cells:
        note(empty)
    elif sys.stdout.isatty():
        _print_table([heading(column) for column in columns], cells)
    else:
        for line in aligned([[heading(column) for column in columns], *cells]):
            click.echo(line)


def print_record(record: Mapping[str, Any], *, as_json: bool, only: Collection[str] = ()) -> None:
    """Print one record: as an object, or a line for each field that is set; of these `only` some."""
    if as_json:
        print_json(record)
        return
    lines = {
        heading(name): shown(value)
        for name, value in record.items()
        if value not in (None, "", {}, []) and (not only or name in only)
    }
    width = max(map(len, lines), default=0)
    for title, text in lines.items():
        if text:
            click.echo(f"{title.ljust(width)}  {text}")


def note(text: str) -> None:
    """Tell a person something that is not data."""
    click.echo(clean(text), err=True)


def warn(text: str, *, as_json: bool = False) -> None:
    """Tell that something is not as it should be, though the command goes on."""
    if as_json:
        click.echo(json.dumps({"warning": text}, ensure_ascii=False), err=True)
    else:
        click.secho(f"Warning: {clean(text)}", fg="yellow", err=True)


def heading(name: str) -> str:
    """Spell a field's name for people."""
    return name.replace("_", " ")


def clean(text: str) -> str:
    """Replace what would control a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def shown(value: object) -> str:
    """Write a value as people read it."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items() if item not in (None, 0, ""))
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(shown, value))
    return clean(str(value))


def instant(value: datetime) -> str:
    """Write an instant in UTC, to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def span(seconds: float) -> str:
    """Write a duration in its largest sensible unit."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """Write a count with its noun."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def record_of(instance: object, *names: str) -> dict[str, Any]:
    """Take some attributes of an object."""
    return {name: getattr(instance, name) for name in names}


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Pad cells to columns, two spaces apart, nothing cut."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@contextmanager
def progress(description: str, total: int, *, is_shown: bool) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on a terminal's standard error. Gives a function that is told how much is done."""
    if not is_shown or not sys.stderr.isatty():
        yield lambda _done, _text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, text: bar.update(task, completed=done, description=f"{description} {text}")


@contextmanager
def status(text: str, *, is_shown: bool) -> Iterator[Callable[[str], None]]:
    """Show what is going on, on a terminal's standard error. Gives a function that changes the text."""
    if not is_shown or not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as line:
        yield line.update


def _print_table(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console().print(table)


def _style(cell: str) -> str:
    word = cell.partition(":")[0].partition(" ")[0]
    return "red" if word in _TROUBLE else "yellow" if word in _ATTENTION else ""


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
