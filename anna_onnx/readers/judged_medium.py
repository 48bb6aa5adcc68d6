"""The medium where neither the file nor the user states it, judged from the spectrum itself.

Two things tell air from vacuum, and each verdict is a note in the spectrum.

*The grid.* SDSS, BOSS, LAMOST and MaNGA publish on wavelengths whose
logarithms are multiples of 0.0001, and all of them in vacuum. One of their
spectra whose redshift was taken out keeps the step, and only that.

*The lines of the star.* Taken in the wrong medium, they move by
c (n - 1) = 83 km/s. Few stars move as fast, and a spectrum that was brought to
rest does not move at all. So when the strong lines of a multiplet agree on a
velocity that is to be expected in one medium, that is the medium.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.medium import C_KMS, air_to_vacuum
from anna_onnx.spectrum import Medium, Spectrum

SDSS_STEP = 1e-4  # of log10(wavelength)
_OFF_GRID = 0.02  # of a step; wavelengths with two decimals are off by up to 0.006
_MIN_PIXEL = 500
_MIN_SHIFTED = 2000  # where there is the step without the phase

# Wavelengths in air: Kramida et al., NIST Atomic Spectra Database, https://physics.nist.gov/asd. Left out are
# Mg I 5167 and the Balmer lines beyond H gamma, blended in cool stars, and Ca II H and K, which are too broad.
_MULTIPLETS = ("Balmer lines", "Mg b", "Na D", "Ca II triplet")
_LINES = (
    *((4340.46, 0), (4861.32, 0), (5172.68, 1), (5183.60, 1), (5889.95, 2)),
    *((5895.92, 2), (6562.79, 0), (8498.02, 3), (8542.09, 3), (8662.14, 3)),
)
_AIR = [air for air, _ in _LINES]
_MULTIPLET = [multiplet for _, multiplet in _LINES]
_SHIFT = (C_KMS * (air_to_vacuum(_AIR) / _AIR - 1)).tolist()  # km/s, from one medium to the other
_VELOCITY = np.arange(-150.0, 236.0, 5.0)  # km/s beside the expected one, as if in air; 83 more than as if in vacuum
_SAMPLED = np.outer(_AIR, 1 + _VELOCITY / C_KMS)  # wavelengths, (line, velocity)
_INSIDE = (60.0, 145.0)  # km/s to either side of a line that a spectrum must cover

# km/s from the expected velocity, in air and in vacuum. What is so near in one medium is far from it in the other. But
# where the velocity is not known, a star in air at 83 km/s looks like one in vacuum at rest. Most optical spectra are
# in air, so that only one evidently brought to rest is taken to be in vacuum.
_NEAR_KNOWN = (30.0, 30.0)  # the Earth's motion may be in it
_NEAR_REST = (20.0, 5.0)
_AGREEMENT = 8.0  # km/s
_MAX_STEP = 20.0  # km/s a pixel
_REACH = 11  # samples, 55 km/s from the deepest to either side; a line of more at half depth is not clear
_AROUND = np.arange(-_REACH, _REACH + 1)
_MIN_RESOLUTION = 5000.0
_DEPTH = (0.3, 1.0)  # of the continuum; what is deeper is no light of a star
_CONTRAST = 4.0  # depth over the scatter beside the line; noise alone reaches 3.4
_EMISSION = 0.5  # above the continuum
_CONTINUUM = int(0.85 * _VELOCITY.size)  # the rank of the pixel that stands for it
_BY_LINES = "judged by its lines"


def judge(spectrum: Spectrum) -> Spectrum:
    """Return a spectrum of unknown medium with the medium that its grid or its lines tell, if they do, and a note.

    Parameters
    ----------
    spectrum : Spectrum
        Its frame and radial velocity, where known, say where lines are to be expected.

    Returns
    -------
    Spectrum
        The same one where nothing is told.
    """
    medium, why = _by_grid(spectrum.wavelength)
    if medium == "unknown":
        medium, why = _by_lines(spectrum)
    if medium == "unknown":
        return spectrum
    return replace(spectrum, medium=medium, notes=(*spectrum.notes, f"medium {medium}, {why}"))


def rests_on_flux(spectrum: Spectrum) -> bool:
    """Return whether other flux on the same wavelengths, with the same header, could be judged otherwise."""
    if spectrum.medium == "unknown":
        return len(_lines_within(spectrum.wavelength)) > 1
    return any(_BY_LINES in note for note in spectrum.notes)


def _by_grid(wavelength: FloatArray) -> tuple[Medium, str]:
    """Return vacuum for the grid of SDSS, else unknown, and why."""
    n = wavelength.size
    if n < _MIN_PIXEL or abs(math.log10(wavelength[-1] / wavelength[0]) / SDSS_STEP - (n - 1)) > 2 * _OFF_GRID:
        return "unknown", ""
    phase = np.log10(wavelength) / SDSS_STEP
    if np.abs(phase - np.rint(phase)).max() < _OFF_GRID:
        return "vacuum", "as SDSS, BOSS, LAMOST and MaNGA have it, on whose grid it is"
    phase -= np.arange(n)
    if n >= _MIN_SHIFTED and np.ptp(phase) < 2 * _OFF_GRID:
        return "vacuum", "as SDSS, BOSS, LAMOST and MaNGA have it, whose step of 0.0001 in log10 it has"
    return "unknown", ""


def _by_lines(spectrum: Spectrum) -> tuple[Medium, str]:
    """Return the medium in which all clear multiplets are at the expected velocity, else unknown, and why."""
    lines = _lines_within(spectrum.wavelength)
    expected, known = _expected_velocity(spectrum)
    if len(lines) < 2 or expected is None or _is_coarse(spectrum):
        return "unknown", ""
    found = _velocities(spectrum, lines, expected)
    if not found:
        return "unknown", ""
    names, in_air, in_vacuum = zip(*found, strict=True)
    how = f"{_BY_LINES}: {', '.join(names)}"
    air, vacuum = f"{_mean(in_air):+.0f} km/s", f"{_mean(in_vacuum):+.0f} km/s"
    near_air, near_vacuum = _NEAR_KNOWN if known else _NEAR_REST
    if all(abs(velocity - expected) < near_air for velocity in in_air):
        return "air", f"{how} then at {air}, as vacuum at {vacuum}"
    if all(abs(velocity - expected) < near_vacuum for velocity in in_vacuum):
        return "vacuum", f"{how} then at {vacuum}, as air at {air}"
    return "unknown", ""


def _lines_within(wavelength: FloatArray) -> range:
    """Return which lines the wavelengths cover with some room to either side; cheap, for most cover fewer than two."""
    first = bisect_left(_AIR, wavelength[0] * (1 + _INSIDE[0] / C_KMS))
    return range(first, bisect_right(_AIR, wavelength[-1] * (1 - _INSIDE[1] / C_KMS)))


def _is_coarse(spectrum: Spectrum) -> bool:
    """Return whether blends shift the lines more than tells the media apart."""
    first, last = spectrum.wavelength[[0, -1]].tolist()
    step = C_KMS * math.log(last / first) / (spectrum.n_pixel - 1)
    return step > _MAX_STEP or (spectrum.resolution or math.inf) < _MIN_RESOLUTION


def _expected_velocity(spectrum: Spectrum) -> tuple[float | None, bool]:
    """Return the velocity that the lines should have, and whether it is known rather than that of most stars."""
    if spectrum.frame == "rest":
        return 0.0, True
    if spectrum.radial_velocity is None:
        return 0.0, False
    # In an unknown frame the velocity may be in the wavelengths, or taken out of them.
    return (None if spectrum.frame == "unknown" else spectrum.radial_velocity), True


def _velocities(spectrum: Spectrum, lines: range, expected: float) -> list[tuple[str, float, float]]:
    """Return the multiplets whose lines are all clear and agree, with their velocities as if in air and in vacuum."""
    measured = dict(zip(lines, _line_velocities(spectrum, lines, expected), strict=True))
    found = []
    for multiplet, name in enumerate(_MULTIPLETS):
        own = [line for line in lines if _MULTIPLET[line] == multiplet]
        velocity = [measured[line] for line in own]
        if len(own) > 1 and not math.isnan(sum(velocity)) and max(velocity) - min(velocity) < _AGREEMENT:
            in_air, shift = _mean(velocity), _mean([_SHIFT[line] for line in own])
            found.append((name, in_air, in_air - shift))
    return found


def _line_velocities(spectrum: Spectrum, lines: range, expected: float) -> list[float]:
    """Return where absorption lines are, km/s as if in air: the centroids of their lower halves; NaN if not clear.

    They are looked for around the expected velocity. A line is clear when it is deep and narrow, stands out from what
    is beside it, and nothing beside it is in emission.
    """
    flux = np.where(spectrum.bad, np.nan, spectrum.flux) if spectrum.bad.any() else spectrum.flux
    sampled = _SAMPLED[lines.start : lines.stop] * (1 + expected / C_KMS)  # (line, velocity)
    profile = np.interp(sampled, spectrum.wavelength, flux)
    ordered = np.sort(profile, axis=1)  # NaN last, so that it is the highest
    continuum = ordered[:, _CONTINUUM]
    deepest, highest = 1 - ordered[:, 0] / continuum, ordered[:, -1] / continuum
    clear = (deepest > _DEPTH[0]) & (deepest < _DEPTH[1]) & (highest < 1 + _EMISSION) & (continuum > 0)
    if np.count_nonzero(clear) < 2:
        return [math.nan] * len(lines)
    depth = 1 - profile / continuum[:, None]
    at = np.minimum(np.maximum(profile.argmin(axis=1), _REACH), _VELOCITY.size - 1 - _REACH)
    near = at[:, None] + _AROUND
    core = depth[np.arange(len(lines))[:, None], near]
    lower = np.maximum(core - 0.5 * deepest[:, None], 0)
    n_beside = _VELOCITY.size - _AROUND.size
    mean = (depth.sum(axis=1) - core.sum(axis=1)) / n_beside
    scatter2 = ((depth**2).sum(axis=1) - (core**2).sum(axis=1)) / n_beside - mean**2
    clear &= (lower[:, 0] + lower[:, -1] == 0) & (deepest**2 > _CONTRAST**2 * scatter2)
    centroid = (lower * _VELOCITY[near]).sum(axis=1) / lower.sum(axis=1)
    velocities: list[float] = np.where(clear, centroid + expected, np.nan).tolist()
    return velocities


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
