"""Start simulators from code, each a process of its own, and steer them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

_READY_SECONDS = 60.0
_STOP_SECONDS = 5.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused a control request; the text is its own."""


class Running:
    """A simulator process and its control API. Owned by whoever launched it; `stop` it, or use it in `with`.

    `info` is the ready file (`<name>.json`): addresses and the files with credentials. Not thread-safe.
    """

    def __init__(self, process: subprocess.Popen[bytes], info: dict[str, Any], receipts_file: Path) -> None:
        self.process = process
        self.info = info
        self.receipts_file = receipts_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The vendor's API."""
        return str(self.info["url"])

    def rules(self, rules: Sequence[dict[str, Any]]) -> None:
        """Append rules; raises `SimulatorError` with every mistake in them."""
        self.control("POST", "/rules", list(rules))

    def clear_rules(self) -> None:
        """Forget all rules."""
        self.control("DELETE", "/rules")

    def stats(self) -> dict[str, Any]:
        """Return the counts of requests, answers and receipts."""
        return self.control("GET", "/stats")

    def receipts(self) -> list[dict[str, Any]]:
        """Return everything that devices received, in the vendor's order."""
        if self.process.poll() is None:
            self.control("POST", "/flush")
        return [json.loads(line) for line in self.receipts_file.read_bytes().splitlines()]

    def control(self, method: str, path: str, values: Any = None) -> dict[str, Any]:
        """Send a request to the control API and return its answer."""
        data = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is the simulator's own, on the loopback
            self.info["control_url"] + path,
            data=data,
            method=method,
            headers={"content-type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=10) as answer:
                content = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise SimulatorError(f"{method} {path}: {error.read().decode()}") from error
        return content if isinstance(content, dict) else {"items": content}

    def stop(self) -> None:
        """End the process; its receipts are complete afterwards. A second call does nothing."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# No proxy from the environment: the control API is on the loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def launch(
    name: str,
    state_dir: Path | str,
    *,
    latency_ms: float = 0,
    engine: str = "fast",
    seed: int = 0,
    port: int = 0,
    known_tokens: Path | str | None = None,
    arguments: Sequence[str] = (),
) -> Running:
    """Start a simulator and wait until it answers; raises `SimulatorError` with what it printed.

    It dies with this process. `arguments` are further options of the command line.
    """
    directory = Path(state_dir)
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-P", "-m", "providers.simulators", name, "--port", str(port),
        "--state-dir", str(directory),
        "--engine", engine, "--seed", str(seed), "--latency-ms", str(latency_ms), "--die-with-parent",
        *(["--known-tokens", str(known_tokens)] if known_tokens else []), *arguments,
    ]  # fmt: skip
    output = directory / f"{name}.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=_environment()
        )
    info = _wait_until_ready(process, directory / f"{name}.json", output)
    return Running(process, info, directory / f"{name}.receipts.jsonl")


def _environment() -> dict[str, str]:
    """Let the child find this package, however the parent found it."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def _wait_until_ready(process: subprocess.Popen[bytes], ready_file: Path, output: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SimulatorError(f"the simulator ended at once: {output.read_text(errors='replace').strip()}")
        info = _read_ready(ready_file)
        if info.get("pid") == process.pid:
            return info
        time.sleep(0.02)
    process.kill()
    raise SimulatorError(
        f"the simulator was not ready in {_READY_SECONDS:.0f} s: {output.read_text(errors='replace')}"
    )


def _read_ready(ready_file: Path) -> dict[str, Any]:
    try:
        content = json.loads(ready_file.read_text())
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
