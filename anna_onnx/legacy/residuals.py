"""test_stats.out, the residuals that the old ANNA wrote: the errors of a network that knows none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.calibration import LEVELS, ONE_SIGMA, Calibration, conformal_quantiles
from anna_onnx.errors import LegacyError
from anna_onnx.labels import Label
from anna_onnx.scatter import describe


@dataclass(frozen=True, eq=False)
class Residuals:
    """What an old network made of stars whose labels are known.

    Attributes
    ----------
    name : str
        Of the file.
    errors : array of float64, shape (n, n_label)
        Inferred minus true.
    """

    name: str
    errors: FloatArray

    @property
    def n(self) -> int:
        """Number of stars."""
        return len(self.errors)

    @property
    def rms(self) -> FloatArray:
        """Root mean square of each label, shape (n_label,)."""
        return np.asarray(np.sqrt(np.mean(self.errors**2, axis=0)))

    def calibration(self, snr_range: Sequence[float] | None = None) -> Calibration:
        """Return the factors on the rms with which intervals hold the truth, the same at every S/N."""
        factors = conformal_quantiles(np.abs(self.errors) / self.rms)[None]  # (S/N bin, label, level)
        return Calibration(np.array(LEVELS), np.array([np.mean(snr_range or (100.0,))]), factors, self.n)

    def describe(self, labels: Sequence[Label]) -> dict[str, Any]:
        """Return the statistics of each label for the provenance of a model."""
        one_sigma = self.calibration().factors[0, :, LEVELS.index(ONE_SIGMA)] * self.rms
        inside = np.abs(self.errors) <= one_sigma
        return {
            "calibrated_on": f"{self.n} stars of the old program's {self.name}",
            "metrics": {
                label.name: {**describe(error), "coverage_68": float(held.mean())}
                for label, error, held in zip(labels, self.errors.T, inside.T, strict=True)
            },
        }


def read_test_stats(path: str | os.PathLike[str], names: Sequence[str]) -> Residuals:
    """Read a test_stats.out.

    Parameters
    ----------
    path : path-like
    names : sequence of str
        The old names of the labels. The file has true minus inferred in columns ``d<name>``.

    Raises
    ------
    LegacyError
        If the file is not what the old program wrote for these labels.
    """
    path = Path(path)
    try:
        header, *rows = path.read_text(encoding="utf-8").splitlines() or [""]
        columns = header.lstrip("# ").split(",")
        missing = [f"d{name}" for name in names if f"d{name}" not in columns]
        if missing or len(rows) < 2:
            raise ValueError(f"{len(rows)} rows of columns {header}; needed {', '.join(missing) or 'two or more'}")
        table = np.loadtxt(rows, delimiter=",", ndmin=2, usecols=[columns.index(f"d{name}") for name in names])
    except (OSError, ValueError) as error:
        raise LegacyError(f"{path}: not a test_stats.out of these labels: {error}") from error
    if not np.isfinite(table).all() or not table.any(axis=0).all():
        raise LegacyError(f"{path}: residuals that are not finite, or all zero")
    return Residuals(path.name, -table)
