"""Tables of labels, in whatever format astronomers keep them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import TrainingSetError, first_line
from anna_onnx.labels import KNOWN, are_known, canonical, nearest, unit_of

KEYS = ("id", "file", "filename", "file_name", "spectrum", "star", "name", "object", "source_id")
"""Columns that name a spectrum, in the order of preference."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """A table of labels.

    Attributes
    ----------
    name : str
        Of its file.
    label_names, label_units : tuple of str
    labels : array of float64, shape (n, n_label)
        NaN = not known.
    key : str
        The column that names the spectra.
    keys : list of str, length n
    places : list of (hdu, row), length n
        Of the spectrum in its file; None where the table does not say.
    columns : mapping of str to array, shape (n,)
        Its other columns of numbers.
    """

    name: str
    label_names: tuple[str, ...]
    label_units: tuple[str, ...]
    labels: FloatArray
    key: str
    keys: list[str]
    places: list[tuple[int | None, int | None]]
    columns: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def errors(self) -> dict[str, FloatArray]:
        """Its columns ``e_<label>``, as a training set has them in ``aux``."""
        names = {canonical(name) for name in self.label_names}
        return {
            name: values
            for name, values in self.columns.items()
            if name.startswith("e_") and canonical(name.removeprefix("e_")) in names
        }


def read_labels(
    path: str | os.PathLike[str], labels: Sequence[str] | None = None, key: str | None = None
) -> LabelTable:
    """Read a table of labels: CSV, ECSV, FITS or VOTable, or any text table that astropy knows.

    Values that are masked, not finite, -9999 or -999 are not known. Columns
    ``hdu`` and ``row`` (from 0) say which spectrum of a file is meant.

    Parameters
    ----------
    path : path-like
    labels : sequence of str, optional
        Columns to take, ``name=column`` to rename. Default: those with the name of a
        well-known label, such as teff or logg; if there are none, all columns of numbers.
    key : str, optional
        Column with the id or the file of the spectra. Default: the first of `KEYS`.

    Raises
    ------
    TrainingSetError
        If the table cannot be read, or has not the columns.
    """
    table = _read_table(Path(path))
    text = {name.lower(): name for name in table.colnames}
    found = key or next((text[name] for name in KEYS if name in text), None)
    if found is None or found not in table.colnames:
        wanted = f"'{key}'" if key else f"one of {', '.join(KEYS)}"
        raise TrainingSetError(f"{path}: columns {', '.join(table.colnames)}; to name the spectra needed {wanted}")
    numbers = {name: _numbers(table[name]) for name in table.colnames if table[name].dtype.kind in "fiu"}
    chosen = dict(_renamed(text) for text in labels or _likely_labels(numbers, skip={found}))
    for name, column in chosen.items():
        if column not in numbers:
            raise TrainingSetError(f"{path}: no column '{column}' of numbers{nearest(column, [*numbers])}")
        if not name.isidentifier():
            raise TrainingSetError(f"{path}: '{name}' cannot name a label; rename it, such as feh={column}")
    if not chosen:
        raise TrainingSetError(f"{path}: no column of numbers to take as label, found {', '.join(table.colnames)}")
    places = zip(*(_whole(numbers.get(text.get(name, "")), len(table)) for name in ("hdu", "row")), strict=True)
    return LabelTable(
        name=str(path),
        label_names=tuple(chosen),
        label_units=tuple(_unit(table[column], name) for name, column in chosen.items()),
        labels=np.column_stack([numbers[column] for column in chosen.values()]),
        key=found,
        keys=[str(value).strip() for value in table[found]],
        places=list(places),
        columns=numbers,
    )


def _read_table(path: Path) -> Any:
    """Read a table with astropy, its format found by content; only CSV tells itself by its name."""
    from astropy.table import Table

    if not path.is_file():
        raise TrainingSetError(f"{path}: no such file")
    try:
        return Table.read(path, format=_table_format(path))
    except Exception as error:  # whatever astropy raises for a table that is none
        raise TrainingSetError(f"{path}: cannot be read as a table ({first_line(error)})") from error


def _table_format(path: Path) -> str:
    from astropy.utils.data import get_readable_fileobj

    with get_readable_fileobj(path, encoding="binary") as file:  # unpacked, if it is compressed
        head = file.read(512)
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if head.startswith(b"# %ECSV"):
        return "ascii.ecsv"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"<?xml", b"<VOTABLE")):
        return "votable"
    return "ascii.csv" if ".csv" in map(str.lower, path.suffixes[-2:]) else "ascii"


def _numbers(column: Any) -> FloatArray:
    values = np.array(np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan))
    values[~are_known(values)] = np.nan
    return values


def _whole(values: FloatArray | None, n: int) -> list[int | None]:
    if values is None:
        return [None] * n
    return [None if np.isnan(value) or value < 0 else int(value) for value in values]


def _renamed(text: str) -> tuple[str, str]:
    """Return name and column of ``name=column``, or of a column that keeps its name."""
    name, _, column = text.partition("=")
    return name.strip(), column.strip() or name.strip()


def _likely_labels(names: Iterable[str], skip: set[str]) -> list[str]:
    candidates = [name for name in names if name not in skip and name.lower() not in (*KEYS, "hdu", "row")]
    return [name for name in candidates if canonical(name) in KNOWN and canonical(name) != "rv"] or candidates


def _unit(column: Any, name: str) -> str:
    """Return the unit that the table states, else that of a well-known label."""
    return unit_of(name) if column.unit is None else str(column.unit)
