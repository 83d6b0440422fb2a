"""APNs as it is simulated, seen by an HTTP client that knows nothing of our own."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from providers.simulators import Running, launch

TOPIC = "com.example.shop"
ALERT = {"aps": {"alert": {"title": "Shipped", "body": "On its way"}}, "pushfan": {"n": "41", "k": "direct"}}
SILENT = {"aps": {"content-available": 1}}
_counter = iter(range(1, 1_000_000))


def _token() -> str:
    return f"{next(_counter):064x}"


class Sender:
    """A backend with the team's key. Each instance has a connection of its own."""

    def __init__(self, simulator: Running, url: str = "url", **options: Any) -> None:
        self.simulator = simulator
        context = ssl.create_default_context(cafile=simulator.info["ca_file"])
        if options.pop("certificate", False):
            context.load_cert_chain(simulator.info["certificate_file"])
        self.client = httpx.Client(http2=True, verify=context, timeout=10)
        self.url = simulator.info[url]
        self.authorization: str | None = self.sign()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def sign(self, key: str | None = None, key_id: str | None = None, **changes: Any) -> str:
        info = self.simulator.info
        claims = {"iss": info["team_id"], "iat": int(time.time()), **changes}
        pem = key or Path(info["key_file"]).read_text()
        return "bearer " + jwt.encode(
            claims, pem, algorithm="ES256", headers={"kid": key_id or info["key_id"]}
        )

    def send(self, token: str, payload: Any = ALERT, **headers: str | None) -> httpx.Response:
        """Send with good headers, but for those that are given (`None`: left out)."""
        return self.request("POST", f"/3/device/{token}", payload, **headers)

    def request(self, method: str, path: str, payload: Any = ALERT, **headers: str | None) -> httpx.Response:
        given: dict[str, str | None] = {
            "authorization": self.authorization,
            "apns-topic": TOPIC,
            "apns-push-type": "alert",
            "apns-priority": "10",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sent = {name: value for name, value in given.items() if value is not None}
        return self.client.request(method, self.url + path, content=content, headers=sent)


@pytest.fixture(scope="module", params=["fast", "fault"])
def simulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A simulator of each engine."""
    with launch("apns", tmp_path_factory.mktemp("apns"), engine=request.param) as running:
        yield running


@pytest.fixture
def sender(simulator: Running) -> Iterator[Sender]:
    """A backend on a fresh connection; no rules are left behind."""
    simulator.clear_rules()
    with Sender(simulator) as sender:
        yield sender


def _received(simulator: Running, token: str) -> list[dict[str, Any]]:
    return [receipt for receipt in simulator.receipts() if receipt["token"] == token]


def _verdict(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def test_accepted_push_is_one_receipt_with_its_ids(sender: Sender) -> None:
    """A good push is an empty 200 that echoes the apns-id, and one receipt with id and notification."""
    token, apns_id = _token(), str(uuid4())
    answer = sender.send(token, apns_id=apns_id)
    assert (answer.status_code, answer.http_version, answer.content) == (200, "HTTP/2", b"")
    assert answer.headers["apns-id"] == apns_id
    [receipt] = _received(sender.simulator, token)
    assert (receipt["notification"], receipt["apns_id"], receipt["request_id"]) == ("41", apns_id, apns_id)


def test_missing_apns_id_is_made_and_told(sender: Sender) -> None:
    """Without an apns-id APNs makes one, and answer and receipt agree on it."""
    token = _token()
    answer = sender.send(token)
    assert answer.headers["apns-id"] == _received(sender.simulator, token)[0]["apns_id"]


def test_reserved_key_may_be_an_object_or_its_text(sender: Sender) -> None:
    """The notification id is found in an object and in JSON text."""
    for reserved in ({"n": "7"}, '{"n":"7"}', {"n": 7}):
        token = _token()
        sender.send(token, {"aps": {"alert": "x"}, "pushfan": reserved})
        assert _received(sender.simulator, token)[0]["notification"] == "7"


@pytest.mark.parametrize(
    ("headers", "payload", "verdict"),
    [
        ({"apns_topic": None}, ALERT, (400, "MissingTopic")),
        ({"apns_topic": "com.example.other"}, ALERT, (400, "TopicDisallowed")),
        ({"apns_topic": "not a topic"}, ALERT, (400, "BadTopic")),
        ({"apns_push_type": "voip"}, ALERT, (400, "BadTopic")),
        ({"apns_push_type": "shout"}, ALERT, (400, "InvalidPushType")),
        ({"apns_push_type": "background", "apns_priority": "10"}, SILENT, (400, "BadPriority")),
        ({"apns_push_type": "background", "apns_priority": None}, SILENT, (400, "BadPriority")),
        ({"apns_push_type": "background", "apns_priority": "5"}, ALERT, (400, "InvalidPushType")),
        ({"apns_priority": "7"}, ALERT, (400, "BadPriority")),
        ({"apns_collapse_id": "x" * 65}, ALERT, (400, "BadCollapseId")),
        ({"apns_expiration": "tomorrow"}, ALERT, (400, "BadExpirationDate")),
        ({"apns_id": "17"}, ALERT, (400, "BadMessageId")),
        ({"apns_id": str(uuid4()).upper()}, ALERT, (400, "BadMessageId")),
        ({}, b"", (400, "PayloadEmpty")),
        ({}, b"{", (400, "PayloadEmpty")),
        ({}, {"alert": "x"}, (400, "PayloadEmpty")),
        ({}, b'{"aps":{"alert":"' + b"x" * 4078 + b'"}}', (413, "PayloadTooLarge")),
        ({"authorization": None}, ALERT, (403, "MissingProviderToken")),
        ({"authorization": "bearer rubbish"}, ALERT, (403, "InvalidProviderToken")),
        ({"authorization": "basic eA=="}, ALERT, (403, "InvalidProviderToken")),
    ],
)
def test_bad_request_is_refused_with_its_reason(
    sender: Sender, headers: dict[str, str | None], payload: Any, verdict: tuple[int, str]
) -> None:
    """Each mistake has its status and reason, and no device receives anything."""
    token = _token()
    assert _verdict(sender.send(token, payload, **headers)) == verdict
    assert _received(sender.simulator, token) == []


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({"apns_collapse_id": "x" * 64, "apns_expiration": "0", "apns_priority": "1"}, ALERT),
        ({"apns_push_type": "background", "apns_priority": "5"}, SILENT),
        ({"apns_push_type": "voip", "apns_topic": TOPIC + ".voip"}, {"aps": {"x": "x" * 5000}}),
        ({"apns_push_type": None, "apns_priority": None}, ALERT),
        ({}, b'{"aps":{"alert":"' + b"x" * 4076 + b'"}}'),
    ],
)
def test_request_at_the_limits_is_accepted(
    sender: Sender, headers: dict[str, str | None], payload: Any
) -> None:
    """What the page allows passes: 64 bytes of collapse id, 4096 of payload, 5120 for VoIP."""
    assert sender.send(_token(), payload, **headers).status_code == 200


def test_repeated_header_is_refused(sender: Sender) -> None:
    """An apns header that comes twice is no choice but an error."""
    headers = [("authorization", str(sender.authorization)), ("apns-topic", TOPIC), ("apns-topic", TOPIC)]
    answer = sender.client.post(f"{sender.url}/3/device/{_token()}", json=ALERT, headers=headers)
    assert _verdict(answer) == (400, "DuplicateHeaders")


def test_wrong_path_method_and_tokens(sender: Sender) -> None:
    """Path, method and the form of the device token are checked."""
    assert _verdict(sender.request("POST", f"/2/device/{_token()}")) == (404, "BadPath")
    assert _verdict(sender.request("GET", f"/3/device/{_token()}")) == (405, "MethodNotAllowed")
    assert _verdict(sender.send("")) == (400, "MissingDeviceToken")
    for token in ("abc", "g" * 64, "a" * 63, "ab" * 101):
        assert _verdict(sender.send(token)) == (400, "BadDeviceToken")
    assert sender.send("AB" * 80).status_code == 200


def test_old_provider_token_is_expired(sender: Sender) -> None:
    """A token older than an hour is refused, one a minute younger is not."""
    sender.authorization = sender.sign(iat=int(time.time()) - 3610)
    assert _verdict(sender.send(_token())) == (403, "ExpiredProviderToken")
    sender.authorization = sender.sign(iat=int(time.time()) - 3540)
    assert sender.send(_token()).status_code == 200


def test_provider_token_from_the_future_is_invalid(sender: Sender) -> None:
    """A client whose clock is far ahead gets no push through."""
    sender.authorization = sender.sign(iat=int(time.time()) + 600)
    assert _verdict(sender.send(_token())) == (403, "InvalidProviderToken")


def test_foreign_key_team_and_key_id_are_invalid(sender: Sender) -> None:
    """Signature, issuer and key id must be the team's."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for authorization in (
        sender.sign(key=key.decode()), sender.sign(iss="0THERTEAM0"), sender.sign(key_id="0THERKEY00"),
        sender.sign(iat="now"),
    ):  # fmt: skip
        sender.authorization = authorization
        assert _verdict(sender.send(_token())) == (403, "InvalidProviderToken")


def test_provider_token_may_be_renewed_once_in_twenty_minutes(sender: Sender) -> None:
    """A connection takes one renewal; a second one within 20 minutes is too many, the same token never is."""
    tokens = [sender.sign(iat=int(time.time()) - age) for age in (30, 20, 10)]
    for sender.authorization in tokens[:2] + tokens[1:2]:
        assert sender.send(_token()).status_code == 200
    sender.authorization = tokens[2]
    assert _verdict(sender.send(_token())) == (429, "TooManyProviderTokenUpdates")
    sender.simulator.control("POST", "/clock", {"advance_seconds": 1201})
    assert sender.send(_token()).status_code == 200
    sender.simulator.control("POST", "/clock", {"advance_seconds": -1201})


def test_connection_is_bound_to_its_first_key(sender: Sender) -> None:
    """Another key of the team needs another connection."""
    info = sender.simulator.info
    other = sender.sign(key=Path(info["sandbox_key_file"]).read_text(), key_id=info["sandbox_key_id"])
    with Sender(sender.simulator, "sandbox_url") as sandbox:
        assert sandbox.send(_token()).status_code == 200
        sandbox.authorization = other
        assert _verdict(sandbox.send(_token())) == (403, "UnrelatedKeyIdInToken")
    with Sender(sender.simulator, "sandbox_url") as sandbox:
        sandbox.authorization = other
        assert sandbox.send(_token()).status_code == 200


def test_sandbox_key_is_no_key_for_production(sender: Sender) -> None:
    """A key made for the sandbox alone is refused by production with the reason of the environment."""
    info = sender.simulator.info
    sender.authorization = sender.sign(
        key=Path(info["sandbox_key_file"]).read_text(), key_id=info["sandbox_key_id"]
    )
    assert _verdict(sender.send(_token())) == (403, "BadEnvironmentKeyIdInToken")


def test_expired_credentials_make_room_for_new_ones(sender: Sender) -> None:
    """When tokens expire early, a fresh one is good at once."""
    assert sender.send(_token()).status_code == 200
    sender.simulator.control("POST", "/credentials", {"expire": True})
    assert _verdict(sender.send(_token())) == (403, "ExpiredProviderToken")
    sender.authorization = sender.sign(iat=int(time.time()) - 1)
    assert sender.send(_token()).status_code == 200


def test_revoked_credentials_are_refused_until_restored(sender: Sender) -> None:
    """The whole provider refuses while its credentials are revoked."""
    sender.simulator.control("POST", "/credentials", {"valid": False})
    assert _verdict(sender.send(_token())) == (403, "InvalidProviderToken")
    sender.simulator.control("POST", "/credentials", {"valid": True})
    assert sender.send(_token()).status_code == 200


def test_rotated_key_replaces_the_old_one(sender: Sender) -> None:
    """After a rotation the old key's tokens are invalid and the new key file works."""
    answer = sender.simulator.control("POST", "/credentials", {"rotate": True})
    assert _verdict(sender.send(_token())) == (403, "InvalidProviderToken")
    sender.simulator.info["key_id"] = answer["key_id"]
    with Sender(sender.simulator) as renewed:
        assert renewed.send(_token()).status_code == 200


def test_tokens_of_one_environment_are_bad_in_the_other(sender: Sender) -> None:
    """A token that the sandbox gave out is BadDeviceToken in production, and the other way round."""
    ours, theirs = _token(), _token()
    sender.simulator.control("POST", "/tokens", {"add": [ours]})
    sender.simulator.control("POST", "/tokens", {"add": [theirs], "environment": "sandbox"})
    with Sender(sender.simulator, "sandbox_url") as sandbox:
        assert sender.send(ours).status_code == 200
        assert _verdict(sender.send(theirs)) == (400, "BadDeviceToken")
        assert _verdict(sandbox.send(ours)) == (400, "BadDeviceToken")
        assert "apns-unique-id" in sandbox.send(theirs).headers
        assert "apns-unique-id" not in sender.send(ours).headers
        assert _verdict(sender.send(_token())) == (400, "BadDeviceToken")
    sender.simulator.control("DELETE", "/tokens")


def test_unregistered_token_has_the_time_of_its_end(sender: Sender) -> None:
    """A 410 names the moment in milliseconds: the rule's, or now."""
    old, new = _token(), _token()
    sender.simulator.rules([
        {"tokens": [old], "answer": "unregistered", "invalidated_at": 1_700_000_000_123},
        {"tokens": [new], "answer": "ExpiredToken"},
    ])  # fmt: skip
    assert sender.send(old).json() == {"reason": "Unregistered", "timestamp": 1_700_000_000_123}
    answer = sender.send(new)
    assert _verdict(answer) == (410, "ExpiredToken")
    assert abs(answer.json()["timestamp"] / 1000 - time.time()) < 60


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("bad_token", (400, "BadDeviceToken")),
        ("mismatch", (400, "DeviceTokenNotForTopic")),
        ("topic_mismatch", (400, "DeviceTokenNotForTopic")),
        ("throttled", (429, "TooManyRequests")),
        ("unavailable", (503, "ServiceUnavailable")),
        ("internal", (500, "InternalServerError")),
        ("payload", (413, "PayloadTooLarge")),
        ("credentials", (403, "InvalidProviderToken")),
        ("expired_credentials", (403, "ExpiredProviderToken")),
        ("BadEnvironmentKeyInToken", (403, "BadEnvironmentKeyInToken")),
        ("IdleTimeout", (400, "IdleTimeout")),
        ("Shutdown", (503, "Shutdown")),
    ],
)
def test_rule_gives_the_vendor_s_answer(sender: Sender, answer: str, verdict: tuple[int, str]) -> None:
    """Rules speak the shared words and Apple's own reasons; the apns-id is echoed, nothing is received."""
    token, apns_id = _token(), str(uuid4())
    sender.simulator.rules([{"tokens": [token], "answer": answer}])
    got = sender.send(token, apns_id=apns_id)
    assert (_verdict(got), got.headers["apns-id"]) == (verdict, apns_id)
    assert _received(sender.simulator, token) == []


def test_answer_may_get_lost_after_delivery(sender: Sender) -> None:
    """The device has received what the backend was never told about."""
    token = _token()
    sender.simulator.rules([{"tokens": [token], "answer": "accept_no_answer"}])
    sender.client.timeout = httpx.Timeout(0.5)
    with pytest.raises(httpx.ReadTimeout):
        sender.send(token)
    [receipt] = _received(sender.simulator, token)
    assert receipt["answered"] is False


def test_http_1_1_is_not_spoken(simulator: Running) -> None:
    """APNs is HTTP/2 only."""
    context = ssl.create_default_context(cafile=simulator.info["ca_file"])
    with httpx.Client(http2=False, verify=context) as client, pytest.raises(httpx.HTTPError):
        client.post(f"{simulator.url}/3/device/{_token()}", json=ALERT)


def test_client_certificate_replaces_token_and_topic(tmp_path: Path) -> None:
    """With a certificate no provider token is needed and the topic defaults to the certificate's."""
    with launch("apns", tmp_path, arguments=["--certificate-auth"]) as simulator:
        with Sender(simulator, certificate=True) as sender:
            assert sender.send(_token(), authorization=None, apns_topic=None).status_code == 200
            assert _verdict(sender.send(_token(), authorization=None, apns_topic="com.x")) == (
                400,
                "TopicDisallowed",
            )
        with Sender(simulator) as bare, pytest.raises(httpx.HTTPError):
            bare.send(_token())
