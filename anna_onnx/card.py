"""The model card: what a person should read before using a model, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anna_onnx.bundle import Bundle, released_models
from anna_onnx.calibration import Calibration
from anna_onnx.coverage import Coverage, percent
from anna_onnx.files import write_text
from anna_onnx.labels import Label
from anna_onnx.scatter import in_words

FACTS = ("date", "run", "architecture", "parameters", "steps", "seed")


def write_card(bundle: Bundle, path: Path) -> None:
    """Write the model card beside a model, complete or not at all."""
    write_text(path, model_card(bundle))


def model_card(bundle: Bundle) -> str:
    """Return the model card of a bundle, with what its maker has to say."""
    sidecar, about = bundle.sidecar, bundle.sidecar.provenance
    notes = str(about.get("notes", "")).strip()
    preparation = sidecar.preparation
    lines = [
        f"# {bundle.name}",
        "",
        f"Infers {', '.join(label.name for label in sidecar.labels)} from continuum-normalised spectra, "
        f"{sidecar.grid}, {sidecar.grid.n_pixel} pixels.",
        "",
        "| label | range | unit of errors | bias | scatter | robust scatter | rms | inside the 68 % interval |",
        "|---|---|---|---|---|---|---|---|",
        *(_label_row(label, about) for label in sidecar.labels),
        "",
        *_measured_on(about),
        *_coverage(Coverage.from_dict(about.get("coverage"))),
        *_storage(about.get("precision", {})),
        "## Use",
        "",
        "```",
        f"anna-lite infer {bundle.name}.onnx spectra/*.fits -o results.csv",
        f"anna-lite selftest {bundle.name}.onnx",
        "```",
        "",
        *_levels(sidecar.calibration),
        *(["`--covariance` adds the correlations of the errors.", ""] if about.get("covariance") else []),
        "## Expects",
        "",
        f"- wavelengths: {sidecar.grid}; others are converted, unknown media are taken as {sidecar.grid.medium}",
        f"- S/N: {_range(preparation.snr_range)}",
        f"- radial velocity: {_range(preparation.velocity_range, ' km/s')}",
        f"- resolving power: {'not stated' if preparation.resolution is None else f'{preparation.resolution:.0f}'}",
        f"- coverage: at least {preparation.min_coverage:.0%} of the range",
        "",
        *([notes, ""] if notes else []),
        "## Made",
        "",
        *(f"- {name}: {about[name]}" for name in FACTS if name in about),
        *(f"- {name}: {entry['file']} ({entry['sha256'][:12]})" for name, entry in about.get("data", {}).items()),
        *(f"- {name} {version}" for name, version in about.get("versions", {}).items()),
        f"- network sha256: {sidecar.sha256}",
        "",
    ]
    if about.get("params"):
        lines += ["## Parameters", "", "```toml", str(about["params"]).strip(), "```", ""]
    return "\n".join(lines)


def list_models() -> str:
    """Return the names and sizes of the released models, with how their cards begin."""
    released = released_models()
    if not released:
        return "no models are released with this version"
    return "\n\n".join(_opening(name, path) for name, path in released.items())


def _opening(name: str, path: Path) -> str:
    _title, what_it_does, *_ = path.with_suffix(".md").read_text(encoding="utf-8").split("\n\n")
    return f"{name} ({path.stat().st_size / 1e6:.1f} MB)\n{what_it_does}"


def _label_row(label: Label, about: Any) -> str:
    known = f"| {label.name} | {label.low:g} to {label.high:g} {label.unit}".rstrip() + f" | {label.difference_unit} |"
    metrics = about.get("metrics", {}).get(label.name)
    if metrics is None:
        return f"{known} | | | | |"
    numbers = " | ".join(in_words(metrics[key], ".3g") for key in ("bias", "scatter", "robust_scatter", "rms"))
    return f"{known} {numbers} | {in_words(metrics['coverage_68'], '.1%')} |"


def _measured_on(about: Any) -> list[str]:
    if not about.get("metrics"):
        return []
    return [
        f"Measured on the {about.get('calibrated_on', 'validation set')} with the augmentation of the training.",
        "",
    ]


def _coverage(found: Coverage | None) -> list[str]:
    """Return how often intervals held the truth, overall and in the thirds of the S/N and of every label."""
    if found is None:
        return []
    edges = [
        f"{name} {low:.4g} and {high:.4g}"
        for name, (low, high) in zip(found.groups, found.edges, strict=True)
        if np.isfinite(low)
    ]
    lines = [
        "## Coverage",
        "",
        f"How often intervals held the truth: {found.n} spectra of {found.n_star} stars, each with factors that were "
        "fitted without its star; in thirds, from the lowest to the highest, of the S/N and of the label itself, "
        "and in that third of any quantity where it is farthest off. "
        f"Thirds part at {'; '.join(edges)}.",
        "",
        "| label | promised | found | thirds of S/N | thirds of the label | farthest off |",
        "|---|---|---|---|---|---|",
    ]
    for i, name in enumerate(found.labels):
        for k, level in enumerate(found.levels):
            thirds = found.thirds[i, :, :, k]  # (group, third)
            own = [thirds[found.groups.index(group)] for group in ("snr", name) if group in found.groups]
            texts = [" / ".join(in_words(value, ".1%") for value in values) for values in own]
            farthest = thirds.flat[int(np.nan_to_num(np.abs(thirds - level)).argmax())]
            held, off = in_words(found.overall[i, k], ".1%"), in_words(farthest, ".1%")
            lines.append(f"| {name} | {percent(level)} | {held} | {' | '.join(texts)} | {off} |")
    warning = found.warning()
    return [*lines, "", *([warning[0].upper() + warning[1:] + ".", ""] if warning else [])]


def _levels(calibration: Calibration | None) -> list[str]:
    """Return of which probabilities intervals can be asked for; without calibration they are a Gaussian's, of any."""
    if calibration is None:
        return []
    lowest, *_, highest = calibration.levels
    return [f"`--level` adds intervals that hold the truth with a probability from {lowest:.3g} to {highest:.3g}.", ""]


def _storage(precision: Any) -> list[str]:
    """Return how the weights are stored, and what that does to each label."""
    if not precision:
        return []
    lines = [f"Weights are stored as {precision['stored']}; arithmetic is float32.", ""]
    if effect := precision.get("effect"):
        lines += ["| label | rms | rms with float32 weights | rms difference |", "|---|---|---|---|"]
        for name, row in effect.items():
            before, after = in_words(row["rms_float32"], ".4g"), in_words(row["rms"], ".4g")
            lines.append(f"| {name} | {after} | {before} | {in_words(row['difference'], '.2g')} |")
        lines.append("")
    return lines


def _range(limits: tuple[float, float] | None, unit: str = "") -> str:
    return "not stated" if limits is None else f"{limits[0]:g} to {limits[1]:g}{unit}"
