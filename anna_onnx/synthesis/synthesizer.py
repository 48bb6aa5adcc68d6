"""Spectra from labels: interpolate, rotate, shift, broaden, sample; for numpy arrays and torch tensors alike.

Everything that acts on a spectrum's shape is a convolution in ln(wavelength),
so a spectrum is put together in Fourier space and transformed back once:

1. Cubic splines in the grid's axes give each component's coefficient, and the
   coefficients times the components' Fourier transforms, computed once, the
   spectrum's. Only frequencies that the instrument passes are kept.
2. Rotation multiplies by the transform of Gray's profile, the radial velocity
   by a phase, the instrument by a Gaussian.
3. One inverse transform leads to a fine uniform grid in ln(wavelength).
4. From there to the output pixels it is one narrow-banded matrix, a Gaussian
   around each pixel. It is part of the instrumental profile: the Gaussian in
   step 2 is narrower than the profile by just so much, pixel by pixel. That
   makes a profile whose width varies along the spectrum exact, and the
   interpolation too (a non-uniform fast Fourier transform of the second type,
   Dutt & Rokhlin 1993, SIAM J. Sci. Comput. 14, 1368).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.errors import GridError
from anna_onnx.labels import unit_of
from anna_onnx.medium import C_KMS, convert
from anna_onnx.resampling import FWHM, Grid, lagrange_weights

from .grid import Axis, SpectralGrid
from .spline import cardinal_splines, node_weights

ROTATION = "vsini"
"""Name of the label that is no axis of the grid."""

_FAINTEST = 1e-7  # transmission of the instrument below which a frequency is dropped
_OVERSAMPLING = 1.5  # of the fine grid, over the Nyquist rate
_TAIL = 5.5  # sigma at which a Gaussian ends; exp(-5.5**2 / 2) = 3e-7
_BLOCK = 64  # output pixels that share a slice of the fine grid


@dataclass(frozen=True, eq=False)
class Synthesizer:
    """Spectra from labels and radial velocities, thousands at a time.

    Make one with `Synthesizer.build`; then ``synthesizer(labels, rv)``.

    Attributes
    ----------
    xp : module
        numpy, or torch after `on`; all arrays below belong to it.
    grid : Grid, shape (n_pixel,)
        The output wavelengths.
    axes : tuple of Axis
        Of the grid of spectra.
    label_names : tuple of str
        The columns of `labels`: the axes, then ``vsini`` in km/s.
    label_units : tuple of str
    max_rv, max_vsini : float
        The largest that may be asked for, km/s.
    knots, tables : tuple of arrays
        One for each axis, see `anna_onnx.synthesis.spline`.
    coefficients : array, shape (n_node, k), or None
        Of the components at the nodes; None when the components are the nodes' spectra.
    real, imag : array, shape (k, n_frequency)
        Fourier transforms of the components.
    frequency : array, shape (n_frequency,)
        Angular, per unit of ln(wavelength).
    rotation : array, shape (n_table, 2)
        Transform of the rotational profile and its differences, see `tabulate_rotation`.
    rotation_place : array, shape (n_frequency,)
        Where in that table a vsini of 1 km/s is looked up.
    n_fine : int
        Length of the fine grid.
    sampling : tuple of (int, int, array)
        First and last point of a slice of the fine grid and the matrix,
        shape (last - first, <= 64), from there to the next output pixels.
    """

    xp: Any
    grid: Grid
    axes: tuple[Axis, ...]
    label_names: tuple[str, ...]
    label_units: tuple[str, ...]
    max_rv: float
    max_vsini: float
    knots: tuple[Any, ...]
    tables: tuple[Any, ...]
    coefficients: Any
    real: Any
    imag: Any
    frequency: Any
    rotation: Any
    rotation_place: Any
    n_fine: int
    sampling: tuple[tuple[int, int, Any], ...]

    @classmethod
    def build(
        cls,
        spectra: SpectralGrid,
        grid: Grid,
        *,
        fwhm: float | None = None,
        resolution: float | None = None,
        limb_darkening: float = 0.6,
        max_rv: float = 0.0,
        max_vsini: float = 0.0,
        dtype: type[np.float32] | type[np.float64] = np.float32,
    ) -> Synthesizer:
        """Prepare to draw spectra from a grid.

        Parameters
        ----------
        spectra : SpectralGrid
        grid : Grid
            Output wavelengths; a medium other than that of `spectra` is converted.
        fwhm : float, optional
            Full width at half maximum of the instrument's Gaussian profile, Angstrom.
        resolution : float, optional
            Resolving power, wavelength / FWHM, instead of `fwhm`. With
            neither the instrument adds nothing.
        limb_darkening : float
            Linear coefficient epsilon of the rotational profile.
        max_rv, max_vsini : float
            The largest absolute radial velocity and the largest vsini that will be asked for, km/s.
        dtype : {float32, float64}
            Of the arithmetic.

        Raises
        ------
        GridError
            If the grid of spectra does not reach as far as the output
            wavelengths, velocities and profiles need, or the profile is no profile.
        """
        x = np.log(convert(grid.wavelength, grid.medium, spectra.medium))
        sigma = _profile_width(grid.wavelength, fwhm, resolution)
        highest = _highest_frequency(spectra, sigma)
        fine_step = np.pi / (_OVERSAMPLING * highest)
        # Where the instrument is sharper than the fine grid, the Gaussian around a pixel is the wider one.
        width = np.sqrt(sigma**2 + max(fine_step**2 - float(sigma.min()) ** 2, 0.0))
        reach = np.arctanh(max_rv / C_KMS) + max_vsini / C_KMS + _TAIL * width
        x0, x1 = _needed_range(spectra, float((x - reach).min()), float((x + reach).max()), grid)

        transforms, period = _transform(spectra, x0, x1, highest)
        n_fine = _fast_length(period / fine_step)
        fine_step = period / n_fine
        frequency = 2 * np.pi / period * np.arange(transforms.shape[1])
        narrow = float(sigma.min()) ** 2 - fine_step**2  # negative without a profile: the sampling's own is undone
        transforms *= np.exp(-0.5 * narrow * frequency**2) * n_fine
        rotation, rotation_step = tabulate_rotation(max_vsini / C_KMS * frequency[-1], limb_darkening)
        sampling = _sampling_matrices((x - x0) / fine_step, np.sqrt(sigma**2 - narrow) / fine_step)
        return cls(
            xp=np,
            grid=grid,
            axes=spectra.axes,
            label_names=(*spectra.axis_names, ROTATION),
            label_units=(*[axis.unit for axis in spectra.axes], unit_of(ROTATION)),
            max_rv=max_rv,
            max_vsini=max_vsini,
            knots=tuple(axis.coordinate(axis.values) for axis in spectra.axes),
            tables=tuple(cardinal_splines(axis.coordinate(axis.values)) for axis in spectra.axes),
            coefficients=_with_mean(spectra.coefficients, dtype),
            real=np.ascontiguousarray(transforms.real, dtype=dtype),
            imag=np.ascontiguousarray(transforms.imag, dtype=dtype),
            frequency=frequency,
            rotation=rotation.astype(dtype),
            rotation_place=(frequency / (C_KMS * rotation_step)).astype(dtype),
            n_fine=n_fine,
            sampling=tuple((first, last, matrix.astype(dtype)) for first, last, matrix in sampling),
        )

    def on(self, xp: Any, move: Callable[[Any], Any]) -> Self:
        """Return the same synthesizer for arrays of another namespace or device.

        Parameters
        ----------
        xp : module
            numpy or torch.
        move : callable
            Turns a numpy array into one of the new kind.
        """
        return replace(
            self,
            xp=xp,
            knots=tuple(move(knots) for knots in self.knots),
            tables=tuple(move(table) for table in self.tables),
            coefficients=None if self.coefficients is None else move(self.coefficients),
            real=move(self.real),
            imag=move(self.imag),
            frequency=move(self.frequency),
            rotation=move(self.rotation),
            rotation_place=move(self.rotation_place),
            sampling=tuple((first, last, move(matrix)) for first, last, matrix in self.sampling),
        )

    def __call__(self, labels: Any, rv: Any) -> Any:
        """Synthesise spectra.

        Parameters
        ----------
        labels : array, shape (n, n_label)
            In the order of `label_names`, inside the grid and up to
            `max_vsini`: it is not checked here.
        rv : array, shape (n,)
            Radial velocity, km/s, positive to the red; at most `max_rv`.

        Returns
        -------
        flux : array, shape (n, n_pixel)
            Continuum = 1.
        """
        transform = self._at_rest(labels) * self._rotation(labels[:, -1])
        fine = self.xp.fft.irfft(transform * self._doppler(rv), n=self.n_fine)
        fine = self.xp.asarray(fine, dtype=self.real.dtype)  # numpy below 2 transforms in float64
        depth = [fine[:, first:last] @ matrix for first, last, matrix in self.sampling]
        return 1 - self.xp.concatenate(depth, axis=1)

    def _at_rest(self, labels: Any) -> Any:
        """Return the Fourier transforms without rotation, shape (n, n_frequency)."""
        coordinates = [axis.coordinate(labels[:, i], self.xp) for i, axis in enumerate(self.axes)]
        weights = node_weights(self.knots, self.tables, coordinates)
        weights = self.xp.asarray(weights, dtype=self.real.dtype)
        coefficients = weights if self.coefficients is None else weights @ self.coefficients
        return coefficients @ self.real + 1j * (coefficients @ self.imag)

    def _rotation(self, vsini: Any) -> Any:
        """Return the transforms of the rotational profile, shape (n, n_frequency), by linear interpolation."""
        place = self.xp.asarray(vsini, dtype=self.real.dtype)[:, None] * self.rotation_place
        below = self.xp.floor(place)
        entry = self.rotation[self.xp.asarray(below, dtype=self.xp.int64)]  # (n, n_frequency, 2)
        return entry[..., 0] + (place - below) * entry[..., 1]

    def _doppler(self, rv: Any) -> Any:
        """Return the phases of a Doppler shift, shape (n, n_frequency).

        Frequencies are equidistant, so a phase is a product of one out of
        every 32 phases with one of the first 32: that saves most sines.
        """
        n = self.frequency.shape[0]
        shift = self.xp.arctanh(rv / C_KMS)[:, None]
        dtype = self.xp.complex64 if self.real.dtype == self.xp.float32 else self.xp.complex128
        steps = self.xp.asarray(self.xp.exp(-1j * shift * self.frequency[:32]), dtype=dtype)
        strides = self.xp.asarray(self.xp.exp(-1j * shift * self.frequency[::32]), dtype=dtype)
        return (strides[:, :, None] * steps[:, None, :]).reshape(len(rv), -1)[:, :n]


def _profile_width(wavelength: FloatArray, fwhm: float | None, resolution: float | None) -> FloatArray:
    """Return the profile's sigma in ln(wavelength) at each pixel, shape (n_pixel,)."""
    if fwhm is not None and resolution is not None:
        raise GridError("both a FWHM and a resolving power: give one of them")
    if resolution is not None:
        if not resolution > 0:
            raise GridError(f"a resolving power of {resolution}, needed one above zero")
        return np.full(wavelength.size, 1 / (resolution * FWHM))
    if not 0 <= (fwhm or 0.0) < np.inf:
        raise GridError(f"a FWHM of {fwhm} Å, needed zero or above")
    return np.asarray((fwhm or 0.0) / (FWHM * wavelength))


def _highest_frequency(spectra: SpectralGrid, sigma: FloatArray) -> float:
    """Return the highest angular frequency that the instrument passes and the grid holds."""
    nyquist = np.pi / float(np.diff(np.log(spectra.wavelength)).min())
    narrowest = float(sigma.min())
    return min(nyquist, np.sqrt(-2 * np.log(_FAINTEST)) / narrowest) if narrowest > 0 else nyquist


def _needed_range(spectra: SpectralGrid, x0: float, x1: float, grid: Grid) -> tuple[float, float]:
    """Return `x0`, `x1` when the grid of spectra covers them."""
    needed, found = np.exp([x0, x1]), spectra.wavelength[[0, -1]]
    blue, red = found[0] - needed[0], needed[1] - found[1]
    if blue > 0 or red > 0:
        missing = [f"{gap:.1f} Å in the {side}" for gap, side in ((blue, "blue"), (red, "red")) if gap > 0]
        raise GridError(
            f"{spectra.path}: covers {found[0]:.1f}-{found[1]:.1f} Å ({spectra.medium}); {grid} with these velocities "
            f"and profile needs {needed[0]:.1f}-{needed[1]:.1f} Å; missing: {' and '.join(missing)}"
        )
    return x0, x1


def _transform(spectra: SpectralGrid, x0: float, x1: float, highest: float) -> tuple[NDArray[np.complex128], float]:
    """Transform the depth (1 - flux) of the components.

    Returns
    -------
    transforms : array of complex128, shape (k, n_frequency)
        Normalised such that the inverse transform, without its factor 1/n, gives the depth.
    period : float
        In ln(wavelength); the period begins at `x0`.
    """
    native = np.log(spectra.wavelength)
    pixels = slice(max(0, int(np.searchsorted(native, x0)) - 3), int(np.searchsorted(native, x1)) + 3)
    native = native[pixels]
    step = float(np.diff(native).min())
    n_data = int(np.ceil((x1 - x0) / step)) + 1
    # The period closes smoothly: a jump would ring when there is no instrument to smooth it.
    n = _fast_length(1.02 * n_data + 32)
    fade = np.linspace(0, 1, n - n_data + 2)[1:-1]
    fade = fade**2 * (3 - 2 * fade)
    neighbours, weights = _neighbours(native, np.minimum(x0 + step * np.arange(n_data), native[-1]))
    n_frequency = min(int(highest * n * step / (2 * np.pi)) + 1, n // 2 + 1)
    components = spectra.read(pixels)
    transforms = np.empty((len(components), n_frequency), dtype=np.complex128)
    for row, flux in enumerate(components):
        continuum = 1.0 if spectra.coefficients is None or row == 0 else 0.0  # principal components have none
        depth = continuum - (flux.astype(np.float64)[neighbours] * weights).sum(axis=-1)
        closed = np.concatenate([depth, depth[-1] + fade * (depth[0] - depth[-1])])
        transforms[row] = np.fft.rfft(closed)[:n_frequency] / n
    return transforms, n * step


def _neighbours(known: FloatArray, wanted: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the six neighbours of each point and the weights of the polynomial through them.

    Six points keep the interpolation error of the grid's own sampling far
    below that of its physics; both arrays have shape (n_wanted, 6).
    """
    first = np.clip(np.searchsorted(known, wanted) - 3, 0, known.size - 6)
    neighbours = first[:, None] + np.arange(6)
    return neighbours, lagrange_weights(known[neighbours].T, wanted).T


def _fast_length(at_least: float) -> int:
    """Return the next even number with no prime factor above 5, a length that suits a fast Fourier transform."""
    n = 2 * int(np.ceil(at_least / 2))
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def _with_mean(coefficients: Float32Array | None, dtype: type[Any]) -> NDArray[Any] | None:
    """Put a one before the coefficients, for the mean spectrum: the weights of the nodes sum to one."""
    if coefficients is None:
        return None
    return np.concatenate([np.ones((len(coefficients), 1)), coefficients], axis=1).astype(dtype)


def tabulate_rotation(largest: float, limb_darkening: float) -> tuple[FloatArray, float]:
    """Tabulate the Fourier transform of the rotational profile.

    Gray (2005, The Observation and Analysis of Stellar Photospheres, 3rd
    ed., eq. 18.14), rigid rotation and linear limb darkening epsilon::

        G(v) ~ 2 (1 - epsilon) sqrt(1 - u^2) + (pi epsilon / 2) (1 - u^2),   u = v / vsini

    The transform of the first term is a Bessel function, 2 J1(q) / q, that of
    the second 3 (sin q - q cos q) / q^3, both 1 at q = vsini * frequency = 0.

    Returns
    -------
    table : array, shape (n_table, 2)
        Values from 0 to `largest` and beyond by one step, and the difference to the next.
    step : float
    """
    step = 0.002  # linear interpolation is good to step**2 / 32 = 1.3e-7
    q = step * np.arange(int(largest / step) + 4, dtype=np.float64)
    q[0] = 1e-3 * step  # where both quotients are 1 to rounding
    disk = 2 * _bessel_j1(q) / q
    limb = np.where(q < 0.05, 1 - q**2 / 10 + q**4 / 280, 3 * (np.sin(q) - q * np.cos(q)) / np.maximum(q, 0.05) ** 3)
    value = ((1 - limb_darkening) * disk + limb_darkening * 2 / 3 * limb) / (1 - limb_darkening / 3)
    return np.stack([value[:-1], np.diff(value)], axis=-1), step


def _bessel_j1(q: FloatArray) -> FloatArray:
    """Return the Bessel function J1 of ascending arguments, to 1e-9.

    Below 30 by Bessel's integral (Abramowitz & Stegun 9.1.21), whose integrand
    is periodic, so that the trapezoidal rule is exact to rounding once it has
    more points than the argument and some; above by Hankel's expansion (9.2.5).
    """
    near, far = np.split(q, [np.searchsorted(q, 30.0)])
    theta = 2 * np.pi * (np.arange(70) + 0.5) / 70
    integral = sum(np.cos(angle - near * np.sin(angle)) for angle in theta) / 70
    p = 1 + 15 / (128 * far**2) - 4725 / (32768 * far**4)
    q1 = 3 / (8 * far) - 105 / (1024 * far**3)
    phase = far - 0.75 * np.pi
    expansion = np.sqrt(2 / (np.pi * far)) * (p * np.cos(phase) - q1 * np.sin(phase))
    return np.concatenate([integral, expansion])


def _sampling_matrices(place: FloatArray, sigma: FloatArray) -> list[tuple[int, int, FloatArray]]:
    """Return the matrices from the fine grid to the output pixels, see `Synthesizer.sampling`.

    Parameters
    ----------
    place, sigma : array of float64, shape (n_pixel,)
        Centre and width of the Gaussian of each output pixel, in steps of
        the fine grid. The sum over the steps is as good as the integral
        from a width of one step on (Poisson summation).
    """
    matrices = []
    for start in range(0, place.size, _BLOCK):
        center, width = place[start : start + _BLOCK], sigma[start : start + _BLOCK]
        first = max(int(np.floor((center - _TAIL * width).min())), 0)  # which rounding may put before the grid
        last = int(np.ceil((center + _TAIL * width).max())) + 1
        distance = (np.arange(first, last)[:, None] - center) / width
        matrices.append((first, last, np.exp(-0.5 * distance**2) / (np.sqrt(2 * np.pi) * width)))
    return matrices
