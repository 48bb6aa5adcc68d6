"""How good a spectrum is: its signal-to-noise ratio and where its continuum lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, Floats
from anna_onnx.scatter import MAD

CONTINUUM_TOLERANCE = 0.10
"""Deviation of the continuum from 1, and change of it along a spectrum, that are still normal."""
END = 0.1
"""Part of a spectrum that is taken for an end of it."""

ENOUGH = 32
"""Pixels that an estimate of the S/N needs; with fewer, all good ones are looked at."""


def estimate_snr(flux: Floats, sigma: Floats | None = None, bad: BoolArray | None = None) -> FloatArray:
    """Return the signal-to-noise ratio per pixel of spectra.

    With errors it is the median of flux / sigma. Without, it is estimated
    after Stoehr et al. (2008, ASP Conf. 394, 505, DER_SNR): the median flux
    over the noise, which is 1.4826 / sqrt(6) times the median of
    abs(2 f[i] - f[i-2] - f[i+2]), here taken where these three pixels are brighter than
    usual, away from the lines. What lines remain count as noise: of spectra of
    4000-7000 K stars, three pixels to the FWHM, a true 200 comes out as 180 (1 % of
    them below 105), a true 50 as 49. Noise that is correlated between
    pixels, as in an oversampled or smoothed spectrum, is underestimated.

    At most 512 pixels of a spectrum, evenly spread, are looked at: enough for
    5 %, and no slower for a long spectrum than for a short one. Where bad pixels leave fewer than
    `ENOUGH` of these, all good pixels count, as if the bad ones were not between them.

    Parameters
    ----------
    flux, sigma : arrays, shape (n, n_pixel)
    bad : array of bool, shape (n, n_pixel), optional

    Returns
    -------
    snr : array of float64, shape (n,)
        0 or more; infinite without noise, NaN when it cannot be known: without good pixels, or
        without errors and with fewer than five.
    """
    snr, n_used = _sampled_snr(flux, sigma, bad)
    if bad is not None:
        for row in np.flatnonzero(n_used < ENOUGH):
            good = ~bad[row]
            own = None if sigma is None else sigma[row : row + 1, good]
            snr[row] = _sampled_snr(flux[row : row + 1, good], own, None)[0][0]
    return snr


def _sampled_snr(flux: Floats, sigma: Floats | None, bad: BoolArray | None) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return the ratios from some pixels of each spectrum, and of how many that are good."""
    n_pixel = flux.shape[1]
    if n_pixel < (1 if sigma is not None else 5):
        return np.full(len(flux), np.nan), np.zeros(len(flux), dtype=np.intp)
    step = -(-n_pixel // 512)

    def sample(offset: int, end: int) -> Float32Array:
        columns = slice(offset, end or None, step)
        values = flux[:, columns].astype(np.float32)
        return values if bad is None else np.where(bad[:, columns], np.float32(np.nan), values)

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        signal = sample(0, 0)
        if sigma is not None:
            ratio = np.divide(signal, sigma[:, ::step], dtype=np.float32)
            return np.maximum(nearest_rank(ratio, 0.5), 0), _count(ratio, bad)
        center, around = sample(2, -2), sample(0, -4) + sample(4, 0)
        total = center + around
        bright = total >= nearest_rank(total, 0.5)[:, None].astype(np.float32)
        # Divided by zero, what is not bright goes to the end of the order; np.where takes five times as long.
        third = np.abs(2 * center - around) / bright
        noise = MAD / np.sqrt(6) * nearest_rank(third, 0.5, np.count_nonzero(bright, axis=1))
        return np.maximum(nearest_rank(signal, 0.5) / noise, 0), _count(total, bad)


def _count(values: Floats, bad: BoolArray | None) -> NDArray[np.intp]:
    """Return how many values of each row are numbers, which all are where no pixel is bad."""
    if bad is None:
        return np.full(len(values), values.shape[1])
    return np.asarray(values.shape[1] - np.isnan(values).sum(axis=1))


def continuum_level(flux: Floats) -> tuple[FloatArray, FloatArray]:
    """Return where the continuum of spectra lies, and by how much it changes along them.

    The level of a half of the spectrum is the 90th percentile of means over
    ten pixels; that of the spectrum is the higher of the two, and the tilt is red minus blue.

    Parameters
    ----------
    flux : array, shape (n, n_pixel)
        NaN where not valid.

    Returns
    -------
    level, tilt : arrays of float64, shape (n,)
        NaN where nothing is valid.
    """
    means = _means(flux)
    half = means.shape[1] // 2
    blue, red = nearest_rank(means[:, :half], 0.9), nearest_rank(means[:, half:], 0.9)
    return np.fmax(blue, red), red - blue


def ends_below(flux: Floats) -> FloatArray:
    """Return by how much both ends of spectra lie below what is between them, as those of an echelle order do.

    Neither half is brighter there, and the level of the brightest part may be 1.

    Parameters
    ----------
    flux : array, shape (n, n_pixel)
        NaN where not valid.

    Returns
    -------
    depth : array of float64, shape (n,)
        NaN where nothing is valid in an end or between them.
    """
    means = _means(flux)
    size = int(np.ceil(END * means.shape[1]))
    if means.shape[1] < 3:
        return np.full(len(flux), np.nan)
    blue, middle, red = (nearest_rank(part, 0.9) for part in np.split(means, [size, means.shape[1] - size], axis=1))
    return middle - np.maximum(blue, red)


def _means(flux: Floats) -> Floats:
    """Return the means over ten pixels, over fewer of a short spectrum."""
    size = max(1, min(10, flux.shape[1] // 32))
    n_bin = flux.shape[1] // size
    bins = flux[:, : n_bin * size].reshape(len(flux), n_bin, size)
    return np.asarray(bins @ np.full(size, 1 / size, dtype=flux.dtype))  # half the time of a mean along an axis


def off_continuum(flux: Floats, snr: FloatArray) -> BoolArray:
    """Return whether spectra are not normalised, with the allowance that their noise needs.

    Parameters
    ----------
    flux : array, shape (n, n_pixel)
        NaN where not valid.
    snr : array, shape (n,)
        Per pixel; noise lifts the brightest means by 0.4 / snr.
    """
    level, tilt = continuum_level(flux)
    tolerance = CONTINUUM_TOLERANCE + 0.5 / np.clip(np.nan_to_num(snr, nan=1.0), 1, 1e6)
    return np.asarray((np.abs(level - 1) > tolerance) | (np.abs(tilt) > tolerance) | (ends_below(flux) > tolerance))


def nearest_rank(values: Floats, fraction: float, count: NDArray[np.intp] | None = None) -> FloatArray:
    """Return a quantile of the lowest `count` of each row, by nearest rank; NaN for a row without values.

    By default all that are not NaN are counted.
    """
    ordered = np.sort(values, axis=1)  # NaN last
    if count is None:
        if not np.isnan(ordered[:, -1]).any():
            return ordered[:, round(fraction * (values.shape[1] - 1))].astype(np.float64)
        count = values.shape[1] - np.isnan(ordered).sum(axis=1)
    rank = np.maximum(np.rint(fraction * (count - 1)).astype(np.intp), 0)
    return np.asarray(ordered[np.arange(len(ordered)), rank], dtype=np.float64)
