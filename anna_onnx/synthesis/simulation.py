"""Draw a training set from a grid of synthetic spectra."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from anna_onnx._version import __version__
from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.cores import processes_for, usable_cores
from anna_onnx.errors import GridError, ResultError, SpectrumError
from anna_onnx.files import make_folder, replacing
from anna_onnx.labels import nearest
from anna_onnx.pieces import in_order
from anna_onnx.progress import Progress, silent
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSet, TrainingSetWriter

from .grid import SpectralGrid
from .synthesizer import ROTATION, Synthesizer

Range = tuple[float, float]

WAVELENGTH = Grid(np.linspace(6625.0, 6825.0, 1001, dtype=np.float64), "air")
"""Output wavelengths unless others are given: ANNA's tutorial, 6625-6825 Å in air in steps of 0.2 Å."""
DEFAULT_FWHM = 0.6
"""Full width at half maximum of the instrument's profile, Å, unless another is given."""
RV: Range = (-100.0, 100.0)
VSINI: Range = (0.0, 40.0)

MOST_PIXELS = 10**6  # of a spectrum
_BLOCK = 250  # spectra drawn at once, from one seed: small enough for the processor's cache
_WORTH_A_PROCESS = 2500  # spectra; to start a process costs half a second


@dataclass(frozen=True, eq=False)
class Recipe:
    """What to draw: labels and radial velocities uniform in their ranges.

    Made by `simulate`, which checks it against the grid.

    Attributes
    ----------
    spectra : SpectralGrid
    grid : Grid, shape (n_pixel,)
        Output wavelengths.
    ranges : dict of str to (float, float)
        For each label in the order of `Synthesizer.label_names`.
    rv : (float, float)
        Radial velocity, km/s.
    fwhm, resolution : float or None
        Of the instrument's Gaussian profile, see `Synthesizer.build`.
    limb_darkening : float
    snr : float or None
        Standard deviation of the continuum's Gaussian white noise is 1 / snr; None: no noise.
    seed : int
    """

    spectra: SpectralGrid
    grid: Grid
    ranges: dict[str, Range]
    rv: Range
    fwhm: float | None
    resolution: float | None
    limb_darkening: float
    snr: float | None
    seed: int

    def synthesizer(self) -> Synthesizer:
        """Prepare the synthesizer for these ranges."""
        return Synthesizer.build(
            self.spectra,
            self.grid,
            fwhm=self.fwhm,
            resolution=self.resolution,
            limb_darkening=self.limb_darkening,
            max_rv=max(abs(v) for v in self.rv),
            max_vsini=self.ranges[ROTATION][1],
        )


@dataclass(frozen=True, eq=False)
class DrawnBlock:
    """A block of spectra: flux (n, n_pixel), labels (n, n_label), rv (n,) in km/s, id (n,) counted from 1."""

    flux: Float32Array
    labels: FloatArray
    rv: FloatArray
    id: FloatArray


def simulate(
    grid: SpectralGrid | str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    n: int,
    *,
    seed: int = 1,
    wavelength: Grid = WAVELENGTH,
    ranges: Mapping[str, Range] | None = None,
    rv: Range = RV,
    fwhm: float | None = None,
    resolution: float | None = None,
    limb_darkening: float = 0.6,
    snr: float | None = None,
    fits: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    progress: Progress = silent,
) -> None:
    """Draw spectra at random from a grid and write them as a training set, or as FITS files, or both.

    The same seed gives the same spectra, however many processes draw them.

    Parameters
    ----------
    grid : SpectralGrid or path-like or None
        None: the grid that comes with anna-onnx.
    output : path-like or None
        HDF5 training set with the radial velocities in ``aux/rv``.
    n : int
        Number of spectra.
    seed : int
    wavelength : Grid
    ranges : mapping of str to (float, float), optional
        Ranges of labels; by default the whole of each axis, vsini 0-40 km/s.
    rv : (float, float)
        Range of radial velocities, km/s.
    fwhm, resolution : float, optional
        Of the instrument: Angstrom, or wavelength / FWHM. By default a
        FWHM of 0.6 Å; 0 for a grid that has the instrument's profile already.
    limb_darkening : float
    snr : float, optional
        Adds white noise, with its sigma; none by default, because training
        draws fresh noise for every look at a spectrum.
    fits : path-like, optional
        Folder for one FITS file a spectrum, the true labels in the header.
    processes : int, optional
        By default one for every 2500 spectra, at most as many as there are
        cores. With 1 all is done in this process; with more, a script needs
        the usual ``if __name__ == "__main__":``.
    progress : Progress

    Raises
    ------
    GridError
        If the grid does not reach as far as the ranges, or `snr` or `seed` cannot be such.
    ResultError
        If a file cannot be written, or `output` is not named as HDF5.
    """
    if output is not None and Path(output).suffix.lower() not in (".h5", ".hdf5"):
        raise ResultError(f"{output}: a training set is written as .h5; FITS files, one a spectrum, go into a folder")
    if snr is not None and not 0 < snr < np.inf:
        raise GridError(f"S/N {snr:g}: needed a number above zero")
    if not 0 <= seed < 2**63:
        raise GridError(f"seed {seed}: needed a whole number from 0 to 2**63 - 1")
    spectra = grid if isinstance(grid, SpectralGrid) else SpectralGrid.open(grid)
    recipe = Recipe(
        spectra=spectra,
        grid=wavelength,
        ranges=label_ranges(spectra, ranges or {}),
        rv=ascending("rv", rv),
        fwhm=DEFAULT_FWHM if fwhm is None and resolution is None else fwhm,
        resolution=resolution,
        limb_darkening=limb_darkening,
        snr=snr,
        seed=seed,
    )
    units = recipe.synthesizer().label_units  # refuses what cannot be drawn before a file is opened
    blocks = draw(recipe, n, processes=processes)
    if fits is not None:
        blocks = _also_fits(blocks, recipe, Path(fits))
    if output is not None:
        blocks = _also_hdf5(blocks, recipe, Path(output), n, units)
    done = 0
    for block in blocks:
        done += len(block.id)
        progress(done, n)


def label_ranges(spectra: SpectralGrid, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the range of every label: those given, and else the whole of its axis.

    Raises
    ------
    GridError
        If a label is unknown, or a range reaches beyond its axis.
    """
    limits = {axis.name: (axis.low, axis.high) for axis in spectra.axes}
    for name in ranges:
        if name not in (*limits, ROTATION):
            known = [*limits, ROTATION]
            raise GridError(f"{spectra.path}: no label '{name}', it has {', '.join(known)}{nearest(name, known)}")
    complete = {name: ascending(name, ranges.get(name, limit)) for name, limit in (limits | {ROTATION: VSINI}).items()}
    for name, (low, high) in complete.items():
        lowest, highest = limits.get(name, (0.0, np.inf))
        if low < lowest or high > highest:
            raise GridError(f"{spectra.path}: {name} {low:g} to {high:g} asked, the grid has {lowest:g} to {highest:g}")
    return complete


def wavelength_grid(text: str, medium: Literal["air", "vacuum"] = "air") -> Grid:
    """Make the output wavelengths from ``first:last:step`` in Angstrom, or from a file.

    A training set (.h5) brings its medium along; of a text file the first
    column is taken, like ANNA's WAVE_TEMPLATE.

    Raises
    ------
    GridError
        If it is neither.
    """
    path = Path(text)
    if path.suffix in (".h5", ".hdf5"):
        return TrainingSet.open(path).grid
    try:
        if path.is_file():
            return Grid(np.loadtxt(path, usecols=0), medium)
        first, last, step = (float(part) for part in text.split(":"))
        if not (last > first and step > 0):
            raise ValueError("last must be above first, and step above zero")
        n_pixel = round((last - first) / step) + 1
        if n_pixel > MOST_PIXELS:
            raise ValueError(f"{n_pixel} pixels, at most {MOST_PIXELS}")
        return Grid(first + step * np.arange(n_pixel, dtype=np.float64), medium)
    except (OverflowError, ValueError, SpectrumError) as error:
        raise GridError(f"wavelengths '{text}': needed a file or first:last:step in Å ({error})") from None


def ascending(name: str, values: Range) -> Range:
    """Return a range as it is; GridError if it is none."""
    low, high = values
    if not -np.inf < low <= high < np.inf:
        raise GridError(f"{name}: {low:g} to {high:g} is no range")
    return float(low), float(high)


def draw(recipe: Recipe, n: int, *, processes: int | None = None) -> Iterator[DrawnBlock]:
    """Draw `n` spectra, block by block in order, in this process or in several."""
    if processes is None:
        processes = min(usable_cores(), 1 + n // _WORTH_A_PROCESS)
    processes = processes_for(processes)
    starts = range(0, n, _BLOCK)
    sizes = [min(_BLOCK, n - start) for start in starts]
    if processes <= 1:
        synthesizer = recipe.synthesizer()
        yield from (_draw_block(recipe, synthesizer, *block) for block in zip(starts, sizes, strict=True))
        return
    context = get_context("spawn")  # a fork would inherit locks that another thread holds
    with _single_threaded_children(), ProcessPoolExecutor(processes, context, _start_worker, (recipe,)) as pool:
        blocks = zip(starts, sizes, strict=True)
        # Bounded where the disk is slower than the drawing.
        for drawn in in_order(lambda block: pool.submit(_draw_in_worker, *block), blocks, 3 * processes + 1):
            yield drawn.result()


def _draw_block(recipe: Recipe, synthesizer: Synthesizer, start: int, size: int) -> DrawnBlock:
    """Draw the spectra that are numbered from `start` on, from a seed of their own."""
    rng = np.random.default_rng([recipe.seed, start])
    low, high = np.array(list(recipe.ranges.values())).T
    labels = rng.uniform(low, high, (size, low.size))
    rv = rng.uniform(*recipe.rv, size)
    flux = synthesizer(labels, rv)
    if recipe.snr is not None:
        flux = flux + rng.standard_normal(flux.shape, dtype=np.float32) / np.float32(recipe.snr)
    return DrawnBlock(flux, labels, rv, np.arange(start + 1, start + size + 1, dtype=np.float64))


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes started in this block multiply matrices with one thread each, not one for every core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: tuple[Recipe, Synthesizer]


def _start_worker(recipe: Recipe) -> None:
    global _worker
    _worker = recipe, recipe.synthesizer()


def _draw_in_worker(start: int, size: int) -> DrawnBlock:
    return _draw_block(*_worker, start, size)


def _also_hdf5(
    blocks: Iterable[DrawnBlock], recipe: Recipe, path: Path, n: int, units: Sequence[str]
) -> Iterator[DrawnBlock]:
    """Pass blocks on as they are written to a training set."""
    noisy = recipe.snr is not None
    with TrainingSetWriter(
        path,
        recipe.grid,
        list(recipe.ranges),
        units,
        n,
        sigma=noisy,
        aux={"rv": "f8"},
        attrs=_provenance(recipe),
    ) as writer:
        for block in blocks:
            sigma = np.full(block.flux.shape, 1 / recipe.snr, np.float32) if recipe.snr is not None else None
            writer.append(block.flux, block.labels, block.id, sigma=sigma, aux={"rv": block.rv})
            yield block


def _provenance(recipe: Recipe) -> dict[str, object]:
    """Return what made the set, to be stored in it."""
    instrument = {"fwhm": recipe.fwhm, "resolution": recipe.resolution, "snr": recipe.snr}
    return {
        "made_by": f"anna-onnx {__version__}, anna simulate",
        "grid": recipe.spectra.path.name,
        "grid_source": str(recipe.spectra.attrs.get("source", "")),
        "seed": recipe.seed,
        "limb_darkening": recipe.limb_darkening,
        **{name: value for name, value in instrument.items() if value is not None},
    }


def _also_fits(blocks: Iterable[DrawnBlock], recipe: Recipe, folder: Path) -> Iterator[DrawnBlock]:
    """Pass blocks on as each spectrum is written to a FITS file."""
    wavelength = recipe.grid.wavelength
    step = (wavelength[-1] - wavelength[0]) / (wavelength.size - 1)
    if np.abs(np.diff(wavelength) - step).max() > 1e-3 * step:
        raise GridError("FITS files need equidistant wavelengths; write HDF5, or give --wavelength first:last:step")
    make_folder(folder)
    axis = {
        "CRPIX1": (1.0, "reference pixel"),
        "CRVAL1": (wavelength[0], "[Angstrom] wavelength there"),
        "CDELT1": (step, "[Angstrom] a pixel"),
        "CTYPE1": ("AWAV" if recipe.grid.medium == "air" else "WAVE", f"wavelength in {recipe.grid.medium}"),
        "CUNIT1": ("Angstrom", ""),
        "SPECSYS": ("TOPOCENT", "as observed: the radial velocity is in it"),
        "GRID": (recipe.spectra.path.name, "grid of synthetic spectra"),
    }
    if resolution := recipe.resolution or (recipe.fwhm and wavelength.mean() / recipe.fwhm):
        axis["SPEC_RES"] = (round(float(resolution), 1), "resolving power, wavelength / FWHM")
    if recipe.snr is not None:
        axis["SNR"] = (recipe.snr, "signal to noise of the continuum, a pixel")
    for block in blocks:
        for i in range(len(block.id)):
            _write_fits(folder, axis, recipe, block, i)
        yield block


def _write_fits(folder: Path, axis: Mapping[str, object], recipe: Recipe, block: DrawnBlock, i: int) -> None:
    from astropy.io import fits

    number = int(block.id[i])
    header = fits.Header()
    header["OBJECT"] = f"star {number}"
    for keyword, card in axis.items():
        header[keyword] = card
    for name, value in zip(recipe.ranges, block.labels[i], strict=True):
        header[f"HIERARCH {name}" if len(name) > 8 else name] = (value, "true value")
    header["RV"] = (block.rv[i], "[km/s] true radial velocity")
    path = folder / f"star_{number:05d}.fits"
    with replacing(path) as partial:
        fits.PrimaryHDU(block.flux[i], header).writeto(partial, overwrite=True)
