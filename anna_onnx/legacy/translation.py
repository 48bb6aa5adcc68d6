"""From ANNA.param to params.toml: a readable file, and a report of what became of each key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anna_onnx import config
from anna_onnx.errors import LegacyError
from anna_onnx.files import replacing
from anna_onnx.labels import unit_of
from anna_onnx.legacy.parameters import (
    KEYS_BY_NAME,
    Parameters,
    check_trainable,
    read_parameters,
    standard_names,
)

_HEAD = """\
# Parameters for 'anna train', made from {source} by 'anna convert'.
# Behind each line stands the key it came from. A line that is commented out was
# switched off there. File names are relative to this file.

seed = 1
"""


def convert_parameters(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    keep_names: bool = False,
) -> tuple[str, ...]:
    """Convert an ANNA.param to a params.toml that 'anna train' takes as it is.

    Parameters
    ----------
    source, target : path-like
    names : sequence of str, optional
        Names of the labels instead of those in the file.
    keep_names : bool
        Keep the old names of the labels (``temperature``) instead of the standard ones (``teff``).

    Returns
    -------
    report : tuple of str
        What became of each key, and what is different now.

    Raises
    ------
    LegacyError
        With every problem of the file and its line.
    """
    source, target = Path(source), Path(target)
    parameters = read_parameters(source)
    text = params_toml(parameters, target, standard_names(names or parameters.names, keep_names))
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return (*report(parameters), *differences(parameters))


def params_toml(parameters: Parameters, target: Path, names: Sequence[str], *, legacy_noise: bool = False) -> str:
    """Return the text of the params.toml that says what an ANNA.param says.

    Parameters
    ----------
    parameters : Parameters
    target : Path
        Where the file is to lie: what it names is relative to it.
    names : sequence of str
        Of the labels.
    legacy_noise : bool
        Multiply the noise by the S/N template, as the old program did.

    Raises
    ------
    LegacyError
        If `parameters` lack what training needs.
    """
    check_trainable(parameters)
    n = parameters.values["NUM_OUTS"]
    if len(names) != n:
        raise LegacyError(f"{parameters.path}: NUM_OUTS is {n}, but {len(names)} names are given: {', '.join(names)}")
    text = _Translation(parameters, target, tuple(names), legacy_noise).text()
    config.loads(text, target)
    return text


def report(parameters: Parameters) -> tuple[str, ...]:
    """Say what became of each key of a file, in its order."""
    width = max(map(len, parameters.values))
    lines = []
    for name in parameters.values:
        key = KEYS_BY_NAME[name]
        fate = f"{key.target}{f': {key.note}' if key.note else ''}" if key.target else f"dropped: {key.note}"
        lines.append(f"{name:{width}} -> {fate}")
    return tuple(lines)


def differences(parameters: Parameters) -> tuple[str, ...]:
    """Say what the new program does otherwise with these parameters."""
    values, lines = parameters.values, []
    if parameters.is_on("PREPROCESS_TRAIN"):
        lines.append(
            "The S/N is multiplied by the S/N template, as the manual says; the old program multiplied the noise by "
            "it. legacy_noise = true in [augmentation] does that too."
        )
    elif parameters.is_on("PREPROCESS_XVAL"):
        lines.append("PREPROCESS_XVAL: the validation set is augmented as the training set is, here not at all.")
    if parameters.is_on("DO_TRAIN2"):
        lines.append("The best weights of both stages are kept; the old program froze those of the first stage.")
    lines.append("The last star of the training set is drawn like the others; the old program never drew it.")
    for name in ("PREPROCESS", "REL_CONT_E", "SN_RANGE"):
        test, train = f"{name}_TEST", f"{name}_TRAIN"
        if test in values and values[test] != values.get(train):
            lines.append(f"{test} differs from {train}, which 'anna test' goes by.")
    return tuple(lines)


@dataclass(frozen=True)
class _Row:
    """One line of params.toml."""

    name: str
    value: Any
    origin: str
    on: bool = True

    def __str__(self) -> str:
        line = f"{'' if self.on else '# '}{self.name} = {config.value_text(self.value)}"
        return f"{line:44}  # {self.origin}"


@dataclass(frozen=True)
class _Translation:
    """An ANNA.param on its way to a params.toml."""

    parameters: Parameters
    target: Path
    names: tuple[str, ...]
    legacy_noise: bool

    def text(self) -> str:
        """Return the whole params.toml."""
        stages = [self.stage("1")] + ([self.stage("2")] if self.parameters.is_on("DO_TRAIN2") else [])
        sections = [
            ("[data]", self.data()),
            ("[labels]", self.labels()),
            ("[network]", self.network()),
            ("[augmentation]", self.augmentation()),
            *(("[[stage]]", rows) for rows in stages),
            ("[validation]", self.validation()),
            ("[run]", self.run()),
        ]
        parts = [_HEAD.format(source=self.parameters.path.name)]
        parts += ["\n".join([header, *map(str, rows), ""]) for header, rows in sections if rows]
        return "\n".join(parts)

    def row(self, name: str, key: str, *, item: int | None = None, on: bool = True, why: str = "") -> list[_Row]:
        """Return the line of a key, or of one item of it; none when the file does not mention it."""
        if key not in self.parameters.values:
            return []
        value = self.parameters.values[key]
        return [_Row(name, value if item is None else value[item], f"{key}{'' if on else f', off: {why}'}", on)]

    def file(self, name: str, key: str, *, on: bool = True, why: str = "") -> list[_Row]:
        """Return the line of a file name, made relative to the new parameter file."""
        return [_Row(row.name, self.relocate(row.value), row.origin, on) for row in self.row(name, key, on=on, why=why)]

    def relocate(self, name: str) -> str:
        """Return a name that is relative to ANNA.param so that it is relative to params.toml."""
        old, new = self.parameters.path.parent.resolve(), self.target.parent.resolve()
        if old == new or name.startswith("~") or Path(name).is_absolute():
            return name
        try:
            return Path(os.path.relpath(old / name, new)).as_posix()
        except ValueError:  # another drive of Windows
            return (old / name).as_posix()

    def data(self) -> list[_Row]:
        why, on = "TRAINING_XVAL: NO", self.parameters.is_on("TRAINING_XVAL")
        return [
            *self.file("train", "TRAINING_DATA"),
            *self.file("validation", "XVAL_DATA", on=on, why=why),
            *self.row("validation_size", "XVAL_SIZE", on=on, why=why),
            *self.file("test", "TESTING_DATA"),
        ]

    def labels(self) -> list[_Row]:
        old = (
            "OUTPUT_NAMES: " if "OUTPUT_NAMES" in self.parameters.values else "no OUTPUT_NAMES; in their order always "
        )
        return [
            _Row("names", self.names, old + ", ".join(self.parameters.names)),
            _Row("units", tuple(unit_of(name) for name in self.names), "the usual ones; ANNA.param has none"),
            *self.row("low", "MIN_PARAMS"),
            *self.row("high", "MAX_PARAMS"),
        ]

    def network(self) -> list[_Row]:
        return [
            _Row("architecture", "anna", "the network of the old program"),
            *self.row("kernel", "CONV1_SHAPE", item=1),
            *self.row("filters", "CONV1_SHAPE", item=3),
            *self.row("fc1", "FC1_OUTDIM"),
            *self.row("fc2", "FC2_OUTDIM"),
            _Row("standardize", False, "the old program took the flux as it was"),
        ]

    def augmentation(self) -> list[_Row]:
        why, on = "PREPROCESS_TRAIN: NO", self.parameters.is_on("PREPROCESS_TRAIN")
        rows = [
            *self.row("snr", "SN_RANGE_TRAIN", on=on, why=why),
            *self.file("snr_template", "SN_TEMPLATE", on=on, why=why),
            *self.row("continuum_offset", "REL_CONT_E_TRAIN", on=on, why=why),
        ]
        note = "true: multiply the noise, not the S/N, by the template, as the old program did"
        return [*rows[:2], _Row("legacy_noise", self.legacy_noise, note, on), *rows[2:]] if rows else []

    def stage(self, number: str) -> list[_Row]:
        return [
            *self.row("learning_rate", f"LEARN_RATE{number}"),
            *self.row("steps", f"NUM_TRAIN_ITERS{number}"),
            *self.row("batch_size", f"BATCH_SIZE{number}"),
            *self.row("keep_probability", f"KEEP_PROB{number}"),
        ]

    def validation(self) -> list[_Row]:
        return [
            *self.row("interval", "SAMPLE_INTERVAL"),
            *self.row("patience", "ES_SAMPLE", on=self.parameters.is_on("EARLY_STOP"), why="EARLY_STOP: NO"),
            *self.row("augment", "PREPROCESS_XVAL"),
        ]

    def run(self) -> list[_Row]:
        return [
            *self.file("directory", "SAVE_LOC"),
            *self.row("tensorboard", "TBOARD_OUTPUT"),
            *self.row("trace", "TIMELINE_OUTPUT"),
        ]
