"""The full covariance: a correlation matrix whatever the network says, its likelihood, and what is learnt with it."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from anna_onnx import config
from anna_onnx.errors import ConfigError
from anna_onnx.training.covariance import OWN, correlation_of, count_pairs, mixture_correlation
from anna_onnx.training.evaluation import joint_coverage
from anna_onnx.training.frozen import load_network
from anna_onnx.training.loop import train
from anna_onnx.training.network import Network
from anna_onnx.training.optimization import cost_of

SMALL = config.Anna(kernel=5, filters=4, fc1=32, fc2=32)


def build(n_label=3, seed=1, **changes):
    torch.manual_seed(seed)
    return Network(40, n_label, config.Network(uncertainty=True, covariance=True, sizes=SMALL, **changes))


def drawn(n_label, n=6, seed=1):
    """Return mean, spread and truth of one member and some spectra."""
    torch.manual_seed(seed)
    return torch.randn(1, n, n_label), torch.randn(1, n, n_label + count_pairs(n_label)), torch.randn(n, n_label)


def covariance_of(spread, n_label):
    """Return what a spread means, shape (n, n_label, n_label)."""
    sigma = spread[0, :, :n_label].double().exp()
    correlation = correlation_of(spread[0, :, n_label:], n_label).double()
    return (correlation * sigma[:, :, None] * sigma[:, None, :]).numpy()


def cost_by_scipy(mean, covariance, truth):
    """Return minus the mean log-likelihood of the labels that are known, without its constant."""
    costs = []
    for center, matrix, star in zip(mean[0].double().numpy(), covariance, truth.double().numpy(), strict=True):
        known = np.isfinite(star)
        density = multivariate_normal(center[known], matrix[np.ix_(known, known)])
        costs.append(-density.logpdf(star[known]) - known.sum() * 0.5 * math.log(2 * math.pi))
    return np.mean(costs)


# --- a correlation matrix ---------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 7), st.integers(0, 1000), st.floats(-3, 25))
def test_any_numbers_make_a_correlation_matrix(n_label, seed, size):
    random = torch.Generator().manual_seed(seed)
    free = 10.0**size * torch.randn(4, count_pairs(n_label), generator=random)
    found = correlation_of(free, n_label)
    assert found.shape == (4, n_label, n_label)
    assert torch.equal(found, found.mT)
    assert found.diagonal(dim1=1, dim2=2).numpy() == pytest.approx(1, abs=1e-6)
    assert float(torch.linalg.eigvalsh(found.double()).min()) > 0.99 * OWN
    assert torch.linalg.cholesky(found).isfinite().all()


def test_zeros_make_labels_independent():
    assert torch.allclose(correlation_of(torch.zeros(2, 6), 4), torch.eye(4), atol=1e-7)


@pytest.mark.parametrize("wanted", [-0.99, -0.3, 0.0, 0.7, 0.99])
def test_any_correlation_of_two_labels_can_be_said(wanted):
    # r = a / sqrt(1 + a**2)
    free = torch.tensor([wanted / math.sqrt(1 - wanted**2)])
    assert float(correlation_of(free, 2)[0, 1]) == pytest.approx(wanted, abs=2 * OWN)


def test_the_correlation_of_an_ensemble_is_that_of_its_draws():
    torch.manual_seed(2)
    mean, sigma = torch.randn(3, 1, 2), torch.rand(3, 1, 2) + 0.5
    correlation = correlation_of(torch.randn(3, 1, 1), 2)
    root = torch.linalg.cholesky(correlation[:, 0]) * sigma[:, 0, None, :].mT
    draws = mean[:, 0, None, :] + torch.randn(3, 200_000, 2) @ root.mT
    draws = draws.reshape(-1, 2)
    found = mixture_correlation(mean, sigma, correlation, draws.std(dim=0, keepdim=True))
    assert found[0].numpy() == pytest.approx(torch.corrcoef(draws.T).numpy(), abs=0.01)


# --- the likelihood ---------------------------------------------------------------


@pytest.mark.parametrize("n_label", [2, 3, 5])
def test_the_cost_is_that_of_a_multivariate_gaussian(n_label):
    mean, spread, truth = drawn(n_label)
    expected = cost_by_scipy(mean, covariance_of(spread, n_label), truth)
    assert float(cost_of(mean, spread, truth)) == pytest.approx(expected, rel=1e-4)


def test_missing_labels_leave_the_marginal_of_the_known_ones():
    mean, spread, truth = drawn(4)
    truth[0, 1] = truth[1, 0] = truth[2, 3] = truth[3, 0] = truth[3, 2] = math.nan
    expected = cost_by_scipy(mean, covariance_of(spread, 4), truth)
    assert float(cost_of(mean, spread, truth)) == pytest.approx(expected, rel=1e-4)


def test_missing_labels_have_no_gradient_and_others_a_finite_one():
    mean, spread, truth = drawn(3)
    truth[0, 1], truth[1] = math.nan, math.nan
    cost_of(mean.requires_grad_(), spread.requires_grad_(), truth).backward()
    assert mean.grad.isfinite().all()
    assert spread.grad.isfinite().all()
    assert mean.grad[0, 0, 1] == 0
    assert spread.grad[0, 0, [1, 3]].tolist() == [0, 0]  # its sigma, and its row of the triangle
    assert not spread.grad[0, 1].any()


def test_independent_labels_cost_what_they_cost_one_by_one():
    mean, spread, truth = drawn(4)
    truth[0, 1] = math.nan
    spread[..., 4:] = 0
    weight = torch.rand(6, 4)
    for weights in (None, weight):
        alone = cost_of(mean, spread[..., :4], truth, weights)
        assert float(cost_of(mean, spread, truth, weights)) == pytest.approx(float(alone), rel=1e-5)


def test_labels_and_sigma_learn_as_they_do_without_covariance():
    mean, spread, truth = drawn(4)
    truth[0, 1] = math.nan
    gradients = []
    for numbers in (spread, spread[..., :4]):
        leaves = [part.clone().requires_grad_() for part in (mean, numbers)]
        cost_of(*leaves, truth).backward()
        gradients.append([leaf.grad[..., :4] for leaf in leaves])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_wild_numbers_cost_no_more_than_float32_holds(size):
    mean, spread, truth = drawn(5)
    spread[..., 5:] *= size
    cost = cost_of(mean, spread.requires_grad_(), truth)
    cost.backward()
    assert cost.isfinite()
    assert spread.grad.isfinite().all()


def test_an_answer_that_is_no_number_costs_no_number():
    mean, spread, truth = drawn(3)
    spread[0, 0, 4] = math.nan
    assert cost_of(mean, spread, truth).isnan()


def test_half_precision_answers_cost_nearly_the_same():
    mean, spread, truth = drawn(4)
    half = [part.to(torch.bfloat16) for part in (mean, spread)]
    expected = cost_of(*(part.float() for part in half), truth)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(cost_of(*half, truth)) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize(("rho", "assumed", "expected"), [(0.8, 0.8, 0.683), (0.8, 0.0, 0.717), (-0.3, -0.3, 0.683)])
def test_the_ellipsoid_of_all_labels_holds_as_many_truths_as_it_says(rho, assumed, expected):
    random = np.random.default_rng(1)
    scale = np.array([100.0, 0.2])
    error = scale * random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 20_000)
    error[0, 1] = np.nan
    correlation = np.broadcast_to([[1, assumed], [assumed, 1]], (len(error), 2, 2))
    found = joint_coverage(error, np.broadcast_to(scale, error.shape), correlation)
    assert found == pytest.approx(expected, abs=0.01)


# --- networks ---------------------------------------------------------------------


def test_a_network_says_a_number_for_each_pair_more():
    mean, spread = build(n_label=5)(torch.rand(7, 40))
    assert (mean.shape, spread.shape) == ((1, 7, 5), (1, 7, 5 + 10))
    _, sigma, correlation = build(n_label=5, members=3).combine_all(torch.rand(7, 40))
    assert (sigma.shape, correlation.shape) == ((7, 5), (7, 5, 5))


def test_without_covariance_a_network_is_what_it_was():
    torch.manual_seed(1)
    plain = Network(40, 3, config.Network(uncertainty=True, sizes=SMALL))
    assert plain.members[0][-1].weight.shape == (6, 32)
    assert plain(torch.rand(7, 40))[1].shape == (1, 7, 3)
    assert plain.combine_all(torch.rand(7, 40))[2] is None


def test_one_label_has_nothing_to_correlate_with():
    _, sigma, correlation = build(n_label=1).combine_all(torch.rand(7, 40))
    assert sigma.shape == (7, 1)
    assert correlation is None


def test_the_marginal_sigma_stays_what_the_network_says():
    network = build(members=1)
    flux = torch.rand(7, 40)
    _, spread = network(flux)
    _, sigma, correlation = network.combine_all(flux)
    assert sigma.detach().numpy() == pytest.approx(spread[0, :, :3].exp().detach().numpy(), rel=1e-5)
    expected = correlation_of(spread[0, :, 3:], 3)
    assert correlation.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5)


def test_covariance_without_uncertainty_is_refused():
    with pytest.raises(ConfigError, match=r"network\.covariance: needs uncertainty = true"):
        config.loads('[data]\ntrain = "train.h5"\n[network]\ncovariance = true\n')


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_two_labels_of_which_only_the_sum_shows_are_known_to_be_bound_together(noise):
    # Labels a, b ~ N(0, 1), seen is a + b + noise: their posterior has the correlation -1 / (1 + noise**2).
    network, random = build(n_label=2), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        labels = torch.randn(256, 2, generator=random)
        seen = labels.sum(dim=1, keepdim=True) + noise * torch.randn(256, 1, generator=random)
        optimizer.zero_grad()
        cost_of(*network(0.1 * seen.expand(256, 40)), labels).backward()
        optimizer.step()
    seen = torch.tensor([[-1.5], [0.0], [1.5]])
    mean, sigma, correlation = (part.detach() for part in network.combine_all(0.1 * seen.expand(3, 40)))
    assert mean.numpy() == pytest.approx((seen / (2 + noise**2)).expand(3, 2).numpy(), abs=0.15)
    assert sigma.numpy() == pytest.approx(math.sqrt(1 - 1 / (2 + noise**2)), rel=0.1)
    assert correlation[:, 0, 1].numpy() == pytest.approx(-1 / (1 + noise**2), abs=0.05)


def test_a_run_finds_how_the_errors_of_labels_correlate_though_some_are_missing(toy, toy_labels, toy_flux):
    labels = toy_labels(2000)
    noise = np.random.default_rng(3).multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 2000)
    noisy = labels + noise * [600, 0.8]
    noisy[::3, 0] = noisy[1::5, 1] = np.nan
    toy.write("train.h5", labels=noisy, flux=toy_flux(labels))
    task = toy(
        labels={"names": ["teff", "logg"], "low": [3000, 1], "high": [6000, 5]},
        network={"uncertainty": True, "covariance": True},
        stage={"steps": 500, "batch_size": 50, "learning_rate": 2e-2},
    )
    network = load_network(train(task, say=lambda text: None))
    flux = torch.as_tensor(toy_flux(toy_labels(100, seed=5)), dtype=torch.float32)
    _, sigma, correlation = (part.detach() for part in network.combine_all(flux))
    assert float(sigma.median()) == pytest.approx(0.2, rel=0.25)
    assert float(correlation[:, 0, 1].median()) == pytest.approx(0.7, abs=0.15)
