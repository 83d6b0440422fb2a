"""What backends and phones do meanwhile: publish, and publish again until it is taken in; register.

Two threads. Both reach the servers by the roads that workers use, so that their faults strike them, too.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psycopg

from events import TopicMessage
from events.publisher import Publisher, PublishFailed
from registry import devices, subscriptions
from registry.database import Connection, Database
from registry.errors import RegistryError
from registry.installs import Install
from registry.subscriptions import Target, TargetKind

from .stage import Stage
from .world import APPS, BUCKET, EVERYBODY, NEWS, Deed, Happening, Phone, Publication, Way, World, direct

_SUBSCRIPTIONS_AT_ONCE: Final = 20_000
_AGAIN_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02
_WARMED, _WARM_UP_SECONDS = 60, 60.0
_UNFINISHED = "SELECT count(*) AS number FROM pushfan.notification WHERE finished_at IS NULL"
_KEYS = "SELECT d.device_key FROM pushfan.device d WHERE d.id = ANY (%(ids)s) ORDER BY d.id"
_TAKEN_IN = """
SELECT k.key FROM pushfan.event_key k JOIN pushfan.app a ON a.id = k.app_id
WHERE a.name = %(app)s AND k.key = ANY (%(keys)s)
"""


@dataclass(slots=True, kw_only=True)
class Owner:
    """Who had a phone, from when to when. An instant is only known to lie within the call that made it so."""

    user: str
    began: tuple[float, float]
    ended: tuple[float, float] | None = None


@dataclass(slots=True, kw_only=True)
class Published:
    """A publication as it went. `began_at`: when it was first handed over."""

    publication: Publication
    began_at: float
    tried_at: float
    times: int = 1
    is_taken_in: bool = False


@dataclass(slots=True, kw_only=True)
class Life:
    """What a phone went through: its owners, and all its tokens, the present one last."""

    owners: list[Owner] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


class Load:
    """Plays a world's publications and happenings. `publish` may be called from any thread."""

    def __init__(self, stage: Stage, world: World, tell: Callable[[str], None]) -> None:
        self.published: dict[tuple[str, str], Published] = {}
        self.lives: dict[int, Life] = defaultdict(Life)
        self.failure: BaseException | None = None
        self._stage = stage
        self._world = world
        self._tell = tell
        self._database = Database(stage.settings.require_database_url(), application_name="chaos load")
        self._publishers = {app: Publisher(stage.settings.require_broker_url(), app=app) for app in APPS}
        self._lock = threading.Lock()
        self._extra: list[Publication] = []
        self._done = threading.Event()
        self._start = 0.0
        self._threads: list[threading.Thread] = []

    def register(self) -> None:
        """Install every phone that is there at first, and subscribe every user."""
        began = time.time()
        phones = [phone for phone in self._world.phones if phone.is_there]
        calls = [self._install(phone, phone.user, phone.token) for phone in phones]
        for start in range(0, len(calls), devices.BATCH):
            some = calls[start : start + devices.BATCH]
            self._stage.database.run(partial(devices.install_many, calls=some))
        for phone in phones:
            life = self.lives[phone.number]
            life.owners.append(Owner(user=phone.user, began=(began, time.time())))
            life.tokens.append(phone.token)
        for app in APPS:
            self._subscribe(app)

    def _subscribe(self, app: str) -> None:
        world = self._world
        topic, bucket = TargetKind.TOPIC, TargetKind.BUCKET
        pairs = [(Target(kind=topic, name=EVERYBODY), user) for user in world.users[app]]
        pairs += [(Target(kind=topic, name=NEWS), user) for user in sorted(world.subscribers[app, NEWS])]
        pairs += [(Target(kind=bucket, name=BUCKET), user) for user in sorted(world.subscribers[app, BUCKET])]
        app_id = next(iter(self._stage.channels[app].values())).app_id
        for start in range(0, len(pairs), _SUBSCRIPTIONS_AT_ONCE):
            some = pairs[start : start + _SUBSCRIPTIONS_AT_ONCE]
            self._stage.database.run(partial(subscriptions.subscribe_many, app_id=app_id, pairs=some))

    def warm_up(self) -> None:
        """Push to a few users of each app and wait until it has ended: connections are open when the load begins."""
        for app in APPS:
            self._publish(direct(0, app, "warm-up", self._world.users[app][:_WARMED], Way.TRANSACTION))
        deadline = time.monotonic() + _WARM_UP_SECONDS
        while self._stage.run(_UNFINISHED)[0]["number"] and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def start(self) -> None:
        """Begin: instants of the plan count from now."""
        self._start = time.monotonic()
        for run in (self._produce, self._change):
            thread = threading.Thread(target=self._guard, args=[run], name=run.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def publish(self, publication: Publication) -> None:
        """Publish something that is not in the plan."""
        with self._lock:
            self._extra.append(publication)

    def settled_among(self, device_ids: Sequence[int]) -> list[Phone]:
        """Choose the phones behind device rows that stay as they are: nothing in the plan will happen to them."""
        changing = {happening.phone for happening in self._world.happenings}
        keys = [row["device_key"] for row in self._stage.run(_KEYS, {"ids": device_ids})]
        phones = [self._world.phones[int(key.removeprefix("phone-"))] for key in keys]
        return [phone for phone in phones if not phone.is_dead and phone.number not in changing]

    def token_of(self, phone: Phone) -> str:
        """Tell the token that a phone registered last."""
        return self.lives[phone.number].tokens[-1]

    def register_again(self, pairs: Sequence[tuple[Phone, str]]) -> None:
        """Register settled phones anew, with the same token or another one."""
        calls = [self._install(phone, phone.user, token) for phone, token in pairs]
        self._stage.database.run(partial(devices.install_many, calls=calls))
        for phone, token in pairs:
            if token not in self.lives[phone.number].tokens:
                self.lives[phone.number].tokens.append(token)

    def stop(self, patience_seconds: float) -> None:
        """Go on until everything is taken in, or patience ends."""
        self._done.set()
        deadline = time.monotonic() + patience_seconds
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
        for publisher in self._publishers.values():
            publisher.close()

    @property
    def pending(self) -> list[Published]:
        """What is not taken in yet, as far as is known."""
        return [one for one in list(self.published.values()) if not one.is_taken_in]

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - told by `stop`, on the runner's thread
            self.failure = error
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        """Close this thread's connections."""
        self._database.close()
        self._stage.database.close()

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _produce(self) -> None:
        queue = list(self._world.publications)
        looked_at = 0.0
        while queue or self._extra or self.pending or not self._done.is_set():
            while queue and queue[0].at <= self._now():
                self._publish(queue.pop(0))
            with self._lock:
                extra, self._extra = self._extra, []
            for publication in extra:
                self._publish(publication)
            if self._now() - looked_at > _LOOK_SECONDS:
                self._look_after()
                looked_at = self._now()
            time.sleep(_POLL_SECONDS)

    def _publish(self, publication: Publication) -> None:
        now = time.time()
        key = publication.event.app, publication.event.id
        self.published[key] = Published(publication=publication, began_at=now, tried_at=now)
        self._hand_over(publication)

    def _hand_over(self, publication: Publication) -> None:
        """Try once: what fails is tried again when it turns out not to be there."""
        event = publication.event
        try:
            if publication.way is Way.BROKER:
                self._publishers[event.app].publish(event)
            else:
                with self._database.transaction() as connection:
                    self._publishers[event.app].publish_in_transaction(connection, event)
        except (PublishFailed, psycopg.Error, RegistryError, OSError):
            return

    def _look_after(self) -> None:
        """Publish again, with the same id, what has not arrived after a while."""
        for app in APPS:
            pending = [one for one in self.pending if one.publication.event.app == app]
            keys = [one.publication.event.id for one in pending]
            try:
                rows = self._stage.run(_TAKEN_IN, {"app": app, "keys": keys}) if keys else []
            except (psycopg.Error, RegistryError):
                return
            known = {row["key"] for row in rows}
            for one in pending:
                one.is_taken_in = one.publication.event.id in known
                if not one.is_taken_in and time.time() - one.tried_at > _AGAIN_SECONDS:
                    one.tried_at, one.times = time.time(), one.times + 1
                    self._hand_over(one.publication)

    def _change(self) -> None:
        for happening in self._world.happenings:
            while self._now() < happening.at:
                if self._done.is_set():
                    return
                time.sleep(_POLL_SECONDS)
            if self._done.is_set():
                return
            self._happen(happening)

    def _happen(self, happening: Happening) -> None:
        """Call the registry until it answers, as an app does, and note when it can have happened."""
        phone = self._world.phones[happening.phone]
        life = self.lives[phone.number]
        began = time.time()
        while not self._try(phone, happening):
            if self._done.wait(0.2):
                pass
        span = (began, time.time())
        current = life.owners[-1] if life.owners and life.owners[-1].ended is None else None
        is_gone = happening.deed is Deed.UNINSTALL
        if current is not None and (is_gone or current.user != happening.user):
            current.ended = span
            current = None
        if current is None and not is_gone:
            life.owners.append(Owner(user=happening.user, began=span))
        if happening.token not in life.tokens:
            life.tokens.append(happening.token)

    def _try(self, phone: Phone, happening: Happening) -> bool:
        channel = self._stage.channels[phone.app][phone.provider]

        def work(connection: Connection) -> None:
            if happening.deed is Deed.UNINSTALL:
                devices.uninstall(connection, channel.app_id, device_key=phone.key, channel_id=channel.id)
            else:
                devices.install(connection, self._install(phone, happening.user, happening.token))

        try:
            self._database.run(work)
        except (psycopg.Error, RegistryError):
            return False
        return True

    def _install(self, phone: Phone, user: str, token: str) -> Install:
        channel = self._stage.channels[phone.app][phone.provider]
        return Install(channel_id=channel.id, user_id=user, device_key=phone.key, token=token)


def users_of(one: Published, world: World) -> Sequence[str] | frozenset[str]:
    """Say who an event is for."""
    if one.publication.users is not None:
        return one.publication.users
    assert isinstance(one.publication.event, TopicMessage)
    return world.users[one.publication.event.app]
