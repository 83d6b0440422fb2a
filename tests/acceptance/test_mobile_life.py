"""A mobile app's life, over HTTP alone, with a worker that really sends: from login to uninstalling."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from registry import apps, keys
from registry.database import Database
from tests.integration.http.house import serve, settings_for
from tests.integration.http.served import Served

if TYPE_CHECKING:
    from gateway.rehearsal import Pushfan

HELLO = {"title": "Hello"}


class Caller:
    """Calls the API: as the backend, or with a user's token as the phone does."""

    def __init__(self, client: Served, secret: str) -> None:
        self._client = client
        self._secret = secret

    def __call__(self, method: str, path: str, *, by: str | None = None, **body: Any) -> httpx.Response:
        """Call, and expect no refusal."""
        headers = {"authorization": f"Bearer {by or self._secret}"}
        content = {"json": body} if method in ("PUT", "POST") else {}
        answer = self._client.request(method, path, headers=headers, **content)
        assert answer.is_success, answer.text
        return answer

    def log_in(self, user: str) -> str:
        """Let the backend make a token for a user who has logged in."""
        token: str = self("POST", f"/v1/users/{user}/tokens").json()["token"]
        return token


@pytest.fixture
def call(pushfan: "Pushfan", tmp_path: Path) -> Iterator[Caller]:
    """Give the API, on the database of a worker that runs."""
    database = Database(pushfan.database_url)
    app_id = apps.get(database.connection(), pushfan.app).id
    roles, lanes = ("publish", "register"), ("urgent", "normal")
    secret = database.run(
        lambda connection: keys.create(connection, name="backend", app_id=app_id, roles=roles, lanes=lanes)
    )[1]
    with serve(settings_for(database.url, tmp_path)) as client:
        yield Caller(client, secret)
    database.close()


def arrived(pushfan: "Pushfan", token: str) -> int:
    """Count what a token has received, when everything has ended."""
    pushfan.wait()
    return len(pushfan.received(token=token))


def test_phone_is_installed_changes_hands_and_is_left(call: Caller, pushfan: "Pushfan") -> None:
    """Login, install, subscribe, receive, token refresh, a second user on the same phone, logout, uninstall."""
    call("PUT", "/v1/topics/app/news", admits="users")
    u7 = call.log_in("u7")
    call("PUT", "/v1/users/u7/devices/phone", by=u7, channel="fcm", token="token-1")
    call("PUT", "/v1/topics/app/news/subscribers/u7", by=u7)
    call("POST", "/v1/topics/app/news/messages", message=HELLO)
    assert arrived(pushfan, "token-1") == 1

    call("PUT", "/v1/users/u7/devices/phone", by=u7, channel="fcm", token="token-2")
    call("POST", "/v1/users/u7/messages", message=HELLO)
    assert (arrived(pushfan, "token-1"), arrived(pushfan, "token-2")) == (1, 1)

    u8 = call.log_in("u8")
    call("PUT", "/v1/users/u8/devices/phone", by=u8, channel="fcm", token="token-2")
    call("POST", "/v1/users/u7/messages", message=HELLO)
    call("POST", "/v1/topics/app/news/messages", message=HELLO)
    assert arrived(pushfan, "token-2") == 1
    call("POST", "/v1/users/u8/messages", message=HELLO)
    assert arrived(pushfan, "token-2") == 2

    call("DELETE", "/v1/users/u8/devices/phone", by=u8)
    call("POST", "/v1/users/u8/messages", message=HELLO)
    assert arrived(pushfan, "token-2") == 2
    call("DELETE", "/v1/topics/app/news/subscribers/u7", by=u7)
    assert call("GET", "/v1/topics/app/news/subscribers").json()["users"] == []
