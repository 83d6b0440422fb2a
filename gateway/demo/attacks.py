"""Attack the system while it works, three times, and let it mend itself: nothing here lends it a hand.

4. A worker process is killed in mid-broadcast.
5. The broker is emptied in mid-broadcast, if it is ours.
6. A provider refuses the credential that it gave, for a while.

Each attack is a wave of its own, with broadcasts and direct pushes under way as long as it lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.interruption import Interruption
from gateway.stack import Stack
from registry.channels import Provider

from .emptying import Emptier, Emptying
from .kill import Hunt, Kill
from .post import Post
from .pulse import Pulse
from .revocation import Revocation, Revoker
from .stage import Stage
from .traffic import Traffic
from .world import Wave

# Real providers take as long for an answer; at each moment something is on its way, to be lost.
_LATENCY_MS: Final = 60
_REVOKED: Final = Provider.APNS
_NEIGHBOUR: Final = Provider.FCM
# A broadcast is to take its largest channel some seconds, and all of them together not all of a small machine.
_BROADCAST_SECONDS: Final = 2.0
_SLOWEST, _FASTEST = 300, 10_000
# At such rates a chunk of the usual size would be half a second's traffic, and no rate a steady one.
SMALL_CHUNK: Final = 200
_ENOUGH: Final = 0.5
_BURST_USERS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """What came of the attacks. `None`: it found nothing to strike, or was left out for the reason in `left_out`."""

    kill: Kill | None
    emptying: Emptying | None
    revocation: Revocation | None
    left_out: str | None = None

    @property
    def faults(self) -> Iterator[str]:
        """Say what the attacks broke, or could not show."""
        if self.kill is None:
            yield "no worker process was caught with pushes on their way: none was killed"
        for attack in (self.kill, self.emptying, self.revocation):
            if attack is not None:
                yield from attack.faults


class Attacks:
    """All attacks, made once. `tell` is told what happens, in sentences."""

    def __init__(
        self,
        stack: Stack,
        stage: Stage,
        post: Post,
        pulse: Pulse,
        interruption: Interruption,
        *,
        tell: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._stage = stage
        self._post = post
        self._pulse = pulse
        self._interruption = interruption
        self._tell = tell

    def strike(self) -> Struck:
        """Attack three times. Raises `Interrupted`."""
        self._stage.slow_down(_LATENCY_MS)
        kill = self._kill()
        emptying = self._empty() if self._stack.has_own_broker else None
        revocation = self._revoke()
        self._stage.slow_down(0)
        left_out = None if self._stack.has_own_broker else _NOT_OURS
        return Struck(kill=kill, emptying=emptying, revocation=revocation, left_out=left_out)

    def _kill(self) -> Kill | None:
        self._tell("attack 1: a worker process is killed in the middle of a broadcast")
        began, traffic = time.time(), self._traffic(Wave.BROADCAST, self._untroubled())
        # JPush would recognise a repeated request: what a kill can repeat is seen at the others.
        prey = [way.id for provider, way in self._stage.ways.items() if provider is not Provider.JPUSH]
        hunt = Hunt(self._stage.database, self._stack.broadcaster.pid, prey, self._interruption)
        kill = hunt.kill_one(traffic)
        if kill is not None:
            self._tell(str(kill))
        self._post.await_end(Wave.BROADCAST, began)
        return kill

    def _empty(self) -> Emptying:
        self._tell("attack 2: the broker is emptied in the middle of a broadcast")
        began = time.time()
        emptier = Emptier(
            self._stage.database,
            self._stack.settings.require_broker_url(),
            self._post,
            Wave.EMPTIED,
            burst=self._burst,
        )
        emptying = emptier.empty(self._traffic(Wave.EMPTIED, []))
        self._tell(str(emptying))
        self._post.await_end(Wave.EMPTIED, began)
        return emptying

    def _burst(self) -> None:
        """Publish what is in the broker when that is emptied."""
        users = self._stage.world.users[:_BURST_USERS]
        self._post.publish_many(Wave.EMPTIED, self._post.writes("write-again"))
        self._post.publish_many(Wave.EMPTIED, self._post.to_several("burst", users, at_once=1))

    def _revoke(self) -> Revocation:
        began = time.time()
        traffic = self._traffic(Wave.REVOKED, self._stage.world.without(_REVOKED))
        revocation = Revoker(self._stage, self._pulse, _REVOKED, _NEIGHBOUR, self._tell).revoke(traffic)
        self._post.await_end(Wave.REVOKED, began)
        return revocation

    def _traffic(self, wave: Wave, probed: list[str]) -> Traffic:
        return Traffic(
            self._post,
            self._pulse,
            self._interruption,
            wave=wave,
            steady=_NEIGHBOUR,
            enough=max(1, round(_ENOUGH * self._stage.world.number_at(_NEIGHBOUR))),
            probed=probed,
        )

    def _untroubled(self) -> list[str]:
        return self._stage.world.untroubled_users()


def rate_for(phones: int) -> int:
    """Say how many pushes a second each channel gets, with so many phones at the largest."""
    return min(_FASTEST, max(_SLOWEST, round(phones / _BROADCAST_SECONDS)))


_NOT_OURS: Final = "the broker was named by the environment: it may be others' too, and is not emptied"
