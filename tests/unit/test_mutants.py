import subprocess

import pytest

from tests.chaos.__main__ import parser
from tests.chaos.mutants import DIRECTORY, NAMES, ROOT, Mutant, read
from tests.chaos.scenarios import ALL


def test_each_protection_has_a_mutant_and_nothing_else_lies_there() -> None:
    """The eleven protections of the design, a patch each."""
    assert {path.stem for path in DIRECTORY.glob("*.patch")} == set(NAMES)
    assert len(NAMES) == 11


@pytest.mark.parametrize("name", NAMES)
def test_mutant_says_what_must_fail(name: str) -> None:
    """Its scenario exists, and its words are complete."""
    mutant = read(name)
    assert mutant.scenario in ALL
    assert mutant.removes.startswith("Removes ")
    options = parser().parse_args([*mutant.arguments, "--scenario", mutant.scenario])
    assert options.devices >= 1000
    assert mutant.fails


@pytest.mark.parametrize("name", NAMES)
def test_mutant_applies_to_the_code_as_it_is(name: str) -> None:
    """Code that moves on takes its mutants along; production code alone is touched."""
    patch = read(name).patch
    subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, check=True)
    changed = [
        line.removeprefix("+++ b/") for line in patch.read_text().splitlines() if line.startswith("+++ ")
    ]
    assert changed
    assert all(path.partition("/")[0] in ("workers", "registry", "providers") for path in changed)


def test_mutant_is_caught_for_the_stated_reason_alone() -> None:
    """Any other failure may be the machine's, or a patch that breaks everything."""
    mutant = Mutant(name="fence", removes="Removes", scenario="zombie", arguments=[], fails="duplicates")
    assert mutant.is_killed_by(["lost: x", "7 duplicates, the bound is 0"])
    assert not mutant.is_killed_by(["lost: x"])
    assert not mutant.is_killed_by([])
