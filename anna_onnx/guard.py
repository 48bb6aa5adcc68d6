"""A guard against files from strangers: what they may cost in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

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
