"""Random numbers for a batch of spectra."""

from __future__ import annotations

import torch
from torch import Tensor


class Draw:
    """Random numbers for one batch, all from one generator."""

    def __init__(self, generator: torch.Generator, n: int, device: torch.device) -> None:
        self.generator, self.n, self.device = generator, n, device

    def uniform(self, limits: tuple[float, float]) -> Tensor:
        """Draw a number for each spectrum, shape (n,)."""
        return torch.empty(self.n, device=self.device).uniform_(*limits, generator=self.generator)

    def log_uniform(self, limits: tuple[float, float]) -> Tensor:
        """Draw a number for each spectrum, even in its logarithm."""
        low, high = limits
        return low * (high / low) ** self.random((self.n,))

    def random(self, shape: tuple[int, ...]) -> Tensor:
        """Draw from 0 to 1."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw from the normal distribution."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, high: int) -> Tensor:
        """Draw an integer below `high` for each spectrum."""
        return torch.randint(high, (self.n,), generator=self.generator, device=self.device)
