"""How a JPush request is recognized when it is repeated: its frozen body, and the `cid` that belongs to it.

JPush pushes a `cid` once and answers a repetition with the first success, for a day
(https://docs.jiguang.cn/en/jpush/server/push/rest_api_v3_push_advanced). So a `cid` is for one body only.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from providers.dialect import json_bytes, json_object
from providers.engine import Response
from providers.outcome import CredentialsRejected, NotSent, Outcome, Rejected, SendError, Throttled

MANY, FEW = 100, 10  # up to 1,000 for paying customers, 10 for others
# A cid is good for a day. What is taken from the pool must still be good when its request is repeated.
LONGEST_KEPT = timedelta(hours=12)
FAILURE_IS_KEPT = timedelta(seconds=5)

CID = re.compile(r"[0-9A-Za-z_.:-]{1,255}")  # in fact the app key, "-" and a UUID

Ask = Callable[[int], Response]
Interpret = Callable[[Response], Outcome | SendError]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTag:
    """What a request is recognized by when its pushes come back: its `cid`, and what it must consist of."""

    cid: str
    digest: str
    time_to_live: int

    @classmethod
    def parse(cls, text: str) -> RequestTag | None:
        """Read what `str` wrote; anything else is no tag of ours."""
        if not (match := re.fullmatch(r"([^#]+)#([0-9a-f]+)-([0-9]{1,7})", text)):
            return None
        return cls(cid=match[1], digest=match[2], time_to_live=int(match[3]))

    def __str__(self) -> str:
        return f"{self.cid}#{self.digest}-{self.time_to_live}"


def frozen_body(push_object: bytes, tokens: Iterable[str]) -> bytes:
    """Return the request body without its cid: the same bytes for the same devices, in whatever order."""
    audience = json_bytes({"registration_id": sorted(set(tokens))})
    return b'{"audience":' + audience + b"," + push_object[1:]


def digest_of(frozen_body: bytes) -> str:
    """Return what tells one frozen body from all others."""
    return hashlib.sha256(frozen_body).hexdigest()[:32]


class CidPool:
    """Unused ids of one app in one process. Used by one thread.

    `ask` requests so many ids and may raise `NotSent`; `interpret` says what a refusal means.
    """

    def __init__(self, ask: Ask, interpret: Interpret, *, now: Callable[[], datetime]) -> None:
        self._ask = ask
        self._interpret = interpret
        self._now = now
        self._bulk = MANY
        self._unused: deque[str] = deque()
        self._fetched_at: datetime | None = None
        self._failure: Throttled | SendError | None = None
        self._ask_again_at: datetime | None = None

    def take(self) -> str | Throttled | SendError:
        """Return an id that nobody used, or what becomes of pushes that cannot get one.

        A failure is repeated for some seconds without asking again.
        """
        now = self._now()
        if self._fetched_at is None or not timedelta(0) <= now - self._fetched_at < LONGEST_KEPT:
            self._unused.clear()
        if not self._unused:
            if self._failure is not None and self._ask_again_at is not None and now < self._ask_again_at:
                return self._failure
            self._failure = self._fetch(now)
            if self._failure is not None:
                self._ask_again_at = now + self._rest(self._failure)
                return self._failure
        return self._unused.popleft()

    def _fetch(self, now: datetime) -> Throttled | SendError | None:
        """Fill the pool, or return why it stays empty."""
        try:
            response = self._ask(self._bulk)
        except NotSent as error:
            return error
        if response.status == 200:
            return self._fill(response, now)
        meaning = self._interpret(response)
        if isinstance(meaning, Rejected) and self._bulk > FEW:
            self._bulk = FEW
            return self._fetch(now)
        if isinstance(meaning, Throttled | CredentialsRejected):
            return meaning
        # Asking for an id is no push: whatever else went wrong, the pushes have certainly not been sent.
        return NotSent(f"no cid: {getattr(meaning, 'reason', response.status)}")

    def _fill(self, response: Response, now: datetime) -> NotSent | None:
        cids = json_object(response.body).get("cidlist")
        if not (isinstance(cids, list) and cids and all(map(_is_cid, cids))):
            return NotSent("no cid: http 200 without any")
        self._unused.extend(cids)
        self._fetched_at = now
        return None

    def _rest(self, failure: Throttled | SendError) -> timedelta:
        return failure.delay if isinstance(failure, Throttled) else FAILURE_IS_KEPT


def _is_cid(value: object) -> bool:
    return isinstance(value, str) and CID.fullmatch(value) is not None
