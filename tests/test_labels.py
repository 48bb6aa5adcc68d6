"""Labels: ranges, scaling, names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anna_onnx.errors import AnnaError
from anna_onnx.labels import Label, canonical, nearest, scale, unscale

TEFF, LOGG = Label("teff", 4000, 7000), Label("logg", 2.7, 4.8)


def test_the_ends_of_the_range_scale_to_zero_and_one():
    assert scale([[4000, 4.8]], [TEFF, LOGG]) == pytest.approx(np.array([[0, 1]]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))
def test_unscaling_is_the_inverse_of_scaling(values):
    assert unscale(scale([values], [TEFF, LOGG]), [TEFF, LOGG]) == pytest.approx(np.array([values]), rel=1e-9, abs=1e-6)


def test_an_unknown_label_stays_unknown():
    assert np.isnan(scale([[np.nan, 3.0]], [TEFF, LOGG])).tolist() == [[True, False]]


def test_a_well_known_label_brings_its_unit_and_ucd():
    assert (TEFF.unit, TEFF.ucd) == ("K", "phys.temperature.effective")
    assert Label("temperature", 4000, 7000).unit == "K"
    assert Label("age", 0, 10).unit == ""


def test_two_gravities_differ_by_dex_and_two_temperatures_by_kelvin():
    assert (LOGG.unit, LOGG.difference_unit) == ("dex(cm / s2)", "dex")
    assert TEFF.difference_unit == "K"
    assert Label("age", 0, 10).difference_unit == ""


@pytest.mark.parametrize(("name", "low", "high"), [("te ff", 0, 1), ("teff", 1, 1), ("teff", 0, np.inf), ("", 0, 1)])
def test_what_makes_no_label_is_refused(name, low, high):
    with pytest.raises(AnnaError):
        Label(name, low, high)


def test_the_old_names_mean_the_standard_ones():
    assert [canonical(name) for name in ("Temperature", "rotvel", "li_abundance")] == ["teff", "vsini", "li_abundance"]


def test_the_nearest_name_is_offered_when_there_is_one():
    assert nearest("learning_rat", ["learning_rate", "steps"]) == "; did you mean 'learning_rate'?"
    assert nearest("zzz", ["learning_rate"]) == ""
