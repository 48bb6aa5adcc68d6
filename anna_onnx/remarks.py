"""Remarks: what was assumed of spectra and done to them on their way to the network, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from anna_onnx.arrays import FloatArray, IntArray
from anna_onnx.flags import Flag
from anna_onnx.gridding import Gridded, Spectra
from anna_onnx.quality import CONTINUUM_TOLERANCE, continuum_level, ends_below
from anna_onnx.spectrum import Frame, Medium

if TYPE_CHECKING:
    from anna_onnx.preparation import Preparation

ROW_FLAGS = Flag.no_coverage | Flag.partial_coverage | Flag.bad_pixels | Flag.low_snr | Flag.not_normalized
"""Flags that differ from spectrum to spectrum."""
MANY_PIXELS = 10
"""Nobody samples a line that is not resolved with more."""


def remarks(
    model: Preparation,
    spectra: Spectra,
    gridded: Gridded,
    flags: IntArray,
    rv: FloatArray | None,
    rv_error: FloatArray | None,
) -> list[tuple[str, ...]]:
    """Say what was assumed and done; spectra without anything of their own share one tuple.

    Parameters
    ----------
    model : Preparation
        What the spectra were made like.
    spectra, gridded
        Before and after.
    flags : array of int64, shape (n,)
        Bits of `Flag`.
    rv : array, shape (n,), or None
        Velocities that were removed, km/s, NaN = none known; None when none were asked for.
    rv_error : array, shape (n,), or None
        Of those that were measured.
    """
    motion = _of_frame(model, spectra.frame)
    common = (*_of_medium(model, spectra.medium), *_of_resolution(model, spectra))
    if rv is None:
        common += motion
    left = model.velocity_left(spectra, rv)
    own = ((flags & ROW_FLAGS) != 0) | (gridded.normalized != 0) | np.isnan(gridded.snr)
    own |= (rv is not None) | ~np.isnan(left)
    notes = [common] * len(spectra)
    for row in np.flatnonzero(own).tolist():
        lines = list(common)
        if rv is not None:
            lines.append(_of_velocity(model, rv[row], None if rv_error is None else rv_error[row]))
            lines += motion if np.isnan(rv[row]) else ()
        if not np.isnan(left[row]):
            lines.append(f"radial velocity {left[row]:z.1f} km/s not removed (rv), {model.trained_velocities}")
        notes[row] = (*lines, *_of_flux(model, gridded, row, Flag(int(flags[row]))))
    return notes


def _of_medium(model: Preparation, medium: Medium) -> tuple[str, ...]:
    if medium == "unknown":
        return (f"medium not known, taken as {model.grid.medium}",)
    if medium != model.grid.medium:
        return (f"wavelengths converted from {medium} to {model.grid.medium} (Ciddor 1996)",)
    return ()


def _of_resolution(model: Preparation, spectra: Spectra) -> tuple[str, ...]:
    resolution = spectra.resolution
    if model.resolution is None:
        return ()
    if resolution is None:
        middle = spectra.wavelength.size // 2
        step = spectra.wavelength[middle] - spectra.wavelength[middle - 1]
        small = MANY_PIXELS * step < spectra.wavelength[middle] / model.resolution
        hint = "; pixels this small speak of a higher one (resolution)" if small else ""
        return (f"resolving power not known, taken as the model's {model.resolution:.0f}{hint}",)
    how = {1: "degraded to", -1: "below"}.get(model.compare_resolution(resolution))
    return (f"resolving power {resolution:.0f} {how} the model's {model.resolution:.0f}",) if how else ()


def _of_frame(model: Preparation, frame: Frame) -> tuple[str, ...]:
    if not model.is_motion_unknown(frame):
        return ()
    if frame == "unknown":
        return ("frame of the wavelengths not known",)
    trained = "at rest" if model.frame == "rest" else f"on {model.frame} ones"
    return (f"{frame} wavelengths, the model was trained {trained}: the star's velocity is needed (rv)",)


def _of_velocity(model: Preparation, rv: float, error: float | None) -> str:
    trained = f", {model.trained_velocities}" if model.tolerates_motion else ""
    if np.isnan(rv):
        return (
            "no radial velocity known, none removed"
            if error is None
            else f"no radial velocity could be measured{trained}"
        )
    removed = f"radial velocity {rv:z.1f}" if error is None else f"measured radial velocity {rv:z.1f} ± {error:.1f}"
    return f"{removed} km/s removed{'' if model.tolerates(rv) else trained}"


def _of_flux(model: Preparation, gridded: Gridded, row: int, flags: Flag) -> Iterator[str]:
    if gridded.normalized[row]:
        yield "continuum normalised" if gridded.normalized[row] > 0 else "no continuum found to divide by"
    coverage = gridded.coverage[row]
    if not coverage:
        yield f"no good pixel inside {model.grid}"
    elif flags & (Flag.no_coverage | Flag.partial_coverage):
        needed = f"the model needs {_percent(model.min_coverage)}"
        if flags & Flag.no_coverage:
            needed += f", and for any labels {_percent(model.least_coverage)}"
        # Rounded down, what is too little looks so.
        if coverage < model.min_coverage:
            yield f"covers {_percent(np.floor(1000 * coverage) / 1000)} of {model.grid}, {needed}"
    if flags & Flag.partial_coverage and model.lacks_too_many(gridded)[row]:
        lacking = gridded.n_missing[row] / gridded.n_between[row]
        limit = _percent(model.missing_limit)
        yield f"{lacking:.1%} of the pixels between good ones are missing, {limit} may be"
    if coverage and np.isnan(gridded.snr[row]):
        yield "S/N not known: too few good pixels to estimate it from"
    if flags & Flag.bad_pixels:
        yield f"{gridded.n_bad[row] / gridded.n_covered[row]:.1%} of the pixels are bad"
    if flags & Flag.low_snr and model.snr_range is not None:
        yield f"S/N {gridded.snr[row]:.0f}, trained with {model.snr_range[0]:g}-{model.snr_range[1]:g}"
    if flags & Flag.not_normalized:
        level, tilt = continuum_level(gridded.flux[row][None])
        below = ends_below(gridded.flux[row][None])[0]
        change = f", changing by {tilt[0] / level[0]:z.0%}" if level[0] > 0 and np.isfinite(tilt[0]) else ""
        ends = f", {below / level[0]:.0%} lower at both ends" if level[0] > 0 and below > CONTINUUM_TOLERANCE else ""
        yield f"continuum at {level[0]:.3g}{change}{ends}, needed 1"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"
