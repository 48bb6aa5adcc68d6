"""Stated noise: what the errors of a file say of a spectrum, beside the noise that it has."""

from __future__ import annotations

import numpy as np

from anna_onnx.arrays import FloatArray, Floats
from anna_onnx.quality import nearest_rank

USUAL = 1.25
"""By how much the stated noise may exceed the seen one, and nothing follows."""
UNMEASURED = 30.0
"""Times the median error, from which on one says that a pixel was not measured, and nothing of its noise."""


def in_differences(sigma: Floats) -> FloatArray:
    """Return the noise of a pixel that `anna_onnx.fit.Fit.pixel_noise` would find if the errors are right, shape (n,).

    Parameters
    ----------
    sigma : array, shape (n, n_pixel)
        NaN where a pixel is not valid.
    """
    center, left, right = sigma[:, 2:-2], sigma[:, :-4], sigma[:, 4:]
    root = ((4 * center**2 + left**2 + right**2) / 6) ** 0.25
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.nansum(root, axis=1) / np.isfinite(root).sum(axis=1)) ** 2, dtype=np.float64)


def unevenness(sigma: Floats) -> FloatArray:
    """Return by how much the rms of noise exceeds what its differences tell, because pixels differ, shape (n,)."""
    known = _measured(sigma)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.sqrt(np.nansum(known**2, axis=1) / np.isfinite(known).sum(axis=1)) / in_differences(known)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1), 1.0)


def excess(sigma: Floats, pixel_noise: FloatArray) -> FloatArray:
    """Return by how much the stated noise exceeds the seen one beyond the usual, shape (n,); 1 where it does not.

    Parameters
    ----------
    sigma : array, shape (n, n_pixel)
    pixel_noise : array, shape (n,)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = in_differences(_measured(sigma)) / pixel_noise / USUAL
    return np.where(ratio > 1, np.minimum(ratio, 1e6), 1.0)


def _measured(sigma: Floats) -> FloatArray:
    """Return errors without those that only say that a pixel was not measured (NaN)."""
    return np.where(sigma < UNMEASURED * nearest_rank(sigma, 0.5)[:, None], sigma, np.nan).astype(np.float64)
