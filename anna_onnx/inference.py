"""Inference: from spectra to labels, errors and flags, with onnxruntime and nothing heavier."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from anna_onnx.bundle import Bundle, SelfTest
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.errors import AnnaError, BundleError
from anna_onnx.flags import Flag
from anna_onnx.labels import scale, unscale
from anna_onnx.legacy.binary import is_training_set, open_training_set
from anna_onnx.preparation import PreparedBlock, PrepareOptions
from anna_onnx.progress import Progress, silent
from anna_onnx.readers import read_spectra
from anna_onnx.results import ResultWriter, Rows, as_qtable
from anna_onnx.spectrum import Source, Spectrum
from anna_onnx.trainingset import blocks

if TYPE_CHECKING:
    from astropy.table import QTable

FloatArray = NDArray[np.float64]
BLOCK = 1024  # spectra prepared, inferred and written together
SELFTEST_TOLERANCE = 1e-4  # of a label's range
BATCH = 128  # spectra in one call of the network: larger ones only take memory
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}


@dataclass(frozen=True)
class InferOptions:
    """What the user may ask of inference.

    Parameters
    ----------
    level : float, optional
        Probability of an interval to give besides the 68 % error.
    correct_trends : bool
        Take out the residual trends that `anna test` stored.
    prepare : PrepareOptions
    read : mapping
        Keywords of `read_spectra`.
    device : {'cpu', 'cuda', 'coreml', 'directml'}
    threads : int
        CPU threads; 0: as many as the process may use.
    """

    level: float | None = None
    correct_trends: bool = False
    prepare: PrepareOptions = field(default_factory=PrepareOptions)
    read: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    threads: int = 0


class Session:
    """A network ready to run.

    Parameters
    ----------
    bundle : Bundle
    device : str
    threads : int
        0: as many as the process may use.

    Raises
    ------
    BundleError
        If the network does not load, is not shaped as its sidecar says, or the
        device asked for is not there.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", threads: int = 0) -> None:
        import onnxruntime as ort

        if device not in PROVIDERS:
            raise BundleError(f"device '{device}', needed one of {', '.join(PROVIDERS)}")
        provider = PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise BundleError(f"device {device}: this onnxruntime has no {provider}; install the build that has it")
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads or usable_cores()
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        # Idle threads that spin take the core from the reader of the next file.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = [provider]
        if device == "cuda":
            # TF32 is the default on GPUs and costs three digits.
            providers = [(provider, {"use_tf32": "0"})]
        try:
            self._session = ort.InferenceSession(bundle.network, settings, providers=providers)
        except Exception as error:  # onnxruntime raises a class of its own for each fault
            raise BundleError(f"{bundle.name}: onnxruntime refuses the network ({_first_line(error)})") from error
        if self._session.get_providers()[0] != provider:
            raise BundleError(f"device {device}: onnxruntime fell back to {self._session.get_providers()[0]}")
        self._n_pixel, self._n_label = bundle.sidecar.grid.n_pixel, len(bundle.sidecar.labels)
        self._check(bundle.name)

    def _check(self, name: str) -> None:
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        outputs = [item.name for item in self._session.get_outputs()]
        if list(inputs) != ["flux"] or inputs["flux"][1:] != [self._n_pixel]:
            raise BundleError(f"{name}: the network takes {inputs}, needed flux (batch, {self._n_pixel})")
        if not {"labels", "sigma"} <= set(outputs):
            raise BundleError(f"{name}: the network gives {', '.join(outputs)}, needed labels and sigma")

    def run(self, flux: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
        """Return labels and sigma, in the labels' units.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            Continuum = 1, NaN where a pixel is not valid.

        Returns
        -------
        labels, sigma : arrays of float64, shape (n, n_label)
        """
        labels = np.empty((len(flux), self._n_label))
        sigma = np.empty_like(labels)
        for rows in blocks(len(flux), BATCH):
            labels[rows], sigma[rows] = self.run_whole(flux[rows])
        return labels, sigma

    def run_whole(self, flux: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return labels and sigma of spectra, all in one call of the network."""
        labels, sigma = self._session.run(["labels", "sigma"], {"flux": flux})
        return labels, sigma


def infer(
    bundle: Bundle, spectra: Iterable[Spectrum], options: InferOptions | None = None, session: Session | None = None
) -> Iterator[Rows]:
    """Infer the labels of spectra, a block at a time, in bounded memory.

    Parameters
    ----------
    bundle : Bundle
    spectra : iterable of Spectrum
    options : InferOptions, optional
    session : Session, optional
        To be used again; made from the bundle by default.

    Yields
    ------
    Rows
    """
    options = options or InferOptions()
    session = session or Session(bundle, options.device, options.threads)
    spectra = iter(spectra)
    while block := list(islice(spectra, BLOCK)):
        prepare, mean = bundle.sidecar.preparation.prepare, _mean(bundle)
        prepared = _stack([prepare(one, options.prepare, template=mean) for one in block])
        yield _rows(bundle, session, options, prepared, [one.source for one in block], [one.id for one in block])


def infer_files(
    bundle: Bundle, files: Sequence[str], options: InferOptions | None = None, report: Progress = silent
) -> Iterator[Rows]:
    """Infer every spectrum of some files; one that cannot be read becomes a row that says why.

    Yields
    ------
    Rows
        In the order of the files.
    """
    options = options or InferOptions()
    session = Session(bundle, options.device, options.threads)
    waiting: list[Spectrum] = []
    for done, file in enumerate(files):
        report(done, len(files))
        found, error = _read(file, options)
        if isinstance(found, list) and error is None:
            waiting += found
            if len(waiting) < BLOCK:
                continue
        yield from infer(bundle, waiting, options, session)
        waiting = []
        if error is not None:
            yield _unreadable(bundle, options, file, error)
        elif not isinstance(found, list):
            yield from _infer_training_set(bundle, session, options, file)
    yield from infer(bundle, waiting, options, session)
    report(len(files), len(files))


def _read(file: str, options: InferOptions) -> tuple[list[Spectrum] | None, str | None]:
    """Return the spectra of a file, or what is wrong with it; None, None for a training set."""
    try:
        if is_training_set(file):
            return None, None
        return read_spectra(file, **options.read), None
    except AnnaError as error:
        return None, str(error)


def _infer_training_set(bundle: Bundle, session: Session, options: InferOptions, file: str) -> Iterator[Rows]:
    """Infer a training set or legacy .bin block by block: its spectra share their wavelengths."""
    try:
        training_set = open_training_set(file)
    except AnnaError as error:
        yield _unreadable(bundle, options, file, str(error))
        return
    velocity = training_set.aux.get("rv")
    for rows in blocks(len(training_set), BLOCK):
        prepared = bundle.sidecar.preparation.prepare_block(
            training_set.grid.wavelength,
            np.asarray(training_set.flux[rows]),
            None if training_set.sigma is None else np.asarray(training_set.sigma[rows]),
            None if training_set.mask is None else np.asarray(training_set.mask[rows]) > 0,
            medium=options.read.get("medium") or training_set.grid.medium,
            frame=options.read.get("frame") or "unknown",
            radial_velocity=None if velocity is None else velocity[rows],
            options=options.prepare,
            template=_mean(bundle),
        )
        sources = [Source(file, None, row) for row in range(rows.start, rows.stop)]
        yield _rows(bundle, session, options, prepared, sources, [_name(one) for one in training_set.id[rows]])


def _name(star: Any) -> str:
    return f"{star:g}" if isinstance(star, float) and star.is_integer() else str(star)


def _stack(prepared: Sequence[Any]) -> PreparedBlock:
    """Return single prepared spectra as one block."""
    return PreparedBlock(
        flux=np.stack([one.flux for one in prepared]),
        sigma=None,
        coverage=np.array([one.coverage for one in prepared]),
        snr=np.array([one.snr for one in prepared]),
        flags=np.array([int(one.flags) for one in prepared], dtype=np.int64),
        rv=np.array([np.nan if one.rv is None else one.rv for one in prepared]),
        notes=[one.notes for one in prepared],
    )


def _rows(
    bundle: Bundle,
    session: Session,
    options: InferOptions,
    prepared: PreparedBlock,
    sources: Sequence[Source],
    ids: Sequence[str],
) -> Rows:
    """Run the network on a block and turn its answers into rows of the table."""
    sidecar = bundle.sidecar
    covered = prepared.coverage > 0
    values, sigma = session.run(prepared.flux)
    values[~covered], sigma[~covered] = np.nan, np.nan
    flags = prepared.flags.copy()
    flags[covered & _outside(values, bundle)] |= Flag.outside_labels
    if sidecar.novelty is not None:
        flags[covered & (sidecar.novelty.score(prepared.flux) > 1)] |= Flag.unlike_training
    if options.correct_trends:
        if sidecar.trends is None:
            raise BundleError(f"{bundle.name}: holds no residual trends; 'anna test --store-trends' fits them")
        values = unscale(sidecar.trends.correct(scale(values, sidecar.labels)), sidecar.labels)
    width = None if options.level is None else half_width(bundle, sigma, prepared.snr, options.level)
    return Rows(
        file=[source.file for source in sources],
        hdu=[source.hdu for source in sources],
        row=[source.row for source in sources],
        id=list(ids),
        values=values,
        errors=half_width(bundle, sigma, prepared.snr, ONE_SIGMA),
        snr=prepared.snr,
        coverage=prepared.coverage,
        flags=flags,
        messages=["; ".join(notes) for notes in prepared.notes],
        lo=None if width is None else values - width,
        hi=None if width is None else values + width,
        rv=prepared.rv if options.prepare.rv is not None else None,
    )


def half_width(bundle: Bundle, sigma: FloatArray, snr: FloatArray, level: float) -> FloatArray:
    """Return the calibrated half width of an interval, shape (n, n_label); without calibration, a Gaussian's."""
    if bundle.sidecar.calibration is not None:
        return bundle.sidecar.calibration.half_width(sigma, snr, level)
    from statistics import NormalDist

    return sigma * NormalDist().inv_cdf(0.5 + level / 2)


def _outside(values: FloatArray, bundle: Bundle) -> NDArray[np.bool_]:
    scaled = scale(values, bundle.sidecar.labels)
    return np.asarray(((scaled < 0) | (scaled > 1)).any(axis=1))


def _mean(bundle: Bundle) -> FloatArray | None:
    """Return the mean training spectrum, with which velocities are measured."""
    return None if bundle.sidecar.novelty is None else bundle.sidecar.novelty.mean


def _unreadable(bundle: Bundle, options: InferOptions, file: str, why: str) -> Rows:
    """Return the row of a file that could not be read."""
    nothing = np.full((1, len(bundle.sidecar.labels)), np.nan)
    with_interval = options.level is not None
    return Rows(
        file=[file],
        hdu=[None],
        row=[None],
        id=[""],
        values=nothing,
        errors=nothing,
        snr=np.array([np.nan]),
        coverage=np.array([0.0]),
        flags=np.array([int(Flag.unreadable)], dtype=np.int64),
        messages=[why],
        lo=nothing if with_interval else None,
        hi=nothing if with_interval else None,
        rv=np.array([np.nan]) if options.prepare.rv is not None else None,
    )


@dataclass(frozen=True)
class Summary:
    """What came of a run over files.

    Attributes
    ----------
    rows : int
        Rows of the table.
    failed : int
        Of these, spectra that could not be inferred.
    flagged : int
        Rows with a flag.
    output : str or None
    """

    rows: int
    failed: int
    flagged: int
    output: str | None

    @property
    def text(self) -> str:
        """A line for a person to read."""
        where = f" to {self.output}" if self.output else ""
        failed = f", {self.failed} could not be inferred (see their messages)" if self.failed else ""
        return f"{self.rows} spectra{where}, {self.flagged} with flags{failed}"


def infer_to_table(
    model: str,
    files: Sequence[str],
    output: str | None = None,
    *,
    level: float | None = None,
    correct_trends: bool = False,
    rv: str | None = None,
    normalize: bool = False,
    resolution: float | None = None,
    device: str = "cpu",
    threads: int = 0,
    report: Progress = silent,
    **read: Any,
) -> Summary:
    """Infer every spectrum of some files and write the table; the work of ``anna-lite infer``.

    Parameters
    ----------
    model : str
        File name of the bundle.
    files : sequence of str
    output : str, optional
        Table to write; CSV on standard output by default.
    **read
        Keywords of `read_spectra`, None where the file decides.
    """
    bundle = Bundle.load(model)
    prepare = PrepareOptions(rv=_velocity(rv), normalize=normalize or None, resolution=resolution)
    options = InferOptions(level, correct_trends, prepare, _read_options(read), device, threads)
    rows = failed = flagged = 0
    unusable = Flag.unreadable | Flag.no_coverage
    with ResultWriter(
        output, bundle.sidecar.labels, model_info(bundle), intervals=level is not None, rv=rv is not None
    ) as writer:
        for block in infer_files(bundle, files, options, report):
            writer.write(block)
            rows += len(block)
            failed += int(((block.flags & unusable) > 0).sum())
            flagged += int((block.flags > 0).sum())
    return Summary(rows, failed, flagged, output)


def _velocity(text: str | None) -> float | Literal["header", "auto"] | None:
    if text is None:
        return None
    if text in ("header", "auto"):
        return cast(Literal["header", "auto"], text)
    try:
        return float(text)
    except ValueError:
        raise AnnaError(f"--rv {text}: needed a number in km/s, header or auto") from None


def _read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was asked of the readers; numbers stand for extensions and columns."""
    options = {name: value for name, value in given.items() if value not in (None, False)}
    if "hdu" in options and str(options["hdu"]).isdigit():
        options["hdu"] = int(options["hdu"])
    if "columns" in options:
        options["columns"] = tuple(int(one) if one.isdigit() else one for one in str(options["columns"]).split(","))
    return options


def selftest_text(model: str, device: str = "cpu") -> str:
    """Run the self-test of a model and say what came of it.

    Raises
    ------
    BundleError
        If this machine's answers differ by more than 1e-4 of a label's range.
    """
    deviation = run_selftest(Bundle.load(model), device)
    if not deviation <= SELFTEST_TOLERANCE:
        raise BundleError(
            f"{model}: answers differ by {deviation:.1e} of a label's range, allowed {SELFTEST_TOLERANCE}"
        )
    return f"{model}: largest deviation from the training machine {deviation:.1e} of a label's range: good"


def run_selftest(bundle: Bundle, device: str = "cpu") -> float:
    """Return the largest deviation from the training machine's answers, in label ranges.

    Raises
    ------
    BundleError
        If the model carries no self-test.
    """
    test: SelfTest | None = bundle.sidecar.selftest
    if test is None:
        raise BundleError(f"{bundle.name}: carries no self-test")
    labels, _ = Session(bundle, device).run(test.flux)
    span = np.array([label.span for label in bundle.sidecar.labels])
    return float(np.abs((labels - test.labels) / span).max())


def infer_table(bundle: Bundle, spectra: Any, options: InferOptions | None = None) -> QTable:
    """Infer spectra given in any form that Python users have; see `Bundle.infer`."""
    rows = _join(list(infer(bundle, _as_spectra(spectra), options)))
    return as_qtable(rows, bundle.sidecar.labels, model_info(bundle))


def _join(parts: Sequence[Rows]) -> Rows:
    """Return blocks of rows as one."""
    if not parts:
        raise AnnaError("no spectra given")
    columns: dict[str, Any] = {}
    for item in dataclasses.fields(Rows):
        values = [getattr(part, item.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            columns[item.name] = np.concatenate(values)
        elif values[0] is not None:
            columns[item.name] = list(chain.from_iterable(values))
    return Rows(**columns)


def _as_spectra(spectra: Any) -> list[Spectrum]:
    """Return a list of Spectrum from one or several spectra, file names or (wavelength, flux) pairs."""
    if isinstance(spectra, (Spectrum, str, Path)) or _is_pair(spectra):
        spectra = [spectra]
    result: list[Spectrum] = []
    for one in spectra:
        if isinstance(one, Spectrum):
            result.append(one)
        elif isinstance(one, (str, Path)):
            result += read_spectra(one)
        elif _is_pair(one):
            result.append(Spectrum(*one))
        else:
            raise AnnaError(f"cannot infer {type(one).__name__}: needed a Spectrum, a file name or (wavelength, flux)")
    return result


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) in (2, 3) and all(np.ndim(part) == 1 for part in value)


def model_info(bundle: Bundle) -> dict[str, str]:
    """Return what the header of a table says of the model."""
    version = str(bundle.sidecar.provenance.get("versions", {}).get("anna-onnx", ""))
    return {"model": bundle.name, "sha256": bundle.sidecar.sha256, "version": version}


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
