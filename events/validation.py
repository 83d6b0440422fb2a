"""Rules that check and freeze the values of an event, and the error that names every problem at once.

A rule is a function: it gets a value, the path of its field and the list of problems found so far, appends
what is wrong and returns the value as the event shall keep it (frozen, converted). The fields of `Message`
and of the events carry their rule in their annotation; `apply_rules` runs them when an object is built.

Codes of problems, for programs: `required`, `type`, `unknown`, `empty`, `too_long`, `too_many`, `too_deep`,
`range`, `format`, `choice`, `characters`, `reserved`, `conflict`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, get_type_hints

from .frozen import FrozenDict


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`message.data.count`), a code for programs and words for people."""

    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidEvent(ValueError):
    """The event cannot be taken in; `problems` names everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)  # pickle builds the exception again from these arguments

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Problems:
    """Collect problems until all fields have been looked at."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: str, code: str, message: str) -> None:
        """Note one problem."""
        self.found.append(Problem(path, code, message))

    def raise_if_any(self) -> None:
        """Raise `InvalidEvent` with all problems, if there are any."""
        if self.found:
            raise InvalidEvent(self.found)


Rule = Callable[[object, str, Problems], object]

# PostgreSQL's jsonb cannot hold NUL, UTF-8 cannot hold a lone surrogate, and a control character in a header
# or a log line is an attack or an accident. Content, unlike ids, may have lines and tabs.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNFIT_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_KEY_SHOWN = 64


def join(path: str, key: object) -> str:
    """Extend a path by a field, key or index, such that the result can always be printed and stored."""
    shown = str(key)[:_LONGEST_KEY_SHOWN]
    if not shown.isprintable():
        shown = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", shown)
    return f"{path}.{shown}" if path else shown


def text(longest: int, *, lines: bool = False, may_be_empty: bool = False, bytes_at_most: int = 0) -> Rule:
    """Accept a string of up to `longest` characters; `lines` lets it hold line ends and tabs."""
    unfit = _UNFIT_IN_LINES if lines else _UNFIT

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, str):
            problems.add(path, "type", "must be a string")
            return value
        if not may_be_empty and not value.strip():
            problems.add(path, "empty", "must not be empty")
        elif len(value) > longest:
            problems.add(path, "too_long", f"must have at most {longest:,} characters, has {len(value):,}")
        elif not value.isprintable() and (
            found := unfit.search(value)
        ):  # most are printable, which is seen sooner
            problems.add(path, "characters", f"must not contain U+{ord(found[0]):04X}")
        elif bytes_at_most and (size := len(value.encode())) > bytes_at_most:
            problems.add(path, "too_long", f"must have at most {bytes_at_most:,} bytes, has {size:,}")
        return str.__str__(value)  # the text alone of an enumeration's member or another kind of string

    return rule


def matching(pattern: str, expected: str, *, longest: int) -> Rule:
    """Accept a string that matches `pattern` as a whole; `expected` completes "must be …"."""
    compiled = re.compile(pattern)
    is_text = text(longest)

    def rule(value: object, path: str, problems: Problems) -> object:
        before = len(problems.found)
        is_text(value, path, problems)
        if len(problems.found) == before and not compiled.fullmatch(str(value)):
            problems.add(path, "format", f"must be {expected}")
        return value

    return rule


def whole_number(lowest: int, highest: int) -> Rule:
    """Accept an integer between the limits; JSON's `true` is not one."""

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.add(path, "type", "must be a whole number")
            return value
        if not lowest <= value <= highest:
            problems.add(path, "range", f"must be between {lowest:,} and {highest:,}")
        return int(value)

    return rule


def number(lowest: float, highest: float) -> Rule:
    """Accept a number between the limits."""

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            problems.add(path, "type", "must be a number")
            return value
        if isinstance(value, float) and not math.isfinite(value):
            problems.add(path, "type", "must be a finite number: JSON has no NaN and no infinity")
        elif not lowest <= value <= highest:
            problems.add(path, "range", f"must be between {lowest:g} and {highest:g}")
        return float(value) if isinstance(value, float) else int(value)

    return rule


def flag(value: object, path: str, problems: Problems) -> object:
    """Accept `True` and `False`."""
    if not isinstance(value, bool):
        problems.add(path, "type", "must be true or false")
    return value


def choice(options: type[StrEnum]) -> Rule:
    """Accept a member of the enumeration, or its value."""
    members = {option.value: option for option in options}

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, str):
            problems.add(path, "type", "must be a string")
        elif value not in members:
            problems.add(
                path, "choice", f"must be one of {', '.join(options)}{did_you_mean(value, list(options))}"
            )
        else:
            return members[value]
        return value

    return rule


def instant(value: object, path: str, problems: Problems) -> object:
    """Accept an aware `datetime` or its ISO 8601 text; keep it in UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.utcoffset() is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    problems.add(path, "format", "must be a date and time with an offset, such as 2026-01-31T12:00:00Z")
    return value


def instance_of(kind: type) -> Rule:
    """Accept an object of the class, which has been validated when it was built."""

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, kind):
            problems.add(path, "type", f"must be a {kind.__name__}")
        return value

    return rule


def texts(member: Rule, *, at_most: int) -> Rule:
    """Accept a list; each member follows its rule."""

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, (list, tuple, set, frozenset)):
            problems.add(path, "type", "must be a list of strings")
            return value
        if len(value) > at_most:
            problems.add(path, "too_many", f"must have at most {at_most:,} members, has {len(value):,}")
            return value
        return tuple([member(item, f"{path}.{index}", problems) for index, item in enumerate(value)])

    return rule


def text_set(member: Rule, *, at_most: int) -> Rule:
    """Accept a list whose order and repetitions mean nothing: keep it sorted, each member once."""
    as_list = texts(member, at_most=at_most)

    def rule(value: object, path: str, problems: Problems) -> object:
        before = len(problems.found)
        members = as_list(value, path, problems)
        if len(problems.found) > before or not isinstance(members, tuple):
            return value
        if not members:
            problems.add(path, "empty", "must not be empty")
        return tuple(sorted(set(members)))

    return rule


def mapping(key: Rule, member: Rule, *, at_most: int, reserved: Collection[str] = ()) -> Rule:
    """Accept a JSON object; keys and members follow their rules, `reserved` keys are refused."""

    def rule(value: object, path: str, problems: Problems) -> object:
        if not isinstance(value, Mapping):
            problems.add(path, "type", "must be an object")
            return value
        if len(value) > at_most:
            problems.add(path, "too_many", f"must have at most {at_most:,} members, has {len(value):,}")
            return value
        for name in value:
            if name in reserved:
                problems.add(join(path, name), "reserved", "is reserved for Pushfan")
        return FrozenDict(_members(value, key, member, path, problems))

    return rule


def _members(
    value: Mapping[Any, object], key: Rule, member: Rule, path: str, problems: Problems
) -> Iterator[tuple[Any, object]]:
    """Check each key and member of an object."""
    of_key = Problems()
    for name, item in value.items():
        place = join(path, name)
        kept = key(name, place, of_key)
        if of_key.found:
            for problem in of_key.found:
                problems.add(problem.path, problem.code, f"the key {problem.message}")
            of_key.found.clear()
        yield kept, member(item, place, problems)


_DEEPEST = 16
_MOST_VALUES = 1_000
_JSON_TEXT = text(4096, lines=True, may_be_empty=True)
# Larger numbers lose their form: jsonb writes 1e30 as digits, which come back as an integer beyond 64 bits.
_JSON_NUMBER = number(-(2**63), 2**63 - 1)


def json_object(value: object, path: str, problems: Problems) -> object:
    """Accept any JSON object: strings as keys, finite numbers, a bounded depth and count of values."""
    if not isinstance(value, Mapping):
        problems.add(path, "type", "must be an object")
        return value
    return _JsonCopy(problems).freeze(value, path, depth=0)


class _JsonCopy:
    """Freeze one JSON value; stops descending once it holds too much, so that a cycle ends."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._values = 0

    def freeze(self, value: object, path: str, depth: int) -> object:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            self._refuse_size(path)
        elif isinstance(value, Mapping):
            return self._freeze_object(value, path, depth)
        elif isinstance(value, (list, tuple)):
            return tuple(self.freeze(item, join(path, index), depth + 1) for index, item in enumerate(value))
        elif isinstance(value, str):
            return _JSON_TEXT(value, path, self._problems)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return _JSON_NUMBER(value, path, self._problems)
        elif value is not None and not isinstance(value, bool):
            self._problems.add(path, "type", f"must be a JSON value, is a {type(value).__name__}")
        return value

    def _freeze_object(self, value: Mapping[Any, object], path: str, depth: int) -> FrozenDict[object]:
        def freeze(item: object, path: str, _problems: Problems) -> object:
            return self.freeze(item, path, depth + 1)

        return FrozenDict(_members(value, _JSON_TEXT, freeze, path, self._problems))

    def _refuse_size(self, path: str) -> None:
        if self._values <= _MOST_VALUES:
            self._problems.add(path, "too_deep", f"must be nested at most {_DEEPEST} deep")
            self._values = _MOST_VALUES + 1  # one complaint is enough
        elif self._values == _MOST_VALUES + 1:
            self._problems.add(path, "too_many", f"is beyond the {_MOST_VALUES:,} values that it may hold")


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Suggest the known name that is nearest to a mistyped one, or nothing."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def check_names(names: Iterable[object], known: Collection[str], path: str, problems: Problems) -> None:
    """Name each field that does not exist."""
    for name in names:
        if name not in known:
            problems.add(join(path, name), "unknown", f"is not a field{did_you_mean(str(name), known)}")


def apply_rules(instance: object, path: str, problems: Problems) -> set[str]:
    """Check each field of a dataclass by the rule in its annotation and keep what the rule returns.

    `None` means not set: it becomes the field's default, and is a problem where there is none. Defaults are
    valid by themselves and not checked. Returns the names of the fields that differ from their defaults.
    """
    used = set()
    for name, default, rule, make in _rules_of(type(instance)):  # type: ignore[arg-type]  # mypy doubts the class's hash
        value = getattr(instance, name)
        if value is default:
            continue
        if value is not None:
            kept = rule(value, f"{path}.{name}" if path else name, problems)
        elif make is None:
            problems.add(join(path, name), "required", "is required")
            continue
        else:
            kept = make()
        object.__setattr__(instance, name, kept)
        if kept != default:
            used.add(name)
    return used


@cache
def _rules_of(kind: type) -> tuple[tuple[str, object, Rule, Callable[[], object] | None], ...]:
    """Give of each field its name, its default (`MISSING` without one), its rule, and what makes its default."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, field.default, hints[field.name].__metadata__[0], _maker(field))
        for field in fields(kind)
    )


def _maker(field: Field[Any]) -> Callable[[], object] | None:
    if field.default_factory is not MISSING:
        return field.default_factory
    return None if field.default is MISSING else lambda: field.default
