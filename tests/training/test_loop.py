"""The training loop: it learns, watches, stops, keeps the best, and says what is wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import warnings

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anna_onnx import config
from anna_onnx.errors import ConfigError, TrainingError
from anna_onnx.labels import scale
from anna_onnx.medium import C_KMS
from anna_onnx.training import batches
from anna_onnx.training.examples import make_examples
from anna_onnx.training.loop import build_network, train
from anna_onnx.training.optimization import cost_of, evaluate, rate_at, stage_of
from anna_onnx.training.task import prepare_task, training_set_from_grid

CPU = torch.device("cpu")
ONLY_TRAIN = {"train": "train.h5"}


def quiet(text):
    """Say nothing."""


def run(settings, **more):
    return train(settings, say=quiet, **more)


def history(directory):
    return directory.read_history()


# --- cost ---------------------------------------------------------------------


def test_the_cost_is_the_squared_error_summed_over_labels():
    mean = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    cost = cost_of(mean, None, torch.zeros(2, 2))
    assert float(cost) == pytest.approx((0.01 + 0.04 + 0.09 + 0.16) / 2)


def test_labels_that_are_not_known_do_not_count_and_have_no_gradient():
    mean = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]], requires_grad=True)
    scaled = torch.tensor([[0.0, math.nan], [math.nan, 0.0]])
    cost = cost_of(mean, None, scaled)
    cost.backward()
    assert float(cost.detach()) == pytest.approx((0.01 + 0.16) / 2)
    assert (mean.grad[0] == torch.tensor([[0.1, 0.0], [0.0, 0.4]])).all()


def test_the_likelihood_is_that_of_a_gaussian():
    mean, log_sigma = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    truth = torch.randn(5, 3)
    gaussian = torch.distributions.Normal(mean, log_sigma.exp())
    constant = 0.5 * math.log(2 * math.pi) * 3
    assert float(cost_of(mean, log_sigma, truth)) == pytest.approx(
        float(-gaussian.log_prob(truth).sum() / 5) - constant, rel=1e-5
    )


def test_weights_multiply_the_cost_of_each_label():
    mean, truth = torch.rand(1, 4, 2), torch.rand(4, 2)
    weight = torch.tensor([2.0, 0.0]).expand(4, 2)
    assert float(cost_of(mean, None, truth, weight)) == pytest.approx(
        2 * float(cost_of(mean[..., :1], None, truth[:, :1])), rel=1e-5
    )


# --- schedules ----------------------------------------------------------------


def rates(**change):
    stage = config.Stage(steps=100, **change)
    return [rate_at(stage, step) for step in range(100)]


def test_a_constant_rate_warms_up():
    assert rates() == [1.0] * 100
    assert rates(warmup=10)[:12] == pytest.approx([*np.arange(1, 11) / 10, 1, 1])


def test_a_cosine_falls_to_nothing():
    cosine = rates(schedule="cosine", warmup=10)
    assert (cosine[9], cosine[10]) == (1.0, 1.0)
    assert cosine[55] == pytest.approx(0.5)
    assert cosine[-1] < 1e-3


def test_one_cycle_rises_for_a_third_and_falls():
    cycle = rates(schedule="onecycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle.index(max(cycle)) == 30
    assert max(cycle) == pytest.approx(1.0)
    assert cycle[-1] < 1e-2


def test_a_step_belongs_to_its_stage():
    stages = (config.Stage(steps=60), config.Stage(steps=7))
    assert [stage_of(stages, step) for step in (0, 59, 60, 66, 67)] == [(0, 0), (0, 0), (1, 60), (1, 60), (1, 60)]


# --- learning -----------------------------------------------------------------


def test_a_run_learns(toy):
    rows = history(run(toy(stage={"steps": 300}, validation={"interval": 100})))
    assert rows[-1]["batch_cost"] < 0.1 * rows[0]["batch_cost"]
    assert rows[-1]["rms_teff"] < 250
    assert rows[-1]["rms_logg"] < 0.35


def test_the_rms_is_in_the_labels_unit(toy):
    settings = toy()
    task = prepare_task(settings, CPU)
    network = build_network(settings, task)
    cost, rms = evaluate(network, task.validation, task.labels)
    with torch.no_grad():
        answers = network.combine(task.validation.flux)[0]
    error = answers - task.validation.scaled
    span = torch.tensor([label.span for label in task.labels])
    assert rms == pytest.approx((error * span).square().mean(0).sqrt().tolist(), rel=1e-5)
    assert cost == pytest.approx(float(error.square().sum(1).mean()), rel=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(toy):
    first, again = (history(run(toy()))[-1] for _ in range(2))
    other = history(run(toy(seed=2)))[-1]
    del first["seconds"], again["seconds"]
    assert first == again
    assert first["batch_cost"] != other["batch_cost"]


def test_loader_workers_change_nothing(toy):
    alone, helped = (run(toy(loader={"workers": n})).load_best()[0] for n in (0, 2))
    assert all(torch.equal(alone[name], helped[name]) for name in alone)


def test_the_likelihood_finds_how_uncertain_the_labels_are(toy, toy_labels, toy_flux):
    labels = toy_labels(2000)
    noisy = labels + np.random.default_rng(3).normal(0, [300, 0.4], labels.shape)
    toy.write("train.h5", labels=noisy, flux=toy_flux(labels))
    limits = {"names": ["teff", "logg"], "low": [3000, 1], "high": [6000, 5]}
    settings = toy(labels=limits, network={"uncertainty": True}, stage={"steps": 300, "batch_size": 50})
    directory = run(settings)
    task = prepare_task(settings, CPU)
    network = build_network(settings, task)
    network.load_state_dict(directory.load_best()[0])
    _, sigma = network.eval().combine(task.validation.flux)
    assert float(sigma.detach().median()) == pytest.approx(0.1, rel=0.25)


def test_labels_that_are_missing_do_not_hinder(toy, toy_labels, toy_flux):
    labels = toy_labels(400)
    flux = toy_flux(labels)
    labels[::2, 0] = np.nan
    labels[1::4, 1] = np.nan
    toy.write("train.h5", labels=labels, flux=flux)
    rows = history(run(toy(stage={"steps": 300}, validation={"interval": 100})))
    assert rows[-1]["rms_teff"] < 250
    assert rows[-1]["rms_logg"] < 0.35


@pytest.mark.parametrize(
    "network",
    [
        {"architecture": "compact", "width": 4, "stages": 2, "dense": 16, "pooled": 2},
        {"architecture": "starnet", "fc1": 16, "fc2": 16},
        {"architecture": "anna", "kernel": 5, "filters": 2, "fc1": 16, "fc2": 16, "members": 3},
    ],
    ids=["compact", "starnet", "members"],
)
def test_every_kind_of_network_trains(toy, network):
    rows = history(run(toy(network=network, stage={"steps": 150}, validation={"interval": 50})))
    assert rows[-1]["validation_cost"] < 0.5 * rows[0]["validation_cost"]


@pytest.mark.parametrize(
    "stage",
    [
        {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine", "warmup": 20},
        {"schedule": "onecycle", "gradient_clip": 1.0},
        {"average": 0.9},
        {"keep_probability": 0.9},
    ],
    ids=["adamw", "onecycle", "average", "dropout"],
)
def test_every_way_of_training_learns(toy, stage):
    rows = history(run(toy(stage={"steps": 200, **stage}, validation={"interval": 50})))
    assert rows[-1]["validation_cost"] < 0.5 * rows[0]["validation_cost"]


def test_the_moving_average_is_what_is_kept(toy):
    settings = toy(stage={"average": 0.9, "steps": 20}, validation={"interval": 20})
    directory = run(settings)
    tensors, _ = directory.load_checkpoint()
    best, _ = directory.load_best()
    weight = "members.0.3.weight"
    assert torch.equal(best[weight], tensors[f"extra.module.{weight}"])
    assert not torch.equal(best[weight], tensors[f"network.{weight}"])


def test_weight_decay_shrinks_weights(toy):
    plain, decayed = (
        run(toy(stage={"optimizer": "adamw", "weight_decay": decay, "steps": 100})).load_checkpoint()[0]
        for decay in (0.0, 3.0)
    )
    weight = "network.members.0.6.weight"
    assert decayed[weight].norm() < 0.8 * plain[weight].norm()


def test_the_gradient_is_clipped(toy):
    # Adam does not feel the size of the gradient but where it competes with its epsilon of 1e-8.
    free, clipped = (
        history(run(toy(stage={"gradient_clip": clip}, validation={"interval": 60})))[0]["batch_cost"]
        for clip in (1e6, 1e-9)
    )
    assert clipped > 1.5 * free


# --- stages, looks, stopping ----------------------------------------------------


def test_stages_follow_one_another(toy):
    stages = [
        {"learning_rate": 3e-3, "steps": 30, "batch_size": 20, "keep_probability": 0.8},
        {"learning_rate": 1e-4, "steps": 20, "batch_size": 40},
    ]
    rows = history(run(toy(stage=stages)))
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50]
    assert [row["learning_rate"] for row in rows] == [3e-3] * 3 + [1e-4] * 2


def test_a_run_without_gain_stops_early_and_keeps_the_best(toy):
    settings = toy(stage={"steps": 2000, "learning_rate": 1e-12}, validation={"patience": 3})
    directory = run(settings)
    rows = history(directory)
    info = directory.read_info()
    best = min(rows, key=lambda row: row["validation_cost"])
    assert info["status"] == "stopped early"
    assert info["best_step"] == best["step"]
    assert rows[-1]["step"] == best["step"] + 30


def test_the_best_weights_are_those_of_the_least_validation_cost(toy):
    # A rate that is far too large: the last weights are not the best.
    directory = run(toy(stage={"steps": 200, "learning_rate": 0.2}))
    rows = history(directory)
    weights, state = directory.load_best()
    best = min(rows, key=lambda row: row["validation_cost"])
    assert state.best_cost == pytest.approx(best["validation_cost"])
    assert state.step == best["step"]
    settings = directory.settings()
    task = prepare_task(settings, CPU)
    network = build_network(settings, task)
    network.load_state_dict(weights)
    assert evaluate(network, task.validation, task.labels)[0] == pytest.approx(best["validation_cost"], rel=1e-5)


def test_costs_of_an_ensemble_are_means_over_its_members(toy):
    # The same spectra on both sides, all of them once, and a rate that changes nothing.
    network = {"architecture": "anna", "kernel": 5, "filters": 2, "fc1": 16, "fc2": 16, "members": 3}
    settings = toy(
        data={"train": "train.h5", "validation": "train.h5"}, network=network, augmentation=None,
        stage={"steps": 10, "learning_rate": 1e-12},
    )  # fmt: skip
    (row,) = history(run(settings))
    assert row["batch_cost"] == pytest.approx(row["validation_cost"], rel=1e-5)


def test_without_validation_the_batch_cost_decides(toy):
    settings = toy(data=ONLY_TRAIN)
    directory = run(settings)
    rows = history(directory)
    assert "validation_cost" not in rows[0]
    assert directory.load_best()[1].best_cost == pytest.approx(min(row["batch_cost"] for row in rows))


def test_a_plateau_halves_the_rate(toy):
    rows = history(run(toy(stage={"steps": 200, "learning_rate": 1e-30, "schedule": "plateau", "warmup": 0})))
    assert [row["learning_rate"] for row in rows[::5]] == pytest.approx([1e-30, 1e-30, 0.5e-30, 0.25e-30], rel=1e-9)


def test_validation_spectra_are_the_same_at_every_look(toy):
    first, again = (prepare_task(toy(validation={"augment": True}), CPU).validation for _ in range(2))
    assert torch.equal(first.flux, again.flux)
    assert 100 <= float(first.snr.min()) <= float(first.snr.max()) <= 200
    clean = prepare_task(toy(validation={"augment": False}), CPU).validation
    assert not torch.equal(first.flux, clean.flux)


def test_validation_can_be_split_off(toy):
    toy.write("train.h5", n=100, ids=np.repeat(np.arange(50), 2))
    task = prepare_task(toy(data={**ONLY_TRAIN, "validation_size": 20}), CPU)
    assert len(task.validation) == 20
    assert len(set(task.validation.id)) == 10
    assert task.source.n == 80


def test_a_run_that_diverges_is_stopped_with_advice(toy):
    with pytest.raises(TrainingError, match=r"the run diverged\. Lower stage\.learning_rate"):
        run(toy(stage={"learning_rate": 1e20}))


def test_a_validation_cost_that_is_no_number_ends_the_run(toy, monkeypatch):
    monkeypatch.setattr("anna_onnx.training.loop.evaluate", lambda *_: (np.inf, [1.0, 1.0]))
    with pytest.raises(TrainingError, match="the validation cost is no longer a number at step 10"):
        run(toy())


@pytest.mark.parametrize("memory", [4.0, 1e-9])
def test_a_wild_pixel_is_as_good_as_a_masked_one(toy, toy_labels, toy_flux, memory):
    labels = toy_labels(200)
    wild, sound = toy_flux(labels), toy_flux(labels)
    wild[5, 7], wild[190, 30], wild[100, 1] = np.inf, 1e38, -np.inf
    settings = toy(data={**ONLY_TRAIN, "validation": "valid.h5", "memory": memory}, stage={"steps": 10})
    toy.write("train.h5", labels=labels, flux=wild)
    first = run(settings).read_history()
    toy.write("train.h5", labels=labels, flux=sound, mask=~(np.abs(wild) < 2))
    assert [row["validation_cost"] for row in run(settings).read_history()] == [row["validation_cost"] for row in first]


def test_spectra_all_of_one_star_cannot_be_split(toy):
    toy.write("train.h5", n=100, ids=np.full(100, np.nan))
    with pytest.raises(TrainingError, match=r"100 spectra of 1 star \(by their id\), too few to split off 20"):
        prepare_task(toy(data={**ONLY_TRAIN, "validation_size": 20}), CPU)


@pytest.mark.parametrize("name", ["train.h5", "valid.h5"])
def test_a_set_without_spectra_is_named(toy, name):
    toy.write(name, n=0)
    with pytest.raises(TrainingError, match=rf"{name}: 0 spectra"):
        run(toy())


def test_a_training_set_without_flux_is_named(toy, toy_labels):
    toy.write("train.h5", flux=np.full((200, 48), np.nan))
    with pytest.raises(TrainingError, match=r"train\.h5: the flux is NaN or masked in every pixel"):
        run(toy())


def test_a_label_that_the_validation_set_does_not_know_has_no_rms(toy, toy_labels, toy_flux):
    labels = toy_labels(50)
    labels[:, 1] = np.nan
    toy.write("valid.h5", labels=labels, flux=toy_flux(toy_labels(50)))
    said = []
    rows = history(train(toy(), say=said.append))
    assert all(np.isnan(row["rms_logg"]) and row["rms_teff"] > 0 for row in rows)
    assert "note: no validation spectrum has a value of logg: not validated" in said
    toy.write("valid.h5", labels=np.full((50, 2), np.nan), flux=toy_flux(toy_labels(50)))
    with pytest.raises(TrainingError, match=r"valid\.h5: none has a value of teff, logg"):
        run(toy())


def test_a_callback_sees_every_look_and_may_end_the_run(toy):
    seen = []

    def look(row):
        seen.append(row["step"])
        if len(seen) == 3:
            raise StopIteration

    with pytest.raises(StopIteration):
        run(toy(), look=look)
    assert seen == [10, 20, 30]


# --- what is said and written ---------------------------------------------------


def test_size_and_memory_are_said_before_training(toy):
    said = []
    train(toy(), say=said.append)
    n = 5 * 2 + 2 + (2 * 48 * 16 + 16) + (16 * 16 + 16) + 16 * 2
    assert said[0].startswith(f"anna: {n:,} weights, 0.0 MB exported, 0 MB while training; cpu, 1 thread, float32")
    assert any(line.startswith("time of a step: input") for line in said)


def test_the_run_directory_holds_what_made_the_run(toy):
    directory = run(toy(seed=7))
    info = directory.read_info()
    assert info["seed"] == 7
    assert info["status"] == "finished"
    assert info["data"]["train"]["sha256"] == hashlib.sha256((toy.folder / "train.h5").read_bytes()).hexdigest()
    assert {"anna-onnx", "torch", "numpy"} <= set(info["versions"])
    assert directory.settings() == toy(seed=7)
    with (directory.path / "history.csv").open(newline="") as file:
        names = next(csv.reader(file))
    assert names == ["step", "batch_cost", "validation_cost", "rms_teff", "rms_logg", "learning_rate", "seconds"]


def test_a_trace_is_json_that_names_the_parts_of_a_step(toy):
    directory = run(toy(run={"trace": True}))
    events = json.loads((directory.path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert all(names.count(part) == 10 for part in ("input", "forward", "backward", "optimizer"))
    assert all(event["dur"] > 0 for event in events if event.get("name") == "backward")


def test_tensorboard_gets_both_costs_under_one_tag(toy):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    directory = run(toy(run={"tensorboard": True}))
    rows = history(directory)
    events = {}
    for part in ("batch", "validation"):
        events[part] = accumulator.EventAccumulator(str(directory.path / "tensorboard" / part))
        events[part].Reload()
    for part in events:
        scalars = events[part].Scalars("cost")
        assert [event.step for event in scalars] == [row["step"] for row in rows]
        assert [event.value for event in scalars] == pytest.approx([row[f"{part}_cost"] for row in rows], rel=1e-5)
    assert [event.value for event in events["validation"].Scalars("rms/teff")] == pytest.approx(
        [row["rms_teff"] for row in rows], rel=1e-5
    )
    assert "weights/members.0.3.weight" in events["batch"].Tags()["distributions"] or (
        "weights/members.0.3.weight" in events["batch"].Tags()["histograms"]
    )
    assert events["batch"].Tags()["graph"]


# --- grids --------------------------------------------------------------------


def test_training_straight_from_the_grid_that_comes_along(toy):
    data = {"grid": "default", "wavelength": [6700, 6712, 0.2], "fwhm": 0.6, "validation_size": 40}
    labels = {"names": ["teff", "feh"], "low": [5000, -0.5], "high": [6500, 0.2]}
    settings = toy(data=data, labels=labels, stage={"steps": 40})
    task = prepare_task(settings, CPU)
    assert [(label.name, label.low, label.high) for label in task.labels] == [("teff", 5000, 6500), ("feh", -0.5, 0.2)]
    first, again, next_one = (task.source.draw(position, 20) for position in (0, 0, 20))
    assert torch.equal(first.flux, again.flux)
    assert not torch.equal(first.flux, next_one.flux)
    assert first.flux.shape == (20, 61)
    assert float(first.scaled.min()) >= 0
    assert float(first.scaled.max()) <= 1
    assert len(task.validation) == 40
    assert not torch.equal(task.validation.scaled[:20], first.scaled)
    directory = run(settings)
    assert history(directory)[-1]["batch_cost"] < history(directory)[0]["batch_cost"]
    assert directory.read_info()["data"]["grid"]["file"].endswith(".h5")


def test_loader_workers_draw_the_same_stars_from_a_grid(toy):
    data = {"grid": "default", "wavelength": [6700, 6704, 0.2], "fwhm": 0.6}
    alone, helped = (
        run(toy(data=data, stage={"steps": 6}, validation={"interval": 3}, loader={"workers": n})).load_best()[0]
        for n in (0, 1)
    )
    assert all(torch.equal(alone[name], helped[name]) for name in alone)


def test_a_training_set_drawn_from_the_grid_has_the_labels_of_the_run(toy):
    data = {"grid": "default", "wavelength": [6700, 6704, 0.2], "fwhm": 0.6}
    drawn = training_set_from_grid(toy(data=data, labels={"names": ["feh", "teff"]}), 30)
    assert drawn.label_names == ("feh", "teff")
    assert drawn.flux.shape == (30, 21)
    assert 4000 < drawn.labels[:, 1].mean() < 7500


def test_stars_and_their_noise_have_random_numbers_of_their_own(toy):
    settings = toy(data=GRID_DATA | {"validation_size": 20})
    task, drawn = prepare_task(settings, CPU), training_set_from_grid(settings, 20)
    stars = [task.source.draw(0, 20).scaled, task.validation.scaled, scale(drawn.labels, task.labels)]
    assert len(np.unique(np.concatenate(stars).round(6), axis=0)) == 60
    one, other = (
        make_examples([drawn], np.arange(20), task.labels, task.augmentation, settings.seed, stream).flux
        for stream in (batches.VALIDATION, batches.CALIBRATION)
    )
    assert float((one == other).float().mean()) < 0.01


def test_the_axes_of_a_grid_may_be_named_as_one_likes(toy):
    pixels = np.arange(6640.0, 6670.0, 0.05)
    with h5py.File(toy.folder / "grid.h5", "w") as file:
        file.attrs.update({"format": "anna-grid", "format_version": "1.0", "axes": ["Temperature", "aFe"]})
        file["Temperature"], file["aFe"] = [4000.0, 5000.0, 6000.0], [-0.2, 0.0, 0.2]
        file["wavelength"] = pixels
        file["wavelength"].attrs["medium"] = "air"
        file["flux"] = np.ones((3, 3, pixels.size), "f4")
    data = {"grid": "grid.h5", "wavelength": [6650, 6660, 0.2], "fwhm": 0.6}
    asked = {"names": ["aFe", "teff"], "low": [-0.1, 4500], "high": [0.1, 5000]}
    wider = {"data": data | {"beyond": 0.5}, "labels": asked | {"lowest": [-0.3, 4000]}}
    for settings in (toy(data=data), toy(data=data, labels=asked), toy(**wider)):
        drawn = prepare_task(settings, CPU).source.draw(0, 50).scaled
        assert drawn.shape == (50, len(settings.labels.names) or 3)
        assert training_set_from_grid(settings, 3).labels.shape == (3, drawn.shape[1])
        assert bool((drawn < 0).any()) == bool(settings.data.beyond)


def test_the_velocity_of_a_star_drawn_from_the_grid_is_that_of_its_lines(toy):
    data = {"grid": "default", "wavelength": [6640, 6660, 0.2], "fwhm": 0.6, "radial_velocity": [-60, 60]}
    drawn = prepare_task(toy(data=data), CPU).source.draw(0, 200)
    nickel = 6643.63 * (1 + drawn.velocity / C_KMS)
    deepest = 6640 + 0.2 * drawn.flux[:, :35].argmin(dim=1)
    assert float((deepest - nickel).abs().median()) < 0.15


def test_a_grid_without_the_asked_label_says_what_it_has(toy):
    data = {"grid": "default", "wavelength": [6700, 6704, 0.2], "fwhm": 0.6}
    with pytest.raises(TrainingError, match="no label mass; it has teff"):
        prepare_task(toy(data=data, labels={"names": ["mass"]}), CPU)


def test_a_grid_needs_its_instrument(toy):
    with pytest.raises(ConfigError, match="a grid needs the instrument, either fwhm or resolution"):
        toy(data={"grid": "default", "wavelength": [6700, 6704, 0.2]})


@pytest.mark.parametrize("one", [{"species": [[6640.0]]}, {"species_errors": [0.0, 0.2]}])
def test_errors_of_elements_need_both_their_lines_and_their_size(toy, one):
    with pytest.raises(ConfigError, match="species and species_errors go together"):
        toy(augmentation=one)


@pytest.mark.parametrize(
    "one",
    [
        {"missing_pixels": [0, 5]},
        {"gaps": [0, 5]},
        {"coverage": [0.5, 50]},
        {"scattered_light": [-5, 5]},
        {"profile_errors": [-1, 0]},
        {"line_errors": [-1, 1]},
        {"continuum_waves": [-1, 1]},
    ],
)
def test_ranges_that_cannot_be_are_refused(toy, one):
    with pytest.raises(ConfigError, match=f"augmentation.{next(iter(one))}"):
        toy(augmentation=one)


GRID_DATA = {"grid": "default", "wavelength": [6700, 6704, 0.2], "fwhm": 0.6}
WIDER = {"names": ["teff", "feh"], "low": [4500, -0.4], "high": [6500, 0.2], "lowest": [4500, -1.0]}


def test_some_stars_come_from_beyond_the_ranges_where_they_are_wanted(toy):
    task = prepare_task(toy(data=GRID_DATA | {"beyond": 0.25, "validation_size": 20}, labels=WIDER), CPU)
    drawn = task.source.draw(0, 400)
    teff, feh = drawn.scaled.T
    assert drawn.flux.shape == (400, 21)
    assert float(feh.min()) > -1  # of 0.6 dex
    assert 0.09 < float((feh < 0).float().mean()) < 0.16  # half of the range of a quarter of the stars
    assert float(teff.min()) >= 0
    assert float(teff.max()) <= 1
    assert task.validation.scaled.min() >= 0
    assert torch.equal(drawn.flux, task.source.draw(0, 400).flux)
    one_by_one = torch.cat([task.source.draw(i, 1).scaled[:, 1] for i in range(100)])
    assert 5 <= int((one_by_one < 0).sum()) <= 22  # half of 25
    deepest = 1 - drawn.flux.min(dim=1).values
    cool = teff < 0.5
    assert float(deepest[cool & (feh < -0.5)].mean()) < float(deepest[cool & (feh > 0.5)].mean())


@pytest.mark.parametrize(
    ("data", "labels", "problem"),
    [
        ({"beyond": 0.2}, {}, "data.beyond and labels.lowest or labels.highest go together"),
        ({}, WIDER, "data.beyond and labels.lowest or labels.highest go together"),
        ({"beyond": 0.2}, WIDER | {"lowest": [4500, 0.0]}, "lowest 0.0 of feh is above low -0.4"),
        ({"beyond": 0.2}, WIDER | {"highest": [6500, 0.1]}, "highest 0.1 of feh is below high 0.2"),
        ({"beyond": 0.2}, WIDER | {"highest": [6500]}, "labels.highest: 1 values for 2 names"),
        ({"beyond": 0.2}, {"names": ["feh"], "lowest": [-1.0]}, "data.beyond: needs labels.low and labels.high"),
    ],
)
def test_ranges_beyond_the_ranges_that_make_no_sense_are_named(toy, data, labels, problem):
    with pytest.raises(ConfigError, match=problem):
        toy(data=GRID_DATA | data, labels=labels)


def test_no_stars_beyond_the_ranges_may_be_said_too(toy):
    assert toy(data=GRID_DATA | {"beyond": 0.0}) == toy(data=GRID_DATA)


@pytest.mark.parametrize("one", [{"radial_velocity": [-1e6, 1e6]}, {"vsini": [-50, -10]}, {"vsini": [0, 1e5]}])
def test_velocities_that_no_star_has_are_refused(toy, one):
    with pytest.raises(ConfigError, match=next(iter(one))):
        toy(augmentation=one)


def test_a_training_set_has_no_stars_beyond_those_it_has(toy):
    with pytest.raises(ConfigError, match=r"data.beyond: is for a grid"):
        toy(
            data={"train": "train.h5", "beyond": 0.2},
            labels={"names": ["teff"], "low": [1], "high": [2], "lowest": [0]},
        )


def test_a_line_outside_the_spectrum_is_refused(toy):
    for line in (1.0, 4900.0, 5100.0):
        with pytest.raises(TrainingError, match=f"no line at {line:g} Å can be in spectra from 5000.0 to 5009.4"):
            prepare_task(toy(augmentation={"species": [[5005.0, line]], "species_errors": [0.0, 0.2]}), CPU)


def test_a_line_is_narrower_than_the_spectrum(toy):
    with pytest.raises(TrainingError, match=r"augmentation.line_width: 20 Å, more than the spectra have: 5000\.0-"):
        prepare_task(toy(augmentation={"line_width": 20, "line_errors": [0, 0.1]}), CPU)


def test_spectra_without_pixels_are_refused(toy):
    with pytest.raises(TrainingError, match="mask and bad_columns leave none of the pixels"):
        prepare_task(toy(augmentation={"mask": [[4000, 7000]]}), CPU)
    for name, fractions in {"coverage": [0, 0], "gaps": [1, 1], "missing_pixels": [1, 1]}.items():
        with pytest.raises(ConfigError, match=rf"augmentation.{name}: \[.*\] leaves no pixel"):
            toy(augmentation={name: fractions})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": {"names": ["teff", "temperature"]}}, "labels.names: teff is listed more than once"),
        ({"labels": {"names": ["teff"], "units": ["Kelvinx"]}}, "labels.units: 'Kelvinx' is no unit"),
        ({"augmentation": {"mask": [6630, 6640]}}, r"mask: \[6630, 6640\] must be a list of ranges, such as \[\[6630"),
        ({"augmentation": {"snr": [10, float("inf")]}}, r"augmentation.snr: \[10, inf\] must be finite"),
        (
            {"augmentation": {"continuum_offset": [float("-inf"), 0]}},
            "augmentation.continuum_offset: .* must be finite",
        ),
        ({"augmentation": {"resolution": [5000, 8000], "spectrum_resolution": 3000}}, "cannot be degraded to a higher"),
        ({"network": {"architecture": "aligned", "velocity_step": 1e-4}}, "makes 2400000 templates, at most 10000"),
        ({"network": {"architecture": "compact", "stages": 30}}, "stages: 30 must lie between 1 and 16"),
        ({"tune": {"space": {"seed": {"low": 1, "high": float("inf")}}}}, "low < high, both finite"),
        ({"tune": {"space": {"seed": {"low": 1, "high": 9, "step": 0}}}}, "low and high"),
        ({"tune": {"space": {"seed": {"low": 1, "high": 9, "step": 2, "log": True}}}}, "and no step"),
        ({"tune": {"space": {"seed": {"low": 0, "high": 9, "log": True}}}}, "both above 0"),
    ],
)
def test_parameters_that_make_no_sense_are_named(toy, change, problem):
    with pytest.raises(ConfigError, match=problem):
        toy(**change)


def test_units_are_those_of_the_training_set(toy):
    labels = prepare_task(toy(), CPU).labels
    assert [label.unit for label in labels] == ["K", "dex(cm / s2)"]
    labels = prepare_task(toy(labels={"names": ["teff", "logg"], "units": ["K", "dex"]}), CPU).labels
    assert [label.unit for label in labels] == ["K", "dex"]
    path = toy.write("valid.h5", n=50)
    with h5py.File(path, "r+") as file:
        file["labels"].attrs["units"] = ["kK", "dex"]
    with pytest.raises(TrainingError, match=r"valid\.h5: teff is in 'kK', needed 'K'"):
        prepare_task(toy(), CPU)
    both = toy(data={"train": ["train.h5", "valid.h5"]})
    with pytest.raises(TrainingError, match=r"valid\.h5: teff is in 'kK', needed 'K'"):
        prepare_task(both, CPU)
    kilokelvin = prepare_task(toy(data={"train": "valid.h5"}), CPU)
    assert kilokelvin.labels[0].unit == "kK"
    with pytest.raises(TrainingError, match=r"train\.h5: teff is in 'K', labels.units says 'km'"):
        prepare_task(toy(labels={"names": ["teff"], "units": ["km"]}), CPU)
    with pytest.raises(TrainingError, match=r"teff is in 'K', labels\.units says 'km'"):
        prepare_task(toy(data=GRID_DATA, labels={"names": ["teff"], "units": ["km"]}), CPU)


def test_residuals_lie_around_zero(toy):
    settings = toy(augmentation={"residuals": "noise.h5"})
    noise = 0.01 * np.random.default_rng(1).standard_normal((20, 48))
    toy.write("noise.h5", n=20, flux=noise, labels=np.ones((20, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_task(settings, CPU)
    for flux, problem in ((1 + noise, "their median is 1: subtract"), (noise + np.inf, "must be finite")):
        toy.write("noise.h5", flux=flux, labels=np.ones((20, 2)))
        with pytest.raises(TrainingError, match=rf"noise\.h5: residuals .*{problem}"):
            prepare_task(settings, CPU)


@pytest.mark.parametrize("sizes", [{"kernel": 25}, {"kernel": 30}, {"pool": 100}])
def test_a_network_that_leaves_no_pixel_is_refused_before_a_run_begins(toy, sizes):
    settings = toy(network={"architecture": "starnet", "fc1": 16, "fc2": 16, **sizes})
    with pytest.raises(TrainingError, match="leave nothing of 48 pixels"):
        run(settings)
    assert not (toy.folder / "runs").exists()


def test_noise_from_the_file_needs_sigma(toy):
    noisy = {"augmentation": {"file_noise": True}}
    toy.write("train.h5", sigma=np.full((200, 48), 0.01))
    with pytest.raises(TrainingError, match=r"valid\.h5: no sigma above zero, which augmentation.file_noise needs"):
        prepare_task(toy(**noisy), CPU)
    prepare_task(toy(**noisy, validation={"augment": False}), CPU)
    toy.write("train.h5", sigma=np.zeros((200, 48)))
    with pytest.raises(TrainingError, match=r"train\.h5: no sigma above zero, which augmentation.file_noise needs"):
        prepare_task(toy(**noisy), CPU)
    with pytest.raises(ConfigError, match="a grid has no sigma"):
        toy(data=GRID_DATA, **noisy)


@pytest.mark.parametrize("pixels", [[6825, 6625, 0.2], [6625, 6825, 0], [6625, 6825, 500]])
def test_pixels_that_are_none_are_named(toy, pixels):
    with pytest.raises(ConfigError, match=r"data.wavelength: .* first < last, and a step above zero"):
        toy(data=GRID_DATA | {"wavelength": pixels})


def test_an_element_without_lines_is_refused(toy):
    with pytest.raises(ConfigError, match=r"augmentation.species: .* must be lists of wavelengths"):
        toy(augmentation={"species": [[6640.0], []], "species_errors": [0.0, 0.2]})
