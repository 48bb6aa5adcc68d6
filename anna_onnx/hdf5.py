"""HDF5 by hand, as far as reading a sidecar needs it.

To import h5py and open a file with it takes a tenth of the time of a short run. And a
sidecar comes from a stranger, while libhdf5 was written for files that one trusts.

h5py writes the earliest version of every structure unless told otherwise, and a sidecar
holds numbers, texts, and arrays in one piece. That is what is understood here; anything
else is refused.

References
----------
HDF5 File Format Specification Version 3.0, https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html,
whose sections are named below.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_PARTS = 1000  # messages of an object, members of a group
MAX_PIECES = 1 << 12  # of a heap, which libhdf5 lets grow to 64 KB
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS = 1, 3, 7, 8, 11, 12, 16, 17
_LINKS = {2, 6}
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)
_DEFLATE, _SHUFFLE = 1, 2
# As a type is stored (IV.A.2.d), without what follows from the size.
_NUMBERS: dict[bytes, np.dtype[Any]] = {
    bytes.fromhex("11200f00 02000000"): np.dtype("<f2"),
    bytes.fromhex("11201f00 04000000"): np.dtype("<f4"),
    bytes.fromhex("11203f00 08000000"): np.dtype("<f8"),
    bytes.fromhex("10080000 04000000"): np.dtype("<i4"),
    bytes.fromhex("10080000 08000000"): np.dtype("<i8"),
}
_TEXT = bytes.fromhex("19010100 10000000")  # of any length, in UTF-8
_REFERENCE = struct.Struct("<IQI")  # to a text: its length, the heap, its number there


class Stored(NamedTuple):
    """What an attribute or a dataset holds, not yet looked at.

    Attributes
    ----------
    content : bytes
        The file.
    kind : bytes
        The type, as stored.
    shape : tuple of int
    load : callable
        Returns the bytes of the values, when it is told how many.
    piece : int
        Bytes that are unpacked at once; 0 where nothing is packed.
    """

    content: bytes
    kind: bytes
    shape: tuple[int, ...]
    load: Callable[[int], bytes]
    piece: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        return self.kind == _TEXT

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type of its numbers; None where it holds something else."""
        return _NUMBERS.get(self.kind)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return max(math.prod(self.shape) * int.from_bytes(self.kind[4:], "little"), self.piece)

    def numbers(self) -> NDArray[Any]:
        """Return the numbers, in the shape and type as stored."""
        return np.frombuffer(self.load(self.nbytes), self.dtype).reshape(self.shape).copy()

    def texts(self) -> list[str]:
        """Return the texts, in one row."""
        references = list(_REFERENCE.iter_unpack(self.load(self.nbytes)))
        heaps = {heap: _pieces(self.content, heap) for length, heap, _ in references if length}
        return [bytes(heaps[heap][number][:length]).decode() if length else "" for length, heap, number in references]


class Node:
    """A group or a dataset (IV.A.1.a), a mapping of paths to what a group holds.

    Parameters
    ----------
    content : bytes
        The file; that its global heaps are whole is taken as checked (`anna_onnx.guard.check_heaps`).
    address : int
    """

    def __init__(self, content: bytes, address: int) -> None:
        self._content = content
        self._messages = list(_messages(content, address))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __getitem__(self, path: str) -> Node:
        node = self
        for name in path.split("/"):
            if name not in node._members:
                raise LookupError(f"{path} is a link, or missing")
            node = Node(self._content, node._members[name])
        return node

    @cached_property
    def attributes(self) -> dict[str, Stored]:
        """Attributes by name (IV.A.2.m)."""
        return dict(_attribute(self._content, body) for kind, body in self._messages if kind == _ATTRIBUTE)

    @cached_property
    def dataset(self) -> Stored | None:
        """What it holds as a dataset; None of a group."""
        messages = dict(self._messages)
        if _LAYOUT not in messages:
            return None
        layout = messages[_LAYOUT]
        if _EXTERNAL in messages or (layout[0] > 3 and layout[1] == _VIRTUAL):
            raise ValueError("kept in another file")
        kind, shape = bytes(messages[_TYPE][:8]), _shape(messages[_SPACE])
        return _laid_out(self._content, kind, shape, layout, messages.get(_FILTERS))

    @cached_property
    def _members(self) -> dict[str, int]:
        """Addresses of what a group holds itself, by name."""
        messages = dict(self._messages)
        if _LINKS & messages.keys():
            raise ValueError("a group of links, as the default of h5py is not")
        return dict(_symbols(self._content, messages[_SYMBOLS])) if _SYMBOLS in messages else {}


def root(content: bytes) -> Node:
    """Return the root group of a file (II.A).

    Reading a damaged file raises ValueError, LookupError, ArithmeticError, struct.error or zlib.error.
    """
    version, offsets, lengths = content[8], content[13], content[14]
    if (version, offsets, lengths) != (0, 8, 8):
        raise ValueError(f"superblock of version {version}, addresses of {offsets} bytes: not the default of h5py")
    return Node(content, struct.unpack_from("<Q", content, 64)[0])


def _messages(content: bytes, address: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the messages of an object header, each its kind and its body."""
    version, left, size = struct.unpack_from("<BxHxxxxI", content, address)
    if version != 1 or left > MAX_PARTS:
        raise ValueError(f"no object header of version 1 at {address}")
    blocks = [(address + 16, size)]
    for start, size in blocks:  # which grows
        at = start
        while left and at + 8 <= start + size:
            kind, length, flags = struct.unpack_from("<HHB", content, at)
            body = memoryview(content)[at + 8 : at + 8 + length]
            if flags & 2:
                raise ValueError("a message that is shared between objects")
            if kind == _CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", body))
            yield kind, body
            at, left = at + 8 + length, left - 1


def _symbols(content: bytes, body: memoryview) -> Iterator[tuple[str, int]]:
    """Yield the members of a group from its symbol table (III.A.1, III.B, III.C, III.D); no links."""
    tree, heap = struct.unpack_from("<QQ", body)
    names = struct.unpack_from("<Q", content, heap + 24)[0]
    found = 0
    for table in _children(content, tree, key=8):
        signature, n = struct.unpack_from("<4s2xH", content, table)
        found += n
        if signature != b"SNOD" or found > MAX_PARTS:
            raise ValueError(f"no symbol table at {table}, or one of {found} names")
        for at in range(table + 8, table + 8 + 40 * n, 40):
            name, address, kind = struct.unpack_from("<QQI", content, at)
            if kind != 2:
                yield content[names + name : content.index(b"\0", names + name)].decode(), address


def _children(content: bytes, address: int, key: int) -> list[int]:
    """Return the addresses in a B-tree of one level (III.A.1), whose keys have `key` bytes."""
    signature, level, n = struct.unpack_from("<4sxBH", content, address)
    if signature != b"TREE" or level or n > MAX_PARTS:
        raise ValueError(f"no B-tree of one level at {address}")
    return [struct.unpack_from("<Q", content, address + 24 + key + (key + 8) * i)[0] for i in range(n)]


def _pieces(content: bytes, address: int) -> dict[int, memoryview]:
    """Return what a global heap holds, by number (III.E)."""
    signature, size = struct.unpack_from("<5s3xQ", content, address)
    if signature != b"GCOL\1":
        raise ValueError(f"no global heap at {address}")
    pieces: dict[int, memoryview] = {}
    at = address + 16
    for _ in range(MAX_PIECES):
        number, length = struct.unpack_from("<H6xQ", content, at) if at + 16 <= address + size else (0, 0)
        if number == 0:
            break  # free space, to the end
        pieces[number] = memoryview(content)[at + 16 : at + 16 + length]
        at += 16 + -(-length // 8) * 8
    return pieces


def _shape(body: memoryview) -> tuple[int, ...]:
    """Return the shape of a dataspace (IV.A.2.b)."""
    version, rank = body[0], body[1]
    if version != 1:
        raise ValueError(f"dataspace of version {version}")
    return struct.unpack_from(f"<{rank}Q", body, 8)


def _attribute(content: bytes, body: memoryview) -> tuple[str, Stored]:
    version, *sizes = struct.unpack_from("<BxHHH", body)
    if version != 1:
        raise ValueError(f"attribute of version {version}")
    parts, at = [], 8
    for size in sizes:
        parts.append(body[at : at + size])
        at += -(-size // 8) * 8
    name, kind, space = parts
    values = bytes(body[at:])
    return bytes(name).rstrip(b"\0").decode(), Stored(content, bytes(kind[:8]), _shape(space), lambda n: values[:n])


def _laid_out(
    content: bytes, kind: bytes, shape: tuple[int, ...], layout: memoryview, filters: memoryview | None
) -> Stored:
    """Return a dataset from its data layout (IV.A.2.i)."""
    version, form = layout[0], layout[1]
    if version != 3 or form not in (_COMPACT, _CONTIGUOUS, _CHUNKED):
        raise ValueError(f"data layout {form} of version {version}")
    if form == _COMPACT:
        return Stored(content, kind, shape, lambda n: bytes(layout[4 : 4 + n]))
    if form == _CONTIGUOUS:
        address = struct.unpack_from("<Q", layout, 2)[0]
        return Stored(content, kind, shape, lambda n: content[address : address + n])
    rank, tree = struct.unpack_from("<BQ", layout, 2)
    *chunk, width = struct.unpack_from(f"<{rank}I", layout, 11)

    def load(n: int) -> bytes:
        if tuple(chunk) != shape or _filters(filters) != [_SHUFFLE, _DEFLATE]:
            raise ValueError(f"pieces of {chunk} of {shape}, filters {_filters(filters)}: needed one, shuffle and gzip")
        (address,) = _children(content, tree, key=8 + 8 * rank)
        size, skipped = struct.unpack_from("<II", content, tree + 24)
        unpacked = zlib.decompressobj().decompress(content[address : address + size], n + 1)
        if skipped or len(unpacked) != n:
            raise ValueError(f"filters left out, or not {n} bytes")
        return np.frombuffer(unpacked, np.uint8).reshape(width, -1).T.tobytes()

    return Stored(content, kind, shape, load, math.prod(chunk) * width)


def _filters(body: memoryview | None) -> list[int]:
    """Return the numbers of the filters of a dataset (IV.A.2.l)."""
    if body is None or body[0] != 1:
        return []
    numbers, at = [], 8
    for _ in range(body[1]):
        number, length, n_setting = struct.unpack_from("<HH2xH", body, at)
        numbers.append(number)
        at += 8 + length + 4 * (n_setting + n_setting % 2)
    return numbers
