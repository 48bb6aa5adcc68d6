"""Testing a model: residuals, statistics, trends, coverage, plots and a report."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from anna_onnx import config
from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import ONE_SIGMA, Trends
from anna_onnx.errors import MissingExtraError, TrainingError
from anna_onnx.files import replacing, write_text
from anna_onnx.inference import half_width
from anna_onnx.labels import Label, scale, unscale
from anna_onnx.legacy import open_training_set
from anna_onnx.training.augmentation import Augmentation
from anna_onnx.training.calibration import fit_trends
from anna_onnx.training.export import Inferred, infer_examples
from anna_onnx.training.task import make_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]
COVERAGE_LEVELS = (0.5, ONE_SIGMA, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Statistics:
    """Residuals, inferred minus true, of one label, in its unit.

    Attributes
    ----------
    name, unit : str
    bias, scatter, robust_scatter, rms : float
        Mean, standard deviation, 1.4826 x median absolute deviation, root mean square.
    rms_corrected : float
        The RMS after residual trends are taken out (cross-validated order).
    coverage : float
        Fraction of truths inside the 68 % interval.
    """

    name: str
    unit: str
    bias: float
    scatter: float
    robust_scatter: float
    rms: float
    rms_corrected: float
    coverage: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model makes of spectra whose labels are known.

    Attributes
    ----------
    bundle : Bundle
    inferred : Inferred
    id : array, shape (n,)
    statistics : tuple of Statistics
    trends : Trends
    """

    bundle: Bundle
    inferred: Inferred
    id: NDArray[np.generic]
    statistics: tuple[Statistics, ...]
    trends: Trends


def evaluate_model(
    bundle: Bundle,
    data: Path | None = None,
    *,
    augment: bool = True,
    snr: tuple[float, float] | None = None,
    seed: int = 1,
) -> Evaluation:
    """Infer a training set whose labels are known, and compare.

    Parameters
    ----------
    bundle : Bundle
    data : Path, optional
        Training set on the model's grid, .h5 or legacy .bin; by default the
        data.test of the parameters that the model carries, in the working folder.
    augment : bool
        Add the noise and continuum errors of the training, anew from `seed`.
    snr : (low, high), optional
        In place of the training's range of S/N.
    seed : int

    Raises
    ------
    TrainingError
        If the set is on another grid, or the model does not know how it was trained.
    """
    sidecar = bundle.sidecar
    data = data or _test_set_of(bundle)
    spectra = open_training_set(data, [label.name for label in sidecar.labels])
    if spectra.grid != sidecar.grid:
        raise TrainingError(
            f"{data}: {spectra.grid.n_pixel} pixels, {spectra.grid}; "
            f"the model has {sidecar.grid.n_pixel}, {sidecar.grid}"
        )
    augmentation = _augmentation_of(bundle, data.parent, snr) if augment else None
    examples = make_examples([spectra], np.arange(len(spectra)), sidecar.labels, augmentation, seed)
    inferred = infer_examples(bundle, examples, spectra.grid)
    trends = fit_trends(scale(inferred.values, sidecar.labels), scale(inferred.true, sidecar.labels))
    return Evaluation(bundle, inferred, examples.id, _statistics(bundle, inferred, trends), trends)


def _test_set_of(bundle: Bundle) -> Path:
    """Return the test set that the parameters of a model name."""
    params = str(bundle.sidecar.provenance.get("params", ""))
    name = config.loads(params).data.test if params else None
    if name is None:
        raise TrainingError(
            f"{bundle.name}: its parameters name no data.test; say on what to test it: anna test MODEL DATA"
        )
    return Path(name)


def _augmentation_of(bundle: Bundle, folder: Path, snr: tuple[float, float] | None) -> Augmentation:
    """Return the augmentation of the training, from the parameters that the model carries."""
    provenance = bundle.sidecar.provenance
    if "params" not in provenance:
        raise TrainingError(f"{bundle.name}: does not carry its training parameters; test it with --as-is")
    settings = config.loads(str(provenance["params"]), folder / "params.toml").augmentation
    settings = dataclasses.replace(settings, snr=snr or settings.snr, residuals=None)
    template = torch.tensor(provenance.get("snr_template", [1.0] * bundle.sidecar.grid.n_pixel))
    return Augmentation(settings, bundle.sidecar.grid, template=template)


def _statistics(bundle: Bundle, inferred: Inferred, trends: Trends) -> tuple[Statistics, ...]:
    labels = bundle.sidecar.labels
    corrected = unscale(trends.correct(scale(inferred.values, labels)), labels) - inferred.true
    inside = np.abs(inferred.error) <= half_width(bundle, inferred.sigma, inferred.block.snr, ONE_SIGMA)
    return tuple(
        Statistics(
            name=label.name,
            unit=label.unit or "",
            bias=float(np.nanmean(error)),
            scatter=float(np.nanstd(error)),
            robust_scatter=float(1.4826 * np.nanmedian(np.abs(error - np.nanmedian(error)))),
            rms=float(np.sqrt(np.nanmean(error**2))),
            rms_corrected=float(np.sqrt(np.nanmean(after**2))),
            coverage=float(held[np.isfinite(error)].mean()),
        )
        for label, error, after, held in zip(labels, inferred.error.T, corrected.T, inside.T, strict=True)
    )


def write_evaluation(evaluation: Evaluation, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Write test_stats.csv, summary.csv, a plot for each label, and report.html.

    Returns
    -------
    Path
        Of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "test_stats.csv", *_star_table(evaluation))
    header = [item.name for item in dataclasses.fields(Statistics)]
    _write_csv(folder / "summary.csv", header, [list(dataclasses.astuple(one)) for one in evaluation.statistics])
    figures = {label.name: _plot_residuals(evaluation, i) for i, label in enumerate(evaluation.bundle.sidecar.labels)}
    figures["coverage"] = _plot_coverage(evaluation)
    images = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        images[name] = buffer.getvalue()
        (folder / f"{name}.png").write_bytes(images[name])
    report = folder / "report.html"
    write_text(report, _report(evaluation, images))
    say(summary_text(evaluation.statistics))
    return report


def store_trends(evaluation: Evaluation, path: Path) -> Bundle:
    """Write the residual trends into a model, for inference to take out when asked."""
    sidecar = dataclasses.replace(evaluation.bundle.sidecar, trends=evaluation.trends)
    return write(path, evaluation.bundle.network, sidecar)


def summary_text(statistics: Sequence[Statistics]) -> str:
    """Return the statistics as a table for the terminal."""
    lines = [
        f"{'label':<10}{'unit':<14}{'bias':>10}{'scatter':>10}{'robust':>10}{'rms':>10}{'detrended':>11}{'in 68 %':>9}"
    ]
    lines += [
        f"{one.name:<10}{one.unit:<14}{one.bias:>10.3g}{one.scatter:>10.3g}{one.robust_scatter:>10.3g}"
        f"{one.rms:>10.3g}{one.rms_corrected:>11.3g}{one.coverage:>9.1%}"
        for one in statistics
    ]
    return "\n".join(lines)


def _star_table(evaluation: Evaluation) -> tuple[list[str], list[list[object]]]:
    """Return the old program's test_stats, with errors: id, true, inferred, residual and error of every label."""
    inferred, names = evaluation.inferred, [label.name for label in evaluation.bundle.sidecar.labels]
    error = half_width(evaluation.bundle, inferred.sigma, inferred.block.snr, ONE_SIGMA)
    columns = {"true": inferred.true, "inferred": inferred.values, "d": inferred.error, "e": error}
    header = ["star_id", *(f"{kind}_{name}" for kind in columns for name in names), "snr", "flag_bits"]
    numbers = np.concatenate(list(columns.values()), axis=1)
    rows = [
        [star, *(f"{value:.8g}" for value in row), f"{snr:.5g}", int(flags)]
        for star, row, snr, flags in zip(evaluation.id, numbers, inferred.block.snr, inferred.block.flags, strict=True)
    ]
    return header, rows


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _new_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the report of 'anna test'", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def _plot_residuals(evaluation: Evaluation, i: int) -> Figure:
    """Plot the residual of a label against its true value, the trend, and their histogram."""
    label, one = evaluation.bundle.sidecar.labels[i], evaluation.statistics[i]
    figure = _new_figure(9, 3.4)
    scatter, histogram = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    true, error = evaluation.inferred.true[:, i], evaluation.inferred.error[:, i]
    scatter.plot(true, error, ".", markersize=3, alpha=0.5, rasterized=True)
    grid = np.linspace(label.low, label.high, 100)
    scatter.plot(grid, _trend_line(evaluation.trends, label, i, grid), color="C3", label="trend taken out")
    scatter.axhline(0, color="0.3", linewidth=0.8)
    unit = f" [{label.unit}]" if label.unit else ""
    scatter.set(xlabel=f"true {label.name}{unit}", ylabel=f"inferred - true{unit}")
    scatter.set_title(f"{label.name}: bias {one.bias:.3g}, scatter {one.scatter:.3g}, rms {one.rms:.3g}{unit}")
    scatter.legend(loc="upper right", frameon=False)
    histogram.hist(error[np.isfinite(error)], bins=40, orientation="horizontal", color="C0", alpha=0.7)
    histogram.set_xlabel("spectra")
    return figure


def _trend_line(trends: Trends, label: Label, i: int, inferred: FloatArray) -> FloatArray:
    """Return the residual that the trend of one label expects at inferred values."""
    scaled = (inferred - label.low) / label.span
    return np.asarray((scaled - np.polynomial.polynomial.polyval(scaled, trends.coefficients[i])) * label.span)


def _plot_coverage(evaluation: Evaluation) -> Figure:
    """Plot the fraction of truths inside the intervals against the fraction promised."""
    figure = _new_figure(4.5, 4)
    axes = figure.subplots()
    inferred = evaluation.inferred
    for i, label in enumerate(evaluation.bundle.sidecar.labels):
        found = []
        for level in COVERAGE_LEVELS:
            width = half_width(evaluation.bundle, inferred.sigma, inferred.block.snr, level)[:, i]
            found.append(float((np.abs(inferred.error[:, i]) <= width).mean()))
        axes.plot(COVERAGE_LEVELS, found, "o-", markersize=4, label=label.name)
    axes.plot([0.4, 1], [0.4, 1], color="0.3", linewidth=0.8)
    axes.set(xlabel="promised", ylabel="found", title="truths inside the interval")
    axes.legend(frameon=False)
    return figure


def _report(evaluation: Evaluation, images: dict[str, bytes]) -> str:
    """Return one self-contained page."""
    sidecar = evaluation.bundle.sidecar
    rows = "\n".join(
        f"<tr><td>{html.escape(one.name)}</td><td>{html.escape(one.unit)}</td>"
        + "".join(f"<td>{v:.3g}</td>" for v in (one.bias, one.scatter, one.robust_scatter, one.rms, one.rms_corrected))
        + f"<td>{one.coverage:.1%}</td></tr>"
        for one in evaluation.statistics
    )
    pictures = "\n".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        for name, image in images.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(evaluation.bundle.name)}: test report</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }} img {{ max-width: 100%; display: block; margin: 1rem 0; }}
</style></head><body>
<h1>{html.escape(evaluation.bundle.name)}</h1>
<p>{len(evaluation.inferred.true)} spectra; {html.escape(str(sidecar.grid))}; network {sidecar.sha256[:12]}.</p>
<table><tr><th>label</th><th>unit</th><th>bias</th><th>scatter</th><th>robust scatter</th><th>rms</th>
<th>rms, trends out</th><th>inside 68 %</th></tr>
{rows}
</table>
{pictures}
</body></html>
"""
