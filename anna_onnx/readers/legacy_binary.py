"""The binary training files of the old ANNA.

Native float64: ``n_pixel, n_label, wavelength[n_pixel]``, then for each star
``id, label[n_label], dummy, flux[n_pixel]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from anna_onnx.errors import ReadError
from anna_onnx.files import Content
from anna_onnx.spectrum import Spectrum

from .assembly import number_names
from .facts import Facts
from .options import ReadOptions
from .registry import load
from .stacks import Rows, Stack
from .units import to_angstrom

_MAX_LABEL = 10_000


def matches(head: bytes, size: int) -> bool:
    """Return whether the two numbers at the beginning of a file fit its length in bytes."""
    return _byte_order(head, size) is not None


def _byte_order(head: bytes, size: int) -> str | None:
    if size < 64 or size % 8:
        return None
    for order in "<>":
        n_pixel, n_label = np.frombuffer(head, f"{order}f8", 2).tolist()
        if not (2 <= n_pixel < 1e8 and 0 <= n_label < _MAX_LABEL and n_pixel.is_integer() and n_label.is_integer()):
            continue
        stars = size // 8 - 2 - int(n_pixel)
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
    return _stack(path, data, options).spectra(options)


def stack(path: str, options: ReadOptions) -> Stack:
    """Return the spectra of a file on the disk, to be read many at a time.

    Raises
    ------
    ReadError
        If the wavelengths are none.
    """
    return _stack(path, load(path), options)


def _stack(path: str, data: Content, options: ReadOptions) -> Stack:
    kind = f"{_byte_order(data[:16], len(data))}f8"
    n_pixel, n_label = (int(n) for n in np.frombuffer(data, kind, 2))
    stored = np.frombuffer(data, kind, n_pixel, 16).astype(np.float64)
    if not (np.isfinite(stored).all() and (stored > 0).all()):
        raise ReadError(f"{path}: looks like a binary file of ANNA, but its wavelengths are no numbers")
    wavelength, notes = to_angstrom(stored, None, options.wave_unit, path, default="Angstrom")
    facts = Facts(notes=("binary training file of the old ANNA: it does not state the medium", *notes))
    stars = np.frombuffer(data, kind, offset=16 + 8 * n_pixel).reshape(-1, n_pixel + n_label + 2)

    def rows(places: Sequence[slice]) -> Iterator[Rows]:
        for place in places:
            some = stars[place].astype(np.float64)
            yield Rows(some[:, n_label + 2 :], number_names(some[:, 0]))

    return Stack(path, len(stars), wavelength, facts, rows)
