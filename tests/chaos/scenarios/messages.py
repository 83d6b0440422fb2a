"""Messages that come twice, a hundred times, or should never have come."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any, ClassVar, Final

import redis

from events.names import QUEUE_FEEDBACK, QUEUE_INTAKE, QUEUE_PLAN, Lane, deliver_queue
from events.publisher import Publisher
from tests.chaos.findings import Findings
from tests.chaos.scenario import Arena, Move, Scenario, every
from tests.chaos.worker import HANG, KILL
from tests.chaos.world import APPS, Way, direct

_QUEUES: Final = (QUEUE_INTAKE, QUEUE_PLAN, QUEUE_FEEDBACK, *(deliver_queue(lane) for lane in Lane))
_AT_ONCE: Final = 100
_THREADS: Final = 10
_GARBAGE: Final = (b"", b"{", b"\xff\x00", b"[]", b'{"body": 1}', json.dumps({"headers": {}}).encode())


class Repeater:
    """Copies of messages that were seen: each is pushed again once for each copy, and no copy is copied."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def repeat(self, arena: Arena, *, copies: int, late: float) -> None:
        """Push what waits and what is being worked on again, at once and, a part of it, a while later."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(arena.stage.valkey.url) as client:
            fresh = [(queue, body) for queue, body in _messages(client) if self._is_fresh(body)]
            for queue, body in fresh:
                client.rpush(queue, *[body] * copies)
            arena.fault("message repeated", copies * len(fresh))
        if fresh:
            timer = threading.Timer(late, _push, [arena, fresh])
            timer.daemon = True
            timer.start()

    def _is_fresh(self, body: bytes) -> bool:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            name = str(json.loads(body)["headers"]["id"])
            if name not in self._seen:
                self._seen.add(name)
                return True
        return False


def _push(arena: Arena, messages: list[tuple[str, bytes]]) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(arena.stage.valkey.url) as client:
        for queue, body in messages:
            client.lpush(queue, body)
    arena.fault("message repeated late", len(messages))


def _messages(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Yield the messages that wait in the queues, and those that are being worked on."""
    for queue in _QUEUES:
        for body in client.lrange(queue, 0, -1):
            yield queue, body if isinstance(body, bytes) else body.encode()
    for entry in client.hvals("unacked"):
        message, _, queue = json.loads(entry)
        yield str(queue), json.dumps(message).encode()


class RepeatedMessages(Scenario):
    """Every message that can be caught is delivered two to five times, at once and late."""

    name = "repeated_messages"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw how often, and how late."""
        repeater = Repeater()
        return [
            Move(
                at,
                "messages are repeated",
                partial(repeater.repeat, copies=chance.randint(1, 3), late=chance.uniform(1, 8)),
            )
            for at in every(chance, seconds, mean=0.3)
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Some must have been caught."""
        if not findings.faults.get("message repeated"):
            yield "no message was caught"


class SameEvent(Scenario):
    """One event is published a hundred times at once, over the broker and in transactions."""

    name = "same_event"
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw to whom, and when."""
        return [
            Move(
                at,
                "an event is published a hundred times",
                partial(_flood, number=number, place=chance.random()),
            )
            for number, at in enumerate(every(chance, seconds, mean=4))
        ]


def _flood(arena: Arena, *, number: int, place: float) -> None:
    app = tuple(APPS)[number % len(APPS)]
    users = arena.world.users[app]
    named = [users[(int(place * len(users)) + step) % len(users)] for step in range(min(20, len(users)))]
    publication = direct(0, app, f"flood-{number}", named, Way.BROKER)
    arena.load.publish(publication)
    urls = arena.stage.settings
    with Publisher(urls.require_broker_url(), app=app) as publisher, ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(publisher.publish, publication.event) for _ in range(_AT_ONCE)]:
            with contextlib.suppress(Exception):
                done.result()
    arena.fault("event published again", _AT_ONCE)


class Garbage(Scenario):
    """Messages come that nobody can decode, and tasks that nobody knows."""

    name = "garbage"
    checks_in_company = True
    may_repeat = False

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw what, and to which queue."""
        return [
            Move(
                at,
                "garbage",
                partial(
                    _litter, queue=chance.choice(_QUEUES), body=chance.choice((*_GARBAGE, _unknown_task()))
                ),
            )
            for at in every(chance, seconds, mean=0.4)
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """What can be stored is stored as dead letters."""
        (row,) = arena.stage.run("SELECT count(*) AS number FROM pushfan.dead_letter")
        if not row["number"]:
            yield "no dead letter tells of it"


def _unknown_task() -> bytes:
    return _message("pushfan.nobody_knows", {})


def _message(task: str, kwargs: Mapping[str, Any]) -> bytes:
    body = base64.b64encode(json.dumps([[], kwargs, {}]).encode()).decode()
    properties = {
        "delivery_mode": 2, "delivery_tag": "garbage", "priority": 0, "body_encoding": "base64",
        "correlation_id": "garbage", "reply_to": "garbage",
        "delivery_info": {"exchange": "", "routing_key": "garbage"},
    }  # fmt: skip
    return json.dumps({
        "body": body, "content-encoding": "utf-8", "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": "garbage", "root_id": "garbage"}, "properties": properties,
    }).encode()  # fmt: skip


def _litter(arena: Arena, *, queue: str, body: bytes) -> None:
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(arena.stage.valkey.url) as client:
        client.lpush(queue, body)
    arena.fault("garbage")


class PoisonPayload(Scenario):
    """A push kills every process that renders it: it ends as a dead letter, and its neighbours go on."""

    name = "poison_payload"
    checks_in_company = True
    title: ClassVar[str] = KILL
    number: ClassVar[int] = 2

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw to whom, and when."""
        return [
            Move(
                chance.uniform(0.05, 0.4) * seconds,
                "poison",
                partial(_poison, name=f"{self.name}-{number}", title=self.title, place=chance.random()),
            )
            for number in range(self.number)
        ]

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """It must have ended dead, for a reason that an operator can read."""
        (row,) = arena.stage.run(
            "SELECT count(DISTINCT notification_id) AS number FROM pushfan.dead_letter WHERE kind = 'poison'"
        )
        if row["number"] < self.number:
            yield f"{row['number']} of {self.number} poisonous pushes ended as dead letters"


def _poison(arena: Arena, *, name: str, title: str, place: float) -> None:
    app = next(iter(APPS))
    users = [
        phone.user
        for phone in arena.world.phones
        if phone.app == app and not phone.is_dead and phone.is_there
    ]
    arena.load.publish(direct(0, app, name, [users[int(place * len(users))]], title=title))
    arena.fault("poison")


class PoisonHang(PoisonPayload):
    """A push hangs every process that renders it, beyond the hard limit."""

    name = "poison_hang"
    combines = False
    title = HANG
    number = 1
    settings: ClassVar[Mapping[str, object]] = {
        "provider_timeout_seconds": 2,
        "task_soft_limit_seconds": 4,
        "task_hard_limit_seconds": 5,
    }
