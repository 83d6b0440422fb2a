"""All scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.chaos.scenario import Scenario

from . import kills, messages, providers

_ALL: tuple[type[Scenario], ...] = (
    kills.Calm,
    kills.KillAtPoints,
    kills.KillDispatcher,
    kills.KillPlanner,
    kills.KillSender,
    kills.KillTree,
    kills.RollingRestart,
    kills.Zombie,
    messages.Garbage,
    messages.PoisonHang,
    messages.PoisonPayload,
    messages.RepeatedMessages,
    messages.SameEvent,
    providers.AcceptingSilently,
    providers.CredentialsExpire,
    providers.CredentialsRotate,
    providers.CredentialsRotateInFiles,
    providers.CutConnections,
    providers.GoingAway,
    providers.Hanging,
    providers.PageEdges,
    providers.ProviderDown,
    providers.Resetting,
    providers.Throttling,
    providers.WrongEnvironment,
    providers.WrongEnvironmentOfDirect,
)
ALL: Mapping[str, type[Scenario]] = {one.name: one for one in _ALL}
