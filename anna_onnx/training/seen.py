"""What training saw: how its spectra were prepared, their resolving power, radial velocities, S/N and pixels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import torch

from anna_onnx import config
from anna_onnx.arrays import FloatArray
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.preparation import Preparation
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import CALIBRATION, GridStream, evenly
from anna_onnx.training.calibration_set import n_calibration
from anna_onnx.training.examples import Examples, augmented_once, make_examples
from anna_onnx.training.task import open_grid
from anna_onnx.trainingset import TrainingSet

Ranges = tuple[tuple[int, int], ...]


def describe_preparation(
    settings: config.Config, labels: tuple[Label, ...], spectra: TrainingSet, augmentation: Augmentation
) -> Preparation:
    """Return the preparation that matches how a network was trained; that of `anna pack` where it made the set.

    Parameters
    ----------
    settings : config.Config
    labels : tuple of Label
    spectra : TrainingSet
        That errors are calibrated on: they tell what neither the parameters nor the training sets do.
    augmentation : Augmentation
    """
    sets = training_sets(settings)
    told = [*sets, spectra]
    packed = next((str(part.attrs["preparation"]) for part in told if "preparation" in part.attrs), None)
    made = Preparation(spectra.grid, frame="rest")
    if packed is not None:
        made = Preparation.from_dict(json.loads(packed), spectra.grid)
    return dataclasses.replace(
        made,
        resolution=made.resolution or _resolution(settings, told),
        velocity_range=_velocity_range(settings, sets, spectra),
        min_coverage=min(made.min_coverage, _least_coverage(settings.augmentation)),
        most_missing=max(1 - made.min_coverage, _most_missing(settings.augmentation)),
        snr_range=augmentation.snr_range or made.snr_range,
        unseen=unseen_pixels(training_examples(settings, labels, augmentation, n_calibration(spectra.grid.n_pixel))),
    )


def training_sets(settings: config.Config) -> list[TrainingSet]:
    """Open the training sets of a run: none, where it drew from a grid."""
    return [open_training_set(settings.resolve(name), settings.labels.names or None) for name in settings.data.train]


def training_examples(
    settings: config.Config, labels: tuple[Label, ...], augmentation: Augmentation, n: int
) -> Examples:
    """Return n training spectra as the network saw them; those of a small set come several times."""
    if settings.data.grid:
        stars, _ = open_grid(settings, torch.device("cpu"))
        drawn = GridStream(stars, labels, settings.seed).draw(0, n)
        return augmented_once(drawn, np.arange(n), augmentation, settings.seed, CALIBRATION)
    sets = training_sets(settings)
    rows = np.resize(evenly(sum(len(part) for part in sets), n), n)
    column = settings.data.radial_velocity_column
    return make_examples(sets, rows, labels, augmentation, settings.seed, CALIBRATION, column)


def unseen_pixels(examples: Examples) -> Ranges:
    """Return first and last of the pixels that no example has: masked regions, bad columns, gaps between chips."""
    missing = examples.flux.isnan().all(dim=0).cpu().numpy()
    edges = np.flatnonzero(np.diff(missing, prepend=False, append=False))
    return tuple((int(first), int(last) - 1) for first, last in edges.reshape(-1, 2))


def without_pixels(settings: config.Config, unseen: Ranges) -> config.Config:
    """Return parameters with which spectra lack pixels that training never had, as those to infer will."""
    augmentation = settings.augmentation
    lost = [pixel for first, last in unseen for pixel in range(first, last + 1)]
    lacking = dataclasses.replace(augmentation, bad_columns=(*augmentation.bad_columns, *lost))
    return dataclasses.replace(settings, augmentation=lacking)


def _resolution(settings: config.Config, told: Sequence[TrainingSet]) -> float | None:
    """Return the resolving power of simulated spectra; at their centre where the width is constant in wavelength.

    None of spectra without an instrument, whose width is 0.
    """
    data = settings.data
    for facts in ({"resolution": data.resolution, "fwhm": data.fwhm}, *(part.attrs for part in told)):
        if (resolution := facts.get("resolution")) is not None:
            return float(resolution)
        if (fwhm := facts.get("fwhm")) is not None:
            return float(told[0].grid.wavelength.mean() / fwhm) if fwhm else None
    return None


def _velocity_range(
    settings: config.Config, sets: Sequence[TrainingSet], spectra: TrainingSet
) -> tuple[float, float] | None:
    """Return the radial velocities that the network has seen: those of the spectra, and the shifts on top."""
    low, high = settings.augmentation.radial_velocity or (0.0, 0.0)
    column = settings.data.radial_velocity_column
    if settings.data.grid:
        velocity = np.array(settings.data.radial_velocity)
    else:
        velocity = _known_velocities(sets, column)
        velocity = velocity if velocity.size else _known_velocities([spectra], column)
    if velocity.size:
        low, high = low + float(velocity.min()), high + float(velocity.max())
    return None if low == high else (low, high)


def _known_velocities(sets: Sequence[TrainingSet], column: str | None) -> FloatArray:
    stated = [velocity for part in sets if (velocity := part.radial_velocity(column)) is not None]
    velocity = np.concatenate([np.empty(0), *stated])
    return velocity[np.isfinite(velocity)]


def _most_missing(augmentation: config.Augmentation) -> float:
    """Return the largest fraction of its pixels that a spectrum of all wavelengths lost in training."""
    single, gap = (lost[1] if lost else 0.0 for lost in (augmentation.missing_pixels, augmentation.gaps))
    return 1 - (1 - single) * (1 - gap)


def _least_coverage(settings: config.Augmentation) -> float:
    """Return the least fraction of the pixels that one kind of loss leaves: all but one stretch, or all but many."""
    (_, gap), (_, single) = settings.gaps or (0.0, 0.0), settings.missing_pixels or (0.0, 0.0)
    return max(min(settings.coverage[0] if settings.coverage else 1.0, 1 - gap - single), 0.0)
