"""Lists of files, as users give them."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from anna_onnx.errors import AnnaError


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
            yield from _listed(sys.stdin.buffer, "standard input")
        elif file.startswith("@"):
            path = Path(file[1:])
            try:
                with path.open("rb") as lines:
                    yield from _listed(lines, str(path))
            except FileNotFoundError as error:
                raise AnnaError(f"{path}: no such file, needed a list of files") from error
            except (OSError, ValueError) as error:
                raise AnnaError(f"{path}: not a list of files ({getattr(error, 'strerror', None) or error})") from error
        else:
            yield file


def _listed(lines: Iterable[bytes], where: str) -> Iterator[str]:
    """Yield the file names of a list: bytes, for such they are to the system, of whatever encoding."""
    for number, line in enumerate(lines):
        name = line.rstrip(b"\r\n")
        if number == 0:
            name = name.removeprefix(codecs.BOM_UTF8)  # editors of Windows write a mark
        if b"\0" in name:
            raise AnnaError(f"{where}: not a list of files (it holds zero bytes), needed a name on each line, UTF-8")
        if name.strip():
            yield _decoded(name)


def _decoded(name: bytes) -> str:
    try:
        return os.fsdecode(name)
    except UnicodeDecodeError:  # Windows, where programs write in the code page
        import locale

        return name.decode(locale.getencoding(), "replace")


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
