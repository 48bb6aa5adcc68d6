"""Files that appear under their name only when they are complete, and lists of files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anna_onnx.errors import AnnaError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all, with the same bytes on every system."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def is_one_of(path: Path, others: Iterable[str | os.PathLike[str]]) -> bool:
    """Whether a file is one of some others, by whatever names; false if there is no such file yet."""
    try:
        own = path.stat()
    except (OSError, ValueError):
        return False
    for other in others:
        with suppress(OSError, ValueError):  # whoever reads it says what is wrong
            if os.path.samestat(own, Path(other).stat()):
                return True
    return False


def expand(files: Iterable[str]) -> Iterator[str]:
    """Yield file names, those in lists included.

    Parameters
    ----------
    files : iterable of str
        ``-`` stands for a list on standard input, ``@list.txt`` for one in a file.

    Raises
    ------
    AnnaError
        If a list cannot be read.
    """
    for file in files:
        if file == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        elif file.startswith("@"):
            try:
                lines = Path(file[1:]).read_text(encoding="utf-8-sig").splitlines()  # editors of Windows write a mark
            except (OSError, UnicodeDecodeError) as error:
                raise AnnaError(f"{file[1:]}: not a list of files ({error})") from error
            yield from (line for line in lines if line.strip())
        else:
            yield file
