"""The deploy files keep the promises that the code relies on; their syntax is checked by `make check`."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from events.names import Lane
from gateway.cli.outbox import relay
from gateway.cli.process import api, worker
from workers.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
WORKER = DEPLOY / "systemd" / "pushfan-worker@.service"
# A task may run until its hard limit and then flushes; a stop that is cut short repeats what was in flight.
SHORTEST_STOP_SECONDS = Settings.model_fields["task_hard_limit_seconds"].default + 20


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Give the services of the compose file, anchors resolved."""
    composed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services: dict[str, Any] = composed["services"]
    return services


def read_unit(path: Path) -> ConfigParser:
    """Return a systemd unit; repeated keys keep their last value."""
    unit = ConfigParser(strict=False, interpolation=None, delimiters=["="])
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # keys keep their case
    unit.read(path)
    return unit


@pytest.mark.parametrize("lane", Lane)
def test_every_lane_has_workers_of_its_own(services: dict[str, Any], lane: Lane) -> None:
    """A lane without a service would never be served; urgent must not share processes with bulk."""
    serving = [
        name for name, service in services.items() if service.get("command") == ["worker", "--lane", lane]
    ]
    assert serving == [f"worker-{lane}"]


def test_workers_are_started_as_the_command_line_wants(services: dict[str, Any]) -> None:
    """The arguments in the compose file and the unit are arguments that `pushfan worker` has."""
    line = read_unit(WORKER)["Service"]["ExecStart"].replace("%i", Lane.URGENT)
    commands = [service["command"] for name, service in services.items() if name.startswith("worker-")]
    for command in [line.split()[1:], *commands]:
        assert command[0] == worker.name
        assert worker.make_context("worker", list(command[1:])).params["lanes"] == (command[2],)


def test_settings_of_containers_exist(services: dict[str, Any]) -> None:
    """Pushfan refuses settings that it does not know, so the compose file must not invent any."""
    names = {name for service in services.values() for name in service.get("environment", {})}
    ours = {name.removeprefix("PUSHFAN_").lower() for name in names if name.startswith("PUSHFAN_")}
    assert ours
    assert ours <= set(Settings.model_fields)


def test_worker_containers_get_time_to_finish(services: dict[str, Any]) -> None:
    """A stop waits for what was sent, and an init process passes the signal on."""
    workers = [service for name, service in services.items() if name.startswith("worker-")]
    for service in workers:
        assert int(service["stop_grace_period"].removesuffix("s")) >= SHORTEST_STOP_SECONDS
        assert service["init"] is True


def test_broker_keeps_queues(services: dict[str, Any]) -> None:
    """Redis writes its queues to disk and never evicts one."""
    command = " ".join(services["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_nothing_is_open_to_the_network(services: dict[str, Any]) -> None:
    """Whoever reaches the broker may push: published ports are on the loopback interface only."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_image_runs_without_privileges() -> None:
    """The last user of the image is an unprivileged number, so that an orchestrator can verify it."""
    users = re.findall(r"^USER (.+)$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("package", ["events", "providers", "registry", "workers", "gateway"])
def test_image_holds_every_floor(package: str) -> None:
    """A floor that the build does not copy, or that is kept from it, would be missing in the image only."""
    assert f"COPY {package}/ {package}/" in (DEPLOY / "Dockerfile").read_text()
    assert f"!{package}" in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def test_there_are_units() -> None:
    """The tests of units below cannot pass because there is none."""
    names = [path.stem for path in UNITS]
    assert names == ["pushfan-api", "pushfan-flower", "pushfan-relay", "pushfan-worker@"]


@pytest.mark.parametrize("command", [api, relay], ids=["api", "relay"])
def test_units_start_what_the_command_line_has(command: click.Command) -> None:
    """The other units start commands of ours, with arguments that these take."""
    line = read_unit(DEPLOY / "systemd" / f"pushfan-{command.name}.service")["Service"]["ExecStart"]
    _, name, *arguments = line.split()
    assert command.make_context(name, arguments).info_name == command.name


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.stem))
def test_units_stop_the_main_process_first(path: Path) -> None:
    """A signal to a whole group would reach worker children in the middle of a send."""
    service = read_unit(path)["Service"]
    assert service["KillMode"] == "mixed"
    assert service["User"] == "pushfan"
    assert service["Restart"] == "always"


def test_worker_unit_gets_time_to_finish() -> None:
    """A stop by systemd waits for what was sent before it kills."""
    assert int(read_unit(WORKER)["Service"]["TimeoutStopSec"]) >= SHORTEST_STOP_SECONDS
