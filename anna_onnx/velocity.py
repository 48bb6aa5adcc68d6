"""The radial velocity of a star from its spectrum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.fit import Fit, FitLimits
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid

MOST_NOISE, LEAST_LINES = 3.0, 0.5
"""What a velocity is told by: at most this times the rms of the lines that a network expects is the noise of a pixel,
and at least this fraction of their variance is found, which noise alone would not have."""
FASTEST = 500.0
"""The largest velocity that is looked for, km/s."""


class Velocities(NamedTuple):
    """Velocities that were measured.

    Attributes
    ----------
    rv, error : arrays of float64, shape (n,)
        km/s, NaN where none could be measured.
    """

    rv: FloatArray
    error: FloatArray


def fitted_rv(fit: Fit, limits: FitLimits, flux: Float32Array, fwhm: float) -> Velocities:
    """Return the velocities at which spectra fit what a network expects of them.

    None is told of a spectrum that is unlike those of the training, or whose lines drown in its noise or are
    not there. The error is that of a line's centre, FWHM / (S/N of the lines), with as many pixels: of 1000 stars
    that training never saw, S/N 10 to 300, 75 to 80 % are within it.

    Parameters
    ----------
    fit : Fit, shape (n,)
    limits : FitLimits
    flux : array of float32, shape (n, n_pixel)
        What was fitted, NaN where a pixel is not valid.
    fwhm : float
        Of the lines, km/s.
    """
    valid = np.isfinite(flux)
    n_good = np.maximum(valid.sum(axis=1), 1)
    mean = np.where(valid, flux, 0).sum(axis=1) / n_good
    variance = (np.where(valid, flux - mean[:, None], 0) ** 2).sum(axis=1) / n_good
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = fit.noise / fit.lines
        found = (variance - fit.noise**2) / fit.lines**2
    told = (limits.score(fit) <= 1) & (noise <= MOST_NOISE) & (found >= LEAST_LINES)
    error = fwhm * noise / np.sqrt(n_good)
    return Velocities(np.where(told, fit.velocity, np.nan), np.where(told, error, np.nan))


def measure_rv(flux: ArrayLike, template: ArrayLike, grid: Grid) -> tuple[float, float]:
    """Measure the radial velocity of a spectrum by cross-correlation with a template.

    Both are brought onto even steps of ln(wavelength), where a velocity is a
    shift (Tonry & Davis 1979, AJ 84, 1511). The error is that of Zucker (2003, MNRAS
    342, 1291), eq. 12; it holds for noise, not for a template of another kind of star.
    Against the mean of 1500 stars at rest, 200 Angstrom at R = 11000, others come out
    with a scatter of 0.4 km/s at S/N 100 and 3 km/s at S/N 10. The mean of
    training spectra that were spread over velocities is too blurred a template: see `fitted_rv`.

    Parameters
    ----------
    flux, template : array_like, shape (n_pixel,)
        Continuum = 1, NaN where not valid.
    grid : Grid, shape (n_pixel,)

    Returns
    -------
    rv, error : float
        km/s; both NaN when no peak stands out.
    """
    log = np.log(grid.wavelength)
    step = (log[-1] - log[0]) / (2 * grid.n_pixel)
    even = np.arange(log[0], log[-1], step)
    lines, model = (_lines_only(np.asarray(values, dtype=np.float64), log, even) for values in (flux, template))
    n = 2 ** int(np.ceil(np.log2(3 * even.size)))  # so that nothing wraps round within twice the longest lag
    norm = np.sqrt((lines**2).sum() * (model**2).sum())
    if not norm > 0:
        return np.nan, np.nan
    correlation = np.fft.irfft(np.fft.rfft(lines, n) * np.conj(np.fft.rfft(model, n)), n) / norm
    # ln(observed / emitted) = artanh(v / c)
    farthest = min(int(np.round(np.arctanh(FASTEST / C_KMS) / step)), even.size - 1)
    lags = np.arange(-farthest, farthest + 1)
    peak = int(lags[np.argmax(correlation[lags])])
    if abs(peak) == farthest or not _stands_out(correlation[peak + lags]):
        return np.nan, np.nan
    left, top, right = correlation[peak + np.arange(-1, 2)]
    curvature = left - 2 * top + right
    shift = (peak + 0.5 * (left - right) / curvature) * step
    independent = grid.n_pixel * np.isfinite(np.asarray(flux)).mean()
    variance = -(1 - top**2) / (independent * top * curvature) * step**2
    rv = C_KMS * np.tanh(shift)
    return float(rv), float(C_KMS * np.sqrt(variance))


def _lines_only(flux: FloatArray, log: FloatArray, even: FloatArray) -> FloatArray:
    """Return the lines of a spectrum on even steps of ln(wavelength), tapered to zero at the ends."""
    good = np.isfinite(flux)
    if good.sum() < 3:
        return np.zeros(even.size)
    lines = np.interp(even, log[good], flux[good])
    lines -= lines.mean()
    taper = np.minimum(1, 20 * np.minimum(np.arange(even.size) + 0.5, np.arange(even.size)[::-1] + 0.5) / even.size)
    return np.asarray(lines * np.sin(0.5 * np.pi * taper) ** 2)


def _stands_out(around: FloatArray) -> bool:
    """Whether a peak is at least five times as high as the part that noise alone makes (Tonry & Davis, eq. 23).

    Parameters
    ----------
    around : array
        Correlation, the peak in the middle. It reaches as far for a peak near the fastest velocity as for any other:
        close to itself every peak is even.
    """
    asymmetry = np.sqrt(np.mean((around - around[::-1]) ** 2) / 2)
    top = around[around.size // 2]
    return bool(top > 5 * asymmetry and top > 0.1)
