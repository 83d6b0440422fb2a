"""The demo's stage: the world in the registry, and simulators that treat it as the seed says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from gateway.simulated import connect
from gateway.stack import Stack
from registry import channels, devices, feedback, subscriptions
from registry.channels import Channel, Provider
from registry.database import Connection
from registry.feedback import BEGINNING, Feedback
from registry.installs import Install
from registry.subscriptions import Target, TargetKind

from .world import TOPIC, Fate, Phone, World

_SUBSCRIPTIONS_AT_ONCE: Final = 20_000
_FEEDBACK_AT_ONCE: Final = 5_000


class Stage:
    """The app with its channels, phones and subscriptions, registered when this is made."""

    def __init__(self, stack: Stack, world: World, app: str, *, rate_per_second: int) -> None:
        self.app = app
        self.world = world
        self.database = stack.database
        self._simulators = stack.simulators
        before = time.time()
        found = connect(
            self.database,
            app,
            stack.simulators,
            stack.settings.credentials_directory,
            rate_per_second=rate_per_second,
        )
        self.ways: Mapping[Provider, Channel] = {
            channel.provider: channel for channel in sorted(found.values(), key=lambda one: one.id)
        }
        one = next(iter(found.values()))
        self.app_id = one.app_id
        self._skew_seconds = one.created_at.timestamp() - (before + time.time()) / 2
        self._register()

    @property
    def providers(self) -> list[str]:
        """Name the providers that have a channel."""
        return [provider.value for provider in self.ways]

    def clock(self, instant: datetime) -> float:
        """Translate what the database's clock says into what this machine's says."""
        return instant.timestamp() - self._skew_seconds

    def replace_tokens(self) -> None:
        """Let the apps whose tokens change register the new ones."""
        replaced = self.world.having(Fate.REPLACED)
        self._install([self._call(phone, token=phone.new_token) for phone in replaced])

    def hand_over(self) -> None:
        """Let the heirs log in on the phones that move."""
        self._install([self._call(phone, user=phone.heir) for phone in self.world.having(Fate.MOVED)])

    def stop_channels(self) -> None:
        """Let deliveries wait."""

        def work(connection: Connection) -> None:
            for channel in self.ways.values():
                channels.pause(connection, channel.id, "the demo")

        self.database.run(work)

    def resume_channels(self) -> None:
        """Let what waits be sent."""

        def work(connection: Connection) -> None:
            for channel in self.ways.values():
                channels.resume(connection, channel.id)

        self.database.run(work)

    def bury_the_dead(self) -> None:
        """Let the providers know dead tokens no more."""
        self._rule(self.world.having(Fate.DEAD), "unregistered", jpush="unknown")

    def forget_old_tokens(self) -> None:
        """Let the providers know replaced tokens no more: whoever still sends to them is found out."""
        self._rule(self.world.having(Fate.REPLACED), "unregistered", jpush="unknown")

    def let_hesitate(self) -> None:
        """Let the first push to each hesitant phone be refused for now."""
        self._rule(self.world.having(Fate.HESITANT), "unavailable", apns="throttled", first=1)

    def let_be_stubborn(self) -> None:
        """Let the first two tries for each stubborn phone fail."""
        self._rule(self.world.having(Fate.STUBBORN), "unavailable", first=2)

    def slow_down(self, milliseconds: int) -> None:
        """Let the providers take so long for each answer."""
        for simulator in self._simulators.values():
            simulator.control("POST", "/latency", {"ms": milliseconds})

    def set_credentials(self, provider: Provider, *, are_valid: bool) -> None:
        """Let a provider refuse the credential that it gave, or take it again: the same one."""
        self._simulators[provider.value].control("POST", "/credentials", {"valid": are_valid})

    def count_receipts(self, provider: Provider) -> int:
        """Count the pushes that phones received from one provider so far. May be called from any thread."""
        return int(self._simulators[provider.value].stats()["receipts"])

    def receipts(self) -> Iterator[tuple[int, str]]:
        """Yield notification and token of everything that the phones received."""
        for simulator in self._simulators.values():
            for receipt in simulator.receipts():
                yield int(receipt["notification"] or 0), receipt["token"]

    def feedback(self) -> list[Feedback]:
        """Read what happened to tokens, as a backend does."""
        found: list[Feedback] = []
        after = BEGINNING
        while page := feedback.read(
            self.database.connection(), self.app_id, after=after, limit=_FEEDBACK_AT_ONCE
        ):
            found += page
            after = page[-1].cursor
        return found

    def _register(self) -> None:
        self._install([self._call(phone) for phone in self.world.phones])
        news = Target(kind=TargetKind.TOPIC, name=TOPIC)
        pairs = [(news, user) for user in self.world.users]
        for name, users in self.world.buckets.items():
            pairs += [(Target(kind=TargetKind.BUCKET, name=name), user) for user in users]
        for start in range(0, len(pairs), _SUBSCRIPTIONS_AT_ONCE):
            some = pairs[start : start + _SUBSCRIPTIONS_AT_ONCE]
            subscriptions.subscribe_many(self.database.connection(), self.app_id, some)

    def _call(self, phone: Phone, *, user: str | None = None, token: str | None = None) -> Install:
        return Install(
            channel_id=self.ways[phone.provider].id,
            user_id=user or phone.user,
            device_key=phone.key,
            token=token or phone.token,
        )

    def _install(self, calls: Sequence[Install]) -> None:
        for start in range(0, len(calls), devices.BATCH):
            self.database.run(partial(devices.install_many, calls=calls[start : start + devices.BATCH]))

    def _rule(self, phones: Sequence[Phone], answer: str, *, first: int | None = None, **others: str) -> None:
        """Tell each simulator how to answer for the phones' first tokens; `others` by provider."""
        for provider in self.ways:
            tokens = [phone.token for phone in phones if phone.provider is provider]
            rule = {"tokens": tokens, "answer": others.get(provider.value, answer), "first": first}
            if provider is Provider.APNS and first is not None:
                rule["retry_after"] = 1  # without it Apple's documented quarter of an hour counts
            if tokens:
                self._simulators[provider.value].rules([rule])
