"""Residuals in numbers, where the numbers are known."""

import numpy as np
import pytest

from anna_onnx.scatter import describe, in_words, known_mean, rms, thirds


def test_an_outlier_hardly_changes_the_robust_scatter_and_an_unknown_residual_nothing():
    error = 3 + 2 * np.random.default_rng(1).normal(size=20_000)
    found = describe(np.concatenate([error, [np.nan]]))
    assert (found["bias"], found["scatter"], found["robust_scatter"]) == pytest.approx((3, 2, 2), rel=0.03)
    assert found["rms"] ** 2 == pytest.approx(found["bias"] ** 2 + found["scatter"] ** 2)
    assert describe(np.append(error, 1e6))["robust_scatter"] == pytest.approx(found["robust_scatter"], rel=1e-3)


def test_nothing_is_said_of_residuals_that_are_all_unknown():
    nothing = np.full(3, np.nan)
    assert np.isnan(list(describe(nothing).values())).all()
    assert np.isnan([rms(nothing), known_mean(nothing)]).all()
    assert [in_words(value, ".1%") for value in (np.nan, None, 0.683)] == ["–", "–", "68.3%"]


def test_thirds_hold_equal_numbers_and_what_is_unknown_is_in_none():
    edges, rows = thirds(np.array([5.0, 1, 2, np.nan, 6, 3, 4]))
    assert [np.flatnonzero(third).tolist() for third in rows] == [[1, 2], [5, 6], [0, 4]]
    assert 2 < edges[0] < 3
    assert 4 < edges[1] < 5
