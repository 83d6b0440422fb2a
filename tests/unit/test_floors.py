"""The house rules that a syntax tree can show: imports go down, SQL stays in .sql, functions stay small."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"events": 0, "providers": 1, "registry": 1, "workers": 2, "gateway": 3, "bench": 4}
# What events may import, and only where it publishes: a backend that validates events needs none of them.
LAZY_IN_EVENTS = {"kombu", "celery", "psycopg"}
# kombu loads it by its name when something is published.
LOADED_BY_KOMBU = Path("events/redis_transport.py")
UNKNOWN_TO_PROVIDERS = {"celery", "kombu", "psycopg", "psycopg_pool"}
WITHOUT_ENVIRONMENT = {"events", "providers"}
WITHOUT_SQL = {"providers", "registry", "workers", "gateway", "bench"}
SQL = re.compile(r"\s*(SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WITH)\s")
LONGEST_FUNCTION = 40  # lines from `def` to the end, not counting the docstring
MODULE_NAMES = {"utils", "util", "helpers", "common", "misc"}
CLASS_NAMES = re.compile(r"Manager|Helper|Service(?!Account)")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, by its full name, with where and when it is imported."""

    module: str
    line: int
    is_lazy: bool  # inside a function, or for type checkers only
    is_relative: bool


def violations(root: Path) -> list[str]:
    """Return every broken rule below `root` as `path:line: what is wrong`."""
    found = []
    for package in FLOORS:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root)
            tree = ast.parse(path.read_text(), filename=str(name))
            for line, problem in sorted(problems(name, tree)):
                found.append(f"{name}:{line}: {problem}")
    return found


def problems(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the sentence of every rule that one module breaks."""
    if path.stem in MODULE_NAMES:
        yield 1, f"{path.name} says nothing about what is in it"
    for imported in imports(path, tree):
        for problem in import_problems(path, imported):
            yield imported.line, problem
    yield from sql_problems(path, tree)
    yield from size_and_name_problems(tree)
    yield from environment_problems(path, tree)


def imports(path: Path, tree: ast.Module) -> Iterator[Import]:
    """Yield what a module imports, relative imports resolved."""
    package = path.parts[:-1]
    lazy = {id(node) for parent in ast.walk(tree) if is_lazy_block(parent) for node in ast.walk(parent)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = len(package) - node.level + 1 if node.level else 0
            base = [*package[: max(up, 0)], *([node.module] if node.module else [])]
            modules = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        is_relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for module in modules:
            yield Import(module=module, line=node.lineno, is_lazy=id(node) in lazy, is_relative=is_relative)


def is_lazy_block(node: ast.AST) -> bool:
    """Tell whether imports inside the node do not happen when the module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, Function)


def import_problems(path: Path, imported: Import) -> Iterator[str]:
    """Yield what is wrong with one import of the module at `path`."""
    package, target = path.parts[0], imported.module.split(".")[0]
    if target in FLOORS and target != package and FLOORS[target] >= FLOORS[package]:
        yield f"{package} must not import {target}, which is not below it"
    if package == "events":
        yield from import_problems_of_events(imported, target, is_late=path == LOADED_BY_KOMBU)
    if package == "providers" and target in UNKNOWN_TO_PROVIDERS:
        yield f"providers knows no {target}"
    is_simulator = path.parts[:2] == ("providers", "simulators")
    if is_simulator and target in FLOORS and not imported.module.startswith("providers.simulators"):
        yield f"a simulator must not import {imported.module}: a shared mistake would test itself green"


def import_problems_of_events(imported: Import, target: str, *, is_late: bool) -> Iterator[str]:
    """Yield what is wrong with an import in events, which must work under another name and without us."""
    if imported.is_relative:
        if target != "events":
            yield "a relative import leaves events"
        elif imported.module.startswith("events.redis_transport") and not imported.is_lazy:
            yield "only kombu loads redis_transport"
    elif target == "events":
        yield "events must import itself relatively, for it is also published as pushfan_events"
    elif target in LAZY_IN_EVENTS:
        if not imported.is_lazy and not is_late:
            yield f"events must import {target} inside the function that needs it"
    elif target not in sys.stdlib_module_names and target not in FLOORS:
        yield f"events must not depend on {target}"


def sql_problems(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the strings that are statements."""
    if path.parts[0] not in WITHOUT_SQL:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
            yield node.lineno, "SQL belongs into registry/queries/*.sql"


def size_and_name_problems(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield functions that are too long and classes whose name says nothing."""
    for node in ast.walk(tree):
        if isinstance(node, Function) and (lines := length(node)) > LONGEST_FUNCTION:
            yield node.lineno, f"{node.name} has {lines} lines, the most is {LONGEST_FUNCTION}"
        if isinstance(node, ast.ClassDef) and CLASS_NAMES.search(node.name):
            yield node.lineno, f"the name {node.name} does not say what it does"


def length(function: Function) -> int:
    """Return a function's lines without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def environment_problems(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield uses of environment variables on floors that are told everything by their callers."""
    if path.parts[0] not in WITHOUT_ENVIRONMENT or path.parts[:2] == ("providers", "simulators"):
        return
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in {"environ", "getenv"} and isinstance(node, ast.expr):
            yield node.lineno, f"{path.parts[0]} reads no environment variables"


def test_house_rules_are_kept() -> None:
    """Every module of the six packages keeps every rule."""
    assert violations(ROOT) == []


@pytest.mark.parametrize("package", FLOORS)
def test_every_floor_is_there(package: str) -> None:
    """The walk cannot pass because a package was moved away."""
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("registry/device.py", "from workers import plan", "registry must not import workers"),
        ("registry/device.py", "def f():\n    import gateway.cli", "registry must not import gateway"),
        ("registry/device.py", "import providers.fcm", "registry must not import providers"),
        ("providers/fcm.py", "from registry import device", "providers must not import registry"),
        (
            "workers/plan.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import gateway",
            "workers must",
        ),
        ("events/wire.py", "import registry", "events must not import registry"),
        ("events/wire.py", "from events.names import Lane", "events must import itself relatively"),
        ("events/wire.py", "from ..other import thing", "a relative import leaves events"),
        ("events/wire.py", "import kombu", "events must import kombu inside the function"),
        ("events/wire.py", "from .redis_transport import Channel", "only kombu loads redis_transport"),
        ("events/wire.py", "def f():\n    import orjson", "events must not depend on orjson"),
        ("events/wire.py", "import os\nX = os.environ['X']", "events reads no environment variables"),
        ("providers/fcm.py", "from celery import Celery", "providers knows no celery"),
        ("providers/fcm.py", "from os import getenv\nX = getenv('X')", "providers reads no environment"),
        ("providers/simulators/fcm.py", "from providers.fcm import X", "a simulator must not import"),
        ("providers/simulators/fcm.py", "from ..dialect import X", "a simulator must not import"),
        ("providers/simulators/fcm.py", "from events import Message", "a simulator must not import"),
        ("workers/plan.py", 'Q = "SELECT 1"', "SQL belongs into"),
        ("gateway/cli.py", 'Q = f"  UPDATE {table} SET x = 1"', "SQL belongs into"),
        ("registry/device.py", 'Q = """\nWITH due AS (TABLE x)"""', "SQL belongs into"),
        ("workers/plan.py", "def f():\n" + "    x = 1\n" * 40, "f has 41 lines"),
        ("workers/utils.py", "", "utils.py says nothing"),
        ("gateway/cli.py", "class ServerManager: ...", "the name ServerManager does not say"),
    ],
)
def test_broken_rule_is_found(tmp_path: Path, path: str, source: str, problem: str) -> None:
    """Each rule is able to fail: a tree with one broken rule yields exactly that sentence, with its place."""
    module = tmp_path / path
    module.parent.mkdir(parents=True)
    module.write_text(source)
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")
    assert problem in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("events/publisher.py", "from . import names\nfrom .wire import encode\ndef f():\n    import kombu"),
        ("events/redis_transport.py", "from kombu.transport import redis"),
        ("events/publisher.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import psycopg"),
        ("events/publisher.py", 'Q = "SELECT event_id FROM pushfan.take_in(%s::jsonb)"'),
        (
            "providers/simulators/fcm.py",
            "from .rules import Rule\nfrom providers.simulators.log import X\nimport h2",
        ),
        ("workers/plan.py", 'import events.wire\nX = "UPDATED"\nY = "WITHOUT a statement"'),
        ("gateway/cli.py", "from workers import app\nfrom registry import device\nimport providers, events"),
        ("workers/plan.py", 'def f():\n    """One.\n\n' + "    Two.\n" * 40 + '    """\n    return 1'),
        ("registry/device.py", "class ServiceAccount: ..."),
    ],
)
def test_kept_rule_is_left_alone(tmp_path: Path, path: str, source: str) -> None:
    """What the rules allow is not reported."""
    module = tmp_path / path
    module.parent.mkdir(parents=True)
    module.write_text(source)
    assert violations(tmp_path) == []
