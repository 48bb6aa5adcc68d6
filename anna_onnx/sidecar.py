"""The sidecar: what a network needs to be used, as the bytes of an HDF5 file that need not be honest."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx import hdf5
from anna_onnx.arrays import Float32Array
from anna_onnx.calibration import Calibration, Trends
from anna_onnx.errors import AnnaError, BundleError, VersionError, first_line
from anna_onnx.files import check_version
from anna_onnx.fit import FitLimits
from anna_onnx.guard import check_heaps
from anna_onnx.hull import Hull
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid

if TYPE_CHECKING:
    import h5py

FORMAT = "anna-sidecar"
FORMAT_VERSION = "2.0"
MAX_SIDECAR = 50_000_000  # bytes
MAX_LABELS = 1000
_DAMAGE = (ValueError, LookupError, ArithmeticError, struct.error, zlib.error)  # of a file that `hdf5` reads


@dataclass(frozen=True, eq=False)
class SelfTest:
    """A few spectra and what the training machine inferred for them.

    Attributes
    ----------
    flux : array of float32, shape (n, n_pixel)
    labels, sigma : arrays of float32, shape (n, n_label)
    """

    flux: Float32Array
    labels: Float32Array
    sigma: Float32Array


@dataclass(frozen=True, eq=False)
class Sidecar:
    """What a network needs to be used.

    Attributes
    ----------
    labels : tuple of Label
        In the order of the network's outputs.
    preparation : Preparation
        How a spectrum becomes input; holds the wavelength grid.
    calibration : Calibration or None
    trends : Trends or None
    novelty : Novelty or None
    fit_limits : FitLimits or None
    hull : Hull or None
    selftest : SelfTest or None
    provenance : mapping
        Anything that JSON can hold: parameters, hashes, versions, metrics, date.
    sha256 : str
        Of the network; filled in by `write`.
    """

    labels: tuple[Label, ...]
    preparation: Preparation
    calibration: Calibration | None = None
    trends: Trends | None = None
    novelty: Novelty | None = None
    fit_limits: FitLimits | None = None
    hull: Hull | None = None
    selftest: SelfTest | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def grid(self) -> Grid:
        """The wavelengths that the network sees."""
        return self.preparation.grid

    def to_bytes(self) -> bytes:
        """Return the sidecar as the bytes of an HDF5 file."""
        import h5py

        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": self.sha256})
            file.attrs["provenance"] = json.dumps(self.provenance)
            file.attrs["preparation"] = json.dumps(self.preparation.to_dict())
            wavelength = file.create_dataset("wavelength", data=self.grid.wavelength, **_packed(self.grid.wavelength))
            wavelength.attrs.update({"units": "Angstrom", "medium": self.grid.medium})
            for name in ("name", "unit", "ucd"):
                text = [getattr(label, name) for label in self.labels]
                file.create_dataset(f"labels/{name}", data=text, dtype=h5py.string_dtype())
            for name in ("low", "high"):
                file.create_dataset(f"labels/{name}", data=[getattr(label, name) for label in self.labels])
            for part in _PARTS:
                if (value := getattr(self, part)) is not None:
                    _store(file.create_group(part), value)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Sidecar:
        """Read a sidecar.

        Raises
        ------
        BundleError
            If it is damaged.
        VersionError
            If a newer major version wrote it.
        """
        try:
            sidecar = _read_sidecar(_root(content), where)
            sidecar.check()
        except VersionError:
            raise
        except AnnaError as error:
            raise BundleError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from error
        except (*_DAMAGE, TypeError, AttributeError) as error:
            raise BundleError(f"{where}: the sidecar is damaged ({first_line(error)})") from error
        return sidecar

    def check(self) -> None:
        """Refuse parts that do not fit together.

        Raises
        ------
        BundleError
        """
        names = [label.name for label in self.labels]
        if not 0 < len(names) == len(set(names)) <= MAX_LABELS:
            raise BundleError(f"{len(names)} labels, {len(set(names))} different ones")
        n_label, n_pixel = len(names), self.grid.n_pixel
        shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}  # found and needed
        if self.calibration is not None:
            shapes["calibration"] = self.calibration.factors.shape[1:2], (n_label,)
        if self.trends is not None:
            shapes["trends"] = self.trends.coefficients.shape[:1], (n_label,)
        if self.novelty is not None:
            shapes["novelty"] = self.novelty.mean.shape, (n_pixel,)
        if self.hull is not None and self.hull.n_label > n_label:
            raise BundleError(f"hull of {self.hull.n_label} labels, there are {n_label}")
        if (test := self.selftest) is not None:
            shapes["selftest flux"] = test.flux.shape, (len(test.flux), n_pixel)
            shapes["selftest labels"] = test.labels.shape, (len(test.flux), n_label)
            shapes["selftest sigma"] = test.sigma.shape, (len(test.flux), n_label)
        for part, (found, needed) in shapes.items():
            if found != needed or 0 in found:
                raise BundleError(f"{part} of shape {found}, needed {needed}")


def is_sidecar(content: bytes) -> bool:
    """Whether these are the bytes of a sidecar, of whatever version."""
    try:
        return _attribute(_root(content), "format") == FORMAT
    except (BundleError, *_DAMAGE):
        return False


_PARTS: Mapping[str, type[Any]] = {
    "calibration": Calibration,
    "trends": Trends,
    "novelty": Novelty,
    "fit_limits": FitLimits,
    "hull": Hull,
    "selftest": SelfTest,
}


def _store(group: h5py.Group, part: Any) -> None:
    """Write a dataclass of arrays and numbers: arrays as datasets, numbers as attributes."""
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if isinstance(value, np.ndarray):
            group.create_dataset(item.name, data=value, **_packed(value))
        else:
            group.attrs[item.name] = value


def _packed(values: NDArray[Any]) -> dict[str, Any]:
    """Return the h5py keywords that store an array in few bytes: in one piece, bytes of equal weight together."""
    if values.size <= 1000:
        return {}
    return {"chunks": values.shape, "shuffle": True, "compression": "gzip", "compression_opts": 9}


def _root(content: bytes) -> hdf5.Node:
    """Return the root of a file whose heaps are whole."""
    check_heaps(content)
    return hdf5.root(content)


def _read_sidecar(file: hdf5.Node, where: str) -> Sidecar:
    found = f"format '{_attribute(file, 'format')}'" if "format" in file.attributes else "no format is stated"
    if found != f"format '{FORMAT}'":
        advice = "; remove or rename it" if where.endswith(".h5") else ""  # it lies beside the model, not in it
        raise BundleError(f"{where}: not a sidecar of anna-onnx ({found}, needed '{FORMAT}'){advice}")
    version = _attribute(file, "format_version")
    check_version(version, FORMAT_VERSION, where)
    if "emulator" in file:  # until 1.1 spectra were compared with it here, and the thresholds were set for that
        raise VersionError(f"{where}: format_version {version}, needed {FORMAT_VERSION}: export the model anew")
    reader = _Reader(file)
    columns = {name: reader.numbers(f"labels/{name}") for name in ("low", "high")}
    texts = {name: reader.texts(f"labels/{name}") for name in ("name", "unit", "ucd")}
    labels = tuple(
        Label(name, float(low), float(high), unit, ucd)
        for name, low, high, unit, ucd in zip(
            texts["name"], columns["low"], columns["high"], texts["unit"], texts["ucd"], strict=True
        )
    )
    wavelength = reader.numbers("wavelength")
    grid = Grid(wavelength, _attribute(file["wavelength"], "medium"))  # type: ignore[arg-type]  # Grid checks it
    return Sidecar(
        labels=labels,
        preparation=Preparation.from_dict(_json(file, "preparation"), grid),
        provenance=_provenance(_json(file, "provenance")),
        sha256=_attribute(file, "sha256"),
        **{part: reader.part(part, kind) for part, kind in _PARTS.items() if part in file},
    )


class _Reader:
    """Read datasets of a file that need not be honest."""

    def __init__(self, file: hdf5.Node) -> None:
        self._file = file
        self._left = MAX_SIDECAR

    def part(self, name: str, kind: type[Any]) -> Any:
        """Return a dataclass that `_store` wrote."""
        values: dict[str, Any] = {}
        attributes = self._file[name].attributes
        for item in dataclasses.fields(kind):
            if (stored := attributes.get(item.name)) is None:
                values[item.name] = self.numbers(f"{name}/{item.name}")
                continue
            if stored.shape != () or stored.dtype is None:
                raise BundleError(f"{name}/{item.name} of shape {stored.shape}, needed a number")
            values[item.name] = stored.numbers().item()
        return kind(**values)

    def numbers(self, name: str) -> NDArray[Any]:
        """Return a dataset of floating-point numbers."""
        dataset = self._dataset(name)
        if dataset.dtype is None or dataset.dtype.kind != "f":
            raise BundleError(f"{name} holds {dataset.dtype or 'something else'}, needed floating-point numbers")
        return dataset.numbers()

    def texts(self, name: str) -> list[str]:
        """Return a dataset of texts."""
        dataset = self._dataset(name)
        if len(dataset.shape) != 1 or dataset.shape[0] > MAX_LABELS or not dataset.is_text:
            raise BundleError(f"{name} of shape {dataset.shape}, needed at most {MAX_LABELS} texts")
        return [text[:200] for text in dataset.texts()]

    def _dataset(self, name: str) -> hdf5.Stored:
        found = self._file[name].dataset
        if found is None:
            raise BundleError(f"{name} is no dataset")
        self._left -= found.nbytes
        if self._left < 0:
            raise BundleError(f"{name} of shape {found.shape} would take too much memory")
        return found


def _attribute(holder: hdf5.Node, name: str) -> str:
    """Return an attribute that is one text."""
    stored = holder.attributes.get(name)
    if stored is None:
        raise BundleError(f"no text '{name}'")
    if stored.shape != () or not stored.is_text:
        raise BundleError(f"'{name}' is not one text")
    return stored.texts()[0]


def _json(file: hdf5.Node, name: str) -> dict[str, Any]:
    try:
        values = json.loads(_attribute(file, name))
    except RecursionError as error:
        raise BundleError(f"'{name}' is nested too deeply") from error
    if not isinstance(values, dict):
        raise BundleError(f"'{name}' is no table of names and values")
    return values


def _provenance(values: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance, whose tables the model card relies on."""
    for name in ("versions", "data", "metrics", "precision"):
        if not isinstance(values.get(name, {}), dict):
            raise BundleError(f"provenance: '{name}' is no table of names and values")
    effect = values.get("precision", {}).get("effect", {})
    for name, table in {"data": values.get("data", {}), "metrics": values.get("metrics", {}), "effect": effect}.items():
        if not isinstance(table, dict) or not all(isinstance(entry, dict) for entry in table.values()):
            raise BundleError(f"provenance: '{name}' is no table of tables")
    return values
