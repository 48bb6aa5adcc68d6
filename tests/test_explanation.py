"""Explanations: the derivatives of a network that is known, and pictures that any system takes."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from anna_onnx.bundle import Bundle
from anna_onnx.drawing import draw, strongest, ticks
from anna_onnx.errors import AnnaError
from anna_onnx.explanation import Explanation, explain, respond
from anna_onnx.flags import Flag
from anna_onnx.novelty import Novelty
from anna_onnx.resampling import FWHM, Grid
from anna_onnx.spectrum import Spectrum
from anna_onnx_cli.lite import main
from tests import tiny

approx = pytest.approx
# Of the labels by each pixel, for 1 % of the continuum: the network is linear.
WEIGHTS = tiny.constants()["weight"].T / 100
ROUNDING = {"abs": 1e-6 * tiny.answers(np.ones((1, 50))).max()}  # float32
N_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    mean = Novelty(np.full(50, 0.9), np.full((1, 50), 50**-0.5), np.ones(1), np.ones(1), 0.01)
    return tiny.bundle(tmp_path_factory.mktemp("model") / "tiny.onnx", novelty=mean)


def star(bad: slice | None = None, last: int = 50) -> Spectrum:
    marked = np.zeros(last, dtype=bool)
    marked[bad or slice(0, 0)] = True
    flux = np.linspace(0.8, 1.0, 50)[:last]
    return Spectrum(tiny.GRID.wavelength[:last], flux, None, marked, medium="air", frame="rest")


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Explanation:
    return explain(bundle, star())


# --- derivatives ----------------------------------------------------------------------


def test_the_derivatives_of_a_linear_network_are_its_weights(found):
    assert found.jacobian == approx(WEIGHTS, **ROUNDING)


def test_pixels_that_the_network_does_not_use_do_nothing(found):
    assert found.jacobian[0, 25:] == approx(0, **ROUNDING)
    assert found.jacobian[1, :25] == approx(0, abs=1e-6)


def test_labels_and_flags_are_those_of_the_table(bundle, found):
    row = bundle.infer(star())[0]
    assert found.values == approx([row["teff"].value, row["logg"].value])
    assert found.errors == approx([row["e_teff"].value, row["e_logg"].value])
    assert int(found.flags) == row["flag_bits"]


def test_missing_pixels_are_not_known_and_the_others_stay(bundle):
    found = explain(bundle, star(bad=slice(10, 13), last=40))
    missing = np.isnan(found.flux)
    assert np.flatnonzero(missing).tolist() == [10, 11, 12, *range(40, 50)]
    assert np.isnan(found.jacobian[:, missing]).all()
    assert np.isnan(found.response[:, missing]).all()
    assert found.jacobian[:, ~missing] == approx(WEIGHTS[:, ~missing], **ROUNDING)


@pytest.mark.parametrize("spectra", [[], [star(), star()]])
def test_one_spectrum_is_explained_at_a_time(bundle, spectra):
    with pytest.raises(AnnaError, match="one is explained at a time"):
        explain(bundle, spectra)


def test_a_spectrum_elsewhere_cannot_be_explained(bundle):
    with pytest.raises(AnnaError, match="no good pixel"):
        explain(bundle, (tiny.GRID.wavelength + 500, np.ones(50)))


# --- resolution elements -------------------------------------------------------------------


def test_one_pixel_spreads_as_a_line_that_is_not_resolved():
    grid = Grid(np.linspace(6000, 6020, 201))
    resolution = 6010 / 0.8  # an element of eight pixels
    response = respond(np.eye(201)[100:101], grid, resolution)[0]
    away = grid.wavelength - grid.wavelength[100]
    assert response == approx(np.exp(-0.5 * (away * FWHM / 0.8) ** 2), abs=1e-3)


def test_equal_derivatives_add_up_to_the_area_of_the_line():
    grid = Grid(np.linspace(6000, 6020, 201))
    response = respond(np.full((1, 201), 2.0), grid, None)[0]  # three pixels wide
    assert response[20:-20] == approx(2 * np.sqrt(2 * np.pi) * 3 / FWHM, rel=1e-4)


def test_noise_of_single_pixels_is_suppressed_and_signs_are_kept():
    grid = Grid(np.linspace(6000, 6100, 1001))
    zigzag = np.where(np.arange(1001) % 2, 1.0, -1.0)
    response = respond(np.stack([zigzag, -np.ones(1001)]), grid, 6050 / 0.4)
    assert np.abs(response[0, 20:-20]).max() < 0.01
    assert (response[1] < 0).all()


# --- pictures --------------------------------------------------------------------------------


def texts(picture: str) -> str:
    return " ".join("".join(element.itertext()) for element in ET.fromstring(picture).iter(f"{N_SVG}text"))


def test_the_picture_shows_labels_errors_flags_and_the_strongest_pixels(found):
    picture = texts(draw(found))
    teff, logg = tiny.answers(star().flux[None])[0]
    assert f"teff = {teff:.0f} ± 50 K" in picture
    assert f"logg = {logg:.2f} ± 0.10 dex" in picture
    assert "K per unresolved feature of 1 %" in picture
    assert "flags: not_normalized" in picture  # the flux rises by a fifth
    assert "mean training spectrum" in picture
    assert "mean training spectrum" not in texts(draw(dataclasses.replace(found, mean=None)))


def test_missing_pixels_are_shaded_in_every_panel(bundle):
    picture = ET.fromstring(draw(explain(bundle, star(bad=slice(10, 13), last=40))))
    shades = [element for element in picture.iter(f"{N_SVG}rect") if element.get("class") == "missing"]
    assert len(shades) == 2 * 3  # two runs of pixels; spectrum, teff and logg
    widths = {round(float(shade.get("width"))) for shade in shades}
    pixel = 890 / 49
    assert widths == {round(3 * pixel), round(9.5 * pixel)}


def test_no_name_breaks_the_picture(found):
    picture = draw(dataclasses.replace(found, title='a\udcff\x07<b> & "c"'))
    assert texts(picture.encode("utf-8").decode()).startswith('a  <b> & "c"')


def test_a_long_name_is_shortened_where_it_is_shown_and_whole_beside(found):
    name = f"{'a' * 100}.fits, HDU 1, row 7"
    picture = draw(dataclasses.replace(found, title=name))
    assert f"<title>{name}</title>" in picture
    assert texts(picture).startswith(f"{'a' * 40}…")
    assert "aaa.fits, HDU 1, row 7 S/N" in texts(picture)


def test_flux_that_was_not_divided_by_the_continuum_is_not_said_to_be(found):
    assert "flux / continuum" in texts(draw(dataclasses.replace(found, flags=Flag(0))))
    assert "flux / continuum" not in texts(draw(dataclasses.replace(found, flags=Flag.not_normalized)))


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.41, 0.5, 0.99, 7.0])
def test_a_panel_has_ticks_on_both_sides_of_zero(limit):
    found = ticks(-limit, limit, 2)
    assert 3 <= len(found) <= 5
    assert found == approx(-found[::-1])


def test_no_value_is_minus_zero(found):
    values, errors = np.array([-0.0004, -0.0]), np.array([0.1, np.nan])
    picture = texts(draw(dataclasses.replace(found, values=values, errors=errors)))
    assert "teff = 0.00 ± 0.10 K" in picture
    assert "logg = 0 dex" in picture


def test_the_strongest_peaks_are_named_in_order():
    response = np.array([0, 1, 0, -3, -2, np.nan, 0, 2, 2, 0.0])
    assert strongest(response) == [3, 8, 1]
    assert strongest(np.full(5, np.nan)) == strongest(np.zeros(5)) == []


# --- anna-lite infer --explain ------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    tiny.bundle(path)
    return str(path)


def infer(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", *arguments])


def test_pictures_come_beside_the_usual_table(model, tmp_path):
    star_file, junk, folder = tiny.write_star(tmp_path / "star.txt"), tmp_path / "junk.txt", tmp_path / "new" / "folder"
    junk.write_text("no spectrum", encoding="utf-8")
    plain = infer(model, str(star_file), str(junk))
    explained = infer(model, str(star_file), str(junk), "--explain", str(folder))
    assert explained.stdout == plain.stdout
    assert explained.exit_code == plain.exit_code == 1
    assert "1 picture in" in explained.stderr
    assert "1 could not be explained" in explained.stderr
    assert [path.name for path in folder.iterdir()] == ["0001_star.svg"]


def test_names_are_safe_and_each_its_own(model, tmp_path):
    (tmp_path / "other").mkdir()
    files = [tmp_path / "a star & [it].txt", tmp_path / "a.txt", tmp_path / "other" / "a.txt", tmp_path / "Å.txt"]
    names = [str(tiny.write_star(path)) for path in (*files, files[1])]
    assert infer(model, *names, "--explain", str(tmp_path / "out")).exit_code == 0
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["0001_a_star_it.svg", "0002_a.svg", "0003_a.svg", "0004.svg", "0005_a.svg"]


def test_the_number_of_pictures_is_bounded(model, tmp_path):
    names = [str(tiny.write_star(tmp_path / f"{i}.txt")) for i in range(4)]
    result = infer(model, *names, "--explain", str(tmp_path / "out"), "--explain-most", "3")
    assert "3 pictures in" in result.stderr
    assert "--explain-most raises the number" in result.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert "raises" not in infer(model, *names, "--explain", str(tmp_path / "out"), "--explain-most", "4").stderr


def test_a_number_of_pictures_goes_with_pictures(model, tmp_path):
    result = infer(model, str(tiny.write_star(tmp_path / "star.txt")), "--explain-most", "3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "needs --explain" in result.stderr


def test_a_picture_is_whole_or_not_there(model, tmp_path, monkeypatch):
    star_file = tiny.write_star(tmp_path / "star.txt")
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError(28, "No space left")))
    result = infer(model, str(star_file), "--explain", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert ".svg: cannot be written (No space left)" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []
