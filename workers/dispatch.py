"""The dispatcher's own process: `python -m workers.dispatch NODE PARENT`, started and watched by a prefork worker."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from registry.database import Database

from .announce import Announcer
from .app import create_bare_app
from .dispatcher import Dispatcher, Node
from .logs import configure_logs
from .settings import load_settings

_WATCH_SECONDS = 0.5


def main() -> None:
    """Dispatch until told to stop, or until the worker that started this process is gone."""
    node, parent = Node(**json.loads(sys.argv[1])), int(sys.argv[2])
    if os.getppid() != parent:
        return
    settings = load_settings()
    configure_logs(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch_parent, args=[parent], daemon=True).start()
    database = Database(settings.require_database_url(), application_name="pushfan dispatcher")
    Dispatcher(settings, database, Announcer(create_bare_app(settings)), node).run(stop)


def _watch_parent(parent: int) -> None:
    """End with the parent, however it ended: two dispatchers do no harm, but an orphan is nobody's."""
    watch = threading.Event()
    while not watch.wait(_WATCH_SECONDS):
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    main()
