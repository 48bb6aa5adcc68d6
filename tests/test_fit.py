"""How far from their emulation spectra may be."""

from dataclasses import replace

import numpy as np
import pytest

from anna_onnx.errors import BundleError
from anna_onnx.fit import COLUMNS, Fit, FitLimits
from anna_onnx.smoothing import Smoothing

LIMITS = FitLimits(
    noise=np.array([0.01, 0.02]),
    outside_threshold=np.array([1.5, 1.5]),
    misfit_threshold=np.array([1.0, 2.0]),
    blur_threshold=np.array([3.0, 3.0]),
    dilution=2.0,
    line_error=0.1,
    outside_error=0.2,
    blur_error=0.3,
)


def fit(**values: float) -> Fit:
    usual = dict.fromkeys(COLUMNS, 0.0) | {"noise": 0.01, "pixel_noise": np.inf, "widening_error": 0.4}
    return Fit.of([list({**usual, **values}.values())])


def test_columns_come_in_the_order_of_the_attributes():
    found = Fit.of(np.arange(2.0 * len(COLUMNS)).reshape(2, -1))
    assert [getattr(found, name).tolist() for name in COLUMNS[:2]] == [[0, len(COLUMNS)], [1, 1 + len(COLUMNS)]]


def test_a_misfit_counts_in_units_of_the_noise_and_of_the_usual_errors_of_the_lines():
    assert LIMITS.misfit(fit(misfit=0.03)) == pytest.approx([3])
    # 0.1 of lines of 0.2, diluted twofold: 0.04 beside a noise of 0.03.
    assert LIMITS.misfit(fit(misfit=0.1, noise=0.03, lines=0.2)) == pytest.approx([2])
    assert LIMITS.relative_misfit(fit(misfit=0.1, lines=0.2)) == pytest.approx([0.25])


def test_lines_that_are_too_broad_are_a_lower_resolution_and_those_too_sharp_a_higher_one():
    assert LIMITS.blur(fit(widening=1.0)) == pytest.approx([2])
    assert LIMITS.score(fit(widening=3.0)) == pytest.approx([2])
    assert LIMITS.score(fit(widening=-4.5)) == pytest.approx([2])
    assert LIMITS.sharper(fit(widening=-3.0)).all()
    assert not LIMITS.sharper(fit(widening=3.0)).any()
    assert not LIMITS.sharper(fit(widening=-2.2)).any()  # within the threshold
    assert not LIMITS.sharper(fit(widening=-3.0, misfit=1.0)).any()  # other things are more wrong


def test_what_lies_outside_the_space_of_the_training_shows_in_the_noise_that_single_pixels_do_not_have():
    assert LIMITS.score(fit(pixel_noise=0.005)) == pytest.approx([0.01 / 0.005 / 1.5])
    assert LIMITS.score(fit(pixel_noise=0.0)) == np.inf
    # 0.2 of lines of 0.02 beside a noise of 0.003.
    assert LIMITS.outside(fit(pixel_noise=0.003, lines=0.02)) == pytest.approx([2])


@pytest.mark.parametrize("smoothing", [0.6, 1.2, 2.0])
def test_the_noise_of_a_pixel_is_told_of_noise_that_was_smoothed_too(smoothing):
    offset = np.arange(-20, 21)
    kernel = np.exp(-0.5 * (offset / smoothing) ** 2)
    noise = np.convolve(np.random.default_rng(1).standard_normal(100_000), kernel, "valid")
    differences = 2 * noise[2:-2] - noise[:-4] - noise[4:]
    found = fit(pixel_noise=differences.std() / np.sqrt(6)).of_smoothed(Smoothing(smoothing))
    # A little more is allowed for where pixels share it, and what a network misses of it is put on all noise.
    allowed = found.pixel_noise * 0.01 / found.noise / noise.std()
    assert 0.99 < allowed < 1.1
    assert fit(pixel_noise=0.3).of_smoothed(Smoothing()).pixel_noise == 0.3


@pytest.mark.parametrize(("noise", "misfit", "score"), [(0.01, 0.02, 2.0), (0.015, 0.045, 2.0), (0.05, 0.1, 1.0)])
def test_thresholds_are_interpolated_in_the_noise(noise, misfit, score):
    assert LIMITS.score(fit(noise=noise, misfit=misfit)) == pytest.approx([score])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"noise": np.array([0.1])}, "shapes"),
        ({"noise": np.array([0.2, 0.1])}, "ascend"),
        ({"misfit_threshold": np.array([0.0, 1.0])}, "positive"),
        ({"blur_threshold": np.array([np.nan, 1.0])}, "finite"),
        ({"line_error": -1.0}, "negative"),
    ],
)
def test_limits_that_cannot_be_are_refused(change, why):
    with pytest.raises(BundleError, match=why):
        replace(LIMITS, **change)
