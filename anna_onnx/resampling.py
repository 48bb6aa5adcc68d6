"""A wavelength grid, and the way of a spectrum onto it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.errors import CoverageError, SpectrumError
from anna_onnx.spectrum import BoolArray, FloatArray, Spectrum


@dataclass(frozen=True, eq=False)
class Grid:
    """The wavelengths that a network sees.

    Parameters
    ----------
    wavelength : array_like of float64, shape (n_pixel,)
        Pixel centres, Angstrom, finite, positive, strictly ascending.
    medium : {'air', 'vacuum'}

    Raises
    ------
    SpectrumError
        If the wavelengths do not make a grid.
    """

    wavelength: FloatArray
    medium: Literal["air", "vacuum"] = "air"

    def __post_init__(self) -> None:
        wavelength = np.ascontiguousarray(self.wavelength, dtype=np.float64)
        if wavelength.ndim != 1 or wavelength.size < 2:
            raise SpectrumError(f"a wavelength grid of shape {wavelength.shape}, needed at least 2 pixels in a row")
        if not np.isfinite(wavelength).all() or wavelength[0] <= 0 or not (np.diff(wavelength) > 0).all():
            raise SpectrumError("the wavelengths of a grid must be finite, positive and strictly ascending")
        if self.medium not in ("air", "vacuum"):
            raise SpectrumError(f"a wavelength grid in medium '{self.medium}', needed air or vacuum")
        object.__setattr__(self, "wavelength", wavelength)

    @property
    def n_pixel(self) -> int:
        """Number of pixels."""
        return int(self.wavelength.size)

    def __str__(self) -> str:
        return f"{self.wavelength[0]:.1f}-{self.wavelength[-1]:.1f} Å ({self.medium})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.medium == other.medium
            and np.array_equal(self.wavelength, other.wavelength)
        )

    __hash__ = None  # type: ignore[assignment]  # it holds an array


@dataclass(frozen=True, eq=False)
class Resampled:
    """A spectrum on a grid.

    Attributes
    ----------
    flux : array of float64, shape (n_pixel,)
        NaN where `valid` is False.
    sigma : array of float64, shape (n_pixel,), or None
        Standard deviation of each pixel; the correlation that
        interpolation brings between neighbours is not kept.
    valid : array of bool, shape (n_pixel,)
        True where the spectrum covers the grid with good pixels.
    bad : array of bool, shape (n_pixel,)
        True where the spectrum covers the grid but a pixel was bad.
    """

    flux: FloatArray
    sigma: FloatArray | None
    valid: BoolArray
    bad: BoolArray


def resample(spectrum: Spectrum, grid: Grid) -> Resampled:
    """Bring a spectrum onto a wavelength grid.

    Where the grid's pixels are larger than the spectrum's, flux density is
    averaged over each pixel (Carnall 2017, arXiv:1705.05165), so that the
    equivalent width of a line is kept; elsewhere it is interpolated linearly.
    The medium is not looked at: see `anna_onnx.preparation`.

    Parameters
    ----------
    spectrum : Spectrum, shape (n_in,)
    grid : Grid, shape (n_pixel,)

    Returns
    -------
    Resampled

    Raises
    ------
    CoverageError
        If no pixel of the grid lies inside the spectrum.
    """
    inside = (grid.wavelength >= spectrum.wavelength[0]) & (grid.wavelength <= spectrum.wavelength[-1])
    if not inside.any():
        first, last = spectrum.wavelength[[0, -1]]
        raise CoverageError(f"{spectrum.name}: covers {first:.1f}-{last:.1f} Å, the model needs {grid}")
    if grid.n_pixel == spectrum.n_pixel and np.array_equal(grid.wavelength, spectrum.wavelength):
        flux, sigma, usable = spectrum.flux, spectrum.sigma, ~spectrum.bad
    elif _pixel_width(grid.wavelength, grid.wavelength) > 1.0001 * _pixel_width(spectrum.wavelength, grid.wavelength):
        flux, sigma, usable = _average(spectrum, grid.wavelength)
    else:
        flux, sigma, usable = _interpolate(spectrum, grid.wavelength)
    valid = inside & usable
    return Resampled(
        flux=np.where(valid, flux, np.nan),
        sigma=None if sigma is None else np.where(valid, sigma, np.nan),
        valid=valid,
        bad=inside & ~usable,
    )


def pixel_edges(wavelength: ArrayLike) -> NDArray[np.float64]:
    """Return the edges of pixels from their centres, shape (n_pixel + 1,): halfway between neighbours."""
    center = np.asarray(wavelength, dtype=np.float64)
    middle = 0.5 * (center[1:] + center[:-1])
    first, last = 2 * center[0] - middle[0], 2 * center[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _pixel_width(wavelength: FloatArray, where: FloatArray) -> float:
    """Return the median width of the pixels that lie in the range of `where`."""
    inside = (wavelength >= where[0]) & (wavelength <= where[-1])
    return float(np.median(np.diff(wavelength[inside] if inside.sum() > 2 else wavelength)))


def _interpolate(spectrum: Spectrum, wavelength: FloatArray) -> tuple[FloatArray, FloatArray | None, BoolArray]:
    right = np.clip(np.searchsorted(spectrum.wavelength, wavelength), 1, spectrum.n_pixel - 1)
    left = right - 1
    step = spectrum.wavelength[right] - spectrum.wavelength[left]
    weight = (wavelength - spectrum.wavelength[left]) / step
    # A neighbour of weight zero must not spoil the pixel with its NaN.
    use_left, use_right = weight < 1, weight > 0
    good = np.where(spectrum.bad, np.nan, spectrum.flux)
    flux = np.where(use_left, (1 - weight) * good[left], 0) + np.where(use_right, weight * good[right], 0)
    usable = ~((spectrum.bad[left] & use_left) | (spectrum.bad[right] & use_right))
    # A step much wider than usual is a gap between orders or a hole, not a place to interpolate over.
    usable &= ~((step > 5 * np.median(np.diff(spectrum.wavelength))) & use_left & use_right)
    if spectrum.sigma is None:
        return flux, None, usable
    sigma = np.hypot((1 - weight) * spectrum.sigma[left], weight * spectrum.sigma[right])
    return flux, sigma, usable


def _average(spectrum: Spectrum, wavelength: FloatArray) -> tuple[FloatArray, FloatArray | None, BoolArray]:
    """Average over the output pixels by differences of the running integral over the input pixels."""
    edges_in, edges_out = pixel_edges(spectrum.wavelength), pixel_edges(wavelength)
    width = np.diff(edges_in)
    good = ~spectrum.bad

    def integrate(density: FloatArray) -> FloatArray:
        """Integrate a density, constant within each input pixel, over each output pixel."""
        total = np.concatenate([[0.0], np.cumsum(density * width)])
        return np.diff(np.interp(edges_out, edges_in, total))

    covered = integrate(good.astype(np.float64))
    safe = np.where(covered > 0, covered, np.nan)
    flux = integrate(np.where(good, spectrum.flux, 0.0)) / safe
    # At the ends of the spectrum half a pixel of good flux is enough.
    usable = covered >= 0.5 * np.diff(edges_out)
    if spectrum.sigma is None:
        return flux, None, usable
    # Partial pixels count by their fraction, to which the variance of a mean is linear enough.
    variance = integrate(np.where(good, spectrum.sigma**2 * width, 0.0)) / safe**2
    return flux, np.sqrt(variance), usable
