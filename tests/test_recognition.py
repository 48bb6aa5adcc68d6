"""What is said of spectra that are not like those of the training."""

import numpy as np
import pytest

from anna_onnx.bundle import Sidecar
from anna_onnx.hull import Hull
from anna_onnx.labels import Label
from anna_onnx.preparation import Preparation
from anna_onnx.recognition import Recognizer
from anna_onnx.resampling import Grid
from anna_onnx.shifting import Shifter
from tests.test_emulator import DEPTH, LINE, N_PIXEL, line_emulator

GRID = Grid(np.linspace(6000, 6040, N_PIXEL), "air")
DEPTHS = np.linspace(0.5, 1, 20)[:, None]
ERRORS = np.full((20, 1), 0.02)


def sidecar(**changes) -> Sidecar:
    return Sidecar((Label("depth", 0, 1),), Preparation(GRID, frame="rest"), **{"emulator": line_emulator(), **changes})


def judge(known: Sidecar, velocity: float, at_rest: bool):
    flux = Shifter(GRID).shift((1 - DEPTH * DEPTHS * LINE).astype(np.float32), np.full(20, velocity), beyond=1.0)
    flux += np.random.default_rng(1).normal(0, 0.01, flux.shape).astype(np.float32)
    return Recognizer(known).judge(flux, DEPTHS, ERRORS, np.full(20, at_rest))


@pytest.mark.parametrize(("velocity", "at_rest"), [(0.0, True), (0.0, False), (83.0, False)])
def test_what_the_training_had_is_known(velocity, at_rest):
    verdict = judge(sidecar(), velocity, at_rest)
    assert not verdict.unlike.any()
    assert not verdict.outside.any()


def test_lines_that_are_not_at_rest_though_they_should_be_are_said_to_be_off():
    verdict = judge(sidecar(), 83.0, at_rest=True)
    assert verdict.unlike.all()
    off = [int(reason.split()[3]) for reason in verdict.reasons.values()]
    assert off == pytest.approx([83] * 20, abs=10)
    assert "makes 83" in verdict.reasons[0]


def test_a_sidecar_that_knows_nothing_objects_to_nothing():
    verdict = judge(sidecar(emulator=None), 83.0, at_rest=True)
    assert not verdict.unlike.any()
    assert np.isnan(verdict.misfit).all()


def test_the_misfit_is_small_where_the_labels_are_right_and_large_where_they_are_not():
    flux = (1 - DEPTH * DEPTHS * LINE).astype(np.float32)
    flux += np.random.default_rng(1).normal(0, 0.002, flux.shape).astype(np.float32)
    recognizer, at_rest = Recognizer(sidecar()), np.ones(20, dtype=bool)
    right = recognizer.judge(flux, DEPTHS, ERRORS, at_rest).misfit
    wrong = recognizer.judge(flux, DEPTHS - 0.4, ERRORS, at_rest).misfit
    assert (right < 2).all()
    assert (wrong > 3 * right).all()


def test_labels_in_a_hole_of_the_training_set_are_outside():
    labels = (Label("depth", 0, 1), Label("width", 0, 1))
    filled = np.ones((1, 10, 10))
    filled[0, 5:, 5:] = 0
    known = Sidecar(labels, Preparation(GRID), hull=Hull(np.array([[0.0, 1.0]]), filled))
    values = np.array([[0.3, 0.3], [0.8, 0.8], [0.8, 0.8], [1.2, 0.3]])
    errors = np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 0.5], [0.1, 0.1]])
    verdict = Recognizer(known).judge(np.ones((4, N_PIXEL), np.float32), values, errors, np.zeros(4, bool))
    assert verdict.outside.tolist() == [False, True, False, True]
