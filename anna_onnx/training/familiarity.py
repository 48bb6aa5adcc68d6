"""Learning what is familiar to a network: the spectra and labels of its training set, and how far clean ones stray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anna_onnx import config
from anna_onnx.bundle import Bundle
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.emulator import Emulator, Fit
from anna_onnx.hull import Hull
from anna_onnx.inference import half_width
from anna_onnx.labels import Label, canonical, scale
from anna_onnx.legacy import open_training_set
from anna_onnx.novelty import Novelty, pixel_noise
from anna_onnx.quality import estimate_snr
from anna_onnx.resampling import Grid
from anna_onnx.session import Session
from anna_onnx.shifting import Shifter
from anna_onnx.training.augmentation import Augmentation, cubic
from anna_onnx.training.batches import CALIBRATION, FileSource, generator
from anna_onnx.training.emulation import fit_emulator
from anna_onnx.training.task import open_grid
from anna_onnx.trainingset import TrainingSet

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]
Infer = Callable[[Image], tuple[FloatArray, FloatArray]]
Draw = Callable[[float | None], Image]

FALSE_ALARM = 0.01  # of spectra with the continua of the training; of those without, fewer are beyond
NOVELTY_SNR = (10, 20, 40, 80, 160, 320, 1000)
MAX_COMPONENTS = 128
N_FIT, N_THRESHOLD = 6000, 4000  # spectra
MAX_VALUES = 30_000_000  # of their pixels
LEAST_STARS = 100  # with which an emulator is worth fitting
LEAST_LINE_ERROR = 0.12
"""Fraction of the lines by which any synthetic spectrum is wrong: that much is never called unlike training.

Of the embedded grid's lines those of Procyon are wrong by 16 % (rms), those of the Sun by 10 % (benchmarks/lines.py).
"""
LEAST_BLUR_ERROR = 0.4
"""The same of the instrumental profile, a variance in square pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stars:
    """Spectra of a training set.

    Attributes
    ----------
    flux : Tensor, shape (n, n_pixel)
        Clean, NaN where a pixel is missing.
    scaled : array, shape (n, n_label)
        Labels scaled to 0-1, NaN where not known.
    velocity : array, shape (n,), or None
        Radial velocities, km/s, where they are known and not zero.
    """

    flux: Tensor
    scaled: FloatArray
    velocity: FloatArray | None = None


def learn_familiar(
    settings: config.Config, bundle: Bundle, spectra: TrainingSet
) -> tuple[Novelty, Emulator | None, Hull | None]:
    """Learn what the flags need to know of the training set.

    Parameters
    ----------
    settings : config.Config
    bundle : Bundle
        The network with its calibration.
    spectra : TrainingSet
        Clean spectra that the network was not trained on, for the thresholds.

    Returns
    -------
    novelty : Novelty
    emulator : Emulator or None
        None where too few of the training stars have all labels.
    hull : Hull or None
        None where the training stars fill the box of their ranges.
    """
    labels, grid = bundle.sidecar.labels, spectra.grid
    clean = without_noise(settings.augmentation)
    moving = training_stars(settings, labels, grid, at_rest=False)
    novelty = fit_novelty(moving.flux, Augmentation(clean, grid, settings.resolve), settings.seed)
    stars = training_stars(settings, labels, grid, at_rest=True) if settings.data.grid else moving
    velocities = bundle.sidecar.preparation.velocity_range or (0.0, 0.0)
    emulator = None
    known = np.isfinite(stars.scaled).all(axis=1)
    if known.sum() >= LEAST_STARS:
        velocity = None if stars.velocity is None else stars.velocity[known]
        emulator = fit_emulator(
            stars.flux[torch.as_tensor(known)], stars.scaled[known], velocity, velocities, grid, settings.seed
        )
    chosen = np.resize(np.arange(min(len(spectra), N_THRESHOLD)), N_THRESHOLD)
    others = torch.from_numpy(np.array(spectra.flux[: chosen.max() + 1], dtype=np.float32))[chosen]
    random = generator(torch.device("cpu"), settings.seed, CALIBRATION, 2)

    low, high = settings.augmentation.snr or (NOVELTY_SNR[0], NOVELTY_SNR[-1])
    levels = np.union1d(NOVELTY_SNR, np.geomspace(low, high, 3)).tolist()

    def draw(snr: float | None) -> Image:
        noise = None if snr is None else (snr, snr)
        noisy = dataclasses.replace(
            clean,
            snr=noise,
            snr_template=settings.augmentation.snr_template,
            # Where all spectra have imperfections they are no reason for a flag.
            imperfect=float(settings.augmentation.imperfect == 1),
        )
        return _interpolated(Augmentation(noisy, grid, settings.resolve)(others, random).flux, random).numpy()

    # The fewer stars thresholds are set on, the more of other stars are beyond.
    beyond = FALSE_ALARM * min(1.0, math.sqrt(len(spectra) / N_THRESHOLD))
    novelty, emulator = set_thresholds(novelty, emulator, levels, draw, _infer_with(bundle), grid, beyond)
    return novelty, emulator, Hull.of(stars.scaled)


def training_stars(settings: config.Config, labels: tuple[Label, ...], grid: Grid, at_rest: bool) -> Stars:
    """Return spectra that a network was trained with, or others of the same grid.

    Parameters
    ----------
    settings : config.Config
    labels : tuple of Label
    grid : Grid
    at_rest : bool
        Stars drawn from a grid have no radial velocities.
    """
    n = min(N_FIT, max(MAX_VALUES // grid.n_pixel, LEAST_STARS))
    if settings.data.grid:
        source, _ = open_grid(settings, torch.device("cpu"))
        flux, values = source.draw(n, generator(torch.device("cpu"), settings.seed, CALIBRATION, 3), at_rest)
        columns = [source.label_names.index(canonical(label.name)) for label in labels]
        return Stars(flux, scale(values.numpy()[:, columns], labels))
    sets = [open_training_set(settings.resolve(name), settings.labels.names or None) for name in settings.data.train]
    total = sum(len(part) for part in sets)
    rows = np.unique(np.linspace(0, total - 1, min(n, total)).astype(np.int64))
    drawn = FileSource(sets, rows, labels, settings.seed, memory=float("inf")).take(torch.arange(len(rows)))
    stated = [part.radial_velocity(settings.data.radial_velocity_column) for part in sets]
    known = [velocity for velocity in stated if velocity is not None]
    velocity = np.concatenate(known)[rows] if len(known) == len(sets) else None
    return Stars(drawn.flux, drawn.scaled.double().numpy(), velocity)


def without_noise(settings: config.Augmentation) -> config.Augmentation:
    """Return the augmentation of a training without noise and losses of pixels."""
    return dataclasses.replace(
        settings, snr=None, snr_template=None, file_noise=False, residuals=None, cosmic_rays=None,
        missing_pixels=None, gaps=None, coverage=None,
    )  # fmt: skip


def fit_novelty(flux: Tensor, augmentation: Augmentation, seed: int) -> Novelty:
    """Learn the subspace of clean spectra; thresholds are yet to be set.

    Parameters
    ----------
    flux : Tensor, shape (n, n_pixel)
        Spectra as in the training set, before augmentation.
    augmentation : Augmentation
        That of the training without noise and losses.
    seed : int
    """
    random = generator(torch.device("cpu"), seed, CALIBRATION, 1)
    basis = _without_gaps(augmentation(flux, random).flux)
    mean = basis.mean(dim=0)
    torch.manual_seed(random.initial_seed())
    n_component = min(MAX_COMPONENTS, len(flux) // 4, flux.shape[1] // 4)
    _, _, directions = torch.svd_lowrank(basis - mean, q=n_component, niter=3)
    components = directions.T.contiguous().numpy()  # (component, pixel)
    return Novelty(mean.double().numpy(), components, np.ones(1), np.ones(1), FALSE_ALARM)


def set_thresholds(
    novelty: Novelty,
    emulator: Emulator | None,
    levels: Sequence[float],
    draw: Draw,
    infer: Infer,
    grid: Grid,
    beyond: float = FALSE_ALARM,
) -> tuple[Novelty, Emulator | None]:
    """Set thresholds of which a fraction of clean spectra exceeds any, at every noise.

    Parameters
    ----------
    novelty : Novelty
    emulator : Emulator or None
    levels : sequence of float
        S/N at which they are set.
    draw : callable
        Gives spectra that neither was fitted to, augmented as in training, at an S/N; None: without noise.
    infer : callable
        Gives the labels of spectra, scaled to 0-1, and their errors.
    grid : Grid
    beyond : float
        The fraction.
    """
    shifter = Shifter(grid)
    if emulator is not None:
        flux = draw(None)
        emulator = _with_usual_errors(emulator, emulator.compare(flux, *infer(flux), shifter))
    noise, left = [], []
    for snr in sorted(levels, reverse=True):
        flux = draw(snr)
        if emulator is None:
            tests = [(pixel_noise(flux), novelty.remainder(flux))]
        else:
            fit = emulator.compare(flux, *infer(flux), shifter)
            tests = [(fit.pixel_noise, novelty.remainder(flux))]
            tests += [(fit.noise, emulator.misfit(fit)), (fit.noise, emulator.blur(fit))]
        noise.append([level for level, _ in tests])
        left.append([value for _, value in tests])
    seen, thresholds = joint_thresholds(np.array(noise), np.array(left), beyond)
    novelty = dataclasses.replace(novelty, noise=seen[:, 0], threshold=thresholds[:, 0])
    if emulator is not None:
        emulator = dataclasses.replace(
            emulator, noise=seen[:, 1], misfit_threshold=thresholds[:, 1], blur_threshold=thresholds[:, 2]
        )
    return novelty, emulator


def joint_thresholds(noise: FloatArray, left: FloatArray, beyond: float = FALSE_ALARM) -> tuple[FloatArray, FloatArray]:
    """Return noise levels and thresholds, of which the fraction `beyond` of spectra exceeds any.

    Parameters
    ----------
    noise, left : arrays, shape (n_level, n_test, n)
        Noise of each spectrum, and what a threshold is for, at levels of falling S/N.

    Returns
    -------
    level, threshold : arrays, shape (n_level, n_test)
    """
    level = np.maximum.accumulate(np.median(noise, axis=2)) + 1e-9 * np.arange(len(noise))[:, None]
    usual = np.maximum(np.quantile(left, 1 - beyond, axis=2), 1e-6)
    # A spectrum is judged at the noise that its own pixels show, which scatters.
    ratio = np.empty_like(left)
    for i, j in np.ndindex(level.shape):
        ratio[i, j] = left[i, j] / np.interp(noise[i, j], level[:, j], usual[:, j])
    # All tests are equally strict: how rare is each spectrum in the test where it is rarest?
    rarity = 1 - np.argsort(np.argsort(ratio, axis=2), axis=2) / ratio.shape[2]
    strict = 1 - np.quantile(rarity.min(axis=1), beyond, axis=1)
    margin = [[np.quantile(of_test, p) for of_test in of_level] for of_level, p in zip(ratio, strict, strict=True)]
    return level, usual * np.array(margin)


def _with_usual_errors(emulator: Emulator, fit: Fit) -> Emulator:
    """Return an emulator that knows by how much spectra without noise differ from it."""
    low, high = np.quantile(fit.widening, [0.16, 0.84])
    return dataclasses.replace(
        emulator,
        line_error=max(float(np.median(emulator.relative_misfit(fit))), LEAST_LINE_ERROR),
        blur_error=max(float(high - low) / 2, LEAST_BLUR_ERROR),
    )


def _interpolated(flux: Tensor, random: torch.Generator) -> Tensor:
    """Return spectra of which every other one was interpolated onto its pixels, as those of another grid are."""
    n = flux.shape[1]
    where = torch.rand((len(flux), 1), generator=random)
    where[::2] = 0
    inside = cubic(flux, torch.arange(n - 3).expand(len(flux), -1), where.repeat(1, n - 3))
    return torch.cat([flux[:, :1], inside, flux[:, -2:]], dim=1)


def _infer_with(bundle: Bundle) -> Infer:
    """Return a function that gives the labels of spectra, scaled to 0-1, and their errors."""
    session, labels = Session(bundle), bundle.sidecar.labels
    span = np.array([label.span for label in labels])

    def infer(flux: Image) -> tuple[FloatArray, FloatArray]:
        values, sigma, _ = session.run(flux)
        return scale(values, labels), half_width(bundle, sigma, estimate_snr(flux), ONE_SIGMA) / span

    return infer


def _without_gaps(flux: Tensor) -> Tensor:
    """Fill missing pixels, such as those that a velocity shift brings in at the ends, with the mean."""
    return torch.where(flux.isnan(), flux.nanmean(dim=0), flux)
