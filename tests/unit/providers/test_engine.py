"""The parts of the send engine that need no connection."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from providers.engine import Engine, HeaderLines, Request, assert_safe_address, failure
from providers.outcome import AnswerUnknown, NotSent


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (5, "curl 5 COULDNT_RESOLVE_PROXY"),
        (6, "curl 6 COULDNT_RESOLVE_HOST"),
        (7, "curl 7 COULDNT_CONNECT"),
        (28, "curl 28 OPERATION_TIMEDOUT"),
        (35, "curl 35 SSL_CONNECT_ERROR"),
        (58, "curl 58 SSL_CERTPROBLEM"),
        (60, "curl 60 PEER_FAILED_VERIFICATION"),
        (77, "curl 77 SSL_CACERT_BADFILE"),
    ],
)
def test_failing_before_the_request_is_certain(code: int, reason: str) -> None:
    """No byte of the request went out: it can be sent again without any doubt."""
    error = failure(code, "details", request_bytes=0)
    assert isinstance(error, NotSent)
    assert error.reason == f"{reason}: details"


@pytest.mark.parametrize("code", [5, 6, 7, 28, 35, 58, 60, 77])
def test_failing_to_connect_again_after_the_request_is_not_certain(code: int) -> None:
    """Libcurl repeated the request silently, and it was the second connection that failed."""
    assert isinstance(failure(code, "", request_bytes=1), AnswerUnknown)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (16, "curl 16 HTTP2"),
        (18, "curl 18 PARTIAL_FILE"),
        (52, "curl 52 GOT_NOTHING"),
        (55, "curl 55 SEND_ERROR"),
        (56, "curl 56 RECV_ERROR"),
        (65, "curl 65 SEND_FAIL_REWIND"),
        (92, "curl 92 HTTP2_STREAM"),
        (12345, "curl 12345 OTHER"),
    ],
)
@pytest.mark.parametrize("request_bytes", [0, 200])
def test_every_other_failure_may_have_been_accepted(code: int, reason: str, request_bytes: int) -> None:
    """Whatever libcurl counted, an error of the exchange itself proves nothing."""
    error = failure(code, "details", request_bytes=request_bytes)
    assert isinstance(error, AnswerUnknown)
    assert error.reason == reason


def test_headers_are_found_by_lower_case_name() -> None:
    """Values are stripped, and the last of several wins."""
    lines = [b"HTTP/2 200 \r\n", b"Retry-After:  7 \r\n", b"apns-id: A\r\n", b"apns-id: B\r\n", b"\r\n"]
    headers = HeaderLines(lines)
    assert dict(headers) == {"retry-after": "7", "apns-id": "B"}
    assert len(headers) == 2


def test_headers_before_the_last_status_line_do_not_count() -> None:
    """They belong to an interim response."""
    headers = HeaderLines(
        [b"HTTP/1.1 100 Continue\r\n", b"retry-after: 9\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n"]
    )
    assert dict(headers) == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://fcm.googleapis.com/v1/x",
        "https://10.0.0.1:8443",
        "http://127.0.0.1:8080/x",
        "http://localhost/x",
        "http://[::1]:80/",
    ],
)
def test_https_and_loopback_are_safe(url: str) -> None:
    """Credentials travel encrypted, or not at all off this machine."""
    assert_safe_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/",
        "http://127.0.0.1.example.com/",
        "http://localhost@example.com/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https:///nohost",
        "127.0.0.1:80",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    """Plain text to another machine would show credentials and tokens."""
    with pytest.raises(ValueError, match="only https"):
        assert_safe_address(url)


@pytest.fixture
def engine() -> Iterator[Engine[str]]:
    """An engine that is never asked to connect."""
    engine: Engine[str] = Engine()
    yield engine
    engine.close()


@pytest.mark.parametrize("url", ["http://example.com/x", "http://example.com", "file:///etc/passwd"])
def test_submit_refuses_an_unsafe_address(engine: Engine[str], url: str) -> None:
    """Also one without a path, and every time."""
    for _ in range(2):
        with pytest.raises(ValueError, match="only https"):
            engine.submit(Request(url=url, timeout=timedelta(seconds=1)), "it")
    assert engine.in_flight == 0


def test_requests_and_secrets_do_not_show_in_logs() -> None:
    """A request's representation holds neither its authorization nor its token."""
    request = Request(
        url="https://x/", headers=("authorization: Bearer s3cret",), body=b"token-1", timeout=timedelta(1)
    )
    assert "s3cret" not in repr(request)
    assert "token-1" not in repr(request)
