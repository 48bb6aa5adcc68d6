"""Spectra that UVES_popler combined, of UVES (as of the SQUAD data base), HIRES and others: rows of one image.

The cards UP_ARR01, UP_ARR02, ... (and ARRAY1, ...) name the rows. Read are the normalised flux, its error and the
status, which is 1 where a pixel is valid; CRVAL1 and CD1_1 give the wavelengths, mostly as logarithms.

References
----------
Murphy et al. 2019, MNRAS 482, 3458; https://github.com/MTMurphy77/UVES_SQUAD_DR1, Notes_FITS_Files.txt (the cards);
https://github.com/MTMurphy77/UVES_popler, UVES_wFITSfile.c and UVES_wpol.c (vacuum, heliocentric).
"""

from __future__ import annotations

import numpy as np

from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Source

from .assembly import Readings, assemble
from .fits import FitsFile, Hdu
from .keyword_axis import axis
from .options import ReadOptions

_FLUX, _SIGMA, _STATUS = "normalized flux spectrum", "normalized error", "status"
_MOST_ROWS = 99  # that have a card


def matches(fits: FitsFile) -> bool:
    """Return whether the primary image has a row that UVES_popler calls so."""
    hdu = fits.primary
    if len(hdu.shape) != 2 or hdu.shape[1] < 2 or not ("UP_ARR01" in hdu.header or "ARRAY1" in hdu.header):
        return False
    return _FLUX in _rows(hdu)


def _rows(hdu: Hdu) -> dict[str, int]:
    """Return the rows by their names."""
    cards = ((f"UP_ARR{i + 1:02d}", f"ARRAY{i + 1}", i) for i in range(min(hdu.shape[0], _MOST_ROWS)))
    return {(hdu.header.text(name) or hdu.header.text(other)).lower(): i for name, other, i in cards}


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the normalised spectrum.

    Raises
    ------
    ReadError
        If the rows of errors or of the status are missing: which pixels are valid is not known then.
    """
    hdu = fits.primary
    where, rows = f"{fits.path}[0]", _rows(hdu)
    if lacking := [name for name in (_SIGMA, _STATUS) if name not in rows]:
        raise ReadError(f"{where}: of the rows that UVES_popler writes, '{lacking[0]}' is missing")
    wavelength, facts = axis(hdu.header, hdu.shape[1], options, where)
    facts = facts.in_medium("vacuum").known(frame="barycentric")
    facts = facts.noted("UVES_popler: normalised flux, vacuum, heliocentric")
    image = hdu.image()
    flux, sigma, status = (np.asarray(image[rows[name]], dtype=np.float64) for name in (_FLUX, _SIGMA, _STATUS))
    yield assemble(wavelength, flux, facts, Source(fits.path, 0), options, sigma=sigma, bad=status != 1)
