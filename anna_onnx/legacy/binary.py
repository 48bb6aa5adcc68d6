"""ANNA's binary training files, opened as they are or converted to and from HDF5.

The file is one row of float64 numbers without any other structure::

    n_pixel, n_label, wavelength[n_pixel],
    then for each star: id, label[n_label], dummy, flux[n_pixel]

The old program wrote the byte order of the machine, which is little-endian
on every machine it ran on. What the labels are called, their ranges and
whether wavelengths are in air is not in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import LegacyError
from anna_onnx.files import replacing
from anna_onnx.labels import unit_of
from anna_onnx.pieces import slices
from anna_onnx.progress import Progress, silent
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import FORMAT, TrainingSet, TrainingSetWriter
from anna_onnx.trial import is_hdf5

_VALUE = np.dtype("<f8")
_BLOCK_BYTES = 1 << 24


def open_training_set(path: str | os.PathLike[str], names: Sequence[str] | None = None) -> TrainingSet:
    """Open a training set, HDF5 or a legacy binary file, whichever the content shows it to be.

    Parameters
    ----------
    path : path-like
    names : sequence of str, optional
        Label names for a binary file, which has none; an HDF5 file keeps its own.

    Returns
    -------
    TrainingSet

    Raises
    ------
    TrainingSetError, LegacyError
        If the file is neither, or damaged.
    """
    if Path(path).is_file() and not is_hdf5(path):
        return open_binary(path, names)
    return TrainingSet.open(path)


def is_training_set(path: str | os.PathLike[str]) -> bool:
    """Say whether a file begins as a training set does, HDF5 or legacy binary.

    A damaged one counts: `open_training_set` says what is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        return False
    if is_hdf5(path):
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as file:
                return bool(file.attrs.get("format") == FORMAT)
        except OSError:
            return False
    header = np.fromfile(path, _VALUE, count=2)
    return header.size == 2 and _are_counts(header)


def open_binary(path: str | os.PathLike[str], names: Sequence[str] | None = None) -> TrainingSet:
    """Open a legacy binary file as a training set, its wavelengths taken to be in air.

    The whole file is read once, in blocks, to find values that would spoil
    a training; the flux is then a strided view of the memory-mapped file.

    Parameters
    ----------
    path : path-like
    names : sequence of str, shape (n_label,), optional
        Default ``label_0``, ``label_1``, ...

    Returns
    -------
    TrainingSet
        Flux float64 of shape (n, n_pixel), ids float64, and the dummy
        column as ``aux["dummy"]``.

    Raises
    ------
    LegacyError
        If the file is truncated, has extra entries, is big-endian, holds
        NaN or infinity, or its wavelengths do not ascend; the message says
        where.
    """
    return _open(Path(path), names, "air", silent)[0]


def binary_to_hdf5(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    medium: Literal["air", "vacuum"] = "air",
    dtype: Literal["auto", "f4", "f8"] = "auto",
    dummy: Literal["dummy", "rv"] = "dummy",
    progress: Progress = silent,
) -> TrainingSet:
    """Convert a legacy binary file to an HDF5 training set, in bounded memory.

    Parameters
    ----------
    source, target : path-like
    names : sequence of str, shape (n_label,), optional
    low, high : sequence of float, shape (n_label,), optional
        Ranges that scale the labels to 0-1, kept as attributes ``low`` and
        ``high`` of ``/labels``.
    medium : {'air', 'vacuum'}
    dtype : {'auto', 'f4', 'f8'}
        Of the stored flux. 'auto' takes f4 when every value survives it, so
        that the file always converts back bit by bit.
    dummy : {'dummy', 'rv'}
        Column of ``/aux`` that receives the dummy entry.
    progress : Progress
        Called with the number of stars read, over two passes.

    Returns
    -------
    TrainingSet
        The new one.

    Raises
    ------
    LegacyError
        As `open_binary`.
    """
    source, target = Path(source), Path(target)
    first_pass, second_pass = _passes(progress)
    training_set, layout, fits_f4 = _open(source, names, medium, first_pass)
    stored: Literal["f4", "f8"] = ("f4" if fits_f4 else "f8") if dtype == "auto" else dtype
    ranges = _check_ranges({"low": low, "high": high}, layout)
    with TrainingSetWriter(
        target,
        training_set.grid,
        training_set.label_names,
        training_set.label_units,
        layout.n,
        dtype=stored,
        aux={dummy: "f8"},
        attrs=training_set.attrs,
        label_attrs=ranges,
    ) as writer:
        for _, records in _read_blocks(layout, second_pass):
            writer.append(
                records[:, layout.flux],
                records[:, layout.labels],
                records[:, 0],
                aux={dummy: records[:, layout.dummy]},
            )
    return TrainingSet.open(target)


def hdf5_to_binary(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Progress = silent
) -> tuple[str, ...]:
    """Convert an HDF5 training set to a legacy binary file, in bounded memory.

    Parameters
    ----------
    source, target : path-like
    progress : Progress
        Called with the number of stars written.

    Returns
    -------
    notes : tuple of str
        What the binary format could not keep.

    Raises
    ------
    LegacyError
        If a label is not known or a flux not finite, which the format cannot say.
    TrainingSetError
        If `source` is not a training set.
    """
    import h5py

    source, target = Path(source), Path(target)
    training_set = TrainingSet.open(source)
    ids, dummy, notes = _columns_for_binary(training_set)
    layout = _Layout(target, training_set.grid.n_pixel, len(training_set.label_names), len(training_set))
    header = np.concatenate([[layout.n_pixel, layout.n_label], training_set.grid.wavelength]).astype(_VALUE)
    # The flux is read, not memory-mapped, so that its pages do not pile up in memory.
    with replacing(target) as partial, partial.open("wb") as file, h5py.File(source, "r", locking=False) as hdf5:
        header.tofile(file)
        for stars in slices(layout.n, layout.block):
            records = np.empty((stars.stop - stars.start, layout.record), _VALUE)
            records[:, 0], records[:, layout.dummy] = ids[stars], dummy[stars]
            records[:, layout.labels] = training_set.labels[stars]
            records[:, layout.flux] = hdf5["flux"][stars]
            _check_finite(records, stars.start, layout, source)
            records.tofile(file)
            progress(stars.stop, layout.n)
    return notes


@dataclass(frozen=True)
class _Layout:
    """Where things are in a binary file of `n` stars."""

    path: Path
    n_pixel: int
    n_label: int
    n: int

    @property
    def start(self) -> int:
        """Byte at which the first star begins."""
        return _VALUE.itemsize * (2 + self.n_pixel)

    @property
    def record(self) -> int:
        """Numbers of one star: id, labels, dummy, flux."""
        return 1 + self.n_label + 1 + self.n_pixel

    @property
    def labels(self) -> slice:
        """Columns of the labels."""
        return slice(1, 1 + self.n_label)

    @property
    def dummy(self) -> int:
        """Column of the dummy entry."""
        return 1 + self.n_label

    @property
    def flux(self) -> slice:
        """Columns of the flux."""
        return slice(2 + self.n_label, None)

    @property
    def block(self) -> int:
        """Stars to read at a time."""
        return max(1, _BLOCK_BYTES // (_VALUE.itemsize * self.record))

    def byte(self, star: int, column: int) -> int:
        """Return the byte at which a number of a star begins."""
        return self.start + _VALUE.itemsize * (star * self.record + column)

    def column_name(self, column: int) -> str:
        """Return what a column holds, in words."""
        if column == 0:
            return "id"
        if column < self.dummy:
            return f"label {column - 1}"
        return f"flux at pixel {column - self.dummy - 1}"


def _open(
    path: Path,
    names: Sequence[str] | None,
    medium: Literal["air", "vacuum"],
    progress: Progress,
) -> tuple[TrainingSet, _Layout, bool]:
    """Open and check a file; also return whether every flux survives float32."""
    layout = _read_layout(path)
    grid = _read_grid(layout, medium)
    names = _check_names(names, layout)
    columns = np.empty((layout.n, layout.dummy + 1))
    fits_f4 = True
    for stars, records in _read_blocks(layout, progress):
        _check_finite(records, stars.start, layout, path)
        columns[stars] = records[:, : layout.dummy + 1]
        fits_f4 = fits_f4 and _survives_f4(records[:, layout.flux])
    records = np.memmap(path, _VALUE, "r", offset=layout.start, shape=(layout.n, layout.record))
    training_set = TrainingSet(
        path=path,
        grid=grid,
        flux=records[:, layout.flux],
        labels=columns[:, layout.labels],
        label_names=names,
        label_units=tuple(unit_of(name) for name in names),
        id=columns[:, 0].copy(),
        aux={"dummy": columns[:, layout.dummy].copy()},
        attrs={"source": path.name, "source_format": "ANNA binary"},
    )
    return training_set, layout, fits_f4


def _read_layout(path: Path) -> _Layout:
    """Read n_pixel and n_label and see whether the size of the file agrees with them."""
    if not path.is_file():
        raise LegacyError(f"{path}: no such file")
    if is_hdf5(path):
        raise LegacyError(f"{path}: an HDF5 file, needed a binary file of the old ANNA")
    size = path.stat().st_size
    header = np.fromfile(path, _VALUE, count=2)
    if header.size < 2:
        raise LegacyError(f"{path}: {size} bytes, too short for a binary file of the old ANNA")
    if not _are_counts(header):
        if _are_counts(header.byteswap()):
            raise LegacyError(
                f"{path}: big-endian numbers; turn them round with "
                f"python -c \"import numpy; numpy.fromfile('{path.name}', '>f8').astype('<f8').tofile('turned.bin')\""
            )
        raise LegacyError(
            f"{path}: byte 0 says {header[0]:g} pixels and byte 8 says {header[1]:g} labels, needed whole numbers "
            "(at least 2 and 1): not a binary file of the old ANNA, or one written as float32"
        )
    layout = _Layout(path, int(header[0]), int(header[1]), 0)
    values, rest_bytes = divmod(size - layout.start, _VALUE.itemsize)
    n, rest = divmod(values, layout.record)
    if size < layout.start:
        raise LegacyError(f"{path}: ends at byte {size}, inside its {layout.n_pixel} wavelengths: copy it again")
    if rest or rest_bytes:
        keep = f", or keep the {n} whole stars: truncate -s {layout.byte(n, 0)} {path.name}" if n else ""
        raise LegacyError(
            f"{path}: ends at byte {size}, after {rest} of the {layout.record} numbers of star {n}"
            f"{f' and {rest_bytes} bytes of the next' if rest_bytes else ''}: truncated, or with extra entries. "
            f"Copy it again{keep}"
        )
    if n == 0:
        raise LegacyError(f"{path}: {layout.n_pixel} wavelengths and no star after them")
    return _Layout(path, layout.n_pixel, layout.n_label, n)


def _are_counts(header: NDArray[Any]) -> bool:
    n_pixel, n_label = (float(value) for value in header)
    return n_pixel.is_integer() and n_label.is_integer() and 2 <= n_pixel < 2**40 and 1 <= n_label < 2**40


def _read_grid(layout: _Layout, medium: Literal["air", "vacuum"]) -> Grid:
    wavelength = np.fromfile(layout.path, _VALUE, count=layout.n_pixel, offset=2 * _VALUE.itemsize)
    good = np.isfinite(wavelength) & (wavelength > 0)
    if not good.all():
        pixel = int(np.argmin(good))
        raise LegacyError(
            f"{layout.path}: wavelength {wavelength[pixel]:g} at pixel {pixel} "
            f"(byte {_VALUE.itemsize * (2 + pixel)}), needed positive numbers of Angstrom: write the file again"
        )
    ascends = np.diff(wavelength) > 0
    if not ascends.all():
        pixel = int(np.argmin(ascends))
        advice = "sort wavelengths and flux together" if ascends.any() else "reverse wavelengths and flux"
        raise LegacyError(
            f"{layout.path}: wavelengths do not ascend: {wavelength[pixel]:.10g}, then {wavelength[pixel + 1]:.10g} "
            f"at pixel {pixel + 1} (byte {_VALUE.itemsize * (3 + pixel)}): {advice} and write the file again"
        )
    return Grid(wavelength, medium)


def _check_names(names: Sequence[str] | None, layout: _Layout) -> tuple[str, ...]:
    if names is None:
        return tuple(f"label_{i}" for i in range(layout.n_label))
    if len(names) != layout.n_label:
        raise LegacyError(f"{layout.path}: {layout.n_label} labels, but {len(names)} names: {', '.join(names)}")
    return tuple(names)


def _read_blocks(layout: _Layout, progress: Progress) -> Iterator[tuple[slice, FloatArray]]:
    """Read stars in blocks of bounded memory: which stars, and their numbers, shape (stars, record)."""
    with layout.path.open("rb") as file:
        file.seek(layout.start)
        for stars in slices(layout.n, layout.block):
            count = (stars.stop - stars.start) * layout.record
            yield stars, np.fromfile(file, _VALUE, count=count).reshape(-1, layout.record)
            progress(stars.stop, layout.n)


def _check_finite(records: FloatArray, first: int, layout: _Layout, path: Path) -> None:
    """Refuse NaN and infinity anywhere but in the dummy entry, which nobody uses."""
    finite = np.isfinite(records)
    finite[:, layout.dummy] = True
    if finite.all():
        return
    row, column = np.unravel_index(int(np.argmin(finite)), finite.shape)
    star = first + int(row)
    what = f"star {star}, {layout.column_name(int(column))}"
    where = f" (byte {layout.byte(star, int(column))})" if path == layout.path else ""
    others = int((~finite).sum()) - 1
    raise LegacyError(
        f"{path}: {records[row, column]} in {what}{where}{f', and {others} more after it' if others else ''}: "
        "the binary format needs finite numbers. Repair or leave out the star and write the file again"
    )


def _survives_f4(flux: FloatArray) -> bool:
    with np.errstate(over="ignore"):
        return bool((flux.astype(np.float32) == flux).all())


def _passes(progress: Progress) -> tuple[Progress, Progress]:
    """Split one report of progress over two passes through a file."""

    def first(done: int, total: int, note: str = "") -> None:
        progress(done, 2 * total, "checking")

    def second(done: int, total: int, note: str = "") -> None:
        progress(total + done, 2 * total, "writing")

    return first, second


def _check_ranges(ranges: Mapping[str, Sequence[float] | None], layout: _Layout) -> dict[str, FloatArray]:
    given = {name: np.asarray(values, dtype=np.float64) for name, values in ranges.items() if values is not None}
    for name, values in given.items():
        if values.shape != (layout.n_label,):
            raise LegacyError(f"{layout.path}: {layout.n_label} labels, but {values.size} values of '{name}'")
    return given


def _columns_for_binary(training_set: TrainingSet) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    """Return ids and dummy as the numbers that a binary file needs, and notes on what is lost."""
    notes = [
        "left out, a .bin has no place for them: label names and units, the medium"
        + "".join(f", {name}" for name in ("sigma", "mask") if getattr(training_set, name) is not None)
        + "".join(f", aux/{name}" for name in training_set.aux if name not in ("dummy", "rv"))
    ]
    n = len(training_set)
    are_numbers = training_set.id.dtype.kind == "f"
    lost = [] if are_numbers else [name for name in training_set.id if not _survives_f8(str(name))]
    ids = np.arange(n, dtype=np.float64) if lost else training_set.id.astype(np.float64)
    if lost:
        notes.append(f"ids such as '{lost[0]}' are no numbers that a .bin can hold: stars are numbered")
    name = next((name for name in ("dummy", "rv") if name in training_set.aux), None)
    if name is None:
        notes.append("no aux/dummy and no aux/rv: the dummy entry is 0")
    dummy = np.zeros(n) if name is None else np.asarray(training_set.aux[name], dtype=np.float64)
    return ids, dummy, tuple(notes)


def _survives_f8(name: str) -> bool:
    """Say whether float64 gives a name back: numbers of Gaia have too many digits."""
    try:
        value = float(name)
    except ValueError:
        return False
    return name == repr(value) or (value.is_integer() and name == str(int(value)))
