"""What training minimises, and how: costs, optimisers, schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from anna_onnx import config
from anna_onnx.labels import Label
from anna_onnx.training.covariance import cost_of_correlation, read_spread
from anna_onnx.training.examples import Examples
from anna_onnx.training.network import Network

RISE = 0.3  # share of the steps of a one-cycle stage in which the learning rate rises


def cost_of(mean: Tensor, spread: Tensor | None, scaled: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cost of a batch: mean over spectra of the sum over scaled labels.

    Without uncertainty the squared error (the manual sums it over the batch as well, a
    constant factor that Adam does not see), else minus the Gaussian log-likelihood. With covariance it is that of a
    multivariate Gaussian; correlations are fitted to residuals in units of sigma, and change neither labels nor
    sigma (inference functions for margins: Joe 2005, J. Multivariate Analysis 94, 401, section 2).
    Labels that are not known (NaN) do not count. Members of an ensemble add up.

    Parameters
    ----------
    mean, spread : Tensor
        As `Network` returns them.
    scaled : Tensor, shape (batch, n_label)
    weight : Tensor, shape (batch, n_label), optional
    """
    known = ~scaled.isnan()
    error = torch.where(known, mean - scaled, 0.0)
    if spread is None:
        each = error**2
    else:
        log_sigma, correlation = read_spread(spread, mean.shape[-1])
        pull = error * (-log_sigma).exp()
        each = 0.5 * pull**2 + log_sigma
        if correlation is not None:
            # Labels and sigma learn from their own errors alone: so they come out as good as without covariance.
            each = each + cost_of_correlation(pull.detach(), correlation, known)
        each = torch.where(known, each, 0.0)
    if weight is not None:
        each = each * weight
    return each.sum() / scaled.shape[0]


@torch.no_grad()
def evaluate(network: Network, examples: Examples, labels: tuple[Label, ...]) -> tuple[float, list[float]]:
    """Return the cost, and the RMS error of each label in its unit, NaN where no truth is known."""
    network.eval()
    cost, squares, count = 0.0, torch.zeros(len(labels)), torch.zeros(len(labels))
    device = network.inputs.fill.device
    for flux, scaled in zip(torch.split(examples.flux, 500), torch.split(examples.scaled, 500), strict=True):
        scaled = scaled.to(device)
        mean, spread = network(flux.to(device))
        cost += float(cost_of(mean, spread, scaled)) / mean.shape[0] * len(scaled)
        error = (mean.mean(dim=0) - scaled).cpu()
        squares += error.nan_to_num().square().sum(dim=0)
        count += (~error.isnan()).sum(dim=0)
    span = torch.tensor([label.span for label in labels])
    rms = (squares / count).sqrt() * span
    return cost / len(examples), rms.tolist()


def make_optimizer(network: nn.Module, stage: config.Stage, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser of a stage, fused where torch can: on these networks the unfused one costs a third more."""
    kind = torch.optim.AdamW if stage.optimizer == "adamw" else torch.optim.Adam
    decay = stage.weight_decay if stage.optimizer == "adamw" else 0.0
    return kind(network.parameters(), lr=stage.learning_rate, weight_decay=decay, fused=device.type in ("cpu", "cuda"))


def make_average(network: nn.Module, stage: config.Stage) -> AveragedModel | None:
    """Return an exponential moving average of the weights, if the stage asks for one."""
    if stage.average is None:
        return None
    decay = stage.average

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        # A young average must not hold on to the first weights: its memory grows with its age.
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averages, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def stage_of(stages: tuple[config.Stage, ...], step: int) -> tuple[int, int]:
    """Return the stage that a step belongs to, and the first step of that stage."""
    first = 0
    for index, stage in enumerate(stages):
        if step < first + stage.steps:
            return index, first
        first += stage.steps
    return len(stages) - 1, first - stages[-1].steps


def rate_at(stage: config.Stage, step: int) -> float:
    """Return the factor on the learning rate at a step of a stage."""
    if stage.schedule == "onecycle":
        return _one_cycle(step / stage.steps)
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    if stage.schedule == "cosine":
        return _cosine((step - stage.warmup) / max(stage.steps - stage.warmup, 1))
    return 1.0


def _one_cycle(done: float) -> float:
    """Rise from 1/25 to 1, then fall to nearly nothing (Smith & Topin 2018, arXiv:1708.07120)."""
    if done < RISE:
        return 1 / 25 + (1 - 1 / 25) * _cosine(1 - done / RISE)
    return _cosine((done - RISE) / (1 - RISE))


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))
