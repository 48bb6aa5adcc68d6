"""Labels: what the network infers, their units and ranges, and the scaling to 0-1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import AnnaError

# name -> (unit in the spelling of astropy and VOUnit, UCD)
KNOWN = {
    "teff": ("K", "phys.temperature.effective"),
    "logg": ("dex(cm / s2)", "phys.gravity"),
    "feh": ("dex", "phys.abund.Fe"),
    "mh": ("dex", "phys.abund.Z"),
    "vmic": ("km / s", "phys.veloc.microTurb"),
    "vmac": ("km / s", "phys.veloc"),
    "vsini": ("km / s", "phys.veloc.rotat"),
    "rv": ("km / s", "spect.dopplerVeloc.opt"),
}

# Names that people and the old program use for the same thing.
ALIASES = {
    "temperature": "teff",
    "gravity": "logg",
    "metallicity": "feh",
    "microturb": "vmic",
    "microturbulence": "vmic",
    "vmicro": "vmic",
    "vturb": "vmic",
    "rotvel": "vsini",
}

SENTINELS = (-9999.0, -999.0)
"""Values that surveys write for a label that is not known."""


@dataclass(frozen=True)
class Label:
    """One quantity that the network infers.

    Parameters
    ----------
    name : str
        Such as ``teff``; letters, digits and underscores.
    low, high : float
        Range that scales to 0-1, in `unit`.
    unit : str, optional
        Unit in astropy's spelling; the usual one for a well-known name, else none.
    ucd : str, optional
        IVOA Unified Content Descriptor.

    Raises
    ------
    AnnaError
        If the name is not an identifier or the range is empty.
    """

    name: str
    low: float
    high: float
    unit: str = None  # type: ignore[assignment]  # always a string after __post_init__
    ucd: str = None  # type: ignore[assignment]  # as well

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise AnnaError(f"label '{self.name}': a name needs letters, digits and underscores only")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise AnnaError(f"label {self.name}: low {self.low} and high {self.high} do not make a range")
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        unit, ucd = _usual(self.name)
        if self.unit is None:
            object.__setattr__(self, "unit", unit)
        if self.ucd is None:
            object.__setattr__(self, "ucd", ucd)

    @property
    def span(self) -> float:
        """The width of the range, high - low."""
        return self.high - self.low

    @property
    def difference_unit(self) -> str:
        """The unit of a difference of two values, such as an error."""
        return difference_unit(self.unit)


def canonical(name: str) -> str:
    """Return the field's standard name of a label: ``temperature`` -> ``teff``."""
    return ALIASES.get(name.lower(), name.lower())


def are_known(values: FloatArray) -> BoolArray:
    """Return which values are known: finite, and none of the `SENTINELS`."""
    return np.isfinite(values) & ~np.isin(values, SENTINELS)


def unit_of(name: str) -> str:
    """Return the usual unit of a well-known label, in astropy's spelling, or nothing."""
    return _usual(name)[0]


def _usual(name: str) -> tuple[str, str]:
    return KNOWN.get(canonical(name), ("", ""))


def difference_unit(unit: str) -> str:
    """Return the unit of a difference: of two logarithms of accelerations it is plain dex."""
    return "dex" if unit.startswith("dex(") else unit


def is_unit(text: str) -> bool:
    """Whether astropy reads a text as a unit; nothing at all is dimensionless."""
    from astropy import units as u

    try:
        u.Unit(text)
    except (TypeError, ValueError):
        return False
    return True


def are_same_unit(one: str, other: str) -> bool:
    """Whether two units are the same, as far as it can be told: one that astropy does not know may be any.

    So may a logarithmic one: of log g people write dex as well as dex(cm / s2).
    """
    from astropy import units as u

    if not (is_unit(one) and is_unit(other)):
        return True
    first, second = u.Unit(one), u.Unit(other)
    logarithmic = [isinstance(unit, u.function.FunctionUnitBase) or unit == u.dex for unit in (first, second)]
    return all(logarithmic) or bool(first == second)


def nearest(name: str, names: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `names`, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def scale(values: ArrayLike, labels: Sequence[Label]) -> FloatArray:
    """Map labels from their ranges to 0-1.

    Parameters
    ----------
    values : array_like, shape (..., n_label)
        In the labels' units. NaN (not known) stays NaN.
    labels : sequence of Label

    Returns
    -------
    scaled : array of float64, shape (..., n_label)
    """
    low, span = _ranges(labels)
    return (np.asarray(values, dtype=np.float64) - low) / span


def unscale(scaled: ArrayLike, labels: Sequence[Label]) -> FloatArray:
    """Map labels from 0-1 back to their ranges; the inverse of `scale`."""
    low, span = _ranges(labels)
    return np.asarray(scaled, dtype=np.float64) * span + low


def _ranges(labels: Sequence[Label]) -> tuple[FloatArray, FloatArray]:
    return np.array([label.low for label in labels]), np.array([label.span for label in labels])
