"""What real spectra have and a grid lacks: every effect against what it must do."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.training.augmentation import OUTLIER, Augmentation

GRID = Grid(np.linspace(6625.0, 6825.0, 1001))
STEP = 0.2


def augment(flux, seed=1, **settings):
    augmentation = Augmentation(config.Augmentation(**settings), GRID)
    return augmentation(torch.as_tensor(flux, dtype=torch.float32), torch.Generator().manual_seed(seed)).flux.double()


def spectra(depth, n=400):
    return torch.full((n, 1001), 1.0 - depth)


def gaussian_line(fwhm, depth=0.3):
    sigma = fwhm / math.sqrt(8 * math.log(2))
    return torch.tensor(1 - depth * np.exp(-0.5 * ((GRID.wavelength - 6725.0) / sigma) ** 2)).float()


def test_errors_of_lines_are_a_fraction_of_their_depth():
    depth = 1 - augment(spectra(0.5), line_errors=(0.05, 0.05))
    assert float((depth / 0.5).std()) == pytest.approx(0.05, rel=0.05)
    assert float((depth / 0.5).mean()) == pytest.approx(1.0, abs=2e-3)


def test_the_continuum_has_no_lines_that_could_be_wrong():
    assert float((augment(spectra(0.0), line_errors=(0.3, 0.3)) - 1).abs().max()) == 0


def test_errors_of_lines_are_shared_within_a_line_and_not_beyond():
    error = 0.5 - augment(spectra(0.5), line_errors=(0.05, 0.05), line_width=0.6)
    correlation = [float((error[:, 300:700] * error[:, 300 + k : 700 + k]).mean() / error.var()) for k in (1, 10)]
    sigma = 0.6 / math.sqrt(8 * math.log(2)) / STEP
    assert correlation[0] == pytest.approx(math.exp(-1 / (4 * sigma**2)), abs=0.02)  # of noise smoothed by a Gaussian
    assert correlation[1] == pytest.approx(0.0, abs=0.02)


SPECIES = {"species": ((6660.0, 6720.0), (6780.0,)), "species_errors": (0.2, 0.2)}


def depth_at(depth, wavelength):
    return depth[:, int(np.abs(GRID.wavelength - wavelength).argmin())]


def test_all_lines_of_an_element_are_wrong_by_the_same_fraction_and_those_of_others_by_another():
    depth = (1 - augment(spectra(0.5, 4000), **SPECIES)) / 0.5
    one, same, other, none = (depth_at(depth, wavelength) for wavelength in (6660.0, 6720.0, 6780.0, 6700.0))
    assert float((one - same).abs().max()) < 1e-6
    assert [float(line.std()) for line in (one, other)] == pytest.approx([0.2, 0.2], rel=0.05)
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.05
    assert float((none - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("velocity", [-100.0, 30.0, 250.0])
def test_the_lines_of_an_element_move_with_the_star(velocity):
    augmentation = Augmentation(config.Augmentation(**SPECIES), GRID)
    moving = torch.full((50,), velocity)
    flux = augmentation(spectra(0.5, 50), torch.Generator().manual_seed(1), velocity=moving).flux
    wrong = GRID.wavelength[(flux - 0.5).abs().mean(dim=0) > 0.04]
    shift = math.sqrt((1 + velocity / C_KMS) / (1 - velocity / C_KMS))
    assert all(np.abs(wrong - line * shift).min() < STEP for line in (6660.0, 6720.0, 6780.0))
    assert all(np.abs(np.array([6660.0, 6720.0, 6780.0]) * shift - found).min() < 0.75 for found in wrong)


def test_the_lines_of_an_element_move_with_the_shift_of_the_augmentation():
    flux = augment(spectra(0.5, 50), radial_velocity=(100.0, 100.0), **SPECIES)
    wrong = GRID.wavelength[(flux - 0.5).abs().mean(dim=0).numpy() > 0.04]
    assert np.abs(wrong - 6720.0 * (1 + 100.0 / C_KMS)).min() < STEP


def test_unknown_lines_take_away_their_number_times_their_depth_and_width():
    lost = STEP * (1 - augment(spectra(0.0, 3000), unknown_lines=5.0, unknown_line_depth=0.02, line_width=0.6))
    area = 0.6 * math.sqrt(math.pi / (4 * math.log(2)))  # of a Gaussian of peak 1
    assert float(lost.sum(dim=1).mean()) == pytest.approx(5 * 0.02 * area, rel=0.05)
    assert float(lost.min()) >= 0


@pytest.mark.parametrize("error", [-0.05, 0.03, 0.06])
def test_a_wider_profile_makes_a_wider_line_of_the_same_strength(error):
    line = gaussian_line(fwhm=0.6)
    wider = augment(line[None], profile_errors=(error, error), line_width=0.6)[0]
    depth, before = 1 - wider.numpy(), 1 - line.numpy().astype(float)

    def variance(profile):
        return (profile * (GRID.wavelength - 6725.0) ** 2).sum() / profile.sum()

    assert depth.sum() == pytest.approx(before.sum(), rel=1e-5)
    assert variance(depth) / variance(before) == pytest.approx((1 + error) ** 2, rel=1e-4)


def test_scattered_light_fills_lines_and_leaves_the_continuum():
    flux = augment(spectra(0.5, 3), scattered_light=(0.04, 0.04))
    assert flux.numpy() == pytest.approx((0.5 + 0.04) / 1.04, rel=1e-6)
    assert augment(spectra(0.0, 3), scattered_light=(0.04, 0.04)).numpy() == pytest.approx(1.0, rel=1e-6)


def test_waves_of_the_continuum_have_their_amplitude():
    waves = augment(spectra(0.0, 3000), continuum_waves=(0.03, 0.03)) - 1
    assert float(waves.abs().max()) <= 0.03 + 1e-6
    assert float(waves.square().mean()) == pytest.approx(3 * 0.01**2 / 2, rel=0.05)  # three sines of a third each


@pytest.mark.parametrize("correlation", [0.1, 0.3, 0.49])
def test_noise_of_neighbours_is_correlated_as_asked(correlation):
    noise = augment(spectra(0.0), snr=(50.0, 50.0), noise_correlation=(correlation, correlation)) - 1
    assert float(noise.std()) == pytest.approx(0.02, rel=0.02)
    assert float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()) == pytest.approx(correlation, abs=0.01)
    assert float((noise[:, 2:] * noise[:, :-2]).mean() / noise.var()) == pytest.approx(0.0, abs=0.01)


def test_outliers_add_their_variance():
    noise = augment(spectra(0.0, 2000), snr=(50.0, 50.0), noise_outliers=(0.02, 0.02)) - 1
    assert float(noise.var()) == pytest.approx(0.02**2 * (1 + 0.02 * (OUTLIER**2 - 1)), rel=0.02)


def test_snr_even_in_its_logarithm():
    settings = config.Augmentation(snr=(10.0, 1000.0), snr_spacing="log")
    snr = Augmentation(settings, GRID)(spectra(0.0, 4000), torch.Generator().manual_seed(1)).snr
    assert float((snr < 100).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(snr.min()) >= 10
    assert float(snr.max()) <= 1000 * (1 + 1e-5)


def test_only_the_asked_share_of_spectra_is_incomplete():
    lost = augment(spectra(0.0, 4000), coverage=(0.5, 0.9), incomplete=0.3).isnan().any(dim=1)
    assert float(lost.double().mean()) == pytest.approx(0.3, abs=0.03)


def test_bad_columns_are_missing_in_complete_spectra_too():
    assert augment(spectra(0.0), gaps=(0.1, 0.1), incomplete=0.1, bad_columns=(7,))[:, 7].isnan().all()


def test_only_the_asked_share_of_spectra_is_imperfect():
    flux = augment(spectra(0.5, 4000), scattered_light=(0.1, 0.2), imperfect=0.3)
    changed = (flux != 0.5).any(dim=1)
    assert float(changed.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert (flux != 0.5).all(dim=1).equal(changed)


def test_the_others_have_white_noise():
    flux = augment(
        spectra(0.5, 3000), snr=(100.0, 100.0), noise_correlation=(0.5, 0.5), scattered_light=(0.2, 0.2), imperfect=0.5
    )
    imperfect = flux.mean(dim=1) > 0.55
    for chosen, expected in ((imperfect, 0.5), (~imperfect, 0.0)):
        noise = flux[chosen] - flux[chosen].mean(dim=1, keepdim=True)
        assert float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var()) == pytest.approx(expected, abs=0.01)
