"""The S/N template: how the signal-to-noise ratio goes with wavelength, in two columns of a text file.

The first column is the wavelength in Angstrom, in the medium of the spectra, the second
the S/N relative to that of the spectrum; lines that begin with # are left out.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.errors import AnnaError
from anna_onnx.files import write_text
from anna_onnx.resampling import Grid


def read_template(path: str | os.PathLike[str], grid: Grid) -> FloatArray:
    """Read a template and interpolate it linearly onto a grid.

    Returns
    -------
    relative : array of float64, shape (n_pixel,)

    Raises
    ------
    AnnaError
        If it cannot be read, does not reach over the grid, or is not positive there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file without numbers
            table = np.loadtxt(path, usecols=(0, 1), ndmin=2)
        wavelength, relative = table[np.argsort(table[:, 0])].T
    except (OSError, ValueError, IndexError) as error:
        raise AnnaError(f"{path}: not an S/N template of two columns, wavelength and S/N ({error})") from error
    if not wavelength.size or wavelength[0] > grid.wavelength[0] or wavelength[-1] < grid.wavelength[-1]:
        covers = f"{wavelength[0]:.1f}-{wavelength[-1]:.1f} Å" if wavelength.size else "nothing"
        raise AnnaError(f"{path}: covers {covers}, needed {grid}")
    template = np.interp(grid.wavelength, wavelength, relative)
    if not (template > 0).all():
        raise AnnaError(f"{path}: the relative S/N must be positive from {grid}")
    return np.asarray(template)


def of_median_pixel(snr: Sequence[float], noise: float | np.floating) -> tuple[float, float]:
    """Return a range of S/N as a pixel of median noise has it, in three digits.

    Parameters
    ----------
    snr : (low, high)
        Where the relative noise is 1.
    noise : float
        Of a median pixel, relative.
    """
    low, high = (float(f"{level / noise:.3g}") for level in snr)
    return low, high


def write_template(path: str | os.PathLike[str], grid: Grid, relative: FloatArray, comment: str = "") -> None:
    """Write a template that `read_template` reads, complete or not at all."""
    lines = [f"# {line}" for line in (*comment.splitlines(), f"wavelength [Angstrom, {grid.medium}], relative S/N")]
    lines += [f"{x:.10g} {y:.6g}" for x, y in zip(grid.wavelength, relative, strict=True)]
    write_text(Path(path), "\n".join([*lines, ""]))
