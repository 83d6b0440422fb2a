"""What only FCM does: its OAuth, its kinds of refusal, its addresses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from events import Message
from providers.outcome import (
    Accepted,
    CredentialsRejected,
    NotSent,
    Outcome,
    Rejected,
    SendError,
    Throttled,
    Unavailable,
    Unregistered,
)
from tests.conformance.scene import Scene, content, outcomes, pushes, send
from tests.conformance.vendors import FCM

pytestmark = pytest.mark.parametrize("vendor", ["fcm"], indirect=True)

SECONDS_10 = timedelta(seconds=10)
ANSWERS: dict[str, Outcome | type[SendError]] = {
    "third_party_auth": Unavailable(reason="THIRD_PARTY_AUTH_ERROR", delay=timedelta(minutes=10)),
    "apns_auth_error": Unavailable(reason="APNS_AUTH_ERROR", delay=timedelta(minutes=10)),
    "permission_denied": CredentialsRejected,
    "not_found": CredentialsRejected,
    "unspecified": Unavailable(reason="UNSPECIFIED_ERROR", delay=SECONDS_10, is_unsure=True),
    "bad_gateway_html": Unavailable(reason="http 502", delay=SECONDS_10, is_unsure=True),
    "bad_token_message": Rejected(reason="INVALID_ARGUMENT", suspects_token=True),
    "bad_argument": Rejected(reason="INVALID_ARGUMENT"),
    "credentials": CredentialsRejected,
}


@pytest.mark.parametrize("word", ANSWERS)
def test_every_refusal_of_fcm(scene: Scene, word: str) -> None:
    """As the simulator tells it, which shares no code with us."""
    (victim,) = pushes(FCM, 1, first=900)
    neighbours = pushes(FCM, 3)
    scene.simulator.rules([{"tokens": [victim.token], "answer": word}])
    answers = outcomes(send(scene.client(), [victim, *neighbours]))
    expected, got = ANSWERS[word], answers[victim.token]
    assert isinstance(got, expected) if isinstance(expected, type) else got == expected, got
    assert all(isinstance(answers[push.token], Accepted) for push in neighbours)


def test_a_malformed_token_only_suspects_it(scene: Scene) -> None:
    """FCM names the field; the message might have been at fault."""
    (push,) = pushes(FCM, 1)
    (answer,) = send(scene.client(), [replace(push, token="not a token!")])
    assert answer.outcome == Rejected(reason="INVALID_ARGUMENT message.token", suspects_token=True)


def test_an_installation_id_is_reached_as_such(scene: Scene) -> None:
    """A receipt shows it arrived."""
    (push,) = pushes(FCM, 1, is_installation_id=True)
    by_id = replace(push, token="dIsaQ1xfRk2Yr3bZ0vWn4A")
    (answer,) = send(scene.client(), [by_id])
    assert isinstance(answer.outcome, Accepted)
    assert scene.receipts(by_id) == {by_id.token: 1}


def test_a_retry_after_date_is_understood(scene: Scene) -> None:
    """An HTTP date, as RFC 9110 allows."""
    (push,) = pushes(FCM, 1)
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded."}}
    at = datetime.now(UTC) + timedelta(minutes=5)
    scene.simulator.rules(
        [
            {
                "tokens": [push.token],
                "answer": "custom",
                "status": 429,
                "body": error,
                "headers": {"retry-after": at.strftime("%a, %d %b %Y %H:%M:%S GMT")},
            }
        ]
    )
    (answer,) = send(scene.client(), [push])
    assert isinstance(answer.outcome, Throttled)
    assert answer.outcome.is_vendor_delay
    assert timedelta(minutes=4, seconds=50) < answer.outcome.delay <= timedelta(minutes=5)


def test_an_access_token_that_expires_on_the_way_is_replaced_unnoticed(scene: Scene) -> None:
    """FCM answers 401; every push is sent again with a new token and accepted once."""
    client = scene.client()
    send(client, pushes(FCM, 1))
    scene.simulator.control("POST", "/credentials", {"expire": True})
    sent = pushes(FCM, 60, first=100)
    answers = send(client, sent)
    assert all(isinstance(answer.outcome, Accepted) for answer in answers)
    assert scene.receipts(*sent) == dict.fromkeys((push.token for push in sent), 1)


def test_one_access_token_serves_many_pushes(scene: Scene) -> None:
    """The token endpoint is asked once, not for each push."""
    before = scene.simulator.stats()["answers"].get("oauth", 0)
    send(scene.client(), pushes(FCM, 200))
    assert scene.simulator.stats()["answers"]["oauth"] == before + 1


def test_a_rotated_key_is_refused_with_googles_words(scene: Scene) -> None:
    """The old service account's signature no longer counts."""
    account = orjson.loads(scene.config().secrets["service_account"])
    stranger = {**account, "client_email": "stranger@example.iam.gserviceaccount.com"}
    client = scene.client(secrets={"service_account": orjson.dumps(stranger)})
    (answer,) = send(client, pushes(FCM, 1))
    assert isinstance(answer.outcome, CredentialsRejected)
    assert answer.outcome.reason.startswith("OAuth 4")
    with pytest.raises(CredentialsRejected):
        client.check()


def test_another_project_is_refused(scene: Scene) -> None:
    """A service account that may not send for the project is about us, not about the token."""
    account = orjson.loads(scene.config().secrets["service_account"])
    client = scene.client(secrets={"service_account": orjson.dumps({**account, "project_id": "elsewhere"})})
    (answer,) = send(client, pushes(FCM, 1))
    assert isinstance(answer.outcome, CredentialsRejected)
    with pytest.raises(CredentialsRejected, match="PERMISSION_DENIED"):
        client.check()


def test_a_silent_token_endpoint_is_certain_and_brief(scene: Scene) -> None:
    """Nothing was sent, and the next pushes do not wait again."""
    account = orjson.loads(scene.config().secrets["service_account"])
    nowhere = {**account, "token_uri": "https://127.0.0.1:9/token"}
    client = scene.client(secrets={"service_account": orjson.dumps(nowhere)})
    answers = send(client, pushes(FCM, 20), seconds=5)
    assert all(isinstance(answer.outcome, NotSent) for answer in answers)


def test_a_dead_token_is_unregistered_without_a_time(scene: Scene) -> None:
    """FCM names no time of invalidation: the loading of the token decides."""
    (push,) = pushes(FCM, 1)
    scene.misbehave("unregistered", [push.token])
    (answer,) = send(scene.client(), [push])
    assert answer.outcome == Unregistered(reason="UNREGISTERED", invalidated_at=None)


def test_the_largest_payload_we_let_through_is_taken(scene: Scene) -> None:
    """Our measure is no laxer than the simulator's."""
    client = scene.client()
    for size in range(3850, 4060):
        message = Message(
            title="Größe", subtitle="x", badge=1, data={"text": "x" * size}, icon="i", color="#00aaff"
        )
        (push,) = pushes(FCM, 1, content(message))
        (answer,) = send(client, [push])
        if isinstance(answer.outcome, Rejected):
            assert answer.outcome.reason.startswith("PayloadTooLarge")
            break
        assert isinstance(answer.outcome, Accepted), answer.outcome
    else:
        pytest.fail("no size was refused")
