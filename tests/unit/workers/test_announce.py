"""What is asked of Celery: work for now. Waiting is for the database."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LATER = {"eta", "countdown", "autoretry_for", "retry_backoff"}


def delays(source: str) -> Iterator[str]:
    """Yield what asks Celery to wait or to try again by itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in LATER:
            yield node.arg
        elif isinstance(node, ast.Dict):
            yield from (
                key.value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in LATER and not is_none(value)
            )
        elif isinstance(node, ast.Attribute) and node.attr == "retry" and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.retry"


def is_none(node: ast.expr) -> bool:
    """Tell whether a value is the word None: Celery's headers say so of what is not asked for."""
    return isinstance(node, ast.Constant) and node.value is None


def test_nothing_is_announced_for_later() -> None:
    """A message that waits in a Redis broker longer than its visibility time-out runs many times."""
    paths = [path for floor in ("events", "workers") for path in (ROOT / floor).rglob("*.py")]
    assert {
        str(path.relative_to(ROOT)): found for path in paths if (found := [*delays(path.read_text())])
    } == {}


def test_a_delay_would_be_found() -> None:
    """In each of the ways in which Celery is told to wait."""
    source = "task.apply_async(countdown=3)\napp.send_task('x', **{'eta': now})\nself.retry()"
    assert sorted(delays(source)) == ["countdown", "eta", "self.retry"]
