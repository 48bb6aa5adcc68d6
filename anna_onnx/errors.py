"""Errors that are the user's to mend, each a letter to the user.

::

    AnnaError
    ├── ReadError              a file cannot be read as what it should be
    │   ├── NoWavelengthError  it holds flux, but nothing says at which wavelengths
    │   └── UnknownLayoutError  it is sound, but of a layout that no reader understands
    ├── SpectrumError          arrays that do not make a spectrum
    ├── TrainingSetError       a training set that cannot be trained on
    ├── GridError              a grid of synthetic spectra that cannot be drawn from
    ├── LegacyError            a file of the old ANNA that cannot be converted
    ├── BundleError            model.onnx and model.h5 that cannot be trusted
    │   ├── VersionError       written by a newer major version of the format
    │   └── SidecarMismatchError  model.h5 belongs to another model.onnx
    ├── ConfigError            params.toml; carries every problem found
    ├── ResultError            a table, or another file, that cannot be written
    ├── TrainingError          a run that cannot start or go on
    ├── StoppedError           a run, or a search, that was asked to stop
    └── MissingExtraError      an optional dependency that is not installed

The commands print an ``AnnaError`` as one line and exit with status 1.
Anything else that escapes is a bug of ours and looks like one.
"""

from __future__ import annotations

from collections.abc import Sequence


class AnnaError(Exception):
    """Something the user can mend; the message says which file, what was found, what was needed."""


class ReadError(AnnaError):
    """A file cannot be read as what it should be."""


class NoWavelengthError(ReadError):
    """A file holds flux, but nothing in it says at which wavelengths."""


class UnknownLayoutError(ReadError):
    """A file is sound, but of a layout that no reader understands."""


class SpectrumError(AnnaError):
    """Arrays do not make a spectrum."""


class TrainingSetError(AnnaError):
    """A training set cannot be read or trained on."""


class GridError(AnnaError):
    """A grid of synthetic spectra cannot be read or drawn from."""


class LegacyError(AnnaError):
    """A file of the old ANNA cannot be converted."""


class BundleError(AnnaError):
    """A bundle cannot be read or trusted."""


class VersionError(BundleError):
    """A file was written by a newer major version of its format."""


class SidecarMismatchError(BundleError):
    """A sidecar belongs to another network file."""


class ConfigError(AnnaError):
    """Problems of a parameter file, all of them together.

    Parameters
    ----------
    source : str
        Where the parameters came from, usually a file name.
    problems : sequence of str
        One line for each problem.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n  ".join([f"{source}: {_count(len(self.problems))}", *self.problems]))


class ResultError(AnnaError):
    """A result table, or another file, cannot be written."""


class TrainingError(AnnaError):
    """A training run cannot start or go on."""


class StoppedError(AnnaError):
    """A training run, or a search for parameters, was asked to stop; it can go on."""


class MissingExtraError(AnnaError):
    """An optional dependency is needed that is not installed.

    Parameters
    ----------
    purpose : str
        What needs it: the subject of the sentence.
    extra : str
        The extra of ``anna-onnx`` that brings it.
    """

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the extra '{extra}': pip install 'anna-onnx[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's error says, cut at 200 characters; without words, its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _count(n: int) -> str:
    return "1 problem" if n == 1 else f"{n} problems"
