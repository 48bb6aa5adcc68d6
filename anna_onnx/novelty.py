"""Novelty: does a spectrum look like anything the network was trained on?

Clean training spectra span a small subspace. What a spectrum leaves outside of
it is noise, or something the network never saw: another resolution or
medium, emission, sky, another kind of star. The rms of that remainder is
compared with what clean spectra of the same noise leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anna_onnx.errors import BundleError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Novelty:
    """The subspace of the training spectra and the remainders that clean spectra leave.

    Attributes
    ----------
    mean : array, shape (n_pixel,)
        Mean training spectrum, continuum = 1.
    components : array, shape (n_component, n_pixel)
        Orthonormal directions of the subspace.
    noise : array, shape (n_bin,)
        Noise of the pixels, ascending, at which the thresholds hold.
    threshold : array, shape (n_bin,)
        Remainder (rms over the valid pixels) that is exceeded by the
        fraction `false_alarm` of clean spectra.
    false_alarm : float
    """

    mean: FloatArray
    components: FloatArray
    noise: FloatArray
    threshold: FloatArray
    false_alarm: float

    def __post_init__(self) -> None:
        if self.components.ndim != 2 or self.components.shape[1:] != self.mean.shape:
            raise BundleError(f"novelty: components of shape {self.components.shape}, mean {self.mean.shape}")
        if self.noise.shape != self.threshold.shape or self.noise.size == 0:
            raise BundleError(f"novelty: {self.threshold.size} thresholds for {self.noise.size} noise levels")

    def score(self, flux: NDArray[np.float32]) -> FloatArray:
        """Return remainder / threshold; above 1 a spectrum is unlike the training set.

        Parameters
        ----------
        flux : array, shape (n, n_pixel)
            NaN where a pixel is not valid.
        """
        limit = np.interp(pixel_noise(flux), self.noise, self.threshold)
        return self.remainder(flux) / limit

    def remainder(self, flux: NDArray[np.float32]) -> FloatArray:
        """Return the rms of what lies outside the subspace, shape (n,)."""
        components = self.components.astype(np.float32)
        valid = np.isfinite(flux)
        centered = np.where(valid, flux - self.mean.astype(np.float32), 0)
        projected = (centered @ components.T) @ components
        if not valid.all():
            # Missing pixels are filled with what the subspace expects there, which needs a few rounds.
            for _ in range(5):
                projected = (np.where(valid, centered, projected) @ components.T) @ components
        squares = np.where(valid, (centered - projected) ** 2, 0).sum(axis=1, dtype=np.float64)
        return np.asarray(np.sqrt(squares / np.maximum(valid.sum(axis=1), 1)))


def pixel_noise(flux: NDArray[np.float32]) -> FloatArray:
    """Estimate the noise of a pixel from second differences, shape (n,).

    The estimator of DER_SNR (Stoehr et al. 2008, ASP Conf. Ser. 394, 505);
    what lines add to it they add in the thresholds too.
    """
    difference = np.abs(2 * flux[:, 2:-2] - flux[:, :-4] - flux[:, 4:])
    with np.errstate(all="ignore"):
        median = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in difference])
    return np.asarray(1.482602 / np.sqrt(6.0) * median)
