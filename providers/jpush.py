"""JPush (Jiguang) REST v3: portable messages into its dialect, its responses into outcomes.

| portable | Android | iOS |
|---|---|---|
| title, body | `android.title`, `android.alert` (the title alone is the alert) | `ios.alert` |
| subtitle | - | `ios.alert.subtitle` |
| image | `android.big_pic_path`, style 3 | data key `image`, and `ios.mutable-content` |
| icon, color | `android.large_icon`, `android.icon_bg_color` | - |
| sound | `android.sound` | `ios.sound` |
| badge | `android.badge_set_num`, at most 99 | `ios.badge` |
| url | `android.intent.url` and data key `url` | data key `url` |
| data | `android.extras` | `ios.extras` |
| category, thread_id, mutable_content, interruption_level | - | `ios` |
| channel_id | `android.channel_id` | - |
| tag, relevance_score, analytics_label | - | - |
| collapse_key | - (JPush replaces by its own message id only) | `options.apns_collapse_id` |
| priority | `android.priority`: 1 or 0 | - |
| expires_at, ttl_seconds | `options.time_to_live`, at most 10 days | - (JPush's rule) |
| silent, or nothing but data | `message` with `extras`: to the running app, not to the person | the same |
| title_loc_*, body_loc_* | - (shown only beside a title or body) | `ios.alert` |

The section `jpush` is merged over the push object of PUSH_PAGE. One request carries up to 1,000 pushes of the
same rendered body, under one `cid`: when all of them come back unanswered, the very same request is repeated
under the same `cid`, and JPush pushes it once. If one of them is missing, it is another request.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Protocol, assert_never

import orjson

from events import Event, Message, Problem
from events.message import RESERVED_DATA_KEY
from events.validation import join
from providers.apns import IMAGE_KEY, alert
from providers.calls import call
from providers.dialect import (
    Json,
    Words,
    data_of,
    forbidden_overrides,
    given,
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
from providers.jpush_requests import CidPool, RequestTag, digest_of, frozen_body
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
from providers.provider import Batch, Prepared, Split
from providers.reach import Reach

ENDPOINT = "https://api.jpush.cn"
REPORT_ENDPOINT = "https://report.jpush.cn"

PUSH_PAGE = "https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push"
STATUS_PAGE = "https://docs.jiguang.cn/jpush/server/push/http_status_code"
LIMITS_PAGE = "https://docs.jiguang.cn/jpush/server/push/server_overview"
REPORT_PAGE = "https://docs.jiguang.cn/jpush/server/push/rest_api_v3_report"

MOST_IDS = 1000  # of a request, PUSH_PAGE
ANDROID_LIMIT = 4000  # bytes of notification and message, PUSH_PAGE (2019)
IOS_LIMIT = 2000  # bytes of the notification, PUSH_PAGE (2019)
MESSAGE_LIMIT = 4000  # bytes to iOS, PUSH_PAGE (2019)
LONGEST_TTL = timedelta(days=10)  # PUSH_PAGE, options.time_to_live
HIGHEST_BADGE = 99  # PUSH_PAGE, android.badge_set_num
BIG_PICTURE = 3  # PUSH_PAGE, android.style
MOST_IDS_OF_A_REPORT = 1000  # REPORT_PAGE
BEIJING = timezone(timedelta(hours=8))  # days of the report API

WINDOW = timedelta(seconds=60)  # LIMITS_PAGE: quotas are by the minute
LEAST_DELAY = timedelta(seconds=10)  # STATUS_PAGE says "later"

# --- build the request


RESERVED = "the key is reserved for Pushfan"
FORBIDDEN: Mapping[str, str] = {
    "audience": "Pushfan addresses the devices",
    "platform": "Pushfan addresses the devices",
    "cid": "Pushfan gives it, the same when a request is repeated",
    "callback": "it would tell others who receives what",
    "options.apns_production": "the environment belongs to the channel",
    f"notification.android.extras.{RESERVED_DATA_KEY}": RESERVED,
    f"notification.ios.extras.{RESERVED_DATA_KEY}": RESERVED,
    f"notification.hmos.extras.{RESERVED_DATA_KEY}": RESERVED,
    f"message.extras.{RESERVED_DATA_KEY}": RESERVED,
}
OBJECTS = frozenset(
    {"notification", "message", "options", "sms_message", "inapp_message", "notification_3rd"}
)
PLATFORMS = ("android", "ios", "hmos")
KINDS: Mapping[str, str] = {"forbidden": "ForbiddenOverride", "too_large": "PayloadTooLarge"}

# Ids seen have 11 or 19 letters and digits, https://community.jiguang.cn/article/408910 ; this only keeps out
# what certainly is none, because one malformed id spoils the request of a thousand.
REGISTRATION_ID = re.compile(r"[0-9A-Za-z_-]{6,64}")


def render(content: Content, locale: str | None, *, time_to_live: int, is_production: bool) -> Json:
    """Return JPush's push object for devices with this locale, without audience and cid."""
    message = content.event.message
    words = words_for(message, locale)
    options = given(
        apns_production=is_production, time_to_live=time_to_live, apns_collapse_id=message.collapse_key
    )
    portable = given(platform="all", options=options)
    if is_background(message):
        # The content is required and may not be empty; what the app reads is in the extras.
        portable["message"] = {"msg_content": content.event.kind, "extras": data_of(content, message)}
    else:
        android, ios = _android(content, message, words), _ios(content, message, words)
        portable["notification"] = given(android=android, ios=ios)
    push = merge(portable, overrides(message.jpush))
    _keep_reserved_keys(push, content)
    return push


def _android(content: Content, message: Message, words: Words) -> Json:
    """Return the notification on Android; JPush demands words for it."""
    if words.title is None and words.body is None:
        return {}
    return given(
        alert=words.body if words.body is not None else words.title,
        title=words.title if words.body is not None else None,
        large_icon=message.icon,
        icon_bg_color=message.color,
        style=BIG_PICTURE if message.image is not None else None,
        big_pic_path=message.image,
        sound=message.sound,
        badge_set_num=min(message.badge, HIGHEST_BADGE) if message.badge is not None else None,
        channel_id=message.channel_id,
        priority=1 if is_urgent(message) else 0,
        intent=given(url=message.url),
        extras=data_of(content, message),
    )


def _ios(content: Content, message: Message, words: Words) -> Json:
    extras = data_of(content, message)
    if message.image is not None:
        extras.setdefault(IMAGE_KEY, message.image)
    fields = {
        "alert": alert(message, words) or "",  # required; empty shows nothing
        "sound": message.sound,
        "badge": message.badge,
        "category": message.category,
        "thread-id": message.thread_id,
        "mutable-content": True if message.mutable_content or message.image is not None else None,
        "interruption-level": message.interruption_level,
        "extras": extras,
    }
    return given(**fields)


def _keep_reserved_keys(push: Json, content: Content) -> None:
    if isinstance(push.get("message"), Mapping):
        keep_reserved_key(push, content, "message", "extras")
    for platform in PLATFORMS:
        if isinstance(_object(push, "notification").get(platform), Mapping):
            keep_reserved_key(push, content, "notification", platform, "extras")


def _object(parent: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def problems_with(message: Message, push: Json) -> list[Problem]:
    """Name what is wrong with a rendered push object, overrides first, sizes last."""
    problems = forbidden_overrides("jpush", message.jpush, FORBIDDEN)
    problems += _shape_problems(message, push)
    problems += _size_problems(push)
    return problems


def _shape_problems(message: Message, push: Json) -> Iterator[Problem]:
    for name in overrides(message.jpush):
        if name not in OBJECTS and name not in FORBIDDEN:
            yield Problem(
                join("message.jpush", name), "unknown", f"is not a field; {', '.join(sorted(OBJECTS))} are"
            )
    for name in sorted(OBJECTS & push.keys()):
        if not isinstance(push[name], Mapping):
            yield Problem(f"message.jpush.{name}", "type", "must be an object")
    for platform in PLATFORMS:
        if not isinstance(_object(push, "notification").get(platform, {}), Mapping):
            yield Problem(f"message.jpush.notification.{platform}", "type", "must be an object")
    if not _object(push, "notification") and not _object(push, "message"):
        yield Problem("message.jpush", "empty", "leaves neither a notification nor a message")


def _size_problems(push: Json) -> Iterator[Problem]:
    """Measure as JPush does: what goes to one platform."""
    notification, message = _object(push, "notification"), _object(push, "message")
    for_android = {name: notification[name] for name in ("alert", "android") if name in notification}
    message_size = len(json_bytes(message)) if message else 0
    android_size = (len(json_bytes(for_android)) if for_android else 0) + message_size
    ios_size = len(json_bytes(notification["ios"])) if "ios" in notification else 0
    for what, size, limit in (
        ("the Android payload", android_size, ANDROID_LIMIT),
        ("the iOS notification", ios_size, IOS_LIMIT),
        ("the iOS message", message_size, MESSAGE_LIMIT),
    ):
        if (problem := size_problem("jpush", what, size, limit)) is not None:
            yield problem


def check_event(event: Event) -> list[Problem]:
    """Name what JPush would refuse: overrides, and payloads too large in any language."""
    message = event.message
    if not is_enabled(message.jpush):
        return []
    longest = Content(notification_id=2**63 - 1, event=event, expires_at=datetime.max.replace(tzinfo=UTC))
    found = [
        problem
        for locale in (None, *message.translations)
        for problem in problems_with(message, render(longest, locale, time_to_live=0, is_production=True))
    ]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A rendered push object, shared by all pushes that say the same."""

    push_object: bytes = field(repr=False)
    time_to_live: int
    is_resend_allowed: bool


class Call(Protocol):
    """How questions are asked that send nothing to a device; as `providers.calls.call`."""

    def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = ...,
        ca_file: str | None = ...,
        reach: Reach | None = ...,
    ) -> Response:
        """Return any answer. Raises `NotSent` when there is none."""


class JPushProvider:
    """Speaks JPush for one app. Used by one thread of one process."""

    name = "jpush"
    batch_limit = MOST_IDS

    def __init__(self, config: ChannelConfig, *, now: Callable[[], datetime], ask: Call = call) -> None:
        """Raise `CredentialsRejected` for unusable credentials, `ValueError` for a bad endpoint."""
        self._endpoint = (config.endpoint or ENDPOINT).rstrip("/")
        self._report_endpoint = (config.report_endpoint or REPORT_ENDPOINT).rstrip("/")
        assert_safe_address(self._endpoint)
        assert_safe_address(self._report_endpoint)
        self._credentials = _read_credentials(config)
        self._authorization = (f"authorization: {self._credentials}",)
        self._headers = ("content-type: application/json",)
        self._is_production = config.environment == "production"
        self._config = config
        self._now = now
        self._ask = ask
        self._cids = CidPool(self._ask_for_cids, lambda response: interpret(response, now()), now=now)
        self._doubts = Doubts()

    def prepare(self, pushes: Sequence[Push]) -> Prepared:
        """Rebuild the requests whose pushes came back complete; bundle all others by what they say.

        May fetch cids, within a few seconds.
        """
        prepared = Prepared(batches=[], answers=[])
        fresh: list[Push] = []
        repeated: dict[str, list[Push]] = {}
        for push in pushes:
            if push.request_tag is None:
                fresh.append(push)
            else:
                repeated.setdefault(push.request_tag, []).append(push)
        for tag, members in repeated.items():
            batch = self._same_request(tag, members)
            if batch is None:
                fresh += members
            else:
                prepared.batches.append(batch)
        self._bundle(fresh, prepared)
        return prepared

    def authorize(self) -> tuple[str, ...]:
        """Return the header with app key and master secret."""
        return self._authorization

    def reauthorize(self) -> None:
        """Do nothing: the credentials do not expire."""

    def classify(self, batch: Batch, response: Response) -> list[Answer] | Split:
        """Say what the response means for all pushes of the batch; or how to find out for each of them."""
        meaning = interpret(response, self._now())
        if isinstance(meaning, Accepted):
            self._doubts.clear(_wording(batch))
        elif read_code(response) == INVALID_VALUE:
            return self._narrow_down(batch, meaning)
        elif isinstance(meaning, Rejected) and meaning.suspects_token and self._is_partial(batch.pushes[0]):
            # It reaches nobody on the platform that it leaves out, however good the ids are.
            meaning = Rejected(reason=meaning.reason)
        return [Answer(push=push, outcome=meaning) for push in batch.pushes]

    def poll_receipts(
        self, message_id: str, tokens: Sequence[str], sent_at: datetime
    ) -> Mapping[str, Outcome | None]:
        """Ask what became of an accepted request; `None` for ids whose fate is not known (yet).

        `Unregistered` ("NotOfThisApp") is JPush's word that the id does not belong to this app key. The
        request was accepted, so it reached somebody of this app: the credentials were not another app's.
        Raises `NotSent` when the question was not answered, `CredentialsRejected` when it was refused.
        """
        outcomes: dict[str, Outcome | None] = dict.fromkeys(tokens)
        for start in range(0, len(tokens), MOST_IDS_OF_A_REPORT):
            outcomes |= self._statuses(message_id, tokens[start : start + MOST_IDS_OF_A_REPORT], sent_at)
        return outcomes

    def check(self) -> None:
        """Ask for a cid: that needs the credentials and sends nothing."""
        response = self._ask_for_cids(1)
        if response.status != 200:
            _raise_refusal(response, self._now())

    def _same_request(self, tag: str, pushes: Sequence[Push]) -> Batch | None:
        """Return the request again that these pushes were in, or `None` if it would be another one."""
        parsed = RequestTag.parse(tag)
        if parsed is None or len(pushes) > MOST_IDS:
            return None
        rendered = {
            self._ready(content, locale, parsed.time_to_live) for content, locale in _distinct(pushes)
        }
        if len(rendered) != 1 or not isinstance(ready := rendered.pop(), _Ready):
            return None
        body = frozen_body(ready.push_object, (push.token for push in pushes))
        if digest_of(body) != parsed.digest:
            return None
        return replace(self._batch(pushes, ready, body, parsed), is_repeat=True)

    def _bundle(self, pushes: Sequence[Push], into: Prepared) -> None:
        """Put pushes that say the same into one request, up to the limit."""
        now = self._now()
        rendered: dict[tuple[int, str | None], _Ready | Rejected] = {}
        for content, locale in _distinct(pushes):
            time_to_live = seconds_to_live(content, now, LONGEST_TTL)
            rendered[content.notification_id, locale] = self._ready(content, locale, time_to_live)
        groups: dict[_Ready, list[Push]] = {}
        for push in pushes:
            ready = rendered[push.content.notification_id, push.locale]
            if isinstance(ready, _Ready) and not REGISTRATION_ID.fullmatch(push.token):
                ready = Rejected(reason="MalformedRegistrationId", suspects_token=True)
            if isinstance(ready, _Ready):
                groups.setdefault(ready, []).append(push)
            else:
                into.answers.append(Answer(push=push, outcome=ready))
        for ready, members in groups.items():
            for start in range(0, len(members), MOST_IDS):
                self._bundle_one(members[start : start + MOST_IDS], ready, into)

    def _bundle_one(self, pushes: Sequence[Push], ready: _Ready, into: Prepared) -> None:
        cid = self._cids.take()
        if not isinstance(cid, str):
            into.answers.extend(Answer(push=push, outcome=cid) for push in pushes)
            return
        body = frozen_body(ready.push_object, (push.token for push in pushes))
        tag = RequestTag(cid=cid, digest=digest_of(body), time_to_live=ready.time_to_live)
        into.batches.append(self._batch(pushes, ready, body, tag))

    def _ready(self, content: Content, locale: str | None, time_to_live: int) -> _Ready | Rejected:
        """Render and check a content in one language; or say why it is not sent."""
        message = content.event.message
        if not is_enabled(message.jpush):
            return Rejected(reason="DisabledForProvider")
        push = render(content, locale, time_to_live=time_to_live, is_production=self._is_production)
        if problems := problems_with(message, push):
            kind = KINDS.get(problems[0].code, "InvalidMessage")
            return Rejected(reason=f"{kind}: {problems[0]}")
        return _Ready(
            # Sorted, because the database does not keep the order of a section's keys.
            push_object=orjson.dumps(push, option=orjson.OPT_SORT_KEYS),
            time_to_live=time_to_live,
            is_resend_allowed=is_resend_allowed(message),
        )

    def _batch(self, pushes: Sequence[Push], ready: _Ready, body: bytes, tag: RequestTag) -> Batch:
        return Batch(
            pushes=tuple(pushes),
            url=f"{self._endpoint}/v3/push",
            headers=self._headers,
            body=b'{"cid":' + json_bytes(tag.cid) + b"," + body[1:],
            timeout=self._config.timeout,
            request_tag=str(tag),
            is_resend_allowed=ready.is_resend_allowed,
        )

    def _narrow_down(self, batch: Batch, meaning: Outcome | SendError) -> list[Answer] | Split:
        """Look for the id at fault by sending parts, as long as the message is not what is at fault.

        A repeated request may be refused for its `cid`, which is good for a day: it is sent under another one first.
        """
        pushes, wording = batch.pushes, _wording(batch)
        is_proven = self._doubts.is_proven(wording)
        if self._doubts.is_message_at_fault(wording):
            return [Answer(push=push, outcome=meaning) for push in pushes]
        if len(pushes) == 1 and not batch.is_repeat:
            self._doubts.add(wording)
            suspect = Rejected(reason=_reason(INVALID_VALUE), suspects_token=True, needs_proof=not is_proven)
            return [Answer(push=pushes[0], outcome=suspect)]
        parts = Prepared(batches=[], answers=[])
        for part in _parts(pushes, is_proven=is_proven):
            self._bundle(part, parts)
        return Split(batches=[_with_tags(part) for part in parts.batches], answers=parts.answers)

    def _is_partial(self, push: Push) -> bool:
        """Tell whether a message says nothing to one of the platforms."""
        rendered = render(push.content, push.locale, time_to_live=0, is_production=self._is_production)
        notification = _object(rendered, "notification")
        return not (_object(rendered, "message") or {"android", "ios"} <= notification.keys())

    def _ask_for_cids(self, count: int) -> Response:
        url = f"{self._endpoint}/v3/push/cid?count={count}&type=push"
        headers = {"authorization": self._credentials}
        return self._ask("GET", url, headers=headers, ca_file=self._config.ca_file, reach=self._config.reach)

    def _statuses(
        self, message_id: str, tokens: Sequence[str], sent_at: datetime
    ) -> Mapping[str, Outcome | None]:
        question = {
            "msg_id": int(message_id) if message_id.isdecimal() else message_id,
            "registration_ids": list(tokens),
            "date": f"{sent_at.astimezone(BEIJING):%Y-%m-%d}",
        }
        response = self._ask(
            "POST",
            f"{self._report_endpoint}/v3/status/message",
            headers={"authorization": self._credentials, "content-type": "application/json"},
            body=json_bytes(question),
            ca_file=self._config.ca_file,
            reach=self._config.reach,
        )
        if response.status != 200:
            if 400 <= response.status < 500 and isinstance(interpret(response, self._now()), Rejected):
                return {}  # the question is refused for good: nothing will ever be known
            _raise_refusal(response, self._now())
        answer = json_object(response.body)
        return {token: read_status(_object(answer, token).get("status"), message_id) for token in tokens}


def _read_credentials(config: ChannelConfig) -> str:
    """Return the value of the authorization header."""
    parts = []
    for name in ("app_key", "master_secret"):
        value = config.secrets.get(name, b"").strip()
        if not value or not value.isalnum():
            raise CredentialsRejected(f"jpush: {name} must be the letters and digits that JPush shows")
        parts.append(value)
    return f"Basic {base64.b64encode(b':'.join(parts)).decode()}"


Wording = tuple[int, Words]


def _wording(batch: Batch) -> Wording:
    """Say which notification a request is of, and in which language."""
    push = batch.pushes[0]
    return push.content.notification_id, words_for(push.content.event.message, push.locale)


def _distinct(pushes: Iterable[Push]) -> Iterator[tuple[Content, str | None]]:
    """Yield each content with each locale once."""
    found = {(push.content.notification_id, push.locale): push.content for push in pushes}
    for (_, locale), content in found.items():
        yield content, locale


def _parts(pushes: Sequence[Push], *, is_proven: bool) -> Iterator[Sequence[Push]]:
    """Yield halves; while no push of this message was ever accepted, a single one before them.

    Single ones show soon whether the message itself is at fault: halves alone would show it after two
    requests for each device, and the quota is ten requests a second.
    """
    rest = pushes if is_proven else pushes[1:]
    middle = (len(rest) + 1) // 2
    yield from (part for part in (pushes[: len(pushes) - len(rest)], rest[:middle], rest[middle:]) if part)


def _with_tags(batch: Batch) -> Batch:
    """Let the pushes carry the tag of the part they are in now: nobody else could know it."""
    return replace(batch, pushes=tuple(replace(push, request_tag=batch.request_tag) for push in batch.pushes))


class Doubts:
    """Whether "a value is invalid" is about ids or about the message, by what happened to its other pushes.

    Remembers the latest thousand messages, each language on its own. A message that was accepted once is not at
    fault; one that was refused for several single ids, and never accepted, is. Who was refused before that is
    known may not be blamed yet: see `Rejected.needs_proof`.
    """

    ENOUGH = 3
    KEPT = 1000

    def __init__(self) -> None:
        self._refused: dict[Wording, int] = {}
        self._proven: dict[Wording, None] = {}

    def clear(self, wording: Wording) -> None:
        """Note that a push of the message was accepted."""
        if wording not in self._proven:
            self._proven[wording] = None
            self._refused.pop(wording, None)
            if len(self._proven) > self.KEPT:
                del self._proven[next(iter(self._proven))]

    def add(self, wording: Wording) -> None:
        """Note that a push to a single id was refused."""
        self._refused[wording] = self._refused.get(wording, 0) + 1
        if len(self._refused) > self.KEPT:
            del self._refused[next(iter(self._refused))]

    def is_proven(self, wording: Wording) -> bool:
        """Tell whether the message was ever accepted."""
        return wording in self._proven

    def is_message_at_fault(self, wording: Wording) -> bool:
        """Tell whether to stop blaming ids."""
        return not self.is_proven(wording) and self._refused.get(wording, 0) >= self.ENOUGH


# --- classify the response


class Meaning(StrEnum):
    """What a row of the table says about all pushes of a request."""

    SUSPECT = "suspect"
    REJECTED = "rejected"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    CREDENTIALS = "credentials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: what an answer means, our word for it, who says so, and whether the push may be out all the same."""

    meaning: Meaning
    word: str
    source: str = PUSH_PAGE
    is_unsure: bool = False


INVALID_VALUE = 1003

# By `error.code`, whatever the status.
BY_CODE: Mapping[int, Row] = {
    1000: Row(meaning=Meaning.UNAVAILABLE, word="InternalError", is_unsure=True),
    1001: Row(meaning=Meaning.REJECTED, word="NotPost"),
    1002: Row(meaning=Meaning.REJECTED, word="MissingParameter"),
    # For a request to one id, or to several, see `_narrow_down`.
    INVALID_VALUE: Row(meaning=Meaning.REJECTED, word="InvalidValue"),
    1004: Row(meaning=Meaning.CREDENTIALS, word="AuthenticationFailed"),
    1005: Row(meaning=Meaning.REJECTED, word="TooLarge"),
    1008: Row(meaning=Meaning.CREDENTIALS, word="InvalidAppKey"),
    1009: Row(meaning=Meaning.REJECTED, word="UnknownKey"),
    # Nobody of the audience is known or was active in 255 days: each id is doubtful, none is called dead.
    1011: Row(meaning=Meaning.SUSPECT, word="NoTarget"),
    1012: Row(meaning=Meaning.REJECTED, word="TimedPushLimit"),
    1020: Row(meaning=Meaning.REJECTED, word="HttpsOnly"),
    1030: Row(meaning=Meaning.UNAVAILABLE, word="InternalTimeout", is_unsure=True),
    2002: Row(meaning=Meaning.THROTTLED, word="RateLimit", source=LIMITS_PAGE),
    2003: Row(meaning=Meaning.CREDENTIALS, word="AppKeyBlocked", source=STATUS_PAGE),
    2004: Row(meaning=Meaning.CREDENTIALS, word="AddressNotAllowed", source=STATUS_PAGE),
    2005: Row(meaning=Meaning.CREDENTIALS, word="VolumeBeyondReason", source=STATUS_PAGE),
    2006: Row(meaning=Meaning.CREDENTIALS, word="PaidOnly", source=STATUS_PAGE),
    2007: Row(meaning=Meaning.CREDENTIALS, word="NotAllowed", source=STATUS_PAGE),
}

NOT_JPUSH = Row(
    meaning=Meaning.CREDENTIALS, word="", source="https://www.rfc-editor.org/rfc/rfc9110#section-15.5"
)
OUTAGE = Row(meaning=Meaning.UNAVAILABLE, word="", source=STATUS_PAGE)
# Something broke or ran out of time behind the door: the push may be through.
BROKEN = Row(meaning=Meaning.UNAVAILABLE, word="", source=STATUS_PAGE, is_unsure=True)
# For an answer without a code, or with one that nobody knows. It never says anything about an id.
BY_STATUS: Mapping[int, Row] = {
    401: NOT_JPUSH,
    403: NOT_JPUSH,
    407: NOT_JPUSH,
    408: Row(
        meaning=Meaning.UNAVAILABLE, word="", source="https://www.rfc-editor.org/rfc/rfc9110#status.408"
    ),
    429: Row(meaning=Meaning.THROTTLED, word="", source=LIMITS_PAGE),
    500: BROKEN,
    502: BROKEN,
    503: OUTAGE,
    504: BROKEN,
}
# JPush gives a code with each refusal: without one, somebody else answers at this address.
WITHOUT_CODE: Mapping[int, Row] = {404: NOT_JPUSH, 405: NOT_JPUSH}
# Looked up last, by the hundreds.
BY_CLASS: Mapping[int, Row] = {
    3: OUTAGE,
    4: Row(meaning=Meaning.REJECTED, word="", source=STATUS_PAGE),
    5: BROKEN,
}
LONGEST_REASON = 200


def interpret(response: Response, now: datetime) -> Outcome | SendError:
    """Say what one response means for all the pushes of its request, taken together."""
    if response.status == 200:
        return _read_acceptance(response)
    code = read_code(response)
    row = _row_for(response.status, code)
    reason = _reason(code) if code is not None else f"http {response.status}"
    match row.meaning:
        case Meaning.SUSPECT | Meaning.REJECTED:
            return Rejected(reason=reason, suspects_token=row.meaning is Meaning.SUSPECT)
        case Meaning.THROTTLED:
            asked_for = _window_reset(response) or retry_after(response, now)
            return Throttled(reason=reason, delay=asked_for or WINDOW, is_vendor_delay=asked_for is not None)
        case Meaning.UNAVAILABLE:
            asked_for = retry_after(response, now)
            return Unavailable(
                reason=reason,
                delay=asked_for or LEAST_DELAY,
                is_vendor_delay=asked_for is not None,
                is_unsure=row.is_unsure,
            )
        case Meaning.CREDENTIALS:
            return CredentialsRejected(_explained(reason, response))
        case _:
            assert_never(row.meaning)


def read_code(response: Response) -> int | None:
    """Return `error.code` of a refusal."""
    code = _object(json_object(response.body), "error").get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def read_status(status: object, message_id: str) -> Outcome | None:
    """Say what a status of the report API means, REPORT_PAGE; `None` for one that decides nothing.

    0 is received and 1 not received yet: of this app, both. 3 is of this app, but was not in the request; 4
    is JPush's own trouble.
    """
    if status in (0, 1):
        return Accepted(message_id=message_id)
    return Unregistered(reason="NotOfThisApp") if status == 2 else None


def _read_acceptance(response: Response) -> Outcome | SendError:
    message_id = json_object(response.body).get("msg_id")
    if isinstance(message_id, str | int) and not isinstance(message_id, bool):
        return Accepted(message_id=str(message_id), provisional=True)
    return AnswerUnknown("http 200 without a msg_id")


def _row_for(status: int, code: int | None) -> Row:
    if code is not None and code in BY_CODE:
        return BY_CODE[code]
    if code is None and status in WITHOUT_CODE:
        return WITHOUT_CODE[status]
    return BY_STATUS.get(status) or BY_CLASS.get(status // 100, OUTAGE)


def _reason(code: int) -> str:
    row = BY_CODE.get(code)
    return f"{code} {row.word}" if row is not None else str(code)


def _explained(reason: str, response: Response) -> str:
    """Add JPush's own words, which are about the account and not about a message."""
    text = _object(json_object(response.body), "error").get("message")
    words = text if isinstance(text, str) and text else "does the endpoint lead to JPush?"
    return f"{reason}: {words}"[:LONGEST_REASON]


def _window_reset(response: Response) -> timedelta | None:
    """Return the seconds until the next window of the quota, LIMITS_PAGE."""
    value = response.headers.get("x-rate-limit-reset", "").strip()
    if not (value.isascii() and value.isdecimal()):
        return None
    return timedelta(seconds=min(max(1, int(value[:9])), 3600))


def _raise_refusal(response: Response, now: datetime) -> None:
    """Raise what a refused question means: nothing was sent."""
    meaning = interpret(response, now)
    if isinstance(meaning, SendError):
        raise meaning
    raise NotSent(f"JPush cannot tell now: {getattr(meaning, 'reason', 'http 200')}")
