"""CHIRON at the 1.5 m telescope of CTIO: a cube whose last axis is wavelength and flux, one plane an order.

References
----------
Tokovinin et al. 2013, PASP 125, 1336. Its reduction code: sorting_hat.pro writes wavelengths (Angstrom) and spectrum
along axis 1, and corrects nothing for the motion of the Earth (https://github.com/mattgiguere/ChironBlue); thid.pro and
auto_thid.pro fit the wavelengths of thorium in air (https://github.com/yddf/REDUCTION).
"""

from __future__ import annotations

import numpy as np

from anna_onnx.errors import NoWavelengthError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import Facts, from_headers
from .fits import FitsFile, Header
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_CARDS = ("THARFNAM", "THIDNLIN", "EMMNWOB")  # of its reduction, and of its exposure meter
_AXIS_1 = "0=wavelength, 1=spectrum"  # the comment of NAXIS1
_POWERS = (1e4, 3e5)  # that its ThAr lines can have


def matches(fits: FitsFile) -> bool:
    """Return whether the primary image is such a cube, of CHIRON."""
    return len(fits.primary.shape) == 3 and fits.primary.shape[2] == 2 and _is_chiron(fits.primary.header)


def _is_chiron(header: Header) -> bool:
    named = header.text("INSTRUME").upper().startswith("CHIRON") or any(card in header for card in _CARDS)
    return named or any(_AXIS_1 in remark for remark in header.remarks("NAXIS1"))


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the orders, or merge them."""
    return merged_if_asked(_read_orders(fits, options), options)


def _read_orders(fits: FitsFile, options: ReadOptions) -> Readings:
    facts = _facts(fits.primary.header)
    cube = np.asarray(fits.primary.image(), dtype=np.float64)  # (order, pixel, 2)

    def spectrum(source: Source, row: int) -> Spectrum:
        stored, flux = cube[row].T
        if not (np.diff(stored[stored > 0]) > 0).all():
            raise NoWavelengthError(f"{source}: the wavelengths do not ascend")
        wavelength, _ = to_angstrom(stored, "Angstrom", options.wave_unit, fits.path)
        return assemble(wavelength, flux, facts, source, options)

    for row in range(len(cube)):
        if (cube[row, :, 0] > 0).any():  # else an order that has no wavelengths
            yield attempt(spectrum, Source(fits.path, 0, row), row)


def _facts(header: Header) -> Facts:
    """Return what the header says, else what the reduction does."""
    facts = from_headers(header).noted("orders of CHIRON: blaze not removed")
    if facts.medium == "unknown":
        facts = facts.known(medium="air").noted("medium air, that of CHIRON's thorium lines")
    if facts.frame == "unknown":
        facts = facts.known(frame="topocentric").noted("frame topocentric, as CHIRON's reduction leaves it")
    power = header.number("RESOLUTN")  # of the ThAr lines
    return facts.known(resolution=power) if power and _POWERS[0] < power < _POWERS[1] else facts
