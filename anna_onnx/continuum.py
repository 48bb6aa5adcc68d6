"""Continuum normalisation: a robust smooth curve through the upper envelope of a spectrum."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import AnnaError, SpectrumError
from anna_onnx.resampling import find_gaps
from anna_onnx.spectrum import Spectrum

Curve = Literal["spline", "polynomial"]

BEST_FIT = 0.003
"""Relative deviation below which no curve follows a continuum; pixels that near are never rejected."""


@dataclass(frozen=True)
class Normalization:
    """How a continuum is found; the same recipe trains and infers.

    The curve is fitted by least squares; pixels farther below it than
    `low_reject` standard deviations (lines) or farther above than
    `high_reject` (cosmic rays, emission) are left out, and the fit is repeated until the
    choice no longer changes. Pieces of a spectrum that are separated by
    gaps (orders, detectors) are fitted each on its own.

    Parameters
    ----------
    curve : {'spline', 'polynomial'}
        Cubic spline with evenly spaced knots, or Chebyshev polynomial.
    order : int
        Number of pieces of the spline, or degree of the polynomial.
    low_reject, high_reject : float
        Limits in robust standard deviations of the relative residuals.
    iterations : int
        Most fits to make.
    ignore : tuple of (first, last)
        Regions in Angstrom, in medium and frame of the model, to leave out
        of the fit: broad lines, tellurics.

    Raises
    ------
    AnnaError
        If a value makes no sense.
    """

    curve: Curve = "spline"
    order: int = 3
    low_reject: float = 1.5
    high_reject: float = 3.0
    iterations: int = 20
    ignore: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.curve not in get_args(Curve):
            raise AnnaError(f"continuum: curve '{self.curve}', needed {' or '.join(get_args(Curve))}")
        if self.order < (1 if self.curve == "spline" else 0) or self.iterations < 1:
            raise AnnaError(f"continuum: order {self.order} and {self.iterations} iterations, needed at least 1")
        if not (self.low_reject > 0 and self.high_reject > 0):
            raise AnnaError(f"continuum: rejection at {self.low_reject} and {self.high_reject}, needed more than 0")
        if any(len(region) != 2 or not region[0] < region[1] for region in self.ignore):
            raise AnnaError(f"continuum: regions to ignore {self.ignore}, needed pairs (first, last) in Å")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return asdict(self)

    @classmethod
    def parse(cls, text: str, ignore: Sequence[tuple[float, float]] = ()) -> Normalization:
        """Return the recipe that ``curve:order`` stands for, such as ``polynomial:4``."""
        curve, _, order = text.partition(":")
        if not order.isdigit():
            raise AnnaError(f"continuum '{text}', needed curve:order, such as spline:3 or polynomial:4")
        return cls(curve, int(order), ignore=tuple(ignore))  # type: ignore[arg-type]  # it checks the curve

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        """Return the recipe that `to_dict` wrote; keys of newer versions are left out."""
        known = {item.name for item in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        given["ignore"] = tuple((float(first), float(last)) for first, last in given.get("ignore", ()))
        return cls(**given)


def normalize(spectrum: Spectrum, recipe: Normalization | None = None) -> Spectrum:
    """Divide a spectrum by its continuum.

    Parameters
    ----------
    spectrum : Spectrum
        In any unit; in the medium and frame of the regions of `recipe`.
    recipe : Normalization, optional

    Returns
    -------
    Spectrum
        Continuum = 1; bad where no positive continuum could be found.

    Raises
    ------
    SpectrumError
        If no continuum can be found at all.
    """
    recipe = recipe or Normalization()
    continuum = fit_continuum(spectrum.wavelength, spectrum.flux, ~spectrum.bad, recipe)
    if not np.isfinite(continuum).any():
        raise SpectrumError(f"{spectrum.name}: no continuum found, {int((~spectrum.bad).sum())} good pixels")
    return replace(
        spectrum,
        flux=spectrum.flux / continuum,
        sigma=None if spectrum.sigma is None else spectrum.sigma / continuum,
        notes=(*spectrum.notes, f"continuum normalised ({recipe.curve}, order {recipe.order})"),
    )


def fit_continuum(wavelength: FloatArray, flux: FloatArray, good: BoolArray, recipe: Normalization) -> FloatArray:
    """Return the continuum at every pixel, NaN where none that is positive was found.

    Parameters
    ----------
    wavelength, flux : arrays of float64, shape (n_pixel,)
    good : array of bool, shape (n_pixel,)
    recipe : Normalization
    """
    use = good.copy()
    for first, last in recipe.ignore:
        use &= (wavelength < first) | (wavelength > last)
    continuum = np.full(wavelength.shape, np.nan)
    ends = [0, *(find_gaps(wavelength) + 1), wavelength.size]
    for start, stop in itertools.pairwise(ends):
        piece = slice(start, stop)
        continuum[piece] = _fit_piece(wavelength[piece], flux[piece], use[piece], recipe)
    return np.where(continuum > 0, continuum, np.nan)


def _fit_piece(wavelength: FloatArray, flux: FloatArray, use: BoolArray, recipe: Normalization) -> FloatArray:
    basis = _basis(wavelength, recipe)
    enough = 2 * basis.shape[1]
    # Least squares must not lose the digits of a flux of 1e-17, nor meet damaged pixels of 1e29.
    unit = float(np.median(np.abs(flux[use]))) if use.any() else 0.0
    use = use & (np.abs(flux) < 1e6 * unit)
    if use.sum() < enough:
        return np.full(wavelength.shape, np.nan)
    scaled = np.where(use, flux, 0.0) / unit
    curve = _first_guess(basis, scaled, use)
    keep = np.zeros_like(use)
    for _ in range(recipe.iterations):
        # Relative to the curve, as noise and lines are; where a first guess falls below zero, to little.
        level = np.maximum(curve, 0.01)
        residual = (scaled - curve) / level
        around = residual[keep if keep.any() else use]
        sigma = max(1.4826 * float(np.median(np.abs(around - np.median(around)))), BEST_FIT)
        better = use & (residual >= -recipe.low_reject * sigma) & (residual <= recipe.high_reject * sigma)
        if better.sum() < enough or np.array_equal(better, keep):
            break
        keep = better
        weight = 1 / level[keep]
        curve = basis @ np.linalg.lstsq(basis[keep] * weight[:, None], scaled[keep] * weight, rcond=None)[0]
    return np.asarray(curve * unit)


def _first_guess(basis: FloatArray, flux: FloatArray, use: BoolArray) -> FloatArray:
    """Fit the bright pixels of stretches of the spectrum: neither lines nor a cosmic ray must count at first.

    On a slope the brightest are those at one end of a stretch, so the slope is taken out the second time.
    """
    stretches = np.array_split(np.flatnonzero(use), 2 * basis.shape[1])
    middle = np.array([pixels[pixels.size // 2] for pixels in stretches])
    curve = np.ones_like(flux)
    for _ in range(2):
        level = np.maximum(curve, 0.01)
        bright = np.array([np.quantile(flux[pixels] / level[pixels], 0.8) for pixels in stretches])
        curve = basis @ np.linalg.lstsq(basis[middle], bright * level[middle], rcond=None)[0]
    return np.asarray(curve)


def _basis(wavelength: FloatArray, recipe: Normalization) -> FloatArray:
    """Return the basis functions of the curve at every pixel, shape (n_pixel, n_function)."""
    width = max(wavelength[-1] - wavelength[0], 1e-9)
    x = (wavelength - wavelength[0]) / width
    if recipe.curve == "polynomial":
        return np.polynomial.chebyshev.chebvander(2 * x - 1, recipe.order)
    return _cubic_b_splines(x, recipe.order)


def _cubic_b_splines(x: FloatArray, pieces: int) -> FloatArray:
    """Return the cubic B-splines over evenly spaced knots in 0-1, shape (x.size, pieces + 3).

    The recursion of Cox and de Boor (de Boor 1978, A Practical Guide to
    Splines, ch. X); evenly spaced knots also beyond the ends.
    """
    knots = np.arange(-3, pieces + 4) / pieces
    position = np.minimum(x, 1 - 1e-12)[:, None]
    splines = ((position >= knots[:-1]) & (position < knots[1:])).astype(np.float64)
    for degree in (1, 2, 3):
        rising = (position - knots[: -degree - 1]) * splines[:, :-1]
        falling = (knots[degree + 1 :] - position) * splines[:, 1:]
        splines = (rising + falling) * (pieces / degree)
    return splines
