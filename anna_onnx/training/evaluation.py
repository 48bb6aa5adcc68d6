"""Testing a model on spectra whose labels are known, with the noise of the training drawn anew."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from anna_onnx.arrays import FloatArray
from anna_onnx.assessment import (
    Assessment,
    Statistics,
    bound_text,
    known_from_training,
    summary_text,
    within_ranges,
)
from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.errors import GridError, TrainingError
from anna_onnx.files import make_folder, replacing
from anna_onnx.labels import canonical, scale
from anna_onnx.legacy import open_training_set
from anna_onnx.limit import star_bounds
from anna_onnx.origin import grid_of, instrument_of, settings_of, template_of
from anna_onnx.progress import Progress, silent
from anna_onnx.report import write_report
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.calibration import fit_trends
from anna_onnx.training.checkpoint import hash_file
from anna_onnx.training.examples import Examples, infer_examples, make_examples
from anna_onnx.trainingset import TrainingSet


@dataclass(frozen=True)
class BoundOptions:
    """Of what the Cramér-Rao bound is computed.

    Parameters
    ----------
    grid : str, optional
        Grid of synthetic spectra, a file or ``default``; see `anna_onnx.origin.grid_of`.
    fwhm, resolution : float, optional
        Of the instrument, Angstrom or wavelength / FWHM; by default what the model says of it.
    """

    grid: str | None = None
    fwhm: float | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        if self.fwhm is not None and self.resolution is not None:
            raise GridError("both --fwhm and --resolution: give one of them")
        if not (self.fwhm or 0.0) >= 0:
            raise GridError(f"a FWHM of {self.fwhm:g} Å, needed zero or above")
        if self.resolution is not None and not self.resolution > 0:
            raise GridError(f"a resolving power of {self.resolution:g}, needed one above zero")


def evaluate_model(
    bundle: Bundle,
    data: Path | None = None,
    *,
    augment: bool = True,
    snr: tuple[float, float] | None = None,
    seed: int = 1,
    bound: BoundOptions | None = None,
    progress: Progress = silent,
) -> Assessment:
    """Infer a training set whose labels are known, and compare.

    Parameters
    ----------
    bundle : Bundle
    data : Path, optional
        Training set on the model's grid, .h5 or legacy .bin; by default the
        data.test of the parameters that the model carries, in the working folder.
    augment : bool
        Add the noise and continuum errors of the training, anew from `seed`.
    snr : (low, high), optional
        In place of the training's range of S/N.
    seed : int
    bound : BoundOptions, optional
        Also compute the Cramér-Rao bound of every star; ``about["bound"]`` says of what, or
        why that was not possible with the model's own grid.
    progress : Progress
        Of the bound.

    Returns
    -------
    Assessment
        Of every star; its `within` is that of the stars within the ranges of the labels.

    Raises
    ------
    TrainingError
        If the set is on another grid, empty or without a star within the ranges of the labels, `snr` is no range, or
        the model does not know how it was trained.
    GridError
        If the grid that was asked for gives no bound.
    """
    sidecar = bundle.sidecar
    data = data or _test_set_of(bundle)
    spectra = open_training_set(data, [label.name for label in sidecar.labels])
    if spectra.grid != sidecar.grid:
        raise TrainingError(
            f"{data}: {spectra.grid.n_pixel} pixels, {spectra.grid}; "
            f"the model has {sidecar.grid.n_pixel}, {sidecar.grid}"
        )
    if not len(spectra):
        raise TrainingError(f"{data}: 0 spectra")
    if snr is not None and not 0 < snr[0] <= snr[1] < np.inf:
        raise TrainingError(f"S/N {snr[0]:g} to {snr[1]:g} is no range above zero")
    augmentation = _augmentation_of(bundle, snr) if augment else None
    rows, column = np.arange(len(spectra)), _velocity_column_of(bundle)
    examples = make_examples([spectra], rows, sidecar.labels, augmentation, seed, velocity_column=column)
    if examples.flux.isnan().all():
        raise TrainingError(f"{data}: the flux is NaN or masked in every pixel")
    inferred = infer_examples(bundle, examples)
    inside = within_ranges(inferred.true, sidecar.labels)
    if not inside.any():
        raise TrainingError(f"{data}: no star lies within the ranges of the model's labels")
    about = _describe(data, augmentation, seed)
    found = Assessment(
        bundle=bundle,
        id=examples.id,
        flux=inferred.flux,
        true=inferred.true,
        values=inferred.values,
        sigma=inferred.sigma,
        snr=inferred.known_snr,
        measured_snr=inferred.snr,
        flags=inferred.flags,
        trends=fit_trends(scale(inferred.values, sidecar.labels)[inside], scale(inferred.true, sidecar.labels)[inside]),
        about=about,
        notes=known_from_training(bundle, data.name, about["its sha256"]),
    )
    if inferred.correlation is not None:
        correlation = inferred.correlation[inside]
        joint = joint_coverage(found.error[inside], found.half_width(ONE_SIGMA)[inside], correlation)
        found = dataclasses.replace(found, joint_coverage=joint)
    return found if bound is None else _with_bound(found, spectra, examples, augmentation, bound, progress)


def joint_coverage(error: FloatArray, half_width: FloatArray, correlation: FloatArray) -> float:
    """Return how often the 68 % ellipsoid of all labels together holds the truth; NaN where all are never known.

    Parameters
    ----------
    error, half_width : arrays, shape (n, n_label)
        Inferred minus true, and the calibrated 68 % errors.
    correlation : array, shape (n, n_label, n_label)
    """
    from scipy.special import chdtri

    pull = error / half_width
    known = np.isfinite(pull).all(axis=1)
    pull = pull[known]
    squared = (pull * np.linalg.solve(correlation[known], pull[..., np.newaxis])[..., 0]).sum(axis=1)
    inside = squared <= chdtri(error.shape[1], 1 - ONE_SIGMA)
    return float(inside.mean()) if inside.size else np.nan


def _test_set_of(bundle: Bundle) -> Path:
    """Return the test set that the parameters of a model name."""
    settings = settings_of(bundle)
    name = None if settings is None else settings.data.test
    if name is None:
        raise TrainingError(
            f"{bundle.name}: its parameters name no data.test; say on what to test it: anna test MODEL DATA"
        )
    return Path(name)


def _velocity_column_of(bundle: Bundle) -> str | None:
    """Return the column of radial velocities that the parameters of a model name."""
    settings = settings_of(bundle)
    return None if settings is None else settings.data.radial_velocity_column


def _augmentation_of(bundle: Bundle, snr: tuple[float, float] | None) -> Augmentation:
    """Return the augmentation of the training, from the parameters that the model carries."""
    made = settings_of(bundle)
    if made is None:
        raise TrainingError(f"{bundle.name}: does not carry its training parameters; test it with --as-is")
    settings = dataclasses.replace(made.augmentation, snr=snr or made.augmentation.snr, residuals=None)
    template = torch.tensor(template_of(bundle), dtype=torch.float32)
    return Augmentation(settings, bundle.sidecar.grid, template=template)


def _describe(data: Path, augmentation: Augmentation | None, seed: int) -> dict[str, str]:
    """Return how the test was made."""
    noise = "as the spectra came"
    if augmentation is not None:
        snr = augmentation.settings.snr
        noise = f"augmented as in training, seed {seed}" + (f", S/N {snr[0]:g}-{snr[1]:g}" if snr else "")
    return {
        "test set": data.name,
        "its sha256": hash_file(data),
        "spectra": noise,
        "date of the test": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _with_bound(
    found: Assessment,
    spectra: TrainingSet,
    examples: Examples,
    augmentation: Augmentation | None,
    options: BoundOptions,
    progress: Progress,
) -> Assessment:
    """Add the bound of every star; where no grid was asked for and there is none that fits, say why."""
    try:
        values, source = _bound_of(found, spectra, examples, augmentation, options, progress)
    except GridError as error:
        if options.grid is not None:
            raise
        return dataclasses.replace(found, about={**found.about, "bound": f"not computed: {error}"})
    return dataclasses.replace(found, bound=values, about={**found.about, "bound": source})


def _bound_of(
    found: Assessment,
    spectra: TrainingSet,
    examples: Examples,
    augmentation: Augmentation | None,
    options: BoundOptions,
    progress: Progress,
) -> tuple[FloatArray, str]:
    """Return the bounds, shape (n, n_label), and of what they are."""
    grid = grid_of(found.bundle, options.grid or _grid_beside(spectra))
    instrument = instrument_of(found.bundle, options.fwhm, options.resolution) or _instrument_of(spectra)
    if instrument is None:
        raise GridError("nothing says how sharp the spectra are: give --fwhm or --resolution")
    snr, template = _snr_of(examples, augmentation)
    velocity = spectra.radial_velocity(_velocity_column_of(found.bundle))
    known = examples.flux.isfinite().cpu().numpy()
    if not np.isfinite(snr[known.any(axis=1)]).all():
        raise GridError("the noise of the spectra is not known: they are as they came, without sigma")
    bounds = star_bounds(
        grid,
        found.bundle.sidecar.grid,
        {canonical(name): column for name, column in zip(spectra.label_names, spectra.labels.T, strict=True)},
        snr,
        rv=0.0 if velocity is None else np.nan_to_num(velocity),
        template=template,
        known=known,
        ranges={canonical(label.name): (label.low, label.high) for label in found.labels},
        fwhm=instrument.get("fwhm"),
        resolution=instrument.get("resolution"),
        progress=progress,
    )
    what = ", ".join(f"{name} {value:g}" for name, value in instrument.items())
    source = f"{grid.path.name}, {what}; radial velocity, continuum offset and the other labels unknown"
    return np.stack([bounds[canonical(label.name)] for label in found.labels], axis=1), source


def _grid_beside(spectra: TrainingSet) -> str | None:
    """Return the grid that a simulated set was drawn from, if it is in the folder of the set."""
    name = spectra.attrs.get("grid")
    beside = spectra.path.parent / str(name)
    return str(beside) if name and beside.is_file() else None


def _instrument_of(spectra: TrainingSet) -> dict[str, float] | None:
    """Return the instrument of a simulated set."""
    return next(({name: float(spectra.attrs[name])} for name in ("fwhm", "resolution") if name in spectra.attrs), None)


def _snr_of(examples: Examples, augmentation: Augmentation | None) -> tuple[FloatArray, FloatArray | None]:
    """Return the S/N of the noise in the spectra, where the template is 1, and that template."""
    snr = examples.snr.cpu().numpy().astype(np.float64)
    if augmentation is None or not augmentation.settings.snr:
        return snr, None
    noise = augmentation.template if augmentation.settings.legacy_noise else 1 / augmentation.template
    return snr * float(noise.median()), (1 / noise).numpy().astype(np.float64)


def write_evaluation(found: Assessment, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Write test_stats.csv with every star, summary.csv and report.html with those within the ranges of the labels.

    Returns
    -------
    Path
        Of the report.
    """
    make_folder(folder)
    _write_csv(folder / "test_stats.csv", *_star_table(found))
    found = found.within
    header = [item.name for item in dataclasses.fields(Statistics)]
    _write_csv(folder / "summary.csv", header, [list(dataclasses.astuple(one)) for one in found.statistics])
    say(summary_text(found))
    if text := bound_text(found) or _no_bound(found):
        say(text)
    for note in found.notes:
        say(note)
    report = folder / "report.html"
    write_report(found, report)
    return report


def _no_bound(found: Assessment) -> str:
    return f"Cramér-Rao bound {found.about['bound']}" if "bound" in found.about else ""


def store_trends(found: Assessment, path: Path) -> Bundle:
    """Write the residual trends into a model, for inference to take out when asked."""
    sidecar = dataclasses.replace(found.bundle.sidecar, trends=found.trends)
    return write(path, found.bundle.network, sidecar)


def _star_table(found: Assessment) -> tuple[list[str], list[list[object]]]:
    """Return the old program's test_stats, with errors: id, true, inferred, residual and error of every label."""
    names = [label.name for label in found.labels]
    columns = {"true": found.true, "inferred": found.values, "d": found.error, "e": found.half_width(ONE_SIGMA)}
    if found.bound is not None:
        columns["bound"] = found.bound
    header = ["star_id", *(f"{kind}_{name}" for kind in columns for name in names), "snr", "flag_bits"]
    numbers = np.concatenate(list(columns.values()), axis=1)
    rows = [
        [star, *(f"{value:.8g}" for value in row), f"{snr:.5g}", int(flags)]
        for star, row, snr, flags in zip(found.id, numbers, found.snr, found.flags, strict=True)
    ]
    return header, rows


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
