"""Read-only mappings."""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from events.frozen import FrozenDict, thaw


@pytest.mark.parametrize(
    "change",
    [
        lambda frozen: frozen.__setitem__("b", 2),
        lambda frozen: frozen.__delitem__("a"),
        lambda frozen: frozen.__ior__({"b": 2}),
        lambda frozen: frozen.clear(),
        lambda frozen: frozen.pop("a"),
        lambda frozen: frozen.popitem(),
        lambda frozen: frozen.setdefault("b", 2),
        lambda frozen: frozen.update(b=2),
    ],
)
def test_frozen_dict_refuses_every_change(change: Callable[[Any], object]) -> None:
    """An event that many readers share cannot change under the eyes of one."""
    frozen = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match="read-only"):
        change(frozen)
    assert frozen == {"a": 1}


def test_frozen_dict_compares_hashes_and_serialises_like_its_content() -> None:
    """Equal content means equal objects, whatever the order of insertion."""
    one = FrozenDict({"a": 1, "b": FrozenDict({"c": (1, 2)})})
    other = FrozenDict({"b": FrozenDict({"c": (1, 2)}), "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert json.loads(json.dumps(one)) == {"a": 1, "b": {"c": [1, 2]}}


def test_frozen_dict_survives_copy_and_pickle() -> None:
    """Events travel between processes, and a copy of what cannot change is the thing itself."""
    frozen = FrozenDict({"a": FrozenDict({"b": 1})})
    assert copy.deepcopy(frozen) is frozen
    assert copy.copy(frozen) is frozen
    revived = pickle.loads(pickle.dumps(frozen))
    assert revived == frozen
    assert type(revived["a"]) is FrozenDict


def test_thawed_value_is_plain_and_independent() -> None:
    """Who wants to change a section gets dictionaries and lists of its own."""
    thawed = thaw(FrozenDict({"a": (FrozenDict({"b": None}), 2)}))
    assert thawed == {"a": [{"b": None}, 2]}
    assert (type(thawed), type(thawed["a"]), type(thawed["a"][0])) == (dict, list, dict)
