"""Which addresses may be connected to."""

from __future__ import annotations

import socket

import pycurl
import pytest

from providers.reach import LOOPBACK, Reach, parse_networks

FORBIDDEN = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::",
    "2002:a00:1::1",
    "", "localhost", "1.2.3", "0x7f.1",
)  # fmt: skip
ALLOWED = ("8.8.8.8", "172.217.16.10", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_not_public_is_forbidden(address: str) -> None:
    """Private, local, metadata, reserved and multicast addresses, however they are written; and what is none."""
    assert not Reach().allows(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_allowed(address: str) -> None:
    """The internet is there to be reached."""
    assert Reach().allows(address)


def test_listed_networks_are_allowed_and_no_others() -> None:
    """An operator opens what is inside; loopback is opened by itself."""
    reach = Reach(parse_networks("10.1.0.0/16, fd00::/8"))
    assert reach.allows("10.1.2.3")
    assert reach.allows("::ffff:10.1.2.3")
    assert reach.allows("fd12::1")
    assert not reach.allows("10.2.0.1")
    assert not reach.allows("127.0.0.1")
    assert Reach(LOOPBACK).allows("127.0.0.1")
    assert Reach(LOOPBACK).allows("::1")


def test_socket_is_opened_for_what_is_allowed_alone() -> None:
    """For anything else, and for other families, libcurl is given none."""
    reach = Reach(LOOPBACK)
    with reach.open_socket(0, (socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 80))) as opened:
        assert isinstance(opened, socket.socket)
    for family, place in ((socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_UNIX, "/run/a")):
        assert reach.open_socket(0, (family, socket.SOCK_STREAM, 0, place)) == pycurl.SOCKET_BAD


def test_network_that_is_none_is_named() -> None:
    """A mistyped network opens nothing and is told."""
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        parse_networks("10.0.0.1/8")
