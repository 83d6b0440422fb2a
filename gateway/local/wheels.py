"""Find a server's files inside an installed wheel without importing it."""

import importlib.util
from pathlib import Path

from gateway.local.errors import ExtraMissing


def find_package(package: str, distribution: str) -> Path:
    """Return the directory of an installed package; importing it could cost more than starting its server."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ExtraMissing(distribution)
    return Path(next(iter(spec.submodule_search_locations)))
