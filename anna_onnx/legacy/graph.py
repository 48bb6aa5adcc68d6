"""The network of the old ANNA as an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anna_onnx._version import __version__
from anna_onnx.errors import MissingExtraError
from anna_onnx.labels import Label
from anna_onnx.legacy.frozen import FrozenNetwork, same_padding

OPSET, IR_VERSION = 17, 8


def onnx_bytes(network: FrozenNetwork, labels: Sequence[Label], sigma: ArrayLike | None = None) -> bytes:
    """Build the ONNX file of an old network.

    Its input is ``flux``, float32 of shape (batch, n_pixel), continuum = 1;
    a NaN is a pixel that is not valid and counts as continuum. Its outputs are
    ``labels`` and ``sigma``, float32 of shape (batch, n_label), in the labels' units.

    Parameters
    ----------
    network : FrozenNetwork
    labels : sequence of Label, length n_label
    sigma : array_like, shape (n_label,), optional
        The same for every spectrum; NaN when not given.

    Raises
    ------
    MissingExtraError
        If the package onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("Converting a frozen.model", "train") from error

    constants = [
        numpy_helper.from_array(np.ascontiguousarray(values), name)
        for name, values in _constants(network, labels, sigma).items()
    ]
    nodes = [helper.make_node(op, inputs, [output], **attrs) for op, inputs, output, attrs in _operations(network)]
    shapes = {"flux": network.n_pixel, "labels": network.n_label, "sigma": network.n_label}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in shapes.items()
    }
    graph = helper.make_graph(nodes, "anna", [values["flux"]], [values["labels"], values["sigma"]], constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="anna-onnx",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _constants(network: FrozenNetwork, labels: Sequence[Label], sigma: ArrayLike | None) -> dict[str, NDArray[Any]]:
    rows = network.fc1_weight.reshape(network.n_pixel, network.filters, -1)
    unknown = np.full(network.n_label, np.nan)
    return {
        "continuum": np.array([1], np.float32),
        "channel": np.array([1], np.int64),
        "conv_weight": network.conv_weight.T[:, None, :],  # (filters, 1, kernel)
        "conv_bias": network.conv_bias,
        # The old program flattened pixel by pixel, ONNX flattens channel by channel.
        "fc1_weight": rows.transpose(1, 0, 2).reshape(network.fc1_weight.shape),
        "fc1_bias": network.fc1_bias,
        "fc2_weight": network.fc2_weight,
        "fc2_bias": network.fc2_bias,
        "fc3_weight": network.fc3_weight,
        "span": np.array([label.span for label in labels], np.float32),
        "low": np.array([label.low for label in labels], np.float32),
        "sigma_of_all": np.asarray(unknown if sigma is None else sigma, dtype=np.float32)[None],
    }


def _operations(network: FrozenNetwork) -> list[tuple[str, list[str], str, dict[str, Any]]]:
    """Return the graph: operation, inputs, output, attributes."""
    return [
        ("IsNaN", ["flux"], "missing", {}),
        ("Where", ["missing", "continuum", "flux"], "filled", {}),
        ("Unsqueeze", ["filled", "channel"], "image", {}),  # (batch, 1, n_pixel)
        ("Conv", ["image", "conv_weight", "conv_bias"], "conv", {"pads": list(same_padding(network.kernel))}),
        ("Relu", ["conv"], "conv_relu", {}),
        ("Flatten", ["conv_relu"], "flat", {}),
        ("Gemm", ["flat", "fc1_weight", "fc1_bias"], "fc1", {}),
        ("Relu", ["fc1"], "fc1_relu", {}),
        ("Gemm", ["fc1_relu", "fc2_weight", "fc2_bias"], "fc2", {}),
        ("Relu", ["fc2"], "fc2_relu", {}),
        ("MatMul", ["fc2_relu", "fc3_weight"], "scaled", {}),
        ("Mul", ["scaled", "span"], "spanned", {}),
        ("Add", ["spanned", "low"], "labels", {}),
        ("Shape", ["labels"], "shape", {}),
        ("Expand", ["sigma_of_all", "shape"], "sigma", {}),
    ]
