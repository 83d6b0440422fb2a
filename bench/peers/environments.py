"""Throwaway environments: each peer with what it needs, in a directory that is removed afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .catalogue import Language, Peer

_PROGRAMS = Path(__file__).parent / "programs"
_INSTALL_SECONDS = 400
_LAST_LINES = 3


class NotInstalled(Exception):
    """A peer cannot be measured on this machine; the message says what is missing."""


class Environments:
    """Installs peers below a directory, each set of packages once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[tuple[str, ...], Path] = {}

    def command(self, peer: Peer) -> list[str]:
        """Return how the peer's program is run, installing what it needs first. Raises `NotInstalled`."""
        program = str(_PROGRAMS / peer.program)
        match peer.language:
            case Language.OURS:
                return [sys.executable, program]
            case Language.PYTHON:
                return [str(self._place(peer, _make_python) / "bin" / "python"), program]
            case Language.GO:
                return [str(self._place(peer, _make_go) / "peer")]
            case Language.NODE:
                place = self._place(peer, _make_node)
                shutil.copy(program, place)  # modules are looked for beside the program
                return ["node", str(place / peer.program)]

    def _place(self, peer: Peer, make: object) -> Path:
        key = (peer.language, *peer.packages)
        if key not in self._made:
            place = self._directory / f"{peer.language}-{len(self._made)}"
            place.mkdir(parents=True)
            assert callable(make)
            make(place, peer)
            self._made[key] = place
        return self._made[key]


def _make_python(place: Path, peer: Peer) -> None:
    venv.create(place, with_pip=True)
    _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.packages], place)


def _make_go(place: Path, peer: Peer) -> None:
    _need("go")
    shutil.copy(_PROGRAMS / peer.program, place / "main.go")
    # Modules and builds of a throwaway peer go with it, and Go leaves its module cache read-only unless told.
    environ = {"GOFLAGS": "-modcacherw", "GOCACHE": str(place / "cache"), "GOPATH": str(place / "path")}
    _run(["go", "mod", "init", "peer"], place, environ)
    _run(["go", "get", *peer.packages], place, environ)
    _run(["go", "build", "-o", "peer", "."], place, environ)


def _make_node(place: Path, peer: Peer) -> None:
    _need("node")
    _need("npm")
    _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *peer.packages], place)


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise NotInstalled(f"there is no {program} on this machine")


def _run(command: Sequence[str], place: Path, environ: Mapping[str, str] | None = None) -> None:
    try:
        subprocess.run(
            command,
            cwd=place,
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            check=True,
            timeout=_INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout).strip().splitlines()[-_LAST_LINES:])
        raise NotInstalled(f"{command[0]} could not install it: {said[:300]}") from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took longer than {_INSTALL_SECONDS} s") from error
