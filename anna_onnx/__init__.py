"""Labels of stars from their spectra: train a network anywhere, infer anywhere."""

from anna_onnx._version import __version__

__all__ = ["__version__"]
