"""From frozen.model to a bundle: the old network as ONNX, with everything needed to use it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anna_onnx import bundle
from anna_onnx._version import __version__
from anna_onnx.arrays import Float32Array
from anna_onnx.card import write_card
from anna_onnx.errors import LegacyError, SpectrumError
from anna_onnx.labels import Label, scale
from anna_onnx.legacy.binary import open_training_set
from anna_onnx.legacy.frozen import FrozenNetwork, network_from_frozen
from anna_onnx.legacy.graph import onnx_bytes
from anna_onnx.legacy.parameters import Parameters, read_parameters, standard_names
from anna_onnx.legacy.residuals import read_test_stats
from anna_onnx.legacy.translation import params_toml
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import SelfTest, Sidecar
from anna_onnx.snrtemplate import of_median_pixel

AGREEMENT = 1e-5
"""Largest deviation from NumPy's answers, in ranges of the labels, that a converted network may have."""


def convert_frozen(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    parameters: str | os.PathLike[str],
    wavelengths: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    keep_names: bool = False,
    medium: Literal["air", "vacuum"] = "air",
    test_stats: str | os.PathLike[str] | None = None,
) -> tuple[str, ...]:
    """Convert a frozen.model to model.onnx and model.h5, without TensorFlow.

    Parameters
    ----------
    source, target : path-like
    parameters : path-like
        The ANNA.param of the training: names and ranges of the labels.
    wavelengths : path-like
        Where the pixels are: a text file whose first column are the
        wavelengths (WAVE_TEMPLATE), or a training set.
    names : sequence of str, optional
        Names of the labels instead of those in `parameters`.
    keep_names : bool
        Keep the old names of the labels instead of the standard ones.
    medium : {'air', 'vacuum'}
        Of the wavelengths.
    test_stats : path-like, optional
        test_stats.out of the old program, whose residuals tell the errors.

    Returns
    -------
    notes : tuple of str
        What was found and what is not known.

    Raises
    ------
    LegacyError
        If the files are damaged or do not fit together.
    MissingExtraError
        If the package onnx is not installed.
    """
    source, target = Path(source), Path(target)
    network = network_from_frozen(source)
    old = read_parameters(parameters)
    labels = _labels(network, old, standard_names(names or old.names, keep_names))
    grid, flux = _read_wavelengths(Path(wavelengths), network, medium)
    residuals = None if test_stats is None else read_test_stats(test_stats, old.names)
    content = onnx_bytes(network, labels, None if residuals is None else residuals.rms)
    selftest, deviation = _check(content, network, labels, flux)
    training, training_note = _describe_training(old, target, labels, grid)
    snr_range = _snr_range(old, training)
    sidecar = Sidecar(
        labels=labels,
        preparation=Preparation(grid, snr_range=snr_range, interpolation="linear"),  # as the old program does
        selftest=selftest,
        provenance={**_describe_conversion(source, target, network, old), **training},
    )
    error_note = "errors: not known, all NaN: give --test-stats test_stats.out"
    if residuals is not None:
        sidecar = replace(
            sidecar,
            calibration=residuals.calibration(snr_range),
            provenance={**sidecar.provenance, **residuals.describe(labels)},
        )
        error_note = f"errors: from the residuals of {residuals.n} stars in {residuals.name}"
    write_card(bundle.write(target, content, sidecar), target.with_suffix(".md"))
    return (
        f"network: {network}",
        f"largest deviation from the old weights applied by NumPy: {deviation:.1e} of a label's range",
        f"wavelengths: {grid}",
        error_note,
        *training_note,
    )


def _labels(network: FrozenNetwork, old: Parameters, names: Sequence[str]) -> tuple[Label, ...]:
    """Return the labels with their ranges, if the parameters fit the network."""
    if (n_pixel := old.values.get("NUM_PX", network.n_pixel)) != network.n_pixel:
        raise LegacyError(f"{old.path}: NUM_PX is {n_pixel}, but the network has {network.n_pixel} pixels")
    missing = [key for key in ("MIN_PARAMS", "MAX_PARAMS") if key not in old.values]
    if missing:
        raise LegacyError(f"{old.path}: no {' and no '.join(missing)}, the ranges of the labels")
    low, high = old.values["MIN_PARAMS"], old.values["MAX_PARAMS"]
    if not len(names) == len(low) == len(high) == network.n_label:
        raise LegacyError(
            f"{old.path}: {len(names)} names, {len(low)} minima and {len(high)} maxima, "
            f"but the network has {network.n_label} labels"
        )
    return tuple(Label(*values) for values in zip(names, low, high, strict=True))


def _read_wavelengths(
    path: Path, network: FrozenNetwork, medium: Literal["air", "vacuum"]
) -> tuple[Grid, Float32Array | None]:
    """Return the pixels, and a spectrum on them when the file has one."""
    try:
        with path.open("rb") as file:
            is_text = b"\0" not in file.read(4096)
        if is_text:
            columns = np.loadtxt(path, ndmin=2)
            grid = Grid(columns[:, 0], medium)
            flux = columns[None, :, 1].astype(np.float32) if columns.shape[1] > 1 else None
        else:
            training_set = open_training_set(path)
            grid, flux = training_set.grid, np.asarray(training_set.flux[:1], dtype=np.float32)
    except (OSError, ValueError, SpectrumError) as error:
        raise LegacyError(f"{path}: no wavelengths in its first column ({error})") from error
    if grid.n_pixel != network.n_pixel:
        raise LegacyError(f"{path}: {grid.n_pixel} wavelengths, but the network has {network.n_pixel} pixels")
    return grid, flux


def _check(
    content: bytes, network: FrozenNetwork, labels: Sequence[Label], flux: Float32Array | None
) -> tuple[SelfTest, float]:
    """Compare the ONNX network with NumPy on a few spectra, which become the self-test.

    Raises
    ------
    LegacyError
        If they disagree.
    """
    import onnxruntime

    noise = np.random.default_rng(1).normal(1, 0.05, (4, network.n_pixel)).astype(np.float32)
    spectra = np.concatenate([np.ones((1, network.n_pixel), np.float32), noise, *([flux] if flux is not None else [])])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found, sigma = session.run(["labels", "sigma"], {"flux": spectra})
    deviation = float(np.abs(scale(found, labels) - network.infer(spectra)).max())
    if not deviation <= AGREEMENT:
        raise LegacyError(f"the converted network deviates from the old one by {deviation:.1e} of a label's range")
    return SelfTest(flux=spectra, labels=found, sigma=sigma), deviation


def _describe_conversion(source: Path, target: Path, network: FrozenNetwork, old: Parameters) -> dict[str, Any]:
    return {
        "name": target.stem,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": f"{source.name} of ANNA (TensorFlow 1), converted",
        "architecture": "anna",
        "parameters": sum(weight.size for weight in vars(network).values()),
        "data": {"network": {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}},
        "versions": {"anna-onnx": __version__},
        "anna_param": old.path.read_bytes().decode("utf-8", errors="replace"),
    }


def _snr_range(old: Parameters, training: dict[str, Any]) -> tuple[float, float] | None:
    """Return the S/N of a median pixel in training, whose noise was multiplied by the template."""
    if not old.is_on("PREPROCESS_TRAIN") or "SN_RANGE_TRAIN" not in old.values:
        return None
    return of_median_pixel(old.values["SN_RANGE_TRAIN"], np.median(training.get("snr_template", 1.0)))


def _describe_training(
    old: Parameters, target: Path, labels: Sequence[Label], grid: Grid
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return how the network was trained, which 'anna test' repeats, or a note why that cannot be said.

    The old program multiplied the noise by the template, and so did this network's training.
    """
    facts: dict[str, Any] = {}
    try:
        facts["params"] = params_toml(old, target, [label.name for label in labels], legacy_noise=True)
        if old.is_on("PREPROCESS_TRAIN"):
            template = np.loadtxt(old.path.parent / old.values["SN_TEMPLATE"])
            facts["snr_template"] = np.interp(grid.wavelength, template[:, 0], template[:, 1]).tolist()
    except (LegacyError, OSError, ValueError, IndexError) as error:
        return {}, (f"how it was trained is not in the model, 'anna test' needs --as-is: {error}",)
    return facts, ()
