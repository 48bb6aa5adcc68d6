"""A spectrum as it left a file: wavelengths, flux, errors, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import SpectrumError
from anna_onnx.quantity import Numbers, number, shown, unpack

Medium = Literal["air", "vacuum", "unknown"]
Frame = Literal["topocentric", "barycentric", "rest", "unknown"]


@dataclass(frozen=True)
class Source:
    """Where a spectrum came from.

    Attributes
    ----------
    file : str
        File name as the user gave it; empty for arrays from memory.
    hdu : int or None
        FITS extension, counted from 0.
    row : int or None
        Row, aperture or order inside it, counted from 0.
    """

    file: str = ""
    hdu: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        hdu = "" if self.hdu is None else f"[{self.hdu}]"
        row = "" if self.row is None else f" row {self.row}"
        return f"{self.file or 'array'}{hdu}{row}"


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One 1-D spectrum.

    Pixels that hold no usable flux are marked in `bad`, never removed, so
    that a gap stays a gap. Arrays are copied only when they must be converted.

    Parameters
    ----------
    wavelength : array_like of float64, shape (n_pixel,)
        Angstrom, finite, positive, strictly ascending, in `medium`.
    flux : array_like of float64, shape (n_pixel,)
        Any unit. Pixels that are not finite become bad.
    sigma : array_like of float64, shape (n_pixel,), optional
        Standard deviation of the flux, same unit. Pixels where it is not
        finite or not positive become bad.
    bad : array_like of bool, shape (n_pixel,), optional
        True where the flux must not be used.
    medium : {'air', 'vacuum', 'unknown'}
    frame : {'topocentric', 'barycentric', 'rest', 'unknown'}
        Frame of the wavelengths.
    id : str
        Name of the star or observation.
    source : Source
        Where it came from.
    notes : tuple of str
        What was assumed while reading, for a person to read.
    resolution : float, optional
        Resolving power, wavelength / FWHM.
    radial_velocity : float, optional
        Velocity of the star in `frame`, km/s, when the file states it.

    Raises
    ------
    SpectrumError
        If the arrays do not make a spectrum.
    """

    wavelength: FloatArray
    flux: FloatArray
    sigma: FloatArray | None = None
    bad: BoolArray = None  # type: ignore[assignment]  # always an array after __post_init__
    medium: Medium = "unknown"
    frame: Frame = "unknown"
    id: str = ""
    source: Source = Source()
    notes: tuple[str, ...] = ()
    resolution: float | None = None
    radial_velocity: float | None = None

    def __post_init__(self) -> None:
        where = f"{self.source}: "
        axis, level = unpack(self.wavelength, f"{where}wavelength").to_angstrom(), unpack(self.flux, f"{where}flux")
        wavelength = _vector(axis)
        flux = _vector(level, like=wavelength)
        _check_wavelength(wavelength, self.source)
        for name, value, allowed in (("medium", self.medium, Medium), ("frame", self.frame, Frame)):
            if value not in get_args(allowed):
                raise SpectrumError(f"{where}{name} '{value}', needed one of {', '.join(get_args(allowed))}")
        sigma = None
        unusable = [axis.masked, level.masked]
        if self.sigma is not None:
            error = unpack(self.sigma, f"{where}sigma").to(level.unit)
            sigma = _vector(error, like=wavelength)
            unusable += [error.masked, ~(np.isfinite(sigma) & (sigma > 0))]
        if self.bad is not None:
            marks = unpack(self.bad, f"{where}bad", np.bool_)
            unusable += [marks.masked, _vector(marks, like=wavelength)]
        bad = ~np.isfinite(flux)
        for pixels in unusable:
            if pixels is not None:
                bad |= pixels
        for name, array in (("wavelength", wavelength), ("flux", flux), ("sigma", sigma), ("bad", bad)):
            object.__setattr__(self, name, array)
        for name, unit in (("resolution", ""), ("radial_velocity", "km/s")):
            if (given := getattr(self, name)) is not None:
                if (stated := number(given, unit)) is None:
                    raise SpectrumError(f"{where}{name} {shown(given)}, needed a number{unit and f' in {unit}'}")
                object.__setattr__(self, name, stated)

    @property
    def name(self) -> str:
        """The name to call it by in a message: its source, and its id when it has one."""
        return f"{self.source} ({self.id})" if self.id else str(self.source)

    @property
    def n_pixel(self) -> int:
        """Number of pixels."""
        return int(self.wavelength.size)

    def __repr__(self) -> str:
        return (
            f"<Spectrum {self.name}: {self.n_pixel} pixels, {self.wavelength[0]:.2f}-{self.wavelength[-1]:.2f} Å, "
            f"medium {self.medium}, frame {self.frame}>"
        )


def _vector(numbers: Numbers, like: FloatArray | None = None) -> NDArray[Any]:
    """Return numbers as a contiguous 1-D array, of the length of `like`."""
    values = numbers.values
    if values.ndim != 1:
        raise SpectrumError(f"{numbers.what} has shape {values.shape}, needed one dimension")
    if like is not None and values.shape != like.shape:
        raise SpectrumError(f"{numbers.what} has {values.size} values, wavelength has {like.size}")
    return np.ascontiguousarray(values)


def _check_wavelength(wavelength: FloatArray, source: Source) -> None:
    if wavelength.size < 2:
        raise SpectrumError(f"{source}: {wavelength.size} pixels, a spectrum needs at least 2")
    if not np.isfinite(wavelength).all() or wavelength[0] <= 0:
        raise SpectrumError(f"{source}: wavelengths must be finite and positive")
    ascends = np.diff(wavelength) > 0
    if not ascends.all():
        if (wavelength == wavelength[0]).all():
            raise SpectrumError(f"{source}: all {wavelength.size} pixels have the wavelength {wavelength[0]:g}")
        before, after = wavelength[ascends.argmin() :][:2]
        raise SpectrumError(f"{source}: wavelengths must ascend strictly, {after:.10g} comes after {before:.10g}")
