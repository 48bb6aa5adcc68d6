"""GALAH spectra, one HERMES camera a file: barycentric, in air.

References
----------
https://docs.datacentral.org.au/galah/dr3/galah-dr3-spectra/ : HDU 0 flux, 1 relative error,
2 and 3 before sky subtraction, 4 normalised flux.
Buder et al. 2025, PASA 42, e051 (DR4), https://github.com/svenbuder/GALAH_DR4 : HDU 0 flux,
2 relative error, 3 sky, 4 telluric, 7 line-spread function; and the table of the fit.
"""

from __future__ import annotations

import numpy as np

from anna_onnx.spectrum import Source

from .assembly import Readings, assemble
from .columns import Column
from .facts import Facts, from_headers
from .fits import FitsFile, Hdu
from .keyword_axis import axis
from .options import ReadOptions
from .tables import read_columns

_RESOLUTION = 28000.0
_FIT_COLUMNS = ("wave", "sob", "uob", "smod", "mob")


def matches(fits: FitsFile) -> bool:
    """Return whether the file is one of GALAH's."""
    return _error(fits) is not None or _fit(fits) is not None


def _error(fits: FitsFile) -> Hdu | None:
    """Return the HDU with the relative error, by which a camera's file is recognised."""
    shape, header = fits.primary.shape, fits.primary.header
    if len(shape) != 1 or len(fits.hdus) < 5 or any(hdu.is_table for hdu in fits.hdus[:5]):
        return None
    if fits.hdus[1].name in ("INPUT_SIGMA", "INPUT_ERROR") and fits.hdus[1].shape == shape:
        return fits.hdus[1]
    is_hermes = header.text("INSTRUME").upper().startswith("HERMES") or "GALAH" in header.text("ORIGIN").upper()
    is_galah = is_hermes or "GALAH" in header.text("OBJECT").upper() or ("SLITMASK" in header and "CCD" in header)
    if not is_galah:
        return None
    index = 2 if len(fits.hdus) >= 8 else 1
    return fits.hdus[index] if fits.hdus[index].shape == shape else None


def _fit(fits: FitsFile) -> Hdu | None:
    return next((hdu for hdu in fits.hdus if all(hdu.column(name) for name in _FIT_COLUMNS)), None)


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the sky-subtracted spectrum, or the normalised one of a table of the fit."""
    fit = _fit(fits)
    if fit is not None:
        return _read_fit(fits, fit, options)
    return _read_camera(fits, options)


def _read_camera(fits: FitsFile, options: ReadOptions) -> Readings:
    error = _error(fits)
    assert error is not None  # `matches` has seen it
    flux = np.asarray(fits.primary.image(), dtype=np.float64)
    wavelength, _ = axis(fits.primary.header, flux.size, options, fits.path)
    if fits.primary.header.number("CRPIX1") == 0:
        wavelength = wavelength - np.diff(wavelength[:2])  # these files count pixels from 0
    stated = from_headers(fits.primary.header)
    notes = ["GALAH: air, barycentric; error = relative error times flux"]
    if len(fits.hdus) == 5:
        notes.append("not normalised; the normalised spectrum is HDU 4")
    facts = Facts("air", "barycentric", stated.id, tuple(notes), stated.resolution or _RESOLUTION)
    sigma = np.abs(flux) * error.image()
    yield assemble(wavelength, flux, facts, Source(fits.path, 0), options, sigma=sigma)


def _read_fit(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    columns = [_inverted(column) if column.key == "mob" else column for column in hdu.columns]
    facts = Facts("air", "rest", fits.primary.header.text("OBJECT"), ("GALAH DR4 fit: air, rest frame, normalised",))
    return read_columns(columns, facts, fits.path, hdu.index, options)


def _inverted(used: Column) -> Column:
    """Return the mask of the pixels that the fit left out."""
    return Column("mask", used.n_row, lambda: np.asarray(used.load()) == 0)
