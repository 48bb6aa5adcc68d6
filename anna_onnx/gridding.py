"""The steps from spectra as they came to the wavelength grid, for any number of spectra at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, Floats
from anna_onnx.continuum import Normalization, fit_continuum
from anna_onnx.medium import convert, doppler
from anna_onnx.quality import estimate_snr, off_continuum
from anna_onnx.resampling import FWHM, Degrader, Grid, Interpolation, Resampler, Way, resampler
from anna_onnx.spectrum import Medium

LARGEST_FLUX = 1e30
"""What is not smaller is padding or damage; float32 ends at 3e38."""


class Spectra(NamedTuple):
    """Spectra that share their wavelengths, as they came.

    Attributes
    ----------
    wavelength : array of float64, shape (n_in,)
    flux, sigma : arrays, shape (n, n_in)
    bad : array of bool or int, shape (n, n_in)
    medium : str
    """

    wavelength: FloatArray
    flux: Floats
    sigma: Floats | None
    bad: BoolArray | None
    medium: Medium

    def take(self, rows: NDArray[np.intp]) -> Spectra:
        """Return some of the spectra."""
        sigma = None if self.sigma is None else self.sigma[rows]
        bad = None if self.bad is None else self.bad[rows]
        return Spectra(self.wavelength, self.flux[rows], sigma, bad, self.medium)

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
    n_good, n_covered : arrays of int, shape (n,)
        Pixels with good flux, and with any, of those that training had.
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
        """Pixels that are covered, but not by good flux."""
        return self.n_covered - self.n_good

    @classmethod
    def join(cls, parts: list[Gridded], rows: list[NDArray[np.intp]]) -> Gridded:
        """Put parts together, `rows` being the places of their rows."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate(rows))
        sigma = [part.sigma for part in parts if part.sigma is not None]
        return cls(
            flux=np.concatenate([part.flux for part in parts])[order],
            sigma=np.concatenate(sigma)[order] if sigma else None,
            n_good=np.concatenate([part.n_good for part in parts])[order],
            n_covered=np.concatenate([part.n_covered for part in parts])[order],
            snr=np.concatenate([part.snr for part in parts])[order],
            normalized=np.concatenate([part.normalized for part in parts])[order],
            n_seen=parts[0].n_seen,
        )


class Gridder:
    """Brings spectra onto a grid, and remembers the way for the next that share their wavelengths.

    Parameters
    ----------
    grid : Grid
    interpolation : {'cubic', 'linear'}
    seen : array of bool, shape (n_pixel,)
        Whether training had a pixel; where it had not, flux is left out.
    """

    def __init__(self, grid: Grid, interpolation: Way, seen: BoolArray) -> None:
        self._grid, self._interpolation, self._seen = grid, interpolation, seen
        self._n_seen = int(np.count_nonzero(seen))
        self._roads: list[Road] = []

    def bring(self, spectra: Spectra, treatment: Treatment, rv: FloatArray | None) -> Gridded:
        """Bring spectra onto the grid.

        Parameters
        ----------
        spectra : Spectra
        treatment : Treatment
        rv : array of float64, shape (n,), or None
            Velocities to remove, km/s; nothing is removed where it is NaN.
        """
        if rv is None:
            return self._along(self._road(spectra, 0.0, treatment.degrade), spectra, treatment)
        velocity = np.nan_to_num(rv)
        if (velocity == velocity[0]).all():
            return self._along(self._road(spectra, float(velocity[0]), treatment.degrade), spectra, treatment)
        parts, places = [], []
        for value in np.unique(velocity):
            rows = np.flatnonzero(velocity == value)
            road = self._road(spectra, float(value), treatment.degrade)
            parts.append(self._along(road, spectra.take(rows), treatment))
            places.append(rows)
        return Gridded.join(parts, places)

    def _road(self, spectra: Spectra, velocity: float, degrade: tuple[float, float] | None) -> Road:
        """Return the way for these wavelengths, one of the last two from memory: files of a night share theirs."""
        key = (spectra.medium, velocity, degrade)
        for road in self._roads:
            if road.key == key and np.array_equal(road.source, spectra.wavelength):
                return road
        road = Road(spectra.wavelength, self._grid, self._interpolation, self._seen, *key)
        self._roads = [road, *self._roads[:1]]
        return road

    def _along(self, road: Road, spectra: Spectra, treatment: Treatment) -> Gridded:
        n = len(spectra.flux)
        if road.resampler is None:
            return self._nothing(n, spectra.sigma is not None)
        flux, sigma, bad = spectra.cut(road.columns)
        snr = estimate_snr(flux, sigma, bad) * road.gain
        normalized = np.zeros(n, dtype=np.int8)
        if treatment.recipe is not None:
            flux, sigma, bad, normalized = _normalize(road.wavelength, flux, sigma, bad, snr, treatment)
        if road.degrader is not None:
            flux, sigma, valid = road.degrader.apply(flux, sigma, bad)
            bad = ~valid
        flux, sigma, valid = road.resampler.apply(flux, sigma, bad)
        if self._n_seen < self._seen.size:
            flux, valid = np.where(self._seen, flux, np.nan), valid & self._seen
            sigma = None if sigma is None else np.where(self._seen, sigma, np.nan)
        return Gridded(
            flux=flux.astype(np.float32, copy=False),
            sigma=None if sigma is None else sigma.astype(np.float32, copy=False),
            n_good=np.count_nonzero(valid, axis=1),
            n_covered=np.full(n, road.n_covered),
            snr=snr,
            normalized=normalized,
            n_seen=self._n_seen,
        )

    def _nothing(self, n: int, with_sigma: bool) -> Gridded:
        empty = np.full((n, self._grid.n_pixel), np.nan, dtype=np.float32)
        none = np.zeros(n, dtype=np.intp)
        sigma = empty if with_sigma else None
        return Gridded(empty, sigma, none, none, np.full(n, np.nan), np.zeros(n, dtype=np.int8), self._n_seen)


class Road:
    """The way from a wavelength vector to the grid, worked out once for all spectra that share it.

    Parameters
    ----------
    source : array of float64, shape (n_in,)
        Wavelengths of the input.
    grid : Grid
    seen : array of bool, shape (n_pixel,)
        Pixels of the grid that count.
    medium : str
        Of the input.
    velocity : float
        To remove, km/s.
    degrade : (from, to), optional
        Resolving powers.

    Attributes
    ----------
    columns : slice
        Pixels of the input that matter.
    wavelength : array of float64
        Theirs, in the medium of the grid and with the velocity removed.
    resampler : Resampler or None
        None when input and grid share no wavelengths.
    degrader : Degrader or None
    n_covered : int
        Pixels of the grid that the input covers, gaps in it left out.
    gain : float
        Signal-to-noise ratio per pixel of the grid over that per pixel of the input.
    """

    resampler: Resampler | None = None
    degrader: Degrader | None = None

    def __init__(
        self,
        source: FloatArray,
        grid: Grid,
        interpolation: Way,
        seen: BoolArray,
        medium: Medium,
        velocity: float,
        degrade: tuple[float, float] | None,
    ) -> None:
        # A copy: the caller may change the array before the next spectrum comes.
        self.source, self.key = source.copy(), (medium, velocity, degrade)
        first, last = grid.wavelength[[0, -1]]
        # Four standard deviations of the Gaussian, and a few pixels to interpolate between.
        margin = 0.0 if degrade is None else 4 * np.sqrt(degrade[1] ** -2 - degrade[0] ** -2) / FWHM
        shift = float(doppler(velocity))
        needed = np.array([first * (1 - margin), last * (1 + margin)]) * shift
        if medium != "unknown":
            needed = convert(needed, grid.medium, medium)
        low, high = np.searchsorted(source, needed)
        self.columns = slice(max(int(low) - 3, 0), int(high) + 3)
        self.wavelength = convert(source[self.columns], medium, grid.medium) / shift
        if self.wavelength.size < 2 or last < self.wavelength[0] or first > self.wavelength[-1]:
            return
        direct = resampler(self.wavelength, grid.wavelength, interpolation)
        self.gain = np.sqrt(max(1.0, direct.ratio))
        self.n_covered = int(np.count_nonzero(direct.covers & seen))
        if degrade is None:
            self.resampler = direct
        else:
            self.degrader = Degrader(self.wavelength, *degrade)
            # Nothing is finer than the model's resolution any more, to which the width of its pixels would add.
            self.resampler = Interpolation(self.degrader.wavelength, grid.wavelength, interpolation, smooth=True)
            self.gain = self._noise_gain()

    def _noise_gain(self) -> float:
        """Return by how much the noise of a pixel is lowered on the whole way."""
        assert self.degrader is not None
        assert self.resampler is not None
        even = np.ones((1, self.wavelength.size))
        flux, sigma, valid = self.degrader.apply(even, even)
        _, sigma, _ = self.resampler.apply(flux, sigma, ~valid)
        assert sigma is not None
        known = np.sort(sigma[np.isfinite(sigma)])
        return float(1 / known[known.size // 2]) if known.size else self.gain


def _normalize(
    wavelength: FloatArray,
    flux: Floats,
    sigma: Floats | None,
    bad: BoolArray | None,
    snr: FloatArray,
    treatment: Treatment,
) -> tuple[Floats, Floats | None, BoolArray, NDArray[np.int8]]:
    """Divide spectra by their continuum; the last array is 1 where that was done, -1 where none was found."""
    assert treatment.recipe is not None
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
