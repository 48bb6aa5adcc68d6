"""Grids of synthetic spectra: ``format="anna-grid"``.

The layout (version 1.1)::

    root attrs    format="anna-grid", format_version, axes = names of the axes in the order of /flux, free provenance
    /<axis>       f8 (n_axis)             attrs units, and optionally interpolate_in (see `Axis`)
    /wavelength   f8 (n_pixel)            attrs units="Angstrom", medium="air" | "vacuum"

and either the spectra themselves ::

    /flux         (n_axis, ..., n_pixel)  continuum = 1, no rotation, no instrument

or their principal components, from which flux = mean + coefficients @ components ::

    /mean         (n_pixel)
    /components   (k, n_pixel)            stored integers times the attribute quantum, when it has one
    /coefficients (n_axis, ..., k)        stored integers times the attribute quantum (k), when it has one
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.errors import GridError
from anna_onnx.files import check_version
from anna_onnx.labels import KNOWN

if TYPE_CHECKING:
    import h5py

FORMAT = "anna-grid"
FORMAT_VERSION = "1.1"
EMBEDDED = "fgk_6619_6831.h5"


@dataclass(frozen=True, eq=False)
class Axis:
    """One label of a grid and the values that it takes there.

    Parameters
    ----------
    name : str
    values : array of float64, shape (n_axis,)
        Strictly ascending, in `unit`.
    unit : str
        In astropy's spelling.
    interpolate_in : str
        The coordinate in which flux is smooth enough for a cubic spline:
        ``x``, ``log(x)``, or ``hypot(x, 1.3)``, which is sqrt(x² + 1.3²).
        The last suits microturbulence: it adds in quadrature to the thermal
        width of a line (1.3 km/s for iron at 5500 K), so that flux is even
        in it and a spline in the velocity itself would ring near zero.

    Raises
    ------
    GridError
        If the values do not ascend or the coordinate is not one of these.
    """

    name: str
    values: FloatArray
    unit: str = ""
    interpolate_in: str = "x"

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or not np.isfinite(self.values).all() or not (np.diff(self.values) > 0).all():
            raise GridError(f"axis {self.name}: its values must be finite and ascend strictly")
        if self.interpolate_in not in ("x", "log(x)") and self._width is None:
            raise GridError(
                f"axis {self.name}: interpolate_in '{self.interpolate_in}', needed x, log(x) or hypot(x, 1.3)"
            )
        if self.interpolate_in == "log(x)" and not (self.values > 0).all():
            raise GridError(f"axis {self.name}: interpolate_in log(x) needs values above zero")

    @property
    def _width(self) -> float | None:
        match = re.fullmatch(r"hypot\(x, *([0-9.]+)\)", self.interpolate_in)
        return float(match[1]) if match else None

    def coordinate(self, x: Any, xp: Any = np) -> Any:
        """Return the coordinate in which to interpolate, for an array of the namespace `xp`."""
        if self.interpolate_in == "log(x)":
            return xp.log(x)
        return x if self._width is None else xp.sqrt(x * x + self._width**2)

    @property
    def low(self) -> float:
        """The lowest value."""
        return float(self.values[0])

    @property
    def high(self) -> float:
        """The highest value."""
        return float(self.values[-1])


@dataclass(frozen=True, eq=False)
class SpectralGrid:
    """A grid of synthetic spectra, the spectra still on disk.

    Attributes
    ----------
    path : Path
    axes : tuple of Axis
        Those with more than one value; a parameter that the grid keeps
        fixed is no label.
    wavelength : array of float64, shape (n_pixel,)
        Angstrom, ascending.
    medium : {'air', 'vacuum'}
    coefficients : array of float32, shape (n_node, k), or None
        None when the file holds the spectra themselves.
    attrs : dict
        The free provenance of the file.
    """

    path: Path
    axes: tuple[Axis, ...]
    wavelength: FloatArray
    medium: Literal["air", "vacuum"]
    coefficients: Float32Array | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def n_node(self) -> int:
        """Number of points at which the grid has a spectrum."""
        return int(np.prod([axis.values.size for axis in self.axes]))

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(axis.name for axis in self.axes)

    def nodes(self) -> FloatArray:
        """Return the labels of all nodes, shape (n_node, n_axis), in the order of the spectra."""
        mesh = np.meshgrid(*[axis.values for axis in self.axes], indexing="ij")
        return np.stack([values.ravel() for values in mesh], axis=-1)

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> SpectralGrid:
        """Open a grid of either form; without a path the one that comes with anna-onnx (see docs/grid.md).

        Raises
        ------
        GridError
            If the file is not a grid, or its parts do not fit together.
        VersionError
            If a newer major version wrote it.
        """
        if path is None:
            path = str(files("anna_onnx.data") / EMBEDDED)
        import h5py

        path = Path(path)
        if not path.is_file():
            raise GridError(f"{path}: no such file")
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _read_header(file, path)
        except (OSError, KeyError) as error:
            raise GridError(f"{path}: not a readable grid of spectra ({error})") from error

    def read(self, pixels: slice = slice(None)) -> Float32Array:
        """Read what the spectra are made of, for a range of pixels.

        Returns
        -------
        components : array of float32, shape (k + 1, n_pixel) or (n_node, n_pixel)
            The mean spectrum and the principal components, or the spectra
            of all nodes; continuum = 1.

        Raises
        ------
        GridError
            If a value is not finite: a node without a spectrum would spoil
            its neighbours through the spline.
        """
        import h5py

        with h5py.File(self.path, "r", locking=False) as file:
            if self.coefficients is None:
                spectra = file["flux"][..., pixels].reshape(self.n_node, -1)
            else:
                quantum = file["components"].attrs.get("quantum", 1.0)
                components = file["components"][:, pixels] * np.float32(quantum)
                spectra = np.concatenate([file["mean"][pixels][None], components])
        holes = int((~np.isfinite(spectra)).any(axis=-1).sum())
        if holes:
            raise GridError(f"{self.path}: {holes} of {len(spectra)} spectra are not finite; fill them before use")
        return np.asarray(spectra, dtype=np.float32)


def _read_header(file: h5py.File, path: Path) -> SpectralGrid:
    if file.attrs.get("format") != FORMAT:
        raise GridError(f"{path}: format '{file.attrs.get('format')}', needed '{FORMAT}'")
    check_version(str(file.attrs["format_version"]), FORMAT_VERSION, str(path))
    axes = [_read_axis(file[name], str(name)) for name in file.attrs["axes"]]
    if "vsini" in file.attrs["axes"]:
        raise GridError(f"{path}: has an axis vsini; rotation is added to spectra without it")
    wavelength = np.asarray(file["wavelength"][:], dtype=np.float64)
    medium = str(file["wavelength"].attrs.get("medium"))
    if medium not in ("air", "vacuum"):
        raise GridError(f"{path}: /wavelength has medium '{medium}', needed air or vacuum")
    if wavelength.ndim != 1 or wavelength.size < 8 or not (np.diff(wavelength) > 0).all():
        raise GridError(f"{path}: /wavelength must be at least 8 pixels that ascend strictly")
    nodes = tuple(axis.values.size for axis in axes)
    coefficients = None
    if "flux" in file:
        _check_shape(path, file["flux"], (*nodes, wavelength.size))
    else:
        k = file["components"].shape[0]
        _check_shape(path, file["components"], (k, wavelength.size))
        _check_shape(path, file["mean"], (wavelength.size,))
        _check_shape(path, file["coefficients"], (*nodes, k))
        quantum = file["coefficients"].attrs.get("quantum", 1.0)
        coefficients = (file["coefficients"][:].reshape(-1, k) * quantum).astype(np.float32)
    return SpectralGrid(
        path=path,
        axes=tuple(axis for axis in axes if axis.values.size > 1),
        wavelength=wavelength,
        medium=medium,  # type: ignore[arg-type]  # checked above
        coefficients=coefficients,
        attrs={name: value for name, value in file.attrs.items() if name not in ("format", "format_version", "axes")},
    )


def _read_axis(dataset: h5py.Dataset, name: str) -> Axis:
    usual = "hypot(x, 1.3)" if name == "vmic" else "x"
    unit = KNOWN[name][0] if name in KNOWN else str(dataset.attrs.get("units", ""))
    return Axis(name, dataset[:].astype(np.float64), unit, str(dataset.attrs.get("interpolate_in", usual)))


def _check_shape(path: Path, dataset: h5py.Dataset, needed: Sequence[int]) -> None:
    if dataset.shape != tuple(needed):
        raise GridError(f"{path}: {dataset.name} has shape {dataset.shape}, its axes need {tuple(needed)}")
