"""One run: set up, let the load and the adversary loose, heal, wait for quiet, reckon."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from registry.channels import Provider

from .adversary import Adversary
from .findings import Findings
from .killer import AGAIN, Killer
from .load import Load
from .memory import Memory
from .reckoning import Reckoning
from .scenario import Arena, Road, Scenario
from .stage import DirectRoad, Stage
from .world import APPS, World, create_world

_STALLED_SECONDS: Final = 60.0
QUIET_SECONDS: Final = 900.0
_TAKEN_IN_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.5
_TELL_SECONDS: Final = 5.0
_TAKEOVER_SLACK_SECONDS: Final = 2.0
# Memory is judged where a run is long enough for it to mean something.
_JUDGED_SECONDS: Final = 300.0
_MOST_GROWTH: Final = 1.2
_STATE = """
SELECT (SELECT count(*) FROM pushfan.notification WHERE finished_at IS NULL) AS unfinished,
       (SELECT count(*) FROM pushfan.chunk) AS chunks, (SELECT count(*) FROM pushfan.retry) AS retries,
       (SELECT count(*) FROM pushfan.receipt_poll) AS polls, (SELECT count(*) FROM pushfan.delivery) AS ended,
       (SELECT coalesce(string_agg(DISTINCT circuit_reason, ','), '') FROM pushfan.channel WHERE circuit <> 'closed')
           AS stopped
"""


def run(
    scenarios: Sequence[Scenario],
    *,
    seed: int,
    devices: int,
    seconds: float,
    open_road: Callable[..., Road] = DirectRoad,
    keep: Path | None = None,
    judges_recovery: bool = True,
    quiet_seconds: float = QUIET_SECONDS,
) -> Findings:
    """Run the scenarios together. `keep` is a directory that stays, for looking into afterwards.

    `judges_recovery` can be turned off where the machine is not ours: then only what is lost or repeated counts.
    `quiet_seconds`: how long to wait at most until all is done when everything is healed; what is not, is unfinished.
    """
    began = time.monotonic()
    world = create_world(
        seed=seed,
        devices=devices,
        seconds=seconds,
        only_direct=any(one.only_direct for one in scenarios),
    )
    adversary = Adversary(scenarios, seed=seed, seconds=seconds)
    findings = Findings(
        seed=seed,
        scenarios=[one.name for one in scenarios],
        decisions=f"{world.digest()}{adversary.digest()}",
        devices=sum(phone.is_there for phone in world.phones),
    )
    directory = keep or Path(tempfile.mkdtemp(prefix="pushfan-chaos-"))
    directory.chmod(0o755)
    settings: dict[str, Any] = {}
    for scenario in scenarios:
        settings |= scenario.settings
    stage = Stage(
        directory,
        seed=seed,
        settings=settings,
        engine="fault" if any(one.needs_frames for one in scenarios) else "fast",
        has_rabbit=any(one.needs_rabbit for one in scenarios),
        open_road=open_road,
        tell=_Teller(began),
        is_kept=keep is not None,
    )
    with stage:
        _Run(
            stage, world, adversary, scenarios, findings, seconds=seconds, judges_recovery=judges_recovery,
            quiet_seconds=quiet_seconds,
        ).run()  # fmt: skip
    findings.seconds = round(time.monotonic() - began, 1)
    return findings


class _Teller:
    """Says what goes on, on standard error."""

    def __init__(self, began: float) -> None:
        self._began = began

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks


class _Run:
    """A run on a stage that stands."""

    def __init__(
        self,
        stage: Stage,
        world: World,
        adversary: Adversary,
        scenarios: Sequence[Scenario],
        findings: Findings,
        *,
        seconds: float,
        judges_recovery: bool,
        quiet_seconds: float,
    ) -> None:
        self._quiet_seconds = quiet_seconds
        self._judges_recovery = judges_recovery and all(one.recovers for one in scenarios)
        self._stage = stage
        self._world = world
        self._adversary = adversary
        self._scenarios = scenarios
        self._findings = findings
        self._seconds = seconds
        self._tell = stage.tell
        self._killer = Killer(stage, self._tell)
        self._load = Load(stage, world, self._tell)
        self._memory = Memory(stage)
        self._arena = Arena(stage=stage, world=world, killer=self._killer, load=self._load, tell=self._tell)

    def run(self) -> None:
        """Run, and fill in the findings."""
        self._set_up()
        self._play()
        self._heal()
        self._await_quiet()
        self._killer.stop()
        self._memory.stop()
        self._load.close()
        self._reckon()

    def _set_up(self) -> None:
        stage, world = self._stage, self._world
        stage.dead = {(app, one): world.dead(app, one) for app in APPS for one in Provider}
        for app, provider in stage.dead:
            stage.bury(app, provider)
        self._load.register()
        self._tell(f"{self._findings.devices} phones are registered")
        stage.start_workers()
        self._load.warm_up()
        self._killer.start()
        self._memory.start()

    def _play(self) -> None:
        self._tell("the load begins")
        self._load.start()
        self._adversary.start(self._arena)
        end = time.monotonic() + self._seconds
        told_at = 0.0
        while time.monotonic() < end:
            if time.monotonic() - told_at > _TELL_SECONDS:
                told_at = time.monotonic()
                self._look()
            time.sleep(_LOOK_SECONDS)

    def _heal(self) -> None:
        self._arena.over.set()
        self._adversary.stop(self._arena)
        self._stage.heal()
        self._tell("healed; waiting for quiet")
        self._load.stop(_TAKEN_IN_SECONDS)

    def _look(self) -> dict[str, Any] | None:
        try:
            (state,) = self._stage.run(_STATE)
        except Exception as error:  # noqa: BLE001 - a scenario has taken the database away
            self._tell(f"the database is away: {type(error).__name__}")
            return None
        self._tell(
            f"{state['ended']} deliveries ended, {state['unfinished']} notifications open, {state['chunks']} chunks, "
            f"{state['retries']} retries, {len(self._load.pending)} events not taken in, "
            f"stopped: {state['stopped'] or '-'}"
        )
        return state

    def _await_quiet(self) -> None:
        """Wait until nothing is left to do, or nothing moves any more: the reckoning says what is missing."""
        began = moved_at = time.monotonic()
        last: dict[str, Any] | None = None
        while time.monotonic() - began < self._quiet_seconds:
            state = self._look()
            if state and not any(state[name] for name in ("unfinished", "chunks", "retries", "polls")):
                return
            if state != last:
                last, moved_at = state, time.monotonic()
            elif time.monotonic() - moved_at > _STALLED_SECONDS:
                return
            time.sleep(_LOOK_SECONDS * 2)

    def _reckon(self) -> None:
        findings, killer = self._findings, self._killer
        findings.failures += self._adversary.failures
        findings.kills = killer.count()
        findings.kills_mid_send = sum(kill.is_mid_send for kill in killer.kills)
        findings.freezes = sum(kill.is_freeze for kill in killer.kills)
        findings.faults = dict(self._arena.faults)
        findings.revived = self._stage.revived
        findings.recovery_seconds = _recovery([one.seconds for one in killer.recoveries])
        findings.memory_growth = self._memory.growth()
        findings.pressure = round(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
        also = frozenset().union(*(one.also for one in self._scenarios))
        reckoning = Reckoning(
            self._stage,
            self._world,
            self._load,
            findings,
            also=also,
            longest_send_seconds=self._longest_send_seconds(),
        )
        reckoning.reckon()
        findings.duplicates_bound = sum(kill.unrecorded for kill in killer.kills) + findings.ambiguous
        self._judge(reckoning)
        is_alone = len(self._scenarios) == 1
        for scenario in [one for one in self._scenarios if is_alone or one.checks_in_company]:
            findings.failures += [f"{scenario.name}: {one}" for one in scenario.check(self._arena, findings)]

    def _longest_send_seconds(self) -> float:
        """Bound how long after its loading a push may arrive: its lease, its time-out, and what a freeze adds."""
        frozen = 3 * self._stage.settings.lease_seconds if self._findings.freezes else 0.0
        return self._stage.settings.lease_seconds + self._stage.settings.provider_timeout_seconds + frozen

    def _judge(self, reckoning: Reckoning) -> None:
        findings = self._findings
        bound = findings.duplicates_bound if any(one.may_repeat for one in self._scenarios) else 0
        if findings.duplicates > bound:
            findings.failures.append(f"{findings.duplicates} duplicates, the bound is {bound}")
            findings.failures += [f"repeated: {one}" for one in reckoning.repeated_examples()]
        if any(one.must_kill for one in self._scenarios) and not findings.kills_mid_send:
            findings.failures.append("no process was killed with pushes on their way")
        limit = self._stage.settings.lease_seconds + _TAKEOVER_SLACK_SECONDS
        loses_messages = any(one.loses_messages for one in self._scenarios)
        judged = [one for one in self._killer.recoveries if not (loses_messages and AGAIN in one.steps)]
        longest = max(judged, key=lambda one: one.seconds, default=None)
        if self._judges_recovery and longest is not None and longest.seconds > limit:
            crowd = f"{findings.pressure:g} processes wanted each CPU"
            findings.failures.append(f"{longest}, the promise is {limit:g} s; {crowd}")
        if self._seconds >= _JUDGED_SECONDS:
            for name, growth in findings.memory_growth.items():
                if growth is not None and growth > _MOST_GROWTH:
                    findings.failures.append(f"the memory of {name} grew to {growth} times")


def _recovery(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {"max": None, "p50": None}
    return {"max": round(max(seconds), 2), "p50": round(statistics.median(seconds), 2)}
