"""From stored arrays to a `Spectrum`: order, padding, errors, overrides, and the notes on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import AnnaError, NoWavelengthError
from anna_onnx.spectrum import Source, Spectrum

from .facts import Facts
from .options import ReadOptions

HUGE_ERROR = 1e10  # APOGEE and others write this for "no measurement", unless fluxes are as large:
FAR_ABOVE = 10.0  # median fluxes
GAP_OF_ZEROS = 5

ErrorKind = Literal["sigma", "ivar", "variance"]
_T = TypeVar("_T")


class Unread(NamedTuple):
    """One of several spectra of a file, which cannot be read while the others can."""

    source: Source
    error: AnnaError


Readings = Iterator[Spectrum | Unread]


def attempt(read: Callable[..., _T], source: Source, *given: Any) -> _T | Unread:
    """Return what `read` makes of one of several places in a file, or what it complains of."""
    try:
        return read(source, *given)
    except AnnaError as error:
        return Unread(source, error)


def assemble(
    wavelength: FloatArray,
    flux: ArrayLike,
    facts: Facts,
    source: Source,
    options: ReadOptions,
    *,
    sigma: ArrayLike | None = None,
    bad: ArrayLike | None = None,
) -> Spectrum:
    """Make a spectrum of arrays as they are stored.

    Pixels without a wavelength are dropped, for there is no place to put
    them; descending wavelengths are reversed, others sorted. Exact zeros at
    the ends and in runs are padding, errors of 1e10 and more, far above the
    fluxes, mean no measurement: both become bad. Where no resolving power is
    stated it is that of the instrument, if the pixels are small enough for it.

    Parameters
    ----------
    wavelength : array of float64, shape (n_pixel,)
        Angstrom.
    flux, sigma, bad : array_like, shape (n_pixel,)
    facts : Facts
    source : Source
    options : ReadOptions

    Raises
    ------
    NoWavelengthError
        If fewer than two wavelengths are positive and finite, or all are equal.
    SpectrumError
        If the arrays differ in length, or wavelengths cannot be put in order.
    """
    flux = np.asarray(flux, dtype=np.float64)
    sigma, notes = _usable_sigma(sigma, flux)
    bad = padding(flux) if bad is None else padding(flux) | np.asarray(bad, dtype=np.bool_)
    arrays = (wavelength, flux, sigma, bad)
    if not ascends(wavelength) and all(a is None or np.shape(a) == np.shape(wavelength) for a in arrays):
        arrays, order_notes = _in_order(arrays, source)
        notes = (*notes, *order_notes)
    wavelength, flux, sigma, bad = arrays
    facts = _with_resolution(options.override(facts.noted(*notes)), wavelength)
    return Spectrum(
        wavelength,
        flux,
        sigma,
        bad,
        medium=facts.medium,
        frame=facts.frame,
        id=facts.id,
        source=source,
        notes=facts.notes,
        resolution=facts.resolution,
        radial_velocity=facts.radial_velocity,
    )


def _with_resolution(facts: Facts, wavelength: FloatArray) -> Facts:
    """Return facts with the resolving power of the instrument, where none is stated and the pixels can show it."""
    if facts.resolution is not None or facts.nominal is None or wavelength.size < 2:
        return facts
    instrument, resolution = facts.nominal
    middle = wavelength.size // 2
    if wavelength[middle] - wavelength[middle - 1] > wavelength[middle] / resolution:
        return facts  # binned, or resampled by somebody
    return facts.known(resolution=resolution).noted(f"resolving power {resolution:.0f}, that of {instrument}")


def ascends(wavelength: FloatArray) -> bool:
    """Return whether wavelengths are positive, finite and in order."""
    return bool(
        wavelength.ndim == 1
        and wavelength.size > 1
        and wavelength[0] > 0
        and np.isfinite(wavelength[-1])
        and (wavelength[1:] > wavelength[:-1]).all()
    )


def _in_order(arrays: tuple[Any, ...], source: Source) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Put the pixels in ascending order of wavelength."""
    wavelength = arrays[0]
    notes: list[str] = []
    usable = np.isfinite(wavelength) & (wavelength > 0)
    if usable.sum() < 2:
        raise NoWavelengthError(f"{source}: {usable.sum()} of {usable.size} pixels have a wavelength")
    if not usable.all():
        notes.append(f"{(~usable).sum()} pixels without a wavelength dropped")
        arrays = _take(arrays, usable)
    if np.ptp(arrays[0]) == 0:
        raise NoWavelengthError(f"{source}: the wavelength of all {usable.sum()} pixels is {arrays[0][0]:g}")
    step = np.diff(arrays[0])
    if (step < 0).all():
        return _take(arrays, slice(None, None, -1)), (*notes, "wavelengths stored descending, reversed")
    if not (step > 0).all():
        arrays = _take(arrays, np.argsort(arrays[0], kind="stable"))
        notes.append("overlapping or unordered wavelengths, sorted")
        arrays = (_apart(arrays[0]), *arrays[1:])
    return arrays, tuple(notes)


def _take(arrays: tuple[Any, ...], index: Any) -> tuple[Any, ...]:
    return tuple(None if array is None else array[index] for array in arrays)


def _apart(wavelength: FloatArray) -> FloatArray:
    """Move equal wavelengths apart by units in the last place, so that no pixel is lost."""
    same = np.concatenate([[False], np.diff(wavelength) == 0])
    position = np.arange(wavelength.size)
    rank = position - np.maximum.accumulate(np.where(same, 0, position))
    return wavelength + rank * np.spacing(wavelength)


def padding(flux: NDArray[Any]) -> BoolArray:
    """Return where exact zeros stand for missing flux: at the ends, and in runs of five and more."""
    zero = np.asarray(flux == 0)
    if not zero.any():
        return zero
    edges = np.flatnonzero(np.diff(np.concatenate([[False], zero, [False]])))
    first, last = edges[0::2], edges[1::2]
    missing = (last - first >= GAP_OF_ZEROS) | (first == 0) | (last == zero.size)
    zero[zero] = np.repeat(missing, last - first)
    return zero


def _usable_sigma(sigma: ArrayLike | None, flux: FloatArray) -> tuple[FloatArray | None, tuple[str, ...]]:
    """Return errors with NaN for none; an array without any error at all is as good as none."""
    if sigma is None:
        return None, ()
    sigma = np.asarray(sigma, dtype=np.float64)
    usable = are_measured(sigma, flux)
    if usable.all():
        return sigma, ()
    if not usable.any() and not (sigma >= HUGE_ERROR).any() and not np.isinf(sigma).any():
        return None, ("the file's errors are all zero or NaN, left out",)
    return np.where(usable, sigma, np.nan), ()


def are_measured(sigma: NDArray[Any], flux: NDArray[Any]) -> BoolArray:
    """Return which errors belong to a measurement: positive ones, but not those that are huge and far above the fluxes.

    Parameters
    ----------
    sigma, flux : arrays, shape (n_pixel,) or (n, n_pixel)
    """
    measured = np.asarray((sigma > 0) & (sigma < HUGE_ERROR))
    if measured.all():
        return measured
    huge = (sigma >= HUGE_ERROR) & np.isfinite(sigma)
    # Mostly the least of them is above every median.
    if huge.any() and np.where(huge, sigma, np.inf).min() < FAR_ABOVE * float(np.fmax.reduce(np.abs(flux), axis=None)):
        limit = np.array([_far_above(one) for one in np.atleast_2d(flux)])
        measured |= huge & (sigma < limit.reshape(*flux.shape[:-1], 1))
    return measured


def _far_above(flux: NDArray[Any]) -> float:
    """Return from where on an error is far above the fluxes of a spectrum."""
    level = np.abs(flux[np.isfinite(flux) & (flux != 0)])
    return FAR_ABOVE * float(np.median(level)) if level.size else 0.0


def number_names(values: NDArray[Any]) -> list[str]:
    """Return numbers as the names of stars, whole ones without a decimal point."""
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if (whole == values).all():
        return [str(value) for value in whole.tolist()]
    return [f"{value:.0f}" if float(value).is_integer() else str(value) for value in values.tolist()]


def as_sigma(errors: ArrayLike, kind: ErrorKind) -> FloatArray:
    """Return standard deviations: infinite where an inverse variance is not positive, NaN where a variance is not."""
    errors = np.asarray(errors, dtype=np.float64)
    if kind == "sigma":
        return errors
    if kind == "variance":
        return np.sqrt(np.where(errors > 0, errors, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(errors > 0, 1 / np.sqrt(errors), np.inf)
