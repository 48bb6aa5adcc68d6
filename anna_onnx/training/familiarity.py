"""Learning what is familiar to a network: the spectra and labels of its training set, and how far clean ones stray."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from anna_onnx import config
from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.bundle import Bundle
from anna_onnx.fit import Fit, FitLimits
from anna_onnx.hull import Hull
from anna_onnx.labels import Label, scale
from anna_onnx.novelty import Novelty, pixel_noise
from anna_onnx.resampling import Grid
from anna_onnx.session import Session
from anna_onnx.training.augmentation import Augmentation, Pixels, cubic
from anna_onnx.training.batches import CLEAN, NOVELTY, NOVELTY_STARS, FileSource, evenly, generator
from anna_onnx.training.comparison import TEST_COMPONENTS, Comparison
from anna_onnx.training.emulation import fit_emulator
from anna_onnx.training.seen import training_sets
from anna_onnx.training.task import open_grid
from anna_onnx.trainingset import TrainingSet

Infer = Callable[[Tensor], tuple[Tensor, Tensor]]
Compare = Callable[[Float32Array], Fit]
Draw = Callable[[float | None], Float32Array]
"""Gives clean spectra at an S/N; None: without noise."""
Kinds = Mapping[str, Draw]
Tests = Callable[[Float32Array], list[tuple[FloatArray, FloatArray]]]
"""Gives the noise of spectra, and the value that a threshold is for, of each test."""

FALSE_ALARM = 0.01  # of clean spectra
WORSE_KIND = 0.016
"""The same of the kind of `clean_spectra` that does worst; about `FALSE_ALARM` of all kinds together."""
NOVELTY_SNR = (10, 20, 40, 60, 80, 110, 160, 220, 320, 1000)
MAX_COMPONENTS = 128
N_FIT, N_THRESHOLD = 6000, 4000  # spectra
MAX_VALUES = 30_000_000  # of their pixels
PART = 1000  # spectra at once
LEAST_STARS = 100  # with which an emulator is worth fitting
MOST_LABELS = 50  # each of which makes the comparison longer
LEAST_LINE_ERROR = 0.08
"""Fraction of the lines by which any synthetic spectrum is wrong, in the space of the training spectra, whatever
labels are inferred: that much is never called unlike training.

At their true labels the embedded grid's lines are wrong by 16 % (rms) for Procyon, by 10 % for the Sun
(benchmarks/lines.py); half of that other labels explain, or lies outside.
"""
LEAST_OUTSIDE_ERROR = 0.25
"""The same outside of the space of the training spectra, for lines that the synthesis lacks too."""
LEAST_BLUR_ERROR = 0.45
"""Of the instrumental profile, a variance in square pixels."""


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
        Radial velocities, km/s, where they are known.
    """

    flux: Tensor
    scaled: FloatArray
    velocity: FloatArray | None = None


def learn_comparison(
    settings: config.Config,
    labels: tuple[Label, ...],
    spectra: TrainingSet,
    velocities: tuple[float, float],
    infer: Infer,
) -> Comparison | None:
    """Learn what spectra look like from their labels, and how clean ones differ from that.

    Parameters
    ----------
    settings : config.Config
    labels : tuple of Label
    spectra : TrainingSet
        Clean spectra that the network was not trained on.
    velocities : (low, high)
        Radial velocities of the training, km/s.
    infer : callable
        Gives the labels of spectra, scaled to 0-1, and their errors.

    Returns
    -------
    Comparison or None
        None where too few of the training stars have all labels, or these are too many.
    """
    stars = training_stars(settings, labels, spectra.grid, at_rest=True)
    known = np.isfinite(stars.scaled).all(axis=1)
    if known.sum() < LEAST_STARS or len(labels) > MOST_LABELS:
        return None
    velocity = None if stars.velocity is None else stars.velocity[known]
    flux = stars.flux[torch.as_tensor(known)]
    emulator = fit_emulator(flux, stars.scaled[known], velocity, spectra.grid, settings.seed)
    comparison = Comparison(emulator, spectra.grid, velocities).eval()
    comparison.expect_blur(usual_blur(comparison, clean_spectra(settings, spectra)["interpolated"](None), infer))
    return comparison


@torch.no_grad()
def usual_blur(comparison: Comparison, flux: Float32Array, infer: Infer) -> float:
    """Return by how much the broadening of spectra without noise differs from their emulation, square pixels."""
    parts = [comparison.fit(part, *infer(part)).widening for part in torch.from_numpy(flux).split(PART)]
    low, high = np.quantile(np.concatenate(parts), [0.16, 0.84])
    return max(float(high - low) / 2, LEAST_BLUR_ERROR)


def learn_familiar(
    settings: config.Config, bundle: Bundle, spectra: TrainingSet, comparison: Comparison | None
) -> tuple[Novelty, FitLimits | None, Hull | None]:
    """Learn what the flags need to know of the training set.

    Parameters
    ----------
    settings : config.Config
    bundle : Bundle
        The network as stored.
    spectra : TrainingSet
        Clean spectra that the network was not trained on, for the thresholds.
    comparison : Comparison or None
        What the network holds of it.

    Returns
    -------
    novelty : Novelty
    limits : FitLimits or None
        None without a comparison.
    hull : Hull or None
        None where the training stars fill the box of their ranges.
    """
    labels, grid = bundle.sidecar.labels, spectra.grid
    stars = training_stars(settings, labels, grid, at_rest=False)
    augmentation = Augmentation(without_noise(settings.augmentation), grid, settings.resolve)
    novelty = fit_novelty(stars, augmentation, settings.seed)
    low, high = settings.augmentation.snr or (NOVELTY_SNR[0], NOVELTY_SNR[-1])
    levels = np.union1d(NOVELTY_SNR, np.geomspace(low, high, 3)).tolist()
    # The fewer stars thresholds are set on, the more of other stars are beyond.
    beyond = WORSE_KIND * min(1.0, math.sqrt(len(spectra) / N_THRESHOLD))
    limits = None if comparison is None else usual_limits(comparison)
    session = Session(bundle)

    def compare(flux: Float32Array) -> Fit:
        fit = session.run(flux).fit
        assert fit is not None, "the network holds a comparison"
        return fit

    kinds = clean_spectra(settings, spectra)
    return *set_thresholds(novelty, limits, levels, kinds, compare, beyond), Hull.of(stars.scaled)


def clean_spectra(settings: config.Config, spectra: TrainingSet) -> Kinds:
    """Return functions that augment spectra as in training at an S/N, and spoil none.

    Noise is smooth in those that are interpolated, onto other pixels or to be at rest, and stays so in these.
    """
    clean, grid = without_noise(settings.augmentation), spectra.grid
    chosen = np.resize(np.arange(min(len(spectra), N_THRESHOLD)), N_THRESHOLD)
    flux = torch.from_numpy(spectra.read_flux(np.arange(chosen.max() + 1)))[chosen]
    random = generator(torch.device("cpu"), settings.seed, CLEAN)
    stated = spectra.radial_velocity(settings.data.radial_velocity_column)
    velocity = None if stated is None else torch.as_tensor(np.nan_to_num(stated)[chosen], dtype=torch.float32)

    def draw(snr: float | None, wanted: config.Augmentation = clean) -> Tensor:
        noisy = dataclasses.replace(
            wanted,
            snr=None if snr is None else (snr, snr),
            snr_template=settings.augmentation.snr_template,
            # Where all spectra have imperfections they are no reason for a flag.
            imperfect=float(settings.augmentation.imperfect == 1),
        )
        return Augmentation(noisy, grid, settings.resolve)(flux, random, velocity=velocity).flux

    kinds: dict[str, Draw] = {
        "sharp": lambda snr: draw(snr).numpy(),
        "interpolated": lambda snr: _interpolated(draw(snr), random).numpy(),
    }
    if velocity is not None:
        pixels = Pixels(torch.as_tensor(grid.wavelength), flux.device, float(velocity.abs().max()))
        kinds["at rest"] = lambda snr: pixels.shift(draw(snr), -velocity).numpy()
    elif clean.radial_velocity is not None:
        still = dataclasses.replace(clean, radial_velocity=None)
        kinds["at rest"] = lambda snr: _interpolated(draw(snr, still), random).numpy()
    return kinds


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
        flux, values, rv = source.draw(n, generator(torch.device("cpu"), settings.seed, NOVELTY_STARS), at_rest)
        return Stars(flux, scale(values.numpy()[:, source.columns(labels)], labels), rv.numpy())
    sets = training_sets(settings)
    rows, column = evenly(sum(len(part) for part in sets), n), settings.data.radial_velocity_column
    stars = FileSource(sets, rows, labels, settings.seed, memory=float("inf"), velocity_column=column)
    drawn = stars.take(torch.arange(len(rows)))
    good = ~drawn.flux.isnan().all(dim=1)
    velocity = None if drawn.velocity is None else drawn.velocity[good].double().numpy()
    return Stars(drawn.flux[good], drawn.scaled[good].double().numpy(), velocity)


def without_noise(settings: config.Augmentation) -> config.Augmentation:
    """Return the augmentation of a training without noise and losses of pixels."""
    return dataclasses.replace(
        settings, snr=None, snr_template=None, file_noise=False, residuals=None, cosmic_rays=None,
        missing_pixels=None, gaps=None, coverage=None,
    )  # fmt: skip


def fit_novelty(stars: Stars, augmentation: Augmentation, seed: int) -> Novelty:
    """Learn the subspace of clean spectra; thresholds are yet to be set.

    Parameters
    ----------
    stars : Stars
        As in the training set, before augmentation.
    augmentation : Augmentation
        That of the training without noise and losses.
    seed : int
    """
    random = generator(torch.device("cpu"), seed, NOVELTY)
    flux = stars.flux
    velocity = None if stars.velocity is None else torch.as_tensor(stars.velocity, dtype=torch.float32)
    basis = _without_gaps(augmentation(flux, random, velocity=velocity).flux)
    mean = basis.mean(dim=0)
    torch.manual_seed(random.initial_seed())
    n_component = min(MAX_COMPONENTS, len(flux) // 4, flux.shape[1] // 4)
    _, _, directions = torch.svd_lowrank(basis - mean, q=n_component, niter=3)
    components = directions.T.contiguous().numpy()  # (component, pixel)
    return Novelty(mean.double().numpy(), components, np.ones(1), np.ones(1), FALSE_ALARM)


def usual_limits(comparison: Comparison) -> FitLimits:
    """Return limits whose thresholds, and errors of the lines, are yet to be set."""
    n_component, n_pixel = comparison.emulator.components.shape
    one = np.ones(1)
    dilution = math.sqrt(n_pixel / min(TEST_COMPONENTS, n_component))
    return FitLimits(one, one, one, one, dilution, LEAST_LINE_ERROR, LEAST_OUTSIDE_ERROR, float(comparison.blur_error))


def set_thresholds(
    novelty: Novelty,
    limits: FitLimits | None,
    levels: Sequence[float],
    kinds: Kinds,
    compare: Compare,
    beyond: float = WORSE_KIND,
) -> tuple[Novelty, FitLimits | None]:
    """Set thresholds of which a fraction of clean spectra exceeds any, at every noise.

    Parameters
    ----------
    novelty : Novelty
    limits : FitLimits or None
        Judged by on its own where there is one.
    levels : sequence of float
        S/N at which they are set.
    kinds : mapping of str to callable
        Give spectra that nothing was fitted to, augmented as in training: thresholds hold for each kind.
    compare : callable
        Gives the fit of spectra.
    beyond : float
        The fraction.
    """
    families: list[Tests] = [lambda flux: [(pixel_noise(flux), novelty.remainder(flux))]]
    if limits is None:
        (noise, (threshold,)), *_ = worst_thresholds(levels, kinds, families, beyond)
        return dataclasses.replace(novelty, noise=noise, threshold=threshold), None
    line_error = float(np.median(limits.relative_misfit(compare(kinds["interpolated"](None)))))
    limits = dataclasses.replace(limits, line_error=max(line_error, LEAST_LINE_ERROR))
    families.append(lambda flux: _tests_of(limits, compare(flux)))
    (noise, (threshold,)), (at, (outside, misfit, blur)) = worst_thresholds(levels, kinds, families, beyond)
    return dataclasses.replace(novelty, noise=noise, threshold=threshold), dataclasses.replace(
        limits,
        noise=at,
        # What the usual errors of the lines make is no reason for a flag.
        outside_threshold=np.maximum(outside, 1.0),
        misfit_threshold=np.maximum(misfit, 1.0),
        blur_threshold=blur,
    )


def _tests_of(limits: FitLimits, fit: Fit) -> list[tuple[FloatArray, FloatArray]]:
    return [(fit.noise, value) for value in (limits.outside(fit), limits.misfit(fit), limits.blur(fit))]


def worst_thresholds(
    levels: Sequence[float], kinds: Kinds, families: Sequence[Tests], beyond: float
) -> list[tuple[FloatArray, FloatArray]]:
    """Return, for each family of tests, noise levels, shape (n_level,), and thresholds, shape (n_test, n_level).

    Of the spectra of the kind that does worst, the fraction `beyond` exceeds any threshold of a family.
    """
    found: list[list[tuple[FloatArray, FloatArray]]] = [[] for _ in families]
    for draw in kinds.values():
        drawn = [[tests_of(flux) for tests_of in families] for flux in map(draw, sorted(levels, reverse=True))]
        for of_kind, tests in zip(found, zip(*drawn, strict=True), strict=True):
            values = np.array(tests)  # (level, test, noise or value, spectrum)
            of_kind.append(joint_thresholds(values[:, :, 0], values[:, :, 1], beyond))
    return [_worst_of(of_kind) for of_kind in found]


def _worst_of(kinds: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Return the largest of the thresholds of some kinds of spectra, at the noise levels of the first."""
    level, _ = kinds[0]
    here = [[np.interp(*columns) for columns in zip(level.T, at.T, of.T, strict=True)] for at, of in kinds]
    return level[:, 0], np.max(here, axis=0)


def joint_thresholds(noise: FloatArray, left: FloatArray, beyond: float = WORSE_KIND) -> tuple[FloatArray, FloatArray]:
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


def _interpolated(flux: Tensor, random: torch.Generator) -> Tensor:
    """Return spectra that were interpolated onto their pixels, as those of another grid are."""
    n = flux.shape[1]
    where = torch.rand((len(flux), 1), generator=random)
    inside = cubic(flux, torch.arange(n - 3).expand(len(flux), -1), where.repeat(1, n - 3))
    return torch.cat([flux[:, :1], inside, flux[:, -2:]], dim=1)


def _without_gaps(flux: Tensor) -> Tensor:
    """Fill missing pixels, such as those that a velocity shift brings in at the ends, with the mean, else with 1."""
    return torch.where(flux.isnan(), flux.nanmean(dim=0).nan_to_num(1.0), flux)
