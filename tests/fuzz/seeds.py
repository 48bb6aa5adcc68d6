"""Small files of every family, the seeds of the fuzzers.

``python -m tests.fuzz.seeds FOLDER`` writes them into a folder.
"""

from __future__ import annotations

import bz2
import gzip
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.io import fits
from astropy.table import Table

from anna_onnx.resampling import Grid
from anna_onnx.trainingset import TrainingSetWriter
from tests.readers.files import image, image_bytes, multispec_bytes, table

N = 8
WAVE = 5000 + 0.5 * np.arange(N)
LOGLAM = 3.6 + 1e-4 * np.arange(N)
FLUX = np.linspace(0.5, 1.5, N)
IVAR = np.full(N, 100.0)
MASK = np.zeros(N, dtype="i4")


def seeds() -> Iterator[tuple[str, bytes]]:
    """Return names and contents."""
    axis = {"CRVAL1": 5000.0, "CDELT1": 0.5, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "Angstrom", "OBJECT": "star"}
    yield "image", image_bytes(FLUX.astype("f4"), axis)
    yield "scaled", image_bytes(np.arange(N, dtype="i2"), {**axis, "BSCALE": 0.1, "BZERO": 2.0, "BLANK": 3})
    yield "log", image_bytes(FLUX.astype("f4"), {"CRVAL1": 3.7, "CDELT1": 1e-4, "DC-FLAG": 1})
    for kind, numbers in enumerate(
        (
            "2 1. 8. 5000. 2.",
            "3 1. 8. 5000. 2. .1",
            "1 1. 8. 833. 834. 835. 836.",
            "1 1. 8. 5000. 5004.",
            "8 5000 5001 5002 5003 5004 5005 5006 5007",
            "2 0 1. 5000. 8. 5004.",
        ),
        1,
    ):
        spec = f"1 1 2 5000. .5 {N} 0. 1. 2. 1. 0. {kind} {numbers}"
        yield f"multispec{kind}", multispec_bytes(np.stack([FLUX, FLUX]).astype("f4"), [spec, spec], LTV1=0.0)
    yield "equispec", image_bytes(np.stack([FLUX, FLUX]), {**axis, "WAT0_001": "system=equispec", "APID1": "a"})
    yield "spextool", image_bytes(np.stack([WAVE / 1e4, FLUX, FLUX]), {"XUNITS": "um", "YUNITS": "x"})
    names = {f"COL{i}": name for i, name in enumerate(["Wavelength", "Intensity", "ErrorBar"] * 4, 1)}
    rows = np.tile(np.stack([WAVE / 10, FLUX, FLUX]), (4, 1))
    yield "espadons", image_bytes(rows, {"INSTRUME": "ESPaDOnS", **names})
    sdss = {"COEFF0": 3.6, "COEFF1": 1e-4, "TELESCOP": "SDSS 2.5-M", "PLATEID": 7, "MJD": 8}
    yield "spspec", image_bytes(np.stack([FLUX, FLUX, FLUX, FLUX]).astype("f4"), {**sdss, "FIBERID": 9})
    yield "spplate", image_bytes(np.stack([FLUX, FLUX]).astype("f4"), sdss)
    yield "lamost", image_bytes(np.stack([FLUX, IVAR, WAVE, MASK]).astype("f4"), {**sdss, "TELESCOP": "LAMOST"})
    polynomial = {"WV_0_01": " 5000. 0.5 0. 0.", "WV_4_01": " 0. 0. 0. 0.", "VACUUM": "Air to vacuum"}
    yield "makee", image_bytes(FLUX[None].astype("f4"), {"CRVAL1": 23, "HELIOCNT": "Heliocentric", **polynomial})
    up = {"UP_ARR01": "Normalized flux spectrum", "UP_ARR02": "Normalized error", "UP_ARR03": "Status"}
    yield (
        "uves_popler",
        image_bytes(np.stack([FLUX, FLUX, MASK + 1.0]), {"CRVAL1": 3.7, "CD1_1": 1e-4, "DC-FLAG": 1, **up}),
    )
    yield "chiron", image_bytes(np.stack([WAVE, FLUX], axis=1)[None].astype("f4"), {"THIDNLIN": 1200, "RESOLUTN": 8e4})
    yield from _extensions()
    yield from _others()


def _extensions() -> Iterator[tuple[str, bytes]]:
    cells = {"flux": FLUX[None], "ivar": IVAR[None], "pixel_flags": MASK[None]}
    apogee = [image(data, CRVAL1=4.179, CDELT1=6e-6, CTYPE2="Chip") for data in (FLUX, FLUX, MASK)]
    chips = [image(np.tile(data, (3, 1)), CTYPE2="Chip") for data in (FLUX, FLUX, MASK, WAVE)]
    arm = [image(WAVE, "B_WAVELENGTH"), *(image(FLUX[None], f"B_{name}") for name in ("FLUX", "IVAR"))]
    crires = {"01_02_WL": WAVE, "01_02_SPEC": FLUX, "01_02_ERR": FLUX}
    ragged = np.array([WAVE, WAVE[:4]], dtype=object)
    variable = [fits.Column(name, "PD()", array=ragged) for name in ("wave", "flux")]
    eso = table(
        "SPECTRUM", {"TUTYP1": "spec:Data.SpectralAxis.Value", "TUCD1": "em.wl"}, LAM=WAVE[None], FLUX=FLUX[None]
    )
    compressed = fits.CompImageHDU(np.tile(np.arange(N, dtype="i4"), (4, 1)))
    yield "spec", _fits(table("COADD", flux=FLUX, loglam=LOGLAM, ivar=IVAR, and_mask=MASK))
    yield "mwm", _fits(table("BOSS/APO", {"CRVAL": 3.6, "CDELT": 1e-4, "NPIXELS": N}, **cells))
    yield "apstar", _fits(*apogee)
    yield "apvisit", _fits(*chips)
    yield "desi", _fits(*arm, table("FIBERMAP", TARGETID=np.array([1])))
    yield (
        "galah",
        _fits(*(image(FLUX, f"input_sigma{i or ''}") for i in range(4)), first=FLUX, CRVAL1=5000.0, CDELT1=0.5),
    )
    yield "crires", _fits(table("CHIP1.INT1", **crires))
    yield (
        "s2d",
        _fits(image(FLUX[None], "SCIDATA"), image(WAVE[None], "WAVEDATA_VAC_BARY"), image(FLUX[None], "ERRDATA")),
    )
    yield "x1d", _fits(table("SCI", {"SDQFLAGS": 31743}, SPORDER=MASK[:1], WAVELENGTH=WAVE[None], FLUX=FLUX[None]))
    yield "eso", _fits(eso)
    yield "ragged", _fits(fits.BinTableHDU.from_columns(variable))
    yield "compressed", _fits(compressed)
    orders = {f"HIERARCH ESO DRS CAL TH COEFF LL{i}": value for i, value in enumerate((5000.0, 0.5))}
    yield "e2ds", _fits(first=FLUX[None], **{"HIERARCH ESO DRS CAL TH DEG LL": 1}, **orders)


def _others() -> Iterator[tuple[str, bytes]]:
    lines = "".join(f"{w} {f} 0.1\n" for w, f in zip(WAVE, FLUX, strict=True))
    yield "text", b"# wavelength flux err\n# nm none none\n" + lines.encode()
    yield "csv", b"wave,flux\n" + lines.replace(" 0.1", "").replace(" ", ",").encode()
    yield "libre-esprit", b"***star\n 8 2\n" + lines.encode()
    head = "".join(f"{key:8}= {value:>20} /\n" for key, value in (("BITPIX", 8), ("NAXIS", 1), ("NAXIS1", 8), ("X", 1)))
    yield "wtextimage", (head + "END\n\n" + lines).encode()
    yield "gzip", gzip.compress(lines.encode())
    yield "bzip2", bz2.compress(lines.encode())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("star.txt", lines)
    yield "zip", packed.getvalue()
    cells = '"[' + ",".join(["1"] * 2401) + ']"'
    yield "gaia", f"# %ECSV 1.0\nsource_id,flux,flux_error\n7,{cells},{cells}\n".encode()
    yield "anna", np.concatenate([[N, 1], WAVE, [1, 5000, 0], FLUX]).astype("<f8").tobytes()
    columns = Table({"wavelength": WAVE, "flux": FLUX})
    stream = io.StringIO()
    columns.write(stream, format="ascii.ecsv")
    yield "ecsv", stream.getvalue().encode()
    buffer = io.BytesIO()
    columns.write(buffer, format="votable")
    yield "votable", buffer.getvalue()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "set.h5"
        with TrainingSetWriter(path, Grid(WAVE, "air"), ["teff"], ["K"], 1) as writer:
            writer.append(FLUX[None], [[5000.0]], [1])
        yield "hdf5", path.read_bytes()


def _fits(*hdus: fits.ImageHDU | fits.BinTableHDU, first: np.ndarray | None = None, **header: object) -> bytes:
    primary = fits.PrimaryHDU(first)
    for key, value in header.items():
        primary.header[key] = value
    stream = io.BytesIO()
    fits.HDUList([primary, *hdus]).writeto(stream)
    return stream.getvalue()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, content in seeds():
        (target / name).write_bytes(content)
