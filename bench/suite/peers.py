"""Other senders to the same devices on the same simulators, in turn with us: our rate, ledger included, over theirs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import crowd
from bench.arena import MESSAGE, PROVIDERS, Arena
from bench.figures import Figures
from bench.measurement import Measured, Setting
from bench.peers.catalogue import PEERS
from bench.peers.environments import Environments, NotInstalled
from registry.channels import Provider

from .broadcast import LATENCY_MS

_GRACE_SECONDS = 120
# Of what the provider accepted, so much must have been counted; the rest may have been in flight at the end.
_COUNTED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many devices, how many pairs of runs, and how long a peer may send in each."""

    devices: int
    pairs: int
    seconds: float
    peers: Sequence[str] = tuple(PEERS)


SIZES: Mapping[str, Size] = {
    "full": Size(devices=50_000, pairs=3, seconds=15),
    "quick": Size(devices=3_000, pairs=1, seconds=5),
    "tiny": Size(devices=200, pairs=1, seconds=3, peers=("celery_fcm",)),
}


class NotSent(Exception):
    """A peer's program failed; the message is what it said."""


def measure(setting: Setting) -> Measured:
    """Run us and each peer in turn. A peer that cannot be installed or does not work is a note."""
    size = SIZES[setting.scale]
    figures: Figures = {}
    notes = [f"gorush: {_GORUSH}"]
    with (
        tempfile.TemporaryDirectory(prefix="pushfan-peers-", ignore_cleanup_errors=True) as name,
        setting.open_arena(latency_ms=LATENCY_MS) as arena,
    ):
        for provider in PROVIDERS:
            arena.settle_in(provider.value, size.devices, providers=[provider])
            arena.subscribe(provider.value, provider.value, size.devices)
        contest = _Contest(arena, Environments(Path(name)), Path(name), size)
        for peer in setting.peers or size.peers:
            setting.tell(f"{peer}, installing it if need be")
            try:
                figures |= contest.compare(peer)
            except (NotInstalled, NotSent) as error:
                notes.append(f"{peer} was not measured: {error}")
    return Measured(figures=figures, notes=notes)


_GORUSH = "was not measured: it has no setting that leads it to a simulator"


class _Contest:
    """Runs peers and us in turn."""

    def __init__(self, arena: Arena, environments: Environments, directory: Path, size: Size) -> None:
        self._arena = arena
        self._environments = environments
        self._directory = directory
        self._size = size

    def compare(self, name: str) -> Figures:
        """Measure pairs of runs; returns the medians and the ratio. Raises `NotInstalled`, `NotSent`."""
        peer = PEERS[name]
        command = self._environments.command(peer)
        job = self._write_job(peer.provider)
        ours, theirs, costs = [], [], []
        for _ in range(self._size.pairs):
            ours.append(self._arena.broadcast(peer.provider.value).per_second)
            said = self._send(peer.provider, [*command, str(job)])
            theirs.append(said["accepted"] / said["seconds"])
            costs.append(said["cpu_seconds"] / said["accepted"] * 1e6)
        return {
            f"{name}_per_second": median(theirs),
            f"{name}_ours_per_second": median(ours),
            f"{name}_cpu_us": median(costs),
            f"{name}_ratio": median(mine / other for mine, other in zip(ours, theirs, strict=True)),
        }

    def _send(self, provider: Provider, command: Sequence[str]) -> Mapping[str, Any]:
        before = self._accepted_by(provider)
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **_trusting(Path(command[-1]))},
                capture_output=True,
                text=True,
                check=True,
                timeout=self._size.seconds + _GRACE_SECONDS,
            )
            said: Mapping[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.CalledProcessError as error:
            raise NotSent(
                error.stderr.strip().splitlines()[-1][:300] if error.stderr.strip() else str(error)
            ) from error
        except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
            raise NotSent(f"{type(error).__name__}: {error}"[:300]) from error
        if not said["accepted"]:
            raise NotSent("nothing that it sent was accepted")
        if said["accepted"] < _COUNTED * (self._accepted_by(provider) - before):
            raise NotSent(
                f"it counted {said['accepted']:,}, but more was accepted: its figures would be too low"
            )
        return said

    def _accepted_by(self, provider: Provider) -> int:
        return int(self._arena.stack.simulators[provider.value].stats()["answers"].get("accepted", 0))

    def _write_job(self, provider: Provider) -> Path:
        arena = self._arena
        tokens = self._directory / f"{provider.value}.tokens"
        of_channel = crowd.tokens(arena.url, arena.channels[provider].id, self._size.devices)
        tokens.write_text("\n".join(of_channel))
        job = self._directory / f"{provider.value}.json"
        content = {
            "info": dict(arena.stack.simulators[provider.value].info),
            "tokens_file": str(tokens),
            "seconds": self._size.seconds,
            "broker_url": arena.stack.settings.require_broker_url().removesuffix("0") + "9",
            "title": MESSAGE.title,
            "body": MESSAGE.body,
            "data": dict(MESSAGE.data),
        }
        job.write_text(json.dumps(content))
        return job


def _trusting(job: Path) -> Mapping[str, str]:
    """Let clients of all kinds trust the simulator, and only it."""
    ca_file = json.loads(job.read_text())["info"]["ca_file"]
    return {"SSL_CERT_FILE": ca_file, "REQUESTS_CA_BUNDLE": ca_file, "NODE_EXTRA_CA_CERTS": ca_file}
