"""JPush REST v3: push, validate, cid, batch single push, and the report API's message status.

Facts: https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push ,
https://docs.jiguang.cn/en/jpush/server/push/rest_api_v3_push_advanced ,
https://docs.jiguang.cn/jpush/server/push/http_status_code .
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import orjson

from .authority import read_json, write_json
from .exchange import Decision, HeaderList, Request
from .jpush_message import ID_FORM, Refused, check_push, notification_in
from .jpush_reports import Reports
from .quota import MinuteWindow
from .rules import Rule
from .stage import TRANSPORT_ANSWERS, ControlError, Stage, follow, retry_after_header

CID_LIFE_SECONDS = 86_400
MAX_CIDS = 1000
MAX_BATCH = 1000
_JSON: HeaderList = [("content-type", "application/json; charset=utf-8")]

# Answer -> HTTP status, code, message. https://docs.jiguang.cn/jpush/server/push/rest_api_v3_push
_REFUSALS: Mapping[str, tuple[int, int, str]] = {
    "internal": (500, 1000, "Server response failed, please try again later."),
    "payload": (400, 1005, "The message body is too large."),
    "credentials": (401, 1004, "Authen failed."),
    "bad_app_key": (400, 1008, "app_key is invalid."),
    "bad_token": (400, 1003, "registration_id is invalid."),
    "missing": (400, 1002, "Missing parameter."),
    "no_target": (400, 1011, "cannot find user by this audience or has been inactive for more than 255 days"),
    "unavailable": (503, 1030, "Internal service timeout, please try again later."),
    "throttled": (429, 2002, "Request times of the app_key exceed the limit of current time window"),
    "blacklisted": (403, 2003, "The app_key is not allowed to call this API."),
    "bad_address": (403, 2004, "The source address is not on the list of allowed ones."),
    "volume": (403, 2005, "The volume of pushes is beyond reason."),
    "not_allowed": (403, 2007, "No right to call this API."),
}
# JPush's own codes are answers of rules as well.
_BY_CODE = {str(code): name for name, (_, code, _) in _REFUSALS.items()}
# Rules by which one id gets lost in a push to many.
_UNKNOWN = frozenset({"unknown", "unregistered", "mismatch", "topic_mismatch"})
_STATUSES = {"not_delivered": 1, "status_error": 4}
_SPECIAL = {"bad_gateway_html", *_UNKNOWN, *_STATUSES}


@dataclass(slots=True)
class _Memo:
    """The first success under a cid, and when it is forgotten."""

    body: bytes
    expires_at: float


@dataclass(slots=True)
class _Selection:
    """What becomes of the ids of one push; `spoiler` is the rule that decides the whole request."""

    targets: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    silent: dict[str, int] = field(default_factory=dict)
    spoiler: Rule | None = None


class JPush:
    """The decisions of JPush for one app. Used on one loop only."""

    name = "jpush"
    answers = frozenset({*TRANSPORT_ANSWERS, *_REFUSALS, *_SPECIAL, *_BY_CODE})

    def __init__(self, stage: Stage, *, per_minute: int, report_delay_seconds: float = 0) -> None:
        self.stage = stage
        self.window = MinuteWindow(stage.clock, per_minute)
        self.reports = Reports(stage.clock, report_delay_seconds)
        self._state_file = stage.state_dir / "jpush.credentials.json"
        self._state = read_json(self._state_file) or _new_state()
        self._numbers = count(time.time_ns() // 1000)
        self._memos: dict[str, _Memo] = {}
        self._routes: dict[str, tuple[str, Callable[[Request], Decision]]] = {
            "/v3/push": ("POST", self._push),
            "/v3/push/validate": ("POST", self._validate),
            "/v3/push/cid": ("GET", self._cids),
            "/v3/push/batch/regid/single": ("POST", self._batch),
            "/v3/status/message": ("POST", self._status),
        }
        write_json(self._state_file, self._state)
        self._remember_earlier_runs()

    def handle(self, request: Request) -> Decision:
        """Answer one call of the push or the report API."""
        method, answer = self._routes.get(request.path, (None, None))
        if answer is None:
            return self._count("not_found", Decision(404, _JSON, b""))
        if request.method != method:
            return self._count("1001", _error(405, 1001, "Only support HTTP Post Method."))
        refusal = self._check_authorization(request.headers.get("authorization") or "")
        if refusal is not None:
            return refusal
        if not self.window.take():
            decision = self._refuse("throttled")
        else:
            try:
                decision = answer(request)
            except Refused as error:
                decision = self._count(str(error.code), _error(400, error.code, str(error)))
        decision.headers = [*decision.headers, *self.window.headers()]
        return decision

    def ready_info(self) -> dict[str, Any]:
        """Return the credentials and the report API's address (the same process)."""
        return {
            "app_key": self._state["app_key"], "master_secret": self._state["master_secret"],
            "report_url": self.stage.url,
        }  # fmt: skip

    def control(self, subject: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """`quota`, `report` (delay_seconds) and `credentials` (rotate the master secret)."""
        if subject == "quota":
            self.window.quota = int(values.get("per_minute", self.window.quota))
            return {"per_minute": self.window.quota}
        if subject == "report":
            self.reports.delay_seconds = float(values.get("delay_seconds", self.reports.delay_seconds))
            return {"delay_seconds": self.reports.delay_seconds}
        if subject == "credentials":
            if values.get("rotate"):
                self._state["master_secret"] = secrets.token_hex(12)
                write_json(self._state_file, self._state)
            return {"master_secret": self._state["master_secret"]}
        raise ControlError(f"jpush knows nothing about {subject}")

    def _push(self, request: Request) -> Decision:
        push = _read(request.body)
        cid = check_push(push, self._state["app_key"])
        memo = self._memo(cid)
        if memo is not None:
            return self._count("repeated", Decision(200, _JSON, memo.body))
        return self._deliver(push, cid)

    def _validate(self, request: Request) -> Decision:
        push = _read(request.body)
        check_push(push, self._state["app_key"])
        return self._count("validated", Decision(200, _JSON, _success(push, "0")))

    def _deliver(self, push: Mapping[str, Any], cid: str | None) -> Decision:
        audience = push["audience"]
        # Whom a broadcast, a tag or an alias reaches is not simulated: a broadcast is one receipt of `*`.
        ids = ["*"] if audience == "all" else audience.get("registration_id", [])
        selection = self._select(ids)
        if not selection.targets:
            return self._refuse("no_target")
        if selection.spoiler is None:
            return self._accept(push, cid, selection, is_answered=True)
        return follow(
            selection.spoiler,
            lambda is_answered: self._accept(push, cid, selection, is_answered=is_answered),
            self._refuse_by_rule,
        )

    def _accept(
        self, push: Mapping[str, Any], cid: str | None, selection: _Selection, *, is_answered: bool
    ) -> Decision:
        message_id = str(next(self._numbers))
        self.stage.tally["accepted"] += 1
        notification = notification_in(push)
        at = time.time()
        for token in selection.targets:
            self.stage.receipts.add({
                "at": at, "provider": "jpush", "token": token, "notification": notification,
                "msg_id": message_id, "answered": is_answered, "request_id": cid,
            })  # fmt: skip
        self.reports.add(message_id, selection.targets, selection.unknown, selection.silent)
        body = _success(push, message_id)
        if cid is not None:
            self._memos[cid] = _Memo(body, self.stage.clock.now() + CID_LIFE_SECONDS)
        return Decision(200, _JSON, body, receipts=len(selection.targets))

    def _select(self, ids: Sequence[str]) -> _Selection:
        """Sort the ids of a push: those it cannot find are dropped without a word."""
        stage, selection = self.stage, _Selection()
        for token in dict.fromkeys(ids):
            rule = None if stage.rules.is_empty else stage.rules.match(token)
            if not stage.knows(token) or (rule is not None and rule.answer in _UNKNOWN):
                selection.unknown.append(token)
                stage.tally["unknown"] += 1
                continue
            selection.targets.append(token)
            if rule is None:
                continue
            stage.tally[rule.answer] += 1
            if rule.answer in _STATUSES:
                selection.silent[token] = _STATUSES[rule.answer]
            else:
                selection.spoiler = selection.spoiler or rule
        return selection

    def _cids(self, request: Request) -> Decision:
        query = parse_qs(request.query)
        wanted = "".join(query.get("count", ["1"]))
        if not re.fullmatch(r"[0-9]{1,9}", wanted) or not 1 <= int(wanted) <= MAX_CIDS:
            raise Refused(1003, f"count must be from 1 to {MAX_CIDS}")
        if query.get("type", ["push"]) not in (["push"], ["schedule"]):
            raise Refused(1003, "type must be push or schedule")
        cids = [f"{self._state['app_key']}-{uuid4()}" for _ in range(int(wanted))]
        return self._count("cid", Decision(200, _JSON, orjson.dumps({"cidlist": cids})))

    def _batch(self, request: Request) -> Decision:
        content = _read(request.body)
        entries = content.get("pushlist")
        if not isinstance(entries, dict) or not entries:
            raise Refused(1002, "pushlist is missing")
        if len(entries) > MAX_BATCH:
            raise Refused(1003, f"pushlist has more than {MAX_BATCH} entries")
        return Decision(
            200, _JSON, orjson.dumps({cid: self._single(cid, entry) for cid, entry in entries.items()})
        )

    def _single(self, cid: str, entry: Any) -> Any:
        """Deliver one entry of a batch, and return its own answer."""
        try:
            if not isinstance(entry, dict) or not isinstance(entry.get("target"), str):
                raise Refused(1002, "target is missing")
            target = entry["target"]
            push = {name: value for name, value in entry.items() if name != "target"}
            push |= {"audience": {"registration_id": [target]}, "cid": cid}
            check_push(push, self._state["app_key"])
        except Refused as error:
            self.stage.tally[str(error.code)] += 1
            return {"error": {"code": error.code, "message": str(error)}}
        memo = self._memo(cid)
        decision = Decision(200, _JSON, memo.body) if memo else self._deliver(push, cid)
        return orjson.loads(decision.body or b"{}")

    def _status(self, request: Request) -> Decision:
        content = _read(request.body)
        ids = content.get("registration_ids")
        if not isinstance(ids, list) or not ids or not all(isinstance(token, str) for token in ids):
            raise Refused(1003, "registration_ids must be a list of strings")
        if len(ids) > 1000:
            raise Refused(1003, "more than 1000 registration_ids")
        statuses = self.reports.statuses(str(content.get("msg_id")), ids, self._is_of_this_app)
        if statuses is None:
            raise Refused(1003, "msg_id is invalid")
        answer = {token: {"status": status} for token, status in statuses.items()}
        return self._count("status", Decision(200, _JSON, orjson.dumps(answer)))

    def _is_of_this_app(self, token: str) -> bool:
        return bool(ID_FORM.fullmatch(token)) and self.stage.knows(token)

    def _memo(self, cid: str | None) -> _Memo | None:
        memo = self._memos.get(cid) if cid is not None else None
        return memo if memo is not None and self.stage.clock.now() < memo.expires_at else None

    def _check_authorization(self, authorization: str) -> Decision | None:
        kind, _, encoded = authorization.partition(" ")
        try:
            app_key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            app_key = secret = ""
        if kind.lower() != "basic" or not app_key or not self.stage.are_credentials_valid:
            return self._refuse("credentials")
        if app_key != self._state["app_key"]:
            return self._refuse("bad_app_key")
        return (
            None
            if secrets.compare_digest(secret.encode(), self._state["master_secret"].encode())
            else self._refuse("credentials")
        )

    def _remember_earlier_runs(self) -> None:
        """Rebuild memos and reports from the receipts, so that a restart pushes nothing twice."""
        by_message: dict[str, list[str]] = {}
        for receipt in self.stage.receipts.read():
            by_message.setdefault(receipt["msg_id"], []).append(receipt["token"])
            if receipt["request_id"] is not None and receipt["request_id"] not in self._memos:
                body = _success({}, receipt["msg_id"])
                self._memos[receipt["request_id"]] = _Memo(body, receipt["at"] + CID_LIFE_SECONDS)
        for message_id, tokens in by_message.items():
            self.reports.add(message_id, tokens, [], {})

    def _refuse_by_rule(self, rule: Rule) -> Decision:
        decision = _refusal(_BY_CODE.get(rule.answer, rule.answer))
        decision.headers = [*decision.headers, *retry_after_header(rule)]
        return decision

    def _refuse(self, answer: str) -> Decision:
        return self._count(answer, _refusal(answer))

    def _count(self, answer: str, decision: Decision) -> Decision:
        self.stage.tally[answer] += 1
        return decision


def _new_state() -> dict[str, Any]:
    return {"app_key": secrets.token_hex(12), "master_secret": secrets.token_hex(12)}


def _read(body: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(1003, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(1003, "the body must be an object")
    return content


def _success(push: Mapping[str, Any], message_id: str) -> bytes:
    options = push.get("options")
    sendno = str(options.get("sendno", 0)) if isinstance(options, dict) else "0"
    return orjson.dumps({"sendno": sendno, "msg_id": message_id})


def _error(status: int, code: int, text: str) -> Decision:
    return Decision(status, _JSON, orjson.dumps({"error": {"code": code, "message": text}}))


def _refusal(answer: str) -> Decision:
    if answer == "bad_gateway_html":
        return Decision(
            502,
            [("content-type", "text/html")],
            b"<html><head><title>502 Bad Gateway</title></head></html>\n",
        )
    return _error(*_REFUSALS[answer])
