"""The demo's world: users, their phones, what will happen to each phone, all from one seed.

What happens is chosen so that it can be counted beforehand:

- A *dead* token is refused for ever, and each phone is sent to, so each dead one is found.
- A *hesitant* phone is refused once, a *stubborn* one twice. FCM and APNs refuse one delivery at a time. JPush refuses
  a whole request, so that a stubborn phone there is met only by a direct push, and is its user's only one.
- A *replaced* token is given up by its app while pushes are on their way; either token will do for these.
- A *moved* phone changes hands between two waves, with a push to its first owner planned and not sent.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Final

from gateway.simulated import make_token
from registry.channels import Provider

TOPIC: Final = "news"
# Weights of 1, 2, 3 and 4 phones, and of the providers.
_PHONES: Final = (35, 35, 20, 10)
_PROVIDERS: Final[Mapping[Provider, int]] = {Provider.FCM: 45, Provider.APNS: 33, Provider.JPUSH: 22}
_DEAD, _HESITANT, _STUBBORN, _REPLACED, _MOVED = 0.03, 0.03, 0.02, 0.03, 0.02
_FEWEST: Final = 8
_MOST_STUBBORN: Final = 60
# JPush tells of a dead token among others, or by a doubt that other acceptances must outweigh.
_FEWEST_OF_JPUSH: Final = 60
_SUBSCRIBED: Final = 0.4
_USERS_OF_A_BUCKET: Final = 50
_MOST_BUCKETS: Final = 20


class Fate(StrEnum):
    """What happens to a phone's token."""

    HEALTHY = "healthy"
    DEAD = "dead"
    HESITANT = "hesitant"
    STUBBORN = "stubborn"
    REPLACED = "replaced"
    MOVED = "moved"


class Wave(IntEnum):
    """What is published together; the next wave begins when all of one has ended."""

    HELLO = 0
    NEWS = 1
    HANDOVER = 2
    DIRECT = 3
    BROADCAST = 4
    EMPTIED = 5
    REVOKED = 6
    REMINDER = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """One app install. `user` has it first, `heir` later if it is moved; `new_token` is its second, if replaced."""

    number: int
    provider: Provider
    user: str
    token: str
    fate: Fate = Fate.HEALTHY
    heir: str | None = None
    new_token: str | None = None

    @property
    def key(self) -> str:
        """Its device key, the same for ever."""
        return f"phone-{self.number}"

    def owner(self, wave: Wave) -> str:
        """Say whose it is when a wave is planned."""
        return self.heir if self.heir is not None and wave > Wave.HANDOVER else self.user


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a seed plans, or what was measured: deliveries tried again, tokens retired, replaced and moved."""

    retried: int
    retired: int
    replaced: int
    moved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everybody, and everything that will happen."""

    users: Sequence[str]
    phones: Sequence[Phone]
    buckets: Mapping[str, Sequence[str]]

    @property
    def planned(self) -> Counts:
        """Count what will happen."""
        fates = Counter(phone.fate for phone in self.phones)
        return Counts(
            retried=fates[Fate.HESITANT] + fates[Fate.STUBBORN],
            retired=fates[Fate.DEAD],
            replaced=fates[Fate.REPLACED],
            moved=fates[Fate.MOVED],
        )

    def number_at(self, provider: Provider) -> int:
        """Count the phones of one provider."""
        return sum(phone.provider is provider for phone in self.phones)

    def without(self, provider: Provider) -> list[str]:
        """List the untroubled users who have no phone at one provider."""
        there = {phone.user for phone in self.phones if phone.provider is provider}
        return [user for user in self.untroubled_users() if user not in there]

    def having(self, *fates: Fate) -> list[Phone]:
        """List the phones with one of these fates."""
        return [phone for phone in self.phones if phone.fate in fates]

    def phones_of(self, users: Collection[str], wave: Wave) -> Iterator[Phone]:
        """Yield the phones that a push to these users in this wave is planned for."""
        wanted = frozenset(users)
        return (phone for phone in self.phones if phone.owner(wave) in wanted)

    def greeted_users(self) -> list[str]:
        """List a few users who have, together, a phone of each provider to which nothing happens."""
        first: dict[Provider, str] = {}
        untroubled = frozenset(self.untroubled_users())
        for phone in self.phones:
            if phone.user in untroubled:
                first.setdefault(phone.provider, phone.user)
        return sorted(set(first.values()))

    def untroubled_users(self) -> list[str]:
        """List the users to whose phones nothing happens: what takes long for them, takes long."""
        troubled = {phone.user for phone in self.phones if phone.fate is not Fate.HEALTHY}
        troubled |= {phone.heir for phone in self.phones if phone.heir is not None}
        return [user for user in self.users if user not in troubled]


def create_world(*, users: int, seed: int) -> World:
    """Make the world of a seed: the same one for the same arguments."""
    chance = random.Random(seed)
    names = [f"u{number}" for number in range(1, users + 1)]
    phones = list(_phones(names, seed, chance))
    for fate, chosen in _fates(phones, chance):
        for number in chosen:
            phones[number] = replace(phones[number], fate=fate)
    _renew(phones, seed)
    _bequeath(phones, names, chance)
    return World(users=names, phones=phones, buckets=_buckets(names, chance))


def _phones(users: Sequence[str], seed: int, chance: random.Random) -> Iterator[Phone]:
    number = 0
    for user in users:
        (several,) = chance.choices(range(1, len(_PHONES) + 1), _PHONES)
        for provider in chance.choices(list(_PROVIDERS), list(_PROVIDERS.values()), k=several):
            yield Phone(number=number, provider=provider, user=user, token=make_token(provider, seed, number))
            number += 1


def _fates(phones: Sequence[Phone], chance: random.Random) -> Iterator[tuple[Fate, list[int]]]:
    """Yield which phones get which fate, each at most one."""
    for provider in Provider:
        lonely = {user for user, several in _of_provider(phones, provider).items() if len(several) == 1}
        pool = [phone for phone in phones if phone.provider is provider]
        chance.shuffle(pool)
        is_single = provider is not Provider.JPUSH
        stubborn = _one_for_each_user(
            [phone for phone in pool if is_single or phone.user in lonely], _share(_STUBBORN, len(pool))
        )
        taken = {phone.number for phone in stubborn}
        rest = [phone.number for phone in pool if phone.number not in taken]
        can_die = is_single or len(pool) >= _FEWEST_OF_JPUSH
        yield Fate.STUBBORN, sorted(taken)
        yield Fate.DEAD, _take(rest, _share(_DEAD, len(pool)) if can_die else 0)
        yield Fate.HESITANT, _take(rest, _share(_HESITANT, len(pool)) if is_single else 0)
        yield Fate.REPLACED, _take(rest, _share(_REPLACED, len(pool)))
        yield Fate.MOVED, _take(rest, _share(_MOVED, len(pool)))


def _of_provider(phones: Sequence[Phone], provider: Provider) -> Mapping[str, list[Phone]]:
    found: dict[str, list[Phone]] = defaultdict(list)
    for phone in phones:
        if phone.provider is provider:
            found[phone.user].append(phone)
    return found


def _one_for_each_user(pool: Sequence[Phone], number: int) -> list[Phone]:
    chosen: dict[str, Phone] = {}
    for phone in pool:
        if len(chosen) == min(number, _MOST_STUBBORN):
            break
        chosen.setdefault(phone.user, phone)
    return list(chosen.values())


def _share(share: float, of: int) -> int:
    return max(1, round(share * of)) if of >= _FEWEST else 0


def _take(pool: list[int], number: int) -> list[int]:
    taken = pool[:number]
    del pool[:number]
    return taken


def _renew(phones: list[Phone], seed: int) -> None:
    for phone in phones:
        if phone.fate is Fate.REPLACED:
            token = make_token(phone.provider, seed, phone.number, "new")
            phones[phone.number] = replace(phone, new_token=token)


def _bequeath(phones: list[Phone], users: Sequence[str], chance: random.Random) -> None:
    """Give each phone that moves to somebody else, but not to a user with a stubborn one: see JPush above."""
    busy = {phone.user for phone in phones if phone.fate is Fate.STUBBORN}
    heirs = [user for user in users if user not in busy]
    for phone in phones:
        if phone.fate is not Fate.MOVED:
            continue
        others = [user for user in chance.choices(heirs, k=4) if user != phone.user] if heirs else []
        heir = others[0] if others else None
        phones[phone.number] = replace(phone, heir=heir, fate=Fate.MOVED if heir else Fate.HEALTHY)


def _buckets(users: Sequence[str], chance: random.Random) -> Mapping[str, Sequence[str]]:
    number = min(_MOST_BUCKETS, 1 + len(users) // _USERS_OF_A_BUCKET)
    buckets: dict[str, list[str]] = {f"orders-{index}": [] for index in range(1, number + 1)}
    for user in users:
        if chance.random() < _SUBSCRIBED:
            buckets[chance.choice(list(buckets))].append(user)
    buckets["orders-1"] = buckets["orders-1"] or [users[0]]
    return buckets
