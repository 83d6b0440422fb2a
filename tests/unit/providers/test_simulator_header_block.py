"""Header blocks that an independent encoder wrote, blocks that are broken, and answers that it can read."""

from __future__ import annotations

import contextlib

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.simulators.header_block import HeaderReader, InvalidBlock, write_headers

_NAMES = st.sampled_from([":path", ":method", "apns-id", "apns-topic", "authorization", "x-" + "long" * 60])
_VALUES = st.text(max_size=300) | st.sampled_from(["POST", "/3/device/" + "ab" * 32, ""])
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES), max_size=12)


@given(blocks=st.lists(st.tuples(_HEADERS, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_blocks_are_read_as_they_were_written(
    blocks: list[tuple[list[tuple[str, str]], bool, bool]],
) -> None:
    """Whatever went before on the connection, Huffman-coded or not, and again when a block repeats."""
    encoder, reader = hpack.Encoder(), HeaderReader()
    for headers, is_coded, is_resized in blocks:
        if is_resized:
            encoder.header_table_size = 300 if encoder.header_table_size == 4096 else 4096
        for _ in range(2):
            block = encoder.encode(
                [(name.encode(), value.encode()) for name, value in headers], huffman=is_coded
            )
            assert reader.read(block).items() == headers


def test_known_block_is_read_anew_when_the_table_has_changed() -> None:
    """Index 62 is the youngest entry: the same byte means another header after the next one."""
    reader = HeaderReader()
    assert reader.read(b"\x40\x01a\x011").items() == [("a", "1")]
    assert reader.read(b"\xbe").items() == [("a", "1")]
    assert reader.read(b"\x40\x01b\x012").items() == [("b", "2")]
    assert reader.read(b"\xbe").items() == [("b", "2")]


@given(block=st.binary(max_size=60))
def test_broken_blocks_raise_nothing_else(block: bytes) -> None:
    """Anything may come from the network."""
    with contextlib.suppress(InvalidBlock):
        HeaderReader().read(block)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x80", id="index zero"),
        pytest.param(b"\xbe", id="entry that is not there"),
        pytest.param(b"\x40\x05abc", id="string beyond the block"),
        pytest.param(b"\x00\x01a\x81\x00", id="padding of zeros"),
        pytest.param(b"\x00\x01a\x84\xff\xff\xff\xff", id="end of string within it"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\x00", id="integer without end"),
        pytest.param(b"\x3f\xe2\x1f", id="table larger than allowed"),
        pytest.param(b"\x40", id="nothing after the first byte"),
    ],
)
def test_broken_block_is_refused(block: bytes) -> None:
    """Each in its own way."""
    with pytest.raises(InvalidBlock):
        HeaderReader().read(block)


@given(
    status=st.sampled_from([200, 204, 400, 404, 410, 429, 500, 503]),
    headers=st.lists(st.tuples(st.sampled_from(["apns-id", "retry-after"]), st.text(max_size=400))),
)
def test_answers_are_read_by_an_independent_decoder(status: int, headers: list[tuple[str, str]]) -> None:
    """Statuses that RFC 7541 has an index for, and others; short and long values."""
    found = hpack.Decoder().decode(write_headers(status, headers), raw=True)
    expected = [(":status", str(status)), *headers]
    assert [(bytes(name).decode(), bytes(value).decode()) for name, value in found] == expected
