"""Orders of Keck's HIRES and ESI, extracted by MAKEE, as the archive KOA has them: polynomials in the header.

The cards WV_0_nn and WV_4_nn hold four coefficients each of row nn: wavelength in Angstrom as a polynomial
of the column number, which is CRVAL1 in the first pixel. VACUUM and HELIOCNT say what was made of the wavelengths.
Errors, sky and others lie in files of their own, which are not told apart here.

References
----------
Barlow 2008, "Makee: Wavelength Scale Formats", https://sites.astro.caltech.edu/~tb/makee/Waves/index.html;
"Makee: FITS Header Cards", https://sites.astro.caltech.edu/~tb/ipac_staff/tab/makeewww-2005/Cards/index.html (CRVAL1).
"""

from __future__ import annotations

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import NoWavelengthError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, ascends, assemble, attempt
from .facts import Facts, finite, from_headers
from .fits import FitsFile, Header
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_MOST_ORDERS = 99  # whose number has two digits
_IN_VACUUM = "air to vacuum correction applied"
_HELIOCENTRIC = "heliocentric correction applied"


def matches(fits: FitsFile) -> bool:
    """Return whether the primary image has such a polynomial for any of its rows."""
    header, shape = fits.primary.header, fits.primary.shape
    if len(shape) != 2 or shape[0] > _MOST_ORDERS:
        return False
    return any(f"WV_0_{order:02d}" in header for order in range(1, shape[0] + 1))


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the orders, or merge them."""
    return merged_if_asked(_read_orders(fits, options), options)


def _read_orders(fits: FitsFile, options: ReadOptions) -> Readings:
    header, (n_order, n_pixel) = fits.primary.header, fits.primary.shape
    column = _columns(header, n_pixel, fits.path)
    facts = _facts(header)
    flux = fits.primary.image()

    def spectrum(source: Source, row: int) -> Spectrum:
        coefficients = _coefficients(header, row + 1, source)
        stored = np.asarray(np.polynomial.polynomial.polyval(column, coefficients), np.float64)
        if not ascends(stored):
            raise NoWavelengthError(f"{source}: the wavelength polynomial does not ascend")
        wavelength, _ = to_angstrom(stored, "Angstrom", options.wave_unit, fits.path)
        return assemble(wavelength, flux[row], facts, source, options)

    for row in range(n_order):
        yield attempt(spectrum, Source(fits.path, 0, row), row)


def _columns(header: Header, n_pixel: int, path: str) -> FloatArray:
    """Return the column numbers of the pixels on the detector, which the polynomials are of."""
    first, step, reference = (header.number(key) for key in ("CRVAL1", "CDELT1", "CRPIX1"))
    if first is None:
        raise NoWavelengthError(f"{path}: no CRVAL1, the column that MAKEE's wavelength polynomials begin at")
    pixel = np.arange(1, n_pixel + 1, dtype=np.float64)
    return first + (step or 1.0) * (pixel - (1.0 if reference is None else reference))


def _coefficients(header: Header, order: int, source: Source) -> list[float]:
    """Return the eight coefficients of an order."""
    coefficients: list[float] = []
    for card in (f"WV_0_{order:02d}", f"WV_4_{order:02d}"):
        text = header.text(card)
        numbers = [number for word in text.split() if (number := finite(word.upper().replace("D", "E"))) is not None]
        if len(numbers) != 4 or len(text.split()) != 4:
            found = f"is '{text}'" if text else "is missing"
            raise NoWavelengthError(f"{source}: {card} {found}, needed four coefficients of the wavelength")
        coefficients += numbers
    return coefficients


def _facts(header: Header) -> Facts:
    """Return what the header says; medium and frame are known only where it says that MAKEE corrected for them."""
    facts = from_headers(header)
    if header.text("VACUUM").lower().startswith(_IN_VACUUM):
        facts = facts.in_medium("vacuum").noted("MAKEE: in vacuum (VACUUM)")
    if header.text("HELIOCNT").lower().startswith(_HELIOCENTRIC):
        facts = facts.known(frame="barycentric").noted("MAKEE: heliocentric (HELIOCNT)")
    return facts
