"""Files: written whole or not at all, by one process at a time, and read if their version is known."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from anna_onnx.errors import ResultError, VersionError

Content = bytes | mmap.mmap  # of a file: read, or mapped into the memory
EMAIL = 10e6  # bytes that mail servers let through
BEYOND = 0x7FFF0000  # bytes: a place that no file of ours reaches


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an error.

    Raises
    ------
    ResultError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that a file or folder cannot be written, which the block tries to."""
    try:
        yield
    except OSError as error:
        raise ResultError(f"{path}: cannot be written ({error.strerror or error})") from error


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there.

    Raises
    ------
    ResultError
        If it cannot be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all, with the same bytes on every system."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def check_folder(path: Path) -> None:
    """Make a folder if there is none, and see that files can be written to it.

    Raises
    ------
    ResultError
        If they cannot.
    """
    import tempfile

    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


def open_alone(path: Path) -> TextIO | None:
    """Open a text file to read it and to append to it, None if another process has it open in this way.

    The system gives it free when it is closed or the process ends, however that comes about. Where
    the file system has no locks, nobody is kept out.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    file = path.open("a+", encoding="utf-8")
    # Whoever had it may have removed it between the two steps.
    if _lock(file.fileno()) and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    file.close()
    return None


def _lock(number: int) -> bool:
    """Lock an open file and say whether nobody else had done so."""
    try:
        if sys.platform == "win32":
            import msvcrt

            before = os.lseek(number, 0, os.SEEK_CUR)
            os.lseek(number, BEYOND, os.SEEK_SET)  # what is locked there, others cannot read
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            os.lseek(number, before, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # no locks here
        pass
    return True


def check_version(found: str, known: str, where: str) -> None:
    """Refuse a format whose major version is newer than the one known.

    Raises
    ------
    VersionError
    """
    try:
        newer = int(found.split(".")[0]) > int(known.split(".")[0])
    except ValueError:
        raise VersionError(f"{where}: format_version '{found}' is no version") from None
    if newer:
        raise VersionError(f"{where}: format_version {found}, this program knows {known}: upgrade anna-onnx")
