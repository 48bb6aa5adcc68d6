"""``anna``: make training sets, train, test and export networks."""

from __future__ import annotations

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
