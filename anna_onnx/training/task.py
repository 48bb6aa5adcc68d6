"""What a run trains on: labels, spectra and the fixed validation set, as params.toml asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anna_onnx import config
from anna_onnx.arrays import IntArray
from anna_onnx.errors import TrainingError
from anna_onnx.labels import Label, are_same_unit, canonical, unit_of
from anna_onnx.legacy import open_training_set
from anna_onnx.readers.assembly import are_measured
from anna_onnx.resampling import Grid
from anna_onnx.synthesis import SpectralGrid, continued, wavelength_grid
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import (
    CALIBRATION_STARS,
    VALIDATION,
    VALIDATION_STARS,
    FileSource,
    GridStream,
    Source,
    evenly,
    generator,
    pick_labels,
    split_by_star,
)
from anna_onnx.training.examples import Examples, augmented_once, make_examples
from anna_onnx.training.gridsource import GridSource
from anna_onnx.trainingset import TrainingSet

PROBE = 1000  # training spectra looked at


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

    Parameters
    ----------
    settings : config.Config
    device : torch.device
        Where batches are made; the processor when loader workers make them.

    Raises
    ------
    TrainingError, TrainingSetError, GridError, LegacyError
        If a file is missing, broken, or does not fit the others.
    """
    if settings.loader.workers:
        device = torch.device("cpu")
    task = _task_from_grid(settings, device) if settings.data.grid else _task_from_files(settings, device)
    files = dict(task.files)
    if task.validation is not None and task.validation.scaled.isnan().all():
        names = ", ".join(label.name for label in task.labels)
        raise TrainingError(f"{files.get('validation', 'the validation spectra')}: none has a value of {names}")
    for name in ("snr_template", "residuals"):
        if (file := getattr(settings.augmentation, name)) is not None:
            files[name] = settings.resolve(file)
    return replace(task, files=files)


def shape_of(settings: config.Config) -> tuple[int, int]:
    """Return the number of pixels and of labels, without reading any spectra."""
    if settings.data.grid:
        spectra = SpectralGrid.open(grid_path(settings))
        return pixels_of(settings).n_pixel, len(settings.labels.names) or len(spectra.axes) + 1
    first = _open(settings.resolve(settings.data.train[0]), settings)
    return first.grid.n_pixel, len(settings.labels.names) or len(first.label_names)


def _task_from_files(settings: config.Config, device: torch.device) -> Task:
    data = settings.data
    files = {f"train{i or ''}": settings.resolve(name) for i, name in enumerate(data.train)}
    sets = [_open(path, settings) for path in files.values()]
    for part in sets[1:]:
        _require_same_grid(part, sets[0])
    for part in sets:
        _require_sigma(part, settings)
    grid, n = sets[0].grid, sum(len(part) for part in sets)
    labels = resolve_labels(settings.labels, sets)
    rows, held_out = _split(settings, sets)
    if not len(rows):
        stars = len({name for part in sets for name in part.id.astype(str)})
        raise TrainingError(
            f"{files['train']}: {n} spectra of {stars} {'star' if stars == 1 else 'stars'} (by their id), "
            f"too few to split off {data.validation_size}"
        )
    source = FileSource(
        sets, rows, labels, settings.seed, data.memory * 1e9, device, data.balance, data.label_errors,
        data.radial_velocity_column,
    )  # fmt: skip
    if source.draw(0, PROBE).flux.isnan().all():
        raise TrainingError(f"{files['train']}: the flux is NaN or masked in every pixel")
    augmentation = load_augmentation(settings, grid, device)
    validation = None
    if data.validation:
        files["validation"] = settings.resolve(data.validation)
        validation = _validation_from_file(settings, grid, labels, augmentation)
    elif len(held_out):
        chosen, column = _validating(settings, augmentation), data.radial_velocity_column
        validation = make_examples(sets, held_out, labels, chosen, settings.seed, velocity_column=column)
    return Task(labels, grid, source, augmentation, validation, files)


def _task_from_grid(settings: config.Config, device: torch.device) -> Task:
    data = settings.data
    stars, labels = open_grid(settings, device)
    grid = stars.grid
    augmentation = load_augmentation(settings, grid, device)
    files = {"grid": grid_path(settings)}
    validation = None
    if data.validation:
        files["validation"] = settings.resolve(data.validation)
        validation = _validation_from_file(settings, grid, labels, augmentation)
    elif data.validation_size:
        drawn = GridStream(stars, labels, settings.seed, VALIDATION_STARS).draw(0, data.validation_size)
        ids, chosen = np.arange(data.validation_size), _validating(settings, augmentation)
        validation = augmented_once(drawn, ids, chosen, settings.seed, VALIDATION)
    training = GridStream(stars, labels, settings.seed, beyond=_open_beyond(settings, device), share=data.beyond)
    return Task(labels, grid, training, augmentation, validation, files)


def grid_path(settings: config.Config) -> Path:
    """Return the path of the grid that the parameters name."""
    assert settings.data.grid is not None
    return SpectralGrid.open().path if settings.data.grid == "default" else settings.resolve(settings.data.grid)


def pixels_of(settings: config.Config) -> Grid:
    """Return the pixels that `data.wavelength` names."""
    text = ":".join(f"{value!r}" for value in settings.data.wavelength)
    return wavelength_grid(text, "vacuum" if settings.data.medium == "vacuum" else "air")


def open_grid(settings: config.Config, device: torch.device) -> tuple[GridSource, tuple[Label, ...]]:
    """Open the grid of `data.grid`: a source of its spectra, and the labels to infer.

    Raises
    ------
    GridError, TrainingError
        If it is no grid, or cannot give what the parameters ask for.
    """
    asked = settings.labels
    spectra = SpectralGrid.open(grid_path(settings))
    source = _source_of(spectra, _ranges(spectra, asked.low, asked.high, asked.names), settings, device)
    ranges = {canonical(name): limits for name, limits in source.ranges.items()}
    units = {canonical(axis.name): axis.unit for axis in spectra.axes}
    labels = []
    for i, name in enumerate(asked.names or source.label_names):
        if canonical(name) not in ranges:
            raise TrainingError(f"{spectra.path}: no label {name}; it has {', '.join(source.label_names)}")
        low, high = ranges[canonical(name)]
        labels.append(Label(name, low, high, _unit_of(asked, i, name, units.get(canonical(name), ""), spectra.path)))
    return source, tuple(labels)


def _open_beyond(settings: config.Config, device: torch.device) -> GridSource | None:
    """Open the source of the stars from beyond the ranges of the labels, where the parameters want some."""
    asked = settings.labels
    if not settings.data.beyond:
        return None
    spectra = SpectralGrid.open(grid_path(settings))
    ranges = _ranges(spectra, asked.lowest or asked.low, asked.highest or asked.high, asked.names)
    return _source_of(continued(spectra, ranges), ranges, settings, device)


def _source_of(
    spectra: SpectralGrid, ranges: Mapping[str, tuple[float, float]], settings: config.Config, device: torch.device
) -> GridSource:
    data = settings.data
    return GridSource(
        spectra,
        pixels_of(settings),
        ranges=ranges,
        rv=data.radial_velocity,
        fwhm=data.fwhm,
        resolution=data.resolution,
        device=device,
    )


def _ranges(
    spectra: SpectralGrid, low: Sequence[float], high: Sequence[float], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Return the ranges by label, as the grid names it; none where they are not all given."""
    if not (low and high):
        return {}
    axes = {canonical(name): name for name in spectra.axis_names}
    return {axes.get(canonical(name), canonical(name)): (a, b) for name, a, b in zip(names, low, high, strict=True)}


def training_set_from_grid(settings: config.Config, n: int) -> TrainingSet:
    """Draw a training set, in memory, from the grid of `data.grid`: stars that training did not see."""
    stars, labels = open_grid(settings, torch.device("cpu"))
    flux, values, rv = stars.draw(n, generator(torch.device("cpu"), settings.seed, CALIBRATION_STARS))
    return TrainingSet(
        path=grid_path(settings),
        grid=stars.grid,
        flux=flux.numpy(),
        labels=values.numpy()[:, stars.columns(labels)],
        label_names=tuple(label.name for label in labels),
        label_units=tuple(label.unit for label in labels),
        id=np.arange(n),
        aux={"rv": rv.numpy()},
    )


def _validation_from_file(
    settings: config.Config, grid: Grid, labels: Sequence[Label], augmentation: Augmentation
) -> Examples:
    assert settings.data.validation is not None
    validating = _open(settings.resolve(settings.data.validation), settings)
    if validating.grid != grid:
        raise TrainingError(_different_grids(validating, grid, "the training spectra"))
    if settings.validation.augment:
        _require_sigma(validating, settings)
    rows = evenly(len(validating), settings.data.validation_size or len(validating))
    chosen, column = _validating(settings, augmentation), settings.data.radial_velocity_column
    return make_examples([validating], rows, labels, chosen, settings.seed, velocity_column=column)


def _validating(settings: config.Config, augmentation: Augmentation) -> Augmentation | None:
    """Return the augmentation of the validation spectra, None where they stay as they are."""
    return augmentation if settings.validation.augment else None


def _split(settings: config.Config, sets: Sequence[TrainingSet]) -> tuple[IntArray, IntArray]:
    """Return the rows, counted through all sets, that train, and those that are split off to validate."""
    stars = np.concatenate([part.id.astype(str) for part in sets])
    wanted = 0 if settings.data.validation else settings.data.validation_size
    return split_by_star(stars, wanted, settings.seed) if wanted else (np.arange(len(stars)), np.arange(0))


def held_out_set(settings: config.Config) -> TrainingSet | None:
    """Return the spectra that a run split off from its training set, if it did."""
    if not settings.data.train:
        return None
    sets = [_open(settings.resolve(name), settings) for name in settings.data.train]
    _, rows = _split(settings, sets)
    if not len(rows):
        return None
    if any(part.mask is not None for part in sets):
        sets = [part if part.mask is not None else replace(part, mask=_unmasked(part)) for part in sets]
    labels = resolve_labels(settings.labels, sets)
    starts = np.cumsum([0, *(len(part) for part in sets)])
    picked = [rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(starts)]

    def join(columns: Sequence[NDArray[Any] | None]) -> Any:
        """Return the picked rows of a column of every set, nothing where a set lacks it."""
        present = [column for column in columns if column is not None]
        if len(present) < len(sets):
            return None
        return np.concatenate([column[chosen] for column, chosen in zip(present, picked, strict=True)])

    return replace(
        sets[0],
        **{name: join([getattr(part, name) for part in sets]) for name in ("flux", "id", "sigma", "mask")},
        labels=join([pick_labels(part, labels) for part in sets]),
        label_names=tuple(label.name for label in labels),
        label_units=tuple(label.unit for label in labels),
        aux={name: join([part.aux[name] for part in sets]) for name in set.intersection(*(set(s.aux) for s in sets))},
    )


def _unmasked(spectra: TrainingSet) -> NDArray[np.uint8]:
    """Return a mask without any marked pixel, which takes no memory."""
    return np.broadcast_to(np.uint8(0), spectra.flux.shape)


def load_augmentation(settings: config.Config, grid: Grid, device: torch.device) -> Augmentation:
    """Return the augmentation of a parameter file, its files read."""
    residuals = None
    if settings.augmentation.residuals:
        residuals = _read_residuals(settings.resolve(settings.augmentation.residuals), grid).to(device)
    return Augmentation(settings.augmentation, grid, settings.resolve, residuals, device)


def _read_residuals(path: Path, grid: Grid) -> Tensor:
    """Read spectra of real noise, shape (n, n_pixel)."""
    noise = open_training_set(path)
    if noise.grid != grid:
        raise TrainingError(f"{path}: residuals on {noise.grid}, the training set is on {grid}")
    flux = noise.read_flux(np.arange(len(noise)))
    known = flux[~np.isnan(flux)]
    if not known.size:
        raise TrainingError(f"{path}: residuals must be finite, or NaN where they are not known")
    if abs(level := float(np.median(known))) > 0.5:
        raise TrainingError(f"{path}: residuals lie around 0, their median is {level:.3g}: subtract the continuum")
    return torch.as_tensor(flux)


def resolve_labels(settings: config.Labels, sets: Sequence[TrainingSet]) -> tuple[Label, ...]:
    """Return the labels to infer; names, units and ranges not given come from the training set.

    Raises
    ------
    TrainingError
        If a label is not in the training sets, has several units in them, or does not vary.
    """
    names = settings.names or sets[0].label_names
    stated = {canonical(name): unit for name, unit in zip(sets[0].label_names, sets[0].label_units, strict=True)}
    units = [_unit_of(settings, i, name, stated.get(canonical(name), ""), sets[0].path) for i, name in enumerate(names)]
    widest = np.finfo(float).max
    whole = [Label(name, -widest, widest, unit) for name, unit in zip(names, units, strict=True)]
    values = np.concatenate([pick_labels(part, whole) for part in sets])
    with np.errstate(all="ignore"):
        known = np.isfinite(values).any(axis=0)
        if not known.all():
            raise TrainingError(f"{sets[0].path}: no spectrum has a value of {names[int(np.argmin(known))]}")
        low = settings.low or np.nanmin(values, axis=0)
        high = settings.high or np.nanmax(values, axis=0)
    for i, name in enumerate(names):
        if low[i] >= high[i]:
            raise TrainingError(f"{sets[0].path}: {name} is {low[i]} in every spectrum, there is nothing to learn")
    return tuple(Label(name, low[i], high[i], units[i]) for i, name in enumerate(names))


def _unit_of(settings: config.Labels, i: int, name: str, stated: str, path: Path) -> str:
    """Return the unit of a label: that of the parameters, which must be that of the file, else that of the file."""
    if settings.units:
        asked = settings.units[i]
        if stated and not are_same_unit(asked, stated):
            raise TrainingError(f"{path}: {name} is in '{stated}', labels.units says '{asked}'")
        return asked
    usual = unit_of(name)
    return usual if not stated or (usual and are_same_unit(usual, stated)) else stated


def _open(path: Path, settings: config.Config) -> TrainingSet:
    spectra = open_training_set(path, settings.labels.names or None)
    if not len(spectra):
        raise TrainingError(f"{path}: 0 spectra")
    return spectra


def _require_sigma(spectra: TrainingSet, settings: config.Config) -> None:
    if not settings.augmentation.file_noise:
        return
    rows = evenly(len(spectra), PROBE)
    if spectra.sigma is None or not are_measured(spectra.sigma[rows], spectra.flux[rows]).any():
        raise TrainingError(f"{spectra.path}: no sigma above zero, which augmentation.file_noise needs")


def _require_same_grid(one: TrainingSet, other: TrainingSet) -> None:
    if one.grid != other.grid:
        raise TrainingError(_different_grids(one, other.grid, str(other.path)))


def _different_grids(one: TrainingSet, other: Grid, name: str) -> str:
    return (
        f"{one.path}: {one.grid.n_pixel} pixels, {one.grid}; {name}: {other.n_pixel} pixels, {other}: "
        "all must be on one grid"
    )
