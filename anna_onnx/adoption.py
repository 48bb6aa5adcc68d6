"""Adoption: from what Python users have to `Spectrum`: arrays, quantities, specutils objects, files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import AnnaError, SpectrumError
from anna_onnx.quantity import Numbers, shown, unpack
from anna_onnx.readers import ReadOptions, read_each
from anna_onnx.readers.assembly import Unread
from anna_onnx.readers.by_specutils import standard_deviation
from anna_onnx.spectrum import Source, Spectrum

_OF_FILES = ("hdu", "wave_unit", "columns", "merge_orders")


def as_spectra(given: Any, options: ReadOptions | None = None) -> Iterator[Spectrum | Unread]:
    """Yield `Spectrum` objects, and `Unread` for those of a file that cannot be read while others can.

    Parameters
    ----------
    given : object or iterable of objects
        Each a `Spectrum`, a file name, a tuple (wavelength, flux) or (wavelength,
        flux, sigma), or an object with `spectral_axis` and `flux` as
        specutils has them. Wavelengths are quantities or in Angstrom; flux and
        sigma may have a row for each spectrum. Pixels that are masked in any
        of the arrays are bad.
    options : ReadOptions, optional
        Its `medium` and `frame` hold for all, the others for files.

    Raises
    ------
    AnnaError
        If something is none of these, a file cannot be read, or an option for files is given with something else.
    """
    options = options or ReadOptions()
    for one in _each(given):
        if isinstance(one, (str, os.PathLike)):
            yield from read_each(one, options)
        else:
            yield from (_told(spectrum, options) for spectrum in _adopted(one))


def _each(given: Any) -> Iterator[Any]:
    if isinstance(given, (str, os.PathLike)) or _is_spectral(given):
        return iter([given])
    if hasattr(given, "keys"):  # a table or mapping, whose names are not those of files
        raise _refusal(given)
    try:
        every: Iterator[Any] = iter(given)
    except TypeError:
        raise _refusal(given) from None
    return every


def _adopted(one: Any) -> Iterator[Spectrum]:
    if isinstance(one, Spectrum):
        return iter([one])
    if _is_arrays(one):
        return _from_arrays(*one)
    if _is_spectral(one):
        return _from_specutils(one)
    raise _refusal(one)


def _is_spectral(given: Any) -> bool:
    of_specutils = hasattr(given, "spectral_axis") and hasattr(given, "flux")
    return isinstance(given, Spectrum) or of_specutils or _is_arrays(given)


def _is_arrays(given: Any) -> bool:
    """Whether this is a tuple of arrays, and not one of spectra."""
    if not isinstance(given, tuple) or len(given) not in (2, 3) or _is_spectral(given[0]):
        return False
    try:
        return np.ndim(given[0]) > 0
    except (TypeError, ValueError):  # a sequence of this and that, such as quantities
        return True


def _refusal(given: Any) -> AnnaError:
    return AnnaError(
        f"cannot infer {type(given).__name__}: needed a Spectrum, a file name, (wavelength, flux[, sigma]), "
        "or an object with spectral_axis and flux"
    )


def _told(spectrum: Spectrum, options: ReadOptions) -> Spectrum:
    """Return a spectrum with the medium and frame that the user states."""
    for name in _OF_FILES:
        if (value := getattr(options, name)) is not None and value is not False:
            better = "; give wavelengths in Angstrom, or with a unit of astropy" if name == "wave_unit" else ""
            raise AnnaError(f"{spectrum.name}: {name} {shown(value)} is an option for files{better}")
    if options.medium is None and options.frame is None:
        return spectrum
    return replace(spectrum, medium=options.medium or spectrum.medium, frame=options.frame or spectrum.frame)


def _from_arrays(wavelength: Any, flux: Any, sigma: Any = None, bad: Any = None) -> Iterator[Spectrum]:
    axis, level = unpack(wavelength, "array: wavelength").to_angstrom(), unpack(flux, "array: flux")
    if axis.values.ndim != 1:
        raise SpectrumError(f"wavelengths of shape {axis.values.shape}: needed one dimension, the same for all rows")
    rows = np.atleast_2d(level.values)
    if rows.ndim != 2 or rows.shape[1] != axis.values.size:
        raise SpectrumError(f"array: flux of shape {level.values.shape} for {axis.values.size} wavelengths")
    masks, error = [axis.masked, level.masked, bad], None
    if sigma is not None:
        numbers = unpack(sigma, "array: sigma").to(level.unit)
        error = _like(rows, numbers.values, "sigma")
        masks.append(numbers.masked)
    unusable = [_like(rows, mask, "mask") for mask in masks if mask is not None]
    marks = np.logical_or.reduce([np.zeros(rows.shape, dtype=np.bool_), *unusable])
    order, notes = _order(axis)
    ascending: FloatArray = np.ascontiguousarray(axis.values[order])
    for row, one in enumerate(rows):
        error_row = None if error is None else error[row][order]
        source = Source(row=row if len(rows) > 1 else None)
        yield Spectrum(ascending, one[order], error_row, marks[row][order], source=source, notes=notes)


def _order(axis: Numbers) -> tuple[Any, tuple[str, ...]]:
    """Return the index that lets wavelengths ascend, and what is to be noted.

    Pixels whose wavelength is masked have a place, and are bad, only where what lies beneath the mask is in order.
    """
    values, step = axis.values, np.diff(axis.values)
    descends = (step < 0).all()
    if axis.masked is None or ((descends or (step > 0).all()) and ((values > 0) & (values < np.inf)).all()):
        return slice(None, None, -1 if descends else 1), ()
    pixels = np.flatnonzero(~axis.masked)
    if (np.diff(values[pixels]) < 0).all():
        pixels = pixels[::-1]
    return pixels, (f"{values.size - pixels.size} pixels without a wavelength dropped",)


def _like(rows: NDArray[Any], values: NDArray[Any], what: str) -> NDArray[Any]:
    try:
        return np.broadcast_to(values, rows.shape)
    except ValueError:
        needed = rows.shape if len(rows) > 1 else rows.shape[1:]
        raise SpectrumError(f"array: {what} of shape {values.shape}, needed that of the flux, {needed}") from None


def _from_specutils(given: Any) -> Iterator[Spectrum]:
    if np.ndim(given.spectral_axis) > 1:  # a SpectrumCollection
        for row in range(len(given)):
            yield from _from_specutils(given[row])
        return
    sigma = standard_deviation(getattr(given, "uncertainty", None), given.flux.unit)
    mask = getattr(given, "mask", None)
    arrays: list[Any] = [given.flux, sigma, None if mask is None else np.asarray(mask, dtype=np.bool_)]
    if (index := getattr(given, "spectral_axis_index", None)) is not None:
        arrays = [None if array is None else np.moveaxis(array, index, -1) for array in arrays]
    name = str((getattr(given, "meta", None) or {}).get("OBJECT", ""))
    spectra = [replace(one, id=name) for one in _from_arrays(given.spectral_axis, *arrays)]
    velocity = getattr(given, "radial_velocity", None)
    stated = np.broadcast_to(0.0 if velocity is None else velocity.to_value("km / s"), len(spectra))
    for spectrum, one in zip(spectra, stated.tolist(), strict=True):
        yield replace(spectrum, radial_velocity=one) if one else spectrum  # 0 is what specutils fills in
