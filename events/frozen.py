"""Read-only JSON values, so that one event can be shared by everything that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

Value = TypeVar("Value")


class FrozenDict(dict[str, Value]):
    """Hold a mapping that can be compared, hashed, pickled and serialised like a `dict`, but not changed.

    A plain `dict` in a frozen dataclass could be changed by one reader under the eyes of the others;
    `MappingProxyType` cannot be hashed, pickled or written as JSON. `dict(frozen)` is a copy to change.
    """

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError("events are read-only; copy the mapping with dict(…) to change it")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict is unhashable because it can change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict[Value]], tuple[dict[str, Value]]]:
        return type(self), (dict(self),)

    def __copy__(self) -> FrozenDict[Value]:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> FrozenDict[Value]:
        return self


def thaw(value: object) -> Any:
    """Copy a frozen value into plain `dict`s and `list`s, as JSON libraries return them."""
    if isinstance(value, Mapping):
        return {key: thaw(member) for key, member in value.items()}
    if isinstance(value, tuple):
        return [thaw(member) for member in value]
    return value
