"""The last resort: what no reader here understands may be of a survey or telescope that specutils knows.

Its loaders for named data products are asked, and those that take any image
or table are not: they guess where the readers here refuse. Specutils takes
seconds to import, and is not imported before it is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import AnnaError, ReadError, UnknownLayoutError
from anna_onnx.quantity import Numbers, unpack
from anna_onnx.spectrum import Source, Spectrum

from .assembly import ErrorKind, as_sigma, assemble
from .facts import Facts
from .options import ReadOptions

_GUESSING = frozenset({"wcs1d-fits", "tabular-fits", "iraf", "ASCII", "ECSV", "IPAC"})
_NO_STAR = frozenset({"sky", "unreduced"})  # what its loaders of several surveys call further spectra of a file
# What an uncertainty holds, and the power of the flux in its unit.
_UNCERTAINTIES: Mapping[str, tuple[ErrorKind, int]] = {
    "std": ("sigma", 1),
    "var": ("variance", 2),
    "ivar": ("ivar", -2),
}


def read(path: str, options: ReadOptions, refusal: UnknownLayoutError) -> Iterator[Spectrum]:
    """Read the spectra of a file by specutils.

    Parameters
    ----------
    path : str
    options : ReadOptions
    refusal : UnknownLayoutError
        Why the readers here do not.

    Raises
    ------
    UnknownLayoutError
        The refusal, when specutils is not installed, has no loader for the
        file, or makes of it what is no spectrum of wavelengths, frequencies or energies.
    """
    if options.hdu is not None or options.columns is not None:
        raise refusal  # its loaders choose themselves
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader, found = _load(path)
            known = Facts(notes=(f"read by {reader}",))
            if options.wave_unit is not None:
                known = known.noted(f"wavelength unit {options.wave_unit} left aside for that of the loader")
                options = replace(options, wave_unit=None)
            spectra = [_adopt(one, known, Source(path, row=row), options) for row, one in enumerate(found)]
    except (ImportError, AnnaError):
        raise refusal from None
    if not spectra:
        raise refusal
    yield from spectra


def _load(path: str) -> tuple[str, list[Any]]:
    """Return who reads a file, and what the first loader makes of it that takes it for its own."""
    import specutils
    from astropy.io.registry import identify_format

    for loader in identify_format("read", specutils.SpectrumList, path, None, [], {}):
        if loader not in _GUESSING:
            try:
                loaded = specutils.SpectrumList.read(path, format=loader)
                found = [one for one in loaded if one.meta.get("purpose") not in _NO_STAR]
            except Exception:  # whatever a loader makes of a file that is not its own
                continue
            return f"specutils {specutils.__version__}, loader {loader}", found
    return "", []


def _adopt(given: Any, facts: Facts, source: Source, options: ReadOptions) -> Spectrum:
    """Return an object of specutils as a spectrum.

    Raises
    ------
    ReadError, SpectrumError
        If it is something else.
    """
    wavelength = unpack(given.spectral_axis, "spectral axis").to_angstrom().values
    flux = np.asarray(given.flux.value, dtype=np.float64)
    step = np.diff(wavelength)
    in_order = np.isfinite(wavelength).all() and ((step > 0).all() or (step < 0).all())
    if not in_order or flux.shape != wavelength.shape:
        raise ReadError(f"{source}: flux of shape {flux.shape} on an axis of {wavelength.shape}, or out of order")
    header = given.meta.get("header") or {}
    return assemble(
        wavelength,
        flux,
        facts.known(id=str(header.get("OBJECT", ""))),
        source,
        options,
        sigma=standard_deviation(given.uncertainty, given.flux.unit),
        bad=None if given.mask is None else np.asarray(given.mask, dtype=np.bool_),
    )


def standard_deviation(uncertainty: Any, unit: Any) -> FloatArray | None:
    """Return the standard deviations of an uncertainty of astropy.nddata.

    Parameters
    ----------
    uncertainty : NDUncertainty or None
    unit : unit of astropy
        Of the flux, and so of what is returned.

    Raises
    ------
    ReadError
        If it is none of a standard deviation, variance or inverse variance.
    SpectrumError
        If its unit does not go with that of the flux.
    """
    if uncertainty is None:
        return None
    stated, values = uncertainty.uncertainty_type, np.asarray(uncertainty.array, dtype=np.float64)
    if stated not in _UNCERTAINTIES:
        raise ReadError(f"uncertainties of type '{stated}': needed std, var or ivar")
    kind, power = _UNCERTAINTIES[stated]
    if uncertainty.unit is not None:
        values = Numbers("uncertainty", values, None, uncertainty.unit).to(unit**power).values
    return as_sigma(values, kind)
