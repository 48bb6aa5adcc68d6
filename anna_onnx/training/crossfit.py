"""Coverage on spectra other than those that an error was calibrated on, by cross-fitting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.coverage import REPORTED_LEVELS, Coverage, measure_coverage
from anna_onnx.training.calibration import fit_calibration

N_FOLD = 5


def cross_fitted_coverage(
    error: FloatArray,
    sigma: FloatArray,
    snr: FloatArray,
    true: FloatArray,
    known_snr: FloatArray,
    star: NDArray[Any],
    names: tuple[str, ...],
) -> Coverage | None:
    """Count how often intervals hold the truth, each by factors that were fitted without its star.

    Parameters
    ----------
    error, sigma, true : arrays, shape (n, n_label)
        Inferred minus true, the network's sigma and the truth.
    snr : array, shape (n,)
        As inference measures it.
    known_snr : array, shape (n,)
        Of the noise that was drawn: what to sort the spectra by.
    star : array, shape (n,)
        Names of the stars; all spectra of a star are in one fold.
    names : tuple of str
        Of the labels.

    Returns
    -------
    Coverage or None
        None for fewer stars than folds.
    """
    stars, number = np.unique(star, return_inverse=True)
    if stars.size < N_FOLD:
        return None
    fold = number % N_FOLD
    widths = np.empty((len(REPORTED_LEVELS), *error.shape))
    for k in range(N_FOLD):
        held, others = fold == k, fold != k
        calibration = fit_calibration(error[others], sigma[others], snr[others])
        for i, level in enumerate(REPORTED_LEVELS):
            widths[i, held] = calibration.half_width(sigma[held], snr[held], level)
    groups = {"snr": known_snr, **dict(zip(names, true.T, strict=True))}
    return measure_coverage(error, widths, groups, labels=names, star=star)
