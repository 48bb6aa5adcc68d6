"""Fitting what the sidecar holds: calibration, residual trends, and what clean spectra look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anna_onnx import config
from anna_onnx.calibration import ONE_SIGMA, Calibration, Trends
from anna_onnx.novelty import Novelty, pixel_noise
from anna_onnx.resampling import Grid
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import CALIBRATION, generator

FloatArray = NDArray[np.float64]
LEVELS = (0.1, 0.3, 0.5, ONE_SIGMA, 0.8, 0.9, 0.95, 0.99)
NOVELTY_SNR = (10, 20, 40, 80, 160, 320, 1000)
FALSE_ALARM = 0.01
MAX_COMPONENTS = 128


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
    n_bin = int(np.clip(len(error) // per_bin, 1, 10))
    # Where spectra share one S/N the edges coincide, and fewer bins are left.
    edges = np.unique(np.quantile(snr, np.linspace(0, 1, n_bin + 1)[1:-1]))
    place = np.searchsorted(edges, snr, side="left")
    bins = [np.flatnonzero(place == i) for i in np.unique(place)]
    ratio = np.abs(error) / sigma
    factors = np.stack([_conformal_quantiles(ratio[rows]) for rows in bins])
    middle = np.array([np.median(snr[rows]) for rows in bins])
    return Calibration(np.array(LEVELS), middle, factors, len(error))


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


def fit_novelty(
    flux: Tensor, settings: config.Augmentation, grid: Grid, resolve: Callable[[str], object], seed: int
) -> Novelty:
    """Learn the subspace of clean spectra, and what they leave outside of it at every noise.

    Parameters
    ----------
    flux : Tensor, shape (n, n_pixel)
        Spectra as in the training set, before augmentation. Half make the
        subspace, half the thresholds.
    settings : config.Augmentation
        That of the training; its noise and losses are replaced.
    grid, resolve, seed
        See `Augmentation`.
    """
    clean = dataclasses.replace(
        settings, snr=None, snr_template=None, file_noise=False, residuals=None, cosmic_rays=None,
        missing_pixels=None, gaps=None, coverage=None,
    )  # fmt: skip
    half = len(flux) // 2
    random = generator(torch.device("cpu"), seed, CALIBRATION, 1)
    basis = _without_gaps(Augmentation(clean, grid, resolve)(flux[:half], random).flux)
    mean = basis.mean(dim=0)
    torch.manual_seed(random.initial_seed())
    n_component = min(MAX_COMPONENTS, half // 4, grid.n_pixel // 4)
    _, _, directions = torch.svd_lowrank(basis - mean, q=n_component, niter=3)
    components = directions.T.contiguous().numpy()  # (component, pixel)
    novelty = Novelty(mean.double().numpy(), components, np.ones(1), np.ones(1), FALSE_ALARM)
    noise, remainder = [], []
    for snr in sorted(NOVELTY_SNR, reverse=True):
        noisy = dataclasses.replace(clean, snr=(snr, snr), snr_template=settings.snr_template)
        spectra = Augmentation(noisy, grid, resolve)(flux[half:], random).flux.numpy()
        noise.append(pixel_noise(spectra))
        remainder.append(novelty.remainder(spectra))
    level = np.maximum.accumulate([np.median(values) for values in noise]) + 1e-9 * np.arange(len(noise))
    usual = np.maximum.accumulate([np.median(values) for values in remainder])
    # A spectrum is judged by the noise that its own pixels show, which scatters: the margin must cover that.
    margin = [
        np.quantile(left / np.interp(seen, level, usual), 1 - FALSE_ALARM)
        for seen, left in zip(noise, remainder, strict=True)
    ]
    return dataclasses.replace(novelty, noise=level, threshold=usual * margin)


def _without_gaps(flux: Tensor) -> Tensor:
    """Fill missing pixels, such as those that a velocity shift brings in at the ends, with the mean."""
    return torch.where(flux.isnan(), flux.nanmean(dim=0), flux)
