"""What the user may say about a file that the file does not say itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Frame, Medium


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
    wave_unit : str, optional
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
            if value is not None and value not in get_args(allowed):
                raise ReadError(f"{name} '{value}', needed one of {', '.join(get_args(allowed))}")
        if isinstance(self.hdu, str) and self.hdu.strip().lstrip("-").isdigit():
            object.__setattr__(self, "hdu", int(self.hdu))
        if self.columns is not None:
            given = self.columns.split(",") if isinstance(self.columns, str) else self.columns
            columns = tuple(int(c) if isinstance(c, str) and c.strip().isdigit() else c for c in given)
            if len(columns) < 2:
                raise ReadError(f"columns {columns}, needed at least the wavelength and the flux column")
            object.__setattr__(self, "columns", columns)
