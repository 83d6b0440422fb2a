"""The composition of one worker process: what is built from the settings, when it is first needed.

A prefork parent builds nothing that a child would inherit: connections, clients and random state belong to the
process, and under the threads pool to the thread, that made them.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from datetime import timedelta

from celery import Celery

from providers import create_client
from providers.client import Client
from providers.outcome import ChannelConfig
from registry.database import Database

from .announce import Announcer
from .clients import ClientPool
from .credentials import CredentialStore
from .decide import RetryPolicy
from .deliver import Tools
from .intake import Door
from .intake_queue import IntakeQueue
from .processes import owner
from .settings import Settings
from .stopping import StopFlag


class Runtime:
    """Gives each process and thread its own collaborators."""

    def __init__(
        self, app: Celery, settings: Settings, create: Callable[[ChannelConfig], Client] = create_client
    ) -> None:
        self.app = app
        self.settings = settings
        self._create = create
        self.stop = StopFlag()
        self.store = CredentialStore(settings.credentials_directory)
        self.announcer = Announcer(app)
        self.database = Database(settings.require_database_url(), application_name="pushfan worker")
        self.door = Door(
            settings=settings, database=self.database, announcer=self.announcer, queue=IntakeQueue(app)
        )
        self._local = threading.local()

    @property
    def tools(self) -> Tools:
        """What deliveries work with."""
        tools: Tools | None = getattr(self._local, "tools", None)
        if tools is None or self._local.pid != os.getpid():
            tools = self._build_tools()
            self._local.tools, self._local.pid = tools, os.getpid()
        return tools

    def close(self) -> None:
        """Close this process's connections."""
        tools: Tools | None = getattr(self._local, "tools", None)
        if tools is not None and self._local.pid == os.getpid():
            tools.clients.close()
            self._local.tools = None
        self.database.close()

    def _build_tools(self) -> Tools:
        name = owner()
        if threading.current_thread() is not threading.main_thread():
            name += f".{threading.get_native_id()}"
        return Tools(
            settings=self.settings,
            database=self.database,
            clients=ClientPool(self.settings, self.database, self.store, self._create),
            owner=name,
            policy=build_policy(self.settings),
            jitter=lambda ceiling: random.uniform(0, ceiling),
            announce=self.announcer.chunks,
            is_stopping=self.stop,
        )


def build_policy(settings: Settings) -> RetryPolicy:
    """Read the retry policy from the settings."""
    return RetryPolicy(
        max_attempts=settings.max_attempts,
        base=timedelta(seconds=settings.backoff_seconds),
        cap=timedelta(seconds=settings.backoff_cap_seconds),
        scale=settings.delay_scale,
    )
