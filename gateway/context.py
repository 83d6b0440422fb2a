"""What one command works with: settings, database and door, each made when it is first asked for.

A `pushfan up` leaves its addresses in `$PUSHFAN_HOME/up.json`, by which commands in another terminal find it.
What the environment names comes first; a stack that uses another database or broker than the environment
names is not meant, and nothing is taken from it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from celery import Celery

    from registry.database import Connection, Database
    from workers.credentials import CredentialStore
    from workers.intake import Door
    from workers.settings import Settings

STATE_FILE: Final = "up.json"
# A person waits: a database that does not answer so long is away.
PATIENCE_SECONDS: Final = 5.0
_BROKER_SECONDS: Final = 3.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A `pushfan up`, as its state file tells of it. `process` names it beyond reuse of its pid."""

    pid: int
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    process: str | None = None
    api_url: str | None = None
    flower_url: str | None = None
    flower_user: str | None = None
    flower_password: str | None = field(default=None, repr=False)
    simulators: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Tell whether the process that wrote the file still runs."""
        from workers.processes import is_dead

        return not is_dead(self.process) if self.process else _exists(self.pid)

    def write(self, home: Path) -> Path:
        """Leave the state where commands look for it, readable by this user alone. Returns the file."""
        home.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=home, prefix=STATE_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2)
        return Path(name).replace(home / STATE_FILE)


def read_state(home: Path) -> Running | None:
    """Read the state file, whether or not its writer still runs; `None` if there is none."""
    from workers.settings import SettingsError

    path = home / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return Running(**{name: state[name] for name in Running.__slots__ if name in state})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"cannot read {path}, by which a running `pushfan up` is found ({error}): "
            "start `pushfan up` again, or set PUSHFAN_DATABASE_URL and PUSHFAN_BROKER_URL"
        ) from error


def find_running(home: Path) -> Running | None:
    """Find the `pushfan up` of this home; `None` if none runs. Raises `SettingsError` for a broken file."""
    state = read_state(home)
    return state if state is not None and state.is_alive else None


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; what they leave open comes from a running `pushfan up`. Raises `SettingsError`."""
    from workers.settings import load_settings

    settings = load_settings(environ)
    if settings.database_url is not None and settings.broker_url is not None:
        return settings
    running = find_running(settings.home)
    if running is None or not _agrees(settings, running):
        return settings
    return settings.model_copy(
        update={"database_url": running.database_url, "broker_url": running.broker_url}
    )


def _agrees(settings: Settings, running: Running) -> bool:
    return settings.database_url in (None, running.database_url) and settings.broker_url in (
        None,
        running.broker_url,
    )


class Context:
    """Gives a command what it works with. Used by one thread; `close` it at the end."""

    def __init__(self) -> None:
        self._celery: Celery | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load()

    @cached_property
    def unchecked_database(self) -> Database:
        """The database, whether or not it answers and whatever it holds."""
        from registry.database import Database

        url = self.settings.database_url
        if url is None:
            self._refuse_stale()
            url = self.settings.require_database_url()
        check_url(url)
        return Database(url, application_name="pushfan cli")

    @cached_property
    def database(self) -> Database:
        """The database, which answers and holds this version's schema."""
        from registry import schema

        database = self.unchecked_database
        database.run(lambda _: None, patience_seconds=PATIENCE_SECONDS)
        schema.check(database)
        return database

    @cached_property
    def store(self) -> CredentialStore:
        """Where credential references are resolved."""
        from workers.credentials import CredentialStore

        return CredentialStore(self.settings.credentials_directory)

    @cached_property
    def door(self) -> Door:
        """The way in for events. Without a broker it announces to nobody: the dispatcher finds the work."""
        from workers.announce import Announcer
        from workers.app import create_bare_app
        from workers.intake import Door

        settings = self.settings
        if settings.broker_url is None:
            settings = settings.model_copy(update={"broker_url": "memory://"})
        self._celery = create_bare_app(settings)
        # A person waits, and the dispatcher announces anyway: one try is enough.
        self._celery.conf.broker_transport_options = {
            **self._celery.conf.broker_transport_options,
            "max_retries": 0,
            "socket_connect_timeout": _BROKER_SECONDS,
            "socket_timeout": _BROKER_SECONDS,
        }
        return Door(settings=settings, database=self.database, announcer=Announcer(self._celery))

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work(connection)` in one transaction, with a person's patience."""
        return self.database.run(work, patience_seconds=PATIENCE_SECONDS)

    def close(self) -> None:
        """Close what was opened."""
        if self._celery is not None:
            self._celery.close()
        if "unchecked_database" in self.__dict__:
            self.unchecked_database.close()

    def _refuse_stale(self) -> None:
        from workers.settings import SettingsError

        home = self.settings.home
        state = read_state(home)
        if state is not None and not state.is_alive:
            raise SettingsError(
                f"the `pushfan up` of {home.absolute()} has ended (process {state.pid}), and "
                "PUSHFAN_DATABASE_URL is not set: start `pushfan up` again, or set it to a postgresql:// URL"
            )


def check_url(url: str, name: str = "PUSHFAN_DATABASE_URL") -> None:
    """Refuse what cannot be a connection URL, without repeating it: it may hold a password."""
    from urllib.parse import urlsplit

    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from workers.settings import SettingsError

    try:
        conninfo_to_dict(url)
        parts = urlsplit(url)
        is_fit = parts.scheme in ("postgresql", "postgres") and (parts.port or 1) > 0
    except (psycopg.ProgrammingError, ValueError):
        is_fit = False
    if not is_fit:
        raise SettingsError(
            f"{name} is no PostgreSQL URL such as postgresql://user:password@host:5432/pushfan"
        )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
