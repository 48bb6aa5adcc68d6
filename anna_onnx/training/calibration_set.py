"""The spectra that errors are calibrated on: which they are, and what is done to them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from anna_onnx import config
from anna_onnx.arrays import IntArray
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.training.batches import CALIBRATION
from anna_onnx.training.calibration import MANY_STARS
from anna_onnx.training.examples import Examples, make_examples
from anna_onnx.training.task import held_out_set, load_augmentation, pixels_of, training_set_from_grid
from anna_onnx.trainingset import TrainingSet

N_CALIBRATION = 12_000  # spectra
MAX_VALUES = 50_000_000  # of their pixels
MOST_REPEATS = 4  # of a spectrum, with other noise each time
IMPERFECT = 0.5
"""Share of the spectra with the imperfections of the training that keep them when errors are calibrated.

Where only some have them, training has more of those than there are, so that the network learns what not to
trust. Errors should hold for spectra that have them and for spectra that have none.
"""


def calibration_set(settings: config.Config) -> tuple[TrainingSet, str]:
    """Return the spectra that errors are calibrated on, and what they are.

    The validation set, what was split off from the training set, or fresh stars of the grid; without any
    of them the test set, on which errors then look better than they are, or even the training set.
    """
    if settings.data.grid and not _is_file(settings, settings.data.validation):
        n = 2 * n_calibration(pixels_of(settings).n_pixel)
        return training_set_from_grid(settings, n), "stars drawn from the grid"
    spectra, known_as = _calibration_file(settings)
    return mixed(spectra, 2 * n_calibration(spectra.grid.n_pixel), settings.seed), known_as


def _calibration_file(settings: config.Config) -> tuple[TrainingSet, str]:
    names = settings.labels.names or None
    if _is_file(settings, settings.data.validation):
        return open_training_set(settings.resolve(str(settings.data.validation)), names), "validation set"
    if (held_out := held_out_set(settings)) is not None:
        return held_out, "spectra split off from the training set"
    if _is_file(settings, settings.data.test):
        return open_training_set(settings.resolve(str(settings.data.test)), names), "test set"
    return open_training_set(settings.resolve(settings.data.train[0]), names), "training set"


def _is_file(settings: config.Config, name: str | None) -> bool:
    return name is not None and settings.resolve(name).is_file()


def mixed(spectra: TrainingSet, most: int, seed: int) -> TrainingSet:
    """Return spectra of a set that may be sorted in random order, at most so many, all those of a star together.

    Spectra without a good pixel are left out.
    """
    _, star = np.unique(spectra.id, return_inverse=True)
    place = np.random.default_rng((seed, CALIBRATION)).permutation(star.max() + 1)
    rows = np.argsort(place[star], kind="stable")[:most]
    flux = spectra.read_flux(rows)
    good = np.isfinite(flux).any(axis=1)
    if not good.any():
        raise TrainingError(f"{spectra.path}: no spectrum with a good pixel to calibrate errors on")
    rows = rows[good]
    return dataclasses.replace(
        spectra,
        flux=flux[good],
        labels=spectra.labels[rows],
        id=spectra.id[rows],
        sigma=None if spectra.sigma is None else spectra.sigma[rows],
        mask=None,
        aux={name: column[rows] for name, column in spectra.aux.items()},
    )


def n_calibration(n_pixel: int) -> int:
    """Return how many spectra errors are calibrated on: `N_CALIBRATION`, fewer where they are long."""
    return min(N_CALIBRATION, max(MAX_VALUES // n_pixel, 1000))


def calibration_examples(settings: config.Config, spectra: TrainingSet, labels: tuple[Label, ...]) -> Examples:
    """Return the examples that errors are calibrated on, the spectra of a small set up to four times."""
    most = n_calibration(spectra.grid.n_pixel)
    _, rows = share_out(len(spectra), most)
    repeats = max(1, min(MOST_REPEATS, most // len(rows)))
    return _draw(calibrating(settings), spectra, np.tile(rows, repeats), labels, settings.seed)


def adjustment_examples(settings: config.Config, spectra: TrainingSet, labels: tuple[Label, ...]) -> Examples:
    """Return the examples that sigma is adjusted on: each spectrum four times, more of them incomplete."""
    rows, _ = share_out(len(spectra), n_calibration(spectra.grid.n_pixel))
    losing = more_incomplete(calibrating(settings))
    return _draw(losing, spectra, np.tile(rows, MOST_REPEATS), labels, settings.seed + 1)


def share_out(n_spectrum: int, most: int) -> tuple[IntArray, IntArray]:
    """Return the rows that sigma is adjusted on, and those that it is calibrated on: the same where there are few."""
    rows = np.arange(n_spectrum)
    half = n_spectrum // 2
    return (rows[:half][:most], rows[half:][:most]) if half >= MANY_STARS else (rows[:most], rows[:most])


def calibrating(settings: config.Config) -> config.Config:
    """Return the parameters with the augmentation that errors are calibrated with."""
    trained = settings.augmentation.imperfect
    imperfect = IMPERFECT * trained if trained < 1 else trained
    return dataclasses.replace(settings, augmentation=dataclasses.replace(settings.augmentation, imperfect=imperfect))


def more_incomplete(settings: config.Config) -> config.Config:
    """Return parameters with which more of the spectra lack a part of the wavelengths."""
    augmentation = settings.augmentation
    more = dataclasses.replace(augmentation, incomplete=(1 + augmentation.incomplete) / 2)
    return dataclasses.replace(settings, augmentation=more)


def _draw(
    settings: config.Config, spectra: TrainingSet, rows: IntArray, labels: tuple[Label, ...], seed: int
) -> Examples:
    augmentation = load_augmentation(settings, spectra.grid, torch.device("cpu"))
    return make_examples([spectra], rows, labels, augmentation, seed, CALIBRATION, settings.data.radial_velocity_column)
