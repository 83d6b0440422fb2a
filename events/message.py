"""What a notification says, in words that all three providers understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

from .frozen import FrozenDict
from .validation import (
    Problems,
    apply_rules,
    choice,
    flag,
    json_object,
    mapping,
    matching,
    number,
    text,
    texts,
)
from .validation import whole_number as whole

RESERVED_DATA_KEY: Final = "pushfan"


class OnUnknown(StrEnum):
    """What becomes of a push that the provider may have accepted: sent again, or left at that."""

    RETRY = "retry"
    DROP = "drop"


class Priority(StrEnum):
    """How eagerly a provider wakes the device."""

    NORMAL = "normal"
    HIGH = "high"


class InterruptionLevel(StrEnum):
    """How much a notification may disturb; Apple's words."""

    PASSIVE = "passive"
    ACTIVE = "active"
    TIME_SENSITIVE = "time-sensitive"
    CRITICAL = "critical"


# 4096 bytes is the largest body that a provider takes: a longer text is certainly too long. What a message
# really weighs is known only after rendering, and checked there.
_CONTENT = text(4096, lines=True)
_NAME = text(255)
_ARGUMENTS = texts(text(4096, lines=True, may_be_empty=True), at_most=32)
_DATA = mapping(
    _NAME, text(4096, lines=True, may_be_empty=True), at_most=256, reserved=frozenset({RESERVED_DATA_KEY})
)
_LOCALE = matching(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*", "a locale such as de or pt-BR", longest=35)
_WEB_ADDRESS = matching(r"https?://[^\s/]+\S*", "an http or https URL", longest=2048)
_ANY_ADDRESS = matching(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", "a URL with its scheme", longest=2048)
# https://firebase.google.com/docs/cloud-messaging/understand-delivery#adding-analytics-labels-to-messages
_LABEL = matching(r"[A-Za-z0-9_.~%-]{1,50}", "1 to 50 of the characters A-Z a-z 0-9 - _ . ~ %", longest=50)


def _translation(value: object, path: str, problems: Problems) -> object:
    before = len(problems.found)
    frozen = mapping(_TRANSLATED_FIELD, _CONTENT, at_most=3)(value, path, problems)
    if not frozen and len(problems.found) == before:
        problems.add(path, "empty", "must not be empty")
    return frozen


_TRANSLATED_FIELD = matching("title|body|subtitle", "title, body or subtitle", longest=255)
_TRANSLATIONS = mapping(_LOCALE, _translation, at_most=200)

_EMPTY: Final[FrozenDict[Any]] = FrozenDict()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Say something to a person (`title`, `body`, …) or to an app alone (`silent` with `data`).

    Validated when built: `InvalidEvent` names every problem. Mappings are copied read-only, lists as tuples.
    What each field becomes with a vendor is documented by the vendor's provider. Beside the names:

    - `badge` 0 clears it. `data` is flat; the key `pushfan` is Pushfan's own.
    - `priority` unset: high, or normal if `silent`.
    - `silent` wakes the app and shows nothing; what would be shown is refused.
    - `translations`, by locale: `title`, `body` and `subtitle` that replace the default ones on such devices.
    - `fcm`, `apns`, `jpush` are merged over the vendor's body; their rules are the provider's.
    """

    title: Annotated[str | None, _CONTENT] = None
    body: Annotated[str | None, _CONTENT] = None
    subtitle: Annotated[str | None, _CONTENT] = None
    image: Annotated[str | None, _WEB_ADDRESS] = None
    icon: Annotated[str | None, _NAME] = None
    color: Annotated[str | None, matching("#[0-9A-Fa-f]{6}", "a colour such as #00aaff", longest=255)] = None
    sound: Annotated[str | None, _NAME] = None
    badge: Annotated[int | None, whole(0, 2**31 - 1)] = None
    url: Annotated[str | None, _ANY_ADDRESS] = None
    data: Annotated[Mapping[str, str], _DATA] = field(default=_EMPTY)
    category: Annotated[str | None, _NAME] = None
    thread_id: Annotated[str | None, _NAME] = None
    channel_id: Annotated[str | None, _NAME] = None
    tag: Annotated[str | None, _NAME] = None
    collapse_key: Annotated[str | None, text(64, bytes_at_most=64)] = None
    priority: Annotated[Priority | None, choice(Priority)] = None
    silent: Annotated[bool, flag] = False
    mutable_content: Annotated[bool, flag] = False
    interruption_level: Annotated[InterruptionLevel | None, choice(InterruptionLevel)] = None
    relevance_score: Annotated[float | None, number(0, 1)] = None
    title_loc_key: Annotated[str | None, _NAME] = None
    title_loc_args: Annotated[Sequence[str], _ARGUMENTS] = ()
    body_loc_key: Annotated[str | None, _NAME] = None
    body_loc_args: Annotated[Sequence[str], _ARGUMENTS] = ()
    translations: Annotated[Mapping[str, Mapping[str, str]], _TRANSLATIONS] = field(default=_EMPTY)
    analytics_label: Annotated[str | None, _LABEL] = None
    on_unknown: Annotated[OnUnknown, choice(OnUnknown)] = OnUnknown.RETRY
    fcm: Annotated[Mapping[str, Any] | None, json_object] = None
    apns: Annotated[Mapping[str, Any] | None, json_object] = None
    jpush: Annotated[Mapping[str, Any] | None, json_object] = None

    def __post_init__(self) -> None:
        problems = Problems()
        used = apply_rules(self, "message", problems)
        _check_together(self, used, problems)
        problems.raise_if_any()


# Needs, by field: without the right one the left one has no meaning.
_NEEDS: Final = {
    "title_loc_args": ("title_loc_key",),
    "body_loc_args": ("body_loc_key",),
    "translations": ("title", "body"),
}
_SECTIONS: Final = ("fcm", "apns", "jpush")
# What still means something when nothing is shown.
_FITS_SILENCE: Final = frozenset(
    {"silent", "data", "collapse_key", "priority", "analytics_label", "on_unknown", *_SECTIONS}
)
# Each of these alone is a message, and so is a section that does more than choose its provider.
_SAYS_SOMETHING: Final = frozenset(
    {"title", "body", "title_loc_key", "body_loc_key", "badge", "sound", "data", "silent"}
)


def _check_together(message: Message, used: AbstractSet[str], problems: Problems) -> None:
    """Check what one field means for another. `used` are those that differ from their defaults."""
    for name, needed in _NEEDS.items():
        if name in used and used.isdisjoint(needed):
            problems.add(f"message.{name}", "conflict", f"needs {' or '.join(needed)}")
    if message.silent is True:
        for name in sorted(used - _FITS_SILENCE):
            problems.add(f"message.{name}", "conflict", "has no meaning in a silent message")
    if used.isdisjoint(_SAYS_SOMETHING) and not any(_says_more(message, name) for name in _SECTIONS):
        problems.add("message", "empty", "says nothing: give it a title, a body or data, or make it silent")


def _says_more(message: Message, section: str) -> bool:
    """Tell whether a section holds more than its switch."""
    content = getattr(message, section)
    return bool(set(content) - {"enabled"}) if isinstance(content, Mapping) else False
