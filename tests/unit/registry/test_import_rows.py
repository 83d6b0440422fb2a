"""Lines, headers and rows of files to import."""

import io
import json
from datetime import UTC, datetime

import pytest

from registry.errors import InvalidRegistration
from registry.import_rows import LONGEST_LINE, KnownChannel, Line, Rejected, open_rows, read_lines, to_call
from registry.installs import AddressKind, Install

CHANNELS = {"ios": KnownChannel(id=1), "android": KnownChannel(id=2)}
HEADER = "user,device_key,channel,token"


def read(data: bytes) -> list[Install | Rejected]:
    """Read a whole file."""
    file = io.BytesIO(data)
    rows, first = open_rows(file)
    file.seek(first.end)
    return [to_call(line, rows, CHANNELS) for line in read_lines(file, first)]


def problems(result: Install | Rejected) -> tuple[str, ...]:
    """Expect a rejected row; give its problems."""
    assert isinstance(result, Rejected)
    return result.problems


def refused(data: bytes) -> list[str]:
    """Expect a refused file; give the reasons."""
    with pytest.raises(InvalidRegistration) as caught:
        read(data)
    return str(caught.value).splitlines()


def test_csv_row_becomes_an_install() -> None:
    """Columns are found by name, in any order, and empty values are not said."""
    header = b"token,channel,user,device_key,locale,registered_at,address_kind\n"
    assert read(header + b"t1,ios,ann,phone,,2026-01-31T12:00:00Z,installation_id\n") == [
        Install(
            channel_id=1,
            user_id="ann",
            device_key="phone",
            token="t1",
            registered_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
            address_kind=AddressKind.INSTALLATION_ID,
        )
    ]


def test_json_line_becomes_an_install() -> None:
    """An object has the columns as fields, and null is not said."""
    row = {
        "user": "ann",
        "device_key": "phone",
        "channel": "android",
        "token": "t1",
        "locale": "de",
        "app_version": None,
    }
    assert read(json.dumps(row).encode()) == [
        Install(channel_id=2, user_id="ann", device_key="phone", token="t1", locale="de")
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_is_that_of_the_header(delimiter: str) -> None:
    """Spreadsheets write semicolons and tabs too."""
    text = f"{HEADER}\nann,phone,ios,t1\n".replace(",", delimiter)
    assert isinstance(read(text.encode())[0], Install)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_and_line_ends_are_not_data(bom: bytes, end: bytes) -> None:
    """Windows' files read like others, to the last byte of the last row."""
    data = bom + end.join([HEADER.encode(), b"ann,phone,ios,t1", b'"b, ob",tablet,ios,t2', b""])
    users = [result.user_id for result in read(data) if isinstance(result, Install)]
    tokens = [result.token for result in read(data) if isinstance(result, Install)]
    assert (users, tokens) == (["ann", "b, ob"], ["t1", "t2"])


def test_every_problem_of_a_row_is_named() -> None:
    """A bad row says all that is wrong with it, by field, and nothing of what the token is."""
    header = f"{HEADER},locale,time_zone,registered_at,address_kind"
    result = read(f"{header}\n,phone,ipad,se cret,x y,here there,yesterday,fax\n".encode())[0]
    assert problems(result) == (
        "channel: is none of the app's channels (android, ios)",
        "address_kind: must be one of token, installation_id",
        "registered_at: must be a date and time with an offset, such as 2026-01-31T12:00:00Z",
        "user: must not be empty",
        "token: must be printable ASCII without spaces",
        "locale: must be a locale such as pt-BR",
        "time_zone: must be a time zone such as Europe/Berlin",
    )


def test_every_problem_of_a_header_is_named() -> None:
    """Missing, repeated and unknown columns are refused at once, with the column that was meant."""
    assert refused(b"user,user,devicekey,channel\n") == [
        "header: the column device_key is missing",
        "header: the column token is missing",
        "header: the column user is there 2 times",
        "header: there is no column 'devicekey' (did you mean device_key?)",
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n \n\r\n", "the file is empty"),
        (HEADER.encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        (b"[\n", "the file is a JSON array: write its objects one on a line, without commas"),
        (b"us\xffer\n", "line 1 is not UTF-8 (at its byte 3)"),
        (b'user,"token\n', "the header is not CSV: unexpected end of data"),
    ],
)
def test_file_without_rows_is_refused(data: bytes, expected: str) -> None:
    """What is no table of devices is refused with what it is."""
    assert refused(data) == [expected]


def test_quote_that_is_never_closed_costs_one_line() -> None:
    """The lines after a broken one are rows again."""
    results = read(f'{HEADER}\n"ann,phone,ios,t1\nbob,tablet,ios,t2\n'.encode())
    assert problems(results[0]) == ("is not CSV: unexpected end of data",)
    assert isinstance(results[1], Install)


def test_line_of_ten_megabytes_costs_one_line() -> None:
    """A line beyond the limit is named and skipped, and the next begins where it ends."""
    data = HEADER.encode() + b"\n" + b"x" * 10_000_000 + b"\nbob,tablet,ios,t2\n"
    file = io.BytesIO(data)
    rows, first = open_rows(file)
    file.seek(first.end)
    lines = list(read_lines(file, first))
    assert [line.problem for line in lines] == [f"has more than {LONGEST_LINE:,} bytes", None]
    assert lines[-1].end == len(data)
    assert len(lines[0].text) == 0
    assert isinstance(to_call(lines[1], rows, CHANNELS), Install)


def test_invalid_utf8_costs_one_line() -> None:
    """A line in another encoding is named with the byte, and the next is a row."""
    results = read(HEADER.encode() + b"\nj\xf6rg,phone,ios,t1\nbob,tablet,ios,t2\n")
    assert problems(results[0]) == ("is not UTF-8 (at its byte 2)",)
    assert isinstance(results[1], Install)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ann,phone,ios", "has 3 values for 4 columns"),
        ("ann,phone,ios,t1,more", "has 5 values for 4 columns"),
    ],
)
def test_row_with_other_columns_than_the_header_is_rejected(line: str, expected: str) -> None:
    """Values cannot be matched with columns when their number differs."""
    assert problems(read(f"{HEADER}\n{line}\n".encode())[0]) == (expected,)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "is not JSON: unexpected end of data"),
        ('"ann"', "is not a JSON object"),
        ('{"user": 7, "device_key": "p", "channel": "ios", "token": "t"}', "user: must be a string"),
        (
            '{"user": "a", "device_key": "p", "channel": "ios", "token": "t", "locale": 0}',
            "locale: must be a string",
        ),
        (
            '{"user": "a", "device_key": "p", "channel": "ios", "token": "t", "local": "de"}',
            "local: is not a field (did you mean locale?)",
        ),
        (
            '{"user": "a", "device_key": "p", "channel": ["ios"], "token": "t"}',
            "channel: is none of the app's channels (android, ios)",
        ),
        (
            '{"user": "a\\u0000", "device_key": "p", "channel": "ios", "token": "t"}',
            "user: must not contain U+0000",
        ),
    ],
)
def test_json_line_of_another_shape_is_rejected(line: str, expected: str) -> None:
    """Wrong types, unknown fields and broken lines are named, and the next line is read."""
    first = '{"user": "ann", "device_key": "p0", "channel": "ios", "token": "t0"}'
    results = read(f"{first}\n{line}\n{first}\n".encode())
    assert problems(results[1])[0].startswith(expected)
    assert isinstance(results[2], Install)


def test_vendor_says_what_is_wrong_with_a_token() -> None:
    """The check of the vendor's own shape adds its complaint, if the token has a shape at all."""
    channels = {
        "ios": KnownChannel(id=1, check_token=lambda token: None if token == "good" else "is not hex")
    }
    rows, _ = open_rows(io.BytesIO(HEADER.encode()))
    bad = to_call(Line(2, 0, "ann,phone,ios,bad"), rows, channels)
    good = to_call(Line(2, 0, "ann,phone,ios,good"), rows, channels)
    assert problems(bad) == ("token: is not hex",)
    assert isinstance(good, Install)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rejected_rows_can_be_corrected_and_imported(kind: str) -> None:
    """The file of rejected rows has the fields again, beside the line and the problems."""
    row = {"user": 'an"n', "device_key": "phone", "channel": "ipad", "token": "t1"}
    text = json.dumps(row) if kind == "jsonl" else f'{HEADER}\n"an""n",phone,ipad,t1'
    file = io.BytesIO(text.encode())
    rows, first = open_rows(file)
    file.seek(first.end)
    result = to_call(next(read_lines(file, first)), rows, CHANNELS)
    assert isinstance(result, Rejected)
    corrected = (rows.heading() + rows.write(result)).replace("ipad", "ios")
    assert [call.user_id for call in read(corrected.encode()) if isinstance(call, Install)] == ['an"n']
