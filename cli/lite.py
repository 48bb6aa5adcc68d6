"""``anna-lite``: labels from spectra with a network somebody sent; needs no PyTorch."""

from __future__ import annotations

from typing import Any

import click

from anna_onnx import __version__

from .group import Group, progress_bar


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna-lite")
def main() -> None:
    """Infer stellar labels from spectra with a trained network."""


@main.command()
@click.argument("model", type=click.Path(dir_okay=False))
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    help="Table to write: .csv, .ecsv, .fits, .vot, .h5 or .parquet (default: CSV on standard output).",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also give intervals that hold the truth with this probability.",
)
@click.option(
    "--correct-trends", is_flag=True, help="Take out the residual trends that 'anna test --store-trends' found."
)
@click.option("--rv", help="Radial velocity to remove: km/s, header or auto.")
@click.option("--normalize", is_flag=True, help="Divide by a fitted continuum.")
@click.option("--resolution", type=float, help="Resolving power of the spectra.")
@click.option("--medium", type=click.Choice(["air", "vacuum"]), help="Medium of the wavelengths.")
@click.option("--frame", type=click.Choice(["topocentric", "barycentric", "rest"]), help="Frame of the wavelengths.")
@click.option("--hdu", help="FITS extension to read, by number or name.")
@click.option("--wave-unit", help="Unit of the wavelengths, such as nm.")
@click.option("--columns", help="Columns of wavelength, flux and error, such as wave,flux,err.")
@click.option("--merge-orders", is_flag=True, help="Merge echelle orders into one spectrum.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, coreml or directml.")
@click.option("--threads", default=0, help="CPU threads (default: all this process may use).")
def infer(model: str, files: tuple[str, ...], output: str | None, **options: Any) -> None:
    """Infer the labels of every spectrum in FILES with MODEL.

    \b
    anna-lite infer model.onnx spectra/*.fits -o results.csv
    """
    from anna_onnx.inference import infer_to_table

    with progress_bar("inferring") as report:
        summary = infer_to_table(model, files, output, report=report, **options)
    click.echo(summary.text, err=True)
    if summary.failed:
        raise SystemExit(1)


@main.command()
@click.argument("model", type=click.Path(dir_okay=False))
def info(model: str) -> None:
    """Show the card of MODEL: what it infers, from what, how well, who made it."""
    from anna_onnx.bundle import Bundle
    from anna_onnx.card import model_card

    click.echo(model_card(Bundle.load(model)))


@main.command()
@click.argument("model", type=click.Path(dir_okay=False))
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, coreml or directml.")
def selftest(model: str, device: str) -> None:
    """Check that this machine gives the answers of the machine that trained MODEL."""
    from anna_onnx.inference import selftest_text

    click.echo(selftest_text(model, device))
