"""The medium that a spectrum's grid or lines tell, where nothing states it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.medium import C_KMS, air_to_vacuum
from anna_onnx.readers import ReadOptions, read_spectra
from anna_onnx.readers.judged_medium import judge
from anna_onnx.readers.series import Series
from anna_onnx.spectrum import Spectrum

from .files import image_bytes

TRIPLET = (8498.02, 8542.09, 8662.14)
MG_B = (5172.68, 5183.60)
NA_D = (5889.95, 5895.92)
multiplets = st.sampled_from([TRIPLET, MG_B, NA_D])


def star(lines=TRIPLET, *, medium="air", velocity=0.0, depth=0.7, width=25.0, noise=0.0, step=4.0, seed=1, **known):
    """Return a star with Gaussian lines of a width (standard deviation) in km/s, sampled every `step` km/s."""
    wavelength = np.exp(np.arange(np.log(lines[0] - 15), np.log(lines[-1] + 15), step / C_KMS))
    centers = np.array(lines if medium == "air" else air_to_vacuum(lines)) * (1 + velocity / C_KMS)
    offset = (wavelength[:, None] / centers - 1) * C_KMS
    flux = 1 - depth * np.exp(-0.5 * (offset / width) ** 2).sum(axis=1)
    flux += noise * np.random.default_rng(seed).standard_normal(flux.size)
    return Spectrum(wavelength, flux, **known)


@settings(max_examples=200, deadline=None)
@given(
    multiplets,
    st.sampled_from(["air", "vacuum"]),
    st.floats(-40, 40),
    st.floats(0.05, 0.95),
    st.floats(2, 120),
    st.floats(0, 0.5),
    st.floats(1, 40),
    st.integers(0, 99),
)
def test_a_star_slower_than_40_km_s_is_never_judged_wrongly(lines, medium, velocity, depth, width, noise, step, seed):
    spectrum = star(
        lines, medium=medium, velocity=velocity, depth=depth, width=width, noise=noise, step=step, seed=seed
    )
    assert judge(spectrum).medium in (medium, "unknown")


@settings(max_examples=50, deadline=None)
@given(multiplets, st.sampled_from([("air", 18), ("vacuum", 3.5)]), st.floats(-1, 1), st.floats(0.35, 0.95))
def test_a_slow_star_of_good_quality_is_judged(lines, where, fraction, depth):
    medium, fastest = where
    spectrum = star(lines, medium=medium, velocity=fraction * fastest, depth=depth, width=20, noise=0.01)
    assert judge(spectrum).medium == medium


def test_the_verdict_and_its_reason_are_a_note():
    (note,) = judge(star(velocity=1.0)).notes
    assert note == "medium air, judged by its lines: Ca II triplet then at +1 km/s, as vacuum at -81 km/s"


@pytest.mark.parametrize("medium", ["air", "vacuum"])
@pytest.mark.parametrize("velocity", [-140, -60, 60, 90])
def test_a_fast_star_is_judged_right_when_its_velocity_is_known(medium, velocity):
    fast = star(medium=medium, velocity=velocity, radial_velocity=velocity + 5.0, frame="barycentric")
    assert judge(fast).medium == medium


@pytest.mark.parametrize("medium", ["air", "vacuum"])
@pytest.mark.parametrize("velocity", [-25, 25])
def test_what_is_at_rest_is_judged_with_less_caution(medium, velocity):
    assert judge(star(medium=medium, velocity=velocity, frame="rest")).medium == medium


def test_a_stated_velocity_is_of_no_use_in_an_unknown_frame():
    assert judge(star(radial_velocity=-60.0)).medium == "unknown"


@pytest.mark.parametrize(
    "spectrum",
    [
        star(depth=-0.7),  # in emission
        star(depth=0.2),
        star(width=80.0),
        star(step=30.0),
        star(resolution=2000.0),
        star(lines=(8500.0, 8542.09, 8662.14)),  # one of them elsewhere
        star(lines=(*MG_B, 5891.58, 5897.55)),  # two multiplets, of which the second says vacuum
        star(lines=MG_B[:1]),
        Spectrum(np.linspace(8450, 8700, 3000), np.full(3000, np.nan)),
        Spectrum(np.linspace(8450, 8700, 3000), np.zeros(3000)),
        Spectrum(np.linspace(8450, 8700, 3000), np.full(3000, -1.0)),
    ],
)
def test_what_is_not_clear_stays_unknown(spectrum):
    with np.errstate(all="ignore"):
        assert judge(spectrum) is spectrum


def test_noise_is_not_taken_for_lines():
    wavelength = np.linspace(4300, 8700, 40_000)
    for seed in range(100):
        flux = 1 + np.random.default_rng(seed).normal(0, 0.3, wavelength.size)
        assert judge(Spectrum(wavelength, flux)).medium == "unknown"


def sdss(n=3800, step=1e-4, first=3.58):
    """Return flux without lines on a grid in log10 of the wavelength."""
    return Spectrum(10 ** (first + step * np.arange(n)), np.ones(n))


@pytest.mark.parametrize(
    ("grid", "medium"),
    [
        (sdss(), "vacuum"),
        (sdss(n=600), "vacuum"),
        (sdss(first=3.58004), "vacuum"),  # its redshift taken out
        (sdss(n=600, first=3.58004), "unknown"),
        (sdss(n=400), "unknown"),
        (sdss(step=1.0001e-4), "unknown"),
        (sdss(step=2e-4), "unknown"),
        (Spectrum(np.linspace(3800, 9200, 3842), np.ones(3842)), "unknown"),
        (Spectrum(air_to_vacuum(sdss().wavelength), np.ones(3800)), "unknown"),  # converted once too often
    ],
)
def test_the_grid_of_sdss_is_in_vacuum(grid, medium):
    assert judge(grid).medium == medium


def test_the_grid_of_sdss_is_known_in_a_text_with_two_decimals(tmp_path):
    path = tmp_path / "spec.csv"
    spectrum = sdss()
    np.savetxt(path, np.c_[spectrum.wavelength, spectrum.flux], fmt="%.2f", delimiter=",")
    (read,) = read_spectra(path)
    assert read.medium == "vacuum"
    assert "medium vacuum, as SDSS, BOSS, LAMOST and MaNGA have it, on whose grid it is" in read.notes


def write_text(path, spectrum):
    np.savetxt(path, np.c_[spectrum.wavelength, spectrum.flux])
    return path


@pytest.mark.parametrize("said", ["air", "vacuum", "unknown"])
def test_what_the_user_says_of_the_medium_counts(tmp_path, said):
    (read,) = read_spectra(write_text(tmp_path / "star.txt", star()), medium=said)
    assert read.medium == said


def test_a_frame_that_the_user_says_helps(tmp_path):
    path = write_text(tmp_path / "star.txt", star(medium="vacuum", velocity=20.0))
    assert read_spectra(path)[0].medium == "unknown"
    assert read_spectra(path, frame="rest")[0].medium == "vacuum"


def test_stars_of_a_series_are_judged_one_by_one(tmp_path):
    """The files of a series share their header: one must not be taken to be in the medium that another's lines tell."""
    wavelength = 8450 + 0.1 * np.arange(2500)
    cards = {"CRVAL1": 8450.0, "CDELT1": 0.1, "CUNIT1": "Angstrom"}
    for name, one in (("lines", star(step=1.0)), ("none", star(step=1.0, depth=0.0))):
        flux = np.interp(wavelength, one.wavelength, one.flux)
        (tmp_path / f"{name}.fits").write_bytes(image_bytes(flux.astype("f4"), cards))
    for name, medium in (("lines", "air"), ("none", "unknown")):
        path = str(tmp_path / f"{name}.fits")
        (spectrum,) = read_spectra(path)
        assert spectrum.medium == medium
        series = Series(ReadOptions())
        series.learn(path, spectrum)
        assert series.read([str(tmp_path / "none.fits")]) is None
