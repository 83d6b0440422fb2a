"""Files of devices, a line at a time: CSV or JSON lines, and whatever else such files hold.

A line is a row. Values cannot hold line ends, so a quote that is never closed costs one line and not the rest
of the file, and every line's end is a place where an import can go on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

import orjson

from events.validation import did_you_mean

from .checks import Problems, instant
from .devices import check
from .errors import InvalidRegistration
from .installs import AddressKind, Install

REQUIRED: Final = ("user", "device_key", "channel", "token")
OPTIONAL: Final = ("locale", "time_zone", "app_version", "registered_at", "address_kind")
# What a file of rejected rows has in addition, so that it can be corrected and imported.
IGNORED: Final = ("line", "problems")
_KNOWN: Final = frozenset((*REQUIRED, *OPTIONAL, *IGNORED))
# Twenty times what the longest valid values need.
LONGEST_LINE: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_RAW_SHOWN: Final = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file: its number from 1, where the next begins, and its text or why it has none."""

    number: int
    end: int
    text: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be imported, with every reason. `row`: its fields, or its text if it has none."""

    line: int
    problems: tuple[str, ...]
    row: Mapping[str, Any] | str


class RowRefused(Exception):
    """A line cannot be read as a row: the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownChannel:
    """What an import must know of a channel. `check_token` says what is wrong with a token, if anything."""

    id: int
    check_token: Callable[[str], str | None] | None = None


class Csv:
    """Rows below a header that names their columns, separated by commas, semicolons or tabs."""

    suffix: Final = "csv"

    def __init__(self, header: str) -> None:
        self.delimiter = max(",;\t", key=header.count)
        try:
            self.columns = [name.strip() for name in self._split(header)]
        except RowRefused as error:
            raise InvalidRegistration(f"the header {error}") from error
        problems = Problems()
        for name in [name for name in REQUIRED if name not in self.columns]:
            problems.add("header", "required", f"the column {name} is missing")
        for name in dict.fromkeys(self.columns):
            if self.columns.count(name) > 1:
                problems.add(
                    "header", "conflict", f"the column {name} is there {self.columns.count(name)} times"
                )
            if name not in _KNOWN:
                hint = did_you_mean(name, (*REQUIRED, *OPTIONAL))
                problems.add("header", "unknown", f"there is no column {name[:64]!r}{hint}")
        if problems.found:
            raise InvalidRegistration("\n".join(map(str, problems.found)))

    def read(self, text: str) -> Mapping[str, Any]:
        """Read a row as {column: value}. Raises `RowRefused`."""
        values = text.split(self.delimiter) if '"' not in text else self._split(text)
        if len(values) != len(self.columns):
            raise RowRefused(f"has {len(values)} values for {len(self.columns)} columns")
        return dict(zip(self.columns, values, strict=True))

    def write(self, rejected: Rejected) -> str:
        """Write a row of the file of rejected rows, with its line end."""
        row = rejected.row
        cells = [row] if isinstance(row, str) else [row[name] for name in self.columns if name not in IGNORED]
        return self._join([str(rejected.line), "; ".join(rejected.problems), *cells])

    def heading(self) -> str:
        """Write the header of the file of rejected rows."""
        return self._join([*IGNORED, *(name for name in self.columns if name not in IGNORED)])

    def _split(self, text: str) -> list[str]:
        if '"' not in text:
            return text.split(self.delimiter)
        try:
            return next(csv.reader([text], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            raise RowRefused(f"is not CSV: {error}") from error

    def _join(self, cells: Sequence[str]) -> str:
        quoted = (
            '"' + cell.replace('"', '""') + '"' if set(cell) & {'"', self.delimiter} else cell
            for cell in cells
        )
        return self.delimiter.join(quoted) + "\n"


class JsonLines:
    """Rows that are JSON objects, one on a line."""

    suffix: Final = "jsonl"

    def read(self, text: str) -> Mapping[str, Any]:
        """Read a row as {field: value}. Raises `RowRefused`."""
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise RowRefused(f"is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise RowRefused("is not a JSON object")
        return row

    def write(self, rejected: Rejected) -> str:
        """Write a row of the file of rejected rows, with its line end."""
        fields = {"row": rejected.row} if isinstance(rejected.row, str) else rejected.row
        about = {"line": rejected.line, "problems": list(rejected.problems)}
        return (
            json.dumps({**about, **{k: v for k, v in fields.items() if k not in about}}, ensure_ascii=False)
            + "\n"
        )

    def heading(self) -> str:
        """Write nothing: JSON lines have no header."""
        return ""


def open_rows(file: BinaryIO) -> tuple[Csv | JsonLines, Line]:
    """Tell what kind of file it is. Returns that and the line after which rows begin.

    Raises `InvalidRegistration` with everything that is wrong with the header.
    """
    start = file.read(len(_BOM))
    if start.startswith(_UTF16):
        raise InvalidRegistration("the file is UTF-16: save it as UTF-8")
    offset = len(_BOM) if start == _BOM else 0
    file.seek(offset)
    before = Line(0, offset, "")
    for line in read_lines(file, before):
        if line.problem:
            raise InvalidRegistration(f"line {line.number} {line.problem}")
        first = line.text.lstrip()[:1]
        if first == "{":
            return JsonLines(), before
        if first == "[":
            raise InvalidRegistration(
                "the file is a JSON array: write its objects one on a line, without commas"
            )
        if first:
            return Csv(line.text), line
        before = line
    raise InvalidRegistration("the file is empty")


def read_lines(file: BinaryIO, last: Line) -> Iterator[Line]:
    """Read the lines after `last`, where the file stands; never more than a line's limit in memory."""
    number, end = last.number, last.end
    while raw := file.readline(LONGEST_LINE + 1):
        number, end = number + 1, end + len(raw)
        if len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
            end += _skip_line(file)
            yield Line(number, end, "", f"has more than {LONGEST_LINE:,} bytes")
            continue
        try:
            yield Line(number, end, raw.decode().rstrip("\r\n"))
        except UnicodeDecodeError as error:
            shown = raw.decode(errors="replace").rstrip("\r\n")
            yield Line(number, end, shown, f"is not UTF-8 (at its byte {error.start + 1})")


def to_call(line: Line, rows: Csv | JsonLines, channels: Mapping[str, KnownChannel]) -> Install | Rejected:
    """Make an install call of a line, or say everything that is wrong with it."""
    if line.problem:
        return Rejected(line.number, (line.problem,), line.text[:_RAW_SHOWN])
    try:
        row = rows.read(line.text)
    except RowRefused as error:
        return Rejected(line.number, (str(error),), line.text[:_RAW_SHOWN])
    problems = Problems()
    call = _call(row, channels, problems)
    if problems.found:
        return Rejected(line.number, tuple(map(str, problems.found)), row)
    return call


def _call(row: Mapping[str, Any], channels: Mapping[str, KnownChannel], problems: Problems) -> Install:
    for field in sorted(row.keys() - _KNOWN):
        problems.add(field[:64], "unknown", f"is not a field{did_you_mean(field, (*REQUIRED, *OPTIONAL))}")
    name = row.get("channel")
    channel = channels.get(name) if isinstance(name, str) else None
    if channel is None:
        known = ", ".join(sorted(channels)) or "none"
        problems.add("channel", "unknown", f"is none of the app's channels ({known})")
    call = Install(
        channel_id=0 if channel is None else channel.id,
        # What is no string goes on to be refused as what it is.
        user_id=row.get("user") or "",
        device_key=row.get("device_key") or "",
        token=row.get("token") or "",
        locale=_optional(row, "locale"),
        time_zone=_optional(row, "time_zone"),
        app_version=_optional(row, "app_version"),
        address_kind=_address_kind(_optional(row, "address_kind"), problems),
        registered_at=_registered_at(_optional(row, "registered_at"), problems),
    )
    before = len(problems.found)
    check(call, problems)
    if channel is not None and channel.check_token is not None and len(problems.found) == before:
        complaint = channel.check_token(call.token)
        if complaint is not None:
            problems.add("token", "format", complaint)
    return call


def _optional(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    return None if value == "" else value


def _address_kind(value: object, problems: Problems) -> AddressKind:
    if value is None or value == AddressKind.TOKEN:
        return AddressKind.TOKEN
    if value == AddressKind.INSTALLATION_ID:
        return AddressKind.INSTALLATION_ID
    problems.add("address_kind", "choice", f"must be one of {', '.join(AddressKind)}")
    return AddressKind.TOKEN


def _registered_at(value: object, problems: Problems) -> datetime | None:
    if value is None:
        return None
    moment = instant(value, "registered_at", problems)
    return moment if isinstance(moment, datetime) else None


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while raw := file.readline(LONGEST_LINE):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped
