"""The command line: `python -m tests.chaos.mutants`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from . import NAMES, ROOT, Mutant, read_all

_LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv", "*_cache", "__pycache__", ".hypothesis", ".pushfan"
)
_LONGEST_SECONDS: Final = 1_200.0
# What a root of our packages is known by: the copy's, and not that of the tree it was made from.
_WHERE: Final = "import workers, registry; print(workers.__file__); print(registry.__file__)"


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What became of a mutant, or, without one, of a scenario as it is."""

    mutant: str | None
    scenario: str
    is_as_expected: bool
    failures: Sequence[str] = field(default_factory=list)
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.mutants",
        description="Remove one protection after the other in a copy: the scenario that it names must fail.",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all runs")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help="can be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, no table")
    options = parser.parse_args(arguments)
    mutants = list(read_all(options.only or NAMES))
    verdicts = [*_without(mutants, options.seed), *(_with(mutant, options.seed) for mutant in mutants)]
    is_passed = all(verdict.is_as_expected for verdict in verdicts)
    if options.json:
        runs = [asdict(verdict) for verdict in verdicts]
        print(json.dumps({"seed": options.seed, "runs": runs, "passed": is_passed}))  # noqa: T201 - a command line speaks
    else:
        print("\n".join(_table(verdicts)))  # noqa: T201 - as above
    return 0 if is_passed else 1


def _without(mutants: Sequence[Mutant], seed: int) -> Iterator[Verdict]:
    """Run each scenario once as the tree is: it must pass."""
    for scenario, arguments in dict.fromkeys((one.scenario, tuple(one.arguments)) for one in mutants):
        with _copy() as root:
            failures, seconds = _run(root, scenario, arguments, seed)
        yield _tell(
            Verdict(
                mutant=None,
                scenario=scenario,
                is_as_expected=not failures,
                failures=failures,
                seconds=seconds,
            )
        )


def _with(mutant: Mutant, seed: int) -> Verdict:
    """Run a mutant's scenario with it: it must fail for the stated reason."""
    with _copy() as root:
        subprocess.run(["git", "apply", str(mutant.patch)], cwd=root, check=True)
        failures, seconds = _run(root, mutant.scenario, mutant.arguments, seed)
    return _tell(
        Verdict(
            mutant=mutant.name,
            scenario=mutant.scenario,
            is_as_expected=mutant.is_killed_by(failures),
            # The stated reason first.
            failures=sorted(failures, key=lambda failure: not mutant.is_killed_by([failure])),
            seconds=seconds,
        )
    )


@contextmanager
def _copy() -> Iterator[Path]:
    """Give a copy of the tree without its environment: the interpreter is ours, the packages are the copy's."""
    with tempfile.TemporaryDirectory(prefix="pushfan-mutant-") as name:
        root = Path(name) / "tree"
        shutil.copytree(ROOT, root, ignore=_LEFT_OUT)
        yield root


def _run(root: Path, scenario: str, arguments: Sequence[str], seed: int) -> tuple[list[str], float]:
    """Run a scenario in a copy. Returns what failed, and how long it took."""
    environ = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    found = subprocess.run(
        [sys.executable, "-c", _WHERE], cwd=root, env=environ, capture_output=True, text=True, check=True
    )
    if not all(Path(line).is_relative_to(root.resolve()) for line in found.stdout.splitlines()):
        raise RuntimeError(f"the copy in {root} would not run its own code: {found.stdout}")
    command = [sys.executable, "-m", "tests.chaos", "--json", "--seed", str(seed), *arguments]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--scenario", scenario],
            cwd=root, env=environ, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [f"it did not end within {_LONGEST_SECONDS:.0f} s"], _LONGEST_SECONDS
    try:
        findings: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        findings = {"failures": [f"it ended with {done.returncode} and said: {words[0]}"]}
    return list(findings["failures"]), round(time.monotonic() - began, 1)


def _tell(verdict: Verdict) -> Verdict:
    print(_line(verdict), file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks
    return verdict


def _line(verdict: Verdict) -> str:
    if verdict.mutant is None:
        word = "passed" if verdict.is_as_expected else "FAILED"
    else:
        word = "caught" if verdict.is_as_expected else "SURVIVED"
    failures = "; ".join(verdict.failures[:2]) or "-"
    return f"{verdict.mutant or '(none)':18} {verdict.scenario:18} {word:9} {verdict.seconds:6.1f}  {failures[:160]}"


def _table(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield f"{'mutant':18} {'scenario':18} {'verdict':9} {'seconds':>6}  what failed"
    yield from map(_line, verdicts)


if __name__ == "__main__":
    sys.exit(main())
