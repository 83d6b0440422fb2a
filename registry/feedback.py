"""The feedback log: what happened to tokens, for backends to read in order and without gaps.

Ids are given before transactions commit, so a row with a smaller id may appear after one with a larger.
Readers therefore page by (transaction, id) and stop before the oldest transaction that is still open: what
they have passed cannot grow. A long transaction that has written anything, anywhere on the server, delays
feedback and loses none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .database import Connection
from .errors import InvalidRegistration
from .installs import FeedbackKind
from .statements import load

__all__ = ["BEGINNING", "Cursor", "Feedback", "FeedbackKind", "read"]

_SQL = load("feedback")
_CURSOR = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16})")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cursor:
    """A reader's place: the last row that it has read. `str` and `parse` carry it through a URL."""

    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.xid:x}-{self.id:x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote. Raises `InvalidRegistration`."""
        found = _CURSOR.fullmatch(text)
        if found is None or any(int(part, 16) > _LARGEST for part in found.groups()):
            raise InvalidRegistration("after: must be a cursor that an earlier answer gave")
        return cls(xid=int(found[1], 16), id=int(found[2], 16))


BEGINNING: Final = Cursor(xid=0, id=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One thing that happened to a token. Go on reading after its `cursor`."""

    cursor: Cursor
    device_id: int
    user_id: str
    device_key: str
    channel_id: int
    channel: str | None
    kind: FeedbackKind
    reason: str
    token_hash: str
    at: datetime


def read(
    connection: Connection, app_id: int, *, after: Cursor = BEGINNING, limit: int = 100
) -> list[Feedback]:
    """Read an app's feedback after a cursor; nothing means nothing yet: come again with the same cursor."""
    rows = connection.execute(
        _SQL["read"], {"app_id": app_id, "xid": after.xid, "id": after.id, "limit": limit}
    )
    return [
        Feedback(
            cursor=Cursor(xid=row.pop("xid"), id=row.pop("id")),
            **{**row, "kind": FeedbackKind(row["kind"])},
        )
        for row in rows
    ]
