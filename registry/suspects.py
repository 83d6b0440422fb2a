"""The pass over suspects: retire them, stop their channel, or wait.

A vendor's weak word ("bad token") is as often about us: sandbox tokens on a production channel, another app's
credentials, an hour in which the vendor errs. What tells the two apart is what *other* devices of the channel
are answered, and when: a doubt is believed after the channel went on to be accepted, and if doubts are few.

So a channel's answers are counted in windows (`health_since`, `accepted`, `doubted`). A suspect is retired on
the evidence of a window that began after it became one:

    nobody suspected before the window began  ──> begin a new window, so that evidence can gather
    many doubts, a large share of the window  ──> open the circuit; nobody is retired
    enough acceptances, a small share         ──> retire those suspected before, begin a new window
    otherwise                                 ──> wait

`accepted` and `doubted` count answers; a device that is doubted twice is one suspect. Where suspects are few
(a small app, direct pushes to one broken install) they are counted as devices, or one install that is pushed
to again and again would look like a channel that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from . import channels
from .atomic import atomic
from .channels import CircuitReason
from .database import Connection
from .statements import load

_SQL = load("suspects")
_RETIRED_AT_ONCE: Final = 1_000
_REASONS_NAMED: Final = 3
# Windows of busy channels are short: an hour's good answers would drown a vendor's error of this minute.
_FULL_WINDOW: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What it takes to believe doubts, or to disbelieve a channel.

    `acceptances`: one or two may come from a developer's phone; 20 in a window come from the app's users.
    `share`: tokens that are merely old have their own word ("unregistered"), so doubts are rare; a wrong
    environment or key doubts nearly all.
    `doubts`: below this a small app would be stopped by the broken installs of its own developers.
    `age`: vendors' errors last minutes; a suspect is still sent to, and an acceptance ends the suspicion.
    """

    acceptances: int = 20
    share: float = 0.2
    doubts: int = 10
    age: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A channel's window. `before`: suspects since before it began; `ripe`: those that are old enough."""

    accepted: int
    doubted: int
    suspects: int
    before: int
    ripe: int


class Verdict(StrEnum):
    """What the pass does with a channel."""

    RETIRE = "retire"
    OPEN = "open"
    BEGIN = "begin"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was decided about a channel, why, and how many suspects were retired."""

    channel_id: int
    verdict: Verdict
    health: Health
    retired: int = 0


def decide(health: Health, thresholds: Thresholds) -> Verdict:
    """Weigh a channel's window. Pure."""
    answers = health.accepted + health.doubted
    is_large = health.doubted > thresholds.share * answers
    if is_large and min(health.doubted, health.suspects) >= thresholds.doubts:
        return Verdict.OPEN
    is_few = health.suspects < thresholds.doubts
    if is_few:
        is_large = health.suspects > thresholds.share * (health.accepted + health.suspects)
    if health.ripe and health.accepted >= thresholds.acceptances and not is_large:
        return Verdict.RETIRE
    if answers >= _FULL_WINDOW or (health.suspects and not health.before):
        return Verdict.BEGIN
    return Verdict.WAIT


def to_judge(connection: Connection) -> list[int]:
    """List the channels that the pass has to look at: those with suspects or a full window, not stopped."""
    rows = connection.execute(_SQL["to_judge"], {"full": _FULL_WINDOW})
    return [row["id"] for row in rows]


def judge(connection: Connection, channel_id: int, thresholds: Thresholds | None = None) -> Judgement | None:
    """Judge one channel's suspects and act; `None` if it is stopped or gone.

    A transaction for each channel, please: it holds the channel's row. Retires up to a thousand; the rest
    stays for the next pass.
    """
    thresholds = thresholds or Thresholds()
    with atomic(connection):
        row = connection.execute(_SQL["lock_channel"], {"channel_id": channel_id}).fetchone()
        if row is None:
            return None
        parameters = {"channel_id": channel_id, "since": row["health_since"], "age": thresholds.age}
        counts = connection.execute(_SQL["count"], parameters).fetchone()
        assert counts is not None
        health = Health(accepted=row["accepted"], doubted=row["doubted"], **counts)
        verdict, retired = decide(health, thresholds), 0
        if verdict is Verdict.OPEN:
            _open(connection, channel_id, row["circuit_generation"], health, row["health_since"])
        elif verdict is Verdict.RETIRE:
            retired = connection.execute(_SQL["retire"], {**parameters, "limit": _RETIRED_AT_ONCE}).rowcount
        if verdict is Verdict.BEGIN or (verdict is Verdict.RETIRE and retired == health.ripe):
            connection.execute(_SQL["begin"], {"channel_id": channel_id})
        return Judgement(channel_id=channel_id, verdict=verdict, health=health, retired=retired)


def retire_all(connection: Connection, channel_id: int, *, limit: int = _RETIRED_AT_ONCE) -> int:
    """Retire a channel's suspects on an operator's word. Returns how many; call it until it says 0."""
    parameters = {"channel_id": channel_id, "since": None, "age": timedelta(0), "limit": limit}
    with atomic(connection):
        return connection.execute(_SQL["retire"], parameters).rowcount


def _open(connection: Connection, channel_id: int, generation: int, health: Health, since: datetime) -> None:
    reasons = connection.execute(_SQL["reasons"], {"channel_id": channel_id, "limit": _REASONS_NAMED})
    named = {row["reason"]: row["devices"] for row in reasons}
    environment = channels.find(connection, channel_id).access.environment
    channels.open_circuit(
        connection,
        channel_id,
        reason=CircuitReason.MASS_INVALIDATION,
        detail=explain(health, since=since, reasons=named, environment=environment),
        generation=generation,
    )


def explain(health: Health, *, since: datetime, reasons: Mapping[str, int], environment: str) -> str:
    """Tell the operator what was seen, what is probably wrong and what to do."""
    other = "sandbox" if environment == "production" else "production"
    named = ", ".join(f"{reason} {devices:,}" for reason, devices in reasons.items())
    return (
        f"{health.doubted:,} of {health.doubted + health.accepted:,} answers since {since:%Y-%m-%d %H:%M} "
        f"doubt the token ({named}): {health.suspects:,} devices are suspects, none of them was retired. "
        f"Probably the channel is wrong, not the devices: {other} tokens on a {environment} channel, or the "
        "credentials or the topic of another app. Correct the channel; or, if the tokens are bad indeed, "
        "retire its suspects and close its circuit."
    )
