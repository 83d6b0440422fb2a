"""Names of processes as owners of leases: machine, process and its birth, so that a dead owner is known as dead.

    shop-worker-1/5f2c01d2/4711-8213377
    host name     machine  pid  start time

The machine's part is made of its boot and its process namespace: only who shares both may judge whether a pid
is alive.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

_PROC = Path("/proc")


def machine() -> str:
    """Name this boot and process namespace."""
    facts = (_read("sys/kernel/random/boot_id"), _link("self/ns/pid"), socket.gethostname())
    return f"{socket.gethostname()}/{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}/"


def owner() -> str:
    """Name this process."""
    return f"{machine()}{os.getpid()}-{_birth(os.getpid())}"


def is_dead(name: str) -> bool:
    """Tell whether an owner of this machine certainly no longer exists; a zombie does not.

    An owner that is a thread (its number follows the birth after a dot) is as alive as its process.
    """
    pid, _, birth = name.rpartition("/")[2].partition(".")[0].partition("-")
    if not pid.isdecimal():
        return False
    state = _state(int(pid))
    if state is None:
        return not _exists(int(pid))
    return state == "Z" or _birth(int(pid)) != birth


def _birth(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if fields else "0"


def _state(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[0] if fields else None


def _stat(pid: int) -> list[str]:
    """Read the fields after the command's name, which may itself contain spaces and brackets."""
    return _read(f"{pid}/stat").rpartition(")")[2].split()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text()
    except OSError:
        return ""


def _link(name: str) -> str:
    try:
        return str((_PROC / name).readlink())
    except OSError:
        return ""
