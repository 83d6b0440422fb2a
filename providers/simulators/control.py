"""The control API: rules, counters, credentials and faults, as JSON over plain HTTP on the loopback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from .exchange import Decision, Request
from .rules import InvalidRules, parse_rules
from .stage import ControlError, Stage, Vendor

Route = Callable[[Any], Any]


class Disturbable(Protocol):
    """What the control API asks of a listener."""

    answers_missing: frozenset[str]

    def disturb(self, action: str, values: dict[str, Any]) -> int:
        """Do something to all open connections; return to how many."""


class Control:
    """Routes of the control API for one simulator.

    GET /            routes, engine and the answers that rules may give
    GET /stats       requests by answer, receipts, rules
    GET POST DELETE /rules
    POST /flush      the receipts file is complete when this answers
    POST /credentials  {"valid": false} refuses everybody; {"expire": true}, {"rotate": true}
    POST /tokens     {"add": [...], "remove": [...], "environment": "sandbox"}: only these are known then
    DELETE /tokens   every well-formed token is known
    POST /latency    {"ms": 20}
    POST /clock      {"advance_seconds": 3600}: the vendor's clock, for expiry
    POST /connections  {"action": "goaway"|"reset"|"blackhole"|"settings", ...} (fault engine)
    POST /<other>    what the vendor alone knows (quota, report)
    """

    def __init__(self, vendor: Vendor, stage: Stage, listeners: list[Disturbable]) -> None:
        self._vendor = vendor
        self._stage = stage
        self._listeners = listeners
        missing = frozenset[str]().union(*(listener.answers_missing for listener in listeners))
        self.answers = vendor.answers - missing
        self._missing = vendor.answers & missing
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/"): self._index,
            ("GET", "/stats"): self._stats,
            ("GET", "/rules"): lambda _: [rule.describe() for rule in stage.rules],
            ("POST", "/rules"): self._add_rules,
            ("DELETE", "/rules"): self._clear_rules,
            ("POST", "/flush"): self._flush,
            ("POST", "/credentials"): self._credentials,
            ("POST", "/tokens"): self._tokens,
            ("DELETE", "/tokens"): self._forget_tokens,
            ("POST", "/latency"): self._latency,
            ("POST", "/clock"): self._clock,
            ("POST", "/connections"): self._disturb,
        }

    def handle(self, request: Request) -> Decision:
        """Answer a control request: 200 with JSON, 400 with `problems`, or 404."""
        try:
            values = orjson.loads(request.body) if request.body else {}
            route = self._routes.get((request.method, request.path))
            if route is not None:
                return _answer(200, route(values))
            if request.method == "POST" and isinstance(values, dict):
                return _answer(200, self._vendor.control(request.path.strip("/"), values))
        except InvalidRules as error:
            return _answer(400, {"problems": list(error.problems)})
        except (ControlError, AttributeError, KeyError, TypeError, ValueError) as error:
            return _answer(400, {"problems": [str(error)]})
        return _answer(404, {"problems": [f"no such route: {request.method} {request.path}"]})

    def _index(self, _: Any) -> dict[str, Any]:
        routes = [f"{method} {path}" for method, path in self._routes]
        return {"name": self._vendor.name, "routes": routes, "answers": sorted(self.answers)}

    def _stats(self, _: Any) -> dict[str, Any]:
        tally = dict(self._stage.tally)
        return {
            "answers": tally,
            "receipts": self._stage.receipts.count,
            "rules": len(list(self._stage.rules)),
        }

    def _add_rules(self, values: Any) -> dict[str, Any]:
        try:
            rules = parse_rules(values, self.answers)
        except InvalidRules as error:
            hint = f"answers that need --engine fault: {', '.join(sorted(self._missing))}"
            raise InvalidRules([*error.problems, hint] if self._missing else error.problems) from error
        self._stage.rules.add(rules)
        return {"added": len(rules)}

    def _clear_rules(self, _: Any) -> dict[str, Any]:
        self._stage.rules.clear()
        return {}

    def _flush(self, _: Any) -> dict[str, Any]:
        self._stage.receipts.flush()
        return {"receipts": self._stage.receipts.count}

    def _credentials(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if "valid" in values:
            self._stage.are_credentials_valid = bool(values["valid"])
        return {"valid": self._stage.are_credentials_valid, **self._vendor.control("credentials", values)}

    def _tokens(self, values: Mapping[str, Any]) -> dict[str, Any]:
        known = self._stage.known if self._stage.known is not None else {}
        environment = str(values.get("environment", ""))
        known.update(dict.fromkeys(values.get("add", []), environment))
        for token in values.get("remove", []):
            known.pop(token, None)
        self._stage.known = known
        return {"known": len(known)}

    def _forget_tokens(self, _: Any) -> dict[str, Any]:
        self._stage.known = None
        return {}

    def _latency(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self._stage.latency_seconds = float(values.get("ms", 0)) / 1000
        return {"ms": self._stage.latency_seconds * 1000}

    def _clock(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self._stage.clock.advance_seconds += float(values.get("advance_seconds", 0))
        return {"now": self._stage.clock.now()}

    def _disturb(self, values: dict[str, Any]) -> dict[str, Any]:
        action = str(values.get("action"))
        return {"connections": sum(listener.disturb(action, values) for listener in self._listeners)}


def _answer(status: int, content: Any) -> Decision:
    return Decision(status, [("content-type", "application/json")], orjson.dumps(content))
