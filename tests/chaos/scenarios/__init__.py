"""All scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.scenario import Scenario

from .kills import (
    Calm,
    KillAtPoints,
    KillDispatcher,
    KillPlanner,
    KillSender,
    KillTree,
    RollingRestart,
    Zombie,
)

ALL: Mapping[str, type[Scenario]] = {
    one.name: one
    for one in (
        Calm,
        KillAtPoints,
        KillDispatcher,
        KillPlanner,
        KillSender,
        KillTree,
        RollingRestart,
        Zombie,
    )
}
