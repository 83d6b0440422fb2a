"""Every error that a command may meet, as what its user reads and as an exit code. The one place for both.

  0  done
  1  refused or failed: the input, the provider, the credentials, a time-out
  2  usage: the command line or the PUSHFAN_* settings
  3  not found: an app, channel, device, notification
  4  the database or the broker is away
130  interrupted
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import click

__all__ = ["EXIT_CODES", "ExitCode", "Fault", "NotThere", "Refused", "explain"]


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    AWAY = 4
    INTERRUPTED = 130


EXIT_CODES: Final = (
    "0 done · 1 refused or failed · 2 usage or settings · 3 not found · 4 database or broker away"
)


class Refused(Exception):
    """A command will not do what was asked; every problem on a line of its own."""

    code = "refused"
    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)


class NotThere(Refused):
    """Something that was named does not exist."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a user is told about an error."""

    exit_code: ExitCode
    code: str
    message: str
    problems: Sequence[dict[str, str]] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "problems": list(self.problems),
                "exit_code": int(self.exit_code),
            }
        }

    def as_text(self) -> str:
        """Return the lines that a person reads."""
        lines = [f"Error: {self.message}"]
        lines += [f"  {_shown(problem)}" for problem in self.problems]
        return "\n".join(lines)


def explain(error: BaseException) -> Fault:
    """Say what an error means. Whatever is not known here is a defect of ours, and is called so."""
    for look in (_of_ours, _of_click, _of_floors, _of_database, _of_system):
        fault = look(error)
        if fault is not None:
            return fault
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
    return Fault(
        exit_code=ExitCode.REFUSED,
        code="internal",
        message=f"this is a defect in Pushfan: {type(error).__name__}{where}. "
        "Run it again with PUSHFAN_LOG_LEVEL=debug and report what it prints",
    )


def _of_ours(error: BaseException) -> Fault | None:
    if not isinstance(error, Refused):
        return None
    problems = _problems(*error.problems)
    return Fault(exit_code=error.exit_code, code=error.code, message=error.message, problems=problems)


def _of_click(error: BaseException) -> Fault | None:
    if isinstance(error, click.Abort):
        is_signal = isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
        code = ExitCode.INTERRUPTED if is_signal else ExitCode.REFUSED
        return Fault(exit_code=code, code="aborted", message="aborted")
    if isinstance(error, click.UsageError):
        return Fault(exit_code=ExitCode.USAGE, code="usage", message=error.format_message())
    if isinstance(error, click.ClickException):
        return Fault(exit_code=ExitCode.REFUSED, code="failed", message=error.format_message())
    return None


def _of_floors(error: BaseException) -> Fault | None:
    """Explain the errors of the floors below. What is not imported yet has not raised any."""
    from events.validation import InvalidEvent

    if isinstance(error, InvalidEvent):
        problems = [{"path": p.path, "code": p.code, "message": p.message} for p in error.problems]
        return Fault(
            exit_code=ExitCode.REFUSED,
            code="invalid_event",
            message="the event is refused",
            problems=problems,
        )
    for module, name, exit_code, code in _FLOORS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return _several(str(error) or str(kind.__doc__), exit_code, code)
    return None


_FLOORS: Final = (
    ("workers.settings", "SettingsError", ExitCode.USAGE, "settings"),
    ("registry.errors", "DatabaseUnavailable", ExitCode.AWAY, "database_away"),
    ("registry.errors", "SchemaMismatch", ExitCode.REFUSED, "schema"),
    ("registry.errors", "NotFound", ExitCode.NOT_FOUND, "not_found"),
    ("registry.errors", "AlreadyExists", ExitCode.REFUSED, "already_exists"),
    ("registry.errors", "InvalidRegistration", ExitCode.REFUSED, "invalid"),
    ("registry.errors", "RegistryError", ExitCode.REFUSED, "refused"),
    ("workers.credentials", "CredentialError", ExitCode.REFUSED, "credentials"),
    ("workers.replay", "NotReplayable", ExitCode.REFUSED, "not_replayable"),
    ("providers.outcome", "CredentialsRejected", ExitCode.REFUSED, "credentials"),
    ("providers.outcome", "SendError", ExitCode.REFUSED, "provider_away"),
    ("gateway.local.errors", "LocalServerError", ExitCode.REFUSED, "local_server"),
    ("gateway.children", "ChildFailed", ExitCode.REFUSED, "child_failed"),
    ("gateway.up", "AlreadyUp", ExitCode.REFUSED, "already_up"),
    ("gateway.interruption", "Interrupted", ExitCode.INTERRUPTED, "aborted"),
    ("kombu.exceptions", "OperationalError", ExitCode.AWAY, "broker_away"),
)


# Errors whose every line is a problem; of others the first line is the message and the rest explains it.
_LISTS: Final = frozenset({"invalid", "settings", "credentials"})


def _several(text: str, exit_code: ExitCode, code: str) -> Fault:
    """Take an error of one line as the message; of several lines make a list."""
    first, *others = text.strip().splitlines() or ["no reason was given"]
    if code == "invalid":
        return Fault(exit_code=exit_code, code=code, message="refused", problems=_problems(first, *others))
    if others and code in _LISTS:
        message, problems = f"{len(others) + 1} problems", _problems(first, *others)
        return Fault(exit_code=exit_code, code=code, message=message, problems=problems)
    rest = [{"path": "", "code": "detail", "message": line} for line in others]
    return Fault(exit_code=exit_code, code=code, message=first, problems=rest)


def _of_database(error: BaseException) -> Fault | None:
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    kinds = psycopg.errors
    if isinstance(error, kinds.QueryCanceled | kinds.LockNotAvailable):
        return Fault(
            exit_code=ExitCode.REFUSED,
            code="database",
            message=f"PostgreSQL took too long ({said}): try again",
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Fault(
            exit_code=ExitCode.AWAY, code="database_away", message=f"PostgreSQL does not answer: {said}"
        )
    if isinstance(error, kinds.InsufficientPrivilege):
        return Fault(
            exit_code=ExitCode.REFUSED, code="database", message=f"the database user lacks a right: {said}"
        )
    return Fault(exit_code=ExitCode.REFUSED, code="database", message=f"PostgreSQL refuses this: {said}")


def _of_system(error: BaseException) -> Fault | None:
    if isinstance(error, UnicodeDecodeError):
        return Fault(exit_code=ExitCode.REFUSED, code="file", message="the input is not UTF-8 text")
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    return Fault(exit_code=ExitCode.REFUSED, code="file", message=f"{where}{reason}")


def _problems(*lines: str) -> list[dict[str, str]]:
    return [_problem(line) for line in lines]


def _problem(line: str) -> dict[str, str]:
    """Part `path: message`, where a line begins with a path."""
    path, separator, message = line.partition(": ")
    if separator and path and " " not in path:
        return {"path": path, "code": "invalid", "message": message}
    return {"path": "", "code": "invalid", "message": line}


def _shown(problem: dict[str, str]) -> str:
    return f"{problem['path']}: {problem['message']}" if problem["path"] else problem["message"]
