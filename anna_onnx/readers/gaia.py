"""Gaia RVS mean spectra: one wavelength grid, in vacuum, shifted to the rest frame of the star.

The bulk files of the archive, ``RvsMeanSpectrum_*.csv.gz``, are ECSV with one star a line, its fluxes and their
errors in brackets. They are read a line at a time, since astropy takes 20 times their size in memory.

References
----------
Gaia DR3 documentation, table ``rvs_mean_spectrum``: 846-870 nm in steps of 0.01 nm.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import ReadError
from anna_onnx.files import Content
from anna_onnx.spectrum import Source, Spectrum

from .assembly import Readings, assemble, attempt
from .columns import Column, values_of
from .facts import Facts
from .options import ReadOptions
from .units import to_angstrom

N_PIXEL = 2401
_HEAD = 1 << 16  # bytes that the header of a bulk file may have
_ARRAY = re.compile(r"^\s*[\[({](.*)[\])}]\s*$", re.S)


def grid() -> FloatArray:
    """Return the wavelengths in nm, shape (2401,)."""
    return 846.0 + 0.01 * np.arange(N_PIXEL, dtype=np.float64)


def with_wavelength(columns: Sequence[Column], where: str) -> Sequence[Column]:
    """Add the wavelength column that the bulk files of the archive leave out."""
    by_key = {column.key: column for column in columns}
    flux = by_key.get("flux")
    if flux is None or "source_id" not in by_key or {"wavelength", "lambda", "wave"} & by_key.keys():
        return columns
    cells = values_of(flux, where)
    if len(cells) == 0 or np.shape(cells[0]) != (N_PIXEL,):
        return columns
    tiled = np.broadcast_to(grid(), (flux.n_row, N_PIXEL))
    return [*columns, Column("wavelength", flux.n_row, lambda: tiled, "nm", "em.wl")]


def recognize(wavelength: FloatArray, facts: Facts) -> Facts:
    """Add what is known when the wavelengths (Angstrom) are those of the RVS, unless the file says otherwise."""
    if wavelength.size != N_PIXEL or not np.allclose(wavelength[[0, -1]], (8460.0, 8700.0), rtol=0, atol=1e-6):
        return facts
    if facts.medium == "air" or facts.frame not in ("unknown", "rest"):
        return facts
    known = facts.known(medium="vacuum", frame="rest", resolution=facts.resolution or 11500.0)
    return known.noted("Gaia RVS mean spectrum: vacuum, rest frame, R = 11500")


def is_bulk(data: Content) -> bool:
    """Return whether a text is a table of stars whose fluxes stand in brackets."""
    lines = bytes(data[:_HEAD]).decode("latin-1").splitlines()
    table = [line for line in lines if line.strip() and not line.startswith("#")][:2]
    if len(table) < 2:
        return False
    names = table[0].replace('"', "").split(",")
    return {"source_id", "flux", "flux_error"} <= set(names) and any(mark in table[1] for mark in "[({")


def read_bulk(path: str, data: Content, options: ReadOptions) -> Readings:
    """Read the stars of a bulk file, one after the other.

    Raises
    ------
    ReadError
        If the text is no CSV.
    """
    raw = data if hasattr(data, "readline") else io.BytesIO(data)
    lines = (line.decode("latin-1") for line in iter(raw.readline, b"") if line.strip() and not line.startswith(b"#"))
    wavelength, _ = to_angstrom(grid(), "nm", options.wave_unit, path)

    def spectrum(source: Source, star: Mapping[str, str | None]) -> Spectrum:
        flux, error = (_numbers(star[name], f"{source}, {name}") for name in ("flux", "flux_error"))
        facts = recognize(wavelength, Facts(id=star["source_id"] or ""))
        return assemble(wavelength, flux, facts, source, options, sigma=error)

    try:
        for row, star in enumerate(csv.DictReader(lines)):
            yield attempt(spectrum, Source(path, row=row), star)
    except csv.Error as error:
        raise ReadError(f"{path}: not readable as CSV ({error})") from error


def _numbers(cell: str | None, where: str) -> FloatArray:
    """Return the numbers of a cell in brackets; null and other words are NaN."""
    inside = _ARRAY.match(cell or "")
    fields = inside[1].split(",") if inside else []
    if len(fields) != N_PIXEL:
        raise ReadError(f"{where}: {len(fields)} numbers, needed {N_PIXEL}")
    try:
        return np.array(fields, dtype=np.float64)
    except ValueError:
        return np.array([_number(field) for field in fields])


def _number(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        return np.nan
