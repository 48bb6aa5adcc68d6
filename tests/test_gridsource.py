"""Training straight from a grid: the same spectra as `anna simulate`, drawn in torch."""

from __future__ import annotations

import numpy as np
import pytest

from anna_onnx.errors import GridError
from anna_onnx.synthesis import WAVELENGTH, SpectralGrid, Synthesizer

torch = pytest.importorskip("torch")

from anna_onnx.training.gridsource import GridSource

GRID = SpectralGrid.open()


def generator(seed: int = 1):
    return torch.Generator().manual_seed(seed)


def test_torch_and_numpy_make_the_same_spectra():
    source = GridSource(GRID, WAVELENGTH, fwhm=0.6)
    _, labels, _ = source.draw(50, generator())
    rv = torch.linspace(-100, 100, 50, dtype=torch.float64)
    exact = Synthesizer.build(GRID, WAVELENGTH, fwhm=0.6, max_rv=100, max_vsini=40, dtype=np.float64)
    assert source.synthesize(labels, rv).numpy() == pytest.approx(exact(labels.numpy(), rv.numpy()), abs=2e-6)


def test_labels_are_uniform_in_their_ranges():
    source = GridSource(GRID, WAVELENGTH, fwhm=0.6, ranges={"teff": (5000, 6000), "vsini": (0, 10)}, rv=(-5, 5))
    flux, labels, rv = source.draw(4000, generator())
    assert -5 <= float(rv.min()) < -4.9 < 4.9 < float(rv.max()) <= 5
    assert (flux.dtype, labels.dtype) == (torch.float32, torch.float64)
    assert flux.shape == (4000, 1001)
    low, high = torch.tensor(list(source.ranges.values()), dtype=torch.float64).T
    uniform = (labels - low) / (high - low)
    assert uniform.mean(0).numpy() == pytest.approx(0.5, abs=0.025)
    assert uniform.var(0).numpy() == pytest.approx(1 / 12, rel=0.07)


def test_the_same_seed_draws_the_same_stars_in_blocks_of_any_size():
    first, second = (GridSource(GRID, WAVELENGTH, fwhm=0.6, block=block).draw(100, generator(3)) for block in (7, 100))
    assert torch.equal(first[1], second[1])
    assert first[0].numpy() == pytest.approx(second[0].numpy(), abs=2e-6)


def test_no_spectrum_comes_twice():
    source, stream = GridSource(GRID, WAVELENGTH, fwhm=0.6), generator()
    assert not torch.equal(source.draw(5, stream)[1], source.draw(5, stream)[1])


def test_labels_may_come_from_another_distribution():
    def suns(n, _generator):
        return torch.tensor([[5772.0, 4.44, 0.0, 1.0, 1.8]]).repeat(n, 1)

    _, labels, _ = GridSource(GRID, WAVELENGTH, fwhm=0.6, sample=suns).draw(3, generator())
    assert labels[2].tolist() == pytest.approx([5772, 4.44, 0, 1, 1.8])


def test_an_instrument_must_be_named():
    with pytest.raises(GridError, match="give fwhm"):
        GridSource(GRID, WAVELENGTH)
