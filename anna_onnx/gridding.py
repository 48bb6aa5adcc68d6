"""The steps from spectra as they came to the wavelength grid, for any number of spectra at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, Floats
from anna_onnx.continuum import Normalization, fit_continuum
from anna_onnx.medium import convert, doppler
from anna_onnx.quality import estimate_snr, off_continuum
from anna_onnx.resampling import (
    FWHM,
    Degrader,
    Grid,
    Interpolation,
    InterpolationKind,
    Resampler,
    pixel_edges,
    resampler,
)
from anna_onnx.smoothing import Smoothing
from anna_onnx.spectrum import Frame, Medium

LARGEST_FLUX = 1e30
"""What is not smaller is padding or damage; float32 ends at 3e38."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra that share their wavelengths, as they came.

    Attributes
    ----------
    wavelength : array of float64, shape (n_in,)
        Angstrom, strictly ascending, in `medium` and `frame`.
    flux : array of float32 or float64, shape (n, n_in)
        Pixels that are not finite are bad.
    sigma : array, shape (n, n_in), or None
        Standard deviation; pixels where it is not finite and positive are bad.
    bad : array of bool or int, shape (n, n_in), or None
        True where the flux must not be used.
    medium, frame : str
    resolution : float or None
        Resolving power.
    radial_velocity : array of float64, shape (n,), or None
        Of the stars in `frame`, km/s, NaN = not known.
    """

    wavelength: FloatArray
    flux: Floats
    sigma: Floats | None = None
    bad: BoolArray | None = None
    medium: Medium = "unknown"
    frame: Frame = "unknown"
    resolution: float | None = None
    radial_velocity: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.flux)

    def take(self, rows: NDArray[np.intp]) -> Spectra:
        """Return some of the spectra."""
        names = ("flux", "sigma", "bad", "radial_velocity")
        arrays = {name: array[rows] for name in names if (array := getattr(self, name)) is not None}
        return replace(self, **arrays)

    def cut(self, columns: slice) -> tuple[Floats, Floats | None, BoolArray | None]:
        """Return flux, sigma and bad pixels of a range of pixels; None when no pixel is bad."""
        flux = self.flux[:, columns]
        sigma = None if self.sigma is None else self.sigma[:, columns]
        good = np.abs(flux) < LARGEST_FLUX
        if sigma is not None:
            good &= (sigma > 0) & (sigma < LARGEST_FLUX)
        if self.bad is not None:
            good &= self.bad[:, columns] == 0
        return flux, sigma, None if good.all() else ~good


class Treatment(NamedTuple):
    """What is to be done to spectra on their way.

    Attributes
    ----------
    recipe : Normalization or None
        To divide by the continuum with.
    only_if_needed : bool
        Whether spectra that look normalised are left as they are.
    degrade : (from, to) or None
        Resolving powers.
    """

    recipe: Normalization | None
    only_if_needed: bool
    degrade: tuple[float, float] | None


class Gridded(NamedTuple):
    """Spectra on the grid, and what became known on the way.

    Attributes
    ----------
    flux, sigma : arrays of float32, shape (n, n_pixel)
        NaN where there is no good flux.
    n_good, n_between, n_covered : arrays of int, shape (n,)
        Pixels with good flux, all from the first to the last of these, and those of them that the input covers; of
        those that training had.
    snr : array, shape (n,)
        Per pixel of the grid.
    normalized : array of int, shape (n,)
        1 where the continuum was divided by, -1 where none could be found.
    n_seen : int
        Pixels that training had.
    """

    flux: Float32Array
    sigma: Float32Array | None
    n_good: NDArray[np.intp]
    n_between: NDArray[np.intp]
    n_covered: NDArray[np.intp]
    snr: FloatArray
    normalized: NDArray[np.int8]
    n_seen: int

    @property
    def coverage(self) -> FloatArray:
        """Fraction of the grid with good flux, but for pixels that training never had."""
        return np.asarray(self.n_good / self.n_seen)

    @property
    def n_bad(self) -> NDArray[np.intp]:
        """Pixels between good ones that are covered, but not by good flux."""
        return self.n_covered - self.n_good

    @property
    def n_missing(self) -> NDArray[np.intp]:
        """Pixels between good ones that have no good flux, gaps among them."""
        return self.n_between - self.n_good

    @classmethod
    def join(cls, parts: list[Gridded], rows: list[NDArray[np.intp]]) -> Gridded:
        """Put parts together, `rows` being the places of their rows."""
        order = np.argsort(np.concatenate(rows))
        sigma = [part.sigma for part in parts if part.sigma is not None]
        return cls(
            flux=np.concatenate([part.flux for part in parts])[order],
            sigma=np.concatenate(sigma)[order] if sigma else None,
            n_good=np.concatenate([part.n_good for part in parts])[order],
            n_between=np.concatenate([part.n_between for part in parts])[order],
            n_covered=np.concatenate([part.n_covered for part in parts])[order],
            snr=np.concatenate([part.snr for part in parts])[order],
            normalized=np.concatenate([part.normalized for part in parts])[order],
            n_seen=parts[0].n_seen,
        )


_Key = tuple[Medium, float, tuple[float, float] | None]
"""Medium of the wavelengths, velocity to remove (km/s), and resolving powers to degrade from and to."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How to resample from a wavelength vector to the grid, worked out once for all spectra that share it.

    Attributes
    ----------
    columns : slice
        Pixels of the input that matter.
    wavelength : array of float64
        Theirs, in the medium of the grid and with the velocity removed.
    degrader : Degrader or None
        Comes before the resampler.
    resampler : Resampler
    covers : array of bool, shape (n_pixel,)
        Whether the input covers a pixel of the grid: gaps in it do not.
    gain : float
        Signal-to-noise ratio per pixel of the grid over that per pixel of the input.
    """

    columns: slice
    wavelength: FloatArray
    degrader: Degrader | None
    resampler: Resampler
    covers: BoolArray
    gain: float


class Gridder:
    """Resamples spectra onto a grid, and keeps the plan for the next that share their wavelengths.

    Parameters
    ----------
    grid : Grid
    interpolation : {'cubic', 'linear'}
    seen : array of bool, shape (n_pixel,)
        Whether training had a pixel; where it had not, flux is left out.
    """

    def __init__(self, grid: Grid, interpolation: InterpolationKind, seen: BoolArray) -> None:
        self._grid, self._interpolation, self._seen = grid, interpolation, seen
        self._n_seen = int(np.count_nonzero(seen))
        self._plans: list[tuple[_Key, FloatArray, Plan | None]] = []

    def resample(self, spectra: Spectra, treatment: Treatment, rv: FloatArray | None) -> Gridded:
        """Resample spectra onto the grid.

        Parameters
        ----------
        spectra : Spectra
        treatment : Treatment
        rv : array of float64, shape (n,), or None
            Velocities to remove, km/s; nothing is removed where it is NaN.
        """
        velocity = np.zeros(1) if rv is None else np.nan_to_num(rv)
        if (velocity == velocity[0]).all():
            return self._resample(spectra, treatment, float(velocity[0]))
        places = [np.flatnonzero(velocity == value) for value in np.unique(velocity)]
        parts = [self._resample(spectra.take(rows), treatment, float(velocity[rows[0]])) for rows in places]
        return Gridded.join(parts, places)

    def _resample(self, spectra: Spectra, treatment: Treatment, velocity: float) -> Gridded:
        """Resample spectra of one velocity."""
        n = len(spectra)
        plan = self._plan(spectra.wavelength, (spectra.medium, velocity, treatment.degrade))
        if plan is None:
            return self._nothing(n, spectra.sigma is not None)
        flux, sigma, bad = spectra.cut(plan.columns)
        snr = estimate_snr(flux, sigma, bad) * plan.gain
        flux, sigma, bad, normalized = _normalize(plan.wavelength, flux, sigma, bad, snr, treatment)
        if sigma is None and (normalized > 0).any():
            # On a slope the brightest pixels, whose noise was looked at, lie at one end.
            rows = np.flatnonzero(normalized > 0)
            snr[rows] = estimate_snr(flux[rows], None, None if bad is None else bad[rows]) * plan.gain
        if plan.degrader is not None:
            flux, sigma, valid = plan.degrader.apply(flux, sigma, bad)
            bad = ~valid
        flux, sigma, valid = plan.resampler.apply(flux, sigma, bad)
        if self._n_seen < self._seen.size:
            flux, valid = np.where(self._seen, flux, np.nan), valid & self._seen
            sigma = None if sigma is None else np.where(self._seen, sigma, np.nan)
        return Gridded(
            flux=flux.astype(np.float32, copy=False),
            sigma=None if sigma is None else sigma.astype(np.float32, copy=False),
            n_good=np.count_nonzero(valid, axis=1),
            n_between=_between_good(valid, self._seen),
            n_covered=_between_good(valid, self._seen & plan.covers),
            snr=snr,
            normalized=normalized,
            n_seen=self._n_seen,
        )

    def _plan(self, wavelength: FloatArray, key: _Key) -> Plan | None:
        """Return the plan for these wavelengths, one of the last two from memory: files of a night share theirs."""
        for known, source, plan in self._plans:
            if known == key and np.array_equal(source, wavelength):
                return plan
        plan = self._make_plan(wavelength, *key)
        # A copy: the caller may change the array before the next spectrum comes.
        self._plans = [(key, wavelength.copy(), plan), *self._plans[:1]]
        return plan

    def _make_plan(
        self, source: FloatArray, medium: Medium, velocity: float, degrade: tuple[float, float] | None
    ) -> Plan | None:
        """Work out how to resample from some wavelengths; None when they do not meet the grid."""
        grid = self._grid
        first, last = grid.wavelength[[0, -1]]
        # Four standard deviations of the Gaussian and a few pixels to interpolate between, or whole pixels to average.
        margin = 0.0 if degrade is None else 4 * np.sqrt(degrade[1] ** -2 - degrade[0] ** -2) / FWHM
        shift = float(doppler(velocity))
        needed = np.array([first * (1 - margin), last * (1 + margin), *pixel_edges(grid.wavelength)[[0, -1]]]) * shift
        if medium != "unknown":
            needed = convert(needed, grid.medium, medium)
        low, high, blue, red = np.searchsorted(source, needed).tolist()
        columns = slice(max(min(low - 3, blue - 1), 0), max(high + 3, red + 1))
        wavelength = convert(source[columns], medium, grid.medium) / shift
        if wavelength.size < 2 or last < wavelength[0] or first > wavelength[-1]:
            return None
        direct = resampler(wavelength, grid.wavelength, self._interpolation)
        gain = float(np.sqrt(max(1.0, direct.ratio)))
        if degrade is None:
            return Plan(columns, wavelength, None, direct, direct.covers, gain)
        degrader = Degrader(wavelength, *degrade)
        # Nothing is finer than the model's resolution any more, to which the width of its pixels would add.
        smooth = Interpolation(degrader.wavelength, grid.wavelength, self._interpolation, smooth=True)
        # What counts is the noise of lines, which falls less than that of pixels.
        gain = (_noise_gain(degrader, smooth, wavelength) or gain) / Smoothing.of(grid, degrade).excess
        return Plan(columns, wavelength, degrader, smooth, direct.covers, gain)

    def _nothing(self, n: int, with_sigma: bool) -> Gridded:
        empty = np.full((n, self._grid.n_pixel), np.nan, dtype=np.float32)
        none = np.zeros(n, dtype=np.intp)
        sigma = empty if with_sigma else None
        return Gridded(empty, sigma, none, none, none, np.full(n, np.nan), np.zeros(n, dtype=np.int8), self._n_seen)


def _between_good(valid: BoolArray, counted: BoolArray) -> NDArray[np.intp]:
    """Return how many of the pixels that count there are from the first to the last good one, shape (n,)."""
    first, last = valid.argmax(axis=1), counted.size - 1 - valid[:, ::-1].argmax(axis=1)
    up_to = np.append(0, np.cumsum(counted))
    return np.asarray(np.where(valid.any(axis=1), up_to[last + 1] - up_to[first], 0), dtype=np.intp)


def _noise_gain(degrader: Degrader, resampler: Resampler, wavelength: FloatArray) -> float | None:
    """Return by how much degrading and resampling lower the noise of a pixel; None where no pixel is left."""
    even = np.ones((1, wavelength.size))
    flux, sigma, valid = degrader.apply(even, even)
    _, sigma, _ = resampler.apply(flux, sigma, ~valid)
    assert sigma is not None
    known = np.sort(sigma[np.isfinite(sigma)])
    return float(1 / known[known.size // 2]) if known.size else None


def _normalize(
    wavelength: FloatArray,
    flux: Floats,
    sigma: Floats | None,
    bad: BoolArray | None,
    snr: FloatArray,
    treatment: Treatment,
) -> tuple[Floats, Floats | None, BoolArray | None, NDArray[np.int8]]:
    """Divide spectra by their continuum; the last array is 1 where that was done, -1 where none was found."""
    if treatment.recipe is None:
        return flux, sigma, bad, np.zeros(len(flux), dtype=np.int8)
    bad = np.zeros(flux.shape, dtype=np.bool_) if bad is None else bad
    done = np.ones(len(flux), dtype=np.int8)
    if treatment.only_if_needed:
        done[~off_continuum(np.where(bad, np.nan, flux), snr)] = 0
    continuum = np.ones(flux.shape)
    for row in np.flatnonzero(done):
        fitted = fit_continuum(wavelength, flux[row].astype(np.float64), ~bad[row], treatment.recipe)
        if np.isfinite(fitted).any():
            continuum[row] = fitted
        else:
            done[row] = -1
    flux = flux / continuum
    sigma = None if sigma is None else sigma / continuum
    return flux, sigma, bad | ~(np.abs(flux) < LARGEST_FLUX), done
