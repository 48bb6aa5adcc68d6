"""Images whose wavelengths are in keywords, and the lean way of reading them."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.errors import AnnaError, NoWavelengthError, ReadError
from anna_onnx.readers import ReadOptions, read_spectra
from anna_onnx.readers.fits import open_fits
from anna_onnx.readers.series import Series
from tests.readers.files import image_bytes

N = 64
FLUX = np.linspace(0.5, 1.5, N, dtype="f4")


@pytest.fixture
def read(tmp_path):
    """Write a 1-D image with cards, and read it."""

    def reader(cards, flux=FLUX, **options):
        path = tmp_path / "star.fits"
        path.write_bytes(image_bytes(flux, cards))
        return read_spectra(path, **options)

    return reader


@pytest.mark.parametrize(
    ("cards", "first", "second"),
    [
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 11.0}, 4995.0, 4995.5),
        ({"CRVAL1": 5000.0, "CDELT1": 1.0, "CD1_1": 0.5, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000, "CD1_1": 0.5, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.05, "CD1_1": 0.5, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CD1_1": 0.0, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CD1_1": 1.0, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CD1_1": -7.7e-5, "CD2_2": 7.7e-5, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 1.0, "CD1_1": 0.5, "CD2_2": 1.0, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 500.0, "CDELT1": 0.05, "CUNIT1": "nm"}, 5000.0, 5000.5),
        ({"CRVAL1": 0.5, "CDELT1": 5e-5, "CUNIT1": "micron"}, 5000.0, 5000.5),
        ({"CRVAL1": 5e-7, "CDELT1": 5e-11, "CUNIT1": "m"}, 5000.0, 5000.5),
        ({"CRVAL1": 500.0, "CDELT1": 0.05, "CTYPE1": "WAVELENGTH (nm)"}, 5000.0, 5000.5),
        ({"CRVAL1": 500.0, "CDELT1": 0.05, "WAT1_001": "wtype=linear units=Nanometers"}, 5000.0, 5000.5),
        ({"CRVAL1": math.log10(5000), "CDELT1": 1e-4, "DC-FLAG": 1}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log10(500), "CDELT1": 1e-4, "DC-FLAG": 1, "CUNIT1": "nm"}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log10(5000), "CDELT1": 1e-4, "CTYPE1": "LOG-WAVE"}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log10(5000), "CDELT1": 1e-4, "CUNIT1": "log(Angstrom)"}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log(5000), "CDELT1": 1e-4, "CTYPE1": "AWAV-LOG"}, 5000.0, 5000 * math.exp(1e-4)),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CTYPE1": "WAVE-LOG", "CUNIT1": "Angstrom"}, 5000.0, 5000 * math.exp(1e-4)),
        ({"COEFF0": math.log10(5000), "COEFF1": 1e-4}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log(5000), "CDELT1": 1e-4, "CTYPE1": "log(wavelength)"}, 5000.0, 5000 * math.exp(1e-4)),
        ({"CRVAL1": math.log(5000), "CDELT1": 1e-4, "CUNIT1": "log(angstrom)"}, 5000.0, 5000 * math.exp(1e-4)),
        ({"CRVAL1": math.log10(5000), "CDELT1": 1e-4, "CTYPE1": "LOG(WAVELENGTH)"}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": math.log10(5000), "CDELT1": 1e-4, "CUNIT1": "Angstrom"}, 5000.0, 5000 * 10**1e-4),
        ({"CRVAL1": 5000.0, "CDELT1": 0.5, "CTYPE1": "WAVE-WAV", "CUNIT1": "10**(-10)m"}, 5000.0, 5000.5),
        ({"CRVAL1": 5000.0, "CDELT1": 1.0, "PC1_1": 0.5, "CRPIX1": 1}, 5000.0, 5000.5),
        ({"CRVAL1": 5e-7, "CDELT1": 5e-11, "CTYPE1": "AWAV"}, 5000.0, 5000.5),
        ({"W0": 5000.0, "WPC": 0.5, "DC-FLAG": 0}, 5000.0, 5000.5),
    ],
)  # fmt: skip
def test_every_dialect_gives_the_same_wavelengths(read, cards, first, second):
    (spectrum,) = read(cards)
    assert spectrum.wavelength[[0, 1]] == pytest.approx([first, second], abs=1e-6)
    np.testing.assert_array_equal(spectrum.flux, FLUX)


def test_the_log_algorithm_of_the_standard_holds_for_every_pixel(read):
    cards = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "CTYPE1": "AWAV-LOG", "CUNIT1": "Angstrom"}
    (spectrum,) = read(cards)
    np.testing.assert_allclose(spectrum.wavelength, 5000 * np.exp(0.5 / 5000 * np.arange(N)), rtol=1e-14)


@pytest.mark.parametrize(
    "unit", ["angstroms", "ANGSTROM", "Angstroms", "Ang", "A", "Å", "10**-10 m", "0.1nm", "[AA]", "Angstrom (air)"]
)
def test_angstrom_is_read_in_any_spelling(read, unit):
    from anna_onnx.readers.units import angstroms_per

    assert angstroms_per(unit, "") == 1.0


@pytest.mark.parametrize(
    ("cards", "medium"),
    [
        ({"CTYPE1": "AWAV"}, "air"),
        ({"CTYPE1": "WAVE"}, "vacuum"),
        ({"VACUUM": True}, "vacuum"),
        ({"VACUUM": False}, "air"),
        ({"AIRORVAC": "vac"}, "vacuum"),
        ({"INSTRUME": "HARPS"}, "air"),
        ({"INSTRUME": "XSHOOTER", "CTYPE1": "WAVE"}, "air"),
        ({"INSTRUME": "HERMES"}, "air"),
        ({"CTYPE1": "WAVE-WAV"}, "unknown"),
        ({"CTYPE1": "wave_vac"}, "vacuum"),
        ({"CTYPE1": "air/vac"}, "unknown"),
        ({"CUNIT1": "Angstrom (air)"}, "air"),
        ({"WAT0_001": "system=equispec", "DC-FLAG": 0}, "air"),
        ({"ORIGIN": "NOAO-IRAF FITS Image Kernel July 2003", "DC-FLAG": 0}, "air"),
        ({"DC-FLAG": 0, "INSTRUME": "ESI"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_medium_is_what_the_header_or_the_convention_says(read, cards, medium):
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, **cards})
    assert spectrum.medium == medium


@pytest.mark.parametrize(
    ("remark", "medium"),
    [
        ("COMMENT wavelengths are in vacuum", "vacuum"),
        ("HISTORY wavelength scale: air", "air"),
        ("HISTORY wavelengths converted from air to vacuum", "vacuum"),
        ("HISTORY wavelengths converted with vactoair, vac -> air", "air"),
        ("HISTORY vacuum gauge 1e-4 mbar", "unknown"),
        ("HISTORY wavelength and AIRMASS", "unknown"),
        ("HISTORY extinction corrected as a function of wavelength and air mass", "unknown"),
        ("HISTORY wavelengths for an air pressure of 780 hPa", "unknown"),
        ("HISTORY wavelengths in vacuum, by the refractive index of air", "vacuum"),
        ("COMMENT wavelengths are not in vacuum", "unknown"),
        ("COMMENT wavelengths may be in air or vacuum", "unknown"),
        ("HISTORY Wavelengths converted to vacuum, not yet to the heliocentric frame", "vacuum"),
        ("COMMENT Wavelengths in vacuum; heliocentric correction not applied", "vacuum"),
        ("COMMENT wavelengths in air, no telluric correction", "air"),
        ("COMMENT Vacuum wavelengths (without barycentric correction)", "vacuum"),
        ("COMMENT wavelength in air, not in vacuum", "air"),
        ("COMMENT vacuum correction of the wavelengths not applied", "unknown"),
    ],
)
def test_the_medium_may_stand_in_a_remark(tmp_path, remark, medium):
    data = image_bytes(FLUX, {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0})
    (tmp_path / "a").write_bytes(data.replace(b"END".ljust(160), remark.encode().ljust(80) + b"END".ljust(80), 1))
    assert read_spectra(tmp_path / "a")[0].medium == medium


@pytest.mark.parametrize("maker", [{"INSTRUME": "UVES"}, {"CTYPE1": "WAVE"}, {"WAT0_001": "system=linear"}])
@pytest.mark.parametrize(
    ("history", "medium"),
    [("in vacuum, no sky", "vacuum"), ("not in vacuum", "unknown"), ("vacuum from air", "unknown")],
)
def test_no_convention_wins_over_a_remark_that_names_a_medium(tmp_path, maker, history, medium):
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, **maker})
    hdu.header.add_history(f"Wavelengths {history}")
    hdu.writeto(tmp_path / "star.fits")
    assert read_spectra(tmp_path / "star.fits")[0].medium == medium


@pytest.mark.parametrize(
    ("key", "value", "comment", "medium"),
    [
        ("CUNIT1", "Angstrom", "wavelengths in vacuum", "vacuum"),
        ("CUNIT1", "Angstrom", "see AIRORVAC for air/vacuum", "unknown"),
        ("CRVAL1", 5000.0, "[Angstrom] first pixel, vac/air unspecified", "unknown"),
        ("CRVAL1", 5000.0, "in air (m/s, A/pixel)", "air"),
        ("TTYPE1", "it's/air", "", "unknown"),
    ],
)
def test_the_comment_of_a_card_begins_at_the_slash_after_the_value(tmp_path, key, value, comment, medium):
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0})
    hdu.header[key] = (value, comment)
    hdu.writeto(tmp_path / "star.fits")
    assert open_fits("", (tmp_path / "star.fits").read_bytes()).primary.header.text(key) == str(value)
    (spectrum,) = read_spectra(tmp_path / "star.fits")
    assert spectrum.medium == medium


def test_a_series_notices_a_remark_on_the_medium(tmp_path):
    data = image_bytes(FLUX, {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0})
    remark = b"COMMENT wavelengths are in vacuum".ljust(80) + b"END".ljust(80)
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "told").write_bytes(data.replace(b"END".ljust(160), remark, 1))
    series = Series(ReadOptions())
    series.learn(str(tmp_path / "told"), read_spectra(tmp_path / "told")[0])
    (spectrum,) = series.read([str(tmp_path / "told")]).spectra()
    assert spectrum.medium == "vacuum"
    assert series.read([str(tmp_path / "plain")]) is None


@pytest.mark.parametrize(
    ("system", "frame"), [("TOPOCENT", "topocentric"), ("BARYCENT", "barycentric"), ("LSRK", "unknown")]
)
def test_the_frame_is_what_specsys_says(read, system, frame):
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "SPECSYS": system})
    assert spectrum.frame == frame


def test_overrides_win_and_are_noted(read):
    cards = {"CRVAL1": 500.0, "CDELT1": 0.05, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "um"}
    (spectrum,) = read(cards, medium="vacuum", frame="rest", wave_unit="nm")
    assert (spectrum.medium, spectrum.frame, spectrum.wavelength[0]) == ("vacuum", "rest", 5000.0)
    assert sum("as requested" in note for note in spectrum.notes) == 3


def test_name_resolution_and_velocity_come_from_the_header(read):
    cards = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "OBJECT": "HD 1", "SPEC_RES": 42000.0, "VRAD": -12.5}
    (spectrum,) = read(cards)
    assert (spectrum.id, spectrum.resolution, spectrum.radial_velocity) == ("HD 1", 42000, -12.5)


@pytest.mark.parametrize(
    ("key", "value", "comment", "resolution", "velocity"),
    [
        ("RADVEL", 1500.0, "[m/s]", None, 1.5),
        ("RADVEL", -12.5, "[km s-1] of the star", None, -12.5),
        ("RADVEL", 1500.0, "Radial velocity [m/s]", None, 1.5),
        ("RADVEL", -12.5, "[Angstrom]", None, None),
        ("RADVEL", -12.5, "barycentric [see the manual]", None, -12.5),
        ("RADVEL", 150.0, "of the line [pixel]", None, None),
        ("SPECRES", 35.0, "[mA] resolution element", None, None),
        ("SPECRES", 15.0, "spectral resolution [Angstrom]", None, None),
        ("SPECRES", 27.0, "FWHM of the LSF [km/s]", None, None),
        ("RESOLUT", 12.0, "FWHM [pix]", None, None),
        ("SPEC_RES", 40000.0, "[lambda/delta_lambda]", 40000, None),
        ("SPEC_RES", 40000.0, "[unitless] resolving power", 40000, None),
        ("SPEC_RES", 40000.0, "[none]", 40000, None),
        ("SPECRES", 42000.0, "[] resolving power", 42000, None),
    ],
)
def test_a_unit_in_brackets_counts(tmp_path, key, value, comment, resolution, velocity):
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0})
    hdu.header[key] = (value, comment)
    hdu.writeto(tmp_path / "star.fits")
    (spectrum,) = read_spectra(tmp_path / "star.fits")
    assert (spectrum.resolution, spectrum.radial_velocity) == (resolution, velocity)


def test_a_step_that_does_not_count_is_noted(read):
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.05, "CD1_1": 0.5, "CRPIX1": 1.0})
    assert any("CDELT1 = 0.05" in note for note in spectrum.notes)
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CD1_1": 1.0, "CRPIX1": 1.0})
    assert any("CD1_1 = 1 does not count" in note for note in spectrum.notes)
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CD1_1": 0.5000000001, "CRPIX1": 1.0})
    assert not any("CDELT1" in note for note in spectrum.notes)


def test_descending_wavelengths_are_reversed(read):
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": -0.5, "CRPIX1": 1.0})
    assert spectrum.wavelength[-1] == 5000
    np.testing.assert_array_equal(spectrum.flux, FLUX[::-1])


def test_zeros_at_the_ends_and_in_runs_are_padding_and_single_ones_are_not(read):
    flux = FLUX.copy()
    flux[:3] = flux[20] = flux[30:36] = flux[-1] = 0
    (spectrum,) = read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0}, flux)
    assert np.flatnonzero(spectrum.bad).tolist() == [0, 1, 2, *range(30, 36), N - 1]


def test_lines_of_an_equispec_image_are_spectra(read):
    cards = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "WAT0_001": "system=equispec", "APID2": "second"}
    spectra = read(cards, np.stack([FLUX, 2 * FLUX]))
    assert [spectrum.source.row for spectrum in spectra] == [0, 1]
    assert spectra[1].id == "second"
    np.testing.assert_array_equal(spectra[1].flux, 2 * FLUX)


def test_bands_of_an_equispec_image_are_not_stars(read):
    cards = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "APNUM1": "1 1", "BANDID2": "raw", "BANDID3": "sigma"}
    (spectrum,) = read(cards, np.stack([FLUX, 2 * FLUX, 0.1 * FLUX])[:, np.newaxis])
    np.testing.assert_array_equal(spectrum.flux, FLUX)
    np.testing.assert_array_equal(spectrum.sigma, (0.1 * FLUX).astype("f4"))


def test_axes_of_one_pixel_do_not_matter(read):
    cards = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0}
    assert read(cards, FLUX.reshape(1, 1, 1, N))[0].wavelength[1] == 5000.5
    with pytest.raises(ReadError, match=r"64 x 1"):
        read(cards, FLUX.reshape(N, 1))


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"CRVAL1": 1.0, "CDELT1": 1.0, "CRPIX1": 1.0},
        {"CTYPE1": "PIXEL", "CRVAL1": 5000.0, "CDELT1": 0.5},
        {"CUNIT1": "pixel", "CRVAL1": 5000.0, "CDELT1": 0.5},
        {"CTYPE1": "RA---TAN", "CRVAL1": 50.0, "CDELT1": 0.5, "CUNIT1": "deg"},
        {"CRVAL1": -200.0, "CDELT1": 10.0, "CRPIX1": 1.0},
    ],
)
def test_an_image_without_wavelengths_is_refused(read, cards):
    with pytest.raises(NoWavelengthError):
        read(cards)


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "VELO-LSR", "CUNIT1": "m/s"},
        {"CTYPE1": "VRAD", "CUNIT1": "km/s"},
        {"CTYPE1": "Radial velocity"},
        {"CUNIT1": "km s-1"},
        {"CUNIT1": "km/s"},
        {"CTYPE1": "km/s"},
        {"CTYPE1": "%"},
        {"CTYPE1": "FREQ", "CUNIT1": "Hz"},
        {"CUNIT1": "GHz"},
        {"WAT1_001": "wtype=linear label=Velocity units=km/s"},
        {"CTYPE1": "WAVE-GRI"},
        {"CUNIT1": "furlong"},
        {"DC-FLAG": 1},
    ],
)
def test_other_axes_are_refused_by_name(read, cards):
    with pytest.raises(ReadError, match=r"velocit|line depths|frequenc|not known|only linear|no logarithm"):
        read({"CRVAL1": 5000.0, "CDELT1": 0.5, **cards})


@pytest.mark.parametrize(
    ("cards", "resolution"),
    [
        ({"INSTRUME": "HARPS"}, 115000),
        ({"INSTRUME": "HARPS", "HIERARCH ESO INS MODE": "EGGS"}, 80000),
        ({"INSTRUME": "HARPS", "SPEC_RES": 60000.0}, 60000),
        ({"INSTRUME": "HARPS", "CDELT1": 0.2}, None),  # pixels of more than a resolution element
        ({"INSTRUME": "FEROS", "CDELT1": 0.03}, 48000),
        ({"INSTRUME": "ESPRESSO", "HIERARCH ESO INS MODE": "SINGLEHR"}, 140000),
        ({"INSTRUME": "ESPRESSO"}, None),
        ({"INSTRUME": "UVES"}, None),  # goes with the slit
    ],
)
def test_a_resolving_power_that_is_not_stated_is_that_of_the_instrument(tmp_path, cards, resolution):
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update({"CRVAL1": 6700.0, "CDELT1": 0.01, **cards})
    hdu.writeto(tmp_path / "a.fits")
    (spectrum,) = read_spectra(tmp_path / "a.fits")
    assert spectrum.resolution == resolution
    taken = [note for note in spectrum.notes if note.startswith("resolving power")]
    assert bool(taken) == (resolution is not None and "SPEC_RES" not in cards)


def test_a_unit_that_cannot_be_told_is_asked_for(read):
    with pytest.raises(ReadError, match="wave_unit"):
        read({"CRVAL1": 1500.0, "CDELT1": 0.1, "CRPIX1": 1.0})
    assert read({"CRVAL1": 1500.0, "CDELT1": 0.1, "CRPIX1": 1.0}, wave_unit="nm")[0].wavelength[0] == 15000
    with pytest.raises(ReadError, match="wave_unit"):  # FUSE in Angstrom, or the Y band in nm
        read({"CRVAL1": 905.0, "CDELT1": 1.0, "CRPIX1": 1.0})
    with pytest.raises(ReadError, match="wave_unit"):
        read({"CRVAL1": 3.0, "CDELT1": 20.0, "CRPIX1": 1.0})


def test_microns_that_may_be_logarithms_are_asked_for(read):
    cards = {"CRVAL1": 3.6, "CDELT1": 1e-4, "CRPIX1": 1.0, "CTYPE1": "WAVELENGTH", "DC-FLAG": 0}
    assert read(cards, wave_unit="um")[0].wavelength[0] == 36000
    with pytest.raises(ReadError, match="microns or log10"):
        read(cards)


def test_what_iraf_left_without_a_unit_is_in_angstrom_but_for_velocities(read):
    cards = {"CRVAL1": 1500.0, "CDELT1": 1.0, "CRPIX1": 1.0, "DC-FLAG": 0}
    assert read(cards)[0].wavelength[0] == 1500
    with pytest.raises(NoWavelengthError, match="negative"):
        read({**cards, "CRVAL1": -10.0})


def test_a_long_slit_image_is_refused(read):
    with pytest.raises(ReadError, match=r"2 x 64"):
        read({"CRVAL1": 5000.0, "CDELT1": 0.5, "CTYPE1": "WAVE", "CTYPE2": "POSITION"}, np.stack([FLUX, FLUX]))


def test_a_file_cut_short_says_so(tmp_path):
    path = tmp_path / "star.fits"
    path.write_bytes(image_bytes(FLUX, {"CRVAL1": 5000.0, "CDELT1": 0.5})[:3000])
    with pytest.raises(ReadError, match="cut short"):
        read_spectra(path)


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-30),
    st.text(st.sampled_from("abc XYZ/=&123.,-"), max_size=60),
    st.text(st.sampled_from("abc XYZ'=&123.,-"), max_size=60),  # astropy cuts a string at a quote before a slash
)
KEYS = st.text(st.sampled_from("ABCDEXYZ0123456789-_"), min_size=1, max_size=8)
LONG_KEYS = st.sampled_from(["ESO A B", "ESO LONG KEY 1"])


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=12), st.dictionaries(LONG_KEYS, VALUES))
def test_the_header_read_by_hand_agrees_with_astropy(cards, hierarchs):
    hdu = fits.PrimaryHDU(FLUX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in cards.items():
            if key not in hdu.header:
                hdu.header[key] = (value, "comment")
        for key, value in hierarchs.items():
            hdu.header[f"HIERARCH {key}"] = value
        stream = io.BytesIO()
        hdu.writeto(stream, output_verify="silentfix+ignore")
        (ours,) = open_fits("", stream.getvalue()).hdus
        theirs = fits.Header.fromstring(stream.getvalue()[:28800].split(b"END" + b" " * 77)[0].decode())
    for key in (*cards, *hierarchs):
        expected = theirs[key]
        found = ours.header.get(key)
        assert found == (expected.rstrip() if isinstance(expected, str) else expected), key
        assert type(found) is type(expected)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["u1", "i2", "i4", "f4", "f8"]),
    st.sampled_from([None, 1.0, 0.25]),
    st.sampled_from([None, 0.0, 32768.0, 1.5]),
    st.booleans(),
)
def test_the_pixels_read_by_hand_agree_with_astropy(kind, scale, zero, has_blank):
    cards = {key: value for key, value in (("BSCALE", scale), ("BZERO", zero)) if value is not None}
    if has_blank and kind[0] in "iu" and zero != 32768.0:  # astropy forgets BLANK in unsigned integers
        cards["BLANK"] = 7
    pixels = np.arange(N).astype(kind)
    data = image_bytes(pixels, cards)
    ours, theirs = open_fits("", data).primary, fits.open(io.BytesIO(data))[0]
    np.testing.assert_allclose(ours.image().astype("f8"), theirs.data.astype("f8"), rtol=1e-6)
    assert ours.shape == theirs.shape


def test_tables_read_by_hand_agree_with_astropy():
    columns = [
        fits.Column("wavelength", "D", unit="nm", array=np.arange(5.0)),
        fits.Column("cells", "3E", array=np.arange(15.0).reshape(5, 3)),
        fits.Column("scaled", "E", bscale=0.5, bzero=2.0, array=np.arange(5, dtype="f4")),
        fits.Column("unsigned", "J", bzero=2**31, array=np.arange(5, dtype="u4")),
        fits.Column("null", "I", null=-1, array=np.array([1, -1, 2, 3, 4], dtype="i2")),
        fits.Column("text", "6A", array=["a", "bb", "ccc", "", "e"]),
        fits.Column("flag", "L", array=np.array([True, False, True, False, True])),
        fits.Column("bits", "11X", array=np.zeros((5, 11), dtype=bool)),
        fits.Column("ragged", "PE()", array=np.array([np.arange(n, dtype="f4") for n in range(5)], dtype=object)),
        fits.Column("last", "K", array=np.arange(5)),
    ]
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(stream)
    ours = open_fits("", stream.getvalue()).hdus[1]
    theirs = fits.open(io.BytesIO(stream.getvalue()))[1].data
    assert [column.name for column in ours.columns] == theirs.names
    for name in ("wavelength", "cells", "scaled", "unsigned", "flag", "last"):
        np.testing.assert_array_equal(ours.column(name).load(), theirs[name])
    assert ours.column("text").load().tolist() == theirs["text"].tolist()
    np.testing.assert_array_equal(ours.column("null").load(), [1, np.nan, 2, 3, 4])
    for mine, other in zip(ours.column("ragged").load(), theirs["ragged"], strict=True):
        np.testing.assert_array_equal(mine, other)
    with pytest.raises(AnnaError):
        ours.column("bits").load()


def test_tables_of_text_are_read(tmp_path):
    columns = [fits.Column("wave", "F9.3", unit="nm", ascii=True, array=500 + 0.05 * np.arange(9))]
    columns += [fits.Column(name, "E12.4", ascii=True, array=np.arange(1, 10.0)) for name in ("flux", "err")]
    hdu = fits.TableHDU.from_columns(columns)
    path = tmp_path / "star.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    (star,) = read_spectra(path)
    np.testing.assert_allclose(star.wavelength, 5000 + 0.5 * np.arange(9))
    np.testing.assert_array_equal(star.sigma, np.arange(1, 10.0))


def test_scaled_and_missing_numbers_in_tables_of_text_are_as_astropy_has_them(tmp_path):
    wave = fits.Column("wave", "F9.3", unit="nm", ascii=True, array=500 + 0.05 * np.arange(9))
    flux = fits.Column("flux", "I10", ascii=True, array=np.array([100, 101, -99, *range(103, 109)]))
    hdu = fits.TableHDU.from_columns([wave, flux])
    hdu.header.update({"TSCAL2": 0.01, "TZERO2": 1.0, "TNULL2": "-99"})
    path = tmp_path / "star.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    (star,) = read_spectra(path)
    assert np.flatnonzero(star.bad).tolist() == [2]
    with fits.open(path) as theirs:
        np.testing.assert_allclose(star.flux[~star.bad], theirs[1].data["flux"][~star.bad])
    path.write_bytes(path.read_bytes().replace(b"       104", b"       1x4"))
    with pytest.raises(ReadError, match=r"column 2, of numbers, holds b'1x4'"):
        read_spectra(path)


def test_compressed_images_are_read_with_astropy(tmp_path):
    hdu = fits.CompImageHDU(np.tile(np.arange(64, dtype="i4"), (2, 1)), name="SPEC")
    hdu.header["CRVAL1"], hdu.header["CDELT1"], hdu.header["CRPIX1"] = 5000.0, 0.5, 1.0
    hdu.header["APNUM1"] = "1 1"
    path = tmp_path / "star.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    spectra = read_spectra(path)
    assert len(spectra) == 2
    np.testing.assert_array_equal(spectra[1].flux, np.arange(64))


def test_a_simple_image_is_read_without_importing_astropy(tmp_path):
    path = tmp_path / "star.fits"
    path.write_bytes(image_bytes(FLUX, {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0}))
    code = (
        "import sys; from anna_onnx.readers import read_spectra; "
        f"assert len(read_spectra({str(path)!r})) == 1; "
        "print(sorted({'astropy', 'h5py', 'scipy', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
