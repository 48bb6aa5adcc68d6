"""What the user may say about a file that the file does not say itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from typing import Any, get_args

import numpy as np

from anna_onnx.errors import ReadError
from anna_onnx.quantity import shown
from anna_onnx.spectrum import Frame, Medium

from .facts import Facts


@dataclass(frozen=True)
class ReadOptions:
    """Overrides: each wins over what the file says, and is noted in the spectra.

    Parameters
    ----------
    hdu : int or str, optional
        FITS extension, by number (the primary is 0) or by name; the layout
        inside it is then found without looking at the rest of the file.
    medium : {'air', 'vacuum'}, optional
    frame : {'topocentric', 'barycentric', 'rest'}, optional
    wave_unit : str or unit of astropy, optional
        Unit of the stored wavelengths, such as ``nm``.
    columns : tuple of str or int, optional
        Wavelength, flux and, if there are any, error and mask columns, by
        name or by number from 1; a string with commas is taken apart.
    merge_orders : bool
        Whether the orders, chips or arms of one star are merged into one
        spectrum by inverse variance.

    Raises
    ------
    ReadError
        If an override is not one of those known.
    """

    hdu: int | str | None = None
    medium: Medium | None = None
    frame: Frame | None = None
    wave_unit: str | None = None
    columns: tuple[str | int, ...] | None = None
    merge_orders: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (("medium", self.medium, Medium), ("frame", self.frame, Frame)):
            if value is not None and not (isinstance(value, str) and value in get_args(allowed)):
                raise ReadError(f"{name} {shown(value)}, needed one of {', '.join(get_args(allowed))}")
        if not isinstance(self.merge_orders, (bool, np.bool_)):
            raise ReadError(f"merge_orders {shown(self.merge_orders)}, needed True or False")
        if self.hdu is not None:
            object.__setattr__(self, "hdu", _name_or_number(self.hdu, "hdu"))
        if hasattr(self.wave_unit, "to_string"):
            object.__setattr__(self, "wave_unit", str(self.wave_unit))
        if not isinstance(self.wave_unit, str | None):
            raise ReadError(f"wave_unit {shown(self.wave_unit)}, needed a unit such as nm")
        if self.columns is not None:
            object.__setattr__(self, "columns", _columns(self.columns))

    def override(self, facts: Facts) -> Facts:
        """Return what a file says of a spectrum with what the user says instead, and notes on that."""
        if self.wave_unit is not None:
            facts = facts.noted(f"wavelength unit {self.wave_unit} as requested")
        if self.medium is not None:
            facts = facts.noted(f"medium {self.medium} as requested (file: {facts.medium})").known(medium=self.medium)
        if self.frame is not None:
            facts = facts.noted(f"frame {self.frame} as requested (file: {facts.frame})").known(frame=self.frame)
        return facts


def _columns(given: Any) -> tuple[str | int, ...]:
    if not isinstance(given, (str, list, tuple)):
        raise ReadError(f"columns {shown(given)}, needed names or numbers, such as 'wave,flux' or (1, 2)")
    listed = given.split(",") if isinstance(given, str) else given
    columns = tuple(_name_or_number(one, "column") for one in listed)
    if len(columns) < 2:
        raise ReadError(
            f"columns {', '.join(map(str, columns)) or 'none'}, needed at least the wavelength and the flux column"
        )
    return columns


def _name_or_number(given: Any, what: str) -> str | int:
    if isinstance(given, str):
        return int(given) if re.fullmatch(r"\s*-?\d+\s*", given) else given
    if isinstance(given, Integral) and not isinstance(given, bool):
        return int(given)
    raise ReadError(f"{what} {shown(given)}, needed a name or a number")
