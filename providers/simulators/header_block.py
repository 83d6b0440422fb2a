"""Header blocks of HTTP/2, read and written fast.

https://www.rfc-editor.org/rfc/rfc7541

A client's headers repeat from request to request. So a block that left the client's table alone is known when it
comes again, as long as the table stays; and a string that was Huffman-coded is decoded once. Answers use no table.
"""

from __future__ import annotations

from typing import Any, Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable as Tables

from .exchange import HeaderList, HeaderTable

_STATIC: Final = [("", ""), *((name.decode(), value.decode()) for name, value in Tables.STATIC_TABLE)]
_DYNAMIC: Final = len(_STATIC)
_TABLE_BYTES: Final = 4096  # what our SETTINGS leave as it is
_ENTRY_BYTES: Final = 32
_MAX_REMEMBERED: Final = 2000
_INDEXED_STATUSES: Final = {
    pair[1]: bytes([0x80 | at]) for at, pair in enumerate(_STATIC) if pair[0] == ":status"
}
_STATUS_NAME: Final = 8


class InvalidBlock(ValueError):
    """A block that cannot be read: the connection is lost, since the table may be wrong from here on."""


class HeaderReader:
    """Reads the blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._table: list[tuple[str, str]] = []  # the youngest is last
        self._sizes: list[int] = []
        self._size = 0
        self._limit = _TABLE_BYTES
        self._known: dict[bytes, HeaderTable] = {}

    def read(self, block: bytes) -> HeaderTable:
        """Read a complete block. Raises `InvalidBlock`."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            return self._read(block)
        except (IndexError, UnicodeDecodeError) as error:
            raise InvalidBlock(str(error)) from error

    def _read(self, block: bytes) -> HeaderTable:
        pairs: HeaderList = []
        is_table_kept = True
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            if first & 0x80:
                index, at = (first & 0x7F, at + 1) if first != 0xFF else _integer(block, at, 0x7F)
                pairs.append(self._entry(index))
            elif first & 0x40:
                pair, at = self._literal(block, at, 0x3F)
                self._add(pair)
                pairs.append(pair)
                is_table_kept = False
            elif first & 0x20:
                limit, at = _integer(block, at, 0x1F)
                self._resize(limit)
                is_table_kept = False
            else:
                pair, at = self._literal(block, at, 0x0F)
                pairs.append(pair)
        headers = HeaderTable(pairs)
        if not is_table_kept or len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        if is_table_kept:
            self._known[block] = headers
        return headers

    def _entry(self, index: int) -> tuple[str, str]:
        if index >= _DYNAMIC:
            place = len(self._table) - 1 - (index - _DYNAMIC)
            if place < 0:
                raise InvalidBlock(f"no entry {index}")
            return self._table[place]
        if index == 0:
            raise InvalidBlock("no entry 0")
        return _STATIC[index]

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[tuple[str, str], int]:
        index = block[at] & mask
        if index == mask:
            index, at = _integer(block, at, mask)
        else:
            at += 1
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        return (name, value), at

    def _add(self, pair: tuple[str, str]) -> None:
        size = _bytes_of(pair)
        self._table.append(pair)
        self._sizes.append(size)
        self._size += size
        if self._size > self._limit:
            self._evict()

    def _resize(self, limit: int) -> None:
        if limit > _TABLE_BYTES:
            raise InvalidBlock(f"a table of {limit} bytes")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        count = 0
        while self._size > self._limit:
            self._size -= self._sizes[count]
            count += 1
        del self._table[:count]
        del self._sizes[:count]


def write_headers(status: int, pairs: HeaderList) -> bytes:
    """Write the block of an answer."""
    text = str(status)
    parts = [_INDEXED_STATUSES.get(text) or bytes([_STATUS_NAME]) + _plain(text)]
    for name, value in pairs:
        parts += (b"\x00", _plain(name), _plain(value))
    return b"".join(parts)


def _plain(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    if length < 0x7F:
        return b"%c%b" % (length, data)
    digits, rest = bytearray([0x7F]), length - 0x7F
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits) + data


def _bytes_of(pair: tuple[str, str]) -> int:
    name, value = pair
    if name.isascii() and value.isascii():
        return len(name) + len(value) + _ENTRY_BYTES
    return len(name.encode()) + len(value.encode()) + _ENTRY_BYTES


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    value, shift = block[at] & mask, 0
    at += 1
    if value < mask:
        return value, at
    while True:
        digit = block[at]
        value += (digit & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not digit & 0x80:
            return value, at
        if shift > 28:
            raise InvalidBlock("an integer without end")


def _string(block: bytes, at: int) -> tuple[str, int]:
    first = block[at]
    length = first & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    else:
        at += 1
    end = at + length
    if end > len(block):
        raise InvalidBlock("a string beyond the block")
    raw = block[at:end]
    return (_huffman.decode(raw) if first & 0x80 else raw.decode()), end


class _Huffman:
    """Decodes byte by byte: a node of the code's tree and a byte lead to a node and what was read on the way.

    Steps are found out when they are first needed, and strings remembered.
    """

    def __init__(self) -> None:
        self._tree = _grow()
        self._steps: list[tuple[int, bytes] | None] = [None] * (len(self._tree) << 8)
        self._strings: dict[bytes, str] = {}
        # What a string may end with: up to seven bits of the code that is all ones.
        self._ends, node = {0}, 0
        for _ in range(7):
            node = self._tree[node][1]
            self._ends.add(node)

    def decode(self, raw: bytes) -> str:
        """Decode a string. Raises `InvalidBlock`."""
        known = self._strings.get(raw)
        if known is not None:
            return known
        node, parts, steps = 0, [], self._steps
        for byte in raw:
            node, read = steps[node << 8 | byte] or self._step(node, byte)
            parts.append(read)
        if node not in self._ends:
            raise InvalidBlock("a string that ends within a code")
        if len(self._strings) >= _MAX_REMEMBERED:
            self._strings.clear()
        text = self._strings[raw] = b"".join(parts).decode()
        return text

    def _step(self, start: int, byte: int) -> tuple[int, bytes]:
        node, read = start, bytearray()
        for shift in range(7, -1, -1):
            node = self._tree[node][byte >> shift & 1]
            if node < 0:
                if node == _END_OF_STRING:
                    raise InvalidBlock("the end of a string within it")
                read.append(~node)
                node = 0
        step = self._steps[start << 8 | byte] = node, bytes(read)
        return step


_END_OF_STRING: Final = ~256


def _grow() -> list[list[int]]:
    """Grow the tree of RFC 7541's code: two branches for each node, a leaf is the complement of its symbol."""
    tree: list[list[int]] = [[0, 0]]
    codes: Any = zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)
    for symbol, (code, length) in enumerate(codes):
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not tree[node][bit]:
                tree.append([0, 0])
                tree[node][bit] = len(tree) - 1
            node = tree[node][bit]
        tree[node][code & 1] = ~symbol
    return tree


_huffman: Final = _Huffman()
