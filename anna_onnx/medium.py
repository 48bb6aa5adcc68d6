"""Wavelengths in air and in vacuum, at rest and in motion."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import FloatArray

C_KMS = 299792.458
"""Speed of light, km/s."""


def refractive_index(vacuum: ArrayLike) -> FloatArray:
    """Return the refractive index of standard air (15 C, 101325 Pa, dry, 450 ppm CO2).

    Ciddor (1996, Applied Optics 35, 1566), eq. 1, with s = 10^4 / wavelength::

        n - 1 = 0.05792105 / (238.0185 - s^2) + 0.00167917 / (57.362 - s^2)

    Between 2300 Angstrom and 2.5 micron the formula of Morton (2000, ApJS 130,
    403), which VALD uses, agrees with it to 6e-9 (2 m/s). Below 2000 Angstrom
    wavelengths are in vacuum by convention; the index falls to 1 linearly
    from there to 1990 Angstrom, so that wavelengths keep ascending.

    Parameters
    ----------
    vacuum : array_like, shape (n,)
        Vacuum wavelengths, Angstrom.
    """
    wavelength = np.maximum(np.asarray(vacuum, dtype=np.float64), 1990.0)
    s2 = (1e4 / wavelength) ** 2
    refractivity = 0.05792105 / (238.0185 - s2) + 0.00167917 / (57.362 - s2)
    return np.asarray(1 + refractivity * np.minimum((wavelength - 1990.0) / 10.0, 1.0))


def vacuum_to_air(wavelength: ArrayLike) -> FloatArray:
    """Convert vacuum wavelengths to standard air, Angstrom; see `refractive_index`."""
    vacuum = np.asarray(wavelength, dtype=np.float64)
    return vacuum / refractive_index(vacuum)


def air_to_vacuum(wavelength: ArrayLike) -> FloatArray:
    """Convert wavelengths in standard air to vacuum, Angstrom; the inverse of `vacuum_to_air` to 1e-9 above 2000."""
    air = np.asarray(wavelength, dtype=np.float64)
    vacuum = air
    for _ in range(4):  # each round gains more than three digits
        vacuum = air * refractive_index(vacuum)
    return vacuum


def convert(wavelength: ArrayLike, medium: str, to: Literal["air", "vacuum"]) -> FloatArray:
    """Convert wavelengths between media; those in an unknown medium are taken to be in `to` already."""
    if medium == "vacuum" and to == "air":
        return vacuum_to_air(wavelength)
    if medium == "air" and to == "vacuum":
        return air_to_vacuum(wavelength)
    return np.asarray(wavelength, dtype=np.float64)


def doppler(velocity: ArrayLike) -> FloatArray:
    """Return observed over emitted wavelength for a recession velocity in km/s, relativistic.

    Only the radial motion is meant: sqrt((1 + v/c) / (1 - v/c)).
    """
    beta = np.asarray(velocity, dtype=np.float64) / C_KMS
    return np.asarray(np.sqrt((1 + beta) / (1 - beta)))
