"""The bundle: a network and all that is needed to use it, in one e-mailed file.

``model.onnx`` is the network. Its sidecar ``model.h5`` holds the wavelength
grid, labels, preparation, calibration, novelty, self-test and provenance. The
sidecar's bytes also ride inside ``model.onnx``, base64 in ``metadata_props``
under the key ``anna_sidecar``, so that a lone ``model.onnx`` infers.

The sidecar states the sha256 of the network, which is ``model.onnx`` without that
entry; the file is exactly the network's bytes with the entry appended.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anna_onnx import wire
from anna_onnx.calibration import Calibration, Trends
from anna_onnx.errors import AnnaError, BundleError, SidecarMismatchError
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.trainingset import check_version

if TYPE_CHECKING:
    import h5py
    from astropy.table import QTable

FORMAT = "anna-sidecar"
FORMAT_VERSION = "1.0"
METADATA_KEY = b"anna_sidecar"
MAX_NETWORK = 2**30  # bytes
MAX_SIDECAR = 2**26

# Field numbers of onnx.proto.
_METADATA_PROPS, _GRAPH, _INITIALIZER, _DATA_LOCATION = 14, 7, 5, 14


@dataclass(frozen=True, eq=False)
class SelfTest:
    """A few spectra and what the training machine inferred for them.

    Attributes
    ----------
    flux : array of float32, shape (n, n_pixel)
    labels, sigma : arrays of float32, shape (n, n_label)
    """

    flux: NDArray[np.float32]
    labels: NDArray[np.float32]
    sigma: NDArray[np.float32]


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
            wavelength = file.create_dataset("wavelength", data=self.grid.wavelength)
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
        import h5py

        try:
            with h5py.File(io.BytesIO(content), "r") as file:
                return _read_sidecar(file, where)
        except AnnaError:
            raise
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise BundleError(f"{where}: the sidecar is damaged ({error})") from error


_PARTS: Mapping[str, type[Any]] = {
    "calibration": Calibration,
    "trends": Trends,
    "novelty": Novelty,
    "selftest": SelfTest,
}


def _store(group: h5py.Group, part: Any) -> None:
    """Write a dataclass of arrays and numbers: arrays as datasets, numbers as attributes."""
    for item in dataclasses.fields(part):
        value = getattr(part, item.name)
        if isinstance(value, np.ndarray):
            group.create_dataset(item.name, data=value, **({"compression": "gzip"} if value.size > 1000 else {}))
        else:
            group.attrs[item.name] = value


def _fetch(group: h5py.Group, kind: type[Any]) -> Any:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(kind):
        if item.name in group.attrs:
            values[item.name] = group.attrs[item.name].item()
            continue
        dataset = group[item.name]
        if dataset.nbytes > MAX_SIDECAR:
            raise BundleError(f"{dataset.name} would take {dataset.nbytes / 1e6:.0f} MB")
        values[item.name] = dataset[...]
    return kind(**values)


def _read_sidecar(file: h5py.File, where: str) -> Sidecar:
    if file.attrs.get("format") != FORMAT:
        raise BundleError(f"{where}: format '{file.attrs.get('format')}', needed '{FORMAT}'")
    check_version(str(file.attrs["format_version"]), FORMAT_VERSION, where)
    if max(file["wavelength"].nbytes, file["labels/low"].nbytes) > MAX_SIDECAR:
        raise BundleError(f"{where}: a wavelength grid of {file['wavelength'].size} pixels is no network's")
    grid = Grid(file["wavelength"][:], str(file["wavelength"].attrs["medium"]))  # type: ignore[arg-type]  # Grid checks it
    columns = file["labels"]
    labels = tuple(
        Label(name, float(low), float(high), unit, ucd)
        for name, low, high, unit, ucd in zip(
            columns["name"].asstr()[:],
            columns["low"][:],
            columns["high"][:],
            columns["unit"].asstr()[:],
            columns["ucd"].asstr()[:],
            strict=True,
        )
    )
    return Sidecar(
        labels=labels,
        preparation=Preparation.from_dict(json.loads(file.attrs["preparation"]), grid),
        provenance=json.loads(file.attrs["provenance"]),
        sha256=str(file.attrs["sha256"]),
        **{part: _fetch(file[part], kind) for part, kind in _PARTS.items() if part in file},
    )


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network with its sidecar.

    Attributes
    ----------
    name : str
        What to call it: the file name without its suffix.
    network : bytes
        The ONNX file without the sidecar.
    sidecar : Sidecar
    """

    name: str
    network: bytes
    sidecar: Sidecar

    def __repr__(self) -> str:
        labels = ", ".join(label.name for label in self.sidecar.labels)
        return f"<Bundle {self.name}: {labels} from {self.sidecar.grid}, sha256 {self.sidecar.sha256[:12]}>"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open ``model.onnx``; a ``model.h5`` beside it must be the one it carries.

        Raises
        ------
        BundleError
            If the file is damaged, is not an anna-onnx model, or could reach outside itself.
        SidecarMismatchError
            If the sidecar belongs to another network.
        VersionError
            If a newer major version wrote it.
        """
        path = Path(path)
        try:
            size = path.stat().st_size
            if size > MAX_NETWORK:
                raise BundleError(
                    f"{path}: {size / 1e6:.0f} MB, the largest network taken has {MAX_NETWORK / 1e6:.0f} MB"
                )
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
        network, embedded = _split(content, str(path))
        beside = path.with_suffix(".h5")
        detached = beside.read_bytes() if beside.is_file() and beside.stat().st_size <= MAX_SIDECAR else None
        if embedded is None and detached is None:
            raise BundleError(
                f"{path}: an ONNX network, but not one of anna-onnx: no sidecar in it, and no {beside.name}"
            )
        where = str(path) if detached is None else str(beside)
        sidecar = Sidecar.from_bytes(detached or embedded or b"", where)
        found = hashlib.sha256(network).hexdigest()
        if sidecar.sha256 != found:
            raise SidecarMismatchError(
                f"{where}: belongs to the network with sha256 {sidecar.sha256[:12]}, but {path.name} has {found[:12]}"
            )
        if detached is not None and embedded is not None and detached != embedded:
            raise SidecarMismatchError(
                f"{beside}: differs from the sidecar inside {path.name}: remove it or export anew"
            )
        return cls(path.stem, network, sidecar)

    def infer(self, spectra: Any, **options: Any) -> QTable:
        """Infer labels.

        Parameters
        ----------
        spectra : Spectrum, file name, (wavelength, flux[, sigma]) arrays, specutils object, or a list of such
        **options
            See `anna_onnx.inference.InferOptions`.

        Returns
        -------
        astropy.table.QTable
            One row a spectrum, with units.
        """
        from anna_onnx.inference import InferOptions, infer_table

        return infer_table(self, spectra, InferOptions(**options))


def write(path: str | os.PathLike[str], network: bytes, sidecar: Sidecar) -> Bundle:
    """Write ``model.onnx`` with the sidecar inside, and ``model.h5`` beside it.

    Parameters
    ----------
    path : path-like
        Where to, ending in ``.onnx``.
    network : bytes
        An ONNX file in one piece, without external data.
    sidecar : Sidecar
        Its sha256 is filled in.

    Returns
    -------
    Bundle
        What was written, read back.

    Raises
    ------
    BundleError
        If the name or the network is not right.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise BundleError(f"{path}: a model's name ends in .onnx")
    if _split(network, str(path))[1] is not None:
        raise BundleError(f"{path}: the network already carries a sidecar")
    sidecar = dataclasses.replace(sidecar, sha256=hashlib.sha256(network).hexdigest())
    attached = sidecar.to_bytes()
    entry = wire.encode_bytes(1, METADATA_KEY) + wire.encode_bytes(2, base64.b64encode(attached))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = {path: network + wire.encode_bytes(_METADATA_PROPS, entry), path.with_suffix(".h5"): attached}
    for target, content in partial.items():
        _beside(target).write_bytes(content)
    for target in partial:
        _beside(target).replace(target)
    return Bundle.load(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _split(content: bytes, where: str) -> tuple[bytes, bytes | None]:
    """Part a network file into the network and the sidecar it carries, if any."""
    sidecar, kept, has_graph = None, [], False
    try:
        for item in wire.fields(content):
            if item.number == _METADATA_PROPS and (found := _sidecar_of(item.value)) is not None:
                sidecar = found
                continue
            if item.number == _GRAPH and isinstance(item.value, memoryview):
                has_graph = True
                _refuse_external_data(item.value, where)
            kept.append((item.start, item.end))
    except wire.WireError as error:
        raise BundleError(f"{where}: not a whole ONNX file ({error})") from error
    if not has_graph:
        raise BundleError(f"{where}: not an ONNX file (no graph in it)")
    network = b"".join(memoryview(content)[start:end] for start, end in kept)
    return network, sidecar


def _sidecar_of(entry: int | memoryview) -> bytes | None:
    """Return the sidecar if a metadata entry holds it."""
    if not isinstance(entry, memoryview):
        return None
    parts = {item.number: item.value for item in wire.fields(entry)}
    key, value = parts.get(1), parts.get(2)
    if not isinstance(key, memoryview) or bytes(key[:64]) != METADATA_KEY or not isinstance(value, memoryview):
        return None
    if len(value) > MAX_SIDECAR:
        raise wire.WireError(f"a sidecar of {len(value) / 1e6:.0f} MB")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise wire.WireError(f"the sidecar in it is damaged: {error}") from error


def _refuse_external_data(graph: memoryview, where: str) -> None:
    """Refuse tensors kept in another file: a model from a mail must not name paths."""
    for item in wire.fields(graph):
        if item.number == _INITIALIZER and isinstance(item.value, memoryview):
            for part in wire.fields(item.value):
                if part.number == _DATA_LOCATION and part.value:
                    raise BundleError(f"{where}: keeps weights in another file, which a model must not")
