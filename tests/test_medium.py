"""Wavelengths in air and in vacuum, and their Doppler shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx.medium import C_KMS, air_to_vacuum, convert, doppler, refractive_index, vacuum_to_air


@pytest.mark.parametrize(
    ("vacuum", "air"),
    [
        (6564.61, 6562.80),  # H alpha
        (5462.2707, 5460.7531),  # the green line of 198Hg
        (4862.721, 4861.363),  # H beta
        (2000.0, 1999.353),
    ],
)
def test_known_lines_have_their_air_wavelengths(vacuum: float, air: float) -> None:
    assert vacuum_to_air([vacuum])[0] == pytest.approx(air, abs=5e-3 if vacuum == 6564.61 else 1e-3)
    assert air_to_vacuum([air])[0] == pytest.approx(vacuum, abs=5e-3 if vacuum == 6564.61 else 1e-3)


def test_air_and_vacuum_differ_by_83_km_s_at_6700() -> None:
    shift = 6700 - vacuum_to_air([6700.0])[0]
    assert shift == pytest.approx(1.85, abs=0.005)
    assert shift / 6700 * C_KMS == pytest.approx(83, abs=0.5)


def test_the_index_is_that_of_morton_2000_within_2_m_s() -> None:
    wavelength = np.linspace(2300, 25000, 500)
    s2 = (1e4 / wavelength) ** 2
    morton = 1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2)
    np.testing.assert_allclose(refractive_index(wavelength), morton, rtol=6e-9)


@given(st.floats(2001, 50000))
def test_to_air_and_back_is_no_change(wavelength: float) -> None:
    assert air_to_vacuum(vacuum_to_air([wavelength]))[0] == pytest.approx(wavelength, abs=1e-8)


def test_wavelengths_keep_ascending_across_the_convention_at_2000() -> None:
    air = vacuum_to_air(np.linspace(1900, 2100, 20001))
    assert (np.diff(air) > 0).all()
    assert air[0] == 1900


def test_an_unknown_medium_is_left_alone() -> None:
    assert convert([5000.0], "unknown", "air")[0] == 5000.0
    assert convert([5000.0], "air", "air")[0] == 5000.0
    assert convert([5000.0], "vacuum", "air")[0] < 5000.0 < convert([5000.0], "air", "vacuum")[0]


@given(st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_velocities_add_as_relativity_has_it(v: float, w: float) -> None:
    together = (v + w) / (1 + v * w / C_KMS**2)
    assert doppler(v) * doppler(w) == pytest.approx(doppler(together), rel=1e-12)
    assert doppler(v) == pytest.approx(1 + v / C_KMS, abs=1e-4)
