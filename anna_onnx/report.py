"""The report of ``anna test``: one HTML file that needs nothing beside it, for a desk or a phone."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anna_onnx import charts
from anna_onnx.arrays import FloatArray
from anna_onnx.assessment import Assessment, Statistics, named_thirds, ratios_in_words, share
from anna_onnx.calibration import ONE_SIGMA
from anna_onnx.coverage import REPORTED_LEVELS, TOLERANCE, percent
from anna_onnx.explanation import differentiate
from anna_onnx.files import write_text
from anna_onnx.flags import Flag, names
from anna_onnx.labels import Label
from anna_onnx.scatter import describe, in_words, known_mean
from anna_onnx.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_WORST = 10
N_SENSITIVITY = 6
"""Spectra over which the sensitivity is averaged."""
SECTIONS = {
    "labels": "Labels",
    "bound": "Bound",
    "residuals": "Residuals",
    "coverage": "Intervals",
    "flags": "Flags",
    "sensitivity": "Sensitivity",
    "worst": "Worst ten",
    "provenance": "Provenance",
}

CSS = """
:root { --ink: #1f2933; --muted: #5f6b78; --rule: #e4e8ec; --accent: #0072b2; --paper: #f6f7f9; }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); background: var(--paper); }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 1.2rem; }
header { padding-top: 2rem; padding-bottom: .8rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .2rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 0 0 .3rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
.quiet { color: var(--muted); margin: 0 0 .8rem; max-width: 48rem; }
nav { position: sticky; top: 0; z-index: 1; background: rgba(255, 255, 255, .95); border-top: 1px solid var(--rule);
  border-bottom: 1px solid var(--rule); }
nav div { max-width: 76rem; margin: 0 auto; padding: 0 1.2rem; display: flex; gap: 1.3rem; overflow-x: auto; }
nav a { padding: .6rem 0; color: var(--muted); text-decoration: none; white-space: nowrap; font-size: .92rem; }
nav a:hover { color: var(--accent); }
section { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 1.2rem; margin: 1.2rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); gap: .9rem; margin: 1.2rem 0; }
.card { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: .9rem 1rem; }
.card b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card b small { font-size: .95rem; font-weight: 500; color: var(--muted); }
.card span { display: block; color: var(--muted); font-size: .88rem; }
.card .name { color: var(--accent); font-weight: 600; font-size: .95rem; }
.notes { margin: 0 0 1rem; padding: .8rem 1rem .8rem 2rem; background: #fff8e6; border: 1px solid #f3dfa8;
  border-radius: 10px; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: .8rem; }
.heat th, .heat td { padding: .35rem .5rem; }
figure { margin: 0; } figcaption { font-size: .86rem; color: var(--muted); padding-left: .3rem; }
img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } .scroll img { min-width: 42rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--muted); font-size: .85rem; } tbody tr:hover { background: var(--paper); }
th:first-child, td:first-child { text-align: left; }
td.wrap { white-space: normal; overflow-wrap: anywhere; text-align: left; }
th.group { text-align: center; border-left: 1px solid var(--rule); } td.first { border-left: 1px solid var(--rule); }
.bar { display: inline-block; height: .7rem; background: var(--accent); border-radius: 2px; vertical-align: middle; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: var(--paper); padding: .8rem; border-radius: 8px; font-size: .82rem; }
footer { color: var(--muted); font-size: .86rem; padding-bottom: 3rem; }
@media (max-width: 40rem) { section { padding: .9rem; border-radius: 0; margin-left: -1.2rem; margin-right: -1.2rem; } }
@media print { nav { display: none; } section { break-inside: avoid; } .scroll { overflow: visible; }
  html { print-color-adjust: exact; -webkit-print-color-adjust: exact; } html, body { font-size: 13px; }
  .scroll img { min-width: 0; } table, th { font-size: .75rem; } th, td, .heat th, .heat td { padding: .2rem .3rem; } }
"""


def write_report(found: Assessment, path: Path) -> None:
    """Write the report of a test, complete or not at all.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    with charts.style():
        write_text(path, report(found))


def report(found: Assessment) -> str:
    """Return the report of a test as one HTML page without external resources."""
    mean = mean_spectrum(found)
    parts = (
        _labels(found),
        _bound(found),
        _residuals(found),
        _coverage(found),
        _flags(found),
        _sensitivity(found, mean),
        _worst(found, mean),
        _provenance(found),
    )
    name, grid = escape(found.bundle.name), found.bundle.sidecar.grid
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in SECTIONS.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: test report</title><style>{CSS}</style></head><body>
<header><h1>{name}</h1>
<p class="quiet">{len(found)} spectra of known labels, {grid}, {grid.n_pixel} pixels, \
S/N {_snr_range(found)}; {escape(found.about.get("spectra", ""))}.</p></header>
<nav><div>{links}</div></nav>
<main>{_cards(found)}{_notes(found)}{"".join(parts)}</main>
<footer>anna-onnx · {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC · the residual of every star: \
test_stats.csv</footer>
</body></html>
"""


def mean_spectrum(found: Assessment) -> FloatArray:
    """Return the mean training spectrum; where a model has none, the mean of the tested spectra."""
    novelty = found.bundle.sidecar.novelty
    if novelty is not None:
        return np.asarray(novelty.mean, dtype=np.float64)
    known = np.isfinite(found.flux)
    total = np.where(known, found.flux, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


def _snr_range(found: Assessment) -> str:
    low, high = np.nanpercentile(found.snr, [5, 95])
    return f"{low:.0f} to {high:.0f}"


def _cards(found: Assessment) -> str:
    return f'<div class="cards">{"".join(map(_card, found.statistics))}</div>'


def _card(one: Statistics) -> str:
    bound = f"<span>{one.over_bound:.2f} × the bound</span>" if np.isfinite(one.over_bound) else ""
    holds = f"<span>68 % interval holds {share(one.coverage)}</span>" if np.isfinite(one.coverage) else ""
    return (
        f'<div class="card"><span class="name">{escape(one.name)}</span>'
        f"<b>{in_words(one.rms, '.3g')} <small>{escape(one.unit)}</small></b><span>rms</span>{bound}"
        f"{holds}</div>"
    )


def _notes(found: Assessment) -> str:
    """Say in a few lines what a reader should not miss."""
    lines = [*found.notes, found.coverage.warning(), *found.unconstrained(), *found.bound_note()]
    if found.bound is None and "bound" in found.about:
        lines.append(f"the Cramér-Rao bound was {found.about['bound']}")
    items = "".join(f"<li>{escape(line[0].upper() + line[1:])}.</li>" for line in lines if line)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _section(key: str, intro: str, *content: str) -> str:
    return f'<section id="{key}"><h2>{SECTIONS[key]}</h2><p class="quiet">{intro}</p>{"".join(content)}</section>'


def _labels(found: Assessment) -> str:
    head = ["label", "unit", "bias", "scatter", "robust scatter", "rms", "rms, trends out", "in 68 %"]
    rows = [
        [
            one.name,
            one.unit,
            *_numbers(one.bias, one.scatter, one.robust_scatter, one.rms, one.rms_corrected),
            share(one.coverage),
        ]
        for one in found.statistics
    ]
    return _section(
        "labels",
        "Inferred minus true. Robust scatter is 1.48 times the median absolute deviation; trends are polynomials "
        "true = f(inferred), fitted here, which <code>--store-trends</code> keeps in the model.",
        _table(head, rows),
    )


def _bound(found: Assessment) -> str:
    if found.bound is None:
        reason = found.about.get("bound", "not asked for")
        return _section("bound", f"The Cramér-Rao bound was {escape(reason)}.")
    thirds = found.snr_thirds
    head = ["label", "unit", "bound, rms", "rms / bound", "median ratio", *(name for name, _ in thirds)]
    rows = []
    for i, one in enumerate(found.statistics):
        texts = [ratios_in_words(*found.over_bound(i, rows)) for _, rows in thirds]
        rows.append([one.name, one.unit, *_numbers(one.bound, one.over_bound, one.median_over_bound), *texts])
    return _section(
        "bound",
        "The Cramér-Rao bound is the least error with which any method can infer a label from such spectra. The median "
        "ratio is the median of abs(residual) / bound over the stars, over 0.6745: 1 for normal errors at the bound. "
        f"In thirds of the S/N: rms / bound, and the median ratio. {escape(found.about.get('bound', ''))}.",
        _panels([(charts.over_bound(found), "rms of the residuals over rms of the bound")]),
        _table(head, rows),
    )


def _residuals(found: Assessment) -> str:
    parts = [_residuals_of(found, i, label) for i, label in enumerate(found.labels)]
    return _section(
        "residuals",
        "Inferred minus true of every spectrum against each label and the S/N: the line is the running median, the "
        "band holds 68 % of the spectra, triangles at an edge lie beyond it. Then the medians before and after the "
        "fitted trend is taken out, and the residual in units of the stated error against the Gaussian that it should "
        "be.",
        *parts,
    )


def _residuals_of(found: Assessment, i: int, label: Label) -> str:
    if not np.isfinite(found.error[:, i]).any():
        return f"<h3>{escape(label.name)}</h3><p>Not known of any of these spectra.</p>"
    ylabel = charts.with_unit(f"Δ {label.name}", label.difference_unit)
    against = [(found.true[:, k], f"true {charts.with_unit(o.name, o.unit)}") for k, o in enumerate(found.labels)]
    figures = [
        (charts.residuals(x, found.error[:, i], xlabel, ylabel), f"residual of {label.name} against {xlabel}")
        for x, xlabel in [*against, (found.snr, "S/N")]
    ]
    straight = not np.any(found.trends.coefficients[i] - np.eye(1, found.trends.coefficients.shape[1], 1))
    trend = "no trend that cross-validation confirms" if straight else "before and after the trend is taken out"
    figures.append((charts.trend(found, i), f"{label.name}, {trend}"))
    if found.has_errors:
        figures.append((charts.pulls(found, i), f"{label.name} in units of the stated error"))
    return f"<h3>{escape(label.name)}</h3>{_panels(figures)}{_table_of_thirds(found, i, label)}"


def _table_of_thirds(found: Assessment, i: int, label: Label) -> str:
    """Return the residuals of a label in thirds of the S/N and of the label itself, in numbers."""
    width = found.half_width(ONE_SIGMA)[:, i]
    rows = []
    for name, chosen in [*found.snr_thirds, *named_thirds(label.name, found.true[:, i], ".4g")]:
        error = found.error[chosen, i]
        numbers = describe(error)
        inside = (np.abs(error) <= width[chosen])[np.isfinite(error) & np.isfinite(width[chosen])]
        cells = _numbers(numbers["bias"], numbers["robust_scatter"], numbers["rms"], known_mean(width[chosen]))
        rows.append([name, str(int(chosen.sum())), *cells, share(known_mean(inside))])
    head = ["", "spectra", "bias", "robust scatter", "rms", "mean error stated", "in 68 %"]
    return f"<details><summary>{escape(label.name)} in numbers</summary>{_table(head, rows)}</details>"


def _coverage(found: Assessment) -> str:
    if not found.has_errors:
        return _section("coverage", "The model states no errors.")
    figures = [(charts.coverage(found), "all spectra, each label")]
    for i, label in enumerate(found.labels):
        figures += [
            (charts.coverage_thirds(found, i, "snr"), f"{label.name}, thirds of S/N"),
            (charts.coverage_thirds(found, i, label.name), f"{label.name}, thirds of {label.name}"),
        ]
    tables = [
        f"<h3>The {percent(level)} interval</h3>{_heat_table(found, k)}"
        for k, level in enumerate(found.coverage.levels)
        if level in REPORTED_LEVELS
    ]
    return _section(
        "coverage",
        "How often the interval of a level holds the truth, less what it promises; the grey band is what the number of "
        f"stars lets chance do. In the tables, cells more than {100 * TOLERANCE:.0f} points off are coloured: "
        "blue holds too many, orange too few." + _joint(found),
        _panels(figures),
        *tables,
    )


def _joint(found: Assessment) -> str:
    if found.joint_coverage is None:
        return ""
    return (
        " The 68 % ellipsoid of all labels together, which their correlations make of the 68 % errors, "
        f"holds {share(found.joint_coverage)}."
    )


def _heat_table(found: Assessment, k: int) -> str:
    """Return the coverage of each label (a row) in the thirds of everything (columns), coloured where it is off."""
    cover = found.coverage
    groups = "".join(f'<th class="group" colspan="3">{"S/N" if g == "snr" else escape(g)}</th>' for g in cover.groups)
    thirds = '<th class="first">low</th><th>mid</th><th>high</th>' * len(cover.groups)
    lines = [f"<tr><th></th><th></th>{groups}</tr><tr><th>label</th><th>all</th>{thirds}</tr>"]
    for i, name in enumerate(cover.labels):
        cells = [_heat_cell(cover.overall[i, k], cover.levels[k], False)]
        cells += [
            _heat_cell(value, cover.levels[k], third == 0)
            for group in cover.thirds[i, :, :, k]
            for third, value in enumerate(group)
        ]
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="heat">{"".join(lines)}</table></div>'


def _heat_cell(value: float, promised: float, first: bool) -> str:
    off = value - promised if np.isfinite(value) else 0.0
    color = "0, 114, 178" if off > 0 else "230, 159, 0"
    alpha = min(0.85, 6 * (abs(off) - TOLERANCE) + 0.15) if abs(off) > TOLERANCE else 0.0
    tint = f' style="background: rgba({color}, {alpha:.2f})"' if alpha else ""
    text = f"{100 * value:.1f}" if np.isfinite(value) else "–"
    return f"<td{' class=first' if first else ''}{tint}>{text}</td>"


def _flags(found: Assessment) -> str:
    counts = {flag: int((found.flags & flag.value > 0).sum()) for flag in Flag}
    rows = [
        f"<tr><td>{escape(str(flag.name))}</td><td>{count}</td><td>{count / len(found):.1%}</td>"
        f'<td class="wrap"><span class="bar" style="width: {12 * count / len(found):.2f}rem"></span></td></tr>'
        for flag, count in counts.items()
        if count
    ]
    head = "<tr><th>flag</th><th>spectra</th><th>rate</th><th></th></tr>"
    table = f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'
    return _section(
        "flags",
        f"Flags that inference sets. {(found.flags > 0).mean():.1%} of the spectra have one or more. Of clean spectra "
        "1 % are <code>unlike_training</code>; of those with cosmic rays, lost pixels, or imperfections that only some "
        "of the training spectra have, more are, and rightly.",
        table if rows else "<p>No spectrum is flagged.</p>",
    )


def _sensitivity(found: Assessment, mean: FloatArray) -> str:
    """Return by how much each label changes with each pixel, in the mean over a few spectra."""
    order = np.argsort(found.true[:, 0])
    rows = order[np.linspace(0, len(found) - 1, min(N_SENSITIVITY, len(found))).astype(int)]
    session = Session(found.bundle)
    changes = np.abs([differentiate(session, found.flux[row], len(found.labels)) for row in rows])
    jacobian = np.nan_to_num(changes).mean(axis=0)
    return _section(
        "sensitivity",
        "By how much a label changes, up or down, when one pixel is brighter by 1 % of the continuum: the mean over "
        f"{len(rows)} spectra. Peaks should lie on lines; a peak where the mean spectrum has none deserves a question.",
        _wide(charts.sensitivity(found, mean, jacobian), "sensitivity of every label against wavelength"),
    )


def _worst(found: Assessment, mean: FloatArray) -> str:
    """Return the spectra with the largest residuals, in units of each label's rms."""
    typical = np.array([one.rms for one in found.statistics])
    misfit = np.sqrt(np.nan_to_num(found.error / typical) ** 2).mean(axis=1)
    worst = np.argsort(-misfit)[:N_WORST]
    parts = [_worst_one(found, int(row), float(misfit[row]), mean) for row in worst]
    return _section(
        "worst",
        "The spectra with the largest mean of abs(residual) / rms over the labels, against the mean training spectrum.",
        *parts,
    )


def _worst_one(found: Assessment, row: int, misfit: float, mean: FloatArray) -> str:
    error = found.half_width(ONE_SIGMA)[row]
    head = ["", *(charts.with_unit(label.name, label.unit) for label in found.labels)]
    rows = [
        ["true", *_numbers(*found.true[row], digits=5)],
        ["inferred", *_numbers(*found.values[row], digits=5)],
        ["error stated", *_numbers(*error)],
        ["residual / error", *_numbers(*(found.error[row] / error))],
    ]
    flagged = names(Flag(int(found.flags[row])))
    name = f"{found.id[row]:g}" if np.issubdtype(found.id.dtype, np.number) else str(found.id[row])
    title = f"{name}: S/N {found.snr[row]:.0f}, {misfit:.1f} × the rms{', ' + flagged if flagged else ''}"
    picture = _wide(charts.spectrum(found, row, mean), f"spectrum {name}")
    return f"<h3>{escape(title)}</h3>{picture}{_table(head, rows)}"


def _provenance(found: Assessment) -> str:
    about = dict(found.bundle.sidecar.provenance)
    params = about.pop("params", None)
    facts: dict[str, Any] = {**found.about, "network sha256": found.bundle.sidecar.sha256}
    for name in ("name", "date", "run", "architecture", "parameters", "steps", "best_step", "training_seconds", "seed"):
        if about.get(name) is not None:
            facts[name.replace("_", " ")] = about[name]
    facts["calibrated on"] = about.get("calibrated_on", "not stated")
    for name, entry in _items(about.get("data")):
        facts[f"data: {name}"] = " ".join(str(value) for _, value in _items(entry))
    for kind in ("versions", "hardware", "precision"):
        facts |= {f"{kind}: {name}": value for name, value in _items(about.get(kind)) if not isinstance(value, dict)}
    cells = [(escape(str(name)), escape(str(value))) for name, value in facts.items()]
    lines = "".join(f'<tr><td>{name}</td><td class="wrap">{value}</td></tr>' for name, value in cells)
    text = f"<details><summary>params.toml</summary><pre>{escape(str(params))}</pre></details>" if params else ""
    return _section("provenance", "What was tested, on what, and how it was made.", f"<table>{lines}</table>", text)


def _items(table: Any) -> Iterable[tuple[Any, Any]]:
    """Return the entries of what should be a table: provenance is free text."""
    return table.items() if isinstance(table, Mapping) else ()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _numbers(*values: float, digits: int = 3) -> list[str]:
    return [in_words(value, f"z.{digits}g") for value in values]


def _panels(figures: Iterable[tuple[Figure, str]]) -> str:
    """Return small charts, side by side where there is room."""
    return f'<div class="panels">{"".join(_figure(figure, caption) for figure, caption in figures)}</div>'


def _figure(figure: Figure, caption: str) -> str:
    return f"<figure>{_image(figure, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def _wide(figure: Figure, caption: str) -> str:
    """Return a chart that is wider than a phone, which scrolls there."""
    return f'<div class="scroll">{_image(figure, caption)}</div>'


def _image(figure: Figure, caption: str) -> str:
    data = base64.b64encode(charts.render(figure)).decode()
    return f'<img loading="lazy" alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
