"""Answer what support is asked: why did this user not get it?."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.stack import COMMAND, Stack
from registry.ledger import FinalOutcome

from .reconcile import Delivery, Key

_SECONDS: Final = 60.0
# The most telling first: a phone that changed hands while the push waited.
_TELLING: Final = (FinalOutcome.WITHDRAWN, FinalOutcome.UNREGISTERED, FinalOutcome.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `pushfan trace` says about one event and one user."""

    event: str
    user: str
    command: str
    lines: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Say it to a program."""
        return {"event": self.event, "user": self.user, "command": self.command, "answer": list(self.lines)}


def choose(ledger: Mapping[Key, Delivery], telling: Collection[int]) -> Key | None:
    """Choose a delivery that did not end at its user's phone, the same one each time; `None` if all did.

    Rather one of the `telling` notifications, and one whose user got it on no other phone either.
    """
    got = {(key[0], delivery.user) for key, delivery in ledger.items() if delivery.outcome not in _TELLING}
    found = [
        (key[0] not in telling, (key[0], delivery.user) in got, _TELLING.index(delivery.outcome), key)
        for key, delivery in ledger.items()
        if delivery.outcome in _TELLING
    ]
    return min(found)[-1] if found else None


def ask(stack: Stack, app: str, event: str, user: str) -> Answer:
    """Ask as an operator does, by the command. Raises `subprocess.SubprocessError` when there is no answer."""
    words = ["trace", event, "--user", user, "--app", app]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        env=stack.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    return Answer(
        event=event, user=user, command=" ".join(["pushfan", *words]), lines=done.stdout.splitlines()
    )
