"""One simulator as a process.

1. Signals, the parent's death, ports: taken ports end it here with a clear line.
2. Stage, vendor, certificates; listeners start, then the control API.
3. The ready file is written and one line printed: from here on clients may come.
4. A signal: receipts are flushed, listeners close, and the process ends whatever connections are open.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .authority import Certificates, make_certificates, write_json
from .clock import Clock
from .control import Control
from .exchange import Connection
from .http1 import Http1Connection
from .listener import Listener
from .options import parser
from .receipts import ReceiptLog
from .rules import RuleBook
from .stage import Stage, Vendor

_PR_SET_PDEATHSIG = 1
_JPUSH_PER_MINUTE = 600_000


class PortTaken(OSError):
    """A port that was asked for is in use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a simulator until a signal ends it; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except OSError as error:
        return _complain(options.name, str(error))
    except ModuleNotFoundError as error:
        return _complain(
            options.name, f"{error.name} is missing; install the extra: pip install 'pushfan[local]'"
        )
    # Connections that a client keeps open would hold the interpreter back.
    sys.stdout.flush()
    os._exit(0)


def _complain(name: str, text: str) -> int:
    print(f"pushfan simulator {name}: {text}", file=sys.stderr)  # noqa: T201 - a command line speaks
    return 1


@dataclass(slots=True, kw_only=True)
class _Port:
    """One port of the vendor's API, reserved until the process ends."""

    reserved: socket.socket
    is_sandbox: bool = False

    @property
    def number(self) -> int:
        return int(self.reserved.getsockname()[1])


async def _run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    _stop_on_signals(loop, stopped, is_bound_to_parent=options.die_with_parent)
    options.state_dir.mkdir(parents=True, exist_ok=True)
    ports = _reserve(options)
    stage = _create_stage(options, ports[0], loop)
    vendor = _create_vendor(options, stage)
    certificates = _create_certificates(options)
    listeners = [_create_listener(options, vendor, stage, certificates, each) for each in ports]
    for listener, port in zip(listeners, ports, strict=True):
        await listener.start(options.host, port.number)
    control = await _start_control(options, Control(vendor, stage, list(listeners)))
    ready_file = options.state_dir / f"{options.name}.json"
    info = {
        **_addresses(options, ports, control),
        "ca_file": str(certificates.ca_file),
        "certificate_file": str(certificates.client_file),
        "receipts_file": str(stage.receipts.path),
        **vendor.ready_info(),
    }
    write_json(ready_file, info)
    line = f"{options.name} simulator ({options.engine}) ready at {stage.url}, control {info['control_url']}"
    print(line, flush=True)  # noqa: T201 - a command line speaks
    await stopped.wait()
    ready_file.unlink(missing_ok=True)
    control.close()
    await asyncio.gather(*(listener.stop() for listener in listeners))
    stage.receipts.flush()


def _addresses(
    options: argparse.Namespace, ports: Sequence[_Port], control: asyncio.Server
) -> dict[str, Any]:
    host = _public_host(options)
    names = ("url", "sandbox_url")
    urls = {name: f"https://{host}:{port.number}" for name, port in zip(names, ports, strict=False)}
    control_port = control.sockets[0].getsockname()[1]
    return {
        "name": options.name,
        "engine": options.engine,
        "pid": os.getpid(),
        **urls,
        "control_url": f"http://{host}:{control_port}",
    }


def _public_host(options: argparse.Namespace) -> str:
    return str(options.advertise or options.host)


def _create_stage(options: argparse.Namespace, port: _Port, loop: asyncio.AbstractEventLoop) -> Stage:
    return Stage(
        state_dir=options.state_dir,
        url=f"https://{_public_host(options)}:{port.number}",
        clock=Clock(),
        rules=RuleBook(options.seed),
        receipts=ReceiptLog(options.state_dir / f"{options.name}.receipts.jsonl", loop),
        known=_read_tokens(options.known_tokens),
        latency_seconds=options.latency_ms / 1000,
    )


def _read_tokens(path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: words[1] if len(words) > 1 else "" for words in lines if words}


def _create_certificates(options: argparse.Namespace) -> Certificates:
    hosts = sorted({_public_host(options), "localhost", "127.0.0.1"})
    return make_certificates(options.state_dir, options.name, hosts, _first_topic(options))


def _first_topic(options: argparse.Namespace) -> str:
    return str(options.apns_topics.split(",")[0])


def _create_vendor(options: argparse.Namespace, stage: Stage) -> Vendor:
    if options.name == "fcm":
        from .fcm import create_fcm

        return create_fcm(
            stage,
            token_life_seconds=options.token_life_seconds,
            per_minute=options.per_minute or 0,
            retry_after=options.retry_after,
            device_per_minute=options.device_per_minute,
        )
    if options.name == "apns":
        from .apns import Apns

        return Apns(stage, topics=options.apns_topics.split(","), shrink_after=options.shrink_after)
    from .jpush import JPush

    per_minute = options.per_minute or _JPUSH_PER_MINUTE
    return JPush(stage, per_minute=per_minute, report_delay_seconds=options.report_delay_seconds)


def _create_listener(
    options: argparse.Namespace, vendor: Vendor, stage: Stage, certificates: Certificates, port: _Port
) -> Listener:
    is_apns = options.name == "apns"
    topic = _first_topic(options)
    if options.engine == "fast":
        from .fast import FastListener

        return FastListener(
            vendor, stage, certificates, is_sandbox=port.is_sandbox, is_http2_only=is_apns,
            certificate_topic=topic if options.certificate_auth else None,
        )  # fmt: skip
    from .fault import FaultListener

    return FaultListener(
        vendor, stage, certificates, is_sandbox=port.is_sandbox, is_http2_only=is_apns,
        has_warm_up=is_apns, certificate_topic=topic if is_apns else None,
    )  # fmt: skip


async def _start_control(options: argparse.Namespace, control: Control) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            lambda: Http1Connection(control.handle, Connection(), lambda: 0.0),
            options.host,
            options.control_port,
        )
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {options.host}:{options.control_port}: {error.strerror}"
        ) from error


def _reserve(options: argparse.Namespace) -> list[_Port]:
    ports = [_Port(reserved=_reserve_port(options.host, options.port))]
    if options.name == "apns":
        sandbox = _reserve_port(options.host, options.sandbox_port)
        ports.append(_Port(reserved=sandbox, is_sandbox=True))
    return ports


def _reserve_port(host: str, port: int) -> socket.socket:
    """Make sure that a port is free, and hold it.

    Both engines bind it again with SO_REUSEPORT, which alone would share the port of another process.
    """
    try:
        if port:
            with contextlib.closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen()
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, port))
    except OSError as error:
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return reserved


def _stop_on_signals(
    loop: asyncio.AbstractEventLoop, stopped: asyncio.Event, *, is_bound_to_parent: bool
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if not is_bound_to_parent:
        return
    parent = os.getppid()

    def stop_if_orphan() -> None:
        if os.getppid() != parent:
            stopped.set()

    # The kernel signals already when the *thread* that started us ends, so the handler looks again.
    loop.add_signal_handler(signal.SIGUSR1, stop_if_orphan)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    stop_if_orphan()
