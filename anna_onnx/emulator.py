"""Emulator: what spectrum would the training set show for the labels that the network inferred?

A star unlike any in the training set may still look like a mixture of some of them: its lines may be too weak, or
too wide, for every combination of labels. The network infers labels all the same. A small
emulator then says what a star with these labels looks like, and two things are asked of what is left:

* Is it larger in the space of the training spectra than noise, which lies outside of it too, makes it?
* Is it what a lower resolving power leaves?

Errors of the inferred labels, of the velocity and of the continuum are allowed for, to first order; so are, by the
first, the usual errors of the profile.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.errors import BundleError
from anna_onnx.novelty import pixel_noise, sums_of_squares
from anna_onnx.shifting import Shifter

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]
Stored = NDArray[np.floating[Any]]

TEST_COMPONENTS = 16
"""Of the emulated spectra, those of most variance, in which a misfit is looked for."""
LABEL_ERRORS = (0.003, 0.3)
"""Least and largest error of a scaled label that is allowed for."""
CONTINUUM_ERROR, CONTINUUM_ORDER = 0.02, 4
LEAST_NOISE = 1e-4
KNOWN_TO = 10.0
"""How well a velocity that is said to be known is, km/s."""
ROUNDS = 4
"""In which gaps are filled."""
LARGEST = 100_000
"""Hidden units, or numbers of the directions, that a spectrum may take."""
HUGE = 100.0
"""Flux beyond which a pixel may be anything."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What comparing spectra with their emulation gives, each an array of shape (n,).

    Attributes
    ----------
    velocity : array
        km/s
    pixel_noise : array
        Noise of a pixel, from what is left of its neighbours.
    noise : array
        Rms of a pixel outside the space of the emulated spectra and of smooth continua.
    misfit : array
        The same inside of it, after all that is allowed for.
    lines : array
        Rms of the emulated lines.
    widening, widening_error : arrays
        Broadening that the emulation lacks, the variance of a Gaussian in square pixels.
    """

    velocity: FloatArray
    pixel_noise: FloatArray
    noise: FloatArray
    misfit: FloatArray
    lines: FloatArray
    widening: FloatArray
    widening_error: FloatArray

    @property
    def misfit_in_noise(self) -> FloatArray:
        """The misfit in units of the noise, shape (n,)."""
        return np.asarray(self.misfit / self.noise)


@dataclass(frozen=True, eq=False)
class Emulator:
    """From labels to a spectrum at rest, and how far clean spectra are from it.

    Attributes
    ----------
    mean : array, shape (n_pixel,)
        Mean training spectrum at rest, continuum = 1.
    components : array, shape (n_component, n_pixel)
        Orthonormal directions, that of most variance first.
    input_weight, input_bias : arrays, shapes (n_hidden, n_label), (n_hidden,)
    hidden_weight, hidden_bias : arrays, shapes (n_hidden, n_hidden), (n_hidden,)
    output_weight, output_bias : arrays, shapes (n_component, n_hidden), (n_component,)
        Of the network from scaled labels to amounts of the components, its activation x / (1 + exp(-x)).
    noise : array, shape (n_bin,)
        Noise of a pixel, ascending, at which the thresholds hold.
    misfit_threshold, blur_threshold : arrays, shape (n_bin,)
    line_error : float
        Fraction of the lines by which spectra differ from their emulation besides their noise.
    blur_error : float
        The same of the broadening, square pixels.
    velocity_low, velocity_high : float
        Radial velocities of the training, km/s.
    """

    mean: FloatArray
    components: Stored
    input_weight: Stored
    input_bias: Stored
    hidden_weight: Stored
    hidden_bias: Stored
    output_weight: Stored
    output_bias: Stored
    noise: FloatArray
    misfit_threshold: FloatArray
    blur_threshold: FloatArray
    line_error: float
    blur_error: float
    velocity_low: float
    velocity_high: float

    def __post_init__(self) -> None:
        n_component, n_hidden = self.components.shape[0], self.input_bias.size
        shapes = {
            "components": (n_component, self.mean.size),
            "input_weight": (n_hidden, self.n_label),
            "hidden_weight": (n_hidden, n_hidden),
            "hidden_bias": (n_hidden,),
            "output_weight": (n_component, n_hidden),
            "output_bias": (n_component,),
            "misfit_threshold": self.noise.shape,
            "blur_threshold": self.noise.shape,
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape or 0 in shape:
                raise BundleError(f"emulator: {name} of shape {getattr(self, name).shape}, needed {shape}")
        if n_component > self.mean.size or max(n_hidden, n_component * (self.n_label + CONTINUUM_ORDER + 2)) > LARGEST:
            raise BundleError(f"emulator: {n_component} components, {n_hidden} hidden units, {self.n_label} labels")
        for item in fields(self):
            if not np.isfinite(getattr(self, item.name)).all():
                raise BundleError(f"emulator: {item.name} must be finite")
        if not ((self.misfit_threshold > 0).all() and (self.blur_threshold > 0).all()):
            raise BundleError("emulator: thresholds must be positive")
        if self.noise.ndim != 1 or (np.diff(self.noise) < 0).any():
            raise BundleError("emulator: noise levels must ascend")
        if not -3000 <= self.velocity_low <= self.velocity_high <= 3000 or min(self.line_error, self.blur_error) < 0:
            raise BundleError("emulator: errors must not be negative, velocities at most 3000 km/s")

    @property
    def n_label(self) -> int:
        """How many labels it takes."""
        return self.input_weight.shape[1] if self.input_weight.ndim == 2 else -1

    def amounts(self, scaled: Image) -> Image:
        """Return the amounts of the components, shape (n, n_component), of labels scaled to 0-1, shape (n, n_label)."""
        first, second, last = self._layers
        hidden = _activate((2 * scaled - 1) @ first[0] + first[1])
        hidden = _activate(hidden @ second[0] + second[1])
        return np.asarray(hidden @ last[0] + last[1])

    def spectrum(self, scaled: ArrayLike) -> Image:
        """Return the spectra at rest, shape (n, n_pixel), of labels scaled to 0-1, shape (n, n_label)."""
        return np.asarray(self._mean + self.amounts(np.asarray(scaled, dtype=np.float32)) @ self._components)

    def score(self, fit: Fit) -> FloatArray:
        """Return how far spectra are from their emulation, shape (n,); above 1 further than clean spectra are."""
        misfit = self.misfit(fit) / np.interp(fit.noise, self.noise, self.misfit_threshold)
        blur = self.blur(fit) / np.interp(fit.noise, self.noise, self.blur_threshold)
        return np.asarray(np.maximum(misfit, blur))

    def misfit(self, fit: Fit) -> FloatArray:
        """Return the misfit in units of what noise and the usual errors of the lines make, shape (n,)."""
        return np.asarray(fit.misfit / np.hypot(fit.noise, self.line_error * fit.lines * self._dilution))

    def relative_misfit(self, fit: Fit) -> FloatArray:
        """Return the misfit as a fraction of the lines, shape (n,)."""
        return np.asarray(fit.misfit / (fit.lines * self._dilution))

    def blur(self, fit: Fit) -> FloatArray:
        """Return the broadening that is missing in units of its error, shape (n,); negative for sharper lines."""
        return np.asarray(fit.widening / np.hypot(fit.widening_error, self.blur_error))

    def compare(
        self,
        flux: Image,
        scaled: FloatArray,
        errors: FloatArray,
        shifter: Shifter,
        velocities: tuple[float, float] | None = None,
    ) -> Fit:
        """Compare spectra with the emulation of their labels.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            NaN where a pixel is not valid.
        scaled, errors : arrays, shape (n, n_label)
            Inferred labels scaled to 0-1, and their errors in the same scale.
        shifter : Shifter
            Of the grid.
        velocities : (low, high), optional
            Radial velocities to look at, km/s; by default those of the training.
        """
        labels = np.clip(np.nan_to_num(scaled, nan=0.5), 0, 1).astype(np.float32)
        amounts = self.amounts(labels)
        model = self._mean + amounts @ self._components
        lines = model - model.mean(axis=1, keepdims=True)
        flux = np.clip(flux, -HUGE, HUGE)
        low, high = velocities or (self.velocity_low, self.velocity_high)
        velocity = shifter.measure(_lines_only(flux), lines, low - KNOWN_TO, high + KNOWN_TO)
        left = flux - shifter.shift(model, velocity)
        scatter = pixel_noise(left)
        share = np.maximum(np.isfinite(left).mean(axis=1), 1 / self.mean.size)
        known = np.nan_to_num(left, copy=False)
        at_rest = shifter.shift(known, -velocity, beyond=0)
        inside = at_rest @ self._components.T  # (spectrum, component)
        explained = sums_of_squares(inside) + sums_of_squares(at_rest @ self._smooth.T)
        outside = np.maximum(sums_of_squares(known) - explained, 0)
        noise = np.sqrt(outside / (share * max(self.mean.size - len(self.components) - len(self._smooth), 1)))
        allowed = Allowed(self._directions(labels, amounts, errors), np.maximum(noise, LEAST_NOISE))
        rest = self._fill_gaps(inside, allowed, flux, velocity, shifter)
        wider = amounts @ self._of_widening[1:] + self._of_widening[0]
        of_its_own = allowed.take_out(wider)
        weight = np.maximum(np.einsum("nk,nk->n", wider, of_its_own), 1e-12)
        # The misfit allows for an error of the profile too, one direction more (Sherman & Morrison 1950).
        usual = self.blur_error**2
        steps = usual * np.einsum("nk,nk->n", wider, rest) / (allowed.noise**2 + usual * weight)
        rest = rest - steps[:, None] * of_its_own
        return Fit(
            velocity=velocity,
            pixel_noise=scatter,
            noise=allowed.noise,
            misfit=np.sqrt((rest[:, :TEST_COMPONENTS] ** 2).mean(axis=1) / share),
            lines=np.sqrt(sums_of_squares(lines) / self.mean.size),
            widening=np.einsum("nk,nk->n", of_its_own, inside) / (share * weight),
            widening_error=allowed.noise / np.sqrt(share * weight),
        )

    def _directions(self, labels: Image, amounts: Image, errors: FloatArray) -> Image:
        """Return what errors of one sigma do to the components, shape (n, n_direction, n_component).

        Those of the labels, one after the other, of the velocity by a pixel, and of the continuum.
        """
        n, n_label = labels.shape
        step = np.clip(np.nan_to_num(errors, nan=LABEL_ERRORS[1]), *LABEL_ERRORS).astype(np.float32)
        toward_middle = np.where(labels > 0.5, -step, step)
        changed = labels[:, None] + toward_middle[:, None] * np.eye(
            n_label, dtype=np.float32
        )  # (spectrum, changed, label)
        directions = np.empty((n, n_label + CONTINUUM_ORDER + 2, len(self.components)), dtype=np.float32)
        directions[:, :n_label] = self.amounts(changed.reshape(-1, n_label)).reshape(n, n_label, -1) - amounts[:, None]
        directions[:, n_label] = amounts @ self._of_shift[1:] + self._of_shift[0]
        directions[:, n_label + 1 :] = CONTINUUM_ERROR * self._of_continuum
        return directions

    def _fill_gaps(
        self, inside: Image, allowed: Allowed, flux: Image, velocity: FloatArray, shifter: Shifter
    ) -> FloatArray:
        """Return what is left of the components, gaps of the spectrum filled with what is allowed for."""
        rest = allowed.take_out(inside)
        rows = np.flatnonzero(np.isnan(flux).any(axis=1))
        if rows.size == 0:
            return rest
        allowed = Allowed(allowed.directions[rows], allowed.noise[rows])
        gap = np.isnan(shifter.shift(flux[rows], -velocity[rows], beyond=0))
        known = inside[rows]
        filled = known
        for _ in range(ROUNDS):
            explained = (filled - allowed.take_out(filled)).astype(np.float32)
            in_gap = np.where(gap, explained @ self._components, np.float32(0))
            filled = np.asarray(known + in_gap @ self._components.T)
        rest[rows] = allowed.take_out(filled)
        return rest

    @property
    def _dilution(self) -> float:
        """From the rms of a pixel to that of the components in which a misfit is looked for, which hold it all."""
        return float(np.sqrt(self.mean.size / min(TEST_COMPONENTS, len(self.components))))

    @cached_property
    def _mean(self) -> Image:
        return self.mean.astype(np.float32)

    @cached_property
    def _layers(self) -> list[tuple[Image, Image]]:
        """Weights and biases, which are stored in few bits, as the arithmetic wants them."""
        layers = (
            (self.input_weight, self.input_bias),
            (self.hidden_weight, self.hidden_bias),
            (self.output_weight, self.output_bias),
        )
        return [(weight.T.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]

    @cached_property
    def _components(self) -> Image:
        return self.components.astype(np.float32)

    @cached_property
    def _of_shift(self) -> Image:
        """What a shift by one pixel does to the components, of the mean and of each component."""
        return self._onto_components(np.gradient(self._rows, axis=1))

    @cached_property
    def _of_widening(self) -> Image:
        """What a Gaussian with a variance of one square pixel does to the components, to first order."""
        wide = np.pad(self._rows, ((0, 0), (1, 1)), mode="edge")
        return self._onto_components(0.5 * np.diff(wide, n=2, axis=1))

    @cached_property
    def _of_continuum(self) -> Image:
        """What errors of the continuum do that are Legendre polynomials."""
        return self._onto_components(self._legendre)

    @cached_property
    def _smooth(self) -> Image:
        """What of these errors lies outside of the components, orthonormal, shape (n_direction, n_pixel)."""
        outside = self._legendre - self._of_continuum @ self._components
        return np.asarray(np.linalg.qr(outside.T)[0].T, dtype=np.float32)

    @cached_property
    def _legendre(self) -> FloatArray:
        position = np.linspace(-1, 1, self.mean.size)
        return np.asarray(np.polynomial.legendre.legvander(position, CONTINUUM_ORDER).T)

    @cached_property
    def _rows(self) -> FloatArray:
        return np.concatenate([self.mean[None], self.components.astype(np.float64)])

    def _onto_components(self, rows: Stored) -> Image:
        return (rows @ self.components.T.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Allowed:
    """Changes of the components that are allowed for, none by much more than its error.

    Attributes
    ----------
    directions : array, shape (n, n_direction, n_component)
        What an error of one sigma does.
    noise : array, shape (n,)
    """

    directions: Image
    noise: FloatArray

    def take_out(self, amounts: Image) -> FloatArray:
        """Return what is left of amounts of the components, shape (n, n_component)."""
        steps = self._inverse @ (self.directions @ amounts[:, :, None].astype(np.float32))
        return np.asarray(amounts - (self.directions.transpose(0, 2, 1) @ steps)[:, :, 0], dtype=np.float64)

    @cached_property
    def _inverse(self) -> FloatArray:
        """The inverse of the normal equations, each step known to be of one sigma beforehand."""
        products = (self.directions @ self.directions.transpose(0, 2, 1)).astype(np.float64)
        prior = (self.noise**2)[:, None, None] * np.eye(products.shape[1])
        return np.asarray(np.linalg.inv(products + prior))


def _activate(values: Image) -> Image:
    with np.errstate(over="ignore"):
        return np.asarray(values / (1 + np.exp(-values)))


def _lines_only(flux: Image) -> Image:
    """Return spectra around their means, zero where not valid."""
    valid = np.isfinite(flux)
    known = np.where(valid, flux, np.float32(0))
    mean = known.sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    return np.where(valid, known - mean.astype(np.float32)[:, None], np.float32(0))
