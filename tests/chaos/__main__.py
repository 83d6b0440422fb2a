"""The command line: `python -m tests.chaos`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .proxy import Proxy
from .rabbit import is_installed
from .run import QUIET_SECONDS, run
from .scenarios import ALL, choose


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    result = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Run the whole system under a seeded adversary and account for every delivery. "
        "Progress goes to standard error, one JSON object to standard output; status 1 when a promise is broken.",
    )
    result.add_argument("--seed", type=int, default=1, help="decides who is there and what happens when")
    result.add_argument("--devices", type=int, default=2_000)
    result.add_argument("--seconds", type=float, default=20, help="how long the load lasts")
    result.add_argument(
        "--quiet-seconds",
        type=float,
        default=QUIET_SECONDS,
        help="how long to wait at most until all is done",
    )
    result.add_argument(
        "--scenario",
        action="append",
        choices=sorted(ALL),
        metavar="NAME",
        help="can be repeated; without it the seed chooses some",
    )
    result.add_argument("--json", action="store_true", help="the object on one line")
    result.add_argument("--list", action="store_true", help="list the scenarios")
    result.add_argument("--keep", type=Path, help="an empty directory in which logs and data stay")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.list:
        for name, one in sorted(ALL.items()):
            print(f"{name:24} {one.summary()}")  # noqa: T201 - a command line speaks
        return 0
    chosen = [ALL[name]() for name in options.scenario] if options.scenario else choose(options.seed)
    if any(one.needs_rabbit for one in chosen) and not is_installed():
        names = [one.name for one in chosen]
        skipped = {"seed": options.seed, "scenarios": names, "skipped": "RabbitMQ is not installed here"}
        print(json.dumps({**skipped, "passed": True, "failures": []}))  # noqa: T201 - as above
        return 0
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        options.keep = options.keep.resolve()
    findings = run(
        chosen,
        seed=options.seed,
        devices=options.devices,
        seconds=options.seconds,
        open_road=Proxy,
        keep=options.keep,
        quiet_seconds=options.quiet_seconds,
    )
    print(json.dumps(findings.as_json(), indent=None if options.json else 2))  # noqa: T201 - as above
    return 0 if findings.passed else 1


if __name__ == "__main__":
    sys.exit(main())
