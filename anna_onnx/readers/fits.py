"""FITS by hand: headers, images and tables, without astropy.

A spectrum needs no more than this, it costs a tenth of the time of
``astropy.io.fits``, and every size is checked against the file before memory
is asked for. Only compressed images are left to astropy, after their sizes
were checked.

References
----------
FITS Standard 4.0, https://fits.gsfc.nasa.gov/fits_standard.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anna_onnx.errors import ReadError, first_line
from anna_onnx.files import Content

from .facts import finite

if TYPE_CHECKING:
    from .columns import Column

BLOCK = 2880
CARD = 80
MAX_HEADER = 16_000_000
MAX_AXES = 20
MAX_HDUS = 10_000
MAX_COMPRESSED = 32_000_000  # pixels of an image that astropy unpacks
_END = b"END     "
_PIXEL = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_FORMAT = re.compile(r"^\s*(\d{0,9})([LXBIJKAEDCMPQ])")
_ASCII_FORMAT = re.compile(r"^\s*([AIFED])(\d{1,5})")
_FIELD = {"L": "u1", "X": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S1"}
_SIZE = {"L": 1, "X": 0, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}


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

    def remarks(self, *keys: str) -> Iterator[str]:
        """Return the comments of those of the cards `keys` that have one."""
        for key in keys:
            field = "" if (at := self._offset(key)) is None else self._value_field(at)
            value_end = _closing_quote(field) if field.startswith("'") else 0
            if remark := field[value_end:].partition("/")[2].strip():
                yield remark

    def prose(self) -> Iterator[str]:
        """Return the COMMENT and HISTORY lines."""
        if "COMMENT" in self._at or "HISTORY" in self._at:
            for at in range(0, len(self._text), CARD):
                if self._text.startswith(("COMMENT ", "HISTORY "), at):
                    yield self._text[at + 8 : at + CARD].strip()

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
    return field[1 : _closing_quote(field)].replace("''", "'")


def _closing_quote(field: str) -> int:
    """Return where the string at the beginning of a field ends."""
    end = 1
    while (end := field.find("'", end)) >= 0:
        if field[end + 1 : end + 2] != "'":
            return end
        end += 2
    return len(field)


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


class FitsFile(NamedTuple):
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


def open_fits(path: str, data: Content) -> FitsFile:
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
        If its headers are damaged.
    """
    return FitsFile(path, list(_scan(data, path)))


def _scan(data: Content, path: str) -> Iterator[Hdu]:
    position = 0
    for index in range(MAX_HDUS):
        if index and data[position : position + 8] != b"XTENSION":
            return  # the end, or something after it that is no HDU
        where = f"{path}[{index}]"
        header, start = _header(data, position, where)
        shape = _shape(header, where)
        bitpix = header.integer("BITPIX")
        heap = (header.integer("PCOUNT") or 0) if index else 0
        if (
            bitpix not in _PIXEL
            or heap < 0
            or header.integer("GCOUNT") not in (None, 1)
            or header.get("GROUPS") is True
        ):
            raise ReadError(f"{where}: not readable as FITS (BITPIX {bitpix}, PCOUNT {heap}, or random groups)")
        n_bytes = abs(bitpix) // 8 * (heap + (math.prod(shape) if shape else 0))
        if start + n_bytes > len(data):
            raise ReadError(f"{where}: cut short, {max(0, len(data) - start)} bytes of {n_bytes}")
        yield _hdu(index, header, shape, data, start, path)
        position = start + -(-n_bytes // BLOCK) * BLOCK
        if position >= len(data):
            return


def _hdu(index: int, header: Header, shape: tuple[int, ...], data: Content, start: int, path: str) -> Hdu:
    kind = header.text("XTENSION") if index else "IMAGE"
    if kind == "BINTABLE" and header.get("ZIMAGE") is True:
        return _compressed_image(index, header, data, path)
    if kind == "BINTABLE" and header.get("ZTABLE") is not True:
        return _table(index, header, data, start, path)
    if kind == "TABLE":
        return _ascii_table(index, header, data, start, path)
    if kind in ("IMAGE", "IUEIMAGE"):
        return _image(index, header, shape, data, start)
    return Hdu(index, header, (), (), lambda: np.empty(0))


def _header(data: Content, start: int, where: str) -> tuple[Header, int]:
    """Return the header at `start`, and where its data begin."""
    end = start - 1
    while (end := data.find(_END, end + 1, start + MAX_HEADER)) >= 0:
        if (end - start) % CARD == 0:
            break
    if end < 0:
        raise ReadError(f"{where}: not readable as FITS (a header without END)")
    text = data[start:end].decode("latin-1")
    return Header(text), start + -(-(end + CARD - start) // BLOCK) * BLOCK


def _shape(header: Header, where: str) -> tuple[int, ...]:
    naxis = header.integer("NAXIS")
    if naxis is None or not 0 <= naxis <= MAX_AXES:
        raise ReadError(f"{where}: not readable as FITS (NAXIS {header.get('NAXIS')!r})")
    axes = tuple(header.integer(f"NAXIS{i}") for i in range(naxis, 0, -1))
    if any(n is None or not 0 <= n < 1 << 48 for n in axes):
        raise ReadError(f"{where}: not readable as FITS (an image of {axes})")
    return axes  # type: ignore[return-value]  # none of them is None


def _image(index: int, header: Header, shape: tuple[int, ...], data: Content, start: int) -> Hdu:
    def load() -> NDArray[Any]:
        kind = _PIXEL[header.integer("BITPIX") or 0]
        return _scale(header, np.frombuffer(data, kind, math.prod(shape), start).reshape(shape))

    return Hdu(index, header, shape, (), load)


def _scale(header: Header, pixels: NDArray[Any]) -> NDArray[Any]:
    """Apply BSCALE, BZERO and BLANK."""
    blank = header.integer("BLANK") if pixels.dtype.kind in "iu" else None
    return _scaled(pixels, header.number("BSCALE"), header.number("BZERO"), blank)


def _scaled(stored: NDArray[Any], scale: float | None, zero: float | None, blank: int | None) -> NDArray[Any]:
    """Return stored numbers times `scale` plus `zero`, blanks as NaN; without blanks, integers stay integers."""
    factor, shift = 1.0 if scale is None else scale, zero or 0.0
    exact = _shifted(stored, shift) if factor == 1 else None
    blanks = None if blank is None else stored == blank
    if blanks is None or not blanks.any():
        return stored * factor + shift if exact is None else exact
    scaled = np.where(blanks, np.nan, stored * factor + shift)
    if exact is not None and (np.abs(scaled) > 2**53).any():  # names in numbers, which would be rounded
        return np.where(blanks, np.nan, exact.astype(object))
    return scaled


def _shifted(stored: NDArray[Any], shift: float) -> NDArray[Any] | None:
    """Return stored numbers plus `shift` where that is exact, else None."""
    if shift == 0:
        return stored
    if stored.dtype.kind not in "iu" or shift != int(shift):
        return None
    if abs(shift) < 2**62:
        return stored.astype(np.int64) + int(shift)
    unsigned = stored.dtype.itemsize == 8 and shift == 2**63
    return stored.astype(np.int64).view(np.uint64) + np.uint64(2**63) if unsigned else None


def _compressed_image(index: int, header: Header, data: Content, path: str) -> Hdu:
    """Return a tile-compressed image, which astropy unpacks when it is asked for."""
    where = f"{path}[{index}]"
    naxis = header.integer("ZNAXIS")
    axes = [header.integer(f"ZNAXIS{i}") for i in range(naxis or 0, 0, -1)] if 0 < (naxis or 0) < 10 else []
    shape = tuple(n for n in axes if n is not None and n > 0)
    if not shape or len(shape) != naxis or math.prod(shape) > MAX_COMPRESSED or len(data) > 8 * MAX_COMPRESSED:
        raise ReadError(f"{where}: a compressed image of {' x '.join(map(str, axes))} is not read")

    def load() -> NDArray[Any]:
        import io
        import warnings

        from astropy.io import fits

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(io.BytesIO(data[:]), memmap=False) as opened:
                    pixels = np.asarray(opened[index].data, dtype=np.float64)
        except Exception as error:  # whatever astropy makes of damaged data
            raise ReadError(f"{where}: the compressed image cannot be unpacked ({first_line(error)})") from error
        if pixels.shape != shape:
            raise ReadError(f"{where}: the compressed image unpacks to {pixels.shape}, not {shape}")
        return pixels

    return Hdu(index, header, shape, (), load)


def _table_size(header: Header, where: str) -> tuple[int, int, int]:
    """Return the bytes of a row, the rows and the columns of a table."""
    width, n_row, n_field = (header.integer(key) for key in ("NAXIS1", "NAXIS2", "TFIELDS"))
    if header.integer("NAXIS") != 2 or width is None or n_row is None or n_field is None or not 0 <= n_field <= 999:
        raise ReadError(f"{where}: not readable as FITS (a table of {n_field} columns, {n_row} rows of {width} bytes)")
    return width, n_row, n_field


def _table(index: int, header: Header, data: Content, start: int, path: str) -> Hdu:
    where = f"{path}[{index}]"
    width, n_row, n_field = _table_size(header, where)
    columns, offset = [], 0
    for i in range(1, n_field + 1):
        found = _FORMAT.match(header.text(f"TFORM{i}"))
        if not found:
            raise ReadError(f"{where}: not readable as FITS (TFORM{i} '{header.text(f'TFORM{i}')}')")
        repeat, code = int(found[1] or 1), found[2]
        load = _column_loader(header, i, data, start, (n_row, width, offset, repeat, code), where)
        columns.append(_named_column(header, i, n_row, load))
        offset += -(-repeat // 8) if code == "X" else repeat * _SIZE[code]
    if offset > width:
        raise ReadError(f"{where}: not readable as FITS (columns of {offset} bytes in rows of {width})")
    return Hdu(index, header, (), tuple(columns), lambda: np.empty(0))


def _named_column(header: Header, i: int, n_row: int, load: Callable[[], Any]) -> Column:
    from .columns import Column  # images have none

    name = header.text(f"TTYPE{i}") or f"col{i}"
    return Column(name, n_row, load, header.text(f"TUNIT{i}"), header.text(f"TUCD{i}"), header.text(f"TUTYP{i}"))


def _ascii_table(index: int, header: Header, data: Content, start: int, path: str) -> Hdu:
    """Return a table whose rows are text."""
    where = f"{path}[{index}]"
    width, n_row, n_field = _table_size(header, where)
    columns = []
    for i in range(1, n_field + 1):
        found, first = _ASCII_FORMAT.match(header.text(f"TFORM{i}")), header.integer(f"TBCOL{i}")
        if not found or first is None or not 0 < first <= first + int(found[2]) - 1 <= width:
            raise ReadError(f"{where}: not readable as FITS (TFORM{i} '{header.text(f'TFORM{i}')}', TBCOL{i} {first})")
        layout = (n_row, width, first - 1, int(found[2]), found[1])
        columns.append(_named_column(header, i, n_row, _ascii_loader(header, i, data, start, layout, where)))
    return Hdu(index, header, (), tuple(columns), lambda: np.empty(0))


def _ascii_loader(
    header: Header, i: int, data: Content, start: int, layout: tuple[int, int, int, int, str], where: str
) -> Callable[[], Any]:
    n_row, width, offset, size, code = layout

    def load() -> Any:
        cells = np.char.strip(_strided(data, start + offset, (n_row,), np.dtype(f"S{size}"), (width,)))
        if code == "A":
            return np.char.decode(cells, "latin-1")
        null = header.text(f"TNULL{i}").encode("latin-1")  # blanks are none in any case
        cells = np.where((cells == b"") | (cells == null), b"nan", np.char.replace(cells, b"D", b"E"))
        try:
            stored = cells.astype(np.float64)
        except ValueError:
            wrong = next(cell for cell in cells.tolist() if not _is_number(cell))
            raise ReadError(f"{where}: column {i}, of numbers, holds {wrong!r}") from None
        return _scaled(stored, header.number(f"TSCAL{i}"), header.number(f"TZERO{i}"), None)

    return load


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column_loader(
    header: Header, i: int, data: Content, start: int, layout: tuple[int, int, int, int, str], where: str
) -> Callable[[], Any]:
    n_row, width, offset, repeat, code = layout

    def load() -> Any:
        if code in "PQ":
            return _variable_cells(header, i, data, start, layout, where)
        if code == "A":
            text = _strided(data, start + offset, (n_row,), np.dtype(f"S{max(repeat, 1)}"), (width,))
            return np.char.decode(text, "latin-1") if repeat else np.full(n_row, "")
        if code not in _FIELD or code == "X":
            raise ReadError(f"{where}: column {i} of type '{code}', needed numbers")
        kind = np.dtype(_FIELD[code])
        cells = _strided(data, start + offset, (n_row, repeat), kind, (width, kind.itemsize))
        return _scale_column(header, i, code, cells[:, 0] if repeat == 1 else cells)

    return load


def _strided(
    data: Content, at: int, shape: tuple[int, ...], kind: np.dtype[Any], strides: tuple[int, ...]
) -> NDArray[Any]:
    """Return a column of the rows that begin at `at`; a table without rows may begin behind the end of the file."""
    return np.ndarray(shape, kind, data, at, strides) if math.prod(shape) else np.empty(shape, kind)


def _scale_column(header: Header, i: int, code: str, cells: NDArray[Any]) -> NDArray[Any]:
    """Apply TSCAL, TZERO and TNULL."""
    if code == "L":
        return np.asarray(cells == ord("T"))
    null = header.integer(f"TNULL{i}") if cells.dtype.kind in "iu" else None
    return _scaled(cells, header.number(f"TSCAL{i}"), header.number(f"TZERO{i}"), null)


def _variable_cells(
    header: Header, i: int, data: Content, start: int, layout: tuple[int, int, int, int, str], where: str
) -> list[NDArray[Any]]:
    """Return the arrays of a variable-length column, from the heap."""
    n_row, width, offset, repeat, code = layout
    found = re.match(r"^\s*\d*[PQ]([A-Z])", header.text(f"TFORM{i}"))
    if not found or found[1] not in _FIELD or found[1] in "XA" or repeat != 1:
        raise ReadError(f"{where}: column {i} of type '{header.text(f'TFORM{i}')}', needed numbers")
    kind = np.dtype(_FIELD[found[1]])
    size = 4 if code == "P" else 8
    pointers = _strided(data, start + offset, (n_row, 2), np.dtype(f">i{size}"), (width, size))
    heap = start + (header.integer("THEAP") or n_row * width)
    cells = []
    for n, at in pointers.tolist():
        if n < 0 or at < 0 or heap + at + n * kind.itemsize > len(data):
            raise ReadError(f"{where}: column {i} points outside of the file")
        cells.append(_scale_column(header, i, found[1], np.frombuffer(data, kind, n, heap + at)))
    return cells
