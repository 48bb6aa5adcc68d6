"""``params.toml``: what to train, on what, and how, as frozen dataclasses.

The dataclasses below are the reference: each field states its meaning and
what it accepts, and the starter file of ``anna init`` and the documentation are
made from them. `load` reports every problem of a file at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anna_onnx.errors import ConfigError
from anna_onnx.labels import canonical, is_unit, nearest
from anna_onnx.medium import C_KMS

MOST_TEMPLATES = 10_000  # of the network aligned
Range = tuple[float, float]
Check = Callable[[Any], str]  # what is wrong with a value; "" when nothing


# --- checks -----------------------------------------------------------------


def positive(value: float) -> str:
    """Accept numbers above zero."""
    return "" if value > 0 else "must be positive"


def not_negative(value: float) -> str:
    """Accept zero and above."""
    return "" if value >= 0 else "must not be negative"


def fraction(value: float) -> str:
    """Accept 0 to 1."""
    return "" if 0 <= value <= 1 else "must lie between 0 and 1"


def probability(value: float) -> str:
    """Accept numbers above 0, up to 1."""
    return "" if 0 < value <= 1 else "must lie above 0 and not above 1"


def ordered(value: Range) -> str:
    """Accept a range whose ends ascend."""
    return "" if value[0] <= value[1] else "the first number must not exceed the second"


def positive_range(value: Range) -> str:
    """Accept an ordered range above zero."""
    return ordered(value) or positive(value[0])


def fraction_range(value: Range) -> str:
    """Accept an ordered range within 0 and 1."""
    return "" if 0 <= value[0] <= value[1] <= 1 else "must be two numbers from 0 to 1, in order"


def lost_range(value: Range) -> str:
    """Accept an ordered range within 0 and 1 that leaves some pixels."""
    return fraction_range(value) or ("" if value[0] < 1 else "leaves no pixel")


def kept_range(value: Range) -> str:
    """Accept an ordered range within 0 and 1, some pixels being kept."""
    return fraction_range(value) or ("" if value[1] > 0 else "leaves no pixel")


def not_negative_range(value: Range) -> str:
    """Accept an ordered range from zero up."""
    return ordered(value) or not_negative(value[0])


def velocities(value: Range) -> str:
    """Accept an ordered range of velocities, slower than light."""
    return ordered(value) or ("" if max(map(abs, value)) < C_KMS else "must be slower than light, in km/s")


def rotations(value: Range) -> str:
    """Accept an ordered range from 0 to 1000, faster than any star rotates."""
    return "" if 0 <= value[0] <= value[1] <= 1000 else "must be two numbers from 0 to 1000, in order"


def deviation_range(value: Range) -> str:
    """Accept an ordered range above -1 and below 1."""
    return "" if -1 < value[0] <= value[1] < 1 else "must be two numbers above -1 and below 1, in order"


def correlation(value: Range) -> str:
    """Accept an ordered range within 0 and 0.5."""
    return "" if 0 <= value[0] <= value[1] <= 0.5 else "must be two numbers from 0 to 0.5, in order"


def odd(value: int) -> str:
    """Accept positive odd numbers."""
    return "" if value > 0 and value % 2 else "must be a positive odd number"


def regions(value: tuple[Range, ...]) -> str:
    """Accept a list of ordered ranges."""
    return next((problem for problem in map(ordered, value) if problem), "")


def wavelengths(value: tuple[tuple[float, ...], ...]) -> str:
    """Accept lists of numbers above zero, none of them empty."""
    return "" if all(len(row) and min(row) > 0 for row in value) else "must be lists of wavelengths"


def halvings(value: int) -> str:
    """Accept 1 to 16."""
    return "" if 1 <= value <= 16 else "must lie between 1 and 16"


def one_of(*names: str) -> Check:
    """Accept one of some words."""
    return lambda value: "" if value in names else f"must be one of {', '.join(names)}{nearest(str(value), names)}"


def option(default: Any, help: str, check: Check | None = None) -> Any:
    """Declare a field: its default, what it means, and what it accepts."""
    metadata = {"help": help, "check": check}
    return field(default=default, metadata=metadata)


# --- the tables of params.toml ------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Where the spectra are. File names are relative to the parameter file."""

    train: tuple[str, ...] = option((), "training set: .h5 or legacy .bin; several files make one set")
    grid: str | None = option(None, "instead of train: a grid of synthetic spectra to draw from, or 'default'")
    validation: str | None = option(
        None, "validation set; without it, validation_size spectra are split off from train"
    )
    validation_size: int = option(0, "how many spectra validate (0: all of the validation set, or none)", not_negative)
    test: str | None = option(None, "test set, the default of 'anna test'")
    wavelength: tuple[float, ...] = option((), "with grid: first, last and step of the pixels in Angstrom")
    medium: str = option("air", "with grid: of the wavelengths, air or vacuum", one_of("air", "vacuum"))
    fwhm: float | None = option(None, "with grid: width of the instrumental profile in Angstrom", not_negative)
    resolution: float | None = option(None, "with grid: resolving power of the instrument, instead of fwhm", positive)
    radial_velocity: Range = option((0.0, 0.0), "with grid: range of the radial velocity in km/s", velocities)
    beyond: float = option(
        0.0, "with grid: share of the stars drawn as far as labels.lowest and highest, to tell such stars", fraction
    )
    radial_velocity_column: str | None = option(
        None, "with train: column of aux with the radial velocities in km/s (default: rv); of a .bin perhaps dummy"
    )
    memory: float = option(
        4.0, "gigabytes of spectra that may be held in memory; a larger set is memory-mapped", positive
    )
    balance: str | None = option(None, "a label whose range is drawn evenly although the set is not")
    label_errors: bool = option(False, "weigh each label by its error, aux/e_<label> of the training set")


@dataclass(frozen=True)
class Labels:
    """What to infer. Everything left out is taken from the training set."""

    names: tuple[str, ...] = option((), "names, such as teff, logg, feh; a subset of the training set's")
    units: tuple[str, ...] = option((), "units in astropy's spelling")
    low: tuple[float, ...] = option((), "values that scale to 0 (default: the least of the training set)")
    high: tuple[float, ...] = option((), "values that scale to 1 (default: the greatest of the training set)")
    lowest: tuple[float, ...] = option((), "with data.beyond: how far below low the grid is continued (default: low)")
    highest: tuple[float, ...] = option((), "with data.beyond: how far above high (default: high)")


@dataclass(frozen=True)
class Anna:
    """The network of the old program: one convolution, two dense layers."""

    kernel: int = option(45, "pixels of the convolution", odd)
    filters: int = option(10, "channels of the convolution", positive)
    fc1: int = option(128, "units of the first dense layer", positive)
    fc2: int = option(128, "units of the second dense layer", positive)


@dataclass(frozen=True)
class Aligned:
    """Finds the radial velocity, shifts the spectrum to rest, and has residual dense layers there."""

    velocities: Range = option(
        (-120.0, 120.0), "velocities to search in km/s, some more than the training set's", velocities
    )
    velocity_step: float = option(5.0, "between the velocities of the templates, less than a line is wide", positive)
    ignore: tuple[Range, ...] = option(
        (), "regions at rest, in Angstrom, not to look at, such as lines that the grid lacks", regions
    )
    width: int = option(512, "units of the first dense layer", positive)
    hidden: int = option(512, "units within a residual block", positive)
    blocks: int = option(2, "residual blocks", positive)
    stretch: int = option(
        4, "pixels whose missing ones are counted together, at best no more than a line has", positive
    )
    components: int = option(
        16, "of the spectra, by which missing pixels are filled in; 0: with the mean", not_negative
    )


@dataclass(frozen=True)
class Compact:
    """A deep residual network whose size hardly grows with the number of pixels."""

    width: int = option(32, "channels of the first stage; doubled at every second stage", positive)
    stages: int = option(5, "stages, each halving the number of pixels", halvings)
    blocks: int = option(1, "residual blocks in a stage", positive)
    kernel: int = option(7, "pixels of a convolution", odd)
    pooled: int = option(8, "positions kept by the pooling before the dense layers", positive)
    dense: int = option(256, "units of the dense layer", positive)


@dataclass(frozen=True)
class Starnet:
    """The layout of StarNet (Fabbro et al. 2018, MNRAS 475, 2978)."""

    kernel: int = option(8, "pixels of both convolutions", positive)
    filters1: int = option(4, "channels of the first convolution", positive)
    filters2: int = option(16, "channels of the second convolution", positive)
    pool: int = option(4, "pixels of the max-pooling", positive)
    fc1: int = option(256, "units of the first dense layer", positive)
    fc2: int = option(128, "units of the second dense layer", positive)


ARCHITECTURES: Mapping[str, type[Any]] = {"aligned": Aligned, "anna": Anna, "compact": Compact, "starnet": Starnet}


@dataclass(frozen=True)
class Network:
    """The network. The sizes that an architecture takes stand in the same table."""

    architecture: str = option("anna", "one of aligned, anna, compact, starnet", one_of(*ARCHITECTURES))
    uncertainty: bool = option(False, "infer a sigma for every label too (Gaussian likelihood)")
    covariance: bool = option(
        False, "infer how the errors of the labels correlate too (multivariate Gaussian likelihood); needs uncertainty"
    )
    members: int = option(1, "networks trained together whose mean is the answer", positive)
    standardize: bool = option(True, "subtract the mean training spectrum and divide by the spread")
    sizes: Aligned | Anna | Compact | Starnet = Anna()


@dataclass(frozen=True)
class Augmentation:
    """What is done to each spectrum anew whenever it is drawn; each off unless given."""

    snr: Range | None = option(None, "range of the signal-to-noise ratio", positive_range)
    snr_spacing: str = option("even", "how the S/N is drawn from its range: even, or log", one_of("even", "log"))
    snr_template: str | None = option(None, "two columns, wavelength and relative S/N, by which the S/N is multiplied")
    legacy_noise: bool = option(False, "multiply the noise, not the S/N, by the template, as the old program did")
    file_noise: bool = option(False, "noise from the training set's own sigma, instead of or besides snr")
    residuals: str | None = option(None, "HDF5 or .bin file of residual spectra (continuum 0) to add as real noise")
    noise_correlation: Range | None = option(
        None, "range of the correlation between the noise of neighbouring pixels, at most 0.5", correlation
    )
    noise_outliers: Range | None = option(None, "range of the share of pixels of fourfold noise", fraction_range)
    continuum_offset: Range | None = option(None, "range of a constant error of the continuum", ordered)
    continuum_slope: Range | None = option(None, "range of the error between centre and end of the spectrum", ordered)
    continuum_curvature: Range | None = option(None, "amplitudes of Legendre terms 2 to 4", ordered)
    continuum_waves: Range | None = option(None, "range of the amplitude of waves in the continuum", not_negative_range)
    continuum_mode: str = option("additive", "additive or multiplicative", one_of("additive", "multiplicative"))
    line_errors: Range | None = option(
        None, "range of the relative error (rms) of the strengths of lines", not_negative_range
    )
    species: tuple[tuple[float, ...], ...] = option(
        (),
        "wavelengths of the lines at rest, in Angstrom, a list for each element whose lines may be wrong together",
        wavelengths,
    )
    species_errors: Range | None = option(
        None,
        "range of the relative error (rms) of the strengths of all the lines of an element together",
        not_negative_range,
    )
    unknown_lines: float | None = option(None, "mean number of absorption lines that the training set lacks", positive)
    unknown_line_depth: float = option(0.01, "their mean depth", positive)
    line_width: float = option(0.6, "width (FWHM) of an observed line in Angstrom, for the errors of lines", positive)
    profile_errors: Range | None = option(
        None, "range of the relative error of the instrumental profile's width, which is line_width", deviation_range
    )
    scattered_light: Range | None = option(
        None, "range of scattered light, as a fraction of the continuum", deviation_range
    )
    imperfect: float = option(
        1.0,
        "share of the spectra with errors of lines and profile, scattered light, waves, noise that is not white",
        probability,
    )
    radial_velocity: Range | None = option(None, "range of a Doppler shift in km/s", velocities)
    vsini: Range | None = option(None, "range of an additional rotation in km/s", rotations)
    resolution: Range | None = option(None, "range of the resolving power to degrade to", positive_range)
    spectrum_resolution: float | None = option(None, "the training set's own resolving power, for resolution", positive)
    cosmic_rays: float | None = option(None, "mean number of cosmic rays in a spectrum", positive)
    missing_pixels: Range | None = option(None, "range of the fraction of single pixels that are missing", lost_range)
    gaps: Range | None = option(None, "range of the fraction of pixels in one missing gap", lost_range)
    coverage: Range | None = option(
        None, "range of the fraction of the pixels covered; the rest is missing", kept_range
    )
    incomplete: float = option(1.0, "share of the spectra that lose pixels, gaps or coverage at all", probability)
    bad_columns: tuple[int, ...] = option((), "pixels that are always missing, counted from 0")
    mask: tuple[Range, ...] = option((), "wavelength regions that are always missing, such as telluric bands", regions)


@dataclass(frozen=True)
class Stage:
    """One stage of training."""

    learning_rate: float = option(1e-3, "the largest learning rate", positive)
    steps: int = option(6000, "number of batches", positive)
    batch_size: int = option(100, "spectra in a batch", positive)
    keep_probability: float = option(1.0, "of a unit in the dense layers; below 1 is dropout", probability)
    schedule: str = option(
        "constant", "of the learning rate: constant, cosine, onecycle or plateau",
        one_of("constant", "cosine", "onecycle", "plateau"),
    )  # fmt: skip
    warmup: int = option(0, "steps in which the learning rate rises from zero; onecycle rises by itself", not_negative)
    optimizer: str = option("adam", "adam or adamw", one_of("adam", "adamw"))
    weight_decay: float = option(0.0, "for adamw", not_negative)
    gradient_clip: float | None = option(None, "largest norm of the gradient", positive)
    average: float | None = option(None, "decay of a moving average of the weights, such as 0.999", fraction)


@dataclass(frozen=True)
class Validation:
    """How training is watched, and when it stops."""

    interval: int = option(200, "steps between looks at the validation set", positive)
    patience: int = option(0, "looks without improvement after which training stops; 0: never", not_negative)
    augment: bool = option(True, "augment the validation set, once, from the seed")


@dataclass(frozen=True)
class Loader:
    """How batches are made."""

    workers: int = option(0, "processes that make batches; 0: in the training process", not_negative)
    prefetch: int = option(4, "batches that each worker makes ahead", positive)


@dataclass(frozen=True)
class Run:
    """Where a run lives and what it uses."""

    directory: str = option("runs", "folder in which each run gets a folder of its own")
    device: str = option("auto", "auto, cpu, cuda or mps", one_of("auto", "cpu", "cuda", "mps"))
    precision: str = option(
        "auto", "auto, float32, bfloat16 or float16", one_of("auto", "float32", "bfloat16", "float16")
    )
    threads: int = option(0, "CPU threads; 0: OMP_NUM_THREADS, else as many as the process may use", not_negative)
    compile: bool = option(False, "compile the network with torch.compile: for GPUs; measured slower on CPUs")
    tensorboard: bool = option(True, "write TensorBoard charts")
    trace: bool = option(False, "write a Chrome trace of some training steps")
    checkpoint_interval: int = option(1000, "steps between checkpoints", positive)


@dataclass(frozen=True)
class Tune:
    """What `anna tune` searches, and where it keeps what it found."""

    trials: int = option(50, "runs to try, of all workers together", positive)
    storage: str = option("tune.db", "SQLite file of the study; several workers share it")
    study: str = option("anna", "name of the study in that file")
    space: dict[str, Any] | None = option(
        None, "what to vary: 'stage.learning_rate' = { low = 1e-4, high = 1e-2, log = true }, 'network.fc1' = [64, 128]"
    )


@dataclass(frozen=True)
class Config:
    """A whole parameter file.

    Attributes
    ----------
    path : Path
        The parameter file; what it names is relative to its folder.
    text : str
        The file as written, for provenance.
    """

    seed: int = option(1, "of everything random: the same seed gives the same run", not_negative)
    data: Data = Data()
    labels: Labels = Labels()
    network: Network = Network()
    augmentation: Augmentation = Augmentation()
    stage: tuple[Stage, ...] = (Stage(),)
    validation: Validation = Validation()
    loader: Loader = Loader()
    run: Run = Run()
    tune: Tune = Tune()
    path: Path = field(default=Path("params.toml"), compare=False)
    text: str = field(default="", compare=False)

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stage)

    def resolve(self, name: str) -> Path:
        """Return the path of a file that the parameters name."""
        return self.path.parent / Path(name).expanduser()


def load(path: str | os.PathLike[str]) -> Config:
    """Read and check a parameter file.

    Raises
    ------
    ConfigError
        With every problem of the file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}"]) from error
    return loads(text, path)


def loads(text: str, path: Path = Path("params.toml")) -> Config:
    """Read and check the text of a parameter file; see `load`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"not TOML: {error}"]) from error
    problems: list[str] = []
    config: Config = _build(Config, table, "", problems)
    if not problems:
        problems += _contradictions(config)
    if problems:
        raise ConfigError(str(path), problems)
    return dataclasses.replace(config, path=path, text=text)


def dumps(table: Mapping[str, Any], where: str = "") -> str:
    """Return TOML text that reads back as `table`: the inverse of `tomllib.loads`, comments apart."""
    plain, tables = [], []
    for key, value in table.items():
        name = f"{where}.{_quote_key(key)}" if where else _quote_key(key)
        if isinstance(value, Mapping):
            tables.append(f"\n[{name}]\n{dumps(value, name)}")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            tables += [f"\n[[{name}]]\n{dumps(item, name)}" for item in value]
        else:
            plain.append(f"{_quote_key(key)} = {value_text(value)}\n")
    return "".join(plain + tables)


def _quote_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def value_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_quote_key(key)} = {value_text(item)}' for key, item in value.items())} }}"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's too
    return json.dumps(value, ensure_ascii=False)  # true, 1, "text" are the same in both


def _build(kind: type[Any], table: Mapping[str, Any], where: str, problems: list[str]) -> Any:
    """Make a dataclass of a TOML table; what is wrong is added to `problems`."""
    if kind is Network:
        table = _nest_sizes(table)
    fields = {item.name: item for item in dataclasses.fields(kind) if item.name not in ("path", "text")}
    values = {}
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        if key not in fields:
            problems.append(f"{name}: unknown key{nearest(key, list(fields))}")
            continue
        if key == "sizes":
            values[key] = _build(ARCHITECTURES.get(table.get("architecture", "anna"), Anna), value, where, problems)
            continue
        try:
            converted = _convert(value, typing.get_type_hints(kind)[key], name, problems)
        except TypeError as error:
            problems.append(f"{name}: {value!r} {error}")
            continue
        check = fields[key].metadata.get("check")
        if check and converted is not None and (problem := check(converted)):
            problems.append(f"{name}: {value!r} {problem}")
        else:
            values[key] = converted
    return kind(**values)


def _nest_sizes(table: Mapping[str, Any]) -> dict[str, Any]:
    """Move the keys that only one architecture knows into a table of their own."""
    common = {item.name for item in dataclasses.fields(Network)} - {"sizes"}
    nested = {key: value for key, value in table.items() if key in common}
    return {**nested, "sizes": {key: value for key, value in table.items() if key not in common}}


def _convert(value: Any, hint: Any, name: str, problems: list[str]) -> Any:
    """Return a TOML value as the type that a field has; TypeError says what was needed."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _convert(value, arguments[0], name, problems)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise TypeError("must be a table")
        return _build(typing.cast(type[Any], hint), value, name, problems)
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError("must be a table")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, name, problems)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise TypeError("must be finite")
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise TypeError(f"must be {_WORDS[hint]}")


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _convert_tuple(value: Any, arguments: tuple[Any, ...], name: str, problems: list[str]) -> tuple[Any, ...]:
    if arguments[-1] is Ellipsis:
        # One item may stand without its brackets: train = "a.h5".
        items = value if isinstance(value, list) else [value]
        if arguments[0] == Range and not all(isinstance(item, list) for item in items):
            raise TypeError("must be a list of ranges, such as [[6630, 6640]]")
        return tuple(_convert(item, arguments[0], f"{name}[{i}]", problems) for i, item in enumerate(items))
    if not isinstance(value, list) or len(value) != len(arguments):
        raise TypeError(f"must be a list of {len(arguments)}")
    return tuple(_convert(item, hint, name, problems) for item, hint in zip(value, arguments, strict=True))


def _contradictions(config: Config) -> Iterator[str]:
    """Yield what is wrong although every single value is right."""
    yield from _about_data(config.data, config.labels, config.augmentation)
    yield from _about_labels(config.labels)
    yield from _about_augmentation(config.augmentation)
    yield from _about_network(config.network)
    yield from _about_tune(config.tune)
    if not config.stage:
        yield "stage: needs at least one [[stage]]"


def _about_data(data: Data, labels: Labels, augmentation: Augmentation) -> Iterator[str]:
    """Yield what is wrong with where the spectra come from."""
    if bool(data.train) == bool(data.grid):
        yield "data: needs either train or grid"
    if data.grid and len(data.wavelength) != 3:
        yield "data.wavelength: a grid needs the first, last and step of the pixels, such as [6625, 6825, 0.2]"
    elif data.grid and not 0 < data.wavelength[2] <= data.wavelength[1] - data.wavelength[0]:
        yield f"data.wavelength: {list(data.wavelength)} must be first < last, and a step above zero"
    if data.grid and augmentation.file_noise:
        yield "augmentation.file_noise: a grid has no sigma, give snr"
    if data.grid and (data.fwhm is None) == (data.resolution is None):
        yield "data: a grid needs the instrument, either fwhm or resolution"
    if data.grid and (data.balance or data.label_errors):
        yield "data: balance and label_errors are for training sets, a grid is drawn evenly and exactly"
    if data.beyond and not data.grid:
        yield "data.beyond: is for a grid, a training set has the stars that it has"
    if bool(data.beyond) != bool(labels.lowest or labels.highest):
        yield "data.beyond and labels.lowest or labels.highest go together"
    if data.beyond and not (labels.low and labels.high):
        yield "data.beyond: needs labels.low and labels.high"


def _about_labels(labels: Labels) -> Iterator[str]:
    """Yield what is wrong with the labels among themselves."""
    names = [canonical(name) for name in labels.names]
    if twice := {name for name in names if names.count(name) > 1}:
        yield f"labels.names: {', '.join(sorted(twice))} is listed more than once"
    for unit in labels.units:
        if not is_unit(unit):
            yield f"labels.units: '{unit}' is no unit in astropy's spelling, such as K or km / s"
    for key in ("units", "low", "high", "lowest", "highest"):
        given = getattr(labels, key)
        if given and len(given) != len(labels.names):
            yield f"labels.{key}: {len(given)} values for {len(labels.names)} names"
    for name, low, high in zip(labels.names, labels.low, labels.high, strict=False):
        if low >= high:
            yield f"labels: low {low} of {name} is not below high {high}"
    for name, low, lowest in zip(labels.names, labels.low, labels.lowest, strict=False):
        if lowest > low:
            yield f"labels: lowest {lowest} of {name} is above low {low}"
    for name, high, highest in zip(labels.names, labels.high, labels.highest, strict=False):
        if highest < high:
            yield f"labels: highest {highest} of {name} is below high {high}"


def _about_augmentation(augmentation: Augmentation) -> Iterator[str]:
    """Yield what is wrong with the augmentation as a whole."""
    own = augmentation.spectrum_resolution
    if augmentation.resolution and own is None:
        yield "augmentation.resolution: needs spectrum_resolution, the training set's own resolving power"
    elif augmentation.resolution and own is not None and augmentation.resolution[0] >= own:
        yield f"augmentation.resolution: spectra of spectrum_resolution {own:g} cannot be degraded to a higher one"
    if bool(augmentation.species) != bool(augmentation.species_errors):
        yield "augmentation: species and species_errors go together"
    if augmentation.snr_template and not augmentation.snr:
        yield "augmentation.snr_template: needs snr"


def _about_network(network: Network) -> Iterator[str]:
    """Yield what is wrong with the network as a whole."""
    if isinstance(network.sizes, Aligned):
        low, high = network.sizes.velocities
        n_template = (high - low) / network.sizes.velocity_step
        if n_template > MOST_TEMPLATES:
            yield f"network.velocity_step: makes {n_template:.0f} templates, at most {MOST_TEMPLATES}"
    if network.covariance and not network.uncertainty:
        yield "network.covariance: needs uncertainty = true"


def _about_tune(tune: Tune) -> Iterator[str]:
    """Yield what is wrong with the space to search."""
    for name, choices in (tune.space or {}).items():
        if not (isinstance(choices, list) and choices) and not _is_interval(choices):
            yield (
                f"tune.space.{name}: needs a list of values, or low and high with low < high, both finite; "
                "with log = true both above 0 and no step"
            )


def _is_interval(choices: Any) -> bool:
    if not isinstance(choices, dict) or not {"low", "high"} <= set(choices) <= {"low", "high", "log", "step"}:
        return False
    low, high, step = choices["low"], choices["high"], choices.get("step")
    numbers = (low, high) if step is None else (low, high, step)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        return False
    return bool(low < high and (step is None or step > 0) and not (choices.get("log") and (low <= 0 or step)))
