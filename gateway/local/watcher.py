"""Stop a local server when the process that started it is gone, however it ended.

Run as a script, isolated and alone: `python -I -S watcher.py PARENT PIDFD PID SIGNALS [LEFTOVER…]`. It ends
with the server. A process of its own, because Linux' parent-death signal follows the starting *thread*, is
lost when the user changes, and does not exist elsewhere.

PARENT    pid of the process to watch, which must be our own parent
PIDFD     inherited pidfd of the server, or -1 where the system has none
PID       pid of the server, used without a pidfd
SIGNALS   comma-separated numbers, sent one after the other until the server ends
LEFTOVER  directories to remove afterwards
"""

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

TICK_SECONDS = 0.2
GRACE_SECONDS = 10


def main(arguments: list[str]) -> None:
    """Watch until the server or the parent ends; an orphaned server is stopped and its leftovers removed."""
    parent, pidfd, pid = (int(argument) for argument in arguments[:3])
    signals = [int(number) for number in arguments[3].split(",")]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while os.getppid() == parent:
        if has_ended(pidfd, pid, TICK_SECONDS):
            return
    stop(pidfd, pid, signals)
    for leftover in arguments[4:]:
        shutil.rmtree(Path(leftover), ignore_errors=True)


def stop(pidfd: int, pid: int, signals: list[int]) -> None:
    """Send each signal in turn, with time to obey between them."""
    for number in signals:
        try:
            send(pidfd, pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if has_ended(pidfd, pid, TICK_SECONDS):
                return


def send(pidfd: int, pid: int, number: int) -> None:
    """Signal the server; through the pidfd it can never be a stranger that inherited its number."""
    if sys.platform == "linux" and pidfd >= 0:
        signal.pidfd_send_signal(pidfd, number)
    else:
        os.kill(pid, number)


def has_ended(pidfd: int, pid: int, wait_seconds: float) -> bool:
    """Wait a moment for the server to end; tell whether it did."""
    if pidfd >= 0:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(wait_seconds * 1000))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    time.sleep(wait_seconds)
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
