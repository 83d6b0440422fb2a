"""Receivers of webhooks go away, are slow, refuse or hang up, while the workers that tell them are killed."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, ClassVar, Final

from events import InvalidWebhook, verify_webhook
from gateway.local.ports import find_free_port
from registry import apps, webhooks
from registry.database import Connection
from registry.feedback import Cursor
from registry.webhooks import Webhook
from tests.chaos.findings import Findings
from tests.chaos.scenario import Arena, Move, Scenario, every
from tests.chaos.world import APPS
from workers.credentials import CredentialStore
from workers.signing import Signer

from . import kills

_NAME: Final = "audit"
_TIMEOUT_SECONDS: Final = 1.0
# What a receiver does with what it gets, and what it is meant to do.
_WELL, _AWAY, _SLOW, _REFUSING, _HANGING_UP = "well", "away", "slow", "refusing", "hanging up"
_TROUBLES: Final = (_AWAY, _SLOW, _REFUSING, _HANGING_UP)
# Who was claimed by a killed process is claimed again when that claim is over.
_CAUGHT_UP_SECONDS: Final = 90.0
_EXAMPLES: Final = 3
_WAITING = """
SELECT count(*) AS waiting FROM pushfan.webhook w
WHERE w.batch_xid IS NOT NULL
   OR EXISTS (SELECT FROM pushfan.feedback f WHERE f.app_id = w.app_id AND (f.xid, f.id) > (w.told_xid, w.told_id))
   OR EXISTS (SELECT FROM pushfan.finish f WHERE f.app_id = w.app_id AND (f.xid, f.id) > (w.told_xid, w.told_id))
"""
_FEEDBACK = """
SELECT f.xid::text::bigint AS xid, f.id FROM pushfan.feedback f
WHERE f.app_id = %(app_id)s AND (f.xid, f.id) > (%(xid)s::text::xid8, %(id)s)
"""
# What finished around the making of the webhook may be told or not.
_FINISHED = """
SELECT n.id::text AS id FROM pushfan.notification n
WHERE n.app_id = %(app_id)s AND n.finished_at > %(created_at)s + interval '2 seconds'
"""


@dataclass(slots=True, kw_only=True)
class _Got:
    """One request. `is_answered`: it was answered 2xx, or that was begun."""

    headers: Mapping[str, str]
    body: bytes
    at: float
    is_answered: bool = False


@dataclass(slots=True)
class _Receiver:
    """An HTTP server on one port for the whole run, which keeps everything that it gets."""

    port: int = field(default_factory=find_free_port)
    state: str = _WELL
    got: list[_Got] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def be(self, state: str) -> None:
        """Do this with whatever comes from now on."""
        self.state = state
        if state == _AWAY:
            self.close()
        elif self._server is None:
            self._open()

    def _open(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with contextlib.suppress(OSError):  # who is killed hangs up
                    receiver.take(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """Keep a message, and answer as it is the state's way."""
        body = request.rfile.read(int(request.headers["content-length"]))
        got = _Got(headers=dict(request.headers), body=body, at=time.time())
        self.got.append(got)
        state = self.state
        if state == _SLOW:
            time.sleep(2 * _TIMEOUT_SECONDS)
        if state == _HANGING_UP:
            request.close_connection = True
            return
        got.is_answered = state != _REFUSING
        request.send_response(500 if state == _REFUSING else 204)
        request.send_header("content-length", "0")
        request.end_headers()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class WebhookReceivers(Scenario):
    """Receivers of webhooks are away, slow, refuse and hang up, while workers and dispatchers are killed."""

    name = "webhook_receivers"
    settings: ClassVar[Mapping[str, object]] = {
        "allowed_networks": "127.0.0.0/8",
        "webhook_timeout_seconds": _TIMEOUT_SECONDS,
    }

    def __init__(self) -> None:
        self._receiver = _Receiver()
        self._begun: list[Webhook] = []

    def moves(self, chance: Random, seconds: float) -> list[Move]:
        """Draw the receiver's troubles, all kinds before any comes twice, and the kills."""
        moves = [Move(0, "webhooks are made", self._begin)]
        order: list[str] = []
        for at in every(chance, seconds, mean=2.5, first=1):
            order = order or chance.sample(_TROUBLES, k=len(_TROUBLES))
            trouble = order.pop()
            moves.append(Move(at, f"the receiver is {trouble}", partial(self._be, state=trouble)))
            after = at + chance.uniform(0.5, 1.2)
            moves.append(Move(after, "the receiver is well", partial(self._be, state=_WELL)))
        killing = [*kills.KillDispatcher().moves(chance, seconds), *kills.KillTree().moves(chance, seconds)]
        return sorted([*moves, *killing], key=lambda move: move.at)

    def heal(self, arena: Arena) -> None:
        """Let everything be heard."""
        self._receiver.be(_WELL)

    def check(self, arena: Arena, findings: Findings) -> Iterator[str]:
        """Everything was told at least once, in order, and signed; and there was trouble."""
        if not self._is_caught_up(arena):
            yield f"something was not told {_CAUGHT_UP_SECONDS:g} s after all was healed"
        self._receiver.close()
        signer = _signer(arena)
        messages: dict[str, list[_Got]] = defaultdict(list)
        for got in self._receiver.got:
            messages[json.loads(got.body)["app"]].append(got)
        for webhook in self._begun:
            its = messages.pop(webhook.app, [])
            yield from _unsigned(its, signer.secret(webhook.salt))
            yield from _out_of_order(webhook.app, its)
            yield from _untold(arena, webhook, [one for one in its if one.is_answered])
        if messages:
            yield f"messages came that were nobody's: {sorted(messages)}"
        for trouble in (_REFUSING, _AWAY):
            if not findings.faults.get(f"receiver {trouble}"):
                yield f"the receiver was never {trouble}"
        if len(self._receiver.got) == len({one.headers["webhook-id"] for one in self._receiver.got}):
            yield "no message came twice"

    def _begin(self, arena: Arena) -> None:
        """Make a webhook for each app."""
        credentials = arena.stage.settings.credentials_directory
        (credentials / "webhook-secret").write_text("w" * 40)
        self._receiver.be(_WELL)
        url = f"http://127.0.0.1:{self._receiver.port}/"

        def make(connection: Connection, app: str) -> Webhook:
            app_id = apps.get(connection, app).id
            return webhooks.put(connection, app_id, name=_NAME, url=url)[0]

        for app in APPS:
            self._begun.append(arena.stage.database.run(partial(make, app=app)))

    def _be(self, arena: Arena, state: str) -> None:
        self._receiver.be(state)
        if state != _WELL:
            arena.fault(f"receiver {state}")

    def _is_caught_up(self, arena: Arena) -> bool:
        deadline = time.monotonic() + _CAUGHT_UP_SECONDS
        while time.monotonic() < deadline:
            (row,) = arena.stage.run(_WAITING)
            if not row["waiting"]:
                return True
            time.sleep(0.2)
        return False


def _signer(arena: Arena) -> Signer:
    settings = arena.stage.settings
    return Signer(CredentialStore(settings.credentials_directory), settings.webhook_secret)


def _unsigned(messages: Sequence[_Got], secret: str) -> Iterator[str]:
    for got in messages:
        try:
            verify_webhook(got.body, got.headers, secret, now=got.at)
        except InvalidWebhook as error:
            yield f"a message is not signed: {error}"
            return


def _out_of_order(app: str, messages: Sequence[_Got]) -> Iterator[str]:
    """Yield where a message comes before the one ahead of it was answered, or tells what is not after that one."""
    contents: dict[str, bytes] = {}
    last, before = "", Cursor(xid=0, id=0)
    is_answered = True
    for got in messages:
        message_id = got.headers["webhook-id"]
        cursors = [Cursor.parse(event["cursor"]) for event in json.loads(got.body)["events"]]
        if message_id != last:
            if not is_answered:
                yield f"{app} was told {message_id} before it had {last}"
            if cursors != sorted(cursors) or cursors[0] <= before:
                yield f"{app} was told {message_id} in another order, after {before}"
            last, before, is_answered = message_id, cursors[-1], False
        elif contents[message_id] != got.body:
            yield f"{app} was told {message_id} twice, with other entries"
        contents[message_id] = got.body
        is_answered = is_answered or got.is_answered


def _untold(arena: Arena, webhook: Webhook, messages: Sequence[_Got]) -> Iterator[str]:
    """Yield what happened and no answered message tells, or tells falsely."""
    events = [event for got in messages for event in json.loads(got.body)["events"]]
    notifications = {
        one["notification"]["id"]: one["notification"] for one in events if "notification" in one
    }
    given: dict[str, Any] = {"app_id": webhook.app_id, "created_at": webhook.created_at}
    given |= {"xid": webhook.told.xid, "id": webhook.told.id}
    told = {event["cursor"] for event in events}
    missing = [
        *(
            f"feedback {one}"
            for one in (str(Cursor(**row)) for row in arena.stage.run(_FEEDBACK, given))
            if one not in told
        ),
        *(
            f"the end of {row['id']}"
            for row in arena.stage.run(_FINISHED, given)
            if row["id"] not in notifications
        ),
    ]
    if missing:
        yield f"{webhook.app} was never told {len(missing)} things, as {', '.join(missing[:_EXAMPLES])}"
    if not notifications:
        yield f"{webhook.app} was told of no notification"
    for one in notifications.values():
        if sum(one["outcomes"].values()) != one["devices"]:
            yield f"{webhook.app} was told that {one['id']} finished with {one['outcomes']} of {one['devices']}"
