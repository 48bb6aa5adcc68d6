"""FITS by hand: headers, images and binary tables, without astropy.

A spectrum in the usual forms needs no more than this, and it costs a
hundredth of the time of ``astropy.io.fits``. What is unusual (compressed
images and tables, ASCII tables, odd headers) is opened with astropy and
comes out as the same objects.

References
----------
FITS Standard 4.0, https://fits.gsfc.nasa.gov/fits_standard.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.errors import ReadError

from .columns import Column
from .facts import finite

BLOCK = 2880
CARD = 80
MAX_HEADER = 16_000_000
MAX_HDUS = 10_000
_END = b"END" + b" " * 77
_PIXEL = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_FORMAT = re.compile(r"^\s*(\d*)([LXBIJKAEDCMPQ])")
_FIELD = {"L": "u1", "X": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S1"}
_SIZE = {"L": 1, "X": 0, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


class Unusual(Exception):  # noqa: N818  # a signal between this module's two ways, not an error of the user
    """The file needs astropy."""


class Header:
    """The cards of a header; a value is parsed when it is asked for.

    Parameters
    ----------
    text : str
        Cards of 80 characters.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        # From the last to the first: the first of several equal keywords counts.
        self._at = {text[i : i + 8].rstrip(): i for i in range(len(text) - len(text) % CARD - CARD, -1, -CARD)}
        self._hierarch: dict[str, int] | None = None

    def __contains__(self, key: str) -> bool:
        return self._offset(key) is not None

    def keys(self) -> list[str]:
        """Return the short keywords."""
        return list(self._at)

    def get(self, key: str) -> bool | int | float | str | None:
        """Return the value of a keyword, None when it is absent or has none."""
        at = self._offset(key)
        if at is None:
            return None
        value = self._value_field(at)
        if value[:1] == "'":
            return self._string(at, value).rstrip()
        return _number(value.split("/", 1)[0].strip())

    def stated(self, keys: Set[str]) -> dict[str, Any]:
        """Return the values of those of `keys` that the header has."""
        present = self._at.keys() & keys
        if "HIERARCH" in self._at:
            present |= {key for key in keys if len(key) > 8 and key in self}
        return {key: self.get(key) for key in present}

    def number(self, key: str) -> float | None:
        """Return a finite number, also one written as text, or None."""
        return finite(self.get(key))

    def integer(self, key: str) -> int | None:
        """Return an integer, or None."""
        number = self.number(key)
        return int(number) if number is not None and number == int(number) else None

    def text(self, key: str) -> str:
        """Return a string without surrounding blanks, empty when there is none."""
        value = self.get(key)
        if value is None:
            return ""
        return value.strip() if isinstance(value, str) else str(value)

    def raw(self, key: str) -> str:
        """Return a string with its trailing blanks, which count in IRAF's WAT cards."""
        at = self._offset(key)
        value = "" if at is None else self._value_field(at)
        return self._string(at, value) if at is not None and value.startswith("'") else ""

    def _offset(self, key: str) -> int | None:
        at = self._at.get(key)
        if at is not None or (len(key) <= 8 and " " not in key):
            return at
        if self._hierarch is None:
            self._hierarch = dict(self._hierarch_cards()) if "HIERARCH" in self._at else {}
        return self._hierarch.get(key)

    def _hierarch_cards(self) -> Iterator[tuple[str, int]]:
        for i in range(0, len(self._text), CARD):
            if self._text.startswith("HIERARCH ", i):
                key, equals, _ = self._text[i + 9 : i + CARD].partition("=")
                if equals:
                    yield key.strip(), i

    def _value_field(self, at: int) -> str:
        card = self._text[at : at + CARD]
        if card[8:9] == "=":
            return card[9:].strip()
        return card.partition("=")[2].strip() if card.startswith("HIERARCH ") else ""

    def _string(self, at: int, field: str) -> str:
        """Return a quoted string, with its CONTINUE cards."""
        value = _unquote(field)
        while value.rstrip().endswith("&") and self._text.startswith("CONTINUE", at + CARD):
            at += CARD
            value = value.rstrip()[:-1] + _unquote(self._text[at + 8 : at + CARD].strip())
        return value


def _unquote(field: str) -> str:
    """Return what stands between quotes; a doubled quote is a quote."""
    end = 1
    while (end := field.find("'", end)) >= 0:
        if field[end + 1 : end + 2] != "'":
            return field[1:end].replace("''", "'")
        end += 2
    return field[1:]


def _number(token: str) -> bool | int | float | str | None:
    if token in ("T", "F"):
        return token == "T"
    try:
        return int(token) if len(token) < 20 else float(token)
    except ValueError:
        pass
    try:
        return float(token.replace("D", "E").replace("d", "e"))
    except ValueError:
        return token or None


@dataclass(frozen=True, eq=False)
class Hdu:
    """One header and data unit.

    Attributes
    ----------
    index : int
        Counted from 0.
    header : Header
    shape : tuple of int
        Of the image, slowest axis first; empty for a table.
    columns : tuple of Column
        Of the table; empty for an image.
    """

    index: int
    header: Header
    shape: tuple[int, ...]
    columns: tuple[Column, ...]
    load: Callable[[], NDArray[Any]]

    @property
    def name(self) -> str:
        """The EXTNAME, upper case."""
        return self.header.text("EXTNAME").upper()

    @property
    def is_table(self) -> bool:
        """Whether it is a table."""
        return bool(self.columns)

    @property
    def size(self) -> int:
        """Number of pixels of the image."""
        return math.prod(self.shape) if self.shape else 0

    def image(self) -> NDArray[Any]:
        """Return the pixels, scaled, blanks as NaN."""
        return self.load()

    def column(self, *names: str) -> Column | None:
        """Return the first column with one of these names, in any case."""
        for name in names:
            for column in self.columns:
                if column.name.upper() == name.upper():
                    return column
        return None


@dataclass(frozen=True, eq=False)
class FitsFile:
    """The HDUs of a file.

    Attributes
    ----------
    path : str
        For messages and `Spectrum.source`.
    hdus : list of Hdu
    """

    path: str
    hdus: list[Hdu]

    @property
    def primary(self) -> Hdu:
        """The first HDU."""
        return self.hdus[0]

    def named(self, *names: str) -> Hdu | None:
        """Return the first HDU with one of these EXTNAMEs."""
        return next((hdu for name in names for hdu in self.hdus if hdu.name == name), None)

    def select(self, hdu: int | str) -> Hdu:
        """Return the HDU that the user asks for.

        Raises
        ------
        ReadError
            If there is none.
        """
        if isinstance(hdu, int) and 0 <= hdu < len(self.hdus):
            return self.hdus[hdu]
        if isinstance(hdu, str) and (found := self.named(hdu.upper())):
            return found
        raise ReadError(f"{self.path}: no HDU {hdu}; it has {self.describe()}")

    def describe(self) -> str:
        """Return one line on what the file holds."""
        return "; ".join(_describe(hdu) for hdu in self.hdus[:8]) + ("; ..." if len(self.hdus) > 8 else "")


def _describe(hdu: Hdu) -> str:
    name = f" {hdu.name}" if hdu.name else ""
    if hdu.is_table:
        shown = ", ".join(column.name for column in hdu.columns[:6]) + (", ..." if len(hdu.columns) > 6 else "")
        return f"HDU {hdu.index}{name}: a table of {shown}"
    if hdu.shape:
        return f"HDU {hdu.index}{name}: an image of {' x '.join(map(str, hdu.shape))}"
    return f"HDU {hdu.index}{name}: no data"


def open_fits(path: str, data: Any) -> FitsFile:
    """Return the HDUs of a FITS file.

    Parameters
    ----------
    path : str
        For messages.
    data : bytes or mmap
        The file.

    Raises
    ------
    ReadError
        If it is not readable as FITS.
    """
    try:
        return FitsFile(path, list(scan(data, path)))
    except Unusual:
        return FitsFile(path, scan_with_astropy(data, path))


def scan(data: Any, path: str) -> Iterator[Hdu]:
    """Read the headers by hand.

    Raises
    ------
    Unusual
        If astropy should try.
    """
    position = 0
    for index in range(MAX_HDUS):
        if index and data[position : position + 8] != b"XTENSION":
            return  # the end, or something after it that is no HDU
        header, start = _header(data, position)
        shape = _shape(header)
        gcount, pcount = (header.integer("GCOUNT"), header.integer("PCOUNT")) if index else (1, 0)
        bitpix = header.integer("BITPIX")
        if bitpix not in _PIXEL or header.get("ZIMAGE") is True or header.get("ZTABLE") is True:
            raise Unusual
        if min(gcount or 0, pcount or 0) < 0 or header.get("GROUPS") is True:
            raise Unusual
        n_bytes = (
            abs(bitpix) // 8 * (1 if gcount is None else gcount) * ((pcount or 0) + (math.prod(shape) if shape else 0))
        )
        extension = header.text("XTENSION") if index else "IMAGE"
        if extension == "BINTABLE":
            yield _table(index, header, data, start, path)
        elif extension in ("IMAGE", "IUEIMAGE"):
            yield _image(index, header, shape, data, start, path)
        else:
            raise Unusual
        position = start + -(-n_bytes // BLOCK) * BLOCK
        if position >= len(data):
            return


def _header(data: Any, start: int) -> tuple[Header, int]:
    """Return the header at `start`, and where its data begin."""
    end = start - 1
    while (end := data.find(_END, end + 1, start + MAX_HEADER)) >= 0:
        if (end - start) % CARD == 0:
            break
    if end < 0:
        raise Unusual
    text = data[start:end].decode("latin-1")
    return Header(text), start + -(-(end + CARD - start) // BLOCK) * BLOCK


def _shape(header: Header) -> tuple[int, ...]:
    naxis = header.integer("NAXIS")
    if naxis is None or not 0 <= naxis <= 999:
        raise Unusual
    axes = [header.integer(f"NAXIS{i}") for i in range(naxis, 0, -1)]
    if any(n is None or n < 0 for n in axes):
        raise Unusual
    return tuple(axes)  # type: ignore[arg-type]  # none of them is None


def _image(index: int, header: Header, shape: tuple[int, ...], data: Any, start: int, path: str) -> Hdu:
    def load() -> NDArray[Any]:
        kind = np.dtype(_PIXEL[header.integer("BITPIX") or 0])
        n = math.prod(shape)
        if start + n * kind.itemsize > len(data):
            raise ReadError(f"{path}[{index}]: cut short, {len(data) - start} bytes of {n * kind.itemsize}")
        return _scale(header, np.frombuffer(data, kind, n, start).reshape(shape))

    return Hdu(index, header, shape, (), load)


def _scale(header: Header, pixels: NDArray[Any]) -> NDArray[Any]:
    """Apply BSCALE, BZERO and BLANK."""
    scale, zero = header.number("BSCALE"), header.number("BZERO")
    blank = header.integer("BLANK") if pixels.dtype.kind in "iu" else None
    if scale in (None, 1.0) and zero in (None, 0.0) and blank is None:
        return pixels
    scaled = pixels * (1.0 if scale is None else scale) + (0.0 if zero is None else zero)
    return scaled if blank is None else np.where(pixels == blank, np.nan, scaled)


def _table(index: int, header: Header, data: Any, start: int, path: str) -> Hdu:
    width, n_row = header.integer("NAXIS1"), header.integer("NAXIS2")
    n_field = header.integer("TFIELDS")
    if header.integer("NAXIS") != 2 or width is None or n_row is None or n_field is None or not 0 < n_field <= 999:
        raise Unusual
    columns, offset = [], 0
    for i in range(1, n_field + 1):
        found = _FORMAT.match(header.text(f"TFORM{i}"))
        if not found:
            raise Unusual
        repeat, code = int(found[1] or 1), found[2]
        load = _column_loader(header, i, data, start, (n_row, width, offset, repeat, code), f"{path}[{index}]")
        columns.append(
            Column(
                header.text(f"TTYPE{i}") or f"col{i}",
                header.text(f"TUNIT{i}"),
                header.text(f"TUCD{i}"),
                header.text(f"TUTYP{i}"),
                n_row,
                load,
            )
        )
        offset += -(-repeat // 8) if code == "X" else repeat * _SIZE[code]
    if offset > width:
        raise Unusual
    return Hdu(index, header, (), tuple(columns), lambda: np.empty(0))


def _column_loader(
    header: Header, i: int, data: Any, start: int, layout: tuple[int, int, int, int, str], where: str
) -> Callable[[], Any]:
    n_row, width, offset, repeat, code = layout

    def load() -> Any:
        if start + n_row * width > len(data):
            raise ReadError(f"{where}: cut short, {len(data) - start} bytes of {n_row * width}")
        if code in "PQ":
            return _variable_cells(header, i, data, start, layout, where)
        if code == "A":
            text = np.ndarray((n_row,), f"S{max(repeat, 1)}", data, start + offset, (width,))
            return np.char.decode(text, "latin-1") if repeat else np.full(n_row, "")
        if code not in _FIELD or code == "X":
            raise ReadError(f"{where}: column {i} of type '{code}', needed numbers")
        kind = np.dtype(_FIELD[code])
        cells = np.ndarray((n_row, repeat), kind, data, start + offset, (width, kind.itemsize))
        return _scale_column(header, i, code, cells[:, 0] if repeat == 1 else cells)

    return load


def _scale_column(header: Header, i: int, code: str, cells: NDArray[Any]) -> NDArray[Any]:
    """Apply TSCAL, TZERO and TNULL."""
    if code == "L":
        return np.asarray(cells == ord("T"))
    scale, zero = header.number(f"TSCAL{i}"), header.number(f"TZERO{i}")
    null = header.integer(f"TNULL{i}") if cells.dtype.kind in "iu" else None
    if scale in (None, 1.0) and zero in (None, 0.0) and null is None:
        return cells
    if code in "BIJK" and scale in (None, 1.0) and null is None and zero == int(zero or 0):
        return (
            cells.astype(np.int64) + int(zero or 0)
            if abs(zero or 0) < 2**62
            else cells.astype(np.float64) + (zero or 0)
        )
    scaled = cells * (1.0 if scale is None else scale) + (0.0 if zero is None else zero)
    return scaled if null is None else np.where(cells == null, np.nan, scaled)


def _variable_cells(
    header: Header, i: int, data: Any, start: int, layout: tuple[int, int, int, int, str], where: str
) -> list[NDArray[Any]]:
    """Return the arrays of a variable-length column, from the heap."""
    n_row, width, offset, repeat, code = layout
    found = re.match(r"^\s*\d*[PQ]([A-Z])", header.text(f"TFORM{i}"))
    if not found or found[1] not in _FIELD or found[1] in "XA" or repeat != 1:
        raise ReadError(f"{where}: column {i} of type '{header.text(f'TFORM{i}')}', needed numbers")
    kind = np.dtype(_FIELD[found[1]])
    pointers = np.ndarray(
        (n_row, 2), ">i4" if code == "P" else ">i8", data, start + offset, (width, 4 if code == "P" else 8)
    )
    heap = start + (header.integer("THEAP") or n_row * width)
    cells = []
    for n, at in pointers.tolist():
        if n < 0 or at < 0 or heap + at + n * kind.itemsize > len(data):
            raise ReadError(f"{where}: column {i} points outside of the file")
        cells.append(_scale_column(header, i, found[1], np.frombuffer(data, kind, n, heap + at)))
    return cells


def scan_with_astropy(data: Any, path: str) -> list[Hdu]:
    """Open a file with astropy; the HDUs come out as from `scan`.

    Raises
    ------
    ReadError
        If astropy cannot read it.
    """
    import io
    import warnings

    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = fits.open(io.BytesIO(data[:]), memmap=False, ignore_missing_simple=True, uint=True)
            hdus = [_adopt(index, hdu, path) for index, hdu in zip(range(MAX_HDUS), opened, strict=False)]
    except Exception as error:  # whatever astropy makes of a damaged file
        raise ReadError(f"{path}: not readable as FITS ({_one_line(error)})") from error
    if not hdus:
        raise ReadError(f"{path}: a FITS file without HDUs")
    return hdus


def _adopt(index: int, hdu: Any, path: str) -> Hdu:
    """Return an astropy HDU as ours."""
    header = Header(hdu.header.tostring(sep="", endcard=False, padding=False))
    if hasattr(hdu, "columns"):
        rows = int(hdu.header.get("NAXIS2", 0))
        columns = tuple(
            Column(
                column.name,
                column.unit or "",
                header.text(f"TUCD{i}"),
                header.text(f"TUTYP{i}"),
                rows,
                _lazy(hdu, path, index, column.name),
            )
            for i, column in enumerate(hdu.columns, 1)
        )
        return Hdu(index, header, (), columns, lambda: np.empty(0))
    shape = tuple(int(n) for n in getattr(hdu, "shape", ()))
    return Hdu(index, header, shape, (), _lazy(hdu, path, index))


def _lazy(hdu: Any, path: str, index: int, column: str | None = None) -> Callable[[], NDArray[Any]]:
    """Return what loads the image or a column of an astropy HDU."""
    import warnings

    def load() -> NDArray[Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.asarray(hdu.data if column is None else hdu.data[column])
        except Exception as error:  # whatever astropy makes of damaged data
            raise ReadError(f"{path}[{index}]: not readable ({_one_line(error)})") from error

    return load


def _one_line(error: Exception) -> str:
    return (str(error).split("\n")[0] or type(error).__name__)[:200]
