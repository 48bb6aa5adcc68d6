"""Text: columns with or without a header, CSV, ECSV, IRAF's wtextimage, Libre-Esprit's .s files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.files import Content
from anna_onnx.spectrum import Source, Spectrum

from . import espadons, gaia
from .assembly import Readings, Unread
from .columns import NO_FLUX, Column, find_wavelength, understand
from .facts import Facts, from_headers, iraf_medium, spoken_medium
from .fits import CARD, Header
from .options import ReadOptions
from .tables import read_columns
from .units import angstroms_per

MAX_TEXT = 32 << 20
MAX_LINE = 2000  # characters of a header line that are looked at
MAX_HEADER_LINES = 5000
LONGEST_ROW, MOST_LINES = 100, 5  # of a table: a few lines with more numbers are columns
ERROR_TO_FLUX = (1e-5, 3.0)  # of the best and worst spectra; normalised flux, S/N or a raw flux are farther apart
LONG_RANGE, SAME_FLUX = 1.1, 1.05  # of wavelengths; and of what is constant but for rounding
_COMMENT = re.compile(r"^\s*(#|%|;|!|\\|//|\*|@)+\s?")
_STATED = re.compile(r"^\W*(object|target|star|name)\s*[=:]\s*(.+?)\s*$", re.I)
_MEDIUM = re.compile(r"wav|lambda|medium|air.*vac", re.I)
_OTHER_AXIS = re.compile(
    r"vel(ocity|o)?\b|\bv_?(lsr|rad|hel\w*)\b|km/s|freq\w*|[kMGT]?Hz\b|pixel|channel"
    r"|wave_?num\w*|\bcm\^?-1|\b(time|date|phase|epoch|[a-z]*jd)\b",
    re.I,
)
_UNIT = re.compile(r"\b(?:wav\w*|lambda)\W{0,3}(?:in\s+)?(angstroms?|[nu]m|nanomet\w+|microns?|[µμ]m)\b", re.I)
_NUMBERED = re.compile(r"^\W*(?:col(?:umn)?\W?)?(\d{1,3})(?=\W)\s*+[:.)=-]?\s*+([a-z]\w*+)\s*+(?:[\[(]\s*(\w+))?", re.I)
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
_FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[+-]\d)")  # 1.5D-03
_TYPES = {"double", "float", "real", "int", "integer", "long", "short", "char", "date", "string", ""}
_MAGNITUDE = re.compile("(^|_)(ab|st|vega)?_?mag(nitude)?s?(_|$)")
_PROSE = {"and", "are", "as", "at", "by", "for", "from", "in", "is", "of", "on", "the", "to", "was", "with"}
_PROSE |= {"air", "corrected", "vac", "vacuum"}  # no names either
_MISSING = ("", "nan", "null", "none", "indef", "--", "---", "n/a", "na", "masked", '""')
_WORDS = dict.fromkeys(_MISSING, np.nan) | {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class _Layout:
    """Where the numbers are.

    Attributes
    ----------
    head : list of str
        The lines before the first number.
    body : list of str
    delimiter : str or None
        None for blanks.
    n_column : int
    words : frozenset of int
        Columns, from 0, that hold words.
    notes : tuple of str
    """

    head: list[str]
    body: list[str]
    delimiter: str | None
    n_column: int
    words: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def read(path: str, data: Content, options: ReadOptions) -> Readings:
    """Read a text file.

    Raises
    ------
    NoWavelengthError, ReadError
        If it is no text, or its columns are not understood.
    """
    if gaia.is_bulk(data):
        return gaia.read_bulk(path, data, options)
    text = _decode(path, data)
    if text.startswith("# %ECSV"):
        from . import votable

        return votable.read_ecsv(path, text, options)
    if any(exponent in text for exponent in ("D+", "D-", "d+", "d-")):
        text = _FORTRAN.sub("e", text)
    layout = _find_numbers(path, text.splitlines())
    numbers, notes = _numbers(path, layout)
    if len(numbers) > LONGEST_ROW and len(numbers[0]) <= MOST_LINES and not layout.words:
        numbers, layout = list(np.array(numbers).T), replace(layout, head=[], n_column=len(numbers[0]))
        notes = (*notes, "each column in a line of its own")
    if _is_libre_esprit(layout, numbers) and options.columns is None:
        return _libre_esprit(path, layout, numbers, options)
    cards = _cards(layout.head)
    columns, more = _columns(path, layout, numbers, options) if cards is None else _by_position(layout, numbers)
    facts = (from_headers(cards) if cards else _comments(layout.head)).noted(*layout.notes, *notes, *more)
    spectra = read_columns(columns, facts, path, None, options)
    if cards is None or "WAT0_001" not in cards or options.medium is not None:
        return spectra
    return (item if isinstance(item, Unread) else _iraf(item) for item in spectra)


def _iraf(spectrum: Spectrum) -> Spectrum:
    known = iraf_medium(Facts(spectrum.medium, notes=spectrum.notes), spectrum.wavelength)
    return replace(spectrum, medium=known.medium, notes=known.notes)


def _decode(path: str, data: Content) -> str:
    if b"\0" in data[:65536]:
        raise ReadError(f"{path}: not a format that is read; begins with {bytes(data[:12])!r}")
    if len(data) > MAX_TEXT:
        raise ReadError(f"{path}: {len(data) >> 20} MB of text, more than {MAX_TEXT >> 20} MB")
    raw = bytes(data).removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _find_numbers(path: str, lines: list[str]) -> _Layout:
    """Find the first of the lines of numbers, with decimal commas or words among them if need be."""
    if layout := _first_rows(lines, _shape):
        return layout
    if layout := _first_rows(lines, _shape_with_commas):
        points = [_DECIMAL_COMMA.sub(".", line) for line in layout.body]
        return replace(layout, body=points, notes=("commas in numbers taken as decimal points",))
    if layout := _first_rows(lines, _shape_with_words):
        return layout
    if sum(_is_number(line.strip()) for line in lines[:1000]) > 1:
        raise NoWavelengthError(f"{path}: one column of numbers, needed wavelength and flux")
    if any(_shape(line)[1] and not _COMMENT.match(line) for line in lines[:1000]):
        raise ReadError(f"{path}: no two lines of as many numbers after one another, needed one a pixel")
    shown = next((line for line in lines if line.strip()), "")[:60]
    raise ReadError(f"{path}: no columns of numbers found; the text begins with {shown!r}")


def _first_rows(lines: list[str], shape: Callable[[str], tuple[str | None, int, frozenset[int]]]) -> _Layout | None:
    """Find the first two lines in a row with as many columns."""
    previous: tuple[int, str | None, int] = (-1, None, 0)
    words_above: frozenset[int] = frozenset()
    for i, line in enumerate(lines[:MAX_HEADER_LINES]):
        delimiter, n_column, words = shape(line)
        if n_column >= 2 and not _COMMENT.match(line):
            if previous == (i - 1, delimiter, n_column):
                body = [s for s in lines[i - 1 :] if s.strip()]
                return _Layout(lines[: i - 1], body, delimiter, n_column, words | words_above)
            previous, words_above = (i, delimiter, n_column), words
    return None


def _shape(line: str) -> tuple[str | None, int, frozenset[int]]:
    """Return the delimiter and the number of columns of a line of numbers, 0 if it is none; no column holds words."""
    for delimiter in (None, ",", ";", "|"):
        if delimiter is None and ("," in line or ";" in line or "|" in line):
            continue
        fields = _split(line, delimiter)
        if len(fields) >= 2 and _is_number(fields[0]) and all(map(_is_cell, fields)):
            return delimiter, len(fields), frozenset()
    return None, 0, frozenset()


def _shape_with_commas(line: str) -> tuple[str | None, int, frozenset[int]]:
    """Return the same of a line of numbers with decimal commas, parted by blanks, tabs or semicolons."""
    points = _DECIMAL_COMMA.sub(".", line)
    return (None, 0, frozenset()) if points == line or "." in line or "," in points else _shape(points)


def _shape_with_words(line: str) -> tuple[str | None, int, frozenset[int]]:
    """Return the same of a line of which two columns or more hold numbers, and which columns hold words."""
    delimiter = next((mark for mark in (",", ";", "|") if mark in line), None)
    fields = _split(line, delimiter)
    if len(fields) > LONGEST_ROW or sum(map(_is_number, fields)) < 2:
        return None, 0, frozenset()
    return delimiter, len(fields), frozenset(i for i, field in enumerate(fields) if not _is_cell(field))


def _is_cell(field: str) -> bool:
    """Return whether a field is a number, or a word that stands for one."""
    return _is_number(field) or field.lower() in _WORDS


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    fields = [field.strip().strip("\"'") for field in line.strip().split(delimiter)]
    if delimiter == "|" and len(fields) > 2:
        fields = fields[not fields[0] : len(fields) - (not fields[-1])]
    return fields


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(path: str, layout: _Layout) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Return the columns, of float64 but where there are words, and notes."""
    with suppress(ValueError):
        table = np.loadtxt(layout.body, delimiter=layout.delimiter, ndmin=2, comments=None, dtype=np.float64)
        return list(table.T), ()
    rows = [_row(line, layout) for line in layout.body if not _COMMENT.match(line)]
    good = [row for row in rows if row is not None]
    if len(good) < 2 or len(good) < 0.9 * len(rows):
        raise ReadError(f"{path}: {len(rows) - len(good)} of {len(rows)} lines are not {layout.n_column} numbers")
    lost = len(rows) - len(good)
    columns = [np.array(cells) for cells in zip(*good, strict=True)]
    return columns, (f"{lost} lines that are no numbers left out",) if lost else ()


def _row(line: str, layout: _Layout) -> list[float | str] | None:
    fields = _split(line, layout.delimiter)
    if len(fields) != layout.n_column:
        return None
    try:
        return [field if i in layout.words else _number(field) for i, field in enumerate(fields)]
    except ValueError:
        return None


def _number(field: str) -> float:
    return _WORDS[field.lower()] if field.lower() in _WORDS else float(field)


def _cards(head: Sequence[str]) -> Header | None:
    """Return the FITS cards that IRAF's wtextimage writes before the numbers, or None."""
    cards = [line[:CARD].ljust(CARD) for line in head if line[8:9] == "="]
    return Header("".join(cards)) if len(cards) > 3 and any(line.strip() == "END" for line in head) else None


def _comments(head: Sequence[str]) -> Facts:
    """Return what comment lines state."""
    facts = Facts()
    for line in (whole[:MAX_LINE] for whole in head[:200]):
        if stated := _STATED.match(_COMMENT.sub("", line)):
            facts = facts.known(id=stated[2][:80])
        if _MEDIUM.search(line) and (medium := spoken_medium(line)) in ("air", "vacuum"):
            facts = facts.known(medium=medium).noted(f"medium {medium}, from the comment '{line.strip()[:60]}'")
    return facts


def _columns(
    path: str, layout: _Layout, numbers: Sequence[NDArray[Any]], options: ReadOptions
) -> tuple[list[Column], tuple[str, ...]]:
    """Return the columns, named by the header or else by position, and notes.

    Of the header lines with a word for each column the last one counts from
    which the columns are understood, or else the last one that names the wavelengths.

    Raises
    ------
    NoWavelengthError, ReadError
        If the line above the numbers names something other than wavelengths,
        or there are words and no such line.
    """
    lines = [_header_fields(line[:MAX_LINE], layout) for line in layout.head[-20:]]
    wordy = [fields for fields in lines if fields and not all(field.lower() in _TYPES for field in fields)]
    headers = [(names, _units(below)) for below, names in zip([None, *wordy[::-1]], wordy[::-1], strict=False)]
    partly: tuple[list[Column], tuple[str, ...]] | None = None
    for names, units in (*_numbered(layout), *headers):
        columns = _named(names, units, numbers)
        if options.columns is not None:
            return columns, ()
        try:
            understand(columns, path)
        except ReadError as error:
            if _OTHER_AXIS.search(" ".join(names)):
                raise NoWavelengthError(f"{path}: columns {', '.join(names)}: needed wavelengths") from error
            partly = partly or _flux_beside_wavelengths(path, columns, layout)
        else:
            return columns, ()
    if partly is not None:
        return partly
    first = _COMMENT.sub("", layout.head[-1][:MAX_LINE]).split()[:1] if layout.head else []
    if first and _OTHER_AXIS.match(first[0]) and not set(layout.head[-1]) & set("=:"):
        raise NoWavelengthError(f"{path}: columns '{layout.head[-1].strip()[:60]}': needed wavelengths")
    if layout.words and options.columns is None:
        named = f"columns {', '.join(wordy[-1])}" if wordy else f"{layout.n_column} columns without names"
        raise ReadError(f"{path}: {named}, some of words: no wavelength and flux among them; say which with columns")
    below = [units[0] for _, units in headers if units and _is_unit(units[0])]
    said = [found[1] for line in layout.head[-200:] if (found := _UNIT.search(line[:MAX_LINE]))]
    columns, notes = _by_position(layout, numbers, (*below, *said, "")[0])
    return columns, notes if options.columns is None else ()


def _flux_beside_wavelengths(
    path: str, columns: list[Column], layout: _Layout
) -> tuple[list[Column], tuple[str, ...]] | None:
    """Return columns of which only the wavelength has a known name, with the next one that may be it as flux, or None.

    Raises
    ------
    ReadError
        If none may be it, or these are magnitudes.
    """
    wavelength, _ = find_wavelength(columns)
    if wavelength is None or layout.words or any(column.name.lower() in _PROSE for column in columns):
        return None
    at = columns.index(wavelength)
    if at > 0 and not _is_monotonic(wavelength.load()):
        return None
    flux = next((column for column in (*columns[at + 1 :], *columns[:at]) if column.key not in NO_FLUX), None)
    if flux is None:
        named = ", ".join(column.name for column in columns)
        raise ReadError(f"{path}: columns {named}: no flux among them; say which with columns")
    if _MAGNITUDE.search(flux.key):
        raise ReadError(f"{path}: column {flux.name} holds magnitudes, needed fluxes")
    renamed = [replace(column, name="flux") if column is flux else column for column in columns]
    roles = understand(renamed, path)
    used = (roles.wavelength, roles.flux, roles.error, roles.mask)
    unused = [column.name for column in renamed if column not in used]
    left_out = f"; left out: {', '.join(unused)}" if unused else ""
    return renamed, (f"column {flux.name} taken as flux{left_out}",)


def _is_monotonic(values: FloatArray) -> bool:
    step = np.diff(values)
    return bool((step > 0).all() or (step < 0).all())


def _header_fields(line: str, layout: _Layout) -> list[str]:
    """Return the words of a header line, one a column, parted as in IPAC tables, by tabs, or as the numbers are."""
    bare = _COMMENT.sub("", line)
    for delimiter in ("|", "\t", layout.delimiter):
        fields = _split(bare, delimiter)
        if len(fields) == layout.n_column and not all(map(_is_number, fields)):
            return fields
    return []


def _numbered(layout: _Layout) -> list[tuple[list[str], list[str]]]:
    """Return the names and units that lines such as ``# Column 1: wavelength (nm)`` give to all columns."""
    found = [match for line in layout.head[-200:] if (match := _NUMBERED.match(line[:MAX_LINE]))]
    named = {int(match[1]): (match[2], match[3] or "") for match in found}
    if sorted(named) != list(range(1, layout.n_column + 1)):
        return []
    names, units = zip(*(named[i] for i in sorted(named)), strict=True)
    return [(list(names), [unit if _is_unit(unit) or _OTHER_AXIS.search(unit) else "" for unit in units])]


def _named(names: Sequence[str], units: Sequence[str], numbers: Sequence[NDArray[Any]]) -> list[Column]:
    return [
        Column(name, values.size, partial(np.asarray, values), unit)
        for name, unit, values in zip(names, units or [""] * len(names), numbers, strict=True)
    ]


def _by_position(
    layout: _Layout, numbers: Sequence[NDArray[Any]], unit: str = ""
) -> tuple[list[Column], tuple[str, ...]]:
    """Return wavelength, flux, and, when it can be one, error; and notes."""
    names = ["wavelength", "flux", *(f"column{i}" for i in range(3, layout.n_column + 1))]
    notes: tuple[str, ...] = ()
    if layout.n_column > 2 and not layout.words and _may_be_error(*numbers[2::-1]):
        names[2], notes = "error", ("third column taken as error",)
    if unused := [name.removeprefix("column") for name in names if name.startswith("column")]:
        notes = (*notes, f"left out, without a name: column {', '.join(unused)}")
    return _named(names, [unit, *[""] * (layout.n_column - 1)], numbers), notes


def _may_be_error(values: FloatArray, flux: FloatArray, wavelength: FloatArray) -> bool:
    """Return whether numbers beside a flux may be its error.

    They are not negative, no flags or counts, of a likely size, and not the same flux for a unit of frequency.
    """
    known, seen = values[np.isfinite(values)], np.abs(flux[np.isfinite(flux)])
    if not known.size or not seen.size or known.min() < 0 or np.array_equal(known, np.rint(known)):
        return False
    if _is_per_hertz(values, flux, wavelength):
        return False
    lowest, highest = ERROR_TO_FLUX
    return bool(lowest * np.median(seen) <= np.median(known) <= highest * np.median(seen))


def _is_per_hertz(values: FloatArray, flux: FloatArray, wavelength: FloatArray) -> bool:
    """Return whether numbers go as flux times wavelength squared: they are the same flux, for a unit of frequency."""
    usable = np.isfinite(values) & (flux > 0) & (wavelength > 0)
    if usable.sum() < 10 or wavelength[usable].max() < LONG_RANGE * wavelength[usable].min():
        return False
    low, high = np.quantile(values[usable] / flux[usable] / wavelength[usable] ** 2, (0.1, 0.9))
    return bool(high < SAME_FLUX * low)


def _units(fields: Sequence[str] | None) -> list[str]:
    """Return the units in a line below the names, if they are units."""
    return [unit.strip("()[]") for unit in fields] if fields and any(map(_is_unit, fields)) else []


def _is_unit(text: str) -> bool:
    try:
        angstroms_per(text, "")
    except ReadError:
        return False
    return True


def _is_libre_esprit(layout: _Layout, numbers: Sequence[NDArray[Any]]) -> bool:
    """Return whether the first line is one of stars and the first column can be wavelengths of such a file."""
    stars = bool(layout.head) and layout.head[0].startswith("***") and not layout.words
    return stars and layout.n_column > 1 and espadons.in_range(numbers[0])


def _libre_esprit(path: str, layout: _Layout, numbers: Sequence[NDArray[Any]], options: ReadOptions) -> Readings:
    """Read the .s files of ESPaDOnS and NARVAL: nm, intensity, (Stokes V, N1, N2,) error."""
    name = layout.head[0].strip("* \t\r").removeprefix("Reduced spectrum of").strip(" '\"")
    sigma = numbers[-1] if layout.n_column > 2 else None
    return espadons.orders(numbers[0], numbers[1], sigma, Facts(id=name), Source(path), options)
