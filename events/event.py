"""The three kinds of event that a backend publishes."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from .message import Message
from .names import Lane
from .validation import (
    Problems,
    apply_rules,
    choice,
    instance_of,
    instant,
    matching,
    text,
    text_set,
    whole_number,
)

LONGEST_TTL: Final = timedelta(days=28)

_ID = text(255)
# Kii's topic ids are [A-Za-z0-9_-]{1,64}; the dot and the colon let other systems keep their names.
_NAME = matching("[A-Za-z0-9_.:-]+", "of the characters A-Z a-z 0-9 _ - . :", longest=64)
_SCOPE = matching("app|(group|user|thing):.+", "app, group:<id>, user:<id> or thing:<id>", longest=261)
_USERS = text_set(_ID, at_most=10_000)
_TTL_SECONDS = whole_number(0, int(LONGEST_TTL.total_seconds()))


class Environment(StrEnum):
    """Which installs of an app a push is for: those from the store, or those of its developers."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class Change(StrEnum):
    """What happened to an object of a bucket."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    BODY_UPDATED = "body_updated"
    BODY_DELETED = "body_deleted"
    ACL_MODIFIED = "acl_modified"


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """Fields and rules that all kinds share.

    `id` is the idempotency key: with the same content it is one event, however often it is published.
    `environment` leaves out devices on channels of the other one; unset, both get it.
    Give `ttl_seconds`, which counts from intake (0: one attempt, and no provider stores it), or `expires_at`.
    """

    app: Annotated[str, _NAME]
    id: Annotated[str, _ID] = field(default_factory=_new_id)
    ttl_seconds: Annotated[int | None, _TTL_SECONDS] = None
    expires_at: Annotated[datetime | None, instant] = None
    lane: Annotated[Lane | None, choice(Lane)] = None
    environment: Annotated[Environment | None, choice(Environment)] = None

    kind: ClassVar[str]
    default_ttl: ClassVar[timedelta] = timedelta(hours=24)

    def __post_init__(self) -> None:
        problems = Problems()
        apply_rules(self, "", problems)
        if self.ttl_seconds is not None and self.expires_at is not None:
            problems.add("expires_at", "conflict", "cannot be combined with ttl_seconds: give one of them")
        problems.raise_if_any()

    @property
    def ttl(self) -> timedelta:
        """How long the event is worth delivering, unless `expires_at` says until when."""
        return self.default_ttl if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds)

    def expiry(self, now: datetime) -> datetime:
        """Say when an event that is taken in `now` expires: in 28 days at the latest, perhaps in the past."""
        if self.expires_at is not None:
            return min(self.expires_at, now + LONGEST_TTL)
        return now + self.ttl


# What stands for "no message" in a bucket write, until the change is known.
_NO_MESSAGE: Final = Message(silent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketWrite(_Published):
    """Tell the users subscribed to a bucket that an object in it changed (Kii: Push to App).

    Without a message it is silent, with the change in `data` and the bucket as collapse key.
    `actor` is the user who made the change and gets no push.
    """

    bucket: Annotated[str, _NAME]
    object: Annotated[str, _ID]
    change: Annotated[Change, choice(Change)]
    scope: Annotated[str, _SCOPE] = "app"
    actor: Annotated[str | None, _ID] = None
    message: Annotated[Message, instance_of(Message)] = _NO_MESSAGE

    kind: ClassVar[str] = "bucket"
    default_ttl: ClassVar[timedelta] = timedelta(hours=1)

    def __post_init__(self) -> None:
        _Published.__post_init__(self)  # super() without arguments fails in a dataclass with slots
        if self.message is _NO_MESSAGE:
            object.__setattr__(self, "message", self.default_message())

    def default_message(self) -> Message:
        """Describe the change to the app, which then fetches what is new."""
        data = {"bucket": self.bucket, "object": self.object, "change": self.change.value}
        if self.scope != "app":
            data["scope"] = self.scope
        return Message(silent=True, data=data, collapse_key=self.bucket)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMessage(_Published):
    """Send a message to the users subscribed to a topic (Kii: Push to User), without the `actor`."""

    topic: Annotated[str, _NAME]
    message: Annotated[Message, instance_of(Message)]
    scope: Annotated[str, _SCOPE] = "app"
    actor: Annotated[str | None, _ID] = None

    kind: ClassVar[str] = "topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectPush(_Published):
    """Send a message to the users named, up to 10,000 (Kii: Direct Push). They are kept sorted, each once."""

    users: Annotated[Collection[str], _USERS]
    message: Annotated[Message, instance_of(Message)]

    kind: ClassVar[str] = "direct"


Event = BucketWrite | TopicMessage | DirectPush
