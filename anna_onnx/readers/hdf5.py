"""HDF5: the training sets of this project."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import ReadError, first_line
from anna_onnx.files import Content
from anna_onnx.guard import check_heaps
from anna_onnx.spectrum import Frame, Medium, Spectrum
from anna_onnx.trial import Trial, state, trial_of

from .assembly import number_names
from .facts import Facts, medium_in
from .options import ReadOptions
from .stacks import Rows, Stack
from .units import to_angstrom

if TYPE_CHECKING:
    import h5py

FORMAT = "anna-trainingset"
_HEAPS_BEFORE = 16 << 20  # bytes; a heap of attributes stands near the beginning
_MAX_CHUNK = 256 << 20  # bytes, unpacked as a whole however little of it is asked for


def read(path: str, data: Content, options: ReadOptions) -> Iterator[Spectrum]:
    """Read the rows of a training set.

    Parameters
    ----------
    path : str
    data : bytes or mmap
        The file, unpacked.
    options : ReadOptions

    Raises
    ------
    ReadError
        If it is another HDF5 file, or damaged.
    """
    check(path, data)
    try:
        yield from _stack(path, data if isinstance(data, bytes) else None, options).spectra(options)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ReadError(f"{path}: damaged HDF5 ({first_line(error)})") from error


def stack(path: str, options: ReadOptions) -> Stack:
    """Return a training set on the disk, to be read many rows at a time.

    Raises
    ------
    ReadError, OSError, KeyError, ValueError
        If it is another HDF5 file, or damaged.
    """
    _check_once(*state(path))
    return _stack(path, None, options)


def check(path: str, data: Content) -> None:
    """Refuse a damaged file that libhdf5 would crash on, never end with, or take the memory for.

    Parameters
    ----------
    path : str
    data : bytes or mmap

    Raises
    ------
    ReadError
    """
    _check_structure(path, data)
    Trial(path, data if isinstance(data, bytes) else None).check()


@lru_cache(maxsize=1024)
def _check_once(path: str, size: int, changed: int) -> None:
    with Path(path).open("rb") as file, mmap(file.fileno(), size, access=ACCESS_READ) as data:
        _check_structure(path, data)
    trial_of(path, size, changed).check()


def _check_structure(path: str, data: Content) -> None:
    """Refuse damaged heaps, and a file that is shorter than its superblock says (HDF5 File Format Spec. II.A)."""
    version = data[8] if len(data) > 64 else None
    if version in (0, 1):
        at, width = 24 + 4 * version + 2 * data[13], data[13]
    elif version in (2, 3):
        at, width = 12 + 2 * data[9], data[9]
    else:
        raise ReadError(f"{path}: damaged HDF5 ({len(data)} bytes, superblock of version {version})")
    end = int.from_bytes(data[at : at + width], "little")
    if end > len(data):
        raise ReadError(f"{path}: damaged HDF5 (cut short: {len(data)} bytes of {end})")
    try:
        check_heaps(data, _HEAPS_BEFORE)
    except ValueError as error:
        raise ReadError(f"{path}: damaged HDF5 ({error})") from error


def _stack(path: str, content: bytes | None, options: ReadOptions) -> Stack:
    """Return a training set, on the disk or unpacked."""
    with _open(path, content) as file:
        found = file.attrs.get("format")
        if found != FORMAT:
            shown = ", ".join(list(file)[:10])
            raise ReadError(f"{path}: HDF5 of format '{found}' with {shown}; of HDF5 only '{FORMAT}' is read")
        stored, flux = file["wavelength"], file["flux"]
        if stored.ndim != 1 or flux.ndim != 2 or flux.shape[1] != stored.shape[0] or stored.shape[0] > 1e7:
            raise ReadError(f"{path}: flux of shape {flux.shape} on wavelengths of shape {stored.shape}")
        others = [file[name] for name in ("sigma", "mask") if name in file]
        _check_chunks(path, stored, flux, *others)
        if any(dataset.shape != flux.shape for dataset in others):
            raise ReadError(f"{path}: sigma or mask differ from flux in shape")
        if any(dataset.dtype.kind not in "biuf" for dataset in (stored, flux, *others)):
            raise ReadError(f"{path}: wavelength, flux, sigma or mask hold no numbers")
        unit = str(stored.attrs.get("units", "Angstrom"))
        wavelength, notes = to_angstrom(stored[:].astype(np.float64), unit, options.wave_unit, path)
        facts = Facts(_medium(stored), _frame(file), notes=notes)
        return Stack(path, flux.shape[0], wavelength, facts, partial(_rows, path, content))


def _open(path: str, content: bytes | None) -> h5py.File:
    import io

    import h5py

    return h5py.File(path if content is None else io.BytesIO(content), "r", locking=False)


def _check_chunks(path: str, *datasets: h5py.Dataset) -> None:
    """Refuse chunks that take much memory to unpack."""
    for dataset in datasets:
        size = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if size > _MAX_CHUNK:
            raise ReadError(f"{path}: HDF5 chunks of {size >> 20} MB, more than {_MAX_CHUNK >> 20} MB")


def _medium(wavelength: h5py.Dataset) -> Medium:
    """Return the medium that the wavelengths state."""
    return medium_in(str(wavelength.attrs.get("medium", ""))) or "unknown"


def _frame(file: h5py.File) -> Frame:
    """Return the frame of the wavelengths, which `anna pack` writes into ``preparation``."""
    try:
        frame = json.loads(str(file.attrs.get("preparation", "{}")))["frame"]
    except (ValueError, KeyError, TypeError):
        return "unknown"
    return frame if frame in get_args(Frame) else "unknown"


def _rows(path: str, content: bytes | None, places: Sequence[slice]) -> Iterator[Rows]:
    with _open(path, content) as file:
        for rows in places:
            yield Rows(
                file["flux"][rows],
                _names(file, rows),
                sigma=file["sigma"][rows] if "sigma" in file else None,
                bad=file["mask"][rows] != 0 if "mask" in file else None,
                radial_velocity=_radial_velocities(file, rows),
            )


def _names(file: h5py.File, rows: slice) -> list[str]:
    """Return the names of stars, empty where there are none."""
    ids = file.get("id")
    if ids is None or ids.shape != file["flux"].shape[:1]:
        return [""] * (rows.stop - rows.start)
    values = np.asarray(ids.asstr("utf-8", "replace")[rows] if ids.dtype.kind in "OS" else ids[rows])
    return number_names(values) if values.dtype.kind == "f" else [str(value) for value in values.tolist()]


def _radial_velocities(file: h5py.File, rows: slice) -> FloatArray | None:
    """Return the radial velocities that are in the spectra, ``aux/rv``, km/s; None without numbers."""
    column = file.get("aux/rv")
    if column is None or column.shape != file["flux"].shape[:1] or column.dtype.kind not in "fiu":
        return None
    return np.asarray(column[rows], dtype=np.float64)
