"""Orders whose wavelengths are polynomials in the header: e2ds of HARPS, HARPS-N, SOPHIE and CORALIE.

References
----------
HARPS DRS User Manual, ESO 3P6-MAN-ESO-90100-0005: wavelength of pixel x (from 0) in order i is
sum over k of COEFF LL(k + i (d + 1)) x^k, in air, as observed.
"""

from __future__ import annotations

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import from_headers
from .fits import FitsFile, Header
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_OBSERVATORIES = ("ESO", "TNG", "OHP", "HIERARCH ESO")
_MAX_DEGREE = 30


def matches(fits: FitsFile) -> bool:
    """Return whether the header has the polynomial; cross-correlations, whose axis is a velocity, have it too."""
    header = fits.primary.header
    return len(fits.primary.shape) == 2 and _prefix(header) is not None and header.text("CTYPE1").lower() != "km/s"


def _prefix(header: Header) -> str | None:
    names = (f"{observatory} DRS CAL TH" for observatory in _OBSERVATORIES)
    return next((name for name in names if f"{name} DEG LL" in header), None)


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the orders, or merge them."""
    orders = _read_orders(fits, options)
    return merged_if_asked(orders, options)


def _read_orders(fits: FitsFile, options: ReadOptions) -> Readings:
    header, (n_order, n_pixel) = fits.primary.header, fits.primary.shape
    coefficients = _coefficients(header, n_order, fits.path)
    note = "orders of the HARPS DRS: air, as observed, blaze not removed"
    stated = from_headers(header)
    facts = stated.known(medium="air", frame="topocentric", notes=(note,), radial_velocity=None)
    flux = fits.primary.image()
    pixel = np.arange(n_pixel, dtype=np.float64)
    stored = np.asarray(np.polynomial.polynomial.polyval(pixel, coefficients.T), np.float64)  # (order, pixel)
    if np.isclose(flux, stored, rtol=1e-4, atol=0).all(axis=1).any():
        raise ReadError(f"{fits.path}: the image holds the wavelengths of orders, needed fluxes")
    wavelength, _ = to_angstrom(stored, "Angstrom", options.wave_unit, fits.path)

    def spectrum(source: Source, order: int) -> Spectrum:
        if not (np.isfinite(wavelength[order]).all() and (np.diff(wavelength[order]) > 0).all()):
            raise NoWavelengthError(f"{source}: the wavelength polynomial does not ascend")
        return assemble(wavelength[order], flux[order], facts, source, options)

    for order in range(n_order):
        yield attempt(spectrum, Source(fits.path, 0, order), order)


def _coefficients(header: Header, n_order: int, path: str) -> FloatArray:
    """Return the coefficients, shape (n_order, degree + 1)."""
    prefix = _prefix(header)
    degree = header.integer(f"{prefix} DEG LL")
    if degree is None or not 1 <= degree <= _MAX_DEGREE:
        raise ReadError(f"{path}: wavelength polynomial of degree {degree}")
    values = [header.number(f"{prefix} COEFF LL{i}") for i in range(n_order * (degree + 1))]
    if any(value is None for value in values):
        raise NoWavelengthError(f"{path}: the header lacks some of {len(values)} wavelength coefficients")
    return np.array(values, dtype=np.float64).reshape(n_order, degree + 1)
