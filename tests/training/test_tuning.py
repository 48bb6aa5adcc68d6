"""The search for parameters: it varies what it is told to, keeps its study, goes on, and gives up bad trials."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

torch = pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from click.testing import CliRunner

from anna_onnx import config
from anna_onnx.errors import ConfigError, StoppedError, TrainingError
from anna_onnx.training.checkpoint import RunDirectory
from anna_onnx.training.frozen import load_network
from anna_onnx.training.loop import choose_run
from anna_onnx.training.optimization import evaluate
from anna_onnx.training.task import prepare_task
from anna_onnx.training.tuning import open_study, suggest, tune, with_values
from anna_onnx_cli.anna import main

DIVERGES = {"stage.learning_rate": {"low": 1e29, "high": 1e30}}
SPACE = {"stage.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True}, "network.fc1": [4, 16]}


def study_of(toy, trials=3, **change):
    return toy(tune={"trials": trials, "space": SPACE}, stage={"steps": 40}, **change)


def test_the_best_trial_is_found_and_written(toy):
    settings = study_of(toy)
    found = tune(settings, say=lambda text: None)
    study = open_study(settings)
    assert found.trials == len(study.trials) == 3
    errors = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert found.error == min(errors)
    best = config.load(found.path)
    assert best.network.sizes.fc1 == found.values["network.fc1"]
    assert best.stage[0].learning_rate == found.values["stage.learning_rate"]
    assert best.data == settings.data


def test_a_study_goes_on_where_it_stopped(toy):
    tune(study_of(toy, trials=2), say=lambda text: None)
    found = tune(study_of(toy, trials=3), say=lambda text: None)
    assert found.trials == 3
    assert tune(study_of(toy, trials=3), say=lambda text: None).trials == 3


def test_bad_trials_are_given_up_early(toy, monkeypatch):
    said = []
    monkeypatch.setattr(os, "getpid", lambda: 1)  # with which the trials are drawn
    space = {"stage.learning_rate": [1e-2, 1e-2, 1e-9]}
    settings = toy(tune={"trials": 10, "space": space}, stage={"steps": 40})
    tune(settings, say=said.append)
    given_up = [line for line in said if "given up" in line]
    assert given_up
    assert all("learning_rate 1e-09" in line for line in given_up)


def test_ctrl_c_ends_the_search_and_not_just_its_trial(toy):
    settings = study_of(toy)
    with pytest.raises(StoppedError, match=r"stopped in trial 0; to go on start 'anna tune .*params\.toml' again"):
        tune(settings, lambda *progress: signal.raise_signal(signal.SIGINT), say=lambda text: None)
    assert len(open_study(settings).trials) == 1


def test_a_search_whose_first_trials_fail_gives_up_and_says_why(toy):
    said = []
    settings = toy(tune={"trials": 9, "space": DIVERGES})
    with pytest.raises(TrainingError, match=r"the first 3 trials failed, the last: .* no longer a number"):
        tune(settings, say=said.append)
    assert [line.split(",")[0] for line in said] == [f"trial {i}: failed" for i in range(3)]


def test_trials_that_diverge_are_the_worst_and_the_best_is_kept(toy):
    good = tune(toy(tune={"trials": 1, "space": {"network.fc1": [16]}}), say=lambda text: None)
    good.path.unlink()
    found = tune(toy(tune={"trials": 6, "space": DIVERGES}), say=lambda text: None)
    assert (found.error, found.trials, found.values) == (good.error, 6, {"network.fc1": 16})
    assert config.load(found.path).network.sizes.fc1 == 16


def test_the_best_so_far_is_there_when_the_search_is_stopped(toy):
    def interrupt(done, total, note):
        if note.startswith("trial 1"):
            signal.raise_signal(signal.SIGINT)

    settings = study_of(toy)
    with pytest.raises(StoppedError, match="stopped in trial 1"):
        tune(settings, interrupt, say=lambda text: None)
    best = config.load(settings.path.with_name("params.best.toml"))
    assert best.network.sizes.fc1 == open_study(settings).best_params["network.fc1"]


def test_a_trial_is_judged_by_the_errors_of_the_weights_that_it_keeps(toy):
    settings = toy(tune={"trials": 2, "space": {"network.uncertainty": [True, False]}})
    tune(settings, say=lambda text: None)
    for trial in open_study(settings).trials:
        run = RunDirectory(toy.folder / "runs" / trial.user_attrs["run"])
        kept = min(run.read_history(), key=lambda row: row["validation_cost"])
        spans = {label.name: label.span for label in run.labels()}
        assert trial.value == pytest.approx(np.mean([kept[f"rms_{name}"] / span for name, span in spans.items()]))
        assert 0 < trial.value < 1


def test_trials_are_judged_by_the_same_spectra_however_they_are_augmented(toy):
    noisy = toy(tune={"trials": 1, "space": {"augmentation.cosmic_rays": [30.0]}}, stage={"steps": 20})
    tune(noisy, say=lambda text: None)
    (trial,) = open_study(noisy).trials
    run = RunDirectory(toy.folder / "runs" / trial.user_attrs["run"])
    task = prepare_task(noisy, torch.device("cpu"))
    _, rms = evaluate(load_network(run), task.validation, task.labels)
    assert trial.value == pytest.approx(
        np.mean([one / label.span for one, label in zip(rms, task.labels, strict=True)])
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("labels.low", [[3000.0, 1.0], [2000.0, 0.0]]),
        ("data.validation_size", [20, 40]),
        ("validation.augment", [True, False]),
        ("seed", [1, 2]),
    ],
)
def test_what_decides_by_what_trials_are_judged_is_not_varied(toy, name, values):
    ranges = {"names": ["teff", "logg"], "low": [3000.0, 1.0], "high": [6000.0, 5.0]}
    with pytest.raises(TrainingError, match=rf"tune\.space varies {name}, by which trials are judged"):
        tune(toy(labels=ranges, tune={"space": {name: values}}))


def test_the_runs_of_trials_are_none_that_resume_goes_on_with(toy):
    settings = study_of(toy, trials=1)
    tune(settings, say=lambda text: None)
    with pytest.raises(TrainingError, match=r"no run of .*params\.toml in it"):
        choose_run(str(settings.path), resume=True)


def test_two_workers_share_a_study(toy):
    settings = study_of(toy, trials=4)
    command = [sys.executable, "-c", "from anna_onnx_cli.anna import main; main()", "tune", str(settings.path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    # Each finishes the trial that it is at.
    assert 4 <= len(open_study(settings).trials) <= 5
    assert all("best of" in out for out, _ in said)


def test_a_study_that_cannot_be_kept_is_said_so(toy):
    with pytest.raises(TrainingError, match=r"study\.db: the study cannot be kept there"):
        tune(toy(tune={"space": SPACE, "storage": "no_such_folder/study.db"}))


def test_a_file_that_is_no_study_is_said_so(toy):
    settings = toy(tune={"space": SPACE, "storage": "study.db"})
    path = settings.resolve("study.db")
    path.write_bytes(b"junk" * 100)
    with pytest.raises(TrainingError, match=r"study\.db: .* \(not an SQLite file\)"):
        tune(settings)
    path.unlink()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE studies (a INTEGER)")
    with pytest.raises(TrainingError, match=r"study\.db: .* tables in it are not Optuna's"):
        tune(settings)


@pytest.mark.parametrize(("step", "kind"), [(None, int), (1, int), (0.5, float)])
def test_values_are_whole_where_their_range_is(step, kind):
    trial = optuna.create_study().ask()
    choices = {"low": 1, "high": 3} | ({} if step is None else {"step": step})
    assert type(suggest(trial, "x", choices)) is kind


def test_the_command_says_what_it_found(toy):
    result = CliRunner().invoke(main, ["tune", str(study_of(toy, trials=1).path)])
    assert result.exit_code == 0, result.output
    assert "best of 1 trials: error" in result.output
    assert "params.best.toml written" in result.output


def test_values_are_put_into_every_stage(toy):
    stages = [{"steps": 10}, {"steps": 20}]
    changed = with_values(toy(stage=stages), {"stage.learning_rate": 0.5, "augmentation.radial_velocity": [-5, 5]})
    assert [stage.learning_rate for stage in changed.stage] == [0.5, 0.5]
    assert changed.augmentation.radial_velocity == (-5, 5)
    assert changed.augmentation.snr == (100, 200)


def test_a_parameter_that_does_not_exist_is_named_before_any_trial(toy):
    settings = toy(tune={"space": {"network.fc3": [1, 2]}})
    with pytest.raises(ConfigError, match=r"network\.fc3: unknown key"):
        tune(settings, say=lambda text: None)


def test_without_a_space_or_a_validation_set_there_is_nothing_to_tune(toy):
    with pytest.raises(TrainingError, match="nothing to vary"):
        tune(toy())
    with pytest.raises(TrainingError, match="judged by data"):
        tune(study_of(toy, data={"train": "train.h5"}))


def test_a_space_that_is_no_range_is_refused(toy):
    with pytest.raises(ConfigError, match="needs a list of values, or low and high"):
        toy(tune={"space": {"network.fc1": {"low": 5, "high": 2}}})


def test_a_table_written_as_toml_reads_back_the_same():
    import tomllib

    table = {
        "seed": 1, "text": 'a "quoted" Å', "flag": True, "list": [1, 2.5, "x"], "empty": [], "pairs": [[1, 2], [3, 4]],
        "data": {"train": "a.h5", "deep": {"stage.learning_rate": {"low": 1e-5, "log": False}}},
        "stage": [{"steps": 1}, {"steps": 2, "rate": 1e300}],
    }  # fmt: skip
    assert tomllib.loads(config.dumps(table)) == table
