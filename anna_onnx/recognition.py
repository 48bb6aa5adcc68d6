"""Recognition: is a spectrum, and are its labels, of the kind that a network was trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray
from anna_onnx.fit import Fit
from anna_onnx.labels import scale
from anna_onnx.medium import C_KMS, refractive_index
from anna_onnx.sidecar import Sidecar

AT_REST = 10.0
"""Largest velocity of lines that are said to be at rest, km/s."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `Recognizer.judge` finds.

    Attributes
    ----------
    outside : array of bool, shape (n,)
        The labels lie outside the training set by more than their errors.
    unlike : array of bool, shape (n,)
        The spectrum looks like nothing in the training set.
    reasons : dict of int to str
        What seems wrong with some of the spectra that are unlike, by row.
    """

    outside: BoolArray
    unlike: BoolArray
    reasons: dict[int, str]


class Recognizer:
    """Judges spectra by what a sidecar knows of the training set.

    Parameters
    ----------
    sidecar : Sidecar
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._span = np.array([label.span for label in sidecar.labels])

    def judge(
        self, flux: Float32Array, values: FloatArray, errors: FloatArray, fit: Fit | None, at_rest: BoolArray
    ) -> Verdict:
        """Judge prepared spectra.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            NaN where a pixel is not valid.
        values, errors : arrays, shape (n, n_label)
            Inferred labels and their errors; an old model has none of these (NaN).
        fit : Fit or None
            What the network says of how they compare with these labels.
        at_rest : array of bool, shape (n,)
            Whether the lines are said to be at rest.
        """
        scaled, margin = scale(values, self._sidecar.labels), np.nan_to_num(errors) / self._span
        unlike = ~(self._score(flux, fit) <= 1)  # so is what cannot be compared
        reasons: dict[int, str] = {}
        if fit is not None and self._sidecar.fit_limits is not None:
            displaced = at_rest & (np.abs(fit.velocity) > AT_REST)
            reasons = {int(row): self._displaced(fit.velocity[row]) for row in np.flatnonzero(displaced & ~unlike)}
            unlike |= displaced
        return Verdict(self._outside(scaled, margin), unlike, reasons)

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
        between = C_KMS * (refractive_index(self._sidecar.grid.wavelength.mean()) - 1)
        return (
            f"its lines are {velocity:+.0f} km/s from where they are at rest"
            f" (vacuum taken as air, or the reverse, makes {between:.0f})"
        )
