"""What people see on a terminal, and what programs get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from gateway.cli.output import aligned, shown, span
from tests.integration.cli.terminal import ROOT, Terminal

COLOR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")


def on_terminal(pushfan: Terminal, *arguments: str, **environ: str) -> str:
    """Run a command line whose output and errors are a terminal's."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PUSHFAN_", "NO_COLOR"))
    }
    kept |= {name: value for name, value in pushfan.environ.items() if value is not None}
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        env = {**kept, "TERM": "xterm-256color", "COLUMNS": "120", **environ}
        subprocess.run(command, stdout=theirs, stderr=theirs, stdin=theirs, env=env, cwd=ROOT, check=False)
        os.set_blocking(ours, False)
        os.close(theirs)
        return screen.read(65536).decode()


def test_colors_are_for_terminals_that_want_them(shop: Terminal) -> None:
    """A terminal gets colours, unless NO_COLOR says otherwise; a pipe never does."""
    shop.ok("channel", "open", "ios")
    for command in (("channel", "list"), ("channel", "open", "nope")):
        assert COLOR.search(on_terminal(shop, *command))
        assert not COLOR.search(on_terminal(shop, *command, NO_COLOR="1"))
        ended = shop(*command)
        assert "\x1b" not in ended.out + ended.err


def test_json_on_standard_output_is_nothing_but_json(shop: Terminal) -> None:
    """Notes and warnings go to standard error, and with --json they are objects, too."""
    ended = shop.ok("channel", "close", "ios", "--json")
    assert json.loads(ended.out)["channel"] == "ios"
    assert json.loads(ended.err) == {"warning": "the circuit of channel ios was closed already"}


def test_list_without_entries_says_so(pushfan: Terminal) -> None:
    """An empty list is no output for programs and a hint for people."""
    assert pushfan.ok("app", "list", "--json").out == ""
    ended = pushfan.ok("app", "list")
    assert (ended.out, "pushfan app add" in ended.err) == ("", True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),
        (0.25, "250 ms"),
        (59, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172800, "2 d"),
    ],
)
def test_durations_are_told_in_one_unit(seconds: float, text: str) -> None:
    """A duration is read at a glance."""
    assert span(seconds) == text


def test_columns_are_aligned_and_never_cut() -> None:
    """Where there is no terminal, long values stay whole."""
    long = "x" * 300
    assert list(aligned([["a", "b"], [long, "c"]])) == ["a" + " " * 301 + "b", f"{long}  c"]


def test_zero_counts_are_left_out_for_people() -> None:
    """Of eight outcomes only those that happened are shown."""
    assert shown({"accepted": 2, "rejected": 0, "dead": 1}) == "accepted 2, dead 1"
