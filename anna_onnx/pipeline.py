"""The pipeline: from file names to a result table, in bounded memory, on one core or on many machines.

Files are read in the main thread while others prepare and infer. Where
reading is the slow part and there is enough of it, several processes share the files; a
Dask cluster does when one is named. In every case the rows come in the order of the
files, go to the disk as they come, and an interrupted run can be resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from anna_onnx.blocks import Block, Failure, Part, count_rows, read_blocks
from anna_onnx.bundle import Bundle, find_model
from anna_onnx.cores import usable_cores
from anna_onnx.errors import AnnaError, ResultError
from anna_onnx.filelist import expand, is_one_of
from anna_onnx.files import check_folder
from anna_onnx.flags import Flag
from anna_onnx.inference import Inference, InferOptions, model_info
from anna_onnx.preparation import PrepareOptions, RadialVelocity, parse_velocity
from anna_onnx.processes import run_in_processes
from anna_onnx.progress import Progress, silent
from anna_onnx.readers import ReadOptions
from anna_onnx.results import Done, ResultWriter, Rows, work_files
from anna_onnx.tableformats import printable

MOST_EXPLAINED = 100
SHARD_FILES = 200
SHARD_ROWS = 10_000
TRIAL_FILES = 50
STARTING = 1.0  # seconds that a process takes to start, on a busy machine
UNUSABLE = Flag.unreadable | Flag.no_coverage


class Summary(NamedTuple):
    """What came of a run over files.

    Attributes
    ----------
    rows : int
        Rows of the table, those of an interrupted run included.
    failed : int
        Of these, spectra that could not be inferred.
    flagged : int
        Of these, rows with a flag.
    output : str or None
    explained : str
        What became of the pictures that were asked for.
    """

    rows: int
    failed: int
    flagged: int
    output: str | None
    explained: str = ""

    @property
    def text(self) -> str:
        """A line for a person to read, and another of the pictures."""
        noun = "spectrum" if self.rows == 1 else "spectra"
        where = f" to {self.output}" if self.output else ""
        failed = f", {self.failed} could not be inferred (see their messages)" if self.failed else ""
        pictures = f"\n{self.explained}" if self.explained else ""
        return f"{self.rows} {noun}{where}, {self.flagged} with flags{failed}{pictures}"


def infer_to_table(
    model: str,
    files: Sequence[str],
    output: str | None = None,
    *,
    level: float | None = None,
    covariance: bool = False,
    correct_trends: bool = False,
    rv: str | None = None,
    normalize: bool = False,
    resolution: float | None = None,
    device: str = "cpu",
    threads: int = 0,
    processes: int = 0,
    scheduler: str | None = None,
    resume: bool = False,
    explain: str | None = None,
    explain_most: int | None = None,
    progress: Progress = silent,
    **read: Any,
) -> Summary:
    """Infer every spectrum of some files and write the table; the work of ``anna-lite infer``.

    Parameters
    ----------
    model : str
        File name of the bundle, or the name of a released one.
    files : sequence of str
        ``-`` stands for a list of files on standard input, ``@list.txt`` for one in a file.
    output : str, optional
        Table to write; CSV on standard output by default.
    level, covariance, correct_trends, device, threads
        See `anna_onnx.inference.InferOptions`.
    rv : str, optional
        A number in km/s, ``header`` or ``auto``.
    normalize : bool
        Divide by a fitted continuum.
    resolution : float, optional
        Resolving power of the spectra, in place of the header's.
    processes : int
        0: as many as pay.
    scheduler : str, optional
        Address of a Dask scheduler to run on.
    resume : bool
        Go on where an interrupted run stopped.
    explain : str, optional
        Folder for pictures that show what drives the labels of the first spectra, drawn when the
        table is complete (`anna_onnx.explanation`).
    explain_most : int, optional
        How many of them; `MOST_EXPLAINED` by default.
    progress : Progress
    **read
        See `anna_onnx.readers.ReadOptions`; None where the file decides.

    Raises
    ------
    AnnaError
        If the model, the table or what was asked for is not right. A file
        that cannot be read becomes a row instead.
    """
    prepare = PrepareOptions(_velocity(rv), normalize or None, resolution)
    options = InferOptions(level, correct_trends, prepare, ReadOptions(**read), device, threads, covariance)
    path = find_model(model)
    bundle = Bundle.load(path)
    inference = Inference(bundle, options)
    parts = [Part(file) for file in expand(files)]
    _check(path, files, parts, output, resume)
    _check_explanation(explain, explain_most)
    columns = {"intervals": level is not None, "rv": rv is not None, "covariance": covariance}
    counts = _Counts(progress, len(parts))
    meta = model_info(bundle) | options.said
    writer = ResultWriter(output, bundle.sidecar.labels, meta, resume=resume, **columns)
    try:
        with writer:
            left = _not_done(parts, counts.passing(writer.done())) if resume else parts
            _infer(_run(inference, left, processes, scheduler), writer, counts)
    except KeyboardInterrupt:
        raise AnnaError(f"interrupted{writer.kept}") from None
    most = min(explain_most or MOST_EXPLAINED, writer.rows_done)
    explained = "" if explain is None else _explain(inference, parts, explain, most, progress, output)
    return Summary(writer.rows_done, counts.failed, counts.flagged, output, explained)


def _check(model: Path, files: Sequence[str], parts: Sequence[Part], output: str | None, resume: bool) -> None:
    """Refuse a run before it begins that could not come to its end, or would cost the user a file."""
    if not parts:
        raise AnnaError("no files to infer: the list is empty")
    if resume and output is None:
        raise AnnaError("--resume goes on with a table that was begun: needs -o")
    if output is not None:
        lists = [file[1:] for file in files if file.startswith("@")]
        _refuse_to_replace(Path(output), model, [*lists, *(part.file for part in parts)])


def _check_explanation(folder: str | None, most: int | None) -> None:
    """Refuse pictures that could not be written."""
    if folder == "":
        raise AnnaError("--explain '': needed the name of a folder")
    if folder is not None:
        check_folder(Path(folder))
    elif most is not None:
        raise AnnaError("--explain-most says how many pictures to draw: needs --explain")


def _refuse_to_replace(output: Path, model: Path, inputs: Sequence[str]) -> None:
    """Refuse a table that would cost the user what it is made from."""
    sidecar = model.with_suffix(".h5")
    for written in (output, *work_files(output)):
        taken = "a file that it is made from" if is_one_of(written, inputs) else ""
        if is_one_of(written, [model]):
            taken = "the model"
        elif is_one_of(written, [sidecar]) or _name(written) == _name(sidecar):  # also of one that is not there
            taken = "the model's sidecar"
        if taken:
            raise ResultError(f"{written}: is the name of {taken}, needed another one for the table")


def _name(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _infer(blocks: Generator[Rows], writer: ResultWriter, counts: _Counts) -> None:
    """Write the rows as they come; an error also says where those are that have come."""
    try:
        with closing(blocks):
            for rows in blocks:
                writer.write(rows)
                counts.add(rows)
    except AnnaError as error:
        raise AnnaError(f"{error}{writer.kept}") from error


def _explain(
    inference: Inference, parts: Sequence[Part], directory: str, most: int, progress: Progress, output: str | None
) -> str:
    """Draw the pictures and say what became of them; an error also says that the table does not lack anything."""
    from anna_onnx.explanation import explain_parts

    complete = f"the table{f' {output}' if output else ''} is complete, pictures in {directory} are not"
    try:
        return explain_parts(inference, parts, directory, most, progress).text
    except KeyboardInterrupt:
        raise AnnaError(f"interrupted; {complete}") from None
    except AnnaError as error:
        raise AnnaError(f"{error}; {complete}") from error


def cut(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Cut the work into shards of a few hundred files or ten thousand rows."""
    shard: list[Part] = []
    for part in parts:
        n = count_rows(part.file)
        if n is None or n <= SHARD_ROWS:
            shard.append(part)
            if len(shard) < SHARD_FILES and n is None:
                continue
        if shard:
            yield shard
            shard = []
        if n is not None and n > SHARD_ROWS:
            yield from ([replace(part, first=a, last=min(a + SHARD_ROWS, n))] for a in range(part.first, n, SHARD_ROWS))
    if shard:
        yield shard


def _run(inference: Inference, parts: Sequence[Part], processes: int, scheduler: str | None) -> Generator[Rows]:
    """Infer parts of files where it is quickest."""
    bundle, options = inference.bundle, inference.options
    if scheduler is not None:
        from anna_onnx.cluster import run_on_cluster

        yield from run_on_cluster(scheduler, bundle, options, cut(parts))
        return
    if processes > 1:
        yield from run_in_processes(bundle, options, cut(parts), processes)
        return
    here = _Here(parts, 1 if processes == 1 else usable_cores())
    yield from inference.run(here.blocks(options.read))
    if here.left:
        yield from run_in_processes(bundle, options, cut(here.left), usable_cores())


class _Here:
    """Files to be read by this process: all, or the first few if several processes would be quicker with the others.

    Threads hide the inference behind the reading, but only processes share the reading.

    Parameters
    ----------
    parts : sequence of Part
    n : int
        Processes that there may be.

    Attributes
    ----------
    left : sequence of Part
        What is better left to several processes; known when the blocks have come to their end.
    """

    def __init__(self, parts: Sequence[Part], n: int) -> None:
        self._parts, self._n = parts, n
        self._seconds = self._began = 0.0
        self.left: Sequence[Part] = ()

    def blocks(self, options: ReadOptions) -> Iterator[Block | Failure]:
        """Read the files, and measure how long that takes."""
        blocks = read_blocks(self._taken(), options)
        while True:
            self._began = time.thread_time()
            block = next(blocks, None)
            self._seconds += time.thread_time() - self._began
            if block is None:
                return
            yield block

    def _taken(self) -> Iterator[Part]:
        yield from self._parts[:TRIAL_FILES]
        others = self._parts[TRIAL_FILES:]
        seconds = self._seconds + time.thread_time() - self._began
        if seconds / TRIAL_FILES * len(others) * (1 - 1 / self._n) > 2 * STARTING:
            self.left = others
        else:
            yield from others


def _not_done(parts: Sequence[Part], done: Iterable[Done]) -> list[Part]:
    """Return what an interrupted run left to do.

    The rows of a file stand together in the order of the files, so only
    the last file of the table may have been left in the middle.
    """
    names = [printable(part.file) for part in parts]  # as the table has them
    n_file = n_row = 0  # files begun, and rows of the last of them
    name, ended = "", False
    first: tuple[int | None, int | None] = (-1, -1)
    for row in done:
        place = (row.hdu, row.row)
        # The same file named twice begins anew with its first row, or when nothing more could come of it.
        again = place == first or (ended and names[n_file : n_file + 1] == [name])
        if n_file == 0 or row.file != name or again:
            if names[n_file : n_file + 1] != [row.file]:
                raise ResultError(
                    f"the interrupted run went on with {row.file}: resume with the same files, in the same order"
                )
            n_file, n_row = n_file + 1, 0
            name, first = row.file, place
        n_row += 1
        ended = row.ends_file
    left = list(parts[n_file:])
    return left if ended or n_file == 0 else [replace(parts[n_file - 1], first=n_row), *left]


class _Counts:
    """Count rows and report how far a run has come."""

    def __init__(self, progress: Progress, n_file: int) -> None:
        self._progress, self._n_file = progress, n_file
        self._rows = self._files = self.failed = self.flagged = 0
        self._file: str | None = None

    def passing(self, done: Iterable[Done]) -> Iterator[Done]:
        """Count the rows of an interrupted run as they go by."""
        for row in done:
            self._begin(row.file)
            self._rows += 1
            self.failed += bool(row.flags & UNUSABLE)
            self.flagged += row.flags > 0
            yield row

    def add(self, rows: Rows) -> None:
        """Count the rows of a block."""
        for name in dict.fromkeys(rows.file):
            self._begin(name)
        self._rows += len(rows)
        self.failed += int(((rows.flags & UNUSABLE) > 0).sum())
        self.flagged += int((rows.flags > 0).sum())
        self._progress(min(self._files, self._n_file), self._n_file, f"{self._rows} spectra")

    def _begin(self, file: str) -> None:
        self._files += file != self._file
        self._file = file


def _velocity(text: str | None) -> RadialVelocity | None:
    try:
        return None if text is None else parse_velocity(text)
    except ValueError:
        raise AnnaError(f"--rv {text}: needed a number in km/s, header or auto") from None
