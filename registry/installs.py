"""The rules of registration: what an install call does to the devices that there are. Pure; no database.

Of a channel's devices in use, one may have the caller's device key, one (the same or another) the token.

1. A call that says when it happened (`registered_at`), before either was registered, changes nothing.
2. Whichever of them belongs to another user is retired: the last login owns the phone.
3. If two are left, both the caller's, the one with the device key stays and the other is retired.
4. The one that is left gets the key and the token; if none is left, a new one does.

A device never changes its user, since deliveries that were planned for the old user name its row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final


class AddressKind(StrEnum):
    """What a token is: a registration token, or (FCM) an installation id."""

    TOKEN = "token"
    INSTALLATION_ID = "installation_id"


class State(StrEnum):
    """`active`: used. `suspect`: used, but a vendor doubts the token. `retired`: kept for traces only."""

    ACTIVE = "active"
    SUSPECT = "suspect"
    RETIRED = "retired"


IN_USE: Final = frozenset({State.ACTIVE, State.SUSPECT})


class Change(StrEnum):
    """What an install call did; when it did several things, the last of these.

    `kept`: nothing, because what is registered is newer. `refreshed`: told us that the device is still there.
    `replaced`: gave it another token. `moved`: took a key or token from another user.
    """

    KEPT = "kept"
    CREATED = "created"
    REFRESHED = "refreshed"
    REPLACED = "replaced"
    MOVED = "moved"


class FeedbackKind(StrEnum):
    """What became of a token: it is no longer used, its install has another, or another user has it."""

    RETIRED = "retired"
    REPLACED = "replaced"
    MOVED = "moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """One call of the initialisation API: this user's app install, `device_key`, is reached by this token.

    What is `None` is not said and stays as it is known. `registered_at` is for registrations that happened
    earlier (imports); `None` is now, and so is the future.
    """

    channel_id: int
    user_id: str
    device_key: str
    token: str = field(repr=False)
    address_kind: AddressKind = AddressKind.TOKEN
    locale: str | None = None
    time_zone: str | None = None
    app_version: str | None = None
    registered_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Row:
    """A device in use, or one that was when the calls began. `id` is 0 for one that is not stored yet."""

    id: int
    app_id: int
    channel_id: int
    user_id: str
    device_key: str
    token: str = field(repr=False)
    address_kind: str
    locale: str | None
    time_zone: str | None
    app_version: str | None
    registered_at: datetime
    seen_at: datetime
    state: str
    state_reason: str | None = None
    state_changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the feedback log says about a row's token, as it was."""

    row: Row
    device_key: str
    token: str = field(repr=False)
    kind: FeedbackKind
    reason: str


class Registrations:
    """The devices that some calls touch, and what becomes of them, call after call.

    `rows` holds all devices in use that have the key or the token of any of the calls; `now` is when the
    calls happen; `app_ids` says whose the channels are.
    """

    def __init__(self, rows: Iterable[Row], *, now: datetime, app_ids: dict[int, int]) -> None:
        self._now = now
        self._app_ids = app_ids
        self._by_key: dict[tuple[int, str], Row] = {}
        self._by_token: dict[tuple[int, str], Row] = {}
        for row in rows:
            self._put(row)
        self.created: list[Row] = []
        self.touched: dict[int, Row] = {}
        self.notes: list[Note] = []
        self._vacated: dict[int, tuple[str, str]] = {}

    def install(self, call: Install) -> tuple[Row, Change]:
        """Apply one call. Returns the device that has the caller's key and token now."""
        by_key = self._by_key.get((call.channel_id, call.device_key))
        by_token = self._by_token.get((call.channel_id, call.token))
        if by_key is None and by_token is None:
            return self._create(call), Change.CREATED
        if newer := self._newer(call, by_key, by_token):
            return newer, Change.KEPT
        is_taken = False
        if by_key is not None and by_key.user_id != call.user_id:
            self._retire(by_key, FeedbackKind.MOVED, "other_user")
            by_token = None if by_token is by_key else by_token
            by_key, is_taken = None, True
        if by_token is not None and by_token.user_id != call.user_id:
            self._retire(by_token, FeedbackKind.MOVED, "other_user")
            by_token, is_taken = None, True
        if by_key is not None and by_token is not None and by_key is not by_token:
            self._retire(by_token, FeedbackKind.RETIRED, "other_install")
        row = by_key or by_token
        if row is None:
            return self._create(call), Change.MOVED
        change = self._refresh(row, call)
        return row, Change.MOVED if is_taken else change

    def collisions(self) -> list[int]:
        """List the stored devices whose stored key or token another stored device has now."""
        found = []
        for row_id, (device_key, token) in self._vacated.items():
            row = self.touched[row_id]
            heirs = (
                self._by_key.get((row.channel_id, device_key)),
                self._by_token.get((row.channel_id, token)),
            )
            if any(heir is not None and heir is not row and heir.id for heir in heirs):
                found.append(row_id)
        return found

    def _newer(self, call: Install, *rows: Row | None) -> Row | None:
        said = call.registered_at
        if said is None:
            return None
        return next((row for row in rows if row is not None and row.registered_at > said), None)

    def _create(self, call: Install) -> Row:
        at = self._time_of(call)
        row = Row(
            id=0,
            app_id=self._app_ids[call.channel_id],
            channel_id=call.channel_id,
            user_id=call.user_id,
            device_key=call.device_key,
            token=call.token,
            address_kind=call.address_kind.value,
            locale=call.locale,
            time_zone=call.time_zone,
            app_version=call.app_version,
            registered_at=at,
            seen_at=at,
            state=State.ACTIVE.value,
            state_changed_at=self._now,
        )
        self.created.append(row)
        self._put(row)
        return row

    def _refresh(self, row: Row, call: Install) -> Change:
        change = Change.REFRESHED
        if row.token != call.token:
            self._note(row, FeedbackKind.REPLACED, "new_token")
            change = Change.REPLACED
        if row.token != call.token or row.device_key != call.device_key:
            self._take_out(row)
            row.token, row.device_key = call.token, call.device_key
            self._put(row)
        row.address_kind = call.address_kind.value
        row.locale = call.locale or row.locale
        row.time_zone = call.time_zone or row.time_zone
        row.app_version = call.app_version or row.app_version
        row.registered_at = self._time_of(call)
        row.seen_at = max(row.seen_at, row.registered_at)
        if row.state != State.ACTIVE:
            row.state, row.state_reason, row.state_changed_at = State.ACTIVE.value, None, self._now
        self._touch(row)
        return change

    def _retire(self, row: Row, kind: FeedbackKind, reason: str) -> None:
        self._note(row, kind, reason)
        self._take_out(row)
        row.state, row.state_reason, row.state_changed_at = State.RETIRED.value, reason, self._now
        self._touch(row)

    def _time_of(self, call: Install) -> datetime:
        return self._now if call.registered_at is None else min(call.registered_at, self._now)

    def _note(self, row: Row, kind: FeedbackKind, reason: str) -> None:
        self.notes.append(Note(row=row, device_key=row.device_key, token=row.token, kind=kind, reason=reason))

    def _touch(self, row: Row) -> None:
        if row.id:
            self.touched[row.id] = row

    def _put(self, row: Row) -> None:
        self._by_key[row.channel_id, row.device_key] = row
        self._by_token[row.channel_id, row.token] = row

    def _take_out(self, row: Row) -> None:
        if row.id:
            self._vacated.setdefault(row.id, (row.device_key, row.token))
        del self._by_key[row.channel_id, row.device_key]
        del self._by_token[row.channel_id, row.token]
