"""Mutants: Pushfan without one of its protections each, which the scenario that they name must notice.

    python -m tests.chaos.mutants --only fence --seed 7 --json

A mutant is a patch beside this file. Before the diff it says what it removes, and

    Scenario: zombie_at_claim            which scenario must fail with it
    Arguments: --devices 2000            how that is run
    Fails: duplicates                    what one of the failures must say

Everything runs in copies of the tree: production code has no switch for any of this. First each scenario passes without
a patch, then it fails with it, for the stated reason: a mutant that breaks everything proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(__file__).parent
ROOT: Final = DIRECTORY.parents[2]
NAMES: Final = (
    "budget", "circuit", "fence", "graceful_stop", "issued", "lease", "registration_time", "result_vector",
    "send_deadline", "suspects", "token_comparison",
)  # fmt: skip
_FIELD: Final = re.compile(r"^(Scenario|Arguments|Fails): (\S.*)$", re.MULTILINE)


class Malformed(ValueError):
    """A patch does not say what it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A protection that is removed, and what must fail then."""

    name: str
    removes: str
    scenario: str
    arguments: Sequence[str]
    fails: str

    @property
    def patch(self) -> Path:
        """The diff."""
        return DIRECTORY / f"{self.name}.patch"

    def is_killed_by(self, failures: Sequence[str]) -> bool:
        """Tell whether what failed is what must fail."""
        return any(self.fails in failure for failure in failures)


def read(name: str) -> Mutant:
    """Read a mutant's words. Raises `Malformed`."""
    head, separator, _ = (DIRECTORY / f"{name}.patch").read_text().partition("\ndiff --git ")
    fields = dict(_FIELD.findall(head))
    removes = head.partition("\n")[0]
    if not separator or not removes or fields.keys() != {"Scenario", "Arguments", "Fails"}:
        raise Malformed(f"{name}.patch needs a first line, Scenario, Arguments, Fails and a diff")
    return Mutant(
        name=name,
        removes=removes,
        scenario=fields["Scenario"],
        arguments=fields["Arguments"].split(),
        fails=fields["Fails"],
    )


def read_all(names: Sequence[str] = NAMES) -> Iterator[Mutant]:
    """Read several."""
    yield from map(read, names)
