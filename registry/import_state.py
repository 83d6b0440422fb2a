"""Where an import stands, in a file beside the imported one, so that an interrupted import goes on there.

The file cannot be written in the same instant as PostgreSQL commits. So it is written just before, with the
transaction's id, and whoever reads it asks PostgreSQL what became of that transaction.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from .errors import RegistryError

_VERSION: Final = 1
_HEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is done: up to which byte and line of the file, and with which results."""

    offset: int
    line: int
    rows: int = 0
    rejected: int = 0
    rejected_bytes: int = 0
    changes: dict[str, int] = field(default_factory=dict)

    def with_changes(self, changes: Counter[str]) -> dict[str, int]:
        """Add the changes of a batch to those so far."""
        return dict(Counter(self.changes) + changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A batch whose transaction was about to commit, and the place after it."""

    xid: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What must be the same for an import to go on: the file's beginning, the app and the database."""

    head_bytes: int
    head_sha256: str
    app_id: int
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A state file's content: the place that is certain, and the batch that may be committed after it."""

    place: Place
    pending: Pending | None


class StateFile:
    """The file that remembers one import. Missing: there is none to go on with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, file: BinaryIO, *, app_id: int, database: str) -> Standing | None:
        """Read where the import of `file` stands. Raises `RegistryError` if the state is another's."""
        try:
            state: Any = json.loads(self.path.read_text(encoding="utf-8"))
            is_ours = state["version"] == _VERSION
            found = Source(**state["source"])
            place = Place(**state["place"])
            pending = state["pending"] and Pending(
                xid=state["pending"]["xid"], place=Place(**state["pending"]["place"])
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"{self.path} is not the state of an import: remove it to start over"
            ) from error
        if not is_ours or found != source_of(file, app_id=app_id, database=database, size=found.head_bytes):
            raise RegistryError(
                f"{self.path} tells of an interrupted import of another file, app or database: go on with "
                "that, or remove it to start over"
            )
        return Standing(place=place, pending=pending)

    def save(self, source: Source, place: Place, pending: Pending | None) -> None:
        """Replace the file in one step, on disk when this returns."""
        state = {
            "version": _VERSION,
            "source": asdict(source),
            "place": asdict(place),
            "pending": None if pending is None else asdict(pending),
        }
        new = self.path.with_name(self.path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def remove(self) -> None:
        """Forget the import."""
        self.path.unlink(missing_ok=True)


def source_of(file: BinaryIO, *, app_id: int, database: str, size: int = _HEAD_BYTES) -> Source:
    """Describe what is imported, and into what. Leaves the file at its beginning."""
    file.seek(0)
    head = file.read(size)
    file.seek(0)
    return Source(
        head_bytes=len(head), head_sha256=hashlib.sha256(head).hexdigest(), app_id=app_id, database=database
    )
