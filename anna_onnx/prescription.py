"""Prescription: what was measured of spectra beside what a model was trained with, and what would have to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anna_onnx import config
from anna_onnx.arrays import FloatArray
from anna_onnx.bundle import Bundle
from anna_onnx.config import Range
from anna_onnx.doctor import MIN_SPECTRA, WIDTHS, Deviation, Measurements, examine
from anna_onnx.filelist import expand
from anna_onnx.medium import C_KMS, refractive_index
from anna_onnx.origin import instrument_of, settings_of, template_of
from anna_onnx.preparation import RESOLUTION_TOLERANCE
from anna_onnx.scatter import MAD
from anna_onnx.snrtemplate import write_template

TEMPLATE_TOLERANCE = 0.05  # rms of the ratio of two S/N templates
CONTINUUM_PRECISION = 0.003  # as good as it is measured
LARGEST_CONTINUUM = 0.1  # error that it makes sense to train for
MASKED = 0.02  # of the continuum: a deviation as strong as this is worth a mask
LARGEST_MASK = 0.15  # of the pixels
MEDIUM_TOLERANCE = 10.0  # km/s: a shift so near that between air and vacuum may be it
AT_REST = 2.0  # km/s: velocities that scatter less may all be zero
LISTED = 8
# Findings that may be why spectra are flagged.
EXPLAINING = ("resolving power", "continuum offset", "continuum slope", "radial velocity", "unknown features")
# Bands of the Earth's atmosphere, Å in air: water, and oxygen at 6300, 6900 and 7600 Å.
TELLURIC = (
    (5880, 6000), (6275, 6320), (6460, 6600), (6867, 6960), (7160, 7350), (7590, 7720), (8120, 8360), (8930, 9850),
)  # fmt: skip

Changes = dict[str, Any]
"""Keys of ``[augmentation]`` and the values that they should have."""


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes
    ----------
    what, found, trained, advice : str
    """

    what: str
    found: str
    trained: str
    advice: str = "–"


@dataclass(frozen=True, eq=False)
class Prescription:
    """What to know before a model is used on these spectra, and what to train with for them.

    Attributes
    ----------
    findings : tuple of Finding
    changes : Changes
    trained : config.Augmentation
        What the model was trained with.
    notes : tuple of str
        How it was measured.
    """

    findings: tuple[Finding, ...]
    changes: Changes
    trained: config.Augmentation
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.table(), "", *self.notes, "", self.block()])

    def table(self) -> str:
        """Return the findings as a table for the terminal."""
        rows = [("", "found", "trained with", "what to change")]
        rows += [dataclasses.astuple(one) for one in self.findings]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in rows)

    def block(self) -> str:
        """Return the table ``[augmentation]`` of a parameter file for spectra like these."""
        default = config.Augmentation()
        kept = {
            item.name: value
            for item in dataclasses.fields(config.Augmentation)
            if (value := getattr(self.trained, item.name)) != getattr(default, item.name)
        }
        lines = [_line(name, value) for name, value in kept.items() if name not in self.changes]
        for name, value in self.changes.items():
            before = f"was {_line(name, kept[name]).split(' = ', 1)[1]}" if name in kept else "new"
            lines.append(f"{_line(name, value)}  # {before}")
        return "\n".join(["[augmentation]", *lines])


def _line(name: str, value: Any) -> str:
    return f"{name} = {config.value_text(value)}"


def consult(bundle: Bundle, files: Sequence[str], template: str | None = None, **options: Any) -> Prescription:
    """Examine spectra, write their S/N template if asked to, and say what would have to change.

    Parameters
    ----------
    bundle : Bundle
    files : sequence of str
        ``@list.txt`` stands for a list of files.
    template : str, optional
        File to write the S/N template to.
    **options
        See `anna_onnx.doctor.examine`.
    """
    measured = examine(bundle, list(expand(files)), **options)
    if template is not None:
        comment = f"measured by anna doctor from {measured.n} spectra, median S/N {np.nanmedian(measured.snr):.0f}"
        write_template(template, bundle.sidecar.grid, measured.template, comment)
    return prescribe(bundle, measured, template)


def prescribe(bundle: Bundle, measured: Measurements, template: str | None = None) -> Prescription:
    """Compare what was measured of spectra with what a model was trained with.

    Parameters
    ----------
    bundle : Bundle
    measured : Measurements
    template : str, optional
        File in which the measured S/N template is.
    """
    settings = settings_of(bundle)
    trained = config.Augmentation() if settings is None else settings.augmentation
    parts = (
        _normalization(measured),
        _snr(bundle, measured, trained),
        _template(bundle, measured, trained, template),
        _resolution(bundle, measured, trained),
        _continuum("offset", measured.offset, trained.continuum_offset),
        _continuum("slope", measured.slope, trained.continuum_slope),
        _velocity(bundle, measured, trained),
        _coverage(bundle, measured),
        _missing(measured, trained),
        _deviations(bundle, measured, trained),
    )
    changes = {name: value for _, change in parts for name, value in change.items()}
    if "snr_template" in changes:
        changes["snr"] = _snr_beside_template(bundle, measured, trained)
        changes["legacy_noise"] = False
    known = {name: value for name, value in changes.items() if getattr(trained, name) != value}
    findings = tuple(finding for finding, _ in parts)
    return Prescription((*findings, _flagged(measured, findings)), known, trained, _notes(measured))


def _normalization(measured: Measurements) -> tuple[Finding, Changes]:
    found = f"{1 - measured.unnormalized:.0%} divided by it"
    if measured.unnormalized <= 0.5:
        return Finding("continuum", found, "100%"), {}
    return Finding("continuum", found, "100%", "infer with --normalize, as was done here"), {}


def _snr(bundle: Bundle, measured: Measurements, trained: config.Augmentation) -> tuple[Finding, Changes]:
    low, high = _percentiles(measured.snr)
    if np.isnan(low):
        return Finding("S/N of a pixel", "not measured", "–"), {}
    found = f"{low:.0f} to {high:.0f}, median {np.nanmedian(measured.snr):.0f}"
    if measured.noise_ratio is not None:
        found += f"; noise {measured.noise_ratio:.2f} × the errors given"
    if trained.snr is None:
        return Finding("S/N of a pixel", found, "no noise added"), {}
    usual = float(np.median(template_of(bundle)))
    own = trained.snr[0] * usual, trained.snr[1] * usual
    if own[0] <= 1.05 * low and own[1] >= 0.95 * high:
        return Finding("S/N of a pixel", found, _span(own, "{:.0f}")), {}
    wanted = _snr_range(measured)
    change = {"snr": (_digits(min(wanted[0], own[0]) / usual), _digits(max(wanted[1], own[1]) / usual, up=True))}
    return Finding("S/N of a pixel", found, _span(own, "{:.0f}"), "snr"), change


def _snr_range(measured: Measurements) -> Range:
    """Return a range of S/N that holds nearly all spectra, with a margin."""
    low, high = _percentiles(measured.snr, (2, 98))
    return _digits(0.9 * low), _digits(1.1 * high, up=True)


def _snr_beside_template(bundle: Bundle, measured: Measurements, trained: config.Augmentation) -> Range:
    """Return the range of S/N to train with along the measured template, never narrower than that of the training."""
    wanted, own = _snr_range(measured), trained.snr
    if own is None:
        return wanted
    usual = float(np.median(template_of(bundle)))
    if own[0] <= wanted[0] and own[1] >= wanted[1]:
        return own
    return min(wanted[0], _digits(own[0] * usual)), max(wanted[1], _digits(own[1] * usual, up=True))


def _digits(value: float, up: bool = False) -> float:
    """Round to two digits, down or up."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{(np.ceil(value / step) if up else np.floor(value / step)) * step:.6g}")


def _template(
    bundle: Bundle, measured: Measurements, trained: config.Augmentation, name: str | None
) -> tuple[Finding, Changes]:
    if np.ptp(measured.template) == 0:
        return Finding("S/N along the spectrum", "not measured: too few pixels", "–"), {}
    low, high = np.percentile(measured.template, [5, 95])
    own = template_of(bundle)
    own = own / np.median(own)
    ratio = measured.template / own
    off = float(np.std(np.log(ratio / np.median(ratio))))
    found = f"{low:.2f} to {high:.2f} of the median"
    if trained.snr is None:
        return Finding("S/N along the spectrum", found, "no noise added"), {}
    kind = "flat" if np.ptp(own) == 0 else "a template"
    if off <= TEMPLATE_TOLERANCE:
        return Finding("S/N along the spectrum", found, f"{kind}, {off:.0%} off"), {}
    advice = "snr_template" if name else "snr_template, which -o writes"
    return Finding("S/N along the spectrum", found, f"{kind}, {off:.0%} off", advice), _given(snr_template=name)


def _given(**change: Any) -> Changes:
    return {name: value for name, value in change.items() if value is not None}


def _resolution(bundle: Bundle, measured: Measurements, trained: config.Augmentation) -> tuple[Finding, Changes]:
    what, own = "resolving power", _resolution_of(bundle)
    asked = "not stated" if own is None else f"R {own:.0f}"
    found, value, stated = _resolution_found(measured, own)
    least = own
    if own is not None and trained.resolution is not None:
        least = min(own, trained.resolution[0])
        asked += f", degraded to {least:.0f}" if least < own else ""
    if value is None or own is None or least is None:
        return Finding(what, found, asked), {}
    if value > own * (1 + RESOLUTION_TOLERANCE):
        advice = "–" if measured.degraded else "infer with --resolution, which degrades them"
        return Finding(what, found, asked, advice), {}
    if value >= least * (1 - RESOLUTION_TOLERANCE):
        return Finding(what, found, asked), {}
    change = {"resolution": (_digits(0.95 * value), round(own, 1)), "spectrum_resolution": round(own, 1)}
    return Finding(what, found, asked, "resolution" if stated else "resolution, unless the stars rotate"), change


def _resolution_found(measured: Measurements, own: float | None) -> tuple[str, float | None, bool]:
    """Return the resolving power in words and as a number, and whether it is the stated one.

    That counts where none was measured, or one so low that only a limit was.
    """
    found, stated = measured.resolution, measured.stated_resolution
    if found is None:
        return ("not measured", None, False) if stated is None else (f"R {stated:.0f} stated", stated, True)
    widest = own is not None and found <= 1.01 * own / WIDTHS[-1]
    if widest and stated is not None and stated < found:
        return f"R {stated:.0f} stated", stated, True
    return f"R {found:.0f} or {'less' if widest else 'more'}", found, False


def _resolution_of(bundle: Bundle) -> float | None:
    """Return the resolving power of the training spectra, None where it is not stated."""
    instrument = instrument_of(bundle)
    if instrument is None:
        return None
    return float(instrument.get("resolution") or bundle.sidecar.grid.wavelength.mean() / instrument["fwhm"])


def _continuum(name: str, values: FloatArray, own: Range | None) -> tuple[Finding, Changes]:
    low, high = _percentiles(values)
    found, what = f"{low:+z.3f} to {high:+z.3f}", f"continuum {name}"
    had = own or (0.0, 0.0)
    if low >= had[0] - CONTINUUM_PRECISION and high <= had[1] + CONTINUUM_PRECISION:
        return Finding(what, found, _span(own, "{:+z.3g}")), {}
    if max(-low, high) > LARGEST_CONTINUUM:
        return Finding(what, found, _span(own, "{:+z.3g}"), "nothing: normalise better"), {}
    change = (min(had[0], np.floor(200 * low) / 200), max(had[1], np.ceil(200 * high) / 200))
    return Finding(what, found, _span(own, "{:+z.3g}"), f"continuum_{name}"), {f"continuum_{name}": _floats(change)}


def _velocity(bundle: Bundle, measured: Measurements, trained: config.Augmentation) -> tuple[Finding, Changes]:
    what, own = "radial velocity", bundle.sidecar.preparation.velocity_range
    known = measured.velocity[np.isfinite(measured.velocity)]
    asked = _span(own, "{:.0f}", " km/s")
    if not known.size:
        return Finding(what, "not measured", asked), {}
    low, high = float(known.min()), float(known.max())
    found = f"{low:z.1f} to {high:z.1f} km/s"
    if len(known) < measured.n:
        found += f", {measured.n - len(known)} not measured"
    advice, shift = _of_wrong_medium(measured, float(bundle.sidecar.grid.wavelength.mean()))
    low, high = low - shift, high - shift
    had, more = own or (0.0, 0.0), trained.radial_velocity or (0.0, 0.0)
    if low >= had[0] - 2 and high <= had[1] + 2:
        return Finding(what, found, asked, advice or "–"), {}
    # What the training adds comes on top of the velocities that the training spectra have.
    change = more[0] + min(0.0, np.floor(low - had[0])), more[1] + max(0.0, np.ceil(high - had[1]))
    advice = "; ".join(filter(None, (advice, "radial_velocity, or remove it: --rv")))
    return Finding(what, found, asked, advice), {"radial_velocity": _floats(change)}


def _of_wrong_medium(measured: Measurements, wavelength: float) -> tuple[str, float]:
    """Return what to say where velocities are as vacuum taken as air makes them, or the reverse, and how far off.

    They differ by that from the stated ones; or none are stated and all are just that, which may be true of a cluster.
    So only of stated ones it is taken off.
    """
    step = C_KMS * (float(refractive_index(wavelength)) - 1)
    off = measured.velocity - measured.stated_velocity
    is_stated = bool(np.isfinite(off).any())
    if not is_stated and np.isfinite(measured.stated_velocity).any():
        return "", 0.0
    off = off if is_stated else measured.velocity
    off = off[np.isfinite(off)]
    shift = float(np.median(off))
    if abs(abs(shift) - step) > MEDIUM_TOLERANCE:
        return "", 0.0
    true, taken = ("vacuum", "air") if shift > 0 else ("air", "vacuum")
    if is_stated:
        return f"--medium {true}: {shift:+.0f} km/s from the stated ones, as of {true} taken as {taken}", shift
    if off.size < MIN_SPECTRA or MAD * float(np.median(np.abs(off - shift))) >= AT_REST:
        return "", 0.0
    return f"--medium {true} if the stars are at rest: {shift:+.0f} km/s is {true} taken as {taken}", 0.0


def _coverage(bundle: Bundle, measured: Measurements) -> tuple[Finding, Changes]:
    low, least = float(measured.coverage.min()), bundle.sidecar.preparation.min_coverage
    found, trained = f"{low:.1%} to {measured.coverage.max():.1%}", f"{least:.0%} or more"
    if low >= least:
        return Finding("coverage", found, trained), {}
    return Finding("coverage", found, trained, "coverage"), {"coverage": (float(np.floor(20 * low) / 20), 1.0)}


def _missing(measured: Measurements, trained: config.Augmentation) -> tuple[Finding, Changes]:
    high = float(np.percentile(measured.missing, 95))
    own = max((limits[1] for limits in (trained.missing_pixels, trained.gaps) if limits), default=0.0)
    found = f"up to {measured.missing.max():.1%}"
    if high <= own + 0.005:
        return Finding("missing pixels", found, f"up to {own:.1%}"), {}
    change = {"missing_pixels": (0.0, float(np.ceil(100 * high) / 100))}
    return Finding("missing pixels", found, f"up to {own:.1%}", "missing_pixels"), change


def _deviations(bundle: Bundle, measured: Measurements, trained: config.Augmentation) -> tuple[Finding, Changes]:
    if measured.n < MIN_SPECTRA:
        return Finding("unknown features", f"not looked for: fewer than {MIN_SPECTRA} spectra", "–"), {}
    if not measured.deviations:
        return Finding("unknown features", "none that many spectra share", "–"), {}
    found = f"{len(measured.deviations)}, {measured.deviations[0].depth:+.1%} the strongest"
    wavelength = bundle.sidecar.grid.wavelength
    step = float(np.diff(wavelength).max())
    strong = sorted((one.first - step, one.last + step) for one in measured.deviations if abs(one.depth) >= MASKED)
    masked = sum(float(((wavelength >= a) & (wavelength <= b)).mean()) for a, b in strong)
    if not strong or masked > LARGEST_MASK:
        return Finding("unknown features", found, "–", "nothing simple: see below"), {}
    mask = (*trained.mask, *((round(a, 2), round(b, 2)) for a, b in strong))
    return Finding("unknown features", found, "–", "mask, or find out what they are: see below"), {"mask": mask}


def describe(one: Deviation) -> str:
    """Return a few words on a deviation."""
    kind = "absorption" if one.depth < 0 else "emission"
    air = any(one.first < last and one.last > first for first, last in TELLURIC)
    where = "-".join(dict.fromkeys(f"{edge:.1f}" for edge in (one.first, one.last)))
    return f"{where} Å {one.depth:+.1%} ({'telluric?' if air else kind})"


def _flagged(measured: Measurements, findings: Sequence[Finding]) -> Finding:
    found = f"unlike_training {measured.unlike:.0%}, outside_labels {measured.outside:.0%}"
    if max(measured.unlike, measured.outside) <= 0.1:
        return Finding("flags", found, "1 %")
    if any(one.what in EXPLAINING and one.advice != "–" for one in findings):
        return Finding("flags", found, "1 %", "mend the lines above first")
    return Finding("flags", found, "1 %", "other stars than trained on: no augmentation helps")


def _notes(measured: Measurements) -> tuple[str, ...]:
    lacks = f", {measured.failed} more could not be used" if measured.failed else ""
    shown = "; ".join(describe(one) for one in measured.deviations[:LISTED])
    degraded = "; as inference states it where the resolving power was lowered" if measured.degraded else ""
    features = f"In many spectra, but in no training spectrum: {shown}" if shown else ""
    notes = (
        f"{measured.n} spectra{lacks}; compared with {measured.reference}. Ranges are the 5th to the 95th percentile, "
        "of velocities, coverage and missing pixels those of all spectra.",
        "S/N: from second differences of what the model's training spectra cannot make, per pixel of the model"
        f"{degraded}. "
        "Resolving power: a fit of the line width without rotation; that of the sharpest spectra counts.",
        features,
    )
    return tuple(note for note in notes if note)


def _percentiles(values: FloatArray, shares: tuple[int, int] = (5, 95)) -> Range:
    """Return two percentiles of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, shares) if known.size else (np.nan, np.nan)
    return float(low), float(high)


def _span(limits: Range | None, form: str, unit: str = "") -> str:
    return "none" if limits is None else f"{form.format(limits[0])} to {form.format(limits[1])}{unit}"


def _floats(limits: tuple[Any, Any]) -> Range:
    return round(float(limits[0]), 4), round(float(limits[1]), 4)
