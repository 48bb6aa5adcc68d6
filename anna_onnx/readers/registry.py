"""Which family reads a file: by its first bytes, then by what its headers hold."""

from __future__ import annotations

import io
import mmap
import os
import stat
import zlib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np

from anna_onnx.errors import ReadError, UnknownLayoutError
from anna_onnx.files import Content
from anna_onnx.spectrum import Spectrum
from anna_onnx.trial import HDF5_SIGNATURE

from . import wat
from .assembly import Readings
from .fits import FitsFile, open_fits
from .options import ReadOptions
from .stacks import Stack

MAX_UNPACKED = 256 << 20
MAPPED = 4 << 20  # larger files are memory-mapped
# A pipe must not block, and Windows must not change line ends.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"PK\x03\x04": "zip"}

# In the order asked; the generic layouts come last.
FITS_FAMILIES = (
    "multispec",
    "sdss",
    "apogee",
    "lamost",
    "desi",
    "galah",
    "harps",
    "crires",
    "espadons",
    "makee",
    "uves_popler",
    "chiron",
    "spextool",
    "planes",
    "tables",
    "keyword_axis",
)


def read(path: str, options: ReadOptions) -> Readings:
    """Read the spectra of a file; of several, those that cannot be read are `Unread`.

    Raises
    ------
    ReadError
        If nothing reads it; the message says what was found.
    """
    # Damaged numbers become bad pixels, not warnings. The state must not leak out of a generator.
    with np.errstate(all="ignore"):
        try:
            spectra = _open(path, options)
            item = next(spectra, None)
        except UnknownLayoutError as refusal:
            spectra = _judged(_module("by_specutils").read(path, options, refusal), options)
            item = next(spectra, None)
    if item is None:
        raise ReadError(f"{path}: no spectrum in it")
    while item is not None:
        yield item
        with np.errstate(all="ignore"):
            item = next(spectra, None)


def _open(path: str, options: ReadOptions) -> Readings:
    """Return the spectra as the module reads them that knows the first bytes."""
    data = load(path)
    head = bytes(data[:4096])
    if head.startswith((b"SIMPLE  =", b"XTENSION=")):
        return _judged(_open_fits(open_fits(path, data), options), options)
    if kind := _kind_of_stack(head, len(data)):  # training sets are left as they are
        stars: Readings = _module(kind).read(path, data, options)
        return stars
    return _judged(_module("votable" if b"<VOTABLE" in head.upper() else "text").read(path, data, options), options)


def stack(path: str, options: ReadOptions) -> Stack | None:
    """Return a training set on the disk, to be read many rows at a time; None when a file is something else.

    Raises
    ------
    AnnaError, OSError, KeyError, ValueError
        If it is damaged.
    """
    if not Path(path).is_file():
        return None  # a pipe would wait for ever
    with Path(path).open("rb") as file:
        kind = _kind_of_stack(file.read(16), file.seek(0, os.SEEK_END))
    found: Stack | None = _module(kind).stack(path, options) if kind else None
    return found


def _kind_of_stack(head: bytes, size: int) -> str | None:
    if head.startswith(HDF5_SIGNATURE):
        return "hdf5"
    return "legacy_binary" if _module("legacy_binary").matches(head, size) else None


def _judged(spectra: Readings, options: ReadOptions) -> Readings:
    """Yield spectra with the medium judged where nothing states it."""
    for item in spectra:
        unknown = isinstance(item, Spectrum) and item.medium == "unknown" and options.medium is None
        yield _module("judged_medium").judge(item) if unknown else item


def load(path: str) -> Content:
    """Return the bytes of a file, unpacked when it is gzip, bzip2, or a zip archive of one file.

    Returns
    -------
    bytes or mmap

    Raises
    ------
    ReadError
        If it cannot be read, is empty, or unpacks to more than 256 MB.
    """
    try:
        with io.FileIO(os.open(path, OPEN_FLAGS)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ReadError(f"{path}: not a regular file")
            mapped = status.st_size > MAPPED
            data: Content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped else file.readall()
    except (OSError, ValueError) as error:
        raise ReadError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise ReadError(f"{path}: the file is empty")
    kind = next((kind for mark, kind in PACKED.items() if data[: len(mark)] == mark), None)
    return data if kind is None else _unpack(path, data, kind)


def _unpack(path: str, data: Content, kind: str) -> bytes:
    """Unpack a compressed file, but no bomb."""
    import lzma
    import zipfile

    damage = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, RuntimeError)
    try:
        with _stream(path, io.BytesIO(data), kind) as file:
            unpacked: bytes = file.read(MAX_UNPACKED + 1)
    except damage as error:
        raise ReadError(f"{path}: damaged {kind} ({error})") from error
    if len(unpacked) > MAX_UNPACKED:
        raise ReadError(f"{path}: unpacks to more than {MAX_UNPACKED >> 20} MB")
    if not unpacked:
        raise ReadError(f"{path}: the file is empty")
    return unpacked


def _stream(path: str, packed: io.BytesIO, kind: str) -> IO[bytes] | io.BufferedIOBase:
    """Return what is inside as it would be read from a file of its own."""
    if kind == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=packed)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2File(packed)
    import zipfile

    archive = zipfile.ZipFile(packed)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise ReadError(f"{path}: a zip archive of {len(members)} files, needed one: unpack it first")
    return archive.open(members[0])


def _open_fits(fits: FitsFile, options: ReadOptions) -> Readings:
    if options.hdu is not None:
        return _read_hdu(fits, options)
    if options.columns is not None:
        columns: Readings = _module("tables").read(fits, options)
        return columns
    for family in map(_module, _families(fits)):
        if family.matches(fits):
            spectra: Readings = family.read(fits, options)
            return spectra
    lacking = _module("tables").lacking(fits)
    raise UnknownLayoutError(f"{fits.path}: no spectrum that is understood; found {fits.describe()}{lacking}")


def _families(fits: FitsFile) -> tuple[str, ...]:
    """Return the families to ask; a single 1-D image can be of one only, and nothing else need be imported."""
    if len(fits.hdus) > 1 or len(fits.primary.shape) != 1:
        return FITS_FAMILIES
    return ("multispec",) if wat.is_multispec(fits.primary.header) else ("keyword_axis",)


def _read_hdu(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the HDU that the user names by its own content; the primary header still counts."""
    assert options.hdu is not None
    hdu = fits.select(options.hdu)
    one = FitsFile(fits.path, [hdu] if hdu is fits.primary else [fits.primary, hdu])
    generic = ("tables",) if hdu.is_table else ("multispec", "spextool", "keyword_axis")
    for family in map(_module, generic):
        if family.reads(one, hdu):
            spectra: Readings = family.read_hdu(one, hdu, options)
            return spectra
    raise ReadError(f"{fits.path}[{hdu.index}]: no spectrum that is understood; found {fits.describe()}")


def _module(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name}")
