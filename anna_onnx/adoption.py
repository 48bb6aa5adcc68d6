"""Adoption: from what Python users have to `Spectrum`: arrays, quantities, specutils objects, files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.errors import AnnaError
from anna_onnx.readers import ReadOptions, iter_spectra
from anna_onnx.readers.by_specutils import angstrom, standard_deviation
from anna_onnx.spectrum import Source, Spectrum


def as_spectra(given: Any, options: ReadOptions | None = None) -> Iterator[Spectrum]:
    """Yield `Spectrum` objects.

    Parameters
    ----------
    given : object or iterable of objects
        Each a `Spectrum`, a file name, a tuple (wavelength, flux) or (wavelength,
        flux, sigma), or an object with `spectral_axis` and `flux` as
        specutils has them. Wavelengths are quantities or in Angstrom; flux and
        sigma may have a row for each spectrum.
    options : ReadOptions, optional
        Of files; its `medium` and `frame` hold for all.

    Raises
    ------
    AnnaError
        If something is none of these.
    """
    options = options or ReadOptions()
    for one in [given] if _is_single(given) else given:
        if isinstance(one, (str, os.PathLike)):
            yield from iter_spectra(one, options)
        elif isinstance(one, Spectrum):
            yield _told(one, options)
        elif _is_arrays(one):
            yield from (_told(spectrum, options) for spectrum in _from_arrays(*one))
        elif hasattr(one, "spectral_axis") and hasattr(one, "flux"):
            yield from (_told(spectrum, options) for spectrum in _from_specutils(one))
        else:
            raise AnnaError(
                f"cannot infer {type(one).__name__}: needed a Spectrum, a file name, (wavelength, flux[, sigma]), "
                "or an object with spectral_axis and flux"
            )


def _is_single(given: Any) -> bool:
    return isinstance(given, (Spectrum, str, os.PathLike)) or hasattr(given, "spectral_axis") or _is_arrays(given)


def _is_arrays(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) in (2, 3) and all(np.ndim(part) in (1, 2) for part in given)


def _told(spectrum: Spectrum, options: ReadOptions) -> Spectrum:
    """Return a spectrum with the medium and frame that the user states."""
    if options.medium is None and options.frame is None:
        return spectrum
    return replace(spectrum, medium=options.medium or spectrum.medium, frame=options.frame or spectrum.frame)


def _from_arrays(
    wavelength: Any, flux: Any, sigma: Any = None, bad: Any = None, name: str = "", velocity: float | None = None
) -> Iterator[Spectrum]:
    wavelength = angstrom(wavelength) if hasattr(wavelength, "unit") else np.asarray(wavelength, dtype=np.float64)
    if wavelength.ndim != 1:
        raise AnnaError(f"wavelengths of shape {wavelength.shape}: needed one dimension, the same for all rows")
    order: Any = slice(None, None, -1) if (np.diff(wavelength) < 0).all() else slice(None)
    rows = np.atleast_2d(_value(flux))
    others = [None if part is None else np.broadcast_to(_value(part), rows.shape) for part in (sigma, bad)]
    for row, one in enumerate(rows):
        sigma_row, bad_row = (None if part is None else part[row][order] for part in others)
        source = Source(row=row if len(rows) > 1 else None)
        yield Spectrum(
            wavelength[order],
            one[order],
            sigma_row,
            bad_row,  # type: ignore[arg-type]  # None stands for no bad pixels
            id=name,
            source=source,
            radial_velocity=velocity,
        )


def _from_specutils(given: Any) -> Iterator[Spectrum]:
    sigma = standard_deviation(getattr(given, "uncertainty", None))
    mask = getattr(given, "mask", None)
    name = str((getattr(given, "meta", None) or {}).get("OBJECT", ""))
    velocity = getattr(given, "radial_velocity", None)
    yield from _from_arrays(
        given.spectral_axis,
        given.flux,
        sigma,
        None if mask is None else np.asarray(mask, dtype=np.bool_),
        name,
        None if velocity is None or not float(velocity.value) else float(velocity.to_value("km / s")),
    )


def _value(array: ArrayLike) -> Any:
    return np.asarray(getattr(array, "value", array))
