"""Wavelength units, in every spelling that files use."""

from __future__ import annotations

import re

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import NoWavelengthError, ReadError

# Spelling, lower case and without blanks, dots and trailing s -> Angstrom.
_ANGSTROM = {
    **dict.fromkeys(
        ("angstrom", "angstroem", "ångström", "ang", "angstr", "a", "aa", "å", "\u212b", "0.1nm", "agstrom"), 1.0
    ),
    **dict.fromkeys(("1e-10m", "10**-10m", "10^-10m", "10-10m", "1.0e-10m", "1.e-10m", "10**(-10)m", "10^(-10)m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanom", "1e-9m", "10**-9m", "10**(-9)m", "10-9m"), 10.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "micrometer", "micrometre", "mum", "mu", "micro", "1e-6m"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e7),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e8),
    **dict.fromkeys(("m", "meter", "metre"), 1e10),
}
_MEDIUM = re.compile(r"\b(?:in\s+)?(?:air|vac(?:uum)?)\b", re.I)
_VELOCITY = re.compile(r"^(k?m)(/|\*\*-1|per|\.)?s(ec)?(ond)?(\^?\(?-1\)?|\*\*-1)?$")
_NOT_WAVELENGTH = {
    **dict.fromkeys(("hz", "khz", "mhz", "ghz", "thz"), "frequencies"),
    **dict.fromkeys(("ev", "kev", "mev", "erg", "j"), "energies"),
    **dict.fromkeys(
        ("1/cm", "cm-1", "cm**-1", "cm^-1", "1/m", "m-1", "kayser", "cm^(-1)", "1/um", "um-1"), "wavenumbers"
    ),
}
_LOG = re.compile(r"^(log10|log|dex|ln)\W*(.*?)\W*$")
UNSTATED = frozenset({"", "none", "unknown", "undefined", "-", "--", "1", "null", "wavelength", "lambda"})


def angstroms_per(unit: str, where: str) -> float:
    """Return the length of a wavelength unit in Angstrom.

    Raises
    ------
    NoWavelengthError
        If the unit is that of a pixel number.
    ReadError
        If it is no unit of wavelength.
    """
    spelled = _plain(unit)
    for known in (spelled, spelled.removesuffix("s")):
        if known in _ANGSTROM:
            return _ANGSTROM[known]
        if known in ("pixel", "pix", "px", "channel", "bin", "deg", "degree", "arcsec"):
            raise NoWavelengthError(f"{where}: the axis counts pixels (unit '{unit}'), needed wavelengths")
        if known == "velocity":
            raise ReadError(f"{where}: the axis holds velocities, needed wavelengths")
        if known in _NOT_WAVELENGTH:
            raise ReadError(f"{where}: the axis holds {_NOT_WAVELENGTH[known]} (unit '{unit}'), needed wavelengths")
    if _VELOCITY.match(spelled):
        raise ReadError(f"{where}: the axis holds velocities (unit '{unit}'), needed wavelengths")
    raise ReadError(f"{where}: wavelength unit '{unit}' is not known; say it with wave_unit")


def _plain(unit: str) -> str:
    bare = re.sub(r"\s+", "", _MEDIUM.sub("", unit))
    return bare.strip("[]()'\".,;").replace("angstroms", "angstrom").lower()


def split_log(unit: str) -> tuple[float | None, str]:
    """Return the base of a logarithmic unit, or None, and the unit inside: ``log10(nm)`` -> 10, ``nm``."""
    found = _LOG.match(_plain(unit))
    if not found:
        return None, unit
    return (np.e if found[1] == "ln" else 10.0), found[2]


def to_angstrom(
    values: FloatArray, unit: str | None, override: str | None, where: str, *, default: str | None = None
) -> tuple[FloatArray, tuple[str, ...]]:
    """Convert wavelengths to Angstrom.

    Parameters
    ----------
    values : array, shape (n_pixel,)
    unit : str or None
        As the file states it.
    override : str or None
        As the user states it, which `assemble` notes.
    where : str
        The file, for messages.
    default : str, optional
        The unit that the format prescribes when the file states none.

    Returns
    -------
    wavelength : array of float64, shape (n_pixel,)
    notes : tuple of str
        What was assumed.

    Raises
    ------
    NoWavelengthError, ReadError
        If the unit is that of something else, or cannot be told.
    """
    stated = "" if unit is None or unit.strip().lower() in UNSTATED else unit
    notes: tuple[str, ...] = ()
    if override is not None:
        chosen = override
    elif stated:
        chosen = stated
    elif default:
        chosen = default
    else:
        chosen = guess_unit(values, where)
        notes = (f"wavelength unit not stated, taken as {chosen} from the size of the values",)
    factor = angstroms_per(chosen, where)
    values = np.asarray(values, dtype=np.float64)
    return (values if factor == 1.0 else values * factor), notes


def guess_unit(values: FloatArray, where: str) -> str:
    """Return the unit of optical or infrared wavelengths from their size.

    Raises
    ------
    NoWavelengthError
        If the values count pixels.
    ReadError
        If they could be in more than one unit: 1500 is far-ultraviolet in
        Angstrom and infrared in nanometres.
    """
    values = np.asarray(values, dtype=np.float64)
    if (values < 0).any():
        raise NoWavelengthError(f"{where}: the axis holds negative values (velocities?), needed wavelengths")
    good = values[np.isfinite(values) & (values > 0)]
    if good.size < 2 or good.size < 0.5 * values.size:
        raise NoWavelengthError(f"{where}: the axis holds no positive values, needed wavelengths")
    middle = float(np.sort(good)[good.size // 2])
    if good[0] == 1.0 and np.array_equal(np.diff(good), np.ones(good.size - 1)):
        raise NoWavelengthError(f"{where}: the axis counts pixels, needed wavelengths")
    if 3000 <= middle <= 60000:
        return "Angstrom"
    # From 900 they may be Angstrom in the far ultraviolet; below 9 nm no model of a star begins.
    if 300 <= middle <= 1100 and 9 <= good.min() < 900:
        return "nm"
    if good.min() > 3.3 and good.max() < 4.6:
        raise ReadError(f"{where}: no wavelength unit stated, and {middle:g} may be microns or log10 of Angstrom")
    if 0.3 <= middle <= 6:
        return "um"
    if 3e-7 <= middle <= 6e-6:
        return "m"
    raise ReadError(
        f"{where}: no wavelength unit stated and values near {middle:g} do not tell it; say it with wave_unit"
    )
