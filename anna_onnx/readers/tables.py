"""Spectra in tables whose columns can be understood: one pixel a row, or one spectrum a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, FloatArray, IntArray
from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Source, Spectrum

from . import gaia
from .assembly import Readings, as_sigma, assemble, attempt, number_names
from .columns import Column, Roles, medium_of, understand, unit_of, values_of
from .facts import Facts, from_headers
from .fits import FitsFile, Hdu, Header
from .options import ReadOptions
from .orders import merged_if_asked, merged_if_pieces
from .units import to_angstrom

_ID = (
    "object",
    "target",
    "targetid",
    "source_id",
    "sdss_id",
    "obsid",
    "id",
    "name",
    "star",
    "sobject_id",
    "uid",
    "obj",
)
_NO_STAR = re.compile(r"SKY|BKG|BACKGROUND|CAL|MODEL|CONT")
_ORDER = ("sporder", "order", "echelle_order", "orders")


def matches(fits: FitsFile) -> bool:
    """Return whether a table has a wavelength and a flux column."""
    return _find(fits) is not None


def reads(fits: FitsFile, hdu: Hdu) -> bool:
    """Return whether this HDU is a table."""
    return hdu.is_table


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the first table that is understood, and those like it after it: chips, segments, slits, arms.

    Raises
    ------
    ReadError
        If the user chooses columns that no table has.
    """
    first = _find(fits) if options.columns is None else _chosen(fits, options.columns)
    assert first is not None  # `matches` has seen it
    needed = _needed(fits, first, options)
    after = [hdu for hdu in fits.hdus[first.index + 1 :] if hdu.is_table and not _NO_STAR.search(hdu.name)]
    tables = [first, *(hdu for hdu in after if _needed(fits, hdu, options) == needed)]
    spectra = chain.from_iterable(read_hdu(fits, hdu, options) for hdu in tables)
    return merged_if_pieces(spectra, options, are_stars="PYP_SPEC" in fits.primary.header)


def _needed(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> list[str]:
    """Return the names of the columns that tables of one kind share, which are not errors and masks."""
    columns = hdu.columns if options.columns else gaia.with_wavelength(hdu.columns, fits.path)
    try:
        roles = understand(columns, fits.path, options.columns)
    except ReadError:
        return []
    return [column.name for column in columns if column is not roles.error and column is not roles.mask]


def lacking(fits: FitsFile) -> str:
    """Return what the tables with wavelengths and fluxes lack to be spectra, to be said in a refusal."""
    found = [f"; in HDU {hdu.index} {_lacking(roles)}" for hdu, roles in _candidates(fits)]
    return "".join(found[:3])


def _find(fits: FitsFile) -> Hdu | None:
    return next((hdu for hdu, roles in _candidates(fits) if _lacking(roles) is None), None)


def _candidates(fits: FitsFile) -> Iterator[tuple[Hdu, Roles]]:
    """Yield the tables with a wavelength and a flux column."""
    for hdu in fits.hdus:
        if hdu.is_table:
            with suppress(ReadError):
                yield hdu, understand(gaia.with_wavelength(hdu.columns, fits.path), "")


def _chosen(fits: FitsFile, columns: tuple[str | int, ...]) -> Hdu:
    """Return the first table that has the columns that the user names."""
    problem = ReadError(f"{fits.path}: no table to choose columns from; found {fits.describe()}")
    for hdu in (hdu for hdu in fits.hdus if hdu.is_table):
        try:
            understand(hdu.columns, fits.path, columns)
        except ReadError as error:
            problem = error
        else:
            return hdu
    raise problem


def _lacking(roles: Roles) -> str | None:
    """Return what is wrong with wavelengths that may be a number that a catalogue keeps for each object."""
    column = roles.wavelength
    values = column.load() if column.n_row else np.empty(0)
    if isinstance(values, list) or np.ndim(values) != 1:
        return None
    values = np.asarray(values)
    usable = values[np.isfinite(values) & (values > 0)] if values.dtype.kind in "iuf" else values
    n = len(np.unique(usable[:1000]))
    return None if n > 4 else f"column {column.name} has {n} different wavelengths in {column.n_row} rows, needed 5"


def read_hdu(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    """Read the spectra of one table."""
    facts = from_headers(hdu.header, fits.primary.header)
    return read_columns(hdu.columns, facts, fits.path, hdu.index, options, hdu.header, fits.primary.header)


def read_columns(
    columns: Sequence[Column], facts: Facts, path: str, hdu: int | None, options: ReadOptions, *headers: Header
) -> Readings:
    """Read the spectra that columns hold.

    Parameters
    ----------
    columns : sequence of Column
    facts : Facts
        Of the file; a wavelength column that names its medium wins.
    path : str
    hdu : int or None
    options : ReadOptions
    headers : Header
        For the meaning of the mask.

    Raises
    ------
    NoWavelengthError, ReadError
        If the columns are not understood, or do not fit together.
    """
    where = path if hdu is None else f"{path}[{hdu}]"
    if options.columns is None:
        columns = gaia.with_wavelength(columns, where)
    roles = _with_numeric_mask(understand(columns, where, options.columns), where)
    facts = facts.noted(*roles.notes)
    if medium := medium_of(roles.wavelength, columns):
        facts = facts.in_medium(medium)
    elif facts.medium == "unknown" and roles.wavelength.ucd == "em.wl" and roles.wavelength.utype:
        facts = facts.known(medium="vacuum").noted("medium vacuum: UCD em.wl, which ESO's Phase 3 standard means so")
    spectra = _spectra(columns, roles, facts, Source(path, hdu), options, headers)
    merged = merged_if_asked if _tells_orders(columns) else merged_if_pieces
    return merged(spectra, options)


def _tells_orders(columns: Sequence[Column]) -> bool:
    """Return whether the rows are said to be orders of one star."""
    stars = _row_names(columns)
    return any(column.key in _ORDER for column in columns) and not 1 < len(set(stars)) < len(stars)


def _with_numeric_mask(roles: Roles, where: str) -> Roles:
    """Return the roles without a mask of words or bits, which says nothing here."""
    if roles.mask is None:
        return roles
    try:
        values_of(roles.mask, where)
    except ReadError:
        return replace(roles, mask=None, notes=(*roles.notes, f"mask {roles.mask.name} holds no numbers, left out"))
    return roles


def _spectra(
    columns: Sequence[Column],
    roles: Roles,
    facts: Facts,
    source: Source,
    options: ReadOptions,
    headers: Sequence[Header],
) -> Readings:
    names = _row_names(columns)
    has_orders = _tells_orders(columns)

    def spectrum(source: Source, arrays: tuple[Any, ...]) -> Spectrum:
        stored, flux, error, mask = arrays
        if any(a is not None and a.shape != flux.shape for a in arrays):
            raise _misfit(roles, arrays, str(source))
        wavelength, notes = _wavelength(stored, roles, options, str(source))
        known = gaia.recognize(wavelength, facts.noted(*notes))
        if source.row is not None and source.row < len(names):
            known = known.known(id=names[source.row])
        elif source.row is None and not known.id and len(set(names)) == 1:
            known = known.known(id=names[0])
        sigma = None if error is None else as_sigma(error, roles.kind)
        bad = None if mask is None else _bad(mask, roles.mask, headers)
        return assemble(wavelength, flux, known, source, options, sigma=sigma, bad=bad)

    for row, arrays in _rows(columns, roles, str(source)):
        if not has_orders or (arrays[0] > 0).any():  # else an order that has no wavelengths
            yield attempt(spectrum, replace(source, row=row), arrays)


def _rows(columns: Sequence[Column], roles: Roles, where: str) -> Iterator[tuple[int | None, tuple[Any, ...]]]:
    """Return the arrays of each spectrum, and its row, or the first of its rows; None where all rows are pixels of one.

    Raises
    ------
    ReadError
        If no row can make a spectrum.
    """
    asked = (roles.wavelength, roles.flux, roles.error, roles.mask)
    values: list[Any] = [None if column is None else values_of(column, where) for column in asked]
    if all(v is None or (not isinstance(v, list) and np.ndim(v) == 1) for v in values):
        pieces = _pieces(columns)
        for rows in pieces:
            yield int(rows[0]) if len(pieces) > 1 else None, tuple(None if v is None else v[rows] for v in values)
        return
    cells = {np.shape(v)[1:] for v in values if v is not None and not isinstance(v, list)}
    if len(cells) > 1 or any(len(shape) != 1 for shape in cells):
        raise _misfit(roles, values, where)
    for row in range(len(values[1])):
        yield row, tuple(None if v is None else np.asarray(v[row]) for v in values)


def _pieces(columns: Sequence[Column]) -> list[IntArray]:
    """Return the rows of each star or order in a table of a pixel a row, as far as columns tell them.

    A column whose values do not repeat numbers the pixels.
    """
    labels = np.zeros(columns[0].n_row, dtype=np.int64)
    for column in columns:
        values = column.load() if column.key in (*_ID, *_ORDER) else []
        if not isinstance(values, list) and values.ndim == 1:
            distinct, codes = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
            if 2 * distinct.size <= values.size:
                labels = labels * distinct.size + codes
    rows = np.argsort(labels, kind="stable")
    return sorted(np.split(rows, np.flatnonzero(np.diff(labels[rows])) + 1), key=lambda rows: rows[:1].tolist())


def _misfit(roles: Roles, arrays: Sequence[Any], where: str) -> ReadError:
    asked = zip((roles.wavelength, roles.flux, roles.error, roles.mask), arrays, strict=True)
    shapes = (
        f"{column.name} {'of cells that differ in length' if isinstance(array, list) else array.shape}"
        for column, array in asked
        if column
    )
    return ReadError(f"{where} does not make a spectrum: {', '.join(shapes)}")


def _wavelength(
    stored: NDArray[Any], roles: Roles, options: ReadOptions, where: str
) -> tuple[FloatArray, tuple[str, ...]]:
    values = np.asarray(stored, dtype=np.float64)
    if roles.log is None:
        return to_angstrom(values, unit_of(roles.wavelength), options.wave_unit, where)
    base = np.e if values.size and 5.5 < values[values.size // 2] < 12 else roles.log  # 10**5.5 A are 32 micron
    with np.errstate(over="ignore"):
        values = base**values
    wavelength, notes = to_angstrom(values, unit_of(roles.wavelength), options.wave_unit, where, default="Angstrom")
    return wavelength, notes if base == roles.log else (*notes, "natural logarithms, from their size")


def _bad(mask: NDArray[Any], column: Column | None, headers: Sequence[Header]) -> BoolArray:
    """Return the bad pixels of a mask, whose meaning some formats turn round."""
    key = column.key if column is not None else ""
    if key == "dataqual" or any(h.text("DMODCLS") in ("OneSpec", "SpecObjs") or "PYP_SPEC" in h for h in headers):
        return np.asarray(mask == 0)  # CALSPEC and PypeIt write 1 for good
    serious = next((flags for h in headers if (flags := h.integer("SDQFLAGS"))), None)
    if any(h.text("TELESCOP") == "JWST" for h in headers):
        serious = 1  # DO_NOT_USE
    if serious is not None and mask.dtype.kind in "iuf":
        flags = np.nan_to_num(mask, nan=-1, posinf=-1, neginf=-1).astype(np.int64)  # a blank has all of them
        return np.asarray((flags & serious) != 0)  # HST says which flags of its DQ matter
    return np.asarray(mask != 0)


def _row_names(columns: Sequence[Column]) -> list[str]:
    """Return the name of each row's star, when a column gives it; empty where it is null."""
    column = next((c for name in _ID for c in columns if c.key == name), None)
    if column is None:
        return []
    values = column.load()
    if any(np.ndim(value) for value in values):  # strings of a VOTable are a list
        return []
    numbers = np.asarray(values)
    names = number_names(numbers) if numbers.dtype.kind == "f" else map(str, values)
    return ["" if name == "nan" else name.strip() for name in names]
