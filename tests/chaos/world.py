"""Who is there and what will happen, all from one seed, before anything runs.

Acts are what backends and phones do by themselves: publishing, logging in, uninstalling, getting new tokens. They are
drawn in the order in which they will happen, so that each fits the state that those before it leave.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final

from events import BucketWrite, Change, DirectPush, Event, Message, TopicMessage
from gateway.simulated import make_token
from registry.channels import Provider

APPS: Final[Mapping[str, float]] = {"shop": 0.7, "games": 0.3}
EVERYBODY: Final = "everybody"
NEWS: Final = "news"
BUCKET: Final = "orders"
_PROVIDERS: Final[Mapping[Provider, int]] = {Provider.FCM: 45, Provider.APNS: 33, Provider.JPUSH: 22}
_PHONES_OF_A_USER: Final = (35, 35, 20, 10)
_DEAD: Final = 0.01
_NEWS_SHARE, _BUCKET_SHARE = 0.2, 0.05
# What two cores do beside everything else that a run starts: the load shall be heavy and come to an end.
_DELIVERIES_A_SECOND: Final = 400
_DIRECT_EVERY, _CHANGE_EVERY = 0.5, 0.1
_MOST_DIRECT_USERS: Final = 20
_SINGLE_EVERY: Final = 0.1


class Way(StrEnum):
    """How an event is published."""

    BROKER = "broker"
    TRANSACTION = "transaction"


class Deed(StrEnum):
    """What happens to a phone."""

    INSTALL = "install"  # a new phone, or one that was uninstalled
    MOVE = "move"  # another user logs in on it
    UNINSTALL = "uninstall"
    RENEW = "renew"  # the vendor gave it another token


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """An event and who it is for; `users` of `None` are all of the app."""

    at: float
    event: Event
    way: Way
    users: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """What a phone does: `user` and `token` are those that it has afterwards."""

    at: float
    deed: Deed
    phone: int
    user: str
    token: str


@dataclass(slots=True, kw_only=True)
class Phone:
    """One phone with one app. Its first user and token are here, what follows is in the happenings."""

    number: int
    app: str
    provider: Provider
    user: str
    token: str
    is_dead: bool = False
    is_there: bool = True

    @property
    def key(self) -> str:
        """Its device key, for ever."""
        return f"phone-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everybody, and what they will do. `subscribers` by app and target."""

    seed: int
    users: Mapping[str, Sequence[str]]
    phones: Sequence[Phone]
    subscribers: Mapping[tuple[str, str], frozenset[str]]
    publications: Sequence[Publication]
    happenings: Sequence[Happening]

    def dead(self, app: str, provider: Provider) -> list[str]:
        """List the tokens that a provider knows as dead from the beginning."""
        return [
            phone.token
            for phone in self.phones
            if phone.is_dead and (phone.app, phone.provider) == (app, provider)
        ]

    def digest(self) -> str:
        """Tell one plan from another in a few letters."""
        return hashlib.sha256(repr((self.publications, self.happenings)).encode()).hexdigest()[:12]


def create_world(*, seed: int, devices: int, seconds: float, only_direct: bool = False) -> World:
    """Draw the world of a seed. `only_direct`: nothing but direct pushes to one user each."""
    chance = Random(f"{seed}/world")
    users, phones = _people(seed, devices, chance)
    subscribers = {
        (app, target): frozenset(user for user in names if chance.random() < share)
        for app, names in users.items()
        for target, share in ((NEWS, _NEWS_SHARE), (BUCKET, _BUCKET_SHARE))
    }
    happenings = list(_Changes(seed, users, phones, Random(f"{seed}/changes")).draw(seconds))
    count = sum(phone.is_there for phone in phones)
    events = Random(f"{seed}/events")
    drawn = (
        _direct_pushes(users, seconds, events, every=_SINGLE_EVERY, most_users=1)
        if only_direct
        else _publications(users, subscribers, seconds, count, events)
    )
    publications = sorted(drawn, key=lambda one: one.at)
    return World(
        seed=seed, users=users, phones=phones, subscribers=subscribers, publications=publications,
        happenings=happenings,
    )  # fmt: skip


def _people(seed: int, devices: int, chance: Random) -> tuple[dict[str, list[str]], list[Phone]]:
    users: dict[str, list[str]] = {}
    phones: list[Phone] = []
    for app, share in APPS.items():
        names = users[app] = []
        end = len(phones) + max(6, round(devices * share))
        while len(phones) < end:
            user = f"u{len(names) + 1:06}"
            names.append(user)
            (several,) = chance.choices(range(1, 5), _PHONES_OF_A_USER)
            for provider in chance.choices(list(_PROVIDERS), list(_PROVIDERS.values()), k=several):
                phones.append(
                    Phone(
                        number=len(phones), app=app, provider=provider, user=user,
                        token=make_token(provider, seed, len(phones)), is_dead=chance.random() < _DEAD,
                    )
                )  # fmt: skip
    return users, phones


@dataclass(slots=True)
class _Changes:
    """Draws what happens to phones; keeps how each stands after what was drawn so far."""

    seed: int
    users: Mapping[str, Sequence[str]]
    phones: list[Phone]
    chance: Random
    _holders: dict[int, str] = field(default_factory=dict)
    _tokens: dict[int, str] = field(default_factory=dict)
    _gone: set[int] = field(default_factory=set)
    _made: int = 0

    def draw(self, seconds: float) -> Iterator[Happening]:
        """Yield the happenings of a run, in their order."""
        healthy = [phone.number for phone in self.phones if not phone.is_dead]
        at = 0.0
        while at < seconds:
            deed = self.chance.choices(list(Deed), (25, 35, 15, 25))[0]
            number = self._newcomer() if deed is Deed.INSTALL else self.chance.choice(healthy)
            yield self._happen(at, deed, number)
            at += self.chance.expovariate(1 / _CHANGE_EVERY)

    def _newcomer(self) -> int:
        if self._gone and self.chance.random() < 0.5:
            return self.chance.choice(sorted(self._gone))
        app = self.chance.choice(list(self.users))
        (provider,) = self.chance.choices(list(_PROVIDERS), list(_PROVIDERS.values()))
        phone = Phone(
            number=len(self.phones), app=app, provider=provider, user=self.chance.choice(self.users[app]),
            token=make_token(provider, self.seed, len(self.phones)), is_there=False,
        )  # fmt: skip
        self.phones.append(phone)
        return phone.number

    def _happen(self, at: float, deed: Deed, number: int) -> Happening:
        phone = self.phones[number]
        user, token = self._holders.get(number, phone.user), self._tokens.get(number, phone.token)
        if deed is Deed.UNINSTALL and number not in self._gone:
            self._gone.add(number)
        else:
            deed = Deed.INSTALL if number in self._gone and deed is not Deed.MOVE else deed
            deed = Deed.RENEW if deed is Deed.UNINSTALL else deed
            self._gone.discard(number)
        if deed is Deed.MOVE:
            user = self.chance.choice(self.users[phone.app])
        if deed is Deed.RENEW:
            self._made += 1
            token = make_token(phone.provider, self.seed, number, "renewed", self._made)
        self._holders[number], self._tokens[number] = user, token
        return Happening(at=at, deed=deed, phone=number, user=user, token=token)


def _publications(
    users: Mapping[str, Sequence[str]],
    subscribers: Mapping[tuple[str, str], frozenset[str]],
    seconds: float,
    devices: int,
    chance: Random,
) -> Iterator[Publication]:
    """Yield broadcasts as many as fit, smaller fan-outs and direct pushes in between."""
    broadcasts = max(2, round(_DELIVERIES_A_SECOND * seconds / devices))
    for number in range(broadcasts):
        app = chance.choices(list(APPS), list(APPS.values()))[0] if number > 1 else list(APPS)[number]
        at = 0.2 + (number + chance.random() * 0.5) * seconds * 0.9 / broadcasts
        event = TopicMessage(app=app, id=f"broadcast-{number}", topic=EVERYBODY, message=_message("news"))
        yield Publication(at=at, event=event, way=_way(chance), users=None)
    for number in range(2 * broadcasts):
        app = chance.choice(list(APPS))
        at = chance.uniform(0.2, seconds)
        if number % 2:
            topic = TopicMessage(app=app, id=f"topic-{number}", topic=NEWS, message=_message("topic"))
            yield Publication(at=at, event=topic, way=_way(chance), users=subscribers[app, NEWS])
        else:
            write = BucketWrite(
                app=app, id=f"write-{number}", bucket=BUCKET, object="o1", change=Change.UPDATED
            )
            yield Publication(at=at, event=write, way=_way(chance), users=subscribers[app, BUCKET])
    yield from _direct_pushes(users, seconds, chance, every=_DIRECT_EVERY, most_users=_MOST_DIRECT_USERS)


def _direct_pushes(
    users: Mapping[str, Sequence[str]], seconds: float, chance: Random, *, every: float, most_users: int
) -> Iterator[Publication]:
    at, number = 0.2, 0
    while at < seconds:
        app = chance.choice(list(APPS))
        named = chance.sample(users[app], k=min(chance.randint(1, most_users), len(users[app])))
        yield direct(at, app, f"direct-{number}", named, _way(chance))
        at, number = at + chance.expovariate(1 / every), number + 1


def direct(
    at: float, app: str, name: str, users: Sequence[str], way: Way = Way.BROKER, *, title: str = "For you"
) -> Publication:
    """Make a direct push."""
    message = Message(title=title, body="A direct push", data={"reason": name})
    event = DirectPush(app=app, id=name, users=users, message=message)
    return Publication(at=at, event=event, way=way, users=frozenset(users))


def _message(kind: str) -> Message:
    return Message(title="News", body="Something for everybody", data={"kind": kind})


def _way(chance: Random) -> Way:
    return chance.choice(list(Way))


def phones_by_user(phones: Sequence[Phone]) -> Mapping[tuple[str, str], list[Phone]]:
    """Group phones by app and first user."""
    found: dict[tuple[str, str], list[Phone]] = defaultdict(list)
    for phone in phones:
        found[phone.app, phone.user].append(phone)
    return found
