"""Quantities: numbers as users of Python have them, with a mask, a unit, both or neither.

Masked arrays, the columns of tables, quantities and masked quantities are known by their attributes, so that
plain arrays cost nothing and astropy is imported only where there is a unit.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from anna_onnx.arrays import BoolArray
from anna_onnx.errors import SpectrumError


class Numbers(NamedTuple):
    """An array, and what came with it.

    Attributes
    ----------
    what : str
        What to call it in a message.
    values : array, shape (...)
    masked : array of bool, shape (...), or None
        True where there is no value.
    unit : unit of astropy, or None
    """

    what: str
    values: NDArray[Any]
    masked: BoolArray | None
    unit: Any

    def to(self, unit: Any) -> Numbers:
        """Convert to a unit, None = dimensionless; numbers without a unit are taken to be in it.

        Raises
        ------
        SpectrumError
            If the units differ in kind.
        """
        return self._converted(unit, ())

    def to_angstrom(self) -> Numbers:
        """Convert wavelengths, frequencies, wavenumbers or energies to Angstrom, as which plain numbers are taken.

        Raises
        ------
        SpectrumError
            If the unit is that of something else.
        """
        if self.unit is None:
            return self
        from astropy import units as u

        return self._converted(u.AA, u.spectral())

    def _converted(self, unit: Any, equivalencies: Any) -> Numbers:
        if self.unit is None or self.unit == unit:
            return self
        from astropy import units as u

        needed = u.dimensionless_unscaled if unit is None else unit
        try:
            values = np.asarray(self.unit.to(needed, self.values, equivalencies=equivalencies))
        except (u.UnitsError, TypeError):
            wanted = "no unit" if unit is None else f"'{unit}'"
            raise SpectrumError(f"{self.what} in '{self.unit}', needed {wanted}") from None
        return self._replace(values=values, unit=unit)


def unpack(given: Any, what: str, dtype: DTypeLike = np.float64) -> Numbers:
    """Take the numbers, mask and unit out of an array of any kind.

    Parameters
    ----------
    given : array_like
        Of numpy, astropy or pandas, or a sequence of these.
    what : str
        What to call it in a message.
    dtype : dtype
        Of the values, which are not copied when they are of it.

    Raises
    ------
    SpectrumError
        If it holds something else than real numbers.
    """
    if type(given) is np.ndarray and given.dtype == dtype:
        return Numbers(what, given, None, None)
    if isinstance(given, (list, tuple)) and any(_unit(part) is not None or _has_mask(part) for part in given):
        return _stack([unpack(part, what, dtype) for part in given], what)
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"type {array.dtype}")
        values = array.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise SpectrumError(f"{what} is no array of real numbers ({error})") from None
    masked = np.asarray(given.mask, dtype=np.bool_) if _has_mask(given) else np.False_
    return Numbers(what, values, np.broadcast_to(masked, values.shape) if masked.any() else None, _unit(given))


def _unit(given: Any) -> Any:
    unit = getattr(given, "unit", None)
    return unit if hasattr(unit, "physical_type") else None


def _has_mask(given: Any) -> bool:
    mask = getattr(given, "mask", None)
    return mask is not None and not callable(mask)  # pandas has a method of this name


def _stack(parts: list[Numbers], what: str) -> Numbers:
    """Put the numbers of a sequence into one array, in the unit of the first."""
    unit = parts[0].unit
    try:
        values = np.stack([part.to(unit).values for part in parts])
    except ValueError:
        raise SpectrumError(f"{what} has rows of different lengths") from None
    if all(part.masked is None for part in parts):
        return Numbers(what, values, None, unit)
    masked = [np.False_ if part.masked is None else part.masked for part in parts]
    return Numbers(what, values, np.stack([np.broadcast_to(one, values.shape[1:]) for one in masked]), unit)


def shown(given: Any) -> str:
    """Return what somebody gave as a message can hold it: in one line, and not at length."""
    text = " ".join(repr(given).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def number(given: Any, unit: str = "") -> float | None:
    """Return one real number, in `unit` where it has a unit of its own; None if it is something else."""
    if _unit(given) is not None:
        from astropy import units as u

        try:
            given = u.Quantity(given).to_value(unit)
        except (u.UnitsError, TypeError):
            return None
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given[()]
    return float(given) if isinstance(given, Real) and not isinstance(given, bool) else None
