"""Shifting many spectra on one wavelength grid, each by a velocity of its own, and measuring these velocities."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]


class Shifter:
    """Doppler shifts in pixels of a grid, to first order in v / c.

    Parameters
    ----------
    grid : Grid, shape (n_pixel,)
    """

    def __init__(self, grid: Grid) -> None:
        self.n_pixel = grid.n_pixel
        self._log = np.log(grid.wavelength)
        # Pixels by which the speed of light would shift.
        self._pixels = 1 / np.gradient(self._log)

    def shift(self, flux: Image, velocity: FloatArray, beyond: float = np.nan) -> Image:
        """Return spectra shifted to the red, interpolated with the cubic through four neighbours.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
        velocity : array, shape (n,)
            km/s
        beyond : float
            What comes from beyond the ends.
        """
        beta = -velocity / C_KMS
        fastest = np.abs(beta).max(initial=0)
        reach = int(fastest * self._pixels.max()) + 4
        wide = np.full((len(flux), self.n_pixel + 2 * reach), beyond, dtype=np.float32)
        wide[:, reach : reach + self.n_pixel] = flux
        # Pixels of a block are shifted by nearly the same: all by one whole number, and the rest is interpolated.
        size = -(-self.n_pixel // (1 + int(2 * fastest * np.ptp(self._pixels))))
        shifted = np.empty_like(flux, dtype=np.float32)
        for first in range(0, self.n_pixel, size):
            block = slice(first, min(first + size, self.n_pixel))
            shifted[:, block] = _shift_block(wide, first + reach - 1, np.outer(beta, self._pixels[block]))
        return shifted

    def measure(self, lines: Image, template: Image, low: float, high: float) -> FloatArray:
        """Return the velocities at which the cross-correlation of spectra with their templates is largest.

        Parameters
        ----------
        lines, template : arrays of float32, shape (n, n_pixel)
            Around zero, zero where not valid.
        low, high : float
            Velocities to look at, km/s.

        Returns
        -------
        velocity : array, shape (n,)
            km/s, to a fraction of a pixel.
        """
        if self._even is not None:
            lines, template = self._to_even(lines), self._to_even(template)
        step = C_KMS * (self._log[-1] - self._log[0]) / (self.n_pixel - 1)
        first, last = int(np.floor(low / step)) - 1, int(np.ceil(high / step)) + 1
        n = _fast_length(self.n_pixel + max(-first, last, 0))
        product = np.fft.rfft(lines, n)
        product *= np.conj(np.fft.rfft(template, n))
        lags = np.arange(first, last + 1)
        correlation = np.fft.irfft(product, n)[:, lags % n]
        peak = 1 + np.argmax(correlation[:, 1:-1], axis=1)
        left, top, right = (correlation[np.arange(len(peak)), peak + i] for i in (-1, 0, 1))
        curvature = np.minimum(left - 2 * top + right, -1e-12)
        return np.asarray((lags[peak] + np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) * step, dtype=np.float64)

    @cached_property
    def _even(self) -> tuple[NDArray[np.intp], Image] | None:
        """Where even steps of ln(wavelength) lie between the pixels; None where the pixels are even enough."""
        position = np.interp(np.linspace(self._log[0], self._log[-1], self.n_pixel), self._log, np.arange(self.n_pixel))
        if np.ptp(self._pixels) < 0.05 * self._pixels.min():
            return None
        left = np.minimum(position.astype(np.intp), self.n_pixel - 2)
        return left, (position - left).astype(np.float32)

    def _to_even(self, flux: Image) -> Image:
        assert self._even is not None
        left, share = self._even
        near = flux[:, left]
        return np.asarray(near + share * (flux[:, left + 1] - near))


def _shift_block(wide: Image, first: int, away: FloatArray) -> Image:
    """Interpolate `away`, shape (n, n_pixel), to the right of pixels that begin, with a neighbour, at `first`."""
    n_pixel = away.shape[1]
    whole = np.floor(away[:, n_pixel // 2]).astype(np.intp)
    t = (away - whole[:, None]).astype(np.float32)
    starts = np.arange(len(wide)) * wide.shape[1] + first + whole
    near = np.lib.stride_tricks.sliding_window_view(wide.reshape(-1), n_pixel + 3)[starts]
    one = np.diff(near, axis=1)
    two = np.diff(one, axis=1)
    three = two[:, 1:] - two[:, :-1]
    # Newton's form, the nodes 0, 1, -1, 2.
    result = two[:, :-1] / 2 + (t + 1) / 6 * three
    result *= t - 1
    result += one[:, 1:-1]
    result *= t
    result += near[:, 1:-2]
    return np.asarray(result)


def _fast_length(least: int) -> int:
    """Return a length that is quick to transform: 2^k, or 5/8, 3/4 or 7/8 of it."""
    power = 1 << (least - 1).bit_length()
    return next(size for eighths in (5, 6, 7, 8) if (size := power * eighths // 8) >= least)
