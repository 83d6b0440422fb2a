"""Simulators for the conformance suite: each vendor and engine started once, put in order for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from providers.simulators.launch import Running, launch
from tests.conformance.scene import Scene
from tests.conformance.vendors import VENDORS, Vendor

Launch = Callable[[str, str], Running]


@pytest.fixture(scope="session")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Start a simulator when it is first asked for."""
    running: dict[tuple[str, str], Running] = {}

    def get(name: str, engine: str) -> Running:
        if (name, engine) not in running:
            directory = tmp_path_factory.mktemp(f"{name}-{engine}")
            running[name, engine] = launch(name, directory, engine=engine)
        return running[name, engine]

    yield get
    for simulator in running.values():
        simulator.stop()


@pytest.fixture(params=VENDORS.values(), ids=list(VENDORS))
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Each vendor in turn; a test asks for one with `parametrize("vendor", [name], indirect=True)`."""
    vendor = VENDORS[request.param] if isinstance(request.param, str) else request.param
    assert isinstance(vendor, Vendor)
    return vendor


def _scene(vendor: Vendor, simulator: Running) -> Iterator[Scene]:
    scene = Scene(vendor=vendor, simulator=simulator)
    yield scene
    scene.close()
    simulator.clear_rules()
    simulator.control("POST", "/credentials", {"valid": True})
    simulator.control("POST", "/latency", {"ms": 0})


@pytest.fixture
def scene(vendor: Vendor, launched: Launch) -> Iterator[Scene]:
    """The vendor's fast simulator."""
    yield from _scene(vendor, launched(vendor.name, "fast"))


@pytest.fixture
def faulty(vendor: Vendor, launched: Launch) -> Iterator[Scene]:
    """The vendor's simulator that can misbehave in HTTP/2 frames too."""
    yield from _scene(vendor, launched(vendor.name, "fault"))
