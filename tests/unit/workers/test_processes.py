"""Who owns a lease, and whether it certainly no longer exists."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from workers.processes import _birth, is_dead, machine, owner


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that waits until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def name_of(pid: int) -> str:
    """Name a process of this machine."""
    return f"{machine()}{pid}-{_birth(pid)}"


def test_this_process_lives() -> None:
    """Nobody's own leases are taken away."""
    assert owner().startswith(machine())
    assert not is_dead(owner())


def test_thread_of_this_process_lives() -> None:
    """Under a pool of threads each thread is an owner, and none of them is dead while the process is not."""
    assert not is_dead(f"{owner()}.12345")


def test_killed_process_is_dead_as_a_zombie_and_when_reaped(child: subprocess.Popen[bytes]) -> None:
    """A child that its parent has not waited for does no work any more."""
    name = name_of(child.pid)
    assert not is_dead(name)
    assert not is_dead(f"{name}.1")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(name)
    child.wait()
    assert is_dead(name)
    assert is_dead(f"{name}.1")


def test_reused_pid_is_another_process() -> None:
    """The same number with another birth is not the owner."""
    assert is_dead(f"{machine()}{os.getpid()}-1")


def test_pid_that_never_was_is_dead() -> None:
    """Beyond the kernel's largest pid there is nobody."""
    assert is_dead(f"{machine()}{2**22 + 1}-1")


@pytest.mark.parametrize("name", ["", "host/1/", "host/1/x-1", "host/1/-5", "somebody"])
def test_name_of_another_form_is_not_judged(name: str) -> None:
    """What is not understood is left to its lease."""
    assert not is_dead(name)


def test_machine_is_the_same_for_its_processes() -> None:
    """Two processes of one machine agree on its name, or they would never judge each other."""
    done = subprocess.run(
        [sys.executable, "-c", "from workers.processes import machine; print(machine())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == machine()
