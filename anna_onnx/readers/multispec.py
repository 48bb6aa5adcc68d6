"""IRAF multispec: many spectra in one image, each with its own dispersion function.

References
----------
Valdes 1993, The IRAF/NOAO Spectral World Coordinate Systems (``help specwcs``);
where it and IRAF's code (``sys/mwcs/wfmspec.x``) differ, the code counts: the
functions are averaged by weight, and the antilogarithm is taken before 1 + z.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.spectrum import Source, Spectrum

from . import wat
from .assembly import Readings, assemble, attempt
from .facts import from_headers, iraf_medium
from .fits import FitsFile, Hdu, Header
from .options import ReadOptions
from .orders import merged_if_pieces
from .units import to_angstrom

_SPEC = re.compile(r"spec\d+")
_BRACKET = re.compile(r"[\[(]\s*([^\])]+?)\s*[\])]")
MAX_FUNCTIONS = 50
MAX_ORDER = 200


@dataclass(frozen=True, eq=False)
class Dispersion:
    """The dispersion of one image line.

    Attributes
    ----------
    aperture, beam : int
    kind : int
        -1 none, 0 linear, 1 log-linear, 2 nonlinear.
    first, step : float
        Of the linear kinds.
    n_pixel : int
        Number of physical pixels that hold the spectrum; the rest of the line is padding.
    redshift : float
    functions : array of float64
        The remaining fields.
    """

    aperture: int
    beam: int
    kind: int
    first: float
    step: float
    n_pixel: int
    redshift: float
    functions: FloatArray

    @classmethod
    def parse(cls, text: str, where: str) -> Dispersion:
        """Read ``ap beam dtype w1 dw nw z aplow aphigh [functions]``.

        Raises
        ------
        ReadError
            If it is not of this form.
        """
        try:
            fields = [float(field.replace("INDEF", "nan").replace("D", "E")) for field in text.split()]
            aperture, beam, kind, first, step, n_pixel, redshift = fields[:7]
            return cls(int(aperture), int(beam), int(kind), first, step, int(n_pixel), redshift, np.array(fields[9:]))
        except (ValueError, OverflowError):
            raise ReadError(f"{where}: dispersion '{text[:60]}' is not of IRAF's form") from None

    def wavelength(self, pixel: FloatArray, where: str) -> FloatArray:
        """Evaluate at physical pixels, the first being 1.

        Raises
        ------
        NoWavelengthError
            If the line is not dispersion-calibrated.
        ReadError
            If the functions are not of IRAF's form.
        """
        if self.kind == 2:
            return _evaluate(self.functions, pixel, where) / (1 + self.redshift)
        if self.kind not in (0, 1):
            raise NoWavelengthError(f"{where}: aperture {self.aperture} has no dispersion solution (type {self.kind})")
        linear = self.first + self.step * (pixel - 1)
        if self.kind == 1:
            if not np.abs(linear).max(initial=0) < 300:
                raise ReadError(f"{where}: aperture {self.aperture} of log type begins at {self.first:g}, no logarithm")
            linear = 10**linear
        return linear / (1 + self.redshift)


def matches(fits: FitsFile) -> bool:
    """Return whether an HDU is multispec."""
    return _find(fits) is not None


def reads(fits: FitsFile, hdu: Hdu) -> bool:
    """Return whether this HDU is multispec."""
    return hdu.size > 0 and wat.is_multispec(hdu.header)


def read(fits: FitsFile, options: ReadOptions) -> Readings:
    """Read the first HDU that is multispec, one spectrum an aperture."""
    hdu = _find(fits)
    assert hdu is not None  # `matches` has seen it
    return read_hdu(fits, hdu, options)


def _find(fits: FitsFile) -> Hdu | None:
    return next((hdu for hdu in fits.hdus if reads(fits, hdu)), None)


def read_hdu(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    """Read one multispec image, one spectrum an aperture.

    Raises
    ------
    NoWavelengthError
        If no aperture is dispersion-calibrated.
    ReadError
    """
    return merged_if_pieces(_apertures(fits, hdu, options), options)


def _apertures(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> Readings:
    where = f"{fits.path}[{hdu.index}]"
    if len(hdu.shape) > 3:
        raise ReadError(f"{where}: a multispec image of {len(hdu.shape)} axes, needed 1 to 3")
    facts = from_headers(hdu.header, fits.primary.header)
    specs, unit = wat.attributes(hdu.header, 2), _unit(hdu.header)
    if not any(map(_SPEC.fullmatch, specs)):
        raise NoWavelengthError(f"{where}: WAT2 has no dispersion of any aperture (spec1 and so on)")
    bands = hdu.image().reshape((1,) * (3 - len(hdu.shape)) + hdu.shape)  # (band, aperture, pixel)
    flux_band, sigma_band = wat.bands(hdu.header, len(bands))
    pixel = _physical_pixels(hdu.header, bands.shape[2], where)

    def aperture(source: Source, row: int) -> Spectrum | None:
        line = _physical_line(hdu.header, row)
        if f"spec{line}" not in specs:
            raise NoWavelengthError(f"{where}: WAT2 has no spec{line} for image line {row + 1}")
        dispersion = Dispersion.parse(specs[f"spec{line}"], where)
        if dispersion.kind == -1 and bands.shape[1] > 1:
            return None
        inside, stored = _valid(dispersion, pixel, where)
        wavelength, notes = to_angstrom(stored, unit, options.wave_unit, where, default="Angstrom")
        named = iraf_medium(facts.known(id=hdu.header.text(f"APID{line}") or facts.id), wavelength).noted(*notes)
        flux = bands[flux_band, row][inside]
        sigma = None if sigma_band is None else bands[sigma_band, row][inside]
        return assemble(wavelength, flux, named, source, options, sigma=sigma)

    calibrated = 0
    for row in range(bands.shape[1]):
        source = Source(fits.path, hdu.index, row)
        found = attempt(aperture, source, row)
        if found is not None:
            calibrated += 1
            yield found
    if not calibrated:
        raise NoWavelengthError(f"{where}: no aperture has a dispersion solution")


def _valid(dispersion: Dispersion, pixel: FloatArray, where: str) -> tuple[BoolArray, FloatArray]:
    """Return which pixels hold the spectrum, and their wavelengths; the others are padding."""
    inside = (pixel > 0.5) & (pixel < dispersion.n_pixel + 0.5)
    if inside.sum() < 2:
        found = f"{inside.sum()} pixels (nw {dispersion.n_pixel})"
        raise ReadError(f"{where}: aperture {dispersion.aperture} has {found}, needed at least 2")
    return inside, dispersion.wavelength(pixel[inside], where)


def _unit(header: Header) -> str:
    """Return the unit of the axis; a label such as Velocity or Pixel stands for one that is refused."""
    unit, label = wat.unit_and_label(header)
    bracket = _BRACKET.search(label)
    spoken = bracket[1] if bracket else "" if label.lower() in ("", "wavelength", "lambda") else label
    return unit or header.text("CUNIT1") or spoken


def _physical_line(header: Header, row: int) -> int:
    """Return the line of the original image, from which IRAF numbers the dispersions.

    An image section keeps the number of its line in WAXMAP, or its shift in LTV2.
    """
    axes = (header.text("WAXMAP01") or header.text("WAXMAP1")).split()
    if len(axes) >= 4 and axes[2] == "0" and axes[3].isdigit():
        return int(axes[3]) + 1
    shift, scale = header.number("LTV2") or 0.0, header.number("LTM2_2") or 1.0
    return round((row + 1 - shift) / scale)


def _physical_pixels(header: Header, n_pixel: int, where: str) -> FloatArray:
    """Return the pixel numbers of the original image, before it was trimmed or binned."""
    shift = header.number("LTV1") or 0.0
    scale = header.number("LTM1_1")
    if scale == 0:
        raise ReadError(f"{where}: LTM1_1 is zero")
    pixel = np.arange(1, n_pixel + 1, dtype=np.float64)
    return (pixel - shift) / (scale or 1.0)


def _evaluate(fields: FloatArray, pixel: FloatArray, where: str) -> FloatArray:
    """Return the weighted mean of the functions."""
    total, weights = np.zeros_like(pixel), 0.0
    if not np.isfinite(fields).all():
        raise ReadError(f"{where}: a dispersion function with fields that are no numbers")
    for _ in range(MAX_FUNCTIONS):
        if not fields.size:
            break
        if fields.size < 4:
            raise ReadError(f"{where}: a dispersion function of {fields.size} fields")
        weight, offset, kind, order = fields[:4]
        function = _FUNCTIONS.get(int(kind))
        if function is None or order != int(order) or not 1 <= order <= fields.size:
            raise ReadError(f"{where}: dispersion function of type {kind:g} and order {order:g} is not IRAF's")
        value, used = function(int(order), fields[4:], pixel, where)
        total += weight * (offset + value)
        weights += weight
        fields = fields[4 + used :]
    if weights == 0 or fields.size:
        raise ReadError(f"{where}: no dispersion function, or more than {MAX_FUNCTIONS}")
    return total / weights


def _range(order: int, fields: FloatArray, n_coefficient: int, where: str) -> tuple[float, float, FloatArray]:
    """Return the pixel range and the coefficients of a polynomial or spline."""
    if fields.size < 2 + n_coefficient or not fields[1] > fields[0]:
        raise ReadError(f"{where}: a dispersion function of order {order} lacks its range or coefficients")
    return float(fields[0]), float(fields[1]), fields[2 : 2 + n_coefficient]


def _chebyshev(order: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    _check_order(order, where)
    low, high, coefficients = _range(order, fields, order, where)
    value = np.asarray(np.polynomial.chebyshev.chebval(_normalized(pixel, low, high), coefficients), np.float64)
    return value, 2 + order


def _legendre(order: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    _check_order(order, where)
    low, high, coefficients = _range(order, fields, order, where)
    value = np.asarray(np.polynomial.legendre.legval(_normalized(pixel, low, high), coefficients), np.float64)
    return value, 2 + order


def _check_order(order: int, where: str) -> None:
    if order > MAX_ORDER:
        raise ReadError(f"{where}: a polynomial of order {order}, more than {MAX_ORDER}")


def _normalized(pixel: FloatArray, low: float, high: float) -> FloatArray:
    """Return pixels as numbers from -1 to 1 over the range of the function."""
    return (2 * pixel - (high + low)) / (high - low)


def _spline_position(pieces: int, low: float, high: float, pixel: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the piece that each pixel is in, and how far into it."""
    s = (pixel - low) / (high - low) * pieces
    piece = np.clip(s.astype(np.intp), 0, pieces - 1)
    return piece, s - piece


def _cubic_spline(pieces: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    low, high, c = _range(pieces, fields, pieces + 3, where)
    j, b = _spline_position(pieces, low, high, pixel)
    a = 1 - b
    value = a**3 * c[j] + (1 + 3 * a * (1 + a * b)) * c[j + 1] + (1 + 3 * b * (1 + a * b)) * c[j + 2] + b**3 * c[j + 3]
    return value, 2 + pieces + 3


def _linear_spline(pieces: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    low, high, c = _range(pieces, fields, pieces + 1, where)
    j, b = _spline_position(pieces, low, high, pixel)
    return (1 - b) * c[j] + b * c[j + 1], 2 + pieces + 1


def _pixel_array(n: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    if n < 2 or fields.size < n:
        raise ReadError(f"{where}: a pixel array of {n} wavelengths has {fields.size}")
    return _interpolate(np.arange(1.0, n + 1), fields[:n], pixel), n


def _sampled_array(n: int, fields: FloatArray, pixel: FloatArray, where: str) -> tuple[FloatArray, int]:
    """Pairs of pixel and wavelength after a dummy field; IRAF's code counts the numbers, its manual the pairs."""
    n_number = 2 * n if fields.size >= 1 + 2 * n else n
    pairs = fields[1 : 1 + n_number]
    if n_number < 4 or n_number % 2 or pairs.size < n_number or not (np.diff(pairs[0::2]) > 0).all():
        raise ReadError(f"{where}: a sampled array of {n} coordinates has {fields.size - 1}, or they do not ascend")
    return _interpolate(pairs[0::2], pairs[1::2], pixel), 1 + n_number


def _interpolate(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """Interpolate linearly; beyond the ends along the last piece, as IRAF does."""
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, x.size - 2)
    fraction = (at - x[left]) / (x[left + 1] - x[left])
    return (1 - fraction) * y[left] + fraction * y[left + 1]


_FUNCTIONS = {
    1: _chebyshev,
    2: _legendre,
    3: _cubic_spline,
    4: _linear_spline,
    5: _pixel_array,
    6: _sampled_array,
}
