"""Images whose wavelengths are in keywords: CRVAL1, CDELT1 and their many dialects.

References
----------
Greisen & Calabretta 2002, A&A 395, 1061 (FITS paper I): CD1_1, PC1_1.
Greisen et al. 2006, A&A 446, 747 (FITS paper III): CTYPE, and the -LOG algorithm.
IRAF ``help specwcs``: DC-FLAG, equispec.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import NoWavelengthError, ReadError, UnknownLayoutError
from anna_onnx.spectrum import Source, Spectrum

from . import wat
from .assembly import assemble
from .facts import Facts, from_headers, iraf_medium
from .fits import FitsFile, Hdu, Header
from .options import ReadOptions
from .units import UNSTATED, guess_unit, split_log, to_angstrom

_REFUSED = {
    **dict.fromkeys(("VELO", "VRAD", "VOPT", "FELO", "ZOPT", "BETA", "KM/S", "M/S"), "velocities"),
    "%": "line depths",  # of a bisector
    **dict.fromkeys(("FREQ", "AFRQ"), "frequencies"),
    **dict.fromkeys(("ENER", "WAVN"), "energies or wavenumbers"),
}
_PIXELS = ("PIXEL", "PIX", "CHANNEL", "INDEX", "RA--", "DEC-", "GLON", "GLAT", "STOKES", "POSITION", "SPATIAL")
_FLUX = ("FLUX", "SPECTRUM", "SPEC", "SCI")
_UNIT_IN_CTYPE = re.compile(r"[\[(]\s*([^\])]+?)\s*[\])]")


def matches(fits: FitsFile) -> bool:
    """Return whether an image has a wavelength axis, or none has and only the reason can be told."""
    return any(hdu.size > 1 for hdu in fits.hdus)


def reads(fits: FitsFile, hdu: Hdu) -> bool:
    """Return whether this HDU is an image."""
    return hdu.size > 1


def read(fits: FitsFile, options: ReadOptions) -> Iterator[Spectrum]:
    """Read the first image with a wavelength axis and a layout that is understood; after the primary one named flux.

    Raises
    ------
    NoWavelengthError, ReadError
        What is wrong with the first image, when none has one.
    """
    images = [hdu for hdu in fits.hdus if hdu.size > 1]
    calibrated = [hdu for hdu in images if "CRVAL1" in hdu.header]
    explained = [hdu for hdu in calibrated if _is_explained(hdu)]
    explained.sort(key=lambda hdu: (hdu is not fits.primary, hdu.name not in _FLUX))
    return read_hdu(fits, (*explained, *calibrated, *images)[0], options)


def read_hdu(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Iterator[Spectrum]:
    """Read an image: one spectrum, or one a line when the header says that lines are spectra.

    Raises
    ------
    NoWavelengthError
        If the axis holds no wavelengths.
    UnknownLayoutError
        If it is something else, such as a long-slit image.
    ReadError
        If the axis is of a kind that is not read.
    """
    where = f"{fits.path}[{hdu.index}]"
    n_band, n_line, n_pixel = _layout(hdu, where)
    wavelength, facts = axis(hdu.header, n_pixel, options, where, fits.primary.header)
    image = hdu.image().reshape(n_band, n_line, n_pixel)
    flux_band, sigma_band = wat.bands(hdu.header, n_band) if n_band > 1 else (0, None)
    for row in range(n_line):
        name = hdu.header.text(f"APID{row + 1}")
        yield assemble(
            wavelength,
            image[flux_band, row],
            facts.known(id=name) if name else facts,
            Source(fits.path, hdu.index, row if n_line > 1 else None),
            options,
            sigma=None if sigma_band is None else image[sigma_band, row],
        )


def _layout(hdu: Hdu, where: str) -> tuple[int, int, int]:
    """Return the bands, lines and pixels of an image, when its header says that its lines are spectra."""
    if _is_explained(hdu):
        n_band, n_line, n_pixel = (1, 1, *hdu.shape)[-3:]
        return n_band, n_line, n_pixel
    _refuse(hdu.header.text("CTYPE1").upper(), where)
    size = " x ".join(map(str, hdu.shape))
    kind = UnknownLayoutError if "CRVAL1" in hdu.header else NoWavelengthError
    raise kind(f"{where}: an image of {size} that no layout explains; needed a spectrum along the first axis")


def _is_explained(hdu: Hdu) -> bool:
    n_band, n_line, n_pixel = (1, 1, *hdu.shape)[-3:]
    explained = n_band * n_line == 1 or _lines_are_spectra(hdu.header)
    return explained and n_pixel > 1 and n_band * n_line * n_pixel == hdu.size


def _lines_are_spectra(header: Header) -> bool:
    return "APNUM1" in header or wat.attributes(header, 0).get("system") == "equispec"


def axis(header: Header, n_pixel: int, options: ReadOptions, where: str, *more: Header) -> tuple[FloatArray, Facts]:
    """Return the wavelengths of axis 1, and what the headers say.

    Parameters
    ----------
    header : Header
        Of the image.
    n_pixel : int
    options : ReadOptions
    where : str
        For messages.
    more : Header
        Further headers to ask for medium, frame and name.

    Returns
    -------
    wavelength : array of float64, shape (n_pixel,)
        Angstrom.
    facts : Facts

    Raises
    ------
    NoWavelengthError
        If the axis counts pixels or nothing is said of it.
    ReadError
        If it is velocity, frequency, or of a form that is not known.
    """
    ctype = header.text("CTYPE1").upper()
    _refuse(ctype, where)
    first, step, notes = _linear(header, where)
    unit, label = _unit(header, ctype)
    if label.lower().startswith("velo"):
        raise ReadError(f"{where}: the axis holds velocities (label '{label}'), needed wavelengths")
    log_unit, inner = split_log(unit)
    pixel = np.arange(1, n_pixel + 1, dtype=np.float64) - _reference(header)
    base, more_notes = _log_base(header, ctype, unit, first, step, where)
    if log_unit is not None and base is None:
        base, more_notes = log_unit, ()
    values = first + step * pixel
    if base is not None:
        if not np.abs(values).max() < 300:
            raise ReadError(f"{where}: axis of log type begins at {first:g}, no logarithm")
        values = base**values
    elif ctype.endswith("-LOG"):
        # Paper III, table 3: the step holds at the reference value, and grows with wavelength.
        values = first * np.exp(np.clip(step * pixel / first, -700, 700))
    wavelength, unit_notes = _to_angstrom(values, inner if log_unit else unit, header, options, where)
    facts = from_headers(header, *(h for h in more if h is not header))
    if notes := (*notes, *more_notes, *unit_notes):
        facts = facts.noted(*notes)
    return wavelength, iraf_medium(facts, wavelength) if _written_by_iraf(header) else facts


def _refuse(ctype: str, where: str) -> None:
    if what := _REFUSED.get("VELO" if "VELOC" in ctype else ctype[:4]):
        raise ReadError(f"{where}: the axis holds {what} (CTYPE1 '{ctype}'), needed wavelengths")
    if ctype.startswith(_PIXELS):
        raise NoWavelengthError(f"{where}: the axis is '{ctype}', needed wavelengths")
    if "-" in ctype and re.match(r"^(WAVE|AWAV)-(?!LOG|WAV)[A-Z0-9]{3}$", ctype):  # WAVE-WAV is ELODIE's
        raise ReadError(f"{where}: CTYPE1 '{ctype}': only linear and -LOG axes are read")


def _linear(header: Header, where: str) -> tuple[float, float, tuple[str, ...]]:
    """Return CRVAL1, the step, and notes; beside CD1_1 CDELT1 does not count (FITS paper I), unless that is stale."""
    first, step, matrix = header.number("CRVAL1"), header.number("CDELT1"), header.number("CD1_1")
    notes: tuple[str, ...] = ()
    if matrix and step and step != 1.0 and _is_stale(matrix, header):
        notes = (f"step CDELT1 = {step:g}; CD1_1 = {matrix:g} does not count beside it",)
    elif matrix:
        if step and step != 1.0 and not math.isclose(step, matrix, rel_tol=1e-6):
            notes = (f"step CD1_1 = {matrix:g}; CDELT1 = {step:g} does not count beside it",)
        step = matrix
    elif matrix is None and (rotation := header.number("PC1_1")):
        step = rotation * (1.0 if step is None else step)  # astropy writes CD1_1 as PC1_1 beside a CDELT1 of 1
    for old in (("COEFF0", "COEFF1"), ("W0", "WPC")):  # of SDSS, of IRAF before 1990
        if first is None and header.number(old[0]) is not None:
            first, step = header.number(old[0]), header.number(old[1])
    if first is None or not step:
        raise NoWavelengthError(f"{where}: no CRVAL1 and CDELT1 or CD1_1, so that no pixel has a wavelength")
    if step == 1.0 and first in (0.0, 1.0):
        raise NoWavelengthError(f"{where}: CRVAL1 {first:g} and CDELT1 1 count pixels, needed wavelengths")
    if header.number("CRPIX1") is None:
        notes = (*notes, "CRPIX1 missing, taken as 1")
    return first, step, notes


def _is_stale(matrix: float, header: Header) -> bool:
    """Return whether CD1_1 was never set, or is left over from the image that a spectrum was extracted from."""
    return matrix == 1.0 or (header.integer("NAXIS") == 1 and ("CD2_1" in header or "CD2_2" in header))


def _reference(header: Header) -> float:
    """Return CRPIX1; the standard's default is 0, but whoever leaves it out means the first pixel."""
    reference = header.number("CRPIX1")
    return 1.0 if reference is None else reference


def _unit(header: Header, ctype: str) -> tuple[str, str]:
    """Return the unit and the label of the axis, as stated anywhere."""
    unit, label = wat.unit_and_label(header) if "WAT1_001" in header else ("", "")
    stated = header.text("CUNIT1")
    if stated.lower() not in UNSTATED:
        return stated, label
    bracket = _UNIT_IN_CTYPE.search(header.text("CTYPE1"))
    candidates = (
        unit,
        bracket[1] if bracket and not bracket[1].lower().startswith(("wav", "lam")) else "",  # log(wavelength)
        label if label.lower().startswith(("ang", "nano", "micr")) else "",
        ctype if ctype.startswith(("ANGS", "NANO", "MICR")) else "",
        header.text("XUNITS"),
        header.text("WAVEUNIT"),
    )
    return next((text for text in candidates if text.lower() not in UNSTATED), ""), label


def _log_base(
    header: Header, ctype: str, unit: str, first: float, step: float, where: str
) -> tuple[float | None, tuple[str, ...]]:
    """Return the base of the stored logarithms, or None when wavelengths are stored."""
    flag = header.integer("DC-FLAG")
    if flag == 1:
        return 10.0, ()
    spoken = "LOG" in ctype or split_log(unit)[0] is not None
    if spoken and 5.5 < first < 12 and not unit.lower().startswith(("mic", "um")):
        return float(np.e), (f"natural logarithms: {ctype} {unit} with CRVAL1 {first:g}",)
    small = 2.3 < first < 5.5 and abs(step) < 0.01
    if spoken and small and not unit.lower().startswith(("mic", "um")):
        return 10.0, (f"logarithms of base 10: {ctype} {unit} with CRVAL1 {first:g}",)
    if "COEFF0" in header and header.number("COEFF0") is not None and small:
        return 10.0, ()
    if flag is None and 3.3 < first < 4.6 and small and (not unit or unit.lower().startswith("ang")):
        return 10.0, (f"logarithms of base 10, from CRVAL1 {first:g} {unit or 'without a unit'}",)
    return None, ()


def _to_angstrom(
    values: FloatArray, unit: str, header: Header, options: ReadOptions, where: str
) -> tuple[FloatArray, tuple[str, ...]]:
    if unit or options.wave_unit or not _in_iraf_style(header):
        return to_angstrom(values, unit, options.wave_unit, where)
    try:
        guess = guess_unit(values, where)
    except NoWavelengthError:
        raise
    except ReadError:
        if values[0] < 100:
            raise
        guess = "Angstrom"
    return to_angstrom(values, guess, None, where)[0], (f"wavelength unit not stated, taken as {guess}",)


def _written_by_iraf(header: Header) -> bool:
    """Return whether IRAF wrote the file: XIDL writes DC-FLAG too, and its wavelengths are in vacuum."""
    own = any(key in header for key in ("WAT0_001", "WCSDIM", "IRAF-TLM", "W0"))
    return own or "IRAF" in header.text("ORIGIN").upper()


def _in_iraf_style(header: Header) -> bool:
    """Return whether the axis is written as IRAF does, by whatever program."""
    return "WAT0_001" in header or "DC-FLAG" in header
