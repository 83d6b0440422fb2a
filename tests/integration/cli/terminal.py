"""A terminal for the tests: runs command lines as a user would, in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from gateway.cli import cli

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that was printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines that were printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error object that was printed, after any warnings."""
        error = json.loads(self.err.splitlines()[-1])["error"]
        assert isinstance(error, dict)
        return error

    @property
    def paths(self) -> list[str]:
        """Where the problems of the error are."""
        return [problem["path"] for problem in self.error["problems"]]


class Terminal:
    """Runs `pushfan` with exactly these variables of its own. Everything that was printed is kept in `seen`."""

    def __init__(self, environ: Mapping[str, str | None]) -> None:
        self.environ = dict(environ)
        self.seen = ""

    def __call__(self, *arguments: object, stdin: str = "", **environ: str | None) -> Ended:
        """Run a command line in this process."""
        foreign = {name: None for name in os.environ if name.startswith("PUSHFAN_")}
        runner = CliRunner(env={**foreign, "NO_COLOR": None, **self.environ, **environ})
        result = runner.invoke(cli, [str(argument) for argument in arguments], input=stdin)
        self.seen += result.stdout + result.stderr
        return Ended(code=result.exit_code, out=result.stdout, err=result.stderr)

    def ok(self, *arguments: object, stdin: str = "", **environ: str | None) -> Ended:
        """Run a command line that must succeed."""
        ended = self(*arguments, stdin=stdin, **environ)
        assert ended.code == 0, ended.err + ended.out
        return ended

    def process(self, *arguments: object, code: str | None = None, timeout: float = 60) -> Ended:
        """Run a command line, or some Python, in a process of its own."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFAN_")}
        environ |= {name: value for name, value in self.environ.items() if value is not None}
        run = code or "from gateway.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", run, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environ,
            timeout=timeout,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)
