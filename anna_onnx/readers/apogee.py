"""APOGEE: apVisit, apStar and aspcapStar.

References
----------
https://data.sdss.org/datamodel/files/APOGEE_REDUX/ ; Nidever et al. 2015, AJ 150, 173;
Holtzman et al. 2018, AJ 156, 125 (which bits of APOGEE_PIXMASK are bad).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anna_onnx.arrays import BoolArray
from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import Facts
from .fits import FitsFile, Header
from .keyword_axis import axis
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

# BADPIX CRPIX SATPIX UNFIXABLE BADDARK BADFLAT BADERR NOSKY, SIG_SKYLINE, NOT_ENOUGH_PSF
_BAD_BITS = 0xFF | 1 << 12 | 1 << 14
RESOLUTION = 22500.0


def matches(fits: FitsFile) -> bool:
    """Return whether the file is one of APOGEE's."""
    return _is_visit(fits) or _is_star(fits)


def _is_visit(fits: FitsFile) -> bool:
    """Return whether HDU 1 and 4 are the flux and the wavelengths of three chips."""
    if len(fits.hdus) < 5:
        return False
    flux, wavelength = fits.hdus[1], fits.hdus[4]
    chips = flux.header.text("CTYPE2").lower() == "chip" or "wavelength" in wavelength.header.text("BUNIT").lower()
    return chips and len(flux.shape) == 2 and flux.shape == wavelength.shape


def _is_star(fits: FitsFile) -> bool:
    """Return whether HDU 1 and 2 are flux and error on APOGEE's logarithmic grid."""
    if len(fits.hdus) < 3 or fits.primary.size:
        return False
    flux, error = fits.hdus[1], fits.hdus[2]
    first = flux.header.number("CRVAL1")
    return flux.shape == error.shape and 0 < len(flux.shape) < 3 and first is not None and abs(first - 4.179) < 1e-6


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read an APOGEE file: the chips of a visit, or the combined spectrum of a star."""
    if _is_visit(fits):
        chips = _read_visit(fits, options)
        return merged_if_asked(chips, options)
    return _read_star(fits, options)


def _read_visit(fits: FitsFile, options: ReadOptions) -> Readings:
    flux, error, mask, wavelength = (fits.hdus[i].image() for i in range(1, 5))
    if not flux.shape == error.shape == mask.shape:
        raise ReadError(f"{fits.path}: flux {flux.shape}, error {error.shape} and mask {mask.shape} differ in shape")
    header = fits.primary.header
    facts = Facts(
        "vacuum",
        "topocentric",
        _name(header),
        ("APOGEE visit: wavelengths in vacuum, as observed",),
        RESOLUTION,
        header.number("VRAD"),
    )

    def spectrum(source: Source, chip: int) -> Spectrum:
        angstrom, _ = to_angstrom(wavelength[chip], "Angstrom", options.wave_unit, fits.path)
        bad = bad_pixels(mask[chip])
        return assemble(angstrom, flux[chip], facts, source, options, sigma=error[chip], bad=bad)

    for chip in range(flux.shape[0]):
        yield attempt(spectrum, Source(fits.path, 1, chip), chip)


def _read_star(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read apStar or aspcapStar; of the rows of an apStar the first is combined, the others are visits."""
    hdu = fits.hdus[1]
    flux, error = (np.atleast_2d(fits.hdus[i].image())[0] for i in (1, 2))
    wavelength, _ = axis(hdu.header, flux.size, options, f"{fits.path}[1]")
    mask = fits.hdus[3] if len(fits.hdus) > 3 and fits.hdus[3].shape == hdu.shape else None
    pixels = None if mask is None else np.atleast_2d(mask.image())[0]
    # The third image of an aspcapStar is the best-fitting model, of an apStar the mask.
    bad = bad_pixels(pixels) if pixels is not None and pixels.dtype.kind in "iu" else None
    note = "APOGEE star: vacuum, rest frame" + (", visits combined" if len(hdu.shape) > 1 else "")
    facts = Facts("vacuum", "rest", _name(fits.primary.header), (note,), RESOLUTION)
    yield assemble(wavelength, flux, facts, Source(fits.path, 1), options, sigma=error, bad=bad)


def _name(header: Header) -> str:
    return header.text("OBJID") or header.text("OBJECT") or header.text("OBJ")


def bad_pixels(mask: Any) -> BoolArray:
    """Return where a bit of APOGEE_PIXMASK is set that makes the flux useless."""
    return np.asarray((np.asarray(mask).astype(np.int64) & _BAD_BITS) != 0)
