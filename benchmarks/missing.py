"""What a model makes of spectra with bad pixels between good ones, or without an end.

Stars of the embedded grid, uniform within the ranges of the model, perfect but for noise. Printed are the share that is
flagged; what losing so many pixels would cost if all told as much, 1 / sqrt(1 - lost); and of each label the share
within the stated error and the rms over that of whole spectra.

    python benchmarks/missing.py model.onnx
"""

from __future__ import annotations

from collections.abc import Callable

import click
import numpy as np
from numpy.typing import NDArray

from anna_onnx.bundle import Bundle, find_model
from anna_onnx.inference import InferOptions, infer
from anna_onnx.labels import canonical
from anna_onnx.results import join
from anna_onnx.spectrum import Spectrum
from anna_onnx.synthesis import SpectralGrid, Synthesizer

FASTEST = 100.0  # km/s
MARGIN = 0.05  # of the pixels, at either end, where no gap begins
BoolArray = NDArray[np.bool_]
Losing = Callable[[tuple[int, int], np.random.Generator], BoolArray]


def scattered(share: float) -> Losing:
    return lambda shape, random: random.random(shape) < share


def gap(share: float) -> Losing:
    """One in each spectrum, within it."""

    def lose(shape: tuple[int, int], random: np.random.Generator) -> BoolArray:
        first = random.uniform(MARGIN, 1 - MARGIN - share, (shape[0], 1)) * shape[1]
        return (np.arange(shape[1]) >= first) & (np.arange(shape[1]) < first + share * shape[1])

    return lose


def blue_end(share: float) -> Losing:
    return lambda shape, random: np.broadcast_to(np.arange(shape[1]) < share * shape[1], shape)


KINDS: dict[str, Losing] = {"whole": scattered(0)}
KINDS |= {f"scattered {share:.0%}": scattered(share) for share in (0.05, 0.1, 0.2, 0.4)}
KINDS |= {f"gap {share:.0%}": gap(share) for share in (0.1, 0.2, 0.3, 0.4)}
KINDS |= {f"blue {share:.0%}": blue_end(share) for share in (0.2, 0.4)}


@click.command()
@click.argument("model")
@click.option("--snr", multiple=True, type=float, default=[200, 50], show_default=True)
@click.option("--fwhm", default=0.6, show_default=True, help="In Angstrom, if the model does not say.")
@click.option("-n", "n_star", default=500, show_default=True, help="Stars of each kind.")
@click.option("--seed", default=1, show_default=True)
def main(model: str, snr: tuple[float, ...], fwhm: float, n_star: int, seed: int) -> None:
    """Errors and flags of MODEL for spectra that lack pixels."""
    bundle = Bundle.load(find_model(model))
    labels, grid, resolution = bundle.sidecar.labels, bundle.sidecar.grid, bundle.sidecar.preparation.resolution
    fwhm = grid.wavelength.mean() / resolution if resolution else fwhm
    random = np.random.default_rng(seed)
    stars = random.uniform([label.low for label in labels], [label.high for label in labels], (n_star, len(labels)))
    draw = Synthesizer.build(SpectralGrid.open(), grid, fwhm=fwhm, max_rv=FASTEST, max_vsini=50)
    names = [canonical(label.name) for label in labels]
    clean = draw(stars[:, [names.index(name) for name in draw.label_names]], random.uniform(-FASTEST, FASTEST, n_star))
    click.echo(f"{'S/N':>5} {'lost':14} {'flagged':>7} {'cost':>5}   within the error / rms over that of whole ones")
    for level in snr:
        noisy = clean + random.normal(size=clean.shape) / level
        whole = None
        for kind, lose in KINDS.items():
            bad = lose(noisy.shape, random)
            observed = [
                Spectrum(grid.wavelength, row, bad=lost, medium=grid.medium, id=str(i))
                for i, (row, lost) in enumerate(zip(noisy, bad, strict=True))
            ]
            rows = join(list(infer(bundle, observed, InferOptions(threads=1))))
            within = (np.abs(rows.values - stars) <= rows.errors).mean(axis=0)
            rms = np.sqrt(((rows.values - stars) ** 2).mean(axis=0))
            whole = rms if whole is None else whole
            each = "  ".join(f"{share:4.0%} {times:4.2f}" for share, times in zip(within, rms / whole, strict=True))
            cost = 1 / np.sqrt(1 - bad.mean())
            click.echo(f"{level:5.0f} {kind:14} {(rows.flags > 0).mean():7.1%} {cost:5.2f}   {each}")


if __name__ == "__main__":
    main()
