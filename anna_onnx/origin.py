"""What a model says of its making: its parameters, S/N template, instrument and grid of synthetic spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anna_onnx import config
from anna_onnx.arrays import FloatArray
from anna_onnx.bundle import Bundle
from anna_onnx.errors import AnnaError, GridError
from anna_onnx.labels import canonical
from anna_onnx.synthesis import SpectralGrid
from anna_onnx.synthesis.synthesizer import ROTATION


def settings_of(bundle: Bundle) -> config.Config | None:
    """Return the parameters that a model was trained with; None where it carries none that can be read."""
    text = bundle.sidecar.provenance.get("params")
    try:
        return config.loads(str(text)) if text else None
    except AnnaError:
        return None


def template_of(bundle: Bundle) -> FloatArray:
    """Return the relative S/N of each pixel with which a model was trained, shape (n_pixel,)."""
    n_pixel = bundle.sidecar.grid.n_pixel
    template = np.asarray(bundle.sidecar.provenance.get("snr_template") or np.ones(n_pixel), dtype=np.float64)
    if template.shape != (n_pixel,) or not (template > 0).all():
        raise AnnaError(f"{bundle.name}: an S/N template of shape {template.shape}, needed {n_pixel} positive numbers")
    return template


def instrument_of(
    bundle: Bundle, fwhm: float | None = None, resolution: float | None = None
) -> dict[str, float] | None:
    """Return the instrument of a model's training spectra, as `Synthesizer.build` takes it; None when not known.

    Parameters
    ----------
    bundle : Bundle
    fwhm, resolution : float, optional
        What the user says of it, Angstrom or wavelength / FWHM.
    """
    settings = settings_of(bundle)
    known: list[tuple[str, float | None]] = [("fwhm", fwhm), ("resolution", resolution)]
    if settings is not None:
        known += [("fwhm", settings.data.fwhm), ("resolution", settings.data.resolution)]
    known.append(("resolution", bundle.sidecar.preparation.resolution))
    return next(({name: value} for name, value in known if value is not None), None)


def grid_of(bundle: Bundle, asked: str | None = None) -> SpectralGrid:
    """Return the grid of synthetic spectra that belongs to a model.

    Parameters
    ----------
    bundle : Bundle
    asked : str, optional
        A file, or ``default`` for the one that comes with anna-onnx. Without
        it the grid that the model was trained from, if it is there, else
        the one that comes with anna-onnx.

    Raises
    ------
    GridError
        If the grid lacks a label of the model or does not cover its wavelengths.
    """
    settings = settings_of(bundle)
    name = asked or (settings.data.grid if settings is not None else None) or "default"
    if asked is None and not Path(name).is_file():
        name = "default"
    grid = SpectralGrid.open(None if name == "default" else name)
    names = (*grid.axis_names, ROTATION)
    missing = [label.name for label in bundle.sidecar.labels if canonical(label.name) not in names]
    if missing:
        raise GridError(f"{grid.path.name}: has no {', '.join(missing)}, its labels are {', '.join(names)}")
    own, needed = grid.wavelength, bundle.sidecar.grid.wavelength
    if own[0] > needed[0] or own[-1] < needed[-1]:
        raise GridError(f"{grid.path.name}: covers {own[0]:.1f}-{own[-1]:.1f} Å, needed {bundle.sidecar.grid}")
    return grid
