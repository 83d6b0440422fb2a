"""The simulators as processes: start, steering, receipts, end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.simulators import Running, launch
from providers.simulators.launch import SimulatorError
from providers.simulators.rules import share_of

ROOT = Path(__file__).parents[2]


class Pushes:
    """Pushes to JPush, the vendor whose credentials are simplest."""

    def __init__(self, simulator: Running) -> None:
        self.info = simulator.info
        self.context = ssl.create_default_context(cafile=self.info["ca_file"])

    def connect(self, seconds: float = 10) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            http2=True, verify=self.context, timeout=seconds, base_url=self.info["url"],
            auth=(self.info["app_key"], self.info["master_secret"]),
        )  # fmt: skip

    async def push(self, client: httpx.AsyncClient, token: str) -> httpx.Response:
        body = {"platform": "all", "audience": {"registration_id": [token]}, "notification": {"alert": "x"}}
        return await client.post("/v3/push", json=body)

    def push_all(self, tokens: list[str], seconds: float = 10) -> list[httpx.Response | BaseException]:
        """Push to all at once over one connection."""

        async def main() -> list[httpx.Response | BaseException]:
            async with self.connect(seconds) as client:
                return await asyncio.gather(*(self.push(client, it) for it in tokens), return_exceptions=True)

        return asyncio.run(main())


def _ids(count: int, start: int = 0) -> list[str]:
    return [f"1104a897{number:011d}" for number in range(start, start + count)]


def _wait_until(holds: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["fast", "fault"])
def simulator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A fresh simulator of each engine."""
    with launch("jpush", tmp_path, engine=request.param, seed=3) as running:
        yield running


@pytest.fixture(scope="module", params=["fast", "fault"])
def shared_of_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A simulator of each engine for the tests that let it live."""
    with launch("jpush", tmp_path_factory.mktemp("shared"), engine=request.param, seed=3) as running:
        yield running


@pytest.fixture
def shared(shared_of_engine: Running) -> Iterator[Running]:
    """The shared simulator; rules and latency are put back."""
    yield shared_of_engine
    shared_of_engine.clear_rules()
    shared_of_engine.control("POST", "/latency", {"ms": 0})


def test_receipts_reach_the_file_by_themselves(shared: Running) -> None:
    """Within moments the log is on disk, without anybody asking."""
    before = len(shared.receipts())
    Pushes(shared).push_all(_ids(5))
    lines = shared.receipts_file.read_bytes
    assert _wait_until(lambda: len(lines().splitlines()) == before + 5, seconds=1)


def test_sigterm_ends_cleanly_and_keeps_every_receipt(simulator: Running) -> None:
    """With connections open and requests hanging it ends within two seconds, and the log is complete."""
    hanging, pushes = _ids(3), Pushes(simulator)
    simulator.rules(
        [{"tokens": hanging, "answer": "hang"}, {"tokens": _ids(1, 50), "answer": "accept_no_answer"}]
    )

    async def main() -> float:
        # Two connections: httpx lets an answer wait behind the reader of a request that hangs.
        async with pushes.connect() as patient, pushes.connect() as client:
            waiting = [asyncio.create_task(pushes.push(patient, it)) for it in [*hanging, *_ids(1, 50)]]
            assert await asyncio.to_thread(_wait_until, lambda: simulator.stats()["receipts"] == 1)
            await asyncio.gather(*(pushes.push(client, token) for token in _ids(20, 100)))
            started = time.monotonic()
            os.kill(simulator.process.pid, signal.SIGTERM)
            await asyncio.to_thread(simulator.process.wait, 5)
            elapsed = time.monotonic() - started
            await asyncio.gather(*waiting, return_exceptions=True)
            return elapsed

    assert asyncio.run(main()) < 2
    assert simulator.process.returncode == 0
    tokens = sorted(receipt["token"] for receipt in simulator.receipts())
    assert tokens == sorted([*_ids(1, 50), *_ids(20, 100)])


def test_ready_file_goes_with_the_process(simulator: Running) -> None:
    """Whoever finds the ready file finds a live simulator."""
    ready_file = simulator.receipts_file.with_name("jpush.json")
    assert json.loads(ready_file.read_text())["pid"] == simulator.process.pid
    simulator.stop()
    assert not ready_file.exists()


def test_killed_client_leaves_its_receipts(simulator: Running) -> None:
    """What a client sent before it was killed is in the log, answered or not."""
    simulator.control("POST", "/latency", {"ms": 60_000})
    info = json.dumps(simulator.info)
    script = (
        "import asyncio, json, sys; sys.path.insert(0, sys.argv[2]);"
        "from tests.conformance.test_simulators_process import Pushes, _ids;"
        "Pushes(type('S', (), {'info': json.loads(sys.argv[1])})()).push_all(_ids(10), 60)"
    )
    client = subprocess.Popen([sys.executable, "-c", script, info, str(ROOT)], cwd=ROOT)
    try:
        assert _wait_until(lambda: simulator.stats()["receipts"] == 10, seconds=20)
    finally:
        client.kill()
        client.wait()
    assert sorted(receipt["token"] for receipt in simulator.receipts()) == _ids(10)


def test_latency_delays_each_answer_and_no_other(shared: Running) -> None:
    """Fifty answers with a delay of 300 ms take little more than 300 ms together."""
    shared.control("POST", "/latency", {"ms": 300})
    started = time.monotonic()
    answers = Pushes(shared).push_all(_ids(50))
    elapsed = time.monotonic() - started
    assert all(isinstance(answer, httpx.Response) and answer.status_code == 200 for answer in answers)
    assert 0.3 <= elapsed < 3


def test_share_takes_the_tokens_that_the_seed_says(shared: Running) -> None:
    """A share is a property of token and seed, so that a test can tell beforehand whom it takes."""
    tokens = _ids(200)
    shared.rules([{"share": 0.3, "answer": "unavailable"}])
    answers = Pushes(shared).push_all(tokens)
    spoiled = [
        token
        for token, answer in zip(tokens, answers, strict=True)
        if isinstance(answer, httpx.Response) and answer.status_code == 503
    ]
    assert spoiled == [token for token in tokens if share_of(token, seed=3) < 0.3]
    assert 30 < len(spoiled) < 90


def test_first_matching_rule_wins(shared: Running) -> None:
    """Rules are tried in the order in which they were added, whatever they select by."""
    [token] = _ids(1)
    shared.rules([{"token_prefix": token[:5], "answer": "throttled", "total": 1}])
    shared.rules(
        [{"tokens": [token], "answer": "unavailable", "total": 1}, {"share": 1, "answer": "internal"}]
    )
    statuses = [answer.status_code for answer in _one_by_one(shared, [token] * 4)]
    assert statuses == [429, 503, 500, 500]


def test_rule_ends_after_its_time(shared: Running) -> None:
    """`for_seconds` ends a rule by itself."""
    [token] = _ids(1)
    shared.rules([{"tokens": [token], "answer": "unavailable", "for_seconds": 0.3}])
    assert [answer.status_code for answer in _one_by_one(shared, [token])] == [503]
    assert _wait_until(lambda: _one_by_one(shared, [token])[0].status_code == 200, seconds=3)


def _one_by_one(simulator: Running, tokens: list[str]) -> list[httpx.Response]:
    async def main() -> list[httpx.Response]:
        pushes = Pushes(simulator)
        async with pushes.connect() as client:
            return [await pushes.push(client, token) for token in tokens]

    return asyncio.run(main())


def test_stats_count_by_answer(shared: Running) -> None:
    """The counters tell what was answered how often."""
    before = Counter(shared.stats()["answers"])
    shared.rules([{"tokens": _ids(2), "answer": "blacklisted"}])
    _one_by_one(shared, _ids(5))
    stats = shared.stats()
    assert Counter(stats["answers"]) - before == {"blacklisted": 2, "accepted": 3}
    assert stats["receipts"] == len(shared.receipts())


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"answer": "explode", "share": 1}, "rules[0].answer: must be one of"),
        ({"answer": ["hang"], "share": 1}, "rules[0].answer: must be one of"),
        ({"answer": "hang"}, "rules[0]: needs exactly one of tokens, token_prefix, share"),
        ({"answer": "hang", "share": 1, "tokens": []}, "rules[0]: needs exactly one of"),
        ({"answer": "hang", "share": 1.5}, "rules[0].share: must be a number from 0 to 1"),
        ({"answer": "hang", "tokens": [1]}, "rules[0].tokens: must be a list of strings"),
        ({"answer": "hang", "share": 1, "first": "2"}, "rules[0].first: must be an integer"),
        ({"answer": "hang", "share": 1, "for_seconds": -1}, "rules[0].for_seconds: must be a number"),
        ({"answer": "hang", "share": 1, "often": 2}, "rules[0].often: unknown field"),
        ({"answer": "hang", "share": 1, "delivered": "yes"}, "rules[0].delivered: must be true or false"),
        (
            {"answer": "hang", "share": 1, "error_code": 7, "delivered": True},
            "rules[0].error_code: REFUSED_STREAM says that nothing was delivered",
        ),
        ({"answer": "custom", "share": 1, "status": 99}, "rules[0].status: must be from 200 to 599"),
        ("hang", "rules[0]: must be an object"),
    ],
)
def test_wrong_rules_are_refused(jpush: Running, rule: Any, problem: str) -> None:
    """A mistake in a rule is named, and none of the rules is taken."""
    with pytest.raises(SimulatorError) as caught:
        jpush.rules([rule, {"answer": "hang", "share": 1}])
    assert problem in str(caught.value)
    assert jpush.control("GET", "/rules") == {"items": []}


@pytest.fixture(scope="module")
def jpush(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A simulator for tests that leave no trace in it."""
    with launch("jpush", tmp_path_factory.mktemp("control")) as running:
        yield running


def test_all_mistakes_are_named_at_once(jpush: Running) -> None:
    """Every rule and every field is looked at before the answer."""
    with pytest.raises(SimulatorError) as caught:
        jpush.rules([{"answer": "explode"}, {"answer": "hang", "share": 2, "first": -1}])
    for place in ("rules[0].answer", "rules[0]: needs", "rules[1].share", "rules[1].first"):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", b"", 404),
        ("POST", "/nothing", b"{}", 400),
        ("POST", "/rules", b"{", 400),
        ("POST", "/latency", b'{"ms":"soon"}', 400),
        ("POST", "/credentials", b"[]", 400),
        ("POST", "/connections", b'{"action":"settings"}', 400),
        ("POST", "/tokens", b'{"add":5}', 400),
        ("GET", "/", b"", 200),
    ],
)
def test_control_api_answers_mistakes(
    jpush: Running, method: str, path: str, body: bytes, status: int
) -> None:
    """Unknown routes and wrong values are errors with a text, never a hang-up."""
    answer = httpx.request(method, jpush.info["control_url"] + path, content=body)
    assert answer.status_code == status
    assert answer.json()


@pytest.mark.parametrize("engine", ["fast", "fault"])
def test_taken_port_is_a_clear_error(tmp_path: Path, engine: str) -> None:
    """A port that somebody listens on is named, and nothing starts."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            SimulatorError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            launch("fcm", tmp_path, port=port, engine=engine)


def test_second_simulator_in_one_directory_is_refused(tmp_path: Path) -> None:
    """Two processes would spoil each other's receipts."""
    with launch("fcm", tmp_path), pytest.raises(SimulatorError, match="another simulator is writing"):
        launch("fcm", tmp_path)


def test_restart_keeps_port_credentials_and_receipts(tmp_path: Path) -> None:
    """A restart on the same port goes on where the last run ended, even after a kill."""
    with launch("jpush", tmp_path) as simulator:
        Pushes(simulator).push_all(_ids(2))
        simulator.receipts()
        info = simulator.info
        port = int(info["url"].rpartition(":")[2])
        simulator.process.kill()
        simulator.process.wait()
    with launch("jpush", tmp_path, port=port) as simulator:
        assert {name: simulator.info[name] for name in ("url", "app_key", "master_secret", "ca_file")} == {
            name: info[name] for name in ("url", "app_key", "master_secret", "ca_file")
        }
        Pushes(simulator).push_all(_ids(2, 10))
        assert [receipt["token"] for receipt in simulator.receipts()] == _ids(2) + _ids(2, 10)


def test_known_tokens_come_from_a_file(tmp_path: Path) -> None:
    """With a file of tokens, all others are strangers."""
    file = tmp_path / "tokens"
    file.write_text("\n".join(_ids(2)) + "\n")
    with launch("jpush", tmp_path / "state", known_tokens=file) as simulator:
        assert [answer.status_code for answer in _one_by_one(simulator, _ids(3))] == [200, 200, 400]


_LAUNCHER = """
import sys, threading, time
from providers.simulators import launch
running = []
thread = threading.Thread(target=lambda: running.append(launch("jpush", sys.argv[1])))
thread.start(); thread.join()
print(running[0].process.pid, flush=True)
sys.stdin.readline()
assert running[0].stats()["receipts"] == 0
print("alive", flush=True)
time.sleep(60)
"""


def test_simulator_dies_with_its_parent_but_not_with_a_thread_of_it(tmp_path: Path) -> None:
    """The end of the starting thread is nothing, a SIGKILL of the starting process is the end."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin, parent.stdout:
        pid = int(parent.stdout.readline())
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"alive\n"
        assert _is_alive(pid)
        parent.kill()
        parent.wait()
    assert _wait_until(lambda: not _is_alive(pid))


def test_requests_of_many_threads_are_all_counted(shared: Running) -> None:
    """Connections side by side lose nothing: each accepted answer is one receipt."""
    counts: list[int] = []

    def work(start: int) -> None:
        answers = Pushes(shared).push_all(_ids(100, 1000 + start))
        counts.append(
            sum(isinstance(answer, httpx.Response) and answer.status_code == 200 for answer in answers)
        )

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 400
    received = [receipt["token"] for receipt in shared.receipts()]
    assert sorted(token for token in received if token >= _ids(1, 1000)[0]) == _ids(400, 1000)
