from collections import Counter

import pytest

from gateway.demo.world import Fate, Wave, World, create_world
from registry.channels import Provider


@pytest.fixture(scope="module")
def world() -> World:
    """A world large enough for every fate."""
    return create_world(users=1_000, seed=1)


def test_the_same_seed_makes_the_same_world() -> None:
    """A demo can be repeated: users, phones, tokens, fates and subscriptions follow from the seed."""
    assert create_world(users=200, seed=7) == create_world(users=200, seed=7)


def test_another_seed_makes_another_world() -> None:
    """The seed decides."""
    assert create_world(users=200, seed=7).phones != create_world(users=200, seed=8).phones


def test_users_have_one_to_four_phones_over_all_providers(world: World) -> None:
    """Every number of phones and every provider occurs."""
    phones = Counter(phone.user for phone in world.phones)
    assert set(phones) == set(world.users)
    assert set(phones.values()) == {1, 2, 3, 4}
    assert {phone.provider for phone in world.phones} == set(Provider)


def test_every_fate_is_planned_for_every_provider_that_can_count_it(world: World) -> None:
    """JPush alone has no hesitant phones: it refuses whole requests, so they could not be counted."""
    fates = {(phone.provider, phone.fate) for phone in world.phones}
    every = {(provider, fate) for provider in Provider for fate in Fate}
    assert fates == every - {(Provider.JPUSH, Fate.HESITANT)}


def test_tokens_are_all_different(world: World) -> None:
    """A receipt names its phone by the token alone."""
    tokens = [token for phone in world.phones for token in (phone.token, phone.new_token) if token]
    assert len(tokens) == len(set(tokens))


@pytest.mark.parametrize("seed", range(5))
def test_stubborn_jpush_phone_is_never_in_a_request_with_another(seed: int) -> None:
    """Its user has no other phone there, not even one that moves in: a refused request counts as one retry."""
    world = create_world(users=1_000, seed=seed)
    stubborn = [phone for phone in world.having(Fate.STUBBORN) if phone.provider is Provider.JPUSH]
    assert stubborn
    for wave in Wave:
        there = Counter(phone.owner(wave) for phone in world.phones if phone.provider is Provider.JPUSH)
        assert {there[phone.user] for phone in stubborn} == {1}


def test_no_user_has_two_stubborn_phones(world: World) -> None:
    """One direct push meets one stubborn phone."""
    for provider in Provider:
        stubborn = [phone.user for phone in world.having(Fate.STUBBORN) if phone.provider is provider]
        assert len(stubborn) == len(set(stubborn))


def test_moved_phone_has_its_first_owner_until_the_handover_is_planned(world: World) -> None:
    """The push that waits is the first owner's, the next one the heir's."""
    for phone in world.having(Fate.MOVED):
        assert phone.owner(Wave.NEWS) == phone.owner(Wave.HANDOVER) == phone.user
        assert phone.owner(Wave.DIRECT) == phone.owner(Wave.BROADCAST) == phone.heir != phone.user


def test_planned_counts_are_the_phones_with_that_fate(world: World) -> None:
    """What is compared at the end is what was drawn."""
    fates = Counter(phone.fate for phone in world.phones)
    assert world.planned.retired == fates[Fate.DEAD] > 0
    assert world.planned.retried == fates[Fate.HESITANT] + fates[Fate.STUBBORN] > 0
    assert world.planned.replaced == fates[Fate.REPLACED] > 0
    assert world.planned.moved == fates[Fate.MOVED] > 0


def test_untroubled_users_have_only_healthy_phones(world: World) -> None:
    """The latency of a direct push is not measured on a phone that is made to fail."""
    untroubled = set(world.untroubled_users())
    theirs = [phone for phone in world.phones if {phone.user, phone.heir} & untroubled]
    assert theirs
    assert {phone.fate for phone in theirs} == {Fate.HEALTHY}


def test_greeted_users_have_a_phone_of_each_provider(world: World) -> None:
    """The first pushes open a connection to every provider."""
    phones = world.phones_of(world.greeted_users(), Wave.HELLO)
    assert {phone.provider for phone in phones} == set(Provider)


@pytest.mark.parametrize("users", [1, 2, 3, 10])
def test_tiny_world_has_everybody_subscribed_somewhere(users: int) -> None:
    """A demo of one user works: nothing is planned that could not happen."""
    world = create_world(users=users, seed=1)
    assert len(world.users) == users
    assert any(world.buckets.values())
    assert all(phone.heir is not None for phone in world.having(Fate.MOVED))
