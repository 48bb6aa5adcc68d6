"""The charts of a test report, each a small matplotlib figure that stays readable on a phone."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from anna_onnx.arrays import FloatArray
from anna_onnx.assessment import Assessment
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.coverage import THIRDS
from anna_onnx.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which the colour-blind tell apart too.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, MUTED, RULE = "#1f2933", "#6b7785", "#e4e8ec"
SMALL, WIDE = (4.2, 2.7), (9.6, 2.2)  # inches
# Of fixed margins: to measure the texts for a layout takes longer than to draw them.
MARGINS = {
    SMALL: {"left": 0.17, "right": 0.97, "bottom": 0.17, "top": 0.9},
    WIDE: {"left": 0.075, "right": 0.975, "bottom": 0.21, "top": 0.88},
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
N_BIN = 12
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anna",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.4,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def style() -> AbstractContextManager[None]:
    """Return the context in which charts are made and rendered.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("the report of 'anna test'", "plot") from error
    return mpl.rc_context(STYLE)


def render(figure: Figure) -> bytes:
    """Return a figure as SVG whose text stays text, in a font that the reader has; scattered points are pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=180)
    return re.sub(r"font: ([\d. a-z]*px) [^;\"]*", rf"font: \1 {FONTS}", buffer.getvalue().decode()).encode()


def residuals(x: FloatArray, error: FloatArray, xlabel: str, ylabel: str) -> Figure:
    """Draw residuals against a quantity, with their running median and the band that holds 68 % of them.

    Those far beyond all others are triangles at the edge.
    """
    figure, axes = _chart(xlabel, ylabel)
    axes.plot(x, error, ".", color=SKY, ms=3.2, alpha=0.7, mew=0, rasterized=True)
    center, middle, low, high = binned(x, error)
    axes.fill_between(center, low, high, color=BLUE, alpha=0.18, lw=0)
    axes.plot(center, middle, color=BLUE, lw=1.6)
    axes.axhline(0, color=INK, lw=0.8)
    _clip(axes, error)
    bottom, top = axes.get_ylim()
    for beyond, edge, marker in ((error < bottom, bottom, "v"), (error > top, top, "^")):
        axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, color=BLUE, ms=4, mew=0, clip_on=False)
    return figure


def trend(found: Assessment, i: int) -> Figure:
    """Draw the running median of a label's residuals against the inferred value, before and after detrending."""
    label = found.labels[i]
    figure, axes = _chart(
        f"inferred {with_unit(label.name, label.unit)}", with_unit("inferred − true", label.difference_unit)
    )
    for error, color, when in ((found.error[:, i], VERMILION, "before"), (found.corrected[:, i], BLUE, "after")):
        center, middle, low, high = binned(found.values[:, i], error)
        width = (high - low) / 2 / np.sqrt(max(len(found) / max(center.size, 1), 1))
        axes.errorbar(center, middle, 1.25 * width, color=color, fmt="o", ms=3.5, lw=1, label=when)
    at = np.linspace(label.low, label.high, 200)
    axes.plot(at, trend_line(found, i, at), color=ORANGE, lw=1.6, label="fitted trend")
    axes.axhline(0, color=INK, lw=0.8)
    _legend_above(axes, 3)
    return figure


def trend_line(found: Assessment, i: int, inferred: FloatArray) -> FloatArray:
    """Return the residual that the trend of a label expects at inferred values."""
    label = found.labels[i]
    scaled = (inferred - label.low) / label.span
    fitted = np.polynomial.polynomial.polyval(scaled, found.trends.coefficients[i])
    return np.asarray((scaled - fitted) * label.span)


def over_bound(found: Assessment) -> Figure:
    """Draw rms over bound of every label, for all spectra and for thirds of the S/N."""
    figure, axes = _chart("", "rms / bound")
    groups = [("all", np.ones(len(found), dtype=np.bool_)), *found.snr_thirds]
    place, middle = np.arange(len(found.labels)), (len(groups) - 1) / 2
    for k, ((name, rows), color) in enumerate(zip(groups, (INK, SKY, BLUE, GREEN), strict=False)):
        ratio = [found.over_bound(i, rows)[0] for i in range(len(found.labels))]
        axes.plot(place + 0.12 * (k - middle), ratio, "o", color=color, ms=6 if k == 0 else 4.5, label=name)
    axes.axhline(1, color=INK, lw=0.8)
    axes.set_xticks(place, [label.name for label in found.labels])
    axes.set_ylim(bottom=min(0.9, axes.get_ylim()[0]))
    axes.grid(visible=False, axis="x")
    _legend_above(axes, 4)
    return figure


def coverage(found: Assessment) -> Figure:
    """Draw the fraction of truths inside the intervals against the fraction that they promise."""
    figure, axes = _chart("promised", "found")
    cover = found.coverage
    axes.plot([0.4, 1], [0.4, 1], color=INK, lw=0.8)
    for i, color in zip(range(len(found.labels)), _colors(), strict=False):
        axes.plot(cover.levels, cover.overall[i], "o-", ms=3.5, lw=1.3, color=color, label=cover.labels[i])
    _legend_above(axes, 5)
    return figure


def coverage_thirds(found: Assessment, i: int, group: str) -> Figure:
    """Draw by how many points the intervals of a label miss what they promise, in thirds of a quantity."""
    cover = found.coverage
    figure, axes = _chart("promised", "found − promised [points]")
    thirds, levels = cover.thirds[i, cover.groups.index(group)], np.array(cover.levels)
    chance = 100 * np.array([cover.chance(level) for level in levels])
    axes.fill_between(levels, -2 * chance, 2 * chance, color=RULE, lw=0, label="chance, 2σ")
    axes.axhline(0, color=INK, lw=0.8)
    for third, name, color in zip(thirds, THIRDS, (SKY, BLUE, GREEN), strict=True):
        axes.plot(levels, 100 * (third - levels), "o-", ms=3.5, lw=1.3, color=color, label=name)
    reach = max(6.0, 1.1 * float(np.nanmax(np.abs(100 * (thirds - levels)), initial=0)))
    axes.set_ylim(-reach, reach)
    _legend_above(axes, 4)
    return figure


def pulls(found: Assessment, i: int) -> Figure:
    """Draw the histogram of residual / error with the Gaussian that it should be."""
    pull = found.error[:, i] / found.half_width(ONE_SIGMA)[:, i]
    pull = pull[np.isfinite(pull)]
    figure, axes = _chart("(inferred − true) / error", "")
    edges = np.linspace(-4, 4, 41)
    axes.hist(np.clip(pull, -4, 4), edges.tolist(), density=True, color=SKY, alpha=0.8)
    at = np.linspace(-4, 4, 200)
    axes.plot(at, np.exp(-0.5 * at**2) / np.sqrt(2 * np.pi), color=VERMILION, lw=1.4)
    axes.set_yticks([])
    axes.grid(visible=False)
    text = f"mean {pull.mean():+z.2f}\nσ {pull.std():.2f}\nbeyond 3: {(np.abs(pull) > 3).mean():.1%}"
    axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    return figure


def sensitivity(found: Assessment, mean: FloatArray, jacobian: FloatArray) -> Figure:
    """Draw how strongly each label depends on each pixel, with the mean spectrum above.

    Parameters
    ----------
    found : Assessment
    mean : array, shape (n_pixel,)
    jacobian : array, shape (n_label, n_pixel)
        Mean of abs(change of the label) when a pixel is 1 % of the continuum brighter.
    """
    from matplotlib.figure import Figure

    wavelength = found.bundle.sidecar.grid.wavelength
    n = len(found.labels)
    figure = Figure(figsize=(WIDE[0], 1.6 + 1.05 * n), layout="constrained")
    top, *panels = figure.subplots(n + 1, 1, sharex=True, height_ratios=[1.4] + [1] * n)
    top.plot(wavelength, mean, color=INK, lw=0.8)
    top.set(ylabel="mean spectrum", xlim=wavelength[[0, -1]])
    for i, (panel, label, color) in enumerate(zip(panels, found.labels, _colors(), strict=False)):
        panel.fill_between(wavelength, 0, jacobian[i], color=color, alpha=0.7, lw=0, step="mid")
        panel.set_ylabel(with_unit(label.name, label.difference_unit).replace(" [", "\n["))
        panel.set_ylim(bottom=0)
    panels[-1].set_xlabel(f"wavelength [Å, {found.bundle.sidecar.grid.medium}]")
    figure.align_ylabels()
    return figure


def spectrum(found: Assessment, row: int, mean: FloatArray) -> Figure:
    """Draw a spectrum as the network saw it, against the mean training spectrum."""
    grid = found.bundle.sidecar.grid
    figure, axes = _chart(f"wavelength [Å, {grid.medium}]", "flux", WIDE)
    axes.plot(grid.wavelength, mean, color=ORANGE, lw=1.6, label="mean training spectrum")
    axes.plot(grid.wavelength, found.flux[row], color=INK, lw=0.7, label="this spectrum")
    axes.set_xlim(grid.wavelength[0], grid.wavelength[-1])
    _clip(axes, np.concatenate([mean, found.flux[row]]), margin=0.05, spread=0.0)
    _legend_above(axes, 2)
    return figure


def binned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return medians of x, and median and 16th and 84th percentile of y, in bins of equal number."""
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known])
    parts = [part for part in np.array_split(order, N_BIN) if part.size]
    x, y = x[known], y[known]
    center = np.array([np.median(x[part]) for part in parts])
    quantiles = np.array([np.percentile(y[part], [50, 16, 84]) for part in parts]).reshape(-1, 3)
    return center, quantiles[:, 0], quantiles[:, 1], quantiles[:, 2]


def with_unit(name: str, unit: str) -> str:
    """Return what to write at an axis."""
    return f"{name} [{unit}]" if unit else name


def _chart(xlabel: str, ylabel: str, size: tuple[float, float] = SMALL) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    axes = figure.subplots(gridspec_kw=MARGINS[size])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _clip(axes: Axes, values: Any, margin: float = 0.1, spread: float = 0.5) -> None:
    """Set the limits such that a few outliers do not squeeze all others."""
    known = np.asarray(values)[np.isfinite(values)]
    if not known.size:
        return
    low, high = np.percentile(known, [spread, 100 - spread])
    room = margin * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2, handletextpad=0.4
    )


def _colors() -> tuple[str, ...]:
    return PALETTE * 200  # more than a model may have labels
