"""The command line of the simulators."""

from __future__ import annotations

import argparse
from pathlib import Path

NAMES = ("fcm", "apns", "jpush")
ENGINES = ("fast", "fault")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m providers.simulators`."""
    result = argparse.ArgumentParser(
        prog="python -m providers.simulators",
        description="Imitate a push provider: check what it checks, misbehave when told to, log each push.",
    )
    result.add_argument("name", choices=NAMES)
    result.add_argument("--state-dir", type=Path, required=True, help="credentials, certificates, receipts")
    result.add_argument("--host", default="127.0.0.1", help="address to listen on")
    result.add_argument("--advertise", help="host name for clients, if it differs from --host")
    result.add_argument("--port", type=int, default=0, help="0 takes a free one")
    result.add_argument("--control-port", type=int, default=0, help="0 takes a free one")
    result.add_argument("--engine", choices=ENGINES, default="fast", help="fault: misbehaves in frames too")
    result.add_argument("--latency-ms", type=float, default=0, help="delay of each answer")
    result.add_argument("--seed", type=int, default=0, help="decides which tokens a rule's share takes")
    result.add_argument(
        "--known-tokens", type=Path, help="file: a token a line (APNs: then `sandbox`, if so)"
    )
    result.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    _add_vendor_options(result)
    return result


def _add_vendor_options(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("of single vendors")
    group.add_argument("--token-life-seconds", type=int, default=3600, help="fcm: life of an access token")
    group.add_argument("--per-minute", type=int, help="fcm: messages (unlimited); jpush: requests (600000)")
    group.add_argument("--retry-after", type=float, help="fcm: Retry-After of quota refusals")
    group.add_argument(
        "--device-per-minute", type=int, default=0, help="fcm: for one device (the vendor's: 240)"
    )
    group.add_argument("--apns-topics", default="com.example.shop", help="apns: topics, commas between")
    group.add_argument(
        "--certificate-auth", action="store_true", help="apns, fast: demand a client certificate"
    )
    group.add_argument("--sandbox-port", type=int, default=0, help="apns: port of the sandbox")
    group.add_argument("--shrink-after", type=int, default=0, help="apns, fault: 400s until fewer streams")
    group.add_argument("--report-delay-seconds", type=float, default=0, help="jpush: until a status is known")
