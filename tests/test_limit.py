"""The Cramér-Rao bound, where it can be derived, and that of the reference task."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from anna_onnx.errors import GridError, ResultError
from anna_onnx.limit import bound, fisher_information, limits, star_bounds
from anna_onnx.resampling import Grid
from anna_onnx.snrtemplate import read_template
from anna_onnx.synthesis import WAVELENGTH, SpectralGrid, Synthesizer
from anna_onnx_cli.anna import main

PIXELS = Grid(np.arange(5003.0, 5007.0, 0.02))
RANGES = [(0, 2), (0, 20)]  # of the line's strength and of vsini
PER_UNIT = 0.2  # depth of the line for each unit of the label


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    """One Gaussian line, its depth proportional to the only label."""
    path = tmp_path_factory.mktemp("grid") / "line.h5"
    strength, wavelength = np.array([0.0, 1.0, 2.0]), np.arange(4995, 5015, 0.01)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "anna-grid", "format_version": "1.1", "axes": ["strength"]})
        file["strength"], file["wavelength"] = strength, wavelength
        file["wavelength"].attrs["medium"] = "air"
        file["flux"] = 1 - PER_UNIT * strength[:, None] * profile(wavelength, 0.1)
    return Synthesizer.build(SpectralGrid.open(path), PIXELS, fwhm=0.2, max_rv=10, max_vsini=20, dtype=np.float64)


def profile(wavelength, sigma):
    return np.exp(-0.5 * ((wavelength - 5005.0) / sigma) ** 2)


def information_of(synthesizer, *labels, rv=0.0, template=None):
    return fisher_information(synthesizer, np.array([labels], dtype=float), np.array([rv]), template)


def test_the_bound_of_a_lines_strength_is_noise_over_the_root_of_the_sum_of_squares(synthesizer):
    sigma = np.hypot(0.1, 0.2 / np.sqrt(8 * np.log(2)))
    derivative = PER_UNIT * 0.1 / sigma * profile(PIXELS.wavelength, sigma)
    wide = [(-1e6, 1e6), (0, 1e-9)]  # strength is free, vsini is known
    found = bound(information_of(synthesizer, 1.0, 0.0)[:, :2, :2], 100, wide)  # velocity and continuum are known
    assert found[0, 0] == pytest.approx(0.01 / np.sqrt((derivative**2).sum()), rel=1e-3)


def test_the_bound_falls_as_one_over_the_signal_to_noise_ratio(synthesizer):
    information = information_of(synthesizer, 1.0, 10.0)
    at_100, at_200 = (bound(information, snr, [(-1e6, 1e6)] * 2) for snr in (100, 200))
    assert at_100 == pytest.approx(2 * at_200, rel=1e-6)


def test_a_template_weighs_the_signal_to_noise_ratio_of_each_pixel(synthesizer):
    doubled = np.full(PIXELS.n_pixel, 2.0)
    with_template = information_of(synthesizer, 1.0, 10.0, template=doubled)
    assert with_template == pytest.approx(2**2 * information_of(synthesizer, 1.0, 10.0))


def test_what_is_unknown_beside_a_label_never_helps(synthesizer):
    information = information_of(synthesizer, 1.0, 10.0, rv=3.0)
    alone, with_rv, with_both = (bound(information[:, :k, :k], 100, RANGES) for k in (2, 3, 4))
    assert (alone <= with_rv * (1 + 1e-9)).all()
    assert (with_rv < with_both).all()


def test_without_information_the_range_remains():
    assert bound(np.zeros((1, 1, 1)), 100, [(2.0, 5.0)]) == pytest.approx(3 / np.sqrt(12))


def test_a_star_that_does_not_rotate_has_no_local_information_on_vsini(synthesizer):
    slow = bound(information_of(synthesizer, 1.0, 0.0), 1, RANGES)
    assert slow[0, 1] == pytest.approx(20 / np.sqrt(12), rel=0.01)


def test_the_reference_task_has_the_known_bound(shared):
    ranges = {"logg": (2.7, 4.8), "feh": (-0.5, 0.2)}
    template = read_template(shared / "sn.robo.template", WAVELENGTH)
    found = limits(None, [(175, 250)], 1000, ranges=ranges, template=template).bounds[0]
    # Of another sample of 1000 stars; from sample to sample the rms changes by some 4 per cent.
    assert np.sqrt(np.mean(found**2, axis=0))[:3] == pytest.approx([38, 0.110, 0.0201], rel=0.1)
    assert np.median(found, axis=0) == pytest.approx([25, 0.077, 0.0158, 0.065, 0.51], rel=0.1)


def test_a_table_of_limits_says_rms_and_percentiles_for_each_signal_to_noise(tmp_path):
    found = limits(None, [(200, 200), (10, 20)], 20)
    found.write(tmp_path / "limits.ecsv")
    table = found.table()
    assert list(table["snr"]) == ["200"] * 5 + ["10-20"] * 5
    assert table["rms"][0] == pytest.approx(np.sqrt(np.mean(found.bounds[0, :, 0] ** 2)))
    assert table["p50"][6] == pytest.approx(np.median(found.bounds[1, :, 1]))
    assert "logg" in Path(tmp_path / "limits.ecsv").read_text(encoding="utf-8")
    assert "S/N 10-20: these spectra hardly constrain logg" in found.warnings()
    with pytest.raises(ResultError, match=r"\.csv or \.ecsv"):
        found.write(tmp_path / "limits.doc")


def test_a_plot_of_limits_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    limits(None, [(100, 100)], 5).plot(tmp_path / "limits.png")
    assert (tmp_path / "limits.png").stat().st_size > 1000
    with pytest.raises(ResultError, match=r"limits\.doc: a plot is written as .*\.png"):
        limits(None, [(100, 100)], 5).plot(tmp_path / "limits.doc")
    with pytest.raises(ResultError, match=r"a\.png: cannot be written \("):
        limits(None, [(100, 100)], 5).plot(tmp_path / "limits.png" / "a.png")


def test_the_command_prints_and_writes_the_table(tmp_path):
    result = CliRunner().invoke(main, ["limit", "--snr", "200", "-n", "5", "-o", str(tmp_path / "limits.csv")])
    assert result.exit_code == 0
    assert result.output.split()[:4] == ["snr", "label", "unit", "rms"]
    assert (tmp_path / "limits.csv").read_text(encoding="utf-8").startswith("snr,label,unit,rms,p5")


@pytest.mark.parametrize("snr", [(0, 0), (-5, -5), (200, 100), (np.nan, np.nan), (100, np.inf)])
def test_a_signal_to_noise_ratio_is_above_zero(snr):
    with pytest.raises(GridError, match="is no range above zero"):
        limits(None, [snr], 5)
    with pytest.raises(GridError, match="rv: 5 to -5 is no range"):
        limits(None, [(100, 100)], 5, rv=(5, -5))


def test_an_empty_range_is_refused():
    with pytest.raises(GridError, match="vsini: the range is empty"):
        limits(None, [(100, 100)], 5, ranges={"vsini": (0, 0)})


# --- stars whose labels are known -----------------------------------------------------


def test_known_stars_have_the_bound_of_their_labels_and_those_outside_of_the_grid_none():
    grid = SpectralGrid.open()
    stars = {"teff": [5000, 9000], "logg": [4, 4], "feh": [0, 0], "vmic": [1, 1], "vsini": [10, 10]}
    found = star_bounds(grid, WAVELENGTH, stars, [100, 100], rv=[20, 20], resolution=11000)
    synthesizer = Synthesizer.build(grid, WAVELENGTH, resolution=11000, max_rv=21, max_vsini=40, dtype=np.float64)
    ranges = [*((axis.low, axis.high) for axis in grid.axes), (0, 40)]
    alone = bound(information_of(synthesizer, 5000, 4, 0, 1, 10, rv=20), 100, ranges)[0]
    assert [found[name][0] for name in stars] == pytest.approx(alone, rel=1e-3)
    assert all(np.isnan(values[1]) for values in found.values())


def test_a_star_that_lacks_half_of_the_pixels_has_the_bound_of_the_other_half():
    grid, half = SpectralGrid.open(), WAVELENGTH.n_pixel // 2
    stars = {"teff": [5000, 6000], "logg": [4, 3], "feh": [0, -0.3], "vmic": [1, 2], "vsini": [10, 5]}
    known = np.ones((2, WAVELENGTH.n_pixel), dtype=bool)
    known[1, :half] = False
    template = np.linspace(1, 2, WAVELENGTH.n_pixel)
    found = star_bounds(grid, WAVELENGTH, stars, 100, rv=20, template=template, known=known, fwhm=0.6)
    whole = star_bounds(grid, WAVELENGTH, stars, 100, rv=20, template=template, fwhm=0.6)
    red = Grid(WAVELENGTH.wavelength[half:], WAVELENGTH.medium)
    other = star_bounds(grid, red, stars, 100, rv=20, template=template[half:], fwhm=0.6)
    for name in stars:
        assert found[name] == pytest.approx([whole[name][0], other[name][1]], rel=1e-3)
        assert found[name][1] > whole[name][1]


def test_a_star_with_fewer_pixels_than_unknowns_has_no_bound():
    stars = {name: [value] * 2 for name, value in {"teff": 5000, "logg": 4, "feh": 0, "vmic": 1, "vsini": 10}.items()}
    known = np.zeros((2, WAVELENGTH.n_pixel), dtype=bool)
    known[0, ::10] = known[1, ::200] = True
    found = star_bounds(SpectralGrid.open(), WAVELENGTH, stars, 100, known=known, fwhm=0.6)
    assert all(np.isfinite(bound).tolist() == [True, False] for bound in found.values())
    with pytest.raises(GridError, match="none of the 1 stars lies inside the grid with more pixels than unknowns"):
        star_bounds(
            SpectralGrid.open(), WAVELENGTH, {name: values[:1] for name, values in stars.items()}, 100,
            known=known[1:], fwhm=0.6,
        )  # fmt: skip


def test_a_bound_needs_every_label_of_the_grid():
    with pytest.raises(GridError, match="needs the true feh, vmic, vsini of every star"):
        star_bounds(SpectralGrid.open(), WAVELENGTH, {"teff": [5000], "logg": [4]}, 100, fwhm=0.6)


def test_the_stars_of_the_reference_task_have_the_known_bound(shared):
    from anna_onnx.legacy import open_training_set

    stars = open_training_set(shared / "valid_1000.bin", ["teff", "logg", "feh", "vmic", "vsini"])
    found = star_bounds(
        SpectralGrid.open(),
        stars.grid,
        dict(zip(stars.label_names, stars.labels.T, strict=True)),
        np.random.default_rng(1).uniform(175, 250, len(stars)),
        rv=stars.aux["dummy"],
        template=read_template(shared / "sn.robo.template", stars.grid),
        ranges={"logg": (2.7, 4.8), "feh": (-0.5, 0.2)},
        fwhm=0.6,
    )
    bounds = np.stack([found[name] for name in stars.label_names], axis=1)
    assert np.sqrt(np.mean(bounds**2, axis=0))[:3] == pytest.approx([38, 0.110, 0.0201], rel=0.1)
    assert np.median(bounds, axis=0) == pytest.approx([25, 0.077, 0.0158, 0.065, 0.51], rel=0.1)
