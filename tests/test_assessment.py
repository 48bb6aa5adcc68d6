"""Residuals against the bound and the stated errors where the answer is known, and the report of them."""

from __future__ import annotations

import dataclasses
import re
import subprocess

import numpy as np
import pytest

from anna_onnx.assessment import Assessment, bound_text, known_from_training, named_thirds, summary_text
from anna_onnx.calibration import Trends
from anna_onnx.errors import AnnaError, GridError
from anna_onnx.flags import Flag
from anna_onnx.origin import grid_of, instrument_of, settings_of, template_of
from tests import tiny

N = 900
STRAIGHT = Trends(np.array([[0.0, 1.0], [0.0, 1.0]]))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Assessment:
    """Gaussian residuals as large as the network states; the bound is half of that, except for cool stars."""
    random = np.random.default_rng(5)
    bundle = tiny.bundle(tmp_path_factory.mktemp("tiny") / "tiny<b>.onnx")
    flux = random.uniform(0.8, 1.0, (N, 50)).astype(np.float32)
    true = random.uniform([3500, 1], [7500, 4], (N, 2))
    sigma = np.broadcast_to(tiny.SIGMA, true.shape)
    snr = random.uniform(20, 200, N)
    return Assessment(
        bundle=bundle,
        id=np.arange(N, dtype=float),
        flux=flux,
        true=true,
        values=true + sigma * random.normal(size=true.shape),
        sigma=sigma,
        snr=snr,
        measured_snr=snr,
        flags=np.where(np.arange(N) < 9, Flag.low_snr.value, 0),
        trends=STRAIGHT,
        about={"test set": "a & b.h5", "bound": "a grid"},
        bound=sigma / 2,
    )


def test_errors_twice_the_bound_are_twice_the_bound_by_both_measures(found):
    for one in found.statistics:
        assert (one.over_bound, one.median_over_bound) == (pytest.approx(2, rel=0.1), pytest.approx(2, rel=0.1))
    assert found.statistics[0].bound == pytest.approx(tiny.SIGMA[0] / 2)


def test_gaussian_errors_are_inside_the_intervals_as_often_as_promised(found):
    assert found.coverage.overall[0] == pytest.approx(found.coverage.levels, abs=0.05)
    assert found.statistics[0].coverage == pytest.approx(0.683, abs=0.05)


def test_a_trend_is_taken_out_of_what_it_was_fitted_to(found):
    labels = found.labels
    shifted = dataclasses.replace(
        found, values=found.true + 0.1 * labels[0].span, trends=Trends(np.array([[-0.1, 1.0], [-0.1, 1.0]]))
    )
    assert shifted.statistics[0].bias == pytest.approx(500)
    inside = (shifted.values[:, 0] >= labels[0].low) & (shifted.values[:, 0] <= labels[0].high)
    assert shifted.corrected[inside, 0] == pytest.approx(0, abs=1e-6)


def test_a_label_whose_bound_is_what_its_range_says_is_called_unconstrained(found):
    span = found.labels[1].span
    bound = np.array(found.bound)
    bound[:, 1] = span / np.sqrt(12)
    assert found.unconstrained() == []
    (line,) = dataclasses.replace(found, bound=bound).unconstrained()
    assert line.startswith("these spectra hardly constrain logg")
    bound[:, 1] = np.where(found.snr_thirds[0][1], bound[:, 1] * 0.6, 0.01)
    (line,) = dataclasses.replace(found, bound=bound).unconstrained()
    assert line.startswith(f"spectra of {found.snr_thirds[0][0]} hardly constrain logg")


def test_without_a_bound_none_is_printed_and_the_rest_is(found):
    without = dataclasses.replace(found, bound=None)
    assert bound_text(without) == ""
    assert np.isnan(without.statistics[0].over_bound)
    assert summary_text(without) == summary_text(found)
    assert [line.split()[0] for line in bound_text(found).splitlines()[2:4]] == ["teff", "logg"]


def test_stars_outside_the_ranges_of_the_labels_are_counted_and_count_in_nothing_else(found):
    true = found.true.copy()
    true[:90, 1] += 10
    true[90, 1] = np.nan
    far = dataclasses.replace(found, true=true)
    assert len(far.within) == N - 90
    assert far.within.notes == (
        f"90 of {N} stars lie outside the ranges of the labels: in test_stats.csv, but in no other figure",
    )
    assert far.within.bound.shape == far.within.flux[:, :2].shape
    assert far.statistics[1].bias == pytest.approx(-1, abs=0.1)
    assert far.within.statistics[1].bias == pytest.approx(0, abs=0.1)
    assert found.within is found


def test_a_test_set_that_the_model_was_made_with_is_told(tmp_path):
    data = {"train1": {"file": "t.h5", "sha256": "aa"}, "validation": {"file": "v.h5", "sha256": "bb"}, "grid": {}}
    bundle = tiny.bundle(tmp_path / "a.onnx", provenance={"data": data})
    assert known_from_training(bundle, "copy.h5", "aa") == (
        "copy.h5 is what the network was trained on: other stars will come out worse",
    )
    assert "weights were chosen and the errors calibrated" in known_from_training(bundle, "copy.h5", "bb")[0]
    assert known_from_training(bundle, "copy.h5", "cc") == ()
    assert known_from_training(tiny.bundle(tmp_path / "b.onnx"), "copy.h5", "aa") == ()


def test_errors_of_gravities_are_in_dex_on_charts_and_in_tables(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts

    axes = charts.trend(found, 1).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("inferred logg [dex(cm / s2)]", "inferred − true [dex]")
    assert found.statistics[1].unit == "dex"


def test_residuals_beyond_the_edge_of_their_chart_are_marked_there(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts

    error = np.append(np.linspace(-1, 1, 998), [50.0, np.nan])
    axes = charts.residuals(np.arange(1000.0), error, "x", "y").axes[0]
    low, high = axes.get_ylim()
    above = next(line for line in axes.lines if line.get_marker() == "^")
    assert (above.get_xdata(), above.get_ydata()) == ([998], [high])
    assert -2 < low < high < 2


def test_the_mean_training_spectrum_is_inside_the_chart_of_a_worse_one(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts

    axes = charts.spectrum(found, 0, np.linspace(0.1, 1.2, 50)).axes[0]
    assert axes.get_ylim()[0] < 0.1
    assert axes.get_ylim()[1] > 1.2


# --- the report -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(found) -> str:
    pytest.importorskip("matplotlib")
    from anna_onnx import charts
    from anna_onnx.report import report

    values = found.values.copy()
    values[77] += 40 * np.array(tiny.SIGMA)
    with charts.style():
        return report(dataclasses.replace(found, values=values, notes=("a < b",)))


def test_a_report_needs_nothing_beside_it(page):
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'src="([^"]{30})', page))
    assert not re.search(r"<script|<link|@import|url\(|http", re.sub(r'src="[^"]*"', "", page))
    assert 'name="viewport"' in page


def test_every_section_of_a_report_is_there_and_linked(page):
    from anna_onnx.report import SECTIONS

    for key in SECTIONS:
        assert f'<section id="{key}">' in page
        assert f'href="#{key}"' in page


def test_a_report_has_every_chart_once_and_each_says_what_it_shows(page):
    shown = re.findall(r'<img loading="lazy" alt="([^"]+)"', page)
    of_a_label = 3 + 1 + 1 + 2  # residuals against two labels and S/N, trend, pulls, coverage by S/N and label
    assert len(shown) == len(set(shown)) == 2 * of_a_label + 3 + 10  # bound, coverage, sensitivity; the worst ten


def test_a_printed_report_is_as_wide_as_the_paper(page, chromium, tmp_path):
    """A4 less margins of 1 cm, at 96 pixels an inch; the title of the page becomes the width of what is on it."""
    wide = "Math.max(...[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth))"
    printed = page.replace("@media print", "@media all") + f"<script>document.title = 'beyond: ' + {wide}</script>"
    (tmp_path / "printed.html").write_text(printed, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=718,1000", "--dump-dom")
    shown = subprocess.run(
        [chromium, *options, (tmp_path / "printed.html").as_uri()], capture_output=True, check=True, timeout=60
    ).stdout.decode("utf-8")
    assert "<title>beyond: 0</title>" in shown
    assert "print-color-adjust: exact" in page


def test_the_worst_spectrum_comes_first_and_names_cannot_hurt_the_page(page):
    worst = page.split('<section id="worst">')[1]
    assert re.search(r"<h3>([^:]+):", worst)[1] == "77"
    assert "tiny&lt;b&gt;" in page
    assert "<b>.onnx" not in page
    assert "a &amp; b.h5" in page


def test_the_rate_of_each_flag_is_told(page):
    assert "<td>low_snr</td><td>9</td><td>1.0%</td>" in page
    assert "Of clean spectra 1 % are <code>unlike_training</code>" in page


def test_what_to_know_before_the_figures_are_believed_comes_first(page):
    assert '<ul class="notes"><li>A &lt; b.</li>' in page


def test_tables_of_the_report_have_units(page):
    assert "<td>logg</td><td>dex</td><td>0.0" in page.split('<section id="bound">')[1]
    assert "<th>teff [K]</th>" in page.split('<section id="worst">')[1]


def test_a_report_is_written_of_what_little_is_known(found):
    """Three spectra, one of a star of unknown gravity, with missing pixels, without a bound."""
    pytest.importorskip("matplotlib")
    from anna_onnx import charts
    from anna_onnx.report import report

    few = {
        name: getattr(found, name)[:3].copy()
        for name in ("id", "flux", "true", "values", "sigma", "snr", "measured_snr", "flags")
    }
    few["true"][1, 1] = np.nan
    few["flux"][0, 10:30] = np.nan
    with charts.style():
        page = report(dataclasses.replace(found, **few, bound=None, about={}, joint_coverage=0.7))
    assert "ellipsoid of all labels together, which their correlations make of the 68 % errors, holds 70.0%." in page
    assert "The Cramér-Rao bound was not asked for" in page
    assert page.count("<h3>") == 2 + 3 + 3  # labels, intervals, spectra


@pytest.mark.filterwarnings("error")
def test_a_label_that_no_spectrum_has_is_said_to_be_unknown_and_nothing_else(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts
    from anna_onnx.report import report

    true, bound = found.true.copy(), np.array(found.bound)
    true[:, 1] = bound[:, 1] = np.nan
    unknown = dataclasses.replace(found, true=true, bound=bound)
    assert np.isnan(unknown.statistics[1].bias)
    assert unknown.statistics[0] == found.statistics[0]
    assert summary_text(unknown).splitlines()[2].split()[2:] == ["–"] * 6
    assert bound_text(unknown).splitlines()[3].split()[1:] == ["–", *["–", "/", "–"] * 4]
    with charts.style():
        page = re.sub(r'src="[^"]*"', "", report(unknown))
    assert page.count("Not known of any of these spectra") == 1
    assert not re.search(r"\bnan\b", page)


@pytest.mark.filterwarnings("error")
def test_spectra_of_one_snr_are_not_parted_into_thirds(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts
    from anna_onnx.report import report

    alike = dataclasses.replace(found, snr=np.full(N, 104.0))
    assert alike.snr_thirds == []
    assert bound_text(alike).splitlines()[1].split() == ["label", "bound", "all"]
    with charts.style():
        page = re.sub(r'src="[^"]*"', "", report(alike))
    assert "below 104" not in page


def test_a_third_without_spectra_is_left_out():
    (low, low_rows), (high, high_rows) = named_thirds("S/N", np.array([10.0, 10, 10, 10, 10, 90]), ".0f")
    assert (low, high) == ("S/N below 10", "above 10")
    assert (low_rows.sum(), high_rows.sum()) == (5, 1)


def test_a_model_without_errors_has_no_coverage_and_a_report_without_intervals(found):
    pytest.importorskip("matplotlib")
    from anna_onnx import charts
    from anna_onnx.report import report

    silent = dataclasses.replace(found, sigma=np.full_like(found.sigma, np.nan))
    assert silent.coverage.warning() is None
    assert summary_text(silent).splitlines()[1].endswith("–")
    with charts.style():
        page = report(silent)
    assert "The model states no errors" in page
    assert not re.search(r"\bnan\b", re.sub(r'src="[^"]*"', "", page))


def test_running_medians_follow_a_straight_line():
    pytest.importorskip("matplotlib")
    from anna_onnx.charts import binned

    x = np.append(np.random.default_rng(1).permutation(1200) / 100, np.nan)
    center, middle, low, high = binned(x, 3 * x)
    assert middle == pytest.approx(3 * center)
    assert high - low == pytest.approx(3 * 0.68 * np.full(12, 1.0), rel=0.02)


# --- what a model says of its making ------------------------------------------------------


def test_the_instrument_is_what_the_user_says_else_the_parameters_else_the_preparation(tmp_path):
    params = '[data]\ngrid = "default"\nwavelength = [6630, 6640, 0.2]\nfwhm = 0.5\n'
    bundle = tiny.bundle(tmp_path / "a.onnx", provenance={"params": params})
    assert instrument_of(bundle, resolution=9000) == {"resolution": 9000}
    assert instrument_of(bundle) == {"fwhm": 0.5}
    assert instrument_of(tiny.bundle(tmp_path / "b.onnx")) is None


def test_parameters_that_cannot_be_read_are_none(tmp_path):
    assert settings_of(tiny.bundle(tmp_path / "a.onnx", provenance={"params": "[data"})) is None
    assert template_of(tiny.bundle(tmp_path / "b.onnx")) == pytest.approx(np.ones(50))
    with pytest.raises(AnnaError, match="needed 50 positive numbers"):
        template_of(tiny.bundle(tmp_path / "c.onnx", provenance={"snr_template": [1.0, 2.0]}))


def test_a_grid_that_does_not_cover_the_model_is_refused(tmp_path):
    with pytest.raises(GridError, match=r"covers 6619\.\d-6831\.\d Å, needed 6000\.0-6049\.0"):
        grid_of(tiny.bundle(tmp_path / "a.onnx"))
