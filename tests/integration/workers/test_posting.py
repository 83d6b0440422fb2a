"""Requests to addresses that apps chose: where they go and do not go, and what is made of the answers."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from providers.reach import parse_networks
from tests.integration.workers.receiver import Receiver, receiving
from workers.posting import Gone, Poster, PostFailed

HERE = parse_networks("127.0.0.1/32")
ALL_HERE = parse_networks("127.0.0.0/8,::1/128")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver without TLS."""
    with receiving() as receiver:
        yield receiver


def make_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Make a server's TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls_receiver_of_a_trusted_authority_gets_the_message(tmp_path: Path) -> None:
    """And one of another authority, or of another name, gets nothing."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusted = Poster(networks=HERE, ca_file=tmp_path / "ca.pem", resolve=lambda _host: ["127.0.0.1"])
    with receiving(context=make_context(authority, "shop.example")) as receiver:
        port = urlsplit(receiver.url).port
        trusted.post(f"https://shop.example:{port}/hook", {"x-one": "1"}, b"{}")
        for poster, host in (
            (Poster(networks=HERE, resolve=lambda _host: ["127.0.0.1"]), "shop"),
            (trusted, "other"),
        ):
            with pytest.raises(PostFailed, match="not trusted"):
                poster.post(f"https://{host}.example:{port}/hook", {}, b"{}")
        (got,) = receiver.got
    assert (got.body, got.headers["x-one"], got.path) == (b"{}", "1", "/hook")
    assert got.headers["Content-Type"] == "application/json"


def test_name_that_is_rebound_to_a_forbidden_address_is_not_connected_to() -> None:
    """A name that was good when it was looked at, and a moment ago, leads inside now: nothing is sent there."""
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    poster = Poster(networks=parse_networks("127.0.0.1/32"), resolve=lambda _host: [next(answers)])
    with receiving() as outside, receiving(host="127.0.0.2", port=urlsplit(outside.url).port or 0) as inside:
        url = outside.url.replace("127.0.0.1", "localhost")
        poster.check(url)
        poster.post(url, {}, b"{}")
        for _ in range(2):
            with pytest.raises(PostFailed, match="not allowed"):
                poster.post(url, {}, b"{}")
        assert (len(outside.got), len(inside.got)) == (1, 0)


def test_every_address_of_a_name_is_judged() -> None:
    """A name with a good and a bad address is connected to at the good one alone."""
    poster = Poster(networks=HERE, resolve=lambda _host: ["127.0.0.2", "127.0.0.1"])
    with receiving() as outside, receiving(host="127.0.0.2", port=urlsplit(outside.url).port or 0) as inside:
        poster.post(outside.url.replace("127.0.0.1", "localhost"), {}, b"{}")
        assert (len(outside.got), len(inside.got)) == (1, 0)


def test_name_that_the_system_resolves_to_loopback_is_not_connected_to(receiver: Receiver) -> None:
    """The judgement is on the socket, whoever resolved the name."""
    port = urlsplit(receiver.url).port
    with pytest.raises(PostFailed, match="not allowed"):
        Poster().post(f"https://localhost:{port}/", {}, b"{}")
    assert receiver.got == []


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "http://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://user:secret@shop.example/",
        "https://shop.example/#part",
        "https://shop.example:99999/",
        "https://shop.example\\@inside/",
        "https://shop.example/a b",
        "https://shöp.example/",
        "https:///path",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "https://shop.example/" + "a" * 2048,
    ],
)
def test_address_that_can_never_be_sent_to_is_refused(url: str) -> None:
    """When it is given, so that whoever gives it hears of it; and again before it is sent to."""
    with pytest.raises(ValueError, match=r"must|allowed|private|ort"):
        Poster().check(url)
    with pytest.raises(PostFailed):
        Poster().post(url, {}, b"{}")


def test_hosts_may_be_limited_to_a_list() -> None:
    """A name, or all names below one."""
    poster = Poster(hosts=["shop.example", "*.partner.example"])
    poster.check("https://shop.example/")
    poster.check("https://a.b.partner.example/")
    for host in ("partner.example", "evilpartner.example", "shop.example.evil.example"):
        with pytest.raises(ValueError, match="PUSHFAN_WEBHOOK_HOSTS"):
            poster.check(f"https://{host}/")


def test_http_needs_loopback_to_be_listed() -> None:
    """Plain HTTP leaves this machine never."""
    Poster(networks=ALL_HERE).check("http://localhost:8080/")
    with pytest.raises(ValueError, match="https"):
        Poster(networks=parse_networks("10.0.0.0/8")).check("http://10.0.0.1/")


@pytest.mark.parametrize(("status", "words"), [(500, "500"), (404, "404"), (302, "redirect"), (429, "429")])
def test_other_answers_are_failures(receiver: Receiver, status: int, words: str) -> None:
    """A redirect is not followed: it would lead past the judgement of the URL."""
    receiver.answers = [status]
    receiver.headers = {"location": receiver.url, "retry-after": "7"}
    with pytest.raises(PostFailed, match=words) as caught:
        Poster(networks=HERE).post(receiver.url, {}, b"{}")
    assert len(receiver.got) == 1
    assert caught.value.retry_after == timedelta(seconds=7)


def test_gone_and_unreasonable_rests_are_told_apart(receiver: Receiver) -> None:
    """410 means never again; a rest of years is one of an hour."""
    receiver.answers = [410]
    receiver.headers = {"retry-after": "99999999"}
    with pytest.raises(Gone):
        Poster(networks=HERE).post(receiver.url, {}, b"{}")
    receiver.answers = [503]
    with pytest.raises(PostFailed) as caught:
        Poster(networks=HERE).post(receiver.url, {}, b"{}")
    assert caught.value.retry_after == timedelta(hours=1)


def test_endless_answer_is_cut_off_and_its_status_counts(receiver: Receiver) -> None:
    """A receiver cannot fill our memory or keep us; that it has the message it has said."""
    receiver.is_endless = True
    Poster(networks=HERE).post(receiver.url, {}, b"{}")
    receiver.answers = [500]
    with pytest.raises(PostFailed, match="500"):
        Poster(networks=HERE).post(receiver.url, {}, b"{}")


def test_silent_receiver_is_waited_for_so_long_and_no_longer(receiver: Receiver) -> None:
    """A time-out bounds everything, from connecting to the last byte."""
    free = threading.Event()

    def wait() -> None:
        free.wait(10)

    receiver.before = wait
    with pytest.raises(PostFailed, match="in time"):
        Poster(networks=HERE, timeout=timedelta(seconds=0.2)).post(receiver.url, {}, b"{}")
    free.set()


def test_failure_tells_nothing_of_the_address(receiver: Receiver) -> None:
    """An address may hold a secret, and reasons are stored and logged."""
    url = receiver.url.replace("/hook", "/secret-path")
    receiver.answers = [500]
    attempts: list[Callable[[], None]] = [
        lambda: Poster(networks=HERE).post(url, {}, b"{}"),
        lambda: Poster().post("https://localhost:1/secret-path", {}, b"{}"),
        lambda: Poster(networks=HERE).post("http://127.0.0.1:1/secret-path", {}, b"{}"),
    ]
    for attempt in attempts:
        with pytest.raises(PostFailed) as caught:
            attempt()
        assert "secret-path" not in str(caught.value)
