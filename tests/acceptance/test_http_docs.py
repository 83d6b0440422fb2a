"""The examples of docs/http.md, run as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.http.problem import KINDS
from tests.acceptance.terminal import Terminal, processes_with

DOCS = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


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
    assert len(EXAMPLES) > 7
    assert '"status":"taken_in"' in said
    assert '"event_id":"order-812-shipped"' in said
    up.send_signal(signal.SIGTERM)
    assert up.wait(40) == 0
