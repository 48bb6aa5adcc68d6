"""Series: files of one instrument, whose headers say the same in all that matters.

Most of the time that a simple FITS image takes goes into finding out from its
header where its wavelengths are. The files of a night differ in nothing but
the star and when it was seen. So once a file was read in full, the next ones
with an equal header need their fluxes only.

What makes two headers equal is every card but those in `INDIFFERENT`, which
no reader looks at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anna_onnx.spectrum import FloatArray, Source, Spectrum

from .assembly import padding
from .facts import told_medium
from .fits import BLOCK, CARD, Header
from .options import ReadOptions

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
_REMARKS = ("COMMENT ", "HISTORY ")
_KINDS: Mapping[int, np.dtype[Any]] = {-32: np.dtype(">f4"), -64: np.dtype(">f8")}
_MARKS = ("XTENSION", "HIERARCH", "CONTINUE", "BSCALE  ", "BZERO   ")


@dataclass(frozen=True, eq=False)
class _Learned:
    """The header cards that matter and the spectrum that they gave."""

    cards: list[str]
    start: int
    kind: np.dtype[Any]
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
        content = _content(path) if self._usable else None
        if content is None or (header := _header(content)) is None:
            return
        text, start = header
        parsed = Header(text)
        kind = _KINDS.get(parsed.integer("BITPIX") or 0)
        n_pixel = parsed.integer("NAXIS1")
        if kind is None or parsed.integer("NAXIS") != 1 or n_pixel is None or any(mark in text for mark in _MARKS):
            return
        if not 0 < n_pixel * kind.itemsize <= len(content) - start or len(content) > _end(start, n_pixel, kind):
            return
        flux = np.frombuffer(content, kind, n_pixel, start)
        same_pixels = np.array_equal(spectrum.flux, flux, equal_nan=True) and spectrum.sigma is None
        if same_pixels and spectrum.id == parsed.text("OBJECT"):
            self._learned = _Learned(_cards(text), start, kind, spectrum)

    def read(self, path: str) -> Spectrum | None:
        """Return the spectrum of a file of the series; None when it must be read in full."""
        known = self._learned
        if known is None or (content := _content(path)) is None or (header := _header(content)) is None:
            return None
        text, start = header
        n_pixel = known.spectrum.n_pixel
        fits = start + n_pixel * known.kind.itemsize <= len(content) <= _end(start, n_pixel, known.kind)
        if not fits or _cards(text) != known.cards:
            return None
        flux = np.frombuffer(content, known.kind, n_pixel, start).astype(np.float64)
        return _like(known.spectrum, flux, _name(text), path)


def _like(first: Spectrum, flux: FloatArray, name: str, path: str) -> Spectrum:
    """Return a spectrum on the wavelengths of another, which are checked already."""
    spectrum = object.__new__(Spectrum)
    clean = flux.all() and np.isfinite(flux).all()
    bad = np.zeros(flux.size, dtype=np.bool_) if clean else padding(flux) | ~np.isfinite(flux)
    source = Source(path, first.source.hdu, first.source.row)
    spectrum.__dict__.update(vars(first), flux=flux, bad=bad, id=name, source=source)
    return spectrum


def _name(text: str) -> str:
    """Return the OBJECT of a header."""
    at = text.find(_OBJECT)
    while at % CARD and at >= 0:
        at = text.find(_OBJECT, at + 1)
    card = text[at : at + CARD] if at >= 0 else ""
    if card[8:11] == "= '" and card.count("'") == 2:
        return card[11 : card.rindex("'")].strip()
    return Header(card).text("OBJECT")


def _content(path: str) -> bytes | None:
    """Return the bytes of a small file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        content = os.read(descriptor, status.st_size)
        return content if len(content) == status.st_size else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _header(content: bytes) -> tuple[str, int] | None:
    """Return the primary header without its END, and where the data begin."""
    if not content.startswith(b"SIMPLE  ="):
        return None
    end = content.find(b"END" + b" " * (CARD - 3))
    if end < 0 or end % CARD:
        return None
    return content[:end].decode("latin-1"), -(-(end + CARD) // BLOCK) * BLOCK


def _cards(text: str) -> list[str]:
    """Return the cards that matter, among them remarks that tell the medium."""
    cards = [text[i : i + CARD] for i in range(0, len(text), CARD)]
    matter = [card for card in cards if card[:8] not in INDIFFERENT and card[:8] != _OBJECT]
    return matter + [card for card in cards if card[:8] in _REMARKS and told_medium(card[8:])]


def _end(start: int, n_pixel: int, kind: np.dtype[Any]) -> int:
    """Return how long a file with nothing behind its image is."""
    return start + -(-n_pixel * kind.itemsize // BLOCK) * BLOCK
