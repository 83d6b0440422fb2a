"""What only APNs does: JWTs and certificates, environments and topics, and its own remedies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from events import Message
from providers.outcome import (
    Accepted,
    AnswerUnknown,
    CredentialsRejected,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from providers.simulators.launch import launch
from tests.conformance.scene import Scene, content, outcomes, pushes, send
from tests.conformance.vendors import APNS, Vendor

pytestmark = pytest.mark.parametrize("vendor", ["apns"], indirect=True)

MINUTES_15 = timedelta(minutes=15)
DEAD_AT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
ANSWERS: dict[str, Outcome | type[SendError]] = {
    "BadCollapseId": Rejected(reason="BadCollapseId"),
    "BadDeviceToken": Rejected(reason="BadDeviceToken", suspects_token=True),
    "BadExpirationDate": Rejected(reason="BadExpirationDate"),
    "BadMessageId": Rejected(reason="BadMessageId"),
    "BadPriority": Rejected(reason="BadPriority"),
    "BadTopic": CredentialsRejected,
    "DeviceTokenNotForTopic": Rejected(reason="DeviceTokenNotForTopic", suspects_token=True),
    "DuplicateHeaders": Rejected(reason="DuplicateHeaders"),
    "IdleTimeout": Unavailable(reason="IdleTimeout", delay=timedelta(seconds=5)),
    "InvalidPushType": Rejected(reason="InvalidPushType"),
    "MissingDeviceToken": Rejected(reason="MissingDeviceToken"),
    "MissingTopic": CredentialsRejected,
    "PayloadEmpty": Rejected(reason="PayloadEmpty"),
    "TopicDisallowed": CredentialsRejected,
    "BadCertificate": CredentialsRejected,
    "BadCertificateEnvironment": CredentialsRejected,
    "BadEnvironmentKeyIdInToken": CredentialsRejected,
    "BadEnvironmentKeyInToken": CredentialsRejected,
    "ExpiredProviderToken": CredentialsRejected,
    "Forbidden": CredentialsRejected,
    "InvalidProviderToken": CredentialsRejected,
    "MissingProviderToken": CredentialsRejected,
    "UnrelatedKeyIdInToken": CredentialsRejected,
    "BadPath": Rejected(reason="BadPath"),
    "MethodNotAllowed": Rejected(reason="MethodNotAllowed"),
    "ExpiredToken": Unregistered(reason="ExpiredToken", invalidated_at=DEAD_AT),
    "Unregistered": Unregistered(reason="Unregistered", invalidated_at=DEAD_AT),
    "PayloadTooLarge": Rejected(reason="PayloadTooLarge"),
    "TooManyProviderTokenUpdates": Unavailable(
        reason="TooManyProviderTokenUpdates", delay=timedelta(minutes=20)
    ),
    "TooManyRequests": Throttled(reason="TooManyRequests", delay=timedelta(seconds=60)),
    "InternalServerError": Unavailable(reason="InternalServerError", delay=MINUTES_15, is_unsure=True),
    "ServiceUnavailable": Unavailable(reason="ServiceUnavailable", delay=MINUTES_15),
    "Shutdown": Unavailable(reason="Shutdown", delay=MINUTES_15),
}

Start = Callable[..., Scene]


@pytest.fixture
def start(vendor: Vendor, tmp_path: Path) -> Iterator[Start]:
    """Start a simulator of the test's own, whose clock and keys it may change."""
    scenes: list[Scene] = []

    def begin(engine: str = "fast", *arguments: str) -> Scene:
        directory = tmp_path / str(len(scenes))
        scene = Scene(vendor=vendor, simulator=launch("apns", directory, engine=engine, arguments=arguments))
        scenes.append(scene)
        return scene

    yield begin
    for scene in scenes:
        scene.close()
        scene.simulator.stop()


def advance(scene: Scene, seconds: float) -> None:
    """Put Apple's clock forward, and not ours."""
    scene.simulator.control("POST", "/clock", {"advance_seconds": seconds})


def test_every_reason_of_apns_is_tried(scene: Scene) -> None:
    """The simulator knows no reason that this suite does not."""
    answers = set(scene.simulator.control("GET", "/")["answers"])
    assert {answer for answer in answers if answer[0].isupper()} == set(ANSWERS)


@pytest.mark.parametrize("engine", ["scene", "faulty"])
@pytest.mark.parametrize("reason", ANSWERS)
def test_every_refusal_of_apns(
    vendor: Vendor, request: pytest.FixtureRequest, engine: str, reason: str
) -> None:
    """As the simulator tells it, which shares no code with us; the neighbours get through."""
    scene: Scene = request.getfixturevalue(engine)
    (victim,) = pushes(APNS, 1, first=900)
    neighbours = pushes(APNS, 3)
    scene.simulator.rules([{"tokens": [victim.token], "answer": reason, "invalidated_at": 1_700_000_000_000}])
    answers = outcomes(send(scene.client(), [neighbours[0], victim, *neighbours[1:]]))
    expected, got = ANSWERS[reason], answers[victim.token]
    assert isinstance(got, expected) if isinstance(expected, type) else got == expected, got
    assert all(isinstance(answers[push.token], Accepted) for push in neighbours)
    assert scene.receipts(victim) == {}


@pytest.mark.parametrize(
    "reason", ["IdleTimeout", "Shutdown", "TooManyProviderTokenUpdates", "UnrelatedKeyIdInToken"]
)
def test_a_new_connection_helps_where_the_old_one_was_at_fault(faulty: Scene, reason: str) -> None:
    """Refused once, the very same push is accepted over another connection, once."""
    client = faulty.client()
    send(client, pushes(APNS, 3, first=800))
    sent = pushes(APNS, 20)
    faulty.simulator.rules([{"tokens": [push.token for push in sent], "answer": reason, "first": 1}])
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert faulty.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_apple_hears_the_deliverys_id_at_every_attempt(scene: Scene) -> None:
    """So that a repeated push is the same one for Apple's support, and for our traces."""
    (push,) = pushes(APNS, 1)
    client = scene.client()
    for _ in range(2):
        (answer,) = send(client, [push])
        assert answer.outcome == Accepted(message_id=push.delivery_id)
    lines = [line for line in scene.simulator.receipts() if line["token"] == push.token]
    assert [line["apns_id"] for line in lines[-2:]] == [push.delivery_id, push.delivery_id]


def test_many_pushes_begin_on_a_connection_that_allows_one_stream(faulty: Scene) -> None:
    """Until Apple has seen a good JWT there is one stream; none of the others is lost."""
    sent = pushes(APNS, 300)
    answers = send(faulty.client(max_connections=3), sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers)
    assert faulty.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


# --- authentication


def test_a_jwt_that_apple_calls_expired_is_replaced_unnoticed(start: Start) -> None:
    """Our clock is an hour slow, almost: a JWT of this moment is still good, the window's is not."""
    scene = start()
    client = scene.client()
    assert isinstance(send(client, pushes(APNS, 1, first=900))[0].outcome, Accepted)
    advance(scene, 3570)
    sent = pushes(APNS, 100)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)
    assert scene.simulator.stats()["answers"]["ExpiredProviderToken"] <= 100


def test_a_jwt_that_stays_expired_is_about_us(start: Start) -> None:
    """Our clock is hours slow: every push says so, no token is blamed, and JWTs do not multiply."""
    scene = start()
    advance(scene, 3 * 3600)
    client = scene.client()
    for _ in range(2):
        answers = send(client, pushes(APNS, 20))
        assert {type(answer.outcome) for answer in answers} == {CredentialsRejected}
        assert "clock" in answers[0].outcome.reason  # type: ignore[union-attr]  # as just seen
    with pytest.raises(CredentialsRejected, match="clock"):
        client.check()


@pytest.mark.parametrize("engine", ["fast", "fault"])
def test_an_expired_jwt_is_replaced_once_for_all_pushes(start: Start, engine: str) -> None:
    """A hundred streams hear "expired" at the same time; one JWT is made, and each push is accepted once."""
    scene = start(engine)
    client = scene.client()
    send(client, pushes(APNS, 1, first=900))
    scene.simulator.control("POST", "/credentials", {"expire": True})
    sent = pushes(APNS, 100)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def to_the_turn_of_the_window(scene: Scene) -> None:
    """Put Apple's clock and ours to half a minute before all processes change their JWT."""
    seconds = 2400 - (time.time() - 120) % 2400 - 30
    advance(scene, seconds)
    scene.clock.ahead = timedelta(seconds=seconds)


def pass_a_minute(scene: Scene) -> None:
    """On Apple's clock and on ours."""
    advance(scene, 60)
    scene.clock.ahead += timedelta(seconds=60)


@pytest.mark.parametrize("engine", ["fast", "fault"])
def test_the_turn_of_the_window_on_a_young_connection_loses_nothing(start: Start, engine: str) -> None:
    """The JWT changes after a minute: the first change of a connection is never too hasty."""
    scene = start(engine)
    to_the_turn_of_the_window(scene)
    client = scene.client()
    assert isinstance(send(client, pushes(APNS, 1, first=900))[0].outcome, Accepted)
    pass_a_minute(scene)
    sent = pushes(APNS, 50)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert "TooManyProviderTokenUpdates" not in scene.simulator.stats()["answers"]
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_a_second_change_that_is_too_hasty_ends_on_a_new_connection(start: Start) -> None:
    """Expired just after the turn: some pushes have to wait, what follows is sent at once."""
    scene = start()
    to_the_turn_of_the_window(scene)
    client = scene.client()
    send(client, pushes(APNS, 1, first=900))
    pass_a_minute(scene)
    send(client, pushes(APNS, 1, first=901))
    scene.simulator.control("POST", "/credentials", {"expire": True})
    hasty = send(client, pushes(APNS, 5))
    waiting = Unavailable(reason="TooManyProviderTokenUpdates", delay=timedelta(minutes=20))
    assert {answer.outcome for answer in hasty} == {waiting}
    sent = pushes(APNS, 20, first=100)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_two_processes_send_the_same_jwt(scene: Scene) -> None:
    """Two clients that know nothing of each other; the text is what Apple compares."""
    first, second = scene.client(), scene.client()
    for client in (first, second):
        assert isinstance(send(client, pushes(APNS, 3))[0].outcome, Accepted)
    assert first._provider.authorize() == second._provider.authorize()


def test_a_replaced_key_is_refused_until_the_channel_has_the_new_one(start: Start) -> None:
    """The old client says why; a client with the new key sends."""
    scene = start()
    client = scene.client()
    old = scene.config()
    rotated = scene.simulator.control("POST", "/credentials", {"rotate": True})
    (answer,) = send(client, pushes(APNS, 1))
    assert isinstance(answer.outcome, CredentialsRejected)
    assert answer.outcome.reason.startswith("InvalidProviderToken: ")
    with pytest.raises(CredentialsRejected, match="InvalidProviderToken"):
        client.check()
    fresh = scene.client(
        settings={**old.settings, "key_id": rotated["key_id"]},
        secrets={"key": Path(rotated["key_file"]).read_bytes()},
    )
    fresh.check()
    assert isinstance(send(fresh, pushes(APNS, 1))[0].outcome, Accepted)


@pytest.mark.parametrize(("engine", "arguments"), [("fast", ("--certificate-auth",)), ("fault", ())])
def test_a_client_certificate_authenticates_the_connection(
    start: Start, engine: str, arguments: tuple[str, ...]
) -> None:
    """No authorization header is sent; the topic is the channel's as ever."""
    scene = start(engine, *arguments)
    certificate = Path(scene.simulator.info["certificate_file"]).read_bytes()
    client = scene.client(
        secrets={"certificate": certificate}, settings={"apns_topic": scene.simulator.info["topic"]}
    )
    client.check()
    sent = pushes(APNS, 50)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers), answers[0].outcome
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)
    scene.simulator.control("POST", "/credentials", {"valid": False})
    (refused,) = send(client, pushes(APNS, 1))
    assert isinstance(refused.outcome, CredentialsRejected)
    assert refused.outcome.reason.startswith("BadCertificate: ")


# --- environments and topics


def test_a_key_for_the_sandbox_alone_is_refused_in_production(scene: Scene) -> None:
    """The operator reads which one is wrong; in the sandbox the same key sends."""
    info = scene.simulator.info
    settings = {**scene.config().settings, "key_id": info["sandbox_key_id"]}
    secrets = {"key": Path(info["sandbox_key_file"]).read_bytes()}
    wrong = scene.client(settings=settings, secrets=secrets)
    (answer,) = send(wrong, pushes(APNS, 1))
    assert isinstance(answer.outcome, CredentialsRejected)
    assert answer.outcome.reason == "BadEnvironmentKeyIdInToken: the key is for the other environment"
    with pytest.raises(CredentialsRejected, match="other environment"):
        wrong.check()
    right = scene.client(
        settings=settings, secrets=secrets, environment="sandbox", endpoint=info["sandbox_url"]
    )
    right.check()
    assert isinstance(send(right, pushes(APNS, 1))[0].outcome, Accepted)


def test_tokens_of_the_other_environment_are_only_suspects(start: Start) -> None:
    """Apple says "bad token" to good tokens on the wrong address: none of them may be called dead."""
    scene = start()
    ours, theirs = pushes(APNS, 10), pushes(APNS, 10, first=50)
    for group, environment in ((ours, "production"), (theirs, "sandbox")):
        tokens = [push.token for push in group]
        scene.simulator.control("POST", "/tokens", {"add": tokens, "environment": environment})
    answers = outcomes(send(scene.client(), [*ours, *theirs]))
    assert all(isinstance(answers[push.token], Accepted) for push in ours)
    assert {answers[push.token] for push in theirs} == {
        Rejected(reason="BadDeviceToken", suspects_token=True)
    }


def test_a_channel_with_another_apps_topic_is_refused(scene: Scene) -> None:
    """That is the channel's fault and not the tokens'."""
    client = scene.client(settings={**scene.config().settings, "apns_topic": "com.example.bank"})
    answers = send(client, pushes(APNS, 5))
    assert {type(answer.outcome) for answer in answers} == {CredentialsRejected}
    with pytest.raises(CredentialsRejected, match="TopicDisallowed"):
        client.check()


@pytest.mark.parametrize(
    "push_type",
    ["alert", "complication", "controls", "fileprovider", "liveactivity", "location", "mdm", "pushtotalk",
     "voip", "widgets"],
)  # fmt: skip
def test_each_push_type_has_a_topic_that_apple_takes(scene: Scene, push_type: str) -> None:
    """The simulator compares topic and type."""
    section = {"headers": {"apns-push-type": push_type}, "payload": {"mdm": "x"}}
    (answer,) = send(scene.client(), pushes(APNS, 1, content(Message(title="Hello", apns=section))))
    assert isinstance(answer.outcome, Accepted), answer.outcome


# --- what is sent


def test_the_largest_payload_we_let_through_is_taken(scene: Scene) -> None:
    """Our measure is the simulator's."""
    client = scene.client()
    sizes = [content(Message(title="Größe", data={"text": "x" * size})) for size in range(3930, 4060)]
    answers = send(client, [pushes(APNS, 1, one)[0] for one in sizes])
    taken = [isinstance(answer.outcome, Accepted) for answer in answers]
    assert any(taken)
    assert not all(taken)
    for answer in answers:
        if not isinstance(answer.outcome, Accepted):
            assert isinstance(answer.outcome, Rejected)
            assert answer.outcome.reason.startswith("PayloadTooLarge: message.apns: ")


def test_an_unanswered_push_is_repeated_under_the_same_id(scene: Scene) -> None:
    """APNs does not recognize it; the collapse id and the app can."""
    (push,) = pushes(APNS, 1)
    scene.misbehave("accept_no_answer", [push.token], first=1)
    client = scene.client(timeout=timedelta(seconds=1))
    (unknown,) = send(client, [push])
    assert isinstance(unknown.outcome, AnswerUnknown)
    (again,) = send(client, [replace(push)])
    assert isinstance(again.outcome, Accepted)
    lines = [line for line in scene.simulator.receipts() if line["token"] == push.token]
    assert {line["request_id"] for line in lines[-2:]} == {push.delivery_id}
