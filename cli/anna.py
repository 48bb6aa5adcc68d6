"""``anna``: make training sets, train, test and export networks."""

from __future__ import annotations

from typing import Any

import click

from anna_onnx import __version__

from .group import Group, progress_bar


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna")
def main() -> None:
    """Train a network on stellar spectra and export it as one file.

    The colleague who gets the file needs only anna-lite.
    """


@main.command()
@click.argument("old", type=click.Path(exists=True, dir_okay=False))
@click.argument("new", type=click.Path(dir_okay=False))
@click.option(
    "--params", type=click.Path(exists=True, dir_okay=False), help="ANNA.param: names and ranges of the labels."
)
@click.option("--labels", help="Names of the labels, separated by commas, such as teff,logg,feh.")
@click.option("--keep-names", is_flag=True, help="Keep old names such as temperature; default: teff and so on.")
@click.option("--medium", type=click.Choice(["air", "vacuum"]), help="Of the wavelengths.  [default: air, and said]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "f4", "f8"]),
    default="auto",
    show_default=True,
    help="Of the flux in .h5; auto: f8 unless f4 holds every value, so that the way back is exact.",
)
@click.option(
    "--dummy",
    type=click.Choice(["dummy", "rv"]),
    default="dummy",
    show_default=True,
    help="What the dummy entry of a .bin is called in .h5.",
)
@click.option(
    "--wavelengths", type=click.Path(exists=True, dir_okay=False), help="frozen.model: WAVE_TEMPLATE or a training set."
)
@click.option(
    "--test-stats", type=click.Path(exists=True, dir_okay=False), help="frozen.model: test_stats.out with its errors."
)
def convert(old: str, new: str, labels: str | None, **options: Any) -> None:
    """Convert OLD, a file of the old ANNA, to NEW.

    \b
    anna convert train.bin train.h5 --params ANNA.param
    anna convert train.h5 train.bin
    anna convert ANNA.param params.toml
    anna convert frozen.model model.onnx --params ANNA.param \\
        --wavelengths wavelength.template --test-stats test_stats.out
    """
    from anna_onnx import legacy

    names = None if labels is None else [name.strip() for name in labels.split(",")]
    with progress_bar("converting") as report:
        notes = legacy.convert(old, new, legacy.Options(labels=names, **options), progress=report)
    click.echo("\n".join([*notes, f"{new} written"]))


@main.command()
@click.argument("params", type=click.Path(dir_okay=False), default="params.toml")
@click.option("--resume", is_flag=True, help="Go on with the newest run, or the one named with --run.")
@click.option("--run", type=click.Path(file_okay=False), help="With --resume: the run directory to go on with.")
@click.pass_context
def train(ctx: click.Context, params: str, resume: bool, run: str | None) -> None:
    """Train a network as PARAMS (default params.toml) says.

    \b
    anna train params.toml
    anna train params.toml --resume
    """
    from anna_onnx import config
    from anna_onnx.training.checkpoint import RunDirectory
    from anna_onnx.training.loop import train as run_training

    settings = config.load(params)
    going_on = None
    if resume:
        going_on = RunDirectory(run) if run else RunDirectory.newest(settings.resolve(settings.run.directory))
    with progress_bar("training") as report:
        directory = run_training(settings, going_on, report, lambda text: click.echo(text, err=True))
    click.echo(str(directory.path))
