"""How pushes become JPush requests: bundles, cids of one body each, repetitions, and narrowing down."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import DirectPush, Message, OnUnknown
from providers.engine import Response
from providers.jpush import JPushProvider
from providers.outcome import (
    Accepted,
    Answer,
    ChannelConfig,
    Content,
    CredentialsRejected,
    NotSent,
    Push,
    Rejected,
    Throttled,
    Unregistered,
)
from providers.provider import Batch, Split
from providers.reach import Reach

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CHANNEL = ChannelConfig(
    provider="jpush",
    secrets={"app_key": b"7d431e42dfa6a6d693ac2d04", "master_secret": b"5e987ac6d2e04d95a9d8f0d1"},
)
DOUBT = Rejected(reason="1003 InvalidValue", suspects_token=True, needs_proof=True)
INVALID = Response(status=400, body=b'{"error":{"code":1003,"message":"Parameter value is invalid."}}')
NO_TARGET = Response(
    status=400, body=b'{"error":{"code":1011,"message":"cannot find user by this audience"}}'
)


@dataclass
class Desk:
    """Answers the rare questions, and remembers them. Gives cids unless told otherwise."""

    questions: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[str], Response] | None = None
    most: int = 1000
    numbers: Iterator[int] = field(default_factory=count)

    def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        ca_file: str | None = None,
        reach: Reach | None = None,
    ) -> Response:
        self.questions.append((method, url, headers, body))
        if self.answer is not None:
            return self.answer(url)
        wanted = int(re.findall(r"count=(\d+)", url)[0])
        if wanted > self.most:
            return Response(status=400, body=b'{"error":{"code":1003,"message":"count is invalid"}}')
        cids = [f"7d431e42dfa6a6d693ac2d04-{next(self.numbers):036d}" for _ in range(wanted)]
        return Response(status=200, body=json.dumps({"cidlist": cids}).encode())


class Clock:
    """A clock that a test sets."""

    at = NOW

    def __call__(self) -> datetime:
        return self.at


@dataclass
class Scene:
    """A provider, its clock and the desk it asks."""

    clock: Clock = field(default_factory=Clock)
    desk: Desk = field(default_factory=Desk)
    channel: ChannelConfig = CHANNEL

    def __post_init__(self) -> None:
        self.provider = JPushProvider(self.channel, now=self.clock, ask=self.desk)

    def batches(self, pushes: Sequence[Push]) -> list[Batch]:
        """The requests for these pushes, none of which is refused."""
        prepared = self.provider.prepare(pushes)
        assert prepared.answers == []
        return prepared.batches


def token(number: int) -> str:
    """A registration id."""
    return f"1a0018970a{number:09d}"


def content(
    number: int = 7, message: Message | None = None, *, lives: timedelta = timedelta(hours=1)
) -> Content:
    """A direct message as a notification."""
    event = DirectPush(app="shop", users=("u7",), message=message or Message(title="Shipped"))
    return Content(notification_id=number, event=event, expires_at=NOW + lives)


def pushes(
    number: int, of: Content | None = None, *, first: int = 0, locale: str | None = None
) -> list[Push]:
    """Pushes of one notification to devices of their own."""
    of = of or content()
    return [
        Push(position=n, token=token(first + n), content=of, delivery_id=f"d{n}", locale=locale)
        for n in range(number)
    ]


def tagged(pushes: Sequence[Push], batch: Batch) -> list[Push]:
    """The pushes as they come back after an unanswered try."""
    return [replace(push, request_tag=batch.request_tag) for push in pushes]


def body(batch: Batch) -> Any:
    """What JPush reads."""
    return json.loads(batch.body)


def devices(batch: Batch) -> list[str]:
    """Whom the request addresses."""
    audience = body(batch)["audience"]
    assert list(audience) == ["registration_id"]
    ids: list[str] = audience["registration_id"]
    return ids


# --- bundles


def test_one_request_carries_all_pushes_that_say_the_same() -> None:
    """The whole request."""
    sent = pushes(3)
    (batch,) = Scene().batches(sent)
    assert batch.url == "https://api.jpush.cn/v3/push"
    assert batch.headers == ("content-type: application/json",)
    assert batch.pushes == tuple(sent)
    assert body(batch) == {
        "cid": "7d431e42dfa6a6d693ac2d04-000000000000000000000000000000000000",
        "platform": "all",
        "audience": {"registration_id": [token(0), token(1), token(2)]},
        "notification": {
            "android": {"alert": "Shipped", "priority": 1, "extras": {"pushfan": '{"n":"7","k":"direct"}'}},
            "ios": {"alert": {"title": "Shipped"}, "extras": {"pushfan": '{"n":"7","k":"direct"}'}},
        },
        "options": {"apns_production": True, "time_to_live": 3600},
    }


def test_the_authorization_is_app_key_and_secret() -> None:
    """Basic, and the same object each time; nothing of it in the request before."""
    provider = Scene().provider
    (line,) = provider.authorize()
    assert line.startswith("authorization: Basic ")
    assert base64.b64decode(line.split()[2]) == b"7d431e42dfa6a6d693ac2d04:5e987ac6d2e04d95a9d8f0d1"
    provider.reauthorize()
    assert provider.authorize() is provider.authorize()


@settings(deadline=None)
@given(st.integers(0, 3200))
def test_no_request_addresses_more_than_a_thousand(number: int) -> None:
    """Each push is in exactly one request."""
    sent = pushes(number)
    batches = Scene().batches(sent)
    assert len(batches) == -(-number // 1000)
    assert all(0 < len(devices(batch)) <= 1000 for batch in batches)
    assert Counter(push.position for batch in batches for push in batch.pushes) == dict.fromkeys(
        range(number), 1
    )
    assert len({body(batch)["cid"] for batch in batches}) == len(batches)


def test_contents_and_languages_that_differ_are_different_requests() -> None:
    """Languages without a translation of their own share one."""
    message = Message(title="Shipped", translations={"de": {"title": "Versandt"}})
    sent = [
        *pushes(2, content(7, message), locale="de"),
        *pushes(2, content(7, message), first=10, locale="fr"),
        *pushes(2, content(7, message), first=20),
        *pushes(2, content(8), first=30),
    ]
    batches = Scene().batches(sent)
    assert sorted(len(batch.pushes) for batch in batches) == [2, 2, 4]
    by_alert = {
        (body(batch)["notification"]["android"]["alert"], batch.pushes[0].content.notification_id): len(
            batch.pushes
        )
        for batch in batches
    }
    assert by_alert == {("Versandt", 7): 2, ("Shipped", 7): 4, ("Shipped", 8): 2}


def test_two_pushes_to_one_device_are_addressed_once_and_both_answered() -> None:
    """JPush shall not find an id twice in a list."""
    sent = [*pushes(1), *pushes(1)]
    (batch,) = Scene().batches(sent)
    assert devices(batch) == [token(0)]
    assert len(batch.pushes) == 2


@pytest.mark.parametrize("bad", ["", "x", "1a0018970a8d,all", "all the others", "é" * 19, "1" * 65])
def test_an_id_that_cannot_be_one_spoils_no_request(bad: str) -> None:
    """One malformed id would make JPush refuse a thousand."""
    good, malformed = pushes(1), replace(pushes(1)[0], token=bad)
    prepared = Scene().provider.prepare([malformed, *good])
    assert prepared.answers == [
        Answer(push=malformed, outcome=Rejected(reason="MalformedRegistrationId", suspects_token=True))
    ]
    assert [batch.pushes for batch in prepared.batches] == [tuple(good)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(title="-", jpush={"enabled": False}), "DisabledForProvider"),
        (
            Message(title="-", jpush={"audience": "all"}),
            "ForbiddenOverride: message.jpush.audience: cannot be overridden: Pushfan addresses the devices",
        ),
        (
            Message(silent=True, data={"x": "y" * 4000}),
            "PayloadTooLarge: message.jpush: the Android payload is 4085 bytes, the limit is 4000",
        ),
    ],
)
def test_a_refused_message_holds_up_no_other(message: Message, reason: str) -> None:
    """Its pushes are answered here; the others are sent, and no cid is spent."""
    refused, good = pushes(2, content(9, message)), pushes(2)
    prepared = Scene().provider.prepare([refused[0], *good, refused[1]])
    assert prepared.answers == [Answer(push=push, outcome=Rejected(reason=reason)) for push in refused]
    assert [batch.pushes for batch in prepared.batches] == [tuple(good)]


@pytest.mark.parametrize(
    ("lives", "seconds"),
    [(timedelta(days=28), 864_000), (timedelta(minutes=5), 300), (timedelta(0), 0), (timedelta(hours=-1), 0)],
)
def test_the_time_to_live_is_what_is_left_up_to_ten_days(lives: timedelta, seconds: int) -> None:
    """0 is for devices that are online."""
    (batch,) = Scene().batches(pushes(1, content(lives=lives)))
    assert body(batch)["options"]["time_to_live"] == seconds


@pytest.mark.parametrize(("on_unknown", "is_allowed"), [(OnUnknown.DROP, False), (OnUnknown.RETRY, True)])
def test_a_message_to_be_dropped_is_not_resent_below_us(on_unknown: OnUnknown, *, is_allowed: bool) -> None:
    """What may be repeated silently is the message's choice."""
    (batch,) = Scene().batches(pushes(1, content(message=Message(title="-", on_unknown=on_unknown))))
    assert batch.is_resend_allowed is is_allowed


@pytest.mark.parametrize(
    ("environment", "is_production"), [("production", True), ("sandbox", False), ("development", False)]
)
def test_the_environment_is_the_channels(environment: str, *, is_production: bool) -> None:
    """A development build on iOS hears nothing from the other environment."""
    (batch,) = Scene(channel=replace(CHANNEL, environment=environment)).batches(pushes(1))
    assert body(batch)["options"]["apns_production"] is is_production


# --- repetitions


def test_the_same_pushes_are_the_same_request_again() -> None:
    """Byte for byte, in whatever order they come back, and an hour later: JPush pushes it once."""
    scene = Scene()
    sent = pushes(50)
    (first,) = scene.batches(sent)
    scene.clock.at += timedelta(minutes=20)
    (again,) = scene.batches(tagged(sent, first)[::-1])
    assert again.body == first.body
    assert again.request_tag == first.request_tag


def test_another_process_repeats_the_same_request() -> None:
    """Nothing but the tag is needed."""
    sent = pushes(50)
    (first,) = Scene().batches(sent)
    (again,) = Scene(desk=Desk(numbers=count(900))).batches(tagged(sent, first))
    assert again.body == first.body


def test_the_order_of_a_sections_keys_makes_no_other_request() -> None:
    """The database does not keep it."""
    one = Message(
        title="-", jpush={"options": {"sendno": 1, "big_push_duration": 2}, "message": {"title": "t"}}
    )
    two = Message(
        title="-", jpush={"message": {"title": "t"}, "options": {"big_push_duration": 2, "sendno": 1}}
    )
    (first,) = Scene().batches(pushes(3, content(message=one)))
    (again,) = Scene().batches(tagged(pushes(3, content(message=two)), first))
    assert again.body == first.body


OTHER: dict[str, Callable[[list[Push]], list[Push]]] = {
    "one is missing": lambda sent: sent[1:],
    "one has a new token": lambda sent: [replace(sent[0], token=token(999)), *sent[1:]],
    "one is new": lambda sent: [*sent, replace(sent[0], token=token(999))],
    "the message is another one": lambda sent: [replace(push, content=content(8)) for push in sent],
    "one speaks of something else": lambda sent: [replace(sent[0], content=content(8)), *sent[1:]],
}


@pytest.mark.parametrize("change", OTHER)
def test_another_request_never_gets_a_used_cid(change: str) -> None:
    """JPush would answer it with the old success, and push nothing."""
    scene = Scene()
    sent = pushes(5)
    (first,) = scene.batches(sent)
    batches = scene.batches(OTHER[change](tagged(sent, first)))
    assert body(first)["cid"] not in [body(batch)["cid"] for batch in batches]
    assert {push.token for batch in batches for push in batch.pushes} == {
        push.token for push in OTHER[change](sent)
    }


@pytest.mark.parametrize("tag", ["", "nonsense", "cid#", "a#b#c", "x#0123-", "x#0123-99999999", "é" * 9])
def test_a_tag_that_is_not_ours_is_ignored(tag: str) -> None:
    """The pushes are sent as if it were the first time."""
    (batch,) = Scene().batches([replace(push, request_tag=tag) for push in pushes(3)])
    assert len(batch.pushes) == 3
    assert batch.request_tag != tag


def test_repeated_requests_keep_apart_and_what_is_left_of_others_is_bundled_anew() -> None:
    """Three earlier requests come back together, one of them incomplete, with a push that is new."""
    scene = Scene()
    groups = [pushes(4, first=first) for first in (0, 10, 20)]
    first = [scene.batches(group)[0] for group in groups]
    back = [push for group, batch in zip(groups, first, strict=True) for push in tagged(group, batch)]
    batches = scene.batches([*back[:-1], *pushes(1, first=30)])
    bodies = {batch.body for batch in batches}
    assert {first[0].body, first[1].body} < bodies
    assert len(batches) == 3
    (rest,) = (batch for batch in batches if batch.body not in {first[0].body, first[1].body})
    assert devices(rest) == [token(20), token(21), token(22), token(30)]


@given(st.permutations(range(12)), st.integers(0, 11))
def test_a_cid_belongs_to_one_set_of_devices(order: list[int], missing: int) -> None:
    """In every order the same cid; without any one of them another."""
    scene = Scene()
    sent = pushes(12)
    (first,) = scene.batches(sent)
    back = tagged(sent, first)
    (same,) = scene.batches([back[index] for index in order])
    (other,) = scene.batches([back[index] for index in order if index != missing])
    assert body(same)["cid"] == body(first)["cid"] != body(other)["cid"]


# --- cids


def test_cids_are_fetched_in_bulk_and_each_is_used_once() -> None:
    """One question for a hundred requests."""
    scene = Scene()
    cids = [body(scene.batches(pushes(1))[0])["cid"] for _ in range(250)]
    assert len(set(cids)) == 250
    assert [url for _, url, _, _ in scene.desk.questions] == [
        "https://api.jpush.cn/v3/push/cid?count=100&type=push"
    ] * 3


def test_fewer_are_asked_for_where_a_hundred_are_refused() -> None:
    """Who does not pay gets ten at once; that is found out once."""
    scene = Scene(desk=Desk(most=10))
    assert len({body(scene.batches(pushes(1))[0])["cid"] for _ in range(25)}) == 25
    assert [re.findall(r"count=(\d+)", url) for _, url, _, _ in scene.desk.questions] == [
        ["100"], ["10"], ["10"], ["10"],
    ]  # fmt: skip


def test_old_cids_are_not_used() -> None:
    """One is good for a day, and must still be when its request is repeated."""
    scene = Scene()
    scene.batches(pushes(1))
    scene.clock.at += timedelta(hours=11)
    scene.batches(pushes(1))
    assert len(scene.desk.questions) == 1
    scene.clock.at += timedelta(hours=2)
    scene.batches(pushes(1))
    assert len(scene.desk.questions) == 2


def unreachable(_: str) -> Response:
    """Nobody answers."""
    raise NotSent("no answer from api.jpush.cn")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (unreachable, "NotSent: no answer from api.jpush.cn"),
        (
            lambda _: Response(status=401, body=b'{"error":{"code":1004,"message":"Authen failed."}}'),
            "CredentialsRejected: 1004 AuthenticationFailed: Authen failed.",
        ),
        (
            lambda _: Response(status=429, headers={"x-rate-limit-reset": "9"}, body=b""),
            "Throttled: http 429",
        ),
        (lambda _: Response(status=503, body=b""), "NotSent: no cid: http 503"),
        (lambda _: Response(status=400, body=b""), "NotSent: no cid: http 400"),
        (
            lambda _: Response(status=200, body=b'{"cidlist":[]}'),
            "NotSent: no cid: http 200 without any",
        ),
        (
            lambda _: Response(status=200, body=b'{"cidlist":["a#b"]}'),
            "NotSent: no cid: http 200 without any",
        ),
    ],
)
def test_without_a_cid_nothing_is_sent(answer: Callable[[str], Response], expected: str) -> None:
    """A push without one could not be repeated safely; the answer says why, for certain."""
    scene = Scene(desk=Desk(answer=answer))
    sent = pushes(3)
    prepared = scene.provider.prepare(sent)
    assert prepared.batches == []
    assert [answer.push for answer in prepared.answers] == sent
    for got in prepared.answers:
        assert not isinstance(got.outcome, Accepted)
        assert f"{type(got.outcome).__name__}: {got.outcome.reason}" == expected


def test_a_failure_is_repeated_without_asking_for_some_seconds() -> None:
    """A thousand waiting requests do not ask a thousand times."""
    scene = Scene(desk=Desk(answer=unreachable))
    for _ in range(10):
        scene.provider.prepare(pushes(1))
    assert len(scene.desk.questions) == 1
    scene.desk.answer = None
    scene.clock.at += timedelta(seconds=5)
    assert len(scene.batches(pushes(1))) == 1


def test_a_full_window_is_waited_out_before_asking_again() -> None:
    """JPush says when its minute is over."""
    full = Response(status=429, headers={"x-rate-limit-reset": "40"}, body=b"")
    scene = Scene(desk=Desk(answer=lambda _: full))
    (answer,) = scene.provider.prepare(pushes(1)).answers
    assert answer.outcome == Throttled(reason="http 429", delay=timedelta(seconds=40), is_vendor_delay=True)
    scene.desk.answer = None
    scene.clock.at += timedelta(seconds=39)
    assert scene.provider.prepare(pushes(1)).batches == []
    scene.clock.at += timedelta(seconds=1)
    assert len(scene.batches(pushes(1))) == 1


# --- narrowing down


def accepted(number: int = 1) -> Response:
    """JPush takes the request."""
    return Response(status=200, body=b'{"sendno":"0","msg_id":"%d"}' % number)


def test_an_acceptance_is_every_pushs_and_provisional() -> None:
    """JPush does not say which ids it did not find."""
    scene = Scene()
    (batch,) = scene.batches(pushes(3))
    assert scene.provider.classify(batch, accepted(18)) == [
        Answer(push=push, outcome=Accepted(message_id="18", provisional=True)) for push in batch.pushes
    ]


@pytest.mark.parametrize("number", [1, 2, 1000])
def test_nobody_found_is_a_doubt_about_each_and_no_reason_to_ask_again(number: int) -> None:
    """1011 says that none of them matched."""
    scene = Scene()
    (batch,) = scene.batches(pushes(number))
    assert scene.provider.classify(batch, NO_TARGET) == [
        Answer(push=push, outcome=Rejected(reason="1011 NoTarget", suspects_token=True))
        for push in batch.pushes
    ]


def test_an_invalid_value_with_one_id_is_a_doubt_about_it() -> None:
    """A weak word: the token is not called dead, and not even suspected unless the message is proven good."""
    scene = Scene()
    (batch,) = scene.batches(pushes(1))
    assert scene.provider.classify(batch, INVALID) == [Answer(push=batch.pushes[0], outcome=DOUBT)]


def test_one_language_proves_nothing_about_another() -> None:
    """The translation may be what JPush refuses."""
    scene = Scene()
    told = content(message=Message(title="Shipped", translations={"de": {"title": "Versandt"}}))
    english, german = (
        pushes(1, told, first=number, locale=locale) for number, locale in ((0, "en"), (1, "de"))
    )
    scene.provider.classify(scene.batches(english)[0], accepted())
    (batch,) = scene.batches(german)
    assert scene.provider.classify(batch, INVALID) == [Answer(push=batch.pushes[0], outcome=DOUBT)]
    (batch,) = scene.batches(english)
    assert scene.provider.classify(batch, INVALID) == [
        Answer(push=batch.pushes[0], outcome=Rejected(reason="1003 InvalidValue", suspects_token=True))
    ]


def test_a_repeated_request_is_sent_under_a_new_cid_before_its_id_is_blamed() -> None:
    """A cid is good for a day: what is refused may be the cid of yesterday."""
    scene = Scene()
    (batch,) = scene.batches(pushes(1))
    (repeated,) = scene.batches(tagged(batch.pushes, batch))
    assert repeated.request_tag == batch.request_tag
    split = scene.provider.classify(repeated, INVALID)
    assert isinstance(split, Split)
    (again,) = split.batches
    assert again.request_tag != batch.request_tag
    assert scene.provider.classify(again, INVALID) == [Answer(push=again.pushes[0], outcome=DOUBT)]


def test_nobody_found_for_a_message_without_one_platform_is_no_doubt() -> None:
    """A section that leaves iOS out finds nobody among iOS devices."""
    scene = Scene()
    told = content(message=Message(title="Shipped", jpush={"notification": {"ios": None}}))
    (batch,) = scene.batches(pushes(1, told))
    assert scene.provider.classify(batch, NO_TARGET) == [
        Answer(push=batch.pushes[0], outcome=Rejected(reason="1011 NoTarget"))
    ]


@dataclass
class Vendor:
    """JPush as far as 1003 goes: refuses a request that has a bad id in it, or a bad message."""

    bad: frozenset[str]
    is_message_bad: bool = False
    requests: int = 0
    received: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Any] = field(default_factory=dict)

    def run(self, provider: JPushProvider, batches: Sequence[Batch]) -> None:
        """Send as the client does: parts replace the request."""
        waiting = list(batches)
        while waiting:
            batch = waiting.pop(0)
            self.requests += 1
            is_bad = self.is_message_bad or not self.bad.isdisjoint(devices(batch))
            self.received.update([] if is_bad else devices(batch))
            result = provider.classify(batch, INVALID if is_bad else accepted())
            if isinstance(result, Split):
                waiting += result.batches
                result = result.answers
            for answer in result:
                assert answer.push.token not in self.answers, "answered twice"
                self.answers[answer.push.token] = answer.outcome


@settings(deadline=None)
@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=6))
def test_the_bad_ids_are_found_and_all_others_receive_once(number: int, bad: set[int]) -> None:
    """Whatever ids are bad, and however many there are."""
    scene = Scene()
    sent = pushes(number)
    # Another device's acceptance shows that the message is good, as is usual in a fan-out.
    scene.provider.classify(scene.batches(pushes(1, first=900))[0], accepted())
    vendor = Vendor(bad=frozenset(map(token, bad)))
    vendor.run(scene.provider, scene.batches(sent))
    for push in sent:
        outcome = vendor.answers[push.token]
        if push.token in vendor.bad:
            assert outcome == Rejected(reason="1003 InvalidValue", suspects_token=True)
            assert vendor.received[push.token] == 0
        else:
            assert isinstance(outcome, Accepted)
            assert vendor.received[push.token] == 1
    assert len(vendor.answers) == number


def test_one_bad_id_among_a_thousand_costs_few_requests() -> None:
    """The quota is 600 requests a minute."""
    scene = Scene()
    vendor = Vendor(bad=frozenset({token(617)}))
    vendor.run(scene.provider, scene.batches(pushes(1000)))
    assert vendor.requests <= 25
    assert sum(vendor.received.values()) == 999


def test_a_message_at_fault_is_found_out_before_all_ids_are_blamed() -> None:
    """Halving alone would cost two thousand requests, and end with a thousand suspects."""
    scene = Scene()
    vendor = Vendor(bad=frozenset(), is_message_bad=True)
    vendor.run(scene.provider, scene.batches(pushes(1000)))
    assert len(vendor.answers) == 1000
    assert vendor.requests <= 20
    suspects = [outcome for outcome in vendor.answers.values() if outcome.suspects_token]
    assert len(suspects) <= 5
    assert set(vendor.answers.values()) == {DOUBT, Rejected(reason="1003 InvalidValue")}


def test_a_message_at_fault_says_nothing_about_another_message() -> None:
    """Doubts are kept by notification."""
    scene = Scene()
    Vendor(bad=frozenset(), is_message_bad=True).run(scene.provider, scene.batches(pushes(1000)))
    (batch,) = scene.batches(pushes(1, content(8), first=2000))
    assert scene.provider.classify(batch, INVALID) == [Answer(push=batch.pushes[0], outcome=DOUBT)]


def test_the_pushes_of_a_part_carry_its_tag() -> None:
    """So that a part that stays unanswered can be repeated as it was."""
    scene = Scene()
    (batch,) = scene.batches(pushes(8))
    split = scene.provider.classify(batch, INVALID)
    assert isinstance(split, Split)
    assert split.answers == []
    assert sorted(push.position for part in split.batches for push in part.pushes) == list(range(8))
    for part in split.batches:
        assert {push.request_tag for push in part.pushes} == {part.request_tag}
        (again,) = scene.batches(part.pushes)
        assert again.body == part.body


def test_parts_that_get_no_cid_are_answered_and_not_lost() -> None:
    """The desk closes while we narrow down."""
    scene = Scene(desk=Desk(most=10))
    (batch,) = scene.batches(pushes(8))
    scene.clock.at += timedelta(hours=13)
    scene.desk.answer = unreachable
    split = scene.provider.classify(batch, INVALID)
    assert isinstance(split, Split)
    assert split.batches == []
    assert sorted(answer.push.position for answer in split.answers) == list(range(8))
    assert all(isinstance(answer.outcome, NotSent) for answer in split.answers)


# --- questions that send nothing


def test_the_check_asks_for_one_cid() -> None:
    """It needs the credentials, and nothing else does it do."""
    scene = Scene()
    scene.provider.check()
    ((method, url, headers, _),) = scene.desk.questions
    assert (method, url) == ("GET", "https://api.jpush.cn/v3/push/cid?count=1&type=push")
    assert headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, CredentialsRejected), (403, CredentialsRejected), (429, NotSent), (500, NotSent)],
)
def test_the_check_tells_refused_credentials_from_trouble(status: int, expected: type[Exception]) -> None:
    """Only the first needs a person."""
    scene = Scene(desk=Desk(answer=lambda _: Response(status=status, body=b"")))
    with pytest.raises(expected):
        scene.provider.check()


def report(statuses: Mapping[str, int]) -> Callable[[str], Response]:
    """The report API, which knows these ids."""
    return lambda _: Response(
        status=200,
        body=json.dumps({token: {"status": status} for token, status in statuses.items()}).encode(),
    )


def test_the_report_says_what_became_of_each_id() -> None:
    """What it does not mention or does not know stays open."""
    ids = [token(number) for number in range(6)]
    scene = Scene(desk=Desk(answer=report({token(number): number for number in range(5)})))
    assert scene.provider.poll_receipts("1828256757", ids, NOW) == {
        ids[0]: Accepted(message_id="1828256757"),
        ids[1]: Accepted(message_id="1828256757"),
        ids[2]: Unregistered(reason="NotOfThisApp"),
        ids[3]: None,
        ids[4]: None,
        ids[5]: None,
    }


def test_the_question_names_the_day_in_china() -> None:
    """A message of late evening in Europe is of the next day there."""
    scene = Scene(desk=Desk(answer=report({})))
    scene.provider.poll_receipts("1828256757", [token(1)], datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    ((method, url, _, question),) = scene.desk.questions
    assert (method, url) == ("POST", "https://report.jpush.cn/v3/status/message")
    assert json.loads(question) == {
        "msg_id": 1828256757, "registration_ids": [token(1)], "date": "2026-11-24",
    }  # fmt: skip


def test_many_ids_are_asked_about_a_thousand_at_a_time() -> None:
    """The report API takes no more."""
    ids = [token(number) for number in range(2500)]
    scene = Scene(desk=Desk(answer=report(dict.fromkeys(ids, 0))))
    outcomes = scene.provider.poll_receipts("18", ids, NOW)
    assert set(outcomes) == set(ids)
    assert all(outcomes.values())
    assert [len(json.loads(question)["registration_ids"]) for *_, question in scene.desk.questions] == [
        1000, 1000, 500,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [429, 500, 503, 302])
def test_a_report_that_is_not_given_now_is_asked_for_later(status: int) -> None:
    """Nothing is known, and nothing concluded."""
    scene = Scene(desk=Desk(answer=lambda _: Response(status=status, body=b"")))
    with pytest.raises(NotSent):
        scene.provider.poll_receipts("18", [token(1)], NOW)


def test_a_report_that_is_refused_leaves_everything_open() -> None:
    """A message id that JPush has forgotten tells nothing about the devices."""
    refusal = Response(status=400, body=b'{"error":{"code":1003,"message":"msg_id is invalid"}}')
    scene = Scene(desk=Desk(answer=lambda _: refusal))
    assert scene.provider.poll_receipts("18", [token(1)], NOW) == {token(1): None}


@pytest.mark.parametrize(
    "secrets",
    [
        {},
        {"app_key": b"abc"},
        {"app_key": b"a:b", "master_secret": b"c"},
        {"app_key": b"a", "master_secret": b"c\r\nx: y"},
    ],
)
def test_unusable_credentials_are_refused(secrets: dict[str, bytes]) -> None:
    """Before anything is sent, and without quoting them."""
    with pytest.raises(CredentialsRejected, match="letters and digits"):
        JPushProvider(replace(CHANNEL, secrets=secrets), now=Clock())


@pytest.mark.parametrize("name", ["endpoint", "report_endpoint"])
def test_an_address_that_is_not_safe_is_refused(name: str) -> None:
    """The secret goes with each request."""
    with pytest.raises(ValueError, match="https"):
        JPushProvider(replace(CHANNEL, **{name: "http://jpush.example.com"}), now=Clock())  # type: ignore[arg-type]  # a string
