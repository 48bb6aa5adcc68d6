"""What the errors of a file say beside the noise that is seen."""

import numpy as np
import pytest

from anna_onnx.statednoise import excess, in_differences, unevenness

PROFILES = {
    "even": np.ones(20_000),
    "a slope": np.linspace(0.5, 3, 20_000),
    "a step": np.repeat([1.0, 4.0], 10_000),
    "sky lines": np.where(np.arange(20_000) % 37 == 0, 10.0, 1.0),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_noise_with_the_stated_errors_looks_in_differences_as_they_say(profile):
    sigma = 0.01 * PROFILES[profile]
    noise = np.random.default_rng(1).normal(size=sigma.size) * sigma
    differences = 2 * noise[2:-2] - noise[:-4] - noise[4:]
    # As the network files estimate it: the mean of sqrt|x| of a Gaussian of width s is 0.822179 sqrt(s).
    seen = (np.sqrt(np.abs(differences)).mean() / 0.822179) ** 2 / np.sqrt(6)
    assert in_differences(sigma[None])[0] == pytest.approx(seen, rel=0.02)
    assert unevenness(sigma[None])[0] == pytest.approx(noise.std() / seen, rel=0.03)


def test_pixels_that_are_missing_do_not_count():
    sigma = np.full((2, 100), 0.01)
    sigma[1, 10:60] = np.nan
    assert in_differences(sigma) == pytest.approx([0.01, 0.01])
    assert unevenness(sigma) == pytest.approx([1, 1])


def test_where_nothing_is_valid_nothing_follows():
    nothing = np.full((1, 100), np.nan)
    assert unevenness(nothing) == [1]
    assert excess(nothing, np.array([0.01])) == [1]


@pytest.mark.parametrize(("stated", "times"), [(0.001, 1), (0.01, 1), (0.0124, 1), (0.025, 2), (0.1, 8)])
def test_errors_count_that_are_larger_than_the_noise_by_more_than_a_quarter(stated, times):
    assert excess(np.full((1, 100), stated), np.array([0.01])) == pytest.approx([times])


@pytest.mark.parametrize("value", [100.0, 1e9, 1e25])
def test_huge_errors_of_a_few_pixels_say_that_these_were_not_measured_and_nothing_of_the_others(value):
    sigma = np.full((1, 1000), 0.01, dtype=np.float32)
    sigma[0, ::200] = value
    assert excess(sigma, np.array([0.01])) == [1]
    assert unevenness(sigma) == pytest.approx([1])
