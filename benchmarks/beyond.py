"""What a model makes of stars a little beyond the ranges of its labels: how many it flags, and what it says of them.

Stars of the embedded grid, continued beyond its edges (`anna_onnx.synthesis.continuation`), uniform within the ranges
of the model in all labels but one. Printed are the share that is flagged, the medians of
inferred - true of that label and of the first, and the median stated error of the one.

    python benchmarks/beyond.py model.onnx
"""

from __future__ import annotations

import click
import numpy as np

from anna_onnx.bundle import Bundle, find_model
from anna_onnx.flags import Flag
from anna_onnx.inference import InferOptions, infer
from anna_onnx.labels import Label, canonical
from anna_onnx.results import Rows, join
from anna_onnx.spectrum import Spectrum
from anna_onnx.synthesis import SpectralGrid, Synthesizer, continued

STARS = {
    "teff": (7250, 7500),
    "logg": (2.4, 2.0, 1.5, 1.0, 5.0),
    "feh": (-0.55, -0.6, -0.7, -0.8, -1.0, -1.5, 0.25, 0.3, 0.5),
    "vsini": (45, 50, 80),
}
COUNTED = Flag.unlike_training | Flag.outside_labels
FASTEST = 60.0  # km/s


@click.command()
@click.argument("model")
@click.option("--snr", default=200.0, show_default=True)
@click.option("--fwhm", default=0.6, show_default=True, help="Of the instrument, Angstrom.")
@click.option("-n", "n_star", default=300, show_default=True, help="Stars of each kind.")
@click.option("--seed", default=1, show_default=True)
def main(model: str, snr: float, fwhm: float, n_star: int, seed: int) -> None:
    """Flag rates of MODEL, and errors, beyond the ranges of its labels."""
    bundle = Bundle.load(find_model(model))
    labels, grid = bundle.sidecar.labels, bundle.sidecar.grid
    names = [canonical(label.name) for label in labels]
    kinds = [
        (name, value) for name in names for value in STARS.get(name, ()) if _is_beyond(labels[names.index(name)], value)
    ]
    ranges = {name: _range_of(label, STARS.get(name, ())) for name, label in zip(names, labels, strict=True)}
    spectra = continued(SpectralGrid.open(), ranges)
    synthesizer = Synthesizer.build(spectra, grid, fwhm=fwhm, max_rv=FASTEST, max_vsini=ranges["vsini"][1])
    random = np.random.default_rng(seed)

    def rows_of(**fixed: float) -> tuple[np.ndarray, Rows]:
        stars = random.uniform([label.low for label in labels], [label.high for label in labels], (n_star, len(labels)))
        for name, value in fixed.items():
            stars[:, names.index(name)] = value
        columns = stars[:, [names.index(name) for name in synthesizer.label_names]]
        flux = synthesizer(columns, random.uniform(-FASTEST, FASTEST, n_star))
        flux = flux + random.normal(size=flux.shape) / snr
        observed = [Spectrum(grid.wavelength, row, medium=grid.medium, id=str(i)) for i, row in enumerate(flux)]
        return stars, join(list(infer(bundle, observed, InferOptions(threads=1))))

    first = labels[0]
    click.echo(f"{'':20} {'flagged':>8} {'off by':>8} {'error':>8} {first.name + ' off':>10}")
    _, rows = rows_of()
    click.echo(f"{'within':20} {(rows.flags & COUNTED > 0).mean():8.1%}")
    for name, value in kinds:
        stars, rows = rows_of(**{name: value})
        off, i = np.median(rows.values - stars, axis=0), names.index(name)
        flagged, error = (rows.flags & COUNTED > 0).mean(), np.median(rows.errors[:, i])
        click.echo(f"{name + f' {value:g}':20} {flagged:8.1%} {off[i]:8.3g} {error:8.3g} {off[0]:10.3g}")


def _is_beyond(label: Label, value: float) -> bool:
    return not label.low <= value <= label.high


def _range_of(label: Label, values: tuple[float, ...]) -> tuple[float, float]:
    return min((label.low, *values)), max((label.high, *values))


if __name__ == "__main__":
    main()
