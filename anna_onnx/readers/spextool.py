"""Spextool: images whose rows are wavelength, flux, error (and flags), one plane an order; in vacuum.

So are images that iSpec, pyspeckit and others take for such rows, when the first row can be nothing but wavelengths.

References
----------
Cushing, Vacca & Rayner 2004, PASP 116, 362; the headers' own HISTORY.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import from_headers
from .fits import FitsFile, Hdu
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

FEWEST = 16  # pixels of a row that is seen to ascend


def matches(fits: FitsFile) -> bool:
    """Return whether the primary image is Spextool's."""
    return reads(fits, fits.primary)


def reads(fits: FitsFile, hdu: Hdu) -> bool:
    """Return whether this HDU holds such rows: two to four, and no wavelength axis."""
    rows = "CRVAL1" not in hdu.header and len(hdu.shape) in (2, 3) and hdu.shape[-2] in (2, 3, 4)
    return rows and (_is_spextool(fits, hdu) or _begins_with_wavelengths(hdu))


def _is_spextool(fits: FitsFile, hdu: Hdu) -> bool:
    spoken = "XUNITS" in hdu.header and "YUNITS" in hdu.header
    return spoken or fits.primary.header.text("INSTRUME").upper().startswith("SPEX")


def _begins_with_wavelengths(hdu: Hdu) -> bool:
    """Return whether the first row ascends or descends throughout, as wavelengths in some unit do."""
    if len(hdu.shape) != 2 or hdu.shape[1] < FEWEST:
        return False
    first = np.asarray(hdu.image()[0], dtype=np.float64)
    step = np.diff(first)
    try:
        to_angstrom(first, _unit(hdu), None, "")
    except ReadError:
        return False
    lowest = 0.0 if _unit(hdu) else 100.0  # small numbers without a unit are anything, such as the depths of a bisector
    return bool((first > lowest).all() and ((step > 0).all() or (step < 0).all()))


def _unit(hdu: Hdu) -> str:
    return hdu.header.text("XUNITS") or hdu.header.text("CUNIT1")


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the primary image."""
    return read_hdu(fits, fits.primary, options)


def read_hdu(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    """Read one spectrum a plane, or merge the planes."""
    planes = _read_planes(fits, hdu, options)
    return merged_if_asked(planes, options)


def _read_planes(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    where = f"{fits.path}[{hdu.index}]"
    facts = from_headers(hdu.header, fits.primary.header)
    ours = _is_spextool(fits, hdu)
    if not ours:
        facts = facts.noted("the rows taken as wavelength, flux, error, flags")
    elif facts.medium == "unknown":
        facts = facts.known(medium="vacuum").noted("medium vacuum, the convention of Spextool")
    planes = hdu.image().reshape(-1, *hdu.shape[-2:])

    def spectrum(source: Source, plane: NDArray[Any]) -> Spectrum:
        stored = np.asarray(plane[0], dtype=np.float64)
        wavelength, notes = to_angstrom(stored, _unit(hdu), options.wave_unit, where, default="um" if ours else None)
        sigma = plane[2] if plane.shape[0] > 2 else None
        bad = plane[3] != 0 if plane.shape[0] > 3 else None
        return assemble(wavelength, plane[1], facts.noted(*notes), source, options, sigma=sigma, bad=bad)

    for row, plane in enumerate(planes):
        yield attempt(spectrum, Source(fits.path, hdu.index, row if len(planes) > 1 else None), plane)
