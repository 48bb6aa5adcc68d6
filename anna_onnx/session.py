"""The session: a network made ready to run by onnxruntime, on the device that was asked for and no other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.bundle import Bundle
from anna_onnx.cores import usable_cores
from anna_onnx.errors import BundleError, first_line
from anna_onnx.fit import COLUMNS, Fit
from anna_onnx.guard import bounded_memory
from anna_onnx.pieces import slices

BATCH = 256  # spectra in one call of the network: larger ones only take memory
PROBE_SECONDS = 1.0
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}


class Answers(NamedTuple):
    """What a network says of spectra.

    Attributes
    ----------
    labels, sigma : arrays of float64, shape (n, n_label)
        In the labels' units.
    fit : Fit or None
        How the spectra compare with what is expected of these labels; None where the network does not say.
    correlation : array of float64, shape (n, n_label, n_label), or None
        Of the errors of the labels; None where the network does not say.
    """

    labels: FloatArray
    sigma: FloatArray
    fit: Fit | None
    correlation: FloatArray | None


class Session:
    """A network ready to run.

    Parameters
    ----------
    bundle : Bundle
    device : {'cpu', 'cuda', 'coreml', 'directml'}
    threads : int
        CPU threads of one call; 0: as many as the process may use.

    Raises
    ------
    BundleError
        If the network does not load, is not shaped as its sidecar says, takes more
        memory or time than an honest one, or the device asked for is not there.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", threads: int = 0) -> None:
        import onnxruntime as ort

        provider = _provider(device, ort.get_available_providers())
        self._name = bundle.name
        self._n_pixel, self._n_label = bundle.sidecar.grid.n_pixel, len(bundle.sidecar.labels)
        options = _options(ort, threads or usable_cores())
        try:
            with bounded_memory(len(bundle.network)):
                self._session = ort.InferenceSession(
                    bundle.network, options, providers=[provider], enable_fallback=0, read_config_from_model=0
                )
        except Exception as error:  # onnxruntime raises a class of its own for each fault
            raise BundleError(f"{bundle.name}: onnxruntime refuses the network ({first_line(error)})") from error
        # Else a call that fails on a GPU is repeated on the CPU, with a message on standard output.
        self._session.disable_fallback()
        if (used := self._session.get_providers()[0]) != PROVIDERS[device]:
            raise BundleError(f"device {device}: onnxruntime fell back to {used}; see its messages for the reason")
        self._check_shapes()
        self._probe(ort, len(bundle.network))

    def run(self, flux: Float32Array) -> Answers:
        """Ask the network.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            Continuum = 1, NaN where a pixel is not valid.
        """
        answers = {name: np.empty((len(flux), *shape)) for name, shape in self._shapes.items()}
        for rows in slices(len(flux), BATCH):
            for whole, part in zip(answers.values(), self.run_whole(flux[rows]), strict=True):
                whole[rows] = part
        fit = Fit.of(answers["fit"]) if "fit" in answers else None
        return Answers(answers["labels"], answers["sigma"], fit, answers.get("correlation"))

    def run_whole(self, flux: Float32Array) -> list[Float32Array]:
        """Return labels, sigma and, where the network gives them, fit and correlation, all in one call."""
        answers: list[Float32Array] = self._session.run(list(self._shapes), {"flux": flux})
        return answers

    @property
    def correlates(self) -> bool:
        """Whether the network says how the errors of the labels correlate."""
        return "correlation" in self._shapes

    @property
    def compares(self) -> bool:
        """Whether the network says how spectra compare with what is expected of their labels."""
        return "fit" in self._shapes

    def _check_shapes(self) -> None:
        try:
            inputs = {item.name: item.shape for item in self._session.get_inputs()}
            outputs = [item.name for item in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            raise BundleError(f"{self._name}: names in the network are no text") from error
        if list(inputs) != ["flux"] or len(inputs["flux"]) != 2 or inputs["flux"][1] != self._n_pixel:
            raise BundleError(f"{self._name}: the network takes {inputs}, needed flux (batch, {self._n_pixel})")
        if not {"labels", "sigma"} <= set(outputs):
            raise BundleError(f"{self._name}: the network gives {', '.join(outputs)}, needed labels and sigma")
        known = {
            "labels": (self._n_label,),
            "sigma": (self._n_label,),
            "fit": (len(COLUMNS),),
            "correlation": (self._n_label, self._n_label),
        }
        self._shapes = {name: shape for name, shape in known.items() if name in outputs}

    def _probe(self, ort: Any, size: int) -> None:
        """Run the network on one spectrum, with bounds that a hostile one would break."""
        from threading import Timer

        limits = ort.RunOptions()
        timer = Timer(PROBE_SECONDS + size / 1e8, setattr, (limits, "terminate", True))
        timer.daemon = True
        timer.start()
        flux = np.ones((1, self._n_pixel), dtype=np.float32)
        try:
            with bounded_memory(size):
                answers = self._session.run(list(self._shapes), {"flux": flux}, limits)
        except Exception as error:  # onnxruntime raises a class of its own for each fault
            raise BundleError(f"{self._name}: the network does not run ({first_line(error)})") from error
        finally:
            timer.cancel()
        shapes, needed = [np.shape(answer) for answer in answers], [(1, *shape) for shape in self._shapes.values()]
        if shapes != needed:
            raise BundleError(f"{self._name}: the network gives {shapes} for one spectrum, needed {needed}")
        # A little above 1 is rounding.
        given = dict(zip(self._shapes, answers, strict=True))
        if "correlation" in given and not (np.abs(given["correlation"]) < 1.001).all():
            raise BundleError(f"{self._name}: the network gives correlations that are none, beyond 1 or not finite")


def _provider(device: str, available: list[str]) -> Any:
    """Return the execution provider of a device, with its settings."""
    if device not in PROVIDERS:
        raise BundleError(f"device '{device}', needed one of {', '.join(PROVIDERS)}")
    if PROVIDERS[device] not in available:
        have = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        raise BundleError(f"device {device}: the onnxruntime installed here has only {have}; install the build for it")
    # TF32 is the default on GPUs and costs three digits.
    return (PROVIDERS[device], {"use_tf32": "0"}) if device == "cuda" else PROVIDERS[device]


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised too
    # Else bytes that begin as those of onnxruntime's own format would go past the checks of ONNX.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Idle threads that spin take the core from the reader of the next file.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
