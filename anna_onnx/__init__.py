"""Labels of stars from their spectra: train a network anywhere, infer anywhere."""

import os
from typing import TYPE_CHECKING, Any

from anna_onnx._version import __version__

if TYPE_CHECKING:
    from anna_onnx.bundle import Bundle
    from anna_onnx.errors import AnnaError
    from anna_onnx.readers import iter_spectra, read_spectra
    from anna_onnx.spectrum import Spectrum

__all__ = ["AnnaError", "Bundle", "Spectrum", "__version__", "iter_spectra", "read_spectra"]

# onnxruntime from 1.29 on sends telemetry unless this stands before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AnnaError": "errors",
    "Bundle": "bundle",
    "Spectrum": "spectrum",
    "iter_spectra": "readers",
    "read_spectra": "readers",
}


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return __all__


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a command that needs none starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anna_onnx' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"anna_onnx.{_HOMES[name]}"), name)
