"""The Cramér-Rao bound: how well any method can know each label from a spectrum."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.arrays import BoolArray, FloatArray
from anna_onnx.errors import GridError, MissingExtraError, ResultError
from anna_onnx.files import replacing
from anna_onnx.labels import difference_unit
from anna_onnx.pieces import slices
from anna_onnx.progress import Progress, silent
from anna_onnx.resampling import Grid
from anna_onnx.synthesis import WAVELENGTH, SpectralGrid, Synthesizer
from anna_onnx.synthesis.simulation import DEFAULT_FWHM, RV, Range, ascending, label_ranges
from anna_onnx.synthesis.synthesizer import ROTATION

if TYPE_CHECKING:
    from astropy.table import Table


PERCENTILES = (5, 16, 50, 84, 95)
UNCONSTRAINED = 0.5
"""A bound above this part of what the range alone says means that the spectra hardly constrain the label."""

N_NUISANCE = 2  # the radial velocity, and the level of the continuum

_STEP = 0.003  # of numerical derivatives, in widths of a label's axis
_RV_STEP = 0.1  # km/s
_BLOCK = 200  # stars whose derivatives are held at once


def fisher_information(
    synthesizer: Synthesizer,
    labels: FloatArray,
    rv: FloatArray,
    template: FloatArray | None = None,
    known: BoolArray | None = None,
    progress: Progress = silent,
) -> FloatArray:
    """Return the Fisher matrices of spectra with a signal-to-noise ratio of 1.

    The sum over pixels of products of the flux's derivatives over the
    variance of the noise (Tegmark, Taylor & Heavens 1997, ApJ 480, 22, eq. 15). What has to be inferred with the
    labels though nobody asks for it comes after them: the radial velocity, and an offset of the continuum.

    Parameters
    ----------
    synthesizer : Synthesizer
        Best built in float64.
    labels : array, shape (n, n_label)
    rv : array, shape (n,)
        True radial velocity, km/s.
    template : array, shape (n_pixel,), optional
        S/N of each pixel relative to the continuum's of the star; 1 by default.
    known : array of bool, shape (n, n_pixel), optional
        The pixels that each star has; all by default.
    progress : Progress

    Returns
    -------
    information : array of float64, shape (n, n_label + 2, n_label + 2)
    """
    matrices = []
    for rows in slices(len(labels), _BLOCK):
        signal = _derivatives(synthesizer, labels[rows], rv[rows])
        if template is not None:
            signal *= template
        if known is not None:
            signal *= known[rows, np.newaxis]
        matrices.append(signal @ signal.transpose(0, 2, 1))
        progress(rows.stop, len(labels))
    return np.concatenate(matrices)


def _derivatives(synthesizer: Synthesizer, labels: FloatArray, rv: FloatArray) -> FloatArray:
    """Return the flux's derivatives in the labels, the velocity and the offset, shape (n, n_label + 2, n_pixel).

    Central differences that stay inside the grid.
    """
    ranges = [(axis.low, axis.high) for axis in synthesizer.axes] + [(0.0, synthesizer.max_vsini)]
    derivatives = []
    for i, (low, high) in enumerate(ranges):
        step = _STEP * (high - low)
        above, below = labels.copy(), labels.copy()
        above[:, i] = np.clip(labels[:, i] + step, low + 2 * step, high)
        below[:, i] = above[:, i] - 2 * step
        derivatives.append((synthesizer(above, rv) - synthesizer(below, rv)) / (2 * step))
    fastest = np.minimum(rv + _RV_STEP, synthesizer.max_rv)
    moved = synthesizer(labels, fastest) - synthesizer(labels, fastest - 2 * _RV_STEP)
    return np.stack([*derivatives, moved / (2 * _RV_STEP), np.ones_like(moved)], axis=1)


def bound(information: FloatArray, snr: ArrayLike, ranges: Sequence[Range]) -> FloatArray:
    """Return the bounds on labels, the square roots of the diagonal of the inverse Fisher matrix.

    Parameters
    ----------
    information : array, shape (n, k, k)
        At a S/N of 1, see `fisher_information`.
    snr : array_like, shape (n,) or ()
        Signal to noise of the continuum, a pixel, where the template is 1.
    ranges : sequence of (float, float)
        Of the labels, the first of the k: prior knowledge, a Gaussian of the variance (high - low)² / 12.

    Returns
    -------
    bound : array of float64, shape (n, n_label)
        In the labels' units.
    """
    prior = np.zeros(information.shape[-1])
    prior[: len(ranges)] = [12 / (high - low) ** 2 for low, high in ranges]
    squared = np.square(np.asarray(snr, dtype=np.float64))[..., None, None]
    covariance = np.linalg.inv(squared * information + np.diag(prior))
    return np.asarray(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, : len(ranges)]))


@dataclass(frozen=True, eq=False)
class Limits:
    """Bounds of a sample of stars, at several signal-to-noise ratios.

    Attributes
    ----------
    label_names, label_units : tuple of str
    ranges : tuple of (float, float)
    labels : array of float64, shape (n, n_label)
    snr : tuple of (float, float)
        The range of each set of bounds; both ends alike for a single value.
    bounds : array of float64, shape (n_snr, n, n_label)
    """

    label_names: tuple[str, ...]
    label_units: tuple[str, ...]
    ranges: tuple[Range, ...]
    labels: FloatArray
    snr: tuple[Range, ...]
    bounds: FloatArray

    def table(self) -> Table:
        """Return an astropy Table: a row for each S/N and label, with rms and percentiles over the stars.

        ``share_of_range`` is the rms over what the label's range alone says,
        (high - low) / sqrt(12): near 1 the spectra say nothing.
        """
        from astropy.table import Table

        rows = []
        for snr, bounds in zip(self.snr, self.bounds, strict=True):
            rms = np.sqrt(np.mean(bounds**2, axis=0))
            percentiles = np.percentile(bounds, PERCENTILES, axis=0)
            for i, (name, (low, high)) in enumerate(zip(self.label_names, self.ranges, strict=True)):
                share = rms[i] * np.sqrt(12) / (high - low)
                rows.append((_text(snr), name, difference_unit(self.label_units[i]), rms[i], *percentiles[:, i], share))
        names = ["snr", "label", "unit", "rms", *[f"p{p}" for p in PERCENTILES], "share_of_range"]
        return Table(rows=rows, names=names)

    def __str__(self) -> str:
        table = self.table()
        for name in table.colnames[3:]:
            table[name].info.format = ".3g"
        return "\n".join(table.pformat(max_lines=-1, max_width=-1))

    def warnings(self) -> list[str]:
        """Name the labels that the spectra hardly constrain, a line for each S/N."""
        weak = [row for row in self.table() if row["share_of_range"] > UNCONSTRAINED]
        return [f"S/N {row['snr']}: these spectra hardly constrain {row['label']}" for row in weak]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table as .csv or .ecsv.

        Raises
        ------
        ResultError
            If the name ends in anything else, or it cannot be written.
        """
        path = Path(path)
        formats = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}
        if path.suffix not in formats:
            raise ResultError(f"{path}: a table of limits is written as {' or '.join(formats)}")
        with replacing(path) as partial:
            self.table().write(partial, format=formats[path.suffix], overwrite=True)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Plot the bound of every star against the first label, a panel for each label, a colour for each S/N.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        ResultError
            If the name does not end as that of a plot, or it cannot be written.
        """
        path = Path(path)
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtraError("a plot", "plot") from None

        figure = Figure(figsize=(3.4 * len(self.label_names), 3.2), layout="constrained")
        panels = figure.subplots(1, len(self.label_names), squeeze=False)[0]
        for i, panel in enumerate(panels):
            for snr, bounds in zip(self.snr, self.bounds, strict=True):
                panel.semilogy(self.labels[:, 0], bounds[:, i], ".", ms=2, alpha=0.6, label=f"S/N {_text(snr)}")
            panel.set_xlabel(f"{self.label_names[0]} [{self.label_units[0]}]")
            panel.set_ylabel(f"smallest error of {self.label_names[i]} [{difference_unit(self.label_units[i])}]")
        panels[0].legend(markerscale=4, frameon=False)
        kinds = figure.canvas.get_supported_filetypes()
        if path.suffix[1:].lower() not in kinds:
            raise ResultError(f"{path}: a plot is written as {', '.join(f'.{kind}' for kind in kinds)}")
        with replacing(path) as partial:
            figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)


def _text(snr: Range) -> str:
    low, high = snr
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def limits(
    grid: SpectralGrid | str | os.PathLike[str] | None,
    snr: Sequence[Range],
    n: int = 1000,
    *,
    seed: int = 1,
    wavelength: Grid = WAVELENGTH,
    ranges: Mapping[str, Range] | None = None,
    rv: Range = RV,
    fwhm: float | None = None,
    resolution: float | None = None,
    limb_darkening: float = 0.6,
    template: FloatArray | None = None,
    progress: Progress = silent,
) -> Limits:
    """Compute the Cramér-Rao bounds of stars at random places in the label space, see `star_bounds`.

    Parameters
    ----------
    grid : SpectralGrid or path-like or None
        None: the grid that comes with anna-onnx.
    snr : sequence of (float, float)
        Ranges in which each star's S/N is drawn; the same stars for all.
    n : int
        Number of stars.
    seed, wavelength, ranges, rv, fwhm, resolution, limb_darkening
        As for `anna_onnx.synthesis.simulate`.
    template : array, shape (n_pixel,), optional
        S/N of each pixel relative to `snr`.
    progress : Progress

    Raises
    ------
    GridError
        If the grid does not reach as far as the ranges, or a range is empty or none.
    """
    for low, high in snr:
        if not 0 < low <= high < np.inf:
            raise GridError(f"S/N: {low:g} to {high:g} is no range above zero")
    rv = ascending("rv", rv)
    spectra = grid if isinstance(grid, SpectralGrid) else SpectralGrid.open(grid)
    complete = label_ranges(spectra, ranges or {})
    fixed = [name for name, (low, high) in complete.items() if low == high]
    if fixed:
        raise GridError(f"{', '.join(fixed)}: the range is empty, so there is nothing to infer")
    synthesizer = Synthesizer.build(
        spectra,
        wavelength,
        fwhm=DEFAULT_FWHM if fwhm is None and resolution is None else fwhm,
        resolution=resolution,
        limb_darkening=limb_darkening,
        max_rv=max(abs(v) for v in rv) + _RV_STEP,
        max_vsini=complete["vsini"][1],
        dtype=np.float64,
    )
    rng = np.random.default_rng(seed)
    lowest, highest = np.array(list(complete.values())).T
    labels, velocity = rng.uniform(lowest, highest, (n, lowest.size)), rng.uniform(*rv, n)
    matrices = fisher_information(synthesizer, labels, velocity, template, progress=progress)
    spans = tuple(complete.values())
    return Limits(
        label_names=synthesizer.label_names,
        label_units=synthesizer.label_units,
        ranges=spans,
        labels=labels,
        snr=tuple(snr),
        bounds=np.stack([bound(matrices, rng.uniform(*between, n), spans) for between in snr]),
    )


def star_bounds(
    spectra: SpectralGrid,
    wavelength: Grid,
    labels: Mapping[str, FloatArray],
    snr: ArrayLike,
    *,
    rv: ArrayLike = 0.0,
    template: FloatArray | None = None,
    known: BoolArray | None = None,
    ranges: Mapping[str, Range] | None = None,
    fwhm: float | None = None,
    resolution: float | None = None,
    progress: Progress = silent,
) -> dict[str, FloatArray]:
    """Compute the smallest standard deviation that an unbiased estimate of each label can have, star by star.

    All other labels, the radial velocity and the level of the continuum are unknown too. A label's range is prior
    knowledge, a Gaussian of the same variance, (high - low)² / 12.

    Flux is even in vsini and vmic, so that near zero its derivative vanishes
    and the prior is all that is left. There the local bound is no limit: an
    estimate of finite width knows that the label is small.

    Parameters
    ----------
    spectra : SpectralGrid
    wavelength : Grid
        Of the observed spectra.
    labels : mapping of str to array, shape (n,)
        Every label of the grid, vsini included.
    snr : array_like, shape (n,)
        Signal to noise of the continuum, a pixel, where `template` is 1.
    rv : array_like, shape (n,) or ()
        True radial velocity, km/s.
    template : array, shape (n_pixel,), optional
        S/N of each pixel relative to `snr`; 1 by default.
    known : array of bool, shape (n, n_pixel), optional
        The pixels that each star has; all by default.
    ranges : mapping of str to (float, float), optional
        Prior knowledge on labels; by default the whole axis, vsini 0-40 km/s.
    fwhm, resolution : float, optional
        Of the instrument; see `Synthesizer.build`.
    progress : Progress

    Returns
    -------
    bounds : dict of str to array, shape (n,)
        NaN for a star outside of the grid, and for one that has no more pixels than unknowns.

    Raises
    ------
    GridError
        If a label is not given, or the grid does not reach as far as the pixels and velocities.
    """
    names = (*spectra.axis_names, ROTATION)
    missing = [name for name in names if name not in labels]
    if missing:
        raise GridError(f"{spectra.path.name}: the bound needs the true {', '.join(missing)} of every star")
    values = np.stack([np.asarray(labels[name], dtype=np.float64) for name in names], axis=1)
    complete = label_ranges(spectra, {})
    low, high = np.array([*list(complete.values())[:-1], (0.0, np.inf)]).T
    chosen = ((values >= low) & (values <= high)).all(axis=1)
    if known is not None:
        chosen &= known.sum(axis=1) > len(names) + N_NUISANCE
    if not chosen.any():
        raise GridError(
            f"{spectra.path.name}: none of the {len(values)} stars lies inside the grid with more pixels than unknowns"
        )
    velocity = np.broadcast_to(np.asarray(rv, dtype=np.float64), len(values))[chosen]
    synthesizer = Synthesizer.build(
        spectra,
        wavelength,
        fwhm=fwhm,
        resolution=resolution,
        max_rv=float(np.abs(velocity).max()) + _RV_STEP,
        max_vsini=max(complete[ROTATION][1], float(values[chosen, -1].max())),
        dtype=np.float64,
    )
    pixels = None if known is None else known[chosen]
    information = fisher_information(synthesizer, values[chosen], velocity, template, pixels, progress)
    prior = [(ranges or {}).get(name, complete[name]) for name in names]
    found = np.full(values.shape, np.nan)
    found[chosen] = bound(information, np.broadcast_to(snr, len(values))[chosen], prior)
    return dict(zip(names, found.T, strict=True))
