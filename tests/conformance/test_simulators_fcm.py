"""FCM as it is simulated, seen by an HTTP client that knows nothing of our own."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from providers.simulators import Running, launch

TOKEN = "fcm-token:APA91b" + "x" * 120
SILENT = {"aps": {"content-available": 1}}
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"

Send = Callable[[str], Coroutine[Any, Any, httpx.Response]]


class Sender:
    """A backend with a service account."""

    def __init__(self, simulator: Running) -> None:
        self.simulator = simulator
        self.client = httpx.Client(http2=True, verify=_trust(simulator), timeout=10)
        self.path = f"{simulator.url}/v1/projects/{simulator.info['project_id']}/messages:send"
        self.headers: dict[str, str] = {}
        self.log_in()

    def log_in(self) -> None:
        self.headers = {"authorization": f"Bearer {self.exchange().json()['access_token']}"}

    @property
    def account(self) -> dict[str, Any]:
        return dict(json.loads(Path(self.simulator.info["service_account_file"]).read_text()))

    def exchange(self, key: str | None = None, **changes: Any) -> httpx.Response:
        now = int(time.time())
        claims = {
            "iss": self.account["client_email"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": self.account["token_uri"],
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        assertion = jwt.encode(claims, key or self.account["private_key"], algorithm="RS256")
        form = {"grant_type": GRANT, "assertion": assertion}
        return self.client.post(self.account["token_uri"], data=form)

    def send(self, message: dict[str, Any], **fields: Any) -> httpx.Response:
        return self.client.post(self.path, json={"message": message, **fields}, headers=self.headers)

    @asynccontextmanager
    async def connect(self, seconds: float) -> AsyncIterator[Send]:
        """Send to tokens over one connection, many at a time."""
        async with httpx.AsyncClient(http2=True, verify=_trust(self.simulator), timeout=seconds) as client:
            yield lambda token: client.post(
                self.path, json={"message": {"token": token}}, headers=self.headers
            )


def _trust(simulator: Running) -> Any:
    return ssl.create_default_context(cafile=simulator.info["ca_file"])


@pytest.fixture(scope="module", params=["fast", "fault"])
def sender_of_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sender]:
    """A simulator of each engine, and a backend for it."""
    with launch("fcm", tmp_path_factory.mktemp("fcm"), engine=request.param) as running:
        sender = Sender(running)
        yield sender
        sender.client.close()


@pytest.fixture
def sender(sender_of_engine: Sender) -> Sender:
    """The backend, with no rules left behind."""
    sender_of_engine.simulator.clear_rules()
    sender_of_engine.client.timeout = httpx.Timeout(10)
    return sender_of_engine


def _received(simulator: Running, token: str) -> list[dict[str, Any]]:
    return [receipt for receipt in simulator.receipts() if receipt["token"] == token]


def _codes(answer: httpx.Response) -> list[str]:
    details = answer.json()["error"].get("details", [])
    return [detail["errorCode"] for detail in details if "errorCode" in detail]


def _fields(answer: httpx.Response) -> list[str]:
    details = answer.json()["error"].get("details", [])
    return [item["field"] for detail in details for item in detail.get("fieldViolations", [])]


def test_accepted_push_is_one_receipt_with_its_notification(sender: Sender) -> None:
    """A good message is answered with a name, and the device's receipt carries notification and name."""
    token = TOKEN + "-one"
    answer = sender.send({"token": token, "data": {"pushfan": '{"n":"17","k":"direct"}'}})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    [receipt] = _received(sender.simulator, token)
    assert receipt["notification"] == "17"
    assert receipt["message_id"] == answer.json()["name"]
    assert receipt["answered"] is True


def test_same_message_to_many_tokens_is_a_receipt_for_each(sender: Sender) -> None:
    """Bodies that differ in the token alone keep their tokens apart and their notification together."""
    tokens = [f"{TOKEN}-many-{number}" for number in range(20)]
    for token in tokens:
        sender.send({"token": token, "data": {"pushfan": '{"n":"18"}'}})
    received = [receipt for receipt in sender.simulator.receipts() if receipt["notification"] == "18"]
    assert [receipt["token"] for receipt in received] == tokens
    assert len({receipt["message_id"] for receipt in received}) == len(tokens)


def test_http_1_1_is_spoken(sender: Sender) -> None:
    """A client without HTTP/2 is served too."""
    with httpx.Client(http2=False, verify=_trust(sender.simulator)) as client:
        answers = [
            client.post(sender.path, json={"message": {"token": TOKEN}}, headers=sender.headers)
            for _ in range(2)
        ]
    assert [(answer.status_code, answer.http_version) for answer in answers] == [(200, "HTTP/1.1")] * 2


def test_validate_only_delivers_nothing(sender: Sender) -> None:
    """A dry run is answered with a fake name and leaves no receipt, before and after the real message."""
    token = TOKEN + "-dry"
    for dry in (True, False, True):
        answer = sender.send({"token": token}, validate_only=dry)
        assert answer.json()["name"].endswith("fake_message_id") is dry
    assert len(_received(sender.simulator, token)) == 1


def test_installation_id_is_an_address(sender: Sender) -> None:
    """A message may go to a Firebase installation id instead of a token."""
    assert sender.send({"fid": "cdefABCD1234_-efgh5678"}).status_code == 200
    assert len(_received(sender.simulator, "cdefABCD1234_-efgh5678")) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "other@example.com"}, "invalid_grant"),
        ({"aud": "https://example.com/token"}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
        ({"exp": 7200}, "invalid_grant"),
        ({"iat": -7200, "exp": -3600}, "invalid_grant"),
        ({"iat": 600, "exp": 900}, "invalid_grant"),
    ],
)
def test_wrong_claims_get_no_access_token(sender: Sender, changes: dict[str, Any], error: str) -> None:
    """Issuer, audience, scope and times of the assertion, here in seconds from now, are checked."""
    now = int(time.time())
    claims: dict[str, Any] = {
        name: now + value if isinstance(value, int) else value for name, value in changes.items()
    }
    answer = sender.exchange(**claims)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_foreign_signature_gets_no_access_token(sender: Sender, tmp_path: Path) -> None:
    """An assertion signed with another key is refused."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    answer = sender.exchange(key=pem.decode())
    assert answer.json() == {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}


def test_send_without_access_token_is_unauthenticated(sender: Sender) -> None:
    """Without a bearer, or with one that nobody gave out, FCM answers 401 and no FCM code."""
    for headers in ({}, {"authorization": "Bearer ya29.9999999999.00.00"}, {"authorization": "Basic eA=="}):
        answer = sender.client.post(sender.path, json={"message": {"token": TOKEN}}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert _codes(answer) == []


def test_expired_access_token_is_unauthenticated_and_a_new_one_is_not(sender: Sender) -> None:
    """When tokens expire, the account itself still gets new ones."""
    sender.simulator.control("POST", "/credentials", {"expire": True})
    assert sender.send({"token": TOKEN}).status_code == 401
    sender.log_in()
    assert sender.send({"token": TOKEN}).status_code == 200


def test_access_token_dies_after_an_hour(sender: Sender) -> None:
    """The token is good for 3600 seconds by the vendor's clock, not longer."""
    sender.simulator.control("POST", "/clock", {"advance_seconds": 3590})
    assert sender.send({"token": TOKEN}).status_code == 200
    sender.simulator.control("POST", "/clock", {"advance_seconds": 20})
    assert sender.send({"token": TOKEN}).status_code == 401
    sender.simulator.control("POST", "/clock", {"advance_seconds": -3610})


def test_revoked_account_is_refused_everywhere_until_it_is_restored(sender: Sender) -> None:
    """A revoked service account gets no token and its old tokens send nothing."""
    sender.simulator.control("POST", "/credentials", {"valid": False})
    assert sender.exchange().json()["error"] == "invalid_grant"
    assert sender.send({"token": TOKEN}).status_code == 401
    sender.simulator.control("POST", "/credentials", {"valid": True})
    assert sender.send({"token": TOKEN}).status_code == 200


def test_rotated_key_replaces_the_old_one(sender: Sender) -> None:
    """After a rotation the account file holds the only key that works."""
    old = sender.account["private_key"]
    sender.simulator.control("POST", "/credentials", {"rotate": True})
    assert sender.exchange(key=old).status_code == 400
    assert sender.send({"token": TOKEN}).status_code == 401
    sender.log_in()
    assert sender.send({"token": TOKEN}).status_code == 200


def test_other_project_is_denied_without_fcm_code(sender: Sender) -> None:
    """A project that the account has no right to is 403 without FcmError."""
    url = sender.path.replace(sender.simulator.info["project_id"], "someone-else")
    answer = sender.client.post(url, json={"message": {"token": TOKEN}}, headers=sender.headers)
    assert (answer.status_code, _codes(answer)) == (403, [])


@pytest.mark.parametrize(
    ("message", "fields", "codes"),
    [
        ({}, ["message"], ["INVALID_ARGUMENT"]),
        ({"token": TOKEN, "topic": "news"}, ["message"], ["INVALID_ARGUMENT"]),
        ({"token": "not a token"}, ["message.token"], ["INVALID_ARGUMENT"]),
        ({"token": TOKEN, "data": {"a": "b", "count": 12}}, ["message.data[1].value"], []),
        ({"token": TOKEN, "data": {"from": "x"}}, ["message.data"], ["INVALID_ARGUMENT"]),
        ({"token": TOKEN, "data": {"google.x": "x"}}, ["message.data"], ["INVALID_ARGUMENT"]),
        (
            {"token": TOKEN, "android": {"data": {"gcm.x": "x"}}},
            ["message.android.data"],
            ["INVALID_ARGUMENT"],
        ),
        ({"token": TOKEN, "android": {"ttl": "1h"}}, ["message.android.ttl"], ["INVALID_ARGUMENT"]),
        ({"token": TOKEN, "android": {"ttl": "2419201s"}}, ["message.android.ttl"], ["INVALID_ARGUMENT"]),
        ({"token": TOKEN, "android": {"ttl": 3600}}, ["message.android.ttl"], []),
        ({"token": TOKEN, "android": {"priority": "URGENT"}}, ["message.android.priority"], []),
        ({"token": TOKEN, "priority": "HIGH"}, ["message"], []),
        ({"token": TOKEN, "apns": {"payload": []}}, ["message.apns.payload"], []),
        (
            {"token": TOKEN, "apns": {"headers": {"apns-priority": "10"}, "payload": SILENT}},
            ["message.apns.headers"],
            ["INVALID_ARGUMENT"],
        ),
        (
            {"token": TOKEN, "fcm_options": {"analytics_label": "no spaces please"}},
            ["message.fcm_options.analytics_label"],
            ["INVALID_ARGUMENT"],
        ),
    ],
)  # fmt: skip
def test_bad_message_is_refused_with_its_field(
    sender: Sender, message: dict[str, Any], fields: list[str], codes: list[str]
) -> None:
    """Each mistake is a 400 that names the field, with FcmError where FCM itself noticed, and no receipt."""
    before = len(sender.simulator.receipts())
    answer = sender.send(message)
    assert answer.status_code == 400
    assert (_fields(answer), _codes(answer)) == (fields, codes)
    assert len(sender.simulator.receipts()) == before


def test_camel_case_names_are_read(sender: Sender) -> None:
    """Google's JSON front end takes both spellings."""
    answer = sender.send({"token": TOKEN, "android": {"collapseKey": "a", "restrictedPackageName": "b"}})
    assert answer.status_code == 200


def test_oversized_payload_is_refused_without_details(sender: Sender) -> None:
    """4096 bytes of keys and values pass, one more is a bare 400."""
    data = {"k": "x" * 4095}
    assert sender.send({"token": TOKEN, "data": data}).status_code == 200
    answer = sender.send({"token": TOKEN, "data": {"k": "x" * 4096}})
    assert answer.status_code == 400
    assert "details" not in answer.json()["error"]


def test_body_that_is_not_json_is_refused(sender: Sender) -> None:
    """Rubbish is a 400, not a crash."""
    for body in (b"", b"{", b"[]", b"null", b'{"message":[]}', b'{"message":{"token":5}}', b"\xff"):
        assert sender.client.post(sender.path, content=body, headers=sender.headers).status_code == 400


@pytest.mark.parametrize(
    ("answer", "status", "word", "codes"),
    [
        ("unregistered", 404, "NOT_FOUND", ["UNREGISTERED"]),
        ("bad_token", 400, "INVALID_ARGUMENT", ["INVALID_ARGUMENT"]),
        ("bad_token_message", 400, "INVALID_ARGUMENT", ["INVALID_ARGUMENT"]),
        ("bad_argument", 400, "INVALID_ARGUMENT", []),
        ("payload", 400, "INVALID_ARGUMENT", ["INVALID_ARGUMENT"]),
        ("mismatch", 403, "PERMISSION_DENIED", ["SENDER_ID_MISMATCH"]),
        ("permission_denied", 403, "PERMISSION_DENIED", []),
        ("credentials", 401, "UNAUTHENTICATED", []),
        ("third_party_auth", 401, "UNAUTHENTICATED", ["THIRD_PARTY_AUTH_ERROR"]),
        ("APNS_AUTH_ERROR", 401, "UNAUTHENTICATED", ["APNS_AUTH_ERROR"]),
        ("throttled", 429, "RESOURCE_EXHAUSTED", ["QUOTA_EXCEEDED"]),
        ("unavailable", 503, "UNAVAILABLE", ["UNAVAILABLE"]),
        ("internal", 500, "INTERNAL", ["INTERNAL"]),
        ("UNSPECIFIED_ERROR", 500, "UNKNOWN", ["UNSPECIFIED_ERROR"]),
    ],
)
def test_rule_gives_the_vendor_s_answer(
    sender: Sender, answer: str, status: int, word: str, codes: list[str]
) -> None:
    """Each bad answer has FCM's status, canonical word and FCM code, and leaves no receipt."""
    token = f"{TOKEN}-{answer}"
    sender.simulator.rules([{"tokens": [token], "answer": answer}])
    got = sender.send({"token": token})
    assert (got.status_code, got.json()["error"]["status"], _codes(got)) == (status, word, codes)
    assert _received(sender.simulator, token) == []
    assert sender.send({"token": TOKEN + "-other"}).status_code == 200


def test_bad_gateway_is_html(sender: Sender) -> None:
    """The 502 of Google's front end is no JSON."""
    sender.simulator.rules([{"token_prefix": TOKEN, "answer": "bad_gateway_html"}])
    answer = sender.send({"token": TOKEN})
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=UTF-8")


def test_retry_after_is_there_only_when_asked_for(sender: Sender) -> None:
    """A throttled answer comes with and without Retry-After; the quota failure is always there."""
    sender.simulator.rules([
        {"tokens": [TOKEN + "-a"], "answer": "throttled", "retry_after": 7},
        {"tokens": [TOKEN + "-b"], "answer": "throttled"},
        {"tokens": [TOKEN + "-c"], "answer": "unavailable", "retry_after": 3},
    ])  # fmt: skip
    answers = [sender.send({"token": f"{TOKEN}-{name}"}) for name in "abc"]
    assert [answer.headers.get("retry-after") for answer in answers] == ["7", None, "3"]
    assert answers[0].json()["error"]["details"][1]["@type"] == "type.googleapis.com/google.rpc.QuotaFailure"


def test_project_quota_refuses_what_exceeds_the_bucket(sender: Sender) -> None:
    """A bucket of five lets five messages through and throttles the rest until it refills."""
    sender.simulator.control("POST", "/quota", {"per_minute": 5, "retry_after": 12})
    answers = [sender.send({"token": TOKEN + "-quota"}) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[-1].headers["retry-after"] == "12"
    sender.simulator.control("POST", "/clock", {"advance_seconds": 13})
    assert sender.send({"token": TOKEN + "-quota"}).status_code == 200
    sender.simulator.control("POST", "/clock", {"advance_seconds": -13})
    sender.simulator.control("POST", "/quota", {"per_minute": 0, "retry_after": None})


def test_one_device_is_throttled_alone(sender: Sender) -> None:
    """The limit of one device does not touch another."""
    sender.simulator.control("POST", "/quota", {"device_per_minute": 2})
    statuses = [sender.send({"token": f"{TOKEN}-flood"}).status_code for _ in range(6)]
    assert statuses.count(429) >= 2
    assert sender.send({"token": f"{TOKEN}-calm"}).status_code == 200
    sender.simulator.control("POST", "/quota", {"device_per_minute": 0})


def test_first_limits_a_rule_to_the_first_requests_of_each_token(sender: Sender) -> None:
    """`first: 2` spoils two requests of every token, then all is well."""
    sender.simulator.rules([{"token_prefix": TOKEN + "-first", "answer": "unavailable", "first": 2}])
    for name in ("a", "b"):
        statuses = [sender.send({"token": f"{TOKEN}-first-{name}"}).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]


def test_answer_may_get_lost_after_delivery(sender: Sender) -> None:
    """`accept_no_answer` and a delivered 503 leave a receipt that says the acceptance was not answered."""
    lost, told = TOKEN + "-lost", TOKEN + "-told"
    sender.simulator.rules([
        {"tokens": [lost], "answer": "accept_no_answer"},
        {"tokens": [told], "answer": "unavailable", "delivered": True},
    ])  # fmt: skip
    sender.client.timeout = httpx.Timeout(0.5)
    with pytest.raises(httpx.ReadTimeout):
        sender.send({"token": lost})
    assert sender.send({"token": told}).status_code == 503
    receipts = _received(sender.simulator, lost) + _received(sender.simulator, told)
    assert [receipt["answered"] for receipt in receipts] == [False, False]


def test_hanging_request_is_not_received_and_blocks_nobody(sender: Sender) -> None:
    """A hang is neither answered nor delivered; others on the same connection go on."""
    token = TOKEN + "-hang"
    sender.simulator.rules([{"tokens": [token], "answer": "hang"}])

    async def main() -> None:
        async with sender.connect(1.0) as send:
            hanging = asyncio.create_task(send(token))
            assert (await send(TOKEN)).status_code == 200
            with pytest.raises(httpx.ReadTimeout):
                await hanging

    asyncio.run(main())
    assert _received(sender.simulator, token) == []


def test_slow_answer_delays_nobody_else(sender: Sender) -> None:
    """While one answer takes a second, another on the same connection comes at once."""
    token = TOKEN + "-slow"
    sender.simulator.rules([{"tokens": [token], "answer": "slow", "ms": 1000}])

    async def main() -> None:
        async with sender.connect(10.0) as send:
            started = time.monotonic()
            slow = asyncio.create_task(send(token))
            assert (await send(TOKEN)).status_code == 200
            assert not slow.done()
            assert (await slow).status_code == 200
            assert time.monotonic() - started >= 1.0

    asyncio.run(main())


def test_custom_answer_is_given_word_by_word(sender: Sender) -> None:
    """A rule can say anything, for answers that no page documents."""
    rule = {"share": 1, "answer": "custom", "status": 418, "headers": {"x-tea": "yes"}, "body": {"a": [1]}}
    sender.simulator.rules([rule])
    answer = sender.send({"token": TOKEN})
    assert (answer.status_code, answer.headers["x-tea"], answer.json()) == (418, "yes", {"a": [1]})


def test_unknown_tokens_are_unregistered_once_tokens_are_known(sender: Sender) -> None:
    """When the simulator is told its tokens, all others are dead."""
    sender.simulator.control("POST", "/tokens", {"add": [TOKEN + "-known"]})
    assert sender.send({"token": TOKEN + "-known"}).status_code == 200
    answer = sender.send({"token": TOKEN + "-stranger"})
    assert (answer.status_code, _codes(answer)) == (404, ["UNREGISTERED"])
    sender.simulator.control("DELETE", "/tokens")
    assert sender.send({"token": TOKEN + "-stranger"}).status_code == 200
