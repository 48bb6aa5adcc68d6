"""What lowering a resolving power does to noise."""

import numpy as np
import pytest

from anna_onnx.resampling import FWHM, Grid
from anna_onnx.smoothing import Smoothing

WIDTHS = [0.3, 0.76, 1.27, 3.0]


def smoothed_noise(width, n=400_000):
    """Return white noise of 1 after a Gaussian, by its Fourier transform."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(n))
    return np.fft.irfft(spectrum * np.exp(-2 * (np.pi * width * np.fft.rfftfreq(n)) ** 2), n)


def through_line(noise, line):
    """Return the scatter of noise seen through a line's profile, of sum 1."""
    offset = np.arange(-30, 31)
    profile = np.exp(-0.5 * (offset / line) ** 2)
    return np.convolve(noise, profile / profile.sum(), "valid").std()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_pixel_keeps_part_of_its_noise(width):
    assert smoothed_noise(width).var() == pytest.approx(Smoothing(width).kept, rel=0.02)


@pytest.mark.parametrize("width", WIDTHS)
def test_through_a_line_smoothed_noise_is_larger_than_that_of_its_pixels_tells(width):
    noise = smoothed_noise(width)
    white = np.random.default_rng(2).normal(0, noise.std(), noise.size)
    assert through_line(noise, 1.27) / through_line(white, 1.27) == pytest.approx(
        Smoothing(width, 1.27).excess, rel=0.05
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_network_sees_half_of_that_excess(width):
    smoothing = Smoothing(width, 1.27)
    assert 1 <= smoothing.missed <= smoothing.excess
    assert smoothing.missed**2 == pytest.approx(smoothing.excess)


def test_nothing_is_smoothed_where_no_resolving_power_is_lowered():
    grid = Grid(np.linspace(6600, 6800, 1001), "air")
    none = Smoothing.of(grid, None)
    assert (none.width, none.kept, none.excess, none.missed, none.in_differences) == (0, 1, 1, 1, 1)


def test_its_width_in_pixels_is_what_is_between_two_resolving_powers():
    grid = Grid(np.linspace(6600, 6800, 1001), "air")
    smoothing = Smoothing.of(grid, (22000.0, 11000.0))
    pixel = np.diff(np.log(grid.wavelength)).mean()
    assert smoothing.line == pytest.approx(1 / 11000 / FWHM / pixel, rel=1e-3)
    assert np.hypot(smoothing.width, 1 / 22000 / FWHM / pixel) == pytest.approx(smoothing.line, rel=1e-3)


def test_beyond_the_signal_to_noise_ratios_of_the_training_noise_counts_less_and_less():
    smoothing = Smoothing(1.27, 1.27)
    usual, twice, far = smoothing.missed_at(np.array([100.0, 800.0, 1e6]), 400.0)
    assert usual == smoothing.missed
    assert twice == pytest.approx(smoothing.missed**0.25)
    assert far == pytest.approx(1)
    assert smoothing.missed_at(np.array([np.nan]), 400.0) == smoothing.missed
