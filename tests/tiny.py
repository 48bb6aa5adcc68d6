"""A bundle small enough to know its answers: each label is a mean over half of the pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx builds the networks of this test")

from onnx import TensorProto, helper, numpy_helper

from anna_onnx.bundle import Bundle, write
from anna_onnx.labels import Label
from anna_onnx.preparation import Preparation
from anna_onnx.resampling import Grid
from anna_onnx.sidecar import SelfTest, Sidecar

GRID = Grid(np.linspace(6000, 6049, 50), "air")
LABELS = (Label("teff", 3000, 8000), Label("logg", 0, 5))
SIGMA = (50.0, 0.1)


def answers(flux: np.ndarray) -> np.ndarray:
    """Return what the network says: 4000 K + 1000 K of the blue half, 1 + 2 of the red half."""
    filled = np.where(np.isnan(flux), 1, flux)
    return np.stack([4000 + 1000 * filled[:, :25].mean(axis=1), 1 + 2 * filled[:, 25:].mean(axis=1)], axis=1)


def nodes() -> list[Any]:
    node = helper.make_node
    return [
        node("IsNaN", ["flux"], ["missing"]),
        node("Where", ["missing", "one", "flux"], ["filled"]),
        node("Gemm", ["filled", "weight", "bias"], ["labels"]),
        node("Shape", ["labels"], ["shape"]),
        node("Expand", ["scatter", "shape"], ["sigma"]),
    ]


def constants() -> dict[str, np.ndarray]:
    weight = np.zeros((50, 2), np.float32)
    weight[:25, 0], weight[25:, 1] = 1000 / 25, 2 / 25
    return {
        "one": np.ones(1, np.float32),
        "weight": weight,
        "bias": np.array([4000, 1], np.float32),
        "scatter": np.array([SIGMA], np.float32),
    }


def model(extra_nodes: Any = (), extra: Any = (), domains: tuple[str, ...] = (), **replaced: Any) -> Any:
    """Return the network as an ONNX model, with further nodes before the others and constants."""
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(values, name) for name, values in {**constants(), **replaced}.items()]
    shapes = {"labels": ["batch", 2], "sigma": ["batch", 2]}
    graph = helper.make_graph(
        [*extra_nodes, *nodes()],
        "tiny",
        [value("flux", TensorProto.FLOAT, ["batch", 50])],
        [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [*tensors, *extra],
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def correlated_model(extreme: float = -0.5) -> Any:
    """Return the network with a third output: `extreme` times the mean flux correlates the labels."""
    made = model(identity=np.eye(2, dtype=np.float32)[np.newaxis], pair=extreme * (1 - np.eye(2, dtype=np.float32)))
    made.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["filled", "pixels"], ["mean"]),  # (batch, 1)
            helper.make_node("Unsqueeze", ["mean", "pixels"], ["means"]),  # (batch, 1, 1)
            helper.make_node("Mul", ["means", "pair"], ["off"]),
            helper.make_node("Add", ["off", "identity"], ["correlation"]),
        ]
    )
    made.graph.initializer.append(helper.make_tensor("pixels", TensorProto.INT64, [1], [1]))
    made.graph.output.append(helper.make_tensor_value_info("correlation", TensorProto.FLOAT, ["batch", 2, 2]))
    return made


def network() -> bytes:
    return bytes(model().SerializeToString())


def sidecar(**changes: Any) -> Sidecar:
    flux = np.linspace(0.5, 1.0, 150, dtype=np.float32).reshape(3, 50)
    labels = answers(flux).astype(np.float32)
    test = SelfTest(flux, labels, np.tile(np.array(SIGMA, np.float32), (3, 1)))
    whole = Sidecar(LABELS, Preparation(GRID, frame="rest"), selftest=test, provenance={"run": "by hand"})
    return dataclasses.replace(whole, **changes)


def bundle(path: Path, **changes: Any) -> Bundle:
    return write(path, network(), sidecar(**changes))


def write_star(path: Path, blue: float = 1.0, red: float = 1.0, wavelength: np.ndarray = GRID.wavelength) -> Path:
    """Write a text spectrum of two constant halves."""
    flux = np.where(wavelength < 6024.5, blue, red)
    np.savetxt(path, np.column_stack([wavelength, flux]), header="medium: air\nwavelength flux", fmt="%.6f")
    return path
