"""Play the demo: waves of events through the real stack, with what the seed says happening to the phones.

0. hello: a few direct pushes, for which the workers connect to the providers.
1. news: a topic message to all, bucket writes and single direct pushes at once; apps replace tokens meanwhile.
2. handover: direct pushes are planned while the channels are stopped; the phones change hands; the channels go on.
3. direct: direct pushes to those whose phones are stubborn, new or replaced.
4. broadcast: the topic again, with direct pushes in between. The attacks, if there are any, each bring their own.

A wave is over when all its notifications have finished, so that what the next one meets is certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from gateway.interruption import Interruption
from gateway.stack import Stack
from registry.channels import Provider
from registry.installs import FeedbackKind

from .attacks import Attacks, Struck
from .post import Post
from .stage import Stage
from .world import Fate, Wave

# Each process connects to each provider when it first has a push for it.
_HELLOS: Final = 10
_FEWEST_PROBES, _MOST_PROBES, _USERS_OF_A_PROBE = 10, 40, 20
_PROBE_REST_SECONDS: Final = 0.05
_FEEDBACK_SECONDS: Final = 45.0
_FEEDBACK_POLL_SECONDS: Final = 0.2
_NUDGE_SECONDS: Final = 5.0
_NUDGED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How long deliveries were open, what the workers spent, and what the attacks did, if there were any."""

    seconds: float
    worker_cpu_seconds: float
    struck: Struck | None


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

    def play(self, attacks: Attacks | None) -> Played:
        """Play all waves. Raises `Interrupted`, and whatever keeps events from being published."""
        started = self._stack.worker_cpu_seconds()
        self._hello()
        self._news()
        if self._world.having(Fate.MOVED):
            self._handover()
        self._direct()
        if attacks is None:
            self._broadcast()
        struck = attacks.strike() if attacks is not None else None
        spent = self._stack.worker_cpu_seconds() - started
        self._await_retired()
        return Played(seconds=self._post.open_seconds, worker_cpu_seconds=spent, struck=struck)

    def _hello(self) -> None:
        began = time.time()
        users = self._world.greeted_users()
        for number in range(_HELLOS):
            self._post.publish_many(Wave.HELLO, self._post.to_several(f"hello-{number}", users, at_once=1))
        self._post.await_end(Wave.HELLO, began)

    def _news(self) -> None:
        self._tell("a topic message to all, bucket writes and direct pushes; apps replace tokens meanwhile")
        self._stage.bury_the_dead()
        self._stage.let_hesitate()
        began = time.time()
        self._post.publish_in_transaction(Wave.NEWS, self._post.to_all("news"))
        self._post.publish_many(Wave.NEWS, self._post.writes("write"))
        self._stage.replace_tokens()
        self._probe(Wave.NEWS)
        self._post.await_end(Wave.NEWS, began)
        self._stage.forget_old_tokens()

    def _handover(self) -> None:
        self._tell("direct pushes wait at stopped channels while phones change hands")
        self._stage.stop_channels()
        owners = sorted({phone.user for phone in self._world.having(Fate.MOVED)})
        self._post.publish_many(Wave.HANDOVER, self._post.to_several("handover", owners))
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
        events = self._post.to_several("direct-one", stubborn, at_once=1)
        events += self._post.to_several("direct", sorted(others.difference(stubborn)))
        self._post.publish_many(Wave.DIRECT, events)
        self._post.await_end(Wave.DIRECT, began)

    def _broadcast(self) -> None:
        self._tell("a broadcast to everybody, with direct pushes in between")
        began = time.time()
        self._post.publish_many(Wave.BROADCAST, [self._post.to_all("broadcast")])
        self._probe(Wave.BROADCAST)
        self._post.await_end(Wave.BROADCAST, began)

    def _probe(self, wave: Wave) -> None:
        number = min(_MOST_PROBES, max(_FEWEST_PROBES, len(self._world.users) // _USERS_OF_A_PROBE))
        for user in islice(cycle(self._untroubled), number):
            self._post.probe(wave, user)
            self._interruption.sleep(_PROBE_REST_SECONDS)

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
        self._post.publish_many(Wave.REMINDER, self._post.to_several(f"more-{number}", users))
        self._post.await_end(Wave.REMINDER, began)
