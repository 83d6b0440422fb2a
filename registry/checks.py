"""The shapes of what backends register: users, installs, tokens, names. A vendor's rules are not here."""

from __future__ import annotations

import re
from typing import Final

from events.validation import Problems, Rule, choice, instant, matching, text

from .errors import InvalidRegistration

__all__ = [
    "APP_NAME",
    "DEVICE_KEY",
    "LABEL",
    "LOCALE",
    "TARGET_NAME",
    "TIME_ZONE",
    "TOKEN",
    "USER",
    "Problems",
    "choice",
    "instant",
    "refuse",
]

# (channel, token) must be unique, and PostgreSQL refuses index entries beyond a third of a page, 2,704 bytes.
# Tokens seen have 20 to 300 characters; no vendor names a limit.
LONGEST_TOKEN: Final = 2048

USER: Final = text(255)
DEVICE_KEY: Final = text(255)
LABEL: Final = text(64)
APP_NAME: Final = matching(
    "[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, _ - . and begin with a letter or digit", longest=64
)
TARGET_NAME: Final = matching("[A-Za-z0-9_.:-]+", "of the characters A-Z a-z 0-9 _ - . :", longest=64)
LOCALE: Final = matching("[A-Za-z]{1,8}([-_.@][A-Za-z0-9]+)*", "a locale such as pt-BR", longest=64)
TIME_ZONE: Final = matching("[A-Za-z0-9_+/-]+", "a time zone such as Europe/Berlin", longest=64)

_PRINTABLE = re.compile(r"[!-~]+")


def _token(value: object, path: str, problems: Problems) -> object:
    """Accept printable ASCII without spaces. What it says stays out of the problem: logs may show it."""
    if not isinstance(value, str):
        problems.add(path, "type", "must be a string")
    elif not value:
        problems.add(path, "empty", "must not be empty")
    elif len(value) > LONGEST_TOKEN:
        problems.add(path, "too_long", f"must have at most {LONGEST_TOKEN:,} characters, has {len(value):,}")
    elif not _PRINTABLE.fullmatch(value):
        problems.add(path, "characters", "must be printable ASCII without spaces")
    return value


TOKEN: Final[Rule] = _token


def refuse(problems: Problems) -> None:
    """Raise `InvalidRegistration` with every problem found, if there are any."""
    if problems.found:
        raise InvalidRegistration("\n".join(map(str, problems.found)))
