"""Isolation, measured: one provider, or one app, fails, and the others keep their rate.

    python -m tests.chaos.isolation --devices 4000 --pairs 3 --json

1. `hanging`: APNs of an app answers nothing. How fast are FCM and JPush served meanwhile, out of what they were?
2. `revoked`: all credentials of an app are revoked. How fast is another app served, and does it notice anything?

Each pair is a broadcast without the fault and one with it, in turns that alternate which is first. A rate counts from
the publishing to the last recorded acceptance, so the time in which the fault is not known yet is part of it. Circuits
rest as long as they do in production.

All share one machine, and who fails leaves it to the others: that flatters them. So each pair has a third broadcast, to
the others alone, which is told and not judged: what they would have if those that fail were not there at all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from events import Message, Publisher, TopicMessage
from gateway.simulated import make_token
from registry import channels, devices, subscriptions
from registry.channels import Provider
from registry.installs import Install
from registry.subscriptions import Target, TargetKind

from .stage import Stage

FAULTS: Final = ("hanging", "revoked")
LEAST_RATIO: Final = 0.9
_FAILING, _OTHER = "shop", "games"
_TOPIC: Final = "everybody"
_OTHERS_TOPIC: Final = "everybody-but-apns"
_LATENCY_MS: Final = 50
# As `pushfan up` starts them on two cores.
_WORKERS: Final[Mapping[str, tuple[str, int]]] = {"urgent": ("urgent", 2), "rest": ("normal,bulk", 6)}
_SETTINGS: Final[Mapping[str, object]] = {"delay_scale": 1.0, "backoff_seconds": 1, "backoff_cap_seconds": 4}
_LONGEST_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.1
_ENDED = """
SELECT d.channel_id, count(*) AS ended, count(*) FILTER (WHERE l.outcome = 'accepted') AS accepted,
       max(l.at) AS last_at, count(*) FILTER (WHERE l.attempts > 1) AS repeated
FROM pushfan.notification n
JOIN pushfan.delivery l ON l.notification_id = n.id
JOIN pushfan.device d ON d.id = l.device_id
WHERE n.key = ANY (%(keys)s) AND d.channel_id = ANY (%(channels)s)
GROUP BY d.channel_id
"""
_LEFT = """
SELECT (SELECT count(*) FROM pushfan.chunk) + (SELECT count(*) FROM pushfan.retry)
     + (SELECT count(*) FROM pushfan.notification WHERE finished_at IS NULL) AS work
"""
_RETIRED = """
SELECT count(*) AS number FROM pushfan.device WHERE state <> 'active' AND channel_id = ANY (%(channels)s)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How those were served that do not fail: accepted deliveries a second by channel, and what they noticed."""

    per_second: Mapping[str, float]
    repeated: int
    not_accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A broadcast without the fault, and one with it."""

    calm: Served
    fault: Served
    alone: Served

    def ratios(self) -> Mapping[str, float]:
        """Say for each channel what is left of its rate."""
        return {name: self.fault.per_second[name] / rate for name, rate in self.calm.per_second.items()}

    def ratios_to_alone(self) -> Mapping[str, float]:
        """Say the same of the rate that it would have if those that fail were not there."""
        return {name: self.fault.per_second[name] / rate for name, rate in self.alone.per_second.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What a fault's pairs come to."""

    fault: str
    pairs: Sequence[Pair]
    retired: int

    @property
    def median_ratios(self) -> Mapping[str, float]:
        """Give the median of what is left, for each channel."""
        names = self.pairs[0].calm.per_second
        return {name: round(median(pair.ratios()[name] for pair in self.pairs), 3) for name in names}

    @property
    def median_ratios_to_alone(self) -> Mapping[str, float]:
        """Give the median of the same, beside nobody."""
        names = self.pairs[0].alone.per_second
        return {name: round(median(pair.ratios_to_alone()[name] for pair in self.pairs), 3) for name in names}

    def failures(self) -> Iterator[str]:
        """Yield a sentence for whatever the others noticed."""
        for name, ratio in self.median_ratios.items():
            if ratio < LEAST_RATIO:
                yield f"{self.fault}: {name} keeps {ratio:.0%} of its rate"
        for what in ("repeated", "not_accepted"):
            if number := sum(
                getattr(one, what) for pair in self.pairs for one in (pair.calm, pair.fault, pair.alone)
            ):
                yield f"{self.fault}: {number} deliveries of others were {what.replace('_', ' ')}"
        if self.retired:
            yield f"{self.fault}: {self.retired} devices of others are not active any more"


class _Scene:
    """A stage with as many devices on each channel, and nothing else."""

    def __init__(self, stage: Stage, size: int) -> None:
        self._stage = stage
        self._size = size
        self._number = 0
        for app, some in stage.channels.items():
            calls = [
                Install(
                    channel_id=channel.id,
                    user_id=f"u{number}-{provider}",
                    device_key=f"phone-{number}",
                    token=make_token(provider, app, number),
                )
                for provider, channel in some.items()
                for number in range(size)
            ]
            for start in range(0, len(calls), devices.BATCH):
                stage.database.run(partial(devices.install_many, calls=calls[start : start + devices.BATCH]))
            pairs = [(Target(kind=TargetKind.TOPIC, name=_TOPIC), call.user_id) for call in calls]
            apns = some[Provider.APNS].id
            others = Target(kind=TargetKind.TOPIC, name=_OTHERS_TOPIC)
            pairs += [(others, call.user_id) for call in calls if call.channel_id != apns]
            app_id = next(iter(some.values())).app_id
            stage.database.run(partial(subscriptions.subscribe_many, app_id=app_id, pairs=pairs))
        for running in self._simulators():
            running.control("POST", "/latency", {"ms": _LATENCY_MS})

    def _simulators(self) -> Iterator[Any]:
        for some in self._stage.simulators.values():
            yield from some.values()

    def measure(self, fault: str, pairs: int) -> Isolation:
        """Play all pairs of a fault."""
        found = []
        for number in range(pairs):
            order = ("calm", "fault", "alone") if number % 2 == 0 else ("alone", "fault", "calm")
            found.append(Pair(**{turn: self._serve(fault, turn) for turn in order}))
            self._stage.tell(f"{fault}: {_words(found[-1])}")
        (row,) = self._stage.run(_RETIRED, {"channels": list(self._others(fault).values())})
        return Isolation(fault=fault, pairs=found, retired=row["number"])

    def _others(self, fault: str) -> dict[str, int]:
        """Name the channels that do not fail."""
        app, left_out = (_FAILING, {Provider.APNS}) if fault == "hanging" else (_OTHER, set())
        some = self._stage.channels[app]
        return {f"{app}/{one.value}": channel.id for one, channel in some.items() if one not in left_out}

    def _serve(self, fault: str, turn: str) -> Served:
        """Broadcast to the app, or to both, and wait until those have it that do not fail; then make all well."""
        if turn == "fault":
            self._break(fault)
        is_alone = turn == "alone"
        topic = _OTHERS_TOPIC if is_alone and fault == "hanging" else _TOPIC
        apps = [_FAILING] if fault == "hanging" else [_OTHER] if is_alone else [_FAILING, _OTHER]
        self._number += 1
        key, others = f"broadcast-{self._number}", self._others(fault)
        began = time.time()
        for app in apps:
            self._publish(app, topic, key)
        rows = self._await(key, others)
        served = Served(
            per_second={
                name: round(self._size / (rows[channel]["last_at"].timestamp() - began), 1)
                for name, channel in others.items()
            },
            repeated=sum(row["repeated"] for row in rows.values()),
            not_accepted=sum(row["ended"] - row["accepted"] for row in rows.values()),
        )
        self._mend()
        return served

    def _publish(self, app: str, topic: str, key: str) -> None:
        event = TopicMessage(app=app, id=key, topic=topic, message=Message(title="News", body="For all"))
        with Publisher(self._stage.settings.require_broker_url(), app=app) as publisher:
            self._stage.database.run(lambda one: publisher.publish_in_transaction(one, event))

    def _await(self, key: str, others: Mapping[str, int]) -> Mapping[int, Mapping[str, Any]]:
        deadline = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < deadline:
            rows = self._stage.run(_ENDED, {"keys": [key], "channels": list(others.values())})
            if len(rows) == len(others) and all(row["ended"] == self._size for row in rows):
                return {row["channel_id"]: row for row in rows}
            time.sleep(_POLL_SECONDS)
        raise TimeoutError(f"{key} did not end for {', '.join(others)}")

    def _break(self, fault: str) -> None:
        simulators = self._stage.simulators[_FAILING]
        if fault == "hanging":
            simulators[Provider.APNS].rules([{"answer": "hang", "share": 1.0}])
            return
        for running in simulators.values():
            fresh = running.control("POST", "/credentials", {"rotate": True})
            running.info |= {name: fresh[name] for name in ("key_id", "master_secret") if name in fresh}

    def _mend(self) -> None:
        """Let everything go on, end what is left, and forget that traffic had to grow again."""
        for running in self._simulators():
            running.clear_rules()
        self._stage.connect(_FAILING)
        deadline = time.monotonic() + _LONGEST_SECONDS
        while self._stage.run(_LEFT)[0]["work"]:
            if time.monotonic() > deadline:
                raise TimeoutError("what had failed did not end after it was mended")
            for channel in self._stage.database.run(channels.list_all):
                if channel.circuit is channels.Circuit.OPEN:
                    self._stage.database.run(partial(channels.resume, channel_id=channel.id))
            time.sleep(1)
        self._stage.run("UPDATE pushfan.channel SET ramping_since = NULL RETURNING id")


def _words(pair: Pair) -> str:
    return ", ".join(
        f"{name} {rate:,.0f}/s and {pair.fault.per_second[name]:,.0f}/s with the fault "
        f"({pair.ratios()[name]:.2f}; {pair.ratios_to_alone()[name]:.2f} of what it has alone)"
        for name, rate in pair.calm.per_second.items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.isolation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--devices", type=int, default=4_000, help="of each channel")
    parser.add_argument("--pairs", type=int, default=3, help="of broadcasts, for each fault")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="can be repeated; otherwise all")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, no words")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pushfan-isolation-") as name:
        Path(name).chmod(0o755)
        stage = Stage(Path(name) / "stage", seed=1, settings=_SETTINGS, workers=_WORKERS, tell=_tell)
        stage.directory.mkdir(mode=0o755)
        with stage:
            stage.start_workers()
            scene = _Scene(stage, options.devices)
            scene.measure("hanging", 1)  # connections are open and caches warm from here on
            found = [scene.measure(fault, options.pairs) for fault in options.fault or FAULTS]
    failures = [failure for one in found for failure in one.failures()]
    if options.json:
        print(json.dumps(_as_json(found, failures)))  # noqa: T201 - a command line speaks
    else:
        for one in found:
            for pair in one.pairs:
                print(f"{one.fault}: {_words(pair)}")  # noqa: T201 - as above
            alone = dict(one.median_ratios_to_alone)
            print(f"{one.fault}: median {dict(one.median_ratios)}, to what they have alone {alone}")  # noqa: T201 - as above
        print("\n".join(failures) or "nobody else noticed")  # noqa: T201 - as above
    return 1 if failures else 0


def _as_json(found: Sequence[Isolation], failures: Sequence[str]) -> dict[str, Any]:
    runs = [
        {
            **asdict(one),
            "median_ratios": dict(one.median_ratios),
            "median_ratios_to_alone": dict(one.median_ratios_to_alone),
        }
        for one in found
    ]
    pressure = round(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
    return {"runs": runs, "pressure": pressure, "failures": failures, "passed": not failures}


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    sys.exit(main())
