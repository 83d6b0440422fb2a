"""The tour: every scenario alone, then random combinations of them, each run a process of its own.

    python -m tests.chaos.tour --seed 100 --devices 2000 --seconds 15 --combinations 5

Prints a line for each run on standard error and one JSON object at the end; status 1 when any promise was broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .scenarios import ALL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.tour", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each has the next")
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--combinations", type=int, default=5, help="how many runs of several together")
    parser.add_argument("--only-combinations", action="store_true", help="leave out the runs of one alone")
    options = parser.parse_args(arguments)
    names: list[str] = [] if options.only_combinations else sorted(ALL)
    runs = [
        _run(name, options.seed + number, options.devices, options.seconds)
        for number, name in enumerate([*names, *[""] * options.combinations])
    ]
    failed = [one for one in runs if not one["passed"]]
    _say(f"{len(runs)} runs, {len(failed)} failed")
    print(json.dumps({"runs": runs, "failed": len(failed), "passed": not failed}))  # noqa: T201 - a command line speaks
    return 1 if failed else 0


def _run(name: str, seed: int, devices: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos", "--json", "--seed", str(seed)]
    command += ["--devices", str(devices), "--seconds", str(seconds)]
    command += ["--scenario", name] if name else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        found = {"seed": seed, "scenarios": [name], "passed": False, "failures": [f"it said: {words[0]}"]}
    for line in _lines(found):
        _say(line)
    return found


def _lines(found: dict[str, Any]) -> Iterator[str]:
    verdict = found.get("skipped") or ("passed" if found["passed"] else "FAILED")
    figures = ", ".join(
        f"{name} {found[name]}"
        for name in ("deliveries", "lost", "duplicates", "duplicates_bound", "kills", "seconds")
        if name in found
    )
    yield f"{verdict} seed {found['seed']} {'+'.join(map(str, found['scenarios']))}: {figures}"
    for failure in found["failures"]:
        yield f"    {failure}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    sys.exit(main())
