"""What is said of spectra that are not like those of the training."""

from dataclasses import replace

import numpy as np
import pytest

from anna_onnx.fit import Fit
from anna_onnx.hull import Hull
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.recognition import TOO_SHARP, Recognizer, Said
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import Sidecar
from tests.test_fit import LIMITS, fit

N_PIXEL = 200
GRID = Grid(np.linspace(6000, 6040, N_PIXEL), "air")


def said(n=1, *, medium="air", at_rest=False, stated=np.nan, barycentric=True):
    return Said(medium, np.full(n, at_rest), np.full(n, stated), barycentric)


def judge(found: Fit | None, *, at_rest: bool = False, **parts):
    known = Sidecar((Label("depth", 0, 1),), Preparation(GRID, frame="rest"), **{"fit_limits": LIMITS, **parts})
    half = np.full((1, 1), 0.5)
    return Recognizer(known).judge(np.ones((1, N_PIXEL), np.float32), half, half / 10, found, said(at_rest=at_rest))


def judge_moved(velocity, *, noise=0.01, model=GRID, **claims):
    """Return the verdict of a network that was trained over ±100 km/s on a spectrum with a line 0.4 deep."""
    flux = np.ones((1, model.n_pixel), np.float32)
    flux[:, 90:110] = 0.6
    preparation = Preparation(model, 11000, "rest", velocity_range=(-100, 100))
    known = Sidecar((Label("depth", 0, 1),), preparation, fit_limits=LIMITS)
    found = fit(velocity=velocity, noise=noise, lines=float(flux.std()))
    half = np.full((1, 1), 0.5)
    return Recognizer(known).judge(flux, half, half / 10, found, said(**claims))


@pytest.mark.parametrize(("velocity", "at_rest"), [(5.0, True), (-9.0, True), (83.0, False)])
def test_what_the_training_had_is_known(velocity, at_rest):
    verdict = judge(fit(velocity=velocity), at_rest=at_rest)
    assert not verdict.unlike.any()
    assert not verdict.outside.any()
    assert not verdict.reasons


@pytest.mark.parametrize("change", [{"misfit": 1.0}, {"widening": 5.0}, {"misfit": np.nan}])
def test_a_spectrum_that_does_not_fit_is_unlike(change):
    assert judge(fit(**change)).unlike.all()


def test_lines_that_are_not_at_rest_though_they_should_be_are_said_to_be_off():
    verdict = judge(fit(velocity=83.2), at_rest=True)
    assert verdict.unlike.all()
    assert verdict.reasons[0].startswith("its lines are +83 km/s from where they are at rest")
    assert "makes 83" in verdict.reasons[0]


def test_lines_that_are_too_sharp_speak_of_a_higher_resolving_power():
    verdict = judge(fit(widening=-3.0))
    assert verdict.unlike.all()
    assert verdict.reasons == {0: TOO_SHARP}
    assert not judge(fit(widening=-2.0)).reasons


def test_of_a_spectrum_that_fits_nowhere_nobody_knows_where_its_lines_are():
    verdict = judge(fit(velocity=83.2, misfit=1.0), at_rest=True)
    assert verdict.unlike.all()
    assert not verdict.reasons


@pytest.mark.parametrize(("velocity", "beyond"), [(99.9, False), (-100.1, False), (103.0, True), (-140.0, True)])
def test_lines_beyond_the_velocities_of_the_training_are_unlike_it(velocity, beyond):
    verdict = judge_moved(velocity)
    assert verdict.unlike.all() == beyond
    reason = f"its lines are shifted by {velocity:+.0f} km/s, the model was trained with -100 to 100"
    assert verdict.reasons == ({0: reason} if beyond else {})


def test_noise_may_put_lines_beyond_the_velocities_of_the_training():
    assert not judge_moved(103.0, noise=0.2).unlike.any()
    assert not judge_moved(140.0, noise=1.0).unlike.any()  # no line is seen at all


@pytest.mark.parametrize(
    ("velocity", "medium", "mistake"),
    [
        (83.1, "air", "vacuum taken as air"),
        (83.1, "unknown", "vacuum taken as air"),
        (-83.3, "vacuum", "air taken as vacuum"),
    ],
)
def test_the_medium_is_in_doubt_where_the_other_one_would_have_the_lines_at_rest(velocity, medium, mistake):
    verdict = judge_moved(velocity, medium=medium)
    assert verdict.doubtful.all()
    assert not verdict.unlike.any()
    assert verdict.reasons == {
        0: f"its lines are shifted by {velocity:+.1f} km/s, as those of a star at rest are by {mistake}"
    }


@pytest.mark.parametrize(
    ("velocity", "claims"),
    [
        (0.0, {}),
        (80.0, {}),
        (85.0, {}),
        (-83.2, {}),
        (83.2, {"medium": "vacuum"}),
        (83.2, {"stated": 83.0}),
        (83.2, {"stated": 30.0}),
    ],
)
def test_a_star_may_have_another_velocity_or_be_known_to_have_one(velocity, claims):
    assert not judge_moved(velocity, **claims).doubtful.any()


@pytest.mark.parametrize(
    ("velocity", "claims", "doubtful"),
    [
        (60.0, {"stated": -23.0}, True),
        (60.0, {"stated": -45.0}, False),
        (60.0, {"stated": -45.0, "barycentric": False}, True),  # the Earth may move by 30 km/s
        (60.0, {"stated": 25.0, "barycentric": False}, False),
        (-60.0, {"stated": 23.0, "medium": "vacuum"}, True),
    ],
)
def test_the_medium_is_in_doubt_where_the_other_one_explains_the_stated_velocity(velocity, claims, doubtful):
    verdict = judge_moved(velocity, **claims)
    assert verdict.doubtful.all() == doubtful
    if doubtful:
        shift = velocity - claims["stated"]
        assert verdict.reasons[0].startswith(f"its lines are {shift:+.0f} km/s from the stated velocity")


def test_the_medium_of_a_spectrum_in_vacuum_is_in_doubt_for_a_model_in_vacuum_too():
    vacuum = Grid(GRID.wavelength, "vacuum")
    assert judge_moved(-83.2, model=vacuum, medium="unknown").doubtful.all()
    assert not judge_moved(83.2, model=vacuum, medium="unknown").doubtful.any()


def test_a_model_without_a_comparison_looks_at_what_lies_outside_the_space_of_the_training():
    space = Novelty(np.zeros(N_PIXEL), np.eye(1, N_PIXEL), np.array([0.01]), np.array([0.5]), 0.01)
    assert judge(None, fit_limits=None, novelty=space).unlike.all()
    assert not judge(None, fit_limits=None, novelty=replace(space, mean=np.ones(N_PIXEL))).unlike.any()
    assert not judge(fit(), novelty=space).unlike.any()


@pytest.mark.parametrize(("found", "limits"), [(None, LIMITS), (fit(misfit=1.0), None), (None, None)])
def test_a_model_that_knows_nothing_objects_to_nothing(found, limits):
    assert not judge(found, fit_limits=limits, at_rest=True).unlike.any()


def test_labels_in_a_hole_of_the_training_set_are_outside():
    labels = (Label("depth", 0, 1), Label("width", 0, 1))
    filled = np.ones((1, 10, 10))
    filled[0, 5:, 5:] = 0
    known = Sidecar(labels, Preparation(GRID), hull=Hull(np.array([[0.0, 1.0]]), filled))
    values = np.array([[0.3, 0.3], [0.8, 0.8], [0.8, 0.8], [1.2, 0.3]])
    errors = np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 0.5], [0.1, 0.1]])
    verdict = Recognizer(known).judge(np.ones((4, N_PIXEL), np.float32), values, errors, None, said(4))
    assert verdict.outside.tolist() == [False, True, False, True]
