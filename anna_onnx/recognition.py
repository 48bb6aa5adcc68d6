"""Recognition: is a spectrum, and are its labels, of the kind that a network was trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anna_onnx.bundle import Sidecar
from anna_onnx.emulator import KNOWN_TO
from anna_onnx.labels import scale
from anna_onnx.medium import C_KMS, refractive_index
from anna_onnx.shifting import Shifter
from anna_onnx.trainingset import blocks

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Image = NDArray[np.float32]

ROWS = 128  # at once: their arrays stay in the processor's cache
AT_REST = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `Recognizer.judge` finds.

    Attributes
    ----------
    outside : array of bool, shape (n,)
        The labels lie outside the training set by more than their errors.
    unlike : array of bool, shape (n,)
        The spectrum looks like nothing in the training set.
    misfit : array, shape (n,)
        What the emulation of the labels leaves, in units of the noise; NaN without an emulator.
    reasons : dict of int to str
        What seems wrong with some of the spectra that are unlike, by row.
    """

    outside: BoolArray
    unlike: BoolArray
    misfit: FloatArray
    reasons: dict[int, str]


class Recognizer:
    """Judges spectra by what a sidecar knows of the training set.

    Parameters
    ----------
    sidecar : Sidecar
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._shifter = Shifter(sidecar.grid)
        self._span = np.array([label.span for label in sidecar.labels])

    def judge(self, flux: Image, values: FloatArray, errors: FloatArray, at_rest: BoolArray) -> Verdict:
        """Judge prepared spectra.

        Parameters
        ----------
        flux : array of float32, shape (n, n_pixel)
            NaN where a pixel is not valid.
        values, errors : arrays, shape (n, n_label)
            Inferred labels and their errors; an old model has none of these (NaN).
        at_rest : array of bool, shape (n,)
            Whether the lines are said to be at rest.
        """
        scaled, margin = scale(values, self._sidecar.labels), np.nan_to_num(errors) / self._span
        unlike, misfit = np.zeros(len(flux), dtype=bool), np.empty(len(flux))
        reasons: dict[int, str] = {}
        for group, velocities in ((at_rest, AT_REST), (~at_rest, None)):
            for rows in _pieces(np.flatnonzero(group)):
                unlike[rows], misfit[rows], _ = self._compare(flux[rows], scaled[rows], margin[rows], velocities)
        for rows in _pieces(np.flatnonzero(at_rest & unlike)):
            still, _, velocity = self._compare(flux[rows], scaled[rows], margin[rows], None)
            displaced = ~still & (np.abs(velocity) > KNOWN_TO)
            reasons |= {int(row): self._reason(v) for row, v in zip(rows[displaced], velocity[displaced], strict=True)}
        return Verdict(self._outside(scaled, margin), unlike, misfit, reasons)

    def _compare(
        self, flux: Image, scaled: FloatArray, margin: FloatArray, velocities: tuple[float, float] | None
    ) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Return whether spectra are unlike those of the training at some velocities, their misfit and velocity."""
        novelty, emulator = self._sidecar.novelty, self._sidecar.emulator
        if emulator is None:
            score = np.zeros(len(flux)) if novelty is None else novelty.score(flux)
            return ~(score <= 1), np.full(len(flux), np.nan), np.zeros(len(flux))
        fit = emulator.compare(flux, scaled, margin, self._shifter, velocities)
        score = emulator.score(fit)
        if novelty is not None:
            score = np.maximum(score, novelty.score(flux, fit.pixel_noise))
        return ~(score <= 1), fit.misfit_in_noise, fit.velocity

    def _outside(self, scaled: FloatArray, margin: FloatArray) -> BoolArray:
        """Return whether labels lie outside the training set by more than a margin.

        Half of the stars at the edge come out beyond it: only more than the error counts.
        """
        # A value that is no number is outside too.
        outside = ~((scaled + margin >= 0) & (scaled - margin <= 1)).all(axis=1)
        if self._sidecar.hull is not None:
            outside |= self._sidecar.hull.outside(scaled, margin)
        return np.asarray(outside)

    def _reason(self, velocity: float) -> str:
        """Say of a spectrum that fits at a velocity, but not at rest where it should be, which it is."""
        between = C_KMS * (refractive_index(self._sidecar.grid.wavelength.mean()) - 1)
        return (
            f"its lines are {velocity:+.0f} km/s from where they are at rest"
            f" (vacuum taken as air, or the reverse, makes {between:.0f})"
        )


def _pieces(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [rows[part] for part in blocks(len(rows), ROWS)]
