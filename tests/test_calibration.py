"""Calibration: intervals that hold what they promise, and trends taken out."""

import numpy as np
import pytest

from anna_onnx.calibration import Calibration, Trends
from anna_onnx.errors import BundleError

approx = pytest.approx
LEVELS, SNR = np.array([0.5, 0.9]), np.array([50.0, 200.0])
FACTORS = np.array([[[1.0, 2.0]], [[2.0, 4.0]]])  # (snr, label, level)


@pytest.fixture
def calibration() -> Calibration:
    return Calibration(LEVELS, SNR, FACTORS, 100)


@pytest.mark.parametrize(
    ("snr", "level", "factor"), [(50, 0.5, 1), (200, 0.9, 4), (10, 0.5, 1), (1e9, 0.9, 4), (50, 0.7, 1.5)]
)
def test_factors_are_those_of_the_table(calibration: Calibration, snr: float, level: float, factor: float) -> None:
    assert calibration.half_width([[10.0]], [snr], level)[0, 0] == approx(10 * factor)


def test_between_bins_the_factor_is_linear_in_the_noise(calibration: Calibration) -> None:
    # 1 / 100 is two thirds of the way from 1 / 50 to 1 / 200.
    assert calibration.half_width([[1.0]], [100.0], 0.5)[0, 0] == approx(5 / 3)


def test_where_the_snr_is_not_known_the_median_bin_counts() -> None:
    three = Calibration(LEVELS, np.array([20.0, 50.0, 200.0]), np.concatenate([FACTORS[:1] + 5, FACTORS]), 100)
    assert three.half_width([[1.0]], [np.nan], 0.5)[0, 0] == FACTORS[0, 0, 0]


def test_a_level_beyond_the_table_is_refused(calibration: Calibration) -> None:
    with pytest.raises(BundleError, match=r"calibrated from 0\.5 to 0\.9"):
        calibration.half_width([[1.0]], [100.0], 0.99)


@pytest.mark.parametrize(
    "change",
    [
        {"factors": FACTORS[:1]},
        {"factors": -FACTORS},
        {"factors": FACTORS * np.nan},
        {"levels": LEVELS[::-1]},
        {"snr": np.array([50.0, np.inf])},
    ],
)
def test_tables_that_make_no_sense_are_refused(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="calibration"):
        Calibration(**{"levels": LEVELS, "snr": SNR, "factors": FACTORS, "n": 100, **change})


def test_a_trend_is_taken_out_and_held_outside() -> None:
    trends = Trends(np.array([[0.1, 1.0], [0.0, 0.5]]))
    corrected = trends.correct([[0.5, 0.5], [2.0, 2.0]])
    assert corrected == approx(np.array([[0.6, 0.25], [2.1, 1.5]]))


def test_trends_without_numbers_are_refused() -> None:
    with pytest.raises(BundleError, match="trends"):
        Trends(np.array([[np.nan]]))
