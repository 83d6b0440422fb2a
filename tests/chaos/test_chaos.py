import pytest

from tests.chaos.adversary import Adversary
from tests.chaos.run import run
from tests.chaos.scenarios import ALL, choose
from tests.chaos.scenarios.kills import KillAtPoints
from tests.chaos.world import create_world


def test_same_seed_decides_the_same() -> None:
    """World, load and adversary are drawn beforehand, from the seed alone; another seed draws others."""
    scenarios = [one() for one in ALL.values()]

    def decide(seed: int) -> tuple[str, str]:
        world = create_world(seed=seed, devices=500, seconds=10)
        return world.digest(), Adversary(scenarios, seed=seed, seconds=10).digest()

    assert decide(7) == decide(7)
    assert decide(7)[0] != decide(8)[0]
    assert decide(7)[1] != decide(8)[1]


def test_random_combination_is_the_seeds() -> None:
    """Without names a run has kills and a few other scenarios, the same for the same seed."""
    names = [one.name for one in choose(11)]
    assert names == [one.name for one in choose(11)]
    assert "kill_sender" in names
    assert 3 <= len(names) <= 4
    assert any([one.name for one in choose(seed)] != names for seed in range(5))


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_workers_that_die_at_every_point_lose_and_repeat_nothing_beyond_the_bound() -> None:
    """A short storm: processes die at each named point, and receipts, ledger and world agree."""
    findings = run([KillAtPoints()], seed=5, devices=300, seconds=8, judges_recovery=False)
    assert findings.failures == []
    assert findings.kills_mid_send > 0
    assert findings.deliveries > 1000
    assert findings.lost == findings.unfinished == findings.retired_wrongly == findings.misdirected == 0
    assert findings.duplicates <= findings.duplicates_bound
