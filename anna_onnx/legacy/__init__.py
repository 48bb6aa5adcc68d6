"""Files of the old ANNA (Lee-Brown 2017), opened and converted.

``binary``        training files (.bin)
``parameters``    ANNA.param, read
``translation``   ANNA.param, turned into params.toml
``frozen``        frozen.model, read without TensorFlow
``graph``         its network as ONNX
``residuals``     test_stats.out, the errors of an old network
``models``        frozen.model, turned into a bundle
``conversion``    one door for all of them
"""

from anna_onnx.legacy.binary import (
    binary_to_hdf5,
    hdf5_to_binary,
    is_training_set,
    open_binary,
    open_training_set,
)
from anna_onnx.legacy.conversion import Options, convert, identify
from anna_onnx.legacy.parameters import read_parameters

__all__ = [
    "Options",
    "binary_to_hdf5",
    "convert",
    "hdf5_to_binary",
    "identify",
    "is_training_set",
    "open_binary",
    "open_training_set",
    "read_parameters",
]
