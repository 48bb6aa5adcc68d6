"""ANNA.param, the parameter file of the old ANNA, read and checked.

Two dialects exist: the manual's tells inference what to do with ``DEBUG_MODE``
and ``SINGLE_MS_MODE``, the last release's with ``INFER_MODE``, and only the latter
has ``OUTPUT_NAMES`` and ``TEXT_IMAGE``. Both are understood, mixed ones too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anna_onnx.errors import LegacyError
from anna_onnx.labels import KNOWN, canonical, nearest

# --- values -------------------------------------------------------------------
# Each reader returns the value of a key or raises ValueError with what was needed.


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) == 0:
        raise ValueError("needed a whole number above zero")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("needed a number") from None
    if not math.isfinite(value):
        raise ValueError("needed a finite number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError("needed a number above zero")
    return value


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise ValueError("needed a number above 0 and not above 1")
    return value


def _switch(text: str) -> bool:
    if text.upper() not in ("YES", "NO"):
        raise ValueError("needed YES or NO")
    return text.upper() == "YES"


def _text(text: str) -> str:
    return text


def _items(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise ValueError("needed items with commas between them")
    return items


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(item) for item in _items(text))


def _range(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError("needed two numbers, the lower one first")
    return values


def _snr_range(text: str) -> tuple[float, ...]:
    values = _range(text)
    if values[0] <= 0:
        raise ValueError("needed numbers above zero")
    return values


def _convolution(text: str) -> tuple[int, ...]:
    shape = tuple(_count(item) for item in _items(text))
    if len(shape) != 4 or shape[0] != 1 or shape[2] != 1:
        raise ValueError("needed 1, kernel width, 1, number of kernels")
    return shape


# --- keys ---------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One key of ANNA.param and what becomes of it.

    Attributes
    ----------
    name : str
    read : callable
        Turns the text behind the colon into a value, or raises ValueError.
    target : str
        What takes its place, in params.toml or on a command line; empty when it is dropped.
    note : str
        How to understand it now, or why it is dropped.
    """

    name: str
    read: Callable[[str], Any]
    target: str
    note: str = ""


_TEST_NOISE = "the test set gets the noise and continuum errors of the training"
_ANY_FILE = "'anna-lite infer' sees for itself what kind of file it is given"

KEYS = (
    Key("NUM_PX", _count, "", "the training set says how many pixels it has"),
    Key("CONV1_SHAPE", _convolution, "network.kernel, network.filters", "the second and the fourth number"),
    Key("FC1_OUTDIM", _count, "network.fc1"),
    Key("FC2_OUTDIM", _count, "network.fc2"),
    Key("NUM_OUTS", _count, "", "there are as many outputs as names in labels.names"),
    Key("LEARN_RATE1", _positive, "stage.learning_rate", "first [[stage]]"),
    Key("NUM_TRAIN_ITERS1", _count, "stage.steps", "first [[stage]]"),
    Key("BATCH_SIZE1", _count, "stage.batch_size", "first [[stage]]"),
    Key("KEEP_PROB1", _probability, "stage.keep_probability", "first [[stage]]"),
    Key("DO_TRAIN2", _switch, "stage", "with YES there is a second [[stage]]"),
    Key("LEARN_RATE2", _positive, "stage.learning_rate", "second [[stage]]"),
    Key("NUM_TRAIN_ITERS2", _count, "stage.steps", "second [[stage]]"),
    Key("BATCH_SIZE2", _count, "stage.batch_size", "second [[stage]]"),
    Key("KEEP_PROB2", _probability, "stage.keep_probability", "second [[stage]]"),
    Key("PREPROCESS_TRAIN", _switch, "augmentation", "with NO its lines are commented out"),
    Key("REL_CONT_E_TRAIN", _range, "augmentation.continuum_offset", "added to the flux, constant in a spectrum"),
    Key("SN_RANGE_TRAIN", _snr_range, "augmentation.snr"),
    Key("SN_TEMPLATE", _text, "augmentation.snr_template", "multiplies the S/N, as the manual says; see legacy_noise"),
    Key("NUM_FETCH", _count, "", "each batch is drawn when it is needed; nothing is fetched in portions"),
    Key("TRAINING_DATA", _text, "data.train"),
    Key("SAVE_LOC", _text, "run.directory", "each run gets a folder of its own in it"),
    Key("OUTPUT_NAMES", _items, "labels.names, labels.units", "by the field's standard names unless they are kept"),
    Key("MIN_PARAMS", _numbers, "labels.low"),
    Key("MAX_PARAMS", _numbers, "labels.high"),
    Key("SAMPLE_INTERVAL", _count, "validation.interval"),
    Key("PP_THREADS", _count, "", "batches are made as whole arrays; loader.workers adds processes where that helps"),
    Key("MAX_PP_DEPTH", _count, "", "there is no queue; loader.prefetch says how many batches wait"),
    Key("LOG_LOC", _text, "", "the logs of a run lie in its folder, beneath run.directory"),
    Key("TIMELINE_OUTPUT", _switch, "run.trace"),
    Key("TBOARD_OUTPUT", _switch, "run.tensorboard"),
    Key("TRAINING_XVAL", _switch, "data.validation", "with NO the line is commented out"),
    Key("XVAL_DATA", _text, "data.validation"),
    Key("XVAL_SIZE", _count, "data.validation_size"),
    Key("XV_THREADS", _count, "", "the validation set is prepared once, at the start"),
    Key("PREPROCESS_XVAL", _switch, "validation.augment", "the noise is drawn once, not anew at every look"),
    Key("EARLY_STOP", _switch, "validation.patience", "with NO 0, which never stops"),
    Key("ES_SAMPLE", _count, "validation.patience"),
    Key("TEST_MODEL_LOC", _text, "anna test MODEL"),
    Key("TEST_SAVE_LOC", _text, "anna test -o DIR"),
    Key("TESTING_DATA", _text, "data.test", "or anna test DATA"),
    Key("PREPROCESS_TEST", _switch, "", _TEST_NOISE),
    Key("REL_CONT_E_TEST", _range, "", _TEST_NOISE),
    Key("SN_RANGE_TEST", _snr_range, "", _TEST_NOISE),
    Key("SN_TEMPLATE_TEST", _text, "", _TEST_NOISE),
    Key("DEBUG_MODE", _switch, "", _ANY_FILE),
    Key("SINGLE_MS_MODE", _switch, "", _ANY_FILE),
    Key("INFER_MODE", _text, "", _ANY_FILE),
    Key("DEBUG_DATA", _text, "anna-lite infer SPECTRA"),
    Key("MS_FITS_IMAGE", _text, "anna-lite infer SPECTRA"),
    Key("TEXT_IMAGE", _text, "anna-lite infer SPECTRA"),
    Key("WAVE_TEMPLATE", _text, "anna convert --wavelengths", "for frozen.model; a new model knows its wavelengths"),
    Key("INFER_MODEL_LOC", _text, "anna-lite infer MODEL"),
    Key("INFER_SAVE_LOC", _text, "anna-lite infer -o FILE"),
)

KEYS_BY_NAME = {key.name: key for key in KEYS}

# What each part of the old program could not do without.
_REQUIRED = (
    "CONV1_SHAPE",
    "FC1_OUTDIM",
    "FC2_OUTDIM",
    "NUM_OUTS",
    "LEARN_RATE1",
    "NUM_TRAIN_ITERS1",
    "BATCH_SIZE1",
    "KEEP_PROB1",
    "TRAINING_DATA",
    "MIN_PARAMS",
    "MAX_PARAMS",
)
_REQUIRED_WHEN_ON = {
    "DO_TRAIN2": ("LEARN_RATE2", "NUM_TRAIN_ITERS2", "BATCH_SIZE2", "KEEP_PROB2"),
    "PREPROCESS_TRAIN": ("REL_CONT_E_TRAIN", "SN_RANGE_TRAIN", "SN_TEMPLATE"),
    "TRAINING_XVAL": ("XVAL_DATA", "XVAL_SIZE"),
    "EARLY_STOP": ("ES_SAMPLE",),
}

# What releases without OUTPUT_NAMES always inferred, and short names that they printed.
_NAMES_OF_EARLY_RELEASES = ("temperature", "gravity", "metallicity", "microturb", "rotvel")
_SHORT_NAMES = {"temp": "teff", "grav": "logg", "met": "feh", "vt": "vmic", "rot": "vsini", "rotv": "vsini"}


# --- reading ------------------------------------------------------------------


@dataclass(frozen=True)
class Parameters:
    """An ANNA.param.

    Attributes
    ----------
    path : Path
    values : mapping
        Key -> value; what the file does not mention is not in it.
    lines : mapping
        Key -> the line that sets it, counted from 1.
    """

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def is_on(self, switch: str) -> bool:
        """Say whether a switch is YES; one that the file does not mention is NO."""
        return bool(self.values.get(switch, False))

    @property
    def names(self) -> tuple[str, ...]:
        """The old names of the labels; numbered where nothing tells them."""
        n = self.values.get("NUM_OUTS", len(self.values.get("MIN_PARAMS", ())))
        default = tuple(f"label_{i}" for i in range(n))
        if n == len(_NAMES_OF_EARLY_RELEASES):
            default = _NAMES_OF_EARLY_RELEASES
        return tuple(self.values.get("OUTPUT_NAMES", default))


def read_parameters(path: str | os.PathLike[str]) -> Parameters:
    """Read an ANNA.param of either dialect.

    Raises
    ------
    LegacyError
        With every problem of the file and its line.
    """
    path = Path(path)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                name, value = _read_line(line, lines)
            except ValueError as error:
                problems.append((number, str(error)))
            else:
                values[name], lines[name] = value, number
    problems += _contradictions(values, lines)
    if problems or not values:
        _refuse(path, problems or [(1, "no KEY: value in it")])
    return Parameters(path, values, lines)


def _read_text(path: Path) -> str:
    """Return the text of a file; the old program never said an encoding, and Latin-1 reads what UTF-8 does not."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LegacyError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def check_trainable(parameters: Parameters) -> None:
    """Refuse parameters that lack what training needs, or hold what the new program cannot do.

    Raises
    ------
    LegacyError
        With every problem of the file.
    """
    values, lines = parameters.values, parameters.lines
    problems = [(0, f"{name}: missing") for name in _REQUIRED if name not in values]
    for switch, needed in _REQUIRED_WHEN_ON.items():
        if parameters.is_on(switch):
            missing = [name for name in needed if name not in values]
            problems += [(lines[switch], f"{switch}: YES, but {name} is missing") for name in missing]
    kernel = values["CONV1_SHAPE"][1] if "CONV1_SHAPE" in values else 1
    if kernel % 2 == 0:
        advice = f"take {kernel - 1} or {kernel + 1}, for a kernel with a middle"
        problems.append(
            (lines["CONV1_SHAPE"], f"CONV1_SHAPE: a kernel of {kernel} pixels, needed an odd number: {advice}")
        )
    if problems:
        _refuse(parameters.path, problems)


def _read_line(line: str, lines: Mapping[str, int]) -> tuple[str, Any]:
    name, colon, text = (part.strip() for part in line.partition(":"))
    if not colon:
        raise ValueError(f"'{line.strip()[:60]}': needed KEY: value")
    if name not in KEYS_BY_NAME:
        raise ValueError(f"{name[:60]}: unknown key{nearest(name, list(KEYS_BY_NAME))}")
    if name in lines:
        raise ValueError(f"{name}: again, line {lines[name]} has it already")
    if not text:
        raise ValueError(f"{name}: no value behind the colon")
    try:
        return name, KEYS_BY_NAME[name].read(text)
    except ValueError as error:
        raise ValueError(f"{name}: '{text[:60]}', {error}") from None


def _contradictions(values: Mapping[str, Any], lines: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return what is wrong although every single value is right."""
    n = values.get("NUM_OUTS")
    problems = [
        (lines[name], f"{name}: {len(values[name])} items, NUM_OUTS says {n}")
        for name in ("OUTPUT_NAMES", "MIN_PARAMS", "MAX_PARAMS")
        if n is not None and len(values.get(name, range(n))) != n
    ]
    for i, (low, high) in enumerate(zip(values.get("MIN_PARAMS", ()), values.get("MAX_PARAMS", ()), strict=False)):
        if low >= high:
            problems.append(
                (lines["MAX_PARAMS"], f"MAX_PARAMS: {high:g} of label {i} is not above its minimum {low:g}")
            )
    return problems


def _refuse(path: Path, problems: Sequence[tuple[int, str]]) -> None:
    """Raise all problems together, by line; line 0 stands for the whole file."""
    listed = [f"line {line}: {what}" if line else what for line, what in sorted(problems)]
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    raise LegacyError("\n  ".join([f"{path}: {count}", *listed]))


# --- labels -------------------------------------------------------------------


def standard_names(names: Sequence[str], keep: bool = False) -> tuple[str, ...]:
    """Return the field's standard names of labels: ``temperature`` -> ``teff``.

    Parameters
    ----------
    names : sequence of str
    keep : bool
        Only take out what a name may not hold: ``[Fe/H]`` -> ``FeH``.

    Raises
    ------
    LegacyError
        If nothing is left of a name, or two become the same.
    """
    standard = tuple(_standard_name(name, keep) for name in names)
    for i, name in enumerate(standard):
        if not name.isidentifier():
            raise LegacyError(f"label '{names[i]}': a name needs letters, digits and underscores; say --labels")
        if name in standard[:i]:
            raise LegacyError(f"labels '{names[standard.index(name)]}' and '{names[i]}' are both {name}; say --labels")
    return standard


def _standard_name(name: str, keep: bool) -> str:
    plain = re.sub(r"\W", "", name)
    standard = _SHORT_NAMES.get(plain.lower(), canonical(plain))
    return plain if keep or standard not in KNOWN else standard
