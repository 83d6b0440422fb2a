"""The parameters of paths: decoded from how they were sent, and checked by the registry's own rules."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, BeforeValidator

from events.validation import Problems, Rule
from registry.checks import APP_NAME, DEVICE_KEY, TARGET_NAME, USER
from registry.errors import InvalidRegistration
from registry.subscriptions import Scope

_WORD: Final = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
# No control characters, and not blank.
TEXT: Final = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
_SCOPE: Final = r"app|(group|user|thing):[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]{0,254}"
_AFTER: Final = "`next` of the page before."


def _after(form: str) -> Any:
    """Describe a cursor. Routes read it themselves, and say in their own words what is wrong."""
    return Query(max_length=1000, description=_AFTER, json_schema_extra={"pattern": form})


def _decode(value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8, percent-encoded") from None


def _follows(rule: Rule) -> AfterValidator:
    """Check by a rule of the registry."""

    def check(value: str) -> str:
        problems = Problems()
        rule(value, "", problems)
        if problems.found:
            raise ValueError(problems.found[0].message)
        return value

    return AfterValidator(check)


def _parse_scope(value: str) -> str:
    try:
        return str(Scope.parse(value))
    except InvalidRegistration as error:
        raise ValueError(str(error).removeprefix("scope: ")) from None


_DECODED: Final = BeforeValidator(_decode, json_schema_input_type=str)

User = Annotated[
    str,
    Path(description="The user's id.", json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": TEXT}),
    _DECODED,
    _follows(USER),
]
Key = Annotated[
    str,
    Path(
        description="Stable for one install of the app, across token changes.",
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": TEXT},
    ),
    _DECODED,
    _follows(DEVICE_KEY),
]
PseudoUser = Annotated[
    str,
    Path(
        description="The pseudo user's id.",
        json_schema_extra={"maxLength": 255, "pattern": r"^pseudo:[^\x00-\x1f\x7f-\x9f]*$"},
    ),
    _DECODED,
    _follows(USER),
]
GroupId = Annotated[
    str,
    Path(
        description="The group's id.", json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": TEXT}
    ),
    _DECODED,
    _follows(USER),
]
ScopeName = Annotated[
    str,
    Path(
        description="Whose it is: app, group:<id>, user:<id> or thing:<id>.",
        json_schema_extra={"pattern": f"^({_SCOPE})$"},
    ),
    _DECODED,
    AfterValidator(_parse_scope),
]
TargetName = Annotated[
    str,
    Path(description="Its name.", json_schema_extra={"pattern": "^[A-Za-z0-9_.:-]{1,64}$"}),
    _DECODED,
    _follows(TARGET_NAME),
]
Word = Annotated[
    str,
    Path(json_schema_extra={"maxLength": 64, "pattern": _WORD}),
    _DECODED,
    _follows(APP_NAME),
]
Notification = Annotated[
    str,
    Path(
        description="The notification's id, or the id of its event.",
        json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": TEXT},
    ),
    _DECODED,
    _follows(USER),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
After = Annotated[str | None, Query(max_length=1000, description=_AFTER)]
AfterNumber = Annotated[str | None, _after("^[0-9]{1,19}$")]
AfterTarget = Annotated[str | None, _after(f"^({_SCOPE})/[A-Za-z0-9_.:-]{{1,64}}$")]
AfterFeedback = Annotated[str | None, _after("^[0-7]?[0-9a-f]{1,15}-[0-7]?[0-9a-f]{1,15}$")]


async def _document_app(
    _app: Annotated[
        str | None,
        Query(alias="app", description="The app; needed with an operator's key, which is for all apps."),
    ] = None,
) -> None:
    """Name the parameter that the guard reads before anything else."""


# For routers whose routes are about one app.
APP_PARAMETER: Final[Any] = Depends(_document_app)
