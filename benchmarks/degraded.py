"""What a model makes of spectra of higher resolving powers, which are degraded to its own.

Stars of the embedded grid, uniform within the ranges of the model, perfect but for noise that is independent from
pixel to pixel. Printed are the S/N put in, per 0.2 Angstrom, and that of the table; the share of clean spectra that
is `unlike_training`; of each label the share within the stated error; and the median error over that of the model's own
resolving power, where nothing is degraded.

    python benchmarks/degraded.py model.onnx
"""

from __future__ import annotations

import click
import numpy as np

from anna_onnx.bundle import Bundle, find_model
from anna_onnx.flags import Flag
from anna_onnx.inference import InferOptions, infer
from anna_onnx.labels import canonical
from anna_onnx.resampling import Grid
from anna_onnx.results import join
from anna_onnx.spectrum import Spectrum
from anna_onnx.synthesis import SpectralGrid, Synthesizer

PIXELS_OF_A_LINE = 3.0
SNR_PIXEL = 0.2  # Angstrom
FASTEST = 50.0  # km/s


@click.command()
@click.argument("model")
@click.option("--snr", multiple=True, type=float, default=[300, 150, 70, 35], show_default=True)
@click.option("--power", multiple=True, type=float, default=[14000, 20000, 40000, 115000], show_default=True)
@click.option("-n", "n_star", default=500, show_default=True, help="Stars of each kind.")
@click.option("--seed", default=1, show_default=True)
def main(model: str, snr: tuple[float, ...], power: tuple[float, ...], n_star: int, seed: int) -> None:
    """Errors and flags of MODEL for spectra of higher resolving powers."""
    bundle = Bundle.load(find_model(model))
    labels, grid, own = bundle.sidecar.labels, bundle.sidecar.grid, bundle.sidecar.preparation.resolution
    if own is None:
        raise click.ClickException(f"{model}: does not state the resolving power of its training")
    random = np.random.default_rng(seed)
    stars = random.uniform([label.low for label in labels], [label.high for label in labels], (n_star, len(labels)))
    velocity = random.uniform(-FASTEST, FASTEST, n_star)
    names = [canonical(label.name) for label in labels]
    click.echo(
        f"{'R':>8} {'S/N':>5} {'stated':>7} {'unlike':>7}   within the error / error over that of the model's own R"
    )
    usual: dict[float, np.ndarray] = {}
    for resolution in (own, *power):
        step = grid.wavelength.mean() / resolution / PIXELS_OF_A_LINE
        pixels = Grid(np.arange(grid.wavelength[0] - 2, grid.wavelength[-1] + 2, step), grid.medium)
        draw = Synthesizer.build(
            SpectralGrid.open(), pixels, fwhm=grid.wavelength.mean() / resolution, max_rv=FASTEST, max_vsini=50
        )
        clean = draw(stars[:, [names.index(name) for name in draw.label_names]], velocity)
        for level in snr:
            flux = clean + random.normal(size=clean.shape) / (level * np.sqrt(step / SNR_PIXEL))
            observed = [
                Spectrum(pixels.wavelength, row, medium=grid.medium, resolution=resolution, id=str(i))
                for i, row in enumerate(flux)
            ]
            rows = join(list(infer(bundle, observed, InferOptions(threads=1))))
            within = (np.abs(rows.values - stars) <= rows.errors).mean(axis=0)
            error = np.median(rows.errors, axis=0)
            ratio = error / usual.setdefault(level, error)
            unlike = (rows.flags & Flag.unlike_training > 0).mean()
            each = "  ".join(f"{share:4.0%} {times:4.2f}" for share, times in zip(within, ratio, strict=True))
            click.echo(f"{resolution:8.0f} {level:5.0f} {np.median(rows.snr):7.0f} {unlike:7.1%}   {each}")


if __name__ == "__main__":
    main()
