"""What workers rely on, whichever vendor they send to: the same suite for all, against simulators."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from events import InterruptionLevel, Message, OnUnknown
from providers.outcome import (
    Accepted,
    AnswerUnknown,
    CredentialsRejected,
    NotSent,
    Rejected,
)
from providers.simulators.launch import launch
from tests.conformance.scene import Scene, content, outcomes, pushes, send
from tests.conformance.vendors import VENDORS, Vendor

BRIEF = timedelta(seconds=2)  # a time-out that a test waits for, and two busy cores do not reach
DROP = Message(title="Your code", body="831 244", on_unknown=OnUnknown.DROP)
EVERY_FIELD = Message(
    title="Shipped",
    body="Order 812 is on its way",
    subtitle="Track it",
    image="https://example.com/parcel.png",
    icon="parcel",
    color="#00aaff",
    sound="default",
    badge=3,
    url="https://example.com/orders/812",
    data={"order": "812"},
    category="ORDER",
    thread_id="orders",
    channel_id="orders",
    tag="order-812",
    collapse_key="order-812",
    mutable_content=True,
    interruption_level=InterruptionLevel.TIME_SENSITIVE,
    relevance_score=0.5,
    title_loc_key="SHIPPED",
    title_loc_args=["812"],
    body_loc_key="ON_ITS_WAY",
    body_loc_args=["812"],
    translations={"de": {"title": "Versandt", "body": "Bestellung 812 ist unterwegs"}},
    analytics_label="orders",
)


def is_accepted(vendor: Vendor, outcome: object) -> bool:
    """Tell whether the vendor took the push, as completely as it does."""
    return isinstance(outcome, Accepted) and vendor.accepted(outcome)


def test_every_accepted_push_reaches_its_device_exactly_once(vendor: Vendor, scene: Scene) -> None:
    """Three hundred pushes through fifty streams: all accepted, none lost, none repeated."""
    sent = pushes(vendor, 300)
    answers = send(scene.client(), sent)
    assert all(is_accepted(vendor, answer.outcome) for answer in answers)
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


@pytest.mark.parametrize(
    ("vendor", "message"),
    [
        pytest.param(name, message, id=f"{name}-{label}")
        for name in VENDORS
        for label, message in (
            ("every field", EVERY_FIELD),
            ("silent", Message(silent=True, data={"sync": "1"}, collapse_key="inbox")),
            ("data alone", Message(data={"sync": "1"})),
            ("badge alone", Message(badge=0)),
            (
                "other scripts",
                Message(title="已发货", body="📦 «812»", data={"ключ": "значение"}, collapse_key="订单"),
            ),
        )
    ],
    indirect=["vendor"],
)
def test_every_kind_of_message_passes_the_vendors_checks(
    vendor: Vendor, scene: Scene, message: Message
) -> None:
    """The simulators check what the vendors check: fields, types, headers, sizes."""
    sent = pushes(vendor, 1, content(message), locale="de_AT")
    (answer,) = send(scene.client(), sent)
    assert is_accepted(vendor, answer.outcome), answer.outcome


def test_a_push_without_storing_passes_the_vendors_checks(vendor: Vendor, scene: Scene) -> None:
    """A time to live of nothing is one attempt, not an error."""
    (answer,) = send(scene.client(), pushes(vendor, 1, content(lives=timedelta(0))))
    assert is_accepted(vendor, answer.outcome), answer.outcome


@pytest.mark.parametrize(
    ("vendor", "word"),
    [(name, word) for name, vendor in VENDORS.items() for word in vendor.expected],
    indirect=["vendor"],
)
def test_each_answer_means_what_the_vendor_says(vendor: Vendor, scene: Scene, word: str) -> None:
    """One push gets the bad answer, its neighbours of another notification get through."""
    (victim,) = pushes(vendor, 1, first=900)
    neighbours = pushes(vendor, 5)
    scene.misbehave(word, [victim.token])
    answers = outcomes(send(scene.client(), [*neighbours[:3], victim, *neighbours[3:]]))
    expected, got = vendor.expected[word], answers[victim.token]
    assert isinstance(got, expected) if isinstance(expected, type) else got == expected, got
    assert all(is_accepted(vendor, answers[push.token]) for push in neighbours)
    assert scene.receipts(victim, *neighbours) == dict.fromkeys((push.token for push in neighbours), 1)


@pytest.mark.parametrize("word", ["hang", "accept_no_answer"])
def test_a_push_without_an_answer_is_unknown_alone(vendor: Vendor, scene: Scene, word: str) -> None:
    """One stream that hangs times out by itself, whether the push was taken or not."""
    (victim,) = pushes(vendor, 1, first=900)
    neighbours = pushes(vendor, 20)
    scene.misbehave(word, [victim.token])
    client = scene.client(timeout=BRIEF)
    send(client, pushes(vendor, 1, first=800))
    answers = outcomes(send(client, [victim, *neighbours]))
    got = answers[victim.token]
    assert isinstance(got, AnswerUnknown)
    assert got.reason == "curl 28 OPERATION_TIMEDOUT"
    assert all(is_accepted(vendor, answers[push.token]) for push in neighbours)
    assert scene.receipts(victim)[victim.token] == (1 if word == "accept_no_answer" else 0)


def test_a_reset_stream_is_unknown_alone(vendor: Vendor, faulty: Scene) -> None:
    """RST_STREAM ends one request; the others on the connection go on."""
    (victim,) = pushes(vendor, 1, first=900)
    neighbours = pushes(vendor, 20)
    faulty.misbehave("reset", [victim.token])
    answers = outcomes(send(faulty.client(), [victim, *neighbours]))
    assert isinstance(answers[victim.token], AnswerUnknown)
    assert all(is_accepted(vendor, answers[push.token]) for push in neighbours)


def test_a_truncated_answer_is_unknown(vendor: Vendor, faulty: Scene) -> None:
    """Half a body proves nothing, even below a good status."""
    (victim,) = pushes(vendor, 1)
    faulty.misbehave("truncated", [victim.token])
    (answer,) = send(faulty.client(), [victim])
    assert isinstance(answer.outcome, AnswerUnknown)


@pytest.mark.parametrize("word", ["goaway", "connection_reset"])
def test_sending_goes_on_after_the_connection_ends(vendor: Vendor, faulty: Scene, word: str) -> None:
    """Each push gets one answer; what follows travels over a new connection."""
    client = faulty.client()
    sent = pushes(vendor, 60)
    faulty.misbehave(word, [sent[30].token], first=1)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted | AnswerUnknown) for answer in answers)
    later = send(client, pushes(vendor, 20, first=200))
    assert all(is_accepted(vendor, answer.outcome) for answer in later)


def test_a_goaway_loses_nothing_that_the_vendor_had_not_begun(vendor: Vendor, faulty: Scene) -> None:
    """Requests above the last stream are sent again on a new connection, each accepted once."""
    client = faulty.client()
    sent = pushes(vendor, 1)
    faulty.misbehave("goaway", [sent[0].token], first=1)
    (answer,) = send(client, sent)
    assert is_accepted(vendor, answer.outcome)
    assert faulty.receipts(*sent) == {sent[0].token: 1}


@pytest.mark.parametrize("word", ["connection_reset", "goaway", "reset", "accept_no_answer"])
@pytest.mark.parametrize("on", ["a fresh connection", "a used connection"])
def test_a_push_to_be_dropped_is_never_sent_twice(vendor: Vendor, faulty: Scene, word: str, on: str) -> None:
    """Taken and then cut off: unknown, and not repeated silently below us."""
    client = faulty.client(timeout=BRIEF)
    if on == "a used connection":
        send(client, pushes(vendor, 3, first=500))
    sent = pushes(vendor, 10, content(DROP))
    faulty.misbehave(word, [sent[4].token], delivered=True, first=1)
    send(client, sent)
    received = faulty.receipts(*sent)
    assert received[sent[4].token] == 1
    assert all(count <= 1 for count in received.values())


def test_a_silent_connection_is_left_for_a_new_one(vendor: Vendor, faulty: Scene) -> None:
    """A connection that is dead without a word costs one time-out, not all that follows."""
    client = faulty.client(timeout=BRIEF)
    assert is_accepted(vendor, send(client, pushes(vendor, 1))[0].outcome)
    faulty.simulator.control("POST", "/connections", {"action": "blackhole"})
    (lost,) = send(client, pushes(vendor, 1, first=100))
    assert isinstance(lost.outcome, AnswerUnknown)
    later = send(client, pushes(vendor, 5, first=200))
    assert all(is_accepted(vendor, answer.outcome) for answer in later)


def test_refused_credentials_are_about_us_and_can_be_corrected(vendor: Vendor, scene: Scene) -> None:
    """Nothing is received while they are refused; the same client sends again once they are good."""
    client = scene.client()
    assert is_accepted(vendor, send(client, pushes(vendor, 1))[0].outcome)
    scene.simulator.control("POST", "/credentials", {"valid": False})
    refused = pushes(vendor, 20, first=100)
    answers = send(client, refused)
    assert all(isinstance(answer.outcome, CredentialsRejected) for answer in answers)
    assert scene.receipts(*refused) == {}
    scene.simulator.control("POST", "/credentials", {"valid": True})
    scene.clock.ahead += timedelta(minutes=1)
    later = send(client, pushes(vendor, 3, first=200))
    assert all(is_accepted(vendor, answer.outcome) for answer in later)


def test_check_tells_good_credentials_without_a_push(vendor: Vendor, scene: Scene) -> None:
    """The check asks the vendor, and no device receives anything."""
    before = scene.simulator.stats()["receipts"]
    scene.client().check()
    assert scene.simulator.stats()["receipts"] == before


def test_check_tells_refused_credentials(vendor: Vendor, scene: Scene) -> None:
    """An operator reads why."""
    scene.simulator.control("POST", "/credentials", {"valid": False})
    with pytest.raises(CredentialsRejected) as caught:
        scene.client().check()
    assert len(caught.value.reason) > 5


def test_an_unreachable_vendor_has_certainly_not_seen_the_push(vendor: Vendor, scene: Scene) -> None:
    """A closed port is certain: nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"https://127.0.0.1:{closed.getsockname()[1]}"
    client = scene.client(endpoint=endpoint)
    answers = send(client, pushes(vendor, 3))
    assert all(isinstance(answer.outcome, NotSent) for answer in answers)
    with pytest.raises(NotSent):
        client.check()


def test_a_vendor_with_a_foreign_certificate_is_sent_nothing(vendor: Vendor, scene: Scene) -> None:
    """Without the channel's own authority the simulator is a stranger."""
    sent = pushes(vendor, 3)
    answers = send(scene.client(ca_file=None), sent)
    assert all(isinstance(answer.outcome, NotSent) for answer in answers)
    assert scene.receipts(*sent) == {}


def test_an_oversized_push_is_refused_with_its_size_and_never_sent(vendor: Vendor, scene: Scene) -> None:
    """The neighbours of another notification are not held up."""
    large = pushes(vendor, 2, content(Message(title="long", data={"text": "x" * 4096})))
    small = pushes(vendor, 2, first=10)
    answers = outcomes(send(scene.client(), [*large, *small]))
    for push in large:
        outcome = answers[push.token]
        assert isinstance(outcome, Rejected)
        assert not outcome.suspects_token
        assert outcome.reason.startswith("PayloadTooLarge: ")
        assert any(len(word) == 4 and word.isdecimal() for word in outcome.reason.replace(",", "").split())
    assert all(is_accepted(vendor, answers[push.token]) for push in small)
    assert scene.receipts(*large) == {}


def test_a_disabled_section_keeps_the_push_back(vendor: Vendor, scene: Scene) -> None:
    """A message that leaves the provider out is not sent even if asked for."""
    sections: dict[str, Any] = {vendor.name: {"enabled": False}}
    message = Message(title="Shipped", **sections)
    sent = pushes(vendor, 1, content(message))
    (answer,) = send(scene.client(), sent)
    assert answer.outcome == Rejected(reason="DisabledForProvider")
    assert scene.receipts(*sent) == {}


def test_a_client_survives_a_restart_of_the_vendor(vendor: Vendor, tmp_path: Path) -> None:
    """Connections that died while idle are replaced, and nothing is reported lost."""
    with launch(vendor.name, tmp_path) as simulator:
        scene = Scene(vendor=vendor, simulator=simulator)
        client = scene.client()
        before = send(client, pushes(vendor, 5))
        port = int(simulator.url.rsplit(":", 1)[1])
    with launch(vendor.name, tmp_path, port=port):
        after = send(client, pushes(vendor, 5, first=10))
    gone = send(client, pushes(vendor, 5, first=20))
    scene.close()
    assert all(is_accepted(vendor, answer.outcome) for answer in before + after), after
    assert all(isinstance(answer.outcome, NotSent) for answer in gone), gone
