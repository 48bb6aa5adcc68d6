"""Gaia RVS mean spectra: one wavelength grid, in vacuum, shifted to the rest frame of the star.

References
----------
Gaia DR3 documentation, table ``rvs_mean_spectrum``: 846-870 nm in steps of 0.01 nm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anna_onnx.spectrum import FloatArray

from .columns import Column, values_of
from .facts import Facts

N_PIXEL = 2401


def grid() -> FloatArray:
    """Return the wavelengths in nm, shape (2401,)."""
    return 846.0 + 0.01 * np.arange(N_PIXEL, dtype=np.float64)


def with_wavelength(columns: Sequence[Column], where: str) -> Sequence[Column]:
    """Add the wavelength column that the bulk files of the archive leave out."""
    by_key = {column.key: column for column in columns}
    flux = by_key.get("flux")
    if flux is None or "source_id" not in by_key or {"wavelength", "lambda", "wave"} & by_key.keys():
        return columns
    cells = values_of(flux, where)
    if len(cells) == 0 or np.shape(cells[0]) != (N_PIXEL,):
        return columns
    tiled = np.broadcast_to(grid(), (flux.n_row, N_PIXEL))
    return [*columns, Column("wavelength", "nm", "em.wl", "", flux.n_row, lambda: tiled)]


def recognize(wavelength: FloatArray, facts: Facts) -> Facts:
    """Add what is known when the wavelengths (Angstrom) are those of the RVS."""
    if wavelength.size != N_PIXEL or not np.allclose(wavelength[[0, -1]], (8460.0, 8700.0), rtol=0, atol=1e-6):
        return facts
    known = facts.known(medium="vacuum", frame="rest", resolution=facts.resolution or 11500.0)
    return known.noted("Gaia RVS mean spectrum: vacuum, rest frame, R = 11500")
