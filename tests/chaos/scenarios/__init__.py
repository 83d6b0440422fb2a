"""All scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from tests.chaos.scenario import Scenario

from . import broker, database, kills, messages, providers, rabbit, webhooks

_ALL: tuple[type[Scenario], ...] = (
    broker.BrokerConnectionsCut,
    broker.BrokerFlushed,
    broker.BrokerFull,
    broker.BrokerHalfOpen,
    broker.BrokerPopsLost,
    broker.BrokerRestarted,
    broker.BrokerSlow,
    broker.BrokerUnreachable,
    database.CommitsCut,
    database.DatabaseConnectionsEnded,
    database.DatabaseFull,
    database.DatabaseHalfOpen,
    database.DatabaseKilled,
    database.DatabaseRestarted,
    database.DatabaseSlow,
    database.DatabaseUnreachable,
    kills.Calm,
    kills.KillAtPoints,
    kills.KillDispatcher,
    kills.KillPlanner,
    kills.KillSender,
    kills.KillTree,
    kills.KillWaiting,
    kills.RollingRestart,
    kills.Zombie,
    kills.ZombieAtClaim,
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
    providers.LateAnswers,
    providers.PageEdges,
    providers.ProviderDown,
    providers.Rate,
    providers.Resetting,
    providers.Throttling,
    providers.WrongEnvironment,
    providers.WrongEnvironmentOfDirect,
    rabbit.RabbitFull,
    rabbit.RabbitHalfOpen,
    rabbit.RabbitKilled,
    rabbit.RabbitPurged,
    rabbit.RabbitRestarted,
    rabbit.RabbitUnreachable,
    webhooks.WebhookReceivers,
)
ALL: Mapping[str, type[Scenario]] = {one.name: one for one in _ALL}


def choose(seed: int) -> list[Scenario]:
    """Draw a combination: kills every few seconds, and two or three others that go with them."""
    chance = Random(f"{seed}/scenarios")
    others = [name for name, one in sorted(ALL.items()) if one.combines and one is not kills.KillSender]
    names = [kills.KillSender.name, *chance.sample(others, k=chance.randint(2, 3))]
    return [ALL[name]() for name in names]
