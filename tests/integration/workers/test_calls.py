"""Rare calls to a provider: where they go and do not go, and what is made of the answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from providers import create_client
from providers.calls import call
from providers.oauth import exchange_assertion, read_service_account
from providers.outcome import ChannelConfig, NotSent
from providers.reach import LOOPBACK, Reach, parse_networks
from tests.integration.workers.receiver import Receiver, receiving

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOT_ALLOWED = "localhost has no address that is allowed"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give somebody who listens inside."""
    with receiving() as receiver:
        receiver.answers = [200]
        yield receiver


def at(receiver: Receiver) -> str:
    """Name it, so that the address is found only when it is connected to."""
    return f"http://localhost:{urlsplit(receiver.url).port}"


def account(token_uri: str) -> bytes:
    """A service account that has its tokens exchanged there."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fields = {"project_id": "shop", "client_email": "push@shop.example", "token_uri": token_uri}
    return orjson.dumps({**fields, "private_key": key.decode()})


def test_name_that_leads_inside_is_not_connected_to(receiver: Receiver) -> None:
    """The judgement is on the socket, whatever the name said before; what is listed is connected to."""
    with pytest.raises(NotSent, match=NOT_ALLOWED):
        call("POST", at(receiver), headers={}, body=b"x", reach=Reach())
    assert receiver.got == []
    assert call("POST", at(receiver), headers={}, body=b"x", reach=Reach(LOOPBACK)).status == 200
    assert call("POST", at(receiver), headers={}, body=b"x").status == 200
    assert len(receiver.got) == 2


def test_token_endpoint_that_leads_inside_gets_no_assertion(receiver: Receiver) -> None:
    """A service account's file names it: whoever wrote the file does not thereby reach the network behind."""
    stranger = read_service_account(account(at(receiver)))
    with pytest.raises(NotSent, match=NOT_ALLOWED):
        exchange_assertion(stranger, scope="s", ca_file=None, asked_at=NOW, reach=Reach())
    assert receiver.got == []


@pytest.mark.parametrize(
    ("provider", "secrets"),
    [
        ("fcm", lambda url: {"service_account": account(url)}),
        ("jpush", lambda _: {"app_key": b"0" * 24, "master_secret": b"1" * 24}),
    ],
)
@pytest.mark.parametrize("place", ["endpoint", "report_endpoint"])
def test_every_call_of_a_channel_is_judged(
    receiver: Receiver, provider: str, secrets: Callable[[str], dict[str, bytes]], place: str
) -> None:
    """Checks, token exchanges and reports, not the pushes alone."""
    config = ChannelConfig(
        provider=provider,
        secrets=secrets(at(receiver)),
        endpoint=at(receiver),
        report_endpoint=at(receiver),
        reach=Reach(),
        token_reach=Reach(),
    )
    with create_client(config) as client, pytest.raises(NotSent, match=NOT_ALLOWED):
        client.check() if place == "endpoint" or provider == "fcm" else client.poll_receipts("1", ["a"], NOW)
    assert receiver.got == []


def test_check_of_fcm_is_judged_beside_its_token_exchange(receiver: Receiver) -> None:
    """A token endpoint that is listed does not open the endpoint of the pushes."""
    receiver.content = b'{"access_token": "t", "expires_in": 3600}'
    config = ChannelConfig(
        provider="fcm",
        secrets={"service_account": account(at(receiver))},
        endpoint=at(receiver),
        reach=Reach(),
        token_reach=Reach(LOOPBACK),
    )
    with create_client(config) as client, pytest.raises(NotSent, match=NOT_ALLOWED):
        client.check()
    assert len(receiver.got) == 1


def test_answer_comes_whole(receiver: Receiver) -> None:
    """Status, headers in lower case, body: an answer is no error."""
    receiver.answers, receiver.headers, receiver.content = [503], {"Retry-After": "7"}, b"later"
    answer = call("POST", at(receiver), headers={"x-one": "1"}, body=b"{}")
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "7", b"later")
    (got,) = receiver.got
    assert (got.headers["x-one"], got.body, got.headers["Host"]) == (
        "1",
        b"{}",
        urlsplit(at(receiver)).netloc,
    )


def test_redirect_is_an_answer_and_not_followed(receiver: Receiver) -> None:
    """It would lead where nobody judged."""
    receiver.answers, receiver.headers = [302], {"Location": at(receiver)}
    assert call("POST", at(receiver), headers={}, body=b"x").status == 302
    assert len(receiver.got) == 1


def test_endless_answer_is_none(receiver: Receiver) -> None:
    """It is cut off before it fills the memory."""
    receiver.is_endless = True
    with pytest.raises(NotSent, match="longer than"):
        call("POST", at(receiver), headers={}, body=b"x")


def test_name_that_is_rebound_after_its_judgement_is_not_asked_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was good when it was judged leads elsewhere a moment later: the judged address is connected to."""
    answers = iter(["127.0.0.1", "127.0.0.2"])
    asked = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **named: Any) -> Any:
        return asked(next(answers) if host == "localhost" else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    outside = Reach(parse_networks("127.0.0.1/32"))
    port = urlsplit(receiver.url).port or 0
    with receiving(host="127.0.0.2", port=port) as inside:
        assert call("POST", at(receiver), headers={}, body=b"x", reach=outside).status == 200
        with pytest.raises(NotSent, match=NOT_ALLOWED):
            call("POST", at(receiver), headers={}, body=b"x", reach=outside)
        assert (len(receiver.got), len(inside.got)) == (1, 0)


def test_certificate_must_be_the_names_although_the_address_is_pinned(tmp_path: Path) -> None:
    """Of a trusted authority and of the name that was asked for; the judged address alone is not enough."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("localhost", "127.0.0.1"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        with receiving(context=context) as receiver:
            receiver.answers = [200]
            url = receiver.url.replace("127.0.0.1", "localhost")
            asked = partial(call, "POST", url, headers={}, body=b"x", reach=Reach(LOOPBACK))
            if name == "localhost":
                assert asked(ca_file=str(tmp_path / "ca.pem")).status == 200
                with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
                    asked()
            else:
                with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
                    asked(ca_file=str(tmp_path / "ca.pem"))


def test_plain_http_is_sent_to_this_machine_alone() -> None:
    """Elsewhere somebody could read the credentials."""
    with pytest.raises(ValueError, match="only https"):
        call("GET", "http://example.com/", headers={})
