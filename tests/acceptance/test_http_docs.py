"""The examples of docs/http.md and docs/kii.md, run as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from events import Change
from gateway.cli import cli
from gateway.http.application import create_fastapi, describe
from gateway.http.metrics import Metrics
from gateway.http.problem import KINDS
from tests.acceptance.terminal import Terminal, processes_with
from workers.settings import load_settings

PAGES = Path(__file__).resolve().parents[2] / "docs"
DOCS = (PAGES / "http.md").read_text(encoding="utf-8")
KII = (PAGES / "kii.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", DOCS + KII, re.MULTILINE | re.DOTALL)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal with a home of its own; whatever was started in it is ended."""
    terminal = Terminal(tmp_path / "home")
    yield terminal
    for pid in processes_with(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


def test_every_problem_is_documented_as_it_is() -> None:
    """The table of refusals is that of the code."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \| (yes|no) \|$", DOCS, re.MULTILINE)
    assert rows == [(name, str(kind.status), "yes" if kind.helps else "no") for name, kind in KINDS.items()]


def test_every_change_and_call_of_the_mapping_is_ours() -> None:
    """What docs/kii.md names is there: paths of the API, changes, commands."""
    app = create_fastapi(load_settings({}, database_url="postgresql://none"), Metrics())
    paths = {re.sub(r"\{\w+\}", "{}", path) for path in describe(app)["paths"]}
    for path in re.findall(r"(?:GET|PUT|POST|DELETE) (/v1/[^`?]*)", KII):
        assert re.sub(r"\{\w+\}", "{}", path.replace("thing:", "")) in paths, path
    assert re.findall(r"^\| `DATA_OBJECT_\w+` \| `(\w+)` \|$", KII, re.MULTILINE) == [
        one.value for one in Change
    ]
    for first, second in re.findall(r"`pushfan (\w+) ([a-z]\w*)", KII):
        assert second in cli.commands[first].commands, (first, second)  # type: ignore[attr-defined]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are written for curl")
def test_examples_work_as_they_are_written(terminal: Terminal) -> None:
    """Against `pushfan up`, in their order, none is refused."""
    up = terminal.start("up", "--simulate")
    state = terminal.await_up(up)
    key = terminal.ask("key", "create", "docs", "--app", "shop", "--role", "publish", "--role", "register")
    assert state.api_url
    environ = {**terminal.environ, "API": state.api_url, "KEY": key["secret"]}
    said = ""
    for example in EXAMPLES:
        done = subprocess.run(
            ["bash", "-euc", example], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, example + done.stdout + done.stderr
        said += done.stdout
    assert len(EXAMPLES) > 12
    assert '"status":"taken_in"' in said
    assert '"event_id":"order-812-shipped"' in said
    assert '"subscriptions":0,"groups":0,"targets":0' in said
    assert '"id":"door-open-1","status":"taken_in"' in said
    up.send_signal(signal.SIGTERM)
    assert up.wait(40) == 0
