"""What goes wrong is recognised: each piece of advice by a run, or numbers, that provoke it, and none by a good run."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.labels import Label
from anna_onnx.training import diagnosis
from anna_onnx.training.loop import train
from anna_onnx.training.network import Network
from anna_onnx.training.task import prepare_task

LONG = {"stage": {"steps": 400, "learning_rate": 1e-3}, "validation": {"interval": 50}}


def advice_of(settings):
    """Train, and return what was advised."""
    said = []
    directory = train(settings, say=said.append)
    notes = [line.removeprefix("note: ") for line in said if line.startswith("note: ")]
    path = directory.path / "advice.txt"
    kept = path.read_text().splitlines() if path.exists() else []
    assert [line.split(": ", 1)[1] for line in kept] == notes
    return notes


def test_a_good_run_gets_no_advice(toy):
    assert advice_of(toy(**LONG)) == []


def test_a_good_run_without_validation_gets_no_advice(toy):
    assert advice_of(toy(data={"train": "train.h5"}, **LONG)) == []


def test_spectra_that_are_not_normalised(toy, toy_labels, toy_flux):
    toy.write("train.h5", flux=toy_flux(toy_labels(200)) * 4.2)
    (advice,) = advice_of(toy(stage={"steps": 5}))
    assert advice.startswith("training spectra look mis-normalised: their upper level is 4.2")
    assert "divide each spectrum by its continuum" in advice


def test_spectra_normalised_to_different_levels():
    level = torch.linspace(0.5, 1.5, 100)[:, None]
    assert "mis-normalised" in diagnosis.not_normalized(level * torch.ones(100, 50))
    assert diagnosis.not_normalized(torch.ones(100, 50) - 0.3 * torch.rand(100, 50)) == ""


def test_labels_outside_low_and_high(toy):
    limits = {"names": ["teff", "logg"], "low": [3000, 1], "high": [5250, 5]}
    (advice,) = advice_of(toy(labels=limits, stage={"steps": 5}))
    assert advice.startswith("teff: 2")  # a quarter of them
    assert "outside 3000 to 5250" in advice


def test_labels_that_belong_to_other_spectra(toy, toy_labels, toy_flux):
    for name, n in (("train.h5", 400), ("valid.h5", 200)):
        toy.write(name, labels=toy_labels(n, seed=3), flux=toy_flux(toy_labels(n, seed=4)))
    advice = advice_of(toy(stage={"steps": 400, "learning_rate": 1e-3}, validation={"interval": 50}))
    assert any("check that each label belongs to its spectrum" in line for line in advice)


def test_a_rate_so_large_that_units_die(toy):
    advice = advice_of(toy(stage={"steps": 400, "learning_rate": 0.5}, validation={"interval": 50}))
    assert any("dead (zero for every spectrum): lower stage.learning_rate" in line for line in advice)


def test_all_spectra_get_the_same_answer(toy, toy_labels):
    # Spectra without lines: nothing to tell them apart.
    for name, n in (("train.h5", 200), ("valid.h5", 100)):
        toy.write(name, labels=toy_labels(n), flux=np.ones((n, 48)))
    advice = advice_of(toy(augmentation=None, **LONG))
    assert any(line.startswith("all spectra get the same answer") for line in advice)


def test_a_label_that_the_spectra_say_nothing_about(toy, toy_labels, toy_flux):
    for name, n in (("train.h5", 2000), ("valid.h5", 200)):
        labels = toy_labels(n, seed=n)
        flux = toy_flux(labels)
        labels[:, 1] = toy_labels(n, seed=n + 1)[:, 1]
        toy.write(name, labels=labels, flux=flux)
    advice = advice_of(toy(stage={"steps": 400, "learning_rate": 3e-3}, validation={"interval": 50}))
    assert any(line.startswith("logg: its error is") and "carry no information" in line for line in advice)


def test_too_few_spectra_are_learnt_by_heart(toy):
    settings = toy(
        augmentation=None,
        network={"kernel": 5, "filters": 4, "fc1": 64, "fc2": 64},
        stage={"steps": 400, "batch_size": 8, "learning_rate": 1e-3},
        validation={"interval": 20},
    )
    random = np.random.default_rng(1)
    for name, n in (("train.h5", 8), ("valid.h5", 100)):
        labels = random.random((n, 2)) * [3000, 4] + [3000, 1]
        toy.write(name, labels=labels, flux=1 + 0.2 * random.standard_normal((n, 48)))
    assert any(line.startswith("over-fitting since step") for line in advice_of(settings))


def test_dead_units_are_counted_layer_by_layer():
    network = Network(48, 2, config.Network(sizes=config.Anna(kernel=5, filters=4, fc1=8, fc2=8))).eval()
    with torch.no_grad():
        network.members[0][3].bias[:6] = -1e6
    dead = diagnosis.dead_fractions(network, torch.rand(20, 48))
    assert dead["members.0.4"] >= 6 / 8
    assert dead["members.0.1"] == 0


def test_advice_is_given_once(toy):
    settings = toy()
    watch = diagnosis.Diagnosis(prepare_task(settings, torch.device("cpu")), steps=400)
    network = Network(48, 2, settings.network).eval()
    with torch.no_grad():
        network.members[0][3].bias.fill_(-1e6)
    rows = [{"step": 100.0 * i, "batch_cost": 1.0, "validation_cost": 1.0} for i in range(1, 12)]
    given = [line for row in rows for line in watch.look(row, network)]
    assert len(given) == len(set(given)) > 0


def test_a_label_that_is_not_known_is_not_judged():
    labels = (Label("teff", 4000, 6000), Label("logg", 0, 5))
    truth = torch.rand(200, 2)
    answers = truth + 0.02 * torch.randn(200, 2)
    few, none = truth.clone(), torch.full_like(truth, torch.nan)
    few[5:, 1] = torch.nan
    for known in (truth, few):
        assert not any(diagnosis.judge_answers(answers, known, labels).values())
    assert diagnosis.judge_answers(answers, none, labels) == {}
    assert diagnosis.judge_answers(torch.ones(200, 2), few, labels)["constant"]


def test_overfitting_is_a_rising_validation_cost_under_a_falling_batch_cost():
    def rows(batch, validation):
        pairs = enumerate(zip(batch, validation, strict=True))
        return [{"step": i, "batch_cost": b, "validation_cost": v} for i, (b, v) in pairs]

    falling, rising = [5, 4, 3, 2, 1, 0.5], [3, 2, 1, 1.5, 1.6, 1.7]
    assert diagnosis.overfitting(rows(falling, rising)).startswith("over-fitting since step 2")
    assert diagnosis.overfitting(rows(falling, falling)) == ""
    assert diagnosis.overfitting(rows(rising, rising)) == ""
    stalled = [1.0] * 6
    assert diagnosis.overfitting(rows([0.1] * 6, stalled)).startswith("over-fitting")
    assert diagnosis.overfitting(rows([0.5] * 6, stalled)) == ""


def test_overfitting_is_told_of_log_likelihoods_too_whatever_their_sign():
    def advice(batch, validation):
        pairs = enumerate(zip(batch, validation, strict=True))
        return diagnosis.overfitting([{"step": i, "batch_cost": b, "validation_cost": v} for i, (b, v) in pairs], 2)

    good, batch = [-4, -5, -5.5, -5.6, -5.7, -5.8, -5.79], [-5 - 0.1 * i for i in range(7)]
    for offset in (0, 20):  # units of the labels change it
        assert advice([b + offset for b in batch], [v + offset for v in good]) == ""
        rising = [-4, -5, -5.5, -5.6, -5.3, -5.2, -5.1]
        assert advice([b + offset for b in batch], [v + offset for v in rising]).startswith("over-fitting since step 3")
        apart = [b - 2 + offset for b in batch]
        assert advice(apart, [-5 + offset] * 7).startswith("over-fitting since step 0")
