"""The bundle: a network and all that is needed to use it, in one e-mailed file.

``model.onnx`` is the network. Its sidecar ``model.h5`` holds the wavelength
grid, labels, preparation, calibration, what is familiar, self-test and provenance. The
sidecar's bytes also ride inside ``model.onnx``, base64 in ``metadata_props``
under the key ``anna_sidecar``, so that a lone ``model.onnx`` infers.

The sidecar states the sha256 of the network, which is ``model.onnx`` without that
entry; the file is exactly the network's bytes with the entry appended.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anna_onnx import wire
from anna_onnx.errors import BundleError, SidecarMismatchError
from anna_onnx.files import Content, replacing
from anna_onnx.graphcheck import check_network, split_metadata
from anna_onnx.sidecar import MAX_SIDECAR, Sidecar, is_sidecar

if TYPE_CHECKING:
    from astropy.table import QTable

METADATA_KEY = b"anna_sidecar"
MAX_NETWORK = 200_000_000  # bytes: twenty e-mails
_PACKAGE = Path(__file__).parent
# Installed as a part of the package; in a checkout it lies beside it.
MODELS = _PACKAGE / "models" if (_PACKAGE / "models").is_dir() else _PACKAGE.parent / "models"

_METADATA_PROPS = 14  # field number in onnx.proto


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
        content = _load(path, MAX_NETWORK)
        network, embedded = _split(content, str(path))
        check_network(network, str(path))
        beside = path.with_suffix(".h5")
        detached = bytes(_load(beside, MAX_SIDECAR)) if beside.exists() else None
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

    def infer(
        self,
        spectra: Any,
        *,
        level: float | None = None,
        covariance: bool = False,
        correct_trends: bool = False,
        rv: float | Literal["header", "auto"] | None = None,
        normalize: bool | None = None,
        resolution: float | None = None,
        device: str = "cpu",
        threads: int = 0,
        **read: Any,
    ) -> QTable:
        """Infer the labels of spectra.

        Parameters
        ----------
        spectra : object, or iterable of objects
            Each a `Spectrum`, a file name, a tuple of arrays or quantities
            (wavelength, flux) or (wavelength, flux, sigma), whose fluxes may have a row for each
            spectrum, or an object of specutils. Plain wavelengths are in Angstrom, masked pixels are bad.
        level : float, optional
            Also give intervals that hold the truth with this probability.
        covariance : bool
            Also give the correlation of the errors of each pair of labels, of a model that infers it.
        correct_trends : bool
            Take out the residual trends that `anna test` stored.
        rv : float, 'header' or 'auto', optional
            Radial velocity to remove, km/s or a quantity of astropy.
        normalize : bool, optional
            Divide by a fitted continuum.
        resolution : float, optional
            Resolving power of the spectra.
        device : {'cpu', 'cuda', 'coreml', 'directml'}
        threads : int
            0: as many as the process may use.
        **read
            `medium` and `frame` of the wavelengths, and for files the other
            options of `read_spectra`.

        Returns
        -------
        astropy.table.QTable
            One row a spectrum, with units; one of several in a file that cannot be read has the flag
            `unreadable` and the reason.

        Raises
        ------
        AnnaError
            If something given makes no spectrum, a file cannot be read to its end, or an option makes no sense.

        Examples
        --------
        >>> bundle = Bundle.load("model.onnx")  # doctest: +SKIP
        >>> table = bundle.infer("spectra.fits", rv="header")  # doctest: +SKIP
        >>> table["teff", "e_teff", "flags"]  # doctest: +SKIP
        """
        from anna_onnx.inference import InferOptions, infer_table
        from anna_onnx.preparation import PrepareOptions
        from anna_onnx.readers import ReadOptions

        prepare = PrepareOptions(rv, normalize, resolution)
        options = InferOptions(level, correct_trends, prepare, ReadOptions(**read), device, threads, covariance)
        return infer_table(self, spectra, options)


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
        If the name or the network is not right, or another kind of file has the sidecar's name.
    """
    path = Path(path)
    _refuse_to_replace(path.with_suffix(".h5"))
    if path.suffix != ".onnx":
        raise BundleError(f"{path}: a model's name ends in .onnx")
    if _split(network, str(path))[1] is not None:
        raise BundleError(f"{path}: the network already carries a sidecar")
    check_network(network, str(path))
    sidecar = dataclasses.replace(sidecar, sha256=hashlib.sha256(network).hexdigest())
    attached = sidecar.to_bytes()
    entry = wire.encode_bytes(1, METADATA_KEY) + wire.encode_bytes(2, base64.b64encode(attached))
    # Both are written before either is renamed: a full disk leaves an older model whole.
    with replacing(path) as model, replacing(path.with_suffix(".h5")) as beside:
        model.write_bytes(network + wire.encode_bytes(_METADATA_PROPS, entry))
        beside.write_bytes(attached)
    return Bundle.load(path)


def _refuse_to_replace(sidecar: Path) -> None:
    """Refuse to write a sidecar over a file that is none: ``train.onnx`` must not cost anybody ``train.h5``."""
    if not sidecar.exists():
        return
    with suppress(BundleError):  # such as too large for one
        if is_sidecar(bytes(_load(sidecar, MAX_SIDECAR))):
            return
    raise BundleError(f"{sidecar}: is not the sidecar of a model and would be lost; give the model another name")


def _split(content: Content, where: str) -> tuple[bytes, bytes | None]:
    """Part a network file into the network and the sidecar it carries, if any."""
    try:
        network, value = split_metadata(memoryview(content), METADATA_KEY)
        if value is None:
            return network, None
        if len(value) > 4 * MAX_SIDECAR // 3 + 4:
            raise BundleError(f"{where}: carries a sidecar of {len(value) / 1e6:.0f} MB, too large")
        return network, base64.b64decode(value, validate=True)
    except ValueError as error:
        if bytes(content[:9]) == b"SIMPLE  =":
            raise BundleError(f"{where}: a FITS file, needed a model: it stands before the spectra") from None
        raise BundleError(f"{where}: not a whole ONNX file ({error})") from error


def _load(path: Path, largest: int) -> Content:
    """Return the bytes of a file, which stay on the disk until they are needed.

    Raises
    ------
    BundleError
        If it cannot be read or is larger than `largest`.
    """
    try:
        if not path.is_file():
            raise BundleError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        size = path.stat().st_size
        if size > largest:
            raise BundleError(f"{path}: {size / 1e6:.0f} MB, the largest taken has {largest / 1e6:.0f} MB")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def find_model(name: str | os.PathLike[str]) -> Path:
    """Return the file of a model: a path, or the short name of a released one.

    Parameters
    ----------
    name : path-like
        Such as ``model.onnx``, or ``fgk-6625-6825``.

    Raises
    ------
    BundleError
        If there is neither; the message lists the released models.
    """
    path = Path(name)
    if path.exists() or path.parent != Path():
        return path
    released = released_models()
    short = path.name.removesuffix(".onnx")
    if short not in released:
        have = f"released models: {', '.join(released)}" if released else "and no models are released with this version"
        raise BundleError(f"{name}: no such file; {have}")
    return released[short]


def released_models() -> dict[str, Path]:
    """Return the models that come with the package, by short name."""
    return {path.stem: path for path in sorted(MODELS.glob("*.onnx"))}
