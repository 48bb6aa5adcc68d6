"""Trials of HDF5 files: libhdf5 crashes on some damaged ones, so another process opens a file first.

Such a process takes as long to start as ``anna-lite`` itself, which therefore begins
the trial of its first file before it imports anything large; so this module imports nothing of the kind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anna_onnx.errors import ReadError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
SECONDS = 30  # on a busy machine; of the processor a trial has five
_TRIAL = """
import io, os, sys
try:
    import resource
except ImportError:
    pass  # Windows
else:
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
import h5py
source = io.BytesIO(sys.stdin.buffer.read()) if sys.argv[1] == "-" else sys.argv[1]
with h5py.File(source, "r", locking=False) as file:
    dict(file.attrs)
    for name in set(file) & {"wavelength", "flux", "sigma", "mask", "id"}:
        dict(file[name].attrs), file[name][:1], file[name][-1:]
os._exit(0)  # to take the modules down again takes a sixth of the time
"""


class Trial:
    """Another process that opens an HDF5 file.

    Parameters
    ----------
    path : str
    content : bytes, optional
        Of a file that was unpacked.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        from subprocess import DEVNULL, PIPE, Popen

        self._path, self._content = path, content
        self._process = Popen(
            [sys.executable, "-c", _TRIAL, path if content is None else "-"],
            stdin=DEVNULL if content is None else PIPE,
            stdout=DEVNULL,
            stderr=PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a thread has a buffer of its own
        )

    def check(self) -> None:
        """Wait for the end.

        Raises
        ------
        ReadError
            If the file cannot be opened.
        """
        from subprocess import TimeoutExpired

        try:
            said = self._process.communicate(self._content, SECONDS)[1]
        except TimeoutExpired:
            raise ReadError(f"{self._path}: damaged HDF5 (libhdf5 does not end on it)") from None
        finally:
            self.end()
        if self._process.returncode:
            reason = (said.decode(errors="replace").strip().splitlines() or ["libhdf5 crashes on it"])[-1]
            raise ReadError(f"{self._path}: damaged HDF5 ({reason[:200]})")

    def end(self) -> None:
        """End the process, if it has not ended."""
        with self._process as process:  # closes the pipes, and waits
            process.kill()


_begun: dict[tuple[str, int, int], Trial] = {}


@contextmanager
def begun(path: str) -> Iterator[None]:
    """Begin the trial of a file, if it is one of HDF5, for whoever asks for it inside the block."""
    with suppress(OSError):  # whoever reads it says what is wrong
        if Path(path).is_file() and is_hdf5(path):  # a pipe would wait for ever
            _begun[state(path)] = Trial(path)
    try:
        yield
    finally:
        while _begun:
            _begun.popitem()[1].end()


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Say whether a file begins as HDF5 files do."""
    with Path(path).open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def trial_of(path: str, size: int, changed: int) -> Trial:
    """Return the trial of a file in a `state`: the one that was begun, or a new one."""
    return _begun.pop((path, size, changed), None) or Trial(path)


def state(path: str) -> tuple[str, int, int]:
    """Return the name of a file, its size in bytes, and when it changed last in ns."""
    status = Path(path).stat()
    return path, status.st_size, status.st_mtime_ns
