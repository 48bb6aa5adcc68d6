"""The network file, looked at before anything runs it.

An ONNX graph is a program, and one from a mail may be hostile: it may name
other files, loop for ever, or grow a few bytes into gigabytes. So only
operations that networks consist of are let in, in one plain graph, in order.

References
----------
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, for the field numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from anna_onnx.errors import BundleError
from anna_onnx.wire import Budget, WireError, fields, varints

_WORDS = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant Conv Cos
DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND
Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul
MatMulInteger Max MaxPool Mean Min Mish Mul Neg Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
RMSNormalization Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign Split Sqrt
Squeeze Sub Sum Swish Tanh Transpose Unsqueeze Where Xor
"""
OPERATIONS = frozenset(_WORDS.split())
# What may be done to constants alone, before any spectrum comes: decompress weights and no more.
_KEEP_SHAPE = frozenset(("Cast", "CastLike", "DequantizeLinear", "Identity", "Neg", "Sqrt", "Reciprocal", "Exp"))
_KEEP_SIZE = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"))
_BROADCAST = frozenset(("Add", "Sub", "Mul", "Div", "Where", "Equal", "Max", "Min", "Pow"))
MAX_CONSTANT = 1 << 26  # elements

_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_SPARSE = 1, 5, 11, 15
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_TENSORS, _ATTRIBUTE_SPARSE = (6, 11), (5, 10), (22, 23)
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 8, 13, 14


def check_network(network: bytes | memoryview, where: str) -> None:
    """Refuse a network file that is no plain network in one piece.

    Parameters
    ----------
    network : bytes
        The ONNX file.
    where : str
        Its name, for messages.

    Raises
    ------
    BundleError
    """
    budget = Budget()
    try:
        graphs = []
        for item in fields(network, budget):
            if item.number == _MODEL_GRAPH:
                graphs.append(item.message)
            elif item.number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
                raise BundleError(f"{where}: holds functions or training steps; a network is one plain graph")
        if len(graphs) != 1:
            raise BundleError(f"{where}: not an ONNX file ({len(graphs)} graphs in it)")
        _Graph(where, budget).check(graphs[0])
    except WireError as error:
        raise BundleError(f"{where}: not a whole ONNX file ({error})") from error


class _Node(NamedTuple):
    operation: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    attributes: list[memoryview]


class _Graph:
    """One walk through a graph.

    Attributes
    ----------
    known : set of str
        Values that have been computed so far.
    constants : dict of str to tuple of int
        Shapes of those that do not depend on a spectrum.
    """

    def __init__(self, where: str, budget: Budget) -> None:
        self.where, self.budget = where, budget
        self.known = {""}  # stands for an input that is left out
        self.constants: dict[str, tuple[int, ...]] = {}

    def check(self, graph: memoryview) -> None:
        nodes = []
        for item in fields(graph, self.budget):
            if item.number == _GRAPH_NODE:
                nodes.append(item.message)
            elif item.number == _GRAPH_INITIALIZER:
                name, shape = self._tensor(item.message)
                self.known.add(name)
                self.constants[name] = shape
            elif item.number == _GRAPH_INPUT:
                self.known.update(_text(part.message) for part in fields(item.message, self.budget) if part.number == 1)
            elif item.number == _GRAPH_SPARSE:
                raise BundleError(f"{self.where}: holds sparse tensors, which no network of ours has")
        for node in nodes:
            self._check_node(self._node(node))

    def _check_node(self, node: _Node) -> None:
        if node.domain not in ("", "ai.onnx") or node.operation not in OPERATIONS:
            name = f"{node.domain}.{node.operation}" if node.domain else node.operation
            raise BundleError(f"{self.where}: operation {name[:80]!r} is not one of a network")
        if missing := [name for name in node.inputs if name not in self.known]:
            raise BundleError(
                f"{self.where}: {node.operation} takes {missing[0][:80]!r} before it is computed: a cyclic graph"
            )
        shape: tuple[int, ...] | None = None
        for attribute in node.attributes:
            shape = self._attribute(node, attribute) or shape
        if node.operation == "Constant":
            shape = shape or ()
        elif all(name == "" or name in self.constants for name in node.inputs):
            shape = self._fold(node)
        self.known.update(node.outputs)
        if shape is not None:
            self.constants.update(dict.fromkeys(node.outputs, shape))

    def _fold(self, node: _Node) -> tuple[int, ...]:
        """Return the shape of what is computed from constants alone."""
        shapes = [self.constants[name] for name in node.inputs if name]
        if not shapes:
            raise BundleError(f"{self.where}: {node.operation} without anything to work on")
        if node.operation in _KEEP_SHAPE:
            return shapes[0]
        if node.operation in _KEEP_SIZE:
            return (math.prod(shapes[0]),)
        if node.operation == "Shape":
            return (len(shapes[0]),)
        try:
            if node.operation in _BROADCAST and math.prod(found := np.broadcast_shapes(*shapes)) <= MAX_CONSTANT:
                return found
        except ValueError:
            # Sizes were kept, shapes were not.
            if (n := math.prod(map(math.prod, shapes))) <= MAX_CONSTANT:
                return (n,)
        raise BundleError(
            f"{self.where}: {node.operation} on constants alone, which makes large tensors of small files"
        )

    def _node(self, message: memoryview) -> _Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
        attributes = []
        for item in fields(message, self.budget):
            if item.number in texts:
                texts[item.number].append(_text(item.message))
            elif item.number == 5:
                attributes.append(item.message)
        inputs, outputs, operation, domain = texts.values()
        return _Node("".join(operation), "".join(domain), inputs, outputs, attributes)

    def _attribute(self, node: _Node, attribute: memoryview) -> tuple[int, ...] | None:
        """Check an attribute; return the shape of the tensor in it."""
        shape = None
        for item in fields(attribute, self.budget):
            if item.number in (*_ATTRIBUTE_GRAPHS, *_ATTRIBUTE_SPARSE):
                raise BundleError(f"{self.where}: {node.operation} holds a graph of its own or a sparse tensor")
            if item.number in _ATTRIBUTE_TENSORS:
                shape = self._tensor(item.message)[1]
        return shape

    def _tensor(self, message: memoryview) -> tuple[str, tuple[int, ...]]:
        """Return the name and shape of a tensor; refuse one kept in another file."""
        name, shape = "", []
        for item in fields(message, self.budget):
            if item.number == _TENSOR_NAME:
                name = _text(item.message)
            elif item.number == _TENSOR_DIMS:
                shape += [item.value] if isinstance(item.value, int) else list(varints(item.value, self.budget))
            elif item.number == _TENSOR_EXTERNAL or (item.number == _TENSOR_LOCATION and item.value):
                raise BundleError(f"{self.where}: keeps weights in another file, which a model must not")
        if math.prod(tuple(shape)) > MAX_CONSTANT:
            raise BundleError(f"{self.where}: a tensor of shape {tuple(shape)}, larger than a network's")
        return name, tuple(shape)


def _text(message: memoryview) -> str:
    return bytes(message).decode("utf-8", "replace")


def split_metadata(content: bytes | memoryview, key: bytes) -> tuple[bytes, memoryview | None]:
    """Part a network file from one of its metadata entries.

    Parameters
    ----------
    content : bytes
        The ONNX file.
    key : bytes
        Of the entry.

    Returns
    -------
    network : bytes
        The file without the entry.
    value : memoryview or None
        The value of the entry.

    Raises
    ------
    WireError
        If it is no protocol buffer, or holds the entry twice.
    """
    kept, found = [], []
    for item in fields(content, budget := Budget()):
        if item.number == 14 and (value := _value(item.message, key, budget)) is not None:
            found.append(value)
        else:
            kept.append((item.start, item.end))
    if len(found) > 1:
        raise WireError(f"the entry {key.decode()} stands in it {len(found)} times")
    view = memoryview(content)
    return b"".join(view[first:last] for first, last in _runs(kept)), found[0] if found else None


def _value(entry: memoryview, key: bytes, budget: Budget) -> memoryview | None:
    """Return the value of a metadata entry if it has this key."""
    parts = {item.number: item.message for item in fields(entry, budget)}
    return parts.get(2, memoryview(b"")) if bytes(parts.get(1, b"")[: len(key) + 1]) == key else None


def _runs(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges, those that touch as one."""
    first, last = 0, 0
    for start, end in ranges:
        if start != last:
            yield first, last
            first = start
        last = end
    yield first, last
