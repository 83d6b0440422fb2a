"""Play the demo: waves of events through the real stack, with what the seed says happening to the phones.

0. hello: a few direct pushes, for which the workers connect to the providers.
1. news: a topic message to all, bucket writes and single direct pushes at once; apps replace tokens meanwhile.
2. handover: direct pushes are planned while the channels are stopped; the phones change hands; the channels go on.
3. direct: direct pushes to those whose phones are stubborn, new or replaced.
4. broadcast: the topic again, with direct pushes in between, and a worker killed if that was asked for.

A wave is over when all its notifications have finished, so that what the next one meets is certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from events import BucketWrite, Change, DirectPush, Message, TopicMessage
from gateway.interruption import Interruption
from gateway.stack import Stack
from registry.channels import Provider
from registry.installs import FeedbackKind

from .kill import Hunt, Kill
from .post import Post
from .stage import Stage
from .world import TOPIC, Fate, Wave

_FEWEST_PROBES, _MOST_PROBES, _USERS_OF_A_PROBE = 10, 40, 20
_PROBE_REST_SECONDS: Final = 0.05
_USERS_AT_ONCE: Final = 20
_KILLS_TRIED: Final = 5
# While a kill is prepared, answers take long enough for some to be on their way.
_KILL_LATENCY_MS: Final = 30
_FEEDBACK_SECONDS: Final = 45.0
_FEEDBACK_POLL_SECONDS: Final = 0.2
_NUDGE_SECONDS: Final = 5.0
_NUDGED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What it took: how long deliveries were open, what the workers spent, who was to be killed and was."""

    seconds: float
    worker_cpu_seconds: float
    kills_worker: bool
    kill: Kill | None


class Play:
    """One demo, played once. `tell` is told what happens, in sentences."""

    def __init__(
        self, stack: Stack, stage: Stage, post: Post, interruption: Interruption, tell: Callable[[str], None]
    ) -> None:
        self._stack = stack
        self._stage = stage
        self._post = post
        self._interruption = interruption
        self._tell = tell
        self._world = stage.world
        self._untroubled = self._world.untroubled_users() or list(self._world.users)

    def play(self, *, kills_worker: bool) -> Played:
        """Play all waves. Raises `Interrupted`, and whatever keeps events from being published."""
        started = self._stack.worker_cpu_seconds()
        self._hello()
        self._news()
        if self._world.having(Fate.MOVED):
            self._handover()
        self._direct()
        kill = self._broadcast(kills_worker=kills_worker)
        spent = self._stack.worker_cpu_seconds() - started
        self._await_retired()
        return Played(
            seconds=self._post.open_seconds,
            worker_cpu_seconds=spent,
            kills_worker=kills_worker,
            kill=kill,
        )

    def _hello(self) -> None:
        began = time.time()
        users = self._world.greeted_users()
        self._post.publish_many(Wave.HELLO, self._to_several("hello", users, at_once=1))
        self._post.await_end(Wave.HELLO, began)

    def _news(self) -> None:
        self._tell("a topic message to all, bucket writes and direct pushes; apps replace tokens meanwhile")
        self._stage.bury_the_dead()
        self._stage.let_hesitate()
        began = time.time()
        self._post.publish_in_transaction(Wave.NEWS, self._to_all("news"), self._world.users)
        self._post.publish_many(
            Wave.NEWS, [(self._write(bucket), users) for bucket, users in self._world.buckets.items()]
        )
        self._stage.replace_tokens()
        self._probe(Wave.NEWS)
        self._post.await_end(Wave.NEWS, began)
        self._stage.forget_old_tokens()

    def _handover(self) -> None:
        self._tell("direct pushes wait at stopped channels while phones change hands")
        self._stage.stop_channels()
        owners = sorted({phone.user for phone in self._world.having(Fate.MOVED)})
        self._post.publish_many(Wave.HANDOVER, self._to_several("handover", owners))
        self._post.await_planned(Wave.HANDOVER)
        self._stage.hand_over()
        began = time.time()
        self._stage.resume_channels()
        self._post.await_end(Wave.HANDOVER, began)

    def _direct(self) -> None:
        self._tell("direct pushes to phones that fail at first, and to those with new tokens and new owners")
        self._stage.let_be_stubborn()
        stubborn = sorted({phone.user for phone in self._world.having(Fate.STUBBORN)})
        changed = self._world.having(Fate.MOVED, Fate.REPLACED)
        others = {user for phone in changed for user in (phone.user, phone.heir) if user is not None}
        began = time.time()
        events = self._to_several("direct-one", stubborn, at_once=1)
        events += self._to_several("direct", sorted(others.difference(stubborn)))
        self._post.publish_many(Wave.DIRECT, events)
        self._post.await_end(Wave.DIRECT, began)

    def _broadcast(self, *, kills_worker: bool) -> Kill | None:
        self._tell("a broadcast to everybody, with direct pushes in between")
        self._stage.slow_down(_KILL_LATENCY_MS if kills_worker else 0)
        began = time.time()
        self._post.publish_many(Wave.BROADCAST, [(self._to_all("broadcast"), self._world.users)])
        kill = self._kill_worker() if kills_worker else None
        self._probe(Wave.BROADCAST)
        self._post.await_end(Wave.BROADCAST, began)
        self._stage.slow_down(0)
        return kill

    def _kill_worker(self) -> Kill | None:
        """Kill one that holds something; a broadcast that is over too soon is followed by another."""
        hunt = Hunt(
            self._stage.database,
            self._stack.broadcaster.pid,
            self._interruption,
            then=lambda: self._stage.slow_down(0),
        )
        for number in range(1, _KILLS_TRIED + 1):
            kill = hunt.kill_one(lambda: self._post.has_ended(Wave.BROADCAST))
            if kill is not None:
                self._tell(str(kill))
                return kill
            again = self._to_all(f"broadcast-again-{number}")
            self._post.publish_many(Wave.BROADCAST, [(again, self._world.users)])
        return None

    def _probe(self, wave: Wave) -> None:
        number = min(_MOST_PROBES, max(_FEWEST_PROBES, len(self._world.users) // _USERS_OF_A_PROBE))
        users = islice(cycle(self._untroubled), number)
        self._post.probe(wave, list(users), rest_seconds=_PROBE_REST_SECONDS)

    def _await_retired(self) -> None:
        """Wait for what providers say later. A doubted token is given up after further acceptances of others."""
        began = nudged_at = time.monotonic()
        while time.monotonic() - began < _FEEDBACK_SECONDS:
            retired = sum(one.kind is FeedbackKind.RETIRED for one in self._stage.feedback())
            if retired >= self._world.planned.retired:
                return
            if time.monotonic() - nudged_at > _NUDGE_SECONDS:
                self._nudge()
                nudged_at = time.monotonic()
            self._interruption.sleep(_FEEDBACK_POLL_SECONDS)

    def _nudge(self) -> None:
        healthy = self._world.having(Fate.HEALTHY)
        users = sorted({phone.user for phone in healthy if phone.provider is Provider.JPUSH})[:_NUDGED]
        number, began = len(self._post.publications), time.time()
        self._post.publish_many(Wave.BROADCAST, self._to_several(f"more-{number}", users))
        self._post.await_end(Wave.BROADCAST, began)

    def _to_several(
        self, name: str, users: Sequence[str], *, at_once: int = _USERS_AT_ONCE
    ) -> list[tuple[DirectPush, Sequence[str]]]:
        """Make direct pushes to some users each."""
        groups = [users[start : start + at_once] for start in range(0, len(users), at_once)]
        return [(self._post.push(f"{name}-{number}", *group), group) for number, group in enumerate(groups)]

    def _to_all(self, name: str) -> TopicMessage:
        message = Message(title="News", body="Something for everybody", data={"edition": name})
        return TopicMessage(app=self._stage.app, id=name, topic=TOPIC, message=message)

    def _write(self, bucket: str) -> BucketWrite:
        return BucketWrite(
            app=self._stage.app, id=f"write-{bucket}", bucket=bucket, object="o1", change=Change.UPDATED
        )
