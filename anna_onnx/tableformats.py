"""The formats of the result table, each made in blocks from the CSV that was written as the rows came."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.errors import MissingExtraError, ResultError
from anna_onnx.labels import Label

FITS_BLOCK = 2880
Kind = Literal["text", "integer", "number"]
PYTHON_TYPES: Mapping[Kind, type] = {"text": str, "integer": int, "number": float}
VOTABLE_NUMBERS = {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}


class Column(NamedTuple):
    """What a format may say about a column; `unit` in astropy's spelling."""

    name: str
    kind: Kind
    description: str
    unit: str = ""
    ucd: str = ""


@dataclass(frozen=True)
class Schema:
    """The columns of a result table, and what its header says.

    Parameters
    ----------
    labels : sequence of Label
    intervals, rv, covariance : bool
        Whether ``<label>_lo, <label>_hi``, the removed radial velocity, and the correlation
        ``corr_<label>_<label>`` of each pair of labels come along.
    meta : mapping of str to str
        Such as model, sha256, version, level.

    Raises
    ------
    ResultError
        If a label has the name of another column.
    """

    labels: tuple[Label, ...]
    intervals: bool = False
    rv: bool = False
    covariance: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ResultError(f"result table: two columns would be called '{name}'; rename the label")

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in order."""
        return (
            Column("file", "text", "file as it was given", ucd="meta.id;meta.file"),
            Column("hdu", "integer", "FITS extension, from 0", ucd="meta.id;meta.dataset"),
            Column("row", "integer", "row, aperture or order in it, from 0", ucd="meta.record"),
            Column("id", "text", "name of the star or observation", ucd="meta.id;meta.main"),
            *(column for label in self.labels for column in _value_and_error(label)),
            Column("snr", "number", "signal-to-noise ratio per pixel of the model", ucd="stat.snr"),
            Column("coverage", "number", "fraction of the model's pixels with good flux", ucd="stat.value"),
            Column("flags", "text", "what to know before believing the row", ucd="meta.code"),
            Column("flag_bits", "integer", "the flags as a sum of bits", ucd="meta.code"),
            Column("message", "text", "what was assumed, or went wrong", ucd="meta.note"),
            *(column for label in self.labels if self.intervals for column in _interval(label, self._interval_name)),
            *(_correlation(*pair) for pair in itertools.combinations(self.labels, 2) if self.covariance),
            *([self._rv_column] if self.rv else []),
        )

    @property
    def _interval_name(self) -> str:
        """What the interval is called; the header states its probability, as a fraction, where it is known."""
        return f"{100 * float(self.meta['level']):g} % interval" if "level" in self.meta else "interval"

    @property
    def _rv_column(self) -> Column:
        name = "rv_removed" if any(label.name == "rv" for label in self.labels) else "rv"
        return Column(name, "number", "radial velocity that was removed", "km / s", "spect.dopplerVeloc.opt")


def read_blocks(part: Path, schema: Schema) -> Iterator[list[list[Any]]]:
    """Yield the rows of a CSV table in blocks, as columns of Python values; missing integers are None."""
    convert = [to_integer if column.kind == "integer" else PYTHON_TYPES[column.kind] for column in schema.columns]
    for block in _read_text(part):
        yield [list(map(kind, column)) for kind, column in zip(convert, block, strict=True)]


def _read_text(part: Path) -> Iterator[list[tuple[str, ...]]]:
    """Yield the rows of a CSV table in blocks, as columns of text."""
    with part.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        while block := list(itertools.islice(rows, 10_000)):
            yield list(zip(*block, strict=True))


def check_format(path: Path) -> None:
    """Refuse a suffix that no format has.

    Raises
    ------
    ResultError
        If the suffix is not known.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ResultError(f"{path}: suffix '{suffix}', needed one of {', '.join(_WRITERS)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("a Parquet table", "parquet")


def convert(part: Path, path: Path, schema: Schema) -> None:
    """Make the table `path` from the CSV file `part`, which goes.

    Raises
    ------
    ResultError
        If the table cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _WRITERS[path.suffix.lower()](part, temporary, schema)
        temporary.replace(path)
        part.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written ({error.strerror}); the rows are in {part}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _to_csv(part: Path, path: Path, schema: Schema) -> None:
    part.replace(path)


def _to_ecsv(part: Path, path: Path, schema: Schema) -> None:
    import shutil

    header = ["%ECSV 1.0", "---", "delimiter: ','", *_yaml(schema)]
    with part.open("rb") as rows, path.open("wb") as file:
        file.writelines(f"# {line}\n".encode() for line in header)
        shutil.copyfileobj(rows, file)


def _to_fits(part: Path, path: Path, schema: Schema) -> None:
    n, dtype = _count_and_dtype(part, schema, _ascii)
    with path.open("wb") as file:
        file.write(_fits_header(n, dtype, schema))
        for block in _records(part, schema, dtype, _ascii):
            file.write(block.tobytes())
        file.write(b"\0" * (-n * dtype.itemsize % FITS_BLOCK))


def _to_hdf5(part: Path, path: Path, schema: Schema) -> None:
    import h5py

    n, dtype = _count_and_dtype(part, schema, str.encode)
    with h5py.File(path, "w", locking=False) as file:
        table = file.create_dataset("results", (n,), dtype.newbyteorder("<"))
        table.attrs.update({"missing_integer": -1, **schema.meta})
        # Units and descriptions where astropy looks for them.
        yaml = np.array([line.encode() for line in _yaml(schema)])
        file.create_dataset("results.__table_column_meta__", data=yaml)
        first = 0
        for block in _records(part, schema, dtype, str.encode):
            table[first : first + len(block)] = block
            first += len(block)


def _to_votable(part: Path, path: Path, schema: Schema) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        # Of version 1.3 the units are spelled as the CDS does, which knows logarithms.
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE type="results">\n'
        )
        for key, value in schema.meta.items():
            file.write(f"<INFO name={_quoted(key)} value={_quoted(str(value))}/>\n")
        file.write('<TABLE name="results">\n')
        file.writelines(map(_votable_field, schema.columns))
        file.write("<DATA><TABLEDATA>\n")
        line = f"<TR>{'<TD>%s</TD>' * len(schema.columns)}</TR>\n"
        for block in _read_text(part):
            cells = map(_votable_cells, schema.columns, block)
            file.writelines(map(line.__mod__, zip(*cells, strict=True)))
        file.write("</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n")


def _to_parquet(part: Path, path: Path, schema: Schema) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
    fields = [
        pa.field(column.name, types[column.kind], metadata={"unit": column.unit, "ucd": column.ucd})
        for column in schema.columns
    ]
    arrow = pa.schema(fields, metadata={key: str(value) for key, value in schema.meta.items()})
    with pq.ParquetWriter(path, arrow) as file:
        for block in read_blocks(part, schema):
            columns = [pa.array(values, field.type) for values, field in zip(block, fields, strict=True)]
            file.write_table(pa.table(columns, schema=arrow))


_WRITERS: dict[str, Callable[[Path, Path, Schema], None]] = {
    ".csv": _to_csv,
    ".ecsv": _to_ecsv,
    ".fits": _to_fits,
    ".vot": _to_votable,
    ".xml": _to_votable,
    ".h5": _to_hdf5,
    ".parquet": _to_parquet,
}


def _yaml(schema: Schema) -> list[str]:
    """Return the header of ECSV (APE 6), which astropy uses in HDF5 too: as JSON, which is YAML as well.

    To import astropy for it would take as long as to infer some thousand spectra.
    """
    types = {"text": "string", "integer": "int64", "number": "float64"}
    lines = ["datatype:"]
    for column in schema.columns:
        about = {
            "name": column.name,
            "unit": column.unit,
            "datatype": types[column.kind],
            "description": column.description,
            "meta": column.ucd and {"ucd": column.ucd},
        }
        lines.append(f"- {_json({key: value for key, value in about.items() if value})}")
    return [*lines, f"meta: {_json(dict(schema.meta))}"]


def _json(values: Mapping[str, Any]) -> str:
    return printable(json.dumps(values, ensure_ascii=False))


def printable(text: str) -> str:
    """Replace what no table can hold: line ends, control characters, bytes of a file name that are not UTF-8."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def _count_and_dtype(part: Path, schema: Schema, encode: Callable[[str], bytes]) -> tuple[int, np.dtype[Any]]:
    """Return the number of rows and the type of a big-endian record that holds every text."""
    n, widths = 0, [1] * len(schema.columns)
    for block in _read_text(part):
        n += len(block[0])
        for index, (column, values) in enumerate(zip(schema.columns, block, strict=True)):
            if column.kind == "text":
                widths[index] = max(widths[index], *(len(encode(value)) for value in values))
    kinds = {"integer": ">i8", "number": ">f8"}
    pairs = zip(schema.columns, widths, strict=True)
    return n, np.dtype([(column.name, kinds.get(column.kind, f"S{width}")) for column, width in pairs])


def _records(
    part: Path, schema: Schema, dtype: np.dtype[Any], encode: Callable[[str], bytes]
) -> Iterator[NDArray[Any]]:
    """Yield blocks of records; missing integers are -1."""
    for block in read_blocks(part, schema):
        records = np.zeros(len(block[0]), dtype=dtype)
        for column, values in zip(schema.columns, block, strict=True):
            if column.kind == "text":
                records[column.name] = [encode(value) for value in values]
            elif column.kind == "integer":
                records[column.name] = [-1 if value is None else value for value in values]
            else:
                records[column.name] = values
        yield records


def _ascii(text: str) -> bytes:
    """Spell a text with the letters that FITS allows."""
    if text.isascii():
        return text.encode("ascii")
    plain = unicodedata.normalize("NFKD", text.replace("±", "+-"))
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).encode("ascii", "replace")


def _fits_header(n: int, dtype: np.dtype[Any], schema: Schema) -> bytes:
    """Return the primary header and that of a binary table of `n` records."""
    from astropy.io import fits

    header = fits.BinTableHDU(np.zeros(0, dtype=dtype), name="RESULTS").header
    header["NAXIS2"] = n
    for number, column in enumerate(schema.columns, start=1):
        for keyword, value in (("TCOMM", column.description), ("TUCD", column.ucd), ("TUNIT", _fits_unit(column.unit))):
            if value:
                header.set(f"{keyword}{number}", value, after=f"TFORM{number}")
        if column.kind == "integer":
            header.set(f"TNULL{number}", -1, after=f"TFORM{number}")
    for key, value in schema.meta.items():
        header[key.upper() if len(key) <= 8 else f"HIERARCH {key}"] = _ascii(str(value)).decode()
    text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
    return text.encode("ascii")


def _fits_unit(unit: str) -> str:
    """Return a unit as FITS spells it; dex, which FITS does not know, as it is."""
    from astropy import units

    try:
        return str(units.Unit(unit).to_string("fits"))
    except ValueError:
        return unit


def _votable_field(column: Column) -> str:
    datatype = {
        "text": 'datatype="unicodeChar" arraysize="*"',
        "integer": 'datatype="long"',
        "number": 'datatype="double"',
    }
    attributes = [f"name={_quoted(column.name)}", datatype[column.kind]]
    if column.unit:
        attributes.append(f"unit={_quoted(_cds_unit(column.unit))}")
    if column.ucd:
        attributes.append(f"ucd={_quoted(column.ucd)}")
    return f"<FIELD {' '.join(attributes)}><DESCRIPTION>{_escaped(column.description)}</DESCRIPTION></FIELD>\n"


def _escaped(text: str) -> str:
    import html

    return html.escape(text)


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _cds_unit(unit: str) -> str:
    """Return a unit as the CDS spells it, [...] being the logarithm; one that it does not know as it is."""
    from astropy import units

    try:
        return "[-]" if unit == "dex" else str(units.Unit(unit).to_string("cds"))
    except ValueError:
        return unit


def _votable_cells(column: Column, values: Sequence[str]) -> Sequence[str]:
    """Return what CSV holds of a column as VOTable has it; what is missing is empty in both."""
    if column.kind == "number":
        return [VOTABLE_NUMBERS.get(value, value) for value in values]
    return [_escaped(value) for value in values] if column.kind == "text" else values


def _value_and_error(label: Label) -> tuple[Column, Column]:
    error = f"68 % error of {label.name}"
    return (
        Column(label.name, "number", f"{label.name}, inferred", label.unit, label.ucd),
        Column(f"e_{label.name}", "number", error, label.difference_unit, _ucd("stat.error", label.ucd)),
    )


def _interval(label: Label, what: str) -> tuple[Column, Column]:
    unit, ucd = label.unit, label.ucd
    return (
        Column(f"{label.name}_lo", "number", f"lower end of the {what} of {label.name}", unit, _ucd("stat.min", ucd)),
        Column(f"{label.name}_hi", "number", f"upper end of the {what} of {label.name}", unit, _ucd("stat.max", ucd)),
    )


def _correlation(first: Label, second: Label) -> Column:
    name, meaning = f"corr_{first.name}_{second.name}", f"correlation of the errors of {first.name} and {second.name}"
    return Column(name, "number", meaning, ucd=_ucd("stat.correlation", _ucd(first.ucd, second.ucd)))


def _ucd(first: str, rest: str) -> str:
    return f"{first};{rest}" if rest else first


def to_integer(text: str) -> int | None:
    return int(text) if text else None
