"""What the vendors' dialects share: sections merged over the rendering, refused overrides, sizes, locales."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from events import Message, OnUnknown, Priority, Problem
from events.message import RESERVED_DATA_KEY
from providers.engine import Response
from providers.outcome import Content

Json = dict[str, Any]

URL_KEY = "url"  # data key that carries `Message.url` where the vendor has no field for it
MIN_RETRY_AFTER = timedelta(seconds=1)  # "Retry-After: 0" with a refusal must not become a hot loop
MAX_RETRY_AFTER = timedelta(days=28)  # nothing lives longer than the longest time to live


def merge(portable: Mapping[str, Any], section: Mapping[str, Any]) -> Json:
    """Lay a section over a rendering: objects deeply, arrays and values replaced, `None` deletes.

    Neither argument is changed, and the result shares no object with them that `merge` would change.
    """
    merged = dict(portable)
    for key, value in section.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def given(**fields: object) -> Json:
    """Build an object of the fields that have a value: not `None`, no empty list or object."""
    return {
        name: value
        for name, value in fields.items()
        if value or (value is not None and value not in ((), {}))  # most are something or None
    }


def is_enabled(section: Mapping[str, Any] | None) -> bool:
    """Tell whether the message goes to this provider at all."""
    return section is None or section.get("enabled") is not False


def overrides(section: Mapping[str, Any] | None) -> Json:
    """Return the section without `enabled`, which is ours and no vendor's."""
    return {key: value for key, value in (section or {}).items() if key != "enabled"}


def forbidden_overrides(
    provider: str, section: Mapping[str, Any] | None, forbidden: Mapping[str, str]
) -> list[Problem]:
    """Name every forbidden path that the section contains, as the section spells it.

    `forbidden` maps dotted paths to why they are refused. Case, "_" and "-" make no difference, because
    vendors accept several spellings of one field; `None` (delete) is refused like any value.
    """
    if not section:
        return []
    reasons = {_alike(path): reason for path, reason in forbidden.items()}
    return [
        Problem(
            path=f"message.{provider}.{path}", code="forbidden", message=f"cannot be overridden: {reason}"
        )
        for path in _paths(section)
        if (reason := reasons.get(_alike(path))) is not None
    ]


def _paths(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def _alike(path: str) -> str:
    return re.sub(r"[_-]", "", path.casefold())


def size_problem(provider: str, what: str, size: int, limit: int) -> Problem | None:
    """Return a problem that names size and limit in bytes when the size is over the limit."""
    if size <= limit:
        return None
    return Problem(
        path=f"message.{provider}", code="too_large", message=f"{what} is {size} bytes, the limit is {limit}"
    )


def json_bytes(value: object) -> bytes:
    """Render compact JSON, the form in which sizes are measured and bodies are sent."""
    return orjson.dumps(value)


def json_object(body: bytes) -> Json:
    """Parse a response body; an HTML page, an array or nothing at all becomes an empty object."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def keep_reserved_key(body: Json, content: Content, *path: str) -> None:
    """Put the reserved key back into the object at `path`, if a section replaced or deleted what held it."""
    for name in path:
        below = body.get(name)
        body[name] = body = dict(below) if isinstance(below, Mapping) else {}
    body[RESERVED_DATA_KEY] = correlation(content)


def correlation(content: Content) -> str:
    """Return the reserved key's value: compact JSON with notification, kind and what the event is about."""
    event = content.event
    fields: Json = {"n": str(content.notification_id), "k": event.kind}
    for key, name in (("t", "topic"), ("b", "bucket"), ("o", "object"), ("c", "change"), ("s", "scope")):
        value = getattr(event, name, None)
        if value is not None:
            fields[key] = str(value)
    return orjson.dumps(fields).decode()


def data_of(content: Content, message: Message) -> dict[str, str]:
    """Return the data every payload carries: the message's own, its `url`, and the reserved key."""
    data = dict(message.data)
    if message.url is not None:
        data.setdefault(URL_KEY, message.url)
    data[RESERVED_DATA_KEY] = correlation(content)
    return data


def ascii_key(key: str) -> str:
    """Return a collapse key as it can stand in a header: itself, or a digest if it is not plain ASCII."""
    if key.isascii() and key.isprintable():
        return key
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def seconds_to_live(content: Content, now: datetime, limit: timedelta) -> int:
    """Return how long the vendor may keep the push, in whole seconds from 0 to `limit`."""
    left = min(content.expires_at - now, limit)
    return max(0, int(left.total_seconds()))


def retry_after(response: Response, now: datetime) -> timedelta | None:
    """Return the delay that `Retry-After` asks for (seconds or an HTTP date), `None` when it names none."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        seconds = min(int(value[:12]), int(MAX_RETRY_AFTER.total_seconds()))
        return max(MIN_RETRY_AFTER, timedelta(seconds=seconds))
    try:
        instant = parsedate_to_datetime(value)
    except ValueError:
        return None
    if instant.tzinfo is None:  # "-0000": a UTC time whose zone is not told
        instant = instant.replace(tzinfo=UTC)
    return min(max(MIN_RETRY_AFTER, instant - now), MAX_RETRY_AFTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a device shows, in its own language."""

    title: str | None
    body: str | None
    subtitle: str | None


def words_for(message: Message, locale: str | None) -> Words:
    """Take each word from the device's translation, and from the message where the translation has none."""
    chosen = choose_locale(message.translations, locale)
    translated: Mapping[str, str] = message.translations[chosen] if chosen is not None else {}
    return Words(
        title=translated.get("title", message.title),
        body=translated.get("body", message.body),
        subtitle=translated.get("subtitle", message.subtitle),
    )


def is_urgent(message: Message) -> bool:
    """Tell whether the vendor shall wake the device: by default for what is shown, not for what is silent."""
    if message.priority is None:
        return not message.silent
    return message.priority is Priority.HIGH


def is_background(message: Message) -> bool:
    """Tell whether the push shows, plays and counts nothing: Apple then demands a low priority."""
    return message.silent or not (
        has_words(message) or message.sound is not None or message.badge is not None
    )


def has_words(message: Message) -> bool:
    """Tell whether there is something to read."""
    return (
        message.title is not None
        or message.body is not None
        or message.title_loc_key is not None
        or message.body_loc_key is not None
    )


def is_resend_allowed(message: Message) -> bool:
    """Tell whether a request may be repeated silently below us."""
    return message.on_unknown is not OnUnknown.DROP


# What a region says about the script where the locale does not: CLDR likely subtags,
# https://github.com/unicode-org/cldr/blob/main/common/supplemental/likelySubtags.xml
CHINESE_SCRIPTS: Mapping[str, str] = {
    "cn": "hans",
    "sg": "hans",
    "my": "hans",
    "tw": "hant",
    "hk": "hant",
    "mo": "hant",
}


def choose_locale(available: Iterable[str], wanted: str | None) -> str | None:
    """Choose the translation for a device's locale; `None` means the message's own words.

    Exact first, then without region, without script, language alone. "zh-Hans-CN", "zh_CN", "zh-Hans_CN" and
    "pt_BR.UTF-8" are all understood, on both sides. A region is never guessed: "pt" does not get "pt-BR".
    """
    if not wanted:
        return None
    by_tag = {_tag(name): name for name in available}
    return next((by_tag[tag] for tag in _candidates(_tag(wanted)) if tag in by_tag), None)


def _tag(locale: str) -> str:
    return re.split(r"[.@]", locale, maxsplit=1)[0].replace("_", "-").casefold()


def _candidates(tag: str) -> Iterator[str]:
    """Yield ever less specific tags: zh-hans-cn, zh-hans, zh-cn, zh."""
    yield tag
    language, *rest = tag.split("-")
    script = next((part for part in rest if len(part) == 4 and part.isalpha()), None)
    region = next((part for part in rest if len(part) == 2 or (len(part) == 3 and part.isdecimal())), None)
    if language == "zh" and script is None:
        script = CHINESE_SCRIPTS.get(region or "")
    if script and region:
        yield f"{language}-{script}-{region}"
    if script:
        yield f"{language}-{script}"
    if region:
        yield f"{language}-{region}"
    yield language
