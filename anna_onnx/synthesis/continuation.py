"""A grid of spectra continued beyond its edges: what stars look like, roughly, that are a little other than its own.

The logarithm of the optical depth of a pixel, -ln(flux), goes on along an axis as it went between the two outermost
nodes: on the linear part of the curve of growth it is a straight line in abundance, and saturated lines, which weaken
slower than that, come out a little too strong. Good for telling such stars apart, not for their labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from anna_onnx.arrays import Float32Array, FloatArray, Floats
from anna_onnx.errors import GridError
from anna_onnx.pieces import slices

from .grid import Axis, SpectralGrid

_FAINTEST, _DEEPEST = 1e-6, 7.0
"""Optical depths between which a line is continued."""
_MOST_CHANGE = np.log(2.0)
"""By which an optical depth changes from one node to the next, at most."""
_FARTHEST = 20  # nodes beyond an edge
_PART = 500  # pixels at once


@dataclass(frozen=True, eq=False, kw_only=True)
class _Continued(SpectralGrid):
    """A grid of spectra, not of components, whose outer nodes are made when they are read."""

    original: SpectralGrid

    def read(self, pixels: slice = slice(None)) -> Float32Array:
        return _continue(self.original.read(pixels), self.original.axes, self.axes)


def continued(spectra: SpectralGrid, ranges: Mapping[str, tuple[float, float]]) -> SpectralGrid:
    """Return a grid with nodes added, at the distance of the outermost two, until its axes reach as far as `ranges`.

    Parameters
    ----------
    spectra : SpectralGrid
    ranges : mapping of str to (low, high)
        Of axes, in their units; an axis that is not named stays as it is.

    Returns
    -------
    SpectralGrid
        Of the same form as `spectra`, and `spectra` itself where it reaches far enough.

    Raises
    ------
    GridError
        If an axis that cannot go below zero would, or one would go on for more than 20 nodes.
    """
    axes = tuple(_lengthened(spectra, axis, *ranges.get(axis.name, (axis.low, axis.high))) for axis in spectra.axes)
    if all(axis.values.size == old.values.size for axis, old in zip(axes, spectra.axes, strict=True)):
        return spectra
    if spectra.coefficients is None:
        return _Continued(spectra.path, axes, spectra.wavelength, spectra.medium, attrs=spectra.attrs, original=spectra)
    mean, *components = spectra.read().astype(np.float64)
    basis = np.array(components)
    products = np.zeros((np.prod([axis.values.size for axis in axes]), len(basis)))
    for pixels in slices(mean.size, _PART):
        known = mean[pixels] + spectra.coefficients @ basis[:, pixels]
        products += (_continue(known, spectra.axes, axes) - mean[pixels]) @ basis[:, pixels].T
    amounts = np.linalg.lstsq(basis @ basis.T, products.T)[0].T  # components are nearly orthogonal, not quite
    return replace(spectra, axes=axes, coefficients=amounts.astype(np.float32))


def _lengthened(spectra: SpectralGrid, axis: Axis, low: float, high: float) -> Axis:
    """Return an axis that reaches as far as a range."""
    values = axis.values
    below, above = values[1] - values[0], values[-1] - values[-2]
    n_below = max(0, int(np.ceil((axis.low - low) / below - 1e-9)))
    n_above = max(0, int(np.ceil((high - axis.high) / above - 1e-9)))
    if max(n_below, n_above) > _FARTHEST:
        wanted, edge = (low, axis.low) if n_below > _FARTHEST else (high, axis.high)
        raise GridError(
            f"{spectra.path}: {axis.name} cannot be continued from {edge:g} to {wanted:g}, "
            f"{_FARTHEST} nodes are the most"
        )
    if n_below and axis.interpolate_in != "x" and axis.low - n_below * below <= 0:
        raise GridError(f"{spectra.path}: {axis.name} cannot be continued to {low:g}, it has no values below zero")
    longer = [values[0] - below * np.arange(n_below, 0, -1), values, values[-1] + above * np.arange(1, n_above + 1)]
    return replace(axis, values=np.concatenate(longer))


def _continue(flux: Floats, old: tuple[Axis, ...], new: tuple[Axis, ...]) -> Float32Array:
    """Return the spectra of all nodes of the new axes, shape (n_node, n_pixel), from those of the old ones."""
    depth = -np.log(np.clip(flux, np.exp(-_DEEPEST), None))
    size = np.log(np.maximum(depth, _FAINTEST)).reshape(*[axis.values.size for axis in old], -1)
    for i, (before, after) in enumerate(zip(old, new, strict=True)):
        n_below = int(np.searchsorted(after.values, before.values[0]))
        n_above = after.values.size - before.values.size - n_below
        ends = np.moveaxis(size, i, 0)
        parts = [*_steps(ends[0], ends[1], n_below)[::-1], *ends, *_steps(ends[-1], ends[-2], n_above)]
        size = np.moveaxis(np.stack(parts), 0, i)
    spectra = np.exp(-np.exp(np.minimum(size, np.log(_DEEPEST))))
    return np.asarray(spectra.reshape(-1, flux.shape[-1]), dtype=np.float32)


def _steps(last: FloatArray, before: FloatArray, n: int) -> list[FloatArray]:
    """Return what follows after `before` and `last`."""
    change = np.clip(last - before, -_MOST_CHANGE, _MOST_CHANGE)
    return [last + i * change for i in range(1, n + 1)]
