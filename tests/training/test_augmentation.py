"""Augmentation: every effect against what physics says it must do."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.errors import TrainingError
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.training.augmentation import Augmentation

GRID = Grid(np.linspace(6625.0, 6825.0, 1001))
CENTER = 6725.0


def augment(flux, grid=GRID, seed=1, template=None, sigma=None, residuals=None, **settings):
    augmentation = Augmentation(config.Augmentation(**settings), grid, template=template, residuals=residuals)
    return augmentation(torch.as_tensor(flux, dtype=torch.float32), torch.Generator().manual_seed(seed), sigma)


def continuum(n=50, grid=GRID):
    return torch.ones(n, grid.n_pixel)


def gaussian_line(wavelength, center=CENTER, sigma=0.6, depth=0.5):
    return 1 - depth * np.exp(-0.5 * ((wavelength - center) / sigma) ** 2)


def width_of(flux, wavelength):
    """Return the standard deviation of an absorption line at the centre, Angstrom."""
    depth = (1 - flux) * (np.abs(wavelength - CENTER) < 6)
    mean = (depth * wavelength).sum(-1) / depth.sum(-1)
    return np.sqrt((depth * (wavelength - mean[..., None]) ** 2).sum(-1) / depth.sum(-1))


# --- noise ------------------------------------------------------------------


def test_noise_is_one_over_snr_times_template():
    template = torch.linspace(0.5, 2.0, 1001)
    flux = augment(continuum(2000), snr=(100.0, 100.0), template=template).flux
    assert flux.std(0).numpy() == pytest.approx(0.01 / template.numpy(), rel=0.1)
    assert float((flux.std(0) * 100 * template).mean()) == pytest.approx(1.0, rel=2e-3)


def test_legacy_noise_is_multiplied_by_the_template():
    template = torch.linspace(0.5, 2.0, 1001)
    flux = augment(continuum(2000), snr=(100.0, 100.0), template=template, legacy_noise=True).flux
    assert float((flux.std(0) * 100 / template).mean()) == pytest.approx(1.0, rel=2e-3)


def test_each_spectrum_has_an_snr_of_its_own_and_says_which():
    result = augment(continuum(500), snr=(50.0, 150.0))
    assert (1 / result.flux.std(1)).numpy() == pytest.approx(result.snr.numpy(), rel=0.12)
    assert float(result.snr.mean()) == pytest.approx(100, abs=5)
    assert float(result.snr.std()) == pytest.approx(100 / math.sqrt(12), rel=0.1)


def test_noise_is_white():
    noise = augment(continuum(500), snr=(100.0, 100.0)).flux - 1
    neighbours = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    assert abs(float(neighbours)) < 5e-3


def test_noise_of_the_file_is_its_sigma():
    sigma = torch.linspace(0.001, 0.1, 1001).expand(2000, -1)
    result = augment(continuum(2000), file_noise=True, sigma=sigma)
    assert result.flux.std(0).numpy() == pytest.approx(sigma[0].numpy(), rel=0.1)
    assert result.snr[0].item() == pytest.approx(1 / sigma[0].median().item(), rel=1e-5)


def test_missing_pixels_do_not_count_in_the_snr_of_the_files_noise():
    flux, sigma = continuum(1), torch.full((1, 1001), 0.01)
    flux[:, :600], sigma[:, :600] = math.nan, 1.0  # as 'anna pack' writes them
    assert augment(flux, file_noise=True, sigma=sigma).snr.item() == pytest.approx(100, rel=1e-5)


def test_noise_of_the_file_needs_a_sigma():
    with pytest.raises(TrainingError, match="no sigma"):
        augment(continuum(1), file_noise=True)


def test_real_noise_is_one_of_the_residual_spectra():
    residuals = torch.linspace(-0.1, 0.1, 7)[:, None] * torch.ones(1001)
    added = augment(continuum(300), residuals=residuals).flux - 1
    assert set(added.round(decimals=4).flatten().tolist()) == set(residuals[:, 0].round(decimals=4).tolist())


def test_without_noise_the_snr_is_infinite():
    assert augment(continuum(3), continuum_offset=(-0.01, 0.01)).snr.isinf().all()


# --- continuum --------------------------------------------------------------


def test_an_offset_moves_all_pixels_alike():
    error = augment(continuum(4000), continuum_offset=(-0.01, 0.03)).flux - 1
    assert float(error.std(1).max()) < 1e-6
    assert float(error.mean()) == pytest.approx(0.01, abs=1e-3)
    assert -0.01 <= float(error.min()) < -0.0095
    assert 0.0295 < float(error.max()) <= 0.03001


def test_a_slope_is_straight_and_zero_in_the_middle():
    error = (augment(continuum(100), continuum_slope=(0.02, 0.02)).flux - 1)[0].numpy()
    assert error == pytest.approx(0.02 * (GRID.wavelength - CENTER) / 100, abs=1e-6)


def test_curvature_is_a_sum_of_legendre_terms_2_to_4():
    error = augment(continuum(20), continuum_curvature=(-0.05, 0.05)).flux.numpy() - 1
    x = (GRID.wavelength - CENTER) / 100
    found = np.polynomial.legendre.legfit(x, error.T.astype(float), 6)
    assert np.abs(found[[0, 1, 5, 6]]).max() < 1e-6
    assert np.abs(found[2:5]).max() < 0.05
    assert np.abs(found[2:5]).std(axis=1).min() > 0.005


def test_a_multiplicative_error_is_proportional_to_the_flux():
    flux = torch.linspace(0.1, 1.0, 1001).expand(10, -1)
    changed = augment(flux, continuum_offset=(0.1, 0.1), continuum_slope=(0.0, 0.05), continuum_mode="multiplicative")
    additive = augment(flux, continuum_offset=(0.1, 0.1), continuum_slope=(0.0, 0.05))
    assert (changed.flux / flux - 1).numpy() == pytest.approx((additive.flux - flux).numpy(), abs=1e-5)


# --- radial velocity ----------------------------------------------------------


@pytest.mark.parametrize("velocity", [-90.0, -3.0, 0.0, 7.5, 100.0])
def test_a_radial_velocity_shifts_a_line_relativistically(velocity):
    beta = velocity / C_KMS
    factor = math.sqrt((1 + beta) / (1 - beta))
    sigma = 0.6
    shifted = augment(gaussian_line(GRID.wavelength)[None], radial_velocity=(velocity, velocity)).flux[0].numpy()
    expected = gaussian_line(GRID.wavelength / factor, sigma=sigma)
    inside = np.isfinite(shifted)
    assert shifted[inside] == pytest.approx(expected[inside], abs=5e-4)


def test_a_velocity_is_the_same_on_a_logarithmic_grid():
    grid = Grid(np.geomspace(6625.0, 6825.0, 1001))
    shifted = augment(gaussian_line(grid.wavelength)[None], grid, radial_velocity=(50.0, 50.0)).flux[0].numpy()
    inside = np.isfinite(shifted)
    expected = gaussian_line(grid.wavelength / (1 + 50 / C_KMS), sigma=0.6)
    assert shifted[inside] == pytest.approx(expected[inside], abs=1e-3)


def test_a_shift_that_grows_along_a_long_spectrum_is_followed():
    # From the first pixel to the last the shift grows by two pixels: it is made in five blocks.
    grid = Grid(np.linspace(6600.0, 6850.0, 6001))
    wave = np.sin(grid.wavelength / 0.3)
    shifted = augment(wave[None], grid, radial_velocity=(100.0, 100.0)).flux[0].numpy()
    beta = 100.0 / C_KMS
    expected = np.sin(grid.wavelength * math.sqrt((1 - beta) / (1 + beta)) / 0.3)
    inside = np.isfinite(shifted)
    assert inside.mean() > 0.98
    inside[:60] = False  # where the continuation by two pixels is felt
    assert shifted[inside] == pytest.approx(expected[inside], abs=2e-4)


def test_a_grid_with_a_gap_is_shifted_rightly_away_from_the_gap():
    grid = Grid(np.concatenate([np.linspace(6625, 6700, 376), np.linspace(6705, 6825, 601)]))
    shifted = augment(gaussian_line(grid.wavelength)[None], grid, radial_velocity=(20.0, 20.0)).flux[0].numpy()
    expected = gaussian_line(grid.wavelength / (1 + 20 / C_KMS))
    line = np.abs(grid.wavelength - CENTER) < 10
    assert shifted[line] == pytest.approx(expected[line], abs=1e-3)


def test_what_comes_from_beyond_the_ends_is_missing_and_nothing_wraps_around():
    flux = augment(continuum(2), radial_velocity=(100.0, 100.0)).flux
    # The flux of the first pixels would come from 11 pixels further left; one pixel beyond the end is forgiven.
    assert flux[0].isnan().nonzero().flatten().tolist() == list(range(int(100 / C_KMS * 6625 / 0.2)))
    flux = augment(continuum(2), radial_velocity=(-100.0, -100.0)).flux
    assert flux[0].isnan().nonzero().flatten().tolist() == list(range(1001 - int(100 / C_KMS * 6825 / 0.2), 1001))


def test_a_batch_knows_nothing_of_the_one_before():
    augmentation = Augmentation(config.Augmentation(snr=(100, 200), radial_velocity=(-50, 50)), GRID)
    spectra = continuum(20) - 0.1 * torch.rand(20, 1001)
    first = augmentation(spectra, torch.Generator().manual_seed(1)).flux
    kept = first.clone()
    for batch in (torch.full_like(spectra, math.nan), spectra[:7]):
        augmentation(batch, torch.Generator().manual_seed(2))
    assert torch.equal(first.nan_to_num(), kept.nan_to_num())
    again = augmentation(spectra, torch.Generator().manual_seed(1)).flux
    assert torch.equal(again.nan_to_num(), kept.nan_to_num())


def test_no_velocity_changes_nothing():
    flux = torch.rand(3, 1001)
    assert augment(flux, radial_velocity=(0.0, 0.0)).flux.numpy() == pytest.approx(flux.numpy(), abs=1e-6)


# --- rotation and resolution --------------------------------------------------


def gray_profile(velocity, vsini, epsilon=0.6):
    """The rotational profile (Gray 2005, The Observation and Analysis of Stellar Photospheres, eq. 18.14)."""
    x = np.clip(1 - (velocity / vsini) ** 2, 0, None)
    profile = 2 * (1 - epsilon) * np.sqrt(x) + 0.5 * math.pi * epsilon * x
    return profile / profile.sum()


@pytest.mark.parametrize("vsini", [8.0, 30.0, 80.0])
def test_rotation_is_the_convolution_with_grays_profile(vsini):
    # Fine pixels of equal velocity: the direct convolution is then exact enough to be the truth.
    step = 0.1
    velocity = np.arange(-vsini - step, vsini + 2 * step, step)
    fine = CENTER * np.exp(np.arange(-14000, 14001) * step / C_KMS)
    truth = 1 - np.convolve(1 - gaussian_line(fine, sigma=0.3), gray_profile(velocity, vsini), mode="same")
    rotated = augment(gaussian_line(GRID.wavelength, sigma=0.3)[None], vsini=(vsini, vsini)).flux[0].numpy()
    assert rotated == pytest.approx(np.interp(GRID.wavelength, fine, truth), abs=4e-3)
    area = (1 - rotated).sum() / (1 - gaussian_line(GRID.wavelength, sigma=0.3)).sum()
    assert area == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize("vsini", [60.0, 150.0])
def test_fast_rotation_is_right_at_high_resolution_too(vsini):
    grid = Grid(np.arange(6700.0, 6750.0, 0.02))
    velocity = np.log(grid.wavelength / CENTER) * C_KMS
    share = np.linspace(-1, 1, 4001)
    weight = gray_profile(vsini * share, vsini)
    truth = 1 - 0.5 * np.exp(-0.5 * ((velocity[:, None] - vsini * share) / 1.3) ** 2) @ weight
    line = 1 - 0.5 * np.exp(-0.5 * (velocity / 1.3) ** 2)
    rotated = augment(line[None], grid, vsini=(vsini, vsini)).flux[0].numpy()
    assert rotated == pytest.approx(truth, abs=0.01 * (1 - truth.min()))


def test_a_star_that_does_not_rotate_keeps_its_lines():
    flux = gaussian_line(GRID.wavelength)[None]
    assert augment(flux, vsini=(0.0, 0.0)).flux.numpy() == pytest.approx(flux, abs=1e-3)


@pytest.mark.parametrize("resolution", [3000.0, 6000.0, 9000.0])
def test_degrading_the_resolution_adds_gaussians_in_quadrature(resolution):
    own = 12000.0
    to_sigma = CENTER / (2 * math.sqrt(2 * math.log(2)))
    flux = gaussian_line(GRID.wavelength, sigma=to_sigma / own)[None]
    blurred = augment(flux, resolution=(resolution, resolution), spectrum_resolution=own).flux.numpy()
    assert width_of(blurred, GRID.wavelength)[0] == pytest.approx(to_sigma / resolution, rel=5e-3)
    assert (1 - blurred).sum() == pytest.approx((1 - flux).sum(), rel=1e-3)


def test_a_spectrum_is_never_sharpened():
    flux = gaussian_line(GRID.wavelength)[None]
    same = augment(flux, resolution=(50000.0, 60000.0), spectrum_resolution=20000.0).flux.numpy()
    assert same == pytest.approx(flux, abs=1e-3)


def test_a_missing_pixel_does_not_spread_when_the_spectrum_is_blurred():
    flux = torch.as_tensor(gaussian_line(GRID.wavelength)[None])
    flux[0, 100] = math.nan
    blurred = augment(flux, vsini=(20.0, 20.0)).flux
    assert blurred[0].isnan().nonzero().flatten().tolist() == [100]


# --- cosmic rays and missing pixels ---------------------------------------------


def test_cosmic_rays_come_at_their_rate_with_exponential_heights():
    hits = augment(continuum(4000), cosmic_rays=3.0).flux - 1
    count = (hits > 0).sum(1).float()
    assert float(count.mean()) == pytest.approx(3.0, rel=0.03)
    assert float(count.var()) == pytest.approx(3.0, rel=0.1)
    assert float(hits[hits > 0].mean()) == pytest.approx(1.0, rel=0.03)
    assert float(hits[hits > 0].std()) == pytest.approx(1.0, rel=0.05)
    assert float(hits.min()) == 0


def test_single_pixels_are_lost_at_their_rate():
    lost = augment(continuum(2000), missing_pixels=(0.02, 0.06)).flux.isnan().float()
    assert float(lost.mean()) == pytest.approx(0.04, rel=0.03)
    assert float(lost.mean(1).std()) > 0.01


def test_a_gap_is_one_stretch_of_pixels_anywhere():
    lost = augment(continuum(1000), gaps=(0.05, 0.15)).flux.isnan()
    starts = (lost[:, 1:] & ~lost[:, :-1]).sum(1) + lost[:, 0]
    assert starts.tolist() == [1] * 1000
    assert float(lost.float().mean()) == pytest.approx(0.1, rel=0.05)
    assert float(lost.float().mean(0)[100:-100].std()) < 0.03


def test_coverage_keeps_one_stretch():
    kept = ~augment(continuum(1000), coverage=(0.5, 0.9)).flux.isnan()
    starts = (kept[:, 1:] & ~kept[:, :-1]).sum(1) + kept[:, 0]
    assert starts.tolist() == [1] * 1000
    assert float(kept.float().mean()) == pytest.approx(0.7, rel=0.03)
    assert float(kept.float().mean(1).min()) > 0.49


def test_half_of_what_is_covered_begins_or_ends_with_the_grid():
    kept = ~augment(continuum(4000), coverage=(0.5, 0.9)).flux.isnan()
    assert [float(kept[:, end].float().mean()) for end in (0, -1)] == pytest.approx([0.25, 0.25], abs=0.03)


def test_bad_columns_and_masked_regions_are_always_missing():
    flux = augment(continuum(2), bad_columns=(0, 17), mask=((6700.0, 6701.0),)).flux
    lost = {0, 17} | set(np.flatnonzero((GRID.wavelength >= 6700) & (GRID.wavelength <= 6701)).tolist())
    assert set(flux[1].isnan().nonzero().flatten().tolist()) == lost


def test_a_bad_column_outside_the_grid_is_named():
    with pytest.raises(TrainingError, match="5000 is not a pixel of the grid's 1001"):
        augment(continuum(1), bad_columns=(5000,))


# --- seeds ----------------------------------------------------------------------

EVERYTHING = {
    "snr": (50.0, 200.0), "continuum_offset": (-0.01, 0.01), "continuum_slope": (-0.01, 0.01),
    "continuum_curvature": (-0.01, 0.01), "radial_velocity": (-50.0, 50.0), "vsini": (0.0, 20.0),
    "resolution": (5000.0, 9000.0), "spectrum_resolution": 10000.0, "cosmic_rays": 2.0,
    "missing_pixels": (0.0, 0.05), "gaps": (0.0, 0.1), "coverage": (0.8, 1.0),
}  # fmt: skip


def test_the_same_seed_gives_the_same_spectra_and_another_seed_others():
    flux = torch.as_tensor(gaussian_line(GRID.wavelength)).expand(20, -1)
    first, again, other = (augment(flux, seed=seed, **EVERYTHING).flux for seed in (1, 1, 2))
    assert torch.equal(first.nan_to_num(), again.nan_to_num())
    assert not torch.equal(first.nan_to_num(), other.nan_to_num())


def test_everything_at_once_leaves_spectra():
    flux = augment(torch.as_tensor(gaussian_line(GRID.wavelength)).expand(100, -1), **EVERYTHING).flux
    assert flux.shape == (100, 1001)
    assert flux.dtype == torch.float32
    assert 0.05 < float(flux.isnan().float().mean()) < 0.4
    assert float(flux[~flux.isnan()].median()) == pytest.approx(1.0, abs=0.02)


def test_nothing_asked_for_is_nothing_done():
    flux = torch.rand(4, 1001)
    assert torch.equal(augment(flux).flux, flux)
