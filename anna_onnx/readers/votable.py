"""VOTable and ECSV, through astropy."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from anna_onnx.errors import ReadError, first_line
from anna_onnx.files import Content

from .assembly import Readings
from .columns import Column
from .facts import Facts, medium_in
from .options import ReadOptions
from .tables import read_columns

LARGEST_EXACT = 2**53  # integer of a float
MAX_SIZE = 16 << 20  # astropy takes 20 times as much memory


def read(path: str, data: Content, options: ReadOptions) -> Readings:
    """Read the first table of a VOTable.

    Raises
    ------
    NoWavelengthError, ReadError
        If it is damaged, or its columns are not understood.
    """
    if len(data) > MAX_SIZE:
        raise ReadError(f"{path}: a VOTable of {len(data) >> 20} MB, more than {MAX_SIZE >> 20} MB")
    from astropy.io.votable import parse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = parse(io.BytesIO(data[:]), verify="ignore").get_first_table()
            columns = [_column(field, table.array) for field in table.fields]
            params = {p.name.lower(): p.value for p in table.params}
    except Exception as error:  # whatever astropy makes of a damaged file
        raise ReadError(f"{path}: not readable as VOTable ({first_line(error)})") from error
    return read_columns(columns, _facts(params), path, None, options)


def read_ecsv(path: str, text: str, options: ReadOptions) -> Readings:
    """Read an ECSV file.

    Raises
    ------
    NoWavelengthError, ReadError
        If it is damaged, or its columns are not understood.
    """
    if len(text) > MAX_SIZE:
        raise ReadError(f"{path}: an ECSV file of {len(text) >> 20} MB, more than {MAX_SIZE >> 20} MB")
    from astropy.table import Table

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(text.splitlines(), format="ascii.ecsv")
            meta = {str(key).lower(): value for key, value in table.meta.items()}
            columns = [_ecsv_column(table[name]) for name in table.colnames]
    except Exception as error:  # whatever astropy makes of a damaged file
        raise ReadError(f"{path}: not readable as ECSV ({first_line(error)})") from error
    return read_columns(columns, _facts(meta), path, None, options)


def _column(field: Any, array: Any) -> Column:
    values = _plain(array[field.name if field.name in array.dtype.names else field.ID])
    unit = "" if field.unit is None else str(field.unit)
    return Column(field.name, len(values), lambda: values, unit, field.ucd or "", field.utype or "")


def _ecsv_column(column: Any) -> Column:
    values = _plain(column)
    unit = "" if column.unit is None else str(column.unit)
    return Column(
        column.name,
        len(values),
        lambda: values,
        unit,
        str(column.meta.get("ucd", "")),
        str(column.meta.get("utype", "")),
    )


def _plain(values: Any) -> Any:
    """Return values with what is masked as NaN, or '' among large integers; cells of different lengths as a list."""
    if values.dtype.kind == "O":
        return [_plain(np.ma.asarray(cell)) if np.ndim(cell) else cell for cell in values]
    values = np.ma.asarray(values)
    if np.ma.is_masked(values) and values.dtype.kind in "iu" and values.max() > LARGEST_EXACT:
        return ["" if value is None else str(value) for value in values.tolist()]  # names of stars
    if values.dtype.kind == "f" or (np.ma.is_masked(values) and values.dtype.kind in "iub"):
        return values.astype(np.float64).filled(np.nan)
    return np.asarray(values.data)


def _facts(meta: dict[str, Any]) -> Facts:
    """Return what parameters or metadata state."""
    facts = Facts(
        id=next((str(meta[k]) for k in ("object", "target", "targname", "source_id", "name") if k in meta), "")
    )
    for key in ("medium", "airorvac", "wavetype", "wavelength_medium"):
        if medium := medium_in(str(meta.get(key, ""))):
            return facts.known(medium=medium)
    return facts
