"""HDF5: the training sets of this project, row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, get_args

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import ReadError, first_line
from anna_onnx.files import Content
from anna_onnx.guard import check_heaps
from anna_onnx.spectrum import Frame, Medium, Source, Spectrum
from anna_onnx.trial import Trial, state, trial_of

from .assembly import assemble, number_names
from .facts import Facts, finite
from .options import ReadOptions
from .units import to_angstrom

FORMAT = "anna-trainingset"
_HEAPS_BEFORE = 16 << 20  # bytes; a heap of attributes stands near the beginning
_MAX_CHUNK = 256 << 20  # bytes, unpacked as a whole however little of it is asked for
_BLOCK = 1 << 20  # pixels read at a time


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
    import io

    import h5py

    check(path, data)
    try:
        with h5py.File(io.BytesIO(data) if isinstance(data, bytes) else path, "r", locking=False) as file:
            found = file.attrs.get("format")
            if found != FORMAT:
                shown = ", ".join(list(file)[:10])
                raise ReadError(f"{path}: HDF5 of format '{found}' with {shown}; of HDF5 only '{FORMAT}' is read")
            yield from _rows(path, file, options)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ReadError(f"{path}: damaged HDF5 ({first_line(error)})") from error


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


def check_training_set(path: str) -> None:
    """Do the same for a file on the disk, once as long as it does not change.

    Raises
    ------
    ReadError, OSError
    """
    _check_once(*state(path))


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


def check_chunks(path: str, *datasets: Any) -> None:
    """Refuse chunks that take much memory to unpack.

    Raises
    ------
    ReadError
    """
    for dataset in datasets:
        size = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if size > _MAX_CHUNK:
            raise ReadError(f"{path}: HDF5 chunks of {size >> 20} MB, more than {_MAX_CHUNK >> 20} MB")


def _rows(path: str, file: Any, options: ReadOptions) -> Iterator[Spectrum]:
    stored, flux = file["wavelength"], file["flux"]
    if stored.ndim != 1 or flux.ndim != 2 or flux.shape[1] != stored.shape[0] or stored.shape[0] > 1e7:
        raise ReadError(f"{path}: flux of shape {flux.shape} on wavelengths of shape {stored.shape}")
    others = {name: file[name] for name in ("sigma", "mask") if name in file}
    check_chunks(path, stored, flux, *others.values())
    wavelength, notes = to_angstrom(
        stored[:].astype(np.float64), str(stored.attrs.get("units", "Angstrom")), options.wave_unit, path
    )
    facts = Facts(stated_medium(stored), stated_frame(file)).noted(*notes)
    if any(dataset.shape != flux.shape for dataset in others.values()):
        raise ReadError(f"{path}: sigma or mask differ from flux in shape")
    n, step = flux.shape[0], max(1, _BLOCK // max(1, flux.shape[1]))
    for first in range(0, n, step):
        rows = slice(first, min(first + step, n))
        block = {name: dataset[rows] for name, dataset in others.items()}
        velocities = radial_velocities(file, rows)
        for i, (values, name) in enumerate(zip(flux[rows], star_names(file, rows), strict=True)):
            sigma = block["sigma"][i] if "sigma" in block else None
            bad = block["mask"][i] != 0 if "mask" in block else None
            source = Source(path, row=first + i)
            known = facts.known(id=name, radial_velocity=None if velocities is None else finite(velocities[i]))
            yield assemble(wavelength, values, known, source, options, sigma=sigma, bad=bad)


def stated_medium(wavelength: Any) -> Medium:
    """Return the medium that the wavelengths of a training set state.

    Parameters
    ----------
    wavelength : h5py.Dataset
    """
    medium = str(wavelength.attrs.get("medium", "unknown"))
    return medium if medium in ("air", "vacuum") else "unknown"  # type: ignore[return-value]  # one of the literals


def stated_frame(file: Any) -> Frame:
    """Return the frame of the wavelengths of a training set, which `anna pack` writes into ``preparation``.

    Parameters
    ----------
    file : h5py.File
    """
    try:
        frame = json.loads(str(file.attrs.get("preparation", "{}")))["frame"]
    except (ValueError, KeyError, TypeError):
        return "unknown"
    return frame if frame in get_args(Frame) else "unknown"


def radial_velocities(file: Any, rows: slice) -> FloatArray | None:
    """Return the radial velocities that are in the spectra of a training set, ``aux/rv``, km/s; None without numbers.

    Parameters
    ----------
    file : h5py.File
    rows : slice
    """
    column = file.get("aux/rv")
    if column is None or column.shape != file["flux"].shape[:1] or column.dtype.kind not in "fiu":
        return None
    return np.asarray(column[rows], dtype=np.float64)


def star_names(file: Any, rows: slice) -> list[str]:
    """Return the names of stars of a training set, empty where it has none.

    Parameters
    ----------
    file : h5py.File
    rows : slice
    """
    ids = file.get("id")
    if ids is None or ids.shape != file["flux"].shape[:1]:
        return [""] * (rows.stop - rows.start)
    values = np.asarray(ids.asstr()[rows] if ids.dtype.kind == "O" else ids[rows])
    return number_names(values) if values.dtype.kind == "f" else [str(value) for value in values.tolist()]
