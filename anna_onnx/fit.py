"""Fit: how spectra compare with what the training set would show for their inferred labels.

The network file compares them itself (`anna_onnx.training.comparison`), in its output `fit`. How far clean
spectra of the training are from their emulation, at every noise, is in the sidecar.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import BundleError
from anna_onnx.smoothing import Smoothing

SHARPER = 1.5
"""Lines may be sharper by this times as much as they may be broader: those of rotators told a little too fast are."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What comparing spectra with their emulation gives, each an array of shape (n,).

    Attributes
    ----------
    velocity : array
        km/s
    pixel_noise : array
        Noise of a pixel, from what is left of its neighbours.
    noise : array
        Rms of a pixel outside the space of the emulated spectra and of smooth continua.
    misfit : array
        The same inside of it, after all that is allowed for.
    lines : array
        Rms of the emulated lines.
    widening, widening_error : arrays
        Broadening that the emulation lacks, the variance of a Gaussian in square pixels.
    """

    velocity: FloatArray
    pixel_noise: FloatArray
    noise: FloatArray
    misfit: FloatArray
    lines: FloatArray
    widening: FloatArray
    widening_error: FloatArray

    @classmethod
    def of(cls, columns: ArrayLike) -> Fit:
        """Return the fit that has these columns, shape (n, len(COLUMNS)), in the order of the attributes."""
        return cls(*np.asarray(columns, dtype=np.float64).T)

    def take(self, rows: NDArray[np.intp]) -> Fit:
        """Return the fit of some of the spectra."""
        return Fit(*(getattr(self, item.name)[rows] for item in fields(self)))

    def of_smoothed(self, smoothing: Smoothing) -> Fit:
        """Return the fit of spectra that were smoothed on their way: their noise is larger than it looks."""
        if not smoothing.width:
            return self
        missed = smoothing.missed
        return replace(
            self,
            pixel_noise=self.pixel_noise / smoothing.in_differences * missed,
            noise=self.noise * missed,
            widening_error=self.widening_error * missed,
        )


COLUMNS = tuple(item.name for item in fields(Fit))


@dataclass(frozen=True, eq=False)
class FitLimits:
    """How far clean spectra are from their emulation.

    Attributes
    ----------
    noise : array, shape (n_bin,)
        Noise of a pixel, ascending, at which the thresholds hold.
    outside_threshold, misfit_threshold, blur_threshold : arrays, shape (n_bin,)
    dilution : float
        From the rms of a pixel to that of the components in which a misfit is looked for, which hold it all.
    line_error, outside_error : float
        Fraction of the lines by which spectra differ from their emulation besides their noise, in the space of the
        training spectra and outside of it.
    blur_error : float
        The same of the broadening, square pixels.
    """

    noise: FloatArray
    outside_threshold: FloatArray
    misfit_threshold: FloatArray
    blur_threshold: FloatArray
    dilution: float
    line_error: float
    outside_error: float
    blur_error: float

    def __post_init__(self) -> None:
        thresholds = (self.outside_threshold, self.misfit_threshold, self.blur_threshold)
        shapes = {self.noise.shape, *(threshold.shape for threshold in thresholds)}
        if len(shapes) != 1 or self.noise.ndim != 1 or self.noise.size == 0:
            raise BundleError(f"fit_limits: shapes {shapes}, needed one")
        for item in fields(self):
            if not np.isfinite(getattr(self, item.name)).all():
                raise BundleError(f"fit_limits: {item.name} must be finite")
        if not all((threshold > 0).all() for threshold in thresholds):
            raise BundleError("fit_limits: thresholds must be positive")
        if (np.diff(self.noise) < 0).any():
            raise BundleError("fit_limits: noise levels must ascend")
        if min(self.dilution, self.line_error, self.outside_error, self.blur_error) < 0:
            raise BundleError("fit_limits: errors must not be negative")

    def score(self, fit: Fit) -> FloatArray:
        """Return how far spectra are from their emulation, shape (n,); above 1 further than clean spectra are."""
        return np.asarray(np.max(self._scores(fit), axis=0))

    def sharper(self, fit: Fit) -> BoolArray:
        """Return whether what is wrong with spectra is lines that are too sharp, shape (n,)."""
        *others, sharp = self._scores(fit)
        return np.asarray(sharp > np.max([*others, np.ones_like(sharp)], axis=0))

    def _scores(self, fit: Fit) -> FloatArray:
        """Return what lies outside, the misfit, and broadening that is missing or too much, over their thresholds."""
        blur = self.blur(fit) / np.interp(fit.noise, self.noise, self.blur_threshold)
        return np.stack(
            [
                self.outside(fit) / np.interp(fit.noise, self.noise, self.outside_threshold),
                self.misfit(fit) / np.interp(fit.noise, self.noise, self.misfit_threshold),
                blur,
                -blur / SHARPER,
            ]
        )

    def outside(self, fit: Fit) -> FloatArray:
        """Return what lies outside of the space of the training spectra, shape (n,).

        In units of what the noise of single pixels and the usual errors of the lines make.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(fit.noise / np.hypot(fit.pixel_noise, self.outside_error * fit.lines))

    def misfit(self, fit: Fit) -> FloatArray:
        """Return the misfit in units of what noise and the usual errors of the lines make, shape (n,)."""
        return np.asarray(fit.misfit / np.hypot(fit.noise, self.line_error * fit.lines * self.dilution))

    def relative_misfit(self, fit: Fit) -> FloatArray:
        """Return the misfit as a fraction of the lines, shape (n,)."""
        return np.asarray(fit.misfit / (fit.lines * self.dilution))

    def blur(self, fit: Fit) -> FloatArray:
        """Return the broadening that is missing in units of its error, shape (n,); negative for sharper lines."""
        return np.asarray(fit.widening / np.hypot(fit.widening_error, self.blur_error))
