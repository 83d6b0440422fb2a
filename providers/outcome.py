"""What a vendor's answer means, and what it means to have no answer.

A *value* when the vendor answered about this notification; an *exception* when there is no answer or the
answer is about us:

    Outcome = Accepted | Unregistered | Rejected | Throttled | Unavailable

    SendError
    ├── NotSent              certain: the request never reached the vendor
    ├── AnswerUnknown        the request may have been accepted
    └── CredentialsRejected  the vendor refuses our credentials, topic or project

Exceptions travel inside `Answer.outcome`, because one poll carries the answers of many pushes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from events import Event
from providers.reach import Reach


class SendError(Exception):
    """There is no answer about this notification."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSent(SendError):
    """The provider could not be reached, and certainly has not seen the push: it is sent again later."""


class AnswerUnknown(SendError):
    """The push went out and no answer came back: the provider may have accepted it."""


class CredentialsRejected(SendError):
    """The provider refuses the channel's credentials, topic or project: correct them, and the channel goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The vendor took the push. `provisional`: its status API must still be asked about each token (JPush)."""

    message_id: str | None = None
    provisional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregistered:
    """The token is dead. `invalidated_at` is the vendor's time, `None` when it names none (then: load time)."""

    reason: str
    invalidated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The push is refused for good. `suspects_token`: the vendor doubts the token without saying it is dead.

    `needs_proof`: the message may be at fault as well. Then nothing is held against the token unless the very same
    words are accepted for another device.
    """

    reason: str
    suspects_token: bool = False
    needs_proof: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """Too fast: later, at no cost of an attempt. `delay` is a floor.

    `is_vendor_delay` tells a delay that this very answer named (`Retry-After`) from a documented default.
    """

    reason: str
    delay: timedelta
    is_vendor_delay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """The vendor cannot serve the push now. `delay` is the floor of the backoff, as documented or answered.

    `is_unsure`: it answers so too when it gave up on a push that it has sent all the same.
    """

    reason: str
    delay: timedelta
    is_vendor_delay: bool = False
    is_unsure: bool = False


Outcome = Accepted | Unregistered | Rejected | Throttled | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a notification says: shared by all its pushes, so that rendering is done once for many."""

    notification_id: int
    event: Event
    expires_at: datetime


@dataclass(slots=True, kw_only=True)
class Push:
    """One delivery about to be sent. Not frozen: one is made for each push, and freezing costs time.

    `position` is the caller's own index and comes back in the answer.

    `delivery_id` is a lowercase UUID that is the same at every attempt of this delivery (`apns-id`).
    `request_tag` is what `Batch.request_tag` was at an earlier, unanswered try of the same request (JPush `cid`).
    """

    position: int
    token: str = field(repr=False)
    content: Content
    delivery_id: str
    is_installation_id: bool = False
    locale: str | None = None
    request_tag: str | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """What became of one push. Not frozen, like `Push`."""

    push: Push
    outcome: Outcome | SendError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConfig:
    """One app's way to one provider, with its secrets resolved.

    `settings` are the provider's own options (APNs: `key_id`, `team_id`, `apns_topic`; FCM: none beside the
    service account; JPush: none). `secrets` are by role: APNs `key` (p8 PEM) or `certificate` (PEM with its
    key); FCM `service_account` (JSON); JPush `app_key` and `master_secret`.
    `endpoint` and `report_endpoint` replace the vendor's address, `ca_file` its certificate authorities. `reach` says
    which addresses may then be connected to, `token_reach` to which a token endpoint may lead that a service account
    names and that is not Google's; `None`: any.
    """

    provider: str
    environment: str = "production"
    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    endpoint: str | None = None
    report_endpoint: str | None = None
    ca_file: str | None = None
    reach: Reach | None = None
    token_reach: Reach | None = None
    timeout: timedelta = timedelta(seconds=15)
    max_streams: int = 200
    max_connections: int = 2
