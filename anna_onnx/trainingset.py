"""Training sets: spectra on one wavelength grid with their labels, in HDF5, larger than memory.

The layout (``format="anna-trainingset"``, version 1.0)::

    /wavelength  f8 (n_pixel)          attrs units="Angstrom", medium="air" | "vacuum"
    /flux        f4 (n, n_pixel)       contiguous, so that rows can be memory-mapped
    /sigma       f4 (n, n_pixel)       optional, standard deviation of the flux
    /mask        u1 (n, n_pixel)       optional, non-zero where the flux must not be used
    /labels      f8 (n, n_label)       NaN = not known; attrs names, units
    /id          f8 or UTF-8 (n)
    /aux/<name>  (n)                   anything else, such as rv, or e_<label>: errors of a label

A flux whose values all came as float64 and do not fit into float32 may be
stored as f8 (a legacy .bin is, so that it converts back bit by bit).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx.arrays import Float32Array, FloatArray, Floats, IntArray
from anna_onnx.errors import TrainingSetError
from anna_onnx.files import check_version, writing
from anna_onnx.resampling import Grid

if TYPE_CHECKING:
    import h5py

FORMAT = "anna-trainingset"
FORMAT_VERSION = "1.0"
WILD = 1e15
"""Flux that stands for none; a single such pixel would spoil every weight of a network."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Spectra and labels, the spectra still on disk.

    Opening reads everything but flux, sigma and mask, which are
    memory-mapped: a row costs what its bytes cost.

    Attributes
    ----------
    path : Path
    grid : Grid, shape (n_pixel,)
    flux : array of float32 or float64, shape (n, n_pixel)
        Continuum = 1.
    labels : array of float64, shape (n, n_label)
        In `label_units`; NaN = not known.
    label_names, label_units : tuple of str
    id : array, shape (n,)
    sigma, mask : arrays, shape (n, n_pixel), or None
    aux : dict of str to array, shape (n,)
    attrs : dict
        The free provenance of the file.
    """

    path: Path
    grid: Grid
    flux: Floats
    labels: FloatArray
    label_names: tuple[str, ...]
    label_units: tuple[str, ...]
    id: NDArray[Any]
    sigma: Floats | None = None
    mask: NDArray[np.uint8] | None = None
    aux: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def __repr__(self) -> str:
        return f"<TrainingSet {self.path}: {len(self)} spectra, {self.grid}, labels {', '.join(self.label_names)}>"

    def radial_velocity(self, column: str | None = None) -> FloatArray | None:
        """Return the radial velocities that are in the spectra, km/s, shape (n,).

        Parameters
        ----------
        column : str, optional
            Of `aux`; by default ``rv``.

        Returns
        -------
        velocity : array or None
            NaN where one is not known; None where the set has no such column of numbers.
        """
        found = self.aux.get(column or "rv")
        if found is None or found.dtype.kind not in "fiu":
            return None
        return np.where(np.isfinite(found), found, np.nan).astype(np.float64)

    def read_flux(self, rows: IntArray) -> Float32Array:
        """Return the flux of some spectra, shape (n, n_pixel), NaN where the set masks it or it stands for none."""
        with np.errstate(over="ignore"):
            flux = np.asarray(self.flux[rows], dtype=np.float32)
        flux[np.abs(flux) > WILD] = np.nan
        if self.mask is not None:
            flux[self.mask[rows] != 0] = np.nan
        return flux

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TrainingSet:
        """Open an HDF5 training set.

        Raises
        ------
        TrainingSetError
            If the file is not a training set, or its parts do not fit together.
        VersionError
            If a newer major version wrote it.
        """
        import h5py

        path = Path(path)
        if path.is_dir():
            raise TrainingSetError(f"{path}: a folder, needed a file")
        if not path.is_file():
            raise TrainingSetError(f"{path}: no such file")
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _read(file, path)
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise TrainingSetError(f"{path}: not a readable training set ({error})") from error


def _read(file: h5py.File, path: Path) -> TrainingSet:
    if file.attrs.get("format") != FORMAT:
        raise TrainingSetError(f"{path}: format '{file.attrs.get('format')}', needed '{FORMAT}'")
    check_version(str(file.attrs["format_version"]), FORMAT_VERSION, str(path))
    grid = Grid(file["wavelength"][:], str(file["wavelength"].attrs["medium"]))  # type: ignore[arg-type]  # Grid checks it
    labels = file["labels"][:].astype(np.float64)
    names = tuple(str(name) for name in file["labels"].attrs["names"])
    units = tuple(str(unit) for unit in file["labels"].attrs["units"])
    shape = (labels.shape[0], grid.n_pixel)
    if labels.ndim != 2 or labels.shape[1] != len(names) or len(names) != len(units):
        raise TrainingSetError(f"{path}: labels of shape {labels.shape} for {len(names)} names, {len(units)} units")
    images = {name: _map(file[name], path, shape) for name in ("flux", "sigma", "mask") if name in file}
    if "flux" not in images:
        raise TrainingSetError(f"{path}: no dataset /flux")
    return TrainingSet(
        path=path,
        grid=grid,
        labels=labels,
        label_names=names,
        label_units=units,
        id=_ids(file["id"]) if "id" in file else np.arange(shape[0], dtype=np.float64),
        aux={name: dataset[:] for name, dataset in file["aux"].items()} if "aux" in file else {},
        attrs={name: value for name, value in file.attrs.items() if name not in ("format", "format_version")},
        **images,
    )


def _map(dataset: h5py.Dataset, path: Path, shape: tuple[int, int]) -> NDArray[Any]:
    """Memory-map a contiguous dataset; read a chunked or compressed one."""
    if dataset.shape != shape:
        raise TrainingSetError(f"{path}: {dataset.name} has shape {dataset.shape}, needed {shape}")
    offset = dataset.id.get_offset()
    if offset is None or 0 in shape:
        return np.asarray(dataset[:])
    return np.memmap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=shape)


def _ids(dataset: h5py.Dataset) -> NDArray[Any]:
    return np.asarray(dataset.asstr("utf-8", "replace")[:]) if dataset.dtype.kind in "OS" else np.asarray(dataset[:])


class _Disk(io.FileIO):
    """A file that takes all that it is given, when there is no room too: libhdf5 crashes if it cannot close a file."""

    _full: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, unless something was lost before."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self._full is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._full = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Give the file a size, unless there is no room for it."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._full = error
            return size or 0

    def check(self) -> None:
        """Raise the error that something was lost for."""
        if self._full is not None:
            raise self._full


class TrainingSetWriter:
    """Write a training set as its spectra come, in bounded memory.

    A context manager. The file appears under its name when the block ends
    without an error; until then it has a temporary name beside it.

    Parameters
    ----------
    path : path-like
    grid : Grid
    label_names : sequence of str
    label_units : sequence of str
    n : int
        Number of spectra to come; exactly so many must be appended.
    dtype : {'f4', 'f8'}
        Of flux and sigma.
    sigma, mask : bool
        Whether these come along.
    aux : mapping of str to dtype-like
        Names and types of further columns.
    id_dtype : {'f8', 'str'}
    attrs : mapping
        Provenance, stored as root attributes.
    label_attrs : mapping
        Further attributes of the labels.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: Grid,
        label_names: Sequence[str],
        label_units: Sequence[str],
        n: int,
        *,
        dtype: Literal["f4", "f8"] = "f4",
        sigma: bool = False,
        mask: bool = False,
        aux: Mapping[str, Any] | None = None,
        id_dtype: Literal["f8", "str"] = "f8",
        attrs: Mapping[str, Any] | None = None,
        label_attrs: Mapping[str, Any] | None = None,
    ) -> None:
        import h5py

        self.path = Path(path)
        self.n = n
        self.written = 0
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._disk = _Disk(self._partial, "w+")
        self._file = h5py.File(self._disk, "w")
        self._columns: dict[str, h5py.Dataset] = {}
        try:
            self._file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **(attrs or {})})
            self._lay_out(grid, label_names, label_units, dtype, {"sigma": sigma, "mask": mask}, aux or {}, id_dtype)
            self._columns["labels"].attrs.update(label_attrs or {})
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def _lay_out(
        self,
        grid: Grid,
        label_names: Sequence[str],
        label_units: Sequence[str],
        dtype: str,
        images: Mapping[str, bool],
        aux: Mapping[str, Any],
        id_dtype: str,
    ) -> None:
        import h5py

        text = h5py.string_dtype()
        wavelength = self._file.create_dataset("wavelength", data=grid.wavelength)
        wavelength.attrs.update({"units": "Angstrom", "medium": grid.medium})
        shape = (self.n, grid.n_pixel)
        self._columns["flux"] = self._file.create_dataset("flux", shape, dtype)
        if images["sigma"]:
            self._columns["sigma"] = self._file.create_dataset("sigma", shape, dtype)
        if images["mask"]:
            self._columns["mask"] = self._file.create_dataset("mask", shape, "u1")
        labels = self._file.create_dataset("labels", (self.n, len(label_names)), "f8")
        labels.attrs.create("names", list(label_names), dtype=text)
        labels.attrs.create("units", list(label_units), dtype=text)
        self._columns["labels"] = labels
        self._columns["id"] = self._file.create_dataset("id", (self.n,), text if id_dtype == "str" else "f8")
        for name, kind in aux.items():
            self._columns[f"aux/{name}"] = self._file.create_dataset(f"aux/{name}", (self.n,), kind)

    def append(
        self,
        flux: ArrayLike,
        labels: ArrayLike,
        id: ArrayLike,
        *,
        sigma: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        aux: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Append a block of spectra, each argument with one row a spectrum."""
        given: dict[str, ArrayLike] = {"flux": flux, "labels": labels, "id": id}
        given |= {name: values for name, values in (("sigma", sigma), ("mask", mask)) if values is not None}
        given |= {f"aux/{name}": values for name, values in (aux or {}).items()}
        if set(given) != set(self._columns):
            raise TrainingSetError(f"{self.path}: columns {sorted(given)} given, needed {sorted(self._columns)}")
        blocks = {name: np.asarray(values) for name, values in given.items()}
        first, last = self.written, self.written + len(blocks["labels"])
        if last > self.n:
            raise TrainingSetError(f"{self.path}: {last} spectra given, {self.n} announced")
        for name, block in blocks.items():
            self._columns[name][first:last] = block
        with writing(self.path):
            self._disk.check()
        self.written = last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        complete = kind is None and self.written == self.n
        try:
            with writing(self.path):
                self._file.close()
                self._disk.close()
                if complete:
                    self._disk.check()
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)
        if kind is None and not complete:
            raise TrainingSetError(f"{self.path}: {self.written} spectra given, {self.n} announced")
