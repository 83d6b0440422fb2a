"""Providers fail in every way that they have, and their credentials do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

from gateway.simulated import make_token
from registry import channels
from registry.channels import Provider
from registry.ledger import FinalOutcome
from tests.chaos.findings import Findings
from tests.chaos.scenario import Arena, Move, Scenario, every
from tests.chaos.world import APPS, Phone

_APPS: Final = tuple(APPS)
_PROVIDERS: Final = tuple(Provider)
# What one vendor has another word for.
_BAD_TOKEN: Final = {Provider.FCM: "mismatch", Provider.APNS: "bad_token", Provider.JPUSH: "no_target"}
# Not so short that a busy machine would be too slow for those that do answer.
_SHORT: Final[Mapping[str, object]] = {"provider_timeout_seconds": 6}
_HOUR_MS, _MINUTE_MS = 3_600_000, 60_000
# How far the normal lane may run ahead of its channel's rate.
_HORIZON_SECONDS: Final = 1.0
_LIMIT: Final = """
UPDATE pushfan.channel c SET rate_per_second = %(rate)s WHERE c.id = %(channel)s RETURNING c.id
"""
_NOT_URGENT: Final = "SELECT n.id FROM pushfan.notification n WHERE n.lane <> 'urgent'"


def rule(arena: Arena, *, app: str, provider: Provider, **values: Any) -> None:
    """Let a provider misbehave for an app."""
    arena.stage.simulators[app][provider].rules([values])
    arena.fault(f"{provider.value} {values['answer']}")


def behave(arena: Arena, *, app: str, provider: Provider) -> None:
    """Let a provider behave again; dead tokens stay dead."""
    arena.stage.simulators[app][provider].clear_rules()
    arena.stage.bury(app, provider)


class Disturbance(Scenario):
    """One provider of one app after the other answers badly for a while."""

    answers: ClassVar[Mapping[Provider, tuple[Mapping[str, Any], ...]]]
    share: ClassVar[tuple[float, float]] = (0.3, 1.0)
    lasts: ClassVar[tuple[float, float]] = (0.1, 0.25)

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw who, how, for how long."""
        moves: list[Move] = []
        at = chance.uniform(0.02, 0.1) * seconds
        while at < 0.8 * seconds:
            app, provider = chance.choice(_APPS), chance.choice(_PROVIDERS)
            values = {"share": chance.uniform(*self.share), **chance.choice(self.answers[provider])}
            act = partial(rule, app=app, provider=provider, **values)
            moves.append(Move(at, f"{provider.value} of {app}: {values['answer']}", act))
            at += chance.uniform(*self.lasts) * seconds
            calm = partial(behave, app=app, provider=provider)
            moves.append(Move(at, f"{provider.value} of {app} behaves", calm))
            at += chance.uniform(0.02, 0.08) * seconds
        return moves

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """The faults must have been met."""
        words = {str(values["answer"]) for some in self.answers.values() for values in some}
        met = sum(
            int(simulator.stats()["answers"].get(word, 0))
            for some in arena.stage.simulators.values()
            for simulator in some.values()
            for word in words
        )
        if not met:
            yield f"nobody met {', '.join(sorted(words))}"


def _all(*several: Mapping[str, Any]) -> Mapping[Provider, tuple[Mapping[str, Any], ...]]:
    return dict.fromkeys(Provider, several)


class ProviderDown(Disturbance):
    """A provider is down for everybody, for longer than all attempts of the backoff would last."""

    name = "provider_down"
    may_repeat = False
    answers = _all({"answer": "unavailable"}, {"answer": "internal"})
    share = (1.0, 1.0)
    lasts = (0.4, 0.6)
    # All attempts would be spent within a few seconds, if the circuit did not keep them.
    settings: ClassVar[Mapping[str, object]] = {"max_attempts": 6}


class Throttling(Disturbance):
    """A provider throttles, with Retry-After and without."""

    name = "throttling"
    may_repeat = False
    answers = _all({"answer": "throttled"}, {"answer": "throttled", "retry_after": 1})


class Hanging(Disturbance):
    """A provider does not answer, and has not accepted."""

    name = "hanging"
    answers = _all({"answer": "hang"})
    settings: ClassVar[Mapping[str, object]] = _SHORT


class AcceptingSilently(Disturbance):
    """A provider accepts a push the first time, and does not answer."""

    name = "accepting_silently"
    answers = _all({"answer": "accept_no_answer", "first": 1})
    share = (0.05, 0.3)
    settings: ClassVar[Mapping[str, object]] = _SHORT


class Resetting(Disturbance):
    """A provider resets streams, some after it has accepted."""

    name = "resetting"
    needs_frames = True
    answers = _all({"answer": "reset"}, {"answer": "reset", "delivered": True, "first": 1})
    share = (0.05, 0.3)


class GoingAway(Disturbance):
    """A provider sends GOAWAY for some requests, processed and not."""

    name = "going_away"
    needs_frames = True
    answers = _all({"answer": "goaway", "total": 20}, {"answer": "goaway", "delivered": True, "total": 20})


class CutConnections(Scenario):
    """All connections to a provider are cut, or end with GOAWAY, every few seconds."""

    name = "cut_connections"
    needs_frames = True

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw whose, how, when."""
        moves = []
        for at in every(chance, seconds, mean=2, first=1):
            app, provider = chance.choice(_APPS), chance.choice(_PROVIDERS)
            action = chance.choice(("reset", "goaway"))
            act = partial(_disturb, app=app, provider=provider, action=action)
            moves.append(Move(at, f"connections to {provider.value} of {app}: {action}", act))
        return moves

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Connections must have been there."""
        if not sum(findings.faults.values()):
            yield "there was no connection to cut"


def _disturb(arena: Arena, *, app: str, provider: Provider, action: str) -> None:
    done = arena.stage.simulators[app][provider].control("POST", "/connections", {"action": action})
    arena.fault(f"connection {action}", int(done["connections"]))


class CredentialsExpire(Scenario):
    """Providers call the tokens expired that workers have derived from their credentials: these renew them."""

    name = "credentials_expire"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw whose, and when: APNs' once for each app, since it takes a new token every 20 minutes at most."""
        moves, seen = [], set()
        for at in every(chance, seconds, mean=3, first=1):
            app, provider = chance.choice(_APPS), chance.choice((Provider.FCM, Provider.APNS))
            if provider is Provider.APNS and app in seen:
                provider = Provider.FCM
            elif provider is Provider.APNS:
                seen.add(app)
            act = partial(_expire, app=app, provider=provider)
            moves.append(Move(at, f"{provider.value} of {app}: credentials expire", act))
        return moves


def _expire(arena: Arena, *, app: str, provider: Provider) -> None:
    arena.stage.simulators[app][provider].control("POST", "/credentials", {"expire": True})
    arena.fault("credentials expired")


class CredentialsRotate(Scenario):
    """Credentials are revoked in the middle of a broadcast; seconds later an operator puts in the new ones."""

    name = "credentials_rotate"
    may_repeat = False
    recovers = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw whose, when, and how long nobody notices."""
        moves = []
        at = 0.1 * seconds
        while at < 0.75 * seconds:
            app, provider = chance.choice(_APPS), chance.choice(_PROVIDERS)
            moves.append(
                Move(at, f"{provider.value} of {app}: revoked", partial(_rotate, app=app, provider=provider))
            )
            at += chance.uniform(0.08, 0.15) * seconds
            moves.append(Move(at, f"{app}: new credentials", partial(_put_in, app=app)))
            at += chance.uniform(0.05, 0.1) * seconds
        return moves

    def heal(self, arena: Arena) -> None:
        """Put in what is still missing."""
        for app in _APPS:
            _put_in(arena, app=app)


def _rotate(arena: Arena, *, app: str, provider: Provider) -> None:
    simulator = arena.stage.simulators[app][provider]
    fresh = simulator.control("POST", "/credentials", {"rotate": True})
    simulator.info |= {name: fresh[name] for name in ("key_id", "master_secret") if name in fresh}
    arena.fault("credentials revoked")


def _put_in(arena: Arena, *, app: str) -> None:
    arena.stage.connect(app)


class CredentialsRotateInFiles(CredentialsRotate):
    """Credentials are revoked, and the new ones appear in the files that the references name: nobody says a word."""

    name = "credentials_in_files"

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw whose, when, and how long the files are old. APNs' key has another id: that is in the database."""
        moves = []
        at = 0.1 * seconds
        while at < 0.75 * seconds:
            app, provider = chance.choice(_APPS), chance.choice((Provider.FCM, Provider.JPUSH))
            moves.append(
                Move(at, f"{provider.value} of {app}: revoked", partial(_rotate, app=app, provider=provider))
            )
            at += chance.uniform(0.08, 0.15) * seconds
            moves.append(Move(at, f"{app}: new files", partial(_write, app=app, provider=provider)))
            at += chance.uniform(0.05, 0.1) * seconds
        return moves


def _write(arena: Arena, *, app: str, provider: Provider) -> None:
    info = arena.stage.simulators[app][provider].info
    directory = arena.stage.settings.credentials_directory
    if provider is Provider.FCM:
        content = Path(info["service_account_file"]).read_bytes()
        (directory / f"simulated-{app}-fcm-service-account").write_bytes(content)
    else:
        (directory / f"simulated-{app}-jpush-master-secret").write_text(str(info["master_secret"]))


class WrongEnvironment(Scenario):
    """A provider calls every token bad, as it does when the channel's environment or credentials are wrong."""

    name = "wrong_environment"
    may_repeat = False
    recovers = False
    # That is what the provider said of these pushes, and no promise is broken by it.
    also = frozenset({FinalOutcome.REJECTED})

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw which channel, and when."""
        self._app, self._provider = chance.choice(_APPS), chance.choice(_PROVIDERS)
        at = chance.uniform(0.1, 0.3) * seconds
        answer = _BAD_TOKEN[self._provider]
        act = partial(rule, app=self._app, provider=self._provider, answer=answer, share=1.0)
        return [Move(at, f"{self._provider.value} of {self._app} calls all tokens bad", act)]

    def heal(self, arena: Arena) -> None:
        """Correct the channel as an operator does: stop it, give it what it lacked, let it go on.

        Were the answers to become good by themselves, it would have been the provider's error and not ours: against
        such errors, which last minutes, suspects are given an hour, and here two seconds.
        """
        channel = arena.stage.channels[self._app][self._provider]
        database = arena.stage.database
        database.run(partial(channels.pause, channel_id=channel.id, detail="chaos"))
        behave(arena, app=self._app, provider=self._provider)
        arena.stage.connect(self._app)
        database.run(partial(channels.resume, channel_id=channel.id))

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Some pushes must have met it."""
        if not findings.outcomes.get(FinalOutcome.REJECTED.value):
            yield "no push was refused for its token"


class WrongEnvironmentOfDirect(WrongEnvironment):
    """The same, met through single direct pushes alone: few doubts, no broadcast that would show the share."""

    name = "wrong_environment_direct"
    only_direct = True
    combines = False


class PageEdges(Scenario):
    """Phones come, go and change hands while fan-outs are planned in pages of a few users."""

    name = "page_edges"
    may_repeat = False
    settings: ClassVar[Mapping[str, object]] = {"page_size": 40, "chunk_size": 30}

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Do nothing beside the load, which does it all the time."""
        return []


class LateAnswers(Scenario):
    """Tokens are called dead when the app has meanwhile replaced them, or registered them again."""

    name = "late_answers"
    may_repeat = False
    # The vendor says so of pushes that were on their way; the phones stay.
    also = frozenset({FinalOutcome.UNREGISTERED})

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the instants."""
        return [
            Move(at, "answers came late", partial(_answer_late, number=number))
            for number, at in enumerate(every(chance, seconds, mean=1))
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Both kinds must have been met."""
        for kind in ("token replaced", "token registered again"):
            if not findings.faults.get(kind):
                yield f"no push was on its way whose {kind.removeprefix('token ')} token was called dead"


def _answer_late(arena: Arena, *, number: int) -> None:
    """Let a process sleep between the loading of APNs tokens and their sending, and tokens change meanwhile.

    It wakes long before its lease ends. APNs names the instant of a token's death: what was replaced died an hour from
    now, so that only the comparison of tokens can tell; what was registered again died a minute ago.
    """
    apps = {some[Provider.APNS].id: app for app, some in arena.stage.channels.items()}
    sleeper = arena.killer.lull(apps)
    if sleeper is None:
        return
    try:
        settled = arena.load.settled_among(sleeper.devices)
        _change_tokens(arena, apps[sleeper.channel], settled, number)
    finally:
        arena.killer.wake(sleeper)


def _change_tokens(arena: Arena, app: str, settled: Sequence[Phone], number: int) -> None:
    replaced, again = settled[::2], settled[1::2]
    old, same = [[arena.load.token_of(phone) for phone in some] for some in (replaced, again)]
    fresh = [make_token(phone.provider, phone.key, "late", number) for phone in replaced]
    arena.load.register_again([*zip(replaced, fresh, strict=True), *zip(again, same, strict=True)])
    now = int(time.time() * 1000)
    rules = [
        {"tokens": tokens, "answer": "unregistered", "invalidated_at": at}
        for tokens, at in ((old, now + _HOUR_MS), (same, now - _MINUTE_MS))
        if tokens
    ]
    if rules:
        arena.stage.simulators[app][Provider.APNS].rules(rules)
    arena.fault("token replaced", len(old))
    arena.fault("token registered again", len(same))


class Rate(Scenario):
    """A channel has a low rate: what is not urgent never runs ahead of it by more than its lane may, and a chunk."""

    name = "rate"
    may_repeat = False
    recovers = False
    combines = False
    settings: ClassVar[Mapping[str, object]] = {"chunk_size": 100}
    per_second: ClassVar[int] = 60

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw whose."""
        self._app, self._began_at = next(iter(_APPS)), 0.0
        return [Move(0, f"{self.per_second} a second for {self._app}", self.limit)]

    def limit(self, arena: Arena) -> None:
        """Lower the rate of one channel."""
        self._began_at = time.time()
        channel = arena.stage.channels[self._app][Provider.FCM].id
        arena.stage.run(_LIMIT, {"channel": channel, "rate": self.per_second})
        arena.fault("rate lowered")

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Count what is not urgent, from when the rate was lowered."""
        ids = {str(row["id"]) for row in arena.stage.run(_NOT_URGENT)}
        receipts = arena.stage.simulators[self._app][Provider.FCM].receipts()
        instants = sorted(
            one["at"] for one in receipts if one["notification"] in ids and one["at"] > self._began_at
        )
        ahead = self.per_second * _HORIZON_SECONDS + int(str(self.settings["chunk_size"]))
        if len(instants) <= ahead:
            yield f"{len(instants)} pushes were too few to say anything of the rate"
        for number, at in enumerate(instants, start=1):
            allowed = self.per_second * (at - self._began_at) + ahead
            if number > allowed:
                yield f"{number} pushes within {at - self._began_at:.1f} s, the rate allows {allowed:.0f}"
                return
