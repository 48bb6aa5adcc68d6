"""How often intervals hold the truth: counted where the answer is known, told, stored and read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from anna_onnx.card import model_card
from anna_onnx.coverage import Coverage, measure_coverage
from tests import tiny

RNG = np.random.default_rng(7)
ONE_SIGMA, TWO_SIGMA = 0.6827, 0.95


def gaussian_errors(n: int = 3000, wide_third: float = 1.0) -> Coverage:
    """Return the coverage of 1 and 2 sigma intervals, where the errors of the highest third are wider than said."""
    rank = np.arange(n, dtype=float)
    error = RNG.normal(size=(n, 1)) * np.where(rank[:, None] < 2 * n / 3, 1, wide_third)
    widths = np.stack([np.ones((n, 1)), np.full((n, 1), 1.96)])
    groups = {"snr": RNG.permutation(rank), "teff": rank}
    return measure_coverage(error, widths, groups, levels=(ONE_SIGMA, TWO_SIGMA), labels=["teff"], star=rank)


def test_gaussian_errors_are_covered_as_promised_in_every_third():
    found = gaussian_errors()
    assert found.overall[0] == pytest.approx([ONE_SIGMA, TWO_SIGMA], abs=0.03)
    assert found.thirds[0] == pytest.approx(np.broadcast_to([ONE_SIGMA, TWO_SIGMA], (2, 3, 2)), abs=0.05)


def test_the_third_whose_errors_are_twice_as_large_is_found_and_named():
    found = gaussian_errors(wide_third=2.0)
    assert found.thirds[0, 1, 2] == pytest.approx([0.383, 0.673], abs=0.05)  # of half the widths
    assert "68 % interval of teff" in found.warning()
    assert "in the highest third of teff" in found.warning()
    assert "points too few (chance: 1.5)" in found.warning()


def test_what_is_not_known_is_not_counted():
    error = np.array([[0.0], [np.nan], [3.0]])
    found = measure_coverage(
        error, np.ones((1, 3, 1)), {"snr": np.arange(3.0)}, levels=(0.5,), labels=["a"], star=error
    )
    assert found.overall[0, 0] == 0.5
    assert found.thirds[0, 0, :, 0] == pytest.approx([1, np.nan, 0], nan_ok=True)


def test_coverage_is_stored_as_json_and_read_back():
    found = gaussian_errors()
    again = Coverage.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert again.thirds == pytest.approx(found.thirds, abs=1e-5)
    assert (again.labels, again.groups, again.levels) == (("teff",), ("snr", "teff"), (ONE_SIGMA, TWO_SIGMA))


@pytest.mark.parametrize("nonsense", [None, 3, {}, {"n": "many"}, {**gaussian_errors().to_dict(), "overall": [1]}])
def test_provenance_that_makes_no_sense_is_no_coverage(nonsense):
    assert Coverage.from_dict(nonsense) is None


def test_the_card_has_a_row_for_every_level_and_says_what_is_off(tmp_path):
    found = gaussian_errors(wide_third=2.0)
    card = model_card(tiny.bundle(tmp_path / "m.onnx", provenance={"coverage": found.to_dict()}))
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| teff |")]
    assert [row[1] for row in rows[-2:]] == ["68 %", "95 %"]
    assert rows[-2][4].endswith(f"/ {found.thirds[0, 1, 2, 0]:.1%}")
    assert "Coverage is off" in card
    assert "## Coverage" not in model_card(tiny.bundle(tmp_path / "n.onnx", provenance={"coverage": ["?"]}))
