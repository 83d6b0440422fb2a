"""`python -m bench`: measure, show, keep; or check quick figures against the recorded ones."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from functools import partial

from gateway.interruption import Interrupted, Interruption

from . import baseline, results, table
from .arena import open_arena
from .figures import rounded
from .machine import describe
from .measurement import SCALES, Measured, Setting
from .peers.catalogue import PEERS
from .suite import SUITE

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options = _parser().parse_args(arguments)
    if unknown := sorted(set(options.names) - SUITE.keys()):
        _parser().error(f"there is no {unknown[0]}: choose from {', '.join(SUITE)}")
    if options.list:
        for name, measure in SUITE.items():
            print(f"{name:<10}  {_purpose(measure)}")
        return 0
    names = options.names or list(baseline.CHECKED if options.check or options.record else SUITE)
    scale = "quick" if options.check or options.record else options.scale
    tell = partial(print, file=sys.stderr, flush=True)
    with Interruption() as interruption:
        setting = Setting(
            scale=scale, open_arena=partial(open_arena, interruption, tell), tell=tell, peers=options.peer
        )
        try:
            return _run(setting, names, options)
        except Interrupted:
            return _INTERRUPTED


def _run(setting: Setting, names: Sequence[str], options: argparse.Namespace) -> int:
    machine = describe()
    path = results.file_for(setting.scale)
    found: dict[str, Measured] = {}
    for name in names:
        setting.tell(f"— {name}")
        measured = SUITE[name](setting)
        found[name] = Measured(figures=rounded(measured.figures), notes=measured.notes)
        print(f"\n{name}")
        for line in table.lines(name, found[name]):
            print(f"  {line}")
        sys.stdout.flush()
        results.write(path, found, machine, setting.scale)
    print(f"\nwritten to {path}")
    worse: list[str] = []
    if options.record:
        baseline.record(found)
    elif options.check:
        bounds = {name: bound for name, bound in baseline.read().items() if name.partition(".")[0] in names}
        worse = list(baseline.regressions(found, bounds))
        print("\n".join(f"regression: {line}" for line in worse) or "no ratio is worse than recorded")
    if options.json:
        figures = {name: dict(measured.figures) for name, measured in found.items()}
        print(json.dumps({"scale": setting.scale, "machine": machine, **figures}))
    return 1 if worse else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what Pushfan costs on this machine, durable, simulators included.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; all if none")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument(
        "--scale", choices=SCALES, default="full", help="full: for the record; quick: minutes; tiny: seconds"
    )
    parser.add_argument(
        "--quick", dest="scale", action="store_const", const="quick", help="the same as --scale quick"
    )
    parser.add_argument(
        "--check", action="store_true", help="run quick, fail if a ratio is worse than recorded"
    )
    parser.add_argument(
        "--record", action="store_true", help="run quick and record the ratios in bench/baseline.json"
    )
    parser.add_argument(
        "--peer", action="append", default=[], choices=sorted(PEERS), help="only this one; repeatable"
    )
    return parser


def _purpose(measure: object) -> str:
    module = inspect.getmodule(measure)
    return (inspect.getdoc(module) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
