"""Files of the old ANNA (Lee-Brown 2017), opened and converted.

``binary``      training files (.bin)
"""

from anna_onnx.legacy.binary import binary_to_hdf5, hdf5_to_binary, open_binary, open_training_set

__all__ = ["binary_to_hdf5", "hdf5_to_binary", "open_binary", "open_training_set"]
