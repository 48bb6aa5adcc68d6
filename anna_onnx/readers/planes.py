"""Spectra in several images of one file, told apart by EXTNAME: flux, error, mask, and mostly wavelength.

Read are ESPRESSO's (and HARPS's and NIRPS's) S2D, HPF Goldilocks, X-shooter, CARMENES, NEID, SPIRou, IGRINS
(divided by the A0V star where it was), and whatever else names its images so.

References
----------
ESPRESSO Pipeline User Manual (S2D: WAVEDATA_VAC_BARY, vacuum, barycentric);
https://github.com/grzeimann/Goldilocks_Documentation (vacuum, as observed);
X-shooter Pipeline User Manual (ERRS, QUAL; air, as observed).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.spectrum import Source, Spectrum

from .assembly import ErrorKind, Readings, as_sigma, assemble, attempt
from .facts import Facts, from_headers, medium_in
from .fits import FitsFile, Hdu
from .keyword_axis import axis
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_IN_NM = ("SPIROU", "NIRPS")  # which do not say so
_FLUX = (
    "SCIDATA", "SCI FLUX", "SCIFLUX", "FLUX", "FLUXAB", "FLUXA", "SPEC", "SPECTRUM", "SCI", "DATA", "FLUXES",
    "SPEC_DIVIDE_A0V",
)  # fmt: skip
_WAVELENGTH = (
    "WAVEDATA_VAC_BARY", "WAVEDATA_AIR_BARY", "WAVEDATA", "SCI WAVL", "SCIWAVE", "WAVE", "WAVEAB", "WAVEA",
    "WAVELENGTH", "LAMBDA", "WAVE_VAC", "WAVE_AIR", "WAVELENGTHS", "WL", "WAVELENGTH_VAC", "WAVELENGTH_AIR",
)  # fmt: skip
_SIGMA = (
    "ERRDATA", "SCI ERROR", "ERRS", "ERR", "ERROR", "SIGMA", "SIG", "STDEV", "UNCERTAINTY", "NOISE", "UNC", "STD",
    "UNCERT",
)  # fmt: skip
_VARIANCE = ("SCI VARIANCE", "SCIVAR", "VAR", "VARIANCE", "STAT", "SPEC_DIVIDE_A0V_VARIANCE")
_IVAR = ("IVAR", "INVVAR", "INVERSE_VARIANCE")
_INVERSE, _SQUARED = re.compile(r"(?:\b|_)IVAR|INV.*VAR"), re.compile("VAR")
_ERROR = re.compile("ERR|SIG|NOISE|_UNC|UNCERT|STDDEV|VAR")
_OF_OTHERS = re.compile("SKY|CAL|BKG|BACK|TELL|MODEL|TEMPL|FIT|FERRE|FLAT|A0V|TGT|SIGNAL|WAV|LAM")
_OF_FLUX = re.compile(r"erg|jy|count|adu|electron|photon|flux|^\s*(e-?|dn)\b", re.I)  # BUNIT copied from the fluxes
_UNITS = re.compile(r"\bwave\w*\W+(\w+)", re.I)  # of linetools: {"wave": "Angstrom", "flux": ...}
_MASK = ("QUALDATA", "QUAL", "MASK", "DQ", "QUALITY", "BADPIX", "FLAGS", "BPM", "PIXMASK")


class _Images(NamedTuple):
    flux: Hdu
    wavelength: Hdu | None
    error: Hdu | None
    mask: Hdu | None


def matches(fits: FitsFile) -> bool:
    """Return whether a flux image has wavelengths, or one in one dimension errors or a mask, or there are several."""
    return bool(_find(fits))


def _find(fits: FitsFile) -> list[_Images]:
    """Return the flux images of one name, which EXTVER tells apart, and what belongs to each."""
    flux = next((hdu for name in _FLUX for hdu in fits.hdus if hdu.name == name and hdu.size > 1), None)
    if flux is None and fits.primary.size > 1:
        flux = fits.primary
    if flux is None or len(flux.shape) > 2:
        return []
    alike = [hdu for hdu in fits.hdus if hdu is flux or (flux.name and hdu.name == flux.name)]
    found = [_companions(fits, hdu) for hdu in alike if len(hdu.shape) == len(flux.shape) and hdu.size > 1]
    is_line = flux.size == flux.shape[-1]
    complete = [images for images in found if images.wavelength or (is_line and any(images[2:]))]
    return found if is_line and len(found) > 1 else complete


def _companions(fits: FitsFile, flux: Hdu) -> _Images:
    return _Images(
        flux,
        _of_shape(fits, _WAVELENGTH, flux, flux.shape, flux.shape[-1:]),
        _of_shape(fits, (*_SIGMA, *_VARIANCE, *_IVAR), flux, flux.shape) or _called_error(fits, flux),
        _of_shape(fits, _MASK, flux, flux.shape),
    )


def _of_shape(fits: FitsFile, names: Sequence[str], flux: Hdu, *shapes: tuple[int, ...]) -> Hdu | None:
    """Return the image of the first of the names, of the version of the flux if there is one of it."""
    named = (hdu for name in names for hdu in fits.hdus if hdu.name == name and hdu.shape in shapes)
    return _of_version(list(named), flux)


def _called_error(fits: FitsFile, flux: Hdu) -> Hdu | None:
    """Return an image whose name only speaks of errors: ``FLUX_ERR``, ``IVAR_FLUX``."""
    called = [hdu for hdu in fits.hdus if hdu.shape == flux.shape and hdu is not flux and _ERROR.search(hdu.name)]
    return _of_version([hdu for hdu in called if not _OF_OTHERS.search(hdu.name)], flux)


def _of_version(found: Sequence[Hdu], flux: Hdu) -> Hdu | None:
    version = flux.header.integer("EXTVER")
    same = [hdu for hdu in found if hdu.name == found[0].name and hdu.header.integer("EXTVER") == version]
    return next(iter((*same, *found)), None)


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read one spectrum a row, or merge the rows."""
    rows = (spectrum for images in _find(fits) for spectrum in _read_rows(fits, images, options))
    return merged_if_asked(rows, options)


def _read_rows(fits: FitsFile, images: _Images, options: ReadOptions) -> Readings:
    flux = np.atleast_2d(images.flux.image())
    wavelength, facts = _wavelengths(fits, images, options)
    sigma = None if images.error is None else as_sigma(np.atleast_2d(images.error.image()), _kind(images.error.name))
    mask = None if images.mask is None else np.atleast_2d(images.mask.image()) != 0

    def spectrum(source: Source, row: int) -> Spectrum:
        error, bad = (None if image is None else image[row] for image in (sigma, mask))
        return assemble(wavelength[row], flux[row], facts, source, options, sigma=error, bad=bad)

    for row in range(len(flux)):
        if (wavelength[row] > 0).any():  # else an order that has no wavelengths
            yield attempt(spectrum, Source(fits.path, images.flux.index, row if len(flux) > 1 else None), row)


def _wavelengths(fits: FitsFile, images: _Images, options: ReadOptions) -> tuple[FloatArray, Facts]:
    """Return the wavelengths, one row for each row of flux, and what is known of them."""
    where = f"{fits.path}[{images.flux.index}]"
    if images.wavelength is None:
        values, facts = axis(images.flux.header, images.flux.shape[-1], options, where, fits.primary.header)
        return values[np.newaxis], facts
    hdu = images.wavelength
    stored = np.asarray(hdu.image(), dtype=np.float64)
    stated = (hdu.header.text(key) for key in ("BUNIT", "CUNIT1"))
    named = _UNITS.search(fits.primary.header.text("UNITS"))
    unit = next((unit for unit in stated if unit and not _OF_FLUX.search(unit)), named[1] if named else "")
    default = "nm" if fits.primary.header.text("INSTRUME").upper() in _IN_NM else None
    stored = np.where(stored > 0, stored, np.nan)
    values, notes = to_angstrom(stored, unit, options.wave_unit, where, default=default)
    facts = from_headers(images.flux.header, hdu.header, fits.primary.header).noted(*notes)
    if medium := medium_in(hdu.name):
        facts = facts.in_medium(medium).noted(f"wavelengths of {hdu.name}")
    if "BARY" in hdu.name:
        facts = facts.known(frame="barycentric")
    elif hdu.name == "SCI WAVL":
        facts = facts.known(frame="topocentric").noted("HPF: as observed")
    return np.broadcast_to(values, (images.flux.size // values.shape[-1], values.shape[-1])), facts


def _kind(name: str) -> ErrorKind:
    """Return what an image of errors holds, by its name."""
    if name in _IVAR or _INVERSE.search(name):
        return "ivar"
    return "variance" if name in _VARIANCE or _SQUARED.search(name) else "sigma"
