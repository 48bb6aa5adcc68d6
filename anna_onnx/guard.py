"""A guard against files from strangers: what they may cost in memory and time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

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


def check_heaps(data: Any, before: int | None = None) -> None:
    """Refuse a damaged global heap (HDF5 File Format Specification III.E), over which libhdf5 never ends.

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
    at = -1
    while (at := data.find(b"GCOL", at + 1, len(data) if before is None else before)) >= 0:
        position, end = at + 16, at + int.from_bytes(data[at + 8 : at + 16], "little")
        while position + 16 <= min(end, len(data)):
            index = int.from_bytes(data[position : position + 2], "little")
            used = int.from_bytes(data[position + 8 : position + 16], "little")
            if used > end - position or (index == 0 and used < 16):
                raise ValueError(f"a global heap with a piece of {used} bytes")
            # Free space counts its own header; behind it libhdf5 goes on.
            position += used if index == 0 else 16 + -(-used // 8) * 8
