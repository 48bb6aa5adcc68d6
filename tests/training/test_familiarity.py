"""What a model knows of its training set, on stars of six lines whose strengths are the labels."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from anna_onnx import config
from anna_onnx.medium import C_KMS
from anna_onnx.resampling import Grid
from anna_onnx.training import emulation
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.comparison import Comparison
from anna_onnx.training.familiarity import (
    FALSE_ALARM,
    Stars,
    clean_spectra,
    fit_novelty,
    joint_thresholds,
    set_thresholds,
    usual_blur,
    usual_limits,
)
from anna_onnx.trainingset import TrainingSet

GRID = Grid(np.linspace(6600, 6660, 301))
FASTEST = 50.0  # km/s
WIDTH = 0.35  # Å, of the lines
ERROR = 0.02  # of a scaled label
CENTERS = np.random.default_rng(2).uniform(6605, 6655, 6)
STRENGTHS = np.random.default_rng(3).uniform(0.1, 0.4, (2, 6))


def spectra(labels, velocity, width=WIDTH):
    """Return stars whose lines are 0.4 to 1 of two strengths."""
    centers = CENTERS * (1 + np.asarray(velocity)[:, None] / C_KMS)
    profiles = np.exp(-0.5 * ((GRID.wavelength - centers[:, :, None]) / width) ** 2)  # (star, line, pixel)
    return 1 - np.einsum("nl,nlp->np", (0.4 + 0.6 * labels) @ STRENGTHS, profiles)


def draw(n, seed, fastest=FASTEST):
    random = np.random.default_rng(seed)
    return random.uniform(0, 1, (n, 2)), random.uniform(-fastest, fastest, n)


def noisy(flux, snr, seed=0):
    return (flux + np.random.default_rng(seed).normal(0, 1 / snr, flux.shape)).astype(np.float32)


class Familiar:
    """What is learned, with an inference that knows the labels to `ERROR`, or says the nearest that training had."""

    def __init__(self):
        labels, velocity = draw(1200, 4)
        flux = torch.as_tensor(spectra(labels, velocity), dtype=torch.float32)
        self.emulator = emulation.fit_emulator(flux, labels, velocity, GRID, 1)
        self.comparison = Comparison(self.emulator, GRID, (-FASTEST, FASTEST)).eval()
        novelty = fit_novelty(Stars(flux, labels), Augmentation(config.Augmentation(), GRID), 1)
        labels, velocity = draw(3000, 5)
        clean = spectra(labels, velocity)
        self.comparison.expect_blur(usual_blur(self.comparison, noisy(clean, 1e6), lambda _: known(labels)[:, :1000]))
        levels = (20, 40, 80, 160, 320)

        self.novelty, self.limits = set_thresholds(
            novelty,
            usual_limits(self.comparison),
            levels,
            {"interpolated": lambda snr: noisy(clean, snr or 1e6)},
            lambda flux: self.compare(flux, labels),
        )

    def compare(self, flux, labels):
        return self.comparison.fit(torch.as_tensor(flux), *known(labels))

    def rate(self, flux, labels):
        """Return the share of spectra that are called unlike training."""
        return np.mean(self.limits.score(self.compare(flux, labels)) > 1)


def known(labels):
    error = np.random.default_rng(6).normal(0, ERROR, labels.shape)
    return torch.tensor(np.stack([labels + error, np.full(labels.shape, ERROR)]), dtype=torch.float32)


@pytest.fixture(scope="module")
def familiar():
    patch = pytest.MonkeyPatch()
    patch.setattr(emulation, "STEPS", 500)
    yield Familiar()
    patch.undo()


def test_the_emulator_makes_the_spectra_of_labels_at_rest(familiar):
    labels, _ = draw(200, 7)
    emulated = familiar.emulator.spectrum(familiar.emulator(torch.as_tensor(labels, dtype=torch.float32)))
    difference = emulated.numpy() - spectra(labels, np.zeros(200))
    assert np.sqrt((difference**2).mean()) < 0.005


def test_velocities_that_make_spectra_less_alike_are_not_used(monkeypatch):
    monkeypatch.setattr(emulation, "STEPS", 2)
    labels, _ = draw(400, 8)
    flux = torch.as_tensor(spectra(labels, np.zeros(400)), dtype=torch.float32)
    alike = emulation.principal_components(flux, 5)
    emulator = emulation.fit_emulator(flux, labels, np.linspace(-90, 90, 400), GRID, 1)
    np.testing.assert_allclose(emulator.mean, alike.mean, atol=1e-6)


@pytest.mark.parametrize("snr", [30, 60, 120])
def test_clean_spectra_are_rarely_called_unlike_training(familiar, snr):
    labels, velocity = draw(1500, 9)
    assert familiar.rate(noisy(spectra(labels, velocity), snr), labels) < 3 * FALSE_ALARM


@pytest.mark.parametrize("snr", [30, 120])
def test_clean_spectra_are_rarely_outside_the_space_of_the_training(familiar, snr):
    labels, velocity = draw(1500, 9)
    assert np.mean(familiar.novelty.score(noisy(spectra(labels, velocity), snr)) > 1) < 3 * FALSE_ALARM


def test_velocity_and_broadening_are_measured(familiar):
    labels, velocity = draw(300, 10)
    wider = np.hypot(WIDTH, 0.1)
    fit = familiar.compare(noisy(spectra(labels, velocity, wider), 300), labels)
    assert fit.velocity == pytest.approx(velocity, abs=2)
    assert np.median(fit.widening) == pytest.approx((0.1 / 0.2) ** 2, rel=0.4)  # pixels of 0.2 Å
    assert fit.noise == pytest.approx(1 / 300, rel=0.3)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda flux: 1 - (1 - flux) / 3,
        lambda flux: np.ones_like(flux),
        lambda flux: flux[:, np.random.default_rng(1).permutation(flux.shape[1])],
        lambda flux: flux + 0.3 * (np.arange(flux.shape[1]) % 60 < 3),
        lambda flux: flux * np.linspace(0.5, 1.5, flux.shape[1]),
    ],
    ids=["weak lines", "no lines", "shuffled pixels", "emission", "no continuum"],
)
def test_what_training_never_saw_is_called_unlike_training(familiar, spoil):
    labels, velocity = draw(300, 11)
    # A network that never saw such a star says the nearest that it knows: its weakest lines.
    assert familiar.rate(noisy(spoil(spectra(labels, velocity)), 150), np.zeros((300, 2))) > 0.95


def test_half_the_resolving_power_is_called_unlike_training(familiar):
    labels, velocity = draw(300, 12)
    assert familiar.rate(noisy(spectra(labels, velocity, 2 * WIDTH), 150), labels) > 0.95


def test_a_spectrum_with_gaps_is_judged_by_what_it_has(familiar):
    labels, velocity = draw(500, 14)
    flux = noisy(spectra(labels, velocity), 100)
    flux[:, 100:180] = np.nan
    assert familiar.rate(flux, labels) < 0.1
    assert np.isfinite(familiar.compare(flux * np.nan, labels).misfit).all()


def test_thresholds_hold_for_all_tests_together():
    left = np.random.default_rng(15).lognormal(0, [[[0.1]], [[1.0]]], (2, 2, 20000)).swapaxes(0, 1)
    noise = np.tile(np.array([0.01, 0.1])[:, None, None], (1, 2, 20000))
    level, threshold = joint_thresholds(noise, left, FALSE_ALARM)
    assert level == pytest.approx(np.array([[0.01, 0.01], [0.1, 0.1]]))
    assert (left > threshold[:, :, None]).any(axis=1).mean(axis=1) == pytest.approx(FALSE_ALARM, rel=0.1)
    assert (left > threshold[:, :, None]).mean(axis=2) == pytest.approx(FALSE_ALARM / 2, rel=0.1)


def stars_with_velocities(tmp_path, n=200):
    labels, velocity = draw(n, 16)
    return TrainingSet(
        path=tmp_path / "stars.h5",
        grid=GRID,
        flux=spectra(labels, velocity).astype(np.float32),
        labels=labels,
        label_names=("a", "b"),
        label_units=("", ""),
        id=np.arange(n),
        aux={"rv": velocity},
    )


def test_clean_spectra_come_as_they_are_interpolated_and_at_rest(tmp_path):
    stars = stars_with_velocities(tmp_path)
    kinds = clean_spectra(config.Config(), stars)
    sharp, at_rest = kinds["sharp"](None), kinds["at rest"](None)
    assert sharp[:200] == pytest.approx(stars.flux, abs=1e-6)
    still = spectra(stars.labels, np.zeros(200))[:, 50:-50]
    assert at_rest[:200, 50:-50] == pytest.approx(still, abs=0.02)
    noise = {name: (kinds[name](50.0) - kinds[name](None))[:, 50:-50].std() for name in ("sharp", "at rest")}
    assert noise["sharp"] == pytest.approx(0.02, rel=0.02)
    assert noise["at rest"] < 0.95 * noise["sharp"]


def test_errors_of_elements_in_clean_spectra_are_where_the_lines_of_moving_stars_are(tmp_path):
    augmentation = config.Augmentation(species=((float(CENTERS[0]),),), species_errors=(0.5, 0.5), line_width=0.3)
    stars = stars_with_velocities(tmp_path)
    wrong = np.abs(clean_spectra(config.Config(augmentation=augmentation), stars)["sharp"](None)[:200] - stars.flux)
    place = GRID.wavelength[wrong.argmax(axis=1)]
    assert np.median(np.abs(place - CENTERS[0] * (1 + stars.aux["rv"] / C_KMS))) < 0.3
