"""Spectra files of any flavour.

A file is recognised by its content, never by its name, and unpacked when it
is gzip, bzip2, or a zip archive of one file. Each family of layouts has a module; see ``docs/readers.md`` for
what is read and what is assumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Spectrum

from .options import ReadOptions

if TYPE_CHECKING:
    from anna_onnx.spectrum import Frame, Medium

    from .assembly import Unread

__all__ = ["ReadOptions", "iter_spectra", "read_each", "read_spectra"]

MAX_PIXELS = 25_000_000  # 25 bytes a pixel: wavelength, flux, sigma, bad


def read_spectra(
    path: str | os.PathLike[str],
    *,
    hdu: int | str | None = None,
    medium: Medium | None = None,
    frame: Frame | None = None,
    wave_unit: str | None = None,
    columns: tuple[str | int, ...] | None = None,
    merge_orders: bool = False,
) -> list[Spectrum]:
    """Read all spectra of a file.

    Parameters
    ----------
    path : path-like
    hdu, medium, frame, wave_unit, columns, merge_orders
        Override what the file says; see `ReadOptions`.

    Returns
    -------
    list of Spectrum
        In the order of the file: stars, orders or arms.

    Raises
    ------
    NoWavelengthError
        If the file holds fluxes without wavelengths.
    ReadError
        If it cannot be read; the message says what was found. Also if it
        holds more than 25 million pixels: see `iter_spectra`.
    SpectrumError
        If what it holds makes no spectrum.
    """
    options = ReadOptions(hdu, medium, frame, wave_unit, columns, merge_orders)
    spectra: list[Spectrum] = []
    n_pixel = 0
    for spectrum in iter_spectra(path, options):
        n_pixel += max(spectrum.n_pixel, 64)  # which an empty one costs
        if n_pixel > MAX_PIXELS:
            raise ReadError(f"{path}: more than {MAX_PIXELS} pixels, too many to hold at once; use iter_spectra")
        spectra.append(spectrum)
    return spectra


def iter_spectra(path: str | os.PathLike[str], options: ReadOptions = ReadOptions()) -> Iterator[Spectrum]:
    """Read the spectra of a file one after the other, in bounded memory.

    Parameters
    ----------
    path : path-like
    options : ReadOptions

    Yields
    ------
    Spectrum

    Raises
    ------
    NoWavelengthError, ReadError, SpectrumError
        As `read_spectra`, when the first spectrum is asked for, or later.
    """
    for item in read_each(path, options):
        if not isinstance(item, Spectrum):
            raise item.error
        yield item


def read_each(path: str | os.PathLike[str], options: ReadOptions) -> Iterator[Spectrum | Unread]:
    """Read the spectra of a file one after the other, whatever is wrong with some of them.

    Yields
    ------
    Spectrum or Unread

    Raises
    ------
    NoWavelengthError, ReadError, SpectrumError
        If the file cannot be read, or not to its end.
    """
    from .registry import read

    return read(os.fspath(path), options)
