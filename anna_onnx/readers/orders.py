"""Orders, chips and arms of one star, merged into one spectrum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain, islice, pairwise
from typing import NamedTuple

import numpy as np

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.continuum import Normalization, fit_continuum
from anna_onnx.spectrum import Spectrum

from .assembly import Readings, Unread
from .options import ReadOptions

MOST_PIECES = 200  # of one star
LEAST_STEP = 0.1  # of an order's length, from one to the next; they overlap by more than half in the blue
ONE_LEVEL = 0.1  # fluxes of two pieces differ by less where they overlap, unless blaze or pixel sizes are still in them
ENOUGH_PIXELS = 10  # to compare them


class _Pixels(NamedTuple):
    """Pixels in order of wavelength; `weight` is zero where the flux must not be used."""

    wavelength: FloatArray
    flux: FloatArray
    weight: FloatArray


def merged_if_asked(spectra: Readings, options: ReadOptions) -> Readings:
    """Return the spectra of one star as they come, or merged when the user asks for that."""
    return _merged(spectra) if options.merge_orders else spectra


def merged_if_pieces(spectra: Readings, options: ReadOptions, *, are_stars: bool = False) -> Readings:
    """Return spectra of which the file does not say what they are, merged when asked for and where they can be pieces.

    Pieces of one star bear one name, are in one medium and frame, and overlap
    by less than half or advance from row to row. Others are left apart, with a note.

    Parameters
    ----------
    spectra : iterator of Spectrum or Unread
    options : ReadOptions
    are_stars : bool
        Whether they are known to be of several stars.
    """
    return _merged_pieces(spectra, are_stars) if options.merge_orders else spectra


def _merged_pieces(spectra: Readings, are_stars: bool) -> Readings:
    first = list(islice(spectra, MOST_PIECES + 1))
    pieces = [piece for piece in first if isinstance(piece, Spectrum)]
    if len(first) > MOST_PIECES:
        apart = f"more than {MOST_PIECES} spectra"
    else:
        apart = "these may be several stars" if are_stars else _why_apart(pieces)
    if not apart:
        yield from _merged(iter(first))
        return
    note = f"not merged: {apart}"
    for item in chain(first, spectra):
        if isinstance(item, Spectrum) and len(first) > 1 and note not in item.notes:
            item = replace(item, notes=(*item.notes, note))
        yield item


def _why_apart(pieces: Sequence[Spectrum]) -> str:
    """Return why spectra cannot be pieces of one, empty where they can."""
    if len({piece.id for piece in pieces}) > 1:
        return "their names differ"
    if len({(piece.medium, piece.frame) for piece in pieces}) > 1:
        return "their media or frames differ"
    if _overlap_little(pieces) or _advance(pieces):
        return ""
    return "they overlap by more than half, as several stars or exposures do"


def _overlap_little(pieces: Sequence[Spectrum]) -> bool:
    """Return whether spectra overlap by less than half of the shorter one."""
    ordered = sorted(pieces, key=lambda piece: float(piece.wavelength[0]))
    return all(
        2 * (blue.wavelength[-1] - red.wavelength[0]) < min(np.ptp(blue.wavelength), np.ptp(red.wavelength))
        for blue, red in pairwise(ordered)
    )


def _advance(pieces: Sequence[Spectrum]) -> bool:
    """Return whether the rows of one table go to the red, or to the blue, steadily, as the orders of an echelle do."""
    ends = np.array([piece.wavelength[[0, -1]] for piece in pieces])  # (piece, end)
    steps = np.diff(ends, axis=0) / np.diff(ends, axis=1).min()
    one_table = len({(piece.source.file, piece.source.hdu) for piece in pieces}) == 1
    return one_table and bool((steps >= LEAST_STEP).all() or (steps <= -LEAST_STEP).all())


def _merged(spectra: Readings) -> Readings:
    """Merge what can be read of a star, with a note on the rest of it."""
    items = list(spectra)
    pieces = [item for item in items if isinstance(item, Spectrum)]
    unread = [item for item in items if isinstance(item, Unread)]
    if not pieces:
        yield from unread
        return
    merged = merge(pieces)
    if unread:
        note = f"{len(unread)} of {len(items)} pieces left out: {unread[0].error}"
        merged = replace(merged, notes=(*merged.notes, note))
    yield merged


def merge(spectra: Sequence[Spectrum]) -> Spectrum:
    """Merge overlapping spectra of one star by inverse variance.

    The pixels of the bluer spectrum stay where two overlap; the redder is
    interpolated onto them. Without errors the weight falls linearly to the
    ends of each spectrum, where the blaze leaves least light. Gaps between
    spectra are filled with bad pixels, so that nothing is interpolated
    across them. Spectra that differ where they overlap, as echelle orders do
    that still have the blaze in them, or the size of their pixels, are divided by
    their continua first: no mean of such fluxes is the star's.

    Parameters
    ----------
    spectra : sequence of Spectrum
        In one medium and frame.

    Returns
    -------
    Spectrum
    """
    ordered = sorted(spectra, key=lambda spectrum: float(spectrum.wavelength[0]))
    if len(ordered) == 1:
        return ordered[0]
    has_sigma = all(spectrum.sigma is not None for spectrum in ordered)
    how = "by inverse variance" if has_sigma else "with weights that fall to the ends, for want of errors"
    notes = [f"{len(ordered)} pieces merged {how}"]
    pieces = [_pixels(spectrum, has_sigma) for spectrum in ordered]
    if _levels_differ(pieces):
        pieces = [_divided(piece) for piece in pieces]
        notes.append("each divided by its continuum first, because they differ where they overlap")
    merged = reduce(_join, pieces)
    with np.errstate(divide="ignore"):
        sigma = 1 / np.sqrt(merged.weight) if has_sigma else None
    first = ordered[0]
    return replace(
        first,
        wavelength=merged.wavelength,
        flux=merged.flux,
        sigma=sigma,
        bad=merged.weight == 0,
        source=replace(first.source, row=None),
        notes=(*first.notes, *notes),
    )


def _pixels(spectrum: Spectrum, has_sigma: bool) -> _Pixels:
    if has_sigma and spectrum.sigma is not None:
        weight = 1 / np.where(spectrum.bad, np.inf, spectrum.sigma) ** 2
    else:
        ends = np.minimum(np.arange(1, spectrum.n_pixel + 1), np.arange(spectrum.n_pixel, 0, -1))
        weight = np.where(spectrum.bad, 0.0, ends / spectrum.n_pixel)
    return _Pixels(spectrum.wavelength, np.where(spectrum.bad, 0.0, spectrum.flux), weight)


def _levels_differ(pieces: Sequence[_Pixels]) -> bool:
    """Return whether pieces, in order of wavelength, differ beyond the noise in a quarter of the overlaps and more."""
    off = [difference > ONE_LEVEL for blue, red in pairwise(pieces) for difference in _differences(blue, red)]
    return any(off) and sum(off) >= len(off) / 4


def _differences(blue: _Pixels, red: _Pixels) -> Iterator[float]:
    """Yield by how much the fluxes of two pieces differ at least, relatively, in either half of their overlap."""
    inside = (blue.wavelength >= red.wavelength[0]) & (blue.wavelength <= red.wavelength[-1])
    flux, weight = _at(red, blue.wavelength[inside])
    usable = (blue.weight[inside] > 0) & (weight > 0)
    for half in np.array_split(np.stack([blue.flux[inside], flux])[:, usable], 2, axis=1):
        if half.shape[1] >= ENOUGH_PIXELS:
            level = np.median(half, axis=1)
            error = 1.86 * np.median(np.abs(half - level[:, None]), axis=1) / np.sqrt(half.shape[1])  # of the medians
            beyond_noise = abs(level[1] - level[0]) - 3 * np.hypot(*error)
            yield float(beyond_noise / max(np.abs(level).max(), np.finfo(float).tiny))


def _divided(piece: _Pixels) -> _Pixels:
    """Return a piece divided by its continuum, without weight where none was found."""
    continuum = fit_continuum(piece.wavelength, piece.flux, piece.weight > 0, Normalization())
    found = np.isfinite(continuum)
    continuum = np.where(found, continuum, 1.0)
    return _Pixels(piece.wavelength, piece.flux / continuum, np.where(found, piece.weight * continuum**2, 0.0))


def _join(blue: _Pixels, red: _Pixels) -> _Pixels:
    """Return two spectra as one, `blue` beginning first."""
    overlap = (blue.wavelength >= red.wavelength[0]) & (blue.wavelength <= red.wavelength[-1])
    flux, weight = blue.flux.copy(), blue.weight.copy()
    if overlap.any():
        flux2, weight2 = _at(red, blue.wavelength[overlap])
        total = weight[overlap] + weight2
        mean = (weight[overlap] * flux[overlap] + weight2 * flux2) / np.where(total > 0, total, 1)
        flux[overlap], weight[overlap] = mean, total
    beyond = red.wavelength > blue.wavelength[-1]
    rest = _Pixels(*(array[beyond] for array in red))
    gap = _gap(blue.wavelength, rest.wavelength) if beyond.any() and not overlap.any() else np.empty(0)
    nothing = np.zeros(gap.size)
    return _Pixels(
        np.concatenate([blue.wavelength, gap, rest.wavelength]),
        np.concatenate([flux, nothing, rest.flux]),
        np.concatenate([weight, nothing, rest.weight]),
    )


def _at(pixels: _Pixels, wavelength: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Interpolate flux and weight linearly; a pixel beside a bad one gets no weight."""
    usable: BoolArray = pixels.weight > 0
    flux = np.interp(wavelength, pixels.wavelength, pixels.flux)
    weight = np.interp(wavelength, pixels.wavelength, pixels.weight)
    return flux, np.where(np.interp(wavelength, pixels.wavelength, usable.astype(np.float64)) == 1, weight, 0.0)


def _gap(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the two wavelengths that mark a gap as missing, empty when there is no gap."""
    step_left = left[-1] - left[-2]
    step_right = right[1] - right[0] if right.size > 1 else step_left
    if right[0] - left[-1] <= step_left + step_right:
        return np.empty(0)
    return np.array([left[-1] + step_left, right[0] - step_right])
