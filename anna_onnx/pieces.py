"""Work in pieces, so that memory stays bounded: rows are cut into slices, and pieces handed out a few ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Piece = TypeVar("_Piece")
_Promise = TypeVar("_Promise")


def in_order(submit: Callable[[_Piece], _Promise], pieces: Iterable[_Piece], n: int) -> Iterator[_Promise]:
    """Hand out pieces, n of them ahead, and yield what `submit` gives for each, in their order.

    Parameters
    ----------
    submit : callable
        Begins the work on a piece, and returns without waiting for it, such as with a future.
    pieces : iterable
    n : int

    Yields
    ------
    promise
        Whose result is to be taken before the next is asked for.
    """
    pieces = iter(pieces)
    waiting = deque(map(submit, islice(pieces, n)))
    while waiting:
        yield waiting.popleft()
        waiting.extend(map(submit, islice(pieces, 1)))


def slices(n: int, size: int) -> Iterator[slice]:
    """Return the slices that cut `n` rows into blocks of `size`."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))
