"""Residuals in numbers, the same everywhere: what is not known (NaN) does not count."""

from __future__ import annotations

import numpy as np

from anna_onnx.arrays import BoolArray, FloatArray, Floats

MAD = 1.482602
"""Standard deviation of a normal variable over its median absolute deviation."""


def describe(error: FloatArray) -> dict[str, float]:
    """Return the bias, scatter, robust scatter and rms of residuals.

    That is their mean, standard deviation, `MAD` x median absolute deviation, and root mean square; NaN where no
    residual is known.

    Parameters
    ----------
    error : array, shape (n,)
    """
    known = error[np.isfinite(error)]
    if not known.size:
        return dict.fromkeys(("bias", "scatter", "robust_scatter", "rms"), np.nan)
    return {
        "bias": float(known.mean()),
        "scatter": float(known.std()),
        "robust_scatter": float(MAD * np.median(np.abs(known - np.median(known)))),
        "rms": rms(known),
    }


def rms(values: FloatArray) -> float:
    """Return the root mean square over what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else np.nan


def known_mean(values: Floats | BoolArray) -> float:
    """Return the mean over what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def in_words(value: float | None, form: str) -> str:
    """Return a number in a format, a dash where it is not known."""
    return "–" if value is None or not np.isfinite(value) else f"{value:{form}}"


def thirds(values: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Part values into thirds of equal number.

    Returns
    -------
    edges : array, shape (2,)
        Where the thirds part; NaN where no value is known.
    rows : array of bool, shape (3, n)
        The values of each third, the lowest first; NaN is in none.
    """
    known = values[~np.isnan(values)]
    low, high = edges = np.quantile(known, [1 / 3, 2 / 3]) if known.size else np.full(2, np.nan)
    return edges, np.stack([values <= low, (values > low) & (values <= high), values > high])
