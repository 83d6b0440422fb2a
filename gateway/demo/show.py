"""Run a demo from its first process to its last, and tell about it."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from gateway.interruption import Interrupted, Interruption
from gateway.simulated import APP, CHANNELS
from gateway.stack import Stack, Wanted, state_of
from registry.channels import RATE_PER_SECOND, Provider
from workers.settings import Settings, load_settings

from .attacks import SMALL_CHUNK, Attacks, rate_for
from .guests import check_alone, clean_up
from .play import Play
from .post import Post
from .pulse import Pulse
from .reckoning import reckon
from .report import Report
from .stage import Stage
from .telling import Teller
from .world import World, create_world

_USERS: Final = 2_000
_INTERRUPTED: Final = 130
_KEEP_SECONDS: Final = 0.5
# Simulators need no patience: what vendors document in minutes takes parts of a second.
_HURRY: Final = {
    "delay_scale": 0.01,
    "receipt_delay_seconds": 0.5,
    "suspect_age_seconds": 0.0,
    "suspect_pass_seconds": 0.5,
    "tick_seconds": 0.2,
    "provider_timeout_seconds": 25.0,
    "task_soft_limit_seconds": 60.0,
    "task_hard_limit_seconds": 90.0,
    "visibility_timeout_seconds": 300.0,
    "log_format": "plain",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a demo is to go."""

    users: int
    seed: int
    is_calm: bool
    keeps: bool
    as_json: bool


def run(
    settings: Settings | None = None,
    *,
    users: int | None = None,
    chunk_size: int | None = None,
    calm: bool = False,
    keep: bool = False,
    as_json: bool = False,
    seed: int = 1,
) -> int:
    """Run a demo and return its exit code: 0 if nothing was lost, nothing repeated beyond the bound, all as planned.

    It attacks itself, unless it is to be `calm`. Uses the servers that the settings name, else its own.
    Raises `ChildFailed`, `LocalServerError`,
    `SettingsError`, `DatabaseUnavailable`, `RegistryError` when it cannot begin.
    """
    given = load_settings() if settings is None else settings
    script = Script(
        users=_USERS if users is None else users,
        seed=seed,
        is_calm=calm,
        keeps=keep,
        as_json=as_json,
    )
    check_alone(given)
    directory = Path(tempfile.mkdtemp(prefix="pushfan-demo-"))
    changes = _HURRY | {"home": directory / "home", "credentials_dir": None}
    chunk = chunk_size or (given.chunk_size if calm else min(given.chunk_size, SMALL_CHUNK))
    hurried = given.model_copy(update=changes | {"chunk_size": chunk})
    with Interruption() as interruption:
        try:
            return _run(hurried, directory, script, interruption)
        except Interrupted:
            click.echo("interrupted", err=True)
            return _INTERRUPTED


def _run(settings: Settings, directory: Path, script: Script, interruption: Interruption) -> int:
    host = settings.database_url
    app = APP if host is None else f"demo-{secrets.token_hex(4)}"
    wanted = Wanted(
        directory=directory,
        logs=directory / "logs",
        is_temporary=True,
        simulators=[provider.value for provider in CHANNELS.values()],
        has_flower=script.keeps,
        has_api=script.keeps,
        has_relay=script.keeps,
    )
    try:
        with (
            Teller(is_quiet=script.as_json) as teller,
            Stack(settings, wanted, interruption, teller.say) as stack,
        ):
            world = create_world(users=script.users, seed=script.seed)
            report = _play(stack, world, app, interruption, teller, is_calm=script.is_calm)
            teller.rest()
            _print(report, as_json=script.as_json)
            if script.keeps:
                _keep(stack, app, world, script, interruption)
    finally:
        if host is not None:
            clean_up(host, app)
    return 0 if report.is_good else 1


def _play(
    stack: Stack, world: World, app: str, interruption: Interruption, teller: Teller, *, is_calm: bool
) -> Report:
    teller.say(f"registering {len(world.users):,} users with {len(world.phones):,} phones")
    largest = max(map(world.number_at, Provider))
    stage = Stage(stack, world, app, rate_per_second=RATE_PER_SECOND if is_calm else rate_for(largest))
    post = Post(stage, stack.settings.require_broker_url(), interruption)
    try:
        with Pulse(stage) as pulse:
            teller.watch(pulse, post)
            attacks = None if is_calm else Attacks(stack, stage, post, pulse, interruption, tell=teller.say)
            played = Play(stack, stage, post, interruption, teller.say).play(attacks)
            teller.say("comparing the ledger with what the providers received, one by one")
            return reckon(stack, stage, post, played)
    finally:
        post.close()


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.as_json()))
        return
    click.echo()
    for line in report.as_lines():
        click.secho(line, bold=not line.startswith(" "))


def _keep(stack: Stack, app: str, world: World, script: Script, interruption: Interruption) -> None:
    """Go on running until Ctrl-C, found by commands in another terminal."""
    home = stack.settings.home
    state_of(stack).write(home)
    user = world.untroubled_users()[0]
    lines = [
        "",
        "Still running, until Ctrl-C. In another terminal:",
        f"  export PUSHFAN_HOME={home}",
        f'  pushfan send --app {app} --user {user} --title "Hello" --wait',
        "  pushfan trace --last",
        f"  pushfan device list --app {app} --user {user}",
    ]
    if stack.flower is not None:
        lines.append(
            f"Flower: {stack.flower.url}  user {stack.flower.user}, password {stack.flower.password}"
        )
    for line in lines:
        click.echo(line, err=script.as_json)
    with contextlib.suppress(Interrupted):
        while True:
            interruption.sleep(_KEEP_SECONDS)
            for sentence in stack.revive():
                click.echo(sentence, err=True)
