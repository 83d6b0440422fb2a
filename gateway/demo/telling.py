"""Tell what goes on: a moving line on a terminal, plain lines elsewhere, nothing where a program reads."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


class Teller:
    """Says sentences, and counts. With `is_quiet` only a terminal's standard error gets to see anything."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._began = time.monotonic()
        self._is_quiet = is_quiet
        self._console: Console | None = None
        self._status: Status | None = None
        self._sentence = ""

    def __enter__(self) -> Self:
        stream = sys.stderr if self._is_quiet else sys.stdout
        if stream.isatty():
            from rich.console import Console

            self._console = Console(stderr=self._is_quiet, highlight=False)
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """End the moving line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        """Say what happens now, with the time since the beginning."""
        self._sentence = text
        line = f"[{time.monotonic() - self._began:5.1f} s] {text}"
        if self._console is not None:
            self._console.print(line, markup=False)
        elif not self._is_quiet:
            click.echo(line)

    def count(self, ended: int) -> None:
        """Show how many deliveries have ended."""
        if self._status is not None:
            self._status.update(f"{ended:,} deliveries")
