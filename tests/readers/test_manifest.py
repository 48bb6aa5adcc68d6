"""The real files, against the right answers of their manifest."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anna_onnx.readers import read_spectra
from anna_onnx.readers.judged_medium import judge

FOLDER = Path(os.environ.get("ANNA_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "fits"
MANIFEST = FOLDER / "MANIFEST.json"
ENTRIES = json.loads(MANIFEST.read_text(encoding="utf-8"))["files"] if MANIFEST.is_file() else []
ANGSTROM = {"Angstrom": 1.0, "nm": 10.0, "um": 1e4}

each_file = pytest.mark.parametrize("entry", ENTRIES, ids=[entry["file"] for entry in ENTRIES])


@pytest.fixture(scope="module")
def read(shared):
    """Read a file of the manifest once for all tests."""
    known = {}

    def reader(entry):
        if entry["file"] not in known:
            known[entry["file"]] = read_spectra(shared / "fits" / entry["file"])
        return known[entry["file"]]

    return reader


def test_the_manifest_has_32_files(shared):
    assert len(ENTRIES) == 32


@each_file
def test_the_number_of_spectra_is_right(read, entry):
    assert len(read(entry)) == entry["n_spectra"]


@each_file
def test_wavelengths_are_right_to_the_digits_of_the_manifest(read, entry):
    one = [[entry["wave_first"], entry["wave_last"], entry["n_pixels"]]]
    scale = ANGSTROM[entry["wave_unit"]]
    for spectrum, (first, last, n) in zip(read(entry), entry.get("per_spectrum_first_last_n", one), strict=True):
        assert spectrum.n_pixel == n
        # The manifest rounds to 5 decimals of the stored unit.
        np.testing.assert_allclose(spectrum.wavelength[[0, -1]] / scale, sorted((first, last)), rtol=0, atol=5.1e-6)


@each_file
def test_the_medium_is_right(read, entry):
    assert {spectrum.medium for spectrum in read(entry)} == {entry["medium"]}


@each_file
def test_the_medium_is_judged_right_or_not_at_all_where_what_states_it_is_taken_away(read, entry):
    for spectrum in read(entry):
        judged = judge(replace(spectrum, medium="unknown"))
        assert judged.medium in (entry["medium"], "unknown"), judged.notes


@each_file
def test_the_flux_at_the_probed_pixels_and_its_median_are_those_of_the_manifest(read, entry):
    probe = entry["flux_probe"]
    spectrum = read(entry)[probe["spectrum"]]
    flux = spectrum.flux[::-1] if entry["descending"] else spectrum.flux
    if entry["file"] != "observed.dat":  # whose orders overlap and are sorted
        expected = [np.nan if value is None else value for value in probe["flux"]]
        np.testing.assert_allclose(flux[probe["index"]], expected, rtol=2e-6)
    assert np.nanmedian(flux) == pytest.approx(probe["median"], rel=1e-5)


@each_file
def test_errors_come_along_when_there_are_any(read, entry):
    assert {spectrum.sigma is not None for spectrum in read(entry)} == {entry["has_error"]}


@each_file
def test_pixels_without_flux_are_bad(read, entry):
    spectra = read(entry)
    assert sum(np.isnan(spectrum.flux).sum() for spectrum in spectra[:1]) == entry["n_nan_flux"] or len(spectra) > 1
    for spectrum in spectra:
        assert spectrum.bad[np.isnan(spectrum.flux)].all()
        assert spectrum.bad[0] == (spectrum.flux[0] == 0) or spectrum.bad[0]


@each_file
def test_bad_pixels_are_few_where_the_file_has_no_mask_and_no_padding(read, entry):
    if entry["file"].startswith("coadd-5"):
        assert [spectrum.bad.all() for spectrum in read(entry)] == [True] * 12 + [False] * 3
    else:
        assert all(spectrum.bad.mean() < 0.25 for spectrum in read(entry))


@each_file
def test_some_pixels_are_masked_where_the_file_has_a_mask(read, entry):
    if entry["has_mask"]:
        assert any(spectrum.bad.any() for spectrum in read(entry))


def test_orders_of_one_star_can_be_merged(shared):
    (star,) = read_spectra(shared / "fits" / "odbue5030_x1d.fits", merge_orders=True)
    assert (star.wavelength[0], star.wavelength[-1]) == pytest.approx((1606.89, 2366.66), abs=0.01)


def test_arms_of_desi_can_be_merged(shared):
    stars = read_spectra(shared / "fits" / "coadd-5-169-thru20210419.fits", merge_orders=True)
    assert len(stars) == 5
    assert (stars[4].wavelength[0], stars[4].wavelength[-1]) == pytest.approx((3600, 9824))


def test_the_iraf_text_of_an_order_has_the_wavelengths_of_the_order(shared):
    text = read_spectra(shared / "fits" / "TRES_order11_wtextimage.dat")[0]
    order = read_spectra(shared / "fits" / "TRES.fits")[10]
    np.testing.assert_allclose(text.wavelength, order.wavelength, rtol=0, atol=1e-10)
