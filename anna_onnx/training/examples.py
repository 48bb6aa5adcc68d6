"""Examples: spectra as the network sees them, with the labels that it should infer, and what it infers of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anna_onnx.arrays import Float32Array, FloatArray, IntArray
from anna_onnx.blocks import Block, Setting
from anna_onnx.bundle import Bundle
from anna_onnx.calibration import Calibration
from anna_onnx.coverage import Coverage
from anna_onnx.inference import Inference
from anna_onnx.labels import Label, unscale
from anna_onnx.spectrum import Frame
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import VALIDATION, Drawn, FileSource, generator
from anna_onnx.training.calibration import fit_calibration
from anna_onnx.training.crossfit import cross_fitted_coverage
from anna_onnx.trainingset import TrainingSet


@dataclass(frozen=True, eq=False)
class Examples:
    """Spectra as the network sees them, with their labels: a validation, test or calibration set.

    Attributes
    ----------
    flux : Tensor of float32, shape (n, n_pixel)
    scaled : Tensor of float32, shape (n, n_label)
    snr : Tensor of float32, shape (n,)
        Infinite where no noise was added.
    id : array, shape (n,)
    """

    flux: Tensor
    scaled: Tensor
    snr: Tensor
    id: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.scaled)


def make_examples(
    sets: Sequence[TrainingSet],
    rows: IntArray,
    labels: Sequence[Label],
    augmentation: Augmentation | None,
    seed: int,
    stream: int = VALIDATION,
    velocity_column: str | None = None,
) -> Examples:
    """Return some spectra of training sets, augmented once, from the seed.

    Their radial velocities are those of `velocity_column` where all sets have it, else of rv.
    """
    if any(part.radial_velocity(velocity_column) is None for part in sets):
        velocity_column = None
    source = FileSource(sets, rows, labels, seed, memory=float("inf"), velocity_column=velocity_column)
    drawn = source.take(torch.arange(len(rows)))
    return augmented_once(drawn, np.concatenate([part.id for part in sets])[rows], augmentation, seed, stream)


def augmented_once(
    drawn: Drawn, ids: NDArray[np.generic], augmentation: Augmentation | None, seed: int, stream: int
) -> Examples:
    """Return spectra that were drawn, augmented from the seed and a stream of its random numbers, or as they are."""
    if augmentation is None:
        flux, sigma = drawn.flux, drawn.sigma
        snr = torch.full((len(flux),), float("inf")) if sigma is None else (flux / sigma).nanmedian(dim=1).values
        return Examples(flux, drawn.scaled, snr, ids)
    device = augmentation.device
    parts, levels = [], []
    for i, chunk in enumerate(drawn.split(1000)):
        result = chunk.to(device).augmented(augmentation, generator(device, seed, stream, i))
        parts.append(result.flux)
        levels.append(result.snr)
    return Examples(torch.cat(parts), drawn.scaled.to(device), torch.cat(levels), ids)


@dataclass(frozen=True, eq=False)
class Inferred:
    """What inference makes of examples.

    Attributes
    ----------
    examples : Examples
    labels : tuple of Label
    flux : array of float32, shape (n, n_pixel)
        As the network saw it.
    values, sigma : arrays, shape (n, n_label)
        In the labels' units; sigma is the network's.
    snr : array, shape (n,)
        As inference measures it.
    flags : array of int64, shape (n,)
        Bits of `anna_onnx.flags.Flag`.
    correlation : array, shape (n, n_label, n_label), or None
        Of the errors, if the network infers it.
    """

    examples: Examples
    labels: tuple[Label, ...]
    flux: Float32Array
    values: FloatArray
    sigma: FloatArray
    snr: FloatArray
    flags: IntArray
    correlation: FloatArray | None

    @cached_property
    def true(self) -> FloatArray:
        """The true values, shape (n, n_label), in the labels' units; NaN where they are not known."""
        return unscale(self.examples.scaled.cpu().numpy().astype(np.float64), self.labels)

    @property
    def error(self) -> FloatArray:
        """Inferred minus true."""
        return self.values - self.true

    @property
    def known_snr(self) -> FloatArray:
        """The S/N of the noise in the examples; as inference measures it where nothing says what it is."""
        snr = self.examples.snr.cpu().numpy().astype(np.float64)
        return np.where(np.isfinite(snr), snr, self.snr)

    def calibrate(self) -> Calibration:
        """Return the factors on sigma that make honest intervals."""
        return fit_calibration(self.error, self.sigma, self.snr)

    def measure_coverage(self) -> Coverage | None:
        """Return how often honest intervals hold the truth, in all and by thirds; None for too few stars."""
        names = tuple(label.name for label in self.labels)
        return cross_fitted_coverage(
            self.error, self.sigma, self.snr, self.true, self.known_snr, self.examples.id, names
        )


def infer_examples(bundle: Bundle, examples: Examples) -> Inferred:
    """Infer examples on the road that real spectra take."""
    flux, n = examples.flux.cpu().numpy(), len(examples)
    grid = bundle.sidecar.grid
    # Spectra of a set may have radial velocities.
    frame: Frame = "rest" if bundle.sidecar.preparation.velocity_range is None else "unknown"
    setting = Setting(grid.wavelength, grid.medium, frame, None)
    block = Block(setting, flux, None, None, None, [""] * n, [""] * n, [None] * n, [None] * n, [()] * n)
    found = Inference(bundle).look(block)
    return Inferred(
        examples=examples,
        labels=bundle.sidecar.labels,
        flux=found.prepared.flux,
        values=found.values,
        sigma=found.sigma,
        snr=found.prepared.snr,
        flags=found.flags,
        correlation=found.correlation,
    )
