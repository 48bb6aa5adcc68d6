"""From a run directory to a bundle: one frozen network with all that it needs to be used."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anna_onnx import __version__, config
from anna_onnx.arrays import Float32Array, FloatArray, IntArray
from anna_onnx.blocks import Block, Setting
from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import ONE_SIGMA, Calibration
from anna_onnx.card import write_card
from anna_onnx.errors import TrainingError
from anna_onnx.fit import Fit
from anna_onnx.inference import Inference, half_width
from anna_onnx.labels import Label, unscale
from anna_onnx.legacy import open_training_set
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.session import Session
from anna_onnx.sidecar import SelfTest, Sidecar
from anna_onnx.spectrum import Frame
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.batches import CALIBRATION
from anna_onnx.training.calibration import MANY_STARS, Adjustment, features_of, fit_adjustment, fit_calibration
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.comparison import Comparison
from anna_onnx.training.crossfit import cross_fitted_coverage
from anna_onnx.training.familiarity import learn_comparison, learn_familiar
from anna_onnx.training.network import Network
from anna_onnx.training.precision import PRECISIONS, Precision, shorten, store
from anna_onnx.training.task import (
    Examples,
    held_out_set,
    load_augmentation,
    make_examples,
    pixels_of,
    training_set_from_grid,
)
from anna_onnx.trainingset import TrainingSet

# What onnxruntime reads since 2023: its version 1.15 is the first for Python 3.11.
OPSET, IR_VERSION = 18, 8
PARITY = 1e-5  # of a label's range
PARITY_OF_FIT = 1e-2  # of a misfit
BATCHES = (1, 2, 90)
N_CALIBRATION = 12_000  # spectra
MOST_REPEATS = 4
MAX_VALUES = 50_000_000  # of their pixels
IMPERFECT = 0.5
"""Share of the spectra with the imperfections of the training that keep them when errors are calibrated.

Where only some have them, training has more of those than there are, so that the network learns what not to
trust. Errors should hold for spectra that have them and for spectra that have none.
"""
LAYERS = {"aligned": "width", "anna": "fc1", "compact": "dense", "starnet": "fc1"}  # the largest of each network
EMAIL = 10e6  # bytes that mail servers let through


class Frozen(nn.Module):
    """The network as it is exported: physical units out, sigma, how well the spectrum fits, and correlations.

    Parameters
    ----------
    network : Network
    labels : tuple of Label
    sigma : Tensor, shape (n_label,), optional
        Error of each scaled label, for a network that infers none.

    Attributes
    ----------
    comparison : Comparison or None
    adjustment : Adjustment or None
        Of sigma.
    """

    low: Tensor
    span: Tensor
    constant: Tensor

    def __init__(self, network: Network, labels: tuple[Label, ...], sigma: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("low", torch.tensor([label.low for label in labels]))
        self.register_buffer("span", torch.tensor([label.span for label in labels]))
        self.register_buffer("constant", torch.zeros(len(labels)) if sigma is None else sigma)
        self.comparison: Comparison | None = None
        self.adjustment: Adjustment | None = None

    @property
    def output_names(self) -> list[str]:
        """What `forward` returns."""
        given = {
            "labels": True,
            "sigma": True,
            "fit": self.comparison is not None,
            "correlation": self.network.covariance,
        }
        return [name for name, is_given in given.items() if is_given]

    def forward(self, flux: Tensor) -> tuple[Tensor, ...]:
        mean, sigma, fit, correlation = self.scaled(flux)
        if self.adjustment is not None:
            sigma = sigma * self.adjustment(features_of(mean, sigma, fit))
        answers = mean * self.span + self.low, sigma * self.span, fit, correlation
        return tuple(answer for answer in answers if answer is not None)

    def scaled(self, flux: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return mean and sigma of the scaled labels, not yet adjusted, the fit and the correlation."""
        mean, sigma, correlation = self.infer_all(flux)
        return mean, sigma, None if self.comparison is None else self.comparison(flux, mean, sigma), correlation

    def infer(self, flux: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and sigma of the scaled labels, shape (n, n_label)."""
        mean, sigma, _ = self.infer_all(flux)
        return mean, sigma

    def infer_all(self, flux: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the same and the correlation, shape (n, n_label, n_label), None without covariance."""
        mean, sigma, correlation = self.network.combine_all(flux)
        return mean, torch.zeros_like(mean) + self.constant if sigma is None else sigma, correlation


def export(
    run: RunDirectory,
    path: Path,
    precision: Precision = "float32",
    say: Callable[[str], None] = print,
    notes: str = "",
) -> Bundle:
    """Export the best weights of a run.

    Parameters
    ----------
    run : RunDirectory
    path : Path
        ``model.onnx``; the sidecar ``model.h5`` and the card ``model.md`` come beside it.
    precision : {'float32', 'float16', 'int8'}
        How weights are stored; calibration and self-test are made with the network as stored.
    say : callable
        Called with a line for a person to read.
    notes : str
        Markdown for the card: what people should know of the model.

    Raises
    ------
    TrainingError
        If torch and onnxruntime disagree; then nothing is written.
    """
    settings, info, labels = read_run(run)
    network = load_network(run, settings)
    spectra, known_as = calibration_set(settings)
    adjusting, rows = share_out(len(spectra), n_calibration(spectra.grid.n_pixel))
    chosen = calibrating(settings)
    augmentation = load_augmentation(chosen, spectra.grid, torch.device("cpu"))
    examples = draw_examples(settings, spectra, rows, labels, augmentation)
    preparation = describe_preparation(settings, spectra, augmentation, examples)
    frozen = Frozen(network, labels, None if network.uncertainty else rms_of(network, examples)).eval()
    velocities = preparation.velocity_range or (0.0, 0.0)
    frozen.comparison = learn_comparison(settings, labels, spectra, velocities, frozen.infer)
    if network.uncertainty:
        losing = load_augmentation(more_incomplete(chosen), spectra.grid, torch.device("cpu"))
        others = draw_examples(settings, spectra, adjusting, labels, losing, 1, MOST_REPEATS * len(adjusting))
        frozen.adjustment = learn_adjustment(frozen, others, settings.seed)
    sidecar = Sidecar(labels=labels, preparation=preparation, provenance={})
    full = Bundle(path.stem, to_onnx(frozen, spectra.grid.n_pixel), sidecar)
    deviation = require_parity(frozen, full, examples, labels)
    say(f"torch and onnxruntime agree to {deviation:.1e} of a label's range at batches of 1, 2 and 90")

    stored = dataclasses.replace(full, network=store(full.network, precision))
    inferred = infer_examples(stored, examples, spectra.grid)
    novelty, limits, hull = learn_familiar(settings, stored, spectra, frozen.comparison)
    sidecar = dataclasses.replace(
        sidecar,
        calibration=inferred.calibrate(),
        novelty=novelty if precision == "float32" else shorten(novelty),
        fit_limits=limits,
        hull=hull,
        selftest=make_selftest(stored, examples),
    )
    bundle = dataclasses.replace(stored, sidecar=sidecar)
    effect = inferred.compare(infer_examples(full, examples, spectra.grid), labels) if precision != "float32" else {}
    provenance = describe_provenance(run, settings, info, known_as, bundle, inferred, augmentation.template)
    provenance["precision"] = {"stored": precision, **({"effect": effect} if effect else {})}
    names = tuple(label.name for label in labels)
    coverage = cross_fitted_coverage(
        inferred.error,
        inferred.sigma,
        inferred.snr,
        inferred.true,
        known_snr(examples, inferred),
        examples.id,
        names,
    )
    if coverage is not None:
        provenance["coverage"] = coverage.to_dict()
    bundle = write(path, bundle.network, dataclasses.replace(bundle.sidecar, provenance=provenance))
    write_card(bundle, path.with_suffix(".md"), notes)
    for line in describe_size(path, full.network, precision, settings):
        say(line)
    if coverage is not None and (warning := coverage.warning()):
        say(warning)
    return bundle


@torch.no_grad()
def learn_adjustment(frozen: Frozen, examples: Examples, seed: int) -> Adjustment:
    """Return by what sigma must be multiplied for stars of every kind."""
    features, errors = [], []
    for flux, true in zip(torch.split(examples.flux, 500), torch.split(examples.scaled, 500), strict=True):
        mean, sigma, fit, _ = frozen.scaled(flux)
        features.append(features_of(mean, sigma, fit))
        errors.append((mean - true).abs() / sigma)
    with torch.enable_grad():
        return fit_adjustment(torch.cat(features), torch.cat(errors), len(np.unique(examples.id)), seed)


def describe_size(path: Path, full: bytes, precision: Precision, settings: config.Config) -> list[str]:
    """Return what to say of the size of a file that was written, and what would make it smaller.

    Parameters
    ----------
    path : Path
        The file.
    full : bytes
        Its network in float32.
    precision : {'float32', 'float16', 'int8'}
        How it is stored now.
    settings : config.Config
    """
    size = path.stat().st_size
    lines = [f"{path}: {size / 1e6:.1f} MB with its sidecar inside, weights stored as {precision}"]
    if size > EMAIL:
        carried = len(base64.b64encode(path.with_suffix(".h5").read_bytes()))
        smaller = PRECISIONS[PRECISIONS.index(precision) + 1 :]
        sizes = [f"--precision {name}: about {(len(store(full, name)) + carried) / 1e6:.1f} MB" for name in smaller]
        layers = f"[network] {LAYERS[settings.network.architecture]}"
        sizes.append(f"a smaller {layers} (and train again) shrinks it most")
        lines.append(f"more than {EMAIL / 1e6:.0f} MB may be too large for an e-mail; {'; '.join(sizes)}")
    return lines


def read_run(run: RunDirectory) -> tuple[config.Config, dict[str, Any], tuple[Label, ...]]:
    """Return the parameters of a run, what run.json says, and its labels."""
    return run.settings(), run.read_info(), run.labels()


def load_network(run: RunDirectory, settings: config.Config) -> Network:
    """Return the network of a run with its best weights, ready to infer."""
    weights, _ = run.load_best()
    n_pixel = weights["inputs.fill"].numel()
    network = Network(n_pixel, len(run.labels()), settings.network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        found = str(error).splitlines()[-1].strip()
        raise TrainingError(
            f"{run.path}: the weights do not fit the network that its parameters name: {found}"
        ) from error
    return network.eval()


def calibration_set(settings: config.Config) -> tuple[TrainingSet, str]:
    """Return the spectra that errors are calibrated on, and what they are.

    The validation set, what was split off from the training set, or fresh stars of the grid; without any
    of them the test set, on which errors then look better than they are, or even the training set.
    """
    if settings.data.grid and not _is_file(settings, settings.data.validation):
        instrument = {
            key: value for key in ("fwhm", "resolution") if (value := getattr(settings.data, key)) is not None
        }
        stars = training_set_from_grid(settings, 2 * n_calibration(pixels_of(settings).n_pixel))
        return dataclasses.replace(stars, attrs=instrument), "stars drawn from the grid"
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


def calibrating(settings: config.Config) -> config.Config:
    """Return the parameters with the augmentation that errors are calibrated with."""
    trained = settings.augmentation.imperfect
    imperfect = IMPERFECT * trained if trained < 1 else trained
    return dataclasses.replace(settings, augmentation=dataclasses.replace(settings.augmentation, imperfect=imperfect))


def share_out(n_spectrum: int, most: int) -> tuple[IntArray, IntArray]:
    """Return the rows that sigma is adjusted on, and those that it is calibrated on: the same where there are few."""
    rows = np.arange(n_spectrum)
    half = n_spectrum // 2
    return (rows[:half][:most], rows[half:][:most]) if half >= MANY_STARS else (rows[:most], rows[:most])


def more_incomplete(settings: config.Config) -> config.Config:
    """Return parameters with which more of the spectra lack a part of the wavelengths."""
    augmentation = settings.augmentation
    more = dataclasses.replace(augmentation, incomplete=(1 + augmentation.incomplete) / 2)
    return dataclasses.replace(settings, augmentation=more)


def draw_examples(
    settings: config.Config,
    spectra: TrainingSet,
    rows: IntArray,
    labels: tuple[Label, ...],
    augmentation: Augmentation,
    draw: int = 0,
    n: int | None = None,
) -> Examples:
    """Draw about n augmented spectra, those of a small set up to four times; by default what calibration takes."""
    n = n_calibration(spectra.grid.n_pixel) if n is None else n
    repeats = max(1, min(MOST_REPEATS, n // len(rows)))
    chosen, column = np.tile(rows, repeats), settings.data.radial_velocity_column
    return make_examples([spectra], chosen, labels, augmentation, settings.seed + draw, CALIBRATION, column)


@torch.no_grad()
def rms_of(network: Network, examples: Examples) -> Tensor:
    """Return the RMS error of each scaled label, shape (n_label,)."""
    mean = torch.cat([network.combine(flux)[0] for flux in torch.split(examples.flux, 500)])
    return (mean - examples.scaled).square().nanmean(dim=0).sqrt()


def to_onnx(frozen: Frozen, n_pixel: int) -> bytes:
    """Return the network as one ONNX file with a free batch size.

    Traced at a batch of 2: a batch of 1 would be frozen into the graph.
    """
    with _quiet():
        program = torch.onnx.export(
            frozen,
            (torch.ones(2, n_pixel),),
            input_names=["flux"],
            output_names=frozen.output_names,
            dynamic_shapes={"flux": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    # The exporter notes where in the source each operation came from: paths of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about packages it could use."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@torch.no_grad()
def require_parity(frozen: Frozen, bundle: Bundle, examples: Examples, labels: tuple[Label, ...]) -> float:
    """Return the largest difference between torch and onnxruntime, in label ranges; refuse a large one."""
    span = np.array([label.span for label in labels])
    session, names = Session(bundle), frozen.output_names
    worst, units = [0.0], {"labels": span, "sigma": span, "correlation": 1.0}
    for n in BATCHES:
        flux = examples.flux[:n]
        ours = dict(zip(names, (answer.numpy() for answer in frozen(flux)), strict=True))
        theirs = dict(zip(names, session.run_whole(flux.numpy()), strict=True))
        apart = (np.abs(ours[name] - theirs[name]).max(axis=0) / units[name] for name in names if name in units)
        worst += [float(difference.max()) for difference in apart]
        if "fit" in names:
            misfit, other = Fit.of(ours["fit"]).misfit, Fit.of(theirs["fit"]).misfit
            if not np.allclose(misfit, other, rtol=PARITY_OF_FIT):
                raise TrainingError(f"onnxruntime finds misfits of {other.tolist()}, torch {misfit.tolist()}")
    if not (largest := float(np.max(worst))) <= PARITY:
        raise TrainingError(f"onnxruntime differs from torch by {largest:.1e} of a label's range, allowed {PARITY}")
    return largest


@dataclasses.dataclass(frozen=True, eq=False)
class Inferred:
    """What inference makes of examples whose labels are known.

    Attributes
    ----------
    flux : array of float32, shape (n, n_pixel)
        As the network saw it.
    values, sigma, true : arrays, shape (n, n_label)
        In the labels' units; sigma is the network's.
    snr : array, shape (n,)
        As inference measures it.
    flags : array of int64, shape (n,)
        Bits of `anna_onnx.flags.Flag`.
    correlation : array, shape (n, n_label, n_label), or None
        Of the errors, if the network infers it.
    """

    flux: Float32Array
    values: FloatArray
    sigma: FloatArray
    true: FloatArray
    snr: FloatArray
    flags: IntArray
    correlation: FloatArray | None

    @property
    def error(self) -> FloatArray:
        """Inferred minus true."""
        return self.values - self.true

    def calibrate(self) -> Calibration:
        """Return the factors on sigma that make honest intervals."""
        return fit_calibration(self.error, self.sigma, self.snr)

    def compare(self, full: Inferred, labels: tuple[Label, ...]) -> dict[str, dict[str, float]]:
        """Return what storing the weights small does to each label, in its unit.

        Parameters
        ----------
        full : Inferred
            The same examples with the weights in float32.

        Returns
        -------
        effect : dict
            Of each label: the rms error with float32 (`rms_float32`), as stored (`rms`), and the rms of
            the difference that storing makes (`difference`).
        """
        columns = {
            "rms_float32": _rms(full.error),
            "rms": _rms(self.error),
            "difference": _rms(self.values - full.values),
        }
        return {
            label.name: {name: float(column[i]) for name, column in columns.items()} for i, label in enumerate(labels)
        }


def _rms(values: FloatArray) -> FloatArray:
    """Return the rms of each column, over what is known."""
    return np.asarray(np.sqrt(np.nanmean(values**2, axis=0)))


def infer_examples(bundle: Bundle, examples: Examples, grid: Grid) -> Inferred:
    """Infer examples on the road that real spectra take."""
    flux, n = examples.flux.cpu().numpy(), len(examples.flux)
    # Spectra of a set may have radial velocities.
    frame: Frame = "rest" if bundle.sidecar.preparation.velocity_range is None else "unknown"
    setting = Setting(grid.wavelength, grid.medium, frame, None)
    block = Block(setting, flux, None, None, None, [""] * n, [""] * n, [None] * n, [None] * n, [()] * n)
    found = Inference(bundle).look(block)
    return Inferred(
        flux=found.prepared.flux,
        values=found.values,
        sigma=found.sigma,
        true=unscale(examples.scaled.cpu().numpy().astype(np.float64), bundle.sidecar.labels),
        snr=found.prepared.snr,
        flags=found.flags,
        correlation=found.correlation,
    )


def known_snr(examples: Examples, inferred: Inferred) -> FloatArray:
    """Return the S/N of the noise in examples; as inference measures it where nothing says what it is."""
    snr = examples.snr.cpu().numpy().astype(np.float64)
    return np.where(np.isfinite(snr), snr, inferred.snr)


def make_selftest(bundle: Bundle, examples: Examples, n: int = 8) -> SelfTest:
    """Return a few spectra, rounded so that they compress well, and the answers of this machine."""
    flux = examples.flux[:n].cpu().numpy().astype(np.float16).astype(np.float32)
    labels, sigma, *_ = Session(bundle).run(flux)
    return SelfTest(flux, labels.astype(np.float32), sigma.astype(np.float32))


def unseen_pixels(examples: Examples) -> tuple[tuple[int, int], ...]:
    """Return first and last of the pixels that no example has: masked regions, bad columns, gaps between chips."""
    missing = examples.flux.isnan().all(dim=0).cpu().numpy()
    edges = np.flatnonzero(np.diff(missing, prepend=False, append=False))
    return tuple((int(first), int(last) - 1) for first, last in edges.reshape(-1, 2))


def describe_preparation(
    settings: config.Config, spectra: TrainingSet, augmentation: Augmentation, examples: Examples
) -> Preparation:
    """Return the preparation that matches how the network was trained; that of `anna pack` where it made the set.

    Parameters
    ----------
    settings : config.Config
    spectra : TrainingSet
        That errors are calibrated on.
    augmentation : Augmentation
    examples : Examples
        Of these, as the network sees them.
    """
    packed = spectra.attrs.get("preparation")
    made = Preparation(spectra.grid, frame="rest")
    if packed is not None:
        made = Preparation.from_dict(json.loads(str(packed)), spectra.grid)
    return dataclasses.replace(
        made,
        resolution=made.resolution or _resolution(spectra),
        velocity_range=_velocity_range(spectra, settings),
        min_coverage=min(made.min_coverage, _least_coverage(settings.augmentation)),
        snr_range=augmentation.snr_range or made.snr_range,
        unseen=unseen_pixels(examples),
    )


def _least_coverage(settings: config.Augmentation) -> float:
    """Return the least fraction of the pixels that one kind of loss leaves: all but one stretch, or all but many."""
    (_, gap), (_, single) = settings.gaps or (0.0, 0.0), settings.missing_pixels or (0.0, 0.0)
    return max(min(settings.coverage[0] if settings.coverage else 1.0, 1 - gap - single), 0.0)


def _resolution(spectra: TrainingSet) -> float | None:
    """Return the resolving power of a simulated set; at its centre where the width is constant in wavelength.

    None of spectra without an instrument, whose width is 0.
    """
    if "resolution" in spectra.attrs:
        return float(spectra.attrs["resolution"])
    if spectra.attrs.get("fwhm"):
        return float(spectra.grid.wavelength.mean() / spectra.attrs["fwhm"])
    return None


def _velocity_range(spectra: TrainingSet, settings: config.Config) -> tuple[float, float] | None:
    """Return the radial velocities that the network has seen: those of the spectra, and the shifts on top."""
    low, high = settings.augmentation.radial_velocity or (0.0, 0.0)
    velocity = spectra.radial_velocity(settings.data.radial_velocity_column)
    if settings.data.grid:
        low, high = low + settings.data.radial_velocity[0], high + settings.data.radial_velocity[1]
    elif velocity is not None and (known := velocity[np.isfinite(velocity)]).size:
        low, high = low + float(known.min()), high + float(known.max())
    return None if low == high else (low, high)


def describe_provenance(
    run: RunDirectory,
    settings: config.Config,
    info: dict[str, Any],
    known_as: str,
    bundle: Bundle,
    inferred: Inferred,
    snr_template: Tensor,
) -> dict[str, Any]:
    """Return all that a reader of the model should know of its making."""
    error = inferred.error
    width = half_width(bundle, inferred.sigma, inferred.snr, ONE_SIGMA)
    inside = np.where(np.isfinite(error), np.abs(error) <= width, np.nan)
    names = [label.name for label in bundle.sidecar.labels]
    template = [round(float(value), 6) for value in snr_template] if settings.augmentation.snr_template else []
    return {
        "name": bundle.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
        "params": settings.text,
        **({"snr_template": template} if template else {}),
        "architecture": settings.network.architecture,
        "parameters": info.get("parameters"),
        "steps": info.get("steps"),
        "best_step": info.get("best_step"),
        "training_seconds": info.get("seconds"),
        "seed": settings.seed,
        "data": info["data"],
        "versions": {**info["versions"], "anna-onnx": __version__},
        "hardware": info["hardware"],
        **({"covariance": True} if settings.network.covariance else {}),
        "calibrated_on": known_as,
        "metrics": {
            name: {
                "bias": float(np.nanmean(column)),
                "scatter": float(np.nanstd(column)),
                "robust_scatter": float(1.4826 * np.nanmedian(np.abs(column - np.nanmedian(column)))),
                "rms": float(np.sqrt(np.nanmean(column**2))),
                "coverage_68": float(np.nanmean(held)),
            }
            for name, column, held in zip(names, error.T, inside.T, strict=True)
        },
    }
