"""Combinations of labels that a training set lacks."""

import numpy as np
import pytest

from anna_onnx.errors import BundleError
from anna_onnx.hull import Hull

random = np.random.default_rng(1)
BOX = random.uniform(0, 1, (5000, 3))
TRACK = BOX[:, [0, 0, 2]]  # the second label follows the first
EXACT = np.full((1, 3), 1e-3)


def test_a_full_box_has_no_hull():
    assert Hull.of(BOX) is None


def test_too_few_stars_make_no_hull():
    assert Hull.of(TRACK[:50]) is None


def test_stars_whose_labels_are_not_known_do_not_count():
    assert Hull.of(np.where(BOX > 0.999, np.nan, BOX)) is None


def test_no_training_star_is_outside():
    assert not Hull.of(TRACK).outside(TRACK, EXACT).any()


def test_away_from_the_track_is_outside_unless_the_error_reaches_it():
    hull, star = Hull.of(TRACK), np.array([[0.2, 0.9, 0.5]])
    assert hull.outside(star, EXACT).all()
    assert not hull.outside(star, np.array([[0.0, 0.65, 0.0]])).any()
    assert not hull.outside(np.array([[0.2, 0.22, 0.9]]), EXACT).any()


def test_only_pairs_with_holes_are_kept():
    np.testing.assert_array_equal(Hull.of(TRACK).pairs, [[0, 1]])


@pytest.mark.parametrize("number", [np.nan, np.inf, -1e30])
def test_any_number_has_an_answer(number):
    assert Hull.of(TRACK).outside(np.full((1, 3), number), np.full((1, 3), number)).shape == (1,)


@pytest.mark.parametrize(
    ("pairs", "filled"),
    [
        (np.array([[0.0, 1.0]]), np.ones((1, 3, 4))),
        (np.array([[0.0, 1.5]]), np.ones((1, 3, 3))),
        (np.array([[0.0, 1.0]]), np.full((1, 3, 3), np.nan)),
        (np.array([[0.0, 1e9]]), np.ones((1, 3, 3))),
    ],
)
def test_parts_that_do_not_fit_are_refused(pairs, filled):
    with pytest.raises(BundleError, match="hull"):
        Hull(pairs, filled)
