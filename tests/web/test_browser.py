"""The page in headless Chromium gives what anna-lite gives."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anna_onnx.bundle import Bundle, released_models
from anna_onnx.medium import air_to_vacuum
from anna_onnx.page import export_page

C_KMS = 299792.458


def star(wavelength, snr=200.0, seed=0):
    """Return the flux of a made-up star: a continuum of 1, absorption lines and noise."""
    random = np.random.default_rng(seed)
    centers, depths = random.uniform(6600, 6850, 60), random.uniform(0.02, 0.5, 60)
    lines = depths * np.exp(-0.5 * ((wavelength[:, None] - centers) / 0.25) ** 2)
    return 1 - lines.sum(axis=1) + random.normal(0, 1 / snr, wavelength.size)


def write_fits(path: Path, flux, **cards) -> Path:
    """Write an image with header cards."""
    from astropy.io import fits

    header = fits.Header([(key.replace("_", " ") if len(key) > 8 else key, value) for key, value in cards.items()])
    fits.PrimaryHDU(flux, header).writeto(path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Spectra of many kinds, good and bad."""
    folder = tmp_path_factory.mktemp("spectra")
    wavelength = np.arange(6610, 6840, 0.1)
    linear = {"CRVAL1": 6610.0, "CDELT1": 0.1, "CRPIX1": 1.0}
    flux = star(wavelength)
    text = folder / "star.txt"
    np.savetxt(text, np.c_[wavelength, flux, np.full_like(flux, 0.005)], header='star: HD 1, "a"\nwave air')
    raw = folder / "raw.csv"
    slope = 3e-13 * (1 + 0.4 * (wavelength - 6700) / 100)
    np.savetxt(raw, np.c_[wavelength / 10, slope * flux], delimiter=",", header="wave (nm),flux", comments="")
    sharp = write_fits(
        folder / "sharp.fits", flux.astype(np.float32), **linear, CTYPE1="AWAV", SPEC_RES=20000.0, SPECSYS="BARYCENT",
        OBJECT="HD 2",
    )  # fmt: skip
    blunt = write_fits(folder / "blunt.fits", flux, **linear, CTYPE1="AWAV", SPEC_RES=4000.0)
    log = np.log(air_to_vacuum(6610.0)) + np.arange(2200) * 1.5e-5
    vacuum = write_fits(
        folder / "vacuum.fits", star(np.exp(log), 120), CTYPE1="WAVE-LOG", CUNIT1="Angstrom", CRPIX1=1.0,
        CRVAL1=np.exp(log[0]), CDELT1=1.5e-5 * np.exp(log[0]),
    )  # fmt: skip
    holes = flux.copy()
    holes[700:760], holes[1200], holes[1400] = 0, np.nan, 1e35
    holes = write_fits(folder / "holes.fits", holes.astype(np.float32), **linear)
    partial = write_fits(folder / "partial.fits", flux[:1500:7], **{**linear, "CDELT1": 0.7}, DC_FLAG=0, SPEC_RES=1e5)
    noisy = write_fits(folder / "noisy.fits", star(wavelength, 15), **linear, CUNIT1="Angstrom")
    faint = folder / "faint.txt"  # its noise lifts the continuum beyond what is usual
    np.savetxt(faint, np.c_[wavelength, 1.12 * star(wavelength, 8), np.full_like(flux, 0.14)])
    receding = write_fits(folder / "receding.fits", flux, **linear, CTYPE1="AWAV", RV=150.0, SPECSYS="BARYCENT")
    grid = 10 ** (3.8202 + 1e-4 * np.arange(600))
    sdss = folder / "sdss.txt"
    np.savetxt(sdss, np.c_[grid, star(grid), np.full_like(grid, 0.005)])
    whole = write_fits(folder / "whole.fits", np.round(20000 * flux).astype(np.int16), **linear, CUNIT1="Angstrom")
    packed = folder / "packed.fits.gz"
    packed.write_bytes(gzip.compress(sharp.read_bytes()))
    elsewhere = folder / "elsewhere.txt"
    np.savetxt(elsewhere, np.c_[wavelength - 2000, flux])
    garbage = folder / "garbage.fits"
    garbage.write_bytes(b"\0\1\2" * 100)
    prose = folder / "prose.txt"
    prose.write_text("Dear colleague,\nthe spectra follow.\n")
    solution = "{0} 1 0 6610. 0.1 {1} 0. 1. 1."
    apertures = [f'spec{i} = "{solution.format(i, nw)}" ' for i, nw in ((1, 2300), (2, 0), (3, 2200))]
    echelle = write_fits(
        folder / "echelle.fits", np.stack([flux, flux, star(wavelength, 150, 3)]).astype(np.float32), CTYPE1="MULTISPE",
        WAT0_001="system=multispec", WAT1_001="wtype=multispec units=angstroms",
        **{f"WAT2_{i:03d}": piece for i, piece in enumerate(("wtype=multispec ", *apertures), 1)},
    )  # fmt: skip
    sieve = write_fits(folder / "sieve.fits", np.where(np.arange(2300) % 3 == 1, flux, np.nan), **linear)
    few = write_fits(folder / "few.fits", np.where(np.abs(wavelength - 6700) < 4, flux, np.nan), **linear)
    random = np.random.default_rng(4)
    uneven = folder / "uneven.txt"
    steps = 6620 + np.cumsum(random.uniform(0.1, 0.3, 1020))
    np.savetxt(uneven, np.c_[steps, np.where(random.random(1020) < 0.2, np.nan, star(steps)), np.full(1020, 0.02)])
    strange = [echelle, faint, receding, sdss, elsewhere, sieve, few, uneven, garbage, prose]
    return [text, raw, sharp, blunt, vacuum, holes, partial, noisy, whole, packed, *strange]


def assert_same(page_rows, lite_rows, labels):
    """Compare the tables; the labels to 1e-4 of their ranges, their errors to 5e-4, for float32 tells in a misfit."""
    assert len(page_rows) == len(lite_rows)
    assert list(page_rows[0]) == list(lite_rows[0])
    for ours, theirs in zip(page_rows, lite_rows, strict=True):
        where = f"{ours['file']} {ours['row']}"
        assert ours["file"] == Path(theirs["file"]).name
        for name in ("hdu", "row", "id", "flags", "flag_bits"):
            assert ours[name] == theirs[name], f"{where}: {name}"
        if ours["flags"] == "unreadable":
            assert ours["message"]
        else:
            assert ours["message"] == theirs["message"], where
        for label in labels:
            for name, tolerance in ((label.name, 1e-4), (f"e_{label.name}", 5e-4)):
                difference = abs(float(ours[name]) - float(theirs[name]))
                assert difference <= tolerance * label.span or ours[name] == theirs[name] == "nan", f"{where}: {name}"
        for name in ("snr", "coverage"):
            np.testing.assert_allclose(float(ours[name]), float(theirs[name]), rtol=1e-4, err_msg=f"{where}: {name}")


@pytest.mark.parametrize("target", ["page", "page.html"])
def test_the_solar_spectra_get_the_labels_of_anna_lite(models, browse, lite, shared, tmp_path, target):
    bundle = Bundle.load(models["plain"])
    sky = shared / "fits" / "jun2011_3133.fits"
    found = browse(export_page(bundle, tmp_path / target), [sky])
    assert len(found["rows"]) == 90
    assert_same(found["rows"], lite(models["plain"], [sky]), bundle.sidecar.labels)
    assert found["afterOpening"] == []


@pytest.mark.parametrize("name", sorted(released_models()))
def test_a_released_model_gives_the_same_in_the_page(name, browse, lite, shared, tmp_path):
    model = released_models()[name]
    bundle = Bundle.load(model)
    sky = shared / "fits" / "jun2011_3133.fits"
    found = browse(export_page(bundle, tmp_path / "page"), [sky])
    assert_same(found["rows"], lite(model, [sky]), bundle.sidecar.labels)


def test_lines_at_velocities_that_mean_something_are_told_as_by_anna_lite(browse, lite, tmp_path):
    pytest.importorskip("torch", reason="stars are drawn with the training extra")
    from anna_onnx.synthesis import SpectralGrid, Synthesizer

    model = released_models()["fgk-6625-6825"]
    bundle = Bundle.load(model)
    grid = bundle.sidecar.grid
    draw = Synthesizer.build(SpectralGrid.open(), grid, fwhm=0.6, max_rv=150, max_vsini=10)
    values = {"teff": 5500.0, "logg": 4.0, "feh": -0.1, "vmic": 1.2, "vsini": 3.0}
    velocities = {
        "at_rest": 0.0,
        "near": 83.1,
        "known": 83.1,
        "mistaken": 60.0,
        "slow": -83.1,
        "fast": 130.0,
        "out": -112.0,
    }
    noise = np.random.default_rng(5).normal(size=(len(velocities), grid.n_pixel)) / 200
    flux = (
        draw(
            np.array([[values[name] for name in draw.label_names]] * len(velocities)),
            np.array(list(velocities.values())),
        )
        + noise
    )
    cards = {"CRVAL1": grid.wavelength[0], "CDELT1": np.diff(grid.wavelength)[0], "CRPIX1": 1.0, "CTYPE1": "AWAV"}
    stated = {name: {"RADVEL": rv, "SPECSYS": "BARYCENT"} for name, rv in (("known", 83.0), ("mistaken", -23.0))}
    sharp = Synthesizer.build(SpectralGrid.open(), grid, fwhm=0.2, max_vsini=10)
    flux = [*flux, sharp(np.array([[values[name] for name in sharp.label_names]]), np.zeros(1))[0] + noise[0]]
    files = [
        write_fits(tmp_path / f"{name}.fits", row, **cards, **stated.get(name, {}))
        for name, row in zip([*velocities, "sharp"], flux, strict=True)
    ]
    # Errors that are five times the noise, and noise that is uneven as the file says.
    uneven = np.where(np.arange(grid.n_pixel) < 500, 0.05, 0.01)
    for name, row, sigma in (
        ("large", flux[0], np.full(grid.n_pixel, 0.025)),
        ("uneven", flux[0] + np.random.default_rng(6).normal(size=grid.n_pixel) * uneven, np.hypot(uneven, 0.005)),
    ):
        files.append(tmp_path / f"{name}.txt")
        np.savetxt(files[-1], np.c_[grid.wavelength, row, sigma], header="medium: air")
    found, rows = browse(export_page(bundle, tmp_path / "page"), files), lite(model, files)
    assert_same(found["rows"], rows, bundle.sidecar.labels)
    assert "times the noise of the pixels" in rows[-2]["message"]
    *rows, _, _ = rows
    assert [row["flags"] for row in rows] == ["", "medium_unknown", "", "medium_unknown", "", *["unlike_training"] * 3]
    assert "its resolving power is higher" in rows[-1]["message"]


@pytest.mark.parametrize("name", ["plain", "demanding"])
def test_text_and_fits_of_many_kinds_get_the_labels_of_anna_lite(name, models, browse, lite, files, tmp_path):
    bundle = Bundle.load(models[name])
    found = browse(export_page(bundle, tmp_path / "page"), files)
    rows = lite(models[name], files)
    assert_same(found["rows"], rows, bundle.sidecar.labels)
    unread = [row["file"] for row in found["rows"] if row["flags"] == "unreadable"]
    assert unread == ["echelle.fits", "garbage.fits", "prose.txt"]
    assert "3 could not be read" in found["status"]


def test_the_options_of_the_page_are_those_of_anna_lite(models, browse, lite, files, tmp_path):
    bundle = Bundle.load(models["demanding"])
    page = export_page(bundle, tmp_path / "page")
    some = [path for path in files if path.name in ("star.txt", "raw.csv", "blunt.fits", "elsewhere.txt")]
    found = browse(page, some, medium="vacuum", rv=-42.5, normalize=True)
    rows = lite(models["demanding"], some, "--medium", "vacuum", "--rv=-42.5", "--normalize")
    for row in rows:
        del row["rv"]  # a column that anna-lite adds when velocities are asked for
    assert_same(found["rows"], rows, bundle.sidecar.labels)


def test_a_velocity_beyond_the_training_and_a_medium_where_the_file_is_silent_are_told_as_by_anna_lite(
    models, browse, lite, files, tmp_path
):
    bundle = Bundle.load(models["plain"])
    some = [path for path in files if path.name in ("star.txt", "receding.fits", "sdss.txt")]
    found = browse(export_page(bundle, tmp_path / "page"), some, medium="air", rv=150)
    rows = lite(models["plain"], some, "--medium", "air", "--rv", "150")
    for row in rows:
        del row["rv"]
        assert "medium air as requested (file: " in row["message"]
        assert "the model was trained with -100 to 100" in row["message"]
    assert_same(found["rows"], rows, bundle.sidecar.labels)


def test_a_velocity_that_no_star_has_is_refused_and_no_results_of_another_are_left(models, browse, files, tmp_path):
    found = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page"), files[:2], rv=4000)
    assert "radial velocity 4000 km/s, needed at most 3000" in found["status"]
    assert found["rows"] == []


def test_the_page_says_that_this_browser_computes_as_the_training_machine(models, browse, tmp_path):
    found = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page"))
    assert "this browser gives the training machine's answers" in found["about"]
    assert "Ready" in found["status"]


def test_dropped_spectra_can_be_sorted_and_gone_through_with_the_arrow_keys(models, browse, files, tmp_path):
    page = export_page(Bundle.load(models["plain"]), tmp_path / "page")
    different = [path for path in files if path.name in ("raw.csv", "vacuum.fits", "holes.fits", "noisy.fits")]
    found = browse(page, different, drop=True, sort=["Teff", "Teff"], pick=2)
    rising, falling = found["orders"]
    assert rising == falling[::-1]
    by_teff = sorted(found["rows"], key=lambda row: -float(row["teff"]))
    assert found["described"]["sorted"][1] == "descending"
    assert by_teff[2]["file"] in found["picked"]


@pytest.mark.parametrize(("viewport", "dark"), [([1280, 900], False), ([390, 844], True)])
def test_the_page_has_no_barriers_and_fits_the_screen(models, browse, files, tmp_path, viewport, dark):
    page = export_page(Bundle.load(models["plain"]), tmp_path / "page")
    found = browse(page, files, viewport=viewport, dark=dark, axe=True)
    assert found["barriers"] == []
    assert found["described"]["width"] == 0


def test_a_printed_page_hides_nothing_and_is_light(models, browse, files, tmp_path):
    page = export_page(Bundle.load(models["plain"]), tmp_path / "page")
    found = browse(page, files, viewport=[794, 1123], dark=True, print=True)["described"]
    assert found["width"] == 0
    assert found["floating"] == 0
    assert found["cards"] == [False, True, True]
    assert found["ground"] == "rgb(244, 245, 242)"
    assert not any("+" in flags for flags in found["flags"])


def test_the_table_is_one_stop_of_the_tabulator_where_the_arrow_keys_go_on(models, browse, files, tmp_path):
    found = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page"), files[:4], pick=2)
    [stop] = found["described"]["stops"]
    assert files[2].name in found["picked"]
    assert files[2].name in stop


def test_the_picked_row_is_marked_where_the_system_sets_the_colours(models, browse, files, tmp_path):
    found = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page"), files[:2], forced=True)
    assert found["described"]["edges"] == ["8px", "0px"]


def test_flux_that_is_not_normalised_has_no_nearest_combination_and_the_page_says_so(models, browse, files, tmp_path):
    page = export_page(Bundle.load(models["plain"]), tmp_path / "page")
    raw = [path for path in files if path.name == "raw.csv"]
    assert "none, for the flux is not normalised" in browse(page, raw)["described"]["known"]
    assert browse(page, files[:1])["described"]["known"] == "nearest combination of training spectra"


def test_notes_are_shown_as_text(models, browse, tmp_path):
    notes = "Too few.\n\n## Limits\n\nNo <b>giants</b>,\nno dwarfs.\n\n- one\n- two\n"
    about = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page", notes))["about"]
    assert "\nLimits\n" in about
    assert "No <b>giants</b>, no dwarfs." in about
    assert "- one\n- two" in about


def test_a_model_that_was_measured_on_nothing_does_not_say_that_it_was(models, browse, tmp_path):
    bundle = Bundle.load(models["plain"])
    assert "Measured" not in browse(export_page(bundle, tmp_path / "page"))["about"]
    numbers = {"bias": -0.12345, "robust_scatter": 1234.5, "rms": 166.6, "coverage_68": 0.68}
    known = replace(bundle.sidecar, provenance={"metrics": {"teff": numbers}})
    about = browse(export_page(replace(bundle, sidecar=known), tmp_path / "known"))["about"]
    assert "Measured on the validation set" in about
    assert re.search(r"Robust scatter\s.*−0.123\s+1230\s+167\s+68.0%", about, re.S)


def test_an_error_that_is_not_known_is_not_written(models, browse, files, tmp_path):
    bundle = Bundle.load(models["plain"])
    width = np.array([0.05 * label.span for label in bundle.sidecar.labels], dtype=np.float32).tobytes()
    assert width in bytes(bundle.network)
    blind = replace(bundle, network=bytes(bundle.network).replace(width, np.full(3, np.nan, np.float32).tobytes()))
    found = browse(export_page(blind, tmp_path / "page"), files[:1])
    assert found["rows"][0]["e_teff"] == "nan"
    assert re.search(r"Teff\s+\d+\.\d\d K", found["described"]["detail"])
    assert "±" not in found["described"]["detail"]


def test_an_image_of_several_lines_is_refused_with_what_the_page_reads(models, browse, tmp_path):
    image = write_fits(tmp_path / "orders.fits", np.ones((5, 3908)), XUNITS="um", YUNITS="Jy")
    [row] = browse(export_page(Bundle.load(models["plain"]), tmp_path / "page"), [image])["rows"]
    assert "a wavelength axis in the header (CRVAL1) or IRAF multispec, and text" in row["message"]


def test_the_page_works_from_a_server_and_asks_it_for_nothing_more(models, browse, files, tmp_path):
    import functools
    import http.server
    import threading

    export_page(Bundle.load(models["plain"]), tmp_path)
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, _form, *words):
            asked.append(words[0])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        found = browse(f"http://127.0.0.1:{server.server_port}/", files[:2])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(found["rows"]) == 2
    assert found["afterOpening"] == []
    assert len(asked) == 5, asked
