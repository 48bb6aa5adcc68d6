"""The way of a spectrum onto another wavelength vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import SpectrumError
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import FWHM, Degrader, Grid, Interpolation, find_gaps, resampler

FINE = np.arange(4990.0, 5010.0, 0.02)
COARSE = np.arange(4992.0, 5008.0, 0.3)


def resample(
    wavelength: FloatArray, target: FloatArray, flux: FloatArray, bad: BoolArray | None = None
) -> tuple[FloatArray, BoolArray]:
    """Bring one spectrum onto other wavelengths; return its flux and which pixels are valid."""
    on_target, _, valid = resampler(wavelength, target).apply(flux[None], None, None if bad is None else bad[None])
    return on_target[0], valid[0]


def line(wavelength: FloatArray, center: float = 5000.0, width: float = 0.4, depth: float = 0.5) -> FloatArray:
    return 1 - depth * np.exp(-0.5 * ((wavelength - center) / width) ** 2)


def equivalent_width(wavelength: FloatArray, flux: FloatArray) -> float:
    return float(((1 - flux) * np.gradient(wavelength)).sum())


def test_its_own_grid_gives_the_same_spectrum_back() -> None:
    given, error = line(FINE)[None], np.full((1, FINE.size), 0.01)
    flux, sigma, valid = resampler(FINE, FINE.copy()).apply(given, error)
    assert valid.all()
    np.testing.assert_array_equal(flux, given)
    np.testing.assert_allclose(sigma, error, rtol=1e-15)


@given(st.floats(4996, 5004), st.floats(0.1, 1.0))
def test_a_line_keeps_its_equivalent_width_in_larger_pixels(center: float, width: float) -> None:
    flux, _ = resample(FINE, COARSE, line(FINE, center, width))
    expected = 0.5 * width * np.sqrt(2 * np.pi)
    assert equivalent_width(COARSE, flux) == pytest.approx(expected, rel=1e-3)


def test_a_star_that_goes_is_brought_to_rest_as_well_as_one_that_comes() -> None:
    pixels = 4990 + 0.2 * np.arange(100)

    def error_at_rest(velocity: float) -> float:
        moved = pixels / np.sqrt((1 + velocity / C_KMS) / (1 - velocity / C_KMS))
        flux, _ = resample(moved, pixels[20:80], line(moved, width=0.25))
        return float(np.abs(flux - line(pixels[20:80], width=0.25)).max())

    assert error_at_rest(-100.0) < 0.01
    assert error_at_rest(100.0) == pytest.approx(error_at_rest(-100.0), rel=0.05)


def test_a_straight_line_is_kept_by_interpolation_and_by_averaging() -> None:
    for target in (COARSE, np.arange(4992.003, 5008, 0.007)):
        np.testing.assert_allclose(resample(FINE, target, 0.1 * FINE)[0], 0.1 * target, rtol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.4))
def test_a_cubic_is_kept_by_interpolation_on_even_and_on_uneven_pixels(seed: int, uneven: float) -> None:
    random = np.random.default_rng(seed)
    wavelength = np.cumsum(random.uniform(1 - uneven / 2, 1 + uneven / 2, 40))
    cubic = np.polynomial.Polynomial(random.normal(size=4), domain=wavelength[[0, -1]], window=[-1, 1])
    target = np.sort(random.uniform(wavelength[1], wavelength[-2], 200))
    flux, _, valid = resampler(wavelength, target).apply(cubic(wavelength)[None])
    assert valid.all()
    np.testing.assert_allclose(flux[0], cubic(target), atol=1e-9)


def test_interpolation_halfway_between_pixels_hardly_changes_a_line() -> None:
    pixels = 5000 + 0.2 * np.arange(100)
    target = pixels[3:-3] + 0.1
    profile = 0.6 / FWHM  # of a spectrograph whose FWHM is three pixels
    depth = 1 - resample(pixels, target, line(pixels, 5010, profile))[0]
    variance = (depth * (target - 5010) ** 2).sum() / depth.sum()
    assert np.sqrt(variance) == pytest.approx(profile, rel=0.005)
    np.testing.assert_allclose(depth, 1 - line(target, 5010, profile), atol=0.004)


@pytest.mark.parametrize(
    ("target", "n_pixel"),
    [
        (5000.5, 2),
        (5001.5, 4),
        (5002.5, 6),
        (5006.5, 6),
        (5007.5, 4),
        (5008.5, 2),
        (5100.5, 2),
        (5101.5, 4),
        (5102.5, 4),
        (5103.5, 2),
        (5106.5, 2),
        (5107.5, 4),
    ],
)
def test_beside_a_bad_pixel_or_a_gap_and_at_the_ends_fewer_pixels_are_interpolated(target: float, n_pixel: int) -> None:
    wavelength = np.concatenate([np.arange(5000.0, 5010), np.arange(5100.0, 5110)])
    bad = wavelength == 5105
    way = Interpolation(wavelength, np.array([target]))
    flux, sigma, valid = way.apply(wavelength[None] ** 2, np.ones((1, 20)), bad[None])
    assert valid.all()
    # The chord of a parabola is 1/4 above it in the middle.
    assert flux[0, 0] == pytest.approx(target**2 + (0.25 if n_pixel == 2 else 0), abs=1e-6)
    assert sigma is not None
    weights = {2: [1 / 2], 4: [9 / 16, -1 / 16], 6: [150 / 256, -25 / 256, 3 / 256]}[n_pixel]
    assert sigma[0, 0] ** 2 == pytest.approx(2 * np.sum(np.square(weights)))


def test_a_bad_pixel_stays_bad_on_uneven_pixels_beside_another_bad_one() -> None:
    # By chance a cubic's negative weight of the one outweighs that of the other.
    wavelength = 5000 + np.array([0, 0.1, 0.2, 0.255, 0.355, 0.53, 0.63, 0.73, 0.83])
    bad = np.isin(np.arange(9), [2, 4])
    target = np.arange(5000.05, 5000.8, 0.01)
    flux, _, valid = Interpolation(wavelength, target).apply(np.ones((1, 9)), None, bad[None])
    beside = (target > 5000.1 + 1e-9) & (target < 5000.53 - 1e-9) & (np.abs(target - wavelength[3]) > 1e-9)
    assert not valid[0, beside].any()
    assert valid[0, ~beside].all()
    np.testing.assert_allclose(flux[valid], 1.0, rtol=1e-9)


def test_a_linear_interpolation_is_straight_everywhere() -> None:
    wavelength, target = np.arange(5000.0, 5010), np.arange(5000.5, 5009)
    flux, _, _ = resampler(wavelength, target, "linear").apply(wavelength[None] ** 2)
    np.testing.assert_allclose(flux[0], target**2 + 0.25, rtol=1e-12)


def test_pixels_that_are_much_closer_than_their_neighbours_do_not_shake_the_interpolation() -> None:
    wavelength = np.array([5000.0, 5001, 5002, 5002.001, 5003, 5004, 5005])
    flux = np.array([1.0, 1, 1.1, 0.9, 1, 1, 1])
    on_grid, _, _ = Interpolation(wavelength, np.array([5000.5, 5001.5, 5002.5, 5003.5])).apply(flux[None])
    assert np.abs(on_grid - 1).max() < 0.1


def test_a_mean_of_ten_pixels_has_a_third_of_the_noise() -> None:
    wavelength = 5000 + 0.1 * np.arange(100)
    way = resampler(wavelength, 5000.45 + np.arange(10), sharp=False)
    _, sigma, _ = way.apply(np.ones((1, 100)), np.full((1, 100), 0.1))
    np.testing.assert_allclose(sigma, 0.1 / np.sqrt(10), rtol=1e-9)


@given(st.floats(0.03, 0.17), st.sampled_from([1, 1.000005]))
def test_a_line_keeps_its_width_and_its_equivalent_width_in_an_average(step: float, growth: float) -> None:
    target = 4990 + 0.2 * np.arange(101)
    profile = 0.6 / FWHM  # of a spectrograph whose FWHM is three pixels
    variances = []
    for phase in np.linspace(0, step, 20, endpoint=False):
        wavelength = 4985 + phase + np.cumsum(step * growth ** np.arange(30 / step))
        depth = 1 - resample(wavelength, target, line(wavelength, 5000.03, profile))[0]
        assert depth.sum() * 0.2 == pytest.approx(0.5 * profile * np.sqrt(2 * np.pi), rel=1e-9)
        variances.append((depth * (target - 5000.03) ** 2).sum() / depth.sum())
    np.testing.assert_allclose(np.sqrt(variances), profile, rtol=0.01)  # more or less, by how the pixels happen to lie
    assert np.mean(variances) == pytest.approx(profile**2, rel=0.001)


def test_beside_a_bad_pixel_a_gap_and_the_ends_an_average_is_as_wide_as_it_is() -> None:
    wavelength = np.concatenate([np.arange(5000.0, 5020), np.arange(5100.0, 5120)])
    bad = np.isin(wavelength, [5006, 5007])
    target = np.arange(5000.5, 5119, 2)
    flux, sigma = wavelength[None] ** 2, np.ones((1, 40))
    mean, error, valid = resampler(wavelength, target, "linear").apply(flux, sigma, bad[None])
    sharp, wider, same = resampler(wavelength, target).apply(flux, sigma, bad[None])
    assert error is not None
    assert wider is not None
    np.testing.assert_array_equal(same, valid)
    near = np.flatnonzero((sharp != mean)[0] & valid[0])
    assert set(np.flatnonzero(~valid[0])) == {3, *range(10, 50)}
    assert list(near) == [1, *range(5, 9), *range(51, 59)]
    np.testing.assert_allclose(mean[0, near], target[near] ** 2 + 1 / 4, rtol=0, atol=1e-6)
    np.testing.assert_allclose(sharp[0, near], target[near] ** 2, rtol=0, atol=1e-6)
    a = 1 / 4 / 2 / 2**2
    np.testing.assert_allclose(wider[0, near], error[0, near] * np.hypot(1 + 2 * a, np.sqrt(2) * a), rtol=1e-9)


def test_pixels_of_two_sizes_are_averaged_as_each_needs() -> None:
    wavelength = np.concatenate([np.arange(4985, 5000, 0.05), np.arange(5000, 5015, 0.14)])
    target = np.arange(4987, 5013, 0.2)
    for center in (4995, 5005):
        depth = 1 - resample(wavelength, target, line(wavelength, center, 0.6 / FWHM))[0]
        variance = (depth * (target - center) ** 2).sum() / depth.sum()
        assert variance == pytest.approx((0.6 / FWHM) ** 2, rel=0.01)


def test_the_sigma_that_is_stated_is_the_scatter_that_is_found(rng: np.random.Generator) -> None:
    way = resampler(FINE, COARSE)
    sigma = np.tile(np.linspace(0.01, 0.03, FINE.size), (2000, 1))
    flux, stated, _ = way.apply(1 + sigma * rng.standard_normal(sigma.shape), sigma)
    assert stated is not None
    np.testing.assert_allclose(flux.std(axis=0), stated[0], rtol=0.1)


def test_a_bad_pixel_spoils_an_interpolated_neighbour_but_not_a_wide_mean() -> None:
    bad = np.zeros(FINE.size, dtype=bool)
    bad[500] = True
    flux = np.where(bad, 1e30, 1.0)
    fine, valid = resample(FINE, FINE[400:600] + 0.005, flux, bad)
    assert list(np.flatnonzero(~valid)) == [99, 100]
    assert np.isnan(fine[~valid]).all()
    coarse, valid = resample(FINE, COARSE, flux, bad)
    assert valid.all()
    np.testing.assert_allclose(coarse, 1.0, rtol=1e-12)


def test_an_unmarked_spike_stays_where_it_is() -> None:
    flux = np.ones(FINE.size)
    flux[500] = 1e20
    spoilt = np.abs(resample(FINE, COARSE, flux)[0] - 1) > 1e-9
    assert spoilt.sum() <= 3


@pytest.mark.parametrize("step", [0.007, 0.3])
def test_a_gap_between_orders_stays_a_gap(step: float) -> None:
    outside = (FINE < 4998) | (FINE > 5002)
    target = np.arange(4992.0, 5008.0, step)
    way = resampler(FINE[outside], target)
    flux, _, valid = way.apply(np.ones((1, outside.sum())))
    assert not way.covers[(target > 4998 + step) & (target < 5002 - step)].any()
    assert way.covers[(target < 4997.9 - step) | (target > 5002.1 + step)].all()
    assert (valid[0] == way.covers).all()
    np.testing.assert_allclose(flux[valid], 1.0, rtol=1e-12)


def test_wavelengths_that_hardly_differ_make_no_warning() -> None:
    wavelength = FINE.copy()
    wavelength[[1, -1]] = np.nextafter(wavelength[[0, -2]], np.inf)
    with np.errstate(all="raise"):
        flux, valid = resample(wavelength, COARSE, np.ones(FINE.size))
    assert valid.all()
    np.testing.assert_allclose(flux, 1.0, rtol=1e-12)


def test_a_change_of_dispersion_is_no_gap() -> None:
    arms = np.concatenate([np.arange(4000, 5000, 0.1), np.arange(5000.0, 9000.0, 2.0)])
    assert find_gaps(arms).size == 0
    assert list(find_gaps(arms + np.where(arms >= 5000, 50, 0))) == [9999]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.floats(0.05, 30))
def test_a_constant_stays_one_on_any_wavelengths(steps: list[float], step: float) -> None:
    wavelength = 5000 + np.cumsum(steps)
    wavelength = np.concatenate([[5000.0], wavelength])
    target = np.arange(4990, wavelength[-1] + 10, step)
    if target.size < 2:
        return
    way = resampler(wavelength, target)
    flux, _, valid = way.apply(np.full((1, wavelength.size), 3.0))
    np.testing.assert_allclose(flux[valid], 3.0, rtol=1e-9)
    assert np.isnan(flux[~valid]).all()
    assert not valid[0, (target < wavelength[0]) | (target > wavelength[-1])].any()


def test_a_grid_beyond_the_spectrum_is_not_extrapolated() -> None:
    _, valid = resample(FINE, np.arange(4980.0, 5000.0, 0.3), np.ones(FINE.size))
    assert not valid[:33].any()
    assert valid[34:].all()
    assert not resampler(FINE, np.linspace(6000, 6010, 20)).covers.any()


def test_degrading_adds_the_missing_width_in_quadrature() -> None:
    way = Degrader(FINE, 50000, 10000)
    flux, _, valid = way.apply(line(FINE, width=5000 / 50000 / FWHM)[None])
    depth = 1 - flux[0][valid[0]]
    wavelength = way.wavelength[valid[0]]
    center = (wavelength * depth).sum() / depth.sum()
    width = np.sqrt((depth * (wavelength - center) ** 2).sum() / depth.sum())
    assert center == pytest.approx(5000, abs=0.002)
    assert width == pytest.approx(5000 / 10000 / FWHM, rel=0.01)


def test_degrading_says_how_much_noise_is_left(rng: np.random.Generator) -> None:
    for step in (0.02, 0.1):
        wavelength = np.arange(4990.0, 5010.0, step)
        way = Degrader(wavelength, 60000, 15000)
        sigma = np.full((1000, wavelength.size), 0.05)
        flux, stated, _ = way.apply(1 + sigma * rng.standard_normal(sigma.shape), sigma)
        assert stated is not None
        middle = slice(40, -40)
        assert stated[0, middle].mean() == pytest.approx(flux[:, middle].std(axis=0).mean(), rel=0.15)


def test_degrading_says_so_of_pixels_of_two_sizes(rng: np.random.Generator) -> None:
    wavelength = np.append(np.arange(4990.0, 5000.0, 0.05), np.arange(5000.0, 5010.0, 0.2))
    sigma = np.full((1000, wavelength.size), 0.05)
    way = Degrader(wavelength, 14000, 11000)
    flux, stated, _ = way.apply(1 + sigma * rng.standard_normal(sigma.shape), sigma)
    assert stated is not None
    ratio = stated[0] / flux.std(axis=0)
    for first, last in ((4991, 4999), (5001, 5009)):
        assert np.median(ratio[(way.wavelength > first) & (way.wavelength < last)]) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("wavelength", [[5000.0], [5000.0, 5000.0], [5000.0, np.nan], [-1.0, 2.0], [[1.0, 2.0]]])
def test_a_grid_refuses_what_is_none(wavelength: list[float]) -> None:
    with pytest.raises(SpectrumError):
        Grid(wavelength)


def test_the_ends_of_a_degraded_spectrum_are_not_lost_to_rounding() -> None:
    for first in np.linspace(4000, 9000, 20):
        wavelength = first + np.arange(0, 60, 0.7)
        _, _, valid = Degrader(wavelength, 100000, 10000).apply(np.ones((1, wavelength.size)))
        assert valid.all()


def test_a_grid_is_in_air_or_in_vacuum() -> None:
    with pytest.raises(SpectrumError, match="needed air or vacuum"):
        Grid(FINE, "unknown")
    assert Grid(FINE, "air") != Grid(FINE, "vacuum")
    assert Grid(FINE, "air") == Grid(FINE.copy(), "air")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(42)
