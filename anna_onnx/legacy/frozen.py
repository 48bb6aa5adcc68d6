"""frozen.model, the trained network of the old ANNA, read without TensorFlow.

The file is a TensorFlow 1 GraphDef whose variables have become constants
(https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/framework:
graph.proto, node_def.proto, attr_value.proto, tensor.proto). The network is

    flux -> convolution, SAME, stride 1 -> + bias, ReLU -> flatten
         -> dense, + bias, ReLU, dropout -> dense, + bias, ReLU, dropout -> dense without bias

It is followed from its output backwards; whatever stands where something else
should is refused. Dropout does nothing in inference and is left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from anna_onnx import wire
from anna_onnx.arrays import Float32Array
from anna_onnx.errors import LegacyError

INPUT, OUTPUT = "MASTER_QUEUE/px", "FC3_LAYER/fc_output"
# A real file has about 90 nodes of at most 10 fields, and the larger ones 100 MB of weights.
MAX_BYTES = 2**29
MAX_WEIGHTS = 2**26
MAX_FIELDS = 2000
_MAX_CHAIN = 16


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """The weights of an old network, as the old program applied them.

    Attributes
    ----------
    conv_weight : array of float32, shape (kernel, filters)
    conv_bias : array of float32, shape (filters,)
    fc1_weight : array of float32, shape (n_pixel * filters, n_fc1)
        Rows run over the filters of the first pixel, then of the second, ...
    fc1_bias : array of float32, shape (n_fc1,)
    fc2_weight : array of float32, shape (n_fc1, n_fc2)
    fc2_bias : array of float32, shape (n_fc2,)
    fc3_weight : array of float32, shape (n_fc2, n_label)
    """

    conv_weight: Float32Array
    conv_bias: Float32Array
    fc1_weight: Float32Array
    fc1_bias: Float32Array
    fc2_weight: Float32Array
    fc2_bias: Float32Array
    fc3_weight: Float32Array

    @property
    def kernel(self) -> int:
        """Pixels of the convolution."""
        return int(self.conv_weight.shape[0])

    @property
    def filters(self) -> int:
        """Channels of the convolution."""
        return int(self.conv_weight.shape[1])

    @property
    def n_pixel(self) -> int:
        """Pixels of a spectrum."""
        return int(self.fc1_weight.shape[0]) // self.filters

    @property
    def n_label(self) -> int:
        """Number of labels."""
        return int(self.fc3_weight.shape[1])

    def infer(self, flux: ArrayLike) -> Float32Array:
        """Apply the network, without anything but NumPy: what the converted one is checked against.

        Parameters
        ----------
        flux : array_like, shape (n, n_pixel)
            Continuum = 1, finite.

        Returns
        -------
        scaled : array of float32, shape (n, n_label)
            Labels, scaled to 0-1 by their ranges.
        """
        left, right = same_padding(self.kernel)
        padded = np.pad(np.asarray(flux, dtype=np.float32), ((0, 0), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=1)  # (n, n_pixel, kernel)
        hidden = np.maximum(windows @ self.conv_weight + self.conv_bias, 0)  # (n, n_pixel, filters)
        hidden = np.maximum(hidden.reshape(len(hidden), -1) @ self.fc1_weight + self.fc1_bias, 0)
        hidden = np.maximum(hidden @ self.fc2_weight + self.fc2_bias, 0)
        return np.asarray(hidden @ self.fc3_weight)

    def __str__(self) -> str:
        return (
            f"{self.n_pixel} pixels, convolution {self.kernel} x {self.filters}, "
            f"dense {self.fc1_bias.size} and {self.fc2_bias.size}, {self.n_label} labels"
        )


def same_padding(kernel: int) -> tuple[int, int]:
    """Return the pixels that TensorFlow's SAME adds on the left and on the right: the odd one on the right."""
    return (kernel - 1) // 2, kernel // 2


def network_from_frozen(path: str | os.PathLike[str]) -> FrozenNetwork:
    """Read a frozen.model.

    Raises
    ------
    LegacyError
        If the file is damaged, or its graph is not that of ANNA; the message
        says what was found where.
    """
    path = Path(path)
    try:
        graph = _read_graph(path)
        network = _follow(graph)
        _check_shapes(network)
    except (wire.WireError, _UnexpectedError) as error:
        raise LegacyError(f"{path}: not a frozen.model of ANNA: {error}") from error
    return network


class _UnexpectedError(ValueError):
    """Something in the graph that ANNA never wrote."""


# --- reading the file -----------------------------------------------------------


@dataclass(frozen=True)
class _Node:
    """One operation of the graph; `attrs` are AttrValue messages."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, memoryview]


def _read_graph(path: Path) -> Mapping[str, _Node]:
    """Read the nodes of a GraphDef by name."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _UnexpectedError(f"{size / 1e9:.1f} GB, the largest taken has {MAX_BYTES / 1e9:.1f} GB")
        content = path.read_bytes()
    except OSError as error:
        raise LegacyError(f"{path}: cannot be read ({error.strerror})") from error
    nodes: dict[str, _Node] = {}
    for field in _fields(content):
        if field.number == 1:
            node = _read_node(_message(field))
            nodes[node.name] = node
    if OUTPUT not in nodes:
        raise _UnexpectedError(f"no node {OUTPUT} among its {len(nodes)} nodes")
    return nodes


def _fields(message: memoryview | bytes) -> Iterator[wire.Field]:
    """Yield the fields of a message that has no more of them than a real one."""
    for count, field in enumerate(wire.fields(message)):
        if count >= MAX_FIELDS:
            raise wire.WireError(f"more than {MAX_FIELDS} fields in one message")
        yield field


def _read_node(message: memoryview) -> _Node:
    name, op, inputs = "", "", []
    attrs: dict[str, memoryview] = {}
    for field in _fields(message):
        if field.number == 1:
            name = _text(field)
        elif field.number == 2:
            op = _text(field)
        elif field.number == 3:
            inputs.append(_text(field))
        elif field.number == 5:
            entry = {part.number: part for part in _fields(_message(field))}
            if 1 in entry and 2 in entry:
                attrs[_text(entry[1])] = _message(entry[2])
    return _Node(name, op, tuple(inputs), attrs)


def _message(field: wire.Field) -> memoryview:
    if field.kind != wire.BYTES or not isinstance(field.value, memoryview):
        raise wire.WireError(f"field {field.number} at byte {field.start} is no message")
    return field.value


def _text(field: wire.Field) -> str:
    try:
        return str(_message(field), "utf-8")
    except UnicodeDecodeError as error:
        raise wire.WireError(f"field {field.number} is no text ({error})") from error


# --- following the graph ----------------------------------------------------------


def _follow(graph: Mapping[str, _Node]) -> FrozenNetwork:
    """Walk from the output to the input and collect the weights on the way."""
    below, fc3_weight = _dense(graph, OUTPUT)
    below, fc2_bias = _biased_relu(graph, _without_dropout(graph, below))
    below, fc2_weight = _dense(graph, below)
    below, fc1_bias = _biased_relu(graph, _without_dropout(graph, below))
    below, fc1_weight = _dense(graph, below)
    flatten = _expect(graph, below, "Reshape")
    below, conv_bias = _biased_relu(graph, flatten.inputs[0])
    convolution = _expect(graph, below, "Conv2D")
    _check_convolution(convolution)
    conv_weight = _constant(graph, convolution.inputs[1])
    if conv_weight.ndim != 4 or conv_weight.shape[0] != 1 or conv_weight.shape[2] != 1:
        raise _UnexpectedError(
            f"{convolution.name} has a kernel of shape {conv_weight.shape}, needed 1 x width x 1 x n"
        )
    reshape = _expect(graph, convolution.inputs[0], "Reshape")
    if _plain(graph, reshape.inputs[0]).name != _plain(graph, INPUT).name:
        raise _UnexpectedError(f"{convolution.name} takes {reshape.inputs[0]}, needed {INPUT}")
    return FrozenNetwork(
        conv_weight[0, :, 0, :], conv_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, fc3_weight
    )  # fmt: skip


def _plain(graph: Mapping[str, _Node], name: str) -> _Node:
    """Return the node behind a tensor's name, through operations that change nothing."""
    for _ in range(_MAX_CHAIN):
        node = graph.get(name.removesuffix(":0"))
        if node is None:
            raise _UnexpectedError(f"no node {name}")
        if node.op != "Identity" or node.name == INPUT or len(node.inputs) != 1:
            return node
        name = node.inputs[0]
    raise _UnexpectedError(f"{name} goes round in a circle")


def _expect(graph: Mapping[str, _Node], name: str, *ops: str) -> _Node:
    """Return a node of two inputs whose operation is one of `ops`."""
    node = _plain(graph, name)
    if node.op not in ops or len(node.inputs) != 2:
        raise _UnexpectedError(f"{node.name} is {node.op} of {len(node.inputs)}, needed {' or '.join(ops)} of 2")
    return node


def _dense(graph: Mapping[str, _Node], name: str) -> tuple[str, Float32Array]:
    """Return what a dense layer takes, and its weights, shape (n_in, n_out)."""
    node = _expect(graph, name, "MatMul")
    for attr in ("transpose_a", "transpose_b"):
        if _attr_number(node, attr, 5):
            raise _UnexpectedError(f"{node.name} has {attr} set")
    weight = _constant(graph, node.inputs[1])
    if weight.ndim != 2:
        raise _UnexpectedError(f"{node.name} has weights of shape {weight.shape}")
    return node.inputs[0], weight


def _biased_relu(graph: Mapping[str, _Node], name: str) -> tuple[str, Float32Array]:
    """Return what goes into ``relu(x + bias)``, and the bias."""
    relu = _plain(graph, name)
    if relu.op != "Relu" or len(relu.inputs) != 1:
        raise _UnexpectedError(f"{relu.name} is {relu.op}, needed Relu")
    add = _expect(graph, relu.inputs[0], "Add", "AddV2", "BiasAdd")
    bias = _constant(graph, add.inputs[1])
    if bias.ndim != 1:
        raise _UnexpectedError(f"{add.name} has a bias of shape {bias.shape}")
    return add.inputs[0], bias


def _without_dropout(graph: Mapping[str, _Node], name: str) -> str:
    """Return what goes into a dropout, which TensorFlow wrote in different ways over the years.

    ``(x / keep) * floor(keep + random)`` until 1.12, ``(x * scale) * cast(random >= rate)``
    then, ``select(random >= rate, x * scale, 0)`` lately.
    """
    node = _plain(graph, name)
    if node.op == "Mul" and len(node.inputs) == 2:
        scaled, gate = node.inputs
    elif node.op in ("Select", "SelectV2") and len(node.inputs) == 3:
        gate, scaled, zero = node.inputs
        if np.any(_constant(graph, zero)):
            raise _UnexpectedError(f"{node.name} does not drop to zero")
    else:
        return name
    if not _is_random(graph, gate):
        raise _UnexpectedError(f"{node.name} is {node.op} by {gate}, which is no dropout")
    return _expect(graph, scaled, "RealDiv", "Div", "Mul").inputs[0]


def _is_random(graph: Mapping[str, _Node], name: str) -> bool:
    """Say whether a gate compares random numbers with a probability."""
    gate = _plain(graph, name)
    if gate.op not in ("Floor", "Cast", "GreaterEqual", "Less"):
        return False
    waiting, seen = [gate.name], set[str]()
    while waiting:
        current = waiting.pop().split(":")[0].removeprefix("^")
        if current in graph and current not in seen:
            seen.add(current)
            if graph[current].op == "RandomUniform":
                return True
            waiting.extend(graph[current].inputs)
    return False


def _check_convolution(node: _Node) -> None:
    """Refuse any convolution but SAME, stride 1, pixels before channels."""
    found = {
        "padding": _attr_text(node, "padding", "?"),
        "data_format": _attr_text(node, "data_format", "NHWC"),
        "strides": _attr_list(node, "strides"),
        "dilations": _attr_list(node, "dilations") or (1, 1, 1, 1),
    }
    needed = {"padding": "SAME", "data_format": "NHWC", "strides": (1, 1, 1, 1), "dilations": (1, 1, 1, 1)}
    for name, value in needed.items():
        if found[name] != value:
            raise _UnexpectedError(f"{node.name} has {name} {found[name]}, needed {value}")


def _check_shapes(network: FrozenNetwork) -> None:
    """Refuse layers that do not fit one another, and weights that are not numbers."""
    chain: Sequence[tuple[str, int, int]] = (
        ("convolution and its bias", network.filters, network.conv_bias.size),
        ("pixels x filters and FC1", network.n_pixel * network.filters, network.fc1_weight.shape[0]),
        ("FC1 and its bias", network.fc1_weight.shape[1], network.fc1_bias.size),
        ("FC1 and FC2", network.fc1_weight.shape[1], network.fc2_weight.shape[0]),
        ("FC2 and its bias", network.fc2_weight.shape[1], network.fc2_bias.size),
        ("FC2 and FC3", network.fc2_weight.shape[1], network.fc3_weight.shape[0]),
    )
    for what, one, other in chain:
        if one != other or one == 0:
            raise _UnexpectedError(f"{what} do not fit: {one} and {other}")
    for name, weight in vars(network).items():
        if not np.isfinite(weight).all():
            raise _UnexpectedError(f"{name} holds values that are not finite")


# --- attributes and constants -------------------------------------------------------
# Field numbers of AttrValue: list 1, s 2, i 3, b 5, tensor 8; of its list: i 3.


def _attr_number(node: _Node, name: str, number: int) -> int:
    for field in _fields(node.attrs.get(name, b"")):
        if field.number == number and isinstance(field.value, int):
            return field.value
    return 0


def _attr_text(node: _Node, name: str, default: str) -> str:
    for field in _fields(node.attrs.get(name, b"")):
        if field.number == 2:
            return _text(field)
    return default


def _attr_list(node: _Node, name: str) -> tuple[int, ...]:
    for field in _fields(node.attrs.get(name, b"")):
        if field.number == 1:
            return _integers(_message(field), 3)
    return ()


def _integers(message: memoryview, number: int) -> tuple[int, ...]:
    """Return the small integers of a repeated field, packed or not.

    Packed, a number below 128 is one byte; a larger one gives several that nobody asked for.
    """
    values: list[int] = []
    for field in _fields(message):
        if field.number == number:
            values += [field.value] if isinstance(field.value, int) else list(field.value[:MAX_FIELDS])
    return tuple(values)


def _constant(graph: Mapping[str, _Node], name: str) -> Float32Array:
    """Return the float32 tensor of a constant."""
    node = _plain(graph, name)
    tensor = next((_message(f) for f in _fields(node.attrs.get("value", b"")) if f.number == 8), None)
    if node.op != "Const" or tensor is None:
        raise _UnexpectedError(f"{node.name} is {node.op}, needed a constant")
    shape: tuple[int, ...] = ()
    kind, content, values = 0, b"", b""
    for field in _fields(tensor):
        if field.number == 1 and isinstance(field.value, int):
            kind = field.value
        elif field.number == 2:
            shape = _shape(_message(field))
        elif field.number == 4:
            content = bytes(_message(field))
        elif field.number == 5:
            values += bytes(field.value) if isinstance(field.value, memoryview) else b""
    size = math.prod(shape)
    if kind != 1 or size > MAX_WEIGHTS or len(shape) > 4:
        raise _UnexpectedError(
            f"{node.name} is a tensor of type {kind} and shape {shape}, needed float32 of modest size"
        )
    if content and len(content) == 4 * size:
        return np.frombuffer(content, "<f4").reshape(shape)
    # Few values stand for many: the last one is repeated, and none at all is zero.
    if not content and len(values) % 4 == 0 and len(values) <= 4 * size:
        given = np.frombuffer(values or bytes(4), "<f4")
        return np.pad(given, (0, size - given.size), mode="edge").reshape(shape)
    raise _UnexpectedError(f"{node.name} has shape {shape}, but {len(content or values)} bytes")


def _shape(message: memoryview) -> tuple[int, ...]:
    """Read a TensorShapeProto."""
    return tuple(
        next((part.value for part in _fields(_message(dim)) if part.number == 1 and isinstance(part.value, int)), 0)
        for dim in _fields(message)
        if dim.number == 2
    )
