"""Continuum normalisation: known spectra times known curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anna_onnx.arrays import FloatArray
from anna_onnx.continuum import Normalization, fit_continuum, normalize
from anna_onnx.errors import AnnaError, SpectrumError
from anna_onnx.spectrum import Spectrum

WAVELENGTH = np.arange(6600.0, 6850.0, 0.1)
X = (WAVELENGTH - 6725) / 125
CURVES: dict[str, FloatArray] = {
    "flat": np.full(X.size, 3.0),
    "slope": 1e-16 * (1 + 0.4 * X),
    "blaze": 2e4 * np.sinc(0.5 * X) ** 2,
    "wiggle": 50 + 5 * np.sin(2 * X) + 8 * X**3,
}


def star(n_lines: int = 80, noise: float = 0.01, seed: int = 1) -> FloatArray:
    """A spectrum with continuum 1, lines and noise."""
    rng = np.random.default_rng(seed)
    centers, depths = rng.uniform(6590, 6860, n_lines), rng.uniform(0.05, 0.7, n_lines)
    lines = (depths * np.exp(-0.5 * ((WAVELENGTH[:, None] - centers) / 0.25) ** 2)).sum(axis=1)
    return np.clip(1 - lines, 0.05, None) + noise * rng.standard_normal(WAVELENGTH.size)


@pytest.mark.parametrize("recipe", [Normalization(), Normalization("polynomial", 5)], ids=["spline", "polynomial"])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("noise", [0.002, 0.01, 0.02])
def test_a_known_curve_is_recovered_to_one_percent(curve: str, recipe: Normalization, noise: float) -> None:
    flux = star(noise=noise)
    found = normalize(Spectrum(WAVELENGTH, flux * CURVES[curve]), recipe).flux / flux
    assert np.quantile(np.abs(found - 1), 0.9) < 0.01
    assert np.abs(found - 1).max() < 0.03  # at the ends


@pytest.mark.parametrize("slope", [0.54, 0.8])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_a_steep_continuum_of_high_snr_and_few_lines_is_not_lost(slope: float, noise: float) -> None:
    line = 1 - slope * X
    for seed in range(1, 9):
        flux = line * star(n_lines=20, noise=noise, seed=seed)
        np.testing.assert_allclose(fit_continuum(WAVELENGTH, flux, X < 2, Normalization()), line, rtol=0.005)


def test_errors_and_the_way_it_was_done_come_along() -> None:
    counts = Spectrum(WAVELENGTH, 100 * star(), sigma=np.full(X.size, 2.0), notes=("read",))
    done = normalize(counts)
    np.testing.assert_allclose(done.sigma, 0.02, rtol=0.02)
    assert done.notes == ("read", "continuum normalised (spline, order 3)")


def test_cosmic_rays_and_bad_pixels_do_not_pull_the_continuum() -> None:
    flux = star() * 1000
    flux[::97] = 1e6
    bad = np.zeros(X.size, dtype=bool)
    bad[500:560], flux[500:560] = True, -1e9
    continuum = fit_continuum(WAVELENGTH, flux, ~bad, Normalization())
    np.testing.assert_allclose(continuum, 1000, rtol=0.015)


def test_a_broad_line_can_be_ignored() -> None:
    wing = 1 - 0.6 / (1 + ((WAVELENGTH - 6720) / 15) ** 2)
    recipe = Normalization("polynomial", 2, ignore=((6620.0, 6820.0),))
    found = normalize(Spectrum(WAVELENGTH, star(0) * wing), recipe).flux
    blind = normalize(Spectrum(WAVELENGTH, star(0) * wing), Normalization("spline", 8)).flux
    center = np.argmin(np.abs(WAVELENGTH - 6720))
    assert found[center] == pytest.approx(0.4, abs=0.05)
    assert blind[center] > 0.5


def test_orders_are_fitted_each_on_its_own() -> None:
    blue, red = WAVELENGTH < 6700, WAVELENGTH > 6740
    scale = np.where(blue, 100.0, 3.0)
    kept = blue | red
    done = normalize(Spectrum(WAVELENGTH[kept], (scale * star(30))[kept]), Normalization("polynomial", 1))
    assert np.percentile(done.flux[blue[kept]], 80) == pytest.approx(1, abs=0.015)
    assert np.percentile(done.flux[red[kept]], 80) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("flux", [np.zeros, lambda n: -np.ones(n), lambda n: np.full(n, np.nan)])
def test_a_spectrum_without_continuum_is_refused(flux: Callable[[int], FloatArray]) -> None:
    with pytest.raises(SpectrumError, match="no continuum found"):
        normalize(Spectrum(WAVELENGTH, flux(X.size)))


@pytest.mark.parametrize(
    "wrong",
    [{"curve": "sine"}, {"order": 0}, {"iterations": 0}, {"low_reject": 0.0}, {"ignore": ((2.0, 1.0),)}],
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnnaError, match="continuum: "):
        Normalization(**wrong)


def test_a_recipe_survives_json() -> None:
    recipe = Normalization("polynomial", 4, ignore=((6562.0, 6564.0),))
    assert Normalization.from_dict(json.loads(json.dumps(recipe.to_dict())) | {"newer": 1}) == recipe


def test_synthetic_stars_times_a_blaze_come_back_to_one_percent(shared: Path) -> None:
    values = np.memmap(shared / "train_5000.bin", dtype=np.float64, mode="r")
    n_pixel, n_label = int(values[0]), int(values[1])
    wavelength = np.array(values[2 : 2 + n_pixel])
    rows = values[2 + n_pixel :].reshape(-1, n_pixel + n_label + 2)[:100]
    noise = 0.01 * np.random.default_rng(0).standard_normal((100, n_pixel))
    blaze = 3e4 * np.sinc((wavelength - 6740) / 500) ** 2
    offsets = []
    for flux in np.array(rows[:, 2 + n_label :]) + noise:
        found = normalize(Spectrum(wavelength, flux * blaze)).flux / flux
        offsets.append(np.median(found) - 1)
    assert np.sqrt(np.mean(np.square(offsets))) < 0.01
