"""Comparing spectra with an emulation whose answers are known: one line, as deep as the label says."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx.fit import COLUMNS, Fit
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.training.comparison import Comparison, Emulator

N_PIXEL = 200
GRID = Grid(np.linspace(6000, 6040, N_PIXEL))
LINE = np.exp(-0.5 * ((np.arange(N_PIXEL) - 100) / 2.5) ** 2)
DEPTH, NOISE = 0.5, 0.01
LABELS = np.linspace(0.5, 1, 50)


def comparison(grid: Grid = GRID, line: np.ndarray = LINE, fastest: float = 100.0) -> Comparison:
    """Return one whose emulation is 1 - DEPTH * label * line, among lines elsewhere that no label makes."""
    size = np.sqrt((line**2).sum())
    elsewhere = [np.roll(LINE, shift) / np.sqrt((LINE**2).sum()) for shift in range(-75, 100, 25) if shift]
    layer = torch.nn.Linear(1, 1 + len(elsewhere))  # of labels from -1 to 1
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    torch.nn.init.constant_(layer.weight[:1], -DEPTH * size / 2)
    components = torch.as_tensor(np.stack([line / size, *elsewhere]))
    emulator = Emulator(torch.as_tensor(1 - DEPTH / 2 * line), components, torch.nn.Sequential(layer))
    return Comparison(emulator, grid, (-fastest, fastest)).requires_grad_(False).eval()


def star(velocity: float = 0.0, depth: float = DEPTH, width: float = 1.0, line: float = 100.0) -> np.ndarray:
    """Return a star for each of `LABELS`."""
    pixels = line + velocity / C_KMS * GRID.wavelength[round(line)] / np.diff(GRID.wavelength).mean()
    profile = np.exp(-0.5 * ((np.arange(N_PIXEL) - pixels) / (2.5 * width)) ** 2) / width
    return 1 - depth * np.outer(LABELS, profile)


def compare(flux: np.ndarray, what: Comparison | None = None, error: float = 0.02, noise: float = NOISE) -> Fit:
    noisy = flux + np.random.default_rng(1).normal(0, noise, flux.shape)
    labels = torch.as_tensor(LABELS[:, None], dtype=torch.float32)
    return (what or comparison()).fit(
        torch.as_tensor(noisy, dtype=torch.float32), labels, torch.full_like(labels, error)
    )


def misfit_in_noise(fit: Fit) -> np.ndarray:
    return fit.misfit / fit.noise


@pytest.mark.parametrize("velocity", [-80.0, 0.0, 35.0])
def test_a_star_like_its_emulation_fits_at_any_velocity_of_the_training(velocity):
    fit = compare(star(velocity))
    assert fit.velocity == pytest.approx(velocity, abs=3)
    assert fit.noise == pytest.approx(NOISE, rel=0.3)
    assert np.median(fit.pixel_noise) == pytest.approx(NOISE, rel=0.1)
    assert misfit_in_noise(fit).max() < 2
    assert np.median(fit.widening / fit.widening_error) == pytest.approx(0, abs=0.5)


def test_a_line_of_another_depth_does_not_fit_unless_the_label_is_as_uncertain():
    weak = star(depth=DEPTH / 3)
    assert np.median(misfit_in_noise(compare(weak))) > 4
    assert np.median(misfit_in_noise(compare(weak, error=0.3))) < 1


def test_the_lines_are_those_that_are_expected():
    expected = DEPTH * LABELS * LINE.std()
    assert compare(star(depth=0.1)).lines == pytest.approx(expected, rel=1e-3)


def test_a_line_that_is_broader_is_measured_to_be_and_an_error_of_the_profile_that_is_expected_is_no_misfit():
    wide = star(width=1.1)
    added = (2.5 * 1.1) ** 2 - 2.5**2  # square pixels
    assert np.median(compare(wide, noise=1e-3).widening) == pytest.approx(added, rel=0.2)
    lenient = comparison()
    lenient.expect_blur(added)
    assert np.median(compare(wide, lenient, noise=1e-3).misfit) < np.median(compare(wide, noise=1e-3).misfit)


@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_a_continuum_that_is_off_is_no_misfit(slope):
    tilted = star() * (1.01 + slope * np.linspace(-1, 1, N_PIXEL))
    assert np.median(misfit_in_noise(compare(tilted))) < 2


def test_a_gap_where_the_line_is_leaves_nothing_to_object_to():
    flux = star(depth=DEPTH / 3)
    flux[:, 85:116] = np.nan
    fit = compare(flux)
    assert misfit_in_noise(fit).max() < 1
    assert fit.noise == pytest.approx(NOISE, rel=0.25)


def test_pixels_beside_a_gap_are_interpolated_straight_and_the_noise_stays_the_noise():
    flux = star(20.0)
    flux[:, ::9] = np.nan
    fit = compare(flux)
    assert fit.noise == pytest.approx(NOISE, rel=0.35)
    assert fit.velocity == pytest.approx(20, abs=4)


def test_uneven_grids_are_shifted_by_the_pixels_of_each_step():
    grid = Grid(np.concatenate([np.linspace(6000, 6020, 150), np.linspace(6023, 6063, 50)]))
    moved = grid.wavelength / (1 + 60 / C_KMS)
    line, shifted = (np.exp(-0.5 * ((at - 6010) / 0.4) ** 2) for at in (grid.wavelength, moved))
    fit = compare(1 - DEPTH * np.outer(LABELS, shifted), comparison(grid, line))
    assert fit.velocity == pytest.approx(60, abs=4)
    assert fit.noise == pytest.approx(NOISE, rel=0.25)


def test_a_look_up_for_each_pixel_gives_what_one_for_all_gives(monkeypatch):
    together = compare(star(35.0))
    monkeypatch.setattr("anna_onnx.training.comparison.MOST_BLOCKS", 0)
    apart = compare(star(35.0))
    assert apart.velocity == pytest.approx(together.velocity, abs=0.1)
    assert apart.noise == pytest.approx(together.noise, rel=0.02)


def test_a_spectrum_is_compared_the_same_alone_and_among_others():
    what, flux = comparison(), torch.as_tensor(star(30.0), dtype=torch.float32)
    labels = torch.as_tensor(LABELS[:, None], dtype=torch.float32)
    together = what(flux, labels, 0.1 * labels)
    alone = torch.cat([what(flux[i : i + 1], labels[i : i + 1], 0.1 * labels[i : i + 1]) for i in range(len(flux))])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38, 0.0])
def test_any_flux_has_a_finite_answer(number):
    flux, nothing = torch.full((2, N_PIXEL), number), torch.full((2, 1), torch.nan)
    columns = comparison()(flux, nothing, nothing)
    assert columns.shape == (2, len(COLUMNS))
    assert columns.isfinite().all()
