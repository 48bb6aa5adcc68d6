"""Stated noise: what the errors of a file say of a spectrum, beside the noise that it has."""

from __future__ import annotations

import numpy as np

from anna_onnx.arrays import FloatArray, Floats

USUAL = 1.25
"""By how much the stated noise may exceed the seen one, and nothing follows."""


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
    valid = np.isfinite(sigma)
    with np.errstate(invalid="ignore", divide="ignore"):
        rms = np.sqrt(np.where(valid, sigma, 0).astype(np.float64) ** 2 @ np.ones(sigma.shape[1]) / valid.sum(axis=1))
        ratio = rms / in_differences(sigma)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1), 1.0)


def excess(sigma: Floats, pixel_noise: FloatArray) -> FloatArray:
    """Return by how much the stated noise exceeds the seen one beyond the usual, shape (n,); 1 where it does not.

    Parameters
    ----------
    sigma : array, shape (n, n_pixel)
    pixel_noise : array, shape (n,)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = in_differences(sigma) / pixel_noise / USUAL
    return np.where(ratio > 1, np.minimum(ratio, 1e6), 1.0)
