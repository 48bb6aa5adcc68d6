"""Inference: from spectra to labels, errors and flags, with onnxruntime and nothing heavier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anna_onnx import statednoise
from anna_onnx.arrays import FloatArray, Floats, IntArray
from anna_onnx.blocks import Block, Failure, Part, as_blocks, read_blocks
from anna_onnx.bundle import Bundle, find_model
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.cores import usable_cores
from anna_onnx.errors import AnnaError, BundleError
from anna_onnx.fit import Fit, FitLimits
from anna_onnx.flags import Flag
from anna_onnx.gridding import Spectra
from anna_onnx.labels import scale, unscale
from anna_onnx.pieces import in_order
from anna_onnx.preparation import PreparedBlock, PrepareOptions
from anna_onnx.quantity import number, shown
from anna_onnx.readers import ReadOptions
from anna_onnx.readers.assembly import Unread
from anna_onnx.recognition import Recognizer, Said
from anna_onnx.results import Rows, as_qtable, join, of_pairs
from anna_onnx.session import PROVIDERS, Session
from anna_onnx.spectrum import Spectrum
from anna_onnx.velocity import Velocities, fitted_rv

if TYPE_CHECKING:
    from astropy.table import QTable

UNKNOWN = 12**-0.5
"""Standard deviation of a label of which nothing is known, over its range."""
SELFTEST_TOLERANCE = 1e-4  # of a label's range


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
    read : ReadOptions
    device : {'cpu', 'cuda', 'coreml', 'directml'}
    threads : int
        CPU threads; 0: as many as the process may use.
    covariance : bool
        Also give how the errors of the labels correlate.

    Raises
    ------
    AnnaError
        If a value makes no sense.
    """

    level: float | None = None
    correct_trends: bool = False
    prepare: PrepareOptions = field(default_factory=PrepareOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    device: str = "cpu"
    threads: int = 0
    covariance: bool = False

    def __post_init__(self) -> None:
        level = None if self.level is None else number(self.level)
        if self.level is not None and (level is None or not 0 < level < 1):
            raise AnnaError(f"level {shown(self.level)}, needed a probability above 0 and below 1, such as 0.9")
        object.__setattr__(self, "level", level)
        for name in ("correct_trends", "covariance"):
            if not isinstance(value := getattr(self, name), (bool, np.bool_)):
                raise AnnaError(f"{name} {shown(value)}, needed True or False")
        if not isinstance(self.threads, Integral) or isinstance(self.threads, bool) or self.threads < 0:
            raise AnnaError(f"threads {shown(self.threads)}, needed a whole number; 0: as many as the process may use")
        if not isinstance(self.device, str):
            raise AnnaError(f"device {shown(self.device)}, needed one of {', '.join(PROVIDERS)}")

    @property
    def said(self) -> dict[str, str]:
        """What was asked for of all that changes the numbers, as the header of a table says it."""
        asked = {name: getattr(self, name) for name in ("level", "correct_trends", "covariance")}
        asked |= {**vars(self.prepare), **vars(self.read)}
        return {name: text for name, value in asked.items() if (text := _spelled(value))}


def _spelled(value: Any) -> str:
    """Return an option as text, empty where nothing was asked for."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Findings(NamedTuple):
    """What inference finds out of a block of spectra.

    Attributes
    ----------
    prepared : PreparedBlock
        As the network saw them.
    values, sigma : arrays, shape (n, n_label)
        In the labels' units; the network's sigma, not yet calibrated.
    flags : array of int64, shape (n,)
        Bits of `Flag`.
    reasons : dict of int to str
        What is to be said of some of the spectra, by row.
    correlation : array, shape (n, n_label, n_label), or None
        Of the errors of the labels, if the network infers it.
    """

    prepared: PreparedBlock
    values: FloatArray
    sigma: FloatArray
    flags: IntArray
    reasons: dict[int, str]
    correlation: FloatArray | None = None

    def half_width(self, bundle: Bundle, level: float) -> FloatArray:
        """Return the half width of an interval, shape (n, n_label)."""
        return half_width(bundle, self.sigma, self.prepared.snr, level)


class Inference:
    """A bundle at work: its session and what was asked of it.

    Safe to share between threads.

    Parameters
    ----------
    bundle : Bundle
    options : InferOptions, optional

    Raises
    ------
    BundleError
        If the network does not run, or lacks the trends or the covariance that were asked for.
    """

    def __init__(self, bundle: Bundle, options: InferOptions | None = None) -> None:
        self.bundle, self.options = bundle, options or InferOptions()
        if self.options.correct_trends and bundle.sidecar.trends is None:
            raise BundleError(f"{bundle.name}: holds no residual trends; 'anna test --store-trends' fits them")
        if self.options.level is not None and bundle.sidecar.calibration is not None:
            bundle.sidecar.calibration.check_level(self.options.level)
        self.threads = self.options.threads or usable_cores()
        # Threads that each take a block of their own beat threads that share one.
        self._session = Session(bundle, self.options.device, threads=1)
        if self.options.covariance and not self._session.correlates:
            raise BundleError(f"{bundle.name}: infers no covariance; networks trained with covariance = true do")
        self._recognizer = Recognizer(bundle.sidecar)
        if self.options.prepare.rv == "auto" and self._velocity_limits is None:
            try:
                bundle.sidecar.preparation.check_template(self._mean)
            except AnnaError as error:
                raise BundleError(f"{bundle.name}: {error}") from error

    def run(self, blocks: Iterable[Block | Failure]) -> Iterator[Rows]:
        """Infer blocks in their order, several at a time, while the next ones are read.

        Yields
        ------
        Rows
        """
        blocks = iter(blocks)
        first = list(islice(blocks, 2))
        if len(first) < 2 or self.threads == 1:
            yield from map(self.rows, chain(first, blocks))
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.threads) as pool:
            try:
                every, n = chain(first, blocks), 2 * self.threads + 1
                for rows in in_order(lambda block: pool.submit(self.rows, block), every, n):
                    yield rows.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def run_parts(self, parts: Iterable[Part]) -> Iterator[Rows]:
        """Infer parts of files in their order; one that cannot be read becomes a row that says why.

        Yields
        ------
        Rows
        """
        return self.run(read_blocks(parts, self.options.read))

    def rows(self, block: Block | Failure) -> Rows:
        """Return the rows of the table for one block."""
        if isinstance(block, Failure):
            return self._unreadable(block)
        found, sidecar = self.look(block), self.bundle.sidecar
        prepared, values, errors = found.prepared, found.values, found.half_width(self.bundle, ONE_SIGMA)
        if self.options.correct_trends and sidecar.trends is not None:
            values = unscale(sidecar.trends.correct(scale(values, sidecar.labels)), sidecar.labels)
        level = self.options.level
        width = None if level is None else found.half_width(self.bundle, level)
        correlation = found.correlation if self.options.covariance else None
        return Rows(
            file=block.files,
            hdu=block.hdus,
            row=block.rows,
            id=block.ids,
            values=values,
            errors=errors,
            snr=prepared.snr,
            coverage=prepared.coverage,
            flags=found.flags,
            messages=_messages(block.notes, prepared.notes, found.reasons),
            lo=None if width is None else values - width,
            hi=None if width is None else values + width,
            rv=prepared.rv if self.options.prepare.rv is not None else None,
            correlations=None if correlation is None else of_pairs(correlation),
        )

    def look(self, block: Block) -> Findings:
        """Return what is found out of a block of spectra."""
        prepared = self.prepare(block)
        covered = (prepared.flags & Flag.no_coverage) == 0
        values, sigma, fit, correlation = self._session.run(prepared.flux)
        values[~covered], sigma[~covered] = np.nan, np.nan
        if correlation is not None:
            correlation[~covered] = np.nan
        sigma *= self._missed(prepared)
        fit = None if fit is None else fit.of_smoothed(prepared.smoothing)
        notes: dict[int, str] = {}
        if fit is not None and prepared.sigma is not None:
            notes = self._follow_stated_noise(prepared.sigma, prepared, sigma, fit)
            fit = self._with_stated_noise(fit, prepared.sigma)
        errors = half_width(self.bundle, sigma, prepared.snr, ONE_SIGMA)
        verdict = self._recognizer.judge(prepared.flux, values, errors, fit, self._said(block, prepared))
        reasons = {row: _joined(notes.get(row), verdict.reasons.get(row)) for row in {*notes, *verdict.reasons}}
        flags = prepared.flags.copy()
        flags[covered & verdict.outside] |= Flag.outside_labels
        flags[covered & verdict.unlike] |= Flag.unlike_training
        flags[covered & verdict.doubtful] |= Flag.medium_unknown
        return Findings(prepared, values, sigma, flags, reasons, correlation)

    def _missed(self, prepared: PreparedBlock) -> FloatArray:
        """Return by how much the network takes errors for too small, shape (n, 1)."""
        trained = self.bundle.sidecar.preparation.snr_range
        return prepared.smoothing.missed_at(prepared.snr, np.inf if trained is None else trained[1])[:, None]

    def _follow_stated_noise(
        self, stated: Floats, prepared: PreparedBlock, sigma: FloatArray, fit: Fit
    ) -> dict[int, str]:
        """Raise `sigma` where a file states more noise than its pixels have, and say so, by row."""
        seen = fit.pixel_noise / prepared.smoothing.missed
        with np.errstate(divide="ignore"):
            rows = np.flatnonzero((1 / prepared.snr > seen) & np.isfinite(sigma).all(axis=1))
        excess = statednoise.excess(stated[rows], seen[rows])
        widest = UNKNOWN * np.array([label.span for label in self.bundle.sidecar.labels])
        sigma[rows] = np.maximum(sigma[rows], np.minimum(sigma[rows] * excess[:, None], widest))
        text = "stated errors {:.2g} times the noise of the pixels: those of the labels follow them"
        return {
            int(row): text.format(times * statednoise.USUAL)
            for row, times in zip(rows, excess, strict=True)
            if times > 1
        }

    def _with_stated_noise(self, fit: Fit, stated: Floats | None) -> Fit:
        """Return the fit with what uneven stated noise explains of it."""
        limits = self.bundle.sidecar.fit_limits
        if stated is None or limits is None:
            return fit
        uneven, doubtful = np.ones(len(stated)), np.flatnonzero(~(limits.score(fit) <= 1))
        uneven[doubtful] = statednoise.unevenness(stated[doubtful])
        return replace(fit, pixel_noise=fit.pixel_noise * uneven)

    def prepare(self, block: Block) -> PreparedBlock:
        """Return a block as the network sees it."""
        asked, limits = self.options.prepare, self._velocity_limits
        if asked.rv != "auto" or limits is None:
            return self._prepare(block, asked)
        as_it_came = self._prepare(block, replace(asked, rv=None))
        fit = self._session.run(as_it_came.flux).fit
        assert fit is not None
        fit = self._with_stated_noise(fit.of_smoothed(as_it_came.smoothing), as_it_came.sigma)
        width = self.bundle.sidecar.preparation.line_width
        return self._prepare(block, asked, fitted_rv(fit, limits, as_it_came.flux, width))

    def _prepare(self, block: Block, options: PrepareOptions, measured: Velocities | None = None) -> PreparedBlock:
        setting, preparation = block.setting, self.bundle.sidecar.preparation
        known = setting.medium, setting.frame, setting.resolution, block.radial_velocity
        spectra = Spectra(setting.wavelength, block.flux, block.sigma, block.bad, *known)
        return preparation.prepare_block(spectra, options, template=self._mean, measured=measured)

    @property
    def _velocity_limits(self) -> FitLimits | None:
        """Limits of the fits that tell a velocity; None for a network that tells none.

        One must whose mean training spectrum velocities blur.
        """
        sidecar = self.bundle.sidecar
        return sidecar.fit_limits if sidecar.preparation.tolerates_motion and self._session.compares else None

    @property
    def _mean(self) -> FloatArray | None:
        """The mean training spectrum, with which other velocities are measured."""
        novelty = self.bundle.sidecar.novelty
        return None if novelty is None else novelty.mean

    def _said(self, block: Block, prepared: PreparedBlock) -> Said:
        """Return what is said of the wavelengths of prepared spectra."""
        at_rest = np.full(len(block), block.setting.frame == "rest")
        # A measured velocity says nothing of whether the wavelengths are right.
        if prepared.rv is not None and self.options.prepare.rv != "auto":
            at_rest |= np.isfinite(prepared.rv)
        stated = np.full(len(block), np.nan) if block.radial_velocity is None else block.radial_velocity
        # Zero is what headers have that know of none.
        velocity = np.where(at_rest | (stated == 0), np.nan, stated)
        return Said(block.setting.medium, at_rest, velocity, block.setting.frame == "barycentric")

    def _unreadable(self, failure: Failure) -> Rows:
        nothing = np.full((1, len(self.bundle.sidecar.labels)), np.nan)
        with_interval = self.options.level is not None
        unrelated = of_pairs(np.full((1, nothing.size, nothing.size), np.nan))
        return Rows(
            file=[failure.file],
            hdu=[failure.hdu],
            row=[failure.row],
            id=[""],
            values=nothing,
            errors=nothing,
            snr=np.array([np.nan]),
            coverage=np.array([0.0]),
            flags=np.array([int(Flag.unreadable)], dtype=np.int64),
            messages=[failure.message],
            lo=nothing if with_interval else None,
            hi=nothing if with_interval else None,
            rv=np.array([np.nan]) if self.options.prepare.rv is not None else None,
            correlations=unrelated if self.options.covariance else None,
        )


def _joined(*texts: str | None) -> str:
    return "; ".join(filter(None, texts))


def _messages(
    read: Sequence[tuple[str, ...]], prepared: Sequence[tuple[str, ...]], own: Mapping[int, str]
) -> list[str]:
    """Return the notes of reader and preparation, one text a spectrum, most share theirs; some rows have one more."""
    texts: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for both in zip(read, prepared, strict=True):
        if both not in texts:
            texts[both] = "; ".join((*both[0], *both[1]))
    messages = [texts[both] for both in zip(read, prepared, strict=True)]
    for row, reason in own.items():
        messages[row] = _joined(messages[row], reason)
    return messages


def infer(bundle: Bundle, spectra: Iterable[Spectrum | Unread], options: InferOptions | None = None) -> Iterator[Rows]:
    """Infer the labels of spectra, a block at a time, in bounded memory.

    Parameters
    ----------
    bundle : Bundle
    spectra : iterable of Spectrum or Unread
        One that cannot be read becomes a row that says why.
    options : InferOptions, optional

    Yields
    ------
    Rows
    """
    return Inference(bundle, options).run(as_blocks(spectra))


def infer_files(bundle: Bundle, files: Iterable[str], options: InferOptions | None = None) -> Iterator[Rows]:
    """Infer every spectrum of some files; one that cannot be read becomes a row that says why.

    Yields
    ------
    Rows
        In the order of the files.
    """
    return Inference(bundle, options).run_parts(map(Part, files))


def infer_table(bundle: Bundle, spectra: Any, options: InferOptions | None = None) -> QTable:
    """Infer spectra given in any form that Python users have; see `Bundle.infer`."""
    from anna_onnx.adoption import as_spectra

    options = options or InferOptions()
    blocks = list(infer(bundle, as_spectra(spectra, options.read), options))
    if not blocks:
        raise AnnaError("no spectra given")
    return as_qtable(join(blocks), bundle.sidecar.labels, model_info(bundle) | options.said)


def half_width(bundle: Bundle, sigma: FloatArray, snr: FloatArray, level: float) -> FloatArray:
    """Return the calibrated half width of an interval, shape (n, n_label); without calibration, a Gaussian's.

    Raises
    ------
    AnnaError
        If the level is no probability, or one that the calibration does not reach.
    """
    if not 0 < level < 1:
        raise AnnaError(f"level {level}, needed a probability above 0 and below 1, such as 0.9")
    if bundle.sidecar.calibration is not None:
        return bundle.sidecar.calibration.half_width(sigma, snr, level)
    from statistics import NormalDist

    return sigma * NormalDist().inv_cdf(0.5 + level / 2)


def model_info(bundle: Bundle) -> dict[str, str]:
    """Return what the header of a table says of the model."""
    version = str(bundle.sidecar.provenance.get("versions", {}).get("anna-onnx", ""))
    return {"model": bundle.name, "sha256": bundle.sidecar.sha256, "version": version}


def selftest_text(model: str, device: str = "cpu") -> str:
    """Run the self-test of a model and say what came of it.

    Raises
    ------
    BundleError
        If this machine's answers differ by more than 1e-4 of a label's range.
    """
    deviation = run_selftest(Bundle.load(find_model(model)), device)
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
    test = bundle.sidecar.selftest
    if test is None:
        raise BundleError(f"{bundle.name}: carries no self-test")
    labels, sigma, *_ = Session(bundle, device).run(test.flux)
    span = np.array([label.span for label in bundle.sidecar.labels])
    deviation = np.abs(np.concatenate([labels - test.labels, sigma - test.sigma])) / span
    return float(deviation.max())
