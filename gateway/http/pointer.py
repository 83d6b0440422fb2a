"""JSON pointers (RFC 6901) from the dotted paths by which the floors below name what is wrong.

A dotted path alone cannot be read back: a key may contain dots. The document says which keys there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from events.validation import join


def pointer(*steps: object) -> str:
    """Write a pointer from its steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def locate(document: object, path: str) -> str:
    """Find the pointer that a dotted path means in a document; what is missing there is one step."""
    steps: list[str] = []
    while path:
        step, rest = _step(document, path)
        steps.append(step)
        document, path = _member(document, step), rest
    return pointer(*steps)


def _step(document: object, path: str) -> tuple[str, str]:
    """Take the longest key that begins the path. Paths show keys shortened and cleaned, see `join`."""
    if isinstance(document, Mapping):
        shown = {join("", key): str(key) for key in document}
        for name in sorted(shown, key=len, reverse=True):
            if path == name or path.startswith(f"{name}."):
                return shown[name], path[len(name) + 1 :]
    first, _, rest = path.partition(".")
    return first, rest


def _member(document: object, step: str) -> Any:
    if isinstance(document, Mapping):
        return document.get(step)
    if isinstance(document, Sequence) and not isinstance(document, str) and step.isdecimal():
        return document[int(step)] if int(step) < len(document) else None
    return None
