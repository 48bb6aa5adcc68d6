"""Protocol buffers by hand: what is written is read back, and nothing else gets through."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx.wire import BYTES, Budget, WireError, encode_bytes, fields, varints


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=300))))
def test_fields_come_back_as_they_were_written(parts: list[tuple[int, bytes]]) -> None:
    message = b"".join(encode_bytes(number, payload) for number, payload in parts)
    found = list(fields(message))
    assert [(item.number, bytes(item.message)) for item in found] == parts
    assert b"".join(message[item.start : item.end] for item in found) == message
    assert all(item.kind == BYTES for item in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_a_wire_error(message: bytes) -> None:
    with contextlib.suppress(WireError):
        assert all(item.end <= len(message) for item in fields(message))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x0a\x05abc", "beyond the end"),
        (b"\x0a", "ends inside a number"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "more than 64 bits"),
    ],
)
def test_damage_is_named(message: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        list(fields(message))


def test_a_number_is_no_message() -> None:
    (item,) = fields(b"\x08\x96\x01")
    assert item.value == 150
    with pytest.raises(WireError, match="is a number"):
        _ = item.message


def test_a_budget_ends_what_takes_too_long() -> None:
    with pytest.raises(WireError, match="more fields"):
        list(fields(encode_bytes(1, b"") * 11, Budget(10)))
    with pytest.raises(WireError, match="more fields"):
        list(varints(memoryview(b"\x01" * 11), Budget(10)))
