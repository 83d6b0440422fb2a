"""What one vendor's module must offer so that the one client can send through it.

A provider builds requests and classifies responses; it owns no connection and never waits, except in the
rare calls that send nothing to a device (`authorize` when a credential must be exchanged, `check`,
`poll_receipts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from providers.engine import Response
from providers.outcome import Answer, Outcome, Push, SendError


class Remedy(StrEnum):
    """What the client does once, before it sends the very same request again."""

    REAUTHORIZE = "reauthorize"  # the credential has expired: `Provider.reauthorize()`, then resend
    RECONNECT = "reconnect"  # the connection is no good any more: open a new one, then resend


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer is about our credential or connection, and certainly not an acceptance: try the remedy once.

    `otherwise` is what each push of the request gets when the remedy was tried and did not help.
    """

    remedy: Remedy
    otherwise: Outcome | SendError


@dataclass(slots=True, kw_only=True)
class Batch:
    """One request, complete except for its authorization, and the pushes it carries. Not frozen, like `Push`.

    `headers` are complete "name: value" lines; giving the same tuple object for many batches is cheaper.
    `request_tag` identifies the request to the vendor (JPush `cid`): it is stored before the first try. `is_repeat`:
    it is sent again under the tag of then.
    """

    pushes: tuple[Push, ...]
    url: str
    headers: tuple[str, ...]
    body: bytes = field(repr=False)
    timeout: timedelta
    request_tag: str | None = None
    is_repeat: bool = False
    is_resend_allowed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Requests to send, and answers for the pushes that were refused here without asking the vendor."""

    batches: list[Batch]
    answers: list[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Something in the request is at fault and the answer does not say which push: send these parts instead.

    Each push of the request is in one of the parts or has its answer here. The pushes of a part are copies
    that carry its `request_tag`, because nobody could store it before.
    """

    batches: list[Batch]
    answers: list[Answer]


class Provider(Protocol):
    """Speaks one vendor's dialect for one channel. Used by one thread of one process."""

    @property
    def name(self) -> str:
        """`fcm`, `apns` or `jpush`."""

    @property
    def batch_limit(self) -> int:
        """How many pushes one request may carry."""

    def prepare(self, pushes: Sequence[Push]) -> Prepared:
        """Render, size and bundle pushes. Each push ends in exactly one batch or one answer."""

    def authorize(self) -> tuple[str, ...]:
        """Return the authorization header lines, the same object until they change; empty for none.

        May exchange a credential over the network, within a few seconds. Raises `CredentialsRejected`
        or `NotSent`, and then repeats that answer for some seconds without asking again.
        """

    def reauthorize(self) -> None:
        """Forget the present authorization: the vendor called it expired."""

    def classify(self, batch: Batch, response: Response) -> list[Answer] | Verdict | Split:
        """Say what the response means for each push of the batch."""

    def check(self) -> None:
        """Ask whether the credentials work, sending nothing to a device.

        Raises `CredentialsRejected` or `NotSent` with a reason an operator can act on.
        """


@runtime_checkable
class ReceiptSource(Protocol):
    """A provider whose vendor can be asked later what became of an accepted push (JPush)."""

    def poll_receipts(
        self, message_id: str, tokens: Sequence[str], sent_at: datetime
    ) -> Mapping[str, Outcome | None]:
        """Return the outcome for each token; `None` for those the vendor does not know about yet."""
