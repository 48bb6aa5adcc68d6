"""Imperfections: what real spectra have and a grid of synthetic ones lacks, drawn anew for every spectrum.

A network that only ever sees one list of lines and one profile learns their mistakes. Here each
spectrum gets mistakes of its own, so that no single line can be trusted too far.
Everything is vectorised over the batch and runs where the flux is.
"""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import FWHM, Grid
from anna_onnx.training.draw import Draw

N_WAVE = 3
OUTSIDE = 0.01  # of the wavelength: lines farther out come into the spectrum of no star


class Imperfections:
    """Errors of line strengths, unknown lines, scattered light, errors of the profile and the continuum.

    Parameters
    ----------
    settings : config.Augmentation
    grid : Grid
    device : torch.device
    """

    def __init__(self, settings: config.Augmentation, grid: Grid, device: torch.device) -> None:
        self.settings = settings
        wavelength = torch.as_tensor(grid.wavelength)
        self.range = float((wavelength[-1] - wavelength[0]) / settings.line_width)  # line widths
        if self.range < 1:
            raise TrainingError(
                f"augmentation.line_width: {settings.line_width:g} Å, more than the spectra have: {grid}"
            )
        pixel = float(np.median(np.diff(grid.wavelength)))
        self.sigma = settings.line_width / (FWHM * pixel)  # pixels
        self.profile = _gaussian(self.sigma).to(device)  # its peak is 1
        self.species = _Species(settings, wavelength, device) if settings.species else None
        self.place = ((wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0])).float().to(device)

    def apply(
        self, flux: Tensor, draw: Draw, imperfect: Tensor | None = None, velocity: Tensor | None = None
    ) -> Tensor:
        """Return spectra, before noise, with all that the settings ask for.

        Parameters
        ----------
        flux : Tensor, shape (batch, n_pixel)
        draw : Draw
        imperfect : Tensor of bool, shape (batch, 1), optional
            Which of them get it; all by default.
        velocity : Tensor, shape (batch,), optional
            Radial velocities, km/s; at rest by default.
        """
        spoilt = self._spoil(flux, draw, velocity)
        return spoilt if imperfect is None or spoilt is flux else torch.where(imperfect, spoilt, flux)

    def _spoil(self, flux: Tensor, draw: Draw, velocity: Tensor | None) -> Tensor:
        s = self.settings
        if s.line_errors:
            flux = self._misjudge_strengths(flux, draw)
        if self.species:
            flux = self._misjudge_species(flux, draw, velocity)
        if s.unknown_lines:
            flux = self._add_lines(flux, draw)
        if s.profile_errors:
            flux = self._change_width(flux, draw)
        if s.scattered_light:
            light = draw.uniform(s.scattered_light)[:, None]
            flux = (flux + light) / (1 + light)
        if s.continuum_waves:
            flux = flux + self._waves(draw)
        return flux

    def _misjudge_strengths(self, flux: Tensor, draw: Draw) -> Tensor:
        """Multiply the depth of lines by 1 + error, errors more than a line width apart being independent."""
        assert self.settings.line_errors
        error = self._smooth(draw.normal(flux.shape)) / self.profile.square().sum().sqrt()
        level = draw.uniform(self.settings.line_errors)[:, None]
        return _strengthened(flux, level * error)

    def _misjudge_species(self, flux: Tensor, draw: Draw, velocity: Tensor | None) -> Tensor:
        """Multiply the depth of all the lines of an element by 1 + error, for every element."""
        assert self.species
        assert self.settings.species_errors
        level = draw.uniform(self.settings.species_errors)[:, None]
        error = level * draw.normal(torch.Size((draw.n, self.species.n)))
        return _strengthened(flux, self.species.spread(error, velocity))

    def _add_lines(self, flux: Tensor, draw: Draw) -> Tensor:
        """Subtract lines of exponentially distributed depth, a Poisson number of them in each spectrum."""
        s = self.settings
        assert s.unknown_lines
        present = draw.random(flux.shape) < s.unknown_lines / flux.shape[1]
        depth = -s.unknown_line_depth * torch.log1p(-draw.random(flux.shape))
        return flux - self._smooth(present * depth)

    def _change_width(self, flux: Tensor, draw: Draw) -> Tensor:
        """Widen or narrow the instrument's profile by a few per cent.

        A profile wider by the variance d has the Fourier transform exp(-d f^2 / 2), to first
        order 1 - d f^2 / 2: flux + d / 2 times its second derivative, differences of
        neighbours here. Missing pixels make their neighbours missing.
        """
        assert self.settings.profile_errors
        more = ((1 + draw.uniform(self.settings.profile_errors)) ** 2 - 1) * self.sigma**2
        curvature = functional.pad(flux.diff(n=2, dim=1), (1, 1))
        return flux + 0.5 * more[:, None] * curvature

    def _waves(self, draw: Draw) -> Tensor:
        """Return waves of the continuum, shape (batch, n_pixel); periods from twenty line widths to the whole range."""
        assert self.settings.continuum_waves
        most = max(math.log(self.range / 20), 0.0)
        total = torch.zeros((), device=self.place.device)
        for _ in range(N_WAVE):
            frequency = torch.exp(most * draw.random((draw.n,)))[:, None]
            phase = draw.random((draw.n,))[:, None]
            amplitude = draw.uniform(self.settings.continuum_waves)[:, None] / N_WAVE
            total = total + amplitude * torch.sin(2 * math.pi * (frequency * self.place + phase))
        return total

    def _smooth(self, values: Tensor) -> Tensor:
        """Convolve with the profile of a line, its peak 1."""
        return functional.conv1d(values[:, None], self.profile[None, None], padding=len(self.profile) // 2)[:, 0]


def _strengthened(flux: Tensor, error: Tensor) -> Tensor:
    """Return spectra whose lines are deeper by a fraction, and never in emission for that."""
    return 1 - (1 - flux) * (1 + error).clamp(min=0)


class _Species:
    """Where the lines of each element are, at rest.

    Each line reaches 1.25 line widths to both sides, so that its wings, and some rotation, are within.
    """

    def __init__(self, settings: config.Augmentation, wavelength: Tensor, device: torch.device) -> None:
        first, last = wavelength[0] * (1 - OUTSIDE), wavelength[-1] * (1 + OUTSIDE)
        for line in chain.from_iterable(settings.species):
            if not first <= line <= last:
                raise TrainingError(
                    f"augmentation.species: no line at {line:g} Å can be in spectra from "
                    f"{wavelength[0]:.1f} to {wavelength[-1]:.1f} Å"
                )
        reach, margin = 1.25 * settings.line_width, 4
        blue, red = min(map(min, settings.species)), max(map(max, settings.species))
        # Equal steps in ln(wavelength), a quarter of a line width in the middle; nothing is left at both ends.
        self.step = settings.line_width / (2 * (blue + red))
        start, end = math.log(blue - margin * reach), math.log(red + margin * reach)
        at = torch.arange(start, end, self.step, dtype=torch.float64).exp()
        self.n = len(settings.species)
        self.shape = torch.stack([_near(at, lines, reach) for lines in settings.species]).float().to(device)
        self.pixel = (wavelength.log() - start).float().to(device)

    def spread(self, error: Tensor, velocity: Tensor | None) -> Tensor:
        """Return the error of each pixel, shape (batch, n_pixel), from that of each element, shape (batch, n)."""
        curve = error @ self.shape
        curve[:, [0, -1]] = 0
        shift = 0.0 if velocity is None else torch.atanh(velocity.float() / C_KMS)[:, None]
        place = ((self.pixel - shift) / self.step).round().long().clamp(0, curve.shape[1] - 1)
        return curve.gather(1, place.expand(len(curve), -1))


def _near(wavelength: Tensor, lines: tuple[float, ...], reach: float) -> Tensor:
    """Return 1 near lines, 0 elsewhere, with soft edges."""
    distance = (wavelength - wavelength.new_tensor(lines)[:, None]).abs().amin(dim=0) / reach
    return 1 / (1 + distance**8)


def _gaussian(sigma: float) -> Tensor:
    """Return a Gaussian of peak 1 out to three sigma."""
    reach = max(1, math.ceil(3 * sigma))
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return torch.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
