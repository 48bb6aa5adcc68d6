"""How many spectra that a model was not made for it flags, and how many of those that it was.

Clean spectra of a test set get noise and a continuum error as in training; then something is done to them that
a network cannot know, eleven kinds in all. Each goes through inference as it comes, and any flag counts that says so.

    python benchmarks/outliers.py model.onnx test.h5 --json

DATA is such a test set, or a folder with one: valid_1000.bin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from anna_onnx.blocks import as_blocks
from anna_onnx.bundle import Bundle, find_model
from anna_onnx.flags import Flag
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.legacy import open_training_set
from anna_onnx.medium import air_to_vacuum, doppler, vacuum_to_air
from anna_onnx.preparation import PrepareOptions
from anna_onnx.resampling import Grid
from anna_onnx.results import join
from anna_onnx.spectrum import Spectrum
from anna_onnx.trainingset import TrainingSet

FloatArray = NDArray[np.float64]
COUNTED = Flag.unlike_training | Flag.outside_labels | Flag.not_normalized | Flag.low_resolution | Flag.medium_unknown
"""Flags that say that a spectrum is not of the kind that the model knows."""
CONTINUUM = 0.01
STARS = "valid_1000.bin"
"""Taken from a folder."""
TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(exists=True))
@click.option("--snr", type=(float, float), multiple=True, default=[(175, 250), (50, 50)], show_default=True)
@click.option("-n", "n_star", default=1000, show_default=True, help="Stars of each kind.")
@click.option("--resolution", default=11000.0, show_default=True, help="Of the test set, if the model does not say.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    model: str,
    data: str,
    snr: tuple[tuple[float, float], ...],
    n_star: int,
    resolution: float,
    seed: int,
    as_json: bool,
) -> None:
    """Flag rates of MODEL on the clean spectra of DATA and on what can be made of them."""
    bundle = Bundle.load(find_model(model))
    stars = open_training_set(stars_of(Path(data)), [label.name for label in bundle.sidecar.labels])
    resolution = bundle.sidecar.preparation.resolution or resolution
    found = {f"{low:g}-{high:g}": flag_rates(bundle, stars, (low, high), n_star, resolution, seed) for low, high in snr}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, rates in found.items():
        click.echo(f"S/N {name}\n{'':28} {'flagged':>8}  by")
        for kind, shares in rates.items():
            by = ", ".join(f"{flag} {share:.1%}" for flag, share in shares.items() if flag != "flagged" and share)
            click.echo(f"{kind:28} {shares['flagged']:8.1%}  {by}")


def stars_of(data: Path) -> Path:
    """Return the file of the stars: the one given, or that in the folder given."""
    return data / STARS if data.is_dir() else data


def flag_rates(
    bundle: Bundle, stars: TrainingSet, snr: tuple[float, float], n_star: int, resolution: float, seed: int
) -> dict[str, dict[str, float]]:
    """Return the share of spectra of each kind that is flagged: by any flag that counts, and by each of them.

    Parameters
    ----------
    bundle : Bundle
    stars : TrainingSet
        Clean spectra; their radial velocities in ``aux/rv`` or ``aux/dummy``, if they are shifted.
    snr : (low, high)
        Signal-to-noise ratios, times the template of the training.
    n_star : int
        Spectra of each kind.
    resolution : float
        Resolving power of the stars.
    seed : int
    """
    random = np.random.default_rng(seed)
    n_star = min(n_star, len(stars))
    flux = np.asarray(stars.flux[:n_star], dtype=np.float64)
    rv = np.asarray(stars.aux.get("rv", stars.aux.get("dummy", np.zeros(len(stars)))), dtype=np.float64)[:n_star]
    level = random.uniform(*snr, n_star)
    template = np.asarray(bundle.sidecar.provenance.get("snr_template") or 1.0, dtype=np.float64)

    def observe(clean: FloatArray) -> FloatArray:
        offset = random.uniform(-CONTINUUM, CONTINUUM, (len(clean), 1))
        return clean + offset + random.normal(size=clean.shape) / (level[:, None] * template)

    rates = {"clean": _shares(bundle, _spectra(stars.grid, observe(flux)))}
    known = _spectra(stars.grid, observe(flux), rv)
    rates["clean, velocity given"] = _shares(bundle, known, rv="header")
    wrong = stars.grid.wavelength
    wrong = air_to_vacuum(wrong) if stars.grid.medium == "air" else vacuum_to_air(wrong)
    mistaken = Grid(wrong, stars.grid.medium)
    rates["other medium"] = _shares(bundle, _spectra(mistaken, observe(flux)))
    rates["other medium, velocity given"] = _shares(bundle, _spectra(mistaken, observe(flux), rv), rv="header")
    at_rest = [Grid(wrong / doppler(velocity), stars.grid.medium) for velocity in rv]
    rates["other medium, at rest"] = _shares(
        bundle, chain.from_iterable(map(_spectra, at_rest, observe(flux)[:, None]))
    )
    for kind, change in _changes(stars.grid, resolution, random).items():
        rates[kind] = _shares(bundle, _spectra(stars.grid, observe(change(flux))))
    rates["flux not normalised"] = _shares(bundle, _spectra(stars.grid, 1e4 * observe(flux)))
    rates["shuffled pixels"] = _shares(bundle, _spectra(stars.grid, random.permuted(observe(flux), axis=1)))
    rates["constant flux"] = _shares(bundle, _spectra(stars.grid, np.ones_like(flux)))
    return rates


def _changes(
    grid: Grid, resolution: float, random: np.random.Generator
) -> Mapping[str, Callable[[FloatArray], FloatArray]]:
    """Return what is done to clean spectra, by name."""
    return {
        "half the resolution": lambda flux: _blur(flux, grid, resolution),
        "A star without lines": np.ones_like,
        "lines weakened to a half": lambda flux: 1 - (1 - flux) / 2,
        "lines weakened to a third": lambda flux: 1 - (1 - flux) / 3,
        "emission lines": lambda flux: flux + _emission(flux.shape, grid, resolution, random),
        "another region": lambda flux: np.roll(flux, random.integers(flux.shape[1] // 4, flux.shape[1] // 2), axis=1),
    }


def _blur(flux: FloatArray, grid: Grid, resolution: float) -> FloatArray:
    """Return spectra of half the resolving power: a Gaussian whose width adds to the one that is there."""
    step = np.gradient(grid.wavelength).mean()
    sigma = np.sqrt(3) * grid.wavelength.mean() / resolution * TO_SIGMA / step
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    wide = np.pad(flux, ((0, 0), (reach, reach)), mode="edge")
    return np.stack([np.convolve(row, kernel / kernel.sum(), mode="valid") for row in wide])


def _emission(shape: tuple[int, ...], grid: Grid, resolution: float, random: np.random.Generator) -> FloatArray:
    """Return five emission lines for each spectrum, as wide as the instrument makes them, 0.2-1 high."""
    center = random.uniform(grid.wavelength[0], grid.wavelength[-1], (shape[0], 5, 1))
    height = random.uniform(0.2, 1, center.shape)
    distance = (grid.wavelength - center) / (grid.wavelength.mean() / resolution * TO_SIGMA)
    return np.asarray((height * np.exp(-0.5 * distance**2)).sum(axis=1))


def _spectra(grid: Grid, flux: FloatArray, rv: FloatArray | None = None) -> Iterator[Spectrum]:
    for i, row in enumerate(flux):
        velocity = None if rv is None else float(rv[i])
        yield Spectrum(grid.wavelength, row, medium=grid.medium, id=str(i), radial_velocity=velocity)


def _shares(bundle: Bundle, spectra: Iterable[Spectrum], **prepare: Any) -> dict[str, float]:
    inference = Inference(bundle, InferOptions(prepare=PrepareOptions(**prepare), threads=1))
    flags = join(list(inference.run(as_blocks(spectra)))).flags
    shares = {str(flag.name): float((flags & flag > 0).mean()) for flag in COUNTED}
    return {"flagged": float((flags & COUNTED > 0).mean()), **shares}


if __name__ == "__main__":
    main()
