"""Coverage by factors that were fitted to other stars."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx.training.crossfit import N_FOLD, cross_fitted_coverage


def cover(error: np.ndarray, star: np.ndarray):
    n = len(error)
    snr = np.random.default_rng(2).uniform(50, 200, n)
    true = np.arange(float(n))[:, None]
    return cross_fitted_coverage(error[:, None], np.ones((n, 1)), snr, true, snr, star, ("teff",))


def test_errors_of_any_size_are_covered_as_promised():
    found = cover(np.random.default_rng(1).normal(0, 30, 4000), np.arange(4000))
    assert found.overall[0] == pytest.approx(found.levels, abs=0.02)


def test_a_star_has_no_part_in_the_factors_that_it_is_judged_by():
    star = np.repeat(np.arange(N_FOLD), 40)
    error = np.where(star == 3, 100.0, np.random.default_rng(1).normal(size=star.size))
    found = cover(error, star)
    assert found.n_star == N_FOLD
    assert found.overall[0, -1] <= 1 - 1 / N_FOLD


def test_fewer_stars_than_folds_say_nothing():
    assert cover(np.ones(50), np.repeat([1, 2], 25)) is None
