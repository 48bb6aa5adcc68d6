"""The world coordinate attributes that IRAF keeps in WAT cards."""

from __future__ import annotations

import re

from .fits import Header

_ATTRIBUTE = re.compile(r"\b(\w++)\s*+=\s*+(\"[^\"]*+\"|\S++)")
_CONTENT = 68  # characters of one card; trailing blanks count, but many programs strip them


def is_multispec(header: Header) -> bool:
    """Return whether each line of an image has a dispersion of its own."""
    return header.text("CTYPE1").upper().startswith("MULTISPE")


def attributes(header: Header, axis: int) -> dict[str, str]:
    """Return the attributes of a WCS axis: ``{'wtype': 'multispec', 'label': 'Wavelength', ...}``.

    Parameters
    ----------
    header : Header
    axis : int
        Counted from 1; 0 is the system.
    """
    pieces: list[str] = []
    while (key := f"WAT{axis}_{len(pieces) + 1:03d}") in header:
        pieces.append(header.raw(key))
    whole = "".join(piece.ljust(_CONTENT) for piece in pieces[:-1]) + (pieces[-1] if pieces else "")
    return {name.lower(): value.strip('"') for name, value in _ATTRIBUTE.findall(whole)}


def unit_and_label(header: Header) -> tuple[str, str]:
    """Return what IRAF states of the dispersion axis; empty when it does not."""
    found = attributes(header, 1)
    return found.get("units", ""), found.get("label", "")


def bands(header: Header, n_band: int) -> tuple[int, int | None]:
    """Return which band of an image is the flux, and which its error.

    They are the first and none, unless the BANDIDs say otherwise.
    """
    names = [header.text(f"BANDID{i + 1}").lower() for i in range(n_band)]
    flux = next((i for i, name in enumerate(names) if name.startswith(("spectrum", "object"))), 0)
    sigma = next((i for i, name in enumerate(names) if name.startswith(("sigma", "noise", "error"))), None)
    return flux, sigma
