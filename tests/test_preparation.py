"""Preparation: from a spectrum of any kind to network input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.arrays import FloatArray
from anna_onnx.continuum import Normalization
from anna_onnx.errors import AnnaError
from anna_onnx.fit import Fit
from anna_onnx.flags import Flag
from anna_onnx.gridding import Spectra
from anna_onnx.medium import air_to_vacuum, doppler
from anna_onnx.preparation import Preparation, PrepareOptions
from anna_onnx.quality import estimate_snr, off_continuum
from anna_onnx.readers import read_spectra
from anna_onnx.resampling import Grid
from anna_onnx.spectrum import Spectrum
from anna_onnx.velocity import Velocities, fitted_rv, measure_rv
from tests.test_fit import LIMITS

GRID = Grid(np.arange(6625.0, 6825.1, 0.2), "air")
WIDE = np.arange(6600.0, 6850.0, 0.05)
LINES = np.random.default_rng(3).uniform(6610, 6840, 120)
MODEL = Preparation(GRID, resolution=11000, frame="rest", velocity_range=(-1, 1), snr_range=(100, 250))
LENIENT = replace(MODEL, velocity_range=(-100, 100), resolution=None)


def flux_at(wavelength: FloatArray, resolution: float = 11000) -> FloatArray:
    """A star with 120 lines, at rest, in air."""
    width = LINES / resolution / 2.3548
    depth = 0.3 * 11000 / 60000 * resolution / 11000
    return 1 - (depth * np.exp(-0.5 * ((wavelength[:, None] - LINES) / width) ** 2)).sum(axis=1)


NOT_KNOWN = (
    "resolving power not known, taken as the model's 11000; pixels this small speak of a higher one (resolution)"
)


def star(noise: float = 1 / 150, seed: int = 0, **changes: object) -> Spectrum:
    noisy = flux_at(WIDE) + noise * np.random.default_rng(seed).standard_normal(WIDE.size)
    given = {"sigma": np.full(WIDE.size, noise), "medium": "air", "frame": "rest", "resolution": 11000.0}
    return Spectrum(WIDE, noisy, **(given | changes))


def test_a_good_spectrum_has_no_flags_and_no_notes() -> None:
    ready = MODEL.prepare(star())
    assert ready.flags == 0
    assert ready.notes == ()
    assert ready.coverage == 1.0
    assert ready.rv is None
    assert ready.flux.dtype == np.float32
    assert ready.flux.shape == (GRID.n_pixel,)
    np.testing.assert_allclose(ready.flux, flux_at(GRID.wavelength), atol=0.02)
    assert ready.sigma is not None
    assert ready.sigma.mean() == pytest.approx(1.09 / 300, rel=0.03)  # four pixels to one, which is sharpened
    assert ready.snr == pytest.approx(2 * 150, rel=0.05)


def test_a_stated_velocity_beyond_the_training_is_flagged_unless_it_is_removed() -> None:
    fast = star(frame="barycentric", radial_velocity=250.0)
    ready = LENIENT.prepare(fast)
    assert ready.flags & Flag.frame_unknown
    assert "250.0 km/s not removed" in "; ".join(ready.notes)
    assert not LENIENT.prepare(star(frame="barycentric", radial_velocity=90.0)).flags & Flag.frame_unknown
    removed = LENIENT.prepare(fast, PrepareOptions(rv="header"))
    assert not removed.flags & Flag.frame_unknown
    assert "removed, the model was trained with -100 to 100" in "; ".join(removed.notes)


def test_its_own_grid_in_gives_the_same_flux_out() -> None:
    flux = flux_at(GRID.wavelength).astype(np.float32)
    assert LENIENT.prepare_block(Spectra(GRID.wavelength, flux[None], medium="air")).flux[0].tobytes() == flux.tobytes()


def test_wavelengths_that_are_changed_in_place_are_other_wavelengths() -> None:
    wavelength = WIDE * doppler(300.0)
    LENIENT.prepare_block(Spectra(wavelength, flux_at(WIDE)[None], medium="air"))
    wavelength /= doppler(300.0)
    again = LENIENT.prepare_block(Spectra(wavelength, flux_at(WIDE)[None], medium="air"))
    np.testing.assert_allclose(again.flux[0], flux_at(GRID.wavelength), atol=0.01)


def test_vacuum_wavelengths_are_converted_and_that_is_said() -> None:
    vacuum = replace(star(), wavelength=air_to_vacuum(WIDE), medium="vacuum")
    ready = MODEL.prepare(vacuum)
    np.testing.assert_allclose(ready.flux, MODEL.prepare(star()).flux, atol=1e-4)
    assert ready.notes == ("wavelengths converted from vacuum to air (Ciddor 1996)",)


def test_an_unknown_medium_is_flagged() -> None:
    ready = MODEL.prepare(star(medium="unknown"))
    assert ready.flags == Flag.medium_unknown
    assert ready.notes == ("medium not known, taken as air",)


@pytest.mark.parametrize("rv", [-250.0, 12.3, -0.04])
def test_a_given_radial_velocity_is_removed(rv: float) -> None:
    moving = replace(star(), wavelength=WIDE * doppler(rv), frame="barycentric", radial_velocity=rv)
    for option in (rv, "header"):
        ready = MODEL.prepare(moving, PrepareOptions(rv=option))
        np.testing.assert_allclose(ready.flux, MODEL.prepare(star()).flux, atol=1e-4)
        assert ready.rv == rv
        assert ready.flags == 0
        assert ready.notes == (f"radial velocity {rv:z.1f} km/s removed",)


def test_a_radial_velocity_is_measured_against_the_mean_spectrum() -> None:
    moving = replace(star(), wavelength=WIDE * doppler(-37.5), frame="barycentric")
    ready = MODEL.prepare(moving, PrepareOptions(rv="auto"), template=flux_at(GRID.wavelength))
    assert ready.rv == pytest.approx(-37.5, abs=0.3)
    assert ready.flags == 0
    assert "measured radial velocity" in ready.notes[0]


def test_a_spectrum_at_rest_is_not_shifted_by_the_velocity_in_its_header() -> None:
    ready = MODEL.prepare(star(frame="rest", radial_velocity=80.0), PrepareOptions(rv="header"))
    assert ready.rv == 0
    np.testing.assert_array_equal(ready.flux, MODEL.prepare(star()).flux)


def test_a_resolving_power_that_is_nonsense_is_not_known() -> None:
    for resolution in (0.0, -5.0, np.nan, np.inf):
        ready = MODEL.prepare(star(resolution=resolution))
        assert ready.flags == 0
        assert ready.notes == (NOT_KNOWN,)


def test_no_velocity_is_measured_in_noise() -> None:
    noise = Spectrum(WIDE, 1 + 0.1 * np.random.default_rng(1).standard_normal(WIDE.size), medium="air")
    ready = MODEL.prepare(noise, PrepareOptions(rv="auto"), template=flux_at(GRID.wavelength))
    assert ready.rv is None
    assert Flag.frame_unknown in ready.flags
    assert "no radial velocity could be measured" in ready.notes


def test_hardly_any_velocity_is_measured_in_noise_at_the_fastest_either() -> None:
    rng, template = np.random.default_rng(1), flux_at(GRID.wavelength)
    noise = [measure_rv(1 + 0.1 * rng.standard_normal(GRID.n_pixel), template, GRID)[0] for _ in range(400)]
    assert np.isfinite(noise).mean() < 0.02


def test_a_header_without_velocity_or_with_nonsense_is_flagged() -> None:
    for velocity in (None, np.nan, 1e6):
        ready = MODEL.prepare(star(frame="barycentric", radial_velocity=velocity), PrepareOptions(rv="header"))
        assert ready.rv is None
        assert ready.flags == Flag.frame_unknown


def test_the_frame_matters_to_a_network_that_was_trained_at_rest_only() -> None:
    for frame, flagged in (("unknown", True), ("barycentric", True), ("topocentric", True), ("rest", False)):
        assert (Flag.frame_unknown in MODEL.prepare(star(frame=frame)).flags) is flagged
        assert Flag.frame_unknown not in LENIENT.prepare(star(frame=frame)).flags


def test_the_motion_of_the_earth_matters_to_a_network_that_was_trained_without_it() -> None:
    model = replace(MODEL, frame="barycentric")
    assert model.prepare(star(frame="barycentric")).flags == 0
    assert model.prepare(star(frame="rest")).flags == 0
    ready = model.prepare(star(frame="topocentric"))
    assert ready.flags == Flag.frame_unknown
    assert "trained on barycentric ones" in ready.notes[0]


def test_a_higher_resolution_is_degraded() -> None:
    wavelength = np.arange(6600.0, 6850.0, 0.02)
    sharp = Spectrum(wavelength, flux_at(wavelength, 60000), medium="air", frame="rest", resolution=60000)
    ready = MODEL.prepare(sharp)
    np.testing.assert_allclose(ready.flux, flux_at(MODEL.grid.wavelength, MODEL.resolution), atol=0.002)
    assert ready.notes == ("resolving power 60000 degraded to the model's 11000",)
    assert ready.flags == 0


@pytest.mark.parametrize(("step", "resolution"), [(0.01, 100000.0), (0.07, 30000.0), (0.15, 20000.0)])
@pytest.mark.parametrize("grid", [GRID, Grid(np.arange(6625.07, 6825, 0.5), "air")])
def test_the_noise_that_is_left_after_degrading_is_what_sigma_and_snr_state(
    step: float, resolution: float, grid: Grid
) -> None:
    wavelength = np.arange(6620.0, 6830.0, step)
    flux = 1 + np.random.default_rng(5).normal(0, 0.05, (100, wavelength.size))
    ready = replace(MODEL, grid=grid).prepare_block(
        Spectra(wavelength, flux, np.full(flux.shape, 0.05), medium="air", frame="rest", resolution=resolution)
    )
    scatter = np.median(ready.flux.std(axis=0))
    assert ready.sigma is not None
    assert np.median(ready.sigma) == pytest.approx(scatter, rel=0.03)
    # As wide as a line is more of it than pixels tell, and that counts.
    offset = np.arange(-8, 9)
    profile = np.exp(-0.5 * (offset / ready.smoothing.line) ** 2)
    through = np.median([np.convolve(row, profile, "valid").std() for row in ready.flux])
    assert ready.snr == pytest.approx(np.linalg.norm(profile) / through, rel=0.06)
    assert (ready.snr < 0.9 / scatter).all()


@pytest.mark.parametrize("step", [0.05, 0.02, 0.005])
def test_the_first_and_the_last_pixel_are_averaged_over_their_whole_width(step: float) -> None:
    fine = np.arange(GRID.wavelength[0] - 5, GRID.wavelength[-1] + 5, step)
    slope = 1 + 0.1 * (fine - fine.mean())
    ready = MODEL.prepare(Spectrum(fine, slope, medium="air", frame="rest"), PrepareOptions(normalize=False))
    np.testing.assert_allclose(ready.flux, np.interp(GRID.wavelength, fine, slope), atol=1e-5)


def test_a_lower_resolution_is_flagged_and_an_unknown_one_is_said() -> None:
    assert MODEL.prepare(star(resolution=8000.0)).flags == Flag.low_resolution
    assert MODEL.prepare(star(resolution=10900.0)).flags == 0
    assert MODEL.prepare(star(resolution=None)).notes == (NOT_KNOWN,)
    assert MODEL.prepare(star(), PrepareOptions(resolution=5000)).flags == Flag.low_resolution
    every_second = Spectrum(WIDE[::2], flux_at(WIDE[::2]), medium="air", frame="rest")
    assert MODEL.prepare(every_second).notes == ("resolving power not known, taken as the model's 11000",)


def test_partial_coverage_is_flagged_unless_the_network_was_trained_for_it() -> None:
    half = WIDE > 6725
    spectrum = Spectrum(WIDE[half], flux_at(WIDE[half]), medium="air", frame="rest", resolution=11000)
    ready = MODEL.prepare(spectrum)
    assert ready.flags == Flag.partial_coverage
    assert ready.coverage == pytest.approx(0.5, abs=0.001)
    assert np.isnan(ready.flux).sum() == pytest.approx(500, abs=1)
    assert replace(MODEL, min_coverage=0.4).prepare(spectrum).flags == 0


def test_less_than_a_fifth_of_the_least_coverage_of_the_training_is_none() -> None:
    model = replace(MODEL, min_coverage=0.5)
    for width, flag in ((0.12, Flag.partial_coverage), (0.05, Flag.no_coverage)):
        part = np.abs(WIDE - 6625 - 100 * width) < 100 * width
        ready = model.prepare(replace(star(), wavelength=WIDE[part], flux=star().flux[part], sigma=None, bad=None))
        assert ready.flags == flag
    assert ready.notes == ("covers 4.8% of 6625.0-6825.0 Å (air), the model needs 50%, and for any labels 10%",)


def test_what_is_too_little_is_not_rounded_to_what_is_needed() -> None:
    flux = np.where(np.arange(1001) < 500, 1.0, np.nan)
    ready = replace(LENIENT, min_coverage=0.5).prepare_block(Spectra(GRID.wavelength, flux[None], medium="air"))
    assert ready.notes[0][0] == "covers 49.9% of 6625.0-6825.0 Å (air), the model needs 50%"


def test_a_continuum_changes_by_a_fraction_of_its_level() -> None:
    flux = 2e4 * np.linspace(1.002, 0.998, 1001)
    (notes,) = LENIENT.prepare_block(Spectra(GRID.wavelength, flux[None], medium="air")).notes
    assert notes == ("continuum at 2e+04, changing by 0%, needed 1",)


def test_pixels_that_training_never_had_are_left_out_and_not_counted() -> None:
    n = GRID.n_pixel
    model = replace(MODEL, unseen=((0, 99), (n - 1, n - 1)))
    cut = np.where(GRID.wavelength[90] > WIDE, np.nan, star().flux)
    ready, whole = model.prepare(replace(star(), flux=cut)), MODEL.prepare(star())
    assert ready.coverage == 1
    assert ready.flags == 0
    assert np.isnan(ready.flux[:100]).all()
    np.testing.assert_array_equal(ready.flux[100:-1], whole.flux[100:-1])
    assert ready.sigma is not None
    assert np.isnan(ready.sigma[:100]).all()


def test_no_coverage_is_a_flag_not_an_error() -> None:
    elsewhere = Spectrum([4000.0, 4000.1], [1.0, 1.0], sigma=[0.1, 0.1], medium="air", frame="rest")
    ready = MODEL.prepare(elsewhere)
    assert ready.flags == Flag.no_coverage
    assert ready.coverage == 0
    assert np.isnan(ready.flux).all()
    assert np.isnan(ready.snr)
    assert ready.notes[-1] == "no good pixel inside 6625.0-6825.0 Å (air)"


def test_bad_pixels_are_flagged_and_left_out() -> None:
    bad = np.zeros(WIDE.size, dtype=bool)
    bad[1000:1400] = True
    ready = MODEL.prepare(replace(star(), bad=bad))
    assert Flag.bad_pixels in ready.flags
    assert np.isnan(ready.flux).sum() == pytest.approx(100, abs=2)
    assert ready.coverage == pytest.approx(0.9, abs=0.003)


@pytest.mark.parametrize("with_errors", [False, True])
@pytest.mark.parametrize("good", [slice(0, None, 6), slice(1, None, 3), slice(0, None, 2)])
def test_the_snr_is_known_whichever_pixels_are_bad(good: slice, with_errors: bool) -> None:
    bad = np.ones((20, 3000), dtype=bool)
    bad[:, good] = False
    for pattern in (bad, ~bad):
        flux = np.where(pattern, 1e6, 1 + np.random.default_rng(2).normal(0, 0.1, bad.shape))
        snr = estimate_snr(flux, np.full(bad.shape, 0.1) if with_errors else None, pattern)
        assert snr == pytest.approx(10, rel=0.3)


def test_noise_is_flagged_and_an_unknown_one_is_said() -> None:
    flux = 1 + np.random.default_rng(2).normal(0, 0.3, (1, 1001))
    bad = np.arange(1001)[None] % 3 == 0
    assert LENIENT.prepare_block(Spectra(GRID.wavelength, flux, None, bad, medium="air")).flags & Flag.low_snr
    few = ~np.isin(np.arange(1001), [100, 300, 500])
    model = replace(LENIENT, min_coverage=0.01)
    (notes,) = model.prepare_block(Spectra(GRID.wavelength, flux, None, few[None], medium="air")).notes
    assert "S/N not known: too few good pixels to estimate it from" in notes


def test_a_low_snr_is_flagged_from_errors_and_without() -> None:
    assert MODEL.prepare(star(noise=1 / 20)).flags == Flag.low_snr
    assert MODEL.prepare(star(noise=1 / 20, sigma=None)).flags & Flag.low_snr
    assert MODEL.prepare(star(noise=1 / 150, sigma=None)).flags == 0


@pytest.mark.parametrize("scale", [1e-17, 0.5, 1.3, 3e4])
def test_a_spectrum_in_counts_is_flagged_and_normalised_on_request(scale: float) -> None:
    blaze = scale * (1 - ((WIDE - 6700) / 400) ** 2)
    counts = replace(star(), flux=star().flux * blaze, sigma=star().sigma * blaze)
    assert MODEL.prepare(counts).flags == Flag.not_normalized
    ready = MODEL.prepare(counts, PrepareOptions(normalize=True))
    assert ready.flags == 0
    assert ready.notes == ("continuum normalised",)
    np.testing.assert_allclose(ready.flux, MODEL.prepare(star()).flux, atol=0.02)


def test_a_model_with_a_recipe_normalises_what_needs_it_unless_told_not_to() -> None:
    model = replace(MODEL, normalize=Normalization("polynomial", 2))
    counts = replace(star(), flux=star().flux * 1000, sigma=star().sigma * 1000)
    assert model.prepare(counts).notes == ("continuum normalised",)
    assert model.prepare(counts).flags == 0
    assert model.prepare(star()).notes == ()
    assert model.prepare(counts, PrepareOptions(normalize=False)).flags == Flag.not_normalized


def test_a_block_is_the_same_as_its_rows_one_by_one() -> None:
    rng = np.random.default_rng(5)
    flux = flux_at(WIDE) + 0.01 * rng.standard_normal((6, WIDE.size))
    flux[1] *= 2000
    flux[2, 1000:2000] = np.nan
    flux[3] = np.nan
    sigma = np.full(flux.shape, 0.01)
    sigma[4, ::7] = 0
    rv = np.array([0.0, 20.0, np.nan, -5.0, 20.0, 1e9])
    options = PrepareOptions(rv="header", normalize=None)
    model = replace(MODEL, normalize=Normalization())
    block = model.prepare_block(Spectra(WIDE, flux, sigma, None, "vacuum", "barycentric", 30000, rv), options)
    for row in range(6):
        spectrum = Spectrum(
            WIDE,
            flux[row],
            sigma[row],
            medium="vacuum",
            frame="barycentric",
            resolution=30000,
            radial_velocity=rv[row],
        )
        alone, here = model.prepare(spectrum, options), block[row]
        np.testing.assert_array_equal(alone.flux, here.flux)
        np.testing.assert_array_equal(alone.sigma, here.sigma)
        assert (alone.flags, alone.notes, alone.rv, alone.coverage) == (here.flags, here.notes, here.rv, here.coverage)
        assert alone.snr == pytest.approx(here.snr, nan_ok=True)


def test_gaps_between_orders_are_no_bad_pixels_even_after_degrading() -> None:
    wavelength = np.arange(6600.0, 6850.0, 0.02)
    kept = (wavelength < 6700) | (wavelength > 6720)
    sharp = Spectrum(wavelength[kept], flux_at(wavelength[kept], 60000), medium="air", frame="rest", resolution=60000)
    for spectrum in (sharp, replace(sharp, resolution=11000.0)):
        ready = MODEL.prepare(spectrum)
        assert ready.flags == Flag.partial_coverage
        assert ready.coverage == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize(("most_missing", "lost", "flagged"), [(0.1, 80, False), (0.1, 120, True), (None, 480, False)])
def test_what_training_lost_between_good_pixels_may_be_missing_there(most_missing, lost, flagged) -> None:
    model = replace(MODEL, min_coverage=0.5, most_missing=most_missing)
    flux = flux_at(GRID.wavelength)
    flux[300 : 300 + lost] = np.nan
    bad = model.prepare(Spectrum(GRID.wavelength, flux, medium="air", frame="rest"))
    good = np.isfinite(flux)
    gap = model.prepare(Spectrum(GRID.wavelength[good], flux[good], medium="air", frame="rest"))
    assert bad.flags == (Flag.bad_pixels | Flag.partial_coverage if flagged else 0)
    assert gap.flags == (Flag.partial_coverage if flagged else 0)
    said = f"{lost / GRID.n_pixel:.1%} of the pixels between good ones are missing, 10% may be"
    assert (said in gap.notes) == flagged


def test_what_is_said_of_a_gap_is_what_is_flagged_not_what_training_had() -> None:
    flux = flux_at(GRID.wavelength)
    flux[300:325] = np.nan
    model = replace(MODEL, min_coverage=0.5, most_missing=0.0)
    notes = model.prepare(Spectrum(GRID.wavelength, flux, medium="air", frame="rest")).notes
    assert "2.5% of the pixels between good ones are missing, 2% may be" in notes


@pytest.mark.parametrize("lost", [slice(0, 400), slice(600, None)])
def test_what_is_missing_at_an_end_is_no_gap(lost) -> None:
    flux = flux_at(GRID.wavelength)
    flux[lost] = np.nan
    model = replace(MODEL, min_coverage=0.5, most_missing=0.1)
    assert not model.prepare(Spectrum(GRID.wavelength, flux, medium="air", frame="rest")).flags


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.001, 300), min_size=1, max_size=40),
    st.floats(3000, 9000),
    st.sampled_from(["air", "vacuum", "unknown"]),
    st.sampled_from([None, "header", 100.0, "auto"]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, 5000.0, 40000.0]),
    st.randoms(use_true_random=False),
)
def test_nothing_that_is_a_spectrum_raises_or_warns(steps, first, medium, rv, normalize, resolution, random) -> None:
    wavelength = first + np.concatenate([[0.0], np.cumsum(steps)])
    flux = [random.choice([0.0, 1.0, -1.0, 1e300, -1e-300, np.nan, np.inf, 1e40, 1e29]) for _ in wavelength]
    spectrum = Spectrum(wavelength, flux, medium=medium, radial_velocity=random.choice([None, 5.0]))
    options = PrepareOptions(rv=rv, normalize=normalize, resolution=resolution)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        ready = MODEL.prepare(spectrum, options, template=flux_at(GRID.wavelength))
    assert ready.flux.shape == (GRID.n_pixel,)
    assert 0 <= ready.coverage <= 1
    assert ready.coverage == pytest.approx(np.mean(~np.isnan(ready.flux)))


def test_a_preparation_survives_json() -> None:
    model = replace(MODEL, normalize=Normalization("polynomial", 4, ignore=((6700.0, 6710.0),)), min_coverage=0.7)
    model = replace(model, unseen=((3, 5), (9, 9)))
    assert Preparation.from_dict(json.loads(json.dumps(model.to_dict())), GRID) == model
    assert Preparation.from_dict({}, GRID) == Preparation(GRID)


@pytest.mark.parametrize("wrong", [{"rv": "bary"}, {"rv": 1e6}, {"rv": np.nan}, {"resolution": 0.0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnnaError):
        PrepareOptions(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame": "moon"},
        {"resolution": -1},
        {"resolution": "high"},
        {"min_coverage": 2},
        {"unseen": ((5, GRID.n_pixel),)},
        {"unseen": ((5, 4),)},
        {"unseen": ((0, GRID.n_pixel - 1),)},
        {"snr_range": [3, 1]},
        {"interpolation": "nearest"},
        {"velocity_range": [1]},
        {"velocity_range": 5},
        {"normalize": "yes"},
        {"normalize": {"curve": "sine"}},
        {"normalize": {"order": "x"}},
        {"normalize": {"ignore": [1]}},
    ],
)
def test_a_damaged_preparation_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnnaError):
        Preparation.from_dict(wrong, GRID)


def test_a_measured_velocity_needs_a_template_that_velocities_did_not_blur() -> None:
    with pytest.raises(AnnaError, match="no mean spectrum"):
        MODEL.prepare(star(), PrepareOptions(rv="auto"))
    with pytest.raises(AnnaError, match="trained with -100 to 100 km/s, which blur the mean"):
        LENIENT.prepare(star(), PrepareOptions(rv="auto"), template=flux_at(GRID.wavelength))


def test_velocities_that_were_measured_otherwise_are_removed() -> None:
    moving = flux_at(WIDE)[None].repeat(2, axis=0)
    found = Velocities(np.array([-37.5, np.nan]), np.array([0.4, np.nan]))
    spectra = Spectra(WIDE * doppler(-37.5), moving, medium="air")
    ready = LENIENT.prepare_block(spectra, PrepareOptions(rv="auto"), measured=found)
    np.testing.assert_allclose(ready.flux[0], flux_at(GRID.wavelength), atol=0.01)
    assert ready.notes == [
        ("measured radial velocity -37.5 ± 0.4 km/s removed",),
        ("no radial velocity could be measured, the model was trained with -100 to 100",),
    ]


def test_the_velocity_that_a_network_fits_is_told_of_clear_lines_like_those_of_the_training() -> None:
    lines = np.where(np.arange(900) % 2, 1.1, 0.9).astype(np.float32)  # an rms of 0.1, ten times the noise
    flux = np.stack([lines, lines, np.ones_like(lines), lines])
    expected, misfit = np.array([0.001, 0.1, 0.1, 0.1]), np.array([0, 1, 0, 0])
    fit = Fit(np.arange(4.0), *np.full((2, 4), 0.01), misfit, expected, np.zeros(4), np.ones(4))
    with np.errstate(all="raise"):
        found = fitted_rv(fit, LIMITS, flux, fwhm=27.0)
    np.testing.assert_allclose(found.rv, [np.nan, np.nan, np.nan, 3])
    np.testing.assert_allclose(found.error, [np.nan, np.nan, np.nan, 27 / 10 / 30])


@pytest.fixture(scope="module")
def training(shared: Path) -> tuple[FloatArray, FloatArray]:
    """Wavelengths and flux of 5000 synthetic stars, 4000-7000 K."""
    values = np.memmap(shared / "train_5000.bin", dtype=np.float64, mode="r")
    n_pixel, n_label = int(values[0]), int(values[1])
    rows = values[2 + n_pixel :].reshape(-1, n_pixel + n_label + 2)
    return np.array(values[2 : 2 + n_pixel]), np.array(rows[:, 2 + n_label :])


@pytest.mark.parametrize("snr", [5, 20, 100])
def test_clean_normalised_stars_raise_no_false_alarm(training: tuple[FloatArray, FloatArray], snr: int) -> None:
    _, flux = training
    noisy = flux + np.random.default_rng(0).standard_normal(flux.shape) / snr
    assert off_continuum(noisy, np.full(len(noisy), snr)).mean() == 0


@pytest.mark.parametrize("peak", [0.0, 0.15])
def test_an_order_that_was_divided_by_its_largest_flux_is_not_normalised(peak: float) -> None:
    blaze = 1 - 0.6 * (np.linspace(-1, 1, WIDE.size) - peak) ** 2
    order = replace(star(), flux=star().flux * blaze, sigma=blaze / 150)
    ready = MODEL.prepare(order)
    assert Flag.not_normalized in ready.flags
    assert "lower at both ends, needed 1" in ready.notes[-1]
    ready = replace(MODEL, normalize=Normalization()).prepare(order)
    assert ready.notes == ("continuum normalised",)
    assert ready.flags == 0


@pytest.mark.parametrize("ends", [2, 10, 100])
def test_the_snr_is_that_of_the_spectrum_that_was_divided_by_its_continuum(ends: float) -> None:
    flux = 1 + np.random.default_rng(0).standard_normal(GRID.n_pixel) / 50
    slope = np.geomspace(1, ends, GRID.n_pixel)
    spectrum = Spectrum(GRID.wavelength, 1e-15 * slope * flux, medium="air", frame="rest")
    ready = MODEL.prepare(spectrum, PrepareOptions(normalize=Normalization("polynomial", 5)))
    assert ready.snr == pytest.approx(50, rel=0.2)


def test_the_snr_of_stars_is_estimated_without_errors(training: tuple[FloatArray, FloatArray]) -> None:
    _, flux = training
    for snr, least in ((10, 8), (50, 38), (200, 100)):
        noisy = flux + np.random.default_rng(0).standard_normal(flux.shape) / snr
        found = estimate_snr(noisy)
        assert np.median(found) == pytest.approx(snr, rel=0.1)
        assert (found > least).mean() > 0.99


def test_the_stated_error_of_a_velocity_is_the_scatter_that_is_found() -> None:
    rng = np.random.default_rng(8)
    template = flux_at(GRID.wavelength)
    moved = np.interp(GRID.wavelength, WIDE * doppler(33.3), flux_at(WIDE))
    found = np.array([measure_rv(moved + 0.03 * rng.standard_normal(moved.size), template, GRID) for _ in range(200)])
    assert found[:, 0].mean() == pytest.approx(33.3, abs=0.1)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.4)


def test_the_observed_sun_raises_no_false_alarm(shared: Path) -> None:
    ready = [LENIENT.prepare(sun) for sun in read_spectra(shared / "fits" / "jun2011_3133.fits")]
    assert len(ready) == 90
    assert all(sun.coverage == 1 and not sun.flags & ~Flag.low_snr for sun in ready)
