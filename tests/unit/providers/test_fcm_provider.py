"""FcmProvider's requests: bodies spliced for each token, refusals without asking, credentials read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from events import DirectPush, Message, OnUnknown
from providers import check_event, create_client
from providers.fcm import FcmProvider
from providers.outcome import ChannelConfig, Content, CredentialsRejected, Push, Rejected

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@cache
def pem(kind: str) -> str:
    """A private key of this kind."""
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def service_account(**changes: Any) -> bytes:
    """A service account's file with changes; `None` leaves a field out."""
    account = {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "k1",
        "private_key": pem("rsa"),
        "client_email": "push@shop.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return orjson.dumps({key: value for key, value in {**account, **changes}.items() if value is not None})


def provider(**changes: Any) -> FcmProvider:
    """A provider with a good account."""
    config = ChannelConfig(provider="fcm", secrets={"service_account": service_account()}, **changes)
    return FcmProvider(config, now=lambda: NOW)


def content(message: Message, notification_id: int = 7) -> Content:
    """A notification that lives an hour."""
    event = DirectPush(app="shop", users=("u7",), message=message)
    return Content(notification_id=notification_id, event=event, expires_at=NOW + timedelta(hours=1))


def push(of: Content, token: str = "token-1", **fields: Any) -> Push:
    """One delivery."""
    return Push(position=0, token=token, content=of, delivery_id="d", **fields)


@pytest.mark.parametrize("token", ["plain", 'quo"te\\', "ключ", "line\nbreak", "</script>"])
def test_the_body_is_the_rendering_with_the_token_in_front(token: str) -> None:
    """Any token is encoded, none can break out of its string."""
    (batch,) = provider().prepare([push(content(Message(title="x")), token)]).batches
    request = orjson.loads(batch.body)
    assert request["message"]["token"] == token
    assert request["message"]["notification"] == {"title": "x"}
    assert list(request) == ["message"]
    assert batch.url == "https://fcm.googleapis.com/v1/projects/shop/messages:send"
    assert batch.headers == ("content-type: application/json",)


def test_an_installation_id_is_sent_as_such() -> None:
    """FCM moves from tokens to installation ids: the registry says which one it is."""
    (batch,) = (
        provider().prepare([push(content(Message(title="x")), "fid-1", is_installation_id=True)]).batches
    )
    message = orjson.loads(batch.body)["message"]
    assert message["fid"] == "fid-1"
    assert "token" not in message


def test_each_push_gets_its_own_content_and_language() -> None:
    """Also when notifications and languages are mixed in one chunk."""
    german = Message(title="one", translations={"de": {"title": "eins"}})
    first, second = content(german, 1), content(Message(title="two"), 2)
    pushes = [
        push(first, "a"),
        push(first, "b", locale="de"),
        push(second, "c", locale="de"),
        push(first, "d"),
    ]
    batches = provider().prepare(pushes).batches
    titles = [orjson.loads(batch.body)["message"]["notification"]["title"] for batch in batches]
    assert titles == ["one", "eins", "two", "one"]
    assert [batch.pushes for batch in batches] == [(item,) for item in pushes]


def test_what_cannot_be_sent_is_answered_without_asking() -> None:
    """Too large, disabled, forbidden: each with its reason, and the others go out."""
    messages = [
        Message(title="x", data={"text": "x" * 4096}),
        Message(title="x", fcm={"enabled": False}),
        Message(title="x", fcm={"topic": "all"}),
        Message(title="x"),
    ]
    prepared = provider().prepare([push(content(message, number)) for number, message in enumerate(messages)])
    assert [answer.push.content.notification_id for answer in prepared.answers] == [0, 1, 2]
    reasons = [answer.outcome.reason for answer in prepared.answers if isinstance(answer.outcome, Rejected)]
    assert reasons == [
        "PayloadTooLarge: the iOS payload is 4137 bytes, the limit is 4096",
        "DisabledForProvider",
        "ForbiddenOverride: message.fcm.topic: cannot be overridden: it would reach devices that Pushfan does not know",
    ]
    assert [batch.pushes[0].content.notification_id for batch in prepared.batches] == [3]


def test_only_a_message_to_be_dropped_forbids_a_resend() -> None:
    """The engine then gives the body so that libcurl cannot repeat it."""
    drop = push(content(Message(title="x", on_unknown=OnUnknown.DROP), 1))
    retry = push(content(Message(title="x"), 2))
    assert [batch.is_resend_allowed for batch in provider().prepare([drop, retry]).batches] == [False, True]


def test_an_endpoint_replaces_the_vendors_address_but_not_the_path() -> None:
    """Simulators and private access to Google's services."""
    (batch,) = (
        provider(endpoint="https://fcm.example.com:8443/")
        .prepare([push(content(Message(title="x")))])
        .batches
    )
    assert batch.url == "https://fcm.example.com:8443/v1/projects/shop/messages:send"


def test_a_project_id_cannot_leave_its_place_in_the_path() -> None:
    """It comes from a file that somebody uploads."""
    config = ChannelConfig(
        provider="fcm", secrets={"service_account": service_account(project_id="a/../b?c")}
    )
    (batch,) = FcmProvider(config, now=lambda: NOW).prepare([push(content(Message(title="x")))]).batches
    assert batch.url == "https://fcm.googleapis.com/v1/projects/a%2F..%2Fb%3Fc/messages:send"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "service account: not a JSON object"),
        (b"not json", "service account: not a JSON object"),
        (b"[]", "service account: not a JSON object"),
        (service_account(project_id=None), "service account: lacks project_id"),
        (b'{"type": "x"}', "service account: lacks project_id, client_email, private_key"),
        (service_account(client_email=5), "service account: lacks client_email"),
        (service_account(private_key="x"), "service account: private_key is not an unencrypted PEM key"),
        (service_account(private_key=pem("ec")), "service account: private_key is not an RSA key"),
        (
            service_account(token_uri="http://example.com/token"),
            "service account: token_uri: only https addresses can be sent to (http to loopback): http://example.com",
        ),
    ],
)
def test_an_unusable_service_account_says_what_is_wrong(document: bytes, reason: str) -> None:
    """When the client is created, before anything is sent."""
    config = ChannelConfig(provider="fcm", secrets={"service_account": document})
    with pytest.raises(CredentialsRejected) as caught:
        create_client(config)
    assert caught.value.reason == reason


@pytest.mark.parametrize("endpoint", ["http://fcm.example.com", "ftp://127.0.0.1", "fcm.example.com"])
def test_an_unsafe_endpoint_is_refused(endpoint: str) -> None:
    """Access tokens never travel in plain text."""
    with pytest.raises(ValueError, match="only https"):
        provider(endpoint=endpoint)


def test_an_unknown_provider_is_named() -> None:
    """With the ones that exist."""
    with pytest.raises(ValueError, match="unknown provider 'gcm': it is one of fcm, apns, jpush"):
        create_client(ChannelConfig(provider="gcm"))


def test_secrets_do_not_show() -> None:
    """Neither in the configuration nor in what is read from it."""
    config = ChannelConfig(provider="fcm", secrets={"service_account": service_account()})
    assert "PRIVATE KEY" not in repr(config)
    assert "PRIVATE KEY" not in repr(vars(FcmProvider(config, now=lambda: NOW)))


def test_every_dialect_is_asked_about_an_event() -> None:
    """Forbidden overrides of all sections are named in one answer."""
    sections: dict[str, Any] = {
        "fcm": {"token": "t"},
        "apns": {"enabled": False},
        "jpush": {"audience": "all"},
    }
    event = DirectPush(app="shop", users=("u7",), message=Message(title="x", **sections))
    assert [problem.path for problem in check_event(event)] == ["message.fcm.token", "message.jpush.audience"]
