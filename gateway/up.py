"""`pushfan up`: everything on this machine in one terminal, until Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from events.broker import without_secrets
from workers.settings import Settings

from . import simulated, view
from .context import find_running
from .interruption import Interrupted, Interruption
from .stack import Stack, Wanted, state_of

_HOME: Final = ".pushfan"


class AlreadyUp(Exception):
    """A `pushfan up` runs with this PUSHFAN_HOME: stop it, or choose another home."""


def run(settings: Settings, *, persist: Path | None = None, simulate: bool = False) -> int:
    """Run the stack until a signal ends it; returns the exit code.

    Servers that the settings name are used, others are started. `persist` keeps their data. Raises `AlreadyUp`,
    `ChildFailed`, `LocalServerError`, `RegistryError`.
    """
    home = settings.home.resolve()
    with _alone(home), Interruption() as interruption, contextlib.suppress(Interrupted):
        directory = Path(tempfile.mkdtemp(prefix="pushfan-up-")) if persist is None else persist
        wanted = Wanted(
            directory=directory,
            logs=home / "logs",
            is_kept=persist is not None,
            is_temporary=persist is None,
            simulators=[provider.value for provider in simulated.CHANNELS.values()] if simulate else [],
        )
        with Stack(settings, wanted, interruption, click.echo) as stack:
            if simulate:
                _settle(stack)
            with _announced(stack, home):
                for line in _welcome(stack, persist, is_simulated=simulate):
                    click.echo(line)
                with contextlib.suppress(Interrupted):
                    view.follow(stack, interruption)
            click.echo("stopping: the workers finish what is on its way")
    return 0


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Be the only one with this home. The lock ends with the process, however that ends."""
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = find_running(home)
            who = f" (process {running.pid})" if running else ""
            raise AlreadyUp(
                f"a `pushfan up` runs already with {home}{who}: stop it, or set PUSHFAN_HOME to another directory"
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _announced(stack: Stack, home: Path) -> Iterator[None]:
    """Be found by commands in other terminals."""
    path = state_of(stack).write(home)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _settle(stack: Stack) -> None:
    found = simulated.connect(
        stack.database, simulated.APP, stack.simulators, stack.settings.credentials_directory
    )
    simulated.populate(stack.database, found)


def _welcome(stack: Stack, persist: Path | None, *, is_simulated: bool) -> Iterator[str]:
    """Say where everything is, and what to try next."""
    yield ""
    yield f"database    {stack.database.address}"
    if stack.api is not None:
        yield f"HTTP API    {stack.api.url}   for people: {stack.api.url}/docs"
    if stack.flower is not None:
        yield f"Flower      {stack.flower.url}   user {stack.flower.user}, password {stack.flower.password}"
    for name, simulator in stack.simulators.items():
        yield f"{name:<12}{simulator.url}   simulated; steer it at {simulator.info['control_url']}"
    yield f"logs        {stack.wanted.logs}"
    yield f"broker      {without_secrets(stack.settings.require_broker_url())}"
    if stack.has_own_database:
        yield "data        " + (
            f"stays in {persist.resolve()}" if persist else "is gone when this ends (--persist DIR keeps it)"
        )
    yield ""
    yield f"In another terminal{_where(stack.settings.home)}, try:"
    if is_simulated:
        yield f'  pushfan send --app {simulated.APP} --user u7 --title "Shipped" --body "Order 812" --wait'
        yield f'  pushfan send --app {simulated.APP} --topic news --title "Hello" --wait'
        yield "  pushfan trace --last"
        yield f"  pushfan key create backend --app {simulated.APP} --role publish --role register"
    else:
        yield f"  pushfan app add {simulated.APP}"
        yield "  pushfan channel add --help"
        yield "  pushfan doctor"
    yield ""


def _where(home: Path) -> str:
    if home == Path(_HOME).resolve():
        return " in this directory"
    return f" with PUSHFAN_HOME={home}"
