"""The version of anna-onnx, in a module of its own so that building it imports nothing."""

__version__ = "0.1.0"
