"""Calibration and trends, fitted to what can be derived."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.training.calibration import fit_calibration, fit_factors, fit_scaling, fit_trends


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


def test_a_power_of_the_misfit_is_found_where_errors_go_with_it(random):
    snr = np.geomspace(10, 400, 48000)
    misfit = 0.7 * 10 ** random.normal(0, 0.15, snr.size)
    power = np.where(snr > 100, 0.5, 0.0)
    error = (misfit**power)[:, None] * random.normal(size=(snr.size, 3))
    error[::7, 1] = np.nan
    found = fit_scaling(error, np.ones_like(error), snr, misfit)
    assert found.snr.size == 8
    assert found.misfit == pytest.approx(0.7, rel=0.05)
    assert found.power == pytest.approx(np.where(found.snr > 100, 0.5, 0.0), abs=0.1)


def test_spectra_that_all_fit_equally_well_tell_nothing_of_a_power(random):
    error = random.normal(size=(2000, 1))
    assert fit_scaling(error, np.ones_like(error), np.full(2000, 100.0), np.zeros(2000)).power == pytest.approx(0)


def test_factors_undo_errors_that_are_wrong_by_a_function_of_the_label():
    generator = torch.Generator().manual_seed(1)
    true = torch.rand(60000, 2, generator=generator)
    honest = torch.stack([0.02 + 0.04 * true[:, 0], torch.full((60000,), 0.03)], dim=1)
    mean = true + honest * torch.randn(true.shape, generator=generator)
    found = fit_factors(mean, torch.full_like(mean, 0.03), true)
    assert found.knot.shape == found.factor.shape == (2, 3, 6)
    assert found.factor[0].numpy() == pytest.approx((0.02 + 0.04 * found.knot[0].clamp(0, 1)).numpy() / 0.03, rel=0.1)
    assert found.factor[1].numpy() == pytest.approx(1.0, rel=0.1)


def test_factors_undo_errors_that_are_wrong_by_a_function_of_sigma():
    generator = torch.Generator().manual_seed(2)
    true = torch.rand(60000, 1, generator=generator)
    sigma = 0.01 * 10 ** torch.rand(true.shape, generator=generator)
    honest = 0.1 * sigma.sqrt()
    found = fit_factors(true + honest * torch.randn(true.shape, generator=generator), sigma, true)
    assert found.factor.mean(dim=-1).numpy() == pytest.approx(0.1 / (found.level / 2).exp().numpy(), rel=0.06)
    assert (found.level.diff() > 0).all()
    assert (found.knot.diff() > 0).all()


def test_few_spectra_get_one_factor_for_all():
    found = fit_factors(torch.rand(50, 1), torch.ones(50, 1), torch.rand(50, 1))
    assert (found.factor == 1).all()
    assert (found.level.diff() > 0).all()
    assert (found.knot.diff() > 0).all()


def test_unknown_truths_do_not_count():
    true = torch.linspace(0, 1, 8000)[:, None]
    mean = true + 0.01
    true[::2] = float("nan")
    found = fit_factors(mean, torch.full_like(mean, 0.01), true)
    assert found.factor.numpy() == pytest.approx(1.0, rel=1e-3)
