"""What a model makes of stars a little beyond the ranges of its labels: how many it flags, and what it says of them.

Stars of the embedded grid, continued beyond its edges (`anna_onnx.synthesis.continuation`), uniform within the ranges
of the model in all labels but one; then some with the labels of Gaia benchmark stars (Heiter et al. 2015, A&A 582, A49;
Jofré et al. 2014, A&A 564, A133), of which the reddest 26 Angstrom are missing. Printed are the share that is flagged,
the medians of inferred - true of that label and of the first, and the median stated error of the one.

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
LIKE = {
    "Arcturus": {"teff": 4286, "logg": 1.6, "feh": -0.52, "vmic": 1.6, "vsini": 3},
    "HD 22879": {"teff": 5868, "logg": 4.27, "feh": -0.86, "vmic": 1.1, "vsini": 3},
    "mu Cas": {"teff": 5308, "logg": 4.41, "feh": -0.81, "vmic": 1.0, "vsini": 3},
    "Gmb 1830": {"teff": 4827, "logg": 4.6, "feh": -1.46, "vmic": 1.0, "vsini": 3},
    "HD 220009": {"teff": 4275, "logg": 1.47, "feh": -0.74, "vmic": 1.5, "vsini": 3},
    "HD 107328": {"teff": 4496, "logg": 2.09, "feh": -0.33, "vmic": 1.7, "vsini": 3},
    "mu Leo": {"teff": 4474, "logg": 2.51, "feh": 0.25, "vmic": 1.4, "vsini": 3},
    "HD 122563": {"teff": 4608, "logg": 1.61, "feh": -2.64, "vmic": 1.9, "vsini": 5},
    "HD 140283": {"teff": 5777, "logg": 3.67, "feh": -2.36, "vmic": 1.6, "vsini": 5},
    "HD 84937": {"teff": 6356, "logg": 4.06, "feh": -2.03, "vmic": 1.4, "vsini": 5},
    "alpha Tau": {"teff": 3927, "logg": 1.11, "feh": -0.37, "vmic": 1.6, "vsini": 5},
    "alpha Cet": {"teff": 3796, "logg": 0.68, "feh": -0.45, "vmic": 1.8, "vsini": 3},
    "mu Ara": {"teff": 5902, "logg": 4.3, "feh": 0.35, "vmic": 1.2, "vsini": 3},
}
REDDEST = 6799.0  # Angstrom
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
    ranges = {name: _range_of(label) for name, label in zip(names, labels, strict=True)}
    spectra = continued(SpectralGrid.open(), ranges)
    synthesizer = Synthesizer.build(spectra, grid, fwhm=fwhm, max_rv=FASTEST, max_vsini=ranges["vsini"][1])
    random = np.random.default_rng(seed)

    def rows_of(reddest: float = np.inf, **fixed: float) -> tuple[np.ndarray, Rows]:
        stars = random.uniform([label.low for label in labels], [label.high for label in labels], (n_star, len(labels)))
        for name in fixed.keys() & set(names):
            stars[:, names.index(name)] = fixed[name]
        columns = stars[:, [names.index(name) for name in synthesizer.label_names]]
        flux = synthesizer(columns, random.uniform(-FASTEST, FASTEST, n_star))
        flux = flux + random.normal(size=flux.shape) / snr
        seen = grid.wavelength < reddest
        observed = [
            Spectrum(grid.wavelength[seen], row[seen], medium=grid.medium, id=str(i)) for i, row in enumerate(flux)
        ]
        return stars, join(list(infer(bundle, observed, InferOptions(threads=1))))

    first = labels[0]
    click.echo(f"{'':20} {'flagged':>8} {'off by':>8} {'error':>8} {first.name + ' off':>10}")
    _, rows = rows_of()
    click.echo(f"{'within':20} {_flagged(rows):8.1%}")
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        for value in STARS.get(name, ()):
            if not label.low <= value <= label.high:
                stars, rows = rows_of(**{name: value})
                off, error = np.median(rows.values - stars, axis=0), np.median(rows.errors[:, i])
                click.echo(f"{f'{name} {value:g}':20} {_flagged(rows):8.1%} {off[i]:8.3g} {error:8.3g} {off[0]:10.3g}")
    for star, values in LIKE.items():
        stars, rows = rows_of(REDDEST, **values)
        off = np.median(rows.values - stars, axis=0)
        click.echo(f"{'like ' + star:20} {_flagged(rows):8.1%} {'':8} {'':8} {off[0]:10.3g}")


def _flagged(rows: Rows) -> float:
    return float((rows.flags & COUNTED > 0).mean())


def _range_of(label: Label) -> tuple[float, float]:
    name = canonical(label.name)
    values = (label.low, label.high, *STARS.get(name, ()), *(star[name] for star in LIKE.values() if name in star))
    return min(values), max(values)


if __name__ == "__main__":
    main()
