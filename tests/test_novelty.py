"""Novelty: what lies outside the subspace of the training spectra."""

import numpy as np
import pytest

from anna_onnx.errors import BundleError
from anna_onnx.novelty import Novelty, pixel_noise

approx = pytest.approx
N_PIXEL, N_COMPONENT = 400, 5


@pytest.fixture
def novelty() -> Novelty:
    directions, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(N_PIXEL, N_COMPONENT)))
    return Novelty(np.ones(N_PIXEL), directions.T, np.array([0.001, 0.1]), np.array([0.002, 0.2]), 0.01)


def inside(novelty: Novelty, n: int) -> np.ndarray:
    weights = np.random.default_rng(2).normal(size=(n, N_COMPONENT))
    return (novelty.mean + weights @ novelty.components).astype(np.float32)


def test_what_lies_in_the_subspace_leaves_nothing(novelty: Novelty) -> None:
    assert novelty.remainder(inside(novelty, 4)) == approx(0, abs=2e-4)


def test_what_lies_outside_is_left(novelty: Novelty) -> None:
    outside = np.random.default_rng(3).normal(size=N_PIXEL)
    outside -= (outside @ novelty.components.T) @ novelty.components
    flux = inside(novelty, 1) + 0.1 * outside
    assert novelty.remainder(flux.astype(np.float32)) == approx(0.1 * np.sqrt((outside**2).mean()), rel=1e-3)


def test_missing_pixels_do_not_count(novelty: Novelty) -> None:
    flux = inside(novelty, 3)
    flux[:, 100:140] = np.nan
    assert novelty.remainder(flux) == approx(0, abs=1e-2)
    assert np.isfinite(novelty.score(np.full((1, N_PIXEL), np.nan, np.float32))).all()


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
def test_the_noise_of_a_pixel_is_measured(noise: float) -> None:
    flux = 1 + np.random.default_rng(4).normal(0, noise, (50, 1000))
    flux[:, 200:300] = np.nan
    assert pixel_noise(flux.astype(np.float32)).mean() == approx(noise, rel=0.05)


@pytest.mark.parametrize("n_pixel", [1, 4, 5, 6])
def test_short_spectra_have_a_noise_too(n_pixel: int) -> None:
    assert pixel_noise(np.ones((2, n_pixel), np.float32)) == approx(0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"components": np.ones((2, 3))}, "components of shape"),
        ({"noise": np.array([0.1])}, "thresholds for 1 noise levels"),
        ({"threshold": np.array([0.1, np.nan])}, "positive"),
        ({"noise": np.array([0.2, 0.1])}, "ascending"),
        ({"mean": np.full(N_PIXEL, np.inf)}, "finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(novelty: Novelty, change: dict[str, np.ndarray], why: str) -> None:
    with pytest.raises(BundleError, match=why):
        Novelty(**{**vars(novelty), **change})
