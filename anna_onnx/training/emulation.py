"""Fitting the emulator: from clean training spectra and their labels to a small network that makes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from anna_onnx.arrays import FloatArray
from anna_onnx.resampling import Grid
from anna_onnx.training.augmentation import Pixels
from anna_onnx.training.comparison import Emulator

MAX_COMPONENTS, HIDDEN = 40, 64
STEPS, BATCH, LEARNING_RATE = 4000, 256, 6e-3
FILLS = 4
"""Rounds in which missing pixels are filled with what the components expect there."""


class Subspace(NamedTuple):
    """Principal components of spectra.

    Attributes
    ----------
    mean : Tensor, shape (n_pixel,)
    components : Tensor, shape (n_component, n_pixel)
        Orthonormal, that of most variance first.
    amounts : Tensor, shape (n, n_component)
    remainder : float
        Rms of what they leave, over the pixels that are known.
    """

    mean: Tensor
    components: Tensor
    amounts: Tensor
    remainder: float


def fit_emulator(flux: Tensor, scaled: FloatArray, velocity: FloatArray | None, grid: Grid, seed: int) -> Emulator:
    """Learn what spectra look like from their labels.

    Parameters
    ----------
    flux : Tensor, shape (n, n_pixel)
        Clean spectra; NaN where a pixel is missing.
    scaled : array, shape (n, n_label)
        Their labels, all known, scaled to 0-1.
    velocity : array, shape (n,), optional
        Their radial velocities, km/s; not used where spectra brought to rest are less alike.
    grid : Grid
    seed : int
    """
    torch.manual_seed(seed)
    n_component = min(MAX_COMPONENTS, max(len(flux) // 8, 1), max(grid.n_pixel // 4, 1))
    space = principal_components(flux, n_component)
    if velocity is not None and np.ptp(velocity) > 0:
        shifts = torch.as_tensor(-velocity, dtype=torch.float32)
        pixels = Pixels(torch.as_tensor(grid.wavelength), torch.device("cpu"), float(shifts.abs().max()))
        space = min(space, principal_components(pixels.shift(flux, shifts), n_component), key=lambda one: one.remainder)
    layers = fit_network(torch.as_tensor(scaled, dtype=torch.float32), space.amounts)
    return Emulator(space.mean, space.components, layers).requires_grad_(False)


def principal_components(flux: Tensor, n_component: int) -> Subspace:
    """Return the principal components of spectra, missing pixels filled with what the others expect there."""
    missing = flux.isnan()
    mean = flux.nanmean(dim=0).nan_to_num(1.0)
    known = torch.where(missing, 0.0, flux - mean)
    filled = known
    for _ in range(FILLS if missing.any() else 1):
        _, _, directions = torch.svd_lowrank(filled, q=n_component, niter=2)
        amounts = filled @ directions
        inside = amounts @ directions.T
        filled = torch.where(missing, inside, known)
    remainder = (filled - inside).square().sum() / (~missing).sum()
    return Subspace(mean, directions.T.contiguous(), amounts, float(remainder.sqrt()))


def fit_network(scaled: Tensor, amounts: Tensor) -> nn.Sequential:
    """Return a network from scaled labels, shape (n, n_label), to amounts, shape (n, n_component)."""
    scale = amounts.std().item() or 1.0
    last = nn.Linear(HIDDEN, amounts.shape[1])
    network = nn.Sequential(
        nn.Linear(scaled.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    around = 2 * scaled - 1
    for _ in range(STEPS):
        rows = torch.randint(len(scaled), (BATCH,))
        cost = (network(around[rows]) - amounts[rows] / scale).square().sum(dim=1).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return network
