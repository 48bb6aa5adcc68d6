"""Training, testing and exporting networks: the only part that imports torch and onnx."""

from importlib.util import find_spec

from anna_onnx.errors import MissingExtraError

if not all(map(find_spec, ("torch", "onnx", "onnxscript", "safetensors"))):
    raise MissingExtraError("Training, testing or exporting a network", "train")
