"""Spectra made from grids: truths that can be derived, and the independent spectra of the shared data."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.errors import GridError, ResultError
from anna_onnx.medium import C_KMS, convert, doppler
from anna_onnx.readers import read_spectra
from anna_onnx.resampling import Grid
from anna_onnx.synthesis import WAVELENGTH, SpectralGrid, Synthesizer, simulate, wavelength_grid
from anna_onnx.synthesis.compression import compress
from anna_onnx.synthesis.simulation import label_ranges
from anna_onnx.synthesis.spline import cardinal_splines, node_weights
from anna_onnx.trainingset import TrainingSet
from anna_onnx_cli.anna import main

LINE = 5005.0  # Angstrom, of the toy grid
WIDTH = 0.04  # sigma of its line, Angstrom
PIXELS = Grid(np.arange(5000.0, 5010.0, 0.02))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> SpectralGrid:
    """One Gaussian line whose depth is a polynomial in two labels: linear in a, cubic in b, 0.3 at a = b = 0."""
    path = tmp_path_factory.mktemp("grid") / "toy.h5"
    a, b = np.linspace(-1, 1, 3), np.array([-1.0, -0.5, 0.25, 0.5, 1.0])
    wavelength = np.arange(4990, 5020, 0.01)
    line = np.exp(-0.5 * ((wavelength - LINE) / WIDTH) ** 2)
    write_grid(path, {"a": a, "b": b}, wavelength, 1 - depth(a[:, None], b)[..., None] * line)
    return SpectralGrid.open(path)


def depth(a, b):
    return 0.3 + 0.1 * a + 0.05 * b**3


def write_grid(path: Path, axes: dict, wavelength, flux, **attrs) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "anna-grid", "format_version": "1.0", "axes": list(axes), **attrs})
        for name, values in axes.items():
            file[name] = values
        file["wavelength"] = wavelength
        file["wavelength"].attrs["medium"] = "air"
        file["flux"] = flux.astype("f4")


def one(spectra: SpectralGrid, a=0.0, b=0.0, vsini=0.0, rv=0.0, **instrument):
    """Return one spectrum of the toy grid, in float64."""
    synthesizer = Synthesizer.build(
        spectra, PIXELS, max_rv=abs(rv), max_vsini=vsini, dtype=np.float64, **({"fwhm": 0.2} | instrument)
    )
    return synthesizer(np.array([[a, b, vsini]]), np.array([rv]))[0]


def area(flux) -> float:
    """Return the equivalent width, Angstrom."""
    return float((1 - flux).sum() * 0.02)


def test_a_grid_gives_its_own_spectrum_back_at_a_node(toy):
    flux = one(toy, a=1.0, b=-0.5, fwhm=None)
    assert flux == pytest.approx(
        1 - depth(1.0, -0.5) * np.exp(-0.5 * ((PIXELS.wavelength - LINE) / WIDTH) ** 2), abs=2e-5
    )


@settings(max_examples=20, deadline=None)
@given(a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_splines_give_polynomials_up_to_the_third_degree_exactly(toy, a, b):
    assert area(one(toy, a, b)) == pytest.approx(depth(a, b) * WIDTH * np.sqrt(2 * np.pi), rel=1e-5)


@pytest.mark.parametrize("knots", [[0.0, 1.0], [0.0, 1.0, 3.0], [0.0, 1.0, 3.0, 4.0], [-2.0, 0.0, 0.5, 1.0, 4.0]])
def test_weights_of_the_nodes_sum_to_one_and_are_one_at_a_node(knots):
    knots = np.array(knots)
    x = np.concatenate([knots, np.linspace(knots[0], knots[-1], 7)])
    weights = node_weights([knots], [cardinal_splines(knots)], [x])
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(x)))
    assert weights[: len(knots)] == pytest.approx(np.eye(len(knots)), abs=1e-12)


def test_the_instrument_adds_its_width_in_quadrature(toy):
    sigma = np.hypot(WIDTH, 0.3 / np.sqrt(8 * np.log(2)))
    expected = 1 - 0.3 * WIDTH / sigma * np.exp(-0.5 * ((PIXELS.wavelength - LINE) / sigma) ** 2)
    assert one(toy, fwhm=0.3) == pytest.approx(expected, abs=3e-5)


def test_a_resolving_power_is_a_width_proportional_to_wavelength(toy):
    assert one(toy, fwhm=None, resolution=LINE / 0.3) == pytest.approx(one(toy, fwhm=0.3), abs=3e-5)


@settings(max_examples=15, deadline=None)
@given(vsini=st.floats(0, 60), rv=st.floats(-60, 60))
def test_rotation_and_motion_keep_the_equivalent_width_in_velocity(toy, vsini, rv):
    assert area(one(toy, vsini=vsini, rv=rv)) == pytest.approx(area(one(toy)) * doppler(rv), rel=2e-4)


def test_a_spectrum_moves_by_the_doppler_formula(toy):
    depth_at = 1 - one(toy, rv=80.0)
    center = (PIXELS.wavelength * depth_at).sum() / depth_at.sum()
    assert center == pytest.approx(LINE * doppler(80.0), abs=1e-3)


def test_the_rotational_profile_is_grays(toy):
    vsini, epsilon = 40.0, 0.6
    u = (PIXELS.wavelength / LINE - 1) * C_KMS / vsini
    disk = np.clip(1 - u**2, 0, None)
    profile = 2 * (1 - epsilon) * np.sqrt(disk) + np.pi * epsilon / 2 * disk
    profile /= np.pi * (1 - epsilon / 3) * LINE * vsini / C_KMS
    difference = 1 - one(toy, vsini=vsini, fwhm=0.01) - 0.3 * WIDTH * np.sqrt(2 * np.pi) * profile
    assert np.abs(difference)[np.abs(u) < 0.8].max() < 2e-3 * profile.max()


def test_without_limb_darkening_a_rotating_line_is_an_ellipse(toy):
    flux = one(toy, vsini=150.0, limb_darkening=0.0, fwhm=0.02)
    middle, side = 1 - np.interp(LINE * (1 + np.array([0, 0.8]) * 150 / C_KMS), PIXELS.wavelength, flux)
    assert side / middle == pytest.approx(0.6, rel=0.02)


def test_a_width_constant_in_wavelength_varies_along_the_spectrum(tmp_path):
    wavelength = np.arange(4950, 8050, 0.2)
    lines = np.array([5200.0, 7800.0])
    flux = 1 - 0.5 * np.exp(-0.5 * ((wavelength[:, None] - lines) / 0.5) ** 2).sum(axis=1)
    write_grid(tmp_path / "long.h5", {"a": np.array([0.0, 1.0])}, wavelength, np.stack([flux, flux]))
    pixels = Grid(np.arange(5100.0, 7900.0, 0.5))
    synthesizer = Synthesizer.build(SpectralGrid.open(tmp_path / "long.h5"), pixels, fwhm=4.0)
    sigma = np.hypot(0.5, 4 / np.sqrt(8 * np.log(2)))
    expected = 1 - 0.5 * 0.5 / sigma * np.exp(-0.5 * ((pixels.wavelength[:, None] - lines) / sigma) ** 2).sum(axis=1)
    assert synthesizer(np.zeros((1, 2)), np.zeros(1))[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fwhm", [0.1, 0.2, 0.3])
def test_an_instrument_sharper_than_the_grid_adds_its_width_up_to_the_ends(tmp_path, fwhm):
    wavelength = np.arange(4950, 8050, 0.2)
    lines = np.array([5100.0, 5200.0, 7800.0, 7900.0])
    flux = 1 - 0.5 * np.exp(-0.5 * ((wavelength[:, None] - lines) / 0.5) ** 2).sum(axis=1)
    write_grid(tmp_path / "long.h5", {"a": np.array([0.0, 1.0])}, wavelength, np.stack([flux, flux]))
    spectra, sigma = SpectralGrid.open(tmp_path / "long.h5"), np.hypot(0.5, fwhm / np.sqrt(8 * np.log(2)))
    for first in np.arange(5100.0, 5101.0, 0.1):
        pixels = Grid(np.append(np.arange(first, 5300.0, 0.1), np.arange(7700.0, 7900.0, 0.1)))
        found = Synthesizer.build(spectra, pixels, fwhm=fwhm)(np.zeros((1, 2)), np.zeros(1))[0]
        shape = np.exp(-0.5 * ((pixels.wavelength[:, None] - lines) / sigma) ** 2).sum(axis=1)
        assert found == pytest.approx(1 - 0.5 * 0.5 / sigma * shape, abs=2e-3)


def test_output_in_vacuum_shows_the_line_at_its_vacuum_wavelength(toy):
    pixels = Grid(np.arange(5004.0, 5009.0, 0.02), "vacuum")
    flux = Synthesizer.build(toy, pixels, fwhm=0.2)(np.zeros((1, 3)), np.zeros(1))[0]
    assert pixels.wavelength[flux.argmin()] == pytest.approx(convert(LINE, "air", "vacuum"), abs=0.011)


def test_a_request_beyond_the_grid_says_by_how_much(toy):
    with pytest.raises(GridError, match=r"missing: 1\.9 Å in the red"):
        Synthesizer.build(toy, Grid(np.arange(5000.0, 5021.0, 0.1)), fwhm=0.2, max_rv=30.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"axes": ["a", "c"]}, "not a readable grid"), ({"format": "fits"}, "needed 'anna-grid'")],
)
def test_a_file_that_is_no_grid_is_refused(toy, tmp_path, change, message):
    path = tmp_path / "other.h5"
    path.write_bytes(toy.path.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs.update(change)
    with pytest.raises(GridError, match=message):
        SpectralGrid.open(path)


def test_a_hole_in_a_grid_is_refused(toy, tmp_path):
    flux = np.ones((2, 3000))
    flux[1, 7] = np.nan
    write_grid(tmp_path / "hole.h5", {"a": np.array([0.0, 1.0])}, toy.wavelength, flux)
    with pytest.raises(GridError, match="1 of 2 spectra"):
        SpectralGrid.open(tmp_path / "hole.h5").read()


def test_microturbulence_is_interpolated_in_quadrature_with_the_thermal_width(shared):
    axes = {axis.name: axis for axis in SpectralGrid.open(shared / "grid_6619_6831.h5").axes}
    assert axes["vmic"].coordinate(np.array([0.0, 1.3])) == pytest.approx(1.3 * np.array([1, np.sqrt(2)]))
    assert axes["teff"].coordinate(5777.0) == 5777.0


def test_compression_of_a_grid_of_low_rank_loses_only_rounding(toy, tmp_path):
    errors = compress(toy, tmp_path / "small.h5", n_component=1, fwhm=0.2, about="one line")
    assert errors["native_error_max"] < 3e-5
    small = SpectralGrid.open(tmp_path / "small.h5")
    assert small.attrs["about"] == "one line"
    assert one(small, 0.4, 0.7, vsini=9.0) == pytest.approx(one(toy, 0.4, 0.7, vsini=9.0), abs=3e-5)


def test_the_embedded_grid_is_the_shared_grid_to_the_error_it_states(shared):
    embedded, original = SpectralGrid.open(), SpectralGrid.open(shared / "grid_6619_6831.h5")
    assert embedded.axis_names == original.axis_names == ("teff", "logg", "feh", "vmic")
    assert "not for claims" in str(embedded.attrs["about"])
    components = embedded.read()
    difference = components[0] + embedded.coefficients @ components[1:] - original.read()
    assert difference.std() == pytest.approx(embedded.attrs["compression_native_error_rms"], rel=0.01)
    assert np.abs(difference).max() == pytest.approx(embedded.attrs["compression_native_error_max"], rel=0.01)


@pytest.mark.parametrize("grid", ["embedded", "original"])
def test_spectra_equal_those_of_the_tutorial(shared, grid):
    words = np.fromfile(shared / "valid_1000.bin", dtype="f8")
    n_pixel = int(words[0])
    pixels, stars = Grid(words[2 : 2 + n_pixel]), words[2 + n_pixel :].reshape(-1, 7 + n_pixel)
    labels, rv, flux = stars[:, 1:6], stars[:, 6], stars[:, 7:]
    spectra = SpectralGrid.open(None if grid == "embedded" else shared / "grid_6619_6831.h5")
    difference = Synthesizer.build(spectra, pixels, fwhm=0.6, max_rv=100, max_vsini=40)(labels, rv) - flux
    assert difference.std() < 3e-5
    # The other program samples the rotational profile in pixels, too coarsely for narrow ones.
    assert np.abs(difference[labels[:, 4] > 2]).max() < 3e-4


def test_the_same_seed_gives_the_same_set_however_many_processes_draw_it(tmp_path):
    for processes in (1, 2):
        simulate(None, tmp_path / f"{processes}.h5", 600, seed=5, snr=100, processes=processes)
    one_process, two_processes = (TrainingSet.open(tmp_path / f"{processes}.h5") for processes in (1, 2))
    assert np.array_equal(one_process.flux, two_processes.flux)
    assert np.array_equal(one_process.labels, two_processes.labels)
    assert np.array_equal(one_process.aux["rv"], two_processes.aux["rv"])


def test_a_training_set_keeps_to_its_ranges_and_names_them(tmp_path):
    ranges = {"teff": (5000.0, 5500.0), "vsini": (0.0, 0.0)}
    simulate(None, tmp_path / "set.h5", 50, ranges=ranges, rv=(-20, 5), processes=1)
    drawn = TrainingSet.open(tmp_path / "set.h5")
    assert drawn.label_names == ("teff", "logg", "feh", "vmic", "vsini")
    assert drawn.label_units == ("K", "dex(cm / s2)", "dex", "km / s", "km / s")
    assert drawn.grid == WAVELENGTH
    assert drawn.labels.min(axis=0) == pytest.approx([5000, 2.5, -0.5, 0, 0], abs=30)
    assert (drawn.labels[:, 0] < 5500).all()
    assert (drawn.labels[:, 4] == 0).all()
    assert -20 <= drawn.aux["rv"].min() < drawn.aux["rv"].max() <= 5


def test_noise_has_the_signal_to_noise_asked_for(tmp_path):
    simulate(None, tmp_path / "clean.h5", 20, processes=1)
    simulate(None, tmp_path / "noisy.h5", 20, snr=50, processes=1)
    clean, noisy = TrainingSet.open(tmp_path / "clean.h5"), TrainingSet.open(tmp_path / "noisy.h5")
    assert np.std(noisy.flux - clean.flux) == pytest.approx(1 / 50, rel=0.02)
    assert noisy.sigma is not None
    assert noisy.sigma[3, 4] == pytest.approx(1 / 50)


def test_fits_files_carry_flux_wavelengths_and_true_labels(tmp_path):
    from astropy.io import fits

    simulate(None, tmp_path / "set.h5", 2, fits=tmp_path / "stars", processes=1)
    drawn = TrainingSet.open(tmp_path / "set.h5")
    flux, header = fits.getdata(tmp_path / "stars/star_00002.fits", header=True)
    assert np.array_equal(flux, drawn.flux[1])
    assert (header["CTYPE1"], header["CRVAL1"], header["CDELT1"]) == ("AWAV", 6625.0, pytest.approx(0.2))
    assert header["TEFF"] == drawn.labels[1, 0]
    assert header["RV"] == drawn.aux["rv"][1]


@pytest.mark.parametrize(
    ("instrument", "resolution"), [({"resolution": 5600}, 5600), ({"fwhm": 0.5}, 6725 / 0.5), ({}, 6725 / 0.6)]
)
def test_fits_files_state_the_resolving_power_that_the_reader_knows(tmp_path, instrument, resolution):
    simulate(None, None, 1, fits=tmp_path, processes=1, rv=(-5, 5), **instrument)
    (star,) = read_spectra(tmp_path / "star_00001.fits")
    assert star.resolution == pytest.approx(resolution, rel=1e-4)


def test_the_command_writes_the_set_it_was_asked_for(tmp_path):
    output = tmp_path / "set.h5"
    arguments = ["simulate", "-n", "3", "-o", str(output), "--range", "teff=5000:5100", "--rv=-5:5"]
    result = CliRunner().invoke(main, [*arguments, "--wavelength", "6700:6720:0.1", "--resolution", "20000"])
    assert result.output.strip() == f"{output}: 3 spectra written"
    drawn = TrainingSet.open(output)
    assert (len(drawn), drawn.grid.n_pixel) == (3, 201)
    assert ((drawn.labels[:, 0] > 5000) & (drawn.labels[:, 0] < 5100)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say where to write"),
        (["-o", "x.h5", "--range", "teff"], "name=low:high"),
        (["-o", "x.h5", "--rv", "5"], "low:high"),
    ],
)
def test_the_command_explains_wrong_usage(arguments, message):
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("option", [{"snr": np.nan}, {"snr": np.inf}, {"snr": 0}, {"seed": 10**22}, {"fwhm": -1}])
def test_a_set_that_cannot_be_drawn_is_refused(tmp_path, option):
    with pytest.raises(GridError, match="needed"):
        simulate(None, tmp_path / "set.h5", 3, **option)
    assert not list(tmp_path.iterdir())


def test_unknown_labels_and_ranges_beyond_the_grid_are_refused():
    spectra = SpectralGrid.open()
    with pytest.raises(GridError, match="did you mean 'teff'"):
        label_ranges(spectra, {"tef": (5000, 6000)})
    with pytest.raises(GridError, match="the grid has 4000 to 7000"):
        label_ranges(spectra, {"teff": (3500, 6000)})
    with pytest.raises(GridError, match="is no range"):
        label_ranges(spectra, {"teff": (6000, 5000)})


def test_wavelengths_come_from_numbers_or_a_file(shared):
    assert wavelength_grid("6625:6825:0.2") == WAVELENGTH
    assert wavelength_grid(str(shared / "wavelength.template")) == WAVELENGTH
    with pytest.raises(GridError, match="first:last:step"):
        wavelength_grid("6625-6825")
    for text in ("6825:6625:0.2", "6625:6825:0", "6625:6825:nan", "6625:6825:1e-7", "6625:inf:1"):
        with pytest.raises(GridError, match=f"wavelengths '{text}': .*(step above zero|at most|infinity)"):
            wavelength_grid(text)


def test_a_training_set_is_not_written_under_the_name_of_fits(tmp_path):
    with pytest.raises(ResultError, match=r"stars.fits: a training set is written as .h5"):
        simulate(None, tmp_path / "stars.fits", 2)
    assert not list(tmp_path.iterdir())
