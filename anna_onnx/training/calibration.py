"""Fitting what the sidecar holds of errors: their calibration and residual trends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anna_onnx.calibration import MISFIT_REACH, ONE_SIGMA, Calibration, FitScaling, Trends

FloatArray = NDArray[np.float64]
LEVELS = (0.1, 0.3, 0.5, ONE_SIGMA, 0.8, 0.9, 0.95, 0.99)
APART = 1e-4
"""Keeps equal medians apart: they have no slope between them."""


def fit_calibration(error: FloatArray, sigma: FloatArray, snr: FloatArray, per_bin: int = 400) -> Calibration:
    """Return the factors on sigma with which intervals hold what they promise.

    Parameters
    ----------
    error : array, shape (n, n_label)
        Inferred minus true, NaN where the truth is not known, of spectra that training never saw.
    sigma : array, shape (n, n_label)
        The network's.
    snr : array, shape (n,)
        As inference measures it.
    per_bin : int
        Spectra in a bin of S/N at least; at most ten bins.
    """
    bins = _bins(snr, int(np.clip(len(error) // per_bin, 1, 10)))
    ratio = np.abs(error) / sigma
    factors = np.stack([_conformal_quantiles(ratio[rows]) for rows in bins])
    middle = np.array([np.median(snr[rows]) for rows in bins])
    return Calibration(np.array(LEVELS), middle, factors, len(error))


def fit_scaling(
    error: FloatArray, sigma: FloatArray, snr: FloatArray, misfit: FloatArray, per_bin: int = 1500
) -> FitScaling:
    """Return how errors go with the misfit: from the third of the spectra that fit best to the third that fit worst.

    Parameters
    ----------
    error, sigma, snr
        As `fit_calibration` has them.
    misfit : array, shape (n,)
        As inference measures it.
    per_bin : int
        Spectra in a bin of S/N at least; at most eight bins.
    """
    bins = _bins(snr, int(np.clip(len(error) // per_bin, 1, 8)))
    ratio = np.abs(error) / sigma
    usual, power = np.empty(len(bins)), np.empty(len(bins))
    for i, rows in enumerate(bins):
        usual[i] = max(np.median(misfit[rows]), 1e-6)
        times = np.log(np.clip(misfit[rows] / usual[i], 1 / MISFIT_REACH, MISFIT_REACH))
        best, worst = (times <= np.quantile(times, 1 / 3)), (times >= np.quantile(times, 2 / 3))
        # What misfit does is much the same for all labels.
        scaled = ratio[rows] / np.nanquantile(ratio[rows], ONE_SIGMA, axis=0)
        small, large = (np.nanquantile(scaled[third], ONE_SIGMA) for third in (best, worst))
        apart = times[worst].mean() - times[best].mean()
        power[i] = np.clip(np.log(large / small) / apart, 0, 1) if apart > 0 else 0.0
    return FitScaling(np.array([np.median(snr[rows]) for rows in bins]), usual, power)


def _bins(snr: FloatArray, n_bin: int) -> list[NDArray[np.intp]]:
    """Return the rows of bins of equal number; where spectra share one S/N the edges coincide, and there are fewer."""
    edges = np.unique(np.quantile(snr, np.linspace(0, 1, n_bin + 1)[1:-1]))
    place = np.searchsorted(edges, snr, side="left")
    return [np.flatnonzero(place == i) for i in np.unique(place)]


@dataclass(frozen=True, eq=False)
class Factors:
    """By what sigma must be multiplied, for low and high labels and for small and large sigma.

    Attributes
    ----------
    level : Tensor, shape (n_label, n_level)
        Logarithm of sigma, strictly ascending.
    knot : Tensor, shape (n_label, n_level, n_knot)
        Scaled inferred label, strictly ascending.
    factor : Tensor, shape (n_label, n_level, n_knot)
        Linear in between, constant beyond.
    """

    level: Tensor
    knot: Tensor
    factor: Tensor

    @classmethod
    def none(cls, n_label: int, n_level: int = 2, n_knot: int = 2) -> Factors:
        """Return factors of one."""
        level, knot = torch.linspace(-6.0, 0.0, n_level), torch.linspace(0.0, 1.0, n_knot)
        shape = (n_label, n_level, n_knot)
        return cls(level.repeat(n_label, 1), knot.expand(shape).clone(), torch.ones(shape))


def fit_factors(mean: Tensor, sigma: Tensor, true: Tensor, per_cell: int = 300) -> Factors:
    """Return by what sigma must be multiplied to hold 68 % of the truths.

    A network that is honest on average may be too timid in the middle of a label's range and too
    bold at its ends, and otherwise so for good spectra than for poor ones, which sigma tells apart.
    What is left to do as a function of the S/N is done by `fit_calibration`.

    Parameters
    ----------
    mean, sigma, true : Tensor, shape (n, n_label)
        Of the scaled labels; NaN where the truth is not known.
    per_cell : int
        Spectra that a factor is taken from, at least; up to six labels at up to three sigmas. A label with
        too few known truths keeps factors of 1, and is left to `fit_calibration`.
    """
    n_label = mean.shape[1]
    n_knot = max(2, min(6, len(mean) // per_cell))
    n_level = max(2, min(3, len(mean) // (n_knot * per_cell)))
    result = Factors.none(n_label, n_level, n_knot)
    for i in range(n_label):
        known = ~true[:, i].isnan()
        if known.sum() < n_level * n_knot * per_cell:
            continue
        inferred, error, size = mean[known, i], (mean[known, i] - true[known, i]).abs(), sigma[known, i].log()
        for j, group in enumerate(size.argsort().tensor_split(n_level)):
            result.level[i, j] = size[group].median() + APART * j
            for k, cell in enumerate(group[inferred[group].argsort()].tensor_split(n_knot)):
                result.knot[i, j, k] = inferred[cell].median() + APART * k
                ratio = (error[cell] / size[cell].exp()).quantile(ONE_SIGMA)
                result.factor[i, j, k] = ratio.clamp(min=0.1, max=10)
    return result


def _conformal_quantiles(ratio: FloatArray) -> FloatArray:
    """Return the quantiles of each label at `LEVELS`, shape (n_label, n_level).

    The rank ceil((n + 1) p) makes the promise hold for a finite sample too
    (Angelopoulos & Bates 2021, arXiv:2107.07511, section 1).
    """
    result = np.empty((ratio.shape[1], len(LEVELS)))
    for i, column in enumerate(ratio.T):
        known = np.sort(column[np.isfinite(column)])
        rank = np.ceil((known.size + 1) * np.array(LEVELS)).astype(int)
        result[i] = known[np.clip(rank, 1, known.size) - 1] if known.size else 1.0
    return result


def fit_trends(inferred: FloatArray, true: FloatArray, max_order: int = 4, n_fold: int = 5) -> Trends:
    """Fit true = f(inferred) of each label with the polynomial that cross-validation likes best.

    Parameters
    ----------
    inferred, true : arrays, shape (n, n_label)
        Scaled to 0-1.
    max_order : int
    n_fold : int

    Returns
    -------
    Trends
        A straight f(x) = x for a label whose trends no polynomial improves.
    """
    coefficients = np.zeros((inferred.shape[1], max_order + 1))
    for i in range(inferred.shape[1]):
        known = np.isfinite(true[:, i])
        x, y = inferred[known, i], true[known, i]
        order = _best_order(x, y, max_order, n_fold)
        coefficients[i, : max(order, 1) + 1] = [0, 1] if order < 0 else _polyfit(x, y, order)
    return Trends(coefficients)


def _best_order(x: FloatArray, y: FloatArray, max_order: int, n_fold: int) -> int:
    """Return the order with the least cross-validated error, -1 for none at all."""
    fold = np.arange(x.size) % n_fold
    errors = [float(np.mean((y - x) ** 2))]
    for order in range(1, max_order + 1):
        left_out = [
            y[fold == k] - np.polynomial.polynomial.polyval(x[fold == k], _polyfit(x[fold != k], y[fold != k], order))
            for k in range(n_fold)
        ]
        errors.append(float(np.mean(np.concatenate(left_out) ** 2)))
    best = int(np.argmin(errors))
    return best if best else -1


def _polyfit(x: FloatArray, y: FloatArray, order: int) -> FloatArray:
    return np.asarray(np.polynomial.polynomial.polyfit(x, y, order), dtype=np.float64)
