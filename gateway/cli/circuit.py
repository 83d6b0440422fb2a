"""What operators read about a channel's circuit: its state as a line, and what to do about each reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from .output import plural, span

if TYPE_CHECKING:
    from registry.channels import Channel

_FIRST_RATE: Final = 200


def story(channel: Channel, now: datetime) -> str:
    """Tell in a line whether traffic flows; if it does not: why, for how long, and when it is tried."""
    if channel.circuit == "closed":
        return "closed, growing again" if _is_ramping(channel, now) else "closed"
    reason = f": {spelled(channel)}" if channel.circuit_reason else ""
    since = span(max(0.0, (now - channel.circuit_changed_at).total_seconds()))
    return f"{channel.circuit}{reason}, for {since}{_next_probe(channel, now)}"


def _next_probe(channel: Channel, now: datetime) -> str:
    if channel.circuit != "open" or channel.probe_at is None:
        return ""
    left = (channel.probe_at - now).total_seconds()
    failed = f" after {plural(channel.failed_probes, 'failed probe')}" if channel.failed_probes else ""
    return f", probed {f'in {span(left)}' if left > 0 else 'with the next push'}{failed}"


def _is_ramping(channel: Channel, now: datetime) -> bool:
    """Tell whether traffic is still slower than the channel may be, as `pushfan.channel_rate` has it."""
    if channel.ramping_since is None:
        return False
    seconds = max(0.0, (now - channel.ramping_since).total_seconds())
    return bool(_FIRST_RATE * 2 ** min(30.0, seconds) < channel.rate_per_second)


def spelled(channel: Channel) -> str:
    """Spell the reason why a circuit is open."""
    return channel.circuit_reason.replace("_", " ") if channel.circuit_reason else "unknown"


def what_to_do(channel: Channel, app: str) -> str:
    """Say what an operator does about a circuit that is not closed."""
    advice = _ADVICE.get(channel.circuit_reason or "", _ADVICE["operator"])
    return advice.format(name=channel.name, app=app)


_ADVICE: Final[Mapping[str, str]] = {
    "operator": "somebody stopped it: pushfan channel close {name} --app {app} lets traffic flow",
    "credentials": "pushfan channel check {name} --app {app}; put the corrected files in place on every worker's "
    "machine, or pushfan channel set {name} --app {app}: then it goes on by itself",
    "outage": "nothing, if the provider has an outage: it is probed by itself; else look for what keeps the "
    "workers' machines from reaching it, and pushfan channel probe {name} --app {app}",
    "throttled": "nothing at first: it is probed by itself; if it happens again and again, ask the provider for a "
    "higher quota",
    "mass_invalidation": "compare environment, topic and credentials with the app that registered these tokens; "
    "pushfan channel set {name} --app {app} corrects them. Are the tokens bad indeed: "
    "pushfan channel close {name} --app {app}",
}
