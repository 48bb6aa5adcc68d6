"""Columns of any table, and which of them are the wavelength, the flux, its error and its mask."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anna_onnx.errors import NoWavelengthError, ReadError

from .assembly import ErrorKind
from .facts import medium_in
from .units import UNSTATED, split_log

_IN_WORDS = {"ivar": "inverse variances", "variance": "variances"}


@dataclass(frozen=True, eq=False)
class Column:
    """A column and what is said of it.

    Attributes
    ----------
    name : str
    n_row : int
    load : callable
        Returns the values, shape (n_row,) or (n_row, n_pixel), or a list
        of arrays when the cells differ in length.
    unit, ucd, utype : str
        Empty when not stated.
    """

    name: str
    n_row: int
    load: Callable[[], Any]
    unit: str = ""
    ucd: str = ""
    utype: str = ""

    @property
    def key(self) -> str:
        """The name in lower case, words joined by underscores, for comparison."""
        return re.sub(r"[^a-z0-9]+", "_", re.sub(r"[\[(].*", "", self.name.lower())).strip("_")


@dataclass(frozen=True, eq=False)
class Roles:
    """Which column is what.

    Attributes
    ----------
    wavelength, flux : Column
    error : Column or None
    kind : {'sigma', 'ivar', 'variance'}
        What `error` holds.
    mask : Column or None
    log : float or None
        Base when the wavelength column holds logarithms.
    notes : tuple of str
    """

    wavelength: Column
    flux: Column
    error: Column | None
    kind: ErrorKind
    mask: Column | None
    log: float | None
    notes: tuple[str, ...] = ()


_WAVELENGTH = (
    "wavelength", "wave", "lambda", "lam", "wl", "waveobs", "wave_obs", "wavelengths", "wvl", "wlen", "wav",
    "awav", "wavelength_vac", "wave_vac", "wavelength_air", "wave_air", "lambda_air", "lambda_vac", "lambda_obs",
    "wave_bary", "wavelength_vac_bary", "wave_nm", "wavelength_nm", "wavelength_angstrom", "wave_a", "lambda_a",
    "lambda_nm", "ll", "angstrom", "angstroms", "nm", "micron", "spectral_axis", "spectralaxis", "dispersion",
    "arg", "wavel", "wavelen", "wlength", "wavelength_um", "wave_um", "wave_ang", "obs_wavelength",
    "wavelength_obs", "wave_rest", "opt_wave", "box_wave",
)  # fmt: skip
_LOG_WAVELENGTH = (
    "loglam", "log_lambda", "log_wave", "loglambda", "logwave", "log_wavelength", "log10lam", "log_lam",
    "lnlam", "ln_lambda", "lnwave", "ln_wave",
)  # fmt: skip
_FLUX = (
    "flux", "flux_reduced", "fluxes", "flux_norm", "norm_flux", "normalized_flux", "normalised_flux", "nflux",
    "flam", "f", "f_lambda", "fnu", "intensity", "spec", "spectrum", "counts", "fun", "flux_cal",
    "flux_calibrated", "i", "y", "flux_density", "sci_flux", "bgsub_flux", "flux_el", "flux_raw", "signal",
    "data", "sob", "norm", "optimal_flux", "flux_opt", "opt_flam", "opt_counts", "box_flam", "box_counts",
    "spec_flux", "flx", "fl", "flux_lambda", "specificintensity", "specific_intensity",
    "flux_tellcorr", "flux_ergs_cm2_s_a", "relative_flux", "net", "stokes_i", "cflux",
    "extracted_opt", "extracted_rect",
)  # fmt: skip
_SIGMA = (
    "err", "error", "sigma", "flux_err", "flux_error", "e_flux", "err_flux", "eflux", "uncertainty", "unc",
    "staterror", "stat_error", "stdev", "std", "noise", "flux_sigma", "sig", "err_reduced", "ferr", "fluxerr",
    "flux_unc", "fluxerror", "errors", "flux_uncertainty", "d_flux", "error_flux", "uncert", "stddev", "uob",
    "sigma_flux", "flux_std", "dflux", "opt_counts_sig", "optimal_error", "err_flux_reduced", "flux_stddev",
    "uflux", "flux_sig", "spec_err", "errs",
    "error_opt", "error_rect",
)  # fmt: skip
_IVAR = ("ivar", "flux_ivar", "inverse_variance", "invvar", "inv_var", "weight_ivar", "opt_counts_ivar", "ivar_flux")
_VARIANCE = ("var", "variance", "flux_var", "flux_variance")
_MASK = (
    "mask", "and_mask", "andmask", "pixmask", "pixel_flags", "dq", "quality", "qual", "qual_reduced", "flags",
    "flag", "data_quality", "dataqual", "bad", "badpix", "bitmask", "bpm", "flux_mask", "opt_mask", "box_mask",
    "quality_flag",
)  # fmt: skip
NO_FLUX = frozenset((
    *_WAVELENGTH, *_LOG_WAVELENGTH, *_SIGMA, *_IVAR, *_VARIANCE, *_MASK, "snr", "sn", "s_n", "signal_to_noise",
    "continuum", "cont", "sky", "background", "model", "telluric", "tellurics",
))  # fmt: skip
"""Names of columns that are not the flux, even where no other is."""

_INVERSE, _SQUARED = re.compile("ivar|inv(erse)?_?var"), re.compile("(^|_)var(iance)?(_|$)")
_NO_WAVELENGTH = re.compile("err|num")  # wavenumbers
_BRACKET = re.compile(r"[\[(]([^\])]*)[\])]")
_SPECTRAL_UNIT = re.compile(
    r"^(angstroms?|ang|aa|a|å|nm|nanomet(er|re)s?|um|µm|microns?|micromet(er|re)s?|0\.1\s*nm)$", re.I
)


def understand(columns: Sequence[Column], where: str, chosen: tuple[str | int, ...] | None = None) -> Roles:
    """Find the wavelength, flux, error and mask among columns.

    A utype says most (IVOA Spectrum Data Model), then a UCD, then a name,
    then, for the wavelength, a unit.

    Parameters
    ----------
    columns : sequence of Column
    where : str
        For messages.
    chosen : tuple of str or int, optional
        Wavelength, flux, error and mask columns as the user names them, or
        numbers them from 1.

    Raises
    ------
    NoWavelengthError
        If there are fluxes but no wavelengths.
    ReadError
        If no flux can be found, or a chosen column does not exist.
    """
    if chosen is not None:
        return _as_chosen(columns, where, chosen)
    wavelength, log = find_wavelength(columns)
    flux = _find_flux([column for column in columns if column is not wavelength])
    if wavelength is None:
        names = ", ".join(column.name for column in columns[:12])
        if flux is not None:
            raise NoWavelengthError(f"{where}: columns {names}: none holds wavelengths")
        raise ReadError(f"{where}: columns {names}: no wavelength and no flux among them")
    if flux is None:
        names = ", ".join(column.name for column in columns[:12])
        raise ReadError(f"{where}: columns {names}: no flux among them; say which with columns")
    others = [column for column in columns if column is not wavelength and column is not flux]
    error, kind = _find_error(others, flux)
    mask = _by_utype(others, "fluxaxis.accuracy.qualitystatus", "fluxaxis.quality") or _by_name(others, _MASK)
    return Roles(wavelength, flux, error, kind, mask, log, _notes(wavelength, flux, columns))


def _as_chosen(columns: Sequence[Column], where: str, chosen: tuple[str | int, ...]) -> Roles:
    picked = [_pick(columns, where, name) for name in chosen]
    wavelength, flux, error, mask = (*picked, None, None)[:4]
    assert wavelength is not None  # ReadOptions asks for two at least
    assert flux is not None
    kind = "sigma" if error is None else _kind(error)
    log = _log_base(wavelength)
    named = ", ".join(column.name for column in picked)
    taken = "" if error is None or kind == "sigma" else f", {error.name} taken as {_IN_WORDS[kind]}"
    return Roles(wavelength, flux, error, kind, mask, log, (f"columns {named} as requested{taken}",))


def _pick(columns: Sequence[Column], where: str, name: str | int) -> Column:
    if isinstance(name, int) and 1 <= name <= len(columns):
        return columns[name - 1]
    found = [c for c in columns if isinstance(name, str) and c.name.strip().lower() == name.strip().lower()]
    if found:
        return found[0]
    raise ReadError(f"{where}: no column {name}; it has {', '.join(column.name for column in columns[:20])}")


def find_wavelength(columns: Sequence[Column]) -> tuple[Column | None, float | None]:
    """Return the column that holds wavelengths, if any, and the base when it holds their logarithms."""
    found = (
        _by_utype(columns, "spectralaxis.value")
        or _by_name(columns, _WAVELENGTH)
        or next((c for c in columns if c.key in _LOG_WAVELENGTH), None)
        or next((c for c in columns if c.ucd.lower().startswith("em.wl") and "width" not in c.ucd.lower()), None)
        or next((c for c in columns if c.key.startswith(("wave", "lambda")) and not _NO_WAVELENGTH.search(c.key)), None)
        or _by_name(columns, ("w", "x"))
        or next((c for c in columns if _SPECTRAL_UNIT.match(c.unit.strip())), None)
    )
    return found, None if found is None else _log_base(found)


def _log_base(column: Column) -> float | None:
    base, _ = split_log(column.unit)
    if column.unit.strip().lower() in UNSTATED or base is None:
        return 10.0 if column.key in _LOG_WAVELENGTH else None
    return base


def _find_flux(columns: Sequence[Column]) -> Column | None:
    return (
        _by_utype(columns, "fluxaxis.value")
        or _by_name(columns, _FLUX)
        or next(
            (c for c in columns if c.ucd.lower().startswith(("phot.flux", "phot.count")) and "stat.error" not in c.ucd),
            None,
        )
        or next((c for c in columns if "flux" in c.key and not re.search("err|sig|unc|var|mask|std", c.key)), None)
    )


def _find_error(columns: Sequence[Column], flux: Column) -> tuple[Column | None, ErrorKind]:
    """Return the error of `flux`: one that is named after it comes first."""
    sibling = (
        f"{flux.key}_err",
        f"{flux.key}_error",
        f"err_{flux.key}",
        f"e_{flux.key}",
        f"{flux.key}_sig",
        flux.key.replace("flux", "err"),
        flux.key.replace("flux", "fluxerr"),
        f"{flux.key}_ivar",
        f"{flux.key}_var",
        f"{flux.key}_variance",
    )
    if (found := _by_utype(columns, "fluxaxis.accuracy.staterror", "fluxaxis.error")) is not None:
        return found, "sigma"
    found = _by_name(columns, (*sibling, *_SIGMA, *_IVAR, *_VARIANCE)) or next(
        (c for c in columns if c.ucd.lower().startswith("stat.error") and "phot" in c.ucd.lower()), None
    )
    return found, "sigma" if found is None else _kind(found)


def _kind(error: Column) -> ErrorKind:
    """Return what a column of errors holds, by its name."""
    if _INVERSE.search(error.key):
        return "ivar"
    return "variance" if _SQUARED.search(error.key) else "sigma"


def _by_utype(columns: Sequence[Column], *endings: str) -> Column | None:
    """Return the column with one of these utypes; ESO's own name space holds what is second to the standard's."""
    found = [c for c in columns if c.utype and c.utype.strip().lower().endswith(endings)]
    return next((c for c in found if not c.utype.lower().startswith("eso:")), found[0] if found else None)


def _by_name(columns: Sequence[Column], names: Sequence[str]) -> Column | None:
    """Return the column whose name stands first in `names`."""
    known = {column.key: column for column in reversed(columns)}
    return next((known[name] for name in names if name in known), None)


def _notes(wavelength: Column, flux: Column, columns: Sequence[Column]) -> tuple[str, ...]:
    return (f"columns {wavelength.name} and {flux.name} of {len(columns)}",) if len(columns) > 3 else ()


def unit_of(column: Column) -> str:
    """Return the unit of a wavelength column: as stated, in brackets after its name, or as a part of it."""
    if column.unit.strip().lower() not in UNSTATED:
        return split_log(column.unit)[1]
    bracket = _BRACKET.search(column.name)
    if bracket and _SPECTRAL_UNIT.match(bracket[1].strip()):
        return bracket[1].strip()
    last = column.key.rsplit("_", 1)[-1]
    if _SPECTRAL_UNIT.match(last):
        return last
    return "nm" if column.key == "waveobs" else ""  # iSpec writes nm and does not say so


def medium_of(column: Column, columns: Sequence[Column]) -> Literal["air", "vacuum"] | None:
    """Return the medium that a wavelength column's name, unit or UCD states.

    ESO's Phase 3 standard writes air wavelengths as UCD ``em.wl;obs.atmos``;
    the S1D of ESPRESSO has ``wavelength`` (vacuum) beside ``wavelength_air``.
    """
    if "obs.atmos" in column.ucd.lower() or column.key == "awav":
        return "air"
    if column.key in ("wave", "wavelength") and any(other.key == f"{column.key}_air" for other in columns):
        return "vacuum"
    found = medium_in(column.name) or medium_in(column.unit)
    return found if found in ("air", "vacuum") else None


def values_of(column: Column, where: str) -> Any:
    """Return the values of a column as numbers: shape (n_row,), (n_row, n_pixel), or a list of arrays.

    Raises
    ------
    ReadError
        If it holds something else.
    """
    values = column.load()
    if isinstance(values, list):
        return values
    values = np.asarray(values)
    if values.dtype.kind == "O":
        return [_numbers(np.ravel(np.asarray(cell)), column, where) for cell in values]
    return _numbers(values, column, where)


def _numbers(values: Any, column: Column, where: str) -> Any:
    if values.dtype.kind in "buif":
        return values
    try:
        return values.astype(np.float64)
    except (ValueError, TypeError):
        raise ReadError(f"{where}: column {column.name} holds no numbers") from None
