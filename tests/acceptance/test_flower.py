import base64
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

from gateway.context import Running
from gateway.simulated import make_token
from registry.channels import Provider
from tests.acceptance.terminal import Terminal, wait_for

CHANNELS = {"android": Provider.FCM, "ios": Provider.APNS, "china": Provider.JPUSH}


def read(state: Running, path: str) -> Any:
    """Ask Flower's API."""
    word = base64.b64encode(f"{state.flower_user}:{state.flower_password}".encode()).decode()
    request = urllib.request.Request(f"{state.flower_url}{path}", headers={"authorization": f"Basic {word}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_flower_reads_well_and_never_shows_a_token(tmp_path: Path) -> None:
    """Tasks say notification, channel and positions; a device's token, its user's message and secrets stay out."""
    terminal = Terminal(tmp_path / "home")
    up = terminal.start("up", "--simulate")
    try:
        state = terminal.await_up(up)
        terminal.ask("send", "--app", "shop", "--user", "u7", "--title", "A private matter", "--wait")
        sent = terminal.ask("send", "--app", "shop", "--topic", "news", "--title", "Hello", "--wait")
        named = f"of notification {sent['notification']}"
        tasks = wait_for(lambda: finished(read(state, "/api/tasks"), named), what="the tasks in Flower")
        assert {task["name"] for task in tasks} == {"pushfan.deliver"}
        assert {task["kwargs"].partition(": ")[2] for task in tasks} == {
            f"2 positions {named}, channel {channel}" for channel in (1, 2, 3)
        }
        shown = json.dumps(read(state, "/api/tasks")) + json.dumps(read(state, "/api/workers"))
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(40)
    tokens = [make_token(provider, "up", "u7", name) for name, provider in CHANNELS.items()]
    secrets = [*tokens, state.simulators["jpush"]["master_secret"], "A private matter"]
    assert [secret for secret in secrets if secret in shown] == []


def finished(tasks: dict[str, Any], named: str) -> list[dict[str, Any]]:
    """The tasks of a notification, when all three of them have succeeded."""
    found = [task for task in tasks.values() if named in (task["kwargs"] or "")]
    return found if len(found) == 3 and all(task["state"] == "SUCCESS" for task in found) else []
