"""The fault engine seen frame by frame, by a client that is nothing but h2 on a socket."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import jwt
import pytest
from hyperframe.frame import Frame, GoAwayFrame

from providers.simulators import Running, launch

ALERT = json.dumps({"aps": {"alert": "x"}, "pushfan": {"n": "61"}}).encode()
STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
_counter = iter(range(1, 1_000_000))


def _token() -> str:
    return f"{next(_counter):064x}"


class Peer:
    """One HTTP/2 connection whose frames are looked at."""

    def __init__(self, simulator: Running, *, certificate: bool = False) -> None:
        self.simulator = simulator
        context = ssl.create_default_context(cafile=simulator.info["ca_file"])
        context.set_alpn_protocols(["h2"])
        if certificate:
            context.load_cert_chain(simulator.info["certificate_file"])
        address = urlsplit(simulator.url)
        plain = socket.create_connection((address.hostname, address.port), timeout=5)
        self.socket = context.wrap_socket(plain, server_hostname=address.hostname)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.goaways: list[GoAwayFrame] = []
        self.unread = b""
        self.is_closed = False
        info = simulator.info
        claims = {"iss": info["team_id"], "iat": int(time.time()) - next(_counter) % 1000}
        key = Path(info["key_file"]).read_text()
        self.jwt = jwt.encode(claims, key, algorithm="ES256", headers={"kid": info["key_id"]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def push(self, token: str, *, authorization: str | None = "") -> int:
        """Send a push, without waiting; returns its stream."""
        stream = self.open(token, authorization=authorization)
        self.finish(stream)
        return stream

    def open(self, token: str, *, authorization: str | None = "") -> int:
        """Send the headers of a push."""
        stream = self.h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", f"/3/device/{token}"),
            ("apns-push-type", "alert"),
            ("apns-topic", self.simulator.info["topic"]),
        ]
        if authorization is not None:
            headers.append(("authorization", authorization or f"bearer {self.jwt}"))
        self.h2.send_headers(stream, headers)
        self.socket.sendall(self.h2.data_to_send())
        return stream

    def finish(self, stream: int) -> None:
        """Send the body of a push."""
        self.h2.send_data(stream, ALERT, end_stream=True)
        self.socket.sendall(self.h2.data_to_send())

    def read_until(self, is_done: Callable[[], bool], seconds: float = 5) -> bool:
        """Read frames until something holds or the time is up; tells whether it holds."""
        deadline = time.monotonic() + seconds
        while not is_done():
            left = deadline - time.monotonic()
            if left <= 0 or self.is_closed:
                return is_done()
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return is_done()
            except OSError:
                data = b""
            self.is_closed = not data
            if data:
                self._take(data)
                self._reply()
        return True

    def _take(self, data: bytes) -> None:
        """Read whole frames; a GOAWAY is kept from the library, which would read nothing after it."""
        self.unread += data
        while len(self.unread) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.unread[:9]))
            if len(self.unread) < 9 + length:
                return
            raw, self.unread = self.unread[: 9 + length], self.unread[9 + length :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(raw[9:]))
                self.goaways.append(frame)
            else:
                self.events += self.h2.receive_data(raw)

    def _reply(self) -> None:
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            self.is_closed = True

    def found(self, kind: type[h2.events.Event], stream: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream)
        ]

    def status(self, stream: int, seconds: float = 5) -> str | None:
        """Return the answer's status, or `None` when the stream ended otherwise or not at all."""
        kinds = (h2.events.ResponseReceived, h2.events.StreamReset)
        self.read_until(lambda: any(self.found(kind, stream) for kind in kinds), seconds)
        answers = self.found(h2.events.ResponseReceived, stream)
        return dict(answers[0].headers)[":status"] if answers else None

    def received(self, token: str, number: int) -> bool:
        """Wait until a device has received so many pushes, without reading."""
        deadline = time.monotonic() + 5
        while len(_received(self.simulator, token)) < number:
            if time.monotonic() > deadline:
                return False
        return True

    def limits(self) -> list[int]:
        """Return the stream limits that the server announced, in order."""
        changes = [event.changed_settings for event in self.found(h2.events.RemoteSettingsChanged)]
        return [change[STREAMS].new_value for change in changes if STREAMS in change]


@pytest.fixture(scope="module")
def simulator_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """APNs with the fault engine."""
    with launch("apns", tmp_path_factory.mktemp("frames"), engine="fault") as running:
        yield running


@pytest.fixture
def simulator(simulator_of_module: Running) -> Running:
    """The simulator, with no rules left behind."""
    simulator_of_module.clear_rules()
    return simulator_of_module


@pytest.fixture
def peer(simulator: Running) -> Iterator[Peer]:
    """A connection that is past its first push."""
    with Peer(simulator) as peer:
        assert peer.status(peer.push(_token())) == "200"
        yield peer


def _received(simulator: Running, token: str) -> list[dict[str, Any]]:
    return [receipt for receipt in simulator.receipts() if receipt["token"] == token]


def test_connection_begins_with_one_stream_until_a_good_credential(simulator: Running) -> None:
    """The first SETTINGS allow one stream; after the first push with a valid token they allow a thousand."""
    with Peer(simulator) as peer:
        assert peer.status(peer.push(_token(), authorization="bearer rubbish")) == "403"
        assert peer.limits() == [1]
        assert peer.status(peer.push(_token())) == "200"
        assert peer.read_until(lambda: peer.limits() == [1, 1000])


def test_streams_beyond_the_first_are_refused_before_it(simulator: Running) -> None:
    """A client that opens streams before its first push is through has them refused, unprocessed."""
    with Peer(simulator) as peer:
        tokens = [_token() for _ in range(3)]
        first = peer.open(tokens[0])
        others = [peer.push(token) for token in tokens[1:]]
        peer.finish(first)
        assert [peer.status(stream) for stream in (first, *others)] == ["200", None, None]
        codes = [event.error_code for event in peer.found(h2.events.StreamReset)]
        assert codes == [h2.errors.ErrorCodes.REFUSED_STREAM] * 2
        assert [len(_received(simulator, token)) for token in tokens] == [1, 0, 0]


def test_client_certificate_opens_all_streams_at_once(simulator: Running) -> None:
    """With a certificate there is no token to wait for, and none is needed."""
    with Peer(simulator, certificate=True) as peer:
        streams = [peer.push(_token(), authorization=None) for _ in range(3)]
        assert [peer.status(stream) for stream in streams] == ["200"] * 3
        assert peer.limits() == [1000]


def test_reset_stream_leaves_the_connection_alone(peer: Peer) -> None:
    """RST_STREAM comes with the rule's code; the next push on the connection is answered."""
    refused, broken = _token(), _token()
    peer.simulator.rules([
        {"tokens": [refused], "answer": "reset", "error_code": 7},
        {"tokens": [broken], "answer": "reset", "delivered": True},
    ])  # fmt: skip
    assert [peer.status(peer.push(token)) for token in (refused, broken)] == [None, None]
    assert [event.error_code for event in peer.found(h2.events.StreamReset)] == [7, 2]
    assert peer.status(peer.push(_token())) == "200"
    assert [len(_received(peer.simulator, token)) for token in (refused, broken)] == [0, 1]


@pytest.mark.parametrize("is_delivered", [False, True])
def test_goaway_tells_whether_the_push_was_processed(peer: Peer, is_delivered: bool) -> None:  # noqa: FBT001
    """GOAWAY carries its reason and a last stream id that includes the push only if it was delivered."""
    token, slow = _token(), _token()
    peer.simulator.rules([
        {"tokens": [slow], "answer": "slow", "ms": 300},
        {"tokens": [token], "answer": "goaway", "reason": "Shutdown", "delivered": is_delivered},
    ])  # fmt: skip
    earlier, stream = peer.push(slow), peer.push(token)
    assert peer.read_until(lambda: bool(peer.goaways))
    late = _token()
    peer.push(late)
    assert peer.read_until(lambda: peer.is_closed)
    [goaway] = peer.goaways
    assert json.loads(goaway.additional_data) == {"reason": "Shutdown"}
    assert goaway.last_stream_id == (stream if is_delivered else earlier)
    assert peer.status(earlier) == "200"
    assert peer.status(stream) is None
    assert len(_received(peer.simulator, token)) == is_delivered
    assert _received(peer.simulator, late) == []


def test_goaway_disowns_no_push_that_was_received(peer: Peer) -> None:
    """When later streams were processed already, GOAWAY covers them and the push itself is refused by name."""
    leaving, later = _token(), _token()
    peer.simulator.rules([
        {"tokens": [leaving], "answer": "goaway", "ms": 200},
        {"tokens": [later], "answer": "slow", "ms": 300},
    ])  # fmt: skip
    first, second = peer.push(leaving), peer.push(later)
    assert peer.read_until(lambda: peer.is_closed)
    assert [goaway.last_stream_id for goaway in peer.goaways] == [second]
    assert peer.status(second) == "200"
    assert [event.error_code for event in peer.found(h2.events.StreamReset, first)] == [7]
    assert [len(_received(peer.simulator, token)) for token in (leaving, later)] == [0, 1]


def test_connection_that_ends_already_may_be_told_to_end_again(peer: Peer) -> None:
    """Its client has not said goodbye yet: that is no error of the control request."""
    for _ in range(3):
        peer.simulator.control("POST", "/connections", {"action": "goaway"})
    assert peer.read_until(lambda: peer.is_closed)
    assert len(peer.goaways) == 1


def test_connection_that_ends_is_left_to_its_client_for_a_moment(peer: Peer) -> None:
    """Closed at once, answers would be lost to a client that is still sending."""
    peer.simulator.control("POST", "/connections", {"action": "goaway"})
    assert peer.read_until(lambda: bool(peer.goaways))
    assert not peer.read_until(lambda: peer.is_closed, seconds=0.3)
    assert peer.read_until(lambda: peer.is_closed)


def test_blackhole_answers_nothing_any_more(peer: Peer) -> None:
    """A silent dead peer leaves the socket open and answers neither pushes nor PING."""
    token = _token()
    peer.simulator.rules([{"tokens": [token], "answer": "blackhole"}])
    peer.push(token)
    peer.push(_token())
    peer.h2.ping(b"are you?")
    peer.socket.sendall(peer.h2.data_to_send())
    before = len(peer.events)
    assert not peer.read_until(lambda: len(peer.events) > before, seconds=0.7)
    assert not peer.is_closed
    assert _received(peer.simulator, token) == []


def test_ping_is_answered(peer: Peer) -> None:
    """A healthy connection answers PING."""
    peer.h2.ping(b"are you?")
    peer.socket.sendall(peer.h2.data_to_send())
    assert peer.read_until(lambda: bool(peer.found(h2.events.PingAckReceived)))


def test_connection_reset_ends_everything_on_it(peer: Peer) -> None:
    """The TCP connection is gone, without GOAWAY; with `delivered` the push was received."""
    token = _token()
    peer.simulator.rules([{"tokens": [token], "answer": "connection_reset", "delivered": True}])
    peer.push(token)
    assert peer.read_until(lambda: peer.is_closed)
    assert peer.goaways == []
    assert len(_received(peer.simulator, token)) == 1


def test_accepted_pushes_whose_answers_are_cut_off_are_counted(tmp_path: Path) -> None:
    """Two wait for their answers: no client can know of these, and may have to send them again."""
    with launch("apns", tmp_path, engine="fault") as simulator, Peer(simulator) as peer:
        assert peer.status(peer.push(_token())) == "200"
        simulator.control("POST", "/latency", {"ms": 60_000})
        token = _token()
        peer.push(token)
        peer.push(token)
        assert peer.received(token, 2)
        simulator.control("POST", "/connections", {"action": "reset"})
        assert peer.read_until(lambda: peer.is_closed)
        # The first counts only while it may lie unread: here it has been read, as the simulator cannot know.
        assert simulator.stats()["answers"]["answer_cut_off"] in (2, 3)


def test_truncated_answer_stops_in_the_middle(peer: Peer) -> None:
    """Headers arrive, then the stream is reset; the device has received the push."""
    token = _token()
    peer.simulator.rules([{"tokens": [token], "answer": "truncated"}])
    stream = peer.push(token)
    assert peer.read_until(lambda: bool(peer.found(h2.events.StreamReset, stream)))
    assert peer.status(stream) == "200"
    assert peer.found(h2.events.StreamEnded, stream) == []
    assert len(_received(peer.simulator, token)) == 1


def test_bad_pushes_cost_a_connection_its_streams(tmp_path: Path) -> None:
    """After many 400s the limit shrinks, in the end the connection is closed; 410 does not count."""
    with launch("apns", tmp_path, engine="fault", arguments=["--shrink-after", "3"]) as simulator:
        dead = _token()
        simulator.rules([{"tokens": [dead], "answer": "unregistered"}])
        with Peer(simulator) as peer:
            for token in [dead] * 5 + ["bad"] * 3:
                peer.status(peer.push(token))
            assert peer.read_until(lambda: peer.limits() == [1, 1000, 10])
            assert not peer.goaways
            for _ in range(3):
                peer.status(peer.push("bad"))
            assert peer.read_until(lambda: peer.is_closed)
            assert peer.goaways


def test_open_connections_can_be_disturbed_from_outside(peer: Peer) -> None:
    """The control API changes settings of open connections and sends them away."""
    control = peer.simulator.control
    control("POST", "/connections", {"action": "settings", "max_concurrent_streams": 5})
    assert peer.read_until(lambda: peer.limits()[-1:] == [5])
    stream = peer.push(_token())
    assert peer.status(stream) == "200"
    control("POST", "/connections", {"action": "goaway", "reason": "Maintenance"})
    assert peer.read_until(lambda: peer.is_closed)
    [goaway] = peer.goaways
    assert json.loads(goaway.additional_data) == {"reason": "Maintenance"}
    assert goaway.last_stream_id == stream


def test_fast_engine_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    """Frame-level answers are an error there, not a silent something else."""
    from providers.simulators.launch import SimulatorError

    with launch("fcm", tmp_path) as simulator:
        with pytest.raises(
            SimulatorError, match="fault: blackhole, connection_reset, goaway, reset, truncated"
        ):
            simulator.rules([{"share": 1, "answer": "goaway"}])
        with pytest.raises(SimulatorError, match="--engine fault"):
            simulator.control("POST", "/connections", {"action": "goaway"})
