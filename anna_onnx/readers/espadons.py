"""ESPaDOnS at CFHT and NARVAL, reduced by Libre-ESpRIT, Upena or OPERA: echelle orders end to end, in nm.

The FITS files of the archive, ``*i.fits`` (intensity) and ``*p.fits`` (polarimetry), hold one image whose
rows are columns of a table, four times over: normalised or not, with the wavelengths corrected by telluric
lines or not. The cards COL1, COL2, ... name them. Read is the first table: normalised and corrected.

References
----------
Donati et al. 1997, MNRAS 291, 658 (Libre-ESpRIT).
CFHT, "OPERA Pipeline Processed data" and "Upena" (the columns of the FITS files).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import Facts, from_headers
from .fits import FitsFile, Header
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_INTENSITY = ("intensity", "star", "stokesi")
_BY_NUMBER = {12: (0, 1, 2), 24: (0, 1, 5)}  # rows of the image: wavelength, intensity, error
_RANGE = (300.0, 1100.0)  # nm


def matches(fits: FitsFile) -> bool:
    """Return whether the first image is such a table."""
    return _rows(fits) is not None


def _rows(fits: FitsFile) -> tuple[int, int, int] | None:
    """Return the rows that hold wavelength, intensity and error."""
    primary = fits.primary
    if len(primary.shape) != 2 or not primary.header.text("INSTRUME").upper().startswith("ESPADONS"):
        return None
    rows = _named(primary.header, primary.shape[0]) or _BY_NUMBER.get(primary.shape[0])
    if rows is None:
        return None
    return rows if in_range(np.asarray(primary.image()[rows[0]], dtype=np.float64)) else None


def in_range(stored: FloatArray) -> bool:
    """Return whether numbers can be wavelengths of these spectrographs, in nm."""
    used = stored[np.isfinite(stored) & (stored > 0)]
    return used.size > 1 and bool(used.min() >= _RANGE[0] and used.max() <= _RANGE[1])


def _named(header: Header, n_row: int) -> tuple[int, int, int] | None:
    """Return the rows of the first table as the cards COLn name them."""
    names = [header.text(f"COL{i}").lower().replace(" ", "") for i in range(1, n_row + 1)]
    intensity = next((name for name in names if name in _INTENSITY), None)
    if "wavelength" not in names or intensity is None or "errorbar" not in names:
        return None
    return names.index("wavelength"), names.index(intensity), names.index("errorbar")


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the normalised intensity."""
    rows = _rows(fits)
    assert rows is not None  # `matches` has seen it
    image = fits.primary.image()
    wavelength, flux, sigma = (np.asarray(image[row], dtype=np.float64) for row in rows)
    stated = from_headers(fits.primary.header)
    note = f"rows {rows[0]}, {rows[1]}, {rows[2]}: normalised intensity"
    facts = Facts(id=stated.id, notes=(note,), resolution=stated.resolution, nominal=stated.nominal)
    return orders(wavelength, flux, sigma, facts, Source(fits.path, 0), options)


def orders(
    stored: FloatArray,
    flux: FloatArray,
    sigma: FloatArray | None,
    facts: Facts,
    source: Source,
    options: ReadOptions,
) -> Readings:
    """Return a spectrum whose echelle orders stand end to end, merged by inverse variance when asked for.

    Parameters
    ----------
    stored : array, shape (n_pixel,)
        Wavelengths in nm, in air; it steps back where an order begins.
    flux, sigma : arrays, shape (n_pixel,)
    facts : Facts
    source : Source
    options : ReadOptions
    """
    facts = facts.known(medium="air", frame="barycentric").noted("Libre-Esprit: nm, air, heliocentric")
    wavelength, _ = to_angstrom(stored, "nm", options.wave_unit, str(source))
    cuts: list[int] = [0, *(np.flatnonzero(np.diff(wavelength) <= 0) + 1).tolist(), wavelength.size]
    whole = [slice(None)]
    pieces = [slice(a, b) for a, b in pairwise(cuts) if b - a > 1] if options.merge_orders else whole

    def spectrum(source: Source, piece: slice) -> Spectrum:
        error = None if sigma is None else sigma[piece]
        return assemble(wavelength[piece], flux[piece], facts, source, options, sigma=error)

    return merged_if_asked((attempt(spectrum, source, piece) for piece in pieces), options)
