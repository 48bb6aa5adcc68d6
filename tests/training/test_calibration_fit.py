"""Calibration and trends, fitted to what can be derived."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.fit import COLUMNS
from anna_onnx.training.calibration import features_of, fit_adjustment, fit_calibration, fit_trends


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


def adjusted(features: torch.Tensor, error: torch.Tensor, n_star: int = 10_000) -> torch.Tensor:
    """Return the factors of an adjustment fitted to errors in units of sigma."""
    return fit_adjustment(features, error.abs(), n_star, seed=1)(features)


def test_errors_that_are_wrong_by_a_function_of_the_features_are_put_right():
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(40000, 2, generator=generator)
    honest = torch.stack([(2 * features[:, 0] - 1).square() + 0.5, torch.full((40000,), 0.7)], dim=1)
    found = adjusted(features, honest * torch.randn(honest.shape, generator=generator))
    assert found.numpy() == pytest.approx(honest.numpy(), rel=0.2)
    assert (found / honest).mean(dim=0).numpy() == pytest.approx(1, abs=0.03)


def test_of_few_stars_only_what_is_linear_is_learnt():
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(3000, 1, generator=generator)
    honest = (2 * features - 1).exp()
    error = honest * torch.randn(honest.shape, generator=generator)
    assert len(list(fit_adjustment(features, error.abs(), 500, seed=1).layers)) == 1
    assert adjusted(features, error, 500).numpy() == pytest.approx(honest.numpy(), rel=0.2)


def test_features_farther_than_any_that_were_seen_count_as_the_last():
    features = torch.randn(5000, 1, generator=torch.Generator().manual_seed(3))
    adjustment = fit_adjustment(features, (0.2 * features).exp() * 0.5, 10_000, seed=1)
    far = adjustment(torch.tensor([[5.0], [1e6], [-1e6], [-5.0]]))
    assert far[0] == far[1]
    assert far[2] == far[3]


def test_a_label_whose_truth_is_rarely_known_keeps_its_errors_and_unknown_truths_do_not_count():
    error = torch.full((5000, 2), 0.5)
    error[::2, 0] = float("nan")
    error[200:, 1] = float("nan")
    found = adjusted(torch.randn(5000, 3, generator=torch.Generator().manual_seed(4)), error)
    assert found[:, 0].numpy() == pytest.approx(0.5, rel=0.05)
    assert found[:, 1].numpy() == pytest.approx(1, rel=0.05)


def test_what_errors_may_depend_on_is_labels_sigma_and_how_well_they_fit():
    mean, sigma = torch.rand(4, 3), torch.rand(4, 3) + 0.1
    labels = torch.cat([mean, sigma.log()], dim=1)
    assert torch.equal(features_of(mean, sigma, None), labels)
    fit = torch.rand(4, len(COLUMNS)) + 0.1
    noise, misfit, lines = (fit[:, COLUMNS.index(name)].log() for name in ("noise", "misfit", "lines"))
    found = features_of(mean, sigma, fit)
    assert torch.equal(found[:, :6], labels)
    assert torch.equal(found[:, 6:], torch.stack([noise, misfit - noise, misfit - lines], dim=1))
    assert features_of(mean, torch.zeros(4, 3), torch.zeros_like(fit)).isfinite().all()


def test_a_label_that_is_hardly_known_has_no_trend_and_a_star_without_an_answer_does_not_count(random):
    true = random.uniform(0, 1, (300, 3))
    inferred = true + 0.1 * true * (1 - true)
    true[:, 1], true[9:, 2] = np.nan, np.nan
    inferred[5] = np.nan
    trends = fit_trends(inferred, true)
    assert trends.coefficients[1:].tolist() == [[0, 1, 0, 0, 0]] * 2
    assert np.nanmax(np.abs(trends.correct(inferred) - true)[:, 0]) < 0.002


def test_spectra_whose_snr_is_not_known_are_in_no_bin(random):
    error, snr = random.normal(size=(2000, 1)), random.uniform(50, 200, 2000)
    error[7], snr[7] = 1e6, np.nan
    found = fit_calibration(error, np.ones((2000, 1)), snr)
    assert found.n == 1999
    assert np.isfinite(found.snr).all()
    assert found.factors.max() < 10
