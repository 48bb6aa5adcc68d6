"""Training sets from grids of synthetic spectra."""

from anna_onnx.synthesis.continuation import continued
from anna_onnx.synthesis.grid import Axis, SpectralGrid
from anna_onnx.synthesis.simulation import WAVELENGTH, simulate, wavelength_grid
from anna_onnx.synthesis.synthesizer import Synthesizer

__all__ = ["WAVELENGTH", "Axis", "SpectralGrid", "Synthesizer", "continued", "simulate", "wavelength_grid"]
