"""Ends child processes when the process that started them is gone, however it ended.

Run as a script, isolated and alone: `python -I -S tether.py [LEFTOVER…]`, with a pipe from its parent as
standard input. A line `+123` adds the process group 123, `-123` lets go of it. When the pipe ends, the groups that
are left are ended and the LEFTOVER directories removed.

A process of its own, because Linux' parent-death signal follows the starting thread, reaches one process and
not its children, and does not exist elsewhere. The end of a pipe has none of these faults.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

TICK_SECONDS = 0.05
GRACE_SECONDS = 5.0
REMOVAL_SECONDS = 30.0


def main(leftovers: list[str]) -> None:
    """Hold groups until the pipe ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    end(groups)
    for leftover in leftovers:
        remove(Path(leftover))


def end(groups: set[int]) -> None:
    """Ask the groups to end, and after a while do not ask."""
    left = {group for group in groups if send(group, signal.SIGTERM)}
    deadline = time.monotonic() + GRACE_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
        left = {group for group in left if send(group, 0)}
    for group in left:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a group; tell whether there is any process in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(directory: Path) -> None:
    """Remove a directory, again while a server that is on its way out still writes to it."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
