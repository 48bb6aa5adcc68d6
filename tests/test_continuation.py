"""A grid continued beyond its edges: on the linear part of the curve of growth that is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.errors import GridError
from anna_onnx.synthesis import SpectralGrid, continued
from anna_onnx.synthesis.compression import compress
from tests.test_synthesis import write_grid

FEH = np.array([-0.5, -0.25, 0.0, 0.25])
WAVELENGTH = np.arange(6700.0, 6704.0, 0.02)


def optically_thin(feh):
    """Return a spectrum of one line whose optical depth goes with the abundance."""
    line = 0.3 * np.exp(-0.5 * ((WAVELENGTH - 6702.0) / 0.1) ** 2)
    return np.exp(-line * 10 ** np.asarray(feh)[..., None])


def spectra_of(grid: SpectralGrid) -> np.ndarray:
    """Return the spectra of all nodes, shape (n_axis, ..., n_pixel)."""
    parts = grid.read()
    flux = parts if grid.coefficients is None else parts[0] + grid.coefficients @ parts[1:]
    return flux.reshape(*[axis.values.size for axis in grid.axes], -1)


@pytest.fixture
def thin(tmp_path: Path) -> SpectralGrid:
    """Lines that grow with feh, and do not know of teff."""
    flux = np.repeat(optically_thin(FEH)[None], 3, axis=0)
    write_grid(tmp_path / "thin.h5", {"teff": np.array([5000.0, 5500.0, 6000.0]), "feh": FEH}, WAVELENGTH, flux)
    return SpectralGrid.open(tmp_path / "thin.h5")


def test_thin_lines_go_on_as_they_would(thin):
    longer = continued(thin, {"feh": (-1.2, 0.6)})
    feh = longer.axes[1].values
    assert feh == pytest.approx([-1.25, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75])
    assert spectra_of(longer)[1] == pytest.approx(optically_thin(feh), abs=1e-5)


def test_a_grid_of_components_goes_on_in_the_same_way(thin, tmp_path):
    compress(thin, tmp_path / "small.h5", n_component=3, fwhm=0.1)
    longer = continued(SpectralGrid.open(tmp_path / "small.h5"), {"feh": (-1.0, 0.25)})
    assert spectra_of(longer)[0] == pytest.approx(optically_thin(longer.axes[1].values), abs=5e-3)


def test_both_axes_go_on_at_once(thin):
    longer = continued(thin, {"feh": (-0.6, 0.25), "teff": (4000.0, 6100.0)})
    assert longer.axes[0].values.tolist() == [4000, 4500, 5000, 5500, 6000, 6500]
    assert spectra_of(longer)[0, 0] == pytest.approx(optically_thin(-0.75), abs=1e-5)


def test_the_embedded_grid_keeps_its_own_spectra():
    grid = SpectralGrid.open()
    longer = continued(grid, {"feh": (-1.0, 0.25)})
    change = spectra_of(longer)[:, :, 2:] - spectra_of(grid)
    assert np.abs(change).max() < 1e-4
    deepest = spectra_of(longer).min(axis=-1)[6, 4, :, 1]  # of 5500 K, log g 4.5, vmic 1
    assert (np.diff(deepest) < 0).all(), "lines grow with abundance"


def test_a_grid_that_reaches_far_enough_is_left_alone(thin):
    assert continued(thin, {"feh": (-0.4, 0.25)}) is thin


def test_a_velocity_is_not_continued_below_zero():
    with pytest.raises(GridError, match="vmic cannot be continued to -1, it has no values below zero"):
        continued(SpectralGrid.open(), {"vmic": (-1.0, 3.0)})


@pytest.mark.parametrize(("far", "named"), [((-1e9, 0.25), "from -0.5 to -1e"), ((-0.5, 50.0), "from 0.25 to 50")])
def test_a_grid_is_not_continued_without_end(thin, far, named):
    with pytest.raises(GridError, match=f"feh cannot be continued {named}.*, 20 nodes are the most"):
        continued(thin, {"feh": far})


@settings(max_examples=20, deadline=None)
@given(flux=st.lists(st.floats(-0.2, 1.3), min_size=4, max_size=4))
def test_whatever_a_grid_holds_its_continuation_is_a_spectrum(flux, tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "any.h5"
    write_grid(path, {"feh": FEH}, WAVELENGTH, np.repeat(np.array(flux)[:, None], WAVELENGTH.size, axis=1))
    outer = spectra_of(continued(SpectralGrid.open(path), {"feh": (-3.0, 3.0)}))
    added = np.r_[outer[:10], outer[14:]]
    assert added.min() > 0
    assert added.max() <= 1
