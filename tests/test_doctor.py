"""The doctor finds what was done to synthetic spectra: noise, continuum, velocity, resolution, gaps, a line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="onnx builds the network of this test")

from onnx import TensorProto, helper, numpy_helper

from anna_onnx import config
from anna_onnx.bundle import Bundle, write
from anna_onnx.doctor import WIDTHS, Deviation, Measurements, examine, find_deviations, measure_noise, sharpest_width
from anna_onnx.errors import AnnaError, GridError
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.prescription import consult, describe, prescribe
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import Sidecar
from anna_onnx.snrtemplate import read_template
from anna_onnx.synthesis import SpectralGrid, Synthesizer, simulate
from anna_onnx.trainingset import TrainingSetWriter
from anna_onnx_cli.anna import main
from tests import tiny

GRID = Grid(np.linspace(6640, 6720, 401), "air")
X = np.linspace(-1, 1, 401)
RANGES = {"teff": (5000, 6500), "logg": (3.5, 4.7), "feh": (-0.4, 0.2), "vmic": (0.5, 2), "vsini": (0, 10)}
LABELS = tuple(Label(name, *span) for name, span in RANGES.items())
PARAMS = """
[data]
grid = "default"
wavelength = [6640, 6720, 0.2]
fwhm = 0.6
radial_velocity = [-10, 10]
[augmentation]
snr = [60.0, 120.0]
continuum_offset = [-0.01, 0.01]
"""


def stars(n: int, seed: int, fwhm: float = 0.6, rv: tuple[float, float] = (-10, 10), max_vsini: float = 10):
    """Return the flux, labels and velocities of stars without noise."""
    random = np.random.default_rng(seed)
    synthesizer = Synthesizer.build(SpectralGrid.open(), GRID, fwhm=fwhm, max_rv=60, max_vsini=10)
    labels = random.uniform([one.low for one in LABELS], [one.high for one in LABELS], (n, 5))
    labels[:, 4] *= max_vsini / 10
    velocity = random.uniform(*rv, n)
    return synthesizer(labels, velocity), labels, velocity


def write_spectra(path: Path, flux: np.ndarray, sigma: np.ndarray | None = None) -> str:
    with TrainingSetWriter(path, GRID, [], [], len(flux), sigma=sigma is not None) as writer:
        writer.append(flux, np.empty((len(flux), 0)), np.arange(len(flux)), sigma=sigma)
    return str(path)


def noisy(flux: np.ndarray, snr: float = 80.0, template: np.ndarray | float = 1.0) -> np.ndarray:
    return flux + np.random.default_rng(8).normal(size=flux.shape) / (snr * template)


def linear_network(flux: np.ndarray, labels: np.ndarray) -> bytes:
    """Return a network that infers labels by ridge regression."""
    depth = 1 - flux
    weight = np.linalg.solve(depth.T @ depth + 0.02 * np.eye(401), depth.T @ (labels - labels.mean(axis=0)))
    values = {
        "one": np.ones(1),
        "weight": -weight,
        "bias": labels.mean(axis=0) + weight.sum(axis=0),
        "scatter": np.array([[50.0, 0.1, 0.05, 0.2, 2.0]]),
    }
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    ends = {"flux": 401, "labels": 5, "sigma": 5}
    first, *last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in ends.items())
    graph = helper.make_graph(tiny.nodes(), "linear", [first], last, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    flux, labels, _ = stars(600, seed=1)
    mean = flux.mean(axis=0)
    components = np.linalg.svd(flux - mean, full_matrices=False)[2][:30]
    sidecar = Sidecar(
        LABELS,
        Preparation(GRID, velocity_range=(-10, 10), snr_range=(60, 120)),
        novelty=Novelty(mean.astype(float), components, np.array([0.0]), np.array([1.0]), 0.01),
        provenance={"params": PARAMS},
    )
    return write(tmp_path_factory.mktemp("model") / "linear.onnx", linear_network(flux, labels), sidecar)


def examined(bundle: Bundle, tmp_path: Path, flux: np.ndarray, sigma: np.ndarray | None = None) -> Measurements:
    return examine(bundle, [write_spectra(tmp_path / "spectra.h5", flux, sigma)])


# --- what is found ----------------------------------------------------------------------


def test_spectra_like_those_of_the_training_need_no_change(bundle, tmp_path):
    found = prescribe(bundle, examined(bundle, tmp_path, noisy(stars(60, seed=2)[0])))
    assert found.changes == {}
    assert {one.advice for one in found.findings} == {"–"}


def test_signal_to_noise_and_its_profile_are_found_within_five_per_cent(bundle, tmp_path):
    found = examined(bundle, tmp_path, noisy(stars(100, seed=2)[0], 80, 1 + 0.3 * X))
    assert np.median(found.snr) == pytest.approx(80, rel=0.05)
    assert np.polyfit(X, found.template, 1) == pytest.approx([0.3, 1.0], abs=0.05)


def test_the_continuum_is_found_within_a_third_of_a_per_cent(bundle, tmp_path):
    found = examined(bundle, tmp_path, noisy(stars(40, seed=3)[0]) + 0.03 - 0.02 * X)
    assert np.median(found.offset) == pytest.approx(0.03, abs=0.003)
    assert np.median(found.slope) == pytest.approx(-0.02, abs=0.003)
    changes = prescribe(bundle, found).changes
    assert changes["continuum_offset"][1] >= 0.03
    assert changes["continuum_slope"][0] <= -0.02


def test_velocities_beyond_those_of_the_training_are_found_within_a_kilometre_per_second(bundle, tmp_path):
    flux, _, velocity = stars(40, seed=3, rv=(20, 40))
    found = examined(bundle, tmp_path, noisy(flux))
    assert np.median(np.abs(found.velocity - velocity)) < 1
    changes = prescribe(bundle, found).changes
    # Training spectra reach 10 km/s: the rest is added.
    assert changes["radial_velocity"] == (0, pytest.approx(velocity.max() - 10, abs=2))


@pytest.mark.parametrize("fwhm", [0.45, 0.6, 0.9])
def test_the_width_of_lines_is_found_within_five_per_cent(bundle, tmp_path, fwhm):
    found = examined(bundle, tmp_path, noisy(stars(40, seed=4, fwhm=fwhm, max_vsini=2)[0]))
    assert 6680 / found.resolution == pytest.approx(fwhm, rel=0.05)
    changes = prescribe(bundle, found).changes
    assert ("resolution" in changes) == (fwhm == 0.9)
    if fwhm == 0.9:
        assert (
            changes["resolution"][0]
            < 6680 / 0.9
            < changes["spectrum_resolution"]
            == pytest.approx(6680 / 0.6, rel=1e-3)
        )


def test_coverage_and_missing_pixels_are_counted(bundle, tmp_path):
    flux = noisy(stars(20, seed=5)[0])
    flux[:, :100] = np.nan
    flux[:, 200:215] = np.nan
    found = examined(bundle, tmp_path, flux)
    assert found.coverage == pytest.approx(np.full(20, 301 / 401))
    assert found.missing == pytest.approx(np.full(20, 15 / 301))
    changes = prescribe(bundle, found).changes
    assert changes["coverage"] == (0.75, 1.0)
    assert changes["missing_pixels"] == (0.0, 0.05)


def test_pixels_that_training_never_had_are_not_missing(bundle, tmp_path):
    preparation = dataclasses.replace(bundle.sidecar.preparation, unseen=((0, 19), (200, 214)))
    model = write(
        tmp_path / "masked.onnx", bundle.network, dataclasses.replace(bundle.sidecar, preparation=preparation)
    )
    found = examined(model, tmp_path, noisy(stars(20, seed=5)[0]))
    assert (found.coverage == 1).all()
    assert (found.missing == 0).all()


def test_a_line_that_no_training_spectrum_has_is_found_and_masked(bundle, tmp_path):
    line = 0.08 * np.exp(-0.5 * ((GRID.wavelength - 6671.0) / 0.3) ** 2)
    found = examined(bundle, tmp_path, noisy(stars(40, seed=6)[0]) + line)
    strongest = found.deviations[0]
    assert strongest.first - 0.5 <= 6671.0 <= strongest.last + 0.5
    assert 0.02 < strongest.depth < 0.1
    (mask,) = prescribe(bundle, found).changes["mask"]
    assert mask[0] < 6671.0 < mask[1]


def test_a_spectrum_whose_noise_cannot_be_measured_spoils_no_other(bundle, tmp_path):
    line = 0.08 * np.exp(-0.5 * ((GRID.wavelength - 6671.0) / 0.3) ** 2)
    flux = noisy(stars(40, seed=6)[0], 30) + line
    flux[0, np.arange(401) % 4 > 1] = np.nan  # never three pixels of which each is two from the next
    preparation = dataclasses.replace(bundle.sidecar.preparation, min_coverage=0.4)
    model = write(tmp_path / "gaps.onnx", bundle.network, dataclasses.replace(bundle.sidecar, preparation=preparation))
    found = examined(model, tmp_path, flux)
    assert np.flatnonzero(np.isnan(found.snr)).tolist() == [0]
    assert found.deviations
    said = prescribe(model, found)
    assert "nan" not in str(said)
    assert said.changes["snr"][0] < 30
    nothing = dataclasses.replace(found, snr=np.full(found.n, np.nan))
    assert "snr" not in prescribe(model, nothing).changes


def test_errors_that_came_with_the_spectra_are_compared_with_their_noise(bundle, tmp_path):
    flux = noisy(stars(30, seed=7)[0], 100)
    found = examined(bundle, tmp_path, flux, sigma=np.full(flux.shape, 0.005, np.float32))
    assert found.noise_ratio == pytest.approx(2, rel=0.05)


def test_without_a_grid_the_mean_training_spectrum_is_compared_with(bundle, tmp_path):
    other = Sidecar((Label("mass", 0, 2), *LABELS[1:]), bundle.sidecar.preparation, novelty=bundle.sidecar.novelty)
    model = write(tmp_path / "other.onnx", bundle.network, other)
    found = examined(model, tmp_path, noisy(stars(30, seed=2)[0]) + 0.03)
    assert found.reference == "the mean training spectrum"
    assert found.resolution is None
    assert np.median(found.offset) == pytest.approx(0.03, abs=0.01)
    with pytest.raises(GridError, match="has no mass"):
        examine(model, [str(tmp_path / "spectra.h5")], grid="default")


def test_the_sun_is_close_to_rest_and_normalised(bundle, shared):
    found = examine(bundle, [shared / "fits" / "jun2011_3133.fits"])
    assert found.n == 90
    assert np.abs(np.median(found.velocity)) < 5  # km/s, topocentric
    assert np.abs(np.median(found.offset)) < 0.01
    assert 9500 < found.resolution < 12500


# --- what is said -----------------------------------------------------------------------


def test_the_block_loads_as_parameters_and_its_template_reads_back(bundle, tmp_path):
    spectra = write_spectra(tmp_path / "spectra.h5", noisy(stars(60, seed=2)[0], 30, 1 + 0.4 * X) + 0.02)
    template = tmp_path / "night.template"
    found = consult(bundle, [spectra], str(template))
    made = config.loads('[data]\ntrain = "train.h5"\n' + found.block()).augmentation
    assert made.snr[0] < 30 < made.snr[1]
    assert made.snr_template == str(template)
    assert made.continuum_offset[1] >= 0.02
    assert read_template(template, GRID)[-1] > 1.5 * read_template(template, GRID)[0]
    assert "# was [60.0, 120.0]" in found.block()


def test_a_template_that_is_not_written_is_not_named(bundle, tmp_path):
    spectra = write_spectra(tmp_path / "spectra.h5", noisy(stars(60, seed=2)[0], 80, 1 + 0.4 * X))
    assert "snr_template" not in consult(bundle, [spectra]).changes


def test_the_command_prints_the_table_and_the_block(bundle, tmp_path):
    model = write(tmp_path / "linear.onnx", bundle.network, bundle.sidecar)
    spectra = write_spectra(tmp_path / "spectra.h5", noisy(stars(30, seed=2)[0]))
    result = CliRunner().invoke(main, ["doctor", f"{tmp_path / model.name}.onnx", spectra, "--medium", "air"])
    assert result.exit_code == 0, result.output
    assert "what to change" in result.output
    assert "[augmentation]\nsnr = [60.0, 120.0]" in result.output


def test_files_without_a_usable_spectrum_say_why(bundle, tmp_path):
    (tmp_path / "junk.fits").write_bytes(b"junk")
    with pytest.raises(AnnaError, match=r"no spectrum could be used: .*junk\.fits"):
        examine(bundle, [tmp_path / "junk.fits"])


def test_other_stars_are_blamed_for_flags_only_when_nothing_else_asks_for_a_change(bundle, tmp_path):
    found = dataclasses.replace(examined(bundle, tmp_path, noisy(stars(60, seed=2)[0])), unlike=1.0)
    assert prescribe(bundle, found).findings[-1].advice.startswith("other stars than trained on")
    sharp = dataclasses.replace(found, resolution=115000.0)
    assert prescribe(bundle, sharp).findings[-1].advice == "mend the lines above first"


def test_a_deviation_is_told_in_a_few_words():
    assert describe(Deviation(6755.6, 6755.6, 0.02)) == "6755.6 Å +2.0% (emission)"
    assert describe(Deviation(6870.0, 6871.0, -0.3)) == "6870.0-6871.0 Å -30.0% (telluric?)"
    assert describe(Deviation(6671.0, 6671.4, 0.05)) == "6671.0-6671.4 Å +5.0% (emission)"


def said(bundle: Bundle, found: Measurements, what: str) -> tuple[str, str]:
    (finding,) = (one for one in prescribe(bundle, found).findings if one.what == what)
    return finding.found, finding.advice


@pytest.fixture(scope="module")
def usual(bundle, tmp_path_factory) -> Measurements:
    """Spectra like those of the training."""
    return examined(bundle, tmp_path_factory.mktemp("usual"), noisy(stars(60, seed=2)[0]))


def test_a_stated_resolving_power_counts_where_none_can_be_measured(bundle, usual):
    low = dataclasses.replace(usual, resolution=None, stated_resolution=1800.0, unlike=1.0)
    assert said(bundle, low, "resolving power") == ("R 1800 stated", "resolution")
    assert prescribe(bundle, low).changes["resolution"] == (1700.0, pytest.approx(6680 / 0.6, abs=0.1))
    assert said(bundle, low, "flags")[1] == "mend the lines above first"
    assert said(bundle, dataclasses.replace(low, resolution=6680 / 0.6 / 4), "resolving power")[0] == "R 1800 stated"
    measured = dataclasses.replace(usual, stated_resolution=1800.0)
    assert said(bundle, measured, "resolving power")[0].endswith("or more")
    unknown = dataclasses.replace(usual, resolution=None)
    assert said(bundle, unknown, "resolving power") == ("not measured", "–")


def test_a_resolving_power_that_the_training_degrades_to_needs_no_change(bundle, usual):
    params = f"{PARAMS}resolution = [5000.0, 11133.3]\nspectrum_resolution = 11133.3\n"
    wide = dataclasses.replace(bundle, sidecar=dataclasses.replace(bundle.sidecar, provenance={"params": params}))
    found = dataclasses.replace(usual, resolution=6000.0)
    assert "resolution" in prescribe(bundle, found).changes
    assert "resolution" not in prescribe(wide, found).changes


def test_the_resolving_power_and_velocities_that_files_state_are_gathered(bundle, tmp_path):
    simulate(None, None, 5, fits=tmp_path, processes=1, resolution=5600, snr=100, rv=(-5, 5), wavelength=GRID)
    found = examine(bundle, sorted(tmp_path.glob("*.fits")))
    assert found.stated_resolution == 5600
    assert np.abs(found.stated_velocity).max() < 5
    assert not found.degraded


def test_a_new_template_never_narrows_the_range_of_signal_to_noise(bundle, usual):
    tilted = dataclasses.replace(usual, template=1 + 0.4 * X)
    inside = dataclasses.replace(tilted, snr=np.linspace(75, 100, usual.n))
    assert "snr" not in prescribe(bundle, inside, "night.template").changes
    assert "snr = [60.0, 120.0]\n" in prescribe(bundle, inside, "night.template").block()
    low = dataclasses.replace(tilted, snr=np.linspace(35, 100, usual.n))
    assert prescribe(bundle, low, "night.template").changes["snr"] == (pytest.approx(32, abs=2), 120)


@pytest.mark.parametrize(("shift", "medium"), [(82.8, "vacuum taken as air"), (-79.0, "air taken as vacuum")])
def test_velocities_that_differ_from_stated_ones_as_a_wrong_medium_makes_them_are_told(bundle, usual, shift, medium):
    stated = np.linspace(-10, 10, usual.n)
    found = dataclasses.replace(usual, velocity=stated + shift, stated_velocity=stated)
    advice = said(bundle, found, "radial velocity")[1]
    assert advice.startswith(f"--medium {medium.split()[0]}: {shift:+.0f} km/s from the stated ones")
    assert advice.endswith(medium)
    assert "radial_velocity" not in prescribe(bundle, found).changes
    other = dataclasses.replace(found, velocity=stated + 0.8 * shift)
    assert said(bundle, other, "radial velocity")[1] == "radial_velocity, or remove it: --rv"


def test_velocities_that_are_all_just_that_of_a_wrong_medium_are_told(bundle, usual):
    scatter = np.random.default_rng(2).normal(size=usual.n)
    found = dataclasses.replace(usual, velocity=83 + scatter)
    assert said(bundle, found, "radial velocity")[1].startswith("--medium vacuum if the stars are at rest")
    assert prescribe(bundle, found).changes["radial_velocity"][1] > 70  # they may be a cluster's
    moving = dataclasses.replace(usual, velocity=83 + 5 * scatter)
    assert "--medium" not in said(bundle, moving, "radial velocity")[1]


# --- how it is measured --------------------------------------------------------------------


def test_noise_that_was_taken_out_with_the_lines_is_allowed_for():
    random = np.random.default_rng(3)
    noise = random.normal(0, 0.02, (200, 401))
    directions = np.linalg.qr(random.normal(size=(401, 120)))[0].T
    snr, template = measure_noise(noise - (noise @ directions.T) @ directions, directions)
    assert np.median(snr) == pytest.approx(50, rel=0.03)
    assert template == pytest.approx(np.ones(401), abs=0.08)


def test_the_sharpest_of_parabolas_is_found_where_others_are_wider():
    widths = np.repeat([0.9, 1.4], [10, 30])
    misfit = 1e-4 * (1 + (np.log(WIDTHS) - np.log(widths)[:, None]) ** 2)
    assert sharpest_width(misfit, np.full(40, 1e6, dtype=int)) == pytest.approx(0.9, rel=1e-3)


def test_a_width_beyond_all_that_were_tried_is_a_limit_and_one_that_does_not_matter_none():
    assert sharpest_width(np.tile(WIDTHS, (5, 1)), np.full(5, 1000)) == WIDTHS[0]
    assert sharpest_width(np.tile(1 / WIDTHS, (5, 1)), np.full(5, 1000)) == WIDTHS[-1]
    assert sharpest_width(np.ones((5, WIDTHS.size)), np.full(5, 1000)) is None


def test_noise_of_coarse_pixels_is_found_on_finer_ones():
    coarse = np.random.default_rng(5).normal(0, 0.02, (300, 101))
    fine = np.stack([np.interp(np.arange(401), 4 * np.arange(101), row) for row in coarse])
    snr, _ = measure_noise(fine, np.zeros((0, 401)), coarseness=4)
    # Linear interpolation leaves 2/3 of the variance in the mean.
    assert np.median(snr) == pytest.approx(50 * np.sqrt(1.5), rel=0.1)


def test_the_noise_of_degraded_spectra_is_that_of_inference(bundle, tmp_path):
    fine = Grid(np.linspace(6639, 6721, 4101), "air")
    simulate(None, None, 8, fits=tmp_path, processes=1, resolution=60000, snr=20, rv=(-5, 5), wavelength=fine)
    preparation = dataclasses.replace(bundle.sidecar.preparation, resolution=6680 / 0.6)
    sidecar = dataclasses.replace(bundle.sidecar, preparation=preparation)
    model = write(tmp_path / "stated.onnx", bundle.network, sidecar)
    found = examine(model, sorted(tmp_path.glob("*.fits")))
    assert found.degraded
    # Ten pixels make one, and degrading lowers the noise of lines by a fifth; differences of neighbours would say 230.
    assert 60 < np.median(found.snr) < 90
    assert "as inference states it" in str(prescribe(model, found))


def test_spectra_in_counts_are_normalised_before_they_are_measured(bundle, tmp_path):
    found = examined(bundle, tmp_path, 3000 * noisy(stars(20, seed=2)[0]))
    assert found.unnormalized == 1
    assert np.median(found.snr) == pytest.approx(80, rel=0.1)
    finding = prescribe(bundle, found).findings[0]
    assert finding.advice.startswith("infer with --normalize")


def test_a_feature_of_a_few_spectra_is_not_taken_for_one_of_many(bundle, tmp_path):
    found = examined(bundle, tmp_path, noisy(stars(3, seed=6)[0]))
    assert found.deviations == ()
    assert "fewer than 5 spectra" in str(prescribe(bundle, found))


def test_noise_alone_deviates_nowhere():
    left = np.random.default_rng(4).normal(0, 0.02, (50, 401))
    assert find_deviations(left, np.full(50, 50.0), np.ones(401), GRID.wavelength) == ()
