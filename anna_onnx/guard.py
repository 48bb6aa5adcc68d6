"""A guard against files from strangers: what they may cost in memory and time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from anna_onnx.files import Content
from anna_onnx.trial import HDF5_SIGNATURE

SPARE = 300 << 20  # bytes
STACK = 10 << 20  # bytes, of a thread of onnxruntime
_LOCK = Lock()


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """Let the process grow by 300 MB and a few times `size` at most, for as long as the block takes.

    A network of a few kilobytes can ask for any amount of memory; inside
    this block the system refuses it. Where it cannot (macOS, Windows) nothing is done.

    Parameters
    ----------
    size : int
        Bytes of the file.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with _LOCK:  # the limit is the whole process's
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _data_size(resource.getpagesize()) + SPARE + 4 * size + STACK * (os.cpu_count() or 1)
        known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *known]), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_size(page: int) -> int:
    """Return the bytes of private writable memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * page


def check_heaps(data: Content, before: int | None = None) -> None:
    """Refuse a damaged global heap (HDF5 File Format Specification III.E), over which libhdf5 never ends.

    Every collection must end inside the file, and be filled exactly by its pieces. What
    points to a piece is left to the reader, which checks that it exists and is as long as stated.

    Parameters
    ----------
    data : bytes or mmap
        An HDF5 file.
    before : int, optional
        Where to stop looking for heaps.

    Raises
    ------
    ValueError
    """
    if data[:8] != HDF5_SIGNATURE or len(data) < 64:
        raise ValueError("it does not begin as HDF5 does")
    width = data[14] if data[8] < 2 else data[10]  # of a length, by the version of the superblock
    if width not in (2, 4, 8):
        raise ValueError(f"lengths of {width} bytes")
    at = -1
    # The signature with its version: libhdf5 itself refuses others.
    while (at := data.find(b"GCOL\1", at + 1, len(data) if before is None else before)) >= 0:
        position, end = at + 16, at + int.from_bytes(data[at + 8 : at + 8 + width], "little")
        if end > len(data):
            raise ValueError(f"a global heap of {end - at} bytes, {len(data) - at} are left")
        while position + 16 <= end:
            index = int.from_bytes(data[position : position + 2], "little")
            size = int.from_bytes(data[position + 8 : position + 8 + width], "little")
            # Free space (0) counts its own header; behind it libhdf5 goes on.
            length = size if index == 0 else 16 + -(-size // 8) * 8
            if not 16 <= length <= end - position:
                raise ValueError(f"a global heap with a piece of {size} bytes")
            position += length
