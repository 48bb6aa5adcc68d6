"""One door for every file of the old ANNA: what it is shows in its content, what it becomes in the new name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anna_onnx.errors import LegacyError
from anna_onnx.legacy.binary import binary_to_hdf5, hdf5_to_binary
from anna_onnx.legacy.parameters import read_parameters, standard_names
from anna_onnx.progress import Progress, silent
from anna_onnx.trial import HDF5_SIGNATURE, is_hdf5

Kind = Literal["training set in HDF5", "binary training file", "ANNA.param", "frozen.model"]
_TEXT_CONTROLS = b"\t\n\r\f"


@dataclass(frozen=True)
class Options:
    """What the user may say about a conversion; each conversion takes what concerns it.

    Attributes
    ----------
    params : path-like, optional
        ANNA.param with names and ranges of the labels.
    labels : sequence of str, optional
        Names of the labels, before those of `params`.
    keep_names : bool
        Keep old names (``temperature``) instead of the standard ones (``teff``).
    medium : {'air', 'vacuum'}, optional
        Of the wavelengths; air is assumed, and said, when it is not given.
    dtype : {'auto', 'f4', 'f8'}
        Of the flux in HDF5.
    dummy : {'dummy', 'rv'}
        Column of ``/aux`` for the dummy entry of a binary file.
    wavelengths : path-like, optional
        Text file or training set with the pixels of a frozen.model.
    test_stats : path-like, optional
        test_stats.out with the errors of a frozen.model.
    force : bool
        Replace a parameter file that is there, which somebody may have edited.
    """

    params: str | os.PathLike[str] | None = None
    labels: Sequence[str] | None = None
    keep_names: bool = False
    medium: Literal["air", "vacuum"] | None = None
    dtype: Literal["auto", "f4", "f8"] = "auto"
    dummy: Literal["dummy", "rv"] = "dummy"
    wavelengths: str | os.PathLike[str] | None = None
    test_stats: str | os.PathLike[str] | None = None
    force: bool = False


def convert(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    options: Options | None = None,
    *,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Convert a file of the old ANNA, or a training set back to it.

    ========================  ==============================
    old                       new
    ========================  ==============================
    binary training file      ``.h5``
    training set in HDF5      ``.bin``
    ANNA.param                ``.toml``
    frozen.model              ``.onnx``, with ``.h5`` beside
    ========================  ==============================

    Parameters
    ----------
    old, new : path-like
    options : Options, optional
    progress : Progress

    Returns
    -------
    notes : tuple of str
        What was assumed, dropped or found, for a person to read.

    Raises
    ------
    LegacyError
        If `old` is damaged, or cannot become `new`.
    """
    old, new = Path(old), Path(new)
    kind = identify(old)
    suffix, convert_one = _CONVERSIONS[kind]
    if new.suffix.lower() not in suffix:
        raise LegacyError(f"{old}: {kind}, which becomes a file *{suffix[0]}, not {new.name}")
    if new.exists() and new.samefile(old):
        raise LegacyError(f"{new}: the new file would replace the old one")
    return convert_one(old, new, options or Options(), progress)


def identify(path: str | os.PathLike[str]) -> Kind:
    """Say what a file is, by its first bytes.

    Raises
    ------
    LegacyError
        If it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise LegacyError(f"{path}: cannot be read ({error.strerror})") from error
    if head.startswith(HDF5_SIGNATURE):
        return "training set in HDF5"
    if head and all(byte >= 0x20 or byte in _TEXT_CONTROLS for byte in head):
        return "ANNA.param"
    # A GraphDef begins with field 1, a message: the first node, itself beginning with field 1, its name.
    # A binary training file begins with a small whole number as float64, whose first byte is zero.
    return "frozen.model" if head[:1] == b"\n" else "binary training file"


def _from_binary(old: Path, new: Path, options: Options, progress: Progress) -> tuple[str, ...]:
    names, low, high = options.labels, None, None
    notes = []
    if options.params is not None:
        parameters = read_parameters(options.params)
        names = names or parameters.names
        low, high = parameters.values.get("MIN_PARAMS"), parameters.values.get("MAX_PARAMS")
    if names is None:
        notes.append("labels: named label_0, label_1, ...: give --params ANNA.param or --labels teff,logg,...")
    training_set = binary_to_hdf5(
        old,
        new,
        None if names is None else standard_names(names, options.keep_names),
        low=low,
        high=high,
        medium=options.medium or "air",
        dtype=options.dtype,
        dummy=options.dummy,
        progress=progress,
    )
    if options.medium is None:
        notes.append("wavelengths: taken to be in air, which a .bin does not say: --medium vacuum if they are not")
    return (repr(training_set), f"flux: stored as {training_set.flux.dtype}", *notes)


def _to_binary(old: Path, new: Path, options: Options, progress: Progress) -> tuple[str, ...]:
    return hdf5_to_binary(old, new, progress=progress)


def _from_parameters(old: Path, new: Path, options: Options, progress: Progress) -> tuple[str, ...]:
    from anna_onnx.legacy.translation import convert_parameters

    if new.exists() and not options.force:
        raise LegacyError(f"{new}: is there already; --force replaces it")
    return convert_parameters(old, new, options.labels, keep_names=options.keep_names)


def _from_frozen(old: Path, new: Path, options: Options, progress: Progress) -> tuple[str, ...]:
    from anna_onnx.legacy.models import convert_frozen

    if options.params is None or options.wavelengths is None:
        raise LegacyError(
            f"{old}: frozen.model says neither what its labels are nor where its pixels lie: "
            "give --params ANNA.param and --wavelengths wavelength.template"
        )
    notes = convert_frozen(
        old,
        new,
        options.params,
        options.wavelengths,
        names=options.labels,
        keep_names=options.keep_names,
        medium=options.medium or "air",
        test_stats=options.test_stats,
    )
    pixels = Path(options.wavelengths)
    if options.medium is None and not is_hdf5(pixels):
        notes += (f"{pixels}: wavelengths taken to be in air, which it does not say: --medium vacuum if they are not",)
    return notes


_Conversion = Callable[[Path, Path, Options, Progress], tuple[str, ...]]
_CONVERSIONS: dict[Kind, tuple[tuple[str, ...], _Conversion]] = {
    "binary training file": ((".h5", ".hdf5"), _from_binary),
    "training set in HDF5": ((".bin",), _to_binary),
    "ANNA.param": ((".toml",), _from_parameters),
    "frozen.model": ((".onnx",), _from_frozen),
}
