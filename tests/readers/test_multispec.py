"""IRAF multispec: generated headers of every dispersion type against an independent evaluation.

The evaluation follows the manual (``help specwcs``) pixel by pixel with plain loops.
"""

from __future__ import annotations

import math
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anna_onnx.errors import NoWavelengthError, ReadError
from anna_onnx.readers import read_spectra
from tests.readers.files import multispec_bytes

N = 40


def read_bytes(data: bytes, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectrum"
        path.write_bytes(data)
        return read_spectra(path, **options)


def ramp(n_line: int = 1, n: int = N) -> np.ndarray:
    return np.arange(1, n_line * n + 1, dtype="f4").reshape(n_line, n)


def series(kind: int, n: float, order: int) -> list[float]:
    """Return the terms of a Chebyshev (1) or Legendre (2) series by their recurrence."""
    x = [1.0, n]
    for i in range(3, order + 1):
        x.append(2 * n * x[-1] - x[-2] if kind == 1 else ((2 * i - 3) * n * x[-1] - (i - 2) * x[-2]) / (i - 1))
    return x[:order]


def by_manual(function: dict, p: float) -> float:
    """Evaluate one dispersion function at a physical pixel."""
    kind, c = function["kind"], function["c"]
    if kind in (1, 2):
        n = (p - (function["high"] + function["low"]) / 2) / ((function["high"] - function["low"]) / 2)
        return sum(ci * xi for ci, xi in zip(c, series(kind, n, len(c)), strict=True))
    if kind in (3, 4):
        pieces = len(c) - (3 if kind == 3 else 1)
        s = (p - function["low"]) / (function["high"] - function["low"]) * pieces
        j = max(0, min(int(s), pieces - 1))
        a, b = (j + 1) - s, s - j
        x = [a**3, 1 + 3 * a * (1 + a * b), 1 + 3 * b * (1 + a * b), b**3] if kind == 3 else [a, b]
        return sum(c[i + j] * x[i] for i in range(len(x)))
    if kind == 5:
        k = max(1, min(int(p), len(c) - 1))
        return c[k - 1] * (k + 1 - p) + c[k] * (p - k)
    pairs = list(zip(c[0::2], c[1::2], strict=True))
    (x0, y0), (x1, y1) = next((pair for pair in pairwise(pairs) if p < pair[1][0]), (pairs[-2], pairs[-1]))
    return y0 + (y1 - y0) * (p - x0) / (x1 - x0)


def fields_of(function: dict) -> str:
    kind, c = function["kind"], function["c"]
    head = f"{function['weight']!r} {function['offset']!r} {kind}"
    numbers = " ".join(repr(float(ci)) for ci in c)
    if kind in (1, 2):
        return f"{head} {len(c)} {function['low']!r} {function['high']!r} {numbers}"
    if kind in (3, 4):
        pieces = len(c) - (3 if kind == 3 else 1)
        return f"{head} {pieces} {function['low']!r} {function['high']!r} {numbers}"
    return f"{head} {len(c)} {numbers}" if kind == 5 else f"{head} {len(c) // 2} 0 {numbers}"


@st.composite
def functions(draw):
    """Draw a dispersion function that ascends by about 0.5 Angstrom a pixel."""
    kind = draw(st.integers(1, 6))
    start = draw(st.floats(3000, 9000))
    step = draw(st.floats(0.2, 2.0))
    low, high = draw(st.floats(-3, 1)), draw(st.floats(N, N + 5))
    small = st.floats(-0.01, 0.01)

    def line(p):
        return start + step * p

    if kind in (1, 2):
        half = (high - low) / 2
        c = [line((low + high) / 2), step * half, *draw(st.lists(small, max_size=4))]
    elif kind == 3:
        pieces = draw(st.integers(1, 5))
        width = (high - low) / pieces
        # Equal B-spline coefficients reproduce a sixth of a constant, so a line needs a sixth of its values.
        c = [line(low + (i - 1) * width) / 6 + draw(small) * 0.1 for i in range(pieces + 3)]
    elif kind == 4:
        pieces = draw(st.integers(1, 5))
        c = [line(low + i * (high - low) / pieces) + draw(small) for i in range(pieces + 1)]
    elif kind == 5:
        c = [line(p) + draw(small) for p in range(1, N + 1)]
    else:
        knots = sorted(draw(st.sets(st.integers(2, N - 1), max_size=4)) | {1, N})
        c = [value for p in knots for value in (float(p), line(p) + draw(small))]
    weight, offset = draw(st.floats(0.1, 1.0)), draw(st.floats(-20, 20))
    return {"kind": kind, "low": low, "high": high, "c": c, "weight": weight, "offset": offset}


@settings(max_examples=150, deadline=None)
@given(st.lists(functions(), min_size=1, max_size=3), st.floats(-1e-3, 1e-3), st.integers(5, N))
def test_nonlinear_dispersions_follow_the_manual(chosen, z, n_valid):
    total = sum(function["weight"] for function in chosen)
    for function in chosen:
        function["weight"] /= total
    expected = [
        sum(f["weight"] * (f["offset"] + by_manual(f, p)) for f in chosen) / (1 + z) for p in range(1, n_valid + 1)
    ]
    spec = f"1 88 2 5000. 0.5 {n_valid} {z!r} 10.0 20.0 " + " ".join(map(fields_of, chosen))
    (spectrum,) = read_bytes(multispec_bytes(ramp(), [spec]))
    np.testing.assert_allclose(spectrum.wavelength, expected, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(spectrum.flux, ramp()[0, :n_valid])


@settings(max_examples=80, deadline=None)
@given(
    st.booleans(),
    st.floats(3000, 9000),
    st.floats(0.01, 2),
    st.floats(-0.001, 0.001),
    st.integers(2, N),
    st.integers(-9, 9),
    st.sampled_from([0.5, 1.0]),
)
def test_linear_and_log_dispersions_count_physical_pixels(is_log, first, step, z, n_valid, shift, scale):
    w1, dw = (math.log10(first), step / first / math.log(10)) if is_log else (first, step)
    expected = []
    for logical in range(1, N + 1):
        p = (logical - shift) / scale
        if 0.5 < p < n_valid + 0.5:
            w = w1 + dw * (p - 1)
            expected.append((10**w if is_log else w) / (1 + z))
    spec = f"1 1 {int(is_log)} {w1!r} {dw!r} {n_valid} {z!r} 1.0 2.0"
    data = multispec_bytes(ramp(), [spec], LTV1=float(shift), LTM1_1=scale)
    if len(expected) < 2:
        with pytest.raises(ReadError):
            read_bytes(data)
        return
    (spectrum,) = read_bytes(data)
    np.testing.assert_allclose(spectrum.wavelength, expected, rtol=0, atol=1e-7)


@given(st.integers(1, 12), st.booleans())
@settings(max_examples=30, deadline=None)
def test_trailing_blanks_of_wat_cards_count_also_when_they_were_stripped(n_line, strip):
    # Widths are chosen by the line number, so that the cuts at 68 characters fall everywhere, also before a blank.
    specs = [f"{i + 1} {i} 0 {5000 + i}.{'0' * i} 0.5 {N} 0. 1. 2." for i in range(n_line)]
    data = multispec_bytes(ramp(n_line), specs)
    if strip:
        cards = [data[i : i + 80] for i in range(0, len(data), 80)]
        data = b"".join(
            (c[:10] + b"'" + c[11:79].split(b"'")[0].rstrip() + b"'").ljust(80) if c.startswith(b"WAT2") else c
            for c in cards
        )
    spectra = read_bytes(data)
    assert [spectrum.wavelength[0] for spectrum in spectra] == [5000 + i for i in range(n_line)]


def test_the_first_band_is_the_spectrum_and_a_sigma_band_its_error():
    flux = np.stack([ramp(2), 10 * ramp(2), 0.1 * ramp(2)]).astype("f4")
    spec = f"1 1 0 5000. 0.5 {N} 0. 1. 2."
    spectra = read_bytes(multispec_bytes(flux, [spec, spec], BANDID2="raw", BANDID3="sigma - weights none"))
    assert len(spectra) == 2
    np.testing.assert_array_equal(spectra[1].flux, flux[0, 1])
    np.testing.assert_array_equal(spectra[1].sigma, flux[2, 1])


def test_bands_are_told_apart_by_their_names():
    flux = np.stack([0 * ramp(1), ramp(1), 0.1 * ramp(1)]).astype("f4")
    names = {"BANDID1": "Sky - combined", "BANDID2": "Object - sky subtracted", "BANDID3": "Noise"}
    (spectrum,) = read_bytes(multispec_bytes(flux, [f"1 1 0 5000. 0.5 {N} 0. 1. 2."], **names))
    np.testing.assert_array_equal(spectrum.flux, flux[1, 0])
    np.testing.assert_array_equal(spectrum.sigma, flux[2, 0])


def test_an_extracted_line_keeps_its_physical_number():
    specs = [f"{i} {i} 0 {5000 + 100 * i}. 0.5 {N} 0. 1. 2." for i in range(3)]
    (spectrum,) = read_bytes(multispec_bytes(ramp()[0], specs, WAXMAP01="1 0 0 2"))
    assert spectrum.wavelength[0] == 5200
    (spectrum,) = read_bytes(multispec_bytes(ramp(), specs, LTV2=-1.0))
    assert spectrum.wavelength[0] == 5100


def test_aperture_names_are_ids():
    spec = f"1 1 0 5000. 0.5 {N} 0. 1. 2."
    spectra = read_bytes(multispec_bytes(ramp(2), [spec, spec], APID1="star one", OBJECT="field"))
    assert [spectrum.id for spectrum in spectra] == ["star one", "field"]


def test_units_of_the_dispersion_axis_are_honoured():
    spec = f"1 1 0 500. 0.05 {N} 0. 1. 2."
    (spectrum,) = read_bytes(
        multispec_bytes(ramp(), [spec], WAT1_001="wtype=multispec label=Wavelength units=nanometers")
    )
    assert spectrum.wavelength[[0, 1]] == pytest.approx([5000, 5000.5])


def test_limits_of_an_aperture_may_be_indefinite_and_exponents_fortrans():
    spec = f"1 1 0 5.0D+03 5.0D-01 {N} 0. INDEF INDEF"
    (spectrum,) = read_bytes(multispec_bytes(ramp(), [spec]))
    assert spectrum.wavelength[[0, 1]] == pytest.approx([5000, 5000.5])


@pytest.mark.parametrize(("label", "first"), [("Wavelength (nm)", 50000), ("Wavelength [A]", 5000), ("Lambda", 5000)])
def test_a_label_may_hold_the_unit(label, first):
    cards = {"WAT1_001": f'wtype=multispec label="{label}"'}
    (spectrum,) = read_bytes(multispec_bytes(ramp(), [f"1 1 0 5000. 0.5 {N} 0. 1. 2."], **cards))
    assert spectrum.wavelength[0] == pytest.approx(first)


def test_an_uncalibrated_aperture_has_no_wavelengths():
    with pytest.raises(NoWavelengthError, match="dispersion"):
        read_bytes(multispec_bytes(ramp(), [f"1 1 -1 1. 1. {N} 0. 1. 2."]))


def test_an_image_without_any_dispersion_is_refused_once():
    data = multispec_bytes(ramp(3), ["1"] * 3).replace(b"spec", b"sped")
    with pytest.raises(NoWavelengthError, match="no dispersion of any aperture"):
        read_bytes(data.replace(b"multisped", b"multispec"))


def test_velocities_are_refused():
    spec = f"1 1 0 -500. 1. {N} 0. 1. 2."
    with pytest.raises(ReadError, match="velocit"):
        read_bytes(multispec_bytes(ramp(), [spec], WAT1_001="wtype=multispec label=Velocity units=km/s"))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "1 1",
        "a b c d e f g",
        f"1 1 2 5000. .5 {N} 0. 1. 2. 1. 0. 9 2 1. 40. 5000. 1.",
        f"1 1 2 5000. .5 {N} 0. 1. 2.",
    ],
)
def test_a_damaged_dispersion_is_told(spec):
    with pytest.raises(ReadError):
        read_bytes(multispec_bytes(ramp(), [spec]))


def test_fibres_that_cover_the_same_wavelengths_are_not_merged():
    specs = [f"{i} {i} 0 {first}. 1. {N} 0. 1. 2." for i, first in enumerate((5000, 5003, 5001))]
    fibres = read_bytes(multispec_bytes(np.ones((3, N), dtype="f4"), specs), merge_orders=True)
    assert [fibre.n_pixel for fibre in fibres] == [N, N, N]
    assert all("not merged: they overlap by more than half" in fibre.notes[-1] for fibre in fibres)


def test_orders_merge_by_weights_and_gaps_stay_gaps():
    specs = [f"{i} {i} 0 {first}. 1. {N} 0. 1. 2." for i, first in enumerate((5000, 5030, 5200))]
    flux = np.ones((3, N), dtype="f4")
    (merged,) = read_bytes(multispec_bytes(flux, specs), merge_orders=True)
    assert (np.diff(merged.wavelength) > 0).all()
    np.testing.assert_allclose(merged.flux[~merged.bad], 1)
    gap = (merged.wavelength > 5069.5) & (merged.wavelength < 5199.5)
    assert gap.sum() == 2
    assert merged.bad[gap].all()
