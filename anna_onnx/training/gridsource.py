"""Training straight from a grid of synthetic spectra: each one drawn when it is needed, on the training device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from anna_onnx.errors import GridError
from anna_onnx.labels import Label, canonical
from anna_onnx.pieces import slices
from anna_onnx.resampling import Grid
from anna_onnx.synthesis import SpectralGrid, Synthesizer
from anna_onnx.synthesis.simulation import RV, Range, label_ranges

Sampler = Callable[[int, torch.Generator], Tensor]
"""Draws the labels of n stars, shape (n, n_label), in the order of `GridSource.label_names`."""


class GridSource:
    """An endless supply of spectra: as long as the generator is not started again, none comes twice.

    The arithmetic is that of `anna_onnx.synthesis.Synthesizer`, in float32.

    Parameters
    ----------
    spectra : SpectralGrid
    grid : Grid
        Pixels of the network.
    ranges : mapping of str to (float, float), optional
        Ranges of the labels; by default the whole of each axis, vsini 0-40 km/s.
    rv : (float, float)
        Range of the radial velocity, km/s.
    fwhm, resolution : float, optional
        Of the instrument: Angstrom, or wavelength / FWHM. One must be given;
        a `fwhm` of 0 is for a grid that has the instrument's profile already.
    limb_darkening : float
    device : torch.device or str
    sample : callable, optional
        Draws labels instead of uniformly; it must stay inside `ranges`.
    block : int, optional
        Spectra made at once, 0.1 MB of memory for each 1000 pixels: by
        default as many as fit into a processor's cache, or keep a GPU busy.

    Attributes
    ----------
    label_names : tuple of str
    ranges : dict of str to (float, float)

    Raises
    ------
    GridError
        If the grid does not reach as far as the ranges, or no instrument is given.
    """

    def __init__(
        self,
        spectra: SpectralGrid,
        grid: Grid,
        *,
        ranges: Mapping[str, Range] | None = None,
        rv: Range = RV,
        fwhm: float | None = None,
        resolution: float | None = None,
        limb_darkening: float = 0.6,
        device: torch.device | str = "cpu",
        sample: Sampler | None = None,
        block: int | None = None,
    ) -> None:
        if fwhm is None and resolution is None:
            raise GridError(
                f"{spectra.path}: to draw spectra the instrument must be known: give fwhm (Å) or resolution"
            )
        self.device = torch.device(device)
        self.grid = grid
        self.ranges = label_ranges(spectra, ranges or {})
        self.rv = rv
        synthesizer = Synthesizer.build(
            spectra,
            grid,
            fwhm=fwhm,
            resolution=resolution,
            limb_darkening=limb_darkening,
            max_rv=max(abs(v) for v in rv),
            max_vsini=self.ranges["vsini"][1],
        )
        self.label_names = synthesizer.label_names
        # Apple's GPUs have no float64; everywhere else labels keep it.
        self.dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._synthesizer = synthesizer.on(torch, self._move)
        self._sample = sample or self._uniform
        self._block = block or (256 if self.device.type == "cpu" else 4096)

    def draw(self, n: int, generator: torch.Generator, at_rest: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Draw spectra.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            Of any device; the same state gives the same stars on every device.
        at_rest : bool
            Without radial velocities.

        Returns
        -------
        flux : tensor of float32, shape (n, n_pixel)
            Continuum = 1, no noise; on `device`.
        labels : tensor of float64, shape (n, n_label)
            On `device`, in the grid's units; float32 on a device that has nothing longer.
        rv : tensor, shape (n,)
            Radial velocities, km/s, as `labels`.
        """
        labels = self._sample(n, generator).to(self.device, self.dtype)
        low, high = (0.0, 0.0) if at_rest else self.rv
        rv = low + (high - low) * _random((n,), generator).to(self.device, self.dtype)
        return self.synthesize(labels, rv), labels, rv

    @torch.no_grad()
    def synthesize(self, labels: Tensor, rv: Tensor) -> Tensor:
        """Return the spectra, float32 (n, n_pixel), of labels (n, n_label) at radial velocities (n,) in km/s."""
        flux = torch.empty(len(labels), self.grid.n_pixel, device=self.device)
        for rows in slices(len(labels), self._block):
            flux[rows] = self._synthesizer(labels[rows], rv[rows])
        return flux

    def columns(self, labels: Sequence[Label]) -> list[int]:
        """Return where the labels stand among those that are drawn."""
        names = [canonical(name) for name in self.label_names]
        return [names.index(canonical(label.name)) for label in labels]

    def _uniform(self, n: int, generator: torch.Generator) -> Tensor:
        low, high = np.array(list(self.ranges.values())).T
        scaled = _random((n, low.size), generator)
        return scaled.new_tensor(low) + scaled.new_tensor(high - low) * scaled

    def _move(self, array: object) -> Tensor:
        tensor = torch.as_tensor(array)
        keep = tensor.dtype != torch.float64 or self.dtype == torch.float64
        return tensor.to(self.device, tensor.dtype if keep else self.dtype)


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random numbers in float64 from a generator on its own device."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
