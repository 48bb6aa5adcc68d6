"""The emulator on an example whose answers are known: one line, as deep as the label says."""

from dataclasses import replace

import numpy as np
import pytest

from anna_onnx.emulator import Emulator
from anna_onnx.errors import BundleError
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.shifting import Shifter

N_PIXEL = 200
LINE = np.exp(-0.5 * ((np.arange(N_PIXEL) - 100) / 2.5) ** 2)
DEPTH = 0.5


def line_emulator() -> Emulator:
    """Return an emulator whose flux is 1 - DEPTH * label * LINE: a hidden unit so far up that it is linear."""
    size = np.sqrt((LINE**2).sum())
    return Emulator(
        mean=np.ones(N_PIXEL),
        components=(LINE / size)[None].astype(np.float32),
        input_weight=np.full((1, 1), 0.5, np.float32),
        input_bias=np.full(1, 50.5, np.float32),  # 50 + label
        hidden_weight=np.ones((1, 1), np.float32),
        hidden_bias=np.zeros(1, np.float32),
        output_weight=np.full((1, 1), -DEPTH * size, np.float32),
        output_bias=np.full(1, 50 * DEPTH * size, np.float32),
        noise=np.array([0.01]),
        misfit_threshold=np.array([3.0]),
        blur_threshold=np.array([3.0]),
        line_error=0.05,
        blur_error=0.1,
        velocity_low=-100.0,
        velocity_high=100.0,
    )


@pytest.fixture
def emulator() -> Emulator:
    return line_emulator()


@pytest.fixture
def shifter() -> Shifter:
    return Shifter(Grid(np.linspace(6000, 6040, N_PIXEL)))


def stars(labels, shifter, velocity=0.0, depth=DEPTH):
    flux = (1 - depth * np.outer(labels, LINE)).astype(np.float32)
    return shifter.shift(flux, np.full(len(flux), velocity), beyond=1.0)


def score(emulator, shifter, flux, labels, velocities=None):
    noise = np.random.default_rng(1).normal(0, 0.01, flux.shape)
    errors = np.full((len(labels), 1), 0.02)
    fit = emulator.compare((flux + noise).astype(np.float32), labels[:, None], errors, shifter, velocities)
    return emulator.score(fit), fit


LABELS = np.linspace(0.5, 1, 50)


def test_the_spectrum_of_a_label(emulator):
    np.testing.assert_allclose(emulator.spectrum(LABELS[:, None]), 1 - DEPTH * np.outer(LABELS, LINE), atol=1e-4)


def test_a_star_like_its_emulation_fits_at_any_velocity_of_the_training(emulator, shifter):
    found, fit = score(emulator, shifter, stars(LABELS, shifter, 60.0), LABELS)
    assert (found < 1).all()
    assert fit.velocity == pytest.approx(60, abs=10)
    assert fit.noise == pytest.approx(0.01, rel=0.2)
    assert fit.pixel_noise == pytest.approx(0.01, rel=0.4)


def test_a_line_of_another_depth_does_not_fit(emulator, shifter):
    found, _ = score(emulator, shifter, stars(LABELS, shifter, depth=DEPTH / 3), LABELS)
    assert (found > 1).all()


def test_a_line_elsewhere_does_not_fit_a_star_at_rest(emulator, shifter):
    found, _ = score(emulator, shifter, stars(LABELS, shifter, 60.0), LABELS, (0, 0))
    assert (found > 1).all()


def test_a_gap_where_the_line_is_leaves_nothing_to_object_to(emulator, shifter):
    flux = stars(LABELS, shifter, depth=DEPTH / 3)
    flux[:, 85:116] = np.nan
    found, _ = score(emulator, shifter, flux, LABELS)
    assert (found < 1).all()


def test_a_shift_moves_a_line_by_its_velocity(shifter):
    moved = shifter.shift(stars(np.ones(1), shifter), np.array([45.0]))[0]
    pixels = 45 / C_KMS * 6020 / (40 / (N_PIXEL - 1))
    assert np.nansum((1 - moved) * np.arange(N_PIXEL)) / np.nansum(1 - moved) == pytest.approx(100 + pixels, abs=0.02)
    assert np.isnan(moved[:4]).all()


def test_uneven_grids_are_measured_on_even_steps():
    shifter = Shifter(Grid(np.concatenate([np.linspace(6000, 6020, 150), np.linspace(6020.8, 6060, 50)])))
    assert shifter.measure(
        shifter.shift(LINE[None].astype(np.float32), np.array([50.0]), beyond=0),
        LINE[None].astype(np.float32),
        -100,
        100,
    ) == pytest.approx(50, abs=15)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38, 0.0])
def test_any_flux_has_a_verdict(emulator, shifter, number):
    flux = np.full((2, N_PIXEL), number, np.float32)
    fit = emulator.compare(flux, np.full((2, 1), np.nan), np.full((2, 1), np.nan), shifter)
    assert emulator.score(fit).shape == (2,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"components": np.ones((1, 3), np.float32)}, "components"),
        ({"hidden_weight": np.ones((1, 2), np.float32)}, "hidden_weight"),
        ({"output_bias": np.full(1, np.nan, np.float32)}, "finite"),
        ({"noise": np.array([0.1, 0.2])}, "threshold"),
        ({"misfit_threshold": np.zeros(1)}, "positive"),
        ({"velocity_high": 1e6}, "3000"),
        ({"line_error": -1.0}, "negative"),
    ],
)
def test_parts_that_do_not_fit_are_refused(emulator, change, why):
    with pytest.raises(BundleError, match=why):
        replace(emulator, **change)
