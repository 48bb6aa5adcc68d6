"""Fitting what the sidecar holds of errors: their calibration and residual trends."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anna_onnx.arrays import FloatArray
from anna_onnx.calibration import LEVELS, ONE_SIGMA, Calibration, Trends, conformal_quantiles
from anna_onnx.fit import COLUMNS

HIDDEN = 16
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 2000, 1024, 5e-3, 0.01
MANY_STARS = 6000
"""Stars from which more than a linear adjustment is learnt."""
LEAST_KNOWN = 300
MOST_BINS, LEAST_IN_BIN = 10, 400
"""Bins of S/N, and spectra in each."""
MAX_ORDER, N_FOLD, LEAST_IN_FOLD = 4, 5, 2
"""Of the polynomials that trends may be, and of the cross-validation that chooses one."""
FARTHEST = 3.0
"""Standard deviations of a feature."""
LARGEST_LOG_FACTOR = 2.3
TINY = 1e-6


def fit_calibration(error: FloatArray, sigma: FloatArray, snr: FloatArray) -> Calibration:
    """Return the factors on sigma with which intervals hold what they promise.

    Parameters
    ----------
    error : array, shape (n, n_label)
        Inferred minus true, NaN where the truth is not known, of spectra that training never saw.
    sigma : array, shape (n, n_label)
        The network's.
    snr : array, shape (n,)
        As inference measures it; spectra of which it is not known (NaN) do not count.
    """
    known = ~np.isnan(snr)
    error, sigma, snr = error[known], sigma[known], snr[known]
    bins = _bins(snr, int(np.clip(len(error) // LEAST_IN_BIN, 1, MOST_BINS)))
    ratio = np.abs(error) / sigma
    factors = np.stack([conformal_quantiles(ratio[rows]) for rows in bins])
    middle = np.array([np.median(snr[rows]) for rows in bins])
    return Calibration(np.array(LEVELS), middle, factors, len(error))


def _bins(snr: FloatArray, n_bin: int) -> list[NDArray[np.intp]]:
    """Return the rows of bins of equal number; where spectra share one S/N the edges coincide, and there are fewer."""
    edges = np.unique(np.quantile(snr, np.linspace(0, 1, n_bin + 1)[1:-1]))
    place = np.searchsorted(edges, snr, side="left")
    return [np.flatnonzero(place == i) for i in np.unique(place)]


class Adjustment(nn.Module):
    """By what sigma must be multiplied, for these labels and sigmas, and for how well the spectrum fits them.

    A network that is honest on average may be too timid for some stars and too bold for others.

    Parameters
    ----------
    n_label, n_feature : int
        Of `features_of`.
    n_hidden : int
        0: the logarithm of the factor is linear in the features.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, n_label: int, n_feature: int, n_hidden: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_feature))
        self.register_buffer("spread", torch.ones(n_feature))
        last = nn.Linear(n_hidden or n_feature, n_label)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        hidden = [nn.Linear(n_feature, n_hidden), nn.SiLU()] if n_hidden else []
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, features: Tensor) -> Tensor:
        """Return the factors, shape (n, n_label); features beyond those it was fitted to count as the last ones."""
        usual = ((features - self.center) / self.spread).clamp(-FARTHEST, FARTHEST)
        factor: Tensor = self.layers(usual).clamp(-LARGEST_LOG_FACTOR, LARGEST_LOG_FACTOR).exp()
        return factor


def features_of(mean: Tensor, sigma: Tensor, fit: Tensor | None) -> Tensor:
    """Return what errors may depend on, shape (n, n_feature).

    Parameters
    ----------
    mean, sigma : Tensor, shape (n, n_label)
        Of the scaled labels.
    fit : Tensor, shape (n, n_column), or None
        The columns of a `anna_onnx.fit.Fit`.
    """
    known = [mean, sigma.clamp(min=TINY).log()]
    if fit is not None:
        of = {name: fit[:, i : i + 1] for i, name in enumerate(COLUMNS)}
        noise, misfit, lines = (of[name].clamp(min=TINY).log() for name in ("noise", "misfit", "lines"))
        known += [noise, misfit - noise, misfit - lines]
    return torch.cat(known, dim=1)


def fit_adjustment(features: Tensor, error: Tensor, n_star: int, seed: int) -> Adjustment:
    """Return by what sigma must be multiplied to hold 68 % of the truths, whatever the features.

    Quantile regression (Koenker & Bassett 1978, Econometrica 46, 33) of the logarithm of `error`. What
    is left to do as a function of the S/N is done by `fit_calibration`.

    Parameters
    ----------
    features : Tensor, shape (n, n_feature)
    error : Tensor, shape (n, n_label)
        Absolute, in units of sigma; NaN where the truth is not known. A label of which too few are known
        keeps factors of 1, and is left to `fit_calibration`.
    n_star : int
        How many stars the spectra are of: of few, only what is linear is learnt.
    seed : int
    """
    torch.manual_seed(seed)
    known = ~error.isnan()
    learnt = known & (known.sum(dim=0) >= LEAST_KNOWN)
    size = torch.where(learnt, error, 1.0).clamp(min=TINY).log()
    result = Adjustment(error.shape[1], features.shape[1], HIDDEN if n_star >= MANY_STARS else 0)
    result.center.copy_(features.mean(dim=0))
    result.spread.copy_(features.std(dim=0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(result.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(features), (BATCH,))
        beyond = size[rows] - result(features[rows]).log()
        cost = torch.where(learnt[rows], torch.maximum(ONE_SIGMA * beyond, (ONE_SIGMA - 1) * beyond), 0.0)
        optimizer.zero_grad()
        cost.mean().backward()
        optimizer.step()
        schedule.step()
    return result.eval().requires_grad_(False)


def fit_trends(inferred: FloatArray, true: FloatArray) -> Trends:
    """Fit true = f(inferred) of each label with the polynomial that cross-validation likes best.

    Parameters
    ----------
    inferred, true : arrays, shape (n, n_label)
        Scaled to 0-1, NaN where not known.

    Returns
    -------
    Trends
        A straight f(x) = x for a label whose trends no polynomial improves, or of which too few are known.
    """
    coefficients = np.zeros((inferred.shape[1], MAX_ORDER + 1))
    for i in range(inferred.shape[1]):
        known = np.isfinite(true[:, i]) & np.isfinite(inferred[:, i])
        x, y = inferred[known, i], true[known, i]
        order = _best_order(x, y)
        coefficients[i, : max(order, 1) + 1] = [0, 1] if order < 0 else _polyfit(x, y, order)
    return Trends(coefficients)


def _best_order(x: FloatArray, y: FloatArray) -> int:
    """Return the order with the least cross-validated error, -1 for none at all, as of too few stars."""
    if x.size < LEAST_IN_FOLD * N_FOLD:
        return -1
    fold = np.arange(x.size) % N_FOLD
    errors = [float(np.mean((y - x) ** 2))]
    for order in range(1, MAX_ORDER + 1):
        left_out = [
            y[fold == k] - np.polynomial.polynomial.polyval(x[fold == k], _polyfit(x[fold != k], y[fold != k], order))
            for k in range(N_FOLD)
        ]
        errors.append(float(np.mean(np.concatenate(left_out) ** 2)))
    best = int(np.argmin(errors))
    return best if best else -1


def _polyfit(x: FloatArray, y: FloatArray, order: int) -> FloatArray:
    return np.asarray(np.polynomial.polynomial.polyfit(x, y, order), dtype=np.float64)
