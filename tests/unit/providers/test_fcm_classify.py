# ruff: noqa: E501 - bodies stand as the vendor writes them
"""What each answer of FCM means: a full response beside the literal outcome, not taken from the table.

Bodies: https://firebase.google.com/docs/cloud-messaging/error-codes (examples) and
https://github.com/bloomberg/pushiko/blob/main/docs/fcm_responses.md (captures).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from providers.engine import Response
from providers.fcm import BY_CODE, BY_STATUS, classify
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
from providers.provider import Remedy, Verdict

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

UNREGISTERED = b"""{
  "error": {
    "code": 404,
    "message": "Requested entity was not found.",
    "status": "NOT_FOUND",
    "details": [
      {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}
    ]
  }
}"""
NOT_FOUND = (
    b"""{"error": {"code": 404, "message": "Requested entity was not found.", "status": "NOT_FOUND"}}"""
)
NOT_FOUND_HTML = b"<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title></html>"
STATUS_UNREGISTERED = b"""{"error": {"code": 404, "message": "Not registered", "status": "UNREGISTERED"}}"""
UNREGISTERED_WITHOUT_404 = b"""{"error": {"code": 400, "message": "?", "status": "INVALID_ARGUMENT", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}]}}"""
MISMATCH = b"""{"error": {"code": 403, "message": "SenderId mismatch", "status": "PERMISSION_DENIED", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "SENDER_ID_MISMATCH"}]}}"""
API_DISABLED = b"""{"error": {"code": 403, "message": "Firebase Cloud Messaging API has not been used in project 1 before or it is disabled.",
  "status": "PERMISSION_DENIED", "details": [{"@type": "type.googleapis.com/google.rpc.Help",
  "links": [{"description": "Google developers console API activation", "url": "https://console.developers.google.com/"}]},
  {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"}]}}"""
TOKEN_BY_FIELD = b"""{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT",
  "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
  {"@type": "type.googleapis.com/google.rpc.BadRequest",
   "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}]}]}}"""
FID_BY_FIELD = TOKEN_BY_FIELD.replace(b"message.token", b"message.fid")
TOKEN_BY_FIELD_WITHOUT_CODE = b"""{"error": {"code": 400, "message": "Request contains an invalid argument.",
  "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest",
  "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}]}]}}"""
TOKEN_BY_TEXT = b"""{"error": {"code": 400, "message": "The registration token is not a valid FCM registration token",
  "status": "INVALID_ARGUMENT", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"}]}}"""
TTL_FIELD = b"""{"error": {"code": 400, "message": "Invalid value at 'message.android.ttl' (TYPE_STRING), \\"secret words\\"",
  "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest",
  "fieldViolations": [{"field": "message.android.ttl", "description": "Illegal duration"}]}]}}"""
OVERSIZE = b"""{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}}"""
UNAUTHENTICATED = b"""{"error": {"code": 401, "message": "Request had invalid authentication credentials.",
  "status": "UNAUTHENTICATED", "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
  "reason": "ACCESS_TOKEN_EXPIRED", "domain": "googleapis.com"}]}}"""
THIRD_PARTY = b"""{"error": {"code": 401, "message": "Auth error from APNS or Web Push Service", "status": "UNAUTHENTICATED",
  "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "THIRD_PARTY_AUTH_ERROR"}]}}"""
APNS_AUTH = THIRD_PARTY.replace(b"THIRD_PARTY_AUTH_ERROR", b"APNS_AUTH_ERROR")
QUOTA = b"""{"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED"},
  {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"subject": "project:1", "description": "rate"}]}]}}"""
EXHAUSTED = (
    b"""{"error": {"code": 429, "message": "Resource has been exhausted.", "status": "RESOURCE_EXHAUSTED"}}"""
)
INTERNAL = b"""{"error": {"code": 500, "message": "Internal error encountered.", "status": "INTERNAL", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INTERNAL"}]}}"""
UNAVAILABLE = b"""{"error": {"code": 503, "message": "The service is currently unavailable.", "status": "UNAVAILABLE",
  "details": [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNAVAILABLE"}]}}"""
UNAVAILABLE_BARE = b"""{"error": {"code": 503, "message": "Deadline expired before operation could complete.", "status": "UNAVAILABLE"}}"""
UNSPECIFIED = b"""{"error": {"code": 500, "message": "No more information is available.", "status": "UNKNOWN", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNSPECIFIED_ERROR"}]}}"""
UNSPECIFIED_400 = UNSPECIFIED.replace(b"500", b"400")
BAD_GATEWAY = b"""<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error 502 (Server Error)!!1</title>
  <p><b>502.</b> <ins>That's an error.</ins>
"""
NEW_CODE = b"""{"error": {"code": 400, "message": "new", "status": "FAILED_PRECONDITION", "details": [
  {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "DEVICE_TOO_OLD"}]}}"""
PRECONDITION = b"""{"error": {"code": 400, "message": "new", "status": "FAILED_PRECONDITION"}}"""

SECONDS_10 = timedelta(seconds=10)
MINUTE = timedelta(seconds=60)
MINUTES_10 = timedelta(minutes=10)

ROWS: dict[str, tuple[int, bytes, dict[str, str], Outcome]] = {
    "accepted": (
        200,
        b'{\n  "name": "projects/shop/messages/0:1500415314455276%31bd1c9631bd1c96"\n}\n',
        {},
        Accepted(message_id="projects/shop/messages/0:1500415314455276%31bd1c9631bd1c96"),
    ),
    "unregistered": (404, UNREGISTERED, {}, Unregistered(reason="UNREGISTERED")),
    "unregistered told by status": (404, STATUS_UNREGISTERED, {}, Unregistered(reason="UNREGISTERED")),
    "unregistered without 404": (
        400,
        UNREGISTERED_WITHOUT_404,
        {},
        Rejected(reason="UNREGISTERED", suspects_token=True),
    ),
    "sender mismatch": (403, MISMATCH, {}, Rejected(reason="SENDER_ID_MISMATCH", suspects_token=True)),
    "bad token by field": (
        400,
        TOKEN_BY_FIELD,
        {},
        Rejected(reason="INVALID_ARGUMENT message.token", suspects_token=True),
    ),
    "bad id by field": (
        400,
        FID_BY_FIELD,
        {},
        Rejected(reason="INVALID_ARGUMENT message.fid", suspects_token=True),
    ),
    "bad token by field, no code": (
        400,
        TOKEN_BY_FIELD_WITHOUT_CODE,
        {},
        Rejected(reason="INVALID_ARGUMENT message.token", suspects_token=True),
    ),
    "bad token by text": (400, TOKEN_BY_TEXT, {}, Rejected(reason="INVALID_ARGUMENT", suspects_token=True)),
    "another field": (400, TTL_FIELD, {}, Rejected(reason="INVALID_ARGUMENT message.android.ttl")),
    "oversize, no details": (400, OVERSIZE, {}, Rejected(reason="INVALID_ARGUMENT")),
    "third party": (
        401,
        THIRD_PARTY,
        {},
        Unavailable(reason="THIRD_PARTY_AUTH_ERROR", delay=MINUTES_10),
    ),
    "third party, old name": (401, APNS_AUTH, {}, Unavailable(reason="APNS_AUTH_ERROR", delay=MINUTES_10)),
    "quota": (429, QUOTA, {}, Throttled(reason="QUOTA_EXCEEDED", delay=MINUTE)),
    "quota with seconds": (
        429,
        QUOTA,
        {"retry-after": "5"},
        Throttled(reason="QUOTA_EXCEEDED", delay=timedelta(seconds=5), is_vendor_delay=True),
    ),
    "quota with a date": (
        429,
        QUOTA,
        {"retry-after": "Mon, 23 Nov 2026 12:02:00 GMT"},
        Throttled(reason="QUOTA_EXCEEDED", delay=timedelta(seconds=120), is_vendor_delay=True),
    ),
    "exhausted, no code": (429, EXHAUSTED, {}, Throttled(reason="RESOURCE_EXHAUSTED", delay=MINUTE)),
    "429, no body": (429, b"", {}, Throttled(reason="http 429", delay=MINUTE)),
    "internal": (500, INTERNAL, {}, Unavailable(reason="INTERNAL", delay=SECONDS_10, is_unsure=True)),
    "500, no body": (500, b"", {}, Unavailable(reason="http 500", delay=SECONDS_10, is_unsure=True)),
    "bad gateway in HTML": (502, BAD_GATEWAY, {}, Unavailable(reason="http 502", delay=SECONDS_10, is_unsure=True)),
    "unavailable": (503, UNAVAILABLE, {}, Unavailable(reason="UNAVAILABLE", delay=SECONDS_10, is_unsure=True)),
    "unavailable, no details": (503, UNAVAILABLE_BARE, {}, Unavailable(reason="UNAVAILABLE", delay=SECONDS_10, is_unsure=True)),
    "unavailable with a long delay": (
        503,
        UNAVAILABLE,
        {"retry-after": "90"},
        Unavailable(reason="UNAVAILABLE", delay=timedelta(seconds=90), is_vendor_delay=True, is_unsure=True),
    ),
    "unavailable with a delay too short": (
        503,
        UNAVAILABLE,
        {"retry-after": "2"},
        Unavailable(reason="UNAVAILABLE", delay=SECONDS_10, is_vendor_delay=True, is_unsure=True),
    ),
    "504": (504, b"upstream request timeout", {}, Unavailable(reason="http 504", delay=SECONDS_10, is_unsure=True)),
    "408": (408, b"", {}, Unavailable(reason="http 408", delay=SECONDS_10)),
    "unspecified": (500, UNSPECIFIED, {}, Unavailable(reason="UNSPECIFIED_ERROR", delay=SECONDS_10, is_unsure=True)),
    "unspecified with 400": (400, UNSPECIFIED_400, {}, Unavailable(reason="UNSPECIFIED_ERROR", delay=SECONDS_10, is_unsure=True)),
    "unknown code": (400, NEW_CODE, {}, Rejected(reason="DEVICE_TOO_OLD")),
    "unknown code with 401": (401, NEW_CODE, {}, Unavailable(reason="DEVICE_TOO_OLD", delay=MINUTES_10)),
    "unknown code with 403": (403, NEW_CODE, {}, Rejected(reason="DEVICE_TOO_OLD")),
    "unknown code with 404": (404, NEW_CODE, {}, Rejected(reason="DEVICE_TOO_OLD")),
    "unknown code with 429": (429, NEW_CODE, {}, Throttled(reason="DEVICE_TOO_OLD", delay=MINUTE)),
    "unknown code with 500": (500, NEW_CODE, {}, Unavailable(reason="DEVICE_TOO_OLD", delay=SECONDS_10, is_unsure=True)),
    "unknown status word": (400, PRECONDITION, {}, Rejected(reason="FAILED_PRECONDITION")),
    "unknown 4xx": (413, b"<html>Request Entity Too Large</html>", {}, Rejected(reason="http 413")),
    "unknown 5xx": (599, b"", {}, Unavailable(reason="http 599", delay=SECONDS_10, is_unsure=True)),
    "redirect": (302, b"", {"location": "https://example.com/"}, Unavailable(reason="http 302", delay=SECONDS_10)),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_an_answer_about_the_push_is_a_value(row: str) -> None:
    """Body and status to outcome, word for word."""
    status, body, headers, expected = ROWS[row]
    assert classify(Response(status=status, headers=headers, body=body), NOW) == expected


ABOUT_US: dict[str, tuple[int, bytes, str]] = {
    "no such project": (404, NOT_FOUND, "NOT_FOUND: Requested entity was not found."),
    "no such page": (404, NOT_FOUND_HTML, "http 404"),
    "API disabled": (
        403,
        API_DISABLED,
        "PERMISSION_DENIED: Firebase Cloud Messaging API has not been used in project 1 before or it is disabled.",
    ),
    "403, no body": (403, b"", "http 403"),
}


@pytest.mark.parametrize("row", ABOUT_US)
def test_an_answer_about_us_is_an_exception_that_explains(row: str) -> None:
    """The circuit opens with FCM's own words, and no token is touched."""
    status, body, reason = ABOUT_US[row]
    error = classify(Response(status=status, body=body), NOW)
    assert isinstance(error, CredentialsRejected)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (UNAUTHENTICATED, "UNAUTHENTICATED: Request had invalid authentication credentials."),
        (b"", "http 401"),
    ],
)
def test_an_expired_access_token_is_renewed_once(body: bytes, reason: str) -> None:
    """The credentials are refused only if a fresh token does not help."""
    verdict = classify(Response(status=401, body=body), NOW)
    assert isinstance(verdict, Verdict)
    assert verdict.remedy is Remedy.REAUTHORIZE
    assert isinstance(verdict.otherwise, CredentialsRejected)
    assert verdict.otherwise.reason == reason


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>Please log in to the hotel's network</html>"),
        (200, b"[]"),
        (200, b'{"name": 7}'),
        (204, b""),
    ],
)
def test_an_acceptance_without_a_message_name_is_unknown(status: int, body: bytes) -> None:
    """It was not FCM that spoke, or not in full."""
    assert isinstance(classify(Response(status=status, body=body), NOW), AnswerUnknown)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": null}',
        b'{"error": "text"}',
        b'{"error": {"details": "text"}}',
        b'{"error": {"details": 5}}',
        b'{"error": {"details": [{"fieldViolations": 7}]}}',
        b'{"error": {"details": [1, null, {"errorCode": 5}, {"fieldViolations": "x"}]}}',
        b'{"error": {"details": [{"fieldViolations": [1, {"field": 3}, {"description": "no field"}]}]}}',
        b'{"error": {"status": 5, "message": {"a": 1}, "details": {}}}',
        b"\xff\xfe\x00",
        b"null",
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_malformed_errors_are_decided_by_status(status: int, body: bytes) -> None:
    """No shape of body raises, retires or suspects a token."""
    meaning = classify(Response(status=status, body=body), NOW)
    expected: dict[int, type[Outcome | SendError | Verdict]] = {
        400: Rejected,
        401: Verdict,
        403: CredentialsRejected,
        404: CredentialsRejected,
        429: Throttled,
        500: Unavailable,
    }
    assert type(meaning) is expected[status]
    assert not getattr(meaning, "suspects_token", False)


@pytest.mark.parametrize("word", [b"FAILED_PRECONDITION", b"ABORTED", b"DEVICE_TOO_OLD", b""])
def test_no_unknown_reason_ever_touches_a_token(word: bytes) -> None:
    """Whatever the status: never unregistered, never suspect."""
    body = b'{"error": {"details": [{"errorCode": "%b"}]}}' % word
    for status in range(300, 600):
        meaning = classify(Response(status=status, body=body), NOW)
        assert not isinstance(meaning, Unregistered)
        assert not getattr(meaning, "suspects_token", False)


def response(status: int, error: dict[str, object]) -> Response:
    """An error as FCM writes it."""
    return Response(status=status, body=json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    "text", ["Requested entity was not found.", "要求されたエンティティが見つかりません", ""]
)
def test_a_dead_token_is_known_by_its_code_in_any_language(text: str) -> None:
    """Google's text is for people, and changes."""
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "UNREGISTERED"}]
    error = {"code": 404, "message": text, "status": "NOT_FOUND", "details": details}
    assert classify(response(404, error), NOW) == Unregistered(reason="UNREGISTERED")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_words_about_a_dead_token_retire_nothing(status: int) -> None:
    """A message that quotes "not registered" may come with any other error."""
    error = {"code": status, "message": "UNREGISTERED: the token is not registered", "status": "UNKNOWN"}
    assert not isinstance(classify(response(status, error), NOW), Unregistered)


def test_a_stored_reason_never_quotes_the_message() -> None:
    """FCM's text may repeat what the push said, and reasons outlive content."""
    meaning = classify(Response(status=400, body=TTL_FIELD), NOW)
    assert isinstance(meaning, Rejected)
    assert "secret words" not in meaning.reason


def test_a_reason_is_bounded() -> None:
    """A vendor's long text does not fill our tables."""
    body = b'{"error": {"message": "%b", "status": "PERMISSION_DENIED"}}' % (b"x" * 5000)
    error = classify(Response(status=403, body=body), NOW)
    assert isinstance(error, CredentialsRejected)
    assert len(error.reason) == 200


def test_every_row_of_the_tables_is_tested_here_and_has_a_source() -> None:
    """A row that is added without a test shows."""
    tested = " ".join(body.decode(errors="replace") for _, body, _, _ in ROWS.values())
    assert [code for code in BY_CODE if f'"{code}"' not in tested] == []
    statuses = {row[0] for row in (*ROWS.values(), *ABOUT_US.values())} | {401}
    assert set(BY_STATUS) <= statuses
    assert all(row.source.startswith("https://") for row in (*BY_CODE.values(), *BY_STATUS.values()))
