"""LAMOST: low resolution as image or table, medium resolution as tables.

All are in vacuum and heliocentric.

References
----------
https://www.lamost.org/dr8/v1.0/doc/lr-data-production-description and mr-.
"""

from __future__ import annotations

import numpy as np

from anna_onnx.errors import ReadError
from anna_onnx.medium import C_KMS
from anna_onnx.spectrum import Source

from .assembly import Readings, as_sigma, assemble
from .facts import Facts
from .fits import FitsFile, Hdu, Header
from .keyword_axis import axis
from .options import ReadOptions
from .orders import merged_if_asked
from .tables import read_columns

_R_LOW, _R_MEDIUM = 1800.0, 7500.0


def matches(fits: FitsFile) -> bool:
    """Return whether the file is one of LAMOST's."""
    header = fits.primary.header
    if "LAMOST" not in header.text("TELESCOP").upper() and "LAMOST" not in header.text("ORIGIN").upper():
        return False
    return len(fits.primary.shape) == 2 or any(hdu.is_table and hdu.column("FLUX") for hdu in fits.hdus[1:])


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read a LAMOST file: the coadded spectra, one an arm for medium resolution."""
    if len(fits.primary.shape) == 2:
        return _read_image(fits, options)
    spectra = _read_tables(fits, options)
    return merged_if_asked(spectra, options)


def _facts(header: Header, resolution: float) -> Facts:
    name = header.text("OBJNAME") or header.text("DESIG") or header.text("OBSID")
    z = header.number("Z")
    is_star = header.text("CLASS").upper() == "STAR" and z is not None and abs(z) < 0.007
    return Facts(
        "vacuum",
        "barycentric",
        name,
        ("heliocentric wavelengths in vacuum, as all LAMOST spectra",),
        resolution,
        C_KMS * z if is_star and z is not None else None,
    )


def _read_image(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read rows flux, inverse variance, wavelength, and-mask, or-mask.

    The wavelengths come from the logarithmic axis in the header: the third
    row holds them to the precision of float32 only, and in the first
    releases something else.
    """
    hdu = fits.primary
    if hdu.shape[0] < 2:
        raise ReadError(f"{fits.path}: an image of {hdu.shape[0]} rows, needed flux and inverse variance")
    image = hdu.image()
    wavelength, _ = axis(hdu.header, hdu.shape[1], options, fits.path)
    bad = np.asarray(image[3] != 0) if hdu.shape[0] > 3 else None
    facts = _facts(hdu.header, _R_LOW)
    sigma = as_sigma(image[1], "ivar")
    yield assemble(wavelength, image[0], facts, Source(fits.path, 0), options, sigma=sigma, bad=bad)


def _read_tables(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the coadded spectra, or the single exposures when there is none."""
    tables = [hdu for hdu in fits.hdus[1:] if hdu.is_table and hdu.column("FLUX")]
    coadds = [hdu for hdu in tables if hdu.name.startswith("COADD")]
    for hdu in coadds or tables:
        resolution = _R_MEDIUM if _is_medium(hdu) else _R_LOW
        yield from read_columns(hdu.columns, _facts(fits.primary.header, resolution), fits.path, hdu.index, options)


def _is_medium(hdu: Hdu) -> bool:
    return hdu.name.startswith(("COADD_", "B-", "R-"))
