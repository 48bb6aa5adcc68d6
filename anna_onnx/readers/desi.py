"""DESI spectra and coadds: arms b, r, z (or brz) of many targets, in vacuum and barycentric.

References
----------
https://desidatamodel.readthedocs.io (coadd-SURVEY-PROGRAM-PIXNUM.fits, spectra-).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import ReadError
from anna_onnx.spectrum import Source, Spectrum

from .assembly import as_sigma, assemble
from .facts import Facts
from .fits import FitsFile, Hdu
from .options import ReadOptions
from .orders import merge
from .units import to_angstrom

_WAVELENGTH = re.compile(r"^([A-Z]+)_WAVELENGTH$")


class _Arm(NamedTuple):
    """The images of one arm, (target, pixel); mask may be None."""

    wavelength: FloatArray
    flux: Hdu
    ivar: Hdu
    mask: Hdu | None


def matches(fits: FitsFile) -> bool:
    """Return whether the file has arms."""
    return any(_WAVELENGTH.match(hdu.name) for hdu in fits.hdus)


def read(fits: FitsFile, options: ReadOptions) -> Iterator[Spectrum]:
    """Read all targets, for each its arms, or these merged."""
    arms = [_arm(fits, hdu, options) for hdu in fits.hdus if _WAVELENGTH.match(hdu.name)]
    n_target = {arm.flux.shape[0] for arm in arms}
    if len(n_target) != 1:
        raise ReadError(f"{fits.path}: arms of {sorted(n_target)} targets")
    images = [(arm.flux.image(), arm.ivar.image(), arm.mask.image() if arm.mask else None) for arm in arms]
    names = _names(fits, n_target.pop())
    for row, name in enumerate(names):
        facts = Facts("vacuum", "barycentric", name, ("barycentric wavelengths in vacuum, as all DESI spectra",))
        spectra = [
            assemble(
                arm.wavelength,
                flux[row],
                facts,
                Source(fits.path, arm.flux.index, row),
                options,
                sigma=as_sigma(ivar[row], "ivar"),
                bad=None if mask is None else mask[row] != 0,
            )
            for arm, (flux, ivar, mask) in zip(arms, images, strict=True)
        ]
        yield from [merge(spectra)] if options.merge_orders else spectra


def _arm(fits: FitsFile, hdu: Hdu, options: ReadOptions) -> _Arm:
    name = hdu.name.removesuffix("_WAVELENGTH")
    flux, ivar, mask = (fits.named(f"{name}_{part}") for part in ("FLUX", "IVAR", "MASK"))
    if flux is None or ivar is None or len(flux.shape) != 2 or flux.shape != ivar.shape:
        raise ReadError(f"{fits.path}: arm {name} lacks flux or inverse variance of one shape")
    if hdu.shape != flux.shape[1:]:
        raise ReadError(f"{fits.path}: arm {name} has {flux.shape[1]} pixels and wavelengths of shape {hdu.shape}")
    stored = np.asarray(hdu.image(), dtype=np.float64)
    wavelength, _ = to_angstrom(stored, hdu.header.text("BUNIT"), options.wave_unit, fits.path, default="Angstrom")
    return _Arm(wavelength, flux, ivar, mask if mask is not None and mask.shape == flux.shape else None)


def _names(fits: FitsFile, n_target: int) -> list[str]:
    fibermap = fits.named("FIBERMAP")
    column = fibermap.column("TARGETID") if fibermap else None
    if column is None or column.n_row != n_target:
        return [""] * n_target
    return [str(int(target)) for target in column.load()]
