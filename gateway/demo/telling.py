"""Tell what goes on: a live board on a terminal, plain lines elsewhere, nothing where a program reads."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Self

import click

from .board import Scene, draw
from .post import Post
from .pulse import Pulse

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_REFRESHES_PER_SECOND: Final = 5


class Teller:
    """Says sentences, and shows a board below them. With `is_quiet` only a terminal's standard error sees anything."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._began = time.monotonic()
        self._is_quiet = is_quiet
        self._console: Console | None = None
        self._live: Live | None = None
        self._sentence = ""
        self._pulse: Pulse | None = None
        self._post: Post | None = None

    def __enter__(self) -> Self:
        stream = sys.stderr if self._is_quiet else sys.stdout
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._console = Console(stderr=self._is_quiet, highlight=False)
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def watch(self, pulse: Pulse, post: Post) -> None:
        """Show these on the board."""
        self._pulse, self._post = pulse, post

    def rest(self) -> None:
        """Take the board away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Say what happens now, with the time since the beginning."""
        self._sentence = text
        at = f"{time.monotonic() - self._began:5.1f} s"
        if self._console is not None:
            from rich.table import Table

            line = Table.grid(padding=(0, 2))
            line.add_row(f"[dim]{at}[/dim]", text.replace("[", r"\["))
            self._console.print(line)
        elif not self._is_quiet:
            click.echo(f"[{at}] {text}")

    def _draw(self) -> RenderableType:
        assert self._console is not None
        scene = Scene(
            sentence=self._sentence,
            seconds=time.monotonic() - self._began,
            vitals=self._pulse.latest if self._pulse else {},
            latencies_ms=self._post.probe_latencies_ms if self._post else (),
        )
        return draw(scene, self._console.width)
