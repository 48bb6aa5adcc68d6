"""Novelty: does a spectrum look like anything the network was trained on?

Clean training spectra span a small subspace. What a spectrum leaves outside of
it is noise, or something the network never saw: another resolution or
medium, emission, sky, another kind of star. The rms of that remainder is
compared with what clean spectra of the same noise leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, Floats
from anna_onnx.errors import BundleError
from anna_onnx.scatter import MAD

ORTHONORMAL = 1e-5
ROUNDS, TINY = 4, 1e-30


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
        if self.noise.ndim != 1 or self.noise.shape != self.threshold.shape or self.noise.size == 0:
            raise BundleError(f"novelty: {self.threshold.size} thresholds for {self.noise.size} noise levels")
        if not (self.threshold > 0).all() or not np.isfinite(self.noise).all() or (np.diff(self.noise) < 0).any():
            raise BundleError("novelty: thresholds must be positive, noise levels finite and ascending")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.components).all()):
            raise BundleError("novelty: mean and components must be finite")

    def score(self, flux: Float32Array) -> FloatArray:
        """Return remainder / threshold; above 1 a spectrum is unlike the training set.

        Parameters
        ----------
        flux : array, shape (n, n_pixel)
            NaN where a pixel is not valid.
        """
        return self.remainder(flux) / np.interp(pixel_noise(flux), self.noise, self.threshold)

    def remainder(self, flux: Float32Array) -> FloatArray:
        """Return the rms of what lies outside the subspace, shape (n,)."""
        mean, components = self._compact
        valid = np.isfinite(flux)
        if valid.all():
            centered = flux - mean
            # What lies outside, by Pythagoras.
            squares = sums_of_squares(centered) - sums_of_squares(centered @ components.T)
            return np.asarray(np.sqrt(np.maximum(squares, 0) / mean.size))
        known = np.where(valid, flux - mean, np.float32(0))
        inside = self._fit(known, valid) @ components
        squares = sums_of_squares(np.where(valid, known - inside, np.float32(0)))
        return np.asarray(np.sqrt(squares / np.maximum(valid.sum(axis=1), 1)))

    def _fit(self, known: Float32Array, valid: BoolArray) -> Float32Array:
        """Return the amounts of the components that fit the valid pixels best, shape (n, n_component).

        By conjugate gradients (Hestenes & Stiefel 1952), which end after one round for
        each missing pixel, and are near long before.
        """
        _, components = self._compact
        target = known @ components.T
        amounts = np.zeros_like(target)
        rest = direction = target
        size = sums_of_squares(rest)
        for _ in range(ROUNDS):
            image = np.where(valid, direction @ components, np.float32(0)) @ components.T
            step = size / np.maximum(np.einsum("ij,ij->i", direction, image), TINY)
            amounts = amounts + step.astype(np.float32)[:, None] * direction
            rest = rest - step.astype(np.float32)[:, None] * image
            before, size = size, sums_of_squares(rest)
            direction = rest + (size / np.maximum(before, TINY)).astype(np.float32)[:, None] * direction
        return np.asarray(amounts)

    @property
    def orthonormal(self) -> FloatArray:
        """The components made exactly orthonormal, of the same subspace, in float64."""
        return np.asarray(np.linalg.qr(self.components.T.astype(np.float64))[0].T)

    @cached_property
    def _compact(self) -> tuple[Float32Array, Float32Array]:
        """Mean and components as the spectra have them, in float32.

        Components stored with few bits are only nearly orthonormal, and Pythagoras wants it exactly.
        """
        components = self.components.astype(np.float32)
        if np.abs(components @ components.T - np.eye(len(components), dtype=np.float32)).max() > ORTHONORMAL:
            components = np.ascontiguousarray(self.orthonormal, dtype=np.float32)
        return self.mean.astype(np.float32), components


def sums_of_squares(rows: Floats) -> FloatArray:
    """Return the sum of the squares of each row."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows), dtype=np.float64)


def pixel_noise(flux: Float32Array) -> FloatArray:
    """Estimate the noise of a pixel from second differences, shape (n,).

    The estimator of DER_SNR (Stoehr et al. 2008, ASP Conf. Ser. 394, 505);
    what lines add to it they add in the thresholds too. At most 512 pixels,
    evenly spread, are looked at; 0 where none is valid.
    """
    if flux.shape[1] < 5:
        return np.zeros(len(flux))
    step = -(-flux.shape[1] // 512)
    center, around = flux[:, 2:-2:step], flux[:, :-4:step] + flux[:, 4::step]
    ordered = np.sort(np.abs(2 * center - around), axis=1)  # NaN last
    count = ordered.shape[1] - np.isnan(ordered).sum(axis=1)
    rows = np.arange(len(ordered))
    median = (
        ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, np.minimum(count, len(ordered.T) - 1) // 2]
    ) / 2
    return np.asarray(MAD / np.sqrt(6.0) * np.where(count > 0, median, 0), dtype=np.float64)
