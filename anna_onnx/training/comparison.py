"""Comparison: what spectrum would the training set show for the labels that the network inferred?

A star unlike any in the training set may still look like a mixture of some of them: its lines may be too weak, or
too wide, for every combination of labels. The network infers labels all the same. A small
emulator then says what a star with these labels looks like, and three things are asked of what is left:

* Is there more outside of the space of the training spectra than the noise of single pixels makes?
* Is there more inside of it than noise, which lies outside of it too, makes?
* Is it what a lower resolving power leaves?

Errors of the inferred labels, of the velocity and of the continuum are allowed for, to first order; so are, by the
first, the usual errors of the profile. All of it becomes part of the exported network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anna_onnx.fit import COLUMNS, Fit
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.training.network import unit_templates

TEST_COMPONENTS = 16
"""Of the emulated spectra, those of most variance, in which a misfit is looked for."""
LABEL_ERRORS = (0.003, 0.3)
"""Least and largest error of a scaled label that is allowed for."""
CONTINUUM_ERROR, CONTINUUM_ORDER = 0.02, 4
KNOWN_TO = 10.0
"""How far beyond the velocities of the training others are looked for, km/s."""
VELOCITY_STEP = 0.5  # pixels, between the templates
FARTHEST = 2.0  # pixels from the nearest template
MOST_BLOCKS = 50
LEAST_NOISE = 1e-4
HUGE = 100.0
"""Flux beyond which a pixel may be anything."""
TINY = 1e-12


class Emulator(nn.Module):
    """From scaled labels to a spectrum at rest.

    Parameters
    ----------
    mean : Tensor, shape (n_pixel,)
        Mean training spectrum at rest, continuum = 1.
    components : Tensor, shape (n_component, n_pixel)
        Orthonormal directions, that of most variance first.
    layers : nn.Sequential
        From labels scaled to -1 to 1 to amounts of the components.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor, layers: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("components", components.float())
        self.layers = layers

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the amounts of the components, shape (..., n_component), of labels scaled to 0-1."""
        amounts: Tensor = self.layers(2 * scaled - 1)
        return amounts

    def spectrum(self, amounts: Tensor) -> Tensor:
        """Return spectra at rest, shape (n, n_pixel), of amounts of the components."""
        return self.mean + amounts @ self.components


class Comparison(nn.Module):
    """Compare spectra with the emulation of their labels.

    Parameters
    ----------
    emulator : Emulator
    grid : Grid
    velocities : (low, high)
        Radial velocities of the training, km/s.
    """

    velocity: Tensor
    templates: Tensor
    per_kms: Tensor
    basis: Tensor
    tests: Tensor
    continuum_variance: Tensor
    turn: Tensor
    smooth: Tensor
    of_shift: Tensor
    of_widening: Tensor
    line_products: Tensor
    blur_error: Tensor

    def __init__(self, emulator: Emulator, grid: Grid, velocities: tuple[float, float]) -> None:
        super().__init__()
        self.emulator = emulator
        wavelength = torch.as_tensor(grid.wavelength)
        per_kms = wavelength / torch.gradient(wavelength)[0] / C_KMS
        low, high = velocities[0] - KNOWN_TO, velocities[1] + KNOWN_TO
        step = VELOCITY_STEP / float(per_kms.mean())
        velocity = torch.linspace(low, high, 3 + round((high - low) / step))
        fastest = max(abs(low), abs(high))
        self.reach = int(fastest * float(per_kms.max())) + 4
        blocks = _blocks_of_one_shift((fastest * per_kms).tolist())
        self.is_even = len(blocks) <= MOST_BLOCKS
        self.blocks = blocks if self.is_even else [slice(0, grid.n_pixel)]
        self.register_buffer("velocity", velocity.float())
        self.register_buffer("per_kms", per_kms.float())
        self.register_buffer("blur_error", torch.zeros(()))
        self._prepare_directions()
        # From rest to each velocity.
        lines = (emulator.mean - emulator.mean.mean()).expand(len(velocity), -1)
        moved, _ = self._shift(lines, -self.velocity)
        self.register_buffer("templates", unit_templates(torch.where(moved.isnan(), 0.0, moved)).T.contiguous())

    def _prepare_directions(self) -> None:
        """Express what is allowed for in the components, turned so that the continuum has a few of its own."""
        emulator = self.emulator
        n_component, n_pixel = emulator.components.shape
        components, mean = emulator.components.double(), emulator.mean.double()
        position = np.linspace(-1, 1, n_pixel)
        legendre = torch.as_tensor(np.polynomial.legendre.legvander(position, CONTINUUM_ORDER).T)
        of_continuum = CONTINUUM_ERROR * legendre @ components.T  # (order, component)
        _, size, turn = torch.linalg.svd(of_continuum, full_matrices=True)
        variance = torch.zeros(n_component, dtype=torch.float64)
        variance[: len(size)] = size**2
        rows = torch.cat([mean[None], components])
        wide = functional.pad(rows[:, None], (1, 1), mode="replicate")[:, 0]
        around = rows - rows.mean(dim=1, keepdim=True)
        basis = turn @ components
        outside = legendre - (legendre @ components.T) @ components
        self.register_buffer("basis", basis.T.float().contiguous())  # (pixel, component)
        self.register_buffer("turn", turn.T.float().contiguous())  # (component, turned)
        self.register_buffer("tests", turn[:, :TEST_COMPONENTS].float().contiguous())  # (turned, tested)
        self.register_buffer("continuum_variance", variance.float())
        self.register_buffer("smooth", torch.linalg.qr(outside.T)[0].float().contiguous())  # (pixel, order)
        self.register_buffer("of_shift", (torch.gradient(rows, dim=1)[0] @ basis.T).float())
        # To first order in the variance of a Gaussian of one square pixel.
        self.register_buffer("of_widening", (0.5 * wide.diff(n=2, dim=1) @ basis.T).float())
        self.register_buffer("line_products", (around @ around.T / n_pixel).float())

    @torch.no_grad()
    def expect_blur(self, error: float) -> None:
        """Allow for an error of the profile, the variance of a Gaussian in square pixels."""
        self.blur_error.fill_(error)

    def forward(self, flux: Tensor, scaled: Tensor, error: Tensor) -> Tensor:
        """Return the columns of a `anna_onnx.fit.Fit`, shape (n, n_column).

        Parameters
        ----------
        flux : Tensor, shape (n, n_pixel)
            NaN where a pixel is not valid.
        scaled, error : Tensor, shape (n, n_label)
            Inferred labels scaled to 0-1, and their errors in the same scale.
        """
        labels = torch.where(scaled.isnan(), 0.5, scaled).clamp(0, 1)
        amounts = self.emulator(labels)
        left = self._left_over(flux, self.emulator.spectrum(amounts))
        inside = left.flux @ self.basis
        noise = self._noise(left, inside)
        around = torch.cat([torch.ones_like(noise).unsqueeze(1), amounts], dim=1)
        wider = around @ self.of_widening
        directions = self._directions(labels, amounts, around, error)
        rest, of_its_own = self._take_out(directions, noise, torch.stack([inside, wider], dim=1)).unbind(dim=1)
        weight = (wider * of_its_own).sum(dim=1).clamp(min=TINY)
        # The misfit allows for an error of the profile too, one direction more (Sherman & Morrison 1950).
        usual = self.blur_error.square()
        step = usual * (wider * rest).sum(dim=1) / (noise.square() + usual * weight)
        tested = (rest - step.unsqueeze(1) * of_its_own) @ self.tests
        columns = {
            "velocity": left.velocity,
            "pixel_noise": _pixel_noise(left.flux) / (left.smoothing.of_differences * left.share**2),
            "noise": noise,
            "misfit": (tested.square().mean(dim=1) / left.share).sqrt(),
            "lines": ((around @ self.line_products) * around).sum(dim=1).clamp(min=0).sqrt(),
            "widening": (of_its_own * inside).sum(dim=1) / (left.share * weight),
            "widening_error": noise / (left.share * weight).sqrt(),
        }
        return torch.stack([columns[name] for name in COLUMNS], dim=1)

    def fit(self, flux: Tensor, scaled: Tensor, error: Tensor) -> Fit:
        """Compare spectra; see `forward`."""
        return Fit.of(self(flux, scaled, error).numpy())

    def _left_over(self, flux: Tensor, model: Tensor) -> LeftOver:
        """Return what emulated spectra at rest leave of spectra at any velocity."""
        flux = torch.where(flux.isnan(), flux, flux.clamp(-HUGE, HUGE))  # onnxruntime's Clip may lose NaN
        nearest = self._nearest_velocity(flux)
        at_rest, smoothing = self._shift(flux, nearest)
        left = at_rest - model
        valid = ~left.isnan()
        left, pixels = self._align(torch.where(valid, left, 0.0), valid, model)
        share = valid.float().mean(dim=1).clamp(min=1 / left.shape[1])
        return LeftOver(left, nearest + pixels / self.per_kms.mean(), share, smoothing)

    def _noise(self, left: LeftOver, inside: Tensor) -> Tensor:
        """Return the rms outside of the components, of which `inside` are the amounts, and of smooth continua."""
        n_outside = left.flux.shape[1] - inside.shape[1] - self.smooth.shape[1]
        outside = _squares(left.flux) - _squares(inside) - _squares(left.flux @ self.smooth)
        noise = (outside.clamp(min=0) / (left.share * max(n_outside, 1))).sqrt()
        return (noise / left.smoothing.of_pixels).clamp(min=LEAST_NOISE)

    def _nearest_velocity(self, flux: Tensor) -> Tensor:
        """Return the velocities, shape (n,), at which the mean training spectrum resembles spectra most."""
        known = ~flux.isnan()
        mean = torch.where(known, flux, 0.0).sum(dim=1) / known.float().sum(dim=1).clamp(min=1)
        lines = torch.where(known, flux - mean.unsqueeze(1), 0.0)
        score = lines @ self.templates
        peak = score[:, 1:-1].argmax(dim=1, keepdim=True)
        left, top, right = (score.gather(1, peak + i) for i in range(3))
        curvature = (left - 2 * top + right).clamp(max=-TINY)
        step = self.velocity[1] - self.velocity[0]
        velocity = self.velocity[0] + step * (peak + 1 + (0.5 * (left - right) / curvature).clamp(-0.5, 0.5))
        return velocity.squeeze(1)

    def _shift(self, flux: Tensor, velocity: Tensor) -> tuple[Tensor, Smoothing]:
        """Shift spectra to the blue, cubic, straight beside missing pixels; also return what that does to noise."""
        wide = functional.pad(flux, (self.reach, self.reach), value=float("nan"))
        parts, shares = [], []
        for block in self.blocks:
            away = velocity.unsqueeze(1) * self.per_kms[block]
            near, t = self._near(wide, block, away) if self.is_even else self._near_each(wide, away)
            smooth, straight = _cubic(near, t), _straight(near, t)
            parts.append(torch.where(smooth.isnan(), straight, smooth))
            shares.append(t[:, :: max(t.shape[1] // 8, 1)])
        return torch.cat(parts, dim=1), Smoothing.of(torch.cat(shares, dim=1))

    def _near(self, wide: Tensor, block: slice, away: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return four neighbours of where each pixel comes from, and the place between the middle ones.

        All pixels of a block come from the same whole number of pixels away, which is one look-up.
        """
        n = away.shape[1]
        whole = away[:, n // 2 : n // 2 + 1].floor()
        index = torch.arange(block.start + self.reach - 1, block.stop + self.reach + 2, device=wide.device)
        window = wide.gather(1, index + whole.long())
        return [window[:, i : i + n] for i in range(4)], away - whole

    def _near_each(self, wide: Tensor, away: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the same where each pixel needs a look-up of its own."""
        whole = away.floor()
        first = torch.arange(away.shape[1], device=wide.device) + (self.reach - 1) + whole.long()
        return [wide.gather(1, first + i) for i in range(4)], away - whole

    def _align(self, left: Tensor, valid: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
        """Take out what a small error of the velocity leaves; also return that error in pixels, shape (n,)."""
        wide = functional.pad(model, (1, 1), mode="replicate")
        slope = torch.where(valid, 0.5 * (wide[:, 2:] - wide[:, :-2]), 0.0)
        pixels = -(left * slope).sum(dim=1) / slope.square().sum(dim=1).clamp(min=TINY)
        pixels = pixels.clamp(-FARTHEST, FARTHEST)
        return left + pixels.unsqueeze(1) * slope, pixels

    def _directions(self, labels: Tensor, amounts: Tensor, around: Tensor, error: Tensor) -> Tensor:
        """Return what errors of one sigma of labels, and of a pixel, do: shape (n, n_label + 1, n_component)."""
        step = torch.where(error.isnan(), LABEL_ERRORS[1], error).clamp(*LABEL_ERRORS)
        toward_middle = torch.where(labels > 0.5, -step, step)
        changed = labels.unsqueeze(1) + torch.diag_embed(toward_middle)  # (spectrum, changed, label)
        of_labels = (self.emulator(changed) - amounts.unsqueeze(1)) @ self.turn
        return torch.cat([of_labels, (around @ self.of_shift).unsqueeze(1)], dim=1)

    def _take_out(self, directions: Tensor, noise: Tensor, values: Tensor) -> Tensor:
        """Return what is left of values, shape (n, k, n_component), without what is allowed for.

        Each direction is known to be of one sigma beforehand, and so are those of the continuum, which are
        directions of components: ridge regression, its normal equations solved by elimination.
        """
        variance = noise.square().unsqueeze(1)
        kept = (variance / (variance + self.continuum_variance)).unsqueeze(1)
        values, weighted = values * kept, directions * kept
        products = weighted @ directions.transpose(1, 2)
        n = products.shape[1]
        identity = torch.eye(n, device=values.device)
        system = torch.cat([products + variance.unsqueeze(2) * identity, directions @ values.transpose(1, 2)], dim=2)
        for i in range(n):
            row = system[:, i : i + 1, :] / system[:, i : i + 1, i : i + 1]
            system = system - (system[:, :, i : i + 1] - identity[:, i : i + 1]) * row
        return values - system[:, :, n:].transpose(1, 2) @ weighted


class LeftOver(NamedTuple):
    """What emulated spectra leave of spectra that were brought to rest.

    Attributes
    ----------
    flux : Tensor, shape (n, n_pixel)
        0 where a pixel is not valid.
    velocity : Tensor, shape (n,)
        km/s
    share : Tensor, shape (n,)
        Of the pixels that are valid.
    smoothing : Smoothing
    """

    flux: Tensor
    velocity: Tensor
    share: Tensor
    smoothing: Smoothing


class Smoothing(NamedTuple):
    """What interpolation leaves of white noise, as factors on its standard deviation, shape (n,) each.

    Attributes
    ----------
    of_pixels : Tensor
    of_differences : Tensor
        The second differences of every other pixel.
    """

    of_pixels: Tensor
    of_differences: Tensor

    @classmethod
    def of(cls, t: Tensor) -> Smoothing:
        """Return that of cubic interpolation at `t`, shape (n, n_pixel), between pixels."""
        before, after, beyond = t + 1, t - 1, t - 2
        near = before * after * beyond / 2, -before * t * beyond / 2
        weights = (-t * after * beyond / 6, *near, before * t * after / 6)
        variance = sum((weight.square() for weight in weights), torch.zeros(()))
        # Of neighbours of neighbours.
        covariance = weights[0] * weights[2] + weights[1] * weights[3]
        return cls(variance.mean(dim=1).sqrt(), (variance - 4 / 3 * covariance).mean(dim=1).sqrt())


def _squares(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1)


def _blocks_of_one_shift(pixels: Sequence[float]) -> list[slice]:
    """Part pixels into blocks in which the largest shift, given in pixels, varies by half a pixel at most."""
    blocks, first = [], 0
    low = high = pixels[0]
    for i, pixel in enumerate(pixels):
        low, high = min(low, pixel), max(high, pixel)
        if high - low > 0.5:
            blocks.append(slice(first, i))
            first, low, high = i, pixel, pixel
    return [*blocks, slice(first, len(pixels))]


def _cubic(near: Sequence[Tensor], t: Tensor) -> Tensor:
    """Interpolate at `t` between the second and the third of four neighbours, by Newton's form.

    As that of the augmentation, which overwrites its arguments: an exported graph cannot.
    """
    before, left, right, after = near
    one, two = right - left, right - 2 * left + before
    three = after - right - one - two
    return left + t * (one + (t - 1) * (0.5 * two + (t + 1) / 6 * three))


def _straight(near: Sequence[Tensor], t: Tensor) -> Tensor:
    return near[1] + t * (near[2] - near[1])


def _pixel_noise(left: Tensor) -> Tensor:
    """Estimate the noise of a pixel from second differences, which few strange pixels hardly change, shape (n,).

    The differences of DER_SNR (Stoehr et al. 2008, ASP Conf. Ser. 394, 505). Of the absolute values x of a
    Gaussian of width s, the mean of sqrt(x) is 0.822179 sqrt(s).
    """
    around = 2 * left[:, 2:-2] - left[:, :-4] - left[:, 4:]
    return (around.abs().sqrt().mean(dim=1) / 0.822179).square() / 6**0.5
