"""Calibration: from the network's sigma to intervals that hold what they promise, and the removal of trends.

Split-conformal: on spectra that training never saw, ``|true - inferred| / sigma``
is sorted, and its p-quantile is the factor that makes ``inferred +- factor * sigma``
hold a fraction p of the truths (Romano, Patterson & Candes 2019, arXiv:1905.03222;
Angelopoulos & Bates 2021, arXiv:2107.07511), here in bins of the S/N.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import BundleError

ONE_SIGMA = 0.6827
LEVELS = (0.1, 0.3, 0.5, ONE_SIGMA, 0.8, 0.9, 0.95, 0.99)
LEAST_SNR = 1e-3  # a measured S/N may come out as zero or below


@dataclass(frozen=True, eq=False)
class Calibration:
    """Factors on sigma for every level, S/N bin and label.

    Attributes
    ----------
    levels : array, shape (n_level,)
        Fractions of truths inside the interval, ascending, above 0 and below 1.
    snr : array, shape (n_bin,)
        Median S/N of each bin, ascending.
    factors : array, shape (n_bin, n_label, n_level)
    n : int
        Number of spectra it was made from.
    """

    levels: FloatArray
    snr: FloatArray
    factors: FloatArray
    n: int

    def __post_init__(self) -> None:
        shape = (self.snr.size, self.factors.shape[1] if self.factors.ndim == 3 else -1, self.levels.size)
        if self.factors.shape != shape or 0 in shape:
            raise BundleError(f"calibration: factors of shape {self.factors.shape} do not fit {shape}")
        if not (np.isfinite(self.factors).all() and (self.factors >= 0).all()):
            raise BundleError("calibration: factors must be finite and not negative")
        for name, axis in (("levels", self.levels), ("snr", self.snr)):
            if axis.ndim != 1 or not np.isfinite(axis).all() or (np.diff(axis) < 0).any():
                raise BundleError(f"calibration: {name} must be finite and ascend")

    def check_level(self, level: float) -> None:
        """Refuse a level that the calibration does not reach.

        Raises
        ------
        BundleError
        """
        if not self.levels[0] <= level <= self.levels[-1]:
            raise BundleError(f"level {level}: the model is calibrated from {self.levels[0]:g} to {self.levels[-1]:g}")

    def half_width(self, sigma: ArrayLike, snr: ArrayLike, level: float = ONE_SIGMA) -> FloatArray:
        """Return the half width of the interval that holds the truth with a probability.

        Parameters
        ----------
        sigma : array_like, shape (n, n_label)
            The network's sigma, in the labels' units.
        snr : array_like, shape (n,)
            S/N per pixel; where it is not known (NaN) the median bin counts.
        level : float
            The probability.

        Returns
        -------
        half_width : array, shape (n, n_label)
        """
        self.check_level(level)
        if level not in self._at_level:
            table = [[np.interp(level, self.levels, row) for row in table] for table in self.factors]
            self._at_level[level] = np.array(table)
        factors = interpolate_in_noise(snr, self.snr, self._at_level[level])
        return np.asarray(np.asarray(sigma, dtype=np.float64) * factors)

    @cached_property
    def _at_level(self) -> dict[float, FloatArray]:
        """The factors, shape (n_bin, n_label), of the levels that were asked for: one or two of many blocks."""
        return {}


def conformal_quantiles(ratio: FloatArray) -> FloatArray:
    """Return the quantiles of each label at `LEVELS`, shape (n_label, n_level).

    The rank ceil((n + 1) p) makes the promise hold for a finite sample too
    (Angelopoulos & Bates 2021, section 1).

    Parameters
    ----------
    ratio : array, shape (n, n_label)
        ``|true - inferred| / sigma``, NaN where the truth is not known; a label that is never known has factors of 1.
    """
    result = np.ones((ratio.shape[1], len(LEVELS)))
    for i, column in enumerate(ratio.T):
        known = np.sort(column[np.isfinite(column)])
        rank = np.ceil((known.size + 1) * np.array(LEVELS)).astype(int)
        if known.size:
            result[i] = known[np.clip(rank, 1, known.size) - 1]
    return result


def interpolate_in_noise(snr: ArrayLike, bins: FloatArray, values: FloatArray) -> FloatArray:
    """Interpolate between bins of S/N in the noise, which is what errors go with.

    Parameters
    ----------
    snr : array_like, shape (n,)
        S/N per pixel; where it is not known (NaN) the median bin counts.
    bins : array, shape (n_bin,)
        Ascending.
    values : array, shape (n_bin, k)

    Returns
    -------
    values : array, shape (n, k)
    """
    where = np.where(np.isnan(snr), bins[bins.size // 2], np.asarray(snr, dtype=np.float64))
    noise, known = (-1 / np.maximum(level, LEAST_SNR) for level in (where, bins))  # negative to ascend
    return np.stack([np.interp(noise, known, column) for column in values.T], axis=-1)


@dataclass(frozen=True, eq=False)
class Trends:
    """Polynomials true = f(inferred), one a label, in labels scaled to 0-1.

    Attributes
    ----------
    coefficients : array, shape (n_label, order + 1)
        Constant term first; shorter polynomials are padded with zeros.
    """

    coefficients: FloatArray

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 2 or not np.isfinite(self.coefficients).all():
            raise BundleError(
                f"trends: coefficients of shape {self.coefficients.shape}, needed (label, order + 1), finite"
            )

    def correct(self, scaled: ArrayLike) -> FloatArray:
        """Return scaled labels, shape (n, n_label), with the trends taken out.

        Outside 0-1, where nothing was fitted, the correction at the end holds.
        """
        scaled = np.asarray(scaled, dtype=np.float64)
        inside = np.clip(scaled, 0, 1)
        fitted = [np.polynomial.polynomial.polyval(inside[:, i], c) for i, c in enumerate(self.coefficients)]
        return np.asarray(scaled + (np.stack(fitted, axis=-1) - inside))
