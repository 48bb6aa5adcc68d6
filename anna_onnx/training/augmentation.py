"""Augmentation: what happens to a spectrum between the training set and the network, anew at every draw.

Everything is vectorised over the batch and runs on the device where the flux
is, in the order in which it happens to light: the star moves and rotates, the
synthesis errs, the spectrograph blurs, the continuum is misplaced, the detector adds noise
and cosmic rays, pixels are lost. A lost pixel is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import FWHM, Grid
from anna_onnx.snrtemplate import of_median_pixel, read_template
from anna_onnx.synthesis.synthesizer import tabulate_rotation
from anna_onnx.training.draw import Draw
from anna_onnx.training.imperfection import Imperfections

LIMB_DARKENING = 0.6
OUTLIER = 4.0  # times the noise of other pixels


@dataclass(frozen=True, eq=False)
class Augmented:
    """A batch after augmentation.

    Attributes
    ----------
    flux : Tensor, shape (batch, n_pixel)
        NaN where a pixel is missing.
    snr : Tensor, shape (batch,)
        Median S/N of the pixels; infinite without noise.
    """

    flux: Tensor
    snr: Tensor


class Augmentation:
    """All that `[augmentation]` asks for.

    Parameters
    ----------
    settings : config.Augmentation
    grid : Grid
        Of the training set.
    resolve : callable
        From a file name in the parameters to its path.
    residuals : array, shape (n, n_pixel), optional
        Spectra of real noise; what they lack (NaN) is missing in the spectra that they are added to.
    device : torch.device, optional
    template : Tensor, shape (n_pixel,), optional
        Relative S/N, in place of the file that the settings name.
    """

    def __init__(
        self,
        settings: config.Augmentation,
        grid: Grid,
        resolve: Callable[[str], object] = str,
        residuals: Tensor | None = None,
        device: torch.device | None = None,
        template: Tensor | None = None,
    ) -> None:
        self.settings = settings
        self.device = device or torch.device("cpu")
        self.residuals = residuals
        wavelength = torch.as_tensor(grid.wavelength)
        center = (wavelength[0] + wavelength[-1]) / 2
        # -1 at the blue end, 1 at the red end
        self.position = (2 * (wavelength - center) / (wavelength[-1] - wavelength[0])).float().to(self.device)
        template = self._load_template(grid, resolve) if template is None else template
        self.template = template.to(self.device)
        relative = template if settings.legacy_noise else 1 / template
        self.typical_noise = float(relative.median())
        # None: the same in all pixels.
        self.relative_noise = None if (relative == 1).all() else relative.to(self.device)
        self.lost = self._always_missing(grid).to(self.device)
        self.imperfections = Imperfections(settings, grid, self.device)
        velocities = settings.radial_velocity or (0.0, 0.0)
        rotation = settings.vsini or (0.0, 0.0)
        self.pixels = Pixels(wavelength, self.device, max(map(abs, velocities)), rotation[1])

    @property
    def snr_range(self) -> tuple[float, float] | None:
        """The least and the largest S/N that is drawn, of a median pixel as `Augmented.snr`; None without `snr`."""
        if self.settings.snr is None:
            return None
        return of_median_pixel(self.settings.snr, self.typical_noise)

    def _load_template(self, grid: Grid, resolve: Callable[[str], object]) -> Tensor:
        if self.settings.snr_template is None:
            return torch.ones(grid.n_pixel)
        path = str(resolve(self.settings.snr_template))
        return torch.as_tensor(read_template(path, grid), dtype=torch.float32)

    def _always_missing(self, grid: Grid) -> Tensor:
        lost = np.zeros(grid.n_pixel, dtype=bool)
        for column in self.settings.bad_columns:
            if not 0 <= column < grid.n_pixel:
                raise TrainingError(f"augmentation.bad_columns: {column} is not a pixel of the grid's {grid.n_pixel}")
            lost[column] = True
        for low, high in self.settings.mask:
            lost |= (grid.wavelength >= low) & (grid.wavelength <= high)
        if lost.all():
            raise TrainingError(f"augmentation: mask and bad_columns leave none of the pixels, {grid}")
        return torch.as_tensor(lost)

    def __call__(
        self,
        flux: Tensor,
        generator: torch.Generator,
        sigma: Tensor | None = None,
        velocity: Tensor | None = None,
    ) -> Augmented:
        """Augment a batch.

        Parameters
        ----------
        flux : Tensor of float32, shape (batch, n_pixel)
        generator : torch.Generator
            On the device of `flux`.
        sigma : Tensor, shape (batch, n_pixel), optional
            The training set's own errors, for `file_noise`.
        velocity : Tensor, shape (batch,), optional
            Radial velocities of `flux`, km/s; at rest by default.
        """
        draw = Draw(generator, flux.shape[0], self.device)
        flux, velocity = self.move_and_blur(flux, draw, velocity)
        imperfect = draw.random((draw.n, 1)) < self.settings.imperfect if self.settings.imperfect < 1 else None
        flux = self.imperfections.apply(flux, draw, imperfect, velocity)
        flux = self.misplace_continuum(flux, draw)
        flux, snr = self.add_noise(flux, draw, sigma, imperfect)
        flux = self.hit_by_cosmic_rays(flux, draw)
        return Augmented(self.lose_pixels(flux, draw), snr)

    def move_and_blur(self, flux: Tensor, draw: Draw, velocity: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Rotate, degrade the resolution, and shift by a radial velocity; return that of the result too."""
        s = self.settings
        if s.vsini or s.resolution:
            flux = self.pixels.blur(
                flux,
                vsini=draw.uniform(s.vsini) if s.vsini else None,
                sigma=_extra_sigma(draw.uniform(s.resolution), s.spectrum_resolution) if s.resolution else None,
            )
        if not s.radial_velocity:
            return flux, velocity
        shift = draw.uniform(s.radial_velocity)
        return self.pixels.shift(flux, shift), shift if velocity is None else velocity + shift

    def misplace_continuum(self, flux: Tensor, draw: Draw) -> Tensor:
        """Add or multiply by an error of the continuum: offset + slope x + Legendre terms 2 to 4."""
        s, x = self.settings, self.position
        error: Tensor | None = None
        if s.continuum_offset:
            error = draw.uniform(s.continuum_offset)[:, None]
        if s.continuum_slope:
            slope = draw.uniform(s.continuum_slope)[:, None] * x
            error = slope if error is None else error + slope
        if s.continuum_curvature:
            terms = torch.stack([(3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2, (35 * x**4 - 30 * x**2 + 3) / 8])
            amplitude = torch.stack([draw.uniform(s.continuum_curvature) for _ in terms], dim=1)
            error = amplitude @ terms if error is None else error + amplitude @ terms
        if error is None:
            return flux
        return flux + error if s.continuum_mode == "additive" else flux * (1 + error)

    def add_noise(
        self, flux: Tensor, draw: Draw, sigma: Tensor | None, imperfect: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add Gaussian noise at a random S/N, from the file's errors, or from real residual spectra.

        The manual says that the S/N is multiplied by the template; the old code multiplied the
        noise by it, which `legacy_noise` repeats.
        """
        s = self.settings
        variance = torch.zeros(flux.shape[0], device=self.device)
        if s.snr:
            level = 1 / (draw.log_uniform(s.snr) if s.snr_spacing == "log" else draw.uniform(s.snr))
            noise = self._noise(flux.shape, draw, imperfect)
            if self.relative_noise is not None:
                noise *= self.relative_noise
            # One pass over the batch where products and sums would be three, and into memory that is at hand.
            flux = torch.addcmul(flux, noise, level[:, None], out=noise)
            variance = variance + (level * self.typical_noise) ** 2
        if s.file_noise:
            if sigma is None:
                raise TrainingError("augmentation.file_noise: the training set has no sigma")
            flux = torch.addcmul(flux, draw.normal(flux.shape), sigma)
            # What stands for the sigma of a missing pixel is no noise of the spectrum.
            variance = variance + sigma.masked_fill(flux.isnan(), math.nan).nanmedian(dim=1).values ** 2
        if self.residuals is not None:
            chosen = self.residuals[draw.integers(len(self.residuals))]
            flux = flux + chosen
            variance = variance + (chosen - chosen.nanmean(dim=1, keepdim=True)).square().nanmean(dim=1)
        return flux, variance.rsqrt()

    def _noise(self, shape: torch.Size, draw: Draw, imperfect: Tensor | None) -> Tensor:
        """Draw noise of unit variance, neighbouring pixels correlated where the settings ask; outliers come on top."""
        s = self.settings
        share = 1.0 if imperfect is None else imperfect.float()
        if s.noise_correlation is None:
            noise = draw.normal(shape)
        else:
            # n[i] + k n[i + 1], divided by sqrt(1 + k^2), has the correlation k / (1 + k^2).
            correlation = (share * draw.uniform(s.noise_correlation)[:, None]).clamp(1e-3, 0.499)
            k = (1 - (1 - 4 * correlation**2).sqrt()) / (2 * correlation)
            white = draw.normal(torch.Size((shape[0], shape[1] + 1)))
            noise = (white[:, :-1] + k * white[:, 1:]) / (1 + k**2).sqrt()
        if s.noise_outliers:
            wild = draw.random(shape) < share * draw.uniform(s.noise_outliers)[:, None]
            noise = noise * (1 + (OUTLIER - 1) * wild)
        return noise

    def hit_by_cosmic_rays(self, flux: Tensor, draw: Draw) -> Tensor:
        """Raise single pixels, a Poisson number in each spectrum, by an exponentially distributed amount of mean 1."""
        if not self.settings.cosmic_rays:
            return flux
        hit = draw.random(flux.shape) < self.settings.cosmic_rays / flux.shape[1]
        return flux - hit * torch.log1p(-draw.random(flux.shape))

    def lose_pixels(self, flux: Tensor, draw: Draw) -> Tensor:
        """Make pixels missing: single ones, one gap, the ends, bad columns and masked regions."""
        s, n = self.settings, flux.shape[1]
        if not (s.missing_pixels or s.gaps or s.coverage or s.bad_columns or s.mask):
            return flux
        index = torch.arange(n, device=self.device)
        lost: Tensor = self.lost
        if s.missing_pixels:
            lost = lost | (draw.random(flux.shape) < draw.uniform(s.missing_pixels)[:, None])
        if s.gaps:
            width = (draw.uniform(s.gaps) * n)[:, None]
            first = draw.random((flux.shape[0], 1)) * (n - width)
            lost = lost | ((index >= first) & (index < first + width))
        if s.coverage:
            width = (draw.uniform(s.coverage) * n)[:, None]
            # Spectra mostly lack one end: a quarter begin with the grid, a quarter end with it.
            first = (2 * draw.random((flux.shape[0], 1)) - 0.5).clamp(0, 1) * (n - width)
            lost = lost | (index < first) | (index > first + width)
        if s.incomplete < 1:
            lost = (lost & (draw.random((flux.shape[0], 1)) < s.incomplete)) | self.lost
        return flux.masked_fill(lost, math.nan)


class Pixels:
    """Interpolation and convolution along the pixels of one grid.

    Parameters
    ----------
    wavelength : Tensor of float64, shape (n_pixel,)
    device : torch.device
    max_velocity : float
        The largest that `shift` will be asked for, km/s.
    max_vsini : float
        The largest that `blur` will be asked for, km/s.
    """

    def __init__(
        self, wavelength: Tensor, device: torch.device, max_velocity: float = 0.0, max_vsini: float = 0.0
    ) -> None:
        self.n = wavelength.numel()
        self.index = torch.arange(self.n, device=device)
        self.pixel = self.index.float()
        # Apple's GPUs have no float64.
        self.wavelength = wavelength.to(device, torch.float32 if device.type == "mps" else torch.float64)
        log = wavelength.log()
        self.linear_step, self.log_step = _uniform_step(wavelength), _uniform_step(log)
        self.uniform = self.linear_step is not None or self.log_step is not None
        # Where a grid linear in wavelength begins, in pixels from wavelength 0.
        self.origin = float(wavelength[0]) / self.linear_step if self.linear_step else 0.0
        # Blurring works on twice as many pixels, equal in ln(wavelength).
        self.fine = torch.linspace(float(log[0]), float(log[-1]), 2 * self.n, dtype=torch.float64)
        self.fine_step = float(self.fine[1] - self.fine[0])
        self.to_fine = self.position_of(self.fine.exp().to(self.wavelength))[None].float()
        self.from_fine = ((log - self.fine[0]) / self.fine_step)[None].float().to(device)
        nyquist = math.pi / self.fine_step
        rotation, self.rotation_step = tabulate_rotation(nyquist * max_vsini / C_KMS, LIMB_DARKENING)
        self.rotation = torch.as_tensor(rotation, dtype=torch.float32).to(device)
        extremes = self.displacement(torch.tensor([-max_velocity, max_velocity], device=device))
        self.reach = int(extremes.abs().max()) + 5
        # Over how many pixels a shift varies by less than half a pixel.
        varies = float((extremes[:, -1] - extremes[:, 0]).abs().max())
        self.block = -(-self.n // (1 + int(2 * varies)))
        self._wide = torch.empty(0, 0, device=device)

    def shift(self, flux: Tensor, velocity: Tensor) -> Tensor:
        """Shift each spectrum by a velocity in km/s; what comes from more than a pixel beyond the ends is missing."""
        wide = self._with_margins(flux)
        if not self.uniform:
            away = self.displacement(velocity)
            whole = away.floor()
            return cubic(wide, whole.long() + (self.index + self.reach - 1), away.sub_(whole))
        start, stretch = self._start_and_stretch(velocity)
        parts = [self._shift_block(wide, first, start, stretch) for first in range(0, self.n, self.block)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _shift_block(self, wide: Tensor, first: int, start: Tensor, stretch: Tensor) -> Tensor:
        """Shift some pixels, all of a spectrum by the same whole number, which is no look-up but a copy.

        What is left of the shift lies between -1/4 and 5/4 then; the cubic is as good there as at 1/2.
        """
        pixel = self.pixel[first : first + self.block]
        length = len(pixel)
        whole = (start + stretch * pixel[length // 2]).floor()
        left = torch.outer(stretch, pixel).add_((start - whole)[:, None])
        row = torch.arange(first + self.reach - 1, wide.numel(), wide.shape[1], device=wide.device)
        near = wide.flatten().unfold(0, length + 3, 1).index_select(0, row + whole.long())
        one = near.diff(dim=1)
        two = one.diff(dim=1)
        three = two.diff(dim=1)
        return newton(near[:, :length], one[:, :length], two[:, :length], three, left)

    def displacement(self, velocity: Tensor) -> Tensor:
        """Return how many pixels to the right of each pixel its flux comes from, shape (batch, n_pixel)."""
        if self.uniform:
            start, stretch = self._start_and_stretch(velocity)
            return torch.outer(stretch, self.pixel).add_(start[:, None])
        factor = (-torch.atanh(velocity / C_KMS)).exp()[:, None]
        return (self.position_of(self.wavelength * factor) - self.index).float()

    def _start_and_stretch(self, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the displacement of the first pixel, and by how much it grows with each pixel, shape (batch,).

        Small numbers, so that float32 is as good at pixel 100 000 as at pixel 1.
        """
        log_factor = torch.atanh(velocity / -C_KMS)
        if self.log_step is not None and self.linear_step is None:
            return log_factor / self.log_step, torch.zeros_like(log_factor)
        stretch = log_factor.expm1()
        return stretch * self.origin, stretch

    def position_of(self, wavelength: Tensor) -> Tensor:
        """Return the fractional pixel at which a wavelength lies."""
        right = torch.searchsorted(self.wavelength, wavelength.contiguous()).clamp(1, self.n - 1)
        left = self.wavelength[right - 1]
        return right - 1 + (wavelength - left) / (self.wavelength[right] - left)

    def _with_margins(self, flux: Tensor) -> Tensor:
        """Continue each spectrum by two pixels at both ends, and by nothing beyond.

        The memory is that of the last batch: its far margins hold NaN already.
        """
        n, reach = self.n, self.reach
        if len(self._wide) != len(flux):
            self._wide = flux.new_full((len(flux), n + 2 * reach), math.nan)
        wide = self._wide
        wide[:, reach - 2 : reach] = flux[:, :1]
        wide[:, reach : reach + n] = flux
        wide[:, reach + n : reach + n + 2] = flux[:, -1:]
        return wide

    def blur(self, flux: Tensor, vsini: Tensor | None, sigma: Tensor | None) -> Tensor:
        """Convolve with a rotational profile and a Gaussian, both constant in ln(wavelength).

        Missing pixels stay missing; for their neighbours they are as the last pixel before them.

        Parameters
        ----------
        flux : Tensor, shape (batch, n_pixel)
        vsini : Tensor, shape (batch,), optional
            km/s, from 0 to `max_vsini`
        sigma : Tensor, shape (batch,), optional
            Of the Gaussian, in ln(wavelength).
        """
        pad = self.n // 4
        missing = flux.isnan()
        last = torch.where(missing, 0, self.index).cummax(dim=1).values
        fine = _resample(flux.gather(1, last).nan_to_num(1.0), self.to_fine)
        padded = functional.pad(fine[:, None], (pad, pad), mode="replicate")[:, 0]
        frequency = torch.fft.rfftfreq(padded.shape[1], d=self.fine_step, device=flux.device)
        transfer = torch.ones(len(flux), frequency.numel(), device=flux.device)
        if sigma is not None:
            transfer = transfer * torch.exp(-2 * (math.pi * frequency * sigma[:, None]) ** 2)
        if vsini is not None:
            transfer = transfer * self._rotation(2 * math.pi * frequency * (vsini[:, None] / C_KMS))
        blurred = torch.fft.irfft(torch.fft.rfft(padded) * transfer, n=padded.shape[1])[:, pad : pad + fine.shape[1]]
        return _resample(blurred, self.from_fine).masked_fill_(missing, math.nan)

    def _rotation(self, q: Tensor) -> Tensor:
        """Return the Fourier transform of the rotational profile at angular frequency times vsini/c, from a table."""
        place = q / self.rotation_step
        below = place.floor()
        entry = self.rotation[below.long()]  # (batch, frequency, 2)
        return torch.addcmul(entry[..., 0], place - below, entry[..., 1])


def cubic(flux: Tensor, cell: Tensor, t: Tensor) -> Tensor:
    """Interpolate each row with the cubic through four neighbours.

    Parameters
    ----------
    flux : Tensor, shape (batch, n_pixel)
    cell : Tensor of int64, shape (batch, n_out)
        The first of the four neighbours.
    t : Tensor, shape (batch, n_out)
        Where between the second (0) and the third (1).

    Returns
    -------
    Tensor, shape (batch, n_out)
    """
    one = flux.diff(dim=1)
    two = one.diff(dim=1)
    three = two.diff(dim=1)
    return newton(flux.gather(1, cell), one.gather(1, cell), two.gather(1, cell), three.gather(1, cell), t)


def newton(value: Tensor, one: Tensor, two: Tensor, three: Tensor, t: Tensor) -> Tensor:
    """Return the cubic with a value and forward differences at -1, at t: three passes over the batch.

    `three` and `t` are overwritten: fresh memory costs as much as the arithmetic.
    """
    torch.addcmul(two, three, t.sub_(1), value=1 / 3, out=three)
    torch.addcmul(one, three, t.add_(1), value=1 / 2, out=three)
    return torch.addcmul(value, three, t.add_(1), out=three)


def _resample(flux: Tensor, position: Tensor) -> Tensor:
    """Interpolate every row at the same fractional pixels, shape (1, n_out); the ends continue as they are."""
    n = flux.shape[1]
    left = position.floor().clamp(0, n - 2)
    wide = functional.pad(flux[:, None], (1, 1), mode="replicate")[:, 0]
    return cubic(wide, left.long().expand(len(flux), -1), (position - left).clamp(0, 1))


def _uniform_step(values: Tensor) -> float | None:
    """Return the step of equally spaced values, None of others."""
    step = values.diff()
    return float(step.mean()) if torch.allclose(step, step.mean(), rtol=1e-6, atol=0) else None


def _extra_sigma(resolution: Tensor, own: float | None) -> Tensor:
    """Return the Gaussian, in ln(wavelength), that degrades a spectrum's own resolving power to another."""
    return (resolution**-2 - (own or math.inf) ** -2).clamp(min=0).sqrt() / FWHM
