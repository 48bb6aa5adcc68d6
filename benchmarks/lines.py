"""How well the lines that a model was trained with agree with those of a star whose labels are known.

For every line of the embedded grid's spectrum deeper than ``--depth``: how much weaker the star's is,
as a fraction of its equivalent width within 0.6 Angstrom of its centre, continuum (a parabola) and velocity
fitted; and the rms over the lines.

    python benchmarks/lines.py MODEL SPECTRUM --label teff=6554 --label logg=4.0 ... --resolution 115000
"""

from __future__ import annotations

import json

import click
import numpy as np

from anna_onnx.blocks import Part, read_blocks
from anna_onnx.bundle import Bundle, find_model
from anna_onnx.errors import AnnaError
from anna_onnx.inference import Inference, InferOptions
from anna_onnx.preparation import PrepareOptions
from anna_onnx.readers import ReadOptions
from anna_onnx.session import Session
from anna_onnx.synthesis import SpectralGrid, Synthesizer

HALF_WIDTH = 0.6  # Angstrom


@click.command()
@click.argument("model")
@click.argument("spectrum")
@click.option("--label", "labels", multiple=True, required=True, metavar="NAME=VALUE", help="Of the star; all of them.")
@click.option("--resolution", type=float, help="Resolving power of the spectrum.")
@click.option("--normalize/--normalized", default=True, show_default=True, help="Divide by a fitted continuum.")
@click.option("--depth", default=0.02, show_default=True, help="Of the shallowest line that counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    model: str, spectrum: str, labels: tuple[str, ...], resolution: float, normalize: bool, depth: float, as_json: bool
) -> None:
    """Compare the lines of a star, the first in SPECTRUM, with those that MODEL was trained with."""
    try:
        bundle = Bundle.load(find_model(model))
        known = dict(label.split("=") for label in labels)
        true = {name: float(value) for name, value in known.items()}
        found = compare(bundle, spectrum, true, PrepareOptions(normalize=normalize, resolution=resolution), depth)
    except (AnnaError, KeyError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    rms = float(np.sqrt(np.mean([weaker**2 for _, _, weaker in found])))
    if as_json:
        click.echo(json.dumps({"rms": rms, "lines": found}))
        return
    for wavelength, expected, weaker in found:
        click.echo(f"{wavelength:9.1f} Å  depth {expected:.3f}  weaker by {weaker:+6.1%}")
    click.echo(f"rms of {len(found)} lines: {rms:.1%}")


def compare(
    bundle: Bundle, spectrum: str, true: dict[str, float], options: PrepareOptions, depth: float
) -> list[tuple[float, float, float]]:
    """Return wavelength, expected depth, and by what fraction the star's is weaker, of every line."""
    sidecar, grid = bundle.sidecar, bundle.sidecar.grid
    inference = Inference(bundle, InferOptions(prepare=options))
    flux = inference.prepare(next(iter(read_blocks([Part(spectrum)], ReadOptions())))).flux[:1]
    fit = Session(bundle).run(flux).fit
    if fit is None or sidecar.preparation.resolution is None:
        raise AnnaError(f"{bundle.name}: measures no velocities, or does not know its resolution")
    velocity = fit.velocity[:1]
    synthesizer = Synthesizer.build(
        SpectralGrid.open(), grid, fwhm=grid.wavelength.mean() / sidecar.preparation.resolution,
        max_rv=float(abs(velocity[0])), max_vsini=true["vsini"],
    )  # fmt: skip
    labels = np.array([[true[name] for name in synthesizer.label_names]])
    expected = synthesizer(labels, velocity)[0]
    left = flux[0] - expected
    good, place = np.isfinite(left), np.linspace(-1, 1, grid.n_pixel)
    left -= np.polynomial.Polynomial.fit(place[good], left[good], 2, domain=[-1, 1])(place)
    reach = round(HALF_WIDTH / np.diff(grid.wavelength).mean())
    lines = []
    for i in range(reach, grid.n_pixel - reach):
        near = slice(i - reach, i + reach + 1)
        if expected[i] == expected[near].min() and 1 - expected[i] > depth and good[near].all():
            width = float((1 - expected[near]).sum())
            lines.append((float(grid.wavelength[i]), float(1 - expected[i]), float(left[near].sum()) / width))
    return lines


if __name__ == "__main__":
    main()
