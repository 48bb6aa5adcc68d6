"""Build a training set from files of spectra and a table of labels.

A spectrum belongs to the row of the table that has its file (and, when the
table says so, its row in the file), its id, or the name of its file. What is
left out, and why, is written to a report: nothing disappears silently.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx._version import __version__
from anna_onnx.arrays import FloatArray
from anna_onnx.continuum import Normalization
from anna_onnx.errors import AnnaError, TrainingSetError
from anna_onnx.filelist import expand
from anna_onnx.files import replacing, writing
from anna_onnx.flags import Flag, names
from anna_onnx.labels import nearest
from anna_onnx.labeltable import LabelTable, read_labels
from anna_onnx.pieces import slices
from anna_onnx.preparation import Preparation, Prepared, PrepareOptions, RadialVelocity, parse_velocity
from anna_onnx.progress import Progress, silent
from anna_onnx.readers import ReadOptions, read_each
from anna_onnx.resampling import Grid
from anna_onnx.spectrum import Frame, Source, Spectrum
from anna_onnx.trainingset import TrainingSetWriter

FATAL = Flag.no_coverage | Flag.partial_coverage | Flag.not_normalized
"""Flags for which a spectrum is left out."""


@dataclass(frozen=True)
class Line:
    """What became of one spectrum, or of one row of the table of labels."""

    source: Source
    id: str
    packed: bool
    why: str


@dataclass(frozen=True)
class PackReport:
    """What became of every spectrum.

    Attributes
    ----------
    lines : list of Line
    """

    lines: list[Line] = field(default_factory=list)

    @property
    def packed(self) -> int:
        """Number of spectra in the training set."""
        return sum(line.packed for line in self.lines)

    @property
    def dropped(self) -> int:
        """Number of spectra and table rows that are not in it."""
        return len(self.lines) - self.packed

    def summary(self) -> str:
        """Return the numbers, and how often each reason came."""
        reasons = Counter(line.why.split(":")[0] for line in self.lines if not line.packed)
        counted = [f"  {count} × {reason}" for reason, count in reasons.most_common()]
        return "\n".join([f"{self.packed} spectra packed, {self.dropped} left out", *counted])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write one CSV line a spectrum: file, hdu, row, id, packed, why."""
        with replacing(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "hdu", "row", "id", "packed", "why"])
            for line in self.lines:
                place = ("" if number is None else number for number in (line.source.hdu, line.source.row))
                table.writerow([line.source.file, *place, line.id, int(line.packed), line.why])


def pack_files(
    labels: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    report: str | os.PathLike[str],
    wavelength: str | None = None,
    grid_medium: Literal["air", "vacuum"] = "air",
    like: str | os.PathLike[str] | None = None,
    names: str | None = None,
    key: str | None = None,
    rv: str | None = None,
    continuum: str | None = None,
    ignore: Sequence[tuple[float, float]] = (),
    resolution: float | None = None,
    min_coverage: float | None = None,
    keep: Sequence[str] = (),
    progress: Progress = silent,
    **reading: Any,
) -> PackReport:
    """Build a training set as the command ``anna pack`` is asked to; see `pack`.

    Parameters
    ----------
    labels, output, report : path-like
    files : sequence of path-like
        ``-`` stands for a list of files on standard input, ``@list.txt`` for one in a file.
    wavelength : str, optional
        Grid, as ``first:last:step`` or a file.
    grid_medium : {'air', 'vacuum'}
    like : path-like, optional
        A model whose preparation is taken instead.
    names : str, optional
        Labels to take, with commas between them.
    key, keep, progress
        As in `read_labels` and `pack`.
    rv : str, optional
        A number in km/s, header, auto, or a column of the table.
    continuum : str, optional
        See `Normalization.parse`.
    ignore : sequence of (first, last)
    resolution, min_coverage : float, optional
        In place of those of the model.
    **reading
        Of `ReadOptions`.

    Raises
    ------
    TrainingSetError
        If neither or both of `wavelength` and `like` are given, or nothing is left.
    """
    preparation, template = _preparation(wavelength, grid_medium, like)
    if continuum is not None:
        preparation = replace(preparation, normalize=Normalization.parse(continuum, ignore))
    if resolution is not None:
        preparation = replace(preparation, resolution=resolution)
    if min_coverage is not None:
        preparation = replace(preparation, min_coverage=min_coverage)
    velocity, rv_column = _parse_rv(rv)
    return pack(
        read_labels(labels, names.split(",") if names else None, key),
        list(expand(str(file) for file in files)),
        output,
        preparation,
        options=PrepareOptions(rv=velocity, normalize=True if continuum else None),
        rv_column=rv_column,
        reading=ReadOptions(**reading),
        template=template,
        keep=keep,
        report=report,
        progress=progress,
    )


def pack(
    table: LabelTable,
    files: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    preparation: Preparation,
    *,
    options: PrepareOptions | None = None,
    rv_column: str | None = None,
    reading: ReadOptions | None = None,
    template: ArrayLike | None = None,
    keep: Sequence[str] = (),
    report: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> PackReport:
    """Build a training set from files of spectra.

    Spectra are left out when they cannot be read, have no row in the table or
    no known label, or have one of the flags `FATAL` and not in `keep`. Pixels
    without good flux become 1, masked. Errors are stored when any spectrum has
    them; for the others then 1 / S/N, as estimated. Columns ``e_<label>`` of the table are stored as ``aux``.

    Parameters
    ----------
    table : LabelTable
        See `read_labels`.
    files : sequence of path-like
    output : path-like
        The training set (.h5) to write.
    preparation : Preparation
        The grid, and what the spectra are to be made like. It is stored in
        the training set, attribute ``preparation``.
    options : PrepareOptions, optional
    rv_column : str, optional
        Column of the table with the radial velocity to remove, km/s.
    reading : ReadOptions, optional
        Overrides of what the files say.
    template : array, shape (n_pixel,), optional
        Mean spectrum, for ``rv='auto'``.
    keep : sequence of str
        Names of flags that are no reason to leave a spectrum out.
    report : path-like, optional
        CSV file for what became of each spectrum.
    progress : Progress

    Returns
    -------
    PackReport

    Raises
    ------
    TrainingSetError
        If no spectrum at all is left.
    """
    if rv_column is not None and rv_column not in table.columns:
        raise TrainingSetError(
            f"{table.name}: no column '{rv_column}' of numbers{nearest(rv_column, [*table.columns])}"
        )
    if options is not None and options.rv == "auto":
        preparation.check_template(template)
    output = Path(output)
    matcher, found = _Matcher(table), PackReport()
    job = _Job(table, preparation, options or PrepareOptions(), rv_column, template, _fatal(keep))
    with ExitStack() as held:
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            scratch = held.enter_context(tempfile.TemporaryFile(dir=output.parent))
        stars = _Stars(preparation.grid, scratch)
        for number, file in enumerate(files):
            found.lines.extend(_pack_file(file, job, matcher, stars, reading or ReadOptions()))
            progress(number + 1, len(files), f"{found.packed} spectra")
        found.lines.extend(matcher.unused())
        if report is not None:
            found.write(report)
        if not found.packed:
            raise TrainingSetError(f"{output}: nothing to write: {found.summary()}")
        stars.write(output, job)
    return found


def _preparation(
    wavelength: str | None, medium: Literal["air", "vacuum"], like: str | os.PathLike[str] | None
) -> tuple[Preparation, FloatArray | None]:
    """Return a preparation for a new grid, or that of a model with its mean training spectrum."""
    if (wavelength is None) == (like is None):
        raise TrainingSetError("the wavelengths of the training set: needed either --wavelength or --like")
    if like is not None:
        from anna_onnx.bundle import Bundle, find_model

        sidecar = Bundle.load(find_model(like)).sidecar
        return sidecar.preparation, None if sidecar.novelty is None else sidecar.novelty.mean
    from anna_onnx.synthesis import wavelength_grid

    return Preparation(wavelength_grid(str(wavelength), medium)), None


def _parse_rv(text: str | None) -> tuple[RadialVelocity | None, str | None]:
    """Return a radial velocity option and, when `text` is none, the column that it names."""
    try:
        return None if text is None else parse_velocity(text), None
    except ValueError:
        return None, text


def _fatal(keep: Sequence[str]) -> Flag:
    """Return the flags for which a spectrum is left out."""
    fatal = FATAL
    for name in keep:
        if name not in Flag.__members__:
            raise TrainingSetError(f"no flag '{name}'{nearest(name, list(Flag.__members__))}")
        fatal &= ~Flag[name]
    return fatal


@dataclass(frozen=True, eq=False)
class _Job:
    """What is the same for all files."""

    table: LabelTable
    preparation: Preparation
    options: PrepareOptions
    rv_column: str | None
    template: ArrayLike | None
    fatal: Flag

    def prepare(self, spectrum: Spectrum, index: int) -> Prepared:
        options = self.options
        if self.rv_column is not None:
            velocity = self.table.columns[self.rv_column][index]
            spectrum, options = replace(spectrum, radial_velocity=float(velocity)), replace(options, rv="header")
        return self.preparation.prepare(spectrum, options, template=self.template)

    def why_not(self, prepared: Prepared, index: int) -> str:
        """Return why a spectrum is to be left out; nothing if it is not."""
        if np.isnan(self.table.labels[index]).all():
            return "no label known"
        flags = prepared.flags & self.fatal
        return f"{names(flags)}: {'; '.join(prepared.notes)}" if flags else ""


class _Matcher:
    """Finds the row of the table that belongs to a spectrum."""

    def __init__(self, table: LabelTable) -> None:
        self._table = table
        self._rows: dict[str, list[int]] = {}
        for index, key in enumerate(table.keys):
            self._rows.setdefault(key, []).append(index)
        self._used: set[int] = set()

    def find(self, spectrum: Spectrum) -> tuple[int | None, str]:
        """Return the row, or why there is none."""
        by_file = _names_of(spectrum.source.file)
        for name in filter(None, (spectrum.id, *by_file)):
            rows = [row for row in self._rows.get(name, ()) if self._fits(row, spectrum.source)]
            if len(rows) == 1:
                return rows[0], ""
            if rows:
                return None, f"ambiguous: the table has {len(rows)} rows for '{name}'"
        return None, f"no labels: the table has no '{spectrum.id or by_file[-1]}'"

    def _fits(self, index: int, source: Source) -> bool:
        hdu, row = self._table.places[index]
        return hdu in (None, source.hdu) and row in (None, source.row)

    def use(self, index: int) -> None:
        self._used.add(index)

    def unused(self) -> Iterator[Line]:
        """Yield a line for every row of the table that no spectrum was packed for."""
        for index, key in enumerate(self._table.keys):
            if index not in self._used:
                hdu, row = self._table.places[index]
                yield Line(Source(self._table.name, hdu, row), key, False, "no spectrum for these labels")


@dataclass(frozen=True)
class _Star:
    """What is kept in memory of a prepared spectrum."""

    id: str
    row: int
    frame: Frame
    rv: float
    snr: float
    has_errors: bool


class _Stars:
    """Prepared spectra in a scratch file, until their number is known."""

    def __init__(self, grid: Grid, scratch: IO[bytes]) -> None:
        shape = (grid.n_pixel,)
        self._record = np.dtype([("flux", "f4", shape), ("sigma", "f4", shape), ("mask", "u1", shape)])
        self._grid, self._scratch = grid, scratch
        self._stars: list[_Star] = []
        self._kept: list[bool] = []

    def add(self, spectrum: Spectrum, prepared: Prepared, row: int) -> int:
        """Add a star; return its number."""
        missing = np.isnan(prepared.flux)
        noise = 1 / max(prepared.snr, 1e-3) if prepared.sigma is None else prepared.sigma
        record = np.zeros(1, dtype=self._record)
        record["flux"] = np.where(missing, 1, prepared.flux)
        record["sigma"] = np.where(missing, 1, np.nan_to_num(noise))
        record["mask"] = missing
        self._scratch.write(record.tobytes())
        self._stars.append(
            _Star(
                id=spectrum.id or _name_of(spectrum.source),
                row=row,
                frame=spectrum.frame if prepared.rv is None else "rest",
                rv=np.nan if prepared.rv is None else prepared.rv,
                snr=prepared.snr,
                has_errors=prepared.sigma is not None,
            )
        )
        self._kept.append(True)
        return len(self._kept) - 1

    def drop(self, number: int) -> None:
        """Leave out a star that was added."""
        self._kept[number] = False

    def write(self, output: Path, job: _Job) -> None:
        """Write the training set."""
        stars = [star for star, kept in zip(self._stars, self._kept, strict=True) if kept]
        with_errors = any(star.has_errors for star in stars)
        aux = {"snr": np.array([star.snr for star in stars])}
        if not all(np.isnan(star.rv) for star in stars):
            aux["rv_removed"] = np.array([star.rv for star in stars])
        rows = [star.row for star in stars]
        aux |= {name: errors[rows] for name, errors in job.table.errors.items()}
        with TrainingSetWriter(
            output,
            self._grid,
            job.table.label_names,
            job.table.label_units,
            len(stars),
            sigma=with_errors,
            mask=True,
            aux=dict.fromkeys(aux, "f8"),
            id_dtype="str",
            attrs=_provenance(stars, job),
        ) as writer:
            for records in self._records():
                part = slice(writer.written, writer.written + len(records))
                writer.append(
                    records["flux"],
                    job.table.labels[rows[part]],
                    [star.id for star in stars[part]],
                    sigma=records["sigma"] if with_errors else None,
                    mask=records["mask"],
                    aux={name: values[part] for name, values in aux.items()},
                )

    def _records(self) -> Iterator[NDArray[Any]]:
        """Yield blocks of what was kept."""
        self._scratch.seek(0)
        kept = np.array(self._kept)
        for part in slices(kept.size, 256):
            size = (part.stop - part.start) * self._record.itemsize
            yield np.frombuffer(self._scratch.read(size), dtype=self._record)[kept[part]]


def _provenance(stars: Sequence[_Star], job: _Job) -> dict[str, Any]:
    """Return what the training set says of its making; the frame is stated when all stars share it."""
    frames = {star.frame for star in stars}
    frame: Frame = frames.pop() if len(frames) == 1 else "unknown"
    preparation = replace(job.preparation, frame=frame)
    resolution = {} if preparation.resolution is None else {"resolution": preparation.resolution}
    return {
        "made_by": f"anna-onnx {__version__}, anna pack",
        "labels_from": Path(job.table.name).name,
        "preparation": json.dumps(preparation.to_dict()),
        **resolution,
    }


def _pack_file(
    file: str | os.PathLike[str], job: _Job, matcher: _Matcher, stars: _Stars, reading: ReadOptions
) -> list[Line]:
    """Pack what belongs to the table of one file, and say what became of each spectrum."""
    lines: list[Line] = []
    packed: dict[int, list[tuple[int, int]]] = {}  # row of the table -> lines and stars
    try:
        for spectrum in read_each(file, reading):
            if not isinstance(spectrum, Spectrum):
                lines.append(Line(spectrum.source, "", False, f"unreadable: {spectrum.error}"))
                continue
            row, why = matcher.find(spectrum)
            if row is None:
                lines.append(Line(spectrum.source, spectrum.id, False, why))
                continue
            matcher.use(row)
            prepared = job.prepare(spectrum, row)
            why = job.why_not(prepared, row)
            if not why:
                packed.setdefault(row, []).append((len(lines), stars.add(spectrum, prepared, row)))
            lines.append(Line(spectrum.source, spectrum.id, not why, why or "; ".join(prepared.notes)))
    except (AnnaError, OSError) as error:
        lines.append(Line(Source(os.fspath(file)), "", False, f"unreadable: {error}"))
    for pairs in packed.values():
        if len(pairs) > 1:
            for line, star in pairs:
                why = f"ambiguous: {len(pairs)} spectra of the file lead to one row of the table; add a column row"
                lines[line] = replace(lines[line], packed=False, why=why)
                stars.drop(star)
    return lines


def _names_of(file: str) -> tuple[str, str, str]:
    """Return what a table may call a file: as it was given, without folders, and without suffixes."""
    name = Path(file).name
    stem = name.removesuffix(".gz")
    return file, name, stem.rsplit(".", 1)[0] if "." in stem else stem


def _name_of(source: Source) -> str:
    stem = _names_of(source.file)[-1]
    return stem if source.row is None else f"{stem}:{source.row}"
