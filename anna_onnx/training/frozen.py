"""The network as it is exported: with sigma, how well a spectrum fits its labels, and physical units."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from anna_onnx import config
from anna_onnx.bundle import Bundle
from anna_onnx.errors import TrainingError
from anna_onnx.fit import Fit
from anna_onnx.labels import Label
from anna_onnx.session import Session
from anna_onnx.training.calibration import Adjustment, features_of, fit_adjustment
from anna_onnx.training.calibration_set import adjustment_examples
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.comparison import Comparison
from anna_onnx.training.examples import Examples
from anna_onnx.training.familiarity import learn_comparison
from anna_onnx.training.network import Network
from anna_onnx.trainingset import TrainingSet

# What onnxruntime reads since 2023: its version 1.15 is the first for Python 3.11.
OPSET, IR_VERSION = 18, 8
PARITY = 1e-5  # of a label's range
PARITY_OF_FIT = 1e-2  # of a misfit, and of a sigma that follows it
BATCHES = (1, 2, 90)


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


def load_network(run: RunDirectory) -> Network:
    """Return the network of a run with its best weights, ready to infer."""
    weights, _ = run.load_best()
    n_pixel = weights["inputs.fill"].numel()
    network = Network(n_pixel, len(run.labels()), run.settings().network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        found = str(error).splitlines()[-1].strip()
        raise TrainingError(
            f"{run.path}: the weights do not fit the network that its parameters name: {found}"
        ) from error
    return network.eval()


def freeze(
    network: Network,
    settings: config.Config,
    labels: tuple[Label, ...],
    spectra: TrainingSet,
    examples: Examples,
    velocities: tuple[float, float],
) -> Frozen:
    """Return a trained network as it is exported: its sigma, or their adjustment, and the comparison are learnt here.

    Parameters
    ----------
    network : Network
    settings : config.Config
        It was trained with.
    labels : tuple of Label
    spectra : TrainingSet
        Clean spectra that the network was not trained on.
    examples : Examples
        Of these, as the network sees them.
    velocities : (low, high)
        Radial velocities of the training, km/s.

    Raises
    ------
    TrainingError
        If the network infers no errors, and nothing tells those of a label.
    """
    sigma = None if network.uncertainty else rms_of(network, examples)
    if sigma is not None and sigma.isnan().any():
        missing = labels[int(sigma.isnan().int().argmax())].name
        raise TrainingError(
            f"{spectra.path}: no spectrum has a value of {missing}, needed for its error; "
            "with network.uncertainty the network infers it"
        )
    frozen = Frozen(network, labels, sigma).eval()
    frozen.comparison = learn_comparison(settings, labels, spectra, velocities, frozen.infer)
    if network.uncertainty:
        frozen.adjustment = learn_adjustment(frozen, adjustment_examples(settings, spectra, labels), settings.seed)
    return frozen


@torch.no_grad()
def rms_of(network: Network, examples: Examples) -> Tensor:
    """Return the RMS error of each scaled label, shape (n_label,)."""
    mean = torch.cat([network.combine(flux)[0] for flux in torch.split(examples.flux, 500)])
    return (mean - examples.scaled).square().nanmean(dim=0).sqrt()


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
def require_parity(frozen: Frozen, bundle: Bundle, examples: Examples) -> float:
    """Return the largest difference between torch and onnxruntime; refuse a large one.

    In label ranges, or of the answer where that is larger: it has no more digits than float32. A misfit is what is left
    of nearly equal numbers, and has fewer; so has a sigma that follows it.
    """
    span = np.array([label.span for label in bundle.sidecar.labels])
    session, names = Session(bundle), frozen.output_names
    worst, units = [0.0], {"labels": span, "sigma": span, "correlation": np.ones(1)}
    slack = {"sigma": PARITY_OF_FIT / PARITY} if "fit" in names else {}
    for n in BATCHES:
        flux = examples.flux[:n]
        ours = dict(zip(names, (answer.numpy() for answer in frozen(flux)), strict=True))
        theirs = dict(zip(names, session.run_whole(flux.numpy()), strict=True))
        for name, unit in units.items():
            if name in names:
                apart = np.abs(ours[name] - theirs[name]) / np.maximum(slack.get(name, 1.0) * np.abs(ours[name]), unit)
                worst.append(float(apart.max()))
        if "fit" in names:
            misfit, other = Fit.of(ours["fit"]).misfit, Fit.of(theirs["fit"]).misfit
            if not np.allclose(misfit, other, rtol=PARITY_OF_FIT):
                raise TrainingError(f"onnxruntime finds misfits of {other.tolist()}, torch {misfit.tolist()}")
    if not (largest := float(np.max(worst))) <= PARITY:
        raise TrainingError(f"onnxruntime differs from torch by {largest:.1e} of a label's range, allowed {PARITY}")
    return largest
