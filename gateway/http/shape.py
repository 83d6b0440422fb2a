"""The shapes that all routes share: bodies that refuse what they do not know, answers, pages."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, WithJsonSchema

from .problem import Fault, invalid

# Printable and not blank, as the registry's rules want it; those speak the last word.
Line = Annotated[str, StringConstraints(min_length=1, max_length=255)]
NotificationId = Annotated[
    str, WithJsonSchema({"type": "string", "description": "As text: it exceeds what JSON's numbers hold."})
]
_LONGEST_CURSOR: Final = 2**63 - 1


def _whole(value: object) -> object:
    """Read 60.0 as 60: to JSON they are the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)


class Body(BaseModel):
    """What a request says: nothing is guessed, nothing ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """What a call answers with."""

    model_config = ConfigDict(frozen=True)


def number_of(cursor: str | None, *, parameter: str = "after") -> int:
    """Read a cursor that is a number; 0 for none. Raises `Problem`."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal()) or len(cursor) > 19:
        raise bad_cursor(parameter)
    return min(int(cursor), _LONGEST_CURSOR)


def bad_cursor(parameter: str = "after") -> Exception:
    """Refuse a cursor that no answer gave."""
    detail = "must be what `next` of an earlier page said"
    return invalid([Fault(parameter=parameter, code="format", detail=detail)])


def next_of(items: list[Any], limit: int, cursor: str) -> str | None:
    """Give the cursor of the next page, unless this is certainly the last."""
    return cursor if len(items) >= limit else None
