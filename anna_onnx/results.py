"""The result table: one row a spectrum, in the order given, written as the rows come.

Rows go to a plain CSV file ``<name>.part`` first. At the end that becomes the
table itself, or the table is made from it in blocks (`anna_onnx.tableformats`); so every
format takes bounded memory, and an interrupted run of any format can be resumed.

In CSV a missing `hdu` or `row` is empty and a number that is not known is
``nan``; the other formats have their own way to say missing, or -1. Values keep
seven significant digits, as many as the network's float32 has.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray, Floats
from anna_onnx.errors import ResultError
from anna_onnx.files import open_alone
from anna_onnx.flags import Flag, names
from anna_onnx.labels import Label
from anna_onnx.tableformats import Kind, Schema, check_format, convert, printable, to_integer

if TYPE_CHECKING:
    from astropy.table import QTable

TO_QUOTE = (",", '"', "#")


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of rows of the result table.

    Attributes
    ----------
    file : sequence of str, length n
    hdu, row : sequences of int or None, length n
    id : sequence of str, length n
    values, errors : arrays, shape (n, n_label)
        In the labels' units, NaN = not known; `errors` hold 68 %.
    snr, coverage : arrays, shape (n,)
    flags : array of int, shape (n,)
        Bits of `Flag`.
    messages : sequence of str, length n
    lo, hi : arrays, shape (n, n_label), optional
        Ends of the interval that was asked for.
    rv : array, shape (n,), optional
        Radial velocity that was removed, km/s.
    correlations : array, shape (n, n_pair), optional
        Of the errors, for each pair of labels as `of_pairs` has them.
    """

    file: Sequence[str]
    hdu: Sequence[int | None]
    row: Sequence[int | None]
    id: Sequence[str]
    values: Floats
    errors: Floats
    snr: Floats
    coverage: Floats
    flags: NDArray[np.integer[Any]]
    messages: Sequence[str]
    lo: Floats | None = None
    hi: Floats | None = None
    rv: Floats | None = None
    correlations: Floats | None = None

    def __len__(self) -> int:
        return len(self.file)


class Done(NamedTuple):
    """What a row of an unfinished table says of where its spectrum came from, and the bits of its flags."""

    file: str
    hdu: int | None
    row: int | None
    flags: int

    @property
    def ends_file(self) -> bool:
        """Whether the row stands for a file, or the rest of one, that could not be read."""
        return self.hdu is None and self.row is None and bool(self.flags & Flag.unreadable)


class ResultWriter:
    """Write a result table as its rows come, in bounded memory.

    A context manager. The table appears under its name when the block ends
    without an error. After an error or an interruption ``<name>.part`` remains, if it holds
    a row, for `resume`.

    Parameters
    ----------
    path : path-like or None
        The format follows from the suffix; None is CSV on standard output.
    labels : sequence of Label
    meta : mapping of str to str, optional
        For the header, such as model, sha256, version, and what else makes the numbers what
        they are, such as level.
    intervals, rv, covariance : bool
        Whether the rows bring lo and hi, rv, and correlations.
    resume : bool
        Go on after the rows that an interrupted run left, which are not given up without it. Without
        such a run this starts from the beginning.

    Attributes
    ----------
    rows_done : int
        Rows that the table has so far, those of the interrupted run included.

    Raises
    ------
    ResultError
        If the format is not known, the folder cannot be written to, another process is writing
        the table, or an interrupted run left rows and this one does not resume it or differs in `meta`.
    MissingExtraError
        If the format needs a package that is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        labels: Sequence[Label],
        meta: Mapping[str, str] | None = None,
        *,
        intervals: bool = False,
        rv: bool = False,
        covariance: bool = False,
        resume: bool = False,
    ) -> None:
        said = {key: printable(value) for key, value in (meta or {}).items()}
        self.schema = Schema(tuple(labels), intervals, rv, covariance, said)
        self.rows_done = 0
        self._header = ",".join(self.schema.names) + "\n"  # until it is written, with the first rows
        self.path = None if path is None else Path(path)
        if self.path is None:
            self._file: TextIO = sys.stdout
            return
        check_format(self.path)
        self._part, self._about = work_files(self.path)
        try:
            self._file = self._open(resume)
        except OSError as error:
            raise ResultError(f"{self.path}: cannot be written ({error.strerror})") from error

    def done(self) -> Iterator[Done]:
        """Yield what is known of the rows that the table has so far."""
        if self.path is None:
            return
        self._file.flush()
        bits = self.schema.names.index("flag_bits")
        with self._part.open(encoding="utf-8", newline="") as file:
            for row in islice(csv.reader(file), 1, None):
                yield Done(row[0], to_integer(row[1]), to_integer(row[2]), int(row[bits]))

    def write(self, rows: Rows) -> None:
        """Append a block of rows.

        Raises
        ------
        ResultError
            If the disk does not take them.
        """
        self._append(_as_text(rows, self.schema))
        self.rows_done += len(rows)

    def _append(self, text: str) -> None:
        try:
            self._file.write(self._header + text)
            self._file.flush()
        except OSError as error:
            if self.path is None:  # the reader of a pipe may go when it has seen enough
                raise
            raise ResultError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._header = ""

    @property
    def kept(self) -> str:
        """The end of a message about a run that ends early: where its rows are, if it has any."""
        has_rows = self.path is not None and _holds_rows(self._part)
        return f"; the rows so far are in {self._part}, --resume goes on" if has_rows else ""

    def _open(self, resume: bool) -> TextIO:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        run = open_alone(self._about)
        if run is None:
            raise ResultError(f"{self.path}: another run is writing it")
        self._run = run
        try:
            return self._begin(resume)
        except BaseException:
            run.close()
            raise

    def _begin(self, resume: bool) -> TextIO:
        """Open the file of the rows, behind those of an interrupted run if there are any."""
        if _holds_rows(self._part):
            if not resume:
                raise ResultError(
                    f"{self._part}: holds the rows of an interrupted run: --resume goes on with it, or remove it"
                )
            self._check_same_run()
            self.rows_done = _drop_unfinished_line(self._part)
            self._header = ""
            return self._part.open("a", encoding="utf-8", newline="")
        self._run.truncate(0)
        json.dump(self._settings, self._run)
        self._run.flush()
        return self._part.open("w", encoding="utf-8", newline="")

    @property
    def _settings(self) -> dict[str, Any]:
        """What all rows of a table must have in common; the file of a model may have got another name."""
        meta = {key: value for key, value in self.schema.meta.items() if key not in ("model", "version")}
        return {"columns": self.schema.names, "meta": meta}

    def _check_same_run(self) -> None:
        self._run.seek(0)
        try:
            left = json.loads(self._run.read())
        except ValueError:
            left = {}
        now = self._settings
        if left == now:
            return
        before, meta = left.get("meta", {}), now["meta"]
        keys = [key for key in {**meta, **before} if before.get(key) != meta.get(key)]
        changes = [f"{key}: {before.get(key, 'not given')}, now {meta.get(key, 'not given')}" for key in keys]
        told = "; ".join(changes or ["other columns"])
        raise ResultError(
            f"{self._part}: was left by a run with other settings ({told}); resume it with those, or remove it"
        )

    def _forget_run(self) -> None:
        """Remove what was noted of the run; before it is given free, or another run's would go."""
        if os.name == "nt":  # an open file cannot be removed there, not even by its owner
            self._run.close()
        with suppress(PermissionError):
            self._about.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._header:
            self._append("")  # there was no row to write it with
        if self.path is None:
            return
        # After a failed write closing fails as well; the first error is the one to tell.
        with suppress(OSError):
            self._file.close()
        try:
            if kind is None:
                convert(self._part, self.path, self.schema)
                self._forget_run()
            elif not _holds_rows(self._part):  # what an interruption kept from being counted is there all the same
                self._part.unlink(missing_ok=True)
                self._forget_run()
        finally:
            self._run.close()


def work_files(path: Path) -> tuple[Path, Path]:
    """Return where the rows of a table stand until it is complete, and what is noted of the run."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")


def join(blocks: Sequence[Rows]) -> Rows:
    """Return blocks of rows, at least one, as one block; what only some of them have is NaN in the others."""

    def chain(name: str) -> list[Any]:
        return [item for block in blocks for item in getattr(block, name)]

    def stack(name: str) -> NDArray[Any] | None:
        parts = [getattr(block, name) for block in blocks]
        known = next((part for part in parts if part is not None), None)
        if known is None:
            return None
        unknown = (np.full((len(block), *known.shape[1:]), np.nan) for block in blocks)
        return np.concatenate([other if part is None else part for part, other in zip(parts, unknown, strict=True)])

    return Rows(
        file=chain("file"),
        hdu=chain("hdu"),
        row=chain("row"),
        id=chain("id"),
        values=np.concatenate([block.values for block in blocks]),
        errors=np.concatenate([block.errors for block in blocks]),
        snr=np.concatenate([block.snr for block in blocks]),
        coverage=np.concatenate([block.coverage for block in blocks]),
        flags=np.concatenate([block.flags for block in blocks]),
        messages=chain("messages"),
        lo=stack("lo"),
        hi=stack("hi"),
        rv=stack("rv"),
        correlations=stack("correlations"),
    )


def of_pairs(correlation: FloatArray) -> FloatArray:
    """Return what matrices, shape (n, n_label, n_label), hold above the diagonal, row by row: shape (n, n_pair)."""
    first, second = np.triu_indices(correlation.shape[-1], 1)
    return correlation[:, first, second]


def as_qtable(rows: Rows, labels: Sequence[Label], meta: Mapping[str, str] | None = None) -> QTable:
    """Return rows as an astropy table with units.

    Parameters
    ----------
    rows : Rows
    labels : sequence of Label
    meta : mapping of str to str, optional
        Becomes the table's.
    """
    from astropy.table import MaskedColumn, QTable

    schema = Schema(
        tuple(labels), rows.lo is not None, rows.rv is not None, rows.correlations is not None, dict(meta or {})
    )
    table = QTable(meta=dict(schema.meta))
    for column, values in zip(schema.columns, _columns(rows, schema), strict=True):
        if column.kind == "integer":
            missing = [value is None for value in values]
            filled = [-1 if value is None else int(value) for value in values]
            table[column.name] = MaskedColumn(filled, mask=missing) if any(missing) else np.array(filled, dtype=int)
        elif column.kind == "text":
            table[column.name] = np.array(values, dtype=str)
        else:
            table[column.name] = np.array(values, dtype=np.float64)
            if column.unit:
                table[column.name].unit = column.unit
        table[column.name].info.description = column.description
        table[column.name].info.meta = {"ucd": column.ucd} if column.ucd else None
    return QTable(table)


def _columns(rows: Rows, schema: Schema) -> Iterator[Sequence[Any]]:
    """Yield the columns of a block in the order of `Schema.columns`."""
    yield from (rows.file, rows.hdu, rows.row, rows.id)
    for value, error in zip(rows.values.T, rows.errors.T, strict=True):
        yield from (value.tolist(), error.tolist())
    yield from (rows.snr.tolist(), rows.coverage.tolist())
    bits = rows.flags.tolist()
    spelled = {value: names(Flag(value)) for value in set(bits)}
    yield from ([spelled[value] for value in bits], bits, rows.messages)
    unknown = np.full(rows.values.shape, np.nan)
    if schema.intervals:
        low, high = (unknown if end is None else end for end in (rows.lo, rows.hi))
        for pair in zip(low.T, high.T, strict=True):
            yield from (end.tolist() for end in pair)
    if schema.covariance:
        n_pair = len(schema.labels) * (len(schema.labels) - 1) // 2
        pairs = np.full((len(rows), n_pair), np.nan) if rows.correlations is None else rows.correlations
        yield from pairs.T.tolist()
    if schema.rv:
        yield [np.nan] * len(rows) if rows.rv is None else rows.rv.tolist()


def _as_text(rows: Rows, schema: Schema) -> str:
    """Return a block as CSV has it: one line a row, whatever a message holds."""
    # One operation formats a row; csv.writer, which looks at every letter, takes more than twice as long.
    line = ",".join("%.7g" if column.kind == "number" else "%s" for column in schema.columns) + "\n"
    pairs = zip(schema.columns, _columns(rows, schema), strict=True)
    cells = [_cells(column.kind, values) for column, values in pairs]
    return "".join(map(line.__mod__, zip(*cells, strict=True)))


def _cells(kind: Kind, values: Sequence[Any]) -> Sequence[Any]:
    """Return what stands in the cells of a column."""
    if kind == "integer":
        return ["" if value is None else value for value in values]
    if kind == "text":
        letters = "".join(values)
        if not letters.isprintable() or any(mark in letters for mark in TO_QUOTE):
            cells = {text: _quoted(printable(text)) for text in set(values)}
            return [cells[text] for text in values]
    return values


def _quoted(text: str) -> str:
    """Put quotation marks around a text with commas or such marks (RFC 4180), or one that ECSV took for a comment."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in TO_QUOTE) else text


def _holds_rows(part: Path) -> bool:
    """Whether there is more than a header."""
    if not part.is_file():
        return False
    with part.open("rb") as file:
        return len(list(islice(file, 2))) == 2


def _drop_unfinished_line(part: Path) -> int:
    """Cut off a line that an interruption left unfinished; return the number of rows."""
    rows, end = -1, 0
    with part.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                rows, end = rows + 1, end + len(line)
        file.truncate(end)
    return max(rows, 0)
