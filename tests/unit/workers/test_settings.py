"""The settings: read once, every problem named at once."""

from datetime import timedelta

import pytest

from workers.settings import Settings, SettingsError, as_environ, load_settings


def problems(environ: dict[str, str]) -> list[str]:
    """List what is wrong with an environment."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return str(caught.value).split("\n")


def test_defaults_are_valid() -> None:
    """Nothing needs to be set to load, and other programs' variables do not disturb."""
    settings = load_settings({"HOME": "/root", "PUSHFAN_SECRET_KEY": "x", "PUSHFAN_TEST_DATABASE_URL": "y"})
    assert settings == Settings()
    assert settings.lease == timedelta(seconds=10)


def test_unknown_name_is_refused_with_a_hint() -> None:
    """A misspelt setting would otherwise be silently without effect."""
    assert problems({"PUSHFAN_CHUNKSIZE": "1"}) == [
        "PUSHFAN_CHUNKSIZE is not a setting; did you mean PUSHFAN_CHUNK_SIZE?"
    ]
    assert problems({"PUSHFAN_ZZZZZ": "1"}) == ["PUSHFAN_ZZZZZ is not a setting"]


def test_every_problem_is_named_at_once() -> None:
    """An operator corrects a configuration once, not once for each mistake."""
    found = problems(
        {
            "PUSHFAN_CHUNK_SIZE": "0",
            "PUSHFAN_LEASE_SECONDS": "soon",
            "PUSHFAN_LOG_FORMAT": "xml",
            "PUSHFAN_LEESE": "1",
        }
    )
    named = [line.partition(":")[0].partition(" ")[0] for line in found]
    assert named == ["PUSHFAN_LEESE", "PUSHFAN_CHUNK_SIZE", "PUSHFAN_LEASE_SECONDS", "PUSHFAN_LOG_FORMAT"]


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("PUSHFAN_PROVIDER_TIMEOUT_SECONDS", "60"),
        ("PUSHFAN_TASK_SOFT_LIMIT_SECONDS", "90"),
        ("PUSHFAN_TASK_HARD_LIMIT_SECONDS", "300"),
        ("PUSHFAN_VISIBILITY_TIMEOUT_SECONDS", "90"),
    ],
)
def test_timers_must_nest(changed: str, value: str) -> None:
    """Provider time-out < soft < hard < visibility: equal is too much already."""
    (found,) = problems({changed: value})
    assert changed in found
    assert "must be less than" in found


def test_all_timers_out_of_order_are_named() -> None:
    """Two wrong steps are two problems."""
    found = problems({"PUSHFAN_TASK_SOFT_LIMIT_SECONDS": "10", "PUSHFAN_VISIBILITY_TIMEOUT_SECONDS": "20"})
    assert len(found) == 2


def test_empty_value_is_the_default() -> None:
    """Compose files set variables to nothing."""
    assert load_settings({"PUSHFAN_CHUNK_SIZE": ""}).chunk_size == Settings().chunk_size


def test_settings_survive_the_way_to_another_process() -> None:
    """What a worker hands to its dispatcher is what it has itself."""
    settings = load_settings(
        {},
        database_url="postgresql://u:p@h/d",
        broker_url="redis://h/0",
        chunk_size=7,
        allowed_hosts="a.example, B.example",
        delay_scale=0.25,
    )
    assert load_settings(as_environ(settings)) == settings
    assert settings.hosts == {"a.example", "b.example"}


@pytest.mark.parametrize("name", ["database_url", "broker_url"])
def test_missing_url_says_what_to_do(name: str) -> None:
    """Whoever needs a server that was not named is told how to name it."""
    settings = load_settings({})
    with pytest.raises(SettingsError, match=f"PUSHFAN_{name.upper()}.*pushfan up"):
        getattr(settings, f"require_{name}")()
