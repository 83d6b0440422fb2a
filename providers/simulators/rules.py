"""Rules: which tokens get which bad answer, how often and for how long. The first matching rule wins."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Any


class InvalidRules(ValueError):
    """The rules are wrong; `problems` names every mistake with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def share_of(token: str, seed: int, salt: str = "") -> float:
    """Return where a token falls in [0, 1): rules with a `share` above this number match it.

    Two rules with the same salt take nested shares: of 0.1 before 0.3, the second gets the next 20 %.
    """
    digest = blake2b(f"{seed}:{salt}:{token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(slots=True, kw_only=True)
class Rule:
    """One bad answer for some tokens. Counts its own hits, so it is not frozen.

    Exactly one of `tokens`, `token_prefix` and `share` selects. `first` limits the requests of each token,
    `total` those of all tokens together, `for_seconds` the time since the rule was added. `is_delivered`
    (`delivered` in JSON) writes a receipt although the answer is bad.
    """

    answer: str
    tokens: frozenset[str] | None = None
    token_prefix: str | None = None
    share: float | None = None
    salt: str = ""
    first: int | None = None
    total: int | None = None
    for_seconds: float | None = None
    retry_after: float | None = None
    invalidated_at: int | None = None
    ms: float = 0.0
    is_delivered: bool = False
    status: int = 500
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    error_code: int | None = None
    reason: str | None = None
    added_at: float = field(default_factory=time.monotonic)
    hits: int = 0
    hits_by_token: Counter[str] = field(default_factory=Counter)

    def applies(self, token: str, seed: int) -> bool:
        """Tell whether the rule selects this token (whatever its limits say)."""
        if self.tokens is not None:
            return token in self.tokens
        if self.token_prefix is not None:
            return token.startswith(self.token_prefix)
        return self.share is not None and share_of(token, seed, self.salt) < self.share

    def take(self, token: str) -> bool:
        """Count one request against the rule's limits; false when a limit is used up."""
        if self.for_seconds is not None and time.monotonic() - self.added_at > self.for_seconds:
            return False
        if self.total is not None and self.hits >= self.total:
            return False
        if self.first is not None:
            if self.hits_by_token[token] >= self.first:
                return False
            self.hits_by_token[token] += 1
        self.hits += 1
        return True

    def describe(self) -> dict[str, Any]:
        """Return the rule as the control API shows it; long token lists as a count."""
        shown = {
            "answer": self.answer,
            "tokens": None if self.tokens is None else len(self.tokens),
            "token_prefix": self.token_prefix,
            "share": self.share,
            "first": self.first,
            "total": self.total,
            "for_seconds": self.for_seconds,
            "hits": self.hits,
        }
        return {name: value for name, value in shown.items() if value is not None}


class RuleBook:
    """All rules of one simulator. Looks a token up in a table; only prefix and share rules are walked."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.is_empty = True
        self._order = count()
        self._by_token: dict[str, list[tuple[int, Rule]]] = {}
        self._general: list[tuple[int, Rule]] = []
        self._all: list[Rule] = []

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._all)

    def add(self, rules: Sequence[Rule]) -> None:
        """Append rules after those that are there."""
        for rule in rules:
            entry = (next(self._order), rule)
            self._all.append(rule)
            if rule.tokens is None:
                self._general.append(entry)
            for token in rule.tokens or ():
                self._by_token.setdefault(token, []).append(entry)
        self.is_empty = not self._all

    def clear(self) -> None:
        """Forget all rules: everything is accepted again."""
        self._by_token.clear()
        self._general.clear()
        self._all.clear()
        self.is_empty = True

    def match(self, token: str) -> Rule | None:
        """Return the first rule that selects the token and is not used up, and count the hit."""
        if self.is_empty:
            return None
        exact = self._by_token.get(token, ())
        general = [entry for entry in self._general if entry[1].applies(token, self.seed)]
        entries = sorted([*exact, *general], key=lambda entry: entry[0]) if general else exact
        return next((rule for _, rule in entries if rule.take(token)), None)


_REFUSED_STREAM = 7
_NUMBERS = ("for_seconds", "retry_after", "ms")
_COUNTS = ("first", "total", "invalidated_at", "status", "error_code")
_TEXTS = ("token_prefix", "salt", "reason")
_SELECTORS = ("tokens", "token_prefix", "share")
_KNOWN = {"answer", "body", "headers", "delivered", *_NUMBERS, *_COUNTS, *_TEXTS, *_SELECTORS}


def parse_rules(document: Any, answers: Collection[str]) -> list[Rule]:
    """Read rules from JSON (a rule or a list of them); raises `InvalidRules` with all problems at once."""
    items = document if isinstance(document, list) else [document]
    problems: list[str] = []
    for index, item in enumerate(items):
        problems += [f"rules[{index}]{problem}" for problem in _problems(item, answers)]
    if problems:
        raise InvalidRules(problems)
    return [_rule(item) for item in items]


def _problems(item: Any, answers: Collection[str]) -> Iterator[str]:
    if not isinstance(item, dict):
        yield ": must be an object"
        return
    yield from (f".{name}: unknown field" for name in sorted(item.keys() - _KNOWN))
    if not isinstance(item.get("answer"), str) or item["answer"] not in answers:
        yield f".answer: must be one of {', '.join(sorted(answers))}"
    if sum(item.get(name) is not None for name in _SELECTORS) != 1:
        yield f": needs exactly one of {', '.join(_SELECTORS)}"
    for name in _NUMBERS:
        if not _is_amount(item.get(name)):
            yield f".{name}: must be a number, not negative"
    for name in _COUNTS:
        if not _is_count(item.get(name)):
            yield f".{name}: must be an integer, not negative"
    yield from _shape_problems(item)


def _shape_problems(item: Mapping[str, Any]) -> Iterator[str]:
    for name in _TEXTS:
        if not isinstance(item.get(name, ""), str | None):
            yield f".{name}: must be a string"
    tokens = item.get("tokens")
    if tokens is not None and not (
        isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    ):
        yield ".tokens: must be a list of strings"
    share: Any = item.get("share")
    if not _is_amount(share) or (share is not None and share > 1):
        yield ".share: must be a number from 0 to 1"
    if not isinstance(item.get("delivered", False), bool):
        yield ".delivered: must be true or false"
    if isinstance(item.get("status"), int) and not 200 <= item["status"] <= 599:
        yield ".status: must be from 200 to 599"
    if item.get("delivered") and item.get("error_code") == _REFUSED_STREAM:
        yield ".error_code: REFUSED_STREAM says that nothing was delivered"
    headers = item.get("headers", {})
    if not (isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values())):
        yield ".headers: must be an object of strings"


def _is_amount(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _is_count(value: Any) -> bool:
    return _is_amount(value) and not isinstance(value, float)


def _rule(item: Mapping[str, Any]) -> Rule:
    values = {
        name: value
        for name, value in item.items()
        if value is not None and name not in {"tokens", "delivered"}
    }
    tokens = item.get("tokens")
    return Rule(
        tokens=None if tokens is None else frozenset(tokens),
        is_delivered=item.get("delivered", False),
        **values,
    )
