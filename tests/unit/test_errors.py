"""Celery hands a task's exception from the child to its parent: one that cannot be pickled takes its words along."""

import importlib
import inspect
import pickle
import pkgutil
from types import ModuleType

import pytest

import events
import providers
import registry
import workers

FLOORS = (events, providers, registry, workers)
# Arguments by the name of the parameter, where its kind says too little.
SAMPLES: dict[str, object] = {
    "cause": None,
    "sent": 3,
    "count": 3,
    "number": 3,
    "problems": {"order-812": {"title": "Conflict", "detail": "another event has this id"}},
    "taken_in": (),
}


def errors_of(floor: ModuleType) -> list[type[Exception]]:
    """List the exceptions that a floor defines."""
    found: set[type[Exception]] = set()
    for info in pkgutil.walk_packages(floor.__path__, f"{floor.__name__}."):
        if not info.name.startswith(("workers.celery_app", "providers.simulators")):
            module = importlib.import_module(info.name)
            found |= {
                member
                for member in vars(module).values()
                if inspect.isclass(member)
                and issubclass(member, Exception)
                and member.__module__ == info.name
            }
    return sorted(found, key=lambda it: it.__qualname__)


def raised(error: type[Exception]) -> Exception:
    """Make one as its module does."""
    parameters = inspect.signature(error.__init__).parameters.values()
    words = [
        SAMPLES.get(it.name, f"the {it.name}")
        for it in parameters
        if it.name != "self" and it.kind in (it.POSITIONAL_ONLY, it.POSITIONAL_OR_KEYWORD)
    ]
    named = {it.name: SAMPLES.get(it.name, it.name) for it in parameters if it.kind is it.KEYWORD_ONLY}
    return error(*words, **named)


@pytest.mark.parametrize(
    "error", [error for floor in FLOORS for error in errors_of(floor)], ids=lambda it: it.__name__
)
def test_error_survives_the_way_between_processes(error: type[Exception]) -> None:
    """With its words and what it carries."""
    sent = raised(error)
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is error
    assert str(received) == str(sent)
    assert vars(received) == vars(sent)
