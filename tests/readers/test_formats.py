"""Files of surveys and instruments, written from the descriptions of their formats."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.readers import ReadOptions, read_each, read_spectra
from anna_onnx.spectrum import Spectrum
from tests.readers.files import image, image_bytes, table, write_hdus

N = 50
WAVE = 5000 + 0.5 * np.arange(N)
LOGLAM = 3.6 + 1e-4 * np.arange(N)
FLUX = np.linspace(0.5, 1.5, N)
IVAR = np.where(np.arange(N) == 3, 0.0, 100.0)
MASK = np.where(np.arange(N) == 5, 1 << 23, 0)


def bad_pixels(spectrum):
    return np.flatnonzero(spectrum.bad).tolist()


@pytest.mark.parametrize("names", [("flux", "loglam", "ivar", "and_mask"), ("FLUX", "LOGLAM", "IVAR", "AND_MASK")])
def test_sdss_spec_gives_the_coadd_only(tmp_path, names):
    columns = dict(zip(names, (FLUX, LOGLAM, IVAR, MASK | 1), strict=True))
    info = table("SPECOBJ", CLASS=np.array(["STAR"]), Z=np.array([1e-4]))
    exposure = table("B1-1", flux=FLUX, loglam=LOGLAM, ivar=IVAR)
    path = write_hdus(tmp_path / "a", table("COADD", **columns), info, exposure, PLATEID=1, MJD=2, FIBERID=3)
    (star,) = read_spectra(path)
    np.testing.assert_allclose(star.wavelength, 10**LOGLAM)
    assert (star.medium, star.frame, star.id) == ("vacuum", "barycentric", "1-2-3")
    assert star.radial_velocity == pytest.approx(29.98, abs=0.01)
    assert bad_pixels(star) == [3, 5]  # the bit that flags the whole fibre does not count
    assert star.sigma[0] == pytest.approx(0.1)


def test_a_single_exposure_is_read_when_it_is_asked_for(tmp_path):
    coadd = table("COADD", flux=FLUX, loglam=LOGLAM, ivar=IVAR, and_mask=MASK)
    exposure = table("B1-1", flux=2 * FLUX, loglam=LOGLAM, ivar=IVAR)
    path = write_hdus(tmp_path / "a", coadd, exposure, VACUUM=True)
    for hdu in (2, "b1-1"):
        (spectrum,) = read_spectra(path, hdu=hdu)
        np.testing.assert_allclose(spectrum.flux, 2 * FLUX)
        assert spectrum.medium == "vacuum"
    with pytest.raises(ReadError, match="no HDU 7"):
        read_spectra(path, hdu=7)


def test_sdss_spplate_gives_every_fibre(tmp_path):
    cards = {"CRVAL1": 3.6, "CD1_1": 1e-4, "CRPIX1": 1, "DC-FLAG": 1, "TELESCOP": "SDSS 2.5-M", "PLATEID": 7, "MJD": 8}
    flux = fits.PrimaryHDU(np.stack([FLUX, 2 * FLUX]))
    flux.header.update(cards)
    ivar, mask = image(np.stack([IVAR, IVAR])), image(np.stack([MASK, MASK]).astype("i4"))
    fits.HDUList([flux, ivar, mask]).writeto(tmp_path / "a")
    spectra = read_spectra(tmp_path / "a")
    assert [spectrum.id for spectrum in spectra] == ["7-8-1", "7-8-2"]
    assert bad_pixels(spectra[1]) == [3, 5]


def test_sdss_spspec_has_error_and_mask_rows(tmp_path):
    cards = {"COEFF0": 3.6, "COEFF1": 1e-4, "TELESCOP": "SDSS 2.5-M", "PLATEID": 7, "MJD": 8, "FIBERID": 9}
    rows = np.stack([FLUX, 0 * FLUX, np.sqrt(1 / np.maximum(IVAR, 1e-9)) * (IVAR > 0), MASK, 0 * FLUX]).astype("f4")
    (tmp_path / "a").write_bytes(image_bytes(rows, cards))
    (star,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(star.wavelength, 10**LOGLAM)
    assert bad_pixels(star) == [3, 5]


@pytest.mark.parametrize("has_wavelength", [True, False])
def test_mwm_files_give_every_row_of_every_telescope(tmp_path, has_wavelength):
    def hdu(name, n_row):
        columns = {"flux": np.tile(FLUX, (n_row, 1)), "ivar": np.tile(IVAR, (n_row, 1))}
        if has_wavelength:
            columns["wavelength"] = np.tile(10**LOGLAM, (n_row, 1))
        flags = np.tile(MASK if name.startswith("BOSS") else MASK >> 23 << 14, (n_row, 1))
        header = {"CRVAL": 3.6, "CDELT": 1e-4, "NPIXELS": N}
        return table(name, header, sdss_id=np.arange(n_row), pixel_flags=flags, **columns)

    path = write_hdus(tmp_path / "a", hdu("BOSS/APO", 1), hdu("BOSS/LCO", 0), hdu("APOGEE/APO", 2), SDSS_ID=5)
    spectra = read_spectra(path)
    assert [spectrum.source.hdu for spectrum in spectra] == [1, 3, 3]
    assert {(spectrum.medium, spectrum.frame) for spectrum in spectra} == {("vacuum", "rest")}
    np.testing.assert_allclose(spectra[2].wavelength, 10**LOGLAM)
    assert bad_pixels(spectra[0]) == bad_pixels(spectra[1]) == [3, 5]


def apogee(data, **header):
    return image(data, CRVAL1=4.179, CDELT1=6e-6, CRPIX1=1, CTYPE1="LOG-LINEAR", **header)


@pytest.mark.parametrize("kind", ["i4", "u2"])
def test_apstar_gives_the_combined_spectrum(tmp_path, kind):
    flux, error = np.stack([FLUX, 2 * FLUX, 3 * FLUX]), np.tile(np.where(np.arange(N) == 3, 1e10, 0.01), (3, 1))
    mask = np.tile(np.where(np.arange(N) == 5, 1, 0) | 1 << 9, (3, 1)).astype(kind)
    path = write_hdus(tmp_path / "a", apogee(flux), apogee(error), apogee(mask), OBJID="2M1")
    (star,) = read_spectra(path)
    np.testing.assert_allclose(star.wavelength, 10 ** (4.179 + 6e-6 * np.arange(N)))
    np.testing.assert_array_equal(star.flux, FLUX)
    assert (star.medium, star.frame, star.id) == ("vacuum", "rest", "2M1")
    assert bad_pixels(star) == [3, 5]


def test_aspcapstar_gives_the_normalised_spectrum_not_the_model(tmp_path):
    path = write_hdus(tmp_path / "a", apogee(FLUX), apogee(0.01 + 0 * FLUX), apogee(9 * FLUX))
    (star,) = read_spectra(path)
    np.testing.assert_array_equal(star.flux, FLUX)
    assert not star.bad.any()


def test_apvisit_chips_are_kept_apart_or_merged(tmp_path):
    wave = np.stack([16900 - WAVE * 0.02, 16400 - WAVE * 0.02, 15800 - WAVE * 0.02])
    hdus = [np.tile(FLUX, (3, 1)), np.full((3, N), 0.1), np.zeros((3, N), dtype="i2"), wave]
    path = write_hdus(tmp_path / "a", *(image(data, CTYPE2="Chip") for data in hdus), VRAD=-20.0)
    assert [spectrum.radial_velocity for spectrum in read_spectra(path)] == [-20.0] * 3
    (merged,) = read_spectra(path, merge_orders=True)
    assert merged.n_pixel == 3 * N + 4  # two bad pixels in each gap
    assert merged.bad.sum() == 4


def test_lamost_image_takes_the_wavelengths_of_the_header(tmp_path):
    cards = {"COEFF0": 3.6, "COEFF1": 1e-4, "CRVAL1": 3.6, "CD1_1": 1e-4, "CRPIX1": 1, "DC-FLAG": 1}
    more = {"TELESCOP": "LAMOST", "CLASS": "STAR", "Z": -1e-4, "OBJNAME": "name"}
    rows = np.stack([FLUX, IVAR, 0 * FLUX, MASK, MASK]).astype("f4")
    (tmp_path / "a").write_bytes(image_bytes(rows, cards | more))
    (star,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(star.wavelength, 10**LOGLAM)
    assert (star.medium, star.frame, star.id, star.resolution) == ("vacuum", "barycentric", "name", 1800)
    assert star.radial_velocity == pytest.approx(-29.98, abs=0.01)
    assert bad_pixels(star) == [3, 5]


def test_lamost_tables_of_one_row_are_read(tmp_path):
    cells = {"FLUX": FLUX[None], "IVAR": IVAR[None], "WAVELENGTH": WAVE[None].astype("f4"), "ANDMASK": MASK[None] >> 20}
    path = write_hdus(tmp_path / "a", table("COADD", **cells, ORMASK=MASK[None] + 1), TELESCOP="LAMOST")
    (star,) = read_spectra(path)
    assert bad_pixels(star) == [3, 5]
    assert star.medium == "vacuum"


def test_lamost_medium_resolution_gives_the_coadds(tmp_path):
    blue = table("COADD_B", FLUX=FLUX, IVAR=IVAR, LOGLAM=LOGLAM, ANDMASK=MASK >> 20)
    red = table("COADD_R", FLUX=FLUX, IVAR=IVAR, LOGLAM=LOGLAM + 0.1, ANDMASK=MASK >> 20)
    path = write_hdus(
        tmp_path / "a", blue, red, table("B-1", FLUX=FLUX, IVAR=IVAR, LOGLAM=LOGLAM), ORIGIN="NAOC-LAMOST"
    )
    assert [spectrum.source.hdu for spectrum in read_spectra(path)] == [1, 2]
    assert len(read_spectra(path, merge_orders=True)) == 1


def test_galah_dr3_has_relative_errors(tmp_path):
    flux = fits.PrimaryHDU(100 * FLUX)
    flux.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 0, "OBJECT": "150101"})
    names = ("input_sigma", "no_sky_spectrum", "no_sky_sigma", "normalised_spectrum")
    fits.HDUList([flux, *(image(0.02 + 0 * FLUX, name, CRVAL1=1.0) for name in names)]).writeto(tmp_path / "a")
    (star,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(star.wavelength, WAVE)  # the CRPIX1 of 0 means the first pixel
    np.testing.assert_allclose(star.sigma, 2 * FLUX)
    assert (star.medium, star.frame, star.id) == ("air", "barycentric", "150101")
    assert any("HDU 4" in note for note in star.notes)


def test_galah_dr4_has_the_relative_errors_two_hdus_later(tmp_path):
    flux = fits.PrimaryHDU(100 * FLUX)
    flux.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1, "SLITMASK": "OUT", "CCD": 1, "OBJECT": "x"})
    more = [image(np.full(N, value)) for value in (9.0, 0.02, 9.0, 9.0, 9.0, 9.0, 9.0)]
    fits.HDUList([flux, *more]).writeto(tmp_path / "a")
    np.testing.assert_allclose(read_spectra(tmp_path / "a")[0].sigma, 2 * FLUX)


def test_the_fit_of_galah_dr4_is_in_the_rest_frame(tmp_path):
    used = np.arange(N) != 4
    hdu = table(wave=WAVE, sob=FLUX, uob=0.1 + 0 * FLUX, smod=FLUX, mob=used)
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert (star.medium, star.frame, bad_pixels(star)) == ("air", "rest", [4])


@pytest.mark.parametrize("prefix", ["ESO", "TNG"])
def test_harps_orders_have_polynomials(tmp_path, prefix):
    hdu = fits.PrimaryHDU(np.stack([FLUX, FLUX]))
    coefficients = [4000.0, 0.01, 1e-6, 4100.0, 0.01, 0.0]
    hdu.header[f"HIERARCH {prefix} DRS CAL TH DEG LL"] = 2
    for i, value in enumerate(coefficients):
        hdu.header[f"HIERARCH {prefix} DRS CAL TH COEFF LL{i}"] = value
    hdu.writeto(tmp_path / "a")
    first, second = read_spectra(tmp_path / "a")
    x = np.arange(N)
    np.testing.assert_allclose(first.wavelength, 4000 + 0.01 * x + 1e-6 * x**2)
    np.testing.assert_allclose(second.wavelength, 4100 + 0.01 * x)
    assert (first.medium, first.frame) == ("air", "topocentric")
    with fits.open(tmp_path / "a", mode="update") as opened:
        fluxes = opened[0].data
        opened[0].data = np.stack([first.wavelength, second.wavelength])  # wave_A.fits has the same header
    with pytest.raises(ReadError, match="holds the wavelengths"):
        read_spectra(tmp_path / "a")
    with fits.open(tmp_path / "a", mode="update") as opened:
        opened[0].data = fluxes
        del opened[0].header[f"{prefix} DRS CAL TH COEFF LL5"]
    with pytest.raises(NoWavelengthError, match="coefficients"):
        read_spectra(tmp_path / "a")


def test_cross_correlations_of_the_harps_drs_are_refused_by_their_axis(tmp_path):
    hdu = fits.PrimaryHDU(np.ones((3, N), dtype="f4"))
    hdu.header.update({"CTYPE1": "km/s", "CRVAL1": 12.4, "CDELT1": 0.1, "HIERARCH ESO DRS CAL TH DEG LL": 1})
    hdu.writeto(tmp_path / "ccf.fits")
    with pytest.raises(ReadError, match="the axis holds velocities"):
        read_spectra(tmp_path / "ccf.fits")


def eso_table(**header):
    """Return a table of ESO's Phase 3 standard: one row of arrays, with utypes."""
    err = np.where(np.arange(N) == 3, np.nan, 0.1)
    cells = {"LAM": WAVE[None] / 10, "RED": 9 * FLUX[None], "CAL": FLUX[None], "DEV": err[None], "Q": MASK[None] >> 23}
    hdu = table("SPECTRUM", header, **cells)
    axes = ("SpectralAxis.Value", "FluxAxis.Value", "FluxAxis.Value")
    axes += ("FluxAxis.Accuracy.StatError", "FluxAxis.Accuracy.QualityStatus")
    for i, axis in enumerate(axes, 1):
        hdu.header[f"TUTYP{i}"] = f"{'eso' if i == 2 else 'spec'}:Data.{axis}"
    hdu.header["TUNIT1"] = "nm"
    return hdu


def test_eso_phase_3_columns_are_found_by_utype(tmp_path):
    path = write_hdus(
        tmp_path / "a", eso_table(TUCD1="em.wl;obs.atmos"), OBJECT="HD 1", SPECSYS="BARYCENT", SPEC_RES=80000.0
    )
    (star,) = read_spectra(path)
    np.testing.assert_allclose(star.wavelength, WAVE)
    np.testing.assert_allclose(star.flux, FLUX)
    assert (star.medium, star.frame, star.id, star.resolution) == ("air", "barycentric", "HD 1", 80000)
    assert bad_pixels(star) == [3, 5]


def test_eso_phase_3_without_the_atmosphere_in_the_ucd_is_vacuum(tmp_path):
    (star,) = read_spectra(write_hdus(tmp_path / "a", eso_table(TUCD1="em.wl")))
    assert star.medium == "vacuum"


@pytest.mark.parametrize(("program", "medium"), [("xsh/2.6.0", "air"), ("xshooter_reduce", "vacuum"), ("", "air")])
def test_the_convention_of_an_eso_pipeline_is_not_that_of_another_program(tmp_path, program, medium):
    cards = {"INSTRUME": "XSHOOTER"} | ({"PROCSOFT": program} if program else {})
    (star,) = read_spectra(write_hdus(tmp_path / "a", eso_table(TUCD1="em.wl"), **cards))
    assert star.medium == medium


def test_the_unit_may_stand_in_a_card_for_all_images(tmp_path):
    images = [image(FLUX, "FLUX"), image(WAVE / 10, "WAVELENGTH"), image(0.1 * FLUX, "ERROR")]
    units = '{"wave": "nm", "flux": "erg / (s cm2)"}'
    (star,) = read_spectra(write_hdus(tmp_path / "a", *images, UNITS=units))
    np.testing.assert_allclose(star.wavelength, WAVE)


def test_errors_that_are_all_missing_are_left_out(tmp_path):
    hdu = table(WAVE=WAVE[None], FLUX=FLUX[None], ERR=np.full((1, N), np.nan))
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert star.sigma is None
    assert not star.bad.any()


def test_espresso_s1d_is_in_vacuum_beside_its_air_column(tmp_path):
    hdu = table(wavelength=WAVE, wavelength_air=WAVE - 1.4, flux=FLUX, error=0.1 + 0 * FLUX, quality=MASK >> 23)
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu, HIERARCH__ESO__QC__BERV=1.0))
    assert (star.wavelength[0], star.medium, star.frame) == (5000.0, "vacuum", "barycentric")
    assert bad_pixels(star) == [5]


def test_espresso_s2d_gives_orders_in_the_barycentric_vacuum_frame(tmp_path):
    wave = np.stack([WAVE, WAVE + 20])
    hdus = [
        image(np.stack([FLUX, FLUX]), "SCIDATA"),
        image(np.full((2, N), 0.1), "ERRDATA"),
        image(np.stack([MASK, 0 * MASK]).astype("i4"), "QUALDATA"),
        image(wave, "WAVEDATA_VAC_BARY"),
        image(wave - 1.4, "WAVEDATA_AIR_BARY"),
    ]
    path = write_hdus(tmp_path / "a", *hdus)
    spectra = read_spectra(path)
    assert [(s.wavelength[0], s.medium, s.frame, s.source.row) for s in spectra] == [
        (5000.0, "vacuum", "barycentric", 0),
        (5020.0, "vacuum", "barycentric", 1),
    ]
    assert bad_pixels(spectra[0]) == [5]
    (merged,) = read_spectra(path, merge_orders=True)
    assert merged.n_pixel == N + 40


def test_goldilocks_gives_28_orders_with_errors_from_variances(tmp_path):
    wave = 8000 + 100 * np.arange(28)[:, None] + 0.05 * np.arange(N)
    names = {"Sci Flux": np.tile(FLUX, (28, 1)), "Sky Flux": wave, "Sci Variance": np.full((28, N), 0.04)}
    hdus = [image(data, name) for name, data in (names | {"Sci Wavl": wave, "Sky Wavl": 0 * wave}).items()]
    spectra = read_spectra(write_hdus(tmp_path / "a", *hdus, INSTRUME="HPF"))
    assert len(spectra) == 28
    assert (spectra[0].medium, spectra[0].frame, spectra[0].sigma[0]) == ("vacuum", "topocentric", pytest.approx(0.2))


def test_xshooter_errors_and_flags_are_in_extensions(tmp_path):
    flux = fits.PrimaryHDU(FLUX)
    flux.header.update({"CRVAL1": 550.0, "CDELT1": 0.02, "CRPIX1": 1.0, "CTYPE1": "WAVE", "INSTRUME": "XSHOOTER"})
    flux.header["CUNIT1"], flux.header["HIERARCH ESO PRO REC1 ID"] = "nm", "xsh_scired_slit_stare"
    more = [image(0.1 + 0 * FLUX, "ERRS"), image((MASK >> 23).astype("i4"), "QUAL")]
    fits.HDUList([flux, *more]).writeto(tmp_path / "a")
    (star,) = read_spectra(tmp_path / "a")
    assert (star.wavelength[1], star.medium, star.frame) == (pytest.approx(5500.2), "air", "topocentric")
    assert star.sigma[0] == pytest.approx(0.1)
    assert bad_pixels(star) == [5]


def test_images_of_one_name_are_told_apart_by_their_version(tmp_path):
    def chip(i):
        axis = {"CRVAL1": 5000.0 + 40 * i, "CDELT1": 0.5, "CRPIX1": 1.0, "EXTVER": i}
        companions = [image(np.full(N, i**2 / 100), "VAR", EXTVER=i), image((MASK >> 23) * i, "DQ", EXTVER=i)]
        return [image(FLUX, "SCI", **axis), *companions]

    spectra = read_spectra(write_hdus(tmp_path / "a", *chip(1), *chip(2), *chip(3)))
    assert [star.wavelength[0] for star in spectra] == [5040, 5080, 5120]
    assert [star.sigma[0] for star in spectra] == [pytest.approx(0.1 * i) for i in (1, 2, 3)]
    assert len(read_spectra(write_hdus(tmp_path / "b", chip(1)[0], chip(2)[0]))) == 2
    assert len(read_spectra(tmp_path / "a", merge_orders=True)) == 1


@pytest.mark.parametrize(
    ("name", "values", "sigma"),
    [
        ("STD", 0.1, 0.1),
        ("FLUX_ERR", 0.1, 0.1),
        ("FLUX_IVAR", 100, 0.1),
        ("VAR_FLUX", 0.01, 0.1),
        ("SCIVAR", 0.01, 0.1),
        ("SKY_ERR", 0.1, None),
    ],
)
def test_an_image_may_speak_of_errors_in_its_name(tmp_path, name, values, sigma):
    flux = fits.PrimaryHDU(FLUX)
    flux.header.update({"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0})
    fits.HDUList([flux, image(np.full(N, values, dtype="f8"), name)]).writeto(tmp_path / "a")
    (star,) = read_spectra(tmp_path / "a")
    assert (None if star.sigma is None else star.sigma[0]) == (sigma and pytest.approx(sigma))


def test_the_flux_is_found_behind_the_image_that_it_was_extracted_from(tmp_path):
    axis = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0}
    hdus = [image(np.ones((9, N)), "LSS_NONSS", **axis), image(FLUX[None] + 1, "SPEC_NONSS", **axis)]
    (star,) = read_spectra(write_hdus(tmp_path / "a", *hdus, image(FLUX[None], "FLUX", **axis)))
    assert (star.source.hdu, star.flux[0], star.wavelength[1]) == (3, FLUX[0], 5000.5)


def test_a_mask_alone_counts_beside_a_flux(tmp_path):
    for shape in ((N,), (1, N)):
        flux = image(FLUX.reshape(shape), "FLUX", CRVAL1=5000.0, CDELT1=0.5, CRPIX1=1.0)
        mask = image((MASK >> 23).astype("u1").reshape(shape), "MASK")
        (star,) = read_spectra(write_hdus(tmp_path / f"{len(shape)}", flux, mask))
        assert (star.sigma, bad_pixels(star)) == (None, [5])


def test_crires_plus_has_three_columns_an_order(tmp_path):
    def detector(i):
        wave = 2100 + 10 * i + 0.01 * np.arange(N)
        one = {"01_02_WL": wave, "01_02_SPEC": FLUX, "01_02_ERR": 0.1 + 0 * FLUX}
        two = {"01_03_WL": wave - 50, "01_03_SPEC": FLUX, "01_03_ERR": 0.1 + 0 * FLUX}
        return table(f"CHIP{i}.INT1", **one, **two)

    spectra = read_spectra(write_hdus(tmp_path / "a", detector(1), detector(2), detector(3)))
    assert len(spectra) == 6
    assert (spectra[0].wavelength[0], spectra[0].medium) == (pytest.approx(21100), "vacuum")


def test_the_unit_that_the_user_states_is_noted_whatever_the_format(tmp_path):
    harps = fits.PrimaryHDU(np.stack([FLUX, FLUX]))
    cards = {"DEG LL": 1} | {f"COEFF LL{i}": value for i, value in enumerate((400.0, 0.1, 410.0, 0.1))}
    for key, value in cards.items():
        harps.header[f"HIERARCH ESO DRS CAL TH {key}"] = value
    harps.writeto(tmp_path / "harps")
    write_hdus(tmp_path / "crires", table("CHIP1", **{"01_02_WL": WAVE / 10, "01_02_SPEC": FLUX}))
    visit = (np.stack([FLUX]), np.stack([FLUX]), np.zeros((1, N), dtype="i2"), np.stack([WAVE / 10]))
    write_hdus(tmp_path / "apogee", *(image(data, CTYPE2="Chip") for data in visit))
    write_hdus(
        tmp_path / "desi", image(FLUX[None], "B_FLUX"), image(IVAR[None], "B_IVAR"), image(WAVE / 10, "B_WAVELENGTH")
    )
    for name in ("harps", "crires", "apogee", "desi"):
        for star in read_spectra(tmp_path / name, wave_unit="nm"):
            assert star.wavelength[0] in (4000, 4100, 5000)
            assert star.notes.count("wavelength unit nm as requested") == 1


@pytest.mark.parametrize("shape", [(3, N), (2, 3, N), (2, 4, N)])
def test_spextool_has_one_plane_an_order(tmp_path, shape):
    rows = np.stack([WAVE / 1e4, FLUX, 0.1 + 0 * FLUX, MASK >> 23][: shape[-2]]).astype("f8")
    data = np.broadcast_to(rows, shape) if len(shape) == 3 else rows
    (tmp_path / "a").write_bytes(image_bytes(np.ascontiguousarray(data), {"XUNITS": "um", "YUNITS": "Wm-2um-1"}))
    spectra = read_spectra(tmp_path / "a")
    assert len(spectra) == (shape[0] if len(shape) == 3 else 1)
    np.testing.assert_allclose(spectra[0].wavelength, WAVE)
    assert spectra[0].medium == "vacuum"
    assert bad_pixels(spectra[0]) == ([5] if shape[-2] == 4 else [])


def test_spex_prism_spectra_may_lack_the_unit(tmp_path):
    rows = np.stack([np.linspace(0.8, 2.4, N), FLUX, 0.1 + 0 * FLUX])
    (tmp_path / "a").write_bytes(image_bytes(rows, {"INSTRUME": "SpeX", "GRAT": "LowRes15"}))
    (star,) = read_spectra(tmp_path / "a")
    np.testing.assert_allclose(star.wavelength, np.linspace(8000, 24000, N))
    assert (star.sigma[0], star.medium) == (pytest.approx(0.1), "vacuum")


@pytest.mark.parametrize("n_row", [2, 3])
def test_rows_are_wavelength_flux_and_error_when_the_first_can_be_nothing_else(tmp_path, n_row):
    rows = np.stack([WAVE[::-1], FLUX, 0.1 + 0 * FLUX])[:n_row]
    (tmp_path / "a").write_bytes(image_bytes(rows, {"CUNIT1": "Angstrom", "OBJECT": "HD 3"}))
    (star,) = read_spectra(tmp_path / "a")
    np.testing.assert_array_equal(star.wavelength, WAVE)
    assert (star.flux[0], star.id, star.medium) == (FLUX[-1], "HD 3", "unknown")
    assert (star.sigma is None) == (n_row == 2)
    for other in (rows[:, np.arange(N) ^ 1], rows / 10000):
        (tmp_path / "b").write_bytes(image_bytes(other, {}))
        with pytest.raises(NoWavelengthError, match=f"{n_row} x {N}"):
            read_spectra(tmp_path / "b")


def test_igrins_spectra_are_divided_by_the_standard_star(tmp_path):
    wave = np.stack([np.linspace(1.5, 1.51, N), np.linspace(1.49, 1.5, N)])
    names = {"SPEC_DIVIDE_A0V": [FLUX, FLUX], "SPEC_DIVIDE_A0V_VARIANCE": np.full((2, N), 0.04), "WAVELENGTH": wave}
    hdus = [image(data, name, BUNIT="ADU") for name, data in (names | {"TGT_SPEC": [9 * FLUX, FLUX]}).items()]
    first, second = read_spectra(write_hdus(tmp_path / "a", *hdus, INSTRUME="IGRINS"))
    np.testing.assert_allclose(second.wavelength, np.linspace(14900, 15000, N))
    np.testing.assert_array_equal(first.flux, FLUX)
    assert (first.sigma[0], first.medium) == (pytest.approx(0.2), "vacuum")


def test_pypeit_spectra_are_extracted_optimally_in_vacuum(tmp_path):
    counts = {"BOX_WAVE": WAVE + 1, "BOX_COUNTS": FLUX, "BOX_COUNTS_SIG": FLUX, "BOX_MASK": MASK == 0}
    counts |= {"OPT_WAVE": WAVE, "OPT_COUNTS": 2 * FLUX, "OPT_COUNTS_IVAR": IVAR, "OPT_COUNTS_SIG": 0.1 + 0 * FLUX}
    fluxed = {"OPT_FLAM": 3 * FLUX, "OPT_FLAM_IVAR": IVAR / 4, "OPT_MASK": MASK == 0}
    boxcar = {name: values for name, values in counts.items() if name.startswith("BOX")}
    for columns, wave, flux, sigma in (
        (counts | fluxed, WAVE, 3 * FLUX, 0.2),
        (counts, WAVE, 2 * FLUX, 0.1),
        (boxcar, WAVE + 1, FLUX, FLUX[0]),
    ):
        hdus = [table(f"SPAT{i}", {"DMODCLS": "SpecObj"}, **columns) for i in (1, 2)]
        path = write_hdus(tmp_path / f"{len(columns)}", *hdus, PYP_SPEC="vlt_xshooter_vis", INSTRUME="XSHOOTER")
        star, _ = read_spectra(path)
        np.testing.assert_allclose(star.wavelength, wave)
        np.testing.assert_allclose(star.flux, flux)
        assert (star.sigma[0], star.medium) == (pytest.approx(sigma), "vacuum")
        assert 5 in bad_pixels(star) or columns is counts


@pytest.mark.parametrize(("flux", "error"), [("FluxAB", "FluxErrAB"), ("SpecificIntensity", None), ("opt", "opt_sig")])
def test_columns_of_other_pipelines_are_understood(tmp_path, flux, error):
    columns = {"Wave": WAVE, flux.replace("opt", "flux_opt"): FLUX}
    columns |= {error.replace("opt", "flux_opt"): 0.1 + 0 * FLUX} if error else {}
    (star,) = read_spectra(write_hdus(tmp_path / "a", table("S", **columns)))
    np.testing.assert_array_equal(star.flux, FLUX)
    assert error is None or star.sigma[0] == pytest.approx(0.1)


def test_calspec_marks_good_pixels_with_one(tmp_path):
    hdu = table(
        "SCI", {"TUNIT1": "ANGSTROMS"}, WAVELENGTH=WAVE, FLUX=FLUX, STATERROR=0.1 * FLUX, DATAQUAL=1 - (MASK > 0)
    )
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu, DBTABLE="CRSPECTRUM", TARGETID="VEGA"))
    assert (star.medium, star.id, bad_pixels(star)) == ("vacuum", "VEGA", [5])


@pytest.mark.parametrize("null", [None, -32768])
def test_hst_flags_count_when_they_are_serious(tmp_path, null):
    flags = np.zeros((2, N), dtype="i2")
    flags[:, 5], flags[:, 7] = 16, 1024
    cells = {"WAVELENGTH": np.stack([WAVE + 20, WAVE]), "FLUX": np.stack([FLUX, FLUX]), "ERROR": np.full((2, N), 0.1)}
    hdu = table("SCI", {"SDQFLAGS": 31743 & ~1024, "HELCORR": "COMPLETE"}, SPORDER=np.arange(2), **cells, DQ=flags)
    hdu.header.update({} if null is None else {"TNULL5": null})
    path = write_hdus(tmp_path / "a", hdu, TELESCOP="HST", TARGNAME="HD 2")
    spectra = read_spectra(path)
    assert [bad_pixels(spectrum) for spectrum in spectra] == [[5], [5]]
    assert (spectra[0].medium, spectra[0].id) == ("vacuum", "HD 2")
    assert len(read_spectra(path, merge_orders=True)) == 1


def test_gaia_rvs_is_recognised_by_its_grid(tmp_path):
    hdu = table(wavelength=846 + 0.01 * np.arange(2401), flux=np.ones(2401), flux_error=np.full(2401, 0.1))
    hdu.header["TUNIT1"] = "nm"
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert (star.medium, star.frame, star.resolution) == ("vacuum", "rest", 11500)


def test_what_a_file_on_the_grid_of_gaia_rvs_says_counts(tmp_path):
    hdu = table(wave_air=8460 + 0.1 * np.arange(2401), flux=np.ones(2401))
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert (star.medium, star.frame, star.resolution) == ("air", "unknown", None)


def test_gaia_rvs_in_bulk_has_no_wavelength_column(tmp_path):
    hdu = table(source_id=np.arange(3), flux=np.ones((3, 2401)), flux_error=np.full((3, 2401), 0.1))
    spectra = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert [spectrum.id for spectrum in spectra] == ["0", "1", "2"]
    assert spectra[2].wavelength[[0, -1]] == pytest.approx([8460, 8700])


def test_the_bulk_files_of_gaia_rvs_are_read_a_star_at_a_time(tmp_path):
    head = "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n# - {name: source_id, datatype: int64}\n"
    flux = [",".join(["null", *(f"{0.9 + i / 10:.1f}" for _ in range(2400))]) for i in range(3)]
    stars = "".join(f'{7 + i},1.5,"[{flux[i]}]","[{",".join(["0.01"] * 2401)}]"\n' for i in range(3))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((head + "source_id,ra,flux,flux_error\n" + stars).encode()))
    spectra = read_spectra(tmp_path / "a.csv.gz")
    assert [(star.id, star.source.row, star.medium, star.frame) for star in spectra] == [
        (str(7 + i), i, "vacuum", "rest") for i in range(3)
    ]
    assert [star.flux[1] for star in spectra] == pytest.approx([0.9, 1.0, 1.1])
    assert spectra[0].wavelength[[0, -1]] == pytest.approx([8460, 8700])
    assert bad_pixels(spectra[0]) == [0]
    (tmp_path / "short").write_text(f'{head}source_id,flux,flux_error\n7,"[1,2]","[1,1]"\n', encoding="utf-8")
    with pytest.raises(ReadError, match="2 numbers, needed 2401"):
        read_spectra(tmp_path / "short")


def bulk_with_a_short_line(path):
    cells = [f'"[{",".join(["1"] * n)}]"' for n in (2401, 2400, 2401)]
    path.write_text("source_id,flux,flux_error\n" + "".join(f"7,{cell},{cell}\n" for cell in cells), encoding="utf-8")


def s2d_with_an_order(path, wave):
    rows = np.stack([WAVE, wave, WAVE + 60])
    write_hdus(path, image(np.stack([FLUX] * 3), "SCIDATA"), image(rows, "WAVEDATA_VAC_BARY"))


def visit_with_a_constant_chip(path):
    wave = np.stack([16900 - WAVE * 0.02, np.full(N, 16000.0), 15800 - WAVE * 0.02])
    hdus = [np.tile(FLUX, (3, 1)), np.full((3, N), 0.1), np.zeros((3, N), dtype="i2"), wave]
    write_hdus(path, *(image(data, CTYPE2="Chip") for data in hdus))


def e2ds_without_a_polynomial(path):
    hdu = fits.PrimaryHDU(np.stack([FLUX] * 3))
    for i, value in enumerate((4000.0, 0.1, 0.0, 0.0, 4020.0, 0.1)):
        hdu.header[f"HIERARCH ESO DRS CAL TH COEFF LL{i}"] = value
    hdu.header["HIERARCH ESO DRS CAL TH DEG LL"] = 1
    hdu.writeto(path)


def detector_with_a_constant_order(path):
    waves = {"01_02": WAVE, "01_03": np.full(N, 5030.0), "01_04": WAVE + 60}
    columns = {
        f"{order}_{part}": value for order, wave in waves.items() for part, value in (("WL", wave), ("SPEC", FLUX))
    }
    write_hdus(path, table("CHIP1", **columns))


def planes_with_a_constant_one(path):
    data = np.stack([[wave, FLUX] for wave in (WAVE / 1e4, np.full(N, 0.5), WAVE / 1e4 + 0.01)])
    path.write_bytes(image_bytes(data, {"XUNITS": "um", "YUNITS": "Wm-2um-1"}))


@pytest.mark.parametrize(
    "write",
    [
        bulk_with_a_short_line,
        lambda path: s2d_with_an_order(path, np.full(N, 5030.0)),
        lambda path: s2d_with_an_order(path, np.where(np.arange(N) == 3, 5030.0, 0.0)),
        visit_with_a_constant_chip,
        e2ds_without_a_polynomial,
        detector_with_a_constant_order,
        planes_with_a_constant_one,
    ],
    ids=["Gaia", "S2D", "one wavelength", "apVisit", "e2ds", "CRIRES+", "Spextool"],
)
def test_a_bad_order_or_line_costs_no_other(tmp_path, write):
    write(tmp_path / "a")
    read = list(read_each(tmp_path / "a", ReadOptions()))
    assert [isinstance(order, Spectrum) for order in read] == [True, False, True]
    assert [order.source.row for order in read] == [0, 1, 2]


@pytest.mark.parametrize("named", [False, True], ids=["rows", "orders"])
@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_what_cannot_be_read_of_a_star_is_left_out_of_its_merged_spectrum(tmp_path, missing, named):
    wave = np.stack([np.full(N, missing), WAVE, WAVE + 20])
    order = {"order": np.arange(3)} if named else {}
    path = write_hdus(tmp_path / "a", table(wave=wave, flux=np.stack([FLUX] * 3), **order))
    (star,) = read_spectra(path, merge_orders=True)
    assert star.wavelength[[0, -1]] == pytest.approx([5000, 5044.5])
    left_out = [note.partition(":")[0] for note in star.notes if "left out" in note]
    assert left_out == ([] if named else ["1 of 3 pieces left out"])  # an order without wavelengths is none


def test_blue_orders_that_advance_are_merged_though_they_overlap_by_more_than_half(tmp_path):
    wave = WAVE + 10 * np.arange(4)[:, None]  # 25 Angstrom each
    for name, rows in (("ascending", wave), ("descending", wave[::-1])):
        path = write_hdus(tmp_path / name, table(wave=rows, flux=np.stack([FLUX] * 4)), OBJECT="HD 1")
        (star,) = read_spectra(path, merge_orders=True)
        assert star.wavelength[[0, -1]] == pytest.approx([5000, 5054.5])
    path = write_hdus(tmp_path / "shifted", table(wave=WAVE + 0.1 * np.arange(4)[:, None], flux=np.stack([FLUX] * 4)))
    assert len(read_spectra(path, merge_orders=True)) == 4


def echelle(tmp_path, response, *, noise=0.0, **more):
    """Write three overlapping orders of a star with two lines, and return the path and the star."""
    wave = np.stack([np.linspace(first, first + 50, 1000) for first in (5000, 5040, 5080)])
    star = [1 - 0.5 * np.exp(-0.5 * ((wave - line) / 0.3) ** 2) for line in (5020.0, 5045.0)]
    flux = star[0] * star[1] * response((wave - wave[:, :1]) / 50)
    flux += noise * np.random.default_rng(1).normal(0, 1, flux.shape)
    return write_hdus(
        tmp_path / "a", table(wave=wave, flux=flux, err=0.01 * np.abs(flux) + noise, **more), OBJECT="HD 1"
    )


@pytest.mark.parametrize(
    "response",
    [lambda x: 1e4 * np.sinc(0.9 * (x - 0.5)) ** 2, lambda x: 8e4 * (1 - 0.35 * x), lambda x: 1e-17 * (0.2 + x)],
    ids=["blaze", "pixels", "slope"],
)
def test_orders_with_blaze_or_pixel_sizes_are_divided_by_their_continua_before_they_are_merged(tmp_path, response):
    (star,) = read_spectra(echelle(tmp_path, response), merge_orders=True)
    lines = [1 - 0.5 * np.exp(-0.5 * ((star.wavelength - line) / 0.3) ** 2) for line in (5020.0, 5045.0)]
    np.testing.assert_allclose(star.flux, lines[0] * lines[1], atol=0.01)  # 5045 is in two orders
    assert any("divided by its continuum" in note for note in star.notes)
    assert star.sigma is not None
    assert np.median(star.sigma) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_orders_of_one_level_keep_their_fluxes_when_they_are_merged(tmp_path, noise):
    path = echelle(tmp_path, lambda x: 1e-17 * np.ones_like(x), noise=1e-17 * noise)
    (star,) = read_spectra(path, merge_orders=True)
    assert np.median(star.flux) == pytest.approx(1e-17, rel=0.2)
    assert not any("divided" in note for note in star.notes)


def test_columns_that_fit_in_no_row_are_refused_once(tmp_path):
    path = write_hdus(tmp_path / "stokes", table(wave=WAVE, flux=np.ones((N, 3))))
    with pytest.raises(ReadError, match=rf"wave \({N},\), flux \({N}, 3\)"):
        next(read_each(path, ReadOptions()))


@pytest.mark.parametrize(("n_row", "error_row"), [(12, 2), (24, 5)])
@pytest.mark.parametrize("named", [True, False])
def test_espadons_images_are_tables_of_orders_in_nm(tmp_path, n_row, error_row, named):
    wave = np.concatenate([WAVE, WAVE + 10.25]) / 10
    rows = np.zeros((n_row, 2 * N))
    rows[:: n_row // 4] = wave * 1.0001  # the other tables
    rows[0], rows[1], rows[error_row] = wave, np.tile(FLUX, 2), 0.01
    cards = {"INSTRUME": "ESPaDOnS", "OBJECT": "HD 1"}
    if named:
        third = ["ErrorBar"] if n_row == 12 else ["Stokes", "CheckN1", "CheckN2", "ErrorBar"]
        names = ["Wavelength", "Intensity", *third] * 4
        cards |= {f"COL{i}": name for i, name in enumerate(names, 1)}
    (tmp_path / "a").write_bytes(image_bytes(rows, cards))
    (star,) = read_spectra(tmp_path / "a")
    assert (star.id, star.medium, star.frame, star.n_pixel) == ("HD 1", "air", "barycentric", 2 * N)
    assert star.wavelength[0] == pytest.approx(WAVE[0], rel=1e-12)
    np.testing.assert_allclose(star.sigma, 0.01)
    (merged,) = read_spectra(tmp_path / "a", merge_orders=True)
    assert N < merged.n_pixel < 2 * N


def test_ispec_tables_are_in_nm(tmp_path):
    (star,) = read_spectra(write_hdus(tmp_path / "a", table(waveobs=WAVE / 10, flux=FLUX, err=0.1 * FLUX)))
    np.testing.assert_allclose(star.wavelength, WAVE)


def test_columns_can_be_chosen(tmp_path):
    path = write_hdus(tmp_path / "a", table(a=FLUX, b=WAVE, c=0.1 * FLUX))
    for columns in (("b", "a", "c"), (2, 1, 3), "b, a, c"):
        (star,) = read_spectra(path, columns=columns)
        np.testing.assert_array_equal(star.wavelength, WAVE)
        assert star.sigma[0] == pytest.approx(0.05)
    with pytest.raises(ReadError, match="no column"):
        read_spectra(path, columns=("b", "z"))


@pytest.mark.parametrize(
    ("flux", "error", "values"),
    [
        ("OPT_FLAM", "OPT_FLAM_IVAR", 1e4),
        ("spec", "spec_ivar", 1e4),
        ("spec", "spec_var", 1e-4),
        ("flux", "flux_variance", 1e-4),
        ("flux", "var", 1e-4),
        ("flux", "inverse_variance", 1e4),
        ("spec", "spec_err", 1e-2),
    ],
)
def test_a_column_of_errors_means_the_same_whether_found_or_chosen(tmp_path, flux, error, values):
    path = write_hdus(tmp_path / "a", table("S", **{"wave": WAVE, flux: FLUX, error: np.full(N, values)}))
    for columns in (None, ("wave", flux, error)):
        (star,) = read_spectra(path, columns=columns)
        np.testing.assert_allclose(star.sigma, 0.01)


def test_ragged_cells_are_read(tmp_path):
    def cells(*values):
        return np.array(list(values), dtype=object)

    columns = [
        fits.Column("WAVE", "PD()", array=cells(WAVE, WAVE[:9])),
        fits.Column("FLUX", "PD()", array=cells(FLUX, FLUX[:9])),
    ]
    spectra = read_spectra(write_hdus(tmp_path / "a", fits.BinTableHDU.from_columns(columns)))
    assert [spectrum.n_pixel for spectrum in spectra] == [N, 9]


def test_tables_of_several_detectors_are_read_and_skies_are_not(tmp_path):
    columns = {"Wavelength": WAVE, "Extracted_OPT": FLUX, "Error_OPT": 0.1 * FLUX}
    hdus = [table(name, **columns) for name in ("CHIP1", "CHIP2", "SKY")]
    assert [spectrum.source.hdu for spectrum in read_spectra(write_hdus(tmp_path / "a", *hdus))] == [1, 2]


def arm(first, **header):
    return table("ARM", header, wave=first + 0.5 * np.arange(N), flux=FLUX, err=0.1 * FLUX)


def test_arms_in_tables_without_orders_are_merged_when_they_follow_one_another(tmp_path):
    path = write_hdus(tmp_path / "arms", arm(5000), arm(5020))
    assert len(read_spectra(path)) == 2
    (star,) = read_spectra(path, merge_orders=True)
    assert star.wavelength[[0, -1]] == pytest.approx([5000, 5044.5])
    rows = table(wave=np.stack([WAVE + 20, WAVE]), flux=np.stack([FLUX, FLUX]))
    (star,) = read_spectra(write_hdus(tmp_path / "rows", rows), merge_orders=True)
    assert star.wavelength[[0, -1]] == pytest.approx([5000, 5044.5])


@pytest.mark.parametrize(
    ("hdus", "primary", "why"),
    [
        ((arm(5000), arm(5002)), {}, "they overlap by more than half, as several stars or exposures do"),
        ((arm(5000, OBJECT="HD 1"), arm(5020, OBJECT="HD 2")), {}, "their names differ"),
        ((arm(5000, SPECSYS="TOPOCENT"), arm(5020)), {}, "their media or frames differ"),
        ((arm(5000), arm(5020)), {"PYP_SPEC": "keck_deimos"}, "these may be several stars"),
        (
            (table(id=["a", "b"], wave=np.stack([WAVE, WAVE + 20]), flux=np.stack([FLUX] * 2)),),
            {},
            "their names differ",
        ),
    ],
    ids=["one range", "names", "frames", "PypeIt", "names of rows"],
)
def test_what_may_be_several_stars_is_not_merged_and_noted(tmp_path, hdus, primary, why):
    spectra = read_spectra(write_hdus(tmp_path / "a", *hdus, **primary), merge_orders=True)
    assert len(spectra) == 2
    assert [note for star in spectra for note in star.notes if "merged" in note] == 2 * [f"not merged: {why}"]


def test_arms_of_which_one_has_errors_are_both_read(tmp_path):
    blue = table("BLUE", wave=WAVE, flux=FLUX)
    other = table("LINES", wave=WAVE, flux=FLUX, depth=FLUX)
    path = write_hdus(tmp_path / "a", blue, arm(5025), other)
    assert [(star.source.hdu, star.sigma is None) for star in read_spectra(path)] == [(1, True), (2, False)]
    (star,) = read_spectra(path, columns=("wave", "flux", "err"))
    assert star.source.hdu == 2


@pytest.mark.parametrize(
    ("ids", "null", "names"),
    [
        (np.array([5937000000000000123, 5937000000000000377]), -1, ["5937000000000000123", "5937000000000000377"]),
        (np.array([5937000000000000123, -1]), -1, ["5937000000000000123", ""]),
        (np.array([39633, -1]), -1, ["39633", ""]),
        (np.array([2**63 + 1, 2**64 - 1], dtype="u8"), None, ["9223372036854775809", "18446744073709551615"]),
        (np.array([39633.0, 39634.0]), None, ["39633", "39634"]),
    ],
    ids=["no row null", "one row null", "small", "unsigned", "floats"],
)
def test_numbers_of_stars_are_exact(tmp_path, ids, null, names):
    stars = Table({"source_id": ids, "wave": np.stack([WAVE] * 2), "flux": np.stack([FLUX] * 2)})
    hdu = fits.BinTableHDU(stars)
    if null is not None:
        hdu.columns["source_id"].null = null
    assert [star.id for star in read_spectra(write_hdus(tmp_path / "a", hdu))] == names


@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_a_table_may_begin_with_pixels_without_wavelengths(tmp_path, missing):
    wave = 5000 + 0.5 * np.arange(2500)
    path = write_hdus(tmp_path / "a", table(wave=np.where(wave < 5600, missing, wave), flux=np.ones(2500)))
    (star,) = read_spectra(path)
    np.testing.assert_array_equal(star.wavelength, wave[1200:])


def test_a_column_or_an_image_that_states_the_medium_leaves_no_note_on_the_usual_one(tmp_path):
    flux = image(np.stack([FLUX] * 2), "SCIDATA", INSTRUME="HARPS")
    path = write_hdus(tmp_path / "s2d", flux, image(np.stack([WAVE, WAVE + 20]), "WAVEDATA_VAC_BARY"))
    s1d = write_hdus(tmp_path / "s1d", table(wavelength=WAVE, wavelength_air=WAVE - 1.4, flux=FLUX), INSTRUME="HARPS")
    for star in (*read_spectra(path), *read_spectra(s1d)):
        assert star.medium == "vacuum"
        assert not [note for note in star.notes if "convention" in note]


def test_a_catalogue_is_no_spectrum(tmp_path):
    hdu = table(LAMBDA_REF=np.full(9, 5400.0), FLUX=np.ones(9))
    with pytest.raises(ReadError, match="LAMBDA_REF"):
        read_spectra(write_hdus(tmp_path / "a", hdu))


@pytest.mark.parametrize(
    ("wave", "found"),
    [
        (np.full(N, np.nan), "wave has 0 different wavelengths in 50 rows"),
        (np.array([5000.0]), "wave has 1 different wavelengths in 1 rows"),
        (np.zeros(0), "wave has 0 different wavelengths in 0 rows"),
    ],
)
def test_what_a_table_lacks_is_said(tmp_path, wave, found):
    with pytest.raises(ReadError, match=f"a table of wave, flux; in HDU 1 column {found}"):
        read_spectra(write_hdus(tmp_path / "a", table(wave=wave, flux=np.ones(wave.size))))


def test_a_table_without_wavelengths_is_refused(tmp_path):
    path = write_hdus(tmp_path / "a", table(VELOCITY=WAVE, FLUX=FLUX))
    with pytest.raises(ReadError):
        read_spectra(path)
    with pytest.raises(NoWavelengthError):
        read_spectra(path, hdu=1)


def test_a_velocity_column_is_refused_by_its_unit(tmp_path):
    with pytest.raises(ReadError, match="velocit"):
        read_spectra(write_hdus(tmp_path / "a", table("S", {"TUNIT1": "km/s"}, wave=WAVE, flux=FLUX)))


@pytest.mark.parametrize("flags", [np.array([b"good"] * N), np.zeros((N, 8), dtype=bool)])
def test_a_mask_of_words_or_bits_is_left_out(tmp_path, flags):
    kind = "8X" if flags.ndim == 2 else "4A"
    columns = [fits.Column("wave", "D", unit="Angstrom, vacuum", array=WAVE), fits.Column("flux", "D", array=FLUX)]
    hdu = fits.BinTableHDU.from_columns([*columns, fits.Column("mask", kind, array=flags)])
    (star,) = read_spectra(write_hdus(tmp_path / "a", hdu))
    assert (star.medium, star.bad.any()) == ("vacuum", False)
    assert any("mask" in note for note in star.notes)


@pytest.mark.parametrize(("name", "log"), [("loglam", np.log10), ("log_lambda", np.log), ("ln_wave", np.log)])
def test_logarithms_of_wavelengths_are_natural_when_their_size_says_so(tmp_path, name, log):
    (star,) = read_spectra(write_hdus(tmp_path / "a", table("S", **{name: log(WAVE), "flux": FLUX})))
    np.testing.assert_allclose(star.wavelength, WAVE)


def test_wavenumbers_are_no_wavelengths(tmp_path):
    with pytest.raises(ReadError, match="WAVENUMBER"):
        read_spectra(write_hdus(tmp_path / "a", table("S", WAVENUMBER=2 * WAVE, flux=FLUX)))
