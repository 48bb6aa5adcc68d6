"""Doctor: are spectra like those that a model was trained on, and if not, what would have to change?

Measured for every spectrum, as the network sees it:

* the noise of its pixels: from differences of what the model's space of training spectra leaves of it, or, where the
  resolving power was lowered, as inference states it,
* its velocity, the offset and slope of its continuum, and the width of its lines: by a fit of synthetic spectra at the
  inferred labels, or of the mean training spectrum where no grid belongs to the model,
* features that many spectra share, present or missing, and no training spectrum has.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, IntArray
from anna_onnx.blocks import Failure, Part, read_blocks
from anna_onnx.bundle import Bundle
from anna_onnx.errors import AnnaError, GridError
from anna_onnx.flags import Flag
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.labels import canonical
from anna_onnx.medium import C_KMS
from anna_onnx.novelty import Novelty
from anna_onnx.origin import grid_of, instrument_of
from anna_onnx.preparation import PrepareOptions
from anna_onnx.progress import Progress, silent
from anna_onnx.readers import ReadOptions
from anna_onnx.resampling import FWHM, pixel_width
from anna_onnx.scatter import MAD
from anna_onnx.session import Session
from anna_onnx.synthesis import SpectralGrid, Synthesizer
from anna_onnx.velocity import measure_rv

MAX_SPECTRA = 200
"""Spectra of a sample that are looked at."""
WIDTHS = np.geomspace(0.5, 4.0, 13)
"""Line widths that are tried, in those of the training."""
N_BIN, PER_BIN = 40, 3000
"""Places along the spectrum at which the noise is measured, at most, and how many pixels of all spectra make one:
their median is good to 3 %."""
SIGNIFICANT, NOTABLE = 5.0, 0.01
"""A deviation that many spectra share must exceed so many standard errors, and so much of the continuum."""
_REACH = 7  # widths of the trained profile that the grid needs beside the pixels
MIN_SPECTRA = 5
"""Spectra that must show a deviation before it is taken for more than one star's."""
MIN_CHI2_GAIN = 25.0
"""By how much a line width must lower chi square below that of the worst to count."""


@dataclass(frozen=True)
class Deviation:
    """A piece of the spectrum where many spectra differ alike from all training spectra.

    Attributes
    ----------
    first, last : float
        Wavelengths, Angstrom.
    depth : float
        Largest median deviation, in units of the continuum; negative for absorption.
    """

    first: float
    last: float
    depth: float


@dataclass(frozen=True, eq=False)
class Sample:
    """Spectra as the network sees them, and what it makes of them.

    Attributes
    ----------
    flux : array of float32, shape (n, n_pixel)
    sigma : array of float32, shape (n, n_pixel), or None
        Errors that came with the spectra.
    values : array, shape (n, n_label)
    flags : array of int64, shape (n,)
    failed : int
        Files or spectra that could not be read or share no wavelengths with the model.
    coarseness : float
        Usual width of the files' pixels, in that of the model's.
    degraded : array of bool, shape (n,)
        Whether the resolving power was lowered, so that pixels share their noise.
    snr : array, shape (n,)
        As inference states it.
    stated_resolution, stated_velocity : arrays, shape (n,)
        What was asked for or the files state (km/s), NaN where they do not.
    """

    flux: Float32Array
    sigma: Float32Array | None
    values: FloatArray
    flags: IntArray
    failed: int
    coarseness: float
    degraded: BoolArray
    snr: FloatArray
    stated_resolution: FloatArray
    stated_velocity: FloatArray

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of a sample.

    Attributes
    ----------
    n, failed : int
    snr : array, shape (n,)
        Of a pixel where `template` is 1; of degraded spectra as inference states it; NaN where it cannot be measured.
    template : array, shape (n_pixel,)
        Relative S/N, its median 1.
    noise_ratio : float or None
        Measured noise over the errors that came with the spectra.
    velocity : array, shape (n,)
        km/s; NaN where none could be measured.
    offset, slope : arrays, shape (n,)
        Errors of the continuum: constant, and between centre and end.
    resolution : float or None
        Resolving power of the sharpest spectra, all of the width of their lines taken for the instrument's.
    coverage, missing : arrays, shape (n,)
        Fraction of the grid from the first to the last good pixel, and the fraction missing in between; of the pixels
        that training had.
    deviations : tuple of Deviation
        The strongest first.
    unlike, outside, unnormalized : float
        Fraction of the spectra with the flags unlike_training, outside_labels and not_normalized. Where most have
        the last, all were divided by a fitted continuum before they were measured.
    reference : str
        What the spectra were compared with.
    stated_resolution : float or None
        Resolving power that was asked for or that files state, of most spectra.
    stated_velocity : array, shape (n,)
        km/s, NaN where the file states none.
    degraded : bool
        Whether the resolving power of most was lowered to the model's.
    """

    n: int
    failed: int
    snr: FloatArray
    template: FloatArray
    noise_ratio: float | None
    velocity: FloatArray
    offset: FloatArray
    slope: FloatArray
    resolution: float | None
    coverage: FloatArray
    missing: FloatArray
    deviations: tuple[Deviation, ...]
    unlike: float
    outside: float
    unnormalized: float
    reference: str
    stated_resolution: float | None
    stated_velocity: FloatArray
    degraded: bool


def examine(
    bundle: Bundle,
    files: Sequence[str | os.PathLike[str]],
    *,
    grid: str | None = None,
    most: int = MAX_SPECTRA,
    resolution: float | None = None,
    progress: Progress = silent,
    **read: Any,
) -> Measurements:
    """Measure what a sample of spectra is like.

    Parameters
    ----------
    bundle : Bundle
    files : sequence of path-like
    grid : str, optional
        Grid of synthetic spectra to compare with; see `anna_onnx.origin.grid_of`.
    most : int
        Spectra to look at, the first ones.
    resolution : float, optional
        Resolving power of the spectra, as for inference: sharper ones are degraded first.
    progress : Progress
    **read
        See `anna_onnx.readers.ReadOptions`; None where the file decides.

    Raises
    ------
    AnnaError
        If no spectrum could be used, or the grid that was asked for does not fit.
    """
    asked = InferOptions(prepare=PrepareOptions(resolution=resolution), read=ReadOptions(**read))
    sample, unnormalized = _gather_normalized(bundle, files, most, asked)
    reference = _Reference(bundle, sample, grid, progress)
    left, directions = _without_lines(sample, reference, bundle.sidecar.novelty)
    snr, template = measure_noise(left, directions, sample.coarseness)
    stated = None
    if sample.sigma is not None and not sample.degraded.any():
        stated = float(np.nanmedian(1 / (snr[:, None] * template) / sample.sigma))
    # Pixels that share their noise hardly differ from their neighbours: what the file's own pixels tell counts.
    snr = np.where(sample.degraded & np.isfinite(sample.snr), sample.snr, snr)
    coverage, missing = _coverage(sample.flux[:, bundle.sidecar.preparation.seen])
    return Measurements(
        n=len(sample),
        failed=sample.failed,
        snr=snr,
        template=template,
        noise_ratio=stated,
        velocity=reference.velocity,
        offset=reference.offset,
        slope=reference.slope,
        resolution=reference.resolution,
        coverage=coverage,
        missing=missing,
        deviations=find_deviations(left, snr, template, bundle.sidecar.grid.wavelength),
        unlike=float((sample.flags & Flag.unlike_training.value > 0).mean()),
        outside=float((sample.flags & Flag.outside_labels.value > 0).mean()),
        unnormalized=unnormalized,
        reference=reference.name,
        stated_resolution=_usual_resolution(sample.stated_resolution),
        stated_velocity=sample.stated_velocity,
        degraded=bool(sample.degraded.mean() > 0.5),
    )


def _gather_normalized(
    bundle: Bundle, files: Sequence[str | os.PathLike[str]], most: int, asked: InferOptions
) -> tuple[Sample, float]:
    """Return the sample, all divided by their continuum where most need it, and the share of those that do."""
    sample = gather(Inference(bundle, asked), files, most)
    unnormalized = float((sample.flags & Flag.not_normalized.value > 0).mean())
    if unnormalized > 0.5:
        divided = dataclasses.replace(asked, prepare=dataclasses.replace(asked.prepare, normalize=True))
        sample = gather(Inference(bundle, divided), files, most)
    return sample, unnormalized


def _usual_resolution(stated: FloatArray) -> float | None:
    """Return the median of the resolving powers that are stated, None where most are not."""
    known = stated[np.isfinite(stated)]
    return float(np.median(known)) if known.size > len(stated) / 2 else None


def gather(inference: Inference, files: Iterable[str | os.PathLike[str]], most: int = MAX_SPECTRA) -> Sample:
    """Read, prepare and infer the first spectra of some files.

    Raises
    ------
    AnnaError
        If none could be used; the message says why for the first.
    """
    flux, sigma, values, flags, coarseness, why = [], [], [], [], [], []
    degraded, snr, resolution, velocity = [], [], [], []
    pixels = inference.bundle.sidecar.grid.wavelength
    for block in read_blocks((Part(os.fspath(file)) for file in files), inference.options.read):
        rows = inference.rows(block)
        if isinstance(block, Failure):
            why.append(block.message)
            continue
        prepared = inference.prepare(block)
        good = (prepared.flags & Flag.no_coverage) == 0
        why += [f"{rows.file[row]}: {rows.messages[row]}" for row in np.flatnonzero(~good).tolist()]
        flux.append(prepared.flux[good])
        sigma.append(None if prepared.sigma is None else prepared.sigma[good])
        values.append(rows.values[good])
        flags.append(rows.flags[good])
        n_good = int(good.sum())
        degraded.append(np.full(n_good, prepared.smoothing.width > 0))
        snr.append(prepared.snr[good])
        known = inference.options.prepare.resolution or block.setting.resolution
        resolution.append(np.full(n_good, known or np.nan))
        moves = block.radial_velocity
        velocity.append(np.full(n_good, np.nan) if moves is None else moves[good])
        coarseness.append(
            pixel_width(block.setting.wavelength, *pixels[[0, -1]]) / pixel_width(pixels, *pixels[[0, -1]])
        )
        if sum(map(len, flux)) >= most:
            break
    if not sum(map(len, flux)):
        raise AnnaError(f"no spectrum could be used: {why[0] if why else 'the files hold none'}")
    errors = [part for part in sigma if part is not None]
    return Sample(
        np.concatenate(flux)[:most],
        np.concatenate(errors)[:most] if len(errors) == len(sigma) else None,
        np.concatenate(values)[:most],
        np.concatenate(flags)[:most],
        len(why),
        float(np.median(coarseness)),
        *(np.concatenate(part)[:most] for part in (degraded, snr, resolution, velocity)),
    )


# --- noise and coverage ---------------------------------------------------------------


def measure_noise(left: FloatArray, directions: FloatArray, coarseness: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Measure the signal-to-noise ratio of spectra and how it goes along them.

    From second differences, of pixels i - 2, i and i + 2 (Stoehr et al. 2008, ASP Conf. Ser. 394, 505), of what is left
    when the lines are taken out; what is wider than that, such as lines that were not taken out wholly, drops out too.

    Parameters
    ----------
    left : array, shape (n, n_pixel)
        In units of the continuum, NaN where a pixel is not valid.
    directions : array, shape (n_component, n_pixel)
        Orthonormal directions that were taken out, and some of the noise with them.
    coarseness : float
        Width of the pixels as they came; where they were interpolated onto finer ones, neighbours share
        their noise, and pixels that are farther apart are compared.

    Returns
    -------
    snr : array, shape (n,)
    template : array, shape (n_pixel,)
        Relative S/N, its median 1.
    """
    n_pixel = left.shape[1]
    reach = min(2 * max(1, int(np.ceil(coarseness - 0.2))), (n_pixel - 1) // 2)
    kept = 1 - (_second_difference(directions, reach) ** 2).sum(axis=0)
    difference = np.abs(_second_difference(left, reach)) / np.sqrt(np.maximum(kept, 0.01))
    pixel = np.arange(reach, n_pixel - reach)
    bins = np.array_split(np.arange(pixel.size), int(np.clip(difference.size // PER_BIN, 1, min(N_BIN, pixel.size))))
    center = np.array([pixel[part].mean() for part in bins])
    template = np.ones(n_pixel)
    for _ in range(3):
        snr = 1 / (MAD * _median(difference * template[reach:-reach], axis=1))
        scaled = difference * snr[:, None]
        noise = np.array([MAD * _median(scaled[:, part].ravel(), axis=0) for part in bins])
        known = np.isfinite(noise) & (noise > 0)
        template = np.interp(np.arange(n_pixel), center[known], 1 / noise[known]) if known.any() else template
        template /= np.median(template)
    return snr, template


def _second_difference(rows: FloatArray, reach: int) -> FloatArray:
    """Return the second difference of pixels that are `reach` apart, of white noise as large as the noise itself."""
    return np.asarray((2 * rows[:, reach:-reach] - rows[:, : -2 * reach] - rows[:, 2 * reach :]) / np.sqrt(6))


def _median(values: FloatArray, axis: int) -> FloatArray:
    """Return the median of what is known, NaN without a warning where nothing is."""
    known = np.isfinite(values)
    ordered = np.sort(np.where(known, values, np.inf), axis=axis)
    middle = np.maximum(known.sum(axis=axis, keepdims=True) - 1, 0) // 2
    found = np.take_along_axis(ordered, middle, axis=axis).squeeze(axis)
    return np.asarray(np.where(np.isfinite(found), found, np.nan))


def _coverage(flux: Float32Array) -> tuple[FloatArray, FloatArray]:
    """Return the fraction of the grid between the first and last good pixel, and the fraction missing in between."""
    good = np.isfinite(flux)
    n_pixel = flux.shape[1]
    reach = n_pixel - np.argmax(good, axis=1) - np.argmax(good[:, ::-1], axis=1)
    return reach / n_pixel, 1 - good.sum(axis=1) / reach


# --- what training spectra do not have ------------------------------------------------


def _without_lines(sample: Sample, reference: _Reference, novelty: Novelty | None) -> tuple[FloatArray, FloatArray]:
    """Return what is left of spectra without the space of the training spectra, and the directions of that space.

    Gaps are filled with what the space expects there, in a few rounds. Of a model that does not know the space, the
    reference is taken out.
    """
    flux = sample.flux - reference.continuum
    if novelty is None:
        return flux - reference.fitted, np.zeros((0, flux.shape[1]))
    valid = np.isfinite(flux)
    known = np.where(valid, flux - novelty.mean, 0)
    directions = novelty.orthonormal
    inside = (known @ directions.T) @ directions
    for _ in range(0 if valid.all() else 5):
        inside = (np.where(valid, known, inside) @ directions.T) @ directions
    return flux - novelty.mean - inside, directions


def find_deviations(
    left: FloatArray, snr: FloatArray, template: FloatArray, wavelength: FloatArray
) -> tuple[Deviation, ...]:
    """Find where many spectra differ alike from what training spectra can be, the strongest first.

    Parameters
    ----------
    left : array, shape (n, n_pixel)
        What is left of spectra when the space of the training spectra is taken out.
    snr, template
        See `measure_noise`.
    wavelength : array, shape (n_pixel,)
    """
    if len(left) < MIN_SPECTRA:
        return ()
    usual = _median(left, axis=0)
    usual -= _median(usual, axis=0)
    error = 1.2533 / (_median(snr, axis=0) * template * np.sqrt(np.maximum(np.isfinite(left).sum(axis=0), 1)))
    notable = np.abs(usual) > np.maximum(SIGNIFICANT * error, NOTABLE)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], notable.astype(int), [0]])))
    found = []
    for first, end in edges.reshape(-1, 2):
        piece = usual[first:end]
        found.append(
            Deviation(float(wavelength[first]), float(wavelength[end - 1]), float(piece[np.nanargmax(np.abs(piece))]))
        )
    return tuple(sorted(found, key=lambda one: -abs(one.depth)))


# --- velocity, continuum and line width -------------------------------------------------


class ContinuumFit(NamedTuple):
    """Fits of flux - 1 = offset + slope x + strength (reference - 1), one for each spectrum.

    Attributes
    ----------
    coefficients : array, shape (n, 3)
    misfit : array, shape (n,)
        Mean square of what is left.
    lines : array, shape (n, n_pixel)
        strength (reference - 1)
    """

    coefficients: FloatArray
    misfit: FloatArray
    lines: FloatArray


class _Reference:
    """What spectra are compared with, and what the comparison gives.

    Attributes
    ----------
    name : str
    velocity, offset, slope : arrays, shape (n,)
    resolution : float or None
    continuum, fitted : arrays, shape (n, n_pixel)
        Error of the continuum, and the reference fitted to what is left.
    """

    def __init__(self, bundle: Bundle, sample: Sample, grid: str | None, progress: Progress) -> None:
        self._pixels, self._flux = bundle.sidecar.grid, sample.flux.astype(np.float64)
        wavelength = self._pixels.wavelength
        self._x = (2 * wavelength - wavelength[0] - wavelength[-1]) / (wavelength[-1] - wavelength[0])
        self.resolution: float | None = None
        n = len(sample)
        try:
            spectra = grid_of(bundle, grid)
        except GridError:
            if grid is not None:
                raise
            self._compare_with_mean(bundle, n)
        else:
            self._compare_with_grid(bundle, sample, spectra, progress)

    def _compare_with_mean(self, bundle: Bundle, n: int) -> None:
        novelty = bundle.sidecar.novelty
        self.name = "the mean training spectrum" if novelty is not None else "a flat continuum"
        mean = np.ones(self._pixels.n_pixel) if novelty is None else np.asarray(novelty.mean, dtype=np.float64)
        reference = np.broadcast_to(mean, (n, mean.size))
        self.velocity = self._velocities(reference)
        self._take(self._fit(reference))

    def _compare_with_grid(self, bundle: Bundle, sample: Sample, spectra: SpectralGrid, progress: Progress) -> None:
        """Fit synthetic spectra at the inferred labels, without rotation, of several line widths."""
        self.name = f"spectra of {spectra.path.name} at the inferred labels"
        instrument = instrument_of(bundle) or {"fwhm": 3 * float(np.diff(self._pixels.wavelength).mean())}
        trained = instrument.get("resolution") or float(self._pixels.wavelength.mean()) / instrument["fwhm"]
        fastest = _fastest(spectra, bundle, trained)
        sharp = Synthesizer.build(spectra, self._pixels, resolution=trained / WIDTHS[0], max_rv=fastest)
        usual = _broadened(sharp, trained, 1.0)
        values = sample.values
        for _ in range(2):
            labels = _grid_labels(bundle, values, spectra)
            self.velocity = self._velocities(usual(labels, np.zeros(len(labels))))
            shift = np.clip(np.nan_to_num(self.velocity), -fastest, fastest)
            # Labels that were inferred from a misplaced continuum are wrong: they are inferred again without that.
            self._take(self._fit(usual(labels, shift)))
            values = Session(bundle).run((self._flux - self.continuum).astype(np.float32)).labels
        fits = []
        for done, width in enumerate(WIDTHS, start=1):
            fits.append(self._fit(_broadened(sharp, trained, float(width))(labels, shift)))
            progress(done, len(WIDTHS))
        tried = ContinuumFit(*(np.stack(part, axis=1) for part in zip(*fits, strict=True)))  # (n, width, ...)
        rows, best = np.arange(len(labels)), tried.misfit.argmin(axis=1)
        self._take(ContinuumFit(*(part[rows, best] for part in tried)))
        usable = np.abs(np.nan_to_num(self.velocity, nan=np.inf)) <= fastest
        width = sharpest_width(tried.misfit[usable], np.isfinite(self._flux[usable]).sum(axis=1))
        self.resolution = None if width is None else trained / width

    def _velocities(self, reference: FloatArray) -> FloatArray:
        pairs = [measure_rv(flux, one, self._pixels) for flux, one in zip(self._flux, reference, strict=True)]
        return np.array([rv for rv, _ in pairs])

    def _fit(self, reference: FloatArray) -> ContinuumFit:
        valid = np.isfinite(self._flux)
        target = np.where(valid, self._flux - 1, 0)
        shapes = np.stack(np.broadcast_arrays(np.ones(self._x.size), self._x, reference - 1), axis=2) * valid[..., None]
        coefficients = np.stack([np.linalg.lstsq(a, b, rcond=1e-8)[0] for a, b in zip(shapes, target, strict=True)])
        left = target - np.einsum("npk,nk->np", shapes, coefficients)
        misfit = (left**2).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
        return ContinuumFit(coefficients, misfit, coefficients[:, 2:] * (reference - 1))

    def _take(self, fit: ContinuumFit) -> None:
        self.offset, self.slope = fit.coefficients[:, 0], fit.coefficients[:, 1]
        self.continuum = self.offset[:, None] + self.slope[:, None] * self._x
        self.fitted = 1 + fit.lines


def sharpest_width(misfit: FloatArray, n_pixel: NDArray[np.intp]) -> float | None:
    """Return the line width of the sharpest spectra, in that of the training; None when no spectrum shows any clearly.

    The weighted mean of the spectra within three errors of the 16th percentile: rotation only widens. The first or
    last of `WIDTHS` where the lines of most are sharper or wider than that.

    Parameters
    ----------
    misfit : array, shape (n, n_width)
        Mean square of a pixel for every one of `WIDTHS`.
    n_pixel : array, shape (n,)
        Good pixels of each spectrum.
    """
    step = float(np.log(WIDTHS[1] / WIDTHS[0]))
    clear = n_pixel * (misfit.max(axis=1) / misfit.min(axis=1) - 1) > MIN_CHI2_GAIN
    misfit, n_pixel = misfit[clear], n_pixel[clear]
    best = misfit.argmin(axis=1)
    rows = np.flatnonzero((best > 0) & (best < len(WIDTHS) - 1))
    if not best.size:
        return None
    if rows.size < best.size / 2:
        return float(WIDTHS[0] if (best == 0).sum() > (best > 0).sum() else WIDTHS[-1])
    left, middle, right = (misfit[rows, best[rows] + shift] for shift in (-1, 0, 1))
    curvature = left - 2 * middle + right
    log_width = np.log(WIDTHS[best[rows]]) + 0.5 * step * (left - right) / curvature
    error = step * np.sqrt(2 * middle / (n_pixel[rows] * curvature))
    low = np.percentile(log_width, 16)
    near = np.abs(log_width - low) <= 3 * error
    return float(np.exp(np.average(log_width[near], weights=error[near] ** -2))) if near.any() else float(np.exp(low))


def _grid_labels(bundle: Bundle, values: FloatArray, spectra: SpectralGrid) -> FloatArray:
    """Return where to synthesise: the inferred labels inside the grid, the middle of others, no rotation."""
    inferred = {canonical(label.name): values[:, i] for i, label in enumerate(bundle.sidecar.labels)}
    middle = np.ones(len(values))
    columns = [
        np.clip(np.nan_to_num(inferred.get(axis.name, middle * (axis.low + axis.high) / 2)), axis.low, axis.high)
        for axis in spectra.axes
    ]
    return np.stack([*columns, 0 * middle], axis=1)


def _broadened(sharp: Synthesizer, trained: float, width: float) -> Synthesizer:
    """Return a synthesizer of the sharpest of `WIDTHS` as one of another, times the width of the training."""
    variance = (width**2 - WIDTHS[0] ** 2) / (trained * FWHM) ** 2  # in ln(wavelength)
    passes = np.exp(-0.5 * variance * sharp.frequency**2).astype(sharp.real.dtype)
    return dataclasses.replace(sharp, real=sharp.real * passes, imag=sharp.imag * passes)


def _fastest(spectra: SpectralGrid, bundle: Bundle, trained: float) -> float:
    """Return the largest velocity, km/s, for which the grid reaches far enough beside the pixels."""
    own, needed = spectra.wavelength, bundle.sidecar.grid.wavelength
    room = min(needed[0] - own[0], own[-1] - needed[-1]) - _REACH * needed[-1] / trained
    return float(max(room / needed[-1] * C_KMS, 0.0))
