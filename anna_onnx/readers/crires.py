"""CRIRES+ extracted spectra: one table a detector, in it three columns for each order.

References
----------
ESO CRIRES+ pipeline manual: columns ``<trace>_<order>_WL``, ``_SPEC``, ``_ERR``; nm, vacuum, as observed.
"""

from __future__ import annotations

import re

import numpy as np

from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .facts import from_headers
from .fits import FitsFile, Hdu
from .options import ReadOptions
from .orders import merged_if_asked
from .units import to_angstrom

_SPECTRUM = re.compile(r"^(\d+_\d+)_SPEC$")


def matches(fits: FitsFile) -> bool:
    """Return whether a table has columns by order."""
    return any(_orders(hdu) for hdu in fits.hdus)


def _orders(hdu: Hdu) -> list[str]:
    found = (_SPECTRUM.match(column.name.upper()) for column in hdu.columns)
    return [match[1] for match in found if match and hdu.column(f"{match[1]}_WL")]


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the orders of all detectors, or merge them."""
    spectra = (spectrum for hdu in fits.hdus for spectrum in _read_detector(fits, hdu, options))
    return merged_if_asked(spectra, options)


def _read_detector(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    stated = from_headers(fits.primary.header, hdu.header)
    facts = stated.known(medium="vacuum", frame="topocentric", notes=("CRIRES+: vacuum, as observed",))

    def spectrum(source: Source, order: str) -> Spectrum | None:
        wave, flux, error = (hdu.column(f"{order}_{part}") for part in ("WL", "SPEC", "ERR"))
        assert wave is not None  # `_orders` has seen it
        assert flux is not None
        stored = np.asarray(wave.load(), dtype=np.float64)
        if not (stored > 0).any():
            return None  # an order that the detector misses
        wavelength, _ = to_angstrom(stored, wave.unit, options.wave_unit, fits.path, default="nm")
        sigma = None if error is None else np.asarray(error.load(), dtype=np.float64)
        return assemble(wavelength, flux.load(), facts, source, options, sigma=sigma)

    for row, order in enumerate(_orders(hdu)):
        found = attempt(spectrum, Source(fits.path, hdu.index, row), order)
        if found is not None:
            yield found
