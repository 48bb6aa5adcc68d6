"""What a model says of spectra of the Sun, whose labels are known.

The mean, the standard deviation and the rms deviation from the Sun of every label, the fraction of
the spectra whose 90 % interval holds the truth, and the standard deviation over the median stated
error, which is 1 where the errors are those of the noise.

    python benchmarks/sun.py MODEL SPECTRA... --json
"""

from __future__ import annotations

import json

import click
import numpy as np

from anna_onnx.bundle import Bundle, find_model
from anna_onnx.errors import AnnaError
from anna_onnx.flags import Flag
from anna_onnx.inference import InferOptions, infer_files
from anna_onnx.preparation import PrepareOptions
from anna_onnx.readers import ReadOptions
from anna_onnx.results import Rows, join

# Prša et al. 2016, AJ 152, 41 (teff, logg); the velocities are those of a 1D, LTE analysis.
SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0, "vmic": 1.0, "vsini": 1.8}


@click.command()
@click.argument("model")
@click.argument("spectra", nargs=-1, required=True)
@click.option("--level", default=0.9, show_default=True, help="Of the interval that should hold the truth.")
@click.option("--rv", type=click.Choice(["header", "auto"]), help="Radial velocity to remove.")
@click.option("--medium", type=click.Choice(["air", "vacuum"]), help="Medium of the wavelengths.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(model: str, spectra: tuple[str, ...], level: float, rv: str | None, medium: str | None, as_json: bool) -> None:
    """Compare what MODEL infers for SPECTRA of the Sun with the Sun."""
    try:
        bundle = Bundle.load(find_model(model))
        options = InferOptions(level=level, prepare=PrepareOptions(rv=rv), read=ReadOptions(medium=medium))
        rows = join(list(infer_files(bundle, spectra, options)))
        found = compare(rows, [label.name for label in bundle.sidecar.labels])
    except AnnaError as error:
        raise click.ClickException(str(error)) from error
    counts = {flag.name: int(n) for flag in Flag if (n := ((rows.flags & flag) > 0).sum())}
    if as_json:
        click.echo(json.dumps({"n": len(rows), "level": level, "flags": counts, "labels": found}, indent=2))
        return
    click.echo(f"{len(rows)} spectra, flags: {counts or 'none'}")
    click.echo(f"{'':8}{'mean':>10}{'std':>10}{'rms':>10}{f'inside {level:.0%}':>12}{'std / e':>10}")
    every = found.pop("all")
    for name, line in found.items():
        click.echo(
            f"{name:8}{line['mean']:10.4g}{line['std']:10.3g}{line['rms']:10.3g}"
            f"{line['inside']:12.1%}{line['std_over_e']:10.2f}"
        )
    click.echo(f"{'all':8}{'':30}{every['inside']:12.1%}")


def compare(rows: Rows, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the statistics of the labels that are known of the Sun.

    Parameters
    ----------
    rows : Rows
        With intervals.
    names : list of str
        Labels, in the order of the columns.

    Returns
    -------
    dict
        By label: `mean`, `std`, `rms` (about the Sun), `inside` (fraction) and `std_over_e`;
        under `all` the fraction of the spectra inside with every label.

    Raises
    ------
    AnnaError
        If no spectrum has values.
    """
    columns = [column for column, name in enumerate(names) if name in SUN]
    known = np.isfinite(rows.values).all(axis=1)
    if not known.any() or rows.lo is None or rows.hi is None:
        raise AnnaError(f"none of {len(rows)} spectra could be inferred: {rows.messages[0]}")
    values, errors, low, high = (part[known][:, columns] for part in (rows.values, rows.errors, rows.lo, rows.hi))
    sun = np.array([SUN[names[column]] for column in columns])
    inside = (low <= sun) & (sun <= high)  # (spectrum, label)
    std = values.std(axis=0, ddof=1)
    table = {
        "mean": values.mean(axis=0),
        "std": std,
        "rms": np.sqrt(((values - sun) ** 2).mean(axis=0)),
        "inside": inside.mean(axis=0),
        "std_over_e": std / np.median(errors, axis=0),
    }
    found = {
        names[column]: {key: float(row[place]) for key, row in table.items()} for place, column in enumerate(columns)
    }
    return {**found, "all": {"inside": float(inside.all(axis=1).mean())}}


if __name__ == "__main__":
    main()
