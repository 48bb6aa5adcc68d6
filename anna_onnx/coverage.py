"""Coverage: how often intervals hold the truth, overall and where a quantity is low, middling or high."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import FloatArray
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.scatter import thirds

REPORTED_LEVELS = (ONE_SIGMA, 0.9, 0.95)
TOLERANCE = 0.03
"""Deviation from what an interval promises that is still good."""
THIRDS = ("lowest", "middle", "highest")


@dataclass(frozen=True, eq=False)
class Coverage:
    """Fractions of truths inside intervals.

    Attributes
    ----------
    n, n_star : int
        Spectra, and different stars among them.
    levels : tuple of float
        What the intervals promise.
    labels : tuple of str
    groups : tuple of str
        ``snr`` and the labels: what the spectra were sorted by.
    edges : array, shape (n_group, 2)
        Where the thirds of a group part.
    overall : array, shape (n_label, n_level)
    thirds : array, shape (n_label, n_group, 3, n_level)
    """

    n: int
    n_star: int
    levels: tuple[float, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    edges: FloatArray
    overall: FloatArray
    thirds: FloatArray

    def chance(self, level: float) -> float:
        """Return the standard deviation of a third's coverage that the number of stars alone brings."""
        return float(np.sqrt(level * (1 - level) / max(self.n_star / 3, 1)))

    def warning(self) -> str | None:
        """Return a line on the third that is farthest from what a reported level promises; None when all are near."""
        off = np.nan_to_num(self.thirds - np.array(self.levels)) * np.isin(self.levels, REPORTED_LEVELS)
        i, g, t, k = (int(place) for place in np.unravel_index(np.abs(off).argmax(), off.shape))
        if abs(off[i, g, t, k]) <= TOLERANCE:
            return None
        group = "S/N" if self.groups[g] == "snr" else self.groups[g]
        return (
            f"coverage is off: the {percent(self.levels[k])} interval of {self.labels[i]} holds "
            f"{self.thirds[i, g, t, k]:.1%} of the truths in the {THIRDS[t]} third of {group}, "
            f"{abs(off[i, g, t, k]) * 100:.1f} points too {'many' if off[i, g, t, k] > 0 else 'few'} "
            f"(chance: {self.chance(self.levels[k]) * 100:.1f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "n": self.n,
            "n_star": self.n_star,
            "levels": list(self.levels),
            "labels": list(self.labels),
            "groups": list(self.groups),
            **{name: _for_json(getattr(self, name)) for name in ("edges", "overall", "thirds")},
        }

    @classmethod
    def from_dict(cls, values: Any) -> Coverage | None:
        """Return what `to_dict` wrote, None for anything else: provenance is free text to a reader."""
        try:
            found = cls(
                int(values["n"]),
                int(values["n_star"]),
                tuple(float(level) for level in values["levels"]),
                tuple(str(name) for name in values["labels"]),
                tuple(str(name) for name in values["groups"]),
                *(np.array(values[name], dtype=np.float64) for name in ("edges", "overall", "thirds")),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        shape = (len(found.labels), len(found.groups), 3, len(found.levels))
        fits = found.thirds.shape == shape and found.overall.shape == (shape[0], shape[3])
        return found if fits and 0 not in shape and found.edges.shape == (shape[1], 2) else None


def measure_coverage(
    error: FloatArray,
    half_widths: FloatArray,
    groups: Mapping[str, FloatArray],
    *,
    levels: Sequence[float] = REPORTED_LEVELS,
    labels: Sequence[str],
    star: NDArray[Any],
) -> Coverage:
    """Count how often intervals hold the truth.

    Parameters
    ----------
    error : array, shape (n, n_label)
        Inferred minus true, NaN where the truth is not known.
    half_widths : array, shape (n_level, n, n_label)
        Of the intervals, NaN where the model states no error.
    groups : mapping of str to array, shape (n,)
        What to sort the spectra by into thirds of equal number; NaN: in none.
    levels, labels : sequences
    star : array, shape (n,)
        Names of the stars; spectra of one star are no independent evidence.
    """
    unknown = np.isnan(error) | np.isnan(half_widths)
    inside = np.where(unknown, np.nan, np.abs(error) <= half_widths)  # (level, spectrum, label)
    edges, members = (np.stack(part) for part in zip(*map(thirds, groups.values()), strict=True))
    by_third = [[_mean(inside[:, rows]) for rows in group] for group in members]  # (group, third, level, label)
    return Coverage(
        len(error),
        np.unique(star).size,
        tuple(levels),
        tuple(labels),
        tuple(groups),
        edges,
        _mean(inside).T,
        np.array(by_third).transpose(3, 0, 1, 2),
    )


def _for_json(values: FloatArray) -> Any:
    """Return nested lists; JSON has no NaN."""
    nested = np.round(values, 5).astype(object)
    nested[np.isnan(values)] = None
    return nested.tolist()


def _mean(inside: FloatArray) -> FloatArray:
    """Return the mean over the spectra, shape (n_level, n_label); NaN where there are none."""
    known = np.isfinite(inside)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, inside, 0).sum(axis=1) / known.sum(axis=1))


def percent(level: float) -> str:
    """Return a level as people say it: 68 % for 0.6827."""
    return f"{level * 100:.0f} %"
