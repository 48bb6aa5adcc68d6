"""Smoothing: what lowering a resolving power does to noise.

Pixels then share their noise: each has less of it, but all of that is as wide as a line. Networks are
trained with the noise of single pixels, and by its look take what is as wide as a line for smaller than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import erf

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.resampling import FWHM, Grid

LEAST_LEFT = 0.01
"""Part of the variance of the noise in differences of pixels, below which no more is allowed for."""
FEWER = 0.08
"""By how much the noise of a pixel is told less well where pixels share all of it."""


@dataclass(frozen=True)
class Smoothing:
    """A Gaussian that lowered a resolving power.

    Parameters
    ----------
    width : float
        Its standard deviation, pixels; 0: nothing was lowered.
    line : float
        Standard deviation, pixels, of a line that the lower resolving power does not resolve.
    """

    width: float = 0.0
    line: float = 1.0

    @classmethod
    def of(cls, grid: Grid, degrade: tuple[float, float] | None) -> Smoothing:
        """Return the one that led from a resolving power to another, on the pixels of a grid."""
        if degrade is None:
            return cls()
        high, low = degrade
        pixels = (grid.n_pixel - 1) / np.ptp(np.log(grid.wavelength)) / FWHM
        return cls(float(np.sqrt(low**-2 - high**-2) * pixels), float(pixels / low))

    @property
    def kept(self) -> float:
        """Part of the variance of white noise that a pixel keeps."""
        return erf(np.pi * self.width) / (2 * np.sqrt(np.pi) * self.width) if self.width else 1.0

    @cached_property
    def excess(self) -> float:
        """By how much noise that is as wide as a line is larger than that of pixels tells."""
        return float(np.sqrt(self.line / np.hypot(self.line, self.width) / self.kept))

    @property
    def missed(self) -> float:
        """What of that excess networks do not see: half of it, in the logarithm (``benchmarks/degraded.py``)."""
        return float(np.sqrt(self.excess))

    def missed_at(self, snr: FloatArray, highest: float) -> FloatArray:
        """Return what of the excess is to be put onto errors, shape (n,).

        Beyond the highest S/N of the training other things than noise make them, and its share falls with the square.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(snr > highest, (highest / snr) ** 2, 1.0)
        return np.asarray(self.missed**share)

    @property
    def in_differences(self) -> float:
        """How large the noise of a pixel looks in the differences of pixels two and four apart, over what it is."""
        if not self.width:
            return 1.0
        two, four = np.exp(-(np.array([2.0, 4.0]) ** 2) / (4 * self.width**2))
        left = max(1 - 4 / 3 * two + four / 3, LEAST_LEFT)
        return float(np.sqrt(left) / (1 + FEWER * (1 - self.kept)))
