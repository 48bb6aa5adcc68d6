"""A wavelength grid, and the way of a spectrum onto it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.arrays import BoolArray, FloatArray, Floats
from anna_onnx.errors import SpectrumError

FWHM = float(2 * np.sqrt(2 * np.log(2)))
"""Full width at half maximum of a Gaussian of standard deviation 1."""

InterpolationKind = Literal["cubic", "linear"]
UNEVEN = 2.0
"""Times as wide as its neighbour, a step between pixels is too uneven for a polynomial."""
LARGER = 1.1
"""Times as large as the spectrum's, a pixel is an average of these. Over pixels of nearly the same size, such as those
of a receding star brought to rest, an average would be a straight line between two of them."""
MAX_PARTS = 10
"""Input pixels to an output pixel up to which they are summed part by part."""


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


def pixel_edges(wavelength: ArrayLike) -> FloatArray:
    """Return the edges of pixels from their centres, shape (n_pixel + 1,): halfway between neighbours."""
    center = np.asarray(wavelength, dtype=np.float64)
    middle = 0.5 * (center[1:] + center[:-1])
    first, last = 2 * center[0] - middle[0], 2 * center[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def pixel_width(wavelength: FloatArray, first: float, last: float) -> float:
    """Return the usual width of the pixels between two wavelengths."""
    low, high = np.searchsorted(wavelength, [first, last]).tolist()
    low = min(low, wavelength.size - 2)
    inside = wavelength[low : max(high + 1, low + 2)]
    if find_gaps(inside).size:
        step = np.sort(np.diff(inside))  # np.median imports numpy.ma
        return float(step[step.size // 2])
    return float((inside[-1] - inside[0]) / (inside.size - 1))


def find_gaps(wavelength: FloatArray) -> NDArray[np.intp]:
    """Return the indices of the pixels after which a gap comes.

    A gap is a step more than five times as wide as the usual steps on either
    side of it: between orders or detectors, not a change of dispersion.

    Parameters
    ----------
    wavelength : array of float64, shape (n_pixel,)
    """
    step = np.diff(wavelength)
    if step.size < 3 or step.max() <= 5 * step.min():
        return np.empty(0, dtype=np.intp)
    reach = 8
    padded = np.pad(step, reach, mode="symmetric")
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, reach), axis=1)
    usual = ordered[:, reach // 2 - 1 : reach // 2 + 1].mean(axis=1)  # the median
    # usual[i] belongs to the eight steps before step i, usual[i + reach + 1] to the eight after it.
    return np.flatnonzero(step > 5 * np.maximum(usual[: step.size], usual[reach + 1 :]))


def resampler(
    wavelength: FloatArray, target: FloatArray, interpolation: InterpolationKind = "cubic", sharp: bool = True
) -> Resampler:
    """Work out the way from one wavelength vector to another.

    Where the target's pixels are larger by more than a tenth, flux density is averaged over each
    (Carnall 2017, arXiv:1705.05165), so that the equivalent width of a line is kept, and the width that this adds to
    lines taken out again; elsewhere it is interpolated with the quintic through six pixels. Gaps between orders or
    detectors stay gaps.

    Parameters
    ----------
    wavelength : array of float64, shape (n_in,)
        Ascending, same unit, medium and frame as `target`.
    target : array of float64, shape (n_out,)
    interpolation : {'cubic', 'linear'}
        Straight lines, as in the old program, or better; averages for 'linear' stay as wide as they are.
    sharp : bool
        Whether averages give the flux in the middle of a pixel, not the mean over it.
    """
    first, last = target[[0, -1]]
    width_out = pixel_width(target, first, last)
    if wavelength.size == target.size and np.abs(wavelength - target).max() < 1e-4 * width_out:
        return Identity(target.size)
    ratio = width_out / pixel_width(wavelength, first, last)
    way: Resampler
    if ratio > LARGER:
        way = Average(wavelength, target, sharp and interpolation == "cubic")
    else:
        way = Interpolation(wavelength, target, interpolation)
    way.ratio = ratio
    return way


class Resampler:
    """The way of any number of spectra from one wavelength vector to another.

    Every output pixel is a mean of input pixels.

    Attributes
    ----------
    covers : array of bool, shape (n_out,)
        True where pixels of the input, good or bad, cover the output.
    share : array of float64, shape (n_out,)
        Sum of the weights of the input pixels, 1 where covered wholly.
    enough : float
        Smallest share of good pixels that makes an output pixel usable.
    ratio : float
        Usual width of an output pixel in input pixels.
    """

    covers: BoolArray
    share: FloatArray
    enough: float
    ratio: float = 1.0

    def mean(self, values: Floats) -> Floats:
        """Return the weighted sums of `values` (n, n_in), shape (n, n_out)."""
        raise NotImplementedError

    def variance(self, values: Floats) -> Floats:
        """Return the variances of the weighted sums from those of the pixels, shape (n, n_out)."""
        raise NotImplementedError

    def shares(self, good: BoolArray) -> Floats:
        """Return the sums of the weights of the good pixels (n, n_in), shape (n, n_out)."""
        return self.mean(good.astype(np.float64))

    def apply(
        self, flux: Floats, sigma: Floats | None = None, bad: BoolArray | None = None
    ) -> tuple[Floats, Floats | None, BoolArray]:
        """Resample a block of spectra.

        Parameters
        ----------
        flux : array, shape (n, n_in)
            Finite where not bad.
        sigma : array, shape (n, n_in), optional
        bad : array of bool, shape (n, n_in), optional
            None when no pixel is bad.

        Returns
        -------
        flux, sigma : arrays, shape (n, n_out)
            NaN where not valid. The correlation that resampling brings
            between neighbours is not kept.
        valid : array of bool, shape (n, n_out)
        """
        shape = (len(flux), self.covers.size)
        if bad is None:
            valid = np.broadcast_to(self.covers, shape)
            weight = np.where(self.covers, self.share, np.nan)
        else:
            flux = np.where(bad, 0, flux)
            sigma = None if sigma is None else np.where(bad, 0, sigma)
            share = self.shares(~bad)
            valid = self.covers & (share >= self.enough)
            weight = np.where(valid, share, np.nan)
        result = self.mean(flux)
        error = None if sigma is None else np.sqrt(self.variance(np.square(sigma, dtype=np.float64)))
        if (weight == 1).all():  # nothing to divide by: on its own grid a spectrum stays as it is
            return result, error, valid
        return result / weight, None if error is None else error / weight, valid


class Identity(Resampler):
    """The way of spectra that are on the grid already."""

    enough = 1.0

    def __init__(self, n_pixel: int) -> None:
        self.covers = np.ones(n_pixel, dtype=np.bool_)
        self.share = np.ones(n_pixel)

    def mean(self, values: Floats) -> Floats:
        return values

    def variance(self, values: Floats) -> Floats:
        return values


class Interpolation(Resampler):
    """Interpolation with the quintic through the centres of six pixels; of the inner two neither may be bad.

    A straight line would broaden lines by up to a quarter of a square pixel, a cubic those that are three pixels wide
    by some per cent. Where one of the six is bad, lies behind a gap, or much nearer or farther than the inner two from
    each other, it is the cubic through four, and where one of these is, a straight line; everywhere for an
    `interpolation` that is linear.

    Parameters
    ----------
    wavelength, target : arrays of float64
    interpolation : {'cubic', 'linear'}
    smooth : bool
        Whether neighbours have their noise in common, which interpolation then does not lower: after a `Degrader`.
    """

    enough = 1 - 1e-9

    def __init__(
        self,
        wavelength: FloatArray,
        target: FloatArray,
        interpolation: InterpolationKind = "cubic",
        smooth: bool = False,
    ) -> None:
        n = wavelength.size
        left = np.clip(np.searchsorted(wavelength, target), 1, n - 1) - 1
        step, gaps = np.diff(wavelength), find_gaps(wavelength)
        t = np.clip((target - wavelength[left]) / step[left], 0, 1)
        in_gap = np.isin(left, gaps) & (t > 0) & (t < 1)
        self.covers = _inside(target, wavelength) & ~in_gap
        self.share = np.ones(target.size)
        places = [left + offset for offset in (-2, -1, 1, 2)]
        outer = [step[np.clip(place, 0, n - 2)] / step[left] for place in places]
        even = [
            (place >= 0) & (place <= n - 2) & (width < UNEVEN) & (width > 1 / UNEVEN) & ~np.isin(place, gaps)
            for place, width in zip(places, outer, strict=True)
        ]
        four = even[1] & even[2] & (interpolation == "cubic")
        six = even[0] & even[3] & four
        self._pixels = np.clip(left + np.arange(-2, 4)[:, None], 0, n - 1)  # (6, n_out)
        nothing, one = np.zeros_like(t), np.ones_like(t)
        nodes = np.stack([-outer[1] - outer[0], -outer[1], nothing, one, 1 + outer[2], 1 + outer[2] + outer[3]])
        self._straight = np.stack([nothing, nothing, 1 - t, t, nothing, nothing])
        cubic = np.stack([nothing, *lagrange_weights(nodes[1:5], t), nothing])
        self._cubic = np.where(four, cubic, self._straight)
        self._weights = np.where(six, lagrange_weights(nodes, t), self._cubic)
        self._smooth = smooth

    def mean(self, values: Floats) -> Floats:
        return self._sum(self._weights, values)

    def variance(self, values: Floats) -> Floats:
        return self._sum(self._noise_weights(self._weights), values)

    def _noise_weights(self, weights: FloatArray) -> FloatArray:
        return self._straight if self._smooth else weights**2

    def shares(self, good: BoolArray) -> Floats:
        # What a bad pixel's weight lacks, the cubic's negative one of another must not make up for.
        return self._sum(self._straight, good.astype(np.float64))

    def apply(
        self, flux: Floats, sigma: Floats | None = None, bad: BoolArray | None = None
    ) -> tuple[Floats, Floats | None, BoolArray]:
        result, error, valid = super().apply(flux, sigma, bad)
        if bad is None:
            return result, error, valid
        for weights, outer in ((self._cubic, self._pixels[[0, 5]]), (self._straight, self._pixels[[1, 4]])):
            beside_bad = valid & (bad[:, outer[0]] | bad[:, outer[1]])
            rows = np.flatnonzero(beside_bad.any(axis=1))
            if not rows.size:
                continue
            others = self._sum(weights, np.where(bad[rows], 0, flux[rows]))
            result[rows] = np.where(beside_bad[rows], others, result[rows])
            if sigma is not None and error is not None:
                squares = np.square(np.where(bad[rows], 0, sigma[rows]), dtype=np.float64)
                variance = self._sum(self._noise_weights(weights), squares)
                error[rows] = np.where(beside_bad[rows], np.sqrt(variance), error[rows])
        return result, error, valid

    def _sum(self, weights: FloatArray, values: Floats) -> Floats:
        return _sum_parts(self._pixels, weights, values)


def lagrange_weights(nodes: FloatArray, at: FloatArray) -> FloatArray:
    """Return the weights of the polynomials through k nodes at points, shape (k, n).

    Parameters
    ----------
    nodes : array, shape (k, n)
        Of each point its own.
    at : array, shape (n,)
    """
    weights = np.ones_like(nodes)
    for i, k in permutations(range(len(nodes)), 2):
        weights[i] *= (at - nodes[k]) / (nodes[i] - nodes[k])
    return weights


class Average(Resampler):
    """The mean flux density over each output pixel; half a pixel of good flux is enough.

    Where flux curves, its mean over some width is not the flux in the middle: lines are broadened by the second moment
    of the weights, by up to 1/6 of a square output pixel. Where `sharp`, the curvature from pixel to pixel takes that
    out again, pixels giving their neighbours as much as they get, except beside a pixel that is not valid.

    Parameters
    ----------
    wavelength, target : arrays of float64
    sharp : bool
    """

    enough = 0.5

    def __init__(self, wavelength: FloatArray, target: FloatArray, sharp: bool = False) -> None:
        edges, self._holes = _edges_with_gaps(wavelength)
        edges_out = pixel_edges(target)
        self._sum = _sum_over(edges, edges_out)
        self._width, self._width_out = np.diff(edges), np.diff(edges_out)
        self.share = self.mean(np.ones((1, wavelength.size)))[0]
        self.share[np.abs(self.share - 1) < 1e-9] = 1
        self.covers = _inside(target, wavelength) & (self.share >= self.enough)
        self._sides = self._neighbours(wavelength, target) if sharp and target.size > 2 else None

    def _neighbours(self, wavelength: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the weights of the differences from the left and the right neighbour, shape (n_out - 2,) each."""
        x, at, width = wavelength - target[0], target - target[0], self._width_out
        first, second = self.mean(np.stack([x, x**2])) / np.where(self.covers, self.share, 1)
        moment = np.where(self.covers, second - 2 * at * first + at**2, 0)
        step = np.diff(target)
        before, after = step[:-1], step[1:]
        sound = (before < UNEVEN * after) & (after < UNEVEN * before)
        sound &= moment[1:-1] <= (LARGER * width[1:-1] / 2) ** 2  # here the input's pixels are not the larger ones
        between = (moment[1:] + moment[:-1]) / 4 / step
        weights = np.where(sound, np.stack([between[:-1], between[1:]]) / width[1:-1], 0)
        return weights[0], weights[1]

    def apply(
        self, flux: Floats, sigma: Floats | None = None, bad: BoolArray | None = None
    ) -> tuple[Floats, Floats | None, BoolArray]:
        result, error, valid = super().apply(flux, sigma, bad)
        if self._sides is None:
            return result, error, valid
        left, right = self._sides
        slope = np.diff(result, axis=1)
        change = slope[:, :-1] * left.astype(slope.dtype)
        slope[:, 1:] *= right.astype(slope.dtype)
        change -= slope[:, 1:]
        alone = None if valid.all() else np.isnan(change)  # beside a pixel that is not valid
        if alone is not None:
            change[alone] = 0
        result[:, 1:-1] += change
        if error is None:
            return result, None, valid
        variance = np.square(error)
        total = variance[:, 1:-1] * (1 + left + right) ** 2
        total += variance[:, :-2] * left**2
        total += variance[:, 2:] * right**2
        np.copyto(error[:, 1:-1], np.sqrt(total, out=total), where=True if alone is None else ~alone)
        return result, error, valid

    def mean(self, values: Floats) -> Floats:
        return self._weighted(values, self._width, self._width_out)

    def variance(self, values: Floats) -> Floats:
        # A pixel that two outputs share gives each its part of the variance: no information is counted twice.
        return self._weighted(values, self._width**2, self._width_out**2)

    def _weighted(self, values: Floats, width: FloatArray, width_out: FloatArray) -> Floats:
        kind = values.dtype
        if self._holes.size:  # an empty pixel in every gap
            values = np.insert(values, self._holes, 0, axis=1)
        total = self._sum(values * width.astype(kind))
        total /= width_out.astype(kind)
        return total


def _sum_over(edges: FloatArray, edges_out: FloatArray) -> Callable[[Floats], Floats]:
    """Return the sum of amounts in pixels (n, n_in) over larger pixels (n, n_out)."""
    # The input pixel that holds each edge of the output, and how much of it lies before the edge.
    pixel = np.clip(np.searchsorted(edges, edges_out, side="right") - 1, 0, edges.size - 2)
    width = np.maximum(np.diff(edges), np.finfo(np.float64).eps)  # none, where two wavelengths hardly differ
    before = np.clip((edges_out - edges[pixel]) / width[pixel], 0, 1)
    n_part = int((pixel[1:] - pixel[:-1]).max()) + 1
    if n_part > MAX_PARTS:
        return partial(_sum_ranges, pixel, before)
    step = np.arange(n_part)[:, None]
    parts = np.minimum(pixel[:-1] + step, pixel[1:])  # (part, output pixel)
    share = np.where(pixel[:-1] + step < pixel[1:], 1.0, 0.0)
    share += np.where(pixel[:-1] + step == pixel[1:], before[1:], 0)
    share[0] -= before[:-1]
    return partial(_sum_parts, parts, share)


def _sum_parts(parts: NDArray[np.intp], share: FloatArray, amount: Floats) -> Floats:
    """Sum shares of the pixels `parts` (part, n_out): three times as fast as ranges while they are short."""
    shape, share = (len(amount), parts.shape[1]), share.astype(amount.dtype)
    total, part = np.zeros(shape, amount.dtype), np.empty(shape, amount.dtype)
    for pixel, fraction in zip(parts, share, strict=True):
        np.take(amount, pixel, axis=1, out=part, mode="clip")  # which does not buffer as the default mode does
        part *= fraction
        total += part
    return total


def _sum_ranges(pixel: NDArray[np.intp], before: FloatArray, amount: Floats) -> Floats:
    """Sum from one edge of the output to the next."""
    total = np.add.reduceat(amount, pixel, axis=1)[:, :-1]
    # Of an empty range reduceat gives the first element instead of zero.
    total = np.where(pixel[1:] > pixel[:-1], total, 0)
    part = np.take(amount, pixel, axis=1) * before.astype(amount.dtype)
    total -= part[:, :-1]
    total += part[:, 1:]
    return total


def _inside(target: FloatArray, wavelength: FloatArray) -> BoolArray:
    return np.asarray((target >= wavelength[0]) & (target <= wavelength[-1]))


def _edges_with_gaps(wavelength: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return pixel edges with a pixel of its own for every gap, and where those come in `np.insert`."""
    edges, gaps = pixel_edges(wavelength), find_gaps(wavelength)
    if not gaps.size:
        return edges, gaps
    step = np.diff(wavelength)
    half = 0.5 * np.array([min(step[max(gap - 1, 0)], step[min(gap + 1, step.size - 1)]) for gap in gaps])
    half = np.minimum(half, 0.25 * step[gaps])
    edges[gaps + 1] = wavelength[gaps] + half
    return np.insert(edges, gaps + 2, wavelength[gaps + 1] - half), gaps + 1


class Degrader:
    """The way of spectra to a lower resolving power: a Gaussian in ln(wavelength).

    Spectra are brought onto steps of a quarter of the Gaussian's standard
    deviation, even in ln(wavelength), and convolved there. The steps
    themselves broaden by 0.3 % of the Gaussian's width.

    Parameters
    ----------
    wavelength : array of float64, shape (n_in,)
    resolution, target : float
        Resolving powers, wavelength / FWHM, `target` the lower.

    Attributes
    ----------
    wavelength : array of float64, shape (n_out,)
        Of what `apply` returns.
    """

    def __init__(self, wavelength: FloatArray, resolution: float, target: float) -> None:
        width = np.sqrt(target**-2 - resolution**-2) / FWHM  # standard deviation in ln(wavelength)
        first, last = np.log(wavelength[[0, -1]])
        n_out = max(2, int((last - first) / (width / 4)) + 1)
        self.wavelength = np.exp(np.linspace(first, last, n_out))
        self.wavelength[[0, -1]] = wavelength[[0, -1]]  # which rounding may put outside
        self._onto = resampler(wavelength, self.wavelength, sharp=False)
        self._reach = 16  # four standard deviations
        kernel = np.exp(-0.5 * (np.arange(-self._reach, self._reach + 1) / 4.0) ** 2)
        self._kernel = kernel / kernel.sum()
        self._shared = np.ones(n_out)
        if isinstance(self._onto, Interpolation):
            # Steps finer than the pixels share the noise of a pixel, which interpolation lowers.
            ratio = _steps_near(wavelength, self.wavelength) / np.gradient(self.wavelength)
            self._shared = ratio / self._onto.variance(np.ones((1, wavelength.size))).mean()

    def apply(
        self, flux: Floats, sigma: Floats | None = None, bad: BoolArray | None = None
    ) -> tuple[Floats, Floats | None, BoolArray]:
        """Degrade a block of spectra; arguments and result as `Resampler.apply`."""
        flux, sigma, usable = self._onto.apply(flux, sigma, bad)
        weight = self._convolve(usable.astype(np.float64), self._kernel)
        valid = usable & (weight > 0.5)
        weight = np.where(valid, weight, np.nan)
        smooth = self._convolve(np.where(usable, flux, 0), self._kernel) / weight
        if sigma is None:
            return smooth, None, valid
        variance = self._convolve(self._shared * np.where(usable, sigma, 0) ** 2, self._kernel**2)
        return smooth, np.sqrt(variance) / weight, valid

    def _convolve(self, rows: Floats, kernel: FloatArray) -> FloatArray:
        inside = slice(self._reach, self._reach + rows.shape[1])
        return np.stack([np.convolve(row, kernel)[inside] for row in rows])


def _steps_near(wavelength: FloatArray, target: FloatArray) -> FloatArray:
    """Return the step between the two pixels around each target; where a gap is, that before it."""
    step = np.diff(wavelength)
    for gap in find_gaps(wavelength):
        step[gap] = step[max(gap - 1, 0)]
    return np.asarray(step[np.clip(np.searchsorted(wavelength, target), 1, step.size) - 1])
