"""FCM HTTP v1: the OAuth token endpoint, `messages:send`, its checks, its quota and its error bodies.

Facts: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send ,
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode , captured bodies:
https://github.com/bloomberg/pushiko/blob/main/docs/fcm_responses.md .
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count
from typing import Any

import orjson

from .exchange import Decision, HeaderList, Request
from .fcm_message import FID_FORM, TOKEN_FORM, Violation, canonical, check_message, check_target
from .fcm_oauth import TokenOffice
from .quota import TokenBucket
from .rules import Rule
from .stage import TRANSPORT_ANSWERS, ControlError, Stage, follow, notification_of, retry_after_header

PROJECT_ID = "pushfan-simulated"
PROJECT_NUMBER = "481516234200"

_JSON: HeaderList = [("content-type", "application/json; charset=UTF-8")]
_HTML: HeaderList = [("content-type", "text/html; charset=UTF-8")]
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_MAX_KNOWN_SHELLS = 2000

# Rule answer -> HTTP status, google.rpc status, FCM error code (or none), message.
_REFUSALS: Mapping[str, tuple[int, str, str | None, str]] = {
    "unregistered": (404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
    "mismatch": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
    "unavailable": (503, "UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable."),
    "internal": (500, "INTERNAL", "INTERNAL", "Internal error encountered."),
    "third_party_auth": (
        401,
        "UNAUTHENTICATED",
        "THIRD_PARTY_AUTH_ERROR",
        "Auth error from APNS or Web Push",
    ),
    "apns_auth_error": (401, "UNAUTHENTICATED", "APNS_AUTH_ERROR", "Auth error from APNS or Web Push"),
    "permission_denied": (403, "PERMISSION_DENIED", None, "Firebase Cloud Messaging API is disabled."),
    "not_found": (404, "NOT_FOUND", None, "Requested entity was not found."),
    "unspecified": (500, "UNKNOWN", "UNSPECIFIED_ERROR", "No more information is available."),
    # A bad token without the field violation that `bad_token` has: told by the text alone, and not told.
    "bad_token_message": (
        400,
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
    ),
    "bad_argument": (400, "INVALID_ARGUMENT", None, "Request contains an invalid argument."),
}
# Other words for the same answers: those that rules share with other vendors, and FCM's own codes.
_ALIASES: Mapping[str, str] = {
    "topic_mismatch": "mismatch", "UNREGISTERED": "unregistered", "SENDER_ID_MISMATCH": "mismatch",
    "UNAVAILABLE": "unavailable", "INTERNAL": "internal", "THIRD_PARTY_AUTH_ERROR": "third_party_auth",
    "APNS_AUTH_ERROR": "apns_auth_error", "QUOTA_EXCEEDED": "throttled", "UNSPECIFIED_ERROR": "unspecified",
    "INVALID_ARGUMENT": "payload",
}  # fmt: skip
_SPECIAL = {"bad_token", "payload", "throttled", "bad_gateway_html", "credentials"}
_UNAUTHENTICATED = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
    "valid authentication credential. "
    "See https://developers.google.com/identity/sign-in/web/devconsole-project."
)
_NOT_FOUND = b"<!DOCTYPE html>\n<html lang=en>\n  <title>Error 404 (Not Found)!!1</title>\n"
_BAD_GATEWAY = b"""<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error 502 (Server Error)!!1</title>
  <p><b>502.</b> <ins>That's an error.</ins>
  <p>The server encountered a temporary error and could not complete your request.
  <p>Please try again in 30 seconds.
"""


class Fcm:
    """The decisions of FCM for one project. Used on one loop only."""

    name = "fcm"
    answers = frozenset({*TRANSPORT_ANSWERS, *_REFUSALS, *_SPECIAL, *_ALIASES})

    def __init__(
        self, stage: Stage, office: TokenOffice, *, quota: TokenBucket, device_per_minute: int = 0
    ) -> None:
        self.stage = stage
        self.office = office
        self.quota = quota
        self.device_per_minute = device_per_minute
        self._paths = {f"/v1/projects/{project}/messages:send" for project in (PROJECT_ID, PROJECT_NUMBER)}
        self._numbers = count(time.time_ns() // 1000)
        self._shells: dict[bytes, str | None] = {}
        self._device_windows: dict[str, tuple[int, int]] = {}

    def handle(self, request: Request) -> Decision:
        """Answer the token endpoint or a send."""
        if request.path in self._paths and request.method == "POST":
            return self._send(request)
        if request.path == self.office.path:
            is_valid = self.stage.are_credentials_valid
            return self._count("oauth", self.office.exchange(request, is_account_valid=is_valid))
        if request.path.startswith("/v1/projects/") and request.path.endswith("/messages:send"):
            return self._refuse_project(request)
        return self._count("not_found", Decision(404, _HTML, _NOT_FOUND))

    def ready_info(self) -> dict[str, Any]:
        """Return the service account and the project."""
        return {"service_account_file": str(self.office.service_account_file), "project_id": PROJECT_ID}

    def control(self, subject: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """`quota` sets the bucket; `credentials` revokes, expires or rotates."""
        if subject == "quota":
            self.quota.configure(values)
            self.device_per_minute = int(values.get("device_per_minute", self.device_per_minute))
            return {"per_minute": self.quota.per_minute, "device_per_minute": self.device_per_minute}
        if subject == "credentials":
            if values.get("expire"):
                self.office.expire_access_tokens()
            if values.get("rotate"):
                self.office.rotate()
            return {}
        raise ControlError(f"fcm knows nothing about {subject}")

    def _send(self, request: Request) -> Decision:
        refusal = self._check_authorization(request)
        if refusal is not None:
            return refusal
        if not self.quota.take():
            return self._throttle(self.quota.retry_after, f"project:{PROJECT_ID}")
        body = request.body
        try:
            document = orjson.loads(body)
            message = document["message"]
            token = message.get("token") or message["fid"]
            shell = body.replace(token.encode(), b"", 1)
            notification = self._shells[shell]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return self._send_unknown_shape(body)
        form = TOKEN_FORM if "token" in message else FID_FORM
        if form.fullmatch(token) is None:
            return self._send_unknown_shape(body)
        return self._deliver(token, notification, is_dry=False)

    def _send_unknown_shape(self, body: bytes) -> Decision:
        """Check a body in full, and remember all of it but the token: other tokens get the same message."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            text = "Invalid JSON payload received. Unexpected token."
            return self._invalid([Violation("", text, is_fcm=False)])
        values, violations = canonical(document)
        if violations:
            return self._invalid(violations)
        message = values.get("message", {})
        target = check_target(message)
        violations = [target] if target is not None else check_message(message)
        if violations:
            return self._invalid(violations)
        token = message.get("token") or message.get("fid")
        notification = notification_of(message.get("data", {}).get("pushfan"))
        is_dry = values.get("validate_only", False)
        if token is None:
            return self._accept_fan_out(message, notification, is_dry=is_dry)
        if not is_dry:
            self._remember(body.replace(token.encode(), b"", 1), notification)
        return self._deliver(token, notification, is_dry=is_dry)

    def _remember(self, shell: bytes, notification: str | None) -> None:
        if len(self._shells) >= _MAX_KNOWN_SHELLS:
            self._shells.clear()
        self._shells[shell] = notification

    def _deliver(self, token: str, notification: str | None, *, is_dry: bool) -> Decision:
        stage = self.stage
        if self.device_per_minute and self._is_device_flooded(token):
            return self._throttle(None, f"device:{token[:8]}")
        if stage.known is not None and token not in stage.known:
            return self._refuse_as("unregistered")
        rule = None if stage.rules.is_empty else stage.rules.match(token)
        if rule is None:
            return self._accept(token, notification, is_answered=True, is_dry=is_dry)
        stage.tally[rule.answer] += 1
        return follow(
            rule,
            lambda is_answered: self._accept(token, notification, is_answered=is_answered, is_dry=is_dry),
            self._refuse_by_rule,
        )

    def _accept(self, token: str, notification: str | None, *, is_answered: bool, is_dry: bool) -> Decision:
        if is_dry:
            self.stage.tally["validated"] += 1
            return _name(f"projects/{PROJECT_ID}/messages/fake_message_id")
        message_id = f"projects/{PROJECT_ID}/messages/0:{next(self._numbers)}"
        self.stage.tally["accepted"] += 1
        self.stage.receipts.add({
            "at": time.time(), "provider": "fcm", "token": token, "notification": notification,
            "message_id": message_id, "answered": is_answered, "request_id": None,
        })  # fmt: skip
        decision = _name(message_id)
        decision.receipts = 1
        return decision

    def _accept_fan_out(
        self, message: Mapping[str, Any], notification: str | None, *, is_dry: bool
    ) -> Decision:
        """Accept a topic or a condition: the real FCM fans out itself, here the receipt names the topic."""
        target = f"/topics/{message['topic']}" if "topic" in message else f"condition:{message['condition']}"
        return self._accept(target, notification, is_answered=True, is_dry=is_dry)

    def _check_authorization(self, request: Request) -> Decision | None:
        authorization = request.headers.get("authorization") or ""
        if self.stage.are_credentials_valid and self.office.admits(authorization):
            return None
        return self._count("unauthenticated", _refusal("credentials"))

    def _refuse_project(self, request: Request) -> Decision:
        project = request.path.split("/")[3]
        if request.method != "POST":
            return self._count("not_found", Decision(404, _HTML, _NOT_FOUND))
        text = (
            "Permission 'cloudmessaging.messages.create' denied on resource "
            f"'//cloudresourcemanager.googleapis.com/projects/{project}' (or it may not exist)."
        )
        refusal = self._check_authorization(request)
        return refusal or self._count("permission_denied", _error(403, "PERMISSION_DENIED", text, []))

    def _refuse_by_rule(self, rule: Rule) -> Decision:
        answer = _ALIASES.get(rule.answer, rule.answer)
        if answer == "throttled":
            return _throttled(rule.retry_after, f"project:{PROJECT_ID}")
        decision = _refusal(answer)
        decision.headers = [*decision.headers, *retry_after_header(rule)]
        return decision

    def _refuse_as(self, answer: str) -> Decision:
        return self._count(answer, _refusal(answer))

    def _invalid(self, violations: list[Violation]) -> Decision:
        return self._count("invalid_argument", _invalid_argument(violations))

    def _throttle(self, retry_after_seconds: float | None, subject: str) -> Decision:
        return self._count("throttled", _throttled(retry_after_seconds, subject))

    def _is_device_flooded(self, token: str) -> bool:
        minute = int(self.stage.clock.now() // 60)
        window, used = self._device_windows.get(token, (minute, 0))
        used = used + 1 if window == minute else 1
        self._device_windows[token] = (minute, used)
        return used > self.device_per_minute

    def _count(self, answer: str, decision: Decision) -> Decision:
        self.stage.tally[answer] += 1
        return decision


def create_fcm(
    stage: Stage,
    *,
    token_life_seconds: int,
    per_minute: float,
    retry_after: float | None,
    device_per_minute: int,
) -> Fcm:
    """Return FCM with its token endpoint and its quota (`per_minute` of 0: none)."""
    office = TokenOffice(
        stage.state_dir, stage.clock, url=stage.url, project_id=PROJECT_ID, life_seconds=token_life_seconds
    )
    quota = TokenBucket(stage.clock, per_minute, retry_after)
    return Fcm(stage, office, quota=quota, device_per_minute=device_per_minute)


def _refusal(answer: str) -> Decision:
    if answer == "bad_gateway_html":
        return Decision(502, _HTML, _BAD_GATEWAY)
    if answer == "credentials":
        return _error(401, "UNAUTHENTICATED", _UNAUTHENTICATED, [])
    if answer == "bad_token":
        return _invalid_argument([Violation("message.token", "Invalid registration token")])
    if answer == "payload":
        return _invalid_argument([Violation("message.data", "Invalid data payload key: from")])
    status, word, code, text = _REFUSALS[answer]
    return _error(status, word, text, [_fcm_error(code)] if code else [])


def _name(message_id: str) -> Decision:
    return Decision(200, _JSON, b'{\n  "name": "%b"\n}\n' % message_id.encode())


def _fcm_error(code: str) -> dict[str, Any]:
    return {"@type": _FCM_ERROR, "errorCode": code}


def _error(status: int, word: str, text: str, details: list[dict[str, Any]]) -> Decision:
    error: dict[str, Any] = {"code": status, "message": text, "status": word}
    if details:
        error["details"] = details
    return Decision(status, _JSON, orjson.dumps({"error": error}, option=orjson.OPT_INDENT_2))


def _throttled(retry_after_seconds: float | None, subject: str) -> Decision:
    failure = {
        "@type": _QUOTA_FAILURE,
        "violations": [{"subject": subject, "description": "Message rate exceeded."}],
    }
    decision = _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", [_fcm_error("QUOTA_EXCEEDED"), failure])
    if retry_after_seconds is not None:
        decision.headers = [*_JSON, ("retry-after", str(int(retry_after_seconds)))]
    return decision


def _invalid_argument(violations: list[Violation]) -> Decision:
    """Build a 400 in one of three shapes: field and FCM code, field alone, or bare (oversized payload)."""
    first = violations[0]
    named = [
        {"field": item.field, "description": item.description}
        for item in violations
        if item.field or not item.is_fcm
    ]
    details: list[dict[str, Any]] = []
    if first.is_fcm and first.field:
        details.append(_fcm_error("INVALID_ARGUMENT"))
    if named:
        details.append({"@type": _BAD_REQUEST, "fieldViolations": named})
    text = "Request contains an invalid argument." if first.field == "message.token" else first.description
    return _error(400, "INVALID_ARGUMENT", text, details)
