"""The wire format of protocol buffers, as far as reading and extending a network file needs it.

A message is a run of fields, each a varint key ``(number << 3) | type`` and a
payload (https://protobuf.dev/programming-guides/encoding/). Two messages written
one after the other are their merger, so a file is extended by appending.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 200_000


class WireError(ValueError):
    """Bytes that are not a protocol buffer message."""


class Budget:
    """How many fields may still be read of a file; a network has a few thousand.

    Parameters
    ----------
    fields : int
    """

    def __init__(self, fields: int = MAX_FIELDS) -> None:
        self.left = fields

    def spend(self) -> None:
        """Count a field.

        Raises
        ------
        WireError
            If there have been too many.
        """
        self.left -= 1
        if self.left < 0:
            raise WireError("more fields than a network has")


class Field(NamedTuple):
    """One field of a message.

    `value` is an int for a varint and a view of the bytes otherwise; the
    whole field, key included, is ``message[start:end]``.
    """

    number: int
    kind: int
    value: int | memoryview
    start: int
    end: int

    @property
    def message(self) -> memoryview:
        """The value as bytes.

        Raises
        ------
        WireError
            If it is a number.
        """
        if isinstance(self.value, int):
            raise WireError(f"field {self.number} at byte {self.start} is a number, needed bytes")
        return self.value


def fields(message: memoryview | bytes, budget: Budget | None = None) -> Iterator[Field]:
    """Yield the fields of a message.

    Raises
    ------
    WireError
        If the bytes end inside a field or hold an unknown wire type.
    """
    view = memoryview(message)
    budget = budget or Budget()
    position = 0
    while position < len(view):
        budget.spend()
        start = position
        key, position = _varint(view, position)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == VARINT:
            value, position = _varint(view, position)
        elif kind in (BYTES, FIXED32, FIXED64):
            size = {FIXED32: 4, FIXED64: 8}.get(kind, 0)
            if kind == BYTES:
                size, position = _varint(view, position)
            if number == 0 or size > len(view) - position:
                raise WireError(f"a field at byte {start} reaches beyond the end")
            value, position = view[position : position + size], position + size
        else:
            raise WireError(f"wire type {kind} at byte {start}")
        yield Field(number, kind, value, start, position)


def varints(packed: memoryview, budget: Budget) -> Iterator[int]:
    """Yield the numbers of a packed field.

    Raises
    ------
    WireError
        If the bytes end inside a number.
    """
    position = 0
    while position < len(packed):
        budget.spend()
        value, position = _varint(packed, position)
        yield value


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Return a field of bytes, text or a nested message."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(len(payload)) + payload


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise WireError("the message ends inside a number")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WireError(f"a number before byte {position} has more than 64 bits")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
