"""What the inference benchmarks work on: a model of the manual's architecture, and files of synthetic spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anna_onnx.bundle import Bundle, write
from anna_onnx.calibration import Calibration
from anna_onnx.labels import Label
from anna_onnx.novelty import Novelty
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import Sidecar
from anna_onnx.trainingset import TrainingSetWriter

LABELS = (
    Label("teff", 4000, 7000),
    Label("logg", 2.7, 4.8),
    Label("feh", -0.5, 0.2),
    Label("vmic", 0, 3),
    Label("vsini", 0, 40),
)
GRID = Grid(np.linspace(6625, 6825, 1001), "air")
N_COMPONENT = 125


def make_model(path: Path) -> Bundle:
    """Write a bundle with random weights: 45 x 10 kernels, two layers of 128, all that an exported one carries."""
    random = np.random.default_rng(1)
    n_pixel, n_label = GRID.n_pixel, len(LABELS)
    shapes = {
        "conv": (10, 1, 45),
        "conv_bias": (10,),
        "fc1": (10 * n_pixel, 128),
        "fc1_bias": (128,),
        "fc2": (128, 128),
        "fc2_bias": (128,),
        "fc3": (128, n_label),
    }
    constants = {name: random.normal(0, 0.01, shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {
        "continuum": np.ones(1, np.float32),
        "axis": np.ones(1, np.int64),
        "span": np.array([label.span for label in LABELS], np.float32),
        "middle": np.array([(label.low + label.high) / 2 for label in LABELS], np.float32),
        "scatter": np.array([[0.01 * label.span for label in LABELS]], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("IsNaN", ["flux"], ["missing"]),
        node("Where", ["missing", "continuum", "flux"], ["filled"]),
        node("Unsqueeze", ["filled", "axis"], ["image"]),
        node("Conv", ["image", "conv", "conv_bias"], ["convolved"], pads=[22, 22]),
        node("Relu", ["convolved"], ["convolved_relu"]),
        node("Flatten", ["convolved_relu"], ["flat"]),
        node("Gemm", ["flat", "fc1", "fc1_bias"], ["first"]),
        node("Relu", ["first"], ["first_relu"]),
        node("Gemm", ["first_relu", "fc2", "fc2_bias"], ["second"]),
        node("Relu", ["second"], ["second_relu"]),
        node("MatMul", ["second_relu", "fc3"], ["scaled"]),
        node("Mul", ["scaled", "span"], ["spanned"]),
        node("Add", ["spanned", "middle"], ["labels"]),
        node("Shape", ["labels"], ["shape"]),
        node("Expand", ["scatter", "shape"], ["sigma"]),
    ]
    value = helper.make_tensor_value_info
    sizes = {"flux": n_pixel, "labels": n_label, "sigma": n_label}
    flux, *outputs = (value(name, TensorProto.FLOAT, ["batch", size]) for name, size in sizes.items())
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "benchmark", [flux], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return write(path, model.SerializeToString(), _sidecar(random))


def _sidecar(random: np.random.Generator) -> Sidecar:
    n_label = len(LABELS)
    directions, _ = np.linalg.qr(random.normal(size=(GRID.n_pixel, N_COMPONENT)))
    levels = np.array([0.5, 0.6827, 0.8, 0.9, 0.95, 0.99])
    factors = np.tile(np.array([0.67, 1.0, 1.3, 1.65, 1.96, 2.6]), (4, n_label, 1))
    return Sidecar(
        LABELS,
        Preparation(GRID, frame="rest", velocity_range=(-100, 100), snr_range=(100, 300)),
        calibration=Calibration(levels, np.array([50.0, 100, 200, 400]), factors, 1000),
        novelty=Novelty(
            spectra(1, random)[0].astype(np.float64),
            directions.T.astype(np.float32),
            np.array([1e-4, 1.0]),
            np.array([0.1, 10.0]),
            0.01,
        ),
    )


def spectra(n: int, random: np.random.Generator, wavelength: np.ndarray = GRID.wavelength) -> np.ndarray:
    """Return spectra with a few dozen lines and an S/N of 200, shape (n, n_pixel)."""
    lines = np.random.default_rng(2).uniform(wavelength[0], wavelength[-1], 40)
    profiles = np.exp(-0.5 * ((wavelength - lines[:, None]) / 0.3) ** 2)  # (line, pixel)
    flux = 1 - random.uniform(0, 0.4, (n, len(lines))) @ profiles
    return (flux + random.normal(0, 0.005, flux.shape)).astype(np.float32)


def write_fits(folder: Path, n: int) -> list[Path]:
    """Write single 1-D images of 4096 float32 pixels with a linear wavelength axis."""
    from astropy.io import fits

    wavelength = 6600 + 0.06 * np.arange(4096)
    random = np.random.default_rng(3)
    base = spectra(100, random, wavelength)
    paths = []
    for i in range(n):
        hdu = fits.PrimaryHDU(base[i % 100])
        hdu.header.update(
            OBJECT=f"star {i}", CTYPE1="AWAV", CUNIT1="Angstrom", CRVAL1=6600.0, CDELT1=0.06, CRPIX1=1.0,
            SPECSYS="BARYCENT", EXPTIME=100.0 + i, AIRMASS=1.2,
        )  # fmt: skip
        hdu.header["DATE-OBS"] = f"2024-01-01T00:{i // 60 % 60:02d}:{i % 60:02d}"
        paths.append(folder / f"star_{i:06d}.fits")
        hdu.writeto(paths[-1])
    return paths


def write_training_set(path: Path, n: int, grid: Grid = GRID) -> None:
    """Write n spectra on the grid of a model."""
    random = np.random.default_rng(4)
    base = spectra(1000, random, grid.wavelength)
    names, units = [label.name for label in LABELS], [label.unit for label in LABELS]
    with TrainingSetWriter(path, grid, names, units, n) as writer:
        for first in range(0, n, 1000):
            rows = min(1000, n - first)
            writer.append(base[:rows], np.zeros((rows, len(LABELS))), np.arange(first, first + rows, dtype=np.float64))
