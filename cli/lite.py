"""``anna-lite``: labels from spectra with a network somebody sent; needs no PyTorch."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import click

from anna_onnx import __version__

from .group import Group, interruptible, printable, progress_bar, reading_options

# Every block of spectra has a thread of its own; numpy's must not compete. To be said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

OBJECTS = 50_000
"""New ones, after which Python looks for garbage: for every 700 it would take a twentieth of a short run."""

DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "coreml", "directml"]),
    default="cpu",
    show_default=True,
    help="Where to run the network; never another place than this.",
)


def run() -> None:
    """Run the command, and leave the memory to the system: to tidy it up takes a tenth of a short run."""
    gc.set_threshold(OBJECTS)
    try:
        main()
    except SystemExit as end:
        try:
            sys.stdout.flush()
        except OSError:
            raise end from None  # the interpreter reports what cannot be written
        # What processes shared must be given back first, or the system is said to leak it.
        if isinstance(end.code, int) and "multiprocessing.synchronize" not in sys.modules:
            os._exit(end.code)
        raise


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna-lite")
def main() -> None:
    """Infer stellar labels from spectra with a trained network.

    \b
    Examples:
      anna-lite inspect star.fits               what a file holds
      anna-lite info model.onnx                 what a model infers, and how well
      anna-lite infer model.onnx star.fits      the labels, as CSV
      anna-lite infer model.onnx night/*.fits -o labels.fits
    """


@main.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Table to write: .csv, .ecsv, .fits, .vot, .h5 or .parquet (default: CSV on standard output).",
)
@click.option("--resume", is_flag=True, help="Go on with a table that an interrupted run began.")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also give intervals that hold the truth with this probability; the card of the model says which.",
)
@click.option("--covariance", is_flag=True, help="Also give how the errors of each pair of labels correlate.")
@click.option(
    "--correct-trends", is_flag=True, help="Take out the residual trends that 'anna test --store-trends' found."
)
@click.option("--rv", metavar="KM/S|header|auto", help="Radial velocity to remove.")
@click.option("--normalize", is_flag=True, help="Divide by a fitted continuum.")
@click.option("--resolution", type=click.FloatRange(min=1, min_open=True), help="Resolving power of the spectra.")
@click.option(
    "--explain",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Also draw, for each spectrum, which pixels drive each label (SVG files in this folder).",
)
@click.option(
    "--explain-most",
    type=click.IntRange(min=1),
    help="With --explain: how many spectra, from the first; default: 100.",
)
@reading_options
@DEVICE
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (default: all cores).")
@click.option("--processes", type=click.IntRange(min=0), default=0, help="Processes (default: as many as pay).")
@click.option("--scheduler", metavar="tcp://...", help="Run on the Dask cluster with this scheduler.")
def infer(model: str, files: tuple[str, ...], output: str | None, **options: Any) -> None:
    """Infer the labels of every spectrum in FILES with MODEL.

    MODEL is a file, or the short name of a released model. A file that cannot be
    read becomes a row whose message says why; the others are inferred, and the
    exit status is 1.

    \b
    Examples:
      anna-lite infer model.onnx star.fits
      anna-lite infer model.onnx spectra/*.fits -o labels.csv --level 0.95
      anna-lite infer model.onnx star.txt --medium vacuum --rv -23.4
      find . -name '*.fits' | anna-lite infer model.onnx - -o labels.fits
      anna-lite infer model.onnx @night.txt -o labels.ecsv --resume
      anna-lite infer model.onnx star.fits --explain pictures
    """
    from anna_onnx.trial import begun

    with begun(files[0]):  # while the rest is imported
        from anna_onnx.pipeline import infer_to_table

        with interruptible(), progress_bar("inferring", output is None) as progress:
            summary = infer_to_table(model, files, output, progress=progress, **options)
    click.echo(summary.text, err=True)
    if summary.failed:
        raise SystemExit(1)


@main.command()
@click.argument("model")
def info(model: str) -> None:
    """Show the card of MODEL: what it infers, from what, how well, who made it.

    \b
    Example:
      anna-lite info model.onnx
    """
    from anna_onnx.bundle import Bundle, find_model
    from anna_onnx.card import model_card

    click.echo(printable(model_card(Bundle.load(find_model(model)))))


@main.command()
@click.argument("files", nargs=-1, required=True)
@reading_options
def inspect(files: tuple[str, ...], **options: Any) -> None:
    """Show the spectra in FILES and what was assumed about them.

    \b
    Examples:
      anna-lite inspect star.fits
      anna-lite inspect orders.fits --merge-orders
    """
    from anna_onnx.inspection import inspect_files

    failed = 0
    for report in inspect_files(files, **options):
        click.echo(printable(report.text), err=report.failed)
        failed += report.failed
    if failed:
        raise SystemExit(1)


@main.command()
@click.argument("model")
@DEVICE
def selftest(model: str, device: str) -> None:
    """Check that this machine gives the answers of the machine that trained MODEL.

    \b
    Example:
      anna-lite selftest model.onnx
    """
    from anna_onnx.inference import selftest_text

    click.echo(selftest_text(model, device))
