"""How near a model comes to the Cramer-Rao bound on the reference task, and how honest its errors are there.

    python benchmarks/reference_task.py MODEL DATA [--stars FILE] [--json]

DATA holds the stars, valid_1000.bin or others, and sn.robo.template. The spectra get noise of S/N 175-250 times the
template and a continuum offset within 1 %, nothing else. Printed are the RMS of each label, RMS / bound, the median of
|error| / bound / 0.6745, and how often the 68, 90 and 95 % intervals hold the truth: for these spectra, at S/N 20, 50,
100 and 200, and with three fifths of the wavelengths covered. Then the rms of error / stated error where still less
is covered, and the velocities that `rv = "auto"` measures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anna_onnx.bundle import Bundle, find_model
from anna_onnx.inference import InferOptions, infer
from anna_onnx.legacy import open_training_set
from anna_onnx.limit import star_bounds
from anna_onnx.preparation import PrepareOptions
from anna_onnx.results import Rows, join
from anna_onnx.scatter import MAD
from anna_onnx.snrtemplate import read_template
from anna_onnx.spectrum import Spectrum
from anna_onnx.synthesis import SpectralGrid

SNR = (175.0, 250.0)
OFFSET = 0.01
FWHM = 0.6  # Angstrom
LEVELS = (0.68, 0.90, 0.95)
SINGLE_SNR = (20.0, 50.0, 100.0, 200.0)
LITTLE = (0.5, 0.2, 0.1)
COVERED = {"blue 60 %": (0.0, 0.6), "middle 60 %": (0.2, 0.8), "red 60 %": (0.4, 1.0)}


class Task:
    """The validation stars, and what a model makes of them."""

    def __init__(self, bundle: Bundle, data: Path, stars: str, seed: int) -> None:
        self.bundle, self.random = bundle, np.random.default_rng(seed)
        labels = bundle.sidecar.labels
        self.names = [label.name for label in labels]
        self.stars = open_training_set(data / stars, self.names)
        self.true = np.asarray(self.stars.labels, dtype=np.float64)
        self.grid = self.stars.grid
        self.template = read_template(data / "sn.robo.template", self.grid)

    def noisy(self, snr: np.ndarray) -> np.ndarray:
        """Return the spectra with noise and a continuum offset, shape (n, n_pixel)."""
        flux = np.asarray(self.stars.flux, dtype=np.float64)
        noise = self.random.normal(size=flux.shape) / (snr[:, None] * self.template)
        return flux + noise + self.random.uniform(-OFFSET, OFFSET, (len(flux), 1))

    def infer(self, flux: np.ndarray, level: float) -> Rows:
        """Return what the model makes of spectra; NaN is a missing pixel."""
        spectra = [
            Spectrum(wavelength=self.grid.wavelength[known], flux=row[known], medium=self.grid.medium, id=str(i))
            for i, (row, known) in enumerate(zip(flux, np.isfinite(flux), strict=True))
        ]
        return join(list(infer(self.bundle, spectra, InferOptions(level=level))))

    def pulls(self, flux: np.ndarray) -> np.ndarray:
        """Return the rms of error / stated error of each label."""
        rows = self.infer(flux, 0.9)
        return np.sqrt(np.nanmean(np.square((rows.values - self.true) / rows.errors), axis=0))

    def velocities(self, flux: np.ndarray) -> dict[str, float]:
        """Return of how many spectra the velocity can be measured, and how far off it is, km/s."""
        spectra = [Spectrum(self.grid.wavelength, row, medium=self.grid.medium) for row in flux]
        rows = join(list(infer(self.bundle, spectra, InferOptions(prepare=PrepareOptions(rv="auto")))))
        assert rows.rv is not None
        off = (rows.rv - np.asarray(self.stars.aux["dummy"], dtype=np.float64))[np.isfinite(rows.rv)]
        return {
            "measured": off.size / len(flux),
            "rms": float(np.sqrt(np.mean(off**2))),
            "median": float(np.median(off)),
        }

    def inside(self, flux: np.ndarray) -> np.ndarray:
        """Return which truths the intervals of `LEVELS` hold, shape (n_level, n, n_label)."""
        rows = [self.infer(flux, level) for level in LEVELS]
        return np.stack([(one.lo <= self.true) & (self.true <= one.hi) for one in rows])

    def accuracy(self, flux: np.ndarray, snr: np.ndarray) -> dict[str, dict[str, float]]:
        """Return RMS, RMS over bound and the median ratio of each label."""
        error = self.infer(flux, 0.9).values - self.true
        ranges = [(label.low, label.high) for label in self.bundle.sidecar.labels]
        bound = star_bounds(
            SpectralGrid.open(), self.grid, dict(zip(self.names, self.true.T, strict=True)), snr,
            rv=np.asarray(self.stars.aux["dummy"], dtype=np.float64), template=self.template,
            ranges=dict(zip(self.names, ranges, strict=True)), fwhm=FWHM,
        )  # fmt: skip
        limit = np.stack([bound[name] for name in self.names], axis=1)
        rms, of_bound = (np.sqrt(np.nanmean(np.square(values), axis=0)) for values in (error, limit))
        median = MAD * np.nanmedian(np.abs(error) / limit, axis=0)
        found = zip(self.names, rms, rms / of_bound, median, strict=True)
        return {name: {"rms": float(a), "over_bound": float(b), "median_ratio": float(c)} for name, a, b, c in found}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--stars", default="valid_1000.bin", help="legacy training file in DATA")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    given = arguments.parse_args()
    task = Task(Bundle.load(find_model(given.model)), given.data, given.stars, given.seed)
    snr = task.random.uniform(*SNR, len(task.true))
    flux = task.noisy(snr)
    inside = task.inside(flux)
    coverage = {"S/N 175-250": inside.mean(axis=1)}
    for i, name in enumerate(task.names):
        third = np.searchsorted(np.quantile(task.true[:, i], [1 / 3, 2 / 3]), task.true[:, i])
        coverage |= {f"{name}, third {k + 1}": inside[:, third == k].mean(axis=1) for k in range(3)}
    for one in SINGLE_SNR:
        coverage[f"S/N {one:g}"] = task.inside(task.noisy(np.full(len(task.true), one))).mean(axis=1)
    place = np.linspace(0, 1, flux.shape[1])
    for name, (first, last) in COVERED.items():
        coverage[name] = task.inside(np.where((place >= first) & (place <= last), flux, np.nan)).mean(axis=1)
    pulls = {f"{part:.0%}": task.pulls(np.where(place <= part, flux, np.nan)) for part in LITTLE}
    velocities = {f"S/N {one:g}": task.velocities(task.noisy(np.full(len(task.true), one))) for one in SINGLE_SNR}
    show(Found(task.accuracy(flux, snr), coverage, pulls, velocities), task.names, given.json)


class Found(NamedTuple):
    """What was measured, by the names of labels, of what was covered, or of the S/N."""

    accuracy: dict[str, dict[str, float]]
    coverage: dict[str, np.ndarray]
    pulls: dict[str, np.ndarray]
    velocities: dict[str, dict[str, float]]


def show(found: Found, names: list[str], as_json: bool) -> None:
    """Print tables, or one JSON object."""
    if as_json:
        print(json.dumps(found._asdict(), default=np.ndarray.tolist))
        return
    accuracy, coverage, pulls, velocities = found
    print(f"{'':16}" + "".join(f"{name:>22}" for name in names))
    for key in ("rms", "over_bound", "median_ratio"):
        print(f"{key:16}" + "".join(f"{accuracy[name][key]:22.4g}" for name in names))
    print("truths inside the 68, 90 and 95 % intervals, per cent")
    for key, value in coverage.items():
        print(f"{key:16}" + "".join(f"{' '.join(f'{100 * x:5.1f}' for x in column):>22}" for column in value.T))
    print("rms of error / stated error, so much of the wavelengths covered")
    for key, value in pulls.items():
        print(f"{key:16}" + "".join(f"{one:22.2f}" for one in value))
    print("velocities that are measured")
    for key, one in velocities.items():
        print(f"{key:16}{one['measured']:7.1%}, off by {one['rms']:.2f} km/s rms, median {one['median']:.2f}")


if __name__ == "__main__":
    main()
