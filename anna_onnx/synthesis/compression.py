"""A grid of spectra, compressed by principal components; the one that comes with anna-onnx was made so.

::

    python -m anna_onnx.synthesis.compression grid_6619_6831.h5 anna_onnx/data/fgk_6619_6831.h5 docs/grid.md
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import GridError
from anna_onnx.files import replacing
from anna_onnx.resampling import Grid

from .grid import FORMAT, FORMAT_VERSION, SpectralGrid
from .synthesizer import Synthesizer


def compress(
    grid: SpectralGrid | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    n_component: int = 160,
    quantum: float = 1e-5,
    fwhm: float = 0.6,
    about: str = "",
) -> dict[str, float]:
    """Write a grid of spectra as principal components, and measure what that costs.

    Components are scaled to coefficients of unit variance and rounded to one
    common `quantum`, so that each contributes the same rounding error to the
    flux and the faint ones need few bits; the coefficients are then fitted
    anew to the rounded components and rounded to 16 bits.

    Parameters
    ----------
    grid : SpectralGrid or path-like
        In the form that holds the spectra themselves.
    output : path-like
    n_component : int
    quantum : float
        In units of the continuum.
    fwhm : float
        Of the instrument at which the error is measured, Angstrom.
    about : str
        Physics, limits and citations, stored in the file: it may travel alone.

    Returns
    -------
    errors : dict
        Root mean square, 99.9th percentile and largest absolute value of
        (compressed - original), at the grid's own sampling and as observed
        with `fwhm`; also stored in the file.

    Raises
    ------
    GridError
        If the grid is compressed already, or has fewer nodes than
        components asked for.
    """
    spectra = grid if isinstance(grid, SpectralGrid) else SpectralGrid.open(grid)
    if spectra.coefficients is not None:
        raise GridError(f"{spectra.path}: is compressed already; give the grid of spectra that it was made from")
    if n_component >= min(spectra.n_node, spectra.wavelength.size):
        raise GridError(f"{spectra.path}: {n_component} components of {spectra.n_node} spectra are no compression")
    flux = spectra.read().astype(np.float64)
    mean = flux.mean(axis=0)
    components = _principal_components(flux - mean, n_component)
    peak = float(np.abs(components).max())
    if peak > quantum * np.iinfo(np.int16).max:
        raise GridError(f"{spectra.path}: a quantum of {quantum} is too fine for 16 bits, needed {peak / 32767:.1e}")
    steps = np.round(components / quantum).astype(np.int16)
    coefficients = np.linalg.lstsq(steps.T * quantum, (flux - mean).T, rcond=None)[0].T
    scales = np.abs(coefficients).max(axis=0) / np.iinfo(np.int16).max
    marks = np.round(coefficients / scales).astype(np.int16)

    output = Path(output)
    with replacing(output) as partial:
        _write(partial, spectra, mean, (steps, quantum), (marks, scales))
        errors = _statistics("native", mean + (marks * scales) @ (steps * quantum) - flux)
        errors |= _observed_errors(spectra, SpectralGrid.open(partial), fwhm)
        _write_attributes(partial, errors, about)
    return errors


def _principal_components(deviation: FloatArray, n_component: int) -> FloatArray:
    """Return the first components, shape (k, n_pixel), each times the scatter of its coefficient."""
    if deviation.shape[0] > deviation.shape[1]:
        _, singular, rows = np.linalg.svd(deviation, full_matrices=False)
        return np.asarray(singular[:n_component, None] * rows[:n_component] / np.sqrt(len(deviation)))
    _, left = np.linalg.eigh(deviation @ deviation.T)  # ascending
    return np.asarray(left[:, : -n_component - 1 : -1].T @ deviation / np.sqrt(len(deviation)))


def _write(
    path: Path,
    spectra: SpectralGrid,
    mean: FloatArray,
    components: tuple[NDArray[np.int16], float],
    coefficients: tuple[NDArray[np.int16], FloatArray],
) -> None:
    import h5py

    packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(path, "w", locking=False) as file:
        file.attrs.update({**spectra.attrs, "format": FORMAT, "format_version": FORMAT_VERSION})
        file.attrs.create("axes", list(spectra.axis_names), dtype=h5py.string_dtype())
        for axis in spectra.axes:
            dataset = file.create_dataset(axis.name, data=axis.values)
            dataset.attrs.update({"units": axis.unit, "interpolate_in": axis.interpolate_in})
        wavelength = file.create_dataset("wavelength", data=spectra.wavelength, **packed)
        wavelength.attrs.update({"units": "Angstrom", "medium": spectra.medium})
        file.create_dataset("mean", data=mean.astype(np.float32), **packed)
        steps, quantum = components
        file.create_dataset("components", data=steps, chunks=(1, steps.shape[1]), **packed)
        file["components"].attrs["quantum"] = quantum
        marks, scales = coefficients
        nodes = [axis.values.size for axis in spectra.axes]
        file.create_dataset("coefficients", data=marks.reshape(*nodes, -1), **packed)
        file["coefficients"].attrs["quantum"] = scales


def _observed_errors(original: SpectralGrid, compressed: SpectralGrid, fwhm: float) -> dict[str, float]:
    """Compare the two forms as an instrument sees them, at the nodes, three pixels a FWHM."""
    margin = 4 * fwhm
    first, last = original.wavelength[[0, -1]] + [margin, -margin]
    grid = Grid(np.arange(first, last, fwhm / 3), original.medium)
    labels = np.pad(original.nodes(), ((0, 0), (0, 1)))  # no rotation
    at_rest = np.zeros(len(labels))
    before, after = (Synthesizer.build(form, grid, fwhm=fwhm)(labels, at_rest) for form in (original, compressed))
    return {"observed_fwhm": fwhm, **_statistics("observed", after - before)}


def _statistics(name: str, error: NDArray[Any]) -> dict[str, float]:
    size = np.abs(error)
    return {
        f"{name}_error_rms": float(np.sqrt(np.mean(size**2))),
        f"{name}_error_99.9": float(np.percentile(size, 99.9)),
        f"{name}_error_max": float(size.max()),
    }


def _write_attributes(path: Path, errors: dict[str, float], about: str) -> None:
    import h5py

    with h5py.File(path, "r+", locking=False) as file:
        file.attrs.update({f"compression_{name}": value for name, value in errors.items()})
        if about:
            file.attrs["about"] = about


if __name__ == "__main__":
    original, compressed, text = sys.argv[1:]
    for statistic, value in compress(original, compressed, about=Path(text).read_text(encoding="utf-8")).items():
        print(f"{statistic:20s} {value:.2g}")
