"""Which addresses may be connected to when somebody else chose the host: checked on the socket that is opened.

A name that is checked first and resolved again to connect may have changed its address in between (DNS rebinding). So
libcurl resolves once, and asks `open_socket` for each address that it is about to connect to: what is refused there is
never connected to, whatever the name said before.

Addresses of the public internet are allowed. Private, link-local (the metadata services of clouds among them),
loopback, shared, reserved and multicast ones are not, unless they lie in a network that the operator listed. An IPv6
address that carries an IPv4 one (mapped, 6to4, Teredo, NAT64) is judged by that one.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pycurl

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
# https://www.rfc-editor.org/rfc/rfc6052 and https://www.rfc-editor.org/rfc/rfc8215
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Reach:
    """Judges addresses. Immutable, safe for threads and forks."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        """`networks` are allowed beside the public internet."""
        self._networks = tuple(networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reach) and self._networks == other._networks

    def __hash__(self) -> int:
        return hash(self._networks)

    def allows(self, address: str) -> bool:
        """Tell whether an address, as text, may be connected to."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if any(_is_in(parsed, network) for network in self._networks):
            return True
        return all(self._is_fine(one) for one in (parsed, *_carried(parsed)))

    def _is_fine(self, address: Address) -> bool:
        is_listed = any(_is_in(address, network) for network in self._networks)
        is_carrier = address.version == 6 and any(_carried(address))
        is_public = is_carrier or address.is_global
        return is_listed or (is_public and not address.is_multicast)

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """Open the socket that libcurl connects with, or refuse: its option OPENSOCKETFUNCTION."""
        family, kind, protocol, place = address
        if family not in (socket.AF_INET, socket.AF_INET6) or not self.allows(str(place[0])):
            return pycurl.SOCKET_BAD
        return _Handed(family, kind, protocol)


class _Handed(socket.socket):
    """A socket that libcurl has duplicated as soon as it was handed over: ours is closed without a warning."""

    def __del__(self) -> None:
        self.close()


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks by comma, `10.0.0.0/8,fd00::/8`. Raises `ValueError` that names the wrong one."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _carried(address: Address) -> Iterator[Address]:
    """Name the IPv4 addresses that an IPv6 one stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
