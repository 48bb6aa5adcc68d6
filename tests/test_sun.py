"""The benchmark on spectra of the Sun counts as one would by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from anna_onnx.errors import AnnaError
from anna_onnx.results import Rows

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "sun.py"
if not SCRIPT.is_file():
    pytest.skip("no benchmarks here: this is no checkout", allow_module_level=True)


def compare(rows: Rows, names: list[str]) -> dict[str, dict[str, float]]:
    spec = importlib.util.spec_from_file_location("sun", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compare(rows, names)


def rows_of(values: list[list[float]], width: list[float]) -> Rows:
    n, array, around = len(values), np.array(values), np.array(width)
    place = {"file": ["sun.fits"] * n, "hdu": [0] * n, "row": range(n), "id": [""] * n, "messages": ["no coverage"] * n}
    quality = {"snr": np.ones(n), "coverage": np.ones(n), "flags": np.zeros(n, dtype=int)}
    return Rows(values=array, errors=np.broadcast_to(around, array.shape), lo=array - around, hi=array + around,
                **place, **quality)  # fmt: skip


def test_deviation_intervals_and_errors_are_counted_over_the_spectra_with_values():
    values = [[5772 + 30, 7, 4.44], [5772 - 30, 7, 4.44], [5772 + 60, 7, 4.44], [5772 - 60, 7, 4.0], [np.nan] * 3]
    found = compare(rows_of(values, width=[40, 1, 0.1]), ["teff", "age", "logg"])
    assert set(found) == {"teff", "logg", "all"}  # of the age nothing is known
    assert found["teff"]["mean"] == 5772
    assert found["teff"]["rms"] == pytest.approx(np.sqrt((30**2 + 60**2) / 2))
    assert found["teff"]["std"] == pytest.approx(found["teff"]["rms"] * np.sqrt(4 / 3))
    assert found["teff"]["std_over_e"] == pytest.approx(found["teff"]["std"] / 40)
    assert (found["teff"]["inside"], found["logg"]["inside"]) == (0.5, 0.75)
    assert found["all"]["inside"] == 0.5


def test_without_any_value_there_is_nothing_to_count():
    with pytest.raises(AnnaError, match="none of 1 spectra could be inferred: no coverage"):
        compare(rows_of([[np.nan, np.nan]], width=[1, 1]), ["teff", "logg"])
