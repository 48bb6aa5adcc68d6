"""The binary training files of the old ANNA.

Native float64: ``n_pixel, n_label, wavelength[n_pixel]``, then for each star
``id, label[n_label], dummy, flux[n_pixel]``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anna_onnx.errors import ReadError
from anna_onnx.files import Content
from anna_onnx.spectrum import Source, Spectrum

from .assembly import assemble, number_names
from .facts import Facts
from .options import ReadOptions
from .units import to_angstrom

_MAX_LABEL = 10_000


def matches(data: Content) -> bool:
    """Return whether the numbers at the beginning fit the length of the file."""
    return _byte_order(data) is not None


def _byte_order(data: Content) -> str | None:
    if len(data) < 64 or len(data) % 8:
        return None
    for order in "<>":
        n_pixel, n_label = np.frombuffer(data, f"{order}f8", 2).tolist()
        if not (
            2 <= n_pixel < 1e8 and 0 <= n_label < _MAX_LABEL and n_pixel == int(n_pixel) and n_label == int(n_label)
        ):
            continue
        stars = len(data) // 8 - 2 - int(n_pixel)
        if stars > 0 and stars % (int(n_pixel) + int(n_label) + 2) == 0:
            return order
    return None


def read(path: str, data: Content, options: ReadOptions) -> Iterator[Spectrum]:
    """Read the spectra one after the other.

    Raises
    ------
    ReadError
        If the wavelengths are none.
    """
    kind = f"{_byte_order(data)}f8"
    n_pixel, n_label = (int(n) for n in np.frombuffer(data, kind, 2))
    stored = np.frombuffer(data, kind, n_pixel, 16).astype(np.float64)
    if not (np.isfinite(stored).all() and (stored > 0).all()):
        raise ReadError(f"{path}: looks like a binary file of ANNA, but its wavelengths are no numbers")
    wavelength, notes = to_angstrom(stored, None, options.wave_unit, path, default="Angstrom")
    facts = Facts(notes=("binary training file of the old ANNA: it does not state the medium", *notes))
    stars = np.frombuffer(data, kind, offset=16 + 8 * n_pixel).reshape(-1, n_pixel + n_label + 2)
    for row, star in enumerate(stars):
        (name,) = number_names(star[:1])
        yield assemble(wavelength, star[n_label + 2 :], facts.known(id=name), Source(path, row=row), options)
