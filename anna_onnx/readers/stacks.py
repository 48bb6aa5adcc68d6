"""Training sets: spectra that share their wavelengths, read one by one or many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from anna_onnx.arrays import BoolArray, FloatArray, Floats
from anna_onnx.pieces import slices
from anna_onnx.spectrum import Source, Spectrum

from .assembly import assemble
from .facts import Facts, finite
from .options import ReadOptions

_PIXELS = 1 << 20  # read at a time


class Rows(NamedTuple):
    """Some spectra of a training set.

    Attributes
    ----------
    flux : array of float32 or float64, shape (n, n_pixel)
    ids : sequence of str, shape (n,)
    sigma : array, shape (n, n_pixel), or None
    bad : array of bool, shape (n, n_pixel), or None
    radial_velocity : array, shape (n,), or None
        km/s.
    """

    flux: Floats
    ids: Sequence[str]
    sigma: Floats | None = None
    bad: BoolArray | None = None
    radial_velocity: FloatArray | None = None


class Stack(NamedTuple):
    """A training set, its spectra still on the disk.

    Attributes
    ----------
    path : str
    n : int
    wavelength : array of float64, shape (n_pixel,)
        Angstrom.
    facts : Facts
        Of all its spectra.
    read : callable
        Yields the `Rows` of each of the slices that it is given.
    """

    path: str
    n: int
    wavelength: FloatArray
    facts: Facts
    read: Callable[[Sequence[slice]], Iterator[Rows]]

    def spectra(self, options: ReadOptions) -> Iterator[Spectrum]:
        """Yield the spectra one by one."""
        places = list(slices(self.n, max(1, _PIXELS // max(1, self.wavelength.size))))
        for place, rows in zip(places, self.read(places), strict=True):
            for i, flux in enumerate(rows.flux):
                velocity = None if rows.radial_velocity is None else finite(rows.radial_velocity[i])
                yield assemble(
                    self.wavelength,
                    flux,
                    self.facts.known(id=rows.ids[i], radial_velocity=velocity),
                    Source(self.path, row=place.start + i),
                    options,
                    sigma=None if rows.sigma is None else rows.sigma[i],
                    bad=None if rows.bad is None else rows.bad[i],
                )
