"""Assessment: what a model makes of spectra whose labels are known, and how far that is from what can be known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx.arrays import BoolArray, Float32Array, FloatArray, IntArray
from anna_onnx.bundle import Bundle
from anna_onnx.calibration import ONE_SIGMA, Trends
from anna_onnx.coverage import Coverage, measure_coverage
from anna_onnx.inference import half_width
from anna_onnx.labels import Label, canonical, scale, unscale
from anna_onnx.limit import UNCONSTRAINED
from anna_onnx.scatter import MAD, describe, in_words, rms, thirds

COVERAGE_LEVELS = (0.5, ONE_SIGMA, 0.8, 0.9, 0.95)
PER_STAR = ("id", "flux", "true", "values", "sigma", "snr", "measured_snr", "flags", "bound")
ROUNDING = 1e-6
"""Of a label in single precision, of its range."""


@dataclass(frozen=True)
class Statistics:
    """Residuals, inferred minus true, of one label.

    Attributes
    ----------
    name, unit : str
        The unit is that of a difference, see `Label.difference_unit`.
    bias, scatter, robust_scatter, rms : float
        Mean, standard deviation, 1.4826 x median absolute deviation, root mean square.
    rms_corrected : float
        The RMS after residual trends are taken out (cross-validated order).
    coverage : float
        Fraction of truths inside the 68 % interval.
    bound : float
        RMS over the stars of the Cramér-Rao bound; NaN where it is not known.
    over_bound : float
        RMS of the residuals over that of the bound, of the same stars.
    median_over_bound : float
        Median over the stars of abs(residual) / bound, over 0.6745: 1 for normal errors at the bound.
    """

    name: str
    unit: str
    bias: float
    scatter: float
    robust_scatter: float
    rms: float
    rms_corrected: float
    coverage: float
    bound: float
    over_bound: float
    median_over_bound: float


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a model makes of spectra whose labels are known.

    Attributes
    ----------
    bundle : Bundle
    id : array, shape (n,)
    flux : array of float32, shape (n, n_pixel)
        As the network saw it.
    true, values, sigma : arrays, shape (n, n_label)
        In the labels' units; `sigma` is the network's, scaled by how well each spectrum fits.
    snr, measured_snr : arrays, shape (n,)
        Of the noise that was drawn, if it is known, and as inference measures it, which takes narrow lines for noise.
    flags : array of int64, shape (n,)
        Bits of `Flag`.
    trends : Trends
        Fitted to these residuals.
    about : mapping of str to str
        How the test was made, for a person to read.
    bound : array, shape (n, n_label), or None
        Cramér-Rao bound of each star; NaN where it is not known.
    joint_coverage : float, optional
        How often the 68 % ellipsoid of all labels together holds the truth; None for a network without covariance.
    notes : tuple of str
        What to know of the spectra before the figures are believed.
    """

    bundle: Bundle
    id: NDArray[Any]
    flux: Float32Array
    true: FloatArray
    values: FloatArray
    sigma: FloatArray
    snr: FloatArray
    measured_snr: FloatArray
    flags: IntArray
    trends: Trends
    about: Mapping[str, str] = field(default_factory=dict)
    bound: FloatArray | None = None
    joint_coverage: float | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.true)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels of the model."""
        return self.bundle.sidecar.labels

    @cached_property
    def within(self) -> Assessment:
        """The stars within the ranges of the labels, the only ones that the model promises anything of."""
        inside = within_ranges(self.true, self.labels)
        if inside.all():
            return self
        rows = {name: values[inside] for name in PER_STAR if (values := getattr(self, name)) is not None}
        n = int((~inside).sum())
        where = f"{n} of {len(self)} stars {'lies' if n == 1 else 'lie'} outside the ranges of the labels"
        note = f"{where}: in test_stats.csv, but in no other figure"
        return dataclasses.replace(self, **rows, notes=(*self.notes, note))

    @cached_property
    def error(self) -> FloatArray:
        """Inferred minus true, shape (n, n_label)."""
        return self.values - self.true

    @cached_property
    def corrected(self) -> FloatArray:
        """The error after residual trends are taken out, shape (n, n_label)."""
        return unscale(self.trends.correct(scale(self.values, self.labels)), self.labels) - self.true

    @property
    def has_errors(self) -> bool:
        """Whether the model states errors; one of the old program does not always."""
        return bool(np.isfinite(self.sigma).any())

    def half_width(self, level: float) -> FloatArray:
        """Return the half width of the intervals of a level, shape (n, n_label)."""
        return half_width(self.bundle, self.sigma, self.measured_snr, level)

    @cached_property
    def coverage(self) -> Coverage:
        """How often intervals hold the truth."""
        names = [label.name for label in self.labels]
        return measure_coverage(
            self.error,
            np.stack([self.half_width(level) for level in COVERAGE_LEVELS]),
            {"snr": self.snr, **dict(zip(names, self.true.T, strict=True))},
            levels=COVERAGE_LEVELS,
            labels=names,
            star=self.id,
        )

    @cached_property
    def statistics(self) -> tuple[Statistics, ...]:
        """The residuals of each label in numbers."""
        return tuple(self._statistics_of(i, label) for i, label in enumerate(self.labels))

    def _statistics_of(self, i: int, label: Label) -> Statistics:
        over_bound, median_over_bound = self.over_bound(i, np.ones(len(self), dtype=np.bool_))
        return Statistics(
            name=label.name,
            unit=label.difference_unit,
            **describe(self.error[:, i]),
            rms_corrected=rms(self.corrected[:, i]),
            coverage=float(self.coverage.overall[i, COVERAGE_LEVELS.index(ONE_SIGMA)]),
            bound=np.nan if self.bound is None else rms(self.bound[:, i]),
            over_bound=over_bound,
            median_over_bound=median_over_bound,
        )

    def over_bound(self, i: int, rows: BoolArray) -> tuple[float, float]:
        """Return rms / bound and the median ratio (see `Statistics`) of a label, of some of the stars."""
        if self.bound is None:
            return np.nan, np.nan
        error, least = self.error[rows, i], self.bound[rows, i]
        known = np.isfinite(error) & np.isfinite(least)
        if not known.any():
            return np.nan, np.nan
        typical = MAD * np.median(np.abs(error[known]) / least[known])
        return rms(error[known]) / rms(least[known]), float(typical)

    @cached_property
    def snr_thirds(self) -> list[tuple[str, BoolArray]]:
        """The spectra in thirds of the S/N: what to call each, and its rows."""
        return named_thirds("S/N", self.snr, ".0f")

    def unconstrained(self) -> list[str]:
        """Return a line for each label that the spectra hardly constrain, and where that is so."""
        if self.bound is None:
            return []
        lines = []
        for i, label in enumerate(self.labels):
            weak = [
                name
                for name, rows in [("", np.ones(len(self), dtype=np.bool_)), *self.snr_thirds]
                if rms(self.bound[rows, i]) > UNCONSTRAINED * label.span / np.sqrt(12)
            ]
            if weak:
                where = "these spectra" if "" in weak else f"spectra of {' and '.join(weak)}"
                lines.append(f"{where} hardly constrain {label.name}: no method can know much more than its range")
        return lines

    def bound_note(self) -> list[str]:
        """Return what to know of the local bound where it is no limit."""
        even = [label.name for label in self.labels if canonical(label.name) in ("vmic", "vsini")]
        if self.bound is None or not even:
            return []
        return [f"near zero the local bound of {' and '.join(even)} is no limit, and the ratio may come out below 1"]


def within_ranges(true: FloatArray, labels: Sequence[Label]) -> BoolArray:
    """Return which stars lie within the ranges of the labels, shape (n,); of what is not known nothing is held."""
    scaled = scale(true, labels)
    return np.asarray(~((scaled < -ROUNDING) | (scaled > 1 + ROUNDING)).any(axis=1))


def known_from_training(bundle: Bundle, file: str, sha256: str) -> tuple[str, ...]:
    """Return a line where a test set is one that the model was made with, by what the model says of its making."""
    data = bundle.sidecar.provenance.get("data", {})
    same = [name for name, entry in data.items() if entry.get("sha256") == sha256]
    if any(name.startswith("train") for name in same):
        return (f"{file} is what the network was trained on: other stars will come out worse",)
    if "validation" in same:
        return (f"{file} is what the weights were chosen and the errors calibrated with: it is no independent test",)
    return ()


def named_thirds(name: str, values: FloatArray, form: str) -> list[tuple[str, BoolArray]]:
    """Return what to call the thirds of a quantity, with its numbers in a format, and the rows of each.

    Thirds are left out where they are empty, and where one of them has all rows, as when all values are the same.
    """
    (low, high), rows = thirds(values)
    names = f"{name} below {low:{form}}", f"{low:{form}} to {high:{form}}", f"above {high:{form}}"
    known = [(name, chosen) for name, chosen in zip(names, rows, strict=True) if chosen.any()]
    return known if len(known) > 1 else []


def share(value: float) -> str:
    """Return a fraction in per cent, a dash where it is not known."""
    return in_words(value, ".1%")


def ratios_in_words(over_bound: float, median_over_bound: float) -> str:
    """Return the two ratios of `Assessment.over_bound` as a cell of a table."""
    return f"{in_words(over_bound, '.2f')} / {in_words(median_over_bound, '.2f')}"


def summary_text(found: Assessment) -> str:
    """Return the statistics as a table for the terminal."""
    columns = ("bias", "scatter", "robust", "rms")
    head = f"{'label':<10}{'unit':<14}" + "".join(f"{name:>10}" for name in columns)
    lines = [f"{head}{'detrended':>11}{'in 68 %':>9}"]
    for one in found.statistics:
        numbers = (one.bias, one.scatter, one.robust_scatter, one.rms)
        cells = "".join(f"{in_words(number, '.3g'):>10}" for number in numbers)
        detrended = in_words(one.rms_corrected, ".3g")
        lines.append(f"{one.name:<10}{one.unit:<14}{cells}{detrended:>11}{share(one.coverage):>9}")
    return "\n".join(lines)


def bound_text(found: Assessment) -> str:
    """Return how far the residuals are from the Cramér-Rao bound as a table for the terminal, '' when it is not known.

    The ratios are rms / bound and, after the slash, the median ratio of `Statistics`.
    """
    if found.bound is None:
        return ""
    head = "".join(f"{name:>16}" for name in ("all", *(name for name, _ in found.snr_thirds)))
    lines = ["rms / bound, and median |error| / bound / 0.6745", f"{'label':<10}{'bound':>10}{head}"]
    for i, one in enumerate(found.statistics):
        pairs = [(one.over_bound, one.median_over_bound), *(found.over_bound(i, rows) for _, rows in found.snr_thirds)]
        cells = "".join(f"{ratios_in_words(*pair):>16}" for pair in pairs)
        lines.append(f"{one.name:<10}{in_words(one.bound, '.3g'):>10}{cells}")
    return "\n".join([*lines, *found.unconstrained(), *found.bound_note()])
