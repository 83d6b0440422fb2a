"""Apple Push Notification service: portable messages into its dialect, its responses into outcomes.

| portable | header | payload |
|---|---|---|
| title, subtitle, body | - | `aps.alert` |
| title_loc_*, body_loc_* | - | `aps.alert.title-loc-*`, `aps.alert.loc-*` |
| image | - | custom key `image`, and `aps.mutable-content` for the app's service extension that loads it |
| icon, color, channel_id, tag | - | - (Android only; `collapse_key` is what replaces a notification here) |
| sound, badge, category | - | `aps.sound`, `aps.badge`, `aps.category` |
| thread_id, mutable_content | - | `aps.thread-id`, `aps.mutable-content` |
| interruption_level, relevance_score | - | `aps.interruption-level`, `aps.relevance-score` |
| url | - | custom key `url` |
| data | - | custom keys beside `aps`; the key `aps` is refused |
| collapse_key | `apns-collapse-id` | - |
| priority | `apns-priority`: 10 or 5, always 5 for a background push | - |
| expires_at, ttl_seconds | `apns-expiration`: 0 for a time to live of 0 | - |
| silent | `apns-push-type: background` | `aps.content-available` |
| analytics_label | - | - |

The section `apns` has `headers` and `payload`, each merged over what the table gives. Headers that can be
set: `apns-push-type`, `apns-priority`, `apns-expiration`, `apns-collapse-id`, and an `apns-topic` below the
channel's own. A push type that is not set follows from the merged payload: `background` for one without
alert, sound and badge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from events import Event, Message, Problem
from events.message import RESERVED_DATA_KEY
from events.validation import join
from providers.apns_credentials import LEAST_INTERVAL, ProviderJwts, check_certificate, read_signing_key
from providers.dialect import (
    Json,
    Words,
    ascii_key,
    data_of,
    forbidden_overrides,
    given,
    is_background,
    is_enabled,
    is_resend_allowed,
    is_urgent,
    json_bytes,
    json_object,
    merge,
    retry_after,
    seconds_to_live,
    size_problem,
    words_for,
)
from providers.engine import Engine, Request, Response, assert_safe_address
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

SENDING_PAGE = (
    "https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns"
)
PAYLOAD_PAGE = "https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification"
RESPONSES_PAGE = (
    "https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns"
)
JWT_PAGE = "https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns"

# SENDING_PAGE
ENDPOINTS: Mapping[str, str] = {
    "production": "https://api.push.apple.com",
    "sandbox": "https://api.sandbox.push.apple.com",
}
# SENDING_PAGE: what each push type adds to the bundle id to make its topic.
TOPIC_SUFFIXES: Mapping[str, str] = {
    "alert": "",
    "background": "",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "mdm": "",
    "pushtotalk": ".voip-ptt",
    "voip": ".voip",
    "widgets": ".push-type.widgets",
}
PRIORITIES = frozenset({"10", "5", "1"})  # SENDING_PAGE
PAYLOAD_LIMIT = 4096  # bytes, PAYLOAD_PAGE
VOIP_PAYLOAD_LIMIT = 5120  # bytes, PAYLOAD_PAGE
LONGEST_TTL = timedelta(days=28)  # ours; Apple stores for 30 days at most, SENDING_PAGE
LATEST = datetime(2200, 1, 1, tzinfo=UTC)  # an instant of as many digits as any that will be sent
IMAGE_KEY = "image"  # custom key that carries `Message.image` to the app's service extension

# RESPONSES_PAGE: a request that failed with 5xx may be repeated after 15 minutes.
OUTAGE_DELAY = timedelta(minutes=15)
# No page names a delay for TooManyRequests; the worker doubles it.
THROTTLED_DELAY = timedelta(seconds=60)
# Also after a new connection Apple closed an idle one: no page names a delay.
IDLE_DELAY = timedelta(seconds=5)

# --- build the request


FORBIDDEN: Mapping[str, str] = {
    "headers.authorization": "credentials belong to the channel",
    "headers.apns-id": "Pushfan gives it, the same at every attempt",
    "headers.apns-channel-id": "it would reach devices that Pushfan does not know",
    f"payload.{RESERVED_DATA_KEY}": "the key is reserved for Pushfan",
}
SETTABLE_HEADERS = frozenset(
    {"apns-push-type", "apns-priority", "apns-expiration", "apns-collapse-id", "apns-topic"}
)
SECTION_FIELDS = frozenset({"enabled", "headers", "payload"})
KINDS: Mapping[str, str] = {"forbidden": "ForbiddenOverride", "too_large": "PayloadTooLarge"}

# SENDING_PAGE: hexadecimal, of a length that may change.
DEVICE_TOKEN = re.compile(r"[0-9A-Fa-f]{2,400}")
EXPIRATION = re.compile(r"[0-9]{1,10}")
TOPIC = re.compile(r"[A-Za-z0-9.-]{1,255}")
COLLAPSE_ID = re.compile(r"[!-~]([ -~]{0,62}[!-~])?")  # SENDING_PAGE: at most 64 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A notification in Apple's dialect. `headers` lack the topic, unless the section chooses one."""

    headers: Mapping[str, str]
    payload: Json
    body: bytes

    @property
    def push_type(self) -> str:
        """What kind of push it is; decides topic, priority and size."""
        return self.headers["apns-push-type"]


def render(content: Content, locale: str | None, now: datetime) -> Rendering:
    """Return the notification for a device with this locale."""
    payload = _payload(content, locale)
    return Rendering(headers=_headers(content, payload, now), payload=payload, body=json_bytes(payload))


def _payload(content: Content, locale: str | None) -> Json:
    message = content.event.message
    portable: Json = dict(data_of(content, message))
    if message.image is not None:
        portable.setdefault(IMAGE_KEY, message.image)
    portable["aps"] = _aps(message, words_for(message, locale))
    return merge(portable, _section(message, "payload"))


def _aps(message: Message, words: Words) -> Json:
    aps = {
        "alert": alert(message, words),
        "sound": message.sound,
        "badge": message.badge,
        "category": message.category,
        "thread-id": message.thread_id,
        "mutable-content": 1 if message.mutable_content or message.image is not None else None,
        "content-available": 1 if is_background(message) else None,
        "interruption-level": message.interruption_level,
        "relevance-score": message.relevance_score,
    }
    return given(**aps)


def alert(message: Message, words: Words) -> Json:
    """Return Apple's alert dictionary, PAYLOAD_PAGE; JPush passes the same on to iOS devices."""
    fields = {
        "title": words.title,
        "subtitle": words.subtitle,
        "body": words.body,
        "title-loc-key": message.title_loc_key,
        "title-loc-args": message.title_loc_args,
        "loc-key": message.body_loc_key,
        "loc-args": message.body_loc_args,
    }
    return given(**fields)


def _headers(content: Content, payload: Json, now: datetime) -> dict[str, str]:
    message = content.event.message
    chosen = {name.lower(): value for name, value in _section(message, "headers").items()}
    push_type = _text(chosen.get("apns-push-type") or _push_type(payload))
    portable = {
        "apns-priority": "10" if is_urgent(message) and push_type != "background" else "5",
        "apns-expiration": _expiration(content, now),
    }
    if message.collapse_key is not None:
        portable["apns-collapse-id"] = ascii_key(message.collapse_key)
    merged = {name: _text(value) for name, value in merge(portable, chosen).items()}
    return {**merged, "apns-push-type": push_type}


def _push_type(payload: Json) -> str:
    aps = payload.get("aps")
    is_shown = isinstance(aps, Mapping) and not {"alert", "sound", "badge"}.isdisjoint(aps)
    return "alert" if is_shown else "background"


def _expiration(content: Content, now: datetime) -> str:
    """Return the end of storing in epoch seconds; 0 is one attempt without storing."""
    return str(int(content.expires_at.timestamp())) if seconds_to_live(content, now, LONGEST_TTL) else "0"


def _section(message: Message, name: str) -> Mapping[str, Any]:
    value = (message.apns or {}).get(name)
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json_bytes(value).decode()


def problems_with(message: Message, rendering: Rendering) -> list[Problem]:
    """Name what is wrong with a rendered notification on any channel, overrides first, size last."""
    problems = forbidden_overrides("apns", message.apns, FORBIDDEN)
    problems += _shape_problems(message, rendering)
    problems += _header_name_problems(message)
    problems += [
        Problem(f"message.apns.headers.{name}", code, text) for name, code, text in _value_problems(rendering)
    ]
    limit = VOIP_PAYLOAD_LIMIT if rendering.push_type == "voip" else PAYLOAD_LIMIT
    oversize = size_problem("apns", "the payload", len(rendering.body), limit)
    return [*problems, oversize] if oversize else problems


def _shape_problems(message: Message, rendering: Rendering) -> Iterator[Problem]:
    section = message.apns or {}
    for name, value in section.items():
        if name not in SECTION_FIELDS:
            yield Problem(join("message.apns", name), "unknown", "is not a field; headers and payload are")
        elif name != "enabled" and not isinstance(value, Mapping):
            yield Problem(f"message.apns.{name}", "type", "must be an object")
    if "aps" in message.data:
        yield Problem("message.data.aps", "reserved", "is the key under which Apple reads the notification")
    if not isinstance(rendering.payload.get("aps"), Mapping):
        yield Problem("message.apns.payload.aps", "type", "must be an object")


def _header_name_problems(message: Message) -> Iterator[Problem]:
    for name, value in _section(message, "headers").items():
        path = join("message.apns.headers", name)
        if name.lower() not in SETTABLE_HEADERS:
            if f"headers.{name.lower()}" not in FORBIDDEN:
                yield Problem(path, "unknown", f"cannot be set; only {', '.join(sorted(SETTABLE_HEADERS))}")
        elif isinstance(value, bool | float | tuple | Mapping):
            yield Problem(path, "type", "must be a string")


def _value_problems(rendering: Rendering) -> Iterator[tuple[str, str, str]]:
    """Yield header, code and text for each value that Apple refuses or that could break out of its line."""
    headers = rendering.headers
    priority, collapse_id = headers.get("apns-priority", "10"), headers.get("apns-collapse-id", "-")
    if rendering.push_type not in TOPIC_SUFFIXES:
        yield "apns-push-type", "choice", f"must be one of {', '.join(TOPIC_SUFFIXES)}"
    if rendering.push_type == "background" and priority != "5":
        yield "apns-priority", "conflict", "must be 5 for a background push"
    elif priority not in PRIORITIES:
        yield "apns-priority", "choice", "must be 10, 5 or 1"
    if not EXPIRATION.fullmatch(headers.get("apns-expiration", "0")):
        yield "apns-expiration", "format", "must be a time in seconds since 1970, or 0"
    if not TOPIC.fullmatch(headers.get("apns-topic", "-")):
        yield "apns-topic", "format", "must be of the characters A-Z a-z 0-9 - ."
    if not COLLAPSE_ID.fullmatch(collapse_id):
        yield "apns-collapse-id", "format", "must be 1 to 64 printable ASCII characters"


def check_event(event: Event) -> list[Problem]:
    """Name what APNs would refuse on every channel: overrides, header values, payloads too large."""
    message = event.message
    if not is_enabled(message.apns):
        return []
    longest = Content(notification_id=2**63 - 1, event=event, expires_at=LATEST)
    renderings = [render(longest, locale, LATEST - LONGEST_TTL) for locale in (None, *message.translations)]
    found = [problem for rendering in renderings for problem in problems_with(message, rendering)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What all pushes of one content and language have in common."""

    headers: tuple[str, ...]
    body: bytes = field(repr=False)
    is_resend_allowed: bool


class ApnsProvider:
    """Speaks APNs for one app in one environment. Used by one thread of one process.

    With a certificate the connection itself is the authorization, so there are no authorization lines.
    """

    name = "apns"
    batch_limit = 1

    def __init__(self, config: ChannelConfig, *, now: Callable[[], datetime]) -> None:
        """Raise `CredentialsRejected` for unusable credentials, `ValueError` for endpoint or environment.

        That is what can be seen without asking Apple; `check` asks.
        """
        if config.environment not in ENDPOINTS:
            raise ValueError(f"unknown APNs environment {config.environment!r}: it is production or sandbox")
        endpoint = (config.endpoint or ENDPOINTS[config.environment]).rstrip("/")
        assert_safe_address(endpoint)
        self._url = f"{endpoint}/3/device/"
        self._topic = _read_topic(config)
        self._jwts = _read_credentials(config, now)
        self._config = config
        self._now = now

    def prepare(self, pushes: Sequence[Push]) -> Prepared:
        """Render each content once for each locale; a push adds its address and its `apns-id`."""
        prepared = Prepared(batches=[], answers=[])
        rendered: dict[tuple[int, str | None], _Ready | Rejected] = {}
        now = self._now()
        for push in pushes:
            key = (push.content.notification_id, push.locale)
            ready = rendered.get(key)
            if ready is None:
                ready = rendered[key] = self._ready(push.content, push.locale, now)
            if isinstance(ready, _Ready) and not DEVICE_TOKEN.fullmatch(push.token):
                # Certain without asking, and in a path it could address something else.
                malformed = Rejected(reason="MalformedDeviceToken", suspects_token=True)
                prepared.answers.append(Answer(push=push, outcome=malformed))
            elif isinstance(ready, _Ready):
                prepared.batches.append(self._batch(push, ready))
            else:
                prepared.answers.append(Answer(push=push, outcome=ready))
        return prepared

    def authorize(self) -> tuple[str, ...]:
        """Return the JWT of the time window; nothing with a certificate."""
        return self._jwts.authorize() if self._jwts else ()

    def reauthorize(self) -> None:
        """Make a JWT out of turn, at most once in 20 minutes."""
        if self._jwts:
            self._jwts.renew()

    def classify(self, batch: Batch, response: Response) -> list[Answer] | Verdict:
        """Say what the response means for the one push of the batch."""
        (push,) = batch.pushes
        if response.status == 200:
            return [Answer(push=push, outcome=Accepted(message_id=push.delivery_id))]
        row, reason = read_refusal(response)
        if reason == "TooManyProviderTokenUpdates" and self._jwts:
            self._jwts.keep()
        is_about_topic = row.meaning in (Meaning.TOPIC, Meaning.SUSPECT)
        if is_about_topic and f"apns-topic: {self._topic}" not in batch.headers:
            # The message chose it: that must neither stop the channel nor cost a token of the app's own topic.
            return [Answer(push=push, outcome=Rejected(reason=reason))]
        meaning = interpret(row, reason, response, self._now())
        return meaning if isinstance(meaning, Verdict) else [Answer(push=push, outcome=meaning)]

    def check(self) -> None:
        """Push to a token that cannot exist: Apple looks at the credentials before it looks at the token."""
        headers = (
            "content-type: application/json",
            "apns-push-type: background",
            "apns-priority: 5",
            "apns-expiration: 0",
            f"apns-topic: {self._topic}",
        )
        request = Request(
            url=f"{self._url}pushfan-credential-check",
            headers=headers + self.authorize(),
            body=b'{"aps":{"content-available":1}}',
            timeout=self._config.timeout,
        )
        response = self._ask(request)
        if response.status == 200:
            return
        meaning = interpret(*read_refusal(response), response, self._now())
        if isinstance(meaning, Verdict):
            meaning = meaning.otherwise
        if isinstance(meaning, CredentialsRejected | NotSent):
            raise meaning
        if isinstance(meaning, Throttled | Unavailable | AnswerUnknown):
            raise NotSent(f"APNs cannot tell now: {meaning.reason}")

    def _ask(self, request: Request) -> Response:
        """Send one request over a connection of its own, by the same engine that sends pushes."""
        engine: Engine[None] = Engine(
            ca_file=self._config.ca_file,
            client_certificate=self._config.secrets.get("certificate"),
            reach=self._config.reach,
        )
        try:
            engine.submit(request, None)
            completed = engine.poll(self._config.timeout.total_seconds() + 1)
        finally:
            engine.close()
        answer = completed[0][1] if completed else NotSent("no answer from APNs")
        if isinstance(answer, Response):
            return answer
        raise NotSent(answer.reason) from answer

    def _ready(self, content: Content, locale: str | None, now: datetime) -> _Ready | Rejected:
        """Render and check a content in one language; or say why it is not sent."""
        message = content.event.message
        if not is_enabled(message.apns):
            return Rejected(reason="DisabledForProvider")
        rendering = render(content, locale, now)
        problems = problems_with(message, rendering)
        topic = rendering.headers.get("apns-topic") or _with_suffix(self._topic, rendering.push_type)
        if not (topic == self._topic or topic.startswith(f"{self._topic}.")):
            text = f"{topic} is not of this channel, whose topic is {self._topic}"
            problems.append(Problem("message.apns.headers.apns-topic", "forbidden", text))
        if problems:
            kind = KINDS.get(problems[0].code, "InvalidMessage")
            return Rejected(reason=f"{kind}: {problems[0]}")
        lines = {"content-type": "application/json", **rendering.headers, "apns-topic": topic}
        return _Ready(
            headers=tuple(f"{name}: {value}" for name, value in lines.items()),
            body=rendering.body,
            is_resend_allowed=is_resend_allowed(message),
        )

    def _batch(self, push: Push, ready: _Ready) -> Batch:
        return Batch(
            pushes=(push,),
            url=self._url + push.token,
            headers=(*ready.headers, f"apns-id: {push.delivery_id}"),
            body=ready.body,
            timeout=self._config.timeout,
            is_resend_allowed=ready.is_resend_allowed,
        )


def _with_suffix(topic: str, push_type: str) -> str:
    suffix = TOPIC_SUFFIXES.get(push_type, "")
    return topic if topic.endswith(suffix) else topic + suffix


def _read_topic(config: ChannelConfig) -> str:
    topic = config.settings.get("apns_topic", "")
    if not TOPIC.fullmatch(topic):
        raise CredentialsRejected("apns: apns_topic must be the app's bundle id, such as com.example.shop")
    return topic


def _read_credentials(config: ChannelConfig, now: Callable[[], datetime]) -> ProviderJwts | None:
    """Return what signs with the team's key, or `None` when the channel has a usable certificate instead."""
    key, certificate = config.secrets.get("key"), config.secrets.get("certificate")
    if (key is None) == (certificate is None):
        raise CredentialsRejected("apns: give either a key or a certificate")
    if key is None:
        check_certificate(certificate or b"", now())
        return None
    settings = config.settings
    signing_key = read_signing_key(
        key, team_id=settings.get("team_id", ""), key_id=settings.get("key_id", "")
    )
    return ProviderJwts(signing_key, now=now)


# --- classify the response


class Meaning(StrEnum):
    """What a row of the table says about a push."""

    UNREGISTERED = "unregistered"
    SUSPECT = "suspect"
    REJECTED = "rejected"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    CREDENTIALS = "credentials"
    TOPIC = "topic"  # of the channel's credentials, or of the message if that chose it


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: what an answer means, who says so, the least delay, what to try once before, and advice.

    `is_unsure`: the push may be out all the same.
    """

    meaning: Meaning
    source: str = RESPONSES_PAGE
    delay: timedelta = OUTAGE_DELAY
    remedy: Remedy | None = None
    advice: str = ""
    is_unsure: bool = False


REFUSED = Row(meaning=Meaning.REJECTED)
OUTAGE = Row(meaning=Meaning.UNAVAILABLE)
BROKEN = Row(meaning=Meaning.UNAVAILABLE, is_unsure=True)  # on the way, or after it
TOO_FAST = Row(meaning=Meaning.THROTTLED, delay=THROTTLED_DELAY)
OTHER_ENVIRONMENT = Row(meaning=Meaning.CREDENTIALS, advice="the key is for the other environment")

# By status and reason. A reason under another status is an unknown one.
BY_REASON: Mapping[tuple[int, str], Row] = {
    (400, "BadCollapseId"): REFUSED,
    (400, "BadDeviceToken"): Row(meaning=Meaning.SUSPECT),  # malformed, or of the other environment
    (400, "BadExpirationDate"): REFUSED,
    (400, "BadMessageId"): REFUSED,
    (400, "BadPriority"): REFUSED,
    (400, "BadTopic"): Row(meaning=Meaning.TOPIC, advice="the topic is not a valid one"),
    (400, "DeviceTokenNotForTopic"): Row(meaning=Meaning.SUSPECT),
    (400, "DuplicateHeaders"): REFUSED,
    (400, "IdleTimeout"): Row(meaning=Meaning.UNAVAILABLE, delay=IDLE_DELAY, remedy=Remedy.RECONNECT),
    (400, "InvalidPushType"): REFUSED,
    (400, "MissingDeviceToken"): REFUSED,
    (400, "MissingTopic"): Row(meaning=Meaning.CREDENTIALS, advice="the certificate is for several topics"),
    (400, "PayloadEmpty"): REFUSED,
    (400, "TopicDisallowed"): Row(meaning=Meaning.TOPIC, advice="pushes to this topic are not allowed"),
    (403, "BadCertificate"): Row(meaning=Meaning.CREDENTIALS, advice="the certificate is not valid"),
    (403, "BadCertificateEnvironment"): Row(
        meaning=Meaning.CREDENTIALS, advice="the certificate is for the other environment"
    ),
    (403, "BadEnvironmentKeyIdInToken"): OTHER_ENVIRONMENT,
    (403, "BadEnvironmentKeyInToken"): OTHER_ENVIRONMENT,  # how live servers have spelt it
    (403, "ExpiredProviderToken"): Row(
        meaning=Meaning.CREDENTIALS,
        source=JWT_PAGE,
        remedy=Remedy.REAUTHORIZE,
        advice="is this machine's clock slow?",
    ),
    (403, "Forbidden"): Row(meaning=Meaning.CREDENTIALS),
    (403, "InvalidProviderToken"): Row(
        meaning=Meaning.CREDENTIALS, advice="key, key id and team id do not fit, or the key was revoked"
    ),
    (403, "MissingProviderToken"): Row(
        meaning=Meaning.CREDENTIALS, advice="no certificate came with the connection"
    ),
    (403, "UnrelatedKeyIdInToken"): Row(
        meaning=Meaning.CREDENTIALS,
        source=JWT_PAGE,
        remedy=Remedy.RECONNECT,
        advice="the key is not of this team, or not for this topic",
    ),
    (404, "BadPath"): REFUSED,
    (405, "MethodNotAllowed"): REFUSED,
    (410, "ExpiredToken"): Row(meaning=Meaning.UNREGISTERED),
    (410, "Unregistered"): Row(meaning=Meaning.UNREGISTERED),
    (413, "PayloadTooLarge"): REFUSED,
    # Apple counts by connection: on a new one the present JWT is the first.
    (429, "TooManyProviderTokenUpdates"): Row(
        meaning=Meaning.UNAVAILABLE, source=JWT_PAGE, delay=LEAST_INTERVAL, remedy=Remedy.RECONNECT
    ),
    (429, "TooManyRequests"): TOO_FAST,
    (500, "InternalServerError"): BROKEN,
    (503, "ServiceUnavailable"): OUTAGE,
    (503, "Shutdown"): Row(meaning=Meaning.UNAVAILABLE, remedy=Remedy.RECONNECT),  # others still serve
}

# For a reason that nobody knows. It never says anything about the token.
BY_STATUS: Mapping[int, Row] = {
    403: Row(meaning=Meaning.CREDENTIALS),  # something is wrong with the certificate or the JWT
    429: TOO_FAST,
}
NOT_APPLE = Row(
    meaning=Meaning.CREDENTIALS,
    source="https://www.rfc-editor.org/rfc/rfc9110#section-15.5",
    advice="APNs gives a reason with each refusal: does the endpoint lead to it?",
)
# For an answer without any reason, which Apple never gives: somebody else answers at this address.
WITHOUT_REASON: Mapping[int, Row] = {
    401: NOT_APPLE,
    403: NOT_APPLE,
    404: NOT_APPLE,
    405: NOT_APPLE,
    407: NOT_APPLE,
    408: Row(meaning=Meaning.UNAVAILABLE, source="https://www.rfc-editor.org/rfc/rfc9110#status.408"),
}
# Looked up last, by the hundreds.
BY_CLASS: Mapping[int, Row] = {3: OUTAGE, 4: REFUSED, 5: BROKEN}

LONGEST_REASON = 200


def read_refusal(response: Response) -> tuple[Row, str]:
    """Return the row for a response that is not 200, and the reason as it is stored."""
    given_reason = json_object(response.body).get("reason")
    if not isinstance(given_reason, str) or not given_reason:
        row = WITHOUT_REASON.get(response.status) or BY_STATUS.get(response.status)
        return row or _by_class(response.status), f"http {response.status}"
    row = BY_REASON.get((response.status, given_reason)) or BY_STATUS.get(response.status)
    return row or _by_class(response.status), given_reason[:LONGEST_REASON]


def _by_class(status: int) -> Row:
    return BY_CLASS.get(status // 100, OUTAGE)


def interpret(row: Row, reason: str, response: Response, now: datetime) -> Outcome | SendError | Verdict:
    """Turn a row into what happens to the push."""
    meaning = _outcome(row, reason, response, now)
    return meaning if row.remedy is None else Verdict(remedy=row.remedy, otherwise=meaning)


def _outcome(row: Row, reason: str, response: Response, now: datetime) -> Outcome | SendError:
    asked_for = retry_after(response, now)
    delay = asked_for or row.delay
    match row.meaning:
        case Meaning.UNREGISTERED:
            return Unregistered(reason=reason, invalidated_at=_invalidated_at(response.body))
        case Meaning.SUSPECT | Meaning.REJECTED:
            return Rejected(reason=reason, suspects_token=row.meaning is Meaning.SUSPECT)
        case Meaning.THROTTLED:
            return Throttled(reason=reason, delay=delay, is_vendor_delay=asked_for is not None)
        case Meaning.UNAVAILABLE:
            return Unavailable(
                reason=reason,
                delay=delay,
                is_vendor_delay=asked_for is not None,
                is_unsure=row.is_unsure,
            )
        case Meaning.CREDENTIALS | Meaning.TOPIC:
            return CredentialsRejected(f"{reason}: {row.advice}" if row.advice else reason)
        case _:
            assert_never(row.meaning)


def _invalidated_at(body: bytes) -> datetime | None:
    """Return when the token died by Apple's clock; `timestamp` is in milliseconds, RESPONSES_PAGE."""
    milliseconds = json_object(body).get("timestamp")
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
