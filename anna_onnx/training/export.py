"""From a run directory to a bundle: one frozen network with all that it needs to be used."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anna_onnx import __version__, config
from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.card import write_card
from anna_onnx.files import EMAIL
from anna_onnx.inference import half_width
from anna_onnx.scatter import describe, known_mean, rms
from anna_onnx.session import Session
from anna_onnx.sidecar import SelfTest, Sidecar
from anna_onnx.training.calibration_set import calibration_examples, calibration_set
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.comparison import Comparison
from anna_onnx.training.examples import Examples, Inferred, infer_examples
from anna_onnx.training.familiarity import learn_familiar
from anna_onnx.training.frozen import freeze, load_network, require_parity, to_onnx
from anna_onnx.training.precision import PRECISIONS, Precision, shorten, store
from anna_onnx.training.seen import describe_preparation, without_pixels
from anna_onnx.training.task import load_augmentation
from anna_onnx.trainingset import TrainingSet

LAYERS = {"aligned": "width", "anna": "fc1", "compact": "dense", "starnet": "fc1"}  # the largest of each network
N_SELFTEST = 8  # spectra


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
        Markdown for the card and the page: what people should know of the model.

    Raises
    ------
    TrainingError
        If torch and onnxruntime disagree; then nothing is written.
    """
    settings, labels, network = run.settings(), run.labels(), load_network(run)
    spectra, known_as = calibration_set(settings)
    augmentation = load_augmentation(settings, spectra.grid, torch.device("cpu"))
    preparation = describe_preparation(settings, labels, spectra, augmentation)
    settings = without_pixels(settings, preparation.unseen)
    examples = calibration_examples(settings, spectra, labels)
    frozen = freeze(network, settings, labels, spectra, examples, preparation.velocity_range or (0.0, 0.0))
    full = Bundle(path.stem, to_onnx(frozen, spectra.grid.n_pixel), Sidecar(labels, preparation, provenance={}))
    deviation = require_parity(frozen, full, examples)
    say(f"torch and onnxruntime agree to {deviation:.1e} of a label's range at batches of 1, 2 and 90")

    stored = dataclasses.replace(full, network=store(full.network, precision))
    inferred = infer_examples(stored, examples)
    bundle = equip(stored, precision, settings, spectra, frozen.comparison, inferred)
    coverage = inferred.measure_coverage()
    provenance = {
        **describe_training(run, path.stem, augmentation.template),
        "calibrated_on": known_as,
        "metrics": measure_errors(bundle, inferred),
        "precision": describe_storage(precision, inferred, full),
        **({} if coverage is None else {"coverage": coverage.to_dict()}),
        **({"notes": notes} if notes else {}),
    }
    bundle = write(path, bundle.network, dataclasses.replace(bundle.sidecar, provenance=provenance))
    write_card(bundle, path.with_suffix(".md"))
    for line in describe_size(path, full.network, precision, settings):
        say(line)
    if coverage is not None and (warning := coverage.warning()):
        say(warning)
    return bundle


def equip(
    bundle: Bundle,
    precision: Precision,
    settings: config.Config,
    spectra: TrainingSet,
    comparison: Comparison | None,
    inferred: Inferred,
) -> Bundle:
    """Return a bundle with all that inference needs of errors and of what is familiar, and with a self-test.

    Parameters
    ----------
    bundle : Bundle
        The network as stored, with labels and preparation.
    precision : {'float32', 'float16', 'int8'}
        How it is stored.
    settings : config.Config
    spectra : TrainingSet
        Clean spectra that the network was not trained on.
    comparison : Comparison or None
        What the network holds of it.
    inferred : Inferred
        What the bundle infers of spectra to calibrate errors on.
    """
    novelty, limits, hull = learn_familiar(settings, bundle, spectra, comparison)
    sidecar = dataclasses.replace(
        bundle.sidecar,
        calibration=inferred.calibrate(),
        novelty=novelty if precision == "float32" else shorten(novelty),
        fit_limits=limits,
        hull=hull,
        selftest=make_selftest(bundle, inferred.examples),
    )
    return dataclasses.replace(bundle, sidecar=sidecar)


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


def make_selftest(bundle: Bundle, examples: Examples) -> SelfTest:
    """Return a few spectra, rounded so that they compress well, and the answers of this machine."""
    flux = examples.flux[:N_SELFTEST].cpu().numpy().astype(np.float16).astype(np.float32)
    labels, sigma, *_ = Session(bundle).run(flux)
    return SelfTest(flux, labels.astype(np.float32), sigma.astype(np.float32))


def describe_training(run: RunDirectory, name: str, snr_template: Tensor) -> dict[str, Any]:
    """Return all that a reader of a model should know of its making.

    Parameters
    ----------
    run : RunDirectory
    name : str
        Of the model.
    snr_template : Tensor, shape (n_pixel,)
        That the parameters name, if they do.
    """
    settings, info = run.settings(), run.read_info()
    template = [round(float(value), 6) for value in snr_template] if settings.augmentation.snr_template else []
    return {
        "name": name,
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
    }


def measure_errors(bundle: Bundle, inferred: Inferred) -> dict[str, dict[str, float | None]]:
    """Return statistics of the residuals of each label, and how many of them its 68 % interval holds."""
    error = inferred.error
    width = half_width(bundle, inferred.sigma, inferred.snr, ONE_SIGMA)
    inside = np.where(np.isfinite(error), np.abs(error) <= width, np.nan)
    return {
        label.name: _for_json({**describe(column), "coverage_68": known_mean(held)})
        for label, column, held in zip(inferred.labels, error.T, inside.T, strict=True)
    }


def describe_storage(precision: Precision, inferred: Inferred, full: Bundle) -> dict[str, Any]:
    """Return how weights are stored, and what storing them small does to each label, in its unit.

    Parameters
    ----------
    precision : {'float32', 'float16', 'int8'}
    inferred : Inferred
        With the weights as stored.
    full : Bundle
        With the weights in float32.

    Returns
    -------
    storage : dict
        The precision (`stored`) and, unless it is float32, the `effect`: of each label the rms error with
        float32 (`rms_float32`), as stored (`rms`), and the rms of the difference that storing makes (`difference`).
    """
    if precision == "float32":
        return {"stored": precision}
    exact = infer_examples(full, inferred.examples)
    effect = {
        label.name: _for_json(
            {
                "rms_float32": rms(exact.error[:, i]),
                "rms": rms(inferred.error[:, i]),
                "difference": rms(inferred.values[:, i] - exact.values[:, i]),
            }
        )
        for i, label in enumerate(inferred.labels)
    }
    return {"stored": precision, "effect": effect}


def _for_json(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers with None for those that are not known; JSON has no NaN."""
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}
