"""Bulk import of devices from a CSV or JSON-lines file: by batches, resumable, bad rows named in a file.

1. Read lines, never the whole file; make install calls of them, and set aside rows that cannot be any.
2. A batch is one transaction with the rules of registration, as if its rows had been installed one by one.
3. Before the commit write down where the import will stand (`import_state`). Killed anywhere, it goes on with
   the first row that is not committed: no row is applied twice.
4. Rejected rows are in `FILE.rejected.csv` (or `.jsonl`), which can be corrected and imported in turn.

A second import of the same file is harmless: its rows are `refreshed`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import psycopg

from . import channels as all_channels
from .channels import Channel
from .database import Connection, Database
from .devices import install_checked
from .errors import RegistryError
from .import_rows import Csv, JsonLines, KnownChannel, Line, Rejected, open_rows, read_lines, to_call
from .import_state import Pending, Place, Source, StateFile, source_of
from .installs import Change, Install
from .statements import load

_SQL = load("importer")
_ROWS_AT_ONCE: Final = 5_000
_BYTES_AT_ONCE: Final = 16_777_216
_COMMIT_PATIENCE_SECONDS: Final = 60.0
_COMMIT_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import is. Rows count those rejected."""

    rows: int
    rejected: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did, with what was done before it was interrupted; `seconds` are those of this run.

    `kept`: rows whose `registered_at` is older than what is registered.
    """

    created: int
    refreshed: int
    replaced: int
    moved: int
    kept: int
    rejected: int
    seconds: float
    rejected_file: Path | None
    rows_before: int


def import_devices(
    database: Database,
    app_id: int,
    path: Path,
    *,
    check_token: Callable[[Channel, str], str | None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> Imported:
    """Import a file into an app, or go on where an interrupted import of it stopped.

    `check_token(channel, token)` says what is wrong with a token in the vendor's eyes, if anything;
    `on_progress` is called after each batch. Raises `InvalidRegistration` for a file without a usable header,
    `RegistryError` if it is being imported already or its state belongs to something else, and
    `DatabaseUnavailable` when patience ends.
    """
    started = time.monotonic()
    with path.open("rb") as file, _only_one(file, path), ThreadPoolExecutor(1, "import") as reader:
        job = _Import(database, app_id, file, path, check_token)
        rows_before = job.place.rows
        total_bytes = os.fstat(file.fileno()).st_size
        # PostgreSQL and disk work on a batch while the next is read.
        coming = reader.submit(job.read, rows_at_once)
        while batch := coming.result():
            coming = reader.submit(job.read, rows_at_once)
            job.apply(batch)
            if on_progress is not None:
                place = job.place
                on_progress(
                    Progress(
                        rows=place.rows, rejected=place.rejected, bytes=place.offset, total_bytes=total_bytes
                    )
                )
        rejected_file = job.end()
    return Imported(
        **{change.value: job.place.changes.get(change.value, 0) for change in Change},
        rejected=job.place.rejected,
        seconds=time.monotonic() - started,
        rejected_file=rejected_file,
        rows_before=rows_before,
    )


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Rows that are imported together, and the line that ends them."""

    calls: list[Install] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    last: Line | None = None
    bytes: int = 0

    def add(self, result: Install | Rejected) -> None:
        """Put a row where it belongs."""
        if isinstance(result, Rejected):
            self.rejected.append(result)
        else:
            self.calls.append(result)


class _Import:
    """One import: the file, where it stands, and what was rejected."""

    def __init__(
        self,
        database: Database,
        app_id: int,
        file: BinaryIO,
        path: Path,
        check_token: Callable[[Channel, str], str | None] | None,
    ) -> None:
        self._database = database
        self._channels = _channels(database, app_id, check_token)
        self._state = StateFile(path.with_name(path.name + ".import.json"))
        self._rows, first = open_rows(file)
        address = _address(database)
        standing = self._state.load(file, app_id=app_id, database=address)
        self._source: Source = source_of(file, app_id=app_id, database=address)
        self.place = Place(offset=first.end, line=first.number)
        if standing is not None:
            self.place = standing.place
            if standing.pending is not None and _is_committed(database, standing.pending.xid):
                self.place = standing.pending.place
        if file.seek(0, os.SEEK_END) < self.place.offset:
            raise RegistryError(f"{path} is shorter than what was imported of it")
        file.seek(self.place.offset)
        self._lines = read_lines(file, Line(self.place.line, self.place.offset, ""))
        self._rejects = _RejectedFile(path, self._rows, size=self.place.rejected_bytes)

    def read(self, rows_at_once: int) -> _Batch | None:
        """Read the lines of the next batch, so many rows or so many bytes; `None` at the end of the file."""
        batch = _Batch()
        for line in islice(self._lines, rows_at_once):
            batch.last = line
            batch.bytes += len(line.text)
            if line.problem or line.text.strip():
                batch.add(to_call(line, self._rows, self._channels))
            if batch.bytes >= _BYTES_AT_ONCE:
                break
        return None if batch.last is None else batch

    def apply(self, batch: _Batch) -> None:
        """Import a batch: the next after the one before."""
        assert batch.last is not None
        after = replace(
            self.place,
            offset=batch.last.end,
            line=batch.last.number,
            rows=self.place.rows + len(batch.calls) + len(batch.rejected),
            rejected=self.place.rejected + len(batch.rejected),
            rejected_bytes=self._rejects.write(batch.rejected),
        )
        if batch.calls:
            after = self._commit(batch.calls, after)
        else:
            self._state.save(self._source, after, None)
        self.place = after

    def end(self) -> Path | None:
        """Forget the state. Returns the file of rejected rows, if there are any."""
        self._state.remove()
        return self._rejects.end()

    def _commit(self, calls: list[Install], after: Place) -> Place:
        pending: list[Pending] = []

        def work(connection: Connection) -> Place:
            if pending and _await_end(connection, pending[-1].xid):
                return pending[-1].place  # only the reply to COMMIT was lost
            changes = Counter(done.change.value for done in install_checked(connection, calls))
            row = connection.execute(_SQL["current_transaction"]).fetchone()
            assert row is not None
            place = replace(after, changes=self.place.with_changes(changes))
            pending.append(Pending(xid=row["xid"], place=place))
            self._state.save(self._source, self.place, pending[-1])
            return place

        return self._database.run(work)


class _RejectedFile:
    """The file of rejected rows, made when there is one. Only its owner may read it: it holds tokens."""

    def __init__(self, path: Path, rows: Csv | JsonLines, *, size: int) -> None:
        self._path = path.with_name(f"{path.name}.rejected.{rows.suffix}")
        self._rows = rows
        self._size = 0
        if not size:
            self._path.unlink(missing_ok=True)
        elif self._path.is_file():
            # What was written after the last commit is written again.
            self._size = min(size, self._path.stat().st_size)
            os.truncate(self._path, self._size)

    def write(self, rejected: Iterable[Rejected]) -> int:
        """Append rows. Returns the size of the file."""
        text = "".join(map(self._rows.write, rejected))
        if not text:
            return self._size
        if not self._size:
            text = self._rows.heading() + text
        data = text.encode(errors="replace")
        with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(data)
        return self._size

    def end(self) -> Path | None:
        """Return where the rejected rows are, `None` if there are none."""
        return self._path if self._size else None


def _channels(
    database: Database, app_id: int, check_token: Callable[[Channel, str], str | None] | None
) -> Mapping[str, KnownChannel]:
    found = database.run(lambda connection: all_channels.list_all(connection, app_id))

    def checker(channel: Channel) -> Callable[[str], str | None] | None:
        return None if check_token is None else lambda token: check_token(channel, token)

    return {channel.name: KnownChannel(id=channel.id, check_token=checker(channel)) for channel in found}


def _address(database: Database) -> str:
    """Name the database by what a copy or a restored backup of it would share, not by how we reach it."""
    row = database.run(lambda connection: connection.execute(_SQL["identity"]).fetchone())
    assert row is not None
    return str(row["identity"])


def _is_committed(database: Database, xid: str) -> bool:
    return database.run(lambda connection: _await_end(connection, xid))


def _await_end(connection: Connection, xid: str) -> bool:
    """Tell whether a transaction was committed, when it has ended. One too old to be known counts as not."""
    deadline = time.monotonic() + _COMMIT_PATIENCE_SECONDS
    while True:
        try:
            row = connection.execute(_SQL["transaction_status"], {"xid": xid}).fetchone()
        except psycopg.errors.InvalidParameterValue as error:
            raise RegistryError(
                "the interrupted import was into another server: remove its state file"
            ) from error
        status = None if row is None else row["status"]
        if status != "in progress":
            return bool(status == "committed")
        if time.monotonic() > deadline:
            raise RegistryError("the last batch of the interrupted import has not ended: try again later")
        time.sleep(_COMMIT_POLL_SECONDS)


@contextmanager
def _only_one(file: BinaryIO, path: Path) -> Iterator[None]:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RegistryError(f"{path} is being imported by another process") from error
    yield
