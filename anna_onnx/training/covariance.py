"""The full covariance of the labels: how their errors correlate, beside each label's own sigma.

A network may say any numbers; what is made of them here is always the correlation matrix of
some Gaussian, and one that float32 can invert.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FREE_RANGE = (-100.0, 100.0)  # a correlation of 0.9999 and more
OWN = 1e-3
"""Share of the variance that every label has for itself: no eigenvalue of a correlation matrix is smaller."""


def count_pairs(n_label: int) -> int:
    """Return the number of pairs of labels."""
    return n_label * (n_label - 1) // 2


def read_spread(spread: Tensor, n_label: int) -> tuple[Tensor, Tensor | None]:
    """Return log sigma and correlation of what a network says of the spread of its labels.

    Parameters
    ----------
    spread : Tensor, shape (..., n_label) or (..., n_label + n_pair)

    Returns
    -------
    log_sigma : Tensor, shape (..., n_label)
    correlation : Tensor, shape (..., n_label, n_label), or None
        None where it says nothing of pairs.
    """
    if spread.shape[-1] == n_label:
        return spread, None
    return spread[..., :n_label], correlation_of(spread[..., n_label:], n_label)


def correlation_of(free: Tensor, n_label: int) -> Tensor:
    """Return correlation matrices: symmetric, ones on the diagonal, positive definite.

    The numbers fill a lower triangle, row by row, below a diagonal of ones. Its rows, brought to length 1, make the
    Cholesky factor of a correlation matrix (Pinheiro & Bates 1996, Statistics and Computing 6, 289,
    section 2.3, without its angles). Zeros make the labels independent.

    Parameters
    ----------
    free : Tensor, shape (..., n_pair)
        Any numbers.
    n_label : int
        At least 2.

    Returns
    -------
    Tensor of float32, shape (..., n_label, n_label)
    """
    rows = free.float().clamp(*FREE_RANGE).split(list(range(1, n_label)), dim=-1)
    below = [functional.pad(row, (0, n_label - row.shape[-1])) for row in rows]
    identity = torch.eye(n_label, device=free.device)
    lower = functional.pad(torch.stack(below, dim=-2), (0, 0, 1, 0)) + identity  # (..., n_label, n_label)
    lower = lower / lower.square().sum(dim=-1, keepdim=True).sqrt()
    # Not as a product of matrices, which autocast would round to 8 bits.
    product = (lower.unsqueeze(-2) * lower.unsqueeze(-3)).sum(dim=-1)
    return (1 - OWN) * product + OWN * identity


def cost_of_correlation(pull: Tensor, correlation: Tensor, known: Tensor) -> Tensor:
    """Return what correlation adds to minus the Gaussian log-likelihood, shape (..., n_label).

    Of each label: its distribution given the labels before it, in place of its distribution alone.
    A label that is not known is made independent of the others: what is left is the marginal of those known.

    Parameters
    ----------
    pull : Tensor, shape (..., n_label)
        Error / sigma, 0 where not known.
    correlation : Tensor, shape (..., n_label, n_label)
    known : Tensor of bool, shape (..., n_label)
    """
    both = known.unsqueeze(-1) & known.unsqueeze(-2)
    identity = torch.eye(pull.shape[-1], device=pull.device)
    # Raises nothing where a training diverges to no numbers: the loop says what to do about that.
    factor = torch.linalg.cholesky_ex(torch.where(both, correlation, identity)).L
    given = torch.linalg.solve_triangular(factor, pull.unsqueeze(-1), upper=False).squeeze(-1)
    result: Tensor = 0.5 * (given**2 - pull**2) + factor.diagonal(dim1=-2, dim2=-1).log()
    return result


def mixture_correlation(mean: Tensor, sigma: Tensor, correlation: Tensor, combined: Tensor) -> Tensor:
    """Return the correlation of an equal mixture of Gaussians.

    Its covariance is the mean of theirs and the covariance of their means.

    Parameters
    ----------
    mean, sigma : Tensor, shape (member, batch, n_label)
    correlation : Tensor, shape (member, batch, n_label, n_label)
    combined : Tensor, shape (batch, n_label)
        Sigma of the mixture.

    Returns
    -------
    Tensor, shape (batch, n_label, n_label)
    """
    covariance = correlation * _products(sigma) + _products(mean - mean.mean(dim=0))
    return covariance.mean(dim=0) / _products(combined)


def _products(values: Tensor) -> Tensor:
    """Return the products of all pairs, shape (..., n, n)."""
    return values.unsqueeze(-1) * values.unsqueeze(-2)
