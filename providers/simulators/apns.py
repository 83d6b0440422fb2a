"""APNs: credentials, headers, payload, device tokens of two environments, and all the reasons to refuse.

Facts: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns .
In which order APNs checks is on no page: credentials, headers, body, device token is our choice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from .apns_keys import KeyRing
from .apns_request import APNS_ID_FORM, DEVICE_TOKEN_FORM, Options, check_options, check_payload
from .exchange import Connection, Decision, Effect, HeaderList, Headers, Request
from .rules import Rule
from .stage import TRANSPORT_ANSWERS, ControlError, Stage, follow, retry_after_header

_BAD_REQUEST = (
    "BadCollapseId", "BadDeviceToken", "BadExpirationDate", "BadMessageId", "BadPriority", "BadTopic",
    "DeviceTokenNotForTopic", "DuplicateHeaders", "IdleTimeout", "InvalidPushType", "MissingDeviceToken",
    "MissingTopic", "PayloadEmpty", "TopicDisallowed",
)  # fmt: skip
_FORBIDDEN = (
    "BadCertificate", "BadCertificateEnvironment", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken",
    "ExpiredProviderToken", "Forbidden", "InvalidProviderToken", "MissingProviderToken",
    "UnrelatedKeyIdInToken",
)  # fmt: skip
STATUSES: Mapping[str, int] = {
    **dict.fromkeys(_BAD_REQUEST, 400),
    **dict.fromkeys(_FORBIDDEN, 403),
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
# The words that rules share with other vendors.
_REASONS: Mapping[str, str] = {
    "unregistered": "Unregistered",
    "expired": "ExpiredToken",
    "bad_token": "BadDeviceToken",
    "mismatch": "DeviceTokenNotForTopic",
    "topic_mismatch": "DeviceTokenNotForTopic",
    "throttled": "TooManyRequests",
    "unavailable": "ServiceUnavailable",
    "internal": "InternalServerError",
    "payload": "PayloadTooLarge",
    "credentials": "InvalidProviderToken",
    "expired_credentials": "ExpiredProviderToken",
}
_PREFIX = "/3/device/"
_SHRUNK_STREAMS = 10
_MAX_REMEMBERED = 2000


class Apns:
    """The decisions of APNs for one team. Used on one loop only.

    Bodies and delivery headers repeat from push to push; each is checked once and its verdict remembered.
    """

    name = "apns"
    answers = frozenset({*TRANSPORT_ANSWERS, *_REASONS, *STATUSES})

    def __init__(self, stage: Stage, *, topics: list[str], shrink_after: int = 0) -> None:
        self.stage = stage
        self.topics = topics
        self.shrink_after = shrink_after
        self.keys = KeyRing(stage.state_dir, stage.clock)
        self._bodies: dict[tuple[bytes, str | None], tuple[str | None, str | None]] = {}
        self._options: dict[tuple[Options, bool], str | None] = {}

    def handle(self, request: Request) -> Decision:
        """Answer one push."""
        given = request.headers.get("apns-id")
        is_bad = given is not None and not APNS_ID_FORM.fullmatch(given)
        apns_id = str(uuid4()).upper() if given is None or is_bad else given
        decision = self._refuse("BadMessageId") if is_bad else self._decide(request, apns_id)
        if decision.effect is Effect.ANSWER:
            decision.headers = [("apns-id", apns_id), *decision.headers]
            if request.connection.is_sandbox:
                decision.headers.append(("apns-unique-id", str(uuid4())))
            if self.shrink_after and decision.status == 400:
                self._punish(request.connection, decision)
        return decision

    def ready_info(self) -> dict[str, Any]:
        """Return the key of the team, another that only the sandbox takes, and the topic."""
        return {
            "key_file": str(self.keys.key_file),
            "key_id": self.keys.key_id,
            "team_id": self.keys.team_id,
            "sandbox_key_file": str(self.keys.sandbox_key_file),
            "sandbox_key_id": self.keys.sandbox_key_id,
            "topic": self.topics[0],
        }

    def control(self, subject: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """`credentials`: expire the provider tokens seen so far, rotate the keys, change times."""
        if subject != "credentials":
            raise ControlError(f"apns knows nothing about {subject}")
        if values.get("expire"):
            self.keys.expire()
        if values.get("rotate"):
            self.keys.rotate()
        self.keys.life_seconds = float(values.get("token_life_seconds", self.keys.life_seconds))
        self.keys.update_seconds = float(values.get("token_update_seconds", self.keys.update_seconds))
        return {"key_id": self.keys.key_id, "key_file": str(self.keys.key_file)}

    def _decide(self, request: Request, apns_id: str) -> Decision:
        path, headers = request.path, request.headers
        if not path.startswith(_PREFIX):
            return self._refuse("BadPath")
        if request.method != "POST":
            return self._refuse("MethodNotAllowed")
        push_type = headers.get("apns-push-type")
        reason = self._check_credentials(request) or self._check_headers(
            headers, push_type, request.connection
        )
        if reason is not None:
            return self._refuse(reason)
        reason, notification = self._check_body(request.body, push_type)
        token = path[len(_PREFIX) :]
        reason = reason or self._check_token(token, request.connection)
        return self._refuse(reason) if reason is not None else self._deliver(token, notification, apns_id)

    def _deliver(self, token: str, notification: str | None, apns_id: str) -> Decision:
        rules = self.stage.rules
        rule = None if rules.is_empty else rules.match(token)
        if rule is None:
            return self._accept(token, notification, apns_id, is_answered=True)
        self.stage.tally[rule.answer] += 1
        return follow(
            rule,
            lambda is_answered: self._accept(token, notification, apns_id, is_answered=is_answered),
            self._refuse_by_rule,
        )

    def _accept(self, token: str, notification: str | None, apns_id: str, *, is_answered: bool) -> Decision:
        self.stage.tally["accepted"] += 1
        self.stage.receipts.add({
            "at": time.time(), "provider": "apns", "token": token, "notification": notification,
            "apns_id": apns_id, "answered": is_answered, "request_id": apns_id,
        })  # fmt: skip
        return Decision(200, [], b"", receipts=1)

    def _check_credentials(self, request: Request) -> str | None:
        connection = request.connection
        if not self.stage.are_credentials_valid:
            return "BadCertificate" if connection.certificate_topic else "InvalidProviderToken"
        authorization = request.headers.get("authorization")
        if authorization is not None:
            reason = self.keys.check(authorization, connection)
        else:
            reason = None if connection.certificate_topic else "MissingProviderToken"
        connection.is_authenticated |= reason is None
        return reason

    def _check_headers(self, headers: Headers, push_type: str | None, connection: Connection) -> str | None:
        pairs = headers.items()
        if len(pairs) != len(dict(pairs)) and _has_duplicates(pairs):
            return "DuplicateHeaders"
        get = headers.get
        options = Options(
            push_type,
            get("apns-priority"),
            get("apns-expiration"),
            get("apns-collapse-id"),
            get("apns-topic"),
        )
        key = (options, connection.certificate_topic is not None)
        if key not in self._options:
            _make_room(self._options)
            self._options[key] = check_options(options, self.topics, is_topic_optional=key[1])
        return self._options[key]

    def _check_body(self, body: bytes, push_type: str | None) -> tuple[str | None, str | None]:
        key = (body, push_type)
        known = self._bodies.get(key)
        if known is None:
            _make_room(self._bodies)
            known = self._bodies[key] = check_payload(body, push_type)
        return known

    def _check_token(self, token: str, connection: Connection) -> str | None:
        if not token:
            return "MissingDeviceToken"
        if not DEVICE_TOKEN_FORM.fullmatch(token):
            return "BadDeviceToken"
        known = self.stage.known
        if known is None:
            return None
        environment = known.get(token)
        if environment is None:
            return "BadDeviceToken"
        return "BadDeviceToken" if (environment == "sandbox") != connection.is_sandbox else None

    def _refuse_by_rule(self, rule: Rule) -> Decision:
        reason = _REASONS.get(rule.answer, rule.answer)
        decision = self._refusal(reason, rule.invalidated_at)
        decision.headers = retry_after_header(rule)
        return decision

    def _refuse(self, reason: str) -> Decision:
        self.stage.tally[reason] += 1
        return self._refusal(reason, None)

    def _refusal(self, reason: str, invalidated_at: int | None) -> Decision:
        content: dict[str, Any] = {"reason": reason}
        status = STATUSES[reason]
        if status == 410:
            now = int(self.stage.clock.now() * 1000)
            content["timestamp"] = now if invalidated_at is None else invalidated_at
        return Decision(status, _NO_HEADERS, orjson.dumps(content))

    def _punish(self, connection: Connection, decision: Decision) -> None:
        """Give a connection with many bad requests fewer streams, in the end none; 410 is not counted."""
        connection.bad_requests += 1
        if connection.bad_requests == self.shrink_after:
            decision.limit_streams = _SHRUNK_STREAMS
        if connection.bad_requests >= 2 * self.shrink_after:
            decision.is_last = True


_NO_HEADERS: HeaderList = []


def _has_duplicates(pairs: HeaderList) -> bool:
    ours = [name for name, _ in pairs if name.startswith("apns-")]
    return len(ours) != len(set(ours))


def _make_room(memory: dict[Any, Any]) -> None:
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
