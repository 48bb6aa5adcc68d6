"""The search for parameters: it varies what it is told to, keeps its study, goes on, and gives up bad trials."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

torch = pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from click.testing import CliRunner

from anna_onnx import config
from anna_onnx.errors import ConfigError, StoppedError, TrainingError
from anna_onnx.training.loop import choose_run
from anna_onnx.training.tuning import open_study, suggest, tune, with_values
from anna_onnx_cli.anna import main

SPACE = {"stage.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True}, "network.fc1": [4, 16]}


def study_of(toy, trials=3, **change):
    return toy(tune={"trials": trials, "space": SPACE}, stage={"steps": 40}, **change)


def test_the_best_trial_is_found_and_written(toy):
    settings = study_of(toy)
    found = tune(settings, say=lambda text: None)
    study = open_study(settings)
    assert found.trials == len(study.trials) == 3
    costs = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert found.cost == min(costs)
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


def test_a_search_whose_trials_all_fail_gives_up_and_says_why(toy):
    said = []
    settings = study_of(toy, labels={"names": ["teff", "mass"]})
    with pytest.raises(TrainingError, match=r"3 trials in a row failed, the last: .*no label mass"):
        tune(settings, say=said.append)
    assert [line.split(",")[0] for line in said] == [f"trial {i}: failed" for i in range(3)]


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
    assert "best of 1 trials: cost" in result.output
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
