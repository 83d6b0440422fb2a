"""Firebase Cloud Messaging, HTTP v1: portable messages into its dialect, its responses into outcomes.

| portable | Android | iOS (inside FCM's message) | web |
|---|---|---|---|
| title, body | `notification` | `notification`, `aps.alert` beside a subtitle or loc keys | `notification` |
| subtitle | - | `aps.alert.subtitle` | - |
| image | `notification.image` | the same, and `mutable-content` | the same |
| icon | `android.notification.icon` | - | `webpush.notification.icon` |
| color, channel_id | `android.notification` | - | - |
| tag | `android.notification.tag` | - | `webpush.notification.tag` |
| sound | `android.notification.sound` | `aps.sound` | - |
| badge | `notification_count`, if above 0 (Android cannot clear it) | `aps.badge` | - |
| url | data key `url` | data key `url` | data key; `fcm_options.link` if https |
| data | `data` | `data` | `data` |
| category, thread_id, mutable_content, interruption_level, relevance_score | - | `aps` | - |
| collapse_key | `android.collapse_key` | `apns-collapse-id` | `Topic`, if it is a valid one |
| priority | `android.priority` | `apns-priority` (always 5 without anything to show) | `Urgency` |
| expires_at, ttl_seconds | `android.ttl` | `apns-expiration` | `TTL` |
| silent | data only | `content-available`, background | data only |
| title_loc_*, body_loc_* | `android.notification` | `aps.alert` | - |
| analytics_label | `fcm_options` | `fcm_options` | `fcm_options` |

Without title, body or loc key Android and browsers get data alone: they would show an empty notification.
The section `fcm` is merged over the message object of
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never
from urllib.parse import quote

from events import Event, Message, Problem
from events.message import RESERVED_DATA_KEY
from providers.calls import call
from providers.dialect import (
    Json,
    Words,
    ascii_key,
    data_of,
    forbidden_overrides,
    given,
    has_words,
    is_background,
    is_enabled,
    is_resend_allowed,
    is_urgent,
    json_bytes,
    json_object,
    keep_reserved_key,
    merge,
    overrides,
    retry_after,
    seconds_to_live,
    size_problem,
    words_for,
)
from providers.engine import Response, assert_safe_address
from providers.oauth import AccessTokens, exchange_assertion, read_service_account
from providers.outcome import (
    Accepted,
    Answer,
    AnswerUnknown,
    ChannelConfig,
    Content,
    CredentialsRejected,
    NotSent,
    Outcome,
    Push,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from providers.provider import Batch, Prepared, Remedy, Verdict

ENDPOINT = "https://fcm.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"

MESSAGES_PAGE = "https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages"
ERRORS_PAGE = "https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode"
SCALE_PAGE = "https://firebase.google.com/docs/cloud-messaging/scale-fcm"
TOKENS_PAGE = "https://firebase.google.com/docs/cloud-messaging/manage-tokens"
CAPTURES_PAGE = "https://github.com/bloomberg/pushiko/blob/main/docs/fcm_responses.md"
RPC_PAGE = "https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto"

PAYLOAD_LIMIT = 4096  # bytes of keys and values, MESSAGES_PAGE
LONGEST_TTL = timedelta(days=28)  # MESSAGES_PAGE, android.ttl
QUOTA_DELAY = timedelta(seconds=60)  # SCALE_PAGE: "if no retry-after header, 60 s"
LEAST_DELAY = timedelta(seconds=10)  # SCALE_PAGE: not sooner than 10 s (ErrorCode's example starts at 1 s)
# Helps only who corrects the APNs or web push key in the Firebase project; no page names a delay.
THIRD_PARTY_DELAY = timedelta(minutes=10)

# --- build the request


FORBIDDEN: Mapping[str, str] = {
    "token": "Pushfan addresses the device",
    "fid": "Pushfan addresses the device",
    "topic": "it would reach devices that Pushfan does not know",
    "condition": "it would reach devices that Pushfan does not know",
    "name": "FCM gives it",
    "validate_only": "nothing would be delivered",
    f"data.{RESERVED_DATA_KEY}": "the key is reserved for Pushfan",
    f"android.data.{RESERVED_DATA_KEY}": "the key is reserved for Pushfan",
    f"webpush.data.{RESERVED_DATA_KEY}": "the key is reserved for Pushfan",
    f"apns.payload.{RESERVED_DATA_KEY}": "the key is reserved for Pushfan",
    "apns.live_activity_token": "Pushfan addresses the device",
    "apns.headers.authorization": "credentials belong to the channel",
    "apns.headers.apns-topic": "FCM knows the app of the token",
    "apns.headers.apns-id": "FCM gives it",
    "webpush.headers.authorization": "credentials belong to the channel",
    "webpush.headers.crypto-key": "credentials belong to the channel",
}

# MESSAGES_PAGE, data: keys that FCM refuses
RESERVED_BY_FCM = re.compile(r"from|message_type|google\..*|gcm\..*")
# https://www.rfc-editor.org/rfc/rfc8030#section-5.4
WEB_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")


def render(content: Content, locale: str | None, now: datetime) -> Json:
    """Return FCM's message object for a device with this locale, without its address."""
    message = content.event.message
    words = words_for(message, locale)
    ttl = seconds_to_live(content, now, LONGEST_TTL)
    rendered = given(
        # Without words Android and browsers would show an empty notification.
        notification=given(title=words.title, body=words.body, image=message.image)
        if has_words(message)
        else None,
        data=data_of(content, message),
        android=_android(message, ttl),
        apns=_apns(content, words, ttl),
        webpush=_webpush(message, ttl),
        fcm_options=given(analytics_label=message.analytics_label),
    )
    if message.fcm is None:
        return rendered
    rendered = merge(rendered, _in_snake_case(overrides(message.fcm)))
    keep_reserved_key(rendered, content, "data")
    for platform in ("android", "webpush"):  # their own `data` replaces the common one, MESSAGES_PAGE
        if isinstance(rendered.get(platform), Mapping) and "data" in rendered[platform]:
            keep_reserved_key(rendered, content, platform, "data")
    return rendered


def _is_quiet(message: Message) -> bool:
    """Tell whether Apple's devices show, play and count nothing, whoever says so: the message or its section."""
    if not is_background(message):
        return False
    section = overrides(message.fcm)
    aps = _object(_object(_object(section, "apns"), "payload"), "aps")
    return not section.get("notification") and not aps.get("alert")


def _android(message: Message, ttl: int) -> Json:
    notification = given(
        icon=message.icon,
        color=message.color,
        sound=message.sound,
        tag=message.tag,
        channel_id=message.channel_id,
        notification_count=message.badge or None,
        title_loc_key=message.title_loc_key,
        title_loc_args=message.title_loc_args,
        body_loc_key=message.body_loc_key,
        body_loc_args=message.body_loc_args,
    )
    return given(
        collapse_key=message.collapse_key,
        priority="HIGH" if is_urgent(message) else "NORMAL",
        ttl=f"{ttl}s",
        notification=notification if has_words(message) else None,
    )


def _apns(content: Content, words: Words, ttl: int) -> Json:
    message = content.event.message
    is_quiet = _is_quiet(message)
    headers = {
        "apns-push-type": "background" if is_quiet else "alert",
        "apns-priority": "10" if is_urgent(message) and not is_quiet else "5",
        # the end of storing in epoch seconds; 0 is one attempt without storing
        "apns-expiration": str(int(content.expires_at.timestamp())) if ttl else "0",
    }
    if message.collapse_key is not None:
        headers["apns-collapse-id"] = ascii_key(message.collapse_key)
    return given(headers=headers, payload=given(aps=_aps(message, words, is_quiet=is_quiet)))


def _aps(message: Message, words: Words, *, is_quiet: bool) -> Json:
    aps = {
        "alert": _alert(message, words),
        "sound": message.sound,
        "badge": message.badge,
        "category": message.category,
        "thread-id": message.thread_id,
        "mutable-content": 1 if message.mutable_content or message.image is not None else None,
        "content-available": 1 if is_quiet else None,
        "interruption-level": message.interruption_level,
        "relevance-score": message.relevance_score,
    }
    return given(**aps)


def _alert(message: Message, words: Words) -> Json | None:
    """Return the alert where FCM's `notification` cannot say everything; it then replaces that as a whole."""
    if words.subtitle is None and message.title_loc_key is None and message.body_loc_key is None:
        return None
    alert = {
        "title": words.title,
        "subtitle": words.subtitle,
        "body": words.body,
        "title-loc-key": message.title_loc_key,
        "title-loc-args": message.title_loc_args,
        "loc-key": message.body_loc_key,
        "loc-args": message.body_loc_args,
    }
    return given(**alert)


def _webpush(message: Message, ttl: int) -> Json:
    headers = {
        "TTL": str(ttl),
        "Urgency": "high" if is_urgent(message) else "normal",
    }
    if message.collapse_key is not None and WEB_TOPIC.fullmatch(message.collapse_key):
        headers["Topic"] = message.collapse_key
    has_link = message.url is not None and message.url.startswith("https:")
    return given(
        headers=headers,
        notification=given(icon=message.icon, tag=message.tag) if has_words(message) else None,
        fcm_options=given(link=message.url if has_link else None),
    )


def _in_snake_case(section: Mapping[str, Any]) -> Json:
    """Spell field names as we do: FCM takes both spellings, but refuses a field that comes twice."""
    snake: Json = {}
    for key, value in section.items():
        name = re.sub(r"(?<=[a-z0-9])[A-Z]", lambda capital: f"_{capital[0].lower()}", key)
        is_ours_to_spell = isinstance(value, Mapping) and name not in ("data", "headers", "payload")
        snake[name] = _in_snake_case(value) if is_ours_to_spell else value
    if isinstance(web := section.get("webpush"), Mapping) and "notification" in web:
        snake["webpush"]["notification"] = web["notification"]  # the browser's own names
    return snake


def payload_sizes(rendered: Json) -> dict[str, int]:
    """Return the bytes of keys and values that reach a device, by platform; rather too many than too few.

    No page says how FCM counts what overrides what, so both count.
    """
    common, data = _weight(_object(rendered, "notification")), _weight(_object(rendered, "data"))
    android, apns, web = (_object(rendered, name) for name in ("android", "apns", "webpush"))
    return {
        "Android": common
        + (_weight(android.get("data")) or data)
        + _weight(_object(android, "notification")),
        "iOS": common + data + len(json_bytes(_object(apns, "payload"))),
        "web": common + (_weight(web.get("data")) or data) + len(json_bytes(_object(web, "notification"))),
    }


def _object(parent: Json, name: str) -> Json:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _weight(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping):
        return sum(len(key.encode()) + _weight(member) for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(_weight, value))
    return len(json_bytes(value))


def _oversize(rendered: Json) -> Problem | None:
    if len(json_bytes(rendered)) <= PAYLOAD_LIMIT:  # each platform gets a part of it
        return None
    platform, size = max(payload_sizes(rendered).items(), key=lambda item: item[1])
    return size_problem("fcm", f"the {platform} payload", size, PAYLOAD_LIMIT)


def check_event(event: Event) -> list[Problem]:
    """Name what FCM would refuse: forbidden overrides, reserved data keys, payloads too large."""
    message = event.message
    if not is_enabled(message.fcm):
        return []
    problems = forbidden_overrides("fcm", message.fcm, FORBIDDEN)
    latest = datetime.max.replace(tzinfo=UTC)
    longest = Content(notification_id=2**63 - 1, event=event, expires_at=latest)
    renderings = [render(longest, locale, latest) for locale in (None, *message.translations)]
    problems += _shape_problems(renderings[0], message)
    sizes = (_oversize(rendered) for rendered in renderings)
    return problems + list(dict.fromkeys(problem for problem in sizes if problem is not None))


OBJECTS = ("notification", "data", "android", "apns", "webpush", "fcm_options")


def _shape_problems(rendered: Json, message: Message) -> Iterator[Problem]:
    for name in OBJECTS:
        if not isinstance(rendered.get(name, {}), dict):
            yield Problem(f"message.fcm.{name}", "type", "must be an object")
    for prefix, holder in (
        ("", rendered),
        ("android.", _object(rendered, "android")),
        ("webpush.", _object(rendered, "webpush")),
    ):
        for key, value in _object(holder, "data").items():
            is_portable = not prefix and key in message.data
            path = f"message.data.{key}" if is_portable else f"message.fcm.{prefix}data.{key}"
            if RESERVED_BY_FCM.fullmatch(key):
                yield Problem(path, "reserved", "is a data key that FCM keeps for itself")
            if not isinstance(value, str):
                yield Problem(path, "type", "must be a string")


class FcmProvider:
    """Speaks FCM for one Firebase project. Used by one thread of one process."""

    name = "fcm"
    batch_limit = 1  # the multipart batch endpoint is gone, https://github.com/firebase/firebase-admin-python/issues/854

    def __init__(self, config: ChannelConfig, *, now: Callable[[], datetime]) -> None:
        """Raise `CredentialsRejected` for an unusable service account, `ValueError` for a bad endpoint."""
        account = read_service_account(config.secrets.get("service_account", b""))
        endpoint = (config.endpoint or ENDPOINT).rstrip("/")
        assert_safe_address(endpoint)
        self._url = f"{endpoint}/v1/projects/{quote(account.project_id, safe=':.')}/messages:send"
        self._tokens = AccessTokens(
            lambda: exchange_assertion(
                account, scope=SCOPE, ca_file=config.ca_file, asked_at=now(), reach=config.token_reach
            ),
            now=now,
        )
        self._config = config
        self._timeout = config.timeout
        self._headers = ("content-type: application/json",)
        self._now = now

    def prepare(self, pushes: Sequence[Push]) -> Prepared:
        """Render each content once for each locale among the pushes, and put each token in front of it."""
        prepared = Prepared(batches=[], answers=[])
        rendered: dict[tuple[int, str | None], bytes | Rejected] = {}
        now = self._now()
        for push in pushes:
            key = (push.content.notification_id, push.locale)
            body = rendered.get(key)
            if body is None:
                body = rendered[key] = self._body(push.content, push.locale, now)
            if isinstance(body, Rejected):
                prepared.answers.append(Answer(push=push, outcome=body))
            else:
                prepared.batches.append(self._batch(push, body))
        return prepared

    def authorize(self) -> tuple[str, ...]:
        """Return the bearer token of the service account, exchanged when needed."""
        return self._tokens.authorize()

    def reauthorize(self) -> None:
        """Fetch another access token before the next request."""
        self._tokens.forget()

    def classify(self, batch: Batch, response: Response) -> list[Answer] | Verdict:
        """Say what the response means for the one push of the batch."""
        meaning = classify(response, self._now())
        if isinstance(meaning, Verdict):
            return meaning
        return [Answer(push=batch.pushes[0], outcome=meaning)]

    def check(self) -> None:
        """Exchange a token and have FCM validate a message to a token that nobody has.

        FCM looks at the credential, the project and its API before it looks at the message.
        """
        (line,) = self._tokens.authorize()
        request = {"validate_only": True, "message": {"token": "pushfan-credential-check"}}
        headers = {"content-type": "application/json", "authorization": line.partition(": ")[2]}
        response = call(
            "POST",
            self._url,
            headers=headers,
            body=json_bytes(request),
            ca_file=self._config.ca_file,
            reach=self._config.reach,
        )
        meaning = classify(response, self._now())
        if isinstance(meaning, Verdict):
            meaning = meaning.otherwise
        if isinstance(meaning, SendError):
            raise meaning
        if isinstance(meaning, Throttled | Unavailable):
            raise NotSent(f"FCM cannot tell now: {meaning.reason}")

    def _body(self, content: Content, locale: str | None, now: datetime) -> bytes | Rejected:
        """Return what follows the address in the request, or why it is not sent."""
        section = content.event.message.fcm
        if not is_enabled(section):
            return Rejected(reason="DisabledForProvider")
        if forbidden := forbidden_overrides("fcm", section, FORBIDDEN):
            return Rejected(reason=f"ForbiddenOverride: {forbidden[0]}")
        rendered = render(content, locale, now)
        if (problem := _oversize(rendered)) is not None:
            return Rejected(reason=f"PayloadTooLarge: {problem.message}")
        return b"," + json_bytes(rendered)[1:] + b"}"

    def _batch(self, push: Push, body: bytes) -> Batch:
        address = b'{"message":{"fid":' if push.is_installation_id else b'{"message":{"token":'
        return Batch(
            pushes=(push,),
            url=self._url,
            headers=self._headers,
            body=address + json_bytes(push.token) + body,
            timeout=self._timeout,
            is_resend_allowed=is_resend_allowed(push.content.event.message),
        )


# --- classify the response


class Meaning(StrEnum):
    """What a row of the table says about a push."""

    UNREGISTERED = "unregistered"
    SUSPECT = "suspect"
    REJECTED = "rejected"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    CREDENTIALS = "credentials"
    TOKEN_EXPIRED = "token expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: what an answer means, who says so, the least delay, and whether the push may be out all the same."""

    meaning: Meaning
    source: str
    delay: timedelta = LEAST_DELAY
    is_unsure: bool = False


# Messages that were answered so have been delivered, https://github.com/firebase/firebase-admin-node/issues/1248
BROKEN = Row(meaning=Meaning.UNAVAILABLE, source=SCALE_PAGE, is_unsure=True)

# Looked up first: `details[].errorCode` of the FcmError; without one `error.status`, if it is a word of this.
BY_CODE: Mapping[str, Row] = {
    "UNREGISTERED": Row(meaning=Meaning.UNREGISTERED, source=ERRORS_PAGE),  # only with 404
    "SENDER_ID_MISMATCH": Row(meaning=Meaning.SUSPECT, source=ERRORS_PAGE),
    "INVALID_ARGUMENT": Row(meaning=Meaning.REJECTED, source=TOKENS_PAGE),  # suspect if it names the token
    "QUOTA_EXCEEDED": Row(meaning=Meaning.THROTTLED, delay=QUOTA_DELAY, source=SCALE_PAGE),
    "UNAVAILABLE": BROKEN,
    "INTERNAL": BROKEN,
    # The project's APNs or web push key is bad: nothing about Android, so it must not stop the channel, and
    # nothing about the message, so it must not be final at once. Attempts and expiry bound it.
    "THIRD_PARTY_AUTH_ERROR": Row(meaning=Meaning.UNAVAILABLE, delay=THIRD_PARTY_DELAY, source=ERRORS_PAGE),
    "APNS_AUTH_ERROR": Row(meaning=Meaning.UNAVAILABLE, delay=THIRD_PARTY_DELAY, source=ERRORS_PAGE),
    "UNSPECIFIED_ERROR": replace(BROKEN, source=ERRORS_PAGE),
}

# Looked up next, when FCM gave no code: proxies, Google's front ends (HTML) and the API layer answer so.
BY_STATUS: Mapping[int, Row] = {
    400: Row(meaning=Meaning.REJECTED, source=CAPTURES_PAGE),
    401: Row(meaning=Meaning.TOKEN_EXPIRED, source=RPC_PAGE),
    403: Row(meaning=Meaning.CREDENTIALS, source=RPC_PAGE),  # API disabled, or the account may not send
    404: Row(meaning=Meaning.CREDENTIALS, source=RPC_PAGE),  # no such project
    408: Row(meaning=Meaning.UNAVAILABLE, source="https://www.rfc-editor.org/rfc/rfc9110#status.408"),
    429: Row(meaning=Meaning.THROTTLED, delay=QUOTA_DELAY, source=SCALE_PAGE),
    500: BROKEN,
    502: replace(BROKEN, source="https://github.com/firebase/firebase-admin-python/issues/493"),
    503: BROKEN,
    504: replace(BROKEN, source=RPC_PAGE),
}

# Looked up last, by the hundreds, for a code or status that nobody knows: stored, never about the token.
BY_CLASS: Mapping[int, Row] = {
    3: Row(meaning=Meaning.UNAVAILABLE, source="redirects are not followed"),
    4: Row(meaning=Meaning.REJECTED, source="https://www.rfc-editor.org/rfc/rfc9110#section-15.5"),
    5: replace(BROKEN, source="https://www.rfc-editor.org/rfc/rfc9110#section-15.6"),
}
# An unknown code with these is still about authentication and about haste, not about the message.
UNKNOWN_CODE_BY_STATUS: Mapping[int, Row] = {
    401: Row(meaning=Meaning.UNAVAILABLE, delay=THIRD_PARTY_DELAY, source=ERRORS_PAGE),
    408: BY_STATUS[408],
    429: BY_STATUS[429],
}

TOKEN_FIELDS = frozenset({"message.token", "message.fid"})  # CAPTURES_PAGE, fieldViolations
TOKEN_WORDS = "The registration token is not a valid FCM registration token"  # example of error-codes
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class _Error:
    """What an error body says; all empty for HTML."""

    status: str
    code: str | None
    message: str
    fields: tuple[str, ...]


def classify(response: Response, now: datetime) -> Outcome | SendError | Verdict:
    """Say what one response means for its push."""
    if response.status == 200:
        name = json_object(response.body).get("name")
        if isinstance(name, str):
            return Accepted(message_id=name)
        return AnswerUnknown("http 200 without a message name")
    error = _read_error(response.body)
    row = _row_for(response.status, error)
    if row is None:
        return AnswerUnknown(f"http {response.status}")
    return _outcome(row, response, error, now)


def _read_error(body: bytes) -> _Error:
    error = _object(json_object(body), "error")
    details = _objects(error.get("details"))
    codes = [detail["errorCode"] for detail in details if isinstance(detail.get("errorCode"), str)]
    violations = [item for detail in details for item in _objects(detail.get("fieldViolations"))]
    return _Error(
        status=str(error.get("status") or ""),
        code=codes[0] if codes else None,
        message=str(error.get("message") or ""),
        fields=tuple(str(violation["field"]) for violation in violations if violation.get("field")),
    )


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _row_for(status: int, error: _Error) -> Row | None:
    if error.code is None:
        return BY_CODE.get(error.status) or BY_STATUS.get(status) or BY_CLASS.get(status // 100)
    return BY_CODE.get(error.code) or UNKNOWN_CODE_BY_STATUS.get(status) or BY_CLASS.get(status // 100)


def _outcome(row: Row, response: Response, error: _Error, now: datetime) -> Outcome | SendError | Verdict:
    reason = _reason(response.status, error)
    match row.meaning:
        case Meaning.UNREGISTERED if response.status == 404:
            return Unregistered(reason=reason)
        case Meaning.UNREGISTERED | Meaning.SUSPECT:
            return Rejected(reason=reason, suspects_token=True)
        case Meaning.REJECTED:
            return Rejected(reason=reason, suspects_token=_names_token(error))
        case Meaning.THROTTLED | Meaning.UNAVAILABLE:
            return _later(row, reason, retry_after(response, now))
        case Meaning.CREDENTIALS | Meaning.TOKEN_EXPIRED:
            refused = CredentialsRejected(_explained(reason, error))
            is_final = row.meaning is Meaning.CREDENTIALS
            return refused if is_final else Verdict(remedy=Remedy.REAUTHORIZE, otherwise=refused)
        case _:
            assert_never(row.meaning)


def _later(row: Row, reason: str, asked_for: timedelta | None) -> Throttled | Unavailable:
    is_vendor_delay = asked_for is not None
    if row.meaning is Meaning.THROTTLED:
        return Throttled(reason=reason, delay=asked_for or row.delay, is_vendor_delay=is_vendor_delay)
    delay = max(row.delay, asked_for or row.delay)
    return Unavailable(reason=reason, delay=delay, is_vendor_delay=is_vendor_delay, is_unsure=row.is_unsure)


def _names_token(error: _Error) -> bool:
    known = error.code or error.status
    return known == "INVALID_ARGUMENT" and (
        not TOKEN_FIELDS.isdisjoint(error.fields) or TOKEN_WORDS in error.message
    )


def _reason(status: int, error: _Error) -> str:
    """Name FCM's code, else the status; and the fields at fault. Never its text, which may quote content."""
    word = error.code or error.status
    parts = [word or f"http {status}", *sorted(set(error.fields))]
    return " ".join(parts)[:LONGEST_REASON]


def _explained(reason: str, error: _Error) -> str:
    """Add FCM's own words, which tell an operator what to switch on; these are not about a message."""
    return f"{reason}: {error.message}"[:LONGEST_REASON] if error.message else reason
