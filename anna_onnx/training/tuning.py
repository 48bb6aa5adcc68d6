"""Search for the parameters that train best, with Optuna: ``anna tune``.

A study lives in an SQLite file. Any number of processes may work on it at the
same time, and one that was stopped goes on with what it holds; trials that
are worse than most at the same step are given up early.

Trials are compared by an error that means the same in all of them, of the same spectra, whatever they minimise.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import sqlite3
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anna_onnx import config
from anna_onnx.errors import ConfigError, MissingExtraError, StoppedError, TrainingError
from anna_onnx.files import replacing
from anna_onnx.labels import Label
from anna_onnx.progress import Progress, silent
from anna_onnx.training.examples import Examples
from anna_onnx.training.loop import Row, train
from anna_onnx.training.task import prepare_task

if TYPE_CHECKING:
    import optuna

Table = dict[str, Any]
WAIT = 60  # seconds for other workers to be done with the file of the study
SQLITE = b"SQLite format 3\0"  # how its files begin
MOST_FAILURES = 3  # of the first trials: then it is a fault of the parameters
ALIVE = 60  # seconds between signs of life; a trial without them was killed, and is left out
JUDGES = ("seed", "labels", "data", "validation.augment")
"""Tables and parameters that decide by which spectra and labels a trial is judged."""
TRAINING_ONLY = ("data.balance", "data.beyond", "data.label_errors", "data.memory")


@dataclass(frozen=True)
class Found:
    """The best trial of a study.

    Attributes
    ----------
    values : mapping of str to value
        What was varied.
    error : float
        Its `typical_error`.
    trials : int
        Trials of the study that came to an end.
    path : Path
        Parameter file with the values in place.
    """

    values: Mapping[str, Any]
    error: float
    trials: int
    path: Path


def tune(settings: config.Config, progress: Progress = silent, say: Callable[[str], None] = print) -> Found:
    """Search until the study has as many trials as `tune.trials`.

    Parameters
    ----------
    settings : config.Config
        With what to vary in `tune.space`.
    progress, say
        See `anna_onnx.training.loop.train`.

    Returns
    -------
    Found
        The best trial; its parameters are written to ``<params>.best.toml``, as are those of the best so far.

    Raises
    ------
    TrainingError
        If there is nothing to vary, no validation to judge by, what is to be varied decides by what trials
        are judged, no trial came to an end, or the first three failed.
    StoppedError
        At Ctrl-C or SIGTERM.
    MissingExtraError
        Without Optuna.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("'anna tune'", "tune") from error
    space = settings.tune.space or {}
    _require_comparable(settings, space)
    task = prepare_task(settings, torch.device("cpu"))
    if task.validation is None:
        raise TrainingError(f"{settings.path}: trials are judged by data.validation or data.validation_size; give one")
    judge = Judge(task.validation, task.labels)
    del task  # and the training set in memory with it
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of a trial that fails `say` says it
    study = open_study(settings)
    states = optuna.trial.TrialState
    failures: list[str] = []

    def try_one(trial: optuna.Trial) -> float:
        try:
            return run_trial(trial, settings, space, judge, progress, say)
        except (TrainingError, ConfigError) as error:
            say(f"trial {trial.number}: failed, {error}")
            failures.append(str(error))
            if not study.get_trials(states=(states.COMPLETE,)):
                raise
            return math.inf  # from which the study learns where not to look

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.state == states.COMPLETE:
            _write_best(settings, study)
        elif trial.state == states.FAIL and len(failures) == MOST_FAILURES:
            raise TrainingError(f"{settings.path}: the first {MOST_FAILURES} trials failed, the last: {failures[-1]}")

    ended = (states.COMPLETE, states.PRUNED)
    if len(study.get_trials(states=ended)) < settings.tune.trials:
        enough = optuna.study.MaxTrialsCallback(settings.tune.trials, states=ended)
        study.optimize(try_one, callbacks=[after, enough], catch=(TrainingError, ConfigError))
    if not study.get_trials(states=(states.COMPLETE,)):
        raise TrainingError(f"{settings.tune.study}: no trial came to an end; try one by hand with 'anna train'")
    path = _write_best(settings, study)
    return Found(study.best_params, study.best_value, len(study.get_trials(states=ended)), path)


def _require_comparable(settings: config.Config, space: Mapping[str, Any]) -> None:
    """Refuse a space with nothing in it, or with what decides by what trials are judged."""
    if not space:
        raise TrainingError(f"{settings.path}: nothing to vary; say what under [tune.space]")
    with_values(settings, {name: _example(choices) for name, choices in space.items()})
    judging = [name for name in space if name.startswith(JUDGES) and name not in TRAINING_ONLY]
    if judging:
        raise TrainingError(
            f"{settings.path}: tune.space varies {', '.join(judging)}, by which trials are judged: "
            "their errors would be of other spectra or labels, and not to be compared"
        )


def _write_best(settings: config.Config, study: optuna.Study) -> Path:
    """Write the parameters of the best trial so far."""
    path = settings.path.with_name(f"{settings.path.stem}.best.toml")
    with replacing(path) as partial:
        partial.write_text(with_values(settings, study.best_params).text, encoding="utf-8")
    return path


def open_study(settings: config.Config) -> optuna.Study:
    """Open the study, or begin it."""
    import optuna

    path = settings.resolve(settings.tune.storage)
    _require_sqlite(path)
    with warnings.catch_warnings(), _alone(path):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": WAIT}}, heartbeat_interval=ALIVE
        )
    try:
        return optuna.create_study(
            study_name=settings.tune.study,
            storage=storage,
            # Workers draw apart.
            sampler=optuna.samplers.TPESampler(seed=(settings.seed * 100_003 + os.getpid()) % 2**32),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=settings.steps // 4),
            direction="minimize",
            load_if_exists=True,
        )
    except optuna.exceptions.StorageInternalError as error:
        raise TrainingError(f"{path}: the study cannot be kept there (the tables in it are not Optuna's)") from error


def _require_sqlite(path: Path) -> None:
    """Refuse a file that is there and is none of SQLite's; an empty one may become one."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(len(SQLITE))
        if head in (b"", SQLITE):
            return
    raise TrainingError(f"{path}: the study cannot be kept there (not an SQLite file)")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time make the tables of a study.

    The lock is SQLite's own, on an empty file beside the study: it works on every system and ends with the process.
    """
    try:
        lock = sqlite3.connect(path.with_name(f".{path.name}.lock"), timeout=WAIT, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        raise TrainingError(f"{path}: the study cannot be kept there ({error})") from error
    with closing(lock):
        yield


@dataclass(frozen=True, eq=False)
class Judge:
    """What all trials of a study are judged by.

    Attributes
    ----------
    validation : Examples
        Those of the parameter file, whatever a trial is augmented with.
    labels : tuple of Label
    """

    validation: Examples
    labels: tuple[Label, ...]

    def typical_error(self, row: Row) -> float:
        """Return the mean over the known labels of RMS error / range, in a row of the history.

        Unlike the costs of training it is the same for networks that infer errors and for those that infer none.
        """
        return float(np.nanmean([row[f"rms_{label.name}"] / label.span for label in self.labels]))


def run_trial(
    trial: optuna.Trial,
    settings: config.Config,
    space: Mapping[str, Any],
    judge: Judge,
    progress: Progress,
    say: Callable[[str], None],
) -> float:
    """Train with the values that a trial suggests, and return the error of the weights that are kept."""
    import optuna

    values = {name: suggest(trial, name, choices) for name, choices in space.items()}
    least = error = math.inf

    def look(row: Row) -> None:
        nonlocal least, error
        if row["validation_cost"] < least:
            least, error = row["validation_cost"], judge.typical_error(row)
        trial.report(error, int(row["step"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    def note_trial(done: int, total: int, note: str = "") -> None:
        progress(done, total, f"trial {trial.number} | {note}")

    # Its run is one of the trial, not one that 'anna train --resume' would find for the parameter file.
    path = settings.path.with_name(f"{settings.path.stem}.trial-{trial.number}.toml")
    tried = dataclasses.replace(with_values(settings, values), path=path)
    try:
        directory = train(tried, progress=note_trial, say=lambda text: None, look=look, validation=judge.validation)
    except StoppedError:
        raise StoppedError(
            f"stopped in trial {trial.number}; to go on start 'anna tune {settings.path}' again"
        ) from None
    except optuna.TrialPruned:
        say(f"trial {trial.number}: given up, {error_in_words(error)}, {_in_words(values)}")
        raise
    trial.set_user_attr("run", directory.path.name)
    say(f"trial {trial.number}: {error_in_words(error)}, {_in_words(values)}, run {directory.path}")
    return error


def error_in_words(error: float) -> str:
    """Say what the `typical_error` of a trial is."""
    return f"error {100 * error:.3g} % of the ranges"


def suggest(trial: optuna.Trial, name: str, choices: Any) -> Any:
    """Draw a value: one of a list, or between low and high, whole where these and the step are."""
    if isinstance(choices, list):
        return trial.suggest_categorical(name, choices)
    low, high, log, step = choices["low"], choices["high"], choices.get("log", False), choices.get("step")
    if all(isinstance(number, int) for number in (low, high, step or 1)):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, low, high, log=log, step=step)


def with_values(settings: config.Config, values: Mapping[str, Any]) -> config.Config:
    """Return the parameters with some replaced: ``network.fc1``; ``stage.steps`` is that of every stage.

    Raises
    ------
    ConfigError
        If a parameter is unknown, or does not take the value.
    """
    table: Table = copy.deepcopy(tomllib.loads(settings.text))
    table.pop("tune", None)
    for name, value in values.items():
        *path, key = name.split(".")
        for place in _places(table, path):
            place[key] = value
    return config.loads(config.dumps(table), settings.path)


def _places(table: Table, path: list[str]) -> list[Table]:
    """Return the tables that a path leads to: of a list of tables, all."""
    places = [table]
    for name in path:
        found: list[Table] = []
        for place in places:
            inner = place.setdefault(name, {})
            found += inner if isinstance(inner, list) else [inner]
        places = found
    return places


def _example(choices: Any) -> Any:
    return choices[0] if isinstance(choices, list) else choices["low"]


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
