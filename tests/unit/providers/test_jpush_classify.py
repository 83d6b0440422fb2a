"""What each answer of JPush means: a full response beside the literal outcome, not taken from the table.

Codes: https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push and
https://docs.jiguang.cn/jpush/server/push/http_status_code
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from providers.engine import Response
from providers.jpush import BY_CODE, BY_STATUS, interpret, read_status
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

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECONDS_10 = timedelta(seconds=10)
SECONDS_60 = timedelta(seconds=60)


def interpreted(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Outcome | SendError:
    """What a response means for the pushes of its request."""
    return interpret(Response(status=status, headers=headers or {}, body=body), NOW)


ROWS: dict[str, tuple[int, bytes, Outcome]] = {
    "accepted": (
        200,
        b'{"sendno":"18","msg_id":"1828256757"}',
        Accepted(message_id="1828256757", provisional=True),
    ),
    "accepted with a number": (
        200,
        b'{"sendno":18,"msg_id":18100287008546920}',
        Accepted(message_id="18100287008546920", provisional=True),
    ),
    "1000": (
        500,
        b'{"error":{"code":1000,"message":"Server response failed, please try again later."}}',
        Unavailable(reason="1000 InternalError", delay=SECONDS_10, is_unsure=True),
    ),
    "1001": (
        405,
        b'{"error":{"code":1001,"message":"Only support HTTP Post Method."}}',
        Rejected(reason="1001 NotPost"),
    ),
    "1002": (
        400,
        b'{"error":{"code":1002,"message":"Missing parameter."}}',
        Rejected(reason="1002 MissingParameter"),
    ),
    "1003": (
        400,
        b'{"error":{"code":1003,"message":"Parameter value is invalid."},"msg_id":"1828256757"}',
        Rejected(reason="1003 InvalidValue"),
    ),
    "1005": (
        400,
        b'{"error":{"code":1005,"message":"The message body is too large."}}',
        Rejected(reason="1005 TooLarge"),
    ),
    "1009": (
        400,
        b'{"error":{"code":1009,"message":"The push object contains an unknown key: audiance"}}',
        Rejected(reason="1009 UnknownKey"),
    ),
    "1011": (
        400,
        b'{"error":{"code":1011,"message":"cannot find user by this audience"},"msg_id":"1828256757"}',
        Rejected(reason="1011 NoTarget", suspects_token=True),
    ),
    "1012": (
        400,
        b'{"error":{"code":1012,"message":"Timed push limit."}}',
        Rejected(reason="1012 TimedPushLimit"),
    ),
    "1020": (
        404,
        b'{"error":{"code":1020,"message":"Only support HTTPS."}}',
        Rejected(reason="1020 HttpsOnly"),
    ),
    "1030": (
        503,
        b'{"error":{"code":1030,"message":"Internal service timeout, please try again later."}}',
        Unavailable(reason="1030 InternalTimeout", delay=SECONDS_10, is_unsure=True),
    ),
    "2002": (
        429,
        b'{"error":{"code":2002,"message":"Request times of the app_key exceed the limit"}}',
        Throttled(reason="2002 RateLimit", delay=SECONDS_60),
    ),
    "429 without a body": (429, b"", Throttled(reason="http 429", delay=SECONDS_60)),
    "500 without a code": (500, b"{}", Unavailable(reason="http 500", delay=SECONDS_10, is_unsure=True)),
    "502": (
        502,
        b"<html><head><title>502 Bad Gateway</title></head></html>",
        Unavailable(reason="http 502", delay=SECONDS_10, is_unsure=True),
    ),
    "503 without a code": (503, b"", Unavailable(reason="http 503", delay=SECONDS_10)),
    "504": (
        504,
        b"<html><head><title>504 Gateway Time-out</title></head></html>",
        Unavailable(reason="http 504", delay=SECONDS_10, is_unsure=True),
    ),
    "408 of a proxy": (408, b"", Unavailable(reason="http 408", delay=SECONDS_10)),
    "a new code": (400, b'{"error":{"code":1099,"message":"New."}}', Rejected(reason="1099")),
    "a new code with 404": (404, b'{"error":{"code":1098,"message":"New."}}', Rejected(reason="1098")),
    "a new code with 429": (
        429,
        b'{"error":{"code":2099,"message":"New."}}',
        Throttled(reason="2099", delay=SECONDS_60),
    ),
    "a new code with 5xx": (
        500,
        b'{"error":{"code":1099,"message":"New."}}',
        Unavailable(reason="1099", delay=SECONDS_10, is_unsure=True),
    ),
    "a new status": (505, b"", Unavailable(reason="http 505", delay=SECONDS_10, is_unsure=True)),
    "a redirect": (302, b"", Unavailable(reason="http 302", delay=SECONDS_10)),
    "a code that is no number": (400, b'{"error":{"code":"1011"}}', Rejected(reason="http 400")),
    "an error that is no object": (400, b'{"error":"1011"}', Rejected(reason="http 400")),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_answer_has_its_outcome(row: str) -> None:
    """The whole response, and what it means for the pushes of the request."""
    status, body, expected = ROWS[row]
    assert interpreted(status, body) == expected


CREDENTIALS: dict[str, tuple[int, bytes, str]] = {
    "1004": (
        401,
        b'{"error":{"code":1004,"message":"Authen failed."}}',
        "1004 AuthenticationFailed: Authen failed.",
    ),
    "1008": (
        400,
        b'{"error":{"code":1008,"message":"app_key is invalid."}}',
        "1008 InvalidAppKey: app_key is invalid.",
    ),
    "2003": (
        403,
        b'{"error":{"code":2003,"message":"The app_key is not allowed to call this API."}}',
        "2003 AppKeyBlocked: The app_key is not allowed to call this API.",
    ),
    "2004": (
        403,
        b'{"error":{"code":2004,"message":"The source address is not on the list of allowed ones."}}',
        "2004 AddressNotAllowed: The source address is not on the list of allowed ones.",
    ),
    "2005": (
        403,
        b'{"error":{"code":2005,"message":"The volume of pushes is beyond reason."}}',
        "2005 VolumeBeyondReason: The volume of pushes is beyond reason.",
    ),
    "2006": (
        403,
        b'{"error":{"code":2006,"message":"For VIP only."}}',
        "2006 PaidOnly: For VIP only.",
    ),
    "2007": (
        403,
        b'{"error":{"code":2007,"message":"No right to call this API."}}',
        "2007 NotAllowed: No right to call this API.",
    ),
    "a new code with 403": (403, b'{"error":{"code":2098,"message":"Closed."}}', "2098: Closed."),
    "401 without a body": (401, b"", "http 401: does the endpoint lead to JPush?"),
    "a page that is not JPush's": (
        404,
        b"<html>no such page</html>",
        "http 404: does the endpoint lead to JPush?",
    ),
    "405 without a code": (405, b"", "http 405: does the endpoint lead to JPush?"),
    "a proxy that wants a password": (407, b"", "http 407: does the endpoint lead to JPush?"),
}


@pytest.mark.parametrize("row", CREDENTIALS)
def test_each_answer_about_us_says_so(row: str) -> None:
    """These stop the channel, with a reason that an operator understands."""
    status, body, reason = CREDENTIALS[row]
    outcome = interpreted(status, body)
    assert isinstance(outcome, CredentialsRejected)
    assert outcome.reason == reason


@pytest.mark.parametrize(
    "body", [b"", b"<html>Welcome to the hotel's network</html>", b'{"sendno":"1"}', b"[]"]
)
def test_a_good_status_without_a_message_id_proves_nothing(body: bytes) -> None:
    """Perhaps it was not JPush that answered."""
    outcome = interpreted(200, body)
    assert isinstance(outcome, AnswerUnknown)
    assert outcome.reason == "http 200 without a msg_id"


def test_every_row_of_the_tables_is_pinned_here() -> None:
    """No row can be added without a literal expectation beside it."""
    rows = [row[:2] for row in ROWS.values()] + [row[:2] for row in CREDENTIALS.values()]
    errors = [json.loads(body)["error"] for _, body in rows if body.startswith(b'{"error":{')]
    assert set(BY_CODE) <= {error["code"] for error in errors}
    assert set(BY_STATUS) <= {status for status, _ in rows}


def test_every_row_names_its_source() -> None:
    """A vendor's fact carries the vendor's address."""
    assert all(row.source.startswith("https://") for row in (*BY_CODE.values(), *BY_STATUS.values()))


@pytest.mark.parametrize(
    ("headers", "delay", "is_vendor_delay"),
    [
        ({"x-rate-limit-reset": "17"}, timedelta(seconds=17), True),
        ({"x-rate-limit-reset": "0"}, timedelta(seconds=1), True),
        ({"x-rate-limit-reset": "99999999999"}, timedelta(hours=1), True),
        ({"retry-after": "5"}, timedelta(seconds=5), True),
        ({"x-rate-limit-reset": "soon"}, SECONDS_60, False),
        ({"x-rate-limit-reset": "-3"}, SECONDS_60, False),
    ],
)
def test_the_end_of_the_window_is_the_delay(
    headers: dict[str, str], delay: timedelta, *, is_vendor_delay: bool
) -> None:
    """JPush says when its minute is over; without that, a minute."""
    expected = Throttled(reason="http 429", delay=delay, is_vendor_delay=is_vendor_delay)
    assert interpreted(429, b"", headers) == expected


def test_a_retry_after_is_the_delay_of_an_outage() -> None:
    """Not documented, and obeyed should it come."""
    outcome = interpreted(503, b"", {"retry-after": "31", "x-rate-limit-reset": "3"})
    assert outcome == Unavailable(reason="http 503", delay=timedelta(seconds=31), is_vendor_delay=True)


def test_the_words_of_a_refused_message_are_not_kept() -> None:
    """They may quote the message or an id; only what is about the account is shown."""
    body = b'{"error":{"code":1003,"message":"registration_id 1a0018970a8d is invalid"}}'
    outcome = interpreted(400, body)
    assert isinstance(outcome, Rejected)
    assert "1a0018970a8d" not in outcome.reason


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, Accepted(message_id="18")),
        (1, Accepted(message_id="18")),
        (2, Unregistered(reason="NotOfThisApp")),
        (3, None),
        (4, None),
        (5, None),
        (None, None),
        ("2", None),
    ],
)
def test_each_status_of_the_report_has_its_outcome(status: object, expected: Outcome | None) -> None:
    """Received or not yet: confirmed. Not of this app: dead. Anything else decides nothing."""
    assert read_status(status, "18") == expected
