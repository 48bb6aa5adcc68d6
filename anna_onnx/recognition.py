"""Recognition: is a spectrum, and are its labels, of the kind that a network was trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anna_onnx.bundle import Sidecar
from anna_onnx.emulator import KNOWN_TO, Emulator, Fit
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
        outside, unlike = self._outside(scaled, margin), np.zeros(len(flux), dtype=bool)
        reasons: dict[int, str] = {}
        if (novelty := self._sidecar.novelty) is not None:
            unlike = novelty.score(flux) > 1
        if (emulator := self._sidecar.emulator) is not None:
            for known in (True, False):
                for rows in _pieces(np.flatnonzero(at_rest == known)):
                    given = flux[rows], scaled[rows], margin[rows]
                    fit = emulator.compare(*given, self._shifter, AT_REST if known else None)
                    beyond = emulator.score(fit) > 1
                    unlike[rows] |= beyond
                    if known and beyond.any():
                        free = emulator.compare(
                            flux[rows[beyond]], scaled[rows[beyond]], margin[rows[beyond]], self._shifter
                        )
                        reasons |= dict(zip(rows[beyond].tolist(), self._reasons(emulator, free), strict=True))
        return Verdict(outside, unlike, {row: reason for row, reason in reasons.items() if reason})

    def _outside(self, scaled: FloatArray, margin: FloatArray) -> BoolArray:
        """Return whether labels lie outside the training set by more than a margin.

        Half of the stars at the edge come out beyond it: only more than the error counts.
        """
        # A value that is no number is outside too.
        outside = ~((scaled + margin >= 0) & (scaled - margin <= 1)).all(axis=1)
        if self._sidecar.hull is not None:
            outside |= self._sidecar.hull.outside(scaled, margin)
        return np.asarray(outside)

    def _reasons(self, emulator: Emulator, fit: Fit) -> list[str]:
        """Say of spectra that do not fit at rest, but do at a velocity, which it is."""
        center = self._sidecar.grid.wavelength.mean()
        between = C_KMS * (refractive_index(center) - 1)
        displaced = (emulator.score(fit) <= 1) & (np.abs(fit.velocity) > KNOWN_TO)
        return [
            f"lines {velocity:+.0f} km/s from where they are at rest (air taken as vacuum, or the reverse: "
            f"{between:.0f} km/s)"
            if moved
            else ""
            for velocity, moved in zip(fit.velocity, displaced, strict=True)
        ]


def _pieces(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [rows[part] for part in blocks(len(rows), ROWS)]
