"""Series: files of one instrument, whose headers say the same in all that matters.

Most of the time that a simple FITS image takes goes into finding out from its
header where its wavelengths are. The files of a night differ in nothing but
the star and when it was seen. So once a file was read in full, the next ones
with an equal header need their fluxes only, and many of them are read at once.

Two headers are equal when they have the same keywords in the same order, and the same
values of all but `INDIFFERENT`, at which no reader looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import Floats
from anna_onnx.spectrum import Source, Spectrum

from .assembly import padding
from .fits import BLOCK, CARD, Header
from .judged_medium import rests_on_flux
from .options import ReadOptions
from .registry import OPEN_FLAGS

LARGEST = 4 << 20  # bytes
_WORDS = """
AIRMASS ALT ALT-OBJ AUTHOR AZ AZ-OBJ BJD CHECKSUM CREATOR CYCLE DARKTIME DATASUM DATE DATE-AVG
DATE-BEG DATE-END DATE-OBS DEC DETTEMP ELEVATIO EPOCH EQUINOX EXPOSURE EXPTIME EXP_TIME FILENAME FRAMENUM GAIN
HA HJD HUMIDITY JD JD-HELIO JD-OBS LAST LJD LST LST-OBS MIDPOINT MJD-AVG MJD-BEG MJD-END MJD-OBS
NAMEPS OBSERVAT OBSERVER OBSID-NR ORIGFILE PA PARANGLE PROGRAM PROPID RA RDNOISE RDTIME SEEING SEQNUM SIDTIME
SN SNR ST ST-OBS TELALT TELAZ TELFOCUS TIME TIME-END TIME-OBS TIMESYS UT UT-DATE UT-END UT-OBS UT-START UTC
UTC-DATE UTC-END UTC-OBS UTDATE UTMIDDLE UTSTART WINDDIR WINDSPED ZD
"""
INDIFFERENT = frozenset(f"{word:8}" for word in _WORDS.split())
_OBJECT = "OBJECT  "
_KINDS: Mapping[int, np.dtype[Any]] = {-32: np.dtype(">f4"), -64: np.dtype(">f8")}
_MARKS = ("XTENSION", "HIERARCH", "CONTINUE", "BSCALE  ", "BZERO   ")


@dataclass(frozen=True, eq=False)
class Alike:
    """Spectra of a series.

    Attributes
    ----------
    first : Spectrum
        One of the series, read in full; the others differ in what follows.
    files, ids : lists of str
    flux : array of float32 or float64, shape (n, n_pixel)
        As stored.
    """

    first: Spectrum
    files: list[str]
    ids: list[str]
    flux: Floats

    def __len__(self) -> int:
        return len(self.files)

    def spectra(self) -> Iterator[Spectrum]:
        """Yield the spectra one by one; their wavelengths are checked already."""
        for file, name, stored in zip(self.files, self.ids, self.flux, strict=True):
            flux = stored.astype(np.float64)
            bad = padding(flux) | ~np.isfinite(flux)
            spectrum = object.__new__(Spectrum)
            source = Source(file, self.first.source.hdu, self.first.source.row)
            spectrum.__dict__.update(vars(self.first), flux=flux, bad=bad, id=name, source=source)
            yield spectrum


class _Learned(NamedTuple):
    """A file that was read in full.

    Attributes
    ----------
    header : array of uint8
        As stored, to the beginning of the data.
    matters : array of uint8
        255 where the header of another file must be equal, else 0.
    object_at : int or None
        Where the card of the star's name begins.
    kind : dtype
        Of a pixel as stored.
    size : int
        Bytes of the file.
    spectrum : Spectrum
    """

    header: NDArray[np.uint8]
    matters: NDArray[np.uint8]
    object_at: int | None
    kind: np.dtype[Any]
    size: int
    spectrum: Spectrum


class Series:
    """Read simple images like the one before, without looking at their headers closely.

    Parameters
    ----------
    options : ReadOptions
        With which `learn` is told spectra; a series is of use only without
        an `hdu` asked for.
    """

    def __init__(self, options: ReadOptions) -> None:
        self._usable = options.hdu is None
        self._learned: _Learned | None = None

    def learn(self, path: str, spectrum: Spectrum) -> None:
        """Remember the spectrum that the ordinary way found in a file, if its pixels are those stored."""
        self._learned = None
        if not self._usable or spectrum.sigma is not None or rests_on_flux(spectrum):
            return
        if (content := _content(path, LARGEST)) is not None:
            self._learned = _learn(content, spectrum)

    def read(self, paths: Sequence[str]) -> Alike | None:
        """Return the spectra of the first files, as far as they belong to the series; None when not even one does."""
        known = self._learned
        if known is None:
            return None
        start, n_pixel = known.header.size, known.spectrum.n_pixel
        flux = np.empty((len(paths), n_pixel), dtype=known.kind.newbyteorder("="))
        headers = []
        for row, path in zip(flux, paths, strict=True):
            content = _content(path, known.size)
            if content is None or len(content) != known.size:
                break
            headers.append(content[:start])
            row[:] = np.frombuffer(content, known.kind, n_pixel, start)
        ids = list(_names(known, headers))
        return Alike(known.spectrum, list(paths[: len(ids)]), ids, flux[: len(ids)]) if ids else None


def _learn(content: bytes, spectrum: Spectrum) -> _Learned | None:
    end = content.find(b"END".ljust(CARD))
    if not content.startswith(b"SIMPLE  =") or end < 0 or end % CARD:
        return None
    text, start = content[:end].decode("latin-1"), -(-(end + CARD) // BLOCK) * BLOCK
    header = Header(text)
    kind, n_pixel = _KINDS.get(header.integer("BITPIX") or 0), header.integer("NAXIS1")
    if kind is None or header.integer("NAXIS") != 1 or n_pixel is None or any(mark in text for mark in _MARKS):
        return None
    data_end = start + n_pixel * kind.itemsize
    if not start < data_end <= len(content) <= -(-data_end // BLOCK) * BLOCK:
        return None
    flux = np.frombuffer(content, kind, n_pixel, start)
    if not np.array_equal(spectrum.flux, flux, equal_nan=True) or spectrum.id != header.text("OBJECT"):
        return None
    matters = np.full(start, 255, dtype=np.uint8)
    object_at = None
    for at in range(0, end, CARD):
        key = text[at : at + 8]
        if key == _OBJECT and object_at is None:
            object_at = at
        if key in INDIFFERENT or at == object_at:
            matters[at + 8 : at + CARD] = 0
    return _Learned(np.frombuffer(content, np.uint8, start), matters, object_at, kind, len(content), spectrum)


def _content(path: str, size: int) -> bytes | None:
    """Return the bytes of a file, None when it cannot be read or holds more than `size`."""
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except OSError:
        return None
    try:
        content = os.read(descriptor, size + 1)
        return content if len(content) <= size else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _names(known: _Learned, headers: Sequence[bytes]) -> Iterator[str]:
    """Yield the names of the stars, as far as the headers are equal to the one that is known."""
    stored = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, known.header.size)
    differ = np.any((stored ^ known.header) & known.matters, axis=1)
    for header, differs in zip(headers, differ, strict=True):
        name = "" if known.object_at is None else _name(header[known.object_at : known.object_at + CARD])
        if differs or (known.spectrum.id and not name):  # without its name another card may bear it
            return
        yield name


def _name(card: bytes) -> str:
    """Return the value of a card."""
    text = card.decode("latin-1")
    if text[8:11] == "= '" and text.count("'") == 2:
        return text[11 : text.rindex("'")].strip()
    return Header(text).text("OBJECT")
