"""What only JPush does: a thousand devices in a request, cids, narrowing down, and its report API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from events import Message, OnUnknown
from providers.client import Client
from providers.outcome import (
    Accepted,
    Answer,
    AnswerUnknown,
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
from providers.simulators.launch import launch
from tests.conformance.scene import Scene, content, outcomes, pushes, send
from tests.conformance.vendors import JPUSH, Vendor

pytestmark = pytest.mark.parametrize("vendor", ["jpush"], indirect=True)

SECONDS_10 = timedelta(seconds=10)
DROP = Message(title="once", on_unknown=OnUnknown.DROP)
ANSWERS: dict[str, Outcome | type[Throttled | SendError]] = {
    "bad_gateway_html": Unavailable(reason="http 502", delay=SECONDS_10, is_unsure=True),
    "internal": Unavailable(reason="1000 InternalError", delay=SECONDS_10, is_unsure=True),
    "unavailable": Unavailable(reason="1030 InternalTimeout", delay=SECONDS_10, is_unsure=True),
    "payload": Rejected(reason="1005 TooLarge"),
    "missing": Rejected(reason="1002 MissingParameter"),
    "bad_token": Rejected(reason="1003 InvalidValue", suspects_token=True, needs_proof=True),
    "no_target": Rejected(reason="1011 NoTarget", suspects_token=True),
    "unknown": Rejected(reason="1011 NoTarget", suspects_token=True),
    "throttled": Throttled,
    "credentials": CredentialsRejected,
    "bad_app_key": CredentialsRejected,
    "blacklisted": CredentialsRejected,
    "bad_address": CredentialsRejected,
    "volume": CredentialsRejected,
    "not_allowed": CredentialsRejected,
}

Start = Callable[..., Scene]


@pytest.fixture
def start(vendor: Vendor, tmp_path: Path) -> Iterator[Start]:
    """Start a simulator of the test's own, whose quota and secrets it may change."""
    scenes: list[Scene] = []

    def begin(*arguments: str) -> Scene:
        directory = tmp_path / str(len(scenes))
        scene = Scene(vendor=vendor, simulator=launch("jpush", directory, arguments=arguments))
        scenes.append(scene)
        return scene

    yield begin
    for scene in scenes:
        scene.close()
        scene.simulator.stop()


def answered(client: Client, to_send: Sequence[Push]) -> list[Answer]:
    """Send what may come back as copies: the pushes of a part carry another tag."""
    batches = client.prepare(to_send)
    for batch in batches:
        client.submit(batch)
    answers: list[Answer] = []
    while client.in_flight:
        answers += client.poll(5)
    assert sorted(answer.push.position for answer in answers) == sorted(push.position for push in to_send)
    return answers


def sent_and_tagged(client: Client, to_send: Sequence[Push]) -> tuple[list[Push], list[Answer]]:
    """Send one request; return its pushes as the ledger would load them for another try, and the answers."""
    (batch,) = client.prepare(to_send)
    client.submit(batch)
    answers: list[Answer] = []
    while client.in_flight:
        answers += client.poll(5)
    return [replace(push, request_tag=batch.request_tag) for push in to_send], answers


@pytest.mark.parametrize("engine", ["scene", "faulty"])
@pytest.mark.parametrize("word", ANSWERS)
def test_every_refusal_of_jpush(
    vendor: Vendor, request: pytest.FixtureRequest, engine: str, word: str
) -> None:
    """As the simulator tells it, which shares no code with us; other requests get through."""
    scene: Scene = request.getfixturevalue(engine)
    (victim,) = pushes(JPUSH, 1, first=900)
    neighbours = pushes(JPUSH, 3)
    scene.simulator.rules([{"tokens": [victim.token], "answer": word}])
    answers = outcomes(send(scene.client(), [victim, *neighbours]))
    expected, got = ANSWERS[word], answers[victim.token]
    assert isinstance(got, expected) if isinstance(expected, type) else got == expected, got
    assert all(isinstance(answers[push.token], Accepted) for push in neighbours)
    assert scene.receipts(victim) == {}


def test_a_request_carries_a_thousand_devices(scene: Scene) -> None:
    """2,500 devices are three requests, and each device receives once."""
    sent = pushes(JPUSH, 2500)
    client = scene.client()
    before = scene.simulator.stats()["answers"].get("accepted", 0)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) and answer.outcome.provisional for answer in answers)
    assert scene.simulator.stats()["answers"]["accepted"] == before + 3
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


# --- repeated requests


@pytest.mark.parametrize("engine", ["scene", "faulty"])
def test_a_request_without_an_answer_is_repeated_and_pushed_once(
    vendor: Vendor, request: pytest.FixtureRequest, engine: str
) -> None:
    """JPush took it and the answer was lost; the same cid brings the old success, and no second push."""
    scene: Scene = request.getfixturevalue(engine)
    sent = pushes(JPUSH, 100)
    scene.misbehave("accept_no_answer", [sent[50].token], first=1)
    back, answers = sent_and_tagged(scene.client(timeout=timedelta(seconds=1)), sent)
    assert {type(answer.outcome) for answer in answers} == {AnswerUnknown}
    again = send(scene.client(), back[::-1])
    assert all(isinstance(answer.outcome, Accepted) for answer in again)
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_a_request_that_was_not_taken_is_pushed_when_it_is_repeated(scene: Scene) -> None:
    """No answer may also mean that nothing happened."""
    sent = pushes(JPUSH, 20)
    scene.misbehave("hang", [sent[5].token], first=1)
    back, answers = sent_and_tagged(scene.client(timeout=timedelta(seconds=1)), sent)
    assert {type(answer.outcome) for answer in answers} == {AnswerUnknown}
    assert scene.receipts(*sent) == {}
    again = send(scene.client(), back)
    assert all(isinstance(answer.outcome, Accepted) for answer in again)
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_without_one_of_its_devices_it_is_another_request_and_is_pushed(scene: Scene) -> None:
    """A used cid would bring the old success and reach nobody new: the others are pushed, under a new one."""
    sent = pushes(JPUSH, 10)
    scene.misbehave("hang", [sent[0].token], first=1)
    back, _ = sent_and_tagged(scene.client(timeout=timedelta(seconds=1)), sent)
    again = send(scene.client(), back[1:])
    assert all(isinstance(answer.outcome, Accepted) for answer in again)
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent[1:]), 1)


def test_a_request_to_be_dropped_is_sent_once(faulty: Scene) -> None:
    """Taken, then the connection was cut: the devices received once, and we do not know."""
    sent = pushes(JPUSH, 10, content(DROP))
    faulty.misbehave("connection_reset", [sent[4].token], delivered=True, first=1)
    answers = send(faulty.client(), sent)
    assert {type(answer.outcome) for answer in answers} == {AnswerUnknown}
    assert faulty.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


# --- ids that JPush does not take


@pytest.mark.parametrize("engine", ["scene", "faulty"])
@pytest.mark.parametrize("bad", [[0], [617], [3, 4, 500], [998, 999]], ids=str)
def test_a_malformed_id_among_a_thousand_is_found(
    vendor: Vendor, request: pytest.FixtureRequest, engine: str, bad: list[int]
) -> None:
    """JPush refuses the whole request: the parts that are good are accepted once, the bad ids are doubted."""
    scene: Scene = request.getfixturevalue(engine)
    sent = pushes(JPUSH, 1000)
    victims = {sent[index].token for index in bad}
    scene.misbehave("bad_token", sorted(victims))
    found = outcomes(answered(scene.client(), sent))
    doubted = {token for token, outcome in found.items() if isinstance(outcome, Rejected)}
    assert doubted == victims
    assert all(getattr(found[token], "suspects_token", False) for token in victims)
    assert all(isinstance(outcome, Accepted) for token, outcome in found.items() if token not in victims)
    assert scene.receipts(*sent) == {push.token: 1 for push in sent if push.token not in victims}


def test_a_message_that_jpush_refuses_blames_few_ids(scene: Scene) -> None:
    """An invalid value in the message looks the same; that it fails everywhere gives it away."""
    sent = pushes(JPUSH, 1000, content(Message(title="-", jpush={"options": {"big_push_duration": 9999}})))
    before = sum(scene.simulator.stats()["answers"].values())
    found = outcomes(answered(scene.client(), sent))
    blamed = Rejected(reason="1003 InvalidValue", suspects_token=True, needs_proof=True)
    assert set(found.values()) == {blamed, Rejected(reason="1003 InvalidValue")}
    assert sum(outcome == blamed for outcome in found.values()) <= 10
    assert sum(scene.simulator.stats()["answers"].values()) - before <= 40


def test_ids_that_jpush_does_not_know_are_doubted_when_nobody_is_left(scene: Scene) -> None:
    """1011 is about all of them: no further request is spent on it."""
    sent = pushes(JPUSH, 50)
    scene.misbehave("unregistered", [push.token for push in sent])
    assert {answer.outcome for answer in send(scene.client(), sent)} == {
        Rejected(reason="1011 NoTarget", suspects_token=True)
    }


def test_the_report_tells_who_is_not_of_this_app(scene: Scene) -> None:
    """A 200 does not say so: acceptance is provisional until the report was asked."""
    sent = pushes(JPUSH, 30)
    unknown = [push.token for push in sent[:4]]
    scene.misbehave("unregistered", unknown)
    client = scene.client()
    answers = send(client, sent)
    message_ids = {answer.outcome.message_id for answer in answers if isinstance(answer.outcome, Accepted)}
    (message_id,) = message_ids
    assert message_id is not None
    found = client.poll_receipts(message_id, [push.token for push in sent], datetime.now(UTC))
    for push in sent:
        expected = (
            Unregistered(reason="NotOfThisApp") if push.token in unknown else Accepted(message_id=message_id)
        )
        assert found[push.token] == expected


def test_a_report_that_is_not_there_yet_calls_nobody_dead(start: Start) -> None:
    """For a while JPush says "not delivered" of everybody."""
    scene = start("--report-delay-seconds", "3600")
    (push,) = pushes(JPUSH, 1)
    client = scene.client()
    (answer,) = send(client, [push])
    assert isinstance(answer.outcome, Accepted)
    found = client.poll_receipts(answer.outcome.message_id or "", [push.token], datetime.now(UTC))
    assert found == {push.token: Accepted(message_id=answer.outcome.message_id)}


def test_a_message_that_the_report_does_not_know_leaves_everything_open(scene: Scene) -> None:
    """Perhaps it is too old."""
    found = scene.client().poll_receipts("17", [JPUSH.token(1)], datetime.now(UTC))
    assert found == {JPUSH.token(1): None}


def test_a_report_that_refuses_us_or_is_away_says_so(start: Start) -> None:
    """Neither says anything about a device."""
    scene = start()
    client = scene.client()
    scene.simulator.control("POST", "/credentials", {"valid": False})
    with pytest.raises(CredentialsRejected, match="Authen failed"):
        client.poll_receipts("17", [JPUSH.token(1)], datetime.now(UTC))
    scene.simulator.stop()
    with pytest.raises(NotSent):
        client.poll_receipts("17", [JPUSH.token(1)], datetime.now(UTC))


# --- quota and credentials


def test_a_full_window_names_the_seconds_that_are_left(start: Start) -> None:
    """They come from JPush's own header, are at most a minute, and nothing is pushed."""
    scene = start()
    client = scene.client()
    sent = pushes(JPUSH, 5)
    (batch,) = client.prepare(sent)  # its cid is fetched while there is still room
    scene.simulator.control("POST", "/quota", {"per_minute": 0})
    client.submit(batch)
    answers: list[Answer] = []
    while client.in_flight:
        answers += client.poll(5)
    for answer in answers:
        assert isinstance(answer.outcome, Throttled)
        assert answer.outcome.reason == "2002 RateLimit"
        assert answer.outcome.is_vendor_delay
        assert timedelta(0) < answer.outcome.delay <= timedelta(seconds=60)
    assert scene.receipts(*sent) == {}


def test_a_full_window_also_stops_those_that_need_a_cid(start: Start) -> None:
    """The desk that gives cids is behind the same quota."""
    scene = start()
    scene.simulator.control("POST", "/quota", {"per_minute": 0})
    answers = send(scene.client(), pushes(JPUSH, 5))
    assert {type(answer.outcome) for answer in answers} == {Throttled}


@pytest.mark.parametrize(
    ("name", "words"), [("app_key", "1008 InvalidAppKey"), ("master_secret", "1004 AuthenticationFailed")]
)
def test_wrong_credentials_are_about_us(scene: Scene, name: str, words: str) -> None:
    """Whichever of the two is wrong."""
    client = scene.client(secrets={**scene.config().secrets, name: b"0123456789abcdef01234567"})
    answers = send(client, pushes(JPUSH, 5))
    assert {type(answer.outcome) for answer in answers} == {CredentialsRejected}
    with pytest.raises(CredentialsRejected, match=words):
        client.check()


def test_a_replaced_secret_is_refused_on_the_way(start: Start) -> None:
    """The client has cids left; JPush refuses the push itself."""
    scene = start()
    client = scene.client()
    assert isinstance(send(client, pushes(JPUSH, 1))[0].outcome, Accepted)
    scene.simulator.control("POST", "/credentials", {"rotate": True})
    (answer,) = send(client, pushes(JPUSH, 1))
    assert isinstance(answer.outcome, CredentialsRejected)
    assert answer.outcome.reason == "1004 AuthenticationFailed: Authen failed."


# --- what is sent


@pytest.mark.parametrize("is_silent", [False, True])
def test_the_largest_payload_we_let_through_is_taken(scene: Scene, *, is_silent: bool) -> None:
    """Our measure is no laxer than the simulator's."""
    near = 4000 if is_silent else 2000
    messages = [
        Message(silent=True, data={"text": "x" * size})
        if is_silent
        else Message(title="Größe", data={"text": "x" * size})
        for size in range(near - 150, near, 5)
    ]
    answers = send(scene.client(), [pushes(JPUSH, 1, content(message))[0] for message in messages])
    taken = [isinstance(answer.outcome, Accepted) for answer in answers]
    assert any(taken)
    assert not all(taken)
    for answer in answers:
        if not isinstance(answer.outcome, Accepted):
            assert isinstance(answer.outcome, Rejected)
            assert answer.outcome.reason.startswith("PayloadTooLarge: message.jpush: ")


def test_a_message_may_live_for_28_days_and_jpush_keeps_it_for_ten(scene: Scene) -> None:
    """More would be refused."""
    (answer,) = send(scene.client(), pushes(JPUSH, 1, content(lives=timedelta(days=28))))
    assert isinstance(answer.outcome, Accepted)
