"""Which addresses a channel's client may connect to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from providers.outcome import ChannelConfig
from providers.reach import Reach
from tests.integration.workers.floor import Floor
from workers.clients import build_config

INSIDE, HERE = "10.1.2.3", "127.0.0.1"


def config_of(floor: Floor, **access: Any) -> ChannelConfig:
    """Build the configuration of a channel with these endpoints, where 10.0.0.0/8 is listed."""
    settings = floor.settings.model_copy(
        update={"allowed_hosts": "proxy.example", "allowed_networks": "10.0.0.0/8"}
    )
    channel = replace(floor.channel(), access=replace(floor.channel().access, **access))
    return build_config(settings, channel, {"key": b"x"})


def reach_of(floor: Floor, **access: Any) -> Reach | None:
    """Give what such a channel may reach."""
    return config_of(floor, **access).reach


@pytest.mark.parametrize("name", ["endpoint", "report_endpoint"])
def test_channel_with_an_endpoint_of_its_own_reaches_listed_networks_alone(floor: Floor, name: str) -> None:
    """The host is one that the operator listed; its address is judged too, loopback where the host is that."""
    reach = reach_of(floor, **{name: "https://proxy.example"})
    assert reach is not None
    assert (reach.allows(INSIDE), reach.allows(HERE), reach.allows("192.168.0.1")) == (True, False, False)
    here = reach_of(floor, **{name: "http://localhost:1"})
    assert here is not None
    assert here.allows(HERE)


def test_vendors_own_address_is_not_judged(floor: Floor) -> None:
    """Nobody else chose it, and a network may lead to it by an address of its own."""
    assert reach_of(floor) is None


def test_token_endpoint_is_judged_without_endpoints_too(floor: Floor) -> None:
    """A credential's file names it, whatever the channel says."""
    reach = config_of(floor).token_reach
    assert reach is not None
    assert (reach.allows(INSIDE), reach.allows(HERE)) == (True, False)
    here = config_of(floor, endpoint="http://127.0.0.1:1").token_reach
    assert here is not None
    assert here.allows(HERE)
