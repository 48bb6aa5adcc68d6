"""Recognition: is a spectrum, and are its labels, of the kind that a network was trained on?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray
from anna_onnx.fit import Fit
from anna_onnx.labels import scale
from anna_onnx.medium import C_KMS, refractive_index
from anna_onnx.preparation import EARTH_MOTION
from anna_onnx.sidecar import Sidecar
from anna_onnx.spectrum import Medium
from anna_onnx.velocity import Velocities, fitted_rv

AT_REST = 10.0
"""Largest velocity of lines that are said to be at rest, km/s."""
SURELY = 3.0
"""Errors of a velocity that 99 % of the measured ones are within (``benchmarks/reference_task.py``)."""
CLOSE = 0.6
"""Velocities that differ by more, km/s, are not taken as the same, however large their error."""
TOO_SHARP = "its lines are sharper than those of the training: its resolving power is higher (resolution)"


class Said(NamedTuple):
    """What is said of the wavelengths of some spectra.

    Attributes
    ----------
    medium : {'air', 'vacuum', 'unknown'}
    at_rest : array of bool, shape (n,)
        The lines are at rest.
    velocity : array of float, shape (n,)
        Of the star, km/s, where it is stated and was not removed, else NaN.
    barycentric : bool
        The motion of the Earth is not in the wavelengths.
    """

    medium: Medium
    at_rest: BoolArray
    velocity: FloatArray
    barycentric: bool


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `Recognizer.judge` finds.

    Attributes
    ----------
    outside : array of bool, shape (n,)
        The labels lie outside the training set by more than their errors.
    unlike : array of bool, shape (n,)
        The spectrum looks like nothing in the training set.
    doubtful : array of bool, shape (n,)
        The lines are where those of a star at rest are in the other medium.
    reasons : dict of int to str
        What seems wrong with some of the spectra, by row.
    """

    outside: BoolArray
    unlike: BoolArray
    doubtful: BoolArray
    reasons: dict[int, str]


class _Place(NamedTuple):
    """What is wrong with where the lines of some spectra are, each an array of shape (n,).

    Attributes
    ----------
    rv : array of float
        km/s, where a velocity was measured, else NaN.
    displaced, beyond, doubtful : array of bool
        Not at rest, though said to be; beyond the velocities of the training; where the other medium has them at rest.
    """

    rv: FloatArray
    displaced: BoolArray
    beyond: BoolArray
    doubtful: BoolArray


class Recognizer:
    """Judges spectra by what a sidecar knows of the training set.

    Parameters
    ----------
    sidecar : Sidecar
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._span = np.array([label.span for label in sidecar.labels])

    def judge(self, flux: Float32Array, values: FloatArray, errors: FloatArray, fit: Fit | None, said: Said) -> Verdict:
        """Judge prepared spectra.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            NaN where a pixel is not valid.
        values, errors : arrays, shape (n, n_label)
            Inferred labels and their errors; an old model has none of these (NaN).
        fit : Fit or None
            What the network says of how they compare with these labels.
        said : Said
        """
        scaled, margin = scale(values, self._sidecar.labels), np.nan_to_num(errors) / self._span
        outside = self._outside(scaled, margin)
        unlike = ~(self._score(flux, fit) <= 1)  # so is what cannot be compared
        limits = self._sidecar.fit_limits
        if fit is None or limits is None:
            return Verdict(outside, unlike, np.zeros_like(unlike), {})
        told = np.asarray(np.isfinite(values).all(axis=1))
        place = self._locate(flux, fit, said, told)
        beyond = "its lines are shifted by {:+.0f} km/s, " + self._sidecar.preparation.trained_velocities
        reasons = {
            **dict.fromkeys(_rows(told & limits.sharper(fit)), TOO_SHARP),
            **{row: self._displaced(fit.velocity[row]) for row in _rows(place.displaced & ~unlike)},
            **{row: beyond.format(place.rv[row]) for row in _rows(place.beyond)},
            **{row: self._doubtful(place.rv[row], said.velocity[row]) for row in _rows(place.doubtful)},
        }
        return Verdict(outside, unlike | place.displaced | place.beyond, place.doubtful, reasons)

    def _locate(self, flux: Float32Array, fit: Fit, said: Said, told: BoolArray) -> _Place:
        """Return what is wrong with where the lines of those are that labels were told of."""
        preparation = self._sidecar.preparation
        if preparation.frame != "rest":  # training spectra in another do not tell where lines are at rest
            none = np.zeros_like(told)
            return _Place(np.full(len(told), np.nan), none, none, none)
        # Where the lines are if the medium is the other one, and how well that is known.
        other = self._of_other(said.medium) + np.nan_to_num(said.velocity)
        stated = AT_REST if said.barycentric else AT_REST + EARTH_MOTION
        close = np.where(np.isnan(said.velocity), CLOSE, stated)
        rv, error = self._measure(flux, fit, told & ~said.at_rest, np.abs(fit.velocity - other) <= close)
        sure = SURELY * error
        return _Place(
            rv=rv,
            displaced=told & said.at_rest & (np.abs(fit.velocity) > AT_REST),
            beyond=~preparation.tolerates(np.sign(rv) * (np.abs(rv) - sure)),
            doubtful=np.abs(rv - other) <= np.where(np.isnan(said.velocity), np.minimum(sure, close), close),
        )

    def _measure(self, flux: Float32Array, fit: Fit, wanted: BoolArray, near: BoolArray) -> Velocities:
        """Return the velocities of those wanted that have one which means something; NaN of all others.

        That is a velocity beyond those of the training, or near one that means something, of a network that was
        trained over velocities.
        """
        preparation, limits = self._sidecar.preparation, self._sidecar.fit_limits
        found = Velocities(np.full(len(flux), np.nan), np.full(len(flux), np.nan))
        if limits is None or not preparation.tolerates_motion:
            return found
        rows = np.flatnonzero(wanted & (near | ~preparation.tolerates(fit.velocity)))
        if rows.size:
            found.rv[rows], found.error[rows] = fitted_rv(fit.take(rows), limits, flux[rows], preparation.line_width)
        return found

    def _score(self, flux: Float32Array, fit: Fit | None) -> FloatArray:
        """Return how far spectra are from those of the training, shape (n,): above 1 further than clean ones are."""
        novelty, limits = self._sidecar.novelty, self._sidecar.fit_limits
        if fit is not None and limits is not None:
            return limits.score(fit)
        return np.zeros(len(flux)) if novelty is None else novelty.score(flux)

    def _outside(self, scaled: FloatArray, margin: FloatArray) -> BoolArray:
        """Return whether labels lie outside the training set by more than a margin.

        Half of the stars at the edge come out beyond it: only more than the error counts.
        """
        # A value that is no number is outside too.
        outside = ~((scaled + margin >= 0) & (scaled - margin <= 1)).all(axis=1)
        if self._sidecar.hull is not None:
            outside |= self._sidecar.hull.outside(scaled, margin)
        return np.asarray(outside)

    def _displaced(self, velocity: float) -> str:
        """Say of a spectrum that fits at a velocity, but not at rest where it should be, which it is."""
        return (
            f"its lines are {velocity:+.0f} km/s from where they are at rest"
            f" (vacuum taken as air, or the reverse, makes {self._between:.0f})"
        )

    def _doubtful(self, velocity: float, stated: float) -> str:
        """Say of a spectrum whose medium is in doubt why."""
        shift = velocity - np.nan_to_num(stated)
        mistake = "vacuum taken as air" if shift > 0 else "air taken as vacuum"
        if np.isnan(stated):
            return f"its lines are shifted by {shift:+.1f} km/s, as those of a star at rest are by {mistake}"
        made = np.sign(shift) * self._between
        return f"its lines are {shift:+.0f} km/s from the stated velocity, {mistake} makes {made:+.0f}"

    def _of_other(self, medium: Medium) -> float:
        """Return the velocity, km/s, at which the lines of a star at rest are if a medium is the other one."""
        taken = self._sidecar.grid.medium if medium == "unknown" else medium
        return self._between if taken == "air" else -self._between

    @cached_property
    def _between(self) -> float:
        """What air and vacuum differ by, km/s."""
        return float(C_KMS * (refractive_index(self._sidecar.grid.wavelength.mean()) - 1))


def _rows(chosen: BoolArray) -> list[int]:
    return [int(row) for row in np.flatnonzero(chosen)]
