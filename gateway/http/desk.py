"""What the routes work with: made when the server starts, closed when it ends. One for each process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import structlog
from fastapi import Depends
from starlette.requests import Request

from registry.database import Database
from registry.errors import RegistryError
from workers.app import create_bare_app
from workers.credentials import CredentialStore
from workers.intake import Door
from workers.posting import Poster
from workers.settings import Settings
from workers.signing import Signer

from .backlog import BacklogGauge
from .batcher import Batcher
from .crew import Crew
from .herald import Herald
from .key_ring import KeyRing
from .problem import Problem
from .rate import RateLimit
from .user_token import UserTokens

log = structlog.get_logger()

_CHORE_SECONDS: Final = 30.0
# Events that may wait for one process's intake; more are answered 503.
_EVENTS_WAITING: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The collaborators of all routes. Belongs to one event loop."""

    settings: Settings
    database: Database
    store: CredentialStore
    crew: Crew
    batcher: Batcher
    keys: KeyRing
    tokens: UserTokens
    rate: RateLimit
    poster: Poster
    signer: Signer
    backlog: BacklogGauge


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """Make the collaborators, do their chores now and then, and close them. Connects to nothing by itself."""
    database = Database(settings.require_database_url(), application_name="pushfan api")
    store = CredentialStore(settings.credentials_directory)
    celery = create_bare_app(_without_patience(settings))
    herald = Herald(celery)
    crew = Crew(database, threads=settings.api_threads)
    door = Door(settings=settings, database=database, announcer=herald)
    desk = Desk(
        settings=settings,
        database=database,
        store=store,
        crew=crew,
        batcher=Batcher(door, most_waiting=_EVENTS_WAITING),
        keys=KeyRing(crew),
        tokens=UserTokens(store, settings.user_token_secret, lambda: datetime.now(UTC)),
        rate=RateLimit(settings.api_rate),
        poster=Poster.of(settings),
        signer=Signer(store, settings.webhook_secret),
        backlog=BacklogGauge(crew, limit=settings.api_backlog),
    )
    chores = asyncio.create_task(_do_chores(desk))
    try:
        yield desk
    finally:
        chores.cancel()
        await desk.batcher.close()
        await _write_down(desk)
        await asyncio.to_thread(crew.close)
        await asyncio.to_thread(herald.close)
        celery.close()


def _without_patience(settings: Settings) -> Settings:
    """Do without a broker where none is named: the dispatcher finds the work."""
    return (
        settings if settings.broker_url else settings.model_copy(update={"broker_url": "memory://localhost/"})
    )


async def _do_chores(desk: Desk) -> None:
    while True:
        await asyncio.sleep(_CHORE_SECONDS)
        await _write_down(desk)


async def _write_down(desk: Desk) -> None:
    with contextlib.suppress(RegistryError, Problem):  # when keys were used is no reason to end
        await desk.keys.write_down()


async def _desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk_of)]
