"""Blocks: spectra that share their wavelengths, taken together from whatever files hold them.

Preparing and inferring a hundred spectra at once costs a fraction of doing
so one by one. Consecutive spectra on the same wavelengths, of one file or
of several, become one block, small enough to stay in the processor's cache.
Training sets, HDF5 or legacy binary, come as blocks from the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np

from anna_onnx.arrays import BoolArray, FloatArray, Floats
from anna_onnx.errors import AnnaError
from anna_onnx.readers import ReadOptions, read_each, registry
from anna_onnx.readers.assembly import Unread, are_measured, ascends, padding
from anna_onnx.readers.series import Alike, Series
from anna_onnx.readers.stacks import Stack
from anna_onnx.spectrum import Frame, Medium, Spectrum

ROWS = 128  # of spectra one by one; measured: 4096 pixels each, 64 to 1024 are within 15 %, this the best
FEW = 16  # of a series; fewer may be put together with others
STACK_ROWS = 512  # of a training set; measured: a fifth faster than 128, 1024 no better
PIXELS = 1 << 20  # of one block: 8 MB of float64
_REST = "; the rest of the file was not read"


class Setting(NamedTuple):
    """What the spectra of a block have in common.

    Attributes
    ----------
    wavelength : array of float64, shape (n_pixel,)
    medium, frame : str
    resolution : float or None
    """

    wavelength: FloatArray
    medium: Medium = "unknown"
    frame: Frame = "unknown"
    resolution: float | None = None

    def equals(self, other: Setting) -> bool:
        """Whether spectra of both fit into one block."""
        if self is other:
            return True
        known = (self.medium, self.frame, self.resolution)
        return known == (other.medium, other.frame, other.resolution) and (
            self.wavelength is other.wavelength or np.array_equal(self.wavelength, other.wavelength)
        )


@dataclass(frozen=True, eq=False)
class Block:
    """Spectra that share their wavelengths.

    Attributes
    ----------
    setting : Setting
    flux : array of float32 or float64, shape (n, n_pixel)
    sigma : array, shape (n, n_pixel), or None
    bad : array of bool, shape (n, n_pixel), or None
    radial_velocity : array, shape (n,), or None
        km/s, NaN = not stated.
    ids : sequence of str
    files : sequence of str
    hdus, rows : sequences of int or None
        Where in the files.
    notes : sequence of tuple of str
        What the reader assumed.
    """

    setting: Setting
    flux: Floats
    sigma: Floats | None
    bad: BoolArray | None
    radial_velocity: FloatArray | None
    ids: Sequence[str]
    files: Sequence[str]
    hdus: Sequence[int | None]
    rows: Sequence[int | None]
    notes: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.flux)


class Failure(NamedTuple):
    """A file, the rest of it, or one of its spectra, that could not be read.

    Attributes
    ----------
    file, message : str
    hdu, row : int or None
        Where in the file; None if it is the file.
    """

    file: str
    message: str
    hdu: int | None = None
    row: int | None = None


@dataclass(frozen=True)
class Part:
    """A file, or some of its spectra.

    Attributes
    ----------
    file : str
    first : int
        Spectra to leave out.
    last : int or None
        Where to stop; None: at the end.
    """

    file: str
    first: int = 0
    last: int | None = None


def read_blocks(parts: Iterable[Part], options: ReadOptions) -> Iterator[Block | Failure]:
    """Read the spectra of files, in their order; a file that cannot be read becomes a `Failure`.

    Parameters
    ----------
    parts : iterable of Part
    options : ReadOptions

    Yields
    ------
    Block or Failure
    """
    for come_alone, run in groupby(_open(parts, options), key=lambda item: isinstance(item, (Spectrum, Failure))):
        if come_alone:
            yield from _gathered(item for item in run if isinstance(item, (Spectrum, Failure)))
        else:
            yield from (item for item in run if isinstance(item, Block))


def as_blocks(spectra: Iterable[Spectrum | Unread]) -> Iterator[Block | Failure]:
    """Put consecutive spectra on the same wavelengths together."""
    return _gathered(map(_spectrum_or_failure, spectra))


def count_rows(file: str) -> int | None:
    """Return the number of spectra of a training set, which can be read from the middle; None for other files."""
    stack = _stack(file, ReadOptions())
    return None if stack is None else stack.n


def _stack(file: str, options: ReadOptions) -> Stack | None:
    """Return a training set whose spectra make blocks; None for other files."""
    try:
        stack = registry.stack(file, options)
    except (OSError, ValueError, KeyError, AnnaError):
        return None  # whoever reads it says what is wrong
    fits = stack is not None and stack.wavelength.size <= PIXELS and ascends(stack.wavelength)
    return stack if fits else None


def _open(parts: Iterable[Part], options: ReadOptions) -> Iterator[Spectrum | Failure | Block]:
    """Yield the spectra of files, those of a series and of training sets in blocks."""
    series, parts = Series(options), iter(parts)
    ahead: deque[Part] = deque()
    n = 1  # doubled as long as the series goes on, so that hardly a file is read in vain
    while True:
        ahead.extend(islice(parts, n - len(ahead)) if len(ahead) < n else ())
        if not ahead:
            return
        whole = [part.file for part in takewhile(_is_whole, islice(ahead, n))]
        alike = series.read(whole)
        if alike is None:
            yield from _one_file(ahead.popleft(), series, options)
            n = 1
            continue
        yield from alike.spectra() if len(alike) < FEW else [_alike_block(alike)]
        for _ in range(len(alike)):
            ahead.popleft()
        n = min(2 * n, max(1, min(ROWS, PIXELS // alike.first.n_pixel))) if len(alike) == n else 1


def _is_whole(part: Part) -> bool:
    return part.first == 0 and part.last is None


def _one_file(part: Part, series: Series, options: ReadOptions) -> Iterator[Spectrum | Failure | Block]:
    if (stack := _stack(part.file, options)) is not None:
        return _guarded(part, _stacked(part, stack, options))
    return _guarded(part, islice(_each(series, part.file, options), part.first, part.last))


def _each(series: Series, file: str, options: ReadOptions) -> Iterator[Spectrum | Failure]:
    """Yield the spectra of a file; the series learns from one that is alone."""
    alone: Spectrum | None = None
    for n, item in enumerate(read_each(file, options)):
        alone = item if n == 0 and isinstance(item, Spectrum) else None
        yield _spectrum_or_failure(item)
    if alone is not None:
        series.learn(file, alone)


def _spectrum_or_failure(item: Spectrum | Unread) -> Spectrum | Failure:
    if isinstance(item, Spectrum):
        return item
    return Failure(item.source.file, str(item.error), item.source.hdu, item.source.row)


def _guarded(part: Part, items: Iterable[Any]) -> Iterator[Any]:
    """Yield items until an error, which becomes a `Failure`: one bad file never stops the others."""
    iterator, rest = iter(items), _REST if part.first else ""
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except AnnaError as error:
            yield Failure(part.file, f"{error}{rest}")
            return
        except Exception as error:  # a bug, or a disk that fails: the other files are still wanted
            yield Failure(part.file, f"{part.file}: cannot be read ({type(error).__name__}: {error}){rest}")
            return
        yield item
        rest = _REST


def _gathered(items: Iterable[Spectrum | Failure]) -> Iterator[Block | Failure]:
    """Put consecutive spectra on the same wavelengths together."""
    waiting: list[Spectrum] = []
    setting: Setting | None = None
    for item in items:
        if isinstance(item, Failure):
            if setting is not None and waiting:
                yield _join(setting, waiting)
            yield item
            waiting = []
            continue
        own = Setting(item.wavelength, item.medium, item.frame, item.resolution)
        full = len(waiting) >= max(1, min(ROWS, PIXELS // item.n_pixel))
        if setting is None or full or not _fits(setting, own, waiting, item):
            if setting is not None and waiting:
                yield _join(setting, waiting)
            waiting, setting = [], own
        waiting.append(item)
    if setting is not None and waiting:
        yield _join(setting, waiting)


def _fits(setting: Setting, own: Setting, waiting: Sequence[Spectrum], item: Spectrum) -> bool:
    return setting.equals(own) and (not waiting or (waiting[0].sigma is None) == (item.sigma is None))


def _join(setting: Setting, spectra: Sequence[Spectrum]) -> Block:
    marked = np.stack([one.bad for one in spectra]) if any(one.bad.any() for one in spectra) else None
    velocity = None
    if any(one.radial_velocity is not None for one in spectra):
        velocity = np.array([np.nan if one.radial_velocity is None else one.radial_velocity for one in spectra])
    with np.errstate(over="ignore"):  # what is larger than float32 is no flux
        # float32, as the network's input will be, halves what goes through the memory.
        flux = np.stack([one.flux for one in spectra], dtype=np.float32, casting="same_kind")
    return Block(
        setting,
        flux=flux,
        sigma=None if spectra[0].sigma is None else np.stack([one.sigma for one in spectra]),  # type: ignore[misc]  # all or none
        bad=_padding(flux, marked),
        radial_velocity=velocity,
        ids=[one.id for one in spectra],
        files=[one.source.file for one in spectra],
        hdus=[one.source.hdu for one in spectra],
        rows=[one.source.row for one in spectra],
        notes=[one.notes for one in spectra],
    )


def _alike_block(alike: Alike) -> Block:
    first, n = alike.first, len(alike)
    with np.errstate(over="ignore"):
        flux = alike.flux.astype(np.float32, copy=False)
    return Block(
        Setting(first.wavelength, first.medium, first.frame, first.resolution),
        flux=flux,
        sigma=None,
        bad=_padding(flux, None),
        radial_velocity=None if first.radial_velocity is None else np.full(n, first.radial_velocity),
        ids=alike.ids,
        files=alike.files,
        hdus=[first.source.hdu] * n,
        rows=[first.source.row] * n,
        notes=[first.notes] * n,
    )


def _stacked(part: Part, stack: Stack, options: ReadOptions) -> Iterator[Block]:
    """Read the spectra of a training set, a block at a time."""
    facts = options.override(stack.facts)
    setting = Setting(stack.wavelength, facts.medium, facts.frame)
    last = stack.n if part.last is None else min(part.last, stack.n)
    size = max(1, min(STACK_ROWS, PIXELS // stack.wavelength.size))
    places = [slice(first, min(first + size, last)) for first in range(part.first, last, size)]
    for place, rows in zip(places, stack.read(places), strict=True):
        n = len(rows.flux)
        block = Block(
            setting,
            rows.flux,
            None,
            _padding(rows.flux, rows.bad),
            rows.radial_velocity,
            rows.ids,
            [part.file] * n,
            [None] * n,
            range(place.start, place.stop),
            [facts.notes] * n,
        )
        yield from [block] if rows.sigma is None else _with_errors(block, rows.sigma)


def _with_errors(block: Block, sigma: Floats) -> Iterator[Block]:
    """Yield a block with its errors, in two or more where only some of the rows have them."""
    sigma = np.where(are_measured(sigma, block.flux), sigma, np.nan)
    has_errors = np.asarray(np.isfinite(sigma).any(axis=1))
    edges = [0, *(np.flatnonzero(np.diff(has_errors)) + 1).tolist(), len(block)]
    for first, last in pairwise(edges):
        yield _cut(block, slice(first, last), sigma if has_errors[first] else None)


def _cut(block: Block, rows: slice, sigma: Floats | None) -> Block:
    return replace(
        block,
        flux=block.flux[rows],
        sigma=None if sigma is None else sigma[rows],
        bad=None if block.bad is None else block.bad[rows],
        radial_velocity=None if block.radial_velocity is None else block.radial_velocity[rows],
        ids=block.ids[rows],
        files=block.files[rows],
        hdus=block.hdus[rows],
        rows=block.rows[rows],
        notes=block.notes[rows],
    )


def _padding(flux: Floats, bad: BoolArray | None) -> BoolArray | None:
    """Add exact zeros at the ends and in runs, which stand for missing flux, to the bad pixels."""
    if flux.all():
        return bad
    bad = np.zeros(flux.shape, dtype=np.bool_) if bad is None else bad
    for row in np.flatnonzero((flux == 0).any(axis=1)):
        bad[row] |= padding(flux[row])
    return bad
