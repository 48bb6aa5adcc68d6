"""Drawing: an explanation as one SVG file, which every browser opens and which needs no package to write.

Under the spectrum and the mean training spectrum comes a panel for each label: how much the label
changes with an unresolved feature of 1 % of the continuum at each wavelength.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from anna_onnx.arrays import BoolArray, Floats
from anna_onnx.flags import Flag, names

if TYPE_CHECKING:
    from anna_onnx.explanation import Explanation

WIDTH, LEFT, RIGHT = 1000, 90, 20
TOP, SPECTRUM, PANEL, GAP, BOTTOM = 74, 190, 110, 34, 50
# Okabe & Ito's colours, which the colour-blind tell apart too.
ORANGE, BLUE, VERMILION = "#e69f00", "#0072b2", "#d55e00"
STRONGEST = 3
"""Wavelengths that are named in a panel."""
LONGEST_TITLE = 80
"""Letters for which there is room."""

STYLE = f"""
text {{ font: 13px sans-serif; fill: #222 }} .title {{ font-size: 16px; font-weight: bold }} .end {{ text-anchor: end }}
.middle {{ text-anchor: middle }} .small {{ font-size: 11px }} .frame {{ fill: none; stroke: #222 }}
.missing {{ fill: #ccc }} .line {{ fill: none; stroke: #222 }} .mean {{ fill: none; stroke: {ORANGE}; stroke-width: 2 }}
.up {{ fill: {BLUE} }} .down {{ fill: {VERMILION} }} .tick {{ stroke: #222 }} .of-mean {{ fill: #8a5f00 }}
"""


def draw(found: Explanation) -> str:
    """Return the picture of an explanation, as the text of an SVG file."""
    height = TOP + SPECTRUM + len(found.labels) * (GAP + PANEL) + BOTTOM
    title = _printable(found.title)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(LEFT, 24, escape(_shortened(title, LONGEST_TITLE)), "title"),
        _text(LEFT, 44, _summary(found)),
        *_spectrum(found, TOP),
    ]
    for index in range(len(found.labels)):
        parts += _label(found, index, TOP + SPECTRUM + GAP + index * (GAP + PANEL))
    bottom = height - BOTTOM
    parts += _wavelengths(found, bottom)
    parts.append("</svg>\n")
    return "\n".join(parts)


class _Panel:
    """A panel of the picture: from wavelength and value to its place.

    Parameters
    ----------
    wavelength : array, shape (n_pixel,)
    top, height : int
    low, high : float
        Values at its bottom and top.
    """

    def __init__(self, wavelength: Floats, top: int, height: int, low: float, high: float) -> None:
        self.wavelength, self.top, self.height, self.low, self.high = wavelength, top, height, low, high

    def x(self, wavelength: Any) -> Any:
        first, last = self.wavelength[[0, -1]]
        return LEFT + (WIDTH - LEFT - RIGHT) * (np.asarray(wavelength) - first) / (last - first)

    def y(self, value: Any) -> Any:
        return self.top + self.height * (self.high - np.clip(value, self.low, self.high)) / (self.high - self.low)

    def frame(self, missing: BoolArray) -> Iterator[str]:
        """Yield the frame, and a shade where pixels are missing."""
        edge = np.clip(self.x(_edges(self.wavelength)), LEFT, WIDTH - RIGHT)
        for first, last in _runs(missing):
            yield (
                f'<rect class="missing" x="{edge[first]:.1f}" y="{self.top}" '
                f'width="{edge[last] - edge[first]:.1f}" height="{self.height}"/>'
            )
        yield f'<rect class="frame" x="{LEFT}" y="{self.top}" width="{WIDTH - LEFT - RIGHT}" height="{self.height}"/>'

    def scale(self, ticks: Floats) -> Iterator[str]:
        for tick in ticks:
            y = self.y(tick)
            yield f'<path class="tick" d="M{LEFT - 5} {y:.1f}h5"/>' + _text(LEFT - 8, y + 4, f"{tick:.6g}", "end small")

    def line(self, values: Floats, kind: str) -> Iterator[str]:
        """Yield a line through the values, broken where they are missing."""
        for first, last in _runs(np.isfinite(values)):
            path = self._path(self.wavelength[first:last], values[first:last])
            yield f'<path class="{kind}" d="{path}"/>'

    def area(self, values: Floats, kind: str) -> Iterator[str]:
        """Yield the area between values and zero, broken where they are missing."""
        for first, last in _runs(np.isfinite(values) & (values != 0)):
            wavelength = self.wavelength[first:last]
            around = np.concatenate([wavelength[:1], wavelength, wavelength[-1:]])
            yield f'<path class="{kind}" d="{self._path(around, np.pad(values[first:last], 1))}z"/>'

    def _path(self, wavelength: Floats, values: Floats) -> str:
        points = zip(self.x(wavelength).tolist(), self.y(values).tolist(), strict=True)
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _spectrum(found: Explanation, top: int) -> Iterator[str]:
    """Yield the panel of the spectrum and the mean training spectrum."""
    known = found.flux[np.isfinite(found.flux)]
    shown = known if found.mean is None else np.concatenate([known, found.mean])
    # A cosmic ray must not flatten the lines.
    common = np.quantile(shown, [0.005, 0.995])
    low, high = np.clip([shown.min(), shown.max()], 2 * common[0] - common[1], 2 * common[1] - common[0])
    margin = 0.05 * (high - low) + 0.01
    panel = _Panel(found.grid.wavelength, top, SPECTRUM, low - margin, high + margin)
    yield from panel.frame(np.isnan(found.flux))
    if found.mean is not None:
        yield from panel.line(found.mean, "mean")
        yield _text(WIDTH - RIGHT - 8, top + SPECTRUM - 10, "mean training spectrum", "end small of-mean")
    yield from panel.line(found.flux, "line")
    yield from panel.scale(ticks(panel.low, panel.high, 3))
    yield _text(LEFT, top - 6, "flux" if Flag.not_normalized in found.flags else "flux / continuum", "small")


def _label(found: Explanation, index: int, top: int) -> Iterator[str]:
    """Yield the panel of a label."""
    label, response = found.labels[index], found.response[index]
    unit = f" {label.difference_unit.replace(' ', '')}".rstrip()
    limit = 1.1 * float(np.nanmax(np.abs(response), initial=0)) or 1.0
    panel = _Panel(found.grid.wavelength, top, PANEL, -limit, limit)
    yield from panel.frame(np.isnan(response))
    yield from panel.area(np.maximum(response, 0), "up")
    yield from panel.area(np.minimum(response, 0), "down")
    yield f'<path class="tick" d="M{LEFT} {panel.y(0.0):.1f}H{WIDTH - RIGHT}"/>'
    yield from panel.scale(ticks(-limit, limit, 2))
    value = f"{label.name} = {_rounded(found.values[index], found.errors[index])}{unit}"
    bold = f'<tspan font-weight="bold">{escape(value)}</tspan>'
    yield _text(LEFT, top - 6, f"{bold} ·{escape(unit)} per unresolved feature of 1 %")
    peaks = ", ".join(f"{found.grid.wavelength[pixel]:.1f} Å ({response[pixel]:+.2g})" for pixel in strongest(response))
    yield _text(WIDTH - RIGHT, top - 6, f"strongest: {peaks}" if peaks else "depends on no pixel", "end small")


def _wavelengths(found: Explanation, bottom: int) -> Iterator[str]:
    """Yield the axis under the last panel, and what the colours mean."""
    panel = _Panel(found.grid.wavelength, 0, 1, 0, 1)
    for tick in ticks(found.grid.wavelength[0], found.grid.wavelength[-1], 4):
        x = panel.x(tick)
        yield f'<path class="tick" d="M{x:.1f} {bottom}v5"/>' + _text(x, bottom + 18, f"{tick:.10g}", "middle small")
    yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, f"wavelength in {found.grid.medium}, Å", "middle")
    yield _text(
        LEFT,
        bottom + 36,
        '<tspan class="up">■ rises</tspan> or <tspan class="down">■ falls</tspan> with more flux',
        "small",
    )
    yield _text(WIDTH - RIGHT, bottom + 36, "grey: no good pixels", "end small")


def strongest(response: Floats) -> list[int]:
    """Return the pixels of the strongest peaks of a response, the strongest first.

    Parameters
    ----------
    response : array, shape (n_pixel,)
        NaN where not known.
    """
    size = np.nan_to_num(np.abs(response))
    beside = np.pad(size, 1)
    peaks = np.flatnonzero((size > 0) & (size >= beside[:-2]) & (size > beside[2:]))
    return [int(pixel) for pixel in peaks[np.argsort(-size[peaks], kind="stable")][:STRONGEST]]


def ticks(low: float, high: float, n: int) -> Floats:
    """Return the round numbers between two values, the roundest whose step goes `n` times or more into the range."""
    longest = (high - low) / n
    power = 10.0 ** np.floor(np.log10(longest))
    step = power * next(round_ for round_ in (5, 2, 1) if round_ * power <= longest * 1.001)
    return np.asarray(step * np.arange(int(np.ceil(low / step)), int(np.floor(high / step)) + 1))


def _summary(found: Explanation) -> str:
    snr = "not known" if np.isnan(found.snr) else f"{found.snr:.0f}"
    return escape(f"S/N {snr} · covers {found.coverage:.0%} · flags: {names(found.flags) or 'none'}")


def _rounded(value: float, error: float) -> str:
    """Return a value and its error with two digits of the error."""
    if not (np.isfinite(value) and np.isfinite(error) and error > 0):
        return f"{value:z.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:z.{digits}f} ± {error:.{digits}f}"


def _edges(wavelength: Floats) -> Floats:
    """Return where pixels begin and end, shape (n_pixel + 1,)."""
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    return np.concatenate([wavelength[:1], middle, wavelength[-1:]])


def _runs(marked: BoolArray) -> list[tuple[int, int]]:
    """Return where runs of True begin and end."""
    steps = np.flatnonzero(np.diff(np.pad(marked.astype(np.int8), 1)))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


def _text(x: float, y: float, content: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{content}</text>'


def _shortened(text: str, most: int) -> str:
    """Return a text with its middle left out where it is too long."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _printable(text: str) -> str:
    """Replace what XML cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
