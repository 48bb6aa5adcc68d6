"""Small files: weights stored in fewer bits, arithmetic in float32 all the same.

Each large weight is stored small and widened where the graph begins, so what
is lost is the rounding of the weights and nothing else. onnxruntime widens float16 once,
when it opens the network.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from anna_onnx.arrays import Float32Array
from anna_onnx.errors import TrainingError
from anna_onnx.novelty import Novelty

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LARGE = 1024  # numbers in a weight that is worth storing small
INT8_MAX = 127
DELICATE = ("comparison.", ".filling.")  # in the names of what a Comparison and a Filling hold
COMPONENT_STEP = 2.0**-12


def store(network: bytes, precision: Precision) -> bytes:
    """Return a network with its large weights stored in a precision.

    Parameters
    ----------
    network : bytes
        An ONNX file with weights in float32.
    precision : {'float32', 'float16', 'int8'}
        float16: rounded to 11 bits. int8: each row of a weight, all that one output sees,
        in steps of its own size; what spectra are compared with, and filled in by, is in float16 there too, for
        broadening shows in small differences. Biases, and what scales flux and labels, stay float32.

    Raises
    ------
    TrainingError
        If a weight is beyond what float16 can hold.
    """
    if precision == "float32":
        return network
    model = onnx.load_from_string(network)
    graph = model.graph
    widening = []
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < LARGE:
            continue
        weight = numpy_helper.to_array(tensor)
        if precision == "float16" or any(part in tensor.name for part in DELICATE):
            stored, node = _halve(weight, tensor.name)
        else:
            stored, node = _quantize(weight, tensor.name, _row_axis(graph, tensor.name))
        graph.initializer.remove(tensor)
        graph.initializer.extend(stored)
        widening.append(node)
    steps = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(steps)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _halve(weight: Float32Array, name: str) -> tuple[list[Any], Any]:
    """Return a weight in float16, and the node that widens it."""
    largest = np.abs(weight).max()
    if largest > np.finfo(np.float16).max:
        raise TrainingError(f"{name}: holds {largest:.3g}, float16 ends at 65504: export with --precision float32")
    stored = numpy_helper.from_array(weight.astype(np.float16), f"{name}_float16")
    return [stored], helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)


def _quantize(weight: Float32Array, name: str, axis: int) -> tuple[list[Any], Any]:
    """Return a weight in int8 with the step of each row, and the node that widens it."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    step = np.where(largest > 0, largest, 1) / np.float32(INT8_MAX)
    stored = [
        numpy_helper.from_array(np.rint(weight / step).astype(np.int8), f"{name}_int8"),
        numpy_helper.from_array(step.ravel(), f"{name}_step"),
    ]
    return stored, helper.make_node("DequantizeLinear", [one.name for one in stored], [name], axis=axis)


def _row_axis(graph: Any, name: str) -> int:
    """Return the axis of a weight that counts the outputs of the operation it belongs to."""
    for node in graph.node:
        if name in node.input:
            if node.op_type == "MatMul":
                return -1 % len(next(one for one in graph.initializer if one.name == name).dims)
            if node.op_type == "Gemm":
                return 1 - next((item.i for item in node.attribute if item.name == "transB"), 0)
    return 0


def shorten(novelty: Novelty) -> Novelty:
    """Return a novelty with fewer bits, whose components compress well.

    Components in steps of 2**-12, a hundredth of what a pixel of a component usually is: the remainders of
    spectra with S/N up to 300 change by less than 1 %.
    """
    short: dict[str, Any] = {
        "components": (np.rint(novelty.components / COMPONENT_STEP) * COMPONENT_STEP).astype(np.float16)
    }
    return dataclasses.replace(novelty, **short)
