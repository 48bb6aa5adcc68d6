"""Spectra of HIRES (MAKEE), UVES_popler and CHIRON, written from the descriptions of their formats."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.readers import ReadOptions, read_each, read_spectra
from anna_onnx.readers.assembly import Unread
from tests.readers.files import image_bytes, table

N = 400
FLUX = np.linspace(0.5, 1.5, N)

# --- MAKEE ----------------------------------------------------------------------

# Row 5 as MAKEE's page on its wavelengths shows it.
WV_0 = " 3.798860003E+03 +2.866401731E-02 -7.524915946E-07 -8.422777264E-11"
WV_4 = " 8.209366207E-14 -5.373050237E-17 +1.107868830E-20 +0.000000000E+00"
CORRECTED = {"VACUUM": "Air to vacuum correction applied.", "HELIOCNT": "Heliocentric correction applied."}


def makee(n_order=3, **changes):
    """Return a file of MAKEE with orders of 11 Å, 8 Å apart; cards that are None are left out."""
    columns = {"CRVAL1": 23, "CRVAL2": 1, "CDELT1": 1, "CDELT2": 1, "CRPIX1": 1, "CRPIX2": 1}
    orders = {f"WV_0_{i:02d}": f" {3790 + 8 * i:.9E} {WV_0[17:]}" for i in range(1, n_order + 1)}
    rest = {f"WV_4_{i:02d}": WV_4 for i in range(1, n_order + 1)}
    cards = {"OBJECT": "HD 1", "INSTRUME": "HIRES", **columns, **orders, **rest, **CORRECTED, **changes}
    present = {key: value for key, value in cards.items() if value is not None}
    return image_bytes(np.tile(FLUX, (n_order, 1)).astype("f4"), present)


def test_makee_orders_have_polynomials_of_the_column_on_the_detector(tmp_path):
    (tmp_path / "a").write_bytes(makee(WV_0_01=WV_0))
    first, second, _ = read_spectra(tmp_path / "a")
    x = 23.0  # CRVAL1 is the column of the first pixel
    wavelength = 3798.860003 + x * (
        2.866401731e-2 + x * (-7.524915946e-7 + x * (-8.422777264e-11 + x * 8.209366207e-14))
    )
    assert first.wavelength[0] == pytest.approx(wavelength, abs=1e-9)
    assert first.wavelength[1] - first.wavelength[0] == pytest.approx(0.0286294, abs=1e-6)
    assert second.wavelength[0] - first.wavelength[0] == pytest.approx(3806 - 3798.860003)
    np.testing.assert_allclose(first.flux, FLUX.astype("f4"))
    assert (first.id, first.n_pixel, first.source.row) == ("HD 1", N, 0)


def test_makee_coefficients_may_have_the_exponents_of_fortran(tmp_path):
    (tmp_path / "a").write_bytes(makee(WV_0_01=WV_0))
    (tmp_path / "b").write_bytes(makee(WV_0_01=WV_0.replace("E", "D"), WV_4_01=WV_4.replace("E", "d")))
    first, second = (read_spectra(tmp_path / name)[0] for name in "ab")
    assert np.array_equal(first.wavelength, second.wavelength)


def test_makee_says_whether_its_wavelengths_are_in_vacuum_and_heliocentric(tmp_path):
    (tmp_path / "a").write_bytes(makee())
    (tmp_path / "b").write_bytes(makee(VACUUM=None, HELIOCNT=None))
    (tmp_path / "c").write_bytes(makee(VACUUM="No air to vacuum correction.", HELIOCNT="No correction applied."))
    corrected, silent, not_corrected = (read_spectra(tmp_path / name)[0] for name in "abc")
    assert (corrected.medium, corrected.frame) == ("vacuum", "barycentric")
    assert (silent.medium, silent.frame) == ("unknown", "unknown")
    assert (not_corrected.medium, not_corrected.frame) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WV_0_02": None}, "WV_0_02 is missing, needed four coefficients"),
        ({"WV_4_02": None}, "WV_4_02 is missing, needed four coefficients"),
        ({"WV_4_02": " 1.0E-14 2.0E-17"}, "WV_4_02 is '1.0E-14 2.0E-17', needed four coefficients"),
        ({"WV_4_02": " 1.0E-14 2.0E-17 what 0.0"}, "needed four coefficients"),
        ({"WV_0_02": " 5000.0 -0.02 0.0 0.0"}, "does not ascend"),
        ({"WV_0_02": " 0.0 0.0 0.0 0.0", "WV_4_02": " 0.0 0.0 0.0 0.0"}, "does not ascend"),
    ],
)
def test_a_makee_order_without_its_polynomial_costs_no_other(tmp_path, changes, message):
    (tmp_path / "a").write_bytes(makee(**changes))
    first, second, third = read_each(tmp_path / "a", ReadOptions())
    assert isinstance(second, Unread)
    assert message in str(second.error)
    assert "\n" not in str(second.error)
    assert first.wavelength[0] < third.wavelength[0]
    (merged,) = read_spectra(tmp_path / "a", merge_orders=True)
    assert "1 of 3 pieces left out" in merged.notes[-1]


def test_makee_orders_are_merged_when_asked_for(tmp_path):
    (tmp_path / "a").write_bytes(makee())
    (star,) = read_spectra(tmp_path / "a", merge_orders=True)
    orders = read_spectra(tmp_path / "a")
    assert star.wavelength[[0, -1]].tolist() == [orders[0].wavelength[0], orders[2].wavelength[-1]]
    assert (star.medium, star.frame) == ("vacuum", "barycentric")


def test_images_of_more_rows_than_orders_have_numbers_are_not_of_makee(tmp_path):
    (tmp_path / "a").write_bytes(
        image_bytes(np.ones((100, N), dtype="f4"), {"WV_0_01": WV_0, "WV_4_01": WV_4, "CRVAL1": 23})
    )
    with pytest.raises(ReadError, match="no layout explains"):
        read_spectra(tmp_path / "a")


def test_makee_without_the_first_column_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(makee(CRVAL1=None))
    with pytest.raises(NoWavelengthError, match="no CRVAL1"):
        read_spectra(tmp_path / "a")


# --- UVES_popler ----------------------------------------------------------------

NAMES = {
    1: "Normalized flux spectrum",
    2: "Normalized error",
    3: "Norm. expected fluctuation",
    4: "Continuum by which data are normalized",
    5: "Status",
    6: "NPIX before clip",
    7: "NPIX after clip",
    8: "chisq. before clip",
    9: "chisq. after clip",
}
# The example in the notes on the files of the SQUAD data base.
AXIS = {"CRPIX1": 1, "CTYPE1": "LOGLIN", "DC-FLAG": 1, "CRVAL1": 3.51627370277848}
AXIS |= {"CD1_1": 3.62161104717198e-06, "CDELT1": 3.62161104717198e-06, "CD2_2": 1.0, "CDELT2": 1.0}


def popler(n_pixel=N, names=NAMES, card="UP_ARR{:02d}", axis=AXIS):
    """Return the rows and cards of UVES_popler: pixel 3 was clipped, pixel 5 has no information."""
    rows = np.ones((9, n_pixel))
    rows[0], rows[1], rows[3] = np.linspace(0.5, 1.5, n_pixel), 0.01, 700.0
    rows[4, 3:4], rows[1, 5:6] = -6, -1.0
    return rows, {"OBJECT": "J0120+2133", **axis, **{card.format(i): name for i, name in names.items()}}


@pytest.mark.parametrize("card", ["UP_ARR{:02d}", "ARRAY{}"])
def test_uves_popler_gives_the_normalised_flux_in_vacuum(tmp_path, card):
    (tmp_path / "a").write_bytes(image_bytes(*popler(card=card)))
    (quasar,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(quasar.flux, np.linspace(0.5, 1.5, N))
    assert np.flatnonzero(quasar.bad).tolist() == [3, 5]
    assert quasar.sigma[0] == pytest.approx(0.01)
    assert (quasar.medium, quasar.frame, quasar.id) == ("vacuum", "barycentric", "J0120+2133")


def test_uves_popler_wavelengths_are_those_of_its_example(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*popler(n_pixel=87493)))
    (quasar,) = read_spectra(tmp_path / "a")
    assert quasar.wavelength[0] == pytest.approx(3283.02131791165, abs=1e-8)  # UP_WLSRT
    assert quasar.wavelength[-1] == pytest.approx(6809.82100205642, abs=1e-7)  # UP_WLEND


def test_uves_popler_rows_are_found_by_their_names(tmp_path):
    rows, cards = popler(names={6 - i: NAMES[i] for i in range(1, 6)})
    (tmp_path / "a").write_bytes(image_bytes(rows[4::-1], cards))
    (quasar,) = read_spectra(tmp_path / "a")
    assert quasar.flux[-1] == 1.5
    assert np.flatnonzero(quasar.bad).tolist() == [3, 5]


def test_uves_popler_on_a_linear_scale(tmp_path):
    axis = {"CRPIX1": 1, "CTYPE1": "LINEAR", "DC-FLAG": 0, "CRVAL1": 5000.0, "CD1_1": 0.02, "CDELT1": 0.02}
    (tmp_path / "a").write_bytes(image_bytes(*popler(axis=axis)))
    (quasar,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(quasar.wavelength, 5000 + 0.02 * np.arange(N))


def test_the_tables_behind_a_spectrum_of_uves_popler_are_none(tmp_path):
    rows, cards = popler()
    first = fits.PrimaryHDU(rows)
    first.header.update(cards)
    info = table("CombinedSpecInfo", Wavelength=np.linspace(3300, 6800, 20), SNRmax=np.full(20, 9.0))
    fits.HDUList([first, info]).writeto(tmp_path / "a")
    (quasar,) = read_spectra(tmp_path / "a")
    assert quasar.n_pixel == N


def test_uves_popler_without_pixels_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*popler(n_pixel=0)))
    with pytest.raises(ReadError, match="an image of 9 x 0"):
        read_spectra(tmp_path / "a")


@pytest.mark.parametrize("lacking", [2, 5])
def test_uves_popler_without_errors_or_status_is_refused(tmp_path, lacking):
    names = {i: name for i, name in NAMES.items() if i != lacking}
    (tmp_path / "a").write_bytes(image_bytes(*popler(names=names)))
    with pytest.raises(ReadError, match=f"'{NAMES[lacking].lower()}' is missing"):
        read_spectra(tmp_path / "a")


def test_rows_without_names_are_not_of_uves_popler(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*popler(names={})))
    with pytest.raises(ReadError, match="no layout explains"):
        read_spectra(tmp_path / "a")


# --- CHIRON ---------------------------------------------------------------------


def chiron(**cards):
    """Return the cube and the cards of three orders of CHIRON, from 5000 Å on."""
    cube = np.empty((3, N, 2), dtype="f4")  # (order, pixel, 2)
    cube[..., 0] = 5000 + 6 * np.arange(3)[:, None] + 0.02 * np.arange(N)
    cube[..., 1] = FLUX
    return cube, {"OBJECT": "HR 2142", "DECKER": "slicer", **cards}


def named(path, cube, cards, remark):
    """Write a cube whose card NAXIS1 has a comment."""
    before, after = b"NAXIS1  =                    2".ljust(80), b"NAXIS1  =                    2 / " + remark.encode()
    content = image_bytes(cube, cards)
    assert before in content
    path.write_bytes(content.replace(before, after.ljust(80)))
    return path


@pytest.mark.parametrize("sign", ["THARFNAM", "EMMNWOB", "INSTRUME", "remark"])
def test_chiron_has_wavelength_and_flux_side_by_side(tmp_path, sign):
    values = {"THARFNAM": "achi150728.1101.thid", "EMMNWOB": "2015-07-28T05:00:00", "INSTRUME": "chiron"}
    cards = {sign: values[sign]} if sign in values else {}
    remark = "" if cards else "Axis 1 length: 0=wavelength, 1=spectrum"
    first, second, _ = read_spectra(named(tmp_path / "a", *chiron(**cards), remark))
    np.testing.assert_allclose(first.wavelength, 5000 + 0.02 * np.arange(N), rtol=1e-7)
    np.testing.assert_allclose(second.flux, FLUX, rtol=1e-6)
    assert (first.medium, first.frame, first.id) == ("air", "topocentric", "HR 2142")
    assert (second.source.row, second.resolution) == (1, None)


def test_chiron_tells_its_resolving_power_by_the_thorium_lines(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*chiron(THIDNLIN=1200, RESOLUTN=79000.0)))
    (tmp_path / "b").write_bytes(image_bytes(*chiron(THIDNLIN=1200, RESOLUTN=-1.0)))
    assert read_spectra(tmp_path / "a")[0].resolution == 79000
    assert read_spectra(tmp_path / "b")[0].resolution is None


def test_chiron_orders_are_merged_when_asked_for(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*chiron(THIDNLIN=1200)))
    (star,) = read_spectra(tmp_path / "a", merge_orders=True)
    assert star.wavelength[[0, -1]] == pytest.approx([5000, 5012 + 0.02 * (N - 1)], rel=1e-7)


def test_what_a_chiron_header_states_wins(tmp_path):
    (tmp_path / "a").write_bytes(image_bytes(*chiron(THIDNLIN=1200, AIRORVAC="vac", SPECSYS="BARYCENT")))
    first, *_ = read_spectra(tmp_path / "a")
    assert (first.medium, first.frame) == ("vacuum", "barycentric")


def test_a_chiron_order_whose_wavelengths_turn_back_costs_no_other(tmp_path):
    cube, cards = chiron(THIDNLIN=1200)
    cube[1, 200:, 0] = cube[1, 199::-1, 0]
    (tmp_path / "a").write_bytes(image_bytes(cube, cards))
    first, second, third = read_each(tmp_path / "a", ReadOptions())
    assert isinstance(second, Unread)
    assert "do not ascend" in str(second.error)
    assert (first.n_pixel, third.n_pixel) == (N, N)


def test_a_chiron_order_without_wavelengths_is_none(tmp_path):
    cube, cards = chiron(THIDNLIN=1200)
    cube[1] = 0
    (tmp_path / "a").write_bytes(image_bytes(cube, cards))
    assert [spectrum.source.row for spectrum in read_spectra(tmp_path / "a")] == [0, 2]


@pytest.mark.parametrize("n_column", [2, 6])
def test_cubes_of_others_are_not_taken_for_chiron(tmp_path, n_column):
    cube, cards = chiron(**({} if n_column == 2 else {"EMMNWOB": "2015-07-28T05:00:00"}))
    (tmp_path / "a").write_bytes(image_bytes(np.repeat(cube, n_column // 2, axis=2), cards))
    with pytest.raises(ReadError, match=f"an image of 3 x {N} x {n_column} that no layout explains"):
        read_spectra(tmp_path / "a")
