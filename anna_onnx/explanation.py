"""Explanation: which pixels of a spectrum drive its labels.

The network is run again with each pixel a little brighter and a little
fainter, and the labels that come out are compared. A single pixel tells little, since
no instrument makes features as narrow as that; so the derivatives are also summed
over the profile of a line that is not resolved: by how much does a label change when such a line
is 1 % of the continuum weaker?
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx.adoption import as_spectra
from anna_onnx.arrays import Float32Array, FloatArray
from anna_onnx.blocks import Block, Failure, Part, as_blocks, read_blocks
from anna_onnx.bundle import Bundle
from anna_onnx.drawing import draw
from anna_onnx.errors import AnnaError
from anna_onnx.files import make_folder, write_text
from anna_onnx.flags import Flag
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.labels import Label
from anna_onnx.pieces import slices
from anna_onnx.preparation import Prepared
from anna_onnx.progress import Progress, silent
from anna_onnx.readers.assembly import Unread
from anna_onnx.resampling import FWHM, Grid
from anna_onnx.results import Rows
from anna_onnx.session import BATCH, Session

MAX_SPECTRA = 100
"""Spectra of a run that are explained unless more are asked for."""

PERCENT = 0.01
"""By how much a pixel is made brighter and fainter, of the continuum."""

UNKNOWN_ELEMENT = 3.0
"""Pixels of a resolution element, where the model does not state its resolving power."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A spectrum as the network sees it, its labels, and what they depend on.

    Attributes
    ----------
    title : str
        File, HDU, row and name of the spectrum.
    labels : tuple of Label
    grid : Grid, shape (n_pixel,)
    flux : array of float32, shape (n_pixel,)
        Continuum = 1, NaN where the spectrum has no good pixel.
    mean : array, shape (n_pixel,), or None
        Mean training spectrum, if the model carries it.
    values, errors : arrays, shape (n_label,)
        As in the result table; `errors` hold 68 %.
    snr, coverage : float
    flags : Flag
    jacobian : array, shape (n_label, n_pixel)
        Change of a label, in its unit, when one pixel is brighter by 1 % of the continuum; NaN
        where the spectrum has no good pixel.
    response : array, shape (n_label, n_pixel)
        The same when an unresolved feature that is centred on the pixel is; see `respond`.
    """

    title: str
    labels: tuple[Label, ...]
    grid: Grid
    flux: Float32Array
    mean: FloatArray | None
    values: FloatArray
    errors: FloatArray
    snr: float
    coverage: float
    flags: Flag
    jacobian: FloatArray
    response: FloatArray


@dataclass(frozen=True)
class Explained:
    """What came of explaining a run.

    Attributes
    ----------
    pictures : int
        Written.
    missed : int
        Of the spectra looked at, those that could not be inferred.
    more : bool
        Whether there were further spectra.
    directory : Path
    """

    pictures: int
    missed: int
    more: bool
    directory: Path

    @property
    def text(self) -> str:
        """A line for a person to read."""
        noun = "picture" if self.pictures == 1 else "pictures"
        missed = f", {self.missed} could not be explained (see their messages)" if self.missed else ""
        more = "; there are more spectra, --explain-most raises the number" if self.more else ""
        return f"{self.pictures} {noun} in {self.directory}{missed}{more}"


def explain(bundle: Bundle, spectrum: Any, options: InferOptions | None = None) -> Explanation:
    """Explain the labels of one spectrum.

    Parameters
    ----------
    bundle : Bundle
    spectrum : object
        A `Spectrum`, or what else `Bundle.infer` takes for one.
    options : InferOptions, optional

    Returns
    -------
    Explanation

    Raises
    ------
    AnnaError
        If it is not one spectrum, or shares no wavelengths with the model.

    Notes
    -----
    Costs two runs of the network for each good pixel, see `differentiate`.

    Examples
    --------
    >>> found = explain(bundle, "star.fits")  # doctest: +SKIP
    >>> found.grid.wavelength[abs(found.response[0]).argmax()]  # doctest: +SKIP
    """
    options = options or InferOptions()
    given = list(islice(as_spectra(spectrum, options.read), 2))
    if len(given) != 1:
        raise AnnaError(f"{'no' if not given else 'several'} spectra given: one is explained at a time")
    if isinstance(given[0], Unread):
        raise given[0].error
    explainer = _Explainer(Inference(bundle, options))
    ((prepared, rows, row),) = explainer.spectra(as_blocks(given))
    if prepared is None:
        raise AnnaError(f"{given[0].name}: {rows.messages[row]}")
    return explainer.explanation(prepared, rows, row)


def explain_parts(
    inference: Inference,
    parts: Iterable[Part],
    directory: str | Path,
    most: int = MAX_SPECTRA,
    progress: Progress = silent,
) -> Explained:
    """Draw a picture for each of the first spectra of some files.

    A spectrum that cannot be inferred has none: the table says why.

    Parameters
    ----------
    inference : Inference
    parts : iterable of Part
    directory : path-like
        Made if need be. The pictures are named after row of the table, file, HDU and row of the file.
    most : int
        Spectra to look at.
    progress : Progress

    Returns
    -------
    Explained

    Raises
    ------
    AnnaError
        If a picture cannot be written.
    """
    directory = Path(directory)
    explainer = _Explainer(inference)
    spectra = explainer.spectra(read_blocks(parts, inference.options.read))
    seen = pictures = 0
    progress(0, most, "explained")
    make_folder(directory)
    for seen, (prepared, rows, row) in enumerate(islice(spectra, most), start=1):
        if prepared is not None:
            picture = draw(explainer.explanation(prepared, rows, row))
            write_text(directory / _file_name(seen, rows, row), picture)
            pictures += 1
        progress(seen, most, f"explained, {_title(rows, row)}")
    return Explained(pictures, seen - pictures, next(spectra, None) is not None, directory)


def differentiate(session: Session, flux: Float32Array, n_label: int) -> FloatArray:
    """Return the derivatives of the labels by the pixels, as central differences.

    Parameters
    ----------
    session : Session
    flux : array of float32, shape (n_pixel,)
        Continuum = 1, NaN where a pixel is not valid.
    n_label : int

    Returns
    -------
    jacobian : array, shape (n_label, n_pixel)
        Label units per 1 % of the continuum; NaN where a pixel is not valid.
    """
    jacobian = np.full((n_label, flux.size), np.nan)
    valid = np.flatnonzero(np.isfinite(flux))
    for rows in slices(valid.size, BATCH):
        pixels = valid[rows]
        varied = np.tile(flux, (2, pixels.size, 1))  # (brighter or fainter, varied pixel, pixel)
        step = np.arange(pixels.size)
        varied[0, step, pixels] += PERCENT
        varied[1, step, pixels] -= PERCENT
        labels = session.run(varied.reshape(-1, flux.size)).labels
        brighter, fainter = labels.reshape(2, pixels.size, n_label)
        jacobian[:, pixels] = (brighter - fainter).T / 2
    return jacobian


def respond(jacobian: ArrayLike, grid: Grid, resolution: float | None) -> FloatArray:
    """Return what labels make of an unresolved feature of 1 % of the continuum at each pixel.

    The feature is a Gaussian whose full width at half maximum is the resolution
    element, and the derivatives of the pixels it touches add up, weighted by it.

    Parameters
    ----------
    jacobian : array_like, shape (n_label, n_pixel)
        NaN where a pixel is not valid; nothing is known of the part of a feature that falls there.
    grid : Grid, shape (n_pixel,)
    resolution : float, optional
        Resolving power; three pixels are taken for the element where it is not known.

    Returns
    -------
    response : array, shape (n_label, n_pixel)
        NaN where a pixel is not valid.
    """
    jacobian = np.asarray(jacobian, dtype=np.float64)
    wavelength = grid.wavelength
    pixel = np.gradient(wavelength)
    element = UNKNOWN_ELEMENT * pixel if resolution is None else wavelength / resolution
    width = element / FWHM  # standard deviation, Angstrom
    known = np.nan_to_num(jacobian)
    response = np.zeros_like(jacobian)
    reach = min(int(np.ceil(4 * (width / pixel).max())), wavelength.size - 1)
    for shift in range(-reach, reach + 1):
        center = slice(max(0, -shift), wavelength.size - max(0, shift))
        beside = slice(max(0, shift), wavelength.size + min(0, shift))
        distance = (wavelength[beside] - wavelength[center]) / width[center]
        response[:, center] += known[:, beside] * np.exp(-0.5 * distance**2)
    response[np.isnan(jacobian)] = np.nan
    return response


class _Explainer:
    """An inference at work, and a session that takes all threads for one spectrum."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        options = inference.options
        self._session = Session(inference.bundle, options.device, options.threads)

    def spectra(self, blocks: Iterable[Block | Failure]) -> Iterator[tuple[Prepared | None, Rows, int]]:
        """Yield spectra as the network sees them, None for what cannot be inferred, each with its place in a table."""
        for block in blocks:
            rows = self._inference.rows(block)
            prepared = None if isinstance(block, Failure) else self._inference.prepare(block)
            for row in range(len(rows)):
                one = None if prepared is None else prepared[row]
                yield None if one is None or one.flags & Flag.no_coverage else one, rows, row

    def explanation(self, prepared: Prepared, rows: Rows, row: int) -> Explanation:
        sidecar = self._inference.bundle.sidecar
        jacobian = differentiate(self._session, prepared.flux, len(sidecar.labels))
        return Explanation(
            title=_title(rows, row),
            labels=sidecar.labels,
            grid=sidecar.grid,
            flux=prepared.flux,
            mean=None if sidecar.novelty is None else sidecar.novelty.mean,
            values=np.asarray(rows.values[row], dtype=np.float64),
            errors=np.asarray(rows.errors[row], dtype=np.float64),
            snr=prepared.snr,
            coverage=prepared.coverage,
            flags=Flag(int(rows.flags[row])),
            jacobian=jacobian,
            response=respond(jacobian, sidecar.grid, sidecar.preparation.resolution),
        )


def _title(rows: Rows, row: int) -> str:
    """Return what to call a spectrum: file, HDU, row and name, as far as it has them."""
    parts = [Path(rows.file[row]).name, *_place(rows, row), rows.id[row]]
    return ", ".join(part for part in parts if part) or "spectrum"


def _file_name(number: int, rows: Rows, row: int) -> str:
    """Return a name that no system minds; the number makes it unique."""
    parts = [Path(rows.file[row]).stem[:80], *_place(rows, row)]
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", "_".join([f"{number:04d}", *parts])).strip("_") + ".svg"


def _place(rows: Rows, row: int) -> list[str]:
    found = {"HDU": rows.hdu[row], "row": rows.row[row]}
    return [f"{what} {number}" for what, number in found.items() if number is not None]
