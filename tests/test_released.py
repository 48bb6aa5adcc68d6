"""Every released model: its files, and what it makes of stars drawn from the grid that comes along."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from anna_onnx.bundle import Bundle, released_models
from anna_onnx.card import model_card
from anna_onnx.flags import Flag
from anna_onnx.inference import InferOptions, infer, run_selftest
from anna_onnx.medium import air_to_vacuum, doppler
from anna_onnx.preparation import PrepareOptions
from anna_onnx.readers import read_spectra
from anna_onnx.resampling import Grid
from anna_onnx.results import join
from anna_onnx.sidecar import Sidecar
from anna_onnx.spectrum import Spectrum
from anna_onnx.synthesis import SpectralGrid, Synthesizer, continued, simulate
from anna_onnx.trainingset import TrainingSet
from anna_onnx_cli.anna import main

MODELS = sorted(released_models())
SNR = 200.0
SINGLE_FILE = 10e6  # bytes that fit into an e-mail


@pytest.fixture(scope="module", params=MODELS)
def path(request):
    return released_models()[request.param]


@pytest.fixture(scope="module")
def bundle(path):
    return Bundle.load(path)


@pytest.fixture(scope="module")
def stars(bundle, tmp_path_factory):
    """Return stars within the model's labels, with noise: a training set and its noisy flux."""
    file = tmp_path_factory.mktemp("released") / "stars.h5"
    ranges = {label.name: (label.low, label.high) for label in bundle.sidecar.labels}
    low, high = bundle.sidecar.preparation.velocity_range
    simulate(None, file, 300, seed=77, wavelength=bundle.sidecar.grid, ranges=ranges, rv=(low, high), fwhm=0.6)
    drawn = TrainingSet.open(file)
    flux = np.asarray(drawn.flux, dtype=np.float64)
    return drawn, flux + np.random.default_rng(7).normal(size=flux.shape) / SNR


def rows_of(bundle, flux, level=0.9):
    grid = bundle.sidecar.grid
    spectra = [Spectrum(wavelength=grid.wavelength, flux=row, medium=grid.medium) for row in flux]
    return join(list(infer(bundle, spectra, InferOptions(level=level))))


def test_the_model_that_the_documentation_uses_is_released():
    assert "fgk-6625-6825" in MODELS


def test_its_three_files_fit_into_an_email_and_agree(path, bundle):
    files = [path.with_suffix(suffix) for suffix in (".onnx", ".h5", ".md")]
    assert sum(file.stat().st_size for file in files) <= SINGLE_FILE
    beside = Sidecar.from_bytes(files[1].read_bytes(), files[1].name)
    assert beside.sha256 == bundle.sidecar.sha256
    assert bundle.sidecar.sha256[:12] in files[2].read_text(encoding="utf-8") or beside.sha256 in files[2].read_text(
        encoding="utf-8"
    )


def test_its_card_says_how_good_it_is_and_where_it_ends(path):
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    for section in ("## Coverage", "## Accuracy", "## The Sun", "## Flags", "## Limits", "## Licence", "## Parameters"):
        assert section in card


def test_it_gives_the_answers_of_the_training_machine(bundle):
    assert run_selftest(bundle) < 1e-4


def test_it_recognises_stars_of_the_grid(bundle, stars):
    drawn, flux = stars
    rows = rows_of(bundle, flux)
    order = [drawn.label_names.index(label.name) for label in bundle.sidecar.labels]
    true = np.asarray(drawn.labels)[:, order]
    spread = true.std(axis=0)
    assert (np.sqrt(np.mean((rows.values - true) ** 2, axis=0)) < 0.35 * spread).all()
    inside = (rows.lo <= true) & (true <= rows.hi)
    # 90 % intervals are right or wide on spectra without the imperfections of real ones.
    assert (inside.mean(axis=0) > 0.85).all()
    assert ((rows.flags & Flag.unlike_training) > 0).mean() < 0.05


def test_three_fifths_of_a_spectrum_give_wider_errors_that_hold(bundle, stars):
    drawn, flux = stars
    part = flux.copy()
    part[:, : int(0.4 * flux.shape[1])] = np.nan
    whole, cut = rows_of(bundle, flux), rows_of(bundle, part)
    order = [drawn.label_names.index(label.name) for label in bundle.sidecar.labels]
    true = np.asarray(drawn.labels)[:, order]
    assert (np.median(cut.errors, axis=0) > np.median(whole.errors, axis=0)).all()
    assert (((cut.lo <= true) & (true <= cut.hi)).mean(axis=0) > 0.8).all()


def test_velocities_are_measured_as_well_as_is_stated(bundle, stars):
    drawn, flux = stars
    grid = bundle.sidecar.grid
    spectra = [Spectrum(wavelength=grid.wavelength, flux=row, medium=grid.medium) for row in flux]
    rows = join(list(infer(bundle, spectra, InferOptions(prepare=PrepareOptions(rv="auto")))))
    deviation = rows.rv - np.asarray(drawn.aux["rv"])
    assert np.isfinite(deviation).mean() > 0.7  # where lines do not drown in it7
    assert np.nanmax(np.abs(deviation)) < 5
    stated = np.array([float(text.split(" ± ")[1].split()[0]) for text in rows.messages if " ± " in text])
    within = np.abs(deviation[np.isfinite(deviation)]) <= np.maximum(stated, 0.1)
    assert 0.6 < within.mean() < 0.95
    noise = 1 + np.random.default_rng(3).normal(size=flux.shape) / 100
    spectra = [Spectrum(wavelength=grid.wavelength, flux=row, medium=grid.medium) for row in noise]
    rows = join(list(infer(bundle, spectra, InferOptions(prepare=PrepareOptions(rv="auto")))))
    assert np.isnan(rows.rv).all()


def test_velocities_are_measured_where_noise_is_as_uneven_as_is_stated(bundle, stars):
    drawn, flux = stars
    sigma = np.where(np.arange(flux.shape[1]) < flux.shape[1] // 2, 0.05, 0.01)
    noisy = flux + sigma * np.random.default_rng(9).normal(size=flux.shape)
    options = InferOptions(prepare=PrepareOptions(rv="auto"))
    spectra = [Spectrum(bundle.sidecar.grid.wavelength, row, sigma, medium="air") for row in noisy]
    deviation = join(list(infer(bundle, spectra, options))).rv - drawn.aux["rv"]
    assert np.isfinite(deviation).mean() > 0.7  # where lines do not drown in it
    assert np.nanmedian(np.abs(deviation)) < 1


def at_velocity(bundle, stars, velocity, medium="air"):
    """Return stars at another velocity, their wavelengths in a medium and said to be in air."""
    drawn, flux = stars
    wavelength = bundle.sidecar.grid.wavelength
    wavelength = air_to_vacuum(wavelength) if medium == "vacuum" else wavelength
    shifts = doppler(velocity) / doppler(np.asarray(drawn.aux["rv"]))
    return [Spectrum(wavelength * shift, row, medium="air") for shift, row in zip(shifts, flux, strict=True)]


def test_vacuum_wavelengths_of_stars_at_rest_that_are_taken_as_air_put_the_medium_in_doubt(bundle, stars):
    rows = join(list(infer(bundle, at_velocity(bundle, stars, 0.0, "vacuum"))))
    doubtful = (rows.flags & Flag.medium_unknown) > 0
    assert doubtful.mean() > 0.9
    assert all(
        "as those of a star at rest are by vacuum taken as air" in rows.messages[i] for i in np.flatnonzero(doubtful)
    )
    assert ((rows.flags & Flag.unlike_training) > 0).mean() < 0.05
    assert not (join(list(infer(bundle, at_velocity(bundle, stars, 0.0)))).flags & Flag.medium_unknown).any()


@pytest.mark.parametrize(("velocity", "share"), [(98.0, 0.05), (-110.0, 0.97), (125.0, 0.97)])
def test_velocities_beyond_those_of_the_training_are_unlike_it(bundle, stars, velocity, share):
    unlike = (join(list(infer(bundle, at_velocity(bundle, stars, velocity)))).flags & Flag.unlike_training) > 0
    assert unlike.mean() < share if share < 0.5 else unlike.mean() > share


def test_of_stated_errors_nothing_is_said_where_there_are_no_labels(bundle, stars):
    _, flux = stars
    bad = bundle.sidecar.grid.wavelength > 6640
    star = Spectrum(bundle.sidecar.grid.wavelength, flux[0], np.full(flux.shape[1], 10 / SNR), bad, medium="air")
    rows = join(list(infer(bundle, [star])))
    assert rows.flags[0] & Flag.no_coverage
    assert "stated errors" not in rows.messages[0]


@pytest.mark.filterwarnings("error")
def test_a_spectrum_below_zero_brings_no_warning(bundle, stars):
    _, flux = stars
    star = Spectrum(bundle.sidecar.grid.wavelength, -flux[0], np.full(flux.shape[1], 1 / SNR), medium="air")
    assert join(list(infer(bundle, [star]))).snr[0] == 0


def test_nonsense_is_flagged(bundle, stars):
    _, flux = stars
    shuffled = np.random.default_rng(8).permuted(flux, axis=1)
    for nonsense in (shuffled, np.ones_like(flux), flux[:, ::-1]):
        flags = rows_of(bundle, nonsense).flags
        assert ((flags & (Flag.unlike_training | Flag.outside_labels)) > 0).mean() > 0.9


@pytest.mark.parametrize("strange", [{"feh": -0.8}, {"feh": -1.4}, {"logg": 1.5, "teff": 4300.0}, {"vsini": 60.0}])
def test_stars_beyond_the_ranges_are_flagged(strange):
    bundle = Bundle.load(released_models()["fgk-6625-6825"])
    random, grid = np.random.default_rng(9), bundle.sidecar.grid
    ranges = {"teff": (4700, 6500), "logg": (3.2, 4.6), "feh": (-0.4, 0.1), "vmic": (0.8, 1.8), "vsini": (1, 10)}
    spectra = continued(SpectralGrid.open(), {"feh": (-1.5, 0.2), "logg": (1.0, 4.8)})
    synthesizer = Synthesizer.build(spectra, grid, fwhm=0.6, max_rv=50, max_vsini=60)
    drawn = [np.full(100, strange.get(name, random.uniform(*ranges[name], 100))) for name in synthesizer.label_names]
    flux = synthesizer(np.stack(drawn, axis=1), random.uniform(-50, 50, 100))
    flags = rows_of(bundle, flux + random.normal(size=flux.shape) / SNR).flags
    assert ((flags & (Flag.unlike_training | Flag.outside_labels)) > 0).mean() > 0.95


def test_the_sun_comes_out_as_the_sun(shared):
    bundle = Bundle.load(released_models()["fgk-6625-6825"])
    rows = join(list(infer(bundle, read_spectra(shared / "fits" / "jun2011_3133.fits"))))
    deviation = np.sqrt(np.mean((rows.values - [5772, 4.44, 0.0, 1.0, 1.8]) ** 2, axis=0))
    assert (deviation < [55, 0.20, 0.03, 0.35, 2.2]).all()
    assert not rows.flags.any()


def test_its_card_is_what_it_says_of_itself(path, bundle):
    card = model_card(bundle)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == card
    assert "`--level` adds intervals that hold the truth with a probability from 0.1 to 0.99." in card


@pytest.mark.parametrize("options", [["--precision", "float16"], ["-o", "other.onnx"]])
def test_a_page_of_a_model_takes_no_options_of_an_export(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["export", "--web", "page.html", "--model", "fgk-6625-6825", *options])
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])


@pytest.mark.parametrize("resolution", [14000, 60000])
def test_noisy_stars_of_higher_resolving_power_have_errors_that_hold_and_are_not_unlike_the_training(
    bundle, resolution
):
    wavelength = np.arange(6623.0, 6827.0, 6700 / resolution / 3)
    stars = Synthesizer.build(SpectralGrid.open(), Grid(wavelength), resolution=resolution, max_vsini=20.0)
    random, names = np.random.default_rng(3), [label.name for label in bundle.sidecar.labels]
    labels = random.uniform([4500, 3.5, -0.4, 0.5, 3.0], [6500, 4.6, 0.1, 2.0, 15.0], (200, 5))
    columns = dict(zip(("teff", "logg", "feh", "vmic", "vsini"), labels.T, strict=True))
    noise = 1 / 15 if resolution > 50000 else 1 / 40
    flux = stars(np.stack([columns[name] for name in stars.label_names], axis=1), np.zeros(200))
    flux = flux + noise * random.standard_normal(flux.shape)
    spectra = [Spectrum(wavelength, row, medium="air", frame="rest", resolution=resolution) for row in flux]
    rows = join(list(infer(bundle, spectra)))
    assert (rows.flags & Flag.unlike_training > 0).mean() < 0.06
    within = np.abs(rows.values - np.stack([columns[name] for name in names], axis=1)) <= rows.errors
    assert (within.mean(axis=0) > 0.6).all()
    assert within.mean() < 0.85


def test_a_resolving_power_that_is_higher_than_taken_is_told(bundle):
    wavelength = np.arange(6623.0, 6827.0, 0.1)
    stars = Synthesizer.build(SpectralGrid.open(), Grid(wavelength), resolution=30000, max_vsini=10.0)
    random = np.random.default_rng(4)
    low, high = {"vsini": 0.0}, {"teff": 6500, "logg": 4.6, "feh": 0.1, "vmic": 2.0, "vsini": 10.0}
    low |= {"teff": 4500, "logg": 3.5, "feh": -0.4, "vmic": 0.5}
    labels = [[random.uniform(low[name], high[name]) for name in stars.label_names] for _ in range(100)]
    flux = stars(np.array(labels), np.zeros(100)) + random.standard_normal((100, wavelength.size)) / SNR
    rows = join(list(infer(bundle, [Spectrum(wavelength, row, medium="air") for row in flux])))
    assert np.mean(["its resolving power is higher" in message for message in rows.messages]) > 0.9
    assert (rows.flags & Flag.unlike_training > 0).mean() > 0.9
