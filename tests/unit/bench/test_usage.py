import os
import subprocess
import sys

from bench.usage import cpu_seconds, resident_bytes

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


def test_descendants_and_ended_children_are_counted() -> None:
    """CPU of a child counts while it runs and after it was waited for: nothing that a group spent is lost."""
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert cpu_seconds([os.getpid()]) - before >= 0.25  # the kernel counts in ticks


def test_each_process_of_a_group_is_listed() -> None:
    """A child with a session of its own is still of the group, as PostgreSQL's backends are."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as child:
        assert len(resident_bytes([os.getpid()])) >= 2
        assert len(resident_bytes([child.pid])) == 1
        child.communicate(b"\n")
