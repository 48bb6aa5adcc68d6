"""SDSS optical spectra: spSpec, spPlate, spec and spec-lite, and SDSS-V's mwmStar and mwmVisit.

All are in vacuum; spSpec, spPlate and spec are heliocentric, mwm files are in the rest frame.

References
----------
https://data.sdss.org/datamodel/ ; Stoughton et al. 2002, AJ 123, 485 (spSpec).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import ReadError
from anna_onnx.medium import C_KMS
from anna_onnx.spectrum import Source

from . import apogee
from .assembly import Readings, as_sigma, assemble
from .columns import Column, values_of
from .facts import Facts
from .fits import FitsFile, Hdu, Header
from .keyword_axis import axis
from .options import ReadOptions
from .tables import read_columns

_OPTICAL = 2000.0  # resolving power of the SDSS and BOSS spectrographs, 1500 in the blue to 2600 in the red
_HELIOCENTRIC = "heliocentric wavelengths in vacuum, as all SDSS spectra"
# Bits of SPPIXMASK from here on concern a pixel, those below the whole fibre.
_FIRST_PIXEL_BIT = 16


def matches(fits: FitsFile) -> bool:
    """Return whether the file is one of SDSS's."""
    return _is_mwm(fits) or _coadd(fits) is not None or _is_sdss_image(fits)


def _is_mwm(fits: FitsFile) -> bool:
    return any(hdu.name.startswith(("BOSS/", "APOGEE/")) for hdu in fits.hdus[1:5])


def _coadd(fits: FitsFile) -> Hdu | None:
    """Return the coadded spectrum of a spec file."""
    hdu = fits.hdus[1] if len(fits.hdus) > 1 else None
    return hdu if hdu and hdu.column("loglam") and hdu.column("and_mask") else None


def _is_sdss_image(fits: FitsFile) -> bool:
    header = fits.primary.header
    return len(fits.primary.shape) == 2 and "PLATEID" in header and header.text("TELESCOP").startswith("SDSS")


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read an SDSS file: one spectrum for a star, or one a fibre of a plate, or one a visit."""
    if _is_mwm(fits):
        return _read_mwm(fits, options)
    if (coadd := _coadd(fits)) is not None:
        return _read_spec(fits, coadd, options)
    is_star = "FIBERID" in fits.primary.header or fits.primary.header.text("ARRAY1").upper() == "SPECTRUM"
    return _read_star(fits, options) if is_star else _read_plate(fits, options)


def _read_spec(fits: FitsFile, coadd: Hdu, options: ReadOptions) -> Readings:
    facts = _facts(fits.primary.header, fits)
    columns = [_pixel_flags(column) if column.key == "and_mask" else column for column in coadd.columns]
    return read_columns(columns, facts, fits.path, coadd.index, options)


def _pixel_flags(mask: Column) -> Column:
    """Return a mask column without the bits that flag a whole fibre."""
    return replace(mask, load=lambda: pixel_bits(mask.load()))


def _apogee_flags(mask: Column) -> Column:
    """Return a mask column with the bits of APOGEE_PIXMASK that matter."""
    return replace(mask, load=lambda: apogee.bad_pixels(mask.load()))


def pixel_bits(mask: ArrayLike) -> BoolArray:
    """Return where a bit of SPPIXMASK is set that concerns the pixel."""
    values = np.nan_to_num(np.asarray(mask, dtype=np.float64), posinf=0, neginf=0)
    return np.asarray(np.abs(values) >= 1 << _FIRST_PIXEL_BIT)


def _facts(header: Header, fits: FitsFile) -> Facts:
    plate, mjd, fiber = (header.integer(key) for key in ("PLATEID", "MJD", "FIBERID"))
    name = "-".join(str(n) for n in (plate, mjd, fiber) if n is not None) or header.text("CATALOGID")
    return Facts("vacuum", "barycentric", name, (_HELIOCENTRIC,), _OPTICAL, _velocity(fits))


def _velocity(fits: FitsFile) -> float | None:
    """Return the velocity of a star from the redshift in the second table."""
    for hdu in fits.hdus[2:3]:
        kind, redshift = hdu.column("CLASS"), hdu.column("Z")
        if kind and redshift and redshift.n_row == 1 and str(kind.load()[0]).strip().upper() == "STAR":
            z = float(np.ravel(redshift.load())[0])
            return C_KMS * z if abs(z) < 0.007 else None
    return None


def _read_star(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read spSpec: rows flux, continuum-subtracted, error, mask."""
    hdu = fits.primary
    if hdu.shape[0] < 3:
        raise ReadError(f"{fits.path}: an spSpec image of {hdu.shape[0]} rows, needed flux, continuum and error")
    image = hdu.image()
    wavelength = _wavelength(fits, hdu.shape[1], options)
    bad = pixel_bits(image[3]) if hdu.shape[0] > 3 else None
    facts = _facts(hdu.header, fits)
    yield assemble(wavelength, image[0], facts, Source(fits.path, 0), options, sigma=image[2], bad=bad)


def _read_plate(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read spPlate: HDU 0 flux, 1 inverse variance, 2 and-mask, one row a fibre."""
    hdu = fits.primary
    wavelength = _wavelength(fits, hdu.shape[1], options)
    flux = hdu.image()
    ivar, mask = (_companion(fits, index, hdu.shape) for index in (1, 2))
    facts = _facts(hdu.header, fits)
    for row in range(hdu.shape[0]):
        yield assemble(
            wavelength,
            flux[row],
            facts.known(id=f"{facts.id}-{row + 1}", radial_velocity=None),
            Source(fits.path, 0, row),
            options,
            sigma=None if ivar is None else as_sigma(ivar[row], "ivar"),
            bad=None if mask is None else pixel_bits(mask[row]),
        )


def _companion(fits: FitsFile, index: int, shape: tuple[int, ...]) -> Any:
    """Return the image of an HDU when it has this shape."""
    return fits.hdus[index].image() if index < len(fits.hdus) and fits.hdus[index].shape == shape else None


def _wavelength(fits: FitsFile, n_pixel: int, options: ReadOptions) -> FloatArray:
    return axis(fits.primary.header, n_pixel, options, fits.path)[0]


def _read_mwm(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read every row of the tables by instrument and telescope; tables without a row are usual."""
    for hdu in fits.hdus[1:]:
        flux = hdu.column("flux")
        if flux is None or flux.n_row == 0:
            continue
        is_apogee = hdu.name.startswith("APOGEE")
        flags = _apogee_flags if is_apogee else _pixel_flags
        columns = [flags(column) if column.key == "pixel_flags" else column for column in hdu.columns]
        if hdu.column("wavelength", "lambda") is None:
            columns.append(_logarithmic(hdu, flux, f"{fits.path}[{hdu.index}]"))
        note = f"{hdu.name}: vacuum, shifted to the rest frame"
        name = fits.primary.header.text("SDSS_ID") or fits.primary.header.text("CATID")
        facts = Facts("vacuum", "rest", name, (note,), apogee.RESOLUTION if is_apogee else _OPTICAL)
        yield from read_columns(columns, facts, fits.path, hdu.index, options)


def _logarithmic(hdu: Hdu, flux: Column, where: str) -> Column:
    """Return the wavelength column of early versions, whose axis is in keywords."""
    first, step, n_pixel = (hdu.header.number(key) for key in ("CRVAL", "CDELT", "NPIXELS"))
    cells = values_of(flux, where)
    if first is None or step is None or n_pixel is None or n_pixel != np.shape(cells[0])[0] or not 2 < first < 6:
        raise ReadError(f"{where}: neither a wavelength column nor CRVAL, CDELT and NPIXELS")
    wavelength = 10 ** (first + step * np.arange(int(n_pixel)))
    tiled = np.broadcast_to(wavelength, (flux.n_row, wavelength.size))
    return Column("wavelength", flux.n_row, lambda: tiled, "Angstrom")
