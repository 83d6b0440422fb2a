"""JPush as it is simulated, seen by an HTTP client that knows nothing of our own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from providers.simulators import Running, launch

_counter = iter(range(1, 1_000_000))


def _id() -> str:
    return f"1104a897{next(_counter):011d}"


class Sender:
    """A backend with the app's key and secret."""

    def __init__(self, simulator: Running) -> None:
        self.simulator = simulator
        self.context = ssl.create_default_context(cafile=simulator.info["ca_file"])
        self.client = httpx.Client(
            http2=True, verify=self.context, timeout=10, base_url=simulator.url,
            auth=(simulator.info["app_key"], simulator.info["master_secret"]),
        )  # fmt: skip

    def body(self, ids: list[str], **fields: Any) -> dict[str, Any]:
        extras = {"pushfan": '{"n":"51","k":"direct"}'}
        return {
            "platform": "all",
            "audience": {"registration_id": ids},
            "notification": {
                "android": {"alert": "x", "extras": extras},
                "ios": {"alert": "x", "extras": extras},
            },
            **fields,
        }

    def push(self, ids: list[str], **fields: Any) -> httpx.Response:
        return self.client.post("/v3/push", json=self.body(ids, **fields))

    def cid(self) -> str:
        return f"{self.simulator.info['app_key']}-{uuid4()}"

    def statuses(self, message_id: str, ids: list[str]) -> dict[str, int]:
        url = self.simulator.info["report_url"] + "/v3/status/message"
        answer = self.client.post(url, json={"msg_id": int(message_id), "registration_ids": ids})
        return {token: item["status"] for token, item in answer.json().items()}


@pytest.fixture(scope="module", params=["fast", "fault"])
def sender_of_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sender]:
    """A simulator of each engine, and a backend for it."""
    with launch("jpush", tmp_path_factory.mktemp("jpush"), engine=request.param) as running:
        sender = Sender(running)
        yield sender
        sender.client.close()


@pytest.fixture
def sender(sender_of_engine: Sender) -> Sender:
    """The backend, with no rules left behind."""
    sender_of_engine.simulator.clear_rules()
    sender_of_engine.client.timeout = httpx.Timeout(10)
    return sender_of_engine


def _received(simulator: Running, ids: list[str]) -> list[dict[str, Any]]:
    return [receipt for receipt in simulator.receipts() if receipt["token"] in ids]


def _verdict(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["error"]["code"]


def test_push_to_many_is_a_receipt_for_each(sender: Sender) -> None:
    """A thousand ids in one request are a thousand receipts of one message."""
    ids, cid = [_id() for _ in range(1000)], sender.cid()
    answer = sender.push(ids, cid=cid, options={"sendno": 7})
    assert (answer.status_code, answer.http_version, answer.json()["sendno"]) == (200, "HTTP/2", "7")
    received = _received(sender.simulator, ids)
    assert [receipt["token"] for receipt in received] == ids
    assert {receipt["msg_id"] for receipt in received} == {answer.json()["msg_id"]}
    assert {(receipt["notification"], receipt["request_id"]) for receipt in received} == {("51", cid)}


def test_http_1_1_is_spoken(sender: Sender) -> None:
    """A client without HTTP/2 is served too."""
    token = _id()
    with httpx.Client(http2=False, verify=sender.context, auth=sender.client.auth) as client:
        answer = client.post(sender.simulator.url + "/v3/push", json=sender.body([token]))
    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")


def test_id_named_twice_receives_once(sender: Sender) -> None:
    """A repeated registration id is one device."""
    token = _id()
    sender.push([token, token])
    assert len(_received(sender.simulator, [token])) == 1


def test_same_cid_answers_the_same_and_pushes_once(sender: Sender) -> None:
    """A repeated cid returns the first success and delivers nothing again, until a day has passed."""
    ids, cid = [_id(), _id()], sender.cid()
    first, second = (sender.push(ids, cid=cid).json() for _ in range(2))
    assert first == second
    assert len(_received(sender.simulator, ids)) == 2
    sender.simulator.control("POST", "/clock", {"advance_seconds": 86_401})
    assert sender.push(ids, cid=cid).json() != first
    sender.simulator.control("POST", "/clock", {"advance_seconds": -86_401})


def test_cid_of_a_lost_answer_tells_the_acceptance_later(sender: Sender) -> None:
    """After an answer got lost, the same cid learns the message id and delivers nothing again."""
    token, cid = _id(), sender.cid()
    sender.simulator.rules([{"tokens": [token], "answer": "accept_no_answer", "first": 1}])
    sender.client.timeout = httpx.Timeout(0.5)
    with pytest.raises(httpx.ReadTimeout):
        sender.push([token], cid=cid)
    answer = sender.push([token], cid=cid)
    [receipt] = _received(sender.simulator, [token])
    assert (answer.json()["msg_id"], receipt["answered"]) == (receipt["msg_id"], False)


def test_cid_of_a_refused_push_is_still_free(sender: Sender) -> None:
    """Only a success is remembered under a cid."""
    token, cid = _id(), sender.cid()
    sender.simulator.rules([{"tokens": [token], "answer": "unavailable", "first": 1}])
    assert [sender.push([token], cid=cid).status_code for _ in range(2)] == [503, 200]
    assert len(_received(sender.simulator, [token])) == 1


def test_cids_are_given_and_accepted(sender: Sender) -> None:
    """The cid API gives as many as asked for, each good for a push."""
    cids = sender.client.get("/v3/push/cid", params={"count": 3, "type": "push"}).json()["cidlist"]
    assert len(set(cids)) == 3
    assert sender.push([_id()], cid=cids[0]).status_code == 200
    assert _verdict(sender.client.get("/v3/push/cid", params={"count": 1001})) == (400, 1003)


def test_unknown_ids_are_dropped_in_silence_and_reported_later(sender: Sender) -> None:
    """A push to known and unknown ids succeeds; only the status says later who was not of this app."""
    known, unknown, stranger = _id(), _id(), _id()
    sender.simulator.rules([{"tokens": [unknown], "answer": "unknown"}])
    answer = sender.push([known, unknown])
    assert answer.status_code == 200
    assert [receipt["token"] for receipt in _received(sender.simulator, [known, unknown])] == [known]
    statuses = sender.statuses(answer.json()["msg_id"], [known, unknown, stranger])
    assert statuses == {known: 0, unknown: 2, stranger: 3}


def test_push_that_reaches_nobody_is_1011(sender: Sender) -> None:
    """Only when all ids are unknown the request itself fails."""
    ids = [_id(), _id()]
    sender.simulator.rules([{"tokens": ids, "answer": "unregistered"}])
    assert _verdict(sender.push(ids)) == (400, 1011)
    assert _verdict(sender.push(ids[:1])) == (400, 1011)
    assert _verdict(sender.push([], audience={"tag": ["vip"]})) == (400, 1011)


def test_ids_that_were_never_given_out_are_unknown(sender: Sender) -> None:
    """When the simulator is told its ids, all others are dropped."""
    known, stranger = _id(), _id()
    sender.simulator.control("POST", "/tokens", {"add": [known]})
    message_id = sender.push([known, stranger]).json()["msg_id"]
    assert sender.statuses(message_id, [known, stranger]) == {known: 0, stranger: 2}
    assert _verdict(sender.push([stranger])) == (400, 1011)
    sender.simulator.control("DELETE", "/tokens")


def test_status_is_known_after_a_delay(sender: Sender) -> None:
    """Before the delay everybody is "not delivered" yet."""
    token = _id()
    sender.simulator.control("POST", "/report", {"delay_seconds": 30})
    message_id = sender.push([token]).json()["msg_id"]
    assert sender.statuses(message_id, [token]) == {token: 1}
    sender.simulator.control("POST", "/clock", {"advance_seconds": 31})
    assert sender.statuses(message_id, [token]) == {token: 0}
    sender.simulator.control("POST", "/clock", {"advance_seconds": -31})
    sender.simulator.control("POST", "/report", {"delay_seconds": 0})


def test_status_rules_give_not_delivered_and_system_error(sender: Sender) -> None:
    """Single devices may stay undelivered or get a system error in the report."""
    offline, broken = _id(), _id()
    sender.simulator.rules([
        {"tokens": [offline], "answer": "not_delivered"}, {"tokens": [broken], "answer": "status_error"},
    ])  # fmt: skip
    message_id = sender.push([offline, broken]).json()["msg_id"]
    assert sender.statuses(message_id, [offline, broken]) == {offline: 1, broken: 4}


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"surprise": 1}, (400, 1009)),
        ({"audience": {"registration_id": ["malformed"]}}, (400, 1003)),
        ({"audience": {"registration_id": []}}, (400, 1003)),
        ({"audience": {"registration_id": [f"1104a8979{n:010d}" for n in range(1001)]}}, (400, 1003)),
        ({"audience": {"registration_ids": ["1104a897929"]}}, (400, 1009)),
        ({"audience": "everyone"}, (400, 1003)),
        ({"platform": ["symbian"]}, (400, 1003)),
        ({"notification": None, "message": {"title": "x"}}, (400, 1003)),
        ({"message": {"title": "x"}}, (400, 1002)),
        ({"message": {"msg_content": "x", "surprise": 1}}, (400, 1009)),
        ({"message": {"msg_content": "x" * 4001}}, (400, 1005)),
        ({"notification": {"ios": {"alert": "x" * 2001}}}, (400, 1005)),
        ({"notification": {"android": {"alert": "x" * 4001}}}, (400, 1005)),
        ({"options": {"time_to_live": 864_001}}, (400, 1003)),
        ({"options": {"time_to_live": "60"}}, (400, 1003)),
        ({"options": {"sendno": 0}}, (400, 1003)),
        ({"options": {"apns_production": "true"}}, (400, 1003)),
        ({"options": {"apns_collapse_id": "x" * 65}}, (400, 1003)),
        ({"options": {"override_msg_id": 5}}, (400, 1003)),
        ({"options": {"surprise": 5}}, (400, 1009)),
        ({"cid": "not-a-cid"}, (400, 1003)),
    ],
)
def test_bad_push_is_refused_with_its_code(
    sender: Sender, fields: dict[str, Any], verdict: tuple[int, int]
) -> None:
    """Each mistake has JPush's code, both when pushing and when validating, and nothing is received."""
    token = _id()
    for path in ("/v3/push", "/v3/push/validate"):
        assert _verdict(sender.client.post(path, json=sender.body([token], **fields))) == verdict
    assert _received(sender.simulator, [token]) == []


def test_missing_parts_are_1002(sender: Sender) -> None:
    """Platform, audience and some content are required."""
    for name in ("platform", "audience", "notification"):
        body = sender.body([_id()])
        del body[name]
        assert _verdict(sender.client.post("/v3/push", json=body)) == (400, 1002)


def test_rubbish_is_refused(sender: Sender) -> None:
    """A body that is no JSON object is a 400, not a crash."""
    for body in (b"", b"{", b"[]", b'"x"', b"\xff"):
        assert _verdict(sender.client.post("/v3/push", content=body)) == (400, 1003)


def test_validate_delivers_nothing(sender: Sender) -> None:
    """A good push object validates, and no device receives it."""
    token = _id()
    assert sender.client.post("/v3/push/validate", json=sender.body([token])).status_code == 200
    assert _received(sender.simulator, [token]) == []


def test_credentials_are_checked(sender: Sender) -> None:
    """A wrong secret is 1004, a foreign app key 1008, none at all 1004; and so is everything once revoked."""
    key, secret = sender.simulator.info["app_key"], sender.simulator.info["master_secret"]
    body = sender.body([_id()])
    with httpx.Client(http2=True, verify=sender.context, base_url=sender.simulator.url) as client:
        assert _verdict(client.post("/v3/push", json=body, auth=(key, "wrong"))) == (401, 1004)
        assert _verdict(client.post("/v3/push", json=body, auth=("f" * 24, secret))) == (400, 1008)
        assert _verdict(client.post("/v3/push", json=body)) == (401, 1004)
    sender.simulator.control("POST", "/credentials", {"valid": False})
    assert _verdict(sender.push([_id()])) == (401, 1004)
    sender.simulator.control("POST", "/credentials", {"valid": True})
    assert sender.push([_id()]).status_code == 200


def test_get_is_not_a_push(sender: Sender) -> None:
    """The wrong method is 1001."""
    assert _verdict(sender.client.get("/v3/push")) == (405, 1001)


def test_rate_window_is_told_and_kept(sender: Sender) -> None:
    """Each answer tells quota, rest and reset; beyond the quota comes 2002 until the next minute."""
    sender.simulator.control("POST", "/clock", {"advance_seconds": 60})
    sender.simulator.control("POST", "/quota", {"per_minute": 2})
    answers = [sender.push([_id()]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error"]["code"] == 2002
    assert [answer.headers["x-rate-limit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].headers["x-rate-limit-quota"] == "2"
    sender.simulator.control(
        "POST", "/clock", {"advance_seconds": int(answers[2].headers["x-rate-limit-reset"])}
    )
    assert sender.push([_id()]).status_code == 200
    sender.simulator.control("POST", "/quota", {"per_minute": 600_000})


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("throttled", (429, 2002)),
        ("unavailable", (503, 1030)),
        ("internal", (500, 1000)),
        ("payload", (400, 1005)),
        ("bad_token", (400, 1003)),
        ("credentials", (401, 1004)),
        ("1008", (400, 1008)),
        ("2003", (403, 2003)),
        ("2005", (403, 2005)),
    ],
)
def test_rule_for_one_id_decides_the_whole_request(
    sender: Sender, answer: str, verdict: tuple[int, int]
) -> None:
    """A bad answer for one id is the answer of the request, and nobody in it receives anything."""
    ids = [_id(), _id()]
    sender.simulator.rules([{"tokens": ids[1:], "answer": answer, "retry_after": 4}])
    got = sender.push(ids)
    assert (_verdict(got), got.headers["retry-after"]) == (verdict, "4")
    assert _received(sender.simulator, ids) == []


def test_batch_answers_for_each_id(sender: Sender) -> None:
    """The batch API tells the fate of every cid, and repeats nothing under the same cid."""
    good, dead, malformed = sender.cid(), sender.cid(), sender.cid()
    ids = {good: _id(), dead: _id(), malformed: "nonsense"}
    sender.simulator.rules([{"tokens": [ids[dead]], "answer": "unknown"}])
    entries = {
        cid: {"platform": "all", "target": token, "notification": {"alert": "x"}}
        for cid, token in ids.items()
    }
    answers = [
        sender.client.post("/v3/push/batch/regid/single", json={"pushlist": entries}).json() for _ in range(2)
    ]
    assert answers[0][good]["msg_id"] == answers[1][good]["msg_id"]
    assert answers[0][dead]["error"]["code"] == 1011
    assert answers[0][malformed]["error"]["code"] == 1003
    assert len(_received(sender.simulator, list(ids.values()))) == 1


def test_broadcast_is_seen_in_the_receipts(sender: Sender) -> None:
    """An audience of all, which no test expects, stands out as a receipt of `*`."""
    sender.client.post("/v3/push", json={**sender.body([]), "audience": "all"})
    assert len(_received(sender.simulator, ["*"])) == 1


def test_restart_pushes_nothing_twice(tmp_path: Path) -> None:
    """Credentials, cids and reports survive a restart of the simulator."""
    token = _id()
    with launch("jpush", tmp_path) as simulator:
        sender = Sender(simulator)
        cid = sender.cid()
        first = sender.push([token], cid=cid).json()["msg_id"]
        sender.client.close()
    with launch("jpush", tmp_path) as simulator:
        sender = Sender(simulator)
        assert sender.push([token], cid=cid).json()["msg_id"] == first
        assert sender.statuses(first, [token]) == {token: 0}
        assert len(_received(simulator, [token])) == 1
        sender.client.close()
