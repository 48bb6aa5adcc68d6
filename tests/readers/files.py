"""FITS files written byte by byte or with astropy, from the descriptions of their formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits


def card(key: str, value: Any) -> bytes:
    """Return one 80-character card."""
    if isinstance(value, bool):
        text = f"{key:<8}= {'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"{key:<8}= '{value}'"
    else:
        text = f"{key:<8}= {value!r:>20}"
    assert len(text) <= 80, text
    return text.ljust(80).encode("ascii")


def image_bytes(pixels: np.ndarray, cards: dict[str, Any] | None = None) -> bytes:
    """Return a FITS file with one image, written without astropy."""
    bitpix = {"f4": -32, "f8": -64, "i2": 16, "i4": 32, "u1": 8, "i8": 64}[pixels.dtype.str[1:]]
    axes = {f"NAXIS{i + 1}": n for i, n in enumerate(reversed(pixels.shape))}
    head = {"SIMPLE": True, "BITPIX": bitpix, "NAXIS": pixels.ndim, **axes, **(cards or {})}
    header = b"".join(card(key, value) for key, value in head.items()) + b"END".ljust(80)
    data = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    return _block(header, b" ") + _block(data, b"\0")


def _block(data: bytes, fill: bytes) -> bytes:
    return data + fill * (-len(data) % 2880)


def wat_cards(text: str, axis: int = 2) -> dict[str, str]:
    """Return an attribute string cut into WAT cards of 68 characters, as IRAF writes them."""
    pieces = [text[i : i + 68] for i in range(0, len(text), 68)]
    return {f"WAT{axis}_{i + 1:03d}": piece for i, piece in enumerate(pieces)}


def multispec_bytes(flux: np.ndarray, specs: list[str], **more: Any) -> bytes:
    """Return an IRAF multispec image; `specs` are the attribute strings of its lines."""
    attribute = "wtype=multispec " + " ".join(f'spec{i + 1} = "{spec}"' for i, spec in enumerate(specs))
    cards = {
        "CTYPE1": "MULTISPE",
        "CTYPE2": "MULTISPE",
        "CD1_1": 1.0,
        "LTM1_1": 1.0,
        "WAT0_001": "system=multispec",
        "WAT1_001": "wtype=multispec label=Wavelength units=angstroms",
        **wat_cards(attribute),
        **more,
    }
    return image_bytes(flux, cards)


def write_hdus(path: Any, *hdus: Any, **primary: Any) -> Any:
    """Write HDUs after a primary header with keywords, and return the path."""
    first = fits.PrimaryHDU()
    for key, value in primary.items():
        first.header[key.replace("__", " ")] = value
    fits.HDUList([first, *hdus]).writeto(path)
    return path


def table(name: str = "", header: dict[str, Any] | None = None, **columns: Any) -> fits.BinTableHDU:
    """Return a binary table; array cells come from two-dimensional columns."""
    made = []
    for key, values in columns.items():
        values = np.asarray(values)
        repeat = values.shape[1] if values.ndim == 2 else ""
        code = {"f8": "D", "f4": "E", "i2": "I", "i4": "J", "i8": "K", "b1": "L"}.get(values.dtype.str[1:])
        kind = f"{repeat}{code}" if code else f"{values.dtype.itemsize // 4}A"
        made.append(fits.Column(name=key, format=kind, array=values))
    hdu = fits.BinTableHDU.from_columns(made, name=name or None)
    for key, value in (header or {}).items():
        hdu.header[key] = value
    return hdu


def image(pixels: np.ndarray, name: str = "", **header: Any) -> fits.ImageHDU:
    """Return an image extension."""
    hdu = fits.ImageHDU(np.asarray(pixels), name=name or None)
    for key, value in header.items():
        hdu.header[key] = value
    return hdu
