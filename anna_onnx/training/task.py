"""What a run trains on: labels, spectra and the fixed validation set, as params.toml asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label
from anna_onnx.legacy import open_training_set
from anna_onnx.resampling import Grid
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import VALIDATION, FileSource, Source, generator, pick_labels, split_by_star
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
    id: np.ndarray[tuple[int], np.dtype[np.generic]]

    def __len__(self) -> int:
        return len(self.scaled)


@dataclass(frozen=True, eq=False)
class Task:
    """All that a run needs besides the network.

    Attributes
    ----------
    labels : tuple of Label
    grid : Grid
    source : Source
        Training spectra.
    augmentation : Augmentation
    validation : Examples or None
    files : mapping of str to Path
        Every file that was read, for its hash.
    """

    labels: tuple[Label, ...]
    grid: Grid
    source: Source
    augmentation: Augmentation
    validation: Examples | None
    files: Mapping[str, Path]


def prepare_task(settings: config.Config, device: torch.device) -> Task:
    """Open and check everything that the parameters name.

    Raises
    ------
    TrainingError, TrainingSetError, LegacyError
        If a file is missing, broken, or does not fit the others.
    """
    data = settings.data
    if data.grid:
        raise TrainingError("data.grid: not available")
    files = {f"train{i or ''}": settings.resolve(name) for i, name in enumerate(data.train)}
    sets = [_open(path, settings) for path in files.values()]
    for part in sets[1:]:
        _require_same_grid(part, sets[0])
    grid, n = sets[0].grid, sum(len(part) for part in sets)
    labels = resolve_labels(settings.labels, sets)
    rows, held_out = np.arange(n), np.arange(0)
    if not data.validation and data.validation_size:
        stars = np.concatenate([part.id.astype(str) for part in sets])
        rows, held_out = split_by_star(stars, data.validation_size, settings.seed)
        if not len(rows):
            raise TrainingError(f"{files['train']}: {n} spectra, too few to split off {data.validation_size}")
    source = FileSource(sets, rows, labels, settings.seed, data.memory * 1e9, device, data.balance)
    augmentation = load_augmentation(settings, grid, device)
    validation = None
    chosen = augmentation if settings.validation.augment else None
    if data.validation:
        files["validation"] = settings.resolve(data.validation)
        validating = _open(files["validation"], settings)
        _require_same_grid(validating, sets[0])
        limit = data.validation_size or len(validating)
        validation = make_examples([validating], np.arange(min(limit, len(validating))), labels, chosen, settings.seed)
    elif len(held_out):
        validation = make_examples(sets, held_out, labels, chosen, settings.seed)
    for name in ("snr_template", "residuals"):
        if (file := getattr(settings.augmentation, name)) is not None:
            files[name] = settings.resolve(file)
    return Task(labels, grid, source, augmentation, validation, files)


def load_augmentation(settings: config.Config, grid: Grid, device: torch.device) -> Augmentation:
    """Return the augmentation of a parameter file, its files read."""
    residuals = None
    if settings.augmentation.residuals:
        noise = open_training_set(settings.resolve(settings.augmentation.residuals))
        if noise.grid != grid:
            raise TrainingError(f"{noise.path}: residuals on {noise.grid}, the training set is on {grid}")
        residuals = torch.as_tensor(np.asarray(noise.flux, dtype=np.float32), device=device)
    return Augmentation(settings.augmentation, grid, settings.resolve, residuals, device)


def resolve_labels(settings: config.Labels, sets: Sequence[TrainingSet]) -> tuple[Label, ...]:
    """Return the labels to infer; names, units and ranges not given come from the training set.

    Raises
    ------
    TrainingError
        If a label is not in the training set or does not vary in it.
    """
    names = settings.names or sets[0].label_names
    whole = [Label(name, -np.finfo(float).max, np.finfo(float).max) for name in names]
    values = np.concatenate([pick_labels(part, whole) for part in sets])
    with np.errstate(all="ignore"):
        known = np.isfinite(values).any(axis=0)
        if not known.all():
            raise TrainingError(f"{sets[0].path}: no spectrum has a value of {names[int(np.argmin(known))]}")
        low = settings.low or np.nanmin(values, axis=0)
        high = settings.high or np.nanmax(values, axis=0)
    labels = []
    for i, name in enumerate(names):
        if low[i] >= high[i]:
            raise TrainingError(f"{sets[0].path}: {name} is {low[i]} in every spectrum, there is nothing to learn")
        unit = settings.units[i] if settings.units else None
        labels.append(Label(name, float(low[i]), float(high[i]), unit))
    return tuple(labels)


def make_examples(
    sets: Sequence[TrainingSet],
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    labels: Sequence[Label],
    augmentation: Augmentation | None,
    seed: int,
    stream: int = VALIDATION,
) -> Examples:
    """Return some spectra of training sets, augmented once, from the seed."""
    source = FileSource(sets, rows, labels, seed, memory=float("inf"))
    flux, scaled, sigma = source.take(torch.arange(len(rows)))
    ids = np.concatenate([part.id for part in sets])[rows]
    if augmentation is None:
        snr = torch.full((len(rows),), float("inf")) if sigma is None else _snr_of(flux, sigma)
        return Examples(flux, scaled, snr, ids)
    device = augmentation.device
    parts, levels = [], []
    for i, chunk in enumerate(torch.split(torch.arange(len(rows)), 1000)):
        random = generator(device, seed, stream, i)
        result = augmentation(flux[chunk].to(device), random, None if sigma is None else sigma[chunk].to(device))
        parts.append(result.flux)
        levels.append(result.snr)
    return Examples(torch.cat(parts), scaled.to(device), torch.cat(levels), ids)


def _snr_of(flux: Tensor, sigma: Tensor) -> Tensor:
    return (flux / sigma).nanmedian(dim=1).values


def _open(path: Path, settings: config.Config) -> TrainingSet:
    return open_training_set(path, settings.labels.names or None)


def _require_same_grid(one: TrainingSet, other: TrainingSet) -> None:
    if one.grid != other.grid:
        raise TrainingError(
            f"{one.path}: {one.grid.n_pixel} pixels, {one.grid}; "
            f"{other.path} has {other.grid.n_pixel} pixels, {other.grid}: all must be on one grid"
        )
