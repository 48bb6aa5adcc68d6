"""Calibration, trends and novelty, fitted to what can be derived."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx import config  # noqa: E402
from anna_onnx.calibration import ONE_SIGMA  # noqa: E402
from anna_onnx.resampling import Grid  # noqa: E402
from anna_onnx.training.calibration import FALSE_ALARM, fit_calibration, fit_novelty, fit_trends  # noqa: E402


@pytest.fixture
def random():
    return np.random.default_rng(5)


def test_a_network_that_knows_its_error_needs_no_factor(random):
    sigma = random.uniform(1, 3, (4000, 2))
    calibration = fit_calibration(sigma * random.normal(size=(4000, 2)), sigma, np.full(4000, 100.0))
    assert calibration.snr.tolist() == [100.0]
    one = calibration.levels.tolist().index(ONE_SIGMA)
    assert calibration.factors[0, :, one] == pytest.approx([1, 1], rel=0.05)


def test_intervals_hold_what_they_promise_at_every_snr(random):
    """The network's sigma is wrong by a factor that depends on S/N; the calibration finds it."""

    def draw(n):
        snr = random.uniform(50, 200, n)
        sigma = np.ones((n, 1))
        return 50 / snr[:, None] * random.normal(size=(n, 1)), sigma, snr

    error, sigma, snr = draw(20000)
    calibration = fit_calibration(error, sigma, snr)
    error, sigma, snr = draw(20000)
    for level in (0.5, ONE_SIGMA, 0.9, 0.95):
        inside = np.abs(error) <= calibration.half_width(sigma, snr, level)
        assert inside.mean() == pytest.approx(level, abs=0.02)
        for third in np.array_split(np.argsort(snr), 3):
            assert inside[third].mean() == pytest.approx(level, abs=0.05)


def test_unknown_labels_do_not_count(random):
    error = random.normal(size=(1000, 1))
    error[::2] = np.nan
    calibration = fit_calibration(error, np.ones((1000, 1)), np.full(1000, 100.0))
    assert calibration.half_width([[1.0]], [100.0], ONE_SIGMA)[0, 0] == pytest.approx(1, rel=0.1)


def test_a_quadratic_trend_is_found_and_taken_out(random):
    true = random.uniform(0, 1, (3000, 1))
    inferred = true + 0.1 * true * (1 - true)
    trends = fit_trends(inferred, true)
    assert np.abs(trends.correct(inferred) - true).max() < 0.002


def test_where_there_is_no_trend_none_is_invented(random):
    true = random.uniform(0, 1, (3000, 1))
    corrected = fit_trends(true, true).correct(true)
    np.testing.assert_allclose(corrected, true, atol=1e-9)


@pytest.fixture(scope="module")
def novelty_and_lines():
    """Spectra of twelve lines whose strengths vary in two ways, and the novelty learned from them."""
    grid = Grid(np.linspace(6600, 6660, 301))
    random = np.random.default_rng(2)
    centers = random.uniform(6605, 6655, 12)
    profiles = np.exp(-0.5 * ((grid.wavelength - centers[:, None]) / 0.3) ** 2)
    strengths = random.uniform(0, 0.3, (2, 12))

    def draw(n):
        flux = 1 - random.uniform(0, 1, (n, 2)) @ strengths @ profiles
        return torch.as_tensor(flux, dtype=torch.float32)

    settings = config.Augmentation(snr=(100, 200))
    return fit_novelty(draw(2000), settings, grid, str, seed=1), draw


def noisy(flux, snr, seed=0):
    random = np.random.default_rng(seed)
    return (flux.numpy() + random.normal(0, 1 / snr, flux.shape)).astype(np.float32)


@pytest.mark.parametrize("snr", [50, 150, 500])
def test_clean_spectra_are_rarely_called_unlike_training(novelty_and_lines, snr):
    novelty, draw = novelty_and_lines
    assert (novelty.score(noisy(draw(2000), snr)) > 1).mean() < 3 * FALSE_ALARM


@pytest.mark.parametrize(
    "spoil",
    [
        lambda flux: flux[:, np.random.default_rng(1).permutation(flux.shape[1])],
        lambda flux: np.roll(flux, 15, axis=1),
        lambda flux: flux + 0.3 * (np.arange(flux.shape[1]) % 60 < 3),
        lambda flux: flux * np.linspace(0.5, 1.5, flux.shape[1], dtype=np.float32),
    ],
    ids=["shuffled pixels", "lines elsewhere", "emission", "no continuum"],
)
def test_what_training_never_saw_is_called_unlike_training(novelty_and_lines, spoil):
    novelty, draw = novelty_and_lines
    assert (novelty.score(noisy(torch.as_tensor(spoil(draw(300).numpy())), 150)) > 1).mean() > 0.95


def test_a_spectrum_with_gaps_is_judged_by_what_it_has(novelty_and_lines):
    novelty, draw = novelty_and_lines
    flux = noisy(draw(500), 150)
    flux[:, 100:200] = np.nan
    assert (novelty.score(flux) > 1).mean() < 0.1
