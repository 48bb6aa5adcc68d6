"""``anna``: make training sets, train, test and export networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import click
from click.core import ParameterSource

from anna_onnx import __version__

from .group import Group, printable, progress_bar, reading_options, several


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anna")
def main() -> None:
    """Train a network on stellar spectra and export it as one file.

    The colleague who gets the file needs only anna-lite.
    """


def _between(text: str) -> tuple[float, float]:
    """Parse ``low:high``."""
    low, high = (float(part) for part in text.split(":"))
    return low, high


def _range(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, float]:
    try:
        return _between(text)
    except ValueError:
        raise click.BadParameter(f"'{text}' is not low:high") from None


def _ranges(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    try:
        return {name: _between(span) for name, span in (text.split("=") for text in texts)}
    except ValueError:
        raise click.BadParameter(f"'{' '.join(texts)}' is not name=low:high") from None


def _snrs(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> list[tuple[float, float]]:
    try:
        return [_between(text if ":" in text else f"{text}:{text}") for text in texts or ("200",)]
    except ValueError:
        raise click.BadParameter(f"'{' '.join(texts)}' is not a number or low:high") from None


def _text(_context: click.Context, _option: click.Parameter, file: TextIO | None) -> str:
    try:
        return file.read() if file else ""
    except UnicodeDecodeError:
        raise click.BadParameter("not a text in UTF-8") from None


def _say(text: str) -> None:
    """Tell the user, beside the progress bar; what a command answers goes to stdout."""
    click.echo(text, err=True)


def _regions(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[float, float], ...]:
    return tuple(_range(_context, _option, text) for text in texts)


grid_options = several(
    click.option("--seed", type=click.IntRange(0), default=1, show_default=True),
    click.option("--wavelength", default="6625:6825:0.2", show_default=True, help="first:last:step in Å, or a file."),
    click.option("--medium", type=click.Choice(["air", "vacuum"]), default="air", show_default=True),
    click.option("--range", "ranges", multiple=True, callback=_ranges, help="name=low:high; default: the whole axis."),
    click.option("--rv", default="-100:100", show_default=True, callback=_range, help="Radial velocities, km/s."),
    click.option("--fwhm", type=float, help="Of the instrument's profile, Å.  [default: 0.6]"),
    click.option("--resolution", type=float, help="Resolving power instead of --fwhm."),
    click.option("--limb-darkening", type=click.FloatRange(0, 1), default=0.6, show_default=True),
)
"""They say which spectra are made of a grid of synthetic ones."""


@main.command()
@click.argument("params", type=click.Path(dir_okay=False), default="params.toml")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of training, in place of the recipe's.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(params: str, steps: int | None, force: bool) -> None:
    """Write a commented starter file, PARAMS (default params.toml)."""
    from anna_onnx.starter import write_starter

    write_starter(Path(params), steps=steps, force=force)
    click.echo(params)


@main.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False), required=False)
@click.option("-n", "n", type=click.IntRange(1), default=5000, show_default=True, help="Number of spectra.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Training set (.h5) to write.")
@click.option("--fits", type=click.Path(file_okay=False), help="Folder for one FITS file a spectrum.")
@grid_options
@click.option("--snr", type=click.FloatRange(0, min_open=True), help="Add white noise; default: none.")
@click.option("--processes", type=click.IntRange(1), help="Default: as many as cores, for large sets.")
def simulate(
    grid: str | None, n: int, output: str | None, fits: str | None, wavelength: str, medium: Any, **options: Any
) -> None:
    """Draw a training set from GRID, a grid of synthetic spectra (default: the one that comes with anna-onnx).

    \b
    anna simulate -n 5000 -o train.h5
    anna simulate mygrid.h5 -n 20000 -o train.h5 --wavelength 5160:5190:0.05 \\
        --resolution 30000 --range teff=4500:6500 --range vsini=0:15 --rv=-20:20
    anna simulate -n 10 --fits stars --snr 150 --seed 7
    """
    if output is None and fits is None:
        raise click.UsageError("say where to write: -o train.h5, or --fits FOLDER")
    from anna_onnx import synthesis

    pixels = synthesis.wavelength_grid(wavelength, medium)
    with progress_bar("simulating") as progress:
        synthesis.simulate(grid, output, n, wavelength=pixels, fits=fits, progress=progress, **options)
    click.echo("\n".join(f"{path}: {n} spectra written" for path in (output, fits) if path))


@main.command()
@click.argument("grid", type=click.Path(exists=True, dir_okay=False), required=False)
@click.option("--snr", multiple=True, callback=_snrs, help="S/N, or low:high; may be given again.  [default: 200]")
@click.option("-n", "n", type=click.IntRange(1), default=1000, show_default=True, help="Number of stars.")
@click.option("--template", type=click.Path(exists=True, dir_okay=False), help="S/N of each pixel relative to --snr.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Table to write: .csv or .ecsv.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Plot to write: .png, .pdf, ...")
@grid_options
def limit(
    grid: str | None,
    wavelength: str,
    medium: Any,
    template: str | None,
    output: str | None,
    plot: str | None,
    **options: Any,
) -> None:
    """Say how well any method can know each label from spectra like those of GRID (the Cramér-Rao bound).

    The other labels, the radial velocity and an offset of the continuum are
    unknown too. GRID is the one that comes with anna-onnx unless given.

    \b
    anna limit --snr 200 --snr 50 --plot limit.png
    anna limit mygrid.h5 --snr 100 --wavelength 5160:5190:0.05 --resolution 30000
    anna limit --snr 175:250 --template sn.template -o limit.csv
    """
    from anna_onnx import limit as bounds
    from anna_onnx import snrtemplate, synthesis

    pixels = synthesis.wavelength_grid(wavelength, medium)
    profile = snrtemplate.read_template(template, pixels) if template else None
    with progress_bar("computing bounds") as progress:
        found = bounds.limits(grid, wavelength=pixels, template=profile, progress=progress, **options)
    click.echo("\n".join([str(found), *found.warnings()]))
    if output:
        found.write(output)
    if plot:
        found.plot(plot)


@main.command()
@click.argument("labels", type=click.Path(exists=True, dir_okay=False))
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Training set (.h5) to write.")
@click.option("--wavelength", help="first:last:step in Å, or a file with wavelengths.")
@click.option("--grid-medium", type=click.Choice(["air", "vacuum"]), default="air", show_default=True)
@click.option("--like", metavar="MODEL", help="Prepare as for this model, instead.")
@click.option("--labels", "names", help="Columns to take, such as teff,logg,feh=fe_h.  [default: the well-known ones]")
@click.option("--key", help="Column with the id or file of the spectra.  [default: id, file, name, ...]")
@click.option("--rv", help="Radial velocity to remove: km/s, header, auto or a column.")
@click.option("--continuum", help="Divide by a fitted continuum, curve:order: spline:3, polynomial:4, ...")
@click.option("--ignore", multiple=True, callback=_regions, help="first:last in Å, to leave out of that fit.")
@click.option("--resolution", type=float, help="Resolving power to degrade sharper spectra to.")
@click.option("--min-coverage", type=click.FloatRange(0, 1), help="Of the wavelengths.  [default: 0.99]")
@click.option("--keep", multiple=True, help="Flag that is no reason to leave a spectrum out, such as not_normalized.")
@click.option("--report", type=click.Path(dir_okay=False), help="What became of each spectrum.  [default: OUTPUT.csv]")
@reading_options
def pack(labels: str, files: tuple[str, ...], output: str, report: str | None, **options: Any) -> None:
    """Build a training set from FILES of spectra and LABELS, a table (CSV, ECSV, FITS, VOTable).

    A spectrum and a row of the table belong together by id or by file name;
    columns hdu and row may say which spectrum of a file is meant. A label that is
    not known may be empty.

    \b
    anna pack labels.csv spectra/*.fits -o train.h5 --wavelength 6625:6825:0.2
    anna pack labels.csv spectra/*.fits -o train.h5 --like model.onnx --rv vhelio
    find . -name '*.fits' | anna pack labels.csv - -o train.h5 --like model.onnx
    anna pack labels.csv @night.txt -o train.h5 --like model.onnx
    """
    from anna_onnx import packing

    report = report or f"{output}.csv"
    with progress_bar("packing") as progress:
        found = packing.pack_files(labels, files, output, report=report, progress=progress, **options)
    click.echo(found.summary(), err=True)
    click.echo(f"{output}: {found.packed} spectra written; what became of each: {report}")


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
@click.option("--force", is_flag=True, help="ANNA.param: replace a parameter file that is there.")
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
    with progress_bar("converting") as progress:
        notes = legacy.convert(old, new, legacy.Options(labels=names, **options), progress=progress)
    click.echo("\n".join([*notes, f"{new} written"]))


@main.command()
@click.argument("params", type=click.Path(dir_okay=False), default="params.toml")
@click.option("--resume", is_flag=True, help="Go on with the newest run of PARAMS.")
@click.option("--run", type=click.Path(file_okay=False), help="The run to go on with, in place of the newest.")
@click.option("--find-lr", is_flag=True, help="Do not train: measure at which learning rates the cost falls.")
def train(params: str, resume: bool, run: str | None, find_lr: bool) -> None:
    """Train a network as PARAMS (default params.toml) says.

    \b
    anna train params.toml
    anna train params.toml --resume
    anna train params.toml --find-lr     # writes find_lr.png and find_lr.csv
    torchrun --nproc-per-node=4 --no-python anna train params.toml
    """
    from anna_onnx import config
    from anna_onnx.training import loop, process, ratetest

    if find_lr and (resume or run):
        raise click.UsageError("--find-lr tries a throw-away network: it goes without --resume and --run")
    if find_lr:
        with progress_bar("testing rates") as progress:
            found = ratetest.suggest_rate(config.load(params), progress, _say)
        click.echo("\n".join(found))
        return
    settings, going_on = loop.choose_run(params, resume, run)
    with progress_bar("training") as progress:
        directory = loop.train(settings, going_on, progress, _say)
    if process.is_leader():
        click.echo(str(directory.path))


@main.command()
@click.argument("params", type=click.Path(dir_okay=False), default="params.toml")
def tune(params: str) -> None:
    """Search for the parameters that train best, in the space under [tune.space] of PARAMS.

    Start it again to go on, or several times at once to search faster: they share the study in
    tune.storage.
    """
    from anna_onnx import config
    from anna_onnx.training.tuning import error_in_words
    from anna_onnx.training.tuning import tune as search

    with progress_bar("tuning") as progress:
        found = search(config.load(params), progress, _say)
    click.echo(f"best of {found.trials} trials: {error_in_words(found.error)}")
    click.echo("\n".join(f"  {name} = {value}" for name, value in found.values.items()))
    click.echo(f"{found.path} written")


@main.command()
@click.argument("model")
@click.argument("data", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("-o", "--output", default="test", show_default=True, help="Folder for tables, plots and report.")
@click.option("--augment/--as-is", default=True, help="Add the noise of the training, or test the spectra as they are.")
@click.option("--snr", type=(float, float), help="Range of the S/N, in place of the training's.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--grid", help="Grid for the bound: a file, or 'default'.  [default: the model's]")
@click.option("--fwhm", type=float, help="Of the instrument's profile, Å, for the bound.  [default: the model's]")
@click.option("--resolution", type=float, help="Resolving power instead of --fwhm.")
@click.option("--no-bound", is_flag=True, help="Do not compute the Cramér-Rao bound.")
@click.option("--store-trends", is_flag=True, help="Write the residual trends into the model.")
def test(
    model: str,
    data: Path | None,
    output: str,
    grid: str | None,
    fwhm: float | None,
    resolution: float | None,
    no_bound: bool,
    store_trends: bool,
    **options: Any,
) -> None:
    """Test MODEL on DATA, a training set that it has not seen (default: the data.test of its parameters).

    Prints the residuals, and how far they are from what can be known at all, the
    Cramér-Rao bound; writes tables and a report, one HTML file.

    \b
    anna test model.onnx test.h5 -o test
    anna test model.onnx test.h5 --snr 20 50 --fwhm 0.6
    """
    from anna_onnx.bundle import Bundle, find_model
    from anna_onnx.training import evaluation

    path = find_model(model)
    bound = None if no_bound else evaluation.BoundOptions(grid, fwhm, resolution)
    with progress_bar("computing bounds") as progress:
        result = evaluation.evaluate_model(Bundle.load(path), data, bound=bound, progress=progress, **options)
    report = evaluation.write_evaluation(result, Path(output), click.echo)
    if store_trends:
        evaluation.store_trends(result, path)
        click.echo(f"residual trends stored in {model}")
    click.echo(str(report))


@main.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option("-o", "--template", type=click.Path(dir_okay=False), help="File to write the measured S/N template to.")
@click.option("--grid", help="Grid to compare with: a file, or 'default'.  [default: the model's]")
@click.option("--most", type=click.IntRange(1), default=200, show_default=True, help="Spectra to look at.")
@click.option("--resolution", type=click.FloatRange(1, min_open=True), help="Resolving power of the spectra.")
@reading_options
def doctor(model: str, files: tuple[str, ...], **options: Any) -> None:
    """Say whether the spectra in FILES are like those that MODEL was trained on, and what would have to change.

    Measures S/N, resolving power, continuum, velocities, coverage and unknown
    features, and prints them with an [augmentation] block for a training that fits.

    \b
    anna doctor model.onnx night/*.fits
    anna doctor model.onnx night/*.fits -o night.template
    """
    from anna_onnx import prescription
    from anna_onnx.bundle import Bundle, find_model

    with progress_bar("measuring") as progress:
        found = prescription.consult(Bundle.load(find_model(model)), files, progress=progress, **options)
    click.echo(printable(str(found)))


@main.command()
@click.argument("run", type=click.Path(exists=True), required=False)
@click.option("--onnx", is_flag=True, help="Export as ONNX (there is no other format).")
@click.option("-o", "--output", default="model.onnx", show_default=True, help="File to write.")
@click.option("--runs", default="runs", show_default=True, help="Folder in which the newest run is looked for.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="How to store weights: float16 halves the file, int8 quarters it; the card says what that costs.",
)
@click.option(
    "--notes",
    type=click.File(encoding="utf-8"),
    callback=_text,
    help="Markdown for card and page: what people should know.",
)
@click.option("--web", type=click.Path(), help="Also write a page for the browser: a folder, or one .html file.")
@click.option("--model", help="With --web: a model that was exported before, in place of a run.")
def export(
    run: str | None,
    onnx: bool,
    output: str,
    runs: str,
    precision: Any,
    notes: str,
    web: str | None,
    model: str | None,
) -> None:
    """Export RUN (default: the newest) as model.onnx, model.h5 and a model card.

    \b
    anna export runs/2026-11-22T18-33-27 -o mymodel.onnx
    anna export --web page.html
    anna export --web page --model mymodel.onnx
    """
    given = click.get_current_context().get_parameter_source
    of_a_run = ("run", "output", "runs", "precision")
    if model and (not web or any(given(name) == ParameterSource.COMMANDLINE for name in of_a_run)):
        raise click.UsageError("--model goes with --web and --notes, and nothing else: the model is there already")
    if model is None:
        from anna_onnx.training.checkpoint import RunDirectory
        from anna_onnx.training.export import export as export_run

        directory = RunDirectory(run) if run else RunDirectory.newest(Path(runs))
        export_run(directory, Path(output), precision, _say, notes)
        click.echo(output)
    if web:
        from anna_onnx.bundle import Bundle, find_model
        from anna_onnx.page import export_page

        click.echo(export_page(Bundle.load(find_model(model or output)), web, notes, _say))


@main.command()
def models() -> None:
    """List the models that come with anna-onnx; anna-lite takes them by name."""
    from anna_onnx.card import list_models

    click.echo(list_models())
